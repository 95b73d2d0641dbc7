"""Written tables: our numbers, the paper's of the same role, and nothing that a text could break."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import write_table
from synthetic_tables import (
    make_label_tables,
    make_tables,
    responses_table,
    rewrite,
    votes_table,
)
from w2s.errors import ArtifactError, DataError
from w2s.tabulated import fair_coin
from w2s.written import Document, Table, Text, fragment, markdown

PUBLISHED = Path(__file__).resolve().parents[2] / "published" / "values.csv"
BOTH = ("human", "weak-s")


def written(tables: Path, folder: Path, layout: str) -> tuple[str, str, pd.DataFrame]:
    """Run the script: Markdown, HTML, numbers."""
    folder.mkdir(exist_ok=True)
    md, html, csv = (folder / f"x.{suffix}" for suffix in ("md", "html", "csv"))
    arguments = ["--tables", tables, "--published", PUBLISHED, "--md", md, "--html", html, "--csv", csv]
    write_table.main([*map(str, arguments), "--layout", layout])
    return (
        md.read_text(encoding="utf-8"),
        html.read_text(encoding="utf-8"),
        pd.read_csv(csv, keep_default_na=False),
    )


def published(numbers: pd.DataFrame, quantity: str) -> dict[str, float]:
    """Arm -> the paper's value of a quantity."""
    mine = numbers[(numbers["quantity"] == quantity) & (numbers["published"] != "")]
    return dict(zip(mine["arm"], mine["published"].astype(float), strict=True))


def test_table_1_has_the_papers_rewards_gains_and_agreements(tmp_path):
    feedbacks = ("human", "weak-s", "match-s", "mismatch-s")
    tables = make_tables(tmp_path, experiment="a_table_1", feedbacks=feedbacks, sft=False)
    md, html, numbers = written(tables, tmp_path, "rewards")
    assert published(numbers, "mean") == {
        "untuned": 2.22,
        "weak-s": 4.84,
        "match-s": 4.78,
        "mismatch-s": 4.01,
    }
    assert published(numbers, "gain") == {"weak-s": 2.61, "match-s": 2.56, "mismatch-s": 1.79}
    assert published(numbers, "agreement_human") == {"weak-s": 0.606, "match-s": 1.0, "mismatch-s": 0.0}
    rewards = pd.read_csv(tables.parent / "rewards.csv").query("gold == 'exact'").set_index("arm")["mean"]
    ours = numbers[numbers["quantity"] == "mean"].set_index("arm")["value"].astype(float)
    assert ours.to_dict() == rewards.to_dict()
    assert "OPT-1.3B for k; OPT-125M for s" in md and "OPT-1.3B for k; OPT-125M for s" in html
    assert "3 seeds" in md


def test_table_11_tells_recipes_with_sft_from_those_without(tmp_path):
    """By what the run says of a recipe, whatever its name."""
    recipes = {"no-sft-twice": 0.1, "bare": 0.1}
    more = {"experiment": "a_table_11", "recipes": recipes, "feedbacks": BOTH, "sft": False}
    for without, printed in ((["bare"], ["4.63", "3.77"]), (["no-sft-twice"], ["3.77", "4.63"])):
        tables = make_tables(tmp_path / without[0], **more, without_sft=without)
        _, _, numbers = written(tables, tmp_path / f"{without[0]}-written", "rewards")
        mine = numbers[(numbers["quantity"] == "mean") & (numbers["arm"] == "human")].set_index("recipe")
        assert mine["published"].to_dict() == dict(zip(recipes, printed, strict=True))


def test_table_10_pairs_students_and_teachers_by_rank(tmp_path):
    feedbacks = ("human", "weak-s", "weak-neo", "weak-pythia-160m")
    tables = make_tables(
        tmp_path, experiment="a_table_10", students=["k", "m"], feedbacks=feedbacks, sft=False
    )
    _, _, numbers = written(tables, tmp_path, "rewards")
    mine = numbers[numbers["quantity"] == "mean"].set_index(["student", "arm"])["published"]
    assert mine["k"].to_dict() == {
        **{"untuned": "", "human": "4.63", "weak-s": "4.84", "weak-neo": "4.55", "weak-pythia-160m": "4.87"}
    }
    assert mine["m"]["weak-pythia-160m"] == "8.01"


def test_tables_12_and_13_find_their_kinds_of_feedback(tmp_path):
    feedbacks = ("human", "random-s", "match-random", "mismatch-random")
    noise = make_tables(tmp_path / "12", experiment="a_table_12", feedbacks=feedbacks, sft=False)
    _, _, numbers = written(noise, tmp_path / "12o", "rewards")
    assert published(numbers, "mean") == {"random-s": 3.91, "match-random": 4.57, "mismatch-random": 1.53}
    assert published(numbers, "gain")["mismatch-random"] == -0.69
    teacher = make_tables(tmp_path / "13", experiment="a_table_13", feedbacks=("human", "weak-s", "reward-s"))
    _, _, numbers = written(teacher, tmp_path / "13o", "rewards")
    # Arms after SFT only have no printed value.
    assert published(numbers, "mean") == {"human": 4.63, "weak-s": 4.84, "reward-s": 4.86}


def test_table_2_and_section_4_hold_responses_and_votes(tmp_path):
    two = make_label_tables(tmp_path / "2", "a_table_2", {"responses.csv": responses_table()})
    md, _, numbers = written(two, tmp_path / "2o", "responses")
    assert published(numbers, "gap") == {"human": 1.52, "weak-s": 1.23, "match-s": 2.27, "mismatch-s": -0.36}
    assert "−0.36 \\[−0.47, −0.24\\]" in md
    more = {"responses.csv": responses_table(), "votes.csv": votes_table()}
    four = make_label_tables(tmp_path / "4", "a_text_section_4", more)
    _, _, numbers = written(four, tmp_path / "4o", "responses")
    assert published(numbers, "gold_agrees") == pytest.approx({"mismatch-s": 0.443})
    assert published(numbers, "label_share") == {"mismatch-s": 0.46}


def test_table_4_names_the_floor_of_a_fair_coin(tmp_path):
    tables = make_label_tables(tmp_path, "a_table_4", {"votes.csv": votes_table()})
    md, _, numbers = written(tables, tmp_path, "votes")
    assert published(numbers, "consistency") == {"match-s": 0.84, "mismatch-s": 0.66}
    assert "a fair coin has 0.623 with 10 votes" in md
    assert fair_coin(1) == 1.0 and fair_coin(2) == 0.75


def test_the_seed_study_has_variance_and_deviation_of_the_seeds(tmp_path):
    tables = make_tables(
        tmp_path, experiment="a_seed_study", feedbacks=BOTH, seeds=5, measured=True, golds=("exact",)
    )
    md, _, numbers = written(tables, tmp_path, "seeds")
    cells = pd.read_parquet(tables.parent / "measurements.parquet").query("arm == 'weak-s'")
    means = cells.groupby("seed")["value"].mean()
    found = numbers[numbers["arm"] == "weak-s"].set_index("quantity")["value"]
    assert float(found["variance"]) == pytest.approx(means.var(ddof=1))
    assert float(found["deviation"]) == pytest.approx(means.std(ddof=1))
    assert list(found["seed_mean"].astype(float)) == pytest.approx(list(means))
    assert published(numbers, "variance") == {"human": 0.14, "weak-s": 0.12}
    assert published(numbers, "mean") == {"human": 4.67, "weak-s": 4.81}
    assert md.count("\n| ") == 2 + 2 + 2 + 5


def test_one_seed_has_no_variance(tmp_path):
    tables = make_tables(tmp_path, experiment="a_seed_study", feedbacks=BOTH, seeds=1, measured=True)
    with pytest.raises(DataError, match="fewer than two seeds"):
        written(tables, tmp_path, "seeds")
    with pytest.raises(ArtifactError, match=r"measurements\.parquet"):
        written(make_tables(tmp_path / "none", feedbacks=BOTH), tmp_path, "seeds")


def test_labels_against_human_and_gold(tmp_path):
    md, _, numbers = written(make_label_tables(tmp_path, "my_own", {}), tmp_path, "labels")
    assert numbers.set_index(["arm", "quantity"])["value"]["weak-s", "agreement_human"] == "0.6"
    assert "The paper prints no value for these lines." in md


def test_a_repeated_difference_is_refused(tmp_path):
    tables = make_tables(tmp_path, feedbacks=BOTH)
    frame = pd.read_csv(tables.parent / "differences.csv")
    rewrite(tables, "differences.csv", pd.concat([frame, frame.iloc[[0]]]))
    with pytest.raises(DataError, match="occurs twice"):
        written(tables, tmp_path, "rewards")


def test_equal_tables_give_equal_bytes(tmp_path):
    tables = make_tables(tmp_path, experiment="a_table_1")
    for name in ("one", "two"):
        written(tables, tmp_path / name, "rewards")
    for suffix in ("md", "html", "csv"):
        one, two = (tmp_path / name / f"x.{suffix}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


NASTY = [
    "<b>x</b>",
    "a | b",
    "# head",
    "- item",
    "1. item",
    "`code`",
    "*bold*",
    "& &amp;",
    "[a](b)",
    "line\nbreak",
]


class Cells(HTMLParser):
    """Texts of the cells of a fragment."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.inside = False
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.inside = tag in ("td", "th")
        self.cells += [""] if self.inside else []

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.cells[-1] += data


@pytest.mark.parametrize("text", NASTY)
def test_no_text_leaves_its_cell(text):
    document = Document(text, [text], [Table([text, "b"], [[text, "1"]], frozenset({1}), text)])
    assert Cells(fragment(document)).cells == [text, "b", text, "1"]
    lines = [line for line in markdown(document).splitlines() if line.startswith("|")]
    assert len(lines) == 3
    for line in (lines[0], lines[2]):
        assert line.replace("\\|", "").count("|") == 3
    assert "<b>" not in markdown(document).replace("\\<", "")
    assert not any(line.startswith(("# ", "- ", "1. ")) for line in markdown(document).splitlines())


@pytest.mark.parametrize("body", ["plain", "```\nfence\n```", "````", "</pre><script>"])
def test_a_long_text_stays_in_its_fence(body):
    document = Document("t", [], texts=[Text("pair", [("Prompt", body)])])
    lines = markdown(document).splitlines()
    fence = next(line for line in lines if line.startswith("```")).removesuffix("text")
    assert lines.count(fence) == 1 and fence not in body
    assert "<script>" not in fragment(document)
