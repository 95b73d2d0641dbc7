"""The search for the demo's recipes: a valid overlay on other seeds, and the demo uses settings that it tried."""

from __future__ import annotations

from pathlib import Path

import pytest
from w2s.config import load_config, merge, read_yaml
from w2s.schema import Config

ROOT = Path(__file__).resolve().parents[2]


def config(*files: str) -> Config:
    raw = read_yaml(ROOT / "config.yaml")
    for file in files:
        raw = merge(raw, read_yaml(ROOT / file))
    return load_config(raw)


@pytest.fixture(scope="module")
def demo() -> Config:
    return config("presets/demo.yaml")


@pytest.fixture(scope="module")
def development() -> Config:
    return config("presets/demo.yaml", "presets/development/demo.yaml")


@pytest.fixture(scope="module")
def paper_in_miniature() -> Config:
    return config("presets/demo.yaml", "presets/demo-paper-a.yaml")


def test_no_seed_serves_both(demo: Config, development: Config, paper_in_miniature: Config) -> None:
    searched = {seed for name in development.run for seed in development.experiments[name].seeds}
    assert searched
    for shown in (demo, paper_in_miniature):
        reported = {seed for name in shown.run for seed in shown.experiments[name].seeds}
        assert reported
        assert not searched & reported


def test_the_paper_in_miniature_trains_as_the_demo_does(demo: Config, paper_in_miniature: Config) -> None:
    """With the settings that were searched for: only what an item of the paper varies differs."""
    recipes = paper_in_miniature.recipes
    assert recipes["demo-student"] == demo.recipes["demo-student"]
    teacher = recipes["demo-teacher-same-steps"]
    assert teacher.model_copy(update={"same_steps_as": None}) == demo.recipes["demo-teacher"]
    student = demo.recipes["demo-student"].dpo
    assert student is not None
    for name, recipe in recipes.items():
        if name.startswith("demo-student-"):
            assert recipe.dpo is not None
            varied = {"beta", "soft_labels", "confidence_weights"}
            assert recipe.dpo.model_dump(exclude=varied) == student.model_dump(exclude=varied), name
            assert recipe.sft_of == "demo-student" or recipe.without_sft, name


def test_the_demo_uses_settings_that_were_tried(demo: Config, development: Config) -> None:
    tried = [
        entry for name, entry in development.feedback.items() if name not in demo.feedback and entry.recipe
    ]
    assert demo.recipes["demo-teacher"] in [
        development.recipes[entry.recipe] for entry in tried if entry.recipe
    ]
    students = {recipe for name in development.run for recipe in development.experiments[name].recipes}
    assert "demo-student" not in students
    assert demo.recipes["demo-student"] in [development.recipes[name] for name in students]


def test_every_arm_has_the_same_search(development: Config) -> None:
    experiments = [development.experiments[name] for name in development.run]
    assert all(len(experiment.recipes) == 1 for experiment in experiments)
    assert len({experiment.recipes[0] for experiment in experiments}) == len(experiments) > 1
    assert len({experiment.model_dump_json(exclude={"recipes"}) for experiment in experiments}) == 1


def test_margins_have_the_scale_that_the_teacher_was_tuned_with(development: Config) -> None:
    weak = [entry for entry in development.feedback.values() if entry.teacher == "demo-s"]
    assert len(weak) > 1
    for entry in weak:
        assert entry.recipe is not None
        assert entry.beta == development.recipes[entry.recipe].dpo.beta
