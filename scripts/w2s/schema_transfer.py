"""Sections of paper B: questions, who answers them, how weak answers are refined, and the experiments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from w2s.schema_recipes import SFT
from w2s.sections import (
    SHA256,
    Count,
    Fraction,
    Name,
    NonNegative,
    Positive,
    Section,
    Share,
    Whole,
    exactly_one,
)

# First word of a refinement's name by its method: tables, figures and claims read the role from it.
ROLES = {
    "weak": ("naive", "confidence"),
    "icl": ("icl",),
    "infer": ("infer",),
    "improve": ("improve",),
    "own": ("own",),
    "doubled": ("doubled",),
    "gold": ("gold",),
    "bootstrapped": ("bootstrapped",),
}
TIMED = "timed"
Range = Annotated[list[Count], Field(min_length=2, max_length=2)]


class BadStyle(Section):
    """A style in whose documents the strong model itself saw wrong answers."""

    style: Name
    operations: Count = Field(description="how many operations follow a wrong rule")
    share: Share = Field(description="share of the style's documents that do")


class ConceptWorld(Section):
    """Settings of the demo world of paper B (scripts/w2s/concepts.py)."""

    seed: Whole
    operands: Count = 12
    styles: Count = 8
    default_prior: Fraction = Field(0.51, description="share of documents in the default style")
    prior: dict[Name, Fraction] = Field(
        {}, description="style -> prior in place of an equal part of the rest; 0: the style never occurs"
    )
    fidelity: Share = Field(0.7, description="probability that an answer keeps its document's style")
    wrong_content: Fraction = 0.05
    pairs: Range = Field([1, 9], description="fewest and most questions of a document")
    header: Fraction = 0.25
    revision: Fraction = 0.15
    bad: BadStyle | None = None


class QuestionFile(Section):
    """One raw file of questions."""

    source: Name
    path: str


class Questions(Section):
    """A set of questions: rows of a data set, a concept world's, or written by a model."""

    adapter: Name = Field(description="reads the rows (scripts/w2s/question_adapters.py)")
    files: list[QuestionFile] = []
    world: Name | None = Field(None, description="concept world, for adapter: world")
    style: Name | None = Field(None, description="concept world: style of the references; null: bare numbers")
    part: Literal["train", "test"] | None = Field(None, description="side of a world or of written questions")
    items: Count | None = Field(None, description="concept world: number of questions")
    form: str | None = Field(None, description="adapter jobs: what is asked about each job")
    without_context: bool = Field(False, description="adapter dolly: leave out rows that come with a context")
    first: Count | None = Field(None, description="the first rows")
    indices: list[Whole] = Field([], description="these rows of the file, counted from 0")
    sample: Count | None = Field(None, description="rows drawn by seed")
    seed: Whole = 0
    written: Written | None = Field(None, description="adapter written: who writes them, about what")

    @model_validator(mode="after")
    def _one_origin(self) -> Questions:
        if (self.adapter == "world") != (self.world is not None):
            raise ValueError("adapter: world needs the key world, and no other adapter takes it")
        if (self.adapter == "written") != (self.written is not None):
            raise ValueError("adapter: written needs the key written, and no other adapter takes it")
        if self.world and (self.part is None or self.items is None):
            raise ValueError("adapter: world needs the keys part and items")
        if sum(map(bool, (self.first, self.indices, self.sample))) > 1:
            raise ValueError("at most one of the keys first, indices, sample")
        return self


class Written(Section):
    """Questions that a model writes: a seeded recipe."""

    writer: Name
    template: Name = Field(description="what the writer is asked, with a topic in place of the question")
    topics: Name = Field(description="questions whose texts are the topics")
    shares: Range = Field([200, 100], description="questions of the training and of the test side")


Questions.model_rebuild()


class Writer(Section):
    """Who answers: a local model with its sampling, or a prompted LLM behind an endpoint."""

    model: Name | None = None
    endpoint: Name | None = Field(None, description="entry of judges: model, sampling, prices, budget")
    temperature: NonNegative = 0.0
    top_p: Share = 1.0
    max_new_tokens: Count = 512
    stop: list[str] = []
    chat: Literal["own", "plain"] = Field(
        "own", description="own: the tokenizer's chat template; plain: the messages' texts, nothing else"
    )
    chat_sha256: Annotated[str, Field(pattern=SHA256)] | None = Field(
        None, description="digest that the chat template must have"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Writer:
        exactly_one(self, "model", "endpoint")
        if self.endpoint and self.model_fields_set - {"endpoint"}:
            raise ValueError("the settings of an endpoint stand in its entry of judges")
        return self


class Ratings(Section):
    """An LLM judge rates each answer several times."""

    judge: Name
    template: Name
    samples: Count = 10
    names: list[Name] = Field(min_length=1, max_length=2, description="metrics that the ratings are")


class Test(Section):
    """How answers to a set of test questions are scored."""

    metrics: list[Literal["words", "marker", "correct", "world", "copied"]] = ["words"]
    ratings: Ratings | None = None


class Templates(Section):
    """Wordings, with their versions, in prompts/."""

    plain: Name
    weak: Name
    icl: Name | None = None
    infer: Name | None = None
    respond: Name | None = None
    improve: Name | None = None
    corrupt: Name | None = Field(
        None, description="how a weak model rewrites its own answers to the training questions: the bias task"
    )


class Task(Section):
    """What is taught: training questions, test questions with their scoring, wordings."""

    train: Name
    tests: dict[Name, Test] = Field(min_length=1, description="questions -> how answers are scored")
    templates: Templates
    batch: Count = Field(5, description="weak answers from which one intent is inferred")
    marker: list[str] = Field([], description="words that mark the style")
    world: Name | None = Field(None, description="concept world that scores exactly")
    style: Name | None = Field(None, description="the style that is taught, in the concept world")


class Middle(Section):
    """A student between the weak model and the strong one, tuned first (bootstrapping)."""

    base: Name
    refinement: Name = Field(description="what it is taught with")
    fine_tuning: Name


class Refinement(Section):
    """What a student is taught with (paper B, Algorithms 1 to 3 and the baselines)."""

    method: Literal["weak", "icl", "infer", "improve", "own", "doubled", "gold", "bootstrapped"]
    shown: Count | None = Field(None, description="icl: examples in each prompt")
    choice: Literal["consecutive", "random", "similar", "fixed"] = "consecutive"
    at_test_time: bool = Field(False, description="icl: on the test questions, and no student is tuned")
    fine_tuning: Name | None = Field(None, description="in place of the experiment's")
    through: Middle | None = Field(None, description="bootstrapped: who is tuned first")

    @model_validator(mode="after")
    def _fits(self) -> Refinement:
        if (self.method == "icl") != (self.shown is not None):
            raise ValueError("method: icl needs the key shown, and no other method takes it")
        if self.method != "icl" and (self.at_test_time or self.choice != "consecutive"):
            raise ValueError("choice and at_test_time are for method: icl")
        if (self.method == "bootstrapped") != (self.through is not None):
            raise ValueError("method: bootstrapped needs the key through, and no other method takes it")
        return self

    @property
    def role(self) -> tuple[str, ...]:
        """First words that the name of such a refinement may have."""
        return (TIMED,) if self.at_test_time else ROLES[self.method]


class Confidence(Section):
    """The auxiliary confidence loss of Burns et al. 2023."""

    weight: Share = 0.5
    warmup: Fraction = Field(0.2, description="share of the steps in which the weight grows linearly")


class FineTuning(Section):
    """How a student is tuned: here (TRL), or by the endpoint's fine-tuning API."""

    sft: SFT | None = None
    confidence: Confidence | None = None
    api: dict[str, Any] | None = Field(
        None, description="hyper-parameters sent to the API; {} leaves them to it, as the paper did"
    )

    @model_validator(mode="after")
    def _one_place(self) -> FineTuning:
        exactly_one(self, "sft", "api")
        if self.api is not None and self.confidence:
            raise ValueError("an API takes no loss of one's own")
        return self


class Student(Section):
    """Who refines and what is tuned: apart, so that neither is ever taken for the other."""

    refiner: Name
    base: Name


class Transfer(Section):
    """One table or figure of paper B."""

    task: Name
    seeds: list[Whole] = Field(min_length=1)
    weak: list[Name] = Field(min_length=1, description="writers that label")
    students: list[Student] = Field(min_length=1)
    refinements: list[Name] = Field(min_length=1)
    fine_tuning: Name
    references: list[Name] = Field([], description="further writers whose own answers are shown")
    bootstrap: Count = 2000
    figure: Literal["panels", "examples", "maths", "bias", "baselines", "failures"] | None = Field(
        None, description="how it is drawn or written"
    )

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed occurs twice")
        return seeds


class Mixture(Section):
    """A simulation of paper B's theory (scripts/simulate_mixture.py); what is not given, the stage decides."""

    dimension: Count | None = None
    concepts: Count | None = None
    sigma: Positive | None = None
    inputs: Literal["gaussian", "uniform"] | None = None
    biases: list[Positive] | None = None
    noises: list[Positive] | None = None
    etas: list[NonNegative] | None = None
    shown: list[Count] | None = None
    contexts: Count | None = None
    labels: list[Count] | None = None
    seeds: list[Whole] | None = None
