"""The measurements of experiments as the scorecard reads them: checked, and with the metrics added that follow from others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from w2s.artifact import load
from w2s.errors import DataError, JoinError
from w2s.tables import read_parquet

FILE = "measurements.parquet"
TEXTS = ["experiment", "data", "share", "student", "arm", "feedback", "recipe", "step"]
COLUMNS = [*TEXTS, "beta", "metric", "judge", "seed", "id", "value"]
# Further columns of paper B's measurements (weak labeller, refiner, number of examples); empty where they lack.
TRANSFER: dict[str, Any] = {"weak": "", "refiner": "", "shown": np.nan}
WHOSE = [*TEXTS, "weak", "refiner"]
# Arms of these measurements are training labels, not students.
LABELS = "labels:"


@dataclass(frozen=True)
class Measurements:
    """Measurements of one experiment.

    ``frame`` has COLUMNS and those of TRANSFER; ``feedback`` lists the sources in the order in which the experiment has them.
    """

    experiment: str
    frame: pd.DataFrame
    main_judge: str
    feedback: tuple[str, ...]
    where: Path


def read_measurements(manifests: Sequence[Path]) -> dict[str, Measurements]:
    """The measurements of each experiment, by its name.

    Raises:
        DataError: a value is missing or not finite, or two manifests hold the same experiment.
        JoinError: a measurement occurs twice.
    """
    found: dict[str, Measurements] = {}
    for manifest in manifests:
        measurements = read_experiment(manifest)
        if measurements.experiment in found:
            raise DataError(
                f"experiment {measurements.experiment!r} is given twice",
                where=f"{found[measurements.experiment].where} and {manifest}",
                instead="each experiment once",
            )
        found[measurements.experiment] = measurements
    return found


def read_experiment(manifest: Path) -> Measurements:
    """The measurements of one tables artifact, with the gap and the side of each labelled pair and the balance of
    each answer added."""
    artifact = load(manifest)
    path = artifact.path(FILE)
    frame = read_parquet(path, COLUMNS).reset_index(drop=True)
    frame = frame.assign(**{name: empty for name, empty in TRANSFER.items() if name not in frame})
    frame = frame[[*COLUMNS, *TRANSFER]]
    frame = check(frame, path)
    if (frame["weak"] != "").any():
        frame = scored_by_all(frame, path)
    experiments = frame["experiment"].unique()
    if len(experiments) > 1:
        raise DataError(f"several experiments: {', '.join(experiments)}", where=path, instead="one")
    name = str(experiments[0]) if len(experiments) else str(artifact.spec.get("experiment", ""))
    sources = tuple(dict.fromkeys(source for source in frame["feedback"] if source))
    frame = pd.concat([frame, *pair_metrics(frame, path), *balance(frame)], ignore_index=True)
    return Measurements(name, frame, str(artifact.spec.get("main_gold", "")), sources, manifest)


def check(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table with texts as texts (empty where missing); values checked to be finite, rows to be unique."""
    for name in (*WHOSE, "metric", "judge", "id"):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), "").astype(str)
    wrong = np.flatnonzero(~np.isfinite(frame["value"].astype(float)))
    if len(wrong):
        row = frame.iloc[wrong[0]]
        raise DataError(
            f"{len(wrong)} values are missing or not finite",
            where=f"{path}, row {wrong[0]}: {row['arm']}, {row['metric']}, seed {row['seed']}, id {row['id']}",
        )
    twice = np.flatnonzero(frame.duplicated([*WHOSE, "shown", "beta", "metric", "judge", "seed", "id"]))
    if len(twice):
        row = frame.iloc[twice[0]]
        raise JoinError(
            f"{len(twice)} measurements occur twice",
            where=f"{path}, row {twice[0]}: {row['arm']}, {row['metric']}, seed {row['seed']}, id {row['id']}",
        )
    return frame


def scored_by_all(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows whose question and seed have a score in every arm of their panel: paper B counts no others.

    A panel is a data set, metric and judge; an arm without a single score in it takes no part. Quality of training labels
    is no panel. How many are left out stands in the tables' ``arms.csv``.

    Raises:
        DataError: the arms of a panel have no question in common.
    """
    panel, arm = ["data", "metric", "judge"], ["student", "arm", "recipe", "weak", "refiner", "shown"]
    mine = frame[~frame["arm"].str.startswith(LABELS)]
    arms = mine[[*panel, *arm]].drop_duplicates().groupby(panel).size().rename("arms")
    cells = mine.groupby([*panel, "seed", "id"]).size().rename("scores").reset_index()
    whole = cells.join(arms, on=panel).query("scores == arms")
    kept = mine.merge(whole[[*panel, "seed", "id"]], on=[*panel, "seed", "id"], how="inner")
    lost = set(arms.index) - set(kept[panel].itertuples(index=False, name=None))
    if lost:
        raise DataError("no question has a score in all arms", where=f"{path}: {', '.join(sorted(lost)[0])}")
    return kept


def pair_metrics(frame: pd.DataFrame, path: Path) -> list[pd.DataFrame]:
    """Per labelled pair its ``gap`` (chosen minus rejected reward) and its ``sides``: 1 if the judge prefers the
    chosen response, half for a tie (paper A, table 2 and section 4)."""
    keys = [*TEXTS, "judge", "seed", "id"]
    chosen, rejected = (
        frame.loc[frame["metric"] == metric, [*keys, "beta", "value"]]
        for metric in ("chosen_reward", "rejected_reward")
    )
    if chosen.empty and rejected.empty:
        return []
    both = chosen.merge(rejected.drop(columns="beta"), on=keys, how="outer", indicator=True, sort=False)
    lone = both[both["_merge"] != "both"]
    if len(lone):
        row = lone.iloc[0]
        raise JoinError(
            f"{len(lone)} labelled pairs have the reward of one response only",
            where=f"{path}: {row['feedback']}, seed {row['seed']}, id {row['id']}",
            instead="chosen_reward and rejected_reward of every pair",
        )
    gap = both["value_x"] - both["value_y"]
    agrees = pd.Series(np.where(gap > 0, 1.0, np.where(gap < 0, 0.0, 0.5)), gap.index)
    return [
        both.assign(metric=metric, value=values, **TRANSFER)[[*COLUMNS, *TRANSFER]]
        for metric, values in (("gap", gap), ("sides", agrees))
    ]


def balance(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Per answer the smaller of its content and its style, where one judge gave both: 1 in a demo world if both are
    right (paper B, Table 1 asks for both at once)."""
    keys = [*WHOSE, "shown", "judge", "seed", "id"]
    content, style = (frame[frame["metric"] == metric] for metric in ("content", "style"))
    both = content.merge(style[[*keys, "value"]], on=keys, sort=False, suffixes=("", "_style"))
    if both.empty:
        return []
    smaller = both[["value", "value_style"]].min(axis=1)
    return [both.assign(metric="balance", value=smaller)[frame.columns]]
