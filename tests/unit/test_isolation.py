"""Jobs without a network: nobody is reached, by any way that a job can start; those who must talk, can."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from judge_server import Server
from w2s import isolation
from w2s.deployment import shell_prefix
from w2s.errors import EnvironmentProblem
from w2s.fingerprint import digests

pytestmark = pytest.mark.usefixtures("namespaces")
ROOT = Path(__file__).resolve().parents[2]
# Tries to reach a server of this machine, an address of documentation, a name, and itself, and says which it could.
TRY = """
import os, socket
from w2s import cli

def arguments():
    parser = cli.StageParser("")
    parser.output("--output")
    return parser

def reached(name, attempt):
    try:
        attempt()
    except OSError as error:
        print(name, type(error).__name__)
    else:
        print(name, "reached")

def itself():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), 5).close()

if __name__ == "__main__":
    port = int(os.environ["PORT"])
    reached("host", lambda: socket.create_connection(("127.0.0.1", port), 5))
    reached("outside", lambda: socket.create_connection(("192.0.2.1", 80), 5))
    reached("name", lambda: socket.getaddrinfo("name.example", 80))
    reached("datagram", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 53)))
    reached("itself", itself)
    print("namespace", os.readlink("/proc/self/ns/net"), "user", os.getuid(), "parent", os.getppid())
"""
NOBODY = 65534


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A repository with the real worker and launcher, and stages that only try to reach somebody."""
    root = tmp_path / "repository"
    shutil.copytree(
        ROOT / "scripts" / "w2s", root / "scripts" / "w2s", ignore=shutil.ignore_patterns("__pycache__")
    )
    for script in ("fetch", "judge_votes", "stage"):
        (root / "scripts" / f"{script}.py").write_text(TRY)
    return root


@pytest.fixture
def said(base: Path) -> Callable[..., dict[str, str]]:
    """``said(command, launcher="plain")`` -> what a job of this shell command could reach."""

    def run(command: str, launcher: str = "plain", isolated: bool = True) -> dict[str, str]:
        prefix = shell_prefix(base, launcher, None, isolated=isolated)
        # Short: the worker's socket lies in it.
        with Server() as server, tempfile.TemporaryDirectory(prefix="w2s-") as short:
            environment = dict(os.environ) | {
                "PORT": server.url.split(":")[2].split("/")[0],
                "TMPDIR": short,
                "W2S_WORKER_LIBRARIES": "",
                "W2S_WORKER_IDLE": "5",
            }
            environment.pop("XDG_RUNTIME_DIR", None)
            environment.pop("SLURM_JOB_ID", None)
            done = subprocess.run(
                ["bash", "-c", prefix + command], capture_output=True, text=True, env=environment, cwd=base
            )
        assert done.returncode == 0, done.stderr
        assert "not available" not in done.stderr
        return dict(line.split(" ", 1) for line in done.stdout.splitlines())

    return run


ALONE = {"host": "ConnectionRefusedError", "outside": "OSError", "name": "gaierror", "datagram": "OSError"}
WAYS = {
    "a new process": ("plain", "python scripts/stage.py"),
    "the worker": ("worker", "python scripts/stage.py"),
    "the launcher": ("plain", "launch 1 0 single scripts/stage.py --output out/manifest.json"),
    "the launcher's worker": ("worker", "launch 1 0 single scripts/stage.py --output out/manifest.json"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_stage_reaches_nobody(way: str, said: Callable[..., dict[str, str]]) -> None:
    launcher, command = WAYS[way]
    found = said(command, launcher)
    # A loopback that is down has no route; one that is up has nobody behind the port.
    assert found["host"] in ("OSError", "ConnectionRefusedError")
    assert {name: found[name] for name in ("outside", "name", "datagram")} == {
        name: ALONE[name] for name in ("outside", "name", "datagram")
    }
    assert found["namespace"].split()[0] != os.readlink("/proc/self/ns/net")
    assert f"user {os.getuid()}" in found["namespace"]


@pytest.mark.parametrize("way", WAYS)
def test_without_the_setting_it_reaches_this_machine(way: str, said: Callable[..., dict[str, str]]) -> None:
    """So that the tests above can fail."""
    launcher, command = WAYS[way]
    found = said(command, launcher, isolated=False)
    assert found["host"] == "reached" and found["itself"] == "reached"


@pytest.mark.parametrize("launcher", ["plain", "worker"])
@pytest.mark.parametrize("script", ["fetch", "judge_votes"])
def test_who_must_talk_can(script: str, launcher: str, said: Callable[..., dict[str, str]]) -> None:
    """...also when an isolated job has started a server of the worker before."""
    both = said(f"python scripts/stage.py > isolated.log; python scripts/{script}.py", launcher)
    assert both["host"] == "reached"


def test_processes_of_one_job_find_each_other(said: Callable[..., dict[str, str]]) -> None:
    """Through the launcher there is a loopback, of this job alone."""
    assert said(WAYS["the launcher"][1])["itself"] == "reached"
    assert said(WAYS["a new process"][1])["itself"] == "OSError"


def test_two_jobs_of_one_worker_are_in_its_namespace(said: Callable[..., dict[str, str]], base: Path) -> None:
    last = said("python scripts/stage.py > first.log; python scripts/stage.py", "worker")
    first = dict(line.split(" ", 1) for line in (base / "first.log").read_text().splitlines())
    assert first["namespace"].split()[0] == last["namespace"].split()[0] != os.readlink("/proc/self/ns/net")
    assert first["namespace"].split()[-1] == last["namespace"].split()[-1], "not forked from one server"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_user_needs_no_right(tmp_path: Path) -> None:
    tell = "import os; print(os.getuid(), open('/proc/self/status').read().split('CapEff:')[1].split()[0])"
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    program = Path(isolation.__file__).read_text().replace("from w2s.errors import EnvironmentProblem\n", "")
    (tmp_path / "isolation.py").write_text(program)
    for path in (tmp_path, *tmp_path.parents):
        if path.is_relative_to(tempfile.gettempdir()) and path != Path(tempfile.gettempdir()):
            path.chmod(0o755)
    words = [*isolation.ALONE, "--keep-caps", python, str(tmp_path / "isolation.py"), python, "-c", tell]
    done = subprocess.run(words, capture_output=True, text=True, user=NOBODY, group=NOBODY, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(NOBODY), "0" * 16], "the rights in the namespace are given up"


def test_those_who_talk_are_those_who_import_what_talks() -> None:
    talking = {
        path.stem
        for path in (ROOT / "scripts").glob("*.py")
        if {"endpoints.py", "hub_cache.py"} & {Path(name).name for name in digests(path)}
    }
    assert talking == set(isolation.TALKING)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n", "not permitted"),
        ("#!/bin/sh\necho 'unshare: unrecognized option' >&2\nexit 1\n", "unrecognized option"),
        ("", "there is no unshare"),
    ],
    ids=["forbidden", "too old", "none"],
)
def test_where_it_cannot_be_the_start_is_refused(
    program: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program:
        (tmp_path / "unshare").write_text(program)
        (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match=said) as caught:
        isolation.check(in_containers=False)
    assert "runtime.isolate_network: false" in str(caught.value)


def test_in_containers_it_is_refused() -> None:
    with pytest.raises(EnvironmentProblem, match="containers"):
        isolation.check(in_containers=True)


def test_this_test_has_a_network_itself() -> None:
    """Of this machine, at least: else "nobody is reached" would say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), 5).close()
