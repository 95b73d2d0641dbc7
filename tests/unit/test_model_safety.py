"""Model folders that must not be used: refused at the border from outside, and again between stages, by name."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import import_model
import import_tokenizer
import pandas as pd
import pytest
import score_responses
import torch
import train_student_sft
from safetensors.torch import load_file, save_file
from tiny import as_artifact, train_bpe, write_label_file
from w2s import hub
from w2s.artifact import Artifact, load, verify
from w2s.encoding import Encoding
from w2s.errors import ArtifactError, W2SError
from w2s.foreign import check_model
from w2s.models import load_causal
from w2s.tables import read_part

Folder = Callable[[Path], Any]


def source(tmp_path: Path, files: Path, change: Folder = lambda folder: None) -> Path:
    """A fetched model with ``files`` and a change that its publisher made."""

    def fill(target: Path) -> None:
        for path in files.iterdir():
            if path.name not in ("manifest.json", "run.json"):
                shutil.copyfile(path, target / path.name)
        change(target)

    return as_artifact(tmp_path / "source", fill)


def refused(stage: Any, manifest: Path, output: Path, *said: str) -> None:
    """The stage must end with an error of ours that says all this and how to go on, and must make nothing."""
    with pytest.raises(W2SError) as caught:
        stage.main(["--source", str(manifest), "--output", str(output / "manifest.json")])
    for text in (*said, "instead:"):
        assert text in str(caught.value)
    assert not output.exists()


@pytest.fixture
def sharded(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model in several shards."""
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("model.safetensors", "*n.json"))
    shutil.copy(tiny_model / "encoding.json", folder)
    load_causal(tiny_model, on="cpu").save_pretrained(folder, max_shard_size="10KB")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, folder)
    assert len(shards(folder)) > 2
    return folder


def shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("model-*.safetensors"))


class Trap:
    """Unpickled without restriction, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


# --- the border from outside: pickles -----------------------------------------------------------------------------

PICKLES = (
    *("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.ckpt", "extra.pkl", "state.pickle"),
    *("rng_state.pth", "head.joblib", "embeddings.npy", "ADAPTER.BIN"),
)


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_beside_good_weights(name: str, tiny_model: Path, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    manifest = source(
        tmp_path, tiny_model, lambda folder: (folder / name).write_bytes(pickle.dumps(Trap(trap)))
    )
    refused(import_model, manifest, tmp_path / "made", repr(name), "a pickle", str(manifest.parent))
    assert not trap.exists()


@pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "weights.pkl", "adapter_model.bin"])
def test_a_pickle_that_is_no_weights_file_of_the_hub_s(name: str, tiny_model: Path, tmp_path: Path) -> None:
    manifest = source(
        tmp_path, tiny_model, lambda folder: (folder / "model.safetensors").rename(folder / name)
    )
    refused(import_model, manifest, tmp_path / "made", repr(name), "a pickle")


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_that_is_called_safetensors(write: Any, tiny_model: Path, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    manifest = source(tmp_path, tiny_model, lambda folder: write(Trap(trap), folder / "model.safetensors"))
    refused(import_model, manifest, tmp_path / "made", "'model.safetensors' is a pickle under another name")
    assert not trap.exists()


def test_no_length_of_a_header_is_taken_for_a_pickle(tmp_path: Path) -> None:
    """The first bytes of a safetensors file are the length of its header: 0x280 begins as a pickle does."""
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")].rstrip().ljust(0x280)
    (tmp_path / "a.safetensors").write_bytes((0x280).to_bytes(8, "little") + header + content[-4:])
    assert (tmp_path / "a.safetensors").read_bytes()[:2] == b"\x80\x02"
    assert hub.check_safetensors(tmp_path / "a.safetensors") == 1


# --- the border from outside: code --------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [import_model, import_tokenizer])
@pytest.mark.parametrize(
    "name", ["modeling_own.py", "tokenization_own.py", "kernel.so", "deep/er.py", "A.DLL"]
)
def test_code_beside_a_model(stage: Any, name: str, tiny_model: Path, tmp_path: Path) -> None:
    def add(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("raise SystemExit")

    manifest = source(tmp_path, tiny_model, add)
    refused(stage, manifest, tmp_path / "made", repr(Path(name).name), "code")


LIBRARIES = ("kernel.so.1", "kernel.so.1.2.3", "own.pyd", "own.dll", "own.dylib", "own.exe")
SCRIPTS = (
    "own.pyc",
    "own.pyo",
    "own.pyi",
    "own.pyw",
    "own.pyz",
    "run.bat",
    "run.ps1",
    "run.SH",
    "train.ipynb",
)


@pytest.mark.parametrize("name", [*LIBRARIES, *SCRIPTS])
def test_code_goes_by_many_names(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ArtifactError, match="is code of the model's repository"):
        check_model(tmp_path)


@pytest.mark.parametrize(
    "name", ["README.md", "solo.json", "vocab.so.txt", "a.python", "spy", "LICENSE.shared"]
)
def test_what_only_looks_like_code_may_stay(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    check_model(tmp_path)


@pytest.mark.parametrize("stage", [import_model, import_tokenizer])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_that_names_code_of_its_own(stage: Any, name: str, tiny_model: Path, tmp_path: Path) -> None:
    """...although transformers has a class of that name and would read it without a word."""

    def declare(folder: Path) -> None:
        declared = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(declared | {"auto_map": {"AutoTokenizer": ["own.Own", None]}}))

    manifest = source(tmp_path, tiny_model, declare)
    refused(stage, manifest, tmp_path / "made", name, "key auto_map", "never run")


# --- the border from outside: damaged, exchanged and lying files --------------------------------------------------


def test_one_byte_in_any_file_of_a_source(sharded: Path, tmp_path: Path) -> None:
    """In every file, at its beginning, middle and end, the same refusal before anything is read."""
    manifest = source(tmp_path, sharded)
    names = load(manifest).manifest["files"]
    assert set(shards(sharded)) < set(names)
    for name in names:
        path = manifest.parent / name
        whole = path.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(flipped(whole, place))
            refused(import_model, manifest, tmp_path / "made", repr(name), "altered", str(manifest.parent))
        path.write_bytes(whole)
    verify(manifest)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_shard_of_another_model_of_the_same_shapes(
    sharded: Path, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    load_causal(make_model(1), on="cpu").save_pretrained(other, max_shard_size="10KB")
    name = shards(sharded)[0]
    manifest = source(tmp_path, sharded)
    assert (other / name).stat().st_size == (manifest.parent / name).stat().st_size
    shutil.copy(other / name, manifest.parent / name)
    refused(import_model, manifest, tmp_path / "made", repr(name), "altered")


def index(folder: Path, change: Callable[[dict[str, str], list[str]], object]) -> None:
    """Publish a changed index: the source then is as it was fetched, but lies."""
    path = folder / "model.safetensors.index.json"
    content = json.loads(path.read_text())
    change(content["weight_map"], shards(folder))
    path.write_text(json.dumps(content))


def first_of(weights: dict[str, str], name: str) -> str:
    return next(key for key, shard in sorted(weights.items()) if shard == name)


LIES: dict[str, tuple[Callable[[dict[str, str], list[str]], object], str]] = {
    "another shard": (lambda w, s: w.update({first_of(w, s[0]): s[1]}), "the index puts"),
    "a weight that is nowhere": (lambda w, s: w.update({"model.none.weight": s[0]}), "none of the files"),
    "a folder above": (
        lambda w, s: w.update({first_of(w, s[0]): f"../source/{s[0]}"}),
        "no safetensors file beside",
    ),
    "an absolute path": (
        lambda w, s: w.update({first_of(w, s[0]): "/etc/passwd"}),
        "no safetensors file beside",
    ),
    "a pickle": (
        lambda w, s: w.update({first_of(w, s[0]): "pytorch_model.bin"}),
        "no safetensors file beside",
    ),
    "a number": (lambda w, s: w.update({first_of(w, s[0]): 3}), "no safetensors file beside"),  # type: ignore[dict-item]
    "a shard that is not there": (
        lambda w, s: w.update({first_of(w, s[0]): "model-9.safetensors"}),
        "is not there",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies(lie: str, sharded: Path, tmp_path: Path) -> None:
    change, said = LIES[lie]
    manifest = source(tmp_path, sharded, lambda folder: index(folder, change))
    refused(import_model, manifest, tmp_path / "made", said, "model.safetensors.index.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "no JSON object but a list"),
        ("{}", "not an index of weights"),
        ('{"weight_map": 3}', "not an index of weights"),
        ('{"weight_map": ["a"]}', "not an index of weights"),
        ("nonsense", "not valid JSON"),
    ],
)
def test_what_is_no_index(text: str, said: str, sharded: Path, tmp_path: Path) -> None:
    manifest = source(
        tmp_path, sharded, lambda folder: (folder / "model.safetensors.index.json").write_text(text)
    )
    with pytest.raises(ArtifactError, match=said):
        import_model.main(["--source", str(manifest), "--output", str(tmp_path / "made" / "manifest.json")])


def test_a_weight_in_two_shards(sharded: Path, tmp_path: Path) -> None:
    def repeat(folder: Path) -> None:
        second, first = (folder / name for name in shards(folder)[:2])
        weights = load_file(first)
        name = sorted(weights)[0]
        save_file(load_file(second) | {name: weights[name] + 1}, second, metadata={"format": "pt"})

    first, second = shards(sharded)[:2]
    refused(import_model, source(tmp_path, sharded, repeat), tmp_path / "made", repr(first), repr(second))


def test_sound_shards_are_taken(sharded: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "manifest.json"
    import_model.main(["--source", str(source(tmp_path, sharded)), "--output", str(output)])
    assert set(shards(sharded)) < set(load(output).manifest["files"])


@pytest.mark.parametrize(
    "text", ["[]", "3", '"text"', "{", '{"model_type": 3}', '{"model_type": "none"}', "{}"]
)
def test_settings_of_a_model_that_are_none(text: str, tiny_model: Path, tmp_path: Path) -> None:
    manifest = source(tmp_path, tiny_model, lambda folder: (folder / "config.json").write_text(text))
    with pytest.raises(ArtifactError, match=r"config\.json"):
        import_model.main(["--source", str(manifest), "--output", str(tmp_path / "made" / "manifest.json")])


# --- the border from outside: the tokenizer -----------------------------------------------------------------------


def test_a_tokenizer_of_another_vocabulary(tiny_model: Path, tmp_path: Path) -> None:
    """Of the same specials, but with more tokens than the model has embeddings for."""
    texts = [f"{word} {word * 2}" for word in map(str, range(2000))]

    def exchange(folder: Path) -> None:
        Encoding(train_bpe(texts, 500), bos_id=2, eos_id=2, pad_id=1, positions=256).save(folder)  # type: ignore[arg-type]

    manifest = source(tmp_path, tiny_model, exchange)
    refused(
        import_model, manifest, tmp_path / "made", "has 500 tokens", "config.json", "belongs to the model"
    )


@pytest.mark.parametrize("ends", [7, [7, 9]])
def test_a_tokenizer_in_which_the_model_s_end_is_a_word(ends: Any, tiny_model: Path, tmp_path: Path) -> None:
    """It fits in size; but where the model ends its texts this tokenizer reads an ordinary token."""

    def declare(folder: Path) -> None:
        declared = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(declared | {"eos_token_id": ends}))

    manifest = source(tmp_path, tiny_model, declare)
    refused(import_model, manifest, tmp_path / "made", "ends a text with id 7", "eos_token_id", "belongs to")


@pytest.mark.parametrize("ends", [None, 2, 0, [0, 7], [2, 99]])
def test_ends_that_a_sound_repository_may_declare(ends: Any, tiny_model: Path, tmp_path: Path) -> None:
    """None, the tokenizer's, or another of its special tokens (chat models end a turn and a text differently)."""

    def declare(folder: Path) -> None:
        declared = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(declared | {"eos_token_id": ends}))

    output = tmp_path / "made" / "manifest.json"
    import_model.main(["--source", str(source(tmp_path, tiny_model, declare)), "--output", str(output)])
    assert load(output).facts["architecture"] == "OPTForCausalLM"


def test_a_tokenizer_of_the_same_size_and_specials(tiny_model: Path, tmp_path: Path) -> None:
    """Nothing in the folder tells it apart. Its digest is another: a declared SHA-256 or the manifest notices."""
    settings = json.loads((tiny_model / "tokenizer.json").read_text())
    vocabulary = settings["model"]["vocab"]
    one, two = list(vocabulary)[20:22]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    digest = load(tiny_model / "manifest.json").manifest["files"]["tokenizer.json"]["sha256"]
    text = json.dumps(settings)
    assert hashlib.sha256(text.encode()).hexdigest() != digest

    def exchange(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(text)

    made = tmp_path / "made" / "manifest.json"
    import_model.main(["--source", str(source(tmp_path, tiny_model, exchange)), "--output", str(made)])
    assert load(made).facts["tokenizer_digest"] != Encoding.load(tiny_model).digest
    exchanged = source(tmp_path / "later", tiny_model)
    exchange(exchanged.parent)
    refused(import_model, exchanged, tmp_path / "again", "'tokenizer.json'", "altered")


# --- links that lead out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_link_that_leads_out_of_a_source(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """...with the right content at its end, today."""
    manifest = source(tmp_path, tiny_model)
    (manifest.parent / name).unlink()
    (manifest.parent / name).symlink_to(tiny_model / name)
    refused(import_model, manifest, tmp_path / "made", repr(name), "a link that leads out")


@pytest.mark.parametrize("stage", [import_model, import_tokenizer])
def test_a_link_that_was_there_when_the_source_was_made(stage: Any, tiny_model: Path, tmp_path: Path) -> None:
    manifest = source(tmp_path, tiny_model, lambda folder: (folder / "vocab.txt").symlink_to("/etc/hostname"))
    refused(stage, manifest, tmp_path / "made", "'vocab.txt'", "a link that leads out")


def test_links_that_lead_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").symlink_to("merges.txt")
    (tmp_path / "merges.txt").symlink_to("vocab.txt")
    with pytest.raises(ArtifactError, match="'merges.txt' is a link that leads out"):
        check_model(tmp_path)


def test_a_folder_that_is_linked_in(tiny_model: Path, tmp_path: Path) -> None:
    manifest = source(tmp_path, tiny_model)
    (manifest.parent / "more").symlink_to(tmp_path, target_is_directory=True)
    refused(import_model, manifest, tmp_path / "made", "'more'", "does not belong")


def test_an_artifact_behind_a_link_is_no_offence(tiny_model: Path, tmp_path: Path) -> None:
    """A results folder on another disk: the link leads to the artifact, not out of it."""
    (tmp_path / "models").symlink_to(tiny_model)
    assert verify(tmp_path / "models" / "manifest.json").digest == load(tiny_model / "manifest.json").digest


# --- between stages -----------------------------------------------------------------------------------------------


@pytest.fixture
def own_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may alter."""
    return shutil.copytree(tiny_model, tmp_path / "model") / "manifest.json"


TRAINING = ("--part", "unlabelled", "--learning-rate", "1e-3", "--batch-size", "2", "--seed", "1")
DAMAGES: dict[str, tuple[Folder, str]] = {
    "a byte of the weights": (
        lambda f: (f / "model.safetensors").write_bytes(
            flipped((f / "model.safetensors").read_bytes(), (f / "model.safetensors").stat().st_size - 1)
        ),
        "'model.safetensors' was altered",
    ),
    "a byte of the tokenizer": (
        lambda f: (f / "encoding.json").write_bytes(
            (f / "encoding.json").read_bytes().replace(b"256", b"356")
        ),
        "'encoding.json' was altered",
    ),
    "a pickle beside them": (
        lambda f: (f / "extra.pkl").write_bytes(b"\x80\x04."),
        "'extra.pkl' does not belong",
    ),
    "code beside them": (lambda f: (f / "own.py").write_text("raise SystemExit"), "'own.py' does not belong"),
    "weights that are gone": (lambda f: (f / "model.safetensors").unlink(), "'model.safetensors' is listed"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("stage", ["training", "scoring"])
def test_a_model_that_was_altered_between_two_stages(
    stage: str,
    damage: str,
    own_model: Path,
    make_examples: Callable[..., tuple[Path, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stage that would use it ends before it loads anything."""
    change, said = DAMAGES[damage]
    change(own_model.parent)
    for name in ("load_causal", "_load"):
        monkeypatch.setattr(f"w2s.models.{name}", lambda *_, **__: pytest.fail("the model was loaded"))
    monkeypatch.setattr("w2s.trainable.policy", lambda *_: pytest.fail("the model was loaded"))
    examples, split = make_examples()
    inputs = [
        "--model",
        own_model,
        "--examples",
        examples,
        "--split",
        split,
        "--output",
        tmp_path / "out" / "manifest.json",
    ]
    with pytest.raises(ArtifactError, match=said):
        if stage == "scoring":
            score_responses.main([*map(str, inputs), "--part", "unlabelled", "--device", "cpu"])
        else:
            human = pd.read_parquet(examples.parent / "human.parquet")
            human = human[human["id"].isin(read_part(examples, split, "unlabelled")["id"])]
            labels = as_artifact(tmp_path / "labels", lambda folder: write_label_file(folder, human))
            train_student_sft.main([*map(str, inputs), "--labels", str(labels), *TRAINING])
    assert not (tmp_path / "out").exists()


def test_the_times_of_a_file_are_not_trusted(own_model: Path) -> None:
    """Size and time of the altered file are those of the good one."""
    path = own_model.parent / "model.safetensors"
    status = path.stat()
    path.write_bytes(flipped(path.read_bytes(), status.st_size - 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with (
        pytest.raises(ArtifactError, match="altered"),
        Artifact.create(
            own_model.parents[1] / "next" / "manifest.json",
            spec={},
            parents={"model": own_model},
            script=__file__,
        ),
    ):
        pytest.fail("the stage began")


def test_a_table_that_was_altered_is_not_read(tmp_path: Path) -> None:
    """Figures are no artifacts and have no parents: the file is hashed when it is asked for."""
    manifest = as_artifact(tmp_path / "tables", lambda folder: (folder / "rewards.csv").write_text("1.0\n"))
    assert load(manifest).path("rewards.csv").read_text() == "1.0\n"
    (manifest.parent / "rewards.csv").write_text("2.0\n")
    with pytest.raises(ArtifactError, match=r"'rewards\.csv' was altered"):
        load(manifest).path("rewards.csv")
