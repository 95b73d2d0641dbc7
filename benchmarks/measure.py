"""What all benchmarks share: models of a given shape, interleaved rounds, the device's peak, the result's file."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import torch
from rows import END, PAD, VOCABULARY
from w2s import (
    cli,
    compat,  # noqa: F401  (before transformers)
)
from w2s.packing import Row

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Shape:
    """Sizes of an OPT model."""

    title: str = "OPT-125M"
    width: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward: int = 3072
    vocabulary: int = VOCABULARY

    @property
    def layer_products(self) -> int:
        """Weights of a layer's products."""
        return 4 * self.width**2 + 2 * self.width * self.feed_forward

    def model(self, seed: int = 0, device: str = "cpu") -> Any:
        """A model of random weights without dropout, float32, made on ``device``."""
        torch.manual_seed(seed)
        with torch.device(device):
            return self.fresh().eval()

    def fresh(self) -> Any:
        """The model, where torch makes its tensors by default."""
        from transformers import OPTConfig, OPTForCausalLM

        config = OPTConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            word_embed_proj_dim=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            ffn_dim=self.feed_forward,
            max_position_embeddings=2048,
            dropout=0.0,
            attention_dropout=0.0,
            layerdrop=0.0,
            pad_token_id=PAD,
            bos_token_id=END,
            eos_token_id=END,
        )
        return OPTForCausalLM(config)

    def flops(self, tokens: float, seen: float, scored: float) -> float:
        """Operations of a forward pass: products with weights, attention over ``seen`` pairs of tokens, the head.

        A multiplication with its addition counts two; everything else (norms, softmax) is left out.
        """
        linear = 2 * self.layers * self.layer_products
        return (
            tokens * linear + 4 * self.layers * self.width * seen + 2 * self.width * self.vocabulary * scored
        )


class LlamaShape(Shape):
    """Sizes of a Llama model: three products between width and feed-forward, and a head of its own."""

    @property
    def layer_products(self) -> int:
        """Weights of a layer's products."""
        return 4 * self.width**2 + 3 * self.width * self.feed_forward

    def fresh(self) -> Any:
        """The model, where torch makes its tensors by default."""
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            intermediate_size=self.feed_forward,
            max_position_embeddings=4096,
            attention_dropout=0.0,
            tie_word_embeddings=False,
            pad_token_id=PAD,
            bos_token_id=END,
            eos_token_id=END,
        )
        return LlamaForCausalLM(config)


DEFAULT_SHAPE = "opt-125m"
SHAPES = {
    DEFAULT_SHAPE: Shape(),
    "opt-1.3b": Shape("OPT-1.3B", 2048, 24, 32, 8192),
    "llama-7b": LlamaShape("Llama-7B", 4096, 32, 32, 11008, 32000),
    "tiny-opt": Shape("a tiny OPT", 16, 2, 2, 32, 96),
    "tiny-llama": LlamaShape("a tiny Llama", 16, 2, 2, 32, 64),
}


def stock_dpo() -> type:
    """TRL's DPOTrainer, made to take rows that are tokenised; all else is its own."""
    from trl import DPOTrainer

    class Tokenised(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *rest: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *rest: Any) -> Any:
            return dataset

    return Tokenised


def tokenizer(vocabulary: int = END + 1) -> Any:
    """A tokenizer of made-up words, one token each, and the special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {"<s>": 0, "<pad>": PAD, "</s>": END}
    words = {f"w{number}": number for number in range(END + 1, vocabulary)}
    made = Tokenizer(models.WordLevel({**special, **words}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")


def needed(shape: Shape, rows: Iterable[Row]) -> float:
    """Operations that no exact method can save: each token once, attention to what is seen, scored tokens' heads."""
    total = 0.0
    for row in rows:
        start = len(row.prompt)
        seen = start * (start + 1) / 2
        seen += sum(len(answer) * (start + (len(answer) + 1) / 2) for answer in row.answers)
        total += shape.flops(len(row), seen, row.scored)
    return total


def done(shape: Shape, groups: Iterable[list[Row]]) -> float:
    """Operations of our batches: padding, and attention over whole squares."""
    total = 0.0
    for group in groups:
        longest = max(map(len, group))
        total += shape.flops(len(group) * longest, len(group) * longest**2, sum(row.scored for row in group))
    return total


def clock() -> float:
    """Seconds: of the wall's clock; with W2S_BENCH_CLOCK=processor those that this process was given a core.

    The second is for a machine that others use too, and means something with one thread only: a thread that waits for
    another one counts as working. What a GPU was given to do is done when it is read.
    """
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    if os.environ.get("W2S_BENCH_CLOCK") != "processor":
        return time.perf_counter()
    if torch.cuda.is_initialized():
        raise SystemExit("W2S_BENCH_CLOCK=processor counts no GPU's time: leave it out")
    if torch.get_num_threads() > 1:
        raise SystemExit("W2S_BENCH_CLOCK=processor needs OMP_NUM_THREADS=1")
    return time.process_time()


def per_second(what: str) -> str:
    """The unit of a rate under :func:`clock`."""
    return f"{what}/s" + (" of one core" if os.environ.get("W2S_BENCH_CLOCK") == "processor" else "")


def done_apart(shape: Shape, pairs: list[Row], batch_size: int) -> float:
    """Operations of TRL's batches: two padded sequences per pair, and the head at every place."""
    total = 0.0
    for start in range(0, len(pairs), batch_size):
        part = pairs[start : start + batch_size]
        longest, sequences = max(row.longest for row in part), 2 * len(part)
        total += shape.flops(sequences * longest, sequences * longest**2, sequences * longest)
    return total


def peak(dtype: torch.dtype, device: str = "cpu") -> float:
    """Operations per second of square matrix products, the best of several after one that warms up."""
    size, products = (1536, 6) if device == "cpu" else (8192, 20)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype, device=device)
    torch.mm(left, right, out=out)
    times = []
    for _ in range(products):
        started = clock()
        torch.mm(left, right, out=out)
        times.append(clock() - started)
    return 2 * size**3 / min(times)


def fastest(sizes: Iterable[int], run: Callable[[int], Any]) -> int:
    """The batch size of which ``run`` takes least time; one that is too large for the memory is left out."""
    seconds = {}
    for size in sizes:
        started = clock()
        if fits(lambda size=size: run(size)):
            seconds[size] = clock() - started
    if not seconds:
        raise SystemExit("no batch size fits into the memory of this device")
    return min(seconds, key=lambda size: seconds[size])


def fits(run: Callable[[], Any]) -> bool:
    """Whether the memory suffices for ``run``. What it held on a GPU is free afterwards either way."""
    try:
        run()
    except Exception as error:
        if cli.memory_outcome(error) is None:
            raise
        enough = False
    else:
        enough = True
    free()
    return enough


def free() -> None:
    """Give a GPU's unused memory back, what only cycles of Python's hold included."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def most_memory(device: str = "cpu") -> float:
    """The most memory of this program so far, MiB: torch's tensors on a GPU, else what was resident.

    Of the second, getrusage would count that of the process that it came from.
    """
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


@dataclass
class Measured:
    """Of one side, for each round: seconds and what it returned."""

    seconds: list[float]
    made: list[Any]


def interleaved(rounds: int, sides: dict[str, Callable[[], Any]]) -> dict[str, Measured]:
    """Run all sides in turn, ``rounds`` times; what else the machine does then hits all of them."""
    found = {name: Measured([], []) for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            started = clock()
            found[name].made.append(run())
            found[name].seconds.append(clock() - started)
    return found


def ratio(faster: Measured, slower: Measured) -> float:
    """Median over the rounds of how many times ``faster`` fits into ``slower``."""
    return median(b / a for a, b in zip(faster.seconds, slower.seconds, strict=True))


def shares_of_peak(flops: dict[str, float], side: Measured, peaks: Measured) -> dict[str, float]:
    """Median over the rounds of ``flops`` per second, as a share of the peak of the same round."""
    rounds = list(zip(side.seconds, peaks.made, strict=True))
    return {name: round(median(count / s / top for s, top in rounds), 3) for name, count in flops.items()}


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions and machine, with how busy it is."""
    names = ("torch", "transformers", "trl", "accelerate", "peft", "numpy")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        **(_gpu() if device != "cpu" else {}),
    }


def _gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "gpu_memory_mib": properties.total_memory // 2**20,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "driver": _driver(),
        "cuda": torch.version.cuda,
    }


def _driver() -> str | None:
    """The driver's version as nvidia-smi has it; None without one."""
    if not shutil.which("nvidia-smi"):
        return None
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout.split("\n")[0].strip() or None


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def add_common(parser: argparse.ArgumentParser) -> None:
    """Arguments of both benchmarks."""
    parser.add_argument("--rows", type=Path, help="folder with HH-RLHF's *.jsonl.gz; default: rows like them")
    parser.add_argument("--tokenizer", type=Path, help="folder of OPT's tokenizer, for --rows")
    parser.add_argument("--shape", choices=SHAPES, default=DEFAULT_SHAPE, help="sizes of the model")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result's file")


def prepare(args: argparse.Namespace) -> None:
    """Set threads, and refuse what cannot be measured."""
    torch.set_num_threads(cli.threads())
    if args.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit("no GPU that torch can use; instead: --device cpu")
    if args.rows and SHAPES[args.shape].vocabulary != VOCABULARY:
        raise SystemExit(f"--rows are tokenised by OPT's vocabulary, {args.shape} has another: leave it out")


def name(args: argparse.Namespace, what: str, precision: str) -> str:
    """Name of a result: the GPU's by their shapes, a CPU's by their precisions."""
    if args.device == "cpu":
        parts = [what, precision, *([args.shape] if args.shape != DEFAULT_SHAPE else [])]
    else:
        parts = [what, "gpu", args.shape]
    return "-".join([*parts, *(["real"] if args.rows else [])])


def write(result: dict[str, Any], folder: Path = RESULTS) -> None:
    """Write ``<name>.json`` and say it in one line."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{result['name']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    met = "met" if result["met"] else "missed"
    print(
        f"{result['name']}: {result['ours']} against {result['theirs']} {result['unit']}, "
        f"ratio {result['ratio']}, target {result['target']}: {met}"
    )
