"""Fifty times SIGKILL to everything at once, anywhere in the chain, and the same command again: nothing is lost.

The first kills are aimed: a process stops itself just before a certain step (moments/sitecustomize.py), or the judge
holds a reply back, and is killed there. The others come at random. Whenever the chain comes to its end, all it made is
compared with an uninterrupted run, byte for byte, the judge's account is checked, and it begins anew.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Chain, verdict
from judge_server import Handler, Server
from w2s.judge_store import FAILED, REPLY, UNCLEAR, Store

KILLS = int(os.environ.get("W2S_PROVE_KILLS", "50"))
SEED = 20240916
# Kills at random: most of them up to so many seconds after a job has begun, some so soon that Snakemake still plans.
SECONDS_OF_WORK, SECONDS_OF_PLANNING, SHARE_IN_PLANNING = 8.0, 4.0, 0.15
PATIENCE = 600.0
STATE = r"\.state/\w+/"
SHARD = rf"{STATE}\.\w{{64}}\.parquet\.\d+\.partial\.parquet"


@dataclass(frozen=True)
class Moment:
    """Where a run is stopped: in whose midst, before which event ("": the judge holds it back), at which match of it."""

    what: str
    event: str
    count: int = 1


MOMENTS = (
    Moment("fetch", r"^shutil\.copyfile \S+rows\.jsonl "),
    Moment("manifest", r"^os\.rename \S+/examples/\.rows\.\w+\.partial/\.manifest\.json\."),
    Moment("swap", r"^os\.rename \S+/filtered/\.rows\.\w+\.partial \S+/filtered/rows "),
    Moment(
        "checkpoint marker, pre-training", rf"^os\.rename \S+demo-s{STATE}checkpoint-\d+/\.complete\.json", 3
    ),
    Moment(
        "checkpoint, teacher SFT",
        rf"^open \S+/teachers/\S+/sft{STATE}checkpoint-\d+/trainer_state\.json w",
        2,
    ),
    Moment("removal of an old checkpoint", r"^os\.remove (optimizer\.pt|scheduler\.pt|rng_state\.pth) "),
    Moment("scoring shard", rf"^os\.rename \S+/scores/\S+{SHARD}", 3),
    Moment(
        "checkpoint marker, teacher DPO", rf"^os\.rename \S+/dpo{STATE}checkpoint-\d+/\.complete\.json", 2
    ),
    Moment(
        "checkpoint marker, student SFT", rf"^os\.rename \S+/students/\S+/sft{STATE}\S+/\.complete\.json", 2
    ),
    Moment(
        "checkpoint, student DPO", rf"^open \S+/students/\S+/dpo{STATE}checkpoint-\d+/interval\.json w", 2
    ),
    Moment("checkpoint, reward model", rf"^open \S+/demo-gold{STATE}checkpoint-\d+/trainer_state\.json w", 2),
    Moment("generation shard", rf"^os\.rename \S+/generations/\S+{SHARD}", 2),
    Moment("gold shard", rf"^os\.rename \S+/gold/\S+{SHARD}", 2),
    Moment("the store of replies is made", r"^os\.link \S+endpoint\.sqlite"),
    Moment("request", ""),
    Moment("reply", ""),
    Moment("figure", r"^os\.rename \S+/figures/\.a_figure_2a\.png\.\d+\."),
    Moment("report", r"^os\.rename \S+\.report\.html\."),
)
# Of a swap's two renames the first is done: neither the former artifact is in its place nor the new one.
RENAMES = Moment("between the renames of a swap", r"^os\.rename \S+/tables/\.\w+\.\w+\.partial ")
AGAIN = ("--forcerun", "summarise")
# The same work would be recognised and not done again.
COMPUTE = {"W2S_REUSE": "no"}


class Endpoint(Server):
    """A judge that counts what it answered, and can hold a request or its reply back for ever."""

    def __init__(self) -> None:
        super().__init__(verdict)
        self.answers: Counter[str] = Counter()
        self.held = threading.Event()
        self._hold, self._after = "", 0

    def reply(self, method: str, path: str, content: bytes) -> tuple[int, dict[str, Any]]:
        """Answer and count: from here on it is paid."""
        with self.lock:
            self.answers[json.dumps(json.loads(content), sort_keys=True)] += 1
        return super().reply(method, path, content)

    def hold(self, what: str, after: int) -> None:
        """Hold back the request or the reply that comes after so many; "" for none."""
        with self.lock:
            self.held.clear()
            self._hold, self._after = what, after

    def fault(self, method: str, path: str) -> Callable[[Handler], None] | None:
        """Called for each request, under the lock."""
        self._after -= 1
        if not self._hold or self._after >= 0:
            return None
        what = self._hold

        def keep(handler: Handler) -> None:
            if what == "reply":
                handler.done()
            self.held.set()
            time.sleep(1)
            handler.close_connection = True

        return keep


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        yield server


class Strikes:
    """The chain under fire."""

    def __init__(self, chain: Chain, endpoint: Endpoint, folder: Path) -> None:
        self.chain = chain
        self.endpoint = endpoint
        self.folder = folder
        self.runs = 0
        self.random = random.Random(SEED)

    def run(self, aimed: Sequence[Moment], *arguments: str, **more: str) -> tuple[str, str] | None:
        """Start the chain and kill it at the first moment of ``aimed`` that comes, or at random if there are none.

        Returns:
            Which moment it was and what was half done; None if the chain came to its end.
        """
        self.runs += 1
        hit, log = self.folder / f"hit.{self.runs}", self.folder / f"log.{self.runs}"
        events = [(moment.what, moment.event, moment.count) for moment in aimed if moment.event]
        held = [moment.what for moment in aimed if not moment.event]
        self.endpoint.hold(held[0] if held else "", self.random.randrange(1, 4))
        due = (lambda: hit.exists() or self.endpoint.held.is_set()) if aimed else self.at_random()
        watched = {"W2S_PROVE_HIT": str(hit), "W2S_PROVE_MOMENTS": json.dumps(events), **more}
        process = self.chain.start(log, *arguments, **watched)
        began = time.monotonic()
        while process.poll() is None and not due():
            assert time.monotonic() - began < PATIENCE, log.read_text()[-6000:]
            time.sleep(0.02)
        ended = process.poll()
        self.chain.kill(process)
        half_done = self.half_done()
        if ended is not None:
            assert ended == 0, log.read_text()[-6000:]
            return None
        if hit.exists():
            return hit.read_text(), half_done
        return held[0] if self.endpoint.held.is_set() else "at random", half_done

    def at_random(self) -> Callable[[], bool]:
        """A function that says when the time has come."""
        planning = self.random.random() < SHARE_IN_PLANNING
        after = self.random.uniform(0, SECONDS_OF_PLANNING if planning else SECONDS_OF_WORK)
        before = self.chain.leftovers()
        began = time.monotonic() if planning else None

        def due() -> bool:
            nonlocal began
            if began is None and self.chain.leftovers() != before:
                began = time.monotonic()
            return began is not None and time.monotonic() - began >= after

        return due

    def finish(self, *arguments: str, **more: str) -> None:
        """Let the chain come to its end."""
        self.endpoint.hold("", 0)
        done = self.chain.snakemake("--quiet", "rules", *arguments, **more)
        assert done.returncode == 0, done.stdout[-6000:]

    def half_done(self) -> str:
        """What is there, and what is half done, for people."""
        names = [name.split("/")[-1] for name in self.chain.leftovers()]
        kinds = Counter(name.rpartition(".")[2] for name in names)
        done = len(list(self.chain.results.rglob("manifest.json")))
        return f"{done} artifacts, half done: {', '.join(f'{n} {kind}' for kind, n in kinds.items()) or 'nothing'}"

    def check(self, finished: Chain) -> int:
        """Compare a chain that came to its end with one that was not interrupted; returns requests that were lost."""
        expected, got = finished.outcome(), self.chain.outcome()
        assert sorted(got) == sorted(expected)
        assert [name for name in got if got[name] != expected[name]] == []
        assert self.chain.leftovers() == []
        manifests = [name for name in got if name.endswith("manifest.json")]
        verify = [sys.executable, "scripts/verify.py", *manifests]
        done = subprocess.run(verify, cwd=self.chain.folder, capture_output=True, text=True)
        assert done.returncode == 0, done
        assert re.search(rf"^{len(manifests)} artifacts.* verified, 0 problems", done.stdout, re.MULTILINE), (
            done
        )
        return self.check_account()

    def check_account(self) -> int:
        """No reply was asked for twice, but for those of which the store itself says that they were lost."""
        with Store(self.chain.folder / "resources/replies/endpoint.sqlite") as store:
            replies, lost = store.count(REPLY), store.lost().requests
            assert store.count(FAILED) == store.count(UNCLEAR) == 0
        assert replies == len(self.endpoint.answers) > 0
        assert self.endpoint.answers.total() - replies <= lost
        return lost

    def begin_anew(self) -> None:
        """Remove all that was made."""
        self.endpoint.answers.clear()
        for name in ("results", "resources"):
            shutil.rmtree(self.chain.folder / name)


def test_fifty_kills_leave_no_trace(
    finished: Chain,
    endpoint: Endpoint,
    data: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    strikes = Strikes(Chain.make(tmp_path / "repository", data, endpoint), endpoint, tmp_path)
    aimed, kills, laps = list(MOMENTS), 0, 0

    def killed(where: tuple[str, str]) -> None:
        nonlocal kills
        kills += 1
        print(f"kill {kills}: {where[0]}; {where[1]}", flush=True)
        unlocked = strikes.chain.snakemake("--unlock")
        assert unlocked.returncode == 0, unlocked.stdout

    def ended() -> None:
        nonlocal laps
        lost = strikes.check(finished)
        laps += 1
        print(f"lap {laps} is whole; requests lost: {lost}", flush=True)
        assert laps > 1 or lost >= 2, "the kills at a request and at a reply lose one each"

    while kills < KILLS:
        where = strikes.run(aimed)
        if where is not None:
            killed(where)
            aimed = [moment for moment in aimed if moment.what != where[0]]
            continue
        ended()
        if laps == 1:
            assert not aimed, f"not reached: {[moment.what for moment in aimed]}"
            # All is there, so that what is made again replaces something.
            where = strikes.run([RENAMES], *AGAIN, **COMPUTE)
            assert where is not None and any(
                path.suffix == ".former" for path in strikes.chain.results.glob("tables/.*")
            )
            killed(where)
            strikes.finish(*AGAIN, **COMPUTE)
        else:
            strikes.begin_anew()
    strikes.finish()
    ended()
    assert "Nothing to be done" in strikes.chain.snakemake("-n").stdout
    record_property("cases", kills)
