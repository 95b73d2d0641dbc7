"""The processes of a job, as ``accelerate launch`` starts them: each with its rank in the environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from w2s.artifact import Artifact, Draft, Parents

# Processes that share work come to its end at different times; one that has failed ends the others.
LONGEST_WAIT = timedelta(days=2)


def world() -> tuple[int, int]:
    """Rank of this process and number of processes, as the launcher set them; (0, 1) without one."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def draft_in_first(
    output: Path, spec: dict[str, Any], parents: Parents, script: str | Path
) -> Iterator[Draft | None]:
    """The artifact in the making, in the first process only: the others have nothing to write."""
    if world()[0] == 0:
        with Artifact.create(output, spec=spec, parents=parents, script=script) as made:
            yield made
    else:
        yield None


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within, processes can wait for each other (:func:`wait_for_all`); each computes on a GPU of its own.

    For stages that only read a model; the trainers have means of their own.
    """
    if world()[1] == 1:
        yield
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
    yield


def wait_for_all() -> None:
    """Wait until all processes have come here."""
    if world()[1] > 1:
        import torch

        torch.distributed.barrier()
