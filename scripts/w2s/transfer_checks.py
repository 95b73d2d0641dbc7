"""Combinations in paper B's sections of the configuration that each key alone does not show."""

from __future__ import annotations

from collections.abc import Iterator

from w2s.schema import Config
from w2s.schema_transfer import Refinement, Task, Transfer

# (key path, what is wrong, what to write instead)
Complaint = tuple[list[object], str, str]
# Templates that a method needs beside the plain and the weak one.
NEEDS = {"icl": ("icl",), "infer": ("infer", "respond"), "improve": ("improve",)}


def transfer_complaints(config: Config) -> Iterator[Complaint]:
    """All that is wrong with refinements and tasks, and with the transfers that are to run."""
    for name, refinement in config.refinements.items():
        yield from _refinement(config, name, refinement)
    for name, task in config.tasks.items():
        yield from _task(config, name, task)
    for name in config.run:
        if name in config.transfers:
            yield from _transfer(config, name, config.transfers[name])


def _refinement(config: Config, name: str, entry: Refinement) -> Iterator[Complaint]:
    if name.split("-")[0] not in entry.role:
        what = (
            f"refinement {name!r} has method {entry.method!r}: tables and claims read its role from its name"
        )
        yield ["refinements", name], what, f"a name that begins with {' or '.join(entry.role)}"
    if entry.through and config.refinements[entry.through.refinement].method != "weak":
        what = "the student in the middle is taught with the weak model's own answers"
        yield ["refinements", name, "through", "refinement"], what, "a refinement of method weak"


def _task(config: Config, name: str, task: Task) -> Iterator[Complaint]:
    if name in config.questions:
        yield ["tasks", name], f"{name!r} is a set of questions too, and paths hold both", "another name"
    if task.train in task.tests:
        yield ["tasks", name, "tests"], f"{task.train!r} is what students are taught with", "other questions"
    for questions, test in task.tests.items():
        if "world" in test.metrics and not (task.world and task.style):
            what = "the metric world needs the task's keys world and style"
            yield ["tasks", name, "tests", questions, "metrics"], what, "add them, or leave the metric out"
        if "marker" in test.metrics and not task.marker:
            what = "the metric marker needs the task's key marker"
            yield ["tasks", name, "tests", questions, "metrics"], what, "add it, or leave the metric out"


def _transfer(config: Config, name: str, entry: Transfer) -> Iterator[Complaint]:
    templates = config.tasks[entry.task].templates
    for refinement in entry.refinements:
        method = config.refinements[refinement].method
        for template in NEEDS.get(method, ()):
            if getattr(templates, template) is None:
                what = f"refinement {refinement!r} needs the template {template} of task {entry.task!r}"
                yield ["transfers", name, "refinements"], what, f"tasks.{entry.task}.templates.{template}"
    yield from _tunings(config, name, entry)


def _tunings(config: Config, name: str, entry: Transfer) -> Iterator[Complaint]:
    """A base that is tuned where it cannot be: a model here by an API, or an endpoint's by TRL."""
    for base, fine_tuning, place in _tuned(config, name, entry):
        here = config.writers[base].model is not None
        needed = "sft" if here else "api"
        if getattr(config.fine_tunings[fine_tuning], needed) is None:
            what = (
                f"{base!r} is tuned {'here' if here else 'by its endpoint'}, which {fine_tuning!r} is not for"
            )
            yield place, what, f"a fine-tuning with the key {needed}"


def _tuned(config: Config, name: str, entry: Transfer) -> Iterator[tuple[str, str, list[object]]]:
    """(base, fine-tuning, where the latter stands) of all students of a transfer, those in the middle included."""
    for refinement in entry.refinements:
        settings = config.refinements[refinement]
        place: list[object] = ["transfers", name, "fine_tuning"]
        if settings.fine_tuning:
            place = ["refinements", refinement, "fine_tuning"]
        for student in entry.students:
            if not settings.at_test_time:
                yield student.base, settings.fine_tuning or entry.fine_tuning, place
        if settings.through:
            middle = settings.through
            yield middle.base, middle.fine_tuning, ["refinements", refinement, "through", "fine_tuning"]
