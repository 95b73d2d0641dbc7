"""Similarity of two texts: the cosine of their embeddings under an encoder of the hub's format.

A text's embedding is the mean of the last hidden states of its own tokens, those that the tokenizer puts around it left
out (pooling ``mean``), or the last hidden state of the first token (``first``), which in BERT and its heirs stands for
the text and sees all of it. A causal model's first token sees nothing, so that all texts would be alike: refused.

Any model of transformers that reads one sequence serves. Of a checkpoint with a head (a classifier, BLEURT's regression,
a language model's) the head is not loaded. Texts are read as plain text: a special token that somebody typed is spelled.
"""

from __future__ import annotations

from w2s import compat  # noqa: F401  (before transformers)

# isort: split
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from w2s.encoding import sensible_positions
from w2s.errors import ArtifactError, ConfigError, DataError
from w2s.models import device, dtype, read_config, silence_dropout
from w2s.rewards import Tokens, batches, padded, position_limit
from w2s.shards import Shards

COLUMNS = ["id", "similarity"]
# Weights behind the last hidden states, which are not read: they may be missing.
UNUSED = "pooler."


@dataclass(frozen=True)
class Text:
    """A text as the encoder reads it.

    Attributes:
        tokens: with those that the tokenizer puts around it.
        own: of each token, whether it is the text's own.
        cut: whether the text was longer.
    """

    tokens: Tokens
    own: list[bool]
    cut: bool = False


def load_encoder(folder: Path, precision: str = "float32", on: str = "auto") -> PreTrainedModel:
    """A model without its head, in evaluation mode.

    Raises:
        ArtifactError: no model there, weights that are not safetensors, or weights missing in the file.
        ConfigError: a model that reads one sequence and writes another.
    """
    config = read_config(folder)
    if not list(folder.glob("*.safetensors")):
        raise ArtifactError("no safetensors weights", where=folder, instead="a folder made by import_model")
    if config.is_encoder_decoder:
        raise ConfigError(
            f"{config.model_type} has an encoder and a decoder",
            where=folder,
            instead="a model with one of the two",
        )
    silence_dropout(config)
    logging.disable_progress_bar()  # it only clutters logs
    model, info = AutoModel.from_pretrained(
        folder,
        config=config,
        dtype=dtype(precision),
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(UNUSED))
    if missing:
        raise ArtifactError(
            f"{len(missing)} weights are missing in the file and would be random: {', '.join(missing[:3])}",
            where=folder,
        )
    return model.eval().to(device(on))


class Reader:
    """Texts as tokens of the encoder in ``folder``.

    Args:
        folder: with the tokenizer's files.
        model: from :func:`load_encoder`; it limits the tokens, and so may its tokenizer.
    """

    def __init__(self, folder: Path, model: PreTrainedModel) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        known = (position_limit(model), sensible_positions(self._tokenizer.model_max_length))
        self.limit = min((limit for limit in known if limit is not None), default=None)

    def read(self, texts: Sequence[str], places: Iterable[str], truncate: bool) -> list[Text]:
        """Tokens of ``texts``; those that are longer than the limit lose their ends if ``truncate``.

        Raises:
            DataError: a text is longer and may not be cut; its place is named.
        """
        found = []
        for text, place in zip(texts, places, strict=True):
            whole = self._tokens(text)
            if self.limit is None or len(whole.own) <= self.limit:
                found.append(whole)
            elif truncate:
                found.append(self._tokens(text, self.limit))
            else:
                raise DataError(
                    f"{len(whole.own)} tokens are more than the encoder's {self.limit} positions",
                    where=place,
                    instead="--truncate, or an encoder with more positions",
                )
        return found

    def _tokens(self, text: str, limit: int | None = None) -> Text:
        made = self._tokenizer(
            text,
            truncation=limit is not None,
            max_length=limit,
            return_special_tokens_mask=True,
            split_special_tokens=True,
            verbose=False,
        )
        own = [not special for special in made["special_tokens_mask"]]
        return Text(Tokens(list(made["input_ids"]), made.get("token_type_ids")), own, limit is not None)


def similarities(
    model: PreTrainedModel,
    pairs: Sequence[tuple[Text, Text]],
    ids: Sequence[str],
    pooling: str,
    batch_tokens: int = 8192,
    progress: bool = False,
    shards: Shards | None = None,
) -> np.ndarray:
    """Cosine of the embeddings of each pair's two texts, float64, in the order of the pairs.

    Args:
        model: from :func:`load_encoder`.
        pairs: each text with at least one token of its own.
        ids: what each pair is called; no two alike.
        pooling: ``mean`` or ``first``, see the module.
        batch_tokens: a batch holds at most this many tokens, padding included (but at least one pair).
        progress: show a bar with pairs per second.
        shards: what earlier attempts have done, and where to keep what this one does; COLUMNS.

    Raises:
        ConfigError: pooling ``first`` with a causal model.
        DataError: a similarity is not finite.
    """
    shards = shards or Shards(COLUMNS)
    if pooling == "first":
        _check_first_sees_all(model, [text for pair in pairs for text in pair])
    lengths = [max(len(text.own) for text in pair) for pair in pairs]
    todo = shards.mine(list(batches(lengths, batch_tokens // 2)), lambda row: [(ids[row],)])
    with tqdm(
        total=sum(map(len, todo)), unit="pair", disable=not progress, smoothing=0.05, mininterval=1
    ) as bar:
        for rows in todo:
            vectors = embed(model, [text for row in rows for text in pairs[row]], pooling)
            shards.add(zip([ids[row] for row in rows], cosine(vectors[::2], vectors[1::2]), strict=True))
            bar.update(len(rows))
    known = dict(shards.table().itertuples(index=False, name=None))
    found = np.array([known[name] for name in ids], dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(found))
    if len(wrong):
        raise DataError(
            f"the similarity is {found[wrong[0]]} ({len(wrong)} of {len(found)} are not finite)",
            where=f"id {ids[wrong[0]]}",
            instead="--precision float32, or an encoder whose weights are finite",
        )
    return found


@torch.inference_mode()
def embed(model: PreTrainedModel, texts: Sequence[Text], pooling: str) -> np.ndarray:
    """Embeddings of ``texts``, one forward pass; float64, (texts, width)."""
    # Padding is masked: where no id is declared for it, any will do.
    pad = model.config.get_text_config().pad_token_id or 0
    inputs = padded([text.tokens for text in texts], pad)
    states = model(**{name: value.to(model.device) for name, value in inputs.items()}).last_hidden_state
    if pooling == "first":
        return states[:, 0].double().cpu().numpy()
    own = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    for row, text in enumerate(texts):
        own[row, : len(text.own)] = torch.tensor(text.own)
    counted = states.double() * own[..., None].to(states.device)
    return (counted.sum(1).cpu() / own.sum(1, keepdim=True)).numpy()


def cosine(left: np.ndarray, right: np.ndarray) -> list[float]:
    """Cosines of the angles between rows of ``left`` and ``right``, both (rows, width); nan beside a zero vector."""
    with np.errstate(invalid="ignore", divide="ignore"):
        products = (left * right).sum(1) / np.sqrt((left**2).sum(1) * (right**2).sum(1))
    return np.clip(products, -1, 1).tolist()


def _check_first_sees_all(model: PreTrainedModel, texts: Sequence[Text]) -> None:
    """Refuse a model whose first token has the same state with a text behind it as alone."""
    longest = max(texts, key=lambda text: len(text.own))
    types = longest.tokens.types
    alone = Text(Tokens(longest.tokens.ids[:1], None if types is None else types[:1]), longest.own[:1])
    before, after = (embed(model, [text], "first") for text in (alone, longest))
    if len(longest.own) > 1 and np.allclose(before, after, rtol=1e-4, atol=1e-6):
        raise ConfigError(
            f"the first token of a {model.config.model_type} model does not see the text behind it",
            where="--pooling first",
            instead="--pooling mean, or a model that reads in both directions",
        )
