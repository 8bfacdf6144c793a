"""What a detector's numbers mean for children: how many are found, missed, and alarmed for nothing, where pneumonia has
a stated prevalence; and whether acting on the detector is worth it.

Sensitivity and specificity are taken to be the same there as where they were measured. That holds where ill children
look like the ill ones measured, and healthy like the healthy; another prevalence, called prior shift or label shift, is
then the only difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from pneumolib.errors import DataError
from pneumolib.evaluation.calibration import OperatingPoint
from pneumolib.evaluation.metrics import Floats, Interval, checked
from pneumolib.evaluation.report import Report
from pneumolib.evaluation.shares import patient_numbers, patient_shares

if TYPE_CHECKING:
    import pandas as pd

GROUPS = ("found", "missed", "alarmed", "left_alone")


@dataclass(frozen=True)
class Consequences:
    """What happens to `n` children when the detector answers for each; `consequences` makes it.

    Attributes:
        n: children.
        prevalence: share of them with pneumonia.
        found: children with pneumonia who are called so.
        missed: children with pneumonia who are called normal.
        alarmed: healthy children who are called pneumonia, for nothing.
        left_alone: healthy children who are called normal.
        ppv: share of the alarms that are right; nan where there is no alarm.
        npv: share of the all-clears that are right; nan where there is none.
        alarms_per_found: alarms for each child found, 1 / `ppv`.
        intervals: of any of these numbers, by name; empty where sensitivity and specificity came without.
        name: what the numbers belong to, such as "balanced".
        phantom: they come from synthetic X-rays, and mean nothing.
    """

    n: int
    prevalence: float
    found: float
    missed: float
    alarmed: float
    left_alone: float
    ppv: float
    npv: float
    alarms_per_found: float
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    name: str = ""
    phantom: bool = False

    @property
    def children(self) -> dict[str, int]:
        """The four groups in whole children, which add up to `n`: found, missed, alarmed, left_alone."""
        ill, found, alarmed = round(self.n * self.prevalence), round(self.found), round(self.alarmed)
        # Halves may both be rounded up: a found child more than there are ill ones would make a missed one negative.
        found, alarmed = min(found, ill), min(alarmed, self.n - ill)
        return dict(zip(GROUPS, (found, ill - found, alarmed, self.n - ill - alarmed), strict=True))

    def count(self, group: str) -> str:
        """Return a group in words: ``194``, or ``194 (190 to 197)`` where there is an interval."""
        whole = self.children[group]
        text = "fewer than 1" if whole == 0 and getattr(self, group) > 0 else f"{whole:,}"
        interval = self.intervals.get(group)
        return f"{text} ({round(interval.low):,} to {round(interval.high):,})" if interval else text

    def share(self, name: str) -> str:
        """Return "ppv" or "npv" in words: ``67 %``, or ``67 % (59 % to 74 %)`` where there is an interval."""
        return percent(self.intervals.get(name, getattr(self, name)))

    def __str__(self) -> str:
        ill = round(self.n * self.prevalence)
        head = f"{'PHANTOM: ' if self.phantom else ''}{self.name + ': ' if self.name else ''}"
        alarm = "No alarm is raised" if np.isnan(self.ppv) else f"An alarm is right in {self.share('ppv')}"
        clear = "No all-clear is given" if np.isnan(self.npv) else f"An all-clear is right in {self.share('npv')}"
        return (
            f"{head}Of {self.n:,} children of whom {ill:,} have pneumonia, {self.count('found')} are found and "
            f"{self.count('missed')} missed; {self.count('alarmed')} of the {self.n - ill:,} healthy are alarmed for "
            f"nothing. {alarm}. {clear}."
        )


def consequences(
    sensitivity: float | Interval,
    specificity: float | Interval,
    prevalence: float,
    n: int = 1000,
    *,
    name: str = "",
    phantom: bool = False,
) -> Consequences:
    """Return what happens to `n` children of whom the share `prevalence` has pneumonia.

    Where sensitivity and specificity both come with intervals, so do the results, at the same level. Sensitivity is
    measured on ill and specificity on healthy children, so the two are independent, and their intervals are combined
    by MOVER (Zou & Donner, 2008, Statistics in Medicine 27, 1693-1702; ratios: Donner & Zou, 2012, Statistical Methods
    in Medical Research 21, 347-359). They tell how well the two are known. How far a group of `n` children departs from
    the average by chance, and how well the prevalence is known, is not in them.

    Args:
        sensitivity: share of the ill who are called pneumonia, 0..1, or its `Interval`.
        specificity: share of the healthy who are called normal, 0..1, or its `Interval`.
        prevalence: share of children with pneumonia where the detector is used, between 0 and 1.
        n: children, at least 1.
        name: what the numbers belong to, for the reader.
        phantom: they come from synthetic X-rays.

    Raises:
        DataError: a number is out of its range.

    Example:
        >>> print(consequences(0.97, 0.88, 0.2))
        Of 1,000 children of whom 200 have pneumonia, 194 are found and 6 missed; 96 of the 800 healthy are alarmed \
for nothing. An alarm is right in 67 %. An all-clear is right in 99.2 %.
    """
    se, sp = _rate("sensitivity", sensitivity), _rate("specificity", specificity)
    share = check_prevalence(prevalence)
    if n != int(n) or n < 1:
        raise DataError(f"Children are counted in whole numbers, from 1 on. Received: n={n!r}")
    ill, well = n * share, n * (1 - share)
    parts = {
        "found": _scaled(se, ill),
        "missed": _scaled(_complement(se), ill),
        "alarmed": _scaled(_complement(sp), well),
        "left_alone": _scaled(sp, well),
    }
    parts["ppv"] = _part(parts["found"], parts["alarmed"])
    parts["npv"] = _part(parts["left_alone"], parts["missed"])
    ppv = parts["ppv"]
    parts["alarms_per_found"] = Interval(*(1 / x if x else np.inf for x in (ppv.value, ppv.high, ppv.low)))
    known = isinstance(sensitivity, Interval) and isinstance(specificity, Interval)
    values = {key: part.value for key, part in parts.items()}
    intervals = {key: part for key, part in parts.items() if known and not np.isnan(part.value)}
    return Consequences(int(n), share, **values, intervals=intervals, name=name, phantom=phantom)


def consequences_of(
    result: Report | OperatingPoint, prevalence: float, n: int = 1000, *, phantom: bool | None = None
) -> Consequences:
    """Return the `consequences` of what was measured: with intervals from a report, without from an operating point.

    Args:
        result: a `Report`; or an `OperatingPoint`, whose numbers are those on the validation images that chose it, and
            therefore flatter.
        prevalence: share of children with pneumonia where the detector is used, between 0 and 1.
        n: children, at least 1.
        phantom: they come from synthetic X-rays; None takes it from the report.

    Raises:
        DataError: a number is out of its range, or the report has images of one class only.

    Example:
        >>> print(consequences_of(OperatingPoint("balanced", 0.4, 0.95, 0.9, "rule"), 0.5, n=100))
        balanced, on validation: Of 100 children of whom 50 have pneumonia, 48 are found and 2 missed; 5 of the 50 \
healthy are alarmed for nothing. An alarm is right in 90 %. An all-clear is right in 95 %.
    """
    if isinstance(result, OperatingPoint):
        name = f"{result.name}, on validation"
        return consequences(result.sensitivity, result.specificity, prevalence, n, name=name, phantom=bool(phantom))
    sensitivity, specificity = result.metrics["sensitivity"], result.metrics["specificity"]
    if sensitivity is None or specificity is None:
        raise DataError(
            "Consequences need sensitivity and specificity, so a report on images of both classes. "
            f"Received: {_known(sensitivity)} sensitivity, {_known(specificity)} specificity"
        )
    shown = result.phantom if phantom is None else phantom
    return consequences(sensitivity, specificity, prevalence, n, name=result.operating_point, phantom=shown)


def adjust_for_prevalence(p: ArrayLike, from_: float, to: float) -> Floats:
    """Return the probabilities as they would be where pneumonia has another prevalence, float64 of the shape of `p`.

    The odds are multiplied by the ratio of the prior odds (Saerens, Latinne & Decaestecker, 2002, Neural Computation
    14, 21-41). That is right under two assumptions: `p` is calibrated where the prevalence is `from_`, and ill and
    healthy children look the same in both places. Neither can be checked without labelled images from
    there. The order of the images stays, so the AUC does, and so does each decision whose threshold is moved alike.

    Args:
        p: probability of pneumonia, float in 0..1; 0 and 1 stay.
        from_: prevalence for which `p` is calibrated, between 0 and 1: the share among the validation images.
        to: prevalence where it will be used, between 0 and 1.

    Raises:
        DataError: a probability outside 0..1 or NaN, or a prevalence that is not between 0 and 1.

    Example:
        >>> adjust_for_prevalence([0.0, 0.5, 0.9, 1.0], from_=0.5, to=0.1).round(3).tolist()
        [0.0, 0.1, 0.5, 1.0]
    """
    shape = np.shape(p)
    values = checked(np.zeros(np.size(p), bool), np.reshape(p, -1))[1] if np.size(p) else np.zeros(0)
    before, after = check_prevalence(from_), check_prevalence(to)
    ill, well = values * (after / before), (1 - values) * ((1 - after) / (1 - before))
    return (ill / (ill + well)).reshape(shape)


@dataclass(frozen=True)
class DecisionCurve:
    """The net benefit of acting on the detector, on every child and on none; `decision_curve` makes it.

    Attributes:
        prevalence: share of children with pneumonia.
        thresholds: probabilities of pneumonia from which on one would act, float [T].
        model: net benefit of acting where ``p >= threshold``, float [T]; at most the prevalence.
        low, high: its interval at each threshold, float [T].
        treat_all: net benefit of acting on every child, float [T]; of acting on none it is 0.
    """

    prevalence: float
    thresholds: Floats
    model: Floats
    low: Floats
    high: Floats
    treat_all: Floats

    @property
    def treat_none(self) -> Floats:
        """Zeros, float [T]."""
        return np.zeros_like(self.thresholds)

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each threshold: threshold, model, low, high, treat_all, treat_none."""
        import pandas as pd

        columns = ("model", "low", "high", "treat_all", "treat_none")
        return pd.DataFrame({"threshold": self.thresholds, **{name: getattr(self, name) for name in columns}})


def decision_curve(
    y_true: ArrayLike,
    p: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    thresholds: ArrayLike | None = None,
    prevalence: float | None = None,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> DecisionCurve:
    """Return the net benefit of acting on the detector at each threshold, with 95 % intervals from resampled patients.

    Who acts from a probability t on says that a found child is worth (1 - t) / t alarms for nothing. In this currency,
    net benefit is the share of children found, less the share alarmed for nothing times t / (1 - t) (Vickers & Elkin,
    2006, Medical Decision Making 26, 565-574). 0.15 is as good as finding 15 of 100 children without one wrong alarm.

    `p` is compared with the thresholds as it stands. Where `prevalence` is not the one that `p` is calibrated for,
    give probabilities that are: `adjust_for_prevalence`. The intervals hold at each threshold, not for the whole curve.

    Args:
        y_true: bool or 0/1 [N], both classes present.
        p: probability of pneumonia, float [N] in 0..1.
        patients: the patient of each image [N]; None makes each image its own patient.
        thresholds: float [T], 0 or more and below 1; None takes 0.01, 0.02 ... 0.9, beyond
            which single false alarms outweigh all else.
        prevalence: share of children with pneumonia, between 0 and 1; None takes the share among these images.
        n_bootstrap: resamples of patients.
        seed: of the resampling.

    Raises:
        DataError: see `metrics.checked`; or one class is missing; or another number is out of its range.

    Example:
        >>> curve = decision_curve([0, 0, 1, 1], [0.1, 0.6, 0.7, 0.9], thresholds=[0.5, 0.65])
        >>> curve.model.tolist(), curve.treat_all.round(3).tolist()
        ([0.25, 0.5], [0.0, -0.429])
    """
    truth, values = checked(y_true, p)
    if truth.all() or not truth.any():
        raise DataError("A decision curve needs images of both classes. Received: only one class")
    cuts = np.linspace(0.01, 0.9, 90) if thresholds is None else np.asarray(thresholds)
    if cuts.ndim != 1 or not len(cuts) or not np.issubdtype(cuts.dtype, np.number) or not (
        (cuts >= 0) & (cuts < 1)
    ).all():  # fmt: skip
        raise DataError(f"Thresholds must be an array [T] of numbers, 0 or more and below 1. Received: {thresholds!r}")
    cuts = cuts.astype(np.float64)
    share = float(truth.mean()) if prevalence is None else check_prevalence(prevalence)
    patient = patient_numbers(patients, len(truth))
    called = values[:, None] >= cuts
    found = patient_shares(called[truth], patient[truth], n=n_bootstrap, seed=seed)
    alarmed = patient_shares(called[~truth], patient[~truth], n=n_bootstrap, seed=seed + 1)
    price = cuts / (1 - cuts)
    pairs = zip(found, alarmed, price, strict=True)
    benefit = [_difference(_scaled(hit, share), _scaled(false, (1 - share) * float(w))) for hit, false, w in pairs]
    return DecisionCurve(
        prevalence=share,
        thresholds=cuts,
        model=np.array([b.value for b in benefit]),
        low=np.array([b.low for b in benefit]),
        high=np.array([b.high for b in benefit]),
        treat_all=share - (1 - share) * price,
    )


def check_prevalence(prevalence: float) -> float:
    """Return `prevalence` as a float; `DataError` if it does not lie between 0 and 1."""
    if not 0 < prevalence < 1:
        raise DataError(f"A prevalence lies between 0 and 1, such as 0.2. Received: {prevalence!r}")
    return float(prevalence)


def percent(share: float | Interval) -> str:
    """Return a share in whole percent, or in tenths where it or a limit is near 0 or 100; never rounded to certainty.

    Example:
        >>> percent(0.674), percent(0.99996), percent(1.0), percent(Interval(0.98, 0.97, 0.99))
        ('67 %', '99.9 %', '100 %', '98.0 % (97.0 % to 99.0 %)')
    """
    numbers = (share.value, share.low, share.high) if isinstance(share, Interval) else (share,)
    digits = 0 if all(0.015 <= x < 0.985 or x in (0, 1) for x in numbers) else 1
    said = [f"{100 * x:.0f} %" if x in (0, 1) else f"{min(max(100 * x, 0.1), 99.9):.{digits}f} %" for x in numbers]
    return said[0] if len(said) == 1 else f"{said[0]} ({said[1]} to {said[2]})"


def _rate(name: str, rate: float | Interval) -> Interval:
    """A rate with its limits, which are the rate itself where it came without."""
    interval = rate if isinstance(rate, Interval) else Interval(float(rate), float(rate), float(rate))
    if not 0 <= interval.low <= interval.value <= interval.high <= 1:
        raise DataError(f"A {name} lies in 0..1, and within its interval. Received: {rate!r}")
    return interval


def _known(interval: Interval | None) -> str:
    return "no" if interval is None else "a"


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(factor * interval.value, factor * interval.low, factor * interval.high)


def _complement(interval: Interval) -> Interval:
    return Interval(1 - interval.value, 1 - interval.high, 1 - interval.low)


def _difference(a: Interval, b: Interval) -> Interval:
    """``a - b`` of independent numbers, by MOVER: the distances to the limits add up as standard errors do."""
    value = a.value - b.value
    below = ((a.value - a.low) ** 2 + (b.high - b.value) ** 2) ** 0.5
    above = ((a.high - a.value) ** 2 + (b.value - b.low) ** 2) ** 0.5
    return Interval(value, value - below, value + above)


def _part(a: Interval, b: Interval) -> Interval:
    """``a / (a + b)`` of independent numbers, 0 or more, by MOVER; nan where both are 0.

    A limit q of the share has the odds r = q / (1 - q) at which the limit of ``a - r * b`` is 0: a quadratic in r.
    """
    if a.value + b.value == 0:
        return Interval(np.nan, np.nan, np.nan)
    cross = a.value * b.value
    small_a, large_b = a.low * (2 * a.value - a.low), b.high * (2 * b.value - b.high)
    large_a, small_b = a.high * (2 * a.value - a.high), b.low * (2 * b.value - b.low)
    divisor = cross + max(cross * cross - large_b * small_a, 0.0) ** 0.5
    low = small_a / divisor if divisor else np.inf
    root = cross + max(cross * cross - small_b * large_a, 0.0) ** 0.5
    value = a.value / (a.value + b.value)
    lower = low / (1 + low) if np.isfinite(low) else 1.0
    return Interval(value, min(lower, value), max(root / (root + small_b), value) if root + small_b else 1.0)
