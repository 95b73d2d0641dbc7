"""Bars: what is drawn is what the tables and the paper say, whatever arms a run has."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plot_bars
import pytest
from PIL import Image
from synthetic_tables import WORLDS, make_tables, rewrite
from w2s.errors import DataError
from w2s.published import published_item

PUBLISHED = Path(__file__).resolve().parents[2] / "published" / "values.csv"
ITEM = "a_figure_2a"


def plot(tables: Path, folder: Path, *more: str) -> tuple[pd.DataFrame, str]:
    """Run the script; what was drawn, and the caption inside the picture."""
    pdf, png, csv = (folder / f"bars.{suffix}" for suffix in ("pdf", "png", "csv"))
    arguments = [
        "--tables",
        tables,
        "--published",
        PUBLISHED,
        "--pdf",
        pdf,
        "--png",
        png,
        "--csv",
        csv,
        *more,
    ]
    plot_bars.main([str(argument) for argument in arguments])
    assert pdf.read_bytes().startswith(b"%PDF")
    with Image.open(png) as image:
        return pd.read_csv(csv), image.info["Description"]


def rows_of(tables: Path) -> list[plot_bars.Row]:
    item = published_item(PUBLISHED, tables)
    run = plot_bars.run_bars(tables, several=item["gold"].nunique() > 1)
    return plot_bars.panel_rows(plot_bars.published_bars(item), run)


def test_demo_draws_all_arms_beside_the_papers_bars(tmp_path):
    tables = make_tables(tmp_path, experiment=ITEM)
    drawn, caption = plot(tables, tmp_path)
    published, run = drawn[drawn["panel"] == "published"], drawn[drawn["panel"] == "this run"]
    assert len(published) == 8
    assert published["low"].isna().all()
    wanted = pd.read_csv(tables.parent / "rewards.csv").query("gold == 'exact'").set_index("arm")
    assert set(run["arm"]) == set(wanted.index)
    for row in run.itertuples():
        assert (row.mean, row.low, row.high) == tuple(wanted.loc[row.arm, ["mean", "low", "high"]])
    assert "HH-RLHF, OPT-125M teacher; no intervals" in caption
    assert "compare the order of bars, not their heights" in caption
    assert "3 seeds, 300 prompts" in caption
    assert "weak teacher: s" in caption


def test_same_students_stand_side_by_side_in_the_papers_order(tmp_path):
    students = ["opt-13b", "opt-1.3b", "opt-350m"]
    tables = make_tables(
        tmp_path, experiment=ITEM, students=students, feedbacks=("human", "weak-s"), sft=False
    )
    (row,) = rows_of(tables)
    assert row.shared
    assert row.left == ["OPT-1.3B", "OPT-2.7B", "OPT-6.7B", "OPT-13B"]
    assert row.right == [*row.left, "opt-350m"]
    _, caption = plot(tables, tmp_path)
    assert "own axes" not in caption


def test_panels_share_axes_only_for_the_same_students(tmp_path):
    same = make_tables(tmp_path / "same", experiment=ITEM, students=["opt-1.3b"])
    other = make_tables(tmp_path / "other", experiment=ITEM, students=["demo-k"])
    for tables, shared in ((same, True), (other, False)):
        figure, _ = plot_bars.draw(rows_of(tables))
        left, right = figure.axes
        assert (left.get_ylim() == right.get_ylim()) is shared
        assert left.get_ylabel() == "Mean gold reward (points)"


def test_bars_have_the_heights_of_the_table(tmp_path):
    rows = rows_of(make_tables(tmp_path, experiment=ITEM))
    figure, _ = plot_bars.draw(rows)
    heights = [patch.get_height() for patch in figure.axes[1].patches]
    dpo = rows[0].run[rows[0].run["step"] == "dpo"]
    assert heights == pytest.approx(list(dpo["mean"]))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["human labels", "weak labels", "gold labels", "SFT only", "un-tuned student"]


def test_data_sets_of_one_student_are_groups_in_the_experiment_s_order(tmp_path):
    tables = make_tables(tmp_path, experiment=ITEM, worlds=dict(reversed(WORLDS.items())))
    (row,) = rows_of(tables)
    assert row.right == ["world-t4", "world-t2", "world-t1", "world-t0.4"]
    assert plot_bars.group_axis(row) == "Data set (student k)"


def test_one_student_with_several_teachers_names_each_bar(tmp_path):
    feedbacks = ("human", "weak-s", "weak-m", "prompted-judge")
    tables = make_tables(tmp_path, experiment="a_figure_2b", feedbacks=feedbacks)
    (row,) = rows_of(tables)
    assert row.by_source
    assert row.left == [
        "human",
        "weak · OPT-125M",
        "weak · OPT-1.3B",
        "weak · Llama-3-8B",
        "prompted · GPT-4",
    ]
    assert row.right == ["human", "weak · s", "weak · m", "prompted · judge"]
    figure, _ = plot_bars.draw([row])
    dpo = row.run[row.run["step"] == "dpo"].drop_duplicates("arm")
    assert [patch.get_height() for patch in figure.axes[1].patches] == pytest.approx(list(dpo["mean"]))
    drawn, _ = plot(tables, tmp_path)
    # The un-tuned student stands behind each bar but was measured once.
    assert (drawn["arm"] == "untuned").sum() == 1


def test_each_judge_of_figure_5_has_a_row_of_panels(tmp_path):
    tables = make_tables(
        tmp_path, experiment="a_figure_5", golds=("rm-mistral-7b", "deberta-v3"), main_gold="rm-mistral-7b"
    )
    rows = rows_of(tables)
    assert [row.published["gold"].iloc[0].rpartition("/")[2] for row in rows] == [
        "reward-model-deberta-v3-large-v2",
        "RM-Mistral-7B",
    ]
    assert [row.run["gold"].iloc[0] for row in rows] == ["deberta-v3", "rm-mistral-7b"]
    figure, caption = plot_bars.draw(rows)
    assert len(figure.axes) == 4
    assert "judges: rm-mistral-7b, deberta-v3" in caption.replace(
        "deberta-v3, rm-mistral-7b", "rm-mistral-7b, deberta-v3"
    )


def test_a_judge_that_was_not_run_leaves_its_panel_empty(tmp_path):
    tables = make_tables(tmp_path, experiment="a_figure_5", golds=("exact",))
    figure, _ = plot_bars.draw(rows_of(tables))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "not run: this judge" in texts


def test_several_teachers_and_students_name_ours_and_the_papers(tmp_path):
    feedbacks = ("human", "weak-s", "weak-neo")
    tables = make_tables(
        tmp_path, experiment="a_table_10", students=["k", "m"], feedbacks=feedbacks, sft=False
    )
    figure, _ = plot_bars.draw(rows_of(tables))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "weak labels (from s; paper: OPT-125M)" in legend
    assert "weak labels (from neo; paper: GPT-Neo-125M)" in legend


def test_recipes_are_groups_with_the_untuned_student_in_each(tmp_path):
    tables = make_tables(tmp_path, experiment="a_table_11", recipes={"plain": 0.1, "plain-without-sft": 0.1})
    (row,) = rows_of(tables)
    assert row.left == ["OPT-1.3B · without SFT", "OPT-1.3B · with SFT"]
    assert row.right == ["plain", "plain-without-sft"]
    assert set(row.run.loc[row.run["arm"] == "untuned", "group"]) == set(row.right)


def test_an_experiment_that_the_paper_lacks_is_drawn_alone(tmp_path):
    tables = make_tables(tmp_path, experiment="my_own")
    drawn, caption = plot(tables, tmp_path)
    assert set(drawn["panel"]) == {"this run"}
    assert "prints no bars for this experiment" in caption


def test_one_seed_says_that_the_interval_covers_prompts_only(tmp_path):
    _, caption = plot(make_tables(tmp_path, experiment=ITEM, seeds=1), tmp_path)
    assert "1 seed, 300 prompts" in caption
    assert "prompts only (one seed)" in caption


@pytest.mark.parametrize(
    ("feedbacks", "missing"),
    [(("human",), "weak"), (("weak-s",), "human"), (("human", "weak-s", "weak-b"), None)],
)
def test_missing_and_further_arms(tmp_path, feedbacks, missing):
    drawn, caption = plot(make_tables(tmp_path, experiment=ITEM, feedbacks=feedbacks), tmp_path)
    assert set(drawn.loc[drawn["panel"] == "this run", "arm"]) >= set(feedbacks)
    assert ("This run has no arm with" in caption) is (missing is not None)
    assert missing is None or f"no arm with {missing} labels" in caption


def test_untuned_alone_is_drawn(tmp_path):
    drawn, _ = plot(make_tables(tmp_path, experiment=ITEM, feedbacks=()), tmp_path)
    assert list(drawn.loc[drawn["panel"] == "this run", "arm"]) == ["untuned"]


def test_a_repeated_arm_is_refused(tmp_path):
    tables = make_tables(tmp_path, experiment=ITEM)
    frame = pd.read_csv(tables.parent / "rewards.csv")
    rewrite(tables, "rewards.csv", pd.concat([frame, frame.iloc[[1]]]))
    with pytest.raises(DataError, match="'human-sft'.*twice"):
        plot(tables, tmp_path)


def test_an_item_that_the_paper_lacks_is_refused_where_it_is_asked_for(tmp_path):
    with pytest.raises(DataError, match="no value of a_figure_2z"):
        plot(make_tables(tmp_path), tmp_path, "--artifact", "a_figure_2z")
    assert not list(tmp_path.glob("bars.*"))
