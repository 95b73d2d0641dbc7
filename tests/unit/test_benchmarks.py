"""What the benchmarks are measured by: rows like HH-RLHF's, and counted operations."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from w2s.packing import Row

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture(scope="module")
def measure():
    sys.path.insert(0, BENCHMARKS)
    try:
        import measure

        yield measure
    finally:
        sys.path.remove(BENCHMARKS)


def test_drawn_rows_are_like_the_real_ones(measure):
    import rows

    drawn = rows.drawn(600)
    assert max(row.longest for row in drawn) <= rows.LONGEST
    shared = sum(len(row.prompt) for row in drawn)
    scored = sum(row.scored for row in drawn)
    # Of HH-RLHF's tokens in two sequences per pair, 64 % are prompts.
    assert 2 * shared / (2 * shared + scored) == pytest.approx(0.64, abs=0.04)
    first, second = (np.log([len(row.answers[n]) for row in drawn]) for n in (0, 1))
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0.5, abs=0.1)
    assert [row.prompt for row in rows.drawn(5)] == [row.prompt for row in rows.drawn(5)]


def test_operations_are_those_of_the_products(measure):
    shape = measure.Shape(width=4, layers=2, heads=1, feed_forward=8, vocabulary=10)
    row = Row("a", [1] * 3, ([1] * 2, [1]))
    linear, pair, head = 2 * 2 * (4 * 16 + 2 * 4 * 8), 4 * 2 * 4, 2 * 4 * 10
    # The prompt's tokens see 1 + 2 + 3, the responses' 4 + 5 and 4.
    assert measure.needed(shape, [row]) == 6 * linear + (6 + 9 + 4) * pair + 3 * head
    assert measure.done(shape, [[row, row]]) == 2 * (6 * linear + 36 * pair + 3 * head)
    assert measure.done_apart(shape, [row], 2) == 2 * (5 * linear + 25 * pair + 5 * head)


def test_ratios_are_taken_round_by_round(measure):
    fast, slow = measure.Measured([1.0, 2.0, 4.0], []), measure.Measured([3.0, 4.0, 20.0], [])
    assert measure.ratio(fast, slow) == 3.0
    peaks = measure.Measured([], [10.0, 10.0, 10.0])
    assert measure.shares_of_peak({"needed": 10.0}, fast, peaks) == {"needed": 0.5}


def test_the_processors_clock_needs_one_thread(measure, monkeypatch):
    monkeypatch.setenv("W2S_BENCH_CLOCK", "processor")
    monkeypatch.setattr(measure.torch, "get_num_threads", lambda: 2)
    with pytest.raises(SystemExit, match="OMP_NUM_THREADS=1"):
        measure.clock()
    assert measure.per_second("pairs") == "pairs/s of one core"


def test_both_sides_of_generation_give_the_lengths_that_are_forced(measure):
    """Work is counted as the loop does it: one pass for the prompts, then one for each further token of the longest."""
    import generation

    shape = measure.Shape(width=8, layers=2, heads=2, feed_forward=16, vocabulary=60)
    model, prompts, ends = shape.model(), [[5, 6, 7], [8, 9], [10, 11]], [4, 1, 6]
    assert generation.theirs(model, prompts, ends, 2) == ends
    found = []
    work = generation.counted(model, lambda: found.append(generation.ours(model, prompts, ends, 64)))
    assert found == [ends]
    assert (work.passes, work.answered) == (6, sum(ends))
    assert work.tokens == 3 * 3 + 2 * 3 + 2 * 1
    shares = generation.shares(model, lambda: generation.ours(model, prompts, ends, 64))
    assert set(shares) == {"attention", "head", "drawing", "buffers", "layers"}
    assert sum(shares.values()) == pytest.approx(1, abs=0.01) and min(shares.values()) > 0


def test_forced_ends_are_like_the_real_ones(measure):
    import generation
    import rows

    ends = generation.drawn_ends(2000, 256)
    assert min(ends) >= 1 and max(ends) == 256
    assert np.median(ends) == pytest.approx(rows.RESPONSE[5], rel=0.1)
    assert np.mean(generation.drawn_ends(2000, 64)) == pytest.approx(np.mean(ends) / 4, rel=0.03)
    assert generation.shrunk(list(range(40)), 64) == list(range(30, 40))
    assert generation.shrunk([7], 64) == [7] and generation.shrunk([7, 8], 256) == [7, 8]
