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

from w2s import cli
from w2s.artifact import Artifact, load
from w2s.errors import DataError
from w2s.runs import parse_run
from w2s.tables import check_unique, read_parquet, write_parquet


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--generations", help="responses to score")
    parser.output("--output", help="manifest of the rewards")
    parser.spec("--gold", help="name of the judge")
    parser.spec("--run", help="the model that answered: models/..., teachers/... or students/...")
    parser.spec("--data", help="data set of the cell")
    parser.spec("--share", help="labelled share of the cell")
    parser.spec("--seed", type=int, help="seed of the cell")
    parser.spec("--world", type=cli.json_object, help="JSON settings of the demo world")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    parse_run(args.run)

    from w2s import world

    world.Settings.read(args.world)
    path = load(args.generations).path("generations.parquet")
    generations = read_parquet(path, ["id", "prompt", "response"])
    check_unique(generations["id"], path)
    scores = []
    for name, prompt, response in zip(
        *(generations[key] for key in ("id", "prompt", "response")), strict=True
    ):
        try:
            scores.append(world.reward(prompt, response))
        except DataError as error:
            raise DataError(error.what, where=f"{path}, id {name}", instead=error.instead) from error
    rewards = generations[["id"]].assign(
        reward=[value for value, _ in scores], malformed=[malformed for _, malformed in scores]
    )
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
