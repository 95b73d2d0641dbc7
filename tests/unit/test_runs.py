"""Names of runs and cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from w2s.errors import DataError
from w2s.runs import Run, parse_cell, parse_run, share_name


@pytest.mark.parametrize(
    ("name", "run", "arm"),
    [
        ("models/opt-1.3b", Run("models", "opt-1.3b"), "untuned"),
        ("teachers/opt-125m/paper/sft", Run("teachers", "opt-125m", "", "paper", "sft"), "teacher-sft"),
        ("teachers/opt-125m/paper/dpo", Run("teachers", "opt-125m", "", "paper", "dpo"), "teacher"),
        ("students/k/weak/paper/sft", Run("students", "k", "weak", "paper", "sft"), "weak-sft"),
        ("students/k/human/paper/dpo", Run("students", "k", "human", "paper", "dpo"), "human"),
    ],
)
def test_parse_run(name, run, arm):
    assert parse_run(name) == run
    assert parse_run(name).arm == arm


@pytest.mark.parametrize("name", ["", "models", "models/a/b", "students/k/weak/dpo", "judges/x", "models/"])
def test_other_names_are_refused(name):
    with pytest.raises(DataError, match="is not the name of a run"):
        parse_run(name)


def test_unknown_step():
    with pytest.raises(DataError, match="unknown step 'ppo'"):
        parse_run("students/k/weak/paper/ppo")


def test_parse_cell(tmp_path: Path):
    path = tmp_path / "labels/hh/1-of-16/seed-22/unlabelled/weak/manifest.json"
    cell = parse_cell(path, "labels")
    assert (cell.data, cell.share, cell.seed, cell.rest) == ("hh", "1-of-16", 22, ("unlabelled", "weak"))
    for wrong in (
        "labels/hh/1-of-2/manifest.json",
        "labels/hh/1-of-2/seed-x/manifest.json",
        "other/manifest.json",
    ):
        with pytest.raises(DataError, match="which cell"):
            parse_cell(tmp_path / wrong, "labels")


def test_share_name():
    assert share_name("1/16") == share_name("1-of-16") == "1-of-16"
