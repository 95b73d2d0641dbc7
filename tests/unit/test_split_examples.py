"""The split: shares, seeds, disjoint by id and by normalised prompt, proven from the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import split_examples
from raw_data import import_rows, transcript, write_jsonl
from w2s.artifact import load
from w2s.dialogue import normalise_prompt
from w2s.errors import DataError
from w2s.tables import read_examples, read_part, write_parquet


def row(prompt: str, number: int = 0) -> dict[str, str]:
    """One HH row."""
    return {"chosen": transcript(prompt, f"good {number}"), "rejected": transcript(prompt, f"bad {number}")}


def examples_of(root: Path, train: Sequence[str], test: Sequence[str]) -> Path:
    """Examples artifact with these train and test prompts."""
    import json

    import import_examples
    from raw_data import entry, fetch_local

    for side, prompts in (("train", train), ("test", test)):
        write_jsonl(root / "raw" / f"{side}.jsonl", [row(prompt, n) for n, prompt in enumerate(prompts)])
    source = fetch_local(root, root / "raw", ["train.jsonl", "test.jsonl"])
    manifest = root / "examples" / "manifest.json"
    files = json.dumps([entry(f"{side}.jsonl", side, side) for side in ("train", "test")])
    import_examples.main(
        ["--sources", str(source), "--output", str(manifest), "--adapter", "hh", "--files", files]
    )
    return manifest


def split(examples: Path, share: str = "1/2", seed: int = 1) -> Path:
    """Split; returns the manifest."""
    output = examples.parent.parent / f"split-{share.replace('/', '-of-')}-{seed}" / "manifest.json"
    inputs = ["--examples", str(examples), "--output", str(output)]
    split_examples.main([*inputs, "--share", share, "--seed", str(seed)])
    return output


def part_of(manifest: Path) -> dict[str, str]:
    """Id -> part."""
    table = pd.read_parquet(load(manifest).path("assignment.parquet"))
    return dict(zip(table["id"], table["part"], strict=True))


PROMPTS = [f"question {n}" for n in range(160)]
TEST = [f"test question {n}" for n in range(20)]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 train and 20 test examples, all prompts different."""
    return examples_of(tmp_path_factory.mktemp("split"), PROMPTS, TEST)


@pytest.mark.parametrize(("share", "labelled"), [("1/16", 10), ("1/8", 20), ("1/4", 40), ("1/2", 80)])
def test_shares(examples: Path, share: str, labelled: int) -> None:
    facts = load(split(examples, share)).facts
    assert facts["rows_by_part"] == {"labelled": labelled, "unlabelled": 160 - labelled, "test": 20}
    assert (facts["rows_in"], facts["rows_kept"]) == (180, 180)


def test_seeds_and_repetition(examples: Path) -> None:
    first, again, other = part_of(split(examples)), part_of(split(examples)), part_of(split(examples, seed=2))
    assert first == again
    both = sum(first[id_] == other[id_] == "labelled" for id_ in first)
    assert 20 < both < 60  # about a quarter of 160 by chance


def test_a_smaller_labelled_part_lies_in_a_larger_one(examples: Path) -> None:
    small, large = part_of(split(examples, "1/8")), part_of(split(examples, "1/2"))
    assert {i for i, part in small.items() if part == "labelled"} < {
        i for i, part in large.items() if part == "labelled"
    }


def test_parts_can_be_read_and_the_first_ids_are_listed(examples: Path) -> None:
    manifest = split(examples)
    for part in ("labelled", "unlabelled", "test"):
        rows = read_part(examples, manifest, part)
        assert load(manifest).facts["first_ids"][part] == rows["id"].tolist()[:5]
    assert set(read_part(examples, manifest, "test")["subset"]) == {"test"}


def test_near_duplicate_prompts_go_the_same_way(tmp_path: Path) -> None:
    variants = ["Question {}?", "  question   {}?", "QUESTION {}?", "Ｑuestion {}?"]
    train = [variant.format(n) for n in range(30) for variant in variants]
    manifest = examples_of(tmp_path, train, ["another one", "QUESTION 7?", "question\n3?"])
    made = split(manifest)
    parts = part_of(made)
    table = read_examples(manifest)
    table["part"], table["key"] = table["id"].map(parts), table["prompt"].map(normalise_prompt)
    by_key = table[table["origin_split"] == "train"].groupby("key")["part"].agg(["nunique", "size"])
    assert by_key["nunique"].tolist() == [1] * 30 and by_key["size"].tolist() == [4] * 30
    facts = load(made).facts
    assert facts["rows_by_part"] == {"labelled": 60, "unlabelled": 60, "test": 1}
    assert facts["rows_dropped"] == {"prompt_in_train": 2}
    assert facts["proof"] == {
        name: {"labelled and unlabelled": 0, "labelled and test": 0, "unlabelled and test": 0}
        for name in ("shared_ids", "shared_prompts")
    }
    drops = pd.read_csv(load(made).path("drops.csv"))
    assert drops.to_numpy().tolist() == [["test", "prompt_in_train", 2], ["train", "prompt_in_train", 0]]


def test_the_proof_finds_a_shared_prompt_and_a_shared_id() -> None:
    assignment = pd.DataFrame({"id": ["a", "b", "c"], "part": ["labelled", "unlabelled", "test"]})
    split_examples.prove_disjoint(assignment, {"a": "x", "b": "y", "c": "z"})
    with pytest.raises(DataError, match="'unlabelled and test': 1"):
        split_examples.prove_disjoint(assignment, {"a": "x", "b": "y", "c": "y"})
    twice = pd.concat([assignment, pd.DataFrame({"id": ["a"], "part": ["test"]})])
    with pytest.raises(Exception, match="duplicate ids: a"):
        split_examples.prove_disjoint(twice, {"a": "x", "b": "y", "c": "z"})


def test_groups_are_drawn_to_the_nearest_whole_prompt() -> None:
    sizes = Counter({f"p{n}": 3 for n in range(10)})
    assert [len(split_examples.draw_groups(sizes, share, 0)) for share in (0.0, 0.04, 0.06, 0.5, 1.0)] == [
        0,
        0,
        1,
        5,
        10,
    ]


@pytest.mark.parametrize("share", ["0", "1", "1/1000"])
def test_an_empty_part_is_refused(examples: Path, share: str) -> None:
    with pytest.raises(DataError, match="would be empty"):
        split(examples, share)


def test_no_test_side(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no example has origin_split 'test'"):
        split(import_rows(tmp_path, [row(f"{n}", n) for n in range(4)]))


def test_two_prompts_in_one_example(tmp_path: Path) -> None:
    mismatch = {"chosen": transcript("A?", "a"), "rejected": transcript("B?", "b")}
    manifest = import_rows(tmp_path, [mismatch, row("C?")])
    with pytest.raises(DataError, match="(?s)1 examples have two prompts.*filter_examples"):
        split(manifest)


def test_duplicate_id(examples: Path, tmp_path: Path) -> None:
    from w2s.artifact import Artifact

    table = read_examples(examples)
    with Artifact.create(tmp_path / "x" / "manifest.json", spec={}, parents={}, script=__file__) as artifact:
        write_parquet(pd.concat([table, table.iloc[:1]]), artifact.path("examples.parquet"))
    with pytest.raises(Exception, match=f"duplicate ids: {table['id'].iloc[0]}"):
        split(tmp_path / "x" / "manifest.json")
