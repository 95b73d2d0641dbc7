"""Label one part of a split by a feedback policy: which of the two responses is preferred. Runs no model.

Policies are functions in scripts/w2s/feedback.py; docs/feedback.md lists them and shows how to add one. What each needs
was made before: ``weak`` takes the scores of a teacher and of its reference (paper A, equation 5: with
r(x, y) = beta * (log pi*(y|x) - log pi_SFT(y|x)) the response with the higher r is preferred, a tie goes to the second
response), ``reward`` a reward model's rewards, ``prompted`` the replies of a prompted LLM, others the labels of other
feedback, ``human`` and ``gold`` the data set alone. margin = r(x, response 1) - r(x, response 0), probability =
sigmoid(margin); beta changes margins and probabilities, never a label. Relabelling (other beta, tie rule or policy) is
arithmetic on files: no forward pass, no torch.

A teacher that has learnt from labels of examples outside D_l that it is to label, or of other answers to their prompts,
is refused: the records of its trainings are followed back from the scores. Trainings whose records are gone are named in
the run record (``not_traced``).

inputs:  filtered examples, a split, and what the policy takes
outputs: labels.parquet: id, label (index of the preferred response), margin, probability (of response 1), source;
    dropped.parquet: id, reason, of the examples that a policy leaves out
facts:   weights digests of teacher and reference, number of labels, ties and dropped examples by reason, share of label 1
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s import cli
from w2s.artifact import Artifact
from w2s.errors import ConfigError, DataError
from w2s.tables import PARTS, read_part, write_parquet

if TYPE_CHECKING:
    import argparse

    import pandas as pd
    from w2s.feedback import Request


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--examples", help="filtered examples, with the label files that came with the data")
    parser.input("--split", help="split of these examples")
    parser.input("--policy-scores", nargs="*", help="scores under the aligned teacher (weak)")
    parser.input("--reference-scores", nargs="*", help="scores under the teacher before that (weak)")
    parser.input("--rewards", nargs="*", help="rewards by a reward-model teacher (reward)")
    parser.input("--preferences", nargs="*", help="replies of a prompted LLM (prompted)")
    parser.input("--labels", nargs="*", help="labels of other feedback (match, random, ensemble, ...)")
    parser.output("--output", help="manifest.json of the labels")
    parser.spec("--part", choices=PARTS, help="part of the split to label")
    parser.spec("--policy", help="weak, human, or another one that is registered")
    parser.spec(
        "--beta", type=float, default=None, help="scale of the implicit reward (weak): 0.1 HH, 0.5 TL;DR"
    )
    parser.spec("--tie", default="second", help="who wins a tie: second (as in the paper) or first")
    parser.spec("--seed", type=int, default=0, help="of the cell, for policies that draw")
    parser.spec("--options", type=cli.json_object, default={}, help="JSON of the policy's own settings")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)

    from w2s import labelling
    from w2s.feedback import Request, make_labels
    from w2s.leakage import check_unseen

    given = {
        name: at_most_one(getattr(args, name), "--" + name.replace("_", "-"))
        for name in ("policy_scores", "reference_scores", "rewards", "preferences")
    }
    examples = read_part(args.examples, args.split, args.part)
    if examples.empty:
        raise DataError(f"part {args.part!r} is empty: nothing to label", where=args.split)
    policy, reference, rewards, preferences = given.values()
    pool = outside_labelled(examples, args)
    lost = [
        name for scored in filter(None, (policy, reference, rewards)) for name in check_unseen(scored, pool)
    ]
    request = Request(
        examples,
        args.examples,
        args.part,
        policy_scores=labelling.read_scores(policy) if policy else None,
        reference_scores=labelling.read_scores(reference) if reference else None,
        rewards=labelling.read_rewards(rewards, args.part) if rewards else None,
        preferences=labelling.read_preferences(preferences) if preferences else None,
        labels=[labelling.read_label_file(path, examples["id"]) for path in args.labels],
        beta=args.beta,
        tie=args.tie,
        seed=args.seed,
        options=args.options,
    )
    labels = make_labels(args.policy, request)
    parents = {"examples": args.examples, "split": args.split, **given, "labels": args.labels or None}
    with Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact:
        write_parquet(labels.table, artifact.path("labels.parquet"))
        write_parquet(labels.dropped, artifact.path("dropped.parquet"))
        artifact.record(
            policy=args.policy,
            labels=len(labels.table),
            dropped=labels.dropped["reason"].value_counts().sort_index().to_dict(),
            ties=int((labels.table["margin"] == 0).sum()),
            share_of_label_1=float(labels.table["label"].mean()),
            weights=weights(request),
        )
        artifact.measure(not_traced=sorted(set(lost)))


def outside_labelled(examples: pd.DataFrame, args: argparse.Namespace) -> pd.DataFrame:
    """The examples that no teacher may have learnt from: those that are not in D_l."""
    if args.part not in ("labelled", "train"):
        return examples
    labelled = read_part(args.examples, args.split, "labelled")
    return examples[~examples["id"].isin(labelled["id"])]


def at_most_one(manifests: Sequence[Path], flag: str) -> Path | None:
    """The only manifest of a list, or None; the list is how the workflow writes "none"."""
    if len(manifests) > 1:
        raise ConfigError(f"{flag} takes one artifact, got {len(manifests)}")
    return manifests[0] if manifests else None


def weights(request: Request) -> dict[str, str]:
    """Digests of the weights that the scores were made with; empty for labels that came with the data."""
    used = {"policy": request.policy_scores, "reference": request.reference_scores}
    return {name: scores.weights_digest for name, scores in used.items() if scores is not None}


if __name__ == "__main__":
    cli.run(main)
