"""What writers are asked: versioned templates of conversations, and how they are filled in. Paper B, Algorithms 1 to 3.

A writer is a model that answers questions: a weak labeller, a refiner, a student. A template is a text in
``prompts/<name>.txt``, whose name ends in a version and whose SHA-256 digest stands below, so that a wording never
changes under a name. The wordings are ours. A template has up to three sections, each under a line with its name:

- ``[system]``: the system message; without it, or where nothing is left of it, the conversation has none;
- ``[user]``: the user's message;
- ``[example]``: what is written for each example that is shown, with the example's own question and answer.

Placeholders are ``{question}``, ``{answer}`` (the weak one), ``{intent}`` and ``{examples}``: the examples with a blank
line between them, line breaks within a question or an answer deleted, as in the paper. ``{examples}`` must be a paragraph
of its own, so that no example can run into what follows it. A placeholder within a text that is inserted is that text's
own. What a template must and may hold depends on the *method* that it is for (METHODS).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from w2s.errors import ConfigError, DataError
from w2s.wordings import read_pinned

SECTIONS = ("system", "user", "example")
# What each method inserts, and so what its templates hold: no more, no less.
METHODS = {
    "plain": frozenset({"question"}),
    "icl": frozenset({"question", "examples"}),
    "infer": frozenset({"examples"}),
    "respond": frozenset({"question", "intent"}),
    "improve": frozenset({"question", "answer"}),
}
_HEADING = re.compile(r"^\[(\w+)\][ \t]*$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_OWN_PARAGRAPH = re.compile(r"(?:\A|\n\n)\{examples\}(?:\n\n|\Z)")

Message = dict[str, str]


@dataclass(frozen=True)
class Template:
    """A wording: its name with version, and the digest of its text."""

    name: str
    sha256: str

    @property
    def sections(self) -> dict[str, str]:
        """Section name -> its text with placeholders, line breaks at the ends left out.

        Raises:
            DataError: the file is missing, is not the one of this version, or is no template.
        """
        return _read(self)

    @property
    def placeholders(self) -> frozenset[str]:
        """What must be given to :func:`fill`."""
        return frozenset(
            name for key in ("system", "user") for name in _PLACEHOLDER.findall(self.sections.get(key, ""))
        )


TEMPLATES = {
    template.name: template
    for template in (
        Template("plain-1", "fa4bbf08a55287349bb1b73cf05d9853a776c369825483541a6702e3f224614c"),
        Template("plain-maths-1", "72b63c10ba5d06e57a8b4bf8804f15865e39b44b623bcab27c0db3c46601dda5"),
        Template("weak-pirate-1", "88007ba4879d8a634627518628c4d87451ff37cde84168cc9d7a72310c8de5ab"),
        Template("weak-analogy-1", "3e482fb6e621cb2f0435375a0ea0b35e5ddf23743b1424fd0b42e2a9cd55d67e"),
        Template("icl-1", "568f95c20bf27735323652f30da05ad751da9ddbe7b9c996ff1b7819fbc9131e"),
        Template("icl-maths-1", "a3b089acb7dca042eb8533fc8a4fb5a28faf9a26b20ad6fe2e76a97cf224ccb6"),
        Template("infer-style-1", "bc77e7345f8f000e2eb24d8b769b042b9e8c26df1b8a4bf53450f3c55f3244de"),
        Template("infer-technique-1", "50378f697e827fcd5485747700392dfa04e9d6c0f1e8c0760780f65b557b839a"),
        Template("respond-style-1", "21448e6ac09231c8858c282ff36792175635025d5c4bf076b7c2dc81981599df"),
        Template("respond-technique-1", "dccd3873cdef2bc85398bb912d16fdfd320f1fb5bb1494ebac3560d424cd44a8"),
        Template("improve-1", "cccd82137cb6c02af6d12879c795fdb80a51507e18c4feddff9b74f6aab92472"),
        Template("science-questions-1", "e574894a1f829d2f94fdbef14ce381f4a972cf8bf8795798a7fc20ba7a4e41c6"),
        Template("biography-1", "62e1930e6198e1ddca96d46b7b5f552846fe46800cb71bd5075d017fe60ed063"),
        Template("corrupt-1", "36a33fc581b23b5fff8b0c8223660d19b351d48a6286c6e46675b3955d936704"),
        Template("concept-plain-1", "da5439c51e14790edae5f45b139acb7c05f52f8078b6e2895f0a82094d1fe79d"),
        Template("concept-icl-1", "568f95c20bf27735323652f30da05ad751da9ddbe7b9c996ff1b7819fbc9131e"),
        Template("concept-infer-1", "178cf6fb3e01129c7421bc1cd1e13c3472e5bef9c33be0d287dbcf78c8446684"),
        Template("concept-respond-1", "f170e742701fc27015d06e124c10ccdf363a0be6c3a55eb851572ef6a681db91"),
        Template("concept-improve-1", "4e98d0e70f79c0c5af3307c1235689fb7f6e62fee5265482b5dc2590e2d40ad6"),
    )
}


def find(name: str, method: str) -> Template:
    """The template of that name, to be used for that method (a key of METHODS).

    Raises:
        ConfigError: there is none, or it lacks what the method inserts, or wants what the method has not.
    """
    if name not in TEMPLATES:
        raise ConfigError(f"no template {name!r}", instead=f"one of {', '.join(TEMPLATES)}")
    template = TEMPLATES[name]
    if template.placeholders != METHODS[method]:
        raise ConfigError(
            f"template {name!r} does not serve the method {method!r}: it {_differences(template, METHODS[method])}",
            instead=f"a template with {_braced(METHODS[method])}",
        )
    return template


def fill(
    template: Template,
    *,
    question: str | None = None,
    examples: Sequence[tuple[str, str]] | None = None,
    answer: str | None = None,
    intent: str | None = None,
) -> list[Message]:
    """The conversation up to the place where the writer answers.

    Args:
        template: its wording.
        question: what is asked.
        examples: (question, answer) of each example, in the order in which they are shown.
        answer: the answer to be improved.
        intent: the sentence or name that says how to answer.
        Blanks at the ends of all these texts are left out.

    Returns:
        Messages with "role" (system, user) and "content".

    Raises:
        ConfigError: what is given is not just what the template holds.
    """
    texts = {"question": question, "answer": answer, "intent": intent}
    values = {name: text.strip() for name, text in texts.items() if text is not None}
    if examples is not None:
        shape = template.sections.get("example", "")
        values["examples"] = "\n\n".join(_example(shape, *pair) for pair in examples)
    if values.keys() != template.placeholders:
        raise ConfigError(
            f"template {template.name!r} {_differences(template, frozenset(values))}",
            instead=_braced(template.placeholders),
        )
    contents = {role: _insert(template.sections.get(role, ""), values) for role in ("system", "user")}
    return [{"role": role, "content": text} for role, text in contents.items() if text or role == "user"]


def as_text(messages: Sequence[Message]) -> str:
    """Messages as the JSON text that tables hold."""
    return json.dumps(messages, ensure_ascii=False)


def _example(shape: str, question: str, answer: str) -> str:
    return _insert(shape, {"question": _one_line(question), "answer": _one_line(answer)})


def _one_line(text: str) -> str:
    return "".join(text.strip().splitlines())


def _insert(text: str, values: dict[str, str]) -> str:
    # All at once: a placeholder within a value is that value's own.
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def _differences(template: Template, given: frozenset[str]) -> str:
    lacking, wanting = given - template.placeholders, template.placeholders - given
    return " and ".join(
        [f"has no place for {_braced(lacking)}"] * bool(lacking)
        + [f"needs {_braced(wanting)}"] * bool(wanting)
    )


def _braced(names: frozenset[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))


@cache
def _read(template: Template) -> dict[str, str]:
    return parse(*read_pinned(template.name, template.sha256, "scripts/w2s/writer_prompts.py"))


def parse(text: str, where: object) -> dict[str, str]:
    """The sections of a template's text.

    Raises:
        DataError: a section is unknown, occurs twice or is missing; a placeholder is unknown or stands where it cannot be
            filled in; an example could run into its surroundings.
    """
    before, *parts = _HEADING.split(text)
    names, bodies = parts[::2], [body.strip("\n") for body in parts[1::2]]
    sections = dict(zip(names, bodies, strict=True))
    asked = [sections.get("system", ""), sections.get("user", "")]
    found = {name for body in asked for name in _PLACEHOLDER.findall(body)}
    within = set(_PLACEHOLDER.findall(sections.get("example", "")))
    shows = "examples" in found
    problems = {
        "there is text before the first section": before.strip(),
        "a section occurs twice": len(sections) < len(names),
        f"a section is none of {', '.join(SECTIONS)}": set(sections) - set(SECTIONS),
        "there is no [user] section": "user" not in sections,
        "a placeholder is unknown": found - {"question", "answer", "intent", "examples"},
        "{examples} and an [example] section need each other": shows != ("example" in sections),
        "an [example] holds {question} and {answer}, nothing else": shows
        and within != {"question", "answer"},
        "{examples} is not a paragraph of its own": any(
            "{examples}" in _OWN_PARAGRAPH.sub("", body) for body in asked
        ),
    }
    wrong = [problem for problem, is_so in problems.items() if is_so]
    if wrong:
        raise DataError(f"not a template: {wrong[0]}", where=where)
    return sections
