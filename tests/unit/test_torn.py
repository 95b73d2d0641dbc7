"""Torn files of each kind, planted: cut off, zeroed, one bit flipped. Each is noticed, or it does not matter."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from strategies import Record
from tiny import as_artifact, write_label_file
from w2s import artifact, attempts, checkpoints, fingerprint, judge_store, tables, tuning_book
from w2s.errors import W2SError
from w2s.judge_store import Outcome, Request, Store, StoreError
from w2s.shards import Shards

STARTED = datetime(2025, 1, 2, tzinfo=UTC)


def harmed(content: bytes, every: int = 1) -> Iterator[bytes]:
    """``content`` with each (``every``-th) byte the last one, with one bit of it flipped, or all from it on zero."""
    for place in range(0, len(content), every):
        yield content[:place]
        yield content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]
        zeroed = content[:place] + bytes(len(content) - place)
        if zeroed != content:
            yield zeroed


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of warnings about torn files are no use to anybody."""
    caplog.set_level(logging.CRITICAL)


# -- trainings and passes


def checkpoint(folder: Path, step: int) -> Path:
    """A sealed checkpoint."""
    path = folder / f"{checkpoints.PREFIX}{step}"
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_bytes(os.urandom(40))
    (path / "trainer_state.json").write_text(f'{{"global_step": {step}}}')
    checkpoints.seal(path)
    return path


@pytest.mark.parametrize("name", ["optimizer.pt", "trainer_state.json", checkpoints.MARKER])
def test_a_checkpoint(tmp_path: Path, record_property: Record, name: str) -> None:
    before, newest = checkpoint(tmp_path, 2), checkpoint(tmp_path, 4)
    path, cases = newest / name, 0
    whole = path.read_bytes()
    for content in harmed(whole):
        path.write_bytes(content)
        told = checkpoints.torn(newest)
        assert told is not None or (name == checkpoints.MARKER and json.loads(content) == json.loads(whole))
        cases += 1
    record_property("cases", cases)
    path.write_bytes(whole[:-3])
    assert checkpoints.newest_whole(tmp_path) == before
    assert not newest.exists()


@pytest.mark.parametrize(
    "content", ["null", "[]", "7", "{}", '{"files": null}', '{"files": ["a"]}', '{"files": {}}']
)
def test_a_marker_that_is_none(tmp_path: Path, content: str) -> None:
    path = checkpoint(tmp_path, 4)
    (path / checkpoints.MARKER).write_text(content)
    assert checkpoints.torn(path) is not None


def test_a_shard(tmp_path: Path, record_property: Record) -> None:
    shards = Shards(["id", "number"], 1, tmp_path)
    shards.add([("a", 1.0), ("b", 2.0)])
    shards.write()
    (path,) = tmp_path.iterdir()
    cases = 0
    for content in harmed(path.read_bytes(), 7):
        path.write_bytes(content)
        assert Shards(["id", "number"], 1, tmp_path).resumed == 0
        assert not path.exists()
        cases += 1
    record_property("cases", cases)


# -- attempts


def test_the_history_of_attempts(tmp_path: Path, record_property: Record) -> None:
    output = tmp_path / "model" / "manifest.json"
    for _ in range(2):
        attempts.record(output, started=STARTED, outcome="interrupted", code=75)
    path, cases = attempts.job_folder(output) / attempts.HISTORY, 0
    for content in harmed(path.read_bytes()):
        path.write_bytes(content)
        assert 0 <= attempts.count(output, "interrupted") <= 2
        cases += 1
    record_property("cases", cases)


@pytest.mark.parametrize("line", ["null", "7", "[]", "{}", '{"outcome": []}', "\xff"])
def test_a_line_that_is_none(tmp_path: Path, line: str) -> None:
    output = tmp_path / "model" / "manifest.json"
    attempts.record(output, started=STARTED, outcome="interrupted", code=75)
    with (attempts.job_folder(output) / attempts.HISTORY).open("ab") as stream:
        stream.write(line.encode("latin-1") + b"\n")
    assert attempts.count(output, "interrupted") == 1


def test_a_lock(tmp_path: Path, record_property: Record) -> None:
    """It says less than it did, or nothing: then it counts until nobody has touched it for long."""
    path, me, cases = tmp_path / f"{attempts.LOCK}1", attempts._myself("work"), 0
    other = attempts._myself("other") | {"pid": os.getppid()}
    for content in harmed(json.dumps(other).encode()):
        path.write_bytes(content)
        (lock,) = attempts._locks(tmp_path)
        assert isinstance(attempts._stale(lock, lock.touched, me), bool)
        assert attempts._stale(lock, lock.touched + attempts.STALE_SECONDS + 1, me)
        assert "process" in attempts._describe(lock)
        cases += 1
    record_property("cases", cases)


@pytest.mark.parametrize("content", [b"", b"null", b"7", b"{}", b"\xff\xfe", bytes(200)])
def test_a_lock_that_says_nothing_is_held(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{attempts.LOCK}1").write_bytes(content)
    (lock,) = attempts._locks(tmp_path)
    assert not attempts._stale(lock, lock.touched + 1, attempts._myself("work"))


# -- records


@pytest.mark.parametrize("name", [artifact.MANIFEST, artifact.RUN_RECORD])
def test_a_record(tmp_path: Path, record_property: Record, name: str) -> None:
    manifest = as_artifact(tmp_path / "a", lambda folder: (folder / "x").write_text("x"), rows=3)
    path, cases = manifest.with_name(name), 0
    whole = path.read_bytes()
    for content in harmed(whole, 3):
        path.write_bytes(content)
        try:
            artifact.load(manifest)
        except W2SError as error:
            assert name in str(error)
        else:
            assert json.loads(content) == json.loads(whole)
        cases += 1
    record_property("cases", cases)


def test_a_table(tmp_path: Path, record_property: Record) -> None:
    labels = pd.DataFrame({"id": ["a", "b", "c"], "label": [0, 1, 1], "margin": 0.5, "probability": 1.0})
    labels["source"] = "test"
    manifest = as_artifact(tmp_path / "labels", lambda folder: write_label_file(folder, labels))
    path, cases = manifest.with_name("labels.parquet"), 0
    for content in harmed(path.read_bytes(), 29):
        path.write_bytes(content)
        with pytest.raises(W2SError, match="labels"):
            tables.read_labels(manifest)
        cases += 1
    record_property("cases", cases)


# -- what was paid for


def fill(path: Path) -> None:
    """A store of three replies."""
    with Store(path) as store:
        for key in "abc":
            request = Request(key, "m", {}, "p", "vote-1", "t", (0, 0))
            intent = store.claim(request, 10, 60, None)
            assert isinstance(intent, judge_store.Intent)
            store.settle(
                intent, key, Outcome("reply", 0.1, 3, "m-1", f"the text of {key}", "stop", 100, 1, 200)
            )


def test_the_store_of_replies(tmp_path: Path, record_property: Record) -> None:
    """It is refused, or a reply is, or all replies are what they were: none is ever another."""
    path = tmp_path / "store.sqlite"
    fill(path)
    Path(f"{path}-journal").unlink()
    whole, cases, refused = path.read_bytes(), 0, 0
    with Store(path) as store:
        expected = [store.find(key) for key in "abc"]
    for content in harmed(whole, 61):
        path.write_bytes(content)
        Path(f"{path}-journal").unlink(missing_ok=True)
        try:
            with Store(path) as store:
                found = [store.find(key) for key in "abc"]
        except StoreError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert [
                reply for reply, same in zip(found, expected, strict=True) if reply not in (same, None)
            ] == []
        cases += 1
    assert refused > cases / 2
    record_property("cases", cases)


def test_each_byte_of_a_stored_reply(tmp_path: Path, record_property: Record) -> None:
    """Where SQLite's own check sees nothing: in the values."""
    path = tmp_path / "store.sqlite"
    fill(path)
    Path(f"{path}-journal").unlink()
    whole = path.read_bytes()
    start = whole.index(b"the text of b")
    for place in range(start - 8, start + 20):  # the model before it and why it ended behind it, too
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StoreError), Store(path) as store:
            assert store.find("b") is None
            raise AssertionError(f"byte {place} of the reply was altered, and it is used")
    record_property("cases", 28)


def test_a_reply_from_before_there_were_seals_is_found(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    fill(path)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE seals")
    with Store(path) as store:
        assert store.find("a") is not None


def test_the_book_of_tuning_jobs(tmp_path: Path, record_property: Record) -> None:
    path = tmp_path / "book.sqlite"
    with tuning_book.Book(path) as book:
        book.write("key", 1, tuning_book.CREATING, "", 30)
        book.write("key", 1, tuning_book.CREATED, "job-17", 30)
        expected = book.lines("key")
    whole, cases = path.read_bytes(), 0
    for content in harmed(whole, 61):
        path.write_bytes(content)
        Path(f"{path}-journal").unlink(missing_ok=True)
        try:
            with tuning_book.Book(path) as book:
                # An empty file may be one that was being made. The endpoint's own list then tells of the jobs.
                assert book.lines("key") == expected or not content
        except StoreError as error:
            assert str(path) in str(error)
        cases += 1
    record_property("cases", cases)


# -- what is kept to be quick


def test_the_kept_fingerprints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    (tmp_path / "stage.py").write_text("import helper\n")
    (tmp_path / "helper.py").write_text("VALUE = 1\n")
    cache = tmp_path / "cache" / "kept.json"
    monkeypatch.setattr(fingerprint, "CACHE", cache)

    def fresh() -> str:
        fingerprint._kept.cache_clear()
        fingerprint._read_at.cache_clear()
        return fingerprint.fingerprint(tmp_path / "stage.py")

    right, cases = fresh(), 0
    for content in harmed(cache.read_bytes(), 2):
        cache.write_bytes(content)
        assert fresh() == right
        cases += 1
    record_property("cases", cases)
    fingerprint._kept.cache_clear()
