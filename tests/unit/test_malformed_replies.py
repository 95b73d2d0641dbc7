"""What judges, writers and people say in another form than asked: a malformed reply with its reason, counted, or an error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pytest
from hypothesis import reject
from hypothesis import strategies as st
from judge_server import KEY, Server, body, completion
from strategies import ODD_TEXTS, Record, anything, changed, damaged, odd_texts, refusal, refused_or, tried
from tiny import as_artifact
from w2s import chat, judge_prompts, labelling, question_tables, ratings
from w2s.conversations import read_messages
from w2s.judge_client import Answer, Judge, JudgeError, Limits, Prices, Question, Settings, connect
from w2s.judge_store import Store
from w2s.judgements import order_wins, vote_shares
from w2s.tables import write_parquet

pytestmark = pytest.mark.usefixtures("quick_records")


PIECES = [
    "7",
    "10",
    "11",
    "0",
    "1",
    "2",
    "3",
    "7.5",
    "[1]",
    "[0]",
    "[0.5]",
    "[10]",
    "[11]",
    " ",
    "\n",
    "\r\n",
    "\t",
    "\u00a0",
    "٣",
    "-1",
    "x",
]
replies = st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | odd_texts
ENDS = st.sampled_from(
    ["stop", "length", "content_filter", "refusal", "tool_calls", "function_call", "", "eos"]
)
# Form -> whether a value is one that was asked for.
SOUND: dict[str, Callable[[Any], bool]] = {
    "scores": lambda value: len(value) == 2 and all(1 <= score <= 10 for score in value),
    "choice": lambda value: value in (0, 1),
    "text": lambda value: isinstance(value[0], str) and value[1] in question_tables.ENDS,
    "two of 1-10": lambda value: len(value) == 2 and all(1 <= score <= 10 for score in value),
    "two of 0-10": lambda value: len(value) == 2 and all(0 <= score <= 10 for score in value),
    "0-10": lambda value: len(value) == 1 and 0 <= value[0] <= 10,
    "0 or 1": lambda value: len(value) == 1 and value[0] in (0, 1),
}


@pytest.mark.parametrize("form", sorted(judge_prompts.PARSERS))
def test_a_reply_is_in_the_form_or_malformed_with_a_reason(record_property: Record, form: str) -> None:
    parse = judge_prompts.PARSERS[form]

    def check(reply: tuple[str, str]) -> None:
        try:
            assert SOUND[form](parse(*reply))
        except judge_prompts.MalformedReply as error:
            assert error.what

    tried(record_property, st.tuples(replies, ENDS), 80, check)


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, Judge]]:
    """A server and a judge that asks it once for each question."""
    with Server() as server:
        monkeypatch.setenv("JUDGE_URL", server.url)
        monkeypatch.setenv("JUDGE_KEY", KEY)
        settings = Settings.read({"model": "judge"})
        limits = Limits(concurrency=1, attempts=1, timeout=5.0, budget=Decimal(10**6))
        endpoint = connect(settings, "JUDGE_URL", "JUDGE_KEY", 5.0)
        with Store(tmp_path / "store.sqlite") as store:
            prices = Prices(Decimal(1), Decimal(1))
            yield server, Judge(settings, judge_prompts.find("compare-1"), endpoint, store, prices, limits, 0)


def ask(judge: tuple[Server, Judge], text: str) -> Answer | str:
    """What comes of a question to which the endpoint's reply has this body: an answer, or the error's message."""
    server, asking = judge
    before = vars(asking.counts).copy()
    server.faults = [body(text)]
    asking._stopping.clear()
    asking._failure = None
    name = f"id {len(server.requests)}"
    try:
        (found,) = asking.ask([Question(name, judge_prompts.fill(asking.template, name, "Yes.", "No."))])
        assert asking.counts.asked == before["asked"] + 1
        return found
    except JudgeError as error:
        assert name in str(error) and KEY not in str(error)
        assert asking.counts.unclear + asking.counts.failed == before["unclear"] + before["failed"] + 1
        return str(error)


def test_a_body_of_another_form(judge: tuple[Server, Judge], record_property: Record) -> None:
    """Each request is counted once: answered, or ended unclear. A reply that was paid is in the store."""
    whole = completion("7 4\nBecause.")

    def check(content: Any) -> None:
        found = ask(judge, json.dumps(content))
        if isinstance(found, Answer):
            assert found.value in (None, (7, 4)) and (found.value is None) == (found.status != "ok")

    tried(record_property, changed(whole) | anything, 100, check)


def test_a_damaged_body(judge: tuple[Server, Judge], record_property: Record) -> None:
    whole = json.dumps(completion("7 4\nBecause.")).encode()
    tried(
        record_property,
        damaged(whole).map(lambda content: content.decode("latin-1")),
        60,
        lambda text: ask(judge, text),
    )


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"message": {"content": None}}, "the reply is empty"),
        ({"message": {"content": ""}}, "the reply is empty"),
        ({"message": {"content": None, "tool_calls": [{"id": "1"}]}, "finish_reason": "tool_calls"}, "empty"),
        ({"message": {"content": None, "refusal": "No."}}, "refused"),
        ({"message": {"content": "7 4 " * 100_000}}, "not two numbers"),
        ({"message": {"content": "7 4\n"}, "finish_reason": "content_filter"}, "filter"),
        ({"message": {"content": "7"}, "finish_reason": "length"}, "cut off"),
    ],
)  # fmt: skip
def test_replies_of_the_protocol_that_say_nothing(
    judge: tuple[Server, Judge], changes: dict, status: str
) -> None:
    found = ask(judge, json.dumps(completion("7 4", **changes)))
    assert isinstance(found, Answer) and found.value is None and status in found.status


@pytest.mark.parametrize(
    "changes",
    [
        {"choices": []}, {"choices": None}, {"choices": [None]}, {"choices": {}}, {"model": None}, {"model": 3},
        {"usage": {"prompt_tokens": 10**30, "completion_tokens": 1}},
        {"usage": {"prompt_tokens": -1, "completion_tokens": 1}},
        {"usage": {"prompt_tokens": 1.5, "completion_tokens": 1}},
        {"choices": [{"message": {"content": "\ud800 7 4"}}]},
        {"choices": [{"message": None}]}, {"choices": [{"message": {"content": 7}}]},
        {"choices": [{"message": {"content": ["7 4"]}}]}, {"choices": [{"message": {"content": {"text": "7"}}}]},
    ],
)  # fmt: skip
def test_replies_that_are_not_of_the_protocol(judge: tuple[Server, Judge], changes: dict) -> None:
    found = ask(judge, json.dumps(completion("7 4") | changes))
    assert isinstance(found, str) and "not of the protocol" in found


MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]


@pytest.mark.parametrize("read", [read_messages, chat.parse])
def test_conversations_of_another_form(record_property: Record, read: Callable[[Any, object], list]) -> None:
    def check(content: Any) -> None:
        text = json.dumps(content)
        found = refused_or(lambda: read(text, "file.parquet, row 3"), "file.parquet, row 3")
        assert found is None or found[-1]["role"] == "user"

    tried(record_property, changed(MESSAGES) | anything, 80, check)
    for text in (None, 3, "", "[", "[" * 100_000, '[{"role": "user"', "9" * 5000):
        refusal(lambda: read(text, "file.parquet, row 3"), "file.parquet, row 3")  # noqa: B023


ANSWERS = pd.DataFrame(
    {
        "id": ["a", "b"],
        "question": ["Why?", "How?"],
        "answer": ["So.", ""],
        "tokens": [2, 0],
        "finished": ["eos", "refused"],
    }
)
QUESTIONS = pd.DataFrame({"id": ["a", "b"], "question": ["Why?", "How?"], "reference": [None, "So."]})


def cells(table: pd.DataFrame) -> st.SearchStrategy[pd.DataFrame]:
    """The table with one cell of another value, a column gone, a row twice or gone; of types that parquet can hold."""
    values = st.none() | st.sampled_from([*ODD_TEXTS[:-1], float("nan"), float("inf"), -1, 2, 0.5, 10**9])

    def cell(place: tuple[int, str, Any]) -> pd.DataFrame:
        row, column, value = place
        found = table.astype({column: object})
        found.at[row, column] = value
        return found

    rows, columns = range(len(table)), st.sampled_from(list(table.columns))
    return st.one_of(
        st.tuples(st.sampled_from(rows), columns, values).map(cell),
        columns.map(lambda column: table.drop(columns=column)),
        st.sampled_from(rows).map(lambda row: pd.concat([table, table.iloc[[row]]], ignore_index=True)),
        st.sampled_from(rows).map(lambda row: table.drop(index=row).reset_index(drop=True)),
        st.just(table.iloc[:0]),
    )


def stored(folder: Path, name: str, table: pd.DataFrame) -> Path:
    """An artifact with the table; no case where parquet cannot hold it (text among numbers)."""
    try:
        return as_artifact(folder, lambda target: write_parquet(table, target / name))
    except pyarrow.ArrowException:
        reject()


def test_answers_of_another_form(tmp_path: Path, record_property: Record) -> None:
    """A row of answers is one of the questions, with a text and an end, or the table is refused."""

    def check(table: pd.DataFrame) -> None:
        manifest = stored(tmp_path / "answers", "answers.parquet", table)
        found = refused_or(lambda: question_tables.answers_to(QUESTIONS, manifest), "answers")
        if found is not None:
            assert found["id"].tolist() == ["a", "b"] and found["answer"].map(type).eq(str).all()

    tried(record_property, cells(ANSWERS), 60, check)


def test_questions_of_another_form(tmp_path: Path, record_property: Record) -> None:
    def check(table: pd.DataFrame) -> None:
        manifest = stored(tmp_path / "questions", "questions.parquet", table)
        found = refused_or(lambda: question_tables.read_questions(manifest), "questions.parquet")
        assert found is None or found["question"].map(type).eq(str).all()

    tried(record_property, cells(QUESTIONS), 60, check)


RATINGS = pd.DataFrame(
    {
        "id": ["a", "a", "b", "b"],
        "sample": [0, 1, 0, 1],
        "first": [1.0, 2.0, float("nan"), 4.0],
        "second": [float("nan")] * 4,
    }
)


def test_ratings_of_another_form(record_property: Record) -> None:
    """Each id keeps a row, whatever samples are left; no sample counts twice."""

    def check(table: pd.DataFrame) -> None:
        found = refused_or(lambda: ratings.item_scores(table), "")
        if found is not None:
            assert (
                set(found["id"]) == set(table["id"])
                and found["samples"].sum() == table["first"].notna().sum()
            )

    numbers = st.sampled_from([float("nan"), 0.0, 5.0, 10.0])
    rows = st.tuples(st.sampled_from("ab"), st.integers(0, 2), numbers, numbers)
    tables = st.lists(rows, max_size=6).map(lambda found: pd.DataFrame(found, columns=list(RATINGS)))
    tried(record_property, tables, 80, check)


PREFERENCES = pd.DataFrame(
    {"id": ["a", "a", "b", "b"], "order": [0, 1, 0, 1], "preferred": [0.0, 1.0, float("nan"), 1.0]}
)


def test_preferences_of_another_form(tmp_path: Path, record_property: Record) -> None:
    """Labels from an LLM's replies: labelled + dropped are the examples, or the table is refused."""
    ids = pd.Series(["a", "b"])

    def check(table: pd.DataFrame) -> None:
        manifest = stored(tmp_path / "preferences", "preferences.parquet", table)
        found = refused_or(
            lambda: labelling.checked(
                labelling.from_preferences(ids, labelling.read_preferences(manifest), "second"), ids, "x"
            ),
            "",
        )
        if found is not None:
            assert sorted([*found.table["id"], *found.dropped["id"]]) == ["a", "b"]

    tried(record_property, cells(PREFERENCES), 60, check)


def test_comparisons_and_votes_of_another_form(record_property: Record) -> None:
    """What could not be read is left out and counted; a row that is there twice is refused."""
    numbers = st.sampled_from([float("nan"), 0.0, 1.0])
    rows = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1), numbers, numbers), max_size=6)

    def check(found: list[tuple[str, int, float, float]]) -> None:
        table = pd.DataFrame(found, columns=["id", "order", "score_left", "score_right"]).astype(
            {"score_left": float, "score_right": float}
        )
        wins = refused_or(lambda: order_wins(table), "occur twice")
        if wins is not None:
            assert len(wins) == (table["score_left"] + table["score_right"]).notna().sum()
        shares, unread = vote_shares(table.rename(columns={"score_left": "preferred"})[["id", "preferred"]])
        assert len(shares) + unread == table["id"].nunique()

    tried(record_property, rows, 80, check)
