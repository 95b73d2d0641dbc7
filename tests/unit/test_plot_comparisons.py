"""Comparisons: stacked shares that add up, the interval where it belongs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plot_comparisons
import pytest
from PIL import Image
from synthetic_tables import comparisons_table, make_tables
from w2s.errors import DataError
from w2s.published import published_item

PUBLISHED = Path(__file__).resolve().parents[2] / "published" / "values.csv"


def make(folder: Path, table: pd.DataFrame, experiment: str = "a_figure_3b") -> Path:
    return make_tables(folder, experiment=experiment, more={"comparisons.csv": table})


def bars(tables: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    item = published_item(PUBLISHED, tables)
    return plot_comparisons.published_bars(item), plot_comparisons.run_bars(tables)


def test_the_script_draws_the_papers_students_and_ours(tmp_path):
    tables = make(tmp_path, comparisons_table())
    pdf, png, csv = (tmp_path / f"x.{suffix}" for suffix in ("pdf", "png", "csv"))
    arguments = ["--tables", tables, "--published", PUBLISHED, "--pdf", pdf, "--png", png, "--csv", csv]
    plot_comparisons.main([str(argument) for argument in arguments])
    drawn = pd.read_csv(csv)
    published = drawn[drawn["panel"] == "published"].set_index("student")
    assert len(published) == 5
    assert tuple(published.loc["Mistral-7B", ["win", "tie", "lose", "score"]]) == (0.57, 0.02, 0.41, 0.58)
    assert published["low"].isna().all()
    assert list(drawn.loc[drawn["panel"] == "this run", "group"]) == ["k", "m", "n"]
    with Image.open(png) as image:
        caption = image.info["Description"]
    assert "shown first won in 52 %" in caption and "at most 1.0 %" in caption


def test_bars_fill_the_whole_and_marks_stand_at_the_scores(tmp_path):
    published, run = bars(make(tmp_path, comparisons_table()))
    figure, _ = plot_comparisons.draw(published, run)
    axes = figure.axes[1]
    widths = [patch.get_width() for patch in axes.patches]
    assert [sum(widths[place : place + 3]) for place in range(0, 9, 3)] == pytest.approx([100.0] * 3)
    circles = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in circles] == pytest.approx(list(100 * run["score"]))
    diamonds = [line for line in axes.lines if line.get_marker() == "D"]
    assert len(diamonds) == run["length_controlled"].notna().sum() == 2


def test_several_arms_and_judges_are_told(tmp_path):
    table = comparisons_table(students=("k",))
    table = pd.concat([table, table.assign(arm="weak-b"), table.assign(judge="other")], ignore_index=True)
    _, run = bars(make(tmp_path, table, "my_own"))
    assert list(run["group"]) == [
        "weak (from s) · judge",
        "weak (from b) · judge",
        "weak (from s) · other",
    ]


def test_shares_that_do_not_add_up_are_refused(tmp_path):
    table = comparisons_table()
    table.loc[1, "tie"] = 0.2
    with pytest.raises(DataError, match=r"add up to 1\.17") as raised:
        bars(make(tmp_path, table))
    assert "row 3" in str(raised.value)


def test_no_comparison_is_refused(tmp_path):
    with pytest.raises(DataError, match="no rows"):
        bars(make(tmp_path, comparisons_table().iloc[:0]))
