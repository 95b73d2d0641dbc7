"""Import a fetched model: the hub's format, safetensors only, with its tokenizer beside it.

The sequences of a causal language model are built here: its tokenizer is kept with what the model sees around a text
(encoding.json). A classifier or an encoder is read through its own tokenizer, with its special tokens, its chat
template and its way to put two texts together, all as they are.

Safetensors are linked (or copied), not loaded. Weights that exist as ``pytorch_model.bin`` only (the OPT
models) are converted once, which takes torch 2.6 or newer: below, a pickle can run code in spite of
``weights_only`` (CVE-2025-32434), and such a file is refused. So is any other pickle, or one beside safetensors; a
model that brings its own code; an index that does not fit its files; a tokenizer that is another model's, as far as its
ids tell; and a link that leads out of the source. Their sampling defaults (generation_config.json) are left behind: how to sample is a declared
setting of ``generate``.

inputs:  a fetched source: config.json, weights, tokenizer files
outputs: config.json, model*.safetensors, tokenizer.json, tokenizer_config.json; of a causal language model
         encoding.json, of others what else the tokenizer has (special_tokens_map.json, chat_template.jinja, ...)
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

    from w2s import foreign, hub
    from w2s.encoding import tokenizer_digest
    from w2s.models import read_config

    with Artifact.create(
        args.output, spec=args.spec, parents={"source": args.source}, script=__file__
    ) as artifact:
        foreign.check_model(source)
        config = read_config(source)
        architecture = hub.check_architecture(config, source)
        tokenizer = (
            hub.read_tokenizer(source, args.pad_token)
            if hub.is_causal(architecture)
            else hub.read_own_tokenizer(source, config, args.pad_token)
        )
        positions = hub.check_fits(config, tokenizer, args.positions, source)
        converted = hub.place_weights(source, artifact.folder)
        hub.write_config(source, artifact.folder, tokenizer.pad_id)
        artifact.record(
            architecture=architecture,
            stored_weights=sum(map(hub.check_safetensors, artifact.folder.glob("*.safetensors"))),
            positions=positions,
            converted=converted,
        )
        if isinstance(tokenizer, hub.OwnTokenizer):
            hub.place_tokenizer(tokenizer, source, artifact.folder, args.pad_token, args.positions)
        else:
            tokenizer.positions = positions
            tokenizer.save(artifact.folder)
            artifact.record(bos_id=tokenizer.bos_id)
        artifact.record(tokenizer_digest=tokenizer_digest(artifact.folder))


if __name__ == "__main__":
    cli.run(main)
