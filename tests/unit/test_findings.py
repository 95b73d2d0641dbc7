"""Sentences follow from the numbers, whichever way they came out."""

from __future__ import annotations

import pandas as pd
import pytest
from synthetic_tables import WORLDS, make_label_tables, make_tables, rewrite, votes_table
from w2s import findings
from w2s.findings import Finding


def finding(difference: float, low: float, high: float, setting: str = "k") -> Finding:
    return Finding(setting, "weak-s", "human", "exact", 3, 300, difference, low, high)


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ((0.12, -0.03, 0.27), "weak minus human = +0.12 [−0.03, 0.27]: not distinguishable from zero"),
        ((0.40, 0.10, 0.70), "weak minus human = +0.40 [0.10, 0.70]: weak labels gave the higher reward"),
        ((-0.4, -0.7, -0.1), "weak minus human = −0.40 [−0.70, −0.10]: human labels gave the higher reward"),
        ((0.20, 0.0, 0.4), "weak minus human = +0.20 [0.00, 0.40]: not distinguishable from zero"),
    ],
)
def test_a_difference_in_words(numbers, sentence):
    assert finding(*numbers).sentence == sentence


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        ([], "no pair of a weak and a human arm"),
        ([(0.4, 0.1, 0.7)], "Weak labels gave the better student."),
        ([(-0.4, -0.7, -0.1)], "Human labels gave the better student."),
        ([(0.1, -0.1, 0.3)], "No difference could be shown between weak and human labels."),
        (
            [(0.4, 0.1, 0.7), (-0.4, -0.7, -0.1), (0.1, -0.1, 0.3)],
            "Of 3 settings: weak labels gave the better student in 1, human labels did in 1, "
            "no difference could be shown in 1.",
        ),
        (
            [(-0.4, -0.7, -0.1), (0.1, -0.1, 0.3)],
            "Of 2 settings: human labels gave the better student in 1, no difference could be shown in 1.",
        ),
        ([(0.1, -0.1, 0.3)] * 2, "Of 2 settings: no difference could be shown in 2."),
    ],
)
def test_the_headline(verdicts, words):
    assert words in findings.headline([finding(*numbers) for numbers in verdicts])


def test_an_experiment_is_told_by_its_main_judge(tmp_path):
    entry = findings.experiment(make_tables(tmp_path, worlds=WORLDS))
    assert [item.setting for item in entry["findings"]] == list(WORLDS)
    assert {item.gold for item in entry["findings"]} == {"exact"}
    assert (
        entry["headline"] == "Of 4 settings: weak labels gave the better student in 3, human labels did in 1."
    )
    assert entry["other_judges"] == ["Judge learned comes to the same verdict in 4 of 4 settings."]
    assert entry["what"] == (
        "Student k learned from human labels, weak labels (from s) and gold labels on world-t0.4, world-t1, "
        "world-t2 and world-t4 (labelled share 1/2); 3 seeds, 300 prompts; judge: exact."
    )
    arms = entry["rewards"][0]["arms"]
    assert [arm["label"] for arm in arms][0] == "un-tuned"
    assert arms[-1] == {
        "label": "gold, SFT + DPO",
        "rewards": ["3.90 [3.77, 4.02]", "3.50 [3.37, 3.62]"],
        "malformed": "1.2 %",
        "truncated": "0.3 %",
        "tokens": "21.5",
    }


def test_rewards_are_told_with_lengths(tmp_path):
    tables = make_tables(tmp_path)
    rows = {row["arm"]: row for row in findings.experiment(tables)["lengths"]}
    assert rows["un-tuned"] == {
        **{"setting": "k on world-t2", "arm": "un-tuned", "mean": "1.30", "tokens": "21.5"},
        **{"per_token": "0.060", "difference": "–", "longer": "–", "adjusted": "–"},
    }
    weak = rows["weak (from s), SFT + DPO"]
    assert (weak["difference"], weak["longer"]) == ("+0.62", "+15.6")
    assert weak["adjusted"] == "+0.31 [0.11, 0.51]"
    assert "teacher" not in "".join(rows)
    lengths = pd.read_csv(tables.parent / "lengths.csv")
    rewrite(tables, "lengths.csv", lengths.assign(tokens=float("nan")))
    assert findings.experiment(tables)["lengths"] == []


def test_one_seed_is_a_caveat(tmp_path):
    assert findings.experiment(make_tables(tmp_path, seeds=1))["caveat"].startswith("One seed:")


def test_without_a_weak_arm_there_is_no_claim(tmp_path):
    entry = findings.experiment(make_tables(tmp_path, feedbacks=("human",)))
    assert entry["findings"] == []
    assert "nothing to compare" in entry["headline"]


def test_unknown_cells_are_dashes(tmp_path):
    tables = make_tables(tmp_path)
    frame = pd.read_csv(tables.parent / "rewards.csv").assign(malformed=None, truncated=None, tokens=None)
    rewrite(tables, "rewards.csv", frame)
    arm = findings.experiment(tables)["rewards"][0]["arms"][0]
    assert (arm["malformed"], arm["truncated"], arm["tokens"]) == ("–", "–", "–")


def test_labels_of_two_experiments_are_shown_once(tmp_path):
    tables = [make_tables(tmp_path / "a"), make_tables(tmp_path / "b", worlds=WORLDS)]
    rows = findings.label_rows(tables)
    assert len(rows) == 3 * len(WORLDS)
    assert rows[0]["data"] == "world-t2"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (200, "3 min 20 s"), (3599.7, "1 h 00 min"), (7320, "2 h 02 min")],
)
def test_durations(seconds, words):
    assert findings.duration(seconds) == words


def test_several_recipes_and_shares_are_settings_of_their_own(tmp_path):
    tables = make_tables(tmp_path, recipes={"low": 0.05, "high": 0.5}, shares=("1-of-4", "1-of-2"))
    entry = findings.experiment(tables)
    names = [f"labelled share {share} · β = {beta}" for share in ("1/4", "1/2") for beta in ("0.05", "0.5")]
    assert sorted(item.setting for item in entry["findings"]) == sorted(names)
    assert sorted(setting["setting"] for setting in entry["rewards"]) == sorted(names)
    assert all(setting["arms"][0]["label"] == "un-tuned" for setting in entry["rewards"])


def test_an_experiment_without_students_says_what_it_is_about(tmp_path):
    tables = make_label_tables(tmp_path, "a_table_4", {"votes.csv": votes_table()})
    entry = findings.experiment(tables)
    assert entry["name"] == "a_table_4"
    assert entry["headline"] == "About votes of an LLM judge; no student was trained for it."
    assert "labels that equal human ones (from s)" in entry["what"]
    assert (entry["findings"], entry["rewards"], entry["differences"]) == ([], [], [])


def test_the_teachers_own_responses_are_no_students(tmp_path):
    tables = make_tables(tmp_path)
    frame = pd.read_csv(tables.parent / "rewards.csv")
    own = frame[frame["arm"] == "untuned"].assign(student="demo-s", arm="teacher")
    rewrite(tables, "rewards.csv", pd.concat([frame, own]))
    entry = findings.experiment(tables)
    assert entry["what"].startswith(
        "Student k learned from human labels, weak labels (from s) and gold labels"
    )
    assert [arm["label"] for arm in entry["rewards"][-1]["arms"]] == ["the teacher itself"]
