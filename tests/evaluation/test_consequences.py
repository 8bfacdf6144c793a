"""Children by identities and Bayes; intervals against simulation; another prevalence against a simulated shift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumolib.errors import DataError
from pneumolib.evaluation import metrics
from pneumolib.evaluation.calibration import OperatingPoint
from pneumolib.evaluation.consequences import (
    adjust_for_prevalence,
    consequences,
    consequences_of,
    decision_curve,
    percent,
)
from pneumolib.evaluation.metrics import Interval, wilson
from pneumolib.evaluation.report import Report, make_report

RATE = st.floats(0, 1)
SHARE = st.floats(0.001, 0.999)


def simulated(n: int = 400, share: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth, and probabilities that are calibrated for this share: normal scores two apart."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < share
    logit = 2 * rng.normal(np.where(y, 1, -1), 1) + np.log(share / (1 - share))
    return y, 1 / (1 + np.exp(-logit))


def report(y: np.ndarray, p: np.ndarray, **settings: object) -> Report:
    kinds = np.where(y, "viral", "normal")
    given = {"patients": np.arange(len(y)), "threshold": 0.5, "operating_point": "balanced", "source": "x"}
    return make_report(
        y, p, names=[str(i) for i in range(len(y))], subtypes=kinds, phantom=False, n_bootstrap=200,
        **(given | settings),
    )  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(RATE, RATE, SHARE, st.integers(1, 5000))
def test_the_groups_add_up_to_the_children(se: float, sp: float, share: float, n: int) -> None:
    result = consequences(se, sp, share, n)
    assert result.found + result.missed == pytest.approx(share * n)
    assert result.alarmed + result.left_alone == pytest.approx((1 - share) * n)
    whole = result.children
    assert sum(whole.values()) == n
    assert min(whole.values()) >= 0
    assert whole["found"] + whole["missed"] == round(share * n)
    assert abs(whole["alarmed"] - result.alarmed) <= 1


def test_shares_of_right_answers_follow_bayes() -> None:
    result = consequences(0.9, 0.8, 0.1)
    assert result.ppv == pytest.approx(0.9 * 0.1 / (0.9 * 0.1 + 0.2 * 0.9))
    assert result.npv == pytest.approx(0.8 * 0.9 / (0.8 * 0.9 + 0.1 * 0.1))
    assert result.alarms_per_found == pytest.approx(3)
    assert result.intervals == {}


def test_it_reads_as_a_sentence() -> None:
    assert str(consequences(0.97, 0.88, 0.2)) == (
        "Of 1,000 children of whom 200 have pneumonia, 194 are found and 6 missed; 96 of the 800 healthy are alarmed "
        "for nothing. An alarm is right in 67 %. An all-clear is right in 99.2 %."
    )
    said = str(consequences(wilson(378, 390), wilson(206, 234), 0.2, name="balanced", phantom=True))
    assert said.startswith("PHANTOM: balanced: Of 1,000 children of whom 200")
    assert "194 (189 to 196) are found and 6 (4 to 11) missed; 96 (67 to 134) of the 800" in said
    assert "fewer than 1 missed" in str(consequences(0.97, 0.88, 0.005))
    assert "and 0 missed" in str(consequences(1, 0.88, 0.005))


def test_answers_that_are_never_given_are_said_to_be_so() -> None:
    silent = consequences(0, 1, 0.3)
    assert np.isnan(silent.ppv)
    assert np.isnan(silent.alarms_per_found)
    assert "No alarm is raised. An all-clear is right in 70 %." in str(silent)
    loud = consequences(1, 0, 0.3)
    assert np.isnan(loud.npv)
    assert "An alarm is right in 30 %. No all-clear is given." in str(loud)
    assert consequences(0, 0, 0.3).alarms_per_found == np.inf


def test_intervals_are_those_of_the_rates_and_hold_the_values() -> None:
    se, sp = wilson(378, 390), wilson(206, 234)
    result = consequences(se, sp, 0.2)
    found, missed = result.intervals["found"], result.intervals["missed"]
    assert (found.low, found.high) == pytest.approx((200 * se.low, 200 * se.high))
    assert (missed.low, missed.high) == pytest.approx((200 - 200 * se.high, 200 - 200 * se.low))
    for name, interval in result.intervals.items():
        assert interval.low < getattr(result, name) == interval.value < interval.high
    ppv, alarms = result.intervals["ppv"], result.intervals["alarms_per_found"]
    assert (alarms.low, alarms.high) == pytest.approx((1 / ppv.high, 1 / ppv.low))
    # Never as wide as with both rates at their worst and best at once.
    assert consequences(se.low, sp.low, 0.2).ppv < ppv.low
    assert ppv.high < consequences(se.high, sp.high, 0.2).ppv
    assert consequences(se, 0.88, 0.2).intervals == {}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), st.integers(0, 30), SHARE)
def test_intervals_stay_in_range_at_the_ends(hits: int, passes: int, share: float) -> None:
    for name, interval in consequences(wilson(hits, 40), wilson(passes, 30), share, 100).intervals.items():
        assert 0 <= interval.low <= interval.value <= interval.high
        if name in ("ppv", "npv"):
            assert interval.high <= 1


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_intervals_of_the_shares_cover_the_truth_as_often_as_they_say(share: float) -> None:
    rng = np.random.default_rng(0)
    truth = consequences(0.95, 0.85, share)
    inside = {"ppv": 0, "npv": 0}
    for hits, passes in zip(rng.binomial(200, 0.95, 1000), rng.binomial(120, 0.85, 1000), strict=True):
        found = consequences(wilson(int(hits), 200), wilson(int(passes), 120), share).intervals
        for name in inside:
            inside[name] += found[name].low <= getattr(truth, name) <= found[name].high
    for hits in inside.values():
        assert 0.93 <= hits / 1000 <= 0.975


def test_a_report_gives_its_intervals_and_a_point_its_bare_numbers() -> None:
    y, p = simulated()
    made = report(y, p)
    result = consequences_of(made, 0.2)
    wanted = made.metrics["sensitivity"]
    assert wanted is not None
    assert result.found == 200 * wanted.value
    assert result.intervals["found"].low == 200 * wanted.low
    assert result.name == "balanced"
    assert not result.phantom
    assert consequences_of(made, 0.2, phantom=True).phantom
    point = consequences_of(OperatingPoint("balanced", 0.4, 0.95, 0.9, "rule"), 0.5, n=100)
    assert (point.found, point.left_alone) == pytest.approx((47.5, 45))
    assert point.intervals == {}
    assert "on validation" in str(point)


def test_a_report_on_one_class_has_no_consequences() -> None:
    y, p = simulated()
    with pytest.raises(DataError, match="Received: a sensitivity, no specificity"):
        consequences_of(report(y[y], p[y]), 0.2)


@pytest.mark.parametrize(
    ("numbers", "match"),
    [
        ((1.1, 0.9, 0.2, 1000), r"sensitivity lies in 0\.\.1.*Received: 1\.1"),
        ((0.9, float("nan"), 0.2, 1000), "specificity .*Received: nan"),
        ((Interval(0.9, 0.95, 1.0), 0.9, 0.2, 1000), "within its interval"),
        ((0.9, 0.9, 0.0, 1000), r"prevalence lies between 0 and 1.*Received: 0\.0"),
        ((0.9, 0.9, float("nan"), 1000), "prevalence"),
        ((0.9, 0.9, 0.2, 0), "whole numbers, from 1 on. Received: n=0"),
        ((0.9, 0.9, 0.2, 10.5), "n=10.5"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers: tuple, match: str) -> None:
    with pytest.raises(DataError, match=match):
        consequences(*numbers)


def test_percent_hides_neither_the_rare_nor_the_missing() -> None:
    assert [percent(x) for x in (0, 0.0001, 0.004, 0.5, 0.996, 0.9999, 1)] == [
        "0 %", "0.1 %", "0.4 %", "50 %", "99.6 %", "99.9 %", "100 %",
    ]  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.lists(RATE, min_size=1, max_size=10), SHARE, SHARE)
def test_another_prevalence_and_back_is_the_same(p: list[float], here: float, there: float) -> None:
    adjusted = adjust_for_prevalence(p, here, there)
    assert adjust_for_prevalence(adjusted, there, here) == pytest.approx(np.array(p), abs=1e-9)
    assert adjust_for_prevalence(p, here, here) == pytest.approx(np.array(p))
    assert (adjusted >= np.array(p) - 1e-12).all() or there < here


def test_adjusted_probabilities_are_calibrated_after_a_shift_of_the_prevalence() -> None:
    _, p = simulated(60_000, 0.7)
    y_there, right = simulated(60_000, 0.1, seed=1)
    # What a model fitted at 70 % says of children from a place with 10 %.
    said = adjust_for_prevalence(right, 0.1, 0.7)
    assert metrics.ece(y_there, said) > 0.1
    adjusted = adjust_for_prevalence(said, from_=0.7, to=0.1)
    assert metrics.ece(y_there, adjusted) < 0.01
    assert adjusted.mean() == pytest.approx(0.1, abs=0.005)
    assert metrics.auc(y_there, adjusted) == pytest.approx(metrics.auc(y_there, said))
    assert adjust_for_prevalence(p, 0.7, 0.1).mean() < p.mean()


def test_decisions_stay_where_the_threshold_moves_too() -> None:
    _, p = simulated()
    cut = adjust_for_prevalence(0.37, 0.7, 0.2)
    assert cut.shape == ()
    assert ((adjust_for_prevalence(p, 0.7, 0.2) >= cut) == (p >= 0.37)).all()
    assert adjust_for_prevalence(p.reshape(20, 20), 0.7, 0.2).shape == (20, 20)
    assert adjust_for_prevalence([], 0.7, 0.2).shape == (0,)


@pytest.mark.parametrize(
    ("p", "here", "there", "match"),
    [
        ([0.5, 1.2], 0.5, 0.1, r"0\.\.1, none NaN. Received: 1\.2"),
        ([np.nan], 0.5, 0.1, "nan"),
        ([0.5], 0, 0.1, "between 0 and 1"),
        ([0.5], 0.5, 1, "between 0 and 1"),
    ],
)
def test_shifts_that_make_no_sense_are_refused(p: list, here: float, there: float, match: str) -> None:
    with pytest.raises(DataError, match=match):
        adjust_for_prevalence(p, here, there)


def test_net_benefit_of_a_perfect_detector_is_the_prevalence() -> None:
    y = np.repeat([True, False], [30, 70])
    curve = decision_curve(y, y.astype(float))
    assert curve.model == pytest.approx(0.3)
    assert decision_curve(y, y.astype(float), prevalence=0.05).model == pytest.approx(0.05)
    # Nothing was wrong in 100 images, which does not show that nothing ever is.
    assert (curve.low < 0.3).all()
    assert curve.low[0] == pytest.approx(0.3 * wilson(30, 30).low, abs=0.001)


def test_lines_of_all_and_none_follow_their_formulas() -> None:
    y, p = simulated()
    curve = decision_curve(y, p, thresholds=[0, 0.2, 0.5, 0.8], prevalence=0.2)
    assert curve.treat_all == pytest.approx([0.2, 0.2 - 0.8 / 4, 0.2 - 0.8, 0.2 - 0.8 * 4])
    assert (curve.treat_none == 0).all()
    # Acting from 0 on is acting on every child.
    assert curve.model[0] == curve.treat_all[0]
    always = decision_curve(y, np.ones(len(y)), prevalence=0.2)
    assert always.model == pytest.approx(always.treat_all)
    assert decision_curve(y, np.zeros(len(y))).model == pytest.approx(0)


def test_net_benefit_by_hand_counts_a_score_at_the_threshold() -> None:
    y, p = [1, 1, 0, 0, 0], [0.9, 0.25, 0.25, 0.3, 0.1]
    curve = decision_curve(y, p, thresholds=[0.25, 0.5])
    assert curve.model == pytest.approx([2 / 5 - 2 / 5 / 3, 1 / 5])
    assert curve.prevalence == 0.4


def test_net_benefit_of_calibrated_probabilities_is_never_less_than_of_all_or_none() -> None:
    y, p = simulated(40_000, 0.3)
    curve = decision_curve(y, p, n_bootstrap=20)
    assert (curve.model >= np.maximum(curve.treat_all, 0) - 0.005).all()


def test_intervals_of_the_net_benefit_agree_with_resampling_by_hand() -> None:
    y, p = simulated()
    rng = np.random.default_rng(5)
    ill, well = p[y] >= 0.3, p[~y] >= 0.3
    drawn = [
        0.2 * rng.choice(ill, len(ill)).mean() - 0.8 * rng.choice(well, len(well)).mean() * 3 / 7 for _ in range(3000)
    ]
    curve = decision_curve(y, p, thresholds=[0.3], prevalence=0.2)
    assert (curve.low[0], curve.high[0]) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=0.003)
    several = decision_curve(
        np.tile(y, 3), np.tile(p, 3), np.tile(np.arange(400), 3), thresholds=[0.3], prevalence=0.2
    )  # fmt: skip
    assert several.low == pytest.approx(curve.low)
    frame = curve.to_frame()
    assert list(frame) == ["threshold", "model", "low", "high", "treat_all", "treat_none"]
    assert frame["model"].tolist() == curve.model.tolist()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"y_true": [1, 1]}, "both classes. Received: only one class"),
        ({"thresholds": [0.5, 1.0]}, "0 or more and below 1"),
        ({"thresholds": []}, "Thresholds must be"),
        ({"thresholds": 0.5}, r"an array \[T\]"),
        ({"thresholds": ["a"]}, "Thresholds must be"),
        ({"prevalence": 1.0}, "prevalence"),
        ({"patients": ["a"]}, "patient of each image"),
        ({"n_bootstrap": 0}, "at least one resample"),
    ],
)
def test_curves_that_cannot_be_drawn_are_refused(settings: dict, match: str) -> None:
    with pytest.raises(DataError, match=match):
        decision_curve(**{"y_true": [0, 1], "p": [0.2, 0.7]} | settings)
