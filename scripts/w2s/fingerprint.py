"""Fingerprints of code: the digest of a script and of every module of ours that it imports, directly or not.

Snakemake judges a script by its date and does not see the modules that it imports. The workflow passes this
fingerprint as a parameter instead: touching, formatting or commenting a file changes nothing, nor does another name for
a local variable; editing a helper changes exactly the stages that import it. Contract 4 of the architecture.

Each cluster job draws the workflow's plan anew, so this must be quick. Parsing all sources takes a third of a second;
what a source parses to is therefore kept under the digest of its text, beside Python's own caches. The text decides,
not the date: an entry cannot be stale.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import hashlib
import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

SCRIPTS = Path(__file__).resolve().parent.parent
CACHE = Path(__file__).resolve().parent / "__pycache__" / f"fingerprints.{sys.implementation.cache_tag}.json"
CACHE_ENTRIES = 4000  # a few years of edits; then it starts anew


def fingerprint(script: str | Path) -> str:
    """Digest (16 hex digits) of ``script`` and of the modules under its folder that it imports, transitively."""
    path = os.path.realpath(script)
    root = os.path.dirname(path)
    digest = hashlib.sha256()
    for source in _sources(path):
        digest.update(os.path.relpath(source, root).replace(os.sep, "/").encode())
        digest.update(_read(source, root).digest.encode())
    return digest.hexdigest()[:16]


def digests(script: str | Path) -> dict[str, str]:
    """Path under the script's folder -> digest (16 hex digits) of what it means, of all that :func:`fingerprint` covers."""
    path = os.path.realpath(script)
    root = os.path.dirname(path)
    return {
        os.path.relpath(source, root).replace(os.sep, "/"): _read(source, root).digest[:16]
        for source in _sources(path)
    }


def sources(script: Path) -> list[Path]:
    """The script and the modules under its folder that it imports, transitively, sorted by path."""
    return [Path(source) for source in _sources(os.path.realpath(script))]


# From here on paths are texts: pathlib alone would take the time that is allowed.


class Source(NamedTuple):
    """What a source means, and our files that it imports."""

    digest: str
    imports: tuple[str, ...]


def _sources(script: str) -> list[str]:
    root = os.path.dirname(script)
    seen: set[str] = set()
    queue = [script]
    while queue:
        source = queue.pop()
        if source not in seen:
            seen.add(source)
            queue.extend(_read(source, root).imports)
    return sorted(seen, key=lambda source: source.split(os.sep))


def _read(source: str, root: str) -> Source:
    stat = os.stat(source)
    return _read_at(source, root, stat.st_mtime_ns, stat.st_size)


@cache
def _read_at(source: str, root: str, mtime_ns: int, size: int) -> Source:
    with open(source, "rb") as stream:
        text = stream.read()
    key = hashlib.sha256(_own_digest() + text).hexdigest()
    entry = _kept().get(key)
    if entry is None:
        entry = _parse(text, source)
        _keep(key, entry)
    package = os.path.relpath(os.path.dirname(source), root).split(os.sep)
    files: dict[str, None] = {}
    for level, name in entry[1]:
        # A relative import counts from its package: one dot is the package itself, each further dot one up.
        base = tuple(package[: len(package) - level + 1]) if level else ()
        files.update(dict.fromkeys(_module_files(root, (*base, *name.split(".")))))
    return Source(entry[0], tuple(files))


@cache
def _module_files(root: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    """Files of a dotted module under ``root``: itself and its packages; empty for a library's module."""
    if len(parts) > 1:
        above = _module_files(root, parts[:-1])
        if not above and not os.path.isdir(os.path.join(root, *parts[:-1])):
            return ()
    else:
        above = ()
    base = os.path.join(root, *parts)
    return above + tuple(
        file for file in (f"{base}.py", os.path.join(base, "__init__.py")) if os.path.isfile(file)
    )


def _parse(text: bytes, source: str) -> list[Any]:
    """The digest of the syntax tree without docstrings, comments, positions and names of local variables; and the
    modules that it names."""
    collecting = gc.isenabled()
    gc.disable()  # thousands of small objects, none of them garbage: half the time
    try:
        tree = ast.parse(text, filename=source)
        imported: set[tuple[int, str]] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported.update((0, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = f"{node.module}." if node.module else ""
                imported.update((node.level, f"{module}{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                _drop_docstring(node)
        _name_locals_alike(tree)
        return [hashlib.sha256(ast.dump(tree).encode()).hexdigest(), sorted(imported)]
    finally:
        if collecting:
            gc.enable()


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    first = node.body[0] if node.body else None
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        node.body = node.body[1:] or [ast.Pass()]


# What makes the names of local variables matter.
_READS_NAMES = {"locals", "vars", "dir", "eval", "exec"}
_SCOPES = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)


def _name_locals_alike(tree: ast.AST) -> None:
    """Give the local variables of each outermost function names by the order in which they occur."""
    queue: list[ast.AST] = [tree]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            _rename(node)
        else:
            queue.extend(ast.iter_child_nodes(node))


def _rename(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Rename what is certainly a plain local variable of ``function`` throughout its body, and nothing else.

    That is a name which the body itself assigns to, and which nowhere within it is anything else: a parameter, an
    imported or declared name, a variable or a member of a scope within. Whoever reads variables by name is left alone.
    """
    others = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    assigned: dict[str, None] = {}
    nodes: deque[tuple[ast.AST, bool]] = deque((statement, False) for statement in function.body)
    while nodes:
        node, within = nodes.popleft()
        if isinstance(node, ast.Name):
            if node.id in _READS_NAMES:
                return
            if not isinstance(node.ctx, ast.Load):
                assigned[node.id] = None
                if within:
                    others.add(node.id)
        else:
            others.update(_other_names(node))
        within = within or isinstance(node, _SCOPES)
        nodes.extend((child, within) for child in ast.iter_child_nodes(node))
    alike = {
        name: f"<{number}>" for number, name in enumerate(name for name in assigned if name not in others)
    }
    for statement in function.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                node.id = alike.get(node.id, node.id)


def _other_names(node: ast.AST) -> Iterator[str]:
    """Names that a node binds or declares by other means than an assignment."""
    if isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.Global | ast.Nonlocal):
        yield from node.names
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name).partition(".")[0]
    else:
        for attribute in ("name", "rest"):  # definitions, exceptions, patterns
            value = getattr(node, attribute, None)
            if isinstance(value, str):
                yield value


@cache
def _own_digest() -> bytes:
    """Digest of this file: another way to normalise, other entries."""
    return hashlib.sha256(Path(__file__).read_bytes()).digest()


@cache
def _kept() -> dict[str, list[Any]]:
    """What other processes kept; nothing of a file that is torn: its first line is the digest of the rest."""
    try:
        seal, _, content = CACHE.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if hashlib.sha256(content).hexdigest().encode() != seal:
        return {}
    entries = json.loads(content)
    return entries if len(entries) < CACHE_ENTRIES else {}


def _keep(key: str, entry: list[Any]) -> None:
    """Keep an entry for the next process; in a folder that cannot be written, only for this one."""
    kept = _kept()
    kept[key] = entry
    temporary = CACHE.with_name(f"{CACHE.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        CACHE.parent.mkdir(exist_ok=True)
        content = json.dumps(kept).encode()
        temporary.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        os.replace(temporary, CACHE)
