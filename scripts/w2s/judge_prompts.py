"""What a judge is asked and how its reply is read: versioned templates and strict parsers.

A template is a text in ``prompts/<name>.txt``. Its name ends in a version and its SHA-256 digest stands below, so that
a wording never changes under a name: stored replies and tables say which text was asked, and editing a file without a
new name is refused. The wordings are ours. The criteria of ``compare`` are those of paper A, appendix A.2; ``helpful``
and ``harmless`` label for a prompted language model as a teacher (paper A, section 3.3). The ``rate-...`` ones grade a
single answer on the scales of paper B's judges.

The texts to be judged stand between *fences*: lines that begin with a number made from the texts themselves. A text
therefore cannot contain its own fence, and none can pretend that the material has ended.

Parsers are strict. A reply that is not in the form that was asked for is malformed, with the reason; nothing is guessed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from w2s.errors import ConfigError, DataError, W2SError
from w2s.wordings import read_pinned

FIELDS = ("question", "first", "second")
RATED = ("question", "answer")
MARKED = ("question", "reference", "answer")
LENGTH = "length"
CONTENT_FILTER = "content_filter"
REFUSAL = "refusal"
_PLACEHOLDER = re.compile(r"\{(fence|question|first|second|answer|reference)\}")
_SCORE = r"((?:10|[1-9])(?:\.[0-9]+)?)"
_SCORES = re.compile(rf"{_SCORE}[ \t]+{_SCORE}[ \t]*")
_MOST = 10.0
_RATING = re.compile(r"\[((?:0|[1-9][0-9]?)(?:\.[0-9]+)?)\]")
# Least and most of a rating, and whether there is anything between.
Scale = tuple[int, int]
BINARY: Scale = (0, 1)


class MalformedReply(W2SError):
    """A reply is not in the form that the template asks for."""


@dataclass(frozen=True)
class Template:
    """A wording.

    Attributes:
        name: with its version.
        form: of its replies, a key of PARSERS.
        sha256: digest of its text.
        fields: of the texts that are to be judged, in the order in which :func:`fill` takes them.
    """

    name: str
    form: str
    sha256: str
    fields: tuple[str, ...] = FIELDS

    @property
    def text(self) -> str:
        """The text with its placeholders.

        Raises:
            DataError: the file is missing, or its text is not the one of this version.
        """
        return _read(self)


TEMPLATES = {
    template.name: template
    for template in (
        Template("compare-1", "scores", "2f9894a3f907d86a05225b1ad06076a39ca71610fc4dd72ec2130fb12cc634f4"),
        Template("vote-1", "choice", "a1427bba11e110151104d602634c355377d44d43ad524756e106acf36c674175"),
        Template("helpful-1", "choice", "f61f6458d95b659f4b51ac295cbaf62161ac445461044e558e79c46c9ba68b4d"),
        Template("harmless-1", "choice", "56c6fb247d2be54449dc0baaea6916c2af30df85d38215a9e96f6cecf7437bfa"),
        Template(
            "rate-persona-1",
            "two of 1-10",
            "ad54c6cb25b344bf1446abcc98e455c6593697efce3115116d96d5f11479e46d",
            RATED,
        ),
        Template(
            "rate-explanation-1",
            "two of 0-10",
            "f5513065f4a0f9c2ba96fbc2be53c13d7a69d6002218cc6bec78d76155d0eb77",
            RATED,
        ),
        Template(
            "rate-bias-content-1",
            "0-10",
            "46eaf0bdcfe67f684bd8573711b0bad4da51fb55ee113e0eac30e0649a1ec604",
            RATED,
        ),
        Template(
            "rate-bias-style-1",
            "0 or 1",
            "60affd0b9f13048e65d487736bf1ba0c806e2c3a2cfc512dc449b779e336c2a6",
            RATED,
        ),
        Template(
            "rate-maths-1",
            "0 or 1",
            "f85904c6b7401e862ab7fffd6b329666a183dfba8653825034fd2131899a435b",
            MARKED,
        ),
    )
}
# What is asked in words of others (scripts/w2s/writer_prompts.py): messages as they are, replies as they are.
CONVERSATION = Template("conversation", "text", "", ())


def names(*kinds: str) -> list[str]:
    """Names of the templates of these kinds ("compare", "vote", ...), for a command line's choices."""
    return [name for name in TEMPLATES if name.rpartition("-")[0] in kinds]


def find(name: str) -> Template:
    """The template of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in TEMPLATES:
        raise ConfigError(f"no template {name!r}", instead=f"one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def fill(template: Template, *given: str) -> str:
    """The prompt of a judge.

    Args:
        template: its wording.
        given: the texts of its fields: the question or dialogue that is answered; the answers in the order in which
            they are shown, or the one answer, after the reference if there is one. Blanks at their ends are left out.

    Raises:
        DataError: a text contains the fence, which cannot happen by accident.
    """
    texts = dict(zip(template.fields, (text.strip() for text in given), strict=True))
    fence = _fence(*texts.values())
    if any(fence in text for text in texts.values()):
        raise DataError(f"a text to be judged contains the mark {fence} that divides the prompt")
    values = texts | {"fence": fence}
    # All at once: a placeholder within a text is that text's own.
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template.text)


def read_back(prompt: str) -> tuple[Template, dict[str, str]] | None:
    """The template and the texts of its fields that :func:`fill` made ``prompt`` from; None if it did not."""
    for template in TEMPLATES.values():
        match = _pattern(template).fullmatch(prompt)
        if match and match["fence"] == _fence(*(match[field] for field in template.fields)):
            return template, {field: match[field] for field in template.fields}
    return None


def parse_scores(text: str, finish_reason: str) -> tuple[float, float]:
    """The two scores (1 to 10) on the first line of a reply, in the order in which the answers were shown.

    Raises:
        MalformedReply: the first line is something else, or may have been cut off.
    """
    line, ended, _ = _content(text, finish_reason).lstrip().partition("\n")
    if finish_reason == LENGTH and not ended:
        raise MalformedReply("cut off at the token limit before the first line ended")
    found = _SCORES.fullmatch(line.rstrip("\r"))
    if found is None:
        raise MalformedReply("the first line is not two numbers from 1 to 10")
    first, second = float(found[1]), float(found[2])
    if max(first, second) > _MOST:
        raise MalformedReply("a score is above 10")
    return first, second


def parse_choice(text: str, finish_reason: str) -> int:
    """Which of the answers shown is preferred: 0 for the first, 1 for the second.

    Raises:
        MalformedReply: the reply is not just the digit 1 or 2, or was cut off.
    """
    content = _content(text, finish_reason).strip()
    if finish_reason == LENGTH:
        raise MalformedReply("cut off at the token limit")
    if content not in ("1", "2"):
        raise MalformedReply("the reply is not the digit 1 or 2 alone")
    return int(content) - 1


def parse_ratings(text: str, finish_reason: str, scales: tuple[Scale, ...]) -> tuple[float, ...]:
    """The ratings in square brackets on the last line of a reply, one of each scale, in their order.

    Numbers in brackets elsewhere are part of the reasons. Decimals are allowed except where a rating is 0 or 1.

    Raises:
        MalformedReply: the last line is something else, a rating is out of its scale, or the reply was cut off.
    """
    line = _content(text, finish_reason).rstrip().rpartition("\n")[2].strip()
    if finish_reason == LENGTH:
        raise MalformedReply("cut off at the token limit")
    found = [_RATING.fullmatch(word) for word in line.split(" ")]
    if len(found) != len(scales) or not all(found):
        raise MalformedReply(f"the last line is not {len(scales)} ratings in square brackets")
    ratings = tuple(float(match[1]) for match in found if match)
    for rating, scale in zip(ratings, scales, strict=True):
        if not scale[0] <= rating <= scale[1] or (scale == BINARY and rating not in BINARY):
            raise MalformedReply("a rating is out of its scale")
    return ratings


def parse_text(text: str, finish_reason: str) -> tuple[str, str]:
    """A reply as it is, and how it ended: "eos", "length" or "refused" (by the model or the endpoint's filter).

    Raises:
        MalformedReply: it ended otherwise, such as with the call of a tool.
    """
    ends = {"stop": "eos", LENGTH: LENGTH, CONTENT_FILTER: "refused", REFUSAL: "refused"}
    if finish_reason not in ends:
        raise MalformedReply("ended neither by itself nor at the token limit")
    finished = ends[finish_reason]
    return ("" if finished == "refused" else text.strip()), finished


PARSERS: dict[str, Callable[[str, str], Any]] = {
    "scores": parse_scores,
    "choice": parse_choice,
    "text": parse_text,
    "two of 1-10": partial(parse_ratings, scales=((1, 10), (1, 10))),
    "two of 0-10": partial(parse_ratings, scales=((0, 10), (0, 10))),
    "0-10": partial(parse_ratings, scales=((0, 10),)),
    "0 or 1": partial(parse_ratings, scales=(BINARY,)),
}


def _content(text: str, finish_reason: str) -> str:
    if finish_reason == CONTENT_FILTER:
        raise MalformedReply("withheld by the endpoint's content filter")
    if finish_reason == REFUSAL:
        raise MalformedReply("the judge refused to answer")
    if not text.strip():
        raise MalformedReply("the reply is empty")
    return text


def _fence(*texts: str) -> str:
    lengths = "".join(f"{len(text)} " for text in texts)
    digest = hashlib.sha256((lengths + "".join(texts)).encode("utf-8", "surrogatepass"))
    return f"[{digest.hexdigest()[:16]}]"


@cache
def _read(template: Template) -> str:
    text, _ = read_pinned(template.name, template.sha256, "scripts/w2s/judge_prompts.py")
    return text.rstrip("\n")


@cache
def _pattern(template: Template) -> re.Pattern[str]:
    """The template's text with a group for each placeholder; a fence after the first must repeat it."""
    seen: set[str] = set()
    parts = []
    for place, part in enumerate(_PLACEHOLDER.split(template.text)):
        if place % 2 == 0:
            parts.append(re.escape(part))
        elif part in seen:
            parts.append(f"(?P={part})")
        else:
            seen.add(part)
            parts.append(rf"(?P<{part}>\[[0-9a-f]{{16}}\])" if part == "fence" else f"(?P<{part}>.*?)")
    return re.compile("".join(parts), re.DOTALL)
