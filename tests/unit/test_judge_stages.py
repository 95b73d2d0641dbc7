"""The stages that ask a judge: a small model behind HTTP, the demo world's judge, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import judge_comparisons
import judge_preferences
import judge_votes
import numpy as np
import pandas as pd
import pytest
from judge_server import KEY, Server
from tiny import as_artifact, example_rows
from w2s import judge_stage, judge_world, judgements, labelling, world
from w2s.artifact import load, verify
from w2s.errors import ConfigError, DataError, JoinError
from w2s.judge_client import JudgeError
from w2s.judge_prompts import fill, find
from w2s.judge_store import Store
from w2s.tables import write_parquet

WORLD = {"seed": 7, "pairs": 1, "test_prompts": 30}
CELL = ["--data", "demo", "--share", "1/2", "--seed", "3"]
RUNS = ["--run", "models/a", "--against", "models/b"]
PAIRS = [
    ("\n\nHuman: Do cats eat fish?\n\nAssistant:", " They do.", " Ask somebody else."),
    ("\n\nHuman: Hi\n\nAssistant: Hi!\n\nHuman: Who?\n\nAssistant:", " I did.", ""),
    ("\n\nHuman: {first} \\1\n\nAssistant:", " {second}", " [0] ½\n\n[1]"),
    ("\n\nHuman: Again\n\nAssistant:", " Yes.", " Yes."),
    ("\n\nHuman: Test\n\nAssistant:", " Yes.", " No."),
]


@pytest.fixture
def answering_model(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose replies a small model writes: its favourite digits in the form's places, then free text."""
    import torch
    from transformers import AutoModelForCausalLM
    from w2s.encoding import Encoding

    encoding, model = Encoding.load(tiny_model), AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    digits = [encoding.response_ids(digit, eos=False)[0] for digit in "123456789"]

    @torch.no_grad()
    def answer(body: dict[str, Any]) -> str:
        ids = encoding.prompt_ids(body["messages"][0]["content"])[-200:]
        reply = ""
        for places in (digits, digits):
            logits = model(torch.tensor([ids])).logits[0, -1, places]
            ids = [*ids, places[int(logits.argmax())]]
            reply += f"{int(logits.argmax()) + 1} "
        new = model.generate(
            torch.tensor([ids]), max_new_tokens=8, do_sample=False, attention_mask=torch.ones(1, len(ids))
        )
        return f"{reply}\n{encoding.decode(new[0, len(ids) :].tolist())}"

    with Server(answer) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server


def generations(folder: Path, ids: list[str], prompts: list[str], responses: list[str]) -> Path:
    table = pd.DataFrame({"id": ids, "prompt": prompts, "response": responses})
    table["tokens"] = table["response"].str.split().str.len()
    return as_artifact(folder, lambda target: write_parquet(table, target / "generations.parquet"))


@pytest.fixture
def two_models(tmp_path: Path) -> tuple[Path, Path]:
    prompts = [pair[0] for pair in PAIRS]
    ids = list("cabed")
    return (
        generations(tmp_path / "left", ids, prompts, [pair[1] for pair in PAIRS]),
        generations(tmp_path / "right", ids[::-1], prompts[::-1], [pair[2] for pair in PAIRS][::-1]),
    )


def compare(
    left: Path, right: Path, output: Path, *more: str, settings: object = None, prompts: int = 100
) -> Path:
    told = json.dumps(settings or {"model": "small", "max_tokens": 20})
    command = [
        "--left",
        str(left),
        "--right",
        str(right),
        "--output",
        str(output / "manifest.json"),
        *RUNS,
        *CELL,
    ]
    command += ["--judge", "small", "--settings", told, "--prompts", str(prompts), *more]
    judge_comparisons.main([*command, "--store", str(output.parent / "store.sqlite")])
    return output / "manifest.json"


def test_a_small_model_compares_over_http(answering_model: Server, two_models, tmp_path: Path) -> None:
    budget = ["--budget-usd", "1", "--price-input", "1", "--price-output", "2"]
    manifest = compare(*two_models, tmp_path / "c", *budget)
    table = pd.read_parquet(load(manifest).path("comparisons.parquet"))
    assert list(table.columns) == ["id", "order", "score_left", "score_right", "status", "reply_key"]
    assert list(zip(table["id"], table["order"], strict=True)) == [(i, o) for i in "abcde" for o in (0, 1)]
    assert set(table["status"]) == {"ok"}
    # Equal answers make one prompt in both orders: asked once.
    assert len(answering_model.requests) == 9 == table["reply_key"].nunique()
    with Store(tmp_path / "store.sqlite") as store:
        for row in table.itertuples():
            reply = store.find(row.reply_key)
            assert reply is not None
            shown = [float(word) for word in reply.text.split("\n")[0].split()]
            assert shown == (
                [row.score_left, row.score_right] if row.order == 0 else [row.score_right, row.score_left]
            )
    facts = load(manifest).facts
    assert (facts["questions"], facts["replies"], facts["malformed"]) == (10, 9, 0)
    assert facts["prompt_tokens"] == 900 and facts["cost_usd"] == pytest.approx(9 * (100 + 20) / 1e6)
    assert sum(facts["orders"]["0"].values()) == 5
    assert facts["template_sha256"] == find("compare-1").sha256
    assert load(manifest).run["measured"]["asked"] == 9
    verify(manifest)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in written


def test_the_same_again_costs_nothing_and_gives_the_same_bytes(
    answering_model: Server, two_models, tmp_path: Path
) -> None:
    first = compare(*two_models, tmp_path / "c")
    before = first.read_bytes()
    assert compare(*two_models, tmp_path / "c").read_bytes() == before
    assert len(answering_model.requests) == 9
    more = compare(*two_models, tmp_path / "d", prompts=2)
    assert load(more).facts["prompts"] == 2 and load(more).facts["prompts_available"] == 5
    assert len(answering_model.requests) == 9


def test_replies_that_cannot_be_read_are_rows_too(
    answering_model: Server, two_models, tmp_path: Path
) -> None:
    answering_model.answer = lambda body: (
        "7 4" if "Test" in body["messages"][0]["content"] else "Both are good."
    )
    manifest = compare(*two_models, tmp_path / "c", "--again", "1")
    table = pd.read_parquet(load(manifest).path("comparisons.parquet"))
    assert len(table) == 10 and table["score_left"].notna().sum() == 2
    assert (table["status"] == "ok").sum() == 2
    facts = load(manifest).facts
    assert facts["malformed"] == 8 and facts["asked_again"] == 8
    assert facts["malformed_because"] == {"the first line is not two numbers from 1 to 10": 8}
    assert facts["orders"]["0"]["malformed"] == 4
    wins, dropped = judgements.prompt_wins(table)
    assert (wins["win"].tolist(), dropped) == ([0.5], 4)


def test_a_stage_that_fails_keeps_its_replies(answering_model: Server, two_models, tmp_path: Path) -> None:
    from judge_server import status

    answer = answering_model.answer

    def third(body: dict[str, Any]) -> str:
        if len(answering_model.requests) == 3:
            answering_model.faults = [status(401)] * 20
        return answer(body)

    answering_model.answer = third
    with pytest.raises(JudgeError, match="401"):
        compare(*two_models, tmp_path / "c", "--concurrency", "1")
    assert not (tmp_path / "c").exists()
    answering_model.faults.clear()
    compare(*two_models, tmp_path / "c")
    assert len(answering_model.requests) == 3 + 1 + 6


def test_generations_that_do_not_fit_are_refused(two_models, tmp_path: Path) -> None:
    left, _right = two_models
    for name, ids, prompt, message in (
        ("other", list("xyzuv"), None, "missing"),
        ("twice", list("caabe"), None, "duplicate"),
        ("asked", list("cabed"), "\n\nHuman: No\n\nAssistant:", "different prompts"),
    ):
        prompts = [prompt or pair[0] for pair in PAIRS]
        made = generations(tmp_path / name, ids, prompts, [" x"] * 5)
        with pytest.raises(JoinError, match=message):
            compare(left, made, tmp_path / "c")
    empty = generations(tmp_path / "empty", ["a"], ["p"], ["r"])
    table = pd.read_parquet(load(empty).path("generations.parquet")).astype({"response": object})
    table.loc[0, "response"] = None
    gone = as_artifact(tmp_path / "gone", lambda folder: write_parquet(table, folder / "generations.parquet"))
    with pytest.raises(DataError, match="without text: a"):
        compare(gone, gone, tmp_path / "c")


@pytest.fixture
def world_answers(tmp_path: Path) -> tuple[Path, Path, pd.DataFrame]:
    """Generations of two models of the demo world, and their exact rewards."""
    pairs = world.make_pairs({**WORLD, "temperature": 1}).tail(30).reset_index(drop=True)
    ids = [f"{n:04d}" for n in range(30)]
    left = generations(tmp_path / "left", ids, list(pairs["prompt"]), list(pairs["response_a"]))
    right = generations(tmp_path / "right", ids, list(pairs["prompt"]), list(pairs["response_b"]))
    return left, right, pairs.assign(id=ids)


def test_without_noise_the_demo_judge_says_what_the_reward_says(world_answers, tmp_path: Path) -> None:
    left, right, truth = world_answers
    manifest = compare(left, right, tmp_path / "c", settings={"world": WORLD, "noise": 0})
    wins, dropped = judgements.prompt_wins(pd.read_parquet(load(manifest).path("comparisons.parquet")))
    assert dropped == 0
    gap = (truth["reward_a"] - truth["reward_b"]).to_numpy()
    clear = np.abs(gap) > 0.2  # scores have one decimal
    assert wins["win"].to_numpy()[clear].tolist() == ((np.sign(gap) + 1) / 2)[clear].tolist()
    assert clear.sum() > 20


def test_the_demo_judge_is_noisy_and_repeatable(world_answers, tmp_path: Path) -> None:
    left, right, _ = world_answers
    first = compare(left, right, tmp_path / "a" / "c", settings={"world": WORLD, "noise": 2})
    second = compare(left, right, tmp_path / "b" / "c", settings={"world": WORLD, "noise": 2})
    assert load(first).digest == load(second).digest
    assert first.read_text().replace(" ", "") == second.read_text().replace(" ", "")
    table = pd.read_parquet(load(first).path("comparisons.parquet"))
    wins = judgements.order_wins(table).pivot(index="id", columns="order", values="win")
    assert 0.3 < (wins[0] == wins[1]).mean() < 1
    assert 0.35 < judgements.first_shown_wins(table).mean() < 0.65
    other = compare(left, right, tmp_path / "b" / "d", settings={"world": WORLD, "noise": 1})
    assert load(other).digest != load(first).digest


def test_the_demo_judge_refuses_what_is_not_of_its_world(two_models, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="the demo world has no prompt"):
        compare(*two_models, tmp_path / "c", settings={"world": WORLD, "noise": 0})
    with pytest.raises(ConfigError, match="instead: +seed"):
        compare(*two_models, tmp_path / "c", settings={"world": {**WORLD, "sed": 1}, "noise": 0})
    with pytest.raises(ConfigError, match="templates of this project"):
        judge_world.reply("Which is better?", 0, 0)


def test_samples_of_the_demo_judge_differ() -> None:
    pairs = world.make_pairs({**WORLD, "temperature": 1})
    row = pairs.iloc[(pairs["reward_a"] - pairs["reward_b"]).abs().argmin()]
    prompt = fill(find("vote-1"), row["prompt"], row["response_a"], row["response_b"])
    replies = [judge_world.reply(prompt, seed, 1.0) for seed in range(20)]
    assert set(replies) == {"1", "2"}
    assert replies == [judge_world.reply(prompt, seed, 1.0) for seed in range(20)]


@pytest.fixture
def world_examples(tmp_path: Path) -> tuple[Path, Path, Path, pd.DataFrame]:
    """Examples of the demo world, a split, exact labels of half of the unlabelled part, and the rewards by id."""
    pairs = world.make_pairs({**WORLD, "temperature": 1}).tail(20).reset_index(drop=True)
    rows = example_rows(list(zip(pairs["prompt"], pairs["response_a"], pairs["response_b"], strict=True)))
    rewards = rows[["id"]].assign(r0=pairs["reward_a"], r1=pairs["reward_b"])
    parts = pd.DataFrame({"id": rows["id"], "part": ["unlabelled"] * 16 + ["labelled"] * 2 + ["test"] * 2})
    preferred = (rewards["r1"] > rewards["r0"]).astype("int8")
    certain = {"margin": rewards["r1"] - rewards["r0"], "probability": preferred.astype(float)}
    labels = rewards.head(8)[["id"]].assign(label=preferred, **certain, source="gold")
    made = []
    for name, frame in (("examples", rows), ("assignment", parts), ("labels", labels)):
        made.append(
            as_artifact(tmp_path / name, lambda f, n=name, t=frame: write_parquet(t, f / f"{n}.parquet"))
        )  # type: ignore[misc]
    return made[0], made[1], made[2], rewards.set_index("id")


def vote(inputs: tuple, output: Path, *more: str, noise: float = 0.0) -> Path:
    command = ["--examples", str(inputs[0]), "--split", str(inputs[1]), "--labels", str(inputs[2])]
    command += [
        "--output",
        str(output / "manifest.json"),
        "--judge",
        "demo",
        "--feedback",
        "match-weak",
        *CELL,
    ]
    command += ["--settings", json.dumps({"world": WORLD, "noise": noise}), *more]
    judge_votes.main([*command, "--store", str(output.parent / "store.sqlite")])
    return output / "manifest.json"


def test_votes_are_half_in_either_order(world_examples, tmp_path: Path) -> None:
    manifest = vote(world_examples, tmp_path / "v", "--pairs", "6", "--votes", "4")
    table = pd.read_parquet(load(manifest).path("votes.parquet"))
    assert list(table.columns) == ["id", "vote", "order", "preferred", "status", "reply_key"]
    assert len(table) == 24 and table["id"].nunique() == 6
    assert table.groupby("id")["order"].sum().tolist() == [2] * 6
    assert table["reply_key"].nunique() == 24
    assert load(manifest).facts["pairs_available"] == 8
    rewards = world_examples[3].loc[table["id"]]
    clear = (rewards["r0"] != rewards["r1"]).to_numpy()
    assert (table["preferred"] == (rewards["r1"] > rewards["r0"]).to_numpy())[clear].all()
    shares, _ = judgements.vote_shares(table[clear])
    assert (shares["consistency"] == 1).all()
    labels = pd.read_parquet(load(world_examples[2]).path("labels.parquet"))
    assert (judgements.label_votes(shares, labels)["vote"] == 1).all()
    noisy = pd.read_parquet(load(vote(world_examples, tmp_path / "n", noise=5.0)).path("votes.parquet"))
    assert judgements.vote_shares(noisy)[0]["consistency"].mean() < 0.95


def test_votes_refuse_what_makes_no_sense(world_examples, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="even"):
        vote(world_examples, tmp_path / "v", "--votes", "5")
    labels = pd.read_parquet(load(world_examples[2]).path("labels.parquet"))
    labels.loc[0, "id"] = "strange"
    other = as_artifact(tmp_path / "other", lambda folder: write_parquet(labels, folder / "labels.parquet"))
    with pytest.raises(JoinError, match="strange"):
        vote((*world_examples[:2], other), tmp_path / "v")


@pytest.mark.parametrize("template", ["helpful-1", "harmless-1"])
def test_a_prompted_teacher_names_the_better_response(template: str, world_examples, tmp_path: Path) -> None:
    output = tmp_path / "p" / "manifest.json"
    command = [
        "--examples",
        str(world_examples[0]),
        "--split",
        str(world_examples[1]),
        "--part",
        "unlabelled",
    ]
    command += [
        "--judge",
        "demo",
        "--settings",
        json.dumps({"world": WORLD, "noise": 0}),
        "--template",
        template,
    ]
    judge_preferences.main([*command, "--output", str(output), "--store", str(tmp_path / "store.sqlite")])
    table = pd.read_parquet(load(output).path("preferences.parquet"))
    assert len(table) == 32 and table["order"].sum() == 16
    labels = labelling.from_preferences(pd.Series(table["id"].unique()), table, "second")
    found = labels.table
    rewards = world_examples[3].loc[found["id"]]
    clear = (rewards["r0"] != rewards["r1"]).to_numpy()
    assert labels.dropped.empty and clear.sum() > 10
    assert (found["probability"] == (rewards["r1"] > rewards["r0"]).to_numpy())[clear].all()
    assert load(output).facts["pairs"] == 16


def test_orders_are_undone_as_they_are_made() -> None:
    nan = float("nan")
    found = judge_comparisons.comparisons(["a"], [((8.0, 3.0), "ok", "k"), ((8.0, 3.0), "ok", "l")])
    assert found[["score_left", "score_right"]].to_numpy().tolist() == [[8, 3], [3, 8]]
    found = judge_comparisons.comparisons(["a"], [(None, "bad", "k"), ((5.0, 5.0), "ok", "l")])
    assert np.array_equal(found["score_left"], [nan, 5], equal_nan=True)
    preferred = judge_preferences.preferences(["a"], [(0, "ok", "k"), (0, "ok", "l")])["preferred"]
    assert preferred.tolist() == [0, 1]
    voted = judge_votes.votes(["a"], 2, [(1, "ok", "k"), (None, "bad", "l")])["preferred"]
    assert np.array_equal(voted, [1, nan], equal_nan=True)


def test_a_draw_depends_on_the_seed_only() -> None:
    rows = pd.DataFrame({"id": [f"{n:03d}" for n in range(50)]})
    first, again, other = (judge_stage.draw(rows, 10, seed)["id"].tolist() for seed in (1, 1, 2))
    assert first == again == sorted(first) != other
    assert len(judge_stage.draw(rows, 80, 1)) == 50
    with pytest.raises(DataError, match="nothing to judge"):
        judge_stage.draw(rows[:0], 10, 1)


@pytest.mark.parametrize(
    "flag", ["--budget-usd=-1", "--price-input=x", "--again=-1", "--timeout=0", "--seed=-1"]
)
def test_senseless_numbers_are_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        judge_comparisons.main([flag])
    assert flag.partition("=")[0] in capsys.readouterr().err


def test_a_store_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    for stage in (judge_comparisons, judge_votes, judge_preferences):
        with pytest.raises(SystemExit):
            stage.main([])
        assert "--store" in capsys.readouterr().err


def test_help_loads_no_library(run_stage: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    code = "import sys, judge_comparisons, judge_votes, judge_preferences; print(sorted(set(sys.modules) & set('%s'.split())))"
    heavy = "torch pandas numpy openai httpx2 pydantic"
    folder = str(Path(judge_comparisons.__file__).parent)
    found = subprocess.run(
        [sys.executable, "-c", code % heavy], capture_output=True, text=True, env={"PYTHONPATH": folder}
    )
    assert found.stdout.strip() == "[]", found.stderr
    assert "--budget-usd" in run_stage("judge_votes", "--help").stdout
