"""The decode loop: the library's own tokens on every architecture, whatever shares the batch; the buffers; the budget."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.cache_utils import DynamicCache
from w2s import decoding, generation
from w2s.decoding import Continuation, SharedClockCache, decodable, decode
from w2s.encoding import Encoding
from w2s.generation import Ending, Sampling, generate, generate_each

NEW, PAD, EOS = 20, 1, 2
HEADS = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4}
GATED = {**HEADS, "intermediate_size": 32, "num_key_value_heads": 2, "head_dim": 8}
WINDOW = 9
KINDS = {
    "opt": {**HEADS, "ffn_dim": 32, "word_embed_proj_dim": 16},
    "llama": GATED,
    "mistral": {**GATED, "sliding_window": WINDOW},
    "gemma": GATED,
    "gemma2": {**GATED, "sliding_window": WINDOW},
    "gpt_neox": {**HEADS, "intermediate_size": 32},
    "qwen2": GATED,
    "qwen3": {**GATED, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    "gpt_neo": {
        "hidden_size": 16,
        "num_layers": 4,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 2]],
        "window_size": WINDOW,
    },
}


def tiny(kind: str, vocabulary: int = 60, **settings: object):
    """A random model whose tokens are not all about equally likely."""
    from transformers import AutoConfig

    torch.manual_seed(0)
    settings = {"vocab_size": vocabulary, "max_position_embeddings": 128, **KINDS.get(kind, {}), **settings}
    special = {"pad_token_id": PAD, "bos_token_id": EOS, "eos_token_id": EOS}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings, **special)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


def some_prompts(number: int = 12) -> list[list[int]]:
    torch.manual_seed(1)
    return [torch.randint(3, 60, (1 + 7 * place % 23,)).tolist() for place in range(number)]


def likeliest(asked, logits) -> list[int]:
    return logits.argmax(-1).tolist()


def at_random_ends(one: Continuation) -> bool:
    """Ends that differ from prompt to prompt, one with the first token."""
    return one.new[-1] == EOS or len(one.new) >= 1 + 5 * one.place % NEW


def never(one: Continuation) -> bool:
    return False


def run(model, prompts, ended=never, budget=4 * (23 + NEW), choose=likeliest) -> list[list[int]]:
    found = {one.place: one.new for one in decode(model, prompts, NEW, choose, ended, budget, PAD)}
    return [found[place] for place in range(len(prompts))]


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_library(kind):
    """Greedy, float32: of each prompt alone by transformers' generate, and of all through a pool of few."""
    model, prompts = tiny(kind), some_prompts()
    assert decodable(model)
    found = run(model, prompts, ended=at_random_ends)
    assert len({tuple(new) for new in found}) > len(prompts) // 2
    for place, prompt in enumerate(prompts):
        settings = GenerationConfig(do_sample=False, max_new_tokens=NEW, eos_token_id=EOS, pad_token_id=PAD)
        expected = model.generate(torch.tensor([prompt]), generation_config=settings)[
            0, len(prompt) :
        ].tolist()
        assert found[place] == expected[: len(found[place])]
        assert len(found[place]) == len(expected) or len(found[place]) == 1 + 5 * place % NEW


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_texts_are_those_of_the_library(kind, tiny_tokenizer, monkeypatch):
    """The same noise through transformers' generate, batch by batch, and through our loop; with top-p and stop texts."""
    encoding = Encoding.load(tiny_tokenizer)
    model = tiny(kind, encoding.vocabulary_size)
    prompts = [(f"id{place}", "What about " + "this and that " * (place % 5)) for place in range(12)]
    sampling = Sampling(0.7, 0.9, max_new_tokens=NEW, stop=("e", "\n\n"), seed=3)
    ours = generate(model, encoding, prompts, sampling, batch_size=5)
    assert {answer.finished for answer in ours} >= {"stop", "length"}
    monkeypatch.setattr(generation, "decodable", lambda model: False)
    assert generate(model, encoding, prompts, sampling, batch_size=5) == ours


@pytest.mark.parametrize("kind", ["opt", "gemma2", "gpt_neo"])
@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_budget_and_order_change_nothing(kind, budget):
    model, prompts = tiny(kind), some_prompts()
    expected = run(model, prompts, at_random_ends)
    assert run(model, prompts, at_random_ends, budget) == expected
    assert (
        run(model, prompts[::-1], lambda one: at_random_ends(replace(one, place=11 - one.place)), budget)
        == expected[::-1]
    )


def test_other_pasts_are_left_to_the_library(tiny_tokenizer, caplog):
    encoding = Encoding.load(tiny_tokenizer)
    sizes = {"hidden_size": 16, "n_layer": 2, "n_head": 4}
    for kind, settings in (
        ("bloom", sizes),
        ("mamba", {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),
    ):
        assert not decodable(tiny(kind, **settings))
    model = tiny("bloom", encoding.vocabulary_size, **sizes)
    answers = generate(model, encoding, [("a", "What?"), ("b", "Who was it?")], Sampling(max_new_tokens=5), 2)
    assert len(answers) == 2 and all(answer.tokens <= 5 for answer in answers)
    assert [record.message for record in caplog.records if record.name == "w2s.generation"] == [
        "BloomForCausalLM keeps its past in a form of its own: batches wait for their longest response"
    ]


def test_the_next_prompt_takes_the_place_of_one_that_ended():
    """Four prompts of one length, room for two, answers of 3, 9, 3 and 3 tokens: two prefills and eight steps, not 14."""
    model = tiny("opt")
    calls = []
    model.register_forward_hook(
        lambda module, given, settings, made: calls.append(tuple(settings["input_ids"].shape)),
        with_kwargs=True,
    )
    ends = [3, 9, 3, 3]
    new = run(model, [[5, 6, 7, 8]] * 4, lambda one: len(one.new) == ends[one.place], budget=2 * (4 + NEW))
    assert [len(tokens) for tokens in new] == ends
    assert calls == [(2, 4), (2, 1), (2, 1), (1, 4), (2, 1), (2, 1), (1, 4), (2, 1), (2, 1), (1, 1), (1, 1)]


def test_only_the_last_position_goes_through_the_head():
    model = tiny("opt")
    seen = []
    model.lm_head.register_forward_hook(lambda module, given, made: seen.append(given[0].shape[1]))
    run(model, some_prompts(4))
    assert set(seen) == {1}


def test_prompts_are_let_in_up_to_the_budget_and_when_it_is_worthwhile():
    def waiting(*lengths: int) -> deque[Continuation]:
        return deque(Continuation(place, [5] * length) for place, length in enumerate(lengths))

    def lengths(group: list[Continuation]) -> list[int]:
        return [len(one.prompt) for one in group]

    # Three at 20 + 10 tokens are 90, the fourth would make it 4 * 40.
    assert lengths(decoding._next_group(waiting(10, 20, 20, 30), 0, 10, 100)) == [10, 20, 20]
    assert lengths(decoding._next_group(waiting(10, 20), 1, 10, 89)) == [10]
    # One alone always runs; beside others it does not.
    assert lengths(decoding._next_group(waiting(500), 0, 10, 100)) == [500]
    assert not decoding._next_group(waiting(500), 1, 10, 100)
    # One free place of 18 is not worth a pass, unless nothing else waits.
    assert not decoding._next_group(waiting(10, 10, 10), 17, 10, 18 * 20)
    assert lengths(decoding._next_group(waiting(10), 17, 10, 18 * 20)) == [10]
    long = decoding.PROMPT_TOKENS // 2 - 1
    assert lengths(decoding._next_group(waiting(long, long, long), 0, 1, 10**6)) == [long, long]


def filled(rows: int, columns: int, start: float) -> DynamicCache:
    """A library's cache of one layer with one head, whose keys count up from ``start`` row by row."""
    past = DynamicCache()
    keys = start + torch.arange(rows * columns, dtype=torch.float32).view(rows, 1, columns, 1)
    past.update(keys, -keys, 0)
    return past


def test_buffers_hold_each_rows_own_past(monkeypatch):
    monkeypatch.setattr(decoding, "SPARE_COLUMNS", 3)
    cache = SharedClockCache([None])
    (layer,) = cache.layers
    cache.admit(filled(2, 4, 0.0), [4, 2])
    expected = [[0.0, 1, 2, 3], [6.0, 7]]

    def check() -> None:
        assert cache.lengths == [len(row) for row in expected]
        for row, values in enumerate(expected):
            columns = slice(cache.end - len(values), cache.end)
            assert layer.keys[row, 0, columns, 0].tolist() == values
            assert layer.values[row, 0, columns, 0].tolist() == [-value for value in values]

    def step(value: float) -> None:
        states = value + torch.arange(len(expected), dtype=torch.float32).view(-1, 1, 1, 1)
        seen, _ = cache.get_mask_sizes(1, 0)
        keys, _ = cache.update(states, -states, 0)
        assert keys.shape == (len(expected), 1, seen, 1) and cache.mask().shape == (len(expected), seen)
        assert cache.mask().sum(1).tolist() == [len(row) + 1 for row in expected]
        cache.advance()
        for row, values in enumerate(expected):
            values.append(value + row)

    for value in (100.0, 110, 120, 130):  # beyond the spare columns
        step(value)
        check()
    cache.admit(filled(3, 19, 200.0), [19, 1, 5])  # longer than all, more rows than there is room for
    expected += [[200.0 + place for place in range(19)], [237.0], [252.0, 253, 254, 255, 256]]
    check()
    for row in (3, 0):
        cache.release(row)
        last = expected.pop()
        if row < len(expected):
            expected[row] = last
        check()
    step(300.0)
    check()
    for row in (2, 1, 0):
        cache.release(row)
    expected.clear()
    check()
    cache.admit(filled(1, 2, 400.0), [2])
    expected.append([400.0, 401.0])
    check()


def test_a_window_is_all_that_is_looked_at():
    cache = SharedClockCache([None, 3])
    past = filled(1, 5, 0.0)
    past.update(past.layers[0].keys, past.layers[0].values, 1)
    cache.admit(past, [5])
    assert cache.is_sliding == [False, True]
    assert [cache.get_mask_sizes(1, layer) for layer in (0, 1)] == [(6, 0), (3, 3)]
    state = torch.full((1, 1, 1, 1), 9.0)
    assert [cache.update(state, state, layer)[0].flatten().tolist() for layer in (0, 1)] == [
        [0.0, 1, 2, 3, 4, 9],
        [3.0, 4, 9],
    ]


def test_buffers_do_not_grow_beyond_what_is_in_reserve():
    """A small share more than what runs, however many prompts came before."""
    model, largest = tiny("opt"), []
    moved = SharedClockCache._move

    def watched(cache: SharedClockCache, rows: int, width: int) -> None:
        moved(cache, rows, width)
        largest.append(cache.capacity)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SharedClockCache, "_move", watched)
        patch.setattr(decoding, "SPARE_COLUMNS", 8)
        run(model, some_prompts(40), budget=8 * (23 + NEW))
    assert len(largest) > 3
    assert max(rows * (columns - 16) for rows, columns in largest) <= 8 * (23 + NEW) * 9 / 8


def test_responses_come_as_they_end(tiny_model):
    from w2s.models import load_causal

    model, encoding = load_causal(tiny_model, on="cpu"), Encoding.load(tiny_model)
    prompts = [(f"id{place}", "Tell me. " * (place % 4) + "What?") for place in range(9)]
    sampling = Sampling(max_new_tokens=12)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    found, passes = {}, []
    for place, answer in generate_each(model, encoding, prompts, sampling, batch_size=2):
        found[place] = answer
        passes.append(len(calls))
    assert [found[place] for place in range(9)] == generate(model, encoding, prompts, sampling)
    assert passes[0] < passes[-1] / 2
    assert not torch.is_inference_mode_enabled()


def test_stop_texts_are_found_wherever_they_end(tiny_tokenizer):
    """After each token the answer is that of looking at the text."""
    encoding = Encoding.load(tiny_tokenizer)
    ids = encoding.response_ids("Cats eat fish\n\nHuman: so ü they ½ said. \n", eos=False)
    for stop in (("\n\nHuman:",), ("fish",), ("ü",), ("½", "xyz"), (". ",), ("\n",), ("nothing",), ()):
        ended = Ending(encoding, stop)
        for end in range(1, len(ids) + 1):
            one = Continuation(0, [5], ids[:end])
            completes = any(text in encoding.decode(ids[:end][-16:]) for text in stop)
            earlier = any(text in encoding.decode(ids[: end - 1]) for text in stop)
            assert ended(one) == completes or earlier
    assert Ending(encoding, ())(Continuation(0, [5], [7, encoding.eos_id]))


def test_logits_that_are_no_numbers_are_named(tiny_model):
    from w2s.errors import DataError
    from w2s.models import load_causal

    model, encoding = load_causal(tiny_model, on="cpu"), Encoding.load(tiny_model)
    with torch.no_grad():
        model.lm_head.weight[7] = float("nan")
    with pytest.raises(DataError, match="no finite numbers\n  where:   prompt id0"):
        generate(model, encoding, [("id0", "What?")], Sampling(max_new_tokens=3))
