"""Every file of a run against what is written of it: artifacts by their manifests, figures and pages by the RO-Crate."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from w2s.artifact import CARD, MANIFEST, RUN_RECORD, Artifact, faults, file_digest, load, told
from w2s.errors import ArtifactError
from w2s.handles import owner, parents, shown

CRATE = "ro-crate-metadata.json"
TIMESTAMP = ".snakemake_timestamp"  # Snakemake's note of when it made a folder
# Folders of a run that hold nothing that anything is made from.
UNRECORDED = ("logs", "benchmarks", ".snakemake")
AGAIN = "delete its manifest.json and run the workflow again"


class Verification:
    """Hashes files, each once, and keeps count."""

    def __init__(self) -> None:
        self._digests: dict[Path, str] = {}
        self._artifacts: dict[Path, Artifact | None] = {}
        self._asked: set[tuple[Path, str | None]] = set()
        self._others: set[Path] = set()
        self._unreadable: set[Path] = set()
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
                    f"the artifact was made again after something was made from it ({told(str(expected), artifact.digest)})",
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
        yield from faults(artifact, self._digest)
        if (artifact.folder / CARD).is_file():
            yield self._other(artifact.folder / CARD)

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
        crates = [file for file in others if file.name == CRATE]
        above = crate_of(path if path.is_dir() else path.parent)
        for crate in {*crates, above} if above else crates:
            yield from self._gone(crate, path)

    def _gone(self, crate: Path, folder: Path) -> Iterator[ArtifactError | None]:
        """The files in a folder that an RO-Crate lists and that are no longer there."""
        try:
            listed = crate_digests(crate)
        except ArtifactError as error:
            yield self._once(crate, error)
            return
        for path, expected in listed.items():
            # A model that was cleaned away took its card with it.
            if path.is_relative_to(folder) and path.name != CARD and not path.exists():
                yield self._listed(path, expected)

    def _other(self, path: Path) -> ArtifactError | None:
        if path.name == RUN_RECORD:
            return ArtifactError("a run record without its manifest.json", where=path.parent, instead=AGAIN)
        crate = crate_of(path.parent)
        if crate is None or path == crate:
            self._without_record[shown(path.parent)] += 1
            return None
        try:
            expected = crate_digests(crate).get(path)
        except ArtifactError as error:
            return self._once(crate, error)
        if expected is None:
            self._without_record[shown(path.parent)] += 1
            return None
        self._others.add(path)
        return self._listed(path, expected)

    def _once(self, crate: Path, error: ArtifactError) -> ArtifactError | None:
        """What is wrong with a crate, not again for each of its files."""
        if crate in self._unreadable:
            return None
        self._unreadable.add(crate)
        return error

    def _listed(self, path: Path, expected: str) -> ArtifactError | None:
        """The problem of one file that an RO-Crate lists, if there is any."""
        if not path.is_file():
            return ArtifactError(
                f"file {path.name!r} is listed in {CRATE} but gone",
                where=path,
                instead="run the workflow again",
            )
        try:
            found = self._digest(path)
        except OSError as error:
            return ArtifactError(f"file {path.name!r} cannot be read ({error.strerror})", where=path)
        if found == expected:
            return None
        return ArtifactError(
            f"file {path.name!r} was altered after it was made ({told(expected, found)})",
            where=path,
            instead="delete it and run the workflow again",
        )

    def _digest(self, path: Path) -> str:
        """SHA-256 of a file, which is read once."""
        if path not in self._digests:
            self._digests[path] = file_digest(path)
            self.bytes += path.stat().st_size
        return self._digests[path]


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
            if not name.endswith((".partial", ".former", ".state")) and not _is_unrecorded(Path(here, name))
        )
        yield from (Path(here) / name for name in sorted(names) if name != TIMESTAMP)


def _is_unrecorded(folder: Path) -> bool:
    """Whether nothing is made from what a folder holds; a data set or a model may bear such a name too."""
    return folder.name in UNRECORDED and next(folder.rglob(MANIFEST), None) is None
