"""Checkpoints of an interrupted training: where they lie, which of them are whole, when they go.

They lie outside the declared output (Snakemake deletes that before each attempt), in ``<output folder>.state/<key>``
beside it. The key is a digest of everything that decides the training, so that a checkpoint of other settings is never
continued. A checkpoint is whole once its marker is there, written last, with the digests of all its files; a torn one
is removed and the one before it is used. Contract 8 of the architecture.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from w2s.artifact import Parents, file_digest, load, write_json
from w2s.fingerprint import fingerprint

MARKER = "complete.json"
PREFIX = "checkpoint-"
# One whole checkpoint must outlive the moment in which the next is written but not yet sealed.
KEPT = 2
logger = logging.getLogger(__name__)


def state_root(output: Path) -> Path:
    """The folder of all states of the artifact whose manifest is ``output``."""
    return output.parent.with_name(output.parent.name + ".state")


def state_key(script: Path, spec: Mapping[str, Any], parents: Parents, layout: str) -> str:
    """Digest (16 hex digits) of what decides a training.

    Args:
        script: the stage's script; its code counts, with the modules it imports.
        spec: settings that change the result.
        parents: manifests of what is trained and on what; their contents count, not their paths.
        layout: how weights are spread over processes; the files of a checkpoint differ with it.
    """
    digests: dict[str, Any] = {}
    for name, value in parents.items():
        if value is not None:
            digests[name] = [load(path).digest for path in ([value] if isinstance(value, Path) else value)]
    content = {"code": fingerprint(script), "spec": dict(spec), "parents": digests, "layout": layout}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def prepare(output: Path, key: str) -> Path:
    """Make the state folder of ``key`` and remove the states of other keys: nobody will continue them."""
    root = state_root(output)
    folder = root / key
    folder.mkdir(parents=True, exist_ok=True)
    for other in root.iterdir():
        if other.name != key:
            logger.info("removing the state of other settings: %s", other)
            shutil.rmtree(other, ignore_errors=True)
    return folder


def discard(output: Path) -> None:
    """Remove all states of ``output``: the artifact stands."""
    shutil.rmtree(state_root(output), ignore_errors=True)


def seal(checkpoint: Path) -> None:
    """Write the marker that says that ``checkpoint`` is whole, with the digests of its files."""
    files = {
        path.relative_to(checkpoint).as_posix(): file_digest(path)
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != MARKER
    }
    write_json({"files": files}, checkpoint / MARKER)


def newest_whole(state: Path) -> Path | None:
    """The newest whole checkpoint in ``state``, or None. Torn ones are removed, with a word in the log."""
    found = [path for path in state.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    for checkpoint in sorted(found, key=step_of, reverse=True):
        problem = torn(checkpoint)
        if problem is None:
            return checkpoint
        logger.warning("%s is torn (%s): it is removed and the one before it is used", checkpoint, problem)
        shutil.rmtree(checkpoint)
    return None


def step_of(checkpoint: Path) -> int:
    """The training step after which ``checkpoint`` was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def torn(checkpoint: Path) -> str | None:
    """Why ``checkpoint`` cannot be used, or None if it is whole."""
    try:
        files = dict(json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))["files"])
    except FileNotFoundError:
        return "it was not finished"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its marker cannot be read: {error}"
    if not files:
        return "its marker names no file"
    for name, digest in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"file {name} is gone"
        if file_digest(path) != digest:
            return f"file {name} is not what was written"
    return None
