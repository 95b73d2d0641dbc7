"""Small words that paths and command lines are made of: cells of the grid, shares, runs, flags."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

MANIFEST = "manifest.json"


class Cell(Protocol):
    """What a rule's wildcards say of a cell of the grid: one data set, labelled share and seed."""

    data: str
    share: str
    seed: str


def flags(settings: Mapping[str, Any]) -> str:
    """``{"batch_size": 16, "beta": 0.1}`` -> ``--batch-size 16 --beta 0.1``, quoted for the shell.

    Lists become several words, mappings become JSON, True is the flag alone; None and False are left out.
    """
    words: list[str] = []
    for name, value in settings.items():
        if value is None or value is False:
            continue
        words.append("--" + name.replace("_", "-"))
        if value is True:
            continue
        if isinstance(value, list | tuple):
            words.extend(str(item) for item in value)
        elif isinstance(value, Mapping):
            words.append(json.dumps(value, sort_keys=True))
        elif isinstance(value, float):
            words.append(repr(value))
        else:
            words.append(str(value))
    return shlex.join(words)


class GridCell:
    """A cell that is no rule's wildcards."""

    def __init__(self, data: str, share: str, seed: str) -> None:
        self.data = data
        self.share = share
        self.seed = seed


def cell_path(cell: Cell) -> str:
    """``<data>/<share>/seed-<seed>``."""
    return f"{cell.data}/{cell.share}/seed-{cell.seed}"


def fraction(share: str) -> str:
    """``1-of-2`` -> ``1/2``."""
    return share.replace("-of-", "/")


def base_model(run: str) -> str:
    """The base model of a run: ``students/opt-1.3b/human/paper/dpo`` -> ``opt-1.3b``."""
    return run.split("/")[1]


def alternatives(names: Iterable[str]) -> str:
    """A regular expression of exactly these names; one that matches nothing for none."""
    listed = [name.replace(".", r"\.") for name in names]
    return "|".join(listed) if listed else "(?!)"


def has_gpu() -> bool:
    """Whether this machine shows an NVIDIA device; asks no library."""
    return os.path.exists("/proc/driver/nvidia/version") or os.path.exists("/dev/nvidia0")
