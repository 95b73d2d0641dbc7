"""From the configuration to paths, command lines and targets: everything that the rules need to know.

The rules stay declarative: each asks :class:`Plan` for its inputs and for its *spec*, a string of named flags. The spec
is at once what Snakemake compares (names and values, so that two exchanged values are a change) and what the script
receives, word for word: what is compared is what is run.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from w2s.config import expand_origin
from w2s.schema import Config, Experiment, Model, Step

MANIFEST = "manifest.json"


class Cell(Protocol):
    """What a rule's wildcards say of a cell of the grid: one data set, labelled share and seed."""

    data: str
    share: str
    seed: str


def flags(settings: Mapping[str, Any]) -> str:
    """``{"batch_size": 16, "beta": 0.1}`` -> ``--batch-size 16 --beta 0.1``, quoted for the shell.

    Lists become several words, mappings become JSON, True is the flag alone; None and False are left out.
    """
    words: list[str] = []
    for name, value in settings.items():
        if value is None or value is False:
            continue
        words.append("--" + name.replace("_", "-"))
        if value is True:
            continue
        if isinstance(value, list | tuple):
            words.extend(str(item) for item in value)
        elif isinstance(value, Mapping):
            words.append(json.dumps(value, sort_keys=True))
        elif isinstance(value, float):
            words.append(repr(value))
        else:
            words.append(str(value))
    return shlex.join(words)


class Plan:
    """Paths, specs and targets of one validated configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.root = f"{config.results}/{config.preset}"

    # -- paths -------------------------------------------------------------------------------------------------

    def path(self, *parts: str) -> str:
        """A path under ``results/<preset>/``."""
        return "/".join((self.root, *parts))

    def manifest(self, *parts: str) -> str:
        """The manifest of the artifact in that folder."""
        return self.path(*parts, MANIFEST)

    def source(self, name: str) -> str:
        """A fetched source; shared by all presets."""
        return f"{self.config.resources}/{name}/{MANIFEST}"

    def run(self, cell: Cell, run: str) -> str:
        """The manifest of a model that was made: ``models/...``, ``teachers/...`` or ``students/...``."""
        kind, _, rest = run.partition("/")
        if kind == "models":
            return self.manifest(run)
        return self.manifest(kind, cell_path(cell), rest)

    def scores(self, cell: Cell, part: str, run: str) -> str:
        """Log-probabilities of one part's responses under one model."""
        return self.manifest("scores", cell_path(cell), part, run)

    def labels(self, cell: Cell, part: str, feedback: str) -> str:
        """One feedback's labels of one part."""
        return self.manifest("labels", cell_path(cell), part, feedback)

    # -- inputs ------------------------------------------------------------------------------------------------

    def folder(self, name: str) -> str:
        """Where the files of a local source lie; "." for hub sources. Not in the spec: data may be moved."""
        source = self.config.sources[name]
        return expand_origin(source.origin, name) if source.kind == "local" else "."

    def local_folders(self) -> list[str]:
        """Folders of the local sources that the experiments to run need."""
        local = [name for name in self.needed_sources() if self.config.sources[name].kind == "local"]
        return [self.folder(name) for name in local]

    def undeclared_files(self, name: str) -> list[str]:
        """Files of a local source that have no declared digest: a change of theirs is noticed by content."""
        source = self.config.sources[name]
        if source.kind != "local":
            return []
        return [
            str(Path(self.folder(name)) / file) for file, digest in source.files.items() if digest is None
        ]

    def data_sources(self, data: str) -> list[str]:
        """Manifests of the raw files of a data set."""
        names = dict.fromkeys(file.source for file in self.config.data[data].files)
        return [self.source(name) for name in names]

    def tokenizer(self, name: str) -> str:
        """A tokenizer's manifest."""
        return self.manifest("tokenizers", name)

    def model_tokenizer(self, model: str) -> str:
        """The tokenizer that a model reads."""
        entry = self.config.models[model]
        if entry.pretrain:
            return self.tokenizer(entry.pretrain.tokenizer)
        if entry.reward:
            return self.model_tokenizer(entry.reward.base)
        assert entry.source is not None
        return self.source(entry.source)

    def corpus_examples(self, corpus: str) -> list[str]:
        """The data set that a corpus is taken from, if any."""
        data = self.config.corpora[corpus].data
        return [self.manifest("filtered", data)] if data else []

    def feedback_scores(self, cell: Cell, part: str, feedback: str, step: str) -> list[str]:
        """Scores under the teacher (step "dpo") or its reference (step "sft") that a weak feedback needs."""
        entry = self.config.feedback[feedback]
        if entry.policy != "weak":
            return []
        return [self.scores(cell, part, f"teachers/{entry.teacher}/{entry.recipe}/{step}")]

    # -- specs -------------------------------------------------------------------------------------------------

    def fetch(self, name: str) -> str:
        """Spec of ``fetch``."""
        source = self.config.sources[name]
        return flags(
            {
                "kind": source.kind,
                "origin": None if source.kind == "local" else source.origin,
                "revision": source.revision,
                "files": [f"{path}={digest or ''}" for path, digest in source.files.items()],
                "licence": source.licence,
                "terms": source.terms or None,
            }
        )

    def import_tokenizer(self, name: str) -> str:
        """Spec of ``import_tokenizer``."""
        return flags({"pad_token": self.config.tokenizers[name].pad_token})

    def train_tokenizer(self, name: str) -> str:
        """Spec of ``train_tokenizer``."""
        return flags({"vocabulary": self.config.tokenizers[name].vocabulary})

    def import_examples(self, name: str) -> str:
        """Spec of ``import_examples``."""
        data = self.config.data[name]
        settings: dict[str, Any] = {"adapter": data.adapter}
        if data.world:
            settings["world"] = {**self.world(data.world), "temperature": data.temperature}
        else:
            settings["files"] = json.dumps([file.model_dump() for file in data.files], sort_keys=True)
            if data.resplit:
                settings |= {"test_share": data.resplit.test_share, "resplit_seed": data.resplit.seed}
        return flags(settings | {"limit": data.limit})

    def world(self, name: str) -> dict[str, Any]:
        """Settings of a demo world."""
        return self.config.worlds[name].model_dump()

    def filter_examples(self, name: str) -> str:
        """Spec of ``filter_examples``."""
        return flags({"max_tokens": self.config.data[name].max_tokens})

    def split_examples(self, cell: Cell) -> str:
        """Spec of ``split_examples``."""
        return flags({"share": fraction(cell.share), "seed": cell.seed})

    def build_corpus(self, name: str) -> str:
        """Spec of ``build_corpus``."""
        corpus = self.config.corpora[name]
        settings: dict[str, Any] = {"kind": "world" if corpus.world else "examples"}
        if corpus.world:
            settings["world"] = self.world(corpus.world)
        return flags(settings | {"texts": corpus.texts, "seed": corpus.seed})

    def import_model(self, name: str) -> str:
        """Spec of ``import_model``."""
        model = self._model(name)
        return flags({"positions": model.positions, "pad_token": model.pad_token})

    def pretrain_model(self, name: str) -> str:
        """Spec of ``pretrain_model``."""
        model = self._model(name)
        assert model.pretrain is not None
        return flags(
            model.pretrain.model_dump(exclude={"tokenizer", "corpus"}) | {"precision": model.precision}
        )

    def train_reward_model(self, name: str) -> str:
        """Spec of ``train_reward_model``."""
        model = self._model(name)
        assert model.reward is not None
        return flags(model.reward.model_dump(exclude={"base", "data"}) | {"precision": model.precision})

    def training(self, recipe: str, model: str, step: Step, part: str, seed: str) -> str:
        """Spec of the four training stages."""
        settings = self.config.recipes[recipe].step(model, step).model_dump()
        # What is off is not named: specs are those of configurations that do not know the key.
        settings["label_smoothing"] = settings.get("label_smoothing") or None
        return flags({"part": part, **settings, "precision": self._model(model).precision, "seed": seed})

    def score_responses(self, run: str, part: str) -> str:
        """Spec of ``score_responses``."""
        return flags({"part": part, "precision": self._model(base_model(run)).precision})

    def label_examples(self, part: str, feedback: str) -> str:
        """Spec of ``label_examples``."""
        entry = self.config.feedback[feedback]
        settings: dict[str, Any] = {"part": part, "policy": entry.policy}
        if entry.policy == "weak":
            settings |= {"beta": entry.beta, "tie": entry.tie}
        return flags(settings)

    def generate(self, cell: Cell, evaluation: str, run: str) -> str:
        """Spec of ``generate``."""
        entry = self.config.evaluations[evaluation]
        settings = entry.model_dump(include={"prompts", "temperature", "top_p", "max_new_tokens", "stop"})
        precision = self._model(base_model(run)).precision
        # What is off is not named: specs are those of configurations that do not know the key.
        backend = None if self.config.runtime.generation == "transformers" else self.config.runtime.generation
        return flags(settings | {"seed": cell.seed, "precision": precision, "backend": backend})

    def generation_options(self) -> str:
        """Options of ``generate`` that do not change its result."""
        return flags({"vllm_python": self.config.runtime.vllm_python})

    def score_gold(self, cell: Cell, run: str, gold: str) -> str:
        """Spec of ``score_gold``."""
        entry = self.config.golds[gold]
        assert entry.model is not None
        settings = {
            "fallback_template": entry.fallback_template,
            "precision": self._model(entry.model).precision,
        }
        return flags(self._identity(cell, run, gold) | settings)

    def score_exact(self, cell: Cell, run: str, gold: str) -> str:
        """Spec of ``score_exact``."""
        world = self.config.golds[gold].world
        assert world is not None
        return flags(self._identity(cell, run, gold) | {"world": self.world(world)})

    def summarise(self, name: str) -> str:
        """Spec of ``summarise``."""
        experiment = self.config.experiments[name]
        evaluation = self.config.evaluations[experiment.evaluation]
        return flags(
            {
                "experiment": name,
                "main_gold": evaluation.golds[0],
                "bootstrap": evaluation.bootstrap,
                "bootstrap_seed": 0,
                "reference_feedback": self.reference_feedback(experiment),
            }
        )

    # -- targets -----------------------------------------------------------------------------------------------

    def cells(self, experiment: str) -> list[GridCell]:
        """The cells of an experiment: data set x seed at its labelled share."""
        entry = self.config.experiments[experiment]
        share = entry.share.replace("/", "-of-")
        return [GridCell(data, share, str(seed)) for data in entry.data for seed in entry.seeds]

    def runs(self, experiment: str) -> list[str]:
        """The models of an experiment that are judged in each cell."""
        entry = self.config.experiments[experiment]
        runs = [f"models/{student}" for student in entry.students] if entry.untuned else []
        for student in entry.students:
            for feedback in entry.feedback:
                runs += [f"students/{student}/{feedback}/{entry.recipe}/{step}" for step in entry.steps]
        return runs

    def rewards(self, experiment: str) -> list[str]:
        """Judged generations of an experiment: cell x model x judge."""
        evaluation = self.config.experiments[experiment].evaluation
        golds = self.config.evaluations[evaluation].golds
        return [
            self.manifest("gold", cell_path(cell), evaluation, run, gold)
            for cell in self.cells(experiment)
            for run in self.runs(experiment)
            for gold in golds
        ]

    def experiment_labels(self, experiment: str) -> list[str]:
        """All label files that students of an experiment learn from."""
        feedback = self.config.experiments[experiment].feedback
        return [self.labels(cell, "unlabelled", name) for cell in self.cells(experiment) for name in feedback]

    def experiment_examples(self, experiment: str) -> list[str]:
        """The filtered data sets of an experiment."""
        return [self.manifest("filtered", data) for data in self.config.experiments[experiment].data]

    def tables(self) -> list[str]:
        """Tables of the experiments that are to run."""
        return [self.manifest("tables", name) for name in self.config.run]

    def data_sets(self) -> list[str]:
        """Data sets of the experiments that are to run, in order, each once."""
        return list(
            dict.fromkeys(data for name in self.config.run for data in self.config.experiments[name].data)
        )

    def figures(self, *suffixes: str) -> list[str]:
        """Files of the figures of the experiments that are to run, and of one drop report per data set.

        Whoever wants a figure back names each of its files: Snakemake makes no file that nothing asks for.
        """
        names = [name for name in self.config.run if self.config.experiments[name].figure]
        # Noise levels share their examples, so one drop report speaks for all data sets of a world.
        drops = {self._drop_key(data): data for data in reversed(self.data_sets())}
        names += [f"drops_{data}" for data in reversed(list(drops.values()))]
        return [self.path("figures", f"{name}.{suffix}") for name in names for suffix in suffixes]

    def experiments_with(self, figure: str) -> list[str]:
        """Experiments that are drawn as ``figure``."""
        return [name for name, entry in self.config.experiments.items() if entry.figure == figure]

    def reference_feedback(self, experiment: Experiment) -> str:
        """The feedback that the others are compared with: human labels where they are among the arms."""
        human = [name for name in experiment.feedback if self.config.feedback[name].policy == "human"]
        return (human or experiment.feedback)[0]

    # -- what a machine must have --------------------------------------------------------------------------------

    def needed_sources(self) -> list[str]:
        """Sources that the experiments to run need, directly or through their models, tokenizers and corpora."""
        data, models, tokenizers, sources = set(self.data_sets()), set[str](), set[str](), set[str]()
        queue = [model for name in self.config.run for model in self._named_models(name)]
        while queue:
            name = queue.pop()
            if name in models:
                continue
            models.add(name)
            entry = self._model(name)
            if entry.source:
                sources.add(entry.source)
            elif entry.reward:
                queue.append(entry.reward.base)
                data.add(entry.reward.data)
            elif entry.pretrain:
                tokenizers.add(entry.pretrain.tokenizer)
                data |= self._corpus_data(entry.pretrain.corpus)
        tokenizers |= {self.config.data[name].tokenizer for name in data}
        for name in tokenizers:
            tokenizer = self.config.tokenizers[name]
            sources |= {tokenizer.source} if tokenizer.source else set()
            data |= self._corpus_data(tokenizer.corpus) if tokenizer.corpus else set()
        sources |= {file.source for name in data for file in self.config.data[name].files}
        return sorted(sources)

    def unpinned_sources(self) -> list[str]:
        """Needed hub sources without a revision: a real run refuses them."""
        sources = self.config.sources
        return [
            name
            for name in self.needed_sources()
            if sources[name].kind != "local" and not sources[name].revision
        ]

    # -- helpers -------------------------------------------------------------------------------------------------

    def _named_models(self, name: str) -> list[str]:
        """Models that an experiment names: students, teachers and judges."""
        experiment = self.config.experiments[name]
        teachers = [self.config.feedback[item].teacher for item in experiment.feedback]
        judges = [
            self.config.golds[gold].model for gold in self.config.evaluations[experiment.evaluation].golds
        ]
        return [*experiment.students, *filter(None, teachers), *filter(None, judges)]

    def _corpus_data(self, corpus: str) -> set[str]:
        data = self.config.corpora[corpus].data
        return {data} if data else set()

    def _model(self, name: str) -> Model:
        return self.config.models[name]

    def _identity(self, cell: Cell, run: str, gold: str) -> dict[str, Any]:
        return {"gold": gold, "run": run, "data": cell.data, "share": cell.share, "seed": cell.seed}

    def _drop_key(self, data: str) -> str:
        return json.dumps(self.config.data[data].model_dump(exclude={"temperature"}), sort_keys=True)


class GridCell:
    """A cell that is no rule's wildcards."""

    def __init__(self, data: str, share: str, seed: str) -> None:
        self.data = data
        self.share = share
        self.seed = seed


def cell_path(cell: Cell) -> str:
    """``<data>/<share>/seed-<seed>``."""
    return f"{cell.data}/{cell.share}/seed-{cell.seed}"


def fraction(share: str) -> str:
    """``1-of-2`` -> ``1/2``."""
    return share.replace("-of-", "/")


def base_model(run: str) -> str:
    """The base model of a run: ``students/opt-1.3b/human/paper/dpo`` -> ``opt-1.3b``."""
    return run.split("/")[1]


def alternatives(names: Iterable[str]) -> str:
    """A regular expression of exactly these names; one that matches nothing for none."""
    listed = [name.replace(".", r"\.") for name in names]
    return "|".join(listed) if listed else "(?!)"


def has_gpu() -> bool:
    """Whether this machine shows an NVIDIA device; asks no library."""
    return os.path.exists("/proc/driver/nvidia/version") or os.path.exists("/dev/nvidia0")
