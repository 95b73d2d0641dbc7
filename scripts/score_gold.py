"""Score a model's responses with a gold reward model (paper A, section 3.2 and appendix A.2).

Any sequence classifier of the hub's format with one logit serves. It reads the dialogue through its
tokenizer's chat template; for tokenizers without one, ``--fallback-template`` declares what it reads:
``plain`` (prompt and response as they are), ``pair`` (prompt and response as a text pair) or ``none``
(refuse). How the paper presented dialogues to its reward model is not known; the template in use is
recorded in the manifest.

Inputs: a reward model, generations.
Output: ``rewards.parquet``: id, reward (the raw logit).

An interrupted run continues, and ``accelerate launch`` divides the batches among GPUs; neither changes a reward.

``--run``, ``--data``, ``--share``, ``--seed`` and ``--gold`` say what was scored by whom; the tables read
them from the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s import cli
from w2s.judging import add_identity, add_reward_model, read_generations
from w2s.processes import world
from w2s.runs import parse_run
from w2s.tables import write_parquet

COLUMNS = ["id", "reward"]


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--model", help="reward model")
    parser.input("--generations", help="responses to score")
    parser.output("--output", help="manifest of the rewards")
    parser.spec("--gold", help="name of the judge")
    add_identity(parser)
    add_reward_model(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    parse_run(args.run)
    generations = read_generations(args.generations)

    import torch
    from w2s.rewards import judge
    from w2s.shards import resumable

    torch.set_num_threads(cli.threads())
    parents = {"model": args.model, "generations": args.generations}
    with resumable(args, parents, __file__, COLUMNS) as (artifact, shards):
        keys = [(name,) for name in generations["id"]]
        texts = (generations["prompt"], generations["response"])
        judged = judge(args, *texts, keys, artifact is not None, shards)
        if artifact is None:
            return
        table = generations[["id"]].assign(reward=judged.rewards)
        write_parquet(table, artifact.path("rewards.parquet"))
        artifact.record(rows_out=len(table), mean=float(judged.rewards.mean()), template=judged.template)
        artifact.measure(processes=world()[1], resumed=shards.resumed, device=judged.device)


if __name__ == "__main__":
    cli.run(main)
