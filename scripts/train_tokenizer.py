"""Make a tokenizer from a corpus: its frequent words are tokens, anything else is spelled in bytes.

A text is cut into words (with the blank in front), runs of punctuation, single white space characters, and
the turn markers "\\n\\nHuman:" and "\\n\\nAssistant:". The most frequent pieces become tokens of their own,
as many as ``--vocabulary`` leaves room for beside 256 bytes and the special tokens; any other piece becomes
its bytes, so every text can be encoded and decoded without loss. As in OPT, ``</s>`` both begins and ends a
sequence, and ``<pad>`` fills batches. A small model of a small world learns fastest when words are whole:
hence no sub-words.

inputs:  a corpus (corpus.parquet: prompt, response)
outputs: tokenizer.json, tokenizer_config.json, encoding.json; in the facts: the share of the corpus that is
         spelled in bytes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from w2s import cli
from w2s.artifact import Artifact, load
from w2s.errors import ConfigError
from w2s.tables import read_parquet

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

BOUNDARY, PAD = "</s>", "<pad>"
PIECES = r"\n\n(?:Human|Assistant):| ?\w+| ?[^\w\s]+|\s"
BYTES = 256


def main(argv: Sequence[str] | None = None) -> None:
    """Make the tokenizer."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--corpus", help="manifest of the corpus")
    parser.output("--output", help="manifest.json of the tokenizer")
    parser.spec("--vocabulary", type=cli.positive_int, help="tokens, bytes and special ones included")
    args = parser.parse_args(argv)
    room = args.vocabulary - BYTES - len((BOUNDARY, PAD))
    if room < 1:
        raise ConfigError(
            f"a vocabulary of {args.vocabulary} has no room for words",
            where="--vocabulary",
            instead=f"more than {args.vocabulary - room}: {BYTES} bytes and 2 special tokens always count",
        )

    from w2s.encoding import Encoding

    corpus = read_parquet(load(args.corpus).path("corpus.parquet"), ["prompt", "response"])
    counts = count_pieces([*corpus["prompt"], *corpus["response"]])
    words = [
        piece for piece, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if len(piece) > 1
    ]
    tokenizer = build(words[:room])
    boundary, pad = tokenizer.token_to_id(BOUNDARY), tokenizer.token_to_id(PAD)
    with Artifact.create(
        args.output, spec=args.spec, parents={"corpus": args.corpus}, script=__file__
    ) as artifact:
        Encoding(tokenizer, bos_id=boundary, eos_id=boundary, pad_id=pad).save(artifact.folder)
        spelled = sum(counts[piece] for piece in words[room:])
        artifact.record(
            vocabulary=tokenizer.get_vocab_size(),
            words=len(words[:room]),
            words_left_out=len(words[room:]),
            share_spelled_in_bytes=spelled / counts.total(),
        )


def splitter() -> PreTokenizer:
    """Cuts a text into pieces and writes each in the byte alphabet."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def count_pieces(texts: Sequence[str]) -> Counter[str]:
    """How often each piece occurs in ``texts``, in the byte alphabet."""
    cut = splitter()
    counts: Counter[str] = Counter()
    for text, times in Counter(texts).items():
        for piece, _ in cut.pre_tokenize_str(text):
            counts[piece] += times
    return counts


def build(words: Sequence[str]) -> Tokenizer:
    """A tokenizer whose tokens are the special ones, all bytes and ``words``."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [BOUNDARY, PAD, *alphabet, *words]
    # A BPE without merges that looks whole pieces up first: known words, else bytes.
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (BOUNDARY, PAD)])
    tokenizer.pre_tokenizer = splitter()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


if __name__ == "__main__":
    cli.run(main)
