"""Let a judge rate answers, several times each (the metrics of paper B).

The judge is a language model behind any OpenAI-compatible endpoint (docs/judge.md). The paper asks it ten times for each
answer, at temperature 1 (twenty times for maths), for one or two ratings in brackets. ``--template`` says which:

    rate-persona        content (1 to 10), pirate style (1 to 10)
    rate-explanation    accuracy (0 to 10), use of analogies (0 to 10)
    rate-bias-content   factuality of a biography (0 to 10)
    rate-bias-style     the main character of a story is female (0 or 1)
    rate-maths          answer and reasoning match the key (0 or 1); the questions need a reference

Each reply is kept in ``--store`` as soon as it came, and none is paid twice. Samples are kept apart from the scores of
items (:mod:`w2s.ratings`), so that to put them together otherwise costs nothing. An answer that its writer refused to
give is not shown to the judge: its rows are there, without ratings, and counted. An empty answer is rated as any other.

Inputs: answers, the questions that they answer.
Output: ``ratings.parquet``: id, sample (0, 1, ...), first, second (NaN where all replies were malformed; second also
where the template has one rating), status (ok, or why there is no rating), reply_key (in the store).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s import cli, judge_prompts, judge_stage
from w2s.artifact import Artifact, load
from w2s.errors import DataError, JoinError
from w2s.tables import check_unique, named, read_parquet, write_parquet

if TYPE_CHECKING:
    import pandas as pd
    from w2s.judge_client import Answer, Question
    from w2s.judge_prompts import Template

KINDS = ("rate-persona", "rate-explanation", "rate-bias-content", "rate-bias-style", "rate-maths")
COLUMNS = ["id", "sample", "first", "second", "status", "reply_key"]
REFUSED = "refused"
NOT_SHOWN = "the writer refused to answer"


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--answers", help="answers to rate")
    parser.input("--questions", help="the questions that they answer")
    parser.output("--output", help="manifest of the ratings")
    judge_stage.add_judge(parser, *KINDS)
    parser.spec("--samples", type=cli.positive_int, default=10, help="how often each answer is rated")
    judge_stage.add_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    template = judge_prompts.find(args.template)
    rows, unanswered = read_answers(args.answers, args.questions, "reference" in template.fields)
    shown = rows[rows["finished"] != REFUSED]
    questions = list(asked(template, shown, args.samples))
    parents = {"answers": args.answers, "questions": args.questions}
    with (
        Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact,
        judge_stage.opened(args, template) as judge,
    ):
        replies = judge.ask(questions, progress=True)
        table = ratings(rows, args.samples, replies)
        write_parquet(table, artifact.path("ratings.parquet"))
        judge_stage.record(artifact, judge, replies)
        read = table["first"].notna()
        artifact.record(
            answers=len(rows),
            questions_without_answer=unanswered,
            answers_not_shown=len(rows) - len(shown),
            answers_without_rating=len(rows) - table.loc[read, "id"].nunique(),
            rows_out=len(table),
            ratings=int(read.sum()),
        )


def read_answers(answers: Path, questions: Path, reference: bool) -> tuple[pd.DataFrame, int]:
    """Answers with their questions, and the number of questions without an answer.

    Args:
        answers, questions: manifests.
        reference: whether each question needs one.

    Returns:
        id, question, reference, answer, finished, in the order of the answers.

    Raises:
        JoinError: an answer belongs to no question or to another text, or an id occurs twice.
        DataError: there is no answer, or a reference is missing.
    """
    path, asked_path = load(answers).path("answers.parquet"), load(questions).path("questions.parquet")
    given = read_parquet(path, ["id", "question", "answer", "finished"])
    known = read_parquet(asked_path, ["id", "question", "reference"])
    check_unique(given["id"], path)
    check_unique(known["id"], asked_path)
    if given.empty:
        raise DataError("there is nothing to rate: the table is empty", where=path)
    both = given[["id", "question", "answer", "finished"]].merge(
        known[["id", "question", "reference"]], on="id", how="left", suffixes=("", "_known")
    )
    other = both["id"][both["question"] != both["question_known"]]
    if len(other):
        raise JoinError(
            f"{len(other)} answers belong to none of these questions: {named(other)}",
            where=path,
            instead="answers to prompts that were written from these questions",
        )
    bare = both["id"][both["reference"].isna() & (both["finished"] != REFUSED)]
    if reference and len(bare):
        raise DataError(
            f"{len(bare)} questions have no reference to mark by: {named(bare)}", where=asked_path
        )
    return both.drop(columns="question_known"), len(known) - len(given)


def asked(template: Template, rows: pd.DataFrame, samples: int) -> Iterator[Question]:
    """What the judge is asked: each answer so often, sample by sample."""
    from w2s.judge_client import Question

    for name, texts in zip(rows["id"], rows[list(template.fields)].itertuples(index=False), strict=True):
        prompt = judge_prompts.fill(template, *texts)
        for sample in range(samples):
            yield Question(f"id {name}, sample {sample}", prompt, sample)


def ratings(rows: pd.DataFrame, samples: int, replies: Sequence[Answer]) -> pd.DataFrame:
    """The table of the artifact: ``samples`` rows for each answer.

    Args:
        rows: id, finished.
        samples: per answer.
        replies: to what :func:`asked` asks of the answers that were not refused, in its order.
    """
    import pandas as pd

    nan, found, following = float("nan"), [], iter(replies)
    for name, finished in zip(rows["id"], rows["finished"], strict=True):
        for sample in range(samples):
            if finished == REFUSED:
                found.append((name, sample, nan, nan, NOT_SHOWN, ""))
                continue
            reply = next(following)
            first, second = (*(reply.value or ()), nan, nan)[:2]
            found.append((name, sample, first, second, reply.status, reply.key))
    assert next(following, None) is None
    return pd.DataFrame(found, columns=COLUMNS).astype({"sample": "int32", "first": float, "second": float})


if __name__ == "__main__":
    cli.run(main)
