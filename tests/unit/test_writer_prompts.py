"""Templates of writers: what is inserted, what is refused, and that the demo world's are its documents."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from w2s import judge_prompts, wordings
from w2s.errors import ConfigError, DataError
from w2s.writer_prompts import METHODS, TEMPLATES, Template, fill, find, parse

VALUES = {
    "question": " What do cats eat? ",
    "examples": [("Why?", "So."), ("Who?\nYou?", "I\r\n\nam.")],
    "answer": "Meat\nand {question}.",
    "intent": "It rhymes.",
}
BY_METHOD = {
    "plain": [
        "plain-1",
        "plain-maths-1",
        "weak-pirate-1",
        "weak-analogy-1",
        "biography-1",
        "science-questions-1",
        "concept-plain-1",
    ],
    "icl": ["icl-1", "icl-maths-1", "concept-icl-1"],
    "infer": ["infer-style-1", "infer-technique-1", "concept-infer-1"],
    "respond": ["respond-style-1", "respond-technique-1", "concept-respond-1"],
    "improve": ["improve-1", "corrupt-1", "concept-improve-1"],
}
PAIRS = [(method, name) for method, names in BY_METHOD.items() for name in names]


def filled(name: str, method: str, **changes: object) -> list[dict[str, str]]:
    values = {key: VALUES[key] for key in METHODS[method]} | changes
    return fill(find(name, method), **values)  # type: ignore[arg-type]


def plain(messages: list[dict[str, str]]) -> str:
    return "\n\n".join(message["content"] for message in messages)


def test_every_template_serves_one_method_and_no_other():
    assert sorted(name for _, name in PAIRS) == sorted(TEMPLATES)
    for method, name in PAIRS:
        assert find(name, method).name == name
        for other in set(METHODS) - {method}:
            with pytest.raises(ConfigError, match=f"{name}.*does not serve.*{other}"):
                find(name, other)
    with pytest.raises(ConfigError, match="one of plain-1"):
        find("plain", "plain")


def test_names_differ_from_those_of_judges():
    assert not set(TEMPLATES) & set(judge_prompts.TEMPLATES)


@pytest.mark.parametrize(("method", "name"), PAIRS)
def test_what_is_given_stands_in_the_messages(method: str, name: str):
    messages = filled(name, method)
    assert [message["role"] for message in messages] in (["system", "user"], ["user"])
    text = plain(messages)
    assert text == text.strip() and all(message["content"] for message in messages)
    expected = {
        "question": "What do cats eat?",
        "examples": "Question: Who?You?\nAnswer: Iam.",
        "answer": "Meat\nand {question}.",
        "intent": "It rhymes.",
    }
    for key, inserted in expected.items():
        assert (inserted in text) == (key in METHODS[method]), key
    assert "{" not in text.replace("{question}.", "")


def test_a_placeholder_in_an_inserted_text_is_that_texts_own():
    examples = [("{answer} {examples}", "{question}"), ("\\1 \\g<0>", "{intent} {0} {")]
    text = plain(filled("icl-1", "icl", question="{examples}{answer}", examples=examples))
    assert text == (
        "Question: {answer} {examples}\nAnswer: {question}\n\nQuestion: \\1 \\g<0>\nAnswer: {intent} {0} {\n\n"
        "Question: {examples}{answer}\nAnswer:"
    )


@pytest.mark.parametrize(
    "values",
    [
        {"question": "a"},
        {"examples": [("a", "b")]},
        {"question": "a", "examples": [], "intent": "c"},
        {"question": "a", "answer": "b"},
    ],
)
def test_too_little_or_too_much_is_refused(values: dict[str, object]):
    with pytest.raises(ConfigError, match="icl-1"):
        fill(find("icl-1", "icl"), **values)  # type: ignore[arg-type]


def test_an_empty_system_text_is_no_message():
    assert [message["role"] for message in filled("icl-1", "icl", examples=[])] == ["user"]
    assert [message["role"] for message in filled("plain-maths-1", "plain")] == ["user"]


@pytest.mark.parametrize("name", BY_METHOD["icl"])
def test_the_last_example_does_not_run_into_the_question(name: str):
    """The paper's code for maths wrote the question right behind the last example's answer."""
    text = plain(filled(name, "icl", examples=[("1 + 1", "2"), ("2 + 2", "4")], question="3 + 3"))
    assert text.endswith("Question: 2 + 2\nAnswer: 4\n\nQuestion: 3 + 3\nAnswer:")


def test_the_demo_worlds_templates_make_its_documents():
    examples = [("3 plus 4", "do seven mi"), ("1 max 2", "do 2 mi")]
    pairs = "Question: 3 plus 4\nAnswer: do seven mi\n\nQuestion: 1 max 2\nAnswer: do 2 mi"
    last = "Question: 5 min 6\nAnswer:"
    values = {"question": "5 min 6", "examples": examples, "answer": "do nine mi", "intent": "salty"}
    expected = {
        "concept-plain-1": last,
        "concept-icl-1": f"{pairs}\n\n{last}",
        "concept-infer-1": f"{pairs}\n\nStyle:",
        "concept-respond-1": f"Style: salty\n\n{last}",
        "concept-improve-1": "Question: 5 min 6\nDraft: do nine mi\nAnswer:",
    }
    for name, document in expected.items():
        method = name.split("-")[1]
        assert plain(filled(name, method, **{key: values[key] for key in METHODS[method]})) == document


GOOD = "[system]\n{examples}\n\n[user]\n{question}\n[example]\n{question} {answer}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Hello.\n" + GOOD, "before the first section"),
        (GOOD + "[user]\nagain\n", "twice"),
        (GOOD + "[assistant]\n", "none of system"),
        ("[system]\n{question}\n", "no \\[user\\]"),
        ("[user]\n{question} {answers}\n", "unknown"),
        ("[user]\n{question} {}\n", "unknown"),
        ("[user]\n{examples}\n\n{question}\n", "need each other"),
        ("[user]\n{question}\n[example]\n{question} {answer}\n", "need each other"),
        (GOOD.replace("{answer}", "{intent}"), "nothing else"),
        (GOOD.replace(" {answer}", ""), "nothing else"),
        ("[user]\n{examples}{question}\n[example]\n{question} {answer}\n", "paragraph of its own"),
        ("[user]\n{examples}\n{question}\n[example]\n{question} {answer}\n", "paragraph of its own"),
        ("[user]\nLook:\n{examples}\n[example]\n{question} {answer}\n", "paragraph of its own"),
    ],
)
def test_what_is_no_template_is_refused(text: str, problem: str):
    assert parse(GOOD, "here") == {
        "system": "{examples}",
        "user": "{question}",
        "example": "{question} {answer}",
    }
    with pytest.raises(DataError, match=problem):
        parse(text, "here")


def test_an_edited_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wordings, "FOLDER", tmp_path)
    edited = b"[user]\n{question}!\n"
    (tmp_path / "other-1.txt").write_bytes(edited)
    assert Template("other-1", hashlib.sha256(edited).hexdigest()).placeholders == {"question"}
    with pytest.raises(DataError, match="not the one of this version"):
        _ = Template("other-1", "0" * 64).sections
    with pytest.raises(DataError, match="cannot be read"):
        _ = Template("missing-1", "0" * 64).sections
