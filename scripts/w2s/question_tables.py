"""Tables of paper B: questions, what writers are asked about them, what they answer. How they are read and joined.

Each is in an artifact of its own. A question's id is made from its text, so answers to other questions cannot pass for
answers to these: every join compares ids and texts, and names what does not fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s.artifact import load
from w2s.errors import DataError, JoinError
from w2s.tables import check_same_ids, check_unique, named, read_parquet

if TYPE_CHECKING:
    import pandas as pd

QUESTION_COLUMNS = ["id", "question", "reference"]
PROMPT_COLUMNS = ["id", "question", "messages", "examples"]
ANSWER_COLUMNS = ["id", "question", "answer", "tokens", "finished"]
RECORD_COLUMNS = ["id", "messages", "answer", "source"]
# How an answer ended: end token, stop text, limit of tokens, refusal (also an endpoint's content filter).
ENDS = ("eos", "stop", "length", "refused")


def read_questions(manifest: Path) -> pd.DataFrame:
    """Questions in the order of their table: id, question, reference (None where there is no gold answer).

    Raises:
        DataError: there is none, or one has no text.
        JoinError: an id occurs twice.
    """
    path = load(manifest).path("questions.parquet")
    table = read_parquet(path, QUESTION_COLUMNS)[QUESTION_COLUMNS]
    check_unique(table["id"], path)
    if table.empty:
        raise DataError("there is no question", where=path)
    blank = table["id"][table["question"].isna() | (table["question"].str.strip() == "")]
    if len(blank):
        raise DataError(f"{len(blank)} questions without text: {named(blank)}", where=path)
    return table


def read_prompts(manifest: Path) -> pd.DataFrame:
    """What a writer is asked: PROMPT_COLUMNS, ids unique, ``examples`` as lists of ids."""
    path = load(manifest).path("prompts.parquet")
    table = read_parquet(path, PROMPT_COLUMNS)[PROMPT_COLUMNS]
    check_unique(table["id"], path)
    return table.assign(examples=table["examples"].map(list))


def read_answers(manifest: Path) -> pd.DataFrame:
    """What a writer answered: ANSWER_COLUMNS, ids unique, and ``defect`` (see :func:`defect`).

    Raises:
        DataError: an answer is null (an empty one is a text), or its end is none of ENDS.
        JoinError: an id occurs twice.
    """
    path = load(manifest).path("answers.parquet")
    table = read_parquet(path, ANSWER_COLUMNS)[ANSWER_COLUMNS]
    check_unique(table["id"], path)
    wrong = table["id"][table["answer"].isna() | ~table["finished"].isin(ENDS)]
    if len(wrong):
        raise DataError(
            f"{len(wrong)} answers without a text or an end: {named(wrong)}",
            where=path,
            instead=f"a text, empty if nothing was said, and one of {', '.join(ENDS)}",
        )
    rows = zip(table["answer"], table["finished"], strict=True)
    return table.assign(defect=[defect(*row) for row in rows])


def defect(answer: str, finished: str) -> str:
    """Why an answer cannot be used at all: "refused", "empty", or "" if it can."""
    if finished == "refused":
        return "refused"
    return "" if answer.strip() else "empty"


def answers_to(questions: pd.DataFrame, manifest: Path, *, all_asked: bool = True) -> pd.DataFrame:
    """The answers to these questions, in the questions' order, as :func:`read_answers` gives them.

    Args:
        questions: as :func:`read_questions` gives them.
        manifest: the answers.
        all_asked: each question must have a row; else those without are left out.

    Raises:
        JoinError: answers to other questions are among them, or one is missing.
    """
    answers = read_answers(manifest)
    expected = questions["id"] if all_asked else questions["id"][questions["id"].isin(answers["id"])]
    check_same_ids(expected, answers["id"], "the questions", f"the answers {manifest}")
    answers = answers.set_index("id").loc[expected].reset_index()
    texts = questions.set_index("id")["question"].loc[expected].to_numpy()
    other = answers["id"][answers["question"].to_numpy() != texts]
    if len(other):
        raise JoinError(
            f"{len(other)} answers are to other questions under the same id: {named(other)}", where=manifest
        )
    return answers


def tally(values: Iterable[Any]) -> dict[str, int]:
    """Value -> how often, as a manifest holds it."""
    return {str(value): count for value, count in sorted(Counter(values).items())}
