"""What early cutoff needs of Snakemake is there: tests/workflow/test_reruns.py shows what it does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

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
