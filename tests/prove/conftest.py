"""What the slow proofs share: a copy of the repository, a small chain in it, and Snakemake that can be killed whole."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from clones import copy_sources

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "unit"))

from judge_server import KEY, Server  # noqa: E402
from unit.conftest import inputs, make_examples, make_model, tiny_model, tiny_tokenizer  # noqa: E402, F401  (fixtures)

# Intervals of an hour's training and scoring, shortened in the copy for those of a second.
SHORTER = {
    "scripts/w2s/training.py": (
        '"--save-steps", type=int, default=500',
        '"--save-steps", type=int, default=3',
    ),
    "scripts/w2s/shards.py": ("SECONDS_BETWEEN_FILES = 60.0", "SECONDS_BETWEEN_FILES = 0.0"),
}
TEMPORARY = (".partial", ".former", ".state", ".job")
MARK = "W2S_PROVE_RUN"
COSTS = "costs.csv"
CARDS = "models.csv"


def rows(number: int = 220) -> list[dict[str, str]]:
    """Comparisons as HH-RLHF writes them, all different."""
    words = ["cats", "bread", "rain", "chess", "maps", "tea", "trains", "verbs", "stars", "soap"]
    found = []
    for row in range(number):
        topic, other = words[row % 10], words[(row // 10) % 10]
        prompt = f"\n\nHuman: tell {row} of {topic}\n\nAssistant:"
        good, bad = f" {topic} and {other} are fine {row}.", f" no {other}." + " no" * (row % 4)
        found.append({"chosen": prompt + good, "rejected": prompt + bad})
    return found


def verdict(body: Mapping[str, Any]) -> str:
    """Two scores from 1 to 10 that the request's messages decide."""
    digest = hashlib.sha256(json.dumps(body["messages"]).encode()).digest()
    return f"{digest[0] % 10 + 1} {digest[1] % 10 + 1}"


@dataclass
class Chain:
    """A copy of the repository, ready to run the chain of chain.yaml.

    Attributes:
        folder: the copy.
        rows: folder of the data from outside.
        judge: the endpoint.
        overlays: configuration files.
    """

    folder: Path
    rows: Path
    judge: Server
    overlays: list[str] = field(default_factory=lambda: ["presets/demo.yaml", "chain.yaml"])

    @staticmethod
    def make(folder: Path, data: Path, judge: Server) -> Chain:
        """Copy the sources and shorten their intervals."""
        copy_sources(folder)
        for name, (old, new) in SHORTER.items():
            text = (folder / name).read_text()
            assert text.count(old) == 1, f"{name} does not say {old}"
            (folder / name).write_text(text.replace(old, new))
        (folder / "chain.yaml").write_bytes((HERE / "chain.yaml").read_bytes())
        return Chain(folder, data, judge)

    @property
    def results(self) -> Path:
        """Folder of the results."""
        return self.folder / "results" / "chain"

    @property
    def mark(self) -> str:
        """What the environment of all processes of this copy holds, and of no other."""
        return f"{MARK}={self.folder}"

    def environment(self, **more: str) -> dict[str, str]:
        """Of Snakemake and all that it starts."""
        own = dict(pair.split("=", 1) for pair in [self.mark])
        endpoint = {"OPENAI_BASE_URL": self.judge.url, "OPENAI_API_KEY": KEY, "no_proxy": "127.0.0.1"}
        paths = {
            "W2S_PROVE_ROWS": str(self.rows),
            "PYTHONPATH": str(HERE / "moments"),
            "OMP_NUM_THREADS": "1",
        }
        return {**os.environ, "HF_HUB_OFFLINE": "1", **own, **endpoint, **paths, **more}

    def command(self, *arguments: str) -> list[str]:
        """The command line of Snakemake."""
        words = [sys.executable, "-m", "snakemake", "--cores", "2", "--show-failed-logs", *arguments]
        return [*words, "--configfile", *self.overlays]

    def snakemake(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake to its end; stderr goes into stdout."""
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        environment = self.environment(**more)
        return subprocess.run(self.command(*arguments), cwd=self.folder, env=environment, **streams)  # type: ignore[call-overload]

    def start(self, log: Path, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        """Start Snakemake, to be killed."""
        with log.open("wb") as stream:
            return subprocess.Popen(
                self.command(*arguments, "--quiet", "progress"),
                cwd=self.folder,
                env=self.environment(**more),
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        """Of all processes of this copy, jobs and the worker's server too, the numbers."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if f"{self.mark}\0".encode() in (folder / "environ").read_bytes():
                        found.append(int(folder.name))
        return found

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to all processes of this copy, until there are none."""
        for _ in range(1000):
            found = self.processes()
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.poll()
            if not found:
                process.wait(timeout=10)
                return
            time.sleep(0.01)
        raise AssertionError(f"processes {self.processes()} do not end")

    def outcome(self) -> dict[str, bytes]:
        """All that an equal run must have made equal: manifests, figures, tables, scorecards.

        Not the table of costs, which is of times; it is left out of its artifact's manifest too. Nor the digests of the cards,
        which tell of times as well.
        """
        found = {}
        for path in sorted([*self.results.rglob("*"), *(self.folder / "resources").rglob("*")]):
            name = path.relative_to(self.folder).as_posix()
            if path.name == "manifest.json":
                found[name] = without_costs(path.read_bytes())
            elif path.name == CARDS:
                found[name] = without_cards(path.read_text(encoding="utf-8"))
            elif path.suffix in (".csv", ".png", ".pdf") and path.name != COSTS:
                found[name] = path.read_bytes()
        return found

    def leftovers(self) -> list[str]:
        """Temporary files and folders, also while jobs make and remove them."""
        return [
            os.path.relpath(os.path.join(here, name), self.folder)
            for root in ("results", "resources")
            for here, folders, files in os.walk(self.folder / root)
            for name in (*folders, *files)
            if is_temporary(name)
        ]


def without_costs(manifest: bytes) -> bytes:
    """A manifest without the table of costs, and without the digests that it has a part in."""
    content = json.loads(manifest)
    if content["files"].pop(COSTS, None) is None:
        return manifest
    return json.dumps(
        {name: value for name, value in content.items() if name not in ("digest", "seal")}
    ).encode()


def without_cards(index: str) -> bytes:
    """The index of models without the digests of their cards."""
    found = [
        {name: value for name, value in row.items() if name != "card_sha256"}
        for row in csv.DictReader(io.StringIO(index))
    ]
    assert found, "no model is listed"
    return json.dumps(found).encode()


def is_temporary(name: str) -> bool:
    """Whether this is a name of something that must go when its artifact stands."""
    return name.endswith(TEMPORARY) or ".partial" in name or name.startswith((".clock", "lock."))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the rows from outside."""
    folder = tmp_path_factory.mktemp("rows")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return folder


@pytest.fixture(scope="session")
def judge() -> Iterator[Server]:
    """The judge's endpoint."""
    with Server(verdict) as server:
        yield server


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Chain:
    """The chain, run without interruption: what all interrupted ones are compared with."""
    with Server(verdict) as server:
        chain = Chain.make(tmp_path_factory.mktemp("whole") / "repository", data, server)
        done = chain.snakemake("--quiet", "rules")
    assert done.returncode == 0, done.stdout[-8000:]
    return chain
