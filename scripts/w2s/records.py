"""The form of an artifact's two records: what stages and tools rely on in a manifest and in a run record.

A seal tells that a record is as somebody made it, not that it is one of ours: another version or another program may have.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from w2s.errors import ArtifactError

OWN = ("manifest.json", "run.json")
# A form is a type, a mapping of keys to forms (...: any key), or a tuple of forms of which one must fit.
PARENT = {"path": str, "digest": str}
MANIFEST = {
    "stage": str,
    "digest": str,
    "files": {...: {"bytes": int, "sha256": str}},
    "spec": dict,
    "parents": {...: (PARENT, list)},
    "facts": dict,
}
NUMBER = (int, float)
RUN = {
    "code": (type(None), str),
    "sources": {...: str},
    "started": str,
    "wall_s": NUMBER,
    "peak_memory_mb": NUMBER,
    "measured": dict,
    "git": (type(None), {"commit": str, "dirty": bool}),
    "container": (type(None), str),
    "environment": {
        "python": str,
        "libraries": {...: str},
        "system": str,
        "processor": str,
        "gpus": list,
    },
}


def check_manifest(record: Mapping[str, Any], path: Path) -> None:
    """Refuse a manifest of another form, or one that lists a file beyond its folder.

    Raises:
        ArtifactError: what of it is not as it must be.
    """
    fault = _fault(record, MANIFEST, "")
    for entry in record["parents"].values() if fault is None else ():
        for parent in entry if isinstance(entry, list) else ():
            fault = fault or _fault(parent, PARENT, "parents")
    for name in record["files"] if fault is None else ():
        pure = PurePosixPath(name)
        if not pure.parts or pure.is_absolute() or ".." in pure.parts or str(pure) != name or name in OWN:
            fault = f"files: {name!r} is no file within the artifact's folder"
    _refuse(fault, path)


def check_run(record: Mapping[str, Any], path: Path) -> None:
    """Refuse a run record of another form.

    Raises:
        ArtifactError: what of it is not as it must be.
    """
    fault = _fault(record, RUN, "")
    if fault is None and not all(isinstance(name, str) for name in record["environment"]["gpus"]):
        fault = "environment.gpus: no list of names"
    _refuse(fault, path)


def _refuse(fault: str | None, path: Path) -> None:
    if fault is not None:
        raise ArtifactError(
            f"the record is of another form: {fault}",
            where=path,
            instead="an artifact that this version of the workflow made",
        )


def _fault(value: Any, form: Any, place: str) -> str | None:
    """Where a value is not of a form, None if it is."""
    if isinstance(form, tuple):
        faults = [_fault(value, one, place) for one in form]
        return None if None in faults else faults[-1]
    if isinstance(form, type):
        # To Python true and false are numbers, too.
        fits = isinstance(value, form) and not (isinstance(value, bool) and form is not bool)
        return None if fits else f"{place}: {value!r:.40} is no {form.__name__}"
    if not isinstance(value, dict):
        return f"{place}: {value!r:.40} is no mapping"
    for key, inner in form.items():
        for name in value if key is ... else [key]:
            below = f"{place}.{name}".lstrip(".")
            fault = _fault(value[name], inner, below) if name in value else f"{below} is missing"
            if fault is not None:
                return fault
    return None
