"""The straight line through pairs of measurements: against numpy's, its interval, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from w2s.correlation import bootstrap_line
from w2s.errors import DataError
from w2s.statistics import Bootstrap

RHO = 0.7


def cells(number: int, seeds: int = 1, seed: int = 0, rho: float = RHO, centre: float = 0.45) -> pd.DataFrame:
    """Pairs of correlation ``rho``, as similarities lie: about 0.45 with a deviation of 0.1."""
    generator = np.random.default_rng(seed)
    left, noise = generator.normal(0, 0.1, (2, seeds * number))
    right = rho * left + np.sqrt(1 - rho**2) * noise
    names = [f"{prompt:03}" for prompt in range(number)] * seeds
    return pd.DataFrame(
        {
            "seed": np.repeat(np.arange(seeds), number),
            "id": names,
            "value_left": centre + left,
            "value_right": centre + right,
        }
    )


@pytest.mark.parametrize(("number", "seeds"), [(500, 1), (60, 3)])
def test_the_line_is_numpy_s(number: int, seeds: int) -> None:
    table = cells(number, seeds)
    line = bootstrap_line(table, Bootstrap(200))
    x, y = table["value_left"].to_numpy(), table["value_right"].to_numpy()
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - (slope * x + intercept)
    assert (line.seeds, line.prompts) == (seeds, number)
    assert line.slope == pytest.approx(slope, rel=1e-9)
    assert line.intercept == pytest.approx(intercept, rel=1e-9)
    assert line.r2 == pytest.approx(1 - residual.var() / y.var(), rel=1e-9)
    assert line.r2 == pytest.approx(line.pearson**2)
    assert (line.mean_left, line.mean_right) == pytest.approx((x.mean(), y.mean()))
    ranks = np.argsort(np.argsort(x)), np.argsort(np.argsort(y))
    assert line.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert line.low < line.r2 < line.high


def test_a_falling_line_has_the_same_r2_and_the_other_sign() -> None:
    table = cells(80)
    falling = table.assign(value_right=-table["value_right"])
    one, other = bootstrap_line(table, Bootstrap(50)), bootstrap_line(falling, Bootstrap(50))
    assert other.r2 == pytest.approx(one.r2)
    assert (other.slope, other.pearson, other.spearman) == pytest.approx(
        (-one.slope, -one.pearson, -one.spearman)
    )
    assert (other.low, other.high) == pytest.approx((one.low, one.high))


def test_points_on_a_line_leave_no_interval() -> None:
    table = cells(40)
    line = bootstrap_line(table.assign(value_right=3 - 2 * table["value_left"]), Bootstrap(200))
    assert (line.r2, line.low, line.high) == pytest.approx((1, 1, 1))
    assert (line.slope, line.intercept) == pytest.approx((-2, 3))


def test_the_interval_does_not_depend_on_where_the_values_lie() -> None:
    """Rewards lie anywhere: a shift that is large beside the spread changes rounding, not the interval."""
    near, far = (bootstrap_line(cells(100, centre=centre), Bootstrap(200)) for centre in (0.0, 1e5))
    assert (far.r2, far.low, far.high) == pytest.approx((near.r2, near.low, near.high), abs=1e-4)


def test_the_interval_is_the_percentile_of_drawn_lines() -> None:
    """Beside a plain bootstrap of prompts, by numpy."""
    table = cells(200)
    line = bootstrap_line(table, Bootstrap(2000))
    x, y = table["value_left"].to_numpy(), table["value_right"].to_numpy()
    generator = np.random.default_rng(1)
    drawn = []
    for _ in range(2000):
        rows = generator.integers(0, 200, 200)
        drawn.append(np.corrcoef(x[rows], y[rows])[0, 1] ** 2)
    assert (line.low, line.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.03)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    held = 0
    for seed in range(200):
        line = bootstrap_line(cells(150, seed=seed), Bootstrap(300))
        held += line.low <= RHO**2 <= line.high
    assert 0.90 <= held / 200 <= 0.985


def test_equal_seeds_give_equal_intervals_whatever_the_order_of_the_rows() -> None:
    table = cells(50, seeds=2)
    one = bootstrap_line(table, Bootstrap(200))
    shuffled = bootstrap_line(table.sample(frac=1, random_state=1), Bootstrap(200))
    assert (one.low, one.high) == (shuffled.low, shuffled.high)
    assert (one.low, one.high) != (lambda line: (line.low, line.high))(
        bootstrap_line(table, Bootstrap(200, 1))
    )


def test_seeds_with_prompts_of_their_own_count_as_they_are() -> None:
    table = cells(60, seeds=2)
    short = table[(table["seed"] == 0) | (table["id"] < "030")]
    line = bootstrap_line(short, Bootstrap(200))
    assert line.slope == pytest.approx(np.polyfit(short["value_left"], short["value_right"], 1)[0])
    assert line.low < line.r2 < line.high


@pytest.mark.parametrize("side", ["value_left", "value_right"])
def test_sides_that_do_not_vary_are_refused(side: str) -> None:
    with pytest.raises(DataError, match="too few for a line"):
        bootstrap_line(cells(10).assign(**{side: 1.0}), Bootstrap(10))
    with pytest.raises(DataError, match="2 points"):
        bootstrap_line(cells(2), Bootstrap(10))
