"""How familiar a picture is to the network: distances of its inner statistics from those of the training X-rays.

Two things are looked at, both as the network computes them on its way to an answer:

- **style**: mean and spread of every channel of three early layers (`style_layers`), which tell how a picture was
  taken and processed: texture, sharpness, gray curve. Similar statistics find foreign pictures in Sastry & Oore, 2020,
  arXiv:1912.12510.
- **features**: the mean of the last feature map, from which the answer is computed (Lee et al., 2018,
  arXiv:1807.03888).

For each a Gaussian is fitted to the training images, for the features with one centre a class, and the squared
Mahalanobis distance to the nearest centre is measured. The covariance is kept as its main axes and one variance for all
the rest (Tipping & Bishop, 1999, J. R. Stat. Soc. B 61, 611-622), which needs fewer images and less room. The limits
are set on held-out X-rays, which are not flattered by the fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumolib.errors import ArtifactError, DataError

PARTS = ("style", "features")
COMPONENTS = 128  # main axes that are kept, of each part
QUANTILE = 0.99  # of the held-out X-rays are within the limit
# The limit as a multiple of that quantile. With 1 for both, the detector that ships refused 10 of 416 X-rays of
# validation instead of 7, and half of the synthetic ones instead of none; of 1,632 pictures that should be refused,
# these limits let two more through.
MARGIN = {"style": 1.5, "features": 1.8}
_FIELDS = ("centres", "axes", "rest", "limit")
_FLOOR = 1e-6

Inner = Mapping[str, NDArray[np.floating[Any]]]


class Familiarity:
    """Distances from training images, as multiples of what held-out X-rays keep to; `fit_familiarity` makes it.

    Args:
        arrays: float32 arrays by the names ``style.centres``, ``style.axes``, ``style.rest``, ``style.limit`` and the
            same of ``features``.

    Raises:
        ArtifactError: the arrays are not those of a fit.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        wanted = {f"{part}.{field}" for part in PARTS for field in _FIELDS}
        if set(arrays) != wanted:
            raise ArtifactError(f"The detector's familiarity is damaged: it should hold {', '.join(sorted(wanted))}.")
        # In order, since safetensors writes the bytes of an array as they lie.
        self.arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
        for part in PARTS:
            centres, axes, rest, limit = (self.arrays[f"{part}.{field}"] for field in _FIELDS)
            fits = centres.ndim == 2 and axes.ndim == 2 and axes.shape[0] == centres.shape[1]
            fits = fits and rest.shape == limit.shape == (1,) and bool(rest[0] > 0 and limit[0] > 0)
            if not fits or not all(np.isfinite(array).all() for array in (centres, axes, rest, limit)):
                raise ArtifactError(f"The detector's familiarity is damaged: the arrays of its {part} do not fit.")

    def distances(self, inner: Inner) -> dict[str, NDArray[np.float64]]:
        """Return for each part the distance of each image, float ``[N]``; above 1 is farther than X-rays are.

        Args:
            inner: ``style`` and ``features`` of the images, float ``[N, K]``.

        Raises:
            DataError: a part is missing or has another width than the fit.
        """
        found = {}
        for part in PARTS:
            centres, axes, rest, limit = (self.arrays[f"{part}.{field}"] for field in _FIELDS)
            x = np.asarray(inner.get(part, np.empty((0, 0))), np.float64)
            if x.ndim != 2 or x.shape[1] != centres.shape[1]:
                raise DataError(
                    f"The {part} must be float [N, {centres.shape[1]}]. Received: shape {list(np.shape(x))}"
                )
            found[part] = _squared_distance(x, centres, axes, float(rest[0])) / float(limit[0])
        return found


def fit_familiarity(train: Inner, held_out: Inner, targets: NDArray[np.int64]) -> Familiarity:
    """Return the `Familiarity` with the training images, its limits set on held-out X-rays.

    Args:
        train: ``style`` and ``features`` of training images, float ``[N, K]``.
        held_out: the same of validation images. The fewer they are, the wider the limits, since the quantile of few is
            not known well.
        targets: the class of each training image, int ``[N]``.

    Raises:
        DataError: fewer than ten training or one held-out image, or counts that do not fit.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> def drawn(n): return {"style": rng.normal(size=(n, 6)), "features": rng.normal(size=(n, 4))}
        >>> familiarity = fit_familiarity(drawn(300), drawn(100), rng.integers(0, 2, 300))
        >>> far = {name: values + 9 for name, values in drawn(5).items()}
        >>> bool((familiarity.distances(far)["style"] > 1).all())
        True
    """
    n, n_held_out = len(targets), len(held_out["style"])
    if n < 10 or n_held_out < 1 or any(len(train[part]) != n or len(held_out[part]) != n_held_out for part in PARTS):
        raise DataError(
            "Familiarity needs ten training images or more with a class each, and held-out ones. Received: "
            f"{n} classes, {[len(train[part]) for part in PARTS]} and {[len(held_out[part]) for part in PARTS]} images"
        )
    arrays: dict[str, NDArray[Any]] = {}
    for part in PARTS:
        x = np.asarray(train[part], np.float64)
        # How a picture was taken has no class; what is seen in it has.
        labels = np.zeros(n, np.int64) if part == "style" else np.unique(targets, return_inverse=True)[1]
        centres = np.stack([x[labels == label].mean(0) for label in range(labels.max() + 1)])
        off = x - centres[labels]
        variances, axes = np.linalg.eigh(off.T @ off / n)
        order = np.argsort(variances)[::-1]
        kept = min(COMPONENTS, x.shape[1], n // 4)
        variances, axes = np.maximum(variances[order], _FLOOR), axes[:, order]
        rest = float(variances[kept:].mean()) if kept < x.shape[1] else float(variances[-1])
        # The limit is set on distances computed from the numbers as they are stored.
        stored = {
            "centres": centres.astype(np.float32),
            "axes": (axes[:, :kept] * np.sqrt(np.maximum(1 / rest - 1 / variances[:kept], 0))).astype(np.float32),
            "rest": np.array([rest], np.float32),
        }
        apart = _squared_distance(np.asarray(held_out[part], np.float64), stored["centres"], stored["axes"], rest)
        limit = MARGIN[part] * float(np.quantile(apart, QUANTILE)) * (1 + 3 / np.sqrt(n_held_out))
        arrays |= {f"{part}.{field}": array for field, array in stored.items()}
        arrays[f"{part}.limit"] = np.array([max(limit, _FLOOR)], np.float32)
    return Familiarity(arrays)


def _squared_distance(
    x: NDArray[np.float64], centres: NDArray[Any], axes: NDArray[Any], rest: float
) -> NDArray[np.float64]:
    """The squared Mahalanobis distance to the nearest centre.

    With V the main axes, L their variances and r the variance of the rest, the inverse of the covariance is
    I / r - V (1 / r - 1 / L) V'; ``axes`` holds V (1 / r - 1 / L) ** 0.5.
    """
    found = []
    for centre in centres.astype(np.float64):
        off = x - centre
        found.append((off**2).sum(1) / rest - ((off @ axes.astype(np.float64)) ** 2).sum(1))
    return np.maximum(np.min(found, axis=0), 0.0)
