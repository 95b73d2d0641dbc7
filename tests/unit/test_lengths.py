"""Rewards at equal length against known truths: effects that are all length, none of it, or half."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from w2s.artifact import Artifact
from w2s.lengths import at_equal_length, lengths_table, paired
from w2s.results import read_result
from w2s.runs import parse_run
from w2s.statistics import Bootstrap, bootstrap_mean
from w2s.summary import Measured
from w2s.tables import write_csv

DRAWS = Bootstrap(400, 3)


def pairs(tokens: np.ndarray, rewards: np.ndarray) -> pd.DataFrame:
    """Pairs of (seeds, prompts) arrays of differences."""
    seeds, prompts = tokens.shape
    ids = [f"p{number:04}" for number in range(prompts)]
    cells = pd.DataFrame({"seed": np.repeat(np.arange(seeds), prompts), "id": ids * seeds})
    return cells.assign(value=rewards.ravel(), tokens=tokens.ravel().astype(float))


def drawn(
    effect: float, per_token: float, number: int, seeds: int = 3, by_seed: float = 0.1, prompts: int = 100
) -> pd.DataFrame:
    """Responses 12 tokens longer on average; reward differences of an effect, of length, of seeds, prompts and cells."""
    generator = np.random.default_rng(number)
    tokens = np.rint(generator.normal(12, 15, (seeds, prompts)))
    noise = generator.normal(0, by_seed, (seeds, 1)) + generator.normal(0, 0.3, (1, prompts))
    return pairs(tokens, effect + per_token * tokens + noise + generator.normal(0, 0.5, (seeds, prompts)))


def test_an_effect_that_is_all_length_is_none_at_equal_length():
    cells = drawn(0, 0.05, 1)
    raw = bootstrap_mean(cells[["seed", "id", "value"]], DRAWS)
    found = at_equal_length(cells, DRAWS)
    assert raw.low > 0.2
    assert found.low < 0 < found.high and abs(found.value) < 0.2
    assert found.slope == pytest.approx(0.05, abs=0.01)


def test_an_effect_that_length_hides_comes_out():
    cells = drawn(0.6, -0.05, 2)
    assert abs(bootstrap_mean(cells[["seed", "id", "value"]], DRAWS).mean) < 0.15
    assert at_equal_length(cells, DRAWS).low > 0.2


@pytest.mark.parametrize(("seeds", "by_seed"), [(1, 0.0), (3, 0.1)])
def test_intervals_cover_the_truth(seeds: int, by_seed: float):
    # The standard error of 300 simulations at 0.95 is 0.013. One seed says nothing about others.
    hits = 0
    for number in range(300):
        found = at_equal_length(drawn(0.3, 0.05, number, seeds, by_seed), DRAWS)
        hits += found.low <= 0.3 <= found.high
    assert hits / 300 == pytest.approx(0.95, abs=0.04)


def test_the_line_is_the_least_squares_one():
    cells = drawn(0.3, 0.02, 5).sample(frac=1, random_state=0)
    slope, intercept = np.polyfit(cells["tokens"], cells["value"], 1)
    found = at_equal_length(cells, DRAWS)
    assert (found.slope, found.value) == pytest.approx((slope, intercept))
    assert at_equal_length(cells.sort_values("id"), DRAWS) == found


def test_an_exact_line_has_an_interval_of_no_width():
    tokens = np.array([[0, 1, 2, 5], [3, 1, 4, 2]])
    found = at_equal_length(pairs(tokens, 0.5 + 0.1 * tokens), DRAWS)
    assert (found.value, found.low, found.high, found.slope) == pytest.approx((0.5, 0.5, 0.5, 0.1))


def test_where_lengths_say_nothing():
    rewards = np.random.default_rng(0).normal(1, 1, (2, 30))
    same = pairs(np.zeros((2, 30)), rewards)
    mean = bootstrap_mean(same[["seed", "id", "value"]], DRAWS)
    found = at_equal_length(same, DRAWS)
    assert (found.value, found.low, found.high) == (mean.mean, mean.low, mean.high) and np.isnan(found.slope)
    for unknown in (same.assign(tokens=4.0), same.assign(tokens=np.nan), drawn(0, 0, 1)[:2]):
        assert np.isnan(at_equal_length(unknown, DRAWS).value)
    # One pair a draw has no line: the value is known, its interval is not.
    tiny = at_equal_length(drawn(0, 0, 1, seeds=2, prompts=2), DRAWS)
    assert np.isfinite(tiny.value) and np.isnan(tiny.low) and np.isnan(tiny.high)


def measured(
    run: str, rewards: list[float], tokens: list[float] | None, seed: int = 1, gold: str = "rm"
) -> Measured:
    frame = pd.DataFrame({"id": [f"p{row}" for row in range(len(rewards))], "value": rewards})
    return Measured(
        parse_run(run), "d", "1-of-2", seed, gold, frame if tokens is None else frame.assign(tokens=tokens)
    )


def test_the_table_has_each_arm_and_the_reference_s_of_its_step(tmp_path: Path):
    base = [1.0, 2.0, 4.0, 3.0]
    rewards = {
        "models/k": (base, [10, 10, 20, 20]),
        "teachers/s/r/dpo": (base, [5, 5, 5, 5]),
        "students/k/human/r/sft": (base, [8, 8, 8, 8]),
        "students/k/human/r/dpo": (base, [10, 20, 10, 20]),
        "students/k/weak/r/sft": (base, None),
        "students/k/weak/r/dpo": ([1.4, 2.4, 5.2, 3.4], [12, 22, 16, 22]),
    }
    everything = [measured(run, *told) for run, told in rewards.items()]
    table = lengths_table("e", everything, "rm", "human", {"r": 0.1}, DRAWS)
    assert table["arm"].tolist() == ["untuned", "teacher", "human-sft", "human", "weak-sft", "weak"]
    assert table["baseline"].tolist() == ["", "", "", "", "human-sft", "human"]
    with Artifact.create(tmp_path / "manifest.json", spec={}, parents={}) as artifact:
        write_csv(table, artifact.path("lengths.csv"))
    rows = read_result(tmp_path / "manifest.json", "lengths.csv").set_index("arm")
    weak = rows.loc["weak"]
    assert weak[["mean", "tokens", "reward_per_token", "beta"]].tolist() == pytest.approx(
        [3.1, 18, 3.1 / 18, 0.1]
    )
    # 0.2 for each token more, and nothing else.
    assert weak[["difference", "tokens_difference"]].tolist() == pytest.approx([0.6, 3])
    assert weak[["adjusted", "low", "high", "slope"]].tolist() == pytest.approx([0, 0, 0, 0.2], abs=1e-9)
    # The generations are gone: what is known is the difference alone.
    assert rows.loc["weak-sft", "difference"] == 0
    assert rows.loc["weak-sft", ["tokens", "reward_per_token", "adjusted"]].isna().all()
    assert rows.loc[["untuned", "teacher", "human"], "adjusted"].isna().all()


def test_the_table_of_an_experiment_without_models_is_empty():
    assert lengths_table("e", [], "", "human", {}, DRAWS).empty


def test_lengths_that_one_seed_lacks_are_unknown():
    seeds = [measured("models/k", [1.0, 2.0], tokens, seed) for seed, tokens in ((1, [3, 4]), (2, None))]
    row = lengths_table("e", seeds, "rm", "human", {}, DRAWS).iloc[0]
    assert (row["mean"], row["seeds"], row["prompts"]) == (1.5, 2, 2) and np.isnan(row["tokens"])


def test_pairs_are_left_minus_right():
    left = measured("models/k", [1.0, 5.0], [3, 9]).frame.assign(seed=1)
    right = measured("models/k", [4.0, 1.0], [7, 2]).frame.assign(seed=1)
    found = paired(left, right.iloc[::-1])
    assert found[["id", "value", "tokens"]].values.tolist() == [["p0", -3.0, -4], ["p1", 4.0, 7]]
