"""The demo's chain with real trainings, in two clones and by two users: the second computes nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clones import NOBODY, Clone, as_another_user, copy_sources, give_away
from w2s.artifact import load_run, verify

OVERLAYS = ("presets/demo.yaml", "tests/cluster/small.yaml")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def clone(folder: Path, store: Path, before: list[str]) -> Clone:
    """A copy of the repository's own files; with ``before``, another user's."""
    copy_sources(folder, without=())
    if before:
        give_away(folder)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return Clone(folder, store, OVERLAYS, environment, before)


def test_a_second_user_computes_nothing(place: Path, record_property: Callable[[str, object], None]) -> None:
    store = place / "store"
    store.mkdir()
    first = clone(place / "first", store, [])
    seconds = first.run()
    assert first.computed() == set(first.manifests())
    trained = [path for path in first.manifests() if "/students/" in path or "/teachers/" in path]
    assert len(trained) > 5
    second = clone(place / "second", store, as_another_user())
    seconds_too = second.run()
    theirs, ours = first.manifests(), second.manifests()
    assert second.computed() == set() and ours.keys() == theirs.keys()
    for name, manifest in ours.items():
        verify(manifest)
        assert manifest.read_bytes() == theirs[name].read_bytes(), name
        assert load_run(manifest)["wall_s"] == load_run(theirs[name])["wall_s"]
        assert not second.before or manifest.stat().st_uid == NOBODY
    report = "results/small/report.html"
    assert (first.folder / report).is_file() and (second.folder / report).is_file()
    assert seconds_too < seconds
    record_property("cases", len(ours))
    record_property("first_s", round(seconds, 1))
    record_property("second_s", round(seconds_too, 1))
    print(f"{len(ours)} artifacts: {seconds:.1f} s, then {seconds_too:.1f} s")
