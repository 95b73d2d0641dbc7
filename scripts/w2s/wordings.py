"""Texts in ``prompts/`` whose digests are pinned in code, so that a wording never changes under a name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from w2s.errors import DataError

FOLDER = Path(__file__).resolve().parents[2] / "prompts"


def read_pinned(name: str, sha256: str, registry: str) -> tuple[str, Path]:
    """The text of ``prompts/<name>.txt`` and its path.

    Args:
        name: with its version.
        sha256: digest that the file must have.
        registry: the file of ours that pins it, for the message.

    Raises:
        DataError: the file is missing, or its text is not the one of this version.
    """
    path = FOLDER / f"{name}.txt"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"the template cannot be read ({error.strerror})", where=path) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"the text of template {name} is not the one of this version",
            where=f"{path}, SHA-256 {found}",
            instead="the file as it was; a new wording is a new file with the next version in its name, "
            f"entered in TEMPLATES ({registry})",
        )
    return content.decode(), path
