"""Rows in = rows kept + rows dropped."""

from __future__ import annotations

import pandas as pd
import pytest
from w2s.drops import balance, drop_table
from w2s.errors import DataError

DROPPED = [("x", "long"), ("x", "long"), ("y", "equal")]


def test_all_subsets_and_reasons_are_listed_in_order() -> None:
    table = drop_table(DROPPED, ["x", "y"], ["long", "equal"])
    assert table.to_numpy().tolist() == [
        ["x", "long", 2],
        ["x", "equal", 0],
        ["y", "long", 0],
        ["y", "equal", 1],
    ]


def test_an_undeclared_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="undeclared"):
        drop_table([("x", "other")], ["x"], ["long"])


def test_facts_of_a_balanced_stage() -> None:
    facts = balance(
        5, pd.Series(["x", "y"]), drop_table(DROPPED, ["x", "y"], ["long", "equal"]), {"y": 2, "x": 3}
    )
    assert facts == {
        "rows_in": 5,
        "rows_kept": 2,
        "rows_dropped": {"long": 2, "equal": 1},
        "rows_in_by_subset": {"x": 3, "y": 2},
        "rows_kept_by_subset": {"x": 1, "y": 1},
    }


def test_lost_rows_are_noticed_in_all_and_by_subset() -> None:
    drops = drop_table(DROPPED, ["x", "y"], ["long", "equal"])
    with pytest.raises(DataError, match="6 rows in, but 5"):
        balance(6, pd.Series(["x", "y"]), drops, {"x": 3, "y": 2})
    with pytest.raises(DataError, match="(?s)2 rows in, but 3.*subset x"):
        balance(5, pd.Series(["x", "y"]), drops, {"x": 2, "y": 3})
