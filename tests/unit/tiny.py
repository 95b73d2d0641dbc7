"""A tiny tokenizer, tiny models and examples, for the fixtures in conftest.py and tests that need others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

TEXTS = [
    "\n\nHuman: What do cats eat?\n\nAssistant: Cats eat meat and fish, and they like it.",
    "\n\nHuman: How do I bake bread?\n\nAssistant: Mix flour, water, salt and yeast; wait; bake it.",
    "\n\nHuman: Tell me a joke.\n\nAssistant: Why did the hen cross the road? To see the other side.",
    "\n\nHuman: Who wrote this?\n\nAssistant: I do not know, sorry. Ask somebody else about that.",
]


PAIRS = [
    ("\n\nHuman: What do cats eat?\n\nAssistant:", " Meat and fish.", " I do not know, sorry."),
    ("\n\nHuman: How do I bake bread?\n\nAssistant:", " Mix flour and water, then bake it.", " No."),
    ("\n\nHuman: Tell me a joke.\n\nAssistant:", " Ask somebody else.", " Why did the hen cross the road?"),
    (
        "\n\nHuman: Hi\n\nAssistant: Hi!\n\nHuman: Who wrote this?\n\nAssistant:",
        " I did.",
        " Nobody\n\nknows ½ é.",
    ),
    ("\n\nHuman: Say \u00fc.\n\nAssistant:", " \u00fc", " "),
]


def as_artifact(folder: Path, fill: Callable[[Path], object], **facts: object) -> Path:
    """Make an artifact whose files ``fill(folder)`` writes; returns its manifest."""
    from w2s.artifact import Artifact

    with Artifact.create(folder / "manifest.json", spec={}, parents={}, script=__file__) as artifact:
        fill(artifact.folder)
        artifact.record(**facts)
    return folder / "manifest.json"


def write_label_file(folder: Path, labels: pd.DataFrame, dropped: Mapping[str, str] | None = None) -> None:
    """A label file as ``label_examples`` writes it; ``dropped``: id -> reason."""
    from w2s.tables import DROPPED_COLUMNS, write_parquet

    rows = sorted((dropped or {}).items())
    write_parquet(labels, folder / "labels.parquet")
    write_parquet(pd.DataFrame(rows, columns=DROPPED_COLUMNS, dtype=str), folder / "dropped.parquet")


def train_bpe(texts: Iterable[str], vocabulary: int = 320) -> object:
    """A byte-level BPE tokenizer with OPT's special tokens: <s> 0, <pad> 1, </s> 2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tiny_config(kind: str, vocabulary: int, positions: int) -> object:
    """A configuration of about ten thousand weights; OPT with the dropout of the published models."""
    from transformers import GPTNeoXConfig, LlamaConfig, OPTConfig

    common = {"vocab_size": vocabulary, "max_position_embeddings": positions, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
    if kind == "opt":
        sizes = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 32}
        return OPTConfig(**common, **heads, **sizes, dropout=0.1, attention_dropout=0.1)  # type: ignore[arg-type]
    sizes = {"hidden_size": 16, "intermediate_size": 32}
    if kind == "llama":
        return LlamaConfig(**common, **heads, **sizes, num_key_value_heads=1)  # type: ignore[arg-type]
    return GPTNeoXConfig(**common, **heads, **sizes)  # type: ignore[arg-type]


def example_rows(pairs: Sequence[tuple[str, str, str]] = PAIRS) -> pd.DataFrame:
    """Examples as ``import_examples`` writes them."""
    rows = [
        {
            "id": hashlib.sha256("\0".join(pair).encode()).hexdigest()[:16],
            "prompt": pair[0],
            "other_prompt": None,
            "response_0": pair[1],
            "response_1": pair[2],
            "subset": "tiny",
            "origin_split": "train",
            "source_row": f"tiny.jsonl:{number}",
        }
        for number, pair in enumerate(pairs, start=1)
    ]
    return pd.DataFrame(rows)
