"""Artifacts appear whole or not at all, and tell what they are and what they came from."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from w2s import artifact
from w2s.artifact import Artifact, files_digest, load, verify, write_atomically, write_json
from w2s.errors import ArtifactError, EnvironmentProblem

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def make(
    folder: Path, files: dict[str, str], spec: dict | None = None, parents: dict | None = None, **facts
) -> Path:
    with Artifact.create(
        folder / "manifest.json", spec=spec or {}, parents=parents or {}, script=__file__
    ) as artifact:
        for name, text in files.items():
            artifact.path(name).write_text(text)
        artifact.record(**facts)
    return folder / "manifest.json"


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def in_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start Python code that can import w2s."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_finished_artifact_can_be_read_back(tmp_path: Path) -> None:
    manifest = make(tmp_path / "a", {"x.txt": "one", "sub/y.txt": "two"}, spec={"beta": 0.1}, rows_in=3)
    artifact = load(manifest)
    assert artifact.path("sub/y.txt").read_text() == "two"
    assert artifact.spec == {"beta": 0.1}
    assert artifact.facts == {"rows_in": 3}
    assert set(artifact.manifest["files"]) == {"x.txt", "sub/y.txt"}
    assert artifact.manifest["files"]["x.txt"]["bytes"] == 3
    assert artifact.digest == files_digest(artifact.manifest["files"])
    assert artifact.run["wall_s"] >= 0
    assert "numpy" in artifact.run["environment"]["libraries"]
    assert entries(tmp_path) == ["a"]
    verify(manifest)


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="stop here"),
        Artifact.create(tmp_path / "a" / "manifest.json", spec={}, parents={}) as artifact,
    ):
        artifact.path("x.txt").write_text("half")
        raise RuntimeError("stop here")
    assert entries(tmp_path) == []


def test_an_exception_keeps_the_former_artifact(tmp_path: Path) -> None:
    manifest = make(tmp_path / "a", {"x.txt": "old"})
    with (
        pytest.raises(RuntimeError),
        Artifact.create(manifest, spec={}, parents={}) as artifact,
    ):
        artifact.path("x.txt").write_text("new")
        raise RuntimeError("stop here")
    verify(manifest)
    assert load(manifest).path("x.txt").read_text() == "old"
    assert entries(tmp_path) == ["a"]


def test_a_former_artifact_is_replaced_as_a_whole(tmp_path: Path) -> None:
    make(tmp_path / "a", {"old.txt": "old", "both.txt": "old"})
    manifest = make(tmp_path / "a", {"both.txt": "new"})
    verify(manifest)
    assert entries(tmp_path / "a") == ["both.txt", "manifest.json", "run.json"]
    assert entries(tmp_path) == ["a"]


def test_facts_that_are_no_json_leave_nothing(tmp_path: Path) -> None:
    for fact in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError)):
            make(tmp_path / "a", {"x.txt": "x"}, fact=fact)
        assert entries(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(
            EnvironmentProblem, match="(?s)No space left on device.*nothing half-written.*free some space"
        ),
        Artifact.create(tmp_path / "a" / "manifest.json", spec={}, parents={}) as artifact,
    ):
        path = artifact.path("big.txt")
        path.symlink_to("/dev/full")
        path.write_text("x" * 100_000)
    assert entries(tmp_path) == []


def test_a_full_disk_in_mid_table_leaves_nothing(tmp_path: Path) -> None:
    """A real stage process that hits a limit on file sizes while pyarrow writes; the former artifact survives."""
    manifest = make(tmp_path / "a", {"x.txt": "old"})
    process = in_process(
        """
        import resource, sys
        from pathlib import Path
        import numpy, pandas
        from w2s import cli, tables
        from w2s.artifact import Artifact

        def main():
            frame = pandas.DataFrame({"x": numpy.random.default_rng(0).random(200_000)})
            with Artifact.create(Path(sys.argv[1]), spec={}, parents={}) as artifact:
                artifact.path("small.txt").write_text("fits")
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
                tables.write_parquet(frame, artifact.path("table.parquet"))

        cli.run(main)
        """,
        manifest,
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "nothing half-written was left" in errors
    assert "Traceback" not in errors
    verify(manifest)
    assert load(manifest).path("x.txt").read_text() == "old"
    assert entries(tmp_path) == ["a"]


def test_leftovers_of_a_killed_run_are_removed_by_the_next(tmp_path: Path) -> None:
    process = in_process(
        """
        import sys, time
        from pathlib import Path
        from w2s.artifact import Artifact
        with Artifact.create(Path(sys.argv[1]), spec={}, parents={}) as artifact:
            artifact.path("x.txt").write_text("half")
            print("writing", flush=True)
            time.sleep(60)
        """,
        tmp_path / "a" / "manifest.json",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [name.endswith(".partial") for name in entries(tmp_path)] == [True], "a killed run cannot clean up"
    verify(make(tmp_path / "a", {"x.txt": "whole"}))
    assert entries(tmp_path) == ["a"]


def test_a_neighbour_in_the_making_is_left_alone(tmp_path: Path) -> None:
    """world-t0 and world-t0.4 are made at the same time: one's name begins with the other's and a dot."""
    with Artifact.create(tmp_path / "world-t0.4" / "manifest.json", spec={}, parents={}) as neighbour:
        neighbour.path("x.txt").write_text("theirs")
        make(tmp_path / "world-t0", {"x.txt": "ours"})
        assert neighbour.path("x.txt").read_text() == "theirs"
    verify(tmp_path / "world-t0.4" / "manifest.json")
    assert entries(tmp_path) == ["world-t0", "world-t0.4"]


def test_the_artifact_is_never_half_there_while_it_is_replaced(tmp_path: Path) -> None:
    """Another process that looks all the time sees a whole artifact, old or new, or none for the blink of the swap."""
    manifest = make(tmp_path / "a", {f"{n}.txt": "0" for n in range(20)})
    process = in_process(
        """
        import sys
        from pathlib import Path
        from w2s.artifact import Artifact
        for turn in range(30):
            with Artifact.create(Path(sys.argv[1]), spec={}, parents={}) as artifact:
                for n in range(20):
                    artifact.path(f"{n}.txt").write_text(str(turn))
        """,
        manifest,
    )
    seen = set()
    while process.poll() is None:
        try:
            folder = os.open(manifest.parent, os.O_RDONLY)  # stays the same folder, wherever it is renamed to
        except FileNotFoundError:
            continue
        try:
            names = os.listdir(folder)
            if "manifest.json" in names:
                assert len(names) == 22
                seen.add(os.stat("manifest.json", dir_fd=folder).st_ino)
        except FileNotFoundError:
            pass  # the former artifact, being removed
        finally:
            os.close(folder)
        time.sleep(0.002)
    assert process.returncode == 0
    assert seen
    verify(manifest)


TAMPER: dict[str, Callable[[Path], object]] = {
    "a byte changed": lambda folder: (folder / "x.txt").write_text("Xne"),
    "a file longer": lambda folder: (folder / "sub/y.txt").write_text("two and more"),
    "a file empty": lambda folder: (folder / "z.txt").write_text(""),
    "a file gone": lambda folder: (folder / "sub/y.txt").unlink(),
    "a folder gone": lambda folder: shutil.rmtree(folder / "sub"),
    "a file more": lambda folder: (folder / "sub/new.txt").write_text("new"),
}
NAMED = ["x.txt", "sub/y.txt", "z.txt", "sub/y.txt", "sub/y.txt", "sub/new.txt"]


@pytest.mark.parametrize(("change", "named"), list(zip(TAMPER, NAMED, strict=True)))
def test_verify_names_each_tampered_file(tmp_path: Path, change: str, named: str) -> None:
    manifest = make(tmp_path / "a", {"x.txt": "one", "sub/y.txt": "two", "z.txt": "three"})
    verify(manifest)
    TAMPER[change](manifest.parent)
    with pytest.raises(ArtifactError, match=f"'{named}'"):
        verify(manifest)


def test_every_single_file_is_watched(tmp_path: Path) -> None:
    files = {f"{n:02}.bin": "same" for n in range(12)}
    manifest = make(tmp_path / "a", files)
    for name in files:
        path = manifest.parent / name
        path.write_text("SAME")
        with pytest.raises(ArtifactError, match=name):
            verify(manifest)
        path.write_text("same")
    verify(manifest)


@pytest.mark.parametrize("name", ["manifest.json", "run.json"])
def test_a_missing_or_broken_record_is_named(tmp_path: Path, name: str) -> None:
    manifest = make(tmp_path / "a", {"x.txt": "one"})
    (manifest.parent / name).write_text('{"schema": 1, ')
    with pytest.raises(ArtifactError, match="(?s)cannot be read.*" + name):
        load(manifest)
    (manifest.parent / name).unlink()
    with pytest.raises(ArtifactError, match="(?s)not there.*" + name):
        load(manifest)


def test_parents_are_recorded_with_their_digests(tmp_path: Path) -> None:
    first, second = make(tmp_path / "one", {"x": "1"}), make(tmp_path / "two", {"x": "2"})
    child = make(
        tmp_path / "deep" / "child",
        {"x": "3"},
        parents={"model": first, "all": [first, second], "none": None},
    )
    parents = load(child).manifest["parents"]
    assert parents["model"] == {"path": "../../one/manifest.json", "digest": load(first).digest}
    assert [entry["digest"] for entry in parents["all"]] == [load(first).digest, load(second).digest]
    assert "none" not in parents
    assert (child.parent / parents["model"]["path"]).resolve() == first.resolve()


def test_a_missing_parent_stops_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="(?s)not there.*gone/manifest.json"):
        make(tmp_path / "a", {"x": "1"}, parents={"model": tmp_path / "gone" / "manifest.json"})
    assert entries(tmp_path) == []


def test_equal_content_gives_an_equal_manifest(tmp_path: Path) -> None:
    parent = make(tmp_path / "parent", {"x": "1"})

    def again() -> bytes:
        manifest = make(tmp_path / "a", {"x": "1", "y/z": "2"}, {"beta": 0.1}, {"model": parent}, rows=2)
        return manifest.read_bytes()

    first = again()
    assert again() == first
    elsewhere = tmp_path / "moved"
    elsewhere.mkdir()
    shutil.copytree(tmp_path / "parent", elsewhere / "parent")
    copy = make(
        elsewhere / "a",
        {"y/z": "2", "x": "1"},
        {"beta": 0.1},
        {"model": elsewhere / "parent/manifest.json"},
        rows=2,
    )
    assert copy.read_bytes() == first, "neither the order of writing nor the place may show"


@pytest.mark.parametrize(
    "other",
    [
        {"files": {"x": "2"}},
        {"files": {"y": "1"}},
        {"files": {"x": "1"}, "spec": {"beta": 0.2}},
        {"files": {"x": "1"}, "rows": 3},
    ],
)
def test_other_content_gives_another_manifest(tmp_path: Path, other: dict) -> None:
    first = make(tmp_path / "a", {"x": "1"}).read_bytes()
    assert make(tmp_path / "a", **other).read_bytes() != first


def test_the_handle_has_one_name(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtifactError, match=r"manifest\.json"),
        Artifact.create(tmp_path / "other.json", spec={}, parents={}),
    ):
        pass
    assert entries(tmp_path) == []


def test_a_file_that_the_manifest_does_not_list_is_refused(tmp_path: Path) -> None:
    artifact = load(make(tmp_path / "a", {"x.txt": "one"}))
    with pytest.raises(ArtifactError, match=r"(?s)no file 'y\.txt'.*one of x\.txt"):
        artifact.path("y.txt")
    (tmp_path / "a" / "x.txt").unlink()
    with pytest.raises(ArtifactError, match=r"'x\.txt' is listed in the manifest but gone"):
        artifact.path("x.txt")


def test_write_atomically_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert entries(tmp_path) == ["table.csv"]


def test_json_refuses_nan_and_takes_numpy(tmp_path: Path) -> None:
    import numpy

    write_json({"n": numpy.int64(3), "x": numpy.float32(0.5), "path": tmp_path / "a"}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "n": 3,
        "x": 0.5,
        "path": (tmp_path / "a").as_posix(),
    }
    with pytest.raises(ValueError, match="JSON"):
        write_json({"n": float("nan")}, tmp_path / "y.json")
    assert entries(tmp_path) == ["x.json"]


# -- work that was done unseen -----------------------------------------------------------------------------------


def made_unseen(folder: Path) -> tuple[Path, bytes]:
    """An artifact made by work of key "this", whose manifest Snakemake has deleted since; and that manifest's bytes."""
    manifest = folder / "made" / "manifest.json"
    artifact.announce(manifest, lambda script: "this" if script == Path(__file__) else None)
    with Artifact.create(manifest, spec={"x": 1}, parents={}, script=__file__) as draft:
        draft.path("weights.bin").write_bytes(b"weights")
        draft.record(loss=0.5)
    content = manifest.read_bytes()
    manifest.unlink()
    return manifest, content


def test_an_artifact_gets_its_manifest_back(tmp_path: Path) -> None:
    manifest, content = made_unseen(tmp_path)
    assert not artifact.restore(manifest, "other"), "made from something else"
    (manifest.parent / ".manifest.json.7.partial.json").write_text(
        "{"
    )  # it was killed while it did just this
    (tmp_path / ".made.abcd1234.former").mkdir()  # it was killed when its folder had just been put into place
    assert artifact.restore(manifest, "this")
    assert manifest.read_bytes() == content
    verify(manifest)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("damage", ["altered", "gone", "no record", "one more"])
def test_a_damaged_one_does_not(tmp_path: Path, damage: str) -> None:
    manifest, _ = made_unseen(tmp_path)
    if damage == "altered":
        (manifest.parent / "weights.bin").write_bytes(b"weightz")
    elif damage == "one more":
        (manifest.parent / "more.bin").write_bytes(b"more")
    else:
        (manifest.parent / ("weights.bin" if damage == "gone" else "run.json")).unlink()
    assert not artifact.restore(manifest, "this")
    assert not manifest.exists()


@pytest.mark.parametrize("record", ["manifest.json", "run.json"])
@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace('"beta": 0.1', '"beta": 0.2'),
        lambda text: text.replace("train", "Train", 1),
        lambda text: text.replace('"seal": "', '"seal": "0'),
        lambda _: '{"schema": 2}',
        lambda _: "[]",
    ],
)
def test_a_record_that_was_edited_by_hand_is_refused(
    tmp_path: Path, record: str, edit: Callable[[str], str]
) -> None:
    manifest = tmp_path / "a" / "manifest.json"
    with Artifact.create(manifest, spec={"beta": 0.1, "by": "train"}, parents={}) as draft:
        draft.measure(beta=0.1, by="train")
        draft.path("x").write_text("x")
    path = manifest.with_name(record)
    path.write_text(edit(path.read_text()))
    with pytest.raises(ArtifactError, match=r"seal does not fit") as caught:
        load(manifest)
    assert record in str(caught.value)


def test_a_seal_holds_whatever_the_kinds_of_its_keys(tmp_path: Path) -> None:
    manifest = tmp_path / "a" / "manifest.json"
    with Artifact.create(manifest, spec={}, parents={}) as draft:
        draft.path("x").write_text("x")
        draft.record(by_step={1: 0.5, 2: 0.25, 10: 0.125}, pair=(1, 2), text="é\u2028")
    assert load(manifest).facts["by_step"]["10"] == 0.125
