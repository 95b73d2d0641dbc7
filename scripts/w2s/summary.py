"""The tables of an experiment from its measurements: rewards, differences, costs.

All are functions from tables to tables; ``summarise.py`` reads and writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from w2s import statistics
from w2s.artifact import Artifact, load
from w2s.errors import ArtifactError, DataError, JoinError
from w2s.runs import Run, parse_run, share_name
from w2s.statistics import Bootstrap
from w2s.tables import check_same_ids, check_unique, named, read_parquet

SETTING = ["data", "share", "student", "recipe"]
REWARD_COLUMNS = [
    "experiment",
    *SETTING,
    "beta",
    "arm",
    "feedback",
    "step",
    "gold",
    "seeds",
    "prompts",
    "mean",
    "low",
    "high",
]
REWARD_COLUMNS += ["malformed", "truncated", "tokens"]
DIFFERENCE_COLUMNS = ["experiment", *SETTING, "beta", "arm", "baseline", "gold", "seeds", "prompts"]
DIFFERENCE_COLUMNS += ["difference", "low", "high", "seed_differences"]
COST_COLUMNS = ["stage", "jobs", "wall_s", "peak_memory_mb"]
UNTUNED = "untuned"
# data, share, student, recipe, gold, arm
ArmKey = tuple[str, str, str, str, str, str]


@dataclass(frozen=True)
class Measured:
    """Rewards of one model in one cell by one judge.

    ``frame`` has the columns id, value and what is known of each response: malformed, truncated, tokens.
    """

    run: Run
    data: str
    share: str
    seed: int
    gold: str
    frame: pd.DataFrame


# -- reading -----------------------------------------------------------------------------------------------


def read_measured(manifest: Path) -> Measured:
    """Rewards of a ``score_gold`` or ``score_exact`` artifact, with what is known of each response.

    Raises:
        DataError: the spec does not say what was scored, or a reward is missing.
    """
    artifact = load(manifest)
    missing = [name for name in ("run", "data", "share", "seed", "gold") if name not in artifact.spec]
    if missing:
        raise DataError(f"the rewards do not say their {', '.join(missing)}", where=manifest)
    path = artifact.path("rewards.parquet")
    frame = read_parquet(path, ["id", "reward"])
    check_unique(frame["id"], path)
    wrong = frame.loc[~np.isfinite(frame["reward"].astype(float)), "id"]
    if len(wrong):
        raise DataError(f"{len(wrong)} rewards are missing or not finite: {named(wrong)}", where=path)
    known = [name for name in ("malformed",) if name in frame]
    frame = frame[["id", "reward", *known]].rename(columns={"reward": "value"})
    responses = _responses(artifact)
    if responses is not None:
        check_same_ids(frame["id"], responses["id"], f"rewards {manifest}", "their generations")
        frame = frame.merge(responses, on="id", validate="one_to_one")
    spec = artifact.spec
    return Measured(
        parse_run(spec["run"]),
        spec["data"],
        share_name(spec["share"]),
        int(spec["seed"]),
        spec["gold"],
        frame,
    )


def _responses(artifact: Artifact) -> pd.DataFrame | None:
    """Columns id, truncated, tokens of the generations that were scored; None where they are gone."""
    parent = artifact.manifest["parents"].get("generations")
    manifest = artifact.folder / parent["path"] if parent else None
    if manifest is None or not manifest.is_file():
        return None
    generations = load(manifest)
    if generations.digest != parent["digest"]:
        raise ArtifactError(
            "the generations are not the ones that were scored", where=manifest, instead="score them again"
        )
    frame = read_parquet(generations.path("generations.parquet"), ["id", "tokens", "finished"])
    return frame[["id", "tokens"]].assign(truncated=(frame["finished"] == "length").astype(float))


# -- rewards and differences -------------------------------------------------------------------------------


def arms(measured: Sequence[Measured]) -> dict[ArmKey, tuple[Run, pd.DataFrame]]:
    """All seeds of each arm together: its key -> (run, cells with seed, id, value).

    Raises:
        JoinError: two artifacts claim the same arm, judge and seed.
    """
    found: dict[ArmKey, dict[int, Measured]] = {}
    for item in measured:
        run = item.run
        seeds = found.setdefault((item.data, item.share, run.model, run.recipe, item.gold, run.arm), {})
        if seeds.setdefault(item.seed, item) is not item:
            raise JoinError(
                f"two sets of rewards for arm {run.arm!r} of {run.model}, judge {item.gold}",
                where=f"{item.data}, share {item.share}, seed {item.seed}, recipe {run.recipe!r}",
                instead="each artifact of rewards once",
            )
    return {
        key: (
            next(iter(seeds.values())).run,
            pd.concat([seeds[seed].frame.assign(seed=seed) for seed in sorted(seeds)], ignore_index=True),
        )
        for key, seeds in found.items()
    }


def rewards_table(
    experiment: str,
    measured: Sequence[Measured],
    main_gold: str,
    betas: Mapping[str, float],
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """Mean reward of each arm with its interval (paper A, figure 2a), main judge first."""
    grouped = arms(measured)
    malformed = _malformed(grouped)
    rows = []
    for key in ordered(grouped, main_gold):
        *setting, gold, arm = key
        run, cells = grouped[key]
        found = statistics.bootstrap_mean(cells, bootstrap)
        beta = betas.get(run.recipe, np.nan)
        identity = [experiment, *setting, beta, arm, run.feedback, run.step, gold]
        told = [
            malformed.get((*setting, arm), np.nan),
            _mean(cells, "truncated"),
            _mean(cells, "tokens"),
        ]
        rows.append([*identity, found.seeds, found.prompts, found.mean, found.low, found.high, *told])
    return pd.DataFrame(rows, columns=REWARD_COLUMNS)


def differences_table(
    experiment: str,
    measured: Sequence[Measured],
    main_gold: str,
    reference: str,
    betas: Mapping[str, float],
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """Each arm minus the reference feedback's of the same step and recipe, and minus the un-tuned model; paired."""
    grouped = arms(measured)
    rows = []
    for key in ordered(grouped, main_gold):
        *setting, gold, arm = key
        run, cells = grouped[key]
        *where, recipe = setting
        for baseline in _baselines(run, reference):
            key_of_other = (*where, "" if baseline == UNTUNED else recipe, gold, baseline)
            other = grouped.get(key_of_other)  # type: ignore[arg-type]
            if other is None:
                continue
            try:
                found = statistics.paired_difference(
                    cells[["seed", "id", "value"]],
                    other[1][["seed", "id", "value"]],
                    bootstrap,
                )
            except JoinError as error:
                place = f"{', '.join(setting)}: {arm} (left) against {baseline} (right), judge {gold}"
                raise JoinError(error.what, where=place, instead=error.instead) from error
            by_seed = ";".join(repr(round(value, 6)) for value in found.seed_means)
            rows.append(
                [experiment, *setting, betas.get(recipe, np.nan), arm, baseline, gold]
                + [found.seeds, found.prompts]
                + [found.mean, found.low, found.high, by_seed]
            )
    return pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS)


def reference_arm(run: Run, reference: str) -> str:
    """The reference feedback's arm of a student's step; empty for it itself and for what is no student."""
    arm = Run("students", run.model, reference, run.recipe, run.step).arm
    return arm if run.kind == "students" and arm != run.arm else ""


def _baselines(run: Run, reference: str) -> list[str]:
    if run.kind == "models":
        return []
    return [baseline for baseline in (reference_arm(run, reference), UNTUNED) if baseline]


def ordered(grouped: Mapping[ArmKey, Any], main_gold: str) -> list[ArmKey]:
    """Keys as they were given, but the rows of the main judge first.

    Raises:
        DataError: there is no reward by the main judge.
    """
    golds = {key[4] for key in grouped}
    if golds and main_gold not in golds:
        raise DataError(
            f"no rewards by the main judge {main_gold!r}", instead=f"one of {', '.join(sorted(golds))}"
        )
    return sorted(grouped, key=lambda key: key[4] != main_gold)


def _malformed(
    grouped: Mapping[ArmKey, tuple[Run, pd.DataFrame]],
) -> dict[tuple, float]:
    """Share of malformed responses by (setting, arm), a fact of the text whoever told it."""
    return {
        (*setting, arm): _mean(cells, "malformed")
        for (*setting, _, arm), (_, cells) in grouped.items()
        if "malformed" in cells
    }


def _mean(cells: pd.DataFrame, column: str) -> float:
    return float(cells[column].astype(float).mean()) if column in cells else float("nan")


# -- costs -------------------------------------------------------------------------------------------------


def costs_table(behind: Sequence[Artifact]) -> pd.DataFrame:
    """Jobs, wall time (s), peak memory (MB) by stage of all artifacts behind a result (:func:`w2s.provenance.ancestry`).

    Returns:
        A row per stage, in the order of first need from raw data on.
    """
    runs = sorted(
        (
            one.run["started"],
            one.manifest["stage"],
            float(one.run["wall_s"]),
            float(one.run["peak_memory_mb"]),
        )
        for one in behind
    )
    frame = pd.DataFrame(runs, columns=["started", "stage", "wall_s", "peak_memory_mb"])
    table = frame.groupby("stage", sort=False).agg(
        jobs=("wall_s", "size"), wall_s=("wall_s", "sum"), peak_memory_mb=("peak_memory_mb", "max")
    )
    return table.reset_index()[COST_COLUMNS]
