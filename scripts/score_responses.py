"""Score the responses of one part of a split under a model, one by one.

For each response y to its prompt x: ``log_prob_sum = log pi(y | x)``, the sum over the tokens of y and its
end token, and ``token_count``, the number of these tokens. Labels by implicit reward (paper A, equation 5),
reference log-probabilities of DPO and perplexities are arithmetic on two such files; none of them needs the
model again.

inputs:  a model in the hub's format, filtered examples, a split
outputs: scores.parquet: id, response (0 or 1), log_prob_sum (float64, nats), token_count
facts:   digests of the weights and of the tokenizer, number of examples, tokens that were computed (a prompt
         that two responses share counts once)
measured: forward passes, pairs per second (of the first process), share of padding, examples whose responses shared
         their prompt, processes, responses that an earlier attempt had scored

An interrupted run continues, and ``accelerate launch`` divides the batches among GPUs; neither changes a score.

The number of tokens per batch changes speed and memory, not the scores (beyond rounding, about 1e-5 in
float32).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from w2s import cli
from w2s.artifact import load
from w2s.errors import DataError
from w2s.processes import world
from w2s.tables import PARTS, read_part, write_parquet


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--model", help="causal language model")
    parser.input("--examples", help="filtered examples")
    parser.input("--split", help="split of these examples")
    parser.output("--output", help="manifest.json of the scores")
    parser.spec("--part", choices=PARTS, help="part of the split to score")
    parser.spec("--precision", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.option(
        "--batch-tokens", type=cli.positive_int, default=8192, help="tokens per batch, padding counted"
    )
    parser.option("--device", default="auto", help="auto takes the GPU if there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    examples = read_part(args.examples, args.split, args.part)
    if examples.empty:
        raise DataError(f"part {args.part!r} is empty: nothing to score", where=args.split)
    folder = load(args.model).folder

    import torch
    from w2s.encoding import Encoding
    from w2s.models import load_causal, weights_digest
    from w2s.scoring import KEYS, SCORE_COLUMNS, score
    from w2s.shards import resumable

    torch.set_num_threads(cli.threads())
    parents = {"model": args.model, "examples": args.examples, "split": args.split}
    with resumable(args, parents, __file__, SCORE_COLUMNS, KEYS) as (artifact, shards):
        encoding = Encoding.load(folder)
        model = load_causal(folder, args.precision, args.device)
        started = time.monotonic()
        scores = score(model, encoding, examples, args.batch_tokens, artifact is not None, shards)
        seconds = time.monotonic() - started
        if artifact is None:
            return
        write_parquet(scores.table, artifact.path("scores.parquet"))
        artifact.record(
            examples=len(examples),
            responses=len(scores.table),
            tokens=scores.tokens,
            weights_digest=weights_digest(folder),
            tokenizer_digest=encoding.digest,
        )
        artifact.measure(
            forward_passes=scores.forward_passes,
            pairs_per_s=round(scores.computed / seconds, 2),
            packed_examples=scores.packed,
            padding_share=round(1 - scores.tokens / scores.padded_tokens, 4),
            processes=world()[1],
            resumed=shards.resumed,
            device=str(model.device),
        )


if __name__ == "__main__":
    cli.run(main)
