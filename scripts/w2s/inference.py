"""Tests and intervals for statistics over (seed, prompt) cells, and how many p-values become one decision.

The standard error of a statistic is the standard deviation of its two-level bootstrap (w2s/statistics.py), so that means,
differences, slopes and squared correlations are treated alike and arms that share prompts are paired. Interval and
p-value both come from that standard error and the Behrens-Fisher distribution (w2s/distributions.py), whose seeds' share
of the variance is read off the cells' contributions: a 95 % interval leaves out zero exactly where the two-sided p-value
is below 0.05. Against a percentile interval the difference is small; against Satterthwaite's t it is conservative where
seeds are few, which a correction for many tests needs.

With one seed only prompts vary, and interval and p-value speak of that one run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import pandas as pd

from w2s.distributions import behrens_fisher_quantile, behrens_fisher_tail
from w2s.errors import DataError, JoinError
from w2s.statistics import Bootstrap, draw_means, variance_terms

# Prompts that on average occur with fewer seeds than this are each seed's own.
_SHARED = 1.5


class Statistic(Protocol):
    """A number computed from cells that can be drawn again."""

    def value(self) -> float:
        """The number itself."""

    def draws(self, bootstrap: Bootstrap) -> np.ndarray:
        """The number in each bootstrap draw, NaN where a draw has none; shape (draws,)."""

    def deviations(self) -> np.ndarray:
        """What each cell adds to the number's deviation, to first order; shape (seeds, prompts)."""

    def present(self) -> np.ndarray:
        """Whether a cell holds any measurement; shape (seeds, prompts)."""


@dataclass(frozen=True)
class Grid:
    """Cells of one arm laid out over the seeds and prompts of all arms; ``values`` are 0 where ``present`` is 0."""

    values: np.ndarray
    present: np.ndarray


def grids(frames: Sequence[pd.DataFrame]) -> list[Grid]:
    """Lay cells (columns seed, id, value) out over the union of their seeds and ids, both sorted.

    Raises:
        DataError: a frame has no cells.
        JoinError: a cell occurs twice in a frame.
    """
    if any(frame.empty for frame in frames):
        raise DataError("no cells: a statistic of nothing")
    both = pd.concat(frames, ignore_index=True)
    rows, seeds = pd.factorize(both["seed"], sort=True)
    columns, prompts = pd.factorize(both["id"], sort=True)
    laid_out, start = [], 0
    for frame in frames:
        part = slice(start, start + len(frame))
        start += len(frame)
        values = np.zeros((len(seeds), len(prompts)))
        present = np.zeros_like(values)
        np.add.at(present, (rows[part], columns[part]), 1)
        if present.max() > 1:
            seed, column = np.argwhere(present > 1)[0]
            raise JoinError(
                f"{int((present > 1).sum())} cells occur twice",
                where=f"seed {seeds[seed]} id {prompts[column]}",
            )
        values[rows[part], columns[part]] = frame["value"].to_numpy(float)
        laid_out.append(Grid(values, present))
    return laid_out


@dataclass(frozen=True)
class Contrast:
    """A sum of means plus a constant, weights multiplied into the values: a mean, a difference, a slope."""

    arms: tuple[Grid, ...]
    constant: float = 0.0

    @classmethod
    def of(cls, terms: Sequence[tuple[float, pd.DataFrame]], constant: float = 0.0) -> Contrast:
        """From (coefficient, cells) pairs. Arms with the same cells are added up before anything is drawn."""
        laid_out = grids([frame for _, frame in terms])
        merged: list[Grid] = []
        for (coefficient, _), grid in zip(terms, laid_out, strict=True):
            for place, other in enumerate(merged):
                if np.array_equal(other.present, grid.present):
                    merged[place] = Grid(other.values + coefficient * grid.values, grid.present)
                    break
            else:
                merged.append(Grid(coefficient * grid.values, grid.present))
        return cls(tuple(merged), constant)

    def value(self) -> float:
        """See Statistic."""
        return self.constant + sum(float(grid.values.sum() / grid.present.sum()) for grid in self.arms)

    def draws(self, bootstrap: Bootstrap) -> np.ndarray:
        """See Statistic."""
        total = np.full(bootstrap.draws, self.constant)
        for grid in self.arms:
            total += draw_means(grid.values, grid.present, bootstrap)
        return total

    def deviations(self) -> np.ndarray:
        """See Statistic."""
        total = np.zeros_like(self.arms[0].values)
        for grid in self.arms:
            cells = grid.present.sum()
            total += (grid.values - grid.present * grid.values.sum() / cells) / cells
        return total

    def present(self) -> np.ndarray:
        """See Statistic."""
        return np.maximum.reduce([grid.present for grid in self.arms])


@dataclass(frozen=True)
class CorrelationDifference:
    """Squared Pearson r of (first, second) minus that of (first, third) over the same cells (paper A, figure 6)."""

    first: Grid
    second: Grid
    third: Grid

    def value(self) -> float:
        """See Statistic."""
        return float(self._of([self._mean(values) for values in self._moments()])[0])

    def squares(self) -> tuple[float, float]:
        """The two squared correlations."""
        means = [self._mean(values) for values in self._moments()]
        return float(_r_squared(*means[:5])), float(_r_squared(means[0], means[1], *means[5:]))

    def draws(self, bootstrap: Bootstrap) -> np.ndarray:
        """See Statistic."""
        means = [draw_means(values, self.first.present, bootstrap) for values in self._moments()]
        return self._of(means)

    def deviations(self) -> np.ndarray:
        """See Statistic."""
        first, second, third = (self._standard(grid) for grid in (self.first, self.second, self.third))
        total = np.zeros_like(first)
        for sign, other in ((1, second), (-1, third)):
            r = self._mean(first * other)
            total += sign * 2 * r * (first * other - r / 2 * (first**2 + other**2))
        return total * self.first.present / self.first.present.sum()

    def present(self) -> np.ndarray:
        """See Statistic."""
        return self.first.present

    def _moments(self) -> list[np.ndarray]:
        # Around the middle, so that no digits are lost where all similarities lie close together.
        x, y, z = (
            (grid.values - self._mean(grid.values)) * grid.present
            for grid in (self.first, self.second, self.third)
        )
        return [x, x * x, y, y * y, x * y, z, z * z, x * z]

    def _mean(self, values: np.ndarray) -> float:
        return float((values * self.first.present).sum() / self.first.present.sum())

    def _standard(self, grid: Grid) -> np.ndarray:
        centred = (grid.values - self._mean(grid.values)) * grid.present
        return centred / math.sqrt(max(self._mean(centred**2), 1e-300))

    @staticmethod
    def _of(means: Sequence) -> np.ndarray:
        x, xx, y, yy, xy, z, zz, xz = map(np.asarray, means)
        return np.atleast_1d(_r_squared(x, xx, y, yy, xy) - _r_squared(x, xx, z, zz, xz))


def _r_squared(x, xx, y, yy, xy):
    """Squared Pearson r from means of x, x squared, y, y squared and xy; NaN where one side does not vary."""
    below = np.asarray((xx - x * x) * (yy - y * y))
    return np.divide((xy - x * y) ** 2, below, out=np.full(below.shape, np.nan), where=below > 1e-24)


@dataclass(frozen=True)
class Components:
    """Where a variance comes from: parts that shrink with seeds, with shared prompts, with cells."""

    seed: float
    prompt: float
    cell: float


@dataclass(frozen=True)
class Estimate:
    """A statistic with its standard error and what is needed to test it.

    Attributes:
        value: the statistic.
        error: its standard error, infinite where a single cell leaves nothing to estimate it from.
        seed_share: share of the variance that comes from seeds.
        seeds, prompts: how many there are, in all arms together.
        components: of the variance at these numbers of seeds and prompts.
    """

    value: float
    error: float
    seed_share: float
    seeds: int
    prompts: int
    components: Components = field(default=Components(0.0, 0.0, 0.0), repr=False)

    def p_above(self, threshold: float = 0.0) -> float:
        """One-sided p-value against "not above ``threshold``"."""
        distance = self.value - threshold
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        if math.isinf(self.error):
            return 0.5
        return behrens_fisher_tail(distance / self.error, *self._shape())

    def p_below(self, threshold: float = 0.0) -> float:
        """One-sided p-value against "not below ``threshold``"."""
        return replace(self, value=-self.value).p_above(-threshold)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval."""
        if self.error == 0 or math.isinf(self.error):
            return self.value - self.error, self.value + self.error
        half = self.error * behrens_fisher_quantile((1 + level) / 2, *self._shape())
        return self.value - half, self.value + half

    def _shape(self) -> tuple[float, int, int]:
        return self.seed_share, self.seeds - 1, self.prompts - 1


def estimate(statistic: Statistic, bootstrap: Bootstrap) -> Estimate:
    """Value and standard error of a statistic.

    Raises:
        DataError: the statistic is no number, e.g. a correlation of values that do not vary.
    """
    value = statistic.value()
    if not math.isfinite(value):
        raise DataError("the statistic is no number: the values do not vary")
    deviations, present = statistic.deviations(), statistic.present()
    seeds, prompts = deviations.shape
    by_seed, by_prompt = variance_terms(deviations)
    if seeds == 1 and prompts == 1:
        return Estimate(value, math.inf, 0.0, seeds, prompts)
    draws = statistic.draws(bootstrap)
    error = float(np.nanstd(draws)) if by_seed + by_prompt > 0 else 0.0
    total = by_seed + by_prompt
    share = by_seed / total if total > 0 else 0.0
    return Estimate(value, error, share, seeds, prompts, components(deviations, present, by_seed, by_prompt))


def components(deviations: np.ndarray, present: np.ndarray, by_seed: float, by_prompt: float) -> Components:
    """Variance of a statistic taken apart by the mean squares of a two-way layout; no part below zero.

    Where each seed has prompts of its own, a prompt's and a cell's part cannot be told apart and both are the cell's.
    """
    seeds, prompts = deviations.shape
    shared = present.sum() / prompts
    if seeds > 1 and shared < _SHARED:
        return Components(max(by_seed - by_prompt, 0.0), 0.0, by_prompt)
    if seeds == 1 or prompts == 1:
        return Components(by_seed, by_prompt, 0.0)
    squares = float((deviations**2).sum())
    squares -= (
        float((deviations.sum(1) ** 2).sum()) / prompts + float((deviations.sum(0) ** 2).sum()) / shared
    )
    cell = max(squares, 0.0) * seeds * prompts / ((seeds - 1) * (prompts - 1))
    return Components(max(by_seed - cell, 0.0), max(by_prompt - cell, 0.0), cell)


def partial_conjunction(p_values: Sequence[float], holding: int) -> float:
    """P-value against "fewer than ``holding`` of these effects are there" (Benjamini and Heller 2008).

    All of them: the largest p-value. At least one of n: Bonferroni, n times the smallest.
    """
    ordered = sorted(p_values)
    return min(1.0, (len(ordered) - holding + 1) * ordered[holding - 1])


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm's step-down rule, in the given order: the chance of any false one is bounded."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, floor = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = floor
    return adjusted
