"""Names of a transfer's answers: each path is taken apart into the name that made it, wrong ones are named."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from w2s.errors import DataError
from w2s.transfer_runs import (
    AnswersName,
    RecordsName,
    parse_answers,
    parse_records,
    path,
    records_path,
)

CELL = ("persona", "truthful-qa", 3)
REFINED = {"weak": "falcon", "refiner": "gpt-4o", "refinement": "icl"}
NAMES = [
    AnswersName(*CELL, "plain", writer="gpt-3.5"),
    AnswersName(*CELL, "weak", writer="weak-falcon"),
    AnswersName(*CELL, "draft", writer="gpt-4o"),
    AnswersName(*CELL, "refined", **REFINED),
    AnswersName(*CELL, "refined", **REFINED, intents=True),
    AnswersName(*CELL, "refined", weak="", refiner="gpt-4o", refinement="own"),
    AnswersName(*CELL, "tuned", **REFINED, base="gpt-3.5", fine_tuning="default"),
    AnswersName(*CELL, "tuned", weak="falcon", refinement="naive", base="gpt-3.5", fine_tuning="default"),
    AnswersName("answers", "answers", 0, "weak", writer="seed-1"),
]


@pytest.mark.parametrize(
    ("name", "before"), list(product(NAMES, ["", "/r/answers/demo/scores/b/", "rated/j-t-10/"]))
)
def test_every_path_is_taken_apart_into_its_name(name, before):
    assert parse_answers(Path(before + path(name))) == name
    assert parse_answers(Path(before + path(name)) / "manifest.json") == name


def test_names_have_paths_of_their_own():
    assert len({path(name) for name in NAMES}) == len(NAMES)


def test_refiner_and_base_are_apart():
    """A student of one base whose labels another model refined is told from one of that other model."""
    mixed = AnswersName(*CELL, "tuned", **REFINED, base="gpt-3.5", fine_tuning="default")
    pure = AnswersName(*CELL, "tuned", **REFINED, base="gpt-4o", fine_tuning="default")
    assert path(mixed) != path(pure)
    assert (parse_answers(path(mixed)).refiner, parse_answers(path(mixed)).base) == ("gpt-4o", "gpt-3.5")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("scores/b/persona/truthful-qa/seed-0/weak/falcon", "which answers"),
        ("answers/persona/truthful-qa/weak/falcon", "which answers"),
        ("answers/persona/truthful-qa/seed-x/weak/falcon", "which answers"),
        ("answers/persona/truthful-qa/seed-0", "which answers"),
        ("answers/persona/truthful-qa/seed-0/weak", "1 parts, not 2"),
        ("answers/p/q/seed-0/weak-falcon/refiner-gpt/icl/more", "4 parts, not 3"),
        ("answers/p/q/seed-0/falcon/refiner-gpt/icl", "'falcon' does not begin with 'weak-'"),
        ("answers/p/q/seed-0/weak-falcon/gpt/icl", "'gpt' does not begin with 'refiner-'"),
        ("answers/p/q/seed-0/tuned/weak-f/refiner-g/icl/base-/default", "'base-' and a name"),
        ("answers/p/q/seed-0/tuned/weak-f/refiner-g/icl/default", "5 parts, not 6"),
    ],
)
def test_wrong_paths_are_named(wrong, words):
    with pytest.raises(DataError, match=words):
        parse_answers(wrong)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"kind": "tuned", **REFINED, "fine_tuning": "x"}, "need a base"),
        ({"kind": "refined", **REFINED, "base": "gpt"}, "no base"),
        ({"kind": "weak"}, "need a writer"),
        ({"kind": "weak", "writer": "none"}, "no name of a writer"),
        ({"kind": "plain", "writer": "gpt", "intents": True}, "no intents"),
        ({"kind": "strong", "writer": "gpt"}, "unknown kind"),
    ],
)
def test_names_without_their_parts_are_refused(parts, words):
    with pytest.raises(DataError, match=words):
        AnswersName(*CELL, **parts)


@pytest.mark.parametrize("weak", ["", "falcon"])
def test_training_sets_are_taken_apart(weak):
    name = RecordsName("persona", 2, weak, "gpt", "doubled")
    assert parse_records(Path("results/demo") / records_path(name) / "manifest.json") == name
    with pytest.raises(DataError, match="which records"):
        parse_records("records/persona/weak-a/refiner-b/icl")
