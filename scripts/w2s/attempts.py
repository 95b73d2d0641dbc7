"""What happened to the attempts at an output, and that only one runs at a time.

Both lie in ``<output folder>.job/`` beside the output folder, which Snakemake empties before each attempt:
``attempts.jsonl`` has a line for each attempt that ended without success, and ``lock.<number>`` says who works now. The
folder goes when the stage succeeds. The workflow counts the lines when it asks for resources: more memory after an
attempt that ran out of it, the same again after one that was interrupted.

*The lock.* Two attempts can meet: a scheduler requeues a job that Snakemake submits again as well, or a controller was
killed and its jobs live on. Clusters have file systems on which ``flock`` is not to be trusted, so the lock is a file
that its holder touches every 15 seconds. It is stale when that has not happened for 90 seconds, by the clock of the
file server (a file touched in the same folder tells it, as machines' clocks differ); when it has not happened for as
long while somebody waited, for a clock that was set back would keep a dead holder's lock fresh; and at once if it is of a
process of this machine that has gone, or of the same SLURM job, which then was requeued.

*Taking over.* Locks are numbered. Who finds none, or stale ones only, creates the next number with ``O_EXCL``: of
several takers one succeeds. It then looks again, and gives way if there is any lock but those that it found stale: its
view was old. Each creates before it looks, so of two with different views at least one sees the other; never do both
go on. The stale files are removed only after that. A holder that was merely asleep sees that its file has gone and stops
by SIGTERM, as if the scheduler had asked.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from w2s.interruption import OUTCOMES

HISTORY = "attempts.jsonl"
LOCK = "lock."
HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 90.0
POLL_SECONDS = 2.0
SECONDS_BETWEEN_LINES = 60.0
logger = logging.getLogger(__name__)


class Lock(NamedTuple):
    """A lock file as it was read; any difference means that somebody is at work."""

    path: Path
    text: str
    touched: float

    @property
    def holder(self) -> dict[str, Any]:
        """Who holds it; empty while it is being written, or if it is torn."""
        with contextlib.suppress(ValueError):
            holder = json.loads(self.text)
            if isinstance(holder, dict):
                return holder
        return {}


def job_folder(output: Path) -> Path:
    """The sidecar folder of the artifact whose manifest is ``output``."""
    return output.parent.with_name(output.parent.name + ".job")


def record(output: Path, *, started: datetime, outcome: str, code: int) -> None:
    """Add an attempt that ended without success to the history. A full disk must not hide why it ended."""
    assert outcome in OUTCOMES, outcome
    line = {
        "started": started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "outcome": outcome,
        "exit_code": code,
    }
    path = job_folder(output) / HISTORY
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as stream:
            torn = stream.tell() > 0 and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n"
            stream.write(b"\n" * torn + json.dumps(line).encode() + b"\n")
    except OSError as error:
        logger.warning("the attempt cannot be recorded in %s: %s", path, error)


def count(output: Path, outcome: str) -> int:
    """How many attempts at ``output`` ended in ``outcome``; 0 if there were none. Torn lines do not count."""
    try:
        lines = (job_folder(output) / HISTORY).read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return 0
    found = 0
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found += json.loads(line)["outcome"] == outcome
    return found


def discard(output: Path) -> None:
    """Forget the attempts at ``output``: it stands. A lock stays with its holder, who removes it."""
    folder = job_folder(output)
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if not path.name.startswith(LOCK):
                path.unlink(missing_ok=True)
        folder.rmdir()


@contextlib.contextmanager
def held(output: Path, work: str = "") -> Iterator[bool]:
    """Be the only one that works at ``output``; waits while another does.

    Args:
        output: manifest of the artifact.
        work: what is to be done; anything that is equal when the result will be.

    Yields:
        Whether the output is there already, made by another with equal ``work`` while this process waited.
    """
    folder = job_folder(output)
    lock, same = _acquire(folder, _myself(work))
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(lock, stop), daemon=True)
    beat.start()
    try:
        yield same and output.is_file()
    finally:
        stop.set()
        beat.join()
        _release(lock)


def _acquire(folder: Path, me: dict[str, Any]) -> tuple[Lock, bool]:
    """The lock, and whether the last one that was waited for did the same work."""
    same, told = False, -SECONDS_BETWEEN_LINES
    seen: dict[Lock, float] = {}
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # the holder before has just removed the folder
            found = _locks(folder)
            now = _clock(folder)
            since = {lock: time.monotonic() - seen.setdefault(lock, time.monotonic()) for lock in found}
            working = [lock for lock in found if since[lock] <= STALE_SECONDS and not _stale(lock, now, me)]
            if not working:
                mine = _claim(folder, found, me)
                if mine is not None:
                    return mine, same
            else:
                same = working[-1].holder.get("work") == me["work"]
                if time.monotonic() - told >= SECONDS_BETWEEN_LINES:
                    told = time.monotonic()
                    logger.info("waiting for %s", _describe(working[-1]))
        time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))


def _claim(folder: Path, stale: list[Lock], me: dict[str, Any]) -> Lock | None:
    """Create the next lock; None if somebody else was faster (see the module's text)."""
    path = folder / f"{LOCK}{max((_number(lock.path) for lock in stale), default=0) + 1}"
    text = json.dumps(me)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    if any(lock not in stale for lock in _locks(folder) if lock.path != path):
        path.unlink(missing_ok=True)
        return None
    for lock in stale:
        logger.warning("taking over from %s", _describe(lock))
        lock.path.unlink(missing_ok=True)
    return Lock(path, text, path.stat().st_mtime)


def _release(lock: Lock) -> None:
    """Remove the lock if it is still ours, and the folder if it is empty."""
    with contextlib.suppress(OSError):
        if _text(lock.path) == lock.text:
            lock.path.unlink()
        lock.path.parent.rmdir()


def _beat(lock: Lock, stop: threading.Event) -> None:
    """Touch the lock until told to stop; end this process if it was taken away."""
    while not stop.wait(HEARTBEAT_SECONDS):
        try:
            if _text(lock.path) == lock.text:
                os.utime(lock.path)  # without a time: the file server sets its own
                continue
        except FileNotFoundError:
            pass
        except OSError as error:  # a file server that is away for a moment
            logger.warning("the lock %s cannot be touched: %s", lock.path, error)
            continue
        logger.error("the lock %s was taken away: stopping, another process works there", lock.path)
        os.kill(os.getpid(), signal.SIGTERM)
        return


def _locks(folder: Path) -> list[Lock]:
    """All locks in ``folder``, by number."""
    found = []
    for path in folder.glob(f"{LOCK}*"):
        with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as stream:
            found.append(Lock(path, stream.read(), os.fstat(stream.fileno()).st_mtime))
    return sorted(found, key=lambda lock: _number(lock.path))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _number(path: Path) -> int:
    return int(path.name.removeprefix(LOCK))


def _clock(folder: Path) -> float:
    """The time of the file server that ``folder`` lies on."""
    path = folder / f".clock.{os.urandom(8).hex()}"
    try:
        path.touch()
        return path.stat().st_mtime
    finally:
        path.unlink(missing_ok=True)


def _stale(lock: Lock, now: float, me: dict[str, Any]) -> bool:
    """Whether nobody works under ``lock`` any more, ``now`` being the file server's time."""
    if now - lock.touched > STALE_SECONDS:
        return True
    holder = lock.holder
    if holder.get("machine") == me["machine"] and isinstance(holder.get("pid"), int):
        return not _runs(holder["pid"])
    return me["slurm_job"] is not None and holder.get("slurm_job") == me["slurm_job"]


def _runs(pid: int) -> bool:
    """Whether another process of this machine has this number and has not ended; one that has may be unreaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        return state not in "ZX" and pid != os.getpid()
    return pid != os.getpid()


def _myself(work: str) -> dict[str, Any]:
    """What a lock of this process holds."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "work": work,
        "token": os.urandom(8).hex(),
    }


def _machine() -> str:
    """Where process numbers mean the same: this boot of this machine, and within it this container's numbering."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown {os.urandom(8).hex()}"


def _describe(lock: Lock) -> str:
    holder = lock.holder
    job = holder.get("slurm_job")
    return (
        f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
        f"{f' (SLURM job {job})' if job else ''}, which holds {lock.path}"
    )
