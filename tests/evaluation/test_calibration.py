"""Temperatures against known truths; thresholds on separable, saturated and noisy validation sets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

from pneumolib.errors import DataError
from pneumolib.evaluation.calibration import OperatingPoint, apply_temperature, choose_operating_points, fit_temperature
from pneumolib.evaluation.metrics import ece


def labelled(temperature: float, n: int = 6000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too sure by `temperature`, and classes drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, (n, 3))
    y = (rng.random((n, 1)) > softmax(z, axis=1).cumsum(1)).sum(1)
    return z * temperature, y


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 20.0, 800.0])
def test_known_temperature_is_found(temperature: float) -> None:
    assert fit_temperature(*labelled(temperature)) == pytest.approx(temperature, rel=0.06)


def test_temperature_scales_with_the_logits_and_ignores_their_offset() -> None:
    z, y = labelled(1.7, n=500)
    t = fit_temperature(z, y)
    assert fit_temperature(3 * z, y) == pytest.approx(3 * t, rel=1e-3)
    assert fit_temperature(z + np.arange(len(z))[:, None], y) == pytest.approx(t, rel=1e-3)


def test_scaling_repairs_the_calibration_error_and_keeps_the_order() -> None:
    z, y = labelled(4.0)
    before, after = apply_temperature(z, 1.0), apply_temperature(z, fit_temperature(z, y))
    assert ece(y > 0, 1 - after[:, 0].astype(float)) < 0.02 < ece(y > 0, 1 - before[:, 0].astype(float))
    assert (before.argmax(1) == after.argmax(1)).all()


def test_a_set_without_an_error_does_not_make_the_detector_certain() -> None:
    y = np.repeat([0, 1, 2], 50)
    z = np.eye(3)[y] * 8.0
    p = apply_temperature(z, fit_temperature(z, y))
    right = p[np.arange(150), y]
    # The rule of succession: 50 of 50 right speaks for 51 of 53.
    assert right == pytest.approx(51 / 53, abs=1e-3)


def test_saturated_logits_neither_overflow_nor_stop_at_a_bound() -> None:
    y = np.tile([0, 1], 100)
    z = np.eye(2)[y] * 30_000.0
    z[:6] = z[:6, ::-1]  # three per cent are wrong, with certainty
    p = apply_temperature(z, fit_temperature(z, y))
    assert np.isfinite(p).all()
    assert p[10:].max(1) == pytest.approx(0.96, abs=0.01)


def test_logits_that_say_nothing_need_no_temperature() -> None:
    assert fit_temperature(np.zeros((4, 3)), [0, 1, 2, 0]) == 1.0


def test_apply_temperature_gives_probabilities_in_float32() -> None:
    z = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32) * 50
    p = apply_temperature(z, 2.0)
    assert p.dtype == np.float32
    assert p.sum(1) == pytest.approx(1)
    assert p == pytest.approx(softmax(z.astype(float) / 2, axis=1), abs=1e-6)
    assert apply_temperature(np.zeros((0, 3)), 1.0).shape == (0, 3)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_temperatures_are_refused(temperature: float) -> None:
    with pytest.raises(DataError, match="above 0"):
        apply_temperature([[0.0, 1.0]], temperature)


@pytest.mark.parametrize(
    ("logits", "targets", "match"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "N >= 1"),
        (np.zeros(3), [0, 0, 0], "Received: shape"),
        ([[0.0, np.inf]], [0], "finite"),
        ([[0.0, 1.0]], [2], "classes 0..1"),
        ([[0.0, 1.0]], [-1], "classes 0..1"),
        ([[0.0, 1.0]], [0, 1], "one class for each"),
        ([[0.0, 1.0]], [0.0], "int array"),
    ],
)
def test_wrong_logits_and_targets_are_refused(logits: object, targets: object, match: str) -> None:
    with pytest.raises(DataError, match=match):
        fit_temperature(logits, targets)


def validation(seed: int, n: tuple[int, int] = (300, 110)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.repeat([True, False], n)
    return y, sigmoid(rng.normal(np.where(y, 6, -4), np.where(y, 2.5, 2.0)))


def test_each_point_keeps_what_its_name_says() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([True, False], [400, 300])
    p = sigmoid(rng.normal(np.where(y, 1.2, -1.2), 1.3))
    points = choose_operating_points(y, p)
    assert list(points) == ["balanced", "high_sensitivity", "high_specificity"]
    for name, point in points.items():
        assert point.name == name
        assert point.sensitivity == (p[y] >= point.threshold).mean()
        assert point.specificity == (p[~y] < point.threshold).mean()
    low, mid, high = (points[k] for k in ("high_sensitivity", "balanced", "high_specificity"))
    assert low.threshold < mid.threshold < high.threshold
    # 8 of 400 and 6 of 300 may be lost: none more, and none fewer either.
    assert low.sensitivity == 392 / 400
    assert high.specificity == 294 / 300
    best = max((p[y] >= t).mean() + (p[~y] < t).mean() for t in p)
    assert mid.sensitivity + mid.specificity > best - 0.02


def test_classes_that_separate_get_a_threshold_in_the_middle_of_the_gap() -> None:
    y = np.repeat([True, False], 50)
    points = choose_operating_points(y, sigmoid(np.where(y, 5.0, -2.0)))
    for point in points.values():
        assert np.log(point.threshold / (1 - point.threshold)) == pytest.approx(1.5, abs=0.01)
        assert point.sensitivity == point.specificity == 1


def test_the_named_points_never_do_worse_than_the_balanced_one_at_what_they_are_named_for() -> None:
    for seed in range(10):
        points = choose_operating_points(*validation(seed))
        assert points["high_sensitivity"].threshold <= points["balanced"].threshold
        assert points["high_specificity"].threshold >= points["balanced"].threshold


def test_on_saturated_validation_the_smoothed_optimum_is_steadier_and_better_than_the_raw_one() -> None:
    cuts = []
    for seed in range(40):
        y, p = validation(seed)
        t = np.unique(p)
        raw = t[np.argmax([(p[y] >= c).mean() + (p[~y] < c).mean() for c in t])]
        smooth = choose_operating_points(y, p)["balanced"].threshold
        cuts.append([np.log(c / (1 - c)) for c in (raw, smooth)])
    raw, smooth = np.array(cuts).T
    population = [norm.sf(c, 6, 2.5) + norm.cdf(c, -4, 2) - 1 for c in (raw, smooth)]
    assert smooth.std() < 0.7 * raw.std()
    assert population[1].mean() > population[0].mean()
    assert population[1].min() > 0.965  # of 0.974 at best


def test_one_outlier_does_not_move_the_balanced_threshold() -> None:
    y, p = validation(3)
    before = choose_operating_points(y, p)["balanced"].threshold
    p[np.flatnonzero(y)[0]] = 0.02
    after = choose_operating_points(y, p)["balanced"].threshold
    assert abs(np.log(after / (1 - after)) - np.log(before / (1 - before))) < 0.3


@pytest.mark.parametrize(
    "p",
    [[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0] * 4, [0.5] * 4, [1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]],
)
def test_saturated_and_useless_scores_still_give_thresholds_inside_the_range(p: list[float]) -> None:
    for dtype in (np.float64, np.float32):
        for point in choose_operating_points([0, 0, 1, 1], np.array(p, dtype)).values():
            assert 0 < point.threshold < 1
            assert 0 <= point.sensitivity <= 1


def test_choice_is_deterministic_and_ignores_the_order() -> None:
    y, p = validation(0)
    order = np.random.default_rng(1).permutation(len(y))
    one, other = choose_operating_points(y, p), choose_operating_points(y[order], p[order])
    for name in one:
        assert one[name].threshold == pytest.approx(other[name].threshold, rel=1e-9)


def test_one_class_cannot_choose_a_threshold() -> None:
    with pytest.raises(DataError, match="2 pneumonia and 0 normal"):
        choose_operating_points([1, 1], [0.5, 0.6])


def test_operating_point_is_plain_data_and_prints_in_one_line() -> None:
    point = choose_operating_points(*validation(0))["balanced"]
    assert OperatingPoint(**dataclasses.asdict(point)) == point
    assert {type(v) for v in dataclasses.asdict(point).values()} == {str, float}
    assert str(point).startswith("balanced: pneumonia from 0.")
