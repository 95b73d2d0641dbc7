"""The locks: hashed throughout, free of addresses, in agreement with each other, one pair apart in torch only."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVS = ROOT / "envs"
# audit.txt is of an environment of its own, in which nothing of the workflow runs.
LOCKS = sorted(path.stem for path in ENVS.glob("*.txt"))
TOGETHER = [name for name in LOCKS if name != "audit"]
PIN = re.compile(r"([a-z0-9][a-z0-9-]*)==([^\s;]+)")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
# What may differ between the two builds of torch.
CUDA_ONLY = re.compile(r"torch|triton|nvidia-[a-z0-9-]+")


def pins(lock: str) -> dict[str, str]:
    """Package -> version and hashes of a lock; everything in it must be a pin with at least one hash."""
    found = {}
    for line in (ENVS / f"{lock}.txt").read_text().replace("\\\n", " ").splitlines():
        first, *hashes = line.split()
        pin = PIN.fullmatch(first)
        assert pin, f"{lock}.txt: not a pin: {line[:80]}"
        assert hashes and all(map(HASH.fullmatch, hashes)), f"{lock}.txt: not hashed: {line[:80]}"
        assert pin[1] not in found, f"{lock}.txt: {pin[1]} is pinned twice"
        found[pin[1]] = " ".join([pin[2], *sorted(hashes)])
    return found


def version(pin: str) -> str:
    return pin.split()[0]


def test_all_locks_are_there() -> None:
    assert LOCKS == ["audit", "dev", "light", "ml-cpu", "ml-cuda121", "workflow"]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_is_a_hashed_pin(lock: str) -> None:
    assert len(pins(lock)) > 10


@pytest.mark.parametrize("lock", LOCKS)
def test_no_address_or_path_is_in_a_lock(lock: str) -> None:
    text = (ENVS / f"{lock}.txt").read_text()
    assert not re.search(r"://|@ |/|find-links|index-url|^\s*#", text, re.MULTILINE)


def test_cpu_and_cuda_differ_in_torch_only() -> None:
    cpu, cuda = pins("ml-cpu"), pins("ml-cuda121")
    different = {name for name in cpu.keys() | cuda.keys() if cpu.get(name) != cuda.get(name)}
    assert {name for name in different if not CUDA_ONLY.fullmatch(name)} == set()
    assert "torch" in different
    assert version(cpu["torch"]).endswith("+cpu"), (
        "a bare version resolves to a CUDA build of several gigabytes"
    )
    assert [name for name in cpu if name.startswith(("nvidia-", "triton"))] == []


def test_the_cuda_lock_is_cuda_12_1() -> None:
    cuda = pins("ml-cuda121")
    for name in ("nvidia-cuda-runtime-cu12", "nvidia-cuda-nvrtc-cu12", "nvidia-nvjitlink-cu12"):
        assert version(cuda[name]).startswith("12.1."), name


def test_common_packages_have_one_version_in_the_workflow_s_locks() -> None:
    """They are installed into one environment on a laptop, and exchange files between containers on a cluster."""
    versions: dict[str, dict[str, list[str]]] = {}
    for lock in TOGETHER:
        for name, pin in pins(lock).items():
            if lock != "ml-cuda121" or not CUDA_ONLY.fullmatch(name):
                versions.setdefault(name, {}).setdefault(pin, []).append(lock)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_the_workflow_and_light_environments_have_no_model_library() -> None:
    for lock in ("workflow", "light"):
        heavy = {"torch", "transformers", "trl", "peft", "accelerate", "datasets"} & pins(lock).keys()
        assert not heavy, f"{lock}.txt holds {heavy}"


def test_scikit_learn_is_in_no_environment_that_trains() -> None:
    """transformers imports it where it is installed, which costs each process 3.6 s."""
    for lock in ("ml-cpu", "workflow", "light", "dev"):
        assert "scikit-learn" not in pins(lock)


def test_each_lock_meets_its_own_requirements() -> None:
    """An edited .in file without `make lock` is noticed, as far as exact pins tell."""
    for lock in LOCKS:
        wanted = requirements(ENVS / f"{lock}.in")
        locked = pins(lock)
        assert wanted
        for name, exact in wanted.items():
            assert name in locked, f"{lock}.in asks for {name}, {lock}.txt has none: make lock"
            assert exact is None or version(locked[name]) == exact, (
                f"{name} in {lock}.in and {lock}.txt: make lock"
            )


def requirements(path: Path) -> dict[str, str | None]:
    """Package -> exact version, or None where a range is given; included files are followed."""
    found: dict[str, str | None] = {}
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found |= requirements(path.parent / line[3:])
        elif line:
            name = re.split(r"[<>=!~ ]", line)[0].lower().replace("_", "-")
            found[name] = line.partition("==")[2] or None
    return found


def test_only_torch_s_own_index_is_named_in_the_project() -> None:
    """Package hosts are the user's business; the CPU wheel's index is the one that people cannot guess."""
    listing = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout: no list of the project's files")
    indexes = re.compile(r"(?:extra-index-url|index-url|find-links|TORCH_INDEX)\s*\??=?\s*(https?://\S+)")
    named = set()
    for name in listing.stdout.splitlines():
        if (ROOT / name).suffix in (
            ".py",
            ".sh",
            ".md",
            ".toml",
            ".yaml",
            ".in",
            ".txt",
            ".smk",
        ) or name == "Makefile":
            named |= set(indexes.findall((ROOT / name).read_text(encoding="utf-8", errors="replace")))
    assert {address.strip("`'\").,") for address in named} == {"https://download.pytorch.org/whl/cpu"}
