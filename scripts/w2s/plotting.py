"""One style for all figures: readable in print, in grey and for colour-blind readers; the same bytes each
time.

Feedback sources keep their colour *and* their hatch or marker in every figure. Lightness differs as well, so
that a grey copy still tells them apart. Files carry no time stamp and no version, fonts are embedded as
TrueType, and each file appears whole or not at all. The caption travels inside the files (PNG
``Description``, PDF ``Subject``), from where the report takes it as the picture's text.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from w2s.artifact import write_atomically
from w2s.results import feedback_of, feedback_order, policy_of
from w2s.tables import write_csv

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

INK = "#222222"
SOFT_INK = "#5a5a5a"
GRID = "#dddddd"
UNTUNED_COLOUR = "#8c8c8c"
PNG_DPI = 200
WIDTH = 7.2  # inches: a printed page between its margins
NOTE_SIZE = 7.0
# Fonts that matplotlib ships, so that the figure is the same on every machine.
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT_INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 2.5,
    "text.color": INK,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.7,
    "legend.handleheight": 1.0,
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,
    "pdf.compression": 9,
}


@dataclass(frozen=True)
class Look:
    """How a feedback source is drawn."""

    colour: str
    hatch: str
    marker: str


# Okabe-Ito colours, tints and shades; no two share hatch or marker, and those that stand in one figure of the
# paper differ in grey as well.
LOOKS = {
    "human": Look("#0072B2", "", "o"),
    "weak": Look("#E69F00", "////", "s"),
    "prompted": Look("#CC79A7", "xx", "X"),
    "reward": Look("#F0E442", "--", "p"),
    "match": Look("#F5CE80", "//", "<"),
    "mismatch": Look("#8A4B00", "\\\\", ">"),
    "random": Look("#6E6E6E", "++", "d"),
    "kept": Look("#B9B9B9", "||", "v"),
    "flipped": Look("#3D3D3D", "oo", "P"),
    "confident": Look("#D55E00", "OO", "h"),
    "ensemble": Look("#FFE3AE", "**", "*"),
    "everything": Look("#9CCBEA", "---", "8"),
    "gold": Look("#009E73", "....", "^"),
}
SPARE_LOOKS = (Look("#56B4E9", "\\\\\\\\", "D"), Look("#AA4499", "xxxx", "H"), Look("#882255", "++++", "v"))


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """Look per feedback source, by policy: the first of a policy has its look, others a spare one."""
    sources = [source for source in dict.fromkeys(map(feedback_of, arms)) if source]
    sources.sort(key=lambda source: feedback_order(source)[0])
    found: dict[str, Look] = {}
    for source in sources:
        own = LOOKS.get(policy_of(source))
        free = [spare for spare in SPARE_LOOKS if spare not in found.values()] or list(SPARE_LOOKS)
        found[source] = own if own is not None and own not in found.values() else free[0]
    return found


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The style, for making *and* saving a figure."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure (inches) whose parts arrange themselves."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.04, wspace=0.03)  # type: ignore[union-attr, call-arg]
    return figure


def add_note(figure: Figure, note: str, characters: int = 132) -> None:
    """A caption in small print below the panels."""
    figure.supxlabel(textwrap.fill(note, characters), fontsize=NOTE_SIZE, color=SOFT_INK, x=0.012, ha="left")


def whisker(
    axes: Axes, x: float, mean: float, low: float, high: float, *, width: float = 0.9, zorder: int = 5
) -> None:
    """A 95 % interval as a vertical whisker that shows on light and dark bars alike."""
    error = [[max(mean - low, 0.0)], [max(high - mean, 0.0)]]
    axes.errorbar(
        x, mean, yerr=error, fmt="none", ecolor="white", elinewidth=width + 1.6, zorder=zorder - 0.1
    )
    axes.errorbar(
        x,
        mean,
        yerr=error,
        fmt="none",
        ecolor=INK,
        elinewidth=width,
        capsize=2.2,
        capthick=width,
        zorder=zorder,
    )


def point(axes: Axes, row: Any, x: float, look: Look, *, size: float = 6.0, label: str | None = None) -> None:
    """A mean as its source's marker, with the whisker of its interval where there is one."""
    if has_interval(row):
        whisker(axes, x, row.mean, row.low, row.high)
    edge: dict[str, Any] = {"markeredgecolor": INK, "markeredgewidth": 0.8, "markersize": size}
    axes.plot(x, row.mean, look.marker, color=look.colour, **edge, zorder=6, label=label)


def has_interval(row: Any) -> bool:
    """Whether a row has an interval; the paper's printed values have none."""
    low = getattr(row, "low", None)
    return low is not None and low == low


def save(figure: Figure, *, pdf: Path, png: Path, title: str, description: str) -> None:
    """Write the figure as PDF and as PNG with 200 dpi: no time, no version, whole or not at all."""
    nothing = {"Creator": None, "Producer": None, "CreationDate": None, "ModDate": None}
    write_atomically(
        pdf,
        lambda path: figure.savefig(
            path, format="pdf", metadata={"Title": title, "Subject": description, **nothing}
        ),
    )
    about = {"Title": title, "Description": description, "Software": None}
    write_atomically(png, lambda path: figure.savefig(path, format="png", dpi=PNG_DPI, metadata=about))


def save_all(
    figure: Figure, drawn: pd.DataFrame, *, pdf: Path, png: Path, csv: Path, title: str, description: str
) -> None:
    """Write the figure and, as CSV, exactly what it draws."""
    save(figure, pdf=pdf, png=png, title=title, description=description)
    write_csv(drawn, csv)
