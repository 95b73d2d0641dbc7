"""What differs, in words: settings, names of targets, and the explanation as it is printed."""

from __future__ import annotations

import asyncio
import subprocess
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import explain
import pytest
from w2s import explanation
from w2s.explanation import Explanation, Root, differences, settings, text
from w2s.handles import ROOT
from w2s.words import flags


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"beta": 0.1, "loss-type": "sigmoid"},
        {"stop": ["\n\nHuman:", "it's"], "soft": True},
        {"world": {"pairs": 3, "inner": {"t": 2.0}}},
        {"shift": -3, "name": "a b"},
    ],
)
def test_settings_are_read_as_they_are_written(spec: dict[str, Any]) -> None:
    def as_words(value: Any) -> Any:
        if value is True or isinstance(value, dict):
            return value
        return [str(item) for item in value] if isinstance(value, list) else str(value)

    assert settings(flags(spec)) == {name: as_words(value) for name, value in spec.items()}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ("--beta 0.1 --seed 3", "--seed 3 --beta 0.1", []),
        ("--beta 0.1", "--beta 0.5", [("beta", "0.1", "0.5")]),
        ("--lr 0.1 --beta 5", "--lr 5 --beta 0.1", [("lr", "0.1", "5"), ("beta", "5", "0.1")]),
        ("--beta 0.1", "--beta 0.1 --soft", [("soft", "not given", "true")]),
        ("--beta 0.1 --top-p 1.0", "--beta 0.1", [("top-p", "1.0", "not given")]),
        ('--world \'{"t": 2.0, "n": 3}\'', '--world \'{"n": 3, "t": 4.0}\'', [("world.t", "2.0", "4.0")]),
        ("--stop a b", "--stop a", [("stop", '["a", "b"]', "a")]),
    ],
)
def test_differing_settings_are_named_with_both_values(
    before: str, now: str, expected: list[tuple[str, str, str]]
) -> None:
    assert list(differences(settings(before), settings(now))) == expected


def test_long_values_are_cut_to_where_they_differ() -> None:
    same = "x" * 200
    ((_, before, now),) = differences(same + "old" + same, same + "new" + same, "text")
    assert "old" in before
    assert "new" in now
    assert max(len(before), len(now)) <= explanation.LONGEST + 2


class Job(SimpleNamespace):
    """What is asked of a job."""

    __hash__ = object.__hash__


class Inputs(list):
    """A job's inputs, none of which has a name."""

    def items(self) -> tuple:
        """Names and paths."""
        return ()


def job(rule: str, output: str) -> Any:
    return Job(rule=SimpleNamespace(name=rule), output=[output], input=Inputs())


def test_a_cause_is_told_once_with_its_jobs_and_what_follows() -> None:
    root = Root("setting beta: 0.1 -> 0.5")
    root.direct = [job("label_examples", f"labels/{number}") for number in range(5)]
    root.following = [job("train_student_sft", "s"), job("train_student_dpo", "d")]
    root.details.update(["", ""])
    lines = list(text(Explanation([("figure.pdf", "would be made again")], 7, [root])))
    assert lines == [
        "figure.pdf: would be made again",
        "",
        "7 jobs would run, for 1 cause",
        "",
        "1. setting beta: 0.1 -> 0.5",
        "   concerns label_examples 5",
        "     labels/0",
        "     labels/1",
        "     labels/2",
        "     and 2 more",
        "   then    train_student_sft 1, train_student_dpo 1",
    ]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A source in a checkout, and the commit that has it."""
    source = tmp_path / "scripts" / "w2s" / "dpo.py"
    source.parent.mkdir(parents=True)
    source.write_text("BETA = 1\n")
    monkeypatch.setattr(explanation, "SCRIPTS", tmp_path / "scripts")
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    head = ["git", "-C", str(tmp_path), "rev-parse", "HEAD"]
    commit = subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()
    explanation._differs.cache_clear()
    return source, commit


def test_the_command_that_shows_the_change_is_told(repository: tuple[Path, str]) -> None:
    source, commit = repository
    source.write_text("BETA = 2\n")
    told = explanation._commit({"commit": commit, "dirty": False}, "w2s/dpo.py")
    assert told == f"made at commit {commit[:7]}; git diff {commit[:7]} -- scripts/w2s/dpo.py"
    changed = explanation._commit({"commit": commit, "dirty": True}, "w2s/dpo.py")
    assert changed == f"made at commit {commit[:7]} with local changes"
    assert explanation._commit(None, "w2s/dpo.py") == ""


def test_a_commit_that_is_not_here_or_shows_nothing_has_no_command(repository: tuple[Path, str]) -> None:
    _, commit = repository
    assert "git diff" not in explanation._commit({"commit": commit, "dirty": False}, "w2s/dpo.py")
    assert "git diff" not in explanation._commit({"commit": "0" * 40, "dirty": False}, "w2s/dpo.py")


async def interrupted(found: dict[str, bool]) -> bool:
    return found.get("interrupted", False)


def planned(**found: Any) -> explanation.Causes:
    """A job whose output is there, in a plan that says of it what is given."""
    record = SimpleNamespace(input=None, input_checksums={}, container_img_url="w2s-ml@sha256:aa")
    reason = SimpleNamespace(forced=found.get("forced", False), updated_input=set())
    reordered = SimpleNamespace(only_old=["'--seed 1 --beta 2'"], only_new=["'--beta 2 --seed 1'"])
    persistence = SimpleNamespace(
        metadata=lambda output: record,
        params_changed=lambda job: reordered if found.get("reordered") else None,
        software_stack_changed=lambda job: [found.get("software", False)],
        incomplete=lambda job: interrupted(found),
    )
    dag = SimpleNamespace(reason=lambda job: reason, dependencies={}, needrun=lambda job: False)
    one = job("generate", __file__)
    one.container_img_url = "w2s-ml@sha256:bb"
    dag.dependencies = defaultdict(dict)
    plan = SimpleNamespace(persistence=persistence, dag=dag, async_run=asyncio.run)
    return explanation.Causes(plan, one)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        ({"software": True}, "container changed: w2s-ml@sha256:aa -> w2s-ml@sha256:bb"),
        ({"forced": True, "interrupted": True}, "the job that made it was interrupted, or runs just now"),
        ({"forced": True}, "asked for whatever its state (--force, --forcerun, --forceall)"),
        ({"reordered": True}, "its settings are written otherwise, with the same values"),
    ],
)
def test_another_container_and_an_interruption_are_causes(found: dict[str, bool], cause: str) -> None:
    assert [one.what for one in planned(**found).all()] == [cause]
    assert not list(planned().all())


def test_nothing_to_do_is_said() -> None:
    assert list(text(Explanation([], 0, []))) == ["up to date: nothing would run"]


def test_targets_are_named_as_snakemake_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(explain, "ROOT", tmp_path)
    monkeypatch.setattr("w2s.handles.ROOT", tmp_path)
    artifact = tmp_path / "results" / "labels"
    artifact.mkdir(parents=True)
    for name in ("manifest.json", "labels.parquet"):
        (artifact / name).write_text("{}")
    (tmp_path / "results" / "figure.pdf").write_text("")
    manifest = "results/labels/manifest.json"
    assert explain.target("results/labels") == manifest
    assert explain.target(str(artifact / "labels.parquet")) == manifest
    assert explain.target("results/figure.pdf") == "results/figure.pdf"
    assert explain.target("results/not/there") == "results/not/there/manifest.json"
    assert explain.target("results/not/there.csv") == "results/not/there.csv"
    assert explain.target("results/models/opt-1.3b") == "results/models/opt-1.3b/manifest.json"
    (artifact / "manifest.json").rename(tmp_path / "elsewhere.json")
    assert explain.target("results/labels") == manifest
    (tmp_path / "elsewhere.json").rename(artifact / "manifest.json")
    assert explain.target("all") == "all"
    monkeypatch.chdir(artifact)
    assert explain.target("labels.parquet") == manifest
    assert explain.target("../figure.pdf") == "results/figure.pdf"
    assert explain.target("results/figure.pdf") == "results/figure.pdf"


def test_further_options_go_to_snakemake() -> None:
    args = explain.arguments(["all", "--configfile", "a.yaml", "b.yaml", "--", "--profile", "slurm"])
    assert (args.targets, args.configfile) == (["all"], ["a.yaml", "b.yaml"])
    assert args.snakemake == ["--profile", "slurm"]


def test_the_commands_are_listed_and_run(tmp_path: Path) -> None:
    def w2s(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([ROOT / "w2s", *words], capture_output=True, text=True, cwd=tmp_path)

    listed = w2s().stdout
    assert {line.split()[0] for line in listed.splitlines()[1:]} >= {"explain", "lineage", "verify"}
    unknown = w2s("explian")
    assert unknown.returncode == 2
    assert "there is no command 'explian'" in unknown.stderr
    (tmp_path / "own.txt").write_text("")
    outcome = w2s("verify", "own.txt")
    assert outcome.returncode == 0
    assert "no record covers 1 file" in outcome.stdout
