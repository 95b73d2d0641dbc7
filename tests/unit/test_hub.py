"""Importing tokenizers and models from fetched repositories, good and bad ones."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import import_model
import import_tokenizer
import pytest
import torch
from tiny import as_artifact
from w2s import compat, hub
from w2s.artifact import load
from w2s.encoding import Encoding
from w2s.errors import ArtifactError, DataError, EnvironmentProblem
from w2s.models import load_causal, load_classifier

SPECIAL = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "</s>"}
OPT_CONFIG = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": False, **SPECIAL}


def fetched(folder: Path, files: Path, **replaced: str | None) -> Path:
    """An artifact as ``fetch`` makes it: ``files`` copied; ``name=text`` replaces, None drops one."""

    def fill(target: Path) -> None:
        for path in files.iterdir():
            if path.name not in ("manifest.json", "run.json"):
                shutil.copyfile(path, target / path.name)
        for name, text in replaced.items():
            path = target / name.replace("__", ".")
            path.unlink(missing_ok=True) if text is None else path.write_text(text)

    return as_artifact(folder, fill)


def run(stage, source: Path, output: Path, *words: object):
    manifest = output / "manifest.json"
    stage.main([*map(str, ["--source", source, "--output", manifest, *words])])
    return load(manifest)


@pytest.fixture(scope="module")
def opt_files(tiny_tokenizer, tmp_path_factory) -> Path:
    """Tokenizer files as the OPT repositories have them: vocab.json, merges.txt, tokenizer_config.json."""
    folder = tmp_path_factory.mktemp("opt")
    model = json.loads((tiny_tokenizer / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"])
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(OPT_CONFIG))
    return folder


def test_opt_tokenizer_puts_its_end_token_in_front(opt_files, tiny_tokenizer, tmp_path):
    made = run(import_tokenizer, fetched(tmp_path / "source", opt_files), tmp_path / "made")
    encoding = Encoding.load(made.folder)
    assert (encoding.bos_id, encoding.eos_id, encoding.pad_id, encoding.positions) == (2, 2, 1, None)
    text = "\n\nHuman: Mix flour?\n\nAssistant:"
    assert encoding.prompt_ids(text) == Encoding.load(tiny_tokenizer).prompt_ids(text)
    assert made.facts["tokenizer_digest"] == encoding.digest
    assert set(made.manifest["files"]) == {"tokenizer.json", "tokenizer_config.json", "encoding.json"}


def test_real_opt_tokenizer(shared_data, tmp_path):
    made = run(
        import_tokenizer, fetched(tmp_path / "source", shared_data / "opt-tokenizer"), tmp_path / "made"
    )
    encoding = Encoding.load(made.folder)
    assert (encoding.bos_id, encoding.eos_id, encoding.pad_id, encoding.positions) == (2, 2, 1, 2048)
    assert made.facts["vocabulary"] == 50265
    assert encoding.prompt_ids(" Hello") == [2, 20920]


def test_a_tokenizer_without_bos(opt_files, tmp_path):
    config = json.dumps(OPT_CONFIG | {"add_bos_token": False})
    source = fetched(tmp_path / "source", opt_files, tokenizer_config__json=config)
    assert run(import_tokenizer, source, tmp_path / "made").facts["bos_id"] is None


def test_without_pad_token(opt_files, tmp_path):
    config = json.dumps({key: value for key, value in OPT_CONFIG.items() if key != "pad_token"})
    source = fetched(tmp_path / "source", opt_files, tokenizer_config__json=config)
    with pytest.raises(DataError, match="tokenizer without pad token") as caught:
        run(import_tokenizer, source, tmp_path / "made")
    assert "--pad-token" in str(caught.value) and str(source.parent) in str(caught.value)
    assert not (tmp_path / "made").exists()
    assert run(import_tokenizer, source, tmp_path / "eos", "--pad-token", "eos").facts["pad_id"] == 2
    assert run(import_tokenizer, source, tmp_path / "pad", "--pad-token", "<pad>").facts["pad_id"] == 1
    with pytest.raises(DataError, match="no token '<nothing>' to pad with"):
        run(import_tokenizer, source, tmp_path / "made", "--pad-token", "<nothing>")


def test_unreadable_tokenizers(tiny_tokenizer, opt_files, tmp_path):
    with pytest.raises(ArtifactError, match="cannot read the tokenizer"):
        run(import_tokenizer, as_artifact(tmp_path / "none", lambda folder: None), tmp_path / "made")
    code = json.dumps({"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["code.Own", None]}})
    with pytest.raises(ArtifactError, match="wants code from its own repository"):
        source = fetched(tmp_path / "code", tiny_tokenizer, tokenizer_config__json=code)
        run(import_tokenizer, source, tmp_path / "made")
    no_end = json.dumps(
        {key: value for key, value in OPT_CONFIG.items() if key != "eos_token"} | {"eos_token": None}
    )
    with pytest.raises(DataError, match="without end-of-sequence token"):
        run(
            import_tokenizer,
            fetched(tmp_path / "end", opt_files, tokenizer_config__json=no_end),
            tmp_path / "made",
        )


def test_subfolder(tiny_tokenizer, tmp_path):
    source = as_artifact(
        tmp_path / "source", lambda folder: shutil.copytree(tiny_tokenizer, folder / "deep" / "er")
    )
    made = run(import_tokenizer, source, tmp_path / "made", "--subfolder", "deep/er")
    assert Encoding.load(made.folder).digest == Encoding.load(tiny_tokenizer).digest


def test_safetensors_are_linked(tiny_model, tmp_path):
    source = fetched(tmp_path / "source", tiny_model)
    made = run(import_model, source, tmp_path / "made", "--positions", 100)
    assert os.path.samefile(made.path("model.safetensors"), source.with_name("model.safetensors"))
    assert Encoding.load(made.folder).positions == made.facts["positions"] == 100
    assert made.facts["architecture"] == "OPTForCausalLM" and made.facts["converted"] is False
    weights = load_causal(tiny_model, on="cpu").state_dict()
    for name, value in load_causal(made.folder, on="cpu").state_dict().items():
        assert torch.equal(value, weights[name])
    assert run(import_model, source, tmp_path / "own").facts["positions"] == 256


def test_files_are_copied_where_links_are_not_possible(tiny_model, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("other device")

    monkeypatch.setattr(os, "link", refuse)
    source = tiny_model / "model.safetensors"
    hub.link_or_copy(source, tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").read_bytes() == source.read_bytes()


def test_sharded_weights(tiny_model, tmp_path):
    sharded = tmp_path / "sharded"
    shutil.copytree(tiny_model, sharded)
    (sharded / "model.safetensors").unlink()
    load_causal(tiny_model, on="cpu").save_pretrained(sharded, max_shard_size="10KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    made = run(import_model, fetched(tmp_path / "source", sharded), tmp_path / "made")
    ids = torch.arange(5, 20)[None]
    assert torch.equal(
        load_causal(made.folder, on="cpu")(ids).logits, load_causal(tiny_model, on="cpu")(ids).logits
    )
    last = sorted(path.name for path in sharded.glob("model-*.safetensors"))[-1]
    (sharded / last).unlink()
    with pytest.raises(ArtifactError, match=f"names '{last}', which is not there"):
        run(import_model, fetched(tmp_path / "torn", sharded), tmp_path / "other")


@pytest.fixture
def pickled(tiny_model, tmp_path) -> Path:
    """The tiny model as the OPT repositories have it: half precision, pytorch_model.bin only."""
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    weights = load_causal(tiny_model, "float16", "cpu").state_dict()
    torch.save(
        {name.removeprefix("model."): value for name, value in weights.items()}, folder / "pytorch_model.bin"
    )
    config = json.loads((folder / "config.json").read_text()) | {"torch_dtype": "float16"}
    config.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_pickled_weights_are_converted(pickled, tiny_model, tmp_path):
    made = run(import_model, fetched(tmp_path / "source", pickled), tmp_path / "made")
    assert made.facts["converted"] is True
    assert not [name for name in made.manifest["files"] if name.endswith(".bin")]
    expected = load_causal(tiny_model, "float16", "cpu").state_dict()
    found = load_causal(made.folder, "float16", "cpu").state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_pickled_weights_need_a_safe_torch(pickled, tmp_path, monkeypatch):
    source = fetched(tmp_path / "source", pickled)
    monkeypatch.setattr(compat, "torch_load_is_safe", lambda: False)
    monkeypatch.setattr(torch, "load", None)  # not even tried
    with pytest.raises(EnvironmentProblem, match="cannot be read safely") as caught:
        run(import_model, source, tmp_path / "made")
    assert "CPU environment" in str(caught.value)


class Trap:
    """Unpickled without restriction, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_runs_nothing(pickled, tmp_path):
    trap = tmp_path / "sprung"
    torch.save({"decoder.embed_tokens.weight": Trap(trap)}, pickled / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="cannot be read"):
        run(import_model, fetched(tmp_path / "source", pickled), tmp_path / "made")
    assert not trap.exists()


def test_missing_weights(pickled, tmp_path):
    weights = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    del weights["decoder.layers.1.fc1.weight"]
    torch.save(weights, pickled / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"1 weights are missing: .*layers\.1\.fc1\.weight"):
        run(import_model, fetched(tmp_path / "source", pickled), tmp_path / "made")
    (pickled / "pytorch_model.bin").unlink()
    with pytest.raises(ArtifactError, match="no weights"):
        run(import_model, fetched(tmp_path / "none", pickled), tmp_path / "made")


def test_a_cut_off_safetensors_file(tiny_model, tmp_path):
    cut = shutil.copytree(tiny_model, tmp_path / "cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-10])
    source = fetched(tmp_path / "source", cut.parent)
    path = source.with_name("model.safetensors")
    with pytest.raises(ArtifactError, match="not a whole safetensors file") as caught:
        run(import_model, source, tmp_path / "made")
    assert str(path) in str(caught.value) and not (tmp_path / "made").exists()


def test_positions_and_vocabulary_must_fit(tiny_model, tmp_path):
    source = fetched(tmp_path / "source", tiny_model)
    with pytest.raises(DataError, match="257 positions asked for, the model has 256"):
        run(import_model, source, tmp_path / "made", "--positions", 257)
    config = json.loads((tiny_model / "config.json").read_text())
    small = fetched(tmp_path / "small", tiny_model, config__json=json.dumps(config | {"vocab_size": 100}))
    with pytest.raises(DataError, match="embeddings for 100"):
        run(import_model, small, tmp_path / "made")


def test_other_architectures_are_refused(tiny_model, tmp_path):
    config = json.loads((tiny_model / "config.json").read_text())
    for name, architecture in (("base", "OPTModel"), ("own", "OwnForCausalLM")):
        text = json.dumps(config | {"architectures": [architecture]})
        with pytest.raises(ArtifactError, match=f"architecture '{architecture}'"):
            run(import_model, fetched(tmp_path / name, tiny_model, config__json=text), tmp_path / "made")
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        run(import_model, fetched(tmp_path / "none", tiny_model, config__json=None), tmp_path / "made")


def test_a_reward_model_knows_its_pad_token(tiny_classifier, tmp_path):
    config = json.loads((tiny_classifier / "config.json").read_text()) | {"pad_token_id": None}
    source = fetched(tmp_path / "source", tiny_classifier, config__json=json.dumps(config))
    made = run(import_model, source, tmp_path / "made")
    assert made.facts["architecture"] == "OPTForSequenceClassification"
    model = load_classifier(made.folder, on="cpu")
    assert model.config.pad_token_id == 1
    alone, padded = torch.tensor([[2, 7, 8]]), torch.tensor([[2, 7, 8, 1, 1]])
    with torch.no_grad():
        one = model(alone).logits
        other = model(padded, attention_mask=(padded != 1).long()).logits
    assert torch.allclose(one, other, atol=1e-6)
