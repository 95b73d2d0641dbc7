"""JSON that says one thing only: what Python's reader takes in silence, or ends in another kind of error, is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from w2s.errors import ArtifactError


def parse(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not JSON, nested too deeply, a number too long to be one, or a key twice in one object; its text says
            which, for a message.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
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
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found
