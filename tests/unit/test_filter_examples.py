"""The filter: reasons in order, marginal counts, tokens as the model sees them, bad tables refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import filter_examples
import pandas as pd
import pytest
from raw_data import import_rows, transcript
from remade import remade
from w2s.artifact import load
from w2s.encoding import Encoding
from w2s.errors import DataError, JoinError
from w2s.tables import read_examples, read_labels, write_parquet

LONG = "word " * 60
ROWS = {
    "kept": (transcript("Why?", "Because."), transcript("Why?", "No.")),
    "kept too": (transcript("How?", "Like this."), transcript("How?", "\n\nNo.")),
    "too_long": (transcript("Why?", LONG), transcript("Why?", "No.")),
    "too_long (its own prompt)": (transcript(LONG, "x"), transcript("Why?", "y")),
    "prompt_mismatch": (transcript("A?", ""), transcript("B?", "")),
    "equal_responses": (transcript("C?", " "), transcript("C?", " ")),
    "empty_response": (transcript("D?", "fine"), transcript("D?", " \n")),
}


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """Manifest of imported examples with all kinds of rows."""
    return import_rows(
        tmp_path, [{"chosen": chosen, "rejected": rejected} for chosen, rejected in ROWS.values()]
    )


def run(examples: Path, tokenizer: Path, max_tokens: int = 60) -> Path:
    """Filter; returns the manifest."""
    output = examples.parent.parent / "filtered" / "manifest.json"
    inputs = ["--examples", str(examples), "--tokenizer", str(tokenizer / "manifest.json")]
    filter_examples.main([*inputs, "--output", str(output), "--max-tokens", str(max_tokens)])
    return output


def rewrite(manifest: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Alter a table inside an artifact, as a careless hand would."""
    path = manifest.parent / name
    write_parquet(change(pd.read_parquet(path)), path)
    remade(manifest)


def test_each_row_is_counted_under_the_first_reason(imported: Path, tiny_tokenizer: Path) -> None:
    filtered = load(run(imported, tiny_tokenizer))
    assert filtered.facts["rows_in"] == 7 and filtered.facts["rows_kept"] == 2
    assert filtered.facts["rows_dropped"] == {
        "too_long": 2,
        "prompt_mismatch": 1,
        "equal_responses": 1,
        "empty_response": 1,
    }
    assert filtered.facts["rows_to_which_a_reason_applies"] == {
        "too_long": {"base": 2},
        "prompt_mismatch": {"base": 2},
        "equal_responses": {"base": 2},
        "empty_response": {"base": 3},
    }
    drops = pd.read_csv(filtered.path("drops.csv"))
    assert drops["reason"].tolist() == list(filter_examples.REASONS) and drops["rows"].tolist() == [
        2,
        1,
        1,
        1,
    ]


def test_all_tables_hold_the_kept_ids(imported: Path, tiny_tokenizer: Path) -> None:
    manifest = run(imported, tiny_tokenizer)
    kept = read_examples(manifest)
    assert set(kept["prompt"]) == {transcript(x, "")[:-1] for x in ("Why?", "How?")}
    assert read_labels(manifest, "human.parquet")["id"].tolist() == kept["id"].tolist()
    assert pd.read_parquet(load(manifest).path("lengths.parquet"))["id"].tolist() == kept["id"].tolist()
    everything = read_examples(imported)
    pd.testing.assert_frame_equal(kept, everything[everything["id"].isin(kept["id"])].reset_index(drop=True))


def test_lengths_are_those_of_the_encoding(imported: Path, tiny_tokenizer: Path) -> None:
    encoding = Encoding.load(tiny_tokenizer)
    examples = read_examples(imported)
    lengths = filter_examples.count_tokens(examples, encoding)
    for row, counted in zip(examples.to_dict("records"), lengths.to_dict("records"), strict=True):
        other = row["prompt"] if pd.isna(row["other_prompt"]) else row["other_prompt"]
        assert counted["tokens_0"] == encoding.count(row["prompt"], row["response_0"])
        assert counted["tokens_1"] == encoding.count(other, row["response_1"])


def test_the_limit_counts_bos_and_is_inclusive(tmp_path: Path, tiny_tokenizer: Path) -> None:
    examples = import_rows(
        tmp_path, [{"chosen": transcript("Why?", "Yes."), "rejected": transcript("Why?", "N")}]
    )
    encoding = Encoding.load(tiny_tokenizer)
    longest = encoding.count("\n\nHuman: Why?\n\nAssistant:", " Yes.")
    # One more than prompt and response alone: the model sees a BOS.
    bare = encoding.tokenizer.encode("\n\nHuman: Why?\n\nAssistant: Yes.", add_special_tokens=False)
    assert longest == len(bare.ids) + 1
    assert load(run(examples, tiny_tokenizer, longest)).facts["max_tokens_kept"] == longest
    with pytest.raises(DataError, match="no example is left: {'too_long': 1"):
        run(examples, tiny_tokenizer, longest - 1)


def test_chunks_do_not_change_the_lengths(
    imported: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, encoding = read_examples(imported), Encoding.load(tiny_tokenizer)
    whole = filter_examples.count_tokens(examples, encoding)
    monkeypatch.setattr(filter_examples, "CHUNK", 2)
    pd.testing.assert_frame_equal(whole, filter_examples.count_tokens(examples, encoding))


def test_nan_label(imported: Path, tiny_tokenizer: Path) -> None:
    rewrite(imported, "human.parquet", lambda t: t.assign(label=t["label"].where(t.index != 3)))
    with pytest.raises(
        DataError, match=r"(?s)label .*nan.* is neither 0 nor 1.*human\.parquet, row 3, id [0-9a-f]{16}"
    ):
        run(imported, tiny_tokenizer)


def test_duplicate_id(imported: Path, tiny_tokenizer: Path) -> None:
    first = read_examples(imported)["id"].iloc[0]
    rewrite(imported, "examples.parquet", lambda t: pd.concat([t, t.iloc[:1]]))
    with pytest.raises(JoinError, match=rf"(?s)duplicate ids: {first}.*examples\.parquet"):
        run(imported, tiny_tokenizer)


def test_labels_that_do_not_fit_the_examples(imported: Path, tiny_tokenizer: Path) -> None:
    last = read_examples(imported)["id"].iloc[-1]
    rewrite(imported, "human.parquet", lambda t: t.iloc[:-1])
    with pytest.raises(JoinError, match=rf"1 ids of examples.parquet are missing in human.parquet: {last}"):
        run(imported, tiny_tokenizer)


@pytest.mark.parametrize(
    ("name", "column"), [("examples.parquet", "response_1"), ("human.parquet", "margin")]
)
def test_missing_column(imported: Path, tiny_tokenizer: Path, name: str, column: str) -> None:
    rewrite(imported, name, lambda t: t.drop(columns=column))
    with pytest.raises(DataError, match=f"(?s)column {column} missing.*{name}"):
        run(imported, tiny_tokenizer)


def test_tokenizer_without_pad_token(imported: Path, tiny_tokenizer: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(tiny_tokenizer, folder)
    (folder / "encoding.json").write_text('{"bos_id": 2, "eos_id": 2, "pad_id": null}')
    with pytest.raises(DataError, match=r"(?s)without pad token.*encoding\.json"):
        run(imported, folder)
    assert not (imported.parent.parent / "filtered").exists()
