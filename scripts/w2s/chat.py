"""Chat messages as what a local model reads, in one of two forms.

``plain``: the contents joined by blank lines, empty ones left out, and nothing else. An answer follows after a blank,
which belongs to the answer's tokens. For models that continue documents.

``own``: the chat template of the model's tokenizer, opened for an answer. The template decides what stands in front:
no BOS is put before what it writes. A template that has no place for a system text (it refuses one or drops it) gets
that text in front of the user's, with a blank line between. The date, which some templates ask for, is not given to
them: the same messages give the same tokens on every day.

The template's control tokens become control tokens. What somebody typed does not: a "</s>" in a message is four
characters, as everywhere (:mod:`w2s.encoding`).

Light at import, and torch is never needed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from tokenizers import Tokenizer

from w2s import cli, strict_json
from w2s.encoding import Encoding
from w2s.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

PLAIN, OWN = FORMS = ("plain", "own")
ROLES = ("system", "user", "assistant")
# Characters that no text should hold; one that the messages do not hold marks what is no control token.
PRIVATE = range(0xE000, 0xF900)
Messages = Sequence[Mapping[str, str]]
_EXAMPLE = '[{"role": "system", "content": "..."}, {"role": "user", "content": "..."}]'


def add_chat(parser: cli.StageParser) -> None:
    """Add how messages are read."""
    parser.spec(
        "--chat",
        choices=FORMS,
        default=PLAIN,
        help="what the model reads: the contents as one document, or its own chat template's text",
    )
    parser.spec("--chat-sha256", default="", help="SHA-256 that the chat template must have")


def conversations(table: pd.DataFrame, where: object) -> list[list[dict[str, str]]]:
    """The parsed column ``messages`` of a table with ids.

    Raises:
        DataError: see :func:`parse`; row and id are named.
    """
    return [
        parse(text, f"{where}, row {row}, id {name}")
        for row, (name, text) in enumerate(zip(table["id"], table["messages"], strict=True))
    ]


def parse(text: str, where: object) -> list[dict[str, str]]:
    """Messages from their JSON text, those with an empty system text left out.

    Raises:
        DataError: not a list of messages, a system message that is not the first, or a last one that is not the
            user's, so that nothing is left to answer.
    """
    try:
        messages = strict_json.parse(text)
        found = [{"role": one["role"], "content": one["content"]} for one in messages]
        sound = all(one["role"] in ROLES and isinstance(one["content"], str) for one in found)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"not a list of chat messages ({error!r})", where=where, instead=_EXAMPLE) from error
    roles = [one["role"] for one in found]
    if not sound or "system" in roles[1:] or roles[-1:] != ["user"]:
        raise DataError(f"messages of the roles {roles} cannot be answered", where=where, instead=_EXAMPLE)
    return [one for one in found if one["role"] != "system" or one["content"]]


@dataclass
class Chat:
    """How one model reads messages.

    Attributes:
        encoding: the model's tokenizer.
        form: ``plain`` or ``own``.
        pinned: SHA-256 that the template must have; "" takes any.

    Raises:
        ConfigError: the form ``own`` without a chat template, or a template that is not the pinned one.
    """

    encoding: Encoding
    form: str
    pinned: str = ""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(f"unknown chat form {self.form!r}", instead=f"one of {', '.join(FORMS)}")
        if self.form == OWN and self.encoding.chat_template is None:
            raise ConfigError(
                "the model's tokenizer has no chat template",
                where="--chat own",
                instead="--chat plain, or a model that was tuned for chats",
            )
        if self.pinned and self.pinned != self.digest:
            raise ConfigError(
                f"the chat template's SHA-256 is {self.digest or 'none (plain)'}, not the pinned {self.pinned}",
                where="--chat-sha256",
                instead="the revision of the model that the catalogue means, or the digest above after a look at it",
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the template; "" in the form ``plain``."""
        if self.form == PLAIN:
            return ""
        return hashlib.sha256((self.encoding.chat_template or "").encode()).hexdigest()

    def render(self, messages: Messages) -> str:
        """The text that the model reads, up to where its answer begins.

        Raises:
            DataError: the template refuses the messages.
        """
        if self.form == PLAIN:
            return "\n\n".join(one["content"] for one in messages if one["content"])
        return self._fill(self._foldable(messages))

    def prompts_ids(self, conversations: Sequence[Messages]) -> list[list[int]]:
        """Token ids of each conversation up to where the answer begins.

        Raises:
            DataError: see :meth:`render`.
        """
        if self.form == PLAIN:
            return self.encoding.prompts_ids([self.render(messages) for messages in conversations])
        return [self._own_ids(self._foldable(messages)) for messages in conversations]

    def answers_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """Token ids of answers that follow, each ended by the model's end token."""
        blank = " " if self.form == PLAIN else ""
        return self.encoding.responses_ids([blank + answer for answer in answers])

    def facts(self, conversations: Sequence[Messages]) -> dict[str, Any]:
        """What a manifest says of it: template and number of system texts that became part of the user's."""
        folded = sum(self._folds(messages) for messages in conversations)
        return {"chat_sha256": self.digest, "system_in_user": folded}

    def _folds(self, messages: Messages) -> bool:
        return self.form == OWN and messages[0]["role"] == "system" and not self._takes_system

    def _foldable(self, messages: Messages) -> Messages:
        """The messages, the system's in front of the user's text if the template has no place for it."""
        if not self._folds(messages):
            return messages
        system, first, *rest = messages
        return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]

    @cached_property
    def _takes_system(self) -> bool:
        """Whether a system text arrives in what the template makes."""
        probe = [{"role": "system", "content": "probe of the system"}, {"role": "user", "content": "probe"}]
        try:
            return probe[0]["content"] in self._fill(probe)
        except DataError:
            return False

    def _own_ids(self, messages: Messages) -> list[int]:
        contents = "".join(one["content"] for one in messages)
        mark = next(chr(code) for code in PRIVATE if chr(code) not in contents)
        marked = [
            {**one, "content": self._control.sub(rf"{mark}\g<0>{mark}", one["content"])} for one in messages
        ]
        ids: list[int] = []
        # Between two marks stands what somebody typed, in the manner of a control token.
        for place, piece in enumerate(self._fill(marked).split(mark)):
            if place % 2:
                ids += self.encoding.response_ids(piece, eos=False)
            else:
                ids += self._with_control.encode(piece, add_special_tokens=False).ids
        return ids

    @cached_property
    def _with_control(self) -> Tokenizer:
        """The tokenizer that reads control tokens in a text as such."""
        copy = Tokenizer.from_str(self.encoding.tokenizer.to_str())
        copy.encode_special_tokens = False
        return copy

    @cached_property
    def _control(self) -> re.Pattern[str]:
        """Finds the control tokens' texts, of several at one place the longest."""
        tokens = self.encoding.tokenizer.get_added_tokens_decoder().values()
        texts = sorted((token.content for token in tokens if token.special), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts)) or r"(?!)")

    def _fill(self, messages: Messages) -> str:
        from jinja2 import TemplateError

        try:
            return self._template.render(
                messages=messages, add_generation_prompt=True, tools=None, documents=None, **self._names
            )
        except (TemplateError, TypeError) as error:
            raise DataError(
                f"the model's chat template refuses messages of the roles {[one['role'] for one in messages]} "
                f"({error})",
                where="--chat own",
                instead="messages as the template wants them, or --chat plain",
            ) from error

    @cached_property
    def _template(self) -> Any:
        """Compiled with the settings that the hub's templates are written for, in jinja's sandbox."""
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> NoReturn:
            raise TemplateError(message)

        sandbox = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        sandbox.globals["raise_exception"] = refuse
        sandbox.filters["tojson"] = lambda value, **how: json.dumps(value, ensure_ascii=False, **how)
        try:
            return sandbox.from_string(self.encoding.chat_template or "")
        except TemplateError as error:
            raise ConfigError(
                f"the chat template cannot be read ({error})",
                where="tokenizer_config.json, key chat_template",
                instead="--chat plain, or a revision of the model whose template is plain Jinja",
            ) from error

    @property
    def _names(self) -> dict[str, str]:
        """Texts of the tokens that templates write by name."""
        ids = {"bos_token": self.encoding.bos_id, "eos_token": self.encoding.eos_id}
        token = self.encoding.tokenizer.id_to_token
        return {name: "" if one is None else token(one) or "" for name, one in ids.items()}
