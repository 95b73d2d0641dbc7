"""Language models from scratch in several architectures: transformers' own classes in sizes of one's choice.

Light at import: transformers is loaded when a model is made.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from w2s.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from w2s.encoding import Encoding

DEFAULT = "opt"
ARCHITECTURES = (DEFAULT, "llama", "mistral", "gemma", "gpt-neo", "gpt-neox", "qwen2")
# What the size of a head must be a multiple of: rotary positions turn pairs of numbers, in GPT-NeoX a quarter of all.
HEAD_MULTIPLES = {"llama": 2, "mistral": 2, "gemma": 2, "qwen2": 2, "gpt-neox": 8}
# GPT-Neo's layers look at everything and at a window in turn.
GPT_NEO_ATTENTION = ("global", "local")


def check_sizes(architecture: str, width: int, heads: int) -> None:
    """Refuse sizes that do not fit together.

    Raises:
        ConfigError: heads do not divide the width, or give heads of a size that the architecture does not have.
    """
    if width % heads:
        raise ConfigError(f"a width of {width} cannot be divided among {heads} heads", where="--heads")
    size, multiple = width // heads, HEAD_MULTIPLES.get(architecture, 1)
    if size % multiple:
        raise ConfigError(
            f"heads of size {size} ({width} / {heads}) have no rotary positions in {architecture}",
            where="--heads",
            instead=f"--width / --heads a multiple of {multiple}",
        )


def new_model(args: argparse.Namespace, encoding: Encoding) -> PreTrainedModel:
    """A language model with fresh weights, drawn from the seed, without any dropout.

    Args:
        args: ``architecture`` (one of ARCHITECTURES), ``width``, ``layers``, ``heads``, ``feed_forward``,
            ``positions``, ``initial_std`` and ``seed`` of ``pretrain_model``.
        encoding: of the tokenizer; it decides the vocabulary and the ids around a text.
    """
    from w2s import compat  # noqa: F401  (before transformers)

    # isort: split
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, set_seed

    set_seed(args.seed)
    config = configuration(args, encoding)
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return kind(config)


def configuration(args: argparse.Namespace, encoding: Encoding) -> PretrainedConfig:
    """The configuration of :func:`new_model`. What no argument says is the library's default for the architecture."""
    from transformers import CONFIG_MAPPING

    kind: Any = CONFIG_MAPPING[args.architecture.replace("-", "_")]
    return kind(
        vocab_size=encoding.vocabulary_size,
        hidden_size=args.width,
        max_position_embeddings=args.positions,
        bos_token_id=encoding.eos_id if encoding.bos_id is None else encoding.bos_id,
        eos_token_id=encoding.eos_id,
        pad_token_id=encoding.pad_id,
        **_own_settings(args),
    )


def _own_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What each architecture calls by a name of its own, and what must not be its default in a small model."""
    sizes = {"num_hidden_layers": args.layers, "num_attention_heads": args.heads}
    names = {"intermediate_size": args.feed_forward, "initializer_range": args.initial_std}
    # No heads share keys and values, as in the architectures that have no such choice.
    rotary = {**sizes, **names, "num_key_value_heads": args.heads, "attention_dropout": 0.0}
    match args.architecture:
        case "opt":
            own = {"word_embed_proj_dim": args.width, "ffn_dim": args.feed_forward}
            none = {"dropout": 0.0, "attention_dropout": 0.0, "layerdrop": 0.0}
            return {**sizes, **own, "init_std": args.initial_std, **none}
        case "mistral":
            return {**rotary, "sliding_window": None}
        case "gemma":
            return {**rotary, "head_dim": args.width // args.heads}
        case "gpt-neo":
            turns = [[GPT_NEO_ATTENTION[layer % 2]] for layer in range(args.layers)]
            own = {"num_layers": args.layers, "num_heads": args.heads, **names}
            none = {"resid_dropout": 0.0, "embed_dropout": 0.0, "attention_dropout": 0.0}
            return {**own, "attention_types": [[turn, 1] for turn in turns], **none}
        case "gpt-neox":
            return {**sizes, **names, "hidden_dropout": 0.0, "attention_dropout": 0.0}
        case _:  # llama, qwen2
            return rotary
