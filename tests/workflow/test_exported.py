"""What others read of a finished run: cards in the models' folders and an RO-Crate, and what makes them again."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from w2s.artifact import CARD, file_digest, load, verify
from w2s.cards import TRAINED

if TYPE_CHECKING:
    from conftest import FinishedRun

CRATE = "ro-crate-metadata.json"


@pytest.fixture
def results(finished: FinishedRun) -> Path:
    return finished.workflow.folder / "results" / "paper-a"


@pytest.fixture
def entities(results: Path) -> dict[str, dict[str, Any]]:
    return {one["@id"]: one for one in json.loads((results / CRATE).read_text())["@graph"]}


def trained(results: Path) -> list[Path]:
    return [path for path in results.rglob("manifest.json") if load(path).manifest["stage"] in TRAINED]


def test_each_trained_model_has_a_card_and_stays_whole(results: Path) -> None:
    models = trained(results)
    assert len(models) == 18
    for manifest in models:
        verify(manifest)
    with (results / "models.csv").open() as stream:
        index = {row["model"]: row["card_sha256"] for row in csv.DictReader(stream)}
    cards = {path.parent: path.parent / CARD for path in models}
    assert index == {
        folder.relative_to(results).as_posix(): file_digest(card) for folder, card in cards.items()
    }


def test_scores_of_a_card_are_the_table_s(results: Path) -> None:
    """One seed was run, so that the arm's mean in the table is the model's own."""
    with load(results / "tables/a_figure_2a/manifest.json").path("rewards.csv").open() as stream:
        row = next(
            row for row in csv.DictReader(stream) if row["arm"] == "human" and row["student"] == "opt-13b"
        )
    card = (results / "students/hh-helpful/1-of-2/seed-22/opt-13b/human/paper-hh/dpo" / CARD).read_text()
    assert f"| reward | {row['gold']} | {float(row['mean']):.3f} [" in card
    assert "this seed only" in card
    teacher = next(results.glob("teachers/**/dpo")) / CARD
    assert "there are no scores" in teacher.read_text()


def test_the_crate_lists_what_the_run_left(results: Path, entities: dict[str, dict[str, Any]]) -> None:
    files = {name for name, one in entities.items() if "File" in one["@type"]}
    for name in files:
        assert entities[name]["sha256"] == file_digest(results / name)
    shown = [path for folder in ("figures", "scorecard") for path in (results / folder).iterdir()]
    cards = [path.parent / CARD for path in trained(results)]
    for path in [*shown, *cards, results / "report.html", results / "models.csv"]:
        assert path.relative_to(results).as_posix() in files
    made = {path.parent.relative_to(results).as_posix() for path in results.rglob("manifest.json")}
    assert made == {name.removeprefix("#made/") for name in entities if name.startswith("#made/")}


def test_the_crate_tells_where_data_and_models_came_from(
    finished: FinishedRun, entities: dict[str, dict[str, Any]]
) -> None:
    fetched = load(finished.workflow.folder / "resources/hh-rlhf/manifest.json")
    source = entities["#source/hh-rlhf"]
    assert source["version"] == fetched.facts["revision"]
    assert source["identifier"] == f"sha256:{fetched.digest}"
    assert {entities[one["@id"]]["sha256"] for one in source["distribution"]} == {
        entry["sha256"] for entry in fetched.manifest["files"].values()
    }


@pytest.fixture
def put_back(results: Path) -> Iterator[Path]:
    """The results, whose models come back after the test."""
    kept = results.with_name("kept")
    shutil.copytree(results / "students", kept)
    yield results
    shutil.rmtree(results / "students", ignore_errors=True)
    kept.rename(results / "students")


def test_a_model_that_was_cleaned_away_is_not_trained_again_for_its_card(
    finished: FinishedRun, put_back: Path
) -> None:
    shutil.rmtree(put_back / "students/hh-helpful/1-of-2/seed-22/opt-13b")
    assert finished.workflow.planned() == {}


def test_the_same_run_gives_the_same_bytes(finished: FinishedRun, results: Path) -> None:
    before = {name: (results / name).read_bytes() for name in (CRATE, "models.csv")}
    finished.workflow.run("--forcerun", "write_model_cards", "export_crate")
    assert {name: (results / name).read_bytes() for name in before} == before
