"""Sampling one response per prompt, so that the text depends on the prompt, the seed and the model only.

A batched sampler normally draws from one stream of random numbers, so that the text of a prompt depends on
which prompts share its batch. Here each prompt has its own stream, keyed by (seed, prompt id): at each step
Gumbel noise is added to the logits divided by the temperature and the largest is taken, which draws exactly
from their softmax (Gumbel-max). The noise is a counter-based hash computed on the model's device, hence the
same on every device and with every version of the libraries. Batch size and order of the prompts then
change a text only where rounding of the logits decides a near tie: about one token in a million in float32,
more often in half precision.

The same prompt gets the same noise under every model (common random numbers), which makes paired
differences between models less noisy.
"""

from __future__ import annotations

from w2s import compat  # noqa: F401  (before transformers)

# isort: split
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from w2s.errors import DataError

if TYPE_CHECKING:
    from w2s.encoding import Encoding

EOS, STOP, LENGTH = "eos", "stop", "length"
# Enough tokens to hold the end of a stop text and what came before it in the same token.
STOP_TAIL = 16
# Numbers of four bytes that are worked on at once.
CACHED = 1 << 18


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. ``temperature`` 0 takes the likeliest token; ``stop`` texts end a response."""

    temperature: float = 0.7
    top_p: float = 1.0
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ("\n\nHuman:",)
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [
            (self.temperature < 0, f"temperature {self.temperature} is negative", "0 (greedy) or more"),
            (not 0 < self.top_p <= 1, f"top-p {self.top_p} is not a share", "above 0 and at most 1"),
            (self.max_new_tokens < 1, f"{self.max_new_tokens} new tokens cannot be generated", "at least 1"),
            ("" in self.stop, "an empty stop text would end every response at once", "no stop text at all"),
        ]
        for condition, what, instead in wrong:
            if condition:
                raise DataError(what, instead=instead)


@dataclass(frozen=True)
class Generation:
    """One response: its text, its number of tokens (without the end token) and why it ended."""

    response: str
    tokens: int
    finished: str


def generate(
    model: PreTrainedModel,
    encoding: Encoding,
    prompts: Sequence[tuple[str, str]],
    sampling: Sampling,
    batch_size: int = 64,
) -> list[Generation]:
    """One response to each prompt.

    Args:
        model: a causal language model in evaluation mode.
        encoding: its tokenizer.
        prompts: (id, text) of each prompt; the id keys the prompt's random numbers.
        sampling: how to draw.
        batch_size: prompts per batch; prompts of like length share a batch.

    Returns:
        The responses, in the order of ``prompts``.

    Raises:
        DataError: a prompt leaves too few positions for the new tokens; the message names it.
    """
    ids = encoding.prompts_ids([text for _, text in prompts])
    _check_positions(prompts, ids, sampling.max_new_tokens, _positions(model, encoding))
    order = sorted(range(len(prompts)), key=lambda row: (len(ids[row]), prompts[row][0]))
    found: dict[int, Generation] = {}
    # The model's own generation defaults (top-k, repetition penalty, ...) are not part of the method.
    model.generation_config = GenerationConfig()
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        keys = [prompt_key(sampling.seed, prompts[row][0]) for row in rows]
        new = _generate_batch(model, encoding, [ids[row] for row in rows], keys, sampling)
        found.update(zip(rows, (finish(encoding, tokens, sampling) for tokens in new), strict=True))
    return [found[row] for row in range(len(prompts))]


def finish(encoding: Encoding, tokens: Sequence[int], sampling: Sampling) -> Generation:
    """The response in what a model produced: cut at the end token or at a stop text, what comes first."""
    kept = list(tokens[: sampling.max_new_tokens])
    reason = LENGTH
    if encoding.eos_id in kept:
        kept = kept[: kept.index(encoding.eos_id)]
        reason = EOS
    while kept and kept[-1] == encoding.pad_id:  # what follows a stop text in a batch
        kept.pop()
    text = encoding.decode(kept)
    cut = min((place for stop in sampling.stop if (place := text.find(stop)) >= 0), default=-1)
    if cut >= 0:
        text, reason = text[:cut], STOP
        kept = kept[: _tokens_covering(encoding, kept, text)]
    return Generation(text, len(kept), reason)


def prompt_key(seed: int, prompt_id: str) -> int:
    """The key of a prompt's random numbers, an unsigned 64-bit integer."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{prompt_id}".encode()).digest()[:8], "little")


def gumbel_noise(
    keys: Sequence[int], step: int, vocabulary: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Standard Gumbel noise for each key and token at one step, float32 of shape (keys, vocabulary).

    The 32-bit finaliser of MurmurHash3 maps (key and step, token) to h; u = (h mod 2^31 + 1/2) / 2^31 and the
    noise is -log(-log(1 - u)), whose long upper tail thus starts at the smallest u and is cut only beyond 22.
    """
    starts = [hashlib.blake2b(f"{key}\0{step}".encode(), digest_size=4).digest() for key in keys]
    start = torch.from_numpy(np.frombuffer(b"".join(starts), dtype="<i4").astype(np.int32)).to(device)
    tokens = torch.arange(vocabulary, dtype=torch.int32, device=device).mul_(_signed(0x9E3779B1))
    # Rows that fit the processor's cache together: three times as fast as all at once.
    rows = max(1, CACHED // vocabulary) if start.device.type == "cpu" else max(len(keys), 1)
    return torch.cat([_gumbel_block(part[:, None], tokens) for part in start.split(rows)])


def _gumbel_block(start: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    hashed = tokens + start
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None)):
        # The shift of a signed integer copies the sign: mask it off.
        hashed.bitwise_xor_((hashed >> shift).bitwise_and_((1 << (32 - shift)) - 1))
        if factor is not None:
            hashed.mul_(_signed(factor))
    # A small u stays exact in float32, and there the tail is.
    uniform = hashed.bitwise_and_((1 << 31) - 1).to(torch.float32).add_(0.5).mul_(2.0**-31)
    return uniform.neg_().log1p_().neg_().log_().neg_()


class GumbelNoise(LogitsProcessor):
    """Adds each prompt's noise of this step to its row, so that taking the largest is sampling."""

    def __init__(self, keys: Sequence[int], prompt_length: int, eos_id: int) -> None:
        self.keys = keys
        self.prompt_length = prompt_length
        self.eos_id = eos_id

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        new = input_ids[:, self.prompt_length :]
        # Rows that have ended are only filled up.
        rows = (new != self.eos_id).all(dim=1).nonzero()[:, 0]
        keys = [self.keys[row] for row in rows.tolist()]
        noisy = scores.float()
        if keys:
            noisy[rows] += gumbel_noise(keys, new.shape[1], scores.shape[1], scores.device)
        return noisy


class StopTexts(StoppingCriteria):
    """Ends a row once its newest tokens hold a stop text. Only saves time: ``finish`` cuts the text."""

    def __init__(self, encoding: Encoding, stop: Sequence[str], prompt_length: int) -> None:
        self.encoding = encoding
        self.stop = stop
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **settings: Any) -> torch.Tensor:
        tails = input_ids[:, max(self.prompt_length, input_ids.shape[1] - STOP_TAIL) :].tolist()
        texts = [self.encoding.decode(tail) for tail in tails]
        return torch.tensor(
            [any(stop in text for stop in self.stop) for text in texts], device=input_ids.device
        )


@torch.inference_mode()
def _generate_batch(
    model: PreTrainedModel, encoding: Encoding, ids: list[list[int]], keys: list[int], sampling: Sampling
) -> list[list[int]]:
    """New tokens of each row, padding included."""
    length = max(map(len, ids))
    padded = torch.full((len(ids), length), encoding.pad_id, dtype=torch.long)
    mask = torch.zeros_like(padded)
    for row, tokens in enumerate(ids):
        padded[row, length - len(tokens) :] = torch.tensor(tokens)
        mask[row, length - len(tokens) :] = 1
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=encoding.eos_id,
        pad_token_id=encoding.pad_id,
        bos_token_id=encoding.bos_id,
    )
    # transformers derives the positions from the mask, so that a row's first token is at position 0.
    output = cast(Any, model).generate(
        padded.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=settings,
        logits_processor=LogitsProcessorList(_processors(keys, length, encoding.eos_id, sampling)),
        stopping_criteria=StoppingCriteriaList(
            [StopTexts(encoding, sampling.stop, length)] if sampling.stop else []
        ),
    )
    return output[:, length:].tolist()


def _processors(
    keys: Sequence[int], prompt_length: int, eos_id: int, sampling: Sampling
) -> Iterator[LogitsProcessor]:
    if sampling.temperature == 0:
        return
    yield TemperatureLogitsWarper(float(sampling.temperature))
    if sampling.top_p < 1:
        yield TopPLogitsWarper(sampling.top_p)
    yield GumbelNoise(keys, prompt_length, eos_id)


def _positions(model: PreTrainedModel, encoding: Encoding) -> int | None:
    limits = [encoding.positions, getattr(model.config, "max_position_embeddings", None)]
    return min((limit for limit in limits if limit), default=None)


def _check_positions(
    prompts: Sequence[tuple[str, str]], ids: Sequence[Sequence[int]], new: int, positions: int | None
) -> None:
    longest = max(map(len, ids), default=0)
    for (prompt_id, _), tokens in zip(prompts, ids, strict=True):
        if not tokens:
            raise DataError("a prompt without tokens", where=f"prompt {prompt_id}")
        if positions is not None and len(tokens) + new > positions:
            raise DataError(
                f"{len(tokens)} prompt tokens and {new} new ones are more than the model's {positions} "
                "positions",
                where=f"prompt {prompt_id}",
                instead=f"--max-new-tokens of at most {max(positions - longest, 0)} for these prompts, "
                "shorter prompts, or a model with more positions",
            )


def _tokens_covering(encoding: Encoding, tokens: Sequence[int], text: str) -> int:
    """The smallest number of leading tokens whose text starts with ``text``."""
    low, high = 0, len(tokens)
    while low < high:
        middle = (low + high) // 2
        if encoding.decode(tokens[:middle]).startswith(text):
            high = middle
        else:
            low = middle + 1
    return low


def _signed(value: int) -> int:
    """A 32-bit pattern as the signed integer that torch holds it in."""
    return value - (1 << 32) if value >= 1 << 31 else value
