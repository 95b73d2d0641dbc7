"""The figures' style: told apart without colour, the same bytes each time, nothing half-written."""

from __future__ import annotations

import colorsys
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from w2s import plotting
from w2s.results import POLICIES

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
DRAW = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from w2s import plotting
folder = Path(sys.argv[2])
with plotting.style():
    figure = plotting.new_figure(2.0)
    axes = figure.subplots()
    axes.bar([0, 1], [1.0, 2.0], hatch="//", label="bars − of two")
    axes.legend()
    plotting.add_note(figure, "A note.")
    names = {"pdf": folder / "x.pdf", "png": folder / "x.png"}
    plotting.save(figure, **names, title="Title", description="Title. Text − here.")
"""


def luminance(colour: str) -> float:
    red, green, blue = to_rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The same small figure, drawn by two processes with different hash seeds."""
    folders = []
    for seed in ("1", "2"):
        folder = tmp_path_factory.mktemp("drawn")
        command = [sys.executable, "-c", DRAW, str(SCRIPTS), str(folder)]
        subprocess.run(command, check=True, env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"})
        folders.append(folder)
    return folders


@pytest.mark.parametrize("name", ["x.pdf", "x.png"])
def test_the_same_figure_has_the_same_bytes(drawn, name):
    assert (drawn[0] / name).read_bytes() == (drawn[1] / name).read_bytes()


def test_pdf_embeds_its_fonts_and_says_no_time(drawn):
    pdf = (drawn[0] / "x.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    assert b"atplotlib" not in pdf


def test_png_has_200_dpi_and_carries_its_caption(drawn):
    with Image.open(drawn[0] / "x.png") as image:
        assert image.size == (1440, 400)
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        assert image.info["Title"] == "Title"
        assert image.info["Description"] == "Title. Text − here."
        assert "Software" not in image.info


def test_every_policy_has_a_look_of_its_own():
    assert set(plotting.LOOKS) == set(POLICIES)
    looks = list(plotting.LOOKS.values())
    for part in ("colour", "hatch", "marker"):
        assert len({getattr(look, part) for look in looks}) == len(looks), part


@pytest.mark.parametrize(
    "together",
    [
        ("human", "weak", "gold"),
        ("human", "weak", "prompted"),
        ("human", "weak", "reward"),
        ("human", "weak", "match", "mismatch"),
        ("human", "weak", "random", "kept", "flipped"),
        ("human", "weak", "confident", "ensemble", "everything"),
    ],
)
def test_sources_of_one_figure_differ_in_grey(together):
    greys = sorted(luminance(plotting.LOOKS[policy].colour) for policy in together)
    assert all(upper - lower > 0.04 for lower, upper in zip(greys, greys[1:], strict=False))


def test_the_three_main_sources_differ_in_hue():
    hues = [
        colorsys.rgb_to_hsv(*to_rgb(plotting.LOOKS[policy].colour))[0] for policy in ("human", "weak", "gold")
    ]
    assert len({round(hue, 1) for hue in hues}) == 3


def test_each_source_has_a_look_of_its_own():
    arms = ["untuned", "human-sft", "human", "weak-a", "weak-a-sft", "weak-b", "gold", "random", "match"]
    looks = plotting.looks(arms)
    assert set(looks) == {"human", "weak-a", "weak-b", "gold", "random", "match"}
    assert looks["weak-a"] == plotting.LOOKS["weak"]
    assert len(set(looks.values())) == len(looks)


def test_a_failed_write_leaves_nothing(tmp_path):
    with plotting.style():
        figure = plotting.new_figure(2.0)
        figure.savefig = lambda *_, **__: (_ for _ in ()).throw(OSError("no space left on device"))  # type: ignore[method-assign]
        with pytest.raises(OSError, match="no space"):
            plotting.save_all(
                figure,
                pd.DataFrame({"x": [1]}),
                pdf=tmp_path / "x.pdf",
                png=tmp_path / "x.png",
                csv=tmp_path / "x.csv",
                title="t",
                description="d",
            )
    assert list(tmp_path.iterdir()) == []


def test_style_does_not_leak():
    import matplotlib as mpl

    before = mpl.rcParams["pdf.fonttype"], mpl.rcParams["font.size"]
    with plotting.style():
        assert mpl.rcParams["pdf.fonttype"] == 42
    assert (mpl.rcParams["pdf.fonttype"], mpl.rcParams["font.size"]) == before
