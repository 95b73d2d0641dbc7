"""Rewards of the data set's own responses: by a reward model and by the demo world's rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import reward_responses
import reward_responses_exact
from conftest import as_artifact
from tiny import PAIRS
from w2s import world
from w2s.artifact import load
from w2s.errors import ConfigError, DataError
from w2s.tables import EXAMPLE_COLUMNS, read_part, write_parquet

Manifests = tuple[Path, Path]
SETTINGS = {"seed": 7, "pairs": 40, "test_prompts": 10}


@pytest.fixture
def data(make_examples: Callable[..., Manifests]) -> Manifests:
    return make_examples(PAIRS, test=2)


def words(data: Manifests, output: Path, *more: object) -> list[str]:
    given = ["--examples", data[0], "--split", data[1], "--output", output, "--part", "unlabelled", *more]
    return [str(word) for word in given]


def run(model: Path, data: Manifests, output: Path, *more: object) -> Path:
    template = ("--fallback-template", "plain", "--device", "cpu")
    reward_responses.main(words(data, output, "--model", model / "manifest.json", *template, *more))
    return output


def test_each_response_has_the_models_reward(tiny_classifier: Path, data: Manifests, tmp_path: Path) -> None:
    import torch
    from w2s.encoding import Encoding
    from w2s.models import weights_digest
    from w2s.rewards import load_reward_model

    output = run(tiny_classifier, data, tmp_path / "r" / "manifest.json", "--gold", "rm")
    found = pd.read_parquet(load(output).path("rewards.parquet"))
    model, encoding = load_reward_model(tiny_classifier, on="cpu"), Encoding.load(tiny_classifier)
    expected, tokens = [], 0
    examples = read_part(*data, "unlabelled")
    assert len(examples) == len(PAIRS) - 2
    for row in examples.itertuples():
        for number, text in enumerate((row.response_0, row.response_1)):
            ids = encoding.prompt_ids(row.prompt) + encoding.response_ids(text)
            with torch.no_grad():
                reward = model(torch.tensor([ids])).logits[0, 0].item()
            expected.append((row.id, number, reward))
            tokens += len(ids)
    assert list(found.columns) == ["id", "response", "reward"]
    assert list(zip(found["id"], found["response"], strict=True)) == [row[:2] for row in expected]
    assert found["reward"].to_numpy() == pytest.approx([row[2] for row in expected], abs=1e-5)
    assert found["reward"].std() > 0.01
    facts, spec = load(output).facts, load(output).spec
    assert facts == {
        "examples": 3,
        "responses": 6,
        "tokens": tokens,
        "mean": pytest.approx(found["reward"].mean()),
        "template": "plain",
        "weights_digest": weights_digest(tiny_classifier),
        "tokenizer_digest": encoding.digest,
    }
    assert (spec["gold"], spec["part"]) == ("rm", "unlabelled")


def test_the_budget_changes_no_reward_and_a_teacher_needs_no_name(
    tiny_classifier: Path, data: Manifests, tmp_path: Path
) -> None:
    whole = run(tiny_classifier, data, tmp_path / "a" / "manifest.json")
    small = run(tiny_classifier, data, tmp_path / "b" / "manifest.json", "--batch-tokens", 60)
    tables = [pd.read_parquet(load(made).path("rewards.parquet")) for made in (whole, small)]
    pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=0, atol=1e-5)
    assert load(whole).spec["gold"] is None and load(whole).spec == load(small).spec


def test_an_interrupted_run_continues(
    tiny_classifier: Path, data: Manifests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from w2s import rewards

    whole = run(tiny_classifier, data, tmp_path / "a" / "manifest.json", "--batch-tokens", 60)
    original, calls = rewards._score_batch, []

    def stopped(*given: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(rewards, "_score_batch", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_classifier, data, tmp_path / "b" / "manifest.json", "--batch-tokens", 60)
    again = run(tiny_classifier, data, tmp_path / "b" / "manifest.json", "--batch-tokens", 60)
    assert again.read_bytes() == whole.read_bytes()
    assert load(again).run["measured"]["resumed"] > 0


def test_what_cannot_be_scored_is_named(
    tiny_classifier: Path,
    make_examples: Callable[..., Manifests],
    make_model: Callable[..., Path],
    data: Manifests,
    tmp_path: Path,
) -> None:
    output = tmp_path / "r" / "manifest.json"
    short = make_model(0, classifier=True, positions=40)
    with pytest.raises(
        DataError, match="more than the reward model's 40 positions\n.*id [0-9a-f]{16}, response 1"
    ):
        run(short, make_examples([(*PAIRS[0][:2], PAIRS[0][1] * 9), *PAIRS[2:4]], test=1), output)
    with pytest.raises(ConfigError, match="no chat template"):
        run(tiny_classifier, data, output, "--fallback-template", "none")
    with pytest.raises(DataError, match="part 'labelled' is empty"):
        run(tiny_classifier, data, output, "--part", "labelled")
    assert not output.parent.exists()


@pytest.fixture(scope="module")
def worldly(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path, Path]:
    """Pairs of the demo world with their rewards, and the artifacts of examples and split."""
    folder = tmp_path_factory.mktemp("worldly")
    made = world.make_pairs({**SETTINGS, "temperature": 1}).head(12)
    pairs = made.assign(id=[f"{number:016x}" for number in range(len(made), 0, -1)])
    examples = pairs.rename(columns={"response_a": "response_0", "response_b": "response_1"}).assign(
        other_prompt=None, subset="world", source_row="world:1"
    )
    assignment = pd.DataFrame({"id": pairs["id"], "part": ["unlabelled"] * 10 + ["test"] * 2})
    return (
        pairs,
        as_artifact(
            folder / "e", lambda to: write_parquet(examples[EXAMPLE_COLUMNS], to / "examples.parquet")
        ),
        as_artifact(folder / "s", lambda to: write_parquet(assignment, to / "assignment.parquet")),
    )


def exact(data: Manifests, output: Path, settings: dict[str, object]) -> Path:
    reward_responses_exact.main(words(data, output, "--gold", "exact", "--world", json.dumps(settings)))
    return output


def test_exact_rewards_are_those_of_the_world(
    worldly: tuple[pd.DataFrame, Path, Path], tmp_path: Path
) -> None:
    pairs, *data = worldly
    output = exact((data[0], data[1]), tmp_path / "r" / "manifest.json", SETTINGS)
    found = pd.read_parquet(load(output).path("rewards.parquet"))
    expected = pairs.head(10).sort_values("id")
    assert list(found.columns) == ["id", "response", "reward", "malformed"]
    assert found["id"].tolist() == [name for name in expected["id"] for _ in range(2)]
    assert found["response"].tolist() == [0, 1] * 10
    both = found.pivot(index="id", columns="response", values="reward")
    assert both[0].tolist() == expected["reward_a"].tolist()
    assert both[1].tolist() == expected["reward_b"].tolist()
    facts = load(output).facts
    assert (facts["examples"], facts["responses"], facts["malformed"]) == (10, 20, 0)
    assert facts["mean"] == pytest.approx(found["reward"].mean())


def test_examples_of_another_world_are_refused_and_named(data: Manifests, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="id [0-9a-f]{16}, response 0"):
        exact(data, tmp_path / "r" / "manifest.json", SETTINGS)
    with pytest.raises(ConfigError, match="sed"):
        exact(data, tmp_path / "r" / "manifest.json", {**SETTINGS, "sed": 1})
    assert not (tmp_path / "r").exists()
