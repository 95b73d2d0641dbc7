"""JSON that says one thing only: keys that Python's reader drops in silence, and what ends in another kind of error, are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from w2s.errors import ArtifactError


def parse(text: str, *, finite: bool = False) -> Any:
    """The value of a JSON text.

    Not all that JSON forbids is refused: rows and settings of models from outside, which Python wrote, hold NaN and
    Infinity where nobody looks, and a string may hold half a surrogate pair. Who reads such a value has to refuse it
    (:mod:`w2s.readers` does).

    Args:
        finite: refuse NaN, Infinity and numbers that are too large for a float (1e999) too, as settings of ours want it.

    Raises:
        ValueError: not JSON, nested too deeply, a number too long to be one, or a key twice in one object; its text says
            which, for a message.
    """
    strict: dict[str, Any] = {"parse_constant": _refuse, "parse_float": _finite} if finite else {}
    try:
        return json.loads(text, object_pairs_hook=_object, **strict)
    except json.JSONDecodeError as error:
        line = "" if error.lineno == 1 else f"line {error.lineno}, "
        raise ValueError(f"{error.msg} at {line}column {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of an artifact or of a model.

    Raises:
        ArtifactError: the file cannot be read, or holds something else.
    """
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"not valid JSON ({error})", where=path) from error
    if not isinstance(found, dict):
        raise ArtifactError(f"no JSON object but a {type(found).__name__}", where=path)
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice")
        found[key] = value
    return found


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)
