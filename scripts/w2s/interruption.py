"""SIGTERM: what a stage does when the scheduler wants its place back.

By default the signal raises :class:`Stop` in the main thread, so that a stage unwinds as from any error, and what comes
out of :func:`listen` is :class:`w2s.errors.Interrupted`: the half-made artifact goes, the checkpoints stay. Where an
exception would tear something, the signal is only noted and the code looks at :func:`requested` when it can stop: a
training ends the step that it is in and saves.

There is little time. SLURM kills what is left ``KillWait`` (usually 30) seconds after SIGTERM, and torch's elastic
agent, which ``accelerate launch`` is built on, gives its processes 30 seconds too. A checkpoint that takes longer is
torn and the one before it is continued; ``#SBATCH --signal`` can send the signal earlier.

A second signal does nothing: the scheduler signals all processes of a job and launch.py passes its own on as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from w2s.errors import Interrupted

# EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command again continues.
EXIT_AGAIN = 75
# Where a stage leaves word for launch.py: the sidecar folder of its output.
FOLDER = "W2S_JOB_FOLDER"
NOTE = "outcome"
# Outcomes of an attempt that did not succeed.
INTERRUPTED = "interrupted"
OUT_OF_MEMORY = "out-of-memory"
GPU_OUT_OF_MEMORY = "gpu-out-of-memory"
FAILED = "failed"
OUTCOMES = (INTERRUPTED, OUT_OF_MEMORY, GPU_OUT_OF_MEMORY, FAILED)
PR_SET_PDEATHSIG = 1


class Stop(BaseException):
    """What the signal raises within :func:`listen`; like KeyboardInterrupt, no ``except Exception`` swallows it.

    Libraries have many of these; logging has one around each line that it writes.
    """


class _State:
    """Of this process."""

    requested = False
    deferrals = 0


_state = _State()


@contextlib.contextmanager
def listen() -> Iterator[None]:
    """Take SIGTERM as a request to stop until the block ends.

    A stage that launch.py started ignores the signal after a block that went well: its output stands, and to be ended
    while the interpreter clears up would make a failure of it. It also dies with its parent, see
    :func:`die_with_parent`. Outside the main thread, where no handler can be set, nothing is changed.

    Raises:
        Interrupted: the signal came, and not where it is only noted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    launched = FOLDER in os.environ
    if launched:
        die_with_parent()
    _state.requested, _state.deferrals = False, 0
    then = former = signal.signal(signal.SIGTERM, _note)
    try:
        yield
        then = signal.SIG_IGN if launched else former
    except Stop:
        raise Interrupted("asked to stop (SIGTERM)", instead="the same command again: it continues") from None
    finally:
        signal.signal(signal.SIGTERM, then)


def _note(_number: int, _frame: object) -> None:
    first, _state.requested = not _state.requested, True
    if first and not _state.deferrals:
        raise Stop


def requested() -> bool:
    """Whether this process was asked to stop."""
    return _state.requested


def defer() -> None:
    """From here on a request is only noted: the stage stops by itself where it can, or is about to end."""
    _state.deferrals += 1


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Only note a request that comes within the block; nothing is raised at its end either."""
    defer()
    try:
        yield
    finally:
        _state.deferrals -= 1


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent ends (Linux; elsewhere nothing happens).

    launch.py holds the lock of the output and of the GPUs. Were it killed and its stage lived on, the next attempt
    would find both free and work in the same folder.

    Args:
        parent: the process that must still be the parent; default: whichever is now.
    """
    prctl = find_prctl()
    if prctl is None:
        return
    parent = parent or os.getppid()
    prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it ended before the call
        os._exit(128 + signal.SIGKILL)


def find_prctl() -> Callable[[int, int], int] | None:
    """The system call of that name, or None where there is none."""
    try:
        import ctypes

        return ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None


def leave_word(outcome: str) -> None:
    """Tell launch.py, if it started this process, what the exit code cannot: the outcome of the attempt.

    Not for "interrupted": that has its own exit code, and of several processes those that are stopped because one
    failed must not cover what that one said.
    """
    folder = os.environ.get(FOLDER)
    if not folder:
        return
    temporary = Path(folder) / f".{NOTE}.{os.getpid()}"
    with contextlib.suppress(OSError):  # the error itself is what matters and is being reported
        temporary.write_text(outcome, encoding="utf-8")
        os.replace(temporary, Path(folder) / NOTE)
