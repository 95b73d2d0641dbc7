"""The pre-loaded worker must be indistinguishable from a plain start, and must never be in the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
WORKER = SCRIPTS / "w2s" / "worker.py"
WORLD = json.dumps({"seed": 7, "pairs": 40, "test_prompts": 8, "temperature": 2.0})

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the worker needs Linux; elsewhere scripts start plainly"
)


class Setting:
    """An environment of its own: private socket folder, few libraries, server ends with the tests."""

    def __init__(self, folder: str, libraries: str) -> None:
        self.folder = Path(folder)
        clean = {
            name: value
            for name, value in os.environ.items()
            if name not in ("XDG_RUNTIME_DIR", "SLURM_JOB_ID")
        }
        self.environment = {
            **clean,
            "TMPDIR": folder,
            "OMP_NUM_THREADS": "1",
            "W2S_WORKER_LIBRARIES": libraries,
            "W2S_WORKER_OWNER": str(os.getpid()),
            "W2S_WORKER_IDLE": "60",
        }

    def script(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def command(self, script: Path, *arguments: object) -> list[str]:
        return [sys.executable, str(WORKER), "run", str(script), *map(str, arguments)]

    def run(self, script: Path, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
        settings = {"env": self.environment, "cwd": self.folder, "timeout": 120, **settings}
        return subprocess.run(self.command(script, *arguments), capture_output=True, text=True, **settings)  # type: ignore[call-overload]

    def plain(self, script: Path, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
        settings = {"env": self.environment, "cwd": self.folder, **settings}
        command = [sys.executable, str(script), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, **settings)  # type: ignore[call-overload]

    def start(self, script: Path, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(script, *arguments),
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def server(self, script: Path | None = None) -> int:
        """The server's process: the parent of a job."""
        script = script or self.script("parent.py", "import os; print(os.getppid())")
        return int(self.run(script).stdout)


@pytest.fixture(scope="module")
def light() -> Iterator[Setting]:
    """A server without any heavy library, shared by the tests of this file."""
    folder = tempfile.mkdtemp(prefix="w2s-", dir="/tmp")
    yield Setting(folder, "json")
    shutil.rmtree(folder)


@pytest.fixture
def fresh() -> Iterator[Setting]:
    """A setting whose server no other test uses."""
    folder = tempfile.mkdtemp(prefix="w2s-", dir="/tmp")
    yield Setting(folder, "json")
    shutil.rmtree(folder)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


REPORT = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ), "umask": os.umask(0),
    "path": sys.path, "name": __name__, "file": __file__, "input": sys.stdin.read(),
    "modules": sorted(name for name in sys.modules if name.split(".")[0] in ("w2s", "worker", "worker_server")),
    "cores": sorted(os.sched_getaffinity(0)),
}))
print("to stderr", file=sys.stderr)
"""


def test_a_script_sees_what_it_sees_in_a_plain_start(light: Setting) -> None:
    script = light.script("report.py", REPORT)
    there, here = (start(script, "a b", "--c=", "ü", input="typed in") for start in (light.run, light.plain))
    assert (there.returncode, there.stderr) == (0, "to stderr\n")
    seen = json.loads(there.stdout)
    assert seen == json.loads(here.stdout)
    assert seen["input"] == "typed in"
    assert seen["modules"] == [], "the server must not have loaded modules of this project"


def test_it_really_runs_in_a_fork_of_one_server(light: Setting) -> None:
    first, second = light.server(), light.server()
    assert first == second
    assert "worker_server" in Path(f"/proc/{first}/cmdline").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "import sys; print('out'); sys.exit(3)",
        "import sys; sys.exit('a message')",
        "import sys; sys.exit()",
        "def f():\n    raise ValueError('wrong')\nf()",
        "import atexit; atexit.register(print, 'at exit'); print('body')",
        "import threading, time; threading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()",
        "this is no Python",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "raise KeyboardInterrupt",
        "import os; os._exit(9)",
    ],
)
def test_output_and_exit_code_are_those_of_a_plain_start(light: Setting, text: str) -> None:
    script = light.script("ends.py", text)
    there, here = light.run(script), light.plain(script)
    assert (there.returncode, there.stdout) == (here.returncode, here.stdout)
    assert there.stderr == here.stderr, "no fallback, and no frames of the server in a traceback"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_script(light: Setting, number: signal.Signals) -> None:
    handling = "import signal, sys, time\n"
    handling += (
        f"signal.signal({int(number)}, lambda *_: sys.exit(7))\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    job = light.start(light.script("handles.py", handling))
    assert job.stdout is not None and job.stdout.readline() == "ready\n"
    job.send_signal(number)
    assert job.wait(timeout=20) == 7


def test_a_script_ended_by_a_signal_ends_the_client_by_the_same(light: Setting) -> None:
    job = light.start(light.script("waits.py", "import time\nprint('ready', flush=True)\ntime.sleep(60)\n"))
    assert job.stdout is not None and job.stdout.readline() == "ready\n"
    job.terminate()
    assert job.wait(timeout=20) == -signal.SIGTERM


def test_a_killed_client_takes_its_job_and_the_jobs_children_along(light: Setting) -> None:
    text = "import os, subprocess, time\nchild = subprocess.Popen(['sleep', '60'])\n"
    text += "print(os.getpid(), child.pid, flush=True)\ntime.sleep(60)\n"
    job = light.start(light.script("family.py", text))
    assert job.stdout is not None
    pids = [int(pid) for pid in job.stdout.readline().split()]
    assert len(pids) == 2 and all(map(alive, pids))
    job.kill()
    assert wait_until(lambda: not any(map(alive, pids)))
    assert light.run(light.script("after.py", "print('served')")).stdout == "served\n", "the server lives on"


def test_a_killed_server_ends_the_job_as_failed(fresh: Setting) -> None:
    text = "import os, time\nprint(os.getpid(), os.getppid(), flush=True)\ntime.sleep(60)\n"
    job = fresh.start(fresh.script("orphan.py", text))
    assert job.stdout is not None and job.stderr is not None
    child, server = (int(pid) for pid in job.stdout.readline().split())
    os.kill(server, signal.SIGKILL)
    assert job.wait(timeout=20) == -signal.SIGKILL
    assert "server has died" in job.stderr.read()
    assert wait_until(lambda: not alive(child)), (
        "nothing may go on writing after the job was reported as failed"
    )
    assert fresh.server() != server, "the stale socket is replaced"


def test_edited_code_is_fresh(light: Setting) -> None:
    helper = light.script("some_helper.py", "VALUE = 1\n")
    script = light.script("imports.py", "import some_helper; print('first', some_helper.VALUE)")
    assert light.run(script).stdout == "first 1\n"
    helper.write_text("VALUE = 20\n")
    script.write_text("import some_helper; print('second', some_helper.VALUE)")
    assert light.run(script).stdout == "second 20\n"


def test_jobs_run_side_by_side(light: Setting) -> None:
    light.server()
    meet = "import pathlib, sys, time\nmine, other = map(pathlib.Path, sys.argv[1:])\nmine.touch()\n"
    meet += (
        "end = time.monotonic() + 20\nwhile not other.exists() and time.monotonic() < end: time.sleep(0.02)\n"
    )
    meet += "sys.exit(0 if other.exists() else 1)\n"
    script = light.script("meet.py", meet)
    jobs = [light.start(script, light.folder / a, light.folder / b) for a, b in (("x", "y"), ("y", "x"))]
    assert [job.wait(timeout=30) for job in jobs] == [0, 0]


def test_many_clients_start_one_server(fresh: Setting) -> None:
    script = fresh.script("parent.py", "import os; print(os.getppid())")
    jobs = [fresh.start(script) for _ in range(6)]
    parents = {job.communicate(timeout=60)[0] for job in jobs}
    assert len(parents) == 1


def test_the_server_ends_when_idle(fresh: Setting) -> None:
    fresh.environment["W2S_WORKER_IDLE"] = "0.5"
    server = fresh.server()
    assert wait_until(lambda: not alive(server))
    assert not list(fresh.folder.glob("w2s-worker-*/*[0-9a-f]")), "no socket is left behind"


def test_the_server_ends_with_its_owner(fresh: Setting) -> None:
    owner = subprocess.Popen(["sleep", "60"])
    fresh.environment["W2S_WORKER_OWNER"] = str(owner.pid)
    server = fresh.server()
    assert alive(server)
    owner.kill()
    owner.wait()
    assert wait_until(lambda: not alive(server))


def test_another_environment_gets_another_server(light: Setting) -> None:
    server = light.server()
    light.environment["HF_HUB_CACHE"] = str(light.folder)
    try:
        assert light.server() != server, "libraries read it at import"
    finally:
        del light.environment["HF_HUB_CACHE"]
    light.environment["OMP_NUM_THREADS"] = "2"
    try:
        assert light.server() == server, "the number of threads is set in the child"
    finally:
        light.environment["OMP_NUM_THREADS"] = "1"


def test_threads_in_the_server_mean_a_plain_start(fresh: Setting) -> None:
    library = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    fresh.script("starts_a_thread.py", library)
    fresh.environment |= {"W2S_WORKER_LIBRARIES": "starts_a_thread", "PYTHONPATH": str(fresh.folder)}
    done = fresh.run(fresh.script("x.py", "import sys; print('done', sys.argv[1:])"), "a")
    assert (done.returncode, done.stdout) == (0, "done ['a']\n")
    assert done.stderr.count("\n") == 1 and "2 threads" in done.stderr and "directly" in done.stderr


def test_a_folder_open_to_others_is_not_used(fresh: Setting) -> None:
    folder = fresh.folder / f"w2s-worker-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o755)
    done = fresh.run(fresh.script("x.py", "print('done')"))
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "not a private folder" in done.stderr
    assert not list(folder.iterdir())


def test_a_server_that_never_takes_the_job_means_a_plain_start(fresh: Setting) -> None:
    """Something that accepts and hangs up sits at the socket's place."""
    parent = fresh.server()
    place = next(path for path in fresh.folder.glob("w2s-worker-*/*") if path.is_socket())
    os.kill(parent, signal.SIGKILL)
    place.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        job = fresh.start(fresh.script("x.py", "print('done')"))
        for _ in range(2):
            listener.accept()[0].close()
        out, err = job.communicate(timeout=30)
    assert (job.returncode, out) == (0, "done\n")
    assert "directly" in err


def test_on_slurm_scripts_start_plainly(fresh: Setting) -> None:
    fresh.environment["SLURM_JOB_ID"] = "1"
    done = fresh.run(fresh.script("x.py", "import sys; print(sys.orig_argv[1:])"), "a")
    assert done.stdout == f"['{fresh.folder}/x.py', 'a']\n" and done.stderr == ""
    assert not list(fresh.folder.glob("w2s-worker-*"))


TRAIN = """
import sys, torch, numpy, random, warnings
from safetensors.torch import save_file
print(torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), len(warnings.filters))
torch.manual_seed(3)
model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.Dropout(0.1), torch.nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for _ in range(20):
    loss = (model(torch.randn(64, 32)) ** 2).mean()
    optimizer.zero_grad(); loss.backward(); optimizer.step()
save_file(model.state_dict(), sys.argv[1])
print(repr(loss.item()))
"""
UNSEEDED = "import torch, numpy, random\nprint(torch.rand(1).item(), numpy.random.rand(), random.random())"


def test_same_bytes_as_a_plain_start() -> None:
    """A data stage of the workflow and a seeded training, both ways; unseeded draws differ from job to job."""
    with tempfile.TemporaryDirectory(prefix="w2s-", dir="/tmp") as name:
        both = Setting(name, "numpy,pandas,pyarrow.parquet,torch,safetensors.torch")
        train = both.script("train.py", TRAIN)
        for threads in ("1", "2"):
            both.environment["OMP_NUM_THREADS"] = threads
            there = both.run(train, both.folder / "there.safetensors")
            here = both.plain(train, both.folder / "here.safetensors")
            assert there.returncode == 0 and there.stderr == here.stderr
            assert there.stdout == here.stdout and there.stdout.startswith(threads)
            assert (both.folder / "there.safetensors").read_bytes() == (
                both.folder / "here.safetensors"
            ).read_bytes()
        stage = ["--kind", "world", "--world", WORLD, "--texts", 50, "--seed", 1, "--output"]
        for start, place in ((both.run, "there"), (both.plain, "here")):
            done = start(SCRIPTS / "build_corpus.py", *stage, both.folder / place / "manifest.json")
            assert done.returncode == 0, done.stderr
        for file in ("manifest.json", "corpus.parquet"):
            assert (both.folder / "there" / file).read_bytes() == (both.folder / "here" / file).read_bytes()
        unseeded = both.script("unseeded.py", UNSEEDED)
        first, second = (both.run(unseeded).stdout.split() for _ in range(2))
        assert len(first) == 3 and all(a != b for a, b in zip(first, second, strict=True))
