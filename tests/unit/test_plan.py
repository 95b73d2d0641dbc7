"""From the configuration to command lines and targets."""

from __future__ import annotations

import importlib
import itertools
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from w2s import dpo
from w2s.cli import StageParser
from w2s.config import load_config, merge, read_yaml
from w2s.plan import Plan, alternatives, base_model, cell_path, flags, fraction
from w2s.schema import Loss

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))
PARTS = ("labelled", "unlabelled", "test")


def plan(preset: str | None = None, **overlay: Any) -> Plan:
    raw = read_yaml(ROOT / "config.yaml")
    if preset:
        raw = merge(raw, read_yaml(ROOT / "presets" / f"{preset}.yaml"))
    return Plan(load_config(merge(raw, overlay)))


@pytest.fixture(autouse=True)
def data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Presets on the user's own files name their folder by a variable."""
    for path in [ROOT / "config.yaml", *(ROOT / "presets").glob("*.yaml")]:
        for word in path.read_text().split("${")[1:]:
            monkeypatch.setenv(word.split("}")[0], str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 16, "beta": 0.1}, ["--batch-size", "16", "--beta", "0.1"]),
        ({"learning_rate": 5e-07}, ["--learning-rate", "5e-07"]),
        (
            {"stop": ["\n\nHuman:", 'it\'s "so"; $HOME `ls` \\ *']},
            ["--stop", "\n\nHuman:", 'it\'s "so"; $HOME `ls` \\ *'],
        ),
        ({"world": {"seed": 1, "pairs": 2}}, ["--world", '{"pairs": 2, "seed": 1}']),
        ({"files": ["a b.jsonl=", "ü.gz=0f"]}, ["--files", "a b.jsonl=", "ü.gz=0f"]),
        ({"revision": None, "seed": 0}, ["--seed", "0"]),
        ({"terms": ""}, ["--terms", ""]),
        ({"soft_labels": True, "confidence_weights": False, "seed": 1}, ["--soft-labels", "--seed", "1"]),
        ({}, []),
    ],
)
def test_flags_survive_the_shell(settings: dict[str, Any], words: list[str]) -> None:
    assert shlex.split(flags(settings)) == words


def test_floats_are_written_so_that_they_read_back_the_same() -> None:
    for value in (1 / 3, 5e-7, 0.1 + 0.2, 1e22, 5e-324):
        assert float(shlex.split(flags({"x": value}))[1]) == value


def test_mappings_do_not_depend_on_the_order_of_their_keys() -> None:
    assert flags({"world": {"a": 1, "b": 2}}) == flags({"world": {"b": 2, "a": 1}})


def test_exchanged_values_are_another_spec() -> None:
    """Snakemake compares the values of params without their names: only a spec with names sees the exchange."""

    def spec(learning_rate: float, beta: float) -> str:
        recipes = {"paper-hh": {"dpo": {"learning_rate": learning_rate, "beta": beta}}}
        return plan("paper-a", recipes=recipes).training("paper-hh", "opt-1.3b", "dpo", "unlabelled", "1")

    one, other = spec(0.1, 5e-5), spec(5e-5, 0.1)
    assert sorted(shlex.split(one)) == sorted(shlex.split(other))
    assert one != other


def test_settings_for_one_model_reach_only_that_model() -> None:
    recipes = {"paper-hh": {"per_model": {"opt-13b": {"sft": {"learning_rate": 2e-6}}}}}
    changed, usual = plan("paper-a", recipes=recipes), plan("paper-a")
    for model in ("opt-13b", "opt-6.7b"):
        for step in ("sft", "dpo"):
            one = changed.training("paper-hh", model, step, "unlabelled", "1")  # type: ignore[arg-type]
            other = usual.training("paper-hh", model, step, "unlabelled", "1")  # type: ignore[arg-type]
            assert (one != other) == (model == "opt-13b" and step == "sft")
    assert "--learning-rate 2e-06" in changed.training("paper-hh", "opt-13b", "sft", "unlabelled", "1")


DPO_KEYS = [
    ({"loss_type": "ipo"}, ["--loss-type", "ipo"]),
    ({"loss_type": "robust", "label_smoothing": 0.2}, ["--loss-type", "robust", "--label-smoothing", "0.2"]),
    ({"soft_labels": True}, ["--loss-type", "sigmoid", "--soft-labels"]),
    ({"confidence_weights": True}, ["--loss-type", "sigmoid", "--confidence-weights"]),
]


@pytest.mark.parametrize(("settings", "words"), DPO_KEYS, ids=[" ".join(row[0]) for row in DPO_KEYS])
def test_the_loss_of_one_model_changes_its_dpo_alone(settings: dict[str, Any], words: list[str]) -> None:
    """No other spec differs: what else reruns does so because its inputs have changed."""
    changed = all_specs(plan("paper-a", recipes={"paper-hh": {"per_model": {"opt-13b": {"dpo": settings}}}}))
    usual = all_specs(plan("paper-a"))
    different = {name for name in usual if changed[name] != usual[name]}
    assert different == {(f"train_{who}_dpo", "paper-hh opt-13b") for who in ("teacher", "student")}
    known = {flag for action in dpo.arguments("").parser._actions for flag in action.option_strings}
    assert {word for word in words if word.startswith("--")} <= known
    for name in different:
        assert shlex.join(words) in changed[name]


def test_dpo_settings_that_are_off_are_not_in_the_spec() -> None:
    """Results from before these keys were there are those of their defaults, and are not made again."""
    off = {"loss_type": "sigmoid", "label_smoothing": 0.0, "soft_labels": False, "confidence_weights": False}
    usual = all_specs(plan("paper-a"))
    assert all_specs(plan("paper-a", recipes={"paper-hh": {"dpo": off}})) == usual
    spec = usual["train_student_dpo", "paper-hh opt-1.3b"]
    assert spec.endswith("--beta 0.1 --loss-type sigmoid --precision bfloat16 --seed 1")


def test_the_configuration_names_the_losses_that_there_are() -> None:
    assert get_args(Loss) == dpo.LOSSES


def all_specs(plan: Plan) -> dict[tuple[str, str], str]:
    """Every spec that the rules can ask for: (stage, of what) -> spec."""
    config = plan.config
    specs: dict[tuple[str, str], str] = {}
    for name in config.sources:
        specs["fetch", name] = plan.fetch(name)
    for name, tokenizer in config.tokenizers.items():
        stage = "import_tokenizer" if tokenizer.source else "train_tokenizer"
        specs[stage, name] = getattr(plan, stage)(name)
    for name in config.corpora:
        specs["build_corpus", name] = plan.build_corpus(name)
    for name in config.data:
        specs["import_examples", name] = plan.import_examples(name)
        specs["filter_examples", name] = plan.filter_examples(name)
    for name, model in config.models.items():
        stage = (
            "import_model" if model.source else "pretrain_model" if model.pretrain else "train_reward_model"
        )
        specs[stage, name] = getattr(plan, stage)(name)
    for recipe, tuned, step in itertools.product(config.recipes, config.models, ("sft", "dpo")):
        for who, part in (("teacher", "labelled"), ("student", "unlabelled")):
            spec = plan.training(recipe, tuned, step, part, "1")  # type: ignore[arg-type]
            specs[f"train_{who}_{step}", f"{recipe} {tuned}"] = spec
    for experiment, entry in config.experiments.items():
        specs["summarise", experiment] = plan.summarise(experiment)
        for cell in plan.cells(experiment):
            where = f"{experiment} {cell_path(cell)}"
            specs["split_examples", where] = plan.split_examples(cell)
            for run in plan.runs(experiment):
                specs["generate", f"{where} {run}"] = plan.generate(cell, entry.evaluation, run)
                for gold in config.evaluations[entry.evaluation].golds:
                    stage = "score_gold" if config.golds[gold].model else "score_exact"
                    specs[stage, f"{where} {run} {gold}"] = getattr(plan, stage)(cell, run, gold)
                for part in PARTS:
                    specs["score_responses", f"{where} {run} {part}"] = plan.score_responses(run, part)
        for feedback in entry.feedback:
            for part in PARTS:
                specs["label_examples", f"{feedback} {part}"] = plan.label_examples(part, feedback)
    return specs


@pytest.mark.parametrize("preset", PRESETS)
def test_specs_are_plain_text_that_the_shell_reads_back(preset: str) -> None:
    specs = all_specs(plan(preset))
    assert len(specs) > 20
    for name, spec in specs.items():
        assert type(spec) is str, name
        words = shlex.split(spec)
        assert shlex.join(words) == spec, name
        assert not words or words[0].startswith("--"), name
        for text in ("None", "<", "PosixPath", "namespace"):
            assert text not in words, f"{name}: {spec}"


class Read(Exception):
    """A script has read its command line."""


@pytest.mark.parametrize("preset", PRESETS)
def test_scripts_understand_every_spec(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each flag that a rule passes is one that its script declares, with a value that it takes, and a *spec*."""
    understood: list[dict[str, Any]] = []

    def read_spec_only(self: StageParser, argv: Sequence[str]) -> None:
        for action in self.parser._actions:
            action.required = action.required and action.dest in self.spec_names
        args, unknown = self.parser.parse_known_args(argv)
        assert not unknown
        given = {word[2:].replace("-", "_") for word in argv if word.startswith("--")}
        assert given <= set(self.spec_names), given - set(self.spec_names)
        understood.append(vars(args))
        raise Read

    monkeypatch.setattr(StageParser, "parse_args", read_spec_only)
    specs = all_specs(plan(preset))
    for (stage, what), spec in specs.items():
        try:
            importlib.import_module(stage).main(shlex.split(spec))
        except Read:
            pass
        except SystemExit:
            pytest.fail(f"{stage}.py does not understand the spec of {what}: {spec}")
    assert len(understood) == len(specs)


@pytest.mark.parametrize("preset", PRESETS)
def test_specs_name_no_path_of_this_machine(preset: str) -> None:
    for name, spec in all_specs(plan(preset)).items():
        if name[0] != "fetch":  # a local source names its folder
            assert str(ROOT) not in spec, name


@pytest.mark.parametrize("preset", PRESETS)
def test_every_target_is_there_once_and_under_its_preset(preset: str) -> None:
    drawn = plan(preset)
    for name in drawn.config.run:
        targets = [*drawn.rewards(name), *drawn.experiment_labels(name), *drawn.experiment_examples(name)]
        assert len(targets) == len(set(targets))
        assert all(target.startswith(f"results/{preset}/") for target in targets)
        assert all(target.endswith("/manifest.json") for target in targets)
    for suffix in ("pdf", "png", "csv"):
        figures = drawn.figures(suffix)
        assert len(figures) == len(set(figures))
        assert f"results/{preset}/figures/a_figure_2a.{suffix}" in figures


@pytest.mark.parametrize("preset", PRESETS)
def test_counts_follow_the_grid(preset: str) -> None:
    drawn = plan(preset)
    for name in drawn.config.run:
        entry = drawn.config.experiments[name]
        cells = len(entry.data) * len(entry.seeds)
        runs = len(entry.students) * (entry.untuned + len(entry.feedback) * len(entry.steps))
        assert len(drawn.cells(name)) == cells
        assert len(drawn.runs(name)) == runs
        assert len(drawn.rewards(name)) == cells * runs * len(
            drawn.config.evaluations[entry.evaluation].golds
        )
        assert len(drawn.experiment_labels(name)) == cells * len(entry.feedback)


def test_the_paper_s_figure_2a() -> None:
    """Four students, un-tuned or tuned with two feedbacks and judged after SFT and DPO: 4 x (1 + 2 x 2)."""
    drawn = plan("paper-a")
    assert len(drawn.rewards("a_figure_2a")) == 20
    assert drawn.figures("pdf") == [
        "results/paper-a/figures/a_figure_2a.pdf",
        "results/paper-a/figures/drops_hh-helpful.pdf",
    ]


def test_the_demo_draws_one_drop_report_for_all_noise_levels() -> None:
    drawn = plan("demo")
    assert len(drawn.data_sets()) >= 3
    assert sum("drops_" in name for name in drawn.figures("pdf")) == 1


def test_needed_sources_are_followed_through_models_tokenizers_and_corpora() -> None:
    assert plan("paper-a").needed_sources() == [
        "gold-mistral-7b", "hh-rlhf", "opt-1.3b", "opt-125m", "opt-13b", "opt-2.7b", "opt-6.7b",
    ]  # fmt: skip
    assert plan("demo").needed_sources() == []
    pretrained = {"tokenizer": "opt", "corpus": "texts", "width": 8, "layers": 1, "heads": 1, "feed_forward": 8,
                  "positions": 600, "learning_rate": 0.1, "steps": 1, "batch_size": 1, "seed": 1, "max_tokens": 512}  # fmt: skip
    overlay: dict[str, Any] = {
        "corpora": {"texts": {"data": "hh-helpful"}},
        "models": {"small": {"pretrain": pretrained}},
        "golds": {"judge": {"model": "judge"}},
        "evaluations": {"small": {"prompts": 1, "golds": ["judge"]}},
        "experiments": {"a_figure_2a": {"students": ["small"], "feedback": ["human"], "evaluation": "small"}},
    }
    judge = {"base": "small", "data": "hh-helpful", "labels": "human", "learning_rate": 0.1, "epochs": 1,
             "batch_size": 1, "seed": 1, "max_tokens": 512}  # fmt: skip
    overlay["models"]["judge"] = {"reward": judge}
    assert plan("paper-a", **overlay).needed_sources() == ["hh-rlhf", "opt-125m"]


def test_unpinned_hub_sources_are_found_and_local_ones_need_no_revision() -> None:
    assert plan("paper-a").unpinned_sources() == ["gold-mistral-7b"]
    pinned = {"gold-mistral-7b": {"revision": "0" * 40}}
    assert plan("paper-a", sources=pinned).unpinned_sources() == []
    local = {"gold-mistral-7b": {"kind": "local", "origin": "/models/mistral"}}
    assert plan("paper-a", sources=local).unpinned_sources() == []


def test_weak_feedback_needs_both_scores_and_others_none() -> None:
    drawn = plan("paper-a")
    cell = SimpleNamespace(data="hh-helpful", share="1-of-2", seed="22")
    root = "results/paper-a/scores/hh-helpful/1-of-2/seed-22/unlabelled/teachers/opt-125m/paper-hh"
    assert drawn.feedback_scores(cell, "unlabelled", "weak-opt-125m", "dpo") == [f"{root}/dpo/manifest.json"]
    assert drawn.feedback_scores(cell, "unlabelled", "weak-opt-125m", "sft") == [f"{root}/sft/manifest.json"]
    assert drawn.feedback_scores(cell, "unlabelled", "human", "dpo") == []


def test_relabelling_leaves_the_scores_alone() -> None:
    """Another beta or tie rule changes the labels' spec only."""
    feedback = {"weak-opt-125m": {"beta": 0.5, "tie": "first"}}
    usual, other = all_specs(plan("paper-a")), all_specs(plan("paper-a", feedback=feedback))
    different = {name for name in usual if usual[name] != other[name]}
    assert different == {("label_examples", f"weak-opt-125m {part}") for part in PARTS}


def test_shares_and_runs_by_name() -> None:
    assert fraction("1-of-16") == "1/16"
    assert plan("paper-a").cells("a_figure_2a")[0].share == "1-of-2"
    assert base_model("students/opt-1.3b/human/paper-hh/dpo") == "opt-1.3b"
    assert base_model("models/opt-125m") == "opt-125m"


def test_alternatives_match_whole_names_only() -> None:
    import re

    pattern = alternatives(["opt-1.3b", "opt-13b"])
    assert re.fullmatch(pattern, "opt-1.3b")
    assert not re.fullmatch(pattern, "opt-1x3b")
    assert not re.fullmatch(alternatives([]), "")


def test_reference_feedback_is_the_human_arm() -> None:
    drawn = plan("demo")
    assert "--reference-feedback human" in drawn.summarise("a_figure_2a")
    spec = shlex.split(drawn.import_examples("world-t2"))
    world = json.loads(spec[spec.index("--world") + 1])
    assert world["temperature"] == 2
    assert {"seed", "pairs", "test_prompts"} <= set(world)
