"""Answers of a model behind an endpoint: asked once, refusals counted, conversations as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import request_answers
from judge_server import KEY, Server, body, completion, cut, slow, status, torn
from tiny import as_artifact
from w2s.artifact import load, verify
from w2s.conversations import read_messages
from w2s.errors import DataError, JoinError
from w2s.judge_client import Judge, JudgeError, Limits, Prices, Question, Settings
from w2s.judge_prompts import CONVERSATION, fill, find
from w2s.judge_store import BudgetError, Store
from w2s.tables import write_parquet

TEXTS = ["Who?", "{question} ½", "Why?\n\nThink."]


def prompts(folder: Path, ids: list[str] | None = None, system: str = "Answer as a pirate.") -> Path:
    table = pd.DataFrame({"id": ids or list("cab"), "question": TEXTS})
    table["messages"] = [
        json.dumps([{"role": "system", "content": system}, {"role": "user", "content": text}])
        for text in TEXTS
    ]
    table["examples"] = [["x"]] * 3
    return as_artifact(folder, lambda target: write_parquet(table, target / "prompts.parquet"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(lambda sent: f"  Aye: {sent['messages'][-1]['content']}\n") as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield running


@pytest.fixture
def answer(server: Server, tmp_path: Path) -> Callable[..., tuple[pd.DataFrame, dict]]:
    """``answer(*more, prompts=, **settings)`` -> the table and the facts."""

    def run(*more: str, asked: Path | None = None, **settings: object) -> tuple[pd.DataFrame, dict]:
        manifest = tmp_path / "answers" / "manifest.json"
        request_answers.main(
            [
                *("--prompts", str(asked or prompts(tmp_path / "prompts")), "--output", str(manifest)),
                *("--writer", "w", "--settings", json.dumps({"model": "m", **settings})),
                *("--store", str(tmp_path / "store.sqlite"), "--timeout", "0.5", "--concurrency", "1", *more),
            ]
        )
        verify(manifest)
        return pd.read_parquet(load(manifest).path("answers.parquet")), load(manifest).facts

    return run


def test_conversations_are_sent_as_they_are_and_answers_stripped(server: Server, answer) -> None:
    table, facts = answer()
    assert table.columns.tolist() == ["id", "question", "answer", "tokens", "finished"]
    assert table["id"].tolist() == list("cab") and table["question"].tolist() == TEXTS
    assert table["answer"].tolist() == [f"Aye: {text}" for text in TEXTS]
    assert table["tokens"].tolist() == [10] * 3 and set(table["finished"]) == {"eos"}
    assert [sent["messages"] for sent in server.requests] == [
        [{"role": "system", "content": "Answer as a pirate."}, {"role": "user", "content": text}]
        for text in TEXTS
    ]
    assert (facts["rows_in"], facts["rows_out"], facts["finished"], facts["malformed"]) == (
        3,
        3,
        {"eos": 3},
        0,
    )
    assert facts["model"] == ["judge-2026-01-01"]


def test_an_empty_system_text_is_no_message(server: Server, answer, tmp_path: Path) -> None:
    answer(asked=prompts(tmp_path / "bare", system=""))
    assert [message["role"] for message in server.requests[0]["messages"]] == ["user"]


def test_replies_are_asked_for_once_and_a_seed_is_a_sample(server: Server, answer) -> None:
    answer()
    answer()
    assert len(server.requests) == 3
    answer("--seed", "1", seed=7)
    answer("--seed", "2", seed=7)
    assert len(server.requests) == 9 and len({sent["seed"] for sent in server.requests[3:]}) == 2
    answer("--seed", "2", seed=7, model="other")
    assert len(server.requests) == 12


def test_refusals_and_filters_are_rows_and_counted(server: Server, answer) -> None:
    """The paper's program stored None for them and said nothing."""
    server.faults = [
        body(json.dumps(completion(None, message={"refusal": "I would rather not."}))),
        body(json.dumps(completion("Half an", finish_reason="content_filter"))),
        body(json.dumps(completion("Cut of", finish_reason="length"))),
    ]
    table, facts = answer()
    assert table["answer"].tolist() == ["", "", "Cut of"]
    assert table["finished"].tolist() == ["refused", "refused", "length"]
    assert facts["finished"] == {"length": 1, "refused": 2} and facts["empty"] == 2
    answer()
    assert len(server.requests) == 3


def test_a_prompt_that_the_filter_refuses_is_a_refusal_and_costs_nothing(
    server: Server, answer, tmp_path: Path
) -> None:
    server.faults = [status(400, "withheld", "content_filter")]
    table, facts = answer("--price-input", "1", "--price-output", "1", "--budget-usd", "1")
    assert table["finished"].tolist() == ["refused", "eos", "eos"]
    assert facts["cost_usd"] == pytest.approx(2 * 110 / 1e6)
    answer()
    assert len(server.requests) == 3


def test_a_reply_that_ends_as_none_should_is_asked_again_and_then_counted(server: Server, answer) -> None:
    server.faults = [body(json.dumps(completion("x", finish_reason="tool_calls")))] * 2
    table, facts = answer("--again", "1")
    assert table["finished"].tolist() == ["refused", "eos", "eos"] and table["answer"][0] == ""
    assert facts["malformed"] == 1 and facts["asked_again"] == 1
    assert facts["malformed_because"] == {"ended neither by itself nor at the token limit": 1}


def test_tokens_that_are_not_told_are_missing(server: Server, answer) -> None:
    server.faults = [body(json.dumps(completion("Aye") | {"usage": None}))]
    assert answer()[0]["tokens"].isna().tolist() == [True, False, False]


@pytest.mark.parametrize("fault", [status(429), status(500), cut(0), cut(60), torn(), slow(0.8)])
def test_a_fault_is_overcome(
    fault: Callable, server: Server, answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from w2s import judge_client

    monkeypatch.setattr(judge_client.random, "uniform", lambda *_: 0.01)
    server.faults = [fault]
    assert answer()[0]["answer"].tolist() == [f"Aye: {text}" for text in TEXTS]
    assert len(server.requests) == 4


def test_what_was_answered_is_kept_when_the_stage_fails(server: Server, answer, tmp_path: Path) -> None:
    server.faults = []
    answered = server.answer

    def second(sent: dict) -> str:
        server.faults = [status(401)]
        return answered(sent)

    server.answer = second
    with pytest.raises(JudgeError, match="401"):
        answer()
    assert not (tmp_path / "answers").exists()
    server.answer, server.faults = answered, []
    assert len(answer()[0]) == 3 and len(server.requests) == 2 + 2


def test_the_budget_counts_all_messages(server: Server, answer) -> None:
    limit = ["--price-input", "1", "--price-output", "1", "--budget-usd"]
    size = len(f"Answer as a pirate.{TEXTS[0]}".encode())
    worst = (size + 2 * 64 + 20) / 1e6
    with pytest.raises(BudgetError):
        answer(*limit, f"{worst - 1e-6:.6f}", max_tokens=20)
    assert server.requests == []
    with pytest.raises(BudgetError):
        answer(*limit, f"{worst:.6f}", max_tokens=20)
    assert len(server.requests) == 1


def test_prompts_that_are_none_are_refused(server: Server, answer, tmp_path: Path) -> None:
    with pytest.raises(JoinError, match="duplicate"):
        answer(asked=prompts(tmp_path / "twice", ["a", "b", "a"]))
    assert server.requests == []


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "no messages"),
        ("{", "no messages"),
        ('{"role": "user", "content": "x"}', "no messages"),
        ('[{"role": "user", "content": 3}]', "no messages"),
        ('[{"role": "tool", "content": "x"}]', "no messages"),
        ('[{"role": "user", "content": "x", "name": "y"}]', "no messages"),
        ("[]", "not speak last"),
        ('[{"role": "user", "content": ""}]', "not speak last"),
        ('[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]', "not speak last"),
        ('[{"role": "user", "content": "x"}, {"role": "system", "content": "y"}, {"role": "user", "content": "z"}]', "first"),
    ],
)  # fmt: skip
def test_other_messages_are_refused(messages: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_messages(messages, "here")


def test_keys_of_stored_replies_stay_as_they_are(tmp_path: Path) -> None:
    """Another key, and every reply that was ever paid for would be asked again."""

    def key(settings: dict, template, prompt, sample: int, again: int) -> str:
        asked = Judge(Settings.read(settings), template, None, None, Prices(), Limits(), 0)  # type: ignore[arg-type]
        return asked._request(Question("x", prompt, sample), again).key

    first, second = find("compare-1"), find("vote-1")
    pair = ("Question?", "Yes. ½", "No.")
    settings = {"model": "judge", "temperature": 0.5, "max_tokens": 50}
    assert (
        key(settings, first, fill(first, *pair), 2, 1)
        == "c7f073617359911517d7ce4b33adbcb5b1c30221f57fa0fca3c9087c8d631431"
    )
    seeded = {"model": "m", "seed": 3, "extra": {"a": 1}}
    assert (
        key(seeded, second, fill(second, *pair), 2, 1)
        == "c4ed52c41f4b92f5c17f929073746cbc1692d833e3f1aa30c349c211b2c3ac32"
    )
    user = {"role": "user", "content": "Who?"}
    assert key(settings, CONVERSATION, [user], 0, 0) == key(settings, CONVERSATION, "Who?", 0, 0)
    system = {"role": "system", "content": "Be kind."}
    assert key(settings, CONVERSATION, [system, user], 0, 0) != key(settings, CONVERSATION, [user], 0, 0)


def test_the_key_is_in_no_file(server: Server, answer, tmp_path: Path) -> None:
    server.faults = [body(json.dumps(completion(f"Aye {KEY}")))]
    assert answer()[0]["answer"][0] == "Aye [secret]"
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    with Store(tmp_path / "store.sqlite") as store:
        assert store.count("reply") == 3
