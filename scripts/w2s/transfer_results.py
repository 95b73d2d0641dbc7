"""The tables that ``tabulate_transfer`` makes, as figures, written tables and the report read them, and what arms are called.

An arm's *role* is the first word of its name (``icl-8`` is an ``icl``): it tells its words, its colour and its mark in
all figures. Every table is checked when it is read (:func:`w2s.results.read_table`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s.artifact import load
from w2s.errors import DataError
from w2s.results import Columns, counts, read_table, rows_where

if TYPE_CHECKING:
    import pandas as pd

UNTUNED, TEACHER, NAIVE = "untuned", "teacher", "naive"
# Before the name of a refinement: its labels themselves, on the training questions.
LABELS = "labels:"
# Metrics of which more is better; only of these a recovered share of a gap is defined.
QUALITIES = ("content", "style", "both", "correct")
METRIC_WORDS = {
    "content": "content",
    "style": "style",
    "both": "content and style both right",
    "correct": "correct answers",
    "marker": "answers with the task's marker",
    "words": "length (words)",
    "copied": "the weak model's mistakes, repeated",
}
# Role -> its words; others follow in their own.
ROLE_WORDS = {
    UNTUNED: "unaligned strong model",
    TEACHER: "weak model itself",
    NAIVE: "naive fine-tuning",
    "confidence": "auxiliary confidence loss",
    "doubled": "weak and own labels (data doubling)",
    "bootstrapped": "bootstrapping through a middle model",
    "icl": "ICL refinement",
    "infer": "infer and respond",
    "improve": "ask to improve",
    "own": "the strong model's own labels",
    "timed": "ICL at test time, no fine-tuning",
    "gold": "gold labels",
}
ROLES = tuple(ROLE_WORDS)
_ARM = ("experiment", "data", "student", "weak", "refiner", "arm", "recipe")
TABLES = {
    "arms.csv": Columns(
        text=(*_ARM, "kind", "choice", "timed", "metric", "judge"),
        numbers=("seeds", "items", "mean", "low", "high", "missing", "left_out"),
        optional=("shown",),
    ),
    "differences.csv": Columns(
        text=(*_ARM, "baseline", "metric", "judge", "seed_differences"),
        numbers=("seeds", "items", "difference", "low", "high"),
        optional=("shown",),
    ),
    "recovered.csv": Columns(
        text=(*_ARM, "ceiling", "metric", "judge"),
        numbers=("seeds", "items", "gap", "gap_low", "gap_high"),
        optional=("shown", "recovered", "low", "high"),
    ),
    "labels.csv": Columns(
        text=("experiment", "data", "weak", "refiner", "refinement", "metric", "judge"),
        numbers=("seeds", "mean"),
        optional=("items", "low", "high"),
    ),
}


def is_transfer(tables: Path) -> bool:
    """Whether the tables are a transfer's (paper B)."""
    return "arms.csv" in load(tables).manifest["files"]


def read_transfer(tables: Path, name: str) -> pd.DataFrame:
    """Read one of :data:`TABLES`.

    Raises:
        ArtifactError: the artifact or the table is missing.
        DataError: a column is missing or a cell is no number.
    """
    return read_table(load(tables).path(name), TABLES[name])


def role(arm: str) -> str:
    """``"icl-8"`` -> ``"icl"``."""
    return arm.partition("-")[0]


def arm_words(arm: str) -> str:
    """``"icl-8"`` -> ``"ICL refinement (8)"``."""
    words, detail = ROLE_WORDS.get(role(arm), role(arm)), arm.partition("-")[2]
    return f"{words} ({detail})" if detail else words


def arm_order(arm: str) -> tuple[int, str]:
    """Sort key of arms: as in :data:`ROLE_WORDS`, others last."""
    return (ROLES.index(role(arm)) if role(arm) in ROLES else len(ROLES), arm)


def metric_words(metric: str) -> str:
    """A metric in words; its own name if it is no known one."""
    return METRIC_WORDS.get(metric, metric)


def of_metric(arms: pd.DataFrame, metric: str, judge: str | None, where: object) -> pd.DataFrame:
    """The rows of one metric by one judge; without a name by the only judge there is. May be empty.

    Raises:
        DataError: several judges scored the metric and none was named.
    """
    mine = arms[arms["metric"] == metric]
    judges = list(dict.fromkeys(mine["judge"]))
    if len(judges) > 1 and judge not in judges:
        raise DataError(
            f"several judges scored {metric!r}: {', '.join(name or '(exact)' for name in judges)}",
            where=where,
            instead="--judge with one of them: judges are never mixed",
        )
    return mine if len(judges) <= 1 else mine[mine["judge"] == judge]


def said(metrics: pd.DataFrame) -> str:
    """Seeds, items and what was left out, as a caption says it: ``"3 seeds, 100 prompts; ..."``."""
    seeds, missing = metrics["seeds"].max(), int(metrics["missing"].sum())
    over = "seeds and questions" if seeds > 1 else "questions only (one seed)"
    text = f"{counts(metrics.rename(columns={'items': 'prompts'})).replace('prompt', 'question')}"
    text += f"; 95 % intervals over {over}"
    if missing:
        left = int(metrics["left_out"].sum())
        text += f". {missing:,} answers have no score; for them {left:,} of other arms are left out"
    return text


def students(arms: pd.DataFrame) -> pd.DataFrame:
    """The rows of arms that learned or were shown something."""
    return rows_where(arms, "arm", lambda arm: arm not in (UNTUNED, TEACHER))


def series(arms: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, str]]:
    """(arm, recipe) -> the series that it belongs to: an arm's fine-tunings are parted only where it has several.

    A released arm has no fine-tuning's name and bears its role's name alone (``icl``): it is of the series of the only arm
    of this role (``icl-4``), if there is only one.
    """
    recipes: dict[str, set[str]] = {}
    for arm, recipe in arms:
        recipes.setdefault(arm, set()).update({recipe} - {""})
    found = {}
    for arm, recipe in arms:
        same = [other for other in recipes if role(other) == arm != UNTUNED and other != arm]
        found[arm, recipe] = (
            same[0] if len(same) == 1 and not recipes[arm] else arm,
            recipe if len(recipes[arm]) > 1 else "",
        )
    return found


def series_words(name: tuple[str, str]) -> str:
    """A series in words."""
    return arm_words(name[0]) + (f", {name[1]}" if name[1] else "")


def series_order(name: tuple[str, str]) -> tuple[int, str, str]:
    """Sort key of series."""
    return (*arm_order(name[0]), name[1])
