"""What must not be said: values of the environment that are secrets, taken out of the last words of a stage.

The stages put no secret into a message; libraries may, in the text of an exception. Endpoints, which repeat pieces of a
key, have a stricter rule of their own (:func:`w2s.endpoints.redact`).
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from urllib.parse import quote, unquote, urlsplit

# By the words of a variable's name, so that W2S_OPT_TOKENIZER is none.
NAME = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)
ADDRESS = re.compile(r"proxy$|url$", re.IGNORECASE)
# Between the scheme of an address and its host.
USER = re.compile(r"(\w+://)[^\s/@'\"]+@")
# Shorter values are no secrets, and words of ordinary messages.
SHORTEST = 8
HIDDEN = "[secret]"


def values(environment: Mapping[str, str]) -> list[str]:
    """Values of the environment that are secrets, the longest first, also as an address would spell them."""
    found = {value for name, value in environment.items() if NAME.search(name)}
    found |= {
        password
        for name, value in environment.items()
        if ADDRESS.search(name)
        for password in _passwords(value)
    }
    long = {value.strip() for value in found if len(value.strip()) >= SHORTEST}
    return sorted(long | {quote(value, safe="") for value in long}, key=len, reverse=True)


def hide(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """``text`` without secrets of the environment, and without user and password of addresses."""
    for value in values(environment):
        text = text.replace(value, HIDDEN)
    return USER.sub(rf"\1{HIDDEN}@", text)


def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback as the interpreter does, without secrets: a ``sys.excepthook``."""
    print(hide("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr, flush=True)


def _passwords(address: str) -> list[str]:
    try:
        password = urlsplit(address).password
    except ValueError:
        password = None
    return [password, unquote(password)] if password else []
