"""Is this image what its lock says? Run by the image's own Python at the end of a build and by ``apptainer test``.

    python check.py LOCK

Everything is imported for real: a package that is there but cannot be imported (a library of the system is missing, a
version does not fit) is found here and not in a job. Only the standard library is used beside what is checked.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import cache_from_source
from pathlib import Path

ENVIRONMENT = Path("/opt/env")
LOCKS = Path("/opt/image/envs")
MODEL = (
    "torch",
    "numpy",
    "pandas",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "safetensors",
    "tokenizers",
)
LIGHT = ("numpy", "pandas", "pyarrow", "matplotlib", "jinja2", "tokenizers", "huggingface_hub")
# The build of CUDA that each lock's torch must have been made against.
CUDA = {"ml-cuda121": "12.1", "ml-cpu": None}
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==(\S+)", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    """Package -> version of a lock."""
    return dict(PIN.findall((LOCKS / f"{lock}.txt").read_text()))


def versions_that_differ(lock: str) -> list[str]:
    """Every pin of the lock that is missing here or is here in another version."""
    found = []
    for name, wanted in pins(lock).items():
        try:
            here = version(name)
        except PackageNotFoundError:
            here = "missing"
        if here != wanted:
            found.append(f"{name}: {here}, the lock says {wanted}")
    return found


def imports_that_fail(names: tuple[str, ...]) -> list[str]:
    """Modules that cannot be imported, are taken from elsewhere, or have not been compiled."""
    found = []
    for name in names:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            found.append(f"import {name}: {type(error).__name__}: {error}")
            continue
        if not str(module.__file__).startswith(str(ENVIRONMENT)):
            found.append(f"{name} comes from {module.__file__}")
        elif not Path(cache_from_source(str(module.__file__))).exists():
            found.append(f"{name} is not byte-compiled, and the image is read-only")
    return found


def torch_that_differs(lock: str) -> list[str]:
    """What is wrong with torch and its neighbours for this lock."""
    import torch
    from transformers import AutoModelForCausalLM, Trainer  # noqa: F401

    found = []
    if torch.version.cuda != CUDA[lock]:
        found.append(f"torch is built for CUDA {torch.version.cuda}, not {CUDA[lock]}")
    if "sklearn" in sys.modules:
        found.append("scikit-learn is imported by transformers: seconds for each process")
    # A product that needs BLAS: the libraries of the locked wheels are found.
    if torch.ones(8, 8).mm(torch.ones(8, 8)).sum().item() != 512.0:
        found.append("torch cannot multiply")
    return found


def problems(lock: str) -> list[str]:
    """All that is wrong; an empty list for a good image."""
    found = [] if sys.version_info[:2] == (3, 11) else [f"Python is {sys.version.split()[0]}, not 3.11"]
    if Path(sys.prefix) != ENVIRONMENT:
        found.append(f"this Python is that of {sys.prefix}, not of {ENVIRONMENT}")
    if not os.access("/bin/bash", os.X_OK):
        found.append("there is no bash")
    found += versions_that_differ(lock)
    found += imports_that_fail(MODEL if lock in CUDA else LIGHT)
    if lock in CUDA and not found:
        found += torch_that_differs(lock)
    return found


def main() -> int:
    """Print the verdict; 1 if anything is wrong."""
    lock = sys.argv[1]
    os.environ.setdefault("MPLCONFIGDIR", tempfile.gettempdir())  # the home of a build is read-only
    found = problems(lock)
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    if not found:
        torch = f", torch {version('torch')}" if lock in CUDA else ""
        print(f"{lock}: {len(pins(lock))} packages as locked, Python {sys.version.split()[0]}{torch}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
