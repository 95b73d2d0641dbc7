"""Scoring pairs against TRL's own computation of reference log-probabilities, on the same tokenised rows.

Theirs is ``DPOTrainer.compute_ref_log_probs`` on TRL's collated batches in file order, at the best of several batch
sizes (on a CPU 2, 4 and 8, found on a part of the rows first). Ours is ``w2s.scoring.score_rows``. OPT-125M's shape,
unless told otherwise, with random weights: speed does not depend on their values. Rows are drawn like HH-RLHF's
(benchmarks/rows.py) or real ones.

    python benchmarks/scoring.py [--rows FOLDER --tokenizer FOLDER] [--precision bfloat16]
"""

from __future__ import annotations

import argparse
import tempfile
from statistics import median
from typing import Any

import measure
import numpy as np
import pandas as pd
import rows
import torch
from w2s import scoring
from w2s.packing import Layout, Row

TARGETS = {"float32": (3.5, 0.85), "bfloat16": (3.5, 0.7)}
# Largest difference between the two sides' sums, in nats per scored token.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.1}
BATCH_SIZES = {"cpu": (2, 4, 8), "cuda": (8, 16, 32, 64)}
# Pairs, pairs of the search for their batch size, and tokens of our batches.
SIZES = {"cpu": (16, 8, 1024), "cuda": (256, 256, 16384)}


def theirs(model: Any, folder: str, device: str) -> Any:
    """TRL's trainer on rows that are tokenised."""
    from datasets import Dataset
    from trl import DPOConfig

    config = DPOConfig(
        output_dir=folder,
        precompute_ref_log_probs=True,
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=device == "cpu",
        report_to="none",
        disable_tqdm=True,
    )
    row = {"prompt_ids": [3], "chosen_ids": [3], "rejected_ids": [3]}
    given = {"train_dataset": Dataset.from_list([row]), "processing_class": measure.tokenizer()}
    return measure.stock_dpo()(model, None, config, **given)


def reference_pass(trainer: Any, pairs: list[Row], batch_size: int) -> np.ndarray:
    """TRL's sums, (pairs, 2)."""
    found = []
    for start in range(0, len(pairs), batch_size):
        part = pairs[start : start + batch_size]
        names = ("chosen_ids", "rejected_ids")
        examples = [{"prompt_ids": row.prompt, **dict(zip(names, row.answers, strict=True))} for row in part]
        inputs = trainer._prepare_inputs(trainer.data_collator(examples))
        sums = trainer.compute_ref_log_probs(trainer.model, inputs)
        found.append(torch.stack(sums, 1).float().cpu().numpy())
    return np.concatenate(found)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure and check that both sides give the same numbers."""
    shape, dtype, device = measure.SHAPES[args.shape], getattr(torch, args.precision), args.device
    number, few, most = SIZES[device]
    number, batch_tokens = args.pairs or number, args.batch_tokens or most
    model = shape.model(device=device).to(dtype)
    if args.rows:
        pairs = rows.real(args.rows, args.tokenizer, number)
    else:
        pairs = rows.drawn(number, vocabulary=shape.vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        trainer = theirs(model, folder, device)
        reference_pass(trainer, pairs[:2], 2)  # warms up
        size = measure.fastest(BATCH_SIZES[device], lambda size: reference_pass(trainer, pairs[:few], size))
        found = measure.interleaved(
            args.rounds,
            {
                "peak": lambda: measure.peak(dtype, device),
                "ours": lambda: scoring.score_rows(model, pairs, rows.PAD, batch_tokens),
                "theirs": lambda: reference_pass(trainer, pairs, size),
            },
        )
    scores, stock = found["ours"].made[-1], found["theirs"].made[-1]
    difference = largest_difference(scores.table, stock, pairs)
    if difference > TOLERANCES[args.precision]:
        raise SystemExit(f"the two sides differ by {difference} nats per token")
    groups = scoring.batches(Layout.of(model).divide(pairs), batch_tokens)
    flops = {"needed": measure.needed(shape, pairs), "done": measure.done(shape, groups)}
    shares = measure.shares_of_peak(flops, found["ours"], found["peak"])
    flops["theirs"] = measure.done_apart(shape, pairs, size)
    their_share = measure.shares_of_peak({"theirs": flops["theirs"]}, found["theirs"], found["peak"])
    times = measure.ratio(found["ours"], found["theirs"])
    target, target_share = TARGETS[args.precision]
    return {
        "name": measure.name(args, "scoring", args.precision),
        "ours": round(len(pairs) / median(found["ours"].seconds), 3),
        "theirs": round(len(pairs) / median(found["theirs"].seconds), 3),
        "unit": measure.per_second("pairs"),
        "ratio": round(times, 2),
        "target": target,
        "share_of_peak": shares["needed"],
        "share_of_peak_target": target_share,
        "met": times >= target and shares["needed"] >= target_share,
        "share_of_peak_done": shares["done"],
        "their_share_of_peak_done": their_share["theirs"],
        "ratio_if_both_were_at_the_peak": round(flops["theirs"] / flops["needed"], 2),
        "flops": {name: float(f"{value:.4g}") for name, value in flops.items()},
        "flops_per_s": float(f"{flops['needed'] / median(found['ours'].seconds):.4g}"),
        "peak_flops_per_s": float(f"{median(found['peak'].made):.4g}"),
        "largest_difference": float(f"{difference:.2g}"),
        "largest_difference_unit": "nats per scored token",
        "rows": "HH-RLHF" if args.rows else "drawn like HH-RLHF's",
        "pairs": len(pairs),
        "rounds": args.rounds,
        "batch_tokens": batch_tokens,
        "padding_share": round(1 - scores.tokens / scores.padded_tokens, 3),
        "their_batch_size": size,
        "model": f"{shape.title}'s shape, random weights",
        "precision": args.precision,
        "seconds": {name: [round(s, 4) for s in found[name].seconds] for name in ("ours", "theirs")},
        "environment": measure.environment(device),
    }


def largest_difference(table: pd.DataFrame, stock: np.ndarray, pairs: list[Row]) -> float:
    """Between the two sides' sums, in nats per scored token; ``stock`` is (pairs, 2)."""
    ours = table.set_index(["id", "response"])["log_prob_sum"].unstack().loc[[row.id for row in pairs]]
    counts = np.array([[len(answer) for answer in row.answers] for row in pairs])
    return float((np.abs(ours.to_numpy() - stock) / counts).max())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measure.add_common(parser)
    parser.add_argument("--precision", choices=TARGETS, default="float32")
    parser.add_argument("--pairs", type=int, help="default: 16, on a GPU 256")
    parser.add_argument(
        "--batch-tokens", type=int, help="tokens of our batches; default: 1024, on a GPU 16384"
    )
    args = parser.parse_args()
    measure.prepare(args)
    measure.write(run(args), args.results)


if __name__ == "__main__":
    main()
