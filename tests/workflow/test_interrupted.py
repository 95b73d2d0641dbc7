"""A run that is stopped, by the user or by the machine, and the run after it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fakes import FAKE_RUN
from w2s.artifact import load, verify

if TYPE_CHECKING:
    from conftest import Workflow

ONE_STUDENT = "experiments: {a_figure_2a: {students: [opt-1.3b]}}\n"
TEMPORARY = (".partial", ".former")


def names(folder: Path) -> Iterator[str]:
    """All names under a folder that changes meanwhile."""
    for _, folders, files in os.walk(folder / "results"):
        yield from folders
        yield from files


def stop_in_the_middle(workflow: Workflow, how: signal.Signals, after: int) -> dict[Path, bytes]:
    """Start a run and stop it, with all its jobs, while one is writing an artifact and at least ``after`` are there.

    Returns:
        The manifests that are there then, all of them of whole artifacts.
    """
    process = subprocess.Popen(
        workflow.command("--cores", "2"),
        cwd=workflow.folder,
        env=workflow.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        found = list(names(workflow.folder))
        if found.count("manifest.json") >= after and any(name.endswith(".partial") for name in found):
            break
        time.sleep(0.01)
    assert process.poll() is None, "the run was over before it could be stopped"
    os.killpg(process.pid, how)
    process.wait(timeout=60)
    assert not (workflow.folder / "results/paper-a/report.html").exists()
    found = [
        path
        for path in (workflow.folder / "results").rglob("manifest.json")
        if path.parent.suffix not in TEMPORARY  # one that was about to be put into its place
    ]
    for manifest in found:
        verify(manifest)
    return {path: path.read_bytes() for path in found}


def check_finished(workflow: Workflow, before: dict[Path, bytes]) -> None:
    """All there, whole, nothing temporary left, and what was whole before was not made again in another way."""
    assert (workflow.folder / "results/paper-a/report.html").is_file()
    manifests = list((workflow.folder / "results").rglob("manifest.json"))
    assert len(manifests) > 30
    for manifest in manifests:
        verify(manifest)
        assert load(manifest).run["wall_s"] >= 0
    left = [name for name in names(workflow.folder) if name.endswith(TEMPORARY)]
    assert left == []
    assert {path: path.read_bytes() for path in before} == before
    assert workflow.planned() == {}


def test_a_stopped_run_goes_on_where_it_was(make_workflow: Callable[..., Workflow]) -> None:
    """After Ctrl-C by the same command; after a power cut by ``--unlock`` and the same command."""
    workflow = make_workflow(fakes=True, preset="paper-a", overlay=FAKE_RUN + ONE_STUDENT)
    first = stop_in_the_middle(workflow, signal.SIGINT, after=6)
    second = stop_in_the_middle(workflow, signal.SIGKILL, after=len(first) + 6)
    assert second.items() >= first.items(), "the second run must go on where the first was"
    refused = workflow.snakemake("--cores", "2")
    assert refused.returncode != 0
    assert "--unlock" in refused.stdout
    assert workflow.snakemake("--unlock").returncode == 0
    workflow.run()
    check_finished(workflow, second)
