"""The tables of one experiment: what figures, report and scorecard read.

- ``measurements.parquet``: every single measurement (:mod:`w2s.measurements`), of which most tables are summaries.
- ``rewards.csv``: mean gold reward of each arm (paper A, figure 2a) with the 95 % two-level bootstrap
  interval over seeds and prompts; share of malformed and of truncated responses, mean tokens of a response.
  With one seed the interval is over prompts alone and says nothing about another run; ``seeds`` tells.
- ``differences.csv``: each arm minus the reference feedback's arm of the same step and recipe, and minus the un-tuned
  model, paired over the same seeds and prompts; ``seed_differences`` lists each seed's mean, in the order
  of the seeds.
- ``lengths.csv``: what length has to do with it, a row per arm: mean reward, mean tokens of a response, mean reward per
  mean token, and, against the reference feedback's arm, the differences in reward and in tokens and the difference at
  equal length (``adjusted``, with its interval): the intercept of the pairs' reward differences regressed on their
  token differences, whose slope is reward per token more (:mod:`w2s.lengths`).
- ``labels.csv``: agreement of each feedback with human and with gold labels, Wilson intervals. Examples of
  equal gold reward are left out against gold.
- ``label_quality.csv``: the same by decile of |margin|, with the teacher's own confidence max(p, 1 - p).
- ``costs.csv``: jobs, wall time and peak memory by stage, of everything that these tables were made from.
  In a process that ran several stages one after the other the peak is the process's so far.
- where an experiment has them: ``responses.csv`` (gold rewards of the data's responses), ``comparisons.csv`` and
  ``votes.csv`` (LLM judges), ``similarity.csv`` and ``similarity_points.csv``, ``examples.csv`` (pairs drawn by seed),
  ``recipes.csv`` (settings as configured); :mod:`w2s.derived`.

Inputs: rewards by one or several judges, label files, the filtered data sets, and what an experiment has besides. Seeds,
data sets, students and feedback sources are read from the artifacts' own records and paths. No torch is needed here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from w2s import cli
from w2s.artifact import Artifact
from w2s.tables import write_csv, write_parquet

if TYPE_CHECKING:
    import pandas as pd
    from w2s.agreement import LabelFile
    from w2s.statistics import Bootstrap
    from w2s.summary import Measured

INPUTS = ("rewards", "responses", "comparisons", "votes", "similarities", "labels", "examples")


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--rewards", nargs="*", help="rewards: score_gold and score_exact")
    parser.input("--responses", nargs="*", help="gold rewards of the data's responses")
    parser.input("--comparisons", nargs="*", help="an LLM judge's comparisons")
    parser.input("--votes", nargs="*", help="an LLM judge's votes")
    parser.input("--similarities", nargs="*", help="likeness of responses to people's choice")
    parser.input("--labels", nargs="*", help="label files of the unlabelled part")
    parser.input("--examples", nargs="*", help="filtered data sets, for their human and gold labels")
    parser.output("--output", help="manifest of the tables")
    parser.spec("--experiment", help="name of the experiment")
    parser.spec("--main-gold", help="judge whose rows come first")
    parser.spec("--bootstrap", type=cli.positive_int, default=2000, help="bootstrap draws")
    parser.spec("--bootstrap-seed", type=int, default=0)
    parser.spec("--reference-feedback", default="human", help="feedback that the others are compared with")
    parser.spec("--betas", type=cli.json_object, default={}, help="JSON: recipe -> DPO beta")
    parser.spec("--without-sft", nargs="*", default=[], help="recipes that begin DPO at the base model")
    parser.spec(
        "--examples-shown", type=int, default=0, help="pairs of the disagreement set to draw, per seed"
    )
    parser.spec(
        "--recipes", type=cli.json_object, default={}, help="JSON: recipe -> step -> settings to show"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)

    from w2s import agreement, measurements, provenance, summary
    from w2s.statistics import Bootstrap

    bootstrap = Bootstrap(args.bootstrap, args.bootstrap_seed)
    inputs = {name: getattr(args, name) for name in INPUTS}
    with Artifact.create(args.output, spec=args.spec, parents=inputs, script=__file__) as artifact:
        measured = [summary.read_measured(path) for path in args.rewards]
        labels = [file for path in args.labels if (file := agreement.read_label_file(path)) is not None]
        truth = dict(agreement.read_truth(path) for path in args.examples)
        book = measurements.Book(args.experiment, args.betas)
        measurements.add_rewards(book, measured)
        measurements.add_agreement(book, labels, truth)
        measurements.add_responses(book, args.responses, labels)
        measurements.add_comparisons(book, args.comparisons)
        measurements.add_votes(book, args.votes, labels)
        measurements.add_similarities(book, args.similarities)
        everything = book.table()
        behind = provenance.ancestry(path for paths in inputs.values() for path in paths)
        tables = {
            **reward_tables(args, measured, bootstrap),
            "labels.csv": agreement.labels_table(args.experiment, labels, truth, bootstrap),
            "label_quality.csv": agreement.label_quality_table(args.experiment, labels, truth),
            **derived_tables(args, everything, labels, bootstrap),
            "costs.csv": summary.costs_table(behind.artifacts),
        }
        for name, table in tables.items():
            write_csv(table, artifact.path(name))
        write_parquet(everything, artifact.path("measurements.parquet"))
        seeds = sorted({int(seed) for seed in everything["seed"]})
        artifact.record(
            seeds=seeds,
            intervals_over="seeds and prompts" if len(seeds) > 1 else "prompts (one seed)",
            rows={name: len(table) for name, table in tables.items()},
            measurements=everything["metric"].value_counts().sort_index().to_dict(),
            artifacts_gone=sorted(path.as_posix() for path in behind.gone),
        )


def reward_tables(
    args: argparse.Namespace, measured: Sequence[Measured], bootstrap: Bootstrap
) -> dict[str, pd.DataFrame]:
    """``rewards.csv``, ``differences.csv`` and ``lengths.csv``; of an experiment without models, empty."""
    from w2s import lengths, summary

    main, betas = args.main_gold if measured else "", args.betas
    reference = args.reference_feedback
    return {
        "rewards.csv": summary.rewards_table(args.experiment, measured, main, betas, bootstrap),
        "differences.csv": summary.differences_table(
            args.experiment, measured, main, reference, betas, bootstrap
        ),
        "lengths.csv": lengths.lengths_table(args.experiment, measured, main, reference, betas, bootstrap),
    }


def derived_tables(
    args: argparse.Namespace, everything: pd.DataFrame, labels: Sequence[LabelFile], bootstrap: Bootstrap
) -> dict[str, pd.DataFrame]:
    """The tables that only some experiments have."""
    from w2s import derived

    tables, reference = {}, args.reference_feedback
    if args.responses:
        tables["responses.csv"] = derived.responses_table(everything, bootstrap)
    if args.comparisons:
        tables["comparisons.csv"] = derived.comparisons_table(everything, reference, bootstrap)
    if args.votes:
        tables["votes.csv"] = derived.votes_table(everything, bootstrap)
    if args.similarities:
        tables["similarity.csv"] = derived.similarity_table(everything, reference, bootstrap)
        tables["similarity_points.csv"] = derived.similarity_points(everything)
    if args.examples_shown:
        tables["examples.csv"] = derived.examples_table(
            args.experiment, labels, args.examples, everything, args.examples_shown
        )
    if args.recipes:
        tables["recipes.csv"] = derived.recipes_table(args.recipes)
    return tables


if __name__ == "__main__":
    cli.run(main)
