"""Tables that follow from measurements, against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import as_artifact, example_rows
from w2s import derived, statistics
from w2s.agreement import LabelFile
from w2s.errors import DataError, JoinError
from w2s.measurements import Book
from w2s.runs import parse_run
from w2s.statistics import Bootstrap, wilson
from w2s.tables import write_parquet

CELL = ("w", "1-of-2", 3)
DRAWS = Bootstrap(200)


def book_of_labels(**metrics: Sequence[float]) -> pd.DataFrame:
    """Measurements of one feedback's labels of examples a, b, c, ..."""
    book = Book("x", {})
    for name, values in metrics.items():
        book.of_labels(CELL, "weak-s", name, "rm", "abcdefgh"[: len(values)], values)
    return book.table()


def interval(values: Sequence[float], seed: int = 3) -> statistics.Interval:
    cells = pd.DataFrame({"seed": seed, "id": list("abcdefgh"[: len(values)]), "value": values})
    return statistics.bootstrap_mean(cells, DRAWS)


# -- responses (Table 2 and section 4) -----------------------------------------------------------------------------


def test_responses_by_whom_labels_prefer() -> None:
    chosen, rejected = [5.0, 1.0, 2.0, 7.0], [3.0, 4.0, 2.0, 1.0]
    table = derived.responses_table(book_of_labels(chosen_reward=chosen, rejected_reward=rejected), DRAWS)
    assert list(table.columns) == derived.RESPONSE_COLUMNS
    row = table.iloc[0]
    assert row[["experiment", "data", "share", "feedback", "gold"]].tolist() == [
        "x",
        "w",
        "1-of-2",
        "weak-s",
        "rm",
    ]
    assert (row["seeds"], row["n"], row["chosen"], row["rejected"], row["gap"]) == (1, 4, 3.75, 2.5, 1.25)
    gap = interval([2.0, -3.0, 0.0, 6.0])
    assert (row["low"], row["high"]) == (gap.low, gap.high)
    assert row["gold_agrees"] == 2.5 / 4  # twice the chosen one, once neither
    assert (row["gold_agrees_low"], row["gold_agrees_high"]) == pytest.approx(wilson(2.5, 4))


def test_responses_of_several_golds_and_seeds_are_rows_and_cells() -> None:
    book = Book("x", {})
    for seed in (1, 2):
        for gold, factor in (("rm", 1.0), ("other", -1.0)):
            values = np.array([1.0, 2.0, 4.0]) * factor * seed
            book.of_labels(("w", "1-of-2", seed), "human", "chosen_reward", gold, "abc", values)
            book.of_labels(("w", "1-of-2", seed), "human", "rejected_reward", gold, "abc", np.zeros(3))
    table = derived.responses_table(book.table(), DRAWS)
    assert table[["gold", "seeds", "n", "gap", "gold_agrees"]].values.tolist() == [
        ["rm", 2, 6, 3.5, 1.0],
        ["other", 2, 6, -3.5, 0.0],
    ]


def test_a_response_without_its_other_one_is_refused() -> None:
    table = book_of_labels(chosen_reward=[1.0, 2.0], rejected_reward=[1.0])
    with pytest.raises(JoinError, match="1 cells of the left side are missing on the right: seed 3 id b"):
        derived.responses_table(table, DRAWS)


# -- comparisons (Figure 3b) ---------------------------------------------------------------------------------------


def test_wins_ties_and_losses() -> None:
    book = Book("x", {"r": 0.1})
    run = parse_run("students/k/weak-s/r/dpo")
    metrics = {
        "win": [1, 0.75, 0.5, 0.25, 0],
        "first_wins": [0.5, 1, 1, 0.5, 0.5],
        "length_difference": [0] * 5,
    }
    metrics["malformed"] = [0, 0, 0, 0.5, 0]
    for name, values in metrics.items():
        book.of_run(CELL, run, name, "llm", "abcde", values)
    table = derived.comparisons_table(book.table(), "human", DRAWS)
    assert list(table.columns) == derived.COMPARISON_COLUMNS
    row = table.iloc[0]
    names = ["experiment", "student", "recipe", "arm", "baseline", "judge", "seeds", "prompts"]
    assert row[names].tolist() == ["x", "k", "r", "weak-s", "human", "llm", 1, 5]
    assert row[["win", "tie", "lose"]].tolist() == [0.4, 0.2, 0.4]
    found = interval(metrics["win"])
    assert row[["score", "low", "high"]].tolist() == [0.5, found.low, found.high]
    assert row["length_controlled"] == pytest.approx(0.5)  # nobody is longer
    assert (row["position_bias"], row["malformed"]) == (0.7, 0.1)


def test_wins_by_length_alone_are_no_wins_at_equal_lengths() -> None:
    """The longer response wins four of five times, and the arm's is the longer one in 30 of 40 prompts."""
    book, ids = Book("x", {}), [f"{n:02}" for n in range(40)]
    run = parse_run("students/k/weak-s/r/dpo")
    longer = np.array([1.0] * 30 + [-1.0] * 10)
    wins = np.array([1.0] * 24 + [0.0] * 6 + [1.0] * 2 + [0.0] * 8)
    for name, values in (("win", wins), ("length_difference", 20 * longer)):
        book.of_run(CELL, run, name, "llm", ids, values)
    for name in ("first_wins", "malformed"):
        book.of_run(CELL, run, name, "llm", ids, np.zeros(40))
    row = derived.comparisons_table(book.table(), "human", DRAWS).iloc[0]
    assert row["score"] == 0.65
    assert row["length_controlled"] == pytest.approx(0.5, abs=0.001)


# -- votes (Table 4) -----------------------------------------------------------------------------------------------


def test_votes_and_their_consistency() -> None:
    metrics = {
        "consistency": [0.75, 1.0, 0.5],
        "vote": [0.75, 0.0, 0.5],
        "votes": [4, 4, 2],
        "malformed": [0, 0, 0.5],
    }
    table = derived.votes_table(book_of_labels(**metrics), DRAWS)  # type: ignore[arg-type]
    assert list(table.columns) == derived.VOTE_COLUMNS
    row = table.iloc[0]
    assert (row["feedback"], row["judge"], row["seeds"], row["pairs"]) == ("weak-s", "rm", 1, 3)
    assert row["votes"] == pytest.approx(10 / 3)
    one, two = interval(metrics["consistency"]), interval(metrics["vote"])
    assert row[["consistency", "low", "high"]].tolist() == [0.75, one.low, one.high]
    assert row["label_share"] == pytest.approx(1.25 / 3)
    assert row[["label_low", "label_high"]].tolist() == [two.low, two.high]
    assert row["malformed"] == pytest.approx(0.5 / 3)


def test_what_a_judge_garbled_in_comparisons_is_no_vote() -> None:
    """The same judge, feedback and cell: replies on a student's answers are not those on its labels."""
    book = Book("x", {})
    for name, values in {"consistency": [1.0], "vote": [1.0], "votes": [4], "malformed": [0.0]}.items():
        book.of_labels(CELL, "weak-s", name, "llm", "a", values)
    book.of_run(CELL, parse_run("students/k/weak-s/r/dpo"), "malformed", "llm", "abc", [1, 1, 1])
    assert derived.votes_table(book.table(), DRAWS)["malformed"].tolist() == [0.0]


# -- similarity (Figure 6) -----------------------------------------------------------------------------------------

SIMILAR = {
    "students/k/human/r/dpo": [0.1, 0.4, 0.5, 0.9],
    "students/k/weak-s/r/dpo": [0.2, 0.3, 0.6, 0.7],
    "teachers/s/t/dpo": [0.5, 0.3, 0.2, 0.4],
}


def similarities(found: dict[str, list[float]] = SIMILAR) -> pd.DataFrame:
    book = Book("x", {})
    for run, values in found.items():
        book.of_run(CELL, parse_run(run), "similarity", "bert", "abcd"[: len(values)], values)
    return book.table()


def test_each_arm_beside_the_reference_s_and_the_teacher_s() -> None:
    table = derived.similarity_table(similarities(), "human", DRAWS)
    assert list(table.columns) == derived.SIMILARITY_COLUMNS
    assert table[["student", "encoder", "left", "right", "seeds", "prompts"]].values.tolist() == [
        ["k", "bert", "weak-s", "human", 1, 4],
        ["k", "bert", "weak-s", "teacher", 1, 4],
    ]
    weak = np.array(SIMILAR["students/k/weak-s/r/dpo"])
    for row, other in zip(table.itertuples(), ("students/k/human/r/dpo", "teachers/s/t/dpo"), strict=True):
        right = np.array(SIMILAR[other])
        slope, intercept = np.polyfit(weak, right, 1)
        assert (row.slope, row.intercept) == pytest.approx((slope, intercept))
        assert row.r2 == pytest.approx(np.corrcoef(weak, right)[0, 1] ** 2)
        assert (row.mean_left, row.mean_right) == pytest.approx((0.45, right.mean()))
    assert table["spearman"].tolist() == pytest.approx([1.0, -0.4])


def test_prompts_that_one_side_lacks_are_refused() -> None:
    with pytest.raises(JoinError, match="seed 3 id d"):
        derived.similarity_table(
            similarities({**SIMILAR, "students/k/human/r/dpo": [0.1, 0.4, 0.5]}), "human", DRAWS
        )


def test_two_teachers_are_not_mixed() -> None:
    found = similarities({**SIMILAR, "teachers/k/t/dpo": [0.5, 0.3, 0.2, 0.4]})
    with pytest.raises(JoinError, match="cells occur twice"):
        derived.similarity_table(found, "human", DRAWS)


def test_the_points_are_the_measurements() -> None:
    points = derived.similarity_points(similarities())
    assert list(points.columns) == derived.POINT_COLUMNS
    assert points.groupby("arm", sort=False)["similarity"].apply(list).tolist() == list(SIMILAR.values())


# -- examples (Tables 3, 5 and 9) ----------------------------------------------------------------------------------

ROWS = example_rows([(f"\n\nHuman: {n}\n\nAssistant:", f" first {n}", f" second {n}") for n in range(12)])
IDS = sorted(ROWS["id"])


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    return as_artifact(tmp_path / "w", lambda folder: write_parquet(ROWS, folder / "examples.parquet"))


def mismatch(seed: int = 3, ids: Sequence[str] = IDS) -> LabelFile:
    frame = pd.DataFrame({"id": ids, "label": [number % 2 for number in range(len(ids))]})
    return LabelFile("w", "1-of-2", seed, "mismatch-s", "mismatch", frame)


def rewarded(voted: Sequence[str] = ()) -> pd.DataFrame:
    book = Book("x", {})
    for gold, sign in (("rm", 1), ("other", -1)):
        numbers = sign * np.arange(12.0)
        book.of_labels(CELL, "mismatch-s", "chosen_reward", gold, IDS, numbers)
        book.of_labels(CELL, "mismatch-s", "rejected_reward", gold, IDS, numbers + 0.5)
    book.of_labels(CELL, "mismatch-s", "vote", "llm", voted, [0.7] * len(voted))
    book.of_labels(CELL, "mismatch-s", "votes", "llm", voted, [10] * len(voted))
    return book.table()


def test_examples_are_the_label_s_response_first_then_people_s(examples: Path) -> None:
    table = derived.examples_table("x", [mismatch()], [examples], rewarded(), 12)
    assert list(table.columns) == derived.EXAMPLE_COLUMNS
    assert table["id"].tolist() == IDS
    texts = ROWS.set_index("id")
    for number, row in enumerate(table.itertuples()):
        label, example = number % 2, texts.loc[row.id]
        assert row.prompt == example["prompt"]
        assert row.response_first == example[f"response_{label}"]
        assert row.response_second == example[f"response_{1 - label}"]
        assert (row.reward_first, row.reward_second) == (number, number + 0.5)  # the main gold model's
        assert (row.label_first, row.label_second, row.votes) == ("mismatch-s", "human", "")


def test_examples_follow_the_seed(examples: Path) -> None:
    def drawn(seed: int) -> list[str]:
        return derived.examples_table("x", [mismatch(seed)], [examples], rewarded(), 4)["id"].tolist()

    assert drawn(3) == drawn(3) == sorted(drawn(3))
    assert len(set(drawn(3))) == 4
    assert drawn(3) != drawn(4)


def test_examples_with_votes_come_first_and_show_the_ballot(examples: Path) -> None:
    voted = [IDS[2], IDS[7]]
    table = derived.examples_table("x", [mismatch()], [examples], rewarded(voted), 2)
    assert table["id"].tolist() == voted
    assert table["votes"].tolist() == ["7:3", "7:3"]
    assert len(derived.examples_table("x", [mismatch()], [examples], rewarded(voted), 3)) == 3


def test_only_the_disagreement_set_is_shown(examples: Path) -> None:
    match = LabelFile("w", "1-of-2", 3, "match-s", "match", mismatch().frame)
    assert derived.examples_table("x", [match], [examples], rewarded(), 2).empty
    few = derived.examples_table("x", [mismatch(ids=IDS[:1])], [examples], rewarded(), 5)
    assert few["id"].tolist() == IDS[:1]


# -- recipes (Tables 7 and 8) --------------------------------------------------------------------------------------


def test_recipes_are_a_row_per_setting() -> None:
    settings = {
        "paper": {"sft": {"epochs": 1.0, "schedule": "constant"}, "dpo": {"beta": 0.1, "soft_labels": False}}
    }
    table = derived.recipes_table(settings)
    assert table.values.tolist() == [
        ["paper", "sft", "epochs", "1.0"],
        ["paper", "sft", "schedule", "constant"],
        ["paper", "dpo", "beta", "0.1"],
        ["paper", "dpo", "soft_labels", "false"],
    ]
    assert list(table.columns) == derived.RECIPE_COLUMNS
    with pytest.raises(DataError, match=r"(?s)no recipe to show.*--recipes"):
        derived.recipes_table({})


def test_a_metric_is_taken_alone() -> None:
    table = book_of_labels(vote=[0.5], votes=[10.0])
    assert derived.metric(table, "vote")["value"].tolist() == [0.5]
    assert math.isnan(table["beta"][0])
