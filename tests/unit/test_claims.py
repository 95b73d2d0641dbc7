"""The file of claims: complete, checked, and refused with file and key where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from w2s.claims import read_claims
from w2s.errors import ConfigError
from w2s.results import read_published

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "published" / "claims-a.yaml"
EXPERIMENTS = {f"a_figure_{name}" for name in ("2a", "2b", "3a", "3b", "4a", "4b", "5", "6", "7")}
EXPERIMENTS |= {f"a_table_{number}" for number in (1, 2, 4, 10, 11, 12, 13)}
EXPERIMENTS |= {"a_text_section_4", "a_seed_study"}

SMALL = """
paper: A
title: T
needs: {people: because}
scales:
  gain: {words: the gain, metric: reward, left: {arm: human}, right: {arm: untuned}, published: {plus: x, minus: y}}
claims:
  - id: C1
    text: t
    place: p
    parts:
      - id: C1.a
        text: t
        experiment: e
        metric: reward
        left: {arm: weak}
        right: {arm: human}
        test: equal
        margin: {value: 0.1, of: gain, reason: r}
"""


@pytest.fixture(scope="module")
def claims():
    return read_claims(PATH)


def small(tmp_path: Path, old: str = "", new: str = "") -> Path:
    assert old in SMALL
    path = tmp_path / "claims.yaml"
    path.write_text(SMALL.replace(old, new, 1), encoding="utf-8")
    return path


def test_every_claim_is_there(claims):
    numbers = [f"C{number}" for number in range(1, 19)]
    assert [claim.id for claim in claims.claims] == ["C1", "C1b", *numbers[1:]]
    assert all(claim.text and claim.place and claim.parts for claim in claims.claims)
    assert all(part.id.startswith(f"{claim.id}.") for claim in claims.claims for part in claim.parts)


def test_every_experiment_of_the_paper_is_used_and_no_other(claims):
    assert {part.experiment for part in claims.parts} == EXPERIMENTS


def test_every_published_id_exists(claims):
    published = set(read_published(ROOT / "published" / "values.csv")["id"])
    assert claims.published_ids and claims.published_ids <= published


def test_every_part_has_a_printed_value_and_every_margin_a_reason(claims):
    assert [part.id for part in claims.parts if not part.published and not part.series] == []
    margins = [part.margin for part in claims.parts if part.margin]
    assert margins and all(len(margin.reason) > 30 for margin in margins)
    # No model's name decides which arm is meant.
    assert {side.policy for part in claims.parts for side in (part.left, part.right, part.third) if side} == {
        *(
            "weak",
            "human",
            "untuned",
            "teacher",
            "prompted",
            "match",
            "mismatch",
            "random",
            "flipped",
            "reward",
        )
    }


def test_the_margin_lies_between_what_the_paper_calls_equal_and_what_it_calls_better(claims):
    values = read_published(ROOT / "published" / "values.csv").set_index("id")["value"]
    gain = values["a_figure_2a_opt_1.3b_human"] - values["a_table_1_opt_1.3b_untuned"]
    margin = next(part.margin for part in claims.parts if part.id == "C2.size")
    assert 0.13 < margin.value * gain < 0.20


def test_roles_ranks_and_picks(claims):
    parts = {part.id: part for part in claims.parts}
    assert parts["C9.others"].left.ranks == (2, None) and parts["C9.pythia"].left.ranks == (3, 3)
    assert parts["C2.size"].left.ranks == (1, None)
    assert parts["C17.weak_best"].left.beta == "smallest 2" and parts["C17.weak_best"].right.beta == "others"
    assert parts["C16.weak"].right.recipe == 2 and parts["C7.close"].share == "smallest"
    assert parts["C8.judges"].exceptions.denominator == 8


def test_a_small_file_is_read(tmp_path):
    found = read_claims(small(tmp_path))
    assert found.parts[0].margin.of == "gain" and found.published_ids == {"x", "y"}


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("test: equal", "test: equal\n        colour: red", "C1.a].colour", "unknown key 'colour'"),
        ("test: equal", "tast: equal", "C1.a].test", "key test is missing"),
        ("experiment: e", "experiment: e\n        judgee: any", "judgee", "instead: judge?"),
        ("test: equal", "test: same", "C1.a].test", "unknown test 'same'"),
        ("arm: weak}", "arm: weak-opt-125m}", "left.arm", "no role"),
        ("arm: weak}", "arm: weak, beta: middle}", "left.beta", "picks nothing"),
        ("of: gain", "of: loss", "margin.of", "one of gain"),
        ("value: 0.1", "value: -1", "margin.value", "margin of -1"),
        ("value: 0.1", "value: yes", "margin.value", "is no number"),
        ("        margin: {value: 0.1, of: gain, reason: r}\n", "", "C1.a].margin", "missing"),
        ("test: equal", "test: above", "C1.a].margin", "unknown key 'margin'"),
        ("place: p", "place: p\n    place: q", "claims.yaml", "stands twice"),
        (
            "metric: reward\n        left",
            "metric: reward\n        exceptions: 3/2\n        left",
            "exceptions",
            "no share",
        ),
        (
            "right: {arm: human}\n        test",
            "needs: [gpt]\n        right: {arm: human}\n        test",
            "needs",
            "some of people",
        ),
        ("  - id: C1\n", "  - text2: x\n    id: C1\n", "claims[C1].text2", "unknown key"),
        ("claims:", "claim:", "claims.yaml: claims", "missing"),
        ("paper: A", "paper: [A", "claims.yaml", "not a readable YAML"),
        ("paper: A", "paper: 3", "claims.yaml: paper", "3 is no str"),
    ],
)
def test_a_malformed_file_is_refused_with_file_and_key(tmp_path, old, new, where, what):
    with pytest.raises(ConfigError) as error:
        read_claims(small(tmp_path, old, new))
    text = " ".join(str(error.value).split())
    assert where in text and what in text and str(tmp_path) in text


def test_double_ids_are_refused(tmp_path):
    path = small(tmp_path)
    path.write_text(path.read_text() + path.read_text().partition("claims:\n")[2], encoding="utf-8")
    with pytest.raises(ConfigError, match="ids of claims occur twice: C1"):
        read_claims(path)
