"""Whether a teacher has seen what it is to label: told from the records of its trainings.

Weak-to-strong means that the teacher labels what it has not learnt from. An artifact's parents say which model scored, from
which model that one was trained, and on whose labels; ids and prompts of those examples are held against the pool.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from w2s import handles
from w2s.artifact import Artifact, load
from w2s.dialogue import normalise_prompt
from w2s.errors import JoinError
from w2s.tables import named, read_examples, read_labels

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


def check_unseen(scored: Path, pool: pd.DataFrame) -> list[str]:
    """Refuse scores or rewards by a model that has learnt from labels of the pool.

    Args:
        scored: manifest of the scores or rewards.
        pool: examples that the model may not have learnt from: id, prompt.

    Returns:
        Artifacts on the way back that are gone or were made again: what the model learnt from them cannot be told.

    Raises:
        JoinError: an example of the pool, or another one with its prompt, was among those; the ids are named.
    """
    lost: list[str] = []
    keys = pool["prompt"].map(normalise_prompt)
    for trained in _models_behind(load(scored), lost):
        learnt = _learnt_from(trained, lost)
        if learnt is None:
            continue
        taught = set(learnt["prompt"].dropna().map(normalise_prompt))
        for shared, what in (
            (pool["id"].isin(learnt["id"]), "labels of"),
            (keys.isin(taught), "labels of other answers to the prompts of"),
        ):
            if shared.any():
                raise JoinError(
                    f"the teacher has learnt from {what} {int(shared.sum())} of the {len(pool)} examples that it is to "
                    f"label: {named(sorted(pool.loc[shared, 'id']))}",
                    where=f"{scored}, by way of {trained.manifest_path}",
                    instead="a teacher trained on the part labelled of the same split",
                )
    if lost:
        logger.warning("what the teacher has learnt from cannot be told: %s", ", ".join(lost))
    return lost


def _models_behind(scored: Artifact, lost: list[str]) -> Iterator[Artifact]:
    """The model that scored, the one that it was trained from, and so on."""
    model = _parent(scored, "model", lost)
    while model is not None:
        yield model
        model = _parent(model, "model", lost)


def _learnt_from(trained: Artifact, lost: list[str]) -> pd.DataFrame | None:
    """The examples whose labels a model was trained on: id, prompt (missing where the examples are gone); None of none.

    Trainings of this workflow have the labels among their parents, or (gold models) take those that came with the data,
    of the whole train side.
    """
    import pandas as pd

    parents = trained.manifest["parents"]
    if not {"labels", "examples"} & set(parents) or not {"labels", "part"} & set(trained.spec):
        return None
    source = _parent(trained, "examples", lost)
    examples = None if source is None else read_examples(source.manifest_path)
    if "labels" not in parents:
        return (
            None if examples is None else examples.loc[examples["origin_split"] == "train", ["id", "prompt"]]
        )
    labels = _parent(trained, "labels", lost)
    if labels is None:
        return None
    ids = read_labels(labels.manifest_path)["id"]
    if examples is None:
        return pd.DataFrame({"id": ids, "prompt": None})
    return examples.loc[examples["id"].isin(ids), ["id", "prompt"]]


def _parent(artifact: Artifact, name: str, lost: list[str]) -> Artifact | None:
    """A parent as it was; None if there is no such one. One that is gone or was made again is added to ``lost``."""
    parent = next((one for one in handles.parents(artifact) if one.name == name), None)
    if parent is None:
        return None
    found = load(parent.path) if parent.path.is_file() else None
    if found is None or found.digest != parent.digest:
        lost.append(str(parent.path))
        return None
    return found
