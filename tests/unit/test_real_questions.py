"""The question data sets of paper B as they are: counts, and that each gold answer matches itself."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import import_questions
import pandas as pd
import pytest
from tiny import as_artifact
from w2s.artifact import load
from w2s.exact_match import RIGHT, Grader, boxed

EACH = 150


def imported(root: Path, path: Path, adapter: str, *options: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The questions of one file of the real data, and the facts."""
    source = as_artifact(root / "raw", lambda folder: shutil.copy(path, folder))
    files = json.dumps([{"source": "raw", "path": path.name}])
    output = root / "questions" / "manifest.json"
    inputs = ["--sources", str(source), "--files", files, "--output", str(output)]
    import_questions.main([*inputs, "--adapter", adapter, *options])
    artifact = load(output)
    return pd.read_parquet(artifact.path("questions.parquet")), artifact.facts


def rows_of(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


@pytest.mark.parametrize(
    ("name", "adapter", "rows", "kept", "topics"),
    [
        ("dolly/databricks-dolly-15k.jsonl.gz", "dolly", 15015, 14781, 0),
        ("truthfulqa/TruthfulQA.csv.gz", "truthful-qa", 817, 817, 38),
        ("truthfulqa/v0-TruthfulQA.csv.gz", "truthful-qa", 817, 817, 38),
        ("alpaca-eval/text_davinci_003.jsonl.gz", "alpaca-eval", 805, 805, 5),
        ("gsm8k/train.jsonl.gz", "gsm8k", 7473, 7473, 0),
        ("gsm8k/test.jsonl.gz", "gsm8k", 1319, 1319, 0),
        ("math/train.jsonl.gz", "math", 7500, 7498, 7),
        ("math/test.jsonl.gz", "math", 5000, 5000, 7),
        ("math/math500.jsonl.gz", "math-500", 500, 500, 7),
    ],
)
def test_counts(
    tmp_path: Path, shared_data: Path, name: str, adapter: str, rows: int, kept: int, topics: int
) -> None:
    table, facts = imported(tmp_path, shared_data / name, adapter)
    assert (facts["rows_in"], len(table), facts["topics"]) == (rows, kept, topics)
    assert sum(facts["rows_dropped"].values()) == rows - kept


def test_the_first_hundred_of_dolly(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "dolly" / "databricks-dolly-15k.jsonl.gz"
    table, facts = imported(tmp_path / "all", path, "dolly", "--first", "100")
    assert table["question"].tolist() == [row["instruction"].strip() for row in rows_of(path)[:100]]
    assert facts["rows_dropped"]["not_selected"] == 14681 and facts["references"] == 0
    without, facts = imported(tmp_path / "without", path, "dolly", "--first", "100", "--without-context")
    assert facts["rows_dropped"]["with_context"] == 4598
    assert (
        len(set(table["id"]) - set(without["id"])) == 31
    )  # so many of the paper's hundred lack their context
    assert sum(bool(row["context"]) for row in rows_of(path)[:100]) == 31


def test_pinned_anchor_points_of_tiny_benchmarks_fit_the_files(tmp_path: Path, shared_data: Path) -> None:
    anchors = json.loads(
        (shared_data / "tiny-benchmarks" / "tutorial-anchors.json").read_text(encoding="utf-8")
    )
    for scenario, name, adapter in (
        ("harness_truthfulqa_mc_0", "truthfulqa/v0-TruthfulQA.csv.gz", "truthful-qa"),
        ("gsm8k", "gsm8k/test.jsonl.gz", "gsm8k"),
    ):
        points = anchors[scenario]["points"]
        table, facts = imported(
            tmp_path / scenario, shared_data / name, adapter, "--indices", json.dumps(points)
        )
        assert len(table) == 100 and facts["rows_dropped"]["not_selected"] == facts["rows_in"] - 100
    column = "question"
    assert table[column].tolist() == [
        rows_of(shared_data / name)[at][column].strip() for at in sorted(points)
    ]


@pytest.mark.parametrize(
    ("name", "adapter", "solution"),
    [
        ("gsm8k/test.jsonl.gz", "gsm8k", "answer"),
        ("math/test.jsonl.gz", "math", "solution"),
        ("math/math500.jsonl.gz", "math-500", "solution"),
    ],
)
def test_gold_answers_match_themselves_and_no_other(
    tmp_path: Path, shared_data: Path, name: str, adapter: str, solution: str
) -> None:
    """A sample; over all rows of these files and the training files every one of the 21,790 gold answers does."""
    table, _ = imported(tmp_path, shared_data / name, adapter, "--sample", str(EACH))
    column = "question" if adapter == "gsm8k" else "problem"
    solutions = {row[column].strip(): row[solution] for row in rows_of(shared_data / name)}
    worked = [solutions[question] for question in table["question"]]
    with Grader() as grader:
        own = Counter(map(grader.verdict, map(boxed, table["reference"]), worked))
        other = Counter(map(grader.verdict, map(boxed, table["reference"]), [*worked[1:], worked[0]]))
    assert own[RIGHT] >= 0.99 * EACH
    assert other[RIGHT] <= 0.1 * EACH  # small numbers coincide now and then
