"""Gather the training set of one student: questions, each as it is asked plainly, and the answers to learn. Runs no model.

Kinds of labels: ``weak`` (the weak labeller's: naive fine-tuning), ``refined`` (of any refinement), ``own`` (the strong
model's, weak labels ignored), ``gold`` (the questions' references). The prompt shows neither examples nor an intent nor a
weak answer: what the refiner was shown is to go into the student's weights (paper B, Algorithms 1 to 3, last step).

Of several kinds together (``weak own``: the "data doubling" that stands for an auxiliary confidence loss in paper B,
Table 1), a question is kept with all of them or not at all: each question then occurs once for each kind, one after the
other.

inputs:  questions; answers, one artifact for each kind but gold, in the order of the kinds
outputs: records.parquet: id, messages (JSON), answer, source (the kind); dropped.parquet: id, source, reason
facts:   by kind: rows, mean number of words, distinct answers, rows dropped by reason

Reasons for dropping: not asked (the refiner was not: see the dropped.parquet of its prompts), refused, empty, cut off (at the
limit of tokens), no reference, no partner (the question's answer of another kind is dropped).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli, writer_prompts
from w2s.artifact import Artifact
from w2s.errors import ConfigError, DataError
from w2s.question_tables import RECORD_COLUMNS, answers_to, read_questions, tally
from w2s.tables import write_parquet

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("weak", "refined", "own", "gold")


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--questions", help="training questions")
    parser.input("--answers", nargs="*", help="answers to them, one artifact for each kind but gold")
    parser.output("--output", help="manifest.json of the records")
    parser.spec("--kinds", nargs="+", choices=KINDS, help="kinds of labels; several: all for each question")
    parser.spec("--prompt-template", help="how the student is asked: a template of the method plain")
    parser.spec("--limit", type=cli.positive_int, default=None, help="take only the first questions")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    sources = assign(args.kinds, args.answers)
    template = writer_prompts.find(args.prompt_template, "plain")
    questions = read_questions(args.questions)

    import pandas as pd

    labels = pd.concat(
        [read_labels(questions, kind, manifest).iloc[: args.limit] for kind, manifest in sources.items()]
    )
    labels = without_partner(labels.sort_values("place", kind="stable"))
    kept, dropped = labels[labels["reason"] == ""], labels[labels["reason"] != ""]
    if kept.empty:
        raise DataError(f"no record is left: {tally(dropped['reason'])}", where=args.questions)
    prompts = [
        writer_prompts.as_text(writer_prompts.fill(template, question=text)) for text in kept["question"]
    ]
    records = kept.assign(messages=prompts)[RECORD_COLUMNS]
    parents = {"questions": args.questions, "answers": args.answers or None}
    with Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact:
        write_parquet(records, artifact.path("records.parquet"))
        write_parquet(dropped[["id", "source", "reason"]], artifact.path("dropped.parquet"))
        artifact.record(
            template_sha256=template.sha256,
            questions=len(questions),
            rows_in=len(labels),
            rows_kept=len(records),
            rows_dropped=tally(dropped["reason"]),
            by_source={kind: described(labels[labels["source"] == kind]) for kind in sources},
        )


def assign(kinds: Sequence[str], answers: Sequence[Path]) -> dict[str, Path | None]:
    """Kind -> manifest of its answers; None for gold.

    Raises:
        ConfigError: a kind or an artifact occurs twice, or there is not one artifact for each kind but gold.
    """
    written = [kind for kind in kinds if kind != "gold"]
    if len(set(kinds)) < len(kinds):
        raise ConfigError(f"a kind occurs twice in --kinds {' '.join(kinds)}")
    if len(written) != len(answers):
        raise ConfigError(
            f"{len(answers)} artifacts of answers for {len(written)} kinds of answers ({', '.join(written)})",
            instead="one for each kind but gold, in the same order",
        )
    if len({path.resolve() for path in answers}) < len(answers):
        raise ConfigError("the same answers are given for two kinds", where=answers[0])
    manifests = iter(answers)
    return {kind: None if kind == "gold" else next(manifests) for kind in kinds}


def read_labels(questions: pd.DataFrame, kind: str, manifest: Path | None) -> pd.DataFrame:
    """The labels of one kind, one row for each question: place, id, question, answer, source, reason ("" if usable)."""
    table = questions[["id", "question"]].assign(place=range(len(questions)), source=kind)
    if manifest is None:
        answers = questions["reference"].fillna("").str.strip()
        return table.assign(answer=answers, reason=["" if text else "no reference" for text in answers])
    # A refiner may not have been asked about each question; other writers always were.
    found = answers_to(questions, manifest, all_asked=kind != "refined")
    found.loc[(found["defect"] == "") & (found["finished"] == "length"), "defect"] = "cut off"
    found = found[["id", "answer", "defect"]].rename(columns={"defect": "reason"})
    table = table.merge(found, on="id", how="left", validate="one_to_one")
    table["answer"] = table["answer"].str.strip()
    return table.fillna({"answer": "", "reason": "not asked"})


def without_partner(labels: pd.DataFrame) -> pd.DataFrame:
    """The labels, with a reason to drop those of a question that lacks one of another kind."""
    lacking = set(labels["id"][labels["reason"] != ""])
    alone = (labels["reason"] == "") & labels["id"].isin(lacking)
    return labels.assign(reason=labels["reason"].mask(alone, "no partner"))


def described(labels: pd.DataFrame) -> dict[str, Any]:
    """Counts of one kind's labels. ``mean_words``: words of an answer, mean over its records; None without a record."""
    kept = labels["answer"][labels["reason"] == ""]
    words = kept.map(lambda answer: len(answer.split()))
    return {
        "rows": len(kept),
        "mean_words": float(words.mean()) if len(kept) else None,
        "distinct_answers": int(kept.nunique()),
        "dropped": tally(labels["reason"][labels["reason"] != ""]),
    }


if __name__ == "__main__":
    cli.run(main)
