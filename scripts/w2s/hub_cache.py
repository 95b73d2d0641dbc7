"""Repositories of the Hugging Face hub through its cache: download, the hub's own digests, errors without secrets.

The cache links ``snapshots/<revision>/<path>`` to ``blobs/<digest>``; the digest is the hub's own at that revision:
SHA-256 for a large file (kept by LFS or Xet), git's blob SHA-1 for a small one. So a file can be checked without
network, and a damaged cache is noticed.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s.artifact import DISK_FULL
from w2s.errors import DataError, EnvironmentProblem, W2SError

SHA1 = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
GLOB = re.compile(r"[*?\[]")
# A signed address holds its credentials in the query, and libraries put addresses into their messages.
ADDRESS = re.compile(r"(https?://)(?:[^\s/@]*@)?([^\s?'\"]+)(?:\?[^\s'\"]*)?")

log = logging.getLogger("fetch")


@dataclass(frozen=True)
class Repository:
    """A repository at a revision: ``kind`` "dataset" or "model", ``origin`` owner/name, ``revision`` a commit."""

    kind: str
    origin: str
    revision: str

    def __str__(self) -> str:
        return f"{self.kind} {self.origin} at {self.revision}"


def is_pattern(name: str) -> bool:
    """Whether a declared name is a glob pattern."""
    return GLOB.search(name) is not None


def snapshot(repository: Repository, names: list[str]) -> tuple[Path, W2SError | None]:
    """Download files (names and patterns) into the hub's cache, where an interrupted download goes on.

    Returns:
        The cache's folder of the revision; and, where the hub could not be asked, so that the folder is as it was
        found, the error that says so.

    Raises:
        DataError, EnvironmentProblem: the hub refused or could not be reached, and the cache has no such folder.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub

    download = functools.partial(
        huggingface_hub.snapshot_download,
        repository.origin,
        repo_type=repository.kind,
        revision=repository.revision,
        allow_patterns=names,
    )
    try:
        return Path(download(etag_timeout=30)), None
    except _errors() as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        found = problem(error, repository, names)
    # The library asks for the list of files even if all of them are there, unless it has kept that list.
    try:
        folder = Path(download(local_files_only=True))
    except _errors():
        # "from None": the library's own message and traceback may hold signed addresses.
        raise found from None
    if any(map(is_pattern, names)):
        log.warning("%s: patterns match what the hub's cache holds, be it all or not", found.what)
    return folder, found


def digests(repository: Repository, folder: Path, names: Sequence[str]) -> dict[str, str]:
    """The hub's digests (64 hex: SHA-256, 40 hex: git's SHA-1) of files in the cache's folder of a revision.

    From the cache's links; for files that are no links there, from the list of files that the cache kept or that
    the hub gives now.

    Raises:
        EnvironmentProblem: neither tells; the message names the files.
    """
    known = {name: linked_digest(folder / name) for name in names}
    unlinked = [name for name in names if not known[name]]
    return {**known, **(_listed_digests(repository, unlinked) if unlinked else {})}


def linked_digest(entry: Path) -> str:
    """The digest that the cache keeps a file under, or "" if the file is no link to one.

    Only the first link counts: the blob may be a link in turn, to a store of the cache's where files are named by
    a hash of another kind.
    """
    if not entry.is_symlink():
        return ""
    blob = Path(os.readlink(entry))
    known = SHA256.fullmatch(blob.name) or SHA1.fullmatch(blob.name)
    return blob.name if known and blob.parent.name == "blobs" else ""


def _listed_digests(repository: Repository, names: list[str]) -> dict[str, str]:
    import huggingface_hub
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    at: dict[str, Any] = {"repo_type": repository.kind, "revision": repository.revision}
    reason = ""
    try:
        files: Sequence[Any] = huggingface_hub.get_cached_repo_tree(repository.origin, **at)
    except CachedRepoTreeNotFoundError:
        try:
            files = huggingface_hub.HfApi().get_paths_info(repository.origin, names, **at)
        except _errors() as error:
            files, reason = [], f" ({type(error).__name__}: {first_line(error)})"
    listed = {
        file.path: file.lfs.sha256 if file.lfs else file.blob_id
        for file in files
        if isinstance(file, huggingface_hub.RepoFile)
    }
    missing = [name for name in names if name not in listed]
    if missing:
        raise EnvironmentProblem(
            f"cannot verify {', '.join(missing)}: no digest in the hub's cache or from the hub itself{reason}",
            where=repository,
            instead="declare path=sha256 for each, keep the links when copying the cache, or run with network",
        ) from None
    return {name: listed[name] for name in names}


def git_sha1(path: Path) -> str:
    """Git's digest of a file's content (a blob object), in hex."""
    head = f"blob {path.stat().st_size}\0".encode()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.sha1(head, usedforsecurity=False)).hexdigest()


def problem(
    error: Exception, repository: Repository, names: Collection[str]
) -> DataError | EnvironmentProblem:
    """Our error for one of the hub library's: what to do about it, and nothing secret in it."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{repository}, files {', '.join(names)}"
    if isinstance(error, GatedRepoError):
        return EnvironmentProblem(
            "the repository is gated", where=where, instead="accept its terms on the hub and set HF_TOKEN"
        )
    if isinstance(error, RevisionNotFoundError):
        return DataError("the repository has no such revision", where=where)
    if isinstance(error, RepositoryNotFoundError):
        return DataError(
            "no such repository, or a private one", where=where, instead="its right name, or HF_TOKEN"
        )
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return DataError("the repository has no such file at this revision", where=where)
    # --include, for then hf keeps the list of the repository's files in the cache as well.
    wanted = " ".join(f"--include {shlex.quote(name)}" for name in names)
    return EnvironmentProblem(
        "the hub cannot be reached, and its cache does not hold all the files "
        f"({type(error).__name__}: {first_line(error)})",
        where=where,
        instead=(
            "fetch them where there is network and bring the folder HF_HOME along: "
            f"hf download {repository.origin} {wanted} --repo-type {repository.kind} "
            f"--revision {repository.revision}; "
            "or download to a folder and use --kind local --folder <folder>"
        ),
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message, addresses without user, password and query."""
    lines = str(error).strip().splitlines()
    return ADDRESS.sub(r"\1\2", lines[0]) if lines else "no message"


def _errors() -> tuple[type[Exception], ...]:
    """What the hub's library raises for lack of network, of rights or of the thing asked for."""
    import httpx
    from huggingface_hub.errors import HFValidationError

    return OSError, RuntimeError, httpx.HTTPError, HFValidationError
