"""On a real scheduler: what one clone has made another fetches, and what comes out the same submits nothing below it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import PRESETS, PROFILES, Clone, Slurm, make_clone
from w2s import store
from w2s.artifact import load_run, verify

pytestmark = pytest.mark.slow
ARM = {"experiments": {"a_figure_2a": {"feedback": ["human"], "steps": ["sft"], "untuned": False}}}


def of_one_arm(clone: Clone, **runtime: str) -> Clone:
    """The small demo with one student: a chain of seven jobs."""
    (clone.folder / "arm.yaml").write_text(yaml.safe_dump(ARM | {"runtime": runtime}))
    clone.overlays = [*PRESETS, "arm.yaml"]
    return clone


def artifacts(clone: Clone) -> dict[str, Path]:
    """Place -> manifest of every artifact."""
    return {str(path.relative_to(clone.folder)): path for path in clone.folder.glob("re*/**/manifest.json")}


def executed(output: str) -> Counter[str]:
    """Rules that a run executed, alone or in a group, with their numbers of jobs."""
    return Counter(re.findall(r"^ *(?:local)?rule (\w+):$", output, re.MULTILINE)) - Counter(["all"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def first(slurm: Slurm, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone that has run, told of the store by the variable."""
    clone = of_one_arm(make_clone(tmp_path_factory.mktemp("first")))
    clone.environment[store.VARIABLE] = str(shared)
    clone.run(*PROFILES)
    return clone


def test_a_second_clone_fetches_all(slurm: Slurm, shared: Path, first: Clone, clone: Clone) -> None:
    """Told of the store by its configuration: as many jobs, and none computes."""
    theirs = artifacts(first)
    assert not any("fetched" in load_run(path) for path in theirs.values())
    for path in theirs.values():
        key = load_run(path)["key"]
        store.check(store.place(shared, key) / "manifest.json", key)

    of_one_arm(clone, store=str(shared)).run(*PROFILES)
    ours = artifacts(clone)
    assert ours.keys() == theirs.keys() and len(ours) > 10
    for place, path in ours.items():
        run = load_run(path)
        assert run["fetched"]["from"] == str(store.place(shared, run["key"])), place
        assert run["started"] == load_run(theirs[place])["started"], "who made it is kept"
        verify(path)
        assert path.read_bytes() == theirs[place].read_bytes(), place
    logs = "".join(path.read_text() for path in clone.folder.glob("re*/**/*.log"))
    assert logs.count("was fetched from") == len(ours)
    assert "WARNING" not in logs and "Traceback" not in logs
    tables = [path for path in first.folder.glob("results/*/tables/**/*") if path.is_file()]
    assert any(path.suffix == ".csv" for path in tables)
    for path in tables:
        if path.name != "run.json":  # which says that it was fetched
            assert (clone.folder / path.relative_to(first.folder)).read_bytes() == path.read_bytes(), path
    assert [job["JobState"] for job in slurm.jobs(clone.folder)] == ["COMPLETED"] * 7
    assert clone.leftovers() == []


@pytest.mark.parametrize(
    ("edited", "expected"),
    [
        (["train_student_sft"], [{"train_student_sft"}]),
        # Groups: the data's jobs run as one, and the table's as one although it is the figure alone that has to be drawn.
        (
            ["filter_examples", "plot_bars"],
            [
                {"filter_examples", "split_examples", "plot_drops"},
                {"summarise", "score_claims", "plot_bars"},
            ],
        ),
    ],
    ids=["one stage", "groups"],
)
def test_what_comes_out_the_same_submits_nothing_below(
    slurm: Slurm, first: Clone, edited: list[str], expected: list[set[str]]
) -> None:
    """Stages are rewritten to the same effect: they run, and nothing is submitted for what follows from them."""
    for stage in edited:
        with (first.folder / "scripts" / f"{stage}.py").open("a") as source:
            source.write("\nADDED_BY_A_TEST = 1\n")
    before, manifests = len(slurm.jobs(first.folder)), first.manifests()
    output = first.run(*PROFILES)
    assert executed(output) == Counter(set().union(*expected))
    assert len(slurm.jobs(first.folder)) - before == output.count("SLURM jobid") == len(expected)
    assert first.manifests() == manifests
    assert "Nothing to be done" in first.run(*PROFILES)
    assert first.leftovers() == []
