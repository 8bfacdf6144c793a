"""The overlay as pixels: cold places are the picture, hot ones are coloured, and the size is the picture's."""

from __future__ import annotations

import colorsys
import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pneumolib.errors import DataError
from pneumolib.evaluation.overlay import COLOURS, OPACITY, layer, overlay, png, stretched

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)


def test_cold_places_stay_gray_and_hot_ones_are_coloured() -> None:
    heat = np.zeros((40, 60))
    heat[10:20, 30:50] = 1
    pixels = overlay(IMAGE, heat)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (40, 60, 3)
    cold = heat == 0
    np.testing.assert_array_equal(pixels[cold], np.repeat(IMAGE[cold][:, None], 3, axis=1))
    spread = np.ptp(pixels[~cold].astype(int), axis=1)
    assert spread.min() > 40


def test_the_picture_is_still_seen_under_the_hottest_place() -> None:
    dark, bright = (overlay(np.full((8, 8), gray, np.uint8), np.ones((8, 8)))[0, 0].astype(int) for gray in (0, 255))
    assert (bright - dark).min() > 80


def test_hotter_is_more_opaque_and_lighter() -> None:
    heat = np.linspace(0, 1, 11)[None]
    pixels = overlay(np.full((1, 11), 60, np.uint8), heat)[0].astype(float) / 255
    colourful = [colorsys.rgb_to_hsv(*pixel)[1] for pixel in pixels]
    assert all(np.diff(colourful[:6]) > 0)
    lightness = pixels @ [0.2126, 0.7152, 0.0722]
    assert all(np.diff(lightness[3:]) > 0)


def test_every_pair_of_heat_and_gray_is_mixed_to_the_nearest_gray_value() -> None:
    heat = np.random.default_rng(1).random(IMAGE.shape)
    mixed = overlay(IMAGE, heat).astype(float)
    full = overlay(IMAGE, np.ones(IMAGE.shape)).astype(float)
    colour = (full - (1 - OPACITY) * IMAGE[..., None]) / OPACITY  # of the hottest place, whatever lies below
    assert np.ptp(colour, axis=(0, 1)).max() < 2
    colours = np.array([[int(text[i : i + 2], 16) for i in (1, 3, 5)] for text in COLOURS], float)
    wanted = np.stack([np.interp(heat, np.linspace(0, 1, len(colours)), colours[:, c]) for c in range(3)], axis=-1)
    share = OPACITY * heat[..., None]
    assert np.abs(mixed - ((1 - share) * IMAGE[..., None] + share * wanted)).max() <= 1.5


def test_a_layer_laid_over_the_picture_is_the_overlay() -> None:
    heat = np.random.default_rng(2).random(IMAGE.shape)
    over = Image.fromarray(layer(heat))
    under = Image.fromarray(IMAGE).convert("RGBA")
    laid = np.asarray(Image.alpha_composite(under, over).convert("RGB")).astype(int)
    assert np.abs(laid - overlay(IMAGE, heat)).max() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 9), (40, 60), (5, 4, 3), (33, 17, 4)])
def test_a_png_gives_back_its_pixels_and_holds_nothing_else(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    for given in (pixels, pixels[::-1], np.ascontiguousarray(pixels)):
        with Image.open(io.BytesIO(png(given))) as file:
            assert file.info == {}
            np.testing.assert_array_equal(np.asarray(file), given)


@pytest.mark.parametrize("pixels", [np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)])
def test_what_is_no_picture_makes_no_png(pixels: Any) -> None:
    with pytest.raises(DataError, match=r"uint8 \[H, W\].*Received"):
        png(pixels)


def test_a_small_map_is_stretched_over_the_picture() -> None:
    warm = stretched([[0, 1], [0, 1]], IMAGE)
    assert warm.shape == (40, 60)
    assert (warm[:, :14] == 0).all()
    assert (warm[:, -14:] == 1).all()
    assert (np.diff(warm[5]) >= 0).all()


@pytest.mark.parametrize(
    ("image", "heat", "message"),
    [
        (IMAGE / 255, np.zeros((40, 60)), r"uint8 \[H, W\]. Received: float64"),
        (IMAGE[None], np.zeros((40, 60)), r"Received: uint8 \[1, 40, 60\]"),
        ("x", np.zeros((40, 60)), "Received: str"),
        (IMAGE, np.full((40, 60), 1.5), r"0\.\.1.*1\.5 to 1\.5"),
        (IMAGE, np.full((40, 60), np.nan), r"0\.\.1.*nan"),
        (IMAGE, np.zeros(40), r"shape \[40\]"),
        (IMAGE, np.zeros((0, 4)), r"shape \[0, 4\]"),
    ],
)
def test_what_is_no_picture_or_no_heat_is_refused(image: Any, heat: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        overlay(image, heat)


def test_it_needs_no_plotting_library() -> None:
    code = (
        "import sys, numpy as np\n"
        "from pneumolib.evaluation.overlay import overlay\n"
        "overlay(np.zeros((4, 4), np.uint8), np.zeros((2, 2)))\n"
        "print([name for name in ('matplotlib', 'seaborn', 'pandas', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
