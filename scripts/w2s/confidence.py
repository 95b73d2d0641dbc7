"""The auxiliary confidence loss of Burns et al. 2023 (weak-to-strong generalisation, section 4.3.2), on tokens.

    loss of a token = (1 - a) * -log p(label) + a * -log p(own),

"own" being the token that the model itself finds likeliest where the label stands, after the label's own prefix. It is
a constant: no gradient flows through its choice. So the student is free to disagree with labels that it is sure are
wrong.

*Tokens.* The original has two classes and one prediction per example; here each token of the answer, its end token
included, is a classification among all words.

*Threshold.* The original hardens a probability at a threshold such that predictions are as often positive as labels
are. Among many words there is no such number: the likeliest one is taken, which is the threshold one half for two
classes that occur equally often.

*Ramp.* a grows linearly from 0 at the first step to its full weight at the end of the warm-up and stays there. The
published code jumps to the full weight instead (its issue 33).

The logits of a pass's answers are kept until its gradient is there; smaller micro batches need less memory.

Heavy at import.
"""

from __future__ import annotations

from typing import Any

import torch

from w2s.heads import head_only_at, log_probs
from w2s.packing import model_inputs

METRIC = "confidence_weight"


def ramp(step: int, weight: float, warmup: float) -> float:
    """The weight a at a step: ``weight`` times the share that is done of the warm-up.

    Args:
        step: number of steps before it.
        weight: after the warm-up.
        warmup: steps of the warm-up; 0 for none.
    """
    return weight if step >= warmup else weight * step / warmup


def token_losses(logits: torch.Tensor, labels: torch.Tensor, weight: float) -> torch.Tensor:
    """Float32 loss of each token, (tokens,), given ``logits`` (tokens, words) and ``labels`` (tokens,)."""
    own = logits.detach().argmax(-1)
    return -(1 - weight) * log_probs(logits, labels) - weight * log_probs(logits, own)


class ConfidenceLoss:
    """Takes the place of the ``compute_loss`` of a :class:`w2s.trainers.SFT`; the mean is over the same tokens.

    The history gets a column ``confidence_weight``. The ramp follows the trainer's step and so continues on resume.

    Args:
        trainer: whose loss it is.
        weight: a after the warm-up.
        warmup: the warm-up's share of all steps.
    """

    def __init__(self, trainer: Any, weight: float, warmup: float) -> None:
        self.trainer = trainer
        self.weight = weight
        self.warmup = warmup

    def __call__(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """This pass's part of the mean over the tokens of the global batch; gradients of processes are averaged."""
        trainer = self.trainer
        weight = ramp(trainer.state.global_step, self.weight, self.warmup * trainer.state.max_steps)
        trainer._metrics["train"][METRIC].append(weight)
        total = token_losses(self._logits(model, inputs), inputs["targets"], weight).sum()
        return total / num_items_in_batch * trainer.accelerator.num_processes

    def _logits(self, model: Any, inputs: Any) -> torch.Tensor:
        """Where a token carries loss, (tokens, words)."""
        tensors = (inputs["input_ids"], inputs["segments"], inputs["positions"])
        given = model_inputs(*tensors, self.trainer.layout.attention, torch.float32)
        head = self.trainer.accelerator.unwrap_model(model).get_output_embeddings()
        with head_only_at(head, inputs["at"]):
            return model(**given, use_cache=False).logits[0]
