"""Labels, scores and splits that do not belong together, and teachers that have seen what they label: refused by id."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filter_examples
import import_examples
import label_examples
import numpy as np
import pandas as pd
import pytest
import split_examples
from hypothesis import assume
from hypothesis import strategies as st
from strategies import Record, refusal, refused_or, tried
from tiny import as_artifact, example_rows, write_label_file
from w2s import labelling
from w2s.artifact import Artifact, load
from w2s.dialogue import normalise_prompt
from w2s.errors import JoinError
from w2s.tables import (
    LABEL_COLUMNS,
    check_labels,
    read_dropped,
    read_labelled,
    read_labels,
    read_part,
    write_parquet,
)

pytestmark = pytest.mark.usefixtures("quick_records")
ROWS = example_rows([(f"\n\nHuman: {n}\n\nAssistant:", f" first {n}", f" second {n}") for n in range(24)])
IDS = ROWS["id"].tolist()
PARTS = dict(zip(IDS, ["unlabelled"] * 8 + ["labelled"] * 8 + ["test"] * 8, strict=True))
POOL = IDS[:8]


def labels_of(ids: Sequence[str], label: int = 1) -> pd.DataFrame:
    sign = 1.0 if label else -1.0
    frame = pd.DataFrame({"id": list(ids), "label": pd.Series(label, range(len(ids)), dtype="int8")})
    return frame.assign(margin=sign, probability=0.5 + sign / 4, source="weak")


def split_of(folder: Path, parts: Mapping[str, Any]) -> Path:
    frame = pd.DataFrame(list(parts.items()), columns=["id", "part"])
    return as_artifact(folder, lambda target: write_parquet(frame, target / "assignment.parquet"))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def fill(target: Path) -> None:
        write_parquet(ROWS, target / "examples.parquet")
        human = labels_of(IDS).assign(margin=math.nan, probability=1.0, source="human")
        write_parquet(human, target / "human.parquet")

    return as_artifact(tmp_path_factory.mktemp("safety") / "examples", fill)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return split_of(tmp_path_factory.mktemp("safety") / "split", PARTS)


def label(
    examples: Path, split: Path, output: Path, policy: str, *words: object, part: str = "unlabelled"
) -> Path:
    """Through the stage; returns the labels' manifest."""
    command = [
        "--examples",
        examples,
        "--split",
        split,
        "--part",
        part,
        "--policy",
        policy,
        "--output",
        output / "manifest.json",
    ]
    label_examples.main([*map(str, command), *map(str, words)])
    return output / "manifest.json"


def as_they_should_be(labelled: Callable[[], Path]) -> None:
    """Label what is not spoilt: all of it gets a label, so that what is spoilt is refused for that alone."""
    manifest = labelled()
    assert read_labels(manifest)["id"].tolist() == sorted(POOL)
    shutil.rmtree(manifest.parent)


# -- joins -----------------------------------------------------------------------------------------------------------

Rows = list[tuple[Any, ...]]


class Damage(NamedTuple):
    """Rows that were spoilt, how, and what a message may name: the ids of such rows, or the first row that has none."""

    kind: str
    names: list[str]
    rows: Rows


def refused(damage: Damage, call: Callable[[], object], *named: str) -> None:
    """It refuses what was spoilt, and says where."""
    message = refusal(call, *named)
    assert any(name in message for name in damage.names), f"none of {damage.names} is named in: {message}"


@st.composite
def misjoined(draw: st.DrawFn, rows: Rows) -> Damage:
    """Rows that begin with an id, of which one or more are missing, there twice, extra, of no id or under another id."""
    at = draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=3, unique=True))
    kind = draw(st.sampled_from(["missing", "duplicate", "extra", "null", "foreign"]))
    found = list(rows)
    if kind == "missing":
        found = [row for number, row in enumerate(rows) if number not in at]
    elif kind in ("duplicate", "extra"):
        found += [
            rows[number] if kind == "duplicate" else (f"extra-{number}", *rows[number][1:]) for number in at
        ]
    else:
        for number in at:
            found[number] = (None if kind == "null" else f"foreign-{number}", *rows[number][1:])
    found = draw(st.permutations(found))
    if kind == "null":
        return Damage(kind, [f"row {[row[0] for row in found].index(None)}"], found)
    added = [row[0] for row in found if row[0].startswith(kind)]
    return Damage(kind, added if kind == "extra" else [*added, *(rows[number][0] for number in at)], found)


@st.composite
def another_value(draw: st.DrawFn, rows: Rows, column: int, values: st.SearchStrategy[Any]) -> Damage:
    """Rows in one of which another value stands."""
    at = draw(st.integers(0, len(rows) - 1))
    row = list(rows[at])
    row[column] = draw(values.filter(lambda value: value != row[column]))
    return Damage("value", [row[0]], [*rows[:at], tuple(row), *rows[at + 1 :]])


def test_label_files_of_other_ids(
    examples: Path, split: Path, tmp_path: Path, record_property: Record
) -> None:
    """Neither trained on nor relabelled; the message counts and names ids."""
    rows = list(labels_of(POOL).itertuples(index=False, name=None))

    def labels(rows: Rows) -> Path:
        table = pd.DataFrame(rows, columns=LABEL_COLUMNS).astype({"label": "int8"})
        return as_artifact(tmp_path / "labels", lambda folder: write_label_file(folder, table))

    def labelled(manifest: Path) -> Path:
        words = ["--labels", manifest, "--options", '{"share": 1}']
        return label(examples, split, tmp_path / "out", "confident", *words)

    def check(damage: Damage) -> None:
        manifest = labels(damage.rows)
        refused(damage, lambda: read_labelled(examples, split, "unlabelled", manifest), "labels")
        refused(damage, lambda: labelled(manifest), "labels")
        assert not (tmp_path / "out").exists()

    as_they_should_be(lambda: labelled(labels(rows)))
    tried(record_property, misjoined(rows), 25, check)


def test_a_shuffled_label_file_is_the_same(
    examples: Path, split: Path, tmp_path: Path, record_property: Record
) -> None:
    """Joins go by id: the order of the rows says nothing."""
    table = labels_of(POOL).assign(
        label=np.arange(8, dtype="int8") % 2, margin=math.nan, probability=math.nan
    )
    wanted = table.set_index("id")["label"].to_dict()

    def check(order: list[int]) -> None:
        manifest = as_artifact(
            tmp_path / "labels", lambda folder: write_label_file(folder, table.iloc[order])
        )
        labelled, _ = read_labelled(examples, split, "unlabelled", manifest)
        assert labelled.set_index("id")["label"].to_dict() == wanted

    tried(record_property, st.permutations(range(8)), 30, check)


def scores_of(
    folder: Path,
    rows: Rows,
    weights: str,
    part: str = "unlabelled",
    parents: Mapping[str, Path] | None = None,
) -> Path:
    """Scores as score_responses writes them."""
    spec = {"part": part, "precision": "float32"}
    with Artifact.create(
        folder / "manifest.json", spec=spec, parents=parents or {}, script=__file__
    ) as artifact:
        write_parquet(pd.DataFrame(rows, columns=labelling.SCORE_COLUMNS), artifact.path("scores.parquet"))
        artifact.record(weights_digest=weights, tokenizer_digest="t")
    return folder / "manifest.json"


def score_rows(ids: Sequence[str], shift: float = 0.0) -> Rows:
    return [(id_, side, -1.0 - side * shift, 3) for id_ in ids for side in (0, 1)]


def test_scores_of_other_ids_or_numbers(
    examples: Path, split: Path, tmp_path: Path, record_property: Record
) -> None:
    reference = scores_of(tmp_path / "reference", score_rows(POOL), "r")
    rows = score_rows(POOL, 1.0)
    numbers = another_value(rows, 2, st.sampled_from([float("nan"), float("inf"), -float("inf"), None]))
    sides = another_value(rows, 1, st.sampled_from([-1, 2, 0, 1]))

    def labelled(policy: Path, reference: Path) -> Path:
        words = ["--policy-scores", policy, "--reference-scores", reference, "--beta", 0.1]
        return label(examples, split, tmp_path / "out", "weak", *words)

    def check(damage: Damage) -> None:
        spoilt = scores_of(tmp_path / "policy", damage.rows, "p")
        refused(damage, lambda: labelled(spoilt, reference))
        refused(damage, lambda: labelled(reference, spoilt))
        assert not (tmp_path / "out").exists()

    as_they_should_be(lambda: labelled(scores_of(tmp_path / "policy", rows, "p"), reference))
    tried(record_property, misjoined(rows) | numbers | sides, 25, check)


def test_an_id_whose_two_responses_are_others_is_named(examples: Path, split: Path, tmp_path: Path) -> None:
    """Two different ones, as many as there should be."""
    reference = scores_of(tmp_path / "reference", score_rows(POOL), "r")
    rows = [
        (id_, -1 if (id_, side) == (POOL[2], 0) else side, *rest) for id_, side, *rest in score_rows(POOL)
    ]
    spoilt = scores_of(tmp_path / "policy", rows, "p")
    words = ["--policy-scores", spoilt, "--reference-scores", reference, "--beta", 0.1]
    refusal(
        lambda: label(examples, split, tmp_path / "out", "weak", *words),
        f"ids without both responses: {POOL[2]}\n",
    )


def test_rewards_of_other_ids_or_numbers(
    examples: Path, split: Path, tmp_path: Path, record_property: Record
) -> None:
    rows = [(id_, side, float(side)) for id_ in POOL for side in (0, 1)]
    numbers = another_value(rows, 2, st.sampled_from([float("nan"), float("inf"), None]))

    def labelled(rows: Rows) -> Path:
        manifest = tmp_path / "rewards" / "manifest.json"
        with Artifact.create(manifest, spec={"part": "unlabelled"}, parents={}, script=__file__) as made:
            write_parquet(pd.DataFrame(rows, columns=labelling.REWARD_COLUMNS), made.path("rewards.parquet"))
        return label(examples, split, tmp_path / "out", "reward", "--rewards", manifest)

    def check(damage: Damage) -> None:
        refused(damage, lambda: labelled(damage.rows))
        assert not (tmp_path / "out").exists()

    as_they_should_be(lambda: labelled(rows))
    tried(record_property, misjoined(rows) | numbers, 20, check)


def test_preferences_of_other_ids(
    examples: Path, split: Path, tmp_path: Path, record_property: Record
) -> None:
    """An LLM's replies, too; a second reply in the same order does not count as another vote."""
    rows = [(id_, order, 1.0) for id_ in POOL for order in (0, 1)]

    def labelled(rows: Rows) -> Path:
        table = pd.DataFrame(rows, columns=labelling.PREFERENCE_COLUMNS)
        manifest = as_artifact(
            tmp_path / "replies", lambda folder: write_parquet(table, folder / "preferences.parquet")
        )
        return label(examples, split, tmp_path / "out", "prompted", "--preferences", manifest)

    def check(damage: Damage) -> None:
        there = {row[0] for row in damage.rows}
        assume(damage.kind != "missing" or there != set(POOL))  # one order of an example alone may be missing
        if damage.kind == "missing":
            damage = damage._replace(names=sorted(set(POOL) - there))
        refused(damage, lambda: labelled(damage.rows))
        assert not (tmp_path / "out").exists()

    as_they_should_be(lambda: labelled(rows))
    tried(record_property, misjoined(rows), 20, check)


# -- values ----------------------------------------------------------------------------------------------------------


def test_margins_and_probabilities_that_are_none_or_speak_against_the_label(record_property: Record) -> None:
    """What passes is finite, within [0, 1] and for the response that the label names."""
    margins = st.sampled_from([math.nan, 0.0, 1e-300, -1e-300, 2.0, -2.0, math.inf, -math.inf, None, "x"])
    probabilities = st.sampled_from(
        [math.nan, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0000001, -0.1, math.inf, None, "1"]
    )
    rows = st.tuples(st.sampled_from([0, 1]), margins, probabilities)

    def sound(row: tuple[int, Any, Any]) -> bool:
        label, margin, probability = row
        numbers = [value for value in (margin, probability) if value is not None]
        if any(isinstance(value, str) and value != "1" or math.isinf(float(value)) for value in numbers):
            return False
        margin, probability = (math.nan if value is None else float(value) for value in (margin, probability))
        sign = 1 if label else -1
        outside = not math.isnan(probability) and not 0 <= probability <= 1
        return not (outside or margin * sign < 0 or (probability - 0.5) * sign < 0)

    def check(found: list[tuple[int, Any, Any]]) -> None:
        table = pd.DataFrame([(f"id{n}", *row, "weak") for n, row in enumerate(found)], columns=LABEL_COLUMNS)
        passed = refused_or(lambda: check_labels(table, "labels.parquet"), "labels.parquet")
        assert (passed is not None) == all(map(sound, found))

    tried(record_property, st.lists(rows, min_size=1, max_size=4), 200, check)


@pytest.mark.parametrize("policy", ["weak", "gold", "human"])
def test_labels_whose_0_and_1_were_exchanged(policy: str) -> None:
    """Wherever a label comes with its certainty; a table without any cannot tell."""
    certain = {"weak": (0.7, 0.67), "gold": (1.5, 1.0), "human": (math.nan, 1.0)}[policy]
    table = labels_of(POOL).assign(margin=certain[0], probability=certain[1], source=policy)
    check_labels(table, "x")
    message = refusal(lambda: check_labels(table.assign(label=1 - table["label"]), "x"), "8 labels", POOL[0])
    assert "exchanged" in message


def test_responses_that_were_exchanged_after_the_import(
    tmp_path: Path, tiny_tokenizer: Path, record_property: Record
) -> None:
    """An id is the hash of prompts and responses in their order: other content under an old id is refused."""
    rows = [
        import_examples.flatten(import_examples.Pair(_sides(n), "s", "train", f"f:{n}")) for n in range(6)
    ]
    table = import_examples.to_table(rows)

    def examples_of(frame: pd.DataFrame) -> Path:
        def fill(folder: Path) -> None:
            write_parquet(frame[import_examples.EXAMPLE_COLUMNS], folder / "examples.parquet")
            write_parquet(import_examples.human_labels(table), folder / "human.parquet")

        return as_artifact(tmp_path / "examples", fill)

    def filtered(frame: pd.DataFrame) -> None:
        words = ["--examples", examples_of(frame), "--tokenizer", tiny_tokenizer / "manifest.json"]
        filter_examples.main([*map(str, words), "--output", str(tmp_path / "filtered" / "manifest.json")])

    filtered(table)
    columns = st.sampled_from(["prompt", "response_0", "response_1", "exchange", "other_prompt"])

    def check(case: tuple[int, str]) -> None:
        row, column = case
        frame = table.copy()
        if column == "exchange":
            frame.loc[row, ["response_0", "response_1"]] = frame.loc[
                row, ["response_1", "response_0"]
            ].to_numpy()
        else:
            frame.loc[row, column] = f"{frame.loc[row, column]} and more"
        refusal(lambda: filtered(frame), "examples", frame.loc[row, "id"])

    tried(record_property, st.tuples(st.integers(0, 5), columns), 25, check)


def _sides(number: int) -> Any:
    from w2s.adapters import Sides

    prompt = f"\n\nHuman: {number}?\n\nAssistant:"
    return Sides(prompt, f" good {number}", prompt, f" bad {number}", preferred=0)


# -- leakage between the parts ---------------------------------------------------------------------------------------

VARIANTS: list[Callable[[str], str]] = [
    str,
    str.upper,
    str.title,
    lambda text: f"  {text}\n",
    lambda text: text.replace(" ", "\u00a0"),
    lambda text: text.replace(" ", " \t\n"),
    lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
]
prompts = st.lists(
    st.text("abcxyzäßéıǰŉΐ 12?", min_size=1, max_size=8).filter(str.strip), min_size=8, max_size=16
)


@st.composite
def corpora(draw: st.DrawFn) -> pd.DataFrame:
    """Examples with planted near-duplicates on both sides of the data set."""
    texts = draw(prompts)
    rows = []
    for number, text in enumerate(texts):
        for copy in range(draw(st.integers(1, 3))):
            side = (
                "train" if number < 4 else "test" if number < 6 else draw(st.sampled_from(["train", "test"]))
            )
            rows.append((draw(st.sampled_from(VARIANTS))(text), f"{number}-{copy}", side))
    frame = example_rows([(prompt, f" a {name}", f" b {name}") for prompt, name, _ in rows])
    return frame.assign(origin_split=[side for _, _, side in rows])


def test_near_duplicates_are_never_divided(tmp_path: Path, record_property: Record) -> None:
    """For random corpora: every row has one part or is dropped and counted; no part shares a prompt with another."""
    made = 0

    def check(case: tuple[pd.DataFrame, int, str]) -> None:
        nonlocal made
        frame, seed, share = case
        source = as_artifact(
            tmp_path / "examples", lambda folder: write_parquet(frame, folder / "examples.parquet")
        )
        output = tmp_path / "split" / "manifest.json"
        output.unlink(missing_ok=True)
        words = ["--examples", source, "--output", output, "--share", share, "--seed", seed]
        assume(refused_or(lambda: [split_examples.main([str(word) for word in words])], "would be empty"))
        made += 1
        parts = pd.read_parquet(output.with_name("assignment.parquet")).set_index("id")["part"]
        keys = frame.set_index("id")["prompt"].map(normalise_prompt)
        assert parts.groupby(keys[parts.index]).nunique().max() == 1
        side = frame.set_index("id")["origin_split"][parts.index]
        assert (parts[side == "test"] == "test").all() and (parts[side == "train"] != "test").all()
        assert len(frame) == len(parts) + pd.read_csv(output.with_name("drops.csv"))["rows"].sum()
        for part in ("labelled", "unlabelled", "train", "test"):
            read_part(source, output, part)

    cases = st.tuples(corpora(), st.integers(0, 5), st.sampled_from(["1/2", "1/4", "1/8"]))
    tried(record_property, cases, 30, check)
    assert made > 15


def test_a_split_by_hand_that_leaks_is_refused_by_every_stage_that_reads_it(
    tmp_path: Path, record_property: Record
) -> None:
    """One prompt in two parts, in another spelling: no training, no labelling, no scoring of any part."""

    def check(case: tuple[int, str, str, int]) -> None:
        row, other_part, part, variant = case
        first = ROWS["prompt"][row]
        extra = example_rows([(VARIANTS[variant](first), " another", " answer")])
        frame = pd.concat([ROWS, extra], ignore_index=True)
        source = as_artifact(
            tmp_path / "examples", lambda folder: write_parquet(frame, folder / "examples.parquet")
        )
        leaking = split_of(tmp_path / "split", PARTS | {extra["id"][0]: other_part})
        if PARTS[IDS[row]] == other_part:
            read_part(source, leaking, part)
        else:
            message = refusal(lambda: read_part(source, leaking, part), IDS[row], extra["id"][0])
            assert PARTS[IDS[row]] in message and other_part in message

    parts = st.sampled_from(["labelled", "unlabelled", "test"])
    variants = st.integers(0, len(VARIANTS) - 1)
    tried(record_property, st.tuples(st.integers(0, 23), parts, parts, variants), 30, check)


@pytest.mark.parametrize("part", [None, "", "Labelled", "train", "dev"])
def test_a_split_with_another_part(examples: Path, tmp_path: Path, part: str | None) -> None:
    spoilt = split_of(tmp_path / "split", PARTS | {IDS[3]: part})
    refusal(lambda: read_part(examples, spoilt, "test"), IDS[3], "one of labelled, unlabelled, test")


def test_a_split_with_an_id_twice_or_of_other_examples(
    examples: Path, tmp_path: Path, record_property: Record
) -> None:
    rows = list(PARTS.items())

    def check(damage: Damage) -> None:
        assume(damage.kind != "missing")  # a split may leave examples out (dropped test prompts)
        frame = pd.DataFrame(damage.rows, columns=["id", "part"])
        spoilt = as_artifact(
            tmp_path / "split", lambda folder: write_parquet(frame, folder / "assignment.parquet")
        )
        refused(damage, lambda: read_part(examples, spoilt, "unlabelled"), "assignment.parquet")

    tried(record_property, misjoined(rows), 20, check)


# -- a teacher that has seen the pool -----------------------------------------------------------------------------


def trained(
    folder: Path, examples: Path, split: Path, ids: Sequence[str], part: str, model: Path | None = None
) -> Path:
    """What a training leaves: a folder with a record of its parents, and the labels that it learnt from."""
    table = labels_of(ids)
    labels = as_artifact(
        folder.with_name(f"{folder.name}-labels"), lambda target: write_label_file(target, table)
    )
    parents = {"model": model, "examples": examples, "split": split, "labels": labels}
    with Artifact.create(
        folder / "manifest.json", spec={"part": part}, parents=parents, script="train_teacher_dpo.py"
    ):
        pass
    return folder / "manifest.json"


@pytest.fixture
def weak(examples: Path, split: Path, tmp_path: Path) -> Callable[..., Path]:
    """``weak(teacher, reference, part)`` labels by scores of these models."""

    def run(teacher: Path, reference: Path, part: str = "unlabelled", examples: Path = examples) -> Path:
        ids = read_part(examples, split, part)["id"]
        both = [
            scores_of(
                tmp_path / name,
                score_rows(ids, shift),
                name,
                part,
                {"model": model, "examples": examples, "split": split},
            )
            for name, shift, model in (("p", 1.0, teacher), ("r", 0.0, reference))
        ]
        words = ["--policy-scores", both[0], "--reference-scores", both[1], "--beta", 0.1]
        return label(examples, split, tmp_path / "weak", "weak", *words, part=part)

    return run


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return as_artifact(tmp_path / "base", lambda folder: (folder / "a").write_text("a"))


def test_a_teacher_of_the_labelled_part_may_label_the_rest(
    examples: Path, split: Path, weak: Callable[..., Path], base: Path, tmp_path: Path
) -> None:
    """And its own part, for how well it agrees with what it learnt."""
    sft = trained(tmp_path / "sft", examples, split, IDS[8:16], "labelled", base)
    dpo = trained(tmp_path / "dpo", examples, split, IDS[8:16], "labelled", sft)
    for part in ("unlabelled", "test", "labelled", "train"):
        made = weak(dpo, sft, part)
        assert len(read_labels(made)) + len(read_dropped(made)) == len(read_part(examples, split, part))
        assert load(made).run["measured"]["not_traced"] == []


def test_a_teacher_that_has_seen_the_pool_is_refused(
    examples: Path,
    split: Path,
    weak: Callable[..., Path],
    base: Path,
    tmp_path: Path,
    record_property: Record,
) -> None:
    """Whatever share of the pool it was, in whichever step, as teacher or as reference; the ids are named."""
    clean = trained(tmp_path / "clean", examples, split, IDS[8:16], "labelled", base)

    def check(case: tuple[set[int], str, str]) -> None:
        seen, step, role = case
        other = split_of(tmp_path / "other-split", dict.fromkeys(IDS, "labelled"))
        ids = [IDS[number] for number in sorted(seen)] + IDS[16:18]
        sft = trained(
            tmp_path / "sft", examples, other, ids if step == "sft" else IDS[8:16], "labelled", base
        )
        dpo = trained(tmp_path / "dpo", examples, other, ids if step == "dpo" else IDS[8:16], "labelled", sft)
        pair = (dpo, clean) if role == "teacher" else (clean, dpo)
        message = refusal(lambda: weak(*pair), f"{len(seen)} of the 8 examples", step)
        assert any(IDS[number] in message for number in seen)
        assert not (tmp_path / "weak").exists()

    seen = st.sets(st.integers(0, 7), min_size=1)
    cases = st.tuples(seen, st.sampled_from(["sft", "dpo"]), st.sampled_from(["teacher", "reference"]))
    tried(record_property, cases, 15, check)


def test_a_teacher_of_another_seed_or_of_the_test_part(
    examples: Path, split: Path, weak: Callable[..., Path], base: Path, tmp_path: Path
) -> None:
    other = split_of(
        tmp_path / "other-split", {id_: "labelled" if n % 2 else "unlabelled" for n, id_ in enumerate(IDS)}
    )
    teacher = trained(tmp_path / "dpo", examples, other, IDS[1::2], "labelled", base)
    refusal(lambda: weak(teacher, base), "4 of the 8 examples", IDS[1])
    tested = trained(tmp_path / "tested", examples, split, IDS[16:], "test", base)
    weak(tested, base)
    refusal(lambda: weak(tested, base, "test"), "8 of the 8 examples")


def test_a_teacher_that_knows_the_prompts_from_elsewhere(
    examples: Path, split: Path, weak: Callable[..., Path], base: Path, tmp_path: Path
) -> None:
    """Other answers to the same question under other ids, in another data set and another spelling."""
    frame = example_rows([(ROWS["prompt"][3].upper(), " other", " answers"), ("unrelated", " a", " b")])
    elsewhere = as_artifact(
        tmp_path / "elsewhere", lambda folder: write_parquet(frame, folder / "examples.parquet")
    )
    teacher = trained(tmp_path / "dpo", elsewhere, split, frame["id"], "labelled", base)
    refusal(lambda: weak(teacher, base), "other answers to the prompts of 1 of the 8", IDS[3])
    unrelated = trained(tmp_path / "unrelated", elsewhere, split, frame["id"][1:], "labelled", base)
    weak(unrelated, base)


def test_a_reward_model_of_the_whole_train_side(
    examples: Path, split: Path, base: Path, tmp_path: Path
) -> None:
    """A gold model has learnt from labels of D_u: it is a judge and no teacher."""
    gold = tmp_path / "gold" / "manifest.json"
    parents = {"model": base, "examples": examples}
    with Artifact.create(gold, spec={"labels": "human"}, parents=parents, script="train_reward_model.py"):
        pass
    rewards = tmp_path / "rewards" / "manifest.json"
    rows = [(id_, side, float(side)) for id_ in POOL for side in (0, 1)]
    with Artifact.create(
        rewards, spec={"part": "unlabelled"}, parents={"model": gold}, script=__file__
    ) as made:
        write_parquet(pd.DataFrame(rows, columns=labelling.REWARD_COLUMNS), made.path("rewards.parquet"))
    refusal(lambda: label(examples, split, tmp_path / "out", "reward", "--rewards", rewards), "8 of the 8")


def test_what_can_no_longer_be_told_is_recorded(
    examples: Path,
    split: Path,
    weak: Callable[..., Path],
    base: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Relabelling must not need a teacher that was cleaned away: scores outlive it."""
    sft = trained(tmp_path / "sft", examples, split, IDS[8:16], "labelled", base)
    dpo = trained(tmp_path / "dpo", examples, split, IDS[8:16], "labelled", sft)
    sft.unlink()
    made = weak(dpo, base)
    assert load(made).run["measured"]["not_traced"] == [str(sft.resolve())]
    assert str(sft) in caplog.text
    seen = trained(tmp_path / "seen", examples, split, POOL, "unlabelled", base)
    labels = Path(str(seen.parent) + "-labels") / "manifest.json"
    as_artifact(labels.parent, lambda folder: write_label_file(folder, labels_of(IDS[8:16])))
    assert load(weak(seen, base)).run["measured"]["not_traced"] == [str(labels.resolve())]


def test_an_example_cannot_be_labelled_and_left_out(examples: Path, split: Path, tmp_path: Path) -> None:
    manifest = as_artifact(
        tmp_path / "labels", lambda folder: write_label_file(folder, labels_of(POOL), {POOL[2]: "left_out"})
    )
    with pytest.raises(JoinError):
        read_labelled(examples, split, "unlabelled", manifest)
