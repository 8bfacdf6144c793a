"""The first check of the input: X-rays pass, what is plainly something else is refused with the right reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pneumolib.data.images import square
from pneumolib.data.radiograph import draw
from pneumolib.errors import ArtifactError, DataError
from pneumolib.models.reference import InputCheck, check_images, fit_reference, require_reference

SIZE = 64
SUBTYPES = ("normal", "bacterial", "viral")


def drawn(seeds: range) -> NDArray[np.uint8]:
    return np.stack([square(draw(SUBTYPES[seed % 3], seed, size=(96, 112)), SIZE) for seed in seeds])


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return fit_reference(drawn(range(60)))


def check(image: NDArray[Any], reference: dict[str, Any]) -> InputCheck:
    return check_images(np.asarray(image, np.uint8)[None], reference)[0]


def test_new_x_rays_pass(reference: dict[str, Any]) -> None:
    checks = check_images(drawn(range(1000, 1030)), reference)
    assert sum(c.ok for c in checks) >= 28
    assert all((c.reason is None) == c.ok for c in checks)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_constant_picture_is_refused(value: int, reference: dict[str, Any]) -> None:
    found = check(np.full((SIZE, SIZE), value), reference)
    assert not found.ok
    assert "contrast" in str(found.reason)


def test_noise_a_negative_a_turned_and_a_dark_x_ray_are_refused_by_their_names(reference: dict[str, Any]) -> None:
    x_ray = drawn(range(2000, 2001))[0]
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE))
    board = np.indices((SIZE, SIZE)).sum(axis=0) // 16 % 2 * 200
    for picture, word, codes in [
        (noise, "noise", "grain"),
        (255 - x_ray, "inverted", "inverted"),
        (np.rot90(x_ray), "turned|layout", "turned layout"),
        (board, "layout", "layout"),
        (x_ray // 3, "contrast|dark", "contrast brightness"),
    ]:
        found = check(picture, reference)
        assert not found.ok
        assert str(found.code) in codes
        assert any(w in str(found.reason) for w in word.split("|")), found.reason


@pytest.mark.parametrize("degrees", [45, 180, 315])
def test_a_turned_x_ray_is_refused_and_told_which_way_it_lies(degrees: int, reference: dict[str, Any]) -> None:
    middle = ((SIZE - 1) / 2, (SIZE - 1) / 2)
    turn = cv2.getRotationMatrix2D(middle, degrees, 1.0)
    pictures = [cv2.warpAffine(x, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT) for x in drawn(range(50, 60))]
    found = [check(picture, reference) for picture in pictures]
    assert not any(f.ok for f in found)
    told = [f.reason for f in found if f.code == "turned"]
    assert len(told) >= 5
    assert sum(f"about {min(degrees, 360 - degrees)} degrees" in str(reason) for reason in told) > len(told) / 2


def test_what_the_network_finds_unfamiliar_is_refused_with_the_part_that_is(reference: dict[str, Any]) -> None:
    distances = {"style": np.array([0.5, 3.0, 1.2]), "features": np.array([0.9, 1.5, 2.0])}
    near, style, features = check_images(drawn(range(70, 73)), reference, distances)
    assert near.ok
    assert near.code is near.reason is None
    assert style.code == features.code == "unfamiliar"
    assert "outside the population" in str(style.reason)
    assert "gray curve are 3.00 times" in str(style.reason)
    assert "the network finds in it is 2.00 times" in str(features.reason)


def test_the_reference_survives_json(reference: dict[str, Any]) -> None:
    again = json.loads(json.dumps(reference))
    assert again == reference
    require_reference(again)


@pytest.mark.parametrize(
    "change",
    [
        {"pattern": [1.0] * 255},
        {"pattern": [float("nan")] * 256},
        {"pattern": ["1"] * 256},
        {"bounds": {}},
        {"more": 1},
        {"bounds": {"mean": [2, 1], "std": [0, 1], "likeness": [0, 1], "detail": [0, 1]}},
    ],
)
def test_a_damaged_reference_is_refused(change: dict[str, Any], reference: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="reference statistics"):
        require_reference(reference | change)


@pytest.mark.parametrize("images", [np.zeros((9, 8, 8), np.uint8), np.zeros((20, 8, 8)), np.zeros((20, 8), np.uint8)])
def test_a_reference_needs_enough_images_of_the_right_form(images: NDArray[Any]) -> None:
    with pytest.raises(DataError, match="at least ten images"):
        fit_reference(images)


def test_few_real_x_rays_of_new_patients_are_refused(real_data: Path) -> None:
    from pneumolib.data.dataset import load_dataset

    train = load_dataset(real_data).train
    order = np.random.default_rng(0).permutation(np.unique(train.patients))
    held_out = np.isin(train.patients, order[: len(order) // 5])

    def some(mask: NDArray[np.bool_], n: int) -> NDArray[np.uint8]:
        rows = np.flatnonzero(mask)
        return np.stack([square(train.image(int(i)), SIZE) for i in rows[:: max(len(rows) // n, 1)]])

    known, new = some(~held_out, 1200), some(held_out, 600)
    reference = fit_reference(known)
    assert np.mean([not c.ok for c in check_images(new, reference)]) <= 0.02
    assert not any(c.ok for c in check_images(255 - new, reference))
    assert not any(c.ok for c in check_images(np.ascontiguousarray(np.rot90(new, axes=(1, 2))), reference))
