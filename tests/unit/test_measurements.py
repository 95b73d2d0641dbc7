"""The long table: each metric's rows and values, from artifacts made by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from w2s import measurements
from w2s.agreement import LabelFile
from w2s.artifact import Artifact
from w2s.errors import DataError, JoinError
from w2s.measurements import COLUMNS, Book
from w2s.runs import parse_run
from w2s.summary import Measured
from w2s.tables import write_parquet

CELL = ("w", "1-of-2", 3)
WHERE = {"data": "w", "share": "1-of-2", "seed": 3}
NAN = math.nan


def artifact(
    manifest: Path, name: str, table: pd.DataFrame, spec: dict[str, Any] | None = None, **parents: Path
) -> Path:
    with Artifact.create(manifest, spec=spec or {}, parents=parents, script=__file__) as draft:
        write_parquet(table, draft.path(name))
    return manifest


def label_file(feedback: str, policy: str, labels: dict[str, int], seed: int = 3) -> LabelFile:
    frame = pd.DataFrame({"id": list(labels), "label": list(labels.values())})
    return LabelFile("w", "1-of-2", seed, feedback, policy, frame)


@pytest.fixture
def book() -> Book:
    return Book("x", {"r": 0.2})


def values(book: Book, name: str) -> dict[str, float]:
    """id -> value of one metric."""
    rows = book.table()[lambda table: table["metric"] == name]
    assert rows["id"].is_unique
    return dict(zip(rows["id"], rows["value"], strict=True))


def only(book: Book, column: str) -> Any:
    """The one value of a column."""
    found = book.table()[column].unique()
    assert len(found) == 1
    return found[0]


def test_a_book_without_entries_has_the_columns(book: Book) -> None:
    assert book.table().empty and list(book.table().columns) == COLUMNS
    assert COLUMNS == [
        "experiment", "data", "share", "student", "arm", "feedback", "recipe", "step", "beta", "metric", "judge", "seed",
        "id", "value",
    ]  # fmt: skip


def test_rewards_of_each_arm_and_lengths_once_per_run(book: Book) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "value": [1.5, -2.0], "tokens": [7, 9]})
    runs = ("models/k", "students/k/weak-s/r/sft", "students/k/weak-s/r/dpo", "teachers/s/t/dpo")
    measured = [
        Measured(parse_run(run), *CELL, gold, frame.assign(value=frame["value"] + shift))
        for run in runs
        for gold, shift in (("rm", 0.0), ("other", 10.0))
    ]
    measurements.add_rewards(book, measured)
    table = book.table()
    rewards = table[table["metric"] == "reward"]
    assert len(rewards) == 4 * 2 * 2
    by_judge = rewards.groupby("judge")["value"].apply(list).to_dict()
    assert by_judge == {"other": [11.5, 8.0] * 4, "rm": [1.5, -2.0] * 4}
    tokens = table[table["metric"] == "tokens"]
    assert tokens["value"].tolist() == [7, 9] * 4 and set(tokens["judge"]) == {""}
    identity = rewards[rewards["judge"] == "rm"].drop_duplicates("arm")
    assert identity[["student", "arm", "feedback", "recipe", "step"]].values.tolist() == [
        ["k", "untuned", "", "", ""],
        ["k", "weak-s-sft", "weak-s", "r", "sft"],
        ["k", "weak-s", "weak-s", "r", "dpo"],
        ["s", "teacher", "", "t", "dpo"],
    ]
    assert identity["beta"].fillna(-1).tolist() == [-1, 0.2, 0.2, -1]
    assert table[["experiment", "data", "share", "seed"]].drop_duplicates().values.tolist() == [["x", *CELL]]


def test_lengths_of_two_seeds_are_two_measurements(book: Book) -> None:
    frame = pd.DataFrame({"id": ["a"], "value": [1.0], "tokens": [7]})
    run = parse_run("models/k")
    measurements.add_rewards(book, [Measured(run, "w", "1-of-2", seed, "rm", frame) for seed in (1, 2)])
    assert (book.table()["metric"] == "tokens").sum() == 2


def test_agreement_with_people_and_with_exact_labels(book: Book) -> None:
    def truth(labels: dict[str, int]) -> pd.DataFrame:
        return pd.DataFrame({"id": list(labels), "label": list(labels.values())})

    known = {"w": {"human": truth({"a": 0, "b": 1, "c": 1}), "gold": truth({"a": 1, "b": 1})}}  # c: a tie
    files = [
        label_file("weak-s", "weak", {"a": 0, "b": 0, "c": 1}),
        label_file("human", "human", {"a": 0, "b": 1, "c": 1}),
    ]
    measurements.add_agreement(book, files, known)
    table = book.table()
    found = table.set_index(["feedback", "judge", "id"])["value"].to_dict()
    assert found == {
        ("weak-s", "human", "a"): 1, ("weak-s", "human", "b"): 0, ("weak-s", "human", "c"): 1,
        ("weak-s", "gold", "a"): 0, ("weak-s", "gold", "b"): 0,
        ("human", "gold", "a"): 0, ("human", "gold", "b"): 1,
    }  # fmt: skip
    assert set(table["student"]) == set(table["step"]) == set(table["recipe"]) == {""}
    assert (table["arm"] == table["feedback"]).all() and table["beta"].isna().all()


def test_agreement_of_labels_that_people_never_gave(book: Book) -> None:
    known = {"w": {"human": pd.DataFrame({"id": ["a"], "label": [0]})}}
    with pytest.raises(JoinError, match="1 labelled ids are not among the human labels of w: b"):
        measurements.add_agreement(book, [label_file("weak", "weak", {"a": 0, "b": 0})], known)


def responses(root: Path, rows: list[tuple[str, int, float]], gold: str = "rm", seed: int = 3) -> Path:
    manifest = root / f"responses/w/1-of-2/seed-{seed}/unlabelled/golds/{gold}/manifest.json"
    table = pd.DataFrame(rows, columns=["id", "response", "reward"])
    return artifact(manifest, "rewards.parquet", table)


def test_rewards_of_the_data_s_responses_by_whom_labels_prefer(book: Book, tmp_path: Path) -> None:
    rows = [("a", 0, 1.0), ("a", 1, 2.0), ("b", 1, 4.0), ("b", 0, 3.0), ("c", 0, 5.0), ("c", 1, 6.0)]
    manifests = [responses(tmp_path, rows), responses(tmp_path, [(i, s, 9 * v) for i, s, v in rows], seed=4)]
    subset = label_file("match-s", "match", {"b": 0})
    whole = label_file("weak-s", "weak", {"a": 1, "b": 0, "c": 0})
    measurements.add_responses(book, manifests, [whole, subset])
    found = book.table().set_index(["feedback", "metric", "id"])["value"].to_dict()
    assert found == {
        ("weak-s", "chosen_reward", "a"): 2, ("weak-s", "rejected_reward", "a"): 1,
        ("weak-s", "chosen_reward", "b"): 3, ("weak-s", "rejected_reward", "b"): 4,
        ("weak-s", "chosen_reward", "c"): 5, ("weak-s", "rejected_reward", "c"): 6,
        ("match-s", "chosen_reward", "b"): 3, ("match-s", "rejected_reward", "b"): 4,
    }  # fmt: skip
    assert only(book, "judge") == "rm" and only(book, "seed") == 3


def test_two_gold_models_are_kept_apart(book: Book, tmp_path: Path) -> None:
    rows = [("a", 0, 1.0), ("a", 1, 2.0)]
    manifests = [responses(tmp_path, rows), responses(tmp_path, [("a", 0, 8.0), ("a", 1, 7.0)], gold="other")]
    measurements.add_responses(book, manifests, [label_file("weak", "weak", {"a": 1})])
    found = book.table().set_index(["judge", "metric"])["value"].to_dict()
    assert found == {
        ("rm", "chosen_reward"): 2, ("rm", "rejected_reward"): 1, ("other", "chosen_reward"): 7, ("other", "rejected_reward"): 8,
    }  # fmt: skip


def test_responses_without_rewards_are_refused(book: Book, tmp_path: Path) -> None:
    whole = responses(tmp_path, [("a", 0, 1.0), ("a", 1, 2.0)])
    with pytest.raises(JoinError, match="labelled examples without gold rewards: b"):
        measurements.add_responses(book, [whole], [label_file("weak", "weak", {"a": 1, "b": 0})])
    half = responses(tmp_path / "half", [("a", 0, 1.0), ("a", 1, 2.0), ("b", 0, 1.0)])
    with pytest.raises(JoinError, match="ids without both responses: b"):
        measurements.add_responses(book, [half], [label_file("weak", "weak", {"a": 1})])


def compared(root: Path, rows: list[tuple[str, int, float, float]]) -> Path:
    """Comparisons as ``judge_comparisons`` leaves them, with the generations that were compared."""
    sides = {}
    for side, tokens in (("left", [10, 30, 7]), ("right", [4, 35, 7])):
        table = pd.DataFrame({"id": ["a", "b", "c"], "tokens": tokens})
        sides[side] = artifact(root / side / "manifest.json", "generations.parquet", table)
    spec = {"run": "students/k/weak-s/r/dpo", "judge": "llm", **WHERE}
    table = pd.DataFrame(rows, columns=["id", "order", "score_left", "score_right"])
    return artifact(root / "compared" / "manifest.json", "comparisons.parquet", table, spec, **sides)


def test_comparisons_are_means_over_both_orders(book: Book, tmp_path: Path) -> None:
    """a wins twice, b whichever is shown first, c is asked once only in the form and loses."""
    rows = [("a", 0, 9.0, 4.0), ("a", 1, 7.0, 6.0), ("b", 0, 8.0, 5.0), ("b", 1, 3.0, 6.0)]
    measurements.add_comparisons(book, [compared(tmp_path, [*rows, ("c", 0, NAN, NAN), ("c", 1, 2.0, 6.0)])])
    assert values(book, "win") == {"a": 1.0, "b": 0.5, "c": 0.0}
    assert values(book, "score") == {"a": 8.0, "b": 5.5, "c": 2.0}
    assert values(book, "first_wins") == {"a": 0.5, "b": 1.0}  # of both orders
    assert values(book, "length_difference") == {"a": 6.0, "b": -5.0, "c": 0.0}
    assert values(book, "malformed") == {"a": 0.0, "b": 0.0, "c": 0.5}
    identity = ("student", "arm", "feedback", "recipe", "step", "beta", "judge", "seed")
    assert [only(book, name) for name in identity] == ["k", "weak-s", "weak-s", "r", "dpo", 0.2, "llm", 3]


def test_a_prompt_without_a_readable_reply_is_counted_and_has_no_win(book: Book, tmp_path: Path) -> None:
    rows = [("a", 0, 9.0, 4.0), ("a", 1, 7.0, 6.0), ("b", 0, NAN, NAN), ("b", 1, NAN, NAN)]
    measurements.add_comparisons(book, [compared(tmp_path, rows)])
    assert values(book, "win") == {"a": 1.0}
    assert values(book, "malformed") == {"a": 0.0, "b": 1.0}


def votes(root: Path, told: dict[str, list[float]], feedback: str = "mismatch-s") -> Path:
    """Votes as ``judge_votes`` leaves them: orders in turn."""
    rows = [
        (id_, number, number % 2, value) for id_, given in told.items() for number, value in enumerate(given)
    ]
    spec = {"feedback": feedback, "judge": "llm", **WHERE}
    table = pd.DataFrame(rows, columns=["id", "vote", "order", "preferred"])
    return artifact(root / "votes" / "manifest.json", "votes.parquet", table, spec)


def test_votes_on_pairs_of_a_feedback_s_labels(book: Book, tmp_path: Path) -> None:
    told = {"a": [1, 1, 1, 0], "b": [0, 0, 0, 0], "c": [1, 0, NAN, NAN]}
    labels = label_file("mismatch-s", "mismatch", {"a": 1, "b": 1, "c": 0, "d": 0})
    other = label_file("match-s", "match", {"a": 0, "b": 0, "c": 1})
    measurements.add_votes(book, [votes(tmp_path, told)], [other, labels])
    assert values(book, "consistency") == {"a": 0.75, "b": 1.0, "c": 0.5}
    assert values(book, "vote") == {"a": 0.75, "b": 0.0, "c": 0.5}
    assert values(book, "votes") == {"a": 4, "b": 4, "c": 2}
    assert values(book, "malformed") == {"a": 0.0, "b": 0.0, "c": 0.5}
    assert (only(book, "feedback"), only(book, "judge"), only(book, "student")) == ("mismatch-s", "llm", "")


def test_votes_without_their_labels_are_refused(book: Book, tmp_path: Path) -> None:
    manifest = votes(tmp_path, {"a": [1, 0]})
    with pytest.raises(DataError, match="votes on labels of 'mismatch-s', which were not given"):
        measurements.add_votes(book, [manifest], [label_file("match-s", "match", {"a": 1})])
    with pytest.raises(DataError, match="which were not given"):  # of another seed
        measurements.add_votes(book, [manifest], [label_file("mismatch-s", "mismatch", {"a": 1}, seed=4)])
    with pytest.raises(JoinError, match="1 ids of the votes are missing in the labels: a"):
        measurements.add_votes(book, [manifest], [label_file("mismatch-s", "mismatch", {"b": 1})])


def similar(root: Path, run: str, table: dict[str, list[Any]]) -> Path:
    spec = {"run": run, "encoder_name": "bert", **WHERE, "share": "1/2"}
    return artifact(root / run / "manifest.json", "similarity.parquet", pd.DataFrame(table), spec)


def test_similarities_of_students_and_teachers(book: Book, tmp_path: Path) -> None:
    runs = {"students/k/human/r/dpo": [0.5, 0.25], "teachers/s/t/dpo": [0.75, -0.5]}
    manifests = [
        similar(tmp_path, run, {"id": ["a", "b"], "similarity": found}) for run, found in runs.items()
    ]
    measurements.add_similarities(book, manifests)
    found = book.table().set_index(["arm", "id"])["value"].to_dict()
    assert found == {
        ("human", "a"): 0.5,
        ("human", "b"): 0.25,
        ("teacher", "a"): 0.75,
        ("teacher", "b"): -0.5,
    }
    assert [only(book, name) for name in ("metric", "judge", "share", "seed")] == [
        "similarity",
        "bert",
        "1-of-2",
        3,
    ]


def test_a_similarity_twice_is_refused(book: Book, tmp_path: Path) -> None:
    manifest = similar(tmp_path, "students/k/human/r/dpo", {"id": ["a", "a"], "similarity": [0.5, 0.5]})
    with pytest.raises(JoinError, match="1 duplicate ids: a"):
        measurements.add_similarities(book, [manifest])
