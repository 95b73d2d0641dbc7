"""What a model's folder from outside must not hold: code, pickles beside what is read, links that lead out.

Nothing of these would be run or read by what follows. They are refused all the same, and named: who fetched them meant
something else, and the next reader of the folder may be another program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from w2s.artifact import leads_out
from w2s.errors import ArtifactError
from w2s.strict_json import read_object

# Also compiled, for other systems, and libraries under the number of their version.
CODE = re.compile(r"\.(py[cdwzio]?|so(\.\d+)*|dll|dylib|exe|sh|bat|ps1|ipynb)$", re.IGNORECASE)
# What torch, numpy, joblib and Python itself write pickles as; "bin" holds a trainer's arguments as well as weights.
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".dill", ".joblib", ".npy", ".npz")
# Weights that are converted, by a reader that takes tensors only (w2s.hub.convert).
CONVERTED = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
SAFETENSORS = ".safetensors"
# Settings in which a repository names code of its own.
DECLARATIONS = ("config.json", "tokenizer_config.json", "processor_config.json")
AUTO_MAP = "auto_map"


def check_model(folder: Path) -> None:
    """Refuse a model's folder with code, with links that lead out, or with pickles that are not its only weights.

    Raises:
        ArtifactError: naming the file and what to do.
    """
    check_tokenizer(folder)
    names = [path.name for path in _entries(folder)]
    safe = any(name.endswith(SAFETENSORS) for name in names)
    for name in names:
        if not name.lower().endswith(PICKLED) or (CONVERTED.fullmatch(name) and not safe):
            continue
        raise ArtifactError(
            f"{name!r} is a pickle, which can run code when it is read"
            + (", beside weights that need none" if safe else ""),
            where=folder,
            instead="declare the files of the source one by one, or by a pattern that leaves it out",
        )


def check_tokenizer(folder: Path) -> None:
    """Refuse a tokenizer's folder with code or with links that lead out; its other files are not looked at.

    Raises:
        ArtifactError: naming the file, or the setting, and what to do.
    """
    for path in _entries(folder):
        if path.is_symlink() and leads_out(path, folder):
            raise ArtifactError(
                f"{path.name!r} is a link that leads out of the folder",
                where=folder,
                instead="the file itself, fetched like the others",
            )
        if CODE.search(path.name):
            raise ArtifactError(
                f"{path.name!r} is code of the model's repository, which is never run here",
                where=folder,
                instead="a model that is part of transformers, fetched without that file",
            )
    for name in DECLARATIONS:
        check_declaration(folder / name)


def check_declaration(path: Path) -> None:
    """Refuse a settings file that names code of the repository to be run; one that is not there is none.

    Raises:
        ArtifactError: it does, or it is no JSON object.
    """
    if not path.is_file():
        return
    if read_object(path).get(AUTO_MAP):
        raise ArtifactError(
            "the model wants code from its own repository, which is never run here",
            where=f"{path}, key {AUTO_MAP}",
            instead="a model and a tokenizer that are part of transformers",
        )


def is_pickle(path: Path) -> bool:
    """Whether a file that is called safetensors begins as a pickle, or as the archive that torch puts one into."""
    with path.open("rb") as stream:
        head = stream.read(9)
    return head[8:9] != b"{" and head.startswith(
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
    )


def _entries(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
