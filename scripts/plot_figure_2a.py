"""Draw Figure 2a of paper A: the mean gold reward of each student after human and after weak feedback.

Left the published bars, right those of this run, with 95 % intervals. A bar is the student after preference
optimisation (DPO) on the labels of one source; the white diamond in it is the same student before
that, fine-tuned (SFT) on the chosen answers only; the dashed line is the un-tuned student. Sources are drawn
as far as the run has them: human, weak, gold (noise-free), any other.

If the run has students of the paper, both panels list the same students in the same order and share their
axes. If it has others (the demo), each panel has axes of its own, and the caption says that only the order of
bars compares.

Inputs:  tables (``rewards.csv`` of ``summarise``), the published values.
Outputs: the figure as PDF and PNG, and as CSV what is drawn: panel, data, share, student, arm, mean, low,
high, seeds, prompts, gold, source.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli
from w2s.errors import DataError
from w2s.results import (
    SFT_SUFFIX,
    UNTUNED,
    arm_order,
    counts,
    feedback_label,
    feedback_of,
    feedback_order,
    is_sft,
    main_gold,
    number,
    policy_of,
    read_published,
    read_result,
    records,
    same_model,
    setting_labels,
    share_label,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ARTIFACT = "a_figure_2a"
TITLE = "Figure 2a: gold reward after human and after weak feedback"
DRAWN = (
    *("panel", "data", "share", "student", "arm", "mean", "low", "high"),
    *("seeds", "prompts", "gold", "source"),
)
GROUP_WIDTH = 0.8


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    args = arguments(argv)
    from w2s import plotting

    published, run = published_bars(args.published), run_bars(args.tables)
    with plotting.style():
        figure, note = draw(published, run)
        drawn = drawn_table(published, run)
        title = TITLE
        plotting.save_all(
            figure,
            drawn,
            pdf=args.pdf,
            png=args.png,
            csv=args.csv,
            title=title,
            description=f"{title}. {note}",
        )


def arguments(argv: Sequence[str] | None):
    """Parse the command line."""
    parser = cli.StageParser(__doc__)
    parser.input("--tables", help="manifest of the experiment's tables")
    parser.input("--published", help="published/values.csv")
    parser.output("--pdf", help="the figure as PDF")
    parser.output("--png", help="the figure as PNG, 200 dpi")
    parser.output("--csv", help="what is drawn, as CSV")
    return parser.parse_args(argv)


def published_bars(path: Path) -> pd.DataFrame:
    """The paper's bars in the paper's order: one row per student and arm, intervals empty (none were
    printed).

    Raises:
        DataError: the file has no value of Figure 2a.
    """
    values = read_published(path)
    values = values[(values["artifact"] == ARTIFACT) & (values["metric"] == "gold_reward")]
    if values.empty:
        raise DataError(f"no value of {ARTIFACT}", where=path, instead="the rows of the paper's Figure 2a")
    bars = values.rename(columns={"value": "mean"}).assign(
        panel="published", group=values["student"], share=""
    )
    return bars.reset_index(drop=True)


def run_bars(tables: Path) -> pd.DataFrame:
    """This run's means by the main judge; the group is the student, and data or share where several."""
    rewards = read_result(tables, "rewards.csv")
    rewards = rewards[rewards["gold"] == main_gold(tables, rewards)].reset_index(drop=True)
    rewards = rewards.assign(
        panel="this run",
        group=setting_labels(rewards),
        share=[share_label(share) for share in rewards["share"]],
        source=rewards["experiment"],
    )
    twice = rewards.duplicated(["data", "share", "student", "arm"])
    if twice.any():
        row = rewards[twice].iloc[0]
        raise DataError(
            f"arm {row['arm']!r} of {row['group']!r} occurs twice", where=f"{tables}, rewards.csv"
        )
    order = sorted(rewards.index, key=lambda row: arm_order(rewards["arm"][row]))
    return rewards.loc[order].reset_index(drop=True)


def groups_of(published: pd.DataFrame, run: pd.DataFrame) -> tuple[list[str], list[str], bool]:
    """Groups of the left and of the right panel, and whether both panels share them.

    They do if the run has one group per student and at least one of the paper's students: then the right
    panel takes the paper's names and order, further students follow.
    """
    left = list(dict.fromkeys(published["group"]))
    right = list(dict.fromkeys(sorted(run["group"], key=_natural)))
    names = {same_model(name): name for name in left}
    shared = run.groupby("student")["group"].nunique().max() == 1 and any(
        same_model(s) in names for s in run["student"]
    )
    if not shared:
        return left, right, False
    run["group"] = [names.get(same_model(student), student) for student in run["student"]]
    return left, left + sorted(set(run["group"]) - set(left), key=_natural), True


def draw(published: pd.DataFrame, run: pd.DataFrame) -> tuple[Figure, str]:
    """The figure and its caption."""
    from w2s import plotting

    left, right, shared = groups_of(published, run)
    figure = plotting.new_figure(height=3.75)
    right_share = 0.5 if shared else panel_share(run, len(right))
    panels = figure.subplots(1, 2, width_ratios=[1 - right_share, right_share], sharey=shared)
    draw_panel(panels[0], published, left, right_share)
    draw_panel(panels[1], run, right, 1 - right_share)
    panels[0].set_title("Published")
    panels[0].set_xlabel("Student")
    panels[0].set_ylabel("Mean gold reward (points)")
    panels[1].set_title("This run")
    panels[1].set_xlabel("Student" if shared else group_axis(run))
    if not shared:
        panels[1].set_ylabel("Mean gold reward (points)")
    note = caption(run, shared)
    handles, labels = legend_entries(published, run)
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 6), columnspacing=1.5)
    plotting.add_note(figure, note)
    return figure, note


def panel_share(run: pd.DataFrame, groups: int) -> float:
    """Share of the width that the right panel takes: by its bars against the paper's eight, within reason."""
    bars = groups * run.loc[run["arm"] != UNTUNED, "feedback"].nunique()
    return min(max(bars / (bars + 8), 0.38), 0.62)


def group_axis(run: pd.DataFrame) -> str:
    """Title of the right panel's x axis: what its groups are."""
    differing = [name for name in ("data", "share", "student") if run[name].nunique() > 1]
    names = {"data": "data set", "share": "labelled share", "student": "student"}
    if "student" in differing or not differing:
        return " · ".join(names[name] for name in differing or ["student"]).capitalize()
    return f"{' · '.join(names[name] for name in differing).capitalize()} (student {run['student'].iloc[0]})"


def draw_panel(axes: Axes, bars: pd.DataFrame, groups: Sequence[str], other_share: float) -> None:
    """One group of bars per student; ``other_share`` of the figure's width belongs to the other panel."""
    from w2s.plotting import SOFT_INK, looks

    sources = looks(bars["arm"])
    for place, group in enumerate(groups):
        rows = bars[bars["group"] == group]
        if rows.empty:
            axes.text(place, 0, "not run", ha="center", va="bottom", rotation=90, fontsize=7, color=SOFT_INK)
        for row in records(rows[rows["arm"] == UNTUNED]):
            _untuned_line(axes, place, row)
        for rank, source in enumerate(sources):
            width = GROUP_WIDTH / len(sources)
            x = place - GROUP_WIDTH / 2 + (rank + 0.5) * width
            bar, diamond = (rows[rows["arm"] == arm] for arm in (source, source + SFT_SUFFIX))
            # Beside each other, so that the two intervals can be told apart.
            aside = width / 5 if len(diamond) else 0
            _bar(axes, x, width, bar, sources[source], aside)
            _diamond(axes, x - aside, diamond)
            _value_label(axes, x, bar, diamond, crowded=len(groups) * len(sources) > 21 * (1 - other_share))
    crowded = sum(len(group) for group in groups) > 62 * (1 - other_share)
    axes.set_xticks(range(len(groups)), [_two_lines(group, crowded) for group in groups])
    margin = 0.55 if len(groups) > 2 else 0.8
    axes.set_xlim(-margin, len(groups) - 1 + margin)
    axes.axhline(0, color=SOFT_INK, linewidth=0.7)
    axes.margins(y=0.08)


def _bar(axes: Axes, x: float, width: float, rows: pd.DataFrame, look, aside: float) -> None:
    from w2s.plotting import INK, whisker

    for row in records(rows):
        axes.bar(
            x,
            row.mean,
            width * 0.92,
            color=look.colour,
            hatch=look.hatch,
            edgecolor=INK,
            linewidth=0.6,
            zorder=2,
        )
        if _has_interval(row):
            whisker(axes, x + aside, row.mean, row.low, row.high)


def _diamond(axes: Axes, x: float, rows: pd.DataFrame) -> None:
    from w2s.plotting import INK, whisker

    for row in records(rows):
        if _has_interval(row):
            whisker(axes, x, row.mean, row.low, row.high, width=0.7)
        axes.plot(
            x,
            row.mean,
            "D",
            color="white",
            markeredgecolor=INK,
            markeredgewidth=0.8,
            markersize=4.2,
            zorder=6,
        )


def _untuned_line(axes: Axes, place: float, row) -> None:
    from w2s.plotting import INK, UNTUNED_COLOUR

    ends = [place - GROUP_WIDTH / 2 - 0.04, place + GROUP_WIDTH / 2 + 0.04]
    if _has_interval(row):
        axes.fill_between(ends, row.low, row.high, color=UNTUNED_COLOUR, alpha=0.45, linewidth=0, zorder=3)
    axes.plot(ends, [row.mean] * 2, color="white", linewidth=2.2, zorder=3.1)
    axes.plot(ends, [row.mean] * 2, color=INK, linewidth=1.1, linestyle=(0, (3, 1.6)), zorder=3.2)


def _value_label(axes: Axes, x: float, bar: pd.DataFrame, diamond: pd.DataFrame, *, crowded: bool) -> None:
    """The bar's height in figures, above all that is drawn at its place."""
    from w2s.plotting import INK

    if bar.empty:
        return
    top = max(rows.reindex(columns=["mean", "high"]).max().max() for rows in (bar, diamond) if len(rows))
    text = number(bar["mean"].iloc[0])
    place = {"rotation": 90, "fontsize": 6} if crowded else {"fontsize": 6.5}
    axes.annotate(
        text,
        (x, max(top, 0)),
        (0, 2.5),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color=INK,
        **place,
    )


def legend_entries(published: pd.DataFrame, run: pd.DataFrame) -> tuple[list, list[str]]:
    """Handles and labels: sources, then the SFT diamond and the un-tuned line where the run has them."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from w2s.plotting import INK, looks

    arms = [*published["arm"], *run["arm"]]
    # Two names with one look, the paper's "weak" and the run's only weak teacher, are one entry.
    names: dict = {}
    for source, look in [*looks(published["arm"]).items(), *looks(run["arm"]).items()]:
        names.setdefault(look, []).append(source)
    handles: list = []
    labels: list[str] = []
    for look, sources in sorted(names.items(), key=lambda item: feedback_order(item[1][0])):
        handles.append(Patch(facecolor=look.colour, hatch=look.hatch, edgecolor=INK, linewidth=0.6))
        policies = {policy_of(source) for source in sources}
        labels.append(f"{policies.pop()} labels" if look.marker in "os^" else feedback_label(sources[0]))
    if any(is_sft(arm) for arm in arms):
        diamond: dict[str, Any] = {
            "marker": "D",
            "markerfacecolor": "white",
            "markeredgecolor": INK,
            "markersize": 4.2,
        }
        handles.append(Line2D([], [], color="none", **diamond))
        labels.append("SFT only")
    if UNTUNED in arms:
        handles.append(Line2D([], [], color=INK, linewidth=1.1, linestyle=(0, (3, 1.6))))
        labels.append("un-tuned student")
    return handles, labels


def caption(run: pd.DataFrame, shared: bool) -> str:
    """What one must know to read the figure, computed from what is in it."""
    present = {policy_of(feedback_of(arm)) for arm in run["arm"]}
    weak = {feedback_of(arm) for arm in run["arm"] if policy_of(feedback_of(arm)) == "weak"}
    teachers = sorted(source.removeprefix("weak-") for source in weak - {"weak"})
    parts = [
        "Left: the paper's bars (HH-RLHF, OPT-125M teacher; no intervals were printed).",
        f"Right: this run, {counts(run)}, judge: {run['gold'].iloc[0]}"
        + (f", weak teacher: {', '.join(teachers)}." if teachers else "."),
        "Bars: after DPO on the labels named.",
        "Whiskers and bands: 95 % intervals, bootstrap over "
        + ("prompts only (one seed)." if run["seeds"].max() <= 1 else "seeds and prompts."),
    ]
    if not shared:
        parts.append(
            "Students, data and judge differ between the panels, so each has its own axes: "
            "compare the order of bars, not their heights."
        )
    for source in ("human", "weak"):
        if source not in present:
            parts.append(f"This run has no arm with {source} labels.")
    return " ".join(parts)


def drawn_table(published: pd.DataFrame, run: pd.DataFrame) -> pd.DataFrame:
    """All that is drawn, one row per bar, diamond and line."""
    import pandas as pd

    whole = pd.concat([published, run], ignore_index=True).reindex(columns=list(DRAWN))
    return whole.astype({"seeds": "Int64", "prompts": "Int64"})


def _two_lines(group: str, crowded: bool) -> str:
    """A group's name over as many lines as it has parts; a crowded axis also breaks at the first hyphen."""
    lines = group.split(" · ")
    if crowded:
        lines = [line.replace("-", "-\n", 1) for line in lines]
    return "\n".join(lines)


def _has_interval(row) -> bool:
    low = getattr(row, "low", None)
    return low is not None and low == low


def _natural(name: str) -> list[tuple[int, float, str]]:
    """Sort key that puts ``t0.4`` before ``t1`` and ``t10``, ``2.7b`` before ``13b``."""
    import re

    return [
        (0, float(part), "") if re.fullmatch(r"\d+(\.\d+)?", part) else (1, 0.0, part)
        for part in re.split(r"(\d+(?:\.\d+)?)", name)
        if part
    ]


if __name__ == "__main__":
    cli.run(main)
