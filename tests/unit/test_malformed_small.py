"""The small readers: printed values, claims, images, GPU lists, wordings, command lines, in every wrong form."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, reject
from hypothesis import strategies as st
from preset_files import ROOT
from strategies import Record, anything, changed, damaged, odd_texts, refusal, refused_or, tried
from w2s import cli, gpus, images, wordings
from w2s.claims import read_claims
from w2s.config import expand_origin
from w2s.endpoints import Settings
from w2s.results import read_published

PUBLISHED = ROOT / "published"


@pytest.mark.parametrize("name", sorted(path.name for path in PUBLISHED.glob("values*.csv")))
def test_printed_values_of_another_form(tmp_path: Path, record_property: Record, name: str) -> None:
    """A cell, a row, a header: read, or refused by row and column. No number is made of what is none."""
    rows = list(csv.reader(io.StringIO((PUBLISHED / name).read_text(encoding="utf-8"))))[:6]
    path = tmp_path / name
    cell = odd_texts.filter(lambda text: "\ud800" not in text and "\x00" not in text) | st.sampled_from(
        ["1e999", "-inf", "1,5", "١", "0x10", "1_000"]
    )

    def check(change: tuple[int, int, str]) -> None:
        spoilt = [list(row) for row in rows]
        spoilt[change[0]][change[1]] = change[2]
        stream = io.StringIO()
        csv.writer(stream).writerows(spoilt)
        path.write_text(stream.getvalue(), encoding="utf-8")
        found = refused_or(lambda: read_published(path), name)
        assert found is None or len(found) == len(rows) - 1

    places = st.tuples(st.integers(0, len(rows) - 1), st.integers(0, len(rows[0]) - 1), cell)
    tried(record_property, places, 80, check)


@pytest.mark.parametrize("name", sorted(path.name for path in PUBLISHED.glob("values*.csv")))
def test_damaged_printed_values(tmp_path: Path, record_property: Record, name: str) -> None:
    path = tmp_path / name
    whole = b"".join((PUBLISHED / name).read_bytes().splitlines(keepends=True)[:6])

    def check(content: bytes) -> None:
        path.write_bytes(content)
        refused_or(lambda: read_published(path), name)

    tried(record_property, damaged(whole), 60, check)


@pytest.mark.parametrize("name", sorted(path.name for path in PUBLISHED.glob("claims*.yaml")))
def test_claims_of_another_form(tmp_path: Path, record_property: Record, name: str) -> None:
    whole = yaml.safe_load((PUBLISHED / name).read_text(encoding="utf-8"))
    whole["claims"] = whole["claims"][:3]
    whole["printed"] = whole.get("printed", [])[:2]
    path = tmp_path / name

    def check(content: Any) -> None:
        try:
            path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        except (yaml.YAMLError, UnicodeEncodeError):
            reject()
        refused_or(lambda: read_claims(path), name)

    tried(record_property, changed(whole) | anything, 100, check)


def test_images_of_another_form(tmp_path: Path, record_property: Record) -> None:
    path = tmp_path / images.NAMES_FILE
    path.parent.mkdir()

    def check(content: Any) -> None:
        try:
            path.write_text(yaml.safe_dump(content), encoding="utf-8")
        except (yaml.YAMLError, UnicodeEncodeError):
            reject()
        found = refused_or(lambda: images.read_images(tmp_path), "images.yaml")
        for image in (found or {}).values():
            assert image.reference is None or "sha256:" in image.reference
            refused_or(lambda: images.check_image(image), "instead:")  # noqa: B023

    whole = {"ml": None, "light": "sha256:" + "0" * 64, "pulled": "docker://h/n@sha256:" + "1" * 64}
    tried(record_property, changed(whole) | anything, 80, check)


def test_gpu_lists_of_another_form(
    monkeypatch: pytest.MonkeyPatch, record_property: Record, tmp_path: Path
) -> None:
    """As many devices as were asked for, each once, or a refusal that shows the list."""
    monkeypatch.setenv("W2S_GPU_LOCKS", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def check(text: str) -> None:
        monkeypatch.setenv(gpus.VISIBLE, text)

        def two() -> list[str]:
            with gpus.allocated(2) as devices:
                return devices

        found = refused_or(two, gpus.VISIBLE)
        assert found is None or len(set(found)) == 2

    words = st.sampled_from(
        ["0", "1", "-1", "", " 2 ", "GPU-1a", "MIG-x/1", "0", "a b", "../x", "é", "99999999999999999999"]
    )
    tried(record_property, st.lists(words, max_size=4).map(",".join), 80, check)


def test_wordings_of_another_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    name = "compare-1"
    whole = (wordings.FOLDER / f"{name}.txt").read_bytes()
    digest = "2f9894a3f907d86a05225b1ad06076a39ca71610fc4dd72ec2130fb12cc634f4"
    assert wordings.read_pinned(name, digest, "x")[0].encode() == whole
    monkeypatch.setattr(wordings, "FOLDER", tmp_path)

    def check(content: bytes) -> None:
        (tmp_path / f"{name}.txt").write_bytes(content)
        refusal(lambda: wordings.read_pinned(name, digest, "x"), f"{name}.txt")

    tried(record_property, damaged(whole).filter(lambda content: content != whole), 30, check)


def test_judge_settings_of_another_form(record_property: Record) -> None:
    whole = {
        "model": "judge",
        "temperature": 0.5,
        "top_p": 1.0,
        "max_tokens": 10,
        "limit": "max_tokens",
        "seed": 1,
        "extra": {},
    }
    world = {"world": {"pairs": 3}, "noise": 0.1}

    def check(content: Any) -> None:
        assume(isinstance(content, dict))
        refused_or(lambda: Settings.read(content), "judge settings")

    tried(record_property, changed(whole) | changed(world) | anything, 80, check)


def test_numbers_and_json_on_the_command_line(
    record_property: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    """argparse turns each into a usage error with the flag's name, exit code 2."""
    parser = cli.StageParser("")
    parser.spec("--share", type=cli.share, default=0.5)
    parser.spec("--number", type=cli.positive_int, default=1)
    parser.spec("--object", type=cli.json_object, default={})
    parser.spec("--array", type=cli.json_array, default=[])
    texts = odd_texts | st.sampled_from(
        ["1/0", "0/0", "1/2/3", "nan", "inf", "1e400", "9" * 5000, "[" * 5000, "{}", "[]", "1"]
    )

    def check(given: tuple[str, str]) -> None:
        try:
            args = parser.parse_args([f"--{given[0]}={given[1]}"])
        except SystemExit as error:
            assert error.code == 2 and f"--{given[0]}" in capsys.readouterr().err
        else:
            assert 0 <= args.share <= 1 and args.number >= 1
            assert isinstance(args.object, dict) and isinstance(args.array, list)

    tried(
        record_property, st.tuples(st.sampled_from(["share", "number", "object", "array"]), texts), 100, check
    )


def test_origins_of_another_form(record_property: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET", "folder")
    monkeypatch.delenv("UNSET", raising=False)
    pieces = st.lists(
        st.sampled_from(["${SET}", "${UNSET}", "$SET", "/", "a", "${", "}", "$"]), max_size=5
    ).map("".join)

    def check(origin: str) -> None:
        found = refused_or(lambda: expand_origin(origin, "name"), "sources.name.origin")
        assert (found is None) == ("${UNSET}" in origin)

    tried(record_property, pieces, 60, check)
