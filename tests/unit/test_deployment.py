"""How a job's shell reaches a stage, tried in a shell, with programs that only say how they were called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from w2s.deployment import enter_containers, shell_prefix, store_folder
from w2s.images import Image

TELL = "import os, sys; print(os.environ.get('HF_HUB_OFFLINE'), os.environ.get('OMP_NUM_THREADS'), *sys.argv[1:])"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A repository whose path needs quoting, with one stage and a launcher, which tell their arguments."""
    root = tmp_path / "my repository"
    (root / "scripts" / "w2s").mkdir(parents=True)
    for script in ("fetch", "stage", "w2s/launch", "w2s/worker"):
        (root / "scripts" / f"{script}.py").write_text(TELL.replace("print(", f"print({script!r}, "))
    return root


def said(prefix: str, command: str, **environment: str) -> list[str]:
    clean = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run(["bash", "-c", prefix + command], capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[0].split(" ", 4)


def test_only_fetch_may_use_the_network(base: Path) -> None:
    prefix = shell_prefix(base, "plain", None)
    assert said(prefix, "python scripts/stage.py --flag 'two words'") == [
        "stage",
        "1",
        "None",
        "--flag",
        "two words",
    ]
    assert said(prefix, "python scripts/fetch.py")[:2] == ["fetch", "None"]


def test_a_model_s_stage_goes_through_the_launcher(base: Path) -> None:
    prefix = shell_prefix(base, "plain", None)
    told = said(prefix, "launch 3 2 ddp scripts/stage.py --flag x")
    assert told[:3] == ["w2s/launch", "1", "3"]
    assert " ".join(told[3:]) == f"--gpus 2 --layout ddp {base}/scripts/stage.py --flag x"


@pytest.mark.parametrize(
    ("gpus", "environment", "through"),
    [(0, {}, "w2s/worker"), (1, {}, "w2s/launch"), (0, {"SLURM_JOB_ID": "7"}, "w2s/launch")],
)
def test_the_worker_takes_what_needs_neither_gpu_nor_scheduler(
    base: Path, gpus: int, environment: dict[str, str], through: str
) -> None:
    prefix = shell_prefix(base, "worker", None)
    assert said(prefix, f"launch 1 {gpus} single scripts/stage.py", **environment)[0] == through


def test_in_a_container_the_image_s_python_is_used(base: Path, tmp_path: Path) -> None:
    """...and the environment names the digests of the images."""
    image = Image("ml", "sha256:" + "a" * 64, base)
    prefix = shell_prefix(base, "worker", [image])
    assert sys.executable not in prefix
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text('#!/bin/sh\necho "$W2S_IMAGES"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    assert said(prefix, "launch 1 0 single scripts/stage.py", PATH=path) == [
        f"{image.file.name}=sha256:{'a' * 64}"
    ]


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [
        (None, {}, ""),
        ("/shared/store", {}, "/shared/store"),
        ("relative", {}, f"{Path.cwd()}/relative"),
        ("~/store", {}, f"{Path.home()}/store"),
        ("/shared/store", {"W2S_STORE": "/mine"}, "/mine"),
        (None, {"W2S_STORE": "/mine"}, "/mine"),
        ("/shared/store", {"W2S_STORE": ""}, ""),
    ],
)
def test_the_variable_names_the_store_before_the_setting(
    configured: str | None, environment: dict[str, str], expected: str
) -> None:
    assert store_folder(configured, environment) == expected


@pytest.mark.parametrize("named", ["", "/shared/my store"])
def test_stages_are_told_the_store(base: Path, named: str) -> None:
    """Whatever the shell of the job has in its environment, which in a container is nothing."""
    (base / "scripts" / "stage.py").write_text("import os; print(repr(os.environ['W2S_STORE']))")
    prefix = shell_prefix(base, "plain", None, artifacts=named)
    assert " ".join(said(prefix, "python scripts/stage.py", W2S_STORE="/other")) == repr(named)


def test_a_failing_stage_fails_its_job(base: Path) -> None:
    (base / "scripts" / "stage.py").write_text("raise SystemExit(3)")
    command = shell_prefix(base, "plain", None) + "python scripts/stage.py"
    assert subprocess.run(["bash", "-c", command]).returncode == 3


def test_containers_see_what_jobs_need(base: Path, tmp_path: Path) -> None:
    """Folders of data and the GPUs given by the scheduler come in although --cleanenv keeps the rest out."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    cache.mkdir()
    environment = {
        "CUDA_VISIBLE_DEVICES": "1",
        "SECRET": "x",
        "HF_HOME": str(cache),
        "APPTAINER_BIND": "/a:/b",
    }
    environment["JUDGE_KEY"] = "key"
    environment["W2S_REUSE"] = "no"
    enter_containers(base, [str(data), str(tmp_path / "gone")], ["JUDGE_KEY", "ABSENT"], environment)
    assert environment["APPTAINERENV_JUDGE_KEY"] == "key"
    assert "APPTAINERENV_ABSENT" not in environment
    assert environment["APPTAINERENV_CUDA_VISIBLE_DEVICES"] == "1"
    assert environment["APPTAINERENV_W2S_REUSE"] == "no"
    assert environment["APPTAINERENV_HF_HOME"] == str(cache)
    assert "APPTAINERENV_SECRET" not in environment
    assert environment["APPTAINER_BIND"] == f"/a:/b,{base},{data},{cache}"
