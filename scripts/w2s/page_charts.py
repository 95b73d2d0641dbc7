"""Small charts of the report as inline SVG: they take the page's colours, light or dark, and need no script.

Every number of a chart also stands in text or in a table beside it; the charts are for the eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from w2s.findings import Finding, percent

if TYPE_CHECKING:
    import pandas as pd

FOREST_WIDTH, FOREST_HEIGHT = 320, 26
QUALITY_WIDTH, QUALITY_HEIGHT = 300, 190
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 10, 34
SERIES = (
    ("agreement_gold", "gold", "agree with gold"),
    ("agreement_human", "human", "agree with human"),
    ("mean_confidence", "confidence", "teacher's confidence"),
)
MARKS = {"gold": "triangle", "human": "circle", "confidence": "none"}


def forest(found: Sequence[Finding]) -> list[Markup]:
    """One interval plot per finding, all on one scale with zero in the middle."""
    reach = 1.08 * max([abs(end) for item in found for end in (item.low, item.high)], default=0.0) or 1.0

    def place(value: float) -> float:
        return round((value / reach + 1) / 2 * FOREST_WIDTH, 1)

    middle = FOREST_HEIGHT / 2
    charts = []
    for item in found:
        low, point, high = place(item.low), place(item.difference), place(item.high)
        parts = [
            f'<svg class="forest {item.verdict}" viewBox="0 0 {FOREST_WIDTH} {FOREST_HEIGHT}" role="img" ',
            f'aria-label="{escape(item.sentence)}">',
            f'<path class="zero" d="M{place(0)} 0V{FOREST_HEIGHT}"/>',
            f'<path class="whisker" d="M{low} {middle}H{high}"/>',
            f'<path class="whisker" d="M{low} {middle - 5}v10M{high} {middle - 5}v10"/>',
            f'<circle class="point" cx="{point}" cy="{middle}" r="5"/></svg>',
        ]
        charts.append(Markup("".join(parts)))
    return charts


def quality(title: str, rows: pd.DataFrame) -> Markup:
    """Agreement of labels by bin of their margin (small to large), with the teacher's own confidence."""
    shown = [(column, name) for column, name, _ in SERIES if rows[column].notna().any()]
    values = [value for column, _ in shown for value in rows[column].dropna()]
    floor = min(0.5, int(10 * min(values, default=0.5)) / 10)
    inner_width, inner_height = QUALITY_WIDTH - LEFT - RIGHT, QUALITY_HEIGHT - TOP - BOTTOM

    def x(rank: int) -> float:
        return round(LEFT + inner_width * (rank + 0.5) / max(len(rows), 1), 1)

    def y(value: float) -> float:
        return round(TOP + inner_height * (1 - (value - floor) / (1 - floor)), 1)

    parts = [_grid(floor, y)]
    parts += [
        f'<text x="{x(rank)}" y="{TOP + inner_height + 14}" class="tick">{escape(label)}</text>'
        for rank, label in enumerate(rows["bin"])
    ]
    below = f'x="{LEFT + inner_width / 2}" y="{QUALITY_HEIGHT - 4}"'
    parts.append(f'<text {below} class="tick">margin, small to large (bin)</text>')
    for column, name in shown:
        points = [(x(rank), y(value)) for rank, value in enumerate(rows[column]) if value == value]
        line = " ".join(f"{across},{down}" for across, down in points)
        parts.append(f'<polyline class="line {name}" points="{line}"/>')
        parts += [_mark(name, across, down) for across, down in points]
    words = "; ".join(
        f"{label} {percent(rows[column].iloc[0])} to {percent(rows[column].iloc[-1])}"
        for column, _, label in SERIES
        if rows[column].notna().any()
    )
    label = escape(f"{title}, from the smallest to the largest margin: {words}")
    size = f"0 0 {QUALITY_WIDTH} {QUALITY_HEIGHT}"
    head = f'<svg class="quality" viewBox="{size}" role="img" aria-label="{label}">'
    return Markup(head + "".join(parts) + "</svg>")


def _grid(floor: float, y) -> str:
    steps = [tenths / 10 for tenths in range(round(10 * floor), 11)]
    lines = "".join(f'<path class="grid" d="M{LEFT} {y(step)}H{QUALITY_WIDTH - RIGHT}"/>' for step in steps)
    texts = "".join(
        f'<text x="{LEFT - 5}" y="{y(step) + 3.5}" class="tick end">{100 * step:.0f} %</text>'
        for step in steps
    )
    return lines + texts


def _mark(name: str, across: float, down: float) -> str:
    if MARKS[name] == "circle":
        return f'<circle class="mark {name}" cx="{across}" cy="{down}" r="3.2"/>'
    if MARKS[name] == "triangle":
        return f'<path class="mark {name}" d="M{across} {round(down - 4, 1)}l3.8 6.8h-7.6z"/>'
    return ""
