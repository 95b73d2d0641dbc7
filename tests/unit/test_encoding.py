"""Texts as ids: BOS, EOS, pad, the border between prompt and response, limits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from w2s.encoding import Encoding, sensible_positions
from w2s.errors import ArtifactError, DataError

BORDERS = [
    ("\n\nHuman: Hi\n\nAssistant:", " Hello there"),
    ("\n\nHuman: Hi\n\nAssistant:", "  two blanks"),
    ("\n\nHuman: Hi\n\nAssistant:", "no blank"),
    ("\n\nHuman: Hi\n\nAssistant:", "\n\nnew lines"),
    ("\n\nHuman: Hi\n\nAssistant:", " "),
    ("no end", "ing of a word"),
    ("caf", "\u00e9 \U0001f600"),
    ("", " empty prompt"),
]


@pytest.fixture(scope="module")
def encoding(tiny_tokenizer):
    return Encoding.load(tiny_tokenizer)


@pytest.fixture(scope="module")
def blank_adder() -> Encoding:
    """A tokenizer that puts a blank in front of each text, as those of Llama-2 and Mistral do."""
    words = ["▁Yes", "▁No", "▁", "▁a", "Yes", "No", "a", ":", ":)", ")", "\n"]
    vocabulary = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>", *words])}
    parts = [("▁", "Yes"), ("▁", "No"), ("▁", "a"), (":", ")")]
    letters = ["Y", "e", "s", "N", "o", "Ye"]
    vocabulary |= {token: len(vocabulary) + number for number, token in enumerate(letters)}
    merges = [("Y", "e"), ("Ye", "s"), ("N", "o"), *parts]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return Encoding(tokenizer, bos_id=1, eos_id=2, pad_id=2)


@pytest.mark.parametrize(("prompt", "response"), BORDERS)
def test_sequence_is_bos_prompt_response_eos(encoding, prompt, response):
    prompt_ids, response_ids = encoding.prompt_ids(prompt), encoding.response_ids(response)
    assert prompt_ids[0] == encoding.bos_id and response_ids[-1] == encoding.eos_id
    assert encoding.bos_id not in prompt_ids[1:] + response_ids[:-1]
    assert encoding.decode(prompt_ids) == prompt
    assert encoding.decode(prompt_ids + response_ids) == prompt + response
    assert encoding.response_ids(response, eos=False) == response_ids[:-1]
    assert encoding.count(prompt, response) == len(prompt_ids) + len(response_ids) - 1


def test_prompt_ids_do_not_depend_on_the_response(encoding):
    """ "end" + "ing": tokenised together a token could cross the border; apart it cannot."""
    joined = encoding.prompt_ids("no end")
    assert joined + encoding.response_ids("ing") == encoding.prompt_ids("no end") + encoding.response_ids(
        "ing"
    )
    assert encoding.responses_ids(["ing", " x"]) == [
        encoding.response_ids("ing"),
        encoding.response_ids(" x"),
    ]
    assert encoding.prompts_ids(["a", "b c"]) == [encoding.prompt_ids("a"), encoding.prompt_ids("b c")]


def test_text_is_never_a_control_token(encoding):
    ids = encoding.response_ids(" a </s> <pad> <s> b", eos=False)
    assert not {0, 1, 2} & set(ids)
    assert encoding.decode(ids) == " a </s> <pad> <s> b"


def test_without_bos(encoding):
    bare = Encoding(encoding.tokenizer, bos_id=None, eos_id=2, pad_id=1)
    assert bare.prompt_ids("Hi") == encoding.prompt_ids("Hi")[1:]
    assert bare.count("Hi", " you") == encoding.count("Hi", " you") - 1
    assert bare.digest != encoding.digest


def test_blank_in_front_of_each_text_is_not_doubled(blank_adder):
    vocabulary = blank_adder.tokenizer.get_vocab()
    assert blank_adder.prompt_ids("Yes") == [1, vocabulary["▁Yes"]]
    assert blank_adder.response_ids(" Yes") == [vocabulary["▁Yes"], 2]
    assert blank_adder.response_ids("Yes") == [vocabulary["Yes"], 2]
    # behind ":" the response ")" would merge with the sentinel; behind the new line it does not
    assert blank_adder.response_ids(")", eos=False) == [vocabulary[")"]]
    assert blank_adder.responses_ids([" No", "a"], eos=False) == [[vocabulary["▁No"]], [vocabulary["a"]]]


def test_save_and_load(encoding, tmp_path):
    from transformers import AutoTokenizer

    encoding.chat_template = None
    encoding.save(tmp_path)
    again = Encoding.load(tmp_path)
    assert (again.bos_id, again.eos_id, again.pad_id, again.positions) == (2, 2, 1, 256)
    assert again.digest == encoding.digest
    auto = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert auto("Human: Hi").input_ids == encoding.prompt_ids("Human: Hi")
    assert (auto.bos_token_id, auto.eos_token_id, auto.pad_token_id, auto.model_max_length) == (2, 2, 1, 256)


def test_chat_template_is_kept(encoding, tmp_path):
    from transformers import AutoTokenizer

    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    other = Encoding(encoding.tokenizer, None, 2, 1, chat_template=template)
    other.save(tmp_path)
    assert Encoding.load(tmp_path).chat_template == template
    auto = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert auto.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "[user] Hi"
    assert auto("Hi").input_ids == other.prompt_ids("Hi")


@pytest.mark.parametrize(
    ("entry", "message"),
    [("pad_id", "tokenizer without pad token"), ("eos_id", "tokenizer without end-of-sequence token")],
)
def test_missing_special_token_is_named(encoding, tmp_path, entry, message):
    encoding.save(tmp_path)
    path = tmp_path / "encoding.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {entry: None}))
    with pytest.raises(DataError, match=message) as caught:
        Encoding.load(tmp_path)
    assert str(path) in str(caught.value) and caught.value.instead


def test_broken_folders(encoding, tmp_path):
    with pytest.raises(ArtifactError, match=r"no tokenizer\.json"):
        Encoding.load(tmp_path)
    encoding.save(tmp_path)
    (tmp_path / "encoding.json").write_text("{")
    with pytest.raises(ArtifactError, match="not valid JSON"):
        Encoding.load(tmp_path)
    (tmp_path / "encoding.json").write_text('{"bos_id": 2, "eos_id": 2, "pad_id": 99999}')
    with pytest.raises(DataError, match="pad_id 99999"):
        Encoding.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not a tokenizer file"):
        Encoding.load(tmp_path)


def test_sequence_beyond_the_positions_is_named(encoding):
    encoding.check_length(256, "id abc, response 1")
    with pytest.raises(DataError, match="257 tokens is beyond the model's 256 positions") as caught:
        encoding.check_length(257, "id abc, response 1")
    assert "id abc, response 1" in str(caught.value)
    Encoding(encoding.tokenizer, 2, 2, 1).check_length(10**6, "any")


def test_no_limit_is_no_number_of_positions():
    assert sensible_positions(2048) == 2048
    assert sensible_positions(int(1e30)) is None and sensible_positions(None) is None


def test_nothing_heavy_is_imported(tiny_tokenizer):
    scripts = Path(__file__).resolve().parents[2] / "scripts"
    code = (
        "import sys; from pathlib import Path; from w2s.encoding import Encoding\n"
        "print(Encoding.load(Path(sys.argv[1])).count('a', ' b'))\n"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tiny_tokenizer], cwd=scripts, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr


def test_opt_tokenizer(shared_data):
    tokenizer = Tokenizer.from_file(str(shared_data / "opt-tokenizer" / "tokenizer.json"))
    opt = Encoding(tokenizer, bos_id=2, eos_id=2, pad_id=1, positions=2048)
    assert opt.prompt_ids("\n\nAssistant:") == [2, 50118, 50118, 46184, 35]
    assert opt.response_ids(" Hello") == [20920, 2]
    prompt, response = "\n\nHuman: What is this?\n\nAssistant:", " It's a test, isn't it?\n\n1. Yes"
    joined = tokenizer.encode(prompt + response, add_special_tokens=False).ids
    assert opt.prompt_ids(prompt)[1:] + opt.response_ids(response, eos=False) == joined
