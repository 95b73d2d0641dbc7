"""Gold scoring: the model's input, batches, padding, errors, the stage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import score_gold as stage
import torch
from tiny import PAIRS, as_artifact
from transformers import AutoTokenizer, DebertaV2Config, DebertaV2ForSequenceClassification
from w2s.artifact import load
from w2s.encoding import Encoding
from w2s.errors import ArtifactError, ConfigError, DataError
from w2s.models import load_classifier
from w2s.rewards import Tokens, batches, encoder, load_reward_model, score
from w2s.tables import write_parquet

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}"
    "{% endfor %}{{ eos_token }}"
)
SEQUENCES = [
    Tokens([2, *np.random.default_rng(length).integers(3, 250, length).tolist(), 2])
    for length in (40, 3, 17, 17, 1, 90, 8)
]


def with_template(folder: Path, target: Path) -> Path:
    """A copy of a model's folder whose tokenizer has a chat template."""
    shutil.copytree(folder, target)
    path = target / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"chat_template": TEMPLATE}), encoding="utf-8")
    return target


def one_by_one(model, sequences: list[Tokens]) -> np.ndarray:
    with torch.no_grad():
        return np.array([model(torch.tensor([sequence.ids])).logits[0, 0].item() for sequence in sequences])


@pytest.mark.parametrize("kind", ["opt", "llama", "gpt_neox"])
@pytest.mark.parametrize("pad", [1, 2, None])
def test_rewards_do_not_depend_on_the_batch(make_model, kind, pad):
    """Also where the padding token ends the sequences, and where the model declares none."""
    model = load_classifier(make_model(0, kind, classifier=True), on="cpu")
    model.config.pad_token_id = pad
    alone = one_by_one(model, SEQUENCES)
    assert alone.std() > 0.01
    for budget in (1, 60, 10_000):
        model.config.pad_token_id = pad
        assert score(model, SEQUENCES, budget) == pytest.approx(alone, abs=1e-5)


def test_absolute_positions_and_first_token_classifiers():
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, num_labels=1, relative_attention=True, pos_att_type=["p2c", "c2p"],
        initializer_range=1.0, position_biased_input=False,
    )  # fmt: skip
    model = DebertaV2ForSequenceClassification(config).eval()
    # 92 tokens are beyond the stated 64 positions, which do not bind relative attention.
    assert score(model, SEQUENCES, 10_000) == pytest.approx(one_by_one(model, SEQUENCES), abs=1e-5)


def test_batches_keep_to_the_budget():
    lengths = np.random.default_rng(0).integers(1, 50, 200).tolist()
    found = list(batches(lengths, 100))
    assert sorted(row for batch in found for row in batch) == list(range(200))
    assert all(len(batch) * max(lengths[row] for row in batch) <= 100 for batch in found)
    assert len(found) < 80
    assert list(batches([3, 500], 100)) == [[1], [0]]  # longest first
    assert list(batches([], 100)) == []


def test_plain_reads_what_training_reads(tiny_classifier):
    encode, name = encoder(tiny_classifier, "plain")
    encoding = Encoding.load(tiny_classifier)
    prompt, response = PAIRS[0][:2]
    assert name == "plain"
    assert encode(prompt, response).ids == encoding.prompt_ids(prompt) + encoding.response_ids(response)


def test_plain_and_pair_of_a_foreign_tokenizer(tiny_classifier, tmp_path):
    folder = shutil.copytree(tiny_classifier, tmp_path / "foreign")
    (folder / "encoding.json").unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert encoder(folder, "plain")[0]("ab", " c").ids == tokenizer("ab c")["input_ids"]
    assert encoder(folder, "pair")[0]("ab", " c").ids == tokenizer("ab", " c")["input_ids"]


def test_chat_template_is_used_and_its_special_tokens_are_not_doubled(tiny_classifier, tmp_path):
    folder = with_template(tiny_classifier, tmp_path / "chat")
    encode, name = encoder(folder, "none")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:"
    ids = encode(prompt, " See you.").ids
    assert name == "chat"
    assert tokenizer.decode(ids) == "</s>[user] Hi[assistant] Hello[user] Bye[assistant] See you.</s>"
    assert ids.count(tokenizer.bos_token_id) == 2  # BOS and EOS are the same token here


def test_without_template_a_fallback_must_be_declared(tiny_classifier):
    with pytest.raises(ConfigError, match="has no chat template") as error:
        encoder(tiny_classifier, "none")
    assert "plain" in str(error.value) and str(tiny_classifier) in str(error.value)


def test_models_that_are_no_reward_models(tiny_model, tiny_classifier, tmp_path):
    with pytest.raises(ArtifactError):
        load_reward_model(tiny_model, on="cpu")
    model = load_classifier(tiny_classifier, on="cpu")
    model.config.num_labels = 2
    model.score = torch.nn.Linear(16, 2, bias=False)
    model.save_pretrained(tmp_path / "two")
    with pytest.raises(ConfigError, match="2 logits"):
        load_reward_model(tmp_path / "two", on="cpu")


def test_what_cannot_be_scored(tiny_classifier):
    model = load_reward_model(tiny_classifier, on="cpu")
    with pytest.raises(
        DataError, match="257 tokens are more than the reward model's 256 positions\n.*response b"
    ):
        score(model, [Tokens([3] * 256), Tokens([3] * 257)], keys=[("a",), ("b",)])
    with pytest.raises(DataError, match="without tokens"):
        score(model, [Tokens([])])
    with torch.no_grad():
        model.score.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match="the reward is nan \\(2 of 2 are not finite\\)\n.*response a"):
        score(model, [Tokens([3]), Tokens([4])], keys=[("a",), ("b",)])


def stage_arguments(model: Path, generations: Path, output: Path, *more: str) -> list[str]:
    words = [
        "--model",
        model / "manifest.json",
        "--generations",
        generations,
        "--output",
        output,
        "--gold",
        "rm",
    ]
    cell = ["--run", "students/k/weak/paper/dpo", "--data", "hh", "--share", "1-of-2", "--seed", "3"]
    return [str(word) for word in [*words, *cell, *more]]


@pytest.fixture
def generations(tmp_path) -> Path:
    table = pd.DataFrame(PAIRS, columns=["prompt", "response", "other"]).assign(
        id=[f"id{number}" for number in range(len(PAIRS))], tokens=3, finished="eos"
    )
    return as_artifact(tmp_path / "generations", lambda to: write_parquet(table, to / "generations.parquet"))


def test_stage(tiny_classifier, generations, tmp_path):
    output = tmp_path / "gold" / "manifest.json"
    stage.main(stage_arguments(tiny_classifier, generations, output, "--fallback-template", "plain"))
    artifact = load(output)
    rewards = pd.read_parquet(artifact.path("rewards.parquet"))
    encode, model = encoder(tiny_classifier, "plain")[0], load_reward_model(tiny_classifier, on="cpu")
    expected = one_by_one(model, [encode(prompt, response) for prompt, response, _ in PAIRS])
    assert list(rewards.columns) == ["id", "reward"]
    assert rewards["reward"].to_numpy() == pytest.approx(expected, abs=1e-5)
    assert artifact.facts["template"] == "plain" and artifact.facts["rows_out"] == len(PAIRS)
    identity = {"gold": "rm", "run": "students/k/weak/paper/dpo", "data": "hh", "share": "1-of-2", "seed": 3}
    assert identity.items() <= artifact.spec.items()
    again = tmp_path / "again" / "manifest.json"
    more = ["--fallback-template", "plain", "--batch-tokens", "70"]
    stage.main(stage_arguments(tiny_classifier, generations, again, *more))
    assert load(again).spec == artifact.spec
    assert pd.read_parquet(load(again).path("rewards.parquet"))["reward"].to_numpy() == pytest.approx(
        expected, abs=1e-5
    )


def test_stage_refuses(tiny_classifier, generations, tmp_path):
    output = tmp_path / "gold" / "manifest.json"
    with pytest.raises(ConfigError, match="no chat template"):
        stage.main(stage_arguments(tiny_classifier, generations, output))
    with pytest.raises(DataError, match="is not the name of a run"):
        stage.main([*stage_arguments(tiny_classifier, generations, output), "--run", "k/weak"])
    assert not output.parent.exists()
