"""Print what lies in benchmarks/results as a table.

python benchmarks/table.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
HEAD = ("benchmark", "ours", "theirs", "unit", "ratio", "target", "", "of the peak", "machine")


def line(result: dict[str, Any]) -> tuple[str, ...]:
    """A result as a row of the table."""
    share, environment = result.get("share_of_peak"), result["environment"]
    cores = f"{environment['threads']} of {environment['cores']} cores"
    return (
        result["name"],
        *(str(result[key]) for key in ("ours", "theirs", "unit", "ratio", "target")),
        "met" if result["met"] else "missed",
        "" if share is None else f"{share:.0%}",
        environment.get("gpu") or f"{environment['cpu']}, {cores}, torch {environment['torch']}",
    )


def table(results: list[dict[str, Any]]) -> str:
    """Columns as wide as their widest entry."""
    lines = [HEAD, *map(line, results)]
    widths = [max(len(entry[column]) for entry in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(entry, widths, strict=True)).rstrip()
        for entry in lines
    )


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(table([json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]))


if __name__ == "__main__":
    main()
