"""Reward models as teachers: what they learn, adapters, what is saved, what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import training_inputs
from conftest import as_artifact
from training_inputs import Inputs


def run(inputs: Inputs, output: Path, *more: object) -> Path:
    import train_teacher_reward

    train_teacher_reward.main(inputs.arguments(output, *more))
    return output


def pairs(inputs: Inputs) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of the preferred and the other responses with their prompts."""
    from w2s import reward_training
    from w2s.encoding import Encoding
    from w2s.tables import read_labelled

    labelled, _ = read_labelled(inputs.examples, inputs.split, "unlabelled", inputs.labels)
    columns = reward_training.tokenised(labelled, Encoding.load(inputs.model.parent))
    assert list(columns["id"]) == labelled["id"].tolist()
    return columns["chosen_ids"], columns["rejected_ids"]


def rewards(folder: Path, sequences: list[list[int]]) -> list[float]:
    import torch
    from w2s.rewards import load_reward_model

    model = load_reward_model(folder, on="cpu")
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits.item() for ids in sequences]


def accuracy(inputs: Inputs, teacher: Path) -> float:
    chosen, rejected = (rewards(teacher.parent, side) for side in pairs(inputs))
    return sum(left > right for left, right in zip(chosen, rejected, strict=True)) / len(chosen)


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        (("--epochs", 15, "--learning-rate", 1e-2), 0.85),
        (("--epochs", 5, "--learning-rate", 3e-2, "--lora-rank", 4, "--lora-dropout", 0), 0.7),
    ],
)
def test_learns_the_labels_and_saves_what_it_learnt(
    inputs: Inputs, tmp_path: Path, settings: tuple[object, ...], least: float
) -> None:
    from w2s.artifact import load

    output = run(inputs, tmp_path / "t" / "manifest.json", *settings)
    history, facts = pd.read_csv(output.parent / "history.csv"), load(output).facts
    assert history["accuracy"].iloc[-4:].mean() > least and history["loss"].iloc[-1] < 0.6
    assert accuracy(inputs, output) > least
    assert (facts["trainable_parameters"] < facts["parameters"]) == ("--lora-rank" in settings)
    assert facts["rows"] == 32 and "heldout_accuracy" not in facts
    assert facts["tokens_per_epoch"] == sum(len(ids) for side in pairs(inputs) for ids in side)


def test_first_loss_is_that_of_bradley_and_terry(inputs: Inputs, tmp_path: Path) -> None:
    """One step of a learning rate near 0 over all pairs: the saved model gives the recorded loss."""
    from w2s.artifact import load

    settings = ("--batch-size", 32, "--learning-rate", 1e-12)
    output = run(inputs, tmp_path / "t" / "manifest.json", *settings)
    chosen, rejected = (rewards(output.parent, side) for side in pairs(inputs))
    by_hand = [math.log1p(math.exp(right - left)) for left, right in zip(chosen, rejected, strict=True)]
    assert max(abs(loss - math.log(2)) for loss in by_hand) > 1e-3
    assert load(output).facts["first_loss"] == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-5)


def test_adapters_change_their_maps_and_the_head_only(inputs: Inputs, tmp_path: Path) -> None:
    output = run(inputs, tmp_path / "t" / "manifest.json", "--lora-rank", 4)
    before, after = training_inputs.weights(inputs.model), training_inputs.weights(output)
    same = {name for name in after if name in before and before[name].equal(after[name])}  # type: ignore[attr-defined]
    changed = {name for name in after if name not in same}
    assert "score.weight" in changed and len(changed) == 1 + 2 * 2
    assert all(name.endswith(("q_proj.weight", "v_proj.weight", "score.weight")) for name in changed)
    assert not [name for name in after if "lora" in name or "modules_to_save" in name]


@pytest.mark.parametrize("lora", [(), ("--lora-rank", 4)])
def test_same_seed_same_bytes(inputs: Inputs, tmp_path: Path, lora: tuple[object, ...]) -> None:
    from w2s.artifact import load

    made = [
        run(inputs, tmp_path / name / "manifest.json", *lora, "--seed", seed)
        for name, seed in (("a", 7), ("b", 7), ("c", 8))
    ]
    digests = [load(manifest).digest for manifest in made]
    assert digests[0] == digests[1] != digests[2]


def test_a_chat_template_is_left_behind(inputs: Inputs, tiny_model: Path, tmp_path: Path) -> None:
    """It was not trained with; who scores would use it."""
    from w2s.encoding import Encoding
    from w2s.rewards import encoder

    def fill(target: Path) -> None:
        for path in tiny_model.iterdir():
            if path.name not in ("manifest.json", "run.json"):
                shutil.copyfile(path, target / path.name)
        path = target / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) | {"chat_template": "{{ messages }}"}
        path.write_text(json.dumps(config), encoding="utf-8")

    chatty = as_artifact(tmp_path / "chatty", fill)
    assert encoder(chatty.parent, "none")[1] == "chat"
    output = run(inputs, tmp_path / "t" / "manifest.json", "--model", chatty)
    encode, template = encoder(output.parent, "plain")
    encoding = Encoding.load(output.parent)
    assert template == "plain"
    assert encode("ab", " c").ids == encoding.prompt_ids("ab") + encoding.response_ids(" c")
    assert encoding.digest == Encoding.load(tiny_model).digest


def test_a_pair_beyond_the_positions_is_refused_and_named(
    inputs: Inputs, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    from w2s.errors import DataError

    short = make_model(3, positions=30)
    with pytest.raises(DataError, match="beyond the model's 30 positions\n.*id [0-9a-f]{16}"):
        run(inputs, tmp_path / "t" / "manifest.json", "--model", short / "manifest.json")
    assert not (tmp_path / "t").exists()


def test_labels_of_other_examples_are_refused(
    inputs: Inputs, make_examples: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    from w2s.errors import JoinError

    examples, split = make_examples(training_inputs.pairs(40), test=4)
    more = ("--examples", examples, "--split", split)
    with pytest.raises(JoinError, match="4 ids of part unlabelled are missing in the labels"):
        run(inputs, tmp_path / "t" / "manifest.json", *more)


def test_pairs_that_the_labels_leave_out_are_not_trained_on(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.artifact import load

    some = training_inputs.subset(inputs, tmp_path / "labels", 20)
    output = run(inputs, tmp_path / "t" / "manifest.json", "--labels", some)
    chosen, rejected = pairs(dataclasses.replace(inputs, labels=some))
    facts = load(output).facts
    assert facts["rows"] == len(chosen) == 20
    assert facts["tokens_per_epoch"] == sum(len(ids) for side in (chosen, rejected) for ids in side)
