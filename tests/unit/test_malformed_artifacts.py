"""Manifests, run records and tables of artifacts that are damaged, or of another form under a seal that fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import reject
from hypothesis import strategies as st
from strategies import Record, anything, changed, damaged, refusal, refused_or, tried
from tiny import as_artifact
from w2s.artifact import MANIFEST, RUN_RECORD, SEAL, Artifact, load, restore, sealed, verify
from w2s.provenance import ancestry, dates, environment_rows, settings_rows
from w2s.tables import read_parquet, write_parquet

pytestmark = pytest.mark.usefixtures("quick_records")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """An artifact with a parent; beside it a file that it does not own."""
    (tmp_path / "elsewhere.txt").write_text("not of the artifact\n")
    parent = as_artifact(tmp_path / "parent", lambda folder: (folder / "a.txt").write_text("a\n"))
    with Artifact.create(
        tmp_path / "child" / MANIFEST,
        spec={"part": "x"},
        parents={"one": parent, "many": [parent]},
        script=__file__,
    ) as draft:
        draft.path("b.txt").write_text("b\n")
        draft.record(rows=1)
    return tmp_path / "child" / MANIFEST


def used(manifest: Path, folder: Path) -> bool:
    """What stages and tools do with an artifact; True is never None."""
    artifact = load(manifest)
    assert (
        isinstance(artifact.digest, str)
        and isinstance(artifact.spec, dict)
        and isinstance(artifact.facts, dict)
    )
    for name in artifact.manifest["files"]:
        assert artifact.path(name).resolve().is_relative_to(artifact.folder.resolve())
    found = ancestry([manifest]).artifacts
    environment_rows(found), settings_rows(found), dates(found)
    with Artifact.create(folder / MANIFEST, spec={}, parents={"parent": manifest}, script=__file__):
        pass
    return True


@pytest.mark.parametrize("name", [MANIFEST, RUN_RECORD])
def test_a_damaged_record(manifest: Path, tmp_path: Path, record_property: Record, name: str) -> None:
    path = manifest.with_name(name)
    whole = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        found = refused_or(lambda: used(manifest, tmp_path / "next"), str(manifest.parent))
        assert found is None or json.loads(content) == json.loads(whole)

    tried(record_property, damaged(whole), 60, check)


@pytest.mark.parametrize("name", [MANIFEST, RUN_RECORD])
def test_an_edited_record(manifest: Path, tmp_path: Path, record_property: Record, name: str) -> None:
    """Any other value anywhere, the seal as it was."""
    path = manifest.with_name(name)
    whole = json.loads(path.read_text())

    def check(content: Any) -> None:
        path.write_text(json.dumps(content), encoding="utf-8")
        refusal(lambda: used(manifest, tmp_path / "next"), str(manifest.parent))

    equal = json.dumps(whole, sort_keys=True)
    edits = changed(whole).filter(lambda other: json.dumps(other, sort_keys=True) != equal)
    tried(record_property, edits, 60, check)


@pytest.mark.parametrize("name", [MANIFEST, RUN_RECORD])
def test_a_record_of_another_form_under_a_seal_that_fits(
    manifest: Path, tmp_path: Path, record_property: Record, name: str
) -> None:
    """What another version or another program wrote: usable as it is, or refused by name."""
    path = manifest.with_name(name)
    whole = {key: value for key, value in json.loads(path.read_text()).items() if key != SEAL}

    def check(content: Any) -> None:
        try:
            path.write_text(json.dumps(sealed(content)), encoding="utf-8")
        except (ValueError, AttributeError):  # no seal can be put on it
            reject()
        refused_or(lambda: used(manifest, tmp_path / "next"), str(manifest.parent))

    tried(
        record_property,
        changed(whole) | st.dictionaries(st.text(max_size=3), anything, max_size=2),
        120,
        check,
    )


@pytest.mark.parametrize(
    "name",
    ["../elsewhere.txt", "/etc/hostname", "sub/../../elsewhere.txt", "", ".", "sub/", "a//b", "run.json"],
)
def test_a_file_beyond_the_folder(manifest: Path, tmp_path: Path, name: str) -> None:
    """A manifest cannot make a stage read, nor verify approve, what is not in its folder."""
    whole = json.loads(manifest.read_text())
    whole["files"][name] = whole["files"]["b.txt"]
    manifest.write_text(json.dumps(sealed(whole)), encoding="utf-8")
    refusal(lambda: load(manifest).path(name), str(manifest.parent))
    refusal(lambda: verify(manifest), str(manifest.parent))


GONE = object()  # in place of a value: without the key


def resealed(path: Path, **changes: object) -> None:
    """Other values under a seal that fits."""
    whole = json.loads(path.read_text()) | changes
    kept = {key: value for key, value in whole.items() if value is not GONE}
    path.write_text(json.dumps(sealed(kept)), encoding="utf-8")


KINDS = ("gone", "no text", "a list", "another mapping")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_one_of_several_parents_is_checked(manifest: Path, place: int) -> None:
    entries = [{"path": "../parent/manifest.json", "digest": "0"} for _ in range(3)]
    del entries[place]["digest"]
    resealed(manifest, parents={"many": entries})
    refusal(lambda: load(manifest), "parents.digest is missing")


@pytest.mark.parametrize("name", ["wall_s", "peak_memory_mb", "sources", "code"])
@pytest.mark.parametrize("value", [GONE, True, [1], {"a.py": 1}], ids=KINDS)
def test_a_run_record_holds_what_tools_rely_on(manifest: Path, name: str, value: object) -> None:
    """Costs, crates, cards and explanations read these of every artifact that is loaded."""
    resealed(manifest.with_name(RUN_RECORD), **{name: value})
    refusal(lambda: load(manifest), f"of another form: {name}")


@pytest.mark.parametrize("value", [GONE, 1, [1], {"stage": "x"}], ids=KINDS)
def test_a_run_record_without_its_manifest_restores_nothing(manifest: Path, value: object) -> None:
    """The stage is run then: that a former artifact cannot be taken over is no fault of its work."""
    manifest.unlink()
    resealed(manifest.with_name(RUN_RECORD), key="this", manifest=value)
    assert restore(manifest, "this") is False
    assert not manifest.exists()


TABLE = pd.DataFrame({"id": ["a", "b"], "label": [0, 1]})


def test_a_damaged_table(tmp_path: Path, record_property: Record) -> None:
    path = tmp_path / "table.parquet"
    write_parquet(TABLE, path)
    whole = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        found = refused_or(lambda: read_parquet(path, ["id", "label"]), "table.parquet")
        assert found is None or list(found.columns) == ["id", "label"]

    tried(record_property, damaged(whole), 80, check)
