"""Training steps of SFT, all weights, against TRL's SFTTrainer, padded and padding-free.

A step is 8 sequences unless told otherwise, prompt and response, the loss on the response: forward and backward passes over
micro-batches and one update. Theirs is ``SFTTrainer.training_step`` with TRL's collator and loss, at the best of the
micro-batches 1, 2, 4 and 8 of either kind; ours is ``w2s.trainers.SFT`` at the best of the same. Padding-free batches count only
where they leave the loss as it is: without flash attention their sequences see each other.

    python benchmarks/sft.py [--rows FOLDER --tokenizer FOLDER]
"""

from __future__ import annotations

import argparse
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

TARGET = 1.0
MICRO = (1, 2, 4, 8)
# What a side calls its sequences, and how it makes batches of them.
SIDES = ("ours", "padded", "padding-free")
# Largest difference of the first losses between sides that train the same model.
TOLERANCE = 1e-4


def trainer(side: str, folder: str) -> Any:
    """The trainer of a side, ready for its first step: OPT-125M's shape, no dropout."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
    from w2s import trainers

    config = SFTConfig(
        output_dir=folder,
        max_length=None,
        learning_rate=1e-5,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    torch.manual_seed(0)
    model = Shape().model()
    given: dict[str, Any] = {
        "train_dataset": Dataset.from_list([{"input_ids": [3], "labels": [3]}]),
        "processing_class": measure.tokenizer(),
    }
    if side == "ours":
        made: Any = trainers.SFT(model, config, rows.PAD, **given)
    else:
        collator = DataCollatorForLanguageModeling(rows.PAD, padding_free=side == "padding-free")
        made = SFTTrainer(model, config, data_collator=collator, **given)
    made.create_optimizer_and_scheduler(num_training_steps=100)
    made.model, made.optimizer = made.accelerator.prepare(made.model, made.optimizer)
    return made


def example(side: str, row: Row) -> dict[str, list[int]]:
    """A row as the side's collator takes it."""
    prompt, answer = row.prompt, row.answers[0]
    if side == "ours":
        return {"prompt_ids": prompt, "response_ids": answer}
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def step(side: str, made: Any, sequences: list[Row], micro: int) -> float:
    """One update on ``sequences``; returns the mean loss over their tokens."""
    total = 0.0
    tokens = torch.tensor(sum(row.scored for row in sequences))
    made.current_gradient_accumulation_steps = len(sequences) // micro
    for start in range(0, len(sequences), micro):
        batch = made.data_collator([example(side, row) for row in sequences[start : start + micro]])
        total += float(made.training_step(made.model, batch, num_items_in_batch=tokens))
    made.optimizer.step()
    made.optimizer.zero_grad()
    return total


def run(args: argparse.Namespace, sequences: list[Row]) -> dict[str, Any]:
    """Each side at its best micro-batch; then the best of theirs beside ours, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        sides = {side: trainer(side, folder) for side in SIDES}
        tried: dict[tuple[str, int], float] = {}
        # From equal weights; what mixes the sequences of a batch trains another model, however fast.
        losses = {side: step(side, made, sequences[:2], 2) for side, made in sides.items()}
        differences = {side: abs(loss - losses["ours"]) for side, loss in losses.items()}
        for side, made in sides.items():
            for micro in (size for size in MICRO if len(sequences) % size == 0):
                started = measure.clock()
                step(side, made, sequences, micro)
                tried[side, micro] = measure.clock() - started
        best = {side: min((key for key in tried if key[0] == side), key=tried.__getitem__) for side in SIDES}
        same = [side for side in SIDES[1:] if differences[side] <= TOLERANCE]
        if not same:
            raise SystemExit(f"the first losses differ: {differences}")
        stock = min((best[side] for side in same), key=tried.__getitem__)
        chosen = {"ours": best["ours"], "theirs": stock}
        found = measure.interleaved(
            args.rounds,
            {
                "peak": lambda: measure.peak(torch.float32),
                **{
                    name: lambda key=key: step(key[0], sides[key[0]], sequences, key[1])
                    for name, key in chosen.items()
                },
            },
        )
    times = measure.ratio(found["ours"], found["theirs"])
    flops = {"needed": 3 * measure.needed(Shape(), sequences)}
    return {
        "name": "sft-float32" + ("-real" if args.rows else ""),
        "ours": round(len(sequences) / median(found["ours"].seconds), 3),
        "theirs": round(len(sequences) / median(found["theirs"].seconds), 3),
        "unit": measure.per_second("sequences"),
        "ratio": round(times, 2),
        "target": TARGET,
        "met": times >= TARGET,
        "share_of_peak": measure.shares_of_peak(flops, found["ours"], found["peak"])["needed"],
        "flops": {name: float(f"{value:.4g}") for name, value in flops.items()},
        "peak_flops_per_s": float(f"{median(found['peak'].made):.4g}"),
        "micro_batch": {name: key[1] for name, key in chosen.items()},
        "their_batches": stock[0],
        "seconds_tried": {f"{side} {micro}": round(seconds, 2) for (side, micro), seconds in tried.items()},
        "first_loss_differences": {side: float(f"{differences[side]:.2g}") for side in SIDES[1:]},
        "rows": "HH-RLHF" if args.rows else "drawn like HH-RLHF's",
        "batch": len(sequences),
        "rounds": args.rounds,
        "model": "OPT-125M's shape, random weights, all of them trained",
        "precision": "float32",
        "seconds": {name: [round(s, 2) for s in found[name].seconds] for name in chosen},
        "environment": measure.environment(),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, help="folder with HH-RLHF's *.jsonl.gz; default: rows like them")
    parser.add_argument("--tokenizer", type=Path, help="folder of OPT's tokenizer, for --rows")
    parser.add_argument("--batch", type=int, default=8, help="sequences per step")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(cli.threads())
    pairs = rows.real(args.rows, args.tokenizer, args.batch) if args.rows else rows.drawn(args.batch)
    measure.write(run(args, [row.apart()[0] for row in pairs]))


if __name__ == "__main__":
    main()
