"""Draw which rows the filter dropped: the share of each subset's rows, by reason, with the row counts in
figures.

Inputs:  filtered examples (``drops.csv``: subset, reason, rows; the counts of rows in and kept in the
manifest). Outputs: the figure as PDF and PNG, and as CSV what is drawn: subset, reason (kept included), rows,
rows_in, percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s import cli
from w2s.artifact import load
from w2s.errors import DataError
from w2s.results import DROPS, read_table, records

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEPT = "kept"
ALL = "all"
REASONS = {
    "too_long": "too long",
    "prompt_mismatch": "prompts differ",
    "equal_responses": "equal responses",
    "empty_response": "empty response",
}
# Dark to light, told apart by hatch as well.
LOOKS = (
    ("#0072B2", ""),
    ("#E69F00", "////"),
    ("#009E73", "...."),
    ("#CC79A7", "xxxx"),
    ("#56B4E9", "\\\\\\\\"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--filtered", help="manifest of the filtered examples")
    parser.output("--pdf", help="the figure as PDF")
    parser.output("--png", help="the figure as PNG, 200 dpi")
    parser.output("--csv", help="what is drawn, as CSV")
    args = parser.parse_args(argv)
    from w2s import plotting

    table = drop_shares(args.filtered)
    data = args.filtered.parent.name
    with plotting.style():
        figure, note = draw(table, data)
        title = f"Rows dropped by the filter: {data}"
        plotting.save_all(
            figure,
            table,
            pdf=args.pdf,
            png=args.png,
            csv=args.csv,
            title=title,
            description=f"{title}. {note}",
        )


def drop_shares(filtered: Path) -> pd.DataFrame:
    """Rows and percent per subset and reason, kept rows under the reason ``"kept"``, all subsets together as
    ``"all"``.

    Raises:
        DataError: rows in are not rows kept plus rows dropped.
    """
    import pandas as pd

    artifact = load(filtered)
    drops = read_table(artifact.path("drops.csv"), DROPS)[["subset", "reason", "rows"]]
    kept = artifact.facts["rows_kept_by_subset"]
    rows = pd.concat(
        [drops, pd.DataFrame({"subset": list(kept), "reason": KEPT, "rows": list(kept.values())})],
        ignore_index=True,
    )
    if rows["subset"].nunique() > 1:
        together = rows.groupby("reason", sort=False, as_index=False)["rows"].sum().assign(subset=ALL)
        rows = pd.concat([rows, together], ignore_index=True)
    rows["rows"] = rows["rows"].astype("int64")
    rows["rows_in"] = rows.groupby("subset")["rows"].transform("sum")
    total = rows.loc[
        rows["subset"] == (ALL if ALL in set(rows["subset"]) else rows["subset"].iloc[0]), "rows"
    ].sum()
    if total != artifact.facts["rows_in"]:
        raise DataError(
            f"{artifact.facts['rows_in']} rows in, but {total} rows kept or dropped",
            where=filtered.with_name("drops.csv"),
        )
    rows["percent"] = (100 * rows["rows"] / rows["rows_in"].clip(lower=1)).round(3)
    return rows[["subset", "reason", "rows", "rows_in", "percent"]]


def draw(table: pd.DataFrame, data: str) -> tuple[Figure, str]:
    """The figure and its caption."""
    from w2s import plotting

    subsets = list(dict.fromkeys(table["subset"]))
    reasons = [reason for reason in dict.fromkeys(table["reason"]) if reason != KEPT]
    reasons = [reason for reason in reasons if table.loc[table["reason"] == reason, "rows"].sum()]
    figure = plotting.new_figure(height=1.6 + 0.42 * len(subsets))
    axes = figure.subplots()
    draw_bars(axes, table, subsets, reasons)
    axes.set_title(f"{data}: rows dropped, by reason")
    axes.set_xlabel("Rows dropped (% of the subset's rows)")
    if reasons:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 5), columnspacing=1.5)
    note = caption(table, subsets)
    plotting.add_note(figure, note)
    return figure, note


def draw_bars(axes: Axes, table: pd.DataFrame, subsets: Sequence[str], reasons: Sequence[str]) -> None:
    """One stacked bar per subset, largest total on the axis' scale, the counts in figures behind it."""
    from w2s.plotting import INK, SOFT_INK

    percent = table.pivot(index="subset", columns="reason", values="percent")
    kept = table[table["reason"] == KEPT].set_index("subset")["rows"]
    ends = [0.0] * len(subsets)
    for place, reason in enumerate(reasons):
        colour, hatch = LOOKS[place % len(LOOKS)]
        widths = percent.loc[list(subsets), reason].astype(float).tolist()
        axes.barh(
            range(len(subsets)),
            widths,
            left=ends,
            height=0.62,
            color=colour,
            hatch=hatch,
            edgecolor=INK,
            linewidth=0.6,
            label=REASONS.get(reason, reason.replace("_", " ")),
        )
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for place, subset in enumerate(subsets):
        rows_in = int(table.loc[table["subset"] == subset, "rows_in"].iloc[0])
        dropped = rows_in - int(kept[subset])
        text = f"{dropped:,} of {rows_in:,} ({100 * dropped / max(rows_in, 1):.1f} %)"
        axes.annotate(
            text,
            (ends[place], place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=SOFT_INK,
        )
    axes.set_yticks(range(len(subsets)), ["all together" if subset == ALL else subset for subset in subsets])
    axes.set_ylim(len(subsets) - 0.4, -0.6)  # the first subset on top
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, max([*ends, 1.0]) * 1.3)


def caption(table: pd.DataFrame, subsets: Sequence[str]) -> str:
    """The totals, in words."""
    whole = table[table["subset"] == (ALL if ALL in subsets else subsets[0])]
    rows_in, kept = int(whole["rows_in"].iloc[0]), int(whole.loc[whole["reason"] == KEPT, "rows"].iloc[0])
    if rows_in == kept:
        return f"Nothing was dropped: {rows_in:,} rows in, {kept:,} kept."
    parts = [
        f"{int(row.rows):,} {REASONS.get(row.reason, row.reason.replace('_', ' '))}"
        for row in records(whole)
        if row.reason != KEPT and row.rows
    ]
    return (
        f"{rows_in:,} rows in, {kept:,} kept, {rows_in - kept:,} dropped: {', '.join(parts)}. "
        "A row counts under the first reason that applies."
    )


if __name__ == "__main__":
    cli.run(main)
