"""A judge's ratings: read or refused, never guessed, and put together without losing an item."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import rate_answers
from judge_server import KEY, Server, body, completion, cut, slow, status, torn
from tiny import as_artifact
from w2s import judge_prompts
from w2s.artifact import load, verify
from w2s.errors import DataError, JoinError
from w2s.judge_client import JudgeError
from w2s.judge_prompts import MalformedReply, find, parse_text
from w2s.judge_store import Store
from w2s.ratings import item_scores, missing
from w2s.tables import write_parquet

QUESTIONS = ["What is 3 + 4?", "Why is the sea salty? {answer}", "Who was Ada Lovelace?"]
ANSWERS = ["Arr, seven!", "Rivers carry {reference} salt.\n[10] [10]", ""]
ENDS = ["eos", "length", "eos"]


def questions(folder: Path, references: list[str | None] | None = None, ids: str = "abcd") -> Path:
    table = pd.DataFrame({"id": list(ids), "question": [*QUESTIONS, "More?"]})
    table["reference"] = pd.Series([*(references or ["7", "rivers", "a mathematician"]), None], dtype=object)
    table["topic"] = None
    return as_artifact(folder, lambda target: write_parquet(table, target / "questions.parquet"))


def answers(folder: Path, ids: str = "abc", ends: list[str] | None = None) -> Path:
    table = pd.DataFrame({"id": list(ids), "question": QUESTIONS, "answer": ANSWERS})
    table["tokens"], table["finished"] = 3, ends or ENDS
    return as_artifact(folder, lambda target: write_parquet(table, target / "answers.parquet"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(lambda _sent: "A fair try, [sic].\n[6] [8.5]") as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield running


@pytest.fixture
def rate(server: Server, tmp_path: Path) -> Callable[..., tuple[pd.DataFrame, dict]]:
    """``rate(*more, template=, given=, asked=)`` -> the table and the facts."""

    def run(
        *more: str, template: str = "rate-persona-1", given: Path | None = None, asked: Path | None = None
    ) -> tuple[pd.DataFrame, dict]:
        manifest = tmp_path / "ratings" / "manifest.json"
        settings = {"model": "judge", "temperature": 1, "max_tokens": 60, "seed": 42}
        rate_answers.main(
            [
                *("--answers", str(given or answers(tmp_path / "answers")), "--output", str(manifest)),
                *("--questions", str(asked or questions(tmp_path / "questions")), "--template", template),
                *("--judge", "j", "--settings", json.dumps(settings), "--samples", "4", "--timeout", "0.5"),
                *("--store", str(tmp_path / "store.sqlite"), *more),
            ]
        )
        verify(manifest)
        return pd.read_parquet(load(manifest).path("ratings.parquet")), load(manifest).facts

    return run


def test_each_answer_is_rated_so_often(server: Server, rate, tmp_path: Path) -> None:
    table, facts = rate()
    assert table.columns.tolist() == ["id", "sample", "first", "second", "status", "reply_key"]
    assert list(zip(table["id"], table["sample"], strict=True)) == [(i, s) for i in "abc" for s in range(4)]
    assert set(table["first"]) == {6.0} and set(table["second"]) == {8.5} and set(table["status"]) == {"ok"}
    assert len(server.requests) == 12 == table["reply_key"].nunique()
    # Each sample has a seed of its own, and the same one for all answers.
    assert len({sent["seed"] for sent in server.requests}) == 4
    shown = server.requests[-1]["messages"][0]["content"]
    assert "pirate" in shown and "{fence}" not in shown
    assert (facts["answers"], facts["questions_without_answer"], facts["ratings"]) == (3, 1, 12)
    assert (facts["answers_not_shown"], facts["answers_without_rating"]) == (0, 0)
    assert facts["template_sha256"] == find("rate-persona-1").sha256
    with Store(tmp_path / "store.sqlite") as store:
        assert store.find(table["reply_key"][5]).text.endswith("[8.5]")  # type: ignore[union-attr]


def test_more_samples_cost_what_is_new_and_the_same_again_nothing(
    server: Server, rate, tmp_path: Path
) -> None:
    rate()
    before = (tmp_path / "ratings" / "manifest.json").read_bytes()
    rate()
    assert (tmp_path / "ratings" / "manifest.json").read_bytes() == before
    assert len(server.requests) == 12
    table, _ = rate("--samples", "5")
    assert len(table) == 15 and len(server.requests) == 15


def test_malformed_ratings_are_rows_without_numbers(server: Server, rate) -> None:
    server.answer = lambda sent: "[7] [11]" if "salty" in sent["messages"][0]["content"] else "[7] [3]"
    table, facts = rate("--again", "0")
    assert table.loc[table["id"] == "b", ["first", "second"]].isna().all(axis=None)
    assert set(table["status"]) == {"ok", "a rating is out of its scale"}
    assert (facts["malformed"], facts["ratings"], facts["answers_without_rating"]) == (4, 8, 1)
    scores = item_scores(table)
    assert scores["samples"].tolist() == [4, 0, 4] and missing(scores) == ["b"]


def test_refused_answers_are_not_shown_but_stay(server: Server, rate, tmp_path: Path) -> None:
    table, facts = rate(given=answers(tmp_path / "refused", ends=["eos", "eos", "refused"]))
    assert len(server.requests) == 8 and len(table) == 12
    gone = table[table["id"] == "c"]
    assert set(gone["status"]) == {"the writer refused to answer"} and set(gone["reply_key"]) == {""}
    assert gone[["first", "second"]].isna().all(axis=None)
    assert (facts["answers_not_shown"], facts["answers_without_rating"]) == (1, 1)


def test_a_key_is_shown_where_it_is_marked_by_and_nowhere_else(server: Server, rate, tmp_path: Path) -> None:
    server.answer = lambda _sent: "The same value.\n[1]"
    table, _ = rate(template="rate-maths-1")
    assert set(table["first"]) == {1.0} and table["second"].isna().all()
    assert "key\n7\n" in server.requests[0]["messages"][0]["content"]
    scores = item_scores(table)
    assert scores["first"].tolist() == [1.0] * 3 and scores["second"].isna().all()
    with pytest.raises(DataError, match="1 questions have no reference to mark by: b"):
        rate(template="rate-maths-1", asked=questions(tmp_path / "bare", ["7", None, "x"]))


def test_answers_to_other_questions_are_refused(server: Server, rate, tmp_path: Path) -> None:
    with pytest.raises(JoinError, match="3 answers belong to none"):
        rate(asked=questions(tmp_path / "other", ids="dcba"))
    with pytest.raises(JoinError, match="1 answers belong to none of these questions: x"):
        rate(given=answers(tmp_path / "stray", "abx"))
    with pytest.raises(JoinError, match="duplicate"):
        rate(given=answers(tmp_path / "twice", "aba"))
    assert server.requests == []


@pytest.mark.parametrize("fault", [status(429), status(500), cut(0), cut(60), torn(), slow(0.8)])
def test_a_fault_is_overcome(fault: Callable, server: Server, rate, monkeypatch: pytest.MonkeyPatch) -> None:
    from w2s import judge_client

    monkeypatch.setattr(judge_client.random, "uniform", lambda *_: 0.01)
    server.faults = [fault]
    assert rate()[1]["ratings"] == 12
    assert len(server.requests) == 13


def test_a_judge_that_refuses_is_malformed_not_lost(server: Server, rate) -> None:
    refusal = body(json.dumps(completion(None, message={"refusal": "No."})))
    server.faults = [refusal, status(400, "withheld", "content_filter")]
    table, facts = rate("--again", "0", "--concurrency", "1")
    assert table["status"].tolist()[:3] == [
        "the judge refused to answer",
        "withheld by the endpoint's content filter",
        "ok",
    ]
    assert facts["malformed"] == 2 and facts["answers_without_rating"] == 0


def test_the_demo_worlds_judge_rates_nothing(rate) -> None:
    world = json.dumps({"world": {"seed": 7, "pairs": 1, "test_prompts": 30}, "noise": 0})
    with pytest.raises(JudgeError, match="it does not rate"):
        rate("--settings", world)


SCALES = {"two of 1-10": 2, "two of 0-10": 2, "0-10": 1, "0 or 1": 1}


@pytest.mark.parametrize(
    ("form", "text", "ratings"),
    [
        ("two of 1-10", "[7] [4]", (7, 4)),
        ("two of 1-10", "Since [1] says so: [2].\n\n [10] [1] \n", (10, 1)),
        ("two of 0-10", "x\r\n[0] [9.5]", (0, 9.5)),
        ("0-10", "[10.0]", (10,)),
        ("0 or 1", "It is.\n[1]", (1,)),
        ("0 or 1", "[0]", (0,)),
    ],
)
def test_ratings_are_read(form: str, text: str, ratings: tuple) -> None:
    assert judge_prompts.PARSERS[form](text, "stop") == ratings


@pytest.mark.parametrize("form", SCALES)
@pytest.mark.parametrize(
    "text",
    ["", "7 4", "[7]\n[4] [4] [4]", "[7][4]", "[7], [4]", "[7] [4].", "[ 7 ] [ 4 ]", "[07] [4]", "[-1] [4]", "[٧] [٤]",
     "[7/10] [4/10]", "[7] [x]", "[7] [4]\nThat is all.", "[11]", "[7] [10.5]", "[1e1] [3]", "[nan]", "**[7]** **[4]**",
     "[0.5]\n[7]\n[4]\nno", "[[7]] [[4]]"],
)  # fmt: skip
def test_other_ratings_are_malformed(form: str, text: str) -> None:
    with pytest.raises(MalformedReply):
        judge_prompts.PARSERS[form](text, "stop")


@pytest.mark.parametrize(("form", "text"), [("two of 1-10", "[0] [5]"), ("0 or 1", "[0.5]"), ("0 or 1", "[2]"), ("0-10", "[7] [4]"), ("two of 0-10", "[7]")])  # fmt: skip
def test_ratings_out_of_their_scale_are_malformed(form: str, text: str) -> None:
    with pytest.raises(MalformedReply):
        judge_prompts.PARSERS[form](text, "stop")


@pytest.mark.parametrize("why", ["length", "content_filter", "refusal"])
def test_a_rating_that_was_cut_or_withheld_is_not_read(why: str) -> None:
    with pytest.raises(MalformedReply):
        judge_prompts.PARSERS["0-10"]("[1]", why)


def test_texts_are_taken_as_they_are() -> None:
    assert parse_text(" Aye.\n", "stop") == ("Aye.", "eos")
    assert parse_text("Ay", "length") == ("Ay", "length")
    assert parse_text("I will not", "refusal") == ("", "refused")
    for other in ("", "tool_calls"):
        with pytest.raises(MalformedReply):
            parse_text("x", other)


def test_templates_name_their_scales() -> None:
    for name in rate_answers.KINDS:
        template = find(f"{name}-1")
        numbers = {
            "two of 1-10": "between 1",
            "two of 0-10": "between 0",
            "0-10": "between 0",
            "0 or 1": "[0] if",
        }
        assert numbers[template.form] in template.text
        assert template.text.count("[number]") in (0, SCALES[template.form])


def frame(rows: list[tuple[str, int, float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["id", "sample", "first", "second"])


NAN = float("nan")


def test_scores_are_means_over_valid_samples_and_no_item_is_lost() -> None:
    found = item_scores(frame([("b", 0, 7, 1), ("b", 1, 8, 3), ("b", 2, NAN, NAN), ("a", 0, NAN, NAN)]))
    assert found.columns.tolist() == ["id", "first", "second", "samples"]
    assert found["id"].tolist() == ["a", "b"] and found["samples"].tolist() == [0, 2]
    assert found.loc[1, ["first", "second"]].tolist() == [7.5, 2.0] and found.loc[0, ["first"]].isna().all()
    assert missing(found) == ["a"]


def test_a_sample_counted_twice_or_of_another_form_is_refused() -> None:
    """The paper's notebook appended one score twice for each item and doubled a mean."""
    with pytest.raises(JoinError, match="1 samples occur twice, first: id a, sample 0"):
        item_scores(frame([("a", 0, 1, NAN), ("a", 0, 1, NAN)]))
    with pytest.raises(DataError, match="1 of 3 samples have one rating"):
        item_scores(frame([("a", 0, 1, 2), ("a", 1, 1, 2), ("b", 0, 1, NAN)]))
    with pytest.raises(DataError, match="second rating alone"):
        item_scores(frame([("a", 0, NAN, 2)]))
