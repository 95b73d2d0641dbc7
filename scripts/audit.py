"""Ask a database of vulnerabilities about every package that the locks pin.

Nothing is installed or resolved: pip-audit reads the pins, and the database (OSV, or a mirror that speaks its protocol)
is told their names and versions. A build's local part is left out of the question: OSV knows torch 2.13.0, and of
2.13.0+cpu it would say that nothing is known.

    ./w2s audit                  # all locks; exit code 1 if a vulnerability is known
    ./w2s audit envs/light.txt --osv-url https://osv.example/v1/query

W2S_OSV_URL is the default of --osv-url. pip-audit comes from envs/audit.txt (`make .venv-audit/installed-audit`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from w2s import cli
from w2s.errors import DataError, EnvironmentProblem
from w2s.handles import ROOT

OSV = "https://api.osv.dev/v1/query"
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", re.MULTILINE)
SHOWN = 500
Pins = dict[str, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Audit the locks and print a table; 1 if a vulnerability is known, 2 if it could not be asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("locks", nargs="*", type=Path, help="locks; default: all of envs/")
    parser.add_argument("--osv-url", default=os.environ.get("W2S_OSV_URL") or OSV, help="where to ask")
    parser.add_argument(
        "--pip-audit", type=Path, default=None, help="the program; default: .venv-audit, then PATH"
    )
    args = parser.parse_args(argv)
    # Two given locks may have one file name; those of the checkout cannot.
    locks = {str(path): pins(path) for path in args.locks} or {
        path.stem: pins(path) for path in sorted((ROOT / "envs").glob("*.txt"))
    }
    known = ask(program(args.pip_audit), locks.values(), args.osv_url)
    print(table(locks, known), end="")
    return int(any(known.get(pin) for found in locks.values() for pin in found.items()))


def pins(lock: Path) -> Pins:
    """Package -> version of a lock, without the local part of a version.

    Raises:
        DataError: no such lock, or one without pins.
    """
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    found = {name: version.partition("+")[0] for name, version in PIN.findall(text)}
    if not found:
        raise DataError("not a lock: there are no pins", where=lock, instead="a file such as envs/light.txt")
    return found


def program(given: Path | None) -> Path:
    """Where pip-audit is.

    Raises:
        EnvironmentProblem: nowhere.
    """
    own = ROOT / ".venv-audit" / "bin" / "pip-audit"
    found = given or (own if own.is_file() else shutil.which("pip-audit"))
    if found is None or not os.access(found, os.X_OK):
        raise EnvironmentProblem(
            "pip-audit is not installed", where=given or own, instead="make .venv-audit/installed-audit"
        )
    return Path(found)


def ask(pip_audit: Path, locks: Iterable[Pins], osv_url: str) -> dict[tuple[str, str], list[str]]:
    """(package, version) -> ids of its known vulnerabilities; each pair is asked about once.

    Raises:
        EnvironmentProblem: there was no answer, or not on everything that was asked.
    """
    asked = sorted({pin for found in locks for pin in found.items()})
    with tempfile.TemporaryDirectory() as folder:
        words = [
            str(pip_audit),
            "--vulnerability-service",
            "osv",
            "--osv-url",
            osv_url,
            "--no-deps",
            "--disable-pip",
        ]
        words += ["--format", "json", "--progress-spinner", "off", "--cache-dir", f"{folder}/cache"]
        for number, batch in enumerate(batches(asked)):
            path = Path(folder) / f"{number}.txt"
            path.write_text("".join(f"{name}=={version}\n" for name, version in batch), encoding="utf-8")
            words += ["--requirement", str(path)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        answers = json.loads(done.stdout)["dependencies"]
        known = {
            (each["name"], each["version"]): [one["id"] for one in each["vulns"]]
            for each in answers
            if "vulns" in each
        }
    except (ValueError, KeyError, TypeError):
        known = {}
    missing = [f"{name} {version}" for name, version in asked if (canonical(name), version) not in known]
    if missing:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1][:SHOWN]
        raise EnvironmentProblem(
            f"no answer about {len(missing)} of {len(asked)} packages ({missing[0]}, ...): {said}",
            where=osv_url,
            instead="run it where there is network, or name a mirror: W2S_OSV_URL=<address>/v1/query",
        )
    return {(name, version): known[canonical(name), version] for name, version in asked}


def batches(asked: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """As few lists as possible that hold no package twice, which pip-audit refuses within a file."""
    found: list[dict[str, str]] = []
    for name, version in asked:
        place = next((batch for batch in found if name not in batch), None)
        if place is None:
            found.append(place := {})
        place[name] = version
    return [list(batch.items()) for batch in found]


def canonical(name: str) -> str:
    """A package's name as the index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def table(locks: Mapping[str, Pins], known: Mapping[tuple[str, str], list[str]]) -> str:
    """A line for each lock, with the packages that something is known of."""
    width = max(12, *map(len, locks))
    lines = [f"{'lock':<{width}} {'packages':>8}  known vulnerabilities"]
    for name, found in locks.items():
        said = [f"{pin[0]} {pin[1]}: {', '.join(known[pin])}" for pin in found.items() if known.get(pin)]
        lines.append(f"{name:<{width}} {len(found):>8}  {'; '.join(said) or 'none'}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cli.run(main)
