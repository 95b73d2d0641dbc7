"""Reading result tables: refusals name the row; names and numbers as people read them."""

from __future__ import annotations

import pandas as pd
import pytest
from synthetic_tables import WORLDS, make_tables, rewrite
from w2s import results
from w2s.errors import ArtifactError, DataError


def test_a_table_comes_back_as_it_was_written(tmp_path):
    tables = make_tables(tmp_path)
    rewards = results.read_result(tables, "rewards.csv")
    assert list(rewards["arm"][:2]) == ["untuned", "human-sft"]
    assert rewards["feedback"].iloc[0] == ""
    assert rewards["mean"].dtype == "float64"


def test_a_missing_column_is_named(tmp_path):
    tables = make_tables(tmp_path)
    rewrite(tables, "rewards.csv", pd.read_csv(tables.parent / "rewards.csv").drop(columns="low"))
    with pytest.raises(DataError, match="column low missing"):
        results.read_result(tables, "rewards.csv")


@pytest.mark.parametrize("cell", ["", "nan", "inf", "much"])
def test_a_cell_that_is_no_number_is_named_by_row_and_column(tmp_path, cell):
    tables = make_tables(tmp_path)
    frame = pd.read_csv(tables.parent / "rewards.csv", dtype=str)
    frame.loc[4, "mean"] = cell
    rewrite(tables, "rewards.csv", frame)
    with pytest.raises(DataError, match=r"row 6, column mean"):
        results.read_result(tables, "rewards.csv")


def test_what_may_be_unknown_may_be_empty(tmp_path):
    tables = make_tables(tmp_path)
    frame = pd.read_csv(tables.parent / "rewards.csv")
    frame["malformed"] = float("nan")
    rewrite(tables, "rewards.csv", frame)
    assert results.read_result(tables, "rewards.csv")["malformed"].isna().all()


def test_a_table_that_is_not_text_is_refused(tmp_path):
    tables = make_tables(tmp_path)
    (tables.parent / "costs.csv").write_bytes(b"\xff\xfe\x00broken")
    with pytest.raises(DataError, match="not a readable table"):
        results.read_result(tables, "costs.csv")
    with pytest.raises(ArtifactError, match="no file"):
        results.load(tables).path("other.csv")


def test_main_judge_is_the_declared_one_and_must_be_there(tmp_path):
    tables = make_tables(tmp_path, main_gold="learned")
    rewards = results.read_result(tables, "rewards.csv")
    assert results.main_gold(tables, rewards) == "learned"
    with pytest.raises(DataError, match="'learned'"):
        results.main_gold(tables, rewards[rewards["gold"] == "exact"])
    with pytest.raises(DataError, match="no rows"):
        results.main_gold(tables, rewards.iloc[:0])


def test_only_arms_after_dpo_answer_the_papers_question(tmp_path):
    tables = make_tables(tmp_path)
    rows = results.weak_minus_human(results.read_result(tables, "differences.csv"), "exact")
    assert list(zip(rows["arm"], rows["baseline"], strict=True)) == [("weak-s", "human")]


def test_settings_are_told_apart_by_what_differs(tmp_path):
    tables = make_tables(tmp_path, worlds=WORLDS)
    rewards = results.read_result(tables, "rewards.csv")
    assert set(results.setting_labels(rewards)) == set(WORLDS)
    one = rewards[rewards["data"] == "world-t1"]
    assert set(results.setting_labels(one)) == {"k"}
    assert list(results.setting_labels(one.iloc[:0])) == []


def test_arms_are_sorted_and_named():
    arms = ["gold", "weak-s-sft", "human", "untuned", "weak-s", "human-sft", "random"]
    assert sorted(arms, key=results.arm_order) == [
        *("untuned", "human-sft", "weak-s-sft", "human", "weak-s", "gold", "random")
    ]
    assert results.arm_label("weak-s-sft") == "weak (from s), SFT only"
    assert results.feedback_label("weak-s") == "weak labels (from s)"
    assert results.feedback_label("human") == "human labels"
    assert results.policy_of("weakest") == "weakest"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123, "+0.12"), (-0.456, "−0.46"), (0.001, "0.00"), (-0.004, "0.00"), (12.0, "+12.00")],
)
def test_signs_are_written_out_and_zero_has_none(value, text):
    assert results.signed(value) == text


def test_model_names_compare_whatever_their_spelling():
    assert results.same_model("OPT-1.3B") == results.same_model("opt_1.3b") != results.same_model("opt-13b")
