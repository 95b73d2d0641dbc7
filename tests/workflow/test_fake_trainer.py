"""The whole paper-a workflow with stand-ins for what needs network, weights or a GPU."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import fakes
import pytest
from w2s.artifact import load, verify

if TYPE_CHECKING:
    from conftest import FinishedRun

# One worker of pytest-xdist for all tests on the finished run, which is made once.

STUDENTS = {"opt-1.3b", "opt-2.7b", "opt-6.7b", "opt-13b"}
FEEDBACK = {"human", "weak-opt-125m"}
ARMS = {"untuned", *FEEDBACK, *(f"{name}-sft" for name in FEEDBACK)}
CELL = "hh-helpful/1-of-2/seed-22"


@pytest.fixture(scope="module")
def results(finished: FinishedRun) -> Path:
    return finished.workflow.folder / "results" / "paper-a"


def table(results: Path, name: str) -> list[dict[str, str]]:
    with load(results / "tables" / "a_figure_2a" / "manifest.json").path(name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_takes_less_than_a_minute(finished: FinishedRun) -> None:
    assert finished.seconds < 60


def test_no_heavy_library_is_imported(finished: FinishedRun) -> None:
    assert finished.workflow.heavy_imports() == ""


def test_what_a_run_makes(results: Path) -> None:
    names = ["report.html", *(f"figures/a_figure_2a.{kind}" for kind in ("pdf", "png", "csv"))]
    for name in [*names, *(f"figures/drops_hh-helpful.{kind}" for kind in ("pdf", "png", "csv"))]:
        assert (results / name).stat().st_size > 0, name
    page = (results / "report.html").read_text()
    for student in STUDENTS:
        assert student in page


def test_every_arm_of_every_student_is_in_the_table(results: Path) -> None:
    rows = table(results, "rewards.csv")
    assert {(row["student"], row["arm"]) for row in rows} == {
        (student, arm) for student in STUDENTS for arm in ARMS
    }
    assert len(rows) == len(STUDENTS) * len(ARMS)
    for row in rows:
        assert (row["gold"], row["seeds"]) == ("mistral-unified-feedback", "1")
        assert float(row["low"]) <= float(row["mean"]) <= float(row["high"])
        assert 20 <= int(row["prompts"]) <= 40, "a tenth of the rows that the filter kept"


def test_the_tables_show_the_effects_that_the_stand_ins_have(results: Path) -> None:
    effects = {arm: fakes.EFFECTS[arm] for arm in ("untuned", "human-sft", "weak-sft")}
    effects |= {"human": fakes.EFFECTS["human-dpo"], "weak": fakes.EFFECTS["weak-dpo"]}
    rows = table(results, "differences.csv")
    assert {row["arm"] for row in rows} >= FEEDBACK
    for row in rows:
        arm, baseline = (row[name].replace("weak-opt-125m", "weak") for name in ("arm", "baseline"))
        assert float(row["difference"]) == pytest.approx(effects[arm] - effects[baseline], abs=0.1), row
        assert float(row["low"]) < float(row["difference"]) < float(row["high"])


def test_weak_labels_agree_with_humans_as_often_as_the_stand_in_does(results: Path) -> None:
    (row,) = [row for row in table(results, "labels.csv") if row["feedback"] == "weak-opt-125m"]
    assert row["against"] == "human"
    assert float(row["agreement"]) == pytest.approx(fakes.WEAK_ACCURACY, abs=0.12)
    assert float(row["low"]) < float(row["agreement"]) < float(row["high"])


def test_costs_count_every_job_once(results: Path) -> None:
    jobs = {row["stage"]: int(row["jobs"]) for row in table(results, "costs.csv")}
    assert jobs["train_student_sft"] == jobs["train_student_dpo"] == len(STUDENTS) * len(FEEDBACK)
    assert jobs["generate"] == jobs["score_gold"] == len(STUDENTS) * len(ARMS)
    # the teacher twice on D_u, its reference once on D_l, and each student's reference
    assert jobs["score_responses"] == 3 + len(STUDENTS) * len(FEEDBACK)
    assert jobs["fetch"] == 7
    assert jobs["train_teacher_sft"] == jobs["train_teacher_dpo"] == jobs["filter_examples"] == 1


def test_filter_and_split_ran_for_real(results: Path) -> None:
    facts = load(results / "filtered" / "hh-helpful" / "manifest.json").facts
    examples = load(results / "examples" / "hh-helpful" / "manifest.json").path("examples.parquet")
    assert facts["rows_in"] > facts["rows_kept"] >= fakes.ROWS * 0.9
    split = load(results / "splits" / CELL / "manifest.json")
    parts = Counter(row["part"] for row in rows_of(split.path("assignment.parquet")))
    assert set(parts) == {"labelled", "unlabelled", "test"}
    assert sum(parts.values()) == facts["rows_kept"] <= len(rows_of(examples))
    assert abs(parts["labelled"] - parts["unlabelled"]) <= 10


def rows_of(path: Path) -> list[dict]:
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()


def test_every_artifact_is_whole_and_leads_back_to_its_parents(finished: FinishedRun) -> None:
    manifests = list(finished.workflow.folder.rglob("manifest.json"))
    assert len(manifests) == 90
    for manifest in manifests:
        verify(manifest)
        artifact = load(manifest)
        for entry in artifact.manifest["parents"].values():
            for parent in entry if isinstance(entry, list) else [entry]:
                assert load((artifact.folder / parent["path"]).resolve()).digest == parent["digest"]
        assert (artifact.manifest["parents"] == {}) == (artifact.manifest["stage"] == "fetch")


def test_nothing_temporary_is_left(finished: FinishedRun) -> None:
    left = [
        path for path in finished.workflow.folder.rglob("*") if path.name.endswith((".partial", ".former"))
    ]
    assert left == []


def test_specs_are_recorded_as_numbers(results: Path) -> None:
    run = f"students/{CELL}/opt-1.3b/weak-opt-125m/paper-hh/dpo"
    spec = json.loads((results / run / "manifest.json").read_text())["spec"]
    assert (spec["learning_rate"], spec["beta"], spec["batch_size"], spec["part"]) == (
        5e-5,
        0.1,
        16,
        "unlabelled",
    )
    teacher = load(results / f"teachers/{CELL}/opt-125m/paper-hh-teacher/dpo/manifest.json").spec
    assert (teacher["lora_rank"], teacher["part"], teacher["seed"]) == (8, "labelled", 22)


def test_the_teacher_never_sees_what_it_labels(results: Path) -> None:
    rows = rows_of(load(results / "splits" / CELL / "manifest.json").path("assignment.parquet"))
    part = {row["id"]: row["part"] for row in rows}

    def of(*names: str, file: str) -> set[str]:
        return {row["id"] for row in rows_of(load(results.joinpath(*names) / "manifest.json").path(file))}

    labels = ("labels", *CELL.split("/"))
    assert {part[id] for id in of(*labels, "labelled", "human", file="labels.parquet")} == {"labelled"}
    assert {part[id] for id in of(*labels, "unlabelled", "weak-opt-125m", file="labels.parquet")} == {
        "unlabelled"
    }
    generations = results / "generations" / CELL / "paper-hh" / "models" / "opt-13b" / "manifest.json"
    assert {part[row["id"]] for row in rows_of(load(generations).path("generations.parquet"))} == {"test"}


def test_a_second_run_has_nothing_to_do(finished: FinishedRun) -> None:
    assert finished.workflow.planned() == {}
    assert "Nothing to be done" in finished.workflow.run()
