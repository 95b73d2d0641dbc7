"""Both responses of a pair in one row: ``[prompt | response 0 | response 1]``, the prompt computed once.

In HH-RLHF two thirds of the tokens of a pair's two sequences are the same prompt twice. In one row the responses do
not see each other (attention mask) and both continue at the prompt's length (position ids), so that each token sees
what it would see in a sequence of its own, and has the same log-probability up to rounding.

What takes a four-dimensional mask and explicit positions is declared in ``ARCHITECTURES``, each one tested against two
sequences. All others, and pairs too long for a sliding window, are rows of one response each: the same tensors with
the library's own mask.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# Of each architecture: whether its windows go by place in the row, not by the positions that it is given.
ARCHITECTURES = {
    "opt": False,
    "llama": False,
    "mistral": False,
    "gemma": False,
    "gemma2": False,
    "gpt_neox": False,
    "qwen2": False,
    "qwen3": False,
    "gpt_neo": True,
}
# Implementations of attention that take any mask; flash attention knows the causal one only.
MASKABLE = ("sdpa", "eager")
PADDING = -1
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """A prompt and the responses that are computed in one row with it.

    Attributes:
        id: of the example.
        prompt: token ids, at least one.
        answers: token ids of each response, end token included.
        first: number of the first of the answers among the example's responses.
    """

    id: str
    prompt: list[int]
    answers: tuple[list[int], ...]
    first: int = 0

    def __len__(self) -> int:
        """Tokens in the row."""
        return len(self.prompt) + self.scored

    @property
    def scored(self) -> int:
        """Number of tokens that are scored."""
        return sum(map(len, self.answers))

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence of prompt and one response."""
        return len(self.prompt) + max(map(len, self.answers))

    def apart(self) -> list[Row]:
        """The same with a row for each response."""
        return [
            Row(self.id, self.prompt, (answer,), number)
            for number, answer in enumerate(self.answers, self.first)
        ]


@dataclass(frozen=True)
class Layout:
    """How a model wants its pairs.

    Attributes:
        packs: whether it can take two responses in one row.
        attention: its implementation of attention.
        reach: number of tokens within which its attention sees everything; None without such a limit.
        by_place: whether the reach counts places in the row instead of positions.
    """

    packs: bool
    attention: str
    reach: int | None = None
    by_place: bool = False

    @classmethod
    def of(cls, model: PreTrainedModel) -> Layout:
        """The layout for ``model``; says once per architecture if it is not known here."""
        config = model.config
        kind, attention = config.model_type, str(config._attn_implementation)
        if kind not in ARCHITECTURES:
            _warn(f"architecture {kind} is not known to take a packed pair")
            return cls(False, attention)
        if attention not in MASKABLE:
            _warn(f"attention {attention} does not take a packed pair's mask")
            return cls(False, attention)
        return cls(True, attention, _reach(config), ARCHITECTURES[kind])

    def fits(self, row: Row) -> bool:
        """Whether the row can be computed as it is."""
        if len(row.answers) == 1:
            return True
        return self.packs and (
            self.reach is None or (len(row) if self.by_place else row.longest) <= self.reach
        )

    def divide(self, rows: Sequence[Row]) -> list[Row]:
        """``rows``, those that do not fit in one row per response."""
        return [part for row in rows for part in ([row] if self.fits(row) else row.apart())]


@functools.cache
def _warn(what: str) -> None:
    logger.warning("%s: its two sequences are computed one by one, which takes longer", what)


def _reach(config: PretrainedConfig) -> int | None:
    """The shortest span that any layer is limited to. A mask of ours would otherwise take the place of a window."""
    if config.model_type == "gpt_neo":
        limited = [config.window_size] if "local" in config.attention_layers else []
        return min([*limited, config.max_position_embeddings])  # its causal mask is a table of this size
    return getattr(config, "sliding_window", None)


@dataclass(frozen=True)
class Batch:
    """Rows as tensors, padded on the right.

    Attributes:
        ids: token ids, (rows, longest).
        segments: PADDING, 0 for the prompt, 1 and on for the responses, (rows, longest).
        positions: where each token stands in its sequence, (rows, longest).
        at: row and column of the hidden states that predict the scored tokens, (2, scored).
        targets: the scored tokens, (scored,), response after response.
        counts: scored tokens of each response.
    """

    ids: torch.Tensor
    segments: torch.Tensor
    positions: torch.Tensor
    at: torch.Tensor
    targets: torch.Tensor
    counts: list[int]

    @classmethod
    def of(cls, rows: Sequence[Row], pad_id: int) -> Batch:
        """Tensors of ``rows``, which are all packed or all of one response."""
        shape = (len(rows), max(map(len, rows)))
        ids = torch.full(shape, pad_id, dtype=torch.long)
        segments = torch.full(shape, PADDING, dtype=torch.int8)
        positions = torch.zeros(shape, dtype=torch.long)
        lines: list[int] = []
        columns: list[int] = []
        for line, row in enumerate(rows):
            start = end = len(row.prompt)
            ids[line, : len(row)] = torch.tensor([*row.prompt, *(i for ids in row.answers for i in ids)])
            segments[line, :end] = 0
            positions[line, :end] = torch.arange(end)
            for number, answer in enumerate(row.answers, 1):
                # The prompt's last token predicts the first token of each response.
                columns += [start - 1, *range(end, end + len(answer) - 1)]
                segments[line, end : end + len(answer)] = number
                positions[line, end : end + len(answer)] = torch.arange(start, start + len(answer))
                end += len(answer)
            lines += [line] * row.scored
        targets = [token for row in rows for answer in row.answers for token in answer]
        counts = [len(answer) for row in rows for answer in row.answers]
        return cls(ids, segments, positions, torch.tensor([lines, columns]), torch.tensor(targets), counts)


def model_inputs(
    ids: torch.Tensor, segments: torch.Tensor, positions: torch.Tensor, attention: str, dtype: torch.dtype
) -> dict[str, Any]:
    """Keyword arguments of a model's forward pass; tensors as in :class:`Batch`, on the model's device.

    Args:
        attention: implementation, one of ``MASKABLE`` if a row is packed.
        dtype: of the computation, for implementations that add the mask to the scores.
    """
    if int(segments.max()) <= 1:
        return {"input_ids": ids, "attention_mask": (segments != PADDING).long()}
    seen = visible(segments)
    if attention == "eager":  # it would add a mask of truth values as numbers
        seen = torch.zeros(seen.shape, dtype=dtype, device=ids.device).masked_fill(
            ~seen, torch.finfo(dtype).min
        )
    return {"input_ids": ids, "attention_mask": seen, "position_ids": positions}


def visible(segments: torch.Tensor) -> torch.Tensor:
    """Which tokens each token sees: those before it in the prompt or in its own response, and itself.

    Padding sees the prompt, so that no softmax is over nothing. (rows, longest) -> (rows, 1, longest, longest).
    """
    asks, asked = segments[:, :, None], segments[:, None, :]
    return ((asked == 0) | (asked == asks)).tril()[:, None]
