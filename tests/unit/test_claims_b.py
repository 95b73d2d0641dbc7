"""Paper B's claims: what the released scores say of each, and verdicts on made-up transfers whose truth is known."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import score_claims
from synthetic_claims import write_tables
from w2s import scorecard
from w2s.claims import Side, read_claims
from w2s.errors import ConfigError, DataError, JoinError
from w2s.evidence import comparisons
from w2s.measured import read_experiment, read_measurements
from w2s.printed import printed_results
from w2s.results import read_published
from w2s.scorecard import DEFINITION, DIRECTION, NOT_RUN, OPEN, OPPOSITE, REPRODUCED, SILENT
from w2s.statistics import Bootstrap

ROOT = Path(__file__).resolve().parents[2]
CLAIMS, PUBLISHED = ROOT / "published" / "claims-b.yaml", ROOT / "published" / "values-b.csv"
DRAWS = Bootstrap(100, 0)
EXPERIMENTS = {
    f"b_{name}" for name in ("persona", "explanation", "maths", "bias", "table_1", "examples", "theory")
}
SEEDS, ITEMS = 5, 40
WEAK = {"tiny": 0.3, "small": 0.6}
# Content and style of each arm where refinement does what the paper says: content falls to the teacher's level only
# for naive labels, style rises everywhere.
ARMS = {"icl-4": (0.93, 0.80), "infer": (0.94, 0.98), "bootstrapped": (0.80, 0.60), "doubled": (0.70, 0.30)}


@pytest.fixture(scope="module")
def claims():
    return read_claims(CLAIMS)


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return read_published(PUBLISHED)


# -- made-up transfers -------------------------------------------------------------------------------------


def cells(
    experiment: str, arm: str, metric: str, mean: float, *, weak="", refiner="", **more
) -> pd.DataFrame:
    """Measurements of one arm around a mean, items shared between all arms of a data set."""
    setting = {"data": "asked", "student": "big", "shown": np.nan, "judge": ""} | more
    words = repr((experiment, arm, metric, weak, refiner, sorted(setting.items())))
    generator = np.random.default_rng(zlib.crc32(words.encode()))
    shared = np.random.default_rng(7).normal(0, 0.05, (1, ITEMS))
    noise = generator.normal(0, 0.004, (SEEDS, 1)) + generator.normal(0, 0.02, (SEEDS, ITEMS))
    plain = arm in ("untuned", "teacher")
    return pd.DataFrame(
        {
            "experiment": experiment,
            "share": "",
            "arm": arm,
            "feedback": "" if plain else arm.removeprefix("labels:"),
            "recipe": "" if plain else "sft",
            "step": "",
            "beta": np.nan,
            "metric": metric,
            "weak": weak,
            "refiner": refiner,
            "seed": np.repeat(np.arange(1, SEEDS + 1), ITEMS),
            "id": np.tile([f"q{number:03}" for number in range(ITEMS)], SEEDS),
            "value": (mean + shared + noise).ravel(),
            **setting,
        }
    )


def transfer(experiment: str, arms: dict[str, tuple[float, float]] = ARMS, **more) -> pd.DataFrame:
    """Two weak models, one refiner, one student; gold labels and the refiner's own, which have no weak model."""
    frames = []
    for place, metric in enumerate(("content", "style")):
        frames.append(cells(experiment, "untuned", metric, (1.0, 0.1)[place], **more))
        frames.append(cells(experiment, "gold", metric, (0.98, 1.0)[place], **more))
        frames.append(cells(experiment, "own", metric, (0.99, 0.1)[place], refiner="big", **more))
        for weak, content in WEAK.items():
            frames.append(cells(experiment, "teacher", metric, (content, 0.9)[place], weak=weak, student=""))
            frames.append(
                cells(experiment, "naive", metric, (content + 0.03, 0.95)[place], weak=weak, **more)
            )
            for arm, means in arms.items():
                frames.append(cells(experiment, arm, metric, means[place], weak=weak, refiner="big", **more))
    return pd.concat(frames, ignore_index=True)


def examples(slope: float) -> pd.DataFrame:
    """Students of ICL labels with 0 to 16 examples; two choices of examples at 4."""
    names = {"icl-0": 0, "icl-1": 1, "icl-4": 4, "icl-random-4": 4, "icl-16": 16}
    frames = [
        cells(
            "b_examples",
            arm,
            metric,
            0.5 + slope * np.log2(max(shown, 1)),
            weak="tiny",
            refiner="big",
            shown=shown,
        )
        for arm, shown in names.items()
        for metric in ("content", "style")
    ]
    return pd.concat(frames, ignore_index=True)


def theory(rate: float) -> pd.DataFrame:
    """Errors as e^(-rate n) after n examples, and naive fine-tuning's floor."""
    frames = []
    for data in ("biased", "noisy"):
        common = {"weak": data, "data": data, "student": "mixture"}
        frames.append(cells("b_theory", "naive", "excess_risk", 0.6 * (data == "biased"), **common))
        for shown in (1, 2, 4, 8):
            for arm, recipe in (("icl", "sft"), ("timed", "")):
                frame = cells("b_theory", arm, "excess_risk", 0.0, refiner="mixture", shown=shown, **common)
                frames.append(frame.assign(recipe=recipe, value=np.exp(-rate * shown) * (1 + frame["value"])))
    return pd.concat(frames, ignore_index=True)


def judge(tmp_path, claims, published, *frames: pd.DataFrame, world: tuple[str, ...] = (), only: str = ""):
    """Results by part, of all claims or of one."""
    if only:
        claims = replace(claims, claims=tuple(claim for claim in claims.claims if claim.id == only))
    names = [frame["experiment"].iloc[0] for frame in frames]
    manifests = [write_tables(tmp_path, frame, name, "") for name, frame in zip(names, frames, strict=True)]
    results = scorecard.score(claims, read_measurements(manifests), published, DRAWS, world)
    return {part.part.id: part for item in results for part in item.parts}


def part_of(claims, identity: str):
    return next(part for part in claims.parts if part.id == identity)


# -- the file and the released scores ----------------------------------------------------------------------


def test_the_sixteen_claims_and_all_experiments_are_there(claims, published):
    assert [claim.id for claim in claims.claims] == [f"C{number}" for number in range(1, 17)]
    assert {part.experiment for part in claims.parts} == EXPERIMENTS
    assert claims.published_ids <= set(published["id"])
    assert [claim.id for claim in claims.claims if claim.definition] == ["C16"]
    assert all(len(part.margin.reason) > 30 for part in claims.parts if part.margin)
    # Table 1's numbers and the theory's were not found; slopes over teachers stand among the counts.
    without = {part.id.partition(".")[0] for part in claims.parts if not part.published}
    assert without == {"C12", "C14", "C15"}


def test_every_released_value_has_its_cell(published):
    assert set(published["paper"]) == {"B"} and published["id"].is_unique
    sizes = published.groupby("artifact").size().to_dict()
    # 2 unaligned models, 4 weak ones and 2 x 3 students of each, content and style; 7 and 8 of maths, 6 of its labels
    assert sizes == {"b_persona": 3 * 60, "b_explanation": 60, "b_maths": 15 + 6, "b_bias": 12}
    assert published["source"].str.contains("not printed in the paper").all()
    assert published["note"].str.match(r"n \d").all()
    shares = published[published["metric"] == "correct"]["value"]
    assert shares.between(0, 1).all() and published["value"].between(0, 10).all()


def test_no_student_is_filed_under_a_model_that_it_is_not(published):
    """Students of persona and explanation are all of one base, whoever refined their labels (defect of the release)."""
    students = published[published["arm"].isin(["naive", "icl", "infer", "improve"])]
    mine = students[students["artifact"] != "b_maths"]
    assert set(mine["student"]) == {"GPT-3.5-Turbo-0125"}
    assert set(mine.loc[mine["arm"] != "naive", "setting"]) == {
        "refiner=GPT-3.5-Turbo-0125",
        "refiner=GPT-4o-mini-2024-07-18",
    }
    doubled = published.set_index("id").loc["b_gsm8k_gemma_naive_correct"]
    assert doubled["value"] == 0.387 and "0.775" in doubled["note"]


def test_the_released_scores_own_verdicts(claims, published):
    results = {item.check.id: item for item in printed_results(claims, published)}
    said = {name: item.sentence for name, item in results.items()}
    assert said["naive_below_unaligned"] == "24 of 24 lie below zero."
    assert said["icl_above_naive"] == "24 of 24 lie above zero."
    assert said["icl_and_unaligned"] == "2 of 24 lie above zero."
    assert said["infer_content"] == "23 of 24 lie above zero."
    assert said["infer_style"] == "21 of 24 lie more than 0.2 above zero, 1 within 0.2 of zero."
    assert said["maths_icl_above_naive"] == "6 of 6 lie above zero."
    assert said["maths_naive_below_unaligned"] == "6 of 6 lie below zero."
    assert said["maths_gain"] == "6 of 6 lie within 0.06 of zero."
    assert said["bias_content"] == said["bias_style"] == "2 of 2 lie above zero."

    def row(name: str, label: str):
        return next(row for row in results[name].rows if row.label == label)

    def reach(name: str, label: str) -> tuple[float, float]:
        found = dict(row(name, label).results)
        return found["smallest"], found["largest"]

    assert reach("naive_and_teacher", "tinyTruthfulQA") == (-0.15, 0.21)
    assert reach("naive_and_teacher", "tinyAlpacaEval") == (-0.54, 0.16)
    assert reach("naive_and_teacher", "explanation") == (0.11, 1.05)
    assert reach("icl_and_unaligned", "tinyTruthfulQA") == (-1.24, -0.58)
    assert reach("icl_and_unaligned", "explanation")[1] < 0.2
    style = row("icl_style_below_naive", "tinyTruthfulQA")
    assert (style.left, style.right, dict(style.results)["ties"]) == (2, 3, 3)
    assert row("icl_style_below_naive", "tinyAlpacaEval").right >= 6
    assert row("icl_style_below_naive", "explanation").right == 8
    assert (row("infer_style", "all together").left, row("infer_style", "all together").right) == (21, 2)
    assert [row("narrowing", name).right for name in ("tinyTruthfulQA", "tinyAlpacaEval", "explanation")] == [
        2
    ] * 3
    assert row("narrowing", "tinyMMLU").left == 1
    assert max(map(abs, reach("noise", "all together"))) <= 0.35


def test_counts_follow_the_numbers(claims, published):
    """Computed, not written down: another score, another sentence."""
    worse = published.assign(
        value=published["value"].where(published["id"] != "b_truthful_qa_falcon_gpt35_icl_content", 1.0)
    )
    results = {item.check.id: item.sentence for item in printed_results(claims, worse)}
    assert results["icl_above_naive"] == "23 of 24 lie above zero."


def test_margins_are_as_wide_as_their_reasons_say(published):
    value = published.set_index("id")["value"]
    shares: dict[str, list[float]] = {"persona": [], "explanation": []}
    for bench, weak, by in (
        (b, w, r)
        for b in ("truthful_qa", "alpaca_eval", "explanation")
        for w in ("falcon", "gemma", "llama2", "mistral")
        for r in ("gpt35", "gpt4omini")
    ):
        teacher = value[f"b_{bench}_{weak}_teacher_content"]
        gap = value[f"b_{bench}_{by}_untuned_content"] - teacher
        task = "explanation" if bench == "explanation" else "persona"
        shares[task].append(abs(value[f"b_{bench}_{weak}_{by}_naive_content"] - teacher) / gap)
    assert max(shares["persona"]) < 1 / 8 and 1 / 4 < max(shares["explanation"]) < 0.34


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("by: [gpt35, gpt4omini]", "whom: [gpt35]", "no words for 'by'"),
        ("by: [gpt35, gpt4omini]", "by: []", "the key by is missing"),
        ("along: weak", "along: teacher", "unknown along 'teacher'"),
        ("    definition: >-", "    defined: >-", "parts is missing"),
        ("left: {arm: timed}", "left: {arm: timed, shown: all}", "a pick of shown in a trend along it"),
        ("    kind: counts\n    test: below", "    kind: counts\n    test: lower", "unknown test 'lower'"),
        ("  silent: ", "  mute: ", "unknown key 'mute'"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path, old, new, what):
    text = CLAIMS.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "claims.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read_claims(path)
    assert what in " ".join(str(error.value).split())


# -- verdicts ----------------------------------------------------------------------------------------------


def test_a_transfer_as_the_paper_says_is_reproduced(tmp_path, claims, published):
    parts = judge(tmp_path, claims, published, transfer("b_persona"), transfer("b_table_1"))
    persona = ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "C12")
    expected = dict.fromkeys([f"{name}.persona" for name in persona], REPRODUCED)
    expected |= dict.fromkeys(["C5.far", "C7.persona_style", "C14.naive", "C14.bootstrapped"], REPRODUCED)
    expected |= {"C14.doubled": REPRODUCED, "C8.persona": OPPOSITE}
    assert {name: parts[name].verdict for name in expected} == expected
    assert parts["C1.explanation"].verdict == NOT_RUN
    # One comparison for each weak model; labels of no weak model are none of their own.
    labels = [found.comparison.label for found in parts["C3.persona"].findings]
    assert labels == ["from tiny", "from small"]
    assert {found.comparison.refiner for found in parts["C3.persona"].findings} == {"big"}
    assert parts["C3.persona"].findings[0].value == pytest.approx(0.93 - 0.33, abs=0.01)
    near = parts["C2.persona"].findings[0]
    assert near.margin == pytest.approx(0.25 * 0.7, abs=0.01) and near.relative == pytest.approx(
        0.03 / 0.7, abs=0.02
    )
    assert parts["C12.persona"].findings[0].value == pytest.approx(-1, abs=0.05)
    assert parts["C14.doubled"].findings[0].value == pytest.approx(0.80 - 0.30, abs=0.05)


def test_a_transfer_of_the_contrary_is_not_reproduced(tmp_path, claims, published):
    arms = {"icl-4": (0.2, 1.3), "infer": (0.2, 0.3)}
    parts = judge(tmp_path, claims, published, transfer("b_persona", arms))
    wrong = ("C3.persona", "C4.persona", "C6.persona", "C7.persona", "C7.persona_style", "C8.persona")
    assert {parts[name].verdict for name in wrong} == {OPPOSITE}
    # naive itself is as it was
    assert parts["C1.persona"].verdict == parts["C2.persona"].verdict == REPRODUCED


def test_arms_without_a_weak_model_or_refiner_stand_beside_all(tmp_path, claims, published):
    frame = transfer("b_persona")
    read = read_experiment(write_tables(tmp_path, frame, "b_persona", ""))
    base = replace(part_of(claims, "C3.persona"), scale=None)
    for other in ("gold", "own", "untuned", "teacher"):
        made = comparisons(replace(base, right=Side(other)), read, claims)
        assert [item.weak for item in made] == ["tiny", "small"] and not any(item.missing for item in made)
    two = pd.concat(
        [frame, transfer("b_persona", {"icl-4": (0.9, 0.9)}).query("arm == 'icl-4'").assign(refiner="other")]
    )
    read = read_experiment(write_tables(tmp_path / "two", two, "b_persona", ""))
    assert [item.label for item in comparisons(base, read, claims)] == [
        *("from tiny · refined by big", "from small · refined by big"),
        *("from tiny · refined by other", "from small · refined by other"),
    ]
    # A part that no refiner has a hand in makes one comparison, not one for each of them.
    assert len(comparisons(replace(part_of(claims, "C1.persona"), scale=None), read, claims)) == 2


def test_two_bases_are_never_mixed(tmp_path, claims, published):
    both = pd.concat(
        [transfer("b_persona"), transfer("b_persona", student="other").query("arm != 'teacher'")]
    )
    parts = judge(tmp_path, claims, published, both, only="C1")
    assert [(found.comparison.student, found.comparison.weak) for found in parts["C1.persona"].findings] == [
        *(("big", "tiny"), ("big", "small"), ("other", "tiny"), ("other", "small")),
    ]
    # the other student's unaligned model was not measured: said, not taken from elsewhere
    alone = both[(both["student"] != "other") | (both["arm"] != "untuned")]
    part = judge(tmp_path / "b", claims, published, alone, only="C1")["C1.persona"]
    assert [item.missing for item in part.missing] == ["no measurement of untuned"] * 2


def test_training_labels_are_no_students(tmp_path, claims, published):
    frame = transfer("b_persona")
    labels = frame[frame["feedback"] != ""].assign(data="training", student="", recipe="", value=5.0)
    labels["arm"] = "labels:" + labels["arm"]
    with_labels = judge(tmp_path, claims, published, pd.concat([frame, labels]), only="C3")["C3.persona"]
    without = judge(tmp_path / "b", claims, published, frame, only="C3")["C3.persona"]
    assert len(without.findings) == 2
    assert [item.value for item in with_labels.findings] == [item.value for item in without.findings]


def test_an_answer_counts_only_if_all_arms_have_a_score(tmp_path, claims, published):
    frame = transfer("b_persona")
    gone = (
        (frame["arm"] == "icl-4")
        & (frame["weak"] == "tiny")
        & (frame["id"] == "q003")
        & (frame["metric"] == "content")
    )
    part = judge(tmp_path, claims, published, frame[~gone], only="C3")["C3.persona"]
    assert {found.prompts for found in part.findings} == {ITEMS - 1}
    none_left = frame.assign(id=frame["id"].where(frame["arm"] != "gold", "other-" + frame["id"]))
    with pytest.raises(DataError, match="no question has a score in all arms"):
        judge(tmp_path / "b", claims, published, none_left)
    with pytest.raises(JoinError, match="occur twice"):
        judge(tmp_path / "c", claims, published, pd.concat([frame, frame.iloc[[5]]]))


def test_judges_are_never_mixed(tmp_path, claims, published):
    frame = transfer("b_persona").assign(judge="one")
    other = transfer("b_persona", ARMS | {"icl-4": (0.2, 0.8)}).assign(judge="two")
    part = judge(tmp_path, claims, published, pd.concat([frame, other]), only="C3")["C3.persona"]
    assert [(found.comparison.judge, found.holds) for found in part.findings] == [
        *(("one", True), ("one", True), ("two", False), ("two", False)),
    ]


@pytest.mark.parametrize(("slope", "verdict"), [(0.1, REPRODUCED), (-0.1, OPPOSITE)])
def test_trend_over_the_number_of_examples(tmp_path, claims, published, slope, verdict):
    part = judge(tmp_path, claims, published, examples(slope))["C15.models"]
    assert part.verdict == verdict
    assert part.findings[0].value == pytest.approx(slope, abs=0.01)  # no examples: no point of the line


@pytest.mark.parametrize(
    ("rate", "exponential"), [(1.0, (REPRODUCED,)), (0.05, (OPPOSITE,))], ids=["fast", "slow"]
)
def test_theory(tmp_path, claims, published, rate, exponential):
    parts = judge(tmp_path, claims, published, theory(rate))
    assert parts["C15.decay"].verdict == REPRODUCED
    assert parts["C15.exponential"].verdict in exponential
    assert parts["C15.floor"].verdict == (REPRODUCED if rate == 1.0 else OPPOSITE)
    assert [found.comparison.data for found in parts["C15.floor"].findings] == ["biased"]
    assert len(parts["C15.decay"].findings) == 2


def test_what_needs_room_above_is_not_judged_in_a_demo_world(tmp_path, claims, published):
    parts = judge(tmp_path, claims, published, transfer("b_persona"), world=("asked",))
    assert parts["C8.persona"].verdict == SILENT and "nothing can exceed it" in parts["C8.persona"].reason
    assert parts["C3.persona"].verdict == REPRODUCED


def test_released_scores_stand_beside_the_same_comparison(tmp_path, claims, published):
    """Same data set, base, refiner and weak model; any other has none."""
    names = {"tiny": "falcon-7b-instruct", "small": "no-such-model"}
    frame = transfer("b_persona").replace({"weak": names, "refiner": {"big": "gpt-4o-mini-2024-07-18"}})
    frame = frame.assign(
        data="tiny-truthful-qa", student=frame["student"].replace("big", "gpt-3.5-turbo-0125")
    )
    part = judge(tmp_path, claims, published, frame, only="C3")["C3.persona"]
    assert part.findings[0].paper == pytest.approx(7.58 - 2.30)
    assert np.isnan(part.findings[1].paper)
    assert len(part.printed) == 16 and part.printed[0][0].startswith(
        "tinyTruthfulQA · GPT-3.5-Turbo-0125 · Falcon"
    )


# -- the files ---------------------------------------------------------------------------------------------


def run(folder: Path, *manifests: Path) -> dict[str, Path]:
    files = {kind: folder / f"claims_b.{kind}" for kind in ("csv", "json", "html")}
    command: list[object] = ["--tables", *manifests, "--claims", CLAIMS, "--published", PUBLISHED]
    command += ["--template", ROOT / "report" / "scorecard.html", "--bootstrap", "50"]
    command += [word for kind, path in files.items() for word in (f"--{kind}", path)]
    score_claims.main([*map(str, command)])
    return files


def test_the_page_speaks_of_paper_b(tmp_path):
    files = run(tmp_path, write_tables(tmp_path, transfer("b_persona"), "b_persona", ""))
    text = files["html"].read_text(encoding="utf-8")
    assert "paper B: A transfer learning framework" in text and "published/values-b.csv" in text
    for alien in ("paper A", "human arm", "people's labels", "paper printed", "values.csv", str(tmp_path)):
        assert alien not in text, alien
    assert "The authors released" in text and "What the scores that the authors released support" in text
    assert "1 is a definition" in text and "A definition, nothing to test." in text
    document = json.loads(files["json"].read_text(encoding="utf-8"))
    assert document["verdicts"][DEFINITION] == 1 and sum(document["verdicts"].values()) == 16
    table = pd.read_csv(files["csv"])
    assert list(table["claim"].unique()) == [f"C{number}" for number in range(1, 17)]
    mine = table[table["part"] == "C3.persona"]
    assert list(mine["weak"]) == ["tiny", "small"] and set(mine["refiner"]) == {"big"}
    again = run(tmp_path / "again", tmp_path / "b_persona" / "manifest.json")
    assert {kind: path.read_bytes() for kind, path in files.items()} == {
        kind: path.read_bytes() for kind, path in again.items()
    }


def test_one_seed_shows_directions_only(tmp_path, claims, published):
    frame = transfer("b_persona").query("seed == 1")
    verdicts = {
        part.verdict for name, part in judge(tmp_path, claims, published, frame).items() if "persona" in name
    }
    assert verdicts == {DIRECTION, OPEN}
