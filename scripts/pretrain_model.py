"""Train a small language model from scratch on a corpus of texts, in an architecture of one's choice.

It stands in for a published base model where none can be had: on a CPU, in the demo and in ``hh-small``. Weights begin
as normal numbers of the standard deviation ``--initial-std`` (0.04: the usual 0.02 learns slowly at these sizes), and
the loss is the mean negative log-likelihood over *all* tokens of BOS, prompt, response, EOS; where the corpus says
which characters of a response carry the loss (column ``scored``: a list of [start, end)), over the tokens that begin in
them and the EOS. AdamW with a cosine schedule after a linear warm-up; no dropout. A text longer than ``--max-tokens`` is
left out and counted, never cut.
Rows of similar length share a batch, see :func:`w2s.training.similar_length_order`.

``--architecture`` takes transformers' own class of that family, so that a small model stands in for a large one of its
kind (paper A: OPT; Figure 3a: Llama-2, Mistral, Gemma; Table 10: GPT-Neo, and Pythia, which is a GPT-NeoX). Width,
layers, heads, size of the feed-forward layer and positions mean the same in all. They differ in the rest, as the
families do, so that equal sizes are not equal numbers of weights:

| architecture | positions | normalisation | feed-forward | also |
|---|---|---|---|---|
| opt | learnt | LayerNorm | two maps, ReLU | word vectors are the head's, biases |
| llama | rotary | RMSNorm | three maps, SiLU gate | no biases |
| mistral | rotary | RMSNorm | three maps, SiLU gate | no biases; here no sliding window and no shared keys |
| gemma | rotary | RMSNorm around 1 | three maps, GELU gate | word vectors are the head's, scaled by sqrt(width) |
| gpt-neo | learnt | LayerNorm | two maps, GELU | word vectors are the head's; every second layer sees 256 tokens |
| gpt-neox | rotary, on a quarter | LayerNorm | two maps, GELU, beside attention | biases |
| qwen2 | rotary | RMSNorm | three maps, SiLU gate | biases on queries, keys and values |

Where the word vectors are not the head's, the head has weights of its own. Heads of attention share no keys and values
in any. Positions are rows of a table in opt and gpt-neo; elsewhere they only say how long a sequence is let through.
What a published model of the family sets otherwise (Gemma's heads are wider than its width divided by their number,
Mistral's share keys and values) is not copied.

Inputs: corpus (``corpus.parquet``: prompt, response, for some corpora scored), tokenizer.
Output: the model in the hub's format with its tokenizer files, ``positions`` in ``encoding.json`` set to the model's,
and ``history.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import architectures, cli, training
from w2s.artifact import load
from w2s.encoding import Encoding
from w2s.errors import ConfigError, DataError
from w2s.tables import read_parquet

if TYPE_CHECKING:
    import pandas as pd

# Label of a token without loss, torch's and transformers' own.
IGNORED = -100


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--corpus", help="texts to learn from")
    parser.input("--tokenizer", help="tokenizer of the model")
    parser.output("--output", help="manifest of the model")
    parser.spec(
        "--architecture",
        choices=architectures.ARCHITECTURES,
        default=architectures.DEFAULT,
        help="family of the model",
    )
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
    if args.architecture == architectures.DEFAULT:
        # What is not chosen is not named: an OPT's manifest is the one of a stage without the choice.
        del args.spec["architecture"]
    encoding = Encoding.load(args.tokenizer.parent)
    encoding.positions = args.positions
    columns, dropped = tokenised(args.corpus, encoding, args.max_tokens)
    sequences = columns["input_ids"]

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
        ConfigError: see :func:`w2s.architectures.check_sizes`; or texts longer than the positions are let through.
    """
    architectures.check_sizes(args.architecture, args.width, args.heads)
    if args.max_tokens > args.positions:
        raise ConfigError(
            f"texts of up to {args.max_tokens} tokens do not fit {args.positions} positions",
            where="--max-tokens",
            instead=f"at most {args.positions}",
        )


def tokenised(corpus: Path, encoding: Encoding, max_tokens: int) -> tuple[training.Columns, int]:
    """Texts of at most ``max_tokens`` tokens, and how many were longer.

    Returns:
        Two columns, input_ids (BOS, prompt, response, EOS) and labels (the same where no column ``scored`` says
        otherwise; -100 carries no loss); the number of texts left out.

    Raises:
        DataError: no text is short enough; see :func:`masked`.
    """
    path = load(corpus).path("corpus.parquet")
    texts = read_parquet(path, ["prompt", "response"])
    prompts, responses = (
        encoding.prompts_ids(texts["prompt"].tolist()),
        encoding.responses_ids(texts["response"].tolist()),
    )
    sequences = [start + end for start, end in zip(prompts, responses, strict=True)]
    labels = masked(texts, prompts, responses, encoding, path) if "scored" in texts else sequences
    kept = [row for row, ids in enumerate(sequences) if len(ids) <= max_tokens]
    if not kept:
        raise DataError(
            f"no text of at most {max_tokens} tokens", where=path, instead="a larger --max-tokens"
        )
    columns = {"input_ids": [sequences[row] for row in kept], "labels": [labels[row] for row in kept]}
    return columns, len(sequences) - len(kept)


def masked(
    texts: pd.DataFrame, prompts: list[list[int]], responses: list[list[int]], encoding: Encoding, path: Path
) -> list[list[int]]:
    """Labels of texts of which only some characters carry the loss: the tokens that begin in them, and the EOS.

    Raises:
        DataError: a response alone has other tokens than behind its prompt, so that their places are not known.
    """
    found = encoding.tokenizer.encode_batch(texts["response"].tolist(), add_special_tokens=False)
    labels = []
    for row, (text, prompt, response) in enumerate(zip(found, prompts, responses, strict=True)):
        *tokens, end = response
        if text.ids != tokens:
            raise DataError(
                "the tokenizer divides a response that stands alone in another way than inside a text",
                where=f"{path}, row {row}",
                instead="a tokenizer that puts no blank in front of a text, e.g. one of train_tokenizer",
            )
        carries = {place for first, last in texts["scored"].iloc[row] for place in range(first, last)}
        scored = [
            token if start in carries else IGNORED
            for token, (start, _) in zip(tokens, text.offsets, strict=True)
        ]
        labels.append([IGNORED] * len(prompt) + scored + [end])
    return labels


def job(
    args: argparse.Namespace, encoding: Encoding, ordered: training.Columns, settings: dict[str, Any]
) -> training.Job:
    """transformers' own trainer on a model with fresh weights."""
    from w2s import trainers

    def fresh() -> Any:
        return architectures.new_model(args, encoding)

    return training.Job(
        trainers.language_model(fresh(), encoding.pad_id, ordered, settings), encoding.save, fresh
    )


if __name__ == "__main__":
    cli.run(main)
