"""Direct preference optimisation: the first loss, the reference, LoRA, what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import training_inputs
from tiny import as_artifact, write_label_file
from training_inputs import Inputs
from w2s.dpo import LOSSES


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


def use_trls_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's own loss on TRL's own batches of two sequences per pair."""
    from trl import DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference
    from w2s import trainers

    monkeypatch.setattr(
        trainers, "collate_pairs", lambda pairs, layout, pad_id: DataCollatorForPreference(pad_id)(pairs)
    )
    monkeypatch.setattr(trainers.DPO, "compute_loss", DPOTrainer.compute_loss)


@pytest.mark.parametrize(
    ("loss", "steps", "more"),
    [
        ("sigmoid", 50, ()),
        ("sigmoid", 8, ("--lora-rank", 2, "--lora-dropout", 0)),
        ("sigmoid", 8, ("--micro-batch-size", 2)),
        ("robust", 8, ("--label-smoothing", 0.1)),
        *((loss, 8, ()) for loss in LOSSES if loss not in ("sigmoid", "robust")),
    ],
)
def test_loss_and_history_are_trls(
    inputs: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loss: str,
    steps: int,
    more: tuple[str, ...],
) -> None:
    words = ("--loss-type", loss, "--epochs", steps / 4, *more)
    ours = run(inputs, tmp_path / "ours" / "manifest.json", *words)
    use_trls_loss(monkeypatch)
    theirs = run(inputs, tmp_path / "theirs" / "manifest.json", *words)
    mine, stock = (pd.read_csv(path.parent / "history.csv") for path in (ours, theirs))
    assert "entropy" in stock.columns and "entropy" not in mine.columns
    assert len(mine) == steps
    for name in mine.columns:
        # Before the first update all margins are 0, and rounding decides how many are above.
        first = 1 if name == "rewards/accuracies" else 0
        expected = stock[name].to_numpy()[first:]
        assert mine[name].to_numpy()[first:] == pytest.approx(expected, rel=2e-3, abs=1e-4), name
    assert mine["loss"].iloc[-1] != pytest.approx(mine["loss"][0], rel=1e-3)


def test_declared_losses_are_those_that_exist() -> None:
    from w2s import losses

    assert set(LOSSES) == set(losses.LOSSES)


def test_soft_labels_and_weights(inputs: Inputs, tmp_path: Path) -> None:
    """A label that is certain changes nothing, one that is not pulls less; a weight is a factor."""
    import torch
    from w2s.losses import Side, pair_losses

    chosen = Side(torch.tensor([3.0, -1.0]), torch.tensor([4, 2]))
    rejected = Side(torch.tensor([-2.0, 0.5]), torch.tensor([3, 5]))
    for loss in LOSSES:
        plain, swapped = (
            pair_losses(loss, first, second, 0.1, 0.2)
            for first, second in ((chosen, rejected), (rejected, chosen))
        )
        half = pair_losses(loss, chosen, rejected, 0.1, 0.2, torch.tensor([1.0, 0.5]))
        torch.testing.assert_close(half, torch.stack([plain[0], (plain[1] + swapped[1]) / 2]))
        twice = pair_losses(loss, chosen, rejected, 0.1, 0.2, weight=torch.tensor([2.0, 0.0]))
        torch.testing.assert_close(twice, plain * torch.tensor([2.0, 0.0]))


def relabelled(inputs: Inputs, folder: Path, probability: float | None) -> Path:
    """The inputs' labels with the preferred response's probability set, by half of the pairs."""
    from w2s.tables import read_labels

    labels = read_labels(inputs.labels)
    q = pd.Series(float("nan") if probability is None else probability, labels.index)
    labels["probability"] = q.where(labels["label"] == 1, 1 - q)
    return as_artifact(folder, lambda target: write_label_file(target, labels))


def test_the_stage_takes_probabilities(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.artifact import load
    from w2s.errors import DataError

    def last(name: str, labels: Path, *more: object) -> float:
        output = run(inputs, tmp_path / name / "manifest.json", "--labels", labels, "--epochs", 4, *more)
        assert load(output).facts["first_loss"] > 0
        return pd.read_csv(output.parent / "history.csv")["rewards/margins"].iloc[-4:].mean()

    sure, torn = (relabelled(inputs, tmp_path / f"labels-{q}", q) for q in (1.0, 0.6))
    plain = last("plain", inputs.labels)
    assert last("sure", sure, "--soft-labels", "--confidence-weights") == pytest.approx(plain, rel=1e-6)
    assert last("ignored", torn) == plain
    assert last("soft", torn, "--soft-labels") < 0.9 * plain
    absent = relabelled(inputs, tmp_path / "labels-none", None)
    with pytest.raises(DataError, match="without a probability"):
        last("absent", absent, "--confidence-weights")


def test_weights_scale_the_loss(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.artifact import load

    torn = relabelled(inputs, tmp_path / "labels", 0.8)
    output = run(inputs, tmp_path / "model" / "manifest.json", "--labels", torn, "--confidence-weights")
    assert load(output).facts["first_loss"] == pytest.approx(0.6 * math.log(2), abs=1e-5)


def test_label_smoothing_has_limits(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.errors import ConfigError

    with pytest.raises(ConfigError, match="below one half"):
        run(inputs, tmp_path / "model" / "manifest.json", "--loss-type", "robust", "--label-smoothing", 0.5)


def gradients(inputs: Inputs, packs: bool) -> dict[str, object]:
    """Gradients of the DPO loss of eight pairs, all weights trained, with the policy a little off the reference."""
    import argparse

    from w2s import dpo, training
    from w2s.encoding import Encoding
    from w2s.packing import Layout
    from w2s.tables import join_labels, read_labels, read_part

    labelled = join_labels(read_part(inputs.examples, inputs.split, "unlabelled"), read_labels(inputs.labels))
    columns = dpo.tokenised(labelled, dpo.read_scores(inputs.scores), Encoding.load(inputs.model.parent))
    columns["ref_chosen_logps"] = [value + 3 for value in columns["ref_chosen_logps"]]
    rows = {name: values[:8] for name, values in columns.items()}
    rows["chosen_ids"][0] = 8 * rows["chosen_ids"][0]  # a line with room for several others
    settings = argparse.Namespace(
        model=inputs.model, beta=0.1, loss_type="sigmoid", label_smoothing=0.0, confidence_weights=False,
        dropout=0.0, seed=0, lora_rank=0,
    )  # fmt: skip
    stock = {"output_dir": "unused", "report_to": "none", "use_cpu": True, "bf16": False,
             "gradient_checkpointing": False, "disable_tqdm": True}  # fmt: skip
    trainer: Any = dpo.job(settings, training.Columns(rows), stock).trainer
    if not packs:
        trainer.layout = Layout(False, "sdpa")
        trainer.data_collator.keywords["layout"] = trainer.layout
    batch = next(iter(trainer.get_train_dataloader()))
    assert len(batch["input_ids"]) < 8 if packs else len(batch["input_ids"]) == 16
    trainer.model.train()
    trainer.compute_loss(trainer.model, batch).backward()
    return {name: weight.grad.clone() for name, weight in trainer.model.named_parameters()}


def test_gradients_are_those_of_two_sequences(inputs: Inputs, tmp_path: Path, monkeypatch) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    packed, apart = gradients(inputs, True), gradients(inputs, False)
    for name, gradient in apart.items():
        torch.testing.assert_close(packed[name], gradient, rtol=1e-3, atol=1e-5)
    assert max(gradient.abs().max() for gradient in apart.values()) > 0.1


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


def test_a_subset_of_labels_trains_on_what_it_labels(inputs: Inputs, tmp_path: Path) -> None:
    """The reference's scores are those of the whole part, whichever subset is trained on."""
    from w2s.artifact import load
    from w2s.dpo import read_scores

    labels = training_inputs.subset(inputs, tmp_path / "labels", 20)
    whole = load(run(inputs, tmp_path / "whole" / "manifest.json"))
    output = run(inputs, tmp_path / "model" / "manifest.json", "--labels", labels)
    facts = load(output).facts
    assert len(read_scores(inputs.scores)) == whole.facts["rows"] == 32
    assert (facts["rows"], facts["steps"]) == (20, 2)
    assert facts["tokens_per_epoch"] < whole.facts["tokens_per_epoch"]
    assert facts["first_loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_a_subset_needs_the_scores_of_the_whole_part(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.artifact import Artifact, load
    from w2s.errors import JoinError
    from w2s.tables import read_labels, read_parquet, write_parquet

    labels = training_inputs.subset(inputs, tmp_path / "labels", 20)
    scores = read_parquet(load(inputs.scores).path("scores.parquet"), ["id"])
    fewer = tmp_path / "scores" / "manifest.json"
    with Artifact.create(fewer, spec={}, parents={"model": inputs.model}, script=__file__) as artifact:
        kept = scores[scores["id"].isin(read_labels(labels)["id"])]
        write_parquet(kept, artifact.path("scores.parquet"))
    with pytest.raises(JoinError, match="12 ids of examples are missing in reference scores"):
        run(inputs, tmp_path / "model" / "manifest.json", "--labels", labels, "--reference-scores", fewer)


def test_dropout_makes_the_first_loss_differ(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.artifact import load

    output = run(inputs, tmp_path / "model" / "manifest.json", "--dropout", 0.3)
    assert abs(load(output).facts["first_loss"] - math.log(2)) > 1e-3


def test_a_rate_that_diverges_is_reported(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.errors import DataError

    with pytest.raises(DataError, match="diverged"):
        run(inputs, tmp_path / "model" / "manifest.json", "--learning-rate", 1e30, "--epochs", 3)
