"""A paper's own numbers beside a run's: which printed value belongs to which comparison, and what effect it stands for."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from w2s.claims import Claims, Part, Printed
from w2s.errors import DataError
from w2s.evidence import Comparison
from w2s.results import same_model

if TYPE_CHECKING:
    import pandas as pd

# Metrics whose values mean the same whoever measured them.
UNIT_FREE = ("win", "agreement", "consistency", "vote", "similarity", "sides", "correct", "both", "marker")
NOTHING = float("nan")


def check_published(claims: Claims, published: pd.DataFrame) -> None:
    """Raise DataError, naming them, if the claims refer to values that nobody printed."""
    unknown = sorted(claims.published_ids - set(published["id"]))
    if unknown:
        raise DataError(
            f"the claims refer to {len(unknown)} unknown ids of published values: {', '.join(unknown[:5])}",
            instead="ids of the table of published values",
        )


def printed_value(number: Printed, part: Part | None, published: pd.DataFrame) -> float:
    """A printed number: mean of some values plus half of others minus the mean of others."""
    values = published["value"]
    total = values[list(number.plus)].mean() + values[list(number.half)].sum() / 2
    total -= values[list(number.minus)].mean() if number.minus else 0.0
    return float(total) * (part.published_unit if part else 1.0)


def printed_label(number: Printed, published: pd.DataFrame) -> str:
    """What tells a printed number from the others of its part: data set (paper B), student, teacher, setting."""
    row = published.loc[number.plus[0]]
    names = [row["data"]] if row["paper"] == "B" else []
    names += [row["student"], row["teacher"]]
    names += [row["setting"]] if len(number.plus) == 1 else []
    return " · ".join(str(word) for word in names if word)


def printed_slope(part: Part, published: pd.DataFrame) -> float:
    """The paper's slope per doubling."""
    logs = [math.log2(at) for at, _ in part.series]
    values = [float(published["value"][name]) for _, name in part.series]
    middle = sum(logs) / len(logs)
    return sum((log - middle) * value for log, value in zip(logs, values, strict=True)) / sum(
        (log - middle) ** 2 for log in logs
    )


def printed_effect(numbers: Sequence[Printed], part: Part, published: pd.DataFrame) -> float:
    """Mean of some printed numbers of a part, from its reference; the slope where the part is a trend."""
    if part.series:
        return printed_slope(part, published)
    values = [printed_value(number, part, published) for number in numbers]
    return sum(values) / len(values) - (part.reference or 0.0)


def printed_scale(part: Part, claims: Claims, published: pd.DataFrame) -> float:
    """The part's scale as the paper printed it, NaN without one."""
    number = claims.scales[part.scale].published if part.scale else None
    return printed_value(number, None, published) if number else NOTHING


def printed_numbers(part: Part) -> list[Printed]:
    """All numbers that the paper printed for a part; those of a trend are one."""
    return [Printed(tuple(name for _, name in part.series))] if part.series else list(part.published)


def printed_of(comparison: Comparison, part: Part, published: pd.DataFrame) -> list[Printed]:
    """The paper's number of the very same comparison: same student and, where it printed several for it, the same
    data set, beta or refiner, judge and teachers; empty if that leaves none or more than one."""
    same = [number for number in printed_numbers(part) if same_student(comparison, number.plus[0], published)]
    for column, fits in (
        ("data", _fits_data),
        ("setting", _fits_setting),
        ("gold", _fits_judge),
        ("teacher", _fits_teachers),
    ):
        if len({tuple(published.loc[list(number.ids), column]) for number in same}) > 1:
            same = [number for number in same if fits(comparison, number, published)]
    return same if len(same) == 1 else []


def on_scale(numbers: Sequence[Printed], part: Part, claims: Claims, published: pd.DataFrame) -> bool:
    """Whether the part's scale was printed for the student of these numbers (it was for one student only)."""
    scale = claims.scales[part.scale].published if part.scale else None
    if scale is None:
        return False
    student = published["student"][scale.plus[0]]
    return all(published["student"][number.plus[0]] == student for number in numbers)


def same_student(comparison: Comparison, name: str, published: pd.DataFrame) -> bool:
    """Whether a printed value is of the comparison's student; a value of no student fits any."""
    student = str(published["student"][name])
    return not student or not comparison.student or same_model(student) == same_model(comparison.student)


def _fits_data(comparison: Comparison, number: Printed, published: pd.DataFrame) -> bool:
    return same_model(str(published["data"][number.plus[0]])) == same_model(comparison.data)


def _fits_setting(comparison: Comparison, number: Printed, published: pd.DataFrame) -> bool:
    kind, _, value = str(published["setting"][number.plus[0]]).partition("=")
    if kind == "refiner":
        return same_model(value) == same_model(comparison.refiner)
    return kind != "beta" or math.isclose(float(value), comparison.beta)


def _fits_judge(comparison: Comparison, number: Printed, published: pd.DataFrame) -> bool:
    judge = same_model(comparison.judge)
    return bool(judge) and judge in same_model(str(published["gold"][number.plus[0]]))


def _fits_teachers(comparison: Comparison, number: Printed, published: pd.DataFrame) -> bool:
    teachers = [str(published["teacher"][name]) for name in (*number.plus[:1], *number.minus[:1])]
    if comparison.weak:
        return all(not teacher or same_model(teacher) == same_model(comparison.weak) for teacher in teachers)
    named = [arm.partition("-")[2] for arm in comparison.arms]
    return all(
        not teacher or not name or same_model(teacher) == same_model(name)
        for teacher, name in zip(teachers, named, strict=False)
    )


def expected_effect(
    part: Part,
    comparison: Comparison,
    same: Sequence[Printed],
    claims: Claims,
    scale: float,
    published: pd.DataFrame,
    world_data: Collection[str],
) -> float:
    """The paper's effect in this run's unit, that of the same comparison if there is one, else the part's mean.

    Where the paper printed the scale for that student the effect is the same share of ours; where units are alike or
    the data are real it is taken as it is; in a made-up world NaN is all that can be said.
    """
    numbers = list(same) or printed_numbers(part)
    if not numbers:
        return NOTHING
    if part.metric in UNIT_FREE:
        return printed_effect(numbers, part, published)
    scaled = [number for number in numbers if on_scale([number], part, claims, published)]
    if scaled and scale > 0:
        return printed_effect(scaled, part, published) / printed_scale(part, claims, published) * scale
    return NOTHING if comparison.data in world_data else printed_effect(numbers, part, published)
