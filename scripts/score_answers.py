"""Score answers: exactly where that is possible, and by a judge's ratings.

inputs:  answers, the questions that they answer, optionally a judge's ratings and the weak model's answers
output:  scores.parquet: id, metric, judge ("" if none), value; one row per id, metric and judge

| metric | value | needs |
|---|---|---|
| words | number of words | |
| marker | 1 if one of the task's words that give the style away occurs | ``--marker`` |
| correct | 1 if the result matches the reference (maths: w2s/exact_match.py) | references |
| content, style, both | 1 if the value is right, the style is the target, or both | ``--world``, ``--style`` |
| copied | 1 if the answer has the wrong result that the weak model's answer to the same question has | ``--weak``; references or ``--world`` |
| ``--rating-names`` | the judge's first and second rating, the mean over its valid samples | ``--ratings``, ``--judge`` |

An empty answer (a refused one is empty) gets 0 in each exact metric: it has no word and no right result. How many there
are is among the facts, and so is how many were cut off, which are scored as they stand. An item that a judge gave no
valid rating has no row for it; it is counted too. A question without an answer (a stage before dropped it, with a
reason) is counted as unanswered.

An id is scored once: a repeated one in any input is refused, and so is a sample that a judge seems to have given twice.
Means are over distinct items.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli, exact_match, markers
from w2s.artifact import Artifact, load
from w2s.errors import ConfigError, DataError, JoinError
from w2s.tables import check_unique, named, read_parquet, write_parquet

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["id", "metric", "judge", "value"]
ANSWER_COLUMNS = ["id", "question", "answer", "finished"]
RATINGS = ("first", "second")


@dataclass
class Scorer:
    """What exact metrics need besides a row, and what they count on the way.

    A row has question, answer, reference and weak (the weak model's answer; None without ``--weak``).
    """

    grader: exact_match.Grader
    marker: Sequence[str]
    world: Any
    style: str
    verdicts: Counter[str] = field(default_factory=Counter)

    def words(self, row: dict[str, Any]) -> float:
        """Number of words."""
        return markers.count_words(row["answer"])

    def has_marker(self, row: dict[str, Any]) -> float:
        """Whether a marker occurs."""
        return markers.has_marker(row["answer"], self.marker)

    def correct(self, row: dict[str, Any]) -> float:
        """Whether the result matches the reference."""
        verdict = self.grader.verdict(exact_match.boxed(row["reference"]), row["answer"])
        self.verdicts[verdict] += 1
        return verdict == exact_match.RIGHT

    def content(self, row: dict[str, Any]) -> float:
        """Whether the value is right, in a concept world."""
        return self._concept(row, row["answer"])["content"]

    def target_style(self, row: dict[str, Any]) -> float:
        """Whether the style is the target, in a concept world."""
        return self._concept(row, row["answer"])["style"]

    def both(self, row: dict[str, Any]) -> float:
        """Whether value and style are right, in a concept world."""
        return self._concept(row, row["answer"])["both"]

    def copied(self, row: dict[str, Any]) -> float:
        """Whether the answer has the weak answer's wrong result."""
        if not row["weak"].strip():
            return False
        if self.world is not None:
            from w2s import concepts

            value = concepts.value_of(row["weak"])
            wrong = value is not None and not self._concept(row, row["weak"])["content"]
            return wrong and concepts.value_of(row["answer"]) == value
        reference = exact_match.boxed(row["reference"])
        if self.grader.verdict(reference, row["weak"]) != exact_match.WRONG:
            return False
        return self.grader.verdict(row["weak"], row["answer"]) == exact_match.RIGHT

    def _concept(self, row: dict[str, Any], answer: str) -> dict[str, int]:
        from w2s import concepts

        return concepts.score(self.world, self.style, row["question"], answer)


METRICS: dict[str, Callable[[Scorer, dict[str, Any]], float]] = {
    "words": Scorer.words,
    "marker": Scorer.has_marker,
    "correct": Scorer.correct,
    "content": Scorer.content,
    "style": Scorer.target_style,
    "both": Scorer.both,
    "copied": Scorer.copied,
}
OF_WORLD = ("content", "style", "both")


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--answers", help="answers to score")
    parser.input("--questions", help="the questions that they answer")
    parser.input("--ratings", required=False, help="a judge's ratings of these answers")
    parser.input("--weak", required=False, help="the weak model's answers to the same questions")
    parser.output("--output", help="manifest of the scores")
    parser.spec("--metrics", nargs="*", choices=[*METRICS], default=[], help="exact metrics")
    parser.spec("--marker", nargs="+", default=None, help="words that give the task's style away")
    parser.spec("--world", type=cli.json_object, default={}, help="JSON settings of a concept world")
    parser.spec("--style", default=None, help="target style in a concept world")
    parser.spec("--judge", default="", help="name of the judge who rated")
    parser.spec("--rating-names", nargs="+", default=None, help="metrics that its one or two ratings are")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    check(args)
    table, unanswered = read_rows(args)
    empty = table["answer"].str.strip() == ""
    scores, verdicts = exact_scores(table[~empty], list(table.loc[empty, "id"]), args)
    unrated: dict[str, int] = {}
    if args.ratings:
        rated, unrated = rated_scores(table["id"], args)
        scores += rated
    frame = to_table(scores)
    parents = {name: getattr(args, name) for name in ("answers", "questions", "ratings", "weak")}
    with Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact:
        write_parquet(frame, artifact.path("scores.parquet"))
        artifact.record(
            rows_in=len(table),
            unanswered=unanswered,
            empty=int(empty.sum()),
            finished=dict(sorted(Counter(table["finished"]).items())),
            verdicts={name: verdicts[name] for name in exact_match.VERDICTS if verdicts},
            unrated=unrated,
            means=means(frame),
        )


def check(args: argparse.Namespace) -> None:
    """Raise ConfigError for settings that do not fit each other."""
    metrics = set(args.metrics)
    given = {
        "--marker": (args.marker is not None, "marker" in metrics),
        "--world": (bool(args.world), bool(metrics.intersection(OF_WORLD))),
        "--weak": (args.weak is not None, "copied" in metrics),
        "--judge": (bool(args.judge), args.ratings is not None),
        "--rating-names": (args.rating_names is not None, args.ratings is not None),
    }
    for flag, (there, needed) in given.items():
        if needed and not there:
            raise ConfigError(f"{flag} is missing", instead=f"{flag}, or without what needs it")
        if there and not needed and flag != "--world":
            raise ConfigError(f"nothing asked for needs {flag}", instead="leave it out, or add the metric")
    if bool(args.world) != bool(args.style):
        raise ConfigError("a concept world's answers are scored for a style", where="--world, --style")
    if args.world and "correct" in metrics:
        raise ConfigError(
            "correct is the match of mathematical results", instead="content, in a concept world"
        )
    names = args.rating_names or []
    if len(set(names)) < len(names) or len(names) > len(RATINGS):
        raise ConfigError(
            f"rating names {names}", where="--rating-names", instead="one or two different ones"
        )
    if not metrics and not args.ratings:
        raise ConfigError("nothing to score", instead="--metrics, --ratings or both")
    if len(metrics) < len(args.metrics):
        raise ConfigError("a metric is named twice", where="--metrics")


def read_rows(args: argparse.Namespace) -> tuple[pd.DataFrame, int]:
    """The answers with their references and the weak answers, and how many questions have no answer.

    Raises:
        JoinError: an id occurs twice, is no question's, has another question's text, or lacks a weak answer.
        DataError: a metric needs references, and a question has none.
    """
    answers = read_unique(args.answers, "answers.parquet", ANSWER_COLUMNS)
    if answers["answer"].isna().any():
        lost = answers.loc[answers["answer"].isna(), "id"]
        raise DataError(
            f"{len(lost)} answers are null: {named(lost)}", where=args.answers, instead="an empty text"
        )
    questions = read_unique(args.questions, "questions.parquet", ["id", "question", "reference"])
    require(answers["id"], questions["id"], "answers", "questions")
    table = answers.merge(questions, on="id", how="left", validate="one_to_one", suffixes=("", "_asked"))
    other = table.loc[table["question"] != table["question_asked"], "id"]
    if len(other):
        raise JoinError(
            f"{len(other)} answers are to a question of another text: {named(other)}", where=args.answers
        )
    if not args.world and {"correct", "copied"}.intersection(args.metrics):
        lacking = table.loc[table["reference"].isna(), "id"]
        if len(lacking):
            raise DataError(
                f"{len(lacking)} questions have no reference: {named(lacking)}",
                where=args.questions,
                instead="other metrics than correct and copied",
            )
    table["weak"] = None
    if args.weak:
        weak = read_unique(args.weak, "answers.parquet", ANSWER_COLUMNS)
        require(table["id"], weak["id"], "answers", "weak answers")
        table["weak"] = table["id"].map(weak.set_index("id")["answer"])
    return table, len(questions) - len(table)


def read_unique(manifest: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """The columns of an artifact's table, ids checked to be unique."""
    path = load(manifest).path(name)
    frame = read_parquet(path, columns)
    check_unique(frame["id"], path)
    return frame[list(columns)]


def require(ids: pd.Series, among: pd.Series, name: str, among_name: str) -> None:
    """Raise JoinError, naming them, for ids that are not among others."""
    missing = sorted(set(ids) - set(among))
    if missing:
        raise JoinError(f"{len(missing)} ids of the {name} are not among the {among_name}: {named(missing)}")


def exact_scores(
    table: pd.DataFrame, empty: Sequence[str], args: argparse.Namespace
) -> tuple[list[tuple[str, str, str, float]], Counter[str]]:
    """Rows (id, metric, judge, value) of the exact metrics, and how the mathematical matches went."""
    world = None
    if args.world:
        from w2s import concepts

        world = concepts.ConceptWorld.read(args.world)
    scores = []
    with exact_match.Grader() as grader:
        scorer = Scorer(grader, args.marker or (), world, args.style or "")
        rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
        for metric in args.metrics:
            for row in rows:
                try:
                    scores.append((row["id"], metric, "", float(METRICS[metric](scorer, row))))
                except DataError as error:
                    raise DataError(error.what, where=f"id {row['id']}", instead=error.instead) from error
            scores += [(name, metric, "", 0.0) for name in empty]
    return scores, scorer.verdicts


def rated_scores(
    ids: pd.Series, args: argparse.Namespace
) -> tuple[list[tuple[str, str, str, float]], dict[str, int]]:
    """Rows of a judge's ratings, and of each rating how many items have none.

    Raises:
        JoinError: a sample of an item occurs twice, or is of an item without an answer.
    """
    from w2s.ratings import item_scores

    path = load(args.ratings).path("ratings.parquet")
    ratings = read_parquet(path, ["id", "sample", *RATINGS])
    check_unique(ratings["id"] + ", sample " + ratings["sample"].astype(str), path)
    require(ratings["id"], ids, "ratings", "answers")
    items = item_scores(ratings).set_index("id")
    scores, unrated = [], {}
    for column, metric in zip(RATINGS, args.rating_names, strict=False):
        found = items[column].reindex(ids).dropna()
        scores += [(str(name), metric, args.judge, float(value)) for name, value in found.items()]
        unrated[metric] = len(ids) - len(found)
    return scores, unrated


def to_table(scores: Sequence[tuple[str, str, str, float]]) -> pd.DataFrame:
    """COLUMNS, sorted by metric, judge and id; JoinError if an id occurs twice for a metric and judge."""
    import pandas as pd

    frame = pd.DataFrame(scores, columns=COLUMNS)
    check_unique(frame["metric"] + " by " + frame["judge"] + " of " + frame["id"], "scores")
    frame = frame.sort_values(["metric", "judge", "id"], ignore_index=True)
    return frame.astype({"id": "string", "metric": "string", "judge": "string", "value": "float64"})


def means(scores: pd.DataFrame) -> dict[str, float]:
    """The mean of each metric over its items: "metric" or "metric (judge)" -> mean."""
    names = scores["metric"] + scores["judge"].map(lambda judge: f" ({judge})" if judge else "")
    return {str(name): float(value) for name, value in scores["value"].groupby(names).mean().items()}


if __name__ == "__main__":
    cli.run(main)
