"""Imported questions: adapters, selection, and that no row is lost without a reason."""

from __future__ import annotations

import gzip
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import import_questions
import pandas as pd
import pytest
import w2s
from raw_data import write_jsonl
from tiny import as_artifact
from w2s import question_adapters
from w2s.artifact import load
from w2s.errors import ConfigError, DataError, W2SError
from w2s.question_adapters import Question, job_questions, question_id, written_questions
from w2s.tables import write_parquet

DOLLY = [{"instruction": f"Question {n}?", "context": "text" * (n % 2), "response": "no"} for n in range(10)]


def source(root: Path, name: str, content: list[Any] | bytes) -> Path:
    """A source of one file, without fetching it."""

    def fill(folder: Path) -> None:
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            write_jsonl(folder / name, content)

    return as_artifact(root / "raw", fill)


def imported(
    root: Path, adapter: str, content: list[Any] | bytes, *options: str, name: str = "rows.jsonl"
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The questions of one file, and the facts."""
    manifest = source(root, name, content)
    files = json.dumps([{"source": "raw", "path": name}])
    return run(root, "--adapter", adapter, "--sources", str(manifest), "--files", files, *options)


def run(root: Path, *options: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The questions that these options make, and the facts."""
    manifest = root / "questions" / "manifest.json"
    import_questions.main(["--output", str(manifest), *options])
    artifact = load(manifest)
    facts = artifact.facts
    assert facts["rows_in"] == facts["rows_kept"] + sum(facts["rows_dropped"].values())
    table = pd.read_parquet(artifact.path("questions.parquet"))
    assert list(table.columns) == ["id", "question", "reference", "topic"] and table["id"].is_unique
    assert table["id"].tolist() == [question_id(question) for question in table["question"]]
    return table, facts


def dropped(facts: dict[str, Any]) -> dict[str, int]:
    return {reason: rows for reason, rows in facts["rows_dropped"].items() if rows}


def test_dolly_keeps_the_instruction_alone(tmp_path: Path) -> None:
    table, _ = imported(tmp_path, "dolly", DOLLY)
    assert table["question"].tolist() == [f"Question {n}?" for n in range(10)]
    assert table[["reference", "topic"]].isna().all(axis=None)


def test_rows_with_a_context_can_be_left_out(tmp_path: Path) -> None:
    table, facts = imported(tmp_path, "dolly", DOLLY, "--without-context", "--first", "3")
    assert table["question"].tolist() == ["Question 0?", "Question 2?", "Question 4?"]
    assert dropped(facts) == {"with_context": 5, "not_selected": 2}


CSV = (
    "\ufeffType,Category,Question,Best Answer,Source\n"
    'Adversarial,Myths,"What, if\nanything?","Nothing, really",web\n'
    "Adversarial,Myths,Why?,Because,web\n"
)


@pytest.mark.parametrize(("name", "pack"), [("t.csv", bytes), ("t.csv.gz", gzip.compress)])
def test_truthful_qa_as_csv(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    table, _ = imported(tmp_path, "truthful-qa", pack(CSV.encode()), name=name)
    assert table["question"].tolist() == ["What, if\nanything?", "Why?"]
    assert table["reference"].tolist() == ["Nothing, really", "Because"] and set(table["topic"]) == {"Myths"}


ROWS = {
    "truthful-qa": ({"question": "Q", "best_answer": "A", "category": "T"}, ("A", "T")),
    "alpaca-eval": ({"instruction": "Q", "output": "no", "dataset": "T", "generator": "g"}, (None, "T")),
    "gsm8k": ({"question": "Q", "answer": "#### 3 no\n9*2=<<9*2=18>>18\n#### 1,800 "}, ("1,800", None)),
    "math": (
        {"problem": "Q", "solution": "\\boxed{1} or $\\boxed{\\frac{1}{2}}$", "type": "T"},
        ("\\frac{1}{2}", "T"),
    ),
    "math-500": ({"problem": "Q", "answer": "p - q", "subject": "T", "solution": "no"}, ("p - q", "T")),
    "questions": ({"question": "Q", "reference": "A", "topic": "T"}, ("A", "T")),
}


@pytest.mark.parametrize("adapter", ROWS)
def test_one_row_of_each_adapter(tmp_path: Path, adapter: str) -> None:
    row, (reference, topic) = ROWS[adapter]
    table, _ = imported(tmp_path, adapter, [row])
    found = table.astype(object).where(table.notna(), None).iloc[0]
    assert (found["question"], found["reference"], found["topic"]) == ("Q", reference, topic)


def test_a_missing_column_stops_with_file_and_line(tmp_path: Path) -> None:
    for adapter, (row, _) in ROWS.items():
        rows = [row, {key: value for key, value in row.items() if value != "Q"}]
        with pytest.raises(DataError, match=r"is missing[\s\S]*rows.jsonl:2"):
            imported(tmp_path / adapter, adapter, rows)


def test_useless_rows_are_dropped_by_reason(tmp_path: Path) -> None:
    answers = ["#### 1", "no mark", "#### ", "#### 2", "#### 3"]
    questions = ["a", "b", "c", " a ", " "]
    rows = [{"question": q, "answer": a} for q, a in zip(questions, answers, strict=True)]
    table, facts = imported(tmp_path, "gsm8k", rows)
    assert table["question"].tolist() == ["a"]
    assert dropped(facts) == {"no_result": 2, "duplicate": 1, "empty": 1}


def test_a_list_of_ones_own_takes_no_other_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'anser'"):
        imported(tmp_path, "questions", [{"question": "Q", "anser": "A"}])


@pytest.mark.parametrize("content", [b"a,b\n1\n", b"a,b\n", b'a,b\n"1\n', b"a\n\xff\n"])
def test_bad_csv_files_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"t\.csv"):
        imported(tmp_path, "truthful-qa", content, name="t.csv")


def test_pinned_rows_are_those_of_the_file(tmp_path: Path) -> None:
    table, facts = imported(tmp_path, "dolly", [DOLLY[0], *DOLLY], "--indices", "[7, 0, 10]")
    assert table["question"].tolist() == ["Question 0?", "Question 6?", "Question 9?"]
    assert dropped(facts) == {"duplicate": 1, "not_selected": 7}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--indices", "[10]"], "row 10 of 10 rows"),
        (["--indices", "[-1]"], "1 wrong"),
        (["--indices", "[true]"], "1 wrong"),
        (["--indices", "[]"], "row numbers"),
        (["--indices", "[1, 1]"], "1 repeated"),
        (["--indices", "[1]", "--first", "1"], "exclude each other"),
        (["--first", "11"], "11 questions of 10"),
        (["--part", "train"], "both or neither"),
        (["--form", "story"], "takes no --form"),
        (["--items", "3"], "takes no --items"),
    ],
)
def test_senseless_selections_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        imported(tmp_path, "dolly", DOLLY, *options)


def test_a_pinned_row_that_is_dropped_stops_the_stage(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pinned row 1 is dropped: with_context"):
        imported(tmp_path, "dolly", DOLLY, "--without-context", "--indices", "[0, 1]")


def test_unknown_files_are_refused(tmp_path: Path) -> None:
    for files, message in [
        ([], "needs --files"),
        ([{"source": "raw"}], "exactly"),
        ([{"source": "x", "path": "y"}], "unknown"),
    ]:
        with pytest.raises(W2SError, match=message):
            run(tmp_path, "--adapter", "dolly", "--files", json.dumps(files))


def test_a_sample_depends_on_its_seed_alone_and_keeps_the_order(tmp_path: Path) -> None:
    rows = [{"question": str(n)} for n in range(1000)]
    first, again, other = (
        imported(tmp_path / name, "questions", rows, "--sample", "50", "--seed", seed)[0]["question"].tolist()
        for name, seed in (("a", "1"), ("b", "1"), ("c", "2"))
    )
    assert first == again and first != other and len(first) == 50
    assert first == sorted(first, key=int) and first != [str(n) for n in range(50)]


def test_parts_share_nothing_and_are_everything(tmp_path: Path) -> None:
    rows = [{"question": str(n)} for n in range(300)]
    parts = {
        part: imported(tmp_path / part, "questions", rows, "--part", part, "--shares", "200", "100")[0]
        for part in ("train", "test")
    }
    assert [len(parts[part]) for part in ("train", "test")] == [200, 100]
    assert set(parts["train"]["id"]).isdisjoint(parts["test"]["id"])
    assert parts["train"]["question"].tolist() != [str(n) for n in range(200)]


def test_the_jobs_are_52_in_three_forms(tmp_path: Path) -> None:
    tables = {
        form: run(tmp_path / form, "--adapter", "jobs", "--form", form)[0] for form in question_adapters.FORMS
    }
    assert {len(table) for table in tables.values()} == {52}
    assert len({tuple(table["topic"]) for table in tables.values()}) == 1
    assert "Emmy Noether, the mathematician" in tables["named"]["question"][0]
    assert not tables["biography"]["question"].str.contains("Noether").any()
    assert "an astronomer" in " ".join(tables["story"]["question"])
    assert len(set.union(*(set(table["id"]) for table in tables.values()))) == 156


def test_an_edited_list_of_jobs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited = tmp_path / "jobs.csv"
    edited.write_bytes(question_adapters.JOBS.read_bytes() + b"poet,Sappho\n")
    monkeypatch.setattr(question_adapters, "JOBS", edited)
    with pytest.raises(DataError, match="edited"):
        job_questions("story")


def test_topics_are_distinct_and_an_edited_list_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, facts = run(tmp_path, "--adapter", "topics")
    assert len(table) == facts["rows_in"] == 32
    edited = tmp_path / "topics.txt"
    edited.write_bytes(question_adapters.TOPICS.read_bytes() + b"alchemy\n")
    monkeypatch.setattr(question_adapters, "TOPICS", edited)
    with pytest.raises(DataError, match=r"(?s)edited.*topics\.txt"):
        question_adapters.topics()


def test_one_json_list_of_rows(tmp_path: Path) -> None:
    rows = [{"instruction": f"Do {n}.", "output": "no", "dataset": "koala"} for n in range(3)]
    table, _ = imported(tmp_path, "alpaca-eval", json.dumps(rows).encode(), name="rows.json")
    assert table["question"].tolist() == ["Do 0.", "Do 1.", "Do 2."]
    assert set(table["topic"]) == {"koala"}


@pytest.mark.parametrize("content", [b"[", b"{}", b"[]", b"[1]", b'"rows"'])
def test_json_that_is_no_list_of_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"rows\.json"):
        imported(tmp_path, "alpaca-eval", content, name="rows.json")


LIST = """Here are some questions about science:

1. Why is the sky blue?
2) **How does a vaccine work?**
- Explain how "dark matter" was found.
* "What is the role of DNA in a cell?"
### Physics
3. Why is the sky  blue?
4. Short?
5. What happens to light in a"""


def test_written_lists_are_cleaned() -> None:
    found = list(written_questions([(LIST, "length"), ("", "refused")]))
    assert [row.question for row in found if isinstance(row, Question)] == [
        "Why is the sky blue?",
        "How does a vaccine work?",
        'Explain how "dark matter" was found.',
        "What is the role of DNA in a cell?",
        "Why is the sky blue?",
    ]
    assert [row for row in found if isinstance(row, str)] == ["not_a_question"] * 3 + ["cut_off"]


def test_written_questions_become_a_set(tmp_path: Path) -> None:
    answers = pd.DataFrame(
        {"id": ["x", "y"], "answer": [LIST, "What is a fish made of?"], "finished": ["length", "eos"]}
    )
    manifest = as_artifact(tmp_path / "a", lambda folder: write_parquet(answers, folder / "answers.parquet"))
    table, facts = run(tmp_path, "--adapter", "written", "--answers", str(manifest))
    assert len(table) == 5 and dropped(facts) == {"not_a_question": 3, "cut_off": 1, "duplicate": 1}


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no question is left"):
        imported(tmp_path, "dolly", [DOLLY[1]], "--without-context")


def test_questions_of_a_concept_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def make(world: str, style: str, part: str, items: int, seed: int) -> pd.DataFrame:
        asked.append((world, style, part, items, seed))
        texts = [f"{n} plus 1" for n in range(items)]
        rows = [(question_id(text), text, "do seven mi", "plus") for text in texts]
        return pd.DataFrame(rows, columns=["id", "question", "reference", "topic"])

    fake = types.SimpleNamespace(
        ConceptWorld=types.SimpleNamespace(read=lambda settings: f"world {settings['seed']}"),
        make_questions=make,
    )
    monkeypatch.setattr(w2s, "concepts", fake, raising=False)
    options = ["--adapter", "world", "--world", '{"seed": 7}', "--style", "do", "--items", "3", "--seed", "2"]
    table, facts = run(tmp_path, *options, "--part", "test")
    assert asked == [("world 7", "do", "test", 3, 2)] and facts["rows_kept"] == 3
    assert table["topic"].tolist() == ["plus"] * 3
    with pytest.raises(ConfigError, match="needs --part"):
        run(tmp_path, *options)


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        imported(tmp_path / name, "dolly", DOLLY, "--sample", "4", "--seed", "3")
        digests.add(load(tmp_path / name / "questions" / "manifest.json").digest)
    assert len(digests) == 1


def test_it_runs_as_a_script(tmp_path: Path, run_stage: Callable[..., Any]) -> None:
    done = run_stage("import_questions", "--output", tmp_path / "q/manifest.json", "--adapter", "jobs")
    assert done.returncode == 2 and "needs --form" in done.stderr and "Traceback" not in done.stderr
