"""Training steps of DPO with LoRA against TRL's DPOTrainer, both with the reference's log-probabilities given.

A step is 16 pairs unless told otherwise: forward and backward passes over micro-batches and one update. Theirs is ``DPOTrainer.training_step``
with TRL's collator and loss, at the best of the micro-batches 1, 2 and 4; ours is ``w2s.trainers.DPO`` at micro-batches
of our choice. Peak memory is that of a process of its own for each side (``--side``), one step each.

    python benchmarks/dpo.py [--rows FOLDER --tokenizer FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import measure
import rows
import torch
from measure import Shape
from w2s import cli
from w2s.packing import Row

TARGET = 2.5
MICRO = (1, 2, 4)


def trainer(side: str, folder: str) -> Any:
    """The trainer of a side, ready for its first step: LoRA of rank 8 on OPT-125M's shape, no dropout."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig
    from w2s import trainers

    settings = {
        "output_dir": folder,
        "precompute_ref_log_probs": True,
        "max_length": None,
        "learning_rate": 1e-4,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    row = {"prompt_ids": [3], "chosen_ids": [3], "rejected_ids": [3]}
    given: dict[str, Any] = {
        "train_dataset": Dataset.from_list([row]),
        "processing_class": measure.tokenizer(),
        "peft_config": LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=32, lora_dropout=0.0),
    }
    torch.manual_seed(0)
    model = Shape().model()
    if side == "ours":
        made: Any = trainers.DPO(model, DPOConfig(**settings), rows.PAD, **given)
    else:
        made = measure.stock_dpo()(model, None, DPOConfig(**settings), **given)
    made.create_optimizer_and_scheduler(num_training_steps=100)
    made.model, made.optimizer = made.accelerator.prepare(made.model, made.optimizer)
    return made


def step(made: Any, pairs: list[Row], micro: int) -> float:
    """One update on ``pairs``; returns the mean loss."""
    total = 0.0
    made.current_gradient_accumulation_steps = len(pairs) // micro  # the divisor of a pass's loss
    for start in range(0, len(pairs), micro):
        examples = [
            {
                "prompt_ids": row.prompt,
                "chosen_ids": row.answers[0],
                "rejected_ids": row.answers[1],
                "ref_chosen_logps": -10.0 * len(row.answers[0]),
                "ref_rejected_logps": -10.0 * len(row.answers[1]),
            }
            for row in pairs[start : start + micro]
        ]
        total += float(made.training_step(made.model, made.data_collator(examples)))
    made.optimizer.step()
    made.optimizer.zero_grad()
    return total


def side_alone(side: str, micro: int, pairs: list[Row]) -> dict[str, float]:
    """Loss of two steps, and the most memory that this process has held, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(side, folder)
        before = measure.most_memory()
        found = [step(made, pairs, micro) for _ in range(2)]
    return {"first_loss": found[0], "second_loss": found[1], "before": before, "peak": measure.most_memory()}


def in_own_process(side: str, micro: int) -> dict[str, float]:
    """:func:`side_alone` in a new process with this one's arguments."""
    words = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--micro", str(micro)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run(args: argparse.Namespace, pairs: list[Row]) -> dict[str, Any]:
    """Measure both sides, each at its best micro-batch."""
    with tempfile.TemporaryDirectory() as folder:
        sides = {side: trainer(side, folder) for side in ("ours", "theirs")}
        best = {}
        for side, made in sides.items():
            step(made, pairs[:2], 1)  # warms up
            seconds = {}
            for micro in (size for size in MICRO if len(pairs) % (2 * size) == 0):
                started = measure.clock()
                step(made, pairs, micro)
                seconds[micro] = measure.clock() - started
            best[side] = min(seconds, key=lambda micro: seconds[micro])
        found = measure.interleaved(
            args.rounds,
            {
                "peak": lambda: measure.peak(torch.float32),
                **{
                    side: lambda made=made, micro=best[side]: step(made, pairs, micro)
                    for side, made in sides.items()
                },
            },
        )
    memory = {side: in_own_process(side, micro) for side, micro in best.items()}
    difference = abs(memory["ours"]["second_loss"] - memory["theirs"]["second_loss"])
    if difference > 1e-3:
        raise SystemExit(f"the losses after one step differ by {difference}")
    times = measure.ratio(found["ours"], found["theirs"])
    # Backwards the same products again, with no gradients of frozen weights; attention's, twice its forward, counts once.
    flops = {"needed": 2 * measure.needed(Shape(), pairs)}
    no_more = memory["ours"]["peak"] <= memory["theirs"]["peak"]
    return {
        "name": "dpo-float32" + ("-real" if args.rows else ""),
        "ours": round(len(pairs) / median(found["ours"].seconds), 3),
        "theirs": round(len(pairs) / median(found["theirs"].seconds), 3),
        "unit": measure.per_second("pairs"),
        "ratio": round(times, 2),
        "target": TARGET,
        "met": times >= TARGET and no_more,
        "share_of_peak": measure.shares_of_peak(flops, found["ours"], found["peak"])["needed"],
        "flops": {name: float(f"{value:.4g}") for name, value in flops.items()},
        "peak_flops_per_s": float(f"{median(found['peak'].made):.4g}"),
        "memory_mib": {side: round(numbers["peak"]) for side, numbers in memory.items()},
        "memory_before_steps_mib": {side: round(numbers["before"]) for side, numbers in memory.items()},
        "micro_batch": best,
        "loss_difference_after_a_step": float(f"{difference:.2g}"),
        "rows": "HH-RLHF" if args.rows else "drawn like HH-RLHF's",
        "batch": len(pairs),
        "rounds": args.rounds,
        "model": "OPT-125M's shape, random weights, LoRA of rank 8",
        "precision": "float32",
        "seconds": {side: [round(s, 2) for s in found[side].seconds] for side in sides},
        "environment": measure.environment(),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, help="folder with HH-RLHF's *.jsonl.gz; default: rows like them")
    parser.add_argument("--tokenizer", type=Path, help="folder of OPT's tokenizer, for --rows")
    parser.add_argument("--batch", type=int, default=16, help="pairs per step, even")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=("ours", "theirs"), help="two steps of this side, for its memory")
    parser.add_argument("--micro", type=int, default=1, help="with --side")
    args = parser.parse_args()
    torch.set_num_threads(cli.threads())
    pairs = rows.real(args.rows, args.tokenizer, args.batch) if args.rows else rows.drawn(args.batch)
    if args.side:
        print(json.dumps(side_alone(args.side, args.micro, pairs)))
    else:
        measure.write(run(args, pairs))


if __name__ == "__main__":
    main()
