"""The whole chain of the demo without a network: stage by stage, and all of it at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_demo import prepare, run

# isort: split
from judge_server import KEY, Server
from w2s.artifact import verify
from w2s.isolation import ALONE

pytestmark = pytest.mark.usefixtures("namespaces")
# Put before the work of every script: nobody may be reached by who is isolated, and the judge by who asks.
PROBE = """
import os as _os, socket as _socket, sys as _sys

def _probe():
    name = _os.path.basename(_sys.argv[0])[:-3]
    found = []
    for address in [("127.0.0.1", int(_os.environ["PROBED_PORT"])), ("192.0.2.1", 80), ("name.example", 80)]:
        try:
            _socket.create_connection(address, 3).close()
            found.append(address[0])
        except OSError:
            pass
    with open(_os.environ["PROBED"], "a") as log:
        log.write(f"{name} {_os.readlink('/proc/self/ns/net')} {','.join(found) or 'nobody'}\\n")

_probe()
"""


def test_every_compute_stage_of_the_demo_is_alone(
    tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    """With runtime.isolate_network: each stage tries to reach this machine's judge, an address and a name first."""
    folder = prepare(tmp_path / "demo", isolated=True)
    for script in (folder / "scripts").glob("*.py"):
        text = script.read_text()
        head, marker, rest = text.partition('if __name__ == "__main__":\n')
        if marker:
            script.write_text(f"{head}{marker}    import probe\n\n{rest}")
    (folder / "scripts" / "probe.py").write_text(PROBE)
    with Server() as server:
        port = server.url.split(":")[2].split("/")[0]
        done = run(
            folder,
            OPENAI_BASE_URL=server.url,
            OPENAI_API_KEY=KEY,
            PROBED=str(folder / "probed.log"),
            PROBED_PORT=port,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        assert server.answered > 0
    lines = [line.split() for line in (folder / "probed.log").read_text().splitlines()]
    own = Path("/proc/self/ns/net").readlink().as_posix()
    talked = {(name, reached) for name, space, reached in lines if space == own}
    assert talked == {("judge_comparisons", "127.0.0.1")}
    alone = [(name, reached) for name, space, reached in lines if space != own]
    assert {reached for _, reached in alone} == {"nobody"}
    stages = {name for name, _ in alone}
    assert {
        "pretrain_model",
        "train_student_dpo",
        "score_responses",
        "generate",
        "summarise",
        "report",
    } <= stages
    assert (folder / "results" / "small" / "report.html").is_file()
    record_property("cases", len(alone))


def test_the_whole_chain_runs_where_there_is_no_network_at_all(
    tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    """Snakemake included, in a namespace without interfaces: the demo's own judge, which is no endpoint."""
    folder = prepare(tmp_path / "demo", isolated=False)
    overlay = (folder / "small.yaml").read_text()
    (folder / "small.yaml").write_text(
        overlay.replace("model: judge-2026-01-01,", "world: demo,").replace(", max_tokens: 64", "")
    )
    done = run(folder, before=ALONE)
    assert done.returncode == 0, done.stdout[-6000:]
    manifests = list((folder / "results").rglob("manifest.json"))
    for manifest in manifests:
        verify(manifest)
    assert (folder / "results" / "small" / "report.html").is_file()
    record_property("cases", len(manifests))


def test_a_machine_that_forbids_it_is_refused_before_any_job(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "demo", isolated=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "unshare").write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
    (tools / "unshare").chmod(0o755)
    path = f"{tools}:{Path(shutil.which('bash') or '/bin/bash').parent}:/usr/bin:/bin"
    done = run(folder, PATH=path)
    assert done.returncode != 0
    assert "nothing was started" in done.stdout and "runtime.isolate_network: false" in done.stdout
    assert not (folder / "results" / "small" / "corpora").exists() and "Traceback" not in done.stdout
