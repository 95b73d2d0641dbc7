"""Example pairs: whole, escaped, said to be sampled."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pandas as pd
import pytest
import write_examples
from synthetic_tables import examples_table, make_label_tables
from w2s.errors import DataError

PUBLISHED = Path(__file__).resolve().parents[2] / "published" / "values.csv"


def written(folder: Path, table: pd.DataFrame, name: str = "a_table_3") -> tuple[str, str, pd.DataFrame]:
    """Run the script: Markdown, HTML, pairs."""
    tables = make_label_tables(folder, name, {"examples.csv": table})
    md, page, csv = (folder / f"x.{suffix}" for suffix in ("md", "html", "csv"))
    arguments = ["--tables", tables, "--published", PUBLISHED, "--md", md, "--html", page, "--csv", csv]
    write_examples.main([str(argument) for argument in arguments])
    return md.read_text(encoding="utf-8"), page.read_text(encoding="utf-8"), pd.read_csv(csv)


def test_texts_are_whole_and_as_they_are(tmp_path):
    table = examples_table()
    md, page, pairs = written(tmp_path, table)
    bodies = [html.unescape(body) for body in re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)]
    wanted = [
        text for row in table.itertuples() for text in (row.prompt, row.response_first, row.response_second)
    ]
    assert bodies == wanted
    for text in wanted:
        assert text in md
    assert list(pairs["id"]) == ["a1", "b2"]
    assert "<b>" not in page


def test_the_reader_is_told_how_the_pairs_came_about(tmp_path):
    md, page, _ = written(tmp_path, examples_table())
    for text in (md, page):
        assert "sampled by seed (1, 2) from all on which weak and human labels differ, not chosen" in text
    assert "higher reward in 1 of 1" in md
    assert "First, chosen by the weak label (gold reward 6.82)" in md
    assert "Second, chosen by people\\*\\*" not in md and "**Second, chosen by people**" in md


def test_the_papers_numbers_stand_apart(tmp_path):
    md, _, _ = written(tmp_path / "3", examples_table())
    assert "| vegetables | chosen by the weak label | gold reward | 6.82 |" in md
    md, _, _ = written(tmp_path / "5", examples_table(), "a_table_5")
    assert "| snorkelling | – | GPT-4's votes for the first | 5 |" in md
    assert "Votes of the LLM judge, first to second: 5:5." in md
    md, _, _ = written(tmp_path / "own", examples_table(), "my_own")
    assert "The paper" not in md


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda table: table.iloc[:0], "no pair to show"),
        (lambda table: pd.concat([table, table.iloc[[0]]]), "pair a1 of seed 1 occurs twice"),
        (lambda table: table.assign(label_first="human"), "choice of 'human'"),
        (lambda table: table.assign(label_second=["human", "weak-s"]), "choice of 'weak-s'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, edit, words):
    with pytest.raises(DataError, match=words):
        written(tmp_path, edit(examples_table()))
