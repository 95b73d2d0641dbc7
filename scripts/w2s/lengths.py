"""Rewards at equal length: gold models like long responses, so that a difference may be one of length alone.

For each pair of responses, of two arms to the same prompt under the same seed, the difference in reward is regressed on the
difference in tokens. The intercept is the difference at equal length, the slope the reward of one token more. It is a
straight line through what was generated, no experiment on length: where an arm is longer *because* it says more, what it
says counts as length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from w2s import statistics
from w2s.statistics import Bootstrap
from w2s.summary import SETTING, ArmKey, Measured, arms, ordered, reference_arm

LENGTH_COLUMNS = ["experiment", *SETTING, "beta", "arm", "baseline", "gold", "seeds", "prompts"]
LENGTH_COLUMNS += ["mean", "tokens", "reward_per_token", "difference", "tokens_difference"]
LENGTH_COLUMNS += ["adjusted", "low", "high", "slope"]
UNKNOWN = float("nan")
# A draw whose lengths vary less than this share of the sample's variance has no line.
_LEAST_SPREAD = 1e-9


@dataclass(frozen=True)
class Adjusted:
    """A difference in reward at equal length with its 95 % interval, and the reward of one token more; NaN if unknown."""

    value: float = UNKNOWN
    low: float = UNKNOWN
    high: float = UNKNOWN
    slope: float = UNKNOWN


def lengths_table(
    experiment: str,
    measured: Sequence[Measured],
    main_gold: str,
    reference: str,
    betas: Mapping[str, float],
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """A row per arm: reward, length, reward per token; of students also against the reference feedback's arm.

    Reward per token is the ratio of the two means. What needs a length is NaN where that of one response is unknown.

    Raises:
        JoinError: the two arms were not measured on the same seeds and prompts.
    """
    grouped = arms(measured)
    rows = []
    for key in ordered(grouped, main_gold):
        *setting, gold, arm = key
        run, cells = grouped[key]
        other: ArmKey = (*key[:5], reference_arm(run, reference))
        baseline = other[-1] if other in grouped else ""
        mean, tokens = float(cells["value"].mean()), _mean_tokens(cells)
        compared = [UNKNOWN, UNKNOWN, *_row(Adjusted())]
        if baseline:
            pairs = paired(cells, grouped[other][1])
            compared = [
                float(pairs["value"].mean()),
                _mean_tokens(pairs),
                *_row(at_equal_length(pairs, bootstrap)),
            ]
        rows.append(
            [experiment, *setting, betas.get(run.recipe, UNKNOWN), arm, baseline, gold]
            + [cells["seed"].nunique(), cells["id"].nunique(), mean, tokens]
            + [mean / tokens if tokens else UNKNOWN, *compared]
        )
    return pd.DataFrame(rows, columns=LENGTH_COLUMNS)


def paired(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Columns seed, id, value, tokens: left minus right, the tokens NaN where one side's are unknown."""
    values = statistics.pair(*(side[["seed", "id", "value"]] for side in (left, right)))
    sides = (side[["seed", "id"]].assign(value=side.get("tokens", UNKNOWN)) for side in (left, right))
    tokens = statistics.pair(*sides).rename(columns={"value": "tokens"})
    return values.merge(tokens, on=["seed", "id"], validate="one_to_one")


def at_equal_length(pairs: pd.DataFrame, bootstrap: Bootstrap) -> Adjusted:
    """The least-squares line of reward differences on token differences, at 0 tokens.

    The interval is the two-level bootstrap's over seeds and prompts, stretched as that of a mean is. Where all pairs are of
    equal length there is nothing to adjust, hence no slope; where all differ by the same number of tokens, or fewer than
    three pairs are there, no line is known.

    Args:
        pairs: columns seed, id, value, tokens (see :func:`paired`).
        bootstrap: draws and their seed.
    """
    if len(pairs) < 3 or pairs["tokens"].isna().any():
        return Adjusted()
    if pairs["tokens"].nunique() == 1:
        if pairs["tokens"].iloc[0] != 0:
            return Adjusted()
        found = statistics.bootstrap_mean(pairs[["seed", "id", "value"]], bootstrap)
        return Adjusted(found.mean, found.low, found.high)
    wide = pairs.pivot(index="seed", columns="id", values=["value", "tokens"])
    rewards, tokens = wide["value"].to_numpy(float), wide["tokens"].to_numpy(float)
    present = ~np.isnan(tokens)
    # Around their means, so that no digits are lost in the differences of squares.
    mean, shift = float(np.nanmean(rewards)), float(np.nanmean(tokens))
    y, x = np.where(present, rewards - mean, 0.0), np.where(present, tokens - shift, 0.0)
    variance = float((x * x).sum() / present.sum())
    slope = float((x * y).sum() / present.sum() / variance)
    value = mean - slope * shift
    moments = (statistics.draw_means(part, present.astype(float), bootstrap) for part in (x, y, x * x, x * y))
    drawn = mean + _intercepts(*moments, shift=shift, least=_LEAST_SPREAD * variance)
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Adjusted(value, slope=slope)
    # What each pair adds to the intercept, which decides how far its quantiles are stretched.
    factor = statistics.student_factor((y - slope * x) * (1 - shift * x / variance))
    low, high = value + factor * (np.quantile(drawn, [0.025, 0.975]) - value)
    return Adjusted(value, float(low), float(high), slope)


def _intercepts(
    x: np.ndarray, y: np.ndarray, xx: np.ndarray, xy: np.ndarray, *, shift: float, least: float
) -> np.ndarray:
    """Values at ``-shift`` of the lines with these moments, shape (draws,); NaN where x does not vary."""
    spread = xx - x**2
    slopes = np.divide(xy - x * y, spread, out=np.full_like(spread, np.nan), where=spread > least)
    return y - slopes * (x + shift)


def _mean_tokens(cells: pd.DataFrame) -> float:
    return float(cells["tokens"].mean(skipna=False)) if "tokens" in cells else UNKNOWN


def _row(found: Adjusted) -> list[float]:
    return [found.value, found.low, found.high, found.slope]
