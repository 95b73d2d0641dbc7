"""The whole workflow, run in copies of the repository: real Snakemake, real light stages, stand-ins for heavy ones."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from clones import copy_sources

ROOT = Path(__file__).resolve().parents[2]
FAKES = Path(__file__).with_name("fakes.py")
sys.path.insert(0, str(FAKES.parent))
HEAVY_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


class DryRunner:
    """Dry runs by a process that has Snakemake loaded (dry_runner.py): half the time of a process each."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(FAKES.with_name("dry_runner.py"))],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(self, folder: Path, arguments: Sequence[str]) -> tuple[int, str]:
        """Exit code and output of ``snakemake <arguments>`` in ``folder``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), "arguments": list(arguments)}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["returncode"], answer["output"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@dataclass
class Workflow:
    """A copy of the repository, and Snakemake in it. Heavy libraries are poisoned: importing one is an error."""

    folder: Path
    poison: Path
    dry_runner: DryRunner
    overlays: list[str] = field(default_factory=list)

    def with_overlays(self, *overlays: str) -> Workflow:
        """The same folder with other configuration files."""
        return replace(self, overlays=list(overlays))

    def command(self, *arguments: str) -> list[str]:
        """The command line of Snakemake with this workflow's configuration files."""
        return [sys.executable, "-m", "snakemake", *self.arguments(*arguments)]

    def arguments(self, *arguments: str) -> list[str]:
        """Arguments and this workflow's configuration files."""
        return [*arguments, *(["--configfile", *self.overlays] if self.overlays else [])]

    @property
    def environment(self) -> dict[str, str]:
        """The processes' environment."""
        return environment(self.poison)

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake to its end; stderr goes into stdout."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *arguments: str) -> str:
        """Run for real and insist on success."""
        result = self.snakemake("--cores", "2", *arguments)
        assert result.returncode == 0, self.failure(result.stdout)
        return result.stdout

    def planned(self, *arguments: str) -> dict[str, int]:
        """Rules that a run would execute now, with their numbers of jobs (``all`` left out)."""
        code, output = self.dry_run("--quiet", "rules", *arguments)
        assert code == 0, output
        return job_counts(output)

    def dry_run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of a dry run."""
        return self.dry_runner(self.folder, self.arguments("-n", *arguments))

    def heavy_imports(self) -> str:
        """What imported a poisoned library, also if it caught the error."""
        log = self.poison / "imported.log"
        return log.read_text() if log.is_file() else ""

    def failure(self, output: str) -> str:
        """The output with the logs of jobs that failed."""
        logs = [path for path in self.folder.rglob("logs/**/*.log") if "rror" in path.read_text()]
        return output + "".join(f"\n--- {path}\n{path.read_text()}" for path in logs[:3])


def environment(poison: Path) -> dict[str, str]:
    """The environment of a process in which heavy libraries are poisoned."""
    environment = dict(os.environ)
    environment |= {"PYTHONPATH": str(poison), "OMP_NUM_THREADS": "1"}
    environment.pop("W2S_STORE", None)  # the user's own is none of ours
    environment.pop("HF_HUB_OFFLINE", None)  # stand-ins fetch from nowhere, but the plan does not know
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a hundred short processes that import the same modules
    return environment | {"XDG_CACHE_HOME": str(poison / "cache")}


def job_counts(output: str) -> dict[str, int]:
    """The table of jobs that Snakemake prints."""
    lines = output.splitlines()
    if not any(line.startswith("job ") and line.endswith("count") for line in lines):
        assert "Nothing to be done" in output, output
        return {}
    start = next(number for number, line in enumerate(lines) if set(line) == {"-", " "})
    rows = [line.split() for line in lines[start + 1 :]]
    counts = {
        row[0]: int(row[1]) for row in rows[: next(n for n, row in enumerate(rows) if row[:1] == ["total"])]
    }
    return {rule: count for rule, count in counts.items() if rule != "all"}


def install_fakes(folder: Path) -> None:
    """Let the heavy scripts play instead of work; all else of them stays, and so does what they import."""
    import fakes

    shutil.copy(FAKES, folder / "scripts" / "fakes.py")
    for stage in fakes.STAGES:
        path = folder / "scripts" / f"{stage}.py"
        text = path.read_text()
        work, marker, rest = text.rpartition("    cli.run(main)\n")
        assert marker, f"{path} does not end in cli.run(main)"
        assert not rest.strip()
        path.write_text(f"{work}    import fakes\n\n    cli.run(lambda: fakes.play(main))\n")


def poison_libraries(folder: Path, names: Sequence[str] = HEAVY_LIBRARIES) -> Path:
    """A folder for PYTHONPATH in which heavy libraries cannot be imported, and every attempt is written down."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.py").write_text(
            "import pathlib, sys\n"
            "with pathlib.Path(__file__).with_name('imported.log').open('a') as log:\n"
            f"    log.write('{name} by ' + ' '.join(sys.argv) + '\\n')\n"
            f"raise ImportError('{name} must not be imported here')\n"
        )
    return folder


@pytest.fixture(scope="session")
def poison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of poisoned libraries."""
    return poison_libraries(tmp_path_factory.mktemp("poison") / "libraries")


@pytest.fixture(scope="session")
def dry_runner(poison: Path) -> Iterator[DryRunner]:
    """The process that makes dry runs."""
    runner = DryRunner(environment(poison))
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def make_workflow(
    tmp_path_factory: pytest.TempPathFactory, poison: Path, dry_runner: DryRunner
) -> Callable[..., Workflow]:
    """``make_workflow(fakes=False, preset=None, overlay="")`` -> a copy of the repository that is ready to run."""

    def make(fakes: bool = False, preset: str | None = None, overlay: str = "") -> Workflow:
        folder = copy_sources(tmp_path_factory.mktemp("workflow") / "repository")
        workflow = Workflow(folder, poison, dry_runner)
        if preset:
            workflow.overlays.append(f"presets/{preset}.yaml")
        if fakes:
            install_fakes(folder)
        if overlay:
            (folder / "overlay.yaml").write_text(overlay)
            workflow.overlays.append("overlay.yaml")
        return workflow

    return make


@dataclass
class FinishedRun:
    """The paper-a workflow, run whole with stand-ins.

    Attributes:
        seconds: wall time on two cores; on a machine that is busy with other things, what it would be without them.
    """

    workflow: Workflow
    seconds: float
    output: str


@pytest.fixture(scope="session")
def finished(make_workflow: Callable[..., Workflow]) -> FinishedRun:
    """One finished run for all tests that only look at it, or that put back what they change."""
    from fakes import FAKE_RUN

    workflow = make_workflow(fakes=True, preset="paper-a", overlay=FAKE_RUN)
    busy = os.getloadavg()[0] > 1
    started, used = time.monotonic(), processor_seconds()
    output = workflow.run()
    wall, used = time.monotonic() - started, processor_seconds() - used
    return FinishedRun(workflow, min(wall, used) if busy else wall, output)


def processor_seconds() -> float:
    """Processor time of all processes that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
