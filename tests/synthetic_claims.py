"""Made-up measurements with known truth, in the contract's columns, for tests of the scorecard only."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from w2s.artifact import Artifact
from w2s.tables import write_parquet

COLUMNS = [
    *("experiment", "data", "share", "student", "arm", "feedback", "recipe", "step", "beta"),
    *("metric", "judge", "seed", "id", "value"),
]
GOLD = "gold"


def rows(
    experiment: str,
    arm: str,
    values: np.ndarray,
    *,
    data: str = "hh",
    share: str = "1-of-2",
    student: str = "opt-1.3b",
    recipe: str = "main",
    beta: float = 0.1,
    metric: str = "reward",
    judge: str = GOLD,
    ids: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Measurements of one arm from an array (seeds, prompts); seeds are 1, 2, ..."""
    seeds, prompts = values.shape
    plain = arm in ("untuned", "teacher")
    names = ids or [f"p{number:05}" for number in range(prompts)]
    columns = {
        "experiment": experiment,
        "data": data,
        "share": share,
        "student": student,
        "arm": arm,
        "feedback": "" if plain else arm.removesuffix("-sft"),
        "recipe": "" if plain else recipe,
        "step": "" if plain or not student else ("sft" if arm.endswith("-sft") else "dpo"),
        "beta": np.nan if plain else beta,
        "metric": metric,
        "judge": judge,
        "seed": np.repeat(np.arange(1, seeds + 1), prompts),
        "id": np.tile(names, seeds),
        "value": values.ravel().astype(float),
    }
    return pd.DataFrame(columns)[COLUMNS]


def rewards(
    experiment: str,
    means: Mapping[str, float],
    *,
    seeds: int = 3,
    prompts: int = 100,
    by_seed: float = 0.05,
    by_prompt: float = 1.0,
    by_cell: float = 0.5,
    seed: int | None = None,
    **setting,
) -> pd.DataFrame:
    """Arms with these true means, prompts shared between arms and seeds, seeds' own deviations in each arm."""
    words = repr((experiment, sorted(means.items()), sorted(setting.items())))
    generator = np.random.default_rng(zlib.crc32(words.encode()) if seed is None else seed)
    shared = generator.normal(0, by_prompt, (1, prompts))
    tables = []
    for arm, mean in means.items():
        own = generator.normal(0, by_seed, (seeds, 1)) + generator.normal(0, by_cell, (seeds, prompts))
        tables.append(rows(experiment, arm, mean + shared + own, **setting))
    return pd.concat(tables, ignore_index=True)


def share_of(experiment: str, arm: str, metric: str, level: float, seeds: int = 3, n: int = 400, **setting):
    """Measurements of 0 and 1 with a mean close to ``level``, examples of each seed their own."""
    generator = np.random.default_rng(int(1000 * level))
    tables = [
        rows(
            experiment,
            arm,
            (generator.random((1, n)) < level).astype(float),
            student=setting.get("student", ""),
            metric=metric,
            judge=setting.get("judge", ""),
            ids=[f"e{number}-{count:05}" for count in range(n)],
        ).assign(seed=number)
        for number in range(1, seeds + 1)
    ]
    return pd.concat(tables, ignore_index=True)


def write_tables(folder: Path, frame: pd.DataFrame, experiment: str, main_gold: str = GOLD) -> Path:
    """A tables artifact with these measurements; returns its manifest."""
    manifest = folder / experiment / "manifest.json"
    spec = {"experiment": experiment, "main_gold": main_gold}
    with Artifact.create(manifest, spec=spec, parents={}, script=Path("made_by_test.py")) as artifact:
        write_parquet(frame, artifact.path("measurements.parquet"))
    return manifest


def paper_world(
    seeds: int = 3, prompts: int = 100, by_seed: float = 0.02, data: str = "hh"
) -> dict[str, pd.DataFrame]:
    """Every experiment of paper A with the paper's means (win rates, agreement and the like as well)."""
    noise = {"seeds": seeds, "prompts": prompts, "by_seed": by_seed, "by_cell": 0.3, "data": data}
    weak, human, untuned = "weak-opt-125m", "human", "untuned"

    def both(experiment: str, table: Mapping[str, tuple[float, float]], **more) -> pd.DataFrame:
        return pd.concat(
            [
                rewards(experiment, {untuned: 2.22, human: h, weak: w}, student=student, **noise, **more)
                for student, (w, h) in table.items()
            ],
            ignore_index=True,
        )

    def one(experiment: str, means: Mapping[str, float], **more) -> pd.DataFrame:
        return rewards(experiment, {untuned: 2.22, **means}, **(noise | more))

    opt = {
        "opt-1.3b": (4.84, 4.63),
        "opt-2.7b": (5.59, 5.39),
        "opt-6.7b": (6.65, 6.19),
        "opt-13b": (6.91, 6.69),
    }
    found = {
        "a_figure_2a": both("a_figure_2a", opt),
        "a_seed_study": both("a_seed_study", {"opt-1.3b": (4.81, 4.67)}),
        "a_figure_2b": one(
            "a_figure_2b",
            {human: 4.63, weak: 4.84, "weak-opt-1.3b": 4.78, "weak-llama-3-8b": 4.91, "prompted-gpt-4": 4.52},
        ),
        "a_figure_3a": both(
            "a_figure_3a", {"mistral-7b": (7.90, 7.19), "llama-2-7b": (8.52, 8.20), "gemma-7b": (7.49, 7.28)}
        ),
        "a_figure_3b": pd.concat(
            [
                share_of("a_figure_3b", weak, "win", 0.52, n=prompts, student=name, judge="gpt-4").assign(
                    data=data
                )
                for name in ("opt-1.3b", "opt-2.7b")
            ]
        ),
        "a_figure_4a": both("a_figure_4a", {"opt-1.3b": (3.29, 2.71), "opt-2.7b": (3.76, 3.45)}),
        "a_figure_4b": pd.concat(
            [
                both("a_figure_4b", {"opt-1.3b": means}, share=share)
                for share, means in {
                    "1-of-16": (4.31, 4.37),
                    "1-of-8": (4.72, 4.74),
                    "1-of-4": (4.78, 4.69),
                    "1-of-2": (4.84, 4.63),
                }.items()
            ]
        ),
        "a_figure_5": pd.concat(
            [
                both("a_figure_5", opt),
                both("a_figure_5", opt, judge="rm-mistral-7b"),
                both("a_figure_5", opt, judge="deberta-v3-large-v2"),
            ]
        ),
        "a_figure_7": pd.concat(
            [
                one("a_figure_7", {human: h, weak: w}, recipe=f"beta-{beta}", beta=beta).iloc[first:]
                for beta, (w, h), first in (
                    (0.05, (4.81, 4.50), 0),
                    (0.1, (4.84, 4.63), seeds * prompts),
                    (0.2, (4.56, 4.17), seeds * prompts),
                    (0.3, (4.55, 4.08), seeds * prompts),
                    (0.5, (4.44, 4.04), seeds * prompts),
                )
            ]
        ),
        "a_table_1": one("a_table_1", {human: 4.63, weak: 4.84, "match-x": 4.78, "mismatch-x": 4.01}),
        "a_table_10": one(
            "a_table_10", {human: 4.63, weak: 4.84, "weak-gpt-neo-125m": 4.55, "weak-pythia-160m": 4.87}
        ),
        "a_table_11": pd.concat(
            [
                one("a_table_11", {human: 4.63, weak: 4.84}),
                one("a_table_11", {human: 3.77, weak: 3.83}, recipe="no-sft").iloc[seeds * prompts :],
            ]
        ),
        "a_table_12": one(
            "a_table_12",
            {
                human: 4.63,
                weak: 4.84,
                "mismatch-x": 4.01,
                "random-x": 3.91,
                "kept-x": 4.57,
                "flipped-x": 1.53,
            },
        ),
        "a_table_13": one("a_table_13", {human: 4.63, weak: 4.84, "reward-opt-125m": 4.86}),
        "a_figure_6": similarities(seeds, prompts, data),
    }
    agreement = share_of("a_table_1", weak, "agreement", 0.606, seeds, judge="human").assign(data=data)
    found["a_table_1"] = pd.concat([found["a_table_1"], agreement])
    for name in ("a_table_2", "a_text_section_4"):
        found[name] = pair_rewards(name, seeds, data)
    votes = share_of("a_text_section_4", "mismatch-x", "vote", 0.46, seeds, judge="gpt-4").assign(data=data)
    found["a_text_section_4"] = pd.concat([found["a_text_section_4"], votes])
    found["a_table_4"] = pd.concat(
        [
            share_of("a_table_4", name, "consistency", level, seeds, judge="gpt-4").assign(data=data)
            for name, level in (("match-x", 0.84), ("mismatch-x", 0.66))
        ]
    )
    return {name: frame.reset_index(drop=True) for name, frame in found.items()}


def pair_rewards(experiment: str, seeds: int, data: str, n: int = 300) -> pd.DataFrame:
    """Rewards of chosen and rejected responses: far apart where labels agree, close where they do not."""
    generator = np.random.default_rng(5)
    tables = []
    for source, gap, spread in (("match-x", 2.27, 3.0), ("mismatch-x", -0.36, 2.5)):
        for seed in range(1, seeds + 1):
            ids = [f"{source}-{seed}-{number:04}" for number in range(n)]
            rejected = generator.normal(4, 2, (1, n))
            for metric, values in (
                ("chosen_reward", rejected + generator.normal(gap, spread, (1, n))),
                ("rejected_reward", rejected),
            ):
                table = rows(experiment, source, values, data=data, student="", metric=metric, ids=ids)
                tables.append(table.assign(seed=seed))
    return pd.concat(tables, ignore_index=True)


def similarities(
    seeds: int, prompts: int, data: str, human: float = 0.8, teacher: float = 0.3
) -> pd.DataFrame:
    """Similarities whose correlations with the weak arm's are about ``human`` and ``teacher``."""
    generator = np.random.default_rng(3)
    weak = generator.normal(0, 0.1, (seeds, prompts))

    def like(r: float) -> np.ndarray:
        return 0.45 + r * weak + np.sqrt(1 - r**2) * generator.normal(0, 0.1, (seeds, prompts))

    what = {"data": data, "metric": "similarity", "judge": "bleurt"}
    return pd.concat(
        [
            rows("a_figure_6", "weak-opt-125m", 0.45 + weak, **what),
            rows("a_figure_6", "human", like(human), **what),
            rows(
                "a_figure_6", "teacher", like(teacher), student="opt-125m", **{k: v for k, v in what.items()}
            ),
        ],
        ignore_index=True,
    )
