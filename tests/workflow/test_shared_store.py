"""Two clones and a store between them: what the first has made, the second fetches, as another user if it can.

Stand-ins make the heavy artifacts; each writes down that it ran. What is no artifact, figures and pages, is drawn again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clones import NOBODY, Clone, as_another_user, give_away
from w2s import store
from w2s.artifact import load, load_run, verify

if TYPE_CHECKING:
    from conftest import Workflow

ONE_STUDENT = "experiments: {a_figure_2a: {students: [opt-1.3b]}}\n"


pytestmark = pytest.mark.prove


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that other users may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def make_clone(place: Path, make_workflow: Callable[..., Workflow]) -> Callable[..., Clone]:
    """``make_clone("name", another_user=False)`` -> a clone of its own with the common store."""
    from conftest import environment
    from fakes import FAKE_RUN

    source = make_workflow(fakes=True, preset="paper-a", overlay=FAKE_RUN + ONE_STUDENT)
    poison = shutil.copytree(source.poison, place / "poison", ignore=shutil.ignore_patterns("cache"))
    (place / "store").mkdir()

    def make(name: str, another_user: bool = False) -> Clone:
        folder = place / name / "repository"
        shutil.copytree(source.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
        before = as_another_user() if another_user else []
        if before:
            give_away(folder.parent)
        return Clone(folder, place / "store", source.overlays, environment(poison), before)

    return make


@pytest.fixture(scope="module")
def first(make_clone: Callable[..., Clone]) -> tuple[Clone, float]:
    """A clone that has run, all of it published; and its seconds."""
    clone = make_clone("first")
    return clone, clone.run()


@pytest.fixture(scope="module")
def second(first: tuple[Clone, float], make_clone: Callable[..., Clone]) -> tuple[Clone, float]:
    """Another's clone that has run after it; and its seconds."""
    clone = make_clone("second", another_user=True)
    return clone, clone.run()


def test_the_first_publishes_all_that_it_makes(first: tuple[Clone, float]) -> None:
    clone, _ = first
    manifests = clone.manifests()
    assert len(manifests) > 20
    for manifest in manifests.values():
        key = load_run(manifest)["key"]
        store.check(store.place(clone.store, key) / "manifest.json", key)
        assert store.place(clone.store, key).joinpath("manifest.json").read_bytes() == manifest.read_bytes()
    assert clone.computed() == set(manifests)


def test_the_second_fetches_all_and_computes_nothing(
    first: tuple[Clone, float], second: tuple[Clone, float], record_property: Callable[[str, object], None]
) -> None:
    (one, seconds), (two, seconds_too) = first, second
    assert two.computed() == set()
    theirs, ours = one.manifests(), two.manifests()
    assert ours.keys() == theirs.keys()
    for place, manifest in ours.items():
        assert manifest.read_bytes() == theirs[place].read_bytes(), place
        verify(manifest)
        if two.before:
            assert {path.stat().st_uid for path in (manifest, manifest.parent)} == {NOBODY}
        assert load(manifest).run["started"] == load(theirs[place]).run["started"], "who made it is kept"
    logs = "".join(path.read_text() for path in two.folder.glob("re*/**/*.log"))
    assert logs.count("was fetched from") == len(ours)
    assert "Traceback" not in logs and "WARNING" not in logs
    for page in ("report.html", "scorecard/paper-a.html"):
        assert (two.folder / "results/paper-a" / page).is_file() == (
            one.folder / "results/paper-a" / page
        ).is_file()
    assert len(list(two.folder.glob("results/paper-a/figures/*.png"))) == 2, "drawn here"
    record_property("cases", len(ours))
    record_property("seconds", f"{seconds:.1f}, then {seconds_too:.1f}")


CELL = "hh-helpful/1-of-2/seed-22"
SPLIT = f"results/paper-a/splits/{CELL}/manifest.json"
LABELS = f"results/paper-a/labels/{CELL}/unlabelled/weak-opt-125m/manifest.json"


def records(clone: Clone) -> dict[str, bytes]:
    """Place -> run record: another where a stage has computed or fetched."""
    return {place: path.with_name("run.json").read_bytes() for place, path in clone.manifests().items()}


def test_jobs_of_what_stands_do_nothing(first: tuple[Clone, float]) -> None:
    """Snakemake deletes the manifest of each job that it is told to run; the store is not asked."""
    clone, _ = first
    before = records(clone)
    manifests = {place: path.read_bytes() for place, path in clone.manifests().items()}
    clone.run(LABELS, "--forceall", shared=False)
    assert records(clone) == before
    assert {place: path.read_bytes() for place, path in clone.manifests().items()} == manifests
    log = clone.folder / f"results/paper-a/logs/label_examples/{CELL}/unlabelled/weak-opt-125m.log"
    assert "made already by the same work" in log.read_text()


def test_a_setting_there_and_back(make_clone: Callable[..., Clone], second: tuple[Clone, float]) -> None:
    """What is made for the other setting replaces what stood; on the way back it is fetched."""
    clone = make_clone("third")
    clone.run(LABELS)
    before = {place: path.read_bytes() for place, path in clone.manifests().items()}
    assert clone.computed() == set()
    overlay = clone.folder / "overlay.yaml"
    kept = overlay.read_text()
    overlay.write_text(kept + "data: {hh-helpful: {max_tokens: 500}}\n")
    clone.run(LABELS)
    assert {"results/paper-a/filtered/hh-helpful/manifest.json", SPLIT, LABELS} < clone.computed()
    overlay.write_text(kept)
    clone.run(LABELS)
    assert clone.computed() == set()
    assert {place: path.read_bytes() for place, path in clone.manifests().items()} == before


def test_other_code_is_not_found_and_what_follows_from_the_same_bytes_is(
    make_clone: Callable[..., Clone], second: tuple[Clone, float]
) -> None:
    clone = make_clone("fourth")
    with (clone.folder / "scripts" / "filter_examples.py").open("a") as source:
        source.write("\nADDED = 1\n")
    clone.run(SPLIT)
    assert clone.computed() == {"results/paper-a/filtered/hh-helpful/manifest.json"}
