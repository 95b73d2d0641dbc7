"""Scores of items from a judge's repeated ratings (paper B).

An item's score is the mean over its valid samples. The paper counts a sample as valid if it has as many bracketed
values as the median sample. Ours are valid if they are in the template's form, which fixes that number and the scales
(:func:`w2s.judge_prompts.parse_ratings`): the median rule then has nothing left to decide, and no sample that names too
few values can outvote the others.
"""

from __future__ import annotations

import pandas as pd

from w2s.errors import DataError, JoinError


def item_scores(ratings: pd.DataFrame) -> pd.DataFrame:
    """Mean ratings of each item.

    Args:
        ratings: id, sample, first, second; NaN where a sample is not valid, second NaN throughout where the template
            has one rating.

    Returns:
        id, first, second (means), samples (number of valid ones), sorted by id; one row for *each* id: an item
        without a valid sample has NaN and samples 0. See :func:`missing`.

    Raises:
        JoinError: an (id, sample) occurs twice: the mean would count it twice.
        DataError: of the valid samples some have a second rating and some have none.
    """
    twice = ratings[ratings.duplicated(["id", "sample"])]
    if len(twice):
        row = twice.iloc[0]
        raise JoinError(f"{len(twice)} samples occur twice, first: id {row['id']}, sample {row['sample']}")
    valid = ratings[ratings["first"].notna()]
    single = valid["second"].isna()
    if single.any() and not single.all():
        raise DataError(
            f"{int(single.sum())} of {len(valid)} samples have one rating, the others two",
            where=f"id {valid.loc[single, 'id'].iloc[0]}",
            instead="ratings of one template",
        )
    stray = ratings["first"].isna() & ratings["second"].notna()
    if stray.any():
        raise DataError(
            "a sample has the second rating alone", where=f"id {ratings.loc[stray, 'id'].iloc[0]}"
        )
    found = ratings.groupby("id").agg(
        first=("first", "mean"), second=("second", "mean"), samples=("first", "count")
    )
    return found.reset_index()


def missing(scores: pd.DataFrame) -> list[str]:
    """Ids of the items without a valid sample, for the count of what is left out."""
    return scores.loc[scores["samples"] == 0, "id"].tolist()
