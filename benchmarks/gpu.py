"""The benchmarks on a GPU: scoring and a step of DPO with LoRA, ours beside TRL's, on the shapes of OPT-1.3B and Llama-7B.

In bfloat16, with random weights. Each section is a process of its own and writes its own file
(``benchmarks/results/scoring-gpu-opt-1.3b.json`` and so on); what one cannot do does not keep the others from being
measured, and is told at the end, with exit code 1. Without a GPU there is nothing to measure: it says so. The first of
several GPUs is used, or that of ``CUDA_VISIBLE_DEVICES``; it should have nothing else to do.

    python benchmarks/gpu.py [--rows FOLDER --tokenizer FOLDER]

Real rows are OPT's tokens, so that Llama's shape has drawn ones either way. A step keeps the weights in float32, which
is 27 GB for Llama-7B beside the casts and activations: a GPU with less than 80 GB may not hold it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import measure
import torch

BENCHMARKS = ("scoring", "dpo")
SHAPES = ("opt-1.3b", "llama-7b")
PRECISION = "bfloat16"
LIMIT_MINUTES = 20.0
LINES = 15


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """What is started for each section, by its name."""
    common = ["--device", args.device, "--precision", PRECISION, "--rounds", str(args.rounds)]
    common += ["--results", str(args.results)]
    real = ["--rows", str(args.rows), "--tokenizer", str(args.tokenizer)] if args.rows else []
    folder = Path(__file__).resolve().parent
    found = {}
    for shape in args.shapes:
        own = real if measure.SHAPES[shape].vocabulary == measure.VOCABULARY else []
        for name in BENCHMARKS:
            words = [sys.executable, str(folder / f"{name}.py"), "--shape", shape, *common, *own]
            found[f"{name} {shape}"] = words
    return found


def failures(sections: dict[str, list[str]], limit: float) -> dict[str, str]:
    """Run all sections one after another, at most ``limit`` seconds each; for each one that failed, why."""
    found = {}
    for name, words in sections.items():
        print(f"-- {name}", flush=True)
        reason = failure(words, limit)
        if reason:
            found[name] = reason
            print(f"failed: {name}", flush=True)
    return found


def failure(words: Sequence[str], limit: float) -> str:
    """Run a command; "" if it succeeds, else how it ended and the end of its standard error."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        with group(words, errors.fileno()) as process:
            try:
                code = process.wait(limit)
                ended = f"exit code {code}"
            except subprocess.TimeoutExpired:
                code, ended = -1, f"stopped after {limit / 60:g} minutes"
        if code == 0:
            return ""
        errors.seek(0)
        return "\n".join([ended, *errors.read().splitlines()[-LINES:]])


@contextlib.contextmanager
def group(words: Sequence[str], errors: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process, on the first GPU unless told otherwise. What it started and left behind ends with the block."""
    environment = {"CUDA_VISIBLE_DEVICES": "0", **os.environ}
    process = subprocess.Popen(words, stderr=errors, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, help="folder with HH-RLHF's *.jsonl.gz; default: rows like them")
    parser.add_argument("--tokenizer", type=Path, help="folder of OPT's tokenizer, for --rows")
    parser.add_argument("--shapes", nargs="+", choices=measure.SHAPES, default=list(SHAPES), metavar="SHAPE")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the command")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    parser.add_argument("--limit", type=float, default=LIMIT_MINUTES, help="minutes of a section at most")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch finds no GPU here: nothing was measured")
        return 0
    failed = failures(commands(args), 60 * args.limit)
    for name, reason in failed.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
