"""Panels of a transfer and its ablation: marks stand where the tables say, teachers are the same in all panels."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plot_examples
import plot_panels
import pytest
from PIL import Image
from synthetic_transfer import BETTER, MEANS, STRONG, TEST, make_ablation, make_transfer
from w2s.errors import DataError
from w2s.transfer_published import Beside, pair_roles, released_arms
from w2s.transfer_results import read_transfer

HEADER = "id,paper,artifact,data,student,teacher,arm,setting,gold,metric,value,source,note"
BIG, SMALL = "Strong-2", "Strong-1"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Released scores: a student of one base whose labels two models refined, and another paper's value."""
    rows = ["x,A,b_persona,tinyTruthful,s,t,naive,,j,content,1.0,s,"]

    def add(student: str, teacher: str, arm: str, setting: str, content: float) -> None:
        for metric, value in (("content", content), ("style", 10 - content)):
            rows.append(
                f"r{len(rows)},B,b_persona,tinyTruthful,{student},{teacher},{arm},{setting},j,{metric},{value},s,"
            )

    for student, content in ((SMALL, 7.4), (BIG, 8.3)):
        add(student, "", "untuned", "", content)
    for teacher, content in (("Falcon-7B", 2.4), ("Llama-2", 3.6)):
        add("", teacher, "teacher", "", content)
        add(SMALL, teacher, "naive", "", content + 0.2)
        add(SMALL, teacher, "naive", "", content)
        for refiner, better in ((SMALL, 0.0), (BIG, 1.0)):
            add(SMALL, teacher, "icl", f"refiner={refiner}", 6.5 + better)
    path = tmp_path_factory.mktemp("published") / "values.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    return make_transfer(tmp_path_factory.mktemp("panels"), seeds=2, items=8)


def plot(script, folder: Path, *arguments) -> tuple[pd.DataFrame, str]:
    """Run a script; what was drawn, and the caption inside the picture."""
    folder.mkdir(exist_ok=True)
    outputs = [item for suffix in ("pdf", "png", "csv") for item in (f"--{suffix}", folder / f"x.{suffix}")]
    script.main([str(argument) for argument in (*arguments, *outputs)])
    with Image.open(folder / "x.png") as image:
        return pd.read_csv(folder / "x.csv", keep_default_na=False), image.info["Description"]


@pytest.fixture(scope="module")
def panels(tables, published, tmp_path_factory) -> tuple[pd.DataFrame, str]:
    return plot(plot_panels, tmp_path_factory.mktemp("drawn"), "--tables", tables, "--published", published)


def test_marks_stand_at_the_teachers_and_the_students_means(panels):
    drawn, caption = panels
    run = drawn[drawn["panel"] == "this run"]
    for weak, better in BETTER.items():
        for metric, place in (("content", 0), ("style", 1)):
            mark = run[(run["weak"] == weak) & (run["arm"] == "icl") & (run["metric"] == metric)]
            shift = better if metric == "content" else 0
            assert mark["x"].astype(float).item() == pytest.approx(MEANS["teacher"][place] + shift)
            assert mark["mean"].astype(float).item() == pytest.approx(MEANS["icl"][place])
            assert float(mark["x_low"].item()) < float(mark["x"].item()) < float(mark["x_high"].item())
    assert set(run["metric"]) == {"content", "style", "words"}
    assert set(run.loc[run["arm"].isin(["own", "gold", "untuned"]), "x"]) == {""}
    assert (
        "A falcon, B llama" in caption and "2 seeds, 8 questions" in caption and "without a judge" in caption
    )


def test_a_teacher_has_one_letter_in_all_panels(panels):
    drawn, _ = panels
    letters = drawn[drawn["letter"] != ""].groupby(["panel", "weak"])["letter"].unique()
    assert all(len(found) == 1 for found in letters)
    assert letters["this run", "llama"][0] == letters["released", "Llama-2"][0] == "B"


def test_released_scores_have_a_row_per_refiner_with_its_own_line(panels):
    drawn, caption = panels
    released = drawn[drawn["panel"] == "released"]
    assert set(released["student"]) == {SMALL}  # the other model refined only; it never learned
    assert set(released["refiner"]) == {SMALL, BIG}
    content = released[released["metric"] == "content"]
    assert sorted(content.loc[(content["arm"] == "icl") & (content["refiner"] == BIG), "mean"]) == [7.5, 7.5]
    line = content[content["arm"] == "untuned-refiner"]
    assert (line["refiner"].item(), line["mean"].item()) == (BIG, 8.3)
    assert "Released scores (means of the authors' files, judge j; no intervals)" in caption


def test_the_figure_draws_what_the_table_says(tables):
    run = plot_panels.run_points(tables, ("content",), (), None)
    figure, _ = plot_panels.draw(run.iloc[:0], run, ("content",))
    (axes,) = figure.axes
    heights = {round(value, 6) for line in axes.lines for value in line.get_ydata()}
    assert {MEANS["icl"][0], MEANS["naive"][0], MEANS["untuned"][0], MEANS["gold"][0]} <= heights
    assert {text.get_text() for text in axes.texts} == {"A", "B"}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[0] == "unaligned strong model" and "naive fine-tuning" in legend
    assert len(legend) == len(set(legend)) == 7


def test_equal_tables_give_equal_bytes(tables, tmp_path):
    nothing = tmp_path / "values.csv"
    nothing.write_text(HEADER + "\n", encoding="utf-8")
    for name in ("one", "two"):
        arguments = ["--tables", tables, "--published", nothing, "--metrics", "content"]
        plot(plot_panels, tmp_path / name, *arguments)
    for suffix in ("pdf", "png", "csv"):
        one, two = (tmp_path / name / f"x.{suffix}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), suffix


def test_judges_are_never_mixed(tmp_path):
    arms = pd.DataFrame({"metric": "content", "judge": ["j", "k", ""], "mean": [1.0, 2.0, 3.0]})
    with pytest.raises(DataError, match=r"several judges scored 'content': j, k, \(exact\)"):
        plot_panels.of_metric(arms, "content", None, "arms.csv")
    assert list(plot_panels.of_metric(arms, "content", "k", "arms.csv")["mean"]) == [2.0]


def test_nothing_to_draw_is_refused(tables):
    with pytest.raises(DataError, match="no scores on mars"):
        plot_panels.run_points(tables, ("content",), ("mars",), None)
    with pytest.raises(DataError, match="scored by correct"):
        plot_panels.run_points(tables, ("correct",), (), None)


def test_names_are_paired_by_their_parts_then_by_rank():
    assert pair_roles(["mmlu", "truthful_qa"], ["tinyTruthfulQA", "tinyAlpacaEval", "tinyMMLU"]) == {
        "mmlu": "tinyMMLU",
        "truthful_qa": "tinyTruthfulQA",
    }
    assert pair_roles(["world", "gsm8k"], ["MATH", "GSM8K"]) == {"gsm8k": "GSM8K", "world": "MATH"}


def test_a_released_value_is_found_by_role_and_refiner(tables, published):
    arms = read_transfer(tables, "arms.csv")
    beside = Beside(released_arms(published, "b_persona"), arms)
    own = {"data": TEST, "student": STRONG, "weak": "falcon", "metric": "content"}
    assert beside.value({**own, "refiner": STRONG, "arm": "icl-4"}) == 6.5
    assert beside.value({**own, "refiner": "", "arm": "naive"}) == pytest.approx(2.5)  # two runs, their mean
    assert beside.value({**own, "refiner": "", "arm": "gold"}) != beside.value(
        {**own, "refiner": "", "arm": "gold"}
    )
    assert "Falcon-7B for falcon" in beside.roles and f"{SMALL} for {STRONG}" in beside.roles


def test_the_ablation_is_drawn_over_the_examples(tmp_path):
    tables = make_ablation(tmp_path)
    drawn, caption = plot(plot_examples, tmp_path, "--tables", tables)
    content = drawn[drawn["metric"] == "content"].astype({"mean": float})
    tuned = content[content["arm"].str.startswith("icl")].sort_values("mean")
    assert list(tuned["shown"]) == ["1", "2", "4", "8"]
    assert list(tuned["mean"]) == pytest.approx([6.5, 7.0, 7.5, 8.0])
    timed = content[content["timed"] == "yes"].sort_values("mean")
    assert list(timed["mean"]) == pytest.approx([6.7, 7.2, 7.7, 8.2])
    assert content.loc[content["arm"] == "own", "shown"].item() == "0"
    assert "one seed" in caption and "open marks" in caption
    run = plot_examples.points(tables, ("content",), None)
    figure, _ = plot_examples.draw(run)
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1", "2", "4", "8"]
    styles = {line.get_linestyle() for line in axes.lines if len(line.get_xdata()) == 4}
    assert styles == {"-", "--"}


def test_an_ablation_needs_several_places_each_once(tmp_path):
    with pytest.raises(DataError, match="fewer than two numbers of examples"):
        plot_examples.points(make_ablation(tmp_path / "one", shown=(4,)), ("content",), None)
    with pytest.raises(DataError, match="repeats the place 1 of 'consecutive'"):
        plot_examples.points(make_ablation(tmp_path / "twice", again=True), ("content",), None)
