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
from w2s.artifact import load
from w2s.processes import world
from w2s.runs import parse_run
from w2s.tables import check_unique, read_parquet, write_parquet


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--model", help="reward model")
    parser.input("--generations", help="responses to score")
    parser.output("--output", help="manifest of the rewards")
    parser.spec("--gold", help="name of the judge")
    parser.spec("--run", help="the model that answered: models/..., teachers/... or students/...")
    parser.spec("--data", help="data set of the cell")
    parser.spec("--share", help="labelled share of the cell")
    parser.spec("--seed", type=int, help="seed of the cell")
    parser.spec("--fallback-template", choices=["plain", "pair", "none"], default="none")
    parser.spec("--precision", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.option(
        "--batch-tokens", type=cli.positive_int, default=8192, help="tokens per batch, padding included"
    )
    parser.option("--device", default="auto", help="auto takes the GPU if there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    parse_run(args.run)
    path = load(args.generations).path("generations.parquet")
    generations = read_parquet(path, ["id", "prompt", "response"])
    check_unique(generations["id"], path)

    import torch
    from w2s.rewards import COLUMNS, encoder, load_reward_model, score
    from w2s.shards import resumable

    torch.set_num_threads(cli.threads())
    parents = {"model": args.model, "generations": args.generations}
    with resumable(args, parents, __file__, COLUMNS) as (artifact, shards):
        folder = load(args.model).folder
        encode, template = encoder(folder, args.fallback_template)
        pairs = zip(generations["prompt"], generations["response"], strict=True)
        sequences = [encode(prompt, response) for prompt, response in pairs]
        model = load_reward_model(folder, args.precision, args.device)
        rewards = score(
            model, sequences, args.batch_tokens, list(generations["id"]), artifact is not None, shards
        )
        if artifact is None:
            return
        write_parquet(generations[["id"]].assign(reward=rewards), artifact.path("rewards.parquet"))
        artifact.record(rows_out=len(rewards), mean=float(rewards.mean()), template=template)
        artifact.measure(processes=world()[1], resumed=shards.resumed, device=str(model.device))


if __name__ == "__main__":
    cli.run(main)
