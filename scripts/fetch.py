"""Fetch a data set or a model: the only stage that touches the network, but for those that ask a judge.

From the Hugging Face hub at a pinned revision (40 hex digits: a branch or tag can move), or from a local
folder. Nothing is taken along but the files declared by ``--files``, each as ``path=sha256``:

- A file with a SHA-256 must have it.
- A file of the hub without one (``path=``) must have the digest that the hub itself states for it at the pinned
  revision: SHA-256 for a large file, git's blob SHA-1 for a small one.
- For the hub the path may be a pattern (``"*.json="``) that matches as in ``hf download --include``: ``*`` matches
  ``/`` too. Each match is checked by the hub's digest, unless it is also declared by its own path.
- A file of a local folder without a SHA-256 is taken as it is.

Each path must be there and each pattern must match a file; if a fetched index names shards of weights, all of
them must be among the files. A token for gated repositories comes from the environment (HF_TOKEN) and is written
nowhere.

inputs:  none
outputs: the declared files, sub-paths kept; in the manifest's facts the ledger: kind, origin, revision,
         licence, terms, and of each file its bytes, its sha256 and how it was verified ("declared sha256",
         "hub sha256", "hub git sha1" or "not verified")

Without network: what lies in the hub's cache (HF_HOME) is used, so one can fill the cache elsewhere with
``hf download`` and bring it along (links in it kept as links: they hold the hub's digests); or download to a
folder and use ``--kind local --folder FOLDER``.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from w2s import cli, hub_cache
from w2s.artifact import MANIFEST, RUN_RECORD, Artifact, file_digest
from w2s.errors import ConfigError, DataError, W2SError
from w2s.hub_cache import SHA256, Repository, git_sha1, is_pattern

KINDS = ("dataset", "model", "local")
SUFFIXES = (
    *(".safetensors", ".bin", ".json", ".txt", ".model"),
    *(".jsonl", ".jsonl.gz", ".parquet", ".csv", ".csv.gz"),
)
REVISION = re.compile(r"[0-9a-f]{40}")
REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
# How a file is verified, as the ledger says it.
DECLARED, HUB_SHA256, HUB_SHA1, NOT_VERIFIED = "declared sha256", "hub sha256", "hub git sha1", "not verified"
SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE_INDEX = "pytorch_model.bin.index.json"


@dataclass(frozen=True)
class Found:
    """A file to take: where it lies, the digest that it must have ("" if none is known), and whose that is."""

    path: Path
    digest: str
    verified: str


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch one source."""
    parser = cli.StageParser(__doc__ or "")
    parser.output("--output", help="manifest.json of the source")
    parser.spec("--kind", choices=KINDS, help="hub data set, hub model, or local folder")
    parser.spec("--origin", default="", help="owner/name on the hub")
    parser.option(
        "--folder", type=Path, help="where the files lie, for --kind local; may differ between machines"
    )
    parser.spec("--revision", default="", help="commit on the hub, 40 hex digits")
    parser.spec(
        "--files",
        nargs="+",
        help="path=sha256 of each file; path= or pattern= to go by the hub's own digests",
    )
    parser.spec("--licence", default="", help="licence, for the ledger")
    parser.spec("--terms", default="", help="terms of use worth knowing, for the ledger")
    parser.contents(undeclared)
    args = parser.parse_args(argv)
    files = declared(args)
    with Artifact.create(args.output, spec=args.spec, parents={}, script=__file__) as artifact:
        ledger = {}
        found = local_files(args, files) if args.kind == "local" else hub_files(args, files)
        for name in sorted(found):
            target = artifact.path(name)
            if args.kind == "local":
                # A copy, not a link: a file that its owner edits later must not change under the artifact.
                shutil.copyfile(found[name].path, target)
            else:
                link_or_copy(found[name].path.resolve(), target)
            ledger[name] = verified(target, name, found[name], args.origin or str(args.folder))
        check_shards(artifact.folder, ledger)
        artifact.record(
            kind=args.kind,
            origin=args.origin,
            revision=args.revision,
            licence=args.licence,
            terms=args.terms,
            ledger=ledger,
        )
        if args.kind == "local":
            # In the run record, not in the manifest: the same files elsewhere are the same source.
            artifact.measure(folder=str(args.folder.resolve()))


def declared(args: argparse.Namespace) -> dict[str, str]:
    """Path or pattern -> sha256 ("" if none is declared), after all checks that need no network.

    Raises:
        ConfigError: an unpinned revision, a bad repository name, path, kind of file or checksum.
    """
    hub = args.kind != "local"
    if hub and not REVISION.fullmatch(args.revision):
        raise ConfigError(
            f"revision {args.revision!r} is not pinned",
            where=f"--revision of {args.origin}",
            instead="the commit's 40 hex digits; a branch or tag can move",
        )
    if hub and not REPOSITORY.fullmatch(args.origin):
        raise ConfigError("not a repository on the hub", where="--origin", instead="owner/name, no address")
    files: dict[str, str] = {}
    for text in args.files:
        name, _, sha256 = text.rpartition("=") if "=" in text else (text, "", "")
        pattern = hub and is_pattern(name)
        check_path(name)
        if not pattern:
            check_kind_of_file(name, "--files")
        if name in files:
            raise ConfigError("the file is declared twice", where=f"--files {name}")
        if sha256 and pattern:
            raise ConfigError(
                "a pattern has a SHA-256", where=f"--files {name}", instead="the file's own path before the ="
            )
        if sha256 and not SHA256.fullmatch(sha256):
            raise ConfigError(
                f"{sha256!r} is not a SHA-256",
                where=f"--files {name}",
                instead="path=<64 hex digits>, as sha256sum prints them",
            )
        files[name] = sha256
    return files


def undeclared(args: argparse.Namespace) -> dict[str, Path]:
    """Files of a local folder whose content is not declared: they decide what is made, wherever the folder lies."""
    if args.kind != "local" or args.folder is None:
        return {}
    return {name: args.folder / name for name, sha256 in declared(args).items() if not sha256}


def check_path(name: str) -> None:
    """Refuse a path or pattern that leaves the source."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or path.as_posix() != name:
        raise ConfigError(f"path {name!r}", where="--files", instead="a plain path inside the source")


def check_kind_of_file(name: str, where: str) -> None:
    """Refuse a file that is no known kind of file, or has the name of a record of ours."""
    if not name.endswith(SUFFIXES):
        raise ConfigError(
            f"{name!r} is not a kind of file to fetch", where=where, instead=", ".join(SUFFIXES)
        )
    if name in (MANIFEST, RUN_RECORD):
        raise ConfigError(f"{name!r} is the name of a record of an artifact", where=where)


def local_files(args: argparse.Namespace, files: Mapping[str, str]) -> dict[str, Found]:
    """The declared files of the local folder.

    Raises:
        DataError: the folder or a file is not there.
    """
    folder: Path | None = args.folder
    if folder is None or not folder.is_dir():
        raise DataError(
            "the local folder is not there",
            where=folder or "--folder",
            instead="an existing folder as --folder",
        )
    for name in files:
        if not (folder / name).is_file():
            raise DataError(f"file {name!r} is not there", where=folder)
    return {
        name: Found(folder / name, sha256, DECLARED if sha256 else NOT_VERIFIED)
        for name, sha256 in files.items()
    }


def hub_files(args: argparse.Namespace, files: Mapping[str, str]) -> dict[str, Found]:
    """The declared files and those that match a pattern, in the hub's cache, with the digests to check.

    Raises:
        DataError, EnvironmentProblem: a file cannot be had or not be verified, or nothing matches a pattern.
    """
    repository = Repository(args.kind, args.origin, args.revision)
    folder, problem = hub_cache.snapshot(repository, list(files))
    chosen = expand(folder, files, problem or DataError("no such file at this revision", where=repository))
    stated = hub_cache.digests(repository, folder, [name for name in chosen if not chosen[name]])
    found = {}
    for name, sha256 in chosen.items():
        digest = sha256 or stated[name]
        how = DECLARED if sha256 else HUB_SHA256 if SHA256.fullmatch(digest) else HUB_SHA1
        found[name] = Found(folder / name, digest, how)
    return found


def expand(folder: Path, files: Mapping[str, str], problem: W2SError) -> dict[str, str]:
    """Name -> declared sha256 or "", of each file in ``folder`` that is declared or matches a pattern.

    Raises:
        W2SError: ``problem``, if a declaration fits no file.
        ConfigError: a pattern matches a kind of file that is not fetched.
    """
    present = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    chosen: dict[str, str] = {}
    for declaration in sorted(files, key=is_pattern):  # a file's own path first: it wins over patterns
        if is_pattern(declaration):
            matches = [name for name in present if fnmatch.fnmatchcase(name, declaration)]
        else:
            matches = [declaration] if declaration in present else []
        if not matches:
            raise type(problem)(
                f"nothing fits {declaration!r}: {problem.what}", where=problem.where, instead=problem.instead
            )
        for name in matches:
            check_kind_of_file(name, f"--files {declaration}")
            chosen.setdefault(name, files[declaration])
    return chosen


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file of the cache (which never edits its files), or copy it across file systems."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def verified(path: Path, name: str, found: Found, origin: str) -> dict[str, Any]:
    """The file's entry in the ledger.

    Raises:
        DataError: its digest is not the expected one; the message names file, expected and got.
    """
    sha256 = file_digest(path)
    got = git_sha1(path) if found.verified == HUB_SHA1 else sha256
    if found.digest and got != found.digest:
        if found.verified == DECLARED:
            advice = "fetch the file again; if the origin changed on purpose, declare its new sha256"
        else:
            advice = f"the copy in the hub's cache is damaged: delete {found.path.resolve()} and fetch again"
        raise DataError(
            f"wrong {found.verified.split()[-1]} of {name}: expected {found.digest}, got {got}",
            where=origin,
            instead=advice,
        )
    return {"bytes": path.stat().st_size, "sha256": sha256, "verified": found.verified}


def check_shards(folder: Path, names: Collection[str]) -> None:
    """Check that all shards of weights are there that a fetched index names.

    An index of pickles does not count beside safetensors, which are preferred and need it not.

    Raises:
        DataError: a shard is missing, or the index is not readable.
    """
    for name in names:
        index = PurePosixPath(name)
        safe = {str(index.with_name(SAFETENSORS)), str(index.with_name(SAFETENSORS_INDEX))} & set(names)
        if index.name != SAFETENSORS_INDEX and (index.name != PICKLE_INDEX or safe):
            continue
        try:
            weight_map = json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"]
            shards = set(map(str, weight_map.values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"not an index of weights ({error!r})", where=name) from error
        missing = sorted(shard for shard in shards if str(index.parent / shard) not in names)
        if missing:
            raise DataError(
                f"the index names {missing[0]!r}, which is not among the fetched files "
                f"({len(missing)} of {len(shards)} shards missing)",
                where=name,
                instead="declare all shards, by their paths or a pattern such as *.safetensors",
            )


if __name__ == "__main__":
    cli.run(main)
