"""Train a reward model on comparisons, as a sequence classifier with one output on top of a language model.

The loss is Bradley-Terry's, see :mod:`w2s.reward_training`. Paper A takes its gold reward from a published model of this
kind; in the demo it is trained here, on noise-free comparisons (``--labels gold``).

Trained on the examples whose ``origin_split`` is "train"; the share of right comparisons on those of "test", which are
never trained on, is recorded with their number (equal rewards count as half).

Inputs: language model, examples (with ``human.parquet`` or ``gold.parquet``). Output: the reward model in the hub's
format with its tokenizer files, ``heldout.csv`` (id, reward of the preferred and of the other response), ``history.csv``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from w2s import cli, reward_training, training
from w2s.encoding import Encoding
from w2s.errors import DataError
from w2s.tables import join_labels, read_examples, read_labels, write_csv

if TYPE_CHECKING:
    from w2s.artifact import Draft


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--model", help="language model to begin with")
    parser.input("--examples", help="examples with labels")
    parser.output("--output", help="manifest of the reward model")
    parser.spec("--labels", choices=("human", "gold"), help="whose preferences")
    parser.spec("--epochs", type=float, default=1.0, help="passes over the pairs")
    parser.spec(
        "--max-tokens", type=cli.positive_int, default=512, help="longest sequence used, BOS and EOS counted"
    )
    parser.spec("--dropout", type=float, default=0.0, help="on hidden states")
    training.add_optimisation(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    training.check_environment(args)
    encoding = Encoding.load(args.model.parent)
    labelled = join_labels(read_examples(args.examples), read_labels(args.examples, f"{args.labels}.parquet"))
    parts = {
        part: labelled[labelled["origin_split"] == part].reset_index(drop=True) for part in ("train", "test")
    }
    for part, rows in parts.items():
        if rows.empty:
            raise DataError(f"no example of origin_split {part!r}", where=args.examples)
    train, test = (
        reward_training.tokenised(parts[part], encoding, args.max_tokens) for part in ("train", "test")
    )

    def make(ordered: training.Columns, settings: dict[str, Any]) -> training.Job:
        return reward_training.job(args, encoding, ordered, settings)

    def finish(trainer: Any, draft: Draft | None) -> None:
        evaluate(trainer, test, encoding.pad_id, draft)

    training.fit(
        args,
        {"model": args.model, "examples": args.examples},
        {name: train[name] for name in reward_training.PAIR},
        make,
        script=__file__,
        finish=finish,
        facts={
            "pairs_too_long": len(parts["train"]) - len(train["id"]),
            "heldout_pairs_too_long": len(parts["test"]) - len(test["id"]),
        },
    )


def evaluate(trainer: Any, test: training.Columns, pad_id: int, draft: Draft | None) -> None:
    """Record the share of held-out pairs in which the preferred response has the higher reward."""
    from w2s import trainers

    rewards = {
        name: trainers.rewards(trainer, test[f"{name}_ids"], pad_id) for name in ("chosen", "rejected")
    }
    if draft is None:
        return
    import pandas as pd

    table = pd.DataFrame({"id": test["id"], **rewards})
    write_csv(table, draft.path("heldout.csv"))
    right = (table["chosen"] > table["rejected"]) + 0.5 * (table["chosen"] == table["rejected"])
    draft.record(heldout_accuracy=float(right.mean()), heldout_pairs=len(table))


if __name__ == "__main__":
    cli.run(main)
