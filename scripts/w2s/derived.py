"""Tables that follow from an experiment's measurements alone: data responses, comparisons, votes, similarity, examples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from w2s import judgements, statistics
from w2s.agreement import LabelFile
from w2s.correlation import bootstrap_line
from w2s.errors import DataError
from w2s.results import records
from w2s.statistics import Bootstrap
from w2s.tables import read_examples

RESPONSE_COLUMNS = ["experiment", "data", "share", "feedback", "gold", "seeds", "n", "chosen", "rejected"]
RESPONSE_COLUMNS += ["gap", "low", "high", "gold_agrees", "gold_agrees_low", "gold_agrees_high"]
COMPARISON_COLUMNS = ["experiment", "data", "share", "student", "recipe", "arm", "baseline", "judge", "seeds"]
COMPARISON_COLUMNS += ["prompts", "win", "tie", "lose", "score", "low", "high"]
COMPARISON_COLUMNS += ["length_controlled", "position_bias", "malformed"]
VOTE_COLUMNS = ["experiment", "data", "share", "feedback", "judge", "seeds", "pairs", "votes"]
VOTE_COLUMNS += ["consistency", "low", "high", "label_share", "label_low", "label_high", "malformed"]
SIMILARITY_COLUMNS = [
    "experiment",
    "data",
    "share",
    "student",
    "encoder",
    "left",
    "right",
    "seeds",
    "prompts",
]
SIMILARITY_COLUMNS += [
    "r2",
    "low",
    "high",
    "pearson",
    "slope",
    "intercept",
    "spearman",
    "mean_left",
    "mean_right",
]
POINT_COLUMNS = ["experiment", "data", "student", "seed", "id", "arm", "similarity"]
EXAMPLE_COLUMNS = ["experiment", "data", "share", "seed", "id", "kind", "prompt"]
EXAMPLE_COLUMNS += ["response_first", "label_first", "reward_first"]
EXAMPLE_COLUMNS += ["response_second", "label_second", "reward_second", "votes"]
RECIPE_COLUMNS = ["model", "step", "setting", "value"]
CELLS = ["seed", "id", "value"]


def metric(measurements: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of one metric."""
    return measurements[measurements["metric"] == name]


def responses_table(measurements: pd.DataFrame, bootstrap: Bootstrap) -> pd.DataFrame:
    """Gold reward of the data's responses by whom the labels prefer (paper A, Table 2 and section 4)."""
    rows = []
    keys = ["experiment", "data", "share", "feedback", "judge"]
    rejected = {
        key: cells for key, cells in metric(measurements, "rejected_reward").groupby(keys, sort=False)
    }
    for key, chosen in metric(measurements, "chosen_reward").groupby(keys, sort=False):
        other = rejected[key]
        gaps = statistics.pair(chosen[CELLS], other[CELLS])
        gap = statistics.bootstrap_mean(gaps, bootstrap)
        prefers = gaps.assign(value=(np.sign(gaps["value"]) + 1) / 2)
        agrees = statistics.agreement(prefers, bootstrap)
        means = [float(chosen["value"].mean()), float(other["value"].mean())]
        rows.append(
            [*key, gap.seeds, len(gaps), *means, gap.mean, gap.low, gap.high]  # type: ignore[misc]
            + [agrees.mean, agrees.low, agrees.high]
        )
    return pd.DataFrame(rows, columns=RESPONSE_COLUMNS)


def comparisons_table(measurements: pd.DataFrame, reference: str, bootstrap: Bootstrap) -> pd.DataFrame:
    """Win, tie and lose of each arm against the reference's by an LLM judge (paper A, Figure 3b).

    ``score`` is win + tie / 2 with its interval; ``length_controlled`` the same at equal lengths; ``position_bias`` the share
    in which the response that was shown first wins.
    """
    rows = []
    keys = ["experiment", "data", "share", "student", "recipe", "arm", "judge"]
    extra = {
        name: {key: group for key, group in metric(measurements, name).groupby(keys, sort=False)}
        for name in ("first_wins", "length_difference", "malformed")
    }
    for key, wins in metric(measurements, "win").groupby(keys, sort=False):
        *setting, arm, judge = key  # type: ignore[misc]
        found = statistics.bootstrap_mean(wins[CELLS], bootstrap)
        value = wins["value"]
        longer = wins[CELLS].merge(
            extra["length_difference"][key][CELLS], on=["seed", "id"], suffixes=("", "_length")
        )
        lengths = longer["value"].to_numpy(), longer["value_length"].to_numpy()
        rows.append(
            [*setting, arm, reference, judge, found.seeds, found.prompts]
            + [float((value > 0.5).mean()), float((value == 0.5).mean()), float((value < 0.5).mean())]
            + [found.mean, found.low, found.high]
            + [judgements.length_controlled(*lengths).controlled]
            + [float(extra[name][key]["value"].mean()) for name in ("first_wins", "malformed")]
        )
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def votes_table(measurements: pd.DataFrame, bootstrap: Bootstrap) -> pd.DataFrame:
    """How consistent an LLM judge is, and how often it sides with the label (paper A, Table 4 and section 4)."""
    rows = []
    keys = ["experiment", "data", "share", "feedback", "judge"]
    # The same judge may have compared answers of students, whose malformed replies are no votes.
    measurements = measurements[measurements["student"] == ""]
    parts = {
        name: {key: group for key, group in metric(measurements, name).groupby(keys, sort=False)}
        for name in ("vote", "votes", "malformed")
    }
    for key, cells in metric(measurements, "consistency").groupby(keys, sort=False):
        consistency = statistics.bootstrap_mean(cells[CELLS], bootstrap)
        sides = statistics.bootstrap_mean(parts["vote"][key][CELLS], bootstrap)
        votes = float(parts["votes"][key]["value"].mean())
        rows.append(
            [*key, consistency.seeds, len(cells), votes]  # type: ignore[misc]
            + [consistency.mean, consistency.low, consistency.high, sides.mean, sides.low, sides.high]
            + [float(parts["malformed"][key]["value"].mean())]
        )
    return pd.DataFrame(rows, columns=VOTE_COLUMNS)


def similarity_table(measurements: pd.DataFrame, reference: str, bootstrap: Bootstrap) -> pd.DataFrame:
    """How far each arm's likeness to people's choice goes with the reference arm's and the teacher's (paper A, Figure 6)."""
    rows: list[list[Any]] = []
    found = metric(measurements, "similarity")
    for (experiment, data, share, encoder), cell in found.groupby(
        ["experiment", "data", "share", "judge"], sort=False
    ):
        teachers = cell[cell["arm"] == "teacher"]
        students = cell[cell["arm"] != "teacher"]
        for (student, _recipe), arms in students.groupby(["student", "recipe"], sort=False):
            human = arms[arms["arm"] == reference]
            for arm, left in arms[arms["arm"] != reference].groupby("arm", sort=False):
                for right in filter(len, (human, teachers)):
                    line = bootstrap_line(statistics.side_by_side(left[CELLS], right[CELLS]), bootstrap)
                    rows.append(
                        [experiment, data, share, student, encoder, arm, right["arm"].iloc[0]]
                        + [line.seeds, line.prompts, line.r2, line.low, line.high, line.pearson]
                        + [line.slope, line.intercept, line.spearman, line.mean_left, line.mean_right]
                    )
    return pd.DataFrame(rows, columns=SIMILARITY_COLUMNS)


def similarity_points(measurements: pd.DataFrame) -> pd.DataFrame:
    """The points of the scatter plots."""
    points = metric(measurements, "similarity").rename(columns={"value": "similarity"})
    return points[POINT_COLUMNS]


def examples_table(
    experiment: str,
    files: Sequence[LabelFile],
    manifests: Sequence[Path],
    measurements: pd.DataFrame,
    count: int,
) -> pd.DataFrame:
    """Pairs of the disagreement set, drawn by the cell's seed (paper A, Tables 3, 5 and 9).

    First is the response that the labels prefer, second the one that people do.
    """
    texts = {path.parent.name: read_examples(path).set_index("id") for path in manifests}
    rows = []
    for file in files:
        if file.policy != "mismatch":
            continue
        mine = measurements[(measurements["feedback"] == file.feedback) & (measurements["seed"] == file.seed)]
        mine = mine[(mine["data"] == file.data) & (mine["share"] == file.share)]
        told = {
            name: _first_judge(metric(mine, name))
            for name in ("chosen_reward", "rejected_reward", "vote", "votes")
        }
        candidates = file.frame.sort_values("id", ignore_index=True)
        voted = candidates[candidates["id"].isin(told["vote"].index)]
        candidates = voted if len(voted) >= count else candidates
        drawn = np.random.default_rng(file.seed).permutation(len(candidates))[:count]
        for row in records(candidates.iloc[np.sort(drawn)]):
            example = texts[file.data].loc[row.id]
            first = int(row.label)
            responses = [example[f"response_{first}"], example[f"response_{1 - first}"]]
            rewards = [told[name].get(row.id, np.nan) for name in ("chosen_reward", "rejected_reward")]
            rows.append(
                [experiment, file.data, file.share, file.seed, row.id, "weak_chosen against human_chosen"]
                + [example["prompt"], responses[0], file.feedback, rewards[0]]
                + [responses[1], "human", rewards[1], _ballot(told, row.id)]
            )
    return pd.DataFrame(rows, columns=EXAMPLE_COLUMNS)


def _first_judge(cells: pd.DataFrame) -> pd.Series:
    """Values by id of the first judge."""
    if cells.empty:
        return pd.Series(dtype=float)
    return cells[cells["judge"] == cells["judge"].iloc[0]].set_index("id")["value"]


def _ballot(told: Mapping[str, pd.Series], example: Any) -> str:
    """``"7:3"``: votes for the first response and for the second; empty where there was no vote."""
    if example not in told["vote"].index:
        return ""
    votes = told["votes"][example]
    first = round(told["vote"][example] * votes)
    return f"{first}:{round(votes - first)}"


def recipes_table(settings: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> pd.DataFrame:
    """The recipes as configured, a row per setting (paper A, Tables 7 and 8)."""
    rows = [
        [recipe, step, name, value if isinstance(value, str) else json.dumps(value)]
        for recipe, steps in settings.items()
        for step, values in steps.items()
        for name, value in values.items()
    ]
    if not rows:
        raise DataError("no recipe to show", where="--recipes")
    return pd.DataFrame(rows, columns=RECIPE_COLUMNS)
