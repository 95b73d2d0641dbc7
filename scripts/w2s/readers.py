"""Rows of raw files (JSON lines, plain or gzipped, and parquet), and errors that name file and line."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from w2s.errors import DataError
from w2s.strict_json import parse

Row = Mapping[str, Any]
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (number, row) for each row of ``path``, numbered from 1. Blank lines are counted but skipped.

    Raises:
        DataError: a truncated or damaged file, a line that is no JSON object or not UTF-8, or no row at all.
    """
    if path.name.endswith(".parquet"):
        rows = _parquet_rows(path)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        rows = _json_rows(path)
    else:
        raise DataError(
            "unknown kind of file", where=path, instead=f"a name that ends in {', '.join(SUFFIXES)}"
        )
    empty = True
    for number, row in rows:
        empty = False
        yield number, row
    if empty:
        raise DataError("the file holds no row", where=path)


def text(row: Row, column: str, where: object) -> str:
    """The text in ``column``.

    Raises:
        DataError: the column is missing, or holds no text or text that cannot be written as UTF-8.
    """
    value = present(row, column, where)
    if not isinstance(value, str):
        raise DataError(f"column {column!r} holds {_kind(value)}, not text", where=where)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"column {column!r} holds half a surrogate pair, which is no text", where=where
        ) from error
    return value


def choice(row: Row, column: str, where: object) -> int:
    """The label in ``column``: 0 or 1.

    Raises:
        DataError: the column is missing, or holds anything else (also NaN and null).
    """
    value = present(row, column, where)
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in (0, 1):
        raise DataError(
            f"column {column!r} holds {_kind(value)}",
            where=where,
            instead="0 or 1: which of the two is preferred",
        )
    return int(value)


def present(row: Row, column: str, where: object) -> Any:
    """The value in ``column``, which must be there."""
    if column not in row:
        raise DataError(
            f"column {column!r} is missing",
            where=where,
            instead=f"the row has {', '.join(map(repr, row)) or 'none'}",
        )
    return row[column]


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in _lines(path):
        where = f"{path}:{number}"
        try:
            decoded = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"not UTF-8: byte 0x{line[error.start]:02x} at position {error.start} of the line",
                where=where,
                instead="the file in UTF-8 (iconv -t utf-8)",
            ) from error
        if not decoded.strip():
            continue
        try:
            row = parse(decoded)
        except ValueError as error:
            raise DataError(f"not JSON: {error}", where=where) from error
        if not isinstance(row, dict):
            raise DataError(f"the line holds {_kind(row)}", where=where, instead="one JSON object a line")
        yield number, row


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with _open(path) as stream:
            # Bytes are split at "\n" alone; text mode would be the same, but str.splitlines would cut at
            # U+2028.
            for number, line in enumerate(stream, start=1):
                yield number, line
    except EOFError as error:
        raise _damaged("truncated: the gzip stream ends too early", path, number) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(f"damaged gzip file ({error})", path, number) from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=path) from error


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")


def _damaged(what: str, path: Path, number: int) -> DataError:
    return DataError(
        what, where=f"{path}, after line {number}", instead="fetch the file again and compare its sha256"
    )


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"not a readable parquet file ({error})", where=f"{path}, after row {number}"
        ) from error


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return f"{type(value).__name__} {value!r:.40}"
