"""From a result back to the raw data: every altered file is named."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import verify
from w2s.artifact import Artifact, files_digest, load, sealed, write_json
from w2s.verification import CRATE, Verification, crate_digests, crate_of

FILES = ("figures/f.png", "report.html", "scorecard/claims a.csv")


def make(folder: Path, content: str, parents: dict[str, Path]) -> Path:
    manifest = folder / "manifest.json"
    with Artifact.create(manifest, spec={"größe": 0.1}, parents=parents, script=__file__) as artifact:
        artifact.path("content.txt").write_text(content)
    return manifest


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    """raw -> table -> figure."""
    raw = make(tmp_path / "raw", "raw", {})
    table = make(tmp_path / "table", "table", {"raw": raw})
    return [raw, table, make(tmp_path / "figure", "figure", {"tables": table})]


@pytest.fixture
def run(chain: list[Path]) -> Iterator[Path]:
    """The chain with figures and pages beside it, a log, and an RO-Crate that describes them."""
    root = chain[0].parent.parent
    for name in (*FILES, "logs/stage/job.log"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    write_crate(root, FILES)
    crate_of.cache_clear()
    crate_digests.cache_clear()
    yield root
    crate_of.cache_clear()
    crate_digests.cache_clear()


def write_crate(root: Path, names: tuple[str, ...]) -> None:
    """What `verify` reads of an RO-Crate."""
    entities = [
        {"@id": name.replace(" ", "%20"), "@type": "File", "sha256": digest(root / name)} for name in names
    ]
    (root / CRATE).write_text(json.dumps({"@graph": [{"@id": "./", "@type": "Dataset"}, *entities]}))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def problems(path: Path) -> list[str]:
    return [str(problem) for problem in Verification().problems([path]) if problem is not None]


def test_untouched_chain_is_verified(chain: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(chain[-1])]) == 0
    assert "3 artifacts verified, 0 problems" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["table", "table/manifest.json", "table/run.json", "table/content.txt"])
def test_an_artifact_may_be_given_by_any_of_its_files(
    chain: list[Path], given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = chain[0].parent.parent
    assert verify.main([str(root / given)]) == 0
    assert "2 artifacts verified, 0 problems" in capsys.readouterr().out


def test_a_folder_stands_for_all_in_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(run)]) == 0
    output = capsys.readouterr().out
    assert "3 artifacts and 3 other files verified, 0 problems" in output
    assert "not looked at: logs, benchmarks, .snakemake" in output
    assert f"no record covers 1 file in {run}\n" in output  # the crate itself


def test_roots_are_what_is_verified_without_paths(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main(["--root", str(run / "table"), "--root", str(run / "figures")]) == 0
    assert "2 artifacts and 1 other files verified" in capsys.readouterr().out


def test_without_a_crate_it_is_said_how_much_no_record_covers(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / CRATE).unlink()
    (run / "figures" / ".snakemake_timestamp").touch()
    assert verify.main([str(run)]) == 0
    output = capsys.readouterr().out
    assert f"no record covers 1 file in {run}/figures" in output
    assert "3 artifacts verified" in output


def test_every_flipped_byte_is_found_and_named(run: Path, record_property) -> None:
    """One bit of each byte in turn, of the long run records of every seventh: the file is named, nothing else is."""
    covered = [run / name for name in FILES]
    covered += [path for name in ("raw", "table", "figure") for path in sorted((run / name).iterdir())]
    cases = 0
    for path in covered:
        content = path.read_bytes()
        for place in range(0, len(content), 7 if path.name == "run.json" else 1):
            changed = bytearray(content)
            changed[place] ^= 1 << (place % 8)
            path.write_bytes(changed)
            found = problems(path)
            assert len(found) == 1, (path, place, found)
            assert str(path) in found[0]
            cases += 1
        path.write_bytes(content)
    assert not problems(run)
    record_property("cases", cases)
    assert cases > 1500


@pytest.mark.parametrize("name", ["manifest.json", "run.json"])
@pytest.mark.parametrize(("blank", "other"), [(b" ", b"\t"), (b"\n", b" "), (b" ", b"  ")])
def test_a_record_that_says_the_same_otherwise_is_found(
    chain: list[Path], name: str, blank: bytes, other: bytes
) -> None:
    path = chain[1].with_name(name)
    path.write_bytes(path.read_bytes().replace(blank, other, 1))
    load(chain[1])  # the seal is whole
    (found,) = problems(chain[1])
    assert f"file {name!r} was altered" in found


def test_expected_and_found_digests_are_told(chain: list[Path]) -> None:
    path = chain[1].with_name("content.txt")
    before = digest(path)
    path.write_text("other")
    (found,) = problems(chain[1])
    assert f"expected {before[:12]}, found {digest(path)[:12]}" in found


@pytest.mark.parametrize("altered", [0, 1, 2])
def test_each_altered_file_is_found(
    chain: list[Path], altered: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (chain[altered].parent / "content.txt").write_text("other")
    assert verify.main([str(chain[-1])]) == 2
    output = capsys.readouterr().out
    assert str(chain[altered].parent) in output
    assert "altered" in output


def test_all_altered_files_are_named_not_the_first_alone(run: Path) -> None:
    for name in ("raw/content.txt", "table/content.txt", "report.html"):
        (run / name).write_text("other")
    assert len(problems(run)) == 3


def test_a_removed_and_an_added_file_are_found(run: Path) -> None:
    (run / "table" / "content.txt").unlink()
    (run / "table" / "notes.txt").write_text("mine")
    found = problems(run / "table")
    assert ["gone" in found[0], "'notes.txt' does not belong" in found[1], len(found)] == [True, True, 2]


def test_a_run_record_alone_is_found(run: Path) -> None:
    (run / "raw" / "manifest.json").unlink()
    assert any("without its manifest.json" in problem for problem in problems(run))


def test_an_ancestor_made_again_with_other_content_is_found(
    chain: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = load(chain[0]).digest[:12]
    make(chain[0].parent, "other raw", {})
    assert verify.main([str(chain[-1])]) == 2
    output = capsys.readouterr().out
    assert f"made again after something was made from it (expected {before}, found " in output


def test_a_missing_ancestor_is_found(chain: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    chain[0].unlink()
    assert verify.main([str(chain[-1])]) == 2
    assert "not there" in capsys.readouterr().out


def test_an_alteration_needs_more_than_new_digests_and_a_new_seal(chain: list[Path]) -> None:
    """Whoever alters a file and its manifest, seal and all, is found by what was made from it."""
    path = chain[0].with_name("content.txt")
    path.write_text("other")
    manifest = json.loads(chain[0].read_text())
    manifest["files"]["content.txt"]["sha256"] = digest(path)
    write_json(sealed(manifest), chain[0])
    (found,) = problems(chain[0])
    assert "digest is not that of its files" in found
    manifest["digest"] = files_digest(manifest["files"])
    write_json(sealed(manifest), chain[0])
    assert not problems(chain[0])
    (found,) = problems(chain[1])
    assert "made again" in found


def test_what_killed_runs_left_is_no_problem(run: Path) -> None:
    for name in (".table.abcdefgh.partial", ".table.abcdefgh.former", "table.state"):
        shutil.copytree(run / "raw", run / name)
        (run / name / "content.txt").write_text("torn")
    assert not problems(run)


def test_a_crate_that_cannot_be_read_is_told(run: Path) -> None:
    (run / CRATE).write_text("{")
    (found,) = problems(run)
    assert "RO-Crate cannot be read" in found


@pytest.mark.parametrize("where", ["", "figures"])
def test_a_figure_that_is_gone_is_missed(run: Path, where: str) -> None:
    (run / FILES[0]).unlink()
    (found,) = problems(run / where)
    assert "'f.png' is listed in ro-crate-metadata.json but gone" in found


def test_a_card_may_go_with_its_model(run: Path) -> None:
    card = run / "figure" / "README.md"
    card.write_text("a card")
    write_crate(run, (*FILES, "figure/README.md"))
    shutil.rmtree(card.parent)
    assert not problems(run)


def test_a_link_that_leads_out_is_no_file_of_the_artifact(run: Path) -> None:
    """...although it has the same content, today."""
    path = run / "raw" / "content.txt"
    path.rename(run.parent / "elsewhere.txt")
    path.symlink_to(run.parent / "elsewhere.txt")
    (found,) = problems(run / "raw")
    assert "a link that leads out" in found


def test_links_in_a_circle_lead_out(run: Path) -> None:
    path = run / "raw" / "content.txt"
    path.unlink()
    path.symlink_to(path)
    (found,) = problems(run / "raw")
    assert "a link that leads out" in found


def test_a_folder_that_is_linked_in_is_found(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (run / "raw" / "more").symlink_to(tmp_path_factory.mktemp("other"), target_is_directory=True)
    (found,) = problems(run / "raw")
    assert "'more' does not belong" in found


@pytest.mark.parametrize("folder", ["logs", "benchmarks", "x.state", "x.partial"])
def test_no_folder_s_name_hides_what_is_added_to_an_artifact(run: Path, folder: str) -> None:
    (run / "raw" / folder).mkdir()
    (run / "raw" / folder / "x.txt").write_text("added")
    (found,) = problems(run)
    assert "does not belong" in found


def test_a_model_may_be_called_like_what_is_not_looked_at(run: Path) -> None:
    made = make(run / "models" / "benchmarks", "weights", {})
    assert not problems(run)
    made.with_name("content.txt").write_text("other weights")
    (found,) = problems(run)
    assert "'content.txt' was altered" in found


def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_verified(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashed(path: Path) -> str:
        if path.name in ("content.txt", "f.png"):
            raise PermissionError(13, "Permission denied")
        return digest(path)

    monkeypatch.setattr("w2s.verification.file_digest", hashed)
    found = problems(run)
    assert len(found) == 4
    assert all("cannot be read (Permission denied)" in problem for problem in found)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(verify.ArtifactError, match="no such file"):
        verify.main([str(tmp_path / "none")])
