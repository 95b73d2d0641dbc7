"""Adapters: how the rows of a raw data set become pairs of responses with a preference.

| adapter | rows |
|---|---|
| hh | ``chosen``, ``rejected``: whole transcripts (Anthropic HH-RLHF), split at the last "\\n\\nAssistant:" |
| pairs | ``prompt``, ``chosen``, ``rejected``: the TRL preference form, see below |
| tldr | ``info``, ``summaries``, ``choice``: OpenAI's summary comparisons; or ``prompt``, ``chosen``, |
|      | ``rejected``: the same, flat; or ``prompt``, ``reference``, ``response``, ``judge_preferred``: judged by a model |
| world | no file: the demo world's generator |

The TRL preference form comes as texts or as message lists, with an explicit prompt or an implicit one (at the
beginning of both answers). Further columns are ignored, so ``Dahoas/full-hh-rlhf`` (with ``response``) fits.

A row becomes a :class:`Pair` in the order of the file; the order that counts (by hash) is made by
``import_examples``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from w2s.dialogue import ASSISTANT, from_messages, split_transcript
from w2s.errors import ConfigError, DataError
from w2s.readers import Row, choice, present, read_rows, text

SPLITS = ("train", "test")
FILE_KEYS = ("source", "path", "subset", "split")
NO_PREFERENCE = "no_preference"
NOT_A_POST = "not_a_post"
DROP_REASONS = (NO_PREFERENCE, NOT_A_POST)
CUE = "TL;DR:"
POST = f"SUBREDDIT: r/{{subreddit}}\n\nTITLE: {{title}}\n\nPOST: {{post}}\n\n{CUE}"


@dataclass(frozen=True)
class Sides:
    """What an adapter reads from one row: two sides, and which one is preferred (0 = a, 1 = b)."""

    prompt_a: str
    response_a: str
    prompt_b: str
    response_b: str
    preferred: int
    judge: str = "human"


@dataclass(frozen=True)
class Pair:
    """A pair with its place: ``subset``, ``origin_split`` ("train"|"test"), ``source_row`` ("file:line").

    ``rewards`` are the exact rewards of sides a and b where the data set knows them.
    """

    sides: Sides
    subset: str
    origin_split: str
    source_row: str
    rewards: tuple[float, float] | None = None


@dataclass(frozen=True)
class Dropped:
    """A row that is well-formed but is no preference pair, under one of DROP_REASONS."""

    subset: str
    reason: str


Adapter = Callable[[Row, str], Sides | str]


def read_pairs(
    adapter: str, files: Sequence[Mapping[str, str]], sources: Mapping[str, Path]
) -> Iterator[Pair | Dropped]:
    """Yield the pairs of ``files`` in their order.

    Args:
        adapter: one of ADAPTERS.
        files: dicts with source, path (within the source), subset, split ("train"|"test").
        sources: name -> folder of the fetched source.

    Raises:
        ConfigError: unknown adapter, source or key.
        DataError: a row that cannot be read; the message names file and line.
    """
    if adapter not in ADAPTERS:
        raise ConfigError(f"unknown adapter {adapter!r}", instead=f"one of {', '.join([*ADAPTERS, 'world'])}")
    convert = ADAPTERS[adapter]
    for entry in checked_files(files, sources):
        path = sources[entry["source"]] / entry["path"]
        for number, row in read_rows(path):
            found = convert(row, f"{path}:{number}")
            if isinstance(found, str):
                yield Dropped(entry["subset"], found)
            else:
                place = f"{entry['source']}/{entry['path']}:{number}"
                yield Pair(found, entry["subset"], entry["split"], place)


def world_pairs(settings: dict[str, Any]) -> Iterator[Pair]:
    """The pairs of the demo world, with their exact rewards.

    Raises:
        DataError: the generator gave a preference that is neither 0 nor 1.
    """
    from w2s import world

    frame = world.make_pairs(settings)
    for number, values in enumerate(frame.to_dict("records"), start=1):
        row = {str(column): value for column, value in values.items()}
        where = f"world:{number}"
        prompt, preferred = text(row, "prompt", where), choice(row, "human", where)
        sides = Sides(
            prompt, text(row, "response_a", where), prompt, text(row, "response_b", where), preferred
        )
        rewards = (_reward(row, "reward_a", where), _reward(row, "reward_b", where))
        yield Pair(sides, "world", text(row, "origin_split", where), where, rewards)


def hh(row: Row, where: str) -> Sides:
    """HH-RLHF: two transcripts; the prompts of the two may differ (dropped later, by its own reason)."""
    chosen = split_transcript(text(row, "chosen", where), f"{where}, column 'chosen'")
    rejected = split_transcript(text(row, "rejected", where), f"{where}, column 'rejected'")
    return Sides(*chosen, *rejected, preferred=0)


def pairs(row: Row, where: str) -> Sides:
    """The TRL preference form: explicit or implicit prompt, texts or message lists."""
    chosen, rejected = present(row, "chosen", where), present(row, "rejected", where)
    if isinstance(chosen, list) != isinstance(rejected, list):
        raise DataError("'chosen' and 'rejected' must both be texts or both be message lists", where=where)
    if isinstance(chosen, list):
        sides = [_message_side(row.get("prompt"), row, column, where) for column in ("chosen", "rejected")]
        return Sides(*sides[0], *sides[1], preferred=0)
    chosen, rejected = text(row, "chosen", where), text(row, "rejected", where)
    if row.get("prompt") is not None:
        prompt = _prompt(row["prompt"], row, where)
        return Sides(prompt, chosen, prompt, rejected, preferred=0)
    if ASSISTANT in chosen and ASSISTANT in rejected:
        return hh(row, where)
    prompt = _common_prefix(chosen, rejected, where)
    return Sides(prompt, chosen[len(prompt) :], prompt, rejected[len(prompt) :], preferred=0)


def tldr(row: Row, where: str) -> Sides | str:
    """Summaries of a Reddit post: OpenAI's comparisons, a flat form of them, or a table with a judge's preference."""
    if "judge_preferred" in row:
        return _judged_summaries(row, where)
    if "chosen" in row:
        return _flat_comparison(row, where)
    info, summaries = present(row, "info", where), present(row, "summaries", where)
    if not isinstance(info, Mapping) or not isinstance(summaries, list) or len(summaries) != 2:
        raise DataError("'info' must be an object and 'summaries' a list of two", where=where)
    if info.get("post") is None and info.get("article") is not None:
        return NOT_A_POST  # the validation file of the comparisons also holds news articles
    prompt = POST.format(**{key: text(info, key, where) for key in ("subreddit", "title", "post")})
    first, second = (_blank_first(text(_object(summary, where), "text", where)) for summary in summaries)
    return Sides(prompt, first, prompt, second, preferred=choice(row, "choice", where))


ADAPTERS: dict[str, Adapter] = {"hh": hh, "pairs": pairs, "tldr": tldr}


def _flat_comparison(row: Row, where: str) -> Sides:
    """``prompt``, ``chosen``, ``rejected``; the cue stands at the end of the post or at the beginning of a summary."""
    prompt = text(row, "prompt", where).rstrip().removesuffix(CUE).rstrip() + f"\n\n{CUE}"
    sides = [
        _blank_first(text(row, column, where).lstrip().removeprefix(CUE)) for column in ("chosen", "rejected")
    ]
    return Sides(prompt, sides[0], prompt, sides[1], preferred=0)


def _judged_summaries(row: Row, where: str) -> Sides | str:
    verdict = row["judge_preferred"]
    if verdict is None:
        return NO_PREFERENCE
    if verdict not in ("ours", "reference"):
        raise DataError(
            f"column 'judge_preferred' holds {verdict!r}", where=where, instead="ours, reference or null"
        )
    prompt = text(row, "prompt", where)
    ours, reference = _blank_first(text(row, "response", where)), _blank_first(text(row, "reference", where))
    return Sides(prompt, ours, prompt, reference, preferred=int(verdict == "reference"), judge="judge")


def _message_side(prompt: object, row: Row, column: str, where: str) -> tuple[str, str]:
    """Prompt and response of one side given as messages; the last message is the response."""
    messages = _messages(row[column], f"{where}, column {column!r}")
    if messages[-1]["role"] != "assistant":
        raise DataError("the last message must be the assistant's", where=f"{where}, column {column!r}")
    response = _blank_first(messages[-1]["content"])
    if len(messages) > 1:
        # A whole conversation: the prompt is in it, and a prompt column (as in UltraFeedback) repeats it.
        return _dialogue(messages[:-1], where), response
    if prompt is None:
        raise DataError("one message only, and no column 'prompt'", where=f"{where}, column {column!r}")
    return _prompt(prompt, row, where), response


def _prompt(prompt: object, row: Row, where: str) -> str:
    if isinstance(prompt, list):
        return _dialogue(_messages(prompt, f"{where}, column 'prompt'"), where)
    return text(row, "prompt", where)


def _dialogue(messages: list[dict[str, str]], where: str) -> str:
    try:
        return from_messages(messages) + ASSISTANT
    except DataError as error:
        raise DataError(error.what, where=where, instead=error.instead) from error


def _messages(value: object, where: str) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise DataError("an empty list of messages", where=where)
    return [
        {
            key: text(_object(message, where), key, f"{where}, message {position}")
            for key in ("role", "content")
        }
        for position, message in enumerate(value)
    ]


def _reward(row: Row, column: str, where: str) -> float:
    value = float(present(row, column, where))
    if not math.isfinite(value):
        raise DataError(f"column {column!r} holds {value}, not a finite number", where=where)
    return value


def _object(value: object, where: str) -> Row:
    if not isinstance(value, Mapping):
        raise DataError(f"{value!r:.40} is no object", where=where)
    return value


def _blank_first(response: str) -> str:
    """The response with the blank that separates it from the prompt's last word."""
    return response if response[:1].isspace() else f" {response}"


def _common_prefix(chosen: str, rejected: str, where: str) -> str:
    """The prompt of two plain texts, as TRL finds it: what they share, less the blank before they part."""
    prompt = os.path.commonprefix([chosen, rejected])
    if len(prompt) < min(len(chosen), len(rejected)) and prompt.endswith(" "):
        prompt = prompt[:-1]
    if not prompt.strip():
        raise DataError(
            "no column 'prompt', and the two texts share no beginning",
            where=where,
            instead="a column 'prompt'",
        )
    return prompt


def checked_files(
    files: Sequence[Mapping[str, str]], sources: Mapping[str, Path]
) -> Sequence[Mapping[str, str]]:
    """The entries of --files.

    Raises:
        ConfigError: one is not of the form, or names no file within a source.
    """
    if not files:
        raise ConfigError(
            "no file to import", where="--files", instead=f"a list of {{{', '.join(FILE_KEYS)}}}"
        )
    for number, entry in enumerate(files):
        where = f"--files, entry {number}"
        if not isinstance(entry, Mapping) or set(entry) != set(FILE_KEYS):
            raise ConfigError(
                f"keys {', '.join(sorted(map(str, entry)))}"
                if isinstance(entry, Mapping)
                else f"{entry!r:.40}",
                where=where,
                instead=f"exactly {', '.join(FILE_KEYS)}",
            )
        for key, value in entry.items():
            if not isinstance(value, str) or not value:
                raise ConfigError(f"{key} is {value!r:.40}", where=where, instead="a text")
        path = PurePosixPath(entry["path"])
        if path.is_absolute() or ".." in path.parts:
            raise ConfigError(
                f"path {entry['path']!r} leads out of the source", where=where, instead="a file of the source"
            )
        if entry["split"] not in SPLITS:
            raise ConfigError(f"split {entry['split']!r}", where=where, instead=f"one of {', '.join(SPLITS)}")
        if entry["source"] not in sources:
            raise ConfigError(
                f"unknown source {entry['source']!r}",
                where=where,
                instead=f"one of {', '.join(sources) or '(none given)'}",
            )
    return files
