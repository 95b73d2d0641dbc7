"""Answers of a local model to written prompts: the same engine as generate's, chats, what is counted and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import answer_prompts as stage
import pandas as pd
import pytest
from chat_inputs import REFUSES_SYSTEM, said, with_template, write
from w2s import backends
from w2s.artifact import load
from w2s.encoding import Encoding
from w2s.errors import ConfigError, DataError, JoinError
from w2s.generation import Sampling, generate
from w2s.models import load_causal

ROWS: list[dict[str, Any]] = [
    {
        "id": f"q{number:02}",
        "question": f"What about {number}?",
        "messages": said(
            f"{'Tell me. ' * (number % 5)}What about {number}?", "Be short." if number % 2 else None
        ),
        "examples": [],
    }
    for number in range(12)
]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("prompts") / "all", "prompts", ROWS)


def run(model: Path, prompts: Path, output: Path, *more: object) -> pd.DataFrame:
    words = ["--model", model, "--prompts", prompts, "--output", output / "manifest.json", "--device", "cpu"]
    stage.main([str(word) for word in [*words, "--max-new-tokens", 12, "--seed", 4, *more]])
    return pd.read_parquet(load(output / "manifest.json").path("answers.parquet"))


def test_plain_answers_are_those_of_the_generator(tiny_model: Path, prompts: Path, tmp_path: Path) -> None:
    table = run(tiny_model / "manifest.json", prompts, tmp_path / "a", "--stop", "e", "--temperature", 1)
    assert list(table.columns) == ["id", "question", "answer", "tokens", "finished"]
    assert table["id"].tolist() == [row["id"] for row in ROWS]
    assert table["question"].tolist() == [row["question"] for row in ROWS]
    texts = [(row["id"], "\n\n".join(message["content"] for message in row["messages"])) for row in ROWS]
    model, encoding = load_causal(tiny_model, on="cpu"), Encoding.load(tiny_model)
    found = generate(model, encoding, texts, Sampling(1.0, 1.0, 12, ("e",), 4))
    assert table["answer"].tolist() == [one.response.strip() for one in found]
    assert table["tokens"].tolist() == [one.tokens for one in found]
    assert table["finished"].tolist() == [one.finished for one in found]
    assert {"stop", "length"} <= set(table["finished"])
    facts = load(tmp_path / "a" / "manifest.json").facts
    assert facts["rows_out"] == 12 and facts["chat_sha256"] == "" and facts["system_in_user"] == 0
    assert facts["truncated"] == (table["finished"] == "length").sum()
    assert facts["empty"] == (table["answer"] == "").sum()
    assert facts["tokens"] == table["tokens"].sum()
    assert facts["prompt_tokens"] == sum(len(encoding.prompt_ids(text)) for _, text in texts)


def test_batches_do_not_change_the_artifact_and_order_not_an_answer(
    tiny_model: Path, prompts: Path, tmp_path: Path
) -> None:
    model = tiny_model / "manifest.json"
    table = run(model, prompts, tmp_path / "a")
    run(model, prompts, tmp_path / "b", "--batch-size", 2)
    first, second = ((tmp_path / name / "manifest.json").read_bytes() for name in "ab")
    assert first == second
    turned = run(model, write(tmp_path / "turned", "prompts", ROWS[::-1]), tmp_path / "c")
    pd.testing.assert_frame_equal(turned[::-1].reset_index(drop=True), table)
    assert not run(model, prompts, tmp_path / "d", "--seed", 5)["answer"].equals(table["answer"])


def test_an_interrupted_run_continues(
    tiny_model: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tiny_model / "manifest.json", prompts, tmp_path / "whole", "--batch-size", 1)
    original, calls = backends.Transformers.generate_each, []

    def stopped(*given: Any) -> Any:
        calls.append(len(given[1]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(backends.Transformers, "generate_each", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model / "manifest.json", prompts, tmp_path / "again", "--batch-size", 1)
    again = run(tiny_model / "manifest.json", prompts, tmp_path / "again", "--batch-size", 1)
    pd.testing.assert_frame_equal(again, whole)
    assert calls == [6, 6, 6]
    assert load(tmp_path / "again" / "manifest.json").run["measured"]["resumed"] == 6


def test_own_template_reaches_the_model(tiny_model: Path, prompts: Path, tmp_path: Path) -> None:
    from w2s.chat import OWN, Chat

    manifest = with_template(tiny_model, tmp_path / "model", REFUSES_SYSTEM)
    table = run(manifest, prompts, tmp_path / "own", "--chat", "own", "--temperature", 1)
    encoding = Encoding.load(manifest.parent)
    chat = Chat(encoding, OWN)
    ids = [(row["id"], chat.prompts_ids([row["messages"]])[0]) for row in ROWS]
    found = generate(load_causal(tiny_model, on="cpu"), encoding, ids, Sampling(1.0, 1.0, 12, (), 4))
    assert table["answer"].tolist() == [one.response.strip() for one in found]
    made = load(tmp_path / "own" / "manifest.json")
    assert made.facts["system_in_user"] == 6 and made.facts["chat_sha256"] == chat.digest
    assert made.spec["chat"] == "own"
    plain = run(manifest, prompts, tmp_path / "plain", "--temperature", 1)
    assert not plain["answer"].equals(table["answer"])
    with pytest.raises(ConfigError, match="not the pinned 00"):
        run(manifest, prompts, tmp_path / "pinned", "--chat", "own", "--chat-sha256", "00")
    assert not (tmp_path / "pinned").exists()


def test_a_batch_has_no_question(tiny_model: Path, tmp_path: Path) -> None:
    """What infer asks about belongs to several questions."""
    rows = [{**row, "id": f"batch-{number:04}", "question": None} for number, row in enumerate(ROWS[:3])]
    table = run(tiny_model / "manifest.json", write(tmp_path / "p", "prompts", rows), tmp_path / "a")
    assert table["id"].tolist() == ["batch-0000", "batch-0001", "batch-0002"]
    assert table["question"].isna().all() and table["answer"].notna().all()


def test_what_cannot_be_answered_is_named(tiny_model: Path, tmp_path: Path) -> None:
    long = {**ROWS[0], "id": "long", "messages": said("many words " * 200)}
    wrong = [
        (ROWS[:1] * 2, JoinError, "q00"),
        ([*ROWS[:2], long], DataError, "long"),
        ([{**ROWS[0], "messages": [{"role": "assistant", "content": "a"}]}], DataError, "row 0, id q00"),
        ([{**ROWS[0], "messages": said("")}, ROWS[1]], None, ""),
    ]
    for number, (rows, error, name) in enumerate(wrong):
        prompts, output = write(tmp_path / f"p{number}", "prompts", rows), tmp_path / f"a{number}"
        if error is None:  # a BOS is a prompt
            assert len(run(tiny_model / "manifest.json", prompts, output)) == 2
            continue
        with pytest.raises(error, match=name):
            run(tiny_model / "manifest.json", prompts, output)
        assert not output.exists()
