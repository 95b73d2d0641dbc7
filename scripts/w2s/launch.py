"""Start a stage that runs a model: one attempt at its output, on GPUs of its own, with an outcome that is remembered.

For rules: ``launch.py --gpus N --layout single|ddp|fsdp scripts/STAGE.py --output .../manifest.json ...``; exit code 0,
75 for "interrupted, the same again" or that of the stage; ``w2s.attempts.count(output, outcome)`` for the resources.

What it does, in this order: it waits until no other attempt works at the output (:mod:`w2s.attempts`) and is done if
that one made what was to be made, or the same work has made it before, here or in the store (:mod:`w2s.store`); takes
the GPUs (:mod:`w2s.gpus`); starts the stage, plainly (``single``) or by ``accelerate launch`` with
``envs/accelerate/<layout>.yaml``, a process per GPU; passes SIGTERM and SIGINT on to it; and, when it has ended without
success, writes down why:

- *interrupted*: exit code 75, or a signal was passed on;
- *gpu-out-of-memory*, *out-of-memory*: the stage left word (:func:`w2s.interruption.leave_word`);
- *out-of-memory* as well: SIGKILL that was not asked for, or the kernel killed for memory in this control group;
- *failed*: the rest.

Of the stage it loads what reads the command line (the function ``arguments`` of its script), and no library that
computes. It works in a container: paths are relative to the folder that it is started in.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # this folder holds modules named as some of the standard library's
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import contextlib
import logging
import runpy
import signal
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from w2s import attempts, checkpoints, cli, gpus, interruption, store
from w2s.errors import ConfigError
from w2s.keys import Work, key_of

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATIONS = ROOT / "envs" / "accelerate"
LAYOUTS = ("single", "ddp", "fsdp")
CONTROL_GROUPS = Path("/sys/fs/cgroup")
logger = logging.getLogger("w2s.launch")


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs of this job; default: none")
    parser.add_argument("--layout", choices=LAYOUTS, default="single", help="how a training is divided")
    parser.add_argument(
        "--processes", type=int, metavar="P", help="processes; default: one per GPU. For processes on CPUs"
    )
    parser.add_argument("script", help="the stage")
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="...", help="its arguments, --output among them"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make one attempt; returns the exit code."""
    parser = arguments()
    args = parser.parse_args(argv)
    processes = args.gpus if args.processes is None else args.processes
    if min(args.gpus, processes) < 0:
        parser.error("--gpus and --processes must not be negative")
    if args.layout == "single" and max(args.gpus, processes) > 1:
        parser.error("--layout single is one process on at most one GPU")
    work = work_of(args.script, args.words)
    key = key_of(work, Path(args.script))
    started = command(args.layout, processes, [args.script, *args.words])
    with attempts.held(work.output, key or os.urandom(8).hex()) as done:
        if done:
            logger.info("%s was made already, by another process: nothing is left to do", work.output)
        if done or store.reuse(work.output, key):
            attempts.discard(work.output)
            # Whoever made it may have been killed after the artifact stood and before its checkpoints went.
            checkpoints.discard(work.output)
            store.publish(work.output, key)
            return 0
        with gpus.allocated(args.gpus):
            return attempt(work.output, started)


def work_of(script: str, words: Sequence[str]) -> Work:
    """What a stage is told to make by its arguments.

    Raises:
        ConfigError: the script has no function ``arguments``, or it makes no artifact.
        SystemExit: the arguments are wrong; what is said of them is the stage's own.
    """
    arguments = runpy.run_path(script, run_name="stage").get("arguments")
    work = arguments and arguments().work(words)
    if not work:
        raise ConfigError(
            "the script has no function arguments()" if arguments is None else "the stage makes no artifact",
            where=" ".join([script, *words]),
            instead="a stage whose arguments() is a StageParser, and --output .../manifest.json",
        )
    return work


def command(layout: str, processes: int, stage: list[str]) -> list[str]:
    """What is started: the stage itself, or accelerate with it. The port 0 takes one that is free."""
    if layout == "single" or processes == 0:
        return [sys.executable, *stage]
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    launcher += ["--config_file", str(CONFIGURATIONS / f"{layout}.yaml")]
    return [*launcher, "--num_processes", str(processes), "--main_process_port", "0", *stage]


def attempt(output: Path, started: list[str]) -> int:
    """Run the stage to its end and keep its outcome; returns the exit code."""
    folder = attempts.job_folder(output).absolute()
    note = folder / interruption.NOTE
    note.unlink(missing_ok=True)
    begin, killed = datetime.now(UTC), memory_kills()
    child = Child()
    interruption.defer()  # what comes from here on is for the child, or too late
    with child.receiving_signals():
        environment = {**os.environ, interruption.FOLDER: str(folder)}
        status = child.run(started, environment)
    if status == 0:
        attempts.discard(output)
        return 0
    said = note.read_text(encoding="utf-8") if note.is_file() else ""
    outcome = outcome_of(status, said, asked=bool(child.signals), killed=memory_kills() > killed)
    again = outcome == interruption.INTERRUPTED
    code = interruption.EXIT_AGAIN if again else exit_code(status)
    attempts.record(output, started=begin, outcome=outcome, code=code)
    note.unlink(missing_ok=True)
    logger.info("this attempt ended with exit code %d: %s", code, outcome)
    return code


def outcome_of(status: int, said: str, *, asked: bool, killed: bool) -> str:
    """Why a stage ended without success.

    Args:
        status: its exit code, negative for a signal.
        said: the word that it left, or "".
        asked: whether a signal was passed on to it.
        killed: whether the kernel killed for memory meanwhile.
    """
    if said in interruption.OUTCOMES:
        return said
    if killed or (status in (-signal.SIGKILL, exit_code(-signal.SIGKILL)) and not asked):
        return interruption.OUT_OF_MEMORY
    if asked or status == interruption.EXIT_AGAIN:
        return interruption.INTERRUPTED
    return interruption.FAILED


def exit_code(status: int) -> int:
    """As a shell gives it: 128 + n for signal n."""
    return status if status >= 0 else 128 - status


class Child:
    """The stage's process, and the signals that are passed on to it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.signals: list[int] = []

    @contextlib.contextmanager
    def receiving_signals(self) -> Iterator[None]:
        """Pass SIGTERM and SIGINT on until the block ends."""
        former = {number: signal.signal(number, self.pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def pass_on(self, number: int, _frame: object = None) -> None:
        """Send a signal to the child, or remember it until there is one."""
        self.signals.append(number)
        if self.process is not None:
            self.process.send_signal(number)

    def run(self, started: list[str], environment: dict[str, str]) -> int:
        """Start a command and wait; returns its exit code, negative for a signal."""
        interruption.find_prctl()  # imports what the new process must not import between fork and exec
        parent = os.getpid()
        process = subprocess.Popen(
            started, env=environment, preexec_fn=lambda: interruption.die_with_parent(parent)
        )
        self.process = process
        for number in list(self.signals):  # came while there was no child to send them to
            process.send_signal(number)
        return process.wait()


def memory_kills() -> int:
    """How many processes of this control group (or of one in it) the kernel has killed for memory; 0 if not known."""
    for path in _memory_records():
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0


def _memory_records() -> Iterator[Path]:
    """Where the kernel may count: control groups of version 2, then 1; in a container they may begin at the root."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                yield CONTROL_GROUPS / group.strip("/") / "memory.events"
            elif "memory" in controllers.split(","):
                yield CONTROL_GROUPS / "memory" / group.strip("/") / "memory.oom_control"
    yield CONTROL_GROUPS / "memory.events"
    yield CONTROL_GROUPS / "memory" / "memory.oom_control"


if __name__ == "__main__":
    cli.run(main)
