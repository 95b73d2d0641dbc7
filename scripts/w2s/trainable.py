"""Models before training: loaded, with the dropout that was asked for, adapters on top. Heavy at import."""

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
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from w2s import models
from w2s.errors import ArtifactError

if TYPE_CHECKING:
    from peft import LoraConfig

# How model families call the dropout on hidden states, and the others, which are always switched off.
HIDDEN_DROPOUT = ("dropout", "resid_pdrop", "resid_dropout", "hidden_dropout", "embd_pdrop", "embed_dropout")
OTHER_DROPOUT = ("attention_dropout", "attn_pdrop", "activation_dropout", "layerdrop", "classifier_dropout")
logger = logging.getLogger(__name__)


def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer as transformers sees it; the trainers take pad and end tokens from it, and tokenise nothing."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


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


def lora(args: argparse.Namespace, task: str = "CAUSAL_LM") -> LoraConfig | None:
    """The adapters to train, on the layers that PEFT chooses for the model family; None to train all weights.

    Args:
        args: with the settings of :func:`w2s.training.add_lora`.
        task: PEFT's name of it; under "SEQ_CLS" the classifier's new head is trained whole beside the adapters.
    """
    if args.lora_rank == 0:
        return None
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType(task),
        r=args.lora_rank,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        bias="none",
    )


def adapted(args: argparse.Namespace) -> Any:
    """The model as it was before training, with fresh adapters if there are any."""
    return with_adapters(policy(args.model.parent, args.dropout, args.seed), lora(args))


def with_adapters(model: PreTrainedModel, adapters: LoraConfig | None) -> Any:
    """``model`` with fresh adapters, or as it is."""
    if adapters is None:
        return model
    from peft import get_peft_model

    return get_peft_model(model, adapters)
