"""The tables from artifacts with known numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import summarise
from w2s.artifact import Artifact, load, sealed, write_json
from w2s.errors import ArtifactError, DataError, JoinError
from w2s.statistics import wilson
from w2s.tables import write_parquet

IDS = [f"{number:016x}" for number in range(40)]
ARMS = {"models/k": 1.0, "students/k/human/r/sft": 2.0, "students/k/human/r/dpo": 3.0}
ARMS |= {"students/k/weak/r/sft": 2.5, "students/k/weak/r/dpo": 3.25}
# As the figures and the report expect them.
REWARD_COLUMNS = [
    "experiment",
    "data",
    "share",
    "student",
    "recipe",
    "beta",
    "arm",
    "feedback",
    "step",
    "gold",
    "seeds",
    "prompts",
]
REWARD_COLUMNS += ["mean", "low", "high", "malformed", "truncated", "tokens"]
DIFFERENCE_COLUMNS = ["experiment", "data", "share", "student", "recipe", "beta", "arm", "baseline", "gold"]
DIFFERENCE_COLUMNS += ["seeds", "prompts", "difference", "low", "high", "seed_differences"]
LABEL_COLUMNS = [
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
]
QUALITY_COLUMNS = ["experiment", "data", "feedback", "bin", "margin_low", "margin_high", "n"]
QUALITY_COLUMNS += ["mean_confidence", "agreement_human", "agreement_gold"]
GENERATOR = np.random.default_rng(0)


def make(manifest: Path, tables: dict[str, pd.DataFrame], spec: dict, parents: dict | None = None) -> Path:
    with Artifact.create(
        manifest, spec=spec, parents=parents or {}, script=Path("made_by_test.py")
    ) as artifact:
        for name, table in tables.items():
            write_parquet(table, artifact.path(name))
    return manifest


class Results:
    """A results folder with an experiment's artifacts in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rewards: list[Path] = []
        self.labels: list[Path] = []
        self.examples: list[Path] = []

    def judge(
        self,
        run: str,
        gold: str,
        values: np.ndarray,
        data: str = "w",
        seed: int = 1,
        share: str = "1-of-2",
        **extra,
    ) -> Path:
        """Rewards of generations that were made for them; the first of ten responses is cut off."""
        cell = f"{data}/{share}/seed-{seed}"
        ids = IDS[: len(values)]
        finished = ["length" if number % 10 == 0 else "eos" for number in range(len(values))]
        generations = self.root / "generations" / cell / run / "manifest.json"
        if not generations.is_file():
            table = pd.DataFrame(
                {"id": ids, "prompt": "p", "response": "r", "tokens": 20, "finished": finished}
            )
            make(generations, {"generations.parquet": table}, {})
        manifest = self.root / "gold" / cell / run / gold / "manifest.json"
        table = pd.DataFrame({"id": ids, "reward": values, **extra})
        spec = {"run": run, "data": data, "share": share, "seed": seed, "gold": gold}
        make(manifest, {"rewards.parquet": table}, spec, {"generations": generations})
        self.rewards.append(manifest)
        return manifest

    def label(
        self,
        feedback: str,
        policy: str,
        labels: Sequence[int],
        margins: Sequence[float],
        data: str = "w",
        seed: int = 1,
    ) -> Path:
        manifest = (
            self.root
            / "labels"
            / data
            / "1-of-2"
            / f"seed-{seed}"
            / "unlabelled"
            / feedback
            / "manifest.json"
        )
        make(
            manifest, {"labels.parquet": label_table(IDS[: len(labels)], labels, margins)}, {"policy": policy}
        )
        self.labels.append(manifest)
        return manifest

    def data(self, data: str, human: Sequence[int], gold: Sequence[int] | None = None) -> Path:
        tables = {"human.parquet": label_table(IDS, human, [np.nan] * len(IDS))}
        if gold is not None:
            tables["gold.parquet"] = label_table(IDS, gold, 2.0 * np.asarray(gold) - 1)
        manifest = make(self.root / "filtered" / data / "manifest.json", tables, {})
        self.examples.append(manifest)
        return manifest

    def summarise(self, *more: str, main_gold: str = "exact", name: str = "t") -> dict[str, pd.DataFrame]:
        output = self.root / "tables" / name / "manifest.json"
        words = ["--rewards", *self.rewards, "--labels", *self.labels, "--examples", *self.examples]
        words += [
            "--output",
            output,
            "--experiment",
            "demo",
            "--main-gold",
            main_gold,
            "--bootstrap",
            "200",
            *more,
        ]
        summarise.main([str(word) for word in words])
        artifact = load(output)
        return {
            path: pd.read_csv(artifact.path(path), keep_default_na=True)
            for path in artifact.manifest["files"]
            if path.endswith(".csv")
        }


def label_table(ids: Sequence[str], labels: Sequence[int], margins: Sequence[float]) -> pd.DataFrame:
    margins = np.asarray(margins, float)
    probability = np.where(np.isfinite(margins), 1 / (1 + np.exp(-margins)), np.asarray(labels, float))
    return pd.DataFrame(
        {
            "id": ids,
            "label": np.asarray(labels, "int8"),
            "margin": margins,
            "probability": probability,
            "source": "test",
        }
    )


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two noise levels, three seeds, five arms, two judges; arms differ by known constants."""
    results = Results(tmp_path_factory.mktemp("grid"))
    by_prompt = GENERATOR.normal(0, 1, len(IDS))
    for data in ("w1", "w2"):
        for seed in (1, 2, 3):
            for run, mean in ARMS.items():
                values = by_prompt + mean + 0.1 * seed
                results.judge(run, "rm", 2 * values, data, seed)
                results.judge(run, "exact", values, data, seed, malformed=[True] + [False] * 39)
            for feedback in ("human", "weak"):
                results.label(feedback, feedback, [0, 1] * 20, [-1.5, 1.5] * 20, data, seed)
        results.data(data, [0, 1] * 20, [0] * 40)
    return results


def test_rewards_of_several_data_sets_judges_and_arms(grid: Results):
    table = grid.summarise()["rewards.csv"]
    assert list(table.columns) == REWARD_COLUMNS
    assert len(table) == 2 * 5 * 2
    assert table["gold"].tolist() == ["exact"] * 10 + ["rm"] * 10  # the main judge first
    assert table["arm"].tolist()[:5] == ["untuned", "human-sft", "human", "weak-sft", "weak"]
    assert (
        (table["seeds"] == 3).all() and (table["prompts"] == 40).all() and (table["share"] == "1-of-2").all()
    )
    row = table[(table["data"] == "w2") & (table["arm"] == "weak") & (table["gold"] == "exact")].iloc[0]
    paths = [load(path).path("rewards.parquet") for path in grid.rewards if "w2" in str(path)]
    paths = [path for path in paths if "weak/r/dpo/exact" in str(path)]
    expected = np.mean([pd.read_parquet(path)["reward"].mean() for path in paths])
    assert row["mean"] == pytest.approx(expected) and row["low"] < row["mean"] < row["high"]
    assert (row["feedback"], row["step"], row["student"], row["experiment"]) == ("weak", "dpo", "k", "demo")
    untuned = table[table["arm"] == "untuned"].iloc[0]
    assert pd.isna(untuned["feedback"]) and pd.isna(untuned["step"])
    # Malformed is a fact of the text: known to the exact judge, told for the other one too.
    assert table["malformed"].to_numpy() == pytest.approx(1 / 40)
    assert table["truncated"].to_numpy() == pytest.approx(0.1) and (table["tokens"] == 20).all()


def test_differences_are_paired(grid: Results):
    table = grid.summarise()["differences.csv"]
    assert list(table.columns) == DIFFERENCE_COLUMNS
    found = {
        (row.arm, row.baseline): row
        for row in table[(table["data"] == "w1") & (table["gold"] == "exact")].itertuples()
    }
    expected = {
        ("human-sft", "untuned"): 1.0,
        ("human", "untuned"): 2.0,
        ("weak-sft", "human-sft"): 0.5,
        ("weak-sft", "untuned"): 1.5,
        ("weak", "human"): 0.25,
        ("weak", "untuned"): 2.25,
    }
    assert set(found) == set(expected)
    for pair, difference in expected.items():
        row = found[pair]
        # Seeds and prompts cancel, so that nothing but the constant is left.
        assert (row.difference, row.low, row.high) == pytest.approx((difference,) * 3)
        assert [float(value) for value in row.seed_differences.split(";")] == pytest.approx([difference] * 3)


def test_lengths_are_told_beside_rewards(grid: Results):
    tables = grid.summarise()
    lengths, rewards = tables["lengths.csv"], tables["rewards.csv"]
    assert lengths[["data", "arm", "gold", "mean"]].equals(rewards[["data", "arm", "gold", "mean"]])
    assert lengths["reward_per_token"].tolist() == pytest.approx((rewards["mean"] / 20).tolist())
    row = lengths[(lengths["arm"] == "weak") & (lengths["gold"] == "exact")].iloc[0]
    # All responses have 20 tokens: the difference at equal length is the difference.
    assert (row["baseline"], row["tokens_difference"]) == ("human", 0) and pd.isna(row["slope"])
    assert row[["difference", "adjusted", "low", "high"]].tolist() == pytest.approx([0.25] * 4)
    assert lengths.loc[lengths["arm"].isin(["untuned", "human"]), "baseline"].isna().all()


def test_one_seed(results: Results):
    values = GENERATOR.normal(0, 1, 30)
    results.judge("models/k", "rm", values, share="1/2")
    results.judge("students/k/weak/r/dpo", "rm", values + 1)
    results.data("w", [0] * 40)
    tables = results.summarise("--reference-feedback", "weak", main_gold="rm")
    row = tables["rewards.csv"].iloc[0]
    assert (row["seeds"], row["prompts"], row["share"]) == (1, 30, "1-of-2") and pd.isna(row["malformed"])
    facts = load(results.root / "tables/t/manifest.json").facts
    assert facts["intervals_over"] == "prompts (one seed)" and facts["seeds"] == [1]
    differences = tables["differences.csv"]
    assert differences[["arm", "baseline"]].values.tolist() == [["weak", "untuned"]]
    assert differences["seed_differences"].tolist() == [1.0]
    assert tables["labels.csv"].empty and tables["label_quality.csv"].empty
    assert list(tables["labels.csv"].columns) == LABEL_COLUMNS


def test_other_golds_and_teachers(results: Results):
    """A teacher is an arm of its own model; each judge's rows are compared with its own."""
    for run in ("models/s", "teachers/s/r/dpo", "models/k", "students/k/human/r/dpo"):
        results.judge(run, "rm", np.arange(10.0))
    results.judge("models/k", "other", np.arange(10.0))
    results.data("w", [0] * 40)
    tables = results.summarise(main_gold="rm")
    assert tables["rewards.csv"][["student", "arm", "gold"]].values.tolist() == [
        ["s", "untuned", "rm"],
        ["s", "teacher", "rm"],
        ["k", "untuned", "rm"],
        ["k", "human", "rm"],
        ["k", "untuned", "other"],
    ]
    found = tables["differences.csv"][["student", "arm", "baseline", "gold"]].values.tolist()
    assert found == [["s", "teacher", "untuned", "rm"], ["k", "human", "untuned", "rm"]]


def test_a_teacher_is_not_compared_with_students_of_its_model(results: Results):
    for run in ("models/s", "teachers/s/r/dpo", "students/s/human/r/dpo"):
        results.judge(run, "rm", np.arange(10.0))
    results.data("w", [0] * 40)
    found = results.summarise(main_gold="rm")["differences.csv"][["arm", "baseline"]].values.tolist()
    assert found == [["teacher", "untuned"], ["human", "untuned"]]


def test_the_long_table_and_the_facts_that_count_it(grid: Results):
    grid.summarise("--betas", '{"r": 0.2}')
    artifact = load(grid.root / "tables" / "t" / "manifest.json")
    table = pd.read_parquet(artifact.path("measurements.parquet"))
    counts = {"agreement": 2 * 3 * (40 + 2 * 40), "reward": 2 * 3 * 5 * 2 * 40, "tokens": 2 * 3 * 5 * 40}
    assert table["metric"].value_counts().to_dict() == counts
    assert artifact.facts["measurements"] == counts
    assert artifact.facts["seeds"] == [1, 2, 3]
    row = table[(table["arm"] == "weak") & (table["metric"] == "reward")].iloc[0]
    assert (row["beta"], row["recipe"], row["step"], row["experiment"]) == (0.2, "r", "dpo", "demo")
    assert not [
        name for name in artifact.manifest["files"] if name.startswith(("responses", "votes", "similarity"))
    ]


def test_missing_pairs_stop_the_run(results: Results):
    results.judge("students/k/human/r/dpo", "rm", np.arange(10.0))
    results.judge("students/k/weak/r/dpo", "rm", np.arange(9.0))
    results.data("w", [0] * 40)
    with pytest.raises(JoinError, match="seed 1 id 0+9\n") as error:
        results.summarise(main_gold="rm")
    assert "weak (left) against human (right), judge rm" in str(error.value)
    assert not (results.root / "tables" / "t").exists()


def test_missing_seeds_stop_the_run(results: Results):
    for seed in (1, 2):
        results.judge("students/k/weak/r/dpo", "rm", np.arange(10.0), seed=seed)
    results.judge("students/k/human/r/dpo", "rm", np.arange(10.0))
    results.data("w", [0] * 40)
    with pytest.raises(JoinError, match="10 cells of the left side are missing on the right: seed 2"):
        results.summarise(main_gold="rm")


def test_two_recipes_are_not_mixed(results: Results):
    """Each is a row of its own, against its own human arm and the one un-tuned model."""
    results.judge("models/k", "rm", np.arange(10.0))
    for recipe, gain in (("a", 1.0), ("b", 3.0)):
        results.judge(f"students/k/human/{recipe}/dpo", "rm", np.arange(10.0) + gain)
        results.judge(f"students/k/weak/{recipe}/dpo", "rm", np.arange(10.0) + gain * gain)
    results.data("w", [0] * 40)
    tables = results.summarise("--betas", '{"a": 0.1, "b": 0.5}', main_gold="rm")
    rewards = tables["rewards.csv"]
    assert rewards[["recipe", "arm", "mean"]].fillna("").values.tolist() == [
        ["", "untuned", 4.5], ["a", "human", 5.5], ["a", "weak", 5.5], ["b", "human", 7.5], ["b", "weak", 13.5],
    ]  # fmt: skip
    assert rewards["beta"].tolist()[1:] == [0.1, 0.1, 0.5, 0.5] and np.isnan(rewards["beta"][0])
    differences = tables["differences.csv"].set_index(["recipe", "arm", "baseline"])
    assert differences["difference"].to_dict() == {
        ("a", "human", "untuned"): 1.0, ("a", "weak", "human"): 0.0, ("a", "weak", "untuned"): 1.0,
        ("b", "human", "untuned"): 3.0, ("b", "weak", "human"): 6.0, ("b", "weak", "untuned"): 9.0,
    }  # fmt: skip
    assert differences["beta"].tolist() == [0.1] * 3 + [0.5] * 3


def test_the_same_arm_twice_is_refused(results: Results):
    manifest = results.judge("students/k/weak/a/dpo", "rm", np.arange(10.0))
    results.rewards.append(manifest)
    results.data("w", [0] * 40)
    with pytest.raises(JoinError, match="two sets of rewards for arm 'weak'"):
        results.summarise(main_gold="rm")


def test_main_judge_must_be_there(results: Results):
    results.judge("models/k", "rm", np.arange(10.0))
    with pytest.raises(DataError, match="no rewards by the main judge 'exact'\n.*one of rm"):
        results.summarise()


def test_rewards_that_are_no_numbers(results: Results):
    values = np.arange(10.0)
    values[4] = np.nan
    path = results.judge("models/k", "rm", values)
    with pytest.raises(DataError, match="1 rewards are missing or not finite: 0+4") as error:
        results.summarise(main_gold="rm")
    assert str(path.parent) in str(error.value)


def test_generations_made_again_after_scoring(results: Results):
    manifest = results.judge("models/k", "rm", np.arange(10.0))
    generations = results.root / "generations/w/1-of-2/seed-1/models/k/manifest.json"
    table = pd.read_parquet(generations.with_name("generations.parquet")).assign(tokens=5)
    make(generations, {"generations.parquet": table}, {})
    with pytest.raises(ArtifactError, match="not the ones that were scored"):
        results.summarise(main_gold="rm")
    shutil.rmtree(generations.parent)
    results.rewards = [manifest]
    tables = results.summarise(main_gold="rm")
    assert tables["rewards.csv"][["truncated", "tokens"]].isna().all(axis=None)
    assert load(results.root / "tables/t/manifest.json").facts["artifacts_gone"] == [
        str(generations.resolve())
    ]


@pytest.fixture
def labelled(results: Results) -> Results:
    """Human labels right on 30 of 40, weak ones on 36 and 32 in two seeds; gold is 0 everywhere."""
    results.judge("models/k", "exact", np.arange(10.0))
    for seed, wrong in ((1, 4), (2, 8)):
        # Wrong where the margin is smallest, as a good teacher is.
        margins = -np.linspace(0.1, 4, 40)
        margins[:wrong] *= -1
        results.label("weak-a", "weak", (margins > 0).astype(int), margins, seed=seed)
    results.data("w", [1] * 10 + [0] * 30, [0] * 40)
    return results


def test_label_agreement(labelled: Results):
    table = labelled.summarise()["labels.csv"].set_index(["feedback", "against"])
    assert set(table.index) == {("weak-a", "human"), ("weak-a", "gold"), ("human", "gold")}
    assert table.loc[("weak-a", "gold"), ["seeds", "n", "agreement"]].tolist() == [2, 80, 68 / 80]
    assert table.loc[("weak-a", "human"), "agreement"] == pytest.approx((34 + 38) / 80)
    human = table.loc[("human", "gold")]  # on the same examples as the weak labels, seed by seed
    assert (human["seeds"], human["n"], human["agreement"]) == (2, 80, 0.75)
    assert (table["low"] < table["agreement"]).all() and (table["agreement"] < table["high"]).all()


def test_label_agreement_of_one_seed_is_wilsons(labelled: Results):
    labelled.labels.pop()
    table = labelled.summarise()["labels.csv"].set_index(["feedback", "against"])
    assert table.loc[("weak-a", "gold"), ["low", "high"]].tolist() == pytest.approx(wilson(36, 40))


def test_human_label_files_are_used_once(labelled: Results):
    for seed in (1, 2):
        labelled.label("human", "human", [1] * 10 + [0] * 30, [np.nan] * 40, seed=seed)
    table = labelled.summarise()["labels.csv"]
    human = table[(table["feedback"] == "human")]
    assert human[["against", "n", "agreement"]].values.tolist() == [["gold", 80, 0.75]]


def test_gold_ties_are_left_out(labelled: Results):
    path = labelled.examples[0].with_name("gold.parquet")
    gold = pd.read_parquet(path)
    gold.loc[:9, "margin"] = 0.0
    human = pd.read_parquet(path.with_name("human.parquet"))
    make(labelled.examples[0], {"human.parquet": human, "gold.parquet": gold}, {})
    table = labelled.summarise()["labels.csv"].set_index(["feedback", "against"])
    assert table.loc[("human", "gold"), ["n", "agreement"]].tolist() == [60, 1.0]
    assert table.loc[("weak-a", "human"), "n"] == 80


def test_label_quality_by_margin(labelled: Results):
    table = labelled.summarise()["label_quality.csv"]
    assert list(table.columns) == QUALITY_COLUMNS
    assert table["bin"].tolist() == list(range(1, 11)) and (table["n"] == 8).all()
    assert table["margin_low"].iloc[0] == pytest.approx(0.1) and table["margin_high"].iloc[
        -1
    ] == pytest.approx(4)
    assert (table["margin_low"].to_numpy()[1:] > table["margin_high"].to_numpy()[:-1]).all()
    # Of the eight labels in each of the two lowest bins, wrong are 4 + 4 and 0 + 4.
    assert table["agreement_gold"].tolist() == [0.0, 0.5] + [1.0] * 8
    margins = np.linspace(0.1, 4, 40)
    assert table["mean_confidence"].iloc[3] == pytest.approx((1 / (1 + np.exp(-margins[12:16]))).mean())
    assert table["mean_confidence"].is_monotonic_increasing


def test_label_quality_without_exact_labels_and_with_equal_margins(results: Results):
    results.judge("models/k", "exact", np.arange(10.0))
    results.label("weak", "weak", [0] * 40, [-1.0] * 30 + [-2.0] * 10)
    results.label("human", "human", [0] * 40, [np.nan] * 40)
    results.data("w", [0] * 20 + [1] * 20)
    tables = results.summarise()
    quality = tables["label_quality.csv"]
    assert quality[["feedback", "margin_low", "margin_high", "n"]].values.tolist() == [
        ["weak", 1.0, 1.0, 30],
        ["weak", 2.0, 2.0, 10],
    ]
    assert quality["agreement_gold"].isna().all() and quality["agreement_human"].tolist() == [20 / 30, 0.0]
    assert tables["labels.csv"][["feedback", "against"]].values.tolist() == [["weak", "human"]]


def test_labels_of_unknown_examples(results: Results):
    results.judge("models/k", "exact", np.arange(10.0))
    results.label("weak", "weak", [0] * 40, [-1.0] * 40)
    with pytest.raises(DataError, match="labels of data set 'w', but not its examples"):
        results.summarise()
    human = label_table(IDS[:38], [0] * 38, [np.nan] * 38)
    results.examples = [make(results.root / "filtered/w/manifest.json", {"human.parquet": human}, {})]
    with pytest.raises(JoinError, match="2 labelled ids are not among the human labels of w: 0+26, 0+27"):
        results.summarise()


def test_labels_of_other_parts_are_left_out(labelled: Results, caplog):
    other = labelled.root / "labels/w/1-of-2/seed-1/test/weak-a/manifest.json"
    make(other, {"labels.parquet": label_table(IDS, [1] * 40, [1.0] * 40)}, {"policy": "weak"})
    before = labelled.summarise()["labels.csv"]
    labelled.labels.append(other)
    pd.testing.assert_frame_equal(labelled.summarise(name="again")["labels.csv"], before)
    assert "part test" in caplog.text


def test_costs_count_each_artifact_once(results: Results):
    def timed(manifest: Path, wall: float, memory: int) -> None:
        path = manifest.with_name("run.json")
        run = json.loads(path.read_text())
        write_json(sealed(run | {"wall_s": wall, "peak_memory_mb": memory}), path)

    for seed, (wall, memory) in ((1, (2.0, 300)), (2, (3.5, 200))):
        manifest = results.judge("models/k", "exact", np.arange(10.0), seed=seed)
        results.judge("models/k", "rm", np.arange(10.0), seed=seed)
        generations = results.root / f"generations/w/1-of-2/seed-{seed}/models/k/manifest.json"
        for path in (manifest, results.rewards[-1], generations):
            timed(path, wall, memory)
    data = results.data("w", [0] * 40)
    timed(data, 1.25, 90)
    table = results.summarise()["costs.csv"]
    assert list(table.columns) == ["stage", "jobs", "wall_s", "peak_memory_mb"]
    # Two generations, each behind two judges' rewards: 2 + 4 + 1 artifacts.
    assert table.values.tolist() == [["made_by_test", 7, 3 * 2.0 + 3 * 3.5 + 1.25, 300]]


def test_no_order_of_the_inputs_matters(grid: Results):
    first = grid.summarise()
    grid.rewards.sort(key=lambda path: ("exact" in path.parts, path.parts))
    second = grid.summarise(name="again")
    for name, keys in (
        ("rewards.csv", ["data", "arm", "gold"]),
        ("differences.csv", ["data", "arm", "gold", "baseline"]),
    ):
        tables = [tables[name].sort_values(keys, ignore_index=True) for tables in (first, second)]
        pd.testing.assert_frame_equal(*tables)


def test_no_torch_is_imported(results: Results, run_stage: Callable[..., subprocess.CompletedProcess[str]]):
    results.judge("models/k", "rm", np.arange(10.0))
    words = ["--rewards", *results.rewards, "--output", results.root / "tables/t/manifest.json"]
    words += ["--experiment", "demo", "--main-gold", "rm", "--bootstrap", "10"]
    code = (
        "import sys, summarise; summarise.main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'scipy'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    scripts = Path(summarise.__file__).parent
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, cwd=scripts, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    failed = run_stage("summarise", *words, "--main-gold", "exact")
    assert failed.returncode == 2
    assert failed.stderr == "error: no rewards by the main judge 'exact'\n  instead: one of rm\n"
