"""Paper B's plan: what is part of a key and what is shared, who is asked where, and what is refused before any job."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from preset_files import BASE, PRESETS, ROOT, merged
from w2s.config import load_config, merge, read_yaml
from w2s.errors import ConfigError
from w2s.plan import Plan
from w2s.transfer_runs import PLAIN, REFINED, TUNED, WEAK, AnswersName, parse_answers, parse_records

FILES = [BASE, *PRESETS["paper-b"]]
API = ROOT / "presets" / "development" / "paper-b-api.yaml"
WEAK_MODELS = {"falcon-7b-instruct", "llama-2-7b-chat", "mistral-7b-instruct-v0.2", "gemma-2b-it"}


def plan(*overlays: Mapping[str, Any]) -> Plan:
    return Plan(load_config(merged("paper-b", *overlays), FILES))


def transfer(**changes: Any) -> Plan:
    """``b_persona`` with other settings."""
    return plan({"run": ["b_persona"], "transfers": {"b_persona": changes}})


def tuned(drawn: Plan, name: str = "b_persona", **wanted: str) -> set[AnswersName]:
    """The students' answers of a transfer whose parts are as wanted."""
    found = {answers for answers in drawn.asked(name) if answers.kind == TUNED}
    return {one for one in found if all(getattr(one, part) == value for part, value in wanted.items())}


# ------------------------------------------------------------------------------------------------------------ keys


def test_the_presets_run_every_item_of_paper_b() -> None:
    items = ["persona", "explanation", "maths", "maths_math", "bias", "table_1", "examples", "theory"]
    for drawn in (plan(), plan(read_yaml(API))):
        assert drawn.config.run == [f"b_{item}" for item in items] == drawn.paper_items("b")
        assert all(drawn.figure_files(name) for name in drawn.config.run)
        assert not drawn.unpinned_sources()


def test_a_base_and_a_refiner_are_parts_of_every_key() -> None:
    """In the authors' code students of one base were filed under another model's name."""
    pairs = [
        ("qwen2.5-7b-instruct", "qwen2.5-7b-instruct"),
        ("llama-3.1-8b-instruct", "qwen2.5-7b-instruct"),
        ("qwen2.5-7b-instruct", "llama-3.1-8b-instruct"),
    ]
    drawn = transfer(students=[{"refiner": refiner, "base": base} for refiner, base in pairs])
    icl = tuned(drawn, refinement="icl-4")
    assert {(name.refiner, name.base) for name in icl} == set(pairs)
    assert len(icl) == len(pairs) * 4 * 3 * 2  # weak models, seeds, tests
    folders = {drawn.tuned_student(name) for name in icl}
    assert len(folders) == len(pairs) * 4 * 3  # tests share a student
    for name in icl:
        assert f"/refiner-{name.refiner}/" in drawn.tuned_student(name)
        assert f"/base-{name.base}/" in drawn.tuned_student(name)
        assert drawn.answering_model(name) == drawn.tuned_student(name)
        assert drawn.writer(name) == name.base


def test_naive_students_of_one_base_do_not_depend_on_the_refiner() -> None:
    base = "qwen2.5-7b-instruct"
    refiners = [base, "llama-3.1-8b-instruct"]
    drawn = transfer(students=[{"refiner": refiner, "base": base} for refiner in refiners])
    naive = tuned(drawn, refinement="naive")
    assert {name.refiner for name in naive} == {""}
    assert {name.weak for name in naive} == WEAK_MODELS
    assert all("/refiner-none/naive/" in drawn.tuned_student(name) for name in naive)
    assert len(naive) == 4 * 3 * 2


def test_own_and_gold_labels_do_not_depend_on_the_weak_model() -> None:
    drawn = plan()
    for refinement, refiners in (("own", {"qwen2.5-7b-instruct", "llama-3.1-8b-instruct"}), ("gold", {""})):
        names = tuned(drawn, "b_maths", refinement=refinement)
        assert {name.weak for name in names} == {""}
        assert {name.refiner for name in names} == refiners
        assert len(names) == 2 * 3  # students, seeds
        assert all("/weak-none/" in drawn.records(name) for name in names)


def test_every_key_is_read_back_from_its_path() -> None:
    drawn = plan()
    for name in drawn.config.run:
        for answers in drawn.asked(name) if name in drawn.config.transfers else ():
            assert parse_answers(drawn.answers(answers)) == answers
            assert parse_answers(drawn.answer_scores(answers)) == answers
            assert all(parse_answers(path) == answers for path in drawn.ratings(answers))
        for path in drawn.transfer_records(name) if name in drawn.config.transfers else ():
            assert parse_records(path).refinement in drawn.config.refinements


def test_transfers_of_one_task_share_what_they_share() -> None:
    drawn = plan()
    persona = {name for name in drawn.asked("b_persona") if name.base == "qwen2.5-7b-instruct"}
    assert persona and persona <= set(drawn.asked("b_table_1"))


def test_bootstrapping_goes_through_the_student_in_the_middle() -> None:
    drawn = plan()
    for name in tuned(drawn, "b_table_1", refinement="bootstrapped"):
        (middle,) = drawn.labels_of(name)
        assert (middle.kind, middle.refinement, middle.base) == (TUNED, "naive", "qwen2.5-1.5b-instruct")
        assert (middle.questions, middle.weak, middle.seed) == ("dolly", name.weak, name.seed)
        (weak,) = drawn.labels_of(middle)
        assert (weak.kind, weak.writer) == (WEAK, name.weak)


def test_labels_of_each_kind_come_from_who_wrote_them() -> None:
    drawn = plan()
    key = {"weak": "gemma-2b-it", "refiner": "qwen2.5-7b-instruct", "base": "qwen2.5-7b-instruct"}
    kinds = {
        name: [(one.kind, one.writer or one.refiner) for one in drawn.labels_of(answers)]
        for name in ("naive", "confidence", "own", "doubled", "icl-4", "infer", "improve")
        for answers in [AnswersName("persona", "x", 42, TUNED, **key, refinement=name, fine_tuning="lora")]
    }
    weak, own, refined = (WEAK, key["weak"]), (PLAIN, key["refiner"]), (REFINED, key["refiner"])
    assert kinds == {
        **dict.fromkeys(("naive", "confidence"), [weak]),
        **{"own": [own], "doubled": [weak, own]},
        **dict.fromkeys(("icl-4", "infer", "improve"), [refined]),
    }


def test_examples_at_test_time_are_weak_answers_to_training_questions() -> None:
    drawn = plan()
    timed = [name for name in drawn.asked("b_table_1") if name.refinement == "timed-4"]
    assert timed and all(name.kind == REFINED and name.questions != "dolly" for name in timed)
    wording = drawn.prompts(timed[0]).removeprefix("results/paper-b/prompts/").removesuffix("/manifest.json")
    inputs = drawn.prompt_inputs(wording)
    assert [parse_answers(path).questions for path in inputs["answers"]] == ["dolly"]
    assert inputs["example_questions"] == [drawn.questions("dolly")]


def test_biographies_are_written_before_they_are_corrupted() -> None:
    drawn = plan()
    writer = "qwen2.5-7b-instruct"
    weak = AnswersName("bias", "jobs", 42, "weak", writer=writer)
    wording = f"bias/jobs/seed-42/weak/{writer}"
    assert drawn.prompts(weak) == f"results/paper-b/prompts/{wording}/manifest.json"
    assert shlex.split(drawn.write_prompts(wording)) == ["--method", "improve", "--template", "corrupt-1"]
    (draft,) = drawn.prompt_inputs(wording)["answers"]
    name = parse_answers(draft)
    assert drawn.prompts(name) == "results/paper-b/prompts/bias/jobs/weak/manifest.json"
    assert "biography-1" in drawn.write_prompts("bias/jobs/weak")
    # Nobody corrupts answers to test questions, nor those of other tasks.
    for other in (("bias", "biographies"), ("persona", "dolly")):
        prompts = drawn.prompts(AnswersName(*other, 42, "weak", writer=writer))
        assert prompts == f"results/paper-b/prompts/{'/'.join(other)}/weak/manifest.json"


def test_both_sides_of_written_questions_come_from_the_same_lists() -> None:
    drawn = plan()
    assert drawn.written_answers("science-train") == drawn.written_answers("science-test") != []
    train, test = (shlex.split(drawn.import_questions(f"science-{side}")) for side in ("train", "test"))
    assert [train[train.index(flag) + 1] for flag in ("--part", "--seed")] == ["train", "0"]
    assert [test[test.index(flag) + 1] for flag in ("--part", "--seed")] == ["test", "0"]
    other = plan({"questions": {"science-test": {"seed": 1}}})
    assert other.written_answers("science-train") != other.written_answers("science-test")


def test_gold_answers_are_there_where_they_are_asked_for() -> None:
    drawn = plan()
    for name in ("b_maths", "b_maths_math"):
        task = drawn.config.tasks[drawn.config.transfers[name].task]
        for questions in (task.train, *task.tests):
            assert drawn.config.questions[questions].adapter in ("gsm8k", "math", "math-500")


# ---------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize("overlay", [{}, read_yaml(API)], ids=["open", "api"])
def test_each_answer_is_asked_of_one_rule(overlay: dict[str, Any]) -> None:
    """The patterns of ``answer_prompts`` and ``request_answers`` share no path: each writer is a model or an endpoint."""
    drawn = plan(overlay)
    config = drawn.config
    patterns = {kind: re.compile(drawn.asked_of(kind)) for kind in ("model", "endpoint")}
    names = {name for item in config.transfers for name in drawn.asked(item)}
    names |= {one for name in names if name.kind == TUNED for one in drawn.labels_of(name)}
    seen = set()
    for name in names:
        asked = drawn.answers(name).removeprefix("results/paper-b").split("/answers/")[1]
        asked = asked.removesuffix("/manifest.json")
        kind = "model" if config.writers[drawn.writer(name)].model else "endpoint"
        seen.add((name.kind, kind))
        assert [one for one, pattern in patterns.items() if pattern.fullmatch(asked)] == [kind], asked
        assert [one for one, pattern in patterns.items() if pattern.fullmatch(f"{asked}/intents")] == (
            [kind] if name.kind == REFINED else []
        )
    expected = "endpoint" if overlay else "model"
    assert {(TUNED, expected), (REFINED, expected), (WEAK, "model"), (PLAIN, expected)} <= seen


def test_a_writer_whose_name_begins_with_another_s_is_not_taken_for_it() -> None:
    """gpt-4o and gpt-4o-mini, behind endpoints; a model named gpt-4o-mini-local, here."""
    drawn = plan({"writers": {"gpt-4o-mini-local": {"model": "gemma-2b-it"}}})
    here, there = (re.compile(drawn.asked_of(kind)) for kind in ("model", "endpoint"))
    for writer, endpoint in (("gpt-4o", True), ("gpt-4o-mini", True), ("gpt-4o-mini-local", False)):
        for below in (f"weak/{writer}", f"tuned/weak-none/refiner-none/gold/base-{writer}/api"):
            asked = f"persona/dolly/seed-1/{below}"
            assert bool(there.fullmatch(asked)) == endpoint
            assert bool(here.fullmatch(asked)) != endpoint


def test_what_the_api_preset_tunes_is_tuned_by_the_api() -> None:
    drawn = plan(read_yaml(API))
    for name in drawn.config.transfers:
        for answers in drawn.asked(name) if name in drawn.config.run else ():
            if answers.kind == TUNED:
                assert answers.fine_tuning == "api"
                assert drawn.config.writers[answers.base].endpoint
    spec = drawn.request_tuning("gpt-3.5-turbo", "api", "42")
    assert "gpt-3.5-turbo-0125" in spec and "n_epochs" not in spec
    bases = {name.base for name in tuned(drawn, "b_persona")}
    assert bases == {"gpt-3.5-turbo"}  # as released, whoever refined


# -------------------------------------------------------------------------------------------------------- refusals

REFUSED = [
    (
        {"refinements": {"mine": {"method": "weak"}}},
        ["refinement 'mine' has method 'weak'", "refinements.mine", "begins with naive or confidence"],
    ),
    (
        {"refinements": {"icl-9": {"method": "icl", "shown": 9, "at_test_time": True}}},
        ["refinement 'icl-9'", "refinements.icl-9", "begins with timed"],
    ),
    (
        {"refinements": {"bootstrapped": {"through": {"refinement": "icl-4"}}}},
        ["the student in the middle", "refinements.bootstrapped.through.refinement", "of method weak"],
    ),
    (
        {"questions": {"persona": {"adapter": "topics"}}},
        ["'persona' is a set of questions too", "tasks.persona", "another name"],
    ),
    (
        {"tasks": {"persona": {"train": "alpaca-eval"}}},
        ["'alpaca-eval' is what students are taught with", "tasks.persona.tests", "other questions"],
    ),
    (
        {"tasks": {"persona": {"tests": {"alpaca-eval": {"metrics": ["world"]}}}}},
        ["the metric world needs", "tasks.persona.tests.alpaca-eval.metrics", "leave the metric out"],
    ),
    (
        {"tasks": {"persona": {"marker": []}}},
        ["the metric marker needs", "tasks.persona.tests.tiny-truthful-qa.metrics", "leave the metric out"],
    ),
    (
        {"tasks": {"persona": {"templates": {"respond": None}}}},
        ["needs the template respond", "transfers.b_persona.refinements", "tasks.persona.templates.respond"],
    ),
    (
        {"transfers": {"b_persona": {"fine_tuning": "api"}}},
        ["is tuned here, which 'api' is not for", "transfers.b_persona.fine_tuning", "the key sft"],
    ),
    (
        {"transfers": {"b_persona": {"students": [{"refiner": "gpt-4o-mini", "base": "gpt-4o-mini"}]}}},
        ["is tuned by its endpoint, which 'lora' is not for", "transfers.b_persona.fine_tuning", "key api"],
    ),
    (
        {"refinements": {"confidence": {"fine_tuning": "api"}}},
        ["tuned here, which 'api' is not for", "refinements.confidence.fine_tuning", "the key sft"],
    ),
    (
        {"refinements": {"bootstrapped": {"through": {"base": "gpt-4o-mini"}}}},
        ["tuned by its endpoint", "refinements.bootstrapped.through.fine_tuning", "the key api"],
    ),
]


@pytest.mark.parametrize(("overlay", "said"), REFUSED, ids=[row[1][1] for row in REFUSED])
def test_what_cannot_be_meant_is_refused_with_file_and_key(
    tmp_path: Path, overlay: dict[str, Any], said: list[str]
) -> None:
    import yaml

    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(overlay))
    with pytest.raises(ConfigError) as error:
        load_config(merged("paper-b", overlay), [*FILES, mine])
    for words in said:
        assert words in str(error.value)
    place = next(line for line in str(error.value).splitlines() if said[1] in line)
    assert re.search(r"(mine|config)\.yaml: ", place)


def test_a_transfer_that_does_not_run_may_be_unfinished() -> None:
    overlay = {"run": ["b_theory"], "transfers": {"b_persona": {"fine_tuning": "api"}}}
    assert load_config(merge(merged("paper-b"), overlay)).run == ["b_theory"]


@pytest.mark.parametrize(
    ("section", "entry", "said"),
    [
        ("writers", {"model": "gemma-2b-it", "endpoint": "gpt-4o"}, "exactly one of"),
        ("writers", {"endpoint": "gpt-4o", "temperature": 1.0}, "stand in its entry of judges"),
        ("refinements", {"method": "icl"}, "needs the key shown"),
        ("refinements", {"method": "weak", "shown": 2}, "no other method takes it"),
        ("refinements", {"method": "weak", "at_test_time": True}, "are for method: icl"),
        ("refinements", {"method": "bootstrapped"}, "needs the key through"),
        ("fine_tunings", {"sft": None}, "exactly one of"),
        ("fine_tunings", {"api": {}, "confidence": {}}, "no loss of one's own"),
        ("questions", {"adapter": "world"}, "needs the key world"),
        ("questions", {"adapter": "written"}, "needs the key written"),
        ("questions", {"adapter": "dolly", "first": 3, "sample": 3}, "at most one of the keys"),
    ],
)
def test_entries_that_contradict_themselves_are_refused(
    section: str, entry: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(merged("paper-b", {section: {"mine": entry}}), FILES)
    assert said in str(error.value) and f"{section}.mine" in str(error.value)
