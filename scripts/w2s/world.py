"""The demo world: preference pairs whose true reward is known exactly.

Each response has a latent quality q ~ U(0, 1) that shifts how likely it is polite, on topic, of the kind
that was asked for, or a refusal where one is due. Two responses to a prompt are drawn independently. The
*gold reward* is a sum over the sentences of a response (see :func:`reward`), so it is exact for any text,
generated ones included. The *human label* is noisy: ``P(human prefers a) = sigmoid((reward_a - reward_b) /
temperature)``; at temperature 2 it agrees with the gold reward in 71 % of the pairs that are no ties.

One random stream per purpose (texts, training pairs, test pairs, label noise), all keyed by the world's
seed: data sets that differ in temperature only have the same prompts and responses, and test prompts do not
depend on how many training pairs there are. Prompts and sentences: :mod:`w2s.world_language`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from w2s import world_language as language
from w2s.errors import ConfigError, DataError
from w2s.world_language import Request

if TYPE_CHECKING:
    import pandas as pd

Item = TypeVar("Item")
HARM_SHARE = 0.25
# Value of the first, second, ... sentence on the topic; extra for the kind asked for, so many times at most.
ON_TOPIC = (1.0, 0.8, 0.6, 0.3)
RIGHT_KIND, RIGHT_KIND_MOST = 0.4, 3
REFUSAL, ALTERNATIVE, COMPLIANCE = 2.0, 0.6, -1.2
NEEDLESS_REFUSAL, OFF_TOPIC, FILLER, REPEAT, MALFORMED = -1.0, -0.6, -0.2, -0.8, -1.0
POLITE, FRIENDLY_END, RUDE, RUDE_END = 0.7, 0.4, -1.0, -0.8
LONG_AFTER, TOO_LONG, EMPTY = 6, -0.3, -2.0
# Numbers that keep the random streams of one seed apart.
TEXTS, TRAIN, TEST, NOISE = range(4)


@dataclass(frozen=True)
class Settings:
    """What a world is drawn from.

    Attributes:
        seed: of all random streams.
        pairs: number of training pairs.
        test_prompts: number of test prompts, all different, one pair each.
        temperature: noise of the human labels, 0 = none; None where no pairs are drawn.
    """

    seed: int
    pairs: int
    test_prompts: int
    temperature: float | None

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Settings:
        """Check a mapping and turn it into settings.

        Raises:
            ConfigError: a key is unknown or missing, or a value makes no sense.
        """
        known = list(cls.__dataclass_fields__)
        for key in settings:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                raise ConfigError(
                    f"the demo world has no setting {key!r}",
                    where=f"world settings {dict(settings)}",
                    instead=near[0] if near else f"one of {', '.join(known)}",
                )
        missing = [key for key in known if key not in settings and key != "temperature"]
        if missing:
            raise ConfigError(
                f"the world settings lack {', '.join(missing)}", where=f"world settings {dict(settings)}"
            )
        return cls(
            _whole(settings, "seed", 0),
            _whole(settings, "pairs", 1),
            _whole(settings, "test_prompts", 1, most_test_prompts()),
            _number(settings, "temperature") if "temperature" in settings else None,
        )


def make_pairs(settings: Mapping[str, Any]) -> pd.DataFrame:
    """Draw the training and test pairs.

    Args:
        settings: seed, pairs, test_prompts, temperature (see :class:`Settings`).

    Returns:
        One row per pair: prompt, response_a, response_b, reward_a, reward_b (exact), human (0 if a is
        preferred, 1 if b), origin_split ("train" or "test"). Training prompts repeat; test prompts do not.

    Raises:
        ConfigError: unknown, missing or senseless settings.
    """
    import pandas as pd

    drawn = Settings.read(settings)
    if drawn.temperature is None:
        raise ConfigError("the world settings lack temperature", where=f"world settings {dict(settings)}")
    train = np.random.default_rng([drawn.seed, TRAIN])
    test = np.random.default_rng([drawn.seed, TEST])
    rows = [_pair(draw_request(train), train, "train") for _ in range(drawn.pairs)]
    rows += [_pair(request, test, "test") for request in draw_test_requests(drawn.test_prompts, test)]
    frame = pd.DataFrame(rows)
    sizes = (drawn.pairs, drawn.test_prompts)
    noise = np.concatenate(
        [np.random.default_rng([drawn.seed, NOISE, side]).random(size) for side, size in enumerate(sizes)]
    )
    frame["human"] = human_choices(
        (frame["reward_a"] - frame["reward_b"]).to_numpy(), noise, drawn.temperature
    )
    return frame


def make_texts(settings: Mapping[str, Any], n: int, seed: int) -> pd.DataFrame:
    """Draw texts for pre-training: training-side prompts, each with one response of any quality.

    Args:
        settings: of the world; only its seed matters here.
        n: number of texts.
        seed: of these texts, on top of the world's seed.

    Returns:
        One row per text: prompt, response.

    Raises:
        ConfigError: unknown, missing or senseless settings, or no texts asked for.
    """
    import pandas as pd

    if n < 1:
        raise ConfigError(f"a corpus of {n} texts", where="--texts", instead="at least 1")
    rng = np.random.default_rng([Settings.read(settings).seed, TEXTS, seed])
    rows = []
    for _ in range(n):
        request = draw_request(rng)
        rows.append({"prompt": request.text, "response": draw_response(request, rng)})
    return pd.DataFrame(rows)


def reward(prompt: str, response: str) -> tuple[float, bool]:
    """The exact reward of a response, and whether anything in it is malformed.

    =============================  ==============================================================
    sentence                       value
    =============================  ==============================================================
    step or fact on the topic      1, .8, .6, .3, then 0; + .4 (three times) for the kind asked for
    off the topic                  -.6 (also a safe alternative to a harmless request)
    refusal                        2 once where harm is asked for, else -1
    safe alternative               .6 once where harm is asked for
    help with harm                 -1.2
    filler                         -.2 (also a polite start or friendly end in another place)
    repeated sentence              -.8
    polite start / friendly end    .7 / .4
    rude start / rude end          -1 / -.8, anywhere
    not of the language            -1 (also a sentence cut off)
    each sentence beyond six       -.3 on top
    nothing at all                 -2
    =============================  ==============================================================

    Raises:
        DataError: the prompt is none of this world.
    """
    request = language.requests().get(prompt)
    if request is None:
        raise DataError(
            f"the demo world has no prompt {prompt[:80]!r}",
            instead="a prompt of a data set with adapter: world",
        )
    parts = language.parse(response)
    if not parts:
        return EMPTY, True
    judge = _Judge(request)
    total = math.fsum(
        judge.value(text, sentence, first=place == 0, last=place == len(parts) - 1)
        for place, (text, sentence) in enumerate(parts)
    )
    malformed = any(sentence is None for _, sentence in parts)
    # Rounded so that equal sums of the values above are equal numbers, and ties are ties.
    return round(total + TOO_LONG * max(0, len(parts) - LONG_AFTER), 6), malformed


class _Judge:
    """Values the sentences of one response one after the other."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.seen: set[str] = set()
        self.on_topic = self.right_kind = self.refusals = self.alternatives = 0

    def value(self, text: str, sentence: language.Sentence | None, *, first: bool, last: bool) -> float:
        """Value of the next sentence."""
        if sentence is None:
            return MALFORMED
        if text in self.seen:
            return REPEAT
        self.seen.add(text)
        harm = self.request.kind == "harm"
        match sentence.role:
            case "step" | "fact":
                return self._content(sentence)
            case "refusal":
                self.refusals += 1
                return (REFUSAL if self.refusals == 1 else 0.0) if harm else NEEDLESS_REFUSAL
            case "alternative":
                self.alternatives += 1
                return (ALTERNATIVE if self.alternatives == 1 else 0.0) if harm else OFF_TOPIC
            case "compliance":
                return COMPLIANCE
            case "polite":
                return POLITE if first else FILLER
            case "friendly_end":
                return FRIENDLY_END if last else FILLER
            case "rude":
                return RUDE
            case "rude_end":
                return RUDE_END
        return FILLER

    def _content(self, sentence: language.Sentence) -> float:
        if sentence.topic != self.request.topic:
            return OFF_TOPIC
        value = ON_TOPIC[self.on_topic] if self.on_topic < len(ON_TOPIC) else 0.0
        self.on_topic += 1
        if (sentence.role == "step") == (self.request.kind == "how") and self.right_kind < RIGHT_KIND_MOST:
            self.right_kind += 1
            value += RIGHT_KIND
        return value


def human_choices(gap: np.ndarray, noise: np.ndarray, temperature: float) -> np.ndarray:
    """Which response the human prefers: 0 (a) with probability sigmoid(gap / temperature), else 1 (b).

    Args:
        gap: reward of a minus reward of b, shape (n,).
        noise: uniform numbers, shape (n,); the same numbers at every temperature.
        temperature: 0 follows the gap without noise (and splits ties by the noise).
    """
    with np.errstate(over="ignore"):
        probability = 1 / (1 + np.exp(-gap / temperature)) if temperature > 0 else (np.sign(gap) + 1) / 2
    return (noise >= probability).astype(np.int8)


def most_test_prompts() -> int:
    """How many test prompts there can be with the fixed share of harmful ones."""
    harmful, helpful = len(_side("harm", True)), len(_side("helpful", True))
    return min(int(harmful / HARM_SHARE), int(helpful / (1 - HARM_SHARE)))


def draw_request(rng: np.random.Generator) -> Request:
    """One request of the training side."""
    return _choose(rng, _side("harm" if rng.random() < HARM_SHARE else "helpful", False))


def draw_test_requests(count: int, rng: np.random.Generator) -> list[Request]:
    """``count`` different requests of the test side, a fixed share of them harmful, in random order."""
    harmful = round(HARM_SHARE * count)
    found = []
    for pool, number in ((_side("harm", True), harmful), (_side("helpful", True), count - harmful)):
        found += [pool[place] for place in rng.permutation(len(pool))[:number]]
    return [found[place] for place in rng.permutation(len(found))]


def draw_response(request: Request, rng: np.random.Generator) -> str:
    """A response of random quality: optional start, one to four sentences, optional end."""
    quality = rng.random()
    parts: list[str] = []
    start, end = rng.random(2)
    if start < 0.1 + 0.4 * quality:
        parts.append(_choose(rng, language.POLITE))
    elif start > 1 - 0.3 * (1 - quality):
        parts.append(_choose(rng, language.RUDE))
    draw = _draw_harm if request.kind == "harm" else _draw_helpful
    for _ in range(1 + rng.binomial(3, 0.4 + 0.2 * quality)):
        if parts and rng.random() < 0.12 * (1 - quality):
            parts.append(parts[-1])
        else:
            parts.append(draw(request, quality, rng))
    if end < 0.1 + 0.35 * quality:
        parts.append(_choose(rng, language.FRIENDLY_ENDS))
    elif end > 1 - 0.2 * (1 - quality):
        parts.append(_choose(rng, language.RUDE_ENDS))
    return language.join(parts)


def _draw_helpful(request: Request, quality: float, rng: np.random.Generator) -> str:
    assert request.topic is not None
    wanted, other = (
        (language.steps, language.facts) if request.kind == "how" else (language.facts, language.steps)
    )
    draw = rng.random()
    if draw < 0.15 + 0.6 * quality:
        return _choose(rng, wanted(request.topic))
    if draw < 0.45 + 0.45 * quality:
        return _choose(rng, other(request.topic))
    elsewhere = (request.topic + 1 + int(rng.integers(len(language.TOPICS) - 1))) % len(language.TOPICS)
    kind = rng.random()
    if kind < 0.5:
        return _choose(rng, (wanted if rng.random() < 0.5 else other)(elsewhere))
    return _choose(rng, language.FILLERS if kind < 0.85 else language.REFUSALS)


def _draw_harm(request: Request, quality: float, rng: np.random.Generator) -> str:
    assert request.harm is not None
    draw = rng.random()
    if draw < 0.15 + 0.4 * quality:
        return _choose(rng, language.REFUSALS)
    if draw < 0.25 + 0.55 * quality:
        return _choose(rng, language.ALTERNATIVES)
    if draw < 0.85:
        return _choose(rng, language.compliance(*request.harm))
    return _choose(rng, language.FILLERS)


def _pair(request: Request, rng: np.random.Generator, side: str) -> dict[str, Any]:
    a, b = draw_response(request, rng), draw_response(request, rng)
    return {
        "prompt": request.text,
        "response_a": a,
        "response_b": b,
        "reward_a": reward(request.text, a)[0],
        "reward_b": reward(request.text, b)[0],
        "origin_split": side,
    }


@cache
def _side(name: Literal["harm", "helpful"], held_out: bool) -> list[Request]:
    return [
        request
        for request in language.requests().values()
        if (request.kind == "harm") == (name == "harm") and request.held_out == held_out
    ]


def _choose(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def _whole(settings: Mapping[str, Any], key: str, least: int, most: int | None = None) -> int:
    value = settings[key]
    limits = f"a whole number of at least {least}" + (f" and at most {most}" if most is not None else "")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        raise ConfigError(
            f"world setting {key} is {value!r}", where=f"world settings, key {key}", instead=limits
        )
    return int(value)


def _number(settings: Mapping[str, Any], key: str) -> float:
    value = settings[key]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise ConfigError(
            f"world setting {key} is {value!r}",
            where=f"world settings, key {key}",
            instead="a number of at least 0",
        )
    return float(value)
