"""Draw an LLM judge's comparisons of two arms as stacked bars (paper A: Figure 3b).

A bar is one student: the shares of test prompts on which the judge scored the response after weak feedback higher
than the one after human feedback (win), equal, or lower. The white circle is win + tie / 2 with its 95 %
interval, the dashed line at 50 % where neither arm is better; the diamond is the win rate at equal length. Left
the published bars, right those of this run.

Inputs:  tables (``comparisons.csv`` of ``summarise``), the published values.
Outputs: the figure as PDF and PNG, and as CSV what is drawn: panel, group, data, share, student, recipe, arm,
baseline, judge, win, tie, lose, score, low, high, length_controlled, seeds, prompts, source. Shares are 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli
from w2s.errors import DataError
from w2s.published import drawn, of_metric, published_item
from w2s.results import (
    arm_label,
    counts,
    experiment_name,
    feedback_label,
    feedback_of,
    policy_of,
    read_result,
    records,
    setting_labels,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"a_figure_3b": "Figure 3b: an LLM judge compares weak with human feedback"}
OUTCOMES = ("win", "tie", "lose")
METRICS = {f"gpt4_{outcome}_percent": outcome for outcome in OUTCOMES}
DRAWN = (
    *("panel", "group", "data", "share", "student", "recipe", "arm", "baseline", "judge"),
    *("win", "tie", "lose", "score", "low", "high", "length_controlled", "seeds", "prompts", "source"),
)
TOLERANCE = 0.005


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", help="manifest of the experiment's tables")
    parser.input("--published", help="published/values.csv")
    parser.output("--pdf", help="the figure as PDF")
    parser.output("--png", help="the figure as PNG, 200 dpi")
    parser.output("--csv", help="what is drawn, as CSV")
    parser.spec("--artifact", default=None, help="the paper's item, where it is not the experiment's name")
    args = parser.parse_args(argv)
    from w2s import plotting

    published = published_bars(published_item(args.published, args.tables, args.artifact))
    run = run_bars(args.tables)
    name = args.artifact or experiment_name(args.tables)
    title = TITLES.get(name, f"Comparisons by an LLM judge: {name}")
    with plotting.style():
        figure, note = draw(published, run)
        plotting.save_all(
            figure,
            drawn(published, run, DRAWN),
            pdf=args.pdf,
            png=args.png,
            csv=args.csv,
            title=title,
            description=f"{title}. {note}",
        )


def published_bars(item: pd.DataFrame) -> pd.DataFrame:
    """The paper's bars, one row per student, shares of 1.

    Raises:
        DataError: a student lacks one of win, tie and lose.
    """
    import pandas as pd

    values = of_metric(item, *METRICS)
    rows = []
    for student, mine in values.groupby("student", sort=False):
        shares = {METRICS[row.metric]: row.value / 100 for row in records(mine)}
        missing = [outcome for outcome in OUTCOMES if outcome not in shares]
        if missing:
            raise DataError(f"{student} has no value of {', '.join(missing)}", where="the published values")
        first = mine.iloc[0]
        rows.append(
            {"panel": "published", "group": student, "student": student, "data": first["data"]}
            | {"arm": first["feedback"], "baseline": "human", "source": first["source"], **shares}
            | {"score": shares["win"] + shares["tie"] / 2}
        )
    return pd.DataFrame(rows).reindex(columns=list(DRAWN))


def run_bars(tables: Path) -> pd.DataFrame:
    """This run's bars, one per row of ``comparisons.csv``, in the table's order.

    Raises:
        DataError: there is no comparison, or a bar's shares do not add up to 1.
    """
    bars = read_result(tables, "comparisons.csv")
    if bars.empty:
        raise DataError("the table of comparisons has no rows", where=f"{tables}, comparisons.csv")
    total = bars[list(OUTCOMES)].sum(axis=1)
    wrong = (total - 1).abs() > TOLERANCE
    if wrong.any():
        row = wrong.to_list().index(True)
        raise DataError(
            f"win, tie and lose add up to {total.iloc[row]:g}",
            where=f"{tables}, comparisons.csv, row {row + 2}",
            instead="shares that add up to 1",
        )
    # Names of sources in words, where a student was compared in several of its arms or by several judges.
    words = bars.assign(arm=[arm_label(arm).removesuffix(", SFT + DPO") for arm in bars["arm"]])
    columns = ("data", "share", "student", "recipe", "arm", "judge")
    telling = [name for name in columns if name != "student"]
    several = [name for name in telling if bars[name].nunique() > 1]
    group = setting_labels(
        words.assign(beta=float("nan")), ("student", *several) if several else ("student",)
    )
    return bars.assign(panel="this run", group=group, source=bars["experiment"])


def draw(published: pd.DataFrame, run: pd.DataFrame) -> tuple[Figure, str]:
    """The figure and its caption."""
    from w2s import plotting

    slots = max(len(published), len(run), 3)
    figure = plotting.new_figure(height=1.35 + 0.42 * slots)
    panels = figure.subplots(1, 2 if len(published) else 1, squeeze=False)[0]
    for axes, bars, title in zip(
        panels,
        [published, run] if len(published) else [run],
        ["Published", "This run"][-len(panels) :],
        strict=True,
    ):
        draw_panel(axes, bars, slots)
        axes.set_title(title)
    note = caption(published, run)
    handles, labels = legend_entries(run)
    figure.legend(handles, labels, loc="outside upper left", ncols=3, columnspacing=1.5)
    plotting.add_note(figure, note)
    return figure, note


def outcome_looks(run: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Colour and hatch of each outcome: the winning arm's own look; a tie is white."""
    from w2s.plotting import LOOKS

    arm = LOOKS.get(policy_of(feedback_of(run["arm"].iloc[0])), LOOKS["weak"])
    baseline = LOOKS.get(policy_of(feedback_of(run["baseline"].iloc[0])), LOOKS["human"])
    return {"win": (arm.colour, arm.hatch), "tie": ("white", ""), "lose": (baseline.colour, baseline.hatch)}


def draw_panel(axes: Axes, bars: pd.DataFrame, slots: int) -> None:
    """One stacked bar per row, first row on top; ``slots`` have room, so that bars are as thick in both panels."""
    from w2s.plotting import INK

    looks = outcome_looks(bars)
    for place, row in enumerate(records(bars)):
        left = 0.0
        for outcome in OUTCOMES:
            share = getattr(row, outcome)
            colour, hatch = looks[outcome]
            axes.barh(
                place, 100 * share, 0.62, 100 * left, color=colour, hatch=hatch, edgecolor=INK, linewidth=0.6
            )
            if share >= 0.07:
                _figure(axes, 100 * (left + share / 2), place, f"{100 * share:.0f}")
            left += share
        _score(axes, place, row)
    axes.axvline(50, color=INK, linewidth=1.0, linestyle=(0, (3, 1.6)), zorder=4)
    axes.set_yticks(range(len(bars)), [name.replace(" · ", "\n") for name in bars["group"]])
    axes.set_ylim(slots - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.grid(False)
    axes.grid(True, axis="x")
    axes.set_xlabel("Share of test prompts (%)")


def _figure(axes: Axes, x: float, y: float, text: str) -> None:
    """A share in figures on its part of the bar, near the bar's upper edge."""
    box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    axes.text(x, y - 0.17, text, ha="center", va="center", fontsize=6.5, bbox=box, zorder=5)


def _score(axes: Axes, place: float, row) -> None:
    """Win + tie / 2 as a circle with its interval, the length-controlled rate as a diamond."""
    from w2s.plotting import INK, has_interval

    y = place + 0.14
    if has_interval(row):
        ends = [100 * row.low, 100 * row.high]
        axes.plot(ends, [y] * 2, color="white", linewidth=3.4, solid_capstyle="butt", zorder=6)
        axes.plot(ends, [y] * 2, "|-", color=INK, linewidth=1.2, markersize=5, zorder=7)
    edge: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": INK, "markeredgewidth": 0.9}
    axes.plot(100 * row.score, y, "o", **edge, markersize=5, zorder=8)
    if row.length_controlled == row.length_controlled:
        axes.plot(100 * row.length_controlled, y, "D", **edge, markersize=4, zorder=9)


def legend_entries(run: pd.DataFrame) -> tuple[list, list[str]]:
    """Handles and labels of the three outcomes and of the two marks."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from w2s.plotting import INK

    arms, baselines = (list(dict.fromkeys(map(feedback_of, run[name]))) for name in ("arm", "baseline"))
    arm = feedback_label(arms[0] if len(arms) == 1 else policy_of(arms[0]))
    labels = [f"win: {arm} better", "tie", f"lose: {feedback_label(baselines[0])} better"]
    handles: list = [
        Patch(facecolor=colour, hatch=hatch, edgecolor=INK, linewidth=0.6)
        for colour, hatch in outcome_looks(run).values()
    ]
    edge: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": INK, "color": "none"}
    handles.append(Line2D([], [], marker="o", markersize=5, **edge))
    labels.append("win + tie / 2")
    if run["length_controlled"].notna().any():
        handles.append(Line2D([], [], marker="D", markersize=4, **edge))
        labels.append("win rate at equal length")
    return handles, labels


def caption(published: pd.DataFrame, run: pd.DataFrame) -> str:
    """What one must know to read the figure, computed from what is in it."""
    judges = ", ".join(dict.fromkeys(run["judge"]))
    parts = [
        "Left: the paper's bars (GPT-4, 100 prompts, one run; no intervals were printed). Right: this run, "
        if len(published)
        else "This run, ",
        f"{counts(run)} per bar, judge: {judges}; each pair was shown in both orders. ",
        "Intervals of win + tie / 2: 95 %, bootstrap over ",
        "prompts only (one seed)." if run["seeds"].max() <= 1 else "seeds and prompts.",
        " Where the interval holds 50 %, the judge shows no difference.",
    ]
    bias = run["position_bias"].dropna()
    if len(bias):
        shown = f"{100 * bias.min():.0f}" + (f" to {100 * bias.max():.0f}" if bias.nunique() > 1 else "")
        parts.append(f" The response shown first won in {shown} % of the comparisons.")
    malformed = run["malformed"].dropna()
    if len(malformed):
        parts.append(f" Replies not in the form asked for: at most {100 * malformed.max():.1f} % per bar.")
    return "".join(parts)


if __name__ == "__main__":
    cli.run(main)
