"""Draw what human label noise does: weak minus human feedback against how often human labels agree with gold.

Left: mean gold reward of the student after weak feedback minus that after human feedback, on the same prompts
and seeds, with its 95 % interval; small dots are single seeds. Above zero weak labels are the better
feedback. Right: how often the labels of either source agree with the gold (noise-free) label; on the diagonal
lie the human labels themselves. Needs data sets whose gold labels are known: the demo worlds, which differ in
human noise only.

Inputs:  tables (``differences.csv`` and ``labels.csv`` of ``summarise``).
Outputs: the figure as PDF and PNG, and as CSV what is drawn, one row per data set, student and weak teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli
from w2s.errors import DataError
from w2s.results import (
    counts,
    main_gold,
    plural,
    policy_of,
    read_result,
    rows_where,
    seed_values,
    share_label,
    weak_minus_human,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Weak minus human feedback against human label noise"
KEY = ["data", "share"]
DRAWN = (
    *("data", "share", "student", "arm", "gold", "seeds", "prompts", "difference", "low", "high"),
    *(
        "seed_differences",
        "human_agreement",
        "human_low",
        "human_high",
        "weak_agreement",
        "weak_low",
        "weak_high",
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", help="manifest of the experiment's tables")
    parser.output("--pdf", help="the figure as PDF")
    parser.output("--png", help="the figure as PNG, 200 dpi")
    parser.output("--csv", help="what is drawn, as CSV")
    args = parser.parse_args(argv)
    from w2s import plotting

    points = read_points(args.tables)
    with plotting.style():
        figure, note = draw(points)
        plotting.save_all(
            figure,
            points,
            pdf=args.pdf,
            png=args.png,
            csv=args.csv,
            title=TITLE,
            description=f"{TITLE}. {note}",
        )


def read_points(tables: Path) -> pd.DataFrame:
    """One row per data set, share, student and weak teacher, sorted by human agreement (low first).

    Raises:
        DataError: no data set has gold labels, or none has both a weak and a human arm.
    """
    differences = read_result(tables, "differences.csv")
    labels = read_result(tables, "labels.csv")
    labels = labels[labels["against"] == "gold"]
    gold = main_gold(tables, read_result(tables, "rewards.csv"))
    differences = weak_minus_human(differences, gold)
    if differences.empty:
        raise DataError(
            f"no difference of a weak and a human arm by judge {gold!r}",
            where=f"{tables}, differences.csv",
            instead="an experiment with feedback human and at least one weak teacher",
        )
    points = differences.merge(agreement(labels, "human"), on=KEY, how="inner")
    if points.empty:
        raise DataError(
            "no data set has labels by which human noise could be measured",
            where=f"{tables}, labels.csv (feedback human, against gold)",
            instead="data sets with gold labels, such as the demo worlds",
        )
    own = labels.rename(columns={"feedback": "arm", **_named("weak")})
    points = points.merge(own[[*KEY, "arm", *_named("weak").values()]], on=[*KEY, "arm"], how="left")
    points["share"] = [share_label(share) for share in points["share"]]
    points = points.astype({"seeds": "int64", "prompts": "int64"})
    order = ["student", "arm", "share", "human_agreement", "data"]
    return points.sort_values(order, kind="stable")[list(DRAWN)].reset_index(drop=True)


def agreement(labels: pd.DataFrame, policy: str) -> pd.DataFrame:
    """Agreement with gold and its interval per data set and share, of the sources with this policy."""
    mine = rows_where(labels, "feedback", lambda feedback: policy_of(feedback) == policy)
    return mine.drop_duplicates(KEY).rename(columns=_named(policy))[[*KEY, *_named(policy).values()]]


def _named(policy: str) -> dict[str, str]:
    return {"agreement": f"{policy}_agreement", "low": f"{policy}_low", "high": f"{policy}_high"}


def draw(points: pd.DataFrame) -> tuple[Figure, str]:
    """The figure and its caption."""
    from w2s import plotting

    figure = plotting.new_figure(height=3.7)
    panels = figure.subplots(1, 2, width_ratios=[0.56, 0.44], sharex=True)
    series = list(points.groupby(["student", "arm", "share"], sort=False))
    styles = series_looks([name for name, _ in series])
    for (name, rows), look in zip(series, styles, strict=True):
        draw_differences(panels[0], rows, look, series_label(name, points))
        draw_accuracy(
            panels[1], rows, look, ", ".join(filter(None, ["weak labels", series_label(name, points)]))
        )
    finish_differences(panels[0], points)
    finish_accuracy(panels[1], points)
    note = caption(points)
    plotting.add_note(figure, note)
    return figure, note


def series_looks(names: Sequence[tuple]) -> list:
    """A look per series; the first is that of weak feedback."""
    from w2s.plotting import LOOKS, SPARE_LOOKS

    available = (LOOKS["weak"], *SPARE_LOOKS)
    return [available[place % len(available)] for place in range(len(names))]


def series_label(name: tuple, points: pd.DataFrame) -> str:
    """Name of a series: what tells it from the others."""
    parts = zip(("student", "arm", "share"), name, strict=True)
    return ", ".join(f"{column} {value}" for column, value in parts if points[column].nunique() > 1)


def draw_differences(axes: Axes, rows: pd.DataFrame, look, label: str) -> None:
    """Weak minus human of one series, with intervals and single seeds."""
    from w2s.plotting import INK, SOFT_INK

    x = 100 * rows["human_agreement"]
    for place, text in zip(x, rows["seed_differences"], strict=True):
        values = seed_values(text)
        if len(values) > 1:
            axes.plot(
                [place + 0.7] * len(values), values, ".", color=SOFT_INK, markersize=3.5, alpha=0.8, zorder=3
            )
    axes.plot(x, rows["difference"], color=look.colour, linewidth=1.2, zorder=2)
    axes.errorbar(
        x,
        rows["difference"],
        yerr=_error(rows, "difference", "low", "high"),
        fmt=look.marker,
        color=look.colour,
        markeredgecolor=INK,
        markeredgewidth=0.8,
        markersize=6,
        ecolor=INK,
        elinewidth=1.0,
        capsize=2.5,
        zorder=4,
        label=label,
    )


def finish_differences(axes: Axes, points: pd.DataFrame) -> None:
    """Zero line, which side means what, names of the data sets."""
    from w2s.plotting import INK, LOOKS, SOFT_INK

    axes.axhline(0, color=INK, linewidth=0.9, zorder=1)
    axes.margins(x=0.1, y=0.12)
    low, high = axes.get_ylim()
    span = max(high, 0) - min(low, 0)
    # Room below for the names of the data sets, and on either side of zero for what that side means.
    bottom, top = min(low, -0.15 * span) - 0.2 * span, max(high, 0.15 * span) + 0.06 * span
    axes.set_ylim(bottom, top)
    axes.axhspan(0, top, color=LOOKS["weak"].colour, alpha=0.09, linewidth=0, zorder=0)
    axes.axhspan(bottom, 0, color=LOOKS["human"].colour, alpha=0.07, linewidth=0, zorder=0)
    inside: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 7.5, "color": SOFT_INK}
    axes.text(0.985, 0.975, "weak labels better ▲", ha="right", va="top", **inside)
    axes.text(0.015, 0.13, "▼ human labels better", ha="left", va="bottom", **inside)
    for data, rows in points.groupby("data"):
        x = 100 * rows["human_agreement"].iloc[0]
        name = str(data).replace("-", "-\n", 1)
        place = axes.get_xaxis_transform()
        axes.text(x, 0.02, name, transform=place, ha="center", va="bottom", fontsize=6.5, color=SOFT_INK)
    axes.set_title("Student's reward: weak minus human")
    axes.set_xlabel("Human labels that agree with gold (%)")
    axes.set_ylabel("Difference in mean gold reward (points)")
    if points[["student", "arm", "share"]].nunique().max() > 1:
        axes.legend(loc="best")


def draw_accuracy(axes: Axes, rows: pd.DataFrame, look, label: str) -> None:
    """Agreement of one series' weak labels with gold."""
    from w2s.plotting import INK

    known = rows[rows["weak_agreement"].notna()]
    if known.empty:
        return
    axes.errorbar(
        100 * known["human_agreement"],
        100 * known["weak_agreement"],
        yerr=100 * _error(known, "weak_agreement", "weak_low", "weak_high"),
        fmt=f"{look.marker}-",
        color=look.colour,
        linewidth=1.2,
        markeredgecolor=INK,
        markeredgewidth=0.8,
        markersize=6,
        ecolor=INK,
        elinewidth=1.0,
        capsize=2.5,
        zorder=4,
        label=label,
    )


def finish_accuracy(axes: Axes, points: pd.DataFrame) -> None:
    """The human labels on the diagonal, names of axes and series."""
    from w2s.plotting import INK, LOOKS

    look = LOOKS["human"]
    human = points.drop_duplicates(["data", "share"]).sort_values("human_agreement")
    x = 100 * human["human_agreement"]
    axes.errorbar(
        x,
        x,
        yerr=100 * _error(human, "human_agreement", "human_low", "human_high"),
        fmt=f"{look.marker}--",
        color=look.colour,
        linewidth=1.2,
        markeredgecolor=INK,
        markeredgewidth=0.8,
        markersize=5.5,
        ecolor=INK,
        elinewidth=1.0,
        capsize=2.5,
        zorder=3,
        label="human labels",
    )
    axes.margins(x=0.1, y=0.12)
    axes.legend(loc="best")
    axes.set_title("Label accuracy")
    axes.set_xlabel("Human labels that agree with gold (%)")
    axes.set_ylabel("Labels that agree with gold (%)")


def caption(points: pd.DataFrame) -> str:
    """What one must know to read the figure, computed from what is in it."""
    one_seed = points["seeds"].max() <= 1
    parts = [
        f"{counts(points)} per point, {plural_sets(points)}, judge: {points['gold'].iloc[0]}.",
        "Squares: means over the same prompts and seeds for both arms, with 95 % intervals (bootstrap over "
        + (
            "prompts only, for there is one seed)." if one_seed else "seeds and prompts); dots: single seeds."
        ),
        "The data sets share prompts and responses and differ in the noise of their human labels only."
        if points["data"].nunique() > 1 and all(name.startswith("world") for name in points["data"])
        else "",
    ]
    return " ".join(part for part in parts if part)


def plural_sets(points: pd.DataFrame) -> str:
    """``"4 data sets"``."""
    import pandas as pd

    return plural(pd.Series([points["data"].nunique()]), "data set")


def _error(rows: pd.DataFrame, middle: str, low: str, high: str):
    """Distances from the mean down and up, as matplotlib takes them: shape (2, rows), never negative."""
    import numpy as np

    return np.clip(np.stack([rows[middle] - rows[low], rows[high] - rows[middle]]), 0, None)


if __name__ == "__main__":
    cli.run(main)
