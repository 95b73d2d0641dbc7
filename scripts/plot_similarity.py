"""Draw how alike two models' responses are to the ones that people chose (paper A: Figure 6).

A point is a test prompt: the similarity of one model's response to the human-chosen response of that prompt, against
the same of another model. Left the student after weak feedback against the one after human feedback, right
against the weak teacher itself (students after DPO only), each with its straight-line fit and R squared, the squared Pearson correlation,
with a 95 % interval. The paper's R squared stands beside ours; its similarity is another one (BLEURT), so that the
order of the two panels compares, and not their level.

Inputs:  tables (``similarity.csv`` and ``similarity_points.csv`` of ``summarise``), the published values.
Outputs: the figure as PDF and PNG, and as CSV its points: data, student, seed, id, left, right, x, y.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli
from w2s.errors import DataError
from w2s.published import of_metric, published_item
from w2s.results import (
    TEACHER,
    arm_label,
    counts,
    experiment_name,
    feedback_label,
    feedback_name,
    feedback_of,
    interval,
    is_sft,
    number,
    policy_of,
    read_result,
    records,
    rows_where,
    setting_labels,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"a_figure_6": "Figure 6: likeness to the human-chosen responses"}
DRAWN = ("data", "student", "seed", "id", "left", "right", "x", "y")
CELL = ["seed", "id"]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", help="manifest of the experiment's tables")
    parser.input("--published", help="published/values.csv")
    parser.output("--pdf", help="the figure as PDF")
    parser.output("--png", help="the figure as PNG, 200 dpi")
    parser.output("--csv", help="the points, as CSV")
    parser.spec("--artifact", default=None, help="the paper's item, where it is not the experiment's name")
    args = parser.parse_args(argv)
    from w2s import plotting
    from w2s.tables import write_csv

    panels, points = read_panels(args.tables)
    item = published_item(args.published, args.tables, args.artifact)
    name = args.artifact or experiment_name(args.tables)
    title = TITLES.get(name, f"Likeness to the human-chosen responses: {name}")
    with plotting.style():
        figure, note = draw(panels, points, item)
        plotting.save(figure, pdf=args.pdf, png=args.png, title=title, description=f"{title}. {note}")
    write_csv(drawn_table(points), args.csv)


def read_panels(tables: Path) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """The rows of ``similarity.csv`` on students after DPO, one panel each, and each panel's points.

    Raises:
        DataError: no rows, several encoders or shares (the points do not tell which is theirs), an arm without
            points, or two arms that were not measured on the same prompts and seeds.
    """
    panels = read_result(tables, "similarity.csv")
    where = f"{tables}, similarity.csv"
    panels = rows_where(panels, "left", lambda arm: bool(feedback_of(arm)) and not is_sft(arm))
    panels = panels.reset_index(drop=True)
    if panels.empty:
        raise DataError("the table of similarities has no student after DPO", where=where)
    for column in ("encoder", "share"):
        if panels[column].nunique() > 1:
            raise DataError(
                f"several values of {column}, and the points do not tell which is theirs",
                where=where,
                instead=f"an experiment with one {column}",
            )
    points = read_result(tables, "similarity_points.csv")
    return panels, [_points(points, row, f"{tables}, similarity_points.csv") for row in records(panels)]


def _points(points: pd.DataFrame, row: Any, where: str) -> pd.DataFrame:
    """The points of one panel: both arms of one student, joined by seed and prompt."""
    sides = []
    for arm in (row.left, row.right):
        mine = points[(points["data"] == row.data) & (points["arm"] == arm)]
        # The teacher is no student: its points stand under its own name or under none.
        if feedback_of(arm) != TEACHER:
            mine = mine[mine["student"] == row.student]
        if mine.empty:
            raise DataError(f"arm {arm!r} of {row.student!r} on {row.data!r} has no points", where=where)
        twice = mine.duplicated(CELL)
        if twice.any():
            first = mine[twice].iloc[0]
            raise DataError(
                f"arm {arm!r} has two points of seed {first['seed']}, id {first['id']}", where=where
            )
        sides.append(mine[[*CELL, "similarity"]])
    both = sides[0].merge(sides[1], on=CELL, how="outer", suffixes=("_x", "_y"))
    lone = both[both["similarity_x"].isna() | both["similarity_y"].isna()]
    if len(lone):
        first = lone.iloc[0]
        raise DataError(
            f"{len(lone)} points of {row.left!r} or {row.right!r} have no partner, "
            f"first: seed {first['seed']}, id {first['id']}",
            where=where,
        )
    both = both.rename(columns={"similarity_x": "x", "similarity_y": "y"})
    return both.assign(data=row.data, student=row.student, left=row.left, right=row.right)


def draw(panels: pd.DataFrame, points: Sequence[pd.DataFrame], item: pd.DataFrame) -> tuple[Figure, str]:
    """The figure and its caption: two panels a line."""
    from w2s import plotting

    lines = (len(panels) + 1) // 2
    figure = plotting.new_figure(height=0.55 + 3.45 * lines)
    places = figure.subplots(lines, 2, squeeze=False, sharex=True, sharey=True).flatten()
    several = panels["student"].nunique() > 1 or panels["data"].nunique() > 1
    titles = setting_labels(panels.assign(recipe=""), ("data", "student"))
    for axes, row, mine, setting in zip(places, records(panels), points, titles, strict=False):
        draw_panel(axes, row, mine, printed_r2(item, row))
        against = " against ".join(_role(arm) for arm in (row.left, row.right)).capitalize()
        axes.set_title(f"{against} ({setting})" if several else against)
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    note = caption(panels, item)
    plotting.add_note(figure, note)
    return figure, note


def draw_panel(axes: Axes, row: Any, points: pd.DataFrame, printed: float | None) -> None:
    """The points of two arms, the diagonal, the fit and its R squared."""
    from w2s.plotting import INK, LOOKS, SOFT_INK

    look = LOOKS.get(policy_of(feedback_of(row.right)))
    colour = look.colour if look else "#AA4499"
    axes.plot(
        points["x"],
        points["y"],
        ".",
        color=colour,
        markersize=5,
        alpha=0.6,
        markeredgewidth=0,
        rasterized=True,
    )
    low, high = (float(value) for value in (points["x"].min(), points["x"].max()))
    axes.plot([low, high], [low, high], color=SOFT_INK, linewidth=0.8, linestyle=":", zorder=3)
    axes.plot(
        [low, high],
        [row.intercept + row.slope * end for end in (low, high)],
        color=INK,
        linewidth=1.6,
        zorder=4,
    )
    text = f"R² = {number(row.r2)} {interval(row.low, row.high)}"
    text += "" if printed is None else f"\npaper: {number(printed)}"
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, max(top, 1.2 * max(points["y"].max(), high) - 0.2 * bottom))
    box = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    axes.text(0.03, 0.97, text, transform=axes.transAxes, ha="left", va="top", bbox=box, zorder=5)
    axes.grid(True, axis="both")
    axes.tick_params(labelbottom=True, labelleft=True)
    axes.set_xlabel(f"Similarity: {_model(row.left)}")
    axes.set_ylabel(f"Similarity: {_model(row.right)}")


def _role(arm: str) -> str:
    """An arm's place in a title; its axis names it in full."""
    source = feedback_of(arm)
    return "the teacher" if source == TEACHER else feedback_name(policy_of(source))


def _model(arm: str) -> str:
    """An arm as the model that wrote the responses."""
    if feedback_of(arm) == TEACHER:
        return arm_label(arm)
    return f"student after {feedback_label(feedback_of(arm))}"


def printed_r2(item: pd.DataFrame, row: Any) -> float | None:
    """The paper's R squared of the same two roles, e.g. weak against human."""
    role = f"{policy_of(feedback_of(row.left))}_against_{policy_of(feedback_of(row.right))}"
    values = of_metric(item, "r_squared")
    found = values.loc[values["arm"] == role, "value"]
    return float(found.iloc[0]) if len(found) else None


def caption(panels: pd.DataFrame, item: pd.DataFrame) -> str:
    """What one must know to read the figure, computed from what is in it."""
    students = ", ".join(dict.fromkeys(panels["student"]))
    parts = [
        f"Student {students}, {counts(panels)}; a point is a prompt and seed: cosine similarity to the "
        f"human-chosen response, encoder: {panels['encoder'].iloc[0]}. ",
        "Solid: straight-line fit; dotted: equal similarity. R² is the squared Pearson correlation, with its 95 % "
        "interval, bootstrap over ",
        "prompts only (one seed)." if panels["seeds"].max() <= 1 else "seeds and prompts.",
    ]
    if len(item):
        parts.append(
            " The paper's R² are of BLEURT similarities and of 500 prompts: compare which panel's is higher."
        )
    return "".join(parts)


def drawn_table(points: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All points that are drawn."""
    import pandas as pd

    return pd.concat(points, ignore_index=True)[list(DRAWN)]


if __name__ == "__main__":
    cli.run(main)
