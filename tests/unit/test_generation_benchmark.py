"""The benchmark of generation: lengths that are forced on both sides, and the count of what the loop does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import generation

        yield generation
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_both_sides_give_the_lengths_that_are_forced(bench):
    """Work is counted as the loop does it: one pass for the prompts, then one for each further token of the longest."""
    import measure

    shape = measure.Shape(width=8, layers=2, heads=2, feed_forward=16, vocabulary=60)
    model, prompts, ends = shape.model(), [[5, 6, 7], [8, 9], [10, 11]], [4, 1, 6]
    assert bench.theirs(model, prompts, ends, 2) == ends
    found = []
    work = bench.counted(model, lambda: found.append(bench.ours(model, prompts, ends, 64)))
    assert found == [ends]
    assert (work.passes, work.answered) == (6, sum(ends))
    assert work.tokens == 3 * 3 + 2 * 3 + 2 * 1
    shares = bench.shares(model, lambda: bench.ours(model, prompts, ends, 64))
    assert set(shares) == {"attention", "head", "drawing", "buffers", "layers"}
    assert sum(shares.values()) == pytest.approx(1, abs=0.01) and min(shares.values()) > 0


def test_forced_ends_are_like_the_real_ones(bench):
    import rows

    ends = bench.drawn_ends(2000, 256)
    assert min(ends) >= 1 and max(ends) == 256
    assert np.median(ends) == pytest.approx(rows.RESPONSE[5], rel=0.1)
    assert np.mean(bench.drawn_ends(2000, 64)) == pytest.approx(np.mean(ends) / 4, rel=0.03)
    assert bench.shrunk(list(range(40)), 64) == list(range(30, 40))
    assert bench.shrunk([7], 64) == [7] and bench.shrunk([7, 8], 256) == [7, 8]


def test_the_command_measures_both_cases(tmp_path):
    sizes = ["--shape", "tiny-opt", "--prompts", "10", "--new-tokens", "16", "--rounds", "1"]
    words = [sys.executable, str(BENCHMARKS / "generation.py"), *sizes, "--results", str(tmp_path)]
    subprocess.run(words, check=True, capture_output=True, text=True)
    (path,) = tmp_path.iterdir()
    result = json.loads(path.read_text())
    assert path.stem == result["name"] == "generation-float32-tiny-opt"
    assert result["ratio"] == result["hh_ends"]["ratio"] and result["met"] == (
        result["ratio"] >= result["target"]
    )
    assert result["no_ends"]["tokens"] == 160 > result["hh_ends"]["tokens"]
    assert result["hh_ends"]["limits"]["share_of_peak"] > 0 and result["environment"]["threads"]
