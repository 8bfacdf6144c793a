"""A heat map laid over its picture, as pixels: for answers over a network and for files, without a plotting library."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pneumolib.errors import DataError

# From cool to hot, the middle of Matplotlib's "inferno" (CC0): lightness rises evenly, so that the order can be seen
# with every kind of colour vision and in print, and no colour of it is a gray.
COLOURS = ("#57106e", "#7f1e6c", "#a82e5f", "#cc4248", "#ea632a", "#f98e09", "#fbbe23", "#f1ef75")
OPACITY = 0.6  # of the hottest place: what the detector saw there must still be seen


def overlay(image: NDArray[np.uint8], heat: ArrayLike) -> NDArray[np.uint8]:
    """Return the picture in gray with the heat over it in colour, the more opaque the hotter, uint8 ``[H, W, 3]``.

    Where the heat is 0, the pixels are those of the picture.

    Args:
        image: uint8 ``[H, W]``.
        heat: 0..1, ``[h, w]``; it is stretched over the picture, as the picture was stretched to the detector's square.

    Raises:
        DataError: the image is not uint8 ``[H, W]``, or the heat no map of numbers in 0..1.

    Examples:
        >>> overlay(np.full((2, 2), 100, np.uint8), [[0, 0], [0, 0]])[0, 0]
        array([100, 100, 100], dtype=uint8)
    """
    warm = stretched(heat, image)[..., None]
    gray = image[..., None].astype(np.float32)
    return np.rint(gray + OPACITY * warm * (_coloured(warm[..., 0]) - gray)).astype(np.uint8)


def layer(heat: ArrayLike) -> NDArray[np.uint8]:
    """Return the heat alone in colour, to be laid over a picture elsewhere, uint8 ``[h, w, 4]``: RGB and opacity.

    Laid over the picture it gives what `overlay` gives. Raises as `overlay` does.

    Examples:
        >>> layer([[0.0, 1.0]])[0, :, 3]
        array([  0, 153], dtype=uint8)
    """
    warm = stretched(heat, np.zeros(np.shape(heat) or (1, 1), np.uint8))
    return np.rint(np.dstack([_coloured(warm), 255 * OPACITY * warm])).astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file of gray ``[H, W]``, RGB ``[H, W, 3]`` or RGBA ``[H, W, 4]``, all uint8, without metadata.

    Raises:
        DataError: the array is none of these.
    """
    from PIL import Image

    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise DataError(
            f"A PNG is made of uint8 [H, W], [H, W, 3] or [H, W, 4]. Received: {pixels.dtype} {list(pixels.shape)}"
        )
    file = io.BytesIO()
    # The fastest level: an answer waits for it, and a gray picture gains little from more.
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


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


def _coloured(warm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return red, green and blue, 0..255, of each place."""
    anchors = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS], np.float32)
    places = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(warm, places, anchors[:, c]) for c in range(3)], axis=-1).astype(np.float32)
