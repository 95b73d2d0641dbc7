"""GPUs of a workstation: who gets which, and when."""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from w2s import gpus
from w2s.errors import EnvironmentProblem

SCRIPTS = Path(gpus.__file__).parent.parent


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lock files of the test's own, two devices, no scheduler."""
    monkeypatch.setenv("W2S_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5e1f")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.02)
    return tmp_path / "locks"


def free() -> list[str]:
    """Devices that nobody holds now."""
    found = gpus._try(gpus.lock_folder(), 99, gpus.pool())
    gpus._free(found)
    return list(found)


def test_devices_are_held_within_the_block_only() -> None:
    with gpus.allocated(1) as first:
        assert first == ["2"] and os.environ["CUDA_VISIBLE_DEVICES"] == "2"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,GPU-5e1f"
    with pytest.raises(ZeroDivisionError), gpus.allocated(2) as both:
        assert both == ["2", "GPU-5e1f"] and os.environ["CUDA_VISIBLE_DEVICES"] == "2,GPU-5e1f"
        assert free() == []
        raise ZeroDivisionError
    assert free() == ["2", "GPU-5e1f"]


def test_the_environment_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    for name in ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    with gpus.allocated(2) as devices:
        assert devices == ["0", "1"]  # CUDA counts what it sees
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_none_needs_nothing(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with gpus.allocated(0) as devices:
        assert devices == [] and os.environ["CUDA_VISIBLE_DEVICES"] == "2,GPU-5e1f"
    assert not locks.exists()


@pytest.mark.parametrize(
    ("text", "devices"),
    [("0,1", ["0", "1"]), (" 1 , 0", ["1", "0"]), ("", []), ("-1", []), ("0,-1,1", ["0"]), ("1,1", ["1"])],
)
def test_visible_devices_are_read_as_cuda_does(
    monkeypatch: pytest.MonkeyPatch, text: str, devices: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    assert gpus.visible() == gpus.pool() == devices


def test_more_than_there_are_is_refused_at_once() -> None:
    with pytest.raises(EnvironmentProblem) as problem, gpus.allocated(3):
        pass
    assert "3 GPUs are needed and this machine has 2" in str(problem.value)
    assert "models.<name>.resources.train.gpus" in str(problem.value)


def test_on_slurm_the_scheduler_decides(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with gpus.allocated(2) as first, gpus.allocated(2) as second:
        assert first == second == ["2", "GPU-5e1f"]
    assert not locks.exists()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(EnvironmentProblem, match="2 GPUs are needed and the scheduler gave this job 1"):
        gpus.allocated(2).__enter__()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(EnvironmentProblem, match="the scheduler gave this job 0"):
        gpus.allocated(1).__enter__()


def test_all_users_can_take_the_locks(locks: Path) -> None:
    former = os.umask(0o077)
    try:
        with gpus.allocated(2):
            pass
    finally:
        os.umask(former)
    assert stat.S_IMODE(locks.stat().st_mode) == 0o1777
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in locks.iterdir()} == {
        "2.lock": 0o666,
        "GPU-5e1f.lock": 0o666,
    }


def test_a_link_in_the_place_of_a_lock_is_not_followed(locks: Path, tmp_path: Path) -> None:
    locks.mkdir()
    (locks / "2.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EnvironmentProblem, match="cannot be used"):
        gpus.allocated(1).__enter__()
    assert not (tmp_path / "elsewhere").exists()


HOLD = """
import sys
from w2s import gpus
with gpus.allocated(int(sys.argv[1])) as devices:
    print(*devices, flush=True)
    sys.stdin.readline()
"""


def start(count: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(count)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def devices_of(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def test_two_processes_get_different_devices_and_a_killed_one_frees_its_own() -> None:
    first, second = start(1), start(1)
    got = [devices_of(first), devices_of(second)]
    assert sorted(got) == [["2"], ["GPU-5e1f"]]
    third = start(1)
    time.sleep(0.3)
    first.send_signal(signal.SIGKILL)
    assert devices_of(third) == got[0]
    for process in (first, second, third):
        process.communicate("\n")


def test_who_waits_for_two_holds_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    got: list[list[str]] = []

    def take_both() -> None:
        with gpus._locked(2, ["2", "GPU-5e1f"]) as devices:
            got.append(devices)

    waiting = threading.Thread(target=take_both)
    with gpus._locked(1, ["2"]):
        waiting.start()
        time.sleep(0.3)
        assert got == []
        with gpus._locked(1, ["GPU-5e1f"]):
            time.sleep(0.1)
    waiting.join(10)
    assert got == [["2", "GPU-5e1f"]]
    assert caplog.text.count("waiting for 2 of the GPUs 2, GPU-5e1f") == 1


def test_many_jobs_come_to_an_end() -> None:
    processes = [start(1 + number % 2) for number in range(8)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
