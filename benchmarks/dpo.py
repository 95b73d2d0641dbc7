"""Training steps of DPO with LoRA against TRL's DPOTrainer, both with the reference's log-probabilities given.

A step is 16 pairs unless told otherwise: forward and backward passes over micro-batches and one update. Theirs is
``DPOTrainer.training_step`` with TRL's collator and loss, ours is ``w2s.trainers.DPO``, each at the best of several
micro-batches (on a CPU 1, 2 and 4). Weights are float32; bfloat16 is mixed precision, as in the workflow's trainings. Peak
memory is that of a process of its own for each side (``--side``), two steps each. On a CPU both sides are measured
in turn, on a GPU one after the other, so that each has the memory for itself.

    python benchmarks/dpo.py [--rows FOLDER --tokenizer FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from statistics import median
from typing import Any

import measure
import rows
import torch
from measure import Measured, Shape
from w2s.packing import Row

TARGET = 2.5
SIDES = ("ours", "theirs")
MICRO = {"cpu": (1, 2, 4), "cuda": (1, 2, 4, 8, 16)}
BATCH = {"cpu": 16, "cuda": 32}
# Largest difference between the two sides' losses after one step.
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.05}


def trainer(side: str, folder: str, shape: Shape, device: str, precision: str) -> Any:
    """The trainer of a side, ready for its first step: LoRA of rank 8 on a model of ``shape``, no dropout."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig
    from w2s import trainers

    settings = {
        "output_dir": folder,
        "precompute_ref_log_probs": True,
        "max_length": None,
        "learning_rate": 1e-4,
        "bf16": precision == "bfloat16",
        "gradient_checkpointing": False,
        "use_cpu": device == "cpu",
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
    model = shape.model(device=device)
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
    made.optimizer.zero_grad()  # of a step that a want of memory ended
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


def side_alone(args: argparse.Namespace, pairs: list[Row]) -> dict[str, float]:
    """Loss of two steps, and the most memory that this process has held, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(args.side, folder, measure.SHAPES[args.shape], args.device, args.precision)
        before = measure.most_memory(args.device)
        found = [step(made, pairs, args.micro) for _ in range(2)]
    peak = measure.most_memory(args.device)
    return {"first_loss": found[0], "second_loss": found[1], "before": before, "peak": peak}


def in_own_process(side: str, micro: int) -> dict[str, float]:
    """:func:`side_alone` in a new process with this one's arguments."""
    words = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--micro", str(micro)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(
            f"the process that measures the memory of {side} ended with exit code {done.returncode}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def timed(
    args: argparse.Namespace, pairs: list[Row], sides: Sequence[str]
) -> tuple[dict[str, int], dict[str, Measured]]:
    """Best micro-batch of ``sides``; their steps and the device's peak, measured in turn."""
    best, calls = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            made = trainer(side, folder, measure.SHAPES[args.shape], args.device, args.precision)
            step(made, pairs[:2], 1)  # warms up
            sizes = [size for size in MICRO[args.device] if len(pairs) % (2 * size) == 0]
            best[side] = measure.fastest(sizes, lambda micro, made=made: step(made, pairs, micro))
            calls[side] = lambda made=made, micro=best[side]: step(made, pairs, micro)
        precision = getattr(torch, args.precision)
        peak = {"peak": lambda: measure.peak(precision, args.device)}
        return best, measure.interleaved(args.rounds, {**peak, **calls})


def run(args: argparse.Namespace, pairs: list[Row]) -> dict[str, Any]:
    """Measure both sides, each at its best micro-batch."""
    best: dict[str, int] = {}
    found: dict[str, Measured] = {}
    for sides in [SIDES] if args.device == "cpu" else [(side,) for side in SIDES]:
        sizes, measured = timed(args, pairs, sides)
        best |= sizes
        found = measured | found  # of two peaks the one beside ours
        measure.free()
    memory = {side: in_own_process(side, micro) for side, micro in best.items()}
    difference = abs(memory["ours"]["second_loss"] - memory["theirs"]["second_loss"])
    if difference > TOLERANCES[args.precision]:
        raise SystemExit(f"the losses after one step differ by {difference}")
    times = measure.ratio(found["ours"], found["theirs"])
    # Backwards the same products again, with no gradients of frozen weights; attention's, twice its forward, counts once.
    flops = {"needed": 2 * measure.needed(measure.SHAPES[args.shape], pairs)}
    no_more = memory["ours"]["peak"] <= memory["theirs"]["peak"]
    return {
        "name": measure.name(args, "dpo", args.precision),
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
        "model": f"{measure.SHAPES[args.shape].title}'s shape, random weights, LoRA of rank 8",
        "precision": args.precision,
        "seconds": {side: [round(s, 4) for s in found[side].seconds] for side in SIDES},
        "environment": measure.environment(args.device),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measure.add_common(parser)
    parser.add_argument("--precision", choices=TOLERANCES, default="float32")
    parser.add_argument("--batch", type=int, help="pairs per step, even; default: 16, on a GPU 32")
    parser.add_argument("--side", choices=SIDES, help="two steps of this side, for its memory")
    parser.add_argument("--micro", type=int, default=1, help="with --side")
    args = parser.parse_args()
    measure.prepare(args)
    number = args.batch or BATCH[args.device]
    if args.rows:
        pairs = rows.real(args.rows, args.tokenizer, number)
    else:
        pairs = rows.drawn(number, vocabulary=measure.SHAPES[args.shape].vocabulary)
    if args.side:
        print(json.dumps(side_alone(args, pairs)))
    else:
        measure.write(run(args, pairs), args.results)


if __name__ == "__main__":
    main()
