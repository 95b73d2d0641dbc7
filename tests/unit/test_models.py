"""Loading models: precision, dropout, digests, refusals."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from w2s import compat, models
from w2s.errors import ArtifactError, ConfigError, EnvironmentProblem


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_is_the_declared_one(tiny_model, precision):
    model = models.load_causal(tiny_model, precision, "cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {models.PRECISIONS[precision]}
    assert not model.training


def test_unknown_precision_and_absent_device(tiny_model, monkeypatch):
    with pytest.raises(ConfigError, match="float23"):
        models.load_causal(tiny_model, "float23", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert models.device().type == "cpu"
    with pytest.raises(EnvironmentProblem, match="no GPU"):
        models.device("cuda")


def test_functional_dropout_is_off_in_training_mode(tiny_model):
    ids = torch.arange(5, 45).reshape(2, 20)
    silenced = models.load_causal(tiny_model, on="cpu").train()
    torch.manual_seed(0)
    assert torch.equal(silenced(ids).logits, silenced(ids).logits)
    kept = models.load_causal(tiny_model, on="cpu", keep_dropout=True).train()
    assert not torch.equal(kept(ids).logits, kept(ids).logits)


def test_dpo_starts_at_ln_2_in_training_mode(tiny_model):
    """Policy = reference: every implicit reward is 0 and the sigmoid loss ln 2, if dropout is silenced."""
    policy = models.load_causal(tiny_model, on="cpu").train()
    reference = models.load_causal(tiny_model, on="cpu")
    chosen, rejected = torch.arange(5, 25).reshape(1, 20), torch.arange(40, 60).reshape(1, 20)

    def log_prob(model, ids):
        logits = model(ids).logits[:, :-1].log_softmax(-1)
        return logits.gather(-1, ids[:, 1:, None]).sum()

    margin = sum(
        sign * (log_prob(policy, ids) - log_prob(reference, ids))
        for sign, ids in ((1, chosen), (-1, rejected))
    )
    loss = -torch.nn.functional.logsigmoid(0.1 * margin)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


def test_classifier_needs_its_head(tiny_model, tiny_classifier):
    assert models.load_classifier(tiny_classifier, on="cpu").config.num_labels == 1
    with pytest.raises(ArtifactError, match="score.weight"):
        models.load_classifier(tiny_model, on="cpu")
    fresh = models.load_classifier(tiny_model, on="cpu", new_head=True)
    assert fresh.config.num_labels == 1 and fresh.score.out_features == 1


def test_weights_digest_tells_weights_apart(tiny_model, make_model, tmp_path):
    assert models.weights_digest(tiny_model) != models.weights_digest(make_model(1))
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    (copy / "manifest.json").unlink()  # hashed now, not read
    assert models.weights_digest(copy) == models.weights_digest(tiny_model)
    with pytest.raises(ArtifactError, match="no safetensors"):
        models.weights_digest(tmp_path)


def test_refusals(tiny_model, tmp_path):
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        models.load_causal(tmp_path, on="cpu")
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    weights = (copy / "model.safetensors").rename(tmp_path / "aside")
    with pytest.raises(ArtifactError, match="no safetensors"):
        models.load_causal(copy, on="cpu")
    shutil.copy(weights, copy / "model.safetensors")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(ArtifactError, match="never run here"):
        models.load_causal(copy, on="cpu")
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "nonsense"}))
    with pytest.raises(ArtifactError, match="does not know"):
        models.load_causal(copy, on="cpu")


def test_weights_that_the_file_lacks_are_not_made_up(tiny_model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ArtifactError, match="would be random"):
        models.load_causal(copy, on="cpu")


def test_copy_tokenizer_files(tiny_tokenizer, tmp_path):
    models.copy_tokenizer_files(tiny_tokenizer, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(models.TOKENIZER_FILES)
    (tmp_path / "encoding.json").unlink()
    with pytest.raises(ArtifactError, match=r"no encoding\.json"):
        models.copy_tokenizer_files(tmp_path, tmp_path / "other")


def test_compat_acts_below_2_6_only(monkeypatch):
    assert compat.version("2.4.1+cu121") == (2, 4) and compat.version("2.13.0+cpu") == (2, 13)
    called: list[str] = []
    monkeypatch.setattr(compat, "public_names", lambda: called.append("names"))
    monkeypatch.setattr(compat, "resume_from_own_checkpoints", lambda: called.append("resume"))
    monkeypatch.setattr(torch, "__version__", "2.6.0")
    assert compat.apply() is False and called == []
    monkeypatch.setattr(torch, "__version__", "2.4.1+cu121")
    assert compat.apply() is True and called == ["names", "resume"]


def test_compat_lifts_the_guard_of_the_trainer_only(monkeypatch):
    import transformers.modeling_utils
    import transformers.trainer

    before = transformers.modeling_utils.check_torch_load_is_safe
    monkeypatch.setattr(transformers.trainer, "check_torch_load_is_safe", before)
    with torch.serialization.safe_globals([]):
        compat.resume_from_own_checkpoints()
    assert transformers.trainer.check_torch_load_is_safe is not before
    assert transformers.modeling_utils.check_torch_load_is_safe is before
