"""The figure of dropped rows: all rows accounted for, also when none was dropped."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plot_drops
import pytest
from PIL import Image
from remade import remade
from synthetic_tables import make_filtered
from w2s.errors import DataError

DROPS = [
    ("helpful", "too_long", 20),
    ("helpful", "empty_response", 1),
    ("harmless", "too_long", 5),
    ("harmless", "empty_response", 0),
]


def plot(filtered: Path, folder: Path) -> tuple[pd.DataFrame, str]:
    pdf, png, csv = (folder / f"drops.{suffix}" for suffix in ("pdf", "png", "csv"))
    plot_drops.main(["--filtered", str(filtered), "--pdf", str(pdf), "--png", str(png), "--csv", str(csv)])
    assert pdf.read_bytes().startswith(b"%PDF")
    with Image.open(png) as image:
        return pd.read_csv(csv), image.info["Description"]


def test_rows_and_shares_by_reason_and_subset(tmp_path):
    filtered = make_filtered(tmp_path / "hh", DROPS, {"helpful": 79, "harmless": 95})
    drawn, caption = plot(filtered, tmp_path)
    cells = drawn.set_index(["subset", "reason"])
    assert cells.loc[("helpful", "too_long"), "percent"] == 20.0
    assert cells.loc[("all", "too_long"), "rows"] == 25
    assert cells.loc[("all", "kept"), "rows"] == 174
    assert (drawn.groupby("subset")["rows"].sum() == [200, 100, 100]).all()
    assert "200 rows in, 174 kept, 26 dropped: 25 too long, 1 empty response" in caption


def test_nothing_dropped_is_said(tmp_path):
    filtered = make_filtered(tmp_path / "world", [("world", "too_long", 0)], {"world": 40})
    drawn, caption = plot(filtered, tmp_path)
    assert list(drawn["reason"]) == ["too_long", "kept"]
    assert caption.endswith("Nothing was dropped: 40 rows in, 40 kept.")


def test_rows_that_do_not_add_up_are_refused(tmp_path):
    filtered = make_filtered(tmp_path / "hh", DROPS, {"helpful": 79, "harmless": 95})
    path = filtered.with_name("drops.csv")
    path.write_text(path.read_text().replace("too_long,20", "too_long,19"))
    remade(filtered)
    with pytest.raises(DataError, match="200 rows in, but 199"):
        plot(filtered, tmp_path)
