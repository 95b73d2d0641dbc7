"""Software bills of materials (CycloneDX, JSON) of the two images.

    python containers/sbom.py write                    # containers/sbom/<image>.cdx.json from the locks; needs cyclonedx-py
    python containers/sbom.py image KIND DIGEST < LIST  # of a built image, to standard output: with the system's packages

The committed bills hold what the locks decide: each package with its version, purl and the SHA-256 of the files that may
be installed. They hold no time and no serial number, so that the same lock gives the same bytes. LIST is what
``dpkg-query -W -f '${Package} ${Version} ${Architecture}\\n'`` says in the image, after a line with the system's ID.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "containers" / "sbom"
LOCKS = {"ml": "ml-cuda121", "light": "light"}
VERSION = "1.6"
Bill = dict[str, Any]


class BillError(Exception):
    """What a bill is to be made of cannot be used; the text says what, and what to do."""


def made(program: str, kind: str) -> Bill:
    """The bill of a kind of image, by cyclonedx-py, without what is a matter of its maker or of a line's number.

    Raises:
        BillError: cyclonedx-py failed; its own words are told.
    """
    words = [program, "requirements", "--output-reproducible", "--sv", VERSION, "--of", "JSON", "-o", "-"]
    lock = ROOT / "envs" / f"{LOCKS[kind]}.txt"
    done = subprocess.run([*words, str(lock)], capture_output=True, text=True)
    if done.returncode != 0:
        raise BillError(f"{program} ended with {done.returncode} at {lock.name}:\n{done.stderr.strip()}")
    bill = json.loads(done.stdout)
    tools = [
        {key: tool[key] for key in ("type", "name", "version")}
        for tool in bill["metadata"]["tools"]["components"]
    ]
    components = [component(entry) for entry in bill["components"]]
    return {
        "$schema": bill["$schema"],
        "bomFormat": bill["bomFormat"],
        "specVersion": bill["specVersion"],
        "version": 1,
        "metadata": {
            "tools": {"components": tools},
            "component": {
                "type": "container",
                "bom-ref": kind,
                "name": kind,
                "description": f"envs/{lock.name}",
            },
        },
        "components": sorted(components, key=lambda entry: entry["bom-ref"]),
        # Who needs whom the lock does not say: the image holds all of them.
        "dependencies": [{"ref": kind, "dependsOn": sorted(entry["bom-ref"] for entry in components)}],
    }


def component(entry: Bill) -> Bill:
    """A package under its purl; where an index would be named, the purl stands again."""
    hashes = [one for reference in entry["externalReferences"] for one in reference.get("hashes", [])]
    return {
        "type": entry["type"],
        "bom-ref": entry["purl"],
        "name": entry["name"],
        "version": entry["version"],
        "purl": entry["purl"],
        "externalReferences": [{"type": "distribution", "url": entry["purl"], "hashes": hashes}],
    }


def of_image(kind: str, digest: str, lines: list[str]) -> Bill:
    """The committed bill of a kind, with the digest of the image and the packages of its system.

    Args:
        digest: SHA-256 of the image, with or without ``sha256:`` before it.
        lines: the system's ID, then a package a line.

    Raises:
        BillError: the digest is none, or the list is empty or no such list.
    """
    bill = json.loads((FOLDER / f"{kind}.cdx.json").read_text(encoding="utf-8"))
    content = digest.removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", content):
        raise BillError(f"{digest!r} is no SHA-256\n  instead: its 64 hex digits, as sha256sum writes them")
    if len(lines) < 2:
        raise BillError(
            "no packages on standard input\n  instead: the system's ID, then what dpkg-query says"
        )
    system, *packages = lines
    found = [package(system, number, line) for number, line in enumerate(packages, 2)]
    bill["metadata"]["component"] |= {"version": content, "hashes": [{"alg": "SHA-256", "content": content}]}
    bill["components"] += sorted(found, key=lambda entry: entry["bom-ref"])
    bill["dependencies"][0]["dependsOn"] += sorted(entry["bom-ref"] for entry in found)
    return bill


def package(system: str, number: int, line: str) -> Bill:
    """A package of the system from its line.

    Raises:
        BillError: the line does not have name, version and architecture: dpkg knows the package, but it is not installed.
    """
    words = line.split()
    if len(words) != 3:
        raise BillError(
            f"line {number} of the list, {line!r}, is no package with its version and architecture\n"
            "  instead: remove it, or install it, in the image; `dpkg -l` there shows in which state it is"
        )
    name, version, architecture = words
    purl = f"pkg:deb/{quote(system)}/{quote(name)}@{quote(version)}?arch={quote(architecture)}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def text(bill: Bill) -> str:
    """A bill as it is written."""
    return json.dumps(bill, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write what the command line asks for; 2 where something is missing or cannot be used."""
    args = arguments()
    try:
        return bill_of_image(args) if args.command == "image" else committed(args)
    except BillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="the committed bills")
    write.add_argument("--cyclonedx", default=None, help="cyclonedx-py; default: .venv-audit, then PATH")
    write.add_argument("--folder", type=Path, default=FOLDER, help="where to; default: %(default)s")
    image = commands.add_parser("image", help="of a built image; what its system holds on standard input")
    image.add_argument("kind", choices=LOCKS)
    image.add_argument("digest", help="SHA-256 of the image")
    return parser.parse_args()


def bill_of_image(args: argparse.Namespace) -> int:
    """Print the bill of a built image."""
    print(text(of_image(args.kind, args.digest, sys.stdin.read().splitlines())), end="")
    return 0


def committed(args: argparse.Namespace) -> int:
    """Write the committed bills, both or, where the tool fails, none.

    Raises:
        BillError: the tool is not there, or fails.
    """
    own = ROOT / ".venv-audit" / "bin" / "cyclonedx-py"
    program = args.cyclonedx or (str(own) if own.is_file() else shutil.which("cyclonedx-py"))
    if program is None:
        raise BillError("cyclonedx-py is not installed\n  instead: make .venv-audit/installed-audit")
    bills = {kind: text(made(program, kind)) for kind in LOCKS}
    for kind, content in bills.items():
        (args.folder / f"{kind}.cdx.json").write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
