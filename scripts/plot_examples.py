"""Draw what the number of examples in the context does (an ablation that paper B lacks: n_ICL from 0 to 16).

x is the number of weak question/answer pairs that the strong model is shown, y the mean score: content, style and, where they are
scored together, both right. A colour is a way to choose the examples (consecutive as in the paper, random, alike questions,
fixed, or gold ones as a control). Solid: a student tuned on the refined labels; dashed: the strong model with the same
examples at test time, without tuning. Where the strong model's own labels were tried, they stand at 0: nothing is shown.
Horizontal lines: unaligned strong model, weak teacher, naive fine-tuning. Whiskers are 95 % intervals.

Inputs:  tables of ``tabulate_transfer``.
Outputs: the figure as PDF and PNG, and as CSV what is drawn: data, student, weak, arm, choice, timed, metric, judge, shown,
mean, low, high, seeds, items.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli
from w2s.errors import DataError
from w2s.results import experiment_name, records, rows_where
from w2s.transfer_results import (
    NAIVE,
    TEACHER,
    UNTUNED,
    arm_words,
    metric_words,
    of_metric,
    read_transfer,
    role,
    said,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = ("content", "style", "both")
DRAWN = (
    *("data", "student", "weak", "arm", "choice", "timed", "metric", "judge", "shown"),
    *("mean", "low", "high", "seeds", "items"),
)
ROW = ["data", "student", "weak"]
# Choice of examples -> its words and place among the looks; others follow.
CHOICES = {
    "consecutive": "consecutive pairs",
    "random": "random pairs",
    "similar": "pairs of alike questions",
    "fixed": "the same pairs for all",
    "gold": "gold pairs (control)",
}
OWN = "own"
LINES = {UNTUNED: (0, (3, 1.6)), TEACHER: (0, (1, 1.4)), NAIVE: (0, (5, 1.2, 1, 1.2))}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", help="manifest of the transfer's tables")
    parser.output("--pdf", help="the figure as PDF")
    parser.output("--png", help="the figure as PNG, 200 dpi")
    parser.output("--csv", help="what is drawn, as CSV")
    parser.spec("--metrics", nargs="+", default=list(METRICS), help="a column of panels each, if there")
    parser.spec("--judge", default=None, help="whose scores, where several judges scored")
    args = parser.parse_args(argv)
    from w2s import plotting

    run = points(args.tables, args.metrics, args.judge)
    title = f"Scores by the number of examples shown: {experiment_name(args.tables)}"
    with plotting.style():
        figure, note = draw(run)
        drawn = run.reindex(columns=list(DRAWN)).astype(
            {"seeds": "Int64", "items": "Int64", "shown": "Int64"}
        )
        plotting.save_all(
            *(figure, drawn),
            **{"pdf": args.pdf, "png": args.png, "csv": args.csv, "title": title},
            description=f"{title}. {note}",
        )


def points(tables: Path, metrics: Sequence[str], judge: str | None) -> pd.DataFrame:
    """Rows of ``arms.csv`` that are drawn; a student, unaligned or of own labels, stands with every weak teacher.

    Raises:
        DataError: fewer than two numbers of examples, or one number twice on one line.
    """
    import pandas as pd

    arms = read_transfer(tables, "arms.csv")
    found = pd.concat([of_metric(arms, metric, judge, tables) for metric in metrics], ignore_index=True)
    found.loc[found["kind"] == OWN, "shown"] = 0.0
    keep = found["shown"].notna() | found["arm"].map(lambda arm: role(arm) in LINES)
    rows = []
    mine = found[keep]
    for key, _ in mine[mine["weak"].ne("") & mine["student"].ne("")].groupby(ROW, sort=False):
        data, student, weak = map(str, key)
        here = mine[
            (mine["data"] == data) & mine["student"].isin([student, ""]) & mine["weak"].isin([weak, ""])
        ]
        rows.append(here.assign(student=student, weak=weak))
    whole = pd.concat(rows, ignore_index=True) if rows else mine
    where = f"{tables}, arms.csv"
    if whole.loc[whole["kind"] != OWN, "shown"].nunique() < 2:
        raise DataError(
            "fewer than two numbers of examples: there is nothing to draw over",
            where=where,
            instead="refinements that differ in `shown`",
        )
    on_line = whole[whole["shown"].notna()]
    twice = on_line[
        on_line.duplicated([*ROW, "refiner", "recipe", "kind", "choice", "timed", "metric", "shown"])
    ]
    if len(twice):
        row = twice.iloc[0]
        raise DataError(
            f"{row['arm']!r} repeats the place {row['shown']:g} of {row['choice']!r}", where=where
        )
    return whole.sort_values([*ROW, "metric", "timed", "choice", "shown", "arm"], ignore_index=True)


def draw(run: pd.DataFrame) -> tuple[Figure, str]:
    """The figure and its caption."""
    from w2s import plotting

    metrics = [metric for metric in dict.fromkeys([*METRICS, *run["metric"]]) if metric in set(run["metric"])]
    rows = list(run.groupby(ROW, sort=False))
    figure = plotting.new_figure(height=1.25 + 2.35 * len(rows))
    handles: dict[str, Any] = {}
    parts = figure.subfigures(len(rows), squeeze=False)[:, 0]
    for part, (key, mine) in zip(parts, rows, strict=True):
        data, student, weak = key
        part.suptitle(f"{student} on {data}, weak teacher {weak}", x=0.012, ha="left", fontweight="bold")
        for axes, metric in zip(part.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
            handles |= draw_panel(axes, mine[mine["metric"] == metric])
            axes.set_title(metric_words(metric), fontweight="normal")
    figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=3, columnspacing=1.5)
    note = caption(run)
    plotting.add_note(figure, note)
    return figure, note


def draw_panel(axes: Axes, rows: pd.DataFrame) -> dict[str, Any]:
    """One panel; returns label -> handle for the legend."""
    from matplotlib.ticker import NullFormatter, NullLocator
    from w2s.plotting import INK, has_interval, whisker

    handles: dict[str, Any] = {}
    for row in records(rows_where(rows, "arm", lambda arm: role(arm) in LINES)):
        style: dict[str, Any] = {"color": INK, "linewidth": 1.0, "linestyle": LINES[role(row.arm)]}
        handles[arm_words(role(row.arm))] = axes.axhline(row.mean, **style)
    axes.set_xscale("symlog", base=2, linthresh=1, linscale=0.7)
    lines = rows[rows["shown"].notna()].sort_values("shown")
    for (kind, choice, timed), mine in lines.groupby(["kind", "choice", "timed"], sort=False):
        look, label = _look(str(kind), str(choice), str(timed))
        for row in records(mine):
            if has_interval(row):
                whisker(axes, row.shown, row.mean, row.low, row.high, width=0.7)
        handles[label] = axes.plot(
            mine["shown"], mine["mean"], **look, markersize=5, linewidth=1.4, zorder=6
        )[0]
    ticks = sorted(set(lines["shown"]))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08, y=0.1)
    axes.set_xlabel("Examples shown")
    axes.set_ylabel("Mean score")
    return handles


def _look(kind: str, choice: str, timed: str) -> tuple[dict[str, Any], str]:
    """How a line is drawn, and its legend entry."""
    from w2s.plotting import INK
    from w2s.transfer_looks import LOOKS, SPARE

    places = [LOOKS["icl"], LOOKS["infer"], LOOKS["improve"], LOOKS["naive"], LOOKS["gold"], *SPARE]
    tuned = timed != "yes"
    if kind == OWN:
        look, words = LOOKS[OWN], arm_words(OWN)
    else:
        at = list(CHOICES).index(choice) if choice in CHOICES else len(CHOICES)
        look = places[at]
        words = f"{CHOICES.get(choice, choice or 'examples')}, {'fine-tuned' if tuned else 'at test time'}"
    line: dict[str, Any] = {"color": look.colour, "marker": look.marker, "linestyle": "-" if tuned else "--"}
    return line | {"markerfacecolor": look.colour if tuned else "white", "markeredgecolor": INK}, words


def caption(run: pd.DataFrame) -> str:
    """What one must know to read the figure, computed from what is in it."""
    judges = [judge for judge in dict.fromkeys(run["judge"]) if judge]
    scored = f"Judge: {', '.join(judges)}." if judges else "Scores are exact, without a judge."
    return (
        f"{scored} {said(run)[0].upper()}{said(run)[1:]}. Filled marks: students tuned on the refined labels; open marks: the same "
        "examples in the context at test time. At 0 nothing is shown. Axis: linear to 1, then logarithmic."
    )


if __name__ == "__main__":
    cli.run(main)
