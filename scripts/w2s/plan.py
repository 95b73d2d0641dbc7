"""From the configuration to paths, command lines and targets: everything that the rules need to know.

The rules stay declarative: each asks :class:`Plan` for its inputs (:mod:`w2s.paths`) and for its *spec*
(:mod:`w2s.specs`), a string of named flags. The spec is at once what Snakemake compares (names and values, so that two
exchanged values are a change) and what the script receives, word for word: what is compared is what is run. Here are
the targets: what an experiment consists of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from w2s.config import all_feedback, golds_of
from w2s.feedback import POLICIES
from w2s.sections import Step
from w2s.transfer_plan import TransferPlan
from w2s.words import GridCell, cell_path, flags

# Files of an experiment by the way it is drawn or written.
DRAWN = ("pdf", "png", "csv")
WRITTEN = ("md", "html", "csv")
FIGURES = {
    **dict.fromkeys(("bars", "lines", "comparisons", "similarity", "label_noise"), DRAWN),
    **dict.fromkeys(("table", "examples", "recipes"), WRITTEN),
}


class Plan(TransferPlan):
    """Paths, specs and targets of one validated configuration."""

    @property
    def experiments(self) -> list[str]:
        """Experiments of paper A that are to run."""
        return [name for name in self.config.run if name in self.config.experiments]

    @property
    def transfers(self) -> list[str]:
        """Transfers, the experiments of paper B, that are to run."""
        return [name for name in self.config.run if name in self.config.transfers]

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
        """Tables of all that is to run."""
        return [self.manifest("tables", name) for name in self.config.run]

    def measured(self) -> list[str]:
        """Tables of the experiments and transfers that are to run: what models did, unlike the theory's simulations."""
        return [self.manifest("tables", name) for name in self.config.run if name not in self.config.mixtures]

    def export_crate(self) -> str:
        """Spec of ``export_crate``."""
        agent = self.config.runtime.agent
        return flags(
            {"preset": self.config.preset, "agent": agent.model_dump(exclude_none=True) if agent else None}
        )

    def data_sets(self) -> list[str]:
        """Data sets of the experiments that are to run, in order, each once."""
        return list(
            dict.fromkeys(data for name in self.experiments for data in self.config.experiments[name].data)
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

    def figure_files(self, name: str) -> list[str]:
        """The files that an item is drawn or written in."""
        if name in self.config.transfers:
            return self.transfer_files(name)
        if name in self.config.mixtures:
            return [self.path("figures", f"{name}.{suffix}") for suffix in DRAWN]
        figure = self.config.experiments[name].figure
        return [self.path("figures", f"{name}.{suffix}") for suffix in (FIGURES[figure] if figure else ())]

    def item(self, name: str) -> list[str]:
        """All that an experiment, a transfer or a simulation leaves: its tables and its figure."""
        return [self.manifest("tables", name), *self.figure_files(name)]

    def paper_items(self, paper: str) -> list[str]:
        """Experiments to run that are a paper's tables and figures: those named ``a_...`` (``b_...``)."""
        return [name for name in self.config.run if name.startswith(f"{paper}_")]

    def paper_tables(self, paper: str) -> list[str]:
        """Tables of a paper's items."""
        return [self.manifest("tables", name) for name in self.paper_items(paper)]

    def scorecards(self) -> list[str]:
        """The scorecard of each paper of which something runs."""
        return [
            self.path("scorecard", f"claims_{paper}.{suffix}")
            for paper in ("a", "b")
            if self.paper_items(paper)
            for suffix in ("html", "csv", "json")
        ]

    def published(self, paper: str) -> str:
        """What a paper printed, or its authors released."""
        return {"a": "published/values.csv", "b": "published/values-b.csv"}[paper]

    def score_claims(self, paper: str) -> str:
        """Spec of ``score_claims``: the data sets that are a world's, for which some claims cannot speak."""
        if paper == "a":
            worlds = [name for name in self.data_sets() if self.config.data[name].world]
        else:
            tests = [name for transfer in self.transfers for name in self.transfer_tests(transfer)]
            worlds = [name for name in dict.fromkeys(tests) if self.config.questions[name].world]
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

    # -- what a machine must have --------------------------------------------------------------------------------

    def needed_sources(self) -> list[str]:
        """Sources that the experiments to run need, directly or through their models, tokenizers and corpora."""
        data, models, tokenizers, sources = set(self.data_sets()), set[str](), set[str](), set[str]()
        queue = [model for name in self.experiments for model in self._named_models(name)]
        queue += [model for name in self.transfers for model in self.transfer_models(name)]
        while queue:
            name = queue.pop()
            if name in models:
                continue
            models.add(name)
            entry = self.model(name)
            if entry.source:
                sources.add(entry.source)
            elif entry.reward:
                queue.append(entry.reward.base)
                data.add(entry.reward.data)
            elif entry.pretrain:
                tokenizers.add(entry.pretrain.tokenizer)
                data |= self.corpus_data(entry.pretrain.corpus)
        tokenizers |= {self.config.data[name].tokenizer for name in data}
        for name in tokenizers:
            tokenizer = self.config.tokenizers[name]
            sources |= {tokenizer.source} if tokenizer.source else set()
            data |= self.corpus_data(tokenizer.corpus) if tokenizer.corpus else set()
        sources |= {file.source for name in data for file in self.config.data[name].files}
        questions = {item for name in self.transfers for item in self.transfer_questions(name)}
        sources |= {file.source for name in questions for file in self.config.questions[name].files}
        return sorted(sources)

    def local_folders(self) -> list[str]:
        """Folders of the local sources that the experiments to run need."""
        local = [name for name in self.needed_sources() if self.config.sources[name].kind == "local"]
        return [self.folder(name) for name in local]

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

    def _drop_key(self, data: str) -> str:
        return json.dumps(self.config.data[data].model_dump(exclude={"temperature"}), sort_keys=True)
