"""Both responses in one row: what each token sees, and the same scores as two sequences in every architecture."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import PAIRS, example_rows
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from w2s import heads, packing, scoring
from w2s.encoding import Encoding
from w2s.packing import ARCHITECTURES, PADDING, Batch, Layout, Row

HEADS = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
SIZES = {**HEADS, "intermediate_size": 32}
GROUPED = {**SIZES, "num_key_value_heads": 1, "head_dim": 8}
SHAPES = {
    "opt": {**HEADS, "word_embed_proj_dim": 16, "ffn_dim": 32},
    "llama": GROUPED,
    "mistral": {**GROUPED, "sliding_window": None},
    "gemma": GROUPED,
    "gemma2": GROUPED,
    "gpt_neox": SIZES,
    "qwen2": {**SIZES, "num_key_value_heads": 1},
    "qwen3": GROUPED,
    "gpt_neo": {
        "num_layers": 2,
        "num_heads": 2,
        "hidden_size": 16,
        "attention_types": [[["global", "local"], 1]],
    },
}
ENDS = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}


def make(kind: str, encoding: Encoding, attention: str | None = None, **changes: object) -> torch.nn.Module:
    """A tiny model with weights large enough that each token matters."""
    torch.manual_seed(0)
    shape = {"vocab_size": encoding.vocabulary_size, "max_position_embeddings": 256, **ENDS, **SHAPES[kind]}
    config = CONFIG_MAPPING[kind](**{**shape, **changes})
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)
    return model


@pytest.fixture(scope="module")
def encoding(tiny_tokenizer) -> Encoding:
    return Encoding.load(tiny_tokenizer)


def both_ways(model: torch.nn.Module, encoding: Encoding, monkeypatch: pytest.MonkeyPatch, budget: int = 400):
    """Scores packed and in two sequences."""
    packed = scoring.score(model, encoding, example_rows(), budget)
    monkeypatch.setattr(Layout, "of", classmethod(lambda cls, model: cls(False, "sdpa")))
    return packed, scoring.score(model, encoding, example_rows(), budget)


def test_each_architecture_that_is_declared_is_tested():
    assert set(SHAPES) == set(ARCHITECTURES) and set(heads.PLAIN) <= set(ARCHITECTURES)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_packed_scores_are_those_of_two_sequences(kind, encoding, monkeypatch):
    packed, apart = both_ways(make(kind, encoding), encoding, monkeypatch)
    assert (packed.packed, apart.packed) == (len(PAIRS), 0)
    assert packed.tokens < 0.75 * apart.tokens
    pd.testing.assert_frame_equal(packed.table, apart.table, check_exact=False, rtol=0, atol=1e-4)
    assert packed.table["log_prob_sum"].std() > 1


@pytest.mark.parametrize("kind", ["opt", "llama", "gemma2"])
def test_eager_attention_takes_the_mask_as_numbers(kind, encoding, monkeypatch):
    packed, apart = both_ways(make(kind, encoding, "eager"), encoding, monkeypatch)
    pd.testing.assert_frame_equal(packed.table, apart.table, check_exact=False, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["opt", "gpt_neo", "llama"])
def test_bfloat16(kind, encoding, monkeypatch):
    packed, apart = both_ways(make(kind, encoding).bfloat16(), encoding, monkeypatch)
    error = (packed.table["log_prob_sum"] - apart.table["log_prob_sum"]) / apart.table["log_prob_sum"]
    assert error.abs().max() < 0.02


def test_wrong_positions_or_a_mask_that_leaks_would_show(encoding, monkeypatch):
    """The tolerance above is far below what either mistake does."""
    model = make("llama", encoding)
    packed, apart = both_ways(model, encoding, monkeypatch)
    monkeypatch.undo()
    monkeypatch.setattr(
        packing,
        "visible",
        lambda segments: torch.ones((*segments.shape, segments.shape[1]), dtype=torch.bool).tril()[:, None],
    )
    leaky = scoring.score(model, encoding, example_rows(), 400).table
    assert (leaky["log_prob_sum"] - apart.table["log_prob_sum"])[leaky["response"] == 1].abs().min() > 1e-2
    monkeypatch.undo()
    inputs = packing.model_inputs
    monkeypatch.setattr(
        scoring,
        "model_inputs",
        lambda *given: {**inputs(*given), "position_ids": torch.arange(given[0].shape[1])[None]},
    )
    shifted = scoring.score(model, encoding, example_rows(), 400).table
    assert (shifted["log_prob_sum"] - apart.table["log_prob_sum"])[leaky["response"] == 1].abs().min() > 1e-2
    assert np.allclose(shifted["log_prob_sum"][::2], packed.table["log_prob_sum"][::2], atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("mistral", {"sliding_window": 40}),
        ("gemma2", {"sliding_window": 40}),
        ("gpt_neo", {"window_size": 40}),
    ],
)
def test_pairs_beyond_a_sliding_window_are_two_sequences(kind, changes, encoding, monkeypatch):
    packed, apart = both_ways(make(kind, encoding, **changes), encoding, monkeypatch)
    assert 0 < packed.packed < len(PAIRS)
    pd.testing.assert_frame_equal(packed.table, apart.table, check_exact=False, rtol=0, atol=1e-4)


def test_reach():
    def reach(kind: str, **changes: object) -> int | None:
        return packing._reach(CONFIG_MAPPING[kind](**changes))

    assert reach("mistral") == 4096 and reach("llama") is reach("opt") is reach("qwen2") is None
    assert reach("qwen2", use_sliding_window=True, sliding_window=64) == 64
    assert reach("gpt_neo", max_position_embeddings=128) == 128  # shorter than its window of 256
    assert reach("gpt_neo", max_position_embeddings=512) == 256
    everywhere = [[["global"], 24]]
    assert reach("gpt_neo", max_position_embeddings=512, attention_types=everywhere) == 512


def test_reach_is_of_the_sequence_or_of_the_row():
    row = Row("a", [1] * 6, ([2] * 3, [3] * 2))
    assert (len(row), row.longest) == (11, 9)
    for by_place, enough in ((False, 9), (True, 11)):
        assert Layout(True, "sdpa", enough, by_place).fits(row)
        assert not Layout(True, "sdpa", enough - 1, by_place).fits(row)
    assert Layout(False, "sdpa").divide([row]) == row.apart() and Layout(True, "sdpa").divide([row]) == [row]
    assert [(part.first, part.answers) for part in row.apart()] == [(0, ([2] * 3,)), (1, ([3] * 2,))]


def test_an_unknown_architecture_warns_once_and_is_scored(encoding, caplog, monkeypatch):
    packing._warn.cache_clear()
    monkeypatch.setitem(SHAPES, "stablelm", {**SIZES, "num_key_value_heads": 2})
    model = make("stablelm", encoding)
    with caplog.at_level(logging.WARNING, "w2s"):
        found = [scoring.score(model, encoding, example_rows(), 400) for _ in range(2)]
    assert len([line for line in caplog.messages if "stablelm" in line]) == 1
    assert found[0].packed == 0 and len(found[0].table) == 2 * len(PAIRS)


def test_attention_that_takes_no_mask_is_not_given_one(encoding):
    model = make("opt", encoding)
    model.config._attn_implementation = "flash_attention_2"
    assert not Layout.of(model).packs


def test_tensors_of_a_batch():
    first, second = Row("a", [5, 6], ([7, 8], [9])), Row("b", [4], ([3], [2]))
    batch = Batch.of([[first], [second]], pad_id=1)
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9], [4, 3, 2, 1, 1]]
    assert batch.segments.tolist() == [[0, 0, 1, 1, 2], [0, 1, 2, PADDING, PADDING]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 2], [0, 1, 1, 0, 0]]
    assert batch.targets.tolist() == [7, 8, 9, 3, 2] and batch.counts == [2, 1, 1, 1]
    # The first token of each response is predicted at the prompt's last one.
    assert batch.at.tolist() == [[0, 0, 0, 1, 1], [1, 2, 1, 0, 0]]
    seen = packing.visible(batch.segments)[:, 0].int().tolist()
    assert seen[0] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert seen[1][1:3] == [[1, 1, 0, 0, 0], [1, 0, 1, 0, 0]] and all(sum(row) for row in seen[1])


def test_tensors_of_two_pairs_in_a_line():
    batch = Batch.of([[Row("a", [5, 6], ([7], [9])), Row("b", [4], ([3, 8], [2]))]], pad_id=1)
    assert batch.ids.tolist() == [[5, 6, 7, 9, 4, 3, 8, 2]]
    assert batch.segments.tolist() == [[0, 0, 1, 2, 4, 5, 5, 6]]
    assert batch.positions.tolist() == [[0, 1, 2, 2, 0, 1, 2, 1]]
    assert batch.at[1].tolist() == [1, 1, 4, 5, 4] and batch.targets.tolist() == [7, 9, 3, 8, 2]
    seen = packing.visible(batch.segments)[0, 0].int().tolist()
    assert seen[4:] == [
        [0, 0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 1, 0, 0, 1],
    ]


def test_lines_are_filled_to_the_longest_row():
    rows = [Row(str(length), [1] * (length - 2), ([2], [3])) for length in (4, 10, 3, 6, 5)]
    lines = Layout(True, "sdpa").lines(rows)
    assert [[len(row) for row in line] for line in lines] == [[10], [6, 4], [5, 3]]
    apart = Layout(True, "sdpa", 8).lines(rows)  # the longest is 9 tokens with either response
    assert [len(row) for line in apart for row in line] == [3, 3, 9, 9, 2, 2, 5, 5, 4, 4]
    assert all(len(line) == 1 for line in apart)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_pairs_in_one_line_do_not_see_each_other(kind, encoding):
    model = make(kind, encoding)
    longer = ("\n\nHuman: Hi\n\nAssistant:", " no" * 60, " yes")
    rows = scoring.pairs(example_rows([*PAIRS, longer]), encoding)
    expected = scoring.score_rows(model, rows, encoding.pad_id, 1).table.set_index(["id", "response"])
    examples = [
        {"prompt_ids": row.prompt, "chosen_ids": row.answers[0], "rejected_ids": row.answers[1], "weight": 2}
        for row in rows
    ]
    batch = packing.collate_pairs(examples, Layout.of(model), encoding.pad_id)
    assert len(batch["input_ids"]) < len(rows) and batch["weight"].tolist() == [2] * len(rows)
    inputs = packing.model_inputs(
        batch["input_ids"], batch["segments"], batch["positions"], Layout.of(model).attention, torch.float32
    )
    with torch.no_grad():
        found = heads.token_log_probs(model, inputs, batch["at"], batch["targets"])
    sums = torch.stack([part.sum() for part in found.split(batch["counts"].tolist())])[batch["order"]]
    wanted = [[expected.loc[(row.id, number), "log_prob_sum"] for number in (0, 1)] for row in rows]
    np.testing.assert_allclose(sums.numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_sequences_in_one_line_do_not_see_each_other(kind, encoding):
    model = make(kind, encoding)
    rows = scoring.pairs(example_rows(PAIRS), encoding)
    expected = scoring.score_rows(model, rows, encoding.pad_id, 1).table.set_index(["id", "response"])
    examples = [{"prompt_ids": row.prompt, "response_ids": row.answers[1]} for row in rows]
    layout = Layout.of(model)
    batch = packing.collate_sequences(examples, layout, encoding.pad_id)
    assert len(batch["input_ids"]) < len(rows)
    inputs = packing.model_inputs(
        batch["input_ids"], batch["segments"], batch["positions"], layout.attention, torch.float32
    )
    with torch.no_grad():
        found = heads.token_log_probs(model, inputs, batch["at"], batch["targets"])
    assert float(found.sum()) == pytest.approx(
        expected["log_prob_sum"].xs(1, level="response").sum(), abs=1e-3
    )


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_through_the_head_are_autograds(frozen, bias, monkeypatch):
    monkeypatch.setitem(heads.LOGITS_AT_ONCE, "cpu", 3 * 11)  # three tokens at a time
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 11, bias=bias).requires_grad_(not frozen)
    hidden, targets = torch.randn(7, 8, requires_grad=True), torch.randint(11, (7,))
    wanted = [hidden, *([] if frozen else head.parameters())]
    weights = torch.randn(7)
    expected = head(hidden).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    found = heads.linear_log_probs(hidden, head.weight, head.bias, targets)
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad((found * weights).sum(), wanted)
    theirs = torch.autograd.grad((expected * weights).sum(), wanted)
    for mine, stock in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, stock, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(
            heads.linear_log_probs(hidden, head.weight, head.bias, targets), expected.detach()
        )


def test_mixed_precision_computes_the_head_in_the_low_one():
    torch.manual_seed(0)
    head, targets = torch.nn.Linear(64, 11, bias=False), torch.arange(7)
    hidden = torch.randn(7, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = head(hidden).float().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
        found = heads.linear_log_probs(hidden, head.weight, head.bias, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    found.sum().backward()
    assert head.weight.grad is not None and head.weight.grad.dtype == torch.float32
