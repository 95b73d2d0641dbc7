"""Lines: places on the axis, refusals where there is no one axis, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plot_lines
import pytest
from PIL import Image
from synthetic_tables import make_tables
from w2s.errors import DataError
from w2s.published import published_item

PUBLISHED = Path(__file__).resolve().parents[2] / "published" / "values.csv"
SHARES = ("1-of-16", "1-of-8", "1-of-4", "1-of-2")
BETAS = {f"beta-{beta}": beta for beta in (0.05, 0.1, 0.5)}


def plot(tables: Path, folder: Path) -> tuple[pd.DataFrame, str]:
    """Run the script; what was drawn, and the caption inside the picture."""
    folder.mkdir(exist_ok=True)
    pdf, png, csv = (folder / f"lines.{suffix}" for suffix in ("pdf", "png", "csv"))
    arguments = ["--tables", tables, "--published", PUBLISHED, "--pdf", pdf, "--png", png, "--csv", csv]
    plot_lines.main([str(argument) for argument in arguments])
    with Image.open(png) as image:
        return pd.read_csv(csv), image.info["Description"]


def test_shares_are_the_axis_of_figure_4b(tmp_path):
    tables = make_tables(tmp_path, experiment="a_figure_4b", shares=SHARES, feedbacks=("human", "weak-s"))
    drawn, caption = plot(tables, tmp_path)
    assert set(drawn["over"]) == {"share"}
    published, run = drawn[drawn["panel"] == "published"], drawn[drawn["panel"] == "this run"]
    assert len(published) == 8 and set(published["x"]) == {1 / 16, 1 / 8, 1 / 4, 1 / 2}
    rewards = pd.read_csv(tables.parent / "rewards.csv").query("gold == 'exact'")
    assert sorted(run["mean"]) == sorted(rewards["mean"])
    assert "fewer pairs" in caption and "student OPT-1.3B" in caption


def test_betas_are_the_axis_of_figure_7(tmp_path):
    tables = make_tables(
        tmp_path, experiment="a_figure_7", recipes=BETAS, feedbacks=("human", "weak-s"), sft=False
    )
    run = plot_lines.run_points(tables)
    assert set(run["over"]) == {"beta"}
    assert sorted(run.loc[run["arm"] == "untuned", "x"]) == [0.05, 0.1, 0.5]
    published = plot_lines.published_points(published_item(PUBLISHED, tables), "beta")
    assert len(published) == 10
    figure, _ = plot_lines.draw(published, run)
    for axes in figure.axes:
        assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == ["0.05", "0.1", "0.5"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["human labels", "weak labels", "un-tuned student"]


def test_lines_go_through_the_means(tmp_path):
    tables = make_tables(tmp_path, experiment="x", recipes=BETAS, feedbacks=("human",), sft=False)
    run = plot_lines.run_points(tables)
    figure, _ = plot_lines.draw(plot_lines.published_points(published_item(PUBLISHED, tables), "beta"), run)
    (axes,) = figure.axes
    wanted = list(run[run["arm"] == "human"].sort_values("x")["mean"])
    assert wanted in [list(line.get_ydata()) for line in axes.lines]


def test_each_student_has_a_panel(tmp_path):
    tables = make_tables(tmp_path, experiment="a_figure_4b", shares=SHARES, students=["k", "m"])
    run = plot_lines.run_points(tables)
    figure, _ = plot_lines.draw(plot_lines.published_points(published_item(PUBLISHED, tables), "share"), run)
    assert [axes.get_title() for axes in figure.axes] == [
        "Published",
        "This run: k on world-t2",
        "This run: m on world-t2",
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({}, "neither"), ({"shares": SHARES, "recipes": BETAS}, "both")],
)
def test_no_axis_or_two_are_refused(tmp_path, settings, words):
    with pytest.raises(DataError, match=words):
        plot_lines.run_points(make_tables(tmp_path, **settings))


def test_recipes_of_one_beta_beside_shares_are_refused(tmp_path):
    tables = make_tables(tmp_path, shares=SHARES, recipes={"plain": 0.1, "plain-without-sft": 0.1})
    with pytest.raises(DataError, match="occurs twice at share"):
        plot_lines.run_points(tables)


def test_one_seed_says_so(tmp_path):
    _, caption = plot(make_tables(tmp_path, shares=SHARES, seeds=1), tmp_path)
    assert "prompts only (one seed)" in caption


def test_equal_tables_give_equal_bytes(tmp_path):
    tables = make_tables(tmp_path, experiment="a_figure_7", recipes=BETAS)
    for name in ("one", "two"):
        plot(tables, tmp_path / name)
    for suffix in ("pdf", "png", "csv"):
        one, two = (tmp_path / name / f"lines.{suffix}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), suffix
