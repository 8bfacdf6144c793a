"""Grids of images: any images, and those that a detector called wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from pneumolib.errors import DataError
from pneumolib.evaluation.calibration import OperatingPoint, logit
from pneumolib.evaluation.metrics import checked
from pneumolib.evaluation.style import style, threshold_of, titled


def plot_images(
    images: Sequence[NDArray[Any]] | NDArray[Any],
    titles: Sequence[str] | None = None,
    ncols: int = 4,
    *,
    phantom: bool = False,
    heading: str = "",
    inches: float = 2.4,
) -> Figure:
    """Return a grid of gray images, black at 0 and white at 255, each under its title.

    Args:
        images: uint8 [H, W] each; they may differ in size.
        titles: one for each image.
        ncols: images in a row.
        phantom: say PHANTOM above the grid.
        heading: of the whole figure.
        inches: width of one image in the figure, 0.5 or more; small ones keep a notebook light.

    Raises:
        DataError: no images, a wrong number of titles, images too small to see, or one that is not two-dimensional.
    """
    if not len(images) or ncols < 1:
        raise DataError(f"A grid needs images and columns. Received: {len(images)} images, ncols={ncols}")
    if titles is not None and len(titles) != len(images):
        raise DataError(f"Each image needs one title. Received: {len(titles)} titles for {len(images)} images")
    if inches < 0.5:
        raise DataError(f"Images must be 0.5 inches wide or more. Received: inches={inches!r}")
    ncols = min(ncols, len(images))
    nrows = -(-len(images) // ncols)
    lines = 0 if titles is None else max(text.count("\n") + 1 for text in titles)
    size = (inches * ncols, (inches + 0.2 * lines) * nrows + 0.4)
    with style("white"):
        figure, grid = plt.subplots(nrows, ncols, figsize=size, layout="constrained", squeeze=False)
        for ax in grid.flat:
            ax.set_axis_off()
        for i, (ax, image) in enumerate(zip(grid.flat, images, strict=False)):
            if np.ndim(image) != 2:
                raise DataError(f"Images must be gray, [H, W]. Received: shape {np.shape(image)} at index {i}")
            ax.imshow(image, cmap="gray", vmin=0, vmax=255)
            if titles is not None:
                ax.set_title(titles[i], fontsize=9)
        if phantom or heading:
            figure.suptitle(titled(heading or "synthetic X-rays", phantom))
    return figure


def plot_errors(
    images: Sequence[NDArray[Any]] | NDArray[Any],
    y_true: ArrayLike,
    p: ArrayLike,
    names: Sequence[str],
    threshold: OperatingPoint | float,
    *,
    limit: int = 12,
    ncols: int = 4,
    phantom: bool = False,
    inches: float = 2.4,
) -> Figure:
    """Return the images called wrongly, the most wrong first, each with its name, truth and probability.

    Args:
        images: uint8 [N, S, S], or a sequence of N gray images; only the wrong ones are read.
        y_true: bool or 0/1 [N].
        p: probability of pneumonia, float [N] in 0..1.
        names: of the images [N].
        threshold: chosen beforehand; pneumonia is called where ``p >= threshold``.
        limit: images shown at most.
        ncols: images in a row.
        phantom: say PHANTOM above the grid.
        inches: width of one image, as in `plot_images`.

    Raises:
        DataError: see `metrics.checked`; or images or names are of another number; or no image is called wrongly.
    """
    truth, values = checked(y_true, p)
    cut = threshold_of(threshold)[1]
    if not len(images) == len(names) == len(truth):
        raise DataError(f"Each of {len(truth)} rows needs an image and a name. Received: {len(images)}, {len(names)}")
    wrong = np.flatnonzero((values >= cut) != truth)
    if not len(wrong):
        raise DataError(f"There is no error to show: all {len(truth)} images are called rightly at {cut:.3f}.")
    # Distances in the logit: above a threshold of .9 there is less room than below.
    worst = wrong[np.argsort(-np.abs(logit(values[wrong]) - logit(np.array([cut]))), kind="stable")][:limit]
    titles = [
        f"{short_name(names[i])}\nis {'pneumonia' if truth[i] else 'normal'}\nP(pneumonia) {values[i]:.3f}"
        for i in worst
    ]
    heading = f"{len(worst)} of {len(wrong)} errors among {len(truth)} images, threshold {cut:.3f}"
    wrongly_called = [np.asarray(images[i]) for i in worst]
    return plot_images(wrongly_called, titles, ncols, phantom=phantom, heading=heading, inches=inches)


def short_name(name: str) -> str:
    """Return the name of a file without folders and ending, the middle left out where it is long.

    Examples:
        >>> short_name("train/NORMAL/IM-0115-0001.jpeg")
        'IM-0115-0001'
    """
    stem = PurePosixPath(name).stem
    return stem if len(stem) <= 30 else f"{stem[:14]}...{stem[-13:]}"
