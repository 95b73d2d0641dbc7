"""Feedback policies: equation 5, ties, label files, scores that do not fit, relabelling without a model."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import label_examples
import numpy as np
import pandas as pd
import pytest
import score_responses
import torch
from remade import remade
from tiny import as_artifact, example_rows
from w2s import feedback, labelling
from w2s.artifact import load
from w2s.errors import ArtifactError, ConfigError, DataError, JoinError
from w2s.models import weights_digest
from w2s.tables import LABEL_COLUMNS, read_dropped, read_labels, write_parquet

SCRIPTS = Path(label_examples.__file__).parent
IDS = example_rows()["id"].tolist()[:-1]  # the last one is the test part


def score_table(values: dict[str, tuple[float, float]]) -> pd.DataFrame:
    rows = [(key, response, value, 3) for key, pair in values.items() for response, value in enumerate(pair)]
    table = pd.DataFrame(rows, columns=labelling.SCORE_COLUMNS)
    return table.astype({"response": "int8", "token_count": "int64"})


def score_artifact(
    folder: Path, values: dict[str, tuple[float, float]], weights: str, **changes: str
) -> Path:
    """A hand-made artifact of scores."""
    from w2s.artifact import Artifact

    spec = {"part": changes.get("part", "unlabelled"), "precision": changes.get("precision", "float32")}
    with Artifact.create(folder / "manifest.json", spec=spec, parents={}, script=__file__) as artifact:
        table = score_table(values)
        if "count" in changes:
            table.loc[0, "token_count"] = int(changes["count"])
        write_parquet(table, artifact.path("scores.parquet"))
        artifact.record(weights_digest=weights, tokenizer_digest=changes.get("tokenizer", "tokens"))
    return folder / "manifest.json"


@pytest.fixture
def label(make_examples, tmp_path):
    """``label(policy, *words)`` labels the unlabelled part and returns the labels' manifest."""
    examples, split = make_examples()
    made: list[Path] = []

    def run(policy: str, *words: object, part: str = "unlabelled") -> Path:
        made.append(tmp_path / f"labels-{len(made)}" / "manifest.json")
        command = ["--examples", examples, "--split", split, "--part", part, "--policy", policy, *words]
        label_examples.main([*map(str, command), "--output", str(made[-1])])
        return made[-1]

    run.examples, run.split = examples, split  # type: ignore[attr-defined]
    return run


def test_implicit_reward_is_equation_5():
    teacher = score_table({"a": (-10.0, -12.0), "b": (-5.0, -6.0), "c": (-7.0, -9.0)})
    reference = score_table({"a": (-11.0, -16.0), "b": (-4.0, -6.0), "c": (-8.0, -10.0)})
    labels = labelling.from_rewards(
        labelling.implicit_rewards(teacher, reference, 0.1), "second", "weak"
    ).table
    assert labels["id"].tolist() == ["a", "b", "c"]
    # a: 0.1 * (1, 4); b: 0.1 * (-1, 0); c: a tie of 0.1 * (1, 1)
    assert labels["margin"].tolist() == pytest.approx([0.3, 0.1, 0.0])
    assert labels["label"].tolist() == [1, 1, 1]
    assert labels["probability"].tolist() == pytest.approx([1 / (1 + math.exp(-m)) for m in (0.3, 0.1, 0)])
    swapped = labelling.from_rewards(
        labelling.implicit_rewards(reference, teacher, 0.1), "first", "weak"
    ).table
    assert swapped["label"].tolist() == [0, 0, 0]
    assert swapped["margin"].tolist() == pytest.approx([-0.3, -0.1, 0.0])


def test_beta_scales_margins_and_changes_no_label():
    rng = np.random.default_rng(0)
    teacher, reference = (
        score_table({f"{n:03}": tuple(pair) for n, pair in enumerate(rng.normal(-50, 9, (200, 2)))})
        for _ in "ab"
    )
    small, large = (
        labelling.from_rewards(labelling.implicit_rewards(teacher, reference, beta), "second", "weak").table
        for beta in (0.1, 0.5)
    )
    assert small["label"].tolist() == large["label"].tolist()
    assert np.allclose(5 * small["margin"], large["margin"])
    assert 20 < small["label"].sum() < 180


def test_sigmoid_does_not_overflow():
    assert labelling.sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


def test_weak_stage_and_relabelling(label, tmp_path):
    teacher = score_artifact(tmp_path / "dpo", {key: (-10.0, -12.0) for key in IDS}, "w-dpo")
    reference = score_artifact(
        tmp_path / "sft",
        {key: (-10.0, -12.0 + (0 if key == IDS[0] else n)) for n, key in enumerate(IDS)},
        "w-sft",
    )
    pair = ["--policy-scores", teacher, "--reference-scores", reference]
    made = load(label("weak", *pair, "--beta", 0.1))
    labels = read_labels(made.manifest_path).set_index("id")
    assert labels["label"].to_dict() == {
        key: int(n == 0) for n, key in enumerate(IDS)
    }  # the tie goes to the second
    assert labels["margin"].to_dict() == pytest.approx({key: -0.1 * n for n, key in enumerate(IDS)})
    assert set(labels["source"]) == {"weak"}
    assert made.facts["weights"] == {"policy": "w-dpo", "reference": "w-sft"} and made.facts["ties"] == 1
    other = read_labels(label("weak", *pair, "--beta", 0.5, "--tie", "first")).set_index("id")
    assert other["label"].tolist() == [0] * len(IDS)
    assert np.allclose(other["margin"], 5 * labels["margin"])


def test_labels_of_the_data(label):
    human, gold = read_labels(label("human")), read_labels(label("gold"))
    assert human["id"].tolist() == gold["id"].tolist() == sorted(IDS)
    assert set(human["label"]) == {0} and human["margin"].isna().all() and set(human["probability"]) == {0.0}
    assert set(gold["label"]) == {1} and set(gold["margin"]) == {1.5}
    assert list(human.columns) == LABEL_COLUMNS and human["label"].dtype == "int8"
    assert read_labels(label("human", part="test"))["id"].tolist() == [example_rows()["id"].iloc[-1]]


def test_data_without_exact_labels(tmp_path):
    manifest = as_artifact(
        tmp_path / "hh", lambda folder: write_parquet(example_rows(), folder / "examples.parquet")
    )
    request = feedback.Request(example_rows(), manifest, "unlabelled")
    with pytest.raises(ConfigError, match="no gold labels"):
        feedback.make_labels("gold", request)


def test_an_example_without_label_is_named(tmp_path):
    examples = example_rows()
    short = pd.DataFrame(
        {"id": examples["id"][1:], "label": 0, "margin": 0.0, "probability": 0.5, "source": "x"}
    )
    manifest = as_artifact(tmp_path / "hh", lambda folder: write_parquet(short, folder / "human.parquet"))
    with pytest.raises(JoinError, match=f"1 examples have no human label: {examples['id'][0]}"):
        feedback.make_labels("human", feedback.Request(examples, manifest, "unlabelled"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"part": "test"}, JoinError, "scores of part 'test', examples of part 'unlabelled'"),
        ({"precision": "bfloat16"}, JoinError, "another precision: float32, bfloat16"),
        ({"tokenizer": "other"}, JoinError, "another tokenizer: tokens, other"),
        ({"weights": "w-dpo"}, ConfigError, "the same weights"),
        ({"count": "4"}, JoinError, "counted different tokens"),
        ({"ids": "fewer"}, JoinError, f"1 ids of the examples are missing in the scores .*: {IDS[0]}"),
        ({"ids": "more"}, JoinError, "1 ids of the scores .* are not in the examples: extra"),
    ],
)
def test_a_pair_that_does_not_fit(label, tmp_path, changes, error, message):
    changes = dict(changes)
    values = {key: (-1.0, -2.0) for key in IDS}
    teacher = score_artifact(tmp_path / "dpo", values, "w-dpo")
    ids = {"fewer": IDS[1:], "more": [*IDS, "extra"]}.get(changes.pop("ids", ""), IDS)
    weights = changes.pop("weights", "w-sft")
    reference = score_artifact(tmp_path / "sft", {key: (-1.0, -2.5) for key in ids}, weights, **changes)
    with pytest.raises(error, match=message):
        label("weak", "--policy-scores", teacher, "--reference-scores", reference, "--beta", 0.1)
    assert not (tmp_path / "labels-0").exists()


def test_scores_must_have_both_responses_and_be_finite(tmp_path):
    table = score_table({"a": (-1.0, -2.0), "b": (-1.0, -2.0)})

    def artifact(name: str, content: pd.DataFrame) -> Path:
        manifest = score_artifact(tmp_path / name, {}, "w")
        write_parquet(content, manifest.with_name("scores.parquet"))
        return remade(manifest)

    with pytest.raises(JoinError, match="without both responses: b"):
        labelling.read_scores(artifact("short", table.iloc[:3]))
    with pytest.raises(JoinError, match="duplicate ids: a"):
        labelling.read_scores(artifact("double", pd.concat([table, table.iloc[:1]])))
    with pytest.raises(JoinError, match="not finite numbers: b"):
        labelling.read_scores(artifact("nan", table.assign(log_prob_sum=[-1.0, -1.0, -1.0, math.nan])))


def test_settings_that_a_policy_lacks_or_does_not_take(label, tmp_path):
    with pytest.raises(ConfigError, match="unknown feedback policy 'wek'") as caught:
        label("wek")
    assert ", ".join(sorted(feedback.POLICIES)) in str(caught.value)
    with pytest.raises(ConfigError, match="needs --policy-scores, --reference-scores, --beta"):
        label("weak")
    with pytest.raises(ConfigError, match="'human' takes no --beta"):
        label("human", "--beta", 0.1)
    with pytest.raises(ConfigError, match="unknown tie rule 'third'"):
        label("human", "--tie", "third")
    with pytest.raises(ConfigError, match="policy 'human' has no option 'share'"):
        label("human", "--options", '{"share": 0.5}')
    with pytest.raises(ConfigError, match="policy 'confident' has no option 'shares'") as caught:
        label("confident", "--labels", label("human"), "--options", '{"shares": 0.5}')
    assert "one of share" in str(caught.value)
    with pytest.raises(ConfigError, match="policy 'match' needs --labels"):
        label("match")
    with pytest.raises(ConfigError, match="policy 'human' takes no --labels"):
        label("human", "--labels", label("gold"))
    for name, flag in (("reward", "--rewards"), ("prompted", "--preferences")):
        with pytest.raises(ConfigError, match=f"policy {name!r} needs {flag}"):
            label(name)
    with pytest.raises(DataError, match="'labelled' is empty"):
        label("human", part="labelled")
    scores = score_artifact(tmp_path / "s", {key: (-1.0, -2.0) for key in IDS}, "w")
    with pytest.raises(ConfigError, match="takes one artifact, got 2"):
        label("weak", "--policy-scores", scores, scores)
    with pytest.raises(ConfigError, match="beta -0.1 is not positive"):
        label("weak", "--policy-scores", scores, "--reference-scores", scores, "--beta", -0.1)
    with pytest.raises(ArtifactError, match="not an artifact of scores"):
        label("weak", "--policy-scores", label.split)


def test_a_new_policy_is_one_function(label, monkeypatch):
    monkeypatch.setattr(feedback, "POLICIES", dict(feedback.POLICIES))

    @feedback.policy("longest", options={"at_least": 0})
    def longest(request: feedback.Request) -> labelling.Labels:
        """The longer response; pairs that differ by fewer characters than at_least are left out."""
        lengths = [request.examples[f"response_{side}"].str.len() for side in (0, 1)]
        margin = (lengths[1] - lengths[0]).to_numpy(float)
        labels = labelling.from_margins(request.examples["id"], margin, request.tie, "longest").table
        return labelling.some_of(labels, abs(margin) >= request.options["at_least"], "about_as_long")

    known = feedback.POLICIES["longest"]
    assert known.description.startswith("The longer response;")
    assert (known.takes, known.part, known.options) == (None, "unlabelled", {"at_least": 0})
    labels = read_labels(label("longest")).set_index("id")["label"]
    assert labels.loc[IDS].tolist() == [1, 0, 1, 1]
    made = label("longest", "--options", '{"at_least": 13}')
    # Response 1 is 7 characters longer, 31 shorter, 13 longer and 12 longer.
    assert set(read_labels(made)["id"]) == {IDS[1], IDS[2]}
    assert set(read_dropped(made)["id"]) == {IDS[0], IDS[3]}
    assert load(made).facts["dropped"] == {"about_as_long": 2}


def test_a_new_policy_that_labels_every_example_may_return_a_table(label, monkeypatch):
    monkeypatch.setattr(feedback, "POLICIES", dict(feedback.POLICIES))

    @feedback.policy("first")
    def first(request: feedback.Request) -> pd.DataFrame:
        """Always the first response."""
        return request.examples[["id"]].assign(label=0, margin=-1.0, probability=0.2, source="first")

    made = label("first")
    assert read_labels(made)["label"].tolist() == [0] * len(IDS)
    assert list(read_labels(made).columns) == LABEL_COLUMNS and read_dropped(made).empty


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda table: table.iloc[1:], JoinError, "1 ids of the examples are missing in the labels of policy odd"),
        (lambda table: pd.concat([table, table.iloc[:1]]), JoinError, "1 duplicate ids"),
        (lambda table: table.assign(label=2), DataError, "label 2 is neither 0 nor 1"),
        (lambda table: table.replace({"id": {IDS[0]: "else"}}), JoinError, "are not in the examples|missing"),
        (lambda table: labelling.some_of(table, [False] * len(table), "why"), DataError, "labels none of 4 examples .why."),
        (lambda table: labelling.Labels(table, table[["id"]].assign(reason="both")), JoinError, "4 duplicate ids"),
    ],
    ids=["fewer", "twice", "two", "other", "none", "kept and dropped"],
)  # fmt: skip
def test_a_policy_that_errs_is_stopped(label, monkeypatch, answer, error, message):
    monkeypatch.setattr(feedback, "POLICIES", dict(feedback.POLICIES))

    @feedback.policy("odd")
    def odd(request: feedback.Request) -> labelling.Labels | pd.DataFrame:
        """Answers wrongly."""
        table = request.examples[["id"]].assign(label=0, margin=-1.0, probability=0.2, source="odd")
        return answer(table)

    with pytest.raises(error, match=message):
        label("odd")


def test_relabelling_runs_no_forward_pass(label, tiny_model, make_model, tmp_path):
    """Counts every forward pass of every model in this process, over scoring, labelling and relabelling."""
    passes: list[str] = []

    def count(module: torch.nn.Module, given: object, made: object) -> None:
        if type(module).__name__ == "OPTForCausalLM":
            passes.append(type(module).__name__)

    def score(model: Path, name: str) -> Path:
        output = tmp_path / name / "manifest.json"
        words = ["--model", model / "manifest.json", "--examples", label.examples, "--split", label.split]
        words += ["--part", "unlabelled", "--device", "cpu", "--batch-tokens", 200, "--output", output]
        score_responses.main(list(map(str, words)))
        return output

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        other = make_model(1)
        pair = ["--policy-scores", score(other, "dpo"), "--reference-scores", score(tiny_model, "sft")]
        recorded = sum(load(Path(path)).run["measured"]["forward_passes"] for path in pair[1::2])
        assert len(passes) == recorded > 2
        passes.clear()
        first = load(label("weak", *pair, "--beta", 0.1))
        for words in (["--beta", 0.5], ["--beta", 0.1, "--tie", "first"]):
            label("weak", *pair, *words)
        label("human")
        assert passes == []
    finally:
        handle.remove()
    assert first.facts["weights"] == {
        "policy": weights_digest(other),
        "reference": weights_digest(tiny_model),
    }
    assert read_labels(first.manifest_path)["margin"].abs().min() > 0


def test_the_stage_never_imports_torch(label, tmp_path):
    teacher = score_artifact(tmp_path / "dpo", {key: (-1.0, -2.0) for key in IDS}, "w-dpo")
    reference = score_artifact(tmp_path / "sft", {key: (-1.0, -2.5) for key in IDS}, "w-sft")
    code = (
        "import sys, label_examples; label_examples.main(sys.argv[1:])\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    words = ["--examples", label.examples, "--split", label.split, "--part", "unlabelled", "--policy", "weak"]
    words += ["--policy-scores", teacher, "--reference-scores", reference, "--beta", 0.1]
    command = [sys.executable, "-c", code, *words, "--output", tmp_path / "made" / "manifest.json"]
    done = subprocess.run(list(map(str, command)), cwd=SCRIPTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(read_labels(tmp_path / "made" / "manifest.json")) == len(IDS)
