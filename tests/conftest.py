"""Fixtures for all tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A shell's background job ignores Ctrl-C and so do its children: the tests that send it need it to work.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data beside the checkout, or a skip: the project does not need it."""
    folder = Path(os.environ.get("W2S_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            f"no real data at {folder}: set W2S_SHARED_DATA to a folder with hh-rlhf/ and opt-tokenizer/"
        )
    return folder


@pytest.fixture(scope="session")
def namespaces() -> None:
    """A kernel that gives namespaces, or a skip."""
    from w2s.isolation import ALONE

    if shutil.which(ALONE[0]) is None or subprocess.run([*ALONE, "true"], capture_output=True).returncode:
        pytest.skip("this kernel or container gives no namespaces")


@pytest.fixture
def run_stage() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a stage script as a user would: ``run_stage("filter_examples", "--output", path, ...)``."""

    def run(name: str, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, **settings)  # type: ignore[call-overload]

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: the demo then keeps one process busy while the other does the rest."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
