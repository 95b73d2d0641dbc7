"""What a cell was made from: exactly the measurements that it is a summary of, and the artifacts that they are from."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import lineage
import numpy as np
import pandas as pd
import pytest
from test_summarise import IDS, Results, label_table, make
from w2s import cells, handles
from w2s.artifact import Artifact, load
from w2s.errors import ArtifactError, DataError
from w2s.tables import EXAMPLE_COLUMNS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from synthetic_transfer import make_transfer

RUNS = {"models/k": 1.0, "students/k/human/r/sft": 2.0, "students/k/human/r/dpo": 3.0}
RUNS |= {"students/k/weak/r/dpo": 3.25, "students/m/weak/r/dpo": 4.0}
# A row's names: what `--where` is given.
NAMES = {"data", "share", "student", "recipe", "arm", "baseline", "gold", "feedback", "against", "weak"}
NAMES |= {"refiner", "refinement", "metric", "judge", "ceiling", "left", "right", "encoder", "seed", "id"}
# Columns that are the mean of one part, and those that are the difference of two; all others are neither.
MEANS = {
    "rewards.csv": {"mean", "tokens"},
    "lengths.csv": {"mean", "tokens"},
    "labels.csv": {"agreement"},
    "responses.csv": {"chosen", "rejected"},
    "comparisons.csv": {"score", "position_bias", "malformed"},
    "votes.csv": {"votes", "consistency", "label_share", "malformed"},
    "similarity.csv": {"mean_left", "mean_right"},
    "similarity_points.csv": {"similarity"},
    "examples.csv": {"reward_first", "reward_second"},
}
DIFFERENCES = {
    "differences.csv": {"difference"},
    "lengths.csv": {"difference", "tokens_difference"},
    "responses.csv": {"gap"},
}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of two data sets, two seeds, two judges, five models, two kinds of labels; no two arms have one mean."""
    results = Results(tmp_path_factory.mktemp("grid") / "results")
    generator = np.random.default_rng(0)
    for data in ("w1", "w2"):
        for seed in (1, 2):
            for run, mean in RUNS.items():
                values = generator.normal(mean, 1, len(IDS))
                results.judge(run, "rm", 2 * values, data, seed)
                results.judge(run, "exact", values, data, seed)
            for feedback in ("human", "weak"):
                labels = generator.integers(0, 2, 40)
                certain = np.abs(generator.normal(0, 1, 40)) * (2 * labels - 1)  # of the label that is given
                results.label(feedback, feedback, labels, certain, data, seed)
        results.data(data, generator.integers(0, 2, 40), generator.integers(0, 2, 40))
    results.summarise()
    return results.root / "tables" / "t" / "manifest.json"


class Judged(Results):
    """Everything that an experiment can measure, of one cell and seed; one judge compares answers and votes on labels."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.cell = root / "{}" / "w" / "1-of-2" / "seed-1"
        self.others: dict[str, list[Path]] = {}
        self.generator = np.random.default_rng(1)

    def add(self, option: str, place: str, table: pd.DataFrame, spec: dict, **parents: Path) -> None:
        """An artifact with one table, which `summarise` is given as ``--<option>``."""
        file = {"responses": "rewards", "similarities": "similarity"}.get(option, option)
        about = {"data": "w", "share": "1/2", "seed": 1, **spec}
        manifest = Path(str(self.cell).format(option)) / place / "manifest.json"
        self.others.setdefault(option, []).append(make(manifest, {f"{file}.parquet": table}, about, parents))

    def generate(self, run: str) -> Path:
        """Responses of lengths of their own."""
        tokens = self.generator.integers(5, 50, 40)
        table = pd.DataFrame({"id": IDS, "prompt": "p", "response": "r", "tokens": tokens, "finished": "eos"})
        manifest = Path(str(self.cell).format("generations")) / run / "manifest.json"
        return make(manifest, {"generations.parquet": table}, {})


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every table of `summarise`."""
    results = Judged(tmp_path_factory.mktemp("judged") / "results")
    draw = results.generator
    runs = ("students/k/human/r/dpo", "students/k/mix/r/dpo", "teachers/s/t/dpo")
    human, mixed, _ = [results.generate(run) for run in runs]
    for run in runs:
        results.judge(run, "rm", draw.normal(0, 1, 40), malformed=draw.integers(0, 2, 40))
        likeness = pd.DataFrame({"id": IDS, "similarity": draw.uniform(0, 1, 40)})
        results.add("similarities", run, likeness, {"run": run, "encoder_name": "bert"})
    labels = draw.integers(0, 2, 40)
    results.label("mix", "mismatch", labels, np.abs(draw.normal(0, 1, 40)) * (2 * labels - 1))
    both = {"id": np.repeat(IDS, 2), "order": [0, 1] * 40}
    said = draw.integers(1, 11, (80, 2)).astype(float)
    said[draw.uniform(size=80) < 0.2] = np.nan  # replies that could not be read
    scores = pd.DataFrame({**both, "score_left": said[:, 0], "score_right": said[:, 1]})
    about = {"run": runs[1], "judge": "llm"}
    results.add("comparisons", runs[1], scores, about, left=mixed, right=human)
    preferred = np.where(draw.uniform(size=80) < 0.3, np.nan, draw.integers(0, 2, 80))
    votes = pd.DataFrame({**both, "vote": both["order"], "preferred": preferred})
    results.add("votes", "mix/llm", votes, {"feedback": "mix", "judge": "llm"})
    pairs = {"id": np.repeat(IDS, 2), "response": [0, 1] * 40}
    for gold in ("rm", "other"):
        results.add("responses", gold, pd.DataFrame({**pairs, "reward": draw.normal(0, 1, 80)}), {})
    results.examples.append(results.root / "filtered" / "w" / "manifest.json")
    texts = {name: "x" for name in EXAMPLE_COLUMNS if name != "id"}
    truth = label_table(IDS, draw.integers(0, 2, 40), [np.nan] * 40)
    make(
        results.examples[0],
        {"human.parquet": truth, "examples.parquet": pd.DataFrame({"id": IDS, **texts})},
        {},
    )
    words = [word for name, paths in results.others.items() for word in (f"--{name}", *map(str, paths))]
    results.summarise(*words, "--examples-shown", "2", "--betas", '{"r": 0.1}', main_gold="rm")
    return results.root / "tables" / "t" / "manifest.json"


@pytest.fixture(scope="module")
def transferred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of a transfer (paper B)."""
    return make_transfer(tmp_path_factory.mktemp("transfer"))


def names_of(row: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in row.items() if name in NAMES]


def rows(manifest: Path, table: str) -> list[dict[str, str]]:
    frame = pd.read_csv(manifest.with_name(table), dtype=str, keep_default_na=False)
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def below(part: cells.Part, root: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(root)) for _, path in part.manifests)


# -- which measurements and which artifacts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("rewards.csv", "mean"),
        ("differences.csv", "difference"),
        ("lengths.csv", "mean"),
        ("labels.csv", "agreement"),
    ],
)
def test_the_measurements_of_every_row_have_its_value(
    grid: Path, table: str, column: str, record_property
) -> None:
    found = rows(grid, table)
    for row in found:
        cell = cells.read_cell(grid, table, names_of(row), column)
        means = [part.mean for part in cell.parts]
        expected = means[0] - means[1] if table == "differences.csv" else means[0]
        assert math.isclose(float(cell.value), expected, rel_tol=1e-9), row
        assert not cell.note
    record_property("cases", len(found))
    assert len(found) >= 6


def numbers(row: dict[str, str]) -> list[str]:
    """The columns of a row that are numbers, and no names."""
    return [name for name, value in row.items() if cells._is_number(value) and name not in NAMES]


@pytest.mark.parametrize("table", sorted(MEANS | DIFFERENCES))
def test_every_column_has_its_own_measurements_or_a_word_that_it_is_no_mean(judged: Path, table: str) -> None:
    found = rows(judged, table)
    for row in (found[0], found[-1]):
        for column in numbers(row):
            cell = cells.read_cell(judged, table, names_of(row), column)
            means = [part.mean for part in cell.parts]
            if column in MEANS.get(table, ()):
                told = means[0] if len(means) == 1 else math.nan
            elif column in DIFFERENCES.get(table, ()):
                told = means[0] - means[1] if len(means) == 2 else math.nan
            else:
                assert cell.note, (table, column)
                continue
            assert math.isclose(float(cell.value), told, rel_tol=1e-9, abs_tol=1e-12), (table, column)
            assert not cell.note and all(part.manifests for part in cell.parts)


@pytest.mark.parametrize(
    ("table", "column", "metrics", "inputs"),
    [
        ("rewards.csv", "tokens", ["tokens"], {"gold"}),
        ("lengths.csv", "slope", ["reward", "tokens"] * 2, {"gold"}),
        ("lengths.csv", "reward_per_token", ["reward", "tokens"], {"gold"}),
        ("comparisons.csv", "malformed", ["malformed"], {"comparisons"}),
        ("comparisons.csv", "length_controlled", ["win", "length_difference"], {"comparisons"}),
        ("votes.csv", "malformed", ["malformed"], {"votes"}),
        ("votes.csv", "consistency", ["consistency"], {"votes", "labels"}),
        ("examples.csv", "reward_second", ["rejected_reward"], {"responses", "labels"}),
        ("examples.csv", "votes", ["vote", "votes"], {"votes", "labels"}),
    ],
)
def test_a_column_s_metrics_and_the_inputs_that_they_are_read_from(
    judged: Path, table: str, column: str, metrics: list[str], inputs: set[str]
) -> None:
    row = next(row for row in rows(judged, table) if row.get("arm", "mix") == "mix")
    parts = cells.read_cell(judged, table, names_of(row), column).parts
    assert [part.metric for part in parts] == metrics
    paths = [path for part in parts for _, path in part.manifests]
    assert {path.relative_to(judged.parents[2]).parts[0] for path in paths} == inputs
    if column == "reward_second":
        assert [path.parent.name for path in paths if "responses" in path.parts] == ["rm"], (
            "the first judge's"
        )


@pytest.mark.parametrize("table", ["rewards.csv", "differences.csv", "lengths.csv"])
@pytest.mark.parametrize("column", ["beta", "malformed", "truncated"])
def test_what_no_measurement_tells_falls_back(judged: Path, table: str, column: str) -> None:
    row = next(row for row in rows(judged, table) if row["arm"] == "mix")
    if column in row:
        cell = cells.read_cell(judged, table, names_of(row), column)
        assert not cell.parts and cell.note == "the cell is no summary of measurements"


def test_a_row_of_deciles_is_no_summary_of_all_labels(grid: Path) -> None:
    cell = cells.read_cell(grid, "label_quality.csv", ["data=w1", "feedback=weak", "bin=1"], "agreement_gold")
    assert not cell.parts and cell.note == "the cell is no summary of measurements"


@pytest.mark.prove
@pytest.mark.parametrize(
    ("table", "column"), [("arms.csv", "mean"), ("differences.csv", "difference"), ("labels.csv", "mean")]
)
def test_so_have_those_of_paper_b(transferred: Path, table: str, column: str, record_property) -> None:
    found = rows(transferred, table)
    for row in found:
        cell = cells.read_cell(transferred, table, names_of(row), column)
        means = [part.mean for part in cell.parts]
        expected = means[0] - means[1] if table == "differences.csv" else means[0]
        assert math.isclose(float(cell.value), expected, rel_tol=1e-9, abs_tol=1e-12), row
        assert all(part.manifests for part in cell.parts)
    record_property("cases", len(found))
    assert len(found) >= 10


@pytest.mark.prove
def test_a_recovered_gap_is_of_three(transferred: Path) -> None:
    cases = 0
    for row in rows(transferred, "recovered.csv"):
        cell = cells.read_cell(transferred, "recovered.csv", names_of(row), "recovered")
        arm, teacher, ceiling = (part.mean for part in cell.parts)
        if cell.value:
            assert math.isclose(float(cell.value), (arm - teacher) / (ceiling - teacher), rel_tol=1e-9)
            cases += 1
        gap = cells.read_cell(transferred, "recovered.csv", names_of(row), "gap")
        assert [part.mean for part in gap.parts] == [ceiling, teacher] and not gap.note
    assert cases >= 4


@pytest.mark.prove
@pytest.mark.parametrize("column", ["missing", "left_out"])
def test_what_other_arms_lack_is_not_told_by_an_arm_s_scores(transferred: Path, column: str) -> None:
    where = ["arm=infer", "weak=llama", "metric=style"]
    cell = cells.read_cell(transferred, "arms.csv", where, column)
    assert not cell.parts and cell.note == "the cell is no summary of measurements"


def test_only_the_arm_s_own_rewards_enter(grid: Path) -> None:
    where = ["data=w2", "arm=weak", "student=k", "gold=exact"]
    (part,) = cells.read_cell(grid, "rewards.csv", where, "mean").parts
    root = grid.parents[2]
    assert below(part, root) == [f"gold/w2/1-of-2/seed-{seed}/students/k/weak/r/dpo/exact" for seed in (1, 2)]
    assert (part.count, part.seeds, part.metric) == (80, (1, 2), "reward")


def test_a_difference_has_two_sides(grid: Path) -> None:
    where = ["data=w1", "arm=weak", "student=k", "gold=rm", "baseline=untuned"]
    mine, other = cells.read_cell(grid, "differences.csv", where, "low").parts
    root = grid.parents[2]
    assert below(mine, root)[0] == "gold/w1/1-of-2/seed-1/students/k/weak/r/dpo/rm"
    assert below(other, root) == [f"gold/w1/1-of-2/seed-{seed}/models/k/rm" for seed in (1, 2)]
    assert other.words == "compared with untuned"


def test_labels_come_from_label_files_and_from_the_truth(grid: Path) -> None:
    where = ["data=w1", "feedback=weak", "against=gold"]
    (part,) = cells.read_cell(grid, "labels.csv", where, "agreement").parts
    expected = ["filtered/w1", *(f"labels/w1/1-of-2/seed-{seed}/unlabelled/weak" for seed in (1, 2))]
    assert below(part, grid.parents[2]) == expected


def test_an_answer_s_scores_are_those_of_its_arm(transferred: Path) -> None:
    where = ["arm=infer", "weak=llama", "metric=style"]
    (part,) = cells.read_cell(transferred, "arms.csv", where, "mean").parts
    paths = below(part, transferred.parents[2])
    assert len(paths) == 3
    assert all("tuned/weak-llama/refiner-gpt/infer" in path for path in paths)


@pytest.mark.parametrize(("table", "where"), [("costs.csv", ["stage=made_by_test"])])
def test_what_is_no_summary_falls_back_and_says_so(grid: Path, table: str, where: list[str]) -> None:
    cell = cells.read_cell(grid, table, where, "jobs")
    assert not cell.parts
    assert cell.note == "the cell is no summary of measurements"


def test_an_arm_without_measurements_falls_back(tmp_path: Path) -> None:
    """Human labels that no student has are told beside the exact ones, but are no measurements of the experiment."""
    results = Results(tmp_path / "results")
    results.judge("models/k", "exact", np.ones(40))
    results.label("weak", "weak", [0, 1] * 20, [-1.0, 1.0] * 20)
    results.data("w", [0, 1] * 20, [0] * 40)
    results.summarise()
    tables = results.root / "tables" / "t" / "manifest.json"
    cell = cells.read_cell(tables, "labels.csv", ["feedback=human"], "agreement")
    assert "measured on nothing that has its row's names" in cell.note


# -- choosing the row ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "column", "message"),
    [
        ([], "mean", r"--where data=\.\.\. with one of w1, w2"),
        (["arm=wek"], "mean", "no row has arm=wek(.|\n)*one of weak,"),
        (["arm=weak", "recipe=none"], "mean", "no row with the conditions before it has recipe=none"),
        (["amr=weak"], "mean", "no column 'amr'(.|\n)*one of arm,"),
        (["arm=weak"], "meen", "no column 'meen'(.|\n)*one of mean,"),
        (["arm"], "mean", "'arm' is no condition(.|\n)*column=value"),
    ],
)
def test_a_choice_that_is_none_names_what_is_near(
    grid: Path, where: list[str], column: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        cells.read_cell(grid, "rewards.csv", where, column)


@pytest.mark.parametrize("where", [[], ["arm=weak"]])
def test_a_table_without_rows_says_so(tmp_path: Path, where: list[str]) -> None:
    path = tmp_path / "rewards.csv"
    path.write_text("arm,mean\n")
    with pytest.raises(DataError, match="the table has no rows"):
        cells.select(path, where, "mean")


def test_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("beta,mean\n0.10,1\n0.5,2\n")
    assert cells.select(path, ["beta=1e-1"], "mean")[1] == "1"


# -- the command ---------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    lineage.main([str(word) for word in words])
    return capsys.readouterr().out


def cell_words(grid: Path) -> Sequence[object]:
    conditions = ["data=w1", "arm=weak", "student=k", "gold=exact"]
    return [grid.with_name("rewards.csv"), *(f"--where={text}" for text in conditions), "--column", "mean"]


def test_the_tree_has_what_enters_and_nothing_else(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = run(capsys, *cell_words(grid))
    assert "weak: 80 measurements of reward, seeds 1, 2, mean" in output
    assert output.count("generations/w1/1-of-2/seed-1/students/k/weak/r/dpo") == 1
    assert "human" not in output.partition("by summarise")[2].partition("\nweak, seed 1")[2]
    assert "students/m" not in output
    assert "w2" not in output.partition("\nweak, seed 1")[2]


def test_a_figure_of_two_metrics_names_both_and_tells_each_artifact_once(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--where=arm=mix", "--column=reward_per_token"]
    output = run(capsys, judged.with_name("lengths.csv"), *words)
    assert "mix: 40 measurements of reward, seed 1" in output
    assert "mix: 40 measurements of tokens, seed 1" in output
    assert "neither a mean of theirs nor a difference of two means" in output
    assert output.count("\nmix, seed 1") == 1 and "as above" not in output


def test_json_has_the_cell_and_every_artifact(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, *cell_words(grid), "--json"))
    row = next(
        row
        for row in rows(grid, "rewards.csv")
        if (row["data"], row["arm"], row["student"], row["gold"]) == ("w1", "weak", "k", "exact")
    )
    assert found["cell"]["value"] == row["mean"]
    assert found["cell"]["parts"][0]["measurements"] == 80
    below = dict(found["artifacts"])
    tables = below.pop(handles.shown(grid))
    assert len(below) == 4  # rewards and generations of two seeds
    for path, entry in below.items():
        assert entry["digest"] == load(Path(path)).digest
        assert {parent["manifest"] for parent in entry["parents"]} <= set(below)
    assert tables["digest"] == load(grid).digest and "git" in tables and "container" in tables
    assert {parent["name"] for parent in tables["parents"]} == {"rewards", "labels", "examples"}
    manifests = found["cell"]["parts"][0]["manifests"]
    assert [entry["seed"] for entry in manifests] == [1, 2]
    assert {entry["manifest"] for entry in manifests} <= set(below)


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    """raw -> two middles -> top."""
    raw = tmp_path / "raw" / "manifest.json"
    with Artifact.create(raw, spec={"revision": "r1"}, parents={}, script="fetch.py") as artifact:
        artifact.path("rows.jsonl").write_text("{}")
        artifact.record(origin="somewhere", ledger={"rows.jsonl": {"verified": "by its declared digest"}})
    table = pd.DataFrame({"a": [1]})
    middles = [
        make(tmp_path / name / "manifest.json", {"t.parquet": table}, {"seed": 3}, {"raw": raw})
        for name in ("left", "right")
    ]
    top = make(tmp_path / "top" / "manifest.json", {"t.parquet": table}, {}, {"middles": middles})
    return [raw, *middles, top]


def test_what_is_met_twice_is_told_once(chain: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    raw, left, _, top = chain
    output = run(capsys, top.parent)
    assert output.count(str(raw.parent)) == 1
    assert output.count("raw: [3], as above") == 1
    digest = load(left).digest[:12]
    assert f"middles: [2] made_by_test  {left.parent}  {digest}" in output
    rows_digest = load(raw).manifest["files"]["rows.jsonl"]["sha256"][:12]
    assert f"rows.jsonl {rows_digest} (verified: by its declared digest), origin somewhere" in output
    assert "settings: revision r1" in output
    assert "no container" in output


def test_a_parent_made_again_or_gone_is_told(chain: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    raw, left, right, top = chain
    before = load(left).digest[:12]
    make(left, {"t.parquet": pd.DataFrame({"a": [2]})}, {}, {"raw": raw})
    shutil.rmtree(right.parent)
    output = run(capsys, top)
    assert f"MADE AGAIN since: it was {before} when it was used" in output
    assert f"{right.parent}: the artifact is not there, was " in output


def test_what_is_in_no_artifact_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "figure.csv"
    path.write_text("a\n1\n")
    with pytest.raises(ArtifactError, match="in no artifact(.|\n)*tables/<experiment>"):
        lineage.main([str(path)])


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("manifest.json", ["--column", "mean"], "are of tables"),
        ("rewards.csv", ["--where", "arm=weak"], "no column is given"),
    ],
)
def test_options_of_tables_are_of_tables(grid: Path, name: str, words: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        lineage.main([str(grid.with_name(name)), *words])
