"""Let a prompted language model say which response of each pair it prefers: a teacher that is not trained.

In paper A (section 3.3) GPT-4 labels the unlabelled pairs that way. Each pair is asked about twice, with either
response shown first, since language models favour a place. ``--template`` says what is asked: which response is of more
help (``helpful-...``), or which one does less harm (``harmless-...``). The answer to both names the better response;
the latter is never asked the other way round.

Each reply is kept in ``--store`` as soon as it came, and none is paid twice. The endpoint's address and key come from
the environment; neither is written anywhere (docs/judge.md).

Inputs: examples, a split.
Output: ``preferences.parquet``: id, order (0: response 0 shown first, 1: response 1), preferred (index of the preferred
response, NaN where all replies were malformed), status, reply_key (in the store).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from w2s import cli, judge_stage
from w2s.artifact import Artifact
from w2s.errors import DataError
from w2s.tables import PARTS, read_part, write_parquet

if TYPE_CHECKING:
    import pandas as pd


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--examples", help="examples to label")
    parser.input("--split", help="split of these examples")
    parser.output("--output", help="manifest of the preferences")
    parser.spec("--part", choices=PARTS, help="part of the split to label")
    judge_stage.add_judge(parser, "helpful", "harmless")
    judge_stage.add_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    pairs = read_part(args.examples, args.split, args.part)
    if pairs.empty:
        raise DataError(f"part {args.part!r} is empty: nothing to label", where=args.split)

    from w2s import judge_prompts

    template = judge_prompts.find(args.template)
    questions = judge_stage.in_both_orders(template, pairs, "response_0", "response_1")
    parents = {"examples": args.examples, "split": args.split}
    with (
        Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact,
        judge_stage.opened(args, template) as judge,
    ):
        answers = judge.ask(questions, progress=True)
        table = preferences(pairs["id"], [(answer.value, answer.status, answer.key) for answer in answers])
        write_parquet(table, artifact.path("preferences.parquet"))
        judge_stage.record(artifact, judge, answers)
        preferred = table.pivot(index="id", columns="order", values="preferred")
        artifact.record(
            pairs=len(pairs),
            rows_out=len(table),
            both_orders_agree=int((preferred[0] == preferred[1]).sum()),
            share_preferring_1=float(table["preferred"].mean()) if table["preferred"].notna().any() else None,
        )


def preferences(ids: Iterable[str], answers: Sequence[tuple[int | None, str, str]]) -> pd.DataFrame:
    """The table of the artifact.

    Args:
        ids: of the pairs.
        answers: choice as shown, status and key of the reply; of each pair in the order of judge_stage.ORDERS.
    """
    import pandas as pd

    rows = []
    cells = [(name, order) for name in ids for order in judge_stage.ORDERS]
    for (name, order), (choice, status, key) in zip(cells, answers, strict=True):
        preferred = float("nan") if choice is None else float(choice ^ order)
        rows.append((name, order, preferred, status, key))
    columns = ["id", "order", "preferred", "status", "reply_key"]
    return pd.DataFrame(rows, columns=columns).astype({"order": "int8"})


if __name__ == "__main__":
    cli.run(main)
