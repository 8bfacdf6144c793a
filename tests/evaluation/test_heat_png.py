"""The heat map as a file: the whole picture, a warning that is seen, and words of our own only."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import pneumolib
from pneumolib.errors import DataError
from pneumolib.evaluation.heat_png import LONGEST, heat_png, is_heat_png
from pneumolib.evaluation.overlay import overlay

PICTURE = np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8)
HEAT = np.array([[0.0, 1.0], [0.0, 0.0]])


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=["PNG"])


def chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += 12 + length


def test_it_holds_the_overlay_and_says_what_it_is() -> None:
    file = opened(heat_png(PICTURE, HEAT, description="heat of a test, größer"))
    np.testing.assert_array_equal(np.asarray(file), overlay(PICTURE, HEAT))
    assert file.info == {"Software": f"pneumolib {pneumolib.__version__}", "Description": "heat of a test, größer"}


def test_words_of_any_script_are_kept() -> None:
    file = opened(heat_png(PICTURE, HEAT, description="тепловая карта", warning="PHANTOM \u2620"))
    assert file.info["Description"] == "тепловая карта"
    assert file.info["Title"] == "PHANTOM \u2620"


def test_it_has_no_other_parts_and_is_the_same_each_time() -> None:
    content = heat_png(PICTURE, HEAT, description="d", warning="PHANTOM")
    assert {kind for kind, _ in chunks(content)} == {b"IHDR", b"tEXt", b"IDAT", b"IEND"}
    assert content == heat_png(PICTURE, HEAT, description="d", warning="PHANTOM")


@pytest.mark.parametrize(
    ("shape", "size"), [((3000, 1500), (512, 1024)), ((1000, 4096), (1024, 250)), ((2, 5000), (1024, 1))]
)
def test_a_large_picture_becomes_smaller_and_keeps_its_aspect_ratio(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    assert max(size) == LONGEST
    assert opened(heat_png(np.zeros(shape, np.uint8), HEAT, description="d")).size == size


def test_the_heat_stays_where_it_is_when_the_picture_becomes_smaller() -> None:
    pixels = np.asarray(opened(heat_png(np.full((2400, 1200), 90, np.uint8), HEAT, description="d"))).astype(int)
    colourful = np.ptp(pixels, axis=2)
    assert colourful[:256, 256:].mean() > 10 * colourful[512:].mean()
    assert (colourful[:256, :128] == 0).all()


@pytest.mark.parametrize("shape", [(300, 400), (1500, 2000), (30, 12)])
def test_a_warning_stands_in_a_band_above_and_hides_nothing(shape: tuple[int, int]) -> None:
    picture = np.resize(PICTURE, shape)
    plain = np.asarray(opened(heat_png(picture, HEAT, description="d")))
    file = opened(heat_png(picture, HEAT, description="d", warning="PHANTOM: only a test"))
    pixels = np.asarray(file)
    assert file.info["Title"] == "PHANTOM: only a test"
    band = pixels.shape[0] - plain.shape[0]
    left = (pixels.shape[1] - plain.shape[1]) // 2
    np.testing.assert_array_equal(pixels[band:, left : left + plain.shape[1]], plain)
    # Dark letters on a bright ground, and an edge of the ground all around them.
    dark = pixels[:band].max(axis=2) < 100
    assert 0.02 < dark.mean() < 0.3
    assert not dark[[0, -1]].any()
    assert not dark[:, [0, -1]].any()


def test_wrong_pictures_and_heat_are_refused_as_by_the_overlay() -> None:
    for picture, heat in [(PICTURE / 255, HEAT), (np.zeros((2000, 20, 3), np.uint8), HEAT), (PICTURE, HEAT * 2)]:
        with pytest.raises(DataError, match="Received"):
            heat_png(picture, heat, description="d")


def test_its_own_files_are_known_again(tmp_path: Path) -> None:
    ours, others, text = tmp_path / "ours.png", tmp_path / "others.png", tmp_path / "text.png"
    ours.write_bytes(heat_png(PICTURE, HEAT, description="d"))
    info = PngInfo()
    info.add_text("Software", "another program")
    Image.fromarray(PICTURE).save(others, pnginfo=info)
    text.write_text("no picture")
    assert is_heat_png(ours)
    assert not any(is_heat_png(path) for path in (others, text, tmp_path / "missing.png", tmp_path))
