"""Artifacts that a test has edited, as if their stage had made them so: for what reads them, beyond their digests."""

from __future__ import annotations

import json
from pathlib import Path

from w2s.artifact import MANIFEST, RUN_RECORD, file_digest, files_digest, sealed, write_json


def remade(manifest: Path) -> Path:
    """Write the manifest anew for the files that lie beside it now."""
    paths = [path for path in sorted(manifest.parent.rglob("*")) if path.is_file()]
    files = {
        path.relative_to(manifest.parent).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_digest(path),
        }
        for path in paths
        if path.name not in (MANIFEST, RUN_RECORD)
    }
    record = json.loads(manifest.read_text(encoding="utf-8"))
    write_json(sealed(record | {"digest": files_digest(files), "files": files}), manifest)
    return manifest
