"""Feedback policies: who says which of two responses is better. A registry of named functions.

A policy turns what a label stage has at hand (examples, scores, the label files that came with the data)
into one label per example. Adding one takes a function under ``@policy("name", ...)``; the workflow needs
nothing else.
No policy runs a model: scores come from score_responses, so that relabelling costs seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from w2s.artifact import Artifact, load
from w2s.errors import ArtifactError, ConfigError, JoinError
from w2s.tables import (
    LABEL_COLUMNS,
    check_labels,
    check_same_ids,
    check_unique,
    named,
    read_labels,
    read_parquet,
)

SCORE_COLUMNS = ["id", "response", "log_prob_sum", "token_count"]
# Which response wins if the margin is exactly 0. Paper A, equation 5: the second.
TIES = {"second": 1, "first": 0}


@dataclass(frozen=True)
class ScoredBy:
    """Scores of one part under one model: the table and what identifies it."""

    table: pd.DataFrame
    part: str
    precision: str
    weights_digest: str
    tokenizer_digest: str
    where: Path


@dataclass(frozen=True)
class Request:
    """What a policy may use.

    Attributes:
        examples: the examples to label.
        examples_manifest: artifact that they come from, with the label files that came with the data.
        part: which part of the split they are.
        policy_scores: under the aligned teacher; None if not given.
        reference_scores: under the teacher before preference training; None if not given.
        beta: scale of the implicit reward; None if not given.
        tie: key of TIES.
    """

    examples: pd.DataFrame
    examples_manifest: Path
    part: str
    policy_scores: ScoredBy | None = None
    reference_scores: ScoredBy | None = None
    beta: float | None = None
    tie: str = "second"


@dataclass(frozen=True)
class Policy:
    """A named feedback policy."""

    name: str
    label: Callable[[Request], pd.DataFrame]
    needs_scores: bool
    description: str


POLICIES: dict[str, Policy] = {}


def policy(name: str, *, needs_scores: bool) -> Callable[[Callable[[Request], pd.DataFrame]], Callable]:
    """Register a function as the policy ``name``; the first line of its docstring is its description."""

    def register(function: Callable[[Request], pd.DataFrame]) -> Callable[[Request], pd.DataFrame]:
        description = (function.__doc__ or "").strip().split("\n")[0]
        POLICIES[name] = Policy(name, function, needs_scores, description)
        return function

    return register


@policy("weak", needs_scores=True)
def label_weak(request: Request) -> pd.DataFrame:
    """The response with the higher implicit reward of a weak teacher (paper A, equation 5)."""
    policy_scores, reference_scores, beta = request.policy_scores, request.reference_scores, request.beta
    assert policy_scores is not None and reference_scores is not None and beta is not None
    check_pair(policy_scores, reference_scores, request)
    rewards = implicit_rewards(policy_scores.table, reference_scores.table, beta)
    return labels_from_rewards(rewards, request.tie, source="weak")


@policy("human", needs_scores=False)
def label_human(request: Request) -> pd.DataFrame:
    """The human label that came with the data."""
    return labels_of_data(request, "human")


@policy("gold", needs_scores=False)
def label_gold(request: Request) -> pd.DataFrame:
    """The exact reward's label; demo worlds only."""
    return labels_of_data(request, "gold")


def make_labels(name: str, request: Request) -> pd.DataFrame:
    """Label the examples of ``request`` by the policy ``name``.

    Returns:
        LABEL_COLUMNS, one row per example, sorted by id.

    Raises:
        ConfigError: unknown policy or tie rule, or settings that the policy lacks or does not take.
        JoinError: the labels are not exactly those of the examples.
    """
    chosen = find_policy(name)
    check_settings(chosen, request)
    labels = (
        chosen.label(request)[LABEL_COLUMNS].astype({"label": "int8"}).sort_values("id", ignore_index=True)
    )
    check_labels(labels, f"policy {name}")
    check_same_ids(request.examples["id"], labels["id"], "the examples", f"the labels of policy {name}")
    return labels


def find_policy(name: str) -> Policy:
    """The policy of that name, or a ConfigError that lists those there are."""
    if name not in POLICIES:
        raise ConfigError(
            f"unknown feedback policy {name!r}", instead=f"one of {', '.join(sorted(POLICIES))}"
        )
    return POLICIES[name]


def check_settings(chosen: Policy, request: Request) -> None:
    """Raise ConfigError unless the request has just what the policy takes."""
    if request.tie not in TIES:
        raise ConfigError(f"unknown tie rule {request.tie!r}", instead=f"one of {', '.join(TIES)}")
    given = {
        "--policy-scores": request.policy_scores is not None,
        "--reference-scores": request.reference_scores is not None,
        "--beta": request.beta is not None,
    }
    if chosen.needs_scores and not all(given.values()):
        lacking = ", ".join(flag for flag, is_given in given.items() if not is_given)
        raise ConfigError(f"policy {chosen.name!r} needs {lacking}")
    if not chosen.needs_scores and any(given.values()):
        extra = ", ".join(flag for flag, is_given in given.items() if is_given)
        raise ConfigError(f"policy {chosen.name!r} takes no {extra}", instead="leave it out")
    if request.beta is not None and not request.beta > 0:
        raise ConfigError(
            f"beta {request.beta} is not positive", instead="the paper's 0.1 (HH) or 0.5 (TL;DR)"
        )


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


def labels_from_rewards(rewards: pd.DataFrame, tie: str, source: str) -> pd.DataFrame:
    """Labels from one reward per response.

    The margin is reward 1 minus reward 0, the label 1 if it is positive, and the probability of response 1 is
    sigmoid(margin), as in the Bradley-Terry model that DPO assumes.

    Args:
        rewards: columns id, response (0 or 1), reward.
        tie: key of TIES, used where the margin is exactly 0.
        source: what to write into the column of that name.
    """
    wide = rewards.pivot(index="id", columns="response", values="reward")
    margin = (wide[1] - wide[0]).to_numpy()
    label = np.where(margin == 0, TIES[tie], margin > 0)
    labels = pd.DataFrame(
        {"id": wide.index, "label": label, "margin": margin, "probability": sigmoid(margin)}
    )
    return labels.astype({"label": "int8"}).assign(source=source)


def labels_of_data(request: Request, name: str) -> pd.DataFrame:
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
    return labels[labels["id"].isin(request.examples["id"])]


def read_scores(manifest: Path) -> ScoredBy:
    """Scores made by score_responses, with the digests of the weights and of the tokenizer.

    Raises:
        ArtifactError: another kind of artifact.
        JoinError: an id does not have exactly the responses 0 and 1.
    """
    artifact: Artifact = load(manifest)
    lacking = [key for key in ("weights_digest", "tokenizer_digest") if key not in artifact.facts]
    if lacking or "part" not in artifact.spec:
        raise ArtifactError(
            "not an artifact of scores", where=manifest, instead="one made by score_responses"
        )
    path = artifact.path("scores.parquet")
    table = read_parquet(path, SCORE_COLUMNS)
    for response in (0, 1):
        check_unique(table.loc[table["response"] == response, "id"], f"{path}, response {response}")
    counts = table.groupby("id")["response"].nunique()
    if not table["response"].isin([0, 1]).all() or (counts != 2).any():
        raise JoinError(f"ids without both responses: {named(counts.index[counts != 2])}", where=path)
    if not np.isfinite(table["log_prob_sum"]).all():
        broken = table.loc[~np.isfinite(table["log_prob_sum"]), "id"]
        raise JoinError(f"{len(broken)} scores are not finite numbers: {named(broken)}", where=path)
    return ScoredBy(
        table,
        artifact.spec["part"],
        artifact.spec["precision"],
        artifact.facts["weights_digest"],
        artifact.facts["tokenizer_digest"],
        manifest,
    )


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
