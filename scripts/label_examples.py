"""Label one part of a split by a feedback policy: which of the two responses is preferred. Runs no model.

- ``weak``: the implicit reward of a teacher (paper A, equation 5). With the scores of score_responses,
  r(x, y) = beta * (log pi*(y|x) - log pi_SFT(y|x)); the response with the higher r is preferred, a tie goes
  to the second response (``--tie``). margin = r(x, response 1) - r(x, response 0), probability =
  sigmoid(margin). beta changes margins and probabilities, never a label.
- ``human``: the labels that came with the data.
- ``gold``: the labels by the exact reward; demo worlds only.

Policies are registered in scripts/w2s/feedback.py. Relabelling (other beta, tie rule or policy) is
arithmetic on
files: no forward pass, no torch.

inputs:  filtered examples, a split; for ``weak`` the scores of the same part under teacher and reference
outputs: labels.parquet: id, label (index of the preferred response), margin, probability (of response 1),
    source
facts:   weights digests of teacher and reference, number of labels and ties, share of label 1
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
    from w2s.feedback import Request


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--examples", help="filtered examples, with the label files that came with the data")
    parser.input("--split", help="split of these examples")
    parser.input("--policy-scores", nargs="*", help="scores under the aligned teacher (weak)")
    parser.input("--reference-scores", nargs="*", help="scores under the teacher before that (weak)")
    parser.output("--output", help="manifest.json of the labels")
    parser.spec("--part", choices=PARTS, help="part of the split to label")
    parser.spec("--policy", help="weak, human, gold, or another one that is registered")
    parser.spec(
        "--beta", type=float, default=None, help="scale of the implicit reward (weak): 0.1 HH, 0.5 TL;DR"
    )
    parser.spec("--tie", default="second", help="who wins a tie: second (as in the paper) or first")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)

    from w2s.feedback import Request, make_labels, read_scores

    teacher = at_most_one(args.policy_scores, "--policy-scores")
    reference = at_most_one(args.reference_scores, "--reference-scores")
    examples = read_part(args.examples, args.split, args.part)
    if examples.empty:
        raise DataError(f"part {args.part!r} is empty: nothing to label", where=args.split)
    request = Request(
        examples,
        args.examples,
        args.part,
        policy_scores=read_scores(teacher) if teacher else None,
        reference_scores=read_scores(reference) if reference else None,
        beta=args.beta,
        tie=args.tie,
    )
    labels = make_labels(args.policy, request)
    parents = {
        "examples": args.examples,
        "split": args.split,
        "policy_scores": teacher,
        "reference_scores": reference,
    }
    with Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact:
        write_parquet(labels, artifact.path("labels.parquet"))
        artifact.record(
            policy=args.policy,
            labels=len(labels),
            ties=int((labels["margin"] == 0).sum()),
            share_of_label_1=float(labels["label"].mean()),
            weights=weights(request),
        )


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
