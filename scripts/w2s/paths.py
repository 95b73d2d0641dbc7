"""Where artifacts lie, and which of them a rule reads."""

from __future__ import annotations

from pathlib import Path

from w2s.config import expand_origin
from w2s.feedback import POLICIES
from w2s.schema import Config, Model
from w2s.sections import Step
from w2s.words import MANIFEST, Cell, cell_path


class Paths:
    """Paths of one validated configuration.

    Attributes:
        config: the configuration.
        root: folder of the preset's results.
    """

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

    # -- helpers -------------------------------------------------------------------------------------------------

    def corpus_data(self, corpus: str) -> set[str]:
        """The data set that a corpus is taken from, as a set of one or none."""
        data = self.config.corpora[corpus].data
        return {data} if data else set()

    def model(self, name: str) -> Model:
        """A model's entry in the catalogue."""
        return self.config.models[name]
