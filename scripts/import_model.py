"""Import a fetched model: the hub's format, safetensors only, with its tokenizer beside it.

Safetensors are linked (or copied), not loaded. Weights that exist as ``pytorch_model.bin`` only (the OPT
models) are converted once, which takes torch 2.6 or newer: below, a pickle can run code in spite of
``weights_only`` (CVE-2025-32434), and such a file is refused. Models that bring their own code are refused
as well. Their sampling defaults (generation_config.json) are left behind: how to sample is a declared
setting of ``generate``.

inputs:  a fetched source: config.json, weights, tokenizer files
outputs: config.json, model*.safetensors, tokenizer.json, tokenizer_config.json, encoding.json
facts:   architecture, number of stored weights, positions, whether the weights were converted
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s import cli
from w2s.artifact import Artifact, load


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--source", help="fetched source")
    parser.output("--output", help="manifest.json of the model")
    parser.spec(
        "--positions", type=cli.positive_int, default=None, help="longest sequence; default: the model's own"
    )
    parser.spec(
        "--pad-token",
        default=None,
        help='token to pad with if the tokenizer has none; "eos" for its end token',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    source = load(args.source).folder

    from w2s import hub
    from w2s.models import read_config

    with Artifact.create(
        args.output, spec=args.spec, parents={"source": args.source}, script=__file__
    ) as artifact:
        config = read_config(source)
        architecture = hub.check_architecture(config, source)
        encoding = hub.read_tokenizer(source, args.pad_token)
        encoding.positions = hub.check_fits(config, encoding, args.positions, source)
        converted = hub.place_weights(source, artifact.folder)
        hub.write_config(source, artifact.folder, encoding)
        encoding.save(artifact.folder)
        artifact.record(
            architecture=architecture,
            stored_weights=sum(map(hub.check_safetensors, artifact.folder.glob("*.safetensors"))),
            positions=encoding.positions,
            converted=converted,
            bos_id=encoding.bos_id,
            tokenizer_digest=encoding.digest,
        )


if __name__ == "__main__":
    cli.run(main)
