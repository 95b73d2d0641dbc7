"""How many seeds, or how many prompts, a test needs for 80 % power: from the variance that was measured.

A plan, not a promise: the effect is taken as true and the variance components as known. The bar is the scorecard's own
test (w2s/inference.py), so that a cell's noise counts for its seed and for its prompt as it does there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from w2s.distributions import behrens_fisher_quantile, t_quantile
from w2s.inference import Estimate

POWER = 0.8
MOST = 20_000
NONE = "no number suffices"
WRONG_SIDE = "none: the effect lies on the other side"
UNKNOWN = "unknown: one seed"


@dataclass(frozen=True)
class Plan:
    """Seeds needed at the present number of prompts, prompts needed at the present number of seeds, or why none."""

    seeds: int | str
    prompts: int | str


def plan(found: Estimate, distance: float, *, level: float, power: float = POWER) -> Plan:
    """Numbers needed to show that the truth lies beyond a bound.

    Args:
        found: the estimate whose variance is used.
        distance: assumed distance of the truth from the bound, positive on the side that is to be shown.
        level: one-sided level of the test.
        power: chance of showing it.
    """
    if distance <= 0:
        return Plan(WRONG_SIDE, WRONG_SIDE)
    if found.seeds < 2:
        return Plan(UNKNOWN, UNKNOWN)

    def enough(seeds: int, prompts: int) -> bool:
        of_seeds, of_prompts = projected(found, seeds, prompts)
        error = math.sqrt(of_seeds + of_prompts)
        if error == 0:
            return True
        share = of_seeds / (of_seeds + of_prompts)
        bar = critical(level, round(share / 0.04) * 0.04, _coarse(seeds - 1), _coarse(prompts - 1))
        degrees = 1 / (share**2 / (seeds - 1) + (1 - share) ** 2 / max(prompts - 1, 1))
        return distance >= error * (bar + t_quantile(power, round(degrees, 1 if degrees < 30 else -1)))

    return Plan(
        smallest(lambda seeds: enough(seeds, found.prompts)),
        smallest(lambda prompts: enough(found.seeds, prompts)),
    )


def _coarse(degrees: int) -> int:
    """Degrees of freedom as finely as a plan needs them, so that few quantiles have to be computed."""
    if degrees <= 12:
        return max(degrees, 1)
    return max(step for step in (12, 15, 20, 30, 50, 100, 300) if step <= degrees)


@lru_cache(maxsize=8192)
def critical(level: float, seed_share: float, seed_degrees: int, prompt_degrees: int) -> float:
    """How many standard errors the test asks for; kept, since plans ask for the same numbers again and again."""
    return behrens_fisher_quantile(1 - level, seed_share, seed_degrees, prompt_degrees)


def projected(found: Estimate, seeds: int, prompts: int) -> tuple[float, float]:
    """The seeds' and the prompts' contributions to the variance with other numbers of seeds and prompts."""
    parts = found.components
    by_seeds, by_prompts = found.seeds / seeds, found.prompts / prompts
    cell = parts.cell * by_seeds * by_prompts
    return parts.seed * by_seeds + cell, parts.prompt * by_prompts + cell


def smallest(enough: Callable[[int], bool]) -> int | str:
    """The smallest number from 2 on for which ``enough`` holds, or that none does."""
    high = 2
    while not enough(high):
        high *= 2
        if high > MOST:
            return NONE
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
