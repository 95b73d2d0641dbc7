"""Similarity: points joined by prompt and seed, the fit of the table, refusals of what does not match."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import plot_similarity
import pytest
from synthetic_tables import make_tables, similarity_tables
from w2s.errors import DataError
from w2s.published import published_item

PUBLISHED = Path(__file__).resolve().parents[2] / "published" / "values.csv"


def make(folder: Path, tables: dict[str, pd.DataFrame], experiment: str = "a_figure_6") -> Path:
    return make_tables(folder, experiment=experiment, more=tables)


def test_two_panels_with_fit_and_the_papers_value(tmp_path):
    tables = make(tmp_path, similarity_tables())
    pdf, png, csv = (tmp_path / f"x.{suffix}" for suffix in ("pdf", "png", "csv"))
    arguments = ["--tables", tables, "--published", PUBLISHED, "--pdf", pdf, "--png", png, "--csv", csv]
    plot_similarity.main([str(argument) for argument in arguments])
    drawn = pd.read_csv(csv)
    assert len(drawn) == 400 and set(drawn["right"]) == {"human", "teacher"}
    panels, points = plot_similarity.read_panels(tables)
    for row, mine in zip(panels.itertuples(), points, strict=True):
        assert np.corrcoef(mine["x"], mine["y"])[0, 1] ** 2 == pytest.approx(row.r2)
    figure, _ = plot_similarity.draw(panels, points, published_item(PUBLISHED, tables))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert ["paper: 0.58" in texts[0], "paper: 0.49" in texts[1]] == [True, True]
    low, high = figure.axes[0].lines[2].get_xdata()
    ends = figure.axes[0].lines[2].get_ydata()
    first = panels.iloc[0]
    assert list(ends) == pytest.approx([first["intercept"] + first["slope"] * end for end in (low, high)])


def test_an_experiment_of_ones_own_has_no_printed_value(tmp_path):
    tables = make(tmp_path, similarity_tables(), "my_own")
    panels, points = plot_similarity.read_panels(tables)
    figure, note = plot_similarity.draw(panels, points, published_item(PUBLISHED, tables))
    assert all("paper" not in text.get_text() for axes in figure.axes for text in axes.texts)
    assert "BLEURT" not in note


def test_arms_on_different_prompts_are_refused(tmp_path):
    tables = similarity_tables()
    tables["similarity_points.csv"] = tables["similarity_points.csv"].iloc[1:]
    with pytest.raises(DataError, match="1 points of .* have no partner, first: seed 1, id p000"):
        plot_similarity.read_panels(make(tmp_path, tables))


def test_a_repeated_point_is_refused(tmp_path):
    tables = similarity_tables()
    points = tables["similarity_points.csv"]
    tables["similarity_points.csv"] = pd.concat([points, points.iloc[[5]]])
    with pytest.raises(DataError, match="two points of seed 1, id p005"):
        plot_similarity.read_panels(make(tmp_path, tables))


def test_a_missing_arm_is_refused(tmp_path):
    tables = similarity_tables()
    points = tables["similarity_points.csv"]
    tables["similarity_points.csv"] = points[points["arm"] != "teacher"]
    with pytest.raises(DataError, match="'teacher' .* has no points"):
        plot_similarity.read_panels(make(tmp_path, tables))


@pytest.mark.parametrize("column", ["encoder", "share"])
def test_points_of_several_encoders_cannot_be_told_apart(tmp_path, column):
    tables = similarity_tables()
    tables["similarity.csv"].loc[1, column] = "other"
    with pytest.raises(DataError, match=f"several values of {column}"):
        plot_similarity.read_panels(make(tmp_path, tables))


def test_students_before_dpo_have_no_panel(tmp_path):
    tables = similarity_tables()
    table = tables["similarity.csv"]
    early = [table.assign(left=arm) for arm in ("weak-s-sft", "untuned")]
    tables["similarity.csv"] = pd.concat([*early, table], ignore_index=True)
    panels, points = plot_similarity.read_panels(make(tmp_path, tables))
    assert list(panels["left"]) == ["weak-s", "weak-s"] and len(points) == 2
    tables["similarity.csv"] = early[1]
    with pytest.raises(DataError, match="no student after DPO"):
        plot_similarity.read_panels(make(tmp_path / "none", tables))
