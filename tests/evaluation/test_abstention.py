"""The promise of coverage against simulation, by patient too; limits by hand and against crepes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pneumolib.errors import DataError
from pneumolib.evaluation.abstention import ANSWERS, CLASSES, Abstention, fit_abstention, measure_abstention
from pneumolib.evaluation.metrics import wilson

NUMBERS = {"normal": 100, "pneumonia": 200}


def patients_of(rng: np.random.Generator, ill: int, well: int, images: int = 1) -> tuple[np.ndarray, ...]:
    """Truth, probability and patient; a patient has up to `images` images, and the easy ones have more of them."""
    y = np.repeat([True, False], [ill, well])
    own = rng.normal(np.where(y, 1.0, -1.0), 1.0)
    many = np.where(np.abs(own) > 1.5, images, 1)
    patient = np.repeat(np.arange(len(y)), many)
    logit = own[patient] + (0.3 * rng.normal(size=len(patient)) if images > 1 else 0)
    return y[patient], 1 / (1 + np.exp(-logit)), patient


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_each_class_is_covered_as_often_as_stated_and_hardly_more(coverage: float) -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        y, p, _ = patients_of(rng, 60, 40)
        sets = fit_abstention(y, p, coverage=coverage).sets(patients_of(rng, 60, 40)[1])
        covered.append((sets[:60, 1].mean(), sets[60:, 0].mean()))
    ill, well = np.mean(covered, axis=0)
    # The mean over validation sets lies within 1 / (n + 1) above what is stated; 0.01 is three standard errors.
    assert coverage - 0.01 <= ill <= coverage + 1 / 61 + 0.01
    assert coverage - 0.01 <= well <= coverage + 1 / 41 + 0.01


def test_one_image_of_a_new_patient_is_covered_though_easy_patients_have_more_images() -> None:
    rng = np.random.default_rng(1)
    weighed, naive = [], []
    for _ in range(300):
        y, p, patient = patients_of(rng, 60, 40, images=6)
        y_new, p_new, patient_new = patients_of(rng, 60, 40, images=6)
        first = np.unique(patient_new, return_index=True)[1]
        ill = p_new[first][y_new[first]]
        weighed.append((ill >= fit_abstention(y, p, patient, coverage=0.8).pneumonia_from).mean())
        naive.append((ill >= fit_abstention(y, p, coverage=0.8).pneumonia_from).mean())
    assert np.mean(weighed) == pytest.approx(0.81, abs=0.02)
    # Images counted as patients: the easy ones set the limit, and the hard ones are let down.
    assert np.mean(naive) < 0.76


def test_limits_by_hand() -> None:
    y = np.repeat([False, True], 9)
    p = np.concatenate([np.arange(1, 10) / 20, np.arange(11, 20) / 20])
    # Of ten, a new patient among them, eight are covered: one of nine may lie beyond each limit.
    rule = fit_abstention(y, p, coverage=0.8)
    assert (rule.normal_up_to, rule.pneumonia_from) == (0.4, 0.6)
    assert fit_abstention(y, p, coverage=0.9).normal_up_to == 0.45
    assert rule.n_patients == {"normal": 9, "pneumonia": 9}
    assert rule.coverage == 0.8


def test_a_patients_images_share_one_weight() -> None:
    y = np.repeat([False, True], [12, 4])
    patient = np.array([*range(8), 8, 8, 8, 8, 20, 21, 22, 23])
    p = np.array([*np.arange(1, 9) / 20, 0.41, 0.42, 0.43, 0.44, 0.9, 0.9, 0.9, 0.9])
    # Eight patients and half of the ninth are 8.5 of 10.
    assert fit_abstention(y, p, patient, coverage=0.85).normal_up_to == 0.42
    assert fit_abstention(y, p, patient, coverage=0.80).normal_up_to == 0.40
    assert fit_abstention(y, p, patient, coverage=0.90).normal_up_to == 0.44


@pytest.mark.parametrize("coverage", [0.55, 0.7, 0.9, 0.95])
def test_a_coverage_that_is_a_whole_number_of_patients_is_not_rounded_up(coverage: float) -> None:
    p = np.arange(1, 20) / 20
    rule = fit_abstention(np.repeat([False, True], 19), np.tile(p, 2), coverage=coverage)
    assert rule.normal_up_to == round(20 * coverage) / 20


def test_tied_scores_are_covered_together() -> None:
    y = np.repeat([False, True], 20)
    p = np.repeat([0.3, 0.7], 20)
    rule = fit_abstention(y, p, coverage=0.5)
    assert rule.sets([0.3, 0.7]).tolist() == [[True, False], [False, True]]
    constant = fit_abstention(y, np.full(40, 0.5), coverage=0.9)
    assert constant.answers([0.5]).tolist() == ["not sure"]


def test_too_few_patients_rule_nothing_out() -> None:
    y, p, _ = patients_of(np.random.default_rng(0), 8, 8)
    rule = fit_abstention(y, p, coverage=0.9)
    assert (rule.pneumonia_from, rule.normal_up_to) == (0, 1)
    assert set(rule.answers([0.0, 0.3, 1.0]).tolist()) == {"not sure"}
    assert "normal never, pneumonia never" in str(rule)
    # One more patient of each class, and something can be said.
    y, p, _ = patients_of(np.random.default_rng(0), 9, 9)
    assert fit_abstention(y, p, coverage=0.9).pneumonia_from > 0
    # Many images do not make up for patients.
    many = np.repeat(np.arange(16), 50)
    y, p, _ = patients_of(np.random.default_rng(0), 8, 8)
    assert fit_abstention(y[many], p[many], many, coverage=0.9).pneumonia_from == 0


def test_answers_on_both_sides_and_between() -> None:
    both = Abstention(0.95, 0.3, 0.6, NUMBERS)
    assert both.answers([0.2, 0.3, 0.6, 0.7]).tolist() == ["normal", "not sure", "not sure", "pneumonia"]
    none = Abstention(0.8, 0.6, 0.3, NUMBERS)
    assert none.answers([0.3, 0.4, 0.6]).tolist() == ["normal", "neither", "pneumonia"]
    assert none.sets([0.4]).tolist() == [[False, False]]
    assert both.answers(np.array([0.1], np.float32)).shape == (1,)
    assert "not sure between" in str(both)
    assert "normal below 0.300, pneumonia above 0.600, neither between" in str(none)


def test_a_higher_coverage_widens_the_sets() -> None:
    y, p, _ = patients_of(np.random.default_rng(3), 200, 100)
    rules = [fit_abstention(y, p, coverage=c) for c in (0.5, 0.8, 0.9, 0.95, 0.98)]
    assert all((a.sets(p) <= b.sets(p)).all() for a, b in pairwise(rules))


def test_only_the_order_of_the_probabilities_counts() -> None:
    y, p, _ = patients_of(np.random.default_rng(4), 100, 100)
    assert (fit_abstention(y, p).answers(p) == fit_abstention(y, p**3).answers(p**3)).all()


def test_the_classes_are_covered_whatever_their_shares_are() -> None:
    rng = np.random.default_rng(5)
    y, p, _ = patients_of(rng, 2000, 2000)
    rule = fit_abstention(y, p, coverage=0.9)
    for ill, well in ((50_000, 1000), (1000, 50_000)):
        y_new, p_new, _ = patients_of(rng, ill, well)
        sets = rule.sets(p_new)
        assert sets[y_new, 1].mean() == pytest.approx(0.9, abs=0.03)
        assert sets[~y_new, 0].mean() == pytest.approx(0.9, abs=0.03)


def test_what_is_measured_is_what_can_be_counted() -> None:
    rule = Abstention(0.9, 0.3, 0.6, NUMBERS)
    y = [False] * 4 + [True] * 5
    p = [0.1, 0.2, 0.5, 0.9, 0.1, 0.4, 0.7, 0.8, 0.9]
    result = measure_abstention(rule, y, p)
    assert result.counts == {
        "normal": {"normal": 2, "pneumonia": 1, "not sure": 1, "neither": 0},
        "pneumonia": {"normal": 1, "pneumonia": 3, "not sure": 1, "neither": 0},
    }
    values = {
        what: [getattr(result, what)[name].value for name in CLASSES] for what in ("covered", "answered", "right")
    }
    assert values["covered"] == pytest.approx([3 / 4, 4 / 5])
    assert values["answered"] == pytest.approx([3 / 4, 4 / 5])
    assert values["right"] == pytest.approx([2 / 3, 3 / 4])
    assert sum(sum(row.values()) for row in result.counts.values()) == 9
    assert all(tuple(row) == ANSWERS for row in result.counts.values())
    # Four images of one patient weigh as much as the one of the other.
    by_patient = measure_abstention(rule, y, p, ["a", "b", "c", "d", "e", "f", "f", "f", "f"])
    assert by_patient.covered["pneumonia"].value == 0.5


def test_coverage_has_an_interval_over_patients_and_says_where_it_falls_short() -> None:
    rule = Abstention(0.9, 0.3, 0.6, NUMBERS)
    y = np.repeat([False, True], 100)
    p = np.concatenate([np.repeat([0.1, 0.9], [60, 40]), np.full(100, 0.9)])
    result = measure_abstention(rule, y, p)
    assert result.covered["pneumonia"] == wilson(100, 100)
    low, high = result.covered["normal"].low, result.covered["normal"].high
    assert (low, high) == pytest.approx((0.5, 0.7), abs=0.03)
    text = str(result)
    assert "normal     covered 60 %" in text
    assert "LESS than stated" in text.splitlines()[1]
    assert "more than stated" in text.splitlines()[2]


def test_a_set_of_one_class_leaves_the_other_undefined() -> None:
    result = measure_abstention(Abstention(0.9, 0.0, 1.0, NUMBERS), [True, True], [0.5, 0.6])
    assert result.covered["normal"] is None
    assert result.covered["pneumonia"] is not None
    assert result.right["pneumonia"] is None
    assert "no images" in str(result)
    assert "of these right none" in str(result)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"y_true": [1, 1]}, "both classes are present. Received: 2 pneumonia and 0 normal"),
        ({"coverage": 1.0}, r"between 0 and 1, such as 0\.95. Received: 1\.0"),
        ({"coverage": float("nan")}, "coverage"),
        ({"p": [0.5, 1.5]}, r"0\.\.1, none NaN. Received: 1\.5"),
        ({"patients": ["a", "b", "c"]}, r"patient of each image. Received: shape \(3,\) for 2 images"),
    ],
)
def test_wrong_input_is_refused_in_words(settings: dict, match: str) -> None:
    with pytest.raises(DataError, match=match):
        fit_abstention(**{"y_true": [0, 1], "p": [0.2, 0.7]} | settings)


def test_answers_need_probabilities() -> None:
    rule = Abstention(0.9, 0.3, 0.6, NUMBERS)
    for p in ([1.2], [np.nan], 0.5, [[0.5]]):
        with pytest.raises(DataError, match="Received"):
            rule.answers(p)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_equal_those_of_crepes_with_one_image_a_patient(coverage: float) -> None:
    crepes = pytest.importorskip("crepes")
    rng = np.random.default_rng(7)
    # Numbers for which no whole number of patients is the coverage: there, crepes errs to the larger set.
    y, p, _ = patients_of(rng, 111, 77)
    new = patients_of(rng, 300, 300)[1]
    sets = fit_abstention(y, p, coverage=coverage).sets(new)
    for column, scores in enumerate((p, 1 - p)):
        theirs = crepes.ConformalClassifier().fit(scores[y == bool(column)])
        strange = (new if column == 0 else 1 - new)[:, None]
        wanted = theirs.predict_set(strange, confidence=coverage, smoothing=False)[:, 0].astype(bool)
        assert (sets[:, column] == wanted).all()


# MAPIE knows one quantile for all classes, so it is fitted on each class alone, of which it warns.
@pytest.mark.filterwarnings("ignore:WARNING. your conformalization dataset has less labels:UserWarning")
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_equal_those_of_mapie_fitted_on_each_class(coverage: float) -> None:
    classification = pytest.importorskip("mapie.classification")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """A classifier whose input is the probability that it answers with."""

        def fit(self, X: np.ndarray, y: np.ndarray) -> Given:
            self.classes_ = np.array([0, 1])
            return self

        def predict_proba(self, X: np.ndarray) -> np.ndarray:
            return np.stack([1 - X[:, 0], X[:, 0]], axis=1)

        def predict(self, X: np.ndarray) -> np.ndarray:
            return (X[:, 0] >= 0.5).astype(int)

    rng = np.random.default_rng(8)
    y, p, _ = patients_of(rng, 111, 77)
    new = patients_of(rng, 300, 300)[1]
    sets = fit_abstention(y, p, coverage=coverage).sets(new)
    given = Given().fit(p[:, None], y)
    for column in (0, 1):
        theirs = classification.SplitConformalClassifier(given, confidence_level=coverage, prefit=True)
        mine = y == bool(column)
        theirs.conformalize(p[mine, None], np.full(mine.sum(), column))
        assert (theirs.predict_set(new[:, None])[1][:, column, 0] == sets[:, column]).all()
