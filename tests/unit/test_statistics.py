"""Intervals against known truths: exact values of small cases, coverage in simulations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from w2s import statistics
from w2s.errors import DataError, JoinError
from w2s.statistics import Bootstrap, bootstrap_mean, pair, paired_difference, t_quantile, wilson


def cells(values: np.ndarray, first_prompt: int = 0) -> pd.DataFrame:
    """Cells of a (seeds, prompts) array."""
    seeds, prompts = values.shape
    ids = [f"p{first_prompt + number:05}" for number in range(prompts)]
    return pd.DataFrame(
        {"seed": np.repeat(np.arange(seeds), prompts), "id": np.tile(ids, seeds), "value": values.ravel()}
    )


def coverage(seeds: int, deviations: tuple[float, float, float], stretch: bool, runs: int = 300) -> float:
    """Share of simulations whose interval holds the true mean, 0: deviations of seeds, prompts and cells."""
    generator = np.random.default_rng(7)
    by_seed, by_prompt, by_cell = deviations
    hits = 0
    for _ in range(runs):
        values = generator.normal(0, by_seed, (seeds, 1)) + generator.normal(0, by_prompt, (1, 100))
        values = values + generator.normal(0, by_cell, (seeds, 100))
        # One seed of the draws for all runs: the draws are then made once. They are independent of the data.
        found = bootstrap_mean(cells(values), Bootstrap(400, 3), stretch=stretch)
        hits += found.low <= 0 <= found.high
    return hits / runs


def test_one_seed_covers_95_percent_over_prompts():
    # The standard error of 300 simulations at 0.95 is 0.013.
    assert coverage(1, (0, 1, 0), stretch=True) == pytest.approx(0.95, abs=0.03)


def test_three_seeds_need_the_stretch():
    deviations = (0.3, 0.3, 0.5)
    stretched, plain = coverage(3, deviations, True), coverage(3, deviations, False)
    assert stretched == pytest.approx(0.95, abs=0.035)
    assert plain < 0.91
    assert coverage(8, deviations, True) == pytest.approx(0.95, abs=0.035)


def test_standard_error_is_the_exact_one():
    values = np.random.default_rng(0).normal(3, 2, (1, 50))
    found = bootstrap_mean(cells(values), Bootstrap(20000, 1), stretch=False)
    exact = values.std(ddof=1) / np.sqrt(50)
    assert found.mean == pytest.approx(values.mean(), abs=1e-12)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(exact, rel=0.03)
    # Two draws of three seeds, prompts all alike: the variance of the mean is that of three values.
    found = bootstrap_mean(cells(np.array([[0.0] * 4, [1.0] * 4, [5.0] * 4])), stretch=False)
    assert (found.mean, found.low, found.high) == (2.0, 0.0, 5.0)
    assert found.seed_means == (0.0, 1.0, 5.0)


def test_one_seed_speaks_of_prompts_only():
    values = np.random.default_rng(0).normal(0, 1, (1, 40))
    assert bootstrap_mean(cells(values)).over == "prompts"
    two = bootstrap_mean(cells(np.vstack([values, values + 1])))
    assert (two.over, two.seeds, two.prompts) == ("seeds and prompts", 2, 40)
    assert two.seed_means[1] - two.seed_means[0] == pytest.approx(1)


def test_a_single_cell_and_equal_values_have_no_width():
    for values in (np.array([[2.5]]), np.full((3, 4), 2.5)):
        found = bootstrap_mean(cells(values))
        assert (found.mean, found.low, found.high) == (2.5, 2.5, 2.5)


def test_shared_prompts_are_drawn_together():
    """Three runs on the same prompts with the same values know no more of prompts than one run does."""
    by_prompt = np.random.default_rng(1).normal(0, 1, (1, 300))
    one = bootstrap_mean(cells(by_prompt[:, :100]), stretch=False)
    shared = bootstrap_mean(cells(np.repeat(by_prompt[:, :100], 3, axis=0)), stretch=False)
    assert (shared.low, shared.high) == pytest.approx((one.low, one.high), rel=1e-9)
    # Prompts of their own: three times as many; a cell's noise then counts for its seed and for its prompt.
    parts = [cells(by_prompt[:, 100 * n : 100 * n + 100], 100 * n).assign(seed=n) for n in range(3)]
    own = bootstrap_mean(pd.concat(parts), stretch=False)
    exact = 3.92 * by_prompt.std(ddof=1) / np.sqrt(300)
    assert own.prompts == 300
    assert exact < own.high - own.low < 1.6 * exact


def test_same_seed_same_interval_in_any_order():
    table = cells(np.random.default_rng(0).normal(0, 1, (3, 30)))
    shuffled = table.sample(frac=1, random_state=0)
    assert bootstrap_mean(table) == bootstrap_mean(shuffled)
    assert bootstrap_mean(table) != bootstrap_mean(table, Bootstrap(seed=1))


def test_chunks_change_nothing(monkeypatch):
    table = cells(np.random.default_rng(0).normal(0, 1, (2, 30)))
    whole = bootstrap_mean(table)
    monkeypatch.setattr(statistics, "_CHUNK", 30 * 7)
    assert bootstrap_mean(table).low == pytest.approx(whole.low, rel=1e-12)


def test_pairing_removes_what_both_sides_share():
    generator = np.random.default_rng(2)
    base = generator.normal(0, 5, (3, 60))
    gain = 0.2 + generator.normal(0, 0.1, (3, 60))
    found = paired_difference(cells(base + gain), cells(base).sample(frac=1, random_state=1))
    assert found.mean == pytest.approx(gain.mean(), abs=1e-12)
    assert found.high - found.low < 0.2
    assert found.seed_means == pytest.approx(gain.mean(1))
    table = pair(cells(np.array([[1.0, 2.0]])), cells(np.array([[0.5, 4.0]])))
    assert table["value"].tolist() == [0.5, -2.0]


def test_missing_pairs_are_named():
    left, right = cells(np.ones((2, 3))), cells(np.ones((2, 3)))
    with pytest.raises(
        JoinError, match="1 cells of the left side are missing on the right: seed 1 id p00002"
    ):
        paired_difference(left, right.drop(index=5))
    with pytest.raises(
        JoinError, match="2 cells of the right side are missing on the left: seed 0 id p00000"
    ):
        paired_difference(left.drop(index=[0, 4]), right)
    with pytest.raises(JoinError, match="occur twice, first: seed 0 id p00001"):
        paired_difference(left, pd.concat([right, right.iloc[[1]]]))


def test_bad_cells_are_refused():
    with pytest.raises(DataError, match="no cells"):
        bootstrap_mean(cells(np.ones((1, 0))))
    with pytest.raises(DataError, match="seed 0 id p00001"):
        bootstrap_mean(cells(np.array([[1.0, np.nan]])))


def test_wilson_known_values():
    # Newcombe 1998, table I, method 3: 81/263, 15/148, 0/20, 1/29.
    for successes, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(20, 20) == pytest.approx((1 - 0.1611, 1.0), abs=5e-5)
    for successes, n in ((0, 0), (5, 4), (-1, 4)):
        with pytest.raises(DataError, match="are no share"):
            wilson(successes, n)


def test_agreement_is_wilson_for_one_seed_and_wider_where_seeds_disagree():
    generator = np.random.default_rng(3)
    one = statistics.agreement(cells((generator.random((1, 400)) < 0.7).astype(float)))
    assert (one.low, one.high) == pytest.approx(wilson(one.mean * 400, 400))
    shares = np.array([[0.55], [0.7], [0.85]])
    apart = statistics.agreement(cells((generator.random((3, 400)) < shares).astype(float)))
    naive = wilson(apart.mean * 1200, 1200)
    assert apart.high - apart.low > 3 * (naive[1] - naive[0])
    assert 0 <= apart.low < apart.mean < apart.high <= 1
    full = statistics.agreement(cells(np.ones((3, 100))))
    assert (full.low, full.high) == pytest.approx(wilson(300, 300))


def test_t_quantile():
    for degrees, value in (
        (0.5, 12.706),
        (1, 12.706),
        (2, 4.303),
        (3.5, 2.940),
        (7, 2.365),
        (20, 2.086),
        (1e9, 1.960),
    ):
        assert t_quantile(degrees) == pytest.approx(value, rel=0.005)
