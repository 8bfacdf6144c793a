"""A heat map as a PNG file that may be passed on: the picture with the heat over it, and what it is, nothing else.

Of the file that the picture came from, the PNG holds the gray values only: no header, no name, no date. What is burnt
into the gray values is still there.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

import pneumolib
from pneumolib.evaluation.overlay import overlay, png

LONGEST = 1024  # pixels of the longer side; the heat itself has a few places a side
_SOFTWARE = "pneumolib "  # begins the text by which a heat map is known again
_BAND, _LETTERS = (250, 190, 35), (20, 20, 20)


def heat_png(picture: NDArray[np.uint8], heat: ArrayLike, *, description: str, warning: str = "") -> bytes:
    """Return the whole picture with the heat over it, as the bytes of a PNG file.

    The picture keeps its aspect ratio, and is made smaller where its longer side exceeds `LONGEST` pixels.

    Args:
        picture: uint8 ``[H, W]``.
        heat: 0..1, ``[h, w]``, of the picture; it is stretched over it.
        description: goes into the file's text, for programs that show it.
        warning: stands in a band above the picture, and is the file's title; empty for none.

    Raises:
        DataError: as `overlay`.

    Examples:
        >>> import io
        >>> file = heat_png(np.zeros((30, 40), np.uint8), [[0, 1]], description="a test")
        >>> Image.open(io.BytesIO(file)).size
        (40, 30)
    """
    pixels = overlay(_smaller(picture), heat)
    text = {"Software": _SOFTWARE + pneumolib.__version__, "Description": description}
    if warning:
        pixels = _with_band(pixels, warning)
        text["Title"] = warning
    return png(pixels, text)


def is_heat_png(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is one that `heat_png` made, and may so be made anew."""
    try:
        with Image.open(path, formats=["PNG"]) as file:
            return str(file.info.get("Software", "")).startswith(_SOFTWARE)
    except Exception:  # what Pillow does not open, for whatever reason, was not made here
        return False


def _smaller(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    longer = max(np.shape(picture), default=0)
    if longer <= LONGEST or picture.ndim != 2 or picture.dtype != np.uint8:
        return picture
    height, width = (max(1, round(side * LONGEST / longer)) for side in picture.shape)
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def _with_band(pixels: NDArray[np.uint8], words: str) -> NDArray[np.uint8]:
    """Return the picture below a band with `words`, which no picture is too narrow for."""
    picture = Image.fromarray(pixels)
    size = min(max(picture.width // 36, 12), 28)
    font = ImageFont.load_default(size)
    band = 2 * size
    wide = max(picture.width, round(font.getlength(words)) + size)
    whole = Image.new("RGB", (wide, picture.height + band))
    whole.paste(picture, ((wide - picture.width) // 2, band))
    draw = ImageDraw.Draw(whole)
    draw.rectangle((0, 0, wide, band - 1), fill=_BAND)
    draw.text((wide / 2, band / 2), words, fill=_LETTERS, font=font, anchor="mm")
    return np.asarray(whole)
