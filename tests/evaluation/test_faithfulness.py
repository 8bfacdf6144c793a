"""Numbers of heat maps: a map that is right comes out better than chance, and one that is wrong worse."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pneumolib.errors import DataError
from pneumolib.evaluation.faithfulness import blurred, deletion_insertion, heat_in_lungs, rank_correlation

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 60, (48, 48), dtype=np.uint8)
IMAGE[30:44, 4:18] = 220
SOFT = blurred(IMAGE)
RIGHT = np.zeros((48, 48))
RIGHT[30:44, 4:18] = 1


def bright_corner(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """An answer that only the lower left corner decides."""
    return images[:, 30:44, 4:18].mean((1, 2)) / 255


def test_the_right_map_beats_chance_and_its_reverse_loses() -> None:
    right, wrong = (deletion_insertion(bright_corner, IMAGE, heat, SOFT).areas for heat in (RIGHT, -RIGHT))
    assert right["deletion"] < right["random_deletion"] - 0.05
    assert right["insertion"] > right["random_insertion"] + 0.05
    assert wrong["deletion"] > wrong["random_deletion"] + 0.05
    assert wrong["insertion"] < wrong["random_insertion"] - 0.05


def test_curves_run_from_the_picture_to_the_blurred_one_and_back() -> None:
    found = deletion_insertion(bright_corner, IMAGE, RIGHT, SOFT, steps=7)
    assert found.share.tolist() == pytest.approx([i / 7 for i in range(8)])
    whole = bright_corner(IMAGE[None])[0]
    for name in ("deletion", "insertion", "random_deletion", "random_insertion"):
        curve = getattr(found, name)
        assert curve.shape == (8,)
        start, end = (0, -1) if "deletion" in name else (-1, 0)
        assert curve[start] == pytest.approx(whole)
        assert curve[end] < 0.8 * whole
    # The corner is 8.5 % of the picture: with a seventh hidden it is gone, with a seventh shown it is there.
    assert found.deletion[1] == pytest.approx(found.deletion[-1])
    assert found.insertion[1] == pytest.approx(whole)


def test_another_picture_may_stand_for_what_is_hidden() -> None:
    dark = np.zeros_like(IMAGE)
    assert deletion_insertion(bright_corner, IMAGE, RIGHT, dark).deletion[-1] == 0
    with pytest.raises(DataError, match="reference"):
        deletion_insertion(bright_corner, IMAGE, RIGHT, dark[:-1])


def test_a_blurred_picture_keeps_its_mean_and_loses_its_corners() -> None:
    assert SOFT.dtype == np.uint8
    assert SOFT.mean() == pytest.approx(IMAGE.mean(), abs=4)
    assert SOFT.std() < 0.7 * IMAGE.std()


def test_chance_is_that_of_the_seed() -> None:
    curves = [deletion_insertion(bright_corner, IMAGE, RIGHT, SOFT, seed=seed).random_deletion for seed in (1, 1, 2)]
    assert curves[0].tolist() == curves[1].tolist() != curves[2].tolist()


def test_odd_arguments_of_deletion_are_refused() -> None:
    with pytest.raises(DataError, match=r"same shape.*heat \[48, 47\]"):
        deletion_insertion(bright_corner, IMAGE, RIGHT[:, 1:], SOFT)
    with pytest.raises(DataError, match="finite"):
        deletion_insertion(bright_corner, IMAGE, np.full((48, 48), np.nan), SOFT)
    with pytest.raises(DataError, match="steps=0"):
        deletion_insertion(bright_corner, IMAGE, RIGHT, SOFT, steps=0)


def test_the_share_of_heat_in_the_lungs() -> None:
    mask = RIGHT > 0
    assert heat_in_lungs(RIGHT, mask) == 1
    assert heat_in_lungs(1 - RIGHT, mask) == 0
    assert heat_in_lungs(np.ones((48, 48)), mask) == pytest.approx(mask.mean())
    assert np.isnan(heat_in_lungs(np.zeros((48, 48)), mask))
    assert np.isnan(heat_in_lungs(RIGHT, np.zeros((48, 48), bool)))
    for heat in (RIGHT[1:], -RIGHT, np.full((48, 48), np.inf)):
        with pytest.raises(DataError, match="finite, 0 or more"):
            heat_in_lungs(heat, mask)


def test_rank_correlation_is_spearmans() -> None:
    a, b = RNG.integers(0, 9, (2, 12, 12))
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic)
    assert rank_correlation(a, np.exp(a)) == 1
    assert rank_correlation(a, -a) == -1
    assert np.isnan(rank_correlation(a, np.zeros((12, 12))))
    with pytest.raises(DataError, match="one shape"):
        rank_correlation(a, b[1:])
