"""Fine-tune a student on records: questions as chat messages, answers of whatever source. Paper B, Algorithms 1 and 2.

The loss of a batch is the mean of -log p over the tokens of its answers and their end tokens; messages carry none. The
paper tunes by an API at its defaults, so epochs, learning rate and batch are declared settings here. Messages are read
in the form ``--chat`` (:mod:`w2s.chat`), which must be that of the student's test answers; in the form ``plain`` a
blank joins prompt and answer. An id that occurs twice (doubling: the weak answer and the strong model's own) is two
rows. See :mod:`w2s.training` for batches, precision and resuming.

``--confidence-weight`` above 0 adds the auxiliary confidence loss, for which the paper has only the proxy of doubling:
a share a of the loss is the cross entropy with the student's own likeliest token, and a grows linearly from 0 during
``--confidence-warmup`` (:mod:`w2s.confidence`).

The manifest names the base model by digest and the records, whose own manifests name who refined them: refiner and
base cannot be confused.

Inputs: model, records. Output: the whole model in the hub's format with its tokenizer files, and ``history.csv``
(step, loss and what the trainer measures; each row a mean since the row before).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import chat, cli, sft, training
from w2s.artifact import load
from w2s.encoding import Encoding
from w2s.errors import DataError
from w2s.tables import named, read_parquet

if TYPE_CHECKING:
    import pandas as pd


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--model", help="language model to begin with: the student's base")
    parser.input("--records", help="training records, as gather_records makes them")
    parser.output("--output", help="manifest of the trained model")
    chat.add_chat(parser)
    parser.spec("--epochs", type=float, default=1.0, help="passes over the records")
    parser.spec("--dropout", type=float, default=0.0, help="on hidden states")
    parser.spec(
        "--confidence-weight",
        type=cli.share,
        default=0.0,
        help="share of the loss that asks for the student's own prediction; 0: none",
    )
    parser.spec(
        "--confidence-warmup",
        type=cli.share,
        default=0.1,
        help="share of the steps in which that grows linearly from 0",
    )
    training.add_optimisation(parser)
    training.add_lora(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    training.check_environment(args)
    records = read_records(args.records)
    reader = chat.Chat(Encoding.load(load(args.model).folder), args.chat, args.chat_sha256)
    conversations = chat.conversations(records, args.records)
    columns = tokenised(records, conversations, reader)
    training.fit(
        args,
        {"model": args.model, "records": args.records},
        columns,
        lambda ordered, settings: job(args, ordered, settings),
        script=__file__,
        facts={
            "tokens_per_epoch": sum(len(ids) for rows in columns.values() for ids in rows),
            "sources": records["source"].value_counts().sort_index().to_dict(),
            **reader.facts(conversations),
        },
    )


def read_records(manifest: Path) -> pd.DataFrame:
    """The rows to train on: id, messages, answer, source.

    Raises:
        DataError: none, or one whose answer says nothing; its id is named.
    """
    path = load(manifest).path("records.parquet")
    records = read_parquet(path, ["id", "messages", "answer", "source"])
    silent = records[records["answer"].fillna("").str.strip() == ""]
    if records.empty or len(silent):
        raise DataError(
            f"{len(silent)} of {len(records)} records have no answer: {named(silent['id'])}",
            where=path,
            instead="records that gather_records has cleared of empty answers, at least one",
        )
    return records


def tokenised(
    records: pd.DataFrame, conversations: Sequence[chat.Messages], reader: chat.Chat
) -> training.Columns:
    """Records as token ids: ``prompt_ids``, and ``response_ids`` (answer and end token), which carry the loss.

    Raises:
        DataError: a sequence is beyond the model's positions; its id is named. Nothing is ever cut.
    """
    starts, ends = reader.prompts_ids(conversations), reader.answers_ids(records["answer"].tolist())
    for name, start, end in zip(records["id"], starts, ends, strict=True):
        reader.encoding.check_length(len(start) + len(end), f"id {name}")
    return {"prompt_ids": starts, "response_ids": ends}


def job(args: argparse.Namespace, ordered: training.Columns, settings: dict[str, Any]) -> training.Job:
    """The SFT trainer, with the confidence loss if it is asked for."""
    made = sft.job(args, ordered, settings)
    if args.confidence_weight:
        from w2s.confidence import ConfidenceLoss

        made.trainer.compute_loss = ConfidenceLoss(
            made.trainer, args.confidence_weight, args.confidence_warmup
        )
    return made


if __name__ == "__main__":
    cli.run(main)
