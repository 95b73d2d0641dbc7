"""What the benchmarks are measured by: rows like HH-RLHF's, counted operations, devices; and the command for a GPU."""

from __future__ import annotations

import importlib
import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from w2s.packing import Row

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture(scope="module")
def benchmark():
    """``benchmark("gpu")`` imports a module of the folder."""
    sys.path.insert(0, BENCHMARKS)
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(BENCHMARKS)


@pytest.fixture(scope="module")
def measure(benchmark):
    return benchmark("measure")


def test_drawn_rows_are_like_the_real_ones(measure):
    import rows

    drawn = rows.drawn(600)
    assert max(row.longest for row in drawn) <= rows.LONGEST
    shared = sum(len(row.prompt) for row in drawn)
    scored = sum(row.scored for row in drawn)
    # Of HH-RLHF's tokens in two sequences per pair, 64 % are prompts.
    assert 2 * shared / (2 * shared + scored) == pytest.approx(0.64, abs=0.04)
    first, second = (np.log([len(row.answers[n]) for row in drawn]) for n in (0, 1))
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0.5, abs=0.1)
    assert [row.prompt for row in rows.drawn(5)] == [row.prompt for row in rows.drawn(5)]


def test_operations_are_those_of_the_products(measure):
    shape = measure.Shape(width=4, layers=2, heads=1, feed_forward=8, vocabulary=10)
    row = Row("a", [1] * 3, ([1] * 2, [1]))
    linear, pair, head = 2 * 2 * (4 * 16 + 2 * 4 * 8), 4 * 2 * 4, 2 * 4 * 10
    # The prompt's tokens see 1 + 2 + 3, the responses' 4 + 5 and 4.
    assert measure.needed(shape, [row]) == 6 * linear + (6 + 9 + 4) * pair + 3 * head
    assert measure.done(shape, [[row, row]]) == 2 * (6 * linear + 36 * pair + 3 * head)
    assert measure.done_apart(shape, [row], 2) == 2 * (5 * linear + 25 * pair + 5 * head)


def test_ratios_are_taken_round_by_round(measure):
    fast, slow = measure.Measured([1.0, 2.0, 4.0], []), measure.Measured([3.0, 4.0, 20.0], [])
    assert measure.ratio(fast, slow) == 3.0
    peaks = measure.Measured([], [10.0, 10.0, 10.0])
    assert measure.shares_of_peak({"needed": 10.0}, fast, peaks) == {"needed": 0.5}


def test_the_processors_clock_needs_one_thread(measure, monkeypatch):
    monkeypatch.setenv("W2S_BENCH_CLOCK", "processor")
    monkeypatch.setattr(measure.torch, "get_num_threads", lambda: 2)
    with pytest.raises(SystemExit, match="OMP_NUM_THREADS=1"):
        measure.clock()
    assert measure.per_second("pairs") == "pairs/s of one core"


@pytest.mark.parametrize("name", ["tiny-opt", "tiny-llama"])
def test_a_shape_counts_the_products_of_its_model(measure, name: str):
    """One token through the layers costs two operations per weight of their products."""
    shape = measure.SHAPES[name]
    model = shape.model()
    layers = sum(
        weight.numel() for key, weight in model.named_parameters() if weight.dim() == 2 and ".layers." in key
    )
    assert shape.flops(1, 0, 0) == 2 * layers
    assert shape.flops(0, 0, 1) == 2 * model.get_output_embeddings().weight.numel()
    assert model.dtype == torch.float32
    assert not model.training


@pytest.mark.parametrize(("name", "billions"), [("opt-1.3b", 1.3), ("llama-7b", 6.7)])
def test_the_gpu_s_shapes_are_those_of_the_models(measure, name: str, billions: float):
    with torch.device("meta"):
        model = measure.SHAPES[name].fresh()
    assert sum(weight.numel() for weight in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.02)


def test_drawn_tokens_are_of_the_shape_s_vocabulary(measure):
    import rows

    tokens = {
        token
        for row in rows.drawn(20, vocabulary=64)
        for part in (row.prompt, *row.answers)
        for token in part
    }
    assert max(tokens) == 63
    assert rows.PAD not in tokens


def test_a_batch_that_memory_does_not_hold_is_left_out(measure):
    def run(size: int) -> None:
        if size == 8:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        if size == 16:
            raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")

    assert measure.fastest([8, 16, 32], run) == 32
    with pytest.raises(SystemExit, match="no batch size fits"):
        measure.fastest([8, 16], run)
    with pytest.raises(ZeroDivisionError):
        measure.fastest([1], lambda size: size / 0)


def test_a_gpu_is_waited_for_and_has_no_processor_clock(measure, monkeypatch):
    waited: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(True))
    measure.clock()
    assert waited == [True]
    monkeypatch.setenv("W2S_BENCH_CLOCK", "processor")
    with pytest.raises(SystemExit, match="counts no GPU's time"):
        measure.clock()


def test_the_environment_names_the_gpu_its_driver_and_cuda(measure, monkeypatch, tmp_path: Path):
    properties = SimpleNamespace(name="NVIDIA Test", total_memory=80 * 2**30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.version, "cuda", "12.1")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 550.1\necho 550.1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = measure.environment("cuda")
    assert (found["gpu"], found["gpu_memory_mib"]) == ("NVIDIA Test", 81920)
    assert (found["compute_capability"], found["driver"], found["cuda"]) == ("9.0", "550.1", "12.1")
    assert not {"gpu", "driver", "cuda"} & set(measure.environment())


def test_results_are_named_by_shape_on_a_gpu_and_by_precision_on_a_cpu(measure):
    def named(**settings: Any) -> str:
        args = Namespace(**{"device": "cpu", "shape": "opt-125m", "rows": None} | settings)
        return measure.name(args, "scoring", "bfloat16")

    assert named() == "scoring-bfloat16"
    assert named(rows=Path("rows")) == "scoring-bfloat16-real"
    assert named(device="cuda", shape="opt-1.3b") == "scoring-gpu-opt-1.3b"
    assert named(device="cuda", shape="opt-1.3b", rows=Path("rows")) == "scoring-gpu-opt-1.3b-real"
    assert named(shape="tiny-opt") == "scoring-bfloat16-tiny-opt"


def test_what_cannot_be_measured_is_refused(measure, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU that torch can use"):
        measure.prepare(Namespace(device="cuda", rows=None, shape="opt-125m"))
    with pytest.raises(SystemExit, match="OPT's vocabulary, llama-7b has another"):
        measure.prepare(Namespace(device="cpu", rows=Path("rows"), shape="llama-7b"))


def test_on_a_gpu_each_side_of_dpo_has_the_memory_for_itself(benchmark, measure, monkeypatch):
    """The sides are timed apart, and ours is related to the peak that was measured beside it."""
    dpo, rows = benchmark("dpo"), benchmark("rows")
    apart: list[tuple[str, ...]] = []

    def timed(args: Namespace, pairs: list[Row], sides: tuple[str, ...]):
        apart.append(sides)
        seconds, peak = (1.0, 1e6) if sides == ("ours",) else (3.0, 5e6)
        return {sides[0]: 2}, {
            "peak": measure.Measured([0.1], [peak]), sides[0]: measure.Measured([seconds], [0.7])
        }  # fmt: skip

    memory = {"first_loss": 0.7, "second_loss": 0.6, "before": 1.0, "peak": 2.0}
    monkeypatch.setattr(dpo, "timed", timed)
    monkeypatch.setattr(dpo, "in_own_process", lambda side, micro: memory)
    monkeypatch.setattr(measure, "environment", lambda device: {"gpu": device})
    args = Namespace(device="cuda", shape="tiny-llama", precision="bfloat16", rows=None, rounds=1)
    pairs = rows.drawn(4, vocabulary=64)
    result = dpo.run(args, pairs)
    assert apart == [("ours",), ("theirs",)]
    assert result["name"] == "dpo-gpu-tiny-llama"
    assert (result["ratio"], result["peak_flops_per_s"], result["met"]) == (3.0, 1e6, True)
    assert result["share_of_peak"] == round(2 * measure.needed(measure.SHAPES["tiny-llama"], pairs) / 1e6, 3)
    assert result["environment"] == {"gpu": "cuda"}


# ------------------------------------------------------------------------------------------------- the command for a GPU


def test_without_a_gpu_the_command_says_so(benchmark, monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark("gpu").main(["--results", str(tmp_path / "results")]) == 0
    assert capsys.readouterr().out == "torch finds no GPU here: nothing was measured\n"
    assert not (tmp_path / "results").exists()


def test_sections_are_both_benchmarks_of_both_shapes(benchmark, monkeypatch):
    gpu = benchmark("gpu")
    seen: dict[str, list[str]] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "failures", lambda sections, limit: seen.update(sections) or {})
    assert gpu.main(["--rows", "hh", "--tokenizer", "opt"]) == 0
    assert list(seen) == ["scoring opt-1.3b", "dpo opt-1.3b", "scoring llama-7b", "dpo llama-7b"]
    for name, words in seen.items():
        assert ("--rows" in words) == ("opt" in name)  # Llama has another vocabulary
        assert words[words.index("--device") + 1] == "cuda"
        assert words[words.index("--precision") + 1] == "bfloat16"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_section_that_fails_does_not_lose_the_others(benchmark, monkeypatch, tmp_path: Path, capsys):
    gpu = benchmark("gpu")
    sections: dict[str, list[str]] = {
        "one": python("import sys; print('cause', file=sys.stderr); sys.exit(3)"),
        "two": python("import time; time.sleep(60)"),
        "three": python(f"open({str(tmp_path / 'made')!r}, 'w').close()"),
    }
    monkeypatch.setattr(gpu, "commands", lambda args: sections)
    assert gpu.main(["--device", "cpu", "--limit", "0.05"]) == 1
    assert (tmp_path / "made").exists()
    told = capsys.readouterr().err
    assert "error: one: exit code 3\ncause" in told
    assert "error: two: stopped after 0.05 minutes" in told
    assert "three" not in told


def test_what_a_section_started_ends_with_it(benchmark, tmp_path: Path):
    """A process left behind would hold memory that the next section needs."""
    import time

    late = tmp_path / "late"
    child = f"import time; time.sleep(2); open({str(late)!r}, 'w').close()"
    words = python(f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])")
    assert benchmark("gpu").failure(words, 30) == ""
    time.sleep(3)
    assert not late.exists()


@pytest.mark.slow
def test_the_command_measures_both_sides_on_a_cpu(benchmark, tmp_path: Path):
    gpu: Callable[..., int] = benchmark("gpu").main
    words = ["--device", "cpu", "--shapes", "tiny-llama", "--rounds", "1", "--results", str(tmp_path)]
    assert gpu(words) == 0
    for name in ("scoring", "dpo"):
        result = json.loads((tmp_path / f"{name}-bfloat16-tiny-llama.json").read_text())
        assert result["ours"] > 0
        assert result["theirs"] > 0
        assert result["precision"] == "bfloat16"
        assert "Llama" in result["model"]
