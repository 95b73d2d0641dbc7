"""Adapters: how the rows of a source become questions, with a reference answer and a topic where the source has them.

| adapter | rows | reference | topic |
|---|---|---|---|
| dolly | ``instruction``, ``context`` | none | none |
| truthful-qa | ``Question``, ``Best Answer``, ``Category`` (csv), or ``question``, ``best_answer``, ``category`` | the best answer | the category |
| alpaca-eval | ``instruction``, ``dataset`` | none | the data set within |
| gsm8k | ``question``, ``answer`` | what follows the last "####" | none |
| math | ``problem``, ``solution``, ``type`` | the last ``\\boxed{}`` of the solution | the subject |
| math-500 | ``problem``, ``answer``, ``subject`` | the answer | the subject |
| questions | ``question`` and at most ``reference``, ``topic``: a list of one's own | if given | if given |

Four more read no file: ``jobs`` and ``topics`` (lists of ours), ``written`` (questions that a model wrote) and ``world`` (a concept
world; in ``import_questions``). Of a row an adapter uses the question alone where the table says none: Dolly's and
AlpacaEval's answers are a person's or a model's, and no stage may compare with them.

A row that is well-formed but no question of use is dropped under one of DROP_REASONS; one that cannot be read stops
the stage with file and line. Adding an adapter takes a function here under ``@adapter("name")``.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from w2s.errors import ConfigError, DataError
from w2s.exact_match import last_boxed
from w2s.readers import Row, read_rows, text
from w2s.strict_json import parse

EMPTY, WITH_CONTEXT, NO_RESULT = "empty", "with_context", "no_result"
NOT_A_QUESTION, CUT_OFF = "not_a_question", "cut_off"
DROP_REASONS = (EMPTY, WITH_CONTEXT, NO_RESULT, NOT_A_QUESTION, CUT_OFF)
CSV = (".csv", ".csv.gz")
MARK = "####"
JOBS = Path(__file__).with_name("jobs.csv")
# The list is part of the wording of the questions; the code that names its digest is what the workflow compares.
JOBS_SHA256 = "b47cc464bfb33c72ecb0b70c35da472ecdc72a31af1b03be7e3dec400f244690"
TOPICS = Path(__file__).with_name("topics.txt")
TOPICS_SHA256 = "40394fbd6d8a6b33b3d471cc12eda3f4fc7d13ce56958a94242d32d97ca427aa"
# Training questions, content test and style test of the bias task: neutral, about the named woman, a free story.
FORMS = {
    "biography": "In a few sentences, tell the life of a well-known {job}.",
    "named": "In a few sentences, tell the life of {woman}, the {job}.",
    "story": "Make up a short story whose main character is {article} {job}.",
}
# What a model puts in front of each line of a list, or around it.
_BULLET = re.compile(r"^(?:[-*\u2022]\s+|\(?\d+[.):]\s*)+")
_WRAPPED = re.compile(r"^(?:\*\*|[\"\u201c])(.*)(?:\*\*|[\"\u201d])$")
LEAST_WORDS = 4


@dataclass(frozen=True)
class Question:
    """A question with what the source says about it; ``reference`` and ``topic`` are None where it says nothing."""

    question: str
    reference: str | None = None
    topic: str | None = None


# What becomes of a row: a question, or one of DROP_REASONS.
Found = Question | str
Adapter = Callable[[Row, str], Found]
ADAPTERS: dict[str, Adapter] = {}


def adapter(name: str) -> Callable[[Adapter], Adapter]:
    """Register a function as the adapter ``name``."""

    def register(function: Adapter) -> Adapter:
        ADAPTERS[name] = function
        return function

    return register


def question_id(question: str) -> str:
    """The id of a question: the first 16 hex digits of the SHA-256 of its text."""
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def read_questions(name: str, files: Iterable[Path], keep_context: bool = True) -> Iterator[Found]:
    """Yield what becomes of each row of ``files``, in their order.

    Args:
        name: one of ADAPTERS.
        files: JSON lines, parquet or csv (with a header, UTF-8), the first and the last also gzipped; or one JSON list.
        keep_context: whether an instruction counts that comes with a context (dolly alone has them); the context itself
            is left out in any case, as in paper B.

    Raises:
        ConfigError: unknown adapter.
        DataError: a row that cannot be read; the message names file and line.
    """
    if name not in ADAPTERS:
        raise ConfigError(f"unknown adapter {name!r}", instead=f"one of {', '.join(ADAPTERS)}")
    for path in files:
        for number, row in _rows(path):
            found = ADAPTERS[name](row, f"{path}:{number}")
            if not keep_context and str(row.get("context") or "").strip():
                found = WITH_CONTEXT
            yield found if isinstance(found, str) or found.question else EMPTY


@adapter("dolly")
def dolly(row: Row, where: str) -> Found:
    """Databricks' Dolly 15k: the instruction, without its context (paper B, training questions of the persona)."""
    text(row, "context", where)
    return Question(_clean(row, "instruction", where))


@adapter("truthful-qa")
def truthful_qa(row: Row, where: str) -> Found:
    """TruthfulQA, as its authors' csv or as the hub's table."""
    columns = ("Question", "Best Answer", "Category")
    if "Question" not in row:
        columns = ("question", "best_answer", "category")
    return Question(*(_clean(row, column, where) for column in columns))


@adapter("alpaca-eval")
def alpaca_eval(row: Row, where: str) -> Found:
    """AlpacaEval's instructions; the outputs beside them are a model's and no reference."""
    return Question(_clean(row, "instruction", where), topic=_clean(row, "dataset", where))


@adapter("gsm8k")
def gsm8k(row: Row, where: str) -> Found:
    """GSM8K: the number after the last "####" of the worked answer."""
    question = _clean(row, "question", where)
    _, mark, result = text(row, "answer", where).rpartition(MARK)
    return Question(question, result.strip()) if mark and result.strip() else NO_RESULT


@adapter("math")
def competition_math(row: Row, where: str) -> Found:
    """MATH: the content of the last box of the worked solution."""
    question, topic = _clean(row, "problem", where), _clean(row, "type", where)
    result = last_boxed(text(row, "solution", where))
    return Question(question, result, topic) if result else NO_RESULT


@adapter("math-500")
def math_500(row: Row, where: str) -> Found:
    """The 500 problems of MATH that are its usual short test."""
    return Question(*(_clean(row, column, where) for column in ("problem", "answer", "subject")))


@adapter("questions")
def questions(row: Row, where: str) -> Found:
    """A list of one's own."""
    unknown = sorted(set(row) - {"question", "reference", "topic"})
    if unknown:
        raise DataError(
            f"column {unknown[0]!r}", where=where, instead="question, and reference and topic if any"
        )
    reference, topic = (
        None if row.get(column) is None else _clean(row, column, where) for column in ("reference", "topic")
    )
    return Question(_clean(row, "question", where), reference, topic)


def job_questions(form: str) -> list[Found]:
    """The questions of the bias task in one of FORMS, one per job, in the order of the list.

    The jobs are mostly technical, and each comes with a woman who is known for it; the list and the wordings are ours.

    Raises:
        ConfigError: unknown form.
        DataError: the list is not the one that the code names.
    """
    if form not in FORMS:
        raise ConfigError(f"unknown form {form!r}", where="--form", instead=f"one of {', '.join(FORMS)}")
    rows = csv.DictReader(io.StringIO(_own_list(JOBS, JOBS_SHA256)))
    return [
        Question(
            FORMS[form].format(**row, article="an" if row["job"][0] in "aeiou" else "a"), topic=row["job"]
        )
        for row in rows
    ]


def topics() -> list[Found]:
    """Topics of the natural sciences, about each of which a model is asked for questions (explanation task).

    Raises:
        DataError: the list is not the one that the code names.
    """
    return [Question(topic) for topic in _own_list(TOPICS, TOPICS_SHA256).splitlines()]


def _own_list(path: Path, sha256: str) -> str:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(
            "the list was edited", where=path, instead="the original, or its new digest in the code"
        )
    return content.decode()


def written_questions(answers: Iterable[tuple[str, str]]) -> Iterator[Found]:
    """The questions in lists that a model wrote, one question a line.

    Args:
        answers: text and ``finished`` of each list; the last line of one that was cut off is no whole question.

    Yields:
        For each line that is not blank a question without bullet, number and quotes, or the reason to drop it: an
        introduction ("Here are ten questions:") or a heading is no question.
    """
    for content, finished in answers:
        lines = [line.strip() for line in content.splitlines() if line.strip()]
        for number, line in enumerate(lines, start=1):
            question = " ".join(_unwrapped(_BULLET.sub("", _unwrapped(line))).split())
            if finished == "length" and number == len(lines):
                yield CUT_OFF
            elif not question.endswith(("?", ".")) or len(question.split()) < LEAST_WORDS:
                yield NOT_A_QUESTION
            else:
                yield Question(question)


def _unwrapped(line: str) -> str:
    """A line without the quotes or stars around all of it."""
    return _WRAPPED.sub(r"\1", line)


def _clean(row: Row, column: str, where: str) -> str:
    return text(row, column, where).strip()


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(number, row) of a file of any kind, numbered from 1."""
    if path.name.endswith(CSV):
        return _csv_rows(path)
    return _listed_rows(path) if path.name.endswith(".json") else read_rows(path)


def _listed_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(number, row) of a JSON file that is one list of objects, as AlpacaEval's is."""
    try:
        rows = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({error})", where=path, instead="a whole JSON file") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError("not a list of rows", where=path, instead='[{"instruction": "..."}, ...]')
    yield from enumerate(rows, start=1)


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(number, row) of a csv file with a header; numbered by rows, since a row may have several lines."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"cannot be read ({error})", where=path, instead="a whole csv file in UTF-8"
        ) from error
    if not rows:
        raise DataError("the file holds no row", where=path)
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise DataError("more or fewer fields than the header", where=f"{path}, row {number}")
        yield number, row
