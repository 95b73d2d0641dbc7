"""Feedback policies: who says which of two responses is better. A registry of named functions.

A policy turns what a label stage has at hand (examples, scores, rewards, replies of a prompted LLM, other labels) into
one label per example, or drops an example under a named reason. Adding one takes a function here, under
``@policy("name", ...)``, and a line of configuration; docs/feedback.md shows it.
No policy runs a model: what models say comes from other stages, so that relabelling costs seconds.

Light at import, because the Snakefile asks this registry which policies there are and what each of them takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from w2s.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from w2s.labelling import Labels, ScoredBy

# What a policy can ask for: log-probabilities under a tuned teacher and its reference; rewards of a reward-model teacher;
# answers of a prompted LLM; the labels of other feedback.
Input = Literal["scores", "rewards", "preferences", "labels"]
# Which response wins if the margin is exactly 0. Paper A, equation 5: the second.
TIES = {"second": 1, "first": 0}


@dataclass(frozen=True)
class Request:
    """What a policy may use.

    Attributes:
        examples: the examples to label.
        examples_manifest: artifact that they come from, with the label files that came with the data.
        part: which part of the split they are.
        policy_scores: under the aligned teacher; None if not given.
        reference_scores: under the teacher before preference training; None if not given.
        rewards: of a reward-model teacher: id, response, reward; None if not given.
        preferences: replies of a prompted LLM: id, order, preferred; None if not given.
        labels: other feedback's labels, in the order of the configuration.
        beta: scale of the implicit reward; None if not given.
        tie: key of TIES.
        seed: of the cell, for policies that draw.
        options: the policy's own settings, those it declares and no others.
    """

    examples: pd.DataFrame
    examples_manifest: Path
    part: str
    policy_scores: ScoredBy | None = None
    reference_scores: ScoredBy | None = None
    rewards: pd.DataFrame | None = None
    preferences: pd.DataFrame | None = None
    labels: Sequence[Labels] = ()
    beta: float | None = None
    tie: str = "second"
    seed: int = 0
    options: Mapping[str, float] = field(default_factory=dict)


# A policy returns Labels, or a table of LABEL_COLUMNS if it labels every example.
Label = Callable[[Request], "Labels | pd.DataFrame"]


@dataclass(frozen=True)
class Policy:
    """A named feedback policy.

    Attributes:
        name: as the configuration writes it.
        label: the function.
        takes: what it asks for; None for a policy that needs the data set alone.
        options: its own settings with their defaults.
        part: part of the split that a student learns from.
        description: first line of the function's docstring.
    """

    name: str
    label: Label
    takes: Input | None
    options: Mapping[str, float]
    part: str
    description: str


POLICIES: dict[str, Policy] = {}


def policy(
    name: str,
    *,
    takes: Input | None = None,
    options: Mapping[str, float] | None = None,
    part: str = "unlabelled",
) -> Callable[[Label], Label]:
    """Register a function as the policy ``name``; see :class:`Policy` for the arguments."""

    def register(function: Label) -> Label:
        description = (function.__doc__ or "").strip().split("\n")[0]
        POLICIES[name] = Policy(name, function, takes, options or {}, part, description)
        return function

    return register


@policy("human")
def label_human(request: Request) -> Labels:
    """The human label that came with the data."""
    from w2s import labelling

    return labelling.of_data(request, "human")


@policy("everything", part="train")
def label_everything(request: Request) -> Labels:
    """Human labels on D_l and D_u alike: what the labels cost that the other arms do without."""
    from w2s import labelling

    return labelling.of_data(request, "human")


@policy("gold")
def label_gold(request: Request) -> Labels:
    """The exact reward's label; demo worlds only."""
    from w2s import labelling

    return labelling.of_data(request, "gold")


@policy("weak", takes="scores")
def label_weak(request: Request) -> Labels:
    """The response with the higher implicit reward of a weak teacher (paper A, equation 5)."""
    from w2s import labelling

    policy_scores, reference_scores, beta = request.policy_scores, request.reference_scores, request.beta
    assert policy_scores is not None and reference_scores is not None and beta is not None
    labelling.check_pair(policy_scores, reference_scores, request)
    rewards = labelling.implicit_rewards(policy_scores.table, reference_scores.table, beta)
    return labelling.from_rewards(rewards, request.tie, source="weak")


@policy("reward", takes="rewards")
def label_reward(request: Request) -> Labels:
    """The response with the higher reward of a Bradley-Terry reward model (paper A, Table 13)."""
    from w2s import labelling

    assert request.rewards is not None
    return labelling.from_rewards(request.rewards, request.tie, source="reward")


@policy("prompted", takes="preferences")
def label_prompted(request: Request) -> Labels:
    """What a prompted LLM says, the mean of both orders (paper A, Figure 2b, GPT-4)."""
    from w2s import labelling

    assert request.preferences is not None
    return labelling.from_preferences(request.examples["id"], request.preferences, request.tie)


@policy("match", takes="labels")
def label_match(request: Request) -> Labels:
    """Of another feedback's labels those that people agree with (paper A, Tables 1 and 12)."""
    from w2s import labelling

    return labelling.against_people(request, keep_equal=True)


@policy("mismatch", takes="labels")
def label_mismatch(request: Request) -> Labels:
    """Of another feedback's labels those that people contradict (paper A, Tables 1 and 12)."""
    from w2s import labelling

    return labelling.against_people(request, keep_equal=False)


@policy("random", takes="labels")
def label_random(request: Request) -> Labels:
    """Human labels, as many of them flipped at random as another feedback gets wrong (paper A, Table 12)."""
    from w2s import labelling

    return labelling.flipped_at_random(request)


@policy("confident", takes="labels", options={"share": 0.5})
def label_confident(request: Request) -> Labels:
    """Of another feedback's labels the given share with the largest margins."""
    from w2s import labelling

    return labelling.most_confident(labelling.only(request), request.options["share"])


@policy("ensemble", takes="labels")
def label_ensemble(request: Request) -> Labels:
    """The mean probability of several feedbacks' labels."""
    from w2s import labelling

    return labelling.mean_of(request)


def make_labels(name: str, request: Request) -> Labels:
    """Label the examples of ``request`` by the policy ``name``.

    Returns:
        The labels and what was dropped, each sorted by id; together exactly the examples.

    Raises:
        ConfigError: unknown policy or tie rule, or settings that the policy lacks or does not take.
        JoinError: the labels are not exactly those of the examples.
    """
    from w2s import labelling

    chosen = find_policy(name)
    request = check_settings(chosen, request)
    return labelling.checked(chosen.label(request), request.examples["id"], f"policy {name}")


def find_policy(name: str) -> Policy:
    """The policy of that name, or a ConfigError that lists those there are."""
    if name not in POLICIES:
        raise ConfigError(
            f"unknown feedback policy {name!r}", instead=f"one of {', '.join(sorted(POLICIES))}"
        )
    return POLICIES[name]


def check_settings(chosen: Policy, request: Request) -> Request:
    """The request with the policy's default options; ConfigError unless it has just what the policy takes."""
    if request.tie not in TIES:
        raise ConfigError(f"unknown tie rule {request.tie!r}", instead=f"one of {', '.join(TIES)}")
    given = {
        "--policy-scores": ("scores", request.policy_scores is not None),
        "--reference-scores": ("scores", request.reference_scores is not None),
        "--beta": ("scores", request.beta is not None),
        "--rewards": ("rewards", request.rewards is not None),
        "--preferences": ("preferences", request.preferences is not None),
        "--labels": ("labels", bool(request.labels)),
    }
    lacking = [flag for flag, (what, there) in given.items() if what == chosen.takes and not there]
    extra = [flag for flag, (what, there) in given.items() if what != chosen.takes and there]
    if lacking:
        raise ConfigError(f"policy {chosen.name!r} needs {', '.join(lacking)}")
    if extra:
        raise ConfigError(f"policy {chosen.name!r} takes no {', '.join(extra)}", instead="leave it out")
    if request.beta is not None and not request.beta > 0:
        raise ConfigError(
            f"beta {request.beta} is not positive", instead="the paper's 0.1 (HH) or 0.5 (TL;DR)"
        )
    check_options(chosen, request.options)
    return Request(**{**vars(request), "options": {**chosen.options, **request.options}})


def check_options(chosen: Policy, options: Mapping[str, float]) -> None:
    """Raise ConfigError for an option that the policy does not declare."""
    unknown = sorted(set(options) - set(chosen.options))
    if unknown:
        raise ConfigError(
            f"policy {chosen.name!r} has no option {unknown[0]!r}",
            instead=f"one of {', '.join(chosen.options) or '(it has none)'}",
        )
