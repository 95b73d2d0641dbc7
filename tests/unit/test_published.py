"""The published values: complete for what the workflow uses, and consistent with one another."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from w2s.errors import DataError
from w2s.results import read_published

PATH = Path(__file__).resolve().parents[2] / "published" / "values.csv"


@pytest.fixture(scope="module")
def values() -> pd.DataFrame:
    return read_published(PATH)


def of(values: pd.DataFrame, identity: str) -> float:
    found = values.loc[values["id"] == identity, "value"]
    assert len(found) == 1, identity
    return found.iloc[0]


def test_every_row_says_where_its_number_stands(values):
    assert (values["source"] != "").all()
    assert set(values["paper"]) == {"A"}
    assert values["id"].is_unique


def test_every_artifact_with_numbers_is_there(values):
    figures = {f"a_figure_{name}" for name in ("2a", "2b", "3a", "3b", "4a", "4b", "5", "6", "7")}
    tables = {f"a_table_{number}" for number in (1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13)}
    assert set(values["artifact"]) == figures | tables | {"a_text_seeds", "a_text_section_4"}


def test_figure_2a_has_both_arms_of_four_students(values):
    bars = values[values["artifact"] == "a_figure_2a"].pivot(index="student", columns="arm", values="value")
    gains = (bars["weak"] - bars["human"]).round(2)
    assert gains.to_dict() == {"OPT-1.3B": 0.21, "OPT-2.7B": 0.20, "OPT-6.7B": 0.46, "OPT-13B": 0.22}


@pytest.mark.parametrize(
    "same",
    [
        "a_figure_2b_opt_1.3b_weak_opt_125m",
        "a_figure_4b_opt_1.3b_weak_share_1_2",
        "a_figure_7_opt_1.3b_weak_beta_0.1",
        "a_table_1_opt_1.3b_weak",
        "a_table_10_opt_1.3b_weak_opt_125m",
        "a_table_11_opt_1.3b_weak_sft_yes",
        "a_table_13_opt_1.3b_weak_teacher_method_dpo",
    ],
)
def test_the_main_setting_has_one_value_wherever_it_is_printed(values, same):
    assert of(values, same) == of(values, "a_figure_2a_opt_1.3b_weak")


def test_gains_in_brackets_all_give_the_same_untuned_reward(values):
    untuned = of(values, "a_table_1_opt_1.3b_untuned")
    gains = values[values["metric"] == "gain_over_untuned"]
    assert len(gains) == 10  # 3 of table 1, 4 of table 11, 3 of table 12
    for row in gains.itertuples():
        reward = of(values, row.id.removesuffix("_gain_over_untuned"))
        assert reward - row.value == pytest.approx(untuned, abs=0.011)


def test_win_tie_and_lose_add_up_to_all_prompts(values):
    bars = values[values["artifact"] == "a_figure_3b"]
    assert (bars.groupby("student")["value"].sum() == 100).all()
    assert bars["student"].nunique() == 5


def test_a_repeated_id_is_named(values, tmp_path):
    path = tmp_path / "values.csv"
    pd.concat([values, values.iloc[[3]]]).to_csv(path, index=False)
    with pytest.raises(DataError, match=values["id"].iloc[3]) as raised:
        read_published(path)
    assert f"row {len(values) + 2}" in str(raised.value)
