"""Stops the process at one of several moments, so that a test can kill it just there. For PYTHONPATH of a run under test.

``W2S_PROVE_MOMENTS`` is a JSON list of (what, pattern, count). A pattern is one of what Python's audit hooks tell: the
event's name and its arguments, such as ``os.rename results/.../.manifest.json.17.partial.json ...``. At the count-th match
the process writes what it is into the file ``W2S_PROVE_HIT`` and waits to be killed, before the event has happened.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
import time

WATCHED = ("open", "os.rename", "os.link", "os.remove", "shutil.rmtree", "shutil.copyfile")
seen: dict[str, int] = {}


@functools.lru_cache(1)
def moments(listed: str) -> list[tuple[str, re.Pattern[str], int]]:
    """What to wait for; a forked job has its own environment."""
    return [(what, re.compile(pattern), count) for what, pattern, count in json.loads(listed)]


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Called before each audited event."""
    if event not in WATCHED:
        return
    text = " ".join([event, *map(str, arguments)])
    for what, pattern, count in moments(os.environ.get("W2S_PROVE_MOMENTS", "[]")):
        if pattern.search(text):
            seen[what] = seen.get(what, 0) + 1
            if seen[what] == count:
                with contextlib.suppress(FileExistsError), open(os.environ["W2S_PROVE_HIT"], "x") as stream:
                    stream.write(what)
                time.sleep(3600)


if "W2S_PROVE_HIT" in os.environ:
    sys.addaudithook(watch)
