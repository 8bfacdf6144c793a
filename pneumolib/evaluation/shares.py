"""Shares of images, each with an interval from resampled patients, which several measures have in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pneumolib.errors import DataError
from pneumolib.evaluation.metrics import Floats, Interval, wilson

_CELLS = 2_000_000  # counts held at once while resampling: 16 MB


def patient_numbers(patients: ArrayLike | None, n: int) -> NDArray[np.intp]:
    """Return the patient of each image as a number from 0 on, int [N]; None makes each image its own patient.

    Raises:
        DataError: `patients` does not name one patient for each of the `n` images.

    Example:
        >>> patient_numbers(["b", "a", "b"], 3).tolist()
        [1, 0, 1]
    """
    if patients is None:
        return np.arange(n)
    names = np.asarray(patients)
    if names.shape != (n,):
        raise DataError(f"`patients` must name the patient of each image. Received: shape {names.shape} for {n} images")
    return np.unique(names, return_inverse=True)[1]


def patient_shares(
    hits: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    equal: bool = False,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> list[Interval]:
    """Return the share of images that are hit, for each column of `hits`, with percentiles over resampled patients.

    A share of exactly 0 or 1, which resampling cannot vary, has Wilson's interval over patients, as in
    `metrics.bootstrap`.

    Args:
        hits: bool [N, K]: K questions about each image.
        patients: the patient of each image [N]; None makes each image its own patient.
        equal: each patient weighs the same, and a patient's images share this weight; otherwise each image does.
        n: resamples.
        seed: of the resampling.
        level: of confidence, between 0 and 1.

    Raises:
        DataError: no images, shapes that do not fit, or a setting out of range.

    Example:
        >>> hits = [[True], [True], [True], [False]]
        >>> names = ["a", "a", "a", "b"]
        >>> patient_shares(hits, names)[0].value, patient_shares(hits, names, equal=True)[0].value
        (0.75, 0.5)
    """
    hit = np.asarray(hits)
    if hit.ndim != 2 or not len(hit) or hit.dtype != np.bool_:
        raise DataError(f"Hits must be bool [N, K] with N >= 1. Received: {hit.dtype} {hit.shape}")
    if n < 1:
        raise DataError(f"The bootstrap needs at least one resample. Received: n={n}")
    if not 0 < level < 1:
        raise DataError(f"A level of confidence lies between 0 and 1, such as 0.95. Received: {level!r}")
    patient = patient_numbers(patients, len(hit))
    images = np.bincount(patient).astype(np.float64)
    total = len(images)
    weight = 1 / images[patient] if equal else np.ones(len(hit))
    size = np.bincount(patient, weight)
    found = np.zeros((total, hit.shape[1]))
    np.add.at(found, patient, hit * weight[:, None])
    rng, step = np.random.default_rng(seed), max(1, _CELLS // total)
    parts = []
    for start in range(0, n, step):
        times = _times_drawn(total, min(step, n - start), rng)
        parts.append((times @ found) / (times @ size)[:, None])
    outside = (1 - level) / 2
    low, high = np.quantile(np.concatenate(parts), (outside, 1 - outside), axis=0)
    shares = []
    for k, column in enumerate(hit.T):
        if column.all() or not column.any():
            shares.append(wilson(total if column.all() else 0, total, level))
        else:
            value = float(found[:, k].sum() / size.sum())
            shares.append(Interval(value, min(float(low[k]), value), max(float(high[k]), value)))
    return shares


def _times_drawn(total: int, n: int, rng: np.random.Generator) -> Floats:
    """How often each of `total` patients is drawn in each of `n` resamples, [n, total]."""
    drawn = rng.integers(total, size=(n, total)) + total * np.arange(n)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * total).reshape(n, total).astype(np.float64)
