"""What a job that runs a model needs: GPUs, memory, time, rows per pass. The one place of the formula.

docs/cluster.md tells it in words. It is meant to be safe rather than tight: memory is for the longest sequences that
the data set admits, and a time limit that was too short costs little, for a training continues. All of it can be
overridden per model (``models.<name>.resources``), and none of it changes a result.

With N parameters and passes over T tokens:

- weights and optimiser: 16 N bytes for full fine-tuning (float32 weights, gradients, two moments of AdamW), 4 N for
  LoRA, 2 N more for the casts of mixed precision; without training 4 N, or 2 N in half precision;
- layers times width is close to 0.038 N^(2/3), and the width to 2.2 N^(1/3), for OPT-125M to 13B and Llama-7B;
- activations: 34 bytes per token, layer and unit of width in half precision (Korthikanti et al. 2022, equation 2 without
  the attention scores, which are never stored), twice that in float32; without training, those of one layer;
- head: 12 bytes per token and entry of the vocabulary (logits, their softmax, their gradient), half without training;
- generation keeps keys and values: 4 bytes per token, layer and unit of width, 8 in float32, and a quarter more for the
  buffers' spare rows and columns (scripts/w2s/decoding.py);
- arithmetic: 6 N per token for full fine-tuning, 4 N for LoRA, 2 N without training (Kaplan et al. 2020, section 2.1).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from w2s import attempts
from w2s.errors import ConfigError
from w2s.feedback import POLICIES
from w2s.schema import Config, JobResources, Pretrain
from w2s.sections import Step
from w2s.tables import ASSIGNED
from w2s.transfer_runs import parse_answers
from w2s.words import base_model

Kind = Literal["train", "score", "generate"]
Trained = Literal["all", "lora", "none"]
GB = 1e9
# Interpreter, libraries and data of a job; with a GPU its driver's mappings too.
BASE_MB, BASE_GPU_MB = 1500, 4000
VOCABULARY = 50_272  # OPT's; what other models have changes little
ACTIVATION_BYTES, HEAD_BYTES, CACHE_BYTES = 34, 12, 5
# Of a GPU's memory; the rest is fragmentation and the libraries' own buffers.
USABLE = 0.9
START_MINUTES, SHORTEST_MINUTES = 5, 15
SAFETY = 2.0
# Tokens of a transfer's prompt and answer at most, as resources are concerned.
LONGEST = 4096
# Generation reads all weights for each token: bytes per second, and seconds that a step takes at least.
WEIGHTS_PER_SECOND, STEP_SECONDS = 1e12, 0.03


@dataclass(frozen=True)
class Work:
    """One job's work, as the formula sees it.

    Attributes:
        kind: train, score or generate.
        model: its name in the catalogue.
        parameters: number of weights.
        trained: all weights, LoRA's or none.
        precision: of the arithmetic.
        tokens: longest sequence times sequences per row; 1 where a pass is counted in tokens.
        most: most rows (or tokens) per pass and GPU.
        vocabulary: entries of the vocabulary.
        batch: rows per optimiser step over all GPUs; 0 where there is no step.
    """

    kind: Kind
    model: str
    parameters: int
    trained: Trained
    precision: str
    tokens: int
    most: int
    vocabulary: int
    batch: int = 0


@dataclass(frozen=True)
class Need:
    """What a job gets. ``layout`` is how processes share the model: single, ddp or fsdp (envs/accelerate)."""

    gpus: int
    layout: str
    pass_size: int
    mem_mb: int


# -- memory ------------------------------------------------------------------------------------------------------


def state_bytes(work: Work) -> float:
    """Weights, gradients and optimiser state."""
    half = work.precision != "float32"
    if work.trained == "none":
        return work.parameters * (2 if half else 4)
    return work.parameters * ((16 if work.trained == "all" else 4) + (2 if half else 0))


def pass_bytes(work: Work, size: int) -> float:
    """Activations, logits and kept keys and values of one pass over ``size`` rows (or tokens)."""
    wide = 2 if work.precision == "float32" else 1
    depth_by_width = 0.038 * work.parameters ** (2 / 3)
    if work.kind == "generate":
        per_token = wide * CACHE_BYTES * depth_by_width
    elif work.trained == "none":
        width = 2.2 * work.parameters ** (1 / 3)
        per_token = wide * ACTIVATION_BYTES * width + HEAD_BYTES / 2 * work.vocabulary
    else:
        per_token = wide * ACTIVATION_BYTES * depth_by_width + HEAD_BYTES * work.vocabulary
    return size * work.tokens * per_token


def fits(work: Work, gpus: int, size: int, memory_gb: float) -> bool:
    """Whether each of ``gpus`` GPUs holds its part of the state and a pass. Only trainings divide the state."""
    state = state_bytes(work) / (gpus if work.batch else 1)
    return state + pass_bytes(work, size) <= USABLE * memory_gb * GB


def host_memory_mb(work: Work, gpus: int, size: int) -> int:
    """Memory of the node, rounded up to 100 MB.

    On a CPU all of it; with GPUs a copy of the weights per process, while they are loaded, and one that is saved.
    """
    if gpus:
        mb = BASE_GPU_MB * gpus + 4 * work.parameters * (gpus + 1) / 1e6
    else:
        mb = BASE_MB + 1.5 * (state_bytes(work) + pass_bytes(work, size)) / 1e6
    return math.ceil(mb / 100) * 100


# -- division ----------------------------------------------------------------------------------------------------


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    return [value for value in range(1, number + 1) if number % value == 0]


def pass_size(work: Work, gpus: int, halvings: int = 0) -> int:
    """Rows per pass and process: for a training the largest divisor of a process's share within the limit.

    Args:
        gpus: processes that share the global batch; 0 counts as one.
        halvings: how often a pass was too large before.
    """
    most = max(1, work.most >> halvings)
    if not work.batch:
        return most
    return max(size for size in divisors(work.batch // max(1, gpus)) if size <= most)


def division(work: Work, config: Config, halvings: int = 0) -> tuple[int, int]:
    """(GPUs, rows per pass): the largest pass that GPUs of one node hold beside the model, and the fewest that do.

    Raises:
        ConfigError: not even a whole node holds it, or the number given in the catalogue does not fit the work.
    """
    if not config.runtime.needs_gpu:
        return 0, pass_size(work, 0, halvings)
    given = overrides(work, config).gpus
    site = config.cluster.gpu
    if given:
        check_gpus(work, given)
        choices = [given]
    else:
        choices = [count for count in divisors(work.batch) if count <= site.per_node] if work.batch else [1]
    for smaller in range(halvings, work.most.bit_length()):
        for gpus in choices:
            size = pass_size(work, gpus, smaller)
            if fits(work, gpus, size, site.memory_gb):
                return gpus, size
    if given:
        return given, pass_size(work, given, halvings)
    gpus = choices[-1]
    each = (state_bytes(work) / gpus + pass_bytes(work, 1)) / GB
    raise ConfigError(
        f"{work.model} does not fit: {each:.0f} GB on each of {gpus} GPUs of {site.memory_gb:.0f} GB",
        where="cluster.gpu (memory_gb, per_node)",
        instead=f"larger GPUs or more per node, or models.{work.model}.resources.{work.kind}.gpus if you know better",
    )


def check_gpus(work: Work, gpus: int) -> None:
    """Refuse a number of GPUs that the work cannot be divided among."""
    where = f"models.{work.model}.resources.{work.kind}.gpus"
    if work.batch and work.batch % gpus:
        raise ConfigError(
            f"a global batch of {work.batch} cannot be divided among {gpus} GPUs",
            where=where,
            instead=f"one of {', '.join(map(str, divisors(work.batch)))}",
        )


def overrides(work: Work, config: Config) -> JobResources:
    """What the catalogue gives this model for this kind of job."""
    return getattr(config.models[work.model].resources, work.kind)


def need(work: Work, config: Config, *, out_of_memory: int = 0, gpu_out_of_memory: int = 0) -> Need:
    """GPUs, layout, rows per pass and memory of a job.

    Args:
        out_of_memory: how many attempts the node's memory limit ended: each doubles the memory.
        gpu_out_of_memory: how many ran out of GPU memory: each halves the pass.
    """
    gpus, size = division(work, config, gpu_out_of_memory)
    layout = "ddp" if gpus > 1 or (gpus and work.batch) else "single"
    if work.batch and gpus > 1 and not fits(work, 1, size, config.cluster.gpu.memory_gb):
        layout = "fsdp"
    mem_mb = overrides(work, config).mem_mb or host_memory_mb(work, gpus, size)
    return Need(gpus, layout, size, mem_mb << out_of_memory)


# -- time --------------------------------------------------------------------------------------------------------


def minutes(work: Work, config: Config, *, tokens: float, steps: float = 0) -> int:
    """Time limit, within what the site allows.

    Args:
        tokens: tokens of all sequences that the job goes through.
        steps: for generation, how often all weights are read.
    """
    given = overrides(work, config).runtime
    if given:
        return min(given, config.cluster.longest)
    operations = {"all": 6, "lora": 4, "none": 2}[work.trained] * work.parameters * tokens
    wide = 2 if work.precision == "float32" else 1
    if config.runtime.needs_gpu:
        # Without tensor cores' half precision a GPU does about a quarter.
        rate = division(work, config)[0] * config.cluster.gpu.tflops * 1e12 / wide**2
        seconds = operations / rate + steps * max(
            2 * wide * work.parameters / WEIGHTS_PER_SECOND, STEP_SECONDS
        )
    else:
        seconds = operations / (config.runtime.threads * config.cluster.cpu.gflops * 1e9)
    limit = START_MINUTES + math.ceil(SAFETY * seconds / 60)
    return min(max(limit, SHORTEST_MINUTES), config.cluster.longest)


# -- stages ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A stage's work for given wildcards.

    Attributes:
        work: what decides memory.
        tokens: tokens that it goes through, from the rule's inputs, in which rows were counted.
        steps: for generation, how often all weights are read.
    """

    work: Work
    tokens: Callable[[Any], float]
    steps: float = 0


def parameters(config: Config, model: str) -> int:
    """Number of weights: declared for a fetched model, counted for one that is made here."""
    entry = config.models[model]
    if entry.reward:
        return parameters(config, entry.reward.base)
    if entry.pretrain:
        return opt_parameters(entry.pretrain, vocabulary(config, model))
    assert entry.parameters is not None  # the schema asks for it
    return entry.parameters


def vocabulary(config: Config, model: str) -> int:
    """Entries of a model's vocabulary: known where the tokenizer is trained here, else taken to be OPT's."""
    entry = config.models[model]
    if entry.reward:
        return vocabulary(config, entry.reward.base)
    tokenizer = config.tokenizers[entry.pretrain.tokenizer] if entry.pretrain else None
    return tokenizer.vocabulary if tokenizer and tokenizer.corpus else VOCABULARY


def opt_parameters(shape: Pretrain, vocabulary: int) -> int:
    """Weights of an OPT model: tied embeddings, positions (two more than declared), layers, the last norm."""
    width, inner = shape.width, shape.feed_forward
    layer = 4 * width * (width + 1) + inner * (width + 1) + width * (inner + 1) + 4 * width
    return width * (vocabulary + shape.positions + 2) + shape.layers * layer + 2 * width


def _work(
    config: Config, kind: Kind, model: str, trained: Trained, tokens: int, most: int, batch: int = 0
) -> Work:
    precision, entries = config.models[model].precision, vocabulary(config, model)
    return Work(kind, model, parameters(config, model), trained, precision, tokens, most, entries, batch)


def _training(config: Config, model: str, *, lora: bool, batch: int, tokens: int) -> Work:
    most = config.runtime.micro_batch_size
    return _work(config, "train", model, "lora" if lora else "all", tokens, most, batch)


def _scoring(config: Config, model: str) -> Work:
    return _work(config, "score", model, "none", 1, config.runtime.batch_tokens)


def pretraining(config: Config, w: Any) -> Job:
    """``pretrain_model``."""
    shape = config.models[w.model].pretrain
    assert shape is not None
    work = _training(config, w.model, lora=False, batch=shape.batch_size, tokens=shape.max_tokens)
    return Job(work, lambda inputs: shape.steps * shape.batch_size * shape.max_tokens)


def reward_training(config: Config, w: Any) -> Job:
    """``train_reward_model``."""
    settings = config.models[w.model].reward
    assert settings is not None
    tokens = 2 * settings.max_tokens
    work = _training(config, w.model, lora=False, batch=settings.batch_size, tokens=tokens)
    return Job(work, lambda inputs: settings.epochs * _facts(inputs.examples)["rows_kept"] * tokens)


def tuning(config: Config, w: Any, model: str, part: str, step: Step) -> Job:
    """The trainings of teachers and students."""
    recipe = config.recipes[w.recipe]
    settings = recipe.step(model, step)
    tokens = (1 if step == "sft" else 2) * config.data[w.data].max_tokens
    work = _training(config, model, lora=settings.lora_rank > 0, batch=settings.batch_size, tokens=tokens)
    epochs = settings.epochs * recipe.longer(w.share)
    return Job(work, lambda inputs: epochs * _rows(inputs.split, part) * tokens)


def students_part(config: Config, w: Any) -> str:
    """The part of the split that a student learns from."""
    return POLICIES[config.feedback[w.feedback].policy].part


def response_scoring(config: Config, w: Any) -> Job:
    """``score_responses``."""
    tokens = 2 * config.data[w.data].max_tokens
    work = _scoring(config, base_model(w.run))
    return Job(work, lambda inputs: _rows(inputs.split, w.part) * tokens)


def response_rewards(config: Config, w: Any) -> Job:
    """``reward_responses``, by a gold model or by a teacher's reward model."""
    gold = config.golds[w.run.removeprefix("golds/")] if w.run.startswith("golds/") else None
    model = gold.model if gold else base_model(w.run)
    assert model is not None
    tokens = 2 * config.data[w.data].max_tokens
    return Job(_scoring(config, model), lambda inputs: _rows(inputs.split, w.part) * tokens)


def similarity(config: Config, w: Any) -> Job:
    """``score_similarity``."""
    tokens = 2 * config.evaluations[w.evaluation].prompts * _answer_tokens(config, w)
    return Job(_scoring(config, w.encoder), lambda inputs: tokens)


def gold_scoring(config: Config, w: Any) -> Job:
    """``score_gold``."""
    model = config.golds[w.gold].model
    assert model is not None
    tokens = config.evaluations[w.evaluation].prompts * _answer_tokens(config, w)
    return Job(_scoring(config, model), lambda inputs: tokens)


def generation(config: Config, w: Any) -> Job:
    """``generate``."""
    model, evaluation = base_model(w.run), config.evaluations[w.evaluation]
    tokens = _answer_tokens(config, w)
    work = _work(config, "generate", model, "none", tokens, config.runtime.generation_batch)
    steps = math.ceil(evaluation.prompts / division(work, config)[1]) * evaluation.max_new_tokens
    return Job(work, lambda inputs: evaluation.prompts * tokens, steps)


def answering(config: Config, w: Any) -> Job:
    """``answer_prompts``: prompts of a transfer, as long as the model takes."""
    name = parse_answers(f"answers/{w.asked}")
    writer = config.writers[name.writer or name.base or name.refiner]
    assert writer.model is not None
    tokens = _positions(config, writer.model)
    work = _work(config, "generate", writer.model, "none", tokens, config.runtime.generation_batch)
    rows = config.runtime.generation_batch
    return Job(
        work, lambda inputs: _facts(inputs.prompts)["rows_kept"] * tokens, rows * writer.max_new_tokens
    )


def student_tuning(config: Config, w: Any) -> Job:
    """``tune_student``."""
    settings, model = config.fine_tunings[w.fine_tuning].sft, config.writers[w.base].model
    assert settings is not None and model is not None
    tokens = _positions(config, model)
    work = _training(config, model, lora=settings.lora_rank > 0, batch=settings.batch_size, tokens=tokens)
    return Job(work, lambda inputs: settings.epochs * _facts(inputs.records)["rows_kept"] * tokens)


def _positions(config: Config, model: str) -> int:
    """The longest sequence of a model, at most LONGEST: no prompt of a transfer comes near a long model's limit."""
    entry = config.models[model]
    positions = entry.pretrain.positions if entry.pretrain else entry.positions
    assert positions is not None
    return min(positions, LONGEST)


def _answer_tokens(config: Config, w: Any) -> int:
    return config.data[w.data].max_tokens + config.evaluations[w.evaluation].max_new_tokens


def _rows(split: str, part: str) -> int:
    rows = _facts(split)["rows_by_part"]
    return sum(rows[name] for name in ASSIGNED.get(part, (part,)))


def _facts(manifest: str) -> dict[str, Any]:
    return json.loads(Path(manifest).read_text(encoding="utf-8"))["facts"]


STAGES: dict[str, Callable[[Config, Any], Job]] = {
    "pretrain_model": pretraining,
    "train_reward_model": reward_training,
    "train_teacher_sft": lambda config, w: tuning(config, w, w.teacher, "labelled", "sft"),
    "train_teacher_dpo": lambda config, w: tuning(config, w, w.teacher, "labelled", "dpo"),
    "train_teacher_reward": lambda config, w: tuning(config, w, w.teacher, "labelled", "reward"),
    "train_student_sft": lambda config, w: tuning(config, w, w.student, students_part(config, w), "sft"),
    "train_student_dpo": lambda config, w: tuning(config, w, w.student, students_part(config, w), "dpo"),
    "score_responses": response_scoring,
    "reward_responses": response_rewards,
    "score_similarity": similarity,
    "generate": generation,
    "score_gold": gold_scoring,
    "answer_prompts": answering,
    "tune_student": student_tuning,
}


def stage_need(config: Config, stage: str, wildcards: Any, output: str) -> Need:
    """What a stage needs, in view of what happened to earlier attempts at ``output``."""
    return need(
        STAGES[stage](config, wildcards).work,
        config,
        out_of_memory=attempts.count(Path(output), "out-of-memory"),
        gpu_out_of_memory=attempts.count(Path(output), "gpu-out-of-memory"),
    )


def stage_minutes(config: Config, stage: str, wildcards: Any, inputs: Any) -> int:
    """A stage's time limit.

    Raises:
        FileNotFoundError: the rule's inputs, in which rows were counted, are not there yet.
    """
    job = STAGES[stage](config, wildcards)
    return minutes(job.work, config, tokens=job.tokens(inputs), steps=job.steps)


def import_mb(config: Config, model: str) -> int:
    """Memory in which a fetched model is read and written anew, in MB."""
    return math.ceil((BASE_MB + 8 * parameters(config, model) / 1e6) / 100) * 100


# -- site --------------------------------------------------------------------------------------------------------


def site(config: Config, gpus: int) -> dict[str, str | int | None]:
    """Where a job runs and in whose name, as the SLURM executor's resources; None leaves one out.

    A site is asked for GPUs in one of two ways: ``gpu`` and ``gpu_model`` (sbatch --gpus) or ``gres``.
    """
    cluster = config.cluster
    nodes = cluster.gpu if gpus else cluster.cpu
    named = bool(gpus) and cluster.gpu.request == "gpu"
    typed = f"{cluster.gpu.model}:" if cluster.gpu.model else ""
    return {
        "slurm_account": cluster.account,
        "qos": cluster.qos,
        "slurm_partition": nodes.partition,
        "constraint": nodes.constraint,
        "gpu": gpus if named else None,
        "gpu_model": cluster.gpu.model if named else None,
        "gres": f"gpu:{typed}{gpus}" if gpus and not named else None,
    }
