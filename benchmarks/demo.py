"""The demo preset end to end against itself at another commit, in clones of this repository.

Both run in turn, from nothing, with the environment that this program runs in (both commits must be able to use it). The time
is that of ``snakemake`` alone. Minutes per side and round.

    python benchmarks/demo.py --before COMMIT
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import measure

TARGET = 1.5
ROOT = Path(__file__).resolve().parent.parent


def clone(commit: str, folder: Path) -> str:
    """A checkout of ``commit``; returns its full hash."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "checkout", "--quiet", "--detach", commit], check=True)
    named = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(named, capture_output=True, text=True, check=True).stdout.strip()


def demo(folder: Path, cores: int) -> int:
    """Run it; returns the number of artifacts that it made."""
    for name in ("results", "resources", ".snakemake"):
        shutil.rmtree(folder / name, ignore_errors=True)
    snakemake = Path(sys.executable).with_name("snakemake")
    words = [str(snakemake), "--cores", str(cores), "--configfile", "presets/demo.yaml", "--quiet", "all"]
    with (folder / "demo.log").open("w") as log:
        done = subprocess.run(words, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit((folder / "demo.log").read_text()[-4000:])
    return len(list((folder / "results").rglob("manifest.json")))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Both commits in turn; the result as it is written."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folders = {side: Path(name) / side for side in ("ours", "theirs")}
        commits = {"ours": clone("HEAD", folders["ours"]), "theirs": clone(args.before, folders["theirs"])}
        found = measure.interleaved(
            args.rounds,
            {side: lambda folder=folder: demo(folder, cores) for side, folder in folders.items()},
        )
    times = measure.ratio(found["ours"], found["theirs"])
    return {
        "name": "demo",
        "ours": round(median(found["ours"].seconds), 1),
        "theirs": round(median(found["theirs"].seconds), 1),
        "unit": "s, less is better",
        "ratio": round(times, 2),
        "target": TARGET,
        "met": times >= TARGET,
        "commits": commits,
        "artifacts": {side: found[side].made[0] for side in found},
        "cores": cores,
        "rounds": args.rounds,
        "seconds": {side: [round(s, 1) for s in found[side].seconds] for side in found},
        "environment": measure.environment(),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", required=True, help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="where the clones go for a while; default: the system's own"
    )
    measure.write(run(parser.parse_args()))


if __name__ == "__main__":
    main()
