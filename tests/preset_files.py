"""The presets that are shipped, and the files of each: an overlay of config.yaml may be an overlay of another preset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from w2s.config import merge, read_yaml

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "config.yaml"
# preset -> the presets that it is an overlay of, in order
OVERLAID = {"demo-paper-a": ("demo",)}
PRESETS = {
    path.stem: [*(path.with_name(f"{name}.yaml") for name in OVERLAID.get(path.stem, ())), path]
    for path in sorted((ROOT / "presets").glob("*.yaml"))
}


def merged(preset: str | None = None, *overlays: Mapping[str, Any]) -> dict[str, Any]:
    """config.yaml, a preset's files and more, merged as Snakemake does."""
    raw = read_yaml(BASE)
    for file in PRESETS[preset] if preset else ():
        raw = merge(raw, read_yaml(file))
    for overlay in overlays:
        raw = merge(raw, overlay)
    return raw
