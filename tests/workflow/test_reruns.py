"""What an edit reruns: exactly what it changes, and nothing for what changes nothing. Contract 4 of the architecture.

A table of edits in a finished run; after each, a dry run tells the rules that would run, and the edit is taken back.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from raw_data import hh_rows, write_jsonl

if TYPE_CHECKING:
    from conftest import FinishedRun, Workflow

# One worker of pytest-xdist for all tests on the finished run, which is made once.

TOLD = {"write_model_cards", "export_crate"}
TABLES = {"summarise", "plot_bars", "score_claims", "report"} | TOLD
JUDGED = {"generate", "score_gold"} | TABLES
STUDENTS = {"train_student_sft", "train_student_dpo", "score_responses"} | JUDGED
LABELS = {"label_examples"} | STUDENTS
TEACHERS = {"train_teacher_sft", "train_teacher_dpo"} | LABELS
SPLIT = {"split_examples"} | TEACHERS
FILTERED = {"filter_examples", "plot_drops"} | SPLIT
IMPORTED = {"import_examples"} | FILTERED
EVERYTHING = {"fetch", "import_tokenizer", "import_model"} | IMPORTED


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    """An edit of one file."""

    def edit(folder: Path) -> None:
        path = folder / name
        text = path.read_text()
        assert text.count(old) >= 1, f"{old!r} is not in {name}"
        path.write_text(text.replace(old, new, 1))

    return edit


def rename(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Another name for a variable that a file uses for nothing else."""

    def edit(folder: Path) -> None:
        path = folder / name
        text = path.read_text()
        changed = re.sub(rf"\b{old}\b", new, text)
        assert changed != text, f"no {old!r} in {name}"
        path.write_text(changed)

    return edit


def append(name: str, text: str) -> Callable[[Path], None]:
    """An edit at the end of a file: a statement where a helper's meaning is to change."""

    def edit(folder: Path) -> None:
        with (folder / name).open("a") as stream:
            stream.write(text)

    return edit


def meaning(name: str) -> Callable[[Path], None]:
    """Change what a source means, whatever is in it."""
    return append(f"scripts/{name}.py", "\nADDED_BY_A_TEST = 1\n")


def setting(text: str) -> Callable[[Path], None]:
    """Change the configuration: what ``text`` says is laid over the overlay of the run."""

    def edit(folder: Path) -> None:
        path = folder / "overlay.yaml"
        path.write_text(yaml.safe_dump(laid_over(yaml.safe_load(path.read_text()), yaml.safe_load(text))))

    return edit


def laid_over(below: Any, above: Any) -> Any:
    """Two settings merged, mapping by mapping."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: laid_over(below.get(key), value) for key, value in above.items()}


def touch_everything(folder: Path) -> None:
    """What a fresh checkout does: every source is as new as now."""
    for path in sources(folder):
        os.utime(path)


def reformat_everything(folder: Path) -> None:
    """Every script as the syntax tree prints it: other breaks, quotes and brackets, no comment left."""
    for path in sources(folder):
        if path.suffix == ".py":
            path.write_text(ast.unparse(ast.parse(path.read_text())))


def comment_everything(folder: Path) -> None:
    """A comment in every script, every rule file and every configuration file."""
    for path in sources(folder):
        is_source = path.suffix in (".py", ".smk", ".yaml") and path.parent.name != "published"
        if is_source or path.name == "Snakefile":
            path.write_text(path.read_text() + "\n# a comment\n")


def sources(folder: Path) -> list[Path]:
    """The files of the repository."""
    parts = (
        "Snakefile",
        "config.yaml",
        "overlay.yaml",
        "rules",
        "scripts",
        "presets",
        "published",
        "report",
        "containers",
    )
    found = []
    for part in parts:
        path = folder / part
        found += [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return [path for path in found if "__pycache__" not in path.parts]


EDITS: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    # nothing changes
    "touch every source": (touch_everything, set()),
    "reformat every script": (reformat_everything, set()),
    "comment every source": (comment_everything, set()),
    "a docstring": (replace("scripts/w2s/tables.py", '"""', '"""Other words. '), set()),
    "execution settings": (
        setting(
            "runtime: {needs_gpu: false, threads: 2, micro_batch_size: 4, batch_tokens: 99, generation_batch: 3}"
        ),
        set(),
    ),
    "an entry that nothing uses": (setting("feedback: {human-other: {policy: human}}"), set()),
    "another name for a local variable": (rename("scripts/filter_examples.py", "chunk", "part"), set()),
    "what a model asks of the scheduler": (
        setting("models: {opt-13b: {resources: {train: {mem_mb: 123456}, generate: {runtime: 77}}}}"),
        set(),
    ),
    "a recipe that nothing uses": (
        setting(
            "recipes: {again: {sft_of: paper-hh, dpo: {learning_rate: 1.0e-5, batch_size: 16, beta: 1}}}"
        ),
        set(),
    ),
    "a number written otherwise": (
        replace("config.yaml", "learning_rate: 5.0e-5", "learning_rate: 0.00005"),
        set(),
    ),
    "a module that only training scripts with reward models import": (meaning("pretrain_model"), set()),
    # sources
    "statistics": (meaning("w2s/statistics"), TABLES),
    "plotting": (meaning("w2s/plotting"), {"plot_bars", "plot_drops", "report", "export_crate"}),
    "a figure's colour": (
        replace("scripts/w2s/plotting.py", 'UNTUNED_COLOUR = "#8c8c8c"', 'UNTUNED_COLOUR = "#7c7c7c"'),
        {"plot_bars", "plot_drops", "report", "export_crate"},
    ),
    "the report": (meaning("report"), {"report", "export_crate"}),
    "the page's template": (append("report/template.html", "<!-- changed -->\n"), {"report", "export_crate"}),
    "published values": (
        append("published/values.csv", "\n"),
        {"plot_bars", "score_claims", "report", "export_crate"},
    ),
    "a claim's wording": (
        replace("published/claims-a.yaml", "at least the gold reward", "no less reward"),
        {"score_claims", "export_crate"},
    ),
    "the scorecard's page": (
        append("report/scorecard.html", "<!-- changed -->\n"),
        {"score_claims", "export_crate"},
    ),
    "a model card's template": (append("report/model_card.md", "- More.\n"), TOLD),
    "the crate": (meaning("w2s/crate"), {"export_crate"}),
    "gold scoring": (meaning("w2s/rewards"), {"score_gold"} | TABLES),
    "generation": (meaning("w2s/generation"), JUDGED),
    "feedback": (meaning("w2s/feedback"), LABELS | {"train_teacher_sft", "train_teacher_dpo"}),
    "DPO": (meaning("w2s/dpo"), {"train_teacher_dpo"} | LABELS),
    "a single script": (meaning("train_student_sft"), STUDENTS),
    "the adapters": (meaning("w2s/adapters"), IMPORTED),
    "the errors, which all import": (meaning("w2s/errors"), EVERYTHING),
    # settings
    "bootstrap draws": (setting("evaluations: {paper-hh: {bootstrap: 999}}"), TABLES),
    "temperature": (setting("evaluations: {paper-hh: {temperature: 0.8}}"), JUDGED),
    "beta of the feedback": (setting("feedback: {weak-opt-125m: {beta: 0.5}}"), LABELS),
    "learning rate and beta of the teacher's DPO exchanged": (
        setting("recipes: {paper-hh-teacher: {dpo: {learning_rate: 0.1, beta: 5.0e-5}}}"),
        {"train_teacher_dpo"} | LABELS,
    ),
    "learning rate and beta of the students' DPO exchanged": (
        setting("recipes: {paper-hh: {dpo: {learning_rate: 0.1, beta: 5.0e-5}}}"),
        {"train_student_dpo"} | JUDGED,
    ),
    "DPO settings written out that are the defaults": (
        setting("recipes: {paper-hh: {dpo: {label_smoothing: 0, soft_labels: false, loss_type: sigmoid}}}"),
        set(),
    ),
    "soft labels for one student": (
        setting("recipes: {paper-hh: {per_model: {opt-13b: {dpo: {soft_labels: true}}}}}"),
        {"train_student_dpo"} | JUDGED,
    ),
    "longest sequence": (setting("data: {hh-helpful: {max_tokens: 500}}"), FILTERED),
    "seed of the new test split": (setting("data: {hh-helpful: {resplit: {seed: 23}}}"), IMPORTED),
    "one student's learning rate": (
        setting("recipes: {paper-hh: {per_model: {opt-13b: {sft: {learning_rate: 5e-6}}}}}"),
        STUDENTS,
    ),
    "another revision of the data": (
        setting(f"sources: {{hh-rlhf: {{revision: '{'1' * 40}'}}}}"),
        {"fetch"} | IMPORTED,
    ),
    "a student more": (
        setting("experiments: {a_figure_2a: {students: [opt-1.3b, opt-2.7b, opt-6.7b, opt-13b, opt-125m]}}"),
        STUDENTS,
    ),
    "a student less": (
        setting("experiments: {a_figure_2a: {students: [opt-1.3b, opt-2.7b, opt-6.7b]}}"),
        TABLES,
    ),
    "another seed": (setting("experiments: {a_figure_2a: {seeds: [23]}}"), SPLIT),
}


@contextmanager
def edited(workflow: Workflow, edit: Callable[[Path], None]) -> Iterator[None]:
    """The workflow after an edit; all sources are put back afterwards, with new dates."""
    kept = {path: path.read_bytes() for path in sources(workflow.folder)}
    try:
        edit(workflow.folder)
        yield
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_reruns_exactly_what_it_changes(finished: FinishedRun, name: str) -> None:
    edit, expected = EDITS[name]
    with edited(finished.workflow, edit):
        assert set(finished.workflow.planned()) == expected


def test_relabelling_reruns_the_weak_arms_only(finished: FinishedRun) -> None:
    """Another beta of the implicit reward: one label file, its four students; no teacher, no human arm."""
    with edited(finished.workflow, setting("feedback: {weak-opt-125m: {beta: 0.5}}")):
        planned = finished.workflow.planned()
    assert planned["label_examples"] == 1
    assert planned["train_student_sft"] == planned["train_student_dpo"] == planned["score_responses"] == 4
    assert planned["generate"] == planned["score_gold"] == 8


def test_one_student_s_setting_reruns_that_student_only(finished: FinishedRun) -> None:
    with edited(finished.workflow, EDITS["one student's learning rate"][0]):
        planned = finished.workflow.planned()
    assert planned["train_student_sft"] == planned["train_student_dpo"] == planned["score_responses"] == 2
    assert planned["generate"] == planned["score_gold"] == 4


def test_another_seed_shares_what_does_not_depend_on_it(finished: FinishedRun) -> None:
    with edited(finished.workflow, setting("experiments: {a_figure_2a: {seeds: [22, 23]}}")):
        planned = finished.workflow.planned()
    assert set(planned) == SPLIT
    assert planned["split_examples"] == planned["train_teacher_sft"] == 1
    assert planned["generate"] == 20


@pytest.fixture
def copied(finished: FinishedRun, tmp_path: Path) -> Workflow:
    """The finished run copied elsewhere, every date new."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(finished.workflow.folder, folder, copy_function=shutil.copyfile)
    return dataclasses.replace(finished.workflow, folder=folder)


def test_a_copy_elsewhere_has_nothing_to_do(copied: Workflow) -> None:
    assert copied.planned() == {}


@pytest.mark.prove
def test_a_removed_experiment_reruns_what_tells_of_all(copied: Workflow) -> None:
    """An experiment more makes what is its own; without it again, only what tells of the whole run is made anew.

    The scorecard does not: no claim is about that experiment.
    """
    overlay = copied.folder / "overlay.yaml"
    before = overlay.read_text()
    setting(MORE)(copied.folder)
    assert set(executed(copied.run())) == TABLES - {"score_claims"}
    kept = (copied.folder / "results/paper-a/figures/more.png").read_bytes()
    overlay.write_text(before)
    assert set(copied.planned()) == {"report"} | TOLD
    copied.run()
    assert copied.planned() == {}
    assert (copied.folder / "results/paper-a/figures/more.png").read_bytes() == kept, "nothing is deleted"


MORE = """
run: [a_figure_2a, more]
experiments:
  more:
    data: [hh-helpful]
    shares: [1/2]
    seeds: [22]
    students: [opt-1.3b, opt-2.7b]
    feedback: [human, weak-opt-125m]
    recipes: [paper-hh]
    evaluation: paper-hh
    figure: bars
"""


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def test_another_branch_and_back_has_nothing_to_do(copied: Workflow) -> None:
    """Switching writes the files anew that differ, with new dates."""
    folder = copied.folder
    git(folder, "init", "-q", "-b", "main")
    (folder / ".git/info/exclude").write_text("results\nresources\n.snakemake\n__pycache__\n")
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "-m", "as it was")
    git(folder, "switch", "-q", "-c", "other")
    meaning("w2s/statistics")(folder)
    git(folder, "commit", "-q", "-a", "-m", "other")
    assert set(copied.planned()) == TABLES
    git(folder, "switch", "-q", "main")
    assert copied.planned() == {}


def test_a_cluster_s_memory_and_partitions_rerun_nothing(finished: FinishedRun) -> None:
    """What is asked of the scheduler is no setting of the result, whichever profile says it."""
    words = ("--profile", "slurm", "--profile", "mysite", "--software-deployment-method", "env-modules")
    site = finished.workflow.folder / "mysite"
    for partition, memory in (("one", 8000), ("two", 64000)):
        site.mkdir(exist_ok=True)
        (site / "profile.yaml").write_text(
            f"default-resources: {{slurm_partition: \"'{partition}'\", mem_mb: {memory}}}\n"
            f"set-resources: {{summarise: {{mem_mb: {memory}}}}}\n"
        )
        try:
            assert finished.workflow.planned(*words) == {}
        finally:
            shutil.rmtree(site)


def test_results_without_the_engine_s_records_are_kept(finished: FinishedRun, tmp_path: Path) -> None:
    """Only dates are left to judge by: a copy that keeps them (``cp -a``, rsync, tar) reruns nothing."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(finished.workflow.folder, folder, ignore=shutil.ignore_patterns(".snakemake"))
    for path in sources(folder):
        os.utime(path, (1, 1))
    assert dataclasses.replace(finished.workflow, folder=folder).planned() == {}


def executed(output: str) -> Counter[str]:
    """Rules that a run executed, with their numbers of jobs."""
    return Counter(re.findall(r"^(?:local)?rule (\w+):$", output, re.MULTILINE)) - Counter(["all"])


def test_a_stage_that_makes_the_same_again_reruns_nothing_below_it(copied: Workflow) -> None:
    """Early cutoff: the filter is rewritten to the same effect and run again; no training follows, in that very run."""
    meaning("filter_examples")(copied.folder)
    manifest = copied.folder / "results/paper-a/filtered/hh-helpful/manifest.json"
    before = manifest.read_bytes()
    assert set(copied.planned()) == FILTERED
    assert executed(copied.run()) == {"filter_examples": 1}
    assert manifest.read_bytes() == before
    assert copied.planned() == {}


@pytest.mark.prove
def test_cutoff_goes_branch_by_branch(copied: Workflow) -> None:
    """The students' SFT is rewritten to the same effect, one student's rate is changed: its arms run on, no other's."""
    meaning("train_student_sft")(copied.folder)
    EDITS["one student's learning rate"][0](copied.folder)
    ran = executed(copied.run())
    assert ran["train_student_sft"] == 8
    assert ran["train_student_dpo"] == ran["score_responses"] == 2
    assert ran["generate"] == ran["score_gold"] == 4
    assert set(ran) == STUDENTS
    assert copied.planned() == {}


def test_no_cutoff_hides_a_change_of_a_job_s_own(copied: Workflow) -> None:
    """Above, everything stays the same; below, a setting differs: it is run, although what it reads is as it was."""
    meaning("filter_examples")(copied.folder)
    setting("evaluations: {paper-hh: {bootstrap: 999}}")(copied.folder)
    ran = executed(copied.run())
    assert set(ran) == {"filter_examples"} | TABLES
    assert copied.planned() == {}


def test_what_is_forced_or_missing_runs_in_spite_of_cutoff(copied: Workflow) -> None:
    meaning("filter_examples")(copied.folder)
    figure = copied.folder / "results/paper-a/figures/a_figure_2a.png"
    drawn = figure.read_bytes()
    figure.unlink()
    assert executed(copied.run("--forcerun", "split_examples")) == {
        "filter_examples": 1,
        "split_examples": 1,
        "plot_bars": 1,
    }
    assert figure.read_bytes() == drawn


def test_a_plan_shows_all_that_may_run(copied: Workflow) -> None:
    """A dry run makes nothing, so that it cannot know what will come out the same."""
    meaning("filter_examples")(copied.folder)
    assert set(copied.planned()) == FILTERED


def test_an_artifact_that_was_cleaned_away_is_made_again_only_when_needed(copied: Workflow) -> None:
    """Space can be freed: what was made of a lost artifact stays, and making it again gives the same manifest."""
    manifest = (
        copied.folder
        / "results/paper-a/labels/hh-helpful/1-of-2/seed-22/unlabelled/weak-opt-125m/manifest.json"
    )
    before = manifest.read_bytes()
    shutil.rmtree(manifest.parent)
    assert copied.planned() == {}
    copied.run(str(manifest.relative_to(copied.folder)))
    assert manifest.read_bytes() == before
    assert copied.planned() == {}


LIGHT = {
    *("import_examples", "filter_examples", "split_examples", "label_examples", "plot_drops"),
    *({"fetch"} | TABLES),
}
SHIM = """#!/bin/bash
# Stands in for Apptainer: the command runs outside of any container.
if [ "$1" = --version ]; then echo "apptainer version 1.4.0"; exit; fi
while [ $# -gt 0 ] && [[ "$1" != *.sif ]]; do shift; done
export APPTAINER_CONTAINER=$1; shift
exec "$@"
"""


@pytest.fixture
def contained(copied: Workflow, monkeypatch: pytest.MonkeyPatch) -> Workflow:
    """The finished run, made again in (pretended) images."""
    programs = copied.folder / "programs"
    programs.mkdir()
    (programs / "apptainer").write_text(SHIM)
    (programs / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    for kind in ("ml", "light"):
        build(copied.folder, kind, "first")
    copied.run("--software-deployment-method", "apptainer")
    return copied


def build(folder: Path, kind: str, content: str) -> None:
    """Pretend to build an image, and name it."""
    digest = hashlib.sha256(content.encode()).hexdigest()
    path = folder / "containers" / "built" / f"{kind}-{digest}.sif"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    names = folder / "containers" / "images.yaml"
    names.write_text(re.sub(rf"(?m)^{kind}: .*$", f"{kind}: sha256:{digest}", names.read_text()))


@pytest.mark.prove
def test_a_new_package_reruns_its_image_s_stages_and_no_other_image_s(contained: Workflow) -> None:
    """Drawn with another library, the data and labels come out the same: no training follows. And the other way round."""
    words = ("--software-deployment-method", "apptainer")
    assert executed(contained.run(*words)) == {}
    build(contained.folder, "light", "second")
    assert set(executed(contained.run(*words))) == LIGHT
    build(contained.folder, "ml", "second")
    assert set(executed(contained.run(*words))) == EVERYTHING - LIGHT
    assert executed(contained.run(*words)) == {}


@pytest.fixture
def own_data(make_workflow: Callable[..., Workflow], tmp_path: Path) -> Workflow:
    """A data set of one's own, imported."""
    write_jsonl(tmp_path / "rows.jsonl", hh_rows(40))
    workflow = make_workflow(
        preset="paper-a",
        overlay=f"""
run: [a_figure_2a]
runtime: {{needs_gpu: false}}
sources:
  gold-mistral-7b: {{revision: "{"0" * 40}"}}
  own: {{kind: local, origin: {tmp_path}, files: {{rows.jsonl: null}}, licence: own, terms: none}}
data:
  own:
    adapter: hh
    files: [{{source: own, path: rows.jsonl, subset: own, split: train}}]
    resplit: {{test_share: 0.2, seed: 1}}
    tokenizer: opt
    max_tokens: 512
""",
    )
    workflow.run(OWN)
    return workflow


OWN = "results/paper-a/examples/own/manifest.json"


def test_data_are_compared_by_content(own_data: Workflow, tmp_path: Path) -> None:
    """A file written again with the same content reruns nothing; another row reruns what reads it."""
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(rows.read_bytes())
    assert own_data.planned("--cores", "1", OWN) == {}
    write_jsonl(rows, hh_rows(41))
    assert own_data.planned("--cores", "1", OWN) == {"fetch": 1, "import_examples": 1}
    own_data.run(OWN)
    write_jsonl(rows, hh_rows(40))
    assert own_data.planned("--cores", "1", OWN) == {"fetch": 1, "import_examples": 1}


def test_a_wording_has_a_version_and_another_one_reruns_what_is_asked(
    make_workflow: Callable[..., Workflow],
) -> None:
    """The templates of prompts are settings: a new version writes the prompts anew that use it, and no others."""
    workflow = make_workflow(preset="demo-paper-b")
    written = [
        f"results/demo-paper-b/prompts/concept-bias/concept-fair-test/{kind}/manifest.json"
        for kind in ("plain",)
    ]
    written += ["results/demo-paper-b/prompts/concept-explanation/concept-analogy-test/plain/manifest.json"]
    workflow.run(*written)
    overlay = workflow.folder / "overlay.yaml"
    overlay.write_text("tasks: {concept-bias: {templates: {plain: plain-1}}}\n")
    workflow = workflow.with_overlays(*workflow.overlays, "overlay.yaml")
    assert workflow.planned("--cores", "1", *written) == {"write_prompts": 1}
