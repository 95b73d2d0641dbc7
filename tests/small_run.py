"""A run of a handful of artifacts with every link that a crate and a card follow, made by hand in milliseconds."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from w2s.artifact import Artifact, load
from w2s.handles import parents
from w2s.tables import write_csv, write_parquet

CELL = "toy/1-of-2/seed-3"
RUN = "students/k/weak-s/plain/dpo"
REVISION = "a" * 40
IDS = [f"{number:016x}" for number in range(40)]
SPEC = {"experiment": "a_figure_2a", "bootstrap": 200, "bootstrap_seed": 0}


@dataclass
class SmallRun:
    """Paths of the run.

    Args:
        results: its folder.
        tables: manifest of its only tables.
        student: manifest of the student that they measure.
        teacher: manifest of a teacher that they do not measure.
    """

    results: Path
    tables: Path
    student: Path
    teacher: Path

    def copy(self, root: Path) -> SmallRun:
        """The same run, sources included, in another folder."""
        here = self.results.parents[1]
        shutil.copytree(here, root, dirs_exist_ok=True)
        paths = (self.results, self.tables, self.student, self.teacher)
        return SmallRun(*(root / path.relative_to(here) for path in paths))


def make(root: Path, arm_seeds: int = 3, local: bool = False) -> SmallRun:
    """The run; ``arm_seeds`` is what the table says of its seeds, ``local`` whether data came from a local folder."""
    results, sources = root / "results/small", root / "resources"
    data = fetched(sources / "pairs", "local" if local else "dataset", "team/pairs", "mit", "rows.jsonl.gz")
    weights = fetched(sources / "weights", "model", "lab/base", "apache-2.0", "model.safetensors")
    base = artifact(results / "models/k", "import_model", {"source": weights}, {"precision": "float32"})
    rows = {"rows_in": 44, "rows_kept": 40, "rows_dropped": {"too_long": 3, "duplicate_row": 1, "empty": 0}}
    imported = artifact(
        results / "examples/toy", "import_examples", {"sources": [data]}, {"adapter": "hh"}, rows
    )
    filtered = with_labels(
        results / "filtered/toy", "filter_examples", {"examples": imported}, rows, human=right(30)
    )
    split = artifact(
        results / f"splits/{CELL}",
        "split_examples",
        {"examples": filtered},
        {"share": 0.5, "seed": 3},
        {"rows_by_part": {"labelled": 10, "unlabelled": 30}},
    )
    teacher = trained(results / f"teachers/{CELL}/s/plain/dpo", "train_teacher_dpo", {"model": base})
    labels = with_labels(
        results / f"labels/{CELL}/unlabelled/weak-s",
        "label_examples",
        {"examples": filtered, "policy_scores": [teacher]},
        {"labels": 40},
        labels=right(40),
    )
    learnt = {"model": base, "examples": filtered, "split": split, "labels": labels}
    student = trained(results / "students" / CELL / "k/weak-s/plain/dpo", "train_student_dpo", learnt)
    written = artifact(results / f"generations/{CELL}/{RUN}", "generate", {"model": student}, texts=True)
    where = {"run": RUN, "data": "toy", "share": "1/2", "seed": 3, "gold": "exact"}
    scored = artifact(
        results / f"gold/{CELL}/{RUN}/exact", "score_exact", {"generations": written}, where, rewards=True
    )
    tables = results / "tables/a_figure_2a/manifest.json"
    parents = {"rewards": [scored], "labels": [labels]}
    with Artifact.create(tables, spec=SPEC, parents=parents, script="summarise.py") as draft:
        write_csv(rewards_table(arm_seeds), draft.path("rewards.csv"))
    return SmallRun(results, tables, student, teacher)


def artifact(
    folder: Path,
    stage: str,
    parents: dict,
    spec: dict | None = None,
    facts: dict | None = None,
    *,
    texts: bool = False,
    rewards: bool = False,
) -> Path:
    """An artifact of a stage, with the table that its readers look for if it has one."""
    path = folder / "manifest.json"
    with Artifact.create(path, spec=spec or {}, parents=parents, script=f"{stage}.py") as draft:
        draft.path("content.txt").write_text(folder.as_posix().rpartition("results")[2])
        if texts:
            frame = pd.DataFrame({"id": IDS, "tokens": 5, "finished": "eos"})
            write_parquet(frame, draft.path("generations.parquet"))
        if rewards:
            write_parquet(
                pd.DataFrame({"id": IDS, "reward": [float(n % 4) for n in range(40)]}),
                draft.path("rewards.parquet"),
            )
        draft.record(**(facts or {}))
    return path


def fetched(folder: Path, kind: str, origin: str, licence: str, name: str) -> Path:
    """A source."""
    hub = kind != "local"
    with Artifact.create(
        folder / "manifest.json", spec={"kind": kind}, parents={}, script="fetch.py"
    ) as draft:
        draft.path(name).write_text("content")
        about = {"origin": origin if hub else "", "revision": REVISION if hub else ""}
        draft.record(kind=kind, licence=licence, terms="research only", **about)
    return folder / "manifest.json"


def trained(folder: Path, stage: str, parents: dict) -> Path:
    """A model after training."""
    path = folder / "manifest.json"
    spec = {"beta": 0.1, "learning_rate": 2e-5, "precision": "float32", "seed": 3, "unset": None}
    with Artifact.create(path, spec=spec, parents=parents, script=f"{stage}.py") as draft:
        draft.path("model.safetensors").write_text(folder.as_posix().rpartition("results")[2])
        draft.record(steps=125, last_loss=0.5, tokens_per_epoch=132591)
        draft.measure(processes=2)
    return path


def make_again(manifest: Path) -> None:
    """An artifact in the same place and of the same parents, with other content."""
    former = load(manifest)
    same = {parent.name: parent.path for parent in parents(former)}
    with Artifact.create(manifest, spec=former.spec, parents=same, script=former.manifest["stage"]) as draft:
        draft.path("content.txt").write_text("other content")


def right(count: int) -> pd.DataFrame:
    """Labels of which the first ``count`` are 0, the others 1."""
    labels = [int(number >= count) for number in range(len(IDS))]
    # Certain of each label: a margin speaks for the response that the label names.
    certain = {
        "margin": [2.0 * label - 1 for label in labels],
        "probability": [float(label) for label in labels],
    }
    return pd.DataFrame({"id": IDS, "label": labels, **certain, "source": "made"})


def with_labels(folder: Path, stage: str, parents: dict, facts: dict, **tables: pd.DataFrame) -> Path:
    """An artifact with label files of these names."""
    path = folder / "manifest.json"
    with Artifact.create(path, spec={"policy": "weak"}, parents=parents, script=f"{stage}.py") as draft:
        for name, frame in tables.items():
            write_parquet(frame, draft.path(f"{name}.parquet"))
        draft.record(**facts)
    return path


def rewards_table(seeds: int) -> pd.DataFrame:
    """rewards.csv with the student's arm."""
    row = {"experiment": "a_figure_2a", "data": "toy", "share": "1-of-2", "student": "k", "recipe": "plain"}
    row |= {"beta": 0.1, "arm": "weak-s", "feedback": "weak-s", "step": "dpo", "gold": "exact"}
    row |= {"seeds": seeds, "prompts": 40, "mean": 1.25, "low": 1.0, "high": 1.75}
    return pd.DataFrame([row | {"malformed": 0.0, "truncated": 0.0, "tokens": 5.0}])
