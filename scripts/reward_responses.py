"""Score both responses of each example of one part of a split with a reward model, one by one.

Two things need it. The gold reward of the data set's own responses says how far apart a label's preferred and other
response are (paper A, Table 2, and the share of 44.3 % in section 4). And a reward model that was trained as a teacher
(``train_teacher_reward``, Table 13) labels a pair by its rewards.

Any sequence classifier of the hub's format with one logit serves; how it reads a dialogue is told in ``score_gold``. A
model that was trained here reads plain text: ``--fallback-template plain``.

Inputs: a reward model, examples, a split.
Output: ``rewards.parquet``: id, response (0 or 1), reward (the raw logit); by id and response.
facts:   digests of the weights and of the tokenizer, numbers of examples and responses, tokens read, the template in use

An interrupted run continues, and ``accelerate launch`` divides the batches among GPUs; neither changes a reward.

``--gold`` names the judge where the rewards are measurements; the tables read it from the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s import cli
from w2s.artifact import load
from w2s.errors import DataError
from w2s.judging import add_reward_model, both_responses
from w2s.processes import world
from w2s.tables import PARTS, read_part, write_parquet

COLUMNS = ["id", "response", "reward"]
KEYS = 2


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--model", help="reward model")
    parser.input("--examples", help="filtered examples")
    parser.input("--split", help="split of these examples")
    parser.output("--output", help="manifest of the rewards")
    parser.spec("--part", choices=PARTS, help="part of the split to score")
    parser.spec("--gold", default=None, help="name of the judge; none for a teacher")
    add_reward_model(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    examples = read_part(args.examples, args.split, args.part)
    if examples.empty:
        raise DataError(f"part {args.part!r} is empty: nothing to score", where=args.split)
    texts = both_responses(examples)

    import torch
    from w2s.encoding import tokenizer_digest
    from w2s.models import weights_digest
    from w2s.rewards import judge
    from w2s.shards import resumable

    torch.set_num_threads(cli.threads())
    parents = {"model": args.model, "examples": args.examples, "split": args.split}
    with resumable(args, parents, __file__, COLUMNS, KEYS) as (artifact, shards):
        keys = list(texts[COLUMNS[:KEYS]].itertuples(index=False, name=None))
        judged = judge(args, texts["prompt"], texts["text"], keys, artifact is not None, shards)
        if artifact is None:
            return
        table = texts[COLUMNS[:KEYS]].assign(reward=judged.rewards)
        write_parquet(table, artifact.path("rewards.parquet"))
        folder = load(args.model).folder
        artifact.record(
            examples=len(examples),
            responses=len(table),
            tokens=judged.tokens,
            mean=float(judged.rewards.mean()),
            template=judged.template,
            weights_digest=weights_digest(folder),
            tokenizer_digest=tokenizer_digest(folder),
        )
        artifact.measure(processes=world()[1], resumed=shards.resumed, device=judged.device)


if __name__ == "__main__":
    cli.run(main)
