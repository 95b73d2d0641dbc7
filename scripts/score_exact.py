"""Score a model's responses by the demo world's own rule: the exact reward, no reward model between.

The reward is a sum over the sentences of a response (the table in :func:`w2s.world.reward`); text that is
not of the world's language is malformed and costs. It does for the demo what the gold reward model does in
paper A, section 3.2, without its errors.

inputs:  generations
outputs: rewards.parquet (id, reward, malformed: whether any sentence is not of the language or cut off)

``--run``, ``--data``, ``--share``, ``--seed`` and ``--gold`` say what was scored by whom; the tables read
them from the manifest. No torch is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s import cli, exact
from w2s.artifact import Artifact
from w2s.judging import add_identity, read_generations
from w2s.runs import parse_run
from w2s.tables import write_parquet


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--generations", help="responses to score")
    parser.output("--output", help="manifest of the rewards")
    parser.spec("--gold", help="name of the judge")
    add_identity(parser)
    parser.spec("--world", type=cli.json_object, help="JSON settings of the demo world")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    parse_run(args.run)
    generations = read_generations(args.generations)
    places = (f"{args.generations}, id {name}" for name in generations["id"])
    found = exact.rewards(args.world, generations["prompt"], generations["response"], places)
    rewards = generations[["id"]].join(found)
    with Artifact.create(
        args.output, spec=args.spec, parents={"generations": args.generations}, script=__file__
    ) as artifact:
        write_parquet(rewards, artifact.path("rewards.parquet"))
        artifact.record(
            rows_out=len(rewards),
            mean=float(rewards["reward"].mean()),
            malformed=int(rewards["malformed"].sum()),
        )


if __name__ == "__main__":
    cli.run(main)
