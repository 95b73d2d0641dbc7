"""Images are named by digest, are what their name says, and what ran in one says so."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from w2s.artifact import container_digest
from w2s.errors import ConfigError, EnvironmentProblem
from w2s.images import Image, check_image, read_images

DIGEST = "0123456789abcdef" * 4


def named(base: Path, text: str) -> dict[str, Image]:
    (base / "containers").mkdir(exist_ok=True)
    (base / "containers" / "images.yaml").write_text(text)
    return read_images(base)


def built(base: Path, content: bytes = b"an image") -> Image:
    digest = hashlib.sha256(content).hexdigest()
    image = named(base, f"ml: sha256:{digest}\n")["ml"]
    image.file.parent.mkdir()
    image.file.write_bytes(content)
    return image


@pytest.mark.parametrize(
    "reference", ["containers/ml.sif", "docker://lab/w2s:latest", "latest", "sha256:12", "7"]
)
def test_a_name_that_can_move_is_refused(tmp_path: Path, reference: str) -> None:
    with pytest.raises(ConfigError, match="not named by its digest") as refusal:
        named(tmp_path, f"ml: {reference}\n")
    assert "images.yaml: ml" in str(refusal.value)


def test_a_built_image_is_the_file_of_its_digest(tmp_path: Path) -> None:
    image = built(tmp_path)
    check_image(image)
    assert image.container == str(image.file)
    assert image.digest is not None
    assert image.file.name == f"ml-{image.digest.removeprefix('sha256:')}.sif"


def test_an_image_that_was_altered_is_refused(tmp_path: Path) -> None:
    image = built(tmp_path)
    image.file.write_bytes(b"another image")
    with pytest.raises(EnvironmentProblem, match="altered"):
        check_image(image)
    image.file.unlink()
    with pytest.raises(EnvironmentProblem, match="there is no ml-"):
        check_image(image)


def test_an_image_that_is_not_built_stops_a_run_not_a_plan(tmp_path: Path) -> None:
    image = named(tmp_path, "ml: null\n")["ml"]
    assert image.container.endswith("ml-not-built.sif")
    with pytest.raises(EnvironmentProblem, match="`make images`"):
        check_image(image)


def test_a_pushed_image_is_taken_by_its_digest(tmp_path: Path) -> None:
    image = named(tmp_path, f"ml: docker://lab.example/w2s@sha256:{DIGEST}\n")["ml"]
    check_image(image)
    assert (image.digest, image.container) == (
        f"sha256:{DIGEST}",
        f"docker://lab.example/w2s@sha256:{DIGEST}",
    )


def test_snakemake_keeps_a_pulled_image_under_the_name_that_we_expect(tmp_path: Path) -> None:
    singularity = pytest.importorskip("snakemake.deployment.singularity")
    image = named(tmp_path, f"ml: docker://lab.example/w2s@sha256:{DIGEST}\n")["ml"]
    theirs = object.__new__(singularity.Image)
    theirs.url = image.container
    assert image.seen_as == f"{theirs.hash}.simg"


def test_an_artifact_records_the_digest_of_the_image_that_it_was_made_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = built(tmp_path)
    monkeypatch.delenv("APPTAINER_CONTAINER", raising=False)
    assert container_digest() is None
    monkeypatch.setenv("W2S_IMAGES", f"{image.seen_as}={image.digest} other.sif=sha256:{DIGEST}")
    assert container_digest() is None, "named images are not the one that runs"
    monkeypatch.setenv("APPTAINER_CONTAINER", str(image.file))
    assert container_digest() == image.digest
    monkeypatch.setenv("APPTAINER_CONTAINER", "/somewhere/mine.sif")
    assert container_digest() == "mine.sif (digest unknown)"
