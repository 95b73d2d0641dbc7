"""Imported examples: ids and order by content, labels apart, splits, duplicates, and the demo world."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import import_examples
import pandas as pd
import pytest
import w2s
from raw_data import entry, fetch_local, hh_rows, import_rows, transcript, write_jsonl
from w2s.artifact import load
from w2s.errors import ConfigError, DataError
from w2s.tables import EXAMPLE_COLUMNS, LABEL_COLUMNS, join_labels, read_examples, read_labels


def human(manifest: Path) -> pd.DataFrame:
    """Examples joined with their human labels."""
    return join_labels(read_examples(manifest), read_labels(manifest, "human.parquet"))


def preferred(table: pd.DataFrame) -> list[str]:
    """The preferred response of each row."""
    return [row[f"response_{row['label']}"] for row in table.to_dict("records")]


def test_every_label_points_at_the_chosen_response(tmp_path: Path) -> None:
    table = human(import_rows(tmp_path, hh_rows(40)))
    assert set(preferred(table)) == {f" good {n}" for n in range(40)}
    assert 5 < table["label"].sum() < 35  # both orders occur
    assert table["probability"].tolist() == table["label"].astype(float).tolist()
    assert table["margin"].isna().all() and set(table["source"]) == {"human"}


def test_swapping_chosen_and_rejected_changes_the_labels_only(tmp_path: Path) -> None:
    swapped = [{"chosen": row["rejected"], "rejected": row["chosen"]} for row in hh_rows(20)]
    first, second = import_rows(tmp_path / "a", hh_rows(20)), import_rows(tmp_path / "b", swapped)
    pd.testing.assert_frame_equal(read_examples(first), read_examples(second))
    assert (human(first)["label"] + human(second)["label"] == 1).all()


def test_columns_order_and_place(tmp_path: Path) -> None:
    manifest = import_rows(tmp_path, hh_rows(3))
    examples = read_examples(manifest)
    assert list(examples.columns) == EXAMPLE_COLUMNS
    assert list(read_labels(manifest, "human.parquet").columns) == LABEL_COLUMNS
    assert examples["id"].is_monotonic_increasing and examples["id"].str.fullmatch("[0-9a-f]{16}").all()
    assert set(examples["source_row"]) == {f"raw/rows.jsonl:{n}" for n in (1, 2, 3)}
    assert set(examples["subset"]) == {"base"} and examples["other_prompt"].isna().all()


def test_differing_prompts_keep_both_with_their_responses(tmp_path: Path) -> None:
    row = {"chosen": transcript("A?", "a"), "rejected": transcript("B?", "b")}
    example = human(import_rows(tmp_path, [row])).iloc[0]
    assert {example["prompt"], example["other_prompt"]} == {transcript(x, "")[:-1] for x in ("A?", "B?")}
    side = 0 if "A?" in example["prompt"] else 1
    assert example[f"response_{side}"] == " a" and example["label"] == side


def test_equal_responses_have_label_0(tmp_path: Path) -> None:
    rows = [{"chosen": transcript(f"{n}", "x"), "rejected": transcript(f"{n}", "x")} for n in range(8)]
    assert human(import_rows(tmp_path, rows))["label"].tolist() == [0] * 8


def test_duplicates_are_dropped_and_contradictions_counted(tmp_path: Path) -> None:
    rows = hh_rows(5)
    swapped = {"chosen": rows[1]["rejected"], "rejected": rows[1]["chosen"]}
    manifest = import_rows(tmp_path, [*rows, rows[0], swapped])
    facts = load(manifest).facts
    assert (facts["rows_in"], facts["rows_kept"], facts["duplicates_with_other_label"]) == (7, 5, 1)
    drops = pd.read_csv(load(manifest).path("drops.csv"))
    assert drops[drops["rows"] > 0].to_numpy().tolist() == [["base", "duplicate_row", 2]]
    assert " good 1" in preferred(human(manifest))  # the first row wins


def test_given_splits_are_kept_and_files_pooled_for_a_new_one(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "raw" / "train.jsonl.gz", hh_rows(70))
    write_jsonl(tmp_path / "raw" / "test.jsonl.gz", hh_rows(33, start=70))
    source = fetch_local(tmp_path, tmp_path / "raw", ["train.jsonl.gz", "test.jsonl.gz"])
    files = json.dumps([entry("train.jsonl.gz"), entry("test.jsonl.gz", split="test")])
    common = ["--sources", str(source), "--adapter", "hh", "--files", files]
    made = {}
    for name, options in {
        "given": [],
        "new": ["--test-share", "0.1", "--resplit-seed", "1"],
        "again": ["--test-share", "1/10", "--resplit-seed", "1"],
        "other": ["--test-share", "0.1", "--resplit-seed", "2"],
    }.items():
        output = tmp_path / name / "manifest.json"
        import_examples.main([*common, "--output", str(output), *options])
        made[name] = read_examples(output).set_index("id")["origin_split"]
    assert made["given"].value_counts().to_dict() == {"train": 70, "test": 33}
    assert made["new"].value_counts().to_dict() == {"train": 92, "test": 11}  # ceil(10.3)
    assert made["new"].equals(made["again"]) and not made["new"].equals(made["other"])


def test_the_pooled_recipe_gives_the_papers_sizes() -> None:
    counts = [43_835, 2_354, 22_007, 1_137, 52_421, 2_749]
    rows: list[dict[str, Any]] = [{"origin_split": "train"} for _ in range(sum(counts))]
    import_examples.resplit(rows, 0.1, 0)
    test = sum(row["origin_split"] == "test" for row in rows)
    assert (len(rows), len(rows) - test, test) == (124_503, 112_052, 12_451)


def test_a_share_that_divides_is_not_rounded_up() -> None:
    rows: list[dict[str, Any]] = [{} for _ in range(100)]
    import_examples.resplit(rows, 0.07, 0)  # 0.07 * 100 is 7.000000000000001 in floating point
    assert sum(row["origin_split"] == "test" for row in rows) == 7


def test_a_limit_takes_the_same_sample_from_a_shuffled_file(tmp_path: Path) -> None:
    first = import_rows(tmp_path / "a", hh_rows(30), "--limit", "10")
    second = import_rows(tmp_path / "b", hh_rows(30)[::-1], "--limit", "10")
    assert read_examples(first)["id"].tolist() == read_examples(second)["id"].tolist()
    assert load(first).facts["rows_dropped"]["beyond_limit"] == 20
    assert set(human(first)["id"]) == set(read_examples(first)["id"])


def test_a_limit_of_the_test_side_leaves_the_train_side_whole(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "raw" / "train.jsonl", hh_rows(30))
    write_jsonl(tmp_path / "raw" / "test.jsonl", hh_rows(25, start=30))
    source = fetch_local(tmp_path, tmp_path / "raw", ["train.jsonl", "test.jsonl"])
    files = json.dumps([entry("train.jsonl"), entry("test.jsonl", split="test")])
    common = ["--sources", str(source), "--adapter", "hh", "--files", files]
    made = {}
    for name, options in {
        "all": [],
        "ten": ["--test-limit", "10"],
        "more": ["--test-limit", "99"],
        "both": ["--test-limit", "10", "--limit", "20"],
    }.items():
        output = tmp_path / name / "manifest.json"
        import_examples.main([*common, "--output", str(output), *options])
        made[name] = read_examples(output).set_index("id")["origin_split"]
        facts = load(output).facts
        assert facts["rows_in"] == 55 == facts["rows_kept"] + sum(facts["rows_dropped"].values())
        assert facts["rows_kept"] == len(made[name]) == len(read_labels(output, "human.parquet"))
    assert made["ten"].value_counts().to_dict() == {"train": 30, "test": 10}
    tests = made["all"][made["all"] == "test"].index
    assert made["ten"][made["ten"] == "test"].index.tolist() == sorted(tests)[:10]  # ids are hashes: a sample
    assert made["more"].equals(made["all"])
    assert made["both"].index.tolist() == made["ten"].index.tolist()[:20]
    drops = pd.read_csv(load(tmp_path / "ten" / "manifest.json").path("drops.csv"))
    assert drops[drops["rows"] > 0][["reason", "rows"]].values.tolist() == [["beyond_limit", 15]]


def test_a_negative_limit_is_refused(tmp_path: Path) -> None:
    words = ["--adapter", "hh", "--output", str(tmp_path / "o" / "manifest.json"), "--sources"]
    for flag in ("--limit", "--test-limit"):
        with pytest.raises(ConfigError, match=f"(?s)a limit of -1.*{flag}"):
            import_examples.main([*words, flag, "-1"])


def world_frame(settings: dict[str, Any]) -> pd.DataFrame:
    """Four pairs of a small world; the temperature changes the human answers only."""
    cold = settings["temperature"] < 1
    return pd.DataFrame(
        {
            "prompt": [f"\n\nHuman: {n}\n\nAssistant:" for n in range(4)],
            "response_a": [f" a{n}" for n in range(4)],
            "response_b": [f" b{n}" for n in range(4)],
            "reward_a": [1.0, 0.0, 2.0, 3.0],
            "reward_b": [0.0, 1.0, 2.0, 5.0],
            "human": [0, 1, 0, 1] if cold else [1, 0, 1, 0],
            "origin_split": ["train", "train", "train", "test"],
        }
    )


@pytest.fixture
def import_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``import_world(temperature, make_pairs)`` -> manifest of examples, from the test's own generator."""

    def run(temperature: float = 0.5, make_pairs: Callable[..., pd.DataFrame] = world_frame) -> Path:
        generator = types.SimpleNamespace(make_pairs=make_pairs)
        monkeypatch.setitem(sys.modules, "w2s.world", generator)  # type: ignore[arg-type]
        monkeypatch.setattr(w2s, "world", generator, raising=False)
        output = tmp_path / f"world-t{temperature}" / "manifest.json"
        settings = json.dumps({"seed": 1, "temperature": temperature})
        import_examples.main(["--output", str(output), "--adapter", "world", "--world", settings])
        return output

    return run


def test_world_labels_and_rewards_follow_their_responses(import_world: Callable[..., Path]) -> None:
    manifest = import_world()
    examples = read_examples(manifest)
    assert set(preferred(human(manifest))) == {" a0", " b1", " a2", " b3"}
    rewards = pd.read_parquet(load(manifest).path("rewards.parquet")).set_index(["id", "response"])["reward"]
    frame = world_frame({"temperature": 0})
    expected = pd.concat([frame.set_index(f"response_{side}")[f"reward_{side}"] for side in "ab"])
    gold = read_labels(manifest, "gold.parquet").set_index("id")
    assert len(rewards) == 8
    for row in examples.to_dict("records"):
        first, second = rewards[row["id"], 0], rewards[row["id"], 1]
        assert (first, second) == (expected[row["response_0"]], expected[row["response_1"]])
        label = gold.loc[row["id"]]
        assert label["margin"] == second - first
        assert label["label"] == int(second >= first)
        assert label["probability"] == (0.5 if first == second else float(second > first))
    assert examples.groupby("origin_split").size().to_dict() == {"test": 1, "train": 3}


def test_noise_levels_differ_in_the_human_labels_only(import_world: Callable[..., Path]) -> None:
    cold, hot = load(import_world(0.5)), load(import_world(2.0))
    same = {
        name: cold.manifest["files"][name] == hot.manifest["files"][name] for name in cold.manifest["files"]
    }
    assert same == {
        "drops.csv": True,
        "examples.parquet": True,
        "gold.parquet": True,
        "human.parquet": False,
        "rewards.parquet": True,
    }


def test_the_demo_world_itself_is_imported(tmp_path: Path) -> None:
    settings = json.dumps({"seed": 1, "pairs": 50, "test_prompts": 10, "temperature": 1.0})
    output = tmp_path / "world" / "manifest.json"
    import_examples.main(["--output", str(output), "--adapter", "world", "--world", settings])
    examples, facts = read_examples(output), load(output).facts
    assert facts["rows_in"] == 60
    assert facts["rows_by_origin_split"]["test"] == 10
    assert examples["prompt"].str.endswith("\n\nAssistant:").all()
    assert examples[["response_0", "response_1"]].stack().str.startswith(" ").all()


@pytest.mark.parametrize(
    ("column", "what"),
    [("human", "'human' holds NaN"), ("reward_b", "'reward_b' holds nan"), ("prompt", "'prompt'")],
)
def test_a_world_with_gaps_is_refused(import_world: Callable[..., Path], column: str, what: str) -> None:
    def gaps(settings: dict[str, Any]) -> pd.DataFrame:
        frame = world_frame(settings)
        frame[column] = frame[column].where(frame.index != 2)
        return frame

    with pytest.raises(DataError, match=f"(?s){what}.*world:3"):
        import_world(make_pairs=gaps)


def test_bad_rows_stop_the_stage_by_file_and_line(
    tmp_path: Path, run_stage: Callable[..., CompletedProcess[str]]
) -> None:
    write_jsonl(tmp_path / "raw" / "a.jsonl", [*hh_rows(2), {"chosen": "no answer", "rejected": "none"}])
    source = fetch_local(tmp_path, tmp_path / "raw", ["a.jsonl"])
    output = tmp_path / "examples" / "manifest.json"
    files = json.dumps([entry("a.jsonl")])
    done = run_stage(
        "import_examples", "--sources", source, "--output", output, "--adapter", "hh", "--files", files
    )
    assert done.returncode == 2
    assert "has no response" in done.stderr and "a.jsonl:3, column 'chosen'" in done.stderr
    assert "Traceback" not in done.stderr and not output.parent.exists()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--adapter", "world"], "needs settings"),
        (["--adapter", "world", "--world", "{}"], "needs settings"),
        (["--adapter", "world", "--world", '{"seed": 1}', "--files", '[{"a": 1}]'], "reads no files"),
        (["--adapter", "hh", "--limit", "-1"], "a limit of -1"),
        (["--adapter", "hh"], "no file to import"),
    ],
)
def test_impossible_settings(tmp_path: Path, options: list[str], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        import_examples.main(["--output", str(tmp_path / "x" / "manifest.json"), *options])


@pytest.mark.parametrize("text", ["{", "{}"])
def test_files_must_be_a_json_list(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        import_examples.main(
            ["--output", str(tmp_path / "manifest.json"), "--adapter", "hh", "--files", text]
        )
    assert "--files" in capsys.readouterr().err


def test_two_sources_of_one_name(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "raw" / "a.jsonl", hh_rows(1))
    sources = [str(fetch_local(tmp_path / x, tmp_path / "raw", ["a.jsonl"])) for x in "ab"]
    with pytest.raises(ConfigError, match="two sources called 'raw'"):
        import_examples.main(
            ["--sources", *sources, "--output", str(tmp_path / "x" / "manifest.json"), "--adapter", "hh"]
        )
