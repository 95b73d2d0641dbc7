"""Direct preference optimisation: the first loss, the reference, LoRA, what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import training_inputs
from training_inputs import Inputs


@pytest.fixture(scope="module")
def inputs(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    make_examples: Callable[..., tuple[Path, Path]],
) -> Inputs:
    return training_inputs.make(tmp_path_factory.mktemp("dpo"), tiny_model, make_examples)


def run(inputs: Inputs, output: Path, *more: object) -> Path:
    import train_student_dpo

    train_student_dpo.main(inputs.arguments(output, *more, scores=True))
    return output


def losses_by_hand(inputs: Inputs, rows: list[int], policy: Path, beta: float) -> float:
    """Mean DPO loss of ``rows`` of the part, with the formula and two models."""
    import torch
    from w2s.encoding import Encoding
    from w2s.models import load_causal
    from w2s.tables import join_labels, read_labels, read_part
    from w2s.training import chosen_and_rejected

    labelled = join_labels(read_part(inputs.examples, inputs.split, "unlabelled"), read_labels(inputs.labels))
    encoding = Encoding.load(inputs.model.parent)
    models = [load_causal(folder, on="cpu") for folder in (policy.parent, inputs.model.parent)]

    def log_prob(model: torch.nn.Module, prompt: str, response: str) -> float:
        start, end = encoding.prompt_ids(prompt), encoding.response_ids(response)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([start + end])).logits[0].double().log_softmax(-1)
        return sum(float(logits[len(start) - 1 + place, token]) for place, token in enumerate(end))

    total = 0.0
    chosen, rejected = chosen_and_rejected(labelled)
    for row in rows:
        prompt = labelled["prompt"][row]
        ratios = [
            log_prob(models[0], prompt, text) - log_prob(models[1], prompt, text)
            for text in (chosen[row], rejected[row])
        ]
        total += math.log1p(math.exp(-beta * (ratios[0] - ratios[1])))
    return total / len(rows)


def test_first_loss_is_ln_2_though_the_model_declares_dropout(inputs: Inputs, tmp_path: Path) -> None:
    import json

    assert json.loads((inputs.model.parent / "config.json").read_text())["dropout"] == 0.1
    output = run(inputs, tmp_path / "model" / "manifest.json", "--epochs", 4)
    history = pd.read_csv(output.parent / "history.csv")
    assert history["loss"][0] == pytest.approx(math.log(2), abs=1e-5)
    assert history["loss"].iloc[-4:].mean() < 0.69
    assert history["rewards/margins"].iloc[-1] > 0


def test_second_loss_is_the_formulas(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.training import row_order

    one = run(inputs, tmp_path / "one" / "manifest.json", "--epochs", 0.25)
    two = run(inputs, tmp_path / "two" / "manifest.json", "--epochs", 0.5, "--micro-batch-size", 4)
    rows = row_order(32, 2, 8, 7)[8:].tolist()
    history = pd.read_csv(two.parent / "history.csv")
    assert history["loss"][1] == pytest.approx(losses_by_hand(inputs, rows, one, 0.1), abs=1e-5)


def test_loss_and_history_are_trls(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl import DPOTrainer
    from w2s import trainers

    ours = run(inputs, tmp_path / "ours" / "manifest.json", "--epochs", 2)
    monkeypatch.setattr(trainers.DPO, "compute_loss", DPOTrainer.compute_loss)
    theirs = run(inputs, tmp_path / "theirs" / "manifest.json", "--epochs", 2)
    mine, stock = (pd.read_csv(path.parent / "history.csv") for path in (ours, theirs))
    assert "entropy" in stock.columns and "entropy" not in mine.columns
    assert len(mine) == 8
    for name in mine.columns:
        assert mine[name].to_numpy() == pytest.approx(stock[name].to_numpy(), rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("loss", ["ipo", "sigmoid_norm"])
def test_other_losses_are_trls(inputs: Inputs, tmp_path: Path, loss: str) -> None:
    from w2s.artifact import load

    output = run(inputs, tmp_path / "model" / "manifest.json", "--loss-type", loss)
    # Before the first update the log ratios are 0: (0 - 1 / (2 beta))^2 and ln 2.
    expected = {"ipo": 25.0, "sigmoid_norm": math.log(2)}[loss]
    assert load(output).facts["first_loss"] == pytest.approx(expected, rel=1e-4)


def test_lora_is_merged_and_touches_queries_and_values_only(inputs: Inputs, tmp_path: Path) -> None:
    import torch
    from w2s.artifact import load

    output = run(inputs, tmp_path / "model" / "manifest.json", "--lora-rank", 2, "--epochs", 4)
    start, end = training_inputs.weights(inputs.model), training_inputs.weights(output)
    assert set(start) == set(end)
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "v_proj"}
    # Two layers, two matrices each, two factors of 16 x 2.
    assert load(output).facts["trainable_parameters"] == 2 * 2 * 2 * 16 * 2
    history = pd.read_csv(output.parent / "history.csv")
    assert history["loss"][0] == pytest.approx(math.log(2), abs=1e-5)
    assert history["loss"].iloc[-4:].mean() < 0.693


def test_half_precision_keeps_float32_weights(inputs: Inputs, tmp_path: Path) -> None:
    import torch

    output = run(inputs, tmp_path / "model" / "manifest.json", "--precision", "bfloat16")
    history = pd.read_csv(output.parent / "history.csv")
    assert history["loss"][0] == pytest.approx(math.log(2), abs=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in training_inputs.weights(output).values())


def test_scores_of_another_model_are_refused(
    inputs: Inputs, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    from w2s.errors import ArtifactError

    other = training_inputs.score(tmp_path / "scores", make_model(5), inputs.examples, inputs.split)
    with pytest.raises(ArtifactError, match="not of this model"):
        run(inputs, tmp_path / "model" / "manifest.json", "--reference-scores", other)


@pytest.mark.parametrize("harm", ["sums", "counts", "missing", "twice"])
def test_wrong_scores_are_refused(inputs: Inputs, tmp_path: Path, harm: str) -> None:
    from w2s.artifact import Artifact, load
    from w2s.errors import DataError, JoinError
    from w2s.tables import read_parquet, write_parquet

    scores = read_parquet(load(inputs.scores).path("scores.parquet"), ["id"])
    first = scores["id"][0]
    if harm == "sums":
        scores["log_prob_sum"] += scores["response"]
    elif harm == "counts":
        scores.loc[0, "token_count"] += 1
    elif harm == "missing":
        scores = scores[scores["id"] != first]
    else:
        scores = pd.concat([scores, scores.head(1)])
    wrong = tmp_path / "scores" / "manifest.json"
    with Artifact.create(wrong, spec={}, parents={"model": inputs.model}, script=__file__) as artifact:
        write_parquet(scores, artifact.path("scores.parquet"))
    expected = {"sums": "first loss", "counts": "tokens", "missing": first, "twice": first}[harm]
    with pytest.raises((DataError, JoinError), match=expected) as raised:
        run(inputs, tmp_path / "model" / "manifest.json", "--reference-scores", wrong)
    assert raised.type is (JoinError if harm == "missing" else DataError)
    assert not (tmp_path / "model").exists()


def test_dropout_makes_the_first_loss_differ(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.artifact import load

    output = run(inputs, tmp_path / "model" / "manifest.json", "--dropout", 0.3)
    assert abs(load(output).facts["first_loss"] - math.log(2)) > 1e-3


def test_a_rate_that_diverges_is_reported(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.errors import DataError

    with pytest.raises(DataError, match="diverged"):
        run(inputs, tmp_path / "model" / "manifest.json", "--learning-rate", 1e30, "--epochs", 3)
