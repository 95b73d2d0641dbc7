"""What SLURM is asked outside of the executor plugin."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from w2s.errors import EnvironmentProblem


def orphans(folder: Path) -> dict[str, str]:
    """Jobs (id -> what they do) that an earlier run left in the queue for ``folder``; none without SLURM.

    The executor names a job's rule in its comment, and starts it in the workflow's folder.
    """
    if shutil.which("squeue") is None:
        return {}
    answer = subprocess.run(
        ["squeue", "--me", "--noheader", "--format=%i|%Z|%T|%k"], capture_output=True, text=True, timeout=60
    )
    if answer.returncode:
        return {}  # no controller answers: submitting will say so, in the scheduler's own words
    found = {}
    for line in answer.stdout.splitlines():
        job, place, state, comment = line.strip().split("|", 3)
        if comment.startswith("rule_") and place == str(folder) and job != os.environ.get("SLURM_JOB_ID"):
            found[job] = f"{state.lower()}: {comment.removeprefix('rule_')}"
    return found


def refuse_beside_orphans(folder: Path) -> None:
    """Stop before the first job if jobs of an earlier run still work here: theirs would be done twice.

    Raises:
        EnvironmentProblem: naming them.
    """
    found = orphans(folder)
    if found:
        lines = "".join(f"\n    {job}  {what[:100]}" for job, what in found.items())
        raise EnvironmentProblem(
            f"{len(found)} jobs of an earlier run are still in the queue; what they do would be done twice{lines}",
            where=folder,
            instead="start again once they have ended (what they finish is kept), or "
            f"scancel {' '.join(found)} first (trainings then continue from their last checkpoint)",
        )


def leave_marks_to_the_controller(persistence: Any) -> None:
    """In a job's own Snakemake: keep the mark that an output is incomplete, for the controller to take away.

    Snakemake's controller alone records what an output was made with, when it sees the job end; the job's own process
    takes the mark away before that. A controller that was killed in between would leave an output that looks complete,
    of which nothing is recorded, so that no later change of a setting would rerun it. With the mark it is asked for
    again, and the launcher recognises that it is there (:func:`w2s.store.reuse`).

    Args:
        persistence: Snakemake's class of marks and records (``snakemake.persistence.file.FilePersistence``).
    """
    persistence._unmark_incomplete = lambda self, key: None
