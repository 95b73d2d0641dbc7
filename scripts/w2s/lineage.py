"""The tree of artifacts behind a result, in words and as plain values: what each is, from what, by which code, when, where."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from w2s.artifact import SHORT, Artifact, load
from w2s.cells import Cell, Part
from w2s.errors import ArtifactError
from w2s.handles import parents, shown
from w2s.provenance import commit, walk

LONGEST = 48  # characters of a setting
FACTS = 8  # facts of an artifact that are shown


class Tree:
    """Artifacts printed as a tree, each of them once; where one is met again its number stands for it."""

    def __init__(self) -> None:
        self._numbers: dict[Path, int] = {}

    def lines(
        self, manifest: Path, name: str = "", digest: str | None = None, depth: int = 0
    ) -> Iterator[str]:
        """An artifact and all that it was made from.

        Args:
            manifest: its.
            name: under which it went into the artifact above.
            digest: what it was then; a difference is told.
            depth: of the indentation.
        """
        indent = "  " * depth
        label = f"{indent}{name}: " if name else indent
        path = manifest.resolve()
        if path in self._numbers:
            yield f"{label}[{self._numbers[path]}], as above"
            return
        self._numbers[path] = len(self._numbers) + 1
        try:
            artifact = load(path)
        except ArtifactError as error:
            was = f", was {digest[:SHORT]}" if digest else ""
            yield f"{label}[{self._numbers[path]}] {shown(path.parent)}: {error.what}{was}"
            return
        yield f"{label}[{self._numbers[path]}] {headline(artifact)}"
        if digest not in (None, artifact.digest):
            yield f"{indent}    MADE AGAIN since: it was {str(digest)[:SHORT]} when it was used"
        yield from (f"{indent}    {line}" for line in particulars(artifact))
        for parent in parents(artifact):
            yield from self.lines(parent.path, parent.name, parent.digest, depth + 1)


def cell_lines(cell: Cell) -> Iterator[str]:
    """A cell's value, what it is a summary of, and the tree below it."""
    yield f"{shown(cell.tables.folder)}/{cell.table}"
    yield "  " + ", ".join(
        f"{name} {value}" for name, value in cell.row.items() if value and len(value) < LONGEST
    )
    yield f"  {cell.column} = {cell.value}"
    yield ""
    tree = Tree()
    if not cell.parts:
        yield f"{cell.note}: shown is all that the artifact was made from"
        yield from tree.lines(cell.tables.manifest_path)
        return
    yield "made from"
    yield from (f"  {line}" for line in map(summary, cell.parts))
    if cell.note:
        yield f"  {cell.note}"
    yield f"by {headline(cell.tables)}"
    yield from (f"    {line}" for line in particulars(cell.tables))
    digests = {parent.path: parent.digest for parent in parents(cell.tables)}
    told = dict.fromkeys((part.words, seed) for part in cell.parts for seed, _ in part.manifests)
    for words, seed in told:
        yield ""
        yield f"{words}, " + ("all seeds" if seed is None else f"seed {seed}")
        # Two metrics of one arm are read from the same artifacts.
        mine = [
            path for part in cell.parts if part.words == words for own, path in part.manifests if own == seed
        ]
        for manifest in dict.fromkeys(mine):
            yield from tree.lines(manifest, "", digests.get(manifest), 1)


def summary(part: Part) -> str:
    """A part of a cell in a line."""
    seeds = f"{'seed' if len(part.seeds) == 1 else 'seeds'} {', '.join(map(str, part.seeds))}"
    return f"{part.words}: {part.count:,} measurements of {part.metric}, {seeds}, mean {part.mean!r}"


# -- one artifact --------------------------------------------------------------------------------------------------


def headline(artifact: Artifact) -> str:
    """Stage, place and digest."""
    return f"{artifact.manifest['stage']}  {shown(artifact.folder)}  {artifact.digest[:SHORT]}"


def particulars(artifact: Artifact) -> Iterator[str]:
    """Settings, what was counted, files of a source, and how it came about; a line each, without what is empty."""
    settings = ", ".join(
        f"{name} {_text(value)}" for name, value in artifact.spec.items() if value not in ("", None)
    )
    if settings:
        yield f"settings: {settings}"
    if facts := ", ".join(_facts(artifact)):
        yield f"recorded: {facts}"
    yield f"made: {origin(artifact.run)}"


def _facts(artifact: Artifact) -> Iterator[str]:
    """The digests of weights and of raw files, then plain facts of the stage."""
    files = artifact.manifest["files"]
    raw = not artifact.manifest["parents"]
    for name, entry in files.items():
        if raw or name.endswith(".safetensors"):
            word = "weights" if name.endswith(".safetensors") else name
            yield f"{word} {entry['sha256'][:SHORT]}" + _checked(artifact.facts.get("ledger", {}).get(name))
    plain = {name: fact for name, fact in artifact.facts.items() if isinstance(fact, str | int | float)}
    for name, fact in list(plain.items())[:FACTS]:
        if fact != "" and name not in artifact.spec:
            yield f"{name} {_text(fact)}"


def _checked(entry: object) -> str:
    """By whose digest a fetched file was verified."""
    return f" (verified: {entry['verified']})" if isinstance(entry, Mapping) and "verified" in entry else ""


def origin(run: Mapping[str, Any]) -> str:
    """Commit, container, time and machine of a run record."""
    git, environment = run.get("git"), run.get("environment", {})
    code = f"commit {commit(git, SHORT)}" if git else commit(git)
    container = f"container {run['container']}" if run.get("container") else "no container"
    where = [environment.get("processor") or "unknown processor", *environment.get("gpus", [])]
    return f"{code}, {container}, {run['started'][:16].replace('T', ' ')} UTC, {', '.join(where)}"


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) == 64 and all(digit in "0123456789abcdef" for digit in text):
        return text[:SHORT]
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


# -- for machines --------------------------------------------------------------------------------------------------


def as_json(manifest: Path, cell: Cell | None) -> dict[str, Any]:
    """The same as plain values: the cell if there is one, and every artifact below by the path of its manifest.

    Of a cell's tables only what enters the cell is below; they themselves are among the artifacts, with all their parents.
    """
    roots, artifacts = [manifest], dict[str, Any]()
    if cell and cell.parts:
        roots = [path for part in cell.parts for _, path in part.manifests]
        artifacts[shown(manifest)] = _entry(cell.tables)
    for path, found in walk(roots):
        artifacts[shown(path)] = _entry(found) if isinstance(found, Artifact) else {"problem": found.what}
    return {"artifacts": artifacts} if cell is None else {"cell": _cell(cell), "artifacts": artifacts}


def _entry(artifact: Artifact) -> dict[str, Any]:
    run, manifest = artifact.run, artifact.manifest
    return {
        **{name: manifest[name] for name in ("stage", "digest", "files", "spec", "facts")},
        **{name: run[name] for name in ("git", "container", "started", "environment", "sources")},
        "parents": [
            {"name": parent.name, "manifest": shown(parent.path), "digest": parent.digest}
            for parent in parents(artifact)
        ],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "table": os.path.join(shown(cell.tables.folder), cell.table),
        **{"row": dict(cell.row), "column": cell.column, "value": cell.value, "note": cell.note},
        "parts": [
            {
                **{"words": part.words, "where": dict(part.where), "metric": part.metric},
                **{"measurements": part.count, "seeds": list(part.seeds), "mean": part.mean},
                "manifests": [{"seed": seed, "manifest": shown(path)} for seed, path in part.manifests],
            }
            for part in cell.parts
        ],
    }
