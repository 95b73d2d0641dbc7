"""The typed schema of ``config.yaml`` and its presets: every key, its type, its default and what it means.

A key that is not here is refused (scripts/w2s/config.py). Checks of one section stand with it; checks across sections,
such as names that nothing declares, stand in config.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from w2s.schema_recipes import Recipe
from w2s.schema_transfer import (
    ConceptWorld,
    FineTuning,
    Mixture,
    Questions,
    Refinement,
    Task,
    Transfer,
    Writer,
)
from w2s.sections import (
    COMMIT,
    ORCID,
    SHA256,
    SHARE,
    Count,
    Fraction,
    Name,
    NonNegative,
    Number,
    Positive,
    Precision,
    Section,
    Share,
    Site,
    Whole,
    exactly_one,
    none,
)


class Agent(Section):
    """Who runs the workflow. Nothing is taken from the machine's accounts: who does not say it is not named."""

    name: str = Field(description="the person's name", min_length=1)
    orcid: Annotated[str, Field(pattern=ORCID)] | None = Field(
        None, description="their ORCID as an address: https://orcid.org/..."
    )


class Runtime(Section):
    """How jobs are executed; never changes a result, but for ``generation``: other random numbers, other texts."""

    launcher: Literal["plain", "worker"] = Field(
        "plain",
        description="plain: one new process per job; worker: jobs fork from a process that has the libraries loaded",
    )
    isolate_network: bool = Field(
        False,
        description="jobs that need no network (all but fetch and those that ask endpoints) run in a network namespace "
        "without interfaces; needs a kernel that gives users namespaces (docs/security.md)",
    )
    store: Site = Field(
        None,
        description="folder of the artifacts that runs and users share (docs/store.md); the variable W2S_STORE wins",
    )
    needs_gpu: bool = Field(
        True,
        description="jobs that run a model ask for GPUs; on a machine without one a real run is refused",
    )
    threads: Count = Field(1, description="CPU threads of a job that runs a model")
    micro_batch_size: Count = Field(
        8, description="most rows (SFT) or pairs (DPO) per device and pass; accumulation is derived"
    )
    batch_tokens: Count = Field(16384, description="token budget of a scoring batch, padding counted")
    generation_batch: Count = Field(
        64, description="prompts answered at once if they are as long as any; of shorter ones more"
    )
    generation: Literal["transformers", "vllm"] = Field(
        "transformers",
        description="who draws the responses: our loop on transformers' models, or vLLM, which changes the texts",
    )
    vllm_python: Site = Field(
        None,
        description="Python of the environment that has vLLM (docs/generation.md), for `generation: vllm`",
    )

    agent: Agent | None = Field(
        None, description="who runs it, for the record of the run that others read (docs/provenance.md)"
    )

    @model_validator(mode="after")
    def _vllm_has_a_python(self) -> Runtime:
        if self.generation == "vllm" and self.vllm_python is None:
            raise ValueError("generation: vllm needs the key vllm_python")
        if self.generation == "vllm" and self.isolate_network:
            raise ValueError(
                "generation: vllm speaks with itself by the network, which isolate_network takes away"
            )
        return self


class CpuNodes(Section):
    """Where jobs without a GPU run, and how fast."""

    partition: Site = None
    constraint: Site = None
    gflops: Positive = Field(20, description="float32 arithmetic that a training reaches, per core")


class GpuNodes(Section):
    """Where jobs with GPUs run, how the scheduler is asked for them, and what they can do."""

    partition: Site = None
    constraint: Site = None
    model: Annotated[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")] | None, BeforeValidator(none)] = (
        Field(
            None, description="GPU type, on sites with several (`scontrol show node` lists them under Gres)"
        )
    )
    request: Literal["gpu", "gres"] = Field("gpu", description="gpu: sbatch --gpus; gres: sbatch --gres=gpu")
    memory_gb: Positive = Field(80, description="memory of one GPU; decides how many a training needs")
    per_node: Count = Field(8, description="GPUs of one node, the most that a job gets")
    tflops: Positive = Field(100, description="bfloat16 arithmetic that a training reaches, per GPU")


class Cluster(Section):
    """The site: who pays, which partitions there are, and what the nodes can do. Never changes a result."""

    account: Site = Field(None, description="SLURM account; null leaves it to the site's default")
    qos: Site = None
    longest: Count = Field(1440, description="longest time limit that the site allows, in minutes")
    cpu: CpuNodes = CpuNodes.model_validate({})
    gpu: GpuNodes = GpuNodes.model_validate({})


class JobResources(Section):
    """What a model's jobs are given, in place of what the formula says."""

    gpus: Count | None = None
    mem_mb: Count | None = Field(None, description="memory of the node, in MB")
    runtime: Count | None = Field(None, description="time limit in minutes")


class ModelResources(Section):
    """Overrides of the formula (docs/cluster.md) for one model, by kind of job."""

    train: JobResources = JobResources.model_validate({})
    score: JobResources = Field(
        JobResources.model_validate({}), description="log-probabilities and gold rewards"
    )
    generate: JobResources = JobResources.model_validate({})


class Source(Section):
    """Something to fetch: a hub data set or model at a pinned revision, or files of a local folder."""

    kind: Literal["dataset", "model", "local"]
    origin: str = Field(
        description="hub id, or path of a local folder; ${VARIABLE} is expanded for local ones"
    )
    revision: Annotated[str, Field(pattern=COMMIT)] | None = Field(
        None, description="commit hash; required for hub sources"
    )
    files: dict[str, Annotated[str, Field(pattern=SHA256)] | None] = Field(
        description="file (or, for models, glob pattern) -> sha256, or null where the hub's own digest at the revision is trusted"
    )
    licence: str = Field(description="licence of the data or weights")
    terms: str = Field("", description="what the licence asks of you, in a few words")

    @model_validator(mode="after")
    def _pinned(self) -> Source:
        if self.kind == "local" and self.revision is not None:
            raise ValueError("a local source has no revision: pin its files by sha256")
        return self


class Tokenizer(Section):
    """A tokenizer: from a fetched source, or trained on a corpus."""

    source: Name | None = None
    pad_token: str | None = Field(None, description="token to pad with, if the tokenizer declares none")
    corpus: Name | None = None
    vocabulary: Count = Field(512, description="number of tokens, if trained")

    @model_validator(mode="after")
    def _one_origin(self) -> Tokenizer:
        exactly_one(self, "source", "corpus")
        return self


class World(Section):
    """Settings of the demo world's generator (scripts/w2s/world.py)."""

    seed: Whole
    pairs: Count = Field(description="training pairs")
    test_prompts: Count = Field(description="held-out prompts")


class Corpus(Section):
    """Unlabelled texts for pre-training: drawn from a world, or the train side of a data set."""

    world: Name | None = None
    data: Name | None = None
    concepts: Name | None = Field(None, description="documents of a concept world")
    texts: Whole = Field(0, description="number of texts; 0 = all of the data set")
    seed: Whole = 0
    style: Name | None = Field(
        None,
        description="concept world: single answers in this style, for a weak model, in place of documents",
    )
    wrong_operations: Whole = Field(0, description="with style: how many operations follow a wrong rule")
    slips: Fraction = Field(0.0, description="with style: share of answers in another style")

    @model_validator(mode="after")
    def _one_origin(self) -> Corpus:
        exactly_one(self, "world", "data", "concepts")
        if not self.data and not self.texts:
            raise ValueError("texts must be at least 1 for a corpus from a world")
        if self.style and not self.concepts:
            raise ValueError("style is for a corpus from a concept world")
        if (self.wrong_operations or self.slips) and not self.style:
            raise ValueError("wrong_operations and slips need the key style")
        return self


class DataFile(Section):
    """One raw file of a data set."""

    source: Name
    path: str
    subset: str
    split: Literal["train", "test"]


class Resplit(Section):
    """Pool all files and draw a new test split."""

    test_share: Annotated[Positive, Field(lt=1)]
    seed: Whole


class Data(Section):
    """A data set of comparisons."""

    adapter: Literal["hh", "pairs", "tldr", "world"]
    files: list[DataFile] = []
    resplit: Resplit | None = Field(
        None, description="pool the files and re-split; null keeps the given splits"
    )
    world: Name | None = None
    temperature: NonNegative | None = Field(
        None,
        description="noise of a world's human labels: P(prefer a) = sigmoid(reward gap / temperature); 0 = no noise",
    )
    limit: Whole = Field(0, description="keep this many rows at most, a random sample of all files; 0 = all")
    test_limit: Whole = Field(
        0, description="of the test side keep this many at most, a random sample; 0 = all"
    )
    tokenizer: Name = Field(description="tokenizer of the length filter")
    max_tokens: Count = Field(
        512, description="both sequences at most this long, beginning-of-sequence token included"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Data:
        if self.adapter == "world" and (self.world is None or self.temperature is None):
            raise ValueError("adapter: world needs the keys world and temperature")
        if self.adapter != "world" and not self.files:
            raise ValueError(f"adapter: {self.adapter} needs a list of files")
        return self


class Pretrain(Section):
    """A small model trained from scratch in the workflow, in a published architecture."""

    tokenizer: Name
    corpus: Name
    width: Count
    layers: Count
    heads: Count
    feed_forward: Count
    positions: Count
    learning_rate: Positive
    steps: Count
    batch_size: Count
    seed: Whole
    max_tokens: Count
    architecture: Literal["opt", "llama", "mistral", "gemma", "gpt-neo", "gpt-neox", "qwen2"] = "opt"
    warmup_steps: Count | None = Field(None, description="steps in which the learning rate grows; null: none")

    @model_validator(mode="after")
    def _divides(self) -> Pretrain:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.max_tokens > self.positions:
            raise ValueError(f"max_tokens {self.max_tokens} exceeds positions {self.positions}")
        return self


class RewardTraining(Section):
    """A reward model trained in the workflow on a data set's train side."""

    base: Name
    data: Name
    labels: Literal["human", "gold"]
    learning_rate: Positive
    epochs: Count
    batch_size: Count
    seed: Whole
    max_tokens: Count


class Model(Section):
    """A base model or a reward model."""

    source: Name | None = Field(None, description="fetched")
    tokenizer: Name | None = Field(None, description="tokenizer of a fetched model")
    pretrain: Pretrain | None = Field(None, description="trained from scratch in the workflow")
    reward: RewardTraining | None = Field(None, description="reward model trained in the workflow")
    parameters: Count | None = Field(
        None, description="number of parameters of a fetched model, for the resources of its jobs"
    )
    resources: ModelResources = ModelResources.model_validate({})
    positions: Count | None = Field(None, description="longest sequence of a fetched model")
    pad_token: str | None = Field(
        None, description="token to pad with, if a fetched model's tokenizer declares none"
    )
    precision: Precision = Field("float32", description="precision of training, scoring and generation")

    @model_validator(mode="after")
    def _one_origin(self) -> Model:
        exactly_one(self, "source", "pretrain", "reward")
        if self.source and (self.positions is None or self.parameters is None):
            raise ValueError("a fetched model needs the keys positions and parameters")
        return self


class Gold(Section):
    """A judge of generated responses: a reward model, or a world's exact reward."""

    model: Name | None = None
    fallback_template: Literal["none", "plain", "pair"] = Field(
        "none",
        description="for a tokenizer without chat template; plain: the text as it is; pair: prompt and response as two segments",
    )
    world: Name | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Gold:
        exactly_one(self, "model", "world")
        return self


class Judge(Section):
    """A prompted LLM behind an OpenAI-compatible endpoint (docs/judge.md), or the demo world's stand-in for one."""

    model: str | None = Field(None, description="the model's name at the endpoint")
    world: Name | None = Field(None, description="answers by a world's exact reward, without an endpoint")
    noise: NonNegative = Field(
        0.0, description="world only: standard deviation of the noise on each answer's reward"
    )
    temperature: NonNegative = 0.7
    top_p: Share = 1.0
    max_tokens: Count = 512
    base_url_variable: str = Field(
        "OPENAI_BASE_URL", description="environment variable with the endpoint's address"
    )
    key_variable: str = Field(
        "OPENAI_API_KEY",
        description="environment variable with the key; the key itself never stands in a file",
    )
    concurrency: Count = Field(8, description="requests at once")
    requests_per_minute: Count | None = Field(None, description="at most; null: no limit")
    attempts: Count = Field(
        6, description="how often a request is sent at most, after faults of the endpoint"
    )
    again: Whole = Field(2, description="how often a reply that is not in the form is asked for again")
    price_input: NonNegative = Field(0.0, description="USD per million tokens")
    price_output: NonNegative = Field(0.0, description="USD per million tokens")
    price_training: NonNegative = Field(0.0, description="USD per million tokens that are trained on")
    budget_usd: NonNegative | None = Field(
        None,
        description="hard cap of what all replies of this judge may cost, ever; a judge with prices needs one",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Judge:
        exactly_one(self, "model", "world")
        if (self.price_input or self.price_output or self.price_training) and self.budget_usd is None:
            raise ValueError("a judge with prices needs the key budget_usd")
        return self


class Feedback(Section):
    """Who says which response is better (scripts/w2s/feedback.py); which keys a policy takes, docs/feedback.md."""

    policy: Name = Field(description="a policy that is registered in scripts/w2s/feedback.py")
    teacher: Name | None = Field(None, description="model that labels")
    recipe: Name | None = Field(None, description="how the teacher is tuned")
    judge: Name | None = Field(None, description="prompted LLM that labels")
    template: Literal["helpful-1", "harmless-1"] = Field(
        "helpful-1", description="what a prompted LLM is asked: wording with its version, in prompts/"
    )
    of: list[Name] = Field([], description="feedback whose labels the policy begins with")
    beta: Positive = Field(0.1, description="scale of the implicit reward, equation 5")
    tie: Literal["second", "first"] = Field("second", description="who wins a tie")
    options: dict[str, Number] = Field({}, description="the policy's own settings")


class Evaluation(Section):
    """How tuned models are judged."""

    prompts: Count = Field(description="test prompts, the first ones by id")
    temperature: Positive = 0.7
    top_p: Share = 1.0
    max_new_tokens: Count = 256
    stop: list[str] = ["\n\nHuman:"]
    golds: list[Name] = Field(min_length=1, description="judges; the first is the main one")
    bootstrap: Count = 2000


class Comparison(Section):
    """An LLM judge compares each arm's responses with the human arm's (paper A, Figure 3b)."""

    judge: Name
    prompts: Count = 100


class Votes(Section):
    """An LLM judge is asked again and again which of the data's responses is better (paper A, Table 4)."""

    judge: Name
    pairs: Count = 100
    votes: Count = 10


class Similarity(Section):
    """Likeness of responses to the one that people chose (paper A, Figure 6)."""

    encoder: Name = Field(description="model whose hidden states are compared")
    pooling: Literal["mean", "first"] = "mean"
    truncate: bool = Field(
        False, description="cut the ends of texts that are too long for the encoder, and count them"
    )


class Experiment(Section):
    """One table or figure: a grid of data sets, shares, seeds, students, feedback and recipes, and what is measured."""

    data: list[Name] = Field(min_length=1)
    shares: list[Annotated[str, Field(pattern=SHARE)]] = Field(
        ["1/2"], min_length=1, description="labelled shares |D_l| / |D|"
    )
    seeds: list[Whole] = Field(min_length=1)
    students: list[Name] = []
    feedback: list[Name] = Field(min_length=1)
    recipes: list[Name] = Field([], description="how the students are tuned")
    steps: list[Literal["sft", "dpo"]] = Field(
        ["sft", "dpo"], description="which stages of the student are judged"
    )
    untuned: bool = Field(True, description="judge the students' base models as well")
    teachers: bool = Field(False, description="judge the teachers' own responses as well")
    evaluation: Name
    golds: list[Name] = Field(
        [], description="gold models in place of the evaluation's; the first is the main one"
    )
    responses: bool = Field(
        False, description="gold rewards of the data's responses in D_u (Table 2, section 4)"
    )
    comparison: Comparison | None = None
    votes: Votes | None = None
    similarity: Similarity | None = None
    examples: Whole = Field(
        0, description="pairs of the disagreement set to show, drawn by seed (Tables 3, 5, 9)"
    )
    figure: (
        Literal["bars", "lines", "comparisons", "similarity", "table", "examples", "recipes", "label_noise"]
        | None
    ) = Field(None, description="how it is drawn or written")
    layout: Literal["rewards", "responses", "votes", "seeds", "labels"] = Field(
        "rewards", description="what a table shows"
    )

    @field_validator("shares")
    @classmethod
    def _shares_are_shares(cls, shares: list[str]) -> list[str]:
        for share in shares:
            numerator, denominator = map(int, share.split("/"))
            if not 0 < numerator < denominator:
                raise ValueError(f"share {share} is not between 0 and 1")
        return shares

    @model_validator(mode="after")
    def _students_have_recipes(self) -> Experiment:
        if bool(self.students) != bool(self.recipes):
            raise ValueError("students need recipes, and recipes students")
        for key in ("comparison", "similarity"):
            if getattr(self, key) is not None and not self.students:
                raise ValueError(f"{key} needs students")
        return self


class Config(Section):
    """The catalogue (data sets, models, recipes, feedback, judges, experiments) and what to run of it."""

    preset: Name = Field(description="results lie under results/<preset>/")
    run: list[Name] = Field(min_length=1, description="experiments, transfers and mixtures to run")
    results: str = "results"
    resources: str = "resources"
    runtime: Runtime = Runtime.model_validate({})
    cluster: Cluster = Cluster.model_validate({})
    sources: dict[Name, Source] = {}
    worlds: dict[Name, World] = {}
    tokenizers: dict[Name, Tokenizer] = {}
    corpora: dict[Name, Corpus] = {}
    data: dict[Name, Data] = {}
    models: dict[Name, Model] = {}
    golds: dict[Name, Gold] = {}
    judges: dict[Name, Judge] = {}
    recipes: dict[Name, Recipe] = {}
    feedback: dict[Name, Feedback] = {}
    evaluations: dict[Name, Evaluation] = {}
    experiments: dict[Name, Experiment] = {}
    concepts: dict[Name, ConceptWorld] = {}
    questions: dict[Name, Questions] = {}
    writers: dict[Name, Writer] = {}
    tasks: dict[Name, Task] = {}
    refinements: dict[Name, Refinement] = {}
    fine_tunings: dict[Name, FineTuning] = {}
    transfers: dict[Name, Transfer] = {}
    mixtures: dict[Name, Mixture] = {}
