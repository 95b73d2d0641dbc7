"""What early cutoff needs of Snakemake is there: tests/workflow/test_reruns.py shows what it does.

Groups are made only for a scheduler: here by hand, and in tests/cluster/test_store.py by a real one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest
import snakemake.cli  # noqa: F401  (first: its modules import each other in circles)
from snakemake.dag import DAG
from w2s.cutoff import NEEDED, cut_off_early


def test_the_locked_snakemake_has_what_is_needed() -> None:
    graph = DAG(MagicMock(), rules=[])
    assert [name for name in NEEDED if not hasattr(graph, name)] == []


class Graph:
    """A graph of another version."""

    workflow = SimpleNamespace(is_main_process=True, dryrun=False, touch=False)

    async def finish(self, job: Any, update_checkpoint_dependencies: bool = True) -> str:
        return f"{job} {update_checkpoint_dependencies}"


def test_another_version_finishes_its_jobs_as_it_does() -> None:
    cut_off_early(Graph)
    assert asyncio.run(Graph().finish("job", update_checkpoint_dependencies=False)) == "job False"


class Job:
    """A job of Snakemake's graph, as far as its end and what follows are concerned."""

    is_checkpoint = False

    def __init__(self, name: str, group: str | None = None) -> None:
        self.name, self.group, self.output = name, group, [name]
        self.rule = MagicMock()
        self.input: list[str] = []

    def is_group(self) -> bool:
        return False

    async def missing_output(self, requested: list[str]) -> AsyncIterator[str]:
        for _ in ():
            yield ""

    @property
    async def output_mintime(self) -> float:
        return 0

    def has_unfinished_queue_input(self) -> bool:
        return False


class Group(frozenset[Job]):
    """Jobs that Snakemake submits together."""

    def is_group(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("must_run", "planned", "ready"),
    [
        (set(), set(), set()),
        ({"figure"}, {"table", "figure", "report"}, {"table", "figure"}),
        ({"report"}, {"report"}, {"report"}),
        ({"score"}, {"score", "table", "figure", "report"}, {"score"}),
    ],
)
def test_a_group_leaves_the_plan_as_a_whole_or_stays_as_a_whole(
    must_run: set[str], planned: set[str], ready: set[str]
) -> None:
    """``train``, which has ended, -> ``score`` -> the group of ``table`` -> ``figure``, -> ``report``, of both."""
    train, score, report = Job("train"), Job("score"), Job("report")
    table, figure = Job("table", "tables"), Job("figure", "tables")
    waits: dict[Job, list[Job]] = {
        train: [],
        score: [train],
        table: [score],
        figure: [table],
        report: [table, figure],
    }

    class Ours(DAG):
        """A class to patch."""

    cut_off_early(Ours)
    workflow = MagicMock(is_main_process=True, dryrun=False, touch=False)
    workflow.persistence = MagicMock(
        incomplete=AsyncMock(return_value=False),
        has_outdated_metadata=lambda job: False,
        params_changed=lambda job: job.name in must_run,
        input_changed=lambda job: [],
        software_stack_changed=lambda job: [],
    )
    graph: Any = Ours(workflow, rules=[])
    graph._dependencies = {job: dict.fromkeys(others) for job, others in waits.items()}
    graph.depending = defaultdict(dict)
    for job, others in waits.items():
        for other in others:
            graph.depending[other][job] = None
    graph._needrun, graph._running, graph._len = set(waits), {train}, len(waits)
    graph._n_until_ready = defaultdict(int, {job: len(others) for job, others in waits.items()})
    graph._group = dict.fromkeys((table, figure), Group((table, figure)))
    graph._reason = defaultdict(MagicMock)
    asyncio.run(graph.finish(train, update_checkpoint_dependencies=False))
    assert {job.name for job in graph.needrun_jobs()} == planned
    assert graph._len == 1 + len(planned)
    assert {job.name for one in graph.ready_jobs for job in (one if one.is_group() else [one])} == ready
