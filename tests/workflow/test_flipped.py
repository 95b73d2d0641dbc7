"""One byte flipped anywhere in a finished run: `verify` names the file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from w2s.verification import CRATE, UNRECORDED, Verification

if TYPE_CHECKING:
    from conftest import FinishedRun


def everything(folder: Path) -> list[Path]:
    """All files of a run but those that `verify` does not look at."""
    found = []
    for root in ("results", "resources"):
        for here, folders, names in os.walk(folder / root):
            folders[:] = [name for name in folders if name not in UNRECORDED]
            found += [Path(here) / name for name in names]
    return sorted(path for path in found if path.name != CRATE)


@pytest.mark.prove
def test_a_flipped_byte_in_any_file_is_found_and_named(
    finished: FinishedRun, tmp_path: Path, record_property
) -> None:
    folder = tmp_path / "elsewhere"
    ignored = shutil.ignore_patterns(".snakemake", "logs")
    shutil.copytree(finished.workflow.folder, folder, ignore=ignored)
    roots = [folder / "results", folder / "resources"]
    assert not [problem for problem in Verification().problems(roots) if problem is not None]
    cases = 0
    for path in everything(folder):
        content = path.read_bytes()
        if not content:
            continue
        place = crc32(str(path.relative_to(folder)).encode()) % len(content)
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        found = [str(problem) for problem in Verification().problems([path]) if problem is not None]
        path.write_bytes(content)
        assert any(str(path) in problem for problem in found), (path, place, found)
        cases += 1
    record_property("cases", cases)
    assert cases > 300
