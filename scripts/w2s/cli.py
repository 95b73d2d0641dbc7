"""Command lines of the stages: argparse with the roles that the workflow needs told apart.

Each stage has inputs (manifests), one output (a manifest), a *spec* (what changes the result: it is recorded in the
manifest and compared by the workflow) and options (how it is executed: devices, micro batches; not compared).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from w2s import artifact, interruption, secrecy, store, strict_json
from w2s.errors import Interrupted, W2SError
from w2s.keys import Work, key_of

logger = logging.getLogger(__name__)
# torch and its like make a million objects at import, all of them to stay: looking through them for garbage again and
# again would take a sixth of a start.
gc.set_threshold(10_000, 20, 50)
EXIT_WRONG_INPUT = 2
EXIT_NO_MEMORY = 1
# What libraries say in a plain RuntimeError when an allocation fails: torch on a CPU, CUDA outside torch's allocator.
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
NO_GPU_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
ADVICE = {
    interruption.OUT_OF_MEMORY: "more memory: the workflow's next attempt asks for it; by hand, mem_mb in the catalogue",
    interruption.GPU_OUT_OF_MEMORY: (
        "smaller micro batches: the workflow's next attempt halves them; by hand, --micro-batch-size where there is one"
    ),
}


class _MadeBefore(Exception):
    """The artifact that the stage was to make stands, and nothing is left to do."""


class _Process:
    """What this process does: whether a stage runs in it (:func:`run`), and at which work."""

    runs = False
    output: Path | None = None
    key: str | None = None


class StageParser:
    """An argument parser whose arguments have a role: input, output, spec or option."""

    def __init__(self, documentation: str) -> None:
        self._parser = argparse.ArgumentParser(
            description=documentation,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._inputs = self._parser.add_argument_group("inputs (manifest.json of an artifact)")
        self._outputs = self._parser.add_argument_group("outputs")
        self._spec = self._parser.add_argument_group("spec (changes the result)")
        self._options = self._parser.add_argument_group("options (change how, not what)")
        self.spec_names: list[str] = []
        self._input_names: list[str] = []
        self._contents: Callable[[argparse.Namespace], Mapping[str, Path]] = lambda _: {}

    @property
    def parser(self) -> argparse.ArgumentParser:
        """The argparse parser underneath, for documentation."""
        return self._parser

    def input(self, flag: str, **settings: Any) -> None:
        """Add an input: a path, required unless ``nargs="*"`` or told otherwise.

        One that is not required may be given without a path, which is how a rule without that input writes it.
        """
        settings.setdefault("type", Path)
        if settings.get("required") is False:
            settings.setdefault("nargs", "?")
        settings.setdefault("required", settings.get("nargs") != "*")
        if settings.get("nargs") == "*":
            settings.setdefault("default", [])
        self._input_names.append(self._inputs.add_argument(flag, **settings).dest)

    def output(self, flag: str, **settings: Any) -> None:
        """Add an output path (required)."""
        settings.setdefault("type", Path)
        settings.setdefault("required", True)
        self._outputs.add_argument(flag, **settings)

    def spec(self, flag: str, **settings: Any) -> None:
        """Add a setting that changes the result. Required unless a default is given."""
        settings.setdefault("required", "default" not in settings)
        action = self._spec.add_argument(flag, **settings)
        self.spec_names.append(action.dest)

    def option(self, flag: str, **settings: Any) -> None:
        """Add a setting that changes how the stage runs, but not its result."""
        self._options.add_argument(flag, **settings)

    def contents(self, files: Callable[[argparse.Namespace], Mapping[str, Path]]) -> None:
        """Tell which files decide the result although no input names them: name -> file, of parsed arguments."""
        self._contents = files

    def parse_args(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse; ``args.spec`` is the dict of all spec settings, by name.

        Within :func:`run` the stage ends here if the same work has made the artifact before (:mod:`w2s.store`).
        """
        args = self._parse(argv)
        work = self._work(args)
        if work is not None:
            _begin(work)
        return args

    def work(self, argv: Sequence[str] | None = None) -> Work | None:
        """What the stage is told to make by these arguments; None if that is no artifact."""
        return self._work(self._parse(argv))

    def _parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        args = self._parser.parse_args(argv)
        args.spec = {name: getattr(args, name) for name in self.spec_names}
        return args

    def _work(self, args: argparse.Namespace) -> Work | None:
        output = getattr(args, "output", None)
        if not isinstance(output, Path) or output.name != artifact.MANIFEST:
            return None
        given = {name: getattr(args, name) for name in self._input_names}
        inputs = {
            name: value if isinstance(value, list) else [value] for name, value in given.items() if value
        }
        return Work(output, dict(args.spec), inputs, self._contents(args))


def _begin(work: Work) -> None:
    """Have the artifact name its key; within :func:`run`, end if it was made before.

    Raises:
        _MadeBefore: it was, and stands.
    """
    if not _Process.runs:
        artifact.announce(work.output, lambda script: key_of(work, script))
        return
    key = key_of(work, Path(sys.argv[0]))

    def at_the_end(script: Path) -> str | None:
        if key_of(work, script) == key:
            return key
        logger.warning(
            "sources or inputs changed while the stage ran: its artifact has no key and is not shared"
        )
        return None

    artifact.announce(work.output, at_the_end)
    _Process.output, _Process.key = work.output, key
    # launch.py has looked before it took GPUs, for all processes of the stage.
    if interruption.FOLDER not in os.environ and store.reuse(work.output, key):
        raise _MadeBefore


def _end() -> None:
    """Publish what the stage has made; the first of several processes does."""
    if _Process.output is not None and os.environ.get("RANK", "0") == "0":
        store.publish(_Process.output, _Process.key)


def positive_int(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def share(text: str) -> float:
    """An argparse type: a number between 0 and 1, also written as a fraction ("1/2")."""
    numerator, _, denominator = text.partition("/")
    value = float(numerator) / (float(denominator or 1) or float("nan"))
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text}")
    return value


def json_object(text: str) -> dict[str, Any]:
    """An argparse type: a JSON object, whose numbers are finite, for a manifest could hold no others."""
    return _json(text, dict, "object")


def json_array(text: str) -> list[Any]:
    """An argparse type: a JSON array, whose numbers are finite as well."""
    return _json(text, list, "array")


def _json(text: str, kind: type, name: str) -> Any:
    try:
        value = strict_json.parse(text, finite=True)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(value, kind):
        raise argparse.ArgumentTypeError(f"a JSON {name} is needed, not {text[:40]}")
    return value


def run(main: Callable[[], int | None]) -> None:
    """Run a stage's ``main`` and leave the process with its exit code.

    An error of ours is printed as it is, without a traceback, and so is a want of memory; anything else keeps its
    traceback, for it is a bug. No secret of the environment is in either (:mod:`w2s.secrecy`). SIGTERM ends the stage
    with :data:`w2s.interruption.EXIT_AGAIN`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    # Library chatter (HTTP requests, telemetry) has no place in a log that people read for the numbers.
    for noisy in ("httpx", "urllib3", "filelock", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    secrecy.watch()
    _Process.runs, _Process.output, _Process.key = True, None, None
    code = 0
    try:
        with interruption.listen():
            with contextlib.suppress(_MadeBefore):
                code = main() or 0
            if code == 0:
                _end()
    except Interrupted as error:
        print(secrecy.hide(f"interrupted: {error}"), file=sys.stderr, flush=True)
        code = interruption.EXIT_AGAIN
    except W2SError as error:
        print(secrecy.hide(f"error: {error}"), file=sys.stderr, flush=True)
        code = EXIT_WRONG_INPUT
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        outcome = memory_outcome(error)
        if outcome is None:
            raise
        code = _without_memory(error, outcome)
    finally:
        _Process.runs = False
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End this process.

    One of several ends without taking itself apart: the threads of torch's connections and Python's end now and then wait
    for each other for ever, or abort the process after all its work.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os._exit(code)
    sys.exit(code)


def _without_memory(error: Exception, outcome: str) -> int:
    """Say that memory was wanting, to people and to launch.py; returns the exit code."""
    interruption.leave_word(outcome)
    # Hidden before it is cut: half a secret of several lines would not be found.
    what = (secrecy.hide(str(error)).strip() or type(error).__name__).splitlines()[0]
    print(f"error: {W2SError(f'{outcome}: {what}', instead=ADVICE[outcome])}", file=sys.stderr, flush=True)
    return EXIT_NO_MEMORY


def memory_outcome(error: BaseException) -> str | None:
    """Which memory was wanting when ``error`` was raised, as one of the outcomes of an attempt; None if none was."""
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError" or any(sign in text for sign in NO_GPU_MEMORY):
        return interruption.GPU_OUT_OF_MEMORY
    return interruption.OUT_OF_MEMORY if isinstance(error, MemoryError) or NO_MEMORY in text else None


def threads() -> int:
    """The number of threads that the workflow gave this job (``OMP_NUM_THREADS``), else all cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else (os.cpu_count() or 1)
