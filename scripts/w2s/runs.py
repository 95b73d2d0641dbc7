"""Names of runs and cells, taken apart in one place.

A *run* names a model that was made: ``models/<model>``, ``teachers/<teacher>/<recipe>/<step>`` or
``students/<student>/<feedback>/<recipe>/<step>``. A *cell* is one data set, labelled share and seed:
``<data>/<share>/seed-<seed>``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from w2s.errors import DataError

STEPS = ("sft", "dpo", "reward")
RUN_FORMS = (
    "models/<model>, teachers/<teacher>/<recipe>/<step> or students/<student>/<feedback>/<recipe>/<step>"
)


@dataclass(frozen=True)
class Run:
    """A run, taken apart. ``feedback``, ``recipe`` and ``step`` are empty where the run has none."""

    kind: str
    model: str
    feedback: str = ""
    recipe: str = ""
    step: str = ""

    @property
    def arm(self) -> str:
        """Its name in a table: ``untuned``, ``<feedback>[-sft]`` or, for teachers, ``teacher[-sft]``."""
        if self.kind == "models":
            return "untuned"
        name = self.feedback if self.kind == "students" else "teacher"
        return f"{name}-sft" if self.step == "sft" else name


@dataclass(frozen=True)
class CellName:
    """A cell of the grid and what lies below it in a path."""

    data: str
    share: str
    seed: int
    rest: tuple[str, ...]


def parse_run(run: str) -> Run:
    """Take a run's name apart.

    Raises:
        DataError: it has none of the three forms.
    """
    parts = run.split("/")
    forms = {"models": 2, "teachers": 4, "students": 5}
    if len(parts) != forms.get(parts[0]) or not all(parts):
        raise DataError(f"{run!r} is not the name of a run", instead=RUN_FORMS)
    kind, model, *rest = parts
    if kind == "models":
        return Run(kind, model)
    feedback, recipe, step = ["", *rest] if kind == "teachers" else rest
    if step not in STEPS:
        raise DataError(f"unknown step {step!r} in run {run!r}", instead=" or ".join(STEPS))
    return Run(kind, model, feedback, recipe, step)


def share_name(share: str) -> str:
    """A labelled share as paths and tables write it: ``1/2`` -> ``1-of-2``."""
    return share.replace("/", "-of-")


def parse_cell(manifest: Path, stage: str) -> CellName:
    """The cell that an artifact's path names: ``.../<stage>/<data>/<share>/seed-<seed>/.../manifest.json``.

    Raises:
        DataError: the path does not have that form.
    """
    parts = manifest.resolve().parent.parts
    if stage in parts:
        start = len(parts) - 1 - parts[::-1].index(stage)
        below = parts[start + 1 :]
        if len(below) >= 3 and below[2].startswith("seed-") and below[2][5:].isdigit():
            return CellName(below[0], below[1], int(below[2][5:]), below[3:])
    raise DataError(
        "the path does not say which cell the artifact belongs to",
        where=manifest,
        instead=f".../{stage}/<data>/<share>/seed-<seed>/.../manifest.json",
    )
