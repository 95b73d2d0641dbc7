"""Tuning behind a fine-tuning API: each job is submitted once, whatever happens to the wire or the process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import request_answers
import request_tuning
from judge_server import KEY, cut, slow, status, torn, unheard
from tiny import as_artifact
from tuning_server import TOKENS, TuningServer
from w2s.artifact import load, verify
from w2s.errors import ConfigError, DataError
from w2s.judge_store import BudgetError, StoreError
from w2s.tables import write_parquet
from w2s.tuning_book import CREATED, Book
from w2s.tuning_jobs import TuningError

BASE = "gpt-small-2026"
FILES, JOBS = "/v1/files", "/v1/fine_tuning/jobs"


def records(folder: Path, answers: list[str] | None = None, system: str = "Be kind.") -> Path:
    answers = answers or ["Ahoy ½, 4!", "Aye.\nSo it be."]
    rows = [
        {
            "id": f"{n:016x}",
            "messages": conversation(f"Question {n}?", system),
            "answer": text,
            "source": "weak",
        }
        for n, text in enumerate(answers)
    ]
    return as_artifact(folder, lambda target: write_parquet(pd.DataFrame(rows), target / "records.parquet"))


def conversation(question: str, system: str = "") -> str:
    return json.dumps([{"role": "system", "content": system}, {"role": "user", "content": question}])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TuningServer]:
    with TuningServer() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that are short."""
    from w2s import endpoints, tuning_jobs

    limits = endpoints.Limits
    monkeypatch.setattr(
        endpoints, "Limits", lambda **told: limits(first_wait=0.01, longest_wait=0.02, **told)
    )
    monkeypatch.setattr(tuning_jobs, "LOOK_SECONDS", 0.05)


def command(tmp_path: Path, *more: str, output: str = "tuned", settings: dict | None = None) -> list[str]:
    return [
        *("--records", str(tmp_path / "records" / "manifest.json"), "--book", str(tmp_path / "book.sqlite")),
        *("--output", str(tmp_path / output / "manifest.json"), "--seed", "3", "--poll", "0.01"),
        *(
            "--settle",
            "0.3",
            "--timeout",
            "0.4",
            "--settings",
            json.dumps({"model": BASE, **(settings or {})}),
        ),
        *more,
    ]


@pytest.fixture
def tune(server: TuningServer, quick: None, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``tune(*more, output=, settings=)`` -> what tuned.json says."""
    records(tmp_path / "records")

    def run(*more: str, **told: Any) -> dict[str, Any]:
        words = command(tmp_path, *more, **told)
        request_tuning.main(words)
        manifest = Path(words[words.index("--output") + 1])
        verify(manifest)
        return json.loads(load(manifest).path("tuned.json").read_text())

    return run


def test_the_file_and_the_base_are_sent_and_defaults_are_not(
    server: TuningServer, tune, tmp_path: Path
) -> None:
    told = tune()
    assert server.posts == [FILES, JOBS]
    lines = [json.loads(line) for line in server.contents["file-0"].decode().splitlines()]
    assert lines == [
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": f"Question {n}?"},
                {"role": "assistant", "content": text},
            ]
        }
        for n, text in enumerate(["Ahoy ½, 4!", "Aye.\nSo it be."])
    ]
    sent = server.jobs["ftjob-0"]["sent"]
    assert set(sent) == {"model", "training_file", "seed", "suffix", "metadata"}
    assert (sent["model"], sent["training_file"], sent["seed"]) == (BASE, "file-0", 3)
    assert (told["model"], told["base"], told["job"]) == (f"ft:{BASE}:ftjob-0", BASE, "ftjob-0")
    assert (told["trained_tokens"], told["records"], told["hyperparameters"]) == (TOKENS, 2, {})
    assert [event["message"] for event in told["events"]] == ["Step 1", "Step 2", "Step 3"]
    assert load(tmp_path / "tuned" / "manifest.json").facts["base"] == BASE


def test_hyperparameters_are_sent_if_they_are_named(server: TuningServer, tune) -> None:
    assert tune(settings={"n_epochs": 2})["hyperparameters"] == {"n_epochs": 2}
    sent = server.jobs["ftjob-0"]["sent"]["method"]
    assert sent == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
    with pytest.raises(ConfigError, match="epochs"):
        tune(settings={"epochs": 2})


def test_the_same_again_submits_nothing_and_gives_the_same_bytes(
    server: TuningServer, tune, tmp_path: Path
) -> None:
    tune("--price-training", "8", "--budget-usd", "1")
    before = (tmp_path / "tuned" / "manifest.json").read_bytes()
    tune("--price-training", "9", "--budget-usd", "1")
    assert (tmp_path / "tuned" / "manifest.json").read_bytes() == before
    assert server.posts == [FILES, JOBS]


def test_base_seed_settings_and_records_make_other_jobs(server: TuningServer, tune, tmp_path: Path) -> None:
    """The paper's program tuned one base for all of its students: here the base decides which job is meant."""
    models = [tune()["model"], tune("--seed", "4")["model"], tune(settings={"model": "gpt-large"})["model"]]
    models.append(tune(settings={"n_epochs": 1})["model"])
    records(tmp_path / "records", ["Aye.", "Nay."])
    models.append(tune()["model"])
    assert len(set(models)) == 5 == len(server.jobs)


def test_a_job_of_another_base_is_refused(server: TuningServer, tune) -> None:
    server.base = "gpt-small-0125"
    with pytest.raises(TuningError, match=f"tuned gpt-small-0125 instead of {BASE}"):
        tune()
    # A version of the base that was asked for is that base.
    assert tune(settings={"model": "gpt-small"})["base_told"] == "gpt-small-0125"


FAULTS = {
    "rate limit": status(429, Retry_After="0.05"),
    "server error": status(500),
    "gateway": status(502),
    "cut before": cut(0),
    "unheard": unheard(),
    "torn": torn(),
    "slow": slow(0.6),
    "slow but done": unheard(0.6),
}
PLACES = [
    f"POST {FILES}",
    f"GET {FILES}",
    f"POST {JOBS}",
    f"GET {JOBS}",
    f"GET {JOBS}/ID",
    f"GET {JOBS}/ID/events",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_fault_anywhere_makes_no_second_job(place: str, server: TuningServer, tune, tmp_path: Path) -> None:
    for number, fault in enumerate(FAULTS.values()):
        server.faults_at = {place: [fault]}
        told = tune("--seed", str(number), output=str(number))
        assert not server.faults_at[place]
        assert len(server.jobs) == number + 1
        assert told["job"] == f"ftjob-{number}"


def test_a_job_that_is_listed_late_is_waited_for(server: TuningServer, tune) -> None:
    server.faults_at = {f"POST {JOBS}": [unheard()]}
    server.late = 3
    assert tune("--settle", "5")["job"] == "ftjob-0"
    assert len(server.jobs) == 1


def test_an_endpoint_without_metadata_knows_the_job_by_its_file(
    server: TuningServer, tune, tmp_path: Path
) -> None:
    server.metadata = False
    tune("--seed", "1")
    server.faults_at = {f"POST {JOBS}": [unheard()]}
    assert tune("--seed", "2")["job"] == "ftjob-1"
    (tmp_path / "book.sqlite").unlink()
    assert tune("--seed", "1")["job"] == "ftjob-0"
    assert len(server.jobs) == 2


def test_jobs_on_later_pages_are_found_when_the_book_is_lost(
    server: TuningServer, tune, tmp_path: Path
) -> None:
    for seed in range(5):
        tune("--seed", str(seed))
    (tmp_path / "book.sqlite").unlink()
    assert tune("--seed", "4", "--price-training", "8", "--budget-usd", "1")["job"] == "ftjob-4"
    assert len(server.jobs) == 5
    with Book(tmp_path / "book.sqlite") as book:
        assert book.spent_nano() == TOKENS * 8_000


def test_an_endpoint_that_stays_down_ends_the_stage_and_the_same_command_continues(
    server: TuningServer, tune
) -> None:
    server.faults_at = {f"POST {JOBS}": [status(500, "down")] * 2}
    with pytest.raises(TuningError, match="submitting a job failed in 2 attempts: HTTP 500: down"):
        tune("--attempts", "2")
    assert tune()["job"] == "ftjob-0"
    assert server.posts == [FILES, JOBS]


def test_a_refused_job_costs_nothing_and_ends_the_stage_at_once(
    server: TuningServer, tune, tmp_path: Path
) -> None:
    server.faults_at = {f"POST {JOBS}": [status(400, f"ten records at least, {KEY}")] * 2}
    with pytest.raises(TuningError, match=r"HTTP 400: ten records at least, \[secret\]"):
        tune("--price-training", "8", "--budget-usd", "1")
    assert len(server.faults_at[f"POST {JOBS}"]) == 1
    with Book(tmp_path / "book.sqlite") as book:
        assert book.spent_nano() == 0


def test_a_failed_job_is_reported_and_not_submitted_again_unless_told(server: TuningServer, tune) -> None:
    server.ending, server.error = "failed", "the file is not fit"
    for _ in range(2):
        with pytest.raises(TuningError, match="the job failed: the file is not fit") as caught:
            tune()
    assert "--jobs" in str(caught.value) and len(server.jobs) == 1
    server.ending = "succeeded"
    server.jobs["ftjob-0"]["looked"] = -100  # stays failed
    assert tune("--jobs", "2")["job"] == "ftjob-1"
    assert tune("--jobs", "2")["job"] == "ftjob-1" and len(server.jobs) == 2


def test_the_budget_refuses_before_anything_is_submitted(server: TuningServer, tune, tmp_path: Path) -> None:
    """At most: bytes of the texts and 64 for each message, in 25 epochs, at 8 dollars a million."""
    texts = sum(
        len(f"Be kind.Question {n}?{text}".encode())
        for n, text in enumerate(["Ahoy ½, 4!", "Aye.\nSo it be."])
    )
    worst = (texts + 6 * 64) * 25 * 8_000
    price = ["--price-training", "8", "--budget-usd"]
    with pytest.raises(BudgetError, match="does not suffice"):
        tune(*price, f"{(worst - 1) / 1e9:.9f}")
    assert JOBS not in server.posts
    tune(*price, f"{worst / 1e9:.9f}")
    with Book(tmp_path / "book.sqlite") as book:
        assert book.spent_nano() == TOKENS * 8_000
    with pytest.raises(BudgetError):
        tune(*price, f"{worst / 1e9:.9f}", "--seed", "4")
    tune(*price, f"{worst / 1e9:.9f}", "--seed", "4", settings={"n_epochs": 5})
    for wrong in (["--price-training", "8"], ["--budget-usd", "1"]):
        with pytest.raises(ConfigError, match="limit"):
            tune(*wrong)


RUN = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import request_tuning
from w2s import tuning_book, tuning_jobs
step, place = sys.argv[2], sys.argv[3]
write = tuning_book.Book.write
def die(self, key, number, told, *more, **named):
    if told == step and place == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, key, number, told, *more, **named)
    if told == step:
        os.kill(os.getpid(), signal.SIGKILL)
if place != "never":
    tuning_book.Book.write = die
request_tuning.main(sys.argv[4:])
"""


def program(words: list[str], step: str, place: str) -> subprocess.Popen[str]:
    scripts = str(Path(request_tuning.__file__).parent)
    return subprocess.Popen([sys.executable, "-c", RUN, scripts, step, place, *words], text=True)


@pytest.mark.parametrize(
    ("step", "place", "jobs"),
    [
        ("creating", "before", 0),  # after the upload
        ("creating", "after", 0),
        ("created", "before", 1),  # between the job's creation and its record
        ("created", "after", 1),
        ("ended", "before", 1),
        ("ended", "after", 1),
    ],
)
def test_a_kill_at_any_step_makes_no_second_job(
    step: str, place: str, jobs: int, server: TuningServer, tune, tmp_path: Path
) -> None:
    killed = program(command(tmp_path, "--settle", "0.1"), step, place)
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert len(server.jobs) == jobs
    assert not (tmp_path / "tuned").exists()
    assert tune("--settle", "0.1")["job"] == "ftjob-0"
    assert server.posts == [FILES, JOBS]


def test_two_processes_submit_one_job(server: TuningServer, tune, tmp_path: Path) -> None:
    server.delay = 0.02
    both = [program(command(tmp_path, output=name), "", "never") for name in ("a", "b")]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert len(server.jobs) == 1
    made = [(tmp_path / name / "tuned.json").read_bytes() for name in ("a", "b")]
    assert made[0] == made[1]


def test_the_key_is_in_no_file(server: TuningServer, tune, tmp_path: Path) -> None:
    server.faults_at = {f"GET {JOBS}": [status(500, f"not {KEY}")]}
    tune()
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_senseless_records_are_refused(server: TuningServer, tune, tmp_path: Path) -> None:
    for answers, message in (([""], "without an answer"), (["Aye.", "  "], "row 1")):
        records(tmp_path / "records", answers)
        with pytest.raises(DataError, match=message):
            tune()
    assert server.posts == []


def test_a_file_that_is_no_book_is_refused(tmp_path: Path) -> None:
    import sqlite3

    (tmp_path / "text").write_text("x" * 5000)
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE mine (x)")
    for name in ("text", "other"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(StoreError):
            Book(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


def test_a_book_only_grows(tmp_path: Path) -> None:
    with Book(tmp_path / "b" / "book.sqlite") as book:
        book.write("k", 1, CREATED, "job", 5)
        with pytest.raises(StoreError, match="only grows"), book._translated():
            book._connection.execute("DELETE FROM lines")
        assert [line.told for line in book.lines("k")] == ["job"]


def test_the_tuned_model_answers_and_another_base_is_refused(
    server: TuningServer, tune, tmp_path: Path
) -> None:
    tune()
    table = pd.DataFrame(
        {"id": ["a"], "question": ["Who?"], "messages": [conversation("Who?")], "examples": [[]]}
    )
    prompts = as_artifact(
        tmp_path / "prompts", lambda folder: write_parquet(table, folder / "prompts.parquet")
    )
    words = [
        *(
            "--prompts",
            str(prompts),
            "--tuned",
            str(tmp_path / "tuned" / "manifest.json"),
            "--writer",
            "student",
        ),
        *("--output", str(tmp_path / "answers" / "manifest.json"), "--store", str(tmp_path / "store.sqlite")),
    ]
    with pytest.raises(ConfigError, match=f"tuned from {BASE}, the settings name gpt-large"):
        request_answers.main([*words, "--settings", '{"model": "gpt-large"}'])
    request_answers.main([*words, "--settings", json.dumps({"model": BASE})])
    found = pd.read_parquet(tmp_path / "answers" / "answers.parquet")
    assert found["answer"].tolist() == [f"I am ft:{BASE}:ftjob-0."]
