"""What is planned, refused and said before any job starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from w2s.words import has_gpu

if TYPE_CHECKING:
    from conftest import Workflow

# Snakemake's own modules are loaded before the clock starts; the plan itself (the jobs) is not part of the parsing.
PARSE = """
import contextlib, io, sys, time
import snakemake.cli, snakemake.workflow, snakemake.dag, snakemake.scheduling
import snakemake.linting, snakemake.deployment, snakemake.report

def parse():
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            snakemake.cli.main(["--list-rules", "--configfile", sys.argv[1]])
        except SystemExit as stop:
            assert not stop.code, stop.code
    return time.perf_counter() - started

parse()
print(min(parse() for _ in range(3)))
"""


@pytest.fixture(scope="module")
def workflow(make_workflow: Callable[..., Workflow]) -> Workflow:
    return make_workflow()


@pytest.fixture(scope="module")
def paper(workflow: Workflow) -> Workflow:
    return workflow.with_overlays("presets/paper-a.yaml")


def untouched(workflow: Workflow) -> bool:
    return not (workflow.folder / "results").exists() and not (workflow.folder / "resources").exists()


def overlaid(workflow: Workflow, text: str) -> Workflow:
    (workflow.folder / "mine.yaml").write_text(text)
    return workflow.with_overlays("presets/paper-a.yaml", "mine.yaml")


def test_the_paper_s_plan_needs_no_model_library(paper: Workflow) -> None:
    result = paper.snakemake("-n")
    assert result.returncode == 0, result.stdout
    planned = paper.planned()
    assert planned["train_student_dpo"] == 61
    assert planned["train_teacher_dpo"] + planned["train_teacher_reward"] == 15
    assert planned["judge_comparisons"] == 5
    assert paper.heavy_imports() == ""
    assert untouched(paper)


def test_the_papers_full_grids_are_what_a_bare_snakemake_means(workflow: Workflow, paper: Workflow) -> None:
    planned = workflow.planned()
    assert all(planned[rule] >= jobs for rule, jobs in paper.planned().items())
    assert untouched(workflow)


@pytest.mark.parametrize("preset", ["paper-a", "demo"])
def test_the_workflow_parses_in_under_a_second(workflow: Workflow, preset: str) -> None:
    command = [sys.executable, "-c", PARSE, f"presets/{preset}.yaml"]
    result = subprocess.run(
        command, cwd=workflow.folder, env=workflow.environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1.0


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU, where a bare snakemake starts for real")
def test_a_real_run_without_a_gpu_stops_before_any_job(workflow: Workflow) -> None:
    result = workflow.snakemake("--cores", "1")
    assert result.returncode != 0
    assert "nothing was started" in result.stdout
    assert "needs a GPU and this machine has none" in result.stdout
    assert "`make demo`" in result.stdout
    assert "localrule" not in result.stdout
    assert untouched(workflow)


def test_a_source_without_a_revision_stops_a_real_run(workflow: Workflow) -> None:
    result = overlaid(workflow, "runtime: {needs_gpu: false}").snakemake("--cores", "1")
    assert result.returncode != 0
    assert "nothing was started: source 'gold-mistral-7b' has no pinned revision" in result.stdout
    assert "sources.gold-mistral-7b.revision" in result.stdout
    assert "commit hash" in result.stdout
    assert untouched(workflow)


BAD = [
    ("experiments: {a_figure_2a: {sudents: [opt-13b]}}", ["unknown key 'sudents'", "instead: students"]),
    (
        "recipes: {paper-hh: {dpo: {beta: high}}}",
        ["a number is expected (got 'high')", "recipes.paper-hh.dpo.beta"],
    ),
    (
        "experiments: {a_figure_2a: {students: [opt-14b]}}",
        ["'opt-14b' is not declared under models", "instead: opt-13b"],
    ),
    (
        "data: {hh-helpful: {max_tokens: 4000}}",
        ["do not fit into the 2048 positions", "data.hh-helpful.max_tokens"],
    ),
    ("sources: {hh-rlhf: {revision: main}}", ["a commit hash, 40 hex digits", "sources.hh-rlhf.revision"]),
]


@pytest.mark.parametrize(("text", "said"), BAD, ids=[row[0] for row in BAD])
def test_a_wrong_configuration_is_refused(workflow: Workflow, text: str, said: list[str]) -> None:
    code, output = overlaid(workflow, text).dry_run()
    assert code != 0
    for words in said:
        assert words in output
    assert "mine.yaml" in output
    assert "Traceback" not in output


def test_a_wrong_configuration_stops_a_real_run_before_any_job(workflow: Workflow) -> None:
    result = overlaid(workflow, BAD[0][0] + "\nruntime: {needs_gpu: false}").snakemake("--cores", "1")
    assert result.returncode != 0
    assert "configuration refused, nothing was started" in result.stdout
    assert "mine.yaml: experiments.a_figure_2a.sudents" in result.stdout
    assert untouched(workflow)


def test_a_wrong_number_on_the_command_line_is_refused(paper: Workflow) -> None:
    code, output = paper.dry_run("--config", "recipes={paper-hh: {dpo: {beta: high}}}")
    assert code != 0
    assert "a number is expected (got 'high')" in output
    assert "recipes.paper-hh.dpo.beta" in output
    assert untouched(paper)


def test_a_number_without_a_dot_is_planned_as_the_number(workflow: Workflow) -> None:
    rate = "{dpo: {learning_rate: 5e-7}}"
    mine = overlaid(workflow, f"run: [a_figure_2a]\nrecipes: {{paper-hh: {rate}, paper-hh-teacher: {rate}}}")
    _, plan = mine.dry_run("--printshellcmds")
    assert "--learning-rate 5e-07" in plan
    assert "--learning-rate 5e-05" not in plan
