"""Look after an artifact store: what lies in it, whether it is whole, what may go.

The store is the folder that runs and users share, so that nothing is computed twice (docs/store.md). It is the one of
--store, else of the variable W2S_STORE. What was set aside as damaged, and what publishers that were killed have left, is
listed, and goes a day later when the store is pruned.

    ./w2s store list
    ./w2s store verify
    ./w2s store prune --keep-days 90 --max-gb 500 --dry-run
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from w2s import cli, store
from w2s.artifact import MANIFEST, load
from w2s.errors import ArtifactError, ConfigError, EnvironmentProblem

DAY = 86400.0
GB = 1e9
# A publisher touches its copy all the time; one that has not for so long was killed.
ABANDONED_DAYS = 1.0


class Entry(NamedTuple):
    """A folder in the store; ``used`` is when it was published or last fetched, in seconds since the epoch."""

    path: Path
    bytes: int
    used: float

    @property
    def key(self) -> str:
        """The key of the work that made it; of what is no artifact, its name."""
        return self.path.name

    @property
    def whole(self) -> bool:
        """Whether it is in use: not set aside, and not a copy in the making."""
        return not self.key.startswith(".") and store.DAMAGED not in self.key

    @property
    def stage(self) -> str:
        """Who made it."""
        if not self.whole:
            return "damaged" if store.DAMAGED in self.key else "unfinished"
        try:
            return str(load(self.path / MANIFEST).manifest["stage"])
        except ArtifactError:
            return "unreadable"

    @property
    def days(self) -> float:
        """Days since it was used."""
        return (time.time() - self.used) / DAY


def main(argv: Sequence[str] | None = None) -> int:
    """List, verify or prune; exit code 2 where a store is damaged."""
    args = arguments().parse_args(argv)
    entries = sorted(entries_of(folder(args.store)), key=lambda entry: entry.used)
    if args.command == "list":
        return show(entries)
    if args.command == "verify":
        return verify([entry for entry in entries if entry.whole])
    return prune(entries, args.keep_days, args.max_gb, args.dry_run)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--store", type=Path, help=f"the folder; default: ${store.VARIABLE}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="stage, size, days since the last use, key; the longest unused first")
    commands.add_parser("verify", help="hash all files again; exit code 2 and the names of what is damaged")
    pruning = commands.add_parser("prune", help="remove what was not used lately, then the longest unused")
    pruning.add_argument("--keep-days", type=float, metavar="N", help="remove what was not used for N days")
    pruning.add_argument(
        "--max-gb", type=float, metavar="GB", help="then remove until no more than this is left"
    )
    pruning.add_argument("--dry-run", action="store_true", help="only say what would go")
    return parser


def folder(given: Path | None) -> Path:
    """The store's folder.

    Raises:
        ConfigError: none is named, or it is not there.
    """
    found = given or store.root()
    if found is None or not found.is_dir():
        raise ConfigError(
            "no artifact store",
            where=found or f"--store and ${store.VARIABLE}",
            instead="the folder that runtime.store names (docs/store.md)",
        )
    return found


def entries_of(root: Path) -> Iterator[Entry]:
    """All that lies in a store.

    Raises:
        EnvironmentProblem: it cannot be read.
    """
    try:
        for path in sorted(root.glob("??/*")):
            with contextlib.suppress(FileNotFoundError):  # removed or renamed meanwhile
                size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                yield Entry(path, size, path.stat().st_mtime)
    except OSError as error:
        raise EnvironmentProblem(
            f"the store cannot be read ({error.strerror})", where=error.filename
        ) from error


def show(entries: Sequence[Entry]) -> int:
    """Print the entries and their sum."""
    for entry in entries:
        print(f"{entry.stage:<24} {entry.bytes / GB:>10.3f} GB {entry.days:>7.1f} days  {entry.key}")
    print(f"{len(entries)} artifacts, {sum(entry.bytes for entry in entries) / GB:.3f} GB")
    return 0


def verify(entries: Sequence[Entry]) -> int:
    """Hash everything again and name what is damaged."""
    problems = 0
    for entry in entries:
        try:
            store.check(entry.path / MANIFEST, entry.key)
        except (ArtifactError, OSError) as error:
            print(f"error: {error}")
            problems += 1
    print(f"{len(entries)} artifacts verified, {problems} problems")
    return cli.EXIT_WRONG_INPUT if problems else 0


def prune(entries: Sequence[Entry], keep_days: float | None, max_gb: float | None, dry_run: bool) -> int:
    """Remove entries; exit code 2 where one cannot be removed.

    Raises:
        ConfigError: neither limit is given.
    """
    if keep_days is None and max_gb is None:
        raise ConfigError(
            "nothing says what may go", where="prune", instead="--keep-days N, --max-gb GB, or both"
        )
    going = chosen(entries, keep_days, max_gb)
    failed = 0
    for entry in going:
        print(f"{'would remove' if dry_run else 'removing'} {entry.stage} {entry.path}")
        if not dry_run:
            failed += not removed(entry.path)
    size = sum(entry.bytes for entry in going) / GB
    print(f"{len(going)} of {len(entries)} artifacts, {size:.3f} GB{f'; {failed} failed' if failed else ''}")
    return cli.EXIT_WRONG_INPUT if failed else 0


def chosen(entries: Sequence[Entry], keep_days: float | None, max_gb: float | None) -> list[Entry]:
    """What goes, of entries that the longest unused leads."""
    going = [entry for entry in entries if not entry.whole and entry.days > ABANDONED_DAYS]
    left = [entry for entry in entries if entry.whole]
    if keep_days is not None:
        going += [entry for entry in left if entry.days > keep_days]
        left = [entry for entry in left if entry.days <= keep_days]
    size, most = sum(entry.bytes for entry in left), math.inf if max_gb is None else max_gb * GB
    for entry in left:
        if size <= most:
            break
        going.append(entry)
        size -= entry.bytes
    return going


def removed(path: Path) -> bool:
    """Remove an entry, at once for those who look for it; returns whether that went well."""
    try:
        gone = path.with_name(f".{path.name.lstrip('.')}.{os.urandom(4).hex()}{store.PARTIAL}")
        os.rename(path, gone)
        shutil.rmtree(gone)
    except OSError as error:
        print(f"error: {path} cannot be removed: {error}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    cli.run(main)
