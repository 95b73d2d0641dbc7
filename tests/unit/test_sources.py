"""Missing files are told while the plan is made."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from w2s import sources
from w2s.artifact import Artifact
from w2s.config import load_config
from w2s.errors import DataError, EnvironmentProblem
from w2s.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
REVISION = "27dcfa74d334bc871f3234de431e71c6eeba5dd6"  # of opt-125m in config.yaml


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    raw["sources"]["mine"] = {
        "kind": "local", "origin": str(tmp_path / "data"), "licence": "mine",
        "files": {"a.jsonl": None, "b.jsonl": "0" * 64},
    }  # fmt: skip
    return Plan(load_config(raw))


def test_a_local_file_that_is_not_there(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"source 'mine' has no file b.jsonl \(1 of 2 missing\)"):
        sources.inputs(plan, "mine")
    (tmp_path / "data" / "b.jsonl").write_text("{}")
    assert sources.inputs(plan, "mine") == [str(tmp_path / "data" / "a.jsonl")]


def test_an_online_machine_plans_to_fetch(plan: Plan) -> None:
    assert sources.inputs(plan, "opt-125m") == []


def test_an_offline_machine_says_what_is_not_fetched(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EnvironmentProblem, match="source 'opt-125m' is not fetched") as refusal:
        sources.inputs(plan, "opt-125m")
    assert "`snakemake prefetch`" in str(refusal.value)


def test_an_offline_machine_may_fetch_from_the_hub_s_cache(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "hub" / "hub" / "models--facebook--opt-125m" / "snapshots" / REVISION).mkdir(parents=True)
    assert sources.inputs(plan, "opt-125m") == []


@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_a_fetched_file_that_is_damaged_since(plan: Plan, damage: str) -> None:
    manifest = Path(plan.source("opt-125m"))
    with Artifact.create(manifest, spec={}, parents={}, script=__file__) as artifact:
        artifact.path("model.bin").write_text("weights")
    assert sources.inputs(plan, "opt-125m") == []
    if damage == "gone":
        (manifest.parent / "model.bin").unlink()
    else:
        (manifest.parent / "model.bin").write_text("wei")
    with pytest.raises(DataError, match=r"model.bin is missing or cut short \(1 of 1 files\)"):
        sources.inputs(plan, "opt-125m")
