"""Language models from scratch and reward models on top: learn, save, measure, refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import training_inputs
from conftest import as_artifact


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from w2s.tables import write_parquet

    pairs = training_inputs.pairs(64)
    texts = pd.DataFrame({"prompt": [pair[0] for pair in pairs], "response": [pair[1] for pair in pairs]})
    texts.loc[0, "response"] *= 30
    folder = tmp_path_factory.mktemp("corpora") / "tiny"
    return as_artifact(folder, lambda target: write_parquet(texts, target / "corpus.parquet"))


def pretrain(corpus: Path, tokenizer: Path, output: Path, *more: object) -> Path:
    import pretrain_model

    words = [
        "--corpus",
        corpus,
        "--tokenizer",
        tokenizer / "manifest.json",
        "--output",
        output,
        "--width",
        16,
    ]
    words += ["--layers", 1, "--heads", 2, "--feed-forward", 32, "--positions", 96, "--max-tokens", 96]
    words += [
        "--learning-rate",
        1e-2,
        "--steps",
        30,
        "--batch-size",
        8,
        "--seed",
        1,
        "--device",
        "cpu",
        *more,
    ]
    pretrain_model.main([str(word) for word in words])
    return output


@pytest.fixture(scope="module")
def pretrained(corpus: Path, tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(corpus, tiny_tokenizer, tmp_path_factory.mktemp("models") / "new" / "manifest.json")


def test_learns_and_saves_in_the_hub_format(pretrained: Path) -> None:
    from w2s.artifact import load
    from w2s.encoding import Encoding
    from w2s.models import load_causal

    history = pd.read_csv(pretrained.parent / "history.csv")
    assert history["loss"].iloc[-1] < history["loss"][0] - 1
    assert history["learning_rate"].iloc[-1] < 0.01 * history["learning_rate"].max()
    assert Encoding.load(pretrained.parent).positions == 96
    config = json.loads((pretrained.parent / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"], config["init_std"]) == (16, 1, 0.04)
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (2, 2, 1)
    load_causal(pretrained.parent, on="cpu")
    facts = load(pretrained).facts
    assert (facts["texts_dropped"], facts["rows"], facts["steps"]) == (1, 63, 30)


def test_first_weights_have_the_declared_spread(corpus: Path, tiny_tokenizer: Path, tmp_path: Path) -> None:
    words = ("--width", 64, "--steps", 1, "--learning-rate", 1e-9)
    output = pretrain(corpus, tiny_tokenizer, tmp_path / "model" / "manifest.json", *words)
    weights = training_inputs.weights(output)
    assert float(weights["model.decoder.layers.0.fc1.weight"].std()) == pytest.approx(0.04, rel=0.1)


def test_same_seed_same_digest(corpus: Path, tiny_tokenizer: Path, pretrained: Path, tmp_path: Path) -> None:
    from w2s.artifact import load

    again = pretrain(corpus, tiny_tokenizer, tmp_path / "a" / "manifest.json")
    other = pretrain(corpus, tiny_tokenizer, tmp_path / "b" / "manifest.json", "--seed", 2)
    assert load(again).digest == load(pretrained).digest != load(other).digest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--heads", 3), "cannot be divided among 3 heads"),
        (("--positions", 64), "do not fit 64 positions"),
        (("--max-tokens", 5), "no text of at most 5 tokens"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    corpus: Path, tiny_tokenizer: Path, tmp_path: Path, words: tuple[object, ...], message: str
) -> None:
    from w2s.errors import W2SError

    with pytest.raises(W2SError, match=message):
        pretrain(corpus, tiny_tokenizer, tmp_path / "model" / "manifest.json", *words)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples whose gold label is the response with a full stop right after a number."""
    from w2s.tables import LABEL_COLUMNS, write_parquet

    rows = []
    for number, (prompt, longer, shorter) in enumerate(training_inputs.pairs(80)):
        first, second = (longer, shorter) if number % 2 else (shorter, longer)
        rows.append(
            (f"id-{number:02}", prompt, first, second, "test" if number >= 64 else "train", number % 2)
        )
    names = ["id", "prompt", "response_0", "response_1", "origin_split", "label"]
    examples = pd.DataFrame(rows, columns=names).assign(other_prompt=None, subset="tiny", source_row="tiny:1")
    margins = examples["label"] * 2.0 - 1
    labels = examples.assign(margin=margins, probability=0.5, source="gold").astype({"label": "int8"})

    def fill(target: Path) -> None:
        write_parquet(examples.drop(columns="label"), target / "examples.parquet")
        write_parquet(labels[LABEL_COLUMNS], target / "gold.parquet")

    return as_artifact(tmp_path_factory.mktemp("compared") / "examples", fill)


def reward_model(model: Path, examples: Path, output: Path, *more: object) -> Path:
    import train_reward_model

    words = ["--model", model, "--examples", examples, "--output", output, "--labels", "gold", "--epochs", 6]
    words += ["--learning-rate", 1e-2, "--batch-size", 8, "--seed", 1, "--device", "cpu", *more]
    train_reward_model.main([str(word) for word in words])
    return output


def test_reward_model_learns_what_is_preferred(pretrained: Path, compared: Path, tmp_path: Path) -> None:
    from w2s.artifact import load
    from w2s.models import load_classifier

    output = reward_model(pretrained, compared, tmp_path / "gold" / "manifest.json")
    facts = load(output).facts
    assert facts["heldout_pairs"] == 16
    assert facts["heldout_accuracy"] == 1.0
    heldout = pd.read_csv(output.parent / "heldout.csv")
    assert (heldout["chosen"] > heldout["rejected"]).all()
    assert load_classifier(output.parent, on="cpu").config.num_labels == 1


def test_saved_reward_does_not_depend_on_padding(pretrained: Path, compared: Path, tmp_path: Path) -> None:
    import torch
    from w2s.encoding import Encoding
    from w2s.models import load_classifier
    from w2s.tables import read_examples

    output = reward_model(pretrained, compared, tmp_path / "gold" / "manifest.json", "--epochs", 1)
    encoding, model = Encoding.load(output.parent), load_classifier(output.parent, on="cpu")
    heldout = pd.read_csv(output.parent / "heldout.csv").set_index("id")
    examples = read_examples(compared).set_index("id").loc[heldout.index]
    for row in examples.itertuples():
        rewards = []
        for response in (row.response_0, row.response_1):
            ids = encoding.prompt_ids(row.prompt) + encoding.response_ids(response)
            for padding in ([], [encoding.pad_id] * 7):
                mask = [1] * len(ids) + [0] * len(padding)
                with torch.no_grad():
                    found = model(torch.tensor([ids + padding]), attention_mask=torch.tensor([mask])).logits
                rewards.append(float(found))
        assert rewards[0] == pytest.approx(rewards[1], abs=1e-5)
        assert rewards[2] == pytest.approx(rewards[3], abs=1e-5)
        expected = sorted([heldout["chosen"][row.Index], heldout["rejected"][row.Index]])
        assert sorted(rewards[::2]) == pytest.approx(expected, abs=1e-4)


def test_examples_without_a_held_out_side_are_refused(
    pretrained: Path, make_examples: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    from w2s.errors import DataError

    with pytest.raises(DataError, match="origin_split 'test'"):
        reward_model(pretrained, make_examples()[0], tmp_path / "gold" / "manifest.json")
