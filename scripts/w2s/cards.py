"""Model cards: what a trained model is, learnt from and scored, read from the records of the run.

A card is a ``README.md`` as the Hugging Face hub reads it: YAML for machines, text for people. Each number in it stands in a
manifest, in a run record or in a table, or is a mean of a table's measurements; what no finished table measures is said to
have no scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from w2s import agreement, handles, statistics
from w2s.agreement import LabelFile
from w2s.artifact import Artifact, load
from w2s.citation import Citation
from w2s.provenance import ancestry, commit
from w2s.results import interval, number, read_result
from w2s.runs import parse_cell
from w2s.statistics import Bootstrap, Interval
from w2s.summary import read_measured
from w2s.tables import read_labels, read_parquet
from w2s.transfer import SCORE_COLUMNS
from w2s.transfer_results import is_transfer, read_transfer
from w2s.transfer_runs import TUNED, parse_answers, parse_records

# Stages that leave a trained model which is no base model of others, with what they do in words.
TRAINED = {
    "train_teacher_sft": "supervised fine-tuning of a weak teacher on people's labels",
    "train_teacher_dpo": "direct preference optimisation of a weak teacher on people's labels",
    "train_teacher_reward": "training of a weak teacher as a reward model on people's labels",
    "train_student_sft": "supervised fine-tuning of a student",
    "train_student_dpo": "direct preference optimisation of a student",
    "tune_student": "supervised fine-tuning of a strong model on a weak one's answers or on what was made of them",
}
# Licences that the hub knows by these names, among those of the papers' data and models.
HUB_LICENCES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit")
Arm = Mapping[str, str]


@dataclass(frozen=True)
class Score:
    """What a table's measurements say of one model.

    Args:
        experiment: the table's name.
        data: what it was tested on.
        metric: what was measured.
        judge: by whom; empty where nobody judges.
        own: this model's mean over prompts.
        arm: mean, low, high and number of seeds of all models that differ from it in the seed only; None if the table has no
            such row.
    """

    experiment: str
    data: str
    metric: str
    judge: str
    own: Interval
    arm: tuple[float, float, float, int] | None

    @property
    def row(self) -> list[str]:
        """Cells of the card's table."""
        own = f"{number(self.own.mean, 3)} {interval(self.own.low, self.own.high, 3)}"
        among = "–"
        if self.arm:
            mean, low, high, seeds = self.arm
            among = (
                f"{number(mean, 3)} {interval(low, high, 3)}, {seeds} seeds"
                if seeds > 1
                else "this seed only"
            )
        return [self.experiment, self.data, self.metric, self.judge or "–", own, str(self.own.prompts), among]


class Family:
    """All artifacts behind some tables, and who descends from whom."""

    def __init__(self, tables: Sequence[Path]) -> None:
        self.tables = [load(path.resolve()) for path in tables]
        found = ancestry(tables).artifacts if tables else []
        self._by_path = {artifact.manifest_path: artifact for artifact in found}

    def models(self) -> list[Artifact]:
        """The trained models, by path."""
        found = [artifact for artifact in self._by_path.values() if artifact.manifest["stage"] in TRAINED]
        return sorted(found, key=lambda artifact: artifact.manifest_path.as_posix())

    def parents(self, artifact: Artifact, name: str) -> list[Artifact]:
        """Its parents of that name which are still there; one that was made again since is another artifact."""
        taken = [one for one in handles.parents(artifact) if one.name == name]
        found = [(self._by_path.get(one.path), one.digest) for one in taken]
        return [parent for parent, digest in found if parent is not None and parent.digest == digest]

    def parent(self, artifact: Artifact, *names: str) -> Artifact | None:
        """Its first parent of one of these names."""
        return next((parent for name in names for parent in self.parents(artifact, name)), None)

    def behind(self, artifact: Artifact) -> list[Artifact]:
        """All that it was made from, by path."""
        found: dict[Path, Artifact] = {}
        queue = [artifact]
        while queue:
            one = queue.pop()
            parents = [parent for name in one.manifest["parents"] for parent in self.parents(one, name)]
            queue += [parent for parent in parents if parent.manifest_path not in found]
            found |= {parent.manifest_path: parent for parent in parents}
        return [found[path] for path in sorted(found)]

    def base(self, model: Artifact) -> Artifact | None:
        """The model that the first of its trainings began with."""
        found = self.parent(model, "model")
        while found is not None and found.manifest["stage"] in TRAINED:
            found = self.parent(found, "model")
        return found

    def scores(self) -> dict[Path, list[Score]]:
        """What the tables say of each model, by its manifest; the same scores count once, for the first table."""
        found: dict[Path, list[Score]] = {}
        seen: set[tuple[Path, str, str]] = set()
        for tables in self.tables:
            read = self._of_transfer if is_transfer(tables.manifest_path) else self._of_experiment
            for scored, model, score in read(tables):
                key = (scored, score.metric, score.judge)
                if key not in seen:
                    seen.add(key)
                    found.setdefault(model.manifest_path, []).append(score)
        return found

    def _of_experiment(self, tables: Artifact) -> Iterator[tuple[Path, Artifact, Score]]:
        """Paper A: gold rewards of what a model wrote."""
        rewards = read_result(tables.manifest_path, "rewards.csv")
        for scored in self.parents(tables, "rewards"):
            model = self._judged(scored)
            if model is None:
                continue
            measured = read_measured(scored.manifest_path)
            cells = measured.frame[["id", "value"]].assign(seed=measured.seed)
            run, name = measured.run, tables.spec["experiment"]
            where = {
                "data": measured.data,
                "share": measured.share,
                "student": run.model,
                "recipe": run.recipe,
            }
            arm = _row(
                rewards,
                where | {"arm": run.arm, "gold": measured.gold},
            )
            own = statistics.bootstrap_mean(cells, _bootstrap(tables))
            yield scored.manifest_path, model, Score(name, measured.data, "reward", measured.gold, own, arm)

    def _of_transfer(self, tables: Artifact) -> Iterator[tuple[Path, Artifact, Score]]:
        """Paper B: scores of what a tuned student answered."""
        arms = read_transfer(tables.manifest_path, "arms.csv")
        for scored in self.parents(tables, "scores"):
            model, name = self._judged(scored), parse_answers(scored.manifest_path)
            if model is None or name.kind != TUNED:
                continue
            where = {"data": name.questions, "student": name.base, "weak": name.weak, "refiner": name.refiner}
            where |= {"arm": name.refinement, "recipe": name.fine_tuning}
            frame = read_parquet(scored.path("scores.parquet"), SCORE_COLUMNS)
            for key, cells in frame.groupby(["metric", "judge"], sort=True):
                metric, judge = map(str, key)
                own = statistics.bootstrap_mean(
                    cells[["id", "value"]].astype({"value": float}).assign(seed=name.seed), _bootstrap(tables)
                )
                arm = _row(arms, where | {"metric": metric, "judge": judge})
                title = tables.spec["experiment"]
                yield scored.manifest_path, model, Score(title, name.questions, metric, judge, own, arm)

    def _judged(self, scored: Artifact) -> Artifact | None:
        """The trained model whose texts were scored; None where they are another one's."""
        texts = self.parent(scored, "generations", "answers")
        model = self.parent(texts, "model") if texts else None
        return model if model is not None and model.manifest["stage"] in TRAINED else None


def card(
    family: Family, model: Artifact, scores: Sequence[Score], citation: Citation, root: Path
) -> tuple[dict, dict]:
    """Front matter (arguments of the hub's ``ModelCardData``) and the values of the text's template.

    Args:
        root: the folder of the run's results; names in the card are relative to it.
    """
    name = model.folder.relative_to(root).as_posix()
    sources = [one for one in family.behind(model) if one.manifest["stage"] == "fetch"]
    base = family.base(model)
    hub = [one.facts for one in sources if one.facts["kind"] != "local"]
    weights = {
        file: entry for file, entry in model.manifest["files"].items() if file.endswith(".safetensors")
    }
    licences = sorted({one.facts["licence"] or "not stated" for one in sources}) or [citation.licence]
    stage = model.manifest["stage"]
    front = {
        "model_name": name,
        **_licence(licences),
        "library_name": "transformers",
        "pipeline_tag": "text-classification" if stage == "train_teacher_reward" else "text-generation",
        "base_model": _only({one["origin"] for one in hub if one["kind"] == "model"} & _origin(family, base)),
        "datasets": sorted({one["origin"] for one in hub if one["kind"] == "dataset"}) or None,
        "tags": ["weak-to-strong", "alignment", stage.replace("_", "-")],
        "scores": scores,
    }
    values = {
        "name": name,
        "does": TRAINED[stage],
        "stage": stage,
        "base": _base(family, base, root),
        "seed": model.spec.get("seed"),
        "data": list(_data(family, model, root)),
        "labels": list(_labels(family, model, root)),
        "recipe": [(key.replace("_", " "), value) for key, value in model.spec.items() if value is not None],
        "facts": list(_facts(model)),
        "scores": [score.row for score in scores],
        "many_seeds": any(score.arm and score.arm[3] > 1 for score in scores),
        "synthetic": not sources,
        "licences": licences,
        "is_reward": stage == "train_teacher_reward",
        "digest": model.digest,
        "weights": [(file, entry["sha256"]) for file, entry in sorted(weights.items())],
        "citation": citation,
    }
    return front, values


def render(template: Path, front: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """The card's text: front matter in the hub's form, then the filled template."""
    import jinja2
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    results = [
        EvalResult(
            task_type=front["pipeline_tag"],
            dataset_type=score.data,
            dataset_name=score.data,
            metric_type=score.metric,
            metric_name=f"mean {score.metric}" + (f" by {score.judge}" if score.judge else ""),
            metric_value=round(score.own.mean, 6),
            metric_args={
                "interval_95": [round(score.own.low, 6), round(score.own.high, 6)],
                "prompts": score.own.prompts,
                "seeds": 1,
            },
        )
        for score in front["scores"]
    ]
    given = {
        key: value for key, value in front.items() if key != "scores" and (results or key != "model_name")
    }
    header = ModelCardData(**given, eval_results=results or None).to_yaml()
    environment = jinja2.Environment(  # noqa: S701 - Markdown, in which nothing is to be escaped
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template(template.name).render(values)
    return str(ModelCard(f"---\n{header}\n---\n\n{text}"))


# -- parts of a card -----------------------------------------------------------------------------------------------


def _base(family: Family, base: Artifact | None, root: Path) -> str:
    """The base model in words."""
    if base is None:
        return "no longer kept"
    name, stage = base.folder.relative_to(root).as_posix(), base.manifest["stage"]
    source = family.parent(base, "source")
    if source is not None:
        facts = source.facts
        at = f"at revision `{facts['revision']}`" if facts["revision"] else "from a local folder"
        return f"`{facts['origin'] or source.folder.name}` {at}, licence {facts['licence'] or 'not stated'} (`{name}`)"
    return f"`{name}`, made in the same run by the stage `{stage}`; no weights came from elsewhere"


def _origin(family: Family, base: Artifact | None) -> set[str]:
    source = family.parent(base, "source") if base else None
    return {source.facts["origin"]} if source else set()


def _data(family: Family, model: Artifact, root: Path) -> Iterator[tuple[str, str]]:
    """What it learnt from: source, counts and split, a pair of title and words each."""
    records = family.parent(model, "records")
    questions = family.parent(records, "questions") if records else None
    filtered = family.parent(model, "examples")
    imported = family.parent(filtered, "examples") if filtered else None
    for artifact in (imported, filtered, family.parent(model, "split"), questions, records):
        if artifact is not None:
            name = artifact.folder.relative_to(root).as_posix()
            yield f"{artifact.manifest['stage']} (`{name}`)", _counts(artifact)
    for source in (one for one in family.behind(model) if one.manifest["stage"] == "fetch"):
        facts = source.facts
        at = f"revision `{facts['revision']}`" if facts["revision"] else "local folder"
        files = "file" if len(source.manifest["files"]) == 1 else "files"
        yield (
            f"source `{facts['origin'] or source.folder.name}`",
            f"{at}, licence {facts['licence'] or 'not stated'}, {len(source.manifest['files'])} {files}, "
            f"digest `{source.digest[:12]}`",
        )


def _counts(artifact: Artifact) -> str:
    """Rows in, kept and dropped with the reasons, rows by part, seed; whatever of it the stage counted."""
    facts, found = artifact.facts, []
    if "rows_in" in facts:
        dropped = {reason: count for reason, count in facts.get("rows_dropped", {}).items() if count}
        reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in dropped.items())
        found.append(
            f"{facts['rows_in']:,} rows in, {facts['rows_kept']:,} kept, {sum(dropped.values()):,} dropped"
        )
        found += [reasons] if reasons else []
    found += [f"{part} {count:,}" for part, count in facts.get("rows_by_part", {}).items()]
    settings = artifact.spec
    found += ["generated by a toy world, not by people"] if settings.get("world") else []
    found += [f"{key} {settings[key]}" for key in ("share", "seed", "part") if settings.get(key) is not None]
    return "; ".join(found) or "no counts recorded"


def _labels(family: Family, model: Artifact, root: Path) -> Iterator[tuple[str, str]]:
    """Where its labels come from and how many agree with people's and with the exact ones."""
    labels, filtered = family.parent(model, "labels"), family.parent(model, "examples")
    if labels is not None:
        yield "labels", f"`{labels.folder.relative_to(root).as_posix()}`"
        yield "feedback policy", str(labels.spec.get("policy", labels.folder.name))
        teacher = family.parent(labels, "policy_scores", "rewards", "preferences", "labels")
        if teacher is not None:
            yield "made from", f"`{teacher.folder.relative_to(root).as_posix()}`"
        for key in ("labels", "ties"):
            if key in labels.facts:
                yield key.replace("labels", "number of labels"), f"{labels.facts[key]:,}"
        yield from _agreement(labels, filtered)
    records = family.parent(model, "records")
    if records is not None:
        name = parse_records(records.manifest_path)
        yield "training set", f"`{records.folder.relative_to(root).as_posix()}`"
        yield "refinement", name.refinement
        yield "weak labeller", name.weak or "none"
        yield "refiner", name.refiner or "none"
        for source, facts in records.facts.get("by_source", {}).items():
            yield f"answers from `{source}`", f"{facts['rows']:,} rows"
        yield from _quality(family, name)


def _agreement(labels: Artifact, filtered: Artifact | None) -> Iterator[tuple[str, str]]:
    if filtered is None:
        return
    cell = parse_cell(labels.manifest_path, "labels")
    policy = str(labels.spec.get("policy", ""))
    given = read_labels(labels.manifest_path)
    file = LabelFile(cell.data, cell.share, cell.seed, cell.rest[-1], policy, given)
    for against, truth in _truth(filtered.manifest_path).items():
        cells = agreement.agrees(file, truth, against)["value"]
        if against != policy and len(cells):
            low, high = statistics.wilson(cells.sum(), len(cells))
            share = f"{100 * cells.mean():.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {len(cells):,}"
            yield f"agreement with {against} labels", share


@cache
def _truth(filtered: Path) -> dict[str, pd.DataFrame]:
    """A data set's own labels, read once for all its models."""
    return agreement.read_truth(filtered)[1]


def _quality(family: Family, name: Any) -> Iterator[tuple[str, str]]:
    """Scores of the labels themselves, from the first transfer that has them."""
    for tables in family.tables:
        if not is_transfer(tables.manifest_path):
            continue
        rows = read_transfer(tables.manifest_path, "labels.csv")
        mine = (
            (rows["weak"] == name.weak)
            & (rows["refiner"] == name.refiner)
            & (rows["refinement"] == name.refinement)
        )
        task = {parse_answers(one.manifest_path).task for one in family.parents(tables, "scores")}
        if mine.any() and name.task in task:
            for row in rows[mine].to_dict("records"):
                seeds = int(row["seeds"])
                words = f"{number(row['mean'], 3)} {interval(row['low'], row['high'], 3)}, {seeds} seeds"
                yield (
                    f"{row['metric']} of the labels" + (f" by {row['judge']}" if row["judge"] else ""),
                    words,
                )
            return


def _facts(model: Artifact) -> Iterator[tuple[str, str]]:
    """What the training counted, and where and how long it ran."""
    run, environment = model.run, model.run["environment"]
    for key, value in model.facts.items():
        if isinstance(value, int | float):
            yield key.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
    processes = run["measured"].get("processes")
    gpus = Counter(environment["gpus"])
    machine = ", ".join(f"{count} × {name}" for name, count in gpus.items()) or environment["processor"]
    yield (
        "wall time",
        f"{run['wall_s']:,.1f} s" + (f" on {processes} devices" if processes and processes > 1 else ""),
    )
    yield "peak memory", f"{run['peak_memory_mb']:,} MB"
    yield "hardware", f"{machine}, {environment['cores']} cores, {environment['system']}"
    yield "software", ", ".join(f"{name} {version}" for name, version in environment["libraries"].items())
    yield "container", run["container"] or "none"
    yield "commit", commit(run["git"])
    yield "started", run["started"]


def _licence(licences: Sequence[str]) -> dict[str, str]:
    """The hub's field: one that it knows, else ``other`` with the names of all."""
    found = {name.lower() for name in licences}
    if len(found) == 1 and (name := found.pop()) in HUB_LICENCES:
        return {"license": name}
    return {"license": "other", "license_name": ", ".join(licences)}


def _only(names: Iterable[str]) -> str | None:
    listed = sorted(names)
    return listed[0] if len(listed) == 1 else None


def _bootstrap(tables: Artifact) -> Bootstrap:
    return Bootstrap(int(tables.spec["bootstrap"]), int(tables.spec["bootstrap_seed"]))


def _row(table: pd.DataFrame, where: Arm) -> tuple[float, float, float, int] | None:
    """Mean, interval and seeds of the one row in which the columns have these values."""
    for column, value in where.items():
        table = table[table[column] == value]
    if len(table) != 1:
        return None
    row = table.iloc[0]
    return float(row["mean"]), float(row["low"]), float(row["high"]), int(row["seeds"])
