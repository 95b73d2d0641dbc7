"""Label files against the data set's own labels: agreement by feedback, and by the size of the margin."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from w2s import statistics
from w2s.artifact import load
from w2s.errors import DataError, JoinError
from w2s.feedback import POLICIES
from w2s.runs import parse_cell
from w2s.statistics import Bootstrap
from w2s.tables import check_labels, named, read_labels, read_parquet

logger = logging.getLogger(__name__)

LABEL_COLUMNS = [
    "experiment",
    "data",
    "share",
    "feedback",
    "against",
    "seeds",
    "n",
    "agreement",
    "low",
    "high",
]
QUALITY_COLUMNS = ["experiment", "data", "feedback", "bin", "margin_low", "margin_high", "n"]
QUALITY_COLUMNS += ["mean_confidence", "agreement_human", "agreement_gold"]
BINS = 10
# Policies whose margins are a model's: of others a margin says nothing.
JUDGED = ("scores", "rewards", "preferences")


@dataclass(frozen=True)
class LabelFile:
    """One feedback's labels of the unlabelled part of one cell."""

    data: str
    share: str
    seed: int
    feedback: str
    policy: str
    frame: pd.DataFrame


def read_label_file(manifest: Path) -> LabelFile | None:
    """Labels of the unlabelled part; None, with a word in the log, for those of another part."""
    cell = parse_cell(manifest, "labels")
    if len(cell.rest) != 2:
        raise DataError(
            "not the path of a label file", where=manifest, instead=".../<part>/<feedback>/manifest.json"
        )
    part, feedback = cell.rest
    if part != "unlabelled":
        logger.warning("labels of part %s say nothing about students: %s is left out", part, manifest)
        return None
    policy = str(load(manifest).spec.get("policy", feedback))
    return LabelFile(cell.data, cell.share, cell.seed, feedback, policy, read_labels(manifest))


def read_truth(manifest: Path) -> tuple[str, dict[str, pd.DataFrame]]:
    """Name of a data set and its own labels: ``human`` and, where exact ones exist, ``gold``.

    Gold labels of equal rewards (margin 0) are left out: there neither response is right.
    """
    artifact = load(manifest)
    truth = {}
    for name in ("human", "gold"):
        if f"{name}.parquet" in artifact.manifest["files"]:
            path = artifact.path(f"{name}.parquet")
            labels = check_labels(read_parquet(path, ["id", "label", "margin"]), path)
            truth[name] = labels[labels["margin"] != 0] if name == "gold" else labels
    return artifact.folder.name, truth


def labels_table(
    experiment: str,
    files: Sequence[LabelFile],
    truth: Mapping[str, dict[str, pd.DataFrame]],
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """Agreement of each feedback with human and gold labels (paper A, section 4: 60.6 % with human labels).

    Where exact labels exist, the human labels' own agreement with them stands beside it, on the same
    examples, also when no student learns from human labels.
    """
    rows = []
    groups: dict[tuple[str, str, str], list[LabelFile]] = {}
    for file in _with_human(files, truth):
        groups.setdefault((file.data, file.share, file.feedback), []).append(file)
    for (data, share, feedback), members in groups.items():
        for against, labels in truth_of(truth, data).items():
            if against == members[0].policy:
                continue
            cells = pd.concat([agrees(file, labels, against) for file in members], ignore_index=True)
            if cells.empty:
                continue
            found = statistics.agreement(cells, bootstrap)
            rows.append(
                [
                    experiment,
                    data,
                    share,
                    feedback,
                    against,
                    found.seeds,
                    len(cells),
                    found.mean,
                    found.low,
                    found.high,
                ]
            )
    return pd.DataFrame(rows, columns=LABEL_COLUMNS)


def label_quality_table(
    experiment: str, files: Sequence[LabelFile], truth: Mapping[str, dict[str, pd.DataFrame]]
) -> pd.DataFrame:
    """How far labels can be trusted by the size of their margin: deciles of |margin|, all seeds pooled.

    ``mean_confidence`` is the mean of max(p, 1 - p); a calibrated teacher's agreement with gold equals it.
    """
    rows: list[list[Any]] = []
    groups: dict[tuple[str, str], list[LabelFile]] = {}
    for file in files:
        if POLICIES[file.policy].takes in JUDGED:
            groups.setdefault((file.data, file.feedback), []).append(file)
    for (data, feedback), members in groups.items():
        pooled = _quality_cells(members, truth_of(truth, data))
        for number, group in pooled.groupby("bin", sort=True):
            size = group["size"]
            rows.append(
                [
                    experiment,
                    data,
                    feedback,
                    int(str(number)),
                    float(size.min()),
                    float(size.max()),
                    len(group),
                ]
                + [float(group[name].mean()) for name in ("confidence", "human", "gold")]
            )
    return pd.DataFrame(rows, columns=QUALITY_COLUMNS)


def _quality_cells(members: Sequence[LabelFile], truth: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per label: |margin|, its decile, confidence, agreement with human and gold (or NaN)."""
    frames = []
    for file in members:
        frame = file.frame[["id", "margin", "probability"]].copy()
        for name in ("human", "gold"):
            frame[name] = np.nan
            if name in truth:
                equal = agrees(file, truth[name], name).set_index("id")["value"]
                frame[name] = frame["id"].map(equal)
        frames.append(frame)
    pooled = pd.concat(frames, ignore_index=True)
    wrong = pooled.loc[~np.isfinite(pooled["margin"]) | ~np.isfinite(pooled["probability"]), "id"]
    if len(wrong):
        raise DataError(
            f"{len(wrong)} labels have no margin or probability: {named(wrong)}", where=members[0].feedback
        )
    size = pooled["margin"].abs()
    # Equal margins stay in one bin: their shared rank decides, so that there can be fewer bins than ten.
    rank = (size.rank(method="min") - 1) / len(size)
    bins = (rank * BINS).astype(int) + 1
    return pooled.assign(
        size=size, bin=bins, confidence=pooled["probability"].combine(1 - pooled["probability"], max)
    )


def agrees(file: LabelFile, truth: pd.DataFrame, against: str) -> pd.DataFrame:
    """Columns seed, id, value (1 where the labels agree) for the labels that ``truth`` speaks of.

    Raises:
        JoinError: human labels are missing for some ids. (Gold labels are, where the rewards are equal.)
    """
    joined = file.frame[["id", "label"]].merge(truth[["id", "label"]], on="id", suffixes=("", "_true"))
    if against == "human" and len(joined) < len(file.frame):
        lost = sorted(set(file.frame["id"]) - set(truth["id"]))
        raise JoinError(
            f"{len(lost)} labelled ids are not among the human labels of {file.data}: {named(lost)}",
            instead="labels and examples of the same data set",
        )
    return pd.DataFrame(
        {
            "seed": file.seed,
            "id": joined["id"],
            "value": (joined["label"] == joined["label_true"]).astype(float),
        }
    )


def _with_human(
    files: Sequence[LabelFile], truth: Mapping[str, dict[str, pd.DataFrame]]
) -> Iterator[LabelFile]:
    """The label files, and human labels of the same examples where exact labels exist and no arm has them."""
    yield from files
    given = {(file.data, file.share, file.seed) for file in files if file.policy == "human"}
    for file in files:
        cell = (file.data, file.share, file.seed)
        known = truth_of(truth, file.data)
        if cell not in given and {"human", "gold"} <= set(known):
            given.add(cell)
            frame = known["human"][known["human"]["id"].isin(file.frame["id"])]
            yield LabelFile(*cell, "human", "human", frame)


def truth_of(truth: Mapping[str, dict[str, pd.DataFrame]], data: str) -> dict[str, pd.DataFrame]:
    if data not in truth:
        raise DataError(
            f"labels of data set {data!r}, but not its examples",
            instead=f"--examples .../{data}/manifest.json",
        )
    return truth[data]
