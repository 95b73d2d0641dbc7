"""Let a model answer test prompts, one sampled response each.

The prompts are the first ``--prompts`` distinct prompts of the test part by example id, the same for every
model of a cell. Each response is drawn at ``--temperature`` (paper A, appendix A.2: 0.7, at most 256 new
tokens) and ends at the model's end token, where a stop text begins ("\\n\\nHuman:", a new human turn) or at
the token limit. Top-p, stop rule and seed are not in the paper; they are declared settings here.

Each prompt has its own random numbers, keyed by (seed, example id): batch size and order do not change a
text, and two models answer the same prompt under the same noise, token by token (common random numbers).
Responses that have ended make room for the next prompts at once (docs/generation.md). ``--backend vllm`` draws with
vLLM instead, on GPUs and from an environment of its own; its random numbers, and so its texts, are others.

Inputs: a model in the hub's format (``config.json``, safetensors, ``encoding.json``), examples, a split.
Output: ``generations.parquet``: id, prompt, response, tokens (without the end token), finished (eos, stop or
length).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from w2s import cli
from w2s.artifact import Artifact, load
from w2s.errors import DataError
from w2s.tables import read_part, write_parquet


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

    torch.set_num_threads(cli.threads())
    parents = {"model": args.model, "examples": args.examples, "split": args.split}
    with Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact:
        folder = load(args.model).folder
        backend = backends.choose(
            args.backend, folder, args.precision, args.device, args.batch_size, args.vllm_python
        )
        sampling = Sampling(args.temperature, args.top_p, args.max_new_tokens, tuple(args.stop), args.seed)
        prompts = list(zip(chosen["id"], chosen["prompt"], strict=True))
        found = dict(backend.generate_each(prompts, sampling))
        answers = [found[place] for place in range(len(prompts))]
        table = chosen[["id", "prompt"]].assign(
            response=[answer.response for answer in answers],
            tokens=[answer.tokens for answer in answers],
            finished=[answer.finished for answer in answers],
        )
        write_parquet(table, artifact.path("generations.parquet"))
        artifact.record(
            prompts_available=int(examples["prompt"].nunique()),
            rows_out=len(table),
            tokens=int(table["tokens"].sum()),
            truncated=int((table["finished"] == LENGTH).sum()),
            distinct_responses=int(table["response"].nunique()),
        )


if __name__ == "__main__":
    cli.run(main)
