"""A real SLURM of one node and a real Apptainer, brought up for the tests and taken down again.

Both need root and packages of the distribution; where they cannot be had, the tests that need them skip and say why.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from clones import copy_sources

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CANNOT = 77  # exit code of the helper scripts: not to be had here
PROFILES = ("--profile", "slurm", "--profile", "tests/cluster/plain")
PRESETS = ("presets/demo.yaml", "tests/cluster/small.yaml")


@dataclass
class Clone:
    """A copy of the repository, as a user's, and Snakemake in it."""

    folder: Path
    overlays: list[str] = field(default_factory=lambda: list(PRESETS))
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def command(self, *arguments: str) -> list[str]:
        """Snakemake's command line, targets first: some options would swallow them."""
        overlays = ["--configfile", *self.overlays] if self.overlays else []
        return [sys.executable, "-m", "snakemake", *arguments, *overlays]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake; its output goes to snakemake.out in the folder."""
        with (self.folder / "snakemake.out").open("a") as out:
            return subprocess.Popen(
                self.command(*arguments), cwd=self.folder, env=self.environment, text=True,
                stdout=out, stderr=subprocess.STDOUT, preexec_fn=_take_interrupts,
            )  # fmt: skip

    def snakemake(self, *arguments: str, limit_s: int = 900) -> tuple[int, str]:
        """Run Snakemake to its end: exit code and output. After the limit it is interrupted, which cancels its jobs."""
        (self.folder / "snakemake.out").write_text("")
        process = self.start(*arguments)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait(120)
        return process.returncode, self.output

    @property
    def output(self) -> str:
        """What Snakemake printed."""
        return (self.folder / "snakemake.out").read_text()

    def run(self, *arguments: str, limit_s: int = 900) -> str:
        """Run Snakemake and insist on success."""
        code, output = self.snakemake(*arguments, limit_s=limit_s)
        assert code == 0, output[-6000:] + self.logs()
        return output

    def logs(self) -> str:
        """Logs of jobs in which something went wrong."""
        logs = [path for path in self.folder.glob("results/*/logs/**/*.log") if "rror" in path.read_text()]
        return "".join(f"\n--- {path}\n{path.read_text()[-2000:]}" for path in logs[:3])

    def manifests(self) -> dict[str, str]:
        """Path -> content of every manifest under results/, but for the table of what each stage cost in time."""
        results, found = self.folder / "results", {}
        for path in results.rglob("manifest.json"):
            manifest = json.loads(path.read_text())
            if manifest["files"].pop("costs.csv", None):
                del manifest["digest"]  # of all files
            found[str(path.relative_to(results))] = json.dumps(manifest, sort_keys=True)
        return found

    def record(self, artifact: str) -> dict[str, Any]:
        """The run record of an artifact."""
        return json.loads((self.folder / "results" / artifact / "run.json").read_text())

    def leftovers(self) -> list[str]:
        """Sidecars and half-made artifacts: none may outlive a finished run."""
        endings = (".state", ".job", ".partial", ".former")
        return [str(path) for path in (self.folder / "results").rglob("*") if path.name.endswith(endings)]


@dataclass
class Slurm:
    """The throw-away cluster."""

    folder: Path

    def jobs(self, workdir: Path) -> list[dict[str, str]]:
        """Ended jobs of a folder, oldest first: the fields of SLURM's completion log."""
        log = self.folder / "jobs.txt"
        lines = log.read_text().splitlines() if log.is_file() else []
        found = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return [job for job in found if job["WorkDir"] == str(workdir)]

    def queue(self, form: str = "%i") -> list[str]:
        """One line per job in the queue."""
        answer = subprocess.run(["squeue", "--noheader", f"--format={form}"], capture_output=True, text=True)
        return answer.stdout.split()

    def job_of(self, text: str) -> str | None:
        """Id of the running job whose comment holds ``text``."""
        answer = subprocess.run(
            ["squeue", "--noheader", "--states=R", "--format=%i %k"], capture_output=True, text=True
        )
        return next((line.split()[0] for line in answer.stdout.splitlines() if text in line), None)

    def drain(self, limit_s: float = 240) -> None:
        """Wait until the queue is empty."""
        wait_until(lambda: not self.queue(), "the queue is empty", limit_s)


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = 120) -> Any:
    """Wait for a true value and return it."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.5)
    raise AssertionError(f"after {limit_s:.0f} s still not: {what}")


def _take_interrupts() -> None:
    """A shell's background job ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    folder = tmp_path_factory.mktemp("slurm")
    script = str(HERE / "slurm.sh")
    up = subprocess.run([script, "up", str(folder)], capture_output=True, text=True)
    if up.returncode == CANNOT:
        pytest.skip(up.stderr.strip().splitlines()[-1])
    assert up.returncode == 0, up.stderr
    try:
        yield Slurm(folder)
    finally:
        subprocess.run([script, "down", str(folder)], check=True)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return make_clone(tmp_path)


def make_clone(parent: Path) -> Clone:
    """The files that git knows or would take, copied as a clone has them."""
    return Clone(copy_sources(parent / "clone", without=()))


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The small demo, run on this machine without a scheduler: what every other way must give as well, byte for byte."""
    made = make_clone(tmp_path_factory.mktemp("reference"))
    made.run("--cores", "2")
    return made
