"""Does a heat map tell what the detector looks at? Numbers for that: arrays and a function in, numbers out.

A heat map that pleases the eye may say nothing about the network (Adebayo et al. 2018, arXiv:1810.03292). So a map is
asked three things: do the probabilities follow when what it calls hot is hidden or shown (`deletion_insertion`); does
it change when the network forgets (`rank_correlation`, used by `pneumolib.models.explain.randomisation_check`); and how
much of it lies where pneumonia can be (`heat_in_lungs`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pneumolib.errors import DataError

Answer = Callable[[NDArray[np.uint8]], ArrayLike]

BLUR = 0.1  # of the longer side
GRID = 10  # cells a side of the random maps, whose patches are then about as large as those of real ones


@dataclass(frozen=True)
class Faithfulness:
    """How the answer follows when a heat map's order decides what is hidden or shown; float64 ``[T + 1]`` each.

    Attributes:
        share: of the pixels that are hidden (or shown), 0..1.
        deletion: the answer with that share hidden, the hottest first.
        insertion: the answer with only that share shown, the hottest first.
        random_deletion: the same in a random order of patches, the mean of several.
        random_insertion: likewise.
    """

    share: NDArray[np.float64]
    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]
    random_deletion: NDArray[np.float64]
    random_insertion: NDArray[np.float64]

    @property
    def areas(self) -> dict[str, float]:
        """The area under each curve, in units of the answer: for a good map low in deletion and high in insertion."""
        names = ("deletion", "insertion", "random_deletion", "random_insertion")
        return {name: float(np.trapezoid(getattr(self, name), self.share)) for name in names}


def deletion_insertion(
    answer: Answer,
    image: NDArray[np.uint8],
    heat: ArrayLike,
    reference: NDArray[np.uint8],
    *,
    steps: int = 16,
    n_random: int = 2,
    seed: int = 0,
) -> Faithfulness:
    """Return how the answer falls as the hottest pixels are hidden, and rises as only they are shown.

    After Petsiuk, Das and Saenko (2018, arXiv:1806.07421). What is hidden takes the pixels of the reference. Which one
    decides what is asked: with a normal X-ray, which places would have to be healthy for another answer; with the
    picture `blurred`, which places hold the sharp structures that speak for the answer. Black holes would be a sight
    that no X-ray offers. The random order hides patches as large as those of a heat map, since pixels hidden one by one
    take nothing away until most are gone.

    Args:
        answer: takes uint8 ``[N, H, W]`` and gives N numbers, such as `Detector.probability`.
        image: uint8 ``[H, W]``, of a size that `answer` takes.
        heat: ``[H, W]``; only its order counts.
        reference: uint8 ``[H, W]``, whose pixels take the place of what is hidden.
        steps: into which hiding everything is divided; the answer is asked for ``2 * (1 + n_random) * steps`` pictures.
        n_random: random orders behind the two random curves.
        seed: of the random orders, 0 or more.

    Raises:
        DataError: the shapes differ, the heat is not finite, or `steps` or `n_random` is less than 1.

    Examples:
        >>> image = np.zeros((32, 32), np.uint8)
        >>> image[:16, :16] = 255
        >>> corner = lambda images: images[:, :16, :16].mean((1, 2)) / 255
        >>> areas = deletion_insertion(corner, image, image, blurred(image)).areas
        >>> areas["deletion"] < areas["random_deletion"] and areas["insertion"] > areas["random_insertion"]
        True
    """
    import cv2

    warm = np.asarray(heat, np.float64)
    if image.dtype != np.uint8 or image.ndim != 2 or warm.shape != image.shape or not np.isfinite(warm).all():
        raise DataError(
            "The image must be uint8 [H, W] and the heat finite, of the same shape. "
            f"Received: {image.dtype} {list(image.shape)}, heat {list(warm.shape)}"
        )
    if steps < 1 or n_random < 1:
        raise DataError(f"steps and n_random must be 1 or more. Received: steps={steps!r}, n_random={n_random!r}")
    height, width = image.shape
    if reference.dtype != np.uint8 or reference.shape != image.shape:
        raise DataError(
            f"The reference must be uint8 {list(image.shape)}, as the image is. "
            f"Received: {reference.dtype} {list(reference.shape)}"
        )
    rng = np.random.default_rng(seed)
    patches = [
        cv2.resize(rng.random((GRID, GRID)), (width, height), interpolation=cv2.INTER_CUBIC) for _ in range(n_random)
    ]
    curves = [_curves(answer, image, reference, order, steps) for order in (warm, *patches)]
    random = np.mean(curves[1:], axis=0)
    share = np.linspace(0, 1, steps + 1)
    return Faithfulness(share, curves[0][0], curves[0][1], random[0], random[1])


def blurred(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture so blurred that ribs and opacities are gone and the exposure stays, uint8 ``[H, W]``."""
    import cv2

    soft = cv2.GaussianBlur(image, (0, 0), BLUR * max(image.shape), borderType=cv2.BORDER_REFLECT)
    return np.asarray(soft, np.uint8)


def heat_in_lungs(heat: ArrayLike, mask: NDArray[np.bool_]) -> float:
    """Return the share of the heat that lies inside the lung field, 0..1; nan without heat or without a field.

    Set ``mask.mean()`` beside it: that is the share of a heat map that is the same everywhere.

    Args:
        heat: 0 or more, ``[H, W]``.
        mask: bool ``[H, W]``, as `pneumolib.data.lungs.lung_field` gives it.

    Raises:
        DataError: the shapes differ, or the heat is negative or not finite.

    Examples:
        >>> heat_in_lungs([[1, 3], [0, 0]], np.array([[False, True], [False, True]]))
        0.75
    """
    warm = np.asarray(heat, np.float64)
    if warm.shape != np.shape(mask) or not np.isfinite(warm).all() or (warm < 0).any():
        raise DataError(
            "The heat must be finite, 0 or more, and of the mask's shape. "
            f"Received: heat {list(warm.shape)}, mask {list(np.shape(mask))}"
        )
    total = float(warm.sum())
    return float(warm[mask].sum()) / total if total > 0 and np.any(mask) else float("nan")


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Return Spearman's correlation of two maps over their places, -1..1; nan where one is the same everywhere.

    Raises:
        DataError: the shapes differ, or there are less than two places.

    Examples:
        >>> rank_correlation([[1, 2], [3, 4]], [[1, 10], [100, 1000]])
        1.0
    """
    from scipy.stats import rankdata

    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or first.size < 2:
        raise DataError(
            f"Two maps of one shape are compared. Received: shapes {list(first.shape)} and {list(second.shape)}"
        )
    ranks = [rankdata(values) - (values.size + 1) / 2 for values in (first, second)]
    scale = float(np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))
    return round(float(ranks[0] @ ranks[1]) / scale, 12) if scale else float("nan")


def _curves(
    answer: Answer, image: NDArray[np.uint8], reference: NDArray[np.uint8], heat: NDArray[Any], steps: int
) -> NDArray[np.float64]:
    """Return the answers with more and more hidden, and with more and more shown, float64 ``[2, steps + 1]``."""
    # Ties are broken by position, which is where a map that says nothing would show as a sweep from the top.
    order = np.argsort(-heat.ravel(), kind="stable")
    hottest = np.empty(order.size, np.int64)
    hottest[order] = np.arange(order.size)
    hidden = hottest.reshape(image.shape) < order.size * np.arange(steps + 1)[:, None, None] // steps
    deleted, inserted = np.where(hidden, reference, image), np.where(hidden, image, reference)
    answers = np.asarray(answer(np.concatenate([deleted, inserted])), np.float64)
    return answers.reshape(2, steps + 1)
