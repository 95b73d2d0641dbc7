"""Raw data files for tests of the data stages, and the stages run on them in process."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def transcript(prompt: str, response: str) -> str:
    """A dialogue of one turn, as HH-RLHF writes it."""
    return f"\n\nHuman: {prompt}\n\nAssistant: {response}"


def hh_rows(count: int, start: int = 0) -> list[dict[str, str]]:
    """Rows of different prompts and responses."""
    return [
        {
            "chosen": transcript(f"question {n}", f"good {n}"),
            "rejected": transcript(f"question {n}", f"bad {n}"),
        }
        for n in range(start, start + count)
    ]


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Write JSON lines, gzipped if the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def entry(path: str, subset: str = "base", split: str = "train", source: str = "raw") -> dict[str, str]:
    """An entry of --files."""
    return {"source": source, "path": path, "subset": subset, "split": split}


def fetch_local(root: Path, origin: Path, names: Sequence[str], source: str = "raw") -> Path:
    """Fetch files of a local folder; returns the source's manifest."""
    import fetch

    manifest = root / "resources" / source / "manifest.json"
    fetch.main(["--output", str(manifest), "--kind", "local", "--folder", str(origin), "--files", *names])
    return manifest


def import_rows(
    root: Path, rows: Sequence[Any], *options: str, adapter: str = "hh", split: str = "train"
) -> Path:
    """Write rows to one file, fetch and import it; returns the examples' manifest."""
    import import_examples

    write_jsonl(root / "raw" / "rows.jsonl", rows)
    source = fetch_local(root, root / "raw", ["rows.jsonl"])
    files = json.dumps([entry("rows.jsonl", split=split)])
    manifest = root / "examples" / "manifest.json"
    common = ["--sources", str(source), "--output", str(manifest), "--adapter", adapter]
    import_examples.main([*common, "--files", files, *options])
    return manifest
