"""Probabilities that mean what they say, and thresholds to act on; both are chosen on validation images only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pneumolib.errors import DataError
from pneumolib.evaluation.metrics import Bools, Floats, checked

TARGET = 0.98  # of sensitivity at "high_sensitivity", of specificity at "high_specificity"
_COOLEST, _HOTTEST = 1e-3, 1e5  # temperatures searched
_LIMIT = 16.0  # logit beyond which float32 probabilities cannot be told from 0 and 1
_GRID = 2001  # steps of about 1/60 in the logit


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on P(pneumonia), strictly between 0 and 1, with what it reached on the images that chose it."""

    name: str
    threshold: float
    sensitivity: float
    specificity: float
    rule: str

    def __str__(self) -> str:
        return (
            f"{self.name}: pneumonia from {self.threshold:.3f} on "
            f"(validation sensitivity {self.sensitivity:.3f}, specificity {self.specificity:.3f})"
        )


def fit_temperature(logits: ArrayLike, targets: ArrayLike) -> float:
    """Return the temperature that makes ``softmax(logits / T)`` most likely, above 0; above 1 where the logits boast.

    Temperature scaling is Guo et al. (2017), arXiv:1706.04599. A validation set without a single error would send T to
    0, and every later error would come with certainty; so the targets are smoothed as Platt (1999) did for two
    classes: the true class of an image of class k weighs (n_k + 1) / (n_k + C), each other class 1 / (n_k + C).

    Args:
        logits: float [N, C], finite, of images that the model was not trained on.
        targets: int [N], the true class 0..C-1.

    Raises:
        DataError: shapes that do not fit, no images, values that are not finite, or a class that does not exist.

    Example:
        >>> fit_temperature([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]], [0, 0, 1, 1]) > 1
        True
    """
    from scipy.optimize import minimize_scalar

    z = _checked_logits(logits)
    y = np.asarray(targets)
    n_classes = z.shape[1]
    if y.shape != z.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        raise DataError(
            f"Targets must be an int array with one class for each of the {len(z)} rows of logits. "
            f"Received: {y.dtype} {y.shape}"
        )
    if y.min() < 0 or y.max() >= n_classes:
        raise DataError(f"Targets must be classes 0..{n_classes - 1}. Received: {y.min()} to {y.max()}")
    z = z - z.max(1, keepdims=True)
    if not z.any():
        return 1.0
    counts = np.bincount(y, minlength=n_classes)[y].astype(np.float64)
    wanted = np.repeat(1 / (counts + n_classes)[:, None], n_classes, axis=1)
    wanted[np.arange(len(y)), y] = (counts + 1) / (counts + n_classes)
    pull = float((wanted * z).sum())

    def loss(log_temperature: float) -> float:
        t = np.exp(log_temperature)
        return float(np.log(np.exp(z / t).sum(1)).sum() - pull / t) / len(z)

    # Convex in 1 / T, so there is one minimum in log T too.
    bounds = (np.log(_COOLEST), np.log(_HOTTEST))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def apply_temperature(logits: ArrayLike, temperature: float) -> NDArray[np.float32]:
    """Return the probabilities ``softmax(logits / temperature)``, float32 [N, C].

    Args:
        logits: float [N, C], finite.
        temperature: above 0, as `fit_temperature` gives it.

    Raises:
        DataError: logits that are not finite or not [N, C], or a temperature that is not above 0.

    Example:
        >>> f"{apply_temperature([[2.0, 0.0]], 2.0)[0, 0]:.3f}"
        '0.731'
    """
    z = _checked_logits(logits, allow_empty=True)
    if not (np.isfinite(temperature) and temperature > 0):
        raise DataError(f"A temperature is a number above 0. Received: {temperature!r}")
    e = np.exp((z - z.max(1, keepdims=True)) / temperature)
    return (e / e.sum(1, keepdims=True)).astype(np.float32)


def choose_operating_points(y_true: ArrayLike, p: ArrayLike) -> dict[str, OperatingPoint]:
    """Return the thresholds "balanced", "high_sensitivity" and "high_specificity", chosen on validation images.

    - **balanced** maximises sensitivity + specificity - 1 (Youden's index) of the kernel-smoothed distributions of the
      logits in the two classes (Fluss, Faraggi & Reiser, 2005, Biometrical Journal 47, 458-472). On validation images
      that are nearly all right, the raw index hangs on two or three of them, and is flat in between; the smoothed one
      uses all, and lies in the middle of the gap between classes that separate.
    - **high_sensitivity** is the largest threshold that keeps 98 % of the pneumonia, **high_specificity** the smallest
      that keeps 98 % of the normal images; each lies half-way, in the logit, to the next image. Where the balanced
      threshold keeps 98 % already, so that the first would lie above it or the second below it, it is used itself: a
      point named for its sensitivity is never less sensitive than the balanced one.

    Args:
        y_true: bool or 0/1 [N], both classes present.
        p: calibrated probability of pneumonia, float [N] in 0..1.

    Raises:
        DataError: see `metrics.checked`; or only one class is present.

    Example:
        >>> points = choose_operating_points([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
        >>> round(points["balanced"].threshold, 2)
        0.5
    """
    truth, values = checked(y_true, p)
    if truth.all() or not truth.any():
        raise DataError(
            "Thresholds can be chosen only where both classes are present. "
            f"Received: {int(truth.sum())} pneumonia and {int((~truth).sum())} normal images"
        )
    scores = logit(values)
    balanced = _smoothed_youden(scores[truth], scores[~truth])
    sensitive = min(balanced, _keeping(scores[truth], scores))
    specific = max(balanced, -_keeping(-scores[~truth], -scores))
    chosen = {
        "balanced": (balanced, "largest kernel-smoothed sensitivity + specificity"),
        "high_sensitivity": (sensitive, f"largest threshold with sensitivity >= {TARGET}, at most the balanced one"),
        "high_specificity": (specific, f"smallest threshold with specificity >= {TARGET}, at least the balanced one"),
    }
    return {name: _point(name, cut, rule, truth, values) for name, (cut, rule) in chosen.items()}


def _point(name: str, logit: float, rule: str, truth: Bools, p: Floats) -> OperatingPoint:
    threshold = float(1 / (1 + np.exp(-logit)))
    called = p >= threshold
    return OperatingPoint(name, threshold, float(called[truth].mean()), float((~called)[~truth].mean()), rule)


def logit(p: Floats) -> Floats:
    """Return the logit of probabilities, cut off where float32 could not tell them from 0 and 1."""
    with np.errstate(divide="ignore"):
        return np.clip(np.log(p) - np.log1p(-p), -_LIMIT, _LIMIT)


def _keeping(kept: Floats, scores: Floats) -> float:
    """The largest cut that `TARGET` of `kept` reach, moved half-way down to the next score, which changes no call."""
    may_lose = int(np.floor((1 - TARGET) * len(kept) + 1e-9))
    edge = float(np.sort(kept)[may_lose])
    below = scores[scores < edge]
    return (edge + float(below.max())) / 2 if len(below) else edge - 1.0


def _smoothed_youden(ill: Floats, well: Floats) -> float:
    """The logit at which the kernel estimates of sensitivity and specificity add up to most; a plateau's middle."""
    from scipy.special import ndtr

    def share_below(scores: Floats, cuts: Floats) -> Floats:
        return ndtr((cuts[:, None] - scores) / _bandwidth(scores)).mean(1)

    # Outside the medians half of a class would be called wrongly: only a useless detector has its optimum there.
    low, high = sorted((float(np.median(well)), float(np.median(ill))))
    cuts = np.linspace(low, high, _GRID)
    index = share_below(well, cuts) - share_below(ill, cuts)
    best = cuts[index >= index.max() - 1e-9]
    return float((best[0] + best[-1]) / 2)


def _bandwidth(scores: Floats) -> float:
    """Silverman's rule (1986, equation 3.31), not below a tenth of a logit: saturated scores all but coincide."""
    quarter, three_quarters = np.quantile(scores, (0.25, 0.75))
    spread = min(float(scores.std()), float(three_quarters - quarter) / 1.34)
    return float(max(0.1, 0.9 * spread * len(scores) ** -0.2))


def _checked_logits(logits: ArrayLike, *, allow_empty: bool = False) -> Floats:
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] < 2 or not (len(z) or allow_empty):
        raise DataError(f"Logits must be [N, C] with N >= 1 and C >= 2. Received: shape {z.shape}")
    if not np.isfinite(z).all():
        raise DataError(f"Logits must be finite. Received: {int((~np.isfinite(z)).sum())} that are not")
    return z
