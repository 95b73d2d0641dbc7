"""The tables of one experiment: what figures, report and scorecard read.

- ``rewards.csv``: mean gold reward of each arm (paper A, figure 2a) with the 95 % two-level bootstrap
  interval over seeds and prompts; share of malformed and of truncated responses, mean tokens of a response.
  With one seed the interval is over prompts alone and says nothing about another run; ``seeds`` tells.
- ``differences.csv``: each arm minus the reference feedback's arm of the same step, and minus the un-tuned
  model, paired over the same seeds and prompts; ``seed_differences`` lists each seed's mean, in the order
  of the seeds.
- ``labels.csv``: agreement of each feedback with human and with gold labels, Wilson intervals. Examples of
  equal gold reward are left out against gold.
- ``label_quality.csv``: the same by decile of |margin|, with the teacher's own confidence max(p, 1 - p).
- ``costs.csv``: jobs, wall time and peak memory by stage, of everything that these tables were made from.
  In a process that ran several stages one after the other the peak is the process's so far.

Inputs: rewards by one or several judges, label files, the filtered data sets. Seeds, data sets, students and
feedback sources are read from the artifacts' own records and paths. No torch is needed here.
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s import cli
from w2s.artifact import Artifact
from w2s.tables import write_csv


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--rewards", nargs="+", help="rewards: score_gold and score_exact")
    parser.input("--labels", nargs="*", help="label files of the unlabelled part")
    parser.input("--examples", nargs="*", help="filtered data sets, for their human and gold labels")
    parser.output("--output", help="manifest of the tables")
    parser.spec("--experiment", help="name of the experiment")
    parser.spec("--main-gold", help="judge whose rows come first")
    parser.spec("--bootstrap", type=cli.positive_int, default=2000, help="bootstrap draws")
    parser.spec("--bootstrap-seed", type=int, default=0)
    parser.spec("--reference-feedback", default="human", help="feedback that the others are compared with")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)

    from w2s import agreement, summary
    from w2s.statistics import Bootstrap

    bootstrap = Bootstrap(args.bootstrap, args.bootstrap_seed)
    parents = {"rewards": args.rewards, "labels": args.labels, "examples": args.examples}
    with Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact:
        measured = [summary.read_measured(path) for path in args.rewards]
        labels = [file for path in args.labels if (file := agreement.read_label_file(path)) is not None]
        truth = dict(agreement.read_truth(path) for path in args.examples)
        rewards = summary.rewards_table(args.experiment, measured, args.main_gold, bootstrap)
        costs, gone = summary.costs_table([*args.rewards, *args.labels, *args.examples])
        tables = {
            "rewards.csv": rewards,
            "differences.csv": summary.differences_table(
                args.experiment, measured, args.main_gold, args.reference_feedback, bootstrap
            ),
            "labels.csv": agreement.labels_table(args.experiment, labels, truth, bootstrap),
            "label_quality.csv": agreement.label_quality_table(args.experiment, labels, truth),
            "costs.csv": costs,
        }
        for name, table in tables.items():
            write_csv(table, artifact.path(name))
        seeds = sorted({item.seed for item in measured})
        artifact.record(
            seeds=seeds,
            intervals_over="seeds and prompts" if len(seeds) > 1 else "prompts (one seed)",
            rows={name: len(table) for name, table in tables.items()},
            artifacts_gone=gone,
        )


if __name__ == "__main__":
    cli.run(main)
