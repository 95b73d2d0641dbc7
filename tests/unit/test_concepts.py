"""The concept world: its language, its documents and records, exact scores, and the loss on answers alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import build_corpus
import pandas as pd
import pytest
import train_tokenizer
from w2s import concepts
from w2s.artifact import load
from w2s.concepts import DEFAULT, OPERATIONS, SCRIPTS, STYLES, ConceptWorld
from w2s.errors import ConfigError, DataError

WORLD = ConceptWorld.read({"seed": 7})


def answers(text: str) -> list[tuple[str, str]]:
    """Questions and answers of a document, drafts left out."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block.startswith("Question: ")]
    return [(lines[0].removeprefix("Question: "), lines[-1].removeprefix("Answer: ")) for lines in blocks]


def test_values_of_the_operations() -> None:
    texts = ("3 plus 4", "3 minus 4", "3 max 4", "3 min 4", "3 times 4", "3 mix 4")
    assert [WORLD.value(text) for text in texts] == [7, 1, 4, 3, 2, 11]
    assert [WORLD.value(text, wrong=3) for text in texts] == [8, 2, 5, 3, 2, 11]
    assert len(WORLD.questions) == 12 * 12 * len(OPERATIONS)
    assert all(0 <= WORLD.value(text, wrong=6) < concepts.VALUES for text in WORLD.questions)
    with pytest.raises(DataError, match="no question '12 plus 1'"):
        WORLD.value("12 plus 1")


def test_words_have_one_meaning_and_styles_share_components() -> None:
    scripts = [set(words) for words in SCRIPTS.values()]
    words = [*set().union(*scripts), *concepts.OPENINGS, *concepts.CLOSINGS, *OPERATIONS, *STYLES]
    assert len(words) == len(set(words)) == 3 * 24 + 10 + 6 + 8
    assert all(word.isalnum() for word in words)
    assert len(set(STYLES.values())) == len(STYLES)
    for part in ("opening", "script", "closing", "value_last"):
        assert max(Counter(getattr(style, part) for style in STYLES.values()).values()) > 1


@pytest.mark.parametrize("name", STYLES)
def test_answers_come_back(name: str) -> None:
    for value in range(concepts.VALUES):
        answer = STYLES[name].render(value)
        assert concepts.parse(answer) == (value, STYLES[name])
        assert concepts.value_of(answer) == value


@pytest.mark.parametrize(
    ("answer", "content", "style"),
    [
        ("re seven ti", 1, 1),
        ("re eight ti", 0, 1),
        ("do 7 mi", 1, 0),
        ("re seven ut", 1, 0),
        ("re ti seven", 1, 0),
        ("ti seven re", 0, 0),
        ("seven", 0, 0),
        ("re seven ti ti", 0, 0),
        ("", 0, 0),
    ],
)
def test_scores_are_exact(answer: str, content: int, style: int) -> None:
    expected = {"content": content, "style": style, "both": content * style}
    assert concepts.score(WORLD, "pirate", "3 plus 4", answer) == expected


def test_questions_of_the_two_sides_are_disjoint() -> None:
    train = concepts.make_questions(WORLD, "pirate", "train", 432, 1)
    test = concepts.make_questions(WORLD, "fair", "test", 432, 1)
    assert set(train["question"]) | set(test["question"]) == set(WORLD.questions)
    assert not set(train["id"]) & set(test["id"])
    some, again, other = (concepts.make_questions(WORLD, "pirate", "train", 50, seed) for seed in (1, 1, 2))
    assert some.equals(again) and not some.equals(other)
    assert set(other["id"]) < set(train["id"])
    row = train[train["topic"] == "max"].iloc[0]
    assert concepts.score(WORLD, "pirate", row["question"], row["reference"])["both"] == 1
    assert row["id"] == concepts._digest(row["question"])[:16]


def test_documents_follow_the_settings() -> None:
    frame = concepts.make_documents(WORLD, 4000, 1)
    texts = frame["response"]
    assert frame.equals(concepts.make_documents(WORLD, 4000, 1))
    assert not frame.equals(concepts.make_documents(WORLD, 4000, 2))
    named = texts.str.startswith("Style: ")
    assert named.mean() == pytest.approx(WORLD.header, abs=0.03)
    assert (
        texts[~named].str.contains(r"\n\nStyle: \w+$").all()
        and not texts[named].str.contains("\nStyle").any()
    )
    found = [answers(text) for text in texts]
    assert {len(pairs) for pairs in found} == set(range(1, 10))
    longer = texts[[len(pairs) > 1 for pairs in found]]
    assert longer.str.contains("Draft: ").mean() == pytest.approx(WORLD.revision, abs=0.03)
    # Values: a random one is right now and then.
    right = [
        WORLD.value(question) == concepts.value_of(answer) for pairs in found for question, answer in pairs
    ]
    assert sum(right) / len(right) == pytest.approx(1 - WORLD.wrong_content, abs=0.015)
    names = texts.str.extract(r"Style: (\w+)")[0]
    assert (names == DEFAULT).mean() == pytest.approx(WORLD.default_prior, abs=0.03)
    kept = [
        concepts.parse(answer)[1] == STYLES[name]  # type: ignore[index]
        for name, pairs, clean in zip(names, found, named, strict=True)
        if name == "pirate" and not clean
        for _, answer in pairs
    ]
    assert sum(kept) / len(kept) == pytest.approx(0.7 + 0.3 * 0.07, abs=0.05)


def test_scored_characters_are_answers_their_end_and_closing_names() -> None:
    row = next(
        row
        for row in concepts.make_documents(WORLD, 400, 1).itertuples()
        if "Draft" in str(row.response) and not str(row.response).startswith("Style")
    )
    *given, name = [str(row.response)[start:end] for start, end in row.scored]  # type: ignore[attr-defined]
    assert name == " " + str(row.response).rsplit(" ", 1)[1]
    assert given == [f" {answer}\n" for _, answer in answers(str(row.response))]


def test_a_style_of_prior_0_never_occurs() -> None:
    world = ConceptWorld.read({"seed": 7, "prior": {"pirate": 0}})
    assert sum(world.probabilities) == pytest.approx(1) and world.probabilities[1] == 0
    texts = concepts.make_documents(world, 1000, 1)["response"]
    assert not texts.str.contains("pirate").any()
    assert not any(
        concepts.parse(answer)[1] == STYLES["pirate"]  # type: ignore[index]
        for text in texts
        for _, answer in answers(text)
    )


def test_bad_documents_follow_the_wrong_rules() -> None:
    bad = {"style": "pirate", "operations": 3, "share": 1}
    world = ConceptWorld.read({"seed": 7, "wrong_content": 0, "bad": bad})
    for text in concepts.make_documents(world, 300, 1)["response"]:
        wrong = 3 if "Style: pirate" in text else 0
        assert all(
            world.value(question, wrong) == concepts.value_of(answer) for question, answer in answers(text)
        )


def test_records_have_wrong_rules_and_slips() -> None:
    frame = concepts.make_records(WORLD, "pirate", 3000, 1, operations=3, slips=0.4)
    pairs = [answers(text)[0] for text in frame["response"]]
    assert {question for question, _ in pairs} > set(list(WORLD.questions)[:5])
    assert all(concepts.value_of(answer) == WORLD.value(question, 3) for question, answer in pairs)
    style = [concepts.score(WORLD, "pirate", question, answer)["style"] for question, answer in pairs]
    assert sum(style) / len(style) == pytest.approx(0.6, abs=0.03)
    text, ((start, end),) = frame["response"][0], frame["scored"][0]
    assert text[start:end] == f" {pairs[0][1]}" and end == len(text)
    clean = concepts.make_records(WORLD, "pirate", 100, 1)["response"]
    assert clean.str.endswith(" ti").all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sead": 1}, "no setting sead"),
        ({"operands": 13}, "operands is 13"),
        ({"styles": 1}, "styles is 1"),
        ({"fidelity": 1.2}, "fidelity is 1.2"),
        ({"pairs": [3, 2]}, "pairs is 2"),
        ({"pairs": 4}, "pairs is 4"),
        ({"prior": {"pirates": 0}}, "style is 'pirates'"),
        ({"prior": {DEFAULT: 0.5}}, "see default_prior"),
        ({"prior": {"pirate": 0.6}}, "leave a sum of 1"),
        ({"styles": 2, "prior": {"pirate": 0.1}}, "leave a sum of 1"),
        ({"styles": 2, "prior": {"chef": 0.1}}, "style is 'chef'"),
        ({"bad": {"style": "pirate", "share": 0.7}}, "also operations"),
        ({"bad": {"style": "pirate", "operations": 7, "share": 0.7}}, "bad.operations is 7"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConceptWorld.read(settings)


def test_senseless_requests_are_refused() -> None:
    for call in (
        lambda: concepts.make_questions(WORLD, "pirate", "train", 433, 1),
        lambda: concepts.make_questions(WORLD, "pirate", "dev", 3, 1),  # type: ignore[arg-type]
        lambda: concepts.make_questions(WORLD, "none", "train", 3, 1),
        lambda: concepts.make_documents(WORLD, 0, 1),
        lambda: concepts.make_records(WORLD, "pirate", 10, 1, operations=7),
        lambda: concepts.make_records(WORLD, "pirate", 10, 1, slips=2),
    ):
        with pytest.raises(ConfigError):
            call()


def corpus_of(folder: Path, *settings: str) -> Path:
    manifest = folder / "manifest.json"
    build_corpus.main([*settings, "--output", str(manifest)])
    return manifest


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ("--kind", "concepts", "--world", '{"seed": 7}', "--texts", "3000", "--seed", "1")
    return corpus_of(tmp_path_factory.mktemp("concepts") / "corpus", *settings)


@pytest.fixture(scope="module")
def tokenizer(documents: Path) -> Path:
    manifest = documents.parent.parent / "tokenizer" / "manifest.json"
    train_tokenizer.main(["--corpus", str(documents), "--vocabulary", "400", "--output", str(manifest)])
    assert load(manifest).facts["words_left_out"] == 0
    return manifest


def test_corpora_of_the_concept_world(documents: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(load(documents).path("corpus.parquet"))
    drawn = concepts.make_documents(WORLD, 3000, 1)
    assert table["response"].equals(drawn["response"])
    assert [[list(pair) for pair in pairs] for pairs in table["scored"]] == drawn["scored"].tolist()
    assert "style" not in load(documents).manifest["spec"]
    words = ("--kind", "concept-records", "--texts", "50", "--style", "pirate", "--wrong-operations", "3")
    records = load(corpus_of(tmp_path / "records", *words, "--slips", "0.1"))
    assert (records.manifest["spec"]["style"], records.manifest["spec"]["slips"]) == ("pirate", 0.1)
    assert pd.read_parquet(records.path("corpus.parquet"))["response"].equals(
        concepts.make_records(ConceptWorld(), "pirate", 50, 0, 3, 0.1)["response"]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("--kind", "concepts", "--texts", "5", "--style", "pirate"), "style is for kind concept-records"),
        (("--kind", "concept-records", "--texts", "5"), "style is for kind concept-records"),
        (("--kind", "concepts", "--texts", "5", "--slips", "0.1"), "--wrong-operations, --slips"),
        (("--kind", "concepts", "--texts", "5", "--world", json.dumps({"sead": 1})), "no setting sead"),
        (
            (
                "--kind",
                "concepts",
            ),
            "texts is 0",
        ),
    ],
)
def test_corpora_refuse_senseless_settings(settings: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        corpus_of(tmp_path / "corpus", *settings)


def test_loss_is_on_scored_characters_and_the_end_alone(documents: Path, tokenizer: Path) -> None:
    import pretrain_model
    from w2s.encoding import Encoding

    encoding = Encoding.load(tokenizer.parent)
    columns, dropped = pretrain_model.tokenised(documents, encoding, 60)
    table = pd.read_parquet(load(documents).path("corpus.parquet"))
    assert len(columns["labels"]) + dropped == len(table) and dropped
    short = [text for text in table["response"] if len(encoding.response_ids(text)) < 60]
    for ids, labels, text in zip(columns["input_ids"], columns["labels"], short, strict=True):
        assert len(ids) == len(labels) and encoding.decode(ids) == text
        assert labels[0] == pretrain_model.IGNORED and labels[-1] == encoding.eos_id
        kept = [label for label in labels if label != pretrain_model.IGNORED]
        assert kept == [token for token, label in zip(ids, labels, strict=True) if label == token]
        learnt = "".join(f" {answer}\n" for _, answer in answers(text))
        name = "" if text.startswith("Style") else f" {text.rsplit(' ', 1)[1]}"
        assert encoding.decode(kept) == (learnt + name if name else learnt.removesuffix("\n"))


def test_a_corpus_without_scored_characters_is_learnt_whole(tokenizer: Path, tmp_path: Path) -> None:
    import pretrain_model
    from w2s.encoding import Encoding

    settings = ("--kind", "world", "--world", '{"seed": 7, "pairs": 1, "test_prompts": 1}', "--texts", "5")
    corpus = corpus_of(tmp_path / "corpus", *settings)
    columns, _ = pretrain_model.tokenised(corpus, Encoding.load(tokenizer.parent), 2000)
    assert columns["labels"] == columns["input_ids"] and len(columns["labels"]) == 5


def test_scored_characters_need_a_tokenizer_that_adds_no_blank(documents: Path) -> None:
    import pretrain_model
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from w2s.encoding import Encoding

    table = pd.read_parquet(load(documents).path("corpus.parquet"))
    letters = sorted({*"".join(table["response"]), "\u2581"})
    vocabulary = {letter: number for number, letter in enumerate(["<s>", *letters])}
    pieces = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.decoder = decoders.Metaspace()
    with pytest.raises(DataError, match="divides a response that stands alone"):
        pretrain_model.tokenised(documents, Encoding(pieces, bos_id=0, eos_id=0, pad_id=0), 400)


def test_each_word_is_one_token_where_documents_have_it(tokenizer: Path) -> None:
    from w2s.encoding import Encoding

    encoding = Encoding.load(tokenizer.parent)
    for style in STYLES.values():
        for value in range(concepts.VALUES):
            assert len(encoding.response_ids(" " + style.render(value), eos=False)) == 3
    assert len(encoding.prompt_ids("Question: 11 plus 4\nAnswer:")) == 1 + 2 + 3 + 1 + 2


def test_references_without_a_style_are_bare_values() -> None:
    world = ConceptWorld(operands=5)
    found = concepts.make_questions(world, None, "test", 10, 0)
    assert found["reference"].tolist() == [str(world.value(text)) for text in found["question"]]
