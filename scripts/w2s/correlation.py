"""A straight line through pairs of measurements, with the interval of its R^2 over seeds and prompts (paper A, Figure 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from w2s.errors import DataError
from w2s.statistics import Bootstrap, draw_means


@dataclass(frozen=True)
class Line:
    """Right as a straight line of left. ``low`` and ``high`` are the 95 % percentile interval of ``r2``."""

    seeds: int
    prompts: int
    r2: float
    low: float
    high: float
    pearson: float
    slope: float
    intercept: float
    spearman: float
    mean_left: float
    mean_right: float


def bootstrap_line(cells: pd.DataFrame, bootstrap: Bootstrap) -> Line:
    """The least-squares line of ``value_right`` on ``value_left``.

    Args:
        cells: columns seed, id, value_left, value_right, a row per (seed, prompt).
        bootstrap: draws and their seed.

    Raises:
        DataError: fewer than three cells, or one side does not vary.
    """
    if len(cells) < 3 or cells["value_left"].nunique() < 2 or cells["value_right"].nunique() < 2:
        raise DataError(f"{len(cells)} points that vary on both sides are too few for a line")
    wide = cells.pivot(index="seed", columns="id", values=["value_left", "value_right"])
    left, right = wide["value_left"].to_numpy(float), wide["value_right"].to_numpy(float)
    present = (~np.isnan(left)).astype(float)
    # Around their means, so that no digits are lost in the differences of squares.
    left, right = (np.nan_to_num(side - np.nanmean(side)) for side in (left, right))
    moments = [left, right, left * left, right * right, left * right]
    drawn = _squared(*(draw_means(values, present, bootstrap) for values in moments))
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975])
    x, y = cells["value_left"], cells["value_right"]
    pearson = float(np.corrcoef(x, y)[0, 1])
    slope = pearson * float(y.std() / x.std())
    spearman = float(np.corrcoef(x.rank(), y.rank())[0, 1])
    means = float(x.mean()), float(y.mean())
    intercept = means[1] - slope * means[0]
    spread = (float(low), float(high))
    seeds, prompts = left.shape
    return Line(seeds, prompts, pearson**2, *spread, pearson, slope, intercept, spearman, *means)


def _squared(
    left: np.ndarray, right: np.ndarray, left2: np.ndarray, right2: np.ndarray, product: np.ndarray
) -> np.ndarray:
    """Squared Pearson correlation from moments; NaN where a draw does not vary."""
    spread = (left2 - left**2) * (right2 - right**2)
    squared = np.full_like(spread, np.nan)
    np.divide((product - left * right) ** 2, spread, out=squared, where=spread > 0)
    return squared
