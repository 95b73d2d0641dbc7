"""Chat messages as a model's tokens: plain documents, the model's own template, control tokens, pinned templates."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from chat_inputs import DROPS_SYSTEM, REFUSES_SYSTEM, TEMPLATE, said, with_template
from tiny import TEXTS, as_artifact, train_bpe
from w2s.chat import OWN, PLAIN, Chat, parse
from w2s.encoding import Encoding
from w2s.errors import ConfigError, DataError

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def encoding(tiny_tokenizer: Path) -> Encoding:
    return Encoding.load(tiny_tokenizer)


def own(encoding: Encoding, template: str = TEMPLATE) -> Chat:
    return Chat(replace(encoding, chat_template=template), OWN)


def text(encoding: Encoding, ids: list[int]) -> str:
    return encoding.tokenizer.decode(ids, skip_special_tokens=False)


def test_plain_is_the_contents_and_blank_lines(encoding: Encoding) -> None:
    chat = Chat(encoding, PLAIN)
    messages = said("Question: 3 plus 4\nAnswer:", "Question: 1 plus 1\nAnswer: do two mi")
    document = "Question: 1 plus 1\nAnswer: do two mi\n\nQuestion: 3 plus 4\nAnswer:"
    assert chat.render(messages) == document and chat.render(said("a:", "")) == "a:"
    (ids,) = chat.prompts_ids([messages])
    (answer,) = chat.answers_ids(["do seven mi"])
    assert ids == encoding.prompt_ids(document) and ids[0] == encoding.bos_id
    assert answer == encoding.response_ids(" do seven mi") and answer[-1] == encoding.eos_id
    assert encoding.decode(ids + answer) == document + " do seven mi"
    assert chat.facts([messages]) == {"chat_sha256": "", "system_in_user": 0}


def test_own_is_what_transformers_makes_of_it(tiny_model: Path, tmp_path: Path) -> None:
    """The text and the tokens, the template's BOS and end tokens once."""
    from transformers import AutoTokenizer

    manifest = with_template(tiny_model, tmp_path / "model")
    library = AutoTokenizer.from_pretrained(manifest.parent)
    chat = Chat(Encoding.load(manifest.parent), OWN)
    messages = said("Tell me a joke. ½ é", "Be short.") + [
        {"role": "assistant", "content": "No."},
        *said("Why?"),
    ]
    expected = library.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert chat.render(messages) == expected and expected.endswith("[user] Why?\n[assistant]")
    (ids,) = chat.prompts_ids([messages])
    assert ids == library(expected, add_special_tokens=False)["input_ids"]
    assert ids[0] == 2 and ids.count(2) == 2
    assert chat.answers_ids([" Yes."]) == [chat.encoding.response_ids(" Yes.")]


def test_what_somebody_typed_is_no_control_token(encoding: Encoding) -> None:
    chat = own(encoding)
    typed = "One </s><s> two\ue000 </s>"
    (ids,) = chat.prompts_ids([said(typed)])
    assert ids[0] == 2 and not {0, 1, 2} & set(ids[1:])
    assert text(encoding, ids) == f"</s>[user] {typed}\n[assistant]" == chat.render(said(typed))
    (ids,) = Chat(encoding, PLAIN).prompts_ids([said(typed)])
    assert not {0, 1, 2} & set(ids[1:]) and text(encoding, ids) == f"</s>{typed}"


@pytest.mark.parametrize(("template", "folded"), [(TEMPLATE, 0), (REFUSES_SYSTEM, 1), (DROPS_SYSTEM, 1)])
def test_a_system_text_without_a_place_goes_to_the_user(
    encoding: Encoding, template: str, folded: int
) -> None:
    chat = own(encoding, template)
    rendered = chat.render(said("Who?", "Be short."))
    if template is REFUSES_SYSTEM:
        assert rendered == "</s>[user] Be short.\n\nWho?\n[assistant]"
    assert chat.facts([said("Who?", "Be short."), said("Why?")])["system_in_user"] == folded


def test_a_tokenizer_that_puts_a_blank_in_front(tmp_path: Path) -> None:
    """Its tokens of a template's text are those of the library."""
    from tokenizers import decoders, pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = train_bpe(TEXTS)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # type: ignore[attr-defined]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[attr-defined]
    made = Encoding(tokenizer, None, 2, 1, chat_template=TEMPLATE)  # type: ignore[arg-type]
    folder = as_artifact(tmp_path / "tokenizer", made.save).parent
    chat = Chat(Encoding.load(folder), OWN)
    (ids,) = chat.prompts_ids([said("Who?")])
    library = AutoTokenizer.from_pretrained(folder)
    assert ids == library(chat.render(said("Who?")), add_special_tokens=False)["input_ids"]


def test_a_pinned_template_must_be_that(encoding: Encoding) -> None:
    digest = hashlib.sha256(TEMPLATE.encode()).hexdigest()
    chat = Chat(replace(encoding, chat_template=TEMPLATE), OWN, digest)
    assert chat.digest == digest == chat.facts([])["chat_sha256"]
    for other, form in ((TEMPLATE + " ", OWN), (TEMPLATE, PLAIN)):
        with pytest.raises(ConfigError, match=f"not the pinned {digest}"):
            Chat(replace(encoding, chat_template=other), form, digest)


def test_templates_run_in_a_sandbox_without_a_clock(encoding: Encoding) -> None:
    dated = "{{ strftime_now('%Y') if strftime_now is defined else 'no date' }}{{ messages[0]['content'] | tojson }}"
    assert own(encoding, dated).render(said("<é>")) == 'no date"<é>"'
    with pytest.raises(DataError, match="refuses messages of the roles"):
        own(encoding, "{{ messages.__class__.__mro__[1].__subclasses__() }}").render(said("a"))
    with pytest.raises(DataError, match="no system"):
        own(encoding, "{{ raise_exception('no system') }}").render(said("a"))
    with pytest.raises(ConfigError, match="cannot be read"):
        own(encoding, "{% unknown %}").render(said("a"))


def test_what_cannot_be_read_is_named(encoding: Encoding) -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        Chat(encoding, OWN)
    with pytest.raises(ConfigError, match="unknown chat form 'chatty'"):
        Chat(encoding, "chatty")
    assert parse(json.dumps(said("a", "")), "here") == said("a")
    user, system = said("a", "b")[::-1]
    wrong = ["nonsense", "7", "[]", '["a"]', '[{"role": "user"}]', json.dumps([user, system])]
    wrong += [json.dumps([system]), json.dumps([{"role": "tool", "content": "a"}])]
    wrong += [json.dumps([{"role": "user", "content": 3}])]
    for one in wrong:
        with pytest.raises(DataError, match="messages") as raised:
            parse(one, "row 4, id x")
        assert raised.value.where == "row 4, id x"


def test_reading_chats_loads_nothing_heavy() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "import tokenizers, w2s.chat, w2s.encoding\n"
        "made = w2s.encoding.Encoding(tokenizers.Tokenizer.from_str(sys.argv[1]), 2, 2, 1, chat_template='a')\n"
        "assert w2s.chat.Chat(made, 'own').render([{'role': 'user', 'content': 'x'}]) == 'a'\n"
        "print(*{'torch', 'transformers', 'pandas'} & set(sys.modules))"
    )
    words = [sys.executable, "-c", code, train_bpe(TEXTS).to_str()]  # type: ignore[attr-defined]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout.strip() == ""
