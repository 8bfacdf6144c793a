"""A heat map laid over its picture, as pixels: for answers over a network and for files, without a plotting library."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pneumolib.errors import DataError

# From cool to hot, the middle of Matplotlib's "inferno" (CC0): lightness rises evenly, so that the order can be seen
# with every kind of colour vision and in print, and no colour of it is a gray.
COLOURS = ("#57106e", "#7f1e6c", "#a82e5f", "#cc4248", "#ea632a", "#f98e09", "#fbbe23", "#f1ef75")
OPACITY = 0.6  # of the hottest place: what the detector saw there must still be seen
_UP = 2  # how PNG calls a row that is the difference to the one above


def overlay(image: NDArray[np.uint8], heat: ArrayLike) -> NDArray[np.uint8]:
    """Return the picture in gray with the heat over it in colour, the more opaque the hotter, uint8 ``[H, W, 3]``.

    Where the heat is 0, the pixels are those of the picture.

    Args:
        image: uint8 ``[H, W]``.
        heat: 0..1, ``[h, w]``; it is stretched over the picture. Where that has black bars, which the detector does not
            look at, give what `Explanation.on` makes of the heat.

    Raises:
        DataError: the image is not uint8 ``[H, W]``, or the heat no map of numbers in 0..1.

    Examples:
        >>> overlay(np.full((2, 2), 100, np.uint8), [[0, 0], [0, 0]])[0, 0]
        array([100, 100, 100], dtype=uint8)
    """
    import cv2

    place = _levels(stretched(heat, image)).astype(np.uint16) << 8 | image
    padded = np.take(_mixed(), place).view(np.uint8).reshape(*image.shape, 4)
    return np.asarray(cv2.cvtColor(padded, cv2.COLOR_BGRA2BGR))


def layer(heat: ArrayLike) -> NDArray[np.uint8]:
    """Return the heat alone in colour, to be laid over a picture elsewhere, uint8 ``[h, w, 4]``: RGB and opacity.

    Laid over the picture it gives what `overlay` gives. Raises as `overlay` does.

    Examples:
        >>> layer([[0.0, 1.0]])[0, :, 3]
        array([  0, 153], dtype=uint8)
    """
    return _layered()[_levels(stretched(heat, np.zeros(np.shape(heat) or (1, 1), np.uint8)))]


def png(pixels: NDArray[np.uint8], text: Mapping[str, str] | None = None) -> bytes:
    """Return a PNG file of gray ``[H, W]``, RGB ``[H, W, 3]`` or RGBA ``[H, W, 4]``, all uint8.

    Args:
        pixels: the picture.
        text: the file's only metadata, by keywords of the PNG standard such as ``Title``; None for none at all.

    Raises:
        DataError: the array is none of these, or has no pixels.
    """
    shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not shaped or not pixels.size:
        raise DataError(
            f"A PNG is made of uint8 [H, W], [H, W, 3] or [H, W, 4]. Received: {pixels.dtype} {list(pixels.shape)}"
        )
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    # An answer waits for it. Each row is written as its difference to the one above, and compressed at the lowest
    # level: half of the time that Pillow and OpenCV take, which try five filters on each row, for 3 % more bytes.
    filtered = np.full((height, rows.shape[1] + 1), _UP, np.uint8)
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    kind = {1: 0, 3: 2, 4: 6}[rows.shape[1] // width]
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    words = [_text(keyword, value) for keyword, value in (text or {}).items()]
    chunks = ((b"IHDR", header), *words, (b"IDAT", zlib.compress(filtered.data, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _text(keyword: str, value: str) -> tuple[bytes, bytes]:
    name = keyword.encode("latin-1")
    try:
        return b"tEXt", name + b"\0" + value.encode("latin-1")
    except UnicodeEncodeError:
        # Not compressed, of no language in particular, the keyword not translated.
        return b"iTXt", name + b"\0\0\0\0\0" + value.encode()


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def stretched(heat: ArrayLike, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the heat at the size of the picture, float32 ``[H, W]`` in 0..1; args and raises as `overlay`."""
    import cv2

    warm = np.asarray(heat, np.float32)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 2 or not image.size:
        what = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"Heat is laid over a gray picture, uint8 [H, W]. Received: {what}")
    if warm.ndim != 2 or not warm.size or not ((warm >= 0) & (warm <= 1)).all():
        held = f", {warm.min():.4g} to {warm.max():.4g}" if warm.size else ""
        raise DataError(f"Heat is a map [h, w] of numbers in 0..1. Received: shape {list(warm.shape)}{held}")
    if warm.shape == image.shape:
        return warm
    return np.asarray(cv2.resize(warm, image.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _levels(warm: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return heat as 0..255, which is as fine as the pixels are."""
    return np.rint(warm * 255).astype(np.uint8)


@functools.cache  # 65,536 colours: to look them up takes a fifteenth of the time of computing them for each pixel
def _mixed() -> NDArray[np.uint32]:
    """Return the colour of each level of heat over each gray value, the heat's first: four bytes in one number."""
    warm = np.linspace(0, 1, 256, dtype=np.float32)[:, None, None]
    gray = np.arange(256, dtype=np.float32)[None, :, None]
    colours = np.rint(gray + OPACITY * warm * (_coloured(warm[..., 0]) - gray)).astype(np.uint8)
    return np.dstack([colours, np.zeros((256, 256, 1), np.uint8)]).view(np.uint32).reshape(-1)


@functools.cache
def _layered() -> NDArray[np.uint8]:
    """Return colour and opacity of each level of heat, ``[256, 4]``."""
    warm = np.linspace(0, 1, 256, dtype=np.float32)
    return np.rint(np.concatenate([_coloured(warm), 255 * OPACITY * warm[:, None]], axis=1)).astype(np.uint8)


def _coloured(warm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return red, green and blue, 0..255, of each place."""
    anchors = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS], np.float32)
    places = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(warm, places, anchors[:, c]) for c in range(3)], axis=-1).astype(np.float32)
