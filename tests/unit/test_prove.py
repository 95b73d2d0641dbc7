"""The counting of the proofs (tests/prove/prove.py): when it fails, and what of the file it replaces."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROVE = Path(__file__).resolve().parents[1] / "prove" / "prove.py"


@pytest.fixture
def prove(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, as a module."""
    spec = importlib.util.spec_from_file_location("prove", PROVE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "prove", module)
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("count", "code"),
    [
        ({"cases": 3, "passed": 3}, 0),
        ({"cases": 3, "passed": 2, "skipped": 1}, 0),
        ({"cases": 2, "skipped": 2}, 1),
        ({"cases": 3, "passed": 2, "failed": 1}, 1),
        ({}, 1),
    ],
)
def test_it_fails_where_anything_failed_or_nothing_passed(
    prove: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: dict[str, int], code: int
) -> None:
    monkeypatch.setattr(prove, "prove", lambda file: prove.Count(**count))
    assert prove.main(["--only", "torn files", "--output", str(tmp_path / "prove.json")]) == code


def test_a_run_of_some_sections_keeps_what_is_known_of_the_others(
    prove: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = tmp_path / "prove.json"
    for section, passed in (("torn files", 5), ("labels are safe", 7), ("torn files", 6)):
        found = prove.Count(cases=passed, passed=passed)
        monkeypatch.setattr(prove, "prove", lambda file, found=found: found)
        assert prove.main(["--only", section, "--output", str(output)]) == 0
    known = json.loads(output.read_text())
    assert {title: entry["passed"] for title, entry in known["sections"].items()} == {
        "torn files are noticed": 6,
        "labels are safe": 7,
    }
    assert known["total"]["passed"] == 13
