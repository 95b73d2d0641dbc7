"""Rows of each raw form become the right pair, or an error that names file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from raw_data import entry, transcript, write_jsonl
from w2s import adapters
from w2s.adapters import Dropped, Pair, Sides, read_pairs
from w2s.errors import ConfigError, DataError

PROMPT = "\n\nHuman: Why?\n\nAssistant:"
WANTED = Sides(PROMPT, " Because.", PROMPT, " No.", preferred=0)
USER = {"role": "user", "content": "Why?"}
GOOD, BAD = {"role": "assistant", "content": "Because."}, {"role": "assistant", "content": "No."}
COMPARISON = {
    "info": {"post": "Long story.", "title": "A title", "subreddit": "tifu", "id": "t3_x"},
    "summaries": [{"text": " First.", "policy": "a"}, {"text": "Second.", "policy": "b"}],
    "choice": 1,
}


def test_hh_splits_both_transcripts() -> None:
    row = {"chosen": transcript("Why?", "Because."), "rejected": transcript("Why?", "No.")}
    assert adapters.hh(row, "f:1") == WANTED


def test_hh_keeps_both_prompts_where_they_differ() -> None:
    longer = transcript("Why?", "Because.") + transcript("And?", "So.")
    sides = adapters.hh({"chosen": longer, "rejected": transcript("Why?", "No.")}, "f:1")
    assert (sides.prompt_a, sides.response_a) == (longer.removesuffix(" So."), " So.")
    assert (sides.prompt_b, sides.response_b) == (PROMPT, " No.")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": PROMPT, "response": " Because.", "chosen": " Because.", "rejected": " No."},
        {"chosen": transcript("Why?", "Because."), "rejected": transcript("Why?", "No.")},
        {"prompt": None, "chosen": transcript("Why?", "Because."), "rejected": transcript("Why?", "No.")},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "Why?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": PROMPT, "chosen": [GOOD], "rejected": [BAD]},
    ],
    ids=["full-hh", "implicit", "null-prompt", "messages", "implicit-messages", "ultrafeedback", "mixed"],
)
def test_preference_forms(row: dict[str, Any]) -> None:
    assert adapters.pairs(row, "f:1") == WANTED


def test_explicit_plain_texts_stay_as_they_are() -> None:
    row = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
    assert adapters.pairs(row, "f:1") == Sides("The sky is", " blue.", "The sky is", " green.", preferred=0)


def test_implicit_prompt_of_plain_texts_is_what_trl_finds() -> None:
    from trl.data_utils import extract_prompt

    row = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
    trl_row = extract_prompt(dict(row))
    sides = adapters.pairs(row, "f:1")
    assert sides.prompt_a == sides.prompt_b == trl_row["prompt"] == "The sky is"
    assert (sides.response_a, sides.response_b) == (trl_row["chosen"], trl_row["rejected"])


def test_implicit_prompts_of_messages_may_differ() -> None:
    row = {"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, BAD]}
    sides = adapters.pairs(row, "f:1")
    assert sides.prompt_a == "\n\nHuman: Why?\n\nAssistant: Because.\n\nHuman: Why?\n\nAssistant:"
    assert sides.prompt_b == PROMPT


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"prompt": PROMPT, "chosen": " a"}, "'rejected' is missing"),
        ({"prompt": PROMPT, "chosen": " a", "rejected": None}, "'rejected' holds null"),
        ({"prompt": 3, "chosen": " a", "rejected": " b"}, "'prompt' holds int"),
        ({"chosen": "abc", "rejected": "xyz"}, "share no beginning"),
        ({"chosen": [USER, GOOD], "rejected": "b"}, "both"),
        ({"chosen": [USER, USER], "rejected": [USER, BAD]}, "last message must be the assistant's"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "no column 'prompt'"),
        ({"chosen": [], "rejected": [BAD]}, "empty list"),
        ({"chosen": [USER, {"role": "assistant"}], "rejected": [USER, BAD]}, "'content' is missing"),
        ({"chosen": [{"role": "tool", "content": "x"}, GOOD], "rejected": [USER, BAD]}, "role 'tool'"),
    ],
)
def test_bad_preference_rows_are_named(row: dict[str, Any], what: str) -> None:
    with pytest.raises(DataError, match=rf"(?s){what}.*f\.jsonl:9"):
        adapters.pairs(row, "f.jsonl:9")


def test_tldr_comparison() -> None:
    prompt = "SUBREDDIT: r/tifu\n\nTITLE: A title\n\nPOST: Long story.\n\nTL;DR:"
    assert adapters.tldr(COMPARISON, "f:1") == Sides(prompt, " First.", prompt, " Second.", preferred=1)


def test_tldr_news_articles_are_dropped() -> None:
    info = {"post": None, "title": None, "subreddit": None, "article": "News."}
    assert adapters.tldr({**COMPARISON, "info": info}, "f:1") == "not_a_post"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"choice": float("nan")}, "'choice' holds NaN"),
        ({"choice": None}, "'choice' holds null"),
        ({"summaries": [{"text": "one"}]}, "list of two"),
        ({"info": {"post": "x", "title": "y"}}, "'subreddit' is missing"),
    ],
)
def test_bad_comparisons_are_named(change: dict[str, Any], what: str) -> None:
    with pytest.raises(DataError, match=rf"(?s){what}.*f\.jsonl:9"):
        adapters.tldr({**COMPARISON, **change}, "f.jsonl:9")


FLAT = {"prompt": "SUBREDDIT: r/x\n\nTITLE: T\n\nPOST: Long.", "chosen": "A.", "rejected": "B."}


@pytest.mark.parametrize(
    ("prompt", "chosen"),
    [
        ("", "A."),
        ("\n\nTL;DR:", " A."),
        ("\nTL;DR: ", "A."),
        ("", "TL;DR: A."),
        ("\n", "\nTL;DR: A."),
        ("\n\nTL;DR:", "TL;DR: A."),
    ],
)
def test_flat_comparisons_have_the_cue_at_the_end_of_the_post(prompt: str, chosen: str) -> None:
    """Once, wherever it stood: the same text as the nested form of the same comparison."""
    row = {
        **FLAT,
        "prompt": FLAT["prompt"] + prompt,
        "chosen": chosen,
        "rejected": chosen.replace("A.", "B."),
    }
    wanted = f"{FLAT['prompt']}\n\nTL;DR:"
    assert adapters.tldr(row, "f:1") == Sides(wanted, " A.", wanted, " B.", preferred=0)
    nested = {
        "info": {"subreddit": "x", "title": "T", "post": "Long."},
        "summaries": [{"text": "A."}, {"text": "B."}],
        "choice": 0,
    }
    assert adapters.tldr(nested, "f:1") == adapters.tldr(row, "f:1")


def test_a_flat_comparison_that_says_the_cue_itself_keeps_it() -> None:
    row = {**FLAT, "chosen": "He wrote TL;DR: nothing."}
    assert adapters.tldr(row, "f:1").response_a == " He wrote TL;DR: nothing."  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "what"),
    [({"rejected": None}, "'rejected' holds null"), ({"prompt": 3}, "'prompt' holds int"), ({"chosen": 1.5}, "'chosen' holds float")],
)  # fmt: skip
def test_bad_flat_comparisons_are_named(change: dict[str, Any], what: str) -> None:
    with pytest.raises(DataError, match=rf"(?s){what}.*f\.jsonl:9"):
        adapters.tldr({**FLAT, **change}, "f.jsonl:9")


def test_judged_summaries() -> None:
    row = {
        "prompt": "POST: x\n\nTL;DR:",
        "reference": "  ref",
        "response": " ours",
        "judge_preferred": "reference",
    }
    sides = adapters.tldr(row, "f:1")
    assert isinstance(sides, Sides)
    assert (sides.response_a, sides.response_b, sides.preferred, sides.judge) == (
        " ours",
        "  ref",
        1,
        "judge",
    )
    assert adapters.tldr({**row, "judge_preferred": None}, "f:1") == "no_preference"
    with pytest.raises(DataError, match=r"'judge_preferred' holds 'both'"):
        adapters.tldr({**row, "judge_preferred": "both"}, "f:1")


@pytest.mark.parametrize("name", ["a.jsonl", "sub/a.jsonl.gz", "a.parquet"])
def test_files_of_each_kind_give_the_same_pairs(tmp_path: Path, name: str) -> None:
    rows = [{"chosen": [USER, GOOD], "rejected": [USER, BAD], "score": 2}]
    if name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(tmp_path / name)
    else:
        write_jsonl(tmp_path / name, rows)
    found = list(read_pairs("pairs", [entry(name, "s", "test")], {"raw": tmp_path}))
    assert found == [Pair(WANTED, "s", "test", f"raw/{name}:1")]


def test_dropped_rows_keep_their_subset(tmp_path: Path) -> None:
    row = {"prompt": "p", "reference": "r", "response": "o", "judge_preferred": None}
    write_jsonl(tmp_path / "a.jsonl", [row])
    assert list(read_pairs("tldr", [entry("a.jsonl", "s")], {"raw": tmp_path})) == [
        Dropped("s", "no_preference")
    ]


def test_a_bad_row_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress((json.dumps({"chosen": transcript("a", "b")}) + "\n").encode()))
    with pytest.raises(DataError, match=r"(?s)'rejected' is missing.*a\.jsonl\.gz:1"):
        list(read_pairs("hh", [entry(path.name)], {"raw": tmp_path}))


@pytest.mark.parametrize(
    ("adapter", "files", "what"),
    [
        ("hhh", [entry("a")], "unknown adapter 'hhh'"),
        ("hh", [], "no file to import"),
        ("hh", [{"path": "a"}], "exactly source, path, subset, split"),
        ("hh", [entry("a", split="dev")], "split 'dev'"),
        ("hh", [entry("a", source="b")], "unknown source 'b'"),
    ],
)
def test_wrong_settings(tmp_path: Path, adapter: str, files: list[dict[str, str]], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        list(read_pairs(adapter, files, {"raw": tmp_path}))


def test_stored_sample_of_summaries(shared_data: Path) -> None:
    files = [entry("ppo-1.3b-vs-reference.jsonl.gz", "tldr", "test")]
    found = list(read_pairs("tldr", files, {"raw": shared_data / "tldr"}))
    pairs = [pair for pair in found if isinstance(pair, Pair)]
    assert len(found) == 1945 and len(pairs) == 1000
    assert sum(pair.sides.preferred == 0 for pair in pairs) == 640
    assert all(pair.sides.prompt_a.endswith("TL;DR:") for pair in pairs)
