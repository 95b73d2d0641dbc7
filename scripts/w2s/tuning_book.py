"""What is known of tuning jobs at endpoints: each is submitted, and paid, once. A SQLite file that only grows.

A job is known by the *key* of what it is made from. Before a job is submitted that is written down (``creating``), and
so is what came of it: ``created`` with the job's id, or ``refused`` if there certainly is none; at last ``ended``. After
a crash in between, the book says that there may be a job, and the endpoint is asked for it before another is submitted
(:mod:`w2s.tuning_jobs`).

Each line has a *seal*, the digest of its values and of the seal before it, and all are checked when the book is opened:
SQLite notices a torn file, but not one other digit in a job's id. Lines from before there were seals have none.

The last line of each job says what it costs: the most that it can until it has ended, nothing if it was refused. The
sum is held against the budget in the transaction that announces a job.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s.errors import EnvironmentProblem
from w2s.judge_store import BudgetError, StoreError, dollars

CREATING, CREATED, REFUSED, ENDED = "creating", "created", "refused", "ended"
# "W2ST": what makes a SQLite file a book of ours.
APPLICATION_ID = 0x57325354
BUSY_SECONDS = 60.0
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS lines (
    line INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 1),
    step TEXT NOT NULL CHECK (step IN ('{CREATING}', '{CREATED}', '{REFUSED}', '{ENDED}')),
    told TEXT NOT NULL,
    nano INTEGER NOT NULL CHECK (nano >= 0),
    written_at REAL NOT NULL
);
CREATE TRIGGER IF NOT EXISTS lines_update BEFORE UPDATE ON lines
BEGIN SELECT RAISE(ABORT, 'the book only grows'); END;
CREATE TRIGGER IF NOT EXISTS lines_delete BEFORE DELETE ON lines
BEGIN SELECT RAISE(ABORT, 'the book only grows'); END;
CREATE TABLE IF NOT EXISTS seals (line INTEGER PRIMARY KEY REFERENCES lines (line), sha256 TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS seals_update BEFORE UPDATE ON seals
BEGIN SELECT RAISE(ABORT, 'the book only grows'); END;
CREATE TRIGGER IF NOT EXISTS seals_delete BEFORE DELETE ON seals
BEGIN SELECT RAISE(ABORT, 'the book only grows'); END;
PRAGMA application_id = {APPLICATION_ID};
COMMIT;
"""
_SPENT = """
SELECT COALESCE(SUM(nano), 0) FROM lines WHERE line IN (SELECT MAX(line) FROM lines GROUP BY key, number)
"""

_SEALED = "SELECT lines.*, seals.sha256 FROM lines LEFT JOIN seals USING (line) ORDER BY line"


@dataclass(frozen=True)
class Line:
    """A step of a job: which job of its key (1, 2, ...), the step, the job's id or what was said, its cost, the time."""

    number: int
    step: str
    told: str
    nano: int
    written_at: float


class Book:
    """An open book. A context manager that closes it.

    Args:
        path: the file; it is made, with its folder, if it is not there.

    Raises:
        StoreError: it is something else than a whole book.
        EnvironmentProblem: it cannot be made here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        except (OSError, sqlite3.OperationalError) as error:
            raise EnvironmentProblem(
                f"no book of tuning jobs can be kept here ({error})", where=path
            ) from error
        try:
            with self._translated():
                self._open()
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> None:
        # In this order: another process may be making the book, tables and number at once.
        tables = self._connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        application = self._connection.execute("PRAGMA application_id").fetchone()[0]
        if tables and application != APPLICATION_ID:
            raise StoreError(
                "this file is not a book of tuning jobs",
                where=self.path,
                instead="the path of a book, or of a file that is not there: it is made",
            )
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_SCHEMA)
        damage = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise StoreError(f"the book is damaged ({damage})", where=self.path, instead="a copy from before")
        former = ""
        # One statement sees one state of the book, whatever other processes write meanwhile.
        for *values, seal in self._connection.execute(_SEALED):
            if seal != (_seal(values, former) if seal or former else None):
                raise StoreError(
                    f"line {values[0]} of the book was altered: its seal does not fit",
                    where=self.path,
                    instead="a copy from before; the endpoint is asked for jobs that it does not know of",
                )
            former = seal or ""

    def __enter__(self) -> Book:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only process that looks for jobs and submits them, by a lock on a file beside the book."""
        with self.path.with_name(f"{self.path.name}.lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def lines(self, key: str) -> list[Line]:
        """All that is known of a key's jobs, in the order in which it was written."""
        query = "SELECT number, step, told, nano, written_at FROM lines WHERE key = ? ORDER BY line"
        with self._translated():
            return [Line(*row) for row in self._connection.execute(query, (key,))]

    def write(
        self, key: str, number: int, step: str, told: str = "", nano: int = 0, budget_nano: int | None = None
    ) -> None:
        """Add a line; it is on the disk when this returns.

        Args:
            key: of what the job is made from.
            number: which job of that key.
            step: CREATING, CREATED, REFUSED or ENDED.
            told: id of the job, or what the endpoint said.
            nano: what the job costs, as far as is known, in billionths of a dollar.
            budget_nano: what all jobs of the book together may cost; None: no limit.

        Raises:
            BudgetError: they could cost more. Nothing is written then.
        """
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                values = (key, number, step, told, nano, time.time())
                former = self._connection.execute(
                    "SELECT sha256 FROM seals ORDER BY line DESC LIMIT 1"
                ).fetchone()
                line = self._connection.execute(
                    "INSERT INTO lines VALUES (NULL, ?, ?, ?, ?, ?, ?)", values
                ).lastrowid
                seal = _seal([line, *values], former[0] if former else "")
                self._connection.execute("INSERT INTO seals VALUES (?, ?)", (line, seal))
                together = self._connection.execute(_SPENT).fetchone()[0]
                if budget_nano is not None and together > budget_nano:
                    raise BudgetError(
                        f"the budget of {dollars(budget_nano)} does not suffice: this job can cost {dollars(nano)}, "
                        f"those before it {dollars(together - nano)}",
                        where=self.path,
                        instead="a larger --budget-usd, or a smaller --epochs-at-most if the endpoint makes fewer",
                    )
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    def spent_nano(self) -> int:
        """What all jobs cost, those under way the most that they can."""
        with self._translated():
            return self._connection.execute(_SPENT).fetchone()[0]

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise StoreError(
                f"the book of tuning jobs cannot be used ({error})",
                where=self.path,
                instead="a whole book, on a file system with room and with working locks",
            ) from error


def _seal(values: Sequence[Any], former: str) -> str:
    """Digest of a line and, by the seal of the line before it, of all lines."""
    return hashlib.sha256(json.dumps([*values, former]).encode()).hexdigest()
