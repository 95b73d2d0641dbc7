"""GPUs of a workstation: two jobs never share one.

Snakemake counts GPUs but does not say which one a job may use. Here each device has a lock file that all users of the
machine share, taken with ``flock``: the kernel frees it when its holder ends, however that happens. On SLURM the
scheduler has chosen already and nothing is locked.

The lock files lie in ``w2s-gpus`` in the folder for temporary files, or where ``W2S_GPU_LOCKS`` says: it must be one
local folder for all that use the machine's GPUs, also from within containers.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

from w2s.errors import EnvironmentProblem

VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICES = Path("/dev")
POLL_SECONDS = 0.5
CATALOGUE_KEY = "`models.<name>.resources.train.gpus` in the catalogue"
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def allocated(count: int) -> Iterator[list[str]]:
    """Have ``count`` GPUs for oneself; waits until so many are free.

    Within the block ``CUDA_VISIBLE_DEVICES`` names them. The process must live as long as the GPUs are used: the locks
    are its own. A job that needs many can wait long while others that need few come and go.

    Yields:
        Device ids as CUDA knows them; on SLURM all that the scheduler gave; none, and no change, for a count of 0.

    Raises:
        EnvironmentProblem: there are fewer than ``count``.
    """
    if count == 0:
        yield []
    elif os.environ.get("SLURM_JOB_ID"):
        yield _enough(count, visible() or [], "the scheduler gave this job")
    else:
        with _locked(count, _enough(count, pool(), "this machine has")) as devices, _exported(devices):
            yield devices


def pool() -> list[str]:
    """The machine's devices: those of ``CUDA_VISIBLE_DEVICES``, else all that the driver shows, counted from 0."""
    given = visible()
    if given is not None:
        return given
    found = [path for path in DEVICES.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    return [str(index) for index in range(len(found))]


def visible() -> list[str] | None:
    """Device ids in ``CUDA_VISIBLE_DEVICES``; as CUDA does, only those before a negative one. None if it is not set."""
    text = os.environ.get(VISIBLE)
    if text is None:
        return None
    found: list[str] = []
    for device in (word.strip() for word in text.split(",")):
        if not device or device.startswith("-"):
            break
        found.append(device)
    return list(dict.fromkeys(found))


def _enough(count: int, devices: list[str], owner: str) -> list[str]:
    if len(devices) >= count:
        return devices
    raise EnvironmentProblem(
        f"{count} GPUs are needed and {owner} {len(devices)}",
        where=f"{VISIBLE}={os.environ.get(VISIBLE, '(not set)')}",
        instead=f"at most {len(devices)} in {CATALOGUE_KEY}, or a machine with {count}",
    )


@contextlib.contextmanager
def _locked(count: int, devices: list[str]) -> Iterator[list[str]]:
    """Lock ``count`` of ``devices``. All or none are held while waiting, so that two jobs cannot block each other."""
    folder = lock_folder()
    waiting = False
    while True:
        locks = _try(folder, count, devices)
        if len(locks) == count:
            break
        _free(locks)
        if not waiting:
            waiting = True
            logger.info("waiting for %d of the GPUs %s: other jobs use them", count, ", ".join(devices))
        time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))
    try:
        yield list(locks)
    finally:
        _free(locks)


def _try(folder: Path, count: int, devices: list[str]) -> dict[str, int]:
    """Lock the first free devices, at most ``count``; device -> descriptor."""
    locks: dict[str, int] = {}
    for device in devices:
        if len(locks) == count:
            break
        descriptor = _open(folder / f"{re.sub(r'[^A-Za-z0-9.-]', '_', device)}.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locks[device] = descriptor
        except BlockingIOError:
            os.close(descriptor)
    return locks


def _free(locks: dict[str, int]) -> None:
    for descriptor in locks.values():
        os.close(descriptor)


def lock_folder() -> Path:
    """The folder of lock files, open to all users.

    Raises:
        EnvironmentProblem: it cannot be made.
    """
    import tempfile

    folder = Path(os.environ.get("W2S_GPU_LOCKS") or Path(tempfile.gettempdir()) / "w2s-gpus")
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            folder.chmod(0o1777)  # the mode of mkdir is cut by the umask
    except OSError as error:
        raise _unusable(folder, error) from error
    return folder


def _open(path: Path) -> int:
    """Open a lock file, made if needed and never removed: a lock on a removed file would lock nobody out.

    Opened without ``O_CREAT`` first: the kernel refuses that for a file of somebody else in a folder like this one.

    Raises:
        EnvironmentProblem: it can be neither read nor made.
    """
    try:
        while True:
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
                os.fchmod(descriptor, 0o666)
                return descriptor
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"the lock of a GPU cannot be used ({error.strerror})",
        where=path,
        instead="set W2S_GPU_LOCKS to a local folder that all users of this machine can write to",
    )


@contextlib.contextmanager
def _exported(devices: list[str]) -> Iterator[None]:
    """Name ``devices`` in the environment, which a child inherits."""
    former = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = ",".join(devices)
    try:
        yield
    finally:
        if former is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = former
