"""What happened to earlier attempts, and the lock that lets one work at a time."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from w2s import attempts

SCRIPTS = Path(attempts.__file__).parent.parent
STARTED = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "model" / "manifest.json"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "POLL_SECONDS", 0.02)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def record(output: Path, outcome: str, code: int = 1) -> None:
    attempts.record(output, started=STARTED, outcome=outcome, code=code)


def test_outcomes_are_counted_by_kind(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempts.count(output, "interrupted") == 0
    record(output, "interrupted", 75)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    record(output, "out-of-memory", 137)
    record(output, "interrupted", 75)
    assert [attempts.count(output, name) for name in attempts.OUTCOMES] == [2, 1, 0, 0]
    lines = [json.loads(line) for line in (output.parent.parent / "model.job/attempts.jsonl").open()]
    assert lines[1] | {"ended": "", "host": ""} == {
        "started": "2025-01-02T03:04:05+00:00",
        "ended": "",
        "host": "",
        "slurm_job": "4711",
        "outcome": "out-of-memory",
        "exit_code": 137,
    }
    assert lines[0]["slurm_job"] is None


def test_a_torn_line_is_not_counted_and_harms_no_other(output: Path) -> None:
    record(output, "interrupted")
    history = attempts.job_folder(output) / attempts.HISTORY
    whole = history.read_bytes()
    history.write_bytes(whole + whole[: len(whole) // 2])
    assert attempts.count(output, "interrupted") == 1
    record(output, "interrupted")
    assert attempts.count(output, "interrupted") == 2


def test_a_record_that_cannot_be_written_is_no_error(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    attempts.job_folder(output).write_text("a file in the place of the folder")
    record(output, "failed")
    assert "cannot be recorded" in caplog.text
    assert attempts.count(output, "failed") == 0


def test_success_leaves_nothing(output: Path) -> None:
    record(output, "failed")
    with attempts.held(output) as done:
        assert not done
        attempts.discard(output)
        assert [path.name for path in attempts.job_folder(output).iterdir()] == ["lock.1"]
    assert not attempts.job_folder(output).exists()
    attempts.discard(output)


def test_a_failure_leaves_the_history_and_no_lock(output: Path) -> None:
    with pytest.raises(ZeroDivisionError), attempts.held(output):
        record(output, "failed")
        raise ZeroDivisionError
    assert [path.name for path in attempts.job_folder(output).iterdir()] == ["attempts.jsonl"]


def plant(output: Path, age: float = 0.0, **holder: Any) -> Path:
    """A lock of somebody else, touched ``age`` seconds ago."""
    path = attempts.job_folder(output) / "lock.3"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": "another", "host": "node7", "pid": 12, "work": "w", **holder}))
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.fixture
def taken(output: Path) -> Iterator[Callable[[], bool]]:
    """``taken()``: whether a process that comes now gets the lock within half a second."""
    waiting: list[threading.Thread] = []

    def attempt() -> bool:
        got = threading.Event()

        def take() -> None:
            with attempts.held(output):
                got.set()

        waiting.append(threading.Thread(target=take, daemon=True))
        waiting[-1].start()
        return got.wait(0.5)

    yield attempt
    with contextlib.suppress(FileNotFoundError):  # who got it may remove the folder at this very moment
        for path in attempts.job_folder(output).glob("lock.*"):
            path.unlink(missing_ok=True)
    for thread in waiting:
        thread.join(5)
        assert not thread.is_alive()


def gone() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("age", "stale"), [(0.0, False), (attempts.STALE_SECONDS - 5, False), (attempts.STALE_SECONDS + 5, True)]
)
def test_a_lock_is_stale_when_nobody_touches_it(
    output: Path, taken: Callable[[], bool], age: float, stale: bool
) -> None:
    planted = plant(output, age)
    assert taken() == stale
    assert planted.exists() != stale


def test_a_lock_from_the_future_is_stale_when_nobody_touches_it(
    output: Path, taken: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was set back: by dates alone it would be fresh for another hour."""
    planted = plant(output, -3600)
    assert not taken()
    monkeypatch.setattr(attempts, "STALE_SECONDS", 0.2)
    assert taken()
    assert not planted.exists()


def test_an_unfinished_lock_counts_as_one(output: Path, taken: Callable[[], bool]) -> None:
    plant(output).write_text("")
    assert not taken()


def test_the_lock_of_a_dead_process_of_this_machine_is_stale_at_once(
    output: Path, taken: Callable[[], bool]
) -> None:
    plant(output, machine=attempts._machine(), pid=gone())
    assert taken()


def test_a_process_that_nobody_has_waited_for_is_dead(output: Path, taken: Callable[[], bool]) -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    plant(output, machine=attempts._machine(), pid=process.pid)
    assert taken()
    process.wait()


def test_a_living_process_of_this_machine_is_waited_for(output: Path, taken: Callable[[], bool]) -> None:
    plant(output, machine=attempts._machine(), pid=os.getppid())
    assert not taken()


def test_a_number_of_another_container_says_nothing(output: Path, taken: Callable[[], bool]) -> None:
    plant(output, machine=f"{attempts._machine()}0", pid=gone())
    assert not taken()


def test_a_requeued_job_does_not_wait_for_itself(
    output: Path, taken: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    plant(output, slurm_job="4712")
    assert not taken()
    plant(output, slurm_job="4711")
    assert taken()


def test_jobs_without_a_scheduler_are_not_the_same_job(output: Path, taken: Callable[[], bool]) -> None:
    plant(output, slurm_job=None)
    assert not taken()


@pytest.mark.parametrize(
    ("work", "made", "done"), [("w", True, True), ("w", False, False), ("other", True, False)]
)
def test_after_waiting_the_same_work_is_not_done_twice(
    output: Path, caplog: pytest.LogCaptureFixture, work: str, made: bool, done: bool
) -> None:
    caplog.set_level(logging.INFO)
    planted = plant(output, slurm_job="4711")

    def finish() -> None:
        if made:
            output.parent.mkdir()
            output.write_text("{}")
        planted.unlink()

    threading.Timer(0.3, finish).start()
    with attempts.held(output, work) as found:
        assert found == done
    assert "waiting for process 12 on node7 (SLURM job 4711), which holds" in caplog.text
    assert caplog.text.count("waiting for process") == 1


def test_an_output_that_was_there_before_says_nothing(output: Path) -> None:
    output.parent.mkdir()
    output.write_text("{}")
    with attempts.held(output, "w") as found:
        assert not found


def test_a_held_lock_is_touched(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "HEARTBEAT_SECONDS", 0.05)
    with attempts.held(output):
        path = attempts.job_folder(output) / "lock.1"
        os.utime(path, (0, 0))
        time.sleep(0.5)
        assert time.time() - path.stat().st_mtime < 5


ASLEEP = """
import sys, time
from pathlib import Path
from w2s import attempts, cli
attempts.HEARTBEAT_SECONDS = 0.05
def main():
    with attempts.held(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(30)
cli.run(main)
"""


def start(code: str, *words: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_holder_that_lost_its_lock_stops_as_if_asked(output: Path) -> None:
    process = start(ASLEEP, output)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    lock = attempts.job_folder(output) / "lock.1"
    lock.rename(lock.with_name("lock.2"))
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 75
    assert "was taken away" in errors
    assert lock.with_name("lock.2").exists()


# A view of the locks gets old while it is acted upon, and every fourth holder dies without removing its lock.
CROWD = """
import os, random, sys, time
from pathlib import Path
from w2s import attempts
attempts.POLL_SECONDS = 0.005
stock = attempts._clock
def slow(folder):
    time.sleep(random.uniform(0, 0.02))
    return stock(folder)
attempts._clock = slow
output, inside = Path(sys.argv[1]), Path(sys.argv[2])
with attempts.held(output):
    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
    time.sleep(random.uniform(0, 0.01))
    inside.unlink()
    if random.random() < 0.25:
        os._exit(0)
"""


def test_of_many_takers_one_is_inside(output: Path, tmp_path: Path) -> None:
    processes = [start(CROWD, output, tmp_path / "inside") for _ in range(24)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
