"""The store of a judge's replies: each is paid for once and kept for ever. Contract 11 of the architecture.

A SQLite file with two tables that rows are only ever added to (triggers refuse changes and deletions):

- ``intents``: a request that is about to be sent, committed to the disk before it is;
- ``outcomes``: what came of it, committed as soon as it is known: a reply with its text, tokens and cost, a failure that
  costs nothing, or an *unclear* end (cut connection, timeout) after which nobody knows whether it was paid.

An intent without an outcome whose process is gone is *lost*: it may have been paid without a record. Such intents are
counted and reported, and they weigh on the budget with the most that they can have cost, as unclear ones do. ``ledger``
holds the sums of both, so that a budget is checked in the transaction that writes the intent: processes that share a
store cannot overspend together. Amounts are whole billionths of a dollar, so that sums are exact.

Each outcome has a *seal* beside it, the digest of its values: SQLite notices a torn file, but not one other letter in a
reply. A reply whose seal does not fit is refused. Stores from before there were seals get them from now on.

A request's *key* is the SHA-256 of the model, the sampling parameters, the messages and the index of the sample. Several
processes may share a store: a request that another one has under way is waited for, not sent again. SQLite's rollback
journal is used, which works on network file systems with working locks; its write-ahead log does not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from w2s.errors import EnvironmentProblem, W2SError

Result = TypeVar("Result")
NANO = 1_000_000_000
# "W2SJ": what makes a SQLite file a store of ours.
APPLICATION_ID = 0x5732534A
VERSION = 1
BUSY_SECONDS = 60.0
REPLY, FAILED, UNCLEAR = "reply", "failed", "unclear"

_SEALS = """
CREATE TABLE IF NOT EXISTS seals (intent INTEGER PRIMARY KEY REFERENCES outcomes (intent), sha256 TEXT NOT NULL);
""" + "".join(
    f"CREATE TRIGGER IF NOT EXISTS seals_{verb.lower()} BEFORE {verb} ON seals "
    "BEGIN SELECT RAISE(ABORT, 'the store only grows'); END;\n"
    for verb in ("UPDATE", "DELETE")
)
_SCHEMA = f"""
CREATE TABLE intents (
    intent INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    parameters TEXT NOT NULL,
    prompt_sha256 TEXT NOT NULL,
    template TEXT NOT NULL,
    template_sha256 TEXT NOT NULL,
    sample TEXT NOT NULL,
    worst_nano INTEGER NOT NULL CHECK (worst_nano >= 0),
    process TEXT NOT NULL,
    sent_at REAL NOT NULL,
    lease_until REAL NOT NULL
);
CREATE INDEX intents_by_key ON intents (key);
CREATE TABLE outcomes (
    intent INTEGER PRIMARY KEY REFERENCES intents (intent),
    key TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('{REPLY}', '{FAILED}', '{UNCLEAR}')),
    model TEXT,
    text TEXT,
    finish_reason TEXT,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    cost_nano INTEGER NOT NULL CHECK (cost_nano >= 0),
    http_status INTEGER,
    error TEXT,
    seconds REAL NOT NULL,
    ended_at REAL NOT NULL
);
CREATE INDEX outcomes_by_key ON outcomes (key);
CREATE TABLE ledger (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    settled_nano INTEGER NOT NULL,
    open_nano INTEGER NOT NULL
);
INSERT INTO ledger VALUES (1, 0, 0);
{_SEALS}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
""" + "".join(
    f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'the store only grows'); END;\n"
    for table in ("intents", "outcomes")
    for verb in ("UPDATE", "DELETE")
)
_OPEN = "NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.intent = intents.intent)"
_LEDGER_SUMS = f"""
SELECT (SELECT COALESCE(SUM(cost_nano), 0) FROM outcomes),
       (SELECT COALESCE(SUM(worst_nano), 0) FROM intents WHERE {_OPEN})
"""


class StoreError(W2SError):
    """The file is no store of replies, or it is damaged or cannot be used."""


class BudgetError(W2SError):
    """The next request could cost more than is left of the budget."""


@dataclass(frozen=True)
class Request:
    """A request to a judge, without its texts.

    Attributes:
        key: of the reply, see :func:`request_key`.
        model: as asked for.
        parameters: sampling parameters.
        prompt_sha256: digest of the messages.
        template, template_sha256: which wording they are made from.
        sample: index of the sample, and how often it was asked again.
    """

    key: str
    model: str
    parameters: Mapping[str, Any]
    prompt_sha256: str
    template: str
    template_sha256: str
    sample: tuple[int, int]


@dataclass(frozen=True)
class Reply:
    """A stored reply: the model as it answered, the text, why it ended, tokens (None: not told) and cost."""

    intent: int
    key: str
    model: str
    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_nano: int


@dataclass(frozen=True)
class Outcome:
    """What came of a request; ``cost_nano`` None stands for the most that it can cost."""

    status: str
    seconds: float
    cost_nano: int | None = None
    model: str | None = None
    text: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    http_status: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Intent:
    """A request that may be sent now."""

    number: int
    worst_nano: int


class Busy:
    """The same request is under way, or those under way hold what is left of the budget: ask again soon."""


class _Job:
    """Something to be written, and what came of it."""

    def __init__(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        self.work = work
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        """Do the work; a refusal of ours is its own, what SQLite says concerns the whole transaction."""
        try:
            self.result = self.work(connection)
        except W2SError as error:
            self.error = error


@dataclass(frozen=True)
class Lost:
    """Requests of processes that are gone, of which it is not known whether they were answered and paid."""

    requests: int
    worst_nano: int


def request_key(
    model: str,
    parameters: Mapping[str, Any],
    messages: Sequence[Mapping[str, str]],
    template_sha256: str,
    sample: tuple[int, int],
) -> str:
    """SHA-256, in hex, of everything that decides which reply is meant."""
    parts = [model, parameters, list(messages), template_sha256, list(sample)]
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


def canonical(value: object) -> str:
    """JSON with sorted keys and no blanks: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


class Store:
    """An open store. Usable from several threads; a context manager that closes it.

    Args:
        path: the file; it is made, with its folder, if it is not there.

    Raises:
        StoreError: it is something else than a whole store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._jobs: list[_Job] = []
        self._jobs_lock = threading.Lock()
        with self._translated():
            if not path.exists():
                _create(path)
            self._connection = _connect(path)
            try:
                self._check()
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def find(self, key: str) -> Reply | None:
        """The reply of that key, the earliest if two processes ever paid for it; None if there is none."""
        with self._reading() as connection:
            return self._find(connection, key)

    def claim(
        self, request: Request, worst_nano: int, lease_seconds: float, budget_nano: int | None
    ) -> Reply | Busy | Intent:
        """The reply if there is one, Busy if it is on its way, else an intent: the request may be sent.

        Args:
            request: what is to be asked.
            worst_nano: the most that it can cost.
            lease_seconds: after which processes of other machines take the request for lost.
            budget_nano: what all requests of this store together may cost; None: no limit.

        Raises:
            BudgetError: the request could exceed the budget. Nothing is recorded then.
        """

        def work(connection: sqlite3.Connection) -> Reply | Busy | Intent:
            found = self._find(connection, request.key)
            if found is not None:
                return found
            if any(_under_way(*row) for row in _open_intents(connection, request.key)):
                return Busy()
            settled, held = connection.execute("SELECT settled_nano, open_nano FROM ledger").fetchone()
            if budget_nano is not None and settled + held + worst_nano > budget_nano:
                if any(_under_way(*row) for row in _open_intents(connection)):
                    return Busy()
                raise BudgetError(
                    f"the budget of {dollars(budget_nano)} is used up: {dollars(settled)} are settled and "
                    f"{dollars(held)} are at stake in requests that were lost, the next request can cost "
                    f"{dollars(worst_nano)}",
                    where=self.path,
                    instead="a larger --budget-usd; what was answered is kept and not paid again",
                )
            now = time.time()
            values = (
                request.key,
                request.model,
                canonical(request.parameters),
                request.prompt_sha256,
                request.template,
                request.template_sha256,
                "{}.{}".format(*request.sample),
                worst_nano,
                _process(),
                now,
                now + lease_seconds,
            )
            marks = ", ".join("?" * len(values))
            number = connection.execute(f"INSERT INTO intents VALUES (NULL, {marks})", values).lastrowid
            assert number is not None
            connection.execute("UPDATE ledger SET open_nano = open_nano + ?", (worst_nano,))
            return Intent(number, worst_nano)

        return self._write(work)

    def settle(self, intent: Intent, key: str, outcome: Outcome) -> Reply | None:
        """Record what came of an intent; returns the reply if it is one."""
        cost = intent.worst_nano if outcome.cost_nano is None else outcome.cost_nano

        def work(connection: sqlite3.Connection) -> Reply | None:
            values = (
                intent.number,
                key,
                outcome.status,
                outcome.model,
                outcome.text,
                outcome.finish_reason,
                outcome.prompt_tokens,
                outcome.completion_tokens,
                cost,
                outcome.http_status,
                outcome.error,
                outcome.seconds,
                time.time(),
            )
            connection.execute(f"INSERT INTO outcomes VALUES ({', '.join('?' * len(values))})", values)
            connection.execute("INSERT INTO seals VALUES (?, ?)", (intent.number, _seal(values)))
            connection.execute(
                "UPDATE ledger SET settled_nano = settled_nano + ?, open_nano = open_nano - ?",
                (cost, intent.worst_nano),
            )
            return self._find(connection, key) if outcome.status == REPLY else None

        return self._write(work)

    def lost(self) -> Lost:
        """Intents without an outcome that no process works on any more."""
        with self._reading() as connection:
            gone = [row for row in _open_intents(connection) if not _under_way(*row)]
            amounts = [
                connection.execute("SELECT worst_nano FROM intents WHERE intent = ?", row[:1]).fetchone()[0]
                for row in gone
            ]
        return Lost(len(gone), sum(amounts))

    def count(self, status: str) -> int:
        """Number of outcomes with that status."""
        query = "SELECT COUNT(*) FROM outcomes WHERE status = ?"
        with self._reading() as connection:
            return connection.execute(query, (status,)).fetchone()[0]

    def spent_nano(self) -> int:
        """What all settled requests cost, unclear ones at the most that they can have cost."""
        with self._reading() as connection:
            return connection.execute("SELECT settled_nano FROM ledger").fetchone()[0]

    def _find(self, connection: sqlite3.Connection, key: str) -> Reply | None:
        """The earliest reply of that key.

        Raises:
            StoreError: its seal does not fit.
        """
        query = (
            "SELECT seals.sha256, outcomes.* FROM outcomes LEFT JOIN seals USING (intent) "
            "WHERE key = ? AND status = ? ORDER BY intent LIMIT 1"
        )
        row = connection.execute(query, (key, REPLY)).fetchone()
        if row is None:
            return None
        seal, *values = row
        if seal is not None and seal != _seal(values):
            raise StoreError(
                f"reply {values[0]} was altered: its seal does not fit", where=self.path, instead=_RESTORE
            )
        intent, key, _, model, text, finish_reason, prompt_tokens, completion_tokens, cost, *_ = values
        return Reply(intent, key, model, text, finish_reason, prompt_tokens, completion_tokens, cost)

    def _check(self) -> None:
        application = self._connection.execute("PRAGMA application_id").fetchone()[0]
        if application != APPLICATION_ID:
            raise StoreError(
                "this file is not a store of replies",
                where=self.path,
                instead="the path of a store, or of a file that is not there: it is made",
            )
        # The journal's file stays between transactions, which spares the disk two changes of the folder for each and is
        # just as durable. Set only now: it could convert a foreign file.
        self._connection.execute("PRAGMA journal_mode = PERSIST")
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            raise StoreError(
                f"the store has version {version}",
                where=self.path,
                instead=f"a store of version {VERSION}, or the program that made this one",
            )
        damage = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise StoreError(f"the store is damaged ({damage})", where=self.path, instead=_RESTORE)
        if not self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'seals'").fetchone():
            self._connection.executescript(f"BEGIN IMMEDIATE;{_SEALS}COMMIT;")
        # One statement sees one state of the file, whatever other processes write meanwhile.
        told, held, settled, open_ = self._connection.execute(
            f"SELECT settled_nano, open_nano, sums.* FROM ledger, ({_LEDGER_SUMS}) AS sums"
        ).fetchone()
        if (told, held) != (settled, open_):
            raise StoreError("the store's sums do not fit its rows", where=self.path, instead=_RESTORE)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated():
            yield self._connection

    def _write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """What ``work`` returns, once all that it wrote is on the disk.

        What other threads want to write meanwhile waits for the disk together: whoever gets the lock next writes it all
        in one transaction. ``work`` must raise before it writes anything, or not at all.
        """
        job = _Job(work)
        with self._jobs_lock:
            self._jobs.append(job)
        with self._lock:
            if not job.done:
                with self._jobs_lock:
                    jobs, self._jobs = self._jobs, []
                self._write_together(jobs)
        if job.error is not None:
            raise job.error
        return job.result

    def _write_together(self, jobs: Sequence[_Job]) -> None:
        """Do all jobs in one transaction; what fails the transaction fails each of them."""
        try:
            with self._translated():
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    for job in jobs:
                        job.run(self._connection)
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
        except BaseException as error:
            for job in jobs:
                job.error = error
        for job in jobs:
            job.done = True

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of SQLite as errors that say what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "disk is full" in str(error) or "disk I/O" in str(error):
                raise EnvironmentProblem(
                    f"the store of replies cannot be written ({error})",
                    where=self.path,
                    instead="free some space, then run the same command again: it continues",
                ) from error
            raise StoreError(
                f"the store cannot be used ({error})",
                where=self.path,
                instead="a file on a file system with working locks, in a folder that can be written",
            ) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise StoreError(
                f"not a whole store of replies ({error})", where=self.path, instead=_RESTORE
            ) from error


_RESTORE = "a copy of the store from before; or another path, and all replies are paid again"


def dollars(nano: int) -> str:
    """An amount for people."""
    return f"{nano / NANO:.6f} USD"


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _create(path: Path) -> None:
    """Make an empty store. It appears whole, so that an empty or half-written file can only be a damaged one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
        temporary = path.with_name(f".{path.name}.{host}-{os.getpid()}.partial")
        temporary.unlink(missing_ok=True)  # of a process of that number that was killed
        # Others may be making it just now.
        for leftover in path.parent.glob(f".{path.name}.{host}-*.partial"):
            if not _started(int(leftover.name.rpartition("-")[2].removesuffix(".partial"))):
                leftover.unlink(missing_ok=True)
        try:
            connection = _connect(temporary)
            with contextlib.closing(connection):
                connection.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
            # Unlike a rename this leaves a store alone that another process has just made.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"no store can be made here ({error.strerror})", where=path) from error


def _seal(values: Sequence[Any]) -> str:
    """Digest of a row of outcomes."""
    return hashlib.sha256(canonical(list(values)).encode()).hexdigest()


def _open_intents(connection: sqlite3.Connection, key: str | None = None) -> list[tuple[int, str, float]]:
    """Number, process and end of the lease of the intents (of a key) without an outcome."""
    query = f"SELECT intent, process, lease_until FROM intents WHERE {_OPEN}"
    return connection.execute(*((query,) if key is None else (f"{query} AND key = ?", (key,)))).fetchall()


def _under_way(_number: int, process: str, lease_until: float) -> bool:
    """Whether somebody still works on an intent: on this machine the process tells, elsewhere the lease."""
    machine, _, rest = process.partition(" ")
    pid, _, started = rest.partition(" ")
    if machine == _machine() and started:
        return _started(int(pid)) == started
    return time.time() < lease_until


def _process() -> str:
    """This process, so that it cannot be taken for another one: machine and boot, number, start."""
    return f"{_machine()} {os.getpid()} {_started(os.getpid())}"


@cache
def _machine() -> str:
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{socket.gethostname()}/{boot}"


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty if there is none, or no such file system."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
