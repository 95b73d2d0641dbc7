"""The light stages of the demo world: corpus, tokenizer, exact scores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import build_corpus
import pandas as pd
import pytest
import score_exact
import train_tokenizer
from w2s import world
from w2s.artifact import Artifact, load
from w2s.encoding import Encoding
from w2s.errors import ConfigError, DataError
from w2s.tables import EXAMPLE_COLUMNS, write_parquet

SETTINGS = {"seed": 7, "pairs": 100, "test_prompts": 20}
IDENTITY = ["--gold", "exact", "--run", "models/k", "--data", "d", "--share", "1/2", "--seed", "1"]


def artifact_of(folder: Path, name: str, frame: pd.DataFrame) -> Path:
    """An artifact with one table."""
    manifest = folder / "manifest.json"
    with Artifact.create(manifest, spec={}, parents={}, script=__file__) as artifact:
        write_parquet(frame, artifact.path(name))
    return manifest


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    manifest = tmp_path_factory.mktemp("corpus") / "world" / "manifest.json"
    settings = ["--kind", "world", "--world", json.dumps(SETTINGS), "--texts", "3000", "--seed", "5"]
    build_corpus.main([*settings, "--output", str(manifest)])
    return manifest


@pytest.fixture(scope="module")
def tokenizer(corpus: Path) -> Path:
    manifest = corpus.parent.parent / "tokenizer" / "manifest.json"
    train_tokenizer.main(["--corpus", str(corpus), "--vocabulary", "640", "--output", str(manifest)])
    return manifest


def test_corpus_of_the_world(corpus: Path) -> None:
    found = pd.read_parquet(load(corpus).path("corpus.parquet"))
    assert found.equals(world.make_texts(SETTINGS, 3000, 5))
    assert load(corpus).facts == {"rows_out": 3000, "distinct_prompts": found["prompt"].nunique()}


def example(number: int, prompt: str, response_0: str, response_1: str, side: str) -> list[object]:
    return [f"{number:016x}", prompt, None, response_0, response_1, "s", side, f"f:{number}"]


def test_corpus_of_examples_is_their_training_side(tmp_path: Path) -> None:
    rows = [
        example(1, "p1", " a", " b", "train"),
        example(2, "p1", " b", " c", "train"),
        example(3, "P2 ", " d", " e", "train"),  # the prompt of a test row, but for case and blanks
        example(4, "p2", " f", " g", "test"),
    ]
    examples = artifact_of(tmp_path / "e", "examples.parquet", pd.DataFrame(rows, columns=EXAMPLE_COLUMNS))
    output = tmp_path / "c" / "manifest.json"
    build_corpus.main(["--kind", "examples", "--examples", str(examples), "--output", str(output)])
    found = pd.read_parquet(load(output).path("corpus.parquet"))
    assert sorted(zip(found["prompt"], found["response"], strict=True)) == [
        ("p1", " a"),
        ("p1", " b"),
        ("p1", " c"),
    ]
    assert load(output).facts == {
        "rows_out": 3,
        "distinct_prompts": 1,
        "rows_in": 4,
        "rows_of_test": 1,
        "rows_with_a_test_prompt": 1,
        "duplicate_texts": 1,
    }


def test_corpus_of_some_examples_is_a_choice_by_seed() -> None:
    corpus = pd.DataFrame({"prompt": "p", "response": [f" {number}" for number in range(50)]})
    first, again, other = (build_corpus.choose(corpus, 10, seed) for seed in (1, 1, 2))
    assert first.equals(again) and not first.equals(other)
    assert first["response"].nunique() == 10
    with pytest.raises(ConfigError, match="51 texts are asked for, there are 50"):
        build_corpus.choose(corpus, 51, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--kind", "world", "--texts", "5"], "world settings"),
        (["--kind", "examples"], "needs some"),
        (["--kind", "world", "--world", json.dumps(SETTINGS)], "corpus of 0 texts"),
        (["--kind", "world", "--world", json.dumps({**SETTINGS, "sed": 1}), "--texts", "5"], "instead: seed"),
    ],
)
def test_corpus_refuses_senseless_settings(settings: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message.replace(": ", ": +")):
        build_corpus.main([*settings, "--output", str(tmp_path / "c" / "manifest.json")])
    assert not (tmp_path / "c").exists()


def test_words_of_the_world_are_single_tokens_and_come_back(corpus: Path, tokenizer: Path) -> None:
    encoding = Encoding.load(tokenizer.parent)
    assert encoding.bos_id == encoding.eos_id != encoding.pad_id
    ids = encoding.response_ids(" Carefully tighten the pedal.")
    assert len(ids) == 4 + 1 + 1  # words, mark, end
    assert len(encoding.prompt_ids("\n\nHuman: Please explain skiing.\n\nAssistant:")) == 1 + 1 + 3 + 1 + 1
    texts = pd.read_parquet(load(corpus).path("corpus.parquet")).head(300)
    for prompt, response in zip(texts["prompt"], texts["response"], strict=True):
        assert encoding.decode(encoding.prompt_ids(prompt)) == prompt
        assert encoding.decode(encoding.response_ids(response)) == response
    facts = load(tokenizer).facts
    assert facts["words_left_out"] == 0 and facts["share_spelled_in_bytes"] == 0
    assert facts["vocabulary"] == encoding.vocabulary_size < 640


def test_unknown_text_is_spelled_in_bytes_without_loss(tokenizer: Path) -> None:
    encoding = Encoding.load(tokenizer.parent)
    for text in (" Zo\u00eb's caf\u00e9,  \t\n\nnaïve </s> \U0001f600", " \u00a0x", "a_b  "):
        assert encoding.decode(encoding.response_ids(text)) == text
    assert encoding.eos_id not in encoding.response_ids(" </s>", eos=False)


def test_small_vocabulary_keeps_the_most_frequent_words(tmp_path: Path) -> None:
    texts = pd.DataFrame({"prompt": ["a bb bb"] * 2, "response": [" bb cc", " ddd"]})
    corpus = artifact_of(tmp_path / "c", "corpus.parquet", texts)
    output = tmp_path / "t" / "manifest.json"
    train_tokenizer.main(["--corpus", str(corpus), "--vocabulary", "259", "--output", str(output)])
    encoding = Encoding.load(output.parent)
    assert len(encoding.response_ids(" bb", eos=False)) == 1
    assert len(encoding.response_ids(" cc", eos=False)) == 3
    assert load(output).facts["words_left_out"] == 2
    # a occurs twice, " bb" five times, " cc" and " ddd" once each
    assert load(output).facts["share_spelled_in_bytes"] == pytest.approx(2 / 9)


def test_tokenizer_without_room_for_words_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="more than 258"):
        train_tokenizer.main(
            [
                "--corpus",
                str(corpus),
                "--vocabulary",
                "258",
                "--output",
                str(tmp_path / "t" / "manifest.json"),
            ]
        )


def test_tokenizer_is_the_same_for_the_same_corpus(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    output = tmp_path / "t" / "manifest.json"
    train_tokenizer.main(["--corpus", str(corpus), "--vocabulary", "640", "--output", str(output)])
    assert load(output).digest == load(tokenizer).digest


def test_exact_scores(tmp_path: Path) -> None:
    pairs = world.make_pairs({**SETTINGS, "temperature": 1}).tail(5)
    generations = pd.DataFrame(
        {
            "id": list("abcde"),
            "prompt": pairs["prompt"],
            "response": [*pairs["response_a"][:4], " First knead"],
        }
    )
    manifest = artifact_of(tmp_path / "g", "generations.parquet", generations)
    output = tmp_path / "r" / "manifest.json"
    settings = ["--generations", str(manifest), *IDENTITY, "--world", json.dumps(SETTINGS)]
    score_exact.main([*settings, "--output", str(output)])
    found = pd.read_parquet(load(output).path("rewards.parquet"))
    assert found["id"].tolist() == list("abcde")
    assert found["reward"].tolist() == [*pairs["reward_a"][:4], -1.0]
    assert found["malformed"].tolist() == [False] * 4 + [True]
    assert load(output).facts["malformed"] == 1


def test_exact_scores_name_a_row_of_another_world(tmp_path: Path) -> None:
    generations = pd.DataFrame(
        {"id": ["a1"], "prompt": ["\n\nHuman: Hi\n\nAssistant:"], "response": [" Hi."]}
    )
    manifest = artifact_of(tmp_path / "g", "generations.parquet", generations)
    with pytest.raises(DataError, match="id a1"):
        score_exact.main(
            ["--generations", str(manifest), *IDENTITY, "--world", json.dumps(SETTINGS)]
            + ["--output", str(tmp_path / "r" / "manifest.json")]
        )


def test_settings_that_are_no_json_object_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for text, message in (("{seed}", "not JSON"), ("[7]", "a JSON object is needed")):
        with pytest.raises(SystemExit):
            score_exact.main(["--generations", "g", *IDENTITY, "--world", text, "--output", "m"])
        assert message in capsys.readouterr().err


def test_light_stages_do_not_load_torch() -> None:
    code = "import sys; import build_corpus, train_tokenizer, score_exact; "
    result = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules, 'pandas' in sys.modules)"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(build_corpus.__file__).parent)},
    )
    assert result.stdout.strip() == "False False", result.stderr
