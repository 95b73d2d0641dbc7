"""Both responses of a pair in one row: ``[prompt | response 0 | response 1]``, the prompt computed once.

In HH-RLHF two thirds of the tokens of a pair's two sequences are the same prompt twice. In one row the responses do
not see each other (attention mask) and both continue at the prompt's length (position ids), so that each token sees
what it would see in a sequence of its own, and has the same log-probability up to rounding.

A training takes its pairs in batches of mixed lengths: there, several short pairs stand in one row as long as the longest
pair (:meth:`Layout.lines`), and hardly anything is padding.

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
# Numbers of a pair's segments: its prompt, its responses, and one to spare.
SEGMENTS = 4
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
        return len(row.answers) == 1 or (self.packs and self._within_reach(row))

    def _within_reach(self, row: Row) -> bool:
        return self.reach is None or (len(row) if self.by_place else row.longest) <= self.reach

    def divide(self, rows: Sequence[Row]) -> list[Row]:
        """``rows``, those that do not fit in one row per response."""
        return [part for row in rows for part in ([row] if self.fits(row) else row.apart())]

    def lines(self, rows: Sequence[Row]) -> list[list[Row]]:
        """``rows`` as lines of a batch: several in a line as long as the longest row, longest first.

        If one of them cannot stand in a line with others, each response is a line of its own.
        """
        if not self.packs or not all(map(self._within_reach, rows)):
            return [[part] for row in rows for part in row.apart()]
        found: list[list[Row]] = []
        room: list[int] = []
        for row in sorted(rows, key=len, reverse=True):
            line = next((line for line, left in enumerate(room) if left >= len(row)), len(found))
            if line == len(found):
                found.append([])
                room.append(len(found[0][0]) if found[0] else len(row))
            found[line].append(row)
            room[line] -= len(row)
        return found


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
    """Lines of rows as tensors, padded on the right.

    Attributes:
        ids: token ids, (lines, longest).
        segments: PADDING, or of the n-th row of the line: SEGMENTS * n for the prompt, 1 and on more for its
            responses, (lines, longest).
        positions: where each token stands in its sequence, (lines, longest).
        at: line and column of the hidden states that predict the scored tokens, (2, scored).
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
    def of(cls, lines: Sequence[Sequence[Row]], pad_id: int) -> Batch:
        """Tensors of ``lines``, which are all packed or all of one row with one response."""
        shape = (len(lines), max(sum(map(len, line)) for line in lines))
        ids = torch.full(shape, pad_id, dtype=torch.long)
        segments = torch.full(shape, PADDING, dtype=torch.int16)
        positions = torch.zeros(shape, dtype=torch.long)
        at: list[tuple[int, int]] = []
        for number, line in enumerate(lines):
            end = 0
            for first, row in zip(range(0, SEGMENTS * len(line), SEGMENTS), line, strict=True):
                start, end = end, end + len(row.prompt)
                _place(number, start, row.prompt, 0, first, ids, segments, positions)
                for segment, answer in enumerate(row.answers, first + 1):
                    # The prompt's last token predicts the first token of each response.
                    columns = (start + len(row.prompt) - 1, *range(end, end + len(answer) - 1))
                    at += [(number, column) for column in columns]
                    _place(number, end, answer, len(row.prompt), segment, ids, segments, positions)
                    end += len(answer)
        answers = [answer for line in lines for row in line for answer in row.answers]
        targets = torch.tensor([token for answer in answers for token in answer])
        return cls(ids, segments, positions, torch.tensor(at).T, targets, [len(answer) for answer in answers])


def _place(
    line: int,
    start: int,
    tokens: list[int],
    position: int,
    segment: int,
    ids: torch.Tensor,
    segments: torch.Tensor,
    positions: torch.Tensor,
) -> None:
    """Write ``tokens``, whose first stands at ``position`` of its sequence, from column ``start`` on."""
    end = start + len(tokens)
    ids[line, start:end] = torch.tensor(tokens)
    segments[line, start:end] = segment
    positions[line, start:end] = torch.arange(position, position + len(tokens))


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
    """Which tokens each token sees: those before it in its own response or prompt, and its own prompt.

    Padding sees padding, so that no softmax is over nothing. (lines, longest) -> (lines, 1, longest, longest).
    """
    prompts = segments - segments.remainder(SEGMENTS)
    asks, prompt, asked = segments[:, :, None], prompts[:, :, None], segments[:, None, :]
    return ((asked == asks) | (asked == prompt)).tril()[:, None]


def collate_sequences(
    examples: Sequence[dict[str, Any]], layout: Layout, pad_id: int
) -> dict[str, torch.Tensor]:
    """A training's batch of sequences, ``prompt_ids`` and ``response_ids``: tensors of :class:`Batch`."""
    rows = [
        Row(str(number), sequence["prompt_ids"], (sequence["response_ids"],))
        for number, sequence in enumerate(examples)
    ]
    return _tensors(Batch.of(layout.lines(rows), pad_id))


def collate_pairs(examples: Sequence[dict[str, Any]], layout: Layout, pad_id: int) -> dict[str, torch.Tensor]:
    """A training's batch of pairs: :class:`Batch` and the pairs' other columns.

    Args:
        examples: ``prompt_ids``, ``chosen_ids``, ``rejected_ids``, and numbers under other names.

    Returns:
        ``input_ids``, ``segments``, ``positions``, ``at``, ``targets`` as in :class:`Batch`; ``counts`` (responses,);
        ``order`` (pairs, 2): where the sums of a pair's chosen and rejected response stand; the other columns,
        float32, (pairs,).
    """
    rows = [
        Row(str(number), pair["prompt_ids"], (pair["chosen_ids"], pair["rejected_ids"]))
        for number, pair in enumerate(examples)
    ]
    lines = layout.lines(rows)
    batch = Batch.of(lines, pad_id)
    order = torch.empty(len(rows), 2, dtype=torch.long)
    place = 0
    for row in (row for line in lines for row in line):
        for answer in range(row.first, row.first + len(row.answers)):
            order[int(row.id), answer] = place
            place += 1
    others = sorted(set(examples[0]) - {"prompt_ids", "chosen_ids", "rejected_ids"})
    return {
        **_tensors(batch),
        "counts": torch.tensor(batch.counts),
        "order": order,
        **{name: torch.tensor([pair[name] for pair in examples], dtype=torch.float32) for name in others},
    }


def _tensors(batch: Batch) -> dict[str, torch.Tensor]:
    return {
        "input_ids": batch.ids,
        "segments": batch.segments,
        "positions": batch.positions,
        "at": batch.at,
        "targets": batch.targets,
    }
