"""Texts as token ids: one declared meaning of "the sequence" for filter, training, scoring and generation.

A sequence is ``BOS + tokens(prompt) + tokens(response) [+ EOS]``. Prompt and response are tokenised
separately, so that the prompt's ids do not depend on the response. Whether the model sees a BOS, and which
ids end and pad a sequence, stands in ``encoding.json`` beside ``tokenizer.json``; nothing is guessed later.

Only the light ``tokenizers`` library is needed here: counting tokens loads neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from w2s.errors import ArtifactError, DataError
from w2s.strict_json import read_object

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
ENCODING = "encoding.json"
FILES = (TOKENIZER, TOKENIZER_CONFIG, ENCODING)
NO_PAD = (
    '--pad-token with one of the tokenizer\'s own tokens, e.g. --pad-token "<pad>", '
    "or --pad-token eos to pad with the end-of-sequence token"
)
# Texts put in front of a response to learn how it is tokenised inside a text, see Encoding._continuations.
_SENTINELS = ("\n", ":", "a")
# transformers keeps "no limit" as a very large number; it is no number of positions.
_NO_LIMIT = 10**9


@dataclass
class Encoding:
    """A tokenizer together with the ids that begin, end and pad a sequence.

    Attributes:
        tokenizer: of the ``tokenizers`` library.
        bos_id: the id that stands in front of each sequence; None if the model sees none.
        eos_id: the id that ends a response.
        pad_id: the id that fills a batch; masked wherever it is used.
        positions: how many tokens the model can take; None if not known.
        chat_template: Jinja template of the tokenizer, if it has one (reward models).
    """

    tokenizer: Tokenizer = field(repr=False)
    bos_id: int | None
    eos_id: int
    pad_id: int
    positions: int | None = None
    chat_template: str | None = None

    def __post_init__(self) -> None:
        # Text is never read as a control token: a "</s>" that somebody typed is four characters, not an end.
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        for name, token_id in (("bos_id", self.bos_id), ("eos_id", self.eos_id), ("pad_id", self.pad_id)):
            if token_id is not None and self.tokenizer.id_to_token(token_id) is None:
                raise DataError(f"{name} {token_id} is not in the tokenizer's vocabulary")
        self._adds_prefix_space = self._starts_with_blank()

    @classmethod
    def load(cls, folder: Path) -> Encoding:
        """Read ``tokenizer.json`` and ``encoding.json`` from ``folder``.

        Raises:
            ArtifactError: a file is missing or not readable.
            DataError: no end or no pad token is declared, or an id is not in the vocabulary.
        """
        tokenizer_path, path = folder / TOKENIZER, folder / ENCODING
        for needed in (tokenizer_path, path):
            if not needed.is_file():
                raise ArtifactError(
                    f"no {needed.name}",
                    where=folder,
                    instead="a folder made by import_tokenizer or train_tokenizer",
                )
        try:
            tokenizer = Tokenizer.from_file(str(tokenizer_path))
        except Exception as error:  # the library raises plain Exception
            raise ArtifactError(f"not a tokenizer file ({error})", where=tokenizer_path) from error
        declared = read_object(path)
        for key in ("bos_id", "eos_id", "pad_id", "positions"):
            value = declared.get(key)
            if value is not None and (type(value) is not int or not 0 <= value <= _NO_LIMIT):
                raise DataError(
                    f"{value!r:.40} is no such number",
                    where=f"{path}, key {key}",
                    instead="a number from 0 on",
                )
        if declared.get("eos_id") is None:
            raise DataError("tokenizer without end-of-sequence token", where=path, instead='"eos_id": its id')
        if declared.get("pad_id") is None:
            raise DataError("tokenizer without pad token", where=path, instead=NO_PAD)
        return cls(
            tokenizer,
            declared.get("bos_id"),
            declared["eos_id"],
            declared["pad_id"],
            declared.get("positions"),
            _chat_template(folder),
        )

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``encoding.json`` into ``folder``.

        transformers' ``AutoTokenizer`` reads the same folder and then puts the same BOS in front.
        """
        folder.mkdir(parents=True, exist_ok=True)
        copy = Tokenizer.from_str(self.tokenizer.to_str())
        copy.post_processor = self._post_processor()
        copy.save(str(folder / TOKENIZER))
        config: dict[str, object] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self._token(self.bos_id),
            "eos_token": self._token(self.eos_id),
            "pad_token": self._token(self.pad_id),
            "padding_side": "right",
            "clean_up_tokenization_spaces": False,
        }
        if self.positions is not None:
            config["model_max_length"] = self.positions
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        _write_json(config, folder / TOKENIZER_CONFIG)
        _write_json(
            {
                "bos_id": self.bos_id,
                "eos_id": self.eos_id,
                "pad_id": self.pad_id,
                "positions": self.positions,
            },
            folder / ENCODING,
        )

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, added tokens included."""
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def digest(self) -> str:
        """Digest of everything that decides the ids of a text: equal digests, equal ids."""
        content = json.loads(self.tokenizer.to_str())
        content.pop("post_processor")  # the BOS is ours to put, see prompts_ids
        text = json.dumps([content, self.bos_id, self.eos_id, self.pad_id], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def prompt_ids(self, prompt: str) -> list[int]:
        """Ids of a prompt, with the BOS in front if the model sees one."""
        return self.prompts_ids([prompt])[0]

    def response_ids(self, response: str, eos: bool = True) -> list[int]:
        """Ids of a response that follows a prompt, ended by the EOS unless told otherwise."""
        return self.responses_ids([response], eos)[0]

    def prompts_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """:meth:`prompt_ids` of many prompts, tokenised in parallel."""
        start = [] if self.bos_id is None else [self.bos_id]
        return [start + ids for ids in self._plain(prompts)]

    def responses_ids(self, responses: Sequence[str], eos: bool = True) -> list[list[int]]:
        """:meth:`response_ids` of many responses, tokenised in parallel."""
        end = [self.eos_id] if eos else []
        tokenised = self._continuations(responses) if self._adds_prefix_space else self._plain(responses)
        return [ids + end for ids in tokenised]

    def count(self, prompt: str, response: str) -> int:
        """Number of tokens of a sequence, with the BOS that the model sees and without EOS."""
        return len(self.prompt_ids(prompt)) + len(self.response_ids(response, eos=False))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def check_length(self, length: int, row: object) -> None:
        """Refuse a sequence that is longer than the model's positions.

        Args:
            length: number of tokens of the whole sequence, EOS included if it is fed.
            row: what to name in the message, e.g. ``"id 3f2a..., response 1"``.

        Raises:
            DataError: the sequence does not fit.
        """
        if self.positions is not None and length > self.positions:
            raise DataError(
                f"a sequence of {length} tokens is beyond the model's {self.positions} positions",
                where=row,
                instead="a smaller --max-tokens in filter_examples, or a model with more positions",
            )

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        return [
            found.ids for found in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def _starts_with_blank(self) -> bool:
        """Whether the tokenizer puts a blank of its own in front of a text (Llama-2 and Mistral do)."""
        (ids,) = self._plain(["a"])
        first = self.tokenizer.id_to_token(ids[0]) if ids else None
        return first is not None and first.startswith(("▁", "Ġ", " "))

    def _continuations(self, responses: Sequence[str]) -> list[list[int]]:
        """Ids of responses as they are inside a text, for tokenizers that put a blank in front of each text.

        There, " Yes" alone would become two blanks and "Yes". So each response is tokenised behind a
        sentinel whose own ids are then cut off; a sentinel that merges with the response's first character
        does not serve.
        """
        found: list[list[int] | None] = [None] * len(responses)
        for sentinel in _SENTINELS:
            (start,) = self._plain([sentinel])
            open_rows = [row for row, ids in enumerate(found) if ids is None]
            for row, ids in zip(
                open_rows, self._plain([sentinel + responses[row] for row in open_rows]), strict=True
            ):
                if ids[: len(start)] == start:
                    found[row] = ids[len(start) :]
        if None in found:
            row = found.index(None)
            raise DataError(
                f"no border between prompt and response found for the response {responses[row][:40]!r}"
            )
        return [ids for ids in found if ids is not None]

    def _post_processor(self) -> TemplateProcessing:
        bos = self._token(self.bos_id)
        if bos is None:
            return TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
        return TemplateProcessing(
            single=[bos, "$A"], pair=[bos, "$A", "$B:1"], special_tokens=[(bos, self.bos_id)]
        )

    def _token(self, token_id: int | None) -> str | None:
        return None if token_id is None else self.tokenizer.id_to_token(token_id)


def tokenizer_digest(folder: Path) -> str:
    """Digest of what decides the ids of a text: equal digests, equal ids.

    That of the :class:`Encoding`; for a model that is read through its own tokenizer, of that tokenizer's files.

    Raises:
        ArtifactError, DataError: see :meth:`Encoding.load`; no tokenizer there.
    """
    if (folder / ENCODING).is_file():
        return Encoding.load(folder).digest
    files = [folder / TOKENIZER, folder / TOKENIZER_CONFIG]
    for path in files:
        if not path.is_file():
            raise ArtifactError(f"no {path.name}", where=folder, instead="a folder made by import_model")
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


def sensible_positions(value: int | None) -> int | None:
    """``value`` unless it is transformers' way of saying "no limit"."""
    return value if value is not None and 0 < value < _NO_LIMIT else None


def _chat_template(folder: Path) -> str | None:
    path = folder / TOKENIZER_CONFIG
    template = read_object(path).get("chat_template") if path.is_file() else None
    return template if isinstance(template, str) else None


def _write_json(value: dict[str, object], path: Path) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
