"""SIGTERM, want of memory, and trainings that go on after both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from training_inputs import Inputs
from w2s import checkpoints, cli, interruption
from w2s.errors import Interrupted

SCRIPTS = Path(interruption.__file__).parent.parent


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(interruption.FOLDER, raising=False)
    former = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) == former


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_first_signal_raises_and_a_second_does_not() -> None:
    with interruption.listen():
        with pytest.raises(interruption.Stop):
            terminate()
        terminate()
        assert interruption.requested()
    with interruption.listen():
        assert not interruption.requested()


def test_within_a_deferred_block_the_signal_is_noted() -> None:
    with interruption.listen(), interruption.deferred():
        with interruption.deferred():
            pass
        assert not interruption.requested()
        terminate()
        assert interruption.requested()
    with interruption.listen():
        with interruption.deferred():
            pass
        with pytest.raises(interruption.Stop):
            terminate()


def test_after_defer_nothing_is_raised_any_more() -> None:
    with interruption.listen():
        interruption.defer()
        terminate()
        assert interruption.requested()


def test_no_except_clause_swallows_the_signal() -> None:
    def swallow() -> None:
        try:
            terminate()
        except Exception:
            pytest.fail("swallowed")

    with pytest.raises(Interrupted, match="asked to stop"), interruption.listen():
        swallow()


def test_only_the_main_thread_listens() -> None:
    failures: list[BaseException] = []

    def listen() -> None:
        try:
            with interruption.listen():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert not failures


def code_of(main: Callable[[], int | None]) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_an_interrupted_stage_ends_with_its_own_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert code_of(terminate) == interruption.EXIT_AGAIN == 75
    assert capsys.readouterr().err == (
        "interrupted: asked to stop (SIGTERM)\n  instead: the same command again: it continues\n"
    )


class OutOfMemoryError(RuntimeError):
    """As torch's is called."""


@pytest.mark.parametrize(
    ("error", "outcome", "advice"),
    [
        (MemoryError(), "out-of-memory", "more memory"),
        (RuntimeError("[x.cpp:1] DefaultCPUAllocator: can't allocate memory: 8"), "out-of-memory", "mem_mb"),
        (OutOfMemoryError("Tried to allocate 2 GiB.\nmore"), "gpu-out-of-memory", "next attempt halves them"),
        (RuntimeError("CUDA error: out of memory"), "gpu-out-of-memory", "--micro-batch-size"),
    ],
)
def test_want_of_memory_is_told_to_people_and_to_the_launcher(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: Exception,
    outcome: str,
    advice: str,
) -> None:
    def main() -> NoReturn:
        raise error

    note = tmp_path / interruption.NOTE
    assert code_of(main) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(interruption.FOLDER, str(tmp_path))
        patch.setattr(interruption, "die_with_parent", lambda: None)
        assert code_of(main) == 1
    text = capsys.readouterr().err
    assert text.count(f"error: {outcome}: ") == 2
    assert advice in text and "Traceback" not in text
    assert "Tried to allocate 2 GiB." in text or not isinstance(error, OutOfMemoryError)
    assert note.read_text() == outcome
    assert os.listdir(tmp_path) == [interruption.NOTE]


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: invalid argument"), ValueError("memory")])
def test_another_error_keeps_its_traceback(error: Exception) -> None:
    def main() -> NoReturn:
        raise error

    with pytest.raises(type(error)):
        cli.run(main)


def test_torchs_own_errors_are_recognised() -> None:
    import torch

    assert cli.memory_outcome(torch.OutOfMemoryError("CUDA out of memory")) == "gpu-out-of-memory"
    with pytest.raises(RuntimeError) as failure:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert cli.memory_outcome(failure.value) == "out-of-memory"


LATE = """
import atexit, os, signal
from w2s import cli
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
cli.run(lambda: None)
"""


@pytest.mark.parametrize(("launched", "code"), [(True, 0), (False, -signal.SIGTERM)])
def test_a_launched_stage_that_is_done_stays_a_success(tmp_path: Path, launched: bool, code: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    if launched:
        environment[interruption.FOLDER] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", LATE], env=environment)
    assert done.returncode == code


# Runs a stage that sends itself a real SIGTERM when it begins the step after the given one.
DRIVER = """
import os, runpy, signal, sys
script, step = sys.argv[1], int(sys.argv[2])
sys.argv[:] = [script, *sys.argv[3:]]
sys.path.insert(0, os.path.dirname(script))
from w2s import trainers
def on_step_begin(self, args, state, control, **rest):
    if state.global_step == step:
        os.kill(os.getpid(), signal.SIGTERM)
trainers.Watch.on_step_begin = on_step_begin
runpy.run_path(script, run_name="__main__")
"""
# 120 steps: a row of the history is the mean of two, and step 5 lies between two rows.
SETTINGS = {
    "train_teacher_sft": ("--epochs", 30, "--dropout", 0.1, "--schedule", "cosine"),
    "train_teacher_dpo": ("--epochs", 30, "--lora-rank", 2),
}


def interrupted_at(step: int, script: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DRIVER, str(SCRIPTS / f"{script}.py"), str(step), *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "save_steps"),
    [
        ("train_teacher_dpo", 4),
        *(pytest.param("train_teacher_sft", save_steps, marks=pytest.mark.prove) for save_steps in (0, 4)),
        pytest.param("train_teacher_dpo", 0, marks=pytest.mark.prove),
    ],
)
def test_an_interrupted_training_ends_in_the_same_files(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, save_steps: int
) -> None:
    import importlib

    from w2s.artifact import load, verify

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    module = importlib.import_module(stage)
    whole, output = tmp_path / "whole" / "manifest.json", tmp_path / "again" / "manifest.json"

    def words(target: Path) -> list[str]:
        more = (*SETTINGS[stage], "--save-steps", save_steps)
        return inputs.arguments(target, *more, scores=stage.endswith("dpo"))

    done = interrupted_at(4, stage, words(output))
    assert done.returncode == 75, done.stderr
    assert "interrupted: asked to stop (SIGTERM): saved at step 5 of 120" in done.stderr
    assert not output.parent.exists() and not list(tmp_path.glob(".*"))
    left = sorted(path.name for path in checkpoints.state_root(output).glob("*/checkpoint-*"))
    assert left == (["checkpoint-4", "checkpoint-5"] if save_steps else ["checkpoint-5"])
    module.main(words(output))
    module.main(words(whole))
    verify(output)
    assert load(output).run["measured"]["resumed_from_step"] == 5
    assert load(output).manifest["files"] == load(whole).manifest["files"]
    assert not checkpoints.state_root(output).exists()


@pytest.mark.slow
def test_a_request_in_the_last_step_comes_too_late(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.artifact import load

    output = tmp_path / "model" / "manifest.json"
    done = interrupted_at(3, "train_teacher_sft", inputs.arguments(output))
    assert done.returncode == 0, done.stderr
    assert load(output).facts["steps"] == 4
