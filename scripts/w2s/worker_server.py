"""The server of the pre-loaded worker (worker.py tells of it): imports third-party libraries, then forks jobs.

Started by a client as ``python worker_server.py SOCKET-DESCRIPTOR SOCKET-PATH``; it imports nothing of this project.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # this folder holds modules named as some of the standard library's
    del sys.path[0]

import atexit
import contextlib
import gc
import importlib
import json
import resource
import runpy
import select
import signal
import socket
import struct
import time
from typing import Any, NoReturn

# Module, and the lazily loaded names to fetch from it.
LIBRARIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("numpy", ()),
    ("pandas", ()),
    ("pyarrow.parquet", ()),
    ("tokenizers", ()),
    ("torch", ()),
    ("safetensors.torch", ()),
    ("transformers", ("AutoTokenizer", "AutoModelForCausalLM", "AutoModelForSequenceClassification")),
    ("transformers", ("GenerationConfig", "Trainer")),
    ("transformers.models.opt.modeling_opt", ()),
    ("datasets", ("Dataset",)),
    ("accelerate", ()),
    ("peft", ("LoraConfig", "PeftModel", "get_peft_model")),
    ("trl", ("SFTTrainer", "DPOTrainer", "RewardTrainer")),
)
IDLE_SECONDS = 60.0
RECEIVE_SECONDS = 10.0
LENGTH = struct.Struct("!I")


class Refused(Exception):
    """A request that is not served; nothing of it has been started."""


class Job:
    """A request as the forked child sees it."""

    def __init__(self, request: dict[str, Any], streams: list[int]) -> None:
        self.request = request
        self.streams = streams


class Server:
    """Forks jobs off this process until there is nothing left to do."""

    def __init__(self, listener: socket.socket, idle_seconds: float, owner: int | None) -> None:
        self.listener = listener
        self.idle_seconds = idle_seconds
        self.owner = owner
        self.running: dict[int, socket.socket] = {}

    def serve(self) -> Job | None:
        """Serve requests. Returns twice for each job: in the child with it, and once with None at the end."""
        owner_start = start_time(self.owner) if self.owner else None
        idle_since = time.monotonic()
        wakeup, wakeup_end = socket.socketpair()
        wakeup_end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup_end.fileno(), warn_on_full_buffer=False)
        while True:
            for source in select.select([self.listener, wakeup, *self.running.values()], [], [], 1.0)[0]:
                if source is self.listener:
                    job = self.accept()
                    if job is not None:
                        wakeup.close()
                        wakeup_end.close()
                        return job
                elif source is wakeup:
                    wakeup.recv(4096)
                else:
                    self.obey(source)
            self.reap()
            if self.running:
                idle_since = time.monotonic()
                continue
            orphaned = self.owner is not None and start_time(self.owner) != owner_start
            if orphaned or time.monotonic() - idle_since > self.idle_seconds:
                return None

    def accept(self) -> Job | None:
        """Take one request and fork; the job in the child, None in the server."""
        connection = self.listener.accept()[0]
        streams: list[int] = []
        try:
            connection.settimeout(RECEIVE_SECONDS)
            request, streams = receive(connection)
            if count_threads() != 1:
                raise Refused(f"its server has {count_threads()} threads, and a fork copies only one")
            pid = os.fork()
        except (Refused, OSError, ValueError) as error:
            with contextlib.suppress(OSError):
                send(connection, {"refused": str(error)})
            connection.close()
            close_all(streams)
            return None
        if pid == 0:
            self.become_child(connection)
            return Job(request, streams)
        close_all(streams)
        with contextlib.suppress(OSError):  # whoever is first: the child does it too
            os.setpgid(pid, pid)
        self.running[pid] = connection
        send(connection, {"started": pid})
        return None

    def become_child(self, connection: socket.socket) -> None:
        """Leave everything of the server's behind."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        die_with_parent()
        for other in [self.listener, connection, *self.running.values()]:
            other.close()

    def obey(self, connection: socket.socket) -> None:
        """Pass on the signals that a client sends; a client that has gone takes its job with it."""
        pid = next(pid for pid, other in self.running.items() if other is connection)
        try:
            numbers = list(connection.recv(64)) or [int(signal.SIGKILL)]
        except OSError:
            numbers = [int(signal.SIGKILL)]
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
        if signal.SIGKILL in numbers:
            os.waitpid(pid, 0)
            self.running.pop(pid).close()

    def reap(self) -> None:
        """Tell the clients of jobs that have ended."""
        for pid in list(self.running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                connection = self.running.pop(pid)
                send(connection, {"code": os.waitstatus_to_exitcode(status)})
                connection.close()


def serve(descriptor: int, place: str) -> Job | None:
    """Import the libraries, then serve; returns in each child with its job."""
    preload()
    gc.collect()
    gc.freeze()  # the collector then leaves the shared pages alone
    owner = os.environ.get("W2S_WORKER_OWNER", "")
    idle = float(os.environ.get("W2S_WORKER_IDLE", IDLE_SECONDS))
    with socket.socket(fileno=descriptor) as listener:
        job = Server(listener, idle, int(owner) if owner.isdigit() else None).serve()
        if job is None:
            # Before the socket closes: from then on they can be a successor's.
            for name in (place, f"{place}.log"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
    return job


def preload() -> None:
    """Import third-party libraries; one that is not installed or does not import is left to the scripts.

    ``W2S_WORKER_LIBRARIES`` (a comma-separated list) replaces the list.
    """
    listed = os.environ.get("W2S_WORKER_LIBRARIES")
    libraries = LIBRARIES if listed is None else tuple((name, ()) for name in listed.split(",") if name)
    for name, attributes in libraries:
        try:
            module = importlib.import_module(name)
            for attribute in attributes:
                getattr(module, attribute)
        except Exception as error:  # noqa: BLE001  (whatever it is, the script meets it again and reports it)
            print(f"{name} is not pre-loaded: {error}", file=sys.stderr, flush=True)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One request and the client's three standard streams.

    Raises:
        Refused: another user's, or an incomplete request.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    if struct.unpack("3i", credentials)[1] != os.getuid():
        raise Refused("another user's server")
    head, streams, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
    try:
        if len(head) != LENGTH.size or len(streams) != 3:
            raise Refused("the request is incomplete")
        body = bytearray()
        while len(body) < LENGTH.unpack(head)[0]:
            block = connection.recv(1 << 16)
            if not block:
                raise Refused("the request is incomplete")
            body += block
        return json.loads(body), streams
    except BaseException:
        close_all(streams)
        raise


def send(connection: socket.socket, reply: dict[str, Any]) -> None:
    """Send a reply, if its client is still there."""
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(reply).encode() + b"\n")


def close_all(descriptors: list[int]) -> None:
    """Close file descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


def count_threads() -> int:
    """Native threads of this process."""
    return len(os.listdir("/proc/self/task"))


def start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None if it has gone. Tells a re-used number apart."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            status = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if status[0] in "ZX" else status[19]


def die_with_parent() -> None:
    """Have the kernel kill this process when the server dies."""
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def work(job: Job) -> NoReturn:
    """Be the process that the client stands for, to its end."""
    take_over(job)
    code = execute(job.request["script"], job.request["arguments"])
    # The end of a process as far as anybody can see it. Taking a few thousand modules apart would cost half a second.
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)


def execute(script: str, arguments: list[str]) -> int:
    """Run a script as ``python script`` would; its exit code, negative for a signal."""
    sys.argv = [script, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.realpath(script)))
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        print(leaving.code, file=sys.stderr)
        return 1
    except BaseException as error:  # noqa: BLE001  (reported as the interpreter does)
        trace = error.__traceback__  # from the script's first frame on
        while trace is not None and trace.tb_frame.f_code.co_filename != script:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return -int(signal.SIGINT) if isinstance(error, KeyboardInterrupt) else 1
    return 0


def take_over(job: Job) -> None:
    """Put on the client's streams, signals, limits, folder and environment."""
    request = job.request
    for target, stream in enumerate(job.streams):
        os.dup2(stream, target)
    close_all([stream for stream in job.streams if stream > 2])
    for number in request["taken"]:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    os.umask(request["umask"])
    os.chdir(request["folder"])
    os.sched_setaffinity(0, request["cores"])
    for limit, values in request["limits"].items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(int(limit), tuple(values))
    os.environ.clear()
    os.environ.update(request["environment"])
    forget_the_server()


def forget_the_server() -> None:
    """Set anew what a process settles once and the fork has copied."""
    time.tzset()
    if "tempfile" in sys.modules:
        setattr(sys.modules["tempfile"], "tempdir", None)  # noqa: B010  (mypy knows no attributes here)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # else all jobs share one "random" state
    if "torch" in sys.modules:
        given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        sys.modules["torch"].set_num_threads(int(given) if given.isdigit() else len(os.sched_getaffinity(0)))
        sys.modules["torch"].default_generator.seed()


def main(descriptor: int, place: str) -> None:
    """Serve the socket; in each forked child, do its job."""
    job = serve(descriptor, place)
    if job is not None:
        work(job)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
