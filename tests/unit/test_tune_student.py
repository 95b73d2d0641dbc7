"""Tuning on records: what carries loss, the confidence loss and its ramp, resuming, what the manifest names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import training_inputs
import tune_student as stage
from chat_inputs import said, with_template, write
from w2s import checkpoints
from w2s.artifact import load
from w2s.errors import ConfigError, DataError

SOURCES = ("weak", "own")
ROWS: list[dict[str, Any]] = [
    {
        "id": f"q{number // 2:02}",
        "messages": said(f"\n\nHuman: Tell me about {first} {number}.\n\nAssistant:"),
        "answer": f"{first} and {second}." * (1 + number % 3),
        "source": SOURCES[number % 2],
    }
    for number, (first, second) in enumerate(
        zip(
            training_inputs.WORDS * 2,
            training_inputs.WORDS[5:] + training_inputs.WORDS + ["hen"] * 5,
            strict=True,
        )
    )
]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("records") / "all", "records", ROWS)


@pytest.fixture(scope="module")
def tune(tiny_model: Path, records: Path) -> Callable[..., Path]:
    """``tune(output folder, *more)`` -> manifest: two epochs, eight steps, no dropout."""

    def run(folder: Path, *more: object, model: Path = tiny_model / "manifest.json") -> Path:
        words = ["--model", model, "--records", records, "--output", folder / "manifest.json", "--seed", 7]
        words += ["--learning-rate", 1e-3, "--batch-size", 8, "--epochs", 2, "--device", "cpu"]
        stage.main([str(word) for word in [*words, *more]])
        return folder / "manifest.json"

    return run


def history(manifest: Path) -> pd.DataFrame:
    return pd.read_csv(manifest.parent / "history.csv")


def first_batch(model: Path) -> tuple[Any, Any]:
    """Logits and labels of the answers' tokens in the first batch of eight, computed row by row."""
    import torch
    from w2s.encoding import Encoding
    from w2s.models import load_causal
    from w2s.training import row_order

    encoding, network = Encoding.load(model), load_causal(model, on="cpu")
    logits, labels = [], []
    for row in row_order(32, 8, 8, 7)[:8]:
        start = encoding.prompt_ids(ROWS[row]["messages"][0]["content"])
        end = encoding.response_ids(" " + ROWS[row]["answer"])
        with torch.no_grad():
            found = network(input_ids=torch.tensor([start + end])).logits[0]
        logits.append(found[len(start) - 1 : -1])
        labels += end
    return torch.cat(logits), torch.tensor(labels)


def test_first_loss_is_that_of_answers_and_their_ends(tiny_model: Path, tune: Any, tmp_path: Path) -> None:
    from torch.nn.functional import cross_entropy

    made = tune(tmp_path / "model", "--micro-batch-size", 2)
    table = history(made)
    assert table["loss"][0] == pytest.approx(cross_entropy(*first_batch(tiny_model)).item(), rel=1e-5)
    assert list(table.columns) == ["step", "loss", "grad_norm", "learning_rate"] and len(table) == 8
    assert table["loss"].iloc[-1] < table["loss"][0] - 0.1
    facts = load(made).facts
    assert facts["sources"] == {"own": 16, "weak": 16} and facts["rows"] == 32
    assert facts["chat_sha256"] == "" and facts["system_in_user"] == 0


def test_equal_to_sft_on_labels(
    tiny_model: Path, tune: Any, make_examples: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    """The weights are those of the student of paper A on the same texts."""
    import train_student_sft
    from tiny import as_artifact, write_label_file
    from w2s.tables import read_part

    pairs = [(row["messages"][0]["content"], " " + row["answer"], " no") for row in ROWS]
    examples, split = make_examples(pairs, test=0)
    ids = read_part(examples, split, "unlabelled")
    labels = pd.DataFrame({"id": ids["id"], "label": pd.Series(0, ids.index, "int8"), "source": "test"})
    labels["margin"] = labels["probability"] = 0.0
    given = as_artifact(tmp_path / "labels", lambda target: write_label_file(target, labels))
    inputs = training_inputs.Inputs(tiny_model / "manifest.json", examples, split, given, given)
    output = tmp_path / "sft" / "manifest.json"
    train_student_sft.main(inputs.arguments(output, "--dropout", 0, "--epochs", 2))
    ordered = [
        {
            "id": row["id"],
            "messages": said(row["prompt"]),
            "answer": row["response_0"].strip(),
            "source": "weak",
        }
        for row in ids.to_dict("records")
    ]
    same = write(tmp_path / "records", "records", ordered)
    made = tune(tmp_path / "tuned", "--records", same)
    assert load(made).manifest["files"] == load(output).manifest["files"]


def test_the_ramp_is_linear_and_stays() -> None:
    from w2s.confidence import ramp

    assert [ramp(step, 0.5, 4) for step in range(7)] == [0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert [ramp(step, 0.5, 2.5) for step in range(5)] == pytest.approx([0, 0.2, 0.4, 0.5, 0.5])
    assert [ramp(step, 0.5, 0) for step in range(3)] == [0.5, 0.5, 0.5]
    steps = [ramp(step, 0.75, 0.1 * 1000) for step in range(1000)]
    jumps = [after - before for before, after in zip(steps, steps[1:], strict=False)]
    assert max(jumps) == pytest.approx(0.75 / 100)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_loss_and_gradient_by_hand(weight: float) -> None:
    """d loss / d logits = softmax - (1 - a) onehot(label) - a onehot(own): the own choice is a constant."""
    import torch
    from torch.nn.functional import one_hot
    from w2s.confidence import token_losses

    torch.manual_seed(0)
    logits = (3 * torch.randn(6, 11)).requires_grad_()
    labels = torch.tensor([0, 3, 3, 10, 7, 1])
    labels[2] = logits[2].argmax()  # a token on which both agree
    shares = logits.detach().softmax(-1)
    own = logits.detach().argmax(-1)
    assert (own != labels).sum() >= 3
    target = (1 - weight) * one_hot(labels, 11) + weight * one_hot(own, 11)
    found = token_losses(logits, labels, weight)
    torch.testing.assert_close(found.detach(), -(target * shares.log()).sum(-1))
    found.sum().backward()
    torch.testing.assert_close(logits.grad, shares - target)


def test_confidence_in_a_training(tiny_model: Path, tune: Any, tmp_path: Path) -> None:
    from w2s.confidence import token_losses

    plain = tune(tmp_path / "plain")
    ramped = tune(tmp_path / "ramped", "--confidence-weight", 0.5, "--confidence-warmup", 0.5)
    at_once = tune(
        *(tmp_path / "at_once", "--confidence-weight", 0.5, "--confidence-warmup", 0, "--micro-batch-size", 2)
    )
    table = history(ramped)
    assert table["confidence_weight"].tolist() == [0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5]
    # The first step has no confidence yet, so that the loss before the second one is that of the plain training too.
    assert table["loss"][0] == pytest.approx(history(plain)["loss"][0], rel=1e-6)
    expected = token_losses(*first_batch(tiny_model), 0.5).mean().item()
    assert history(at_once)["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert (history(at_once)["confidence_weight"] == 0.5).all()
    assert abs(expected - table["loss"][0]) > 0.1
    assert len({load(one).digest for one in (plain, ramped, at_once)}) == 3


def test_weight_zero_is_no_confidence_loss(tune: Any, tmp_path: Path) -> None:
    without = tune(tmp_path / "without")
    zero = tune(tmp_path / "zero", "--confidence-weight", 0, "--confidence-warmup", 0.7)
    assert load(zero).manifest["files"] == load(without).manifest["files"]


def test_a_confident_training_with_adapters(tune: Any, tmp_path: Path) -> None:
    words = ("--lora-rank", 2, "--lora-dropout", 0, "--confidence-weight", 0.5, "--confidence-warmup", 0)
    made = tune(tmp_path / "model", *words, "--precision", "bfloat16", "--learning-rate", 0.05)
    table, facts = history(made), load(made).facts
    assert (table["confidence_weight"] == 0.5).all() and table["loss"].iloc[-1] < table["loss"][0] - 0.1
    assert 0 < facts["trainable_parameters"] < facts["parameters"] / 2


def test_a_continued_training_ends_in_the_same_files(
    tune: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ramp goes on where it was."""
    from w2s import trainers

    class Interruption(Exception):
        pass

    def stop(self: object, args: object, state: Any, control: object, **rest: object) -> None:
        if state.global_step == 4:
            raise Interruption

    words = ("--confidence-weight", 0.5, "--confidence-warmup", 0.9, "--dropout", 0.1, "--save-steps", 3)
    whole = tune(tmp_path / "whole", *words)
    with monkeypatch.context() as patch:
        patch.setattr(trainers.Watch, "on_step_begin", stop)
        with pytest.raises(Interruption):
            tune(tmp_path / "again", *words)
    again = tune(tmp_path / "again", *words)
    assert load(again).run["measured"]["resumed_from_step"] == 3
    assert load(again).manifest["files"] == load(whole).manifest["files"]
    assert not checkpoints.state_root(again).exists()


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_two_processes_take_the_steps_of_one(
    tiny_model: Path, records: Path, tune: Any, tmp_path: Path, layout: str
) -> None:
    import torch
    from test_distributed import launch

    more = ("--confidence-weight", 0.5, "--confidence-warmup", 0.5)
    alone, together = tune(tmp_path / "alone", *more), tmp_path / "together" / "manifest.json"
    words = ["--model", tiny_model / "manifest.json", "--records", records, "--output", together, "--seed", 7]
    words += ["--learning-rate", 1e-3, "--batch-size", 8, "--epochs", 2, "--device", "cpu", *more]
    done = launch(layout, "tune_student", [str(word) for word in words])
    assert done.returncode == 0, done.stderr
    for name in ("loss", "grad_norm", "confidence_weight"):
        assert history(together)[name].to_numpy() == pytest.approx(history(alone)[name].to_numpy(), rel=1e-4)
    ours, theirs = training_inputs.weights(together), training_inputs.weights(alone)
    for name, tensor in theirs.items():
        if not name.endswith("k_proj.bias"):  # no influence, see test_sft
            torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-5)


def test_the_manifest_names_the_base_that_was_trained(
    tiny_model: Path, records: Path, make_model: Callable[..., Path], tune: Any, tmp_path: Path
) -> None:
    """The released code trains one hard-coded base whatever it is told."""
    other = make_model(5)
    made = {
        base: load(tune(tmp_path / base.name, model=base / "manifest.json")) for base in (tiny_model, other)
    }
    for base, tuned in made.items():
        parents = tuned.manifest["parents"]
        assert set(parents) == {"model", "records"}
        assert parents["model"]["digest"] == load(base / "manifest.json").digest
        assert parents["records"]["digest"] == load(records).digest
        assert (tuned.folder / parents["model"]["path"]).resolve() == (base / "manifest.json").resolve()
    assert made[tiny_model].digest != made[other].digest


def test_own_template_in_training(tiny_model: Path, tune: Any, tmp_path: Path) -> None:
    from w2s.chat import OWN, Chat
    from w2s.encoding import Encoding

    base = with_template(tiny_model, tmp_path / "base")
    reader = Chat(Encoding.load(base.parent), OWN)
    columns = stage.tokenised(pd.DataFrame(ROWS), [row["messages"] for row in ROWS], reader)
    text = reader.encoding.tokenizer.decode(
        columns["prompt_ids"][0] + columns["response_ids"][0], skip_special_tokens=False
    )
    content = ROWS[0]["messages"][0]["content"].strip()
    assert text == f"</s>[user] {content}\n[assistant]{ROWS[0]['answer']}</s>"
    made = load(tune(tmp_path / "own", "--chat", "own", "--chat-sha256", reader.digest, model=base))
    assert made.facts["chat_sha256"] == reader.digest
    with pytest.raises(ConfigError, match="not the pinned 11"):
        tune(tmp_path / "other", "--chat", "own", "--chat-sha256", "11", model=base)


def test_records_that_cannot_be_learnt_are_named(
    make_model: Callable[..., Path], tune: Any, tmp_path: Path
) -> None:
    silent = write(tmp_path / "silent", "records", [*ROWS[:3], {**ROWS[3], "id": "mute", "answer": " \n"}])
    with pytest.raises(DataError, match="1 of 4 records have no answer: mute"):
        tune(tmp_path / "a", "--records", silent)
    open_end = write(tmp_path / "open", "records", [{**ROWS[0], "messages": said("a")[:0]}])
    with pytest.raises(DataError, match="cannot be answered") as raised:
        tune(tmp_path / "b", "--records", open_end)
    assert str(raised.value.where).endswith("row 0, id q00")
    with pytest.raises(DataError, match="beyond the model's 16 positions") as raised:
        tune(tmp_path / "c", model=make_model(1, positions=16) / "manifest.json")
    assert raised.value.where == "id q00"
    with pytest.raises(SystemExit):
        tune(tmp_path / "d", "--confidence-weight", 1.5)
