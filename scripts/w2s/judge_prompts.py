"""What a judge is asked and how its reply is read: versioned templates and strict parsers.

A template is a text in ``prompts/<name>.txt``. Its name ends in a version and its SHA-256 digest stands below, so that
a wording never changes under a name: stored replies and tables say which text was asked, and editing a file without a
new name is refused. The wordings are ours. The criteria of ``compare`` are those of paper A, appendix A.2; ``helpful``
and ``harmless`` label for a prompted language model as a teacher (paper A, section 3.3).

The texts to be judged stand between *fences*: lines that begin with a number made from the texts themselves. A text
therefore cannot contain its own fence, and none can pretend that the material has ended.

Parsers are strict. A reply that is not in the form that was asked for is malformed, with the reason; nothing is guessed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from w2s.errors import ConfigError, DataError, W2SError

FOLDER = Path(__file__).resolve().parents[2] / "prompts"
FIELDS = ("question", "first", "second")
LENGTH = "length"
CONTENT_FILTER = "content_filter"
REFUSAL = "refusal"
_PLACEHOLDER = re.compile(r"\{(fence|question|first|second)\}")
_SCORE = r"((?:10|[1-9])(?:\.[0-9]+)?)"
_SCORES = re.compile(rf"{_SCORE}[ \t]+{_SCORE}[ \t]*")
_MOST = 10.0


class MalformedReply(W2SError):
    """A reply is not in the form that the template asks for."""


@dataclass(frozen=True)
class Template:
    """A wording: its name with version, the form of its replies (a key of PARSERS) and the digest of its text."""

    name: str
    form: str
    sha256: str

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
    )
}


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


def fill(template: Template, question: str, first: str, second: str) -> str:
    """The prompt of a judge.

    Args:
        template: its wording.
        question: the dialogue that both texts answer.
        first, second: the answers, in the order in which they are shown. Blanks at the ends of texts are left out.

    Raises:
        DataError: a text contains the fence, which cannot happen by accident.
    """
    texts = dict(zip(FIELDS, (question.strip(), first.strip(), second.strip()), strict=True))
    fence = _fence(*texts.values())
    if any(fence in text for text in texts.values()):
        raise DataError(f"a text to be judged contains the mark {fence} that divides the prompt")
    values = texts | {"fence": fence}
    # All at once: a placeholder within a text is that text's own.
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template.text)


def read_back(prompt: str) -> tuple[Template, dict[str, str]] | None:
    """The template and the texts (FIELDS) that :func:`fill` made ``prompt`` from; None if it did not."""
    for template in TEMPLATES.values():
        match = _pattern(template).fullmatch(prompt)
        if match and match["fence"] == _fence(*(match[field] for field in FIELDS)):
            return template, {field: match[field] for field in FIELDS}
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


PARSERS: dict[str, Callable[[str, str], tuple[float, float] | int]] = {
    "scores": parse_scores,
    "choice": parse_choice,
}


def _content(text: str, finish_reason: str) -> str:
    if finish_reason == CONTENT_FILTER:
        raise MalformedReply("withheld by the endpoint's content filter")
    if finish_reason == REFUSAL:
        raise MalformedReply("the judge refused to answer")
    if not text.strip():
        raise MalformedReply("the reply is empty")
    return text


def _fence(question: str, first: str, second: str) -> str:
    lengths = f"{len(question)} {len(first)} {len(second)} "
    digest = hashlib.sha256((lengths + question + first + second).encode("utf-8", "surrogatepass"))
    return f"[{digest.hexdigest()[:16]}]"


@cache
def _read(template: Template) -> str:
    path = FOLDER / f"{template.name}.txt"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"the template cannot be read ({error.strerror})", where=path) from error
    found = hashlib.sha256(content).hexdigest()
    if found != template.sha256:
        raise DataError(
            f"the text of template {template.name} is not the one of this version",
            where=f"{path}, SHA-256 {found}",
            instead="the file as it was; a new wording is a new file with the next version in its name, "
            "entered in TEMPLATES (scripts/w2s/judge_prompts.py)",
        )
    return content.decode().rstrip("\n")


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
