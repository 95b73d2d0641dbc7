"""Model cards: what they say is what the records say, in a form that the hub's library reads back."""

from __future__ import annotations

from pathlib import Path

import pytest
import write_model_cards
from huggingface_hub import ModelCard
from small_run import IDS, SmallRun, make, make_again
from w2s.artifact import CARD, file_digest, verify
from w2s.cards import Family

ROOT = Path(__file__).resolve().parents[2]


def write(run: SmallRun) -> Path:
    index = run.results / "models.csv"
    files = ["--citation", str(ROOT / "CITATION.cff"), "--template", str(ROOT / "report/model_card.md")]
    write_model_cards.main(["--tables", str(run.tables), *files, "--output", str(index)])
    return index


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def run(made: SmallRun, tmp_path: Path) -> SmallRun:
    return made.copy(tmp_path)


@pytest.fixture(scope="module")
def text(made: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = made.copy(tmp_path_factory.mktemp("written"))
    write(run)
    return (run.student.parent / CARD).read_text()


def test_front_matter_is_read_back_by_the_hub_s_library(text: str) -> None:
    data = ModelCard(text).data
    assert (data.license, data.license_name) == ("other", "apache-2.0, mit")
    assert (data.base_model, data.datasets) == ("lab/base", ["team/pairs"])
    assert "train-student-dpo" in data.tags
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("toy", "reward", 1.5)
    assert result.metric_name == "mean reward by exact"
    low, high = result.metric_args["interval_95"]
    assert low < 1.5 < high
    assert (result.metric_args["prompts"], result.metric_args["seeds"]) == (len(IDS), 1)


@pytest.mark.parametrize(
    "part",
    [
        "44 rows in, 40 kept, 4 dropped; 3 too long, 1 duplicate row",
        "labelled 10; unlabelled 30; share 0.5; seed 3",
        f"| source `team/pairs` | revision `{'a' * 40}`, licence mit, 1 file",
        f"`lab/base` at revision `{'a' * 40}`, licence apache-2.0 (`models/k`)",
        "| agreement with human labels | 75.0 % [59.8, 85.8] of 40 |",
        "| made from | `teachers/toy/1-of-2/seed-3/s/plain/dpo` |",
        "| learning rate | 2e-05 |",
        "| tokens per epoch | 132,591 |",
        " s on 2 devices |",
        "| 40 | 1.250 [1.000, 1.750], 3 seeds |",
        "AutoModelForCausalLM.from_pretrained",
        "https://arxiv.org/abs/2409.08813",
    ],
)
def test_text_says_what_the_records_say(text: str, part: str) -> None:
    assert part in text


def test_a_setting_without_a_value_is_left_out(text: str) -> None:
    assert "| unset |" not in text


def test_one_seed_is_told(tmp_path: Path) -> None:
    run = make(tmp_path, arm_seeds=1)
    write(run)
    text = (run.student.parent / CARD).read_text()
    assert "this seed only" in text
    assert "no other seed was run" in text


def test_a_model_that_no_table_measures_has_no_scores(run: SmallRun) -> None:
    write(run)
    card = (run.teacher.parent / CARD).read_text()
    assert "there are no scores" in card
    assert ModelCard(card).data.eval_results is None


def test_a_model_that_was_made_again_is_not_the_one_that_was_trained_on(run: SmallRun) -> None:
    make_again(run.results / "models/k/manifest.json")
    write(run)
    text = (run.student.parent / CARD).read_text()
    assert ModelCard(text).data.base_model is None
    assert "lab/base" not in text and "no longer kept" in text


def test_scores_of_a_model_that_was_made_again_are_not_its(run: SmallRun) -> None:
    make_again(run.student)
    assert Family([run.tables]).scores() == {}


def test_data_from_a_local_folder_have_no_name_on_the_hub(tmp_path: Path) -> None:
    run = make(tmp_path, local=True)
    write(run)
    text = (run.student.parent / CARD).read_text()
    assert ModelCard(text).data.datasets is None
    assert "| source `pairs` | local folder, licence mit" in text


def test_index_has_each_card_s_digest_and_models_stay_whole(run: SmallRun) -> None:
    lines = write(run).read_text().splitlines()
    assert len(lines) == 3
    for manifest in (run.student, run.teacher):
        verify(manifest)
        name = manifest.parent.relative_to(run.results).as_posix()
        line = next(line for line in lines if line.startswith(f"{name},"))
        assert line.endswith(f",{file_digest(manifest.parent / CARD)}")


def test_the_same_records_give_the_same_card_elsewhere(run: SmallRun, text: str) -> None:
    write(run)
    assert (run.student.parent / CARD).read_text() == text


def test_scores_are_those_of_the_texts_that_the_model_wrote(run: SmallRun) -> None:
    scores = Family([run.tables]).scores()
    assert list(scores) == [run.student.resolve()]
    (score,) = scores[run.student.resolve()]
    assert (score.own.mean, score.arm) == (1.5, (1.25, 1.0, 1.75, 3))


def test_without_tables_there_are_no_models(tmp_path: Path) -> None:
    index = tmp_path / "models.csv"
    files = ["--citation", str(ROOT / "CITATION.cff"), "--template", str(ROOT / "report/model_card.md")]
    write_model_cards.main(["--tables", *files, "--output", str(index)])
    assert index.read_text() == "model,stage,seed,digest,scores,card_sha256\n"
