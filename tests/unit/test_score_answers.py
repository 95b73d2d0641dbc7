"""Scored answers: each metric, what is empty, and that no item counts twice."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import score_answers
import w2s
from tiny import as_artifact
from w2s.artifact import load
from w2s.errors import ConfigError, DataError, JoinError
from w2s.markers import count_words, has_marker
from w2s.question_adapters import question_id
from w2s.tables import write_parquet

QUESTIONS = ["one", "two", "three", "four"]
IDS = [question_id(text) for text in QUESTIONS]


def table_artifact(folder: Path, name: str, frame: pd.DataFrame) -> Path:
    """An artifact of one table."""
    return as_artifact(folder, lambda made: write_parquet(frame, made / f"{name}.parquet"))


def answers(folder: Path, texts: list[str], finished: list[str] | None = None) -> Path:
    """Answers to the first questions."""
    count = len(texts)
    columns = {
        "id": IDS[:count],
        "question": QUESTIONS[:count],
        "answer": texts,
        "finished": finished or ["eos"] * count,
    }
    return table_artifact(folder, "answers", pd.DataFrame(columns))


def score(root: Path, given: Path, *options: str, references: list[str | None] | None = None) -> Any:
    """Score ``given``; returns the artifact."""
    frame = pd.DataFrame({"id": IDS, "question": QUESTIONS, "reference": references or ["1", "2", "3", "4"]})
    questions = table_artifact(root / "questions", "questions", frame)
    output = root / "scores" / "manifest.json"
    inputs = ["--answers", str(given), "--questions", str(questions), "--output", str(output)]
    score_answers.main([*inputs, *options])
    return load(output)


def values(artifact: Any, metric: str, judge: str = "") -> list[float | None]:
    """Values of a metric in the order of the questions; None where an id has no row."""
    frame = pd.read_parquet(artifact.path("scores.parquet"))
    assert list(frame.columns) == ["id", "metric", "judge", "value"]
    chosen = frame[(frame["metric"] == metric) & (frame["judge"] == judge)]
    assert chosen["id"].is_unique
    found = chosen.set_index("id")["value"].to_dict()
    return [found.get(name) for name in IDS]


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("Arr, me hearty!", True),
        ("carry the arrow", False),
        ("ARR", True),
        ("it is just\nlike water", True),
        ("just unlike water", False),
        ("", False),
    ],
)
def test_a_marker_is_a_whole_word_or_phrase(text: str, there: bool) -> None:
    assert has_marker(text, ["arr", "just like"]) is there


def test_no_marker_or_an_empty_one_is_refused() -> None:
    for markers in ([], [" "]):
        with pytest.raises(ConfigError, match="no marker"):
            has_marker("text", markers)


def test_words_are_counted() -> None:
    assert [count_words(text) for text in ("", " a  b\nc ", "don't")] == [0, 3, 1]


def test_exact_metrics_of_mathematical_answers(tmp_path: Path) -> None:
    given = answers(
        tmp_path / "a", ["#### 1", "arr, the answer is 5", "", "say 4"], ["eos", "stop", "refused", "length"]
    )
    weak = answers(tmp_path / "w", ["It is 9", "5", "3", "4"])
    options = ["--metrics", "correct", "words", "marker", "copied", "--marker", "arr", "--weak", str(weak)]
    found = score(tmp_path, given, *options)
    assert values(found, "correct") == [1, 0, 0, 1]
    assert values(found, "words") == [2, 5, 0, 2]
    assert values(found, "marker") == [0, 1, 0, 0]
    # Only a wrong result of the weak model can be copied: not its right 4.
    assert values(found, "copied") == [0, 1, 0, 0]
    assert found.facts["empty"] == 1 and found.facts["unanswered"] == 0
    assert found.facts["finished"] == {"eos": 1, "length": 1, "refused": 1, "stop": 1}
    assert found.facts["verdicts"] == {"right": 2, "wrong": 1, "no result": 0, "too hard": 0}
    assert found.facts["means"]["correct"] == 0.5


def test_questions_without_an_answer_are_counted(tmp_path: Path) -> None:
    found = score(tmp_path, answers(tmp_path / "a", ["a b", "c"]), "--metrics", "words")
    assert values(found, "words") == [2, 1, None, None] and found.facts["unanswered"] == 2


def test_a_repeated_item_is_refused_so_that_none_counts_twice(tmp_path: Path) -> None:
    """A mean in the authors' notebook is twice what it should be: each item's score was appended twice."""
    columns = {"id": [IDS[0], IDS[0]], "question": ["one"] * 2, "answer": ["1"] * 2, "finished": ["eos"] * 2}
    given = table_artifact(tmp_path / "a", "answers", pd.DataFrame(columns))
    with pytest.raises(JoinError, match="1 duplicate ids"):
        score(tmp_path, given, "--metrics", "correct")
    rows = [(IDS[0], "correct", "", 1.0), (IDS[0], "correct", "", 1.0)]
    with pytest.raises(JoinError, match="correct by"):
        score_answers.to_table(rows)
    frame = score_answers.to_table([(name, "correct", "", 1.0) for name in IDS])
    assert score_answers.means(frame) == {"correct": frame["value"].sum() / frame["id"].nunique()}


def test_answers_to_other_questions_are_refused(tmp_path: Path) -> None:
    columns = {"id": ["0" * 16], "question": ["zero"], "answer": ["1"], "finished": ["eos"]}
    strange = table_artifact(tmp_path / "a", "answers", pd.DataFrame(columns))
    with pytest.raises(JoinError, match="1 ids of the answers are not among the questions: 0000"):
        score(tmp_path, strange, "--metrics", "words")
    other = table_artifact(tmp_path / "b", "answers", pd.DataFrame(columns | {"id": IDS[:1]}))
    with pytest.raises(JoinError, match="another text"):
        score(tmp_path, other, "--metrics", "words")
    with pytest.raises(JoinError, match="not among the weak answers"):
        weak = answers(tmp_path / "w", ["1"])
        score(tmp_path, answers(tmp_path / "c", ["1", "2"]), "--metrics", "copied", "--weak", str(weak))


def test_a_question_without_reference_or_a_null_answer_is_refused(tmp_path: Path) -> None:
    given = answers(tmp_path / "a", ["1", "2"])
    with pytest.raises(DataError, match=f"1 questions have no reference: {IDS[1]}"):
        score(tmp_path, given, "--metrics", "correct", references=["1", None, None, None])
    with pytest.raises(DataError, match="1 answers are null"):
        score(tmp_path, answers(tmp_path / "n", ["1", None]), "--metrics", "words")  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to score"),
        (["--metrics", "marker"], "--marker is missing"),
        (["--metrics", "words", "--marker", "arr"], "needs --marker"),
        (["--metrics", "content"], "--world is missing"),
        (["--metrics", "content", "--world", "{}", "--style", "do"], "--world is missing"),
        (["--metrics", "copied"], "--weak is missing"),
        (["--metrics", "words", "words"], "named twice"),
        (["--metrics", "words", "--judge", "j"], "needs --judge"),
        (["--metrics", "words", "--style", "do"], "scored for a style"),
        (["--metrics", "correct", "--world", '{"seed": 1}', "--style", "do"], "mathematical"),
        (["--ratings", "r", "--judge", "j"], "--rating-names is missing"),
        (["--ratings", "r", "--judge", "j", "--rating-names", "a", "a"], "different"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score(tmp_path, answers(tmp_path / "a", ["1"]), *options)


def test_answers_of_a_concept_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def value_of(answer: str) -> int | None:
        return int(answer.split()[1]) if len(answer.split()) == 2 else None

    def concept_score(world: str, style: str, question: str, answer: str) -> dict[str, int]:
        content = int(value_of(answer) == QUESTIONS.index(question) + 1)
        fits = int(answer.split()[0] == style)
        return {"content": content, "style": fits, "both": content * fits}

    fake = types.SimpleNamespace(
        ConceptWorld=types.SimpleNamespace(read=lambda settings: "world"),
        score=concept_score,
        value_of=value_of,
    )
    monkeypatch.setattr(w2s, "concepts", fake, raising=False)
    given = answers(tmp_path / "a", ["do 1", "fa 2", "do 7", "nonsense"])
    weak = answers(tmp_path / "w", ["do 1", "do 9", "fa 7", "nonsense"])
    world = ["--world", '{"seed": 1}', "--style", "do", "--weak", str(weak)]
    found = score(tmp_path, given, "--metrics", "content", "style", "both", "copied", *world)
    assert values(found, "content") == [1, 1, 0, 0]
    assert values(found, "style") == [1, 0, 1, 0]
    assert values(found, "both") == [1, 0, 0, 0]
    assert values(found, "copied") == [0, 0, 1, 0]


def rating_rows(rows: list[tuple[str, int, float, float]], folder: Path) -> Path:
    return table_artifact(folder, "ratings", pd.DataFrame(rows, columns=["id", "sample", "first", "second"]))


@pytest.fixture
def item_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in of w2s.ratings: the mean over valid samples."""

    def item_scores(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.groupby("id", as_index=False).agg(
            first=("first", "mean"), second=("second", "mean"), samples=("first", "count")
        )

    monkeypatch.setitem(sys.modules, "w2s.ratings", types.SimpleNamespace(item_scores=item_scores))  # type: ignore[arg-type]


def test_ratings_become_metrics_and_missing_ones_are_counted(tmp_path: Path, item_means: None) -> None:
    nan = float("nan")
    rows = [(IDS[0], 0, 8, 2), (IDS[0], 1, 6, nan), (IDS[1], 0, nan, nan), (IDS[2], 0, 5, 4)]
    ratings = ["--ratings", str(rating_rows(rows, tmp_path / "r")), "--judge", "strict"]
    given = answers(tmp_path / "a", ["a", "b", "c", "d"])
    found = score(tmp_path, given, *ratings, "--rating-names", "content", "style", "--metrics", "words")
    assert values(found, "content", "strict") == [7, None, 5, None]
    assert values(found, "style", "strict") == [2, None, 4, None]
    assert values(found, "words") == [1, 1, 1, 1]
    assert found.facts["unrated"] == {"content": 2, "style": 2}
    assert found.facts["means"]["content (strict)"] == 6
    one = score(tmp_path, given, *ratings, "--rating-names", "correct")
    assert values(one, "correct", "strict") == [7, None, 5, None] and one.facts["unrated"] == {"correct": 2}


def test_a_sample_rated_twice_or_of_no_answer_is_refused(tmp_path: Path, item_means: None) -> None:
    given = answers(tmp_path / "a", ["a"])
    for rows, message in (
        ([(IDS[0], 0, 8, 2), (IDS[0], 0, 8, 2)], "sample 0"),
        ([(IDS[1], 0, 8, 2)], "ids of the ratings are not among the answers"),
    ):
        ratings = rating_rows(rows, tmp_path / "r")  # type: ignore[arg-type]
        with pytest.raises(JoinError, match=message):
            score(tmp_path, given, "--ratings", str(ratings), "--judge", "j", "--rating-names", "content")


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    options = ["--metrics", "words", "correct"]
    found = {
        score(tmp_path / name, answers(tmp_path / name / "a", ["1", "2"]), *options).digest for name in "ab"
    }
    assert len(found) == 1
