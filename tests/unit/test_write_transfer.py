"""Written tables of a transfer and its part of the report: our numbers, the released ones of the same role, all words from data."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import write_transfer
from synthetic_report import write_report
from synthetic_tables import make_tables
from synthetic_transfer import (
    MEANS,
    STRONG,
    TEST,
    make_transfer,
    tabulate,
    write_all,
    write_records,
)
from w2s.errors import DataError
from w2s.transfer_findings import outcome, sentences
from w2s.transfer_results import read_transfer
from w2s.transfer_runs import RecordsName

HEADER = "id,paper,artifact,data,student,teacher,arm,setting,gold,metric,value,source,note"
ROWS = """
a,B,b_table_1,tinyTruthful,GPT,,untuned,,j,content,7.42,s,
b,B,b_table_1,tinyTruthful,GPT,Falcon-7B,icl,refiner=GPT,j,content,6.48,s,
c,B,b_table_1,tinyTruthful,,Falcon-7B,labels:naive,,,content,0.34,s,
d_labels_all_x,B,b_table_1,tinyTruthful,,Falcon-7B,labels:naive,,,content,0.99,s,
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("written")


@pytest.fixture(scope="module")
def tables(root) -> Path:
    sets = [
        write_records(root, RecordsName("persona", seed, "falcon", STRONG, "icl"), 9, {"cut off": 1})
        for seed in (0, 1)
    ]
    return tabulate(root, write_all(root, seeds=2, items=8), records=sets, experiment="b_table_1")


@pytest.fixture(scope="module")
def published(root) -> Path:
    path = root / "values.csv"
    path.write_text(HEADER + ROWS, encoding="utf-8")
    return path


def written(tables: Path, published: Path, folder: Path, layout: str) -> tuple[pd.DataFrame, str]:
    """Run the script; its numbers and its Markdown."""
    outputs = [item for suffix in ("md", "html", "csv") for item in (f"--{suffix}", folder / f"x.{suffix}")]
    arguments = ["--tables", tables, "--published", published, "--layout", layout, *outputs]
    write_transfer.main([str(argument) for argument in arguments])
    return pd.read_csv(folder / "x.csv"), (folder / "x.md").read_text(encoding="utf-8")


def test_every_arm_stands_with_its_numbers_and_the_released_ones(tables, published, tmp_path):
    numbers, text = written(tables, published, tmp_path, "baselines")
    arms = numbers[numbers["table"] == "arms"].fillna({"weak": ""}).set_index(["arm", "weak", "quantity"])
    for arm, weak in (("untuned", ""), ("icl", "falcon"), ("gold", ""), ("timed", "llama")):
        assert arms.loc[(arm, weak, "content"), "value"] == pytest.approx(MEANS[arm][0])
    assert arms.loc[("untuned", "", "content"), "published"] == 7.42
    assert arms.loc[("icl", "falcon", "content"), "published"] == 6.48
    assert arms["published"].notna().sum() == 2
    (line,) = re.findall(r"\| ICL refinement \| falcon \| 7\.50 \\\[.*", text)
    assert "| 6.48 |" in line
    assert "Falcon-7B for falcon" in text and "tinyTruthful for truthful" in text


def test_the_recovered_gap_and_the_labels_follow(tables, published, tmp_path):
    numbers, text = written(tables, published, tmp_path, "baselines")
    gap = numbers[
        (numbers["table"] == "recovered") & (numbers["arm"] == "icl") & (numbers["weak"] == "falcon")
    ]
    gap = gap.set_index("quantity")["value"]
    assert gap["content, to gold labels"] == pytest.approx(4.5 / 5.5)
    assert pd.isna(gap["style, to the unaligned model"])
    labels = numbers[numbers["table"] == "labels"].fillna({"refiner": "", "weak": ""})
    mine = labels[(labels["arm"] == "icl") & (labels["weak"] == "falcon")].set_index("quantity")["value"]
    assert (mine["rows"], mine["dropped_cut_off"], mine["words"]) == (9, 1, 80)
    naive = labels[(labels["arm"] == "naive") & (labels["quantity"] == "content")].set_index("weak")
    assert naive.loc["falcon", "published"] == 0.34  # of the labels that were used, not of all there are
    assert "**Share of the gap recovered**" in text and "| Labels for |" in text and "Dropped cut off" in text


def test_the_bias_table_has_its_test_sets_side_by_side(published, tmp_path):
    tables = make_transfer(tmp_path, seeds=1, items=4, questions=("biographies", "stories"))
    _, text = written(tables, published, tmp_path, "bias")
    (header,) = re.findall(r"^\| Arm .*", text, flags=re.MULTILINE)[:1]
    assert "Biographies · factuality".lower() in header.lower()
    assert "stories · female main character" in header.lower()
    assert "No released value has the role" in text
    assert "one seed" in text


def test_a_layout_without_its_metric_is_refused(tables, published, tmp_path):
    with pytest.raises(DataError, match="no score by correct or copied"):
        written(tables, published, tmp_path, "maths")


def test_equal_tables_give_equal_bytes(tables, published, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written(tables, published, tmp_path / name, "baselines")
    for suffix in ("md", "html", "csv"):
        one, two = (tmp_path / name / f"x.{suffix}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), suffix


def test_a_sentence_follows_from_intervals_alone():
    rows = pd.DataFrame({"difference": [1.0, -1.0, 0.1], "low": [0.5, -2.0, -0.1], "high": [1.5, -0.5, 0.3]})
    assert outcome("style", "j", rows) == "style (judge j) higher in 1, lower in 1, open in 1 of 3 settings"
    assert outcome("content", "", rows.iloc[:1]) == "content +1.00 [0.50, 1.50]"


def test_refinements_lead_and_naive_is_told_too(tables):
    told = sentences(read_transfer(tables, "differences.csv"))
    assert told[0].startswith(
        "ICL refinement against naive fine-tuning: content higher in 2 of 2 settings; style lower in 2"
    )
    assert any(
        text.startswith("Naive fine-tuning against unaligned strong model: content lower in 2")
        for text in told
    )
    assert not any("weak model itself" in text for text in told)


def test_the_report_shows_a_transfer_alone_and_beside_other_experiments(tables, published, tmp_path):
    written(tables, published, tmp_path, "baselines")
    alone = write_report(tmp_path / "alone.html", [tables], [tmp_path / "x.html"]).read_text(encoding="utf-8")
    assert "<h1>What strong models learn from weak ones</h1>" in alone
    assert "ICL refinement against naive fine-tuning: content higher in 2 of 2 settings" in alone
    assert "b_table_1_recovered.csv" in alone and "Share of the gap recovered" in alone
    assert f"{STRONG} learned from falcon and llama by naive fine-tuning" in alone and TEST in alone
    other = make_tables(tmp_path / "main")
    both = write_report(tmp_path / "both.html", [other, tables]).read_text(encoding="utf-8")
    assert "<h1>Weak labels against human labels</h1>" in both
    assert "weak minus human" in both and "ICL refinement against naive fine-tuning" in both
