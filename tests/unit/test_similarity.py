"""Similarity of responses to the preferred ones: embeddings, encoders of several kinds, what is dropped and refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import score_similarity
import torch
from conftest import as_artifact
from tiny import PAIRS, train_bpe
from w2s.artifact import load
from w2s.errors import ArtifactError, ConfigError, DataError, JoinError
from w2s.similarity import COLUMNS, Reader, cosine, embed, load_encoder, similarities
from w2s.tables import read_part, write_parquet

TEXTS = [" Meat and fish.", " I do not know, sorry, but somebody else may know it.", " No.", " Mix flour."]


def bert_tokenizer(folder: Path, positions: int) -> None:
    """A tokenizer that puts [CLS] (0) in front and [SEP] (2) behind, without an end token of its own."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = train_bpe([text for pair in PAIRS for text in pair])
    tokenizer.post_processor = TemplateProcessing(  # type: ignore[attr-defined]
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, model_max_length=positions)
    made.save_pretrained(folder)


def make_bert(folder: Path, head: str = "BertForSequenceClassification", positions: int = 64) -> Path:
    """An artifact with a tiny BERT under the given head, as a BLEURT checkpoint has one."""
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=320, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=positions, num_labels=1, pad_token_id=1, initializer_range=0.3,
    )  # fmt: skip

    def fill(target: Path) -> None:
        getattr(transformers, head)(config).save_pretrained(target)
        bert_tokenizer(target, positions)

    return as_artifact(folder, fill).parent


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("encoders") / "bert")


def read(folder: Path, texts: list[str], truncate: bool = False):
    model = load_encoder(folder, on="cpu")
    reader = Reader(folder, model)
    return model, reader, reader.read(texts, [f"text {row}" for row in range(len(texts))], truncate)


def test_the_mean_is_over_the_texts_own_tokens(bert: Path) -> None:
    model, _, texts = read(bert, TEXTS)
    found = embed(model, texts, "mean")
    for text, vector in zip(texts, found, strict=True):
        assert text.own == [False] + [True] * (len(text.own) - 2) + [False]
        with torch.no_grad():
            states = model(torch.tensor([text.tokens.ids])).last_hidden_state[0]
        assert vector == pytest.approx(states[1:-1].mean(0).numpy(), abs=1e-5)
        assert np.abs(vector - states.mean(0).numpy()).max() > 1e-3
    first = embed(model, texts, "first")
    with torch.no_grad():
        alone = model(torch.tensor([texts[1].tokens.ids])).last_hidden_state[0, 0].numpy()
    assert first[1] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("kind", ["bert", "opt", "llama", "gpt_neox", "classifier"])
def test_similarities_do_not_depend_on_the_batch(
    kind: str, bert: Path, make_model: Callable[..., Path], tiny_classifier: Path
) -> None:
    folder = bert if kind == "bert" else tiny_classifier if kind == "classifier" else make_model(0, kind)
    model, _, texts = read(folder, TEXTS)
    pairs = [(texts[0], texts[1]), (texts[2], texts[2]), (texts[1], texts[3]), (texts[3], texts[0])]
    alone = [cosine(embed(model, [left], "mean"), embed(model, [right], "mean"))[0] for left, right in pairs]
    assert np.std(alone) > 1e-3
    for budget in (1, 40, 10_000):
        assert similarities(model, pairs, list("abcd"), "mean", budget) == pytest.approx(alone, abs=1e-5)
    assert alone[1] == pytest.approx(1.0)


def test_cosine_by_hand() -> None:
    left = np.array([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    right = np.array([[4.0, 3.0], [0.0, 5.0], [-1.0, 0.0], [1.0, 0.0]])
    assert cosine(left, right)[:3] == pytest.approx([0.96, 0.0, -1.0])
    assert np.isnan(cosine(left, right)[3])


def test_the_first_token_must_see_the_text(bert: Path, tiny_model: Path) -> None:
    model, _, texts = read(tiny_model, TEXTS)
    with pytest.raises(ConfigError, match="first token of a opt model does not see"):
        similarities(model, [(texts[0], texts[1])], ["a"], "first")
    model, _, texts = read(bert, TEXTS)
    found = similarities(model, [(texts[0], texts[1]), (texts[2], texts[2])], ["a", "b"], "first")
    assert found[0] < 1 - 1e-4 and found[1] == pytest.approx(1)


def test_a_head_is_left_out_and_a_missing_pooler_is_nothing(bert: Path, tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    classifier = BertForSequenceClassification.from_pretrained(bert).eval()
    model, _, (text,) = read(bert, TEXTS[:1])
    ids = torch.tensor([text.tokens.ids])
    with torch.no_grad():
        assert torch.equal(model(ids).last_hidden_state, classifier.bert(ids).last_hidden_state)
    load_encoder(make_bert(tmp_path / "masked", "BertForMaskedLM"), on="cpu")


def test_models_that_are_no_encoders(bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import T5Config, T5ForConditionalGeneration

    broken = shutil.copytree(bert, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    lost = next(name for name in weights if "layer.1.output.dense.weight" in name)
    del weights[lost]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError, match="1 weights are missing.*layer.1.output.dense.weight"):
        load_encoder(broken, on="cpu")
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 20}
    T5ForConditionalGeneration(T5Config(**sizes)).save_pretrained(tmp_path / "t5")
    with pytest.raises(ConfigError, match="t5 has an encoder and a decoder"):
        load_encoder(tmp_path / "t5", on="cpu")
    (broken / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match="no safetensors"):
        load_encoder(broken, on="cpu")


def test_long_texts_stop_the_run_or_lose_their_ends(bert: Path) -> None:
    long = " fish and meat" * 40
    with pytest.raises(DataError, match=r"tokens are more than the encoder's 64 positions\n.*text 1"):
        read(bert, [TEXTS[0], long])
    _, reader, (short, cut) = read(bert, [TEXTS[0], long], truncate=True)
    assert reader.limit == 64 and (short.cut, cut.cut) == (False, True)
    assert len(cut.own) == 64 and (cut.own[0], cut.own[-1]) == (False, False)
    whole = train_bpe([text for pair in PAIRS for text in pair]).encode(long).ids  # type: ignore[attr-defined]
    assert cut.tokens.ids[1:-1] == whole[:62]


def test_roberta_reaches_fewer_positions_than_it_declares() -> None:
    from transformers import RobertaConfig, RobertaModel
    from w2s.rewards import position_limit

    config = RobertaConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=18, pad_token_id=1,
    )  # fmt: skip
    model = RobertaModel(config).eval()
    limit = position_limit(model)
    assert limit == 16
    model(torch.full((1, limit), 3))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, limit + 1), 3))


def test_a_typed_special_token_is_text(bert: Path) -> None:
    _, _, (text,) = read(bert, [" a </s> b"])
    assert text.tokens.ids.count(2) == 1 and sum(text.own) == len(text.own) - 2


Cell = tuple[Path, Path, Path]


@pytest.fixture
def make_cell(make_examples: Callable[..., tuple[Path, Path]], tmp_path: Path) -> Callable[..., Cell]:
    """``make_cell(**columns)`` -> examples, split and generations of four test prompts; columns replace theirs."""

    def make(**columns: object) -> Cell:
        examples, split = make_examples(PAIRS, test=4)
        test = read_part(examples, split, "test")
        table = test[["id", "prompt"]].assign(response=TEXTS, tokens=3, finished="eos").assign(**columns)
        table = table.iloc[::-1]  # another order than that of the examples
        folder = tmp_path / f"g{len(list(tmp_path.iterdir()))}"
        return (
            examples,
            split,
            as_artifact(folder, lambda to: write_parquet(table, to / "generations.parquet")),
        )

    return make


def run(encoder: Path, cell: Cell, output: Path, *more: object) -> Path:
    words: list[object] = ["--encoder", encoder / "manifest.json", "--generations", cell[2]]
    words += ["--examples", cell[0], "--split", cell[1], "--output", output, "--device", "cpu"]
    words += ["--encoder-name", "bleurt", "--run", "students/k/weak/paper/dpo"]
    words += ["--data", "hh", "--share", "1-of-2", "--seed", 3, *more]
    score_similarity.main([str(word) for word in words])
    return output


@pytest.mark.parametrize(("labels", "side"), [("human", "response_0"), ("gold", "response_1")])
def test_stage(bert: Path, make_cell: Callable[..., Cell], tmp_path: Path, labels: str, side: str) -> None:
    cell = make_cell()
    output = run(bert, cell, tmp_path / "s" / "manifest.json", "--labels", labels)
    artifact = load(output)
    found = pd.read_parquet(artifact.path("similarity.parquet"))
    generations = pd.read_parquet(cell[2].parent / "generations.parquet")
    references = read_part(*cell[:2], "test").set_index("id")[side]
    model, reader, _ = read(bert, [])
    expected = []
    for name, response in zip(generations["id"], generations["response"], strict=True):
        left, right = (
            embed(model, reader.read([text], [""], False), "mean") for text in (response, references[name])
        )
        expected.append(cosine(left, right)[0])
    assert list(found.columns) == COLUMNS and found["id"].tolist() == generations["id"].tolist()
    assert found["similarity"].to_numpy() == pytest.approx(expected, abs=1e-5)
    assert artifact.facts["rows_in"] == artifact.facts["rows_out"] == 4
    assert artifact.facts["mean"] == pytest.approx(np.mean(expected))
    identity = {"encoder_name": "bleurt", "run": "students/k/weak/paper/dpo", "data": "hh"}
    assert {**identity, "share": "1-of-2", "seed": 3}.items() <= artifact.spec.items()
    again = run(bert, cell, tmp_path / "again" / "manifest.json", "--labels", labels)
    assert load(again).digest == artifact.digest


def test_what_is_empty_and_cut_is_counted(bert: Path, make_cell: Callable[..., Cell], tmp_path: Path) -> None:
    cell = make_cell(response=["", " fish and meat" * 40, " No.", " Mix flour."])
    with pytest.raises(DataError, match="64 positions\n.*id [0-9a-f]{16}, response"):
        run(bert, cell, tmp_path / "s" / "manifest.json")
    made = load(run(bert, cell, tmp_path / "s" / "manifest.json", "--truncate"))
    counts = {"rows_in": 4, "rows_out": 4, "empty_responses": 1}
    assert {**counts, "responses_cut": 1, "references_cut": 0}.items() <= made.facts.items()
    found = pd.read_parquet(made.path("similarity.parquet"))["similarity"]
    assert (found == 0).sum() == 1
    with pytest.raises(DataError, match="no pair of texts"):
        run(bert, make_cell(response=""), tmp_path / "t" / "manifest.json")


def test_generations_of_other_examples_are_refused(
    bert: Path, make_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    output = tmp_path / "s" / "manifest.json"
    with pytest.raises(JoinError, match="4 generations are of no example of the test part: [a-d], "):
        run(bert, make_cell(id=list("abcd")), output)
    with pytest.raises(DataError, match="4 generations answer other prompts"):
        run(bert, make_cell(prompt="?"), output)
    with pytest.raises(DataError, match="is not the name of a run"):
        run(bert, make_cell(), output, "--run", "k/weak")
    assert not output.parent.exists()


def test_an_interrupted_run_continues(
    bert: Path, make_cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from w2s import similarity

    cell = make_cell()
    whole = run(bert, cell, tmp_path / "a" / "manifest.json", "--batch-tokens", 20)
    original, calls = similarity.embed, []

    def stopped(*given: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(similarity, "embed", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(bert, cell, tmp_path / "b" / "manifest.json", "--batch-tokens", 20)
    again = run(bert, cell, tmp_path / "b" / "manifest.json", "--batch-tokens", 20)
    assert again.read_bytes() == whole.read_bytes()
    assert load(again).run["measured"]["resumed"] == 2
