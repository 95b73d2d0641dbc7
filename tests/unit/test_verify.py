"""From a result back to the raw data: every altered file is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import verify
from w2s.artifact import Artifact


def make(folder: Path, content: str, parents: dict[str, Path]) -> Path:
    manifest = folder / "manifest.json"
    with Artifact.create(manifest, spec={}, parents=parents, script=__file__) as artifact:
        artifact.path("content.txt").write_text(content)
    return manifest


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    """raw -> table -> figure."""
    raw = make(tmp_path / "raw", "raw", {})
    table = make(tmp_path / "table", "table", {"raw": raw})
    return [raw, table, make(tmp_path / "figure", "figure", {"tables": table})]


def test_untouched_chain_is_verified(chain: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(chain[-1])]) == 0
    assert "3 artifacts verified, 0 problems" in capsys.readouterr().out


@pytest.mark.parametrize("altered", [0, 1, 2])
def test_each_altered_file_is_found(
    chain: list[Path], altered: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (chain[altered].parent / "content.txt").write_text("other")
    assert verify.main([str(chain[-1])]) == 2
    output = capsys.readouterr().out
    assert str(chain[altered].parent) in output
    assert "altered" in output


def test_an_ancestor_made_again_with_other_content_is_found(
    chain: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    make(chain[0].parent, "other raw", {})
    assert verify.main([str(chain[-1])]) == 2
    assert "made again" in capsys.readouterr().out


def test_a_missing_ancestor_is_found(chain: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    chain[0].unlink()
    assert verify.main([str(chain[-1])]) == 2
    assert "not there" in capsys.readouterr().out
