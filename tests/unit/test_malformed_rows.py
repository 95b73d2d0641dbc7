"""Raw data files that are damaged, in another form or hold odd values: named by file and row, or dropped and counted."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import import_examples
import import_questions
import pandas as pd
import pyarrow
import pytest
from hypothesis import assume, reject
from hypothesis import strategies as st
from raw_data import entry, hh_rows, transcript
from strategies import Record, anything, changed, damaged, refusal, refused_or, tried, write_json_lines
from tiny import as_artifact
from w2s import adapters, question_adapters
from w2s.artifact import load
from w2s.drops import DROP_COLUMNS
from w2s.readers import read_rows
from w2s.tables import read_examples, read_labels

pytestmark = pytest.mark.usefixtures("quick_records")


MESSAGES = [{"role": "user", "content": "Hi"}]
GOOD = {
    "hh": {"chosen": transcript("q", "good"), "rejected": transcript("q", "bad")},
    "pairs": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "tldr": {
        "info": {"subreddit": "s", "title": "t", "post": "p"},
        "summaries": [{"text": "one"}, {"text": "two"}],
        "choice": 1,
    },
}
MORE = {
    "pairs": [
        {"chosen": transcript("q", "good"), "rejected": transcript("q", "bad")},
        {
            "prompt": MESSAGES,
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        },
        {
            "chosen": [*MESSAGES, {"role": "assistant", "content": "good"}],
            "rejected": [*MESSAGES, {"role": "assistant", "content": "bad"}],
        },
    ],
    "tldr": [
        {"prompt": "p TL;DR:", "chosen": "good", "rejected": "bad"},
        {"prompt": "p", "response": "one", "reference": "two", "judge_preferred": "ours"},
    ],
}
QUESTIONS = {
    "dolly": {"instruction": "Why?", "context": "", "response": "Because."},
    "truthful-qa": {"question": "Why?", "best_answer": "Because.", "category": "c"},
    "alpaca-eval": {"instruction": "Why?", "dataset": "d"},
    "gsm8k": {"question": "1 + 1?", "answer": "It is #### 2"},
    "math": {"problem": "1 + 1?", "solution": "\\boxed{2}", "type": "Algebra"},
    "math-500": {"problem": "1 + 1?", "answer": "2", "subject": "Algebra"},
    "questions": {"question": "Why?", "reference": "Because.", "topic": "t"},
}


def content_of(kind: str) -> bytes:
    """A whole file of a kind."""
    rows = hh_rows(40)
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind == "parquet":
        stream = io.BytesIO()
        pd.DataFrame(rows).to_parquet(stream, index=False)
        return stream.getvalue()
    return gzip.compress(lines, mtime=0) if kind == "jsonl.gz" else lines


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_a_damaged_file_is_refused_or_read_row_by_row(
    tmp_path: Path, record_property: Record, kind: str
) -> None:
    """Damage that leaves rows whole (a cut at a line's end) may pass: the digest of the fetch is what tells it."""
    path = tmp_path / f"rows.{kind}"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        refused_or(lambda: list(adapters.read_pairs("hh", [entry(path.name)], {"raw": tmp_path})), path.name)

    tried(record_property, damaged(content_of(kind)), 60, check)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_row_of_another_form_is_named_by_its_line(
    tmp_path: Path, record_property: Record, name: str, kind: str
) -> None:
    path = tmp_path / f"rows.{kind}"
    good = GOOD[name]

    def check(row: Any) -> None:
        if kind == "jsonl":
            write_json_lines(path, [good, row])
        else:
            assume(isinstance(row, dict))
            try:
                pd.DataFrame([good, row]).to_parquet(path, index=False)
            except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError):
                reject()  # such a row cannot be in a parquet file
        found = refused_or(
            lambda: list(adapters.read_pairs(name, [entry(path.name)], {"raw": tmp_path})), path.name
        )
        assert found is None or len(found) == 2

    rows = st.one_of(*(changed(row) for row in [good, *MORE.get(name, [])]))
    tried(record_property, rows | anything, 120 if kind == "jsonl" else 40, check)


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_a_row_that_is_no_question_is_named_by_its_line(
    tmp_path: Path, record_property: Record, name: str
) -> None:
    path = tmp_path / "rows.jsonl"

    def check(row: Any) -> None:
        write_json_lines(path, [QUESTIONS[name], row])
        found = refused_or(lambda: list(question_adapters.read_questions(name, [path])), "rows.jsonl")
        assert found is None or len(found) == 2

    tried(record_property, changed(QUESTIONS[name]) | anything, 60, check)


@pytest.mark.parametrize("kind", ["json", "csv", "csv.gz"])
def test_a_damaged_file_of_questions(tmp_path: Path, record_property: Record, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    rows = [{"Question": f"Why {n}?", "Best Answer": "Because.", "Category": "c"} for n in range(30)]
    whole = json.dumps(rows).encode() if kind == "json" else pd.DataFrame(rows).to_csv(index=False).encode()
    whole = gzip.compress(whole, mtime=0) if kind == "csv.gz" else whole

    def check(content: bytes) -> None:
        path.write_bytes(content)
        refused_or(lambda: list(question_adapters.read_questions("truthful-qa", [path])), path.name)

    tried(record_property, damaged(whole), 60, check)


def test_lines_of_every_kind(tmp_path: Path, record_property: Record) -> None:
    """Byte order marks, carriage returns, blanks, deep nesting, doubled keys, huge numbers: a row each, or refused."""
    path = tmp_path / "rows.jsonl"
    line = st.sampled_from(
        [
            *(
                b"",
                b"   ",
                b"\r",
                b"{}",
                b"[]",
                b"null",
                b"NaN",
                b'"a"',
                b"{",
                b"{'a': 1}",
                b'{"a": 1,}',
                b"\xff\xfe",
            ),
            *(
                b'{"a": NaN}',
                b'{"a": 1e999}',
                b'{"a": ' + b"9" * 5000 + b"}",
                b"[" * 100_000,
                b'{"a":' * 5000,
            ),
            *(
                b'{"a": 1, "a": 2}',
                b'\xef\xbb\xbf{"a": 1}',
                b'{"a": "\\ud800"}',
                b'{"a": 1}\r',
                b'{"a": 1} {"a": 2}',
            ),
        ]
    )

    def check(lines: list[bytes]) -> None:
        path.write_bytes(b"\n".join(lines))
        found = refused_or(lambda: list(read_rows(path)), "rows.jsonl")
        if found is not None:
            assert len(found) == sum(bool(line.strip()) for line in lines)

    tried(record_property, st.lists(line, max_size=4), 120, check)


# -- counts: rows in = kept + dropped by reason --------------------------------------------------------------------

good_tldr = st.builds(
    lambda post, one, two, choice: {
        "info": {"subreddit": "s", "title": "t", "post": post},
        "summaries": [{"text": one}, {"text": two}],
        "choice": choice,
    },
    *(st.text("ab", max_size=2),) * 3,
    st.integers(0, 1),
)
article = st.just({"info": {"article": "news"}, "summaries": [{"text": "one"}, {"text": "two"}], "choice": 0})
undecided = st.builds(
    lambda prompt: {"prompt": prompt, "response": "one", "reference": "two", "judge_preferred": None},
    st.text("ab", max_size=2),
)
unreadable = changed({"prompt": "p", "response": "one", "reference": "two", "judge_preferred": "ours"})


def test_no_row_of_a_mixture_is_lost_or_counted_twice(tmp_path: Path, record_property: Record) -> None:
    """Through the stage: good rows, repeated ones and rows that are dropped; with an unreadable one nothing is made."""
    source = tmp_path / "resources" / "raw"
    output = tmp_path / "examples" / "manifest.json"
    made = 0

    def check(found: list[tuple[str, dict[str, Any]]]) -> None:
        nonlocal made
        kinds, rows = [kind for kind, _ in found], [row for _, row in found]
        manifest = as_artifact(source, lambda folder: write_json_lines(folder / "rows.jsonl", rows))
        words = ["--sources", manifest, "--output", output, "--adapter", "tldr", "--limit", 5]
        words += ["--files", json.dumps([entry("rows.jsonl")])]
        output.unlink(missing_ok=True)
        if refused_or(lambda: [import_examples.main([str(word) for word in words])]) is None:
            assert not output.exists() and ("unreadable" in kinds or "good" not in kinds)
            return
        made += 1
        examples, facts = read_examples(output), load(output).facts
        drops = pd.read_csv(output.with_name("drops.csv"))
        assert list(drops.columns) == DROP_COLUMNS
        assert facts["rows_in"] == len(rows) == len(examples) + drops["rows"].sum()
        assert facts["rows_kept"] == len(examples) == len(read_labels(output, "human.parquet"))
        assert set(read_labels(output, "human.parquet")["id"]) == set(examples["id"])
        by_reason = drops.groupby("reason")["rows"].sum()
        assert by_reason["not_a_post"] == sum("article" in row.get("info", {}) for row in rows)
        assert by_reason["no_preference"] == sum(row.get("judge_preferred", 0) is None for row in rows)

    good = st.tuples(st.just("good"), good_tldr)
    dropped = st.tuples(st.just("dropped"), article) | st.tuples(st.just("dropped"), undecided)
    readable = st.lists(good | good | dropped, min_size=1, max_size=12)
    any_row = good | good | dropped | st.tuples(st.just("unreadable"), unreadable)
    tried(record_property, readable | st.lists(any_row, min_size=1, max_size=12), 60, check)
    assert made > 20


def test_no_question_of_a_mixture_is_lost_or_counted_twice(tmp_path: Path, record_property: Record) -> None:
    output = tmp_path / "questions" / "manifest.json"
    good = st.builds(lambda text: {"question": text, "answer": "It is #### 2"}, st.text("ab ", max_size=2))
    no_result = st.builds(lambda text: {"question": text, "answer": "no result"}, st.text("ab ", max_size=2))
    made = 0

    def check(found: list[tuple[bool, dict[str, Any]]]) -> None:
        nonlocal made
        whole, rows = all(intact for intact, _ in found), [row for _, row in found]
        manifest = as_artifact(tmp_path / "raw", lambda folder: write_json_lines(folder / "rows.jsonl", rows))
        words = ["--sources", manifest, "--output", output, "--adapter", "gsm8k"]
        words += ["--files", json.dumps([{"source": "raw", "path": "rows.jsonl"}])]
        output.unlink(missing_ok=True)
        if refused_or(lambda: [import_questions.main([str(word) for word in words])]) is None:
            assert not output.exists()
            assert not whole or not any(row["question"].strip() and "####" in row["answer"] for row in rows)
            return
        made += 1
        kept = pd.read_parquet(output.with_name("questions.parquet"))
        drops = pd.read_csv(output.with_name("drops.csv")).set_index("reason")["rows"]
        assert load(output).facts["rows_in"] == len(rows) == len(kept) + drops.sum()
        texts = [row["question"].strip() for row in rows if "####" in row["answer"]]
        assert len(kept) == len(set(texts) - {""})
        assert drops["empty"] == texts.count("")

    intact = st.tuples(st.just(True), good | no_result)
    row = intact | st.tuples(st.just(False), changed(QUESTIONS["gsm8k"]))
    lists = st.lists(intact, min_size=1, max_size=10) | st.lists(row, min_size=1, max_size=10)
    tried(record_property, lists, 50, check)
    assert made > 15


@pytest.mark.parametrize(
    "files",
    [
        [{"source": "raw", "path": "absent.jsonl", "subset": "s", "split": "train"}],
        [{"source": "raw", "path": "../raw/rows.jsonl", "subset": "s", "split": "train"}],
        [{"source": "raw", "path": "/etc/hostname", "subset": "s", "split": "train"}],
        [{"source": "raw", "path": 3, "subset": "s", "split": "train"}],
        [{"source": ["raw"], "path": "rows.jsonl", "subset": "s", "split": "train"}],
        [{"source": "raw", "path": "rows.jsonl", "subset": None, "split": "train"}],
        [{"source": "raw", "path": "rows.jsonl", "subset": "s", "split": ["train"]}],
        ["rows.jsonl"],
        [None],
    ],
)  # fmt: skip
def test_files_that_are_none_of_the_source(tmp_path: Path, files: list[Any]) -> None:
    manifest = as_artifact(
        tmp_path / "raw", lambda folder: write_json_lines(folder / "rows.jsonl", hh_rows(2))
    )
    words = ["--sources", manifest, "--output", tmp_path / "out" / "manifest.json", "--adapter", "hh"]
    message = refusal(lambda: import_examples.main([*map(str, words), "--files", json.dumps(files)]))
    assert "entry 0" in message or "manifest.json" in message
    assert not (tmp_path / "out").exists()
