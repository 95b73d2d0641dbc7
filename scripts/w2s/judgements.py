"""What a judge's comparisons and votes say: wins, bias for a place, length-controlled wins, consistency, preferences.

Numbers per prompt or pair come out as tables with one row per id, so that their intervals are those of
:mod:`w2s.statistics`. Rows without a parsed reply (NaN) are left out, and how many ids that leaves without any is
returned beside the table.

**Length control.** Judges like long answers. As length-controlled AlpacaEval does in idea (Dubois et al. 2024), wins
are explained by a logistic regression on an intercept and the difference of the answers' lengths, tanh((left - right) /
standard deviation), and the win rate is read off at equal lengths: sigmoid(intercept). Wins may be fractions; both
coefficients carry a small ridge penalty, so that they stay finite when one side always wins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from w2s.errors import DataError, JoinError
from w2s.tables import check_same_ids, check_unique

COMPARISON_COLUMNS = ["id", "order", "score_left", "score_right"]
# Weight of the penalty, in units of one prompt's log-likelihood.
RIDGE = 0.01
NEWTON_STEPS, TOLERANCE = 100, 1e-10


@dataclass(frozen=True)
class LengthControl:
    """A win rate as it is and at equal lengths, and the coefficient of the length difference."""

    raw: float
    controlled: float
    slope: float
    prompts: int


def order_wins(comparisons: pd.DataFrame) -> pd.DataFrame:
    """1 where the left answer has the higher score, 0.5 at a tie, 0 where it has the lower one, by order.

    Args:
        comparisons: COMPARISON_COLUMNS, scores NaN where no reply could be read.

    Returns:
        id, order, win; rows without scores are left out.

    Raises:
        JoinError: an (id, order) occurs twice.
    """
    twice = comparisons[comparisons.duplicated(["id", "order"])]
    if len(twice):
        row = twice.iloc[0]
        raise JoinError(f"{len(twice)} rows occur twice, first: id {row['id']}, order {row['order']}")
    gap = (comparisons["score_left"] - comparisons["score_right"]).to_numpy(float)
    found = comparisons[["id", "order"]].assign(win=(np.sign(gap) + 1) / 2)
    return found[found["win"].notna()].reset_index(drop=True)


def prompt_wins(comparisons: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The left side's win per prompt, mean over the orders that could be read, and the number of prompts dropped.

    Returns:
        A table id, win (0, 0.25, ..., 1), orders (1 or 2), sorted by id; and how many prompts have no readable reply.
    """
    wins = order_wins(comparisons).groupby("id")["win"].agg(win="mean", orders="size").reset_index()
    return wins, comparisons["id"].nunique() - len(wins)


def prompt_scores(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Mean scores of both sides per prompt over the orders that could be read: id, score_left, score_right."""
    read = comparisons.dropna(subset=["score_left", "score_right"])
    return read.groupby("id")[["score_left", "score_right"]].mean().reset_index()


def first_shown_wins(comparisons: pd.DataFrame) -> pd.Series:
    """By prompt, how often the answer that is shown first gets the higher score, ties half.

    The mean is 0.5 without a liking for a place. Only prompts whose two orders could both be read count, so that quality
    cannot pass for place.
    """
    both = _both_orders(order_wins(comparisons), "win")
    return (both[0] + 1 - both[1]) / 2


def length_controlled(wins: np.ndarray, differences: np.ndarray) -> LengthControl:
    """The left side's win rate at equal lengths.

    Args:
        wins: between 0 and 1, shape (n,); see :func:`prompt_wins`.
        differences: tokens of the left answer minus those of the right one, shape (n,).

    Raises:
        DataError: there are no wins.
    """
    if not len(wins):
        raise DataError("no comparison could be read")
    deviation = float(differences.std())
    feature = np.tanh(differences / deviation) if deviation > 0 else np.zeros(len(wins))
    intercept, slope = fit_logistic(np.column_stack([np.ones_like(feature), feature]), wins)
    return LengthControl(float(wins.mean()), float(_sigmoid(intercept)), float(slope), len(wins))


def fit_logistic(features: np.ndarray, targets: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """Coefficients of a logistic regression with a ridge penalty, by Newton's method with halved steps.

    Args:
        features: shape (n, k).
        targets: between 0 and 1, shape (n,).
        ridge: weight of half the sum of squared coefficients, above 0: the objective is then strictly convex.

    Returns:
        Shape (k,).
    """

    def objective(weights: np.ndarray) -> float:
        scores = features @ weights
        return float(np.sum(np.logaddexp(0, scores) - targets * scores) + ridge / 2 * weights @ weights)

    weights = np.zeros(features.shape[1])
    value = objective(weights)
    for _ in range(NEWTON_STEPS):
        shares = _sigmoid(features @ weights)
        gradient = features.T @ (shares - targets) + ridge * weights
        hessian = (features * (shares * (1 - shares))[:, None]).T @ features + ridge * np.eye(len(weights))
        step = np.linalg.solve(hessian, gradient)
        if float(gradient @ step) < TOLERANCE:
            break
        size = 1.0
        while (tried := objective(weights - size * step)) > value and size > TOLERANCE:
            size /= 2
        weights, value = weights - size * step, tried
    return weights


def vote_shares(votes: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """How a pair's votes fall (paper A, Table 4), and the number of pairs without any readable vote.

    Args:
        votes: id, preferred (0, 1 or NaN).

    Returns:
        A table id, votes (readable ones), share_1 (of votes for response 1), consistency (share of the majority,
        0.5 to 1), sorted by id; and the number of pairs dropped.
    """
    read = votes.dropna(subset=["preferred"])
    found = read.groupby("id")["preferred"].agg(votes="size", share_1="mean").reset_index()
    found["consistency"] = np.maximum(found["share_1"], 1 - found["share_1"])
    return found, votes["id"].nunique() - len(found)


def label_votes(shares: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Share of votes for the response that the label prefers: id, vote.

    Args:
        shares: of :func:`vote_shares`.
        labels: id, label (0 or 1), for all ids of ``shares`` at least.

    Raises:
        JoinError: a label is missing or there twice.
    """
    check_unique(labels["id"], "labels")
    known = labels[labels["id"].isin(shares["id"])]
    check_same_ids(shares["id"], known["id"], "the votes", "the labels")
    label = labels.set_index("id")["label"].loc[shares["id"]].to_numpy()
    return shares[["id"]].assign(vote=np.where(label == 1, shares["share_1"], 1 - shares["share_1"]))


def _both_orders(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """``column`` of the ids that have both orders, one column per order."""
    wide = table.pivot(index="id", columns="order", values=column).reindex(columns=[0, 1]).dropna()
    if wide.empty:
        raise DataError("no prompt could be read in both orders")
    return wide


def _sigmoid(value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(value, -500, 500)))
