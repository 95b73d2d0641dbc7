"""Write a table of paper B with this run's numbers and the authors' released ones beside them.

What a table shows is its layout:

- ``maths``: share of correct answers of each arm by weak teacher, by exact match and by judges (Figure 3).
- ``bias``: factuality of biographies and share of stories with a female main character, side by side.
- ``baselines``: content, style and both of every way to learn from a weak teacher (Table 1).
- ``failures``: the same for students of other worlds, where the strong model lacks what is to be transferred.

Below follow, where the run has them, the share of the gap between teacher and ceiling that each arm recovers, and the quality
of the training labels with the rows that were kept and dropped. Brackets hold 95 % intervals. Released scores were not printed in
the paper (where the paper prints numbers, they could not be read); they are paired with ours by role, and named.

Inputs:  tables of ``tabulate_transfer``, the published values.
Outputs: the table as Markdown and as an HTML fragment for the report, and as CSV with one row per number: experiment, layout,
table, data, student, refiner, weak, arm, recipe, quantity, judge, value, low, high, seeds, items, published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli
from w2s.errors import DataError
from w2s.results import experiment_name, interval, number
from w2s.transfer_published import PAIRED, Beside, released_arms
from w2s.transfer_results import (
    LABELS,
    UNTUNED,
    arm_order,
    arm_words,
    metric_words,
    read_transfer,
    said,
)
from w2s.written import Document, Table, write

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Layout:
    """Which metrics a table shows, in whose words, and whether its test sets stand side by side."""

    metrics: tuple[str, ...]
    words: Mapping[str, str] = field(default_factory=dict)
    side_by_side: bool = False


LAYOUTS = {
    "maths": Layout(("correct", "copied")),
    "bias": Layout(("content", "style"), {"content": "factuality", "style": "female main character"}, True),
    "baselines": Layout(("content", "style", "both")),
    "failures": Layout(("content", "style", "both", "copied")),
}
TITLES = {
    "b_maths": "Figure 3: students of weak teachers of mathematics",
    "b_bias": "Ask to improve: factuality and female main characters",
    "b_table_1": "Table 1: ways to learn from a weak teacher",
}
WRITTEN = (
    *(
        "experiment",
        "layout",
        "table",
        "data",
        "student",
        "refiner",
        "weak",
        "arm",
        "recipe",
        "quantity",
        "judge",
    ),
    *("value", "low", "high", "seeds", "items", "published"),
)
NAMES = {"student": "Student", "refiner": "Refiner", "weak": "Weak teacher", "recipe": "Fine-tuning"}
TITLE_OF = {"arms": "", "recovered": "Share of the gap recovered", "labels": "Training labels"}
LINE = ["student", "refiner", "weak", "arm", "recipe"]
COLUMN = ["data", "quantity", "judge"]
NOTHING = "–"


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", help="manifest of the transfer's tables")
    parser.input("--published", help="published values of paper B")
    parser.output("--md", help="the table as Markdown")
    parser.output("--html", help="the table as a fragment of a page")
    parser.output("--csv", help="its numbers as CSV")
    parser.spec("--layout", choices=tuple(LAYOUTS), help="what the table shows")
    parser.spec("--artifact", default=None, help="the paper's item, where it is not the experiment's name")
    args = parser.parse_args(argv)

    import pandas as pd
    from w2s.tables import write_csv

    layout, name = LAYOUTS[args.layout], args.artifact or experiment_name(args.tables)
    arms = arms_of(args.tables, layout)
    released = released_arms(args.published, name)
    of_labels = released["arm"].str.startswith(LABELS)
    beside = Beside(released[~of_labels], arms)
    parts = {
        "arms": arm_numbers(arms, beside),
        "recovered": recovered_numbers(args.tables, layout),
        "labels": label_numbers(args.tables, layout, released[of_labels]),
    }
    tables = [table for part, numbers in parts.items() for table in written_tables(part, numbers, layout)]
    published = any(numbers["published"].notna().any() for numbers in parts.values())
    document = Document(TITLES.get(name, name), notes(arms, beside if published else None), tables)
    write(document, md=args.md, html=args.html)
    whole = pd.concat([numbers.assign(table=part) for part, numbers in parts.items()], ignore_index=True)
    whole = whole.assign(experiment=experiment_name(args.tables), layout=args.layout)
    write_csv(whole.reindex(columns=list(WRITTEN)).astype({"seeds": "Int64", "items": "Int64"}), args.csv)


def arms_of(tables: Path, layout: Layout) -> pd.DataFrame:
    """The rows of ``arms.csv`` that the layout shows.

    Raises:
        DataError: none of its metrics was scored.
    """
    arms = read_transfer(tables, "arms.csv")
    mine = arms[arms["metric"].isin(layout.metrics)]
    if mine.empty:
        raise DataError(
            f"no score by {' or '.join(layout.metrics)}",
            where=f"{tables}, arms.csv",
            instead=f"a layout that shows one of {', '.join(dict.fromkeys(arms['metric']))}",
        )
    return mine.reset_index(drop=True)


def arm_numbers(arms: pd.DataFrame, beside: Beside) -> pd.DataFrame:
    """One row per arm, test set, metric and judge: ours with its interval, and the released value."""
    return arms.assign(quantity=arms["metric"], value=arms["mean"], published=_published(arms, beside))


def _published(arms: pd.DataFrame, beside: Beside) -> list[float]:
    names = [*PAIRED, "arm", "metric"]
    return [beside.value(dict(zip(names, row, strict=True))) for row in arms[names].to_numpy()]


def recovered_numbers(tables: Path, layout: Layout) -> pd.DataFrame:
    """One row per arm, metric and ceiling: the recovered share of the gap (nothing is released of it)."""
    found = read_transfer(tables, "recovered.csv")
    found = found[found["metric"].isin(layout.metrics)]
    quantities = [
        f"{metric}, to {'the unaligned model' if ceiling == UNTUNED else arm_words(ceiling)}"
        for metric, ceiling in zip(found["metric"], found["ceiling"], strict=True)
    ]
    return found.assign(quantity=quantities, value=found["recovered"], published=float("nan"))


def label_numbers(tables: Path, layout: Layout, released: pd.DataFrame) -> pd.DataFrame:
    """One row per kind of label and quantity: its quality, its length, rows kept and dropped by reason."""
    found = read_transfer(tables, "labels.csv")
    counted = found["metric"].str.match(r"rows|dropped_")
    found = found[found["metric"].isin([*layout.metrics, "words"]) | counted].reset_index(drop=True)
    arms = found.assign(student="", recipe="", arm=LABELS + found["refinement"])
    published = _published(arms, Beside(released, arms))
    return arms.assign(
        arm=found["refinement"], quantity=found["metric"], value=found["mean"], published=published
    )


def written_tables(part: str, numbers: pd.DataFrame, layout: Layout) -> list[Table]:
    """The numbers as they are read: a table for each test set, or one of all sets side by side."""
    title = TITLE_OF[part]
    if numbers["value"].notna().sum() == 0:
        return []
    if layout.side_by_side or numbers["data"].nunique() == 1:
        return [wide_table(numbers, layout, title)]
    return [
        wide_table(rows, layout, ", ".join(filter(None, [title, str(data)])))
        for data, rows in numbers.groupby("data", sort=False)
    ]


def wide_table(numbers: pd.DataFrame, layout: Layout, title: str) -> Table:
    """A line per arm; per quantity and judge a column of ours and, where there is any, one of released values."""
    telling = [name for name in NAMES if numbers.loc[numbers[name] != "", name].nunique() > (name != "weak")]
    columns = numbers.groupby(COLUMN, sort=False)
    several = numbers["data"].nunique() > 1
    header = [
        "Labels for" if title.startswith(TITLE_OF["labels"]) else "Arm",
        *(NAMES[name] for name in telling),
    ]
    first, cells = len(header), []
    for key, rows in columns:
        data, quantity, judge = map(str, key)
        # Shares of answers have three digits, as in the authors' files; scores and shares of a gap two.
        digits = 3 if rows["value"].between(0, 1).all() and not title.startswith(TITLE_OF["recovered"]) else 2
        by_line = rows.set_index(LINE)
        header.append(_column_words(quantity, judge, data if several else "", layout))
        cells.append({line: _cell(row, digits) for line, row in by_line.iterrows()})
        if rows["published"].notna().any():
            header.append("Released")
            cells.append({line: _text(row["published"], digits) for line, row in by_line.iterrows()})
    table = []
    for line in sorted(set(numbers[LINE].itertuples(index=False, name=None)), key=_line_order):
        named = dict(zip(LINE, line, strict=True))
        told = [arm_words(named["arm"]), *(named[name] for name in telling)]
        table.append(told + [column.get(line, NOTHING) for column in cells])
    return Table(header, table, frozenset(range(first, len(header))), title)


def _line_order(line: tuple[str, ...]) -> tuple:
    """Sort key of lines: by weak teacher, then student, then arm."""
    student, refiner, weak, arm, recipe = line
    return weak, student, arm_order(arm), refiner, recipe


def _column_words(quantity: str, judge: str, data: str, layout: Layout) -> str:
    words = layout.words.get(quantity, metric_words(quantity)).replace("_", " ")
    words = words[0].upper() + words[1:]
    return " · ".join(filter(None, [data, words, f"judge {judge}" if judge else ""]))


def _cell(row: Any, digits: int) -> str:
    """Ours with its interval, or a dash."""
    text = _text(row["value"], digits)
    if text == NOTHING or row["low"] != row["low"]:
        return text
    return f"{text} {interval(row['low'], row['high'], digits)}"


def _text(value: float, digits: int) -> str:
    return NOTHING if value != value else number(value, digits)


def notes(arms: pd.DataFrame, beside: Beside | None) -> list[str]:
    """What one must know to read the table, computed from what is in it."""
    students = ", ".join(name for name in dict.fromkeys(arms["student"]) if name)
    judges = [judge for judge in dict.fromkeys(arms["judge"]) if judge]
    scored = f"judged by {', '.join(judges)} and exactly" if judges and "" in set(arms["judge"]) else ""
    scored = scored or (f"judged by {', '.join(judges)}" if judges else "scored exactly, without a judge")
    found = [f"Students: {students}; {scored}. This run: {said(arms)}, in brackets."]
    if beside is None:
        return [*found, "No released value has the role of one of these arms."]
    told = f" They are of {'; '.join(beside.roles)}." if beside.roles else ""
    found.append(
        f"Columns “Released” hold means of the authors' files, by their judge and without intervals.{told}"
    )
    return found


if __name__ == "__main__":
    cli.run(main)
