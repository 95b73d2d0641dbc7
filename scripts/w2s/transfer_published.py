"""Values of paper B as rows of ``arms.csv``: the authors' released scores, which have no intervals.

In the file of published values a row's arm is named as here, its ``teacher`` is the weak labeller and its ``student``
the student's base; who refined the labels stands in ``setting`` (``refiner=<name>``). What is ours is paired with what is
theirs by role: by name where one name is a part of the other, else by rank. Whoever shows such a pair names theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s.results import read_published, rows_where, same_model
from w2s.transfer_results import LABELS, ROLES, TABLES, TEACHER, role

if TYPE_CHECKING:
    import pandas as pd

PAPER = "B"
# Of weak labels that the authors did not train on, only those of the training set stand beside ours.
UNUSED = "_labels_all_"
PAIRED = ("data", "student", "refiner", "weak")


def released_arms(path: Path, item: str) -> pd.DataFrame:
    """The values of one item in the columns of ``arms.csv`` (numbers that were not released are NaN); may be empty."""
    import pandas as pd

    values = read_published(path)
    mine = values[(values["paper"] == PAPER) & (values["artifact"] == item)]
    mine = rows_where(mine, "arm", lambda arm: role(arm.removeprefix(LABELS)) in ROLES)
    mine = rows_where(mine, "id", lambda identity: UNUSED not in identity).reset_index(drop=True)
    columns = TABLES["arms.csv"]
    frame = pd.DataFrame(
        {
            **{name: pd.Series("", index=mine.index, dtype="str") for name in columns.text},
            **{name: float("nan") for name in (*columns.numbers, *columns.optional)},
        },
        index=mine.index,
    )
    refiners = pd.Series([_setting(text, "refiner") for text in mine["setting"]], dtype="str")
    return frame.assign(
        experiment=item,
        **{"data": mine["data"], "student": mine["student"].where(mine["arm"] != TEACHER, "")},
        **{"weak": mine["teacher"], "arm": mine["arm"], "metric": mine["metric"], "judge": mine["gold"]},
        **{"mean": mine["value"], "source": mine["source"], "refiner": refiners},
    )


def _setting(text: str, kind: str) -> str:
    """``"refiner=GPT-4o-mini; n=100"`` -> ``"GPT-4o-mini"``."""
    parts = (part.partition("=") for part in text.split(";"))
    return next((value.strip() for name, _, value in parts if name.strip() == kind), "")


def pair_roles(ours: Sequence[str], theirs: Sequence[str]) -> dict[str, str]:
    """Pair names, ours -> theirs: those of which one is a part of the other (``truthful_qa``, ``tinyTruthfulQA``),
    then the rest by rank.
    """
    rest = dict.fromkeys(name for name in theirs if name)
    pairs: dict[str, str] = {}
    for name in dict.fromkeys(name for name in ours if name):
        left = same_model(name)
        same = [other for other in rest if left in same_model(other) or same_model(other) in left]
        if same:
            pairs[name] = same[0]
            del rest[same[0]]
    left_over = [name for name in dict.fromkeys(ours) if name and name not in pairs]
    return pairs | dict(zip(left_over, rest, strict=False))


class Beside:
    """Finds the released value of one of our arms by role."""

    def __init__(self, released: pd.DataFrame, arms: pd.DataFrame) -> None:
        self._released = released
        self.pairs = {name: pair_roles(list(arms[name]), list(released[name])) for name in PAIRED}

    def value(self, arm: Mapping[str, str]) -> float:
        """The released mean of an arm, over the authors' runs where they released several; NaN if there is none."""
        found = self._released[self._released["metric"] == arm["metric"]]
        for name in PAIRED:
            found = found[found[name] == (self.pairs[name].get(arm[name]) if arm[name] else "")]
        head = LABELS if arm["arm"].startswith(LABELS) else ""
        found = found[found["arm"] == head + role(arm["arm"].removeprefix(LABELS))]
        return float(found["mean"].mean()) if len(found) else float("nan")

    @property
    def roles(self) -> list[str]:
        """``"Falcon-7B-Instruct for weak-3"``: theirs and ours where the names differ."""
        every = [(ours, theirs) for pairs in self.pairs.values() for ours, theirs in pairs.items()]
        return list(dict.fromkeys(f"{theirs} for {ours}" for ours, theirs in every if theirs != ours))
