"""The RO-Crate of a run: its structure and its digests. Whether the profiles hold is asked of their validator (tests/prove)."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import export_crate
import pytest
from pydantic import ValidationError
from small_run import REVISION, SmallRun, make, make_again
from w2s.artifact import CARD, file_digest, load
from w2s.citation import read_citation
from w2s.errors import ArtifactError, DataError
from w2s.schema import Runtime

ROOT = Path(__file__).resolve().parents[2]
Entities = dict[str, dict[str, Any]]


def export(run: SmallRun, *more: str, configuration: Path = ROOT / "config.yaml") -> Path:
    output = run.results / "ro-crate-metadata.json"
    arguments = ["--tables", str(run.tables), "--files", str(run.results / "report.html")]
    arguments += ["--citation", str(ROOT / "CITATION.cff"), "--preset", "small", "--engine", "9.27"]
    arguments += ["--snakefile", str(ROOT / "Snakefile"), "--configuration", str(ROOT / "config.yaml")]
    arguments += [str(configuration)] if configuration != ROOT / "config.yaml" else []
    export_crate.main(
        [*arguments, "--workflow", str(run.results / "workflow"), "--output", str(output), *more]
    )
    return output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    run = make(tmp_path_factory.mktemp("made"))
    (run.results / "report.html").write_text("<html>")
    (run.student.parent / CARD).write_text("# a card")
    return run


@pytest.fixture
def run(made: SmallRun, tmp_path: Path) -> SmallRun:
    return made.copy(tmp_path)


def read(output: Path) -> Entities:
    graph = json.loads(output.read_text())["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    assert len(entities) == len(graph), "each entity once"
    return entities


@pytest.fixture
def entities(run: SmallRun) -> Entities:
    return read(export(run))


def references(value: Any) -> list[str]:
    """All ids that a value refers to."""
    found = value if isinstance(value, list) else [value]
    return [one["@id"] for one in found if isinstance(one, dict)]


def test_every_file_has_its_size_and_digest(run: SmallRun, entities: Entities) -> None:
    files = {name: one for name, one in entities.items() if "File" in one["@type"]}
    student = run.student.parent.relative_to(run.results)
    tables = run.tables.parent.relative_to(run.results)
    workflow = {"workflow/Snakefile", "workflow/config.yaml", "workflow/rules/common.smk"}
    made = {f"{tables}/rewards.csv", f"{tables}/manifest.json", f"{student}/{CARD}", "report.html"}
    assert workflow | made <= set(files)
    for name, one in files.items():
        path = run.results / name
        assert (one["sha256"], one["contentSize"]) == (file_digest(path), str(path.stat().st_size))


def test_each_artifact_is_the_result_of_one_action(run: SmallRun, entities: Entities) -> None:
    for manifest in run.results.rglob("manifest.json"):
        name = manifest.parent.relative_to(run.results).as_posix()
        assert entities[f"{name}/"]["identifier"] == f"sha256:{load(manifest).digest}"
        assert references(entities[f"#made/{name}"]["result"]) == [f"{name}/"]


def test_an_action_names_script_parents_settings_and_times(run: SmallRun, entities: Entities) -> None:
    artifact = load(run.student)
    action = entities[f"#made/{run.student.parent.relative_to(run.results)}"]
    assert references(action["instrument"]) == ["#tool/train_student_dpo"]
    objects = references(action["object"])
    assert {"models/k/", "filtered/toy/", "splits/toy/1-of-2/seed-3/"} <= set(objects)
    settings = {
        entities[one]["name"]: entities[one]["value"] for one in objects if one.startswith("#setting")
    }
    assert settings == {name: value for name, value in artifact.spec.items() if value is not None}
    assert action["startTime"] == artifact.run["started"] <= action["endTime"]
    assert "agent" not in action


def test_the_run_as_a_whole(entities: Entities) -> None:
    whole = entities["#run"]
    assert (
        references(whole["instrument"]) == ["workflow/Snakefile"] == references(entities["./"]["mainEntity"])
    )
    assert {"report.html", "tables/a_figure_2a/"} == set(references(whole["result"]))
    actions = [one for one in entities.values() if one["@type"] == "CreateAction"]
    assert whole["startTime"] == min(one["startTime"] for one in actions)
    assert whole["endTime"] == max(one["endTime"] for one in actions)
    assert entities["./"]["datePublished"] == whole["endTime"][:10]
    assert set(references(entities["./"]["mentions"])) == {one["@id"] for one in actions}


def test_steps_tools_and_jobs_belong_together(entities: Entities) -> None:
    workflow = entities["workflow/Snakefile"]
    steps = references(workflow["step"])
    assert {entities[step]["workExample"]["@id"] for step in steps} == set(references(workflow["hasPart"]))
    controls = references(entities["#organise"]["object"])
    started = [one for control in controls for one in references(entities[control]["object"])]
    assert sorted(started) == sorted(name for name in entities if name.startswith("#made/"))
    first = entities["#step/import_examples"]["position"], entities["#step/summarise"]["position"]
    assert int(first[0]) < int(first[1])


def test_sources_tell_address_revision_licence_and_checksums(entities: Entities) -> None:
    source = entities["#source/pairs"]
    assert source["url"] == f"https://huggingface.co/datasets/team/pairs/tree/{REVISION}"
    assert (source["version"], source["license"]) == (REVISION, "mit")
    assert source["conditionsOfAccess"] == "research only"
    assert len(entities[source["distribution"]["@id"]]["sha256"]) == 64
    assert entities["#source/weights"]["url"] == f"https://huggingface.co/lab/base/tree/{REVISION}"


def test_every_reference_leads_somewhere(entities: Entities) -> None:
    outside = ("https://bioschemas.org/", "https://w3id.org/ro/", "https://doi.org/", "https://snakemake.")
    for one in entities.values():
        for value in one.values():
            for reference in references(value):
                assert reference in entities or reference.startswith(outside), reference


def test_the_same_run_gives_the_same_bytes(run: SmallRun, tmp_path: Path) -> None:
    first = export(run).read_bytes()
    assert export(run).read_bytes() == first
    moved = run.copy(tmp_path.with_name("elsewhere"))
    assert export(moved).read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_whoever_runs_it_is_named_if_they_say_so_only(run: SmallRun) -> None:
    orcid = "https://orcid.org/0000-0002-1825-0097"
    agent = json.dumps({"name": "Ada Example", "orcid": orcid})
    entities = read(export(run, "--agent", agent))
    assert entities[orcid]["name"] == "Ada Example"
    assert references(entities["#run"]["agent"]) == [orcid]


def test_nobody_is_taken_from_the_environment(run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "GIT_AUTHOR_NAME"):
        monkeypatch.setenv(name, "somebody-logged-in")
    assert "somebody-logged-in" not in export(run).read_text()


def test_containers_are_named_by_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/light.sif")
    monkeypatch.setenv("W2S_IMAGES", f"light.sif=sha256:{'b' * 64}")
    run = make(tmp_path)
    (run.results / "report.html").write_text("<html>")
    entities = read(export(run))
    (image,) = [one for one in entities.values() if one["@type"] == "ContainerImage"]
    assert image["sha256"] == "b" * 64
    assert references(entities["#made/tables/a_figure_2a"]["containerImage"]) == [image["@id"]]


def test_an_artifact_that_was_cleaned_away_is_told_by_its_digest(run: SmallRun) -> None:
    name = os.path.relpath(run.student.parent, run.results)
    digest = load(run.student).digest
    shutil.rmtree(run.student.parent)
    entities = read(export(run))
    assert entities[f"#gone/{name}/{digest[:12]}"]["identifier"] == f"sha256:{digest}"
    assert f"#made/{name}" not in entities


def test_a_parent_that_was_made_again_is_not_taken_for_the_one_that_was_used(run: SmallRun) -> None:
    base = run.results / "models/k/manifest.json"
    digest = load(base).digest
    make_again(base)
    entities = read(export(run))
    used = references(entities[f"#made/{run.student.parent.relative_to(run.results)}"]["object"])
    gone = f"#gone/models/k/{digest[:12]}"
    assert gone in used and "models/k/" not in used
    assert entities[gone]["identifier"] == f"sha256:{digest}"
    assert entities["models/k/"]["identifier"] == f"sha256:{load(base).digest}"


@pytest.mark.parametrize("name", ["mine.yaml", "my préset #1+50%.yaml"])
def test_a_configuration_file_from_elsewhere_is_copied_under_its_number(
    run: SmallRun, tmp_path: Path, name: str
) -> None:
    overlay = tmp_path / name
    overlay.write_text("preset: small\n")
    entities = read(export(run, configuration=overlay))
    assert references(entities["#run"]["object"])[:2] == [
        "workflow/config.yaml",
        f"workflow/overlays/2-{quote(name)}",
    ]
    assert (run.results / "workflow/overlays" / f"2-{name}").read_text() == "preset: small\n"
    assert "null" not in (run.results / "ro-crate-metadata.json").read_text()


def test_a_result_whose_name_has_a_blank_is_known_when_it_is_met_again(run: SmallRun) -> None:
    figure = run.results / "my figure.png"
    figure.write_bytes(b"x")
    entities = read(export(run, "--files", str(figure)))
    assert entities["my%20figure.png"]["sha256"] == file_digest(figure)
    assert references(entities["my%20figure.png"]["exampleOfWork"]) == ["#results"]


def test_a_file_outside_of_the_run_is_refused(run: SmallRun, tmp_path: Path) -> None:
    outside = tmp_path / "figure.csv"
    outside.write_text("x\n")
    with pytest.raises(ArtifactError, match="outside of the run's folder"):
        export(run, "--files", str(outside))


@pytest.mark.parametrize(
    "content", ["", "- a\n", "title: x\n", "title: [", "title: x\nabstract: 1\nlicense: MIT\n"]
)
def test_a_broken_citation_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "CITATION.cff"
    path.write_text(content)
    with pytest.raises(DataError, match="not a citation file"):
        read_citation(path)


@pytest.mark.parametrize("agent", [{}, {"name": ""}, {"name": "Ada", "orcid": "0000-0002-1825-0097"}, "Ada"])
def test_an_agent_is_a_name_and_perhaps_an_orcid(agent: object) -> None:
    known = {"name": "Ada", "orcid": "https://orcid.org/0000-0002-1825-0097"}
    assert Runtime.model_validate({"agent": known}).agent is not None
    with pytest.raises(ValidationError):
        Runtime.model_validate({"agent": agent})
