"""Transcripts split, turned into messages and back, and prompts compared."""

from __future__ import annotations

import pytest
from w2s.dialogue import from_messages, normalise_prompt, split_transcript, to_messages
from w2s.errors import DataError

TWO_TURNS = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: How are you?\n\nAssistant: Fine."


def test_split_is_at_the_last_marker_and_keeps_the_blank() -> None:
    prompt, response = split_transcript(TWO_TURNS)
    assert prompt == "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: How are you?\n\nAssistant:"
    assert response == " Fine."
    assert prompt + response == TWO_TURNS


def test_split_of_a_text_without_answer_names_its_place() -> None:
    with pytest.raises(DataError, match=r"(?s)no \"\\n\\nAssistant:\".*file\.jsonl:7"):
        split_transcript("\n\nHuman: Hi", "file.jsonl:7")


def test_messages_alternate_and_end_with_the_response() -> None:
    assert to_messages(*split_transcript(TWO_TURNS)) == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "How are you?"},
        {"role": "assistant", "content": "Fine."},
    ]


def test_messages_of_an_open_prompt_have_no_empty_answer() -> None:
    assert to_messages("\n\nHuman: Hi\n\nAssistant:") == [{"role": "user", "content": "Hi"}]


def test_turns_in_a_row_by_one_speaker_are_joined() -> None:
    prompt = "\n\nHuman: One.\n\nHuman: Two.\n\nAssistant: A.\n\nAssistant:"
    assert to_messages(prompt, " B.") == [
        {"role": "user", "content": "One.\n\nTwo."},
        {"role": "assistant", "content": "A.\n\nB."},
    ]
    assert to_messages(prompt)[-1] == {"role": "assistant", "content": "A."}


def test_a_plain_instruction_is_one_user_message() -> None:
    assert to_messages("Name a Human: right.", " Freedom.") == [
        {"role": "user", "content": "Name a Human: right."},
        {"role": "assistant", "content": "Freedom."},
    ]


def test_an_empty_response_stays_a_message() -> None:
    assert to_messages("\n\nHuman: Hi\n\nAssistant:", "")[-1] == {"role": "assistant", "content": ""}


def test_text_and_messages_are_each_others_reverse() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi\n\nthere"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
    ]
    text = from_messages(messages)
    assert text == "\n\nSystem: Be brief.\n\nHuman: Hi\n\nthere\n\nAssistant: Hello\n\nHuman: Why?"
    assert to_messages(text) == messages


def test_system_marker_inside_a_dialogue_is_text() -> None:
    assert to_messages("\n\nHuman: Look:\n\nSystem: halted\n\nAssistant:") == [
        {"role": "user", "content": "Look:\n\nSystem: halted"}
    ]


@pytest.mark.parametrize("roles", [["tool"], ["user", "system"]])
def test_unknown_roles_are_refused(roles: list[str]) -> None:
    with pytest.raises(DataError, match=f"role {roles[-1]!r}"):
        from_messages([{"role": role, "content": "x"} for role in roles])


def test_prompts_differ_only_by_form() -> None:
    assert normalise_prompt("\n\nHuman:  ＨＥＬＬＯ\u00a0Straße \n") == normalise_prompt(
        "human: hello STRASSE"
    )
    assert normalise_prompt("Hello there") != normalise_prompt("Hello, there")
