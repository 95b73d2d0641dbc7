"""Every edit of a finished run is named, with old and new value, and nothing else is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_reruns import EDITS, edited, meaning, setting

if TYPE_CHECKING:
    from conftest import FinishedRun, Workflow

FIGURE = "results/paper-a/figures/a_figure_2a.pdf"
LABELS = "results/paper-a/labels/hh-helpful/1-of-2/seed-22/unlabelled"


def source(path: str) -> str:
    return f"source scripts/{path}.py has changed since"


def code(*stages: str) -> set[str]:
    """A figure has no record of its sources."""
    return {f"the code of {stage} has changed since" for stage in stages}


# Edit of tests/workflow/test_reruns.py -> the causes that are told.
CAUSES: dict[str, set[str]] = {
    "touch every source": set(),
    "reformat every script": set(),
    "execution settings": set(),
    "statistics": {source("w2s/statistics")},
    "plotting": code("plot_bars", "plot_drops"),
    "published values": {"input published: published/values.csv has other content"},
    "the page's template": {"input template: report/template.html has other content"},
    "feedback": {source("w2s/feedback")},
    "a single script": {source("train_student_sft")},
    "the errors, which all import": {source("w2s/errors")},
    "bootstrap draws": {"setting bootstrap: 2000 -> 999"},
    "temperature": {"setting temperature: 0.7 -> 0.8"},
    "learning rate and beta of the teacher's DPO exchanged": {
        "setting learning-rate: 5e-05 -> 0.1",
        "setting beta: 0.1 -> 5e-05",
    },
    "soft labels for one student": {"setting soft-labels: not given -> true"},
    "longest sequence": {"setting max-tokens: 512 -> 500"},
    "one student's learning rate": {"setting learning-rate: 1e-05 -> 5e-06"},
}


def explain(workflow: Workflow, *targets: str) -> str:
    """The explanation; ``targets`` before the configuration files, which Snakemake takes all that follows for."""
    command = [sys.executable, "scripts/explain.py", *targets, *workflow.arguments()]
    done = subprocess.run(
        command, cwd=workflow.folder, env=workflow.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def causes(output: str) -> set[str]:
    """The causes without what is told of them in brackets."""
    return {found[1] for found in re.finditer(r"^\d+\. (.*?)(?: \(.*\))?$", output, re.MULTILINE)}


def jobs(output: str) -> dict[str, int]:
    """All jobs that are told of one cause, by rule."""
    lines = re.findall(r"^   (?:concerns|then   ) (.*)$", output, re.MULTILINE)
    return {rule: int(count) for line in lines for rule, count in re.findall(r"(\w+) (\d+)", line)}


@pytest.mark.parametrize("name", CAUSES)
def test_an_edit_is_named_and_nothing_else(finished: FinishedRun, name: str) -> None:
    edit, rerun = EDITS[name]
    with edited(finished.workflow, edit):
        output = explain(finished.workflow)
    assert causes(output) == CAUSES[name], output
    if rerun:
        told = re.findall(r"^   (?:concerns|then   ) (.*)$", output, re.MULTILINE)
        assert {rule for line in told for rule in re.findall(r"(\w+) \d+", line)} == rerun
    else:
        assert output == "up to date: nothing would run\n"


def test_the_figure_is_followed_to_the_root(finished: FinishedRun) -> None:
    """Another beta, far above: one cause, the label file that it concerns, and the jobs between as a run has them."""
    with edited(finished.workflow, setting("feedback: {weak-opt-125m: {beta: 0.5}}")):
        output = explain(finished.workflow, FIGURE)
        planned = finished.workflow.planned("--keep-going", FIGURE)
    assert output.startswith(f"{FIGURE}: would be made again\n")
    assert causes(output) == {"setting beta: 0.1 -> 0.5"}
    assert f"     {LABELS}/weak-opt-125m/manifest.json\n" in output
    assert jobs(output) == planned


def test_what_is_not_concerned_is_up_to_date(finished: FinishedRun) -> None:
    with edited(finished.workflow, setting("feedback: {weak-opt-125m: {beta: 0.5}}")):
        output = explain(finished.workflow, f"{LABELS}/human")
    assert output == f"{LABELS}/human/manifest.json: up to date: nothing would run\n"


def test_a_change_behind_another_is_told_too(finished: FinishedRun) -> None:
    """Snakemake does not ask whether a job that runs anyway has a reason of its own; a user wants to know."""

    def both(folder: Path) -> None:
        setting("feedback: {weak-opt-125m: {beta: 0.5}}")(folder)
        meaning("w2s/plotting")(folder)
        meaning("summarise")(folder)

    with edited(finished.workflow, both):
        output = explain(finished.workflow, FIGURE)
    assert causes(output) == {"setting beta: 0.1 -> 0.5", source("summarise"), *code("plot_bars")}
    assert "newer than what it made: scripts/w2s/plotting.py" in output


def test_a_new_seed_was_not_made_yet(finished: FinishedRun) -> None:
    with edited(finished.workflow, setting("experiments: {a_figure_2a: {seeds: [22, 23]}}")):
        output = explain(finished.workflow)
    found = causes(output)
    assert "not made yet" in found
    assert any(cause.startswith("the set of inputs has changed: now also results/") for cause in found)
    assert not any(cause.startswith(("source", "setting", "the code")) for cause in found)


@pytest.fixture
def copied(finished: FinishedRun, tmp_path: Path) -> Callable[[], Workflow]:
    """The finished run copied elsewhere."""
    import dataclasses

    def copy() -> Workflow:
        folder = tmp_path / "elsewhere"
        shutil.copytree(finished.workflow.folder, folder)
        return dataclasses.replace(finished.workflow, folder=folder)

    return copy


def test_an_output_that_is_gone_and_an_artifact_made_again(copied: Callable[[], Workflow]) -> None:
    workflow = copied()
    (workflow.folder / FIGURE).unlink()
    output = explain(workflow, FIGURE)
    assert f"{FIGURE}: would be made\n" in output
    assert causes(output) == {"output is missing, which was made before"}
    # By hand, with other settings: what was made from it is told what it was made with.
    workflow.run(FIGURE)
    manifest = workflow.folder / LABELS / "human" / "manifest.json"
    made_again = (
        "import sys; sys.path.insert(0, 'scripts'); import json; from pathlib import Path\n"
        "from w2s.artifact import load, sealed, write_json\n"
        f"path = Path({str(manifest)!r}); one = load(path).manifest\n"
        "one['facts'] = {**one['facts'], 'changed': 1}; one['digest'] = 'f' * 64\n"
        "write_json(sealed(one), path)\n"
    )
    subprocess.run([sys.executable, "-c", made_again], cwd=workflow.folder, check=True)
    output = explain(workflow, FIGURE)
    assert causes(output) == {f"input labels: {LABELS}/human/manifest.json has other content"}
    assert re.search(r"\([0-9a-f]{12} -> ffffffffffff, made again \d{4}-\d\d-\d\d \d\d:\d\d UTC\)", output)


def test_without_snakemake_s_records_the_artifact_s_own_are_told(copied: Callable[[], Workflow]) -> None:
    workflow = copied()
    shutil.rmtree(workflow.folder / ".snakemake")
    artifact = f"{LABELS}/weak-opt-125m"
    word = "up to date by its date; Snakemake has no record of how it was made and compares nothing else"
    everything = sorted(path.parent for path in workflow.folder.glob("results/**/manifest.json"))
    output = explain(workflow, *map(str, everything))
    assert output.count(f": {word}\n") == len(everything) > 60  # and none differs by its own record
    setting("feedback: {weak-opt-125m: {beta: 0.5}}")(workflow.folder)
    meaning("w2s/feedback")(workflow.folder)
    told = "setting beta: 0.1 -> 0.5; source scripts/w2s/feedback.py has changed since"
    assert explain(workflow, artifact) == f"{artifact}/manifest.json: {word}; by its own record: {told}\n"


@pytest.mark.parametrize("words", [["--forcerun", "plot_bars"], ["--forceall"]])
def test_what_the_user_asks_for_is_no_interruption(finished: FinishedRun, words: list[str]) -> None:
    output = explain(finished.workflow, "--", *words)
    assert causes(output) == {"asked for whatever its state"}, output
    assert jobs(output) == finished.workflow.planned(*words)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["results/paper-a/none"], "No rule to produce results/paper-a/none"), (["--", "--bogus"], "--bogus")],
)
def test_what_cannot_be_planned_is_said(finished: FinishedRun, words: list[str], message: str) -> None:
    workflow = finished.workflow
    command = [sys.executable, "scripts/explain.py", *workflow.arguments(), *words]
    if words[0] != "--":
        command = [sys.executable, "scripts/explain.py", *words, *workflow.arguments()]
    done = subprocess.run(
        command, cwd=workflow.folder, env=workflow.environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
