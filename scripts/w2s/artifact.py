"""Artifacts: folders whose handle is their ``manifest.json``. Contract 3 of the architecture.

A stage writes into a temporary folder beside the final one; at the end the manifest is written and the folder is
swapped into place by rename, so that an artifact is there whole or not at all.

``manifest.json`` says what the artifact *is*: digests of its files, the spec, the parents' digests, what was counted.
``run.json`` beside it says how it *came about*: code fingerprint, commit, container, libraries, hardware, times. The
two are apart so that making the same content again gives the same manifest, byte for byte, and nothing downstream
reruns (early cutoff). Each holds a seal, a digest of the rest of it: a record that was edited by hand is refused.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import hashlib
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from w2s import interruption, records
from w2s.errors import ArtifactError, EnvironmentProblem
from w2s.fingerprint import digests, fingerprint

MANIFEST = "manifest.json"
RUN_RECORD = "run.json"
# Written into a finished model's folder when its scores are known (scripts/write_model_cards.py): no part of the artifact.
CARD = "README.md"
SCHEMA_VERSION = 2
SEAL = "seal"
# Versions that can change a number; others are in the lock.
LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "numpy",
    "pandas",
    "pyarrow",
)
_MAKE_AGAIN = (
    f"delete the {MANIFEST} there and run the workflow again"  # without it Snakemake makes the artifact anew
)
SHORT = 12  # hex digits of a digest that is shown
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Parents = Mapping[str, Path | Sequence[Path] | None]
# Manifest to be made -> what gives the key of the work that makes it (scripts/w2s/keys.py), asked when it is made.
_announced: dict[Path, Callable[[Path], str | None]] = {}


class Artifact:
    """A finished artifact, read through its manifest."""

    def __init__(self, manifest_path: Path, manifest: dict[str, Any], run: dict[str, Any]) -> None:
        self.manifest_path = manifest_path
        self.folder = manifest_path.parent
        self.manifest = manifest
        self.run = run

    @property
    def spec(self) -> dict[str, Any]:
        """What the artifact was made from: the settings that its stage was given."""
        return self.manifest["spec"]

    @property
    def facts(self) -> dict[str, Any]:
        """What the stage counted and measured."""
        return self.manifest["facts"]

    @property
    def digest(self) -> str:
        """Digest over the names and digests of its files: equal content, equal digest."""
        return self.manifest["digest"]

    def path(self, name: str) -> Path:
        """Path of one of its files, which is hashed: what is read is what was made.

        Raises:
            ArtifactError: the manifest does not list it, it is gone, or it was altered.
        """
        if name not in self.manifest["files"]:
            raise ArtifactError(
                f"the artifact has no file {name!r}",
                where=self.manifest_path,
                instead=f"one of {', '.join(sorted(self.manifest['files']))}",
            )
        fault = _file_fault(self, name, self.manifest["files"][name]["sha256"], file_digest)
        if fault is not None:
            raise fault
        return self.folder / name

    @staticmethod
    @contextlib.contextmanager
    def create(
        manifest_path: Path, *, spec: Mapping[str, Any], parents: Parents, script: str | Path | None = None
    ) -> Iterator[Draft]:
        """Make an artifact. On a clean exit it appears at ``manifest_path``; on an exception nothing does.

        Args:
            manifest_path: ``.../manifest.json`` of the artifact to be made.
            spec: settings that change the result.
            parents: name -> manifest (or manifests) of what it is made from; all their files are hashed first.
            script: the stage's script; default: the program that runs.

        Raises:
            ArtifactError: a parent is missing, or not as it was made (see :func:`verify`).
        """
        if manifest_path.name != MANIFEST:
            raise ArtifactError(f"an artifact's handle is called {MANIFEST}", where=manifest_path)
        folder, source = manifest_path.parent, Path(script or sys.argv[0])
        try:
            with replacing(folder) as temporary:
                draft = Draft(temporary, _parent_digests(parents, folder))
                yield draft
                manifest = draft.manifest(spec, source)
                run = draft.run_record(source)
                if manifest_path in _announced and (key := _announced[manifest_path](source)) is not None:
                    # With the manifest, to give it back when the same work is asked for again.
                    run |= {"key": key, "manifest": manifest}
                write_json(sealed(run), temporary / RUN_RECORD)
                write_json(manifest, temporary / MANIFEST)
        except Exception as error:
            told = _no_room(error)
            if told is None:
                raise
            raise EnvironmentProblem(
                f"no room to write ({told}); nothing half-written was left",
                where=folder,
                instead="free some space or raise the quota, then run the same command again: it continues",
            ) from error


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to fill. On a clean exit it takes the place of ``folder`` at once, on an exception it goes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        # Between its two renames there is neither the old artifact nor the new one.
        with interruption.deferred():
            _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def announce(manifest_path: Path, key: Callable[[Path], str | None]) -> None:
    """Have the run record of the artifact that will be made at ``manifest_path`` name the key of the work.

    Args:
        key: gives it, or None, of the stage's script.
    """
    _announced[manifest_path] = key


class Draft:
    """An artifact in the making."""

    def __init__(self, folder: Path, parents: dict[str, Any]) -> None:
        self.folder = folder
        self._parents = parents
        self._facts: dict[str, Any] = {}
        self._measured: dict[str, Any] = {}
        self._started = time.monotonic()
        self._started_at = datetime.now(UTC)

    def path(self, name: str) -> Path:
        """Where to write the file ``name`` (sub-folders are made)."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def record(self, **facts: Any) -> None:
        """Keep counts and results in the manifest (plain JSON values, equal whenever the content is)."""
        self._facts.update(facts)

    def measure(self, **measurements: Any) -> None:
        """Keep what differs from run to run (rates, times) in the run record."""
        self._measured.update(measurements)

    def manifest(self, spec: Mapping[str, Any], script: Path) -> dict[str, Any]:
        """The manifest of what lies in the folder now."""
        files = {
            path.relative_to(self.folder).as_posix(): _file_entry(path)
            for path in sorted(_files(self.folder))
        }
        return sealed(
            {
                "schema": SCHEMA_VERSION,
                "stage": script.stem,
                "digest": files_digest(files),
                "files": files,
                "spec": dict(spec),
                "parents": self._parents,
                "facts": self._facts,
            }
        )

    def run_record(self, script: Path) -> dict[str, Any]:
        """How the artifact came about."""
        return {
            "code": fingerprint(script) if script.is_file() else None,
            "sources": digests(script) if script.is_file() else {},
            "git": git_state(),
            "container": container_digest(),
            "environment": environment(),
            "started": self._started_at.isoformat(timespec="seconds"),
            "wall_s": round(time.monotonic() - self._started, 3),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "measured": self._measured,
        }


def load(manifest_path: Path) -> Artifact:
    """Open an artifact by its manifest.

    Raises:
        ArtifactError: the manifest or the run record is missing, not readable, of another form or was edited.
    """
    manifest = _read_record(manifest_path)
    records.check_manifest(manifest, manifest_path)
    return Artifact(manifest_path, manifest, load_run(manifest_path))


def load_run(manifest_path: Path) -> dict[str, Any]:
    """The run record of an artifact.

    Raises:
        ArtifactError: it is missing, not readable, of another form or was edited.
    """
    path = manifest_path.with_name(RUN_RECORD)
    run = _read_record(path)
    records.check_run(run, path)
    return run


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its seal: the SHA-256 of all else in it, whatever the order of its keys."""
    content = {name: value for name, value in record.items() if name != SEAL}
    # With the keys that a reader will see: JSON makes text of them.
    written = json.loads(json.dumps(content, allow_nan=False, default=_plain))
    return {**content, SEAL: hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()}


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(record, dict) and record.get(SEAL) == sealed(record)[SEAL]
    except FileNotFoundError as error:
        alone = path.name == RUN_RECORD and path.with_name(MANIFEST).is_file()
        raise ArtifactError(
            "the artifact is not there" if not alone else "the artifact's run record is not there",
            where=path,
            instead="run the workflow for it first" if not alone else _MAKE_AGAIN,
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"the record cannot be read ({error})", where=path) from error
    if not whole:
        raise ArtifactError(
            "the record was edited or damaged after it was made: its seal does not fit",
            where=path,
            instead=f"{_MAKE_AGAIN}; settings belong into the configuration",
        )
    return record


def container_digest() -> str | None:
    """Digest of the image that this process runs in, None outside of a container.

    Apptainer says which file it runs from; the workflow says which digests the files have that it uses
    (scripts/w2s/deployment.py).
    """
    running = os.environ.get("APPTAINER_CONTAINER")
    if not running:
        return None
    known = dict(pair.split("=", 1) for pair in os.environ.get("W2S_IMAGES", "").split())
    name = Path(running).name
    return known.get(name, f"{name} (digest unknown)")


def restore(manifest_path: Path, key: str) -> bool:
    """Give an artifact back its manifest, if work of this key made it and its files are whole; returns whether.

    Snakemake deletes a declared output before each job. Where the job was done already, nothing but that is missing.
    """
    try:
        run = load_run(manifest_path)
        if run.get("key") != key or manifest_path.exists():
            return False
        for torn in manifest_path.parent.glob(f".{MANIFEST}.*"):  # killed while it did just this
            torn.unlink(missing_ok=True)
        manifest = run.get("manifest")
        if not isinstance(manifest, dict):
            return False
        records.check_manifest(manifest, manifest_path)
        if any(_faults_of_files(Artifact(manifest_path, manifest, run), file_digest)):
            return False
    except (ArtifactError, OSError):
        return False
    _remove_leftovers(manifest_path.parent)
    write_json(manifest, manifest_path)
    return True


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary path beside ``path`` and rename: the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial{path.suffix}"):
        leftover.unlink(missing_ok=True)  # of a process that was killed; one file has one writer at a time
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(value: object, path: Path) -> None:
    """Write JSON atomically, keys in their order, NaN refused."""
    content = as_text(value).encode()
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def as_text(value: object) -> str:
    """JSON as every record here is written."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Digest over names and digests of files, independent of their order."""
    text = "".join(f"{name}\0{files[name]['sha256']}\n" for name in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


def verify(manifest_path: Path) -> Artifact:
    """Open an artifact whose records and files are as they were made.

    Raises:
        ArtifactError: the first of its :func:`faults`, or it cannot be opened.
    """
    artifact = load(manifest_path)
    for fault in faults(artifact):
        if fault is not None:
            raise fault
    return artifact


def faults(artifact: Artifact, digest: Callable[[Path], str] = file_digest) -> Iterator[ArtifactError | None]:
    """In what an artifact is not as it was made; None for each thing that is as it was.

    Looked at are its records, byte for byte, its own digest, its files (missing, altered, not listed, links that lead
    elsewhere) and folders that are linked in. What the file system tells of a file (its size, its times) is no substitute
    for its content: whoever alters a file can set them.

    Args:
        digest: gives the SHA-256 of a file; whoever looks at much keeps what it found.
    """
    for name, record in ((MANIFEST, artifact.manifest), (RUN_RECORD, artifact.run)):
        # The seal covers what a record says; here is seen to how it is written, to the last blank. Half a surrogate pair
        # is no UTF-8; a record with one was not written here.
        written = as_text(record).encode(errors="surrogatepass")
        yield _file_fault(artifact, name, hashlib.sha256(written).hexdigest(), digest)
    found = files_digest(artifact.manifest["files"])
    yield (
        None
        if found == artifact.digest
        else ArtifactError(
            f"the artifact's digest is not that of its files ({told(artifact.digest, found)})",
            where=artifact.manifest_path,
            instead=_MAKE_AGAIN,
        )
    )
    yield from _faults_of_files(artifact, digest)


def _faults_of_files(artifact: Artifact, digest: Callable[[Path], str]) -> Iterator[ArtifactError | None]:
    """What lies in an artifact's folder against its manifest."""
    listed = artifact.manifest["files"]
    for name, entry in listed.items():
        yield _file_fault(artifact, name, entry["sha256"], digest)
    present = {path.relative_to(artifact.folder).as_posix() for path in _files(artifact.folder)}
    for name in sorted(present - {MANIFEST, RUN_RECORD, CARD} - set(listed)):
        yield ArtifactError(
            f"file {name!r} does not belong to the artifact",
            where=artifact.folder,
            instead="delete that file or move it elsewhere; or delete the manifest and run the workflow again",
        )


def _file_fault(
    artifact: Artifact, name: str, expected: str, digest: Callable[[Path], str]
) -> ArtifactError | None:
    """What is wrong with one file of an artifact."""
    path = artifact.folder / name
    if path.is_symlink() and leads_out(path, artifact.folder):
        words = f"file {name!r} is a link that leads out of the artifact"
        return ArtifactError(words, where=path, instead=f"the file itself; or {_MAKE_AGAIN}")
    if not path.is_file():
        return ArtifactError(
            f"file {name!r} is listed in the manifest but gone", where=path, instead=_MAKE_AGAIN
        )
    try:
        found = digest(path)
    except OSError as error:
        return ArtifactError(f"file {name!r} cannot be read ({error.strerror})", where=path)
    if found == expected:
        return None
    words = f"file {name!r} was altered after it was made ({told(expected, found)})"
    return ArtifactError(words, where=path, instead=_MAKE_AGAIN)


def leads_out(link: Path, folder: Path) -> bool:
    """Whether a link leads out of the folder, or nowhere because it leads back to itself."""
    try:
        return not link.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # which of them for a loop is a matter of Python's version
        return True


def told(expected: str, found: str) -> str:
    """Two digests in a message."""
    return f"expected {expected[:SHORT]}, found {found[:SHORT]}"


@functools.cache
def software() -> dict[str, Any]:
    """Versions of the interpreter and of the libraries, read without importing one."""
    from importlib import metadata

    versions = {}
    for library in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[library] = metadata.version(library)
    return {"python": platform.python_version(), "libraries": versions}


def environment() -> dict[str, Any]:
    """Software and hardware."""
    return {
        **software(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": _gpus(),
    }


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout that this file lies in, and whether tracked files differ from it; None without git."""
    root = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.CalledProcessError):
        return None


def _parent_digests(parents: Parents, folder: Path) -> dict[str, Any]:
    """Name -> path (relative to the new artifact's folder) and digest of each parent."""
    entries: dict[str, Any] = {}
    for name, value in parents.items():
        if value is None:
            continue
        paths = [value] if isinstance(value, Path) else list(value)
        found = [{"path": os.path.relpath(path, folder), "digest": verify(path).digest} for path in paths]
        entries[name] = found[0] if isinstance(value, Path) else found
    return entries


def _swap(temporary: Path, folder: Path) -> None:
    """Put ``temporary`` where ``folder`` is; a former artifact there is removed only after the new one stands."""
    if folder.exists():
        former = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".former", dir=folder.parent))
        os.rename(folder, former)
        os.rename(temporary, folder)
        shutil.rmtree(former, ignore_errors=True)
    else:
        os.rename(temporary, folder)


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary folders that killed runs left beside ``folder``; not those of a neighbour named alike."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.[a-z0-9_]{{8}}\.(partial|former)")
    for path in list(folder.parent.iterdir()):
        if pattern.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def _file_entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def _no_room(error: Exception) -> str | None:
    """What a full disk is called in ``error``, None if it is about something else.

    safetensors and torch write by themselves and raise errors of their own; torch's do not even say why.
    """
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return os.strerror(error.errno)
    known = [os.strerror(number) for number in DISK_FULL]
    found = [words for words in (*known, "PytorchStreamWriter", "inline_container.cc") if words in str(error)]
    return (found[0] if found[0] in known else "torch could not write its file") if found else None


def _umask() -> int:
    # There is no way to read the umask but to set it; the two calls are next to each other on purpose.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _gpus() -> list[str]:
    """Names of the NVIDIA devices, asked of the driver so that no torch is needed."""
    if not Path("/proc/driver/nvidia").exists():
        return []
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    return []


def _plain(value: object) -> object:
    """numpy scalars and paths as JSON values."""
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a plain value")
