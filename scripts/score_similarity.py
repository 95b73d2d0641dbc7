"""Score how similar a model's responses are to the human-preferred responses of the same prompts (paper A, Figure 6).

The similarity is the cosine of two embeddings, see :mod:`w2s.similarity`. The paper takes BLEURT's; which checkpoint it
does not say. An encoder may be any model of the hub's format, e.g. a BLEURT checkpoint as BERT: only what gives hidden
states is loaded, from safetensors, without code of its own.

A test prompt's reference is the response that the data set's labels prefer (``--labels human``) in the example that the
prompt was taken from. A response without any token has no embedding; it has nothing in common with the reference, so that
its similarity is 0 (and prompts stay paired between models), and it is counted. A text beyond the encoder's positions
stops the run, or with ``--truncate`` loses its end and is counted.

Inputs: encoder, generations, the examples that they were made from (with ``human.parquet``), their split.
Output: ``similarity.parquet``: id, similarity (-1 to 1), in the order of the generations.
facts:   rows, responses without a token, texts cut, mean, digest of the encoder's weights

An interrupted run continues, and ``accelerate launch`` divides the batches among GPUs; neither changes a similarity.

``--run``, ``--data``, ``--share``, ``--seed`` and ``--encoder-name`` say what was scored by whom; the tables read them
from the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from w2s import cli
from w2s.artifact import load
from w2s.errors import DataError, JoinError
from w2s.judging import add_identity, add_model, read_generations
from w2s.processes import world
from w2s.runs import parse_run
from w2s.tables import join_labels, named, read_labels, read_part, write_parquet

if TYPE_CHECKING:
    import argparse

    import pandas as pd
    from w2s.similarity import Reader, Text


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--encoder", help="model that embeds")
    parser.input("--generations", help="responses to score")
    parser.input("--examples", help="examples that their prompts were taken from, with labels")
    parser.input("--split", help="split of the examples; its test part is used")
    parser.output("--output", help="manifest of the similarities")
    parser.spec("--encoder-name", help="name of the encoder")
    add_identity(parser)
    parser.spec(
        "--labels",
        choices=("human", "gold"),
        default="human",
        help="whose preferred response is the reference",
    )
    parser.spec(
        "--pooling",
        choices=("mean", "first"),
        default="mean",
        help="which hidden states are a text's embedding",
    )
    parser.spec(
        "--truncate", action="store_true", default=False, help="cut the ends of texts that are too long"
    )
    add_model(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    parse_run(args.run)
    texts = with_references(args)

    import pandas as pd
    import torch
    from w2s.models import weights_digest
    from w2s.shards import resumable
    from w2s.similarity import COLUMNS, Reader, load_encoder, similarities

    torch.set_num_threads(cli.threads())
    parents = {
        "encoder": args.encoder,
        "generations": args.generations,
        "examples": args.examples,
        "split": args.split,
    }
    with resumable(args, parents, __file__, COLUMNS) as (artifact, shards):
        folder = load(args.encoder).folder
        model = load_encoder(folder, args.precision, args.device)
        ids, pairs, counts = tokenised(texts, Reader(folder, model), args.truncate)
        progress = artifact is not None
        found = similarities(model, pairs, ids, args.pooling, args.batch_tokens, progress, shards)
        if artifact is None:
            return
        known = pd.Series(found, index=ids, name="similarity")
        table = texts[["id"]].assign(similarity=texts["id"].map(known).fillna(0.0))
        write_parquet(table, artifact.path("similarity.parquet"))
        artifact.record(
            rows_in=len(texts),
            rows_out=len(table),
            **counts,
            mean=float(table["similarity"].mean()),
            weights_digest=weights_digest(folder),
        )
        artifact.measure(processes=world()[1], resumed=shards.resumed, device=str(model.device))


def with_references(args: argparse.Namespace) -> pd.DataFrame:
    """The generations with the preferred response of their example: id, response, reference; in their order.

    Raises:
        JoinError: a generation's prompt is of no example of the test part, or of one without a label.
        DataError: a generation answers another prompt than its example has.
    """
    generations = read_generations(args.generations)
    ids = generations["id"]
    examples = read_part(args.examples, args.split, "test")
    unknown = ids[~ids.isin(examples["id"])]
    if len(unknown):
        raise JoinError(
            f"{len(unknown)} generations are of no example of the test part: {named(unknown)}",
            where=args.generations,
            instead="the examples and the split that the generations were made from",
        )
    labels = read_labels(args.examples, f"{args.labels}.parquet")
    labelled = join_labels(examples[examples["id"].isin(ids)], labels[labels["id"].isin(ids)])
    labelled = labelled.set_index("id").loc[ids].reset_index()
    other = ids[labelled["prompt"].to_numpy() != generations["prompt"].to_numpy()]
    if len(other):
        raise DataError(
            f"{len(other)} generations answer other prompts than those of the examples: {named(other)}",
            where=args.generations,
        )
    reference = labelled["response_1"].where(labelled["label"] == 1, labelled["response_0"])
    return generations[["id", "response"]].assign(reference=reference.to_numpy())


def tokenised(
    texts: pd.DataFrame, reader: Reader, truncate: bool
) -> tuple[list[str], list[tuple[Text, Text]], dict[str, int]]:
    """Ids and tokens of response and reference where the response has a token of its own; how many have none, or were cut.

    Raises:
        DataError: no pair is left, a reference has no token, or a text is too long and may not be cut.
    """
    both = [
        reader.read(texts[side].tolist(), (f"id {name}, {side}" for name in texts["id"]), truncate)
        for side in ("response", "reference")
    ]
    ids: list[str] = []
    pairs: list[tuple[Text, Text]] = []
    counts = {"empty_responses": 0, "responses_cut": 0, "references_cut": 0}
    for name, response, reference in zip(texts["id"], *both, strict=True):
        if not any(reference.own):
            raise DataError(
                "the preferred response has no token", where=f"id {name}", instead="filtered examples"
            )
        counts["references_cut"] += reference.cut
        if not any(response.own):
            counts["empty_responses"] += 1
            continue
        ids.append(name)
        pairs.append((response, reference))
        counts["responses_cut"] += response.cut
    if not pairs:
        raise DataError("no pair of texts with a token to embed", where="--generations")
    return ids, pairs, counts


if __name__ == "__main__":
    cli.run(main)
