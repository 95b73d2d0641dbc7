"""Fine-tune a student on the preferred responses of its part of the data: the first of its two steps.

Paper A, section 3 and Tables 7 and 8: full fine-tuning, learning rate 1e-5, global batch 32, one epoch, constant
schedule, on the part unlabelled (D_u) under labels of a feedback: the weak teacher's or the humans'. The paper does not say whether the loss
covers the prompt; here it covers the response and its EOS unless ``--loss-on all`` is given. Dropout is OPT's own 0.1
unless told otherwise. See :mod:`w2s.sft` for the loss, :mod:`w2s.training` for batches, precision and resuming.

Inputs: model, examples, split, labels. Output: the whole model in the hub's format with its tokenizer files, and
``history.csv`` (step, loss and what the trainer measures; each row a mean since the row before).
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s import cli, sft


def arguments() -> cli.StageParser:
    """The command line."""
    return sft.arguments(__doc__ or "")


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    sft.run(arguments().parse_args(argv), __file__)


if __name__ == "__main__":
    cli.run(main)
