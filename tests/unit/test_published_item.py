"""The paper's values in the words of our tables: roles pair, unknown settings are named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from synthetic_tables import make_tables
from w2s.errors import DataError
from w2s.published import of_metric, pair, pair_feedback, published_item

PUBLISHED = Path(__file__).resolve().parents[2] / "published" / "values.csv"


def item(folder: Path, name: str) -> pd.DataFrame:
    return published_item(PUBLISHED, make_tables(folder, experiment=name))


def test_every_item_can_be_read(tmp_path):
    for name in pd.read_csv(PUBLISHED)["artifact"].unique():
        tables = make_tables(tmp_path / name)
        assert len(published_item(PUBLISHED, tables, name)), name


def test_sources_are_named_as_ours_are(tmp_path):
    assert list(dict.fromkeys(item(tmp_path / "2b", "a_figure_2b")["feedback"])) == [
        *("human", "weak-OPT-125M", "weak-OPT-1.3B", "weak-Llama-3-8B", "prompted-GPT-4")
    ]
    assert {"random", "kept", "flipped"} == set(item(tmp_path / "12", "a_table_12")["feedback"])
    thirteen = item(tmp_path / "13", "a_table_13")
    assert list(thirteen["feedback"]) == ["weak-OPT-125M", "reward", "human"]
    one = item(tmp_path / "1", "a_table_1")
    assert list(of_metric(one, "match_percent")["feedback"]) == [
        *("weak-OPT-125M", "match-OPT-125M", "mismatch-OPT-125M")
    ]


def test_the_seed_study_is_the_papers_text_on_seeds(tmp_path):
    assert set(item(tmp_path, "a_seed_study")["metric"]) == {"gold_reward", "gold_reward_variance"}


def test_settings_are_columns(tmp_path):
    assert list(dict.fromkeys(item(tmp_path, "a_figure_4b")["share"])) == ["1/16", "1/8", "1/4", "1/2"]
    assert list(dict.fromkeys(item(tmp_path, "a_figure_7")["beta"])) == ["0.05", "0.1", "0.2", "0.3", "0.5"]


@pytest.mark.parametrize("setting", ["shere=1/2", "share", "share="])
def test_a_setting_that_cannot_be_read_is_named(tmp_path, setting):
    values = pd.read_csv(PUBLISHED, dtype=str, keep_default_na=False)
    row = values.index[values["artifact"] == "a_figure_4b"][0]
    values.loc[row, "setting"] = setting
    path = tmp_path / "values.csv"
    values.to_csv(path, index=False)
    with pytest.raises(DataError, match=values["id"][row]):
        published_item(path, make_tables(tmp_path, experiment="a_figure_4b"))


def test_names_pair_by_equality_then_by_rank():
    assert pair(["opt_13b", "x", "y"], ["OPT-1.3B", "OPT-13B"]) == {"opt_13b": "OPT-13B", "x": "OPT-1.3B"}
    assert pair(["exact", "rm-mistral-7b"], ["OpenAssistant/deberta", "weqweasdas/RM-Mistral-7B"]) == {
        "exact": "OpenAssistant/deberta",
        "rm-mistral-7b": "weqweasdas/RM-Mistral-7B",
    }
    assert pair([], ["a"]) == pair(["a"], []) == {}


def test_sources_pair_within_their_policy():
    ours = ["human", "weak-s", "weak-opt-1.3b", "gold"]
    theirs = ["human", "weak-OPT-125M", "weak-OPT-1.3B", "prompted-GPT-4"]
    assert pair_feedback(ours, theirs) == {
        "human": "human",
        "weak-s": "weak-OPT-125M",
        "weak-opt-1.3b": "weak-OPT-1.3B",
    }
