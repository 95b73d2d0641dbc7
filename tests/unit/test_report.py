"""The report: self-contained, valid, complete, the same each time, and honest about what is missing."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import write_examples
from synthetic_report import PUBLISHED, make_report, write_report
from synthetic_tables import examples_table, make_filtered, make_label_tables, make_tables
from w2s.errors import ArtifactError, DataError

VOID = {"meta", "link", "img", "br", "hr", "input", "col"}
ADDRESSES = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}


class Page(HTMLParser):
    """What the tests ask of a page; checks on the way that elements are closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open_elements: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open_elements == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open_elements.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open_elements.pop() == tag, f"</{tag}> closes another element, line {self.getpos()[0]}"

    def handle_data(self, data):
        if not self.open_elements or self.open_elements[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    make_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder) -> Page:
    return Page(folder / "report.html")


def test_the_page_refers_to_nothing_outside_itself(page):
    found = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ADDRESSES
    ]
    assert found
    assert [value for value in found if not value.startswith(("data:", "#"))] == []
    style = re.search(r"<style>(.*?)</style>", page.source, re.DOTALL).group(1)
    assert "url(" not in style and "@import" not in style
    assert page.all("script") == []
    policy = next(
        meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")


def test_the_key_result_stands_in_words_with_its_interval(page):
    assert "Weak labels gave the better student." in page.text
    assert re.search(
        r"weak minus human = \+0\.62 \[0\.45, 0\.78\] weak labels gave the higher reward", page.text
    )
    assert re.search(r"world-t0\.4 weak minus human = −0\.31 \[−0\.48, −0\.15\] human labels gave", page.text)
    assert (
        "Student k learned from human labels, weak labels (from s) and gold labels on world-t2" in page.text
    )


def test_structure_a_reader_and_a_screen_reader_need(page):
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(below - above <= 1 for above, below in zip(headings, headings[1:], strict=False))
    assert len(page.all("img")) == 3
    assert all(len(image["alt"]) > 40 for image in page.all("img"))
    assert all(chart["aria-label"] for chart in page.all("svg") if chart.get("role") == "img")
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    targets = {link["href"][1:] for link in page.all("a") if link["href"].startswith("#")}
    assert targets and targets <= set(names)


def test_every_section_is_there(page):
    for heading in (
        "Figures",
        "Rewards of all arms",
        "Label quality",
        "Dropped rows",
        "What it cost",
        "Environment",
    ):
        assert heading in page.text
    assert "0.61 [" not in page.text  # shares are shown as percent
    assert "61.0 %" in page.text
    assert "AMD" in page.text or "Processor" in page.text
    assert "learning-rate 5e-05" in page.text


def test_rewards_stand_beside_lengths(page):
    assert "Rewards and length" in page.text
    assert re.search(
        r"weak \(from s\), SFT \+ DPO 3\.02 21\.5 0\.140 \+0\.62 \+15\.6 \+0\.31 \[0\.11, 0\.51\]", page.text
    )


def test_downloads_hold_the_files(page, folder):
    links = {link["download"]: link["href"] for link in page.all("a") if "download" in link}
    for path in (*folder.glob("figures/*.csv"), *folder.glob("figures/*.pdf")):
        assert base64.b64decode(links[path.name].partition("base64,")[2]) == path.read_bytes()
    rewards = base64.b64decode(links["demo_rewards.csv"].partition("base64,")[2]).decode()
    assert rewards.startswith("experiment,data,share,student,recipe")


def test_the_same_inputs_give_the_same_page_and_no_path_of_this_machine(folder, page):
    figures = [folder / "figures" / f"{name}.png" for name in ("a_figure_2a", "label_noise", "drops_hh")]
    tables = [folder / name / "tables" / "manifest.json" for name in ("main", "noise")]
    again = write_report(
        folder / "again.html", tables, figures, [folder / "filtered" / "hh" / "manifest.json"]
    )
    assert again.read_text(encoding="utf-8") == page.source
    assert str(folder) not in page.source


def test_a_run_with_one_seed_and_without_gold_or_figures(tmp_path):
    tables = make_tables(
        tmp_path, seeds=1, feedbacks=("human", "weak-s"), golds=("rm",), main_gold="rm", exact_labels=False
    )
    page = Page(write_report(tmp_path / "report.html", [tables]))
    assert "One seed: the intervals cover the choice of prompts only." in page.text
    assert page.all("img") == []
    assert {link["href"] for link in page.all("a")} & {"#figures", "#drops"} == set()
    assert "gold labels" not in page.text.replace("agree with gold labels", "")


def test_a_run_without_a_weak_arm(tmp_path):
    tables = make_tables(tmp_path, feedbacks=("human",))
    assert "nothing to compare" in Page(write_report(tmp_path / "report.html", [tables])).text


def test_names_are_escaped(tmp_path):
    filtered = make_filtered(tmp_path / "hh", [("<b>&", "too_long", 1)], {"<b>&": 3})
    page = write_report(tmp_path / "report.html", [make_tables(tmp_path)], [], [filtered])
    assert "&lt;b&gt;&amp;" in page.read_text(encoding="utf-8")
    Page(page)


def test_a_picture_that_is_none_is_refused_and_no_page_appears(tmp_path):
    picture = tmp_path / "figure.png"
    picture.write_bytes(b"not a picture")
    with pytest.raises(DataError, match="not a readable picture"):
        write_report(tmp_path / "report.html", [make_tables(tmp_path)], [picture])
    assert not (tmp_path / "report.html").exists()


def test_a_parent_that_was_cleaned_away_is_said(tmp_path):
    tables = make_tables(tmp_path)
    (tmp_path / "parent" / "manifest.json").unlink()
    assert "1 artifacts have been cleaned away" in Page(write_report(tmp_path / "report.html", [tables])).text


def test_missing_tables_are_named(tmp_path):
    with pytest.raises(ArtifactError, match="not there"):
        write_report(tmp_path / "report.html", [tmp_path / "tables" / "manifest.json"])


def test_written_tables_stand_in_the_page_with_their_files(tmp_path):
    tables = make_label_tables(tmp_path, "a_table_3", {"examples.csv": examples_table()})
    outputs = [tmp_path / f"a_table_3.{suffix}" for suffix in ("md", "html", "csv")]
    flags = [word for path in outputs for word in (f"--{path.suffix[1:]}", str(path))]
    write_examples.main(["--tables", str(tables), "--published", str(PUBLISHED), *flags])
    page = Page(write_report(tmp_path / "report.html", [tables], [outputs[1]]))
    assert "About single pairs; no student was trained for it." in page.text
    assert "Rewards of all arms" not in page.text
    assert "<b>bold</b> | a pipe" in page.text and "<b>" not in page.source
    names = {link["download"] for link in page.all("a") if "download" in link}
    assert {"a_table_3.csv", "a_table_3.md", "a_table_3_labels.csv"} <= names
    targets = {link["href"][1:] for link in page.all("a") if link["href"].startswith("#")}
    assert targets <= {attributes["id"] for _, attributes in page.elements if "id" in attributes}


def test_html_that_no_script_of_ours_wrote_is_refused(tmp_path):
    foreign = tmp_path / "foreign.html"
    foreign.write_text("<script>alert(1)</script>", encoding="utf-8")
    with pytest.raises(DataError, match="not a fragment"):
        write_report(tmp_path / "report.html", [make_tables(tmp_path)], [foreign])
