"""The demo in a minute: its whole chain with the real trainers, one seed, few steps, and a judge behind an endpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from clones import copy_sources

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))  # the judge's server

OVERLAY = """
preset: small
run: [small]
runtime: {isolate_network: %s}
worlds:
  demo: {seed: 7, pairs: 400, test_prompts: 24}
corpora:
  demo: {world: demo, texts: 1200, seed: 11}
models:
  demo-s: {pretrain: {steps: 20}}
  demo-k: {pretrain: {steps: 20}}
judges:
  endpoint: {model: judge-2026-01-01, concurrency: 2, attempts: 2, max_tokens: 64}
evaluations:
  demo: {prompts: 24, temperature: 0.7, max_new_tokens: 24, golds: [exact]}
experiments:
  small:
    data: [world-t2]
    shares: [1/2]
    seeds: [1]
    students: [demo-k]
    feedback: [human, weak-demo-s]
    recipes: [demo-student]
    evaluation: demo
    comparison: {judge: endpoint, prompts: 8}
"""


def prepare(folder: Path, isolated: bool) -> Path:
    """A copy of the repository's own files with the small preset."""
    copy_sources(folder)
    (folder / "small.yaml").write_text(OVERLAY % str(isolated).lower())
    (folder / "tmp").mkdir()
    return folder


def run(
    folder: Path, *words: str, before: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the small demo to its end; what it prints is kept in the folder, too, as a user's terminal would."""
    command = [*before, sys.executable, "-m", "snakemake", "--cores", "2", "--show-failed-logs"]
    command += ["--configfile", "presets/demo.yaml", "small.yaml", "--rerun-incomplete", *words]
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    clean |= {"TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    clean.pop("XDG_RUNTIME_DIR", None)
    done = subprocess.run(
        command,
        cwd=folder,
        env=clean | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with (folder / "terminal.log").open("a") as log:
        log.write(done.stdout)
    return done
