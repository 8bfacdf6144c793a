"""Figures of heat maps: a picture beside itself with the heat over it, one or many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from pneumolib.errors import DataError
from pneumolib.evaluation.calibration import OperatingPoint, logit
from pneumolib.evaluation.galleries import short_name
from pneumolib.evaluation.metrics import checked
from pneumolib.evaluation.overlay import COLOURS, OPACITY, stretched
from pneumolib.evaluation.style import axes, style, threshold_of, titled

HALF = 0.5  # the contour is drawn around what is at least half as hot as can be
WORDS = ("not at all", "half", "most")
KINDS = ("ill, found", "ill, missed", "false alarm", "rightly normal")


def plot_heatmap(
    image: NDArray[np.uint8],
    heat: ArrayLike,
    *,
    title: str = "",
    ax: Axes | None = None,
    phantom: bool = False,
) -> Axes:
    """Return the picture on the left and, on the right, the same with the heat over it and a colour bar in words.

    The heat is the more opaque the hotter, so that a cold place is the bare picture; a line runs where it is half.

    Args:
        image: uint8 ``[H, W]``: the square of an `Explanation`, or the picture that it was made of.
        heat: 0..1, ``[h, w]``; it is stretched over the picture. Where that has black bars, which the detector does not
            look at, give what `Explanation.on` makes of the heat.
        title: above both, such as the answer.
        ax: where to draw; None makes a figure. The pair shares it, the picture at 0 to 1 and the overlay beyond.
        phantom: say PHANTOM in the title.

    Raises:
        DataError: see `pneumolib.evaluation.overlay.overlay`.
    """
    warm = stretched(heat, image)
    height, width = image.shape
    with axes(ax, (8.2, 0.6 + 3.5 * height / width), look="white") as ax:
        _pair(ax, image, warm)
        ax.set_title(titled(title or "What speaks for pneumonia", phantom))
        _bar(ax.figure, [ax])
    return ax


def plot_heatmap_gallery(
    images: Sequence[NDArray[Any]] | NDArray[Any],
    heats: Sequence[NDArray[Any]] | NDArray[Any],
    y_true: ArrayLike,
    p: ArrayLike,
    names: Sequence[str],
    threshold: OperatingPoint | float,
    *,
    ncols: int = 4,
    phantom: bool = False,
    inches: float = 2.6,
) -> Figure:
    """Return a row of pictures beside their heat maps for each outcome: found, missed, false alarm, rightly normal.

    Those called wrongly come the most wrong first; of those called rightly some are shown that are spread evenly over
    their probabilities. An outcome that does not occur has no row.

    Args:
        images: uint8 ``[N, S, S]``, or a sequence of N gray images; only those shown are read.
        heats: 0..1, ``[N, h, w]``, or a sequence of N maps; only those shown are read.
        y_true: bool or 0/1 ``[N]``.
        p: probability of pneumonia, float ``[N]`` in 0..1.
        names: of the images ``[N]``.
        threshold: chosen beforehand; pneumonia is called where ``p >= threshold``.
        ncols: pictures in a row at most.
        phantom: say PHANTOM above the figure.
        inches: width of a picture with its heat map, 1 or more.

    Raises:
        DataError: see `metrics.checked`; or images, heats or names are of another number; or `ncols` or `inches` is
            less than 1.
    """
    truth, values = checked(y_true, p)
    cut = threshold_of(threshold)[1]
    if not len(images) == len(heats) == len(names) == len(truth):
        raise DataError(
            f"Each of {len(truth)} rows needs an image, a heat map and a name. "
            f"Received: {len(images)}, {len(heats)}, {len(names)}"
        )
    if ncols < 1 or inches < 1:
        raise DataError(f"ncols and inches must be 1 or more. Received: ncols={ncols!r}, inches={inches!r}")
    rows = [(kind, found, chosen) for kind, found, chosen in _outcomes(truth, values, cut, ncols) if found]
    ncols = max(len(chosen) for _, _, chosen in rows)
    with style("white"):
        size = (inches * ncols + 1.0, (inches / 2 + 0.4) * len(rows) + 0.4)
        figure, grid = plt.subplots(len(rows), ncols, figsize=size, layout="constrained", squeeze=False)
        for ax in grid.flat:
            ax.set_axis_off()
        for line, (kind, found, chosen) in zip(grid, rows, strict=True):
            for ax, i in zip(line, chosen, strict=False):
                image = np.asarray(images[i])
                _pair(ax, image, stretched(heats[i], image))
                ax.set_title(f"{short_name(names[i])}\nP(pneumonia) {values[i]:.3f}", fontsize=8)
            line[0].text(
                -0.04, 0.5, f"{kind}\n{len(chosen)} of {found}", transform=line[0].transAxes, rotation=90, ha="right",
                va="center", multialignment="center", fontsize=9,
            )  # fmt: skip
        _bar(figure, grid)
        figure.suptitle(titled(f"What speaks for pneumonia, threshold {cut:.3f}", phantom))
    return figure


def _outcomes(
    truth: NDArray[np.bool_], p: NDArray[np.float64], cut: float, limit: int
) -> list[tuple[str, int, NDArray[np.intp]]]:
    """Return for each of `KINDS` its name, how many images there are, and the indices of those to show."""
    called = p >= cut
    result = []
    for kind, mask in zip(KINDS, (truth & called, truth & ~called, ~truth & called, ~truth & ~called), strict=True):
        ranked = np.flatnonzero(mask)
        ranked = ranked[np.argsort(-np.abs(logit(p[ranked]) - logit(np.array([cut]))), kind="stable")]
        right = bool(len(ranked)) and truth[ranked[0]] == called[ranked[0]]
        spread = np.unique(np.linspace(0, len(ranked) - 1, min(limit, len(ranked))).round().astype(int))
        result.append((kind, len(ranked), ranked[spread] if right else ranked[:limit]))
    return result


def _pair(ax: Axes, image: NDArray[np.uint8], warm: NDArray[np.float32]) -> None:
    """Draw the picture, and right of it the picture with its heat, in one place: so both keep one scale."""
    height, width = image.shape
    left = width + max(1, width // 40)
    for start in (0, left):
        ax.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(start, start + width, height, 0))
    ax.imshow(warm, cmap=_MAP, vmin=0, vmax=1, alpha=OPACITY * warm, extent=(left, left + width, height, 0))
    if warm.max() > HALF > warm.min():
        x, y = left + 0.5 + np.arange(width), 0.5 + np.arange(height)
        ax.contour(x, y, warm, levels=[HALF], colors="white", linewidths=0.9)
    ax.set(xlim=(0, left + width), ylim=(height, 0), aspect="equal")
    ax.set_axis_off()


def _bar(figure: Any, places: Any) -> None:
    """Draw the colours on mid gray, as opaque as they are in the figure, with words beside them."""
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), _ON_GRAY), ax=places, shrink=0.7, pad=0.02, aspect=25)
    bar.set_ticks([0, HALF, 1], labels=WORDS)
    bar.set_label("how much a place speaks for pneumonia")
    bar.outline.set_visible(False)


_MAP = LinearSegmentedColormap.from_list("heat", COLOURS)
_STEPS = np.linspace(0, 1, 256)[:, None]
_ON_GRAY = ListedColormap(0.45 + OPACITY * _STEPS * (_MAP(_STEPS[:, 0])[:, :3] - 0.45))
