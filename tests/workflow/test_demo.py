"""The demo end to end, with the real trainers: what `make demo` does, and that a second run does nothing.

It checks what must hold whatever comes out of the experiment: everything is there and whole, the numbers are
consistent with each other and with the world's exact reward. Which arm wins is a result and no test's business.
"""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest
from clones import copy_sources, snakemake
from w2s.artifact import load, verify

pytestmark = pytest.mark.slow
OVERLAYS = ["presets/demo.yaml"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished demo run in a copy of the repository."""
    folder = copy_sources(tmp_path_factory.mktemp("demo"))
    snakemake(folder, "--quiet", "rules", overlays=OVERLAYS)
    return folder


@pytest.fixture(scope="module")
def rewards(demo: Path) -> pd.DataFrame:
    return pd.read_csv(load(demo / "results/demo/tables/a_figure_2a/manifest.json").path("rewards.csv"))


def test_report_figures_and_tables_are_there(demo: Path) -> None:
    results = demo / "results/demo"
    for figure in ("a_figure_2a", "label_noise"):
        for suffix in ("pdf", "png", "csv"):
            assert (results / "figures" / f"{figure}.{suffix}").stat().st_size > 200
    page = (results / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page or "<svg" in page


def test_every_artifact_is_whole_and_nothing_is_left_over(demo: Path) -> None:
    manifests = list((demo / "results").rglob("manifest.json"))
    assert len(manifests) > 150
    for manifest in manifests:
        verify(manifest)
    left = [
        path
        for path in (demo / "results").rglob("*")
        if path.name.endswith((".partial", ".former", ".state"))
    ]
    assert left == []


def test_second_run_plans_nothing_within_seconds(demo: Path) -> None:
    started = time.monotonic()
    output = snakemake(demo, overlays=OVERLAYS)
    assert "Nothing to be done" in output
    assert time.monotonic() - started < 30


def test_figure_comes_from_tables_without_a_model(demo: Path) -> None:
    figure = demo / "results/demo/figures/a_figure_2a.png"
    drawn = figure.read_bytes()
    figure.unlink()
    output = snakemake(demo, overlays=OVERLAYS)
    assert "plot_bars" in output
    assert "train_" not in output
    assert figure.read_bytes() == drawn, "the same tables give the same picture, byte for byte"


def test_arms_seeds_and_prompts(rewards: pd.DataFrame) -> None:
    exact = rewards[rewards["gold"] == "exact"].set_index("arm")
    arms = {
        "untuned",
        *(f"{name}{step}" for name in ("human", "weak-demo-s", "gold") for step in ("", "-sft")),
    }
    assert set(exact.index) == arms
    assert (exact["seeds"] == 3).all()
    assert (exact["low"] <= exact["mean"]).all()
    assert (exact["mean"] <= exact["high"]).all()
    assert exact["malformed"].between(0, 0.5).all()


def test_learning_happens(rewards: pd.DataFrame) -> None:
    """Every tuned arm beats the un-tuned model by more than its interval: the chain trains on what it says it does."""
    exact = rewards[rewards["gold"] == "exact"].set_index("arm")
    untuned = exact.loc["untuned"]
    for arm in ("human", "weak-demo-s", "gold"):
        assert exact.loc[arm, "low"] > untuned["high"]


def test_held_out_prompts_are_unseen(demo: Path) -> None:
    for manifest in (demo / "results/demo/splits").rglob("manifest.json"):
        proof = load(manifest).facts["proof"]
        assert set(proof["shared_ids"].values()) == {0}
        assert set(proof["shared_prompts"].values()) == {0}


def test_first_dpo_loss_is_that_of_equal_models(demo: Path) -> None:
    """ln 2: policy and reference are the same weights before the first update."""
    losses = [
        load(manifest).facts["first_loss"]
        for manifest in (demo / "results/demo").rglob("dpo/manifest.json")
        if load(manifest).manifest["stage"] in ("train_student_dpo", "train_teacher_dpo")
    ]
    # Of each of three seeds: a teacher and three students; at each other noise of the second experiment a teacher and two.
    assert len(losses) == 3 * (4 + 2 * 3)
    assert max(abs(loss - 0.693147) for loss in losses) < 1e-4
