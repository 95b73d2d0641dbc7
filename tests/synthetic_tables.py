"""Made-up result tables in the columns of ``summarise``, for tests of figures and report only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from w2s.artifact import Artifact

# Data set -> (agreement of human with gold labels, agreement of weak with gold labels).
WORLDS = {
    "world-t0.4": (0.91, 0.85),
    "world-t1": (0.80, 0.84),
    "world-t2": (0.71, 0.83),
    "world-t4": (0.61, 0.80),
}
WEAK = "weak-s"


def _reward(accuracy: float, step: str) -> float:
    """A reward that grows with label accuracy."""
    return 1.3 + (accuracy - 0.5) * (2.4 if step == "sft" else 5.2)


def rewards_table(
    worlds: dict[str, tuple[float, float]],
    students: Sequence[str],
    feedbacks: Sequence[str],
    golds: Sequence[str],
    seeds: int,
    sft: bool = True,
) -> pd.DataFrame:
    """rewards.csv."""
    rows = []
    for data, (human, weak) in worlds.items():
        accuracy = {"human": human, WEAK: weak, "gold": 1.0, "match": 0.9}
        for number, student in enumerate(students):
            arms = [("untuned", "", "", 1.3)]
            arms += [(f"{f}-sft", f, "sft", _reward(accuracy[f], "sft")) for f in feedbacks if sft]
            arms += [(f, f, "dpo", _reward(accuracy[f], "dpo")) for f in feedbacks]
            for gold in golds:
                for arm, feedback, step, mean in arms:
                    mean = round(mean + 0.35 * number - 0.4 * golds.index(gold), 4)
                    rows.append(
                        ("demo", data, "1-of-2", student, arm, feedback, step, gold, seeds, 300)
                        + (mean, round(mean - 0.13, 4), round(mean + 0.12, 4), 0.012, 0.003, 21.5)
                    )
    return pd.DataFrame(
        rows,
        columns=[
            "experiment",
            "data",
            "share",
            "student",
            "arm",
            "feedback",
            "step",
            "gold",
            "seeds",
            "prompts",
            "mean",
            "low",
            "high",
            "malformed",
            "truncated",
            "tokens",
        ],
    )


def differences_table(rewards: pd.DataFrame) -> pd.DataFrame:
    """differences.csv of a rewards table: every arm against human and un-tuned."""
    rows = []
    generator = np.random.default_rng(0)
    for (data, share, student, gold), group in rewards.groupby(
        ["data", "share", "student", "gold"], sort=False
    ):
        means = dict(zip(group["arm"], group["mean"], strict=True))
        seeds = int(group["seeds"].iloc[0])
        for arm, mean in means.items():
            for baseline in ("human", "untuned"):
                if arm == baseline or baseline not in means:
                    continue
                difference = mean - means[baseline]
                by_seed = difference + generator.normal(0, 0.09, seeds)
                rows.append(
                    ("demo", data, share, student, arm, baseline, gold, seeds, 300)
                    + (round(difference, 4), round(difference - 0.17, 4), round(difference + 0.16, 4))
                    + (";".join(f"{value:.4f}" for value in by_seed),)
                )
    return pd.DataFrame(
        rows,
        columns=[
            "experiment",
            "data",
            "share",
            "student",
            "arm",
            "baseline",
            "gold",
            "seeds",
            "prompts",
            "difference",
            "low",
            "high",
            "seed_differences",
        ],
    )


def labels_table(worlds: dict[str, tuple[float, float]], seeds: int, weak: bool, gold: bool) -> pd.DataFrame:
    """labels.csv."""
    rows = []
    for data, (human_accuracy, weak_accuracy) in worlds.items():
        found = [(WEAK, "human", 0.60)] if weak else []
        if gold:
            found += [("human", "gold", human_accuracy)] + ([(WEAK, "gold", weak_accuracy)] if weak else [])
        for feedback, against, agreement in found:
            rows.append(
                ("demo", data, "1-of-2", feedback, against, seeds, 1000 * seeds, agreement)
                + (agreement - 0.018, agreement + 0.017)
            )
    return pd.DataFrame(
        rows,
        columns=[
            "experiment",
            "data",
            "share",
            "feedback",
            "against",
            "seeds",
            "n",
            "agreement",
            "low",
            "high",
        ],
    )


def label_quality_table(worlds: dict[str, tuple[float, float]], weak: bool, gold: bool) -> pd.DataFrame:
    """label_quality.csv."""
    rows = []
    for data, (human, accuracy) in worlds.items() if weak else ():
        for number in range(5):
            confidence = 0.53 + 0.09 * number
            against_gold = min(accuracy - 0.16 + 0.075 * number, 0.99)
            against_human = 0.5 + (against_gold - 0.5) * (2 * human - 1)
            rows.append(
                ("demo", data, WEAK, str(number + 1), 0.3 * number, 0.3 * number + 0.3, 600, confidence)
                + (round(against_human, 4), round(against_gold, 4) if gold else np.nan)
            )
    return pd.DataFrame(
        rows,
        columns=[
            "experiment",
            "data",
            "feedback",
            "bin",
            "margin_low",
            "margin_high",
            "n",
            "mean_confidence",
            "agreement_human",
            "agreement_gold",
        ],
    )


def costs_table() -> pd.DataFrame:
    """costs.csv."""
    return pd.DataFrame(
        [
            ("pretrain_model", 2, 61.4, 612),
            ("train_teacher_dpo", 12, 98.2, 701),
            ("train_student_dpo", 36, 182.0, 744),
            ("generate", 40, 71.3, 655),
            ("summarise", 1, 2.1, 240),
        ],
        columns=["stage", "jobs", "wall_s", "peak_memory_mb"],
    )


def make_tables(
    folder: Path,
    *,
    worlds: dict[str, tuple[float, float]] | None = None,
    students: Sequence[str] = ("k",),
    feedbacks: Sequence[str] = ("human", WEAK, "gold"),
    golds: Sequence[str] = ("exact", "learned"),
    seeds: int = 3,
    exact_labels: bool = True,
    sft: bool = True,
    main_gold: str = "exact",
) -> Path:
    """A ``summarise`` artifact with one parent; returns its manifest."""
    worlds = {"world-t2": WORLDS["world-t2"]} if worlds is None else worlds
    parent = folder / "parent" / "manifest.json"
    with Artifact.create(
        parent, spec={"learning_rate": 5e-5, "beta": 0.1, "seed": 1}, parents={}
    ) as artifact:
        artifact.path("model.txt").write_text("weights", encoding="utf-8")
    manifest = folder / "tables" / "manifest.json"
    rewards = rewards_table(worlds, students, feedbacks, golds, seeds, sft)
    weak = WEAK in feedbacks
    tables = {
        "rewards.csv": rewards,
        "differences.csv": differences_table(rewards),
        "labels.csv": labels_table(worlds, seeds, weak, exact_labels),
        "label_quality.csv": label_quality_table(worlds, weak, exact_labels),
        "costs.csv": costs_table(),
    }
    spec = {"experiment": "demo", "main_gold": main_gold, "bootstrap": 2000}
    with Artifact.create(manifest, spec=spec, parents={"rewards": [parent]}) as artifact:
        for name, table in tables.items():
            table.to_csv(artifact.path(name), index=False)
    return manifest


def rewrite(manifest: Path, name: str, table: pd.DataFrame) -> None:
    """Put another table into an artifact, as a careless hand would."""
    table.to_csv(manifest.parent / name, index=False)


def make_filtered(folder: Path, drops: Sequence[tuple[str, str, int]], kept: dict[str, int]) -> Path:
    """A ``filter_examples`` artifact: its drop table and as many examples as were kept."""
    manifest = folder / "manifest.json"
    dropped = sum(rows for _, _, rows in drops)
    examples = pd.DataFrame({"subset": [subset for subset, rows in kept.items() for _ in range(rows)]})
    with Artifact.create(manifest, spec={"max_tokens": 512}, parents={}) as artifact:
        pd.DataFrame(drops, columns=["subset", "reason", "rows"]).to_csv(
            artifact.path("drops.csv"), index=False
        )
        examples.to_parquet(artifact.path("examples.parquet"), index=False)
        artifact.record(rows_in=len(examples) + dropped, rows_kept=len(examples), rows_kept_by_subset=kept)
    return manifest
