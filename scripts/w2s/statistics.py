"""Intervals for means and differences over seeds and prompts, and for shares.

**Two-level bootstrap.** A measurement is a value per cell (seed, prompt). Seeds and prompts are drawn with
replacement, independently, and a cell counts as often as its seed times its prompt was drawn (the
pigeonhole bootstrap, Owen 2007). Prompts that all seeds share are thus drawn together, and prompts that
belong to one seed alone are drawn on their own, by one rule. One draw fewer than there are seeds (or
prompts) is taken, which makes the variance of a mean unbiased (Rao and Wu 1988). With one seed only prompts
are drawn, and the interval speaks of that one run.

**Few seeds.** Percentiles of three seeds' bootstrap are far too narrow: they use the normal distribution's
quantile where Student's t is due. The distances from the mean are therefore stretched by t / z, with the
degrees of freedom of Satterthwaite's formula; with many seeds, or where prompts are all that varies, the
stretch is 1 and the interval is the plain percentile one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from w2s.errors import DataError, JoinError
from w2s.tables import named

# 97.5 % quantiles of Student's t, read linearly in 1 / degrees of freedom between two entries.
_T_DEGREES = np.array([1, 1.1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 30, np.inf])
_T_QUANTILES = np.array(
    [
        12.706,
        10.277,
        8.028,
        6.017,
        4.949,
        4.303,
        3.575,
        3.182,
        2.776,
        2.571,
        2.447,
        2.306,
        2.228,
        2.131,
        2.042,
        1.960,
    ]
)
_Z = 1.959964
# Cells of draws that are in memory at once.
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Bootstrap:
    """Number of draws and their seed: equal seeds give equal intervals, whatever the order of the rows."""

    draws: int = 2000
    seed: int = 0


_DEFAULT = Bootstrap()


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, and over what it speaks: ``seeds and prompts`` or ``prompts``."""

    mean: float
    low: float
    high: float
    seeds: int
    prompts: int
    over: str
    seed_means: tuple[float, ...]


def bootstrap_mean(cells: pd.DataFrame, bootstrap: Bootstrap = _DEFAULT, *, stretch: bool = True) -> Interval:
    """Mean over all cells with its two-level bootstrap interval.

    Args:
        cells: columns ``seed``, ``id``, ``value``, one row per (seed, prompt).
        bootstrap: draws and their seed.
        stretch: widen by Student's t (see the module's text); False gives plain percentiles.

    Raises:
        DataError: no cells, or a value that is not finite.
        JoinError: a cell occurs twice.
    """
    values, present = _matrix(cells)
    seeds = values.shape[0]
    mean = float(values.sum() / present.sum())
    seed_means = tuple(float(mean) for mean in values.sum(1) / present.sum(1))
    means = draw_means(values, present, bootstrap)
    means = means[np.isfinite(means)]
    factor = student_factor(np.where(present > 0, values - mean, 0.0)) if stretch else 1.0
    low, high = mean + factor * (np.quantile(means, [0.025, 0.975]) - mean)
    over = "seeds and prompts" if seeds > 1 else "prompts"
    return Interval(mean, float(low), float(high), seeds, values.shape[1], over, seed_means)


def paired_difference(
    left: pd.DataFrame, right: pd.DataFrame, bootstrap: Bootstrap = _DEFAULT, *, stretch: bool = True
) -> Interval:
    """Mean of left minus right over the same (seed, prompt) cells, with its interval.

    Raises:
        JoinError: a cell of one side is missing on the other; the message names the first ones.
    """
    return bootstrap_mean(pair(left, right), bootstrap, stretch=stretch)


def pair(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Cells with left minus right as ``value``, checked to be the same cells on both sides."""
    both = side_by_side(left, right)
    return both[["seed", "id"]].assign(value=both["value_left"] - both["value_right"])


def side_by_side(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Columns seed, id, value_left, value_right.

    Raises:
        JoinError: a cell occurs twice, or is missing on one side.
    """
    _check_unique(left)
    _check_unique(right)
    both = left.merge(right, on=["seed", "id"], how="outer", suffixes=("_left", "_right"), indicator=True)
    problems = []
    for side, other, only in (("left", "right", "left_only"), ("right", "left", "right_only")):
        lone = both[both["_merge"] == only]
        if len(lone):
            cells = named(f"seed {row.seed} id {row.id}" for row in lone.itertuples())
            problems.append(f"{len(lone)} cells of the {side} side are missing on the {other}: {cells}")
    if problems:
        raise JoinError("; ".join(problems), instead="both sides generated for the same seeds and prompts")
    return both[["seed", "id", "value_left", "value_right"]]


def wilson(successes: float, n: float, z: float = _Z) -> tuple[float, float]:
    """Wilson's 95 % interval for a share.

    Args:
        successes: number of successes, 0..n.
        n: number of trials; may be an effective number, not whole.

    Raises:
        DataError: no trials, or more successes than trials.
    """
    if not 0 <= successes <= n or n <= 0:
        raise DataError(f"{successes} successes of {n} trials are no share")
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends rounding would leave 1e-17 where the bound is exactly 0 or 1.
    low = 0.0 if successes == 0 else max(0.0, float(centre - half))
    return low, 1.0 if successes == n else min(1.0, float(centre + half))


def agreement(cells: pd.DataFrame, bootstrap: Bootstrap = _DEFAULT) -> Interval:
    """Share of cells with value 1 and its interval.

    One seed: Wilson's interval. Several seeds share examples and differ by their teacher, so that their cells
    are not independent: Wilson's interval is then taken at the effective number of cells, p (1 - p) divided
    by the variance that the bootstrap finds, and at most their number.
    """
    found = bootstrap_mean(cells, bootstrap)
    n = float(len(cells))
    if found.seeds > 1 and 0 < found.mean < 1:
        deviation = (found.high - found.low) / (2 * _Z)
        n = min(n, found.mean * (1 - found.mean) / deviation**2) if deviation > 0 else n
    low, high = wilson(found.mean * n, n)
    return Interval(found.mean, low, high, found.seeds, found.prompts, found.over, found.seed_means)


def t_quantile(degrees: float) -> float:
    """97.5 % quantile of Student's t for 1 or more degrees of freedom, not necessarily whole; within 2 %."""
    return float(np.interp(-1 / max(degrees, 1.0), -1 / _T_DEGREES, _T_QUANTILES))


def _matrix(cells: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Values (0 where absent) and presence, both float64 of shape (seeds, prompts), both sorted."""
    if cells.empty:
        raise DataError("no cells: a mean of nothing")
    _check_unique(cells)
    wrong = cells[~np.isfinite(cells["value"])]
    if len(wrong):
        row = wrong.iloc[0]
        raise DataError(f"value {row['value']} is not finite", where=f"seed {row['seed']} id {row['id']}")
    rows, seeds = pd.factorize(cells["seed"], sort=True)
    columns, prompts = pd.factorize(cells["id"], sort=True)
    values = np.zeros((len(seeds), len(prompts)))
    present = np.zeros_like(values)
    values[rows, columns] = cells["value"].to_numpy(float)
    present[rows, columns] = 1
    return values, present


def _check_unique(cells: pd.DataFrame) -> None:
    twice = cells[cells.duplicated(["seed", "id"])]
    if len(twice):
        row = twice.iloc[0]
        raise JoinError(f"{len(twice)} cells occur twice, first: seed {row['seed']} id {row['id']}")


def draw_means(values: np.ndarray, present: np.ndarray, bootstrap: Bootstrap) -> np.ndarray:
    """Means of the bootstrap draws, shape (draws,), NaN for a draw that met no cell.

    The draws depend on the shape and the bootstrap alone: two arrays of one shape are drawn together, so that a
    difference of their means is paired.

    Args:
        values: shape (seeds, prompts), 0 where absent.
        present: the same shape, 1 where there is a value, else 0.
    """
    seed_counts = _counts(bootstrap, 0, values.shape[0])
    prompt_counts = _counts(bootstrap, 1, values.shape[1])
    chunk = max(1, _CHUNK // values.shape[1])
    means = []
    for start in range(0, bootstrap.draws, chunk):
        by_seed, by_prompt = seed_counts[start : start + chunk], prompt_counts[start : start + chunk]
        total = np.einsum("bp,bp->b", by_seed @ values, by_prompt)
        cells = np.einsum("bp,bp->b", by_seed @ present, by_prompt)
        # Where seeds have prompts of their own, a draw can meet no cell at all; it says nothing.
        means.append(np.divide(total, cells, out=np.full(len(cells), np.nan), where=cells > 0))
    return np.concatenate(means)


@lru_cache(maxsize=4)
def _counts(bootstrap: Bootstrap, level: int, units: int) -> np.ndarray:
    """How often each unit is drawn, float32 of shape (draws, units); one draw fewer than units, at least one.

    Kept for the next arm, which mostly has as many seeds and prompts: drawing takes longer than the means.
    """
    generator = np.random.default_rng([bootstrap.seed, level])
    drawn = generator.multinomial(max(units - 1, 1), np.full(units, 1 / units), size=bootstrap.draws)
    return drawn.astype(np.float32)


def variance_terms(deviations: np.ndarray) -> tuple[float, float]:
    """Contributions of seeds and of prompts to the variance of a statistic; 0 where there is one unit only.

    Args:
        deviations: what each cell adds to the statistic's deviation from its own value, shape (seeds, prompts);
            for a mean, the residuals divided by the number of cells.
    """
    terms = []
    for axis in (1, 0):
        units = deviations.shape[1 - axis]
        # Sums of a unit's deviations: their spread is the unit's contribution to the variance.
        sums = deviations.sum(axis)
        terms.append(float((sums**2).sum()) * units / (units - 1) if units > 1 else 0.0)
    return terms[0], terms[1]


def student_factor(deviations: np.ndarray) -> float:
    """t / z at Satterthwaite's degrees of freedom of the seeds' and the prompts' shares of a statistic's variance.

    Args:
        deviations: as :func:`variance_terms` takes them, in any unit.
    """
    terms = variance_terms(deviations)
    freedoms = [units - 1 for units in deviations.shape]
    variance = sum(terms)
    if variance <= 0:
        return 1.0
    degrees = variance**2 / sum(
        term**2 / freedom for term, freedom in zip(terms, freedoms, strict=True) if freedom
    )
    return t_quantile(degrees) / _Z
