"""What the plan writes, the stages read: every command line of paper B's presets is one that its script accepts.

In the authors' code the driver passes an option that the evaluation refuses, so that it never ran end to end.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from preset_files import ROOT, merged
from w2s.config import load_config, read_yaml
from w2s.plan import Plan
from w2s.transfer_runs import PLAIN, REFINED, TUNED, WEAK

sys.path.insert(0, str(ROOT / "scripts"))
API = ROOT / "presets" / "development" / "paper-b-api.yaml"


def plan_of(preset: str, *overlays: Path) -> Plan:
    return Plan(load_config(merged(preset, *map(read_yaml, overlays))))


def accept(script: str, words: str) -> argparse.Namespace:
    """Parse a command line whose inputs and outputs are filled in."""
    module = importlib.import_module(script)
    if script == "import_questions":
        written = ["--answers", "y"] if "--adapter written" in words else []
        return module.arguments([*shlex.split(words), "--output", "x/manifest.json", *written])
    stage = module.arguments()
    argv = shlex.split(words)
    for group in stage.parser._action_groups:
        if (group.title or "").startswith(("inputs", "outputs")):
            for action in group._group_actions:
                argv += [action.option_strings[0], "x/manifest.json"]
    return stage.parse_args(argv)


def lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """(script, spec and options) of all that the transfers of a preset need."""
    for transfer in plan.transfers:
        yield "tabulate_transfer", plan.tabulate_transfer(transfer)
        for questions in plan.transfer_questions(transfer):
            yield "import_questions", plan.import_questions(questions)
        for name in plan.asked(transfer):
            yield from of_answers(plan, name)
            yield "score_answers", plan.score_answers(name)
    for mixture in plan.config.mixtures:
        yield "simulate_mixture", plan.simulate_mixture(mixture)


def of_answers(plan: Plan, name) -> Iterator[tuple[str, str]]:
    writer = plan.config.writers[plan.writer(name)]
    wording = plan.prompts(name).removeprefix(plan.path("prompts") + "/").removesuffix("/manifest.json")
    yield "write_prompts", plan.write_prompts(wording)
    if writer.model:
        yield "answer_prompts", plan.answer_prompts(name)
    else:
        yield (
            "request_answers",
            f"{plan.request_answers(name)} {plan.endpoint_options(plan.writer(name))}",
        )
    if name.kind == TUNED and name.fine_tuning in plan.config.fine_tunings:
        yield "gather_records", plan.gather_records(name)
        if writer.model:
            yield "tune_student", plan.tune_student(name.base, name.fine_tuning, str(name.seed))
        else:
            spec = plan.request_tuning(name.base, name.fine_tuning, str(name.seed))
            yield "request_tuning", f"{spec} {plan.tuning_options(name.base)}"
    test = plan.config.tasks[name.task].tests.get(name.questions)
    if test and test.ratings:
        ratings = test.ratings
        spec = plan.rate_answers(ratings.judge, ratings.template, str(ratings.samples))
        yield "rate_answers", f"{spec} {plan.judge_options(ratings.judge)}"


@pytest.mark.parametrize(
    ("preset", "overlays"),
    [("demo-paper-b", ()), ("real-questions", ()), ("paper-b", ()), ("paper-b", (API,))],
    ids=["demo-paper-b", "real-questions", "paper-b", "paper-b-api"],
)
def test_every_command_line_is_accepted(
    preset: str, overlays: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("W2S_QUESTIONS", "W2S_HH_DATA", "W2S_OPT_TOKENIZER"):
        monkeypatch.setenv(variable, "somewhere")
    found = set(lines(plan_of(preset, *overlays)))
    scripts = {script for script, _ in found}
    assert {"write_prompts", "gather_records", "score_answers", "tabulate_transfer"} <= scripts
    for script, words in sorted(found):
        accept(script, words)


def test_a_flag_that_a_stage_does_not_know_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        accept("gather_records", "--kinds weak --prompt-template plain-1 --model_type x")
    assert "--model_type" in capsys.readouterr().err


def test_all_kinds_of_answers_are_among_them() -> None:
    plan = plan_of("demo-paper-b")
    kinds = {name.kind for transfer in plan.transfers for name in plan.asked(transfer)}
    assert kinds == {PLAIN, WEAK, REFINED, TUNED}
