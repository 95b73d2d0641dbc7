"""Direct preference optimisation, for teachers and students alike. Paper A, Tables 7 and 8.

With policy p and reference r (the model before this stage), chosen response c and rejected response d of a prompt x,
the loss of a pair is

    -log sigmoid(beta * [log p(c|x)/r(c|x) - log p(d|x)/r(d|x)]),

log-probabilities being sums over the response's tokens and its EOS. Other losses, soft labels and weights of pairs:
:mod:`w2s.losses`. The reference is not loaded: its sums come from
``score_responses`` as a table. Before the first update p = r, so that the first loss is ln 2; a run whose first loss is
not stops at once.

LoRA (rank above 0) trains adapters on the layers that PEFT chooses for the model family (q_proj and v_proj for OPT)
and merges them into the weights at the end.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli, training
from w2s.artifact import load
from w2s.encoding import Encoding
from w2s.errors import ArtifactError, ConfigError, DataError
from w2s.tables import (
    PARTS,
    check_same_ids,
    named,
    read_labelled,
    read_parquet,
)

if TYPE_CHECKING:
    import pandas as pd

# Those of w2s.losses, which is heavy at import. The first loss of "sigmoid" is ln 2 whatever the data.
LOSSES = (
    "sigmoid",
    "hinge",
    "ipo",
    "robust",
    "sigmoid_norm",
    "apo_zero",
    "apo_down",
    "nca_pair",
    "sppo_hard",
)


def arguments(documentation: str) -> cli.StageParser:
    """The command line of both DPO stages."""
    parser = cli.StageParser(documentation)
    parser.input("--model", help="language model to begin with, which is the reference too")
    parser.input("--examples", help="examples")
    parser.input("--split", help="split of the examples")
    parser.input("--labels", help="which response is preferred, for each example of the part")
    parser.input("--reference-scores", help="log-probabilities of the part's responses under the model")
    parser.output("--output", help="manifest of the trained model")
    parser.spec("--part", choices=PARTS, help="part of the split to train on")
    parser.spec("--beta", type=float, help="strength of the pull towards the reference")
    parser.spec("--loss-type", choices=LOSSES, default="sigmoid", help="sigmoid is DPO")
    parser.spec(
        "--label-smoothing",
        type=float,
        default=0.0,
        help="share of wrong labels that the loss robust expects",
    )
    parser.spec(
        "--soft-labels",
        action="store_true",
        default=False,
        help="the labels' probabilities count, not only which response is preferred",
    )
    parser.spec(
        "--confidence-weights",
        action="store_true",
        default=False,
        help="weigh each pair by |2 p - 1|, p being the probability of its label",
    )
    parser.spec("--epochs", type=float, default=1.0, help="passes over the part")
    parser.spec(
        "--dropout", type=float, default=0.0, help="on hidden states; above 0 policy and reference differ"
    )
    training.add_optimisation(parser)
    training.add_lora(parser)
    return parser


def run(args: argparse.Namespace, script: str | Path) -> None:
    """Train ``args.model`` on the labelled pairs and leave the artifact at ``args.output``."""
    training.check_environment(args)
    if args.beta <= 0:
        raise ConfigError("beta must be above 0", where="--beta")
    if not 0 <= args.label_smoothing < 0.5:
        raise ConfigError("must be at least 0 and below one half", where="--label-smoothing")
    check_reference(args.reference_scores, args.model)
    labelled, part = read_labelled(args.examples, args.split, args.part, args.labels)
    scores = read_scores(args.reference_scores)
    check_same_ids(part, scores.index, "examples", "reference scores")
    columns = tokenised(labelled, scores, Encoding.load(args.model.parent))
    columns |= certainty(labelled, args.soft_labels, args.confidence_weights)
    parents = {
        "model": args.model,
        "examples": args.examples,
        "split": args.split,
        "labels": args.labels,
        "reference_scores": args.reference_scores,
    }

    def make(ordered: training.Columns, settings: dict[str, Any]) -> training.Job:
        return job(args, ordered, settings)

    tokens = sum(
        2 * len(p) + len(c) + len(d) for p, c, d in zip(*(columns[name] for name in TOKENS), strict=True)
    )
    training.fit(args, parents, columns, make, script=script, facts={"tokens_per_epoch": tokens})


TOKENS = ("prompt_ids", "chosen_ids", "rejected_ids")


def check_reference(scores: Path, model: Path) -> None:
    """Refuse reference scores that were not made with the model.

    Raises:
        ArtifactError: their manifest names other weights.
    """
    parent = load(scores).manifest["parents"].get("model")
    if parent is None or parent["digest"] != load(model).digest:
        raise ArtifactError(
            f"the reference scores are not of this model ({model})",
            where=scores,
            instead="scores made by score_responses from exactly the model that DPO begins with",
        )


def read_scores(manifest: Path) -> pd.DataFrame:
    """Sums of log-probabilities and token counts: one row per id, columns ``(what, response)``.

    Raises:
        DataError: a response without score, twice or with a score that is no number.
    """
    path = load(manifest).path("scores.parquet")
    scores = read_parquet(path, ["id", "response", "log_prob_sum", "token_count"])
    twice = scores[scores.duplicated(["id", "response"])]
    if len(twice):
        raise DataError(f"responses scored twice: {named(twice['id'])}", where=path)
    wide = scores.pivot(index="id", columns="response", values=["log_prob_sum", "token_count"])
    incomplete = wide.index[wide.isna().any(axis=1)]
    if len(incomplete) or set(scores["response"]) != {0, 1}:
        raise DataError(
            f"responses without a score: {named(incomplete)}", where=path, instead="both responses of each id"
        )
    return wide


def tokenised(labelled: pd.DataFrame, scores: pd.DataFrame, encoding: Encoding) -> training.Columns:
    """Pairs as token ids with the reference's sums, in the order of ``labelled``.

    Raises:
        JoinError: an example has no scores.
        DataError: a sequence is beyond the model's positions, or was scored with other tokens; its id is named.
    """
    check_same_ids(
        labelled["id"], scores.index.intersection(labelled["id"].tolist()), "examples", "reference scores"
    )
    chosen, rejected = training.chosen_and_rejected(labelled)
    ids, labels = labelled["id"].tolist(), labelled["label"].tolist()
    columns: training.Columns = {
        "prompt_ids": encoding.prompts_ids(labelled["prompt"].tolist()),
        "chosen_ids": encoding.responses_ids(chosen),
        "rejected_ids": encoding.responses_ids(rejected),
        "ref_chosen_logps": [],
        "ref_rejected_logps": [],
    }
    sums, counts = scores["log_prob_sum"].loc[ids].to_numpy(), scores["token_count"].loc[ids].to_numpy()
    for row, (example, label) in enumerate(zip(ids, labels, strict=True)):
        for name, response in (("chosen", label), ("rejected", 1 - label)):
            length = len(columns[f"{name}_ids"][row])
            encoding.check_length(
                len(columns["prompt_ids"][row]) + length, f"id {example}, response {response}"
            )
            if counts[row, response] != length:
                raise DataError(
                    f"the reference scored {counts[row, response]:.0f} tokens, here are {length}",
                    where=f"id {example}, response {response}",
                    instead="scores made with the tokenizer of the model under --model",
                )
            columns[f"ref_{name}_logps"].append(float(sums[row, response]))
    return columns


def certainty(labelled: pd.DataFrame, soft: bool, weighted: bool) -> training.Columns:
    """The columns ``probability`` (that the preferred response is the better one) and ``weight``, as wanted.

    Raises:
        DataError: one of them is wanted and a label has no probability; its id is named.
    """
    if not soft and not weighted:
        return {}
    missing = labelled[~labelled["probability"].between(0, 1)]
    if len(missing):
        raise DataError(
            f"labels without a probability: {named(missing['id'])}",
            where="--labels",
            instead="labels of a feedback that gives probabilities, or neither soft labels nor weights",
        )
    second = labelled["probability"]
    preferred = second.where(labelled["label"] == 1, 1 - second)
    columns: training.Columns = {"probability": preferred.tolist()} if soft else {}
    return columns | ({"weight": (2 * preferred - 1).abs().tolist()} if weighted else {})


def job(args: argparse.Namespace, ordered: training.Columns, settings: dict[str, Any]) -> training.Job:
    """TRL's DPO trainer on pairs that are tokenised, scored and in training order."""
    from w2s import trainable, trainers  # before trl, for w2s.compat

    # isort: split
    from trl import DPOConfig

    folder = args.model.parent
    config = DPOConfig(
        **settings,
        beta=args.beta,
        loss_type=[args.loss_type],
        label_smoothing=args.label_smoothing,
        max_length=None,
        padding_free=False,
        precompute_ref_log_probs=True,
        disable_dropout=False,  # the configuration says it; LoRA's own dropout stays
        use_weighting=False,
        sync_ref_model=False,
        use_liger_kernel=False,
        activation_offloading=False,
    )
    trainer = trainers.DPO(
        trainable.policy(folder, args.dropout, args.seed),
        config,
        Encoding.load(folder).pad_id,
        train_dataset=trainers.dataset(ordered),
        processing_class=trainable.tokenizer(folder),
        peft_config=trainable.lora(args),
    )
    plain = args.loss_type == "sigmoid" and not args.confidence_weights and args.dropout == 0
    expected = math.log(2) if plain else None
    return training.Job(
        trainers.watch(trainer, first_loss=expected),
        trainable.copy_tokenizer(folder),
        lambda: trainable.adapted(args),
    )
