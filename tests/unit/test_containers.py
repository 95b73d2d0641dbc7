"""The images' recipes: both builders say the same, everything is named by digest, and a builder's pip settings are used."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from w2s.images import read_images

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "containers"
SCRIPTS = [
    CONTAINERS / "build.sh",
    CONTAINERS / "install.sh",
    ROOT / "tests" / "cluster" / "install_apptainer.sh",
]
VENDOR = re.compile(r"docker\.io/nvidia/cuda:12\.1\.1-base-ubuntu22\.04@sha256:[0-9a-f]{64}")
HEX = "ab" * 32


def text(name: str) -> str:
    return (CONTAINERS / name).read_text()


def module(name: str) -> ModuleType:
    """A script of containers/ as a module: it is no package, the images do not hold it as one."""
    spec = importlib.util.spec_from_file_location(name, CONTAINERS / f"{name}.py")
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def argument(recipe: str, name: str) -> list[str]:
    """Default values of a build argument in a .def (one) or in the Dockerfile (one for each target)."""
    return re.findall(rf"^(?:ARG|\s{{4}}) ?{name}=(.*)$", text(recipe), re.MULTILINE)


def test_committed_state_names_both_images_and_no_build_of_one_machine() -> None:
    git = subprocess.run(
        ["git", "-C", ROOT, "show", "HEAD:containers/images.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    if git.returncode:
        pytest.skip("not a git checkout")
    entries = re.findall(r"^(\w+): (.*)$", git.stdout, re.MULTILINE)
    assert [kind for kind, _ in entries] == ["ml", "light"]
    assert all(value == "null" or value.startswith(("docker://", "oras://")) for _, value in entries)


def test_the_file_of_names_is_read() -> None:
    assert set(read_images(ROOT)) == {"ml", "light"}


def test_every_builder_has_the_same_base_by_digest() -> None:
    bases = [*argument("ml.def", "FROM"), *argument("light.def", "FROM"), *argument("Dockerfile", "BASE")]
    assert len(bases) == 3
    assert len(set(bases)) == 1
    assert VENDOR.fullmatch(bases[0])


def test_every_builder_has_the_same_locks() -> None:
    definitions = {*argument("ml.def", "LOCK"), *argument("light.def", "LOCK")}
    assert definitions == set(argument("Dockerfile", "LOCK")) == {"ml-cuda121", "light"}
    assert all((ROOT / "envs" / f"{lock}.txt").is_file() for lock in definitions)


@pytest.mark.parametrize("recipe", ["ml.def", "light.def", "Dockerfile"])
def test_every_builder_uses_the_same_scripts_and_tests_the_result(recipe: str) -> None:
    copied = set(re.findall(r"(?:containers|envs)/[\w.{}$ ]+?\.(?:sh|py|txt)", text(recipe)))
    assert {"containers/install.sh", "containers/check.py", "envs/install.sh"} < copied
    assert not [path for path in copied if path.startswith(("scripts", "rules"))]
    assert "/opt/env/bin/python /opt/image/check.py" in text(recipe)
    assert "PYTHONNOUSERSITE=1" in text(recipe)
    assert "PATH=/opt/env/bin:$PATH" in text(recipe)


def test_every_argument_of_a_definition_has_a_default() -> None:
    """Apptainer refuses a definition with a placeholder that has no value."""
    for recipe in ("ml.def", "light.def"):
        used = set(re.findall(r"\{\{ (\w+) \}\}", text(recipe)))
        section = text(recipe).split("%arguments\n")[1].split("\n%")[0]
        given = re.findall(r"^    ([A-Z_]+)=", section, re.MULTILINE)
        assert sorted(used) == sorted(given), recipe


def test_one_python_everywhere() -> None:
    check, install = text("check.py"), text("install.sh")
    assert set(re.findall(r"python(3\.\d+)", install)) == {"3.11"}
    assert "(3, 11)" in check


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_parse_and_stop_at_errors(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    assert "\nset -euo pipefail\n" in path.read_text()
    assert os.access(path, os.X_OK)


def test_no_host_is_named_but_that_of_images() -> None:
    for path in [*CONTAINERS.glob("*.*"), CONTAINERS / "Dockerfile", SCRIPTS[-1]]:
        hosts = set(re.findall(r"\b(?:[\w-]+\.)+(?:io|org|com|net)\b", path.read_text()))
        assert hosts <= {"docker.io", "index.docker.io"}, path.name


# --- build.sh: what it does before and around a build -------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what build.sh reads, with an Apptainer that "builds" by writing its arguments down."""
    root = tmp_path / "checkout"
    shutil.copytree(CONTAINERS, root / "containers", ignore=shutil.ignore_patterns("built", "__pycache__"))
    (root / "containers" / "images.yaml").write_text("# grammar\nml: null # later\nlight: null\n")
    (root / "envs").mkdir()
    for name in ("install.sh", "light.txt", "ml-cpu.txt", "ml-cuda121.txt"):
        shutil.copy(ROOT / "envs" / name, root / "envs")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "apptainer").write_text(
        '#!/usr/bin/env bash\nif [ "$1" = inspect ]; then sed -n "s/^RECIPE=/w2s.recipe: /p" "${@: -1}"; exit; fi\n'
        'if [ "$1" = exec ]; then printf "debian\\nbash 5.2-2+b1 amd64\\n"; exit; fi\n'
        '[ -z "${BROKEN:-}" ] || { echo the reason; exit 1; }\n'
        'printf "%s\\n" "$@" > "${@: -2:1}"; lock=$(printf "%s\\n" "$@" | sed -n "s/^LOCK=//p"); echo "$lock: as locked"\n'
    )
    (tools / "debootstrap").write_text("#!/bin/sh\n")
    (tools / "curl").write_text('#!/bin/sh\nprintf "%s" "${HTTP:-000}"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    return root


def build(checkout: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{checkout.parent / 'tools'}:/usr/sbin:/usr/bin:/sbin:/bin",
        "TMPDIR": str(checkout.parent),
        "MIRROR": "file:///mirror",
        **variables,
    }
    command = ["bash", str(checkout / "containers" / "build.sh"), *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=checkout.parent
    )


def built(checkout: Path, kind: str) -> list[Path]:
    return sorted((checkout / "containers" / "built").glob(f"{kind}-*.sif"))


def test_help_names_every_variable(checkout: Path) -> None:
    shown = build(checkout, "--help")
    assert shown.returncode == 0
    for name in ("BASE", "FROM", "MIRROR", "LOCK", "FORCE", "SQUASH"):
        assert re.search(rf"^  {name} ", shown.stdout, re.MULTILINE), name


def test_a_build_names_its_file_by_its_hash(checkout: Path) -> None:
    run = build(checkout)
    assert run.returncode == 0, run.stderr
    images = read_images(checkout)
    for kind in ("ml", "light"):
        assert images[kind].file.is_file()
        digest = subprocess.run(
            ["sha256sum", images[kind].file], capture_output=True, text=True, check=True
        ).stdout
        assert images[kind].digest == f"sha256:{digest[:64]}"
    assert (checkout / "containers" / "images.yaml").read_text().startswith("# grammar\n")
    assert not list((checkout / "containers").rglob(".building*"))


def test_the_same_recipe_is_built_once_and_another_one_again(checkout: Path) -> None:
    build(checkout, "light")
    (first,) = built(checkout, "light")
    again = build(checkout, "light")
    assert "same recipe" in again.stdout
    assert built(checkout, "light") == [first]
    with (checkout / "envs" / "light.txt").open("a") as lock:
        lock.write("\n")
    changed = build(checkout, "light")
    assert len(built(checkout, "light")) == 2
    assert f"no longer named in containers/images.yaml: containers/built/{first.name}" in changed.stdout


def test_an_altered_image_is_not_named(checkout: Path) -> None:
    build(checkout, "light")
    (first,) = built(checkout, "light")
    with first.open("a") as file:
        file.write("altered\n")
    assert "same recipe" not in build(checkout, "light").stdout


def test_force_builds_again(checkout: Path) -> None:
    build(checkout, "light")
    assert "same recipe" not in build(checkout, "light", FORCE="1").stdout


def test_auto_falls_to_the_distribution_and_says_so(checkout: Path) -> None:
    run = build(checkout, "ml")
    assert "*** The registry docker.io does not answer." in run.stderr
    words = built(checkout, "ml")[0].read_text().splitlines()
    assert "BOOTSTRAP=debootstrap" in words
    assert "BASE=distribution:debian-bookworm" in words


@pytest.mark.parametrize("variables", [{"HTTP": "401"}, {"BASE": "vendor"}])
def test_the_vendors_base_goes_by_its_digest(checkout: Path, variables: dict[str, str]) -> None:
    run = build(checkout, "ml", **variables)
    assert "***" not in run.stderr
    words = built(checkout, "ml")[0].read_text().splitlines()
    assert "BOOTSTRAP=docker" in words
    assert VENDOR.fullmatch(next(word for word in words if word.startswith("FROM="))[5:])


def test_the_lock_of_ml_is_an_argument_and_part_of_the_recipe(checkout: Path) -> None:
    build(checkout, "ml")
    build(checkout, "ml", LOCK="ml-cpu")
    recipes = {re.search("RECIPE=(.*)", path.read_text())[1] for path in built(checkout, "ml")}  # type: ignore[index]
    assert len(recipes) == 2


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (["big"], {}, "no image is called big"),
        ([], {"BASE": "alpine"}, "no base is called alpine"),
        ([], {"LOCK": "dev"}, "no lock of the ml image is called dev"),
        ([], {"FROM": "docker.io/nvidia/cuda:latest"}, "is not named by its digest"),
    ],
)
def test_wrong_calls_say_what_to_write(
    checkout: Path, words: list[str], variables: dict[str, str], said: str
) -> None:
    run = build(checkout, *words, **variables)
    assert run.returncode == 2
    assert said in run.stderr
    assert "instead:" in run.stderr


def test_a_failed_build_changes_no_name_and_shows_the_reason(checkout: Path) -> None:
    before = (checkout / "containers" / "images.yaml").read_text()
    run = build(checkout, "light", BROKEN="1")
    assert run.returncode == 2
    assert "the reason" in run.stderr
    assert (checkout / "containers" / "images.yaml").read_text() == before
    assert built(checkout, "light") == []


# --- the builder's own pip settings -------------------------------------------------------------------------------


def test_local_folders_are_mounted_and_named_as_the_build_sees_them(tmp_path: Path) -> None:
    wheels, mirror, staged = tmp_path / "wheels", tmp_path / "mirror", tmp_path / "staged"
    certificate = tmp_path / "own.crt"
    certificate.write_text("a certificate")
    for folder in (wheels, mirror / "simple", staged):
        folder.mkdir(parents=True)
    listing = (
        f"global.find-links='/nowhere'\n:env:.find-links='{wheels}'\n:env:.default-timeout='99'\n"
        f"global.extra-index-url='file://{mirror}/simple https://wheels.example/simple'\n"
        f"global.cert='{certificate}'\nglobal.cache-dir='/cache'\n"
    )
    mounts = module("builder_pip").stage(staged, listing)
    assert set(mounts) == {str(wheels), str(mirror)}, "an index names its files relative to the folder above"
    assert all((staged / Path(there).name).is_dir() for there in mounts.values())
    settings = (staged / "pip.conf").read_text()
    assert f"find-links = {mounts[str(wheels)]}\n" in settings
    assert f"file://{mounts[str(mirror)]}/simple\n    https://wheels.example/simple\n" in settings
    assert "timeout = 99\n" in settings
    assert "cert = /mnt/ca.crt\n" in settings
    assert (staged / "ca.crt").read_text() == "a certificate"
    assert str(tmp_path) not in settings
    assert "cache" not in settings


def test_a_machine_without_settings_mounts_nothing(tmp_path: Path) -> None:
    assert module("builder_pip").stage(tmp_path, "") == {}
    assert list(tmp_path.iterdir()) == []


# --- check.py, which decides whether an image is good -------------------------------------------------------------


def test_a_version_that_differs_from_the_lock_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = module("check")
    monkeypatch.setattr(check, "LOCKS", tmp_path)
    from importlib.metadata import version

    (tmp_path / "x.txt").write_text(
        f"pytest=={version('pytest')} \\\n    --hash=sha256:{HEX}\nnumpy==0.1\nno-such-package==1\n"
    )
    assert check.versions_that_differ("x") == [
        f"numpy: {version('numpy')}, the lock says 0.1",
        "no-such-package: missing, the lock says 1",
    ]


def test_a_module_from_elsewhere_is_refused() -> None:
    """Snakemake shows the host's packages to a container: what comes from there must not count."""
    check = module("check")
    assert check.imports_that_fail(("json",)) == [f"json comes from {__import__('json').__file__}"]
    (missing,) = check.imports_that_fail(("no_such_module",))
    assert "ModuleNotFoundError" in missing


def test_what_is_checked_is_what_the_locks_hold() -> None:
    check = module("check")
    check.LOCKS = ROOT / "envs"
    for lock in ("ml-cpu", "ml-cuda121", "light"):
        names = {name.replace("-", "_") for name in check.pins(lock)}
        assert set(check.MODEL if lock in check.CUDA else check.LIGHT) <= names
