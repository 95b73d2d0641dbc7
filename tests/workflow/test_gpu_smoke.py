"""The preset for one GPU, run on a CPU with its overlay: every stage and model of it in bfloat16, on a few real rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from clones import copy_sources, snakemake
from w2s.artifact import Artifact, load, verify
from w2s.config import load_config, merge, read_yaml
from w2s.schema import Config

ROOT = Path(__file__).resolve().parents[2]
FILES = ("presets/gpu-smoke.yaml", "presets/development/gpu-smoke-on-cpu.yaml")
RESULTS = "results/gpu-smoke-on-cpu"
RUN_A_MODEL = {
    *("pretrain_model", "train_reward_model", "score_responses", "generate", "score_gold"),
    *(f"train_{who}_{step}" for who in ("teacher", "student") for step in ("sft", "dpo")),
}


def config(*files: str) -> Config:
    raw: dict[str, Any] = read_yaml(ROOT / "config.yaml")
    for file in files:
        raw = merge(raw, read_yaml(ROOT / file))
    return load_config(raw)


@pytest.fixture(scope="module")
def smoke(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in a copy of the repository."""
    folder = copy_sources(tmp_path_factory.mktemp("gpu-smoke"))
    data = {
        "W2S_HH_DATA": str(shared_data / "hh-rlhf"),
        "W2S_OPT_TOKENIZER": str(shared_data / "opt-tokenizer"),
    }
    snakemake(folder, "--quiet", "rules", overlays=FILES, cores=1, **data)
    return folder


@pytest.fixture(scope="module")
def artifacts(smoke: Path) -> list[Artifact]:
    found = [load(manifest) for manifest in (smoke / RESULTS).rglob("manifest.json")]
    return [artifact for artifact in found if artifact.manifest["stage"] in RUN_A_MODEL]


@pytest.mark.slow
@pytest.mark.real_data
class TestTheRun:
    def test_report_figure_and_tables_are_there(self, smoke: Path) -> None:
        results = smoke / RESULTS
        for suffix in ("pdf", "png", "csv"):
            assert (results / "figures" / f"a_figure_2a.{suffix}").stat().st_size > 200
        assert "smoke-51m" in (results / "report.html").read_text(encoding="utf-8")
        tables = results / "tables/a_figure_2a/manifest.json"
        verify(tables)
        rewards = pd.read_csv(load(tables).path("rewards.csv"))
        assert sorted(rewards["arm"]) == ["human", "untuned", "weak-smoke-10m"]
        assert np.isfinite(rewards["mean"]).all()

    def test_every_model_was_run_in_bfloat16(self, artifacts: list[Artifact]) -> None:
        assert {artifact.manifest["stage"] for artifact in artifacts} == RUN_A_MODEL
        assert {artifact.spec["precision"] for artifact in artifacts} == {"bfloat16"}

    def test_rewards_are_numbers_of_bfloat16(self, artifacts: list[Artifact]) -> None:
        """Not only was it asked for: the last 16 bits of float32 are those that bfloat16 lacks."""
        judged = [artifact for artifact in artifacts if artifact.manifest["stage"] == "score_gold"]
        for artifact in judged:
            rewards = pd.read_parquet(artifact.path("rewards.parquet"))["reward"].to_numpy()
            assert (rewards == rewards.astype(np.float32)).all()
            assert not (rewards.astype(np.float32).view(np.uint32) & 0xFFFF).any()

    def test_models_are_of_the_sizes_that_the_preset_says(self, artifacts: list[Artifact]) -> None:
        sizes = {
            artifact.folder.name: artifact.facts["parameters"] / 1e6
            for artifact in artifacts
            if artifact.manifest["stage"] == "pretrain_model"
        }
        assert sizes == pytest.approx({"smoke-10m": 10, "smoke-51m": 51}, rel=0.02)

    def test_dpo_begins_with_equal_models_and_trains_adapters(self, artifacts: list[Artifact]) -> None:
        dpo = [artifact for artifact in artifacts if artifact.manifest["stage"].endswith("_dpo")]
        assert len(dpo) == 3
        for artifact in dpo:
            assert artifact.facts["first_loss"] == pytest.approx(np.log(2), abs=0.05)
            assert 0 < artifact.facts["trainable_parameters"] < 0.01 * artifact.facts["parameters"]


def test_the_preset_asks_for_a_gpu_and_the_overlay_does_not() -> None:
    assert config(FILES[0]).runtime.needs_gpu
    assert not config(*FILES).runtime.needs_gpu


def test_the_overlay_leaves_models_precision_and_grid_as_they_are() -> None:
    preset, overlay = config(FILES[0]), config(*FILES)
    for name, model in preset.models.items():
        other = overlay.models[name]
        assert other.precision == model.precision
        if model.pretrain and other.pretrain:
            sizes = {"width", "layers", "heads", "feed_forward", "positions"}
            assert other.pretrain.model_dump(include=sizes) == model.pretrain.model_dump(include=sizes)
    assert overlay.experiments == preset.experiments
    batches = {"sft": {"batch_size"}, "dpo": {"batch_size"}}
    recipes = [made.recipes["gpu-smoke"].model_dump(exclude=batches) for made in (preset, overlay)]
    assert recipes[0] == recipes[1]
