"""Gather unlabelled texts for pre-training a base model.

Four kinds: ``world`` draws prompts of the training side of the demo world, each with one response of any
quality; ``examples`` takes both responses of every training example of a filtered data set (each distinct
text once). No text of a test prompt gets in: the world's held-out combinations are never drawn, and of a
data set the rows with ``origin_split`` "test" are left out, and training rows whose normalised prompt also
occurs there. ``concepts`` draws documents of the concept world (:mod:`w2s.concepts`) for a strong model,
``concept-records`` single questions and answers in one style for a weak one; both hold all questions of that
world, those of the test too: there, what a question's answer is must be known, as it is to the paper's models.

inputs:  filtered examples (kind ``examples`` only)
outputs: corpus.parquet (prompt, response; of concept kinds also scored: the characters of the response that
         carry the loss); in the facts: number of texts and prompts and, for examples, of what was left out

``--texts`` is the number of texts; for ``examples``, 0 takes all and a smaller number a random choice by
``--seed``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from w2s import cli
from w2s.artifact import Artifact
from w2s.errors import ConfigError, DataError
from w2s.tables import read_examples, write_parquet

if TYPE_CHECKING:
    import pandas as pd

CONCEPTS = ("concepts", "concept-records")


def main(argv: Sequence[str] | None = None) -> None:
    """Make the corpus."""
    args = arguments(argv)
    if args.kind == "world":
        from w2s import world

        corpus, facts = world.make_texts(args.world, args.texts, args.seed), dict[str, int]()
    elif args.kind in CONCEPTS:
        corpus, facts = concept_texts(args), dict[str, int]()
    else:
        import pandas as pd

        corpus, facts = texts_of(pd.concat([read_examples(path) for path in args.examples]), args.examples)
        corpus = choose(corpus, args.texts, args.seed)
    with Artifact.create(
        args.output, spec=args.spec, parents={"examples": args.examples}, script=__file__
    ) as artifact:
        write_parquet(corpus, artifact.path("corpus.parquet"))
        artifact.record(rows_out=len(corpus), distinct_prompts=int(corpus["prompt"].nunique()), **facts)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; refuse combinations that make no sense."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--examples", nargs="*", help="manifests of filtered examples (kind examples)")
    parser.output("--output", help="manifest.json of the corpus")
    parser.spec("--kind", choices=["world", "examples", *CONCEPTS], help="where the texts come from")
    parser.spec(
        "--world",
        type=cli.json_object,
        default={},
        help="JSON settings of the demo world (kind world) or of the concept world (concept kinds)",
    )
    parser.spec("--texts", type=int, default=0, help="number of texts; 0 = all of the examples")
    parser.spec("--seed", type=int, default=0, help="seed of the texts")
    parser.spec("--style", default=None, help="style of the answers (kind concept-records)")
    parser.spec(
        "--wrong-operations",
        type=int,
        default=0,
        help="how many operations, the first ones, follow a wrong rule (kind concept-records)",
    )
    parser.spec("--slips", type=float, default=0.0, help="share in another style (kind concept-records)")
    args = parser.parse_args(argv)
    if (args.kind == "examples") != bool(args.examples):
        raise ConfigError("kind examples needs some, other kinds take none", where="--kind, --examples")
    if (args.kind == "world" and not args.world) or (args.kind == "examples" and args.world):
        raise ConfigError(
            "world settings are for kinds of a world, and kind world needs them", where="--kind, --world"
        )
    if (args.kind == "concept-records") != (args.style is not None):
        raise ConfigError("a style is for kind concept-records, and needed there", where="--kind, --style")
    if args.kind != "concept-records":
        if args.wrong_operations or args.slips:
            raise ConfigError("these are for kind concept-records", where="--wrong-operations, --slips")
        # What is not for a kind is not named: its manifest is the one of a stage without these choices.
        for name in ("style", "wrong_operations", "slips"):
            del args.spec[name]
    if args.texts < 0 or args.seed < 0:
        raise ConfigError("a number of texts or a seed below 0", where="--texts, --seed", instead="0 or more")
    return args


def concept_texts(args: argparse.Namespace) -> pd.DataFrame:
    """Documents of the concept world, or records of one of its styles."""
    from w2s import concepts

    world = concepts.ConceptWorld.read(args.world)
    if args.kind == "concepts":
        return concepts.make_documents(world, args.texts, args.seed)
    return concepts.make_records(world, args.style, args.texts, args.seed, args.wrong_operations, args.slips)


def texts_of(examples: pd.DataFrame, where: object) -> tuple[pd.DataFrame, dict[str, int]]:
    """Both responses of the training examples, each text once, and how many rows were left out why.

    Raises:
        DataError: nothing is left.
    """
    import pandas as pd
    from w2s.dialogue import normalise_prompt

    keys = examples["prompt"].map(normalise_prompt)
    test = examples["origin_split"] == "test"
    shared = ~test & keys.isin(set(keys[test]))
    train = examples[~test & ~shared].sort_values("id")
    if not len(train):
        raise DataError("no training example is left for the corpus", where=where)
    sides = [
        train[["prompt", column]].rename(columns={column: "response"})
        for column in ("response_0", "response_1")
    ]
    corpus = pd.concat(sides).drop_duplicates().reset_index(drop=True)
    facts = {
        "rows_in": len(examples),
        "rows_of_test": int(test.sum()),
        "rows_with_a_test_prompt": int(shared.sum()),
        "duplicate_texts": 2 * len(train) - len(corpus),
    }
    return corpus, facts


def choose(corpus: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """``count`` random texts (0: all), in random order.

    Raises:
        ConfigError: more texts are asked for than there are.
    """
    import numpy as np

    if count > len(corpus):
        raise ConfigError(
            f"{count} texts are asked for, there are {len(corpus)}",
            where="--texts",
            instead="0 for all of them",
        )
    order = np.random.default_rng(seed).permutation(len(corpus))
    return corpus.iloc[order[: count or None]].reset_index(drop=True)


if __name__ == "__main__":
    cli.run(main)
