"""The check of the input: is this picture like the X-rays that the detector has learnt from?

Several signals that do not know of one another are asked, all of them fitted on training images:

- Four numbers of the picture are held against bounds, which refuses what is plainly something else: blank or constant
  pictures, noise, negatives, most photographs and drawings.
- The mean training image, turned to all sides, tells which way up the picture is.
- What the network sees on its way to an answer must be familiar (`pneumolib.models.familiarity`): X-rays that were
  taken or processed in another way, and pictures that only share a chest's brightness and layout, are far away.

A picture that passes is not vouched for: an illness or an age that the training images lack need not look unfamiliar.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumolib.errors import ArtifactError, DataError

GRID = 16  # the pattern is compared on a grid of 16 x 16 mean gray values
TURNS = tuple(range(0, 360, 15))  # degrees at which the pattern is tried
UPRIGHT = 15  # a picture that fits better when turned by more than this is refused
MAX_IMAGES = 2000  # so many, evenly spaced, settle the quantiles
TAIL, MARGIN = 0.005, 0.3  # bounds: the 0.5 % quantiles, pushed out by 30 % of their distance from the median
_BOUNDS = ("mean", "std", "likeness", "detail")


@dataclass(frozen=True)
class InputCheck:
    """Whether a picture looks enough like a chest X-ray to decide on, and if not, why not.

    `code` is one word for programs: contrast, inverted, grain, layout, brightness, turned, unfamiliar.
    """

    ok: bool
    reason: str | None = None
    code: str | None = None


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


def check_images(
    images: NDArray[np.uint8],
    reference: Mapping[str, Any],
    distances: Mapping[str, NDArray[np.float64]] | None = None,
) -> list[InputCheck]:
    """Return an `InputCheck` for each of `images`.

    Args:
        images: uint8 ``[N, S, S]`` of the side that the reference was fitted on.
        reference: as `fit_reference` gives it.
        distances: of the same images, as `Familiarity.distances` gives them; None leaves that signal out.
    """
    pattern = np.asarray(reference["pattern"], np.float64)
    facts = _statistics(images, pattern)
    turns, fits = _turns(images, pattern)
    lowest = reference["bounds"]["likeness"][0]
    checks = []
    for i in range(len(images)):
        values = {name: float(facts[name][i]) for name in _BOUNDS}
        turned = _turned(int(turns[i]))
        found = _first_bound(values, reference["bounds"])
        # A chest that lies on its side is told as that, not as something without a chest's layout.
        if turned and (found is None or (found[0] == "layout" and fits[i] >= lowest)):
            found = turned
        if found is None and distances is not None:
            found = _unfamiliar({part: float(d[i]) for part, d in distances.items()})
        checks.append(InputCheck(True) if found is None else InputCheck(False, code=found[0], reason=found[1]))
    return checks


def self_check_image(reference: Mapping[str, Any], size: int) -> NDArray[np.uint8]:
    """Return the picture by which a detector that answers is compared with the detector that was saved.

    It is the pattern of `reference` in blocks, uint8 ``[size, size]``: made by whole numbers alone, so that it is the
    same on every machine.

    Examples:
        >>> self_check_image({"pattern": [7.0] * GRID * GRID, "bounds": {}}, 32).shape
        (32, 32)
    """
    pattern = np.rint(np.asarray(reference["pattern"], np.float64)).clip(0, 255).astype(np.uint8).reshape(GRID, GRID)
    place = np.arange(size) * GRID // size
    return pattern[np.ix_(place, place)]


def require_reference(reference: Any) -> None:
    """Raise `ArtifactError` unless `reference` has the form that `fit_reference` gives."""
    ok = isinstance(reference, dict) and set(reference) == {"pattern", "bounds"}
    ok = ok and isinstance(reference["bounds"], dict) and set(reference["bounds"]) == set(_BOUNDS)
    ok = ok and _are_numbers(reference["pattern"], GRID * GRID)
    ok = ok and all(_are_numbers(pair, 2) and pair[0] <= pair[1] for pair in reference["bounds"].values())
    if not ok:
        raise ArtifactError("The detector's reference statistics are damaged: they are not what fit_reference gives.")


def _first_bound(value: dict[str, float], bounds: Mapping[str, list[float]]) -> tuple[str, str] | None:
    """Return code and reason of the first bound that is broken."""
    low, high = bounds["std"]
    if value["std"] < low:
        return (
            "contrast",
            f"almost no contrast: standard deviation {value['std']:.0f} gray values, X-rays have {low:.0f} or more",
        )
    if value["likeness"] < 0 and value["likeness"] <= -bounds["likeness"][0]:
        return "inverted", "the gray values look inverted: dark where a chest X-ray is bright, bright where it is dark"
    if value["detail"] > bounds["detail"][1]:
        return "grain", "grainy all over, like noise or a fine pattern: no chest X-ray"
    if value["likeness"] < bounds["likeness"][0]:
        return "layout", "its layout of bright and dark is not that of a chest X-ray from the front"
    low_mean, high_mean = bounds["mean"]
    if not low_mean <= value["mean"] <= high_mean:
        word = "dark" if value["mean"] < low_mean else "bright"
        limits = f"mean gray value {value['mean']:.0f}, X-rays have {low_mean:.0f} to {high_mean:.0f}"
        return "brightness", f"too {word}: {limits}"
    if value["std"] > high:
        return (
            "contrast",
            f"contrast too high: standard deviation {value['std']:.0f} gray values, X-rays have {high:.0f} or less",
        )
    return None


def _turned(degrees: int) -> tuple[str, str] | None:
    turn = min(degrees, 360 - degrees)
    if turn <= UPRIGHT:
        return None
    return "turned", f"it looks turned by about {turn} degrees, or upside down; a chest X-ray has to stand upright"


def _unfamiliar(distance: Mapping[str, float]) -> tuple[str, str] | None:
    if max(distance.values()) <= 1:
        return None
    part = max(distance, key=lambda name: distance[name])
    what = {
        "style": "its texture, sharpness and gray curve are",
        "features": "what the network finds in it is",
    }[part]
    return (
        "unfamiliar",
        f"outside the population it was trained on: {what} {distance[part]:.2f} times as far from the training X-rays "
        "as held-out ones are at most",
    )


def _turns(images: NDArray[np.uint8], pattern: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return by how many degrees the mean training image has to be turned to fit each image best, and how well."""
    inside, turned = _turned_patterns(pattern.tobytes())
    grids = _grid(images).reshape(len(images), GRID, GRID)[:, inside]
    likeness = _unit(grids) @ turned.T
    return np.array(TURNS)[likeness.argmax(1)], likeness.max(1)


@functools.lru_cache(maxsize=8)  # those of the detectors in use: they would take half of the time of a check
def _turned_patterns(pattern: bytes) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which places lie in the circle that is compared, ``[GRID, GRID]``, and those of each turned pattern."""
    import cv2

    middle = (GRID - 1) / 2
    rows, columns = np.indices((GRID, GRID)) - middle
    inside = rows**2 + columns**2 <= (GRID / 2) ** 2
    upright = np.frombuffer(pattern, np.float64).reshape(GRID, GRID)
    turned = []
    for degrees in TURNS:
        matrix = cv2.getRotationMatrix2D((middle, middle), float(degrees), 1.0)
        turned.append(cv2.warpAffine(upright, matrix, (GRID, GRID), borderMode=cv2.BORDER_REFLECT)[inside])
    return inside, _unit(np.stack(turned))


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = rows - rows.mean(1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)


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
