"""Where the lungs lie on a chest X-ray: a rough mask, for asking whether a detector looks at them.

No masks of these X-rays are public, and a network that draws them would have to be downloaded. Children's chests on
frontal films are much alike, so two outlines are laid on the picture: the mean of the lungs of 110 normal training
images (`OUTLINES`), moved, stretched and turned until the picture is dark inside and bright around them, and held near
the mean pose. Their edges then give way a few pixels to what is dark or bright there. Since the outline comes first
and the gray second, a lung that pneumonia has turned white keeps its place.

Nobody has drawn these lungs by hand, so how near the masks come is known by looking only: of 56 training images, 40 of
them ill, a reader would let about 50 pass; in the others the foot of a lung is missed, on films of infants with a large
heart most of all. Of 300 training images none were found on 6, all of them ill. The heart's shadow, and the lung behind
it and behind the diaphragm, do not count. A film upside down gets a field all the same. This is no segmentation to
measure a lung by.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumolib.data.images import square
from pneumolib.errors import DataError

# The corners of the lung on the left of the film and of that on the right, as fractions of width and height.
OUTLINES = (
    (
        (0.39, 0.20),
        (0.36, 0.21),
        (0.32, 0.24),
        (0.28, 0.30),
        (0.24, 0.40),
        (0.15, 0.71),
        (0.15, 0.75),
        (0.16, 0.77),
        (0.21, 0.77),
        (0.29, 0.74),
        (0.38, 0.73),
        (0.41, 0.70),
        (0.41, 0.49),
        (0.42, 0.43),
        (0.43, 0.29),
        (0.41, 0.23),
    ),
    (
        (0.60, 0.20),
        (0.57, 0.25),
        (0.57, 0.30),
        (0.61, 0.44),
        (0.69, 0.60),
        (0.69, 0.67),
        (0.68, 0.71),
        (0.68, 0.73),
        (0.70, 0.75),
        (0.77, 0.79),
        (0.83, 0.80),
        (0.86, 0.77),
        (0.85, 0.73),
        (0.81, 0.53),
        (0.77, 0.39),
        (0.70, 0.26),
        (0.64, 0.21),
        (0.62, 0.20),
    ),
)

SIDE = 96  # what follows is done on squares of this side: finer pixels showed ribs, not lungs
LEAST_LIKENESS = 0.2

_Array = NDArray[np.float32]


def lung_field(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels of a frontal chest X-ray lie in the lungs, bool ``[H, W]``; all False where none were found.

    None are found where the picture is not dark inside the outlines and bright around them, wherever they are laid: on
    what is no frontal chest X-ray, on a negative, and on some films that show no air at all.

    Args:
        image: uint8 ``[H, W]``, 16 pixels or more each way; a square of `pneumolib.data.images` or the picture itself.

    Raises:
        DataError: the image is of another number type or shape.

    Examples:
        >>> from pneumolib.data.radiograph import draw
        >>> mask = lung_field(draw("normal", seed=1, size=(280, 320)))
        >>> mask.shape, 0.1 < float(mask.mean()) < 0.5
        ((280, 320), True)
        >>> bool(lung_field(np.zeros((64, 64), np.uint8)).any())
        False
    """
    import cv2

    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 2 or min(image.shape) < 16:
        what = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"Lungs are looked for on uint8 [H, W], 16 pixels or more each way. Received: {what}")
    gray = _evened(image)
    likeness, pose = _laid(gray)
    if likeness < LEAST_LIKENESS:
        return np.zeros(image.shape, bool)
    height, width = image.shape
    return np.asarray(cv2.resize(_edges(gray, pose), (width, height), interpolation=cv2.INTER_LINEAR) > 0)


def _evened(image: NDArray[np.uint8]) -> _Array:
    import cv2

    # Local equalisation, because a side of the film is often darker than the other for no reason of the lungs.
    even = cv2.createCLAHE(2.0, (2, 2)).apply(square(image, SIDE, bars=True))
    return np.asarray(cv2.GaussianBlur(even, (0, 0), 1.2), np.float32) / np.float32(255)


@cache
def _template() -> tuple[_Array, _Array, NDArray[np.uint8]]:
    """Distance to the outlines (above 0 inside), the gray that is looked for, and where: lungs and what is around."""
    import cv2

    lungs, hull = np.zeros((2, SIDE, SIDE), np.uint8)
    for outline in OUTLINES:
        cv2.fillPoly(lungs, [_corners(outline)], 1, shift=4)
    both = np.concatenate([_corners(outline) for outline in OUTLINES])
    cv2.fillPoly(hull, [cv2.convexHull(both)], 1, shift=4)
    around = cv2.dilate(hull, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15)))
    inside, outside = (cv2.distanceTransform(mask, cv2.DIST_L2, 5) for mask in (lungs, 1 - lungs))
    wanted = 1 - cv2.GaussianBlur(lungs.astype(np.float32), (0, 0), 2)
    return np.asarray(inside - outside, np.float32), np.asarray(wanted, np.float32), np.asarray(around, np.uint8)


def _corners(outline: tuple[tuple[float, float], ...]) -> NDArray[np.int32]:
    """Return corners in the sixteenths of pixels that OpenCV draws without rounding."""
    return np.round((np.array(outline) * SIDE - 0.5) * 16).astype(np.int32)


def _laid(gray: _Array) -> tuple[float, _Array]:
    """Return how well the outlines fit where they fit best (correlation, -1..1), and the affine way there, [2, 3]."""
    import cv2

    _, wanted, around = _template()
    starts = []
    for wide in (0.85, 1.0, 1.15):
        for high in (0.75, 0.9, 1.05, 1.25):
            for right in (-6, 0, 6):
                for down in (-12, -6, 0, 6, 12):
                    c = SIDE / 2
                    pose = np.array([[wide, 0, c - wide * c + right], [0, high, c - high * c + down]], np.float32)
                    starts.append((_likeness(gray, pose) - _oddness(pose), pose))
    starts.sort(key=lambda start: -start[0])
    fits = starts[:1]
    # The best start is not always that of the best fit; its neighbours in rank mostly lie beside it.
    for _, start in starts[:10:4]:
        try:
            # Enhanced correlation (Evangelidis and Psarakis 2008, doi:10.1109/TPAMI.2008.113).
            stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
            _, found = cv2.findTransformECC(wanted, gray, start.copy(), cv2.MOTION_AFFINE, stop, around, 3)
        except cv2.error:  # it did not converge
            continue
        pose = np.asarray(found, np.float32)
        fits.append((_likeness(gray, pose) - _oddness(pose), pose))
    best = max(fits, key=lambda fit: fit[0])[1]
    return _likeness(gray, best), best


def _likeness(gray: _Array, pose: _Array) -> float:
    import cv2

    _, wanted, around = _template()
    way = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(gray, pose, (SIDE, SIDE), flags=way, borderMode=cv2.BORDER_REPLICATE)
    a, b = seen[around > 0], wanted[around > 0]
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(float(np.sqrt((a @ a) * (b @ b))), 1e-6))


def _oddness(pose: _Array) -> float:
    """Return how unlike a child's chest a pose is: without it, the outlines shrink onto the upper part of the lungs."""
    right, down = pose @ np.array([SIDE / 2, SIDE / 2, 1], np.float32) - SIDE / 2
    wide, high = np.hypot(*pose[:, 0]), np.hypot(*pose[:, 1])
    turn = np.arctan2(pose[1, 0], pose[0, 0])
    slant = np.arctan2(-pose[0, 1], pose[1, 1]) - turn
    # Each over about its spread among normal training images.
    parts = (np.log(wide) / 0.12, np.log(high) / 0.15, right / 6, down / 8, turn / 0.1, slant / 0.1)
    return 0.03 * float(np.square(parts).sum())


def _edges(gray: _Array, pose: _Array) -> _Array:
    """Return a map above 0 in the lungs: the distance to the outlines, moved by what is dark or bright there."""
    import cv2

    laid = cv2.warpAffine(_template()[0], pose, (SIDE, SIDE), borderMode=cv2.BORDER_CONSTANT, borderValue=-SIDE)
    distance = np.asarray(laid, np.float32)
    lung = _local_mean(gray, distance > 1)
    flesh = _local_mean(gray, (distance < -1.5) & (distance > -6))
    # Where the lung is as bright as what is around it, gray tells nothing and the outline stays.
    told = np.clip((flesh + lung - 2 * gray) / np.maximum(flesh - lung, 0.08), -1, 1) * (flesh - lung > 0.03)
    moved = np.clip(distance, -8, 8) + 4 * told
    return np.asarray(cv2.GaussianBlur(moved.astype(np.float32), (0, 0), 1.5), np.float32)


def _local_mean(gray: _Array, mask: Any) -> _Array:
    import cv2

    weight = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 10) + 1e-3
    return np.asarray(cv2.GaussianBlur(gray * mask, (0, 0), 10) / weight, np.float32)
