"""What scripts load before they are at work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import training_inputs

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
FIRST_BATCH = ROOT / "benchmarks" / "first_batch.py"
WITH_MODELS = {
    "answer_prompts",
    "generate",
    "import_model",
    "import_tokenizer",
    "pretrain_model",
    "reward_responses",
    "score_gold",
    "score_responses",
    "score_similarity",
    "train_reward_model",
    "train_student_dpo",
    "train_student_sft",
    "train_teacher_dpo",
    "train_teacher_reward",
    "train_teacher_sft",
    "tune_student",
}
ALL = sorted(path.stem for path in SCRIPTS.glob("*.py"))
LIGHT = [name for name in ALL if name not in WITH_MODELS]
HEAVY = {"torch", "transformers", "trl", "datasets", "accelerate", "peft", "sklearn", "scipy"}
# Three times what is aimed at: other people's work on the machine makes a processor slower, too.
MOST_SECONDS = 1.5


def script(name: str) -> str:
    return str(SCRIPTS / f"{name}.py")


def run(*command: object) -> str:
    """Standard output of a Python command."""
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measured(*words: object) -> dict[str, object]:
    return json.loads(run(FIRST_BATCH, *words).splitlines()[-1])


@pytest.mark.parametrize("name", LIGHT)
def test_light_scripts_load_no_heavy_library(name: str) -> None:
    found = measured("--imports", script(name))
    assert not HEAVY & set(found["packages"])
    assert ("matplotlib" in found["packages"]) == name.startswith("plot_")
    assert found["processor"] < MOST_SECONDS


HELP = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("name", ALL)
def test_help_waits_for_no_library(name: str) -> None:
    folder = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})"
    loaded = set(run("-c", folder + HELP, script(name)).splitlines()[-1].split())
    assert not (HEAVY | {"numpy", "pandas", "pyarrow", "matplotlib"}) & loaded


@pytest.fixture(scope="module")
def inputs(
    tiny_model: Path,
    make_examples: Callable[..., tuple[Path, Path]],
    tmp_path_factory: pytest.TempPathFactory,
) -> training_inputs.Inputs:
    return training_inputs.make(tmp_path_factory.mktemp("startup"), tiny_model, make_examples, 16)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("score_responses", ["--part", "unlabelled"]), ("generate", ["--prompts", 2, "--max-new-tokens", 2])],
)
def test_scoring_and_generation_load_no_library_of_trainings(
    name: str, settings: list[object], inputs: training_inputs.Inputs, tmp_path: Path
) -> None:
    rows = ["--model", inputs.model, "--examples", inputs.examples, "--split", inputs.split]
    output = tmp_path / name / "manifest.json"
    found = measured(script(name), *rows, *settings, "--device", "cpu", "--output", output)
    assert "torch" in found["packages"]
    assert not {"trl", "datasets", "peft", "sklearn", "scipy", "matplotlib"} & set(found["packages"])


def test_a_training_loads_no_library_of_figures_and_statistics(
    inputs: training_inputs.Inputs, tmp_path: Path
) -> None:
    given = inputs.arguments(tmp_path / "dpo" / "manifest.json", "--beta", 0.1, scores=True)
    found = measured(script("train_student_dpo"), *given)
    assert {"torch", "trl"} <= set(found["packages"])
    assert not {"sklearn", "scipy", "matplotlib"} & set(found["packages"])
