"""What jobs would ask a site for, by dry runs with the shipped profiles; and GPUs on a machine without a scheduler."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Workflow

# No plan needs Apptainer; the profile names it, and Snakemake would ask for its version.
NO_CONTAINERS = ("--software-deployment-method", "env-modules")
PINNED = """
run: [a_figure_2a]
sources: {gold-mistral-7b: {revision: "0000000000000000000000000000000000000000"}}
"""


@pytest.fixture(scope="module")
def paper(make_workflow: Callable[..., Workflow]) -> Workflow:
    workflow = make_workflow()
    (workflow.folder / "pinned.yaml").write_text(PINNED)
    return workflow.with_overlays("presets/paper-a.yaml", "pinned.yaml")


def asked(paper: Workflow, *profiles: str) -> dict[tuple[str, str], dict[str, str]]:
    """(rule, wildcards) -> resources of each job of the plan."""
    words = [word for profile in ("slurm", *profiles) for word in ("--profile", profile)]
    code, output = paper.dry_run("results/paper-a/report.html", *words, *NO_CONTAINERS)
    assert code == 0, output
    jobs = {}
    for block in re.split(r"^(?:local)?rule ", output, flags=re.MULTILINE)[1:]:
        wildcards = re.search(r"^ +wildcards: (.*)$", block, re.MULTILINE)
        resources = re.search(r"^ +resources: (.*)$", block, re.MULTILINE)
        pairs = (pair.split("=", 1) for pair in (resources[1].split(", ") if resources else []))
        jobs[block.split(":")[0], wildcards[1] if wildcards else ""] = dict(pairs)
    return jobs


@pytest.mark.parametrize(
    ("site", "one", "four"),
    [
        ("typed-gpus", {"gpu": "1", "gpu_model": "a100"}, {"gpu": "4", "gpu_model": "a100"}),
        ("gres", {"gres": "gpu:a100:1"}, {"gres": "gpu:a100:8"}),
    ],
)
def test_a_site_s_profile_reaches_every_job(
    paper: Workflow, site: str, one: dict[str, str], four: dict[str, str]
) -> None:
    jobs = asked(paper, f"profiles/examples/{site}")
    submitted = {key: job for key, job in jobs.items() if key[0] not in ("fetch", "report")}
    assert {job["slurm_account"] for job in submitted.values()} == {"my-project"}
    gpus = {key: job for key, job in jobs.items() if "gpu" in job or "gres" in job}
    assert {rule for rule, _ in gpus} == {
        "train_teacher_sft", "train_teacher_dpo", "train_student_sft", "train_student_dpo", "score_responses",
        "generate", "score_gold",
    }  # fmt: skip
    assert all(job.items() >= one.items() for (rule, _), job in gpus.items() if rule == "generate")
    large = [job for (rule, of), job in gpus.items() if rule == "train_student_sft" and "opt-13b" in of]
    assert large
    assert all(job.items() >= {**four, "layout": "fsdp"}.items() for job in large)
    if site == "typed-gpus":
        assert all(
            job["slurm_partition"] == ("gpu" if key in gpus else "cpu") for key, job in submitted.items()
        )


def test_without_a_site_the_scheduler_s_defaults_are_asked_for(paper: Workflow) -> None:
    named = {"slurm_account", "slurm_partition", "constraint", "qos", "gpu_model", "gres"}
    for job in asked(paper).values():
        assert not named & set(job)


def test_a_mistake_in_a_site_s_profile_is_named(paper: Workflow) -> None:
    site = paper.folder / "typo"
    site.mkdir()
    (site / "profile.yaml").write_text("config:\n  cluster: {gpu: {memory: 80}}\n")
    code, output = paper.dry_run("--profile", "slurm", "--profile", "typo", *NO_CONTAINERS)
    assert code != 0
    assert "cluster.gpu.memory" in output
    assert "memory_gb" in output


PROBE = """
configfile: "config.yaml"
include: "rules/common.smk"

rule all:
    default_target: True
    input: expand("seen/{n}/manifest.json", n=range(4))

rule look:
    output: "seen/{n}/manifest.json"
    wildcard_constraints: n=r"[0-9]"
    resources: gpu=1
    shell: "launch 1 1 single scripts/look.py --output {output}"
"""
LOOK = """
import json, os, time
from w2s import cli

def arguments():
    parser = cli.StageParser("")
    parser.output("--output")
    return parser

if __name__ == "__main__":
    began = time.time()
    time.sleep(1.5)
    output = arguments().parse_args().output
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w") as stream:
        json.dump({"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "began": began, "ended": time.time()}, stream)
"""


def test_two_jobs_on_one_workstation_never_share_a_gpu(
    make_workflow: Callable[..., Workflow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More jobs at once than GPUs: those that find none wait."""
    workflow = make_workflow()
    (workflow.folder / "probe.smk").write_text(PROBE)
    (workflow.folder / "scripts" / "look.py").write_text(LOOK)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setenv("W2S_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    result = workflow.snakemake(
        "--snakefile", "probe.smk", "--profile", "workstation", "--cores", "4", "--resources", "gpu=4"
    )
    assert result.returncode == 0, result.stdout
    seen = [json.loads(path.read_text()) for path in (workflow.folder / "seen").glob("*/manifest.json")]
    assert len(seen) == 4
    assert {job["gpu"] for job in seen} == {"4", "6"}
    together = [
        (one, other)
        for one, other in combinations(seen, 2)
        if one["began"] < other["ended"] and other["began"] < one["ended"]
    ]
    assert together, "no two jobs ran at the same time: nothing was shown"
    assert all(one["gpu"] != other["gpu"] for one, other in together)
