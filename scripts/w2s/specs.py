"""Settings of each stage as its command line: what the workflow compares is what the script receives, word for word."""

from __future__ import annotations

import json
from typing import Any

from w2s.config import golds_of
from w2s.feedback import POLICIES
from w2s.paths import Paths
from w2s.schema import Experiment, Judge
from w2s.sections import Step
from w2s.words import Cell, base_model, flags, fraction


class Specs(Paths):
    """The spec of each stage, a string of named flags."""

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
        elif corpus.concepts:
            settings = {"kind": "concept-records" if corpus.style else "concepts"}
            settings["world"] = self.concept_world(corpus.concepts)
            if corpus.style:
                settings |= corpus.model_dump(include={"style", "wrong_operations", "slips"})
        return flags(settings | {"texts": corpus.texts, "seed": corpus.seed})

    def concept_world(self, name: str) -> dict[str, Any]:
        """Settings of a concept world, the demo world of paper B."""
        return self.config.concepts[name].model_dump(exclude_none=True)

    def import_model(self, name: str) -> str:
        """Spec of ``import_model``."""
        model = self.model(name)
        return flags({"positions": model.positions, "pad_token": model.pad_token})

    def pretrain_model(self, name: str) -> str:
        """Spec of ``pretrain_model``."""
        model = self.model(name)
        assert model.pretrain is not None
        settings = model.pretrain.model_dump(exclude={"tokenizer", "corpus"})
        # What is off is not named: specs are those of configurations that do not know the key.
        settings["architecture"] = (
            None if model.pretrain.architecture == "opt" else model.pretrain.architecture
        )
        return flags(settings | {"precision": model.precision})

    def train_reward_model(self, name: str) -> str:
        """Spec of ``train_reward_model``."""
        model = self.model(name)
        assert model.reward is not None
        return flags(model.reward.model_dump(exclude={"base", "data"}) | {"precision": model.precision})

    def training(self, recipe: str, model: str, step: Step, part: str, cell: Cell) -> str:
        """Spec of the training stages."""
        entry = self.config.recipes[recipe]
        settings = entry.step(model, step).model_dump()
        settings["epochs"] *= entry.longer(cell.share)
        # What is off is not named: specs are those of configurations that do not know the key.
        settings["label_smoothing"] = settings.get("label_smoothing") or None
        return flags({"part": part, **settings, "precision": self.model(model).precision, "seed": cell.seed})

    def score_responses(self, run: str, part: str) -> str:
        """Spec of ``score_responses``."""
        return flags({"part": part, "precision": self.model(base_model(run)).precision})

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
            template, precision = gold.fallback_template, self.model(gold.model).precision
        else:  # a teacher's reward model reads its pairs as it did in training
            template, precision = "plain", self.model(base_model(run)).precision
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
        settings |= {"precision": self.model(encoder).precision}
        identity = {"run": run, "data": cell.data, "share": cell.share, "seed": cell.seed}
        return flags(identity | settings)

    def generate(self, cell: Cell, evaluation: str, run: str) -> str:
        """Spec of ``generate``."""
        entry = self.config.evaluations[evaluation]
        settings = entry.model_dump(include={"prompts", "temperature", "top_p", "max_new_tokens", "stop"})
        precision = self.model(base_model(run)).precision
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
            "precision": self.model(entry.model).precision,
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
                "without_sft": [recipe for recipe, entry in recipes.items() if entry.without_sft] or None,
                "examples_shown": experiment.examples or None,
                "recipes": self._recipe_settings(experiment) if experiment.figure == "recipes" else None,
            }
        )

    def reference_feedback(self, experiment: Experiment) -> str:
        """The feedback that the others are compared with: human labels where they are among the arms."""
        human = [name for name in experiment.feedback if self.config.feedback[name].policy == "human"]
        return (human or experiment.feedback)[0]

    # -- helpers -------------------------------------------------------------------------------------------------

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

    def _identity(self, cell: Cell, run: str, gold: str) -> dict[str, Any]:
        return {"gold": gold, "run": run, "data": cell.data, "share": cell.share, "seed": cell.seed}
