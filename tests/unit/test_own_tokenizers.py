"""Imported classifiers and encoders read texts as before the import: DeBERTa in pairs, BERT, chat templates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import import_model
import numpy as np
import pandas as pd
import pytest
import reward_responses
import score_similarity
import torch
from remade import remade
from tiny import PAIRS, TEXTS, as_artifact, train_bpe
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
    T5Config,
)
from w2s.artifact import Artifact, load
from w2s.encoding import tokenizer_digest
from w2s.errors import ArtifactError, DataError
from w2s.rewards import encoder, load_reward_model, score
from w2s.similarity import Reader, cosine, embed, load_encoder
from w2s.tables import read_part, write_parquet

LETTERS = " ".join(map(chr, range(33, 127))) + " 1/2 ..."
# What a rebuilt DeBERTa tokenizer does not know: an ellipsis, a no-break space. And what stands in dialogues.
ODD = ("\n\nHuman: Wait\u2026 what\u00a0is it?\n\nAssistant:", " Cats\n\n eat meat\u2026 ")
TEXT_PAIRS = [*((prompt, response) for prompt, response, _ in PAIRS[:3]), ODD]
DEBERTA = {
    "bos_token": "[CLS]", "cls_token": "[CLS]", "eos_token": "[SEP]", "mask_token": "[MASK]", "pad_token": "[PAD]",
    "sep_token": "[SEP]", "unk_token": "[UNK]", "do_lower_case": False, "split_by_punct": False, "vocab_type": "spm",
    "model_max_length": 10**30, "tokenizer_class": "DebertaV2Tokenizer",
}  # fmt: skip
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}"
    "{{ eos_token }}{% endfor %}"
)


def enclosing(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with [CLS] (1) in front and [SEP] (2) behind each text."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return tokenizer


def deberta_tokenizer() -> Tokenizer:
    """A Unigram model behind the normalisation that a published tokenizer.json has, NFKC in place of its table."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=special, unk_token="[UNK]", show_progress=False
    )
    tokenizer.train_from_iterator([*TEXTS, LETTERS], trainer)
    tokenizer.add_special_tokens(["[MASK]"])
    return enclosing(tokenizer)


def wordpiece() -> Tokenizer:
    """BERT's kind of tokenizer."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=250, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, LETTERS], trainer)
    return enclosing(tokenizer)


def source(folder: Path, config: object, tokenizer: Tokenizer, head: str, **declared: object) -> Path:
    """An artifact as ``fetch`` makes it, its weights pickled as the published ones are."""
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, head)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)

    def fill(target: Path) -> None:
        model.save_pretrained(target)
        (target / "model.safetensors").unlink()
        torch.save(model.state_dict(), target / "pytorch_model.bin")
        tokenizer.save(str(target / "tokenizer.json"))
        (target / "tokenizer_config.json").write_text(json.dumps(declared))

    return as_artifact(folder, fill)


def deberta(folder: Path, **declared: object) -> Path:
    tokenizer = deberta_tokenizer()
    config = DebertaV2Config(
        vocab_size=tokenizer.get_vocab_size() + 27, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, num_labels=1, relative_attention=True, type_vocab_size=0,
        pos_att_type=["p2c", "c2p"], position_biased_input=False, share_att_key=True, pooler_hidden_size=16,
    )  # fmt: skip
    return source(folder, config, tokenizer, "DebertaV2ForSequenceClassification", **(DEBERTA | declared))


def bert(folder: Path, head: str = "BertModel", **declared: object) -> Path:
    tokenizer = wordpiece()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=128, num_labels=1,
    )  # fmt: skip
    return source(
        folder,
        config,
        tokenizer,
        head,
        **({"do_lower_case": True, "tokenizer_class": "BertTokenizer"} | declared),
    )


def imported(fetched: Path, folder: Path, *words: object) -> Artifact:
    manifest = folder / "manifest.json"
    import_model.main([*map(str, ["--source", remade(fetched), "--output", manifest, *words])])
    return load(manifest)


def edited(fetched: Path, name: str, **changes: object) -> None:
    """Change entries of a JSON file beside a manifest; None takes one out."""
    path = fetched.with_name(name)
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_deberta_reads_pairs_as_before(tmp_path: Path) -> None:
    fetched = deberta(tmp_path / "source")
    made = imported(fetched, tmp_path / "made", "--positions", 64)
    original = Tokenizer.from_file(str(fetched.with_name("tokenizer.json")))
    encode, template = encoder(made.folder, "pair")
    assert template == "pair"
    sequences = [encode(*pair) for pair in TEXT_PAIRS]
    for sequence, pair in zip(sequences, TEXT_PAIRS, strict=True):
        expected = original.encode(*pair)
        assert (sequence.ids, sequence.types) == (expected.ids, expected.type_ids)
        assert sequence.ids.count(2) == 2 and sequence.ids[0] == 1 and sequence.ids[-1] == 2
        assert original.token_to_id("[UNK]") not in sequence.ids
    before = DebertaV2ForSequenceClassification.from_pretrained(fetched.parent).eval()
    with torch.no_grad():
        expected = [before(torch.tensor([original.encode(*pair).ids])).logits.item() for pair in TEXT_PAIRS]
    assert np.std(expected) > 1e-3
    after = load_reward_model(made.folder, on="cpu")
    assert score(after, sequences, keys=list(zip("abcd", strict=True))) == pytest.approx(expected, abs=1e-5)


def test_the_files_are_those_of_the_source(tmp_path: Path) -> None:
    fetched = deberta(tmp_path / "source")
    fetched.with_name("special_tokens_map.json").write_text(json.dumps({"cls_token": "[CLS]"}))
    fetched.with_name("spm.model").write_bytes(b"not read")
    made = imported(fetched, tmp_path / "made")
    assert set(made.manifest["files"]) == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    }  # fmt: skip
    for name in ("tokenizer.json", "special_tokens_map.json"):
        assert made.path(name).read_bytes() == fetched.with_name(name).read_bytes()
    declared = json.loads(made.path("tokenizer_config.json").read_text())
    added = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": declared["model_input_names"],
    }
    assert declared == DEBERTA | added and "token_type_ids" in declared["model_input_names"]
    assert made.facts["architecture"] == "DebertaV2ForSequenceClassification"
    assert made.facts["converted"] is True and made.facts["positions"] == 64 and "bos_id" not in made.facts
    assert made.facts["tokenizer_digest"] == tokenizer_digest(made.folder)
    assert imported(fetched, tmp_path / "again").digest == made.digest
    other = imported(deberta(tmp_path / "other", model_max_length=64), tmp_path / "short")
    assert other.facts["tokenizer_digest"] != made.facts["tokenizer_digest"]


def test_the_gold_reward_of_a_data_sets_responses(
    tmp_path: Path, make_examples: Callable[..., tuple[Path, Path]]
) -> None:
    made = imported(deberta(tmp_path / "source"), tmp_path / "made")
    examples, split = make_examples()
    output = tmp_path / "rewards" / "manifest.json"
    words = ["--model", made.folder / "manifest.json", "--examples", examples, "--split", split]
    words += ["--output", output, "--part", "unlabelled", "--gold", "rm", "--fallback-template", "pair"]
    reward_responses.main([str(word) for word in [*words, "--device", "cpu"]])
    assert load(output).facts["tokenizer_digest"] == made.facts["tokenizer_digest"]
    assert load(output).facts["template"] == "pair"


@pytest.mark.parametrize("head", ["BertModel", "BertForMaskedLM", "BertForSequenceClassification"])
@pytest.mark.parametrize("form", ["json", "vocabulary"])
def test_bert_serves_as_encoder(
    head: str, form: str, tmp_path: Path, make_examples: Callable[..., tuple[Path, Path]]
) -> None:
    fetched = bert(tmp_path / "source", head)
    original = Tokenizer.from_file(str(fetched.with_name("tokenizer.json")))
    if form == "vocabulary":
        vocabulary = sorted(original.get_vocab().items(), key=lambda item: item[1])
        fetched.with_name("vocab.txt").write_text("".join(f"{token}\n" for token, _ in vocabulary))
        fetched.with_name("tokenizer.json").unlink()
    made = imported(fetched, tmp_path / "made", "--positions", 100)
    assert made.facts["architecture"] == head and "encoding.json" not in made.manifest["files"]
    model = load_encoder(made.folder, on="cpu")
    reader = Reader(made.folder, model)
    assert reader.limit == 100

    examples, split = make_examples(PAIRS, test=4)
    test = read_part(examples, split, "test")
    responses = [f" {text}\u2026" for text in ("Meat", "I do not know", "No", "Mix flour")]
    table = test[["id", "prompt"]].assign(response=responses, tokens=3, finished="eos")
    generations = as_artifact(
        tmp_path / "generations", lambda to: write_parquet(table, to / "generations.parquet")
    )
    output = tmp_path / "similarity" / "manifest.json"
    words = ["--encoder", made.folder / "manifest.json", "--generations", generations, "--examples", examples]
    words += [
        "--split",
        split,
        "--output",
        output,
        "--device",
        "cpu",
        "--encoder-name",
        "bleurt",
        "--seed",
        3,
    ]
    words += ["--run", "students/k/weak/paper/dpo", "--data", "hh", "--share", "1-of-2"]
    score_similarity.main([str(word) for word in words])
    found = pd.read_parquet(load(output).path("similarity.parquet"))["similarity"]

    before = AutoModel.from_pretrained(fetched.parent).eval()
    means = []
    for text in [*responses, *test["response_0"]]:
        encoded = original.encode(text)
        with torch.no_grad():
            states = before(
                torch.tensor([encoded.ids]), token_type_ids=torch.tensor([encoded.type_ids])
            ).last_hidden_state
        means.append(states[0, 1:-1].double().mean(0).numpy())
    assert found.to_numpy() == pytest.approx(cosine(np.array(means[:4]), np.array(means[4:])), abs=1e-5)
    assert embed(model, reader.read(responses, responses, False), "mean") == pytest.approx(
        np.array(means[:4]), abs=1e-5
    )


def test_bert_tells_the_second_text_from_the_first(tmp_path: Path) -> None:
    fetched = bert(tmp_path / "source", "BertForSequenceClassification")
    original = Tokenizer.from_file(str(fetched.with_name("tokenizer.json")))
    made = imported(fetched, tmp_path / "made")
    encoded, expected = encoder(made.folder, "pair")[0](*ODD), original.encode(*ODD)
    assert (encoded.ids, encoded.types) == (expected.ids, expected.type_ids) and 1 in expected.type_ids
    # Names of special tokens that its class knows and its files do not say.
    before, after = (
        AutoTokenizer.from_pretrained(folder).special_tokens_map for folder in (fetched.parent, made.folder)
    )
    assert after == before and after["cls_token"] == "[CLS]"


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.jinja"])
def test_a_chat_template_and_its_special_tokens_stay(where: str, tmp_path: Path) -> None:
    tokenizer = train_bpe(TEXTS)
    assert isinstance(tokenizer, Tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 0)]
    )
    config = MistralConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=32, max_position_embeddings=256, num_labels=1, bos_token_id=0,
    )  # fmt: skip
    declared: dict[str, object] = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    declared |= {"tokenizer_class": "LlamaTokenizer", "clean_up_tokenization_spaces": False}
    if where == "tokenizer_config.json":
        declared["chat_template"] = TEMPLATE
    fetched = source(tmp_path / "source", config, tokenizer, "MistralForSequenceClassification", **declared)
    if where == "chat_template.jinja":
        fetched.with_name(where).write_text(TEMPLATE)
    made = imported(fetched, tmp_path / "made")
    encode, template = encoder(made.folder, "none")
    sequence = encode(*TEXT_PAIRS[0])
    tokens = tokenizer.encode(
        "<s>[user] What do cats eat?</s>[assistant] Meat and fish.</s>", add_special_tokens=False
    )
    assert template == "chat" and sequence.ids == tokens.ids and sequence.types is None
    # The pad token also ends the texts: with it in the configuration, the reward would be read in front of the end.
    model = load_reward_model(made.folder, on="cpu")
    assert model.config.pad_token_id is None
    before = MistralForSequenceClassification.from_pretrained(fetched.parent).eval()
    with torch.no_grad():
        expected = before(torch.tensor([sequence.ids])).logits.item()
    longer = encode(*TEXT_PAIRS[1])
    assert score(model, [sequence, longer], keys=[("a",), ("b",)])[0] == pytest.approx(expected, abs=1e-5)
    padded = imported(fetched, tmp_path / "padded", "--pad-token", "<pad>")
    assert load_reward_model(padded.folder, on="cpu").config.pad_token_id == 1
    assert AutoTokenizer.from_pretrained(padded.folder).pad_token == "<pad>"
    with pytest.raises(DataError, match="no token '<nothing>' to pad with"):
        imported(fetched, tmp_path / "none", "--pad-token", "<nothing>")


def test_tampered_tokenizers_are_refused(tmp_path: Path) -> None:
    broken = bert(tmp_path / "broken")
    path = broken.with_name("tokenizer.json")
    path.write_text(path.read_text()[:-100])
    with pytest.raises(ArtifactError, match="cannot read the tokenizer"):
        imported(broken, tmp_path / "made")
    larger = bert(tmp_path / "larger")
    path = larger.with_name("tokenizer.json")
    grown = Tokenizer.from_file(str(path))
    grown.add_tokens(["another"])
    grown.save(str(path))
    with pytest.raises(DataError, match=r"the tokenizer has \d+ tokens .*, the model embeddings for \d+"):
        imported(larger, tmp_path / "made")
    code = bert(tmp_path / "code", auto_map={"AutoTokenizer": ["own.Own", None]})
    with pytest.raises(ArtifactError, match="wants code from its own repository") as caught:
        imported(code, tmp_path / "made")
    assert "auto_map" in str(caught.value)
    cased = bert(tmp_path / "cased", do_lower_case=False)
    with pytest.raises(DataError, match=r"BertTokenizer makes \[") as caught:
        imported(cased, tmp_path / "made")
    assert "tokenizer files agree" in str(caught.value) and not (tmp_path / "made").exists()


def test_a_sentencepiece_model_alone_is_refused(tmp_path: Path) -> None:
    fetched = deberta(tmp_path / "source")
    fetched.with_name("tokenizer.json").unlink()
    fetched.with_name("spm.model").write_bytes(b"\x0a\x0e")
    with pytest.raises(ArtifactError, match=r"a SentencePiece model without tokenizer\.json") as caught:
        imported(fetched, tmp_path / "made")
    assert "sentencepiece is installed" in str(caught.value) and str(fetched.parent) in str(caught.value)


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    fetched = bert(tmp_path / "source")
    edited(fetched, "config.json", architectures=["BertForTokenClassification"])
    with pytest.raises(ArtifactError, match="nor a sequence classifier nor an encoder"):
        imported(fetched, tmp_path / "made")
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 300}
    both = source(tmp_path / "t5", T5Config(**sizes), wordpiece(), "T5Model")
    with pytest.raises(ArtifactError, match="architecture 'T5Model'"):
        imported(both, tmp_path / "made")
    whole = bert(tmp_path / "whole")
    with pytest.raises(DataError, match="129 positions asked for, the model has 128"):
        imported(whole, tmp_path / "made", "--positions", 129)
