"""One cell of a table, and what enters it: the measurements that it is a summary of, and the artifacts that they are from.

A row of a table names its arm, and some name another that it is compared with; both are found again among the single
measurements of the same artifact, and among the artifacts that these were read from. Nothing here recomputes a table.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s.artifact import Artifact, load
from w2s.errors import DataError
from w2s.handles import parents
from w2s.runs import parse_cell, parse_run, share_name

if TYPE_CHECKING:
    import pandas as pd

MEASUREMENTS = "measurements.parquet"
UNTUNED, TEACHER = "untuned", "teacher"
NEAREST = 5  # values that an error lists


@dataclass(frozen=True)
class Table:
    """How a table's rows name what they are a summary of.

    Attributes:
        metrics: the measurements' metrics, the first of them the main one.
        judge: the column that names the judge.
        arm, other: the columns that name the arm and the one that it is compared with.
    """

    metrics: tuple[str, ...]
    judge: str = ""
    arm: str = "arm"
    other: str = ""


# Tables of `summarise`; others have no measurements, or several arms in a row.
TABLES = {
    "rewards.csv": Table(("reward", "tokens"), "gold"),
    "differences.csv": Table(("reward",), "gold", other="baseline"),
    "lengths.csv": Table(("reward", "tokens"), "gold", other="baseline"),
    "labels.csv": Table(("agreement",), "against", arm="feedback"),
    "label_quality.csv": Table(("agreement",), arm="feedback"),
    "responses.csv": Table(("chosen_reward", "rejected_reward"), "gold", arm="feedback"),
    "comparisons.csv": Table(("win", "score", "first_wins", "length_difference", "malformed"), "judge"),
    "votes.csv": Table(("vote", "consistency", "votes", "malformed"), "judge", arm="feedback"),
    "similarity.csv": Table(("similarity",), "encoder", arm="left", other="right"),
    "similarity_points.csv": Table(("similarity",)),
    "examples.csv": Table(("vote", "votes", "chosen_reward", "rejected_reward"), arm="label_first"),
}
# Metric -> inputs of `summarise` that it is measured on.
INPUTS = {
    **dict.fromkeys(("reward", "tokens"), ("rewards",)),
    **dict.fromkeys(("chosen_reward", "rejected_reward"), ("responses", "labels")),
    **dict.fromkeys(("score", "win", "first_wins", "length_difference"), ("comparisons",)),
    **dict.fromkeys(("vote", "votes", "consistency"), ("votes", "labels")),
    "similarity": ("similarities",),
    "agreement": ("labels", "examples"),
}
# What of a row says which measurements it is about, where both have it.
IDENTITY = ("data", "share", "student", "recipe", "weak", "refiner", "seed", "id")


@dataclass(frozen=True)
class Part:
    """Measurements that enter a cell, and the artifacts that they were read from.

    Attributes:
        words: whose they are.
        where: columns of the measurements that select them.
        metric, count, seeds, mean: of the main metric's values.
        manifests: those artifacts, by seed (None: of all seeds).
    """

    words: str
    where: Mapping[str, str]
    metric: str
    count: int
    seeds: tuple[int, ...]
    mean: float
    manifests: tuple[tuple[int | None, Path], ...]


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its row, its value, and what enters it.

    ``note`` says why ``parts`` is empty, where the whole artifact must stand for the cell.
    """

    tables: Artifact
    table: str
    row: Mapping[str, str]
    column: str
    value: str
    parts: tuple[Part, ...]
    note: str = ""


def read_cell(manifest: Path, table: str, where: Sequence[str], column: str) -> Cell:
    """A cell and what enters it.

    Args:
        manifest: of the artifact that has the table.
        table: the table's file name.
        where: conditions ``column=value`` that exactly one row must fulfil.
        column: the cell's.

    Raises:
        DataError: no such column, or not exactly one such row; the message lists what is nearest.
    """
    artifact = load(manifest)
    row, value = select(artifact.path(table), where, column)
    cell = Cell(artifact, table, row, column, value, ())
    if MEASUREMENTS not in artifact.manifest["files"]:
        return replace(cell, note="this artifact has no single measurements")
    parts = tuple(_parts(artifact, table, row))
    if parts and all(part.count for part in parts):
        return replace(cell, parts=parts)
    reason = "no summary of measurements" if not parts else "measured on nothing that has its row's names"
    return replace(cell, note=f"the cell is {reason}")


# -- the row -------------------------------------------------------------------------------------------------------


def select(path: Path, where: Sequence[str], column: str) -> tuple[dict[str, str], str]:
    """The one row that fulfils all conditions, and its value in ``column``."""
    import pandas as pd

    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    columns = [str(name) for name in frame]
    conditions = [_condition(text) for text in where]
    for name in [name for name, _ in conditions] + [column]:
        if name not in frame:
            raise DataError(f"the table has no column {name!r}", where=path, instead=_nearest(name, columns))
    rows = frame
    for name, value in conditions:
        fitting = rows[[_same(cell, value) for cell in rows[name]]]
        if fitting.empty:
            others = " with the conditions before it" if len(rows) < len(frame) else ""
            raise DataError(
                f"no row{others} has {name}={value}", where=path, instead=_nearest(value, list(rows[name]))
            )
        rows = fitting
    if len(rows) > 1:
        differing = [name for name in columns if rows[name].nunique() > 1 and name != column]
        telling = [name for name in differing if not rows[name].map(_is_number).all()] or differing
        advice = f"--where {telling[0]}=... with {_nearest('', list(rows[telling[0]]))}" if telling else None
        raise DataError(
            f"{len(rows)} rows fulfil the conditions and differ in {', '.join(telling) or 'nothing'}",
            where=path,
            instead=advice,
        )
    row = {str(name): str(value) for name, value in rows.iloc[0].items()}
    return row, row[column]


def _condition(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise DataError(f"{text!r} is no condition", where="--where", instead="column=value")
    return name, value


def _same(cell: str, value: str) -> bool:
    """Whether a cell is the value, as text or as a number."""
    if cell == value or not (_is_number(cell) and _is_number(value)):
        return cell == value
    return math.isclose(float(cell), float(value), rel_tol=1e-9)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _nearest(wanted: str, known: Sequence[str]) -> str:
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(wanted, names, n=NEAREST, cutoff=0.0) if wanted else names[:NEAREST]
    more = f" (of {len(names)})" if len(names) > len(near) else ""
    return f"one of {', '.join(near)}{more}"


# -- what enters it ------------------------------------------------------------------------------------------------


def _parts(artifact: Artifact, table: str, row: Mapping[str, str]) -> Iterator[Part]:
    from w2s.tables import read_parquet

    path = artifact.path(MEASUREMENTS)
    if artifact.manifest["stage"] == "tabulate_transfer":
        yield from _transfer_parts(artifact, table, row)
    elif artifact.manifest["stage"] == "summarise" and table in TABLES:
        frame = read_parquet(path, [*IDENTITY[:4], "arm", "metric", "judge", "seed", "id", "value"])
        known = TABLES[table]
        base = {name: row[name] for name in IDENTITY if name in row}
        judge = row.get(known.judge, "")
        yield _part(artifact, frame, known.metrics, judge, {**base, "arm": row[known.arm]}, row[known.arm])
        other = row.get(known.other, "")
        if other:
            # The base model has no recipe; a teacher is another model with a recipe of its own.
            unlike = {UNTUNED: {"recipe": ""}, TEACHER: {}}.get(other, {})
            less = ("student", "recipe") if other == TEACHER else ()
            kept = {name: value for name, value in base.items() if name not in less} | unlike
            words = f"compared with {other}"
            yield _part(artifact, frame, known.metrics, judge, {**kept, "arm": other}, words)


def _part(
    artifact: Artifact,
    frame: pd.DataFrame,
    metrics: Sequence[str],
    judge: str,
    where: Mapping[str, str],
    words: str,
) -> Part:
    """The measurements that ``where`` selects, and the parents of the artifact that fit them."""
    rows = frame[frame["metric"].isin(metrics)]
    for name, value in where.items():
        rows = rows[rows[name].fillna("").astype(str) == value]
    if judge:
        rows = rows[rows["judge"].fillna("").astype(str).isin([judge, ""])]
    metric = next((name for name in metrics if (rows["metric"] == name).any()), metrics[0])
    main = rows[rows["metric"] == metric]
    seeds = tuple(sorted({int(seed) for seed in main["seed"]}))
    wanted = dict.fromkeys(name for metric in metrics for name in INPUTS.get(metric, ()))
    manifests = [
        (whose.get("seed"), path)
        for name in wanted
        for path in _paths(artifact, name)
        if _fits(whose := _whose(name, path), where, judge)
    ]
    mean = float(main["value"].mean()) if len(main) else float("nan")
    return Part(words, dict(where), metric, len(main), seeds, mean, tuple(_unique(manifests)))


def _paths(artifact: Artifact, name: str) -> list[Path]:
    return [parent.path for parent in parents(artifact) if parent.name == name]


def _whose(name: str, manifest: Path) -> dict[str, Any]:
    """What an input of `summarise` says of the measurements that are read from it."""
    if name == "examples":
        return {"data": manifest.parent.name}
    if name in ("labels", "responses"):
        lies = parse_cell(manifest, name)
        rest = {"arm": lies.rest[-1]} if name == "labels" else {"judge": lies.rest[-1]}
        return {"data": lies.data, "share": lies.share, "seed": lies.seed, **rest}
    spec = load(manifest).spec
    cell = {"data": spec["data"], "share": share_name(spec["share"]), "seed": int(spec["seed"])}
    judge = spec.get("gold") or spec.get("judge") or spec.get("encoder_name")
    if name == "votes":
        return {**cell, "arm": spec["feedback"], "judge": judge}
    run = parse_run(spec["run"])
    return {**cell, "student": run.model, "arm": run.arm, "recipe": run.recipe, "judge": judge}


def _fits(whose: Mapping[str, Any], where: Mapping[str, str], judge: str) -> bool:
    if judge and whose.get("judge") not in (None, judge):
        return False
    return all(str(whose[name]) == value for name, value in where.items() if name in whose)


def _unique(manifests: Sequence[tuple[int | None, Path]]) -> list[tuple[int | None, Path]]:
    return sorted(dict.fromkeys(manifests), key=lambda entry: (entry[0] is None, entry[0] or 0))


# -- paper B -------------------------------------------------------------------------------------------------------


def _transfer_parts(artifact: Artifact, table: str, row: Mapping[str, str]) -> Iterator[Part]:
    from w2s import transfer
    from w2s.tables import read_parquet

    frame = read_parquet(artifact.path(MEASUREMENTS), transfer.COLUMNS)
    texts = [*transfer.PANEL, *transfer.ARM, "feedback"]
    frame = frame.assign(**{name: frame[name].fillna("").astype(str) for name in texts})
    if table == "labels.csv":
        yield from _label_parts(artifact, frame, row)
        return
    panels, _ = transfer.panels(frame)
    panel = next(
        (one for one in panels if all(one[0][name] == row[name] for name in transfer.PANEL)),
        transfer.Panel(),
    )
    mine = [
        arm
        for weak in dict.fromkeys((row["weak"], ""))
        for arm in panel
        if arm["weak"] == weak and all(arm[name] == row[name] for name in transfer.ARM if name != "weak")
    ][:1]
    if not mine:
        return
    yield _answers(artifact, mine[0], mine[0]["arm"])
    others = {
        "differences.csv": [row.get("baseline", "")],
        "recovered.csv": [TEACHER, row.get("ceiling", "")],
    }
    for other in others.get(table, ()):
        partner = transfer._partner(panel, mine[0], row["weak"], other)
        if partner is not None:
            yield _answers(artifact, partner, f"compared with {other}")


def _answers(artifact: Artifact, arm: Any, words: str) -> Part:
    """The scores of an arm that count in its panel."""
    from w2s.transfer import ARM

    where = {name: arm[name] for name in ("data", *ARM)}
    named = {"metric": arm["metric"], "judge": arm["judge"]}
    return _scored(artifact, arm.cells, {**where, **named}, words)


def _label_parts(artifact: Artifact, frame: pd.DataFrame, row: Mapping[str, str]) -> Iterator[Part]:
    from w2s.transfer_results import LABELS

    names = ("data", "weak", "refiner", "metric", "judge")
    where = {**{name: row[name] for name in names}, "arm": LABELS + row["refinement"]}
    rows = frame
    for name, value in where.items():
        rows = rows[rows[name] == value]
    if len(rows):
        yield _scored(artifact, rows, where, f"labels of {row['refinement']}")
        return
    manifests = [entry for entry in _records(artifact, row)]
    if manifests:
        seeds = tuple(seed for seed, _ in manifests if seed is not None)
        words = f"training sets of {row['refinement']}"
        yield Part(words, where, row["metric"], len(manifests), seeds, float(row["mean"]), tuple(manifests))


def _records(artifact: Artifact, row: Mapping[str, str]) -> Iterator[tuple[int | None, Path]]:
    """Training sets that a row about their sizes counts."""
    from w2s.transfer_runs import parse_records

    for path in _paths(artifact, "records"):
        name = parse_records(path)
        if (name.weak, name.refiner, name.refinement) == (row["weak"], row["refiner"], row["refinement"]):
            yield name.seed, path


def _scored(artifact: Artifact, cells: pd.DataFrame, where: Mapping[str, str], words: str) -> Part:
    from w2s.tables import read_parquet
    from w2s.transfer import Transfer
    from w2s.transfer_runs import parse_answers

    spec = artifact.spec
    transfer = Transfer(spec["experiment"], spec["training"], spec["refinements"], spec["naive"])
    manifests: list[tuple[int | None, Path]] = []
    for path in _paths(artifact, "scores"):
        name = parse_answers(path)
        whose = transfer.identity(name)
        if not all(whose[column] == value for column, value in where.items() if column in whose):
            continue
        table = read_parquet(load(path).path("scores.parquet"), ["metric", "judge"])
        if ((table["metric"] == where["metric"]) & (table["judge"].fillna("") == where["judge"])).any():
            manifests.append((name.seed, path))
    seeds = tuple(sorted({int(seed) for seed in cells["seed"]}))
    mean = float(cells["value"].mean())
    return Part(words, where, where["metric"], len(cells), seeds, mean, tuple(_unique(manifests)))
