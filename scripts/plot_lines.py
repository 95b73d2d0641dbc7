"""Draw mean gold rewards as lines over the labelled share or over beta (paper A: Figures 4b and 7).

Left the published points, right those of this run, with 95 % intervals. A line is the student after preference
optimisation (DPO) on the labels of one source, a dotted one with open marks the same student before that,
fine-tuned (SFT) on the chosen answers only; the dashed band is the un-tuned student. The x axis is logarithmic:
what varies in the tables, the share |D_l| / |D| or the DPO loss's beta (equation 3). Beyond that the run may have
several students or data sets; each has a panel of its own, and the left panel is as high as all of them.

Inputs:  tables (``rewards.csv`` of ``summarise``), the published values.
Outputs: the figure as PDF and PNG, and as CSV what is drawn: panel, data, student, recipe, arm, over, x, mean,
low, high, seeds, prompts, gold, source.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli
from w2s.errors import DataError
from w2s.published import arms_of_rewards, drawn, published_item
from w2s.results import (
    UNTUNED,
    arm_order,
    counts,
    experiment_name,
    feedback_label,
    feedback_of,
    is_sft,
    main_gold,
    of_students,
    policy_of,
    read_result,
    records,
    share_label,
    share_value,
    with_untuned_by_recipe,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "a_figure_4b": "Figure 4b: gold reward by the share of labelled data",
    "a_figure_7": "Figure 7: gold reward by the students' beta",
}
AXES = {"share": "Labelled share $|D_l| / |D|$ (log scale)", "beta": "DPO's beta (log scale)"}
DRAWN = (
    *("panel", "data", "student", "recipe", "arm", "over", "x", "mean", "low", "high"),
    *("seeds", "prompts", "gold", "source"),
)
REWARD = "Mean gold reward (points)"


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", help="manifest of the experiment's tables")
    parser.input("--published", help="published/values.csv")
    parser.output("--pdf", help="the figure as PDF")
    parser.output("--png", help="the figure as PNG, 200 dpi")
    parser.output("--csv", help="what is drawn, as CSV")
    parser.spec("--artifact", default=None, help="the paper's item, where it is not the experiment's name")
    args = parser.parse_args(argv)
    from w2s import plotting

    run = run_points(args.tables)
    published = published_points(
        published_item(args.published, args.tables, args.artifact), run["over"].iloc[0]
    )
    name = args.artifact or experiment_name(args.tables)
    title = TITLES.get(name, f"Gold reward over {run['over'].iloc[0]}: {name}")
    with plotting.style():
        figure, note = draw(published, run)
        plotting.save_all(
            figure,
            drawn(published, run, DRAWN),
            pdf=args.pdf,
            png=args.png,
            csv=args.csv,
            title=title,
            description=f"{title}. {note}",
        )


def run_points(tables: Path) -> pd.DataFrame:
    """This run's means by the main judge with their place ``x`` on the axis ``over`` (``share`` or ``beta``).

    Raises:
        DataError: neither share nor beta varies, both do, or a place has an arm twice.
    """
    rewards = read_result(tables, "rewards.csv")
    gold = main_gold(tables, rewards)
    rewards = with_untuned_by_recipe(of_students(rewards[rewards["gold"] == gold]))
    over = _varying(rewards, tables)
    rewards = rewards.assign(
        panel="this run",
        over=over,
        source=rewards["experiment"],
        x=[share_value(share) for share in rewards["share"]] if over == "share" else rewards["beta"],
    )
    lost = rewards[rewards["x"].isna()]
    if len(lost):
        raise DataError(
            f"arm {lost['arm'].iloc[0]!r} of recipe {lost['recipe'].iloc[0]!r} has no beta",
            where=f"{tables}, rewards.csv",
        )
    twice = rewards.duplicated(["data", "student", "arm", "x"])
    if twice.any():
        row = rewards[twice].iloc[0]
        raise DataError(
            f"arm {row['arm']!r} of {row['student']!r} occurs twice at {over} {row['x']:g}",
            where=f"{tables}, rewards.csv",
            instead="an experiment that varies the labelled share or the recipe's beta alone",
        )
    order = sorted(rewards.index, key=lambda row: (arm_order(rewards["arm"][row]), rewards["x"][row]))
    return rewards.loc[order].reset_index(drop=True)


def _varying(rewards: pd.DataFrame, tables: Path) -> str:
    """What the lines run over: the one of share and beta that has several values."""
    several = [name for name in AXES if rewards[name].dropna().nunique() > 1]
    if len(several) != 1:
        found = "both labelled share and beta vary" if several else "neither labelled share nor beta varies"
        raise DataError(
            f"{found}: there is no one axis to draw over",
            where=f"{tables}, rewards.csv",
            instead="several shares, or several recipes that differ in beta",
        )
    return several[0]


def published_points(item: pd.DataFrame, over: str) -> pd.DataFrame:
    """The paper's points over the same axis; none if the item has no value with such a setting."""
    points = arms_of_rewards(item)
    points = points[points[over] != ""]
    place = [share_value(text) if over == "share" else float(text) for text in points[over]]
    return points.assign(panel="published", over=over, x=place, recipe="").reset_index(drop=True)


def draw(published: pd.DataFrame, run: pd.DataFrame) -> tuple[Figure, str]:
    """The figure and its caption."""
    from w2s import plotting

    settings = list(run.groupby(["data", "student"], sort=False))
    figure = plotting.new_figure(height=1.15 + 2.7 * len(settings))
    grid = figure.add_gridspec(len(settings), 2 if len(published) else 1)
    handles: dict = {}
    policies = single_policies(published, run)
    if len(published):
        axes = figure.add_subplot(grid[:, 0])
        handles |= draw_panel(axes, published, policies)
        axes.set_title("Published")
    for place, ((data, student), rows) in enumerate(settings):
        axes = figure.add_subplot(grid[place, -1])
        handles = draw_panel(axes, rows, policies) | handles
        axes.set_title("This run" + (f": {student} on {data}" if len(settings) > 1 else ""))
    labels = sorted(handles, key=lambda label: handles[label][1])
    figure.legend(
        [handles[label][0] for label in labels],
        labels,
        loc="outside upper left",
        ncols=max(1, min(len(labels), 110 // (max(map(len, labels)) + 7))),
        columnspacing=1.5,
    )
    note = caption(published, run)
    plotting.add_note(figure, note)
    return figure, note


def single_policies(*panels: pd.DataFrame) -> set[str]:
    """Policies with at most one source in each panel: their name alone tells the line."""
    sources = [{feedback_of(arm) for arm in points["arm"]} - {""} for points in panels]
    counted = [[policy_of(source) for source in mine] for mine in sources]
    return {policy for mine in counted for policy in mine if all(m.count(policy) <= 1 for m in counted)}


def draw_panel(axes: Axes, points: pd.DataFrame, policies: set[str]) -> dict:
    """The lines of one panel; returns label -> (handle, rank) for the legend."""
    from matplotlib.ticker import NullFormatter, NullLocator

    over = points["over"].iloc[0]
    axes.set_xscale("log")
    handles = {}
    arms = list(dict.fromkeys(points["arm"]))
    for rank, arm in enumerate(sorted(arms, key=lambda arm: (arm == UNTUNED, is_sft(arm), arm_order(arm)))):
        rows = points[points["arm"] == arm].sort_values("x")
        handle = _untuned(axes, rows) if arm == UNTUNED else _line(axes, rows, _look(arms, arm), rank)
        handles[_label(arm, policies)] = (handle, (arm == UNTUNED, is_sft(arm), arm_order(arm)))
    ticks = points.drop_duplicates("x").sort_values("x")
    names = (
        [share_label(text) for text in ticks["share"]] if over == "share" else [f"{x:g}" for x in ticks["x"]]
    )
    axes.set_xticks(list(ticks["x"]), names)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, axis="both")
    axes.margins(x=0.09, y=0.1)
    axes.set_xlabel(AXES[over])
    axes.set_ylabel(REWARD)
    return handles


def _look(arms: Sequence[str], arm: str):
    from w2s.plotting import looks

    return looks(arms)[feedback_of(arm)]


def _label(arm: str, policies: set[str]) -> str:
    """Legend entry of an arm; of a policy with one source, the paper's and ours are one entry."""
    if arm == UNTUNED:
        return "un-tuned student"
    source = feedback_of(arm)
    policy = policy_of(source)
    return feedback_label(policy if policy in policies else source) + (", SFT only" if is_sft(arm) else "")


def _line(axes: Axes, rows: pd.DataFrame, look, rank: int):
    """One arm as a line with marks and whiskers; SFT dotted and open."""
    from matplotlib.lines import Line2D
    from w2s.plotting import INK, has_interval, whisker

    sft = is_sft(rows["arm"].iloc[0])
    # Marks of equal x stand a little beside each other, so that their intervals can be told apart.
    x = rows["x"] * 1.012 ** (rank % 4 - 1.5)
    drawn: dict[str, Any] = {
        "color": look.colour,
        "linestyle": ":" if sft else "-",
        "linewidth": 1.1 if sft else 1.5,
        "marker": look.marker,
        "markerfacecolor": "white" if sft else look.colour,
        "markeredgecolor": look.colour if sft else INK,
        "markersize": 4.2 if sft else 6,
    }
    axes.plot(x, rows["mean"], **drawn, zorder=6 - sft)
    for place, row in zip(x, records(rows), strict=True):
        if has_interval(row):
            whisker(axes, place, row.mean, row.low, row.high, width=0.7 if sft else 0.9, zorder=4)
    return Line2D([], [], **drawn)


def _untuned(axes: Axes, rows: pd.DataFrame):
    """The un-tuned student as a dashed line in its band."""
    from matplotlib.lines import Line2D
    from w2s.plotting import INK, UNTUNED_COLOUR

    if rows["low"].notna().all():
        axes.fill_between(
            rows["x"], rows["low"], rows["high"], color=UNTUNED_COLOUR, alpha=0.35, linewidth=0, zorder=1
        )
    drawn: dict[str, Any] = {"color": INK, "linewidth": 1.1, "linestyle": (0, (3, 1.6))}
    axes.plot(rows["x"], rows["mean"], **drawn, zorder=2)
    return Line2D([], [], **drawn)


def caption(published: pd.DataFrame, run: pd.DataFrame) -> str:
    """What one must know to read the figure, computed from what is in it."""
    intervals = "prompts only (one seed)" if run["seeds"].max() <= 1 else "seeds and prompts"
    students = ", ".join(dict.fromkeys(run["student"]))
    parts = [
        f"Left: the paper's points (student {', '.join(dict.fromkeys(published['student']))}; no intervals "
        "were printed). Right: this run, "
        if len(published)
        else "This run, ",
        f"student {students}, {counts(run)}, judge: {run['gold'].iloc[0]}. ",
        f"Filled: after DPO{'; open: after SFT only' if any(map(is_sft, run['arm'])) else ''}. ",
        f"Whiskers and bands: 95 % intervals, bootstrap over {intervals}; marks of equal x stand slightly apart.",
    ]
    if run["over"].iloc[0] == "share":
        parts.append(" The rest of the data is unlabelled: with a larger share the student has fewer pairs.")
    if len(published):
        parts.append(" Each panel has its own axis of rewards: compare the course of the lines.")
    return "".join(parts)


if __name__ == "__main__":
    cli.run(main)
