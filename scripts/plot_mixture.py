"""Draw the simulated theory of paper B: what naive fine-tuning and refinement reach, and what breaks them.

Top: naive fine-tuning over the pull eta with its eta-free floor, and its best eta over the number of labels: a biased
teacher's floor stays, a noisy teacher's variance goes. Then refinement over n_ICL on a logarithmic axis, with our bound
(dotted) and naive fine-tuning's floor (dashed). Below, with one biased teacher: the target outside of the convex hull,
a source that hardly knows its concept, correlated concepts, a bias towards another concept. Means over seeds
with 95 % intervals. The paper has no such figure; docs/theory.md derives what is drawn.

Inputs:  tables of ``simulate_mixture``.
Outputs: the figure as PDF and PNG, and as CSV what is drawn: panel, series, kind, x, mean, low, high, seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli
from w2s.errors import DataError
from w2s.results import Columns, plural, read_table, records

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from w2s.plotting import Look

TITLE = "The theory, simulated: naive fine-tuning and refinement"
DRAWN = ("panel", "series", "kind", "x", "mean", "low", "high", "seeds")
NAIVE = Columns(text=("teacher",), numbers=("eta", "n", "seed", "excess_risk", "closed_form", "floor"))
REFINEMENT = Columns(
    text=("teacher",),
    numbers=("shown", "seed", "excess_risk"),
    optional=("missing_bound", "risk_bound"),
)
# Panel: title, name of the x axis.
PANELS = {
    "eta": ("Naive: the pull to the source", "pull $\\eta$"),
    "labels": ("Naive, best $\\eta$: more labels", "weak labels $n$"),
    "biased": ("Refinement: biased teachers", "examples shown $n_{ICL}$"),
    "noisy": ("Refinement: noisy teachers", "examples shown $n_{ICL}$"),
    "hull": ("Target outside of the convex hull", "distance to the hull"),
    "prior": ("Source hardly knows the concept", "prior $\\alpha_{k^*}$"),
    "concepts": ("Correlated concepts", "inner product of concepts"),
    "bias": ("Bias towards another concept", "cosine of bias and the way there"),
}
SWEEPS = {"hull": "distance", "prior": "prior", "concepts": "correlation", "bias": "correlation"}
LOG_X = ("labels", "biased", "noisy", "prior")
LOG_Y = ("labels", "biased", "noisy", "prior", "concepts", "bias")
# Excess risks below are cut: a figure that shows 1e-15 shows nothing else.
BOTTOM = 1e-5
ARMS = {
    "untuned": "unaligned source",
    "teacher": "weak teacher",
    "naive": "naive, best $\\eta$",
    "orthogonal_floor": "naive, if all were orthogonal",
    "hull": "squared distance to the hull",
}
LINES: dict[str, Any] = {
    "measured": "-",
    "floor": (0, (5, 2)),
    "bound": ":",
    "untuned": (0, (3, 1.6)),
    "teacher": (0, (1, 1)),
    "orthogonal_floor": (0, (1, 2.5)),
    "hull": (0, (6, 1.5, 1, 1.5)),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", help="manifest of the simulation")
    parser.output("--pdf", help="the figure as PDF")
    parser.output("--png", help="the figure as PNG, 200 dpi")
    parser.output("--csv", help="what is drawn, as CSV")
    args = parser.parse_args(argv)
    from w2s import plotting

    points = read_points(args.tables)
    with plotting.style():
        figure, note = draw(points, args.tables)
        plotting.save_all(
            figure,
            points,
            pdf=args.pdf,
            png=args.png,
            csv=args.csv,
            title=TITLE,
            description=f"{TITLE}. {note}",
        )


def read_points(tables: Path) -> pd.DataFrame:
    """Everything that is drawn, DRAWN: means over seeds with their intervals."""
    import pandas as pd

    frames = [*naive_points(tables), *refinement_points(tables), *sweep_points(tables)]
    # A frame without rows (noisy teachers have no floor) has columns of no type, which would spread.
    return pd.concat([frame for frame in frames if len(frame)], ignore_index=True)[list(DRAWN)]


def naive_points(tables: Path) -> list[pd.DataFrame]:
    """Panel ``eta``: biased teachers at the most labels; panel ``labels``: all teachers at their best eta."""
    table = _read(tables, "naive.csv", NAIVE)
    biased = table[(table["n"] == table["n"].max()) & (table["floor"] > 0)]
    means = table.groupby(["teacher", "n", "eta"])["excess_risk"].mean().reset_index()
    least = means.sort_values("excess_risk").drop_duplicates(["teacher", "n"])
    best = table.merge(least[["teacher", "n", "eta"]], on=["teacher", "n", "eta"])
    return [
        summed(biased, "eta", "teacher", "eta", "excess_risk"),
        summed(biased, "eta", "teacher", "eta", "floor", kind="floor"),
        summed(best, "labels", "teacher", "n", "excess_risk"),
        summed(best[best["floor"] > 0], "labels", "teacher", "n", "floor", kind="floor"),
    ]


def refinement_points(tables: Path) -> list[pd.DataFrame]:
    """Panels ``biased`` and ``noisy``: refined students, the bound, and naive fine-tuning's floor."""
    table = _read(tables, "refinement.csv", REFINEMENT)
    floors = _read(tables, "naive.csv", NAIVE).groupby("teacher")["floor"].first()
    table = table.assign(floor=table["teacher"].map(floors))
    points = []
    for panel in ("biased", "noisy"):
        mine = table[table["teacher"].str.startswith(panel)]
        points.append(summed(mine, panel, "teacher", "shown", "excess_risk"))
        points.append(summed(mine[mine["floor"] > 0], panel, "teacher", "shown", "floor", kind="floor"))
        bounded = mine[mine["risk_bound"].notna()]
        points.append(summed(bounded, panel, "teacher", "shown", "risk_bound", kind="bound"))
    return points


def sweep_points(tables: Path) -> list[pd.DataFrame]:
    """The panels of the sweeps: each arm, refinement at three numbers of examples."""
    points = []
    for panel, axis in SWEEPS.items():
        name = f"{panel}.csv" if panel in ("hull", "prior") else "correlation.csv"
        text = ("arm",) if panel == axis or name != "correlation.csv" else ("arm", "sweep")
        table = _read(tables, name, Columns(text, (axis, "seed", "excess_risk"), ("shown",)))
        if "sweep" in text:
            table = table[table["sweep"] == panel]
        shown = sorted(table["shown"].dropna().unique())[::-2][:3]
        table = table[table["shown"].isna() | table["shown"].isin(shown)]
        series = [
            arm if n != n else f"{arm}-{n:.0f}" for arm, n in zip(table["arm"], table["shown"], strict=True)
        ]
        order = [arm == "orthogonal_floor" for arm in table["arm"]]
        table = table.assign(series=series, last=order).sort_values("last", kind="stable")
        if panel != "bias":
            table = table[table["arm"] != "orthogonal_floor"]  # the same line as naive's
        points.append(summed(table, panel, "series", axis, "excess_risk"))
    return points


def summed(
    rows: pd.DataFrame, panel: str, series: str, x: str, value: str, *, kind: str = "measured"
) -> pd.DataFrame:
    """Means over seeds with 95 % intervals, one row per series and x; DRAWN."""
    import pandas as pd
    from w2s.statistics import bootstrap_mean

    found = []
    for (name, place), mine in rows.groupby([series, x], sort=False):
        cells = pd.DataFrame({"seed": mine["seed"], "id": "", "value": mine[value]})
        interval = bootstrap_mean(cells)
        several = interval.seeds > 1
        ends = (interval.low, interval.high) if several else (float("nan"), float("nan"))
        found.append((panel, name, kind, place, interval.mean, *ends, interval.seeds))
    return pd.DataFrame(found, columns=list(DRAWN))


def _read(tables: Path, name: str, columns: Columns) -> pd.DataFrame:
    """A table of the simulation.

    Raises:
        DataError: it has no rows.
    """
    from w2s.artifact import load

    table = read_table(load(tables).path(name), columns)
    if table.empty:
        raise DataError("the table has no rows", where=f"{tables}, {name}")
    return table


def draw(points: pd.DataFrame, tables: Path) -> tuple[Figure, str]:
    """The figure and its caption."""
    from w2s import plotting

    figure = plotting.new_figure(height=10.2)
    panels = figure.subplots(4, 2)
    looks = series_looks(points)
    for name, axes in zip(PANELS, panels.flat, strict=True):
        draw_panel(axes, name, points[points["panel"] == name], looks)
    for axes in panels[:, 0]:
        axes.set_ylabel("Excess risk")
    for place in ((0, 1), (1, 0), (1, 1), (2, 0), (3, 1)):
        _legend(panels[place], last_only=place == (3, 1))
    note = caption(points, tables)
    plotting.add_note(figure, note)
    return figure, note


def _legend(axes: Axes, *, last_only: bool) -> None:
    """A small legend over the lines; ``last_only``: of the one line that the panels before have not."""
    handles, labels = axes.get_legend_handles_labels()
    first = -1 if last_only else 0
    if handles:
        axes.legend(
            handles[first:],
            labels[first:],
            fontsize=6.3,
            labelspacing=0.25,
            frameon=True,
            framealpha=0.85,
            edgecolor="none",
            loc="upper left" if last_only else "best",
        )


def series_looks(points: pd.DataFrame) -> dict[str, Look]:
    """A look per teacher, and per arm of the sweeps."""
    from w2s.plotting import INK, LOOKS, SPARE_LOOKS, UNTUNED_COLOUR, Look

    teachers = list(dict.fromkeys(points.loc[~points["panel"].isin(SWEEPS), "series"]))
    palette = [*(LOOKS[name] for name in ("human", "confident", "gold", "prompted")), *SPARE_LOOKS]
    looks = {name: palette[place % len(palette)] for place, name in enumerate(teachers)}
    refined = [name for name in dict.fromkeys(points["series"]) if name.startswith("icl-")]
    blues = (Look("#9CCBEA", "", "v"), Look("#0072B2", "", "o"), Look("#00334F", "", "^"))
    looks |= dict(zip(refined, blues[-len(refined) :], strict=True))
    return looks | {
        "untuned": Look(UNTUNED_COLOUR, "", ""),
        "teacher": Look(LOOKS["mismatch"].colour, "", ""),
        "naive": LOOKS["weak"],
        "orthogonal_floor": Look(LOOKS["weak"].colour, "", ""),
        "hull": Look(INK, "", ""),
    }


def draw_panel(axes: Axes, name: str, points: pd.DataFrame, looks: dict[str, Look]) -> None:
    """All lines of one panel with the bands of their intervals."""
    from matplotlib.ticker import NullFormatter, NullLocator

    title, label = PANELS[name]
    axes.set_title(title)
    axes.set_xlabel(label)
    if points.empty:
        axes.text(0.5, 0.5, "not simulated", transform=axes.transAxes, ha="center")
        return
    axes.grid(True, axis="both")
    positive = points.loc[points["x"] > 0, "x"]
    if name in LOG_X:
        axes.set_xscale("log")
    elif name == "eta" and len(positive):
        axes.set_xscale("symlog", linthresh=positive.min(), linscale=0.4)
    for (series, kind), rows in points.groupby(["series", "kind"], sort=False):
        _line(axes, str(series), str(kind), rows.sort_values("x"), looks[str(series)])
    if name in LOG_Y:
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(bottom=max(BOTTOM, 0.5 * points["mean"].min()))
    else:
        axes.set_ylim(bottom=0)
    if name in ("eta", "labels", "biased", "noisy"):
        ticks = sorted(points["x"].unique())
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())


def _line(axes: Axes, series: str, kind: str, rows: pd.DataFrame, look: Look) -> None:
    """One series: marks with the band of their intervals, or a plain line for what was not simulated."""
    measured = kind == "measured" and look.marker
    axes.plot(
        rows["x"],
        rows["mean"],
        color=look.colour,
        linestyle=LINES["measured"] if measured else LINES.get(series, LINES.get(kind)),
        linewidth=1.3 if measured else 1.1,
        marker=look.marker if measured else "",
        markersize=4,
        label=series_label(series) if kind == "measured" else None,
        zorder=4 if measured else 3,
    )
    if measured and rows["low"].notna().all():
        axes.fill_between(
            rows["x"],
            rows["low"].clip(lower=BOTTOM / 10),
            rows["high"],
            color=look.colour,
            alpha=0.22,
            linewidth=0,
            zorder=2,
        )


def series_label(series: str) -> str:
    """``"biased-0.8"`` -> ``"bias 0.8"``, ``"icl-16"`` -> ``"refined, 16 shown"``."""
    kind, _, size = series.partition("-")
    words = {"biased": f"bias {size}", "noisy": f"noise {size}", "icl": f"refined, {size} shown"}
    return words.get(kind) or ARMS[series]


def caption(points: pd.DataFrame, tables: Path) -> str:
    """What one must know to read the figure, computed from what is in it."""
    from w2s.artifact import load

    spec = load(tables).spec
    seeds = plural(points["seeds"], "seed")
    cut = [row.mean for row in records(points) if row.panel in LOG_Y and row.mean < BOTTOM]
    parts = [
        f"{spec['concepts']} concepts in {spec['dimension']} dimensions, {spec['inputs']} inputs, {seeds}",
        f" of {spec['contexts']:,} contexts. "
        + ("Bands: 95 % intervals over seeds. " if points["seeds"].max() > 1 else "One seed: no intervals. "),
        "Dashed: least excess risk of naive fine-tuning over all eta; a noisy teacher's is 0. ",
        "Dotted, refinement: our bound"
        if (points["kind"] == "bound").any()
        else "No bound is known for these inputs",
        f". Lower four panels: populations, teacher of bias {spec['swept_bias']:g}.",
        f" Values below {BOTTOM:g} are cut ({len(cut)} points)." if cut else "",
    ]
    return "".join(parts)


if __name__ == "__main__":
    cli.run(main)
