"""Shares against counting by hand, theory and the intervals of the metrics."""

from __future__ import annotations

import numpy as np
import pytest

from pneumolib.errors import DataError
from pneumolib.evaluation import metrics, shares
from pneumolib.evaluation.shares import patient_numbers, patient_shares


def test_shares_weigh_images_or_patients_the_same() -> None:
    hits = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], bool)
    patients = ["a", "a", "a", "b"]
    assert [s.value for s in patient_shares(hits, patients)] == pytest.approx([3 / 4, 3 / 4])
    assert [s.value for s in patient_shares(hits, patients, equal=True)] == pytest.approx([5 / 6, 5 / 6])
    assert [s.value for s in patient_shares(hits, None, equal=True)] == [3 / 4, 3 / 4]


@pytest.mark.parametrize("equal", [False, True])
def test_images_of_their_own_patients_have_the_binomial_interval(equal: bool) -> None:
    hits = np.arange(400)[:, None] < 320
    share = patient_shares(hits, equal=equal)[0]
    half = 1.96 * (0.8 * 0.2 / 400) ** 0.5
    assert (share.low, share.high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.006)


def test_copies_of_an_image_narrow_nothing_when_they_are_one_patient() -> None:
    hits = np.random.default_rng(0).random((150, 1)) < 0.7
    alone = patient_shares(hits)[0]
    fourfold = patient_shares(np.tile(hits, (4, 1)), np.tile(np.arange(150), 4))[0]
    naive = patient_shares(np.tile(hits, (4, 1)))[0]
    assert (fourfold.low, fourfold.high) == pytest.approx((alone.low, alone.high))
    assert naive.high - naive.low < 0.6 * (alone.high - alone.low)


def test_intervals_agree_with_those_of_the_metrics() -> None:
    rng = np.random.default_rng(1)
    y, p, patients = np.repeat([True, False], 150), rng.random(300), np.arange(300) // 3
    wanted = metrics.bootstrap(y, p, patients, 0.4)["sensitivity"]
    share = patient_shares(p[y, None] >= 0.4, patients[y])[0]
    assert share.value == wanted.value
    assert (share.low, share.high) == pytest.approx((wanted.low, wanted.high), abs=0.015)


def test_a_share_of_all_or_none_has_wilsons_interval_over_patients() -> None:
    hits = np.repeat([[True, False]], 60, axis=0)
    every, none = patient_shares(hits, np.arange(60) // 3)
    assert every == metrics.wilson(20, 20)
    assert none == metrics.wilson(0, 20)


def test_the_same_seed_gives_the_same_interval() -> None:
    hits = np.arange(30)[:, None] < 20
    assert patient_shares(hits, seed=3) == patient_shares(hits, seed=3)
    assert patient_shares(hits, seed=3, n=50) != patient_shares(hits, seed=4, n=50)


def test_wrong_input_is_refused_in_words() -> None:
    for hits in (np.zeros((0, 1), bool), np.zeros(3, bool), np.zeros((3, 1))):
        with pytest.raises(DataError, match=r"bool \[N, K\] with N >= 1. Received"):
            patient_shares(hits)
    good = np.ones((3, 1), bool)
    with pytest.raises(DataError, match=r"Received: shape \(2,\) for 3 images"):
        patient_shares(good, ["a", "b"])
    with pytest.raises(DataError, match="n=0"):
        patient_shares(good, n=0)
    with pytest.raises(DataError, match=r"Received: 1\.0"):
        patient_shares(good, level=1.0)
    with pytest.raises(DataError, match="patient of each image"):
        patient_numbers([["a"]], 1)


def test_resamples_in_blocks_are_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    hits = np.arange(200)[:, None] < 120
    whole = patient_shares(hits)[0]
    monkeypatch.setattr(shares, "_CELLS", 200 * 150)
    blocks = patient_shares(hits)[0]
    assert (blocks.low, blocks.high) == pytest.approx((whole.low, whole.high), abs=0.01)
    assert blocks.value == whole.value
