"""The crate of a real run, small, before the profiles' own validator: without a network, and without an error.

The validator lives in an environment of its own: ``make .venv-audit/installed-audit``, or W2S_AUDIT_BIN, its folder of programs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from clones import ROOT, copy_sources, snakemake
from w2s.artifact import CARD, file_digest

HERE = Path(__file__).parent
AUDIT = Path(os.environ.get("W2S_AUDIT_BIN", ROOT / ".venv-audit" / "bin"))
PROFILE = "provenance-run-crate-0.5"
CRATE = "ro-crate-metadata.json"
ORCID = "https://orcid.org/0000-0002-1825-0097"
# With what an address cannot hold as it is.
OVERLAY = "my préset.yaml"
OVERLAYS = ("presets/demo.yaml", str(ROOT / "tests/cluster/small.yaml"), OVERLAY)
AGENT = f"runtime: {{agent: {{name: Ada Example, orcid: {ORCID}}}}}\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a finished run."""
    folder = copy_sources(tmp_path_factory.mktemp("run") / "repository", without=())
    (folder / OVERLAY).write_text(AGENT)
    snakemake(folder, "--quiet", "rules", overlays=OVERLAYS)
    return folder / "results/small"


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """``validated(folder, severity="required")`` -> what the validator says of the crate in ``folder``."""
    if not (AUDIT / "rocrate-validator").is_file():
        pytest.fail(f"no validator in {AUDIT}: make .venv-audit/installed-audit")
    folder = tmp_path_factory.mktemp("validator")
    cache = folder / "http"
    fill = [str(AUDIT / "python"), str(HERE / "fill_http_cache.py"), str(cache), str(HERE / "contexts.json")]
    subprocess.run(fill, check=True)

    def validate(crate: Path, severity: str = "required") -> dict[str, Any]:
        output = folder / "result.json"
        output.unlink(missing_ok=True)
        command = [
            str(AUDIT / "rocrate-validator"),
            "--no-interactive",
            "--disable-color",
            "validate",
            "--offline",
        ]
        command += ["--cache-path", str(cache), "--profile-identifier", PROFILE, "--no-paging", "--verbose"]
        command += [
            "--requirement-severity",
            severity,
            "--output-format",
            "json",
            "--output-file",
            str(output),
        ]
        done = subprocess.run([*command, str(crate)], text=True, capture_output=True)
        assert output.is_file(), done.stdout + done.stderr
        return json.loads(output.read_text())

    return validate


def edited(results: Path, folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of the run whose crate was edited, entity by entity."""
    shutil.copytree(results, folder)
    crate = json.loads((folder / CRATE).read_text())
    edit({entity["@id"]: entity for entity in crate["@graph"]})
    (folder / CRATE).write_text(json.dumps(crate))
    return folder


def test_the_crate_of_a_run_is_valid(
    results: Path, validated: Callable, record_property: Callable[[str, object], None]
) -> None:
    found = validated(results)
    assert found["issues"] == []
    assert found["passed"]
    record_property("cases", found["statistics"]["total_checks"])


def test_what_is_recommended_and_not_done_is_known(results: Path, validated: Callable) -> None:
    """No address is given to scripts and libraries, and nothing is invented for people and groups."""
    issues = validated(results, "recommended")["issues"]
    known = {
        "The SoftwareApplication id SHOULD be an absolute URI",
        "The Application SHOULD have a url",
        "The author SHOULD have an organizational affiliation.",
        "The author SHOULD have a Contextual Entity which specifies the organizational `affiliation`.",
        "The organization SHOULD have a URL.",
        "The `publisher` property of a `Root Data Entity` SHOULD be an `Organization`",
        "The README.md SHOULD be about the crate",
        "The README.md SHOULD have text/markdown as its encodingFormat",
    }
    assert {issue["message"] for issue in issues} <= known


DEFECTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no main workflow": lambda entities: entities["./"].pop("mainEntity"),
    "no instrument": lambda entities: entities["#run"].pop("instrument"),
    "a file that is not there": lambda entities: entities["report.html"].update({"@id": "elsewhere.html"}),
    "a term that no context has": lambda entities: entities["#run"].update(flavour="sweet"),
    "a step without its tool": lambda entities: entities["#step/summarise"].pop("workExample"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_seen(results: Path, validated: Callable, tmp_path: Path, name: str) -> None:
    assert not validated(edited(results, tmp_path / "crate", DEFECTS[name]))["passed"]


def test_digests_are_those_of_the_files(
    results: Path, record_property: Callable[[str, object], None]
) -> None:
    files = {
        entity["@id"]: entity["sha256"]
        for entity in json.loads((results / CRATE).read_text())["@graph"]
        if "File" in entity["@type"]
    }
    assert {name: file_digest(results / unquote(name)) for name in files} == files
    assert f"workflow/{quote(OVERLAY)}" in files
    assert sum(name.endswith(f"/{CARD}") for name in files) == 6
    record_property("cases", len(files))


def test_a_second_run_writes_nothing_and_a_forced_one_the_same(results: Path) -> None:
    folder, before = results.parents[1], (results / CRATE).read_bytes()
    assert "Nothing to be done" in snakemake(folder, overlays=OVERLAYS)
    forced = ("--forcerun", "write_model_cards", "export_crate")
    snakemake(folder, "--quiet", "rules", *forced, overlays=OVERLAYS)
    assert (results / CRATE).read_bytes() == before


def test_cards_are_loaded_by_the_library_that_reads_them_on_the_hub(results: Path) -> None:
    from huggingface_hub import ModelCard

    cards = sorted(results.rglob(CARD))
    for path in cards:
        data = ModelCard.load(path).data
        assert data.license == "mit"
        assert data.to_dict()["library_name"] == "transformers"
    measured = [path for path in cards if ModelCard.load(path).data.eval_results]
    assert len(measured) == 4, "two students, SFT and DPO"
