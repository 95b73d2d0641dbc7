"""What the paper's own printed numbers can bear: simple tests on published values, before any run of ours.

Paper A prints no interval. What it prints of noise is a "variance" over five seeds of one setting; each test that
needs it is made with both readings of that word, variance and standard deviation. Of paper B there are mean scores of
single runs, released and not printed: differences are counted by their direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from w2s.claims import Claims, Printed, PrintedCheck
from w2s.distributions import sign_test, t_tail

if TYPE_CHECKING:
    import pandas as pd

READINGS = ("variance", "standard deviation")


@dataclass(frozen=True)
class Row:
    """One line of a check: what was compared, the difference, and named results (numbers, or counts as text)."""

    label: str
    left: float
    right: float
    results: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class CheckResult:
    """A check with its lines and one sentence."""

    check: PrintedCheck
    rows: tuple[Row, ...]
    sentence: str


def printed_results(claims: Claims, published: pd.DataFrame) -> list[CheckResult]:
    """All checks of the file, in its order."""
    values = published.set_index("id")
    kinds = {"welch": _welch, "sign": _sign, "differences": _differences, "counts": _counts}
    return [kinds[check.kind](check, values) for check in claims.printed]


def welch(difference: float, variances: tuple[float, float], seeds: int) -> tuple[float, float, float]:
    """Welch's t, degrees of freedom and two-sided p-value for two means of ``seeds`` values each."""
    of_means = [variance / seeds for variance in variances]
    t = difference / math.sqrt(sum(of_means))
    degrees = sum(of_means) ** 2 * (seeds - 1) / sum(part**2 for part in of_means)
    return t, degrees, 2 * t_tail(abs(t), degrees)


def _welch(check: PrintedCheck, values: pd.DataFrame) -> CheckResult:
    assert check.seeds is not None
    (left, right), *_ = [_pair(pair, values) for pair in check.pairs]
    rows, ps = [], []
    for reading, variances in _readings(check, values):
        t, degrees, p = welch(left - right, variances, check.seeds)
        ps.append(p)
        rows.append(
            Row(f"read as {reading}", left, right, (("t", t), ("degrees of freedom", degrees), ("p", p)))
        )
    significant = [name for name, p in zip(READINGS, ps, strict=True) if p < 0.05]
    words = " and ".join(f"read as a {name}" for name in significant)
    sentence = (
        f"Significant at 5 % {words}." if words else "Not significant at 5 %, whichever way the word is read."
    )
    return CheckResult(check, tuple(rows), sentence)


def _sign(check: PrintedCheck, values: pd.DataFrame) -> CheckResult:
    rows, all_wins, all_losses = [], 0, 0
    for left_id, right_id in check.pairs:
        wins, losses = (round(value) for value in _pair((left_id, right_id), values))
        all_wins, all_losses = all_wins + wins, all_losses + losses
        rows.append(_sign_row(_label(left_id, values), wins, losses))
    rows.append(_sign_row("all together", all_wins, all_losses))
    significant = sum(dict(row.results)["p"] < 0.05 for row in rows[:-1])
    pooled = dict(rows[-1].results)["p"]
    return CheckResult(
        check,
        tuple(rows),
        f"Significant at 5 % for {significant} of {len(rows) - 1} students; all together p = {pooled:.2g}.",
    )


def _sign_row(label: str, wins: int, losses: int) -> Row:
    return Row(
        label,
        wins,
        losses,
        (("share of wins", wins / (wins + losses)), ("p", sign_test(wins, wins + losses))),
    )


def _differences(check: PrintedCheck, values: pd.DataFrame) -> CheckResult:
    noise = {reading: math.sqrt(sum(variances)) for reading, variances in _readings(check, values)}
    rows = []
    for left_id, right_id in check.pairs:
        left, right = _pair((left_id, right_id), values)
        spread = tuple((f"in SDs, {name}", (left - right) / deviation) for name, deviation in noise.items())
        rows.append(Row(_difference_label(left_id, right_id, values), left, right, spread))
    above = sum(row.left > row.right for row in rows)
    untied = sum(row.left != row.right for row in rows)
    beyond = {
        name: sum(abs(row.left - row.right) > 1.96 * deviation for row in rows)
        for name, deviation in noise.items()
    }
    words = " and ".join(
        f"{beyond[name]} of {len(rows)} lie beyond 1.96 standard deviations of a difference ({noise[name]:.2f}) "
        f"read as {name}"
        for name in READINGS
    )
    sign = (
        f" {above} of {untied} are positive, sign test p = {sign_test(above, untied):.2g}."
        if check.signs
        else ""
    )
    return CheckResult(check, tuple(rows), f"{words[0].upper()}{words[1:]}.{sign}")


def _counts(check: PrintedCheck, values: pd.DataFrame) -> CheckResult:
    """How many differences of each group lie above and below zero, and how far the outermost ones do."""
    rows = [_count_row(label, _sums(group, values), check.within) for label, group in check.groups]
    if len(rows) > 1:
        everything = [value for _, group in check.groups for value in _sums(group, values)]
        rows.append(_count_row("all together", everything, check.within))
    total = rows[-1]
    ties = int(dict(total.results)["ties"])
    number = {"above": int(total.left), "below": int(total.right), "equal": ties}[check.test]
    near = f"within {check.within:g} of zero"
    aside = ""
    if check.test == "equal":
        where = near
    elif check.within:
        where, aside = f"more than {check.within:g} {check.test} zero", f", {ties} {near}"
    else:
        where = f"{check.test} zero"
    return CheckResult(
        check, tuple(rows), f"{number} of {int(total.left + total.right) + ties} lie {where}{aside}."
    )


def _count_row(label: str, differences: Sequence[float], within: float) -> Row:
    above, below = (sum(sign * value > within for value in differences) for sign in (1, -1))
    ties = len(differences) - above - below
    return Row(
        label, above, below, (("ties", ties), ("smallest", min(differences)), ("largest", max(differences)))
    )


def _sums(group: Sequence[Printed], values: pd.DataFrame) -> list[float]:
    """Sum of plus minus sum of minus, without the noise of binary fractions."""
    return [
        round(float(values["value"][list(number.plus)].sum() - values["value"][list(number.minus)].sum()), 9)
        for number in group
    ]


def _readings(check: PrintedCheck, values: pd.DataFrame) -> list[tuple[str, tuple[float, float]]]:
    """The two arms' variances under each reading of the printed word."""
    assert check.variances is not None
    printed = [float(values["value"][name]) for name in check.variances]
    return [
        (READINGS[0], (printed[0], printed[1])),
        (READINGS[1], (printed[0] ** 2, printed[1] ** 2)),
    ]


def _pair(pair: tuple[str, str], values: pd.DataFrame) -> tuple[float, float]:
    return float(values["value"][pair[0]]), float(values["value"][pair[1]])


def _label(name: str, values: pd.DataFrame) -> str:
    row = values.loc[name]
    return str(row["student"] or row["arm"])


def _difference_label(left: str, right: str, values: pd.DataFrame) -> str:
    one, two = values.loc[left], values.loc[right]
    arms = [" ".join(filter(None, [str(row["arm"]), str(row["setting"])])) for row in (one, two)]
    return f"{one['student']} on {one['data']}: {arms[0]} minus {arms[1]}"
