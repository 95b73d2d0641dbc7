"""The arithmetic of labels: from rewards, from replies, from other labels. What the policies of feedback.py are made of.

A label file is two tables: ``labels.parquet`` with one row per labelled example, and ``dropped.parquet`` with the
examples that a policy leaves out and why. Together they are exactly the examples, which every reader checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from w2s.artifact import Artifact, load
from w2s.errors import ArtifactError, ConfigError, DataError, JoinError
from w2s.feedback import TIES
from w2s.tables import (
    DROPPED_COLUMNS,
    LABEL_COLUMNS,
    check_labels,
    check_present,
    check_same_ids,
    check_unique,
    named,
    read_dropped,
    read_labels,
    read_parquet,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from w2s.feedback import Request

SCORE_COLUMNS = ["id", "response", "log_prob_sum", "token_count"]
REWARD_COLUMNS = ["id", "response", "reward"]
PREFERENCE_COLUMNS = ["id", "order", "preferred"]


@dataclass(frozen=True)
class Labels:
    """A policy's answer: LABEL_COLUMNS of the labelled examples, DROPPED_COLUMNS of the others."""

    table: pd.DataFrame
    dropped: pd.DataFrame


@dataclass(frozen=True)
class ScoredBy:
    """Scores of one part under one model: the table and what identifies it."""

    table: pd.DataFrame
    part: str
    precision: str
    weights_digest: str
    tokenizer_digest: str
    where: Path


# -- labels ------------------------------------------------------------------------------------------------------


def all_of(table: pd.DataFrame) -> Labels:
    """Labels of which none is dropped."""
    return Labels(table, pd.DataFrame(columns=DROPPED_COLUMNS, dtype=str))


def some_of(table: pd.DataFrame, keep: Iterable[bool], reason: str) -> Labels:
    """The rows where ``keep`` holds; the others are dropped for ``reason``."""
    kept = np.asarray(list(keep), dtype=bool)
    return Labels(table[kept], table.loc[~kept, ["id"]].assign(reason=reason))


def checked(labels: Labels | pd.DataFrame, ids: Iterable[str], where: str) -> Labels:
    """``labels`` in their written form, sorted by id. A table alone is labels of which none is dropped.

    Raises:
        DataError: a label is neither 0 nor 1, or none is left.
        JoinError: kept and dropped are not, together, exactly ``ids``.
    """
    labels = all_of(labels) if isinstance(labels, pd.DataFrame) else labels
    table = labels.table[LABEL_COLUMNS].astype({"label": "int8"}).sort_values("id", ignore_index=True)
    dropped = labels.dropped[DROPPED_COLUMNS].astype(str).sort_values("id", ignore_index=True)
    check_labels(table, where)
    both = pd.concat([table["id"], dropped["id"]])
    check_unique(both, where)
    check_same_ids(ids, both, "the examples", f"the labels of {where}")
    if table.empty:
        reasons = ", ".join(sorted(dropped["reason"].unique()))
        raise DataError(f"{where} labels none of {len(dropped)} examples ({reasons})")
    return Labels(table, dropped)


def implicit_rewards(
    policy_scores: pd.DataFrame, reference_scores: pd.DataFrame, beta: float
) -> pd.DataFrame:
    """Implicit reward of each response: beta * (log pi(y|x) - log pi_ref(y|x)).

    Returns:
        Columns id, response, reward; in the order of ``policy_scores``.
    """
    keys = ["id", "response"]
    both = policy_scores.merge(reference_scores, on=keys, validate="one_to_one", suffixes=("", "_reference"))
    return both[keys].assign(reward=beta * (both["log_prob_sum"] - both["log_prob_sum_reference"]))


def from_rewards(rewards: pd.DataFrame, tie: str, source: str) -> Labels:
    """Labels from one reward per response.

    The margin is reward 1 minus reward 0, the label 1 if it is positive, and the probability of response 1 is
    sigmoid(margin), as in the Bradley-Terry model that DPO assumes.

    Args:
        rewards: columns id, response (0 or 1), reward.
        tie: key of TIES, used where the margin is exactly 0.
        source: what to write into the column of that name.
    """
    wide = rewards.pivot(index="id", columns="response", values="reward")
    return from_margins(wide.index, (wide[1] - wide[0]).to_numpy(), tie, source)


def from_margins(ids: Iterable[str], margin: np.ndarray, tie: str, source: str) -> Labels:
    """Labels from margins, the log-odds of response 1; (examples,)."""
    label = np.where(margin == 0, TIES[tie], margin > 0)
    table = pd.DataFrame({"id": list(ids), "label": label, "margin": margin, "probability": sigmoid(margin)})
    return all_of(table.astype({"label": "int8"}).assign(source=source))


def from_preferences(ids: pd.Series, preferences: pd.DataFrame, tie: str) -> Labels:
    """Labels from a prompted LLM's choices: probability is the mean over the orders in which it was asked.

    The margin is probability - 1/2: a reply has no log-odds. An example of which no reply was in the form is dropped.

    Args:
        ids: of the examples.
        preferences: columns id, order, preferred (0, 1, or NaN for a reply that was not in the form).
        tie: key of TIES, used where the orders contradict each other.

    Raises:
        JoinError: the replies are not of these examples.
    """
    check_same_ids(ids, preferences["id"], "the examples", "the replies")
    probability = preferences.groupby("id")["preferred"].mean()  # NaN only where no reply was in the form
    told = probability.dropna()
    margin = told.to_numpy() - 0.5
    label = np.where(margin == 0, TIES[tie], margin > 0)
    table = pd.DataFrame({"id": told.index, "label": label, "margin": margin, "probability": told.to_numpy()})
    dropped = pd.DataFrame({"id": probability.index[probability.isna()]}).assign(reason="malformed_reply")
    return Labels(table.astype({"label": "int8"}).assign(source="prompted"), dropped)


def against_people(request: Request, *, keep_equal: bool) -> Labels:
    """The labels of the request's one other feedback that equal (or contradict) people's."""
    other, people = only(request).table, of_data(request, "human").table
    equal = other["id"].map(people.set_index("id")["label"]) == other["label"]
    reason = "contradicts_people" if keep_equal else "agrees_with_people"
    source = "match" if keep_equal else "mismatch"
    labels = some_of(other.assign(source=source), equal if keep_equal else ~equal, reason)
    return Labels(labels.table, pd.concat([only(request).dropped, labels.dropped], ignore_index=True))


def flipped_at_random(request: Request) -> Labels:
    """People's labels with as many flips, at random, as the request's one other feedback has contradictions."""
    people = of_data(request, "human").table.sort_values("id", ignore_index=True)
    wrong = len(against_people(request, keep_equal=False).table)
    rate = wrong / len(only(request).table)
    flipped = np.random.default_rng(request.seed).permutation(len(people)) < round(rate * len(people))
    label = np.where(flipped, 1 - people["label"], people["label"])
    sign = np.where(label == 1, 1.0, -1.0)
    table = people.assign(label=label, margin=sign * people["margin"].abs(), source="random")
    table["probability"] = np.where(flipped, 1 - people["probability"], people["probability"])
    return all_of(table)


def most_confident(labels: Labels, share: float) -> Labels:
    """The given share of the labels with the largest absolute margins; of equal ones those that come first by id.

    Raises:
        ConfigError: the share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"a share of {share} is not above 0 and at most 1", where="options: share")
    table = labels.table.sort_values("id", ignore_index=True)
    order = np.argsort(-table["margin"].abs().to_numpy(), kind="stable")
    keep = np.zeros(len(table), dtype=bool)
    keep[order[: max(1, round(share * len(table)))]] = True
    chosen = some_of(table.assign(source="confident"), keep, "small_margin")
    return Labels(chosen.table, pd.concat([labels.dropped, chosen.dropped], ignore_index=True))


def mean_of(request: Request) -> Labels:
    """Labels by the mean probability of the request's other feedbacks; the margin is its log-odds.

    An example that one of them dropped is dropped.
    """
    tables = [labels.table.set_index("id")["probability"] for labels in request.labels]
    together = pd.concat(tables, axis=1, join="inner").sort_index()
    mean = together.mean(axis=1).clip(1e-12, 1 - 1e-12).to_numpy()
    labels = from_margins(together.index, np.log(mean) - np.log1p(-mean), request.tie, "ensemble")
    lost = sorted(set(request.examples["id"]) - set(together.index))
    return Labels(labels.table, pd.DataFrame({"id": lost}, dtype=str).assign(reason="dropped_by_a_member"))


def only(request: Request) -> Labels:
    """The one feedback that the policy begins with.

    Raises:
        ConfigError: there are several.
    """
    if len(request.labels) != 1:
        raise ConfigError(f"{len(request.labels)} label files were given", where="--labels", instead="one")
    return request.labels[0]


def of_data(request: Request, name: str) -> Labels:
    """The labels in ``<name>.parquet`` beside the examples, for the examples of the request only.

    Raises:
        ConfigError: the data set has no such labels.
        JoinError: an example has none.
    """
    if f"{name}.parquet" not in load(request.examples_manifest).manifest["files"]:
        raise ConfigError(
            f"the data set has no {name} labels ({name}.parquet)",
            where=request.examples_manifest,
            instead="another feedback policy; exact labels exist for demo worlds only",
        )
    labels = read_labels(request.examples_manifest, f"{name}.parquet")
    missing = sorted(set(request.examples["id"]) - set(labels["id"]))
    if missing:
        raise JoinError(f"{len(missing)} examples have no {name} label: {named(missing)}")
    return all_of(labels[labels["id"].isin(request.examples["id"])])


# -- reading -----------------------------------------------------------------------------------------------------


def read_label_file(manifest: Path, ids: Iterable[str]) -> Labels:
    """The labels of a ``label_examples`` artifact, checked to be of just these examples."""
    labels = Labels(read_labels(manifest), read_dropped(manifest))
    return checked(labels, ids, str(manifest))


def read_rewards(manifest: Path, part: str) -> pd.DataFrame:
    """Rewards of both responses of each example, made by ``reward_responses``: REWARD_COLUMNS.

    Raises:
        JoinError: of another part, or an example without both responses.
        DataError: a reward is not a finite number.
    """
    artifact = load(manifest)
    if artifact.spec.get("part") != part:
        raise JoinError(
            f"rewards of part {artifact.spec.get('part')!r}, examples of part {part!r}", where=manifest
        )
    path = artifact.path("rewards.parquet")
    table = read_parquet(path, REWARD_COLUMNS)
    check_both_responses(table, path)
    check_finite(table, "reward", path)
    return table[REWARD_COLUMNS]


def read_preferences(manifest: Path) -> pd.DataFrame:
    """Replies of a prompted LLM, made by ``judge_preferences``: PREFERENCE_COLUMNS.

    Raises:
        DataError: a choice that is neither 0, 1 nor missing.
        JoinError: an id is missing, or an example was asked twice in one order.
    """
    path = load(manifest).path("preferences.parquet")
    table = read_parquet(path, PREFERENCE_COLUMNS)
    check_present(table["id"], path)
    twice = table.loc[table.duplicated(["id", "order"]), "id"].unique()
    if len(twice):
        raise JoinError(f"{len(twice)} examples were asked twice in one order: {named(twice)}", where=path)
    wrong = table[~(table["preferred"].isin([0, 1]) | table["preferred"].isna())]
    if len(wrong):
        raise DataError(f"a choice that is neither 0 nor 1: {named(wrong['id'])}", where=path)
    return table[PREFERENCE_COLUMNS]


def read_scores(manifest: Path) -> ScoredBy:
    """Scores made by score_responses, with the digests of the weights and of the tokenizer.

    Raises:
        ArtifactError: another kind of artifact.
        JoinError: an id does not have exactly the responses 0 and 1, or a score is not finite.
    """
    artifact: Artifact = load(manifest)
    lacking = [key for key in ("weights_digest", "tokenizer_digest") if key not in artifact.facts]
    if lacking or "part" not in artifact.spec:
        raise ArtifactError(
            "not an artifact of scores", where=manifest, instead="one made by score_responses"
        )
    path = artifact.path("scores.parquet")
    table = read_parquet(path, SCORE_COLUMNS)
    check_both_responses(table, path)
    check_finite(table, "log_prob_sum", path)
    return ScoredBy(
        table,
        artifact.spec["part"],
        artifact.spec["precision"],
        artifact.facts["weights_digest"],
        artifact.facts["tokenizer_digest"],
        manifest,
    )


def check_both_responses(table: pd.DataFrame, path: Path) -> None:
    """Raise JoinError, naming ids, unless each has exactly the responses 0 and 1."""
    ids = table["id"]
    check_present(ids, path)
    for response in (0, 1):
        check_unique(ids[table["response"] == response], f"{path}, response {response}")
    known = table["response"].isin([0, 1])
    both = ids[known].duplicated(keep=False)  # neither response is there twice
    wrong = ids[~known | ~both.reindex(ids.index, fill_value=False)]
    if len(wrong):
        raise JoinError(f"ids without both responses: {named(wrong.unique())}", where=path)


def check_finite(table: pd.DataFrame, column: str, path: Path) -> None:
    """Raise JoinError, naming ids, where a number is missing or not finite."""
    broken = table.loc[~np.isfinite(pd.to_numeric(table[column], errors="coerce").astype(float)), "id"]
    if len(broken):
        raise JoinError(f"{len(broken)} scores are not finite numbers: {named(broken)}", where=path)


def check_pair(policy_scores: ScoredBy, reference_scores: ScoredBy, request: Request) -> None:
    """Raise unless two score artifacts belong together and to the examples.

    Raises:
        JoinError: other part, other ids, other tokenizer, other precision, other token counts.
        ConfigError: both are of the same weights, so that every margin would be 0.
    """
    for scores in (policy_scores, reference_scores):
        if scores.part != request.part:
            raise JoinError(
                f"scores of part {scores.part!r}, examples of part {request.part!r}", where=scores.where
            )
        check_same_ids(
            request.examples["id"], scores.table["id"], "the examples", f"the scores {scores.where}"
        )
    for name, attribute in (("tokenizer", "tokenizer_digest"), ("precision", "precision")):
        one, other = getattr(policy_scores, attribute), getattr(reference_scores, attribute)
        if one != other:
            raise JoinError(
                f"policy and reference were scored under another {name}: {one}, {other}",
                where=f"{policy_scores.where} and {reference_scores.where}",
                instead="two scores made alike, of a teacher and the model that it was trained from",
            )
    if policy_scores.weights_digest == reference_scores.weights_digest:
        raise ConfigError(
            "policy and reference have the same weights: every implicit reward would be 0",
            where=f"{policy_scores.where} and {reference_scores.where}",
            instead="--reference-scores of the model before preference training",
        )
    counts = [
        scores.table.set_index(["id", "response"])["token_count"].sort_index()
        for scores in (policy_scores, reference_scores)
    ]
    if not counts[0].equals(counts[1]):
        raise JoinError("policy and reference counted different tokens", where=policy_scores.where)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    return np.exp(-np.logaddexp(0.0, -values))
