"""Batches, orders and settings that all trainings share. Nothing heavy is loaded here."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from w2s import training
from w2s.errors import ConfigError, DataError, EnvironmentProblem

SCRIPTS = Path(training.__file__).parent.parent


def test_global_batch_is_divided_among_processes_and_passes() -> None:
    assert training.accumulation(32, 0, 1) == (32, 1)
    assert training.accumulation(32, 4, 1) == (4, 8)
    assert training.accumulation(32, 0, 8) == (4, 1)
    assert training.accumulation(32, 2, 8) == (2, 2)


def test_a_division_with_a_rest_is_refused_and_names_those_without() -> None:
    with pytest.raises(ConfigError, match="among 6 processes") as raised:
        training.accumulation(16, 0, 6)
    assert raised.value.instead == "start 1, 2, 4, 8, 16 processes"
    with pytest.raises(ConfigError, match="micro batches of 3") as raised:
        training.accumulation(16, 3, 2)
    assert "1, 2, 4, 8" in str(raised.value.instead)


def test_steps_are_whole_batches_over_all_epochs() -> None:
    assert training.number_of_steps(50_000, 1, 32) == 1562
    assert training.number_of_steps(10, 2, 4) == 5
    assert training.number_of_steps(1000, 0.3, 100) == 3
    with pytest.raises(DataError, match="do not fill one batch of 64"):
        training.number_of_steps(63, 1, 64)


def test_each_epoch_sees_each_row_once_and_epochs_differ() -> None:
    order = training.row_order(10, 5, 4, seed=3)
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert list(order[:10]) != list(order[10:])
    assert list(order) == list(training.row_order(10, 5, 4, seed=3))
    assert list(order) != list(training.row_order(10, 5, 4, seed=4))


def test_a_longer_training_begins_with_the_same_rows() -> None:
    assert list(training.row_order(10, 2, 4, seed=3)) == list(training.row_order(10, 5, 4, seed=3)[:8])


def test_similar_lengths_share_batches_and_no_row_is_lost() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, size=512)
    order = training.row_order(512, 64, 8, seed=0)
    bucketed = training.similar_length_order(order, lengths, 8, seed=0)
    assert sorted(bucketed) == sorted(order)

    def padded(rows: np.ndarray) -> int:
        return int(lengths[rows].reshape(-1, 8).max(axis=1).sum() * 8)

    assert padded(bucketed) < 1.1 * lengths.sum() < padded(order)


def test_checkpoints_fall_on_rows_of_the_history() -> None:
    assert training.history_interval(99) == 1
    assert training.history_interval(1562) == 16
    assert training.save_interval(500, 1562) == 512
    assert training.save_interval(0, 1562) == 0
    assert training.save_interval(500, 400) == 0


def test_preferred_response_follows_the_label() -> None:
    frame = pd.DataFrame({"response_0": ["a", "b"], "response_1": ["c", "d"], "label": [0, 1]})
    assert training.chosen_and_rejected(frame) == (["a", "d"], ["c", "b"])


def settings(**changes: object) -> argparse.Namespace:
    return argparse.Namespace(**{"learning_rate": 1e-5, "warmup_steps": 0, "lora_rank": 0, **changes})


def test_deepspeed_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(EnvironmentProblem, match="DeepSpeed"):
        training.check_environment(settings())


@pytest.mark.parametrize("wrong", [{"learning_rate": 0.0}, {"warmup_steps": -1}, {"lora_rank": -8}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as raised:
        training.check_environment(settings(**wrong))
    assert raised.value.where == "--" + next(iter(wrong)).replace("_", "-")


@pytest.mark.parametrize(
    "stage", ["train_teacher_sft", "train_student_dpo", "pretrain_model", "train_reward_model"]
)
def test_command_lines_load_nothing_heavy(stage: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import {stage}; {stage}.arguments(); "
        "print(*[name for name in ('torch', 'transformers', 'trl', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
