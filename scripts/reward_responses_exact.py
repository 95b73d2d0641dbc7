"""Score both responses of each example of one part of a split by the demo world's own rule, without a reward model.

It does for the demo what ``reward_responses`` does with a gold reward model: how far apart a label's preferred and other
response are (paper A, Table 2). The rule is the one of ``score_exact``.

inputs:  examples of the demo world, a split
outputs: rewards.parquet (id, response 0 or 1, reward, malformed: whether any sentence is not of the language or cut off)

``--gold`` names the judge; the tables read it from the manifest. No torch is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s import cli, exact
from w2s.artifact import Artifact
from w2s.errors import DataError
from w2s.judging import both_responses
from w2s.tables import PARTS, read_part, write_parquet


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--examples", help="filtered examples of the demo world")
    parser.input("--split", help="split of these examples")
    parser.output("--output", help="manifest of the rewards")
    parser.spec("--part", choices=PARTS, help="part of the split to score")
    parser.spec("--gold", help="name of the judge")
    parser.spec("--world", type=cli.json_object, help="JSON settings of the demo world")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    examples = read_part(args.examples, args.split, args.part)
    if examples.empty:
        raise DataError(f"part {args.part!r} is empty: nothing to score", where=args.split)
    texts = both_responses(examples)
    places = (
        f"{args.examples}, id {name}, response {number}"
        for name, number in zip(texts["id"], texts["response"], strict=True)
    )
    found = exact.rewards(args.world, texts["prompt"], texts["text"], places)
    rewards = texts[["id", "response"]].join(found)
    parents = {"examples": args.examples, "split": args.split}
    with Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact:
        write_parquet(rewards, artifact.path("rewards.parquet"))
        artifact.record(
            examples=len(examples),
            responses=len(rewards),
            mean=float(rewards["reward"].mean()),
            malformed=int(rewards["malformed"].sum()),
        )


if __name__ == "__main__":
    cli.run(main)
