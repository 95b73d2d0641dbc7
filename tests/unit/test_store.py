"""Artifacts that are not made twice: keys of work, reuse in place, the store that runs share, the command for it."""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fetch
import pytest
import store as command
from w2s import artifact, checkpoints, cli, interruption, store
from w2s.artifact import Artifact, load, load_run, verify
from w2s.errors import ConfigError
from w2s.keys import Work, key_of

CODE = "def train(x):\n    y = x + 1  # a comment\n    return y\n"


class Clone:
    """A folder with a script, its input and its output, in which a stage runs as the workflow runs it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.patch = monkeypatch
        self.script = folder / "scripts" / "stage.py"
        self.script.parent.mkdir(parents=True)
        self.script.write_text(CODE)
        self.examples = folder / "results" / "examples" / "manifest.json"
        self.output = folder / "results" / "models" / "a" / "manifest.json"
        self.give("rows")
        self.during: Callable[[], object] = lambda: None

    def give(self, text: str) -> None:
        """Make the input."""
        with Artifact.create(self.examples, spec={}, parents={}, script="examples.py") as draft:
            draft.path("rows.txt").write_text(text)

    def arguments(self) -> cli.StageParser:
        """The stage's command line."""
        parser = cli.StageParser("A stage.")
        parser.input("--examples")
        parser.input("--plain", required=False)
        parser.input("--labels", nargs="*")
        parser.output("--output")
        parser.spec("--beta", type=float, default=0.1)
        parser.option("--micro-batch-size", type=int, default=8)
        parser.option("--folder", type=Path)
        parser.contents(lambda args: {"a.txt": args.folder / "a.txt"} if args.folder else {})
        return parser

    def words(self, *more: object) -> list[str]:
        """The command line's arguments."""
        return [*map(str, ("--examples", self.examples, "--output", self.output, *more))]

    def make(self, *more: object) -> bool:
        """Run the stage as a job; returns whether its body ran."""
        ran = False

        def main() -> None:
            nonlocal ran
            args = self.arguments().parse_args(self.words(*more))
            ran = True
            with Artifact.create(
                args.output, spec=args.spec, parents={"examples": args.examples}, script=self.script
            ) as draft:
                draft.path("weights/a.bin").write_bytes(b"w" * 300_000)
                draft.path("history.csv").write_text("step,loss\n1,0.5\n")
                draft.record(loss=5e-07)
                self.during()

        self.output.unlink(missing_ok=True)  # as Snakemake does
        self.patch.setattr(sys, "argv", [str(self.script)])
        with pytest.raises(SystemExit) as stop:
            cli.run(main)
        assert not stop.value.code
        verify(self.output)
        return ran

    def key(self, *more: object) -> str:
        """The key of the work."""
        work = self.arguments().work(self.words(*more))
        assert work is not None
        key = key_of(work, self.script)
        assert key is not None
        return key


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (store.VARIABLE, store.REUSE, interruption.FOLDER, "RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Clone, Clone]:
    return Clone(tmp_path / "one", monkeypatch), Clone(tmp_path / "two" / "deeper", monkeypatch)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store, in use."""
    folder = tmp_path / "store"
    folder.mkdir()
    monkeypatch.setenv(store.VARIABLE, str(folder))
    return folder


@pytest.fixture
def entry(clones: tuple[Clone, Clone], shared: Path) -> Path:
    """What the first clone has published."""
    assert clones[0].make()
    return store.place(shared, clones[0].key())


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# -- the key -------------------------------------------------------------------------------------------------------


def test_a_key_is_the_same_in_another_folder_and_with_other_options(clones: tuple[Clone, Clone]) -> None:
    one, two = clones
    two.script.write_text(CODE.replace("y", "z").replace("a comment", "another"))
    assert one.key() == two.key("--micro-batch-size", 2)


def test_a_key_is_another_where_the_result_may_be(
    clones: tuple[Clone, Clone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, _ = clones
    plain, folder = tmp_path / "published.csv", tmp_path / "local"
    folder.mkdir()
    plain.write_text("1")
    (folder / "a.txt").write_text("a")
    keys = {
        "as it is": clone.key(),
        "a setting": clone.key("--beta", 0.2),
        "one more input": clone.key("--plain", plain),
        "it in another role": clone.key("--labels", plain),
        "twice": clone.key("--labels", plain, plain),
        "with another": clone.key("--labels", plain, clone.examples),
        "in another order": clone.key("--labels", clone.examples, plain),
        "a folder": clone.key("--folder", folder),
    }
    plain.write_text("2")
    (folder / "a.txt").write_text("b")
    keys["the input's content"] = clone.key("--plain", plain)
    keys["the folder's content"] = clone.key("--folder", folder)
    elsewhere = folder.rename(tmp_path / "elsewhere")
    assert clone.key("--folder", elsewhere) == keys["the folder's content"], "its place does not count"
    other = plain.rename(tmp_path / "other.csv")
    keys["the input's place"] = clone.key("--plain", other)
    clone.give("other rows")
    keys["an artifact's content"] = clone.key()
    clone.give("rows")
    assert clone.key() == keys["as it is"]
    clone.output = clone.output.parent.parent / "b" / "manifest.json"
    assert clone.key() == keys["as it is"], "beside, as far from its inputs"
    clone.output = clone.output.parent / "c" / "manifest.json"
    keys["the output's place"] = clone.key()
    clone.output = clone.output.parent.parent.parent / "a" / "manifest.json"
    with monkeypatch.context() as patch:
        patch.setattr(artifact, "software", lambda: {"python": "3.11", "libraries": {"torch": "9.9"}})
        keys["a library"] = clone.key()
    with monkeypatch.context() as patch:
        patch.setattr(artifact, "container_digest", lambda: "sha256:1")
        keys["a container"] = clone.key()
    clone.script.write_text(CODE + "B = 1\n")
    keys["code"] = clone.key()
    clone.script.write_text(CODE)
    clone.script = clone.script.rename(clone.script.with_name("another.py"))
    keys["the stage's name"] = clone.key()
    assert len(set(keys.values())) == len(keys), keys


def test_no_key_where_an_input_cannot_be_read(clones: tuple[Clone, Clone], tmp_path: Path) -> None:
    clone, _ = clones
    work = clone.arguments().work(clone.words("--plain", tmp_path / "gone"))
    assert work is not None
    assert key_of(work, clone.script) is None
    clone.examples.unlink()
    work = clone.arguments().work(clone.words())
    assert work is not None
    assert key_of(work, clone.script) is None


def test_figures_have_no_key() -> None:
    parser = cli.StageParser("A figure.")
    parser.input("--tables")
    parser.output("--pdf")
    assert parser.work(["--tables", "t/manifest.json", "--pdf", "a.pdf"]) is None
    page = cli.StageParser("A page.")
    page.output("--output")
    assert page.work(["--output", "report.html"]) is None
    assert isinstance(page.work(["--output", "x/manifest.json"]), Work)


def test_undeclared_files_of_a_local_source_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their content: an edited one is fetched anew, the same ones elsewhere are not."""
    folder, output = tmp_path / "data", tmp_path / "resources" / "mine" / "manifest.json"
    folder.mkdir()
    (folder / "declared.csv").write_text("a")
    (folder / "undeclared.csv").write_text("b")
    sha256 = artifact.file_digest(folder / "declared.csv")

    def fetched(folder: Path) -> str:
        """The time of the fetching, which is kept where nothing is fetched."""
        output.unlink(missing_ok=True)
        words = ["--kind", "local", "--folder", str(folder), "--output", str(output)]
        words += ["--files", f"declared.csv={sha256}", "undeclared.csv="]
        monkeypatch.setattr(sys, "argv", [fetch.__file__, *words])
        with pytest.raises(SystemExit) as stop:
            cli.run(fetch.main)
        assert not stop.value.code
        verify(output)
        return load_run(output)["seal"]

    first = fetched(folder)
    assert fetched(folder) == first
    folder = folder.rename(tmp_path / "elsewhere")
    assert fetched(folder) == first
    (folder / "undeclared.csv").write_text("c")
    assert fetched(folder) != first
    assert (output.parent / "undeclared.csv").read_text() == "c"


# -- in place ------------------------------------------------------------------------------------------------------


def test_the_same_work_is_done_once(clones: tuple[Clone, Clone], caplog: pytest.LogCaptureFixture) -> None:
    clone, _ = clones
    assert clone.make()
    assert load_run(clone.output)["key"] == clone.key()
    before = clone.output.read_bytes()
    with caplog.at_level(logging.INFO):
        assert not clone.make()
    assert "nothing is left to do" in caplog.text
    assert clone.output.read_bytes() == before
    assert clone.make("--beta", 0.2)
    assert clone.make(), "changed back, what stood was replaced"
    clone.give("rows")
    assert not clone.make(), "an input that was made again to the same bytes"
    assert not clone.make("--micro-batch-size", 2)


def test_a_damaged_one_is_made_again(clones: tuple[Clone, Clone]) -> None:
    clone, _ = clones
    assert clone.make()
    (clone.output.parent / "history.csv").write_text("step,loss\n1,0.6\n")
    assert clone.make()


def test_reuse_can_be_switched_off(
    clones: tuple[Clone, Clone], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clones[0].make()
    monkeypatch.setenv(store.REUSE, "no")
    assert clones[0].make()
    assert clones[1].make()


def test_who_runs_a_stage_over_its_artifact_wants_it_made(
    clones: tuple[Clone, Clone], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, _ = clones
    assert clone.make()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        assert clone.make()


@pytest.mark.parametrize("change", ["code", "input"])
def test_what_changed_meanwhile_has_no_key(
    clones: tuple[Clone, Clone], shared: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Sources or inputs were edited while the stage ran: nobody knows what its artifact is of."""
    clone, other = clones

    def edit() -> None:
        clone.script.write_text(CODE + "B = 2\n") if change == "code" else clone.give("others")

    clone.during = edit
    assert clone.make()
    assert "key" not in load_run(clone.output)
    assert not files(shared)
    assert [record.name for record in caplog.records if record.levelname == "WARNING"] == ["w2s.cli"]
    clone.during = lambda: None
    assert clone.make()


# -- the store -----------------------------------------------------------------------------------------------------


def test_another_clone_fetches(
    clones: tuple[Clone, Clone], entry: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = clones
    state = checkpoints.state_root(two.output)
    (state / "key" / "checkpoint-3").mkdir(parents=True)
    os.utime(entry, (1, 1))
    with caplog.at_level(logging.INFO):
        assert not two.make("--micro-batch-size", 2)
    assert f"was fetched from {entry}" in caplog.text
    assert two.output.read_bytes() == one.output.read_bytes()
    made, fetched = load_run(one.output), load_run(two.output)
    assert fetched["fetched"]["from"] == str(entry)
    assert fetched["fetched"]["at"] >= made["started"]
    assert {name: value for name, value in fetched.items() if name not in ("fetched", "seal")} == {
        name: value for name, value in made.items() if name != "seal"
    }
    assert not state.exists(), "what an interrupted attempt had left"
    assert entry.stat().st_mtime > 1, "its last use"
    assert not two.make(), "and then in place"
    (two.output.parent / "history.csv").write_text("it is the user's own")


def test_what_is_published_is_read_only_and_open_to_the_group(
    clones: tuple[Clone, Clone], shared: Path
) -> None:
    shared.chmod(0o2775)
    former = os.umask(0o002)
    try:
        assert clones[0].make()
    finally:
        os.umask(former)
    entry = store.place(shared, clones[0].key())
    assert {path.stat().st_mode & 0o777 for path in files(entry)} == {0o444}
    for folder in (entry.parent, entry, entry / "weights"):
        assert folder.stat().st_mode & 0o7777 == 0o2775, folder
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]


def test_what_was_made_before_there_was_a_store_is_published_when_it_is_asked_for_again(
    clones: tuple[Clone, Clone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clones[0].make()
    (tmp_path / "store").mkdir()
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "store"))
    assert not clones[0].make()
    assert not clones[1].make()


def flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_flipped_bit_is_never_fetched(
    clones: tuple[Clone, Clone], entry: Path, record_property: Callable[[str, object], None]
) -> None:
    """A bit of any byte of any file; of the records, which are small, every byte."""
    draw = random.Random(7)
    places = [
        (path, position)
        for path in files(entry)
        for position in (
            range(path.stat().st_size)
            if path.suffix == ".json"
            else [draw.randrange(path.stat().st_size) for _ in range(40)]
        )
    ]
    clones[1].output.parent.parent.mkdir(parents=True)
    for path, position in places:
        whole = path.read_bytes()
        flip(path, position, draw.randrange(8))
        with pytest.raises(artifact.ArtifactError):
            store.check(entry / "manifest.json", entry.name)
        path.write_bytes(whole)
    store.check(entry / "manifest.json", entry.name)
    record_property("cases", len(places))


@pytest.mark.parametrize("name", ["weights/a.bin", "history.csv", "manifest.json", "run.json"])
def test_a_damaged_entry_is_set_aside_and_published_anew(
    clones: tuple[Clone, Clone], entry: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    flip(entry / name, 5, 0)
    assert clones[1].make()
    (aside,) = [path for path in entry.parent.iterdir() if path != entry]
    assert aside.name.startswith(f"{entry.name}.damaged-")
    assert f"damaged artifact, set aside as {aside}" in caplog.text
    store.check(entry / "manifest.json", entry.name)
    shutil.rmtree(clones[1].output.parent)
    assert not clones[1].make()


def tear(entry: Path) -> None:
    (entry / "history.csv").unlink()


def cut_short(entry: Path) -> None:
    (entry / "weights" / "a.bin").chmod(0o644)
    os.truncate(entry / "weights" / "a.bin", 7)


def without_records(entry: Path) -> None:
    (entry / "manifest.json").unlink()
    (entry / "run.json").unlink()


def empty(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.mkdir()


def add(entry: Path) -> None:
    (entry / "more.bin").write_text("more")


def link(entry: Path) -> None:
    content = (entry / "history.csv").rename(entry.parent.parent / "history.csv")
    (entry / "history.csv").symlink_to(content)


@pytest.mark.parametrize("damage", [tear, cut_short, without_records, empty, add, link])
def test_a_torn_entry_is_set_aside(
    clones: tuple[Clone, Clone], entry: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(entry)
    assert clones[1].make()
    assert "damaged artifact, set aside" in caplog.text
    store.check(entry / "manifest.json", entry.name)


def test_an_entry_of_other_work_is_set_aside(
    clones: tuple[Clone, Clone], entry: Path, shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whole in itself, but somebody has copied it to where it does not belong."""
    wrong = store.place(shared, clones[1].key("--beta", 0.3))
    wrong.parent.mkdir(exist_ok=True)
    shutil.copytree(entry, wrong)
    assert clones[1].make("--beta", 0.3)
    assert "not what was made by work of this key" in caplog.text


def test_an_entry_that_is_pruned_meanwhile_is_no_damage(
    clones: tuple[Clone, Clone],
    entry: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = store._copy_file

    def gone(source: Path, target: Path, kept: bool) -> None:
        if entry.is_dir():
            command.removed(entry)
        copy(source, target, kept)

    with monkeypatch.context() as patch:
        patch.setattr(store, "_copy_file", gone)
        assert not store.fetch(clones[1].output, entry.name)
    assert caplog.text == ""
    assert not clones[1].output.parent.exists()
    assert list(entry.parent.iterdir()) == []


def test_a_copy_that_is_damaged_on_its_way_leaves_the_entry(
    clones: tuple[Clone, Clone],
    entry: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = store._copy_file

    def badly(source: Path, target: Path, kept: bool) -> None:
        copy(source, target, kept)
        if target.name == "history.csv":
            flip(target, 3, 3)

    monkeypatch.setattr(store, "_copy_file", badly)
    assert not store.fetch(clones[1].output, entry.name)
    assert "damaged on its way" in caplog.text
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]
    shutil.rmtree(entry)
    assert not store.publish(clones[0].output, entry.name)
    assert "cannot be published" in caplog.text
    assert list(entry.parent.iterdir()) == []


@contextmanager
def little_room(size: int) -> Iterator[None]:
    """No file may be larger than ``size``."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_store_is_a_warning(
    clones: tuple[Clone, Clone],
    shared: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish = store.publish

    def with_little_room(output: Path, key: str | None) -> bool:
        with little_room(100_000):
            return publish(output, key)

    monkeypatch.setattr(store, "publish", with_little_room)
    assert clones[0].make()
    assert f"cannot be published in the store {shared}" in caplog.text and "File too large" in caplog.text
    assert not files(shared)
    assert [list(shelf.iterdir()) for shelf in shared.iterdir()] == [[]]


def test_no_room_for_what_is_fetched_is_a_warning(
    clones: tuple[Clone, Clone], entry: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with little_room(100_000):
        assert not store.fetch(clones[1].output, entry.name)
    assert "the work goes on without" in caplog.text and "File too large" in caplog.text
    assert not list(clones[1].output.parent.parent.iterdir())
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]


@pytest.mark.parametrize("what", ["absent", "a file"])
def test_a_store_that_is_not_there_is_a_warning(
    clones: tuple[Clone, Clone], shared: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    shared.rmdir()
    if what == "a file":
        shared.write_text("not a folder")
    assert clones[0].make()
    assert "cannot be read from the store" in caplog.text and "cannot be published" in caplog.text
    assert what == "a file" or not shared.exists(), "a mistyped path is not made"


def as_another(function: Callable[[Path, str], bool], output: Path, key: str) -> tuple[bool, str]:
    """What another user (this one, where the tests are not root's) gets, and what is logged then."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            log = io.StringIO()
            store.logger.addHandler(logging.StreamHandler(log))
            outcome = function(output, key)
            os.write(writer, json.dumps([outcome, log.getvalue()]).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        outcome, log = json.load(stream)
    return outcome, log


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_store_of_others_is_read_or_left_alone(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """Read-only: fetched from, and nothing is published there; closed: a warning either way."""
    clone, shared, theirs = (
        Clone(open_folder / "one", monkeypatch),
        open_folder / "store",
        open_folder / "theirs",
    )
    shared.mkdir()
    monkeypatch.setenv(store.VARIABLE, str(shared))
    assert clone.make()
    entry = store.place(shared, clone.key())
    shutil.copytree(clone.output.parent, theirs / "made")
    theirs.chmod(0o777)
    empty = open_folder / "empty"
    empty.mkdir()
    for path in (shared, entry.parent, entry, empty):
        path.chmod(mode)
    try:
        fetched, told = as_another(store.fetch, theirs / "fetched" / "manifest.json", entry.name)
        monkeypatch.setenv(store.VARIABLE, str(empty))
        published, told_too = as_another(store.publish, theirs / "made" / "manifest.json", entry.name)
    finally:
        for path in (shared, entry.parent, entry, empty):
            path.chmod(0o755)
    assert fetched == (mode == 0o555)
    assert "Permission denied" in told if mode == 0 else told == "", told
    assert not published
    assert "cannot be published" in told_too and "Permission denied" in told_too
    assert not list(empty.iterdir())


def publish_at_once(output: Path, key: str, results: list[bool], ready: object) -> None:
    ready.wait()  # type: ignore[attr-defined]
    results.append(store.publish(output, key))


def test_of_several_publishers_the_first_wins(clones: tuple[Clone, Clone], shared: Path) -> None:
    clone, _ = clones
    os.environ.pop(store.VARIABLE)
    assert clone.make()
    os.environ[store.VARIABLE] = str(shared)
    key = clone.key()
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        for _ in range(5):
            results, ready = manager.list(), context.Barrier(6)
            processes = [
                context.Process(target=publish_at_once, args=(clone.output, key, results, ready))
                for _ in range(6)
            ]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            assert list(results) == [True] * 6
            entry = store.place(shared, key)
            assert [path.name for path in entry.parent.iterdir()] == [key]
            store.check(entry / "manifest.json", key)
            shutil.rmtree(entry)


def test_a_publisher_that_is_killed_leaves_nothing_that_is_taken(
    clones: tuple[Clone, Clone], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, other = clones
    with monkeypatch.context() as patch:
        patch.delenv(store.VARIABLE)
        assert clone.make()
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, "rename", lambda *_: os._exit(9))
        store.publish(clone.output, clone.key())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(files(shared)) == 4
    assert other.make()
    (unfinished,) = [found for found in command.entries_of(shared) if not found.whole]
    assert unfinished.stage == "unfinished"
    os.utime(unfinished.path, (1, 1))
    assert command.main(["--store", str(shared), "prune", "--keep-days", "9"]) == 0
    assert [found.whole for found in command.entries_of(shared)] == [True]


def test_who_is_asked_to_stop_while_publishing_cleans_up(
    clones: tuple[Clone, Clone], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.delenv(store.VARIABLE)
        assert clones[0].make()

    def stop(*_: object) -> None:
        raise interruption.Stop

    monkeypatch.setattr(artifact, "verify", stop)
    with pytest.raises(interruption.Stop):
        store.publish(clones[0].output, clones[0].key())
    assert not files(shared)


def test_of_several_processes_of_a_stage_one_publishes(
    clones: tuple[Clone, Clone], shared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And none looks: launch.py has done it for all."""
    monkeypatch.setenv(interruption.FOLDER, str(tmp_path))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(interruption, "die_with_parent", lambda *_: None)
    before = signal.getsignal(signal.SIGTERM)  # a launched stage that is done is deaf to it
    try:
        assert clones[0].make()
        assert not files(shared)
        monkeypatch.setenv("RANK", "0")
        assert clones[0].make()
        assert files(shared)
    finally:
        signal.signal(signal.SIGTERM, before)


# -- the command ---------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = command.main(list(words))
    return code, capsys.readouterr().out


@pytest.fixture
def three(clones: tuple[Clone, Clone], shared: Path) -> list[Path]:
    """Entries that were used ten, five and no days ago."""
    made = []
    for days, beta in ((10, 0.1), (5, 0.2), (0, 0.3)):
        assert clones[0].make("--beta", beta)
        made.append(store.place(shared, clones[0].key("--beta", beta)))
        os.utime(made[-1], (time.time() - days * command.DAY,) * 2)
    return made


def test_the_list(three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "list")
    lines = text.splitlines()
    assert code == 0
    assert [line.split()[-1] for line in lines[:3]] == [entry.name for entry in three]
    assert [line.split()[3] for line in lines[:3]] == ["10.0", "5.0", "0.0"]
    assert all(line.startswith("stage ") for line in lines[:3])
    assert lines[3].startswith("3 artifacts, 0.001 GB")


def test_damage_is_named(three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "verify") == (0, "3 artifacts verified, 0 problems\n")
    flip(three[1] / "history.csv", 2, 2)
    code, text = run(capsys, "verify")
    assert code == cli.EXIT_WRONG_INPUT
    assert "'history.csv' was altered" in text and str(three[1]) in text
    assert text.endswith("3 artifacts verified, 1 problems\n")


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        (["--keep-days", "7"], [1, 2]),
        (["--keep-days", "3"], [2]),
        (["--keep-days", "0"], []),
        (["--max-gb", "1"], [0, 1, 2]),
        (["--max-gb", "0.0007"], [1, 2]),
        (["--max-gb", "0.0004"], [2]),
        (["--keep-days", "7", "--max-gb", "0.0004"], [2]),
    ],
)
def test_what_is_pruned(
    three: list[Path], limits: list[str], left: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(capsys, "prune", *limits, "--dry-run")
    assert code == 0 and all(entry.is_dir() for entry in three)
    assert text.count("would remove") == 3 - len(left)
    code, text = run(capsys, "prune", *limits)
    assert code == 0 and text.count("removing") == 3 - len(left)
    assert [number for number, entry in enumerate(three) if entry.is_dir()] == left
    assert sum(1 for entry in three for _ in entry.parent.glob(".*")) == 0


def test_what_is_pruned_is_gone_before_its_first_file_is(
    three: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who fetches meanwhile finds an entry whole or not at all."""
    seen: list[bool] = []
    monkeypatch.setattr(shutil, "rmtree", lambda _: seen.append(three[0].is_dir()))
    assert run(capsys, "prune", "--keep-days", "7")[0] == 0
    assert seen == [False]


def test_what_was_set_aside_goes_after_a_day(three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    aside = [entry.rename(f"{entry}{store.DAMAGED}0") for entry in three]
    assert run(capsys, "list")[1].count("damaged ") == 3
    assert run(capsys, "verify") == (0, "0 artifacts verified, 0 problems\n")
    run(capsys, "prune", "--max-gb", "1")
    assert [entry.is_dir() for entry in aside] == [False, False, True]


def test_wrong_uses_are_named(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="nothing says what may go"):
        command.main(["prune"])
    with pytest.raises(ConfigError, match="no artifact store"):
        command.main(["--store", str(tmp_path / "gone"), "list"])
    monkeypatch.delenv(store.VARIABLE)
    with pytest.raises(ConfigError, match="no artifact store"):
        command.main(["list"])


def test_an_entry_that_cannot_be_read_is_listed(
    three: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (three[0] / "manifest.json").unlink()
    assert run(capsys, "list")[1].count("unreadable ") == 1


def test_records_are_canonical(clones: tuple[Clone, Clone]) -> None:
    """The same number in other letters: the seal fits, and the bytes are others."""
    clone, _ = clones
    assert clone.make()
    clone.output.write_text(clone.output.read_text().replace("5e-07", "5E-07"))
    assert load(clone.output).facts == {"loss": 5e-07}
    with pytest.raises(artifact.ArtifactError, match="'manifest.json' was altered"):
        verify(clone.output)
    assert json.loads(clone.output.read_text())
