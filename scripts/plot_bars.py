"""Draw mean gold rewards as bars, the paper's beside this run's (paper A: Figures 2a, 2b, 3a, 4a, 5, Table 10).

Left the published bars, right those of this run, with 95 % intervals. A bar is the student after preference
optimisation (DPO) on the labels of one source; the white diamond in it is the same student before
that, fine-tuned (SFT) on the chosen answers only; the dashed line is the un-tuned student. Sources are drawn
as far as the run has them, each in the colour and hatch that it has in all figures.

A group of bars is a student, or a data set, labelled share or recipe where those vary. One student with several
teachers (Figure 2b) has a bar with a name of its own per source. If the paper's item was scored by several
judges (Figure 5), there is a row of panels per judge, else the main judge's rewards are drawn.

If the run has students of the paper, both panels list the same students in the same order and share their
axes. If it has others (the demo), each panel has axes of its own, and the caption says that only the order of
bars compares. An experiment that the paper does not have is drawn alone.

Inputs:  tables (``rewards.csv`` of ``summarise``), the published values.
Outputs: the figure as PDF and PNG, and as CSV what is drawn: panel, data, share, student, recipe, beta, arm,
mean, low, high, seeds, prompts, gold, source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli
from w2s.errors import DataError
from w2s.published import arms_of_rewards, pair, published_item
from w2s.results import (
    SETTING,
    SFT_SUFFIX,
    UNTUNED,
    arm_order,
    counts,
    experiment_name,
    feedback_detail,
    feedback_label,
    feedback_name,
    feedback_of,
    feedback_order,
    is_sft,
    main_gold,
    number,
    of_students,
    policy_of,
    read_result,
    records,
    same_model,
    setting_labels,
    share_label,
    telling_columns,
    with_untuned_by_recipe,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What each item of the paper shows, for the title; others are titled by the experiment's name.
TITLES = {
    "a_figure_2a": "Figure 2a: gold reward after human and after weak feedback",
    "a_figure_2b": "Figure 2b: gold reward by who gave the feedback",
    "a_figure_3a": "Figure 3a: gold reward of students of other families",
    "a_figure_4a": "Figure 4a: gold reward on TL;DR summaries",
    "a_figure_5": "Figure 5: gold reward by other judges",
    "a_table_10": "Table 10: gold reward by weak teacher",
}
DRAWN = (
    *("panel", "data", "share", "student", "recipe", "beta", "arm", "mean", "low", "high"),
    *("seeds", "prompts", "gold", "source"),
)
AXES_NAMES = {"data": "data set", "share": "labelled share", "student": "student", "recipe": "recipe"}
GROUP_WIDTH = 0.8
REWARD = "Mean gold reward (points)"


@dataclass
class Row:
    """One row of panels: the paper's bars and the run's by one judge; either may be empty.

    ``left`` and ``right`` are the groups of the two panels in order, ``shared`` says that they are the same,
    ``by_source`` that a group is a source of feedback and not a student.
    """

    published: pd.DataFrame
    run: pd.DataFrame
    left: list[str]
    right: list[str]
    shared: bool = False
    by_source: bool = False


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    args = arguments(argv)
    from w2s import plotting

    item = published_item(args.published, args.tables, args.artifact)
    rows = panel_rows(published_bars(item), run_bars(args.tables, several=item["gold"].nunique() > 1))
    name = args.artifact or experiment_name(args.tables)
    title = TITLES.get(name, f"Gold reward by feedback: {name}")
    with plotting.style():
        figure, note = draw(rows)
        plotting.save_all(
            figure,
            drawn_table(rows),
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
    parser.spec("--artifact", default=None, help="the paper's item, where it is not the experiment's name")
    return parser.parse_args(argv)


def published_bars(item: pd.DataFrame) -> pd.DataFrame:
    """The paper's bars in the paper's order: one row per student and arm, intervals empty (none were
    printed)."""
    import pandas as pd

    bars = arms_of_rewards(item)
    settings = bars[["share", "beta", "sft"]].copy()
    settings["share"] = settings["share"].mask(settings["share"] != "", "labelled share " + settings["share"])
    settings["beta"] = settings["beta"].mask(settings["beta"] != "", "β = " + settings["beta"])
    settings["sft"] = settings["sft"].map({"yes": "with SFT", "no": "without SFT"}).fillna("")
    told = [" · ".join(filter(None, row)) for row in settings.itertuples(index=False)]
    told = told if len(set(told)) > 1 else [""] * len(bars)
    group = [" · ".join(filter(None, names)) for names in zip(bars["student"], told, strict=True)]
    return bars.assign(
        panel="published", group=group, recipe="", beta=pd.to_numeric(bars["beta"]).astype("float64")
    )


def run_bars(tables: Path, *, several: bool = False) -> pd.DataFrame:
    """This run's means by the main judge, or by several; the group is what varies of :data:`SETTING`.

    Raises:
        DataError: no rewards, or an arm occurs twice.
    """
    rewards = read_result(tables, "rewards.csv")
    main = main_gold(tables, rewards)
    rewards = of_students(rewards if several else rewards[rewards["gold"] == main])
    rewards = with_untuned_by_recipe(rewards)
    rewards = rewards.assign(
        panel="this run",
        group=setting_labels(rewards),
        share=[share_label(share) for share in rewards["share"]],
        source=rewards["experiment"],
    )
    twice = rewards.duplicated([*SETTING, "arm", "gold"])
    if twice.any():
        row = rewards[twice].iloc[0]
        raise DataError(
            f"arm {row['arm']!r} of {row['group']!r} occurs twice", where=f"{tables}, rewards.csv"
        )
    judges = [main, *[gold for gold in dict.fromkeys(rewards["gold"]) if gold != main]]
    # Teachers of one policy keep the experiment's order, which is the paper's where there is one.
    order = sorted(
        rewards.index,
        key=lambda row: (judges.index(rewards["gold"][row]), _arm_rank(rewards["arm"][row])),
    )
    return rewards.loc[order].reset_index(drop=True)


def _arm_rank(arm: str) -> tuple[int, int, int]:
    """Un-tuned, then SFT only, then after DPO; within them by policy."""
    untuned, sft, (policy, _) = arm_order(arm)
    return untuned, sft, policy


def panel_rows(published: pd.DataFrame, run: pd.DataFrame) -> list[Row]:
    """The rows of panels, one per judge: ours beside the paper's of the same name, else of the same rank."""
    ours, theirs = list(dict.fromkeys(run["gold"])), list(dict.fromkeys(published["gold"]))
    partners = pair(ours, theirs)
    judges = [(gold, partners.get(gold)) for gold in ours]
    judges += [(None, gold) for gold in theirs if gold not in partners.values()]
    judges.sort(key=lambda pair: theirs.index(pair[1]) if pair[1] in theirs else len(theirs))
    by_source = sources_are_groups(published, run)
    rows = []
    for ours_gold, theirs_gold in judges:
        left, right = published[published["gold"] == theirs_gold], run[run["gold"] == ours_gold]
        if by_source:
            left, right = grouped_by_source(left), grouped_by_source(right)
            ours_names, theirs_names = (list(dict.fromkeys(bars["group"])) for bars in (right, left))
            rows.append(Row(left, right, theirs_names, ours_names, by_source=True))
        else:
            right = right.copy()
            rows.append(Row(left, right, *groups_of(left, right)))
    return rows


def sources_are_groups(published: pd.DataFrame, run: pd.DataFrame) -> bool:
    """Whether bars are named by source instead of by student: one student, and many sources or several of a
    policy."""
    single = all(bars["group"].nunique() <= 1 for bars in (published, run))
    many = False
    for bars in (published, run):
        sources = {feedback_of(arm) for arm in bars["arm"]} - {""}
        many |= len(sources) > 4 or len({policy_of(source) for source in sources}) < len(sources)
    return single and many


def grouped_by_source(bars: pd.DataFrame) -> pd.DataFrame:
    """Bars with their source as group, in the order of the policies and of the table within them."""
    import pandas as pd

    sources = [source for source in dict.fromkeys(map(feedback_of, bars["arm"])) if source]
    sources.sort(key=lambda source: feedback_order(source)[0])
    parts = [
        bars[[arm == UNTUNED or feedback_of(arm) == source for arm in bars["arm"]]].assign(
            group=source_group(source)
        )
        for source in sources
    ]
    return pd.concat(parts, ignore_index=True) if parts else bars


def source_group(source: str) -> str:
    """Tick of a source: its policy, and below what it is made from."""
    return " · ".join(filter(None, [feedback_name(policy_of(source)), feedback_detail(source)]))


def groups_of(published: pd.DataFrame, run: pd.DataFrame) -> tuple[list[str], list[str], bool]:
    """Groups of the left and of the right panel, and whether both panels share them.

    They do if the run has one group per student and at least one of the paper's students: then the right
    panel takes the paper's names and order, further students follow.
    """
    left = list(dict.fromkeys(published["group"]))
    right = list(dict.fromkeys(run["group"]))
    names = {same_model(name): name for name in left}
    shared = run.groupby("student")["group"].nunique().max() == 1 and any(
        same_model(s) in names for s in run["student"]
    )
    if not shared:
        return left, right, False
    run["group"] = [names.get(same_model(student), student) for student in run["student"]]
    return left, left + [group for group in dict.fromkeys(run["group"]) if group not in left], True


def draw(rows: Sequence[Row]) -> tuple[Figure, str]:
    """The figure and its caption."""
    from w2s import plotting

    figure = plotting.new_figure(height=1.15 + 2.6 * len(rows))
    if any(len(row.published) for row in rows):
        right_share = 0.5 if any(row.shared for row in rows) else max(panel_share(row) for row in rows)
        panels = figure.subplots(len(rows), 2, width_ratios=[1 - right_share, right_share], squeeze=False)
        for (left, right), row in zip(panels, rows, strict=True):
            if row.shared:
                right.sharey(left)
            draw_published(left, row, right_share, len(rows) > 1)
            draw_run(right, row, 1 - right_share, len(rows) > 1)
    else:
        panels = figure.subplots(len(rows), 1, squeeze=False)
        for (axes,), row in zip(panels, rows, strict=True):
            draw_run(axes, row, 0.0, len(rows) > 1)
    note = caption(rows)
    handles, labels = legend_entries(rows)
    figure.legend(handles, labels, loc="outside upper left", ncols=legend_columns(labels), columnspacing=1.5)
    plotting.add_note(figure, note)
    return figure, note


def legend_columns(labels: Sequence[str]) -> int:
    """As many columns as fit the figure's width, each as wide as the widest label."""
    widest = max(map(len, labels), default=1) + 7
    return max(1, min(len(labels), 110 // widest))


def draw_published(axes: Axes, row: Row, other_share: float, several: bool) -> None:
    """The left panel: the paper's bars by one judge."""
    if row.published.empty:
        _nothing(axes, "the paper printed no bars by this judge")
    else:
        draw_panel(axes, row.published, row.left, other_share, by_source=row.by_source)
        axes.set_xlabel("Feedback" if row.by_source else "Student")
        axes.set_ylabel(REWARD)
    axes.set_title(
        "Published" + (f": {_short(row.published['gold'])}" if several and len(row.published) else "")
    )


def draw_run(axes: Axes, row: Row, other_share: float, several: bool) -> None:
    """The right panel: this run's bars by one judge."""
    if row.run.empty:
        _nothing(axes, "not run: this judge")
    else:
        draw_panel(axes, row.run, row.right, other_share, by_source=row.by_source)
        axes.set_xlabel("Student" if row.shared else group_axis(row))
        if not row.shared or not other_share:
            axes.set_ylabel(REWARD)
    axes.set_title("This run" + (f": {_short(row.run['gold'])}" if several and len(row.run) else ""))


def _nothing(axes: Axes, why: str) -> None:
    """An empty panel that says why it is empty."""
    from w2s.plotting import SOFT_INK

    axes.set_axis_off()
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=SOFT_INK)


def _short(golds: pd.Series) -> str:
    """A judge's name without its owner."""
    return str(golds.iloc[0]).rpartition("/")[2]


def panel_share(row: Row) -> float:
    """Share of the width that the right panel takes: by its bars against the paper's, within reason."""
    bars = [
        len(bars[[not is_sft(arm) and arm != UNTUNED for arm in bars["arm"]]])
        for bars in (row.published, row.run)
    ]
    return min(max(bars[1] / max(sum(bars), 1), 0.38), 0.62)


def group_axis(row: Row) -> str:
    """Title of the right panel's x axis: what its groups are."""
    run = row.run
    if row.by_source:
        return f"Feedback (student {run['student'].iloc[0]})"
    differing = telling_columns(run)
    if "student" in differing or not differing:
        return " · ".join(AXES_NAMES[name] for name in differing or ["student"]).capitalize()
    names = " · ".join(AXES_NAMES[name] for name in differing).capitalize()
    return f"{names} (student {run['student'].iloc[0]})"


def draw_panel(
    axes: Axes, bars: pd.DataFrame, groups: Sequence[str], other_share: float, *, by_source: bool = False
) -> None:
    """Bars group by group; ``other_share`` of the figure's width belongs to the other panel."""
    from w2s.plotting import SOFT_INK

    sources = source_looks(bars, by_source)
    crowded = len(groups) * (1 if by_source else len(sources)) > 21 * (1 - other_share)
    for place, group in enumerate(groups):
        rows = bars[bars["group"] == group]
        if rows.empty:
            axes.text(place, 0, "not run", ha="center", va="bottom", rotation=90, fontsize=7, color=SOFT_INK)
        for row in records(rows[rows["arm"] == UNTUNED]):
            _untuned_line(axes, place, row)
        mine = [source for source in sources if not by_source or source_group(source) == group]
        for rank, source in enumerate(mine):
            width = GROUP_WIDTH / len(mine)
            x = place - GROUP_WIDTH / 2 + (rank + 0.5) * width
            bar, diamond = (rows[rows["arm"] == arm] for arm in (source, source + SFT_SUFFIX))
            # Beside each other, so that the two intervals can be told apart.
            aside = width / 5 if len(diamond) else 0
            _bar(axes, x, width, bar, sources[source], aside)
            _diamond(axes, x - aside, diamond)
            _value_label(axes, x, bar, diamond, crowded=crowded)
    letters = len(groups) * max(len(part) for group in groups for part in group.split(" · "))
    tight = letters > 62 * (1 - other_share)
    ticks = [_lines(group, letters > 100 * (1 - other_share)) for group in groups]
    axes.set_xticks(range(len(groups)), ticks, fontsize=6.5 if tight else 8.5)
    margin = 0.55 if len(groups) > 2 else 0.8
    axes.set_xlim(-margin, len(groups) - 1 + margin)
    axes.axhline(0, color=SOFT_INK, linewidth=0.7)
    axes.margins(y=0.08)


def source_looks(bars: pd.DataFrame, by_source: bool) -> dict:
    """Look per source; where each has a place of its own, those of one policy share its look."""
    from w2s.plotting import LOOKS, looks

    found = looks(bars["arm"])
    return {
        source: LOOKS.get(policy_of(source), look) if by_source else look for source, look in found.items()
    }


def _bar(axes: Axes, x: float, width: float, rows: pd.DataFrame, look, aside: float) -> None:
    from w2s.plotting import INK, has_interval, whisker

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
        if has_interval(row):
            whisker(axes, x + aside, row.mean, row.low, row.high)


def _diamond(axes: Axes, x: float, rows: pd.DataFrame) -> None:
    from w2s.plotting import INK, has_interval, whisker

    for row in records(rows):
        if has_interval(row):
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
    from w2s.plotting import INK, UNTUNED_COLOUR, has_interval

    ends = [place - GROUP_WIDTH / 2 - 0.04, place + GROUP_WIDTH / 2 + 0.04]
    if has_interval(row):
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


def legend_entries(rows: Sequence[Row]) -> tuple[list, list[str]]:
    """Handles and labels: sources, then the SFT diamond and the un-tuned line where the run has them."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from w2s.plotting import INK

    arms = [arm for row in rows for bars in (row.published, row.run) for arm in bars["arm"]]
    # Two names with one look, the paper's "weak" and the run's only weak teacher, are one entry. Where each
    # source has a place of its own, the axis names it.
    names: dict = {}
    for row in rows:
        for panel, bars in enumerate((row.published, row.run) if not row.by_source else ()):
            for source, look in source_looks(bars, row.by_source).items():
                names.setdefault(look, ([], []))[panel].append(source)
    handles: list = []
    labels: list[str] = []
    for look, (theirs, ours) in sorted(names.items(), key=lambda entry: _source_rank(*entry[1])):
        handles.append(Patch(facecolor=look.colour, hatch=look.hatch, edgecolor=INK, linewidth=0.6))
        policy = policy_of([*ours, *theirs][0])
        of_policy = [
            one for entry in names.values() for one in [[*entry[1], *entry[0]][0]] if policy_of(one) == policy
        ]
        labels.append(feedback_label(policy) if len(of_policy) == 1 else _both_names(theirs, ours))
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


def _source_rank(theirs: Sequence[str], ours: Sequence[str]) -> int:
    """Place of a legend's entry: that of its policy."""
    return feedback_order([*ours, *theirs][0])[0]


def _both_names(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """``"weak labels (from s; paper: OPT-125M)"``."""
    label = feedback_label([*ours, *theirs][0])
    other = feedback_detail(theirs[0]) if ours and theirs else ""
    same = same_model(other) == same_model(feedback_detail(ours[0])) if ours else True
    return label if same or not other else f"{label.removesuffix(')')}; paper: {other})"


def caption(rows: Sequence[Row]) -> str:
    """What one must know to read the figure, computed from what is in it."""
    import pandas as pd

    run = pd.concat([row.run for row in rows], ignore_index=True)
    printed = any(len(row.published) for row in rows)
    weak = {feedback_of(arm) for arm in run["arm"] if policy_of(feedback_of(arm)) == "weak"}
    teachers = sorted(filter(None, map(feedback_detail, weak)))
    judges = list(dict.fromkeys(run["gold"]))
    parts = [
        f"Left: the paper's bars ({paper_setting(rows)}; no intervals were printed). Right: this run, "
        if printed
        else "This run, ",
        f"{counts(run)}, judge{'s' if len(judges) > 1 else ''}: {', '.join(judges)}",
        f", weak teacher{'s' if len(teachers) > 1 else ''}: {', '.join(teachers)}." if teachers else ".",
        " Bars: after DPO on the labels named. Whiskers and bands: 95 % intervals, bootstrap over ",
        "prompts only (one seed)." if run["seeds"].max() <= 1 else "seeds and prompts.",
    ]
    if printed and not any(row.shared for row in rows):
        parts.append(
            " Students, data or judge differ between the panels, so each has its own axes: "
            "compare the order of bars, not their heights."
        )
    present = {policy_of(feedback_of(arm)) for arm in run["arm"]}
    missing = [source for source in ("human", "weak") if printed and source not in present]
    parts += [f" This run has no arm with {source} labels." for source in missing]
    if not printed:
        parts.append(" The paper prints no bars for this experiment.")
    return "".join(parts)


def paper_setting(rows: Sequence[Row]) -> str:
    """The paper's data and, if there is one only, its teacher."""
    names = {"hh-rlhf": "HH-RLHF", "tldr": "TL;DR"}
    found = [
        list(dict.fromkeys(filter(None, (name for row in rows for name in row.published[column]))))
        for column in ("data", "teacher")
    ]
    data, teachers = found
    words = ", ".join(names.get(name, name) for name in data)
    return words + (f", {teachers[0]} teacher" if len(teachers) == 1 else "")


def drawn_table(rows: Sequence[Row]) -> pd.DataFrame:
    """All that is drawn, one row per bar, diamond and line."""
    import pandas as pd

    parts = [bars for row in rows for bars in (row.published, row.run) if len(bars)]
    whole = pd.concat(parts, ignore_index=True).reindex(columns=list(DRAWN))
    # The line of the un-tuned student stands at each source of a policy, but is one measurement.
    whole = whole.drop_duplicates().reset_index(drop=True)
    return whole.astype({"seeds": "Int64", "prompts": "Int64"})


def _lines(group: str, crowded: bool) -> str:
    """A group's name over as many lines as it has parts; a crowded axis also breaks at hyphens and blanks."""
    lines = group.split(" · ")
    if crowded:
        lines = [line.replace("-", "-\n", 1).replace(" ", "\n") for line in lines]
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
