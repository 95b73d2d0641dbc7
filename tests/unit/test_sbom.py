"""The bills of materials agree with the locks, name no host, and grow by the system's packages when an image is built."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_containers import build, built, checkout, module
from test_locks import PIN, pins, version

__all__ = ["checkout"]
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "containers" / "sbom"
LOCKS = module("sbom").LOCKS


def bill(kind: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{kind}.cdx.json").read_text())


def test_there_is_one_for_each_image_of_the_lock_that_it_is_built_from() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == [f"{kind}.cdx.json" for kind in sorted(LOCKS)]
    for kind, lock in LOCKS.items():
        recipe = (ROOT / "containers" / f"{kind}.def").read_text()
        assert re.search(rf"^    LOCK={lock}$", recipe, re.MULTILINE)


@pytest.mark.parametrize("kind", LOCKS)
def test_names_versions_and_hashes_are_those_of_the_lock(kind: str) -> None:
    """An edited lock without a new bill is noticed: python containers/sbom.py write."""
    locked = {
        name: (version(pin), sorted(re.findall(r"sha256:([0-9a-f]{64})", pin)))
        for name, pin in pins(LOCKS[kind]).items()
    }
    found = {
        entry["name"]: (
            entry["version"],
            sorted(one["content"] for one in entry["externalReferences"][0]["hashes"]),
        )
        for entry in bill(kind)["components"]
    }
    assert found == locked
    assert all(PIN.fullmatch(f"{name}=={number}") for name, (number, _) in found.items())


@pytest.mark.parametrize("kind", LOCKS)
def test_each_component_goes_by_its_purl(kind: str) -> None:
    found = bill(kind)
    purls = [entry["purl"] for entry in found["components"]]
    assert purls == [f"pkg:pypi/{entry['name']}@{entry['version']}" for entry in found["components"]]
    assert found["dependencies"] == [{"ref": kind, "dependsOn": purls}] and purls == sorted(set(purls))


@pytest.mark.parametrize("kind", LOCKS)
def test_nothing_of_the_day_or_the_place_is_in_it(kind: str) -> None:
    found = bill(kind)
    assert "serialNumber" not in found and "timestamp" not in found["metadata"]
    text = (FOLDER / f"{kind}.cdx.json").read_text()
    assert re.findall(r"\w+://[^\"]+", text) == ["http://cyclonedx.org/schema/bom-1.6.schema.json"]


def test_a_built_image_has_one_with_its_digest_and_its_system(checkout: Path) -> None:  # noqa: F811
    done = build(checkout, "light")
    assert done.returncode == 0, done.stderr
    (image,) = built(checkout, "light")
    found = json.loads(image.with_suffix(".cdx.json").read_text())
    digest = image.stem.removeprefix("light-")
    assert found["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    added = [entry for entry in found["components"] if entry["purl"].startswith("pkg:deb/")]
    assert [entry["purl"] for entry in added] == ["pkg:deb/debian/bash@5.2-2%2Bb1?arch=amd64"]
    assert added[0]["bom-ref"] in found["dependencies"][0]["dependsOn"]
    assert len(found["components"]) == len(bill("light")["components"]) + 1
    assert not list(image.parent.glob(".building*"))


def test_an_image_from_the_lock_for_tests_has_none_and_says_so(checkout: Path) -> None:  # noqa: F811
    done = build(checkout, "ml", LOCK="ml-cpu")
    assert "no bill of materials" in done.stdout
    assert not list((checkout / "containers" / "built").glob("*.cdx.json"))


# --- CycloneDX's own tools ------------------------------------------------------------------------------------------


@pytest.fixture
def cyclonedx() -> Path:
    """The folder of the audit environment's programs, or a skip."""
    given = os.environ.get("W2S_AUDIT_BIN", ROOT / ".venv-audit" / "bin")
    if not (Path(given) / "cyclonedx-py").is_file():
        pytest.skip(
            "no cyclonedx-py: `make .venv-audit/installed-audit`, or W2S_AUDIT_BIN=<its folder of programs>"
        )
    return Path(given)


VALIDATE = """
import sys
from pathlib import Path
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
for path in sys.argv[1:]:
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(Path(path).read_text())
    if problem is not None:
        sys.exit(f"{path}: {problem}")
"""


@pytest.mark.slow
def test_cyclonedx_finds_them_valid(cyclonedx: Path, checkout: Path, tmp_path: Path) -> None:  # noqa: F811
    """The committed ones and one of a built image, by the strict schema; and one that is not is refused."""
    assert build(checkout, "light").returncode == 0
    (image,) = built(checkout, "light")
    paths = [*FOLDER.iterdir(), image.with_suffix(".cdx.json")]
    python = cyclonedx / "python"
    done = subprocess.run([python, "-c", VALIDATE, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wrong = tmp_path / "wrong.json"
    wrong.write_text(paths[0].read_text().replace('"SHA-256"', '"SHA-255"', 1))
    assert subprocess.run([python, "-c", VALIDATE, wrong], capture_output=True).returncode != 0


@pytest.mark.slow
def test_the_same_locks_give_the_same_bytes(cyclonedx: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        str(ROOT / "containers" / "sbom.py"),
        "write",
        "--cyclonedx",
        str(cyclonedx / "cyclonedx-py"),
    ]
    subprocess.run([*words, "--folder", str(tmp_path)], check=True)
    for path in FOLDER.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_without_its_tool_the_maker_says_what_to_do(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "containers", tmp_path / "containers", ignore=shutil.ignore_patterns("built"))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "containers" / "sbom.py"), "write"],
        capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 2 and "make .venv-audit/installed-audit" in done.stderr


# --- what a bill cannot be made of ----------------------------------------------------------------------------------

DIGEST = "0a" * 32
LIST = "debian\nbash 5.2-2+b1 amd64\n"


def of_image(digest: str, listed: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT / "containers" / "sbom.py"), "image", "light", digest]
    return subprocess.run(words, capture_output=True, text=True, input=listed)


@pytest.mark.parametrize(
    ("digest", "listed", "said"),
    [
        (
            DIGEST,
            LIST + "tzdata  amd64\n",
            "line 3 of the list, 'tzdata  amd64', is no package with its version",
        ),
        (DIGEST, LIST + "a b c d\n", "line 3 of the list, 'a b c d', is no package"),
        (DIGEST, "", "no packages on standard input"),
        (DIGEST, "debian\n", "no packages on standard input"),
        ("light.sif", LIST, "'light.sif' is no SHA-256"),
        (DIGEST[1:], LIST, "is no SHA-256"),
    ],
)
def test_what_is_no_list_or_no_digest_is_refused(digest: str, listed: str, said: str) -> None:
    done = of_image(digest, listed)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and said in done.stderr and "instead:" in done.stderr


def test_a_digest_may_say_of_which_kind_it_is() -> None:
    done = of_image(f"sha256:{DIGEST}", LIST)
    image = json.loads(done.stdout)["metadata"]["component"]
    assert (image["version"], image["hashes"]) == (DIGEST, [{"alg": "SHA-256", "content": DIGEST}])


def test_a_tool_that_fails_is_heard_and_nothing_is_written(tmp_path: Path) -> None:
    tool = tmp_path / "cyclonedx-py"
    tool.write_text("#!/bin/sh\necho 'no such option: --sv' >&2\nexit 3\n")
    tool.chmod(0o755)
    words = [sys.executable, str(ROOT / "containers" / "sbom.py"), "write", "--folder", str(tmp_path)]
    done = subprocess.run([*words, "--cyclonedx", str(tool)], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "ended with 3" in done.stderr and "no such option: --sv" in done.stderr
    assert list(tmp_path.iterdir()) == [tool]
