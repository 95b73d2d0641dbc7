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
from typing import TYPE_CHECKING

from w2s.errors import DataError

if TYPE_CHECKING:
    import numpy as np

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

    def showable(self) -> list[int]:
        """Places in the pool of what can be shown: with each question ``shown`` others, or a DataError."""
        places = [place for place, usable in enumerate(self.usable) if usable]
        if len(places) < self.shown + self.refined:
            raise DataError(
                f"{len(places)} weak answers can be shown: too few for {self.shown} with each question",
                instead="a smaller number of examples",
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
    places = request.showable()
    chosen = []
    for item, name in enumerate(request.ids):
        draw = random.Random(f"{request.seed} {name}")
        drawn: list[int] = []
        while len(drawn) < request.shown:
            place = draw.choice(places)
            if place not in drawn and not (request.refined and place == item):
                drawn.append(place)
        chosen.append(drawn)
    return chosen


def similar(request: Request) -> list[list[int]]:
    """The others nearest to each question, nearest last; of two equally near ones the earlier counts as nearer."""
    import numpy as np

    places = np.array(request.showable())
    nearness = similarity(request.pool)
    chosen = []
    for item, question in enumerate(request.questions):
        others = places[places != item] if request.refined else places
        order = np.argsort(-nearness(question)[others], kind="stable")
        chosen.append(others[order[: request.shown]][::-1].tolist())
    return chosen


def fixed(request: Request) -> list[list[int]]:
    """The first ones of the pool for every question but themselves."""
    first = request.showable()[: request.shown]
    return [[] if request.refined and item in first else list(first) for item in range(len(request.ids))]


CHOICES: dict[str, Callable[[Request], list[list[int]]]] = {
    "consecutive": consecutive,
    "random": at_random,
    "similar": similar,
    "fixed": fixed,
}


def similarity(texts: Sequence[str]) -> Callable[[str], np.ndarray]:
    """A function that gives, for a text, its cosines with each of ``texts``.

    A word of a text weighs its count times log((1 + N) / (1 + n)) + 1, n of the N texts having it.
    """
    import numpy as np

    counts = [Counter(_WORD.findall(text.casefold())) for text in texts]
    having = Counter(word for words in counts for word in words)

    def weights(words: Counter[str]) -> dict[str, float]:
        raw = {
            word: count * (math.log((1 + len(texts)) / (1 + having[word])) + 1)
            for word, count in words.items()
        }
        length = math.hypot(*raw.values())
        return {word: weight / length for word, weight in raw.items()}

    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for place, words in enumerate(counts):
        for word, weight in weights(words).items():
            found[word].append((place, weight))
    index = {
        word: (np.array([p for p, _ in rows]), np.array([w for _, w in rows])) for word, rows in found.items()
    }

    def cosines(text: str) -> np.ndarray:
        sums = np.zeros(len(texts))
        for word, weight in weights(Counter(_WORD.findall(text.casefold()))).items():
            if word in index:
                places, others = index[word]
                sums[places] += weight * others
        return sums

    return cosines
