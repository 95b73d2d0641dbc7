"""Labels from rewards, replies and other labels: each policy on data whose answers are known, through the stage."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import label_examples
import numpy as np
import pandas as pd
import pytest
from remade import remade
from tiny import as_artifact, example_rows, write_label_file
from w2s import labelling
from w2s.artifact import Artifact, load
from w2s.errors import ConfigError, DataError, JoinError
from w2s.feedback import POLICIES
from w2s.tables import DROPPED_COLUMNS, LABEL_COLUMNS, read_dropped, read_labels, write_parquet

ROWS = example_rows([(f"\n\nHuman: {n}\n\nAssistant:", f" first {n}", f" second {n}") for n in range(28)])
IDS = sorted(ROWS["id"][:20])  # D_u
LABELLED = sorted(ROWS["id"][20:24])  # D_l
TEST = sorted(ROWS["id"][24:])
HUMAN = dict(zip(IDS, [0, 1, 1, 0, 1] * 4, strict=True)) | dict.fromkeys([*LABELLED, *TEST], 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Examples with people's labels, and their split."""
    folder = tmp_path_factory.mktemp("data")
    human = table(HUMAN, math.nan, source="human")
    assignment = pd.DataFrame(
        [(id_, part) for part, ids in (("unlabelled", IDS), ("labelled", LABELLED), ("test", TEST)) for id_ in ids],
        columns=["id", "part"],
    )  # fmt: skip

    def fill(target: Path) -> None:
        write_parquet(ROWS, target / "examples.parquet")
        write_parquet(human, target / "human.parquet")
        write_parquet(human.assign(margin=human["label"] * 2.0 - 1), target / "gold.parquet")

    examples = as_artifact(folder / "examples", fill)
    split = as_artifact(folder / "split", lambda at: write_parquet(assignment, at / "assignment.parquet"))
    return examples, split


@pytest.fixture
def label(data: tuple[Path, Path], tmp_path: Path) -> Callable[..., Path]:
    """``label(policy, *words)`` labels the unlabelled part and returns the labels' manifest."""
    made: list[Path] = []

    def run(policy: str, *words: object, part: str = "unlabelled") -> Path:
        made.append(tmp_path / f"labels-{len(made)}" / "manifest.json")
        command = ["--examples", data[0], "--split", data[1], "--part", part, "--policy", policy, *words]
        label_examples.main([*map(str, command), "--output", str(made[-1])])
        return made[-1]

    return run


def table(
    labels: Mapping[str, int], margins: float | Sequence[float] | None = None, source: str = "weak"
) -> pd.DataFrame:
    """LABEL_COLUMNS of these labels; margins of 1 unless given, probabilities that go with them."""
    frame = pd.DataFrame({"id": list(labels), "label": pd.Series(list(labels.values()), dtype="int8")})
    sign = np.where(frame["label"] == 1, 1.0, -1.0)
    frame["margin"] = sign if margins is None else margins
    certain = frame["margin"].isna()
    chance = labelling.sigmoid(frame["margin"].fillna(0.0).to_numpy())
    frame["probability"] = np.where(certain, frame["label"], chance)
    return frame.assign(source=source)


def label_file(folder: Path, labels: pd.DataFrame, dropped: Mapping[str, str] | None = None) -> Path:
    return as_artifact(folder, lambda target: write_label_file(target, labels, dropped))


def weak(folder: Path, wrong: Sequence[str], dropped: Sequence[str] = ()) -> Path:
    """Labels of another feedback that contradict people on ``wrong``, with margins 1, 2, ... 20 by id."""
    labels = {id_: 1 - HUMAN[id_] if id_ in wrong else HUMAN[id_] for id_ in IDS}
    sizes = [(number + 1) * (1 if value else -1) for number, value in enumerate(labels.values())]
    found = table(labels, sizes)
    return label_file(folder, found[~found["id"].isin(dropped)], dict.fromkeys(dropped, "malformed_reply"))


WRONG = [IDS[n] for n in (0, 3, 4, 9, 12, 18)]


def by_id(manifest: Path) -> pd.DataFrame:
    return read_labels(manifest).set_index("id")


# -- subsets of other labels (Tables 1 and 12) ---------------------------------------------------------------------


def test_match_and_mismatch_divide_the_labelled_examples(label: Callable[..., Path], tmp_path: Path) -> None:
    other = weak(tmp_path / "weak", WRONG)
    match, mismatch = (label(policy, "--labels", other) for policy in ("match", "mismatch"))
    assert set(by_id(mismatch).index) == set(WRONG)
    assert set(by_id(match).index) == set(IDS) - set(WRONG)
    assert read_dropped(match)["id"].tolist() == sorted(WRONG)
    assert set(read_dropped(match)["reason"]) == {"contradicts_people"}
    assert set(read_dropped(mismatch)["reason"]) == {"agrees_with_people"}
    for manifest in (match, mismatch):
        kept, original = by_id(manifest), by_id(other)
        pd.testing.assert_frame_equal(
            kept.drop(columns="source"), original.loc[kept.index].drop(columns="source")
        )
    assert (by_id(match)["label"] == by_id(match).index.map(HUMAN)).all()
    assert (by_id(mismatch)["label"] != by_id(mismatch).index.map(HUMAN)).all()
    assert set(by_id(match)["source"]) == {"match"}


def test_what_the_other_feedback_left_out_stays_out_with_its_reason(
    label: Callable[..., Path], tmp_path: Path
) -> None:
    other = weak(tmp_path / "weak", WRONG, dropped=[IDS[0], IDS[1]])
    made = label("mismatch", "--labels", other)
    reasons = read_dropped(made).set_index("id")["reason"]
    assert reasons[[IDS[0], IDS[1]]].tolist() == ["malformed_reply"] * 2
    assert set(by_id(made).index) == set(WRONG[1:])
    assert load(made).facts["dropped"] == {"agrees_with_people": 13, "malformed_reply": 2}


def test_a_feedback_that_never_errs_has_no_disagreement_set(
    label: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="policy mismatch labels none of 20 examples .agrees_with_people."):
        label("mismatch", "--labels", weak(tmp_path / "weak", []))


@pytest.mark.parametrize(
    ("wrong", "dropped", "flips"), [(6, 0, 6), (6, 4, 8), (7, 3, 8), (0, 0, 0), (20, 0, 20)]
)
def test_random_flips_as_many_labels_as_the_other_feedback_gets_wrong(
    label: Callable[..., Path], tmp_path: Path, wrong: int, dropped: int, flips: int
) -> None:
    """The rate is that of the examples that the other feedback labels; every example gets a label."""
    other = weak(tmp_path / "weak", IDS[:wrong], dropped=IDS[20 - dropped :])
    assert flips == round(20 * wrong / (20 - dropped))
    made = by_id(label("random", "--labels", other, "--seed", 3))
    flipped = made["label"] != made.index.map(HUMAN)
    assert len(made) == 20
    assert flipped.sum() == flips
    assert made["probability"].tolist() == made["label"].astype(float).tolist()
    assert made["margin"].isna().all()
    assert set(made["source"]) == {"random"}


def test_random_flips_follow_the_seed(label: Callable[..., Path], tmp_path: Path) -> None:
    other = weak(tmp_path / "weak", WRONG)
    words = ("random", "--labels", other, "--seed")
    one, again, two = (label(*words, seed) for seed in (3, 3, 4))
    assert load(one).path("labels.parquet").read_bytes() == load(again).path("labels.parquet").read_bytes()
    assert (by_id(one)["label"] != by_id(two)["label"]).any()
    assert set(by_id(one).index[by_id(one)["label"] != by_id(one).index.map(HUMAN)]) != set(WRONG)
    flipped = label("mismatch", "--labels", one)
    assert len(by_id(flipped)) == len(WRONG)  # Table 12: the flipped part alone


def test_the_most_confident_share_is_kept(label: Callable[..., Path], tmp_path: Path) -> None:
    other = weak(tmp_path / "weak", WRONG)  # margins 1 ... 20 by id
    made = label("confident", "--labels", other, "--options", '{"share": 0.25}')
    assert by_id(made).index.tolist() == IDS[15:]
    assert by_id(made)["margin"].abs().tolist() == [16, 17, 18, 19, 20]
    assert set(read_dropped(made)["reason"]) == {"small_margin"}
    assert len(by_id(label("confident", "--labels", other))) == 10  # half, unless told otherwise
    assert len(by_id(label("confident", "--labels", other, "--options", '{"share": 1}'))) == 20
    assert (
        by_id(label("confident", "--labels", other, "--options", '{"share": 0.001}')).index.tolist()
        == IDS[-1:]
    )
    for share in (0, 1.5, -1):
        with pytest.raises(ConfigError, match="is not above 0 and at most 1"):
            label("confident", "--labels", other, "--options", json.dumps({"share": share}))


def test_of_equal_margins_the_first_by_id_are_kept(label: Callable[..., Path], tmp_path: Path) -> None:
    other = label_file(tmp_path / "weak", table(dict.fromkeys(IDS, 0)).sample(frac=1, random_state=1))
    made = label("confident", "--labels", other, "--options", '{"share": 0.3}')
    assert by_id(made).index.tolist() == IDS[:6]


def test_an_ensemble_is_the_mean_probability(label: Callable[..., Path], tmp_path: Path) -> None:
    probabilities = {
        "a": [0.9, 0.4, 0.5, 0.3, 1.0],
        "b": [0.6, 0.1, 0.5, 0.8, 1.0],
        "c": [0.3, 0.7, 0.5, 0.4, 1.0],
    }
    members = []
    for name, told in probabilities.items():
        values = np.array(told * 4)
        frame = table(dict(zip(IDS, (values > 0.5).astype(int), strict=True))).assign(probability=values)
        lost = [IDS[19]] if name == "b" else []
        members.append(label_file(tmp_path / name, frame[~frame["id"].isin(lost)], dict.fromkeys(lost, "x")))
    made = label("ensemble", "--labels", *members)
    found = by_id(made)
    mean = [0.6, 0.4, 0.5, 0.5, 1.0]
    assert found["probability"].tolist() == pytest.approx((mean * 4)[:19])
    assert found["label"].tolist() == ([1, 0, 1, 1, 1] * 4)[:19]
    assert found["margin"].iloc[:4].tolist() == pytest.approx([math.log(1.5), -math.log(1.5), 0, 0])
    assert np.isfinite(found["margin"]).all()
    assert read_dropped(made).to_numpy().tolist() == [[IDS[19], "dropped_by_a_member"]]
    first = by_id(label("ensemble", "--labels", *members, "--tie", "first"))
    assert first["label"].iloc[2] == 0


# -- other teachers ------------------------------------------------------------------------------------------------


def replies(folder: Path, told: Mapping[str, Sequence[float]]) -> Path:
    """Preferences as ``judge_preferences`` leaves them: per id, one choice in each order."""
    rows = [(id_, order, choice) for id_, pair in told.items() for order, choice in enumerate(pair)]
    frame = pd.DataFrame(rows, columns=labelling.PREFERENCE_COLUMNS)
    return as_artifact(folder, lambda target: write_parquet(frame, target / "preferences.parquet"))


def test_a_prompted_llm_is_asked_in_both_orders(label: Callable[..., Path], tmp_path: Path) -> None:
    """Agreement, contradiction (a tie), one reply that is not in the form, and two."""
    told: dict[str, Sequence[float]] = dict.fromkeys(IDS, (0, 0))
    told |= {
        IDS[0]: (1, 1),
        IDS[1]: (0, 1),
        IDS[2]: (1, 0),
        IDS[3]: (math.nan, 1),
        IDS[4]: (math.nan, math.nan),
    }
    made = label("prompted", "--preferences", replies(tmp_path / "replies", told))
    found = by_id(made)
    assert found.loc[IDS[:4], "probability"].tolist() == [1.0, 0.5, 0.5, 1.0]
    assert found.loc[IDS[:4], "margin"].tolist() == [0.5, 0.0, 0.0, 0.5]
    assert found.loc[IDS[:4], "label"].tolist() == [1, 1, 1, 1]  # ties go to the second
    assert found.loc[IDS[5:], "label"].tolist() == [0] * 15
    assert read_dropped(made).to_numpy().tolist() == [[IDS[4], "malformed_reply"]]
    facts = load(made).facts
    assert (facts["labels"], facts["ties"], facts["dropped"]) == (19, 2, {"malformed_reply": 1})
    first = by_id(label("prompted", "--preferences", replies(tmp_path / "again", told), "--tie", "first"))
    assert first.loc[IDS[:4], "label"].tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({IDS[0]: (2, 0)}, DataError, f"neither 0 nor 1: {IDS[0]}"),
        ({IDS[0]: None}, JoinError, f"1 ids of the examples are missing in the replies: {IDS[0]}"),
        ({"else": (0, 0)}, JoinError, "1 ids of the replies are not in the examples: else"),
    ],
)
def test_replies_that_do_not_fit_are_refused(
    label: Callable[..., Path], tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    told = {id_: pair for id_, pair in {**dict.fromkeys(IDS, (0, 1)), **change}.items() if pair}
    with pytest.raises(error, match=message):
        label("prompted", "--preferences", replies(tmp_path / "replies", told))


def test_an_example_asked_twice_in_one_order_is_refused(label: Callable[..., Path], tmp_path: Path) -> None:
    manifest = replies(tmp_path / "replies", dict.fromkeys(IDS, (0, 1)))
    path = manifest.with_name("preferences.parquet")
    write_parquet(pd.read_parquet(path).assign(order=0), path)
    remade(manifest)
    with pytest.raises(
        JoinError, match=f"{len(IDS)} examples were asked twice in one order: {IDS[0]}, {IDS[1]}, "
    ):
        labelling.read_preferences(manifest)


def rewards(
    folder: Path, values: Mapping[str, tuple[float, float]], part: str = "unlabelled", drop: int = 0
) -> Path:
    """Rewards of both responses as ``reward_responses`` leaves them."""
    rows = [(id_, side, value) for id_, pair in values.items() for side, value in enumerate(pair)]
    frame = pd.DataFrame(rows, columns=labelling.REWARD_COLUMNS)
    manifest = folder / "manifest.json"
    with Artifact.create(manifest, spec={"part": part}, parents={}, script=__file__) as artifact:
        write_parquet(frame.iloc[drop:], artifact.path("rewards.parquet"))
    return manifest


def test_a_reward_model_prefers_the_higher_reward(label: Callable[..., Path], tmp_path: Path) -> None:
    values = {id_: (1.0, 1.0 + 0.5 * (number - 2)) for number, id_ in enumerate(IDS)}
    found = by_id(label("reward", "--rewards", rewards(tmp_path / "rewards", values)))
    assert found["margin"].tolist() == [0.5 * (number - 2) for number in range(20)]
    assert found["label"].tolist() == [0, 0, 1] + [1] * 17
    assert found["probability"].tolist() == pytest.approx([1 / (1 + math.exp(-m)) for m in found["margin"]])
    assert set(found["source"]) == {"reward"}
    first = by_id(label("reward", "--rewards", rewards(tmp_path / "again", values), "--tie", "first"))
    assert first["label"].tolist() == [0, 0, 0] + [1] * 17


@pytest.mark.parametrize(
    ("values", "settings", "error", "message"),
    [
        ({}, {"part": "test"}, JoinError, "rewards of part 'test', examples of part 'unlabelled'"),
        ({}, {"drop": 1}, JoinError, f"ids without both responses: {IDS[0]}"),
        ({IDS[2]: (0.0, math.inf)}, {}, JoinError, f"not finite numbers: {IDS[2]}"),
        ({"else": (0.0, 1.0)}, {}, JoinError, "not in the examples|are not in"),
    ],
    ids=["part", "one response", "infinite", "another example"],
)
def test_rewards_that_do_not_fit_are_refused(
    label: Callable[..., Path],
    tmp_path: Path,
    values: dict[str, tuple[float, float]],
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    given = rewards(tmp_path / "rewards", {**dict.fromkeys(IDS, (0.0, 1.0)), **values}, **settings)
    with pytest.raises(error, match=message):
        label("reward", "--rewards", given)


def test_everything_is_people_s_labels_of_both_parts(label: Callable[..., Path]) -> None:
    assert POLICIES["everything"].part == "train"
    found = by_id(label("everything", part="train"))
    assert found.index.tolist() == sorted([*IDS, *LABELLED])
    assert found["label"].to_dict() == {id_: HUMAN[id_] for id_ in found.index}


# -- what holds of all ---------------------------------------------------------------------------------------------


def given(policy: str, folder: Path) -> list[object]:
    """What the policy takes, with examples that it leaves out where it can."""
    takes = POLICIES[policy].takes
    if takes == "labels":
        members = [weak(folder / "weak", WRONG, dropped=IDS[:2])]
        return ["--labels", *members, *([weak(folder / "other", IDS[:7])] if policy == "ensemble" else [])]
    if takes == "preferences":
        told = {id_: (math.nan, math.nan) if number < 3 else (0, 1) for number, id_ in enumerate(IDS)}
        return ["--preferences", replies(folder / "replies", told)]
    if takes == "rewards":
        return ["--rewards", rewards(folder / "rewards", dict.fromkeys(IDS, (0.5, 0.25)))]
    words: list[object] = []
    for number, flag in enumerate(("--policy-scores", "--reference-scores") if takes == "scores" else ()):
        rows = [(id_, side, -1.0 - number * side, 3) for id_ in IDS for side in (0, 1)]
        frame = pd.DataFrame(rows, columns=labelling.SCORE_COLUMNS)
        manifest = folder / flag[2:] / "manifest.json"
        spec = {"part": "unlabelled", "precision": "float32"}
        with Artifact.create(manifest, spec=spec, parents={}, script=__file__) as artifact:
            write_parquet(frame, artifact.path("scores.parquet"))
            artifact.record(weights_digest=flag, tokenizer_digest="t")
        words += [flag, manifest]
    return [*words, "--beta", 0.1] if words else []


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_kept_and_dropped_are_the_examples(label: Callable[..., Path], tmp_path: Path, policy: str) -> None:
    part = POLICIES[policy].part
    made = label(policy, *given(policy, tmp_path), part=part)
    kept, dropped = read_labels(made), read_dropped(made)
    examples = sorted([*IDS, *LABELLED]) if part == "train" else IDS
    assert sorted([*kept["id"], *dropped["id"]]) == examples
    assert list(kept.columns) == LABEL_COLUMNS and list(dropped.columns) == DROPPED_COLUMNS
    assert kept["id"].is_monotonic_increasing and dropped["id"].is_monotonic_increasing
    assert kept["label"].dtype == "int8" and kept["probability"].between(0, 1).all()
    sure = kept[kept["probability"] != 0.5]
    assert ((sure["probability"] > 0.5) == (sure["label"] == 1)).all()
    assert dropped["reason"].str.fullmatch(r"[a-z_]+").all()
    facts = load(made).facts
    assert facts["labels"] == len(kept)
    assert facts["dropped"] == dropped["reason"].value_counts().to_dict()
    assert facts["share_of_label_1"] == pytest.approx(kept["label"].mean())
    labelling.read_label_file(made, examples)


@pytest.mark.parametrize("policy", ["match", "mismatch", "random", "confident"])
def test_policies_of_one_feedback_refuse_two(label: Callable[..., Path], tmp_path: Path, policy: str) -> None:
    files = [weak(tmp_path / name, WRONG) for name in ("a", "b")]
    with pytest.raises(ConfigError, match=r"(?s)2 label files were given.*--labels"):
        label(policy, "--labels", *files)


def test_labels_of_other_examples_are_refused(label: Callable[..., Path], tmp_path: Path) -> None:
    other = label_file(tmp_path / "weak", table(dict.fromkeys(IDS[1:], 0)))
    with pytest.raises(JoinError, match=f"1 ids of the examples are missing in the labels of .*: {IDS[0]}"):
        label("match", "--labels", other)
    more = label_file(tmp_path / "more", table(dict.fromkeys([*IDS, "else"], 0)))
    with pytest.raises(JoinError, match="are not in the examples: else"):
        label("match", "--labels", more)
