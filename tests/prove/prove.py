"""All that the README promises about trust, run and counted: `make prove`.

Each section is a set of test files; one pytest process runs each file. A test that tries many generated inputs says how many
(``record_property("cases", n)``), any other is one case. The table is printed and written, with commit, machine and
versions, to ``docs/results/prove.json``; the exit code is 1 if anything failed, or nothing passed. Sections that are not run keep what the file
says of them, with the commit that it was found at.

    python tests/prove/prove.py [--only reruns] [--output docs/results/prove.json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from w2s import artifact  # noqa: E402

# What is proven -> the files that do, each with its number of cases where a test says so.
SECTIONS: dict[str, tuple[str, ...]] = {
    "an edit reruns exactly what it changes": (
        *("unit/test_fingerprint.py", "unit/test_cutoff.py", "workflow/test_reruns.py"),
        *("unit/test_explain.py", "workflow/test_explained.py"),
    ),
    "the same work is done once": (
        "unit/test_store.py",
        "workflow/test_shared_store.py",
        "prove/test_store.py",
    ),
    "a flipped byte is found and named": (
        *("unit/test_artifact.py", "unit/test_verify.py", "workflow/test_flipped.py"),
    ),
    "a number leads back to its data": ("unit/test_lineage.py", "unit/test_provenance.py"),
    "killed at any moment, it ends the same": (
        *(
            "prove/test_kills.py",
            "workflow/test_interrupted.py",
            "unit/test_resume.py",
            "unit/test_interruption.py",
            "unit/test_launch.py",
        ),
    ),
    "torn files are noticed": ("unit/test_torn.py",),
    "ranks and micro batches change nothing": ("prove/test_ranks.py", "unit/test_distributed.py"),
    "a full disk and other faults": (
        "prove/test_faults.py",
        "unit/test_attempts.py",
        "unit/test_judge_store.py",
    ),
    "malformed input is refused or counted": (
        *(
            f"unit/test_malformed_{name}.py"
            for name in ("rows", "config", "models", "replies", "artifacts", "small")
        ),
    ),
    "labels are safe": ("unit/test_label_safety.py",),
    "models from outside are looked through": ("unit/test_model_safety.py",),
    "no file holds a secret": ("unit/test_secrecy.py", "prove/test_secrets.py"),
    "computing needs no network": ("unit/test_isolation.py", "prove/test_network.py"),
    "dependencies are known": ("unit/test_locks.py", "unit/test_audit.py", "unit/test_sbom.py"),
    "others can read where it comes from": (
        *("unit/test_crate.py", "unit/test_cards.py", "workflow/test_exported.py", "prove/test_crate.py"),
    ),
}


@dataclass
class Count:
    """What the tests of a section came to. A case is a test, or one of the inputs that a test says it tried."""

    cases: int = 0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def __add__(self, other: Count) -> Count:
        return Count(
            *(round(getattr(self, field.name) + getattr(other, field.name), 1) for field in fields(self))
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        default="",
        help="sections whose title holds this text; the others keep what the file says of them",
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "prove.json")
    args = parser.parse_args(argv)
    # Asked before the first line is written: what this writes is no local change of what it tried.
    found_with = {
        "date": datetime.now(UTC).date().isoformat(),
        "git": artifact.git_state(),
        "environment": artifact.environment(),
    }
    counts: dict[str, Count] = {}
    print(row("", "cases", "passed", "failed", "skipped", "seconds"), flush=True)
    for title, files in SECTIONS.items():
        if args.only in title:
            counts[title] = sum((prove(ROOT / "tests" / file) for file in files), Count())
            print(row(title, *asdict(counts[title]).values()), flush=True)
            write(title, counts[title], found_with, args.output)
    total = sum(counts.values(), Count())
    print(row("all", *asdict(total).values()))
    return 1 if total.failed or not total.passed else 0


def prove(file: Path) -> Count:
    """Run one test file in a process of its own; its report is read, and its output shown if anything failed."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-q", "-p", "no:cacheprovider", "-rs", "-o", "junit_family=xunit1"]
        words += [f"--junitxml={report}", str(file)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        count = read(report) if report.is_file() else Count(cases=1, failed=1)
    if done.returncode and not count.failed:  # it ended before it could count: an error of the file itself
        count += Count(cases=1, failed=1)
    if count.failed:
        print(done.stdout[-6000:], flush=True)
    count.seconds = round(time.monotonic() - started, 1)
    return count


def read(report: Path) -> Count:
    """The counts of a JUnit report."""
    total = Count()
    for case in ElementTree.parse(report).iter("testcase"):
        tried = [
            int(entry.get("value", "1")) for entry in case.iter("property") if entry.get("name") == "cases"
        ]
        cases = sum(tried) or 1
        if case.find("failure") is not None or case.find("error") is not None:
            total += Count(cases=cases, failed=1)
        elif case.find("skipped") is not None:
            total += Count(cases=1, skipped=1)
        else:
            total += Count(cases=cases, passed=cases)
    return total


def write(title: str, count: Count, found_with: Mapping[str, Any], path: Path) -> None:
    """Write what a section came to, and what it was found with, beside what is known of the others."""
    known = json.loads(path.read_text(encoding="utf-8"))["sections"] if path.is_file() else {}
    known[title] = {
        "files": [f"tests/{file}" for file in SECTIONS[title]],
        **asdict(count),
        **found_with,
    }
    sections = {name: known[name] for name in SECTIONS if name in known}
    names = [field.name for field in fields(Count)]
    total = sum((Count(**{name: entry[name] for name in names}) for entry in sections.values()), Count())
    artifact.write_json({"total": asdict(total), "sections": sections}, path)


def row(title: str, *values: object) -> str:
    """A line of the table."""
    return f"{title:44}" + "".join(f"{value:>9}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
