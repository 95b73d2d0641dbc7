"""The comparisons that a claim's part asks of an experiment's measurements.

A part names arms by role; here the roles meet an experiment. A comparison is made for every setting (data set, labelled
share, student, recipe, judge, weak labeller, refiner) in which the arms occur, except along what the part itself
compares. An arm without one of these, such as gold labels, which no weak model wrote, stands beside all that have it.
What one comparison holds is not numbers yet but weighted cells, so that a difference, its margin and the margin's own
noise are drawn together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd

from w2s.claims import Claims, Part, Scale, Side
from w2s.errors import DataError, JoinError
from w2s.measured import Measurements
from w2s.results import policy_of, share_label
from w2s.statistics import pair

SETTING = ["data", "share", "student", "recipe", "judge", "weak", "refiner"]
# Of these an arm may have none: it then belongs to every one.
OF_ANY = ("student", "recipe", "weak", "refiner")
# Measured on the responses to test prompts: both sides of a comparison have the same cells.
PER_PROMPT = (
    *("reward", "tokens", "win", "score", "similarity"),
    *("content", "style", "balance", "both", "correct", "marker", "words", "copied"),
)
Terms = list[tuple[float, pd.DataFrame]]


@dataclass(frozen=True)
class Comparison:
    """What one setting has to say about a part.

    Attributes:
        label: what tells the setting from the part's others; empty if it is the only one.
        data, share, student, beta, judge, weak, refiner: of the setting, empty (NaN) where they are compared or do not apply.
        terms: weighted cells whose means add up to the statistic; for ``r_squared`` the cells of the three arms.
        scale: weighted cells of the difference that margin and effect are measured in; None if the part has none.
        missing: why the comparison cannot be made, empty if it can.
    """

    label: str
    data: str
    share: str = ""
    student: str = ""
    beta: float = float("nan")
    judge: str = ""
    arms: tuple[str, ...] = ()
    terms: Terms = field(default_factory=list)
    scale: Terms | None = None
    missing: str = ""
    weak: str = ""
    refiner: str = ""


class Absent(Exception):
    """An arm that a comparison needs does not occur; the message says which."""


# -- comparisons -------------------------------------------------------------------------------------------


def comparisons(part: Part, measurements: Measurements, claims: Claims) -> list[Comparison]:
    """One comparison per setting and pair of arms, in the order of the measurements.

    Raises:
        JoinError: the two sides were not measured on the same seeds and prompts.
        DataError: several teachers where one is meant.
    """
    frame = _rows(part, measurements)
    settings = _settings(part, frame, measurements.feedback)
    told = [name for name in SETTING if len({setting.get(name) for setting in settings}) > 1]
    sides = _sides(part)
    found = []
    for setting in settings:
        rows = frame[_in_setting(frame, setting)]
        for arms in _arms(sides, measurements.feedback):
            labels = [_in_words(name, setting[name], rows) for name in told if setting[name]]
            labels += [" against ".join(arms)] if any(side.ranks[1] is None for side in sides) else []
            found.append(
                _comparison(part, claims, measurements, rows, setting, list(arms), " · ".join(labels))
            )
    return found


def _settings(part: Part, frame: pd.DataFrame, feedback: Sequence[str]) -> list[dict[str, str]]:
    """The settings in which one of the part's arms occurs (any arm, if it has un-tuned ones only); those that another
    one fills in are left out."""
    dimensions = [name for name in SETTING if name not in _compared(part)]
    wanted = {name for side in _sides(part) for name in feedback if _plays(side, name)}
    rows = frame[frame["feedback"].isin(wanted)]
    rows = rows if len(rows) else frame[frame["feedback"] != ""]
    distinct = rows[dimensions].drop_duplicates().itertuples(index=False)
    found = [dict(zip(dimensions, map(str, row), strict=True)) for row in distinct]
    return [one for one in found if not any(_fills_in(other, one) for other in found if other != one)]


def _fills_in(one: dict[str, str], other: dict[str, str]) -> bool:
    """Whether a setting is another one but for what that leaves open."""
    return all(value == other[name] or (name in OF_ANY and not other[name]) for name, value in one.items())


def _comparison(
    part: Part,
    claims: Claims,
    measurements: Measurements,
    rows: pd.DataFrame,
    setting: dict[str, str],
    arms: list[str],
    label: str,
) -> Comparison:
    betas = rows.loc[rows["feedback"] != "", "beta"].dropna().unique()
    beta = float(betas[0]) if len(betas) == 1 else float("nan")
    names: dict[str, Any] = {name: value for name, value in setting.items() if name != "recipe"}
    where = f"experiment {measurements.experiment}, part {part.id}, {label or 'only setting'}"
    try:
        terms = _terms(part, rows, arms, where)
        scale = _scale(part, claims, rows, measurements) if part.scale or _margin_scale(part) else None
    except Absent as absent:
        return Comparison(label, **names, beta=beta, arms=tuple(arms), missing=str(absent))
    return Comparison(label, **names, beta=beta, arms=tuple(arms), terms=terms, scale=scale)


def _terms(part: Part, rows: pd.DataFrame, arms: list[str], where: str) -> Terms:
    """Weighted cells of the part's statistic in one setting."""
    if part.along == "weak":
        return _slope_over_teachers(part, rows, arms, where)
    if part.along:
        return _slope(part, rows, arms[0])
    groups = [_groups(side, part, rows, arm) for side, arm in zip(_sides(part), arms, strict=True)]
    if part.statistic == "r_squared":
        _check_paired([group[0] for group in groups], where)
        return [(1.0, group[0]) for group in groups]
    signs = (1.0, -1.0)[: len(groups)]
    if len(groups) == 2 and part.metric in PER_PROMPT and "share" not in _compared(part):
        _check_paired([cells for group in groups for cells in group], where)
    return [(sign / len(group), cells) for sign, group in zip(signs, groups, strict=True) for cells in group]


def _slope(part: Part, rows: pd.DataFrame, arm: str) -> Terms:
    """Weights of a least-squares slope per doubling of share, beta or number of examples (no examples: left out)."""
    mine = _of_arm(rows, part.left, arm)
    positions = _position(mine, part.along)
    mine, positions = mine[positions > 0], positions[positions > 0]
    if positions.nunique() < 2:
        raise Absent(f"{arm} was run at one {part.along} only")
    points = [
        (float(positions.loc[cells.index[0]]), cells[["seed", "id", "value"]])
        for _, cells in mine.groupby([positions, "feedback"])
    ]
    weights = slope_weights(np.log2([position for position, _ in points]))
    return [(weight, cells) for weight, (_, cells) in zip(weights, points, strict=True)]


def _slope_over_teachers(part: Part, rows: pd.DataFrame, arms: list[str], where: str) -> Terms:
    """Weights of a least-squares slope over the weak models per point of their own score, which is taken as known."""
    teachers = rows[rows["arm"] == "teacher"].groupby("weak", sort=False)["value"].mean()
    if teachers.nunique() < 2:
        raise Absent("weak models of one score only" if len(teachers) else "no measurement of teacher")
    terms: Terms = []
    for weight, weak in zip(slope_weights(teachers.to_numpy()), teachers.index, strict=True):
        mine = rows[rows["weak"].isin([weak, ""])]
        groups = [_groups(side, part, mine, arm)[0] for side, arm in zip(_sides(part), arms, strict=True)]
        _check_paired(groups, f"{where}, {weak}")
        terms += [(sign * weight, cells) for sign, cells in zip((1.0, -1.0), groups, strict=False)]
    return terms


def slope_weights(positions: np.ndarray) -> list[float]:
    """What each value counts in a least-squares slope over these positions."""
    off = positions - positions.mean()
    return [float(weight) for weight in off / (off**2).sum()]


def _groups(side: Side, part: Part, rows: pd.DataFrame, arm: str) -> list[pd.DataFrame]:
    """Cells of one side: one table, or one for each recipe, beta or share that it picks."""
    mine = _of_arm(rows, side, arm)
    if side.recipe is not None:
        recipes = list(dict.fromkeys(mine["recipe"]))
        if len(recipes) < side.recipe:
            raise Absent(f"{arm} was run with {len(recipes)} recipe{'' if len(recipes) == 1 else 's'} only")
        mine = mine[mine["recipe"] == recipes[side.recipe - 1]]
    for name in ("beta", "share", "shown"):
        pick = getattr(side, name)
        if pick is not None:
            others = [getattr(other, name) for other in _sides(part) if other is not side]
            positions = _position(mine, name)
            chosen = _picked(sorted(positions.unique()), pick, others)
            if not chosen:
                raise Absent(f"{arm} was run at too few values of {name}")
            return [
                cells[["seed", "id", "value"]]
                for value in chosen
                for _, cells in mine[positions == value].groupby("feedback", sort=False)
            ]
    return [mine[["seed", "id", "value"]]]


def _picked(values: list[float], pick: str, others: Sequence[str | None]) -> list[float]:
    """The values that a pick means: the smallest, the largest, what the other side's pick leaves, or all."""
    if pick == "all":
        return values
    if pick == "others":
        taken = {value for other in others if other for value in _picked(values, other, [])}
        return [value for value in values if value not in taken]
    word, _, count = pick.partition(" ")
    number = int(count or 1)
    if number >= len(values):
        return []
    return values[:number] if word == "smallest" else values[-number:]


def _position(rows: pd.DataFrame, name: str | None) -> pd.Series:
    """Labelled share, beta or number of examples as a number."""
    if name == "share":
        return rows["share"].map({share: share_number(share) for share in rows["share"].unique()})
    column = str(name)
    if rows[column].isna().any():
        raise Absent(
            "measurements without a number of examples"
            if name == "shown"
            else f"measurements without a {name}"
        )
    return rows[column]


def share_number(share: str) -> float:
    """``"1-of-16"`` -> 0.0625."""
    try:
        return float(Fraction(share_label(share)))
    except (ValueError, ZeroDivisionError) as error:
        raise DataError(f"{share!r} is no labelled share", instead="1-of-2") from error


def _scale(part: Part, claims: Claims, rows: pd.DataFrame, measurements: Measurements) -> Terms | None:
    """The scale's weighted cells in the same setting. A part that needs them for its margin cannot do without."""
    scale = claims.scales[_margin_scale(part) or part.scale or ""]
    try:
        return _scale_terms(scale, part, rows, measurements)
    except Absent:
        if _margin_scale(part):
            raise
        return None


def _scale_terms(scale: Scale, part: Part, rows: pd.DataFrame, measurements: Measurements) -> Terms:
    terms: Terms = []
    for sign, side in ((1.0, scale.left), (-1.0, scale.right)):
        if side is None:
            continue
        names = _names(side, measurements.feedback)
        if not names:
            raise Absent(f"no arm {side.text}, which {scale.words} is measured with")
        groups = _groups(side, part, rows, names[0])
        terms += [(sign / len(groups), cells) for cells in groups]
    return terms


def _margin_scale(part: Part) -> str | None:
    return part.margin.of if part.margin else None


def _of_arm(rows: pd.DataFrame, side: Side, arm: str) -> pd.DataFrame:
    """Rows of one arm.

    Raises:
        Absent: there are none.
    """
    if side.policy == "untuned":
        mine = rows[rows["arm"] == "untuned"]
    elif side.policy == "teacher":
        mine = _one_teacher(rows[rows["arm"] == "teacher"], rows)
    else:
        plays = (
            rows["feedback"].map(lambda name: _plays(side, name)) if side.shown else rows["feedback"] == arm
        )
        mine = rows[plays.astype(bool) & ((rows["step"] == "sft") == side.sft)]
    if mine.empty:
        raise Absent(f"no measurement of {side.text}")
    return mine


def _one_teacher(teachers: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The teacher of the first weak feedback, where several were measured."""
    names = list(dict.fromkeys(teachers["student"]))
    if len(names) < 2:
        return teachers
    weak = next((source for source in rows["feedback"] if source.startswith("weak-")), "")
    mine = [name for name in names if weak == f"weak-{name}"]
    if not mine:
        raise DataError(
            f"several teachers ({', '.join(names)}), none of them named by {weak or 'a weak feedback'}",
            instead="weak feedback named weak-<teacher>",
        )
    return teachers[teachers["student"] == mine[0]]


def _rows(part: Part, measurements: Measurements) -> pd.DataFrame:
    """Rows of the part's metric, data, judge and share."""
    frame = measurements.frame
    frame = frame[frame["metric"] == part.metric]
    if part.data:
        frame = frame[frame["data"] == part.data]
    if part.judge == "other":
        frame = frame[frame["judge"] != measurements.main_judge]
    elif part.judge == "main" and measurements.main_judge in set(frame["judge"]):
        frame = frame[frame["judge"] == measurements.main_judge]
    if part.share and len(frame):
        numbers = _position(frame, "share")
        values = sorted(numbers.unique())
        frame = frame[numbers.isin(values if len(values) == 1 else _picked(values, part.share, []))]
    return frame


def _in_setting(frame: pd.DataFrame, setting: dict[str, str]) -> pd.Series:
    """Rows of a setting. Un-tuned students have no recipe; teachers have neither a recipe nor a student; whatever has
    no weak labeller or refiner belongs to each."""
    inside = pd.Series(True, frame.index)
    for name, value in setting.items():
        same = frame[name] == value
        if name in OF_ANY:
            same |= frame[name] == ""
        if name == "recipe":
            same |= frame["arm"].isin(["untuned", "teacher"])
        if name == "student":
            same |= frame["arm"] == "teacher"
        inside &= same
    return inside


def _compared(part: Part) -> set[str]:
    """What the part itself compares, so that it makes no settings. Each beta is a recipe of its own."""
    compared = {part.along} if part.along else set()
    for side in _sides(part):
        compared |= {name for name in ("recipe", "beta", "share", "shown") if getattr(side, name) is not None}
    return compared | ({"recipe"} if "beta" in compared else set())


def _sides(part: Part) -> list[Side]:
    return [side for side in (part.left, part.right, part.third) if side is not None]


def _arms(sides: Sequence[Side], feedback: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Names of the arms for each comparison; a role that nobody plays stands for itself, to be named as missing."""
    names = [_names(side, feedback) or [side.text] for side in sides]
    if len(sides) == 2 and sides[0] == sides[1]:
        yield from combinations(names[0], 2)
    else:
        yield from product(*names)


def _names(side: Side, feedback: Sequence[str]) -> list[str]:
    """Feedback (or ``untuned``, ``teacher``) that plays a role."""
    if side.policy in ("untuned", "teacher"):
        return [side.policy]
    first, last = side.ranks
    playing = [source for source in feedback if _plays(side, source)]
    return playing[:1] if side.shown else playing[first - 1 : last]


def _plays(side: Side, feedback: str) -> bool:
    """Whether a feedback is of the side's policy: ``"icl-8"`` is of ``icl``."""
    return policy_of(feedback).partition("-")[0] == side.policy


def _in_words(name: str, value: str, rows: pd.DataFrame) -> str:
    """A setting's value in words: a labelled share as a fraction, a recipe by its beta as well."""
    if name == "share":
        return f"labelled share {share_label(value)}"
    if name == "recipe":
        betas = rows.loc[rows["recipe"] == value, "beta"].dropna().unique()
        return f"recipe {value}" + (f" (beta {betas[0]:g})" if len(betas) == 1 else "")
    return {"judge": "judge ", "weak": "from ", "refiner": "refined by "}.get(name, "") + value


def _check_paired(frames: Sequence[pd.DataFrame], where: str) -> None:
    for other in frames[1:]:
        try:
            pair(frames[0], other)
        except JoinError as error:
            raise JoinError(error.what, where=where, instead=error.instead) from error
