"""The trainers of TRL and transformers as this workflow uses them: every default stated, resumable, one saver.

Heavy at import (torch, transformers, trl); :mod:`w2s.training` loads it when a run begins.
"""

from __future__ import annotations

from w2s import compat  # noqa: F401  (before transformers and trl)

# isort: split
import argparse
import functools
import json
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as library_logging
from trl import DPOConfig, DPOTrainer, RewardTrainer, SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from w2s import checkpoints, cli, interruption, losses
from w2s.artifact import Parents
from w2s.errors import ConfigError, DataError, EnvironmentProblem, Interrupted
from w2s.heads import token_log_probs
from w2s.packing import Layout, collate_pairs, collate_sequences, model_inputs
from w2s.tables import write_csv
from w2s.training import history_interval, save_interval

# What a history row may hold besides step and loss. TRL's running token count restarts on resume and is left out.
NOT_IN_HISTORY = ("epoch", "num_tokens")
DPO_METRICS = (
    "rewards/margins",
    "rewards/accuracies",
    "rewards/chosen",
    "rewards/rejected",
    "logps/chosen",
    "logps/rejected",
)
# File of a checkpoint: what was summed up since the last row of the history.
INTERVAL = "interval.json"
SECONDS_BETWEEN_LINES = 10.0
logger = logging.getLogger(__name__)
library_logging.disable_progress_bar()
# Of several processes on CPUs each continues its optimiser on "cpu:<rank>", a place that torch knows only when told.
torch.serialization.register_package(
    100, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None
)


class Resumable:
    """Mixin of trainers: a checkpoint is sealed once all of it is written, and no model card is made.

    The library's checkpoints lack what was summed up since the last row of the history, which an interruption at any
    step would lose: it is added.
    """

    args: Any
    state: Any
    accelerator: Any
    _tr_loss: torch.Tensor
    _globalstep_last_logged: int

    def create_model_card(self, *args: object, **settings: object) -> None:
        """Checkpoints are read by this workflow only."""

    def _save_checkpoint(self, model: object, trial: object) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        folder = Path(self.args.output_dir) / f"{checkpoints.PREFIX}{self.state.global_step}"
        losses = self.accelerator.gather(self._tr_loss.reshape(1)).tolist()
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            content = {"since": self._globalstep_last_logged, "losses": losses, "metrics": self._sums()}
            (folder / INTERVAL).write_text(json.dumps(content), encoding="utf-8")
            checkpoints.seal(folder)

    def restore_interval(self, checkpoint: Path) -> None:
        """Continue the sums of ``checkpoint``: each process its own, or the mean if there were more or fewer."""
        content = json.loads((checkpoint / INTERVAL).read_text(encoding="utf-8"))
        losses, process = content["losses"], self.accelerator.process_index
        same = len(losses) == self.accelerator.num_processes
        self._tr_loss.fill_(losses[process] if same else sum(losses) / len(losses))
        self._globalstep_last_logged = content["since"]
        sums = self._sums()
        for name, values in content["metrics"].items():
            sums[name] = values

    def _sums(self) -> dict[str, list[float]]:
        """TRL's metrics by step; the same in all processes. transformers' own trainer has none."""
        return getattr(self, "_metrics", {"train": {}})["train"]


class Packed(Resumable):
    """Mixin of trainers on rows that are packed (:mod:`w2s.packing`) and whose responses' tokens alone see the head."""

    layout: Layout
    columns: tuple[str, ...] = ()
    _signature_columns: Any

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        self._signature_columns = [*(self._signature_columns or []), *self.columns]

    def token_log_probs(self, model: Any, inputs: Any) -> torch.Tensor:
        """Of each scored token of a batch, (scored,)."""
        tensors = (inputs["input_ids"], inputs["segments"], inputs["positions"])
        given = model_inputs(*tensors, self.layout.attention, torch.float32)
        inner = self.accelerator.unwrap_model(model)
        return token_log_probs(model, given, inputs["at"], inputs["targets"], inner)


class SFT(Packed, SFTTrainer):
    """TRL's supervised fine-tuning on rows that are tokenised already (``prompt_ids``, ``response_ids``).

    The loss is that of the responses' tokens; the head is not computed for others. TRL's entropy and token accuracy,
    two more passes over all logits per step, are left out.
    """

    columns = ("prompt_ids", "response_ids")

    def __init__(self, model: PreTrainedModel, config: SFTConfig, pad_id: int, **settings: Any) -> None:
        self.layout = Layout.of(model)
        collator = functools.partial(collate_sequences, layout=self.layout, pad_id=pad_id)
        super().__init__(model, config, data_collator=collator, **settings)
        self.model_accepts_loss_kwargs = (
            True  # the loss is divided by the global batch's tokens, not by the passes
        )

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """Tokens of the global batch that carry loss."""
        count = torch.tensor(sum(len(batch["targets"]) for batch in batch_samples), device=device)
        return self.accelerator.gather(count).sum()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This pass's part of the mean over the tokens of the global batch; gradients of processes are averaged."""
        total = self.token_log_probs(model, inputs).sum()
        return -total / num_items_in_batch * self.accelerator.num_processes


class DPO(Packed, DPOTrainer):
    """TRL's DPO on pairs that are tokenised and have their reference log-probabilities already.

    The stock trainer would tokenise, truncate and compute the reference again; given columns it refuses. Columns:
    ``prompt_ids``, ``chosen_ids``, ``rejected_ids``, ``ref_chosen_logps``, ``ref_rejected_logps``, and if wanted
    ``probability`` (soft label) and ``weight``, see :mod:`w2s.losses`.

    The numbers are TRL's, computed from pairs that share their prompt in one row (:mod:`w2s.packing`). What only TRL's
    metrics need (entropy and argmax over all logits) is not computed.
    """

    columns = ("probability", "weight")

    def __init__(self, model: PreTrainedModel, config: DPOConfig, pad_id: int, **settings: Any) -> None:
        self.layout = Layout.of(model)
        collator = functools.partial(collate_pairs, layout=self.layout, pad_id=pad_id)
        super().__init__(model, None, config, data_collator=collator, **settings)

    def _prepare_dataset(self, dataset: Dataset, *args: object) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        return dataset

    def compute_loss(self, model: Any, inputs: Any, *rest: Any, **settings: Any) -> Any:
        """The mean over the pairs of a batch."""
        sums = self._response_log_probs(model, inputs)
        counts = inputs["counts"][inputs["order"]]
        references = torch.stack([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]], dim=1)
        chosen, rejected = (
            losses.Side(ratio, number) for ratio, number in zip((sums - references).T, counts.T, strict=True)
        )
        found = losses.pair_losses(
            self.loss_types[0],
            chosen,
            rejected,
            self.beta,
            self.label_smoothing,
            inputs.get("probability"),
            inputs.get("weight"),
        )
        self._keep(sums.detach(), self.beta * (sums.detach() - references))
        return found.mean()

    def _response_log_probs(self, model: Any, inputs: Any) -> torch.Tensor:
        """Sums over the response's tokens, (pairs, 2): of the chosen and of the rejected response."""
        found = self.token_log_probs(model, inputs)
        # Added part by part: sums by index on a GPU differ from run to run.
        sums = torch.stack([part.sum() for part in found.split(inputs["counts"].tolist())])
        return sums[inputs["order"]]

    def _keep(self, sums: torch.Tensor, rewards: torch.Tensor) -> None:
        """Remember what the history shows, under TRL's names; means over all processes. Both are (pairs, 2)."""
        margins = rewards[:, 0] - rewards[:, 1]
        values = [margins.mean(), (margins > 0).float().mean(), *rewards.mean(0), *sums.mean(0)]
        means = self.accelerator.reduce(torch.stack(values), reduction="mean").tolist()
        for name, value in zip(DPO_METRICS, means, strict=True):
            self._metrics["train"][name].append(value)


class Reward(Resumable, RewardTrainer):
    """TRL's reward model training on pairs that are tokenised already."""


class LanguageModel(Resumable, Trainer):
    """Training of a language model from scratch."""


class Continue(TrainerCallback):
    """Gives a continued training the sums of its checkpoint, once the trainer has set its own to zero."""

    def __init__(self, trainer: Any, checkpoint: Path) -> None:
        self.trainer = trainer
        self.checkpoint = checkpoint

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: object) -> None:
        """Called just before the first step."""
        self.trainer.restore_interval(self.checkpoint)


class Watch(TrainerCallback):
    """Progress lines at a human pace, an end to diverged or interrupted trainings, no checkpoint after the last step."""

    def __init__(self, first_loss: float | None) -> None:
        self.first_loss = first_loss
        self.last_line = time.monotonic()
        self.began_at: tuple[int, float] | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: object) -> None:
        """Remember when the first step of this attempt began."""
        if self.began_at is None:
            self.began_at = (state.global_step, time.monotonic())

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: object) -> None:
        """Save and stop if asked to. The artifact follows the last step at once: no checkpoint is needed there."""
        if state.global_step >= state.max_steps:
            control.should_save = False
        elif asked_to_stop(args.device):
            control.should_save = control.should_training_stop = True

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: object
    ) -> None:
        """Check the loss and say now and then how far the training is."""
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise DataError(
                f"the training diverged: loss {loss} at step {state.global_step}",
                instead="a lower --learning-rate, or --precision bfloat16 instead of float16",
            )
        if state.global_step == 1 and self.first_loss is not None:
            check_first_loss(loss, self.first_loss, args.bf16 or args.fp16)
        now = time.monotonic()
        if state.is_world_process_zero and self.began_at and now - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = now
            rate = (state.global_step - self.began_at[0]) / (now - self.began_at[1])
            left = (state.max_steps - state.global_step) / rate
            logger.info(
                "step %d of %d, loss %.4f, %.2f steps/s, %.0f s left",
                state.global_step,
                state.max_steps,
                loss,
                rate,
                left,
            )


def asked_to_stop(device: torch.device) -> bool:
    """Whether any process was asked to stop. All call it after each step, so that all stop after the same one."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return interruption.requested()
    flag = torch.tensor(float(interruption.requested()), device=device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag.item())


def check_first_loss(loss: float, expected: float, half_precision: bool) -> None:
    """Refuse a first DPO loss that is not the one of two equal models.

    Before the first update policy and reference are the same, so that all log ratios are 0. Another loss means that
    the reference scores are of other weights or other tokens, or that dropout is on.
    """
    if abs(loss - expected) <= (0.05 if half_precision else 1e-3):
        return
    raise DataError(
        f"the first loss is {loss:.6f}, not {expected:.6f}: policy and reference differ before the first update",
        where="--reference-scores",
        instead="scores of exactly the weights under --model, made by score_responses, and --dropout 0",
    )


def arguments(args: argparse.Namespace, state: Path, steps: int, micro: int, passes: int) -> dict[str, Any]:
    """Keyword arguments of ``TrainingArguments`` and its heirs: each default that matters is stated here.

    Args:
        args: parsed arguments of the stage.
        state: folder of the checkpoints.
        steps: optimiser steps.
        micro: rows per process and pass.
        passes: passes per step.
    """
    cpu = on_cpu(args)
    warmed = args.schedule == "constant" and args.warmup_steps > 0
    saving = save_interval(args.save_steps, steps)
    return {
        "output_dir": str(state),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": passes,
        "num_train_epochs": 1,  # the rows come in training order, all epochs one after another
        "train_sampling_strategy": "sequential",
        "dataloader_drop_last": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": not cpu,
        "remove_unused_columns": True,
        "learning_rate": args.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if warmed else args.schedule,
        "warmup_steps": args.warmup_steps,
        "optim": "adamw_torch_fused",  # the same AdamW in one kernel; on a CPU a tenth of a small step
        "weight_decay": args.weight_decay,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "max_grad_norm": 1.0,
        "average_tokens_across_devices": True,
        "bf16": args.precision == "bfloat16",
        "fp16": args.precision == "float16",
        "gradient_checkpointing": args.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "logging_strategy": "steps",
        "logging_steps": history_interval(steps),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "eval_strategy": "no",
        "save_strategy": "steps" if saving else "no",
        "save_steps": saving or steps,
        "save_total_limit": checkpoints.KEPT,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": args.seed,
        "data_seed": args.seed,
        "use_cpu": cpu,
        "ddp_find_unused_parameters": False,
        "push_to_hub": False,
    }


def on_cpu(args: argparse.Namespace) -> bool:
    """Whether to train on the CPU.

    Raises:
        EnvironmentProblem: a GPU was asked for and there is none.
        ConfigError: float16 on a CPU.
    """
    forced = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes")
    cpu = args.device == "cpu" or forced or not torch.cuda.is_available()
    if cpu and args.device == "cuda":
        raise EnvironmentProblem(
            "no GPU that torch can use", where="--device cuda", instead="--device cpu or auto"
        )
    if cpu and args.precision == "float16":
        raise ConfigError("float16 needs a GPU", where="--precision", instead="float32 or bfloat16")
    return cpu


def shared_state(args: argparse.Namespace, parents: Parents, script: Path) -> Path:
    """Start the processes' common state and make the folder of checkpoints (first process; the others wait)."""
    torch.set_num_threads(cli.threads())
    process = PartialState(cpu=on_cpu(args))
    key = checkpoints.state_key(script, args.spec, parents, _layout(process.num_processes))
    with process.main_process_first():
        if process.is_main_process:
            return checkpoints.prepare(args.output, key)
    return checkpoints.state_root(args.output) / key


def _layout(processes: int) -> str:
    """How the files of a checkpoint are divided: whole, or in as many parts as there are processes."""
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        if os.environ.get(name, "").lower() in ("true", "1"):
            return f"{name}-{processes}"
    return "whole"


def check_sharding(trainer: Trainer) -> None:
    """Refuse to run unsharded what was launched to be sharded; accelerate falls back to DDP without a word.

    Raises:
        EnvironmentProblem: FSDP or DeepSpeed was asked for, and the processes do not have GPUs.
    """
    for name, asked, got in (
        ("FSDP", "ACCELERATE_USE_FSDP", trainer.is_fsdp_enabled),
        ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED", trainer.is_deepspeed_enabled),
    ):
        if os.environ.get(asked, "").lower() in ("true", "1") and not got:
            raise EnvironmentProblem(
                f"this launch asks for {name}, which needs GPUs",
                where="accelerate launch --config_file",
                instead="envs/accelerate/ddp.yaml",
            )


def train(trainer: Trainer, state: Path) -> int:
    """Train, from the newest whole checkpoint in ``state`` if there is one. Returns the step it began at.

    From here to the end of the stage SIGTERM raises nothing: the training stops after the step that it is in and saves;
    after its last step the model is what is worth saving, and the stage goes on to its end.

    Raises:
        Interrupted: it stopped before its last step, and has saved.
    """
    found: list[Path | None] = [None]
    if trainer.is_world_process_zero():
        found = [checkpoints.newest_whole(state)]
    broadcast_object_list(found)
    checkpoint = found[0]
    if checkpoint is not None:
        logger.info("continuing from %s", checkpoint)
        trainer.add_callback(Continue(trainer, checkpoint))
    interruption.defer()
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    done, steps = trainer.state.global_step, trainer.state.max_steps
    if done < steps:
        raise Interrupted(
            f"asked to stop (SIGTERM): saved at step {done} of {steps}",
            where=state,
            instead="the same command again: it continues",
        )
    return 0 if checkpoint is None else checkpoints.step_of(checkpoint)


def dataset(columns: dict[str, list[Any]]) -> Dataset:
    """Rows as TRL wants them, in memory."""
    return Dataset.from_dict(columns)


def watch(trainer: Trainer, *, first_loss: float | None = None) -> Trainer:
    """Put our progress lines and checks in the place of the library's printing."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Watch(first_loss))
    return trainer


def language_model(
    model: PreTrainedModel, pad_id: int, columns: dict[str, list[Any]], settings: dict[str, Any]
) -> Trainer:
    """transformers' trainer on rows that are tokenised already (``input_ids``, ``labels``)."""
    config = TrainingArguments(**settings)
    collator = DataCollatorForLanguageModeling(pad_token_id=pad_id)
    return watch(LanguageModel(model, config, data_collator=collator, train_dataset=dataset(columns)))


def sizes(trainer: Trainer) -> dict[str, int]:
    """Numbers of weights, before they are spread over processes."""
    assert trainer.model is not None
    weights = list(trainer.model.parameters())
    return {
        "parameters": sum(weight.numel() for weight in weights),
        "trainable_parameters": sum(weight.numel() for weight in weights if weight.requires_grad),
    }


def save(
    trainer: Trainer,
    folder: Path | None,
    write_tokenizer: Callable[[Path], object],
    rebuild: Callable[[], Any],
) -> None:
    """Write the full model, adapters merged, in the hub's format. All processes call it, the first one writes.

    Args:
        trainer: after training.
        folder: where to write; None in all processes but the first.
        write_tokenizer: writes the tokenizer's files into the folder that it is given.
        rebuild: makes the model as it was before training; needed where the weights are spread over processes.
    """
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if folder is None:
        return
    if sharded:
        model = rebuild()
        model.load_state_dict(weights)
    else:
        model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):  # peft's, which is not loaded where there are no adapters
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    # Its sampling defaults would be taken silently by whoever generates; those are declared settings here.
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_tokenizer(folder)


def history(trainer: Trainer) -> list[dict[str, float]]:
    """One dict per logged step: step, loss, then by name what else is measured; means since the row before."""
    first = ("step", "loss")
    return [
        {name: row[name] for name in (*first, *sorted(set(row) - set(first) - set(NOT_IN_HISTORY)))}
        for row in trainer.state.log_history
        if "loss" in row
    ]


def write_history(trainer: Trainer, path: Path) -> None:
    """Write :func:`history` as CSV."""
    import pandas as pd

    write_csv(pd.DataFrame(history(trainer)), path)


def outcome(trainer: Trainer) -> dict[str, float]:
    """Losses to record in the manifest."""
    rows = history(trainer)
    return {"first_loss": rows[0]["loss"], "last_loss": rows[-1]["loss"]}


def rewards(trainer: Trainer, sequences: list[list[int]], pad_id: int, batch_size: int = 64) -> list[float]:
    """Rewards of token sequences under the trainer's model, in their order. All processes call it."""
    model, device = trainer.model_wrapped, trainer.args.device
    model.eval()
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    found = [0.0] * len(sequences)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        longest = len(sequences[rows[-1]])
        ids = torch.tensor([sequences[row] + [pad_id] * (longest - len(sequences[row])) for row in rows])
        mask = torch.tensor(
            [[1] * len(sequences[row]) + [0] * (longest - len(sequences[row])) for row in rows]
        )
        with torch.inference_mode():
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
        for row, reward in zip(rows, logits.squeeze(-1).float().tolist(), strict=True):
            found[row] = reward
    return found
