"""Familiarity: what lies far from the training images is told, what lies among them is not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load, save

from pneumolib.errors import ArtifactError, DataError
from pneumolib.models.familiarity import Familiarity, fit_familiarity

rng = np.random.default_rng(0)
MIX = rng.normal(size=(20, 20))
CENTRES = 6 * rng.normal(size=(3, 8))


def drawn(n: int, seed: int) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    """Correlated styles, and features around one centre a class."""
    chance = np.random.default_rng(seed)
    targets = chance.integers(0, 3, n)
    return {
        "style": chance.normal(size=(n, 20)) @ MIX,
        "features": CENTRES[targets] + chance.normal(size=(n, 8)),
    }, targets


@pytest.fixture(scope="module")
def fitted() -> Familiarity:
    train, targets = drawn(2000, 1)
    return fit_familiarity(train, drawn(400, 2)[0], targets)


def test_new_ones_of_the_same_kind_are_within_the_limits(fitted: Familiarity) -> None:
    distances = fitted.distances(drawn(2000, 3)[0])
    for part in ("style", "features"):
        assert (distances[part] <= 1).mean() > 0.985
        assert np.median(distances[part]) > 0.1


def test_a_step_that_is_small_but_against_the_correlation_is_far(fitted: Familiarity) -> None:
    inner, _ = drawn(100, 4)
    variances, axes = np.linalg.eigh(MIX.T @ MIX)
    along, across = axes[:, -1] * np.sqrt(variances[-1]), axes[:, 0] * np.sqrt(variances[-1])
    assert np.linalg.norm(along) == pytest.approx(np.linalg.norm(across))
    apart = {name: fitted.distances({**inner, "style": inner["style"] + step})["style"] for name, step in
             (("along", along), ("across", across))}  # fmt: skip
    assert np.median(apart["along"]) < 1 < np.median(apart["across"])


def test_features_are_measured_from_the_nearest_class(fitted: Familiarity) -> None:
    style = drawn(3, 5)[0]["style"]
    assert (fitted.distances({"style": style, "features": CENTRES})["features"] < 0.5).all()
    between = CENTRES.mean(0, keepdims=True).repeat(3, 0)
    assert (fitted.distances({"style": style, "features": between})["features"] > 1).all()


def test_the_distance_is_mahalanobis_where_all_axes_are_kept() -> None:
    train, targets = drawn(5000, 6)
    held_out = drawn(300, 7)[0]
    found = fit_familiarity(train, held_out, targets)
    off = held_out["style"] - train["style"].mean(0)
    expected = np.einsum("ni,ij,nj->n", off, np.linalg.inv(np.cov(train["style"].T)), off)
    ratio = found.distances(held_out)["style"] / expected
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=0.01)


def test_few_held_out_images_widen_the_limits() -> None:
    train, targets = drawn(1000, 8)
    held_out = drawn(1000, 9)[0]
    few = {name: values[:10] for name, values in held_out.items()}
    far = {name: values + 1 for name, values in held_out.items()}
    wide, narrow = (fit_familiarity(train, some, targets).distances(far)["style"] for some in (few, held_out))
    assert wide.mean() < narrow.mean()


def test_it_survives_being_written_and_read(fitted: Familiarity) -> None:
    inner, _ = drawn(10, 10)
    again = Familiarity(load(save(fitted.arrays)))
    for part, values in fitted.distances(inner).items():
        np.testing.assert_array_equal(again.distances(inner)[part], values)


@pytest.mark.parametrize("damage", ["missing", "shape", "limit", "number"])
def test_damaged_arrays_are_refused(fitted: Familiarity, damage: str) -> None:
    arrays = dict(fitted.arrays)
    if damage == "missing":
        del arrays["style.axes"]
    elif damage == "shape":
        arrays["style.axes"] = arrays["style.axes"][:-1]
    elif damage == "limit":
        arrays["features.limit"] = np.zeros(1, np.float32)
    else:
        arrays["features.centres"] = np.full_like(arrays["features.centres"], np.nan)
    with pytest.raises(ArtifactError, match="familiarity is damaged"):
        Familiarity(arrays)


def test_what_does_not_fit_is_refused(fitted: Familiarity) -> None:
    train, targets = drawn(50, 11)
    with pytest.raises(DataError, match=r"style must be float \[N, 20\]. Received: shape \[50, 19\]"):
        fitted.distances({**train, "style": train["style"][:, 1:]})
    with pytest.raises(DataError, match="ten training images or more"):
        fit_familiarity(train, train, targets[:9])
