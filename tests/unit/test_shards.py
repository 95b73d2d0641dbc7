"""Finished rows of scoring outlive an attempt, and what comes out is what an uninterrupted one gives, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import generate
import numpy as np
import pandas as pd
import pytest
import score_gold
import score_responses
import torch
from tiny import as_artifact
from w2s import answering, backends, checkpoints, rewards, scoring
from w2s.artifact import load
from w2s.interruption import Stop
from w2s.shards import Shards

RNG = np.random.default_rng(0)
PAIRS = [
    (f"\n\nHuman: {'word ' * int(words)}{n}\n\nAssistant:", " a" * int(letters), f" b {n}")
    for n, (words, letters) in enumerate(RNG.integers(1, 12, (24, 2)))
]
COLUMNS = ["id", "response", "number"]


@pytest.fixture
def inputs(tiny_model: Path, make_examples: Callable[..., tuple[Path, Path]]) -> list[str]:
    examples, split = make_examples(PAIRS, 0)
    words = ["--model", tiny_model / "manifest.json", "--examples", examples, "--split", split]
    return [str(word) for word in [*words, "--part", "unlabelled", "--batch-tokens", 300]]


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], list[int]]]:
    """``interrupt(n)``: SIGTERM comes in batch n + 1; the list tells the batches that were computed."""
    original = scoring.score_batch

    def after(number: int) -> list[int]:
        sizes: list[int] = []

        def stopped(model: Any, group: Sequence[Any], *rest: Any) -> Any:
            if len(sizes) == number:
                raise Stop
            sizes.append(len(group))
            return original(model, group, *rest)

        monkeypatch.setattr(scoring, "score_batch", stopped)
        return sizes

    yield after
    monkeypatch.undo()


def score(inputs: list[str], output: Path) -> Path:
    torch.set_num_threads(1)
    score_responses.main([*inputs, "--output", str(output / "manifest.json")])
    return output / "manifest.json"


def test_an_interrupted_scoring_continues(
    inputs: list[str], interrupt: Callable[[int], list[int]], tmp_path: Path
) -> None:
    whole = score(inputs, tmp_path / "whole")
    batches = load(whole).run["measured"]["forward_passes"]
    assert batches >= 5
    for number in (2, 1):
        interrupt(number)
        with pytest.raises(Stop):
            score(inputs, tmp_path / "again")
        assert not (tmp_path / "again").exists()
    computed = interrupt(-1)
    again = score(inputs, tmp_path / "again")
    assert len(computed) == batches - 3
    assert again.read_bytes() == whole.read_bytes()
    assert load(again).run["measured"]["resumed"] > 0 == load(whole).run["measured"]["resumed"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "whole"]


def test_smaller_batches_continue_as_well(
    inputs: list[str], interrupt: Callable[[int], list[int]], tmp_path: Path
) -> None:
    whole = pd.read_parquet(score(inputs, tmp_path / "whole").with_name("scores.parquet"))
    interrupt(2)
    with pytest.raises(Stop):
        score(inputs, tmp_path / "again")
    computed = interrupt(-1)
    again = pd.read_parquet(score([*inputs[:-1], "150"], tmp_path / "again").with_name("scores.parquet"))
    assert sum(computed) < len(PAIRS)
    pd.testing.assert_frame_equal(again, whole, check_exact=False, rtol=0, atol=1e-4)


def test_other_settings_begin_anew(
    inputs: list[str], interrupt: Callable[[int], list[int]], tmp_path: Path
) -> None:
    interrupt(2)
    with pytest.raises(Stop):
        score(inputs, tmp_path / "again")
    computed = interrupt(-1)
    score([*inputs, "--precision", "bfloat16"], tmp_path / "again")
    assert sum(computed) == len(PAIRS)


def test_a_torn_file_is_computed_again(
    inputs: list[str],
    interrupt: Callable[[int], list[int]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = score(inputs, tmp_path / "whole")
    interrupt(2)
    with pytest.raises(Stop):
        score(inputs, tmp_path / "again")
    (file,) = checkpoints.state_root(tmp_path / "again" / "manifest.json").glob("*/*.parquet")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    computed = interrupt(-1)
    assert score(inputs, tmp_path / "again").read_bytes() == whole.read_bytes()
    assert "is torn" in caplog.text and sum(computed) == len(PAIRS)


def test_rewards_continue(tiny_classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pd.DataFrame(PAIRS, columns=["prompt", "response", "other"]).assign(
        id=[f"{n:02}" for n in range(24)]
    )
    generations = as_artifact(tmp_path / "g", lambda folder: texts.to_parquet(folder / "generations.parquet"))

    def run(name: str) -> Path:
        words = ["--model", tiny_classifier / "manifest.json", "--generations", generations, "--gold", "g"]
        words += ["--run", "models/m", "--data", "d", "--share", "1/2", "--seed", 0, "--batch-tokens", 300]
        words += ["--fallback-template", "plain", "--output", tmp_path / name / "manifest.json"]
        score_gold.main([str(word) for word in words])
        return tmp_path / name / "manifest.json"

    whole = run("whole")
    original, calls = rewards._score_batch, []

    def stopped(*given: Any) -> np.ndarray:
        calls.append(1)
        if len(calls) == 3:
            raise Stop
        return original(*given)

    monkeypatch.setattr(rewards, "_score_batch", stopped)
    with pytest.raises(Stop):
        run("again")
    again = run("again")
    assert again.read_bytes() == whole.read_bytes()
    assert load(again).run["measured"]["resumed"] > 0


def test_generation_continues(
    tiny_model: Path,
    make_examples: Callable[..., tuple[Path, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examples, split = make_examples(PAIRS, len(PAIRS))

    def run(name: str) -> Path:
        words = ["--model", tiny_model / "manifest.json", "--examples", examples, "--split", split]
        words += ["--prompts", 24, "--max-new-tokens", 6, "--batch-size", 1, "--device", "cpu"]
        generate.main([str(word) for word in [*words, "--output", tmp_path / name / "manifest.json"]])
        return tmp_path / name / "manifest.json"

    whole = run("whole")
    original, calls = backends.Transformers.generate_each, []

    def stopped(*given: Any) -> Any:
        calls.append(len(given[1]))
        if len(calls) == 2:
            raise Stop
        return original(*given)

    monkeypatch.setattr(backends.Transformers, "generate_each", stopped)
    with pytest.raises(Stop):
        run("again")
    again = run("again")
    assert again.read_bytes() == whole.read_bytes()
    assert calls == [8, 8, 8, 8]  # three groups, the second one twice
    assert load(again).run["measured"]["resumed"] == 8


def test_groups_have_short_and_long_prompts_alike() -> None:
    prompts = [(f"{n:02}", "x" * n) for n in range(40)]
    found = answering.groups(prompts, 2)
    assert sorted(sum(found, [])) == prompts and [len(group) for group in found] == [14, 13, 13]
    means = [np.mean([len(text) for _, text in group]) for group in found]
    assert max(means) - min(means) <= 2
    assert answering.groups(prompts, None) == [prompts]


def test_rows_are_known_by_their_keys(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Shards(COLUMNS, 2, tmp_path) as shards:
        shards.add([("a", 0, 1.0), ("a", 1, 2.0), ("b", 0, 3.0)])
        assert not list(tmp_path.iterdir())
        raise ZeroDivisionError
    (tmp_path / ".half.partial.parquet").write_bytes(b"PAR1")
    found = Shards(COLUMNS, 2, tmp_path)
    groups = [["a0", "a1"], ["b0", "b1"], ["c0"]]
    assert found.resumed == 3
    assert found.mine(groups, lambda name: [(name[0], int(name[1]))]) == [["b0", "b1"], ["c0"]]
    found.add([("b", 0, 4.0), ("b", 1, 5.0)])
    assert found.table().to_dict("list") == {
        "id": ["a", "a", "b", "b"],
        "response": [0, 1, 0, 1],
        "number": [1.0, 2.0, 3.0, 5.0],
    }


def test_files_are_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("w2s.shards.SECONDS_BETWEEN_FILES", 0)
    shards = Shards(COLUMNS, 2, tmp_path)
    shards.add([("a", 0, 1.0)])
    shards.add([("b", 0, 1.0)])
    assert len(list(tmp_path.iterdir())) == 2  # what a SIGKILL leaves
    assert Shards(COLUMNS, 2, tmp_path).resumed == 2


def test_processes_share_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [[n] for n in range(7)]
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        shares.append(Shards(["id"]).mine(groups, lambda n: [(n,)]))
    assert shares == [[[0], [3], [6]], [[1], [4]], [[2], [5]]]
