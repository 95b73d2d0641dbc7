"""Models from scratch in each architecture: they learn, load, score packed pairs, answer and take adapters."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import training_inputs
from conftest import as_artifact
from w2s.architectures import ARCHITECTURES, DEFAULT, check_sizes, new_model
from w2s.errors import ConfigError

SIZES = {"width": 32, "layers": 3, "heads": 4, "feed-forward": 48, "positions": 96, "max-tokens": 96}
TRAINING = {"learning-rate": 1e-2, "steps": 2, "batch-size": 8, "seed": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def make(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make(architecture, **settings)`` -> manifest of a model after two steps, or the one made before."""
    import pretrain_model
    from w2s.tables import write_parquet

    texts = pd.DataFrame(training_inputs.pairs(24), columns=["prompt", "response", "other"])
    folder = tmp_path_factory.mktemp("architectures")
    corpus = as_artifact(folder / "corpus", lambda target: write_parquet(texts, target / "corpus.parquet"))

    def pretrain(architecture: str, name: str = "", **changes: object) -> Path:
        output = folder / (name or architecture) / "manifest.json"
        if not output.exists():
            words = ["--corpus", corpus, "--tokenizer", tiny_tokenizer / "manifest.json", "--output", output]
            for flag, value in {**SIZES, **TRAINING, **changes, "architecture": architecture}.items():
                words += [f"--{flag}", value]
            pretrain_model.main([str(word) for word in words])
        return output

    return pretrain


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sizes_mean_the_same(architecture: str, make: Callable[..., Path]) -> None:
    from w2s.models import load_causal

    manifest = make(architecture)
    model = load_causal(manifest.parent, on="cpu")
    config = model.config
    assert config.model_type == architecture.replace("-", "_")
    sizes = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads)
    assert sizes == (32, 3, 4) and config.max_position_embeddings == 96
    shapes = {tuple(weight.shape) for weight in model.parameters()}
    assert {(32, 48), (48, 32)} <= shapes
    assert not [name for name, value in config.to_dict().items() if "window" in name and value == 4096]
    spec = json.loads(manifest.read_text())["spec"]
    assert spec.get("architecture", DEFAULT) == architecture
    assert ("architecture" in spec) == (architecture != DEFAULT)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_first_weights_have_the_declared_spread(architecture: str, tiny_tokenizer: Path) -> None:
    from w2s.encoding import Encoding

    sizes = {"width": 64, "layers": 2, "heads": 4, "feed_forward": 48, "positions": 96}
    args = argparse.Namespace(architecture=architecture, initial_std=0.1, seed=3, **sizes)
    model = new_model(args, Encoding.load(tiny_tokenizer))
    maps = [weight for weight in model.parameters() if tuple(weight.shape) in ((64, 64), (192, 64))]
    spreads = [float(weight.detach().std()) for weight in maps]
    assert len(maps) >= 2 * 2 and spreads == pytest.approx([0.1] * len(maps), rel=0.1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_pairs_score_as_two_sequences(
    architecture: str, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny import PAIRS, example_rows
    from w2s import scoring
    from w2s.encoding import Encoding
    from w2s.models import load_causal
    from w2s.packing import Layout

    folder = make(architecture).parent
    model, encoding = load_causal(folder, on="cpu"), Encoding.load(folder)
    packed = scoring.score(model, encoding, example_rows(), 400)
    assert packed.packed == len(PAIRS)
    monkeypatch.setattr(Layout, "of", classmethod(lambda cls, model: cls(False, "sdpa")))
    apart = scoring.score(model, encoding, example_rows(), 400)
    assert apart.packed == 0
    pd.testing.assert_frame_equal(packed.table, apart.table, check_exact=False, rtol=0, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_answers_are_the_likeliest_tokens(architecture: str, make: Callable[..., Path]) -> None:
    import torch
    from w2s.encoding import Encoding
    from w2s.generation import Sampling, finish, generate
    from w2s.models import load_causal

    folder = make(architecture).parent
    model, encoding = load_causal(folder, on="cpu"), Encoding.load(folder)
    prompts = [(f"id{row}", pair[0]) for row, pair in enumerate(training_inputs.pairs(3))]
    found = generate(model, encoding, prompts, Sampling(temperature=0, max_new_tokens=8, stop=()), 2)
    for (_, text), answer in zip(prompts, found, strict=True):
        ids = encoding.prompt_ids(text)
        start = len(ids)
        with torch.no_grad():
            while len(ids) < start + 8 and encoding.eos_id not in ids[start:]:
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert answer == finish(encoding, ids[start:], Sampling(max_new_tokens=8, stop=()))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapters_go_where_peft_puts_them(
    architecture: str,
    make: Callable[..., Path],
    make_examples: Callable[..., tuple[Path, Path]],
    tmp_path: Path,
) -> None:
    """DPO begins at ln 2, changes the attention's maps and nothing else, and loads."""
    import train_student_dpo
    from w2s.artifact import load
    from w2s.models import load_causal

    manifest = make(architecture)
    inputs = training_inputs.make(tmp_path / "inputs", manifest.parent, make_examples, 20)
    output = tmp_path / "dpo" / "manifest.json"
    lora = ("--lora-rank", 4, "--lora-dropout", 0)
    train_student_dpo.main(inputs.arguments(output, "--beta", 0.1, *lora, scores=True))
    assert load(output).facts["first_loss"] == pytest.approx(0.693147, abs=1e-5)
    before, after = training_inputs.weights(manifest), training_inputs.weights(output)
    assert set(before) == set(after)
    changed = {name for name in before if not before[name].equal(after[name])}  # type: ignore[attr-defined]
    expected = (
        ("query_key_value.weight",) if architecture == "gpt-neox" else ("q_proj.weight", "v_proj.weight")
    )
    assert changed and all(name.endswith(expected) for name in changed)
    assert len(changed) == len(expected) * SIZES["layers"]
    load_causal(output.parent, on="cpu")


@pytest.mark.parametrize("architecture", ["llama", "gpt-neo"])
def test_same_seed_same_bytes(architecture: str, make: Callable[..., Path]) -> None:
    from w2s.artifact import load

    first, again, other = (
        load(manifest).digest
        for manifest in (
            make(architecture),
            make(architecture, "again-" + architecture),
            make(architecture, "other-" + architecture, seed=2),
        )
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("architecture", "width", "heads", "message"),
    [
        ("opt", 30, 4, "cannot be divided among 4 heads"),
        ("llama", 12, 4, "heads of size 3 .* no rotary positions in llama"),
        ("gpt-neox", 16, 4, "a multiple of 8"),
    ],
)
def test_heads_that_do_not_fit_are_refused(architecture: str, width: int, heads: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_sizes(architecture, width, heads)
    check_sizes("gpt-neo", 12, 4)


def test_names_are_known_without_a_library() -> None:
    scripts = Path(__file__).resolve().parents[2] / "scripts"
    code = f"import sys; sys.path.insert(0, {str(scripts)!r}); import w2s.architectures; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "numpy"} & set(done.stdout.split())
