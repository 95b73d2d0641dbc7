"""Figure 2a: what is drawn is what the tables and the paper say, whatever arms a run has."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plot_figure_2a
import pytest
from PIL import Image
from synthetic_tables import WORLDS, make_tables, rewrite
from w2s.errors import DataError

PUBLISHED = Path(__file__).resolve().parents[2] / "published" / "values.csv"


def plot(tables: Path, folder: Path, published: Path = PUBLISHED) -> tuple[pd.DataFrame, str]:
    """Run the script; what was drawn, and the caption inside the picture."""
    pdf, png, csv = (folder / f"a_figure_2a.{suffix}" for suffix in ("pdf", "png", "csv"))
    arguments = ["--tables", tables, "--published", published, "--pdf", pdf, "--png", png, "--csv", csv]
    plot_figure_2a.main([str(argument) for argument in arguments])
    assert pdf.read_bytes().startswith(b"%PDF")
    with Image.open(png) as image:
        return pd.read_csv(csv), image.info["Description"]


def test_demo_draws_all_arms_beside_the_papers_bars(tmp_path):
    tables = make_tables(tmp_path)
    drawn, caption = plot(tables, tmp_path)
    published, run = drawn[drawn["panel"] == "published"], drawn[drawn["panel"] == "this run"]
    assert len(published) == 8
    assert published["low"].isna().all()
    wanted = pd.read_csv(tables.parent / "rewards.csv").query("gold == 'exact'").set_index("arm")
    assert set(run["arm"]) == set(wanted.index)
    for row in run.itertuples():
        assert (row.mean, row.low, row.high) == tuple(wanted.loc[row.arm, ["mean", "low", "high"]])
    assert "compare the order of bars, not their heights" in caption
    assert "3 seeds, 300 prompts" in caption
    assert "weak teacher: s" in caption


def test_same_students_stand_side_by_side_in_the_papers_order(tmp_path):
    students = ["opt-13b", "opt-1.3b", "opt-350m"]
    tables = make_tables(tmp_path, students=students, feedbacks=("human", "weak-s"), sft=False)
    left, run = plot_figure_2a.published_bars(PUBLISHED), plot_figure_2a.run_bars(tables)
    paper, ours, shared = plot_figure_2a.groups_of(left, run)
    assert shared
    assert paper == ["OPT-1.3B", "OPT-2.7B", "OPT-6.7B", "OPT-13B"]
    assert ours == [*paper, "opt-350m"]
    _, caption = plot(tables, tmp_path)
    assert "own axes" not in caption


def test_panels_share_axes_only_for_the_same_students(tmp_path):
    same = make_tables(tmp_path / "same", students=["opt-1.3b"])
    other = make_tables(tmp_path / "other", students=["demo-k"])
    for tables, shared in ((same, True), (other, False)):
        bars = plot_figure_2a.published_bars(PUBLISHED)
        figure, _ = plot_figure_2a.draw(bars, plot_figure_2a.run_bars(tables))
        left, right = figure.axes
        assert (left.get_ylim() == right.get_ylim()) is shared
        assert left.get_ylabel() == "Mean gold reward (points)"


def test_bars_have_the_heights_of_the_table(tmp_path):
    tables = make_tables(tmp_path)
    run = plot_figure_2a.run_bars(tables)
    figure, _ = plot_figure_2a.draw(plot_figure_2a.published_bars(PUBLISHED), run)
    heights = [patch.get_height() for patch in figure.axes[1].patches]
    dpo = run[run["step"] == "dpo"]
    assert heights == pytest.approx(list(dpo["mean"]))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["human labels", "weak labels", "gold labels", "SFT only", "un-tuned student"]


def test_data_sets_of_one_student_are_groups_in_natural_order(tmp_path):
    tables = make_tables(tmp_path, worlds=dict(reversed(WORLDS.items())))
    _, groups, _ = plot_figure_2a.groups_of(
        plot_figure_2a.published_bars(PUBLISHED), run := plot_figure_2a.run_bars(tables)
    )
    assert groups == ["world-t0.4", "world-t1", "world-t2", "world-t4"]
    assert plot_figure_2a.group_axis(run) == "Data set (student k)"


def test_one_seed_says_that_the_interval_covers_prompts_only(tmp_path):
    _, caption = plot(make_tables(tmp_path, seeds=1), tmp_path)
    assert "1 seed, 300 prompts" in caption
    assert "prompts only (one seed)" in caption


@pytest.mark.parametrize(
    ("feedbacks", "missing"),
    [(("human",), "weak"), (("weak-s",), "human"), (("human", "weak-s", "weak-b"), None)],
)
def test_missing_and_further_arms(tmp_path, feedbacks, missing):
    import synthetic_tables

    if "weak-b" in feedbacks:
        tables = make_tables(tmp_path, feedbacks=("human", "weak-s"))
        frame = pd.read_csv(tables.parent / "rewards.csv")
        more = frame[frame["feedback"] == "weak-s"].replace({"weak-s": "weak-b", "weak-s-sft": "weak-b-sft"})
        synthetic_tables.rewrite(tables, "rewards.csv", pd.concat([frame, more]))
    else:
        tables = make_tables(tmp_path, feedbacks=feedbacks)
    drawn, caption = plot(tables, tmp_path)
    assert set(drawn.loc[drawn["panel"] == "this run", "arm"]) >= set(feedbacks)
    assert ("This run has no arm with" in caption) is (missing is not None)
    assert missing is None or f"no arm with {missing} labels" in caption


def test_untuned_alone_is_drawn(tmp_path):
    tables = make_tables(tmp_path, feedbacks=())
    drawn, _ = plot(tables, tmp_path)
    assert list(drawn.loc[drawn["panel"] == "this run", "arm"]) == ["untuned"]


def test_a_repeated_arm_is_refused(tmp_path):
    tables = make_tables(tmp_path)
    frame = pd.read_csv(tables.parent / "rewards.csv")
    rewrite(tables, "rewards.csv", pd.concat([frame, frame.iloc[[1]]]))
    with pytest.raises(DataError, match="'human-sft'.*twice"):
        plot(tables, tmp_path)


def test_published_values_without_the_figure_are_refused(tmp_path):
    frame = pd.read_csv(PUBLISHED)
    path = tmp_path / "values.csv"
    frame[frame["artifact"] != "a_figure_2a"].to_csv(path, index=False)
    with pytest.raises(DataError, match="no value of a_figure_2a"):
        plot(make_tables(tmp_path), tmp_path, path)
    assert not list(tmp_path.glob("a_figure_2a.*"))
