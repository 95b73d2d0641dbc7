"""The audit of the locks: what is asked, what is said, and that silence is no good news."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import audit
import pytest
from judge_server import Server
from w2s.errors import DataError, EnvironmentProblem

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "envs").glob("*.txt"))
LOCK = "one==1.0 \\\n    --hash=sha256:{0}\ntwo-parts==2.0+cpu \\\n    --hash=sha256:{0}\n".format("a" * 64)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A lock of two packages, one of them a build of its own."""
    path = tmp_path / "small.txt"
    path.write_text(LOCK)
    return path


@pytest.fixture
def make_program(tmp_path: Path) -> Callable[..., Path]:
    """``make_program(answer, code=0)`` -> a stand-in for pip-audit that keeps what it is asked."""

    def make(answer: object, code: int = 0) -> Path:
        path = tmp_path / "pip-audit"
        text = answer if isinstance(answer, str) else json.dumps(answer)
        path.write_text(
            f"#!{sys.executable}\nimport pathlib, sys\n"
            "asked = [pathlib.Path(b).read_text() for a, b in zip(sys.argv, sys.argv[1:]) if a == '--requirement']\n"
            f"pathlib.Path({str(tmp_path / 'asked')!r}).write_text('---\\n'.join(asked))\n"
            f"print({text!r})\nprint('a warning\\nthe reason', file=sys.stderr)\nsys.exit({code})\n"
        )
        path.chmod(0o755)
        return path

    return make


def answer(**vulnerable: list[str]) -> dict[str, Any]:
    """What pip-audit prints of LOCK."""
    pins = {"one": "1.0", "two-parts": "2.0"}
    ids = {name.replace("_", "-"): found for name, found in vulnerable.items()}
    return {
        "dependencies": [
            {"name": name, "version": version, "vulns": [{"id": one} for one in ids.get(name, [])]}
            for name, version in pins.items()
        ]
    }


def test_nothing_is_known(lock: Path, make_program: Callable[..., Path], capsys: Any, tmp_path: Path) -> None:
    assert audit.main([str(lock), "--pip-audit", str(make_program(answer()))]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [str(lock), "2", "none"]
    assert (tmp_path / "asked").read_text() == "one==1.0\ntwo-parts==2.0\n"


def test_what_is_known_is_named_and_is_a_failure(
    lock: Path, make_program: Callable[..., Path], capsys: Any
) -> None:
    told = make_program(answer(two_parts=["PYSEC-1", "PYSEC-2"]), code=1)
    assert audit.main([str(lock), "--pip-audit", str(told)]) == 1
    assert "two-parts 2.0: PYSEC-1, PYSEC-2" in capsys.readouterr().out


def test_locks_of_one_file_name_are_all_asked_about(
    lock: Path, make_program: Callable[..., Path], capsys: Any, tmp_path: Path
) -> None:
    """What is known of the first counts, whatever the last one of its name holds."""
    other = tmp_path / "newer" / lock.name
    other.parent.mkdir()
    other.write_text("one==1.0\n")
    told = make_program(answer(two_parts=["PYSEC-1"]))
    assert audit.main([str(lock), str(other), "--pip-audit", str(told)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [str(lock), str(other)]
    assert "PYSEC-1" in lines[1] and "none" in lines[2]


@pytest.mark.parametrize(
    "said",
    ["", "{}", '{"dependencies": [{"name": "one"}]}', {"dependencies": answer()["dependencies"][:1]}],
    ids=["nothing", "no list", "no versions", "half"],
)
def test_silence_is_no_good_news(said: object, lock: Path, make_program: Callable[..., Path]) -> None:
    """Whatever the exit code: a package without an answer has not been audited."""
    with pytest.raises(EnvironmentProblem, match=r"(?s)two-parts 2\.0|one 1\.0.*the reason") as caught:
        audit.main([str(lock), "--pip-audit", str(make_program(said))])
    assert "the reason" in str(caught.value) and "W2S_OSV_URL" in str(caught.value)


def test_versions_that_differ_between_locks_are_asked_apart() -> None:
    found = audit.batches([("a", "1"), ("a", "2"), ("b", "1")])
    assert found == [[("a", "1"), ("b", "1")], [("a", "2")]]


def test_every_lock_is_read_whole() -> None:
    for path in LOCKS:
        found = audit.pins(path)
        assert len(found) == sum("==" in line for line in path.read_text().splitlines())
        assert not any("+" in version or "\\" in version for version in found.values())
    assert audit.pins(ROOT / "envs" / "ml-cpu.txt")["torch"] == "2.13.0"


def test_wrong_calls_say_what_to_do(tmp_path: Path, lock: Path) -> None:
    with pytest.raises(DataError, match="not a lock"):
        audit.main([str(tmp_path / "none.txt")])
    with pytest.raises(EnvironmentProblem, match="make .venv-audit/installed-audit"):
        audit.main([str(lock), "--pip-audit", str(tmp_path / "none")])


# --- the real pip-audit and a database of one vulnerability ---------------------------------------------------------


@pytest.fixture
def real() -> Path:
    """The real program, or a skip."""
    try:
        folder = os.environ.get("W2S_AUDIT_BIN")
        return audit.program(Path(folder, "pip-audit") if folder else None)
    except EnvironmentProblem:
        pytest.skip(
            "no pip-audit: `make .venv-audit/installed-audit`, or W2S_AUDIT_BIN=<its folder of programs>"
        )


class Osv(Server):
    """Speaks OSV's protocol and knows of one vulnerability."""

    def reply(self, method: str, path: str, content: bytes) -> tuple[int, dict[str, Any]]:
        """See the base class."""
        asked = json.loads(content)
        name = asked["package"]["name"]
        if (name, asked["version"]) != ("two-parts", "2.0"):
            return 200, {}
        affected = {"package": {"name": name, "ecosystem": "PyPI"}, "versions": ["2.0"]}
        return 200, {"vulns": [{"id": "TEST-2026-1", "summary": "planted", "affected": [affected]}]}


def audited(real: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "audit.py"), *map(str, words), "--pip-audit", str(real)]
    clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return subprocess.run(command, capture_output=True, text=True, env=clean | environment)


@pytest.mark.slow
def test_a_planted_vulnerability_is_found(real: Path, lock: Path) -> None:
    """By the real pip-audit, in a build with a local version, through the variable that names a mirror."""
    with Osv() as server:
        done = audited(real, lock, W2S_OSV_URL=f"{server.url}/query")
        assert len(server.requests) == 2
    assert done.returncode == 1, done.stderr
    assert "two-parts 2.0: TEST-2026-1" in done.stdout


@pytest.mark.slow
def test_without_a_network_there_is_no_verdict(real: Path, lock: Path) -> None:
    with Osv() as server:
        closed = server.url
    done = audited(real, lock, "--osv-url", f"{closed}/query")
    assert done.returncode == 2
    assert "error: no answer about 2 of 2 packages" in done.stderr and "Traceback" not in done.stderr
    assert "none" not in done.stdout
