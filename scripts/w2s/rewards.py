"""Scoring responses with a reward model: any sequence classifier of the hub's format with one logit.

The model reads what its makers meant it to read: the dialogue through the tokenizer's chat template. For a
tokenizer without one a fallback must be declared: ``plain`` (prompt and response as they are) or ``pair``
(prompt and response as the tokenizer's text pair, as the DeBERTa reward models want it).

Batches hold sequences of like length up to a token budget and are padded on the right, whatever the
tokenizer says: absolute positions, a classifier that reads the first token and one that reads the last one
all stay right then.
"""

from __future__ import annotations

from w2s import compat  # noqa: F401  (before transformers)

# isort: split
import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from w2s.artifact import load
from w2s.dialogue import to_messages
from w2s.encoding import Encoding
from w2s.errors import ConfigError, DataError
from w2s.models import load_classifier
from w2s.shards import Key, Shards
from w2s.strict_json import read_object

FALLBACKS = ("plain", "pair", "none")
# Architectures whose first position is the one after the padding id: those before are never reached.
AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")


@dataclass(frozen=True)
class Tokens:
    """One sequence as the model reads it; ``types`` only for models that tell two segments apart."""

    ids: list[int]
    types: list[int] | None = None


Encode = Callable[[str, str], Tokens]


def load_reward_model(folder: Path, precision: str = "float32", on: str = "auto") -> PreTrainedModel:
    """A sequence classifier with one logit, in evaluation mode.

    Raises:
        ConfigError: the model has more than one logit.
        ArtifactError: it has no classification head; a language model has no reward.
    """
    model = load_classifier(folder, precision, on)
    if model.config.num_labels != 1:
        raise ConfigError(
            f"the model has {model.config.num_labels} logits",
            where=folder,
            instead="a reward model with one logit",
        )
    return model


def has_chat_template(folder: Path) -> bool:
    """Whether the model's tokenizer comes with a chat template; reads files only."""
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(read_object(config).get("chat_template"))


def encoder(folder: Path, fallback: str) -> tuple[Encode, str]:
    """How (prompt, response) becomes the model's input, and its name: ``chat``, ``plain`` or ``pair``.

    Args:
        folder: the reward model's folder.
        fallback: what to do without a chat template: ``plain``, ``pair``, or ``none`` to refuse.

    Raises:
        ConfigError: there is no chat template and the fallback is ``none``.
    """
    if has_chat_template(folder):
        return _chat(folder), "chat"
    if fallback == "none":
        raise ConfigError(
            "the reward model's tokenizer has no chat template",
            where=folder,
            instead="fallback_template: plain (prompt and response as they are) or pair (as a text pair)",
        )
    if fallback == "plain" and (folder / "encoding.json").is_file():
        encoding = Encoding.load(folder)
        return lambda prompt, response: Tokens(
            encoding.prompt_ids(prompt) + encoding.response_ids(response)
        ), fallback
    return _plain_or_pair(folder, fallback), fallback


@dataclass(frozen=True)
class Judged:
    """What a reward model said of texts.

    Attributes:
        rewards: the raw logits, float64, in the order of the texts.
        template: how the model read a dialogue: ``chat``, ``plain`` or ``pair``.
        tokens: tokens that it read.
        device: where it was.
    """

    rewards: np.ndarray
    template: str
    tokens: int
    device: str


def judge(
    args: argparse.Namespace,
    prompts: Iterable[str],
    responses: Iterable[str],
    keys: Sequence[Key],
    progress: bool,
    shards: Shards,
) -> Judged:
    """Load the reward model of a stage and let it score responses to prompts.

    Args:
        args: ``model`` and the settings of :func:`w2s.judging.add_reward_model`.
        keys: of each response, see :func:`score`.
        progress: show a bar with responses per second.
        shards: finished rows; their columns are those of the keys and the reward.

    Raises:
        ConfigError, ArtifactError, DataError: see :func:`encoder`, :func:`load_reward_model` and :func:`score`.
    """
    folder = load(args.model).folder
    encode, template = encoder(folder, args.fallback_template)
    sequences = [encode(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    model = load_reward_model(folder, args.precision, args.device)
    rewards = score(model, sequences, args.batch_tokens, keys, progress, shards)
    return Judged(rewards, template, sum(len(sequence.ids) for sequence in sequences), str(model.device))


def score(
    model: PreTrainedModel,
    sequences: Sequence[Tokens],
    batch_tokens: int = 8192,
    keys: Sequence[Key] | None = None,
    progress: bool = False,
    shards: Shards | None = None,
) -> np.ndarray:
    """The reward of each sequence, float64, in their order.

    Args:
        model: from :func:`load_reward_model`.
        sequences: what it reads.
        batch_tokens: a batch holds at most this many tokens, padding included (but at least one sequence).
        keys: what each sequence is called, in the shards and in an error: (id,) or (id, response); no two alike.
        progress: show a bar with responses per second.
        shards: what earlier attempts have done, and where to keep what this one does; the keys' columns and the reward.

    Raises:
        DataError: a sequence is empty or beyond the model's positions, or its reward is not finite.
    """
    keys = keys or [(str(row),) for row in range(len(sequences))]
    shards = shards or Shards(["id", "reward"])
    check_lengths(sequences, position_limit(model), [place(key) for key in keys])
    pad = _pad_id(model, sequences)
    groups = list(batches([len(sequence.ids) for sequence in sequences], batch_tokens))
    todo = shards.mine(groups, lambda row: [keys[row]])
    with tqdm(
        total=sum(map(len, todo)), unit="response", disable=not progress, smoothing=0.05, mininterval=1
    ) as bar:
        for rows in todo:
            found = _score_batch(model, [sequences[row] for row in rows], pad)
            shards.add((*keys[row], reward) for row, reward in zip(rows, found.tolist(), strict=True))
            bar.update(len(rows))
    known = {row[:-1]: row[-1] for row in shards.table().itertuples(index=False, name=None)}
    rewards = np.array([known[key] for key in keys], dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(rewards))
    if len(wrong):
        raise DataError(
            f"the reward is {rewards[wrong[0]]} ({len(wrong)} of {len(rewards)} are not finite)",
            where=place(keys[wrong[0]]),
            instead="--precision float32, or a reward model whose weights are finite",
        )
    return rewards


def place(key: Key) -> str:
    """A response's key in words."""
    return f"response {key[0]}" if len(key) == 1 else f"id {key[0]}, response {key[1]}"


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Rows in batches of like length: rows times longest row is at most ``budget``, or a batch is one row.

    Longest first: a lack of memory shows at once.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.inference_mode()
def _score_batch(model: PreTrainedModel, sequences: list[Tokens], pad: int) -> np.ndarray:
    inputs = padded(sequences, pad)
    logits = model(**{name: value.to(model.device) for name, value in inputs.items()}).logits
    return logits[:, 0].double().cpu().numpy()


def padded(sequences: Sequence[Tokens], pad: int) -> dict[str, torch.Tensor]:
    """Inputs of a model's forward pass, padded on the right: each (sequences, longest)."""
    length = max(len(sequence.ids) for sequence in sequences)
    ids = torch.full((len(sequences), length), pad, dtype=torch.long)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence.ids)] = torch.tensor(sequence.ids)
        mask[row, : len(sequence.ids)] = 1
        if sequence.types is not None:
            types[row, : len(sequence.ids)] = torch.tensor(sequence.types)
    inputs = {"input_ids": ids, "attention_mask": mask}
    return inputs if sequences[0].types is None else {**inputs, "token_type_ids": types}


def _pad_id(model: PreTrainedModel, sequences: Sequence[Tokens]) -> int:
    """The padding token.

    Causal classifiers read the last token that is not the configured padding token. Where none is configured
    they read the very last token, one sequence at a time; any token that ends no sequence gives the same in a
    batch.
    """
    config = model.config.get_text_config()
    if config.pad_token_id is None:
        last = {sequence.ids[-1] for sequence in sequences}
        config.pad_token_id = next(token for token in range(len(last) + 1) if token not in last)
    return config.pad_token_id


def position_limit(model: PreTrainedModel) -> int | None:
    """The longest sequence that the model can read; None without such a limit."""
    config = model.config.get_text_config()
    # Relative positions alone (DeBERTa-v3) bind no length, whatever the configuration states.
    relative = getattr(config, "relative_attention", False) and not config.position_biased_input
    limit = None if relative else getattr(config, "max_position_embeddings", None)
    if limit is not None and config.model_type in AFTER_PADDING:
        return limit - config.pad_token_id - 1
    return limit


def check_lengths(sequences: Sequence[Tokens], limit: int | None, places: Sequence[str]) -> None:
    """Refuse sequences that are empty or longer than ``limit``; the first one is named by its place."""
    for where, sequence in zip(places, sequences, strict=True):
        if not sequence.ids:
            raise DataError("a sequence without tokens cannot be scored", where=where)
        if limit is not None and len(sequence.ids) > limit:
            raise DataError(
                f"{len(sequence.ids)} tokens are more than the reward model's {limit} positions",
                where=where,
                instead="fewer new tokens, shorter prompts, or a reward model with more positions",
            )


def _chat(folder: Path) -> Encode:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    def encode(prompt: str, response: str) -> Tokens:
        # The template writes the special tokens; letting the tokenizer add its own would double them.
        text = tokenizer.apply_chat_template(to_messages(prompt, response), tokenize=False)
        return _tokens(tokenizer(text, add_special_tokens=False, truncation=False))

    return encode


def _plain_or_pair(folder: Path, fallback: str) -> Encode:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if fallback == "plain":
        return lambda prompt, response: _tokens(tokenizer(prompt + response, truncation=False))
    return lambda prompt, response: _tokens(tokenizer(prompt, response, truncation=False))


def _tokens(encoded: dict) -> Tokens:
    return Tokens(list(encoded["input_ids"]), encoded.get("token_type_ids"))
