"""Losses of direct preference optimisation, pair by pair, so that each pair can have its weight and its own certainty.

All of them are functions of two numbers per response: the sum of log policy minus log reference over its tokens, and the
number of its tokens. ``LOSSES`` has the names of TRL, and its values; there is a test of each against TRL.

A soft label q, the probability that the chosen response is the better one, makes a pair's loss the expectation over
which of the two it is: q times the loss as it stands plus 1 - q times the loss with the responses exchanged. With
``sigmoid`` that is conservative DPO.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.functional import logsigmoid


class Side(NamedTuple):
    """One response of each pair: log policy minus log reference, summed over its tokens, and their number; (pairs,)."""

    ratio: torch.Tensor
    tokens: torch.Tensor

    @property
    def mean(self) -> torch.Tensor:
        """Log ratio per token."""
        return self.ratio / self.tokens


def sigmoid(first: Side, second: Side, beta: float, noise: float) -> torch.Tensor:
    """DPO."""
    return -logsigmoid(beta * (first.ratio - second.ratio))


def sigmoid_norm(first: Side, second: Side, beta: float, noise: float) -> torch.Tensor:
    """DPO on log ratios per token."""
    return -logsigmoid(beta * (first.mean - second.mean))


def hinge(first: Side, second: Side, beta: float, noise: float) -> torch.Tensor:
    """SLiC: the margin is asked to be 1 and no more."""
    return torch.relu(1 - beta * (first.ratio - second.ratio))


def ipo(first: Side, second: Side, beta: float, noise: float) -> torch.Tensor:
    """IPO, on log ratios per token: the margin is asked to be 1 / (2 beta), neither less nor more."""
    return (first.mean - second.mean - 1 / (2 * beta)) ** 2


def robust(first: Side, second: Side, beta: float, noise: float) -> torch.Tensor:
    """DPO whose expectation over labels that are wrong with probability ``noise`` is that of right labels."""
    right, wrong = sigmoid(first, second, beta, 0), sigmoid(second, first, beta, 0)
    return ((1 - noise) * right - noise * wrong) / (1 - 2 * noise)


def apo_zero(first: Side, second: Side, beta: float, noise: float) -> torch.Tensor:
    """APO: up with the first response, down with the second."""
    return torch.sigmoid(-beta * first.ratio) + torch.sigmoid(beta * second.ratio)


def apo_down(first: Side, second: Side, beta: float, noise: float) -> torch.Tensor:
    """APO: down with both, with the second further."""
    return torch.sigmoid(beta * first.ratio) + torch.sigmoid(-beta * (first.ratio - second.ratio))


def nca_pair(first: Side, second: Side, beta: float, noise: float) -> torch.Tensor:
    """NCA: the first response likely, and both not too likely."""
    return (
        -logsigmoid(beta * first.ratio) - sum(logsigmoid(-beta * side.ratio) for side in (first, second)) / 2
    )


def sppo_hard(first: Side, second: Side, beta: float, noise: float) -> torch.Tensor:
    """SPPO: the log ratios are asked to be plus and minus 1 / (2 beta)."""
    return (first.ratio - 1 / (2 * beta)) ** 2 + (second.ratio + 1 / (2 * beta)) ** 2


Loss = Callable[[Side, Side, float, float], torch.Tensor]
LOSSES: dict[str, Loss] = {
    loss.__name__: loss
    for loss in (sigmoid, hinge, ipo, robust, sigmoid_norm, apo_zero, apo_down, nca_pair, sppo_hard)
}


def pair_losses(
    name: str,
    chosen: Side,
    rejected: Side,
    beta: float,
    noise: float = 0.0,
    probability: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of each pair, (pairs,).

    Args:
        name: one of LOSSES.
        chosen: the preferred response.
        rejected: the other one.
        beta: strength of the pull towards the reference.
        noise: of ``robust``, below one half.
        probability: soft labels; None takes each label as it is.
        weight: factors. Not normalised: the mean over a batch then does not depend on how it is divided.
    """
    loss = LOSSES[name]
    found = loss(chosen, rejected, beta, noise)
    if probability is not None:
        found = probability * found + (1 - probability) * loss(rejected, chosen, beta, noise)
    return found if weight is None else weight * found
