"""Values of paper B as rows of ``arms.csv``: the authors' released scores, which have no intervals.

In the file of published values a row's arm is named as here, its ``teacher`` is the weak labeller and its ``student``
the student's base; a refiner other than that stands in ``setting`` (``refiner=<name>``). What is ours is paired with what
is theirs by role: by name where names are the same, else by rank (:func:`w2s.published.pair`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from w2s.published import pair
from w2s.results import read_published, rows_where
from w2s.transfer_results import ROLES, TABLES, TEACHER, UNTUNED, role

if TYPE_CHECKING:
    import pandas as pd

PAPER = "B"


def released_arms(path: Path, item: str) -> pd.DataFrame:
    """The values of one item in the columns of ``arms.csv`` (numbers that were not released are NaN); may be empty."""
    import pandas as pd

    values = read_published(path)
    mine = values[(values["paper"] == PAPER) & (values["artifact"] == item)]
    mine = rows_where(mine, "arm", lambda arm: role(arm) in ROLES).reset_index(drop=True)
    columns = TABLES["arms.csv"]
    frame = pd.DataFrame(
        {
            **{name: pd.Series("", index=mine.index, dtype="str") for name in columns.text},
            **{name: float("nan") for name in (*columns.numbers, *columns.optional)},
        },
        index=mine.index,
    )
    refiners = [_setting(text, "refiner") for text in mine["setting"]]
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


class Beside:
    """Finds the released value of one of our arms by role: data, student and weak labeller paired by name or rank."""

    def __init__(self, released: pd.DataFrame, arms: pd.DataFrame) -> None:
        self._released = released
        self.pairs: dict[str, Mapping[str, str]] = {}
        for name in ("data", "student", "weak"):
            ours, theirs = ([value for value in frame[name] if value] for frame in (arms, released))
            self.pairs[name] = pair(ours, theirs)

    def value(self, arm: Mapping[str, str]) -> float:
        """The released mean of an arm; NaN if there is none, or the role does not tell which of several is meant."""
        found = self._released
        for name in ("data", "student", "weak"):
            wanted = self.pairs[name].get(arm[name], "") if arm[name] else ""
            found = found[found[name] == wanted]
        wanted_arm = arm["arm"] if arm["arm"] in (UNTUNED, TEACHER) else role(arm["arm"])
        found = found[(found["arm"] == wanted_arm) & (found["metric"] == arm["metric"])]
        return float(found["mean"].iloc[0]) if len(found) == 1 else float("nan")

    @property
    def roles(self) -> list[str]:
        """``"Falcon-7B-Instruct for weak-3"``: theirs and ours where the names differ."""
        return [
            f"{theirs} for {ours}"
            for pairs in self.pairs.values()
            for ours, theirs in pairs.items()
            if theirs != ours
        ]
