"""Let a judge vote several times on pairs of responses: how sure is it? (paper A, section 4 and Table 4)

The paper asks GPT-4 ten times which response of a pair is better, for 100 pairs on which the weak labels agree with
the human ones and 100 on which they do not. The share of the majority is the judge's consistency; the share of votes
for the weakly preferred response says whose side it takes. Half of a pair's votes show either response first: votes
with an even number have response 0 first.

Each reply is kept in ``--store`` as soon as it came, and none is paid twice. The endpoint's address and key come from
the environment; neither is written anywhere (docs/judge.md).

Inputs: examples, a split, labels of (a subset of) the part "unlabelled": the pairs to choose from.
Output: ``votes.parquet``: id, vote (0, 1, ...), order (0: response 0 shown first, 1: response 1), preferred (index of
the preferred response, NaN where all replies were malformed), status, reply_key (in the store).

``--feedback``, ``--data``, ``--share`` and ``--seed`` say whose labels they are; the tables read them from the
manifest. ``--seed`` also draws the pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s import cli, judge_stage
from w2s.artifact import Artifact
from w2s.errors import ConfigError, JoinError
from w2s.tables import named, read_labels, read_part, write_parquet

if TYPE_CHECKING:
    import pandas as pd

PART = "unlabelled"


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--examples", help="examples that the pairs are taken from")
    parser.input("--split", help="split of these examples")
    parser.input("--labels", help="labels of the pairs to choose from: all or a subset of part unlabelled")
    parser.output("--output", help="manifest of the votes")
    judge_stage.add_judge(parser, "vote")
    parser.spec(
        "--pairs", type=cli.positive_int, default=100, help="drawn at random (all if there are fewer)"
    )
    parser.spec("--votes", type=cli.positive_int, default=10, help="per pair, an even number")
    parser.spec("--seed", type=judge_stage.natural, help="seed of the cell; also draws the pairs")
    parser.spec("--feedback", help="name of the labels")
    parser.spec("--data", help="data set of the cell")
    parser.spec("--share", help="labelled share of the cell")
    judge_stage.add_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    if args.votes % 2:
        raise ConfigError(f"{args.votes} votes cannot be half in either order", instead="an even number")
    pairs = read_pairs(args.examples, args.split, args.labels)
    chosen = judge_stage.draw(pairs, args.pairs, args.seed)

    from w2s import judge_prompts
    from w2s.judge_client import Question

    template = judge_prompts.find(args.template)
    questions = [
        Question(
            f"id {name}, vote {vote}",
            judge_prompts.fill(template, prompt, *judge_stage.both_orders(first, second, vote % 2)),
            sample=vote,
        )
        for name, prompt, first, second in zip(
            *(chosen[key] for key in ("id", "prompt", "response_0", "response_1")), strict=True
        )
        for vote in range(args.votes)
    ]
    parents = {"examples": args.examples, "split": args.split, "labels": args.labels}
    with (
        Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact,
        judge_stage.opened(args, template) as judge,
    ):
        answers = judge.ask(questions, progress=True)
        table = votes(
            chosen["id"], args.votes, [(answer.value, answer.status, answer.key) for answer in answers]
        )
        write_parquet(table, artifact.path("votes.parquet"))
        judge_stage.record(artifact, judge, answers)
        artifact.record(pairs_available=len(pairs), pairs=len(chosen), rows_out=len(table))


def read_pairs(examples: Path, split: Path, labels: Path) -> pd.DataFrame:
    """The labelled pairs: id, prompt, response_0, response_1, sorted by id.

    Raises:
        JoinError: a label belongs to no pair of the part.
    """
    part = read_part(examples, split, PART)
    ids = read_labels(labels)["id"]
    extra = sorted(set(ids) - set(part["id"]))
    if extra:
        raise JoinError(
            f"{len(extra)} labels belong to no example of part {PART}: {named(extra)}",
            where=labels,
            instead="labels of the same split",
        )
    return part[part["id"].isin(ids)].reset_index(drop=True)


def votes(ids: Iterable[str], number: int, answers: Sequence[tuple[int | None, str, str]]) -> pd.DataFrame:
    """The table of the artifact.

    Args:
        ids: of the pairs.
        number: of votes per pair.
        answers: choice as shown, status and key of the reply; of each pair in the order of the votes.
    """
    import pandas as pd

    rows = []
    cells = [(name, vote) for name in ids for vote in range(number)]
    for (name, vote), (choice, status, key) in zip(cells, answers, strict=True):
        preferred = float("nan") if choice is None else float(choice ^ (vote % 2))
        rows.append((name, vote, vote % 2, preferred, status, key))
    columns = ["id", "vote", "order", "preferred", "status", "reply_key"]
    return pd.DataFrame(rows, columns=columns).astype({"vote": "int32", "order": "int8"})


if __name__ == "__main__":
    cli.run(main)
