"""From what a user points at to the artifact that it belongs to, and from an artifact to what it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from w2s.artifact import MANIFEST, Artifact
from w2s.errors import ArtifactError

ROOT = Path(__file__).resolve().parents[2]


class Parent(NamedTuple):
    """Under which name a parent went in, where its manifest lies, and its digest then."""

    name: str
    path: Path
    digest: str


def given(path: Path) -> Path:
    """The path as it was typed, or below the checkout where it only is there: commands work from any folder.

    Raises:
        ArtifactError: it is in neither place.
    """
    for found in (path, ROOT / path):
        if found.exists():
            return found
    raise ArtifactError(
        "there is no such file or folder",
        where=path,
        instead="an artifact's folder, its manifest.json or a file in it",
    )


def shown(path: Path) -> str:
    """A path as messages write it: relative to where the command runs if it lies below, so that it can be copied."""
    here = Path.cwd()
    whole = path.resolve()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)


def owner(path: Path) -> Path | None:
    """The manifest of the artifact that a file or folder is, or lies in; None if it is in none."""
    here = path if path.is_dir() else path.parent
    for folder in (here, *here.resolve().parents):
        if (folder / MANIFEST).is_file():
            return folder / MANIFEST
        if folder == ROOT:
            return None
    return None


def parents(artifact: Artifact) -> list[Parent]:
    """What an artifact was made from, in the order in which its stage took it."""
    return [
        Parent(name, (artifact.folder.resolve() / one["path"]).resolve(), one["digest"])
        for name, entry in artifact.manifest["parents"].items()
        for one in (entry if isinstance(entry, list) else [entry])
    ]
