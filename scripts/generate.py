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

from w2s import answering, cli
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
    answering.add_sampling(parser, stop=["\n\nHuman:"])
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    examples = read_part(args.examples, args.split, "test")
    chosen = examples.drop_duplicates("prompt").head(args.prompts)
    if chosen.empty:
        raise DataError("the test part is empty: no prompt to answer", where=args.split)

    from w2s.generation import LENGTH

    parents = {"model": args.model, "examples": args.examples, "split": args.split}
    prompts = list(zip(chosen["id"], chosen["prompt"], strict=True))
    with answering.answered(args, parents, __file__, prompts) as (artifact, answers):
        if artifact is None:
            return
        table = chosen[["id", "prompt"]].merge(answers, on="id", how="left", validate="one_to_one")
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
