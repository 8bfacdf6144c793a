"""When to say "not sure": split-conformal prediction sets for two classes, at a stated coverage of each class.

The arithmetic is that of the libraries, and the tests compare it with crepes where that is installed. Neither of those
that fit (MAPIE, crepes) weighs images by patient, which this data set needs, and what would be left for them to do is
one quantile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pneumolib.errors import DataError
from pneumolib.evaluation.consequences import percent
from pneumolib.evaluation.metrics import Bools, Floats, Interval, checked
from pneumolib.evaluation.shares import patient_numbers, patient_shares

CLASSES = ("normal", "pneumonia")
ANSWERS = ("normal", "pneumonia", "not sure", "neither")
COVERAGE = 0.95


@dataclass(frozen=True)
class Abstention:
    """Two limits on P(pneumonia) that say which answers are possible; `fit_abstention` makes it.

    Both answers are possible between the limits where `pneumonia_from` is the lower one ("not sure"), and none where
    `normal_up_to` is ("neither"): then the detector separates the classes better than the coverage asks, and a higher
    coverage costs no answers.

    Attributes:
        coverage: share of the patients of each class whose set shall hold the truth.
        pneumonia_from: pneumonia is possible from this probability on; 0 where there were too few patients to say.
        normal_up_to: normal is possible up to this probability; 1 where there were too few patients to say.
        n_patients: patients of each class that the limits were fitted on.
    """

    coverage: float
    pneumonia_from: float
    normal_up_to: float
    n_patients: Mapping[str, int]

    def sets(self, p: ArrayLike) -> NDArray[np.bool_]:
        """Return which of `CLASSES` are possible, bool [N, 2], for probabilities of pneumonia, float [N] in 0..1.

        Raises:
            DataError: see `metrics.checked`.
        """
        values = _probabilities(p)
        return np.stack([values <= self.normal_up_to, values >= self.pneumonia_from], axis=1)

    def answers(self, p: ArrayLike) -> NDArray[np.str_]:
        """Return one of `ANSWERS` for each probability of pneumonia, str [N]; the last two of them abstain.

        Raises:
            DataError: see `metrics.checked`.

        Example:
            >>> rule = Abstention(0.95, 0.3, 0.6, {"normal": 100, "pneumonia": 200})
            >>> rule.answers([0.2, 0.4, 0.9]).tolist()
            ['normal', 'not sure', 'pneumonia']
        """
        normal, pneumonia = self.sets(p).T
        return np.select([normal & pneumonia, normal, pneumonia], ["not sure", *CLASSES], "neither")

    def __str__(self) -> str:
        low, high = sorted((self.pneumonia_from, self.normal_up_to))
        normal = f"below {low:.3f}" if low > 0 else "never"
        pneumonia = f"above {high:.3f}" if high < 1 else "never"
        between = "not sure" if self.pneumonia_from <= self.normal_up_to else "neither"
        return (
            f"at a coverage of {100 * self.coverage:g} %: normal {normal}, pneumonia {pneumonia}, {between} between "
            f"(from {self.n_patients['normal']} normal and {self.n_patients['pneumonia']} pneumonia patients)"
        )


@dataclass(frozen=True)
class AbstentionResult:
    """What an `Abstention` reached on a set of images; `measure_abstention` makes it.

    Every patient of a class weighs the same in the shares; each is None where it is undefined.

    Attributes:
        rule: what was measured.
        covered: for each of `CLASSES`, share whose set holds the truth.
        answered: share that got one answer.
        right: share of the answered whose answer is right.
        counts: images by truth and answer, ``counts["normal"]["not sure"]``.
    """

    rule: Abstention
    covered: Mapping[str, Interval | None]
    answered: Mapping[str, Interval | None]
    right: Mapping[str, Interval | None]
    counts: Mapping[str, Mapping[str, int]]

    def __str__(self) -> str:
        lines = [f"stated: a coverage of {100 * self.rule.coverage:g} % of each class; measured:"]
        for name in CLASSES:
            covered = self.covered[name]
            if covered is None:
                lines.append(f"  {name:9}  no images")
                continue
            verdict = "more than stated" if covered.low > self.rule.coverage else "as stated"
            verdict = "LESS than stated" if covered.high < self.rule.coverage else verdict
            lines.append(
                f"  {name:9}  covered {percent(covered)}, {verdict}; answered {_said(self.answered[name])}, "
                f"of these right {_said(self.right[name])}"
            )
        return "\n".join(lines)


def fit_abstention(
    y_true: ArrayLike, p: ArrayLike, patients: ArrayLike | None = None, *, coverage: float = COVERAGE
) -> Abstention:
    """Return the limits between which to abstain, fitted on validation images for each class alone.

    The promise: of new pneumonia patients, the share `coverage` or more get a set that holds "pneumonia", and as many
    of the normal ones "normal", whatever the detector is and however common pneumonia is (class-conditional or
    Mondrian conformal prediction: Vovk, 2012, arXiv:1209.2673). It is a mean over validation sets that might have been
    drawn, and it holds for exchangeable patients only: those that might as well have stood among these. The official
    test part of this data set is shifted against train, so there coverage is measured, not promised. The promise
    also leans on images that chose nothing; that validation images chose the epoch makes it a little too bright.

    Images of one patient resemble each other, and so are not exchangeable with those of others. Therefore each patient
    weighs the same, and a patient's images share this weight (Lee, Barber & Willett, 2023, arXiv:2306.06342); the
    promise is then for any one image of a new patient. With one image each this is the usual split-conformal quantile.

    Args:
        y_true: bool or 0/1 [N], both classes present, of images that the model was not trained on.
        p: probability of pneumonia, float [N] in 0..1. Only its order counts: calibrated or not, the sets are the same.
        patients: the patient of each image [N]; None makes each image its own patient.
        coverage: between 0 and 1. With fewer than coverage / (1 - coverage) patients of a class nothing can be ruled
            out, and the class is always possible.

    Raises:
        DataError: see `metrics.checked`; or only one class is present; or the coverage is out of range.

    Example:
        >>> truth = [0] * 10 + [1] * 10
        >>> print(fit_abstention(truth, [i / 20 for i in range(20)], coverage=0.9))
        at a coverage of 90 %: normal below 0.450, pneumonia above 0.500, neither between (from 10 normal and 10 \
pneumonia patients)
    """
    truth, values = checked(y_true, p)
    if truth.all() or not truth.any():
        raise DataError(
            "Abstention can be fitted only where both classes are present. "
            f"Received: {int(truth.sum())} pneumonia and {int((~truth).sum())} normal images"
        )
    if not 0 < coverage < 1:
        raise DataError(f"A coverage lies between 0 and 1, such as 0.95. Received: {coverage!r}")
    patient = patient_numbers(patients, len(truth))
    lowest = -_limit(-values[truth], patient[truth], coverage)
    highest = _limit(values[~truth], patient[~truth], coverage)
    numbers = {name: len(np.unique(patient[truth == ill])) for name, ill in zip(CLASSES, (False, True), strict=True)}
    return Abstention(float(coverage), max(lowest, 0.0), min(highest, 1.0), numbers)


def measure_abstention(
    rule: Abstention,
    y_true: ArrayLike,
    p: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> AbstentionResult:
    """Return how often the sets of `rule` hold the truth and how often it answers, with 95 % intervals over patients.

    Args:
        rule: fitted on other images.
        y_true: bool or 0/1 [N].
        p: probability of pneumonia, float [N] in 0..1.
        patients: the patient of each image [N]; None makes each image its own patient.
        n_bootstrap: resamples of patients.
        seed: of the resampling.

    Raises:
        DataError: see `metrics.checked`.

    Example:
        >>> rule = Abstention(0.95, 0.3, 0.6, {"normal": 100, "pneumonia": 200})
        >>> result = measure_abstention(rule, [0, 0, 1, 1], [0.1, 0.5, 0.7, 0.2])
        >>> result.counts["pneumonia"]
        {'normal': 1, 'pneumonia': 1, 'not sure': 0, 'neither': 0}
        >>> result.covered["normal"].value, result.answered["normal"].value
        (1.0, 0.5)
    """
    truth, values = checked(y_true, p)
    patient = patient_numbers(patients, len(truth))
    sets, answers = rule.sets(values), rule.answers(values)
    covered: dict[str, Interval | None] = {}
    answered: dict[str, Interval | None] = {}
    right: dict[str, Interval | None] = {}
    counts: dict[str, dict[str, int]] = {}

    def share(hits: Bools, chosen: Bools) -> Interval | None:
        if not chosen.any():
            return None
        return patient_shares(hits[chosen, None], patient[chosen], equal=True, n=n_bootstrap, seed=seed)[0]

    for column, name in enumerate(CLASSES):
        mine = truth == bool(column)
        one = sets.sum(1) == 1
        covered[name] = share(sets[:, column], mine)
        answered[name] = share(one, mine)
        right[name] = share(sets[:, column], mine & one)
        counts[name] = {answer: int((answers[mine] == answer).sum()) for answer in ANSWERS}
    return AbstentionResult(rule, covered, answered, right, counts)


def _limit(scores: Floats, patient: NDArray[np.intp], coverage: float) -> float:
    """The smallest score that `coverage` of the patients reach, a new one counted among them; inf where none does."""
    number, images = np.unique(patient, return_inverse=True, return_counts=True)[1:]
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1 / images[number[order]]) / (len(images) + 1)
    # The sum of many weights may fall short of the share that it stands for by its rounding.
    at = int(np.searchsorted(reached, coverage - 1e-9))
    return float(scores[order[at]]) if at < len(scores) else np.inf


def _probabilities(p: ArrayLike) -> Floats:
    return checked(np.zeros(len(np.atleast_1d(p)), bool), p)[1]


def _said(interval: Interval | None) -> str:
    return "none" if interval is None else percent(interval)
