"""A small report of made-up tables, for tests of the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import plot_bars
import plot_drops
import plot_label_noise
from synthetic_tables import WORLDS, make_filtered, make_tables

import report

PUBLISHED = Path(__file__).resolve().parents[1] / "published" / "values.csv"
DROPS = [
    (subset, reason, rows) for subset, rows in (("helpful", 12), ("harmless", 3)) for reason in ("too_long",)
]


def make_figures(folder: Path, main: Path, noise: Path, filtered: Path) -> list[Path]:
    """The three figures that the demo has had from the start."""
    pictures = [folder / f"{name}.png" for name in ("a_figure_2a", "label_noise", "drops_hh")]
    outputs = [
        ["--pdf", str(png.with_suffix(".pdf")), "--png", str(png), "--csv", str(png.with_suffix(".csv"))]
        for png in pictures
    ]
    plot_bars.main(["--tables", str(main), "--published", str(PUBLISHED), *outputs[0]])
    plot_label_noise.main(["--tables", str(noise), *outputs[1]])
    plot_drops.main(["--filtered", str(filtered), *outputs[2]])
    return pictures


def make_report(folder: Path) -> Path:
    """The page of a run with two experiments and all figures."""
    main = make_tables(folder / "main", experiment="a_figure_2a")
    noise = make_tables(folder / "noise", worlds=WORLDS)
    filtered = make_filtered(folder / "filtered" / "hh", DROPS, {"helpful": 88, "harmless": 97})
    pictures = make_figures(folder / "figures", main, noise, filtered)
    return write_report(folder / "report.html", [main, noise], pictures, [filtered])


def write_report(
    page: Path, tables: Sequence[Path], figures: Sequence[Path] = (), filtered: Sequence[Path] = ()
) -> Path:
    """Run the report script."""
    template = Path(report.__file__).parent.parent / "report" / "template.html"
    arguments = ["--tables", *map(str, tables), "--preset", "demo", "--output", str(page)]
    arguments += ["--template", str(template)]
    arguments += ["--figures", *map(str, figures), "--filtered", *map(str, filtered)]
    report.main(arguments)
    return page
