"""What must not be said: values of the environment that are secrets, taken out of the last words of a stage.

The stages put no secret into a message; libraries may, in the text of an exception. Endpoints, which repeat pieces of a
key, have a stricter rule of their own (:func:`w2s.endpoints.redact`).
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from urllib.parse import quote, unquote, urlsplit

# By the words of a variable's name, so that W2S_OPT_TOKENIZER is none.
NAME = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)
ADDRESS = re.compile(r"proxy$|url$", re.IGNORECASE)
# Between the scheme of an address and its host: up to the last @, for a password may hold one, and quotes.
USER = re.compile(r"(://)[^\s/]+@")
# Shorter values are no secrets, and words of ordinary messages.
SHORTEST = 8
HIDDEN = "[secret]"


def values(environment: Mapping[str, str]) -> list[str]:
    """Values of the environment that are secrets in all their spellings, the longest first."""
    found = {value for name, value in environment.items() if NAME.search(name)}
    found |= {
        password
        for name, value in environment.items()
        if ADDRESS.search(name)
        for password in _passwords(value)
    }
    long = {value.strip() for value in found if len(value.strip()) >= SHORTEST}
    return sorted({spelling for value in long for spelling in _spellings(value)}, key=len, reverse=True)


def hide(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """``text`` without secrets of the environment, and without user and password of addresses."""
    for value in values(environment):
        text = text.replace(value, HIDDEN)
    return USER.sub(rf"\1{HIDDEN}@", text)


def report(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Print a traceback as the interpreter does, without secrets: a ``sys.excepthook``.

    Whatever goes wrong here, the words are not printed unsearched, as the interpreter would after a hook that failed.
    """
    try:
        words = hide("".join(traceback.format_exception(kind, error, trace)))
    except Exception:
        words = f"{kind.__name__}: its words could not be searched for secrets\n"
    print(words, end="", file=sys.stderr, flush=True)


def watch() -> None:
    """Have every traceback that the interpreter prints in this process go through :func:`report`.

    Those of threads, and of what is raised where nobody can catch it (``__del__``), have hooks of their own.
    """
    sys.excepthook = report
    threading.excepthook = _of_thread
    sys.unraisablehook = lambda args: report(args.exc_type, args.exc_value, args.exc_traceback)


def _of_thread(args: threading.ExceptHookArgs) -> None:
    # SystemExit is a thread's way to end, of which Python says nothing either.
    if not issubclass(args.exc_type, SystemExit):
        report(args.exc_type, args.exc_value, args.exc_traceback)


def _spellings(value: str) -> Iterator[str]:
    """A value as it is, as an address writes it, and as Python and JSON write it in quotes."""
    yield value
    # By its bytes: a value that is not UTF-8 cannot be written otherwise.
    yield quote(os.fsencode(value), safe="")
    yield repr(value)[1:-1]
    # Python escapes a ' only where the text around it holds both kinds of quotes.
    yield repr("'\"" + value)[len("'\\'\"") : -1]
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]


def _passwords(address: str) -> list[str]:
    """The password of an address, or the user where there is none: a token may stand in its place."""
    try:
        parts = urlsplit(address)
        secret = parts.password or parts.username
    except ValueError:
        secret = None
    return [secret, unquote(secret)] if secret else []
