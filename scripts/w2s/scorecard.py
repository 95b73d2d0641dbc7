"""From measurements to verdicts: every part of every claim, tested, adjusted for their number, and put in words.

One rule for all parts, whichever way they come out. A comparison has a p-value *for* what the paper says and one
*against* it; a part's are those of "as many comparisons hold as the paper says" and of its contrary (partial
conjunction); Holm's rule then adjusts all testable parts of the scorecard, the p-values for and those against each as a
family of its own.

- ``above``, ``below``: two-sided t-like test of a difference; ``no-lower``: the same against minus the margin.
- ``equal``: two one-sided tests at 5 % against the margins. A margin that is a share of a measured scale carries the
  scale's own noise: difference plus and minus margin are tested as one statistic.

With one seed nothing is testable: a verdict is then "direction only" or "inconclusive".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from w2s import power
from w2s.claims import Claim, Claims, Part
from w2s.evidence import Comparison, Measurements, comparisons
from w2s.inference import (
    Contrast,
    CorrelationDifference,
    Estimate,
    estimate,
    grids,
    holm,
    partial_conjunction,
)
from w2s.paper_numbers import (
    NOTHING,
    check_published,
    expected_effect,
    on_scale,
    printed_effect,
    printed_label,
    printed_of,
    printed_scale,
    printed_slope,
    printed_value,
)
from w2s.statistics import Bootstrap

if TYPE_CHECKING:
    import pandas as pd

REPRODUCED = "reproduced"
DIRECTION = "direction only"
OPPOSITE = "not reproduced"
OPEN = "inconclusive"
NOT_RUN = "not run"
SILENT = "cannot speak"
DEFINITION = "definition"
VERDICTS = (REPRODUCED, DIRECTION, OPEN, OPPOSITE, NOT_RUN, SILENT)
JUDGED = (REPRODUCED, DIRECTION, OPEN, OPPOSITE)
SIGNIFICANCE = 0.05
FEWEST_SEEDS = 2
NO_PLAN = power.Plan("", "")


@dataclass(frozen=True)
class Finding:
    """What one comparison shows.

    Attributes:
        value, low, high: the statistic and its 95 % interval; for a level the level itself, not its distance from
            the reference.
        low90, high90: its 90 % interval, the one that counts for ``equal``.
        margin: how far from the reference still counts as equal, in the statistic's unit; NaN without one.
        relative: the statistic as a share of the part's scale; NaN without one.
        holds: whether the estimate itself lies where the paper says.
        p_for, p_against: see the module's text.
        paper, paper_relative: the printed value of the same comparison, NaN if none was printed for it.
        at_own, at_paper: seeds and prompts needed for 80 % power at our effect and at the paper's, for this
            comparison alone.
        at_own_adjusted, at_paper_adjusted: the same at Holm's strictest step, as if all parts of the scorecard were
            testable and none of the others reproduced.
    """

    comparison: Comparison
    value: float
    low: float
    high: float
    low90: float
    high90: float
    margin: float
    relative: float
    holds: bool
    p_for: float
    p_against: float
    seeds: int
    prompts: int
    paper: float
    paper_relative: float
    at_own: power.Plan
    at_paper: power.Plan
    at_own_adjusted: power.Plan
    at_paper_adjusted: power.Plan


@dataclass(frozen=True)
class PartResult:
    """A part with its findings; adjusted p-values are NaN where it is not testable."""

    part: Part
    verdict: str
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    missing: tuple[Comparison, ...] = ()
    needed: int = 0
    p_for: float = NOTHING
    p_against: float = NOTHING
    adjusted_for: float = NOTHING
    adjusted_against: float = NOTHING
    printed: tuple[tuple[str, float], ...] = ()

    @property
    def testable(self) -> bool:
        """Whether there are enough seeds for a test."""
        return bool(self.findings) and min(found.seeds for found in self.findings) >= FEWEST_SEEDS


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its parts; ``partial`` if not all of them could be judged."""

    claim: Claim
    verdict: str
    partial: bool
    parts: tuple[PartResult, ...] = field(default=())


def score(
    claims: Claims,
    measurements: Mapping[str, Measurements],
    published: pd.DataFrame,
    bootstrap: Bootstrap,
    world_data: Collection[str] = (),
) -> list[ClaimResult]:
    """Judge all claims.

    Args:
        measurements: by experiment; an experiment that is not there makes its parts "not run".
        published: table of printed values (results.read_published).
        world_data: names of data sets that come from a made-up world.

    Raises:
        DataError: the claims refer to a printed value that is not there.
    """
    check_published(claims, published)
    values = published.set_index("id")
    parts = adjusted(
        [
            judge_part(part, claims, measurements.get(part.experiment), values, bootstrap, world_data)
            for part in claims.parts
        ]
    )
    by_id = {result.part.id: result for result in parts}
    return [judge_claim(claim, [by_id[part.id] for part in claim.parts]) for claim in claims.claims]


# -- parts -------------------------------------------------------------------------------------------------


def judge_part(
    part: Part,
    claims: Claims,
    measurements: Measurements | None,
    published: pd.DataFrame,
    bootstrap: Bootstrap,
    world_data: Collection[str],
) -> PartResult:
    """One part before the adjustment for many: its findings and p-values; verdicts are given by ``adjusted``."""
    printed = tuple(
        (printed_label(number, published), printed_value(number, part, published))
        for number in part.published
    )
    if part.series:
        printed = (("slope", printed_slope(part, published)),)
    blank = PartResult(part, NOT_RUN, printed=printed)
    if measurements is None:
        return replace(blank, reason=f"no tables of experiment {part.experiment}")
    made = comparisons(part, measurements, claims)
    speaking = [item for item in made if not (part.needs and item.data in world_data)]
    if made and not speaking:
        return replace(blank, verdict=SILENT, reason="; ".join(claims.needs[name] for name in part.needs))
    missing = tuple(item for item in speaking if item.missing)
    present = [item for item in speaking if not item.missing]
    if not present:
        reason = "; ".join(dict.fromkeys(item.missing for item in missing))
        return replace(blank, reason=reason or f"no {part.metric} was measured", missing=missing)
    found = tuple(find(part, item, claims, published, bootstrap, world_data) for item in present)
    needed = len(found) - math.floor(part.exceptions * len(found))
    return replace(
        blank,
        findings=found,
        missing=missing,
        needed=needed,
        p_for=partial_conjunction([item.p_for for item in found], needed),
        p_against=partial_conjunction([item.p_against for item in found], len(found) - needed + 1),
    )


def find(
    part: Part,
    comparison: Comparison,
    claims: Claims,
    published: pd.DataFrame,
    bootstrap: Bootstrap,
    world_data: Collection[str],
) -> Finding:
    """Estimate, interval, p-values and plans of one comparison."""
    reference = part.reference or 0.0
    if part.statistic == "r_squared":
        found = estimate(CorrelationDifference(*grids([cells for _, cells in comparison.terms])), bootstrap)
    else:
        found = estimate(Contrast.of(comparison.terms, -reference), bootstrap)
    scale = Contrast.of(comparison.scale).value() if comparison.scale else NOTHING
    margin = NOTHING
    if part.margin:
        margin = part.margin.value * (scale if part.margin.of else 1.0)
    p_for, p_against = p_values(part, comparison, found, margin, bootstrap)
    same = printed_of(comparison, part, published)
    paper = printed_effect(same, part, published) + reference if same else NOTHING
    unit = (
        printed_scale(part, claims, published)
        if same and on_scale(same, part, claims, published)
        else NOTHING
    )
    expected = expected_effect(part, comparison, same, claims, scale, published, world_data)
    low, high = found.interval(0.95)
    low90, high90 = found.interval(0.90)
    return Finding(
        comparison,
        found.value + reference,
        *(low + reference, high + reference, low90 + reference, high90 + reference),
        margin,
        found.value / scale if scale > 0 else NOTHING,
        distance(part.test, found.value, margin) > 0,
        *(p_for, p_against, found.seeds, found.prompts),
        paper,
        (paper - reference) / unit if unit > 0 else NOTHING,
        *(
            plan(part, found, effect, margin, tests) if effect == effect else NO_PLAN
            for tests in (1, len(claims.parts))
            for effect in (found.value, expected)
        ),
    )


def p_values(
    part: Part, comparison: Comparison, found: Estimate, margin: float, bootstrap: Bootstrap
) -> tuple[float, float]:
    """P-values for and against what the paper says, both at the two-sided 5 % level but for ``equal``, whose first
    is that of two one-sided tests at 5 %."""
    if part.test in ("above", "below"):
        above, below = found.p_above(), found.p_below()
        one, other = (above, below) if part.test == "above" else (below, above)
        return min(1.0, 2 * one), min(1.0, 2 * other)
    lower, upper = against_margin(part, comparison, found, bootstrap)
    if part.test == "no-lower":
        return min(1.0, 2 * lower.p_above()), min(1.0, 2 * lower.p_below())
    outside = min(lower.p_below(), upper.p_above())
    return max(lower.p_above(), upper.p_below()), min(1.0, 2 * outside) if margin > 0 else 1.0


def against_margin(
    part: Part, comparison: Comparison, found: Estimate, bootstrap: Bootstrap
) -> tuple[Estimate, Estimate]:
    """The difference plus its margin and the difference minus it, each with the noise of both."""
    assert part.margin is not None
    share = part.margin.value
    if not part.margin.of:
        return replace(found, value=found.value + share), replace(found, value=found.value - share)
    assert comparison.scale is not None
    reference = part.reference or 0.0
    lower, upper = (
        [*comparison.terms, *((sign * share * weight, cells) for weight, cells in comparison.scale)]
        for sign in (1, -1)
    )
    return (
        estimate(Contrast.of(lower, -reference), bootstrap),
        estimate(Contrast.of(upper, -reference), bootstrap),
    )


def distance(test: str, effect: float, margin: float) -> float:
    """How far an effect lies inside what the paper says; negative outside."""
    return {
        "above": effect,
        "below": -effect,
        "no-lower": effect + margin,
        "equal": margin - abs(effect),
    }[test]


def plan(part: Part, found: Estimate, effect: float, margin: float, tests: int) -> power.Plan:
    """Seeds and prompts for 80 % power if the truth were ``effect``, at the level of one of so many tests.

    The margin is taken as known.

    Both sides of an equivalence must be shown, so that each is planned at 90 %.
    """
    both = part.test == "equal"
    return power.plan(
        found,
        distance(part.test, effect, margin),
        level=(SIGNIFICANCE if both else SIGNIFICANCE / 2) / tests,
        power=(1 + power.POWER) / 2 if both else power.POWER,
    )


# -- verdicts ----------------------------------------------------------------------------------------------


def adjusted(results: Sequence[PartResult]) -> list[PartResult]:
    """Results with p-values adjusted over all testable parts, and verdicts."""
    testable = [place for place, result in enumerate(results) if result.testable]
    favour = dict(zip(testable, holm([results[place].p_for for place in testable]), strict=True))
    against = dict(zip(testable, holm([results[place].p_against for place in testable]), strict=True))
    judged = []
    for place, result in enumerate(results):
        result = replace(
            result,
            adjusted_for=favour.get(place, NOTHING),
            adjusted_against=against.get(place, NOTHING),
        )
        judged.append(replace(result, verdict=part_verdict(result)) if result.findings else result)
    return judged


def part_verdict(result: PartResult) -> str:
    """The verdict of a part that was run."""
    holds = sum(found.holds for found in result.findings) >= result.needed
    if result.testable and holds and result.adjusted_for < SIGNIFICANCE:
        return REPRODUCED
    if result.testable and result.adjusted_against < SIGNIFICANCE:
        return OPPOSITE
    return DIRECTION if holds else OPEN


def judge_claim(claim: Claim, parts: Sequence[PartResult]) -> ClaimResult:
    """A claim's verdict from those of its parts; a definition is none to be judged."""
    if claim.definition:
        return ClaimResult(claim, DEFINITION, False)
    verdicts = [part.verdict for part in parts]
    judged = [verdict for verdict in verdicts if verdict in JUDGED]
    partial = bool(judged) and (len(judged) < len(verdicts) or any(part.missing for part in parts))
    return ClaimResult(claim, claim_verdict(judged, verdicts), partial, tuple(parts))


def claim_verdict(judged: Sequence[str], verdicts: Sequence[str]) -> str:
    """All parts reproduced, one refuted, all at least in the direction, or open."""
    if not judged:
        return NOT_RUN if NOT_RUN in verdicts else SILENT
    if OPPOSITE in judged:
        return OPPOSITE
    if set(judged) == {REPRODUCED}:
        return REPRODUCED
    return DIRECTION if OPEN not in judged else OPEN
