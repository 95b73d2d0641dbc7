"""Whether a source can be had, asked while the plan is made: a missing file is no reason to fail in the night."""

from __future__ import annotations

import json
import os
from pathlib import Path

from w2s.errors import DataError, EnvironmentProblem
from w2s.plan import Plan
from w2s.schema import Source


def inputs(plan: Plan, name: str) -> list[str]:
    """Inputs of ``fetch``: files of a local source that have no declared digest.

    Raises:
        DataError, EnvironmentProblem: the source is not whole, and fetching it here will not help.
    """
    source, manifest = plan.config.sources[name], Path(plan.source(name))
    if manifest.is_file():
        check_fetched(name, manifest)
    elif source.kind == "local":
        check_folder(name, source, Path(plan.folder(name)))
    elif offline() and not cached(source):
        raise EnvironmentProblem(
            f"source {name!r} is not fetched, and the hubs are switched off (HF_HUB_OFFLINE)",
            where=manifest.parent,
            instead="`snakemake prefetch` where there is a network, with the same configuration files",
        )
    return plan.undeclared_files(name)


def check_fetched(name: str, manifest: Path) -> None:
    """Refuse a fetched source of which a file has gone, or has another size than when it was verified."""
    files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    sizes = {file: entry["bytes"] for file, entry in files.items()}
    gone = [file for file, size in sizes.items() if not _has_size(manifest.parent / file, size)]
    if gone:
        raise DataError(
            f"source {name!r} was fetched, but {gone[0]} is missing or cut short ({len(gone)} of {len(sizes)} files)",
            where=manifest.parent,
            instead=f"rm -r {manifest.parent}, then `snakemake prefetch` where there is a network",
        )


def check_folder(name: str, source: Source, folder: Path) -> None:
    """Refuse a local source of which a file is not there."""
    gone = [file for file in source.files if not (folder / file).is_file()]
    if gone:
        raise DataError(
            f"source {name!r} has no file {gone[0]} ({len(gone)} of {len(source.files)} missing)",
            where=folder,
            instead=f"the folder that holds it, as sources.{name}.origin",
        )


def offline() -> bool:
    """Whether the hub's library was told to stay off the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def cached(source: Source) -> bool:
    """Whether the hub's cache has the source's revision (be it whole or not: `fetch` looks closer)."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    repository = f"{source.kind}s--{source.origin.replace('/', '--')}"
    return source.revision is not None and (cache / repository / "snapshots" / source.revision).is_dir()


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
