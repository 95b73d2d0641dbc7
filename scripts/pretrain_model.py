"""Train a small language model from scratch: OPT's architecture on a corpus of texts, saved in the hub's format.

It stands in for a published base model where none can be had: on a CPU, in the demo and in ``hh-small``. Weights begin
as normal numbers of the standard deviation ``--initial-std`` (0.04: the usual 0.02 learns slowly at these sizes), and
the loss is the mean negative log-likelihood over *all* tokens of BOS, prompt, response, EOS. AdamW with a cosine
schedule after a linear warm-up; no dropout. A text longer than ``--max-tokens`` is left out and counted, never cut.
Rows of similar length share a batch, see :func:`w2s.training.similar_length_order`.

Inputs: corpus (``corpus.parquet``: prompt, response), tokenizer.
Output: the model with its tokenizer files, ``positions`` in ``encoding.json`` set to the model's, and ``history.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from w2s import cli, training
from w2s.artifact import load
from w2s.encoding import Encoding
from w2s.errors import ConfigError, DataError
from w2s.tables import read_parquet


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--corpus", help="texts to learn from")
    parser.input("--tokenizer", help="tokenizer of the model")
    parser.output("--output", help="manifest of the model")
    for name, what in (
        ("--width", "size of the hidden states"),
        ("--layers", "number of layers"),
        ("--heads", "attention heads per layer"),
        ("--feed-forward", "size of the layer between the two linear maps"),
        ("--positions", "longest sequence that the model can take"),
        ("--steps", "optimiser steps"),
        ("--max-tokens", "longest text learnt from, BOS and EOS counted"),
    ):
        parser.spec(name, type=cli.positive_int, help=what)
    parser.spec("--initial-std", type=float, default=0.04, help="standard deviation of the first weights")
    training.add_optimisation(parser, schedule="cosine")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    training.check_environment(args)
    check(args)
    encoding = Encoding.load(args.tokenizer.parent)
    encoding.positions = args.positions
    sequences, dropped = tokenised(args.corpus, encoding, args.max_tokens)
    columns: training.Columns = {"input_ids": sequences, "labels": sequences}

    def make(ordered: training.Columns, settings: dict[str, Any]) -> training.Job:
        return job(args, encoding, ordered, settings)

    training.fit(
        args,
        {"corpus": args.corpus, "tokenizer": args.tokenizer},
        columns,
        make,
        script=__file__,
        steps=args.steps,
        similar_lengths=True,
        facts={"texts_dropped": dropped, "tokens_per_epoch": sum(map(len, sequences))},
    )


def check(args: argparse.Namespace) -> None:
    """Refuse sizes that do not fit together.

    Raises:
        ConfigError: heads do not divide the width, or texts longer than the positions are let through.
    """
    if args.width % args.heads:
        raise ConfigError(
            f"a width of {args.width} cannot be divided among {args.heads} heads", where="--heads"
        )
    if args.max_tokens > args.positions:
        raise ConfigError(
            f"texts of up to {args.max_tokens} tokens do not fit {args.positions} positions",
            where="--max-tokens",
            instead=f"at most {args.positions}",
        )


def tokenised(corpus: Path, encoding: Encoding, max_tokens: int) -> tuple[list[list[int]], int]:
    """Texts of at most ``max_tokens`` tokens as ids (BOS, prompt, response, EOS), and how many were longer.

    Raises:
        DataError: no text is short enough.
    """
    path = load(corpus).path("corpus.parquet")
    texts = read_parquet(path, ["prompt", "response"])
    prompts, responses = (
        encoding.prompts_ids(texts["prompt"].tolist()),
        encoding.responses_ids(texts["response"].tolist()),
    )
    sequences = [start + end for start, end in zip(prompts, responses, strict=True)]
    kept = [ids for ids in sequences if len(ids) <= max_tokens]
    if not kept:
        raise DataError(
            f"no text of at most {max_tokens} tokens", where=path, instead="a larger --max-tokens"
        )
    return kept, len(sequences) - len(kept)


def job(
    args: argparse.Namespace, encoding: Encoding, ordered: training.Columns, settings: dict[str, Any]
) -> training.Job:
    """transformers' own trainer on a model with fresh weights."""
    from w2s import trainable, trainers

    def fresh() -> Any:
        return trainable.new_model(args, encoding)

    return training.Job(
        trainers.language_model(fresh(), encoding.pad_id, ordered, settings), encoding.save, fresh
    )


if __name__ == "__main__":
    cli.run(main)
