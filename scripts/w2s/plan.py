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

from w2s.config import all_feedback, expand_origin, golds_of
from w2s.feedback import POLICIES
from w2s.schema import Config, Experiment, Judge, Model, Step

MANIFEST = "manifest.json"
# Files of an experiment by the way it is drawn or written.
DRAWN = ("pdf", "png", "csv")
WRITTEN = ("md", "html", "csv")
FIGURES = {
    **dict.fromkeys(("bars", "lines", "comparisons", "similarity", "label_noise"), DRAWN),
    **dict.fromkeys(("table", "examples", "recipes"), WRITTEN),
}


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

    def responses(self, cell: Cell, part: str, run: str) -> str:
        """Rewards of the data's responses, by ``golds/<gold>`` or by a teacher's reward model."""
        return self.manifest("responses", cell_path(cell), part, run)

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

    def feedback_scores(self, cell: Cell, part: str, feedback: str, step: Step) -> list[str]:
        """Scores under the teacher (step "dpo") or its reference (step "sft"), for a policy that takes them."""
        entry = self.config.feedback[feedback]
        if POLICIES[entry.policy].takes != "scores":
            return []
        assert entry.teacher is not None and entry.recipe is not None
        return [self.scores(cell, part, self.tuned(f"teachers/{entry.teacher}", entry.recipe, step))]

    def feedback_rewards(self, cell: Cell, part: str, feedback: str) -> list[str]:
        """Rewards by a reward-model teacher, for a policy that takes them."""
        entry = self.config.feedback[feedback]
        if POLICIES[entry.policy].takes != "rewards":
            return []
        return [self.responses(cell, part, f"teachers/{entry.teacher}/{entry.recipe}/reward")]

    def feedback_preferences(self, cell: Cell, part: str, feedback: str) -> list[str]:
        """Replies of a prompted LLM, for a policy that takes them."""
        entry = self.config.feedback[feedback]
        if POLICIES[entry.policy].takes != "preferences":
            return []
        return [self.manifest("judged/preferences", cell_path(cell), part, f"{entry.judge}-{entry.template}")]

    def feedback_labels(self, cell: Cell, part: str, feedback: str) -> list[str]:
        """Label files that a policy begins with."""
        return [self.labels(cell, part, name) for name in self.config.feedback[feedback].of]

    # -- what a student or teacher is tuned from -----------------------------------------------------------------

    def tuned(self, kind_and_model: str, recipe: str, step: Step, feedback: str = "") -> str:
        """A run's name; SFT belongs to the recipe that declares it, so that recipes of one SFT share it."""
        owner = self.config.recipes[recipe].sft_of or recipe if step == "sft" else recipe
        return "/".join(filter(None, (kind_and_model, feedback, owner, step)))

    def before_dpo(self, kind: str, model: str, recipe: str, feedback: str = "") -> str:
        """The run that DPO begins with, which is its reference too: after SFT, or the base model."""
        if self.config.recipes[recipe].without_sft:
            return f"models/{model}"
        return self.tuned(f"{kind}/{model}", recipe, "sft", feedback)

    def learns_from(self, feedback: str) -> str:
        """The part of the split that a student of this feedback is trained on."""
        return POLICIES[self.config.feedback[feedback].policy].part

    def response_judge(self, run: str) -> str:
        """The reward model behind ``golds/<name>``; other runs are models that were made in a cell."""
        model = self.config.golds[run.removeprefix("golds/")].model
        assert model is not None
        return self.manifest("models", model)

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
        return flags(settings | {"limit": data.limit, "test_limit": data.test_limit or None})

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
        settings = model.pretrain.model_dump(exclude={"tokenizer", "corpus"})
        # What is off is not named: specs are those of configurations that do not know the key.
        settings["architecture"] = (
            None if model.pretrain.architecture == "opt" else model.pretrain.architecture
        )
        return flags(settings | {"precision": model.precision})

    def train_reward_model(self, name: str) -> str:
        """Spec of ``train_reward_model``."""
        model = self._model(name)
        assert model.reward is not None
        return flags(model.reward.model_dump(exclude={"base", "data"}) | {"precision": model.precision})

    def training(self, recipe: str, model: str, step: Step, part: str, cell: Cell) -> str:
        """Spec of the training stages."""
        entry = self.config.recipes[recipe]
        settings = entry.step(model, step).model_dump()
        settings["epochs"] *= entry.longer(cell.share)
        # What is off is not named: specs are those of configurations that do not know the key.
        settings["label_smoothing"] = settings.get("label_smoothing") or None
        return flags({"part": part, **settings, "precision": self._model(model).precision, "seed": cell.seed})

    def score_responses(self, run: str, part: str) -> str:
        """Spec of ``score_responses``."""
        return flags({"part": part, "precision": self._model(base_model(run)).precision})

    def label_examples(self, cell: Cell, part: str, feedback: str) -> str:
        """Spec of ``label_examples``."""
        entry = self.config.feedback[feedback]
        policy = POLICIES[entry.policy]
        settings: dict[str, Any] = {"part": part, "policy": entry.policy}
        settings["beta"] = entry.beta if policy.takes == "scores" else None
        settings["tie"] = entry.tie if policy.takes is not None else None
        settings["seed"] = cell.seed if policy.takes == "labels" else None
        return flags(settings | {"options": entry.options or None})

    def reward_responses(self, run: str, part: str) -> str:
        """Spec of ``reward_responses``, by a gold model or by a teacher's reward model."""
        name = run.removeprefix("golds/") if run.startswith("golds/") else None
        if name:
            gold = self.config.golds[name]
            assert gold.model is not None
            template, precision = gold.fallback_template, self._model(gold.model).precision
        else:  # a teacher's reward model reads its pairs as it did in training
            template, precision = "plain", self._model(base_model(run)).precision
        return flags({"part": part, "gold": name, "fallback_template": template, "precision": precision})

    def reward_responses_exact(self, run: str, part: str) -> str:
        """Spec of ``reward_responses_exact``."""
        name = run.removeprefix("golds/")
        world = self.config.golds[name].world
        assert world is not None
        return flags({"part": part, "gold": name, "world": self.world(world)})

    # -- prompted LLMs -------------------------------------------------------------------------------------------

    def judge(self, name: str) -> dict[str, Any]:
        """What of a judge decides its replies: model and sampling, or the world and its noise."""
        judge = self.config.judges[name]
        if judge.world is not None:
            return {"world": self.world(judge.world), "noise": judge.noise}
        return judge.model_dump(include={"model", "temperature", "top_p", "max_tokens"})

    def judge_variables(self) -> list[str]:
        """Environment variables with the addresses and keys of judges."""
        entries = self.config.judges.values()
        return sorted({name for entry in entries for name in (entry.base_url_variable, entry.key_variable)})

    def judge_options(self, name: str) -> str:
        """How a judge is reached, how fast and at what price it may be asked, and where its replies are kept."""
        judge: Judge = self.config.judges[name]
        keys = (
            *("base_url_variable", "key_variable", "concurrency", "requests_per_minute", "attempts"),
            *("price_input", "price_output", "budget_usd"),
        )
        store = f"{self.config.resources}/replies/{name}.sqlite"
        return flags({"store": store, **{key: getattr(judge, key) for key in keys}})

    def judge_preferences(self, judge: str, template: str, part: str) -> str:
        """Spec of ``judge_preferences``."""
        return flags({"part": part, **self._asked(judge), "template": template})

    def judge_comparisons(self, cell: Cell, run: str, against: str, judge: str, prompts: str) -> str:
        """Spec of ``judge_comparisons``."""
        counts = {"prompts": prompts, "seed": cell.seed}
        identity = {"run": run, "against": against, "data": cell.data, "share": cell.share}
        return flags(self._asked(judge) | counts | identity)

    def judge_votes(self, cell: Cell, feedback: str, judge: str, pairs: str, votes: str) -> str:
        """Spec of ``judge_votes``."""
        counts = {"pairs": pairs, "votes": votes, "seed": cell.seed}
        identity = {"feedback": feedback, "data": cell.data, "share": cell.share}
        return flags(self._asked(judge) | counts | identity)

    def _asked(self, judge: str) -> dict[str, Any]:
        return {"judge": judge, "settings": self.judge(judge), "again": self.config.judges[judge].again}

    def score_similarity(self, cell: Cell, run: str, encoder: str, pooling: str, cut: str) -> str:
        """Spec of ``score_similarity``; ``cut`` is "cut" where long texts lose their ends, else "whole"."""
        settings = {"encoder_name": encoder, "pooling": pooling, "truncate": cut == "cut"}
        settings |= {"precision": self._model(encoder).precision}
        identity = {"run": run, "data": cell.data, "share": cell.share, "seed": cell.seed}
        return flags(identity | settings)

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
        recipes = {recipe: self.config.recipes[recipe] for recipe in experiment.recipes}
        return flags(
            {
                "experiment": name,
                "main_gold": golds_of(self.config, experiment)[0],
                "bootstrap": self.config.evaluations[experiment.evaluation].bootstrap,
                "bootstrap_seed": 0,
                "reference_feedback": self.reference_feedback(experiment),
                "betas": {recipe: entry.dpo.beta for recipe, entry in recipes.items() if entry.dpo} or None,
                "examples_shown": experiment.examples or None,
                "recipes": self._recipe_settings(experiment) if experiment.figure == "recipes" else None,
            }
        )

    # -- targets -----------------------------------------------------------------------------------------------

    def cells(self, experiment: str) -> list[GridCell]:
        """The cells of an experiment: data set x labelled share x seed."""
        entry = self.config.experiments[experiment]
        shares = [share.replace("/", "-of-") for share in entry.shares]
        return [
            GridCell(data, share, str(seed))
            for data in entry.data
            for share in shares
            for seed in entry.seeds
        ]

    def runs(self, experiment: str) -> list[str]:
        """The models of an experiment that are judged in each cell, each once."""
        entry = self.config.experiments[experiment]
        runs = [f"models/{student}" for student in entry.students] if entry.untuned else []
        runs += self.student_runs(experiment, entry.steps)
        if entry.teachers:
            runs += self.teacher_runs(experiment)
        return list(dict.fromkeys(runs))

    def student_runs(self, experiment: str, steps: Iterable[Step]) -> list[str]:
        """The tuned students of an experiment."""
        entry = self.config.experiments[experiment]
        return [
            self.tuned(f"students/{student}", recipe, step, feedback)
            for student in entry.students
            for feedback in entry.feedback
            for recipe in entry.recipes
            for step in steps
            if step == "dpo" or not self.config.recipes[recipe].without_sft
        ]

    def teacher_runs(self, experiment: str) -> list[str]:
        """The aligned teachers of an experiment that are language models."""
        entries = [self.config.feedback[name] for name in self.config.experiments[experiment].feedback]
        return [
            self.tuned(f"teachers/{entry.teacher}", entry.recipe, "dpo")
            for entry in entries
            if entry.teacher and entry.recipe and POLICIES[entry.policy].takes == "scores"
        ]

    def rewards(self, experiment: str) -> list[str]:
        """Judged generations of an experiment: cell x model x judge."""
        entry = self.config.experiments[experiment]
        return [
            self.manifest("gold", cell_path(cell), entry.evaluation, run, gold)
            for cell in self.cells(experiment)
            for run in self.runs(experiment)
            for gold in golds_of(self.config, entry)
        ]

    def experiment_responses(self, experiment: str) -> list[str]:
        """Gold rewards of the data's responses in D_u."""
        entry = self.config.experiments[experiment]
        if not (entry.responses or entry.examples):
            return []
        return [
            self.responses(cell, "unlabelled", f"golds/{gold}")
            for cell in self.cells(experiment)
            for gold in golds_of(self.config, entry)
        ]

    def experiment_comparisons(self, experiment: str) -> list[str]:
        """Each arm's responses beside the human arm's, as an LLM judges them."""
        entry = self.config.experiments[experiment]
        if entry.comparison is None:
            return []
        judge = f"{entry.comparison.judge}-{entry.comparison.prompts}"
        runs = [run for run in self.student_runs(experiment, ["dpo"]) if "/human/" not in run]
        return [
            self.manifest("judged/comparisons", cell_path(cell), entry.evaluation, run, judge)
            for cell in self.cells(experiment)
            for run in runs
        ]

    def experiment_votes(self, experiment: str) -> list[str]:
        """An LLM's votes on pairs of each feedback's labels."""
        entry = self.config.experiments[experiment]
        if entry.votes is None:
            return []
        judge = f"{entry.votes.judge}-{entry.votes.pairs}x{entry.votes.votes}"
        return [
            self.manifest("judged/votes", cell_path(cell), feedback, judge)
            for cell in self.cells(experiment)
            for feedback in entry.feedback
        ]

    def experiment_similarities(self, experiment: str) -> list[str]:
        """Likeness of students' and teachers' responses to what people chose."""
        entry = self.config.experiments[experiment]
        if entry.similarity is None:
            return []
        cut = "cut" if entry.similarity.truncate else "whole"
        encoder = f"{entry.similarity.encoder}-{entry.similarity.pooling}-{cut}"
        runs = [*self.student_runs(experiment, ["dpo"]), *self.teacher_runs(experiment)]
        return [
            self.manifest("similarity", cell_path(cell), entry.evaluation, run, encoder)
            for cell in self.cells(experiment)
            for run in dict.fromkeys(runs)
        ]

    def experiment_labels(self, experiment: str) -> list[str]:
        """All label files that students of an experiment learn from."""
        return [
            self.labels(cell, self.learns_from(name), name)
            for cell in self.cells(experiment)
            for name in self.config.experiments[experiment].feedback
        ]

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

    def figures(self) -> list[str]:
        """Files of the experiments that are to run, and of one drop report per data set.

        Whoever wants a figure back names each of its files: Snakemake makes no file that nothing asks for.
        """
        # Noise levels share their examples, so one drop report speaks for all data sets of a world.
        drops = {self._drop_key(data): data for data in reversed(self.data_sets())}
        named = [
            self.path("figures", f"drops_{data}.{suffix}") for data in drops.values() for suffix in DRAWN
        ]
        return [path for name in self.config.run for path in self.figure_files(name)] + sorted(named)

    def figure_files(self, experiment: str) -> list[str]:
        """The files that an experiment is drawn or written in."""
        figure = self.config.experiments[experiment].figure
        return [
            self.path("figures", f"{experiment}.{suffix}") for suffix in (FIGURES[figure] if figure else ())
        ]

    def item(self, experiment: str) -> list[str]:
        """All that an experiment leaves: its tables and its figure."""
        return [self.manifest("tables", experiment), *self.figure_files(experiment)]

    def paper_items(self, paper: str) -> list[str]:
        """Experiments to run that are a paper's tables and figures: those named ``a_...`` (``b_...``)."""
        return [name for name in self.config.run if name.startswith(f"{paper}_")]

    def paper_tables(self, paper: str) -> list[str]:
        """Tables of a paper's items."""
        return [self.manifest("tables", name) for name in self.paper_items(paper)]

    def score_claims(self) -> str:
        """Spec of ``score_claims``: the data sets that are a world's, for which some claims cannot speak."""
        worlds = [name for name in self.data_sets() if self.config.data[name].world]
        return flags({"world_data": worlds or None})

    def shown_prompts(self, experiment: str, base: Path) -> list[str]:
        """The wordings with which an LLM compares two responses: shown where the paper prints its own, Table 6."""
        found = sorted((base / "prompts").glob("compare*.txt")) if experiment == "a_table_6" else []
        return [path.relative_to(base).as_posix() for path in found]

    def layout(self, experiment: str) -> str:
        """How an experiment's table is laid out."""
        return self.config.experiments[experiment].layout

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
        """Models that an experiment names: students, teachers, judges and encoders."""
        experiment = self.config.experiments[name]
        teachers = [self.config.feedback[item].teacher for item in all_feedback(self.config, experiment)]
        judges = [self.config.golds[gold].model for gold in golds_of(self.config, experiment)]
        encoders = [experiment.similarity.encoder] if experiment.similarity else []
        return [*experiment.students, *filter(None, teachers), *filter(None, judges), *encoders]

    def _recipe_settings(self, experiment: Experiment) -> dict[str, Any]:
        """Each step's settings of the recipes that an experiment shows (Tables 7 and 8)."""
        shown = {}
        for recipe in experiment.recipes:
            entry = self.config.recipes[recipe]
            steps: tuple[Step, ...] = ("sft", "dpo")
            shown[recipe] = {
                step: entry.step(experiment.students[0], step).model_dump()
                for step in steps
                if getattr(entry, step) is not None
            }
        return shown

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
