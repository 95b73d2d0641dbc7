"""Draw what strong students reach against what their weak teachers reach (paper B: Figures 1, 2 and 4).

A panel per metric: content, style, and the length of the answers beside them, for longer answers may please a judge. x is
the weak teacher's own mean score, y the strong student's, with 95 % intervals both ways. A mark is a way of learning from the
teacher; the dashed line is the unaligned strong model, a dotted one a student that needs no weak teacher (own or gold
labels), the thin diagonal "no better than the teacher". Letters name the teachers, the same in all panels.

Each row of panels is one set of test questions, student, refiner and judge: a student's base and the refiner of
its labels are named apart. Released scores stand in rows of their own above: where models or data are others than
this run's, compare the order of the marks, not their heights.

Inputs:  tables of ``tabulate_transfer``, the published values.
Outputs: the figure as PDF and PNG, and as CSV what is drawn: panel, data, student, refiner, metric, judge, weak, letter,
arm, recipe, x, x_low, x_high, mean, low, high, seeds, items, source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli
from w2s.errors import DataError
from w2s.results import experiment_name, records, rows_where
from w2s.transfer_results import (
    LABELS,
    TEACHER,
    UNTUNED,
    metric_words,
    of_metric,
    read_transfer,
    role,
    said,
    series,
    series_order,
    series_words,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from w2s.plotting import Look

METRICS = ("content", "style", "words")
DRAWN = (
    *("panel", "data", "student", "refiner", "metric", "judge", "weak", "letter", "arm", "recipe"),
    *("x", "x_low", "x_high", "mean", "low", "high", "seeds", "items", "source"),
)
ROW = ["panel", "data", "student", "refiner"]
RUN, RELEASED = "this run", "released"
# The unaligned line of a refiner that is another model than the student's base.
REFINER = f"{UNTUNED}-refiner"
TITLES = {
    "b_persona": "What strong students learn from weak teachers of a persona",
    "b_explanation": "What strong students learn from weak teachers that explain by analogies",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", help="manifest of the transfer's tables")
    parser.input("--published", help="published values of paper B")
    parser.output("--pdf", help="the figure as PDF")
    parser.output("--png", help="the figure as PNG, 200 dpi")
    parser.output("--csv", help="what is drawn, as CSV")
    parser.spec("--metrics", nargs="+", default=list(METRICS), help="a column of panels each")
    parser.spec("--data", nargs="*", default=[], help="test questions to draw; default: all")
    parser.spec("--judge", default=None, help="whose scores, where several judges scored")
    parser.spec("--artifact", default=None, help="the paper's item whose released scores stand above")
    args = parser.parse_args(argv)
    from w2s import plotting
    from w2s.tables import write_csv
    from w2s.transfer_published import pair_roles, released_arms

    name = args.artifact or experiment_name(args.tables)
    run = run_points(args.tables, args.metrics, args.data, args.judge)
    theirs = released_arms(args.published, name)
    data = pair_roles(list(run["data"]), list(theirs["data"]))
    released = points(theirs[theirs["data"].isin(data.values())], args.metrics, RELEASED)
    title = TITLES.get(name, f"Strong students against their weak teachers: {name}")
    with plotting.style():
        figure, note = draw(released, run, args.metrics)
        plotting.save(figure, pdf=args.pdf, png=args.png, title=title, description=f"{title}. {note}")
    drawn = _together(released, run).reindex(columns=list(DRAWN))
    write_csv(drawn.astype({"seeds": "Int64", "items": "Int64"}), args.csv)


def run_points(tables: Path, metrics: Sequence[str], data: Sequence[str], judge: str | None) -> pd.DataFrame:
    """This run's marks, DRAWN.

    Raises:
        DataError: nothing is to be drawn, or several judges scored a metric and none was named.
    """
    import pandas as pd

    arms = read_transfer(tables, "arms.csv")
    unknown = [name for name in data if name not in set(arms["data"])]
    if unknown:
        known = ", ".join(dict.fromkeys(arms["data"]))
        raise DataError(f"no scores on {', '.join(unknown)}", where=tables, instead=f"one of {known}")
    mine = arms[arms["data"].isin(data)] if data else arms
    found = pd.concat([of_metric(mine, metric, judge, tables) for metric in metrics], ignore_index=True)
    marks = points(found.assign(source=found["experiment"]), metrics, RUN)
    if marks["x"].notna().sum() == 0:
        raise DataError(
            f"no weak teacher and student were scored by {' or '.join(metrics)}",
            where=f"{tables}, arms.csv",
            instead="a transfer whose weak models answer the test questions too",
        )
    return marks


def points(arms: pd.DataFrame, metrics: Sequence[str], panel: str) -> pd.DataFrame:
    """Marks of one kind of panel: each arm of a student with its teacher's place on the x axis.

    An arm whose labels nobody refined stands in the row of every refiner of its student. Where the refiner is another
    model than the student's base, the row has its unaligned line too.
    """
    import pandas as pd

    mine = rows_where(arms[arms["metric"].isin(metrics)], "arm", lambda arm: not arm.startswith(LABELS))
    key = ["data", "metric", "judge", "weak"]
    teachers = mine[mine["arm"] == TEACHER].rename(columns={"mean": "x", "low": "x_low", "high": "x_high"})
    marks = mine[mine["arm"] != TEACHER].merge(
        teachers[[*key, "x", "x_low", "x_high"]], on=key, how="left", validate="many_to_one"
    )
    letters = {weak: chr(ord("A") + place) for place, weak in enumerate(sorted(set(teachers["weak"])))}
    marks = marks.assign(panel=panel, letter=marks["weak"].map(letters).fillna(""))
    rows = []
    for (data, student), of_student in marks.groupby(["data", "student"], sort=False):
        if not (of_student["arm"] != UNTUNED).any():
            continue
        for refiner in [name for name in dict.fromkeys(of_student["refiner"]) if name] or [""]:
            rows.append(of_student[of_student["refiner"].isin([refiner, ""])].assign(refiner=refiner))
            if refiner not in ("", student):
                line = marks[
                    (marks["data"] == data) & (marks["student"] == refiner) & (marks["arm"] == UNTUNED)
                ]
                rows.append(line.assign(student=student, refiner=refiner, arm=REFINER))
    return pd.concat(rows, ignore_index=True) if rows else marks


def draw(released: pd.DataFrame, run: pd.DataFrame, metrics: Sequence[str]) -> tuple[Figure, str]:
    """The figure and its caption."""
    import pandas as pd
    from w2s import plotting
    from w2s.transfer_looks import looks

    whole = _together(released, run)
    pairs = [(row.arm, row.recipe) for row in records(whole)]
    names = series(pairs)
    whole = whole.assign(series=pd.Series([names[pair] for pair in pairs], index=whole.index, dtype=object))
    look = looks(sorted({name for name in names.values() if role(name[0]) != UNTUNED}, key=series_order))
    rows = [key for key, _ in whole.groupby(ROW, sort=False)]
    figure = plotting.new_figure(height=1.3 + 2.35 * len(rows))
    parts = figure.subfigures(len(rows), squeeze=False)[:, 0]
    handles: dict[tuple[str, str], Any] = {}
    for part, key in zip(parts, rows, strict=True):
        mine = whole[(whole[ROW] == list(key)).all(axis=1)]
        title = row_title(dict(zip(ROW, map(str, key), strict=True)), len(rows) > 1)
        part.suptitle(title, x=0.012, ha="left", fontsize=9.5, fontweight="bold")
        for axes, metric in zip(part.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
            marks = mine[mine["metric"] == metric]
            if len(marks):
                handles |= draw_panel(axes, marks, look)
                axes.set_xlabel(f"Teacher: {metric_words(metric)}")
                axes.set_ylabel("Strong student")
            else:
                axes.set_axis_off()
    shown = sorted(handles, key=series_order)
    lines, labels = [handles[name] for name in shown], [series_words(name) for name in shown]
    figure.legend(lines, labels, loc="outside upper left", ncols=3, columnspacing=1.5)
    note = caption(released, run)
    plotting.add_note(figure, note)
    return figure, note


def row_title(row: Mapping[str, str], several: bool) -> str:
    """Who learned in a row of panels; the refiner is told where it is not the student's own base."""
    refiner = f", labels refined by {row['refiner']}" if row["refiner"] not in ("", row["student"]) else ""
    title = f"{row['student']} on {row['data']}{refiner}"
    return f"{row['panel'].capitalize()}: {title}" if several else title


def draw_panel(axes: Axes, marks: pd.DataFrame, look: Mapping[tuple[str, str], Look]) -> dict:
    """One panel; returns series -> handle for the legend."""
    from w2s.plotting import INK

    handles = {}
    for row in records(marks[marks["x"].isna()]):
        unaligned = role(row.arm) == UNTUNED
        dashes = {UNTUNED: (0, (3, 1.6)), REFINER: (0, (5, 1.2, 1, 1.2))}.get(row.arm, ":")
        line: dict[str, Any] = {
            "color": INK if unaligned else look[row.series].colour,
            "linewidth": 1.2,
            "linestyle": dashes,
        }
        handles[row.series] = axes.axhline(row.mean, **line)
        if unaligned and row.low == row.low:
            axes.axhspan(row.low, row.high, color=line["color"], alpha=0.09, linewidth=0, zorder=1)
    placed = marks[marks["x"].notna()]
    width = float(placed["x"].max() - placed["x"].min()) or 1.0
    names = sorted(set(placed["series"]), key=series_order)
    for rank, name in enumerate(names):
        rows = placed[[mine == name for mine in placed["series"]]]
        apart = 0.018 * width * (rank - (len(names) - 1) / 2)
        for row in records(rows):
            _whiskers(axes, row, row.x + apart)
        drawn: dict[str, Any] = {"color": look[name].colour, "markeredgecolor": INK, "markeredgewidth": 0.7}
        x = rows["x"] + apart
        (handles[name],) = axes.plot(x, rows["mean"], look[name].marker, **drawn, markersize=5.5, zorder=6)
    _teachers(axes, placed, width)
    return handles


def _teachers(axes: Axes, placed: pd.DataFrame, width: float) -> None:
    """The diagonal and the teachers' letters, within the limits that the marks gave."""
    from w2s.plotting import GRID, SOFT_INK

    axes.margins(x=0.14, y=0.14)
    limits, heights = axes.get_xlim(), axes.get_ylim()
    axes.axline((limits[0], limits[0]), slope=1, color=GRID, linewidth=1.0, zorder=0)
    axes.set_xlim(limits)
    axes.set_ylim(heights)
    places: list[tuple[float, str]] = []
    for row in records(placed.drop_duplicates("weak").sort_values("x")):
        axes.axvline(row.x, color=GRID, linewidth=0.6, zorder=0)
        # Letters that would lie on each other are written as one text.
        if places and row.x - places[-1][0] < 0.06 * width:
            places[-1] = (places[-1][0], f"{places[-1][1]} {row.letter}")
        else:
            places.append((row.x, row.letter))
    for x, text in places:
        where: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
        axes.annotate(text, (x, 1.0), **where, fontsize=7.5, color=SOFT_INK)


def _whiskers(axes: Axes, row: Any, x: float) -> None:
    """95 % intervals of student and teacher, where there are any."""
    from w2s.plotting import SOFT_INK

    ends = {"yerr": (row.mean, row.low, row.high), "xerr": (row.x, row.x_low, row.x_high)}
    errors: dict[str, Any] = {
        side: [[max(mean - low, 0.0)], [max(high - mean, 0.0)]]
        for side, (mean, low, high) in ends.items()
        if low == low
    }
    if errors:
        axes.errorbar(x, row.mean, **errors, fmt="none", ecolor=SOFT_INK, elinewidth=0.8, zorder=4)


def caption(released: pd.DataFrame, run: pd.DataFrame) -> str:
    """What one must know to read the figure, computed from what is in it."""
    parts = []
    for panel, marks in ((RELEASED, released), (RUN, run)):
        names = dict(sorted(zip(marks["letter"], marks["weak"], strict=True))) if len(marks) else {}
        told = [f"{letter} {weak}" for letter, weak in names.items() if letter]
        parts += [f"Teachers, {panel}: {', '.join(told)}."] if told else []
    judges = [judge for judge in dict.fromkeys(run["judge"]) if judge]
    parts.append(f"Judge: {', '.join(judges)}." if judges else "Scores are exact, without a judge.")
    parts.append(f"This run: {said(run)}.")
    parts.append("Marks of one teacher stand slightly apart; the diagonal is the teacher's own score.")
    if len(released):
        judges = [judge for judge in dict.fromkeys(released["judge"]) if judge]
        parts.append(
            f"Released scores (means of the authors' files{', judge ' + ', '.join(judges) if judges else ''}; "
            "no intervals): compare the order of marks."
        )
    return " ".join(parts)


def _together(released: pd.DataFrame, run: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([released, run], ignore_index=True) if len(released) else run


if __name__ == "__main__":
    cli.run(main)
