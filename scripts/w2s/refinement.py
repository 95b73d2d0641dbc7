"""Which weak answers a refiner is shown with which question. Paper B, Algorithm 1 (ICL) and Algorithm 2 (batches).

The weak answers are a *pool*, in the order of their questions. A question is asked either for refinement, and is then one
of the pool's own: its own answer is never shown with it. Or it is asked at test time, and is not of the pool.
Never is an example shown twice in a prompt. Answers that are empty or refused are in the pool but cannot be shown.

Choices of ``shown`` examples for each question:

- ``consecutive`` (the paper's): the pool is cut into batches of shown + 1 pairs, and each question sees the others of its
  batch. A short last batch is filled up from the one before it, so that nobody sees fewer. At test time a batch has
  ``shown`` pairs, and question i sees batch i modulo their number. Of a batch, what cannot be shown is left out: a
  question then sees fewer examples, perhaps none;
- ``random``: drawn for each question, by the seed and the question's id: a larger number adds to a smaller;
- ``similar``: the questions nearest to it, nearest last: cosine of their words, weighted by rareness in the pool (TF-IDF);
- ``fixed`` (the paper's for maths): the first ones of the pool for all; those are not refined themselves.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from w2s.errors import DataError

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Request:
    """For which questions examples are wanted, and from what.

    Attributes:
        ids, questions: of the questions asked.
        pool: the questions of the weak answers.
        usable: which of the weak answers can be shown.
        refined: the questions asked are the pool's, in its order; else none of them is.
        shown: examples for each question.
        seed: of random choices.
    """

    ids: Sequence[str]
    questions: Sequence[str]
    pool: Sequence[str]
    usable: Sequence[bool]
    refined: bool
    shown: int
    seed: int = 0

    def others(self, item: int) -> list[int]:
        """Places in the pool of what can be shown with question ``item``; at least ``shown``, or a DataError."""
        places = [
            place
            for place, usable in enumerate(self.usable)
            if usable and not (self.refined and place == item)
        ]
        if len(places) < self.shown:
            raise DataError(
                f"{len(places)} weak answers can be shown, {self.shown} are wanted",
                where=f"question {self.ids[item]}",
            )
        return places


def choose(choice: str, request: Request) -> list[list[int]]:
    """Places in the pool of the examples of each question, in the order in which they are shown.

    An empty list says that the question cannot be asked: see the choice (module's text).

    Raises:
        DataError: the pool has too few examples.
    """
    return CHOICES[choice](request)


def batches(count: int, size: int) -> list[range]:
    """``count`` items in batches of ``size`` neighbours; the last may be short. Paper B, Algorithm 2."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def consecutive(request: Request) -> list[list[int]]:
    """Leave-one-out in batches of neighbours (paper B, Algorithm 1)."""
    count, size = len(request.pool), request.shown + request.refined
    if count < size:
        raise DataError(f"{count} weak answers do not make a batch of {size}")
    full = [
        range(min(batch.start, count - size), min(batch.start, count - size) + size)
        for batch in batches(count, size)
    ]
    chosen = []
    for item in range(len(request.ids)):
        batch = full[item // size] if request.refined else full[item % len(full)]
        own = item if request.refined else None
        chosen.append([place for place in batch if place != own and request.usable[place]])
    return chosen


def at_random(request: Request) -> list[list[int]]:
    """Others drawn for each question."""
    chosen = []
    for item, name in enumerate(request.ids):
        places = request.others(item)
        random.Random(f"{request.seed} {name}").shuffle(places)
        chosen.append(places[: request.shown])
    return chosen


def similar(request: Request) -> list[list[int]]:
    """The others nearest to each question, nearest last; of two equally near ones the earlier counts as nearer."""
    nearness = similarity(request.pool)
    chosen = []
    for item, question in enumerate(request.questions):
        near = nearness(question)
        places = sorted(request.others(item), key=lambda place: -near.get(place, 0.0))
        chosen.append(places[: request.shown][::-1])
    return chosen


def fixed(request: Request) -> list[list[int]]:
    """The first ones of the pool for every question but themselves."""
    first = [place for place, usable in enumerate(request.usable) if usable][: request.shown]
    if len(first) < request.shown:
        raise DataError(f"{len(first)} weak answers can be shown, {request.shown} are wanted")
    return [[] if request.refined and item in first else list(first) for item in range(len(request.ids))]


CHOICES: dict[str, Callable[[Request], list[list[int]]]] = {
    "consecutive": consecutive,
    "random": at_random,
    "similar": similar,
    "fixed": fixed,
}


def similarity(texts: Sequence[str]) -> Callable[[str], dict[int, float]]:
    """A function that gives, for a text, the cosines (above 0) with ``texts`` by place.

    A word of a text weighs its count times log((1 + N) / (1 + n)) + 1, n of the N texts having it.
    """
    counts = [Counter(_WORD.findall(text.casefold())) for text in texts]
    having = Counter(word for words in counts for word in words)

    def weights(words: Counter[str]) -> dict[str, float]:
        raw = {
            word: count * (math.log((1 + len(texts)) / (1 + having[word])) + 1)
            for word, count in words.items()
        }
        length = math.hypot(*raw.values())
        return {word: weight / length for word, weight in raw.items()}

    index: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for place, words in enumerate(counts):
        for word, weight in weights(words).items():
            index[word].append((place, weight))

    def cosines(text: str) -> dict[int, float]:
        found: dict[int, float] = defaultdict(float)
        for word, weight in weights(Counter(_WORD.findall(text.casefold()))).items():
            for place, other in index.get(word, ()):
                found[place] += weight * other
        return dict(found)

    return cosines
