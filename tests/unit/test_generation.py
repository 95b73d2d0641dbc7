"""Sampling: exact, per prompt, independent of the batch; where a response ends; the stage."""

from __future__ import annotations

import hashlib
from pathlib import Path

import generate as stage
import numpy as np
import pandas as pd
import pytest
import torch
from tiny import as_artifact, example_rows
from w2s import generation
from w2s.artifact import load
from w2s.encoding import Encoding
from w2s.errors import DataError
from w2s.generation import Sampling, finish, generate, gumbel_argmax, gumbel_noise, prompt_key
from w2s.models import load_causal
from w2s.tables import write_parquet

PROMPTS = [
    (f"id{number:02}", f"\n\nHuman: {'Tell me. ' * (number % 7)}What about {number}?\n\nAssistant:")
    for number in range(16)
]


@pytest.fixture(scope="module")
def opt(tiny_model):
    return load_causal(tiny_model, on="cpu"), Encoding.load(tiny_model)


class FixedHead(torch.nn.Module):
    """A language-model head whose logits are the same everywhere."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(*hidden.shape[:-1], -1)


def fixed_model(folder: Path, logits: torch.Tensor):
    """A real OPT with the head of a loaded die."""
    model = load_causal(folder, on="cpu")
    model.lm_head = FixedHead(logits)
    return model


def fixed_logits(encoding: Encoding, tokens: dict[str, float]) -> torch.Tensor:
    """Logits that allow only the given texts of one token each."""
    logits = torch.full((encoding.vocabulary_size,), -1e4)
    for text, value in tokens.items():
        (token,) = encoding.response_ids(text, eos=False)
        logits[token] = value
    return logits


@pytest.mark.parametrize("kind", ["opt", "llama", "gpt_neox"])
def test_batch_size_and_order_do_not_change_the_text(make_model, kind):
    folder = make_model(1, kind)
    model, encoding = load_causal(folder, on="cpu"), Encoding.load(folder)
    sampling = Sampling(max_new_tokens=16, seed=5)
    prompts = PROMPTS[:10]
    alone = generate(model, encoding, prompts, sampling, batch_size=1)
    assert len({answer.response for answer in alone}) == len(prompts)
    for batch_size in (3, 8):
        assert generate(model, encoding, prompts, sampling, batch_size) == alone
    order = np.random.default_rng(0).permutation(len(prompts))
    shuffled = generate(model, encoding, [prompts[row] for row in order], sampling, batch_size=5)
    assert shuffled == [alone[row] for row in order]
    some = generate(model, encoding, prompts[3:5], sampling, batch_size=8)
    assert some == alone[3:5]


def test_greedy_equals_the_direct_computation(opt):
    model, encoding = opt
    found = generate(model, encoding, PROMPTS[:4], Sampling(temperature=0, max_new_tokens=12, stop=()), 4)
    for (_, text), answer in zip(PROMPTS[:4], found, strict=True):
        ids = encoding.prompt_ids(text)
        start = len(ids)
        with torch.no_grad():
            while len(ids) < start + 12 and encoding.eos_id not in ids[start:]:
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert answer == finish(encoding, ids[start:], Sampling(max_new_tokens=12, stop=()))


def test_seed_and_id_key_the_text(opt):
    model, encoding = opt
    first = generate(model, encoding, PROMPTS, Sampling(max_new_tokens=12, seed=0))
    assert generate(model, encoding, PROMPTS, Sampling(max_new_tokens=12, seed=0)) == first
    other_seed = generate(model, encoding, PROMPTS, Sampling(max_new_tokens=12, seed=1))
    other_id = generate(
        model, encoding, [(f"x{name}", text) for name, text in PROMPTS], Sampling(max_new_tokens=12)
    )
    for others in (other_seed, other_id):
        assert sum(left == right for left, right in zip(first, others, strict=True)) <= 1


def test_the_models_own_generation_settings_play_no_part(opt):
    model, encoding = opt
    sampling = Sampling(max_new_tokens=12)
    expected = generate(model, encoding, PROMPTS[:4], sampling)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.top_k = 1
    assert generate(model, encoding, PROMPTS[:4], sampling) == expected


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (0.7, 0.8)])
def test_tokens_follow_the_softmax(opt, tiny_model, temperature, top_p):
    """Chi-square of 6,000 sampled tokens against softmax(logits / T), restricted to the top-p set."""
    encoding = opt[1]
    logits = {"a": 1.5, "b": 1.0, "c": 0.5, "d": 0.0, "e": -0.5, "f": -1.5}
    model = fixed_model(tiny_model, fixed_logits(encoding, logits))
    prompts = [(f"p{number}", "x") for number in range(200)]
    sampling = Sampling(temperature, top_p, max_new_tokens=30, stop=())
    text = "".join(answer.response for answer in generate(model, encoding, prompts, sampling, 200))
    assert len(text) == 6000
    expected = np.exp(np.array(list(logits.values())) / temperature)
    expected /= expected.sum()
    kept = np.cumsum(expected) - expected < top_p
    expected = np.where(kept, expected, 0) / expected[kept].sum()
    counts = np.array([text.count(letter) for letter in logits])
    assert (counts[~kept] == 0).all()
    statistic = ((counts - 6000 * expected)[kept] ** 2 / (6000 * expected[kept])).sum()
    # 99.9 % quantiles of chi-square for 1 to 5 degrees of freedom.
    assert statistic < [10.8, 13.8, 16.3, 18.5, 20.5][kept.sum() - 2]


def test_noise_is_standard_gumbel_and_independent():
    keys = [prompt_key(0, f"p{number}") for number in range(40)]
    noise = np.stack([gumbel_noise(keys, [step] * len(keys), 5000).numpy() for step in range(5)])
    assert np.isfinite(noise).all()
    uniform = np.sort(np.exp(-np.exp(-noise.astype(float))).ravel())
    # Kolmogorov-Smirnov distance of a million values: 1.95 / sqrt(n) is the 99.9 % quantile.
    assert np.abs(uniform - np.arange(1, uniform.size + 1) / uniform.size).max() < 1.95 / np.sqrt(
        uniform.size
    )
    for left, right in ((noise[0], noise[1]), (noise[:, 0], noise[:, 1]), (noise[..., 1:], noise[..., :-1])):
        assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 4 / np.sqrt(left.size)
    assert len(np.unique(noise)) > 0.95 * noise.size


def test_noise_is_the_same_everywhere():
    """Against MurmurHash3's finaliser in plain Python: no library's random numbers are involved."""

    def hashed(token: int, start: int) -> int:
        value = (token * 0x9E3779B1 + start) & 0xFFFFFFFF
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            value = ((value ^ (value >> shift)) * factor) & 0xFFFFFFFF
        return value

    key = prompt_key(7, "abc")
    assert key == int.from_bytes(hashlib.sha256(b"7\0abc").digest()[:8], "little")
    start = int.from_bytes(hashlib.blake2b(f"{key}\0{3}".encode(), digest_size=4).digest(), "little")
    expected = [-np.log(-np.log1p(-(hashed(token, start) % 2**31 + 0.5) / 2**31)) for token in range(2000)]
    assert gumbel_noise([key], [3], 2000)[0].numpy() == pytest.approx(np.array(expected), abs=2e-5)


def test_where_a_response_ends(opt):
    encoding = opt[1]
    text = encoding.response_ids(" Fish.", eos=False)
    turn = encoding.response_ids("\n\nHuman: More?", eos=False)
    sampling = Sampling(max_new_tokens=60)
    assert finish(encoding, [*text, encoding.eos_id, 1, 1], sampling) == finish(
        encoding, [*text, encoding.eos_id], sampling
    )
    ended = finish(encoding, [*text, encoding.eos_id, *turn], sampling)
    assert (ended.response, ended.tokens, ended.finished) == (" Fish.", len(text), "eos")
    stopped = finish(encoding, [*text, *turn, encoding.pad_id, encoding.pad_id], sampling)
    assert (stopped.response, stopped.tokens, stopped.finished) == (" Fish.", len(text), "stop")
    assert finish(encoding, [*text, *turn, encoding.eos_id], sampling) == stopped
    cut = finish(encoding, text, Sampling(max_new_tokens=len(text)))
    assert (cut.response, cut.tokens, cut.finished) == (" Fish.", len(text), "length")
    empty = finish(encoding, turn, sampling)
    assert (empty.response, empty.tokens, empty.finished) == ("", 0, "stop")


def test_a_stop_text_ends_the_row(opt, tiny_model):
    """A model that says "hhh..." ends after the third token, however many are allowed."""
    encoding = opt[1]
    model = fixed_model(tiny_model, fixed_logits(encoding, {"h": 0.0}))
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    answers = generate(model, encoding, PROMPTS[:2], Sampling(max_new_tokens=50, stop=("hhh",)), 2)
    assert [(answer.response, answer.finished) for answer in answers] == [("", "stop")] * 2
    assert len(calls) == 3
    answers = generate(model, encoding, PROMPTS[:2], Sampling(max_new_tokens=50, stop=("x",)), 2)
    assert [(answer.response, answer.tokens, answer.finished) for answer in answers] == [
        ("h" * 50, 50, "length")
    ] * 2


def test_too_few_positions_are_named(opt):
    model, encoding = opt
    longest = max(PROMPTS, key=lambda prompt: len(encoding.prompt_ids(prompt[1])))
    room = 256 - len(encoding.prompt_ids(longest[1]))
    generate(model, encoding, [longest], Sampling(max_new_tokens=1))
    with pytest.raises(
        DataError, match=f"the model's 256 positions\n  where:   prompt {longest[0]}\n"
    ) as error:
        generate(model, encoding, [PROMPTS[0], longest], Sampling(max_new_tokens=room + 1))
    assert f"at most {room}" in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"max_new_tokens": 0}, {"stop": ("a", "")}],
)
def test_impossible_settings(settings):
    with pytest.raises(DataError):
        Sampling(**settings)


def test_stage(tiny_model, tmp_path):
    pairs = [(text, f" yes {name}", f" no {name}") for name, text in [*PROMPTS, ("again", PROMPTS[0][1])]]
    examples = example_rows(pairs)
    parts = pd.DataFrame({"id": examples["id"], "part": "test"})
    parts.loc[3, "part"] = "labelled"
    made = as_artifact(tmp_path / "examples", lambda to: write_parquet(examples, to / "examples.parquet"))
    split = as_artifact(tmp_path / "split", lambda to: write_parquet(parts, to / "assignment.parquet"))

    def run(name: str, *more: str) -> pd.DataFrame:
        inputs = ["--model", tiny_model / "manifest.json", "--examples", made, "--split", split]
        output = tmp_path / name / "manifest.json"
        settings = ["--prompts", "9", "--max-new-tokens", "16", "--seed", "4", "--output", output, *more]
        stage.main([str(word) for word in [*inputs, *settings]])
        return pd.read_parquet(load(output).path("generations.parquet"))

    table = run("a")
    assert list(table.columns) == ["id", "prompt", "response", "tokens", "finished"]
    test = examples[parts["part"] == "test"].sort_values("id").drop_duplicates("prompt")
    assert table["id"].tolist() == test["id"].tolist()[:9]
    assert table["prompt"].tolist() == test["prompt"].tolist()[:9]
    assert set(table["finished"]) <= {"eos", "stop", "length"} and (table["tokens"] <= 16).all()
    pd.testing.assert_frame_equal(run("b", "--batch-size", "2"), table)
    first, second = (load(tmp_path / name / "manifest.json") for name in "ab")
    assert first.digest == second.digest and first.spec == second.spec
    assert first.facts["rows_out"] == 9 and first.facts["prompts_available"] == 15
    assert first.manifest["stage"] == "generate" and set(first.manifest["parents"]) == {
        "model",
        "examples",
        "split",
    }
    assert not run("c", "--seed", "5")["response"].equals(table["response"])


def test_stage_without_test_prompts(tiny_model, make_examples, tmp_path):
    examples, split = make_examples(test=0)
    output = tmp_path / "out" / "manifest.json"
    words = [
        "--model",
        tiny_model / "manifest.json",
        "--examples",
        examples,
        "--split",
        split,
        "--prompts",
        "3",
    ]
    with pytest.raises(DataError, match="the test part is empty"):
        stage.main([*map(str, words), "--output", str(output)])
    assert not output.parent.exists()


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 1e4])
def test_the_largest_noisy_score_is_found_without_all_noise(spread):
    """With flat and with steep scores, with words that top-p has taken out, in several blocks of rows."""
    torch.manual_seed(0)
    words = generation.FEW + 100
    scores = torch.randn(60, words) * spread
    scores[::3, 100:] = -torch.inf
    keys = [prompt_key(0, f"p{number}") for number in range(60)]
    for first in range(10):
        steps = list(range(first, first + 60))
        expected = (scores + gumbel_noise(keys, steps, words)).argmax(-1)
        assert gumbel_argmax(scores, keys, steps).tolist() == expected.tolist()


def test_noise_is_below_its_bound():
    """At the ends of the range, at powers of two and between."""
    uniform = torch.cat(
        [
            (torch.arange(2.0**20) + 0.5) * 2**-31,
            torch.rand(10**6),
            2.0 ** -torch.arange(1, 32),
            torch.ones(1),
        ]
    )
    uniform = uniform[uniform < 1]
    gap = generation._gumbel_bound(uniform) - generation._gumbel(uniform.clone())
    assert gap.min() > 0
    assert gap[: 2**20].max() < 0.07
