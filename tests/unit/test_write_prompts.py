"""Prompts of each method; answers of other questions, other ids or another labeller's batches are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import write_prompts
from qa_artifacts import (
    answers_artifact,
    answers_to_texts,
    content,
    id_of,
    questions_artifact,
    rows_of,
)
from w2s.artifact import load
from w2s.errors import ConfigError, DataError, JoinError

TEXTS = [f"{number} plus 1" for number in range(7)]
ANSWERS = [f"do {number + 1} mi" for number in range(7)]
IDS = list(map(id_of, TEXTS))
ICL = ["--method", "icl", "--template", "concept-icl-1"]
INFER = ["--method", "infer", "--template", "concept-infer-1", "--batch", 3]
RESPOND = ["--method", "respond", "--template", "concept-respond-1"]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(*words, **inputs)`` runs the stage on TEXTS (or ``questions``); returns the manifest."""
    made: list[Path] = []

    def run(*words: object, **inputs: Path) -> Path:
        inputs = {"questions": tmp_path / "questions" / "manifest.json"} | inputs
        made.append(tmp_path / f"prompts-{len(made)}" / "manifest.json")
        named = [word for name, path in inputs.items() for word in ("--" + name.replace("_", "-"), path)]
        write_prompts.main([*map(str, [*named, *words]), "--output", str(made[-1])])
        return made[-1]

    questions_artifact(tmp_path / "questions", TEXTS)
    return run


@pytest.fixture
def weak(tmp_path: Path) -> Path:
    return answers_to_texts(tmp_path / "weak", TEXTS, ANSWERS)


def test_plain(write: Write):
    made = write("--method", "plain", "--template", "plain-1")
    table = rows_of(made, "prompts.parquet")
    assert table["id"].tolist() == IDS and table["question"].tolist() == TEXTS
    assert content(table.iloc[2]).endswith("\n\n2 plus 1") and not any(map(len, table["examples"]))
    facts = load(made).facts
    assert (facts["rows_in"], facts["rows_kept"], facts["rows_dropped"], facts["prompts"]) == (7, 7, {}, 7)
    assert len(facts["template_sha256"]) == 64
    assert rows_of(made, "dropped.parquet").empty
    again = write("--method", "plain", "--template", "plain-1")
    assert load(again).digest == load(made).digest


def test_in_context_refinement_shows_the_others_of_the_batch(write: Write, weak: Path):
    made = write(*ICL, "--shown", 2, "--choice", "consecutive", answers=weak)
    table = rows_of(made, "prompts.parquet")
    expected = [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4], [4, 5]]
    assert [list(ids) for ids in table["examples"]] == [[IDS[place] for place in row] for row in expected]
    assert content(table.iloc[4]) == (
        "Question: 3 plus 1\nAnswer: do 4 mi\n\nQuestion: 5 plus 1\nAnswer: do 6 mi\n\n"
        "Question: 4 plus 1\nAnswer:"
    )
    assert load(made).facts["prompts_by_examples"] == {"2": 7}
    assert set(load(made).manifest["parents"]) == {"questions", "answers"}


def test_answers_in_another_order_are_joined_by_id(write: Write, weak: Path, tmp_path: Path):
    turned = answers_to_texts(tmp_path / "turned", TEXTS[::-1], ANSWERS[::-1])
    words = [*ICL, "--shown", 3, "--choice", "similar"]
    assert load(write(*words, answers=turned)).digest == load(write(*words, answers=weak)).digest


def test_what_cannot_be_shown_is_left_out_and_counted(write: Write, tmp_path: Path):
    broken = answers_to_texts(
        tmp_path / "b", TEXTS, ["", "a", " ", *ANSWERS[3:]], {1: "refused", 3: "length"}
    )
    made = write(*ICL, "--shown", 2, "--choice", "consecutive", answers=broken)
    dropped = rows_of(made, "dropped.parquet")
    assert dropped.to_numpy().tolist() == [[name, "no example"] for name in IDS[:3]]
    facts = load(made).facts
    assert (facts["rows_in"], facts["rows_kept"], facts["rows_dropped"]) == (7, 4, {"no example": 3})
    assert facts["weak_answers_unusable"] == {"empty": 2, "refused": 1}
    assert facts["weak_answers"] == {"eos": 5, "length": 1, "refused": 1}
    one_gone = answers_to_texts(tmp_path / "c", TEXTS, ["", *ANSWERS[1:]])
    made = write(*ICL, "--shown", 2, "--choice", "consecutive", answers=one_gone)
    assert load(made).facts["prompts_by_examples"] == {"1": 2, "2": 5}
    assert content(rows_of(made, "prompts.parquet").iloc[1]).startswith("Question: 2 plus 1")


def test_fixed_examples_are_not_refined(write: Write, weak: Path):
    made = write(*ICL, "--shown", 2, "--choice", "fixed", answers=weak)
    assert rows_of(made, "prompts.parquet")["id"].tolist() == IDS[2:]
    assert load(made).facts["rows_dropped"] == {"is an example": 2}


def test_at_test_time_examples_are_of_the_training_questions(write: Write, weak: Path, tmp_path: Path):
    texts = [f"{number} max 1" for number in range(4)]
    test = questions_artifact(tmp_path / "test", texts)
    train = tmp_path / "questions" / "manifest.json"
    words = [*ICL, "--shown", 3, "--choice", "consecutive"]
    made = write(*words, questions=test, example_questions=train, answers=weak)
    table = rows_of(made, "prompts.parquet")
    assert table["question"].tolist() == texts
    expected = [IDS[:3], IDS[3:6], IDS[4:], IDS[:3]]
    assert [list(ids) for ids in table["examples"]] == expected
    both = questions_artifact(tmp_path / "both", [*texts, TEXTS[5]])
    with pytest.raises(JoinError, match=f"1 questions are also among.*{IDS[5]}"):
        write(*words, questions=both, example_questions=train, answers=weak)
    with pytest.raises(JoinError, match="4 ids of the questions are missing"):
        write(*words, questions=test, answers=weak)


@pytest.mark.parametrize("words", [[*ICL, "--shown", 1, "--choice", "random"], INFER, ["--method", "improve", "--template", "improve-1"]])  # fmt: skip
def test_answers_of_other_questions_are_refused(write: Write, words: list[object], tmp_path: Path):
    """The paper's code refined with another labeller's answers, and batched by another's questions."""
    few = answers_to_texts(tmp_path / "few", TEXTS[:-1], ANSWERS[:-1])
    with pytest.raises(JoinError, match=f"1 ids of the questions are missing in the answers.*{IDS[6]}"):
        write(*words, answers=few)
    more = answers_to_texts(tmp_path / "more", [*TEXTS, "1 min 1"], [*ANSWERS, "x"])
    with pytest.raises(
        JoinError, match=f"1 ids of the answers.* are not in the questions: {id_of('1 min 1')}"
    ):
        write(*words, answers=more)
    swapped = answers_artifact(tmp_path / "swapped", IDS, [TEXTS[1], TEXTS[0], *TEXTS[2:]], ANSWERS)
    with pytest.raises(JoinError, match=f"2 answers are to other questions under the same id: {IDS[0]}"):
        write(*words, answers=swapped)
    twice = answers_artifact(tmp_path / "twice", [*IDS, IDS[0]], [*TEXTS, TEXTS[0]], [*ANSWERS, "x"])
    with pytest.raises(JoinError, match=f"1 duplicate ids: {IDS[0]}"):
        write(*words, answers=twice)


def test_every_prompt_shows_just_its_own_labellers_answers(write: Write, tmp_path: Path):
    """Two labellers, whose answers say whose they are."""
    for labeller in ("gemma", "llama"):
        weak = answers_to_texts(tmp_path / labeller, TEXTS, [f"{labeller} {number}" for number in range(7)])
        table = rows_of(write(*ICL, "--shown", 4, "--choice", "random", answers=weak), "prompts.parquet")
        for _, row in table.iterrows():
            assert len(set(row["examples"])) == 4 and row["id"] not in row["examples"]
            shown = [f"{labeller} {IDS.index(name)}" for name in row["examples"]]
            lines = content(row).split("\n")
            assert [line.removeprefix("Answer: ") for line in lines if line.startswith("Answer: ")] == shown


def infer_and_answer(
    write: Write, weak: Path, folder: Path, said: list[str], **settings: object
) -> dict[str, Path]:
    prompts = write(*INFER, answers=weak)
    table = rows_of(prompts, "prompts.parquet")
    intents = answers_artifact(
        folder, table["id"].tolist(), [None] * len(table), said, prompts=prompts, **settings
    )  # type: ignore[arg-type]
    return {"intents": intents, "intent_prompts": prompts}


def test_infer_and_respond(write: Write, weak: Path, tmp_path: Path):
    given = infer_and_answer(write, weak, tmp_path / "intents", ["salty", "dry", "sweet"])
    batches = rows_of(given["intent_prompts"], "prompts.parquet")
    assert batches["id"].tolist() == ["batch-0000", "batch-0001", "batch-0002"]
    assert [list(ids) for ids in batches["examples"]] == [IDS[:3], IDS[3:6], IDS[6:]]
    assert batches["question"].isna().all()
    assert content(batches.iloc[2]) == "Question: 6 plus 1\nAnswer: do 7 mi\n\nStyle:"
    made = write(*RESPOND, **given)
    table = rows_of(made, "prompts.parquet")
    assert table["id"].tolist() == IDS and not any(map(len, table["examples"]))
    said = ["salty"] * 3 + ["dry"] * 3 + ["sweet"]
    assert [content(row) for _, row in table.iterrows()] == [
        f"Style: {style}\n\nQuestion: {text}\nAnswer:" for style, text in zip(said, TEXTS, strict=True)
    ]


def test_batches_without_an_intent_are_dropped_with_their_members(write: Write, tmp_path: Path):
    broken = answers_to_texts(tmp_path / "b", TEXTS, ["", "a", "b", "", "", " ", "c"])
    given = infer_and_answer(write, broken, tmp_path / "intents", [" ", "x"], ends={1: "refused"})
    facts = load(given["intent_prompts"]).facts
    assert (facts["rows_dropped"], facts["prompts_by_examples"]) == ({"no example": 3}, {"1": 1, "2": 1})
    batches = rows_of(given["intent_prompts"], "prompts.parquet")
    assert list(batches["examples"][0]) == IDS[:3]  # the one with an empty answer is of the batch, too
    with pytest.raises(DataError, match="no question can be asked.*'intent empty': 3, 'intent refused': 1"):
        write(*RESPOND, **given)
    given = infer_and_answer(write, broken, tmp_path / "other", ["dry", ""])
    made = write(*RESPOND, **given)
    assert rows_of(made, "prompts.parquet")["id"].tolist() == IDS[:3]
    assert load(made).facts["rows_dropped"] == {"intent empty": 1, "no example": 3}


def test_intents_of_another_labeller_are_refused(write: Write, weak: Path, tmp_path: Path):
    other = answers_to_texts(tmp_path / "other", TEXTS, [f"re {answer}" for answer in ANSWERS])
    mine = infer_and_answer(write, weak, tmp_path / "mine", ["a", "b", "c"])
    theirs = infer_and_answer(write, other, tmp_path / "theirs", ["a", "b", "c"])
    with pytest.raises(JoinError, match="no answers to these prompts"):
        write(*RESPOND, **mine | {"intents": theirs["intents"]})
    fewer = questions_artifact(tmp_path / "fewer", TEXTS[:-1])
    with pytest.raises(JoinError, match="1 ids of the batches"):
        write(*RESPOND, **mine, questions=fewer)


def test_ask_to_improve(write: Write, tmp_path: Path):
    weak = answers_to_texts(tmp_path / "weak", TEXTS, ["", *ANSWERS[1:]], {2: "refused"})
    made = write("--method", "improve", "--template", "concept-improve-1", answers=weak)
    table = rows_of(made, "prompts.parquet")
    assert content(table.iloc[0]) == "Question: 1 plus 1\nDraft: do 2 mi\nAnswer:"
    assert [list(ids) for ids in table["examples"]] == [[name] for name in table["id"]]
    assert load(made).facts["rows_dropped"] == {"answer empty": 1, "answer refused": 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "plain", "--template", "icl-1"], "does not serve"),
        (["--method", "plain", "--template", "plain-1", "--shown", "2"], "takes no --shown"),
        ([*ICL, "--shown", 2], "needs --choice"),
        ([*ICL, "--shown", 7, "--choice", "consecutive"], "do not make a batch of 8"),
        ([*ICL, "--shown", 2, "--choice", "random", "--batch", 4], "takes no --batch"),
        (["--method", "infer", "--template", "infer-style-1"], "needs --batch"),
        (RESPOND, "takes no --answers"),
    ],
)
def test_wrong_settings_are_named(write: Write, weak: Path, words: list[object], message: str):
    with pytest.raises((ConfigError, DataError), match=message):
        write(*words, **({} if "plain" in words else {"answers": weak}))


def test_a_wrong_answer_table_is_refused(write: Write, tmp_path: Path):
    odd = answers_to_texts(tmp_path / "odd", TEXTS, ANSWERS, {4: "stopped"})
    with pytest.raises(DataError, match=f"without a text or an end: {IDS[4]}"):
        write(*INFER, answers=odd)
