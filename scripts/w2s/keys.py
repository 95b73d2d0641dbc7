"""The key of a piece of work: equal for two jobs whose artifacts are interchangeable, wherever and by whomever they run.

It is the SHA-256 over all that decides what a stage makes: its name, the fingerprint of its code, its spec, the
container and the versions of the libraries, and each input by its role, its place beside the output (stages read names
from paths, and manifests record where their parents lie) and its content. Options and absolute paths do not count, and
neither do dates, machines and users.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from w2s import artifact
from w2s.errors import ArtifactError
from w2s.fingerprint import fingerprint


class Work(NamedTuple):
    """What a stage is told to make.

    Attributes:
        output: manifest of the artifact.
        spec: settings that change the result.
        inputs: role -> files, in their order.
        contents: name -> file of what counts by its content alone, wherever it lies.
    """

    output: Path
    spec: Mapping[str, Any]
    inputs: Mapping[str, Sequence[Path]]
    contents: Mapping[str, Path] = {}


def key_of(work: Work, script: Path) -> str | None:
    """The key (64 hex digits) of what ``script`` makes; None if an input cannot be read: the stage says what is wrong."""
    folder = work.output.parent
    try:
        decisive = {
            "stage": script.stem,
            "code": fingerprint(script),
            "spec": work.spec,
            "container": artifact.container_digest(),
            "software": artifact.software(),
            "inputs": {
                role: [[os.path.relpath(path, folder), _content(path)] for path in paths]
                for role, paths in work.inputs.items()
            },
            "contents": {name: artifact.file_digest(path) for name, path in work.contents.items()},
        }
    except (ArtifactError, OSError):
        return None
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()


def _content(path: Path) -> str:
    """An artifact by the seal of its manifest, another file by its digest."""
    if path.name == artifact.MANIFEST:
        return artifact.load(path).manifest[artifact.SEAL]
    return artifact.file_digest(path)
