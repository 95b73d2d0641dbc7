"""Optimise a weak teacher directly on preferences: the second of its two steps.

Paper A, equation of DPO and Tables 7 and 8: beta 0.1, LoRA of rank 8 (alpha 32, dropout 0.1), learning rate 5e-5,
global batch 16, one epoch, constant schedule, on the part labelled (D_l) under human labels.
The reference is the model before this step; its log-probabilities are read from ``--reference-scores``, made by
``score_responses``. See :mod:`w2s.dpo` for the loss, :mod:`w2s.training` for batches, precision and resuming.

Inputs: model, examples, split, labels, reference scores. Output: the whole model, adapters merged, in the hub's
format with its tokenizer files, and ``history.csv`` (step, loss, rewards of chosen and rejected, ...).
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s import cli, dpo


def arguments() -> cli.StageParser:
    """The command line."""
    return dpo.arguments(__doc__ or "")


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    dpo.run(arguments().parse_args(argv), __file__)


if __name__ == "__main__":
    cli.run(main)
