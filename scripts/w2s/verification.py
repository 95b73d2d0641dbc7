"""Every file of a run against what is written of it: artifacts by their manifests, figures and pages by the RO-Crate."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from w2s.artifact import CARD, MANIFEST, RUN_RECORD, Artifact, as_text, file_digest, files_digest, load
from w2s.errors import ArtifactError
from w2s.handles import owner, parents

CRATE = "ro-crate-metadata.json"
# Folders of a run that hold nothing that anything is made from.
UNRECORDED = ("logs", "benchmarks", ".snakemake")
AGAIN = "delete its manifest.json and run the workflow again"
SHORT = 12  # hex digits of a digest that is shown


class Verification:
    """Hashes files, each once, and keeps count."""

    def __init__(self) -> None:
        self._digests: dict[Path, str] = {}
        self._artifacts: dict[Path, Artifact | None] = {}
        self._asked: set[tuple[Path, str | None]] = set()
        self._others: set[Path] = set()
        self._without_record: Counter[str] = Counter()
        self._walked = False
        self.bytes = 0

    def problems(self, paths: Sequence[Path]) -> Iterator[ArtifactError | None]:
        """What is wrong with these and with all that they were made from; None after each file that is whole."""
        for path in paths:
            here = path.resolve()
            if (manifest := owner(here)) is not None:
                yield from self._with_ancestors(manifest)
                continue
            yield from self._folder(here)

    def counts(self, problems: int, seconds: float) -> str:
        """What was done so far, in a line."""
        artifacts = sum(artifact is not None for artifact in self._artifacts.values())
        others = f" and {len(self._others):,} other files" if self._others else ""
        size = f"{self.bytes / 1e6:,.1f} MB in {seconds:.1f} s"
        return f"{artifacts:,} artifacts{others} verified, {problems} problems ({size})"

    def uncovered(self) -> Iterator[str]:
        """The files that nothing is written of, by folder, and what is not looked at."""
        if self._walked:
            yield f"not looked at: {', '.join(UNRECORDED)}"
        for folder, count in sorted(self._without_record.items()):
            yield f"no record covers {count:,} {'file' if count == 1 else 'files'} in {folder}"

    # -- artifacts -------------------------------------------------------------------------------------------------

    def _with_ancestors(self, manifest: Path) -> Iterator[ArtifactError | None]:
        queue: list[tuple[Path, str | None]] = [(manifest.resolve(), None)]
        while queue:
            asked = queue.pop()
            if asked in self._asked:
                continue
            self._asked.add(asked)
            path, expected = asked
            if path not in self._artifacts:
                yield from self._artifact(path)
                artifact = self._artifacts[path]
                queue.extend(
                    (parent.path, parent.digest) for parent in (parents(artifact) if artifact else ())
                )
            artifact = self._artifacts[path]
            if artifact is not None and expected not in (None, artifact.digest):
                yield ArtifactError(
                    f"the artifact was made again after something was made from it ({_both(expected, artifact.digest)})",
                    where=path,
                    instead="run the workflow: it makes the descendants again",
                )

    def _artifact(self, manifest: Path) -> Iterator[ArtifactError | None]:
        """Problems of one artifact: its records, its files, and files that do not belong to it."""
        self._artifacts[manifest] = None
        try:
            artifact = load(manifest)
        except ArtifactError as error:
            yield error
            return
        self._artifacts[manifest] = artifact
        for name, record in ((MANIFEST, artifact.manifest), (RUN_RECORD, artifact.run)):
            yield self._as_written(artifact.folder / name, record)
        listed = artifact.manifest["files"]
        if files_digest(listed) != artifact.digest:
            both = _both(files_digest(listed), artifact.digest)
            yield ArtifactError(
                f"the artifact's digest is not that of its files ({both})", where=manifest, instead=AGAIN
            )
        for name, entry in listed.items():
            yield self._compared(artifact.folder / name, entry["sha256"], "the manifest")
        for path in _files(artifact.folder):
            name = path.relative_to(artifact.folder).as_posix()
            if name == CARD:
                yield self._other(path)
            elif name not in (*listed, MANIFEST, RUN_RECORD) and owner(path) == manifest:
                yield ArtifactError(
                    f"file {name!r} does not belong to the artifact",
                    where=artifact.folder,
                    instead="move it elsewhere: whoever verifies cannot know what it is",
                )

    def _as_written(self, path: Path, record: Mapping[str, object]) -> ArtifactError | None:
        """The seal covers what a record says; here is seen to how it is written, to the last blank."""
        found = path.read_bytes()
        self.bytes += len(found)
        expected = as_text(record).encode(errors="surrogatepass")
        if found == expected:
            return None
        both = _both(*(hashlib.sha256(text).hexdigest() for text in (expected, found)))
        return ArtifactError(f"{path.name} is not written as it was ({both})", where=path, instead=AGAIN)

    # -- all else --------------------------------------------------------------------------------------------------

    def _folder(self, path: Path) -> Iterator[ArtifactError | None]:
        """Problems of a folder's artifacts and other files, or of a file that is in no artifact."""
        self._walked |= path.is_dir()
        others: list[Path] = []
        for file in _files(path) if path.is_dir() else [path]:
            manifest = owner(file)
            if manifest is None:
                others.append(file)
            elif file.name == MANIFEST:
                yield from self._with_ancestors(manifest)
        for file in others:
            yield self._other(file)

    def _other(self, path: Path) -> ArtifactError | None:
        if path.name == RUN_RECORD:
            return ArtifactError("a run record without its manifest.json", where=path.parent, instead=AGAIN)
        crate = crate_of(path.parent)
        if crate is None or path == crate:
            self._without_record[_shown(path.parent)] += 1
            return None
        try:
            expected = crate_digests(crate).get(path)
        except ArtifactError as error:
            return error
        if expected is None:
            self._without_record[_shown(path.parent)] += 1
            return None
        self._others.add(path)
        return self._compared(path, expected, CRATE)

    def _compared(self, path: Path, expected: str, record: str) -> ArtifactError | None:
        """The problem of one file, if there is any."""
        if not path.is_file():
            return ArtifactError(
                f"file {path.name!r} is listed in {record} but gone", where=path, instead=AGAIN
            )
        if path not in self._digests:
            self.bytes += path.stat().st_size
            self._digests[path] = file_digest(path)
        if self._digests[path] == expected:
            return None
        return ArtifactError(
            f"file {path.name!r} was altered after it was made ({_both(expected, self._digests[path])})",
            where=path,
            instead=AGAIN if record != CRATE else "delete it and run the workflow again",
        )


@cache
def crate_of(folder: Path) -> Path | None:
    """The RO-Crate of the run that a folder belongs to."""
    for above in (folder, *folder.parents):
        if (above / CRATE).is_file():
            return above / CRATE
    return None


@cache
def crate_digests(crate: Path) -> Mapping[Path, str]:
    """Path -> SHA-256 of the files that an RO-Crate describes with one.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        graph = json.loads(crate.read_text(encoding="utf-8"))["@graph"]
        files = [entity for entity in graph if "sha256" in entity and "File" in _types(entity)]
        return {(crate.parent / unquote(entity["@id"])).resolve(): entity["sha256"] for entity in files}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"the RO-Crate cannot be read ({error})",
            where=crate,
            instead="delete it and run the workflow again",
        ) from error


def _types(entity: Mapping[str, object]) -> Iterable[object]:
    found = entity.get("@type", ())
    return found if isinstance(found, list) else [found]


def _files(folder: Path) -> Iterator[Path]:
    """The files under a folder in order, without what no run is made from and without what is left to continue with."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if name not in UNRECORDED and not name.endswith((".partial", ".former", ".state"))
        )
        yield from (Path(here) / name for name in sorted(names))


def _both(expected: str | None, found: str) -> str:
    return f"expected {str(expected)[:SHORT]}, found {found[:SHORT]}"


def _shown(folder: Path) -> str:
    """A folder relative to where the command runs, if it lies below."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
