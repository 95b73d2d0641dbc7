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
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from w2s.decoding import Continuation, decodable, decode
from w2s.errors import DataError

if TYPE_CHECKING:
    from w2s.encoding import Encoding

logger = logging.getLogger(__name__)

# Its id and what it says: a text, or token ids that are taken as they are.
Prompt = tuple[str, str | list[int]]
EOS, STOP, LENGTH = "eos", "stop", "length"
# Enough tokens to hold the end of a stop text and what came before it in the same token.
STOP_TAIL = 16
# Numbers of four bytes that are worked on at once.
CACHED = 1 << 18
# Words for which all noise is computed sooner than which of it matters.
FEW = 6000
# More than float32 is off by in a noise of at most 23.
ROUNDING = 1e-4


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
    prompts: Sequence[Prompt],
    sampling: Sampling,
    batch_size: int = 64,
    progress: bool = False,
) -> list[Generation]:
    """:func:`generate_each`, in the order of ``prompts``."""
    found = dict(generate_each(model, encoding, prompts, sampling, batch_size, progress))
    return [found[place] for place in range(len(prompts))]


def generate_each(
    model: PreTrainedModel,
    encoding: Encoding,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    batch_size: int = 64,
    progress: bool = False,
) -> Iterator[tuple[int, Generation]]:
    """One response to each prompt, as they get done.

    Args:
        model: a causal language model in evaluation mode.
        encoding: its tokenizer.
        prompts: id and text, or token ids, of each; the id keys the prompt's random numbers.
        sampling: how to draw.
        batch_size: how many of the longest prompts are answered together; of shorter ones more, with as many tokens.
        progress: show a bar with prompts per second.

    Yields:
        The place among ``prompts`` and the response.

    Raises:
        DataError: a prompt leaves too few positions for the new tokens, or the logits are no numbers; the message
            names the prompt.
    """
    ids = prompts_ids(encoding, prompts)
    check_positions(prompts, ids, sampling.max_new_tokens, positions(model.config, encoding))
    names = [name for name, _ in prompts]
    respond = _respond if decodable(model) else _respond_in_batches
    with tqdm(total=len(ids), unit="prompt", disable=not progress, smoothing=0.05, mininterval=1) as bar:
        for place, tokens in respond(model, encoding, names, ids, sampling, batch_size):
            yield place, finish(encoding, tokens, sampling)
            bar.update()


def _respond(
    model: PreTrainedModel,
    encoding: Encoding,
    names: Sequence[str],
    ids: Sequence[list[int]],
    sampling: Sampling,
    batch_size: int,
) -> Iterator[tuple[int, list[int]]]:
    """Place and new tokens of each prompt, by the loop of :mod:`w2s.decoding`."""
    new = sampling.max_new_tokens
    budget = batch_size * (max(map(len, ids), default=0) + new)
    choose, ended = Sampler(names, sampling), Ending(encoding, sampling.stop)
    for one in decode(model, ids, new, choose, ended, budget, encoding.pad_id):
        yield one.place, one.new


def _respond_in_batches(
    model: PreTrainedModel,
    encoding: Encoding,
    names: Sequence[str],
    ids: Sequence[list[int]],
    sampling: Sampling,
    batch_size: int,
) -> Iterator[tuple[int, list[int]]]:
    """The same by the library's ``generate``, for architectures whose past is not keys and values only."""
    logger.warning(
        "%s keeps its past in a form of its own: batches wait for their longest response",
        type(model).__name__,
    )
    # The model's own generation defaults (top-k, repetition penalty, ...) are not part of the method.
    model.generation_config = GenerationConfig()
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        keys = [prompt_key(sampling.seed, names[place]) for place in places]
        new = _generate_batch(model, encoding, [ids[place] for place in places], keys, sampling)
        yield from zip(places, new, strict=True)


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
    keys: Sequence[int], steps: Sequence[int], vocabulary: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Standard Gumbel noise for each key at its step and each token, float32 of shape (keys, vocabulary).

    The 32-bit finaliser of MurmurHash3 maps (key and step, token) to h; u = (h mod 2^31 + 1/2) / 2^31 and the
    noise is -log(-log(1 - u)), whose long upper tail thus starts at the smallest u and is cut only beyond 22.
    """
    starts, tokens = _starts(keys, steps, device), _token_hashes(vocabulary, device)
    parts = starts.split(_rows_at_once(starts.device, vocabulary))
    return torch.cat([_gumbel(_uniform(part, tokens)) for part in parts])


def gumbel_argmax(scores: torch.Tensor, keys: Sequence[int], steps: Sequence[int]) -> torch.Tensor:
    """For each row of ``scores`` (keys, vocabulary), float32, the token whose score plus noise is the largest.

    That of ``scores + gumbel_noise(keys, steps, vocabulary)``. On a CPU, where the noise's two logarithms per token
    would take most of the time, they are computed only where a cheap upper bound says that the token may win; with
    FEW words that is not worthwhile.
    """
    if scores.device.type != "cpu" or scores.shape[1] <= FEW:
        return (scores + gumbel_noise(keys, steps, scores.shape[1], scores.device)).argmax(-1)
    starts, tokens = _starts(keys, steps, scores.device), _token_hashes(scores.shape[1], scores.device)
    rows = _rows_at_once(scores.device, scores.shape[1])
    found: list[int] = []
    for part, start in zip(scores.split(rows), starts.split(rows), strict=True):
        uniform = _uniform(start, tokens)
        for row in zip(part, uniform, _gumbel_bound(uniform).add_(part), strict=True):
            found.append(_best(*row))
    return torch.tensor(found)


def _best(scores: torch.Tensor, uniform: torch.Tensor, bound: torch.Tensor) -> int:
    """The token with the largest score plus noise; ``bound`` is nowhere below that."""
    first = int(bound.numpy().argmax())  # torch's takes ten times as long
    reached = scores[first] + _gumbel(uniform[first].clone())
    places = np.flatnonzero(bound.numpy() >= reached.numpy())
    noisy = scores[places] + _gumbel(uniform[places])
    return int(places[int(noisy.argmax())])


def _gumbel_bound(uniform: torch.Tensor) -> torch.Tensor:
    """Not below the noise of ``uniform``, and close above it where that is small.

    -log(-log(1 - u)) is at most -log(u), and a float's bits, read as an integer, are a piecewise linear logarithm
    that is nowhere above the true one.
    """
    slope = -math.log(2) * 2.0**-23
    return uniform.view(torch.int32).to(torch.float32).mul_(slope).add_(127 * math.log(2) + ROUNDING)


def _starts(keys: Sequence[int], steps: Sequence[int], device: torch.device | str) -> torch.Tensor:
    """Where the hashes of each key and step start, int32 of shape (keys, 1)."""
    digests = [
        hashlib.blake2b(f"{key}\0{step}".encode(), digest_size=4).digest()
        for key, step in zip(keys, steps, strict=True)
    ]
    return torch.from_numpy(np.frombuffer(b"".join(digests), dtype="<i4").astype(np.int32)).to(device)[
        :, None
    ]


def _token_hashes(vocabulary: int, device: torch.device | str) -> torch.Tensor:
    return torch.arange(vocabulary, dtype=torch.int32, device=device).mul_(_signed(0x9E3779B1))


def _rows_at_once(device: torch.device, vocabulary: int) -> int:
    """Rows that fit the processor's cache together: three times as fast as all at once."""
    return max(1, CACHED // vocabulary) if device.type == "cpu" else 1 << 30


def _uniform(start: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Uniform numbers between 0 and 1, float32 of shape (starts, tokens)."""
    hashed = tokens + start
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None)):
        # The shift of a signed integer copies the sign: mask it off.
        hashed.bitwise_xor_((hashed >> shift).bitwise_and_((1 << (32 - shift)) - 1))
        if factor is not None:
            hashed.mul_(_signed(factor))
    # A small u stays exact in float32, and there the tail is.
    return hashed.bitwise_and_((1 << 31) - 1).to(torch.float32).add_(0.5).mul_(2.0**-31)


def _gumbel(uniform: torch.Tensor) -> torch.Tensor:
    """Overwrites ``uniform``."""
    return uniform.neg_().log1p_().neg_().log_().neg_()


class Sampler:
    """Draws the next tokens: temperature, top-p, and each prompt's own noise at each of its steps.

    Args:
        names: ids of the prompts.
        sampling: how to draw.
    """

    def __init__(self, names: Sequence[str], sampling: Sampling) -> None:
        self.names = names
        self.keys = [prompt_key(sampling.seed, name) for name in names]
        self.greedy = sampling.temperature == 0
        self.warpers: Any = LogitsProcessorList(_warpers(sampling))

    def __call__(self, asked: Sequence[Continuation], logits: torch.Tensor) -> list[int]:
        """The token of each continuation, given float32 logits (continuations, words).

        Raises:
            DataError: logits that are no numbers; the prompt is named.
        """
        finite = torch.isfinite(logits.amax(-1)).tolist()
        if not all(finite):
            raise DataError(
                "the model's logits are no finite numbers",
                where=f"prompt {self.names[asked[finite.index(False)].place]}",
                instead="--precision float32 or bfloat16, and a model whose training did not diverge",
            )
        if self.greedy:
            return logits.argmax(-1).tolist()
        scores = self.warpers(None, logits)
        keys = [self.keys[one.place] for one in asked]
        return gumbel_argmax(scores, keys, [len(one.new) for one in asked]).tolist()


class Ending:
    """Whether a response is over: at the end token, or once its newest tokens hold a stop text.

    Only saves time: ``finish`` cuts the text. A stop text ends with the newest token, so texts are looked at only
    where that token holds the stop text's last character.
    """

    def __init__(self, encoding: Encoding, stop: Sequence[str]) -> None:
        self.encoding = encoding
        self.stop = stop
        self._may_complete = cache(self._holds_last_character)

    def __call__(self, one: Continuation) -> bool:
        """Whether ``one`` is over with its newest token."""
        if one.new[-1] == self.encoding.eos_id:
            return True
        return self._may_complete(one.new[-1]) and _holds_stop(self.encoding, self.stop, one.new[-STOP_TAIL:])

    def _holds_last_character(self, token: int) -> bool:
        text = self.encoding.decode([token])
        # Blanks may be a tokenizer's own business, and characters of several bytes can be divided among tokens.
        return any(stop[-1] in text or stop[-1].isspace() or not stop[-1].isascii() for stop in self.stop)


def _holds_stop(encoding: Encoding, stop: Sequence[str], tokens: Sequence[int]) -> bool:
    text = encoding.decode(tokens)
    return any(one in text for one in stop)


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
            steps = [new.shape[1]] * len(keys)
            noisy[rows] += gumbel_noise(keys, steps, scores.shape[1], scores.device)
        return noisy


class StopTexts(StoppingCriteria):
    """Ends a row once its newest tokens hold a stop text. Only saves time: ``finish`` cuts the text."""

    def __init__(self, encoding: Encoding, stop: Sequence[str], prompt_length: int) -> None:
        self.encoding = encoding
        self.stop = stop
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **settings: Any) -> torch.Tensor:
        tails = input_ids[:, max(self.prompt_length, input_ids.shape[1] - STOP_TAIL) :].tolist()
        return torch.tensor(
            [_holds_stop(self.encoding, self.stop, tail) for tail in tails], device=input_ids.device
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
    if sampling.temperature > 0:
        yield from _warpers(sampling)
        yield GumbelNoise(keys, prompt_length, eos_id)


def _warpers(sampling: Sampling) -> Iterator[LogitsProcessor]:
    if sampling.temperature > 0:
        yield TemperatureLogitsWarper(float(sampling.temperature))
    if sampling.top_p < 1:
        yield TopPLogitsWarper(sampling.top_p)


def prompts_ids(encoding: Encoding, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of each prompt, those of texts with what the model wants in front."""
    texts = iter(encoding.prompts_ids([content for _, content in prompts if isinstance(content, str)]))
    return [next(texts) if isinstance(content, str) else content for _, content in prompts]


def positions(config: Any, encoding: Encoding) -> int | None:
    """How many tokens a model can take by its configuration and its tokenizer's; None if neither says."""
    limits = [encoding.positions, getattr(config, "max_position_embeddings", None)]
    return min((limit for limit in limits if limit), default=None)


def check_positions(
    prompts: Sequence[Prompt], ids: Sequence[Sequence[int]], new: int, positions: int | None
) -> None:
    """Refuse prompts whose ``ids`` with ``new`` tokens more are beyond ``positions``, or that have none.

    Raises:
        DataError: the prompt is named.
    """
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
