"""A plain first check of the input: is this picture roughly like the X-rays the detector has learnt from?

Four numbers of the picture are held against bounds fitted on the training images. That refuses what is plainly
something else: blank or constant pictures, noise, negatives, pictures turned by a quarter, most photographs and
drawings. It does not recognise an X-ray of another part of the body that has a chest's brightness and layout, nor a
chest X-ray that is unusual in a way that these numbers do not see; a picture that passes is not vouched for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumolib.errors import ArtifactError, DataError

GRID = 16  # the pattern is compared on a grid of 16 x 16 mean gray values
MAX_IMAGES = 2000  # so many, evenly spaced, settle the quantiles
TAIL, MARGIN = 0.005, 0.3  # bounds: the 0.5 % quantiles, pushed out by 30 % of their distance from the median
_BOUNDS = ("mean", "std", "likeness", "detail")


@dataclass(frozen=True)
class InputCheck:
    """Whether a picture looks enough like a chest X-ray to decide on, and if not, why not."""

    ok: bool
    reason: str | None = None


def fit_reference(images: NDArray[np.uint8]) -> dict[str, Any]:
    """Return what `check_images` compares with: the mean pattern of `images` and bounds of four statistics.

    Args:
        images: training images, uint8 ``[N, S, S]``; held-out ones would make the check look better than it is.

    Raises:
        DataError: fewer than ten images, or no uint8 ``[N, S, S]``.

    Examples:
        >>> import numpy as np
        >>> images = np.random.default_rng(0).integers(60, 200, (20, 32, 32), dtype=np.uint8)
        >>> sorted(fit_reference(images))
        ['bounds', 'pattern']
    """
    if images.dtype != np.uint8 or images.ndim != 3 or len(images) < 10:
        raise DataError(
            f"The reference needs at least ten images, uint8 [N, S, S]. Received: {images.dtype} {list(images.shape)}"
        )
    chosen = np.linspace(0, len(images) - 1, min(len(images), MAX_IMAGES)).astype(int)
    blocks = [images[chosen[start : start + 128]] for start in range(0, len(chosen), 128)]
    pattern = np.concatenate([_grid(block) for block in blocks]).mean(axis=0)
    facts = [_statistics(block, pattern) for block in blocks]
    bounds = {}
    for name in _BOUNDS:
        low, middle, high = np.quantile(np.concatenate([f[name] for f in facts]), [TAIL, 0.5, 1 - TAIL])
        bounds[name] = [
            round(float(low - MARGIN * (middle - low)), 4),
            round(float(high + MARGIN * (high - middle)), 4),
        ]
    return {"pattern": [round(float(v), 1) for v in pattern], "bounds": bounds}


def check_images(images: NDArray[np.uint8], reference: Mapping[str, Any]) -> list[InputCheck]:
    """Return an `InputCheck` for each of `images`, uint8 ``[N, S, S]`` of the side that the reference was fitted on."""
    facts = _statistics(images, np.asarray(reference["pattern"], np.float64))
    checks = []
    for row in zip(*(facts[name] for name in _BOUNDS), strict=True):
        reason = _reason(dict(zip(_BOUNDS, map(float, row), strict=True)), reference["bounds"])
        checks.append(InputCheck(ok=reason is None, reason=reason))
    return checks


def require_reference(reference: Any) -> None:
    """Raise `ArtifactError` unless `reference` has the form that `fit_reference` gives."""
    ok = isinstance(reference, dict) and set(reference) == {"pattern", "bounds"}
    ok = ok and isinstance(reference["bounds"], dict) and set(reference["bounds"]) == set(_BOUNDS)
    ok = ok and _are_numbers(reference["pattern"], GRID * GRID)
    ok = ok and all(_are_numbers(pair, 2) and pair[0] <= pair[1] for pair in reference["bounds"].values())
    if not ok:
        raise ArtifactError("The detector's reference statistics are damaged: they are not what fit_reference gives.")


def _reason(value: dict[str, float], bounds: Mapping[str, list[float]]) -> str | None:
    low, high = bounds["std"]
    if value["std"] < low:
        return f"almost no contrast: standard deviation {value['std']:.0f} gray values, X-rays have {low:.0f} or more"
    if value["likeness"] < 0 and value["likeness"] <= -bounds["likeness"][0]:
        return "the gray values look inverted: dark where a chest X-ray is bright, bright where it is dark"
    if value["detail"] > bounds["detail"][1]:
        return "grainy all over, like noise or a fine pattern: no chest X-ray"
    if value["likeness"] < bounds["likeness"][0]:
        return "its layout of bright and dark is not that of a chest X-ray from the front"
    low_mean, high_mean = bounds["mean"]
    if not low_mean <= value["mean"] <= high_mean:
        word = "dark" if value["mean"] < low_mean else "bright"
        return f"too {word}: mean gray value {value['mean']:.0f}, X-rays have {low_mean:.0f} to {high_mean:.0f}"
    if value["std"] > high:
        return f"contrast too high: standard deviation {value['std']:.0f} gray values, X-rays have {high:.0f} or less"
    return None


def _statistics(images: NDArray[np.uint8], pattern: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Compute mean, standard deviation, correlation with the mean pattern, and neighbour difference over contrast."""
    gray = images.astype(np.float32)
    std = gray.std(axis=(1, 2), dtype=np.float64)
    steps = (np.abs(np.diff(gray, axis=1)).mean(axis=(1, 2)) + np.abs(np.diff(gray, axis=2)).mean(axis=(1, 2))) / 2
    grid = _grid(images)
    grid -= grid.mean(axis=1, keepdims=True)
    centred = pattern - pattern.mean()
    norms = np.sqrt((grid**2).sum(axis=1) * (centred**2).sum())
    return {
        "mean": gray.mean(axis=(1, 2), dtype=np.float64),
        "std": std,
        "likeness": grid @ centred / np.maximum(norms, 1e-9),
        "detail": steps / np.maximum(std, 1.0),
    }


def _grid(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    edges = np.arange(GRID + 1) * images.shape[1] // GRID
    sums = np.add.reduceat(images.astype(np.float64), edges[:-1], axis=1)
    sums = np.add.reduceat(sums, edges[:-1], axis=2)
    return (sums / np.outer(np.diff(edges), np.diff(edges))).reshape(len(images), GRID * GRID)


def _are_numbers(values: Any, n: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == n
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    )
