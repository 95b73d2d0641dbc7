"""Faults around a run: a full disk, a folder that cannot be written, a moved clock, two controllers, a hand in a manifest.

After each the error says what is wrong, nothing that was made is lost, and the same command succeeds.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Chain, Server, verdict
from training_inputs import Inputs
from w2s import checkpoints
from w2s.artifact import load, verify

SPLIT = "results/chain/splits/rows/1-of-2/seed-1/manifest.json"
CORPUS = "results/chain/corpora/demo/manifest.json"
YEAR = 365 * 24 * 3600
SCRIPTS = Path(checkpoints.__file__).parent.parent


@pytest.fixture
def small(data: Path) -> Iterator[Chain]:
    """The chain up to the split, by stages that load no model; others may read it and what is above it."""
    folder = Path(tempfile.mkdtemp(prefix="w2s-faults-"))
    folder.chmod(0o755)
    with Server(verdict) as server:
        chain = Chain.make(folder / "repository", Path(shutil.copytree(data, folder / "rows")), server)
        (chain.folder / "plain.yaml").write_text("runtime: {launcher: plain}\n")
        chain.overlays.append("plain.yaml")
        yield chain
    shutil.rmtree(folder)


def finish(chain: Chain) -> str:
    """Run up to the split and insist on success."""
    done = chain.snakemake(SPLIT)
    assert done.returncode == 0, done.stdout[-6000:]
    manifests = {path: path.read_bytes() for path in chain.folder.rglob("manifest.json")}
    assert len(manifests) == 6
    for path in manifests:
        verify(path)
    assert chain.leftovers() == []
    assert "Nothing to be done" in chain.snakemake(SPLIT).stdout
    return done.stdout


@contextmanager
def own_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """``folder`` on a file system of its own; the function gives it other options, such as another size."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "w2s", str(folder)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk of its own needs the right to mount")

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", folder], check=True)


# -- a full disk


def test_a_full_disk_in_the_middle_of_a_run(small: Chain) -> None:
    with own_disk(small.folder / "results", "400k") as remount:
        (small.results / "logs").mkdir(parents=True)
        (small.results / "filler").write_bytes(bytes(280_000))
        failed = small.snakemake(SPLIT)
        assert failed.returncode != 0
        assert "no room to write (No space left on device); nothing half-written was left" in failed.stdout
        assert "the same command again: it continues" in failed.stdout
        assert small.leftovers() == []
        remount("size=20m")
        finish(small)


@pytest.mark.parametrize("size", ["40k", "150k", "300k", "500k"])
def test_a_full_disk_in_the_middle_of_a_training(inputs: Inputs, tmp_path: Path, size: str) -> None:
    """In the first checkpoint, in a later one, or when the model is saved."""
    words = ("--epochs", 2, "--save-steps", 2)
    disk, whole = tmp_path / "disk", tmp_path / "whole" / "manifest.json"
    command = [sys.executable, str(SCRIPTS / "train_teacher_sft.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def train(output: Path) -> subprocess.CompletedProcess[str]:
        arguments = [*command, *inputs.arguments(output, *words)]
        return subprocess.run(arguments, capture_output=True, text=True, env=environment)

    with own_disk(disk, size) as remount:
        failed = train(disk / "model" / "manifest.json")
        assert failed.returncode == 2, failed.stderr
        assert "no room to write" in failed.stderr and "Traceback" not in failed.stderr
        assert not (disk / "model").exists()
        remount("size=50m")
        again = train(disk / "model" / "manifest.json")
        assert again.returncode == 0, again.stderr
        assert train(whole).returncode == 0
        assert load(disk / "model" / "manifest.json").digest == load(whole).digest
        assert [path.name for path in disk.iterdir()] == ["model"]


# -- a folder that cannot be written


def test_a_results_folder_that_cannot_be_written(small: Chain) -> None:
    """Read-only from the beginning, and from the middle on."""
    with own_disk(small.folder / "results", "20m") as remount:
        for target in (CORPUS, SPLIT):
            before = {path: path.read_bytes() for path in small.results.rglob("manifest.json")}
            remount("ro")
            failed = small.snakemake(target)
            assert failed.returncode != 0
            assert "Read-only file system: 'results" in failed.stdout, failed.stdout
            assert "Traceback" not in failed.stdout
            assert {path: path.read_bytes() for path in small.results.rglob("manifest.json")} == before
            remount("rw")
            again = small.snakemake(target)
            assert again.returncode == 0, again.stdout[-6000:]
        finish(small)


# -- clocks


def test_files_of_another_time(small: Chain) -> None:
    """Dates rerun nothing. An input from the future is told of by Snakemake, with its name; touched, it will do."""
    finish(small)
    before = {path: path.read_bytes() for path in small.folder.rglob("manifest.json")}
    files = [path for path in small.folder.rglob("*") if path.suffix in (".json", ".parquet", ".py", ".smk")]
    for number, path in enumerate(files):
        os.utime(path, (time.time() + (14 if number % 2 else -30) * YEAR,) * 2)
    future = small.results / "filtered/rows/manifest.json"
    os.utime(future, (time.time() + YEAR,) * 2)
    assert "Nothing to be done" in small.snakemake(SPLIT).stdout
    shutil.rmtree(small.results / "splits")
    failed = small.snakemake(SPLIT)
    assert failed.returncode != 0
    assert "older modification time" in failed.stdout and "clock skew" in failed.stdout
    assert "results/chain/filtered/rows/manifest.json" in failed.stdout
    future.touch()
    again = small.snakemake(SPLIT)
    assert again.returncode == 0, again.stdout
    assert {path: path.read_bytes() for path in small.folder.rglob("manifest.json")} == before


# -- two controllers


def started(chain: Chain, log: Path, until: Callable[[], object]) -> subprocess.Popen[bytes]:
    """A controller that is at work, as what it leaves in its folder tells."""
    process = chain.start(log, SPLIT)
    while not until():
        assert process.poll() is None, log.read_text()
        time.sleep(0.01)
    return process


def test_two_controllers_in_one_folder(small: Chain, tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = started(small, log, lambda: list(small.folder.glob(".snakemake/locks/*")))
    os.kill(
        first.pid, signal.SIGSTOP
    )  # where other work makes the second slow, the first would be done before
    try:
        second = small.snakemake(SPLIT)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stdout and "--unlock" in second.stdout
    assert first.wait() == 0, log.read_text()
    verify(small.folder / SPLIT)
    assert "Nothing to be done" in small.snakemake(SPLIT).stdout


def test_a_controller_that_is_interrupted_twice_leaves_no_lock(small: Chain, tmp_path: Path) -> None:
    """An impatient user: Ctrl-C, and again."""
    first = started(small, tmp_path / "log", small.leftovers)
    for _ in range(2):
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGINT)
            time.sleep(0.2)
    assert first.wait(60) != 0
    again = small.snakemake(SPLIT)
    if again.returncode:  # the second one came while Snakemake gave its lock back
        assert "--unlock" in again.stdout
        assert small.snakemake("--unlock", SPLIT).returncode == 0
    finish(small)


# -- a manifest that was edited by hand


@pytest.mark.parametrize("name", ["manifest.json", "run.json"])
def test_a_record_that_was_edited_by_hand(small: Chain, name: str) -> None:
    finish(small)
    before = {path: path.read_bytes() for path in small.folder.rglob("manifest.json")}
    edited = small.results / "filtered/rows" / name
    edited.write_text(
        edited.read_text().replace('"max_tokens": 100', '"max_tokens": 90').replace('"cores": ', '"cores": 1')
    )
    shutil.rmtree(small.results / "splits")
    failed = small.snakemake(SPLIT)
    assert failed.returncode != 0
    assert "the record was edited or damaged after it was made: its seal does not fit" in failed.stdout
    assert f"results/chain/filtered/rows/{name}" in failed.stdout
    assert "instead: delete the manifest.json there and run the workflow again" in failed.stdout
    assert "Traceback" not in failed.stdout
    edited.with_name("manifest.json").unlink()
    again = small.snakemake(SPLIT)
    assert again.returncode == 0, again.stdout[-4000:]
    assert {path: path.read_bytes() for path in small.folder.rglob("manifest.json")} == before
    assert load(small.folder / SPLIT).manifest["stage"] == "split_examples"
