"""Scores per response: against a direct computation, in any batch, in several architectures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import score_responses
import torch
from tiny import PAIRS, example_rows
from w2s import heads, scoring
from w2s.artifact import load
from w2s.encoding import Encoding
from w2s.errors import ArtifactError, DataError
from w2s.models import load_causal, load_classifier, weights_digest

RNG = np.random.default_rng(0)
MANY = [
    (f"\n\nHuman: {'word ' * int(words)}{n}\n\nAssistant:", " a" * int(letters), f" b {n}")
    for n, (words, letters) in enumerate(RNG.integers(1, 12, (20, 2)))
]


def direct(model, encoding: Encoding, prompt: str, response: str) -> tuple[float, int]:
    """Log-probability of a response, one unpadded sequence and one token at a time, in float64."""
    given, answer = encoding.prompt_ids(prompt), encoding.response_ids(response)
    with torch.no_grad():
        logits = model(torch.tensor([given + answer])).logits[0].double()
    total = 0.0
    for offset, token in enumerate(answer):
        total += logits[len(given) + offset - 1].log_softmax(-1)[token].item()
    return total, len(answer)


@pytest.mark.parametrize("kind", ["opt", "llama", "gpt_neox"])
def test_equals_the_direct_computation(make_model, kind):
    folder = make_model(3, kind)
    model, encoding = load_causal(folder, on="cpu"), Encoding.load(folder)
    examples = example_rows()
    table = scoring.score(model, encoding, examples, batch_tokens=400).table
    assert list(table.columns) == scoring.SCORE_COLUMNS
    by_key = table.set_index(["id", "response"])
    for row in examples.to_dict("records"):
        for response in (0, 1):
            expected, count = direct(model, encoding, row["prompt"], row[f"response_{response}"])
            found = by_key.loc[(row["id"], response)]
            assert found["log_prob_sum"] == pytest.approx(expected, abs=1e-4)
            assert found["token_count"] == count
    assert table["log_prob_sum"].std() > 1  # random weights tell responses apart


def test_does_not_depend_on_the_batch(tiny_model):
    model, encoding = load_causal(tiny_model, on="cpu"), Encoding.load(tiny_model)
    examples = example_rows(MANY)
    alone = scoring.score(model, encoding, examples, batch_tokens=1)
    assert alone.forward_passes == alone.packed == 20 and alone.padded_tokens == alone.tokens
    for budget in (150, 1000, 10**6):
        batched = scoring.score(model, encoding, examples.sample(frac=1, random_state=budget), budget)
        assert batched.forward_passes < 20 and batched.tokens == alone.tokens <= batched.padded_tokens
        pd.testing.assert_frame_equal(batched.table, alone.table, check_exact=False, rtol=0, atol=1e-4)


def test_batches_keep_to_the_budget(tiny_model):
    rows = scoring.pairs(example_rows(MANY), Encoding.load(tiny_model))
    rows = [part for number, row in enumerate(rows) for part in (row.apart() if number % 3 else [row])]
    longest = max(map(len, rows))
    groups = scoring.batches(rows, 3 * longest)
    named = [[(row.id, row.first, len(row.answers)) for row in group] for group in [rows, *groups]]
    assert sorted(sum(named[1:], [])) == sorted(named[0])
    assert all(len(group) * max(map(len, group)) <= 3 * longest for group in groups)
    assert all(len({len(row.answers) for row in group}) == 1 for group in groups)
    assert len(groups[0]) == 3 and len(groups) < len(rows) / 3 + 2
    assert [len(group) for group in scoring.batches(rows, 1)] == [1] * len(rows)
    assert scoring.batches([], 10) == []


def test_head_sees_response_positions_only(tiny_model):
    model, encoding = load_causal(tiny_model, on="cpu"), Encoding.load(tiny_model)
    seen: list[torch.Size] = []
    handle = model.lm_head.register_forward_hook(lambda module, given, made: seen.append(given[0].shape))
    table = scoring.score(model, encoding, example_rows(), 10**6).table
    handle.remove()
    assert seen == [(1, table["token_count"].sum(), model.config.hidden_size)]
    assert model(torch.tensor([[5, 6, 7]])).logits.shape == (1, 3, model.config.vocab_size)  # nothing is left


def test_logits_of_half_precision_are_summed_in_float32():
    logits = torch.randn(3000, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(3000) % 7
    found = heads.log_probs(logits.bfloat16(), targets)
    assert found.dtype == torch.float32
    expected = logits.bfloat16().double().log_softmax(-1)[torch.arange(3000), targets]
    assert torch.allclose(found.double(), expected, atol=1e-6)


def test_sequence_beyond_the_positions_names_the_row(make_model):
    folder = make_model(0, positions=40)
    examples = example_rows([*PAIRS[:1], ("\n\nHuman: a\n\nAssistant:", " short", " long" * 40)])
    with pytest.raises(DataError, match="40 positions") as caught:
        scoring.score(load_causal(folder, on="cpu"), Encoding.load(folder), examples.iloc[1:])
    assert f"id {examples['id'][1]}, response 1" in str(caught.value)


def test_a_sequence_that_just_fits(make_model):
    folder = make_model(0, positions=40)
    encoding = Encoding.load(folder)
    prompt = "\n\nHuman: a\n\nAssistant:"
    fits = 39 - encoding.count(prompt, "")
    assert encoding.count(prompt, "x" * fits) + 1 == 40
    examples = example_rows([(prompt, "x", "x" * fits)])
    assert len(scoring.score(load_causal(folder, on="cpu"), encoding, examples).table) == 2


def test_nothing_before_the_response(tiny_model):
    encoding = Encoding.load(tiny_model)
    examples = example_rows([("", " a", " b")])
    model = load_causal(tiny_model, on="cpu")
    assert len(scoring.score(model, encoding, examples).table) == 2  # the BOS predicts the first token
    bare = Encoding(encoding.tokenizer, None, 2, 1)
    with pytest.raises(DataError, match="nothing predicts"):
        scoring.pairs(examples, bare)


def test_nan_is_refused_by_row(tiny_model):
    model = load_causal(tiny_model, on="cpu")
    with torch.no_grad():
        model.lm_head.weight[5] = math.nan
    with pytest.raises(DataError, match="not finite") as caught:
        scoring.score(model, Encoding.load(tiny_model), example_rows())
    assert "id " in str(caught.value)


def test_completeness_is_proven():
    ids = pd.Series(["a", "b"])
    full = pd.DataFrame({"id": ["a", "a", "b", "b"], "response": [0, 1, 0, 1], "log_prob_sum": -1.0})
    scoring.check_complete(full, ids)
    with pytest.raises(DataError, match="1 scores are missing\n.*id b, response 1"):
        scoring.check_complete(full.iloc[:3], ids)
    with pytest.raises(DataError, match="twice\n.*id a, response 0"):
        scoring.check_complete(pd.concat([full, full.iloc[:1]]), ids)
    with pytest.raises(DataError, match="not among"):
        scoring.check_complete(full, ids[:1])


def test_a_classifier_has_no_head(tiny_classifier):
    model = load_classifier(tiny_classifier, on="cpu")
    with pytest.raises(ArtifactError, match="no language-model head"):
        scoring.score(model, Encoding.load(tiny_classifier), example_rows())


def test_stage(tiny_model, make_examples, tmp_path):
    examples, split = make_examples()
    output = tmp_path / "scores" / "manifest.json"
    words = ["--model", tiny_model / "manifest.json", "--examples", examples, "--split", split]
    words += ["--part", "unlabelled", "--batch-tokens", 200, "--device", "cpu", "--output", output]
    score_responses.main(list(map(str, words)))
    made = load(output)
    table = pd.read_parquet(made.path("scores.parquet"))
    kept = example_rows()["id"][:-1]
    assert set(table["id"]) == set(kept) and len(table) == 2 * len(kept)
    assert table.dtypes.astype(str).to_dict() | {"id": ""} == {
        "id": "",
        "response": "int8",
        "log_prob_sum": "float64",
        "token_count": "int64",
    }
    assert made.spec == {"part": "unlabelled", "precision": "float32"}
    assert made.facts["weights_digest"] == weights_digest(tiny_model)
    assert made.facts["tokenizer_digest"] == Encoding.load(tiny_model).digest
    measured = made.run["measured"]
    assert measured["forward_passes"] > 1 and measured["packed_examples"] == len(kept)
    assert 0 <= measured["padding_share"] < 1
    again = tmp_path / "again" / "manifest.json"
    words[-1] = again
    score_responses.main(list(map(str, words)))
    assert load(again).digest == made.digest  # same batches, same bytes


def test_stage_refuses_an_empty_part(tiny_model, make_examples, tmp_path):
    examples, split = make_examples()
    words = ["--model", tiny_model / "manifest.json", "--examples", examples, "--split", split]
    output = tmp_path / "scores" / "manifest.json"
    with pytest.raises(DataError, match="'labelled' is empty"):
        score_responses.main([*map(str, words), "--output", str(output), "--part", "labelled"])
    assert not output.exists()
