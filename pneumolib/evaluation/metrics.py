"""Measures of a binary classifier, each with an interval from resampled patients.

All functions take the truth ``y_true`` (bool or 0/1 [N], True = pneumonia) and the probability ``p`` of pneumonia
(float [N] in 0..1). An image counts as called pneumonia where ``p >= threshold``. A measure that the data leaves
undefined, such as the AUC of a set with one class, is ``nan`` as a number, and ``None`` in the place of an `Interval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pneumolib.errors import DataError

METRICS = ("auc", "average_precision", "accuracy", "sensitivity", "specificity", "f1", "brier", "ece")
ECE_BINS = 15
_CELLS = 2_000_000  # weights held at once while resampling: 16 MB an array

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """A value and its confidence interval; prints as ``0.981 [0.970, 0.990]``."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def checked(y_true: ArrayLike, p: ArrayLike) -> tuple[Bools, Floats]:
    """Return truth and probabilities as arrays, bool [N] and float64 [N], after checking them.

    Raises:
        DataError: nothing to measure, lengths differ, a truth other than 0 or 1, a probability outside 0..1 or NaN.
    """
    truth, probability = np.asarray(y_true), np.asarray(p)
    if truth.ndim != 1 or truth.shape != probability.shape:
        raise DataError(
            "Truth and probabilities must be two arrays [N] of one length. "
            f"Received: shapes {truth.shape} and {probability.shape}"
        )
    if not len(truth):
        raise DataError("There is nothing to measure: at least one image is needed. Received: empty arrays")
    if truth.dtype != np.bool_ and not (np.issubdtype(truth.dtype, np.number) and np.isin(truth, (0, 1)).all()):
        raise DataError(
            "The truth must be bool, or 0 (normal) and 1 (pneumonia). "
            f"Received: dtype {truth.dtype}, values such as {list(dict.fromkeys(truth.tolist()))[:5]}"
        )
    if not np.issubdtype(probability.dtype, np.number) or np.iscomplexobj(probability):
        raise DataError(f"Probabilities must be numbers in 0..1. Received: dtype {probability.dtype}")
    values = probability.astype(np.float64)
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"Probabilities must lie in 0..1, none NaN. Received: {values[first]} at index {first} "
            f"({int(wrong.sum())} of {len(values)} are wrong)"
        )
    return truth.astype(np.bool_), values


def check_threshold(threshold: float) -> float:
    """Return `threshold` as a float; `DataError` if it does not lie in 0..1."""
    if not 0 <= threshold <= 1:
        raise DataError(f"A threshold must lie in 0..1. Received: {threshold!r}")
    return float(threshold)


def auc(y_true: ArrayLike, p: ArrayLike) -> float:
    """Return the area under the ROC curve: how often a pneumonia scores above a normal image, ties counted half.

    Args:
        y_true: bool or 0/1 [N].
        p: probability of pneumonia, float [N] in 0..1.

    Raises:
        DataError: see `checked`.

    Example:
        >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
        0.875
    """
    return _one("auc", y_true, p, 0.5)


def average_precision(y_true: ArrayLike, p: ArrayLike) -> float:
    """Return the average precision: the precision at each threshold, weighted by the recall gained there.

    Example:
        >>> average_precision([0, 1, 1], [0.5, 0.2, 0.9])
        0.8333333333333333
    """
    return _one("average_precision", y_true, p, 0.5)


def accuracy(y_true: ArrayLike, p: ArrayLike, threshold: float) -> float:
    """Return the share of images that are called rightly at `threshold`.

    Example:
        >>> accuracy([0, 1, 1, 1], [0.2, 0.5, 0.9, 0.4], 0.5)
        0.75
    """
    return _one("accuracy", y_true, p, threshold)


def sensitivity(y_true: ArrayLike, p: ArrayLike, threshold: float) -> float:
    """Return the share of pneumonia images that are called pneumonia at `threshold`.

    Example:
        >>> sensitivity([0, 1, 1], [0.2, 0.5, 0.4], 0.5)
        0.5
    """
    return _one("sensitivity", y_true, p, threshold)


def specificity(y_true: ArrayLike, p: ArrayLike, threshold: float) -> float:
    """Return the share of normal images that are called normal at `threshold`.

    Example:
        >>> specificity([0, 0, 1], [0.2, 0.5, 0.4], 0.5)
        0.5
    """
    return _one("specificity", y_true, p, threshold)


def f1(y_true: ArrayLike, p: ArrayLike, threshold: float) -> float:
    """Return the harmonic mean of precision and sensitivity for pneumonia at `threshold`.

    Example:
        >>> f1([0, 1, 1], [0.6, 0.5, 0.4], 0.5)
        0.5
    """
    return _one("f1", y_true, p, threshold)


def brier(y_true: ArrayLike, p: ArrayLike) -> float:
    """Return the Brier score: the mean squared distance of probability and truth, 0 (best) to 1.

    Example:
        >>> brier([0, 1], [0.5, 1.0])
        0.125
    """
    return _one("brier", y_true, p, 0.5)


def ece(y_true: ArrayLike, p: ArrayLike, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error: |mean probability - share of pneumonia| in bins, averaged by their size.

    Args:
        y_true: bool or 0/1 [N].
        p: probability of pneumonia, float [N] in 0..1.
        bins: number of bins of equal width.

    Raises:
        DataError: see `checked`; or there is no bin.

    Example:
        >>> ece([0, 1, 1, 1], [0.25, 0.25, 1.0, 1.0], bins=2)
        0.125
    """
    return _one("ece", y_true, p, 0.5, bins)


def bin_of(p: Floats, bins: int) -> NDArray[np.intp]:
    """Return the bin of each probability, 0..bins-1: equal widths, upper edges included, as scikit-learn does it."""
    if bins < 1:
        raise DataError(f"Calibration needs at least one bin. Received: bins={bins}")
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p)


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Return the share ``k / n`` with Wilson's score interval, which is honest for shares near 0 and 1 too.

    Wilson (1927), Journal of the American Statistical Association 22, 209-212.

    Args:
        k: successes, 0..n.
        n: trials, at least 1.
        level: of confidence, between 0 and 1.

    Raises:
        DataError: counts or level out of range.

    Example:
        >>> print(wilson(590, 624))
        0.946 [0.925, 0.961]
    """
    if n < 1 or not 0 <= k <= n:
        raise DataError(f"A share needs 0 <= k <= n and n >= 1. Received: k={k}, n={n}")
    z, share = NormalDist().inv_cdf(0.5 + _level(level) / 2), k / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    # At the ends the formula is exact, and rounding would push it past them.
    return Interval(share, 0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half)


def bootstrap(
    y_true: ArrayLike,
    p: ArrayLike,
    groups: Sequence[str] | NDArray | None,
    threshold: float,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval | None]:
    """Return each of `METRICS` with its confidence interval from resampled patients; None where it is undefined.

    Images of one patient resemble each other, so whole patients are drawn with replacement (the cluster bootstrap:
    Davison & Hinkley, 1997, section 3.8), from those with and without pneumonia apart, so that both classes are in
    every resample. The interval is that of the percentiles, with two exceptions. Where accuracy, sensitivity or
    specificity is exactly 0 or 1, resampling cannot vary it, and Wilson's interval over patients takes its place. The
    calibration error grows with the noise of resampling, so its percentiles are reflected about the value (the basic
    bootstrap). An AUC of exactly 1 keeps its empty interval: read the one of the accuracy instead.

    Args:
        y_true: bool or 0/1 [N].
        p: probability of pneumonia, float [N] in 0..1.
        groups: the patient of each image [N]; None makes each image its own patient.
        threshold: pneumonia is called where ``p >= threshold``.
        n: resamples.
        seed: of the resampling.
        level: of confidence, between 0 and 1.

    Raises:
        DataError: see `checked`; or `groups` has another length; or threshold, level or `n` is out of range.

    Example:
        >>> result = bootstrap([0, 0, 1, 1], [0.1, 0.6, 0.6, 0.9], ["a", "b", "c", "d"], 0.5)
        >>> print(result["auc"])
        0.875 [0.500, 1.000]
    """
    truth, values = checked(y_true, p)
    cut, outside = check_threshold(threshold), (1 - _level(level)) / 2
    if n < 1:
        raise DataError(f"The bootstrap needs at least one resample. Received: n={n}")
    names = np.arange(len(truth)) if groups is None else np.asarray(groups)
    if names.shape != truth.shape:
        raise DataError(f"`groups` must name the patient of each image. Received: {names.shape} for {truth.shape}")
    patient = np.unique(names, return_inverse=True)[1]
    exact = _weighted(np.ones((1, len(truth))), truth, values, cut)
    rng, step = np.random.default_rng(seed), max(1, _CELLS // len(truth))
    parts = [
        _weighted(_patient_counts(truth, patient, min(step, n - start), rng)[:, patient], truth, values, cut)
        for start in range(0, n, step)
    ]
    called_right = (values >= cut) == truth
    patients_of = {"accuracy": patient, "sensitivity": patient[truth], "specificity": patient[~truth]}
    right_of = {"accuracy": called_right, "sensitivity": called_right[truth], "specificity": called_right[~truth]}
    result: dict[str, Interval | None] = {}
    for name in METRICS:
        value = float(exact[name][0])
        if np.isnan(value):
            result[name] = None
            continue
        low, high = (float(q) for q in np.quantile(np.concatenate([x[name] for x in parts]), (outside, 1 - outside)))
        if name == "ece":
            low, high = max(0.0, min(2 * value - high, value)), max(2 * value - low, value)
        elif name in right_of and right_of[name].all() == right_of[name].any():
            count = len(np.unique(patients_of[name]))
            limits = wilson(count if right_of[name].all() else 0, count, level)
            low, high = limits.low, limits.high
        result[name] = Interval(value, low, high)
    return result


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise DataError(f"A level of confidence lies between 0 and 1, such as 0.95. Received: {level!r}")
    return level


def _patient_counts(truth: Bools, patient: NDArray[np.intp], n: int, rng: np.random.Generator) -> Floats:
    """How often each patient is drawn in each of `n` resamples, [n, patients]; the strata keep their sizes."""
    total = int(patient.max()) + 1
    ill, well = np.zeros(total, bool), np.zeros(total, bool)
    ill[patient[truth]], well[patient[~truth]] = True, True
    counts = np.zeros((n, total))
    # Patients with images of both classes, which real patients seldom have, form a stratum of their own.
    for members in (np.flatnonzero(ill & ~well), np.flatnonzero(well & ~ill), np.flatnonzero(ill & well)):
        if len(members):
            drawn = rng.integers(len(members), size=(n, len(members)))
            flat = (drawn + len(members) * np.arange(n)[:, None]).ravel()
            counts[:, members] = np.bincount(flat, minlength=n * len(members)).reshape(n, -1)
    return counts


def _one(name: str, y_true: ArrayLike, p: ArrayLike, threshold: float, bins: int = ECE_BINS) -> float:
    truth, values = checked(y_true, p)
    return float(_weighted(np.ones((1, len(truth))), truth, values, check_threshold(threshold), bins)[name][0])


def _weighted(weights: Floats, truth: Bools, p: Floats, threshold: float, bins: int = ECE_BINS) -> dict[str, Floats]:
    """All metrics of B weightings of the N images at once: weights [B, N] in, arrays [B] out, nan where undefined."""
    called = p >= threshold
    columns = np.stack([truth & called, truth & ~called, ~truth & called, ~truth & ~called, (p - truth) ** 2], axis=1)
    tp, fn, fp, tn, squares = (weights @ columns).T
    surplus = np.zeros((len(p), bins))
    surplus[np.arange(len(p)), bin_of(p, bins)] = p - truth
    ill, well = tp + fn, fp + tn
    total = ill + well

    order = np.argsort(p)
    starts = np.flatnonzero(np.diff(p[order], prepend=-1.0))  # where each distinct probability begins
    # [B, distinct values], rising: one step of the ROC curve for each distinct value is what makes ties right.
    ill_at = np.add.reduceat(weights[:, order] * truth[order], starts, axis=1)
    well_at = np.add.reduceat(weights[:, order] * ~truth[order], starts, axis=1)
    well_below = np.cumsum(well_at, axis=1) - well_at
    ill_above = np.cumsum(ill_at[:, ::-1], axis=1)[:, ::-1]
    well_above = np.cumsum(well_at[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(ill_above / (ill_above + well_above))
        both = np.where((ill > 0) & (well > 0), 1.0, np.nan)
        return {
            "auc": both * (ill_at * (well_below + well_at / 2)).sum(1) / (ill * well),
            "average_precision": both * (ill_at * precision).sum(1) / ill,
            "accuracy": (tp + tn) / total,
            "sensitivity": tp / ill,
            "specificity": tn / well,
            "f1": np.where(ill > 0, 2 * tp / (2 * tp + fp + fn), np.nan),
            "brier": squares / total,
            "ece": np.abs(weights @ surplus).sum(1) / total,
        }
