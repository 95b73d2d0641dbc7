"""Import a tokenizer from a fetched source, with what the model sees around a text.

Whether a beginning-of-sequence token stands in front is found by tokenising a probe (OPT: ``</s>``, id 2),
not taken from declarations that differ between tokenizer classes. A tokenizer without pad token is refused
unless one is declared by ``--pad-token``: padding is masked everywhere, but it has to be a token that the
model knows.

inputs:  a fetched source with tokenizer.json (or vocab.json and merges.txt) and tokenizer_config.json
outputs: tokenizer.json, tokenizer_config.json, encoding.json (bos_id, eos_id, pad_id, positions)
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s import cli
from w2s.artifact import Artifact, load


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--source", help="fetched source")
    parser.output("--output", help="manifest.json of the tokenizer")
    parser.spec(
        "--pad-token",
        default=None,
        help='token to pad with if the tokenizer has none; "eos" for its end token',
    )
    parser.spec("--subfolder", default="", help="folder in the source that holds the tokenizer")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    folder = load(args.source).folder / args.subfolder

    from w2s.hub import read_tokenizer

    with Artifact.create(
        args.output, spec=args.spec, parents={"source": args.source}, script=__file__
    ) as artifact:
        encoding = read_tokenizer(folder, args.pad_token)
        encoding.save(artifact.folder)
        artifact.record(
            vocabulary=encoding.vocabulary_size,
            bos_id=encoding.bos_id,
            eos_id=encoding.eos_id,
            pad_id=encoding.pad_id,
            tokenizer_digest=encoding.digest,
        )


if __name__ == "__main__":
    cli.run(main)
