"""Tables by example id: how they are written, read and joined. Contract 1 of the architecture.

An example is unlabelled by construction; a label is a row in a separate file. Every join is checked one to one, so
that a missing, duplicate or extra id stops the run and is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s.artifact import load, write_atomically
from w2s.dialogue import normalise_prompt
from w2s.errors import DataError, JoinError

if TYPE_CHECKING:
    import pandas as pd

EXAMPLE_COLUMNS = [
    "id",
    "prompt",
    "other_prompt",
    "response_0",
    "response_1",
    "subset",
    "origin_split",
    "source_row",
]
LABEL_COLUMNS = ["id", "label", "margin", "probability", "source"]
DROPPED_COLUMNS = ["id", "reason"]
# What a split divides examples into; a part to work on can also be "train", D_l and D_u together.
DISJOINT_PARTS = ("labelled", "unlabelled", "test")
PARTS = ("labelled", "unlabelled", "train", "test")
ASSIGNED = {"train": ("labelled", "unlabelled")}


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write ``frame`` without its index; the file appears whole or not at all."""
    write_atomically(path, lambda temporary: frame.to_parquet(temporary, index=False))


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write ``frame`` as UTF-8 CSV without its index; floats in the shortest form that reads back the same."""
    write_atomically(path, lambda temporary: frame.to_csv(temporary, index=False, lineterminator="\n"))


def read_parquet(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table and check that it has ``columns`` (more are allowed).

    Raises:
        DataError: the file is no parquet file or lacks a column.
    """
    import pandas as pd
    import pyarrow

    try:
        frame = pd.read_parquet(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"not a readable parquet file ({error})", where=path) from error
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise DataError(
            f"column{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing",
            where=path,
            instead=f"a table with the columns {', '.join(columns)}",
        )
    return frame


def read_examples(manifest: Path) -> pd.DataFrame:
    """The examples of an ``import_examples`` or ``filter_examples`` artifact, ids checked to be unique."""
    path = load(manifest).path("examples.parquet")
    examples = read_parquet(path, EXAMPLE_COLUMNS)
    check_unique(examples["id"], path)
    return examples


def read_labels(manifest: Path, name: str = "labels.parquet") -> pd.DataFrame:
    """A label file: one row per id, ``label`` 0 or 1 (the index of the preferred response).

    Raises:
        DataError: a label is missing or neither 0 nor 1.
        JoinError: an id occurs twice.
    """
    path = load(manifest).path(name)
    return check_labels(read_parquet(path, LABEL_COLUMNS), path)


def read_dropped(manifest: Path) -> pd.DataFrame:
    """The examples that a label file leaves out, with the reason: DROPPED_COLUMNS, ids unique."""
    path = load(manifest).path("dropped.parquet")
    dropped = read_parquet(path, DROPPED_COLUMNS)
    check_unique(dropped["id"], path)
    return dropped[DROPPED_COLUMNS]


def check_labels(labels: pd.DataFrame, where: object) -> pd.DataFrame:
    """Return ``labels`` after checking ids and values (see :func:`read_labels`).

    Margins and probabilities, where they are known, must be numbers and speak for the same response as the label: labels
    whose 0 and 1 were exchanged show there.
    """
    check_unique(labels["id"], where)
    wrong = labels[~labels["label"].isin([0, 1])]
    if len(wrong):
        row = wrong.iloc[0]
        label = row["label"].item() if hasattr(row["label"], "item") else row["label"]  # no "np.float64(nan)"
        raise DataError(
            f"label {label!r} is neither 0 nor 1 ({len(wrong)} such rows)",
            where=f"{where}, row {wrong.index[0]}, id {row['id']}",
            instead="0 or 1: the index of the preferred response",
        )
    for column, middle, least, most in (("margin", 0.0, -math.inf, math.inf), ("probability", 0.5, 0.0, 1.0)):
        if column in labels:
            _check_certainty(labels, column, middle, (least, most), where)
    return labels


def _check_certainty(
    labels: pd.DataFrame, column: str, middle: float, limits: tuple[float, float], where: object
) -> None:
    import numpy as np
    import pandas as pd

    values = pd.to_numeric(labels[column], errors="coerce").astype(float)
    broken = (
        (values.isna() & labels[column].notna()) | np.isinf(values) | ~values.fillna(middle).between(*limits)
    )
    if broken.any():
        raise DataError(
            f"{int(broken.sum())} rows whose {column} is no such number: {named(labels.loc[broken, 'id'])}",
            where=where,
            instead="a finite number, a probability from 0 to 1, or nothing where it is not known",
        )
    against = np.where(labels["label"].astype(int) == 1, values < middle, values > middle)
    if against.any():
        raise DataError(
            f"{int(against.sum())} labels name the response that their {column} is against: {named(labels.loc[against, 'id'])}",
            where=where,
            instead="label 1 where response 1 is preferred; are 0 and 1 exchanged?",
        )


def check_present(ids: pd.Series, where: object) -> None:
    """Raise JoinError, naming the first row, if an id is missing."""
    if ids.isna().any():
        rows = ids.index[ids.isna()]
        raise JoinError(f"{len(rows)} rows without an id, the first is row {rows[0]}", where=where)


def check_unique(ids: pd.Series, where: object) -> None:
    """Raise JoinError if an id is missing or, naming them, if one occurs more than once."""
    check_present(ids, where)
    duplicates = ids[ids.duplicated()].unique()
    if len(duplicates):
        raise JoinError(f"{len(duplicates)} duplicate ids: {named(duplicates)}", where=where)


def join_labels(examples: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Join examples and labels one to one by id, in the order of the examples.

    Raises:
        JoinError: an id is missing on either side or occurs twice; the message names the first ones.
    """
    check_unique(examples["id"], "examples")
    check_unique(labels["id"], "labels")
    check_same_ids(examples["id"], labels["id"], "examples", "labels")
    return examples.merge(labels, on="id", how="left", validate="one_to_one", suffixes=("", "_label"))


def check_same_ids(left: Iterable[str], right: Iterable[str], left_name: str, right_name: str) -> None:
    """Raise JoinError unless both sides have the same set of ids."""
    left_ids, right_ids = set(left), set(right)
    only_left, only_right = sorted(left_ids - right_ids, key=str), sorted(right_ids - left_ids, key=str)
    problems = []
    if only_left:
        problems.append(
            f"{len(only_left)} ids of {left_name} are missing in {right_name}: {named(only_left)}"
        )
    if only_right:
        problems.append(f"{len(only_right)} ids of {right_name} are not in {left_name}: {named(only_right)}")
    if problems:
        raise JoinError("; ".join(problems), instead="tables made from the same examples and the same split")


def read_part(examples_manifest: Path, split_manifest: Path, part: str) -> pd.DataFrame:
    """The examples of one part of a split, sorted by id.

    Raises:
        JoinError: the split speaks of other examples, or a prompt stands in two of its parts.
        DataError: a part of another name.
    """
    if part not in PARTS:
        raise DataError(f"unknown part {part!r}", instead=f"one of {', '.join(PARTS)}")
    examples = read_examples(examples_manifest)
    path = load(split_manifest).path("assignment.parquet")
    assignment = read_parquet(path, ["id", "part"])
    check_unique(assignment["id"], path)
    unknown = sorted(set(assignment["id"]) - set(examples["id"]), key=str)
    if unknown:
        raise JoinError(
            f"{len(unknown)} ids of the split are not among the examples: {named(unknown)}", where=path
        )
    check_disjoint(examples, assignment, path)
    ids = assignment.loc[assignment["part"].isin(ASSIGNED.get(part, (part,))), "id"]
    return examples[examples["id"].isin(ids)].sort_values("id").reset_index(drop=True)


def check_disjoint(examples: pd.DataFrame, assignment: pd.DataFrame, where: object) -> None:
    """Refuse a split whose parts share a prompt in normal form, whoever made it.

    Raises:
        JoinError: such a prompt; two of its examples are named.
        DataError: a part that is none.
    """
    odd = assignment.loc[~assignment["part"].isin(DISJOINT_PARTS)]
    if len(odd):
        raise DataError(
            f"part {odd['part'].iloc[0]!r} ({len(odd)} such rows)",
            where=f"{where}, id {odd['id'].iloc[0]}",
            instead=f"one of {', '.join(DISJOINT_PARTS)}",
        )
    placed = examples[["id", "prompt"]].merge(assignment[["id", "part"]], on="id")
    keys = placed["prompt"].map(normalise_prompt)
    leaks = placed[placed.groupby(keys)["part"].transform("nunique") > 1]
    if len(leaks):
        same = leaks[keys[leaks.index] == keys[leaks.index[0]]].drop_duplicates("part")
        told = " and ".join(f"{row.id} ({row.part})" for row in same.itertuples())
        raise JoinError(
            f"{keys[leaks.index].nunique()} prompts stand in several parts of the split, one of them in the examples {told}",
            where=where,
            instead="a split made by split_examples, which keeps all examples of a prompt together",
        )


def read_labelled(
    examples_manifest: Path, split_manifest: Path, part: str, labels_manifest: Path
) -> tuple[pd.DataFrame, pd.Series]:
    """The labelled examples of a part, and the ids of all of its examples.

    A label file may leave examples out, each with a reason (a subset policy); what it labels and what it leaves out are
    together exactly the part.

    Raises:
        JoinError: an example of the part is neither labelled nor left out, or the file speaks of others.
    """
    examples = read_part(examples_manifest, split_manifest, part)
    labels, dropped = read_labels(labels_manifest), read_dropped(labels_manifest)
    both = [*labels["id"], *dropped["id"]]
    check_same_ids(examples["id"], both, f"part {part}", f"the labels {labels_manifest}")
    kept = examples[examples["id"].isin(labels["id"])].reset_index(drop=True)
    if len(both) != len(examples):
        raise JoinError("an example is both labelled and left out", where=labels_manifest)
    return join_labels(kept, labels), examples["id"]


def named(ids: Iterable[str], most: int = 3) -> str:
    """The first few ids, for a message."""
    listed = list(ids)
    return ", ".join(map(str, listed[:most])) + (", ..." if len(listed) > most else "")
