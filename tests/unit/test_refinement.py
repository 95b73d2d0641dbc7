"""Which examples go with which question: leave-one-out in every size, never one's own, never one twice."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from w2s.errors import DataError
from w2s.refinement import CHOICES, Request, batches, choose, similarity

WORDS = ["cat", "dog", "hen", "cow", "eats", "sleeps", "runs", "meat", "fish", "grass", "how", "why", "when"]


def request(
    count: int, shown: int, unusable: frozenset[int] = frozenset(), asked: int | None = None, seed: int = 1
):
    """``count`` weak answers; with ``asked``, so many other questions at test time."""
    rng = random.Random(count)
    texts = [" ".join(rng.choices(WORDS, k=5)) for _ in range(count + (asked or 0))]
    usable = [place not in unusable for place in range(count)]
    mine = texts[:count] if asked is None else texts[count:]
    ids = [f"{'q' if asked is None else 't'}{place}" for place in range(len(mine))]
    return Request(ids, mine, texts[:count], usable, asked is None, shown, seed)


@pytest.mark.parametrize("shown", range(1, 9))
def test_leave_one_out_in_batches_of_neighbours(shown: int):
    for count in range(shown + 1, 40):
        chosen = choose("consecutive", request(count, shown))
        assert len(chosen) == count
        for item, places in enumerate(chosen):
            assert item not in places and len(set(places)) == len(places) == shown
            together = sorted([item, *places])
            assert together == list(range(together[0], together[0] + shown + 1))  # neighbours, in table order
            assert places == sorted(places)
            start = item // (shown + 1) * (shown + 1)
            assert together[0] == (start if start + shown < count else count - shown - 1)


def test_a_batch_by_hand():
    assert choose("consecutive", request(8, 2)) == [
        [1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4], [5, 7], [5, 6],
    ]  # fmt: skip


@pytest.mark.parametrize("choice", ["consecutive", "random", "similar", "fixed"])
def test_no_choice_shows_ones_own_or_one_twice_or_an_unusable_answer(choice: str):
    assert choice in CHOICES and len(CHOICES) == 4
    rng = random.Random(3)
    for count, shown, asked in itertools.product((7, 12, 25), (1, 2, 4), (None, 1, 9)):
        unusable = frozenset(rng.sample(range(count), 2))
        wanted = request(count, shown, unusable, asked)
        chosen = choose(choice, wanted)
        assert len(chosen) == len(wanted.ids)
        for item, places in enumerate(chosen):
            assert len(set(places)) == len(places) <= shown
            assert not unusable & set(places)
            assert asked or item not in places
            if choice in ("random", "similar"):
                assert len(places) == shown
        assert choose(choice, wanted) == chosen


def test_what_cannot_be_shown_leaves_its_batch_smaller_or_empty():
    assert choose("consecutive", request(4, 1, frozenset({0}))) == [[1], [], [3], [2]]
    assert choose("consecutive", request(6, 2, frozenset({1}))) == [[2], [0, 2], [0], [4, 5], [3, 5], [3, 4]]


def test_at_test_time_batches_come_round_again():
    assert choose("consecutive", request(6, 2, asked=5)) == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]
    assert choose("consecutive", request(5, 2, asked=4)) == [[0, 1], [2, 3], [3, 4], [0, 1]]
    assert choose("consecutive", request(2, 2, asked=3)) == [[0, 1]] * 3


def test_random_examples_depend_on_seed_and_id_and_grow():
    one, same, other = (choose("random", request(30, 4, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert [places[:4] for places in choose("random", request(30, 8))] == one
    base = request(30, 4)
    alone = Request(base.ids[:1], base.questions[:1], base.pool, base.usable, True, 4, 1)
    assert choose("random", alone)[0] == one[0]
    counts = np.bincount(np.concatenate([*one, *other]), minlength=30)
    assert counts.min() > 0 and counts.max() < 20  # 8 expected


def test_similar_examples_are_the_nearest_by_an_independent_count():
    wanted = request(20, 3)
    texts = [text.split() for text in wanted.pool]
    matrix = np.array([[text.count(word) for word in WORDS] for text in texts], float)
    matrix *= np.log(21 / (1 + (matrix > 0).sum(0))) + 1
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    cosines = matrix @ matrix.T
    nearness = similarity(wanted.pool)
    for item, places in enumerate(choose("similar", wanted)):
        mine = nearness(wanted.pool[item])
        assert mine.tolist() == pytest.approx(cosines[item].tolist())
        others = sorted((cosines[item, place] for place in range(20) if place != item), reverse=True)
        assert [cosines[item, place] for place in places] == pytest.approx(others[:3][::-1])


def test_nearness_ignores_case_and_rare_words_weigh_more():
    near = similarity(["What do CATS eat?", "What do hens eat?", "What do you eat with cats?", "..."])
    assert near("cats!").argmax() == 0
    assert not near("Bread").any() and not near("").any()
    assert near("hens cats")[1] > near("hens cats")[2]


def test_fixed_examples_are_the_first_and_are_not_refined():
    assert choose("fixed", request(5, 2, frozenset({0}))) == [[1, 2], [], [], [1, 2], [1, 2]]
    assert choose("fixed", request(2, 2, asked=3)) == [[0, 1]] * 3


@pytest.mark.parametrize(
    ("choice", "count", "unusable", "asked"),
    [
        ("consecutive", 3, (), None),
        ("consecutive", 2, (), 4),
        ("random", 4, (3,), None),
        ("similar", 3, (), None),
        ("fixed", 4, (0, 1), None),
    ],
)
def test_too_few_examples_are_refused(choice: str, count: int, unusable: tuple[int, ...], asked: int | None):
    with pytest.raises(DataError, match=f"{count - len(unusable)} weak answers"):
        choose(choice, request(count, 3, frozenset(unusable), asked))


def test_batches_share_out_everything():
    for count, size in itertools.product(range(0, 30), range(1, 9)):
        made = batches(count, size)
        assert [item for batch in made for item in batch] == list(range(count))
        assert all(len(batch) == size for batch in made[:-1])
