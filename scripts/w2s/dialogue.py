"""Dialogue texts: a transcript as prompt and response, as chat messages, and prompts made comparable.

The form is that of HH-RLHF: turns begin with "\\n\\nHuman:" or "\\n\\nAssistant:"; the prompt is everything
up to and with the last "\\n\\nAssistant:", the response is what follows, its leading blank included, so that
the tokens of the two add up to the tokens of the whole.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from w2s.errors import DataError

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"
SYSTEM = "\n\nSystem:"
MARKERS = {"user": HUMAN, "assistant": ASSISTANT, "system": SYSTEM}
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
# A system turn is only known at the very start: "\n\nSystem:" inside a dialogue is somebody's text.
_SYSTEM = re.compile(r"\A\s*System:(.*?)(?=\n\n(?:Human|Assistant):|\Z)", re.DOTALL)
_ROLES = {"Human": "user", "Assistant": "assistant"}


def split_transcript(text: str, where: object | None = None) -> tuple[str, str]:
    """Split a transcript at its last "\\n\\nAssistant:" into prompt (marker included) and response.

    Raises:
        DataError: the text holds no such marker.
    """
    before, marker, response = text.rpartition(ASSISTANT)
    if not marker:
        raise DataError(
            'the transcript has no "\\n\\nAssistant:", so it has no response',
            where=where,
            instead='a dialogue "\\n\\nHuman: ...\\n\\nAssistant: ..."',
        )
    return before + marker, response


def to_messages(prompt: str, response: str | None = None) -> list[dict[str, str]]:
    """A dialogue as chat messages, for chat templates.

    Turns in a row by the same speaker are joined by a blank line, since most templates want the roles to
    alternate. A prompt without any turn marker is one user message.

    Args:
        prompt: text that ends in "\\n\\nAssistant:", or a plain instruction.
        response: the assistant's answer; None leaves the dialogue open.

    Returns:
        ``[{"role": "system"|"user"|"assistant", "content": str}, ...]``, contents stripped.
    """
    messages: list[dict[str, str]] = []
    system = _SYSTEM.match(prompt)
    if system:
        messages.append({"role": "system", "content": system[1].strip()})
        prompt = prompt[system.end() :]
    first, *turns = _TURN.split(prompt)
    if first.strip():
        _append(messages, "user", first)
    for speaker, content in zip(turns[::2], turns[1::2], strict=True):
        _append(messages, _ROLES[speaker], content)
    if len(turns) > 1 and turns[-2] == "Assistant" and not turns[-1].strip():
        _close(messages)
    if response is not None:
        _append(messages, "assistant", response)
    return messages


def from_messages(messages: Sequence[Mapping[str, str]]) -> str:
    """Chat messages as dialogue text in HH's form, the reverse of :func:`to_messages`.

    Raises:
        DataError: a message has another role than user, assistant, or a system message at the start.
    """
    parts = []
    for position, message in enumerate(messages):
        role = message["role"]
        if role not in MARKERS or (role == "system" and position > 0):
            raise DataError(
                f"message {position} has the role {role!r}",
                instead="user or assistant (system only as the first)",
            )
        parts.append(f"{MARKERS[role]} {message['content']}")
    return "".join(parts)


def normalise_prompt(prompt: str) -> str:
    """The prompt for near-duplicate comparison: Unicode NFKC, case folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def _append(messages: list[dict[str, str]], role: str, content: str) -> None:
    content = content.strip()
    if messages and messages[-1]["role"] == role:
        joined = (messages[-1]["content"], content)
        messages[-1]["content"] = "\n\n".join(part for part in joined if part)
    else:
        messages.append({"role": role, "content": content})


def _close(messages: list[dict[str, str]]) -> None:
    """Take away the open assistant turn at the end, unless it was joined to one that says something."""
    if messages[-1]["role"] == "assistant" and not messages[-1]["content"]:
        messages.pop()
