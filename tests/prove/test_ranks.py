"""1, 2 and 4 processes, micro batches of every size that divides: the same steps, up to the order of sums.

The processes are real (accelerate launch, gloo, CPUs). What is compared with one process that takes the whole batch in
one pass: the loss, the gradient's norm and the learning rate of each step, and all weights at the end.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import training_inputs
from training_inputs import Inputs
from w2s import training
from w2s.artifact import load, verify

SCRIPTS = Path(training.__file__).parent.parent
CONFIGURATION = SCRIPTS.parent / "envs" / "accelerate" / "ddp.yaml"
# Found at most: 4.0e-7 of a loss or a gradient's norm, 6.6e-7 of a weight. Ten times that is allowed.
LOSS, WEIGHT = 4e-6, 7e-6
STAGES = {"train_student_sft": ("--dropout", 0), "train_student_dpo": ()}
# (processes, rows per process and pass) of a global batch of 8.
DIVISIONS = [(1, 4), (1, 2), (1, 1), (2, 4), (2, 1), (4, 2), (4, 1)]


def run(inputs: Inputs, stage: str, output: Path, processes: int, micro: int) -> Path:
    """Train in so many processes."""
    words = inputs.arguments(
        output, "--micro-batch-size", micro, "--epochs", 2, *STAGES[stage], scores=stage.endswith("dpo")
    )
    if processes == 1:
        torch.set_num_threads(1)
        importlib.import_module(stage).main(words)
        return output
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    command += ["--config_file", str(CONFIGURATION), "--main_process_port", "0"]
    done = subprocess.run(
        [*command, str(SCRIPTS / f"{stage}.py"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return output


def differences(one: Path, other: Path) -> tuple[float, float]:
    """The largest relative difference of a loss or gradient's norm, and the largest difference of a weight."""
    histories = [pd.read_csv(path.parent / "history.csv") for path in (one, other)]
    assert (histories[0]["step"] == histories[1]["step"]).all()
    assert histories[0]["learning_rate"].equals(histories[1]["learning_rate"])
    values = [frame[["loss", "grad_norm"]].to_numpy() for frame in histories]
    ours, theirs = training_inputs.weights(one), training_inputs.weights(other)
    largest = 0.0
    for name, tensor in theirs.items():
        # It has no influence: its gradient is rounding, which Adam makes a step.
        if not name.endswith("k_proj.bias"):
            largest = max(largest, (ours[name] - tensor).abs().max().item())  # type: ignore[operator, attr-defined]
    return float(np.abs(values[0] / values[1] - 1).max()), largest


@pytest.mark.parametrize("stage", STAGES)
def test_the_division_of_a_batch_changes_nothing(
    inputs: Inputs, tmp_path: Path, record_property: Callable[[str, object], None], stage: str
) -> None:
    alone = run(inputs, stage, tmp_path / "alone" / "manifest.json", 1, 8)
    assert load(alone).facts["steps"] == 8
    worst = (0.0, 0.0)
    for processes, micro in DIVISIONS:
        output = run(inputs, stage, tmp_path / f"{processes}x{micro}" / "manifest.json", processes, micro)
        verify(output)
        measured = load(output).run["measured"]
        assert (measured["processes"], measured["micro_batch_size"]) == (processes, micro)
        assert measured["accumulation"] == 8 // (processes * micro)
        loss, weight = differences(output, alone)
        print(
            f"{stage}: {processes} processes, micro batches of {micro}: loss {loss:.1e}, weights {weight:.1e}"
        )
        worst = max(worst[0], loss), max(worst[1], weight)
    assert worst[0] <= LOSS and worst[1] <= WEIGHT, worst
    record_property("cases", len(DIVISIONS))
