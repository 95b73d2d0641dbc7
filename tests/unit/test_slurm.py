"""Jobs of an earlier run are seen, and nothing is started beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from w2s.errors import EnvironmentProblem
from w2s.slurm import orphans, refuse_beside_orphans


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose lines a pretended squeue prints."""
    lines = tmp_path / "queue.txt"
    program = tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncat "{lines}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return lines


def test_jobs_of_this_folder_are_found(queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.write_text(
        f"11|{tmp_path}|RUNNING|rule_train_student_dpo_wildcards_hh\n"
        "12|/elsewhere|RUNNING|rule_generate\n"
        f"13|{tmp_path}|RUNNING|a notebook\n"
        f"14|{tmp_path}|PENDING|rule_generate\n"
    )
    assert orphans(tmp_path) == {"11": "running: train_student_dpo_wildcards_hh", "14": "pending: generate"}
    with pytest.raises(EnvironmentProblem, match="2 jobs of an earlier run") as refusal:
        refuse_beside_orphans(tmp_path)
    assert "scancel 11 14" in str(refusal.value)
    monkeypatch.setenv("SLURM_JOB_ID", "14")  # the controller itself may be a job
    assert list(orphans(tmp_path)) == ["11"]


def test_an_empty_queue_is_fine(queue: Path, tmp_path: Path) -> None:
    queue.write_text("")
    refuse_beside_orphans(tmp_path)
    assert orphans(tmp_path) == {}


def test_without_a_scheduler_there_is_nothing_to_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert orphans(tmp_path) == {}
