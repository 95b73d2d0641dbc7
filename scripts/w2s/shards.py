"""Finished rows of a stage that reads a model: what an interrupted attempt did is not done again.

Rows are computed in groups (batches). The groups follow from the input and the settings alone, never from what is done
already or from the number of processes, so that each row is computed in the same company whatever happens in between:
the result is the same, bit for bit. Process n of N takes every N-th group.

What is finished is written every minute, and when the stage ends for whatever reason, as a parquet file beside the
trainings' checkpoints (:mod:`w2s.checkpoints`): outside the declared output, under a key of all that decides the result.
A file's name is the digest of its content; one that is torn or altered is removed and its rows are computed again. At
the end the first process reads the files of all.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from w2s import checkpoints
from w2s.artifact import Draft, Parents, file_digest, write_atomically
from w2s.processes import draft_in_first, together, wait_for_all, world

if TYPE_CHECKING:
    import argparse

    import pandas as pd

SECONDS_BETWEEN_FILES = 60.0
NAME = re.compile(r"[0-9a-f]{64}\.parquet")
Item = TypeVar("Item")
Key = tuple[Any, ...]
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def resumable(
    args: argparse.Namespace, parents: Parents, script: str | Path, columns: Sequence[str], keys: int = 1
) -> Iterator[tuple[Draft | None, Shards]]:
    """The artifact in the making (first process only, else None) and the rows that are finished.

    Args:
        args: parsed arguments of the stage, with ``spec`` and ``output``.
        parents: manifests that the artifact is made from.
        script: the stage's script.
        columns, keys: see :class:`Shards`.
    """
    with together():
        key = checkpoints.state_key(Path(script), args.spec, parents, "shards")
        if world()[0] == 0:
            checkpoints.prepare(args.output, key)
        wait_for_all()
        folder = checkpoints.state_root(args.output) / key
        with (
            draft_in_first(args.output, args.spec, parents, script) as made,
            Shards(columns, keys, folder) as shards,
        ):
            yield made, shards
        if world()[0] == 0:
            checkpoints.discard(args.output)


class Shards:
    """Finished rows, in memory and in ``folder``.

    Args:
        columns: of a row.
        keys: how many of them, from the first on, say which row it is.
        folder: where rows are kept; None: nowhere.

    Attributes:
        resumed: number of rows that earlier attempts had finished.
    """

    def __init__(self, columns: Sequence[str], keys: int = 1, folder: Path | None = None) -> None:
        self.columns = list(columns)
        self.keys = self.columns[:keys]
        self.folder = folder
        self._fresh: list[Key] = []
        self._written = time.monotonic()
        self._kept = self._read()
        self._done = set(self._kept[self.keys].itertuples(index=False, name=None))
        self.resumed = len(self._done)

    def __enter__(self) -> Shards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is finished, unless the stage ended well: then its artifact stands."""
        if kind is not None:
            # What ends the stage is worth more than what cannot be written because of it.
            with contextlib.suppress(OSError):
                self.write()

    def mine(
        self, groups: Sequence[Sequence[Item]], keys: Callable[[Item], Iterable[Key]]
    ) -> list[Sequence[Item]]:
        """The groups that this process has to compute: its share, less those whose rows are all done.

        Args:
            groups: the same in all processes and attempts.
            keys: of the rows that an item of a group gives.
        """
        rank, processes = world()
        return [
            group
            for group in groups[rank::processes]
            if any(key not in self._done for item in group for key in keys(item))
        ]

    def add(self, rows: Iterable[Key]) -> None:
        """Keep finished rows, those of a whole group."""
        self._fresh += rows
        if time.monotonic() - self._written >= SECONDS_BETWEEN_FILES:
            self.write()

    def write(self) -> None:
        """Write what was added since the last time."""
        self._written = time.monotonic()
        if self.folder is None or not self._fresh:
            return
        fresh, self._fresh = self._frame(self._fresh), []
        self._kept = self._join([self._kept, fresh])
        stream = io.BytesIO()
        fresh.to_parquet(stream, index=False)
        content = stream.getvalue()
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.parquet"
        write_atomically(path, lambda temporary: temporary.write_bytes(content))

    def table(self) -> pd.DataFrame:
        """The rows of all processes and attempts, each once, by their keys. All processes call it."""
        if world()[1] > 1:
            self.write()
            wait_for_all()
            self._kept = self._read()
        rows = self._join([self._kept, self._frame(self._fresh)])
        return rows.sort_values(self.keys, ignore_index=True)

    def _frame(self, rows: Sequence[Key]) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(rows, columns=self.columns)

    def _join(self, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """One table. A row that two attempts computed, with batches of different sizes, counts once."""
        import pandas as pd

        filled = [frame for frame in frames if len(frame)]
        return pd.concat(filled, ignore_index=True).drop_duplicates(self.keys) if filled else self._frame([])

    def _read(self) -> pd.DataFrame:
        """What lies in the folder, without the files that are torn."""
        import pandas as pd

        whole = []
        for path in sorted(self.folder.iterdir()) if self.folder else []:
            if not NAME.fullmatch(path.name):
                continue  # being written
            if file_digest(path) == path.stem:
                whole.append(pd.read_parquet(path))
            else:
                logger.warning("%s is torn: its rows are computed again", path)
                path.unlink(missing_ok=True)
        return self._join(whole)
