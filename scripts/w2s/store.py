"""Nothing is computed twice: an artifact that the same work has made is taken from where it lies.

What the same work is, its key says (:mod:`w2s.keys`). It is looked for in place first, for Snakemake deletes a declared
output before each job and leaves the rest of the folder; then in a *store*, a folder that runs and users share:
``W2S_STORE``, by default the setting ``runtime.store``. An artifact lies there in ``<first two digits>/<key>/``.

- *Publishing*: a copy is made beside its place, checked, written out to the disk and renamed. Of several publishers the
  first wins. Files are read-only.
- *Fetching*: a copy is made beside the output, hashed from the first file to the last, and renamed. What does not fit its
  manifest is set aside in the store and named.
- The store never fails a job: whatever is wrong with it is a warning, and the stage computes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from w2s import artifact, checkpoints
from w2s.artifact import CARD, MANIFEST, RUN_RECORD
from w2s.errors import ArtifactError

VARIABLE = "W2S_STORE"
# "no": what was made before is not looked for, here nor in a store.
REUSE = "W2S_REUSE"
DAMAGED = ".damaged-"
PARTIAL = ".partial"
CHUNK = 1 << 30
# A file system, or two of them, between which the kernel cannot copy by itself.
CANNOT_SHARE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
logger = logging.getLogger(__name__)


def root() -> Path | None:
    """The store, None without one."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else None


def place(store: Path, key: str) -> Path:
    """Where the artifact of a key lies."""
    return store / key[:2] / key


def reuse(output: Path, key: str | None) -> bool:
    """Have the artifact stand at ``output`` if work of this key has made it before; returns whether it does.

    One that stands already is left to be made again: who runs a stage over it by hand wants that.
    """
    if key is None or output.exists() or os.environ.get(REUSE, "").lower() in ("0", "no", "false"):
        return False
    if artifact.restore(output, key):
        logger.info("%s was made already by the same work: nothing is left to do", output)
    elif not fetch(output, key):
        return False
    checkpoints.discard(output)
    return True


def fetch(output: Path, key: str) -> bool:
    """Copy the artifact of a key from the store to ``output``; returns whether it was there and is whole."""
    store = root()
    if store is None:
        return False
    with _warning(f"cannot be read from the store {store}"):
        if not store.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is not there", str(store))
        entry = place(store, key)
        if not entry.is_dir():
            return False
        try:
            with artifact.replacing(output.parent) as copy:
                _copy_folder(entry, copy)
                check(copy / MANIFEST, key)
                run = artifact.load_run(copy / MANIFEST)
                run["fetched"] = {"from": str(entry), "at": datetime.now(UTC).isoformat(timespec="seconds")}
                artifact.write_json(artifact.sealed(run), copy / RUN_RECORD)
        except (ArtifactError, FileNotFoundError) as error:
            _set_aside(entry, key, error)
            return False
        logger.info("%s was fetched from %s: nothing is left to do", output, entry)
        with contextlib.suppress(OSError):  # the date of an entry is that of its last use
            os.utime(entry)
        return True
    return False


def publish(output: Path, key: str | None) -> bool:
    """Copy an artifact into the store, if there is one and work of this key made it; returns whether it is there now."""
    store = root()
    if store is None or key is None:
        return False
    with _warning(f"cannot be published in the store {store}"):
        if not store.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is not there", str(store))
        entry = place(store, key)
        if entry.is_dir():
            return True
        if artifact.load_run(output).get("key") != key:
            return False
        entry.parent.mkdir(exist_ok=True)
        # Not by tempfile, whose folders are closed to the group.
        copy = entry.with_name(f".{key}.{os.urandom(6).hex()}{PARTIAL}")
        copy.mkdir()
        try:
            _copy_folder(output.parent, copy, kept=True)
            check(copy / MANIFEST, key)
            _rename(copy, entry)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        logger.info("published: %s", entry)
        return True
    return False


def check(manifest: Path, key: str) -> None:
    """Hash an artifact and compare it with its records.

    Raises:
        ArtifactError: it is not whole, or of other work.
    """
    _within(manifest.parent)
    artifact.verify(manifest)
    if artifact.load_run(manifest).get("key") != key:
        raise ArtifactError("the artifact is not what was made by work of this key", where=manifest.parent)


@contextlib.contextmanager
def _warning(what: str) -> Iterator[None]:
    """Within, what goes wrong is told and no more."""
    try:
        yield
    except (ArtifactError, OSError) as error:
        logger.warning("an artifact %s, the work goes on without: %s", what, error)


def _set_aside(entry: Path, key: str, problem: Exception) -> None:
    """Take a damaged entry out of the way; one that is whole, or has been removed meanwhile, stays as it is."""
    try:
        check(entry / MANIFEST, key)
    except (ArtifactError, OSError):
        if not entry.is_dir():
            return
        aside = entry.with_name(f"{key}{DAMAGED}{os.urandom(4).hex()}")
        logger.warning("the store holds a damaged artifact, set aside as %s: %s", aside, problem)
        os.rename(entry, aside)
    else:
        logger.warning("the copy of %s was damaged on its way: %s", entry, problem)


def _copy_folder(source: Path, target: Path, *, kept: bool = False) -> None:
    """Copy plain files and folders; ``kept``: read-only, and on the disk before this returns.

    Raises:
        ArtifactError: there is something else in the folder.
    """
    folders = [target]
    for path in _within(source):
        if path == source / CARD:  # of the tables of one run, no part of the artifact
            continue
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
            folders.append(copy)
        else:
            _copy_file(path, copy, kept)
    for folder in folders if kept else ():
        _sync(folder)


def _within(folder: Path) -> list[Path]:
    """What lies in a folder, folders before what lies in them.

    Raises:
        ArtifactError: a link, or something else that is neither a file nor a folder.
    """
    found = sorted(folder.rglob("*"))
    for path in found:
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise ArtifactError("neither a file nor a folder", where=path)
    return found


def _copy_file(source: Path, target: Path, kept: bool) -> None:
    """Copy a file: blocks are shared where the file system can do that, and copied by the server where that can."""
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        try:
            while os.copy_file_range(reader.fileno(), writer.fileno(), CHUNK):
                pass
        except OSError as error:
            if error.errno not in CANNOT_SHARE:
                raise
            shutil.copyfileobj(reader, writer)
        if kept:
            os.fchmod(writer.fileno(), os.fstat(writer.fileno()).st_mode & 0o555)
            os.fsync(writer.fileno())


def _rename(copy: Path, entry: Path) -> None:
    """Put a finished copy into its place, unless another publisher has been there."""
    try:
        os.rename(copy, entry)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    _sync(entry.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
