"""The same scripts under ``accelerate launch``: two processes on the CPU, gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import training_inputs
from training_inputs import Inputs
from w2s import training

SCRIPTS = Path(training.__file__).parent.parent
CONFIGURATIONS = SCRIPTS.parent / "envs" / "accelerate"


def launch(configuration: str, stage: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Start ``stage`` in two processes; ``--device cpu`` among its words makes them use gloo."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
    command += ["--config_file", str(CONFIGURATIONS / f"{configuration}.yaml"), "--main_process_port", "0"]
    command += [str(Path(__file__).with_name("fsdp_on_cpu.py"))] if configuration == "fsdp" else []
    command += [str(SCRIPTS / f"{stage}.py"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def settings(stage: str) -> tuple[object, ...]:
    return ("--dropout", 0) if stage.endswith("sft") else ("--lora-rank", 2, "--lora-dropout", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("configuration", "stage", "distribution"),
    [
        ("ddp", "train_student_sft", "MULTI_CPU"),
        ("ddp", "train_student_dpo", "MULTI_CPU"),
        ("fsdp", "train_student_dpo", "FSDP"),
    ],
)
def test_two_processes_take_the_steps_of_one(
    inputs: Inputs, tmp_path: Path, configuration: str, stage: str, distribution: str
) -> None:
    import importlib

    import torch
    from w2s.artifact import load, verify

    together, alone = tmp_path / "together" / "manifest.json", tmp_path / "alone" / "manifest.json"
    scores = stage.endswith("dpo")
    words = inputs.arguments(together, "--save-steps", 2, *settings(stage), scores=scores)
    done = launch(configuration, stage, words)
    assert done.returncode == 0, done.stderr
    importlib.import_module(stage).main(inputs.arguments(alone, *settings(stage), scores=scores))

    verify(together)
    assert load(together).run["measured"]["processes"] == 2
    assert load(together).run["measured"]["distribution"] == distribution
    assert load(together).run["measured"]["micro_batch_size"] == 4
    assert load(together).facts["steps"] == load(alone).facts["steps"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "together"]
    histories = [pd.read_csv(path.parent / "history.csv") for path in (together, alone)]
    for name in ("loss", "grad_norm", "learning_rate"):
        assert histories[0][name].to_numpy() == pytest.approx(histories[1][name].to_numpy(), rel=1e-4)
    ours, theirs = training_inputs.weights(together), training_inputs.weights(alone)
    for name, tensor in theirs.items():
        if not name.endswith("k_proj.bias"):  # no influence, see test_sft
            torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    words = inputs.arguments(tmp_path / "model" / "manifest.json", "--batch-size", 7)
    done = launch("ddp", "train_student_sft", words)
    assert done.returncode != 0
    assert "a global batch of 7 cannot be divided among 2 processes" in done.stderr
    assert "start 1, 7 processes" in done.stderr
    assert not (tmp_path / "model").exists()


def test_a_launch_that_asks_for_sharding_and_does_not_get_it_is_refused(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import train_student_sft
    from w2s.errors import EnvironmentProblem

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(EnvironmentProblem, match="FSDP"):
        train_student_sft.main(inputs.arguments(tmp_path / "model" / "manifest.json"))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero2", "zero3"])
def test_launch_configurations_are_understood(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(CONFIGURATIONS / f"{name}.yaml"))
    kind = {"ddp": "MULTI_GPU", "fsdp": "FSDP"}.get(name, "DEEPSPEED")
    assert config.distributed_type == kind
    assert config.mixed_precision == "no"
    if kind == "DEEPSPEED":
        assert config.deepspeed_config["zero_stage"] == int(name[-1])


@pytest.mark.slow
@pytest.mark.parametrize("batch_tokens", [60, 10_000])
def test_two_processes_score_what_one_does(inputs: Inputs, tmp_path: Path, batch_tokens: int) -> None:
    """With the large budget there is one batch, and nothing to do for the second process."""
    import score_responses
    import torch
    from w2s.artifact import load

    together, alone = tmp_path / "together" / "manifest.json", tmp_path / "alone" / "manifest.json"
    words = ["--model", inputs.model, "--examples", inputs.examples, "--split", inputs.split]
    words += ["--part", "unlabelled", "--batch-tokens", batch_tokens, "--device", "cpu"]
    done = launch("ddp", "score_responses", [str(word) for word in [*words, "--output", together]])
    assert done.returncode == 0, done.stderr
    torch.set_num_threads(1)
    score_responses.main([str(word) for word in [*words, "--output", alone]])

    assert together.read_bytes() == alone.read_bytes()
    assert load(together).run["measured"]["processes"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "together"]
