"""Bad files are refused by name and line."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pandas as pd
import pytest
from raw_data import hh_rows, write_jsonl
from w2s.errors import DataError
from w2s.readers import choice, read_rows, text


def refusal(path: Path) -> str:
    """The message with which a file is refused."""
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_rows_come_with_their_line(tmp_path: Path, name: str) -> None:
    path = write_jsonl(tmp_path / name, hh_rows(3))
    assert list(read_rows(path)) == list(enumerate(hh_rows(3), start=1))


def test_blank_lines_are_counted_but_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n  \n{"a": 2}')
    assert list(read_rows(path)) == [(1, {"a": 1}), (4, {"a": 2})]


def test_line_separators_inside_a_text_do_not_cut_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"a": "x\u2028y\u0085z"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(read_rows(path)) == [(1, {"a": "x\u2028y\u0085z"})]


def test_numbers_that_nobody_reads_may_be_none(tmp_path: Path) -> None:
    """Python writes them into rows; the readers of a column refuse them (below)."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": NaN, "b": -Infinity, "c": 1e999}\n')
    ((_, row),) = read_rows(path)
    assert not any(math.isfinite(value) for value in row.values())


def test_a_key_twice_is_named_at_once_among_many(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{" + ",".join(f'"{number}": 0' for number in range(30_000)) + ', "29999": 0}\n')
    started = time.process_time()
    assert "the key '29999' stands twice" in refusal(path)
    assert time.process_time() - started < 2, "each key is compared with all others"


def test_truncated_gzip(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl.gz", hh_rows(500))
    path.write_bytes(path.read_bytes()[:-200])
    message = refusal(path)
    assert "truncated" in message and "a.jsonl.gz, after line" in message


def test_damaged_gzip(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl.gz", hh_rows(500))
    content = bytearray(path.read_bytes())
    content[100:120] = bytes(20)
    path.write_bytes(content)
    assert "a.jsonl.gz, after line" in refusal(path)


def test_no_gzip_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_text('{"a": 1}\n')
    message = refusal(path)
    assert "damaged gzip" in message and "after line 0" in message


def test_invalid_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": \n')
    assert "not JSON" in refusal(path) and f"{path}:2" in refusal(path)


def test_a_line_that_is_no_object(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"a": 1}, [1, 2]])
    assert "holds list" in refusal(path) and f"{path}:2" in refusal(path)


def test_wrong_encoding_names_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"a": "fine"}\n{"a": "Straße"}\n'.encode("latin-1"))
    message = refusal(path)
    assert "not UTF-8: byte 0xdf" in message and f"{path}:2" in message


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_empty_files(tmp_path: Path, name: str) -> None:
    assert "holds no row" in refusal(write_jsonl(tmp_path / name, []))
    (tmp_path / name).write_bytes(b"")
    assert "holds no row" in refusal(tmp_path / name)


def test_parquet_rows_and_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame(hh_rows(3)).to_parquet(path)
    assert list(read_rows(path)) == list(enumerate(hh_rows(3), start=1))
    path.write_bytes(path.read_bytes()[:-50])
    assert "not a readable parquet file" in refusal(path) and str(path) in refusal(path)


def test_unknown_kind_and_missing_file(tmp_path: Path) -> None:
    assert "unknown kind of file" in refusal(tmp_path / "a.csv")
    assert "cannot be read" in refusal(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"b": "x"}, "'a' is missing"),
        ({"a": None}, "holds null"),
        ({"a": float("nan")}, "holds NaN"),
        ({"a": 3}, "holds int 3"),
        ({"a": "\ud800"}, "surrogate"),
    ],
)
def test_text_must_be_there_and_be_text(row: dict[str, object], what: str) -> None:
    with pytest.raises(DataError, match=f"(?s){what}.*where: +f.jsonl:3"):
        text(row, "a", "f.jsonl:3")


def test_text_stays_as_it_is() -> None:
    assert text({"a": "é\n"}, "a", "here") == "é\n"


def test_choice_is_0_or_1() -> None:
    assert [choice({"c": value}, "c", "here") for value in (0, 1, 1.0)] == [0, 1, 1]
    for value in (float("nan"), None, 2, -1, 0.5, "1", True):
        with pytest.raises(DataError, match=r"(?s)'c' holds.*f\.jsonl:3.*0 or 1"):
            choice({"c": value}, "c", "f.jsonl:3")
