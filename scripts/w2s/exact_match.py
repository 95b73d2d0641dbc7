r"""Exact match of mathematical answers, by the library math-verify.

What counts as an answer's result, in this order: the content of its last ``\boxed{}``; the line after its last ``####``
(GSM8K's mark); what math-verify finds in the text ("the answer is ...", "Answer: ...", else the last formula or number);
the last number. Two results match if math-verify can show that they are equal: 1/2 and 0.5, x=5 and 5, 50% and 0.5.

An answer is a stranger's text, and simplifying what it says can take for ever: ``9^{9^{9}}``. A :class:`Grader` therefore
works in a process of its own with a limit of processor time and of memory, set by the kernel. The library's own time
limit is not used: it is an alarm signal, which works in the main thread alone and cannot interrupt one long computation;
besides, it measures time on the clock, so that a busy machine would change a score.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import re
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Self

from w2s.errors import DataError, EnvironmentProblem

RIGHT, WRONG, NOTHING, TOO_HARD = "right", "wrong", "no result", "too hard"
VERDICTS = (RIGHT, WRONG, NOTHING, TOO_HARD)
# A usual comparison takes milliseconds, the slowest true ones of MATH about a second.
SECONDS = 10
MEMORY = 4 * 2**30
# Of a text without a mark only the end is searched: a result stands there, and the search slows with the length.
TAIL = 4000
# How a process ends that asked for more than it may have: its time, its memory, or too deep a recursion.
_EXCEEDED = (-signal.SIGXCPU, -signal.SIGSEGV, -signal.SIGABRT)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(?P<open>\{)|(?P<bare>[^\s{}$\\]+))")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_MARK = "####"


class Grader:
    """Compares results in a process of its own; to be used in a ``with`` block.

    Args:
        seconds: processor time that one comparison may take.
        memory: bytes of address space that the process may have.
    """

    def __init__(self, seconds: int = SECONDS, memory: int = MEMORY) -> None:
        self._limits = (seconds, memory)
        # Not a fork: the caller may have threads (pyarrow has).
        self._context = multiprocessing.get_context("spawn")
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def verdict(self, expected: str, answer: str) -> str:
        """One of VERDICTS: whether the result of ``answer`` is that of ``expected``.

        Args:
            expected: a text with a result; a bare one goes through :func:`boxed` first.
            answer: any text.

        Raises:
            DataError: ``expected`` has no result.
            EnvironmentProblem: the process was ended from outside, or the library is not installed.
        """
        if self._process is None:
            self._start()
        assert self._process is not None and self._pipe is not None
        try:
            self._pipe.send((expected, answer))
            found = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            self._stop()
            if code in _EXCEEDED:
                return TOO_HARD
            raise EnvironmentProblem(
                f"the process that compares answers ended with code {code}",
                instead="the library math-verify installed, and enough memory",
            ) from None
        if found is None:
            raise DataError(f"no result in {expected!r:.80}", instead="a number, formula or \\boxed{}")
        return found

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs, *self._limits), daemon=True)
        self._process.start()
        theirs.close()

    def _stop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None


def boxed(result: str) -> str:
    """A bare result, such as a question's reference, as a text that has it as its result."""
    return f"\\boxed{{{result}}}"


def last_boxed(text: str) -> str | None:
    r"""What the last ``\boxed{...}`` or ``\boxed 5`` holds; None without one, or if it is cut off."""
    matches = list(_BOX.finditer(text))
    if not matches:
        return None
    last = matches[-1]
    if last["bare"]:
        return last["bare"]
    depth = 1
    for brace in _BRACE.finditer(text, last.end()):  # an escaped brace is matched, and passed over, whole
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[last.end() : brace.start()].strip()
    return None


def result_text(text: str) -> str:
    """The part of ``text`` in which its result is to be looked for."""
    box = last_boxed(text)
    if box:
        return boxed(box)
    _, mark, after = text.rpartition(_MARK)
    if mark and after.strip():
        return after.strip().splitlines()[0]
    return text[-TAIL:]


def _results(text: str) -> list:
    """What math-verify makes of a text: sympy expressions and texts; empty if it has no result."""
    from math_verify import parse

    part = result_text(text)
    found = parse(part, parsing_timeout=None)
    if not found:
        numbers = _NUMBER.findall(part)
        found = parse(boxed(numbers[-1]), parsing_timeout=None) if numbers else []
    return found


def _compare(expected: str, answer: str) -> str | None:
    """One of VERDICTS; None if ``expected`` has no result."""
    from math_verify import verify

    gold = _results(expected)
    if not gold:
        return None
    found = _results(answer)
    if not found:
        return NOTHING
    return RIGHT if verify(gold, found, timeout_seconds=None) else WRONG


def _serve(pipe: Connection, seconds: int, memory: int) -> None:
    """The process: compare what comes through ``pipe`` until it is closed."""
    import logging
    import resource

    import math_verify  # noqa: F401 - its import is no part of the first comparison's time

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limit is off
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # not every system can limit memory
        resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    with contextlib.suppress(EOFError):
        while True:
            texts = pipe.recv()
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + seconds, hard))
            try:
                found = _compare(*texts)
            except (MemoryError, RecursionError):
                found = TOO_HARD
            pipe.send(found)
