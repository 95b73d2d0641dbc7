"""The decode loop: many sequences continued together, each leaving when it ends, the next one taking its place.

transformers' ``generate`` fills a batch, runs it until its longest response has ended, and copies all keys and values
at each token. Here a sequence that has ended leaves at once and waiting prompts are let in (continuous batching), and
the keys and values of all sequences lie in buffers that are written in place.

The library's model code stays as it is. All sequences share a clock: the next key of each goes into the same column,
and those of its past are the columns before it, as many as it has tokens. To a model that is a batch padded on the
left, which every architecture of the library knows, sliding windows included; that one row's past may begin where
another's ended is not its concern. Waste is what lies between a short past and the longest, hence shortest prompts
first: those that have been here for long began short.

How many sequences run together is set by a budget of tokens: their number times the longest that any of them may
become. So nothing that was let in must be put out again.
"""

from __future__ import annotations

from w2s import compat  # noqa: F401  (before transformers)

# isort: split
import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

# Columns that the buffers have in reserve, for more tokens and for longer prompts: then everything is copied once.
SPARE_COLUMNS = 64
# Prompts are let in once they are this share of what runs: reading a prompt makes all others wait.
WORTHWHILE = 1 / 8
# Most tokens of prompts that are read in one pass, padding counted.
PROMPT_TOKENS = 4096


@dataclass
class Continuation:
    """A prompt and what the model has added to it.

    Attributes:
        place: where the prompt stands among all.
        prompt: its token ids.
        new: token ids that followed, the end token included if there was one.
    """

    place: int
    prompt: list[int]
    new: list[int] = field(default_factory=list)


# The next token of each continuation, given float32 logits (continuations, words).
Choose = Callable[[Sequence[Continuation], torch.Tensor], list[int]]
# Whether a continuation has ended, asked after each token.
Ended = Callable[[Continuation], bool]


def decodable(model: Any) -> bool:
    """Whether :func:`decode` can drive ``model``: its past is keys and values only, and its inputs are the usual ones."""
    own = getattr(type(model), "prepare_inputs_for_generation", None)
    return (
        own is GenerationMixin.prepare_inputs_for_generation
        and not model.config.is_encoder_decoder
        and not getattr(model, "_is_stateful", False)
        and model._supports_default_dynamic_cache()
        and getattr(model.config.get_text_config(decoder=True), "attention_chunk_size", None) is None
        and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in _library_layers(model))
    )


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    choose: Choose,
    ended: Ended,
    budget: int,
    pad_id: int,
) -> Iterator[Continuation]:
    """Continue each prompt until it has ended or has ``new_tokens`` new tokens.

    Args:
        model: one that is :func:`decodable`, in evaluation mode.
        prompts: token ids of each; none is empty.
        new_tokens: most tokens to add.
        choose: gives the next token of each continuation from the logits.
        ended: tells which are over.
        budget: tokens, of prompts and answers, that may be held at once; a single prompt runs in any case. The buffers
            take an eighth and twice SPARE_COLUMNS per sequence more.
        pad_id: fills up what the model does not see.

    Yields:
        The continuations as they end.
    """
    waiting = deque(
        Continuation(place, list(prompts[place]))
        for place in sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    )
    pool = _Pool(model, pad_id)
    while waiting or pool.running:
        group = _next_group(waiting, len(pool.running), new_tokens, budget)
        asked, logits = pool.read(group) if group else pool.step()
        for continuation, token in zip(asked, choose(asked, logits), strict=True):
            continuation.new.append(token)
        over = [one for one in asked if len(one.new) >= new_tokens or ended(one)]
        pool.release(over)
        yield from over


def _next_group(
    waiting: deque[Continuation], running: int, new_tokens: int, budget: int
) -> list[Continuation]:
    """Take from ``waiting`` what is read next; nothing if it is not worthwhile yet.

    ``waiting`` is sorted, so the last one that is let in is the longest of all that run.
    """
    room = 0
    for one in waiting:
        together = running + room + 1
        if together > 1 and together * (len(one.prompt) + new_tokens) > budget:
            break
        room += 1
    if room < len(waiting) and room < WORTHWHILE * running:
        return []
    group: list[Continuation] = []
    while len(group) < room and (len(group) + 1) * len(waiting[0].prompt) <= max(
        PROMPT_TOKENS, len(waiting[0].prompt)
    ):
        group.append(waiting.popleft())
    return group


class _Pool:
    """The continuations that run, and the model with their past."""

    def __init__(self, model: Any, pad_id: int) -> None:
        self.model = model
        self.pad_id = pad_id
        self.past = SharedClockCache(
            [getattr(layer, "sliding_window", None) for layer in _library_layers(model)]
        )
        self.running: list[Continuation] = []
        known = inspect.signature(model.forward).parameters
        # Some take the positions from the mask alone; some lack the other and give logits at all places.
        self.takes_positions = "position_ids" in known
        self.settings = {"logits_to_keep": 1} if "logits_to_keep" in known else {}

    def read(self, group: list[Continuation]) -> tuple[list[Continuation], torch.Tensor]:
        """Read the prompts of ``group`` and let them in; they and their logits."""
        lengths = [len(one.prompt) for one in group]
        longest = max(lengths)
        ids = torch.tensor([[self.pad_id] * (longest - len(one.prompt)) + one.prompt for one in group])
        mask = torch.arange(longest) >= longest - torch.tensor(lengths)[:, None]
        past = DynamicCache()  # without the configuration it keeps what is beyond a sliding window
        logits = self._logits(ids, mask, past)
        self.past.admit(past, lengths)
        self.running += group
        return group, logits

    def step(self) -> tuple[list[Continuation], torch.Tensor]:
        """One token further with all; they and their logits."""
        ids = torch.tensor([one.new[-1:] for one in self.running])
        logits = self._logits(ids, self.past.mask(), self.past)
        self.past.advance()
        return list(self.running), logits

    def release(self, over: list[Continuation]) -> None:
        """Let go of continuations."""
        places = {id(one): row for row, one in enumerate(self.running)}
        for row in sorted((places[id(one)] for one in over), reverse=True):
            self.past.release(row)
            last = self.running.pop()
            if row < len(self.running):
                self.running[row] = last

    def _logits(self, ids: torch.Tensor, mask: torch.Tensor, past: Cache) -> torch.Tensor:
        """Float32 logits behind the last of ``ids`` (rows, tokens); ``mask`` (rows, past and tokens) is true where seen."""
        settings: dict[str, Any] = dict(self.settings)
        on = self.model.device
        if self.takes_positions:
            positions = (mask.long().cumsum(1) - 1).clamp_(min=0)
            settings["position_ids"] = positions[:, -ids.shape[1] :].to(on)
        found = self.model(
            input_ids=ids.to(on),
            attention_mask=mask.long().to(on),
            past_key_values=past,
            use_cache=True,
            **settings,
        )
        return found.logits[:, -1].float()


class SharedClockCache(Cache):
    """Keys and values of the running sequences, one row each, in buffers that are written in place.

    The next token of all rows goes into column ``end``; row i's past is the ``lengths[i]`` columns before it.

    Args:
        windows: of each layer the width of its sliding window, None if it sees everything.
    """

    layers: list[Any]  # SharedClockLayer, said so that it does not contradict the library

    def __init__(self, windows: Sequence[int | None]) -> None:
        super().__init__(layers=[SharedClockLayer(self, window) for window in windows])
        self.lengths: list[int] = []
        self.end = 0
        self.capacity = (0, 0)

    @property
    def width(self) -> int:
        """Tokens of the longest past."""
        return max(self.lengths, default=0)

    def mask(self) -> torch.Tensor:
        """True where a row's past or its next token is, (rows, width + 1)."""
        begins = self.width - torch.tensor(self.lengths)
        return torch.arange(self.width + 1) >= begins[:, None]

    def advance(self) -> None:
        """A token of each row has been written."""
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]
        if self.end == self.capacity[1]:
            self._move(len(self.lengths), self.width)

    def admit(self, past: Any, lengths: Sequence[int]) -> None:
        """Add rows with the last ``lengths`` columns of ``past``."""
        old, rows = len(self.lengths), len(self.lengths) + len(lengths)
        width = max(lengths)
        for mine, theirs in zip(self.layers, past.layers, strict=True):
            if not mine.is_initialized:
                mine.lazy_initialization(theirs.keys, theirs.values)
        if rows > self.capacity[0] or width > self.end:
            self._move(rows, max(width, self.width))
        for mine, theirs in zip(self.layers, past.layers, strict=True):
            mine.write(theirs.keys, theirs.values, slice(old, rows), slice(self.end - width, self.end))
        self.lengths += lengths

    def release(self, row: int) -> None:
        """Give up a row; the last one takes its place."""
        length = self.lengths.pop()
        if row < len(self.lengths):
            self.lengths[row] = length
            columns = slice(self.end - length, self.end)
            for layer in self.layers:
                layer.copy_row(len(self.lengths), row, columns)

    def _move(self, rows: int, width: int) -> None:
        """Into new buffers for ``rows`` rows and pasts of ``width`` tokens, with room for more of both."""
        capacity, end = (rows + rows // 8, width + 2 * SPARE_COLUMNS), width + SPARE_COLUMNS
        for layer in self.layers:
            live, to = (slice(last - self.width, last) for last in (self.end, end))
            layer.move(capacity, len(self.lengths), live, to)
        self.capacity, self.end = capacity, end


class SharedClockLayer(CacheLayerMixin):
    """One layer of a :class:`SharedClockCache`; buffers of shape (rows, heads, columns, width of a head)."""

    keys: Any  # tensors, from the first prompts on
    values: Any

    def __init__(self, cache: SharedClockCache, window: int | None) -> None:
        super().__init__()
        self.cache = cache
        self.window = window
        self.is_sliding = window is not None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Empty buffers of the states' heads, type and device."""
        self.keys, self.values = (states[:0, :, :0] for states in (key_states, value_states))
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Write the token of each row, (rows, heads, 1, width); views of all that these may look at."""
        rows, end = len(self.cache.lengths), self.cache.end
        self.write(key_states, value_states, slice(rows), slice(end, end + 1))
        seen, _ = self.get_mask_sizes(1)
        return tuple(buffer[:rows, :, end + 1 - seen : end + 1] for buffer in (self.keys, self.values))

    def write(self, keys: torch.Tensor, values: torch.Tensor, rows: slice, columns: slice) -> None:
        """Write states into the buffers."""
        self.keys[rows, :, columns] = keys
        self.values[rows, :, columns] = values

    def copy_row(self, source: int, target: int, columns: slice) -> None:
        """Copy columns from row to row."""
        for buffer in (self.keys, self.values):
            buffer[target, :, columns] = buffer[source, :, columns]

    def move(self, capacity: tuple[int, int], rows: int, live: slice, to: slice) -> None:
        """Into new buffers of ``capacity`` rows and columns. Zeros, since a NaN would count even where it is not seen."""
        self.keys, self.values = (
            _moved(buffer, capacity, rows, live, to) for buffer in (self.keys, self.values)
        )

    def get_seq_length(self) -> int:
        """Tokens of the longest past: where the next one stands in the mask."""
        return self.cache.width

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns are looked at, and at which one of the mask they begin."""
        hidden = max(self.cache.width - self.window + 1, 0) if self.window else 0
        return self.cache.width - hidden + query_length, hidden

    def get_max_length(self) -> int:
        """No limit."""
        return -1


def _moved(
    buffer: torch.Tensor, capacity: tuple[int, int], rows: int, live: slice, to: slice
) -> torch.Tensor:
    new = buffer.new_zeros(capacity[0], buffer.shape[1], capacity[1], buffer.shape[3])
    new[:rows, :, to] = buffer[:rows, :, live]
    return new


def _library_layers(model: Any) -> list[Any]:
    """The layers of the cache that the library itself would take."""
    return DynamicCache(config=model.config).layers
