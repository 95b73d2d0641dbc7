"""`snakemake --profile slurm` on a real scheduler: the same bytes as without, and whatever happens to jobs on the way.

The disasters share runs, two jobs at a time, for a node of two cores.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import PRESETS, PROFILES, Clone, Slurm, wait_until

LONG = [*PRESETS, "tests/cluster/long.yaml"]
pytestmark = pytest.mark.slow


def model(name: str) -> str:
    return f"results/small/models/{name}/manifest.json"


def alone(clone: Clone, parent: Path, name: str) -> bytes:
    """The manifest that the same model has if nothing happens to its training."""
    calm = Clone(parent / "calm", clone.overlays)
    subprocess.run(["cp", "-r", str(clone.folder), str(calm.folder)], check=True)
    subprocess.run(["rm", "-rf", str(calm.folder / "results" / "small" / "models")], check=True)
    calm.run(model(name), "--cores", "2", "--config", "runtime={launcher: plain}")
    return (calm.folder / model(name)).read_bytes()


def checkpoints(clone: Clone, name: str) -> list[Path]:
    return list(clone.folder.glob(f"results/small/models/{name}.state/*/checkpoint-*/complete.json"))


def states(jobs: list[dict[str, str]]) -> list[str]:
    return [job["JobState"] for job in jobs]


def test_the_same_tables_as_without_a_scheduler(slurm: Slurm, clone: Clone, reference: Clone) -> None:
    clone.run(*PROFILES)
    assert clone.manifests() == reference.manifests()
    assert "Nothing to be done" in clone.run(*PROFILES)
    jobs = slurm.jobs(clone.folder)
    assert set(states(jobs)) == {"COMPLETED"}
    # Grouped: data in one job, table and figure in another; report and fetches are no jobs of the queue at all.
    assert len(jobs) == 28
    assert {job["Partition"] for job in jobs} == {"cpu"}
    assert clone.leftovers() == []


def test_cancelled_over_time_and_over_memory(slurm: Slurm, clone: Clone, tmp_path: Path) -> None:
    """Three trainings: one is cancelled, one hits its time limit, one its memory limit. One command makes all three."""
    if not os.access("/sys/fs/cgroup/memory", os.W_OK):
        pytest.skip("no writable control groups: this scheduler cannot enforce a memory limit")
    clone.overlays = LONG
    targets = [model(name) for name in ("long-a", "long-b", "long-c")]
    process = clone.start(*targets, *PROFILES)
    job = wait_until(lambda: slurm.job_of("pretrain_model_wildcards_long-a"), "long-a runs")
    wait_until(lambda: checkpoints(clone, "long-a"), "long-a has a checkpoint")
    subprocess.run(["scancel", job], check=True)
    assert process.wait(600) == 0, clone.output[-4000:] + clone.logs()

    jobs = {job["JobId"]: job for job in slurm.jobs(clone.folder)}
    submitted = re.findall(r"SLURM jobid (\d+) .*rule_pretrain_model/([\w-]+)/", clone.output)
    happened = {
        name: [jobs[number] for number, of in submitted if of == name]
        for name in ("long-a", "long-b", "long-c")
    }
    assert states(happened["long-a"]) == ["CANCELLED", "COMPLETED"]
    # A job that its launcher ends in order counts as failed: it saved its state, or saw its stage killed for memory.
    assert happened["long-b"][0]["JobState"] in ("TIMEOUT", "FAILED")
    assert happened["long-b"][-1]["JobState"] == "COMPLETED"
    assert happened["long-c"][0]["JobState"] in ("OUT_OF_MEMORY", "FAILED")
    assert happened["long-c"][-1]["JobState"] == "COMPLETED"
    memory = {
        name: [job["Tres"].split("mem=")[1].split(",")[0] for job in happened[name]] for name in happened
    }
    assert memory["long-c"] == ["500M", "1000M"], "memory is doubled after the memory limit"
    assert len(set(memory["long-a"])) == len(set(memory["long-b"])) == 1, "and after nothing else"
    for name in ("long-a", "long-b"):
        assert clone.record(f"small/models/{name}")["measured"]["resumed_from_step"] > 0
    assert clone.leftovers() == []
    assert (clone.folder / model("long-a")).read_bytes() == alone(clone, tmp_path, "long-a"), (
        "bit for bit as if nothing had happened"
    )


def test_a_node_that_goes_down_and_comes_back(slurm: Slurm, clone: Clone) -> None:
    """SLURM requeues its job, which continues; Snakemake only waits."""
    clone.overlays = LONG
    process = clone.start(model("long-a"), *PROFILES)
    wait_until(lambda: slurm.job_of("pretrain_model_wildcards_long-a"), "long-a runs")
    wait_until(lambda: checkpoints(clone, "long-a"), "long-a has a checkpoint")
    subprocess.run(["scontrol", "update", "NodeName=localhost", "State=DOWN", "Reason=test"], check=True)
    try:
        wait_until(lambda: "PENDING" in slurm.queue("%T"), "the job waits for a node")
    finally:
        subprocess.run(["scontrol", "update", "NodeName=localhost", "State=RESUME"], check=True)
    # SLURM holds a requeued job back for two minutes, until the node has cleaned up.
    assert process.wait(600) == 0, clone.output[-4000:] + clone.logs()
    assert len(re.findall(r"SLURM jobid \d+ .*rule_pretrain_model", clone.output)) == 1
    assert clone.record("small/models/long-a")["measured"]["resumed_from_step"] > 0
    assert clone.leftovers() == []


def test_a_controller_that_is_killed(slurm: Slurm, clone: Clone) -> None:
    """Its job goes on. A new controller starts nothing beside it, and later finds its work done."""
    clone.overlays = LONG
    process = clone.start(model("long-a"), *PROFILES)
    wait_until(lambda: slurm.job_of("pretrain_model_wildcards_long-a"), "long-a runs")
    process.send_signal(signal.SIGKILL)
    process.wait()
    clone.run("--unlock")
    code, output = clone.snakemake(model("long-a"), *PROFILES)
    assert code != 0
    assert "1 jobs of an earlier run are still in the queue" in output
    slurm.drain()
    manifest = (clone.folder / model("long-a")).read_bytes()
    made = clone.record("small/models/long-a")["started"]

    assert "1 of 1 steps" in clone.run(model("long-a"), *PROFILES), (
        "Snakemake did not see it end, so it asks again"
    )
    assert clone.record("small/models/long-a")["started"] == made, "but the training is not repeated"
    assert (clone.folder / model("long-a")).read_bytes() == manifest
    assert "Nothing to be done" in clone.run(model("long-a"), *PROFILES)
    assert clone.leftovers() == []


def test_a_job_that_fails(slurm: Slurm, clone: Clone) -> None:
    """It is tried again as often as the profile says, the others go on, and the next run finishes."""
    clone.overlays = LONG
    code, output = clone.snakemake(model("wrong"), model("demo-s"), *PROFILES, "--retries", "1")
    assert code != 0
    assert (
        "the training diverged" in (clone.folder / "results/small/logs/pretrain_model/wrong.log").read_text()
    )
    assert not (clone.folder / model("wrong")).exists()
    assert (clone.folder / model("demo-s")).is_file(), "what does not depend on it is made"
    jobs = {job["JobId"]: job["JobState"] for job in slurm.jobs(clone.folder)}
    tried = re.findall(r"SLURM jobid (\d+) .*rule_pretrain_model/wrong/", output)
    assert [jobs[number] for number in tried] == ["FAILED", "FAILED"]

    mended = clone.folder / "tests/cluster/long.yaml"
    mended.write_text(mended.read_text().replace("learning_rate: 1.0e+6", "learning_rate: 1.0e-3"))
    clone.run(model("wrong"), *PROFILES)
    assert clone.leftovers() == []


def test_gpus_are_asked_for_as_the_site_says(slurm: Slurm, clone: Clone) -> None:
    """Both examples of the documentation, on two pretended GPUs: two jobs at once, each sees one, and not the same."""
    probe = clone.folder / "probe.smk"
    probe.write_text(
        'configfile: "config.yaml"\ninclude: "rules/common.smk"\n'
        "rule all:\n    default_target: True\n    input: 'seen/1', 'seen/2'\n"
        "rule look:\n    output: 'seen/{n}'\n    wildcard_constraints: n=r'\\d'\n"
        "    resources: **(site(CONFIG, 1) | dict(mem_mb=500, runtime=5, devices=1))\n"
        "    shell: 'echo $SLURM_STEP_GPUS > {output}; test -n $CUDA_VISIBLE_DEVICES; sleep 15'\n"
    )
    for example, asked in {"typed-gpus": "TresPerJob", "gres": "TresPerNode"}.items():
        text = (clone.folder / "profiles/examples" / example / "profile.yaml").read_text()
        site = clone.folder / example
        site.mkdir()
        text = re.sub("model: .*", "model: fake", re.sub("(account|constraint|qos): .*", r"\1: null", text))
        (site / "profile.yaml").write_text(text)
        clone.overlays = []
        command = ["--snakefile", "probe.smk", "--profile", "slurm", "--profile", f"./{example}"]
        clone.run(*command, "--profile", "tests/cluster/plain", "--forceall")
        seen = {(clone.folder / "seen" / name).read_text().strip() for name in "12"}
        assert seen == {"0", "1"}, example
        for job in slurm.jobs(clone.folder)[-2:]:
            told = subprocess.run(
                ["scontrol", "show", "job", job["JobId"]], capture_output=True, text=True
            ).stdout
            assert f"{asked}=gres:gpu:fake:1" in told, example
