"""How time and memory of scoring grow with the number of rows: 1, 2, 4 and 8 times as many.

The rows are the same ones again and again, so that four times the rows are four times the work. A small model: what is looked
for is what grows beside the arithmetic (tables, sorting, kept tensors), and that would be hidden by a large one. Each size runs
in a process of its own, in turn, five rounds; memory is the most that its process held after the model stood.

    python benchmarks/growth.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from statistics import median
from typing import Any

import measure
import rows
import torch
from measure import Shape
from w2s import cli, scoring

SIZES = (1, 2, 4, 8)
TARGET = 0.1
# More than this between one and eight times the rows, MiB, and memory would not be flat.
FLAT_MIB = 64.0
SMALL = Shape(width=128, layers=4, heads=4, feed_forward=512, vocabulary=8192)


def score(size: int, pairs: int, batch_tokens: int) -> dict[str, float]:
    """Seconds for ``size * pairs`` rows, and what memory that took beyond the model's, in MiB."""
    model = SMALL.model()
    once = [fitting(row, SMALL.vocabulary) for row in rows.drawn(pairs)]
    many = [replace(row, id=f"{row.id}-{copy}") for copy in range(size) for row in once]
    scoring.score_rows(model, once[:8], rows.PAD, batch_tokens)  # warms up
    before = measure.most_memory()
    started = measure.clock()
    scoring.score_rows(model, many, rows.PAD, batch_tokens)
    return {"seconds": measure.clock() - started, "mib": measure.most_memory() - before}


def fitting(row: Any, vocabulary: int) -> Any:
    """The row with its tokens in a smaller vocabulary."""
    prompt, *answers = ([token % vocabulary for token in part] for part in (row.prompt, *row.answers))
    return replace(row, prompt=prompt, answers=tuple(answers))


def in_own_process(size: int, args: argparse.Namespace) -> dict[str, float]:
    """:func:`score` in a fresh interpreter."""
    words = [sys.executable, __file__, "--size", str(size), "--pairs", str(args.pairs)]
    words += ["--batch-tokens", str(args.batch_tokens)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All sizes in turn; the result as it is written."""
    found: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
    for _ in range(args.rounds):
        for size in SIZES:
            found[size].append(in_own_process(size, args))
    seconds = {size: median(one["seconds"] for one in found[size]) for size in SIZES}
    memory = {size: median(one["mib"] for one in found[size]) for size in SIZES}
    # Per row, beside the time per row at one size: 1.0 is linear.
    growth = {size: seconds[size] / size / seconds[SIZES[0]] for size in SIZES}
    worst = max(abs(value - 1) for value in growth.values())
    more = memory[SIZES[-1]] - memory[SIZES[0]]
    return {
        "name": "growth",
        "ours": round(args.pairs * SIZES[-1] / seconds[SIZES[-1]], 2),
        "theirs": round(args.pairs / seconds[SIZES[0]], 2),
        "unit": measure.per_second("pairs") + ", ours at 8 times the rows, theirs at one time",
        "ratio": round(1 / growth[SIZES[-1]], 3),
        "target": TARGET,
        "met": worst <= TARGET and more <= FLAT_MIB,
        "largest_departure_from_linear": round(worst, 3),
        "time_per_row": {str(size): round(value, 3) for size, value in growth.items()},
        "seconds": {str(size): round(value, 2) for size, value in seconds.items()},
        "memory_beyond_the_model_mib": {str(size): round(value, 1) for size, value in memory.items()},
        "flat_mib": FLAT_MIB,
        "pairs": args.pairs,
        "batch_tokens": args.batch_tokens,
        "rounds": args.rounds,
        "model": "OPT architecture, 4 layers of width 128, random weights",
        "environment": measure.environment(),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=250, help="rows at one time the size")
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, help="only this size, as JSON on the last line")
    args = parser.parse_args()
    torch.set_num_threads(cli.threads())
    if args.size:
        print(json.dumps(score(args.size, args.pairs, args.batch_tokens)))
    else:
        measure.write(run(args))


if __name__ == "__main__":
    main()
