"""Interrupted trainings: what continues, what it leads to, what is not trusted."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_inputs import Inputs
from w2s import checkpoints


class Interruption(Exception):
    """What the test throws into a training."""


def sft(inputs: Inputs, output: Path, *more: object) -> Path:
    import train_teacher_sft

    # Dropout on and two epochs: random states and the order of rows have to be continued as well.
    train_teacher_sft.main(
        inputs.arguments(
            output, "--epochs", 2, "--save-steps", 2, "--dropout", 0.1, "--schedule", "cosine", *more
        )
    )
    return output


def dpo(inputs: Inputs, output: Path, *more: object) -> Path:
    import train_teacher_dpo

    words = ("--epochs", 2, "--save-steps", 2, "--lora-rank", 2, *more)
    train_teacher_dpo.main(inputs.arguments(output, *words, scores=True))
    return output


def dpo_full(inputs: Inputs, output: Path, *more: object) -> Path:
    import train_teacher_dpo

    words = ("--epochs", 2, "--save-steps", 2, "--schedule", "linear", *more)
    train_teacher_dpo.main(inputs.arguments(output, *words, scores=True))
    return output


def reward(inputs: Inputs, output: Path, *more: object) -> Path:
    import train_teacher_reward

    words = ("--epochs", 2, "--save-steps", 2, "--lora-rank", 2, "--schedule", "cosine", *more)
    train_teacher_reward.main(inputs.arguments(output, *words))
    return output


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None], None]]:
    """``interrupt_at(5)``: the next trainings end in an exception when step 5 begins; None: they do not."""
    from w2s import trainers

    step: int | None = None

    def on_step_begin(self: object, args: object, state: object, control: object, **rest: object) -> None:
        if step is not None and state.global_step == step - 1:  # type: ignore[attr-defined]
            raise Interruption

    monkeypatch.setattr(trainers.Watch, "on_step_begin", on_step_begin)

    def arrange(at: int | None) -> None:
        nonlocal step
        step = at

    yield arrange


def states(output: Path) -> list[Path]:
    """Checkpoints that lie beside ``output``, oldest first."""
    return sorted(checkpoints.state_root(output).glob("*/checkpoint-*"), key=checkpoints.step_of)


@pytest.mark.parametrize("stage", [sft, dpo])
def test_a_continued_training_ends_in_the_same_files(
    inputs: Inputs, tmp_path: Path, interrupt_at: Callable[[int | None], None], stage: Callable[..., Path]
) -> None:
    from w2s.artifact import load

    whole = stage(inputs, tmp_path / "whole" / "manifest.json")
    output = tmp_path / "again" / "manifest.json"
    interrupt_at(6)
    with pytest.raises(Interruption):
        stage(inputs, output)
    assert not output.parent.exists()
    assert [checkpoints.step_of(path) for path in states(output)] == [2, 4]
    interrupt_at(None)
    stage(inputs, output)
    assert load(output).run["measured"]["resumed_from_step"] == 4
    assert load(output).manifest["files"] == load(whole).manifest["files"]
    assert not checkpoints.state_root(output).exists()


@pytest.fixture
def asked_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """``asked_at(5)``: SIGTERM comes in step 5 of the next trainings; None: it does not."""
    from w2s import interruption, trainers

    original, step = trainers.Watch.on_step_end, None

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **rest: object) -> None:
        monkeypatch.setattr(interruption, "requested", lambda: state.global_step == step)
        original(self, args, state, control, **rest)

    def arrange(at: int | None) -> None:
        nonlocal step
        step = at

    monkeypatch.setattr(trainers.Watch, "on_step_end", on_step_end)
    return arrange


def stop_and_go(
    stage: Callable[..., Path],
    inputs: Inputs,
    output: Path,
    asked_at: Callable[[int | None], None],
    step: int,
    *more: object,
) -> Path:
    """A training that is asked to stop in a step, and is continued."""
    from w2s.artifact import load
    from w2s.errors import Interrupted

    asked_at(step)
    with pytest.raises(Interrupted, match=f"saved at step {step} of 8"):
        stage(inputs, output, *more)
    asked_at(None)
    stage(inputs, output, *more)
    assert load(output).run["measured"]["resumed_from_step"] == step
    return output


@pytest.mark.prove
@pytest.mark.parametrize("stage", [sft, dpo, dpo_full, reward])
def test_a_training_can_stop_after_any_step(
    inputs: Inputs,
    tmp_path: Path,
    asked_at: Callable[[int | None], None],
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    stage: Callable[..., Path],
) -> None:
    """Whatever the step and the division of the batch, also between two rows of the history."""
    from w2s.artifact import load

    monkeypatch.setattr("w2s.training.HISTORY_ROWS", 3)  # a row each third step
    divisions = (0, 2)
    whole = {
        micro: load(
            stage(inputs, tmp_path / f"whole-{micro}/manifest.json", "--micro-batch-size", micro)
        ).digest
        for micro in divisions
    }
    for step in range(1, 8):
        micro = divisions[step % 2]
        output = tmp_path / f"again-{step}" / "manifest.json"
        stop_and_go(stage, inputs, output, asked_at, step, "--micro-batch-size", micro)
        assert load(output).digest == whole[micro], f"step {step}, micro batches of {micro}"
    record_property("cases", 7)


def nothing(*_: object, **__: object) -> None:
    """In the place of what restores a part of the state."""


def leave_out(part: str, patch: pytest.MonkeyPatch) -> None:
    """Let a continued training begin with a fresh ``part`` of the state."""
    import torch
    import transformers.trainer
    from transformers import Trainer
    from w2s import trainers

    skip = transformers.trainer.skip_first_batches
    load_both = Trainer._load_optimizer_and_scheduler

    def load_but(name: str) -> Callable[..., None]:
        def load_one(self: Any, checkpoint: str | None) -> None:
            kept = getattr(self, name)
            setattr(self, name, type("Deaf", (), {"load_state_dict": nothing})())
            try:
                load_both(self, checkpoint)
            finally:
                setattr(self, name, kept)

        return load_one

    if part == "optimiser":
        patch.setattr(Trainer, "_load_optimizer_and_scheduler", load_but("optimizer"))
    elif part == "schedule":
        patch.setattr(Trainer, "_load_optimizer_and_scheduler", load_but("lr_scheduler"))
    elif part == "order of rows":
        patch.setattr(transformers.trainer, "skip_first_batches", lambda loader, _number: loader)
    elif part == "passes of a step":
        patch.setattr(
            transformers.trainer, "skip_first_batches", lambda loader, number: skip(loader, number // 2)
        )
    elif part == "sums since the last row of the history":
        patch.setattr(trainers.Resumable, "restore_interval", nothing)
    elif part == "random state of python":
        patch.setattr(random, "setstate", nothing)
    elif part == "random state of numpy":
        patch.setattr(np.random, "set_state", nothing)
    else:
        assert part == "random state of torch"
        patch.setattr(torch.random, "set_rng_state", nothing)


PARTS = (
    *("optimiser", "schedule", "order of rows", "passes of a step", "sums since the last row of the history"),
    *("random state of python", "random state of numpy", "random state of torch"),
)


@pytest.mark.parametrize("part", ["nothing", *PARTS])
def test_each_part_of_the_state_is_needed(
    inputs: Inputs,
    tmp_path: Path,
    asked_at: Callable[[int | None], None],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """Continued without it, the training ends in other files; so a state that lacked it would be noticed."""
    from w2s import trainers
    from w2s.artifact import load

    monkeypatch.setattr("w2s.training.HISTORY_ROWS", 3)
    begin, drawn = trainers.Watch.on_step_begin, []

    def draw(self: Any, args: Any, state: Any, control: Any, **rest: object) -> None:
        # Rows that are drawn or masked at random would do so: libraries use all of these.
        drawn.append((state.global_step, random.random(), np.random.random()))
        begin(self, args, state, control, **rest)

    monkeypatch.setattr(trainers.Watch, "on_step_begin", draw)
    words = ("--micro-batch-size", 4, "--warmup-steps", 2)
    whole = load(sft(inputs, tmp_path / "whole" / "manifest.json", *words)).digest
    expected = sorted(drawn)
    drawn.clear()
    with monkeypatch.context() as patch:
        if part != "nothing":
            leave_out(part, patch)
        again = load(
            stop_and_go(sft, inputs, tmp_path / "again" / "manifest.json", asked_at, 5, *words)
        ).digest
    same = again == whole and sorted(drawn) == expected
    assert same == (part == "nothing")


@pytest.mark.parametrize("harm", ["marker", "content", "file"])
def test_a_torn_checkpoint_gives_way_to_the_one_before(
    inputs: Inputs, tmp_path: Path, interrupt_at: Callable[[int | None], None], harm: str
) -> None:
    from w2s.artifact import load

    output = tmp_path / "model" / "manifest.json"
    interrupt_at(6)
    with pytest.raises(Interruption):
        sft(inputs, output)
    newest = states(output)[-1]
    if harm == "marker":
        (newest / checkpoints.MARKER).unlink()
    elif harm == "content":
        weights = bytearray((newest / "optimizer.pt").read_bytes())
        weights[len(weights) // 2] ^= 1
        (newest / "optimizer.pt").write_bytes(weights)
    else:
        (newest / "model.safetensors").unlink()
    interrupt_at(None)
    sft(inputs, output)
    assert load(output).run["measured"]["resumed_from_step"] == 2
    whole = sft(inputs, tmp_path / "whole" / "manifest.json")
    assert load(output).digest == load(whole).digest


def test_checkpoints_of_other_settings_are_not_continued(
    inputs: Inputs, tmp_path: Path, interrupt_at: Callable[[int | None], None]
) -> None:
    from w2s.artifact import load

    output = tmp_path / "model" / "manifest.json"
    interrupt_at(6)
    with pytest.raises(Interruption):
        sft(inputs, output)
    old = states(output)[0].parent
    interrupt_at(None)
    sft(inputs, output, "--learning-rate", 2e-3)
    assert load(output).run["measured"]["resumed_from_step"] == 0
    assert not old.exists()


def test_the_key_follows_contents_not_paths(inputs: Inputs, tmp_path: Path) -> None:
    script = Path(__file__)
    moved = tmp_path / "elsewhere"
    shutil.copytree(inputs.labels.parent, moved)

    def key(labels: Path, **spec: object) -> str:
        return checkpoints.state_key(script, spec, {"labels": labels}, "whole")

    assert key(inputs.labels, beta=0.1) == key(moved / "manifest.json", beta=0.1)
    assert key(inputs.labels, beta=0.1) != key(inputs.labels, beta=0.2)
    assert key(inputs.labels, beta=0.1) != key(inputs.scores, beta=0.1)


@pytest.mark.slow
def test_a_killed_process_is_continued(inputs: Inputs, tmp_path: Path) -> None:
    """The real thing: SIGKILL after the first checkpoint, then the same command again."""
    import os
    import signal
    import subprocess
    import sys
    import time

    from w2s.artifact import load

    output = tmp_path / "model" / "manifest.json"
    script = Path(checkpoints.__file__).parent.parent / "train_teacher_sft.py"
    words = inputs.arguments(output, "--epochs", 100, "--save-steps", 40, "--dropout", 0.1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(script), *words], env=environment, stderr=subprocess.DEVNULL
    )
    waited = time.monotonic() + 60
    while not any((path / checkpoints.MARKER).is_file() for path in states(output)):
        assert process.poll() is None and time.monotonic() < waited
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()
    import train_teacher_sft

    train_teacher_sft.main(words)
    assert load(output).run["measured"]["resumed_from_step"] >= 40
    assert load(output).facts["steps"] == 400
    assert not list(tmp_path.glob(".model*"))
