"""Tables of a transfer: known means come out, pairs are pairs, and what is missing is counted and never mixed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from synthetic_transfer import (
    BETTER,
    MEANS,
    REFINEMENTS,
    STRONG,
    TEST,
    TRAIN,
    names,
    scores,
    tabulate,
    write_all,
    write_records,
    write_scores,
)
from w2s import transfer
from w2s.artifact import load
from w2s.errors import ConfigError, DataError, JoinError
from w2s.statistics import Bootstrap
from w2s.transfer_results import TABLES, read_transfer
from w2s.transfer_runs import AnswersName, RecordsName

ASKED = transfer.Transfer("b_persona", TRAIN, REFINEMENTS, "naive")
CELL = ("persona", TEST, 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Tables of a whole transfer with two seeds, and of its training sets."""
    root = tmp_path_factory.mktemp("transfer")
    sets = [
        write_records(root, RecordsName("persona", seed, "falcon", STRONG, "icl"), 18, dropped)
        for seed, dropped in enumerate([{"empty": 2}, {"cut off": 1, "empty": 1}])
    ]
    return tabulate(root, write_all(root, seeds=2, items=10), records=sets)


def line(table: pd.DataFrame, **wanted) -> pd.Series:
    """The only row with these cells."""
    for name, value in wanted.items():
        table = table[table[name] == value]
    assert len(table) == 1, f"{len(table)} rows"
    return table.iloc[0]


def frame(arm: str, weak: str = "", metric: str = "content", judge: str = "", ids=("a", "b", "c"), **more):
    """Measurements of one arm, one per id and seed."""
    seeds = more.pop("seeds", (0, 1))
    rows = [(seed, name, 1.0) for seed in seeds for name in ids]
    own = {
        "data": TEST,
        "student": STRONG,
        "arm": arm,
        "recipe": "d",
        "weak": weak,
        "refiner": "",
        "metric": metric,
    }
    return pd.DataFrame(rows, columns=["seed", "id", "value"]).assign(**(own | more), judge=judge)


def test_every_arm_has_its_mean_and_interval(made):
    arms = read_transfer(made, "arms.csv")
    for arm, (content, style) in MEANS.items():
        for weak in BETTER if arm not in ("untuned", "own", "gold") else ("",):
            shift = BETTER.get(weak, 0) if arm in ("teacher", "naive") else 0
            for metric, mean in (("content", content + shift), ("style", style)):
                row = line(arms, arm=arm, weak=weak, metric=metric)
                assert row["mean"] == pytest.approx(mean)
                assert row["low"] < mean < row["high"]
                assert (row["seeds"], row["items"], row["missing"], row["left_out"]) == (2, 10, 0, 0)
    icl = line(arms, arm="icl", weak="llama", metric="style")
    assert (icl["student"], icl["refiner"], icl["recipe"], icl["shown"]) == (STRONG, STRONG, "default", 4)
    assert (icl["kind"], icl["choice"], icl["timed"]) == ("icl", "consecutive", "no")
    assert line(arms, arm="timed", weak="llama", metric="style")["timed"] == "yes"
    assert line(arms, arm="teacher", weak="llama", metric="style")["student"] == ""


def test_differences_are_paired_within_student_and_teacher(made):
    found = read_transfer(made, "differences.csv")
    content = found[found["metric"] == "content"]
    for weak, better in BETTER.items():
        for arm in ("icl", "infer", "own", "gold", "timed"):
            row = line(content, arm=arm, weak=weak, baseline="naive")
            assert row["difference"] == pytest.approx(MEANS[arm][0] - MEANS["naive"][0] - better)
            assert [float(part) for part in row["seed_differences"].split(";")] == pytest.approx(
                [row["difference"]] * 2
            )
        row = line(content, arm="naive", weak=weak, baseline="teacher")
        assert row["difference"] == pytest.approx(0.2)
    assert line(content, arm="own", baseline="untuned")["weak"] == ""
    assert line(content, arm="icl", weak="falcon", baseline="untuned")["difference"] == pytest.approx(-0.5)
    assert "naive" not in set(content.loc[content["arm"] == "naive", "baseline"])


def test_the_recovered_gap_has_both_ceilings_and_is_undefined_without_a_gap(made):
    found = read_transfer(made, "recovered.csv")
    content = line(found, arm="icl", weak="falcon", metric="content", ceiling="gold")
    assert content["recovered"] == pytest.approx(4.5 / 5.5)
    assert content["gap"] == pytest.approx(5.5)
    content = line(found, arm="icl", weak="falcon", metric="content", ceiling="untuned")
    assert content["recovered"] == pytest.approx(4.5 / 5.0)
    style = line(found, arm="icl", weak="falcon", metric="style", ceiling="untuned")
    assert np.isnan(style["recovered"]) and np.isnan(style["low"]) and style["gap"] == pytest.approx(-5)
    assert set(found["metric"]) == {"content", "style"}  # more words are not better


def test_the_interval_of_a_recovered_gap_is_that_of_the_ratio():
    """Against the spread of the ratio over fresh draws of the questions."""
    generator = np.random.default_rng(1)
    deviations = []
    for draw in range(300):
        teacher, arm, ceiling = (
            pd.DataFrame(
                {"seed": 0, "id": [str(i) for i in range(100)], "value": generator.normal(mean, 1, 100)}
            )
            for mean in (3.0, 6.0, 7.0)
        )
        ratio = (arm["value"].mean() - teacher["value"].mean()) / (
            ceiling["value"].mean() - teacher["value"].mean()
        )
        deviations.append(ratio - 0.75)
        if draw == 0:
            found = transfer.recovered(arm, teacher, ceiling, Bootstrap(1000))
    half = (found["high"] - found["low"]) / 2
    assert half == pytest.approx(1.96 * np.std(deviations), rel=0.25)
    assert found["low"] < found["recovered"] < found["high"]


def test_an_answer_without_a_score_is_left_out_of_all_arms_and_counted():
    table = pd.concat(
        [
            frame("naive", "falcon", ids=("a", "b")),
            frame("icl", "falcon"),
            frame("icl", "llama"),
            frame("words_only", metric="words"),
        ]
    )
    (panel, words), absent = transfer.panels(table)
    assert {(arm["arm"], arm["weak"]): (arm.missing, arm.left_out) for arm in panel} == {
        ("naive", "falcon"): (2, 0),
        ("icl", "falcon"): (0, 2),
        ("icl", "llama"): (0, 2),
    }
    for arm in panel:
        assert arm.missing + arm.left_out + len(arm.cells) == 6
        assert sorted(set(arm.cells["id"])) == ["a", "b"]
    assert [arm["arm"] for arm in words] == ["words_only"]
    assert f"{TEST}, content: {STRONG} words_only d" in absent


def test_judges_are_panels_of_their_own(tmp_path):
    table = pd.concat(
        [frame("naive", "f", judge="x"), frame("icl", "f", judge="x"), frame("icl", "f", judge="y")]
    )
    found, absent = transfer.panels(table)
    assert [[(arm["arm"], arm["judge"]) for arm in panel] for panel in found] == [
        [("naive", "x"), ("icl", "x")],
        [("icl", "y")],
    ]
    assert absent == [f"{TEST}, content by y: {STRONG} f naive d"]
    assert set(transfer.differences_table(ASKED, found, Bootstrap(50))["judge"]) == {"x"}


def test_arms_of_different_seeds_or_no_common_question_are_refused():
    with pytest.raises(JoinError, match=r"different seeds: .*naive d has \[0, 1\], .* has \[0\]"):
        transfer.panels(pd.concat([frame("naive", "f"), frame("icl", "f", seeds=(0,))]))
    with pytest.raises(DataError, match="no question has a score in all arms"):
        transfer.panels(pd.concat([frame("naive", "f", ids=("a",)), frame("icl", "f", ids=("b",))]))


def test_a_student_is_compared_with_its_own_base_and_fine_tuning():
    """Refiner and base are two names: the unaligned line of a student is its base's, whoever refined its labels."""
    tuned = {"student": "small", "refiner": "big"}
    table = pd.concat(
        [
            frame("untuned", student="small", recipe="").assign(value=2.0),
            frame("untuned", student="big", recipe="").assign(value=5.0),
            frame("naive", "f", student="small", recipe="a").assign(value=1.0),
            frame("naive", "f", student="small", recipe="b").assign(value=1.5),
            frame("icl", "f", recipe="a", **tuned).assign(value=3.0),
            frame("timed", "f", student="big", refiner="big", recipe="").assign(value=4.0),
        ]
    )
    found = transfer.differences_table(ASKED, transfer.panels(table)[0], Bootstrap(50))
    icl = found[found["arm"] == "icl"].set_index("baseline")["difference"].to_dict()
    assert icl == {"naive": 2.0, "untuned": 1.0}
    assert found[found["arm"] == "timed"].set_index("baseline")["difference"].to_dict() == {"untuned": -1.0}


def test_labels_have_their_quality_and_their_rows(made):
    found = read_transfer(made, "labels.csv")
    assert set(found["data"]) == {TRAIN}
    assert line(found, refinement="own", metric="content")["mean"] == pytest.approx(8.0)
    assert line(found, refinement="naive", weak="llama", metric="style")["mean"] == pytest.approx(6.0)
    rows = found[(found["refinement"] == "icl") & (found["weak"] == "falcon")].set_index("metric")["mean"]
    assert (rows["rows"], rows["dropped_empty"], rows["dropped_cut_off"]) == (18, 1.5, 0.5)
    labels = set(pd.read_parquet(load(made).path("measurements.parquet")).query("data == @TRAIN")["arm"])
    assert labels == {"labels:naive", "labels:icl", "labels:own"}


def test_measurements_have_the_columns_that_the_scorecard_reads(made):
    table = pd.read_parquet(load(made).path("measurements.parquet"))
    assert list(table) == [
        *(
            "experiment",
            "data",
            "share",
            "student",
            "arm",
            "feedback",
            "recipe",
            "step",
            "beta",
            "weak",
            "refiner",
        ),
        *("shown", "metric", "judge", "seed", "id", "value"),
    ]
    artifact = load(made)
    assert artifact.facts["answers_without_score"] == 0 and artifact.facts["seeds"] == [0, 1]
    assert {"arms.csv", "differences.csv", "recovered.csv", "labels.csv"} == set(TABLES)


def test_equal_scores_give_equal_bytes(made, tmp_path):
    again = tabulate(tmp_path, write_all(tmp_path, seeds=2, items=10))
    files = [load(path).manifest["files"] for path in (made, again)]
    for name in (*set(TABLES) - {"labels.csv"}, "measurements.parquet"):
        assert files[0][name]["sha256"] == files[1][name]["sha256"], name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            AnswersName(*CELL, "tuned", weak="f", refinement="mystery", base="g", fine_tuning="d"),
            "not declared",
        ),
        (
            AnswersName(*CELL, "refined", weak="f", refiner="g", refinement="infer", intents=True),
            "intents are no arm",
        ),
        (
            AnswersName("persona", TRAIN, 0, "tuned", weak="f", refinement="icl", base="g", fine_tuning="d"),
            "writes no labels",
        ),
        (AnswersName("maths", TEST, 0, "weak", writer="falcon"), "several tasks: persona, maths"),
    ],
)
def test_scores_that_are_no_arm_are_refused(tmp_path, name, words):
    good = write_scores(tmp_path, AnswersName(*CELL, "plain", writer="g"), scores(1, 1, items=2))
    wrong = write_scores(tmp_path, name, scores(1, 1, items=2))
    with pytest.raises(DataError, match=words):
        transfer.measurements(ASKED, [good, wrong])


def test_a_student_in_the_middle_writes_labels():
    asked = transfer.Transfer(
        "b", TRAIN, {"naive": {}, "bootstrapped": {"kind": "bootstrapped", "through": "m"}}, "naive"
    )
    name = AnswersName("persona", TRAIN, 0, "tuned", weak="f", refinement="naive", base="m", fine_tuning="d")
    found = asked.identity(name)
    assert found["arm"] == "labels:bootstrapped" and found["feedback"] == "bootstrapped"
    assert (found["student"], found["weak"], found["refiner"], found["recipe"]) == ("", "f", "", "")


def test_scores_that_count_twice_or_are_no_number_are_refused(tmp_path):
    """A score appended twice doubles a sum; here it stops the run."""
    name = AnswersName(*CELL, "plain", writer="g")
    table = scores(1, 1, items=3)
    twice = write_scores(tmp_path, name, pd.concat([table, table.iloc[:1]]))
    with pytest.raises(JoinError, match="1 answers are scored twice .* id q000"):
        transfer.measurements(ASKED, [twice])
    table.loc[1, "value"] = np.nan
    with pytest.raises(DataError, match="not finite: q001"):
        transfer.measurements(ASKED, [write_scores(tmp_path, name, table)])


def test_the_naive_refinement_must_be_declared(tmp_path):
    manifests = [write_scores(tmp_path, name, scores(1, 1, items=2)) for name in names(0)]
    with pytest.raises(ConfigError, match="'naive' is no refinement"):
        tabulate(tmp_path, manifests, refinements={"icl": {"kind": "icl"}})
