"""Let a model answer test prompts, one sampled response each.

The prompts are the first ``--prompts`` distinct prompts of the test part by example id, the same for every
model of a cell. Each response is drawn at ``--temperature`` (paper A, appendix A.2: 0.7, at most 256 new
tokens) and ends at the model's end token, where a stop text begins ("\\n\\nHuman:", a new human turn) or at
the token limit. Top-p, stop rule and seed are not in the paper; they are declared settings here.

Each prompt has its own random numbers, keyed by (seed, example id): batch size and order do not change a
text, and two models answer the same prompt under the same noise, token by token (common random numbers).
Responses that have ended make room for the next prompts at once (docs/generation.md). ``--backend vllm`` draws with
vLLM instead, on GPUs and from an environment of its own; its random numbers, and so its texts, are others.
An interrupted run continues, and ``accelerate launch`` divides the prompts among GPUs; neither changes a text.

Inputs: a model in the hub's format (``config.json``, safetensors, ``encoding.json``), examples, a split.
Output: ``generations.parquet``: id, prompt, response, tokens (without the end token), finished (eos, stop or
length).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from w2s import cli
from w2s.artifact import load
from w2s.errors import DataError
from w2s.processes import world
from w2s.tables import named, read_part, write_parquet

COLUMNS = ["id", "response", "tokens", "finished"]
# Prompts of a group, in batches.
GROUP = 8


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--model", help="model that answers")
    parser.input("--examples", help="examples that the prompts are taken from")
    parser.input("--split", help="split; its test part is used")
    parser.output("--output", help="manifest of the generations")
    parser.spec("--prompts", type=cli.positive_int, help="number of prompts (all of them if there are fewer)")
    parser.spec("--temperature", type=float, default=0.7, help="0 takes the likeliest token")
    parser.spec(
        "--top-p", type=float, default=1.0, help="sample from the likeliest tokens of this probability"
    )
    parser.spec("--max-new-tokens", type=cli.positive_int, default=256)
    parser.spec(
        "--stop", nargs="*", default=["\n\nHuman:"], help="texts that end a response; they are cut off"
    )
    parser.spec("--seed", type=int, default=0)
    parser.spec("--precision", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.spec(
        "--backend",
        choices=["transformers", "vllm"],
        default="transformers",
        help="who draws: our loop on transformers' models, or vLLM; their random numbers differ",
    )
    parser.option(
        "--batch-size",
        type=cli.positive_int,
        default=64,
        help="how many of the longest prompts are answered together; of shorter ones more, with as many tokens",
    )
    parser.option("--vllm-python", type=Path, help="Python of the environment with vLLM, for --backend vllm")
    parser.option("--device", default="auto", help="auto takes the GPU if there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    examples = read_part(args.examples, args.split, "test")
    chosen = examples.drop_duplicates("prompt").head(args.prompts)
    if chosen.empty:
        raise DataError("the test part is empty: no prompt to answer", where=args.split)

    import torch
    from w2s import backends
    from w2s.generation import LENGTH, Sampling
    from w2s.shards import resumable

    torch.set_num_threads(cli.threads())
    parents = {"model": args.model, "examples": args.examples, "split": args.split}
    with resumable(args, parents, __file__, COLUMNS) as (artifact, shards):
        folder = load(args.model).folder
        backend = backends.choose(
            args.backend,
            folder,
            args.precision,
            args.device,
            args.batch_size,
            args.vllm_python,
            progress=artifact is not None,
        )
        sampling = Sampling(args.temperature, args.top_p, args.max_new_tokens, tuple(args.stop), args.seed)
        prompts = list(zip(chosen["id"], chosen["prompt"], strict=True))
        for group in shards.mine(groups(prompts, backend.prompts_at_once), lambda prompt: [prompt[:1]]):
            shards.add(
                (group[place][0], answer.response, answer.tokens, answer.finished)
                for place, answer in backend.generate_each(group, sampling)
            )
        table = chosen[["id", "prompt"]].merge(shards.table(), on="id", how="left", validate="one_to_one")
        if artifact is None:
            return
        if table["response"].isna().any():
            raise DataError("prompts without a response", where=named(table["id"][table["response"].isna()]))
        write_parquet(table, artifact.path("generations.parquet"))
        artifact.record(
            prompts_available=int(examples["prompt"].nunique()),
            rows_out=len(table),
            tokens=int(table["tokens"].sum()),
            truncated=int((table["finished"] == LENGTH).sum()),
            distinct_responses=int(table["response"].nunique()),
        )
        artifact.measure(processes=world()[1], resumed=shards.resumed)


def groups(prompts: Sequence[tuple[str, str]], at_once: int | None) -> list[list[tuple[str, str]]]:
    """(id, text) in groups that are answered one after another, each with short and long prompts alike.

    A group's last responses leave the machine half idle, so it should hold many times what runs ``at_once``; an
    interrupted attempt loses the one that it was at. None: all in one.
    """
    number = 1 if at_once is None else -(-len(prompts) // (GROUP * at_once))
    ordered = sorted(prompts, key=lambda prompt: (len(prompt[1]), prompt[0]))
    return [ordered[first::number] for first in range(number)]


if __name__ == "__main__":
    cli.run(main)
