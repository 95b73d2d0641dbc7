"""Wins, bias for a place, length control with a known truth, votes and preferences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from w2s import judgements
from w2s.errors import DataError, JoinError

NAN = float("nan")


def table(*rows: tuple[str, int, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=judgements.COMPARISON_COLUMNS)


COMPARED = table(
    ("a", 0, 8, 3), ("a", 1, 7, 6),  # wins both
    ("b", 0, 8, 3), ("b", 1, 4, 6),  # the first shown wins
    ("c", 0, 5, 5), ("c", 1, 2, 6),
    ("d", 0, NAN, NAN), ("d", 1, 2, 6),
    ("e", 0, NAN, NAN), ("e", 1, NAN, NAN),
)  # fmt: skip


def test_wins_are_means_over_the_orders_that_can_be_read() -> None:
    wins, dropped = judgements.prompt_wins(COMPARED)
    assert wins["id"].tolist() == list("abcd")
    assert wins["win"].tolist() == [1, 0.5, 0.25, 0]
    assert wins["orders"].tolist() == [2, 2, 2, 1]
    assert dropped == 1
    scores = judgements.prompt_scores(COMPARED).set_index("id")
    assert scores.loc["b"].tolist() == [6, 4.5]
    assert "e" not in scores.index


def test_bias_for_a_place_is_told_from_quality() -> None:
    # a, b, c can be read in both orders. First shown: a 1, 0; b 1, 1; c 0.5, 1.
    assert judgements.first_shown_wins(COMPARED).to_dict() == {"a": 0.5, "b": 1, "c": 0.75}
    better = table(*[(f"{n}", order, 9, 1) for n in range(5) for order in (0, 1)])
    assert judgements.first_shown_wins(better).tolist() == [0.5] * 5


def test_nothing_readable_is_an_error() -> None:
    nothing = table(("a", 0, NAN, NAN), ("a", 1, 3, 4))
    with pytest.raises(DataError, match="both orders"):
        judgements.first_shown_wins(nothing)
    with pytest.raises(DataError, match="no comparison"):
        judgements.length_controlled(np.array([]), np.array([]))
    with pytest.raises(JoinError, match="id a, order 0"):
        judgements.order_wins(table(("a", 0, 1, 2), ("a", 0, 1, 2)))


def test_length_control_finds_the_win_rate_at_equal_lengths() -> None:
    """The left answers are longer and the judge likes length; at equal lengths the left side wins 60 %."""
    rng = np.random.default_rng(3)
    left, right = rng.normal(140, 30, 20_000), rng.normal(100, 30, 20_000)
    gap = left - right
    true = np.log(0.6 / 0.4) + 1.5 * np.tanh(gap / gap.std())
    wins = (rng.random(len(gap)) < 1 / (1 + np.exp(-true))).astype(float)
    found = judgements.length_controlled(wins, gap)
    assert found.raw > 0.72
    assert found.controlled == pytest.approx(0.6, abs=0.015)
    assert found.slope == pytest.approx(1.5, abs=0.1)
    assert found.prompts == 20_000


def test_length_control_changes_nothing_where_length_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    left, right = rng.normal(140, 30, 20_000), rng.normal(100, 30, 20_000)
    wins = (rng.random(20_000) < 0.7).astype(float)
    found = judgements.length_controlled(wins, left - right)
    assert found.controlled == pytest.approx(0.7, abs=0.02)


def test_length_control_is_fair_to_both_sides_and_stays_finite() -> None:
    rng = np.random.default_rng(5)
    left, right = rng.normal(120, 30, 300), rng.normal(100, 30, 300)
    wins = rng.integers(0, 5, 300) / 4
    there = judgements.length_controlled(wins, left - right)
    back = judgements.length_controlled(1 - wins, right - left)
    assert there.controlled == pytest.approx(1 - back.controlled)
    always = judgements.length_controlled(np.ones(300), left - right)
    assert 0.99 < always.controlled < 1
    equal = judgements.length_controlled(wins, np.zeros(300))
    assert equal.controlled == pytest.approx(wins.mean(), abs=1e-3)


def test_logistic_regression_is_at_its_optimum() -> None:
    rng = np.random.default_rng(6)
    features = np.column_stack([np.ones(50), rng.normal(size=(50, 2))])
    targets = rng.random(50)
    weights = judgements.fit_logistic(features, targets, ridge=0.3)
    shares = 1 / (1 + np.exp(-features @ weights))
    assert features.T @ (shares - targets) + 0.3 * weights == pytest.approx(np.zeros(3), abs=1e-4)


def test_votes_tell_consistency_and_side() -> None:
    votes = pd.DataFrame(
        [("a", n % 2, float(n < 8)) for n in range(10)]
        + [("b", n % 2, float(n % 2)) for n in range(10)]
        + [("c", 0, 0.0), ("c", 1, NAN), ("d", 0, NAN)],
        columns=["id", "order", "preferred"],
    )
    shares, dropped = judgements.vote_shares(votes)
    assert dropped == 1
    assert shares["id"].tolist() == list("abc")
    assert shares["votes"].tolist() == [10, 10, 1]
    assert shares["consistency"].tolist() == pytest.approx([0.8, 0.5, 1])
    labels = pd.DataFrame({"id": list("dcba"), "label": [1, 1, 1, 0]})
    assert judgements.label_votes(shares, labels)["vote"].tolist() == pytest.approx([0.2, 0.5, 0])
    with pytest.raises(JoinError, match="b"):
        judgements.label_votes(shares, labels[labels["id"] != "b"])
