"""The same bytes from inside the images: on this machine, on the scheduler, and without any network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import CANNOT, HERE, PROFILES, ROOT, Clone, Slurm, make_clone

pytestmark = pytest.mark.slow
LABELS = "results/small/labels/world-t2/1-of-2/seed-1/unlabelled/weak-demo-s/manifest.json"
IN_CONTAINERS = ("--software-deployment-method", "apptainer", "--apptainer-args", "--nv --cleanenv")


@pytest.fixture(scope="session")
def apptainer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which Apptainer is on the path: the machine's own, or the distribution's in a folder."""
    prefix = tmp_path_factory.mktemp("apptainer") / "prefix"
    done = subprocess.run([str(HERE / "install_apptainer.sh"), str(prefix)], capture_output=True, text=True)
    if done.returncode == CANNOT:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    path = f"{done.stdout.splitlines()[-1]}:{os.environ['PATH']}"
    # Where root lacks a capability (in many sandboxes) Apptainer must not ask for all of them.
    return {**os.environ, "PATH": path, "APPTAINER_NO_PRIVS": "1"}


@pytest.fixture(scope="session")
def contained(tmp_path_factory: pytest.TempPathFactory, apptainer: dict[str, str]) -> Clone:
    """A clone with images built in it: `make images`, the ml image from the CPU's lock.

    W2S_TEST_IMAGES names a clone that has them already (`make images LOCK=ml-cpu` there).
    """
    clone = make_clone(tmp_path_factory.mktemp("contained"))
    clone.environment = apptainer
    ready = os.environ.get("W2S_TEST_IMAGES")
    if ready:
        for name in ("containers/built", "containers/images.yaml"):
            (clone.folder / name).unlink(missing_ok=True)
            (clone.folder / name).symlink_to(Path(ready).resolve() / name)
        return clone
    done = subprocess.run(
        ["make", "images"],
        cwd=clone.folder,
        env={**apptainer, "LOCK": "ml-cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return clone


def fresh(contained: Clone, parent: Path) -> Clone:
    """Another folder with the same images and nothing made."""
    folder = parent / "clone"
    shutil.copytree(
        contained.folder,
        folder,
        symlinks=True,
        ignore=shutil.ignore_patterns("results", ".snakemake", "built"),
    )
    built = contained.folder / "containers" / "built"
    (folder / "containers" / "built").symlink_to(built.resolve())
    return Clone(folder, environment=contained.environment)


def digests(clone: Clone) -> dict[str, str]:
    text = (clone.folder / "containers/images.yaml").read_text()
    return dict(re.findall(r"^(ml|light): (sha256:[0-9a-f]{64})$", text, re.MULTILINE))


def check(clone: Clone, reference: Clone) -> None:
    """What was made is what the reference has, and says which image it was made in."""
    made = clone.manifests()
    assert made.items() <= reference.manifests().items(), (
        "bit for bit what this machine makes without a container"
    )
    used = {
        json.loads(path.read_text())["container"] for path in (clone.folder / "results").rglob("run.json")
    }
    assert used == set(digests(clone).values())


def test_an_image_is_whole_without_the_host_s_packages(contained: Clone) -> None:
    for kind, digest in digests(contained).items():
        image = contained.folder / "containers" / "built" / f"{kind}-{digest.removeprefix('sha256:')}.sif"
        done = subprocess.run(
            ["apptainer", "test", str(image)], env=contained.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_scheduler_and_without_any_network(
    contained: Clone, reference: Clone, tmp_path: Path
) -> None:
    """In a network namespace of its own, in which not even the loopback is up."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--net", "true"]).returncode:
        pytest.skip("no network namespace can be made here")
    clone = fresh(contained, tmp_path)
    command = ["unshare", "--net", *clone.command(LABELS, "--cores", "2", *IN_CONTAINERS)]
    done = subprocess.run(command, cwd=clone.folder, env=clone.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:] + clone.logs()
    check(clone, reference)


def test_with_the_scheduler(slurm: Slurm, contained: Clone, reference: Clone, tmp_path: Path) -> None:
    """The shipped profile as it is: apptainer, --nv, --cleanenv."""
    clone = fresh(contained, tmp_path)
    plain = (clone.folder / "tests/cluster/plain/profile.yaml").read_text()
    (clone.folder / "site").mkdir()
    (clone.folder / "site/profile.yaml").write_text(re.sub("software-deployment-method.*\n", "", plain))
    clone.run(*PROFILES[:2], "--profile", "site", limit_s=1200)
    check(clone, reference)
    assert clone.manifests().keys() == reference.manifests().keys()
    assert clone.leftovers() == []


def test_an_image_that_was_altered_starts_nothing(contained: Clone, tmp_path: Path) -> None:
    clone = fresh(contained, tmp_path)
    (clone.folder / "containers/built").unlink()
    (clone.folder / "containers/built").mkdir()
    for kind, digest in digests(clone).items():
        (clone.folder / f"containers/built/{kind}-{digest.removeprefix('sha256:')}.sif").write_bytes(
            b"something else"
        )
    code, output = clone.snakemake(LABELS, "--cores", "2", *IN_CONTAINERS)
    assert code != 0
    assert "nothing was started: the image was altered" in output
    assert clone.manifests() == {}


def test_the_repository_names_no_image_that_only_this_machine_has() -> None:
    """What is committed is the state before `make images`, or images that anybody can pull."""
    text = subprocess.run(
        ["git", "show", "HEAD:containers/images.yaml"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert text and not re.search(r"^(ml|light): sha256:", text, re.MULTILINE)
