"""Models in the hub's format: how they are loaded, told apart and copied.

Safetensors only, no code from the model's repository, no network.

Loading sets every dropout of the configuration to 0 unless told otherwise. For scoring that changes
nothing; for training it must happen here: OPT applies dropout as a function, so that a trainer which only
silences ``nn.Dropout`` modules (as TRL's ``disable_dropout`` does) leaves it on, and the first DPO loss is
then not ln 2.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from w2s import (
    compat,  # noqa: F401  (before transformers)
    foreign,
)
from w2s.artifact import MANIFEST, file_digest, load
from w2s.cli import memory_outcome
from w2s.encoding import FILES as TOKENIZER_FILES
from w2s.errors import ArtifactError, ConfigError, EnvironmentProblem
from w2s.strict_json import read_object

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CONFIG = "config.json"
SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
# A weight of a numbered layer: whatever else is left over in a file (heads, buffers), such a one is a part of the model.
_LAYER = re.compile(r".*\.\d+\..*weight")


def device(name: str = "auto") -> torch.device:
    """The device to compute on; ``auto`` takes the GPU if there is one.

    Raises:
        EnvironmentProblem: a device was asked for that the machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentProblem(f"device {name!r}, but torch sees no GPU", instead="--device auto or cpu")
    return torch.device(name)


def dtype(precision: str) -> torch.dtype:
    """The torch type of a precision's name.

    Raises:
        ConfigError: unknown name.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}", instead=f"one of {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def load_causal(
    folder: Path, precision: str = "float32", on: str | torch.device = "auto", *, keep_dropout: bool = False
) -> PreTrainedModel:
    """A causal language model in evaluation mode.

    Args:
        folder: in the hub's format.
        precision: of weights and computation, see PRECISIONS; the precision of the file plays no part.
        on: a device or its name.
        keep_dropout: leave the dropout probabilities of the configuration as they are.

    Raises:
        ArtifactError: no model there, weights that are not safetensors, or weights missing in the file.
    """
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, folder, precision, on, keep_dropout)


def load_classifier(
    folder: Path,
    precision: str = "float32",
    on: str | torch.device = "auto",
    *,
    keep_dropout: bool = False,
    new_head: bool = False,
) -> PreTrainedModel:
    """A sequence classifier with one output, i.e. a reward model, in evaluation mode.

    Args:
        new_head: the folder holds a causal language model; the head is drawn anew by torch's random state.

    Raises:
        ArtifactError: as :func:`load_causal`; also a head that is not in the file, unless ``new_head``.
    """
    from transformers import AutoModelForSequenceClassification

    extra: dict[str, Any] = {"num_labels": 1} if new_head else {}
    return _load(AutoModelForSequenceClassification, folder, precision, on, keep_dropout, new_head, extra)


def _load(
    kind: Any,
    folder: Path,
    precision: str,
    on: str | torch.device,
    keep_dropout: bool,
    new_head: bool = False,
    extra: dict[str, Any] | None = None,
) -> PreTrainedModel:
    from transformers.utils import logging

    logging.disable_progress_bar()  # it only clutters logs
    config = read_config(folder, **(extra or {}))
    if not list(folder.glob("*.safetensors")):
        raise ArtifactError("no safetensors weights", where=folder, instead="a folder made by import_model")
    if not keep_dropout:
        silence_dropout(config)
    safetensors_files(folder)
    kept = dtype(precision)
    try:
        model, info = kind.from_pretrained(
            folder,
            config=config,
            dtype=kept,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # header, shape, type and index errors have no common base
        if memory_outcome(error) is not None:
            raise
        raise ArtifactError(
            f"the model cannot be loaded ({first_line(error)})",
            where=folder,
            instead="weights and configuration of one model, imported again",
        ) from error
    extra_layers = sorted(filter(_LAYER.fullmatch, info["unexpected_keys"]))
    if extra_layers:
        raise ArtifactError(
            f"{len(extra_layers)} weights of the file have no place in the model: {', '.join(extra_layers[:3])}",
            where=folder / CONFIG,
            instead="the configuration that belongs to the weights",
        )
    missing = sorted(info["missing_keys"])
    if missing and not new_head:
        raise ArtifactError(
            f"{len(missing)} weights are missing in the file and would be random: {', '.join(missing[:3])}",
            where=folder,
            instead=f"weights of the kind {kind.__name__.removeprefix('AutoModelFor')}",
        )
    return model.eval().to(device(on) if isinstance(on, str) else on)


def read_config(folder: Path, **changes: Any) -> PretrainedConfig:
    """A model's configuration; ``changes`` override its entries.

    Raises:
        ArtifactError: none there, or one that wants code from the model's repository.
    """
    from transformers import AutoConfig

    path = folder / CONFIG
    if not path.is_file():
        raise ArtifactError(f"no {CONFIG}", where=folder, instead="a model folder in the hub's format")
    foreign.check_declaration(path)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **changes)
    except Exception as error:  # each kind of nonsense fails in its own way
        raise ArtifactError(
            f"transformers does not know this model ({first_line(error)})", where=path
        ) from error


def safetensors_files(source: Path) -> list[str]:
    """Names of the safetensors files of a model, by its index if it has one; empty if there are none.

    Raises:
        ArtifactError: see :func:`weight_map`.
    """
    if (source / SAFETENSORS_INDEX).is_file():
        return sorted(set(weight_map(source).values()))
    return [SAFETENSORS] if (source / SAFETENSORS).is_file() else []


def weight_map(source: Path) -> dict[str, str]:
    """Name of each weight -> the file that the index puts it into; empty without an index.

    Raises:
        ArtifactError: the index is not readable, or names what is no file beside it.
    """
    index = source / SAFETENSORS_INDEX
    if not index.is_file():
        return {}
    weights = read_object(index).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise ArtifactError("not an index of weights: no weight_map", where=index, instead="fetch it again")
    for name in weights.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(foreign.SAFETENSORS):
            raise ArtifactError(
                f"the index names {name!r:.80}, which is no safetensors file beside it",
                where=index,
                instead="its name alone",
            )
        if not (source / name).is_file():
            raise ArtifactError(
                f"the index names {name!r}, which is not there", where=index, instead="fetch it again"
            )
    return weights


def first_line(error: Exception) -> str:
    """What a library says is wrong, as part of a message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def silence_dropout(config: PretrainedConfig) -> list[str]:
    """Set every dropout probability of ``config`` to 0; returns the entries that were changed.

    They are called differently in each architecture (dropout, attention_dropout, layerdrop, embd_pdrop, ...),
    so each number with "drop" in its name is taken.
    """
    names = [
        name
        for name, value in config.to_dict().items()
        if "drop" in name and isinstance(value, int | float) and not isinstance(value, bool) and value != 0
    ]
    for name in names:
        setattr(config, name, 0.0)
    return names


def weights_digest(folder: Path) -> str:
    """Digest of a model: its weights and its configuration. Taken from the manifest if there is one.

    Raises:
        ArtifactError: no safetensors in ``folder``.
    """
    names = sorted(path.name for path in [*folder.glob("*.safetensors"), *folder.glob(CONFIG)])
    if not any(name.endswith(".safetensors") for name in names):
        raise ArtifactError("no safetensors weights", where=folder)
    manifest = folder / MANIFEST
    known = load(manifest).manifest["files"] if manifest.is_file() else {}
    digests = [known[name]["sha256"] if name in known else file_digest(folder / name) for name in names]
    text = "".join(f"{name}\0{digest}\n" for name, digest in zip(names, digests, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()


def copy_tokenizer_files(source: Path, target: Path) -> None:
    """Copy ``tokenizer.json``, ``tokenizer_config.json`` and ``encoding.json``.

    Raises:
        ArtifactError: one of them is missing.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if not (source / name).is_file():
            raise ArtifactError(f"no {name} beside the model", where=source)
        shutil.copyfile(source / name, target / name)


def save_model(model: PreTrainedModel, folder: Path, tokenizer_from: Path) -> None:
    """Write ``model`` in the hub's format with the tokenizer files of ``tokenizer_from`` beside it."""
    model.save_pretrained(folder)
    # Its sampling defaults would be taken silently by whoever generates; those are declared settings here.
    (folder / "generation_config.json").unlink(missing_ok=True)
    copy_tokenizer_files(tokenizer_from, folder)
