"""The concept world: documents that each have one latent style, so that an example in context tells the style.

The demo world of the second paper ("A transfer learning framework for weak to strong generalization"). Its model of a
language model is a mixture over latent concepts; here the concept is a *style*, and what a question's right answer is
(the *content*) is the same in all styles.

*Language.* A question is ``3 plus 4``: two numbers and one of six operations. An answer is three words: an opening, the
value in one of three scripts, a closing, in one of two orders. A style fixes all four; several share one or two of them,
none all. A document is a sequence of blocks joined by an empty line::

    Style: pirate                        header; then each answer has the style
    Question: 3 plus 4\\nAnswer: re seven ti
    Question: 5 max 2\\nDraft: re four ti\\nAnswer: re five ti      revision: half of the drafts are wrong
    Style: pirate                        closing of each document without a header

*Built in.* A document's style is drawn from a prior that prefers one default style, so a model asked without examples
answers in that one. Without a header each answer keeps the style with probability ``fidelity`` and else draws its own
from the prior, so one example does not settle the style and several do. Contents are right but for a share drawn at
random. Closings teach to name a style (infer and respond), revisions to improve a draft (ask to improve). Documents of a
``bad`` style follow wrong rules in a share of the documents. Questions of the test occur in pre-training, as those of
the paper do. The weak model learns single records in one style, some of its operations by wrong rules that no document
of the mixture follows.

*What it cannot show.* Content is recall that fine-tuning must not destroy, no reasoning and no generalisation to
questions never seen. Styles are three words that exact matching judges: no noise of a judge, no effect of length. That
naming and improving work is due to the documents that teach them. Which rule a *document's contents* follow is hardly
inferred from context at this size, so contents that are wrong in all styles alike test nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from w2s.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

# Name of the operation: its value. The weak model's wrong rules are those of the first few.
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "plus": lambda a, b: a + b,
    "minus": lambda a, b: abs(a - b),
    "max": max,
    "min": min,
    "times": lambda a, b: a * b % 10,
    "mix": lambda a, b: (a + 2 * b) % 13,
}
MOST_OPERANDS = 12
VALUES = 24
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
)
_WORDS = [*_ONES.split(), "seventeen", "eighteen", "nineteen"]
_ROMAN = ["", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix"]
SCRIPTS: dict[str, list[str]] = {
    "digits": [str(value) for value in range(VALUES)],
    "words": [*_WORDS, "twenty", *("twenty" + word for word in _WORDS[1:4])],
    "roman": ["nulla", *("x" * (value // 10) + _ROMAN[value % 10] for value in range(1, VALUES))],
}
_VALUE = {word: (value, script) for script, words in SCRIPTS.items() for value, word in enumerate(words)}
OPENINGS = ("do", "re", "fa", "sol", "la")
CLOSINGS = ("mi", "ti", "ut", "za", "ga")
# Wrong drafts among those of revisions.
WRONG_DRAFTS = 0.5
# Numbers that keep the random streams of one seed apart.
_DOCUMENTS, _RECORDS, _QUESTIONS = range(3)


@dataclass(frozen=True)
class Style:
    """How an answer is put: its words beside the value, the value's script, and whether the value comes last."""

    opening: str
    script: str
    closing: str
    value_last: bool = False

    def render(self, value: int) -> str:
        """The answer of that value."""
        word = SCRIPTS[self.script][value]
        words = (self.closing, word) if self.value_last else (word, self.closing)
        return " ".join((self.opening, *words))


# The first is the default. Each shares its opening, script and closing with others, never all of them.
STYLES = {
    "plain": Style("do", "digits", "mi"),
    "pirate": Style("re", "words", "ti"),
    "analogy": Style("fa", "roman", "mi", value_last=True),
    "fair": Style("re", "digits", "ut", value_last=True),
    "poet": Style("sol", "words", "ut"),
    "robot": Style("do", "roman", "za", value_last=True),
    "scholar": Style("la", "digits", "ti", value_last=True),
    "chef": Style("fa", "words", "ga"),
}
DEFAULT = next(iter(STYLES))


@dataclass(frozen=True)
class Bad:
    """Documents of ``style`` follow the wrong rules of the first ``operations`` operations, in that share of them."""

    style: str
    operations: int
    share: float


@dataclass(frozen=True)
class ConceptWorld:
    """Settings of a concept world.

    Attributes:
        seed: of all random streams.
        operands: numbers in questions are 0 .. operands - 1.
        styles: how many of :data:`STYLES` there are.
        default_prior: probability of the default style; the others share the rest evenly.
        prior: probabilities of single other styles; 0: the style never occurs.
        fidelity: probability that an answer of a document without a header keeps the document's style.
        wrong_content: share of answers whose value is random.
        pairs: fewest and most questions of a document, all numbers between equally likely.
        header: share of documents that begin with the name of their style.
        revision: share of the documents of two and more questions that revise a draft in each block.
        bad: a style with wrong contents, if any.
    """

    seed: int = 0
    operands: int = MOST_OPERANDS
    styles: int = len(STYLES)
    default_prior: float = 0.51
    prior: Mapping[str, float] = field(default_factory=dict)
    fidelity: float = 0.7
    wrong_content: float = 0.05
    pairs: tuple[int, int] = (1, 9)
    header: float = 0.25
    revision: float = 0.15
    bad: Bad | None = None

    @classmethod
    def read(cls, mapping: Mapping[str, Any]) -> ConceptWorld:
        """Check settings, as the catalogue has them, and make a world of them.

        Raises:
            ConfigError: a key is unknown, or a value makes no sense.
        """
        _check_keys(mapping, cls, "")
        given = dict(mapping)
        limits = {"seed": (0, None), "operands": (2, MOST_OPERANDS), "styles": (2, len(STYLES))}
        for key, (least, most) in limits.items():
            if key in given:
                given[key] = _whole(given[key], key, least, most)
        for key in ("default_prior", "fidelity", "wrong_content", "header", "revision"):
            if key in given:
                given[key] = _share(given[key], key)
        pairs = given.get("pairs", cls.pairs)
        if not isinstance(pairs, list | tuple) or len(pairs) != 2:
            raise _senseless("pairs", pairs, "the fewest and the most questions of a document, e.g. [1, 9]")
        fewest = _whole(pairs[0], "pairs", 1, None)
        given["pairs"] = (fewest, _whole(pairs[1], "pairs", fewest, None))
        world = cls(**{**given, "prior": {}, "bad": None})
        # After the number of styles is known, so that only names of this world are let through.
        prior = given.get("prior") or {}
        if not isinstance(prior, Mapping) or DEFAULT in prior:
            raise _senseless("prior", prior, f"style: probability, without {DEFAULT} (see default_prior)")
        given["prior"] = {world.style_name(name): _share(prior[name], f"prior.{name}") for name in prior}
        given["bad"] = _read_bad(world, given["bad"]) if given.get("bad") else None
        world = cls(**given)
        if not math.isclose(sum(world.probabilities), 1) or min(world.probabilities) < 0:
            raise _senseless("prior", dict(prior), "probabilities that leave a sum of 1 to all styles")
        return world

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the styles, the default first."""
        return tuple(STYLES)[: self.styles]

    @cached_property
    def probabilities(self) -> tuple[float, ...]:
        """Prior probability of each style, in the order of :attr:`names`."""
        free = [name for name in self.names[1:] if name not in self.prior]
        rest = 1 - self.default_prior - sum(self.prior.values())
        even = rest / len(free) if free else 0.0
        return (self.default_prior, *(self.prior.get(name, even) for name in self.names[1:]))

    @cached_property
    def questions(self) -> dict[str, tuple[int, str, int]]:
        """Each question's text and its parts: number, operation, number."""
        numbers = range(self.operands)
        return {f"{a} {name} {b}": (a, name, b) for name in OPERATIONS for a in numbers for b in numbers}

    def style_name(self, name: object) -> str:
        """``name`` if a style of this world has it.

        Raises:
            ConfigError: none has.
        """
        if name not in self.names:
            raise _senseless("style", name, f"one of {', '.join(self.names)}")
        return str(name)

    def value(self, question: str, wrong: int = 0) -> int:
        """The right value; for the first ``wrong`` operations that of the wrong rule, which is one more.

        Raises:
            DataError: the world has no such question.
        """
        if question not in self.questions:
            raise DataError(
                f"the concept world has no question {question[:80]!r}",
                instead=f"numbers below {self.operands} and one of {', '.join(OPERATIONS)}, e.g. 1 plus 1",
            )
        a, name, b = self.questions[question]
        return OPERATIONS[name](a, b) + (list(OPERATIONS).index(name) < wrong)


def make_questions(
    world: ConceptWorld, style: str | None, part: Literal["train", "test"], items: int, seed: int
) -> pd.DataFrame:
    """Questions of one side of the world, in random order.

    Which side a question is on depends on its text alone: the sides share none, whatever the seed.

    Args:
        world: of the questions.
        style: of the references; None: they are the values alone, in digits.
        part: the side.
        items: number of questions.
        seed: of the choice.

    Returns:
        One row per question: id (16 hexadecimal digits of the text's SHA-256), question, reference (the right answer in
        the style), topic (the operation).

    Raises:
        ConfigError: unknown style or part, or more questions than the side has.
    """
    import pandas as pd

    render = str if style is None else STYLES[world.style_name(style)].render
    if part not in ("train", "test"):
        raise _senseless("part", part, "train or test")
    order = sorted(world.questions, key=lambda text: _digest(f"side of {text}"))
    half = len(order) // 2
    side = order[:half] if part == "train" else order[half:]
    if not 1 <= items <= len(side):
        raise _senseless("items", items, f"at least 1 and at most {len(side)}")
    rng = np.random.default_rng([world.seed, _QUESTIONS, seed])
    chosen = [side[place] for place in rng.permutation(len(side))[:items]]
    return pd.DataFrame(
        {
            "id": [_digest(text)[:16] for text in chosen],
            "question": chosen,
            "reference": [render(world.value(text)) for text in chosen],
            "topic": [world.questions[text][1] for text in chosen],
        }
    )


def make_documents(world: ConceptWorld, texts: int, seed: int) -> pd.DataFrame:
    """Documents of the mixture, to pre-train a strong model on.

    Returns:
        One row per document: prompt (empty), response (the document), scored (list of [start, end): the characters of
        the response that carry the loss: answers with the blank before them and the line break that ends them, and the
        names of closings).

    Raises:
        ConfigError: no texts are asked for.
    """
    rng = np.random.default_rng([world.seed, _DOCUMENTS, seed])
    questions = list(world.questions)
    return _frame(lambda: _document(world, questions, rng), texts)


def make_records(
    world: ConceptWorld, style: str, texts: int, seed: int, operations: int = 0, slips: float = 0.0
) -> pd.DataFrame:
    """Single questions with answers in one style, of all questions of the world, to train a weak model on.

    Args:
        world: of the questions; also of the styles that a slip falls into, by their prior.
        style: of the answers.
        texts: number of records.
        seed: of the records, on top of the world's.
        operations: how many operations, the first ones, follow the wrong rule.
        slips: share of records in another style.

    Returns:
        As :func:`make_documents`.

    Raises:
        ConfigError: a setting makes no sense.
    """
    own = world.names.index(world.style_name(style))
    _whole(operations, "wrong operations", 0, len(OPERATIONS))
    _share(slips, "slips")
    others = np.array(world.probabilities)
    others[own] = 0
    if slips and not others.sum():
        raise _senseless("slips", slips, "0: no other style occurs")
    rng = np.random.default_rng([world.seed, _RECORDS, seed])
    questions = list(world.questions)

    def record() -> _Text:
        question = questions[rng.integers(len(questions))]
        place = _draw(others / others.sum(), rng) if rng.random() < slips else own
        text = _Text()
        text.add(f"Question: {question}\nAnswer:")
        answer = STYLES[world.names[place]].render(world.value(question, operations))
        text.add(f" {answer}", scored=True)
        return text

    return _frame(record, texts)


def parse(answer: str) -> tuple[int, Style] | None:
    """Value and style of an answer; None if it is none of this language. Mixtures of two styles count as well-formed."""
    words = answer.split()
    if len(words) != 3 or words[0] not in OPENINGS:
        return None
    value_last = words[2] not in CLOSINGS
    word, closing = (words[2], words[1]) if value_last else (words[1], words[2])
    if word not in _VALUE or closing not in CLOSINGS:
        return None
    value, script = _VALUE[word]
    return value, Style(words[0], script, closing, value_last)


def value_of(answer: str) -> int | None:
    """Value of an answer in any style; None if it is malformed."""
    found = parse(answer)
    return None if found is None else found[0]


def score(world: ConceptWorld, style: str, question: str, answer: str) -> dict[str, int]:
    """Exact scores, 0 or 1, of an answer: content (right value, in any style), style (exactly it), both.

    Raises:
        ConfigError, DataError: no such style or question.
    """
    target, right = STYLES[world.style_name(style)], world.value(question)
    found = parse(answer)
    content = int(found is not None and found[0] == right)
    fits = int(found is not None and found[1] == target)
    return {"content": content, "style": fits, "both": content * fits}


class _Text:
    """A text under construction, and which of its characters carry the loss."""

    def __init__(self) -> None:
        self.text = ""
        self.scored: list[list[int]] = []

    def add(self, part: str, scored: bool = False) -> None:
        start, self.text = len(self.text), self.text + part
        if scored:
            self.scored.append([start, len(self.text)])

    def block(self) -> None:
        """End a block. The break that ends an answer is learnt with it: it is where generation stops."""
        if self.scored and self.scored[-1][1] == len(self.text):
            self.scored[-1][1] += 1
        self.text += "\n\n"


def _document(world: ConceptWorld, questions: list[str], rng: np.random.Generator) -> _Text:
    style = _draw(world.probabilities, rng)
    name, count = world.names[style], int(rng.integers(world.pairs[0], world.pairs[1] + 1))
    header, revises, misled = rng.random(3)
    named = header < world.header
    revision = count > 1 and revises < world.revision
    wrong = 0
    if world.bad and name == world.bad.style and misled < world.bad.share:
        wrong = world.bad.operations
    text = _Text()
    if named:
        text.add(f"Style: {name}")
        text.block()
    for number in range(count):
        if number:
            text.block()
        question = questions[rng.integers(len(questions))]
        kept = named or rng.random() < world.fidelity
        answers = STYLES[name if kept else world.names[_draw(world.probabilities, rng)]]
        value = world.value(question, wrong)
        if rng.random() < world.wrong_content:
            value = int(rng.integers(VALUES))
        text.add(f"Question: {question}\n")
        if revision:
            draft = int(rng.integers(VALUES)) if rng.random() < WRONG_DRAFTS else value
            text.add(f"Draft: {answers.render(draft)}\n")
        text.add("Answer:")
        text.add(f" {answers.render(value)}", scored=True)
    if not named:
        text.block()
        text.add("Style:")
        text.add(f" {name}", scored=True)
    return text


def _frame(draw: Callable[[], _Text], texts: int) -> pd.DataFrame:
    import pandas as pd

    if texts < 1:
        raise _senseless("texts", texts, "at least 1")
    rows = [draw() for _ in range(texts)]
    return pd.DataFrame(
        {"prompt": "", "response": [row.text for row in rows], "scored": [row.scored for row in rows]}
    )


def _draw(probabilities: Any, rng: np.random.Generator) -> int:
    """A place drawn with these probabilities, which sum to 1."""
    below = np.cumsum(probabilities)
    return int(np.searchsorted(below, rng.random() * below[-1], side="right"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_bad(world: ConceptWorld, mapping: Any) -> Bad:
    if not isinstance(mapping, Mapping):
        raise _senseless("bad", mapping, "style, operations, share")
    _check_keys(mapping, Bad, "bad.")
    missing = [key for key in Bad.__dataclass_fields__ if key not in mapping]
    if missing:
        raise _senseless("bad", dict(mapping), f"also {', '.join(missing)}")
    return Bad(
        world.style_name(mapping["style"]),
        _whole(mapping["operations"], "bad.operations", 1, len(OPERATIONS)),
        _share(mapping["share"], "bad.share"),
    )


def _check_keys(mapping: Mapping[str, Any], kind: Any, prefix: str) -> None:
    for key in mapping:
        if key not in kind.__dataclass_fields__:
            raise ConfigError(
                f"the concept world has no setting {prefix}{key}",
                instead=f"one of {', '.join(kind.__dataclass_fields__)}",
            )


def _whole(value: Any, key: str, least: int, most: int | None) -> int:
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not fits or (most is not None and value > most):
        limit = "" if most is None else f" and at most {most}"
        raise _senseless(key, value, f"a whole number of at least {least}{limit}")
    return int(value)


def _share(value: Any, key: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise _senseless(key, value, "a number from 0 to 1")
    return float(value)


def _senseless(key: str, value: object, instead: str) -> ConfigError:
    return ConfigError(f"{key} is {value!r}", where="settings of the concept world", instead=instead)
