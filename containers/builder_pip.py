"""Let a build use this machine's own pip settings: local wheels, a mirror, a certificate authority.

    python3 containers/builder_pip.py FOLDER

fills FOLDER, which the build mounts at /mnt, with ``pip.conf`` and ``ca.crt``, and prints a line ``<folder here>:<folder
in the build>`` for each local folder that the settings name. A machine without such settings yields an empty folder and
no lines. Nothing of it stays in the image.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

MOUNT = "/mnt"
# What leads pip to packages; the rest (colours, cache, user installs) is a matter of this machine.
KEYS = ("find-links", "index-url", "extra-index-url", "no-index", "trusted-host", "timeout", "proxy", "cert")
LINE = re.compile(r"(?P<section>global|install|:env:)\.\.?(?P<key>[\w-]+)=(?P<value>.*)")


def settings(listing: str) -> dict[str, str]:
    """What ``pip config list`` says of KEYS; a variable (PIP_...) beats [install], which beats [global]."""
    lines = [match for match in map(LINE.fullmatch, listing.splitlines()) if match]
    found = {}
    for section in ("global", "install", ":env:"):
        for match in lines:
            key = match["key"].removeprefix("default-")
            if match["section"] == section and key in KEYS:
                found[key] = str(ast.literal_eval(match["value"]))
    return found


def local_folder(source: str) -> Path | None:
    """The folder of this machine that a find-links or index entry needs, if it is a local one.

    The pages of a ``.../simple`` index name their files relative to the folder above it.
    """
    path = Path(source.removeprefix("file://"))
    if not path.is_absolute() or not path.exists():
        return None
    return path.parent if path.name == "simple" or path.is_file() else path


def translate(found: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Settings as the build sees them, and the folders to mount: here -> there."""
    mounts: dict[str, str] = {}
    translated = {}
    for key, value in found.items():
        words = value.split() if key in ("find-links", "index-url", "extra-index-url") else [value]
        for number, word in enumerate(words):
            folder = local_folder(word)
            if key != "cert" and folder is not None:
                there = mounts.setdefault(str(folder), f"{MOUNT}/{len(mounts) + 1}")
                words[number] = word.replace(str(folder), there, 1)
        translated[key] = "\n    ".join(words)
    return translated, mounts


def stage(folder: Path, listing: str) -> dict[str, str]:
    """Write pip.conf, ca.crt and the mount points into the folder; returns the mounts."""
    found, mounts = translate(settings(listing))
    for there in mounts.values():
        (folder / Path(there).name).mkdir(parents=True, exist_ok=True)
    certificate = Path(found.pop("cert", ""))
    if certificate.is_file():
        shutil.copyfile(certificate, folder / "ca.crt")
        found["cert"] = f"{MOUNT}/ca.crt"
    if found:
        lines = "".join(f"{key} = {value}\n" for key, value in found.items())
        (folder / "pip.conf").write_text(f"[global]\n{lines}")
    return mounts


def main() -> None:
    """Stage this machine's settings; a machine without pip has none."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    for here, there in stage(Path(sys.argv[1]), listing).items():
        print(f"{here}:{there}")


if __name__ == "__main__":
    main()
