"""The data stages on the real test rows of HH-RLHF with OPT's tokenizer: the counts known of them."""

from __future__ import annotations

import json
from pathlib import Path

import filter_examples
import import_examples
import pandas as pd
import pytest
import split_examples
from raw_data import entry, fetch_local
from w2s.artifact import Artifact, load

HELPFUL = ("helpful-base", "helpful-online", "helpful-rejection-sampled")
SUBSETS = ("harmless-base", *HELPFUL)
SHA256 = {
    "harmless-base": "ebfaaed21162a4de120ae85366075b34425e2a6303fac59b99555002f7016f03",
    "helpful-base": "8be3fc1a13b27901631696f2be6f184c799f1baeaf145f53ac5db24960adc37b",
    "helpful-online": "2094b210af6b2a792b1169d2930586c4b4b384d3b8a4a14460702d383c17df7f",
    "helpful-rejection-sampled": "6186fc698c638dd5c6bbb33e0c115762d6fdfac0a18969ff4901545307f89a54",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """The chain from fetch to filter on all four test files, split again 90/10."""
    root = tmp_path_factory.mktemp("hh")
    names = [f"{subset}.test.jsonl.gz={SHA256[subset]}" for subset in SUBSETS]
    source = fetch_local(root, shared_data / "hh-rlhf", names, "hh")
    files = json.dumps([entry(f"{subset}.test.jsonl.gz", subset, "test", "hh") for subset in SUBSETS])
    examples, tokenizer = root / "examples" / "manifest.json", root / "tokenizer" / "manifest.json"
    options = ["--adapter", "hh", "--files", files, "--test-share", "0.1", "--resplit-seed", "22"]
    import_examples.main(["--sources", str(source), "--output", str(examples), *options])
    with Artifact.create(tokenizer, spec={}, parents={}, script=__file__) as artifact:
        opt = (shared_data / "opt-tokenizer" / "tokenizer.json").read_bytes()
        artifact.path("tokenizer.json").write_bytes(opt)
        artifact.path("encoding.json").write_text(
            '{"bos_id": 2, "eos_id": 2, "pad_id": 1, "positions": 2048}'
        )
    inputs = ["--examples", str(examples), "--tokenizer", str(tokenizer)]
    filter_examples.main(
        [*inputs, "--output", str(root / "filtered" / "manifest.json"), "--max-tokens", "512"]
    )
    return root


def test_rows_of_each_subset(folder: Path) -> None:
    facts = load(folder / "examples" / "manifest.json").facts
    assert [facts["rows_in_by_subset"][subset] for subset in SUBSETS] == [2312, 2354, 1137, 2749]
    assert sum(facts["rows_in_by_subset"][subset] for subset in HELPFUL) == 6240
    assert facts["rows_kept"] == 8552 and facts["rows_dropped"]["duplicate_row"] == 0
    assert facts["rows_by_origin_split"] == {"test": 856, "train": 7696}


def test_rows_within_512_tokens(folder: Path) -> None:
    facts = load(folder / "filtered" / "manifest.json").facts
    too_long = facts["rows_to_which_a_reason_applies"]["too_long"]
    assert 8552 - sum(too_long.values()) == 7819
    assert 6240 - sum(too_long[subset] for subset in HELPFUL) == 5585
    assert facts["max_tokens_kept"] == 512
    assert facts["rows_dropped"]["too_long"] == 733


def test_other_reasons(folder: Path) -> None:
    applies = load(folder / "filtered" / "manifest.json").facts["rows_to_which_a_reason_applies"]
    counts = {reason: [applies[reason][subset] for subset in SUBSETS] for reason in applies}
    assert counts["prompt_mismatch"] == [5, 9, 0, 3]
    assert counts["equal_responses"] == [0, 2, 2, 32]
    assert counts["empty_response"] == [4, 4, 3, 0]


def test_rows_kept_and_dropped_add_up(folder: Path) -> None:
    filtered = load(folder / "filtered" / "manifest.json")
    drops = pd.read_csv(filtered.path("drops.csv"))
    assert filtered.facts["rows_kept"] + drops["rows"].sum() == 8552
    assert len(pd.read_parquet(filtered.path("examples.parquet"))) == filtered.facts["rows_kept"] == 7760


def test_split_of_real_rows(folder: Path) -> None:
    output = folder / "split" / "manifest.json"
    examples = str(folder / "filtered" / "manifest.json")
    split_examples.main(["--examples", examples, "--output", str(output), "--share", "1/2", "--seed", "22"])
    facts = load(output).facts
    parts = facts["rows_by_part"]
    assert sum(parts.values()) + facts["rows_dropped"]["prompt_in_train"] == 7760
    assert abs(parts["labelled"] - parts["unlabelled"]) <= 2
    assert not any(count for counts in facts["proof"].values() for count in counts.values())
