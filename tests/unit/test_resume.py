"""Interrupted trainings: what continues, what it leads to, what is not trusted."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import training_inputs
from training_inputs import Inputs
from w2s import checkpoints


class Interruption(Exception):
    """What the test throws into a training."""


@pytest.fixture(scope="module")
def inputs(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    make_examples: Callable[..., tuple[Path, Path]],
) -> Inputs:
    return training_inputs.make(tmp_path_factory.mktemp("resume"), tiny_model, make_examples)


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
