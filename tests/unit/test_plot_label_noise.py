"""The label-noise figure: the right rows, their intervals, and refusals that say what is missing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plot_label_noise
import pytest
from PIL import Image
from synthetic_tables import WORLDS, make_tables, rewrite
from w2s.errors import DataError


def plot(tables: Path, folder: Path) -> tuple[pd.DataFrame, str]:
    pdf, png, csv = (folder / f"label_noise.{suffix}" for suffix in ("pdf", "png", "csv"))
    plot_label_noise.main(["--tables", str(tables), "--pdf", str(pdf), "--png", str(png), "--csv", str(csv)])
    assert pdf.read_bytes().startswith(b"%PDF")
    with Image.open(png) as image:
        return pd.read_csv(csv), image.info["Description"]


def test_each_world_is_a_point_from_noisy_to_clean(tmp_path):
    tables = make_tables(tmp_path, worlds=WORLDS)
    drawn, caption = plot(tables, tmp_path)
    assert list(drawn["data"]) == ["world-t4", "world-t2", "world-t1", "world-t0.4"]
    assert list(drawn["human_agreement"]) == [0.61, 0.71, 0.80, 0.91]
    assert list(drawn["weak_agreement"]) == [0.80, 0.83, 0.84, 0.85]
    wanted = pd.read_csv(tables.parent / "differences.csv")
    wanted = wanted.query("arm == 'weak-s' and baseline == 'human' and gold == 'exact'").set_index("data")
    assert list(drawn["difference"]) == list(wanted.loc[drawn["data"], "difference"])
    assert caption.startswith(
        "Weak minus human feedback against human label noise. 3 seeds, 300 prompts per point"
    )
    assert "dots: single seeds" in caption


def test_both_panels_show_what_the_table_says(tmp_path):
    points = plot_label_noise.read_points(make_tables(tmp_path, worlds=WORLDS))
    figure, _ = plot_label_noise.draw(points)
    left, right = figure.axes
    low, high = left.get_ylim()
    assert low < min(points["low"].min(), 0) < max(points["high"].max(), 0) < high
    names = [text.get_text() for text in right.get_legend().get_texts()]
    assert names == ["weak labels", "human labels"]
    drawn = {tuple(round(float(value), 1) for value in line.get_ydata()) for line in right.lines}
    assert (61.0, 71.0, 80.0, 91.0) in drawn
    assert (80.0, 83.0, 84.0, 85.0) in drawn


def test_one_seed_says_so_and_draws_no_seed_dots(tmp_path):
    tables = make_tables(tmp_path, worlds=WORLDS, seeds=1)
    _, caption = plot(tables, tmp_path)
    assert "1 seed, 300 prompts" in caption
    assert "prompts only" in caption
    assert "dots" not in caption


def test_two_students_are_two_series(tmp_path):
    points = plot_label_noise.read_points(make_tables(tmp_path, worlds=WORLDS, students=("k", "l")))
    figure, _ = plot_label_noise.draw(points)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["student k", "student l"]


def test_weak_accuracy_may_be_unknown(tmp_path):
    tables = make_tables(tmp_path, worlds=WORLDS)
    labels = pd.read_csv(tables.parent / "labels.csv")
    rewrite(tables, "labels.csv", labels[labels["feedback"] != "weak-s"])
    drawn, _ = plot(tables, tmp_path)
    assert drawn["weak_agreement"].isna().all()
    assert len(drawn) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"feedbacks": ("human", "gold")}, "no difference of a weak and a human arm"),
        ({"feedbacks": ("weak-s", "gold")}, "no difference of a weak and a human arm"),
        ({"exact_labels": False}, "no data set has labels by which human noise"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_written(tmp_path, settings, message):
    tables = make_tables(tmp_path / "run", **settings)
    with pytest.raises(DataError, match=message):
        plot(tables, tmp_path)
    assert not list(tmp_path.glob("label_noise.*"))
