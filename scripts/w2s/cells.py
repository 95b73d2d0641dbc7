"""One cell of a table, and what enters it: the measurements that it is a summary of, and the artifacts that they are from.

A row of a table names its arm, and some name another that it is compared with; both are found again among the single
measurements of the same artifact, and among the artifacts that these were read from. Nothing here recomputes a table.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
        metrics: the measurements' metrics, the first that the row has being that of most columns.
        judge: the column that names the judge.
        arm, other: the columns that name the arm and the one that it is compared with.
        columns: column -> its metrics, where these are others: all of them enter, and none means no measurements.
        alone: column -> ``arm`` or ``other``, where only one of the two enters.
    """

    metrics: tuple[str, ...]
    judge: str = ""
    arm: str = "arm"
    other: str = ""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    alone: Mapping[str, str] = field(default_factory=dict)

    def enters(self, column: str, side: str) -> bool:
        """Whether the measurements of ``arm``, or of ``other``, are part of a column."""
        return self.alone.get(column, side) == side


BETA: Mapping[str, tuple[str, ...]] = {"beta": ()}  # a setting
# Tables of `summarise`; others have no measurements, several arms in a row or, as `label_quality.csv`, bins of labels
# that the measurements do not tell.
TABLES = {
    "rewards.csv": Table(
        ("reward",),
        "gold",
        # Whether a response is malformed or cut off is known of each, but not kept among the measurements.
        columns={**BETA, "tokens": ("tokens",), "malformed": (), "truncated": ()},
    ),
    "differences.csv": Table(("reward",), "gold", other="baseline", columns=BETA),
    "lengths.csv": Table(
        ("reward",),
        "gold",
        other="baseline",
        columns={
            **BETA,
            **dict.fromkeys(("tokens", "tokens_difference"), ("tokens",)),
            **dict.fromkeys(("reward_per_token", "adjusted", "low", "high", "slope"), ("reward", "tokens")),
        },
        alone=dict.fromkeys(("seeds", "prompts", "mean", "tokens", "reward_per_token"), "arm"),
    ),
    "labels.csv": Table(("agreement",), "against", arm="feedback"),
    "responses.csv": Table(
        ("chosen_reward",),
        "gold",
        arm="feedback",
        columns={
            "rejected": ("rejected_reward",),
            **dict.fromkeys(
                ("gap", "low", "high", "gold_agrees", "gold_agrees_low", "gold_agrees_high"),
                ("chosen_reward", "rejected_reward"),
            ),
        },
    ),
    "comparisons.csv": Table(
        ("win",),
        "judge",
        columns={
            "length_controlled": ("win", "length_difference"),
            "position_bias": ("first_wins",),
            "malformed": ("malformed",),
        },
    ),
    "votes.csv": Table(
        ("vote",),
        "judge",
        arm="feedback",
        columns={
            **dict.fromkeys(("consistency", "low", "high"), ("consistency",)),
            **{"votes": ("votes",), "malformed": ("malformed",)},
        },
    ),
    "similarity.csv": Table(
        ("similarity",),
        "encoder",
        arm="left",
        other="right",
        alone={"mean_left": "arm", "mean_right": "other"},
    ),
    "similarity_points.csv": Table(("similarity",)),
    "examples.csv": Table(
        ("vote", "chosen_reward"),
        arm="label_first",
        columns={
            "reward_first": ("chosen_reward",),
            "reward_second": ("rejected_reward",),
            "votes": ("vote", "votes"),
        },
    ),
}
# Columns of `tabulate_transfer` that no arm's own scores tell: a setting, and what the other arms of its panel lack.
UNSCORED = ("shown", "missing", "left_out")
# Metric -> inputs of `summarise` that it is measured on.
INPUTS = {
    **dict.fromkeys(("reward", "tokens"), ("rewards",)),
    **dict.fromkeys(("chosen_reward", "rejected_reward"), ("responses", "labels")),
    **dict.fromkeys(("win", "first_wins", "length_difference"), ("comparisons",)),
    **dict.fromkeys(("vote", "votes", "consistency"), ("votes", "labels")),
    "malformed": ("comparisons", "votes"),
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
        metric, count, seeds, mean: which values, how many, of which seeds, and their mean.
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

    ``note`` says why ``parts`` is empty, where the whole artifact must stand for the cell, or that the cell is computed
    from the parts in another way than as a mean, so that none of theirs is mistaken for it.
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
    parts = tuple(_parts(artifact, table, row, column))
    if parts and all(part.count for part in parts):
        return replace(cell, parts=parts, note=_unlike_means(value, [part.mean for part in parts]))
    reason = "no summary of measurements" if not parts else "measured on nothing that has its row's names"
    return replace(cell, note=f"the cell is {reason}")


def _unlike_means(value: str, means: Sequence[float]) -> str:
    """A word where a number is neither the mean of one part nor the difference of those of two."""
    told = means[0] - means[1] if len(means) == 2 else means[0] if len(means) == 1 else math.nan
    if not value:
        return "the cell is empty"
    if not _is_number(value) or math.isclose(float(value), told, rel_tol=1e-9, abs_tol=1e-12):
        return ""
    return "the cell is computed from these, but is neither a mean of theirs nor a difference of two means"


# -- the row -------------------------------------------------------------------------------------------------------


def select(path: Path, where: Sequence[str], column: str) -> tuple[dict[str, str], str]:
    """The one row that fulfils all conditions, and its value in ``column``.

    Raises:
        DataError: the table has no rows (an experiment without models has none of rewards), no such column, or not
            exactly one such row.
    """
    import pandas as pd

    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    columns = [str(name) for name in frame]
    conditions = [_condition(text) for text in where]
    if frame.empty:
        raise DataError("the table has no rows", where=path)
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


def _parts(artifact: Artifact, table: str, row: Mapping[str, str], column: str) -> Iterator[Part]:
    stage = artifact.manifest["stage"]
    if stage == "tabulate_transfer" and column not in UNSCORED:
        yield from _transfer_parts(artifact, table, row, column)
    elif stage == "summarise" and table in TABLES:
        yield from _feedback_parts(artifact, TABLES[table], row, column)


def _feedback_parts(artifact: Artifact, known: Table, row: Mapping[str, str], column: str) -> Iterator[Part]:
    from w2s.tables import read_parquet

    frame = read_parquet(
        artifact.path(MEASUREMENTS), [*IDENTITY[:4], "arm", "metric", "judge", "seed", "id", "value"]
    )
    base = {name: row[name] for name in IDENTITY if name in row}
    if known.arm == "feedback":
        base["student"] = ""  # of labels, not of the answers of a student that learned from them
    judge = row.get(known.judge, "")
    sides = [("arm", {**base, "arm": row[known.arm]}, row[known.arm])]
    if other := row.get(known.other, ""):
        sides.append(("other", _compared(base, other), f"compared with {other}"))
    for side, where, words in sides:
        if known.enters(column, side):
            mine = _selected(frame, where, judge)
            yield from (
                _part(artifact, mine, metric, judge, where, words) for metric in _metrics(known, column, mine)
            )


def _compared(base: Mapping[str, str], other: str) -> dict[str, str]:
    """What selects the measurements of the arm that a row is compared with."""
    # The base model has no recipe; a teacher is another model with a recipe of its own.
    unlike = {UNTUNED: {"recipe": ""}, TEACHER: {}}.get(other, {})
    less = ("student", "recipe") if other == TEACHER else ()
    return {name: value for name, value in base.items() if name not in less} | unlike | {"arm": other}


def _selected(frame: pd.DataFrame, where: Mapping[str, str], judge: str) -> pd.DataFrame:
    rows = frame
    for name, value in where.items():
        rows = rows[rows[name].fillna("").astype(str) == value]
    return rows[rows["judge"].fillna("").astype(str).isin([judge, ""])] if judge else rows


def _metrics(known: Table, column: str, rows: pd.DataFrame) -> tuple[str, ...]:
    """The metrics that a column is a summary of."""
    found = known.columns.get(column)
    if found is None:
        measured = set(rows["metric"])
        found = (next((name for name in known.metrics if name in measured), known.metrics[0]),)
    return found


def _part(
    artifact: Artifact,
    rows: pd.DataFrame,
    metric: str,
    judge: str,
    where: Mapping[str, str],
    words: str,
) -> Part:
    """One metric's measurements of those that ``where`` selects, and the parents of the artifact that fit them."""
    mine = rows[rows["metric"] == metric]
    if not judge and len(mine):
        # Tables that name no judge tell the first one's.
        judge = str(mine["judge"].fillna("").iloc[0])
        mine = mine[mine["judge"].fillna("").astype(str) == judge]
    seeds = tuple(sorted({int(seed) for seed in mine["seed"]}))
    manifests = [
        (whose.get("seed"), path)
        for name in INPUTS[metric]
        for path in _paths(artifact, name)
        if _fits(whose := _whose(name, path), where, judge)
    ]
    mean = float(mine["value"].mean()) if len(mine) else math.nan
    return Part(words, dict(where), metric, len(mine), seeds, mean, tuple(_unique(manifests)))


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
        return {**cell, "student": "", "arm": spec["feedback"], "judge": judge}
    run = parse_run(spec["run"])
    return {**cell, "student": run.model, "arm": run.arm, "recipe": run.recipe, "judge": judge}


def _fits(whose: Mapping[str, Any], where: Mapping[str, str], judge: str) -> bool:
    if judge and whose.get("judge") not in (None, judge):
        return False
    return all(str(whose[name]) == value for name, value in where.items() if name in whose)


def _unique(manifests: Sequence[tuple[int | None, Path]]) -> list[tuple[int | None, Path]]:
    return sorted(dict.fromkeys(manifests), key=lambda entry: (entry[0] is None, entry[0] or 0))


# -- paper B -------------------------------------------------------------------------------------------------------


def _transfer_parts(artifact: Artifact, table: str, row: Mapping[str, str], column: str) -> Iterator[Part]:
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
    others = {
        "differences.csv": [row.get("baseline", "")],
        "recovered.csv": [TEACHER, row.get("ceiling", "")],
    }.get(table, [])
    entering = [(mine[0], mine[0]["arm"])] + [
        (other, f"compared with {name}")
        for name in others
        if (other := transfer.partner(panel, mine[0], row["weak"], name)) is not None
    ]
    if table == "recovered.csv" and column.startswith("gap"):
        # The gap is the ceiling's lead on the teacher, whichever arm is to close it.
        entering = entering[:0:-1]
    for arm, words in entering:
        yield _answers(artifact, arm, words)


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
    manifests = list(_records(artifact, row))
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
