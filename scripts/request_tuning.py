"""Tune a model behind an endpoint on records (paper B: students are tuned by OpenAI's fine-tuning API).

The records are uploaded, a job is submitted and waited for. As in the paper only the file, the base model and here a
seed are sent; hyper-parameters are the endpoint's own unless ``--settings`` name them. Each job is submitted once,
whatever happens: ``--book`` keeps what was sent, before and after, and the same command continues where it was
interrupted (docs/judge.md). The endpoint's address and key come from the environment.

The base model is part of what a job is known by, and a job of another base is refused: the paper's program named one
base for all of its students.

Input: records (``gather_records``).
Output: ``tuned.json``: model (its name at the endpoint), base, base_told (as the endpoint calls it), job, file,
hyperparameters and seed (as sent), trained_tokens, cost_usd, records, records_sha256, key, events (the last ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from w2s import cli, judge_stage
from w2s.artifact import Artifact, load, write_json
from w2s.conversations import read_messages
from w2s.errors import ConfigError, DataError
from w2s.tables import read_parquet

if TYPE_CHECKING:
    from w2s.tuning_jobs import Records

# The most that the API's automatic choice makes, of small files.
EPOCHS = 25


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--records", help="records to tune on")
    parser.output("--output", help="manifest of the tuned model")
    parser.spec(
        "--settings",
        type=cli.json_object,
        help="JSON: model (the base), and if they are to be sent n_epochs, batch_size, learning_rate_multiplier",
    )
    parser.spec("--seed", type=judge_stage.natural, help="seed of the job")
    parser.option(
        "--book",
        type=Path,
        required=True,
        help="SQLite file of all tuning jobs; made if it is not there, never emptied",
    )
    judge_stage.add_connection(parser)
    parser.option(
        "--poll", type=judge_stage.positive, default=30.0, help="seconds between two looks at a job"
    )
    parser.option(
        "--settle",
        type=judge_stage.positive,
        default=60.0,
        help="seconds after which the endpoint lists a job that was submitted to it",
    )
    parser.option(
        "--jobs",
        type=cli.positive_int,
        default=1,
        help="jobs that may be submitted for the same records and settings, those that failed included",
    )
    parser.option(
        "--budget-usd",
        type=judge_stage.amount,
        default=None,
        help="what all jobs of the book may cost, ever; needed where there is a price",
    )
    parser.option(
        "--price-training", type=judge_stage.amount, default=Decimal(0), help="USD per million trained tokens"
    )
    parser.option(
        "--epochs-at-most",
        type=cli.positive_int,
        default=EPOCHS,
        help="that the endpoint makes where --settings do not say, for the budget",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    if (args.budget_usd is None) != (args.price_training == 0):
        raise ConfigError("a price without a limit, or a limit without a price", instead="both, or neither")
    records = read_records(args.records)

    from w2s.endpoints import Limits, Prices, reach
    from w2s.judge_store import NANO
    from w2s.tuning_book import Book
    from w2s.tuning_jobs import Settings, Tuner, Waiting

    settings = Settings.read(args.settings)
    limits = Limits(budget=args.budget_usd, attempts=args.attempts, timeout=args.timeout)
    waiting = Waiting(args.poll, args.settle, args.jobs)
    endpoint = reach(args.base_url_variable, args.key_variable, args.timeout)
    parents = {"records": args.records}
    with (
        Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact,
        Book(args.book) as book,
    ):
        price = Prices(args.price_training)
        tuner = Tuner(endpoint, book, settings, args.seed, price, args.epochs_at_most, limits, waiting)
        tuned = tuner.tune(records)
        write_json(tuned, artifact.path("tuned.json"))
        artifact.record(
            rows_in=records.number,
            **{name: tuned[name] for name in ("model", "base", "job", "trained_tokens", "cost_usd")},
        )
        artifact.measure(endpoint=endpoint.name, book_cost_usd=book.spent_nano() / NANO)


def read_records(manifest: Path) -> Records:
    """The records in the endpoint's form, in the table's order.

    Raises:
        DataError: there are none, or one has no answer or no conversation.
    """
    from w2s.tuning_jobs import Records

    path = load(manifest).path("records.parquet")
    table = read_parquet(path, ["id", "messages", "answer"])
    if table.empty:
        raise DataError("there is nothing to tune on: the table is empty", where=path)
    conversations = []
    for row in table.itertuples():
        where = f"{path}, row {row.Index}, id {row.id}"
        if not isinstance(row.answer, str) or not row.answer.strip():
            raise DataError("a record without an answer", where=where)
        conversations.append(
            [*read_messages(row.messages, where), {"role": "assistant", "content": row.answer}]
        )
    return Records.make(conversations)


if __name__ == "__main__":
    cli.run(main)
