"""Early cutoff within one run: what reads the same content as before need not run.

Snakemake decides before its first job which jobs a run has: those whose own inputs, settings or sources changed, and all
that follow from them. If one of them makes the same bytes again, what follows would run all the same, and only the next
start would see that nothing had changed. Here the decision is taken anew for a job once all that it waits for has ended,
by the same questions that Snakemake asks at the start: are its outputs there and complete, are its settings, its software and
its set of inputs those of the record, and has each newer input the content of the record? If so it leaves the plan, and so on
down the graph. Nothing is queued, submitted or started for it.

Jobs that are submitted as a group stay together: all of them leave the plan, or none does.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from typing import Any

logger = logging.getLogger("snakemake.logging")
# What is used of Snakemake's graph beyond its public interface; another version may lack it.
NEEDED = ("_needrun", "_n_until_ready", "_ready_jobs", "_running", "_dependencies", "_group", "_len")


def cut_off_early(graph: Any) -> None:
    """Have Snakemake's graph of jobs drop those that turn out to be up to date while a run goes on.

    Args:
        graph: its class, ``snakemake.dag.DAG``. In a version that lacks what is needed all jobs run: cutoff then works at
            the next start.
    """
    finish = graph.finish

    @functools.wraps(finish)
    async def finish_and_cut_off(self: Any, job: Any, *args: Any, **settings: Any) -> Any:
        more = await finish(self, job, *args, **settings)
        if not _for_real(self.workflow) or not all(hasattr(self, name) for name in NEEDED):
            return more
        followers, dropped = await _drop(self, job if job.is_group() else [job])
        if dropped:
            logger.info(f"Early cutoff: {dropped} jobs need not run, what they read is as it was.")
        return self.update_ready(followers) or more

    graph.finish = finish_and_cut_off


def _for_real(workflow: Any) -> bool:
    """Whether jobs run, and this process is the one that plans them."""
    return workflow.is_main_process and not workflow.dryrun and not workflow.touch


async def _drop(graph: Any, ended: Iterable[Any]) -> tuple[set[Any], int]:
    """Drop what need not run below jobs that have ended.

    Returns:
        The jobs that wait for less than before, and how many were dropped.
    """
    queue = [job for one in ended for job in graph.depending[one]]
    freed: set[Any] = set()
    dropped = 0
    while queue:
        job = queue.pop()
        if not graph.needrun(job):
            continue
        submitted = graph._group.get(job, job)
        together = set(submitted) if submitted.is_group() else {job}
        if not _waits_for_nothing(graph, submitted, together) or await _any_must_run(graph, together):
            continue
        graph._needrun -= together
        graph._ready_jobs -= {submitted}
        graph._len -= len(together)
        freed -= together
        dropped += len(together)
        for one in together:
            graph._n_until_ready.pop(one, None)
        for follower in (follower for one in together for follower in graph.depending[one]):
            if graph.needrun(follower):
                graph._n_until_ready[follower] -= 1
                freed.add(follower)
                queue.append(follower)
    return freed, dropped


def _waits_for_nothing(graph: Any, submitted: Any, together: set[Any]) -> bool:
    """Whether jobs that are submitted together are still to be run, and all that they wait for has ended or been dropped."""
    return submitted not in graph._running and all(
        graph.needrun(job)
        and not graph.finished(job)
        and all(
            graph.noneedrun_finished(other) for other in graph._dependencies[job] if other not in together
        )
        for job in together
    )


async def _any_must_run(graph: Any, together: set[Any]) -> bool:
    for job in together:
        if await _must_run(graph, job):
            return True
    return False


async def _must_run(graph: Any, job: Any) -> bool:
    """Whether Snakemake would run the job if it were asked only now (its ``DAG.update_needrun``)."""
    records = graph.workflow.persistence
    if _is_forced(graph, job) or not job.output:
        return True
    if [file async for file in job.missing_output(job.output)] or await records.incomplete(job):
        return True
    if not records.has_metadata(job) or records.has_outdated_metadata(job):
        return True
    if (
        records.params_changed(job)
        or any(records.input_changed(job))
        or any(records.software_stack_changed(job))
    ):
        return True
    made = await job.output_mintime
    for file in job.input:
        if await file.is_newer(made) and not await _is_recorded(graph, job, file):
            return True
    return False


def _is_forced(graph: Any, job: Any) -> bool:
    """Whether the user asked for the job whatever its state."""
    by_rule = job.rule in graph.forcerules and job not in graph.omitforce
    return by_rule or not graph.forcefiles.isdisjoint(job.output)


async def _is_recorded(graph: Any, job: Any, file: Any) -> bool:
    """Whether an input has the content that the job's outputs were made from."""
    recorded = graph.workflow.persistence.input_checksums(job, file)
    return (
        len(recorded) == 1
        and None not in recorded
        and await file.is_same_checksum(recorded.pop(), graph.max_checksum_file_size)
    )
