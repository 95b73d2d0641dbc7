"""Drop the examples that cannot be used, and say how many and why.

Reasons, tried in this order; a row is counted under the first that applies, and the manifest's facts also
count the rows to which each applies at all:

| reason | applies if |
|---|---|
| too_long | a sequence (BOS as the model sees it + prompt + response, no EOS) exceeds ``--max-tokens`` |
| prompt_mismatch | the two responses answer different prompts |
| equal_responses | the two responses are equal |
| empty_response | a response is empty or blank |

Paper A keeps sequences of at most 512 tokens (section 3.2). Where the prompts differ, each sequence is
counted with its own. On the test rows of HH-RLHF with OPT's tokenizer 7,819 of 8,552 rows are within 512
tokens, 5,585 of 6,240 in the three helpful subsets.

inputs:  examples (as imported), tokenizer
outputs: examples.parquet, human.parquet (and gold.parquet, rewards.parquet if present) restricted to the kept
         ids; drops.csv (subset, reason, rows); lengths.parquet (id, tokens_0, tokens_1) of the kept examples
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s import cli
from w2s.artifact import Artifact, load
from w2s.drops import balance, drop_table
from w2s.encoding import Encoding
from w2s.errors import DataError
from w2s.example_ids import check_ids
from w2s.tables import (
    LABEL_COLUMNS,
    check_labels,
    check_same_ids,
    read_examples,
    read_parquet,
    write_csv,
    write_parquet,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

REASONS = ("too_long", "prompt_mismatch", "equal_responses", "empty_response")
LABEL_FILES = ("human.parquet", "gold.parquet")
REWARDS = "rewards.parquet"
CHUNK = 4096


def main(argv: Sequence[str] | None = None) -> None:
    """Filter one data set."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--examples", help="manifest of the imported examples")
    parser.input("--tokenizer", help="manifest of the tokenizer that counts the tokens")
    parser.output("--output", help="manifest.json of the filtered examples")
    parser.spec(
        "--max-tokens", type=cli.positive_int, default=512, help="longest sequence that is kept, BOS included"
    )
    args = parser.parse_args(argv)
    examples = read_examples(args.examples)
    check_ids(examples, args.examples)
    labels = read_companions(args.examples, examples)
    lengths = count_tokens(examples, Encoding.load(load(args.tokenizer).folder))
    applies = judge(examples, lengths, args.max_tokens)
    dropped = applies.any(axis=1)
    # idxmax gives the first column that is true: the first reason in the declared order.
    reasons = applies[dropped].idxmax(axis=1)
    subsets = examples["subset"]
    drops = drop_table(zip(subsets[dropped], reasons.astype(str), strict=True), sorted(set(subsets)), REASONS)
    facts = balance(len(examples), subsets[~dropped], drops, Counter(subsets))
    kept = examples.loc[~dropped, "id"]
    if not len(kept):
        raise DataError(f"no example is left: {facts['rows_dropped']}", where=args.examples)
    parents = {"examples": args.examples, "tokenizer": args.tokenizer}
    with Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact:
        for name, table in {"examples.parquet": examples, "lengths.parquet": lengths, **labels}.items():
            write_parquet(table[table["id"].isin(kept)], artifact.path(name))
        write_csv(drops, artifact.path("drops.csv"))
        artifact.record(
            **facts,
            rows_to_which_a_reason_applies=marginal_counts(applies, subsets),
            rows_by_origin_split=dict(sorted(Counter(examples.loc[~dropped, "origin_split"]).items())),
            max_tokens_kept=int(lengths.loc[~dropped, ["tokens_0", "tokens_1"]].to_numpy().max()),
        )


def read_companions(manifest: Path, examples: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Label and reward tables beside the examples, by file name, checked to fit them.

    Raises:
        DataError: a label is neither 0 nor 1.
        JoinError: ids are missing, duplicate or extra.
    """
    artifact = load(manifest)
    tables: dict[str, pd.DataFrame] = {}
    for name in LABEL_FILES:
        if name == LABEL_FILES[0] or name in artifact.manifest["files"]:
            path = artifact.path(name)
            tables[name] = check_labels(read_parquet(path, LABEL_COLUMNS), path)
            check_same_ids(examples["id"], tables[name]["id"], "examples.parquet", name)
    if REWARDS in artifact.manifest["files"]:
        tables[REWARDS] = read_parquet(artifact.path(REWARDS), ["id", "response", "reward"])
        check_same_ids(examples["id"], tables[REWARDS]["id"], "examples.parquet", REWARDS)
    return tables


def count_tokens(examples: pd.DataFrame, encoding: Encoding) -> pd.DataFrame:
    """Tokens of both sequences of each example, BOS included, EOS not: columns id, tokens_0, tokens_1."""
    other_prompt = examples["other_prompt"].where(examples["other_prompt"].notna(), examples["prompt"])
    prompts = text_lengths([*examples["prompt"], *other_prompt], encoding.prompts_ids)
    responses = text_lengths(
        [*examples["response_0"], *examples["response_1"]],
        lambda texts: encoding.responses_ids(texts, eos=False),
    )
    tokens = (prompts + responses).reshape(2, len(examples))
    return examples[["id"]].assign(tokens_0=tokens[0], tokens_1=tokens[1])


def text_lengths(texts: Sequence[str], encode: Callable[[Sequence[str]], list[list[int]]]) -> np.ndarray:
    """Number of ids of each text, each distinct text encoded once, in chunks that bound the memory."""
    import numpy as np

    distinct = list(dict.fromkeys(texts))
    length_of: dict[str, int] = {}
    for start in range(0, len(distinct), CHUNK):
        chunk = distinct[start : start + CHUNK]
        length_of.update(zip(chunk, map(len, encode(chunk)), strict=True))
    return np.array([length_of[text] for text in texts], dtype="int64")


def judge(examples: pd.DataFrame, lengths: pd.DataFrame, max_tokens: int) -> pd.DataFrame:
    """Which reason applies to which row: one column of truth values per reason, in the declared order."""
    import pandas as pd

    first, second = examples["response_0"], examples["response_1"]
    applies = {
        "too_long": lengths[["tokens_0", "tokens_1"]].max(axis=1) > max_tokens,
        "prompt_mismatch": examples["other_prompt"].notna(),
        "equal_responses": first == second,
        "empty_response": (first.str.strip() == "") | (second.str.strip() == ""),
    }
    return pd.DataFrame(applies)[list(REASONS)].astype(bool)


def marginal_counts(applies: pd.DataFrame, subsets: pd.Series) -> dict[str, dict[str, int]]:
    """Reason -> subset -> rows to which it applies, whatever else does."""
    counts = applies.groupby(subsets).sum().sort_index()
    return {reason: {str(subset): int(rows) for subset, rows in counts[reason].items()} for reason in REASONS}


if __name__ == "__main__":
    cli.run(main)
