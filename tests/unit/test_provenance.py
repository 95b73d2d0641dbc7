"""Walking from a result to raw data, and what the artifacts on the way say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from w2s import provenance
from w2s.artifact import Artifact, sealed
from w2s.errors import ArtifactError


def make(path: Path, parents: list[Path], **spec) -> Path:
    with Artifact.create(path, spec=spec, parents={"parents": parents}, script="stage.py") as artifact:
        artifact.path("x.txt").write_text(str(spec), encoding="utf-8")
    return path


@pytest.fixture
def chain(tmp_path):
    """raw -> two middles -> top."""
    raw = make(tmp_path / "raw" / "manifest.json", [], seed=0)
    middles = [make(tmp_path / f"m{rate}" / "manifest.json", [raw], rate=rate) for rate in (0.5, 10)]
    return make(tmp_path / "top" / "manifest.json", middles, seed=3), raw, middles


def test_each_artifact_is_met_once(chain):
    top, raw, middles = chain
    found = provenance.ancestry([top, middles[0]])
    assert sorted(item.folder.name for item in found.artifacts) == ["m0.5", "m10", "raw", "top"]
    assert found.gone == []


def test_a_parent_that_was_cleaned_away_is_listed(chain):
    top, raw, _ = chain
    shutil.rmtree(raw.parent)
    assert provenance.ancestry([top]).gone == [raw.resolve()]


def test_the_result_itself_must_be_there(tmp_path):
    with pytest.raises(ArtifactError, match="not there"):
        provenance.ancestry([tmp_path / "none" / "manifest.json"])


def test_environment_names_differences_with_their_counts(chain):
    top, raw, _ = chain
    record = raw.with_name("run.json")
    run = json.loads(record.read_text(encoding="utf-8"))
    run["environment"].update(gpus=["H200", "H200"], python="3.12.0")
    record.write_text(json.dumps(sealed(run)), encoding="utf-8")
    rows = dict(provenance.environment_rows(provenance.ancestry([top]).artifacts))
    assert "2 × H200 (1 job)" in rows["GPU"]
    assert "3.12.0 (1 job)" in rows["Python"]
    assert len(rows["Processor"]) == 1
    assert any(library.startswith("pandas ") for library in rows["Libraries"])


@pytest.mark.parametrize(
    ("git", "words"),
    [
        ({"commit": "a1" * 20, "dirty": False}, "a1" * 20),
        ({"commit": "a1" * 20, "dirty": True}, "a1" * 20 + " with local changes"),
        (None, "not in git"),
    ],
)
def test_a_commit_in_words(git, words):
    assert provenance.commit(git) == words
    assert provenance.commit(git, 12) == words.replace("a1" * 20, "a1" * 6)


def test_settings_list_distinct_values_in_numeric_order(chain):
    top, _, _ = chain
    rows = provenance.settings_rows(provenance.ancestry([top]).artifacts)
    (stage, count, settings) = rows[0]
    assert (stage, count) == ("stage", 4)
    assert dict(settings)["rate"] == "0.5 | 10"
    assert dict(settings)["seed"] == "0 | 3"
