"""The judge's client against a real HTTP server, in good and bad health."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from judge_server import KEY, Server, body, completion, cut, slow, status
from w2s import interruption, judge_client
from w2s.errors import ConfigError, EnvironmentProblem, Interrupted, W2SError
from w2s.judge_client import Judge, JudgeError, Limits, Prices, Question, Settings, connect, redact
from w2s.judge_prompts import fill, find
from w2s.judge_store import FAILED, REPLY, UNCLEAR, BudgetError, Lost, Store

SETTINGS = {"model": "judge", "temperature": 0.5, "max_tokens": 50}
QUICK = {"concurrency": 4, "timeout": 0.4, "first_wait": 0.01, "longest_wait": 0.05, "attempts": 4}
PRICED = Prices(Decimal(10), Decimal(30))
COST = 100 * 10_000 + 10 * 30_000  # of the server's replies, in billionths of a dollar


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def judge(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Judge]]:
    """``judge(again=2, prices=..., settings=..., template=..., **limits)``: a new judge on the same store."""
    monkeypatch.setenv("JUDGE_URL", server.url)
    monkeypatch.setenv("JUDGE_KEY", KEY)
    stores = []

    def make(
        again: int = 2,
        prices: Prices = PRICED,
        settings: dict | None = None,
        template: str = "compare-1",
        **limits: object,
    ) -> Judge:
        read = Settings.read(settings or SETTINGS)
        limited = Limits(**{**QUICK, "budget": Decimal(100) if prices is PRICED else None, **limits})  # type: ignore[arg-type]
        endpoint = connect(read, "JUDGE_URL", "JUDGE_KEY", limited.timeout)
        stores.append(Store(tmp_path / "store.sqlite"))
        return Judge(read, find(template), endpoint, stores[-1], prices, limited, again)

    yield make
    for store in stores:
        store.close()


def questions(number: int = 1, length: int = 1) -> list[Question]:
    template = find("compare-1")
    return [
        Question(f"id {n}", fill(template, f"Question {n}?", "Yes. " * length, "No.")) for n in range(number)
    ]


def test_replies_are_asked_for_once_and_then_taken_from_the_store(server: Server, judge) -> None:
    server.delay = 0.05
    first = judge()
    answers = first.ask(questions(10))
    assert [answer.value for answer in answers] == [(7, 4)] * 10
    assert {answer.status for answer in answers} == {"ok"}
    assert len({answer.key for answer in answers}) == 10
    assert len(server.requests) == 10
    assert 1 < server.together <= 4
    assert first.counts.asked == 10 and first.counts.cost_nano == 10 * COST == first.store.spent_nano()
    second = judge()
    assert second.ask(questions(12))[:10] == answers
    assert len(server.requests) == 12
    assert (second.counts.from_store, second.counts.asked) == (10, 2)


def test_the_request_is_what_the_settings_say(server: Server, judge) -> None:
    judge().ask(questions())
    sent = server.requests[0]
    assert set(sent) == {"model", "messages", "temperature", "top_p", "max_tokens"}
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("judge", 0.5, 50)
    assert sent["messages"] == [{"role": "user", "content": questions()[0].prompt}]
    extra = {
        "model": "judge",
        "limit": "max_completion_tokens",
        "temperature": None,
        "top_p": None,
        "seed": 3,
    }
    judge(settings={**extra, "extra": {"reasoning_effort": "low"}}).ask(questions())
    sent = server.requests[1]
    assert set(sent) == {"model", "messages", "max_completion_tokens", "seed", "reasoning_effort"}


def test_samples_are_different_requests(server: Server, judge) -> None:
    asked = [Question("id 0", questions()[0].prompt, sample) for sample in (0, 1, 1)]
    answers = judge(settings={**SETTINGS, "seed": 3}).ask(asked)
    assert answers[1].key == answers[2].key != answers[0].key
    assert len(server.requests) == 2 == len({request["seed"] for request in server.requests})


FAULTS = {
    "rate limit": (status(429), FAILED),
    "server error": (status(500), FAILED),
    "unavailable": (status(503), FAILED),
    "gateway": (status(502), UNCLEAR),
    "cut before": (cut(0), UNCLEAR),
    "cut within": (cut(60), UNCLEAR),
    "slow": (slow(0.8), UNCLEAR),
    "torn": (body(json.dumps(completion("7 4"))[:80]), UNCLEAR),
    "not JSON": (body("<html>busy</html>"), UNCLEAR),
    "empty": (body(""), UNCLEAR),
    "wrong schema": (body('{"choices": [{"text": "7 4"}], "model": "judge"}'), UNCLEAR),
    "wrong type": (body(json.dumps(completion("7 4") | {"model": 7})), UNCLEAR),
    "no choices": (body(json.dumps(completion("7 4") | {"choices": []})), UNCLEAR),
    "other value": (body("[]"), UNCLEAR),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_overcome_and_recorded(name: str, server: Server, judge) -> None:
    fault, outcome = FAULTS[name]
    server.faults = [fault]
    asked = judge()
    assert asked.ask(questions())[0].value == (7, 4)
    assert len(server.requests) == 2
    assert asked.store.count(outcome) == 1 == asked.store.count(REPLY)
    assert asked.store.lost() == Lost(0, 0)
    # What may have been paid counts with the most that it can have cost.
    assert (asked.counts.cost_nano > COST) == (outcome == UNCLEAR)


def test_a_connection_that_is_refused_costs_nothing(
    server: Server, judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_URL", "http://127.0.0.1:9/v1")
    asked = judge(attempts=2)
    with pytest.raises(JudgeError, match="in 2 attempts: ConnectError"):
        asked.ask(questions())
    assert (asked.store.count(FAILED), asked.store.spent_nano()) == (2, 0)


def test_attempts_are_bounded_and_what_was_answered_is_kept(server: Server, judge) -> None:
    judge().ask(questions(2))
    server.faults = [status(500, "down")] * 50
    with pytest.raises(JudgeError, match="in 4 attempts: HTTP 500: down") as caught:
        judge(concurrency=1).ask(questions(3))
    assert "id 2" in str(caught.value)
    assert len(server.requests) == 2 + 4
    server.faults = []
    assert len(judge().ask(questions(3))) == 3
    assert len(server.requests) == 7


@pytest.mark.parametrize("code", [400, 401, 403, 404])
def test_errors_that_do_not_pass_end_the_stage_at_once(code: int, server: Server, judge) -> None:
    server.faults = [status(code, "this is wrong")] * 50
    with pytest.raises(JudgeError, match=f"HTTP {code}: this is wrong"):
        judge(concurrency=1).ask(questions(5))
    assert len(server.requests) == 1


def test_a_used_up_quota_is_no_rate_limit(server: Server, judge) -> None:
    server.faults = [status(429, "pay first", "insufficient_quota")] * 5
    with pytest.raises(JudgeError, match="account with credit"):
        judge().ask(questions())
    assert len(server.requests) == 1


def test_the_endpoint_says_how_long_to_wait_and_nobody_sends_meanwhile(server: Server, judge) -> None:
    server.faults = [status(429, Retry_After="0.5")]
    judge(concurrency=1).ask(questions())
    assert 0.5 <= server.moments[1] - server.moments[0] < 1.5
    server.moments.clear()
    server.faults = [status(429, Retry_After="0.5")]
    server.delay = 0.05
    judge(concurrency=2).ask(questions(8))
    pause = max(after - before for before, after in zip(server.moments, server.moments[1:], strict=False))
    assert pause > 0.4


def test_the_endpoint_may_name_a_date_and_too_long_a_wait_ends_the_stage(server: Server, judge) -> None:
    server.faults = [status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")]
    judge().ask(questions())
    assert len(server.requests) == 2
    server.faults = [status(429, Retry_After="86400")]
    with pytest.raises(JudgeError, match="86400 seconds"):
        judge().ask(questions(2))


def test_requests_per_minute_are_spaced(server: Server, judge) -> None:
    judge(requests_per_minute=600.0).ask(questions(5))
    assert server.moments[-1] - server.moments[0] >= 0.35


def test_malformed_replies_are_asked_again_so_often_and_then_reported(server: Server, judge) -> None:
    replies = iter(["I like both.", "7 4 2", "9 2"])
    server.answer = lambda _body: next(replies)
    asked = judge(again=2)
    answer = asked.ask(questions())[0]
    assert answer.value == (9, 2) and [reply.text for reply in answer.replies] == [
        "I like both.",
        "7 4 2",
        "9 2",
    ]
    server.answer = lambda _body: "11 4"
    answer = judge(again=1).ask([Question("id 9", questions()[0].prompt, sample=5)])[0]
    assert answer.value is None and "above" not in answer.status and "two numbers" in answer.status
    assert len(server.requests) == 3 + 2
    # Malformed replies are paid and kept as well: asking again costs nothing, until more samples are wanted.
    judge(again=1).ask([Question("id 9", questions()[0].prompt, sample=5)])
    assert len(server.requests) == 5
    judge(again=2).ask([Question("id 9", questions()[0].prompt, sample=5)])
    assert len(server.requests) == 6


def test_cut_refused_and_withheld_replies_are_malformed(server: Server, judge) -> None:
    server.faults = [
        body(json.dumps(completion("7 1", finish_reason="length"))),
        body(json.dumps(completion(None, message={"refusal": "I would rather not."}))),
        body(json.dumps(completion(None, finish_reason="content_filter"))),
    ]
    answer = judge(again=2, concurrency=1).ask(questions())[0]
    assert answer.value is None
    assert [reply.finish_reason for reply in answer.replies] == ["length", "refusal", "content_filter"]
    assert answer.replies[1].text == "I would rather not."
    assert "filter" in answer.status


def test_the_budget_is_never_exceeded(server: Server, judge) -> None:
    """Replies cost 1.3 thousandths of a dollar; what one can cost at most is held until it has come."""
    asked = judge(budget=Decimal("0.05"), concurrency=8)
    with pytest.raises(BudgetError, match="used up"):
        asked.ask(questions(60))
    worst = asked._worst_nano(questions()[0].prompt)
    spent = asked.store.spent_nano()
    assert spent == len(server.requests) * COST
    assert 50_000_000 - worst - 100_000 < spent <= 50_000_000
    paid = len(server.requests)
    with pytest.raises(BudgetError):
        judge(budget=Decimal("0.05")).ask(questions(60))
    assert len(server.requests) == paid
    judge(budget=Decimal(1)).ask(questions(60))
    assert len(server.requests) == 60


def test_the_estimate_covers_every_tokenizer(judge) -> None:
    asked = judge()
    prompt = "ünï½🙂 " * 50
    # A byte-level tokenizer makes at most one token of each byte.
    assert asked._worst_nano(prompt) >= PRICED.nano(len(prompt.encode()), 50)


def test_an_endpoint_that_counts_more_than_there_can_be_stops_the_run(server: Server, judge) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 5000, "total_tokens": 5100}
    server.faults = [body(json.dumps(completion("7 4") | {"usage": usage}))]
    asked = judge(concurrency=1)
    with pytest.raises(BudgetError, match="counts more tokens"):
        asked.ask(questions(5))
    assert len(server.requests) == 1 == asked.store.count(REPLY)


def test_a_reply_without_usage_counts_with_the_most_it_can_cost(server: Server, judge) -> None:
    server.faults = [body(json.dumps(completion("7 4") | {"usage": None}))]
    asked = judge()
    reply = asked.ask(questions())[0].replies[0]
    assert reply.prompt_tokens is None
    assert reply.cost_nano == asked._worst_nano(questions()[0].prompt)


def test_prices_need_a_budget_and_a_budget_prices(judge) -> None:
    with pytest.raises(ConfigError, match="without a limit"):
        judge(prices=Prices(Decimal(1), Decimal(0)))
    for prices in (Prices(), Prices(Decimal(1), Decimal(0))):
        with pytest.raises(ConfigError, match="without prices"):
            judge(prices=prices, budget=Decimal(1))
    assert Prices(Decimal("0.15"), Decimal("0.60")).nano(1, 0) == 150
    assert Prices(Decimal("0.0001"), Decimal(0)).nano(1, 0) == 1  # rounded up


def test_the_key_is_in_no_file_log_or_error(
    server: Server, judge, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_LOG", "debug")
    caplog.set_level(logging.DEBUG)
    said = f"Incorrect key: {KEY[:9]}*****{KEY[-7:]}, given as Bearer {KEY}"
    server.faults = [
        status(500, said),
        body(f'{{"echo": "{KEY}"}}'),
        body(json.dumps(completion(f"7 4\n{KEY}"))),
    ]
    asked = judge()
    answer = asked.ask(questions())[0]
    assert answer.value == (7, 4) and answer.replies[0].text == "7 4\n[secret]"
    server.faults = [status(401, said)]
    with pytest.raises(JudgeError) as caught:
        judge().ask(questions(2))
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    shown = "".join([str(caught.value), repr(caught.value.__dict__), caplog.text, repr(asked.counts)])
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    for piece in (KEY, KEY[:9], KEY[-7:]):
        assert piece not in shown
        assert piece.encode() not in stored
    assert "Incorrect key: [secret]*****[secret]" in str(caught.value)


def test_pieces_of_a_secret_are_hidden() -> None:
    assert redact("sk-abc and abcdef", ("sk-abcdefgh",)) == "[secret] and [secret]"
    assert redact("nothing here", ("sk-abcdefgh", "x", "")) == "nothing here"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8000", "not the address"),
        ("file:///etc/passwd", "not the address"),
        ("http://me:secret-word@host/v1", "could be a secret"),
        ("http://host/v1?key=secret-word", "could be a secret"),
    ],
)
def test_addresses_with_secrets_are_refused(url: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("U", url)
    monkeypatch.setenv("K", KEY)
    with pytest.raises(ConfigError, match=message) as caught:
        connect(Settings.read(SETTINGS), "U", "K", 1)
    assert "secret-word" not in str(caught.value)


def test_missing_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    monkeypatch.setenv("U", "http://host/v1")
    with pytest.raises(EnvironmentProblem, match="MY_KEY"):
        connect(Settings.read(SETTINGS), "U", "MY_KEY", 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m", "temprature": 1}, "temprature"),
        ({"model": "m", "temperature": "0.5"}, "temperature"),
        ({"model": "m", "temperature": 3}, "temperature"),
        ({"model": "m", "extra": {"stream": True}}, "stream"),
        ({"world": {}, "noise": -1}, "noise"),
        ({"world": {}, "noise": 1, "model": "m"}, "model"),
        ({"world": {}}, "noise"),
    ],
)
def test_senseless_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings.read(settings)


def test_sigterm_keeps_what_was_under_way(server: Server, judge) -> None:
    server.delay = 0.3
    asked = judge(concurrency=2, timeout=5.0)
    threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Interrupted), interruption.listen():
        asked.ask(questions(20))
    # Forgets the request: later trainings in this process would take it for theirs.
    with interruption.listen():
        pass
    kept = asked.store.count(REPLY)
    assert kept == len(server.requests) == server.answered
    assert 2 <= kept < 20
    assert asked.store.lost() == Lost(0, 0)
    server.delay = 0.0
    judge().ask(questions(20))
    assert len(server.requests) == 20


RUN = """
import os, signal, sys
sys.path[:0] = [sys.argv[2], sys.argv[3]]
from decimal import Decimal
from pathlib import Path
from w2s import judge_store
from w2s.judge_client import Judge, Limits, Prices, Settings, connect
from w2s.judge_prompts import find
from test_judge_client import PRICED, SETTINGS, questions
mode, wanted = sys.argv[4], int(sys.argv[5])
if mode == "die":
    settle = judge_store.Store.settle
    def die(self, intent, key, outcome):
        if intent.number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return settle(self, intent, key, outcome)
    judge_store.Store.settle = die
settings = Settings.read(SETTINGS)
limits = Limits(concurrency=1 if mode == "die" else 4, budget=Decimal(100))
with judge_store.Store(Path(sys.argv[1])) as store:
    judge = Judge(settings, find("compare-1"), connect(settings, "JUDGE_URL", "JUDGE_KEY", 5), store, PRICED, limits, 0)
    answers = judge.ask(questions(wanted))
    print(len(answers), judge.counts.asked + judge.counts.from_store)
"""


def program(path: Path, mode: str, wanted: int) -> subprocess.Popen[str]:
    here, scripts = Path(__file__).parent, Path(judge_client.__file__).parent.parent
    command = [sys.executable, "-c", RUN, str(path), str(scripts), str(here), mode, str(wanted)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_kill_between_reply_and_record_is_known_afterwards(
    server: Server, judge, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed = program(tmp_path / "store.sqlite", "die", 5)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert server.answered == 3
    caplog.set_level(logging.INFO)
    asked = judge()
    assert asked.store.count(REPLY) == 2
    assert asked.store.lost().requests == 1
    asked.ask(questions(5))
    assert "1 requests of interrupted runs may have been paid" in caplog.text
    # Nothing is paid twice but what nobody can know of: 2 kept, 1 lost, 3 asked now.
    assert len(server.requests) == 3 + 3
    assert asked.store.lost().requests == 1


def test_two_processes_pay_each_reply_once(server: Server, judge, tmp_path: Path) -> None:
    server.delay = 0.02
    both = [program(tmp_path / "store.sqlite", "share", 30) for _ in range(2)]
    told = [process.communicate(timeout=60)[0] for process in both]
    assert told == ["30 30\n"] * 2
    assert len(server.requests) == 30


def test_questions_under_way_in_another_thread_are_waited_for(server: Server, judge) -> None:
    server.delay = 0.1
    same = questions()[0]
    started = time.monotonic()
    answers = judge(concurrency=4).ask([same] * 4)
    assert len({answer.key for answer in answers}) == 1 == len(server.requests)
    assert time.monotonic() - started < 3


def test_errors_are_ours(server: Server, judge) -> None:
    server.faults = [status(418, "x" * 5000)]
    with pytest.raises(W2SError) as caught:
        judge().ask(questions())
    assert len(str(caught.value)) < 800
