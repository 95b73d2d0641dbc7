"""Models before training: loaded or new, with the dropout that was asked for, adapters on top. Heavy at import."""

from __future__ import annotations

from w2s import compat  # noqa: F401  (before transformers)

# isort: split
import argparse
import logging
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from w2s import models
from w2s.encoding import Encoding
from w2s.errors import ArtifactError

if TYPE_CHECKING:
    from peft import LoraConfig

# How model families call the dropout on hidden states, and the others, which are always switched off.
HIDDEN_DROPOUT = ("dropout", "resid_pdrop", "resid_dropout", "hidden_dropout", "embd_pdrop", "embed_dropout")
OTHER_DROPOUT = ("attention_dropout", "attn_pdrop", "activation_dropout", "layerdrop", "classifier_dropout")
logger = logging.getLogger(__name__)


def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer as transformers sees it; the trainers take pad and end tokens from it, and tokenise nothing."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def copy_tokenizer(source: Path) -> Callable[[Path], object]:
    """A function that copies the tokenizer's files of ``source`` into the folder that it is given."""
    return partial(models.copy_tokenizer_files, source)


def policy(folder: Path, dropout: float, seed: int) -> PreTrainedModel:
    """The language model in ``folder``, float32, with dropout of this probability on hidden states and no other.

    OPT's dropout is functional and follows its configuration, so that switching off dropout *modules* (TRL's
    ``disable_dropout``) does not reach it.
    """
    set_seed(seed)
    return _load(AutoModelForCausalLM, folder, with_dropout(models.read_config(folder), dropout))


def classifier(folder: Path, dropout: float, pad_id: int, seed: int) -> PreTrainedModel:
    """A scorer on top of the language model in ``folder``: one number, read at the last token that is no padding.

    Its head is drawn anew from the seed.
    """
    set_seed(seed)
    config = with_dropout(models.read_config(folder, num_labels=1), dropout)
    config.pad_token_id = pad_id
    return _load(AutoModelForSequenceClassification, folder, config, new=("score.weight",))


def _load(kind: Any, folder: Path, config: Any, new: Collection[str] = ()) -> PreTrainedModel:
    """Load on the CPU; the trainer places and spreads the weights."""
    if not list(folder.glob("*.safetensors")):
        raise ArtifactError("no safetensors weights", where=folder, instead="a folder made by import_model")
    model, info = kind.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    missing = sorted(set(info["missing_keys"]) - set(new))
    if missing:
        raise ArtifactError(
            f"weights are missing and would be random: {', '.join(missing[:3])}", where=folder
        )
    return model


def new_model(args: argparse.Namespace, encoding: Encoding) -> PreTrainedModel:
    """A language model of OPT's architecture with fresh weights, drawn from the seed."""
    set_seed(args.seed)
    config = OPTConfig(
        vocab_size=encoding.vocabulary_size,
        hidden_size=args.width,
        word_embed_proj_dim=args.width,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        ffn_dim=args.feed_forward,
        max_position_embeddings=args.positions,
        init_std=args.initial_std,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        bos_token_id=encoding.eos_id if encoding.bos_id is None else encoding.bos_id,
        eos_token_id=encoding.eos_id,
        pad_token_id=encoding.pad_id,
    )
    return OPTForCausalLM(config)


def with_dropout(config: Any, probability: float) -> Any:
    """``config`` with dropout of this probability on hidden states and none elsewhere."""
    for name in OTHER_DROPOUT:
        if hasattr(config, name):
            setattr(config, name, 0.0)
    known = [name for name in HIDDEN_DROPOUT if hasattr(config, name)]
    for name in known:
        setattr(config, name, probability)
    if probability and not known:
        logger.info("%s has no dropout on hidden states: trained without", config.model_type)
    return config


def lora(args: argparse.Namespace) -> LoraConfig | None:
    """The adapters to train, on the layers that PEFT chooses for the model family; None to train all weights."""
    if args.lora_rank == 0:
        return None
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=args.lora_rank,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        bias="none",
    )


def adapted(args: argparse.Namespace) -> Any:
    """The model as it was before training, with fresh adapters if there are any."""
    model = policy(args.model.parent, args.dropout, args.seed)
    adapters = lora(args)
    if adapters is None:
        return model
    from peft import get_peft_model

    return get_peft_model(model, adapters)
