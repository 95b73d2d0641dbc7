"""Command lines of the stages: roles of arguments, exit codes, messages."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from w2s import cli
from w2s.errors import DataError


def parser() -> cli.StageParser:
    stage = cli.StageParser("Make a thing.\n\nInputs: examples.")
    stage.input("--examples", help="examples")
    stage.input("--scores", nargs="*", help="scores")
    stage.output("--output", help="the thing")
    stage.spec("--beta", type=float, help="scale")
    stage.spec("--loss-on", default="completion", choices=["completion", "all"])
    stage.option("--micro-batch-size", type=cli.positive_int, default=8)
    return stage


NEEDED = ["--examples", "e/manifest.json", "--output", "o/manifest.json", "--beta", "5e-7"]


def test_the_spec_holds_what_changes_the_result_and_nothing_else() -> None:
    args = parser().parse_args([*NEEDED, "--micro-batch-size", "2"])
    assert args.spec == {"beta": 5e-07, "loss_on": "completion"}
    assert args.micro_batch_size == 2
    assert args.examples == Path("e/manifest.json")
    assert args.scores == []


def test_several_inputs() -> None:
    args = parser().parse_args([*NEEDED, "--scores", "a", "b"])
    assert args.scores == [Path("a"), Path("b")]


@pytest.mark.parametrize("missing", ["--examples", "--output", "--beta"])
def test_required_arguments_are_named(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    at = NEEDED.index(missing)
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(NEEDED[:at] + NEEDED[at + 2 :])
    assert stop.value.code == 2
    assert missing in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (["--bet", "1"], "--bet"),  # no abbreviations: a new flag must not change what an old one means
        (["--loss-on", "prompt"], "prompt"),
        (["--micro-batch-size", "0"], "at least 1"),
        (["--micro-batch-size", "1.5"], "1.5"),
        (["--unknown"], "--unknown"),
    ],
)
def test_wrong_arguments_are_named(extra: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(NEEDED + extra)
    assert stop.value.code == 2
    assert named in capsys.readouterr().err


def test_help_shows_the_documentation_and_the_roles(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "Make a thing." in text
    assert text.index("spec (changes the result)") < text.index("options (change how, not what)")


@pytest.mark.parametrize(
    ("text", "value"), [("1/2", 0.5), ("1/16", 0.0625), ("0.1", 0.1), ("1", 1.0), ("0", 0.0)]
)
def test_shares(text: str, value: float) -> None:
    assert cli.share(text) == value


@pytest.mark.parametrize("text", ["3/2", "-0.1", "1.01"])
def test_a_share_lies_between_0_and_1(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="between 0 and 1"):
        cli.share(text)


def test_json_values() -> None:
    assert cli.json_object('{"seed": 7}') == {"seed": 7}
    assert cli.json_array('[{"path": "a"}]') == [{"path": "a"}]


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (cli.json_object, "{seed}", "not JSON"),
        (cli.json_object, "[7]", r"a JSON object is needed, not \[7\]"),
        (cli.json_array, "{}", "a JSON array is needed, not {}"),
        (cli.json_object, '{"rate": NaN}', "NaN is no finite number"),
        (cli.json_array, "[-Infinity]", "-Infinity is no finite number"),
        (cli.json_array, "[1.5, 1e999]", "1e999 is no finite number"),
    ],
)
def test_other_json_is_refused(kind: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        kind(text)


def test_wrong_input_ends_with_2_and_its_message_only(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise DataError("label 'maybe' is neither 0 nor 1", where="labels.parquet, row 7", instead="0 or 1")

    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert stop.value.code == cli.EXIT_WRONG_INPUT == 2
    assert capsys.readouterr().err == (
        "error: label 'maybe' is neither 0 nor 1\n  where:   labels.parquet, row 7\n  instead: 0 or 1\n"
    )


@pytest.mark.parametrize(("outcome", "code"), [(None, 0), (0, 0), (3, 3)])
def test_exit_codes(outcome: int | None, code: int) -> None:
    def main() -> int | None:
        return outcome

    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert stop.value.code == code


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: 1 // 0)


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("0", None), ("many", None), ("", None)])
def test_threads(monkeypatch: pytest.MonkeyPatch, given: str, expected: int | None) -> None:
    import os

    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert cli.threads() == (expected or os.cpu_count())


ROOT = Path(__file__).resolve().parents[2]
RULES = "".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
STAGES = re.findall(r"(?:python|launch .*) scripts/(\w+)\.py\b", RULES)
LIGHT_PROBE = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = [name for name in ("torch", "transformers", "trl", "peft", "pandas", "matplotlib") if name in sys.modules]
assert not heavy, f"--help imports {heavy}"
"""


def test_each_rule_has_a_script_of_its_name() -> None:
    assert sorted(STAGES) == sorted(re.findall(r"^rule (\w+):", RULES, re.MULTILINE))


def test_the_commands_are_listed_from_a_folder_with_a_blank(tmp_path: Path) -> None:
    root = tmp_path / "my checkout"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "w2s", root / "w2s")
    (root / "scripts" / "look.py").write_text('"""Look at it.\n\n    ./w2s look results\n"""\n')
    (root / "scripts" / "stage.py").write_text('"""A stage, which is no command."""\n')
    listed = subprocess.run([root / "w2s"], capture_output=True, text=True)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout == "usage: ./w2s <command> [--help]\n  look       Look at it.\n"


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_explains_itself_without_heavy_libraries(stage: str) -> None:
    script = ROOT / "scripts" / f"{stage}.py"
    environment = {"PYTHONPATH": str(script.parent), "PATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", LIGHT_PROBE, str(script)], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) > 10
    assert any(flag in result.stdout for flag in ("--output", "--pdf", "--html"))
