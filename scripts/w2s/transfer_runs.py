"""Names of answers and training sets of a transfer (paper B), taken apart in one place.

Everything on which an answer depends is a part of its own: task, questions, seed, weak labeller, refiner, kind of label,
base and fine-tuning of the student. Hence a student of one base can never be taken for one of another.

| kind | path below ``answers/{task}/{questions}/seed-{seed}/`` | who answers |
| --- | --- | --- |
| plain | ``plain/{writer}`` | a model as it is |
| weak | ``weak/{writer}`` | a weak model by the task's weak template |
| draft | ``draft/{writer}`` | the same, where it then corrupts its answers: those before |
| refined | ``weak-{weak}/refiner-{refiner}/{refinement}[/intents]`` | the refiner, shown weak answers or their intent |
| tuned | ``tuned/weak-{weak}/refiner-{refiner}/{refinement}/base-{base}/{fine_tuning}`` | a student |

What is made from answers repeats their path (``scores/b/answers/...``, ``rated/<judge>/answers/...``). Where no weak
labeller or no refiner takes part, its name is ``none`` in a path and empty here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

from w2s.artifact import MANIFEST
from w2s.errors import DataError

NONE = "none"
PLAIN, WEAK, DRAFT, REFINED, TUNED = KINDS = ("plain", "weak", "draft", "refined", "tuned")
ALONE = (PLAIN, WEAK, DRAFT)  # kinds whose path has nothing but a writer
ANSWERS, RECORDS = "answers", "records"
INTENTS = "intents"
FORMS = (
    ".../answers/<task>/<questions>/seed-<seed>/ and below it plain/<writer>, weak/<writer>, draft/<writer>, "
    "weak-<weak>/refiner-<refiner>/<refinement>[/intents] or "
    "tuned/weak-<weak>/refiner-<refiner>/<refinement>/base-<base>/<fine_tuning>"
)
RECORDS_FORM = ".../records/<task>/seed-<seed>/weak-<weak>/refiner-<refiner>/<refinement>"
_SEED = re.compile(r"seed-(\d+)")
# Parts that each kind has besides task, questions and seed; others are empty.
_PARTS = {
    **dict.fromkeys(ALONE, ("writer",)),
    REFINED: ("weak", "refiner", "refinement"),
    TUNED: ("weak", "refiner", "refinement", "base", "fine_tuning"),
}
_OPTIONAL = ("weak", "refiner")


@dataclass(frozen=True)
class AnswersName:
    """Whose answers to which questions; parts that its kind does not have are empty.

    Raises:
        DataError: a part that the kind needs is missing, or one that it does not have is given.
    """

    task: str
    questions: str
    seed: int
    kind: str
    writer: str = ""
    weak: str = ""
    refiner: str = ""
    refinement: str = ""
    base: str = ""
    fine_tuning: str = ""
    intents: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"unknown kind of answers {self.kind!r}", instead=f"one of {', '.join(KINDS)}")
        has = _PARTS[self.kind]
        for part in ("writer", *_PARTS[TUNED]):
            given = getattr(self, part)
            if given and part not in has:
                raise DataError(
                    f"{self.kind} answers have no {part.replace('_', '-')}, but {given!r} is given"
                )
            if not given and part in has and part not in _OPTIONAL:
                raise DataError(f"{self.kind} answers need a {part.replace('_', '-')}")
            if given == NONE:
                raise DataError(f"{NONE!r} is no name of a {part.replace('_', '-')}", instead="an empty text")
        if self.intents and self.kind != REFINED:
            raise DataError(f"{self.kind} answers have no intents")


@dataclass(frozen=True)
class RecordsName:
    """A student's training set; ``weak`` and ``refiner`` are empty where none takes part."""

    task: str
    seed: int
    weak: str
    refiner: str
    refinement: str


def path(name: AnswersName) -> str:
    """Where answers of this name lie below the results, without a trailing slash; inverse of :func:`parse_answers`."""
    if name.kind in ALONE:
        below = [name.kind, name.writer]
    else:
        below = [f"weak-{name.weak or NONE}", f"refiner-{name.refiner or NONE}", name.refinement]
        if name.kind == TUNED:
            below = [TUNED, *below, f"base-{name.base}", name.fine_tuning]
        below += [INTENTS] if name.intents else []
    return "/".join([ANSWERS, name.task, name.questions, f"seed-{name.seed}", *below])


def records_path(name: RecordsName) -> str:
    """Where a training set lies below the results; inverse of :func:`parse_records`."""
    below = [f"weak-{name.weak or NONE}", f"refiner-{name.refiner or NONE}", name.refinement]
    return "/".join([RECORDS, name.task, f"seed-{name.seed}", *below])


def parse_answers(manifest: PurePath | str) -> AnswersName:
    """Take apart the path of answers, or of what was made from them, with or without ``manifest.json`` at its end.

    Raises:
        DataError: the path does not have one of the forms; the message says which part is wrong.
    """
    task, questions, seed, below = _below(manifest, ANSWERS, 2, FORMS)
    if below[0] in ALONE:
        _check_length(below, 2, manifest, FORMS)
        return AnswersName(task, questions, seed, below[0], writer=below[1])
    if below[0] == TUNED:
        _check_length(below, 6, manifest, FORMS)
        weak, refiner = _labeller(below[1:3], manifest, FORMS)
        base = _after("base-", below[4], manifest, FORMS)
        return AnswersName(
            *(task, questions, seed, TUNED),
            **{"weak": weak, "refiner": refiner, "refinement": below[3], "base": base},
            fine_tuning=below[5],
        )
    intents = len(below) == 4 and below[3] == INTENTS
    _check_length(below, 4 if intents else 3, manifest, FORMS)
    weak, refiner = _labeller(below[:2], manifest, FORMS)
    return AnswersName(
        *(task, questions, seed, REFINED),
        **{"weak": weak, "refiner": refiner, "refinement": below[2]},
        intents=intents,
    )


def parse_records(manifest: PurePath | str) -> RecordsName:
    """Take apart the path of a training set.

    Raises:
        DataError: the path does not have the form.
    """
    task, seed, below = _below(manifest, RECORDS, 1, RECORDS_FORM)
    _check_length(below, 3, manifest, RECORDS_FORM)
    weak, refiner = _labeller(below[:2], manifest, RECORDS_FORM)
    return RecordsName(task, seed, weak, refiner, below[2])


def _below(manifest: PurePath | str, stage: str, names: int, form: str) -> tuple:
    """The names after the last folder ``stage`` that a seed follows, the seed, and the parts below the seed."""
    parts = PurePath(manifest).parts
    parts = parts[:-1] if parts and parts[-1] == MANIFEST else parts
    for start in reversed(range(len(parts) - names - 2)):
        seed = _SEED.fullmatch(parts[start + names + 1])
        if parts[start] == stage and seed:
            return (*parts[start + 1 : start + names + 1], int(seed[1]), parts[start + names + 2 :])
    raise _wrong(f"the path does not say which {stage} it is about", manifest, form)


def _check_length(below: tuple[str, ...], length: int, manifest: PurePath | str, form: str) -> None:
    if len(below) != length:
        raise _wrong(f"{'/'.join(below)!r} has {len(below)} parts, not {length}", manifest, form)


def _labeller(parts: tuple[str, ...], manifest: PurePath | str, form: str) -> tuple[str, str]:
    """Weak labeller and refiner, empty where the path says none."""
    names = [_after(*pair, manifest, form) for pair in zip(("weak-", "refiner-"), parts, strict=True)]
    weak, refiner = ("" if name == NONE else name for name in names)
    return weak, refiner


def _after(prefix: str, part: str, manifest: PurePath | str, form: str) -> str:
    if not part.startswith(prefix) or part == prefix:
        raise _wrong(f"{part!r} does not begin with {prefix!r} and a name", manifest, form)
    return part.removeprefix(prefix)


def _wrong(what: str, manifest: PurePath | str, form: str) -> DataError:
    return DataError(what, where=manifest, instead=form)
