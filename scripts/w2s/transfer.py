"""The tables of one transfer (paper B) from the scores of its answers; ``tabulate_transfer.py`` reads and writes.

**Arms.** ``untuned``: the unaligned strong model; ``teacher``: the weak model itself; else the name of a refinement: a
student tuned on such labels, or answers that were refined at test time. ``labels:<refinement>`` are the labels themselves,
on the training questions.

**Panels.** A panel is the scores of one set of test questions by one metric and judge. An answer counts only if
every arm of the panel has a score for the same question and seed, as in the paper; how many an arm lacks, and how many of
its own are left out because another lacks them, stands in the arm's row. An arm without a single score by a metric
(the metric does not apply to it) takes no part in the panel; the manifest lists them. Judges are never mixed.

**Pairs.** An arm without weak labeller (own or gold labels) is compared for each weak labeller of its student. The arm
that it is compared with has the same fine-tuning, or the only one there is.

**Recovered gap.** (arm - teacher) / (ceiling - teacher), for two ceilings: students tuned on gold labels, and the
unaligned strong model, which is the paper's standard. Undefined (empty) unless the ceiling is above the teacher. Its
interval linearises the ratio: it is that of the cells' arm - teacher - recovered * (ceiling - teacher), divided by the mean
gap, and means little where the gap's own interval holds zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from w2s import statistics
from w2s.artifact import load
from w2s.errors import DataError, JoinError
from w2s.statistics import Bootstrap
from w2s.tables import named, read_parquet
from w2s.transfer_results import LABELS, QUALITIES, TEACHER, UNTUNED
from w2s.transfer_runs import PLAIN, TUNED, WEAK, AnswersName, parse_answers, parse_records

IDENTITY = ["experiment", "data", "share", "student", "arm", "feedback", "recipe", "step", "beta"]
IDENTITY += ["weak", "refiner", "shown"]
COLUMNS = [*IDENTITY, "metric", "judge", "seed", "id", "value"]
PANEL = ["data", "metric", "judge"]
ARM = ["student", "weak", "refiner", "arm", "recipe"]
CELLS = ["seed", "id", "value"]
SCORE_COLUMNS = ["id", "metric", "judge", "value"]

ARM_COLUMNS = ["experiment", "data", "student", "weak", "refiner", "arm", "recipe", "kind", "choice", "timed"]
ARM_COLUMNS += ["shown", "metric", "judge", "seeds", "items", "mean", "low", "high", "missing", "left_out"]
DIFFERENCE_COLUMNS = ["experiment", "data", *ARM, "shown", "baseline", "metric", "judge", "seeds", "items"]
DIFFERENCE_COLUMNS += ["difference", "low", "high", "seed_differences"]
RECOVERED_COLUMNS = ["experiment", "data", *ARM, "shown", "ceiling", "metric", "judge", "seeds", "items"]
RECOVERED_COLUMNS += ["recovered", "low", "high", "gap", "gap_low", "gap_high"]
LABEL_COLUMNS = ["experiment", "data", "weak", "refiner", "refinement", "metric", "judge", "seeds", "items"]
LABEL_COLUMNS += ["mean", "low", "high"]


@dataclass(frozen=True)
class Transfer:
    """What the catalogue says of a transfer.

    Args:
        name: the experiment's name.
        training: name of the training questions.
        refinements: refinement -> its settings: ``kind``, and where it has them ``shown``, ``choice``.
        naive: the refinement whose labels are the weak model's own answers, with which others are compared.
    """

    name: str
    training: str
    refinements: Mapping[str, Mapping[str, Any]]
    naive: str

    def setting(self, refinement: str, name: str, default: Any = "") -> Any:
        """A setting of a refinement; ``default`` where it has none, or the arm is no refinement."""
        value = self.refinements.get(refinement, {}).get(name)
        return default if value is None else value

    def identity(self, name: AnswersName) -> dict[str, Any]:
        """The columns of measurements that say which arm the answers are.

        Raises:
            DataError: answers that no arm is made of, or of a refinement that is not declared.
        """
        own = {"student": "", "weak": name.weak, "refiner": name.refiner, "recipe": name.fine_tuning}
        refinement, arm = name.refinement, name.refinement
        if name.questions == self.training:
            found = {WEAK: self.naive, PLAIN: self._of_kind("own"), TUNED: self._through(name.base)}
            refinement = found.get(name.kind, refinement)
            own["recipe"] = ""
            side = {WEAK: "weak", PLAIN: "refiner"}.get(name.kind)
            own |= {side: name.writer} if side else {}
            arm = LABELS + refinement
        elif name.kind == PLAIN:
            own["student"], arm = name.writer, UNTUNED
        elif name.kind == WEAK:
            own["weak"], arm = name.writer, TEACHER
        else:
            own["student"] = name.base if name.kind == TUNED else name.refiner
        if name.intents:
            raise DataError("intents are no arm")
        if arm == LABELS:
            raise DataError("answers to the training questions by a model that writes no labels are no arm")
        if arm not in (UNTUNED, TEACHER) and refinement not in self.refinements:
            known = ", ".join(self.refinements)
            raise DataError(f"refinement {refinement!r} is not declared", instead=f"one of {known}")
        shown = self.setting(refinement, "shown", np.nan)
        return {"experiment": self.name, "data": name.questions, "share": "", "step": "", "beta": np.nan} | (
            own | {"arm": arm, "feedback": refinement, "shown": float(shown)}
        )

    def _through(self, base: str) -> str:
        """The refinement whose labels a student of this base in the middle writes, empty if there is none."""
        return next((name for name in self.refinements if self.setting(name, "through") == base), "")

    def _of_kind(self, kind: str) -> str:
        """The first refinement of a kind, empty if there is none."""
        return next((name for name in self.refinements if self.setting(name, "kind") == kind), "")


# -- measurements --------------------------------------------------------------------------------------------------


def measurements(transfer: Transfer, manifests: Sequence[Path]) -> pd.DataFrame:
    """All single scores, COLUMNS, a row per answer, metric and judge.

    Raises:
        DataError: scores of several tasks, of answers that are no arm, or that are not finite.
        JoinError: an answer is scored twice by one metric and judge.
    """
    frames, tasks = [], dict[str, Path]()
    for manifest in manifests:
        name = parse_answers(manifest.resolve())
        tasks.setdefault(name.task, manifest)
        file = load(manifest).path("scores.parquet")
        scores = read_parquet(file, SCORE_COLUMNS)[SCORE_COLUMNS]
        wrong = scores.loc[~np.isfinite(scores["value"].astype(float)), "id"]
        if len(wrong):
            raise DataError(f"{len(wrong)} scores are not finite: {named(wrong)}", where=file)
        try:
            identity = transfer.identity(name)
        except DataError as error:
            raise DataError(error.what, where=manifest, instead=error.instead) from error
        frames.append(scores.assign(**identity, seed=name.seed))
    if len(tasks) > 1:
        raise DataError(f"scores of several tasks: {', '.join(tasks)}", where=[*tasks.values()][1])
    whole = pd.concat(frames, ignore_index=True)[COLUMNS]
    whole["value"] = whole["value"].astype(float)
    key = [name for name in COLUMNS if name not in ("beta", "shown", "value")]
    twice = whole[whole.duplicated(key)]
    if len(twice):
        row = twice.iloc[0]
        raise JoinError(
            f"{len(twice)} answers are scored twice by one metric and judge, first: {_words(row)}, seed {row['seed']}, "
            f"id {row['id']}"
        )
    return whole


def _words(row: Any) -> str:
    return ", ".join(str(row[name]) for name in [*PANEL, *ARM] if row[name])


# -- panels --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """One arm in a panel: who it is (data, metric, judge and ARM), the cells that count, and how many do not."""

    key: Mapping[str, Any]
    cells: pd.DataFrame
    missing: int
    left_out: int

    def __getitem__(self, name: str) -> Any:
        return self.key[name]


Panel = list[Arm]


def panels(table: pd.DataFrame) -> tuple[list[Panel], list[str]]:
    """The arms by panel, each with the cells that all of its arms have; and, in words, the arms that a panel lacks.

    Raises:
        DataError: the arms of a panel have no question in common.
        JoinError: the arms of a panel have different seeds.
    """
    mine = table[~table["arm"].str.startswith(LABELS)]
    found, absent = [], []
    for data, of_data in mine.groupby("data", sort=False):
        everything = pd.MultiIndex.from_frame(of_data[["seed", "id"]].drop_duplicates())
        everyone = list(dict.fromkeys(of_data[ARM].itertuples(index=False, name=None)))
        for (metric, judge), rows in of_data.groupby(["metric", "judge"], sort=False):
            of_arm = {arm: cells[CELLS] for arm, cells in rows.groupby(ARM, sort=False)}
            key = {"data": str(data), "metric": str(metric), "judge": str(judge)}
            found.append(_panel(key, of_arm, everything))
            by = f" by {judge}" if judge else ""
            absent += [
                f"{data}, {metric}{by}: {' '.join(filter(None, arm))}"
                for arm in everyone
                if arm not in of_arm
            ]
    return found, absent


def _panel(key: Mapping[str, str], of_arm: Mapping[Any, pd.DataFrame], everything: pd.MultiIndex) -> Panel:
    indices = {arm: pd.MultiIndex.from_frame(cells[["seed", "id"]]) for arm, cells in of_arm.items()}
    _check_seeds(key, of_arm)
    common = everything
    for index in indices.values():
        common = common.intersection(index)
    if common.empty:
        raise DataError("no question has a score in all arms", where=", ".join(filter(None, key.values())))
    panel = []
    for arm, cells in of_arm.items():
        kept = cells[indices[arm].isin(common)].sort_values(["seed", "id"], ignore_index=True)
        lost = len(cells) - len(kept)
        panel.append(
            Arm({**key, **dict(zip(ARM, arm, strict=True))}, kept, len(everything) - len(cells), lost)
        )
    return panel


def _check_seeds(key: Mapping[str, str], of_arm: Mapping[Any, pd.DataFrame]) -> None:
    seeds = {arm: sorted(map(int, cells["seed"].unique())) for arm, cells in of_arm.items()}
    first = next(iter(seeds))
    for arm, mine in seeds.items():
        if mine != seeds[first]:
            pair = [f"{' '.join(filter(None, who))} has {seeds[who]}" for who in (first, arm)]
            raise JoinError(
                f"the arms have different seeds: {', '.join(pair)}",
                where=", ".join(filter(None, key.values())),
            )


# -- tables --------------------------------------------------------------------------------------------------------


def arms_table(transfer: Transfer, found: Sequence[Panel], bootstrap: Bootstrap) -> pd.DataFrame:
    """``arms.csv``: mean and interval of each arm over the cells that count, ARM_COLUMNS."""
    rows = []
    for arm in (arm for panel in found for arm in panel):
        result = statistics.bootstrap_mean(arm.cells, bootstrap)
        kind = transfer.setting(arm["arm"], "kind")
        timed = bool(kind) and not arm["recipe"]
        rows.append(
            {
                **{"experiment": transfer.name, **arm.key, **_of_refinement(transfer, arm)},
                **{"kind": kind, "choice": transfer.setting(arm["arm"], "choice")},
                **{"timed": "yes" if timed else "no", "seeds": result.seeds, "items": result.prompts},
                **{"mean": result.mean, "low": result.low, "high": result.high},
                **{"missing": arm.missing, "left_out": arm.left_out},
            }
        )
    return pd.DataFrame(rows, columns=ARM_COLUMNS)


def differences_table(transfer: Transfer, found: Sequence[Panel], bootstrap: Bootstrap) -> pd.DataFrame:
    """``differences.csv``: each student minus naive, minus the unaligned strong model, minus its weak teacher."""
    rows = []
    for panel in found:
        for arm, weak in _students(transfer, panel):
            for baseline in (transfer.naive, UNTUNED, TEACHER):
                other = partner(panel, arm, weak, baseline)
                if other is None or other is arm:
                    continue
                result = statistics.bootstrap_mean(minus(arm.cells, other.cells), bootstrap)
                by_seed = ";".join(repr(round(value, 6)) for value in result.seed_means)
                rows.append(
                    {
                        **{"experiment": transfer.name, **arm.key, **_of_refinement(transfer, arm)},
                        # Against the unaligned model an arm without weak labeller is one and the same for all of them.
                        **{"weak": arm["weak"] if baseline == UNTUNED else weak, "baseline": baseline},
                        **{"seeds": result.seeds, "items": result.prompts, "difference": result.mean},
                        **{"low": result.low, "high": result.high, "seed_differences": by_seed},
                    }
                )
    table = pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS)
    return table.drop_duplicates(["data", *ARM, "baseline", "metric", "judge"], ignore_index=True)


def recovered_table(transfer: Transfer, found: Sequence[Panel], bootstrap: Bootstrap) -> pd.DataFrame:
    """``recovered.csv``: share of the gap between teacher and ceiling that an arm closes, by the metrics of quality."""
    rows = []
    gold = next((name for name in transfer.refinements if transfer.setting(name, "kind") == "gold"), "gold")
    for panel in (panel for panel in found if panel[0]["metric"] in QUALITIES):
        for arm, weak in _students(transfer, panel):
            teacher = partner(panel, arm, weak, TEACHER)
            for baseline in (gold, UNTUNED):
                ceiling = partner(panel, arm, weak, baseline)
                if teacher is None or ceiling is None or ceiling is arm:
                    continue
                rows.append(
                    {
                        **{"experiment": transfer.name, **arm.key, **_of_refinement(transfer, arm)},
                        **{"weak": weak, "ceiling": baseline},
                        **recovered(arm.cells, teacher.cells, ceiling.cells, bootstrap),
                    }
                )
    return pd.DataFrame(rows, columns=RECOVERED_COLUMNS)


def recovered(
    arm: pd.DataFrame, teacher: pd.DataFrame, ceiling: pd.DataFrame, bootstrap: Bootstrap
) -> dict[str, float]:
    """The recovered share of the gap with its interval (NaN where undefined), and the gap with its own.

    Args:
        arm: cells (seed, id, value), the same (seed, id) in all three.
        teacher: as ``arm``.
        ceiling: as ``arm``.
        bootstrap: draws and their seed.
    """
    above, gaps = minus(arm, teacher), minus(ceiling, teacher)
    gap = statistics.bootstrap_mean(gaps, bootstrap)
    values = {"gap": gap.mean, "gap_low": gap.low, "gap_high": gap.high}
    values |= {"seeds": gap.seeds, "items": gap.prompts}
    if gap.mean <= 0:
        return values | dict.fromkeys(("recovered", "low", "high"), float("nan"))
    share = float(above["value"].mean() / gap.mean)
    linear = share + (above["value"] - share * gaps["value"]) / gap.mean
    result = statistics.bootstrap_mean(above.assign(value=linear), bootstrap)
    return values | {"recovered": share, "low": result.low, "high": result.high}


def minus(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Cells with left minus right, which a panel keeps in one order.

    Raises:
        JoinError: they are not the same cells in the same order.
    """
    for name in ("seed", "id"):
        if not np.array_equal(left[name].to_numpy(), right[name].to_numpy()):
            raise JoinError(f"the two arms differ in their {name}s", instead="two arms of one panel")
    return left.assign(value=left["value"].to_numpy() - right["value"].to_numpy())


def labels_table(
    transfer: Transfer, table: pd.DataFrame, records: Sequence[Path], bootstrap: Bootstrap
) -> pd.DataFrame:
    """``labels.csv``: quality of the training labels by each metric, and rows of the training sets, kept and dropped.

    A label's mean is over all of its own scores. ``rows`` and ``dropped_<reason>`` are means over seeds, without an interval.
    """
    mine = table[table["arm"].str.startswith(LABELS)]
    rows = []
    key = ["data", "weak", "refiner", "feedback", "metric", "judge"]
    for names, cells in mine.groupby(key, sort=False):
        result = statistics.bootstrap_mean(cells[CELLS], bootstrap)
        ends = [result.seeds, result.prompts, result.mean, result.low, result.high]
        rows.append([transfer.name, *names, *ends])
    counted = pd.DataFrame(
        _counts(records), columns=["weak", "refiner", "refinement", "metric", "seed", "rows"]
    )
    for names, counts in counted.groupby(["weak", "refiner", "refinement"], sort=False):
        seeds = counts["seed"].nunique()
        for metric, values in counts.groupby("metric", sort=False)["rows"]:
            mean = float(values.sum()) / seeds
            rows.append(
                [transfer.name, transfer.training, *names, metric, "", seeds, np.nan, mean, np.nan, np.nan]
            )
    return pd.DataFrame(rows, columns=LABEL_COLUMNS).astype({"items": "Int64"})


def _counts(manifests: Sequence[Path]) -> Iterator[list[Any]]:
    """Rows of each training set and dropped rows by reason: weak, refiner, refinement, quantity, seed, rows."""
    for manifest in manifests:
        name, artifact = parse_records(manifest.resolve()), load(manifest)
        kept = read_parquet(artifact.path("records.parquet"), ["id", "source"])
        dropped = read_parquet(artifact.path("dropped.parquet"), ["id", "source", "reason"])
        counts = {"rows": len(kept)}
        for reason, rows in dropped["reason"].value_counts(sort=False).sort_index().items():
            counts[f"dropped_{reason}".replace(" ", "_")] = int(rows)
        for quantity, rows in counts.items():
            yield [name.weak, name.refiner, name.refinement, quantity, name.seed, rows]


def _of_refinement(transfer: Transfer, arm: Arm) -> dict[str, float]:
    return {"shown": float(transfer.setting(arm["arm"], "shown", np.nan))}


# -- who is compared with whom -------------------------------------------------------------------------------------


def _students(transfer: Transfer, panel: Panel) -> Iterator[tuple[Arm, str]]:
    """Every arm that learned or was shown something, with each weak labeller that it is compared for."""
    for arm in panel:
        if arm["arm"] not in (UNTUNED, TEACHER):
            every = dict.fromkeys(other["weak"] for other in panel if other["weak"])
            for weak in [arm["weak"]] if arm["weak"] else [*every, *([] if every else [""])]:
                yield arm, weak


def partner(panel: Panel, arm: Arm, weak: str, baseline: str) -> Arm | None:
    """The panel's arm ``baseline`` that this arm is compared with; None where there is none, or several.

    Tables and the lineage of their cells both ask here, so that a cell is traced to what it was computed from.
    """
    student = "" if baseline == TEACHER else arm["student"]
    found = [
        other
        for other in panel
        if other["arm"] == baseline and other["student"] == student and other["weak"] in (weak, "")
    ]
    same = [other for other in found if other["recipe"] == arm["recipe"]] if len(found) > 1 else found
    return same[0] if len(same) == 1 else None
