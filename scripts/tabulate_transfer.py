"""The tables of one transfer (paper B): what its figures, tables, report and scorecard read.

- ``measurements.parquet``: every single score; columns experiment, data (the test questions), share, student (the base that
  was tuned, or that answered), arm, feedback, recipe (fine-tuning), step, beta, weak, refiner, shown (examples in the context),
  metric, judge, seed, id, value.
- ``arms.csv``: mean of each arm by metric and judge with the 95 % two-level bootstrap interval over seeds and questions; how
  many answers lack a score, and how many are left out because another arm of the panel lacks theirs.
- ``differences.csv``: each student minus naive fine-tuning, minus the unaligned strong model, minus its weak teacher, paired
  over the same seeds and questions; ``seed_differences`` lists each seed's mean.
- ``recovered.csv``: the share of the gap between teacher and ceiling (gold labels; the unaligned strong model) that is closed.
- ``labels.csv``: quality of the training labels, rows of the training sets, kept and dropped by reason.

Who answered is read from each artifact's path (scripts/w2s/transfer_runs.py); how arms are formed, paired and left out
stands in scripts/w2s/transfer.py. With one seed the intervals are over questions alone.

Inputs: all scores of the transfer (``scores.parquet``: id, metric, judge, value), also of its labels, and its training sets.
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s import cli
from w2s.artifact import Artifact
from w2s.errors import ConfigError
from w2s.tables import write_csv, write_parquet


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--scores", nargs="+", help="scores of test answers and of labels")
    parser.input("--records", nargs="*", help="training sets")
    parser.output("--output", help="manifest of the tables")
    parser.spec("--experiment", help="name of the transfer")
    parser.spec("--training", help="name of the training questions; all others are test questions")
    parser.spec(
        "--refinements",
        type=cli.json_object,
        help="JSON: refinement -> its settings: kind, and where it has them shown and choice",
    )
    parser.spec("--naive", default="naive", help="the refinement that the others are compared with")
    parser.spec("--bootstrap", type=cli.positive_int, default=2000, help="bootstrap draws")
    parser.spec("--bootstrap-seed", type=int, default=0)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    if args.naive not in args.refinements:
        raise ConfigError(
            f"--naive {args.naive!r} is no refinement", instead=f"one of {', '.join(args.refinements)}"
        )

    from w2s import transfer
    from w2s.statistics import Bootstrap

    bootstrap = Bootstrap(args.bootstrap, args.bootstrap_seed)
    asked = transfer.Transfer(args.experiment, args.training, args.refinements, args.naive)
    parents = {"scores": args.scores, "records": args.records}
    with Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact:
        everything = transfer.measurements(asked, args.scores)
        panels, absent = transfer.panels(everything)
        tables = {
            "arms.csv": transfer.arms_table(asked, panels, bootstrap),
            "differences.csv": transfer.differences_table(asked, panels, bootstrap),
            "recovered.csv": transfer.recovered_table(asked, panels, bootstrap),
            "labels.csv": transfer.labels_table(asked, everything, args.records, bootstrap),
        }
        for name, table in tables.items():
            write_csv(table, artifact.path(name))
        write_parquet(everything, artifact.path("measurements.parquet"))
        seeds = sorted({int(seed) for seed in everything["seed"]})
        arms = tables["arms.csv"]
        artifact.record(
            seeds=seeds,
            intervals_over="seeds and questions" if len(seeds) > 1 else "questions (one seed)",
            rows={name: len(table) for name, table in tables.items()},
            measurements=everything["metric"].value_counts().sort_index().to_dict(),
            answers_without_score=int(arms["missing"].sum()),
            answers_left_out=int(arms["left_out"].sum()),
            arms_without_a_metric=absent,
        )


if __name__ == "__main__":
    cli.run(main)
