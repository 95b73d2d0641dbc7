"""The container images by name: containers/images.yaml, where each is named by what cannot move.

An entry is ``null`` (not built yet), ``sha256:<64 hex>`` (the file ``containers/built/<kind>-<64 hex>.sif``, as
`make images` leaves it) or ``docker://host/name@sha256:<64 hex>`` (pushed by a lab). A tag alone is refused: it moves.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from w2s.artifact import file_digest
from w2s.config import read_yaml
from w2s.errors import ConfigError, EnvironmentProblem

FILE = re.compile(r"sha256:([0-9a-f]{64})")
PULLED = re.compile(r"(docker|oras)://[^\s@]+@(sha256:[0-9a-f]{64})")
NAMES_FILE = Path("containers") / "images.yaml"


@dataclass(frozen=True)
class Image:
    """One image: its kind (ml, light), what images.yaml says of it, and the repository that it belongs to."""

    kind: str
    reference: str | None
    base: Path

    @property
    def digest(self) -> str | None:
        """``sha256:<64 hex>``, or None if it is not built."""
        pulled = PULLED.fullmatch(self.reference or "")
        return pulled[2] if pulled else self.reference

    @property
    def container(self) -> str:
        """What a rule's ``container:`` is given."""
        if self.reference is None or FILE.fullmatch(self.reference):
            return str(self.file)
        return self.reference

    @property
    def file(self) -> Path:
        """Where a built image lies."""
        name = (self.digest or "not-built").removeprefix("sha256:")
        return self.base / "containers" / "built" / f"{self.kind}-{name}.sif"

    @property
    def seen_as(self) -> str:
        """The name of the file that a process in the container runs from (``$APPTAINER_CONTAINER``)."""
        if self.container == str(self.file):
            return self.file.name
        # Snakemake keeps a pulled image under the MD5 of its address.
        return hashlib.md5(self.container.encode(), usedforsecurity=False).hexdigest() + ".simg"


def read_images(base: Path) -> dict[str, Image]:
    """All images, by kind.

    Raises:
        ConfigError: an entry that does not name its image by digest.
    """
    images = {}
    for kind, reference in read_yaml(base / NAMES_FILE).items():
        if reference is not None and not (FILE.fullmatch(str(reference)) or PULLED.fullmatch(str(reference))):
            raise ConfigError(
                f"image {reference!r} is not named by its digest",
                where=f"{NAMES_FILE}: {kind}",
                instead="sha256:<64 hex> as `make images` writes it, docker://host/name@sha256:<64 hex>, or null",
            )
        images[kind] = Image(kind, reference, base)
    return images


def check_image(image: Image) -> None:
    """Refuse an image that is not there, or is not what its name says.

    Raises:
        EnvironmentProblem: it is not built, its file is gone, or the file was altered.
    """
    where = f"{NAMES_FILE}: {image.kind}"
    if image.reference is None:
        raise EnvironmentProblem(
            f"the {image.kind} image is not built",
            where=where,
            instead="`make images`, or the digest of one of yours",
        )
    if image.container != str(image.file):
        return  # the registry and the puller check the digest
    if not image.file.is_file():
        raise EnvironmentProblem(
            f"there is no {image.file.name}",
            where=image.file.parent,
            instead="copy it there, or `make images`, which builds another one and names that",
        )
    if "sha256:" + file_digest(image.file) != image.digest:
        raise EnvironmentProblem(
            "the image was altered: its SHA-256 is not that of its name",
            where=image.file,
            instead="delete it and run `make images`",
        )
