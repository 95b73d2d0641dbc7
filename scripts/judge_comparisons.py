"""Let a judge compare two models' answers to the same prompts (paper A, section 3.3 and appendix A.2).

The judge is a language model behind any OpenAI-compatible endpoint, or the demo world's (docs/judge.md). It gives each
of two answers a score from 1 to 10. Each pair is judged twice, with either answer shown first: the mean over both
orders is free of a liking for a place, and the difference between them measures it. The paper asked once, in which
order is not known.

Each reply is kept in ``--store`` as soon as it came, and none is paid twice. The endpoint's address and key come from
the environment; neither is written anywhere.

Inputs: generations of two models, for the same ids and prompts.
Output: ``comparisons.parquet``: id, order (0: left shown first, 1: right shown first), score_left, score_right (NaN
where all replies were malformed), status (ok, or why the last reply is malformed), reply_key (in the store).

``--run`` (left), ``--against`` (right), ``--data``, ``--share`` and ``--seed`` say what was compared; the tables read
them from the manifest. ``--seed`` also draws the prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s import cli, judge_stage
from w2s.artifact import Artifact, load
from w2s.errors import DataError, JoinError
from w2s.runs import parse_run
from w2s.tables import check_same_ids, check_unique, named, read_parquet, write_parquet

if TYPE_CHECKING:
    import pandas as pd


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--left", help="generations of one model")
    parser.input("--right", help="generations of the model to compare it with")
    parser.output("--output", help="manifest of the comparisons")
    judge_stage.add_judge(parser, "compare")
    parser.spec(
        "--prompts", type=cli.positive_int, help="number of prompts, drawn at random (all if there are fewer)"
    )
    parser.spec("--seed", type=judge_stage.natural, help="seed of the cell; also draws the prompts")
    parser.spec("--run", help="the left model: models/..., teachers/... or students/...")
    parser.spec("--against", help="the right model")
    parser.spec("--data", help="data set of the cell")
    parser.spec("--share", help="labelled share of the cell")
    judge_stage.add_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    parse_run(args.run)
    parse_run(args.against)
    pairs = read_pairs(args.left, args.right)
    chosen = judge_stage.draw(pairs, args.prompts, args.seed)

    from w2s import judge_prompts

    template = judge_prompts.find(args.template)
    questions = judge_stage.in_both_orders(template, chosen, "response_left", "response_right")
    parents = {"left": args.left, "right": args.right}
    with (
        Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact,
        judge_stage.opened(args, template) as judge,
    ):
        answers = judge.ask(questions, progress=True)
        table = comparisons(chosen["id"], [(answer.value, answer.status, answer.key) for answer in answers])
        write_parquet(table, artifact.path("comparisons.parquet"))
        judge_stage.record(artifact, judge, answers)
        artifact.record(
            prompts_available=len(pairs), prompts=len(chosen), rows_out=len(table), orders=tally(table)
        )


def read_pairs(left: Path, right: Path) -> pd.DataFrame:
    """Both models' answers side by side: id, prompt, response_left, response_right, sorted by id.

    Raises:
        JoinError: the ids differ, occur twice, or stand for different prompts.
    """
    frames = []
    for manifest in (left, right):
        path = load(manifest).path("generations.parquet")
        frame = read_parquet(path, ["id", "prompt", "response"])
        check_unique(frame["id"], path)
        gone = frame["id"][frame["prompt"].isna() | frame["response"].isna()]
        if len(gone):
            raise DataError(f"{len(gone)} rows without text: {named(gone)}", where=path)
        frames.append(frame[["id", "prompt", "response"]])
    check_same_ids(frames[0]["id"], frames[1]["id"], "the left generations", "the right ones")
    both = frames[0].merge(frames[1], on="id", suffixes=("_left", "_right"), validate="one_to_one")
    other = both["id"][both["prompt_left"] != both["prompt_right"]]
    if len(other):
        raise JoinError(
            f"{len(other)} ids stand for different prompts: {named(other)}",
            instead="generations made from the same examples and the same split",
        )
    both = both.rename(columns={"prompt_left": "prompt"}).drop(columns="prompt_right")
    return both.sort_values("id", ignore_index=True)


def comparisons(
    ids: Iterable[str], answers: Sequence[tuple[tuple[float, float] | None, str, str]]
) -> pd.DataFrame:
    """The table of the artifact.

    Args:
        ids: of the prompts.
        answers: scores as shown, status and key of the reply; of each prompt in the order of judge_stage.ORDERS.
    """
    import pandas as pd

    rows = []
    cells = [(name, order) for name in ids for order in judge_stage.ORDERS]
    for (name, order), (scores, status, key) in zip(cells, answers, strict=True):
        left, right = judge_stage.both_orders(*(scores or (float("nan"), float("nan"))), order)
        rows.append((name, order, left, right, status, key))
    columns = ["id", "order", "score_left", "score_right", "status", "reply_key"]
    return pd.DataFrame(rows, columns=columns).astype({"order": "int8"})


def tally(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Wins, ties and losses of the left answer, and malformed rows, by order."""
    found = {}
    for order in judge_stage.ORDERS:
        rows = table[table["order"] == order]
        gap = rows["score_left"] - rows["score_right"]
        found[str(order)] = {
            "win": int((gap > 0).sum()),
            "tie": int((gap == 0).sum()),
            "lose": int((gap < 0).sum()),
            "malformed": int(gap.isna().sum()),
        }
    return found


if __name__ == "__main__":
    cli.run(main)
