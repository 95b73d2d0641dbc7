"""What the stages that judge responses share: their command lines and the texts that they judge. Light at import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s import cli
from w2s.artifact import load
from w2s.tables import check_unique, read_parquet

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

PRECISIONS = ("float32", "bfloat16", "float16")


def add_identity(parser: cli.StageParser) -> None:
    """Add the settings that say whose responses are judged; the tables read them from the manifest."""
    parser.spec("--run", help="the model that answered: models/..., teachers/... or students/...")
    parser.spec("--data", help="data set of the cell")
    parser.spec("--share", help="labelled share of the cell")
    parser.spec("--seed", type=int, help="seed of the cell")


def add_reward_model(parser: cli.StageParser) -> None:
    """Add the settings of scoring with a reward model (:func:`w2s.rewards.judge`)."""
    parser.spec("--fallback-template", choices=["plain", "pair", "none"], default="none")
    add_model(parser)


def add_model(parser: cli.StageParser) -> None:
    """Add the settings of every model that reads texts in batches."""
    parser.spec("--precision", choices=PRECISIONS, default="float32")
    parser.option(
        "--batch-tokens", type=cli.positive_int, default=8192, help="tokens per batch, padding included"
    )
    parser.option("--device", default="auto", help="auto takes the GPU if there is one")


def read_generations(manifest: Path) -> pd.DataFrame:
    """The responses of a ``generate`` artifact: id, prompt, response and more; ids checked to be unique."""
    path = load(manifest).path("generations.parquet")
    generations = read_parquet(path, ["id", "prompt", "response"])
    check_unique(generations["id"], path)
    return generations


def both_responses(examples: pd.DataFrame) -> pd.DataFrame:
    """The data set's two responses to each prompt, one row each: id, prompt, response (0 or 1), text; by id, response."""
    import pandas as pd

    sides = [
        examples[["id", "prompt"]].assign(response=number, text=examples[f"response_{number}"])
        for number in (0, 1)
    ]
    return pd.concat(sides).astype({"response": "int8"}).sort_values(["id", "response"], ignore_index=True)
