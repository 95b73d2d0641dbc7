"""Split the examples into D_l (labelled), D_u (unlabelled) and test, by seed and share.

Test is the test side of the data set. The train side is divided at random: a share (1/16, 1/8, 1/4 or 1/2 in
paper A, Figure 4b; 1/2 elsewhere) becomes D_l, on which the teacher learns from human labels, the rest D_u,
which the teacher labels for the student. All examples of one prompt go the same way, where prompts are
compared in normal form (Unicode NFKC, case folded, white space collapsed), so that the parts are disjoint by
id *and* by prompt. Test examples whose prompt occurs on the train side are dropped as ``prompt_in_train``.

inputs:  examples (filtered)
outputs: assignment.parquet (id, part: labelled|unlabelled|test), drops.csv (subset, reason, rows); the
         manifest's facts hold the rows of each part, the first ids, and the proof: counts of ids and prompts
         shared by two parts

Prompts are ordered by a hash of seed and prompt, and D_l is the beginning of that order: for one seed a
smaller D_l is part of a larger one, and the same prompts are drawn whatever else was dropped before.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from w2s import cli
from w2s.artifact import Artifact
from w2s.dialogue import normalise_prompt
from w2s.drops import balance, drop_table
from w2s.errors import DataError
from w2s.tables import DISJOINT_PARTS, check_unique, read_examples, read_parquet, write_csv, write_parquet

if TYPE_CHECKING:
    import pandas as pd

PROMPT_IN_TRAIN = "prompt_in_train"
EXAMPLE_IDS = 5


def main(argv: Sequence[str] | None = None) -> None:
    """Split one data set."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--examples", help="manifest of the filtered examples")
    parser.output("--output", help="manifest.json of the split")
    parser.spec("--share", type=cli.share, help="share of the train side that becomes D_l, as in 1/2")
    parser.spec("--seed", type=int, help="seed of the split")
    args = parser.parse_args(argv)
    examples = read_examples(args.examples)
    check_splittable(examples, args.examples)
    keys = examples["prompt"].map(normalise_prompt)
    parts = assign(examples, keys, args.share, args.seed)
    dropped = parts.isna()
    drops = drop_table(
        [(subset, PROMPT_IN_TRAIN) for subset in examples.loc[dropped, "subset"]],
        sorted(set(examples["subset"])),
        [PROMPT_IN_TRAIN],
    )
    facts = balance(len(examples), examples.loc[~dropped, "subset"], drops, Counter(examples["subset"]))
    assignment = examples.loc[~dropped, ["id"]].assign(part=parts[~dropped]).sort_values("id")
    with Artifact.create(
        args.output, spec=args.spec, parents={"examples": args.examples}, script=__file__
    ) as artifact:
        write_parquet(assignment, artifact.path("assignment.parquet"))
        write_csv(drops, artifact.path("drops.csv"))
        written = read_parquet(artifact.path("assignment.parquet"), ["id", "part"])
        proof = prove_disjoint(written, dict(zip(examples["id"], keys, strict=True)))
        artifact.record(**facts, **describe(written), proof=proof)


def check_splittable(examples: pd.DataFrame, where: object) -> None:
    """Refuse examples with two different prompts, and data without a train or a test side."""
    differing = examples.loc[examples["other_prompt"].notna(), "id"]
    if len(differing):
        raise DataError(
            f"{len(differing)} examples have two prompts, the first with id {differing.iloc[0]}",
            where=where,
            instead="the output of filter_examples",
        )
    for side in ("train", "test"):
        if not (examples["origin_split"] == side).any():
            raise DataError(
                f"no example has origin_split {side!r}",
                where=where,
                instead="a test file, or --test-share at import",
            )


def assign(examples: pd.DataFrame, keys: pd.Series, share: float, seed: int) -> pd.Series:
    """The part of each example; missing where a test example's prompt is on the train side.

    Args:
        examples: with a column origin_split.
        keys: normalised prompt of each example, of the same index.
        share: share of the train rows that become D_l.
        seed: seed of the order in which prompts are drawn.

    Raises:
        DataError: D_l or D_u would be empty.
    """
    train = examples["origin_split"] == "train"
    labelled = draw_groups(Counter(keys[train]), share, seed)
    parts = keys.map(lambda key: "labelled" if key in labelled else "unlabelled").astype("string")
    parts[~train] = "test"
    parts[~train & keys.isin(set(keys[train]))] = None
    for part in DISJOINT_PARTS:
        if not (parts == part).any():
            raise DataError(
                f"part {part!r} would be empty",
                where=f"share {share}, {int(train.sum())} train rows, {int((~train).sum())} test rows",
                instead="another share, or more examples",
            )
    return parts


def draw_groups(sizes: Counter[str], share: float, seed: int) -> set[str]:
    """Prompts drawn in random order until they hold ``share`` of all rows, to the nearest whole prompt."""
    target = share * sizes.total()
    drawn: set[str] = set()
    rows = 0
    for key in sorted(sizes, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest()):
        if rows + sizes[key] / 2 > target:
            break
        drawn.add(key)
        rows += sizes[key]
    return drawn


def prove_disjoint(assignment: pd.DataFrame, key_of_id: dict[str, str]) -> dict[str, dict[str, int]]:
    """Count ids and normalised prompts that two parts share, from the table as it was written.

    Raises:
        DataError: a count is not zero.
    """
    check_unique(assignment["id"], "assignment.parquet")
    ids = {part: set(assignment.loc[assignment["part"] == part, "id"]) for part in DISJOINT_PARTS}
    prompts = {part: {key_of_id[id_] for id_ in members} for part, members in ids.items()}
    proof = {
        name: {f"{a} and {b}": len(sets[a] & sets[b]) for a, b in itertools.combinations(DISJOINT_PARTS, 2)}
        for name, sets in (("shared_ids", ids), ("shared_prompts", prompts))
    }
    if any(count for counts in proof.values() for count in counts.values()):
        raise DataError(f"the parts are not disjoint: {proof}")
    return proof


def describe(assignment: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Rows of each part and its first ids."""
    return {
        "rows_by_part": {part: int((assignment["part"] == part).sum()) for part in DISJOINT_PARTS},
        "first_ids": {
            part: sorted(assignment.loc[assignment["part"] == part, "id"])[:EXAMPLE_IDS]
            for part in DISJOINT_PARTS
        },
    }


if __name__ == "__main__":
    cli.run(main)
