"""Write pairs on which weak and human labels differ, whole and side by side (paper A: Tables 3, 5 and 9).

Each pair is a prompt with the response that the weak label chose first and the one that people chose second,
their gold rewards and, where an LLM judge voted, its votes. The pairs are drawn by seed from all on which the
labels differ, not chosen by anyone; the paper chose its own, whose printed rewards stand in a table of their own.
Texts come from a public data set, whole and unedited, and may offend.

Inputs:  tables (``examples.csv`` of ``summarise``), the published values.
Outputs: Markdown, an HTML fragment for the report, and the pairs as CSV in the columns of ``examples.csv``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli
from w2s.errors import DataError
from w2s.published import published_item
from w2s.results import (
    TABLES,
    experiment_name,
    number,
    policy_of,
    read_result,
    records,
    setting_labels,
)
from w2s.written import Document, Table, Text, write

if TYPE_CHECKING:
    import pandas as pd

TITLES = {
    "a_table_3": "Table 3: what weak and human labels choose",
    "a_table_5": "Table 5: a pair on which an LLM judge's votes are split",
    "a_table_9": "Table 9: more pairs on which weak and human labels differ",
}
BY_WEAK, BY_HUMAN = "chosen by the weak label", "chosen by people"
METRICS = {
    "chosen_gold_reward": "gold reward",
    "gpt4_votes_first": "GPT-4's votes for the first",
    "gpt4_votes_second": "GPT-4's votes for the second",
    "gpt4_consistency": "consistency of GPT-4's votes",
}
NOTHING = "–"


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", help="manifest of the experiment's tables")
    parser.input("--published", help="published/values.csv")
    parser.output("--md", help="the pairs as Markdown")
    parser.output("--html", help="the pairs as a fragment of a page")
    parser.output("--csv", help="the pairs as CSV")
    parser.spec("--artifact", default=None, help="the paper's item, where it is not the experiment's name")
    args = parser.parse_args(argv)
    from w2s.tables import write_csv

    pairs = read_pairs(args.tables)
    item = published_item(args.published, args.tables, args.artifact)
    name = args.artifact or experiment_name(args.tables)
    document = Document(TITLES.get(name, name), notes_of(pairs, item), printed_table(item), texts_of(pairs))
    write(document, md=args.md, html=args.html)
    write_csv(pairs[TABLES["examples.csv"].all], args.csv)


def read_pairs(tables: Path) -> pd.DataFrame:
    """The pairs in the order of the table.

    Raises:
        DataError: there is none, one occurs twice, or a response is not the choice of whom its place is for.
    """
    pairs = read_result(tables, "examples.csv")
    where = f"{tables}, examples.csv"
    if pairs.empty:
        raise DataError(
            "no pair to show",
            where=where,
            instead="an experiment whose weak and human labels differ somewhere",
        )
    twice = pairs.duplicated(["data", "share", "seed", "id"])
    if twice.any():
        row = pairs[twice].iloc[0]
        raise DataError(f"pair {row['id']} of seed {row['seed']} occurs twice", where=where)
    for column, human in (("label_first", False), ("label_second", True)):
        wrong = [(policy_of(source) == "human") != human or not source for source in pairs[column]]
        if any(wrong):
            place = wrong.index(True)
            raise DataError(
                f"the response is the choice of {pairs[column].iloc[place]!r}",
                where=f"{where}, row {place + 2}, column {column}",
                instead="first the response that other labels than people's chose, second people's choice",
            )
    return pairs


def texts_of(pairs: pd.DataFrame) -> list[Text]:
    """A heading and the whole texts per pair."""
    settings = setting_labels(pairs.assign(recipe="", student=""), ("data", "share", "student"))
    found = []
    for place, (row, setting) in enumerate(zip(records(pairs), settings, strict=True), start=1):
        told = " · ".join(filter(None, [setting, f"seed {row.seed}", f"id {row.id}"]))
        bodies = [("Prompt", row.prompt)]
        bodies += [
            (f"{order}, {chosen}{_reward(reward)}", response)
            for order, chosen, reward, response in (
                ("First", BY_WEAK, row.reward_first, row.response_first),
                ("Second", BY_HUMAN, row.reward_second, row.response_second),
            )
        ]
        votes = f"Votes of the LLM judge, first to second: {row.votes}." if row.votes else ""
        found.append(Text(f"Pair {place} ({told})", bodies, votes))
    return found


def _reward(reward: float) -> str:
    return f" (gold reward {number(reward)})" if reward == reward else ""


def printed_table(item: pd.DataFrame) -> list[Table]:
    """What the paper printed of its own pairs, numbers only."""
    if item.empty:
        return []
    rows = [
        [row.example, _of_whom(row), METRICS.get(row.metric, row.metric), f"{row.value:g}"]
        for row in records(item)
    ]
    header = ["The paper's pair", "Response", "What", "Printed"]
    return [Table(header, rows, frozenset({3}), "What the paper printed of the pairs that it chose")]


def _of_whom(row: Any) -> str:
    """Which response a printed number speaks of."""
    if not row.metric.startswith("chosen"):
        return NOTHING
    return BY_HUMAN if policy_of(row.feedback) == "human" else BY_WEAK


def notes_of(pairs: pd.DataFrame, item: pd.DataFrame) -> list[str]:
    """What one must know to read the pairs."""
    seeds = ", ".join(dict.fromkeys(pairs["seed"]))
    higher = (pairs["reward_first"] > pairs["reward_second"]).sum()
    known = (pairs["reward_first"].notna() & pairs["reward_second"].notna()).sum()
    notes = [
        f"{len(pairs)} pairs, sampled by seed ({seeds}) from all on which weak and human labels differ, not chosen. "
        "Texts are those of the data set, whole and unedited; some may offend."
    ]
    if known:
        notes.append(
            f"The gold model gives the response that the weak label chose the higher reward in {higher} of {known}; "
            "so few pairs say nothing about all."
        )
    if len(item):
        notes.append("The paper's pairs are other ones: its numbers are no target for these.")
    return notes


if __name__ == "__main__":
    cli.run(main)
