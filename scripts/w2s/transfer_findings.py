"""What a transfer (paper B) shows, in plain words and numbers, whichever way it came out: its part of the report.

Nothing here knows what the paper found. A sentence follows from differences and their intervals alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s.findings import enumeration
from w2s.results import experiment_name, interval, records, signed
from w2s.transfer_results import (
    QUALITIES,
    TEACHER,
    UNTUNED,
    arm_order,
    arm_words,
    metric_words,
    read_transfer,
    role,
    said,
    students,
)

if TYPE_CHECKING:
    import pandas as pd

# Of which a page speaks first: refinements proper, then what they are held against.
LEADING = ("icl", "infer", "improve")


def experiment(tables: Path) -> dict[str, Any]:
    """All that the report says of a transfer, in the keys of :func:`w2s.findings.experiment`."""
    arms, differences = read_transfer(tables, "arms.csv"), read_transfer(tables, "differences.csv")
    told = sentences(differences)
    return {
        "name": experiment_name(tables),
        "what": what_was_run(arms),
        "headline": told[0] if told else "This transfer has no refinement to compare with naive fine-tuning.",
        "sentences": told[1:],
        **{"gold": None, "caveat": "", "findings": [], "other_judges": [], "judges": [], "rewards": []},
        **{"differences": [], "lengths": []},
    }


def what_was_run(arms: pd.DataFrame) -> str:
    """The run in one sentence."""
    of_students = students(arms)
    learners = list(dict.fromkeys(of_students["student"]))
    teachers = [name for name in dict.fromkeys(arms["weak"]) if name]
    ways = [arm_words(arm) for arm in sorted(set(of_students["arm"]), key=arm_order)]
    judges = [judge for judge in dict.fromkeys(arms["judge"]) if judge]
    return (
        f"{enumeration(learners)} learned from {enumeration(teachers) or 'no weak teacher'} by {enumeration(ways)}; "
        f"tested on {enumeration(list(dict.fromkeys(arms['data'])))}, "
        f"{'judged by ' + enumeration(judges) if judges else 'scored exactly'}; {said(arms)}."
    )


def sentences(differences: pd.DataFrame) -> list[str]:
    """One sentence per student's arm and baseline other than its teacher: what is higher, lower, or open."""
    found = differences[differences["metric"].isin(QUALITIES) & (differences["baseline"] != TEACHER)]
    told = []
    for pair, rows in found.groupby(["arm", "baseline"], sort=False):
        arm, baseline = map(str, pair)
        parts = [
            outcome(str(metric), str(judge), mine)
            for (metric, judge), mine in rows.groupby(["metric", "judge"], sort=False)
        ]
        words = [arm_words(arm), arm_words(baseline)]
        order = LEADING.index(role(arm)) if role(arm) in LEADING else len(LEADING)
        text = f"{words[0][0].upper()}{words[0][1:]} against {words[1]}: {'; '.join(parts)}."
        told.append(((order, baseline == UNTUNED, arm_order(arm)), text))
    return [text for _, text in sorted(told)]


def outcome(metric: str, judge: str, rows: pd.DataFrame) -> str:
    """``"content +0.40 [0.31, 0.48]"`` for one setting, else in how many settings it is higher, lower, open."""
    name = metric_words(metric) + (f" (judge {judge})" if judge else "")
    if len(rows) == 1:
        row = next(records(rows))
        return f"{name} {signed(row.difference)} {interval(row.low, row.high)}"
    higher, lower = int((rows["low"] > 0).sum()), int((rows["high"] < 0).sum())
    counts = {"higher": higher, "lower": lower, "open": len(rows) - higher - lower}
    shown = [f"{word} in {count}" for word, count in counts.items() if count]
    return f"{name} {', '.join(shown)} of {len(rows)} settings"
