"""Gold rewards against transformers' text-classification pipeline, on the same texts.

Theirs is ``pipeline("text-classification", function_to_apply="none")`` in file order, at the best of the batch sizes 1, 2, 4
and 8, found on a part of the texts first. Ours is ``w2s.rewards.score`` with its own tokenisation. OPT-125M's shape with one
logit and random weights; the texts are HH-RLHF's, or random words, one token each, of the same lengths.

    python benchmarks/gold.py [--rows FOLDER --tokenizer FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import Any

import measure
import numpy as np
import rows
import torch
from measure import Shape
from w2s import cli
from w2s.packing import Row
from w2s.rewards import Tokens, score

TARGET = 2.0
BATCH_SIZES = (1, 2, 4, 8)


def classifier(shape: Shape) -> Any:
    """A reward model of random weights."""
    from transformers import OPTConfig, OPTForSequenceClassification

    torch.manual_seed(0)
    config: OPTConfig = shape.model().config
    config.num_labels = 1
    return OPTForSequenceClassification(config).eval()


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turn; the result as it is written."""
    from transformers import AutoTokenizer, pipeline

    if args.rows:
        tokenizer = AutoTokenizer.from_pretrained(args.tokenizer, local_files_only=True)
    else:
        tokenizer = measure.tokenizer(rows.VOCABULARY)
    given = rows.real(args.rows, args.tokenizer, args.texts) if args.rows else rows.drawn(args.texts)
    sequences = [row.apart()[0] for row in given]
    texts = [tokenizer.decode(row.prompt[1:] + row.answers[0][:-1]) for row in sequences]
    model = classifier(Shape())
    stock = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")

    def ours(part: list[str]) -> np.ndarray:
        return score(model, [Tokens(list(tokenizer(text)["input_ids"])) for text in part], args.batch_tokens)

    def theirs(part: list[str], size: int) -> list[float]:
        return [found["score"] for found in stock(part, batch_size=size, function_to_apply="none")]

    seconds: dict[int, float] = {}
    theirs(texts[:2], 1)  # warms up
    for size in BATCH_SIZES:
        started = measure.clock()
        theirs(texts[: max(8, len(texts) // 2)], size)
        seconds[size] = measure.clock() - started
    size = min(seconds, key=seconds.__getitem__)
    found = measure.interleaved(
        args.rounds,
        {
            "peak": lambda: measure.peak(torch.float32),
            "ours": lambda: ours(texts),
            "theirs": lambda: theirs(texts, size),
        },
    )
    difference = float(np.abs(found["ours"].made[0] - np.array(found["theirs"].made[0])).max())
    if difference > 1e-3:
        raise SystemExit(f"the rewards differ by up to {difference}")
    times = measure.ratio(found["ours"], found["theirs"])
    read = [
        Row(row.id, list(tokenizer(text)["input_ids"]), ())
        for row, text in zip(sequences, texts, strict=True)
    ]
    flops = {"needed": measure.needed(Shape(), read)}
    shares = {
        side: measure.shares_of_peak(flops, found[side], found["peak"])["needed"]
        for side in ("ours", "theirs")
    }
    return {
        "name": "gold-float32" + ("-real" if args.rows else ""),
        "ours": round(len(texts) / median(found["ours"].seconds), 3),
        "theirs": round(len(texts) / median(found["theirs"].seconds), 3),
        "unit": measure.per_second("texts"),
        "ratio": round(times, 2),
        "target": TARGET,
        "met": times >= TARGET,
        "share_of_peak": shares["ours"],
        "their_share_of_peak": shares["theirs"],
        "ratio_if_ours_were_at_the_peak": round(1 / shares["theirs"], 2),
        "flops": {name: float(f"{value:.4g}") for name, value in flops.items()},
        "peak_flops_per_s": float(f"{median(found['peak'].made):.4g}"),
        "largest_difference": float(f"{difference:.2g}"),
        "their_batch_size": size,
        "their_seconds_by_batch_size": {str(key): round(value, 2) for key, value in seconds.items()},
        "rows": "HH-RLHF" if args.rows else "drawn like HH-RLHF's",
        "texts": len(texts),
        "batch_tokens": args.batch_tokens,
        "rounds": args.rounds,
        "model": "OPT-125M's shape with one logit, random weights",
        "precision": "float32",
        "seconds": {name: [round(s, 2) for s in found[name].seconds] for name in ("ours", "theirs")},
        "environment": measure.environment(),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=Path, help="folder with HH-RLHF's *.jsonl.gz; default: texts as long as they"
    )
    parser.add_argument("--tokenizer", type=Path, help="folder of OPT's tokenizer, for --rows")
    parser.add_argument("--texts", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    args = parser.parse_args()
    torch.set_num_threads(cli.threads())
    measure.write(run(args))


if __name__ == "__main__":
    main()
