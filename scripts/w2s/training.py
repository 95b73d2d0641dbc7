"""What all trainings share: settings, batches, the run itself, and the artifact it leaves.

Light at import: torch and TRL are loaded in :func:`fit`, after the arguments and the data were found to be right.

*Batches.* ``--batch-size`` is the global batch. One step's gradient is the mean over the global batch however it is
divided: over processes (``accelerate launch``) and over micro batches, whose number is derived and refused where it
does not divide. Each epoch is a permutation of all rows, drawn from the seed; epochs follow each other without a gap,
and the rows that fill no whole batch at the very end are not seen (their number is recorded). So the steps are the same
for every division.

*Precision.* Weights and optimiser state are always float32; ``bfloat16`` and ``float16`` are mixed precision. Weights
are saved in float32: a LoRA update of a low learning rate would vanish in the rounding of a half-precision base.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import checkpoints, cli
from w2s.artifact import Draft, Parents
from w2s.errors import ConfigError, DataError, EnvironmentProblem
from w2s.processes import draft_in_first, world

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

PRECISIONS = ("float32", "bfloat16", "float16")
SCHEDULES = ("constant", "linear", "cosine")
# About this many rows in history.csv, whatever the number of steps.
HISTORY_ROWS = 100
Columns = dict[str, list[Any]]
logger = logging.getLogger(__name__)


def add_optimisation(parser: cli.StageParser, *, schedule: str = "constant") -> None:
    """Add the settings that every training has."""
    parser.spec("--learning-rate", type=float, help="peak learning rate of AdamW")
    parser.spec(
        "--batch-size",
        type=cli.positive_int,
        help="global batch: rows (or pairs) per step, over all processes",
    )
    parser.spec(
        "--schedule", choices=SCHEDULES, default=schedule, help="of the learning rate after the warm-up"
    )
    parser.spec("--warmup-steps", type=int, default=0, help="steps of linear warm-up from 0")
    parser.spec("--weight-decay", type=float, default=0.0, help="decoupled weight decay of AdamW")
    parser.spec(
        "--precision", choices=PRECISIONS, default="float32", help="of the arithmetic; weights stay float32"
    )
    parser.spec("--seed", type=int, help="seed of row order, dropout and newly made weights")
    parser.option(
        "--micro-batch-size", type=int, default=0, help="rows per process and pass; 0: the whole share"
    )
    parser.option(
        "--save-steps", type=int, default=500, help="steps between checkpoints, rounded up; 0: none"
    )
    parser.option("--gradient-checkpointing", action="store_true", help="trade computing time for memory")
    parser.option("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train")


def add_lora(parser: cli.StageParser) -> None:
    """Add the settings of LoRA. The adapter is merged: what is saved is a full model."""
    parser.spec("--lora-rank", type=int, default=0, help="rank of the adapters; 0 trains all weights")
    parser.spec(
        "--lora-alpha", type=float, default=32.0, help="scale: alpha / rank times the adapter's output"
    )
    parser.spec("--lora-dropout", type=float, default=0.1, help="dropout on the adapters' input")


def check_environment(args: argparse.Namespace) -> None:
    """Refuse what the machine cannot do before anything heavy is loaded.

    Raises:
        EnvironmentProblem: DeepSpeed was asked for and is not installed.
        ConfigError: settings that cannot go together.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true" and importlib.util.find_spec("deepspeed") is None:
        raise EnvironmentProblem(
            "this launch asks for DeepSpeed, which is not installed",
            where="accelerate launch --config_file",
            instead="pip install deepspeed, or envs/accelerate/fsdp.yaml, which needs nothing more",
        )
    if args.learning_rate <= 0:
        raise ConfigError("the learning rate must be above 0", where="--learning-rate")
    for name in ("warmup_steps", "lora_rank", "micro_batch_size", "save_steps"):
        if getattr(args, name, 0) < 0:
            raise ConfigError("must not be negative", where="--" + name.replace("_", "-"))


def accumulation(batch_size: int, micro_batch_size: int, processes: int) -> tuple[int, int]:
    """Divide the global batch. Returns (rows per process and pass, passes per step).

    Raises:
        ConfigError: it does not divide; the message names sizes that do.
    """
    if batch_size % processes:
        raise ConfigError(
            f"a global batch of {batch_size} cannot be divided among {processes} processes",
            where="--batch-size",
            instead=f"start {_divisors(batch_size)} processes",
        )
    share = batch_size // processes
    micro = micro_batch_size or share
    if share % micro:
        raise ConfigError(
            f"a share of {share} rows per process cannot be divided into micro batches of {micro}",
            where="--micro-batch-size",
            instead=f"one of {_divisors(share)} (global batch {batch_size} over {processes} processes)",
        )
    return micro, share // micro


def _divisors(number: int) -> str:
    return ", ".join(str(value) for value in range(1, number + 1) if number % value == 0)


def number_of_steps(rows: int, epochs: float, batch_size: int) -> int:
    """Whole batches in ``epochs`` passes over ``rows`` rows.

    Raises:
        DataError: not even one.
    """
    # The epsilon keeps e.g. 0.3 epochs of 1000 rows from losing a step to binary fractions.
    steps = int(epochs * rows / batch_size + 1e-9)
    if steps < 1:
        raise DataError(
            f"{rows} rows over {epochs} epochs do not fill one batch of {batch_size}",
            where="--batch-size",
            instead=f"a batch of at most {max(1, int(rows * epochs))}, or more rows",
        )
    return steps


def row_order(rows: int, steps: int, batch_size: int, seed: int) -> np.ndarray:
    """Row numbers in the order of training, ``(steps * batch_size,)``: seeded permutations one after another."""
    import numpy as np

    needed = steps * batch_size
    epochs = -(-needed // rows)
    order = [np.random.default_rng([seed, epoch]).permutation(rows) for epoch in range(epochs)]
    return np.concatenate(order)[:needed]


def similar_length_order(order: np.ndarray, lengths: np.ndarray, batch_size: int, seed: int) -> np.ndarray:
    """``order`` with rows of similar length brought into the same batch, so that little is padded.

    Only within windows of 32 batches, and the batches of a window are shuffled: over time every row still meets
    batches of every kind.
    """
    import numpy as np

    generator = np.random.default_rng([seed, 2**31])
    window, found = 32 * batch_size, []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches = part.reshape(-1, batch_size)
        found.append(batches[generator.permutation(len(batches))].reshape(-1))
    return np.concatenate(found)


def lengths(columns: Columns) -> np.ndarray:
    """Number of tokens of each row's ``input_ids``."""
    import numpy as np

    return np.array([len(ids) for ids in columns["input_ids"]])


def history_interval(steps: int) -> int:
    """Steps between two rows of history.csv. A function of the number of steps only, so that it is no setting."""
    return max(1, -(-steps // HISTORY_ROWS))


def save_interval(save_steps: int, steps: int) -> int:
    """Steps between two checkpoints, 0 for none: ``save_steps`` rounded up to whole history intervals.

    A row of the history is a mean over its interval, and at its end there is nothing left to keep for the next.
    """
    interval = history_interval(steps)
    rounded = -(-save_steps // interval) * interval
    return rounded if 0 < rounded < steps else 0


@dataclass
class Job:
    """A trainer and what is needed to save its model.

    Attributes:
        trainer: a trainer of :mod:`w2s.trainers`.
        write_tokenizer: writes the tokenizer's files into the folder that it is given.
        rebuild: makes the model as it was before training, adapters included.
    """

    trainer: Any
    write_tokenizer: Callable[[Path], object]
    rebuild: Callable[[], Any]


def fit(
    args: argparse.Namespace,
    parents: Parents,
    columns: Columns,
    make: Callable[[Columns, dict[str, Any]], Job],
    *,
    script: str | Path,
    steps: int | None = None,
    similar_lengths: bool = False,
    finish: Callable[[Any, Draft | None], None] | None = None,
    facts: dict[str, Any] | None = None,
) -> None:
    """Train and leave the artifact at ``args.output``, continuing an interrupted attempt if there is one.

    Args:
        args: parsed arguments, with ``spec``, ``output`` and those of :func:`add_optimisation`.
        parents: manifests that the artifact is made from.
        columns: token ids and what else a row has, one list entry per row.
        make: ``make(columns in training order, settings)`` builds the trainer; settings are keyword arguments of
            TrainingArguments and its heirs.
        script: the stage's script.
        steps: optimiser steps; default: ``args.epochs`` passes over the rows.
        similar_lengths: batch by :func:`similar_length_order`, by the length of ``input_ids``.
        finish: called in all processes with the trainer and (first process only, else None) the draft.
        facts: more to record.
    """
    rank, processes = world()
    rows = len(next(iter(columns.values())))
    steps = steps or number_of_steps(rows, args.epochs, args.batch_size)
    micro, passes = accumulation(args.batch_size, args.micro_batch_size, processes)
    order = row_order(rows, steps, args.batch_size, args.seed)
    if similar_lengths:
        order = similar_length_order(order, lengths(columns), args.batch_size, args.seed)
    ordered = {name: [values[row] for row in order] for name, values in columns.items()}

    from w2s import trainers

    state = trainers.shared_state(args, parents, Path(script))
    with draft_in_first(args.output, args.spec, parents, script) as draft:
        job = make(ordered, trainers.arguments(args, state, steps, micro, passes))
        trainer, sizes = job.trainer, trainers.sizes(job.trainer)
        trainers.check_sharding(trainer)
        started = time.monotonic()
        resumed = trainers.train(trainer, state)
        seconds = time.monotonic() - started
        trainers.save(trainer, None if draft is None else draft.folder, job.write_tokenizer, job.rebuild)
        if finish is not None:
            finish(trainer, draft)
        if draft is not None:
            trainers.write_history(trainer, draft.path("history.csv"))
            seen = min(rows, len(order))
            draft.record(rows=rows, rows_seen=seen, rows_unseen=rows - seen, steps=steps, **sizes)
            draft.record(**trainers.outcome(trainer), **(facts or {}))
            draft.measure(
                training_s=round(seconds, 3),
                steps_per_s=round((steps - resumed) / seconds, 3),
                processes=processes,
                distribution=trainer.accelerator.distributed_type.value,
                micro_batch_size=micro,
                accumulation=passes,
                resumed_from_step=resumed,
                device=str(trainer.args.device),
            )
    if rank == 0:
        checkpoints.discard(args.output)
    trainer.accelerator.wait_for_everyone()


def chosen_and_rejected(labelled: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Texts of the preferred and of the other response, in the order of the rows."""
    first, second = labelled["response_0"].tolist(), labelled["response_1"].tolist()
    labels = labelled["label"].tolist()
    chosen = [second[row] if label else first[row] for row, label in enumerate(labels)]
    rejected = [first[row] if label else second[row] for row, label in enumerate(labels)]
    return chosen, rejected
