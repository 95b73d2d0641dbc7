"""Training sets: what is learnt, from where, what is left out and why; doubling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gather_records
import pytest
from qa_artifacts import answers_to_texts, content, id_of, questions_artifact, rows_of
from w2s.artifact import load
from w2s.errors import ConfigError, DataError, JoinError

TEXTS = [f"{number} plus 1?" for number in range(6)]
IDS = list(map(id_of, TEXTS))
REFERENCES = ["one", None, "three", " ", "five", "six"]
Gather = Callable[..., Path]


@pytest.fixture
def gather(tmp_path: Path) -> Gather:
    """``gather(kinds, *answers, ...)`` runs the stage; returns the manifest."""
    questions = questions_artifact(tmp_path / "questions", TEXTS, REFERENCES)
    made: list[Path] = []

    def run(kinds: str, *answers: Path, template: str = "concept-plain-1", limit: int | None = None) -> Path:
        made.append(tmp_path / f"records-{len(made)}" / "manifest.json")
        words = ["--questions", questions, "--answers", *answers, "--kinds", *kinds.split()]
        words += ["--prompt-template", template, "--output", made[-1]]
        gather_records.main(list(map(str, words + (["--limit", limit] if limit else []))))
        return made[-1]

    return run


@pytest.fixture
def weak(tmp_path: Path) -> Path:
    answers = ["aye one", " aye two ", "", "aye", "aye two", "arr arr arr"]
    return answers_to_texts(tmp_path / "weak", TEXTS, answers, {3: "refused", 5: "length"})


def table(manifest: Path) -> list[tuple[str, ...]]:
    """(question's place, answer, source) of each record."""
    rows = rows_of(manifest, "records.parquet")
    return [(IDS.index(name), answer, source) for name, answer, source in zip(rows["id"], rows["answer"], rows["source"], strict=True)]  # fmt: skip


def gone(manifest: Path) -> list[tuple[object, ...]]:
    rows = rows_of(manifest, "dropped.parquet")
    return [(IDS.index(name), source, reason) for name, source, reason in rows.to_numpy().tolist()]


def test_weak_labels_with_every_drop_counted(gather: Gather, weak: Path):
    made = gather("weak", weak)
    assert table(made) == [(0, "aye one", "weak"), (1, "aye two", "weak"), (4, "aye two", "weak")]
    assert gone(made) == [(2, "weak", "empty"), (3, "weak", "refused"), (5, "weak", "cut off")]
    facts = load(made).facts
    assert (facts["rows_in"], facts["rows_kept"]) == (6, 3)
    assert facts["rows_dropped"] == {"cut off": 1, "empty": 1, "refused": 1}
    assert facts["by_source"]["weak"] == {
        "rows": 3,
        "mean_words": 2.0,
        "distinct_answers": 2,
        "dropped": {"cut off": 1, "empty": 1, "refused": 1},
    }
    assert load(gather("weak", weak)).digest == load(made).digest


def test_the_student_is_asked_plainly_whatever_the_refiner_saw(gather: Gather, tmp_path: Path):
    refined = answers_to_texts(tmp_path / "refined", TEXTS[2:], ["a", "b", "c", "d"])
    made = gather("refined", refined)
    rows = rows_of(made, "records.parquet")
    assert content(rows.iloc[0]) == "Question: 2 plus 1?\nAnswer:"
    assert gone(made) == [(0, "refined", "not asked"), (1, "refined", "not asked")]
    with pytest.raises(ConfigError, match="does not serve the method 'plain'"):
        gather("refined", refined, template="concept-icl-1")


def test_gold_takes_the_references(gather: Gather):
    made = gather("gold")
    assert [row[1] for row in table(made)] == ["one", "three", "five", "six"]
    assert load(made).facts["rows_dropped"] == {"no reference": 2}


def test_doubling_keeps_a_question_with_both_labels_or_not_at_all(gather: Gather, weak: Path, tmp_path: Path):
    own = answers_to_texts(tmp_path / "own", TEXTS, [f"It is {n}." for n in range(6)], {1: "refused"})
    made = gather("weak own", weak, own)
    assert table(made) == [
        (0, "aye one", "weak"),
        (0, "It is 0.", "own"),
        (4, "aye two", "weak"),
        (4, "It is 4.", "own"),
    ]
    assert gone(made) == [
        (1, "weak", "no partner"), (1, "own", "refused"), (2, "weak", "empty"), (2, "own", "no partner"),
        (3, "weak", "refused"), (3, "own", "no partner"), (5, "weak", "cut off"), (5, "own", "no partner"),
    ]  # fmt: skip
    facts = load(made).facts
    assert facts["rows_in"] == facts["rows_kept"] + sum(facts["rows_dropped"].values()) == 12
    assert [facts["by_source"][kind]["rows"] for kind in ("weak", "own")] == [2, 2]


def test_gold_and_answers_are_told_apart_by_their_order(gather: Gather, weak: Path):
    assert table(gather("gold weak", weak))[:2] == [(0, "one", "gold"), (0, "aye one", "weak")]


def test_limit_takes_the_first_questions(gather: Gather, weak: Path):
    made = gather("weak", weak, limit=2)
    assert [row[0] for row in table(made)] == [0, 1] and load(made).facts["rows_in"] == 2
    assert load(made).facts["questions"] == 6


def test_answers_of_other_questions_are_refused(gather: Gather, tmp_path: Path):
    few = answers_to_texts(tmp_path / "few", TEXTS[1:], ["a"] * 5)
    for kind in ("weak", "own"):
        with pytest.raises(JoinError, match=f"missing in the answers.*{IDS[0]}"):
            gather(kind, few)
    other = answers_to_texts(tmp_path / "other", [*TEXTS, "Who?"], ["a"] * 7)
    for kind in ("weak", "refined"):
        with pytest.raises(JoinError, match=f"not in the questions: {id_of('Who?')}"):
            gather(kind, other)


def test_a_mix_up_of_kinds_is_refused(gather: Gather, weak: Path):
    with pytest.raises(ConfigError, match="same answers are given for two kinds"):
        gather("weak own", weak, weak)
    with pytest.raises(ConfigError, match="a kind occurs twice"):
        gather("weak weak", weak, weak)
    for kinds, answers in (("weak own", [weak]), ("gold", [weak]), ("weak", [])):
        with pytest.raises(ConfigError, match=f"{len(answers)} artifacts of answers"):
            gather(kinds, *answers)


def test_a_training_set_without_a_record_is_refused(gather: Gather, tmp_path: Path):
    silent = answers_to_texts(tmp_path / "silent", TEXTS, [""] * 6)
    with pytest.raises(DataError, match="no record is left.*'empty': 6"):
        gather("own", silent)
