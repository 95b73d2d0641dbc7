"""The paper's printed values of one item, in the words of this workflow's tables.

``published/values.csv`` speaks as the paper does: arm ``weak`` of teacher ``GPT-4``, setting ``share=1/16``. Here
each row gets a feedback source as ours are named (``prompted-GPT-4``) and one column per kind of setting, and
what is ours is paired with what is the paper's *by role*: by name where names are the same, else by rank among
those of one kind, so that a run with other models stands beside the paper's value of the same role. Whoever
shows such a pair names the paper's model beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s.errors import DataError
from w2s.results import (
    UNTUNED,
    experiment_name,
    feedback_detail,
    policy_of,
    read_published,
    rows_where,
    same_model,
)

if TYPE_CHECKING:
    import pandas as pd

# Experiments that have another name than the paper's item in values.csv.
ITEM_OF = {"a_seed_study": "a_text_seeds"}
# The two parts of Table 12's noise, by what this workflow calls them.
PARTS = {"random-match": "kept", "random-mismatch": "flipped"}
# Teachers that were asked, not tuned.
PROMPTED = ("gpt4",)
# Feedback that the paper made without a teacher's name in its value's row.
WITHOUT_TEACHER = ("human", "random", "kept", "flipped")
SETTINGS = ("share", "beta", "sft", "teacher-method", "step", "example")


def published_item(path: Path, tables: Path, artifact: str | None = None) -> pd.DataFrame:
    """The printed values of the item that an experiment repeats: empty if the paper has none of this name.

    Args:
        path: published/values.csv.
        tables: manifest of the experiment's tables; its name is the item's (but see :data:`ITEM_OF`).
        artifact: the item, where it is not the experiment's name.

    Returns:
        The rows with further columns: ``feedback`` and one for each of :data:`SETTINGS` (text, empty where a
        row has no such setting).

    Raises:
        DataError: the item that was asked for has no value, or a setting cannot be read.
    """
    import pandas as pd

    values = read_published(path)
    name = experiment_name(tables)
    wanted = artifact or ITEM_OF.get(name, name)
    mine = values[values["artifact"] == wanted].reset_index(drop=True)
    if artifact and mine.empty:
        known = ", ".join(dict.fromkeys(values["artifact"]))
        raise DataError(f"no value of {artifact}", where=path, instead=f"one of {known}")
    settings = [
        _settings(text, path, identity) for text, identity in zip(mine["setting"], mine["id"], strict=True)
    ]
    for kind in SETTINGS:
        mine[kind] = pd.Series([setting.get(kind, "") for setting in settings], dtype="str")
    mine["feedback"] = [
        _feedback(arm, teacher, method)
        for arm, teacher, method in zip(mine["arm"], mine["teacher"], mine["teacher-method"], strict=True)
    ]
    return mine


def of_metric(item: pd.DataFrame, *metrics: str) -> pd.DataFrame:
    """The item's values of these metrics."""
    return item[item["metric"].isin(metrics)].reset_index(drop=True)


def arms_of_rewards(item: pd.DataFrame) -> pd.DataFrame:
    """The item's gold rewards with ``arm`` and ``feedback`` as in a table of ours, ``mean`` and no interval."""
    rewards = of_metric(item, "gold_reward").rename(columns={"value": "mean"})
    arms = [
        UNTUNED if arm == UNTUNED else feedback
        for arm, feedback in zip(rewards["arm"], rewards["feedback"], strict=True)
    ]
    return rewards.assign(arm=arms, low=float("nan"), high=float("nan"))


def _settings(text: str, path: Path, identity: str) -> dict[str, str]:
    """``"share=1/16"`` -> ``{"share": "1/16"}``."""
    parts = [part.partition("=") for part in text.split(";") if part.strip()]
    settings = {name.strip(): value.strip() for name, _, value in parts}
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown or any(not value for value in settings.values()):
        raise DataError(
            f"setting {text!r} cannot be read",
            where=f"{path}, id {identity}",
            instead=f"<kind>=<value>, kinds: {', '.join(SETTINGS)}",
        )
    return settings


def _feedback(arm: str, teacher: str, method: str) -> str:
    """A printed arm as a feedback source of ours."""
    policy = PARTS.get(arm, arm)
    if policy == "weak" and method == "reward-model":
        policy = "reward"
    if policy == "weak" and same_model(teacher) in PROMPTED:
        policy = "prompted"
    if policy in ("", UNTUNED):
        return ""
    return policy if not teacher or policy in WITHOUT_TEACHER else f"{policy}-{teacher}"


def drawn(printed: pd.DataFrame, run: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """All that a figure of two panels draws, one row per mark: the paper's, then ours; counts as whole numbers."""
    import pandas as pd

    whole = pd.concat([printed, run], ignore_index=True) if len(printed) else run
    return whole.reindex(columns=list(columns)).astype({"seeds": "Int64", "prompts": "Int64"})


def pair(ours: Sequence[str], theirs: Sequence[str]) -> dict[str, str]:
    """Pair names of ours with the paper's: equal ones, then the rest by rank.

    Returns:
        ours -> the paper's, for those of ours that have a partner.
    """
    left, right = list(dict.fromkeys(ours)), list(dict.fromkeys(theirs))
    pairs: dict[str, str] = {}
    for ours_name in left:
        for name in right:
            if _same(ours_name, name) and name not in pairs.values():
                pairs[ours_name] = name
                break
    rest = [name for name in right if name not in pairs.values()]
    pairs.update(zip([name for name in left if name not in pairs], rest, strict=False))
    return pairs


def _same(ours: str, theirs: str) -> bool:
    """Whether two names mean one model or judge: the catalogue's is part of the paper's long one, too."""
    left, right = same_model(ours), same_model(theirs)
    return bool(left) and (left == right or ("/" in theirs and left in right))


def pair_feedback(ours: Sequence[str], theirs: Sequence[str]) -> dict[str, str]:
    """Pair feedback sources within each policy: by teacher, then by rank."""
    pairs: dict[str, str] = {}
    for policy in dict.fromkeys(policy_of(source) for source in ours):
        left = {feedback_detail(source): source for source in ours if policy_of(source) == policy}
        right = {feedback_detail(source): source for source in theirs if policy_of(source) == policy}
        pairs.update({left[name]: right[other] for name, other in pair(list(left), list(right)).items()})
    return pairs


def of_judge(item: pd.DataFrame, gold: str) -> pd.DataFrame:
    """The rows that one judge of the paper scored."""
    return rows_where(item, "gold", lambda name: name == gold)
