"""The scorecard as a table, as JSON and as what its page shows. Nothing is computed here but roundings and words."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from w2s.claims import Claims
from w2s.paper_numbers import UNIT_FREE
from w2s.printed import CheckResult
from w2s.results import interval, number, signed
from w2s.scorecard import (
    DEFINITION,
    DIRECTION,
    FEWEST_SEEDS,
    JUDGED,
    NOT_RUN,
    OPEN,
    OPPOSITE,
    REPRODUCED,
    SILENT,
    VERDICTS,
    ClaimResult,
    Finding,
    PartResult,
)

COLUMNS = (
    *("claim", "claim_verdict", "partial", "part", "verdict", "reason", "experiment", "statistic", "metric"),
    *("test", "setting", "data", "share", "student", "beta", "judge", "arms", "seeds", "prompts"),
    *(
        "estimate",
        "low",
        "high",
        "low90",
        "high90",
        "margin",
        "share_of_scale",
        "holds",
        "p_for",
        "p_against",
    ),
    *("part_p_for", "part_p_against", "adjusted_for", "adjusted_against"),
    *(
        f"{what}_needed{effect}{level}"
        for level in ("", "_adjusted")
        for effect in ("", "_at_paper")
        for what in ("seeds", "prompts")
    ),
    *("paper", "paper_share_of_scale"),
)
# Columns that only paper B's comparisons have: they follow the student's.
TRANSFER = ("weak", "refiner")
# Class and mark of a verdict on the page: told by word, colour and mark, so that print and colour-blind eyes have two.
MARKS = {
    REPRODUCED: ("reproduced", "✓"),
    DIRECTION: ("direction", "≈"),
    OPEN: ("open", "?"),
    OPPOSITE: ("opposite", "✗"),
    NOT_RUN: ("not-run", "–"),
    SILENT: ("silent", "∅"),
    DEFINITION: ("silent", "≝"),
}
TESTS = {"above": "above", "below": "below", "no-lower": "not lower", "equal": "equal"}
ALONG_WORDS = {"shown": "the number of examples"}
DIGITS = 9
CHART_WIDTH, CHART_HEIGHT = 260, 22


# -- table and JSON ----------------------------------------------------------------------------------------


def table(results: Sequence[ClaimResult]) -> pd.DataFrame:
    """One row per comparison; a part that has none is one row without numbers."""
    rows = []
    for claim in results:
        for part in claim.parts:
            head = {
                "claim": claim.claim.id,
                "claim_verdict": claim.verdict,
                "partial": claim.partial,
            } | part_entry(part)
            findings = [finding_entry(found) for found in part.findings]
            findings += [comparison_entry(item) | {"reason": item.missing} for item in part.missing]
            rows += [head | entry for entry in findings or [{}]]
        if claim.claim.definition:
            rows.append({"claim": claim.claim.id, "claim_verdict": claim.verdict, "partial": False})
    columns = list(COLUMNS)
    if any(name in row for row in rows for name in TRANSFER):
        place = columns.index("student") + 1
        columns[place:place] = TRANSFER
    return pd.DataFrame(rows, columns=columns)


def counts(results: Sequence[ClaimResult]) -> dict[str, int]:
    """How many claims have each verdict; definitions only where there are any."""
    found = {
        verdict: sum(result.verdict == verdict for result in results) for verdict in (*VERDICTS, DEFINITION)
    }
    return {verdict: count for verdict, count in found.items() if count or verdict != DEFINITION}


def document(
    claims: Claims, results: Sequence[ClaimResult], printed: Sequence[CheckResult], spec: dict[str, Any]
) -> dict[str, Any]:
    """The scorecard as nested mappings of plain values, None for numbers that are not there."""
    return {
        "paper": claims.paper,
        "title": claims.title,
        "spec": spec,
        "verdicts": counts(results),
        "claims": [
            {
                "id": result.claim.id,
                "text": result.claim.text,
                "place": result.claim.place,
                "verdict": result.verdict,
                "partial": result.partial,
                "parts": [part_document(part) for part in result.parts],
            }
            | ({"definition": result.claim.definition} if result.claim.definition else {})
            for result in results
        ],
        "printed": [
            {
                "id": result.check.id,
                "text": result.check.text,
                "sentence": result.sentence,
                "rows": [
                    {"label": row.label, "left": row.left, "right": row.right}
                    | {name: plain(value) for name, value in row.results}
                    for row in result.rows
                ],
            }
            for result in printed
        ],
    }


def part_document(part: PartResult) -> dict[str, Any]:
    """A part with its comparisons."""
    return {name: plain(value) for name, value in part_entry(part).items()} | {
        "text": part.part.text,
        "margin_reason": part.part.margin.reason if part.part.margin else None,
        "comparisons_that_must_hold": part.needed,
        "printed": [{"label": label, "value": plain(value)} for label, value in part.printed],
        "comparisons": [
            {name: plain(value) for name, value in finding_entry(found).items()} for found in part.findings
        ],
        "missing": [
            {name: plain(value) for name, value in comparison_entry(item).items()} | {"reason": item.missing}
            for item in part.missing
        ],
    }


def part_entry(part: PartResult) -> dict[str, Any]:
    """Columns that belong to a part."""
    return {
        "part": part.part.id,
        "verdict": part.verdict,
        "reason": part.reason,
        "experiment": part.part.experiment,
        "statistic": part.part.statistic,
        "metric": part.part.metric,
        "test": part.part.test,
        "part_p_for": rounded(part.p_for),
        "part_p_against": rounded(part.p_against),
        "adjusted_for": rounded(part.adjusted_for),
        "adjusted_against": rounded(part.adjusted_against),
    }


def comparison_entry(item) -> dict[str, Any]:
    """Columns that name a comparison."""
    transfer = {name: getattr(item, name) for name in TRANSFER} if item.weak or item.refiner else {}
    return {
        "setting": item.label,
        "data": item.data,
        "share": item.share,
        "student": item.student,
        "beta": rounded(item.beta),
        "judge": item.judge,
        "arms": ";".join(item.arms),
    } | transfer


def finding_entry(found: Finding) -> dict[str, Any]:
    """Columns of a comparison that was made."""
    plans = {
        "": found.at_own,
        "_at_paper": found.at_paper,
        "_adjusted": found.at_own_adjusted,
        "_at_paper_adjusted": found.at_paper_adjusted,
    }
    needed: dict[str, Any] = {}
    for name, plan in plans.items():
        needed |= {f"seeds_needed{name}": plan.seeds, f"prompts_needed{name}": plan.prompts}
    return (
        comparison_entry(found.comparison)
        | needed
        | {
            "seeds": found.seeds,
            "prompts": found.prompts,
            "estimate": rounded(found.value),
            "low": rounded(found.low),
            "high": rounded(found.high),
            "low90": rounded(found.low90),
            "high90": rounded(found.high90),
            "margin": rounded(found.margin),
            "share_of_scale": rounded(found.relative),
            "holds": found.holds,
            "p_for": rounded(found.p_for),
            "p_against": rounded(found.p_against),
            "paper": rounded(found.paper),
            "paper_share_of_scale": rounded(found.paper_relative),
        }
    )


def rounded(value: float) -> float:
    """Nine significant digits: what is left of another machine's order of summation is cut off."""
    return float(f"{value:.{DIGITS}g}")


def plain(value: Any) -> Any:
    """A value as JSON has it: no NaN and no infinity."""
    if isinstance(value, float):
        return rounded(value) if math.isfinite(value) else None
    return value


# -- page --------------------------------------------------------------------------------------------------


def page(
    claims: Claims,
    results: Sequence[ClaimResult],
    printed: Sequence[CheckResult],
    spec: dict[str, Any],
    published: str,
) -> dict[str, Any]:
    """All that report/scorecard.html shows; ``published`` is the file of published values."""
    testable = sum(part.testable for result in results for part in result.parts)
    return {
        "title": claims.title,
        "paper": claims.paper,
        "headline": headline(results),
        "testable": testable,
        "fewest_seeds": FEWEST_SEEDS,
        "draws": spec["bootstrap"],
        "world_data": ", ".join(spec["world_data"]),
        "words": {name: prose(words) for name, words in vars(claims.words).items()},
        "scale": prose(next((scale.words for scale in claims.scales.values()), "")),
        "published": published,
        "counts": [
            {"verdict": verdict, "mark": MARKS[verdict], "count": count}
            for verdict, count in counts(results).items()
            if count
        ],
        "claims": [
            {
                "id": result.claim.id,
                "text": result.claim.text,
                "place": result.claim.place,
                "verdict": result.verdict,
                "mark": MARKS[result.verdict],
                "partial": result.partial,
                "definition": result.claim.definition,
                "parts": [part_page(part) for part in result.parts],
            }
            for result in results
        ],
        "printed": [printed_page(result) for result in printed],
    }


def prose(text: str) -> Markup:
    """A text between tags, where quotes need no escape."""
    return Markup(html.escape(text, quote=False))


def headline(results: Sequence[ClaimResult]) -> str:
    """The scorecard in one sentence."""
    judged = [result for result in results if result.verdict in JUDGED]
    if not judged:
        return f"None of the {len(results)} claims could be judged on this run."
    parts = [
        f"{count} {verdict}"
        for verdict in JUDGED
        if (count := sum(result.verdict == verdict for result in judged))
    ]
    definitions = sum(result.verdict == DEFINITION for result in results)
    rest = len(results) - len(judged) - definitions
    left = f"; {rest} could not be judged on this run" if rest else ""
    left += (
        f"; {definitions} {'is a definition' if definitions == 1 else 'are definitions'}"
        if definitions
        else ""
    )
    return f"Of {len(results)} claims {', '.join(parts)}{left}."


def part_page(part: PartResult) -> dict[str, Any]:
    """One part on the page."""
    digits = 3 if part.part.metric in UNIT_FREE else 2
    reach = chart_reach(part)
    return {
        "id": part.part.id,
        "text": part.part.text,
        "verdict": part.verdict,
        "mark": MARKS[part.verdict],
        "reason": part.reason,
        "test": test_words(part),
        "margin": part.part.margin.reason if part.part.margin else "",
        "p": f"p = {p_text(part.p_for)} for, {p_text(part.p_against)} against" if part.findings else "",
        "adjusted": f"adjusted {p_text(part.adjusted_for)} and {p_text(part.adjusted_against)}"
        if part.testable
        else ("one seed: not testable" if part.findings else ""),
        "printed": [
            f"{label + ': ' if label else ''}{number(value, digits)}" for label, value in part.printed
        ],
        "rows": [finding_page(part, found, digits, reach) for found in part.findings],
        "missing": [f"{item.label or 'this experiment'}: {item.missing}" for item in part.missing]
        if part.findings
        else [],
    }


def test_words(part: PartResult) -> str:
    """What is tested, in words."""
    this = part.part
    words = {"difference": f"{this.left.text} against {this.right.text if this.right else ''}"}
    words["r_squared"] = (
        f"{this.left.text} with {this.right.text if this.right else ''} "
        f"against {this.left.text} with {this.third.text if this.third else ''}"
    )
    words["trend"] = (
        f"{this.left.text}, slope per doubling of {ALONG_WORDS.get(this.along or '', this.along)}"
    )
    if this.along == "weak":
        words["trend"] = f"{words['difference']}, slope per point of the weak model's own score"
    words["level"] = f"{this.left.text}, level against {number(this.reference or 0.0, 3)}"
    holding = ""
    if len(part.findings) > 1:
        holding = (
            f"; all {len(part.findings)} must hold"
            if part.needed == len(part.findings)
            else f"; {part.needed} of {len(part.findings)} must hold"
        )
    return f"{this.metric.replace('_', ' ')}: {words[this.statistic]} – {TESTS[this.test]}{holding}"


def finding_page(part: PartResult, found: Finding, digits: int, reach: float) -> dict[str, Any]:
    """One comparison on the page."""
    show = number if part.part.statistic == "level" else signed
    equal = part.part.test == "equal"
    return {
        "label": found.comparison.label or "–",
        "estimate": show(found.value, digits),
        "interval": interval_text(found.low, found.high, digits),
        "interval90": interval_text(found.low90, found.high90, digits) if equal else "",
        "margin": number(found.margin, digits) if found.margin == found.margin else "",
        "relative": percent_text(found.relative),
        "paper": show(found.paper, digits) if found.paper == found.paper else "",
        "paper_relative": percent_text(found.paper_relative) if found.paper == found.paper else "",
        "seeds": found.seeds,
        "prompts": f"{found.prompts:,}",
        "plans": [
            f"{level}{whose}: {text}"
            for level, plans in (
                ("alone", (found.at_own, found.at_paper)),
                ("adjusted", (found.at_own_adjusted, found.at_paper_adjusted)),
            )
            for whose, plan in zip(("", " at the paper's effect"), plans, strict=True)
            if (text := plan_text(plan))
        ],
        "chart": chart(part, found, reach, digits),
    }


def interval_text(low: float, high: float, digits: int) -> str:
    """An interval, or that a single cell has none."""
    return interval(low, high, digits) if math.isfinite(low) else "none"


def percent_text(value: float) -> str:
    """A share of the scale in percent."""
    return f"{signed(100 * value, 0)} %" if value == value else ""


def plan_text(needed) -> str:
    """Seeds or prompts needed."""
    if needed.seeds == "":
        return ""
    if isinstance(needed.seeds, str) and needed.seeds == needed.prompts:
        return needed.seeds
    seeds, prompts = (
        f"{count:,} {noun}" if isinstance(count, int) else count.replace("number", f"number of {noun}")
        for count, noun in ((needed.seeds, "seeds"), (needed.prompts, "prompts"))
    )
    both = isinstance(needed.seeds, int) and isinstance(needed.prompts, int)
    return f"{seeds}{' or ' if both else ', '}{prompts}"


def p_text(value: float) -> str:
    """A p-value."""
    if value != value:
        return "–"
    return "below 0.0001" if value < 1e-4 else f"{value:.2g}"


def chart_reach(part: PartResult) -> float:
    """Half the width of the part's charts: all on one scale, the reference in the middle."""
    reference = part.part.reference or 0.0
    ends = [
        abs(end - reference)
        for found in part.findings
        for end in (found.low, found.high, found.paper, reference + found.margin)
        if math.isfinite(end)
    ]
    return 1.08 * max(ends, default=0.0) or 1.0


def chart(part: PartResult, found: Finding, reach: float, digits: int) -> Markup:
    """Estimate and interval around the reference, the margin as a band, the paper's value as a diamond."""
    reference = part.part.reference or 0.0

    def place(value: float) -> float:
        return round(((value - reference) / reach + 1) / 2 * CHART_WIDTH, 1)

    middle = CHART_HEIGHT / 2
    words = f"{found.comparison.label} {number(found.value, digits)} {interval_text(found.low, found.high, digits)}"
    parts = [
        f'<svg class="forest" viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT}" role="img" '
        f'aria-label="{escape(words.strip())}">'
    ]
    if found.margin > 0:
        left, right = place(reference - found.margin), place(reference + found.margin)
        right = right if part.part.test == "equal" else CHART_WIDTH
        parts.append(
            f'<rect class="band" x="{left}" y="1" width="{round(right - left, 1)}" height="{CHART_HEIGHT - 2}"/>'
        )
    parts.append(f'<path class="zero" d="M{place(reference)} 0V{CHART_HEIGHT}"/>')
    if math.isfinite(found.low):
        low, high = place(found.low), place(found.high)
        parts.append(
            f'<path class="whisker" d="M{low} {middle}H{high}M{low} {middle - 4}v8M{high} {middle - 4}v8"/>'
        )
    parts.append(f'<circle class="point" cx="{place(found.value)}" cy="{middle}" r="4.5"/>')
    if found.paper == found.paper:
        parts.append(f'<path class="paper" d="M{place(found.paper)} {middle - 5}l5 5-5 5-5-5z"/>')
    return Markup("".join([*parts, "</svg>"]))


def printed_page(result: CheckResult) -> dict[str, Any]:
    """A check of printed numbers on the page."""
    names = [name for name, _ in result.rows[0].results]
    kinds = {"sign": ("wins", "losses"), "counts": ("above", "below")}
    digits = 0 if result.check.kind in kinds else 2
    return {
        "text": result.check.text,
        "sentence": result.sentence,
        "names": [kinds.get(result.check.kind, ("left", "right")), names],
        "rows": [
            [row.label, number(row.left, digits), number(row.right, digits)]
            + [_result_text(name, value) for name, value in row.results]
            for row in result.rows
        ],
    }


def _result_text(name: str, value: float) -> str:
    return p_text(value) if name == "p" else number(value, 0 if name == "ties" else 2)
