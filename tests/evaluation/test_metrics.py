"""Every metric against scikit-learn and by hand; the intervals against theory and simulation."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from pneumolib.errors import DataError
from pneumolib.evaluation import metrics as m

SCORES = st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])), min_size=2, max_size=40)


def simulated(n: int = 300, seed: int = 0, decimals: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, probabilities with many ties, and patients with several images each."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.6
    p = 1 / (1 + np.exp(-rng.normal(np.where(y, 1.2, -0.8), 1.5)))
    return y, p.round(decimals), rng.integers(0, n // 2, n) * 2 + y


@settings(max_examples=60, deadline=None)
@given(SCORES)
def test_every_metric_equals_scikit_learn(rows: list[tuple[bool, float]]) -> None:
    y, p = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    called = p >= 0.5
    assert m.accuracy(y, p, 0.5) == pytest.approx(oracle.accuracy_score(y, called))
    assert m.brier(y, p) == pytest.approx(oracle.brier_score_loss(y, p, pos_label=True))
    if y.any():
        assert m.sensitivity(y, p, 0.5) == pytest.approx(oracle.recall_score(y, called))
        assert m.f1(y, p, 0.5) == pytest.approx(oracle.f1_score(y, called, zero_division=0))
    if not y.all():
        assert m.specificity(y, p, 0.5) == pytest.approx(oracle.recall_score(~y, ~called))
    if y.any() and not y.all():
        assert m.auc(y, p) == pytest.approx(oracle.roc_auc_score(y, p))
        assert m.average_precision(y, p) == pytest.approx(oracle.average_precision_score(y, p))


def test_calibration_error_equals_scikit_learns_calibration_curve() -> None:
    from sklearn.calibration import calibration_curve

    y, p, _ = simulated(500)
    for bins in (5, 15):
        observed, predicted = calibration_curve(y, p, n_bins=bins)
        edges = np.linspace(0, 1, bins + 1)
        sizes = np.bincount(np.searchsorted(edges[1:-1], p), minlength=bins)
        wanted = np.average(np.abs(observed - predicted), weights=sizes[sizes > 0])
        assert m.ece(y, p, bins) == pytest.approx(wanted)


def test_small_cases_by_hand() -> None:
    y, p = [1, 1, 0, 0, 1], [0.9, 0.4, 0.4, 0.1, 0.6]
    # Six pairs: all ordered rightly but (0.4, 0.4), which counts half.
    assert m.auc(y, p) == pytest.approx(5.5 / 6)
    assert m.average_precision(y, p) == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert m.sensitivity(y, p, 0.4) == 1
    assert m.specificity(y, p, 0.4) == 0.5
    assert m.f1(y, p, 0.4) == pytest.approx(6 / 7)
    assert m.accuracy(y, p, 0.5) == 0.8
    assert m.brier(y, p) == pytest.approx((0.01 + 0.36 + 0.16 + 0.01 + 0.16) / 5)


def test_a_score_at_the_threshold_is_called_pneumonia() -> None:
    assert m.sensitivity([1], [0.5], 0.5) == 1
    assert m.specificity([0], [0.5], 0.5) == 0


def test_constant_scores_have_an_auc_of_one_half() -> None:
    assert m.auc([0, 1, 1, 0, 1], [0.3] * 5) == 0.5


def test_auc_depends_on_the_order_alone_and_turns_round_with_the_scores() -> None:
    y, p, _ = simulated()
    assert m.auc(y, p**3) == pytest.approx(m.auc(y, p))
    assert m.auc(y, 1 - p) == pytest.approx(1 - m.auc(y, p))
    assert m.auc(~y, 1 - p) == pytest.approx(m.auc(y, p))


def test_the_order_of_the_images_does_not_matter() -> None:
    y, p, _ = simulated()
    order = np.random.default_rng(1).permutation(len(y))
    for name in ("auc", "average_precision", "brier", "ece"):
        metric = getattr(m, name)
        assert metric(y[order], p[order]) == pytest.approx(metric(y, p))


def test_float32_scores_give_the_same_numbers() -> None:
    y, p, _ = simulated(decimals=3)
    assert m.auc(y, p.astype(np.float32)) == pytest.approx(m.auc(y, p))


@pytest.mark.parametrize("ill", [True, False])
def test_one_class_leaves_undefined_what_needs_both(ill: bool) -> None:
    y, p = np.full(6, ill), np.linspace(0.1, 0.9, 6)
    assert np.isnan([m.auc(y, p), m.average_precision(y, p)]).all()
    result = m.bootstrap(y, p, None, 0.5, n=50)
    undefined = {name for name, interval in result.items() if interval is None}
    assert undefined == {"auc", "average_precision"} | ({"specificity"} if ill else {"sensitivity", "f1"})
    assert result["accuracy"] is not None
    assert result["accuracy"].value == 0.5


@pytest.mark.parametrize(
    ("y", "p", "match"),
    [
        ([], [], "nothing to measure"),
        ([0, 1], [0.5], "one length"),
        ([[0, 1]], [[0.5, 0.5]], "one length"),
        ([0, 1], [0.5, np.nan], r"nan at index 1 \(1 of 2"),
        ([0, 1], [-0.1, 0.5], r"0\.\.1"),
        ([0, 1], [0.1, 1.5], r"1\.5 at index 1"),
        ([0, 2], [0.1, 0.5], "0 .normal. and 1"),
        (["normal", "pneumonia"], [0.1, 0.5], "must be bool"),
        ([0, 1], ["a", "b"], "must be numbers"),
    ],
)
def test_wrong_input_is_refused_in_words(y: list, p: list, match: str) -> None:
    with pytest.raises(DataError, match=match):
        m.auc(y, p)


def test_settings_out_of_range_are_refused() -> None:
    y, p = [0, 1], [0.1, 0.9]
    with pytest.raises(DataError, match="threshold"):
        m.accuracy(y, p, 1.5)
    with pytest.raises(DataError, match="threshold"):
        m.accuracy(y, p, float("nan"))
    with pytest.raises(DataError, match="bin"):
        m.ece(y, p, bins=0)
    with pytest.raises(DataError, match="resample"):
        m.bootstrap(y, p, None, 0.5, n=0)
    with pytest.raises(DataError, match="level"):
        m.bootstrap(y, p, None, 0.5, level=95)
    with pytest.raises(DataError, match="patient of each image"):
        m.bootstrap(y, p, ["a"], 0.5)


def test_bootstrap_reports_the_exact_values_inside_their_intervals() -> None:
    y, p, patients = simulated()
    result = m.bootstrap(y, p, patients, 0.5)
    assert tuple(result) == m.METRICS
    for name, interval in result.items():
        metric = getattr(m, name)
        exact = metric(y, p) if name in ("auc", "average_precision", "brier", "ece") else metric(y, p, 0.5)
        assert interval is not None
        assert interval.value == exact
        assert 0 <= interval.low < exact < interval.high <= 1 or name == "ece"
        assert interval.low <= exact <= interval.high


def test_bootstrap_repeats_itself_and_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    y, p, patients = simulated()
    one = m.bootstrap(y, p, patients, 0.5, n=400, seed=3)
    assert m.bootstrap(y, p, patients, 0.5, n=400, seed=3) == one
    assert m.bootstrap(y, p, patients, 0.5, n=400, seed=4) != one
    monkeypatch.setattr(m, "_CELLS", len(y) * 150)
    blocks = m.bootstrap(y, p, patients, 0.5, n=400, seed=3)
    assert blocks["auc"].low == pytest.approx(one["auc"].low, abs=0.01)
    assert blocks["auc"].value == one["auc"].value


def test_bootstrap_agrees_with_resampling_by_hand() -> None:
    y, p, _ = simulated(200)
    rng = np.random.default_rng(9)
    ill, well = p[y], p[~y]
    areas = []
    for _ in range(3000):
        a, b = rng.choice(ill, (len(ill), 1)), rng.choice(well, len(well))
        areas.append((a > b).mean() + (a == b).mean() / 2)
    low, high = np.quantile(areas, [0.025, 0.975])
    result = m.bootstrap(y, p, None, 0.5, n=3000)["auc"]
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.006)


def test_copies_of_an_image_widen_nothing_when_they_are_one_patient() -> None:
    y, p, _ = simulated(150)
    alone = m.bootstrap(y, p, np.arange(150), 0.5)
    fourfold = m.bootstrap(np.tile(y, 4), np.tile(p, 4), np.tile(np.arange(150), 4), 0.5)
    naive = m.bootstrap(np.tile(y, 4), np.tile(p, 4), None, 0.5)
    for name in ("auc", "accuracy"):
        assert fourfold[name].low == pytest.approx(alone[name].low)
        assert fourfold[name].high == pytest.approx(alone[name].high)
    # Taking copies for independent images halves the interval: the reason to resample patients.
    assert naive["auc"].high - naive["auc"].low < 0.6 * (alone["auc"].high - alone["auc"].low)


def test_both_classes_are_in_every_resample_and_patients_of_both_are_drawn_whole() -> None:
    y = np.array([True] + [False] * 20 + [True, False])
    p = np.linspace(0.9, 0.1, 23)
    patients = np.array([*range(21), 99, 99])
    rng = np.random.default_rng(0)
    number = np.unique(patients, return_inverse=True)[1]
    counts = m._patient_counts(y, number, 200, rng)
    assert (counts[:, 0] == 1).all()  # the only patient with pneumonia alone
    assert (counts[:, 1:21].sum(1) == 20).all()
    assert (counts[:, 21] == 1).all()
    assert m.bootstrap(y, p, patients, 0.5, n=200)["auc"] is not None


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    truth = NormalDist().cdf(2 / 2**0.5)  # the AUC of N(2, 1) against N(0, 1)
    hits = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        patient_of = np.repeat(np.arange(60), 2)
        y = patient_of < 35
        z = rng.normal(0, 0.8, 60)[patient_of] + rng.normal(0, 0.6, 120) + 2 * y
        interval = m.bootstrap(y, 1 / (1 + np.exp(-z)), patient_of, 0.5, n=300, seed=seed)["auc"]
        hits += interval.low <= truth <= interval.high
    assert 0.88 <= hits / 150 <= 0.99


def test_where_nothing_is_wrong_the_interval_does_not_shrink_to_a_point() -> None:
    y, p = np.repeat([True, False], [40, 20]), np.repeat([0.9, 0.1], [40, 20])
    patients = np.arange(60) // 2
    result = m.bootstrap(y, p, patients, 0.5, n=200)
    assert result["sensitivity"] == m.wilson(20, 20)
    assert result["specificity"] == m.wilson(10, 10)
    assert result["accuracy"] == m.wilson(30, 30)
    wrong = m.bootstrap(y, 1 - p, patients, 0.5, n=200)
    assert wrong["sensitivity"] == m.wilson(0, 20)


def test_the_interval_of_the_calibration_error_is_not_pushed_up_by_resampling() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(400)
    y = rng.random(400) < p
    result = m.bootstrap(y, p, None, 0.5)["ece"]
    assert result.low <= result.value <= result.high
    assert result.low < 0.02  # calibrated by construction


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, 857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_limits(k: int, n: int, low: float, high: float) -> None:
    interval = m.wilson(k, n)
    assert interval.value == k / n
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_wilson_equals_scipy_mirrors_itself_and_stays_in_range() -> None:
    from scipy.stats import binomtest

    for k, n, level in [(3, 10, 0.95), (590, 624, 0.95), (7, 9, 0.8), (9, 9, 0.99)]:
        wanted = binomtest(k, n).proportion_ci(level, method="wilson")
        got, turned = m.wilson(k, n, level), m.wilson(n - k, n, level)
        assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high))
        assert (1 - turned.high, 1 - turned.low) == pytest.approx((got.low, got.high))
    assert m.wilson(0, 5).low == 0
    assert m.wilson(5, 5).high == 1


@pytest.mark.parametrize(("k", "n", "level"), [(1, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0)])
def test_wilson_refuses_impossible_counts(k: int, n: int, level: float) -> None:
    with pytest.raises(DataError):
        m.wilson(k, n, level)


def test_interval_prints_three_digits() -> None:
    assert str(m.Interval(0.98149, 0.97, 0.99)) == "0.981 [0.970, 0.990]"
