"""Import a raw preference data set: unlabelled examples, and the human labels in a file of their own.

Each row becomes an example whose two responses stand in an order decided by their hash, never by the label,
so that nothing downstream can learn the label from the order (contract 1 of the architecture). The id is a
hash of the prompts and both responses.

inputs:  fetched sources (none for the demo world)
outputs: examples.parquet (id, prompt, other_prompt, response_0, response_1, subset, origin_split,
         source_row), human.parquet (id, label, margin, probability, source); for the demo world also
         gold.parquet (labels by the exact reward) and rewards.parquet (id, response, reward); drops.csv
         (subset, reason, rows)

Split: the given one (each file is "train" or "test"), or, with a test share F > 0, all files pooled and split
again at random, ceil(F n) rows going to the test side. Pooling the train and test files of HH-RLHF's three
helpful subsets (124,503 rows) and splitting again with F = 0.1 gives 112,052 / 12,451, the sizes of the set
that paper A used.

Rows with the id of an earlier row are dropped as ``duplicate_row``; if such a row prefers the other response,
it is also counted in the fact ``duplicates_with_other_label``. Rows that cannot be read stop the stage.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from w2s import adapters, cli
from w2s.adapters import Dropped, Pair
from w2s.artifact import Artifact, load
from w2s.drops import balance, drop_table
from w2s.errors import ConfigError, DataError
from w2s.example_ids import content_hash, example_id
from w2s.tables import EXAMPLE_COLUMNS, LABEL_COLUMNS, write_csv, write_parquet

if TYPE_CHECKING:
    import pandas as pd

DUPLICATE = "duplicate_row"
BEYOND_LIMIT = "beyond_limit"
REASONS = (*adapters.DROP_REASONS, DUPLICATE, BEYOND_LIMIT)
WORLD = "world"
TABLE_COLUMNS = [*EXAMPLE_COLUMNS, "label", "judge", "reward_0", "reward_1"]


def main(argv: Sequence[str] | None = None) -> None:
    """Import one data set."""
    args = arguments(argv)
    rows, dropped = collect(args)
    if args.test_share > 0:
        resplit(rows, args.test_share, args.resplit_seed)
    table = to_table(rows)
    table, duplicates, contradicting = drop_duplicates(table)
    table, beyond = first_by_id(table, args.limit, args.test_limit)
    subsets = sorted({row["subset"] for row in rows} | {row.subset for row in dropped})
    drops = drop_table(
        [(row.subset, row.reason) for row in dropped]
        + [(subset, DUPLICATE) for subset in duplicates]
        + [(subset, BEYOND_LIMIT) for subset in beyond],
        subsets,
        REASONS,
    )
    before = Counter(row["subset"] for row in rows) + Counter(row.subset for row in dropped)
    facts = balance(len(rows) + len(dropped), table["subset"], drops, before)
    if not len(table):
        raise DataError("no example is left", where=args.output, instead="other files or a larger --limit")
    with Artifact.create(
        args.output, spec=args.spec, parents={"sources": args.sources}, script=__file__
    ) as artifact:
        write_parquet(table[EXAMPLE_COLUMNS], artifact.path("examples.parquet"))
        write_parquet(human_labels(table), artifact.path("human.parquet"))
        if args.adapter == WORLD:
            write_parquet(gold_labels(table), artifact.path("gold.parquet"))
            write_parquet(reward_table(table), artifact.path("rewards.parquet"))
        write_csv(drops, artifact.path("drops.csv"))
        artifact.record(
            **facts,
            duplicates_with_other_label=contradicting,
            rows_by_origin_split=dict(sorted(Counter(table["origin_split"]).items())),
            rows_by_origin_split_before_drops=dict(
                sorted(Counter(row["origin_split"] for row in rows).items())
            ),
        )


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; refuse combinations that make no sense."""
    parser = cli.StageParser(__doc__ or "")
    parser.input(
        "--sources", nargs="*", help="manifests of the fetched sources; a source's name is its folder's"
    )
    parser.output("--output", help="manifest.json of the examples")
    parser.spec("--adapter", choices=[*adapters.ADAPTERS, WORLD], help="how rows are read")
    parser.spec("--files", type=cli.json_array, default=[], help="JSON list of {source, path, subset, split}")
    parser.spec(
        "--test-share",
        type=cli.share,
        default=0.0,
        help="share of the new test side; 0 keeps the given splits",
    )
    parser.spec("--resplit-seed", type=int, default=0, help="seed of the new split")
    parser.spec("--world", type=cli.json_object, default={}, help="JSON settings of the demo world")
    parser.spec(
        "--limit", type=int, default=0, help="keep so many examples at most, a random sample; 0 keeps all"
    )
    parser.spec(
        "--test-limit", type=int, default=0, help="of the test side keep so many at most; 0 keeps all"
    )
    args = parser.parse_args(argv)
    if args.adapter == WORLD and not args.world:
        raise ConfigError("the adapter world needs settings", where="--world")
    if args.adapter == WORLD and (args.files or args.sources):
        raise ConfigError(
            "the adapter world reads no files", where="--files, --sources", instead="--world alone"
        )
    for flag, limit in (("--limit", args.limit), ("--test-limit", args.test_limit)):
        if limit < 0:
            raise ConfigError(f"a limit of {limit}", where=flag, instead="0 (all) or more")
    return args


def collect(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[Dropped]]:
    """All rows as flat dicts in the order of the files, and the rows that the adapter dropped."""
    if args.adapter == WORLD:
        return [flatten(pair) for pair in adapters.world_pairs(args.world)], []
    sources: dict[str, Artifact] = {}
    for manifest in args.sources:
        source = load(manifest)
        if source.folder.resolve().name in sources:
            raise ConfigError(f"two sources called {source.folder.resolve().name!r}", where="--sources")
        sources[source.folder.resolve().name] = source
    folders = {name: source.folder for name, source in sources.items()}
    for entry in adapters.checked_files(args.files, folders):
        sources[entry["source"]].path(entry["path"])  # what was not fetched with it is no part of the source
    rows, dropped = [], []
    for found in adapters.read_pairs(args.adapter, args.files, folders):
        if isinstance(found, Dropped):
            dropped.append(found)
        else:
            rows.append(flatten(found))
    return rows, dropped


def flatten(pair: Pair) -> dict[str, Any]:
    """One row of the table: sides in the order of their hashes, and the label turned with them."""
    sides = pair.sides
    a, b = (sides.prompt_a, sides.response_a), (sides.prompt_b, sides.response_b)
    turned = content_hash(a) > content_hash(b)
    first, second = (b, a) if turned else (a, b)
    rewards = pair.rewards or (math.nan, math.nan)
    return {
        "id": example_id(first, second),
        "prompt": first[0],
        "other_prompt": None if first[0] == second[0] else second[0],
        "response_0": first[1],
        "response_1": second[1],
        "subset": pair.subset,
        "origin_split": pair.origin_split,
        "source_row": pair.source_row,
        # Two equal sides have no order: either answer is "preferred", and the label must not tell which
        # column it was.
        "label": 0 if a == b else sides.preferred ^ int(turned),
        "judge": sides.judge,
        "reward_0": rewards[int(turned)],
        "reward_1": rewards[1 - int(turned)],
    }


def resplit(rows: list[dict[str, Any]], test_share: float, seed: int) -> None:
    """Give each row a new origin_split: ceil(test_share n) rows at random become "test"."""
    import numpy as np

    # As a fraction of the decimal number that was written: 0.1 x 30 is 3, not 3.0000000000000004.
    count = math.ceil(Fraction(str(test_share)) * len(rows))
    test = set(np.random.default_rng(seed).permutation(len(rows))[:count].tolist())
    for position, row in enumerate(rows):
        row["origin_split"] = "test" if position in test else "train"


def to_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a table whose text columns are of type text, even where all values are missing."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=TABLE_COLUMNS)
    return table.astype({column: "string" for column in [*EXAMPLE_COLUMNS, "judge"]})


def drop_duplicates(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str], int]:
    """Keep the first row of each id; also the subsets of the dropped rows, and how many contradict it."""
    repeated = table["id"].duplicated()
    kept, extra = table[~repeated], table[repeated]
    first_label = kept.set_index("id")["label"].reindex(extra["id"]).to_numpy()
    return kept, extra["subset"].tolist(), int((first_label != extra["label"].to_numpy()).sum())


def first_by_id(table: pd.DataFrame, limit: int, test_limit: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """Sort by id and keep the first ``test_limit`` test rows, then the first ``limit`` of all (0: no limit).

    Ids are hashes, so these are random samples. Also returns the subsets of the rows beyond a limit.
    """
    table = table.sort_values("id").reset_index(drop=True)
    test = (table["origin_split"] == "test").to_numpy(bool)
    kept = table[~test | (test.cumsum() <= (test_limit or len(table)))]
    kept = kept.iloc[: limit or len(table)]
    beyond = table.loc[~table.index.isin(kept.index), "subset"].tolist()
    return kept.reset_index(drop=True), beyond


def human_labels(table: pd.DataFrame) -> pd.DataFrame:
    """The labels that came with the data: certain (probability 0 or 1), of unknown margin."""
    labels = table.assign(
        margin=math.nan, probability=table["label"].astype("float64"), source=table["judge"]
    )
    return labels[LABEL_COLUMNS].astype({"label": "int8"})


def gold_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Labels by the exact reward; a tie has probability 1/2 and goes to the second (paper A, eq. 5)."""
    margin = table["reward_1"] - table["reward_0"]
    probability = (margin > 0) * 1.0 + (margin == 0) * 0.5
    labels = table.assign(label=(margin >= 0), margin=margin, probability=probability, source="gold")
    return labels[LABEL_COLUMNS].astype({"label": "int8", "source": "string"})


def reward_table(table: pd.DataFrame) -> pd.DataFrame:
    """Exact rewards, one row per response: id, response (0 or 1), reward."""
    import pandas as pd

    sides = [
        pd.DataFrame({"id": table["id"], "response": side, "reward": table[f"reward_{side}"]})
        for side in (0, 1)
    ]
    return (
        pd.concat(sides).astype({"response": "int8"}).sort_values(["id", "response"]).reset_index(drop=True)
    )


if __name__ == "__main__":
    cli.run(main)
