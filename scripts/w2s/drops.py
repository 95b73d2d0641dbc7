"""Bookkeeping of dropped rows: rows in = rows kept + rows dropped, by reason and subset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from w2s.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

DROP_COLUMNS = ["subset", "reason", "rows"]


def drop_table(
    dropped: Iterable[tuple[str, str]], subsets: Sequence[str], reasons: Sequence[str]
) -> pd.DataFrame:
    """Count dropped rows.

    Args:
        dropped: (subset, reason) of each dropped row.
        subsets: all subsets, also those without a dropped row.
        reasons: all reasons, in the order in which they are tried.

    Returns:
        One row for each subset and reason, zeros included: columns subset, reason, rows.
    """
    import pandas as pd

    counts = Counter(dropped)
    unknown = set(counts) - {(subset, reason) for subset in subsets for reason in reasons}
    if unknown:
        raise ValueError(f"undeclared subset or reason: {sorted(unknown)}")
    rows = [(subset, reason, counts[subset, reason]) for subset in subsets for reason in reasons]
    return pd.DataFrame(rows, columns=DROP_COLUMNS).astype({"rows": "int64"})


def balance(
    rows_in: int, kept: pd.Series, drops: pd.DataFrame, rows_in_by_subset: Mapping[str, int]
) -> dict[str, Any]:
    """The facts of a dropping stage, after checking that no row is lost or counted twice.

    Args:
        rows_in: rows before.
        kept: subset of each kept row.
        drops: as :func:`drop_table` makes it.
        rows_in_by_subset: rows before, by subset.

    Raises:
        DataError: rows in differ from rows kept plus rows dropped, in all or in a subset.
    """
    kept_by_subset = Counter(kept)
    dropped_by_subset = drops.groupby("subset")["rows"].sum().to_dict()
    for subset, before in rows_in_by_subset.items():
        after = kept_by_subset[subset] + int(dropped_by_subset.get(subset, 0))
        if before != after:
            raise DataError(f"{before} rows in, but {after} rows kept or dropped", where=f"subset {subset}")
    total = len(kept) + int(drops["rows"].sum())
    if rows_in != total:
        raise DataError(f"{rows_in} rows in, but {total} rows kept or dropped")
    by_reason = drops.groupby("reason", sort=False)["rows"].sum()
    return {
        "rows_in": rows_in,
        "rows_kept": len(kept),
        "rows_dropped": {reason: int(rows) for reason, rows in by_reason.items()},
        "rows_in_by_subset": dict(sorted(rows_in_by_subset.items())),
        "rows_kept_by_subset": {subset: kept_by_subset[subset] for subset in sorted(rows_in_by_subset)},
    }
