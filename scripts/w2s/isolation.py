"""Jobs in a network namespace of their own, from which no address can be reached, not even this machine's.

A namespace of users comes with it, in which this user is the same as outside, so that no right is needed to make one
(util-linux's unshare; some kernels and containers forbid it). Files, GPUs and sockets in the file system are as before.

As a program, started in such a namespace with all its rights, it switches on the namespace's own loopback, by which the
processes of one job find each other, gives up the rights and becomes the command that it is given.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

if __name__ == "__main__":  # this folder holds modules named as some of the standard library's
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import ctypes
import fcntl
import socket
import struct
from collections.abc import Sequence

from w2s.errors import EnvironmentProblem

# The stages that talk to somebody: the hub, or endpoints of judges, writers and tuning.
TALKING = (
    *("fetch", "judge_comparisons", "judge_preferences", "judge_votes"),
    *("rate_answers", "request_answers", "request_tuning"),
)
ALONE = ("unshare", "--user", "--map-current-user", "--net")
KEY = "runtime.isolate_network"
# From linux/sockios.h, linux/if.h and linux/prctl.h.
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1
AMBIENT, CLEAR_ALL = 47, 4


def with_loopback(python: str) -> list[str]:
    """The beginning of a command whose processes may connect to each other."""
    return [*ALONE, "--keep-caps", python, os.path.abspath(__file__)]


def check(in_containers: bool) -> None:
    """Try it.

    Raises:
        EnvironmentProblem: jobs run in containers, there is no unshare, or the kernel forbids it.
    """
    if in_containers:
        raise EnvironmentProblem(
            "jobs in containers are not isolated by this workflow",
            where=KEY,
            instead=f"{KEY}: false, and a network of Apptainer's own where the site offers one",
        )
    if shutil.which(ALONE[0]) is None:
        raise EnvironmentProblem(
            "there is no unshare", where=KEY, instead=f"install util-linux 2.36 or newer, or {KEY}: false"
        )
    done = subprocess.run(
        [*with_loopback(sys.executable), "true"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EnvironmentProblem(
            f"this machine gives a job no network namespace of its own ({said})",
            where=KEY,
            instead=f"{KEY}: false; or have its administrator allow user namespaces (and not forbid them in a container)",
        )


def bring_up_loopback() -> None:
    """Switch on the interface lo of this namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, GET_FLAGS, request))[1]
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sH14x", b"lo", flags | UP))


def main(command: Sequence[str]) -> None:
    """Become the command, with a loopback and without rights in the namespace that a user would not have."""
    bring_up_loopback()
    if os.getuid() != 0:
        ctypes.CDLL(None).prctl(AMBIENT, CLEAR_ALL, 0, 0, 0)
    os.execvp(command[0], list(command))


if __name__ == "__main__":
    main(sys.argv[1:])
