"""Log-probabilities of chosen tokens without the logits of all: the head's output is the largest tensor by far.

The head sees only the hidden states that predict a scored token, a few hundred at a time. A plain linear head is
computed here, chunk by chunk, and what is kept of a chunk is one number per token; for a gradient with respect to the
hidden states (LoRA: the head is frozen) one vector per token more, found while the chunk's logits are there, so that
they are neither kept nor computed again. Everything else that an architecture does behind its head (scaling, capping)
is left to it: then its logits at the chosen places are taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from w2s.errors import ArtifactError

# Logits at a time: on a CPU they should not fall far out of its cache, on a GPU they should fill it.
LOGITS_AT_ONCE = {"cpu": 2**24, "cuda": 2**27}
# What a configuration calls things that happen behind the head.
BEHIND_THE_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier")
# Architectures whose head's output is what the model returns.
PLAIN = ("opt", "llama", "mistral", "gemma", "gpt_neox", "qwen2", "qwen3", "gpt_neo")


def token_log_probs(
    model: Any, inputs: dict[str, Any], at: torch.Tensor, targets: torch.Tensor, inner: Any = None
) -> torch.Tensor:
    """Float32 log-probabilities of ``targets`` (tokens,), one forward pass of ``model``.

    Args:
        model: causal language model, perhaps wrapped (for several processes).
        inputs: of its forward pass.
        at: rows and columns of the hidden states that predict the targets, (2, tokens).
        inner: the model without its wrapper; default: ``model``.

    Raises:
        ArtifactError: the model has no language-model head, or one that is not used as such.
    """
    inner = model if inner is None else inner
    head = inner.get_output_embeddings()
    if head is None:
        raise ArtifactError(f"{type(inner).__name__} has no language-model head")
    plain = is_plain(head, inner.config)
    with head_only_at(head, at), _gives_log_probs(head, targets) if plain else contextlib.nullcontext():
        found = model(**inputs, use_cache=False).logits
    if found.shape[:2] != (1, len(targets)):
        shape = tuple(found.shape)
        raise ArtifactError(f"the head of {type(inner).__name__} gave logits of the unexpected shape {shape}")
    return found[0, :, 0] if plain else log_probs(found[0], targets)


def is_plain(head: torch.nn.Module, config: Any) -> bool:
    """Whether the model's logits are ``head``'s product and nothing more, so that it may be computed here."""
    return (
        type(head) is torch.nn.Linear
        and "forward" not in vars(head)  # somebody else has put something in its place already
        and config.model_type in PLAIN
        and all(getattr(config, name, None) is None for name in BEHIND_THE_HEAD)
    )


@contextlib.contextmanager
def head_only_at(head: torch.nn.Module, at: torch.Tensor) -> Iterator[None]:
    """Within, ``head`` sees the hidden states at rows and columns ``at`` only, as (1, chosen, width)."""

    def select(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (arguments[0][at[0], at[1]].unsqueeze(0), *arguments[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _gives_log_probs(head: torch.nn.Linear, targets: torch.Tensor) -> Iterator[None]:
    """Within, ``head`` gives the log-probabilities of ``targets``, (1, tokens, 1), in the place of logits.

    Done inside the model's own forward pass: wrappers that gather weights or gradients see what they always see.
    """

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        return linear_log_probs(hidden[0], head.weight, head.bias, targets)[None, :, None]

    head.forward = forward  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        del head.forward


def linear_log_probs(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities of ``targets`` (tokens,) under ``hidden @ weight.T + bias``, float32, by chunks of tokens."""
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        low = torch.get_autocast_dtype(kind)
        hidden, weight = hidden.to(low), weight.to(low)
        bias = None if bias is None else bias.to(low)
    with torch.autocast(kind, enabled=False):
        if torch.is_grad_enabled():
            return _LogProbs.apply(hidden, weight, bias, targets)
        return torch.cat([found for _, found, _, _ in _chunks(hidden, weight, bias, targets)])


def _chunks(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Of each chunk of tokens: its place, the targets' log-probabilities, exponentials of the logits and their sums.

    The exponentials, (tokens, words), are relative to the largest. All chunks share one room for them, which is
    overwritten by the next: fresh memory for each step of the softmax would cost as much as the arithmetic.
    """
    step = max(1, LOGITS_AT_ONCE.get(hidden.device.type, 2**24) // len(weight))
    room = hidden.new_empty((min(step, len(hidden)), len(weight)), dtype=torch.float32)
    for start in range(0, len(hidden), step):
        part = slice(start, min(start + step, len(hidden)))
        logits = room[: part.stop - start]
        if weight.dtype == torch.float32:
            torch.mm(hidden[part], weight.T, out=logits)
        else:
            logits.copy_(hidden[part] @ weight.T)
        if bias is not None:
            logits += bias
        logits -= logits.amax(-1, keepdim=True)
        picked = logits.gather(-1, targets[part, None])
        sums = logits.exp_().sum(-1, keepdim=True)
        yield part, (picked - sums.log()).squeeze(-1), logits, sums


class _LogProbs(torch.autograd.Function):
    """:func:`linear_log_probs` with gradients. The logits are never kept."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, targets: Any) -> torch.Tensor:
        """Of each token, d log p / d hidden is its word's vector less the mean vector under the prediction."""
        frozen = not any(ctx.needs_input_grad[1:3])
        found = hidden.new_empty(len(targets), dtype=torch.float32)
        slopes = torch.empty_like(hidden) if frozen else None
        for part, values, shares, sums in _chunks(hidden, weight, bias, targets):
            found[part] = values
            if slopes is not None:
                slopes[part] = weight[targets[part]] - shares.div_(sums).to(weight.dtype) @ weight
        ctx.save_for_backward(hidden, weight, bias, targets, slopes)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """With a head that learns, the logits are computed a second time."""
        (given,) = gradients
        hidden, weight, bias, targets, slopes = ctx.saved_tensors
        if slopes is not None:
            return slopes * given[:, None].to(slopes.dtype), None, None, None
        to_hidden, to_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        to_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        for part, _, shares, sums in _chunks(hidden, weight, bias, targets):
            steep = shares.mul_(-given[part, None] / sums)
            steep.scatter_add_(-1, targets[part, None], given[part, None])
            if to_bias is not None:
                to_bias += steep.sum(0)
            steep = steep.to(weight.dtype)
            to_hidden[part] = steep @ weight
            if weight.dtype == torch.float32:
                to_weight.addmm_(steep.T, hidden[part])
            else:  # the sum over chunks is not rounded
                to_weight += steep.T @ hidden[part]
        return (
            to_hidden,
            to_weight.to(weight.dtype),
            None if to_bias is None else to_bias.to(bias.dtype),
            None,
        )


def log_probs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Float32 log-probabilities of ``targets`` (tokens,) under ``logits`` (tokens, words)."""
    parts = []
    step = max(1, LOGITS_AT_ONCE.get(logits.device.type, 2**24) // logits.shape[-1])
    for rows, wanted in zip(logits.split(step), targets.split(step), strict=True):
        rows = rows.float()
        parts.append(rows.gather(-1, wanted[:, None]).squeeze(-1) - rows.logsumexp(-1))
    return torch.cat(parts)
