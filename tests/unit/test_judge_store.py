"""The store of replies: nothing paid is lost or paid twice, and a file that is not whole is refused."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from w2s import judge_store
from w2s.errors import EnvironmentProblem
from w2s.judge_store import (
    FAILED,
    REPLY,
    UNCLEAR,
    BudgetError,
    Busy,
    Intent,
    Lost,
    Outcome,
    Reply,
    Request,
    Store,
    StoreError,
    request_key,
)

SCRIPTS = Path(judge_store.__file__).parent.parent


def request(key: str = "k") -> Request:
    return Request(key, "m", {"temperature": 0}, "p", "vote-1", "t", (0, 0))


def reply(text: str = "1", cost: int | None = 3) -> Outcome:
    return Outcome(REPLY, 0.1, cost, "m-1", text, "stop", 100, 1, 200)


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "s" / "store.sqlite") as opened:
        yield opened


def claim(store: Store, key: str = "k", worst: int = 10, budget: int | None = None) -> Intent:
    found = store.claim(request(key), worst, 60, budget)
    assert isinstance(found, Intent)
    return found


def test_a_reply_is_kept(store: Store) -> None:
    assert store.find("k") is None
    store.settle(claim(store), "k", reply("2"))
    expected = Reply(1, "k", "m-1", "2", "stop", 100, 1, 3)
    assert store.find("k") == expected
    assert store.claim(request(), 10, 60, None) == expected
    store.close()
    with Store(store.path) as again:
        assert again.find("k") == expected
        assert (again.count(REPLY), again.spent_nano(), again.lost()) == (1, 3, Lost(0, 0))


def test_everything_that_decides_a_reply_is_in_its_key() -> None:
    asked = ("m", {"temperature": 0.0}, [{"role": "user", "content": "x"}], "t", (0, 0))
    keys = {request_key(*asked)}
    for place, other in enumerate(
        ["n", {"temperature": 0.5}, [{"role": "user", "content": "y"}], "u", (1, 0)]
    ):
        keys.add(request_key(*asked[:place], other, *asked[place + 1 :]))  # type: ignore[arg-type]
    keys.add(request_key(*asked[:4], (0, 1)))
    assert len(keys) == 7
    assert request_key("m", {"a": 1, "b": 2}, [], "t", (0, 0)) == request_key(
        "m", {"b": 2, "a": 1}, [], "t", (0, 0)
    )


def test_a_failure_costs_nothing_and_an_unclear_end_the_most(store: Store) -> None:
    assert store.settle(claim(store), "k", Outcome(FAILED, 0.1, 0, error="no")) is None
    assert store.spent_nano() == 0
    store.settle(claim(store), "k", Outcome(UNCLEAR, 0.1, error="cut"))
    assert store.spent_nano() == 10
    assert store.find("k") is None
    store.settle(claim(store), "k", reply())
    assert store.spent_nano() == 13


def test_rows_are_neither_changed_nor_deleted(store: Store) -> None:
    store.settle(claim(store), "k", reply())
    with sqlite3.connect(store.path) as other:
        for table in ("intents", "outcomes"):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                other.execute(f"DELETE FROM {table}")
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                other.execute(f"UPDATE {table} SET key = 'x'")


def test_the_budget_holds_for_all_requests_of_the_store(store: Store) -> None:
    store.settle(claim(store, "a", 10, budget=25), "a", reply(cost=8))
    first = claim(store, "b", 10, budget=25)
    # 8 settled, 10 under way, 10 wanted: to be asked again when what is under way has ended.
    assert isinstance(store.claim(request("c"), 10, 60, 25), Busy)
    store.settle(first, "b", reply(cost=7))
    second = claim(store, "c", 10, budget=25)
    store.settle(second, "c", reply(cost=10))
    with pytest.raises(BudgetError, match="used up"):
        store.claim(request("d"), 1, 60, 25)
    assert store.spent_nano() == 25
    assert isinstance(store.claim(request("a"), 10, 60, 25), Reply)
    claim(store, "d", 5, budget=30)


def test_a_request_under_way_is_not_sent_twice(store: Store) -> None:
    first = claim(store)
    assert isinstance(store.claim(request(), 10, 60, None), Busy)
    with Store(store.path) as other:
        assert isinstance(other.claim(request(), 10, 60, None), Busy)
        claim(other, "another")
    store.settle(first, "k", Outcome(FAILED, 0.1, 0))
    claim(store)


DIE = """
import os, signal, sys
sys.path[:0] = [sys.argv[2]]
from pathlib import Path
from w2s.judge_store import Outcome, Request, Store
store = Store(Path(sys.argv[1]))
ask = lambda key: store.claim(Request(key, "m", {}, "p", "vote-1", "t", (0, 0)), 10, 600, None)
store.settle(ask("done"), "done", Outcome("reply", 0.1, 3, "m", "1", "stop", 1, 1, 200))
ask("lost")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_request_of_a_killed_process_is_counted_as_lost(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    killed = subprocess.run([sys.executable, "-c", DIE, str(path), str(SCRIPTS)])
    assert killed.returncode == -signal.SIGKILL
    with Store(path) as store:
        assert store.find("done") is not None
        assert store.lost() == Lost(1, 10)
        # It weighs on the budget, and may be asked again at once although its lease has not ended.
        with pytest.raises(BudgetError):
            store.claim(request("lost"), 10, 60, 22)
        store.settle(claim(store, "lost", 10, 23), "lost", reply())
        assert store.lost() == Lost(1, 10)


def test_a_request_of_another_machine_has_a_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(judge_store, "_process", lambda: "elsewhere/boot 17 4711")
        claim(store)
    assert isinstance(store.claim(request(), 10, 60, None), Busy)
    assert store.lost() == Lost(0, 0)
    now = judge_store.time.time()
    monkeypatch.setattr(judge_store.time, "time", lambda: now + 61)
    assert store.lost() == Lost(1, 10)
    claim(store)


def _write(path: Path, name: int) -> None:
    with Store(path) as store:
        for number in range(10):
            key = f"{name}.{number}"
            found = store.claim(request(key), 10, 60, None)
            assert isinstance(found, Intent)
            store.settle(found, key, reply(cost=1))


def test_processes_and_threads_share_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(path, name)) for name in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    with Store(path) as store:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: store.settle(claim(store, f"t{n}"), f"t{n}", reply(cost=1)), range(20)))
        assert (store.count(REPLY), store.spent_nano()) == (40, 40)
    assert {child.name for child in tmp_path.iterdir()} <= {path.name, f"{path.name}-journal"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "not a store"),
        (lambda path: path.write_text("id,reply\n1,2\n" * 100), "not a whole store"),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "damaged|not a whole store"),
        (lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(8192)), "damaged|not a whole store"),
    ],
)
def test_a_file_that_is_no_whole_store_is_refused(damage, message: str, tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with Store(path) as store:
        for number in range(8):
            store.settle(claim(store, str(number)), str(number), reply("x" * 4000))
    Path(f"{path}-journal").unlink()
    damage(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=message):
        Store(path)
    assert path.read_bytes() == before


def test_another_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE mine (a)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a store of replies"):
        Store(path)
    assert path.read_bytes() == before


def test_a_store_whose_sums_do_not_fit_is_refused(store: Store) -> None:
    store.settle(claim(store), "k", reply())
    with sqlite3.connect(store.path) as other:
        other.execute("UPDATE ledger SET settled_nano = 0")
    with pytest.raises(StoreError, match="sums"):
        Store(store.path)


def test_a_store_of_another_version_is_refused(store: Store) -> None:
    with sqlite3.connect(store.path) as other:
        other.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreError, match="version 2"):
        Store(store.path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="no store can be made"):
        Store(tmp_path / "file" / "store.sqlite")


def test_a_locked_store_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_store, "BUSY_SECONDS", 0.05)
    with Store(store.path) as second:
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked"):
            second.claim(request(), 1, 60, None)
        other.execute("ROLLBACK")
        other.close()
        claim(second)
