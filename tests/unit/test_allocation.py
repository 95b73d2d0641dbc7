"""What jobs ask for: the formula against models whose sizes are known, its overrides, and what happens on a retry."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from preset_files import merged
from w2s import allocation, attempts
from w2s.allocation import Work, division, fits, minutes, need, site, stage_minutes, stage_need
from w2s.config import load_config
from w2s.errors import ConfigError
from w2s.schema import Config

CELL = {"data": "hh-helpful", "share": "1-of-2", "seed": "22", "recipe": "paper-hh"}


def config(**overlay: Any) -> Config:
    """The catalogue with the paper's values, and an overlay."""
    return load_config(merged(None, overlay))


def demo(**overlay: Any) -> Config:
    return load_config(merged("demo", overlay))


def student(
    model: str, step: str, settings: Config, output: str = "nowhere/manifest.json"
) -> allocation.Need:
    wildcards = SimpleNamespace(**CELL, student=model, feedback="human")
    return stage_need(settings, f"train_student_{step}", wildcards, output)


@pytest.mark.parametrize(
    ("model", "layers", "width"),
    [
        ("opt-125m", 12, 768), ("opt-1.3b", 24, 2048), ("opt-2.7b", 32, 2560), ("opt-6.7b", 32, 4096), ("opt-13b", 40, 5120),
    ],
)  # fmt: skip
def test_the_shape_is_guessed_from_the_size(model: str, layers: int, width: int) -> None:
    size = config().models[model].parameters
    assert size is not None
    assert 0.038 * size ** (2 / 3) == pytest.approx(layers * width, rel=0.25)


def test_parameters_of_a_model_made_here_are_those_that_it_has() -> None:
    """The demo's student has 402,720 weights, read off a finished training: its tokenizer found 568 of 640 entries."""
    assert allocation.parameters(demo(), "demo-k") - 96 * (640 - 568) == 402_720
    assert allocation.parameters(demo(), "demo-gold") == allocation.parameters(demo(), "demo-k")


@pytest.mark.parametrize(
    ("model", "step", "gpus", "layout"),
    [
        ("opt-1.3b", "sft", 1, "ddp"),
        ("opt-1.3b", "dpo", 1, "ddp"),
        ("opt-6.7b", "sft", 4, "fsdp"),  # 18 bytes per weight: 121 GB
        ("opt-6.7b", "dpo", 2, "fsdp"),  # LoRA: 6 bytes per weight, and the activations of 8 pairs
        ("opt-13b", "sft", 8, "fsdp"),
    ],
)
def test_gpus_of_80_gb(model: str, step: str, gpus: int, layout: str) -> None:
    found = student(model, step, config())
    assert (found.gpus, found.layout) == (gpus, layout)


def test_the_global_batch_does_not_depend_on_the_number_of_gpus() -> None:
    for gpus in (1, 2, 4, 8):
        override = {"opt-1.3b": {"resources": {"train": {"gpus": gpus}}}}
        found = student("opt-1.3b", "sft", config(models=override))
        assert found.gpus == gpus
        assert 32 % (found.gpus * found.pass_size) == 0
        assert found.pass_size <= config().runtime.micro_batch_size


def test_a_smaller_pass_before_it_is_refused() -> None:
    found = student("opt-13b", "sft", config(cluster={"gpu": {"per_node": 4}}))
    assert found.gpus == 4
    assert found.pass_size < config().runtime.micro_batch_size


def test_a_model_that_no_node_holds_is_refused_with_the_numbers() -> None:
    with pytest.raises(
        ConfigError, match=r"opt-13b does not fit: \d+ GB on each of 4 GPUs of 24 GB"
    ) as refusal:
        student("opt-13b", "sft", config(cluster={"gpu": {"per_node": 4, "memory_gb": 24}}))
    assert "models.opt-13b.resources.train.gpus" in str(refusal.value)


def test_overrides_win() -> None:
    override = {"gpus": 2, "mem_mb": 123_000, "runtime": 77}
    settings = config(models={"opt-13b": {"resources": {"train": override}}})
    found = student("opt-13b", "sft", settings)
    assert (found.gpus, found.mem_mb) == (2, 123_000)
    work = Work("train", "opt-13b", 13_000_000_000, "all", "bfloat16", 512, 8, 50_272, 32)
    assert minutes(work, settings, tokens=1e12) == 77


def test_gpus_that_do_not_divide_the_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="global batch of 16 cannot be divided among 3 GPUs"):
        student("opt-1.3b", "dpo", config(models={"opt-1.3b": {"resources": {"train": {"gpus": 3}}}}))


def test_scoring_is_divided_where_the_catalogue_says_so() -> None:
    wildcards = SimpleNamespace(**CELL, run="models/opt-13b", part="unlabelled")
    one = stage_need(config(), "score_responses", wildcards, "nowhere/manifest.json")
    settings = config(models={"opt-13b": {"resources": {"score": {"gpus": 4}}}})
    four = stage_need(settings, "score_responses", wildcards, "nowhere/manifest.json")
    assert (one.gpus, one.layout, four.gpus, four.layout) == (1, "single", 4, "ddp")
    assert one.pass_size == four.pass_size  # each GPU holds all of the model
    assert not fits(allocation.STAGES["score_responses"](settings, wildcards).work, 4, 1, 20)


def test_generation_takes_fewer_prompts_at_once_where_the_cache_would_not_fit() -> None:
    wildcards = SimpleNamespace(**CELL, evaluation="paper-hh", run="models/opt-13b")
    large, small = (
        stage_need(config(cluster={"gpu": {"memory_gb": gb}}), "generate", wildcards, "nowhere/manifest.json")
        for gb in (141, 40)
    )
    assert large.pass_size == config().runtime.generation_batch
    assert 1 <= small.pass_size < large.pass_size


def test_no_gpu_is_asked_for_where_none_is_needed() -> None:
    settings = demo()
    cell = {**CELL, "data": "world-t2", "recipe": "demo-student"}
    wildcards = SimpleNamespace(**cell, student="demo-k", feedback="human")
    found = stage_need(settings, "train_student_dpo", wildcards, "nowhere/manifest.json")
    assert (found.gpus, found.layout) == (0, "single")
    assert found.mem_mb < 4000


# -- retries -----------------------------------------------------------------------------------------------------


def failed(output: Path, *outcomes: str) -> str:
    for outcome in outcomes:
        attempts.record(output, started=datetime.now(UTC), outcome=outcome, code=1)
    return str(output)


def test_memory_doubles_only_after_the_memory_limit(tmp_path: Path) -> None:
    first = student("opt-1.3b", "dpo", config())
    others = failed(tmp_path / "a" / "manifest.json", "failed", "interrupted", "interrupted")
    assert student("opt-1.3b", "dpo", config(), others) == first
    twice = failed(tmp_path / "b" / "manifest.json", "out-of-memory", "interrupted", "out-of-memory")
    assert student("opt-1.3b", "dpo", config(), twice).mem_mb == 4 * first.mem_mb


def test_a_pass_that_was_too_large_for_the_gpu_is_halved(tmp_path: Path) -> None:
    first = student("opt-1.3b", "dpo", config())
    once = failed(tmp_path / "a" / "manifest.json", "gpu-out-of-memory")
    assert student("opt-1.3b", "dpo", config(), once).pass_size == first.pass_size // 2
    often = failed(tmp_path / "b" / "manifest.json", *["gpu-out-of-memory"] * 3)
    assert student("opt-1.3b", "dpo", config(), often).pass_size == 1


# -- time --------------------------------------------------------------------------------------------------------


def counted(folder: Path, **facts: Any) -> str:
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"facts": facts}))
    return str(manifest)


def student_minutes(settings: Config, model: str, split: str) -> int:
    wildcards = SimpleNamespace(**CELL, student=model, feedback="human")
    return stage_minutes(settings, "train_student_sft", wildcards, SimpleNamespace(split=split))


def test_time_grows_with_rows_and_size_and_ends_at_the_site_s_limit(tmp_path: Path) -> None:
    settings = config()
    split = counted(tmp_path, rows_by_part={"unlabelled": 56_000})
    small, large = (student_minutes(settings, model, split) for model in ("opt-1.3b", "opt-2.7b"))
    assert settings.cluster.longest > large > small > allocation.SHORTEST_MINUTES
    # 6 x 1.3e9 x 56,000 x 512 operations at 1e14 per second, twice for safety, and a start.
    assert small == 5 + 75
    assert student_minutes(config(cluster={"longest": 30}), "opt-2.7b", split) == 30


def test_a_teacher_with_as_many_steps_has_as_much_time(tmp_path: Path) -> None:
    """With an eighth of the rows at 1/16, eight times the epochs."""

    def teacher(share: str, rows: int, recipe: str) -> int:
        (tmp_path / recipe / share).mkdir(parents=True)
        split = counted(tmp_path / recipe / share, rows_by_part={"labelled": rows})
        wildcards = SimpleNamespace(**{**CELL, "share": share, "recipe": recipe}, teacher="opt-1.3b")
        return stage_minutes(config(), "train_teacher_sft", wildcards, SimpleNamespace(split=split))

    half, sixteenth = (
        teacher(share, rows, "paper-hh-teacher") for share, rows in (("1-of-2", 56_000), ("1-of-16", 7_000))
    )
    assert half == sixteenth > allocation.SHORTEST_MINUTES
    assert teacher("1-of-16", 7_000, "paper-hh") < half


def test_who_learns_from_both_parts_has_time_for_both(tmp_path: Path) -> None:
    split = counted(tmp_path, rows_by_part={"labelled": 56_000, "unlabelled": 56_000, "test": 9_000})
    times = {}
    for feedback in ("human", "everything"):
        wildcards = SimpleNamespace(**CELL, student="opt-1.3b", feedback=feedback)
        times[feedback] = stage_minutes(
            config(), "train_student_sft", wildcards, SimpleNamespace(split=split)
        )
    assert times == {"human": 5 + 75, "everything": 5 + 150}


def test_a_reward_model_s_scoring_is_the_teacher_s_or_the_gold_model_s() -> None:
    for run, model in (
        ("teachers/opt-125m/paper-hh-reward/reward", "opt-125m"),
        ("golds/mistral-unified-feedback", "gold-mistral-7b"),
    ):
        wildcards = SimpleNamespace(**CELL, run=run, part="unlabelled")
        assert allocation.STAGES["reward_responses"](config(), wildcards).work.model == model


def test_the_reward_teacher_trains_with_its_own_settings() -> None:
    wildcards = SimpleNamespace(**{**CELL, "recipe": "paper-hh-reward"}, teacher="opt-125m")
    work = allocation.STAGES["train_teacher_reward"](config(), wildcards).work
    assert (work.trained, work.batch, work.tokens) == ("all", 16, 2 * 512)


def test_time_is_unknown_until_the_rows_are_counted(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        student_minutes(config(), "opt-1.3b", str(tmp_path / "manifest.json"))


# -- site --------------------------------------------------------------------------------------------------------


def test_a_site_s_names_reach_the_scheduler_in_one_of_two_ways() -> None:
    names = {"partition": "g", "constraint": "c", "model": "a100"}
    typed = site(config(cluster={"account": "x", "gpu": names, "cpu": {"partition": "p"}}), 2)
    assert typed == {
        "slurm_account": "x", "qos": None, "slurm_partition": "g", "constraint": "c", "gpu": 2, "gpu_model": "a100",
        "gres": None,
    }  # fmt: skip
    generic = site(config(cluster={"gpu": {**names, "request": "gres"}}), 2)
    assert (generic["gpu"], generic["gpu_model"], generic["gres"]) == (None, None, "gpu:a100:2")
    light = site(config(cluster={"gpu": names, "cpu": {"partition": "p"}}), 0)
    assert (light["slurm_partition"], light["gpu"], light["gpu_model"]) == ("p", None, None)


def test_text_from_a_profile_is_read_as_numbers() -> None:
    """A profile's `config:` reaches the schema as text."""
    written = {
        "longest": "2880",
        "account": "None",
        "gpu": {"memory_gb": "40", "per_node": "4", "model": "None"},
    }
    read = config(cluster=written).cluster
    assert (read.longest, read.gpu.memory_gb, read.gpu.per_node) == (2880, 40.0, 4)
    assert (read.account, read.gpu.model) == (None, None)


def test_what_is_chosen_fits() -> None:
    for memory in (24, 40, 80, 141):
        settings = config(cluster={"gpu": {"memory_gb": memory}})
        for parameters in (125e6, 1.3e9, 7e9):
            for trained in ("all", "lora"):
                work = Work("train", "opt-125m", int(parameters), trained, "bfloat16", 1024, 8, 50_272, 16)  # type: ignore[arg-type]
                try:
                    gpus, size = division(work, settings)
                except ConfigError:
                    assert not fits(work, 8, 1, memory)
                    continue
                assert fits(work, gpus, size, memory)
                assert 16 % (gpus * size) == 0
                assert need(work, settings).layout == ("ddp" if fits(work, 1, size, memory) else "fsdp")
