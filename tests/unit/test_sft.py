"""Supervised fine-tuning: tokens that carry loss, what is learnt, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import training_inputs
from training_inputs import Inputs


def run(inputs: Inputs, output: Path, *more: object) -> Path:
    import train_student_sft

    train_student_sft.main(inputs.arguments(output, "--dropout", 0, *more))
    return output


def test_loss_counts_the_response_and_its_end_only(tiny_tokenizer: Path) -> None:
    from w2s.encoding import Encoding
    from w2s.sft import tokenised

    encoding = Encoding.load(tiny_tokenizer)
    prompt, response = "\n\nHuman: Hi\n\nAssistant:", " Hello."
    start, end = encoding.prompt_ids(prompt), encoding.response_ids(response)
    rows = tokenised(["a"], [prompt], [response], encoding, "completion")
    assert rows == {"prompt_ids": [start], "response_ids": [end]}
    assert end[-1] == encoding.eos_id
    rows = tokenised(["a"], [prompt], [response], encoding, "all")
    assert rows == {"prompt_ids": [start[:1]], "response_ids": [start[1:] + end]}


def test_first_loss_is_the_mean_over_the_batch_of_tokens(inputs: Inputs, tmp_path: Path) -> None:
    import torch
    from w2s.encoding import Encoding
    from w2s.models import load_causal
    from w2s.sft import tokenised
    from w2s.tables import join_labels, read_labels, read_part
    from w2s.training import chosen_and_rejected, row_order

    output = run(inputs, tmp_path / "model" / "manifest.json", "--micro-batch-size", 2)
    labelled = join_labels(read_part(inputs.examples, inputs.split, "unlabelled"), read_labels(inputs.labels))
    encoding, model = Encoding.load(inputs.model.parent), load_causal(inputs.model.parent, on="cpu")
    rows = tokenised(
        labelled["id"], labelled["prompt"], chosen_and_rejected(labelled)[0], encoding, "completion"
    )
    total, tokens = 0.0, 0
    for row in row_order(32, 4, 8, 7)[:8]:
        start, end = rows["prompt_ids"][row], rows["response_ids"][row]
        ids, labels = torch.tensor([start + end]), torch.tensor([[-100] * len(start) + end])
        with torch.no_grad():
            counted = int((labels[:, 1:] != -100).sum())
            total += float(model(input_ids=ids, labels=labels).loss) * counted
        tokens += counted
    history = pd.read_csv(output.parent / "history.csv")
    assert history["loss"][0] == pytest.approx(total / tokens, rel=1e-5)
    assert list(history["step"]) == [1, 2, 3, 4]
    assert history["loss"].iloc[-1] < history["loss"][0] - 0.1


def use_trls_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own loss, on padded batches with labels."""
    from transformers import Trainer
    from trl import SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
    from w2s import trainers

    def padded(rows: list[dict[str, list[int]]], layout: object, pad_id: int) -> object:
        whole = [
            {
                "input_ids": row["prompt_ids"] + row["response_ids"],
                "labels": [-100] * len(row["prompt_ids"]) + row["response_ids"],
            }
            for row in rows
        ]
        return DataCollatorForLanguageModeling(pad_id)(whole)

    monkeypatch.setattr(trainers, "collate_sequences", padded)
    monkeypatch.setattr(trainers.SFT, "compute_loss", SFTTrainer.compute_loss)
    monkeypatch.setattr(trainers.SFT, "_get_num_items_in_batch", Trainer._get_num_items_in_batch)


@pytest.mark.parametrize(
    ("epochs", "more"),
    [(12.5, ()), (2, ("--micro-batch-size", 2)), (2, ("--loss-on", "all")), (2, ("--lora-rank", 2))],
)
def test_loss_and_history_are_trls(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: float, more: tuple[object, ...]
) -> None:
    words = ("--epochs", epochs, "--lora-dropout", 0, *more)
    ours = run(inputs, tmp_path / "ours" / "manifest.json", *words)
    use_trls_loss(monkeypatch)
    theirs = run(inputs, tmp_path / "theirs" / "manifest.json", *words)
    mine, stock = (pd.read_csv(path.parent / "history.csv") for path in (ours, theirs))
    assert "mean_token_accuracy" in stock.columns and "mean_token_accuracy" not in mine.columns
    assert len(mine) == 4 * epochs
    for name in mine.columns:
        assert mine[name].to_numpy() == pytest.approx(stock[name].to_numpy(), rel=1e-3, abs=1e-5), name


def test_saves_a_model_that_loads_with_its_tokenizer(inputs: Inputs, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from w2s.artifact import load, verify

    output = run(inputs, tmp_path / "model" / "manifest.json", "--epochs", 0.5)
    verify(output)
    assert {"config.json", "model.safetensors", "tokenizer.json", "encoding.json", "history.csv"} <= set(
        load(output).manifest["files"]
    )
    model = AutoModelForCausalLM.from_pretrained(output.parent)
    assert next(model.parameters()).dtype == torch.float32
    assert AutoTokenizer.from_pretrained(output.parent).eos_token_id == 2
    facts = load(output).facts
    assert (facts["steps"], facts["rows"], facts["rows_seen"], facts["rows_unseen"]) == (2, 32, 16, 16)
    assert facts["trainable_parameters"] == facts["parameters"]
    assert not list(tmp_path.glob("*.state"))


def test_micro_batches_do_not_change_the_weights_beyond_rounding(inputs: Inputs, tmp_path: Path) -> None:
    import torch

    whole = training_inputs.weights(run(inputs, tmp_path / "whole" / "manifest.json"))
    parts = training_inputs.weights(
        run(inputs, tmp_path / "parts" / "manifest.json", "--micro-batch-size", 2)
    )
    start = training_inputs.weights(inputs.model)
    for name, tensor in whole.items():
        # Attention does not depend on the keys' bias: its gradient is rounding noise, which Adam blows up.
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-5)
    assert any(not torch.equal(tensor, start[name]) for name, tensor in whole.items())


def test_loss_on_all_and_dropout_change_the_result(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.artifact import load

    losses = {
        name: load(run(inputs, tmp_path / name / "manifest.json", "--epochs", 0.25, *more)).facts[
            "first_loss"
        ]
        for name, more in (("completion", ()), ("all", ("--loss-on", "all")), ("dropout", ("--dropout", 0.5)))
    }
    assert len({round(loss, 4) for loss in losses.values()}) == 3


def test_a_subset_of_labels_trains_on_what_it_labels(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.artifact import load

    labels = training_inputs.subset(inputs, tmp_path / "labels", 16)
    whole = load(run(inputs, tmp_path / "whole" / "manifest.json")).facts
    facts = load(run(inputs, tmp_path / "model" / "manifest.json", "--labels", labels)).facts
    assert (whole["rows"], facts["rows"], facts["steps"]) == (32, 16, 2)
    assert facts["tokens_per_epoch"] < whole["tokens_per_epoch"]


def test_a_sequence_beyond_the_positions_is_named(
    inputs: Inputs, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    from w2s.errors import DataError
    from w2s.tables import read_part

    short = Inputs(make_model(1, positions=16) / "manifest.json", *list(vars(inputs).values())[1:])
    with pytest.raises(DataError, match="beyond the model's 16 positions") as raised:
        run(short, tmp_path / "model" / "manifest.json")
    ids = set(read_part(inputs.examples, inputs.split, "unlabelled")["id"])
    assert str(raised.value.where).removeprefix("id ") in ids
    assert not (tmp_path / "model").exists()
