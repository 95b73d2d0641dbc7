"""Made-up result tables in the columns of ``summarise``, for tests of figures and report only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from remade import remade
from w2s.artifact import Artifact

# Data set -> (agreement of human with gold labels, agreement of weak with gold labels).
WORLDS = {
    "world-t0.4": (0.91, 0.85),
    "world-t1": (0.80, 0.84),
    "world-t2": (0.71, 0.83),
    "world-t4": (0.61, 0.80),
}
WEAK = "weak-s"


RECIPES = {"plain": 0.1}
SHARES = ("1-of-2",)
# Feedback policy -> share of its labels that are right, where it is not told by the data set.
ACCURACY = {
    **{"gold": 1.0, "match": 0.9, "mismatch": 0.66, "random": 0.64, "kept": 0.78, "flipped": 0.45},
    **{"prompted": 0.72, "reward": 0.85, "confident": 0.86, "ensemble": 0.84, "everything": 0.83},
}
JUDGE_SHIFT = 0.4


def _reward(accuracy: float, step: str) -> float:
    """A reward that grows with label accuracy."""
    return 1.3 + (accuracy - 0.5) * (2.4 if step == "sft" else 5.2)


def _accuracy(feedback: str, human: float, weak: float) -> float:
    """Accuracy of a source; the second weak teacher is a little better than the first, and so on."""
    policy = feedback.partition("-")[0]
    return {"human": human, "weak": weak}.get(policy, ACCURACY.get(policy, 0.7))


def rewards_table(
    worlds: dict[str, tuple[float, float]],
    students: Sequence[str],
    feedbacks: Sequence[str],
    golds: Sequence[str],
    seeds: int,
    sft: bool = True,
    recipes: dict[str, float] = RECIPES,
    shares: Sequence[str] = SHARES,
) -> pd.DataFrame:
    """rewards.csv. Reward falls with beta and grows with the labelled share."""
    rows = []
    for data, (human, weak) in worlds.items():
        for share in shares:
            numerator, denominator = map(int, share.split("-of-"))
            extra = 0.25 * np.log2(2 * numerator / denominator)
            for number, student in enumerate(students):
                arms = [("", float("nan"), "untuned", "", "", 1.3)]
                for recipe, beta in recipes.items():
                    shift = extra - 1.2 * (beta - 0.1)
                    policies = [f.partition("-")[0] for f in feedbacks]
                    for place, f in enumerate(feedbacks):
                        rank = policies[:place].count(policies[place])
                        accuracy = _accuracy(f, human, weak) + 0.004 * rank
                        if sft:
                            arms.append((recipe, beta, f"{f}-sft", f, "sft", _reward(accuracy, "sft")))
                        arms.append((recipe, beta, f, f, "dpo", _reward(accuracy, "dpo") + shift))
                for place, gold in enumerate(golds):
                    for recipe, beta, arm, feedback, step, value in arms:
                        mean = round(value + 0.35 * number - JUDGE_SHIFT * place, 4)
                        rows.append(
                            (
                                "demo",
                                data,
                                share,
                                student,
                                recipe,
                                beta,
                                arm,
                                feedback,
                                step,
                                gold,
                                seeds,
                                300,
                            )
                            + (mean, round(mean - 0.13, 4), round(mean + 0.12, 4), 0.012, 0.003, 21.5)
                        )
    columns = ["experiment", "data", "share", "student", "recipe", "beta", "arm", "feedback", "step", "gold"]
    columns += ["seeds", "prompts", "mean", "low", "high", "malformed", "truncated", "tokens"]
    return pd.DataFrame(rows, columns=columns)


def differences_table(rewards: pd.DataFrame) -> pd.DataFrame:
    """differences.csv of a rewards table: every arm against human and un-tuned."""
    rows = []
    generator = np.random.default_rng(0)
    setting = ["data", "share", "student", "gold"]
    for (data, share, student, gold), whole in rewards.groupby(setting, sort=False):
        untuned = whole[whole["arm"] == "untuned"]
        for recipe in dict.fromkeys(whole.loc[whole["recipe"] != "", "recipe"]):
            group = pd.concat([untuned, whole[whole["recipe"] == recipe]])
            beta = float(group["beta"].dropna().iloc[0])
            means = dict(zip(group["arm"], group["mean"], strict=True))
            seeds = int(group["seeds"].iloc[0])
            for arm, mean in means.items():
                for baseline in ("human", "untuned"):
                    if arm in (baseline, "untuned") or baseline not in means:
                        continue
                    difference = mean - means[baseline]
                    by_seed = difference + generator.normal(0, 0.09, seeds)
                    rows.append(
                        ("demo", data, share, student, recipe, beta, arm, baseline, gold, seeds, 300)
                        + (round(difference, 4), round(difference - 0.17, 4), round(difference + 0.16, 4))
                        + (";".join(f"{value:.4f}" for value in by_seed),)
                    )
    columns = ["experiment", "data", "share", "student", "recipe", "beta", "arm", "baseline", "gold"]
    columns += ["seeds", "prompts", "difference", "low", "high", "seed_differences"]
    return pd.DataFrame(rows, columns=columns)


def lengths_table(rewards: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """lengths.csv of these tables: half of each difference to the human arm is length, at 0.02 a token."""
    key = ["experiment", "data", "share", "student", "recipe", "arm", "gold"]
    mine = differences[differences["baseline"] == "human"][[*key, "baseline", "difference"]]
    whole = rewards.merge(mine, on=key, how="left")
    half = whole["difference"] / 2
    return whole.assign(
        baseline=whole["baseline"].fillna(""),
        reward_per_token=whole["mean"] / whole["tokens"],
        tokens_difference=half / 0.02,
        adjusted=half,
        low=half - 0.2,
        high=half + 0.2,
        slope=half.notna().map({True: 0.02, False: np.nan}),
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


def responses_table(feedbacks: Sequence[str] = ("human", "weak-s", "match-s", "mismatch-s")) -> pd.DataFrame:
    """responses.csv: the numbers of the paper's Table 2 and of its section 4, with intervals."""
    means = {"human": (5.77, 4.23), "weak": (5.63, 4.39), "match": (5.93, 3.66), "mismatch": (5.17, 5.53)}
    rows = []
    for feedback in feedbacks:
        chosen, rejected = means[feedback.partition("-")[0]]
        gap = round(chosen - rejected, 4)
        agrees = round(0.5 + gap / 6, 4)
        rows.append(
            ("demo", "world-t2", "1-of-2", feedback, "exact", 3, 3000, chosen, rejected, gap)
            + (gap - 0.11, gap + 0.12, agrees, agrees - 0.02, agrees + 0.02)
        )
    columns = ["experiment", "data", "share", "feedback", "gold", "seeds", "n", "chosen", "rejected", "gap"]
    columns += ["low", "high", "gold_agrees", "gold_agrees_low", "gold_agrees_high"]
    return pd.DataFrame(rows, columns=columns)


def comparisons_table(students: Sequence[str] = ("k", "m", "n"), arm: str = WEAK) -> pd.DataFrame:
    """comparisons.csv."""
    rows = []
    for number, student in enumerate(students):
        win, tie = 0.47 + 0.04 * number, 0.03
        score = win + tie / 2
        rows.append(
            ("demo", "world-t2", "1-of-2", student, "plain", arm, "human", "judge", 3, 100)
            + (win, tie, 1 - win - tie, score, score - 0.08, score + 0.08)
            + (score - 0.02 if number else float("nan"), 0.52, 0.01)
        )
    columns = [
        "experiment",
        "data",
        "share",
        "student",
        "recipe",
        "arm",
        "baseline",
        "judge",
        "seeds",
        "prompts",
    ]
    columns += [
        "win",
        "tie",
        "lose",
        "score",
        "low",
        "high",
        "length_controlled",
        "position_bias",
        "malformed",
    ]
    return pd.DataFrame(rows, columns=columns)


def votes_table() -> pd.DataFrame:
    """votes.csv."""
    rows = [
        ("demo", "world-t2", "1-of-2", "match-s", "judge", 3, 300, 10)
        + (0.85, 0.83, 0.87, 0.74, 0.71, 0.77, 0.002),
        ("demo", "world-t2", "1-of-2", "mismatch-s", "judge", 3, 300, 10)
        + (0.68, 0.65, 0.71, 0.47, 0.42, 0.52, 0.004),
    ]
    columns = ["experiment", "data", "share", "feedback", "judge", "seeds", "pairs", "votes", "consistency"]
    columns += ["low", "high", "label_share", "label_low", "label_high", "malformed"]
    return pd.DataFrame(rows, columns=columns)


def similarity_tables(student: str = "k", prompts: int = 200) -> dict[str, pd.DataFrame]:
    """similarity.csv and similarity_points.csv: weak and human arms alike, the teacher less so."""
    generator = np.random.default_rng(1)
    common = generator.normal(0.46, 0.1, prompts)
    arms = {
        arm: common + generator.normal(0, spread, prompts)
        for arm, spread in ((WEAK, 0.05), ("human", 0.06), ("teacher", 0.09))
    }
    points = pd.DataFrame(
        [
            ("demo", "world-t2", "" if arm == "teacher" else student, 1, f"p{place:03d}", arm, value)
            for arm, values in arms.items()
            for place, value in enumerate(np.clip(values, 0, 1))
        ],
        columns=["experiment", "data", "student", "seed", "id", "arm", "similarity"],
    )
    rows = []
    for right in ("human", "teacher"):
        slope, intercept = np.polyfit(arms[WEAK], arms[right], 1)
        pearson = np.corrcoef(arms[WEAK], arms[right])[0, 1]
        rows.append(
            ("demo", "world-t2", "1-of-2", student, "encoder", WEAK, right, 1, prompts, pearson**2)
            + (pearson**2 - 0.07, pearson**2 + 0.06, pearson, slope, intercept, pearson - 0.05)
            + (arms[WEAK].mean(), arms[right].mean())
        )
    columns = ["experiment", "data", "share", "student", "encoder", "left", "right", "seeds", "prompts", "r2"]
    columns += ["low", "high", "pearson", "slope", "intercept", "spearman", "mean_left", "mean_right"]
    return {"similarity.csv": pd.DataFrame(rows, columns=columns), "similarity_points.csv": points}


def examples_table() -> pd.DataFrame:
    """examples.csv: one plain pair, and one whose texts have all that Markdown and HTML could trip over."""
    nasty = "<b>bold</b> | a pipe\n\n# not a heading\n- *not* a list & `code`"
    rows = [
        (
            "demo",
            "world-t2",
            "1-of-2",
            "1",
            "a1",
            "weak_chosen against human_chosen",
            "Human: Which vegetables?\n\nAssistant:",
        )
        + ("Carrots. " * 60, "mismatch-s", 6.82, "Peas.", "human", 3.25, "5:5"),
        ("demo", "world-t2", "1-of-2", "2", "b2", "weak_chosen against human_chosen", nasty)
        + (nasty, "mismatch-s", 1.0, "```\nfence\n```", "human", float("nan"), ""),
    ]
    columns = ["experiment", "data", "share", "seed", "id", "kind", "prompt", "response_first", "label_first"]
    columns += ["reward_first", "response_second", "label_second", "reward_second", "votes"]
    return pd.DataFrame(rows, columns=columns)


def recipes_table() -> pd.DataFrame:
    """recipes.csv: as the paper's Table 7 but for DPO's learning rate and what is not configured."""
    sft = {"epochs": "1", "learning_rate": "1e-05", "batch_size": "32", "max_tokens": "512", "lora_rank": "0"}
    dpo = {"epochs": "1", "learning_rate": "0.0002", "beta": "0.1", "batch_size": "16", "lora_rank": "8"}
    rows = [
        (model, step, setting, value)
        for model in ("teachers-recipe", "students-recipe")
        for step, settings in (("sft", {**sft, "schedule": "constant"}), ("dpo", dpo))
        for setting, value in settings.items()
    ]
    return pd.DataFrame(rows, columns=["model", "step", "setting", "value"])


def measurements_table(rewards: pd.DataFrame, prompts: int = 40) -> pd.DataFrame:
    """measurements.parquet of a rewards table: per seed and prompt a reward around the arm's mean."""
    generator = np.random.default_rng(2)
    parts = []
    for row in rewards.itertuples():
        for seed in range(1, row.seeds + 1):
            values = row.mean + generator.normal(0, 0.1) + generator.normal(0, 0.5, prompts)
            part = pd.DataFrame({"id": [f"p{place:03d}" for place in range(prompts)], "value": values})
            same = {name: getattr(row, name) for name in ("experiment", "data", "share", "student", "arm")}
            same |= {"feedback": row.feedback, "recipe": row.recipe, "step": row.step, "beta": row.beta}
            parts.append(part.assign(**same, metric="reward", judge=row.gold, seed=seed))
    order = ["experiment", "data", "share", "student", "arm", "feedback", "recipe", "step", "beta", "metric"]
    return pd.concat(parts, ignore_index=True)[[*order, "judge", "seed", "id", "value"]]


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
    recipes: dict[str, float] = RECIPES,
    shares: Sequence[str] = SHARES,
    experiment: str = "demo",
    more: dict[str, pd.DataFrame] | None = None,
    measured: bool = False,
    without_sft: Sequence[str] = (),
) -> Path:
    """A ``summarise`` artifact with one parent; returns its manifest.

    ``more`` are tables beside those of every experiment; ``measured`` adds the single measurements.
    """
    worlds = {"world-t2": WORLDS["world-t2"]} if worlds is None else worlds
    rewards = rewards_table(worlds, students, feedbacks, golds, seeds, sft, recipes, shares)
    weak = WEAK in feedbacks
    differences = differences_table(rewards)
    tables = {
        "rewards.csv": rewards,
        "differences.csv": differences,
        "lengths.csv": lengths_table(rewards, differences),
        "labels.csv": labels_table(worlds, seeds, weak, exact_labels),
        "label_quality.csv": label_quality_table(worlds, weak, exact_labels),
        "costs.csv": costs_table(),
        **(more or {}),
    }
    spec = {"experiment": experiment, "main_gold": main_gold, "bootstrap": 2000}
    spec["without_sft"] = list(without_sft)
    return write_tables(folder, tables, spec, measurements_table(rewards) if measured else None)


def make_label_tables(folder: Path, experiment: str, more: dict[str, pd.DataFrame]) -> Path:
    """A ``summarise`` artifact of an experiment that trains no student."""
    tables = {
        "labels.csv": labels_table({"world-t2": WORLDS["world-t2"]}, 3, weak=True, gold=True),
        "label_quality.csv": label_quality_table({"world-t2": WORLDS["world-t2"]}, weak=True, gold=True),
        "costs.csv": costs_table(),
        **more,
    }
    return write_tables(folder, tables, {"experiment": experiment, "main_gold": "exact"})


def write_tables(
    folder: Path,
    tables: dict[str, pd.DataFrame],
    spec: dict[str, object],
    measurements: pd.DataFrame | None = None,
) -> Path:
    """The artifact of these tables and its one parent."""
    parent = folder / "parent" / "manifest.json"
    with Artifact.create(
        parent, spec={"learning_rate": 5e-5, "beta": 0.1, "seed": 1}, parents={}
    ) as artifact:
        artifact.path("model.txt").write_text("weights", encoding="utf-8")
    manifest = folder / "tables" / "manifest.json"
    with Artifact.create(manifest, spec=spec, parents={"rewards": [parent]}) as artifact:
        for name, table in tables.items():
            table.to_csv(artifact.path(name), index=False)
        if measurements is not None:
            measurements.to_parquet(artifact.path("measurements.parquet"), index=False)
    return manifest


def rewrite(manifest: Path, name: str, table: pd.DataFrame) -> None:
    """Put another table into an artifact, as a careless hand would."""
    table.to_csv(manifest.parent / name, index=False)
    remade(manifest)


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
