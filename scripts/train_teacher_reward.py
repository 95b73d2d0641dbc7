"""Train a weak teacher as a reward model: one step on its part of the data, in the place of SFT and DPO.

Paper A, appendix C and Table 13: a plain Bradley-Terry reward model on the part labelled (D_l) under human labels labels
the rest as well as the teacher by DPO does. Its architecture and hyper-parameters are not in the paper; here it begins
with the weak teacher's base model, with a new map from the last token's hidden state to one number. See
:mod:`w2s.reward_training` for the loss, :mod:`w2s.training` for batches, precision and resuming.

Nothing of D_l is held out or cut, and no pair is left out but those that the label file leaves out: ``accuracy`` in
``history.csv`` is the share of right comparisons among the pairs that are being trained on. ``reward_responses`` gives the
rewards that label the rest.

LoRA (rank above 0) trains adapters on the layers that PEFT chooses for the model family, and the new map whole; the
adapters are merged into the weights at the end.

Inputs: language model, examples, split, labels. Output: the reward model in the hub's format with its tokenizer files,
and ``history.csv`` (step, loss and what the trainer measures; each row a mean since the row before).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from w2s import cli, reward_training, training
from w2s.encoding import Encoding
from w2s.tables import PARTS, read_labelled


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--model", help="language model to begin with")
    parser.input("--examples", help="examples")
    parser.input("--split", help="split of the examples")
    parser.input("--labels", help="which response is preferred; what it leaves out is not trained on")
    parser.output("--output", help="manifest of the reward model")
    parser.spec("--part", choices=PARTS, help="part of the split to train on")
    parser.spec("--epochs", type=float, default=1.0, help="passes over the part")
    parser.spec("--dropout", type=float, default=0.0, help="on hidden states")
    training.add_optimisation(parser)
    training.add_lora(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    training.check_environment(args)
    labelled, _ = read_labelled(args.examples, args.split, args.part, args.labels)
    encoding = Encoding.load(args.model.parent)
    pairs = reward_training.tokenised(labelled, encoding)
    columns = {name: pairs[name] for name in reward_training.PAIR}

    def make(ordered: training.Columns, settings: dict[str, Any]) -> training.Job:
        return reward_training.job(args, encoding, ordered, settings)

    tokens = sum(len(ids) for rows in columns.values() for ids in rows)
    parents = {"model": args.model, "examples": args.examples, "split": args.split, "labels": args.labels}
    training.fit(args, parents, columns, make, script=__file__, facts={"tokens_per_epoch": tokens})


if __name__ == "__main__":
    cli.run(main)
