"""Sampled responses against transformers' ``generate``, on the same tokenised prompts and with the same lengths.

Theirs is ``generate(do_sample=True, temperature=0.7)`` on batches in file order, at the best of several batch sizes,
found on a part of the prompts first. Ours is the loop that ``w2s.generation`` runs, w2s.decoding with its sampler.
Random weights: speed does not depend on their values. What a response's length depends on is
forced, alike for both sides, in two cases:

- *ends like HH-RLHF's*, the headline: each prompt has an end of its own, drawn from the measured lengths of responses
  (benchmarks/rows.py) and cut at 256 tokens;
- *no ends*: all responses have all tokens, so that nothing can leave early.

With fewer ``--new-tokens`` than 256 all lengths shrink in proportion, those of the prompts too, so that reading and
writing keep their shares. Stop texts and the texts themselves are left out on both sides.

    python benchmarks/generation.py [--rows FOLDER --tokenizer FOLDER]           # 200 prompts, 256 tokens: hours on two cores
    python benchmarks/generation.py --prompts 48 --new-tokens 64 ...             # about ten minutes
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import measure
import numpy as np
import rows
import torch
from measure import Measured, Shape
from w2s import decoding
from w2s.decoding import Continuation, decode
from w2s.generation import Sampler, Sampling

TARGET = 2.0
TEMPERATURE = 0.7
BATCH_SIZES = {"cpu": (8, 16, 32, 64), "cuda": (16, 64, 256)}
# The tokens that HH-RLHF's lengths are cut at; paper A's limit.
FULL = 256
BANDWIDTH_MB = 256


def drawn_ends(number: int, new_tokens: int, seed: int = 0) -> list[int]:
    """Tokens of each response, its end token included, like HH-RLHF's."""
    quantiles = np.random.default_rng(seed).random(number)
    lengths = np.minimum(np.interp(quantiles, rows.DECILES, rows.RESPONSE), FULL)
    return np.ceil(lengths * new_tokens / FULL).astype(int).tolist()


def shrunk(prompt: list[int], new_tokens: int) -> list[int]:
    """The prompt's last tokens, so many of them as ``new_tokens`` are of FULL."""
    return prompt[-max(1, round(len(prompt) * new_tokens / FULL)) :]


# -- the two sides -----------------------------------------------------------------------------------------------


class ForcedSampler(Sampler):
    """Our sampler, with an end token at each response's end and none before."""

    def __init__(self, ends: Sequence[int]) -> None:
        super().__init__([str(place) for place in range(len(ends))], Sampling(TEMPERATURE))
        self.ends = ends

    def __call__(self, asked: Sequence[Continuation], logits: torch.Tensor) -> list[int]:
        """The tokens; all of them are drawn, also those that are then replaced."""
        logits[:, rows.END] = -torch.inf
        drawn = super().__call__(asked, logits)
        return [
            rows.END if len(one.new) + 1 == self.ends[one.place] else token
            for one, token in zip(asked, drawn, strict=True)
        ]


def ours(model: Any, prompts: list[list[int]], ends: list[int], batch_size: int) -> list[int]:
    """Number of tokens of each response."""
    new = max(ends)
    budget = batch_size * (max(map(len, prompts)) + new)
    found = decode(
        model, prompts, new, ForcedSampler(ends), lambda one: one.new[-1] == rows.END, budget, rows.PAD
    )
    lengths = {one.place: len(one.new) for one in found}
    return [lengths[place] for place in range(len(prompts))]


def forced(ends: Sequence[int], prompt_length: int) -> Any:
    """Their way to the same: a processor of the logits."""
    from transformers import LogitsProcessor

    class Forced(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            over = torch.tensor(ends, device=scores.device) == input_ids.shape[1] - prompt_length + 1
            scores[:, rows.END] = -torch.inf
            scores[over] = -torch.inf
            scores[over, rows.END] = 0.0
            return scores

    return Forced()


def theirs(model: Any, prompts: list[list[int]], ends: list[int], batch_size: int) -> list[int]:
    """The same by transformers' ``generate``, batch after batch."""
    from transformers import GenerationConfig, LogitsProcessorList

    settings = GenerationConfig(
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
        max_new_tokens=max(ends),
        eos_token_id=rows.END,
        pad_token_id=rows.PAD,
    )
    found: list[int] = []
    for start in range(0, len(prompts), batch_size):
        part, last = prompts[start : start + batch_size], ends[start : start + batch_size]
        longest = max(map(len, part))
        padded = [[rows.PAD] * (longest - len(prompt)) + prompt for prompt in part]
        ids = torch.tensor(padded, device=model.device)
        made = model.generate(
            ids,
            attention_mask=(ids != rows.PAD).long(),
            generation_config=settings,
            logits_processor=LogitsProcessorList([forced(last, longest)]),
        )
        found += [first_end(row) for row in made[:, longest:].tolist()]
    return found


def first_end(tokens: list[int]) -> int:
    """Number of tokens up to the end token, or all."""
    return tokens.index(rows.END) + 1 if rows.END in tokens else len(tokens)


def best_batch_size(model: Any, prompts: list[list[int]], ends: list[int]) -> int:
    """Their fastest batch size on as many prompts as the largest takes; a first pass warms up."""
    most = max(BATCH_SIZES[model.device.type])
    prompts, ends = prompts[:most], ends[:most]
    theirs(model, prompts[:2], [2, 2], 2)
    # A size of twice the prompts is the same as the one before.
    sizes = [size for size in BATCH_SIZES[model.device.type] if size < 2 * len(prompts)] or [len(prompts)]
    return measure.fastest(sizes, lambda size: theirs(model, prompts, ends, size))


# -- what limits us ----------------------------------------------------------------------------------------------


@dataclass
class Work:
    """What our loop did: passes of the model, tokens that were computed, and columns of the past that they saw.

    Attributes:
        passes: forward passes; each reads all weights.
        tokens: tokens computed, padding of prompts counted.
        seen: pairs of tokens whose attention was computed, what is masked counted.
        read: columns of the past that were read, over all rows and passes.
        answered: tokens drawn.
    """

    passes: int = 0
    tokens: int = 0
    seen: int = 0
    read: int = 0
    answered: int = 0


def counted(model: Any, run: Callable[[], Any]) -> Work:
    """What ``run`` makes ``model`` do."""
    work = Work()

    def count(_: Any, __: Any, settings: dict[str, Any], ___: Any) -> None:
        number, tokens = settings["input_ids"].shape
        columns = settings["attention_mask"].shape[1]
        work.passes += 1
        work.tokens += number * tokens
        work.seen += number * tokens * columns
        work.read += number * columns if tokens == 1 else 0
        work.answered += number

    handle = model.register_forward_hook(count, with_kwargs=True)
    run()
    handle.remove()
    return work


class Stopwatch:
    """Seconds within some functions of a run, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, timed."""

        def timed(*arguments: Any, **settings: Any) -> Any:
            started = measure.clock()
            made = function(*arguments, **settings)
            self.seconds[name] = self.seconds.get(name, 0.0) + measure.clock() - started
            return made

        return timed


def shares(model: Any, run: Callable[[], Any]) -> dict[str, float]:
    """Of the time of ``run``: attention, the head, drawing with its noise, the buffers; the rest is the layers."""
    watch, cache = Stopwatch(), decoding.SharedClockCache
    places = [
        (torch.nn.functional, "scaled_dot_product_attention", "attention"),
        (model.lm_head, "forward", "head"),
        (Sampler, "__call__", "drawing"),
        *((cache, name, "buffers") for name in ("update", "admit", "release", "advance")),
    ]
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, label in places:
        setattr(owner, name, watch.around(label, getattr(owner, name)))
    started = measure.clock()
    run()
    total = measure.clock() - started
    for owner, name, function in kept:
        setattr(owner, name, function)
    found = {name: seconds / total for name, seconds in watch.seconds.items()}
    return {name: round(share, 3) for name, share in {**found, "layers": 1 - sum(found.values())}.items()}


def bandwidth(device: str) -> float:
    """Bytes per second of reading memory, the best of five sums over more than any cache holds."""
    tensor = torch.ones(BANDWIDTH_MB * 2**20 // 4, device=device)
    times = []
    for _ in range(5):
        started = measure.clock()
        tensor.sum()
        times.append(measure.clock() - started)
    return tensor.numel() * 4 / min(times)


def limits(shape: Shape, model: Any, work: Work, seconds: float, peak: float) -> dict[str, Any]:
    """What the run needs at least by arithmetic and by memory, as shares of the time that it took."""
    size = model.dtype.itemsize
    weights = size * sum(parameter.numel() for parameter in model.parameters())
    cache = size * 2 * shape.layers * shape.width * work.read
    flops = shape.flops(work.tokens, work.seen, work.answered)
    speed = bandwidth(model.device.type)
    return {
        "passes": work.passes,
        "rows_per_pass": round(work.answered / work.passes, 1),
        "flops": float(f"{flops:.4g}"),
        "peak_flops_per_s": float(f"{peak:.4g}"),
        "share_of_peak": round(flops / peak / seconds, 3),
        "weight_bytes_per_pass": weights,
        "cache_bytes_per_pass": cache // work.passes,
        "bytes_per_s_of_memory": float(f"{speed:.4g}"),
        "share_of_memory": round((weights * work.passes + cache) / speed / seconds, 3),
    }


# -- the run -----------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure both cases and check that both sides gave responses of the lengths that were asked for."""
    shape, dtype = measure.SHAPES[args.shape], getattr(torch, args.precision)
    model = shape.model(device=args.device).to(dtype)
    if args.rows:
        source = rows.real(args.rows, args.tokenizer, args.prompts)
    else:
        source = rows.drawn(args.prompts, vocabulary=shape.vocabulary)
    prompts = [shrunk(row.prompt, args.new_tokens) for row in source]
    cases = {
        "hh_ends": drawn_ends(len(prompts), args.new_tokens),
        "no_ends": [args.new_tokens] * len(prompts),
    }
    with torch.inference_mode():
        sizes = {case: best_batch_size(model, prompts, ends) for case, ends in cases.items()}
        sides: dict[str, Callable[[], Any]] = {"peak": lambda: measure.peak(dtype, args.device)}
        for case, ends in cases.items():
            sides[f"ours_{case}"] = lambda ends=ends: ours(model, prompts, ends, args.batch_size)
            sides[f"theirs_{case}"] = lambda ends=ends, size=sizes[case]: theirs(model, prompts, ends, size)
        found = measure.interleaved(args.rounds, sides)
        for case, ends in cases.items():
            if any(made != ends for side in ("ours", "theirs") for made in found[f"{side}_{case}"].made):
                raise SystemExit(f"{case}: responses do not have the lengths that were asked for")
        reports = {case: report(found, case, ends, sizes[case]) for case, ends in cases.items()}
        for case in cases:
            again, seconds = sides[f"ours_{case}"], median(found[f"ours_{case}"].seconds)
            peak = median(found["peak"].made)
            reports[case] |= {
                "limits": limits(shape, model, counted(model, again), seconds, peak),
                "shares_of_time": shares(model, again),
            }
    headline = reports["hh_ends"]
    return {
        "name": measure.name(args, "generation", args.precision),
        "ours": headline["ours"],
        "theirs": headline["theirs"],
        "unit": measure.per_second("responses"),
        "ratio": headline["ratio"],
        "target": TARGET,
        "met": headline["ratio"] >= TARGET,
        **reports,
        "prompts": len(prompts),
        "prompt_tokens": sum(map(len, prompts)),
        "new_tokens": args.new_tokens,
        "rounds": args.rounds,
        "batch_size": args.batch_size,
        "rows": "HH-RLHF" if args.rows else "drawn like HH-RLHF's",
        "model": f"{shape.title}'s shape, random weights",
        "precision": args.precision,
        "environment": measure.environment(args.device),
    }


def report(found: dict[str, Measured], case: str, ends: list[int], their_size: int) -> dict[str, Any]:
    """Both sides of a case."""
    mine, other = found[f"ours_{case}"], found[f"theirs_{case}"]
    return {
        "ours": round(len(ends) / median(mine.seconds), 3),
        "theirs": round(len(ends) / median(other.seconds), 3),
        "ratio": round(measure.ratio(mine, other), 2),
        "tokens": sum(ends),
        "our_tokens_per_s": round(sum(ends) / median(mine.seconds), 1),
        "their_tokens_per_s": round(sum(ends) / median(other.seconds), 1),
        "their_batch_size": their_size,
        "seconds": {
            "ours": [round(s, 2) for s in mine.seconds],
            "theirs": [round(s, 2) for s in other.seconds],
        },
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measure.add_common(parser)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=FULL)
    parser.add_argument("--batch-size", type=int, default=64, help="ours: as scripts/generate.py has it")
    args = parser.parse_args()
    measure.prepare(args)
    measure.write(run(args), args.results)


if __name__ == "__main__":
    main()
