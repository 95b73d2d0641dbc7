"""Pre-loaded worker: starts a stage in a few milliseconds by forking a process that has the libraries loaded.

``python scripts/w2s/worker.py run scripts/train_student_dpo.py ARGUMENTS`` does what
``python scripts/train_student_dpo.py ARGUMENTS`` does, with the same files, output, exit code and signals, but does
not spend ten seconds importing torch, transformers and trl each time. It is off by default; ``runtime: {launcher:
worker}`` in a preset switches it on, for presets of many small jobs on one machine. The idea is that of Bazel's
persistent workers.

How it works. The *client* (this file, standard library only) sends its arguments, folder, environment, umask, limits
and its three standard streams over a Unix socket to a *server*, and starts one if there is none. The server has
imported third-party libraries, and nothing of this project, so that edited code is always fresh. It forks; the child
takes over what the client sent and runs the script as ``__main__``. A client that is killed takes its job with it.

A fork is safe only from a process with a single thread, so the server imports with all thread pools at one, counts
its threads before each fork and refuses if there are more. A variable that a library reads while it is imported
is part of the server's name, as are interpreter, ``sys.path`` and the state of its folders: another environment gets
another server. The server ends after a minute without work, or when the process ``W2S_WORKER_OWNER`` has gone.

Whatever goes wrong before the job starts, the client says so in one line and runs the script itself. On SLURM and on
systems other than Linux it always does. Known difference: numpy's BLAS keeps to one thread in a forked job.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # this folder holds modules named as some of the standard library's
    del sys.path[0]

import contextlib
import fcntl
import hashlib
import json
import resource
import signal
import socket
import stat
import struct

# The client's start is most of what a small job costs: nothing that imports much (pathlib, dataclasses, tempfile).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's allocator starts a thread at import
}
# Variables that the interpreter or a library reads once, at start or import (by prefix).
READ_AT_IMPORT = (
    "PYTHON LANG LC_ LD_ HOME XDG_CACHE_HOME MALLOC_ JE_ARROW_ ARROW_ KMP_ GOMP_ CUDA_ USE_ TORCH PYTORCH_ HF_"
    " HUGGINGFACE_ TRANSFORMERS_ ACCELERATE_ DATASETS_ PEFT_ TRL_ W2S_WORKER_"
)
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
LIMITS = ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE")
SERVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker_server.py")


class Unavailable(Exception):
    """The worker cannot take the job; nothing of it has been started."""


def run(script: str, arguments: list[str]) -> int:
    """Run a script through the server, or in place of this process if that fails; returns the exit code.

    Ends this process by the signal that ended the script, if one did.
    """
    if os.environ.get("SLURM_JOB_ID"):
        run_directly(script, arguments)
    try:
        if sys.platform != "linux":
            raise Unavailable("it needs Linux")
        outcome = delegate(script, arguments)
    except (Unavailable, OSError) as error:
        print(f"worker not available ({error}): running {script} directly", file=sys.stderr, flush=True)
        run_directly(script, arguments)
    if outcome >= 0:
        return outcome
    if -outcome != signal.SIGKILL:
        signal.signal(-outcome, signal.SIG_DFL)
    os.kill(os.getpid(), -outcome)
    return 128 - outcome


def run_directly(script: str, arguments: list[str]) -> NoReturn:
    """Become the plain ``python script arguments``."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, script, *arguments])


def delegate(script: str, arguments: list[str]) -> int:
    """Have the server run the script; returns the exit code, negative for a signal.

    Raises:
        Unavailable: the server refused or cannot be started.
    """
    # Until the job has started a signal simply ends this process, and the server then drops the job.
    ignored = [int(number) for number in FORWARDED if signal.getsignal(number) == signal.SIG_IGN]
    if signal.SIGINT not in ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    request = json.dumps(request_for(script, arguments, ignored)).encode()
    place = os.path.join(private_folder(), key())
    if len(os.fsencode(place)) > 100:  # the kernel allows 107
        raise Unavailable(f"the path of its socket is too long: {place}")
    for _ in range(2):  # a server may end between our connecting and its answer
        with connect(place) as connection:
            try:
                socket.send_fds(connection, [struct.pack("!I", len(request))], [0, 1, 2])
                connection.sendall(request)
                replies = connection.makefile()
                first = replies.readline()
            except (ConnectionError, BrokenPipeError):
                continue
            if first:
                return follow(connection, json.loads(first), replies, ignored)
    raise Unavailable("its server ended before it took the job")


def follow(connection: socket.socket, first: dict[str, Any], replies: Any, ignored: list[int]) -> int:
    """Wait for the end of a job, passing signals on to it."""
    if "refused" in first:
        raise Unavailable(first["refused"])

    def pass_on(number: int, _frame: object) -> None:
        with contextlib.suppress(OSError):
            connection.send(bytes([number]))

    for number in FORWARDED:
        if number not in ignored:
            signal.signal(number, pass_on)
    try:
        last = replies.readline()
    except ConnectionError:
        last = ""
    if not last:  # the server was killed, and its children die with it: as if this job had been
        print("the worker's server has died, and the job with it", file=sys.stderr, flush=True)
        return -int(signal.SIGKILL)
    return int(json.loads(last)["code"])


def request_for(script: str, arguments: list[str], ignored: list[int]) -> dict[str, Any]:
    """All that the script may see of the process that it runs in, but for the streams."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "script": script,
        "arguments": arguments,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "umask": umask,
        "limits": {getattr(resource, name): resource.getrlimit(getattr(resource, name)) for name in LIMITS},
        "cores": sorted(os.sched_getaffinity(0)),
        "ignored": ignored,
        "taken": [int(number) for number in FORWARDED if number not in ignored],
    }


def private_folder() -> str:
    """The folder of sockets, logs and locks: this user's, closed to all others.

    Raises:
        Unavailable: somebody else's folder is in its place.
    """
    candidates = [os.environ.get("XDG_RUNTIME_DIR", ""), os.environ.get("TMPDIR", ""), "/tmp"]
    base = next(path for path in candidates if path and os.access(path, os.W_OK))
    folder = os.path.join(base, f"w2s-worker-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, mode=0o700)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise Unavailable(f"{folder} is not a private folder of this user")
    return folder


def key() -> str:
    """Name of the server that fits this process: interpreter, libraries and what they read when imported."""
    folders = [(path, os.stat(path).st_mtime_ns) for path in sys.path if os.path.isdir(path)]
    prefixes = tuple(READ_AT_IMPORT.split())
    variables = sorted((name, value) for name, value in os.environ.items() if name.startswith(prefixes))
    own = [(path, os.stat(path).st_mtime_ns) for path in (os.path.abspath(__file__), SERVER)]
    identity = [sys.executable, sys.version, folders, variables, own]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def connect(place: str) -> socket.socket:
    """Connect to the server at a socket, starting it if there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(place)
        return connection
    except (FileNotFoundError, ConnectionRefusedError):
        pass
    with locked(f"{place}.lock"):
        try:
            connection.connect(place)  # somebody else was faster
        except (FileNotFoundError, ConnectionRefusedError):
            start_server(place)
            connection.connect(place)
    return connection


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold an exclusive lock on a file."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start_server(place: str) -> None:
    """Start a server on a new socket. Clients can connect at once and are served when the imports are done."""
    import subprocess

    with contextlib.suppress(FileNotFoundError):
        os.unlink(place)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, open(f"{place}.log", "w") as log:
        listener.bind(place)
        listener.listen(256)
        subprocess.Popen(
            [sys.executable, SERVER, str(listener.fileno()), place],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, **ONE_THREAD},
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )


def main(arguments: list[str]) -> int:
    """``run SCRIPT ARGUMENTS...``."""
    if len(arguments) < 2 or arguments[0] != "run":
        print("usage: worker.py run SCRIPT [ARGUMENTS...]", file=sys.stderr)
        return 2
    return run(arguments[1], arguments[2:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
