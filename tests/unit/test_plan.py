"""From the configuration to command lines and targets."""

from __future__ import annotations

import importlib
import itertools
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from preset_files import BASE, PRESETS, ROOT, merged
from w2s import dpo, training
from w2s.cli import StageParser
from w2s.config import all_feedback, golds_of, load_config
from w2s.feedback import POLICIES
from w2s.plan import DRAWN, WRITTEN, Plan
from w2s.schema_recipes import Recipe
from w2s.sections import Loss, Step
from w2s.tables import PARTS
from w2s.words import GridCell, alternatives, base_model, cell_path, flags, fraction

STEPS: tuple[Step, ...] = ("sft", "dpo", "reward")
HALF = GridCell("hh-helpful", "1-of-2", "1")
MAIN = GridCell("hh-helpful", "1-of-2", "22")


def plan(preset: str | None = None, **overlay: Any) -> Plan:
    return Plan(load_config(merged(preset, overlay)))


@pytest.fixture(autouse=True)
def data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Presets on the user's own files name their folder by a variable."""
    for path in [BASE, *(ROOT / "presets").glob("*.yaml")]:
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
        return plan("paper-a", recipes=recipes).training("paper-hh", "opt-1.3b", "dpo", "unlabelled", HALF)

    one, other = spec(0.1, 5e-5), spec(5e-5, 0.1)
    assert sorted(shlex.split(one)) == sorted(shlex.split(other))
    assert one != other


def test_settings_for_one_model_reach_only_that_model() -> None:
    recipes = {"paper-hh": {"per_model": {"opt-13b": {"sft": {"learning_rate": 2e-6}}}}}
    changed, usual = plan("paper-a", recipes=recipes), plan("paper-a")
    for model in ("opt-13b", "opt-6.7b"):
        for step in ("sft", "dpo"):
            one = changed.training("paper-hh", model, step, "unlabelled", HALF)  # type: ignore[arg-type]
            other = usual.training("paper-hh", model, step, "unlabelled", HALF)  # type: ignore[arg-type]
            assert (one != other) == (model == "opt-13b" and step == "sft")
    assert "--learning-rate 2e-06" in changed.training("paper-hh", "opt-13b", "sft", "unlabelled", HALF)


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
    for (recipe, entry), tuned in itertools.product(config.recipes.items(), config.models):
        for step in STEPS:
            for who, part in (("teacher", "labelled"), ("student", "unlabelled")):
                if getattr(entry, step) is not None and (who, step) != ("student", "reward"):
                    spec = plan.training(recipe, tuned, step, part, HALF)
                    specs[f"train_{who}_{step}", f"{recipe} {tuned}"] = spec
    for experiment in config.experiments:
        specs["summarise", experiment] = plan.summarise(experiment)
        for cell in plan.cells(experiment):
            specs |= cell_specs(plan, experiment, cell)
    return specs


def cell_specs(plan: Plan, experiment: str, cell: GridCell) -> dict[tuple[str, str], str]:
    """Specs of what one experiment asks for in one cell."""
    config, entry, where = plan.config, plan.config.experiments[experiment], cell_path(cell)
    specs: dict[tuple[str, str], str] = {("split_examples", where): plan.split_examples(cell)}
    golds = {name: "model" if config.golds[name].model else "world" for name in golds_of(config, entry)}
    for run in plan.runs(experiment):
        specs["generate", f"{where} {entry.evaluation} {run}"] = plan.generate(cell, entry.evaluation, run)
        for gold, kind in golds.items():
            stage = "score_gold" if kind == "model" else "score_exact"
            specs[stage, f"{where} {run} {gold}"] = getattr(plan, stage)(cell, run, gold)
        for part in PARTS:
            specs["score_responses", f"{where} {run} {part}"] = plan.score_responses(run, part)
    for gold, kind in golds.items() if entry.responses else ():
        stage = "reward_responses" if kind == "model" else "reward_responses_exact"
        specs[stage, f"{where} {gold}"] = getattr(plan, stage)(f"golds/{gold}", "unlabelled")
    tuned = plan.student_runs(experiment, ["dpo"])
    for run in tuned if entry.similarity else ():
        found, cut = entry.similarity, "cut" if entry.similarity.truncate else "whole"
        specs["score_similarity", f"{where} {run}"] = plan.score_similarity(
            cell, run, found.encoder, found.pooling, cut
        )
    for run in tuned if entry.comparison else ():
        judge, prompts = entry.comparison.judge, str(entry.comparison.prompts)
        against = run.replace(run.split("/")[2], "human")
        told = plan.judge_comparisons(cell, run, against, judge, prompts)
        specs["judge_comparisons", f"{where} {judge} {run}"] = told
    for name in entry.feedback if entry.votes else ():
        judge, counts = entry.votes.judge, (str(entry.votes.pairs), str(entry.votes.votes))
        specs["judge_votes", f"{where} {judge} {name}"] = plan.judge_votes(cell, name, judge, *counts)
    for name, part in itertools.product(all_feedback(config, entry), PARTS):
        feedback = config.feedback[name]
        specs["label_examples", f"{where} {name} {part}"] = plan.label_examples(cell, part, name)
        if feedback.judge:
            told = plan.judge_preferences(feedback.judge, feedback.template, part)
            specs["judge_preferences", f"{feedback.judge} {feedback.template} {part}"] = told
        if POLICIES[feedback.policy].takes == "rewards":
            run = f"teachers/{feedback.teacher}/{feedback.recipe}/reward"
            specs["reward_responses", f"{run} {part}"] = plan.reward_responses(run, part)
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
    kinds = (drawn.rewards, drawn.experiment_responses, drawn.experiment_comparisons, drawn.experiment_votes)
    kinds += (drawn.experiment_similarities, drawn.experiment_labels, drawn.experiment_examples)
    for name in drawn.experiments:
        targets = [target for kind in kinds for target in kind(name)]
        assert len(targets) == len(set(targets)), name
        assert all(target.startswith(f"results/{preset}/") for target in targets)
        assert all(target.endswith("/manifest.json") for target in targets)
    figures = drawn.figures()
    assert len(figures) == len(set(figures))
    for name in drawn.config.run:
        assert set(drawn.figure_files(name)) <= set(figures)
        assert f"results/{preset}/tables/{name}/manifest.json" in drawn.item(name)


@pytest.mark.parametrize("preset", PRESETS)
def test_an_item_is_its_tables_and_its_figure(preset: str) -> None:
    drawn = plan(preset)
    for name, entry in drawn.config.experiments.items():
        written = ("table", "examples", "recipes")
        suffixes = WRITTEN if entry.figure in written else DRAWN if entry.figure else ()
        files = [drawn.path("figures", f"{name}.{suffix}") for suffix in suffixes]
        assert drawn.item(name) == [drawn.manifest("tables", name), *files]
        assert name not in drawn.config.run or set(files) <= set(drawn.figures())


@pytest.mark.parametrize("preset", PRESETS)
def test_counts_follow_the_grid(preset: str) -> None:
    drawn = plan(preset)
    for name in drawn.experiments:
        entry = drawn.config.experiments[name]
        cells = len(entry.data) * len(entry.shares) * len(entry.seeds)
        recipes = {recipe: drawn.config.recipes[recipe] for recipe in entry.recipes}
        # Recipes of one SFT share its model; without SFT there is none.
        begun = {recipe.sft_of or key for key, recipe in recipes.items() if not recipe.without_sft}
        tuned = len(recipes) * ("dpo" in entry.steps) + len(begun) * ("sft" in entry.steps)
        runs = len(entry.students) * (entry.untuned + len(entry.feedback) * tuned)
        if entry.teachers:
            runs += len(set(drawn.teacher_runs(name)))
        assert len(drawn.cells(name)) == cells
        assert len(drawn.runs(name)) == runs
        assert len(drawn.rewards(name)) == cells * runs * len(golds_of(drawn.config, entry))
        assert len(drawn.experiment_labels(name)) == cells * len(entry.feedback)


def test_the_paper_s_figure_2a() -> None:
    """Four students, un-tuned or tuned with two feedbacks and judged after SFT and DPO: 4 x (1 + 2 x 2)."""
    drawn = plan("paper-a", run=["a_figure_2a"])
    assert len(drawn.rewards("a_figure_2a")) == 20
    assert drawn.figures() == [
        f"results/paper-a/figures/{name}.{suffix}"
        for name, suffixes in (("a_figure_2a", DRAWN), ("drops_hh-helpful", sorted(DRAWN)))
        for suffix in suffixes
    ]


def all_trainings(drawn: Plan) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(cell, run) of the students after DPO and of the teachers behind them, over all experiments to run."""
    students, teachers = set(), set()
    for name in drawn.config.run:
        entry = drawn.config.experiments[name]
        labelled_by = [drawn.config.feedback[item] for item in all_feedback(drawn.config, entry)]
        for cell in map(cell_path, drawn.cells(name)):
            students |= {(cell, run) for run in drawn.student_runs(name, ["dpo"])}
            for item in labelled_by:
                if item.teacher and item.recipe:
                    step: Step = "reward" if POLICIES[item.policy].takes == "rewards" else "dpo"
                    teachers.add((cell, drawn.tuned(f"teachers/{item.teacher}", item.recipe, step)))
    return students, teachers


def test_the_paper_s_grid_is_61_students_and_15_teachers() -> None:
    """Teachers on HH: five models, a reward model, three more shares, five more seeds; one on TL;DR."""
    students, teachers = all_trainings(plan("paper-a"))
    assert len(students) == 61
    assert sum(cell.startswith("tldr/") for cell, _ in students) == 8
    assert len(teachers) == 15
    assert sum(cell.startswith("tldr/") for cell, _ in teachers) == 1
    assert sum(run.endswith("/reward") for _, run in teachers) == 1
    main = {run for cell, run in teachers if cell == cell_path(MAIN)}
    assert len(main) == 6
    assert len({cell for cell, run in teachers if run == "teachers/opt-125m/paper-hh-teacher/dpo"}) == 9


def test_recipes_of_one_sft_share_it() -> None:
    drawn = plan("paper-a")
    betas = ["paper-hh", *(f"paper-hh-beta-{beta}" for beta in (0.05, 0.2, 0.3, 0.5))]
    before = {drawn.before_dpo("students", "opt-1.3b", recipe, "human") for recipe in betas}
    assert before == {"students/opt-1.3b/human/paper-hh/sft"}
    after = {drawn.tuned("students/opt-1.3b", recipe, "dpo", "human") for recipe in betas}
    assert len(after) == 5
    twice = plan("paper-a", experiments={"a_figure_7": {"steps": ["sft", "dpo"]}})
    runs = twice.runs("a_figure_7")
    assert sum(run.endswith("/sft") for run in runs) == 2  # one for each feedback
    assert sum(run.endswith("/dpo") for run in runs) == 2 * 5


def test_dpo_without_sft_begins_at_the_base_model_and_is_measured_against_it() -> None:
    drawn = plan("paper-a")
    before = drawn.before_dpo("students", "opt-1.3b", "paper-hh-without-sft", "human")
    assert before == "models/opt-1.3b"
    assert drawn.run(MAIN, before) == "results/paper-a/models/opt-1.3b/manifest.json"
    scores = "results/paper-a/scores/hh-helpful/1-of-2/seed-22/unlabelled/models/opt-1.3b/manifest.json"
    assert drawn.scores(MAIN, drawn.learns_from("human"), before) == scores
    assert "students/opt-1.3b/human/paper-hh-without-sft/sft" not in drawn.runs("a_table_11")
    assert "students/opt-1.3b/human/paper-hh-without-sft/dpo" in drawn.runs("a_table_11")


@pytest.mark.parametrize("step", ["sft", "dpo"])
def test_a_teacher_has_the_same_steps_at_each_labelled_share(step: Step) -> None:
    """Figure 4b: as many steps with 1/16 of the labels as with half of them, within one."""
    drawn = plan("paper-a")
    recipe = drawn.config.recipes["paper-hh-teacher"]
    settings = recipe.step("opt-125m", step)
    examples, found = 100_117, {}
    for cell in drawn.cells("a_figure_4b"):
        words = shlex.split(drawn.training("paper-hh-teacher", "opt-125m", step, "labelled", cell))
        epochs = float(words[words.index("--epochs") + 1])
        assert epochs == settings.epochs * recipe.longer(cell.share)
        numerator, denominator = map(int, cell.share.split("-of-"))
        rows = round(examples * numerator / denominator)
        found[cell.share] = training.number_of_steps(rows, epochs, settings.batch_size)
    assert list(found) == ["1-of-16", "1-of-8", "1-of-4", "1-of-2"]
    assert found["1-of-2"] == 50_058 // settings.batch_size
    assert max(found.values()) - min(found.values()) <= 1
    # Students see what there is: with fewer labels, more.
    words = shlex.split(drawn.training("paper-hh", "opt-1.3b", step, "unlabelled", cell))
    assert float(words[words.index("--epochs") + 1]) == 1.0


@pytest.mark.parametrize(
    ("share", "factor"), [("1/2", 1), ("1-of-2", 1), ("1/16", 8), ("3-of-4", 2 / 3), ("1-of-3", 1.5)]
)
def test_epochs_are_multiplied_exactly(share: str, factor: float) -> None:
    step = {"learning_rate": 0.1, "batch_size": 1}
    dpo_step = {**step, "beta": 0.1}
    recipe = Recipe.model_validate({"sft": step, "dpo": dpo_step, "same_steps_as": "1/2"})
    assert recipe.longer(share) == factor
    assert Recipe.model_validate({"sft": step, "dpo": dpo_step}).longer(share) == 1.0


def test_whoever_learns_from_all_labels_learns_from_both_parts() -> None:
    drawn = plan("paper-a")
    assert drawn.learns_from("everything") == "train"
    assert {drawn.learns_from(name) for name in drawn.config.feedback if name != "everything"} == {
        "unlabelled"
    }
    labels = drawn.experiment_labels("beyond_feedback")
    assert sum("/train/" in path for path in labels) == 1
    assert "results/paper-a/labels/hh-helpful/1-of-2/seed-22/train/everything/manifest.json" in labels


def test_the_demo_draws_one_drop_report_for_all_noise_levels() -> None:
    drawn = plan("demo")
    assert len(drawn.data_sets()) >= 3
    assert sum("drops_" in name for name in drawn.figures()) == len(DRAWN)


def test_needed_sources_are_followed_through_models_tokenizers_and_corpora() -> None:
    main = {"run": ["a_figure_2a"]}
    assert plan("paper-a", **main).needed_sources() == [
        "gold-mistral-7b", "hh-rlhf", "opt-1.3b", "opt-125m", "opt-13b", "opt-2.7b", "opt-6.7b",
    ]  # fmt: skip
    assert plan("paper-a").needed_sources() == [
        "bleurt-base", "gemma-7b", "gold-deberta", "gold-mistral-7b", "gold-rm-mistral-7b", "gpt-neo-125m", "hh-rlhf",
        "llama-2-7b", "llama-3-8b", "mistral-7b", "opt-1.3b", "opt-125m", "opt-13b", "opt-2.7b", "opt-6.7b", "pythia-160m",
        "tldr-comparisons",
    ]  # fmt: skip
    assert plan("demo").needed_sources() == plan("demo-paper-a").needed_sources() == []
    pretrained = {"tokenizer": "opt", "corpus": "texts", "width": 8, "layers": 1, "heads": 1, "feed_forward": 8,
                  "positions": 600, "learning_rate": 0.1, "steps": 1, "batch_size": 1, "seed": 1, "max_tokens": 512}  # fmt: skip
    overlay: dict[str, Any] = {
        **main,
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
    main = {"run": ["a_figure_2a"]}
    assert plan("paper-a", **main).unpinned_sources() == ["gold-mistral-7b"]
    assert plan("paper-a").unpinned_sources() == ["gold-mistral-7b", "gold-rm-mistral-7b", "tldr-comparisons"]
    pinned = {"gold-mistral-7b": {"revision": "0" * 40}}
    assert plan("paper-a", **main, sources=pinned).unpinned_sources() == []
    local = {"gold-mistral-7b": {"kind": "local", "origin": "/models/mistral"}}
    assert plan("paper-a", **main, sources=local).unpinned_sources() == []


def test_weak_feedback_needs_both_scores_and_others_none() -> None:
    drawn = plan("paper-a")
    root = "results/paper-a/scores/hh-helpful/1-of-2/seed-22/unlabelled/teachers/opt-125m/paper-hh-teacher"
    assert drawn.feedback_scores(MAIN, "unlabelled", "weak-opt-125m", "dpo") == [f"{root}/dpo/manifest.json"]
    assert drawn.feedback_scores(MAIN, "unlabelled", "weak-opt-125m", "sft") == [f"{root}/sft/manifest.json"]
    for name in ("human", "reward-opt-125m", "prompted-gpt-4", "match-opt-125m", "everything"):
        assert drawn.feedback_scores(MAIN, "unlabelled", name, "dpo") == [], name


def test_each_policy_is_given_what_it_takes_and_nothing_else() -> None:
    drawn = plan("paper-a")
    cell = "hh-helpful/1-of-2/seed-22/unlabelled"
    expected = {
        "reward-opt-125m": [f"responses/{cell}/teachers/opt-125m/paper-hh-reward/reward"],
        "prompted-gpt-4": [f"judged/preferences/{cell}/gpt-4-helpful-1"],
        "mismatch-random": [f"labels/{cell}/random-opt-125m"],
        "ensemble-125m": [f"labels/{cell}/weak-{name}-125m" for name in ("opt", "gpt-neo")],
        "human": [],
        "everything": [],
    }
    expected["ensemble-125m"].append(f"labels/{cell}/weak-pythia-160m")
    for name, inputs in expected.items():
        given = [
            *drawn.feedback_rewards(MAIN, "unlabelled", name),
            *drawn.feedback_preferences(MAIN, "unlabelled", name),
            *drawn.feedback_labels(MAIN, "unlabelled", name),
        ]
        assert given == [drawn.manifest(path) for path in inputs], name


def test_policies_that_draw_know_the_seed_and_others_have_one_spec_for_all() -> None:
    drawn, other = plan("paper-a"), GridCell("hh-helpful", "1-of-2", "5")
    for name, entry in drawn.config.feedback.items():
        one, two = (drawn.label_examples(cell, "unlabelled", name) for cell in (MAIN, other))
        assert (one != two) == (POLICIES[entry.policy].takes == "labels"), name
    confident = shlex.split(drawn.label_examples(MAIN, "unlabelled", "confident-opt-125m"))
    assert json.loads(confident[confident.index("--options") + 1]) == {"share": 0.5}


def test_relabelling_leaves_the_scores_alone() -> None:
    """Another beta or tie rule changes the labels' spec only."""
    feedback = {"weak-opt-125m": {"beta": 0.5, "tie": "first"}}
    usual, other = all_specs(plan("paper-a")), all_specs(plan("paper-a", feedback=feedback))
    different = {name for name in usual if usual[name] != other[name]}
    assert {stage for stage, _ in different} == {"label_examples"}
    assert {what.split()[1] for _, what in different} == {"weak-opt-125m"}
    assert {what.split()[2] for _, what in different} == set(PARTS)


def test_what_is_measured_besides_rewards() -> None:
    drawn = plan("paper-a")
    cell = "hh-helpful/1-of-2/seed-22"
    judged = drawn.experiment_comparisons("a_figure_3b")
    assert len(judged) == 5  # each student's weak arm against its human arm
    assert judged[0] == drawn.manifest(
        f"judged/comparisons/{cell}/paper-hh/students/opt-1.3b/weak-opt-125m/paper-hh/dpo/gpt-4-100"
    )
    assert drawn.experiment_votes("a_table_4") == [
        drawn.manifest(f"judged/votes/{cell}/{name}-opt-125m/gpt-4-100x10") for name in ("match", "mismatch")
    ]
    similar = drawn.experiment_similarities("a_figure_6")
    assert [path.removeprefix(drawn.path("similarity", cell, "paper-hh/")) for path in similar] == [
        f"{run}/bleurt-base-mean-cut/manifest.json"
        for run in (
            "students/opt-1.3b/human/paper-hh/dpo",
            "students/opt-1.3b/weak-opt-125m/paper-hh/dpo",
            "teachers/opt-125m/paper-hh-teacher/dpo",
        )
    ]
    assert drawn.experiment_responses("a_table_2") == [
        drawn.manifest(f"responses/{cell}/unlabelled/golds/mistral-unified-feedback")
    ]
    assert drawn.experiment_responses("a_figure_2a") == drawn.experiment_votes("a_figure_2a") == []
    assert drawn.rewards("a_table_2") == []


def test_golds_of_an_experiment_win_over_the_evaluation_s() -> None:
    drawn = plan("paper-a")
    assert {path.split("/")[-2] for path in drawn.rewards("a_figure_5")} == {
        "deberta-v3-large-v2",
        "rm-mistral-7b",
    }
    assert "--main-gold deberta-v3-large-v2" in drawn.summarise("a_figure_5")


def test_tables_know_each_recipe_s_beta() -> None:
    words = shlex.split(plan("paper-a").summarise("a_figure_7"))
    betas = json.loads(words[words.index("--betas") + 1])
    assert sorted(betas.values()) == [0.05, 0.1, 0.2, 0.3, 0.5]
    assert betas["paper-hh"] == 0.1


def test_tables_know_the_recipes_without_sft() -> None:
    drawn = plan("paper-a")
    words = shlex.split(drawn.summarise("a_table_11"))
    assert words[words.index("--without-sft") + 1] == "paper-hh-without-sft"
    assert "--without-sft" not in drawn.summarise("a_figure_7")


def test_recipes_are_shown_as_they_are_trained() -> None:
    """Tables 7 and 8 of paper A."""
    drawn = plan("paper-a")
    for item, recipe, rate, beta in (
        ("a_table_7", "paper-hh", 5e-5, 0.1),
        ("a_table_8", "paper-tldr", 5e-6, 0.5),
    ):
        words = shlex.split(drawn.summarise(item))
        shown = json.loads(words[words.index("--recipes") + 1])
        assert list(shown) == [recipe]
        sft, preferences = shown[recipe]["sft"], shown[recipe]["dpo"]
        assert (sft["learning_rate"], sft["batch_size"], sft["epochs"], sft["lora_rank"]) == (1e-5, 32, 1, 0)
        assert (preferences["learning_rate"], preferences["beta"], preferences["batch_size"]) == (
            rate,
            beta,
            16,
        )
        assert preferences["lora_rank"] == 8


def test_how_a_judge_is_reached_is_no_part_of_what_it_says() -> None:
    drawn = plan("paper-a")
    faster = {"gpt-4": {"concurrency": 1, "budget_usd": 7, "base_url_variable": "ELSEWHERE"}}
    other = plan("paper-a", judges=faster)
    assert all_specs(drawn) == all_specs(other)
    assert drawn.judge_options("gpt-4") != other.judge_options("gpt-4")
    for stage in ("judge_preferences", "judge_comparisons", "judge_votes"):
        parser = importlib.import_module(stage).arguments().parser
        known = {flag for action in parser._actions for flag in action.option_strings}
        given = {word for word in shlex.split(drawn.judge_options("gpt-4")) if word.startswith("--")}
        assert given <= known, stage


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
