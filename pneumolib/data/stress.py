"""Changes that a picture meets on its way to a frozen detector, one at a time and of known strength.

`splits.perturb` mixes several changes by chance, and asks whether a detector lasts. Here each change stands alone, so
that a table can say which one it is that a detector does not bear (`pneumolib.models.stress`). The changes are those of
the file (JPEG, resolution), of the frame (aspect, borders, markers), of the exposure (contrast, brightness, gamma), of
the machine (blur, noise) and of the position (rotation, mirror); and the lung box asks where a detector looks: with the
lungs hidden it should know nothing, with all else hidden it should lose little.

Strengths are those of a picture with a short side of 224 pixels, as the reduced copies of the data set have. Larger
ones are reduced to that first: at two thousand pixels the grain and the JPEG blocks would be gone before the detector
saw them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.data.dataset import ImageSet
from pneumolib.data.images import decode, square
from pneumolib.errors import DataError

Pixels = NDArray[np.uint8]
Apply = Callable[[Pixels, np.random.Generator], Pixels]

SIDE = 224  # the short side that strengths are given for
# Top, bottom, left and right as fractions of height and width, drawn on the mean of the 4,486 images of the training
# part (seed 0) and tried on single ones: it holds both lungs of nearly all children, and few of the corners' letters.
LUNG_BOX = (0.10, 0.88, 0.10, 0.90)
BORDER = 0.08


@dataclass(frozen=True)
class Stress:
    """One change of one strength.

    Attributes:
        group: what is changed, such as "jpeg".
        level: how strongly: the number that `apply` works with, or a word.
        label: both in words, for tables and figures.
        apply: takes a picture, uint8 [H, W], and a source of chance; returns uint8 [H', W'].

    Examples:
        >>> mirror = next(stress for stress in STRESSES if stress.group == "mirror")
        >>> mirror.apply(np.array([[1, 2, 3]], np.uint8), np.random.default_rng(0))
        array([[3, 2, 1]], dtype=uint8)
    """

    group: str
    level: float | str
    label: str
    apply: Apply = field(repr=False, compare=False)


def stressed_images(images: ImageSet, size: int, stress: Stress, seed: int = 0) -> Pixels:
    """Return the images of a part under one stress, stretched to squares, uint8 [N, size, size].

    The chance of each image is a function of (seed, group of the stress, name) alone: neither order nor company changes
    it, and the levels of a group differ in strength only.

    Args:
        images: any part of a data set.
        size: side of the squares in pixels, 16 or more.
        stress: one of `STRESSES`, or one of your own.
        seed: 0 or more.

    Raises:
        DataError: size or seed out of range.
        ImageError: a file cannot be read; the message names it.
    """
    result = np.empty((len(images), size, size), np.uint8)
    with ThreadPoolExecutor(min(4, runtime.available_cores())) as pool:
        for i, squares in enumerate(
            pool.map(lambda i: stressed_squares(images, i, size, [stress], seed), range(len(images)))
        ):
            result[i] = squares[0]
    return result


def stressed_squares(images: ImageSet, index: int, size: int, stresses: Sequence[Stress], seed: int = 0) -> Pixels:
    """Return one image under each of K stresses, uint8 [K, size, size]: it is decoded once for all of them.

    Args:
        images: any part of a data set.
        index: of the image in it.
        size: side of the squares in pixels, 16 or more.
        stresses: some of `STRESSES`, or your own.
        seed: 0 or more.

    Raises:
        DataError: size or seed out of range.
        ImageError: the file cannot be read; the message names it.
    """
    if size < 16 or seed < 0:
        raise DataError(f"size must be 16 or more and seed 0 or more. Received: size={size!r}, seed={seed!r}")
    picture = _reduced(images.image(index), max(SIDE, size))
    name = images.records[index].name
    result = np.empty((len(stresses), size, size), np.uint8)
    for i, stress in enumerate(stresses):
        digest = hashlib.sha256(f"{seed} {stress.group} {name}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        result[i] = square(stress.apply(picture, rng), size)
    return result


def _reduced(image: Pixels, side: int) -> Pixels:
    import cv2

    ratio = side / min(image.shape)
    if ratio >= 1:
        return image
    height, width = (round(length * ratio) for length in image.shape)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg(image: Pixels, rng: np.random.Generator, *, quality: int) -> Pixels:
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="JPEG", quality=quality)
    return decode(encoded.getvalue())


def _resolution(image: Pixels, rng: np.random.Generator, *, factor: float) -> Pixels:
    import cv2

    # The way back is the detector's own: it stretches whatever comes to its square, and leaves black bars out.
    height, width = (max(1, round(length * factor)) for length in image.shape)
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)


def _letterbox(image: Pixels, rng: np.random.Generator, *, axis: int, ratio: float) -> Pixels:
    # In a square, a chest between bars that are not left out is narrower (axis 1) or flatter (axis 0).
    bar = round(image.shape[axis] * (ratio - 1) / 2)
    return np.pad(image, [(bar, bar) if i == axis else (0, 0) for i in range(2)])


def _cut(
    image: Pixels, rng: np.random.Generator, *, top: float = 0, bottom: float = 0, left: float = 0, right: float = 0
) -> Pixels:
    rows, columns = _window(image, top, 1 - bottom, left, 1 - right)
    return image[rows, columns]


def _mask(image: Pixels, rng: np.random.Generator, *, box: tuple[float, float, float, float], keep: bool) -> Pixels:
    """Black out all but the box, or the box."""
    rows, columns = _window(image, *box)
    result = np.zeros_like(image) if keep else image.copy()
    result[rows, columns] = image[rows, columns] if keep else 0
    return result


def _window(image: Pixels, top: float, bottom: float, left: float, right: float) -> tuple[slice, slice]:
    height, width = image.shape
    return slice(round(top * height), round(bottom * height)), slice(round(left * width), round(right * width))


def _contrast(image: Pixels, rng: np.random.Generator, *, factor: float) -> Pixels:
    # About the mean of the picture, not about mid gray: only what is clipped changes the brightness too.
    mean = float(image.mean())
    return _curve(image, (np.arange(256) - mean) * factor + mean)


def _brightness(image: Pixels, rng: np.random.Generator, *, factor: float) -> Pixels:
    return _curve(image, np.arange(256) * factor)


def _gamma(image: Pixels, rng: np.random.Generator, *, exponent: float) -> Pixels:
    return _curve(image, 255 * (np.arange(256) / 255) ** exponent)


def _curve(image: Pixels, gray: NDArray[np.floating[Any]]) -> Pixels:
    return np.clip(np.rint(gray), 0, 255).astype(np.uint8)[image]


def _blur(image: Pixels, rng: np.random.Generator, *, sigma: float) -> Pixels:
    import cv2

    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma * min(image.shape) / SIDE), np.uint8)


def _noise(image: Pixels, rng: np.random.Generator, *, sigma: float) -> Pixels:
    return np.clip(np.rint(image + sigma * rng.standard_normal(image.shape)), 0, 255).astype(np.uint8)


def _rotation(image: Pixels, rng: np.random.Generator, *, degrees: float) -> Pixels:
    import cv2

    height, width = image.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR), np.uint8)


def _mirror(image: Pixels, rng: np.random.Generator) -> Pixels:
    return np.ascontiguousarray(image[:, ::-1])


def _paint(image: Pixels, rng: np.random.Generator, *, texts: Sequence[tuple[str, str]], height: float) -> Pixels:
    """Write each text in white into its upper corner, its capitals as high as that part of the short side."""
    import cv2

    result, font = image.copy(), cv2.FONT_HERSHEY_SIMPLEX
    side = min(image.shape)
    margin, wanted = round(0.03 * side), height * side
    scale = wanted / cv2.getTextSize("R", font, 1, 1)[0][1]
    thick = max(1, round(wanted / 8))
    for text, corner in texts:
        wide, high = cv2.getTextSize(text, font, scale, thick)[0]
        left = margin if corner == "left" else image.shape[1] - margin - wide
        cv2.putText(result, text, (left, margin + high), font, scale, 255, thick, cv2.LINE_AA)
    return result


def _standard() -> tuple[Stress, ...]:
    stresses: list[Stress] = []

    def add(group: str, level: float | str, label: str, apply: Apply) -> None:
        stresses.append(Stress(group, level, label, apply))

    for quality in (95, 75, 50, 30, 20):
        add("jpeg", quality, f"JPEG quality {quality}", partial(_jpeg, quality=quality))
    for factor in (2, 0.5, 0.33, 0.25):
        add("resolution", factor, f"resolution x {factor:g}", partial(_resolution, factor=factor))
    add("aspect", "1.4:1", "black bars left and right, 1.4:1", partial(_letterbox, axis=1, ratio=1.4))
    add("aspect", "1:1.4", "black bars above and below, 1:1.4", partial(_letterbox, axis=0, ratio=1.4))
    add("aspect", "sides cut", "left and right 10 % cut off", partial(_cut, left=0.1, right=0.1))
    add("aspect", "top cut", "top 10 % cut off", partial(_cut, top=0.1))
    for factor in (0.6, 0.7, 1.3, 1.4):
        add("contrast", factor, f"contrast x {factor:g}", partial(_contrast, factor=factor))
    for factor in (0.6, 0.7, 1.3, 1.4):
        add("brightness", factor, f"brightness x {factor:g}", partial(_brightness, factor=factor))
    for exponent in (0.6, 0.8, 1.25, 1.67):
        add("gamma", exponent, f"gamma {exponent:g}", partial(_gamma, exponent=exponent))
    for sigma in (1, 2, 3):
        add("blur", sigma, f"blur, sigma {sigma} pixel{'s' * (sigma > 1)}", partial(_blur, sigma=sigma))
    for sigma in (5, 10, 20):
        add("noise", sigma, f"noise, sigma {sigma} gray levels", partial(_noise, sigma=sigma))
    for degrees in (-20, -10, 10, 20):
        add("rotation", degrees, f"rotation {degrees:+d} degrees", partial(_rotation, degrees=degrees))
    add("mirror", "mirrored", "left and right exchanged", _mirror)
    share = f"{100 * BORDER:g} %"
    frame = (BORDER, 1 - BORDER, BORDER, 1 - BORDER)
    add("borders", "masked", f"{share} of each side black", partial(_mask, box=frame, keep=True))
    cut = partial(_cut, top=BORDER, bottom=BORDER, left=BORDER, right=BORDER)
    add("borders", "cut", f"{share} of each side cut off", cut)
    letters = [("R", "left"), ("L", "right")]
    add("markers", "letters", "large R and L painted in", partial(_paint, texts=letters, height=0.11))
    text = [("PORTABLE 12:45", "right")]
    add("markers", "text", "short text painted in", partial(_paint, texts=text, height=0.05))
    add("lung box", "hidden", "lung box black", partial(_mask, box=LUNG_BOX, keep=False))
    add("lung box", "only", "all but the lung box black", partial(_mask, box=LUNG_BOX, keep=True))
    return tuple(stresses)


STRESSES = _standard()  # rotations above 0 turn counter-clockwise
