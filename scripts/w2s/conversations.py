"""Conversations in tables: what an assistant is to answer, as JSON text of messages."""

from __future__ import annotations

from typing import Any

from w2s.errors import DataError
from w2s.strict_json import parse

ROLES = ("system", "user", "assistant")
KEYS = {"role", "content"}


def read_messages(text: object, where: object) -> list[dict[str, str]]:
    """The messages of a conversation that the assistant is to continue; an empty system text is no message.

    Args:
        text: JSON text of a list of ``{"role": "system" | "user" | "assistant", "content": text}``.
        where: file and row, for errors.

    Raises:
        DataError: it is something else, the system speaks other than first, or the user does not speak last.
    """
    try:
        found = parse(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(_is_message(message) for message in found):
        raise DataError("these are no messages", where=where, instead='[{"role": "user", "content": "..."}]')
    messages = [message for message in found if message["role"] != "system" or message["content"]]
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"]:
        raise DataError("the user does not speak last", where=where)
    if any(message["role"] == "system" for message in messages[1:]):
        raise DataError("a system message can only come first", where=where)
    return messages


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == KEYS
        and value["role"] in ROLES
        and isinstance(value["content"], str)
    )
