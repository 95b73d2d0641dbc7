"""Copies of the repository, Snakemake in them, and copies that share an artifact store, one of them another user's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from w2s import store
from w2s.artifact import load_run

ROOT = Path(__file__).resolve().parent.parent
NOBODY = 65534


def copy_sources(target: Path, without: tuple[str, ...] = ("tests/", "docs/")) -> Path:
    """The repository's own files, committed or not, without anything made and without some folders."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        # One that is deleted, but not yet committed so, is still listed.
        if not name.startswith(without) and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def snakemake(
    folder: Path, *arguments: str, overlays: Sequence[str], cores: int = 2, **environment: str
) -> str:
    """Run Snakemake in a copy with these configuration files, insist on success, and return what it printed."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--show-failed-logs", *arguments]
    result = subprocess.run(
        [*command, "--configfile", *overlays],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert result.returncode == 0, result.stdout[-8000:]
    return result.stdout


def as_another_user() -> list[str]:
    """What to put before a command so that another user runs it; nothing where that cannot be.

    Where the interpreter lies in a folder that only root may enter, that user may read all files.
    """
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        return []
    words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if all(folder.stat().st_mode & 0o001 for folder in Path(sys.executable).resolve().parents):
        return words
    words += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return words if subprocess.run([*words, "true"], capture_output=True).returncode == 0 else []


def give_away(folder: Path) -> None:
    """Make another user the owner of all that lies in a folder."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


@dataclass
class Clone:
    """A copy of the repository in a folder of its own, and how Snakemake is run in it.

    Attributes:
        store: the artifact store.
        overlays: its configuration files.
        environment: of its processes.
        before: what comes before the command.
    """

    folder: Path
    store: Path
    overlays: Sequence[str]
    environment: dict[str, str]
    before: Sequence[str] = ()

    def run(self, *arguments: str, shared: bool = True) -> float:
        """Run Snakemake, with the store or without, and insist on success; returns the seconds it took."""
        environment = {**self.environment, store.VARIABLE: str(self.store) if shared else ""}
        environment |= {"XDG_CACHE_HOME": str(self.folder / ".cache"), "HOME": str(self.folder)}
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--cores",
            "2",
            *arguments,
            "--configfile",
            *self.overlays,
        ]
        started = time.monotonic()
        done = subprocess.run(
            [*self.before, *command],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        logs = [path for path in self.folder.glob("re*/**/*.log") if "rror" in path.read_text()]
        assert done.returncode == 0, done.stdout + "".join(path.read_text() for path in logs[:3])
        return time.monotonic() - started

    def manifests(self) -> dict[str, Path]:
        """Place -> manifest of all artifacts."""
        found = [
            *self.folder.glob("results/**/manifest.json"),
            *self.folder.glob("resources/**/manifest.json"),
        ]
        return {str(path.relative_to(self.folder)): path for path in found}

    def computed(self) -> set[str]:
        """Places of the artifacts that were made here."""
        return {place for place, path in self.manifests().items() if "fetched" not in load_run(path)}
