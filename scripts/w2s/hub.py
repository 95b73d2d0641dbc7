"""Fetched models and tokenizers in this workflow's form: what import_tokenizer and import_model share.

A causal language model gets an :class:`~w2s.encoding.Encoding`: this workflow builds its sequences. A classifier or an
encoder is read through its own tokenizer, which puts around one text or two what the model was trained with; that
tokenizer is taken over as it is, see :func:`place_tokenizer`.

Nothing of a fetched repository is ever run: no remote code, and pickled weights are read once, by a torch
that can restrict them to tensors, and kept as safetensors.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import (
    compat,  # noqa: F401  (before transformers)
    foreign,
)
from w2s.encoding import NO_PAD, TOKENIZER, TOKENIZER_CONFIG, Encoding, sensible_positions
from w2s.errors import ArtifactError, DataError, EnvironmentProblem
from w2s.models import (
    CONFIG,
    SAFETENSORS,
    SAFETENSORS_INDEX,
    first_line,
    read_config,
    safetensors_files,
    weight_map,
)
from w2s.strict_json import read_object

if TYPE_CHECKING:
    from transformers import PretrainedConfig

PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# Types of weights as safetensors calls them.
FLOATS = ("F64", "F32", "F16", "BF16")
CAUSAL = ("ForCausalLM", "LMHeadModel")
CLASSIFIER = "ForSequenceClassification"
# With a head that is not read, or none: what gives hidden states is taken. Only of models that read in both directions.
ENCODER = ("Model", "ForMaskedLM", "ForPreTraining")
OWN = "the tokenizer that belongs to the model"
AGAIN = "fetch it again"
SAFE = "the model's weights as safetensors"
PROBE = "probe of a text"
# A second text and capitals too: what stands between two texts and what is done to letters differ between tokenizers.
PROBES = (PROBE, "Another Probe, number 2.")
# What a tokenizer may have beside its two main files.
TOKENIZER_EXTRAS = (
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)


def read_tokenizer(folder: Path, pad_token: str | None = None) -> Encoding:
    """The tokenizer of a fetched repository, with what the model sees around a text.

    Whether there is a BOS is found by tokenising a probe, for the declarations in ``tokenizer_config.json``
    differ between tokenizer classes and versions.

    Args:
        pad_token: a token of the tokenizer to pad with, or "eos"; None takes the tokenizer's own.

    Raises:
        ArtifactError: see :func:`_load_tokenizer` and :func:`w2s.foreign.check_tokenizer`.
        DataError: no end token; no pad token and none given, or one that the tokenizer does not have.
    """
    foreign.check_tokenizer(folder)
    tokenizer = _load_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise DataError(
            "tokenizer without end-of-sequence token", where=folder, instead='"eos_token" in its config'
        )
    template = tokenizer.chat_template
    return Encoding(
        tokenizer.backend_tokenizer,
        bos_id=_bos_in_front(tokenizer, folder),
        eos_id=tokenizer.eos_token_id,
        pad_id=_pad_id(tokenizer, pad_token, folder),
        positions=sensible_positions(tokenizer.model_max_length),
        chat_template=template if isinstance(template, str) else None,
    )


def _load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a repository as transformers reads it.

    Raises:
        ArtifactError: none there that transformers can read without code from the repository, or a SentencePiece
            model alone: what transformers makes of that depends on its version and on what else is installed.
    """
    from transformers import AutoTokenizer

    names = {path.name for path in folder.glob("*")}
    if any(name.endswith(".model") for name in names) and not names & {TOKENIZER, "vocab.json", "vocab.txt"}:
        raise ArtifactError(
            f"a SentencePiece model without {TOKENIZER}",
            where=folder,
            instead=f"a repository or revision with {TOKENIZER}, or one made once where sentencepiece is installed "
            "(AutoTokenizer.from_pretrained(...).save_pretrained(...), transformers 4) and declared with the source",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer(PROBE)  # what is wrong with a setting may show in use only
    except Exception as error:  # each format fails in its own way
        raise ArtifactError(
            f"transformers cannot read the tokenizer ({first_line(error)})",
            where=folder,
            instead="tokenizer_config.json and tokenizer.json (or vocab.json and merges.txt) in the source",
        ) from error
    if not tokenizer.is_fast:
        raise ArtifactError(
            "the tokenizer has no tokenizer.json form", where=folder, instead="a repository with one"
        )
    return tokenizer


@dataclass(frozen=True)
class OwnTokenizer:
    """The tokenizer of a classifier or an encoder, as its makers left it.

    Attributes:
        tokenizer: of transformers.
        declared: what ``tokenizer_config.json`` says; empty without such a file.
        pad_id: the id that fills a batch; None where the model declares none and none can be chosen for it.
    """

    tokenizer: Any
    declared: dict[str, Any]
    pad_id: int | None

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, added tokens included."""
        return len(self.tokenizer)


def read_own_tokenizer(folder: Path, config: PretrainedConfig, pad_token: str | None = None) -> OwnTokenizer:
    """The tokenizer of a fetched classifier or encoder.

    The pad id is the model's. Where the model has none it is the tokenizer's, but not if that ends the texts, too:
    a classifier that looks for the last token before the padding would then look in front of the end.

    Args:
        pad_token: a token of the tokenizer to pad with instead, or "eos".

    Raises:
        ArtifactError: see :func:`_load_tokenizer` and :func:`w2s.foreign.check_tokenizer`.
        DataError: the tokenizer does not have ``pad_token``.
    """
    foreign.check_tokenizer(folder)
    path = folder / TOKENIZER_CONFIG
    tokenizer = _load_tokenizer(folder)
    declared = read_object(path) if path.is_file() else {}
    if pad_token is not None:
        return OwnTokenizer(tokenizer, declared, _pad_id(tokenizer, pad_token, folder))
    pad_id = getattr(config, "pad_token_id", None)
    if pad_id is None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        pad_id = tokenizer.pad_token_id
    return OwnTokenizer(tokenizer, declared, pad_id)


def place_tokenizer(
    own: OwnTokenizer, source: Path, target: Path, pad_token: str | None = None, positions: int | None = None
) -> None:
    """Bring a classifier's or an encoder's tokenizer into ``target`` as it is.

    ``tokenizer.json`` is copied (or made, where a repository has only a vocabulary). To ``tokenizer_config.json`` is
    added that this file is the tokenizer, with what else comes from the class that the repository names. For
    transformers 5 reads some classes from the vocabulary alone and puts its own normalisation around it: DeBERTa's then
    knows neither an ellipsis nor a no-break space.

    Args:
        pad_token: what :func:`read_own_tokenizer` was told.
        positions: longest sequence, where it is declared.

    Raises:
        DataError: transformers' class and ``tokenizer.json`` do not read alike even plain English.
    """
    if (source / TOKENIZER).is_file():
        shutil.copyfile(source / TOKENIZER, target / TOKENIZER)
    else:
        own.tokenizer.backend_tokenizer.save(str(target / TOKENIZER))
    for name in TOKENIZER_EXTRAS:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    config = own.tokenizer.special_tokens_map | own.declared
    config |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": own.tokenizer.model_input_names,
    }
    if pad_token is not None:
        config["pad_token"] = own.tokenizer.convert_ids_to_tokens(own.pad_id)
    if positions is not None:
        config["model_max_length"] = positions
    (target / TOKENIZER_CONFIG).write_text(
        json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    placed, read = (tokenizer(*PROBES).input_ids for tokenizer in (_load_tokenizer(target), own.tokenizer))
    if placed != read:
        raise DataError(
            f"{TOKENIZER} makes {placed} of {PROBES}, {type(own.tokenizer).__name__} makes {read}",
            where=source,
            instead="a repository whose tokenizer files agree",
        )


def _bos_in_front(tokenizer: Any, where: Path) -> int | None:
    bare = tokenizer(PROBE, add_special_tokens=False).input_ids
    seen = tokenizer(PROBE).input_ids
    in_front = next((seen[:at] for at in range(len(seen)) if seen[at : at + len(bare)] == bare), None)
    if in_front is None or len(in_front) > 1:
        raise DataError(
            f"the tokenizer puts {seen} around {bare}: not at most one token in front",
            where=where,
            instead="a tokenizer of a causal language model",
        )
    return in_front[0] if in_front else None


def _pad_id(tokenizer: Any, pad_token: str | None, where: Path) -> int:
    if pad_token is None:
        if tokenizer.pad_token_id is None:
            raise DataError("tokenizer without pad token", where=where, instead=NO_PAD)
        return tokenizer.pad_token_id
    token = tokenizer.eos_token if pad_token == "eos" else pad_token
    found = None if token is None else tokenizer.backend_tokenizer.token_to_id(token)
    if found is None:
        raise DataError(f"the tokenizer has no token {pad_token!r} to pad with", where=where, instead=NO_PAD)
    return found


def check_fits(
    config: PretrainedConfig, tokenizer: Encoding | OwnTokenizer, positions: int | None, where: Path
) -> int | None:
    """Check a model against its tokenizer and the positions asked for; returns the positions to work with.

    Raises:
        DataError: more positions asked for than the model has, a token without an embedding, or a model that ends its
            texts with what is an ordinary token of this tokenizer.
    """
    own = sensible_positions(getattr(config, "max_position_embeddings", None))
    if positions is not None and own is not None and positions > own:
        raise DataError(
            f"{positions} positions asked for, the model has {own}",
            where=f"{where / CONFIG}, key max_position_embeddings",
            instead=f"--positions {own} or less",
        )
    last = max(tokenizer.vocabulary_size - 1, tokenizer.pad_id or 0)
    if last >= config.vocab_size:
        raise DataError(
            f"the tokenizer has {tokenizer.vocabulary_size} tokens (pad: {tokenizer.pad_id}), "
            f"the model embeddings for {config.vocab_size}",
            where=f"{where / CONFIG}, key vocab_size",
            instead=OWN,
        )
    if isinstance(tokenizer, Encoding):
        _check_end(tokenizer, where / CONFIG)
    return positions if positions is not None else own


def _check_end(encoding: Encoding, path: Path) -> None:
    """Refuse a tokenizer in which the end of a text, as the model declares it, is a word like any other.

    A class's default is no declaration, and a model may name other special tokens than its tokenizer does.
    """
    declared = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    ends = declared if isinstance(declared, list) else [] if declared is None else [declared]
    special = {
        number for number, token in encoding.tokenizer.get_added_tokens_decoder().items() if token.special
    }
    if ends and encoding.eos_id not in ends and not special & set(ends):
        raise DataError(
            f"the model ends a text with id {ends[0]}, which is {encoding.tokenizer.id_to_token(ends[0])!r} in this "
            f"tokenizer; there the end is id {encoding.eos_id}",
            where=f"{path}, key eos_token_id",
            instead=OWN,
        )


def place_weights(source: Path, target: Path) -> bool:
    """Bring a repository's weights into ``target`` as safetensors; returns whether they had to be converted.

    Raises:
        ArtifactError: no weights, damaged ones, or an index that does not fit them.
        EnvironmentProblem: pickled weights and a torch that cannot read them safely.
    """
    names = safetensors_files(source)
    if names:
        check_index(source)
        for name in names:
            check_safetensors(source / name)
            link_or_copy(source / name, target / name)
        if (source / SAFETENSORS_INDEX).is_file():
            link_or_copy(source / SAFETENSORS_INDEX, target / SAFETENSORS_INDEX)
        return False
    if not any((source / name).is_file() for name in PICKLES):
        raise ArtifactError(
            "no weights", where=source, instead=f"{SAFETENSORS} or {PICKLES[0]} among the source's files"
        )
    convert(source, target)
    return True


def check_index(source: Path) -> None:
    """Check that each weight lies in the file that the index puts it into, and in no other; no index is right, too.

    Raises:
        ArtifactError: one does not; the message names it.
    """
    stated = weight_map(source)
    held: dict[str, str] = {}
    for name in sorted(set(stated.values())):
        for key in _keys(source / name):
            if key in held:
                raise ArtifactError(
                    f"{key!r} is in {held[key]!r} and in {name!r}", where=source, instead=AGAIN
                )
            held[key] = name
    for key, name in sorted(stated.items()):
        if held.get(key) != name:
            raise ArtifactError(
                f"the index puts {key!r} into {name!r}; it is in {held.get(key, 'none of the files')!r}",
                where=source / SAFETENSORS_INDEX,
                instead=AGAIN,
            )


def _keys(path: Path) -> list[str]:
    from safetensors import safe_open

    check_safetensors(path)
    with safe_open(path, framework="np") as stream:
        return list(stream.keys())


def check_safetensors(path: Path) -> int:
    """Check that a safetensors file is whole, by its header; returns the number of weights in it.

    Raises:
        ArtifactError: it is cut off or something else, such as a pickle, or holds weights that are no plain numbers (quantised
            ones): read as numbers they would give another model.
    """
    if foreign.is_pickle(path):
        raise ArtifactError(
            f"{path.name!r} is a pickle under another name, which is not read",
            where=path.parent,
            instead=SAFE,
        )
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as stream:
            slices = {key: stream.get_slice(key) for key in stream.keys()}  # noqa: SIM118
            kinds = {key: part.get_dtype() for key, part in slices.items() if key.endswith(".weight")}
            count = sum(prod(part.get_shape()) for part in slices.values())
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"not a whole safetensors file ({error})", where=path, instead="fetch it again"
        ) from error
    odd = sorted(key for key, kind in kinds.items() if kind not in FLOATS)
    if odd:
        raise ArtifactError(
            f"{len(odd)} weights are of another type than {', '.join(FLOATS)}: {odd[0]} is {kinds[odd[0]]}",
            where=path,
            instead="the model as it was before it was quantised",
        )
    return count


def convert(source: Path, target: Path) -> None:
    """Read pickled weights, restricted to tensors, and write them as safetensors in their own precision.

    Raises:
        EnvironmentProblem: torch is older than 2.6, where that restriction can be got round (CVE-2025-32434).
        ArtifactError: the file holds something else than the model's weights.
    """
    import torch
    import transformers

    if not compat.torch_load_is_safe():
        raise EnvironmentProblem(
            f"pickled weights cannot be read safely with torch {torch.__version__}",
            where=source,
            instead="import the model once in the CPU environment (torch 2.6 or newer), or fetch safetensors",
        )
    architecture = (read_config(source).architectures or ["AutoModelForCausalLM"])[0]
    kind = getattr(transformers, architecture)
    try:
        model, info = kind.from_pretrained(
            source,
            dtype="auto",
            local_files_only=True,
            use_safetensors=False,
            weights_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # unpickling, zip and shape errors have no common base
        raise ArtifactError(f"the weights cannot be read ({first_line(error)})", where=source) from error
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise ArtifactError(f"{len(names)} weights are missing: {', '.join(names[:3])}", where=source)
    model.save_pretrained(target)
    (target / "generation_config.json").unlink(missing_ok=True)


def check_architecture(config: PretrainedConfig, where: Path) -> str:
    """The architecture's name.

    Raises:
        ArtifactError: neither a causal language model nor a sequence classifier nor an encoder of transformers.
    """
    import transformers

    declared = (config.architectures or [""])[0]
    served = declared.endswith((*CAUSAL, CLASSIFIER)) or (declared.endswith(ENCODER) and _is_encoder(config))
    if not served or not hasattr(transformers, declared):
        raise ArtifactError(
            f"architecture {declared!r} is neither a causal language model nor a sequence classifier nor an encoder",
            where=f"{where / CONFIG}, key architectures",
        )
    return declared


def is_causal(architecture: str) -> bool:
    """Whether an architecture is a causal language model's: its sequences are built here, see :class:`Encoding`."""
    return architecture.endswith(CAUSAL)


def _is_encoder(config: PretrainedConfig) -> bool:
    """Whether a kind of model reads in both directions and writes nothing: masked language models do."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_encoder_decoder


def write_config(source: Path, target: Path, pad_id: int | None) -> None:
    """Copy ``config.json`` with the pad id of the batches: a classifier finds the end of a text by it."""
    config = read_object(source / CONFIG)
    if pad_id is not None:
        config["pad_token_id"] = pad_id
    (target / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where that is not possible: weights are large and never edited."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
