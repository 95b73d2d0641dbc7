"""Model and tokenizer folders that are damaged or point elsewhere: refused with the file, at import and when loaded."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from strategies import ODD_TEXTS, Record, anything, changed, damaged, refusal, refused_or, tried
from w2s import hub, models, rewards
from w2s.encoding import Encoding, tokenizer_digest

INDEX = hub.SAFETENSORS_INDEX


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of a whole model without its records, to be spoilt."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy, ignore=shutil.ignore_patterns("manifest.json", "run.json"))
    return copy


def loaded(folder: Path) -> bool:
    """Whether a model and its tokenizer can be loaded; True is never None."""
    models.load_causal(folder, "float32", "cpu")
    Encoding.load(folder)
    return True


def test_a_configuration_of_another_form(folder: Path, record_property: Record) -> None:
    path = folder / models.CONFIG
    whole = json.loads(path.read_text())

    def check(content: Any) -> None:
        path.write_text(json.dumps(content), encoding="utf-8")
        refused_or(lambda: loaded(folder), str(folder))

    tried(record_property, changed(whole) | anything, 60, check)


def test_a_damaged_configuration(folder: Path, record_property: Record) -> None:
    path = folder / models.CONFIG
    whole = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        refused_or(lambda: loaded(folder), str(folder))

    tried(record_property, damaged(whole), 50, check)


def test_fewer_layers_than_the_file_has(folder: Path) -> None:
    """Loaded, it would be another model, and nobody would notice."""
    path = folder / models.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 1}), encoding="utf-8")
    assert "have no place" in refusal(lambda: loaded(folder), str(folder), "layers.1.")


def test_damaged_weights(folder: Path, record_property: Record) -> None:
    """Cut, overwritten, with another header: refused at import and at loading, unless only numbers have changed."""
    path = folder / hub.SAFETENSORS
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]

    def check(content: bytes) -> None:
        path.write_bytes(content)
        at_import = refused_or(lambda: hub.check_safetensors(path), path.name)
        later = refused_or(lambda: loaded(folder), str(folder))
        if len(content) != len(whole):
            assert at_import is None and later is None
        elif content[:header] == whole[:header]:
            assert later

    sizes = st.sampled_from([0, 1, 2**31, 2**40, 2**63, 2**64 - 1]).map(
        lambda size: struct.pack("<Q", size) + whole[8:]
    )
    cuts = st.integers(0, len(whole) - 1).map(lambda at: whole[:at])
    header_damage = damaged(whole[:header]).map(lambda start: start + whole[header:])
    tried(record_property, sizes | cuts | header_damage | damaged(whole), 60, check)


def test_a_header_that_says_other_things(folder: Path, record_property: Record) -> None:
    """Other types, shapes, offsets: nothing of it may become a model."""
    path = folder / hub.SAFETENSORS
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header, body = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    header.pop("__metadata__", None)

    def check(content: Any) -> None:
        text = json.dumps(content).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + body)
        assert refused_or(lambda: hub.check_safetensors(path) and loaded(folder), str(folder)) is None

    tried(record_property, changed(header), 60, check)


@pytest.mark.parametrize("kind", ["I32", "U32", "F8_E4M3"])
def test_weights_of_a_type_that_is_none(folder: Path, kind: str) -> None:
    path = folder / hub.SAFETENSORS
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    name = next(name for name in header if name.endswith("fc1.weight"))
    header[name]["dtype"] = kind
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + size :])
    refusal(lambda: hub.check_safetensors(path) and loaded(folder), str(folder))


@pytest.mark.parametrize(
    "name", ["../elsewhere.safetensors", "/absolute.safetensors", "sub/../../elsewhere.safetensors", "absent.safetensors", "", 3, None, ["model.safetensors"], "model.bin"]
)  # fmt: skip
def test_an_index_that_leads_elsewhere(folder: Path, name: Any) -> None:
    """Neither at import, which would write to such a name, nor at loading, which would read from it."""
    whole = folder / hub.SAFETENSORS
    shutil.copyfile(whole, folder.parent / "elsewhere.safetensors")
    whole.rename(folder / "model.bin")
    names = ["model.decoder.embed_tokens.weight"]
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, name)}))
    refusal(lambda: hub.place_weights(folder, folder.parent / "target"), INDEX)
    (folder / "model-00001.safetensors").write_bytes(b"")
    refusal(lambda: loaded(folder), str(folder))
    assert sorted(path.name for path in folder.parent.iterdir()) == ["elsewhere.safetensors", "model"]


def test_an_index_of_another_form(folder: Path, record_property: Record) -> None:
    whole = {"metadata": {"total_size": 1}, "weight_map": {"a": hub.SAFETENSORS, "b": hub.SAFETENSORS}}

    def check(content: Any) -> None:
        (folder / INDEX).write_text(json.dumps(content), encoding="utf-8")
        refused_or(lambda: hub.safetensors_files(folder), INDEX)

    tried(record_property, changed(whole) | anything, 60, check)


@pytest.mark.parametrize("name", ["tokenizer.json", "encoding.json", "tokenizer_config.json"])
def test_damaged_tokenizers(folder: Path, record_property: Record, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        refused_or(lambda: Encoding.load(folder), str(folder))
        refused_or(lambda: tokenizer_digest(folder), str(folder))
        refused_or(lambda: [rewards.has_chat_template(folder)], str(folder))

    tried(record_property, damaged(whole), 50, check)


@pytest.mark.parametrize("name", ["tokenizer.json", "encoding.json", "tokenizer_config.json"])
def test_tokenizers_of_another_form(folder: Path, record_property: Record, name: str) -> None:
    path = folder / name
    whole = json.loads(path.read_text())
    if name == "tokenizer.json":
        whole["model"]["vocab"] = dict(list(whole["model"]["vocab"].items())[:2])
        whole["model"]["merges"] = whole["model"]["merges"][:2]

    def check(content: Any) -> None:
        path.write_text(json.dumps(content), encoding="utf-8")
        encoding = refused_or(lambda: Encoding.load(folder), str(folder))
        if encoding is not None:
            assert isinstance(encoding.eos_id, int) and isinstance(encoding.pad_id, int)
            assert encoding.positions is None or encoding.positions > 0
        refused_or(lambda: hub.read_tokenizer(folder, "eos"), str(folder))

    tried(record_property, changed(whole) | anything, 50 if name != "tokenizer.json" else 80, check)


def test_configurations_at_import(folder: Path, record_property: Record) -> None:
    """What import_model asks of a configuration: the architecture, positions and vocabulary."""
    path = folder / models.CONFIG
    whole = json.loads(path.read_text())
    encoding = Encoding.load(folder)
    keys = ("architectures", "vocab_size", "max_position_embeddings", "auto_map", "model_type")
    values = anything | st.sampled_from([*ODD_TEXTS, ["OPTForCausalLM"], ["os"], [None], []])

    def check(change: tuple[str, Any]) -> None:
        path.write_text(json.dumps(whole | {change[0]: change[1]}), encoding="utf-8")

        def importing() -> bool:
            config = models.read_config(folder)
            hub.check_fits(config, encoding, None, folder)
            return bool(hub.check_architecture(config, folder))

        refused_or(importing, str(folder))

    tried(record_property, st.tuples(st.sampled_from(keys), values), 80, check)
