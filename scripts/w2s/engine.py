"""Snakemake's own plan, looked at from inside and not carried out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar
from unittest import mock

from w2s.errors import ConfigError

if TYPE_CHECKING:
    from snakemake.workflow import Workflow

T = TypeVar("T")


def with_plan(arguments: Sequence[str], look: Callable[[Workflow], T]) -> T:
    """What ``look`` finds in the plan of ``snakemake <arguments>``, which is drawn in this process and in this folder.

    Snakemake draws it as for a run, with its profiles and the same configuration, and then prints a graph; ``look`` takes
    the place of the printing. No lock is taken, so a run may go on meanwhile.

    Raises:
        ConfigError: there is no plan; Snakemake has said why.
    """
    from snakemake.cli import args_to_api, parse_args
    from snakemake.workflow import Workflow

    found: list[T] = []
    failed: list[Exception] = []

    def draw(workflow: Workflow) -> None:
        # As Workflow.printdag does, but for what is incomplete: a run would make that again.
        forceall = workflow.dag_settings.forceall
        workflow._prepare_dag(forceall=forceall, ignore_incomplete=False, lock_warn_only=True, nolock=True)
        workflow._build_dag()
        try:
            found.append(look(workflow))
        except Exception as error:  # Snakemake would print it as its own
            failed.append(error)

    for handler in logging.getLogger().handlers:  # of what Snakemake tells, errors only
        handler.setLevel(logging.WARNING)
    parser, args = parse_args([*arguments, "--dag", "--quiet", "all"])
    with mock.patch.object(Workflow, "printdag", draw):
        args_to_api(args, parser)
    if failed:
        raise failed[0]
    if not found:
        raise ConfigError(
            "Snakemake drew no plan, for the reason above",
            instead="the same --configfile as for the run, and targets that it has",
        )
    return found[0]
