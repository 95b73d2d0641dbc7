"""The configuration: what is accepted, what is refused, and what the refusal says."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from preset_files import BASE, PRESETS, ROOT, merged
from w2s.config import all_feedback, expand_origin, load_config, merge, nearest, read_yaml
from w2s.errors import ConfigError
from w2s.schema import Config


def load(*overlays: dict[str, Any]) -> Config:
    return load_config(merged(None, *overlays), [BASE])


def refusal(*overlays: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        load(*overlays)
    return str(error.value)


def at(dotted: str, value: Any) -> dict[str, Any]:
    """``at("a.b", 1)`` -> ``{"a": {"b": 1}}``; a slash instead of the dots where a name holds dots."""
    keys = dotted.split("/") if "/" in dotted else dotted.split(".")
    for key in reversed(keys):
        value = {key: value}
    return value


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_the_shipped_files_load(preset: str | None) -> None:
    """By itself the catalogue means paper A's full grid, under the name that the preset of the paper has."""
    config = load_config(merged(preset), [BASE, *PRESETS.get(preset or "", [])])
    assert config.preset == (preset or "paper-a")
    assert set(config.run) <= {*config.experiments, *config.transfers, *config.mixtures}


def test_the_demo_of_paper_a_runs_what_paper_a_runs_and_nothing_of_its_models() -> None:
    paper, demo = (load_config(merged(name)) for name in ("paper-a", "demo-paper-a"))
    assert [name for name in demo.run if not name.startswith("beyond")] == paper.run
    for name in paper.run:
        one, other = paper.experiments[name], demo.experiments[name]
        for key in ("figure", "layout", "steps", "untuned", "shares", "examples", "responses"):
            assert getattr(one, key) == getattr(other, key), f"{name}.{key}"
        for key in ("comparison", "votes", "similarity"):
            assert (getattr(one, key) is None) == (getattr(other, key) is None), f"{name}.{key}"
        assert len(one.recipes) == len(other.recipes), name
        assert [paper.feedback[item].policy for item in one.feedback] == [
            demo.feedback[item].policy for item in other.feedback
        ], name
        assert not set(other.students) & set(paper.models)


def test_each_paper_s_item_has_a_target_of_its_own() -> None:
    items = [
        "figure_2a",
        "figure_2b",
        "figure_3a",
        "figure_3b",
        "figure_4a",
        "figure_4b",
        "figure_5",
        "figure_6",
        "figure_7",
    ]
    items += [f"table_{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)] + [
        "text_section_4",
        "seed_study",
    ]
    config = load_config(merged("paper-a"))
    assert config.run == [f"a_{item}" for item in items]
    assert all(config.experiments[name].figure for name in config.run)


def test_the_paper_s_hyper_parameters() -> None:
    """Tables 7 and 8 of paper A, as numbers."""
    recipe = load(read_yaml(ROOT / "presets" / "paper-a.yaml")).recipes["paper-hh"]
    assert (recipe.sft.learning_rate, recipe.sft.batch_size, recipe.sft.epochs) == (1e-5, 32, 1)
    assert (recipe.dpo.learning_rate, recipe.dpo.batch_size, recipe.dpo.epochs) == (5e-5, 16, 1)
    assert (recipe.dpo.beta, recipe.dpo.lora_rank, recipe.dpo.lora_alpha, recipe.dpo.lora_dropout) == (
        0.1,
        8,
        32,
        0.1,
    )
    assert recipe.sft.lora_rank == 0
    assert recipe.sft.loss_on == "completion"


# ------------------------------------------------------------------------------------------------------- unknown keys

UNKNOWN = [
    ("experimnts", {}, "experiments"),
    ("runtime.thread", 2, "threads"),
    ("recipes.paper-hh.dpo.learnig_rate", 1e-5, "learning_rate"),
    ("recipes.paper-hh.sft.beta", 0.1, "batch_size"),
    ("evaluations.paper-hh.temprature", 0.7, "temperature"),
    ("data.hh-helpful.resplit.tset_share", 0.1, "test_share"),
    ("experiments.a_figure_2a.feedbak", ["human"], "feedback"),
    ("recipes/paper-hh/per_model/opt-1.3b/dpo/bta", 0.1, "beta"),
    ("recipes/paper-hh/per_model/opt-1.3b/sfd", {}, "sft"),
    ("models/opt-1.3b/pretrain/wdith", 8, "width"),
    ("sources.hh-rlhf.license", "MIT", "licence"),
    ("feedback.human.polcy", "human", "policy"),
]


@pytest.mark.parametrize(("key", "value", "meant"), UNKNOWN, ids=[row[0] for row in UNKNOWN])
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(key: str, value: Any, meant: str) -> None:
    lines = refusal(at(key, value)).splitlines()
    dotted = key.replace("/", ".")
    assert lines[0] == f"unknown key {dotted.split('.')[-1]!r}"
    section = dotted.split(".")[0]
    assert lines[1] == "  where:   " + (f"{BASE}: {dotted}" if section in read_yaml(BASE) else dotted)
    assert lines[2].startswith("  instead: ")
    assert meant in lines[2]
    if meant != "batch_size":  # nothing of SFT is near 'beta'
        assert lines[2].startswith(f"  instead: {meant} (nearest of: ")


def test_an_unknown_key_in_a_list_names_its_place() -> None:
    files = copy.deepcopy(read_yaml(BASE)["data"]["hh-helpful"]["files"])
    files[3]["pth"] = files[3].pop("path")
    text = refusal(at("data.hh-helpful.files", files))
    assert "unknown key 'pth'" in text
    assert "data.hh-helpful.files.3.pth" in text
    assert "instead: path (nearest of: path, source, split, subset)" in text


def test_all_problems_are_told_at_once() -> None:
    text = refusal(at("runtime.thread", 2), at("recipes.paper-hh.dpo.beta", "high"), at("preset", 3))
    assert "unknown key 'thread'" in text
    assert "recipes.paper-hh.dpo.beta" in text
    assert "preset" in text


# ---------------------------------------------------------------------------------------- the file that a key is from


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The base, then a preset that overlays it."""
    base, preset = tmp_path / "config.yaml", tmp_path / "preset.yaml"
    base.write_text(BASE.read_text())
    return [base, preset]


def refusal_of_files(files: list[Path]) -> str:
    raw = merge(read_yaml(files[0]), read_yaml(files[1]))
    with pytest.raises(ConfigError) as error:
        load_config(raw, files)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("runtime: {thread: 2}", "runtime.thread", "instead: threads"),
        (
            "recipes: {paper-hh: {dpo: {beta: high}}}",
            "recipes.paper-hh.dpo.beta",
            "a number is expected (got 'high')",
        ),
        ("preset: 3", "preset", "a text is expected (got 3)"),
        ("run: [a_figur_2a]", "run.0", "instead: a_figure_2a"),
        ("data: {hh-helpful: {max_tokens: 4000}}", "data.hh-helpful.max_tokens", "max_tokens: 2047 or less"),
    ],
)
def test_a_preset_s_mistake_names_the_preset(files: list[Path], text: str, key: str, said: str) -> None:
    files[1].write_text(text)
    message = refusal_of_files(files)
    assert f"{files[1]}: {key}" in message
    assert f"{files[0]}: {key}" not in message
    assert said in message


def test_a_mistake_of_the_base_names_the_base(files: list[Path]) -> None:
    files[1].write_text("preset: mine")
    files[0].write_text(files[0].read_text().replace("test_share: 0.1", "test_share: 1.5"))
    message = refusal_of_files(files)
    assert f"{files[0]}: data.hh-helpful.resplit.test_share" in message


@pytest.mark.parametrize("text", ["a: [1", "- a\n- b\n", "just text", "\tkey: 1", ""], ids=repr)
def test_a_file_that_is_no_yaml_mapping_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "preset.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"preset\.yaml"):
        read_yaml(path)


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "preset.yaml"
    path.write_bytes("preset: größe".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"(?s)not a readable YAML file.*preset\.yaml"):
        read_yaml(path)


# ------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("written", ["5e-7", '"5e-7"', "5.0e-7", "0.0000005", "'5E-07'", ".5e-6", "+5e-7"])
def test_a_number_is_a_number_however_it_is_written(written: str) -> None:
    overlay = yaml.safe_load(f"recipes: {{paper-hh: {{dpo: {{learning_rate: {written}}}}}}}")
    value = load(overlay).recipes["paper-hh"].dpo.learning_rate
    assert type(value) is float
    assert value == 5e-7


def test_a_number_among_one_model_s_settings_is_a_number() -> None:
    overlay = yaml.safe_load("recipes: {paper-hh: {per_model: {opt-13b: {dpo: {learning_rate: 5e-7}}}}}")
    recipe = load(overlay).recipes["paper-hh"]
    assert recipe.step("opt-13b", "dpo").learning_rate == 5e-7
    assert recipe.step("opt-1.3b", "dpo").learning_rate == 5e-5
    assert recipe.step("opt-13b", "dpo").batch_size == 16
    assert recipe.step("opt-13b", "sft") == recipe.sft


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    value = load(yaml.safe_load("data: {hh-helpful: {limit: 1e3}}")).data["hh-helpful"].limit
    assert type(value) is int
    assert value == 1000


WRONG = [
    ("recipes.paper-hh.dpo.learning_rate", True, "a number is expected, not true or false"),
    ("recipes.paper-hh.dpo.learning_rate", "fast", "a number is expected (got 'fast')"),
    ("recipes.paper-hh.dpo.learning_rate", "5e-7x", "a number is expected (got '5e-7x')"),
    ("recipes.paper-hh.dpo.learning_rate", [1e-5], "a number is expected (got [1e-05])"),
    ("recipes.paper-hh.dpo.learning_rate", 0, "greater than 0"),
    ("recipes.paper-hh.dpo.learning_rate", -1e-5, "greater than 0"),
    ("recipes.paper-hh.dpo.learning_rate", float("inf"), "a finite number is expected"),
    ("recipes.paper-hh.dpo.learning_rate", float("nan"), "a finite number is expected"),
    ("recipes.paper-hh.dpo.learning_rate", "inf", "a finite number is expected"),
    ("recipes.paper-hh.dpo.learning_rate", None, "a number is expected"),
    ("recipes.paper-hh.sft.batch_size", 32.5, "a whole number is expected"),
    ("recipes.paper-hh.sft.batch_size", 0, "greater than or equal to 1"),
    ("recipes.paper-hh.sft.batch_size", False, "a number is expected, not true or false"),
    ("recipes.paper-hh.sft.loss_on", "prompt", "'completion' or 'all'"),
    ("recipes.paper-hh.dpo.lora_dropout", 1, "less than 1"),
    ("recipes.paper-hh.dpo.loss_type", "sigmod", "not a valid value (got 'sigmod')"),
    ("recipes.paper-hh.dpo.label_smoothing", 0.5, "less than 0.5"),
    ("recipes.paper-hh.dpo.label_smoothing", -0.1, "greater than or equal to 0"),
    ("recipes.paper-hh.dpo.soft_labels", 0.3, "true or false is expected (got 0.3)"),
    ("recipes.paper-hh.sft", 3, "a mapping of keys is expected, not 3"),
    ("recipes.paper-hh.dpo", "fast", "a mapping of keys is expected, not 'fast'"),
    ("runtime.needs_gpu", "perhaps", "true or false is expected (got 'perhaps')"),
    ("runtime.launcher", "fast", "'plain' or 'worker'"),
    ("experiments.a_figure_2a.seeds", 1, "a list is expected (got 1)"),
    ("experiments.a_figure_2a.seeds", [], "the list is empty"),
    ("experiments.a_figure_2a.seeds", ["one"], "a whole number is expected (got 'one')"),
    ("experiments.a_figure_2a.students", "opt-1.3b", "a list is expected (got 'opt-1.3b')"),
    ("experiments.a_figure_2a.shares", ["half"], "a fraction, such as 1/2"),
    ("experiments.a_figure_2a.shares", ["1/4", "3/2"], "share 3/2 is not between 0 and 1"),
    ("experiments.a_figure_2a.shares", [0.5], "a text is expected (got 0.5)"),
    ("experiments.a_figure_2a.shares", "1/2", "a list is expected (got '1/2')"),
    ("experiments.a_figure_2a.shares", [], "the list is empty"),
    ("experiments.a_figure_2a.figure", "bar", "not a valid value (got 'bar')"),
    ("experiments.a_figure_2a.layout", "wide", "not a valid value (got 'wide')"),
    ("experiments.a_figure_2a.examples", -1, "greater than or equal to 0"),
    ("recipes.paper-hh-teacher.same_steps_as", "half", "a fraction, such as 1/2"),
    ("judges.gpt-4.temperature", -1, "greater than or equal to 0"),
    ("feedback.weak-opt-125m.tie", "third", "'second' or 'first'"),
    ("feedback.prompted-gpt-4.template", "rude", "'helpful-1' or 'harmless-1'"),
    ("evaluations.paper-hh.golds", [], "the list is empty"),
    ("sources.hh-rlhf.revision", "main", "a commit hash, 40 hex digits"),
    ("sources.hh-rlhf.files", {"a.jsonl": "abc"}, "a SHA-256 digest, 64 hex digits"),
    ("sources", None, "a mapping of keys is expected"),
    ("preset", "a/b", "a name of letters"),
    ("run", [], "the list is empty"),
]


@pytest.mark.parametrize(("key", "value", "said"), WRONG, ids=[f"{row[0]}={row[1]}" for row in WRONG])
def test_a_wrong_value_names_file_key_and_what_is_expected(key: str, value: Any, said: str) -> None:
    text = refusal(at(key, value))
    assert said in text
    assert f"{BASE}: {key}" in text


def test_a_missing_key_is_named() -> None:
    raw = read_yaml(BASE)
    del raw["recipes"]["paper-hh"]["dpo"]["beta"]
    with pytest.raises(ConfigError, match=r"(?s)key 'beta' is missing.*recipes\.paper-hh\.dpo\.beta"):
        load_config(raw, [BASE])


# ------------------------------------------------------------------------------------------------------ dangling names

DANGLING = [
    ("run", ["a_figure_2"], "experiments", "a_figure_2a"),
    ("experiments.a_figure_2a.students", ["opt-1.3b", "opt-1.4b"], "models", "opt-1.3b"),
    ("experiments.a_figure_2a.data", ["hh-helful"], "data", "hh-helpful"),
    ("experiments.a_figure_2a.feedback", ["humans"], "feedback", "human"),
    ("experiments.a_figure_2a.recipes", ["paper-tldr", "paper-tl"], "recipes", "paper-tldr"),
    ("experiments.a_figure_2a.golds", ["mistral"], "golds", "mistral-unified-feedback"),
    ("experiments.a_figure_3b.comparison.judge", "gpt-5", "judges", "gpt-4"),
    ("experiments.a_table_4.votes.judge", "gpt-5", "judges", "gpt-4"),
    ("experiments.a_figure_6.similarity.encoder", "bleurt", "models", "bleurt-base"),
    ("feedback.prompted-gpt-4.judge", "gpt-5", "judges", "gpt-4"),
    ("feedback.match-opt-125m.of", ["weak-opt-126m"], "feedback", "weak-opt-125m"),
    ("recipes.paper-hh-soft.sft_of", "paper-tl", "recipes", "paper-tldr"),
    ("experiments.a_figure_2a.evaluation", "paper", "evaluations", "paper-hh"),
    ("evaluations.paper-hh.golds", ["mistral"], "golds", "mistral-unified-feedback"),
    ("golds.mistral-unified-feedback.model", "gold-mistral", "models", "gold-mistral-7b"),
    ("feedback.weak-opt-125m.teacher", "opt-126m", "models", "opt-125m"),
    ("feedback.weak-opt-125m.recipe", "paper-tld", "recipes", "paper-tldr"),
    ("tokenizers.opt.source", "opt-125", "sources", "opt-125m"),
    ("data.hh-helpful.tokenizer", "optt", "tokenizers", "opt"),
    ("models/opt-13b/source", "opt-13", "sources", "opt-13b"),
]


@pytest.mark.parametrize(("key", "value", "section", "meant"), DANGLING, ids=[row[0] for row in DANGLING])
def test_a_name_that_nothing_declares_is_refused(key: str, value: Any, section: str, meant: str) -> None:
    text = refusal(at(key, value))
    assert f"is not declared under {section}" in text
    assert f"instead: {meant} (nearest of: " in text
    assert f"{BASE}: {key.replace('/', '.')}" in text


def test_settings_for_an_unknown_model_are_refused() -> None:
    text = refusal(at("recipes/paper-hh/per_model/opt-1.2b/sft/epochs", 2))
    assert "'opt-1.2b' is not declared under models" in text
    assert "recipes.paper-hh.per_model.opt-1.2b" in text


def test_a_source_named_by_a_data_file_is_looked_up() -> None:
    files = copy.deepcopy(read_yaml(BASE)["data"]["hh-helpful"]["files"])
    files[2]["source"] = "hh-rlfh"
    text = refusal(at("data.hh-helpful.files", files))
    assert "'hh-rlfh' is not declared under sources" in text
    assert "data.hh-helpful.files.2.source" in text


def test_nearest_without_a_near_one_lists_all() -> None:
    assert nearest("zzz", ["human", "weak"]) == "one of: human, weak"
    assert nearest("zzz", []) == "one of: (none is declared)"


# ----------------------------------------------------------------------------------------------- impossible combinations

DEMO = read_yaml(ROOT / "presets" / "demo.yaml")
DEMO_A = merge(DEMO, read_yaml(ROOT / "presets" / "demo-paper-a.yaml"))
MAIN = {"run": ["a_figure_2a"]}
STEP = {"learning_rate": 0.1, "batch_size": 1}
IMPOSSIBLE = [
    ({}, at("feedback.gold", {"policy": "gold"}), at("experiments.a_figure_2a.feedback", ["human", "gold"]),
     "'hh-helpful' is no world and has none"),
    (DEMO, at("evaluations.demo.golds", ["exact"]), at("experiments.a_figure_2a.data", ["hh-helpful"]),
     "judge 'exact' knows world 'demo', but data set 'hh-helpful' is not of that world"),
    ({}, at("data.hh-helpful.max_tokens", 2048), {}, "sequences of up to 2049 tokens (end-of-sequence token included) do not fit"),
    (DEMO, at("experiments.a_figure_2a.students", ["demo-gold"]), {}, "'demo-gold' is a reward model"),
    ({}, at("experiments.a_figure_2a.seeds", [22, 22]), {}, "a seed occurs twice"),
    ({}, at("feedback", {"teacher-1": {"policy": "human"}}), {}, "tables and figures read the policy from its name"),
    ({}, at("feedback.human.policy", "gold"), {}, "feedback 'human' follows policy 'gold'"),
    ({}, at("feedback.human.policy", "humn"), {}, "'humn' is no feedback policy"),
    ({}, at("feedback.human", {"teacher": "opt-125m", "recipe": "paper-hh"}), {}, "policy 'human' takes no teacher"),
    ({}, at("feedback.everything.of", ["human"]), {}, "policy 'everything' takes no of"),
    ({}, at("feedback.weak-opt-125m.teacher", None), {}, "policy 'weak' needs the keys teacher, recipe"),
    ({}, at("feedback.weak-opt-125m.judge", "gpt-4"), {}, "policy 'weak' takes no judge"),
    ({}, at("feedback.weak-opt-125m.of", ["human"]), {}, "policy 'weak' takes no of"),
    ({}, at("feedback.prompted-gpt-4.judge", None), {}, "policy 'prompted' needs the keys judge"),
    ({}, at("feedback.prompted-gpt-4.teacher", "opt-125m"), {}, "policy 'prompted' takes no teacher"),
    ({}, at("feedback.match-opt-125m.of", []), {}, "policy 'match' needs the keys of"),
    ({}, at("feedback.match-opt-125m.recipe", "paper-hh"), {}, "policy 'match' takes no recipe"),
    ({}, at("feedback.reward-opt-125m.recipe", "paper-hh"), {}, "policy 'reward' needs a recipe with the key reward"),
    ({}, at("feedback.weak-opt-125m.recipe", "paper-hh-reward"), {}, "policy 'weak' needs a recipe with the key dpo"),
    ({}, at("feedback.weak-opt-125m.recipe", "paper-hh-without-sft"), {}, "a teacher begins with SFT"),
    ({}, at("feedback.confident-opt-125m.options", {"shar": 0.5}), {}, "policy 'confident' has no option 'shar'"),
    ({}, at("feedback.human.options", {"share": 0.5}), {}, "policy 'human' has no option 'share'"),
    ({}, at("feedback.random-opt-125m.of", ["random-opt-125m"]), {}, "feedback 'random-opt-125m' begins with itself"),
    ({}, at("feedback.random-opt-125m.of", ["mismatch-random"]), {}, "feedback 'mismatch-random' begins with itself"),
    ({}, at("recipes/paper-hh-beta-0.2/sft_of", "paper-hh-beta-0.3"), {}, "recipe 'paper-hh-beta-0.3' has no SFT of its own"),
    ({}, at("recipes.paper-hh-soft.sft_of", "paper-hh-without-sft"), {}, "recipe 'paper-hh-without-sft' has no SFT of its own"),
    ({}, at("recipes.paper-hh.sft", None), {}, "exactly one of the keys sft, sft_of, without_sft is needed beside dpo"),
    ({}, at("recipes.paper-hh.sft_of", "paper-tldr"), {}, "exactly one of the keys sft, sft_of, without_sft is needed beside dpo"),
    ({}, at("recipes.paper-hh.without_sft", True), {}, "exactly one of the keys sft, sft_of, without_sft is needed beside dpo"),
    ({}, at("recipes.paper-hh.reward", STEP), {}, "exactly one of the keys dpo, reward is needed, got dpo, reward"),
    ({}, at("recipes.paper-hh-reward.sft", STEP), {}, "a reward model begins at the base model"),
    ({}, at("experiments.a_figure_2a.recipes", ["paper-hh-reward"]), {}, "recipe 'paper-hh-reward' has no DPO"),
    ({}, at("experiments.a_figure_2a.recipes", ["paper-hh-teacher"]), {}, "has same_steps_as, which is for teachers only"),
    ({}, at("experiments.a_figure_2a.recipes", []), {}, "students need recipes, and recipes students"),
    ({}, at("experiments.a_figure_2a.students", []), {}, "students need recipes, and recipes students"),
    ({}, at("experiments.a_table_2.comparison", {"judge": "gpt-4"}), {}, "comparison needs students"),
    ({}, at("experiments.a_table_2.similarity", {"encoder": "bleurt-base"}), {}, "similarity needs students"),
    ({}, at("experiments.a_figure_3b.feedback", ["weak-opt-125m"]), {}, "comparison needs the arm 'human'"),
    ({}, at("experiments.a_figure_6.feedback", ["weak-opt-125m"]), {}, "similarity needs the arm 'human'"),
    ({}, at("experiments.a_table_3.feedback", ["match-opt-125m"]), {}, "examples are drawn from the disagreement set"),
    ({}, at("judges.gpt-4.budget_usd", None), {}, "a judge with prices needs the key budget_usd"),
    ({}, at("judges.gpt-4.model", None), {}, "exactly one of the keys model, world is needed, got none"),
    (DEMO_A, at("judges.demo.model", "gpt-4"), {}, "exactly one of the keys model, world is needed, got model, world"),
    (DEMO_A, at("experiments.a_table_4.data", ["world-b"]), {}, "judge 'demo' knows world 'demo', but data set 'world-b' is not of that world"),
    (DEMO_A, at("experiments.a_figure_2b.data", ["world-b"]), {}, "judge 'demo' knows world 'demo', but data set 'world-b' is not of that world"),
    ({}, at("tokenizers.opt.corpus", "x"), {}, "exactly one of the keys source, corpus is needed, got source, corpus"),
    ({}, at("models/opt-13b/source", None), {}, "exactly one of the keys source, pretrain, reward is needed, got none"),
    ({}, at("models/opt-13b/positions", None), {}, "a fetched model needs the keys positions and parameters"),
    ({}, at("data.hh-helpful.adapter", "world"), {}, "adapter: world needs the keys world and temperature"),
    ({}, at("data.hh-helpful.files", []), {}, "adapter: hh needs a list of files"),
    (DEMO, at("models.demo-s.pretrain.width", 66), {}, "width 66 is not a multiple of heads 4"),
    (DEMO, at("models.demo-s.pretrain.max_tokens", 500), {}, "max_tokens 500 exceeds positions 128"),
    (DEMO, at("corpora.demo.texts", 0), {}, "texts must be at least 1"),
    ({}, at("sources.hh-rlhf.kind", "local"), {}, "a local source has no revision"),
]  # fmt: skip


WITHOUT_EFFECT = [
    (at("recipes.paper-hh.dpo.label_smoothing", 0.2), "label_smoothing is not read by loss_type: sigmoid",
     "recipes.paper-hh.dpo.label_smoothing", "0, or loss_type: robust"),
    (at("recipes/paper-hh/per_model/opt-13b/dpo", {"label_smoothing": 0.2, "loss_type": "ipo"}),
     "label_smoothing is not read by loss_type: ipo",
     "recipes.paper-hh.per_model.opt-13b.dpo.label_smoothing", "0, or loss_type: robust"),
    (merge({**MAIN, **at("experiments.a_figure_2a.feedback", ["human"])}, at("recipes.paper-hh.dpo.soft_labels", True)),
     "soft_labels changes nothing for 'opt-1.3b'", "recipes.paper-hh.dpo.soft_labels", "a feedback of policy weak"),
    (merge({**MAIN, **at("experiments.a_figure_2a.feedback", ["human", "everything"])},
           at("recipes/paper-hh/per_model/opt-13b/dpo/confidence_weights", True)),
     "confidence_weights changes nothing for 'opt-13b'",
     "recipes.paper-hh.per_model.opt-13b.dpo.confidence_weights", "a feedback of policy weak"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("overlay", "said", "key", "instead"), WITHOUT_EFFECT, ids=[r[2] for r in WITHOUT_EFFECT]
)
def test_a_dpo_setting_without_effect_is_refused(overlay: dict, said: str, key: str, instead: str) -> None:
    text = refusal(overlay)
    assert said in text
    assert f": {key}\n" in text
    assert instead in text.splitlines()[-1]


@pytest.mark.parametrize(
    "dpo",
    [
        {"loss_type": "robust", "label_smoothing": 0.2},
        {"soft_labels": True, "confidence_weights": True},
        {"loss_type": "ipo", "label_smoothing": 0},
    ],
)
def test_dpo_settings_with_an_effect_are_accepted(dpo: dict) -> None:
    """The weak arm's labels have probabilities; people's are certain, and the same settings leave their arm as it is."""
    assert load(at("recipes.paper-hh.dpo", dpo)).recipes["paper-hh"].dpo.model_dump().items() >= dpo.items()


def test_a_recipe_that_another_experiment_learns_weak_labels_by_is_accepted() -> None:
    """Table 7 shows the recipe of the human arm alone; Figure 2a trains with it on weak labels."""
    soft = at("recipes.paper-hh.dpo.soft_labels", True)
    assert "changes nothing" in refusal({"run": ["a_table_7"]}, soft)
    assert load({"run": ["a_figure_2a", "a_table_7"]}, soft).recipes["paper-hh"].dpo.soft_labels  # type: ignore[union-attr]


def test_what_no_experiment_to_run_trains_is_not_refused() -> None:
    sft_only = {**MAIN, **at("experiments.a_figure_2a", {"feedback": ["human"], "steps": ["sft"]})}
    assert load(sft_only, at("recipes.paper-hh.dpo.soft_labels", True)).recipes["paper-hh"].dpo.soft_labels


def test_null_for_one_model_is_the_recipe_s_own_value() -> None:
    config = load(at("recipes/paper-hh/per_model/opt-13b/dpo", {"beta": None, "learning_rate": 1e-5}))
    dpo = config.recipes["paper-hh"].step("opt-13b", "dpo")
    assert (dpo.beta, dpo.learning_rate) == (0.1, 1e-5)  # type: ignore[union-attr]


@pytest.mark.parametrize(("preset", "one", "two", "said"), IMPOSSIBLE, ids=[row[3] for row in IMPOSSIBLE])
def test_an_impossible_combination_is_refused(preset: dict, one: dict, two: dict, said: str) -> None:
    text = refusal(preset, one, two)
    assert said in text
    assert "  where:   " in text


def test_a_sequence_that_just_fits_is_accepted() -> None:
    assert load(at("data.hh-helpful.max_tokens", 2047)).data["hh-helpful"].max_tokens == 2047


def without_human() -> dict[str, Any]:
    """A catalogue that declares no human labels, and one experiment on a teacher's."""
    raw = merged("paper-a", MAIN)
    raw["experiments"] = {"a_figure_2a": {**raw["experiments"]["a_figure_2a"], "feedback": ["weak-opt-125m"]}}
    raw["feedback"] = {"weak-opt-125m": raw["feedback"]["weak-opt-125m"]}
    return raw


def test_teachers_need_people_s_labels() -> None:
    with pytest.raises(ConfigError, match=r"teachers learn from feedback 'human'") as error:
        load_config(without_human())
    assert "human: {policy: human}" in str(error.value)


def test_teachers_behind_other_feedback_need_positions_too() -> None:
    """The ensemble's members are trained, though the experiment names the ensemble alone."""
    overlay: dict[str, Any] = {"run": ["beyond_feedback"], "models": {"pythia-160m": {"positions": 100}}}
    assert "100 positions of model 'pythia-160m'" in refusal(overlay)


def test_all_that_a_feedback_is_made_of() -> None:
    config = load()
    table = config.experiments["a_table_12"]
    assert all_feedback(config, table) == [
        "human", "weak-opt-125m", "mismatch-opt-125m", "random-opt-125m", "match-random", "mismatch-random",
    ]  # fmt: skip
    alone = table.model_copy(update={"feedback": ["mismatch-random"]})
    assert all_feedback(config, alone) == ["mismatch-random", "random-opt-125m", "weak-opt-125m"]


# ---------------------------------------------------------------------------------------------------- merge and origins


@pytest.mark.parametrize(
    ("base", "overlay"),
    [
        ({"a": 1}, {"b": 2}),
        ({"a": {"b": 1, "c": {"d": 2}}}, {"a": {"c": {"e": 3}}}),
        ({"a": {"b": 1}}, {"a": 2}),
        ({"a": 2}, {"a": {"b": 1}}),
        ({"a": [1, 2]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": {}}),
        ({"a": {"b": 1}}, {"a": None}),
        ({"a": None}, {"a": {"b": 1}}),
        ({}, {"a": {"b": {}}}),
        *[(read_yaml(BASE), read_yaml(file)) for files in PRESETS.values() for file in files],
        (merged("demo"), read_yaml(ROOT / "presets" / "demo-paper-a.yaml")),
    ],
)
def test_merge_is_snakemake_s_own(base: dict, overlay: dict) -> None:
    from snakemake.utils import update_config

    theirs = copy.deepcopy(base)
    update_config(theirs, copy.deepcopy(overlay))
    untouched = copy.deepcopy(base)
    assert merge(base, overlay) == theirs
    assert base == untouched


def test_origins_with_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_TEST_DATA", "/data/hh")
    assert expand_origin("${W2S_TEST_DATA}/base", "hh") == "/data/hh/base"
    assert expand_origin("/plain", "hh") == "/plain"
    for unset in (None, ""):
        if unset is None:
            monkeypatch.delenv("W2S_TEST_DATA")
        else:
            monkeypatch.setenv("W2S_TEST_DATA", unset)
        with pytest.raises(
            ConfigError, match="(?s)W2S_TEST_DATA is not set.*sources.hh.origin.*export W2S_TEST_DATA="
        ):
            expand_origin("${W2S_TEST_DATA}/base", "hh")


def test_a_feedback_is_named_after_its_policy() -> None:
    raw = merge(read_yaml(ROOT / "config.yaml"), {"feedback": {"crowd": {"policy": "human"}}})
    with pytest.raises(ConfigError, match=r"feedback 'crowd' follows policy 'human'") as caught:
        load_config(raw)
    assert "human-crowd" in str(caught.value)
