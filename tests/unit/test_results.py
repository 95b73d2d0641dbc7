"""Reading result tables: refusals name the row; names and numbers as people read them."""

from __future__ import annotations

import pandas as pd
import pytest
from remade import remade
from synthetic_tables import (
    WORLDS,
    comparisons_table,
    make_label_tables,
    make_tables,
    responses_table,
    rewrite,
    similarity_tables,
    votes_table,
)
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
    remade(tables)
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
    arms = ["gold", "weak-s-sft", "dice", "human", "untuned", "weak-s", "human-sft", "random", "match-s"]
    assert sorted(arms, key=results.arm_order) == [
        *("untuned", "human-sft", "weak-s-sft", "human", "weak-s", "match-s", "random", "gold", "dice")
    ]
    assert results.arm_label("weak-s-sft") == "weak (from s), SFT only"
    assert results.feedback_label("weak-s") == "weak labels (from s)"
    assert results.feedback_label("human") == "human labels"
    assert results.feedback_label("dice") == "dice labels"
    assert results.feedback_name("flipped-weak-s") == "random noise, flipped part (from weak-s)"
    assert results.feedback_name("match-random") == "random noise, kept part"
    assert results.feedback_name("match-weak-s") == "match (from weak-s)"
    assert results.arm_label("teacher") == "the teacher itself"
    assert results.policy_of("weakest") == "weakest"
    assert results.policy_of("mismatch-s") == "mismatch"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123, "+0.12"), (-0.456, "−0.46"), (0.001, "0.00"), (-0.004, "0.00"), (12.0, "+12.00")],
)
def test_signs_are_written_out_and_zero_has_none(value, text):
    assert results.signed(value) == text


def test_model_names_compare_whatever_their_spelling():
    assert results.same_model("OPT-1.3B") == results.same_model("opt_1.3b") != results.same_model("opt-13b")


def test_a_table_that_an_experiment_lacks_is_an_empty_one_with_its_columns(tmp_path):
    tables = make_label_tables(tmp_path, "a_table_4", {"votes.csv": votes_table()})
    assert results.result_names(tables) == ["labels.csv", "label_quality.csv", "costs.csv", "votes.csv"]
    empty = results.read_if_there(tables, "rewards.csv")
    assert empty.empty and list(empty.columns) == results.TABLES["rewards.csv"].all
    assert len(results.read_if_there(tables, "votes.csv")) == 2
    with pytest.raises(ArtifactError, match=r"rewards\.csv"):
        results.read_result(tables, "rewards.csv")


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("responses.csv", "gap"),
        ("comparisons.csv", "score"),
        ("votes.csv", "consistency"),
        ("similarity.csv", "r2"),
        ("similarity_points.csv", "similarity"),
    ],
)
def test_the_optional_tables_are_as_strict(tmp_path, name, column):
    more = {"responses.csv": responses_table(), "comparisons.csv": comparisons_table()}
    more |= {"votes.csv": votes_table(), **similarity_tables()}
    tables = make_tables(tmp_path, more=more)
    assert len(results.read_result(tables, name))
    frame = pd.read_csv(tables.parent / name, dtype=str)
    frame.loc[1, column] = ""
    rewrite(tables, name, frame)
    with pytest.raises(DataError, match=f"row 3, column {column}"):
        results.read_result(tables, name)


def test_the_untuned_model_stands_beside_the_arms_of_each_recipe(tmp_path):
    tables = make_tables(tmp_path, recipes={"low": 0.05, "high": 0.5}, golds=("exact",))
    spread = results.with_untuned_by_recipe(results.read_result(tables, "rewards.csv"))
    untuned = spread[spread["arm"] == "untuned"]
    assert list(zip(untuned["recipe"], untuned["beta"], strict=True)) == [("low", 0.05), ("high", 0.5)]
    assert set(results.setting_labels(spread)) == {"β = 0.05", "β = 0.5"}
    alone = results.read_result(make_tables(tmp_path / "alone", feedbacks=()), "rewards.csv")
    assert list(results.with_untuned_by_recipe(alone)["recipe"]) == ["", ""]


def test_recipes_of_equal_beta_are_told_by_name(tmp_path):
    tables = make_tables(tmp_path, recipes={"plain": 0.1, "plain-without-sft": 0.1})
    rewards = results.with_untuned_by_recipe(results.read_result(tables, "rewards.csv"))
    assert set(results.setting_labels(rewards)) == {"plain", "plain-without-sft"}


def test_teachers_are_no_students(tmp_path):
    rewards = results.read_result(make_tables(tmp_path), "rewards.csv")
    own = rewards.iloc[[0, 1]].assign(arm=["teacher", "teacher-sft"], student="demo-s", feedback="")
    assert set(results.of_students(pd.concat([rewards, own]))["student"]) == {"k"}


@pytest.mark.parametrize("share", ["half", "1-of-0", "0.5"])
def test_a_share_that_is_none_is_named(share):
    assert results.share_value("1-of-16") == 1 / 16 == results.share_value("1/16")
    with pytest.raises(DataError, match=share):
        results.share_value(share)
