"""Paper B's part of the plan: who asks whom about what, as paths, command lines and targets.

The chain is prompts -> answers, again and again: weak answers, intents, refined answers and test answers are all answers
to prompts. :class:`AnswersName` (:mod:`w2s.transfer_runs`) is the key of each; everything here follows from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

from w2s import transfer_runs
from w2s.schema_transfer import Refinement, Student, Test, Transfer
from w2s.specs import Specs
from w2s.transfer_runs import DRAFT, PLAIN, REFINED, TUNED, WEAK, AnswersName, RecordsName
from w2s.words import alternatives, flags

DRAWN, WRITTEN = ("pdf", "png", "csv"), ("md", "html", "csv")
FIGURES = {"panels": DRAWN, "examples": DRAWN} | dict.fromkeys(
    ("maths", "bias", "baselines", "failures"), WRITTEN
)
# Kinds of labels that a training set is gathered from, by method.
KINDS = {
    "weak": ["weak"],
    "own": ["own"],
    "doubled": ["weak", "own"],
    "gold": ["gold"],
    **dict.fromkeys(("icl", "infer", "improve", "bootstrapped"), ["refined"]),
}


class Labels(Protocol):
    """What a rule's wildcards say of the labels that a student learns from."""

    task: str
    seed: str
    weak: str
    refiner: str
    refinement: str


class TransferPlan(Specs):
    """Paths, specs and targets of transfers and of the theory's simulations."""

    # -- names -------------------------------------------------------------------------------------------------

    def answers(self, name: AnswersName) -> str:
        """The manifest of these answers."""
        return self.manifest(transfer_runs.path(name))

    def named(self, asked: str) -> AnswersName:
        """The answers behind a rule's wildcard: what follows ``answers/`` in their path."""
        return transfer_runs.parse_answers(f"{transfer_runs.ANSWERS}/{asked}")

    def student(self, labels: Labels) -> AnswersName:
        """Answers of the student that learns from these labels; which base it has makes no difference to them."""
        train = self.config.tasks[labels.task].train
        weak, refiner = ("" if part == transfer_runs.NONE else part for part in (labels.weak, labels.refiner))
        return AnswersName(
            *(labels.task, train, int(labels.seed), TUNED, "", weak, refiner, labels.refinement, "any", "any")
        )

    def records(self, name: AnswersName) -> str:
        """The training set of a student."""
        found = RecordsName(name.task, name.seed, name.weak, name.refiner, name.refinement)
        return self.manifest(transfer_runs.records_path(found))

    def asked_of(self, kind: str) -> str:
        """Pattern of the answers that come from local models (``model``) or from endpoints (``endpoint``)."""
        writers = alternatives(self.writers_of(kind))
        return (
            rf"[^/]+/[^/]+/seed-\d+/((plain|weak|draft)/({writers})"
            rf"|weak-[^/]+/refiner-({writers})/[^/]+(/intents)?"
            rf"|tuned/weak-[^/]+/refiner-[^/]+/[^/]+/base-({writers})/[^/]+)"
        )

    def writers_of(self, kind: str) -> list[str]:
        """Writers that are local models (``model``) or stand behind endpoints (``endpoint``)."""
        return [name for name, writer in self.config.writers.items() if getattr(writer, kind)]

    def transfers_drawn(self, *figures: str) -> list[str]:
        """Transfers that are drawn or written in one of these ways."""
        return [name for name, entry in self.config.transfers.items() if entry.figure in figures]

    # -- what is asked -----------------------------------------------------------------------------------------

    def questions(self, name: str) -> str:
        """A set of questions."""
        return self.manifest("questions", name)

    def question_sources(self, name: str) -> list[str]:
        """Raw files of a set of questions."""
        return [
            self.source(source)
            for source in dict.fromkeys(f.source for f in self.config.questions[name].files)
        ]

    def written_answers(self, name: str) -> list[str]:
        """A writer's lists of questions, for a set that is written by one."""
        entry = self.config.questions[name]
        if entry.written is None:
            return []
        # Both sides are parts of the same lists: those of the first set that is written in this way.
        first = next(
            other
            for other, them in self.config.questions.items()
            if (them.written, them.seed) == (entry.written, entry.seed)
        )
        topics, writer = entry.written.topics, entry.written.writer
        return [self.answers(AnswersName(first, topics, entry.seed, PLAIN, writer=writer))]

    def prompts(self, name: AnswersName) -> str:
        """What these answers answer. Plain and weak prompts depend on no seed."""
        if name.kind == REFINED or self._corrupts(name):
            return self.manifest(transfer_runs.path(name).replace(transfer_runs.ANSWERS, "prompts", 1))
        return self.manifest(
            "prompts", name.task, name.questions, WEAK if name.kind in (WEAK, DRAFT) else PLAIN
        )

    def _corrupts(self, name: AnswersName) -> bool:
        """Whether these are a weak model's answers that it made of its own first ones, getting facts wrong on purpose."""
        if name.kind != WEAK:
            return False
        task = self.config.tasks[name.task]
        return task.templates.corrupt is not None and name.questions == task.train

    def weak_answers(self, name: AnswersName) -> AnswersName:
        """The weak model's own answers to the training questions that refined answers or prompts begin with."""
        train = self.config.tasks[name.task].train
        return AnswersName(name.task, train, name.seed, WEAK, writer=name.weak)

    def prompt_inputs(self, wording: str) -> dict[str, list[str]]:
        """What prompts are written from: those of a rule's wildcard, what follows ``prompts/`` in their path."""
        inputs: dict[str, list[str]] = {"questions": [self.questions(wording.split("/")[1])]}
        inputs |= dict.fromkeys(("answers", "example_questions", "intents", "intent_prompts"), [])
        if is_plain(wording):
            return inputs
        name = self.named(wording)
        if name.kind == WEAK:
            return inputs | {"answers": [self.answers(replace(name, kind=DRAFT))]}
        if self.config.refinements[name.refinement].method == "infer" and not name.intents:
            intents = replace(name, intents=True)
            return inputs | {"intents": [self.answers(intents)], "intent_prompts": [self.prompts(intents)]}
        inputs["answers"] = [self.answers(self.weak_answers(name))]
        train = self.config.tasks[name.task].train
        if name.questions != train:
            inputs["example_questions"] = [self.questions(train)]
        return inputs

    def write_prompts(self, wording: str) -> str:
        """Spec of ``write_prompts``."""
        if is_plain(wording):
            task, _, kind = wording.split("/")
            return flags({"method": "plain", "template": self._plain_template(task, kind)})
        name = self.named(wording)
        templates = self.config.tasks[name.task].templates
        if name.kind == WEAK:
            return flags({"method": "improve", "template": templates.corrupt})
        entry = self.config.refinements[name.refinement]
        if entry.method == "icl":
            settings = {"shown": entry.shown, "choice": entry.choice, "seed": name.seed}
            return flags({"method": "icl", "template": templates.icl, **settings})
        if entry.method == "infer" and name.intents:
            return flags(
                {"method": "infer", "template": templates.infer, "batch": self.config.tasks[name.task].batch}
            )
        method = "respond" if entry.method == "infer" else "improve"
        return flags({"method": method, "template": getattr(templates, method)})

    def _plain_template(self, task: str, kind: str) -> str:
        """The wording where nothing but the question is asked; lists of questions are asked for by topic."""
        if task in self.config.questions:
            written = self.config.questions[task].written
            assert written is not None
            return written.template
        return getattr(self.config.tasks[task].templates, kind)

    # -- who answers -------------------------------------------------------------------------------------------

    def writer(self, name: AnswersName) -> str:
        """The writer whose sampling is used: a student answers as its base does."""
        return name.writer or name.base or name.refiner

    def answering_model(self, name: AnswersName) -> str:
        """The model that answers: a writer's, or the tuned student."""
        if name.kind == TUNED:
            return self.tuned_student(name)
        return self.manifest("models", self._local(self.writer(name)))

    def tuned_student(self, name: AnswersName) -> str:
        """The manifest of a tuned student."""
        labels = transfer_runs.records_path(
            RecordsName(name.task, name.seed, name.weak, name.refiner, name.refinement)
        ).replace(transfer_runs.RECORDS, "tuned", 1)
        return self.manifest(labels, f"base-{name.base}", name.fine_tuning)

    def answer_prompts(self, name: AnswersName) -> str:
        """Spec of ``answer_prompts``."""
        writer = self.config.writers[self.writer(name)]
        settings = writer.model_dump(
            include={"temperature", "top_p", "max_new_tokens", "stop", "chat", "chat_sha256"}
        )
        backend = None if self.config.runtime.generation == "transformers" else self.config.runtime.generation
        precision = self.model(self._local(self.writer(name))).precision
        return flags(settings | {"seed": name.seed, "precision": precision, "backend": backend})

    def request_answers(self, name: AnswersName) -> str:
        """Spec of ``request_answers``."""
        writer = self.writer(name)
        endpoint = self.config.writers[writer].endpoint
        assert endpoint is not None
        return flags({"writer": writer, "settings": self.judge(endpoint), "seed": name.seed})

    def tuned_here(self, name: AnswersName) -> list[str]:
        """The tuned student that answers, of answers by an endpoint's; none where the writer itself answers."""
        return [self.tuned_student(name)] if name.kind == TUNED else []

    def endpoint_options(self, writer: str) -> str:
        """How a writer's endpoint is reached, at what price and where its replies are kept."""
        endpoint = self.config.writers[writer].endpoint
        assert endpoint is not None
        return self.judge_options(endpoint)

    # -- what students learn -------------------------------------------------------------------------------------

    def record_answers(self, name: AnswersName) -> list[str]:
        """The answers that a training set is gathered from, in the order of its kinds."""
        return [self.answers(answers) for answers in self.labels_of(name)]

    def labels_of(self, name: AnswersName) -> list[AnswersName]:
        """Whose answers to the training questions are the labels of a refinement; none for gold ones."""
        entry, train = self.config.refinements[name.refinement], self.config.tasks[name.task].train
        match entry.method:
            case "gold":
                return []
            case "weak":
                return [self.weak_answers(name)]
            case "own" | "doubled":
                own = AnswersName(name.task, train, name.seed, PLAIN, writer=name.refiner)
                return [own] if entry.method == "own" else [self.weak_answers(name), own]
            case "bootstrapped":
                assert entry.through is not None
                return [replace(name, questions=train, refiner="", **entry.through.model_dump())]
            case _:
                return [replace(name, questions=train, kind=REFINED, base="", fine_tuning="")]

    def gather_records(self, name: AnswersName) -> str:
        """Spec of ``gather_records``."""
        kinds = KINDS[self.config.refinements[name.refinement].method]
        return flags({"kinds": kinds, "prompt_template": self.config.tasks[name.task].templates.plain})

    def tune_student(self, base: str, fine_tuning: str, seed: str) -> str:
        """Spec of ``tune_student``."""
        entry, writer = self.config.fine_tunings[fine_tuning], self.config.writers[base]
        assert entry.sft is not None
        settings = entry.sft.model_dump(exclude={"loss_on"})
        if entry.confidence:
            settings |= {f"confidence_{key}": value for key, value in entry.confidence.model_dump().items()}
        chat = {"chat": writer.chat, "chat_sha256": writer.chat_sha256}
        precision = self.model(self._local(base)).precision
        return flags(settings | chat | {"precision": precision, "seed": seed})

    def request_tuning(self, base: str, fine_tuning: str, seed: str) -> str:
        """Spec of ``request_tuning``."""
        endpoint = self.config.writers[base].endpoint
        assert endpoint is not None
        settings = {"model": self.config.judges[endpoint].model} | (
            self.config.fine_tunings[fine_tuning].api or {}
        )
        return flags({"settings": settings, "seed": seed})

    def tuning_options(self, base: str) -> str:
        """How an endpoint's fine-tuning is reached, at what price, and where its jobs are kept."""
        name = self.config.writers[base].endpoint
        assert name is not None
        keys = ("base_url_variable", "key_variable", "attempts", "price_training", "budget_usd")
        book = f"{self.config.resources}/replies/{name}-tuning.sqlite"
        return flags({"book": book, **{key: getattr(self.config.judges[name], key) for key in keys}})

    # -- how answers are scored ----------------------------------------------------------------------------------

    def rate_answers(self, judge: str, template: str, samples: str) -> str:
        """Spec of ``rate_answers``."""
        entry = self.config.judges[judge]
        return flags(
            {
                "judge": judge,
                "settings": self.judge(judge),
                "again": entry.again,
                "template": template,
                "samples": samples,
            }
        )

    def ratings(self, name: AnswersName) -> list[str]:
        """A judge's ratings of test answers, where the task asks for them."""
        ratings = self._test(name).ratings
        if ratings is None:
            return []
        return [
            self.manifest(
                f"rated/{ratings.judge}-{ratings.template}-{ratings.samples}", transfer_runs.path(name)
            )
        ]

    def answer_scores(self, name: AnswersName) -> str:
        """The scores of answers."""
        return self.manifest("scores/b", transfer_runs.path(name))

    def scoring_weak(self, name: AnswersName) -> list[str]:
        """The weak model's answers to the same questions, for the metric ``copied``."""
        if "copied" not in self._test(name).metrics or not name.weak:
            return []
        return [self.answers(AnswersName(name.task, name.questions, name.seed, WEAK, writer=name.weak))]

    def score_answers(self, name: AnswersName) -> str:
        """Spec of ``score_answers``."""
        task, test = self.config.tasks[name.task], self._test(name)
        metrics: list[str] = []
        for metric in test.metrics:
            if metric != "copied" or name.weak:
                metrics += ["content", "style", "both"] if metric == "world" else [metric]
        settings: dict[str, Any] = {
            "metrics": metrics,
            "marker": task.marker if "marker" in metrics else None,
        }
        if "world" in test.metrics and task.world:
            settings |= {"world": self.concept_world(task.world), "style": task.style}
        if test.ratings:
            settings |= {"judge": test.ratings.judge, "rating_names": test.ratings.names}
        return flags(settings)

    def _test(self, name: AnswersName) -> Test:
        """How answers to these questions are scored; those to training questions as the first test's, without a judge."""
        tests = self.config.tasks[name.task].tests
        if name.questions in tests:
            return tests[name.questions]
        return next(iter(tests.values())).model_copy(update={"ratings": None})

    # -- specs of data -----------------------------------------------------------------------------------------

    def import_questions(self, name: str) -> str:
        """Spec of ``import_questions``."""
        entry = self.config.questions[name]
        settings: dict[str, Any] = entry.model_dump(
            include={
                "adapter",
                "form",
                "without_context",
                "style",
                "items",
                "part",
                "first",
                "sample",
                "seed",
            }
        )
        if entry.files:
            settings["files"] = json.dumps([file.model_dump() for file in entry.files], sort_keys=True)
        if entry.indices:
            settings["indices"] = json.dumps(entry.indices)
        if entry.world:
            settings["world"] = self.concept_world(entry.world)
        if entry.written:
            settings["shares"] = entry.written.shares
        return flags(settings)

    def simulate_mixture(self, name: str) -> str:
        """Spec of ``simulate_mixture``."""
        return flags({"experiment": name, **self.config.mixtures[name].model_dump()})

    # -- targets -----------------------------------------------------------------------------------------------

    def asked(self, transfer: str) -> Iterator[AnswersName]:
        """The answers of a transfer that are scored, of test questions and of training questions (labels)."""
        entry = self.config.transfers[transfer]
        train = self.config.tasks[entry.task].train
        for seed in entry.seeds:
            for questions in self.config.tasks[entry.task].tests:
                yield from self._test_answers(entry, questions, seed)
            for weak, student, refinement in self._grid(entry):
                method = self.config.refinements[refinement]
                if not method.at_test_time:
                    key = self._key(entry, train, seed, weak, student, refinement)
                    yield from self.labels_of(key)

    def _test_answers(self, entry: Transfer, questions: str, seed: int) -> Iterator[AnswersName]:
        for student in entry.students:
            yield AnswersName(entry.task, questions, seed, PLAIN, writer=student.base)
        for weak in [*entry.weak, *entry.references]:
            yield AnswersName(entry.task, questions, seed, WEAK, writer=weak)
        for weak, student, refinement in self._grid(entry):
            yield self._key(entry, questions, seed, weak, student, refinement)

    def _grid(self, entry: Transfer) -> Iterator[tuple[str, Student, str]]:
        for weak in entry.weak:
            for student in entry.students:
                for refinement in entry.refinements:
                    yield weak, student, refinement

    def _key(
        self, entry: Transfer, questions: str, seed: int, weak: str, student: Student, refinement: str
    ) -> AnswersName:
        """The answers of one arm. What takes no part in the labels is no part of the key, and is shared."""
        settings: Refinement = self.config.refinements[refinement]
        if settings.at_test_time:
            return AnswersName(
                *(entry.task, questions, seed, REFINED),
                weak=weak,
                refiner=student.base,
                refinement=refinement,
            )
        return AnswersName(
            *(entry.task, questions, seed, TUNED),
            weak="" if settings.method in ("own", "gold") else weak,
            refiner="" if settings.method in ("weak", "gold", "bootstrapped") else student.refiner,
            refinement=refinement,
            base=student.base,
            fine_tuning=settings.fine_tuning or entry.fine_tuning,
        )

    def transfer_scores(self, transfer: str) -> list[str]:
        """All scores of a transfer, each once."""
        return list(dict.fromkeys(self.answer_scores(name) for name in self.asked(transfer)))

    def transfer_records(self, transfer: str) -> list[str]:
        """All training sets of a transfer, each once."""
        found = [self.records(name) for name in self.asked(transfer) if self._is_arm(transfer, name)]
        return list(dict.fromkeys(found))

    def _is_arm(self, transfer: str, name: AnswersName) -> bool:
        entry = self.config.transfers[transfer]
        tests = self.config.tasks[entry.task].tests
        return name.kind == TUNED and name.questions in tests and name.refinement in entry.refinements

    def tabulate_transfer(self, transfer: str) -> str:
        """Spec of ``tabulate_transfer``."""
        entry = self.config.transfers[transfer]
        refinements = {}
        for name in entry.refinements:
            settings = self.config.refinements[name]
            refinements[name] = {
                key: value
                for key, value in {
                    "kind": settings.method,
                    "shown": settings.shown,
                    "choice": settings.choice if settings.shown else None,
                    "through": settings.through.base if settings.through else None,
                }.items()
                if value is not None
            }
        naive = next((name for name in entry.refinements if name.startswith("naive")), None)
        return flags(
            {
                "experiment": transfer,
                "training": self.config.tasks[entry.task].train,
                "refinements": refinements,
                "naive": naive,
                "bootstrap": entry.bootstrap,
                "bootstrap_seed": 0,
            }
        )

    def transfer_files(self, transfer: str) -> list[str]:
        """The files that a transfer is drawn or written in."""
        figure = self.config.transfers[transfer].figure
        return [
            self.path("figures", f"{transfer}.{suffix}") for suffix in (FIGURES[figure] if figure else ())
        ]

    def transfer_tests(self, transfer: str) -> list[str]:
        """Sets of test questions of a transfer."""
        return list(self.config.tasks[self.config.transfers[transfer].task].tests)

    def transfer_questions(self, transfer: str) -> list[str]:
        """Sets of questions that a transfer needs, topics of written ones included."""
        task = self.config.tasks[self.config.transfers[transfer].task]
        names = [task.train, *task.tests]
        written = [self.config.questions[name].written for name in names]
        return [*names, *(entry.topics for entry in written if entry)]

    def transfer_models(self, transfer: str) -> list[str]:
        """Local models that a transfer needs."""
        entry = self.config.transfers[transfer]
        writers = [*entry.weak, *entry.references]
        writers += [name for student in entry.students for name in (student.refiner, student.base)]
        through = [self.config.refinements[name].through for name in entry.refinements]
        writers += [middle.base for middle in through if middle]
        written = [self.config.questions[name].written for name in self.transfer_questions(transfer)]
        writers += [one.writer for one in written if one]
        models = [self.config.writers[name].model for name in writers]
        return [model for model in dict.fromkeys(models) if model]

    # -- helpers -------------------------------------------------------------------------------------------------

    def _local(self, writer: str) -> str:
        model = self.config.writers[writer].model
        assert model is not None
        return model


def is_plain(wording: str) -> bool:
    """Whether prompts show nothing but the question: ``<task>/<questions>/plain`` or ``.../weak``."""
    return wording.count("/") == 2
