"""The lung field: where it lies on synthetic and real films, what it does with white lungs, and when it gives none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pneumolib.data.dataset import load_dataset
from pneumolib.data.images import square
from pneumolib.data.lungs import OUTLINES, SIDE, lung_field
from pneumolib.data.radiograph import draw
from pneumolib.errors import DataError


def film(seed: int, subtype: str = "normal") -> NDArray[np.uint8]:
    return draw(subtype, seed, size=(240, 280))


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_the_field_is_dark_on_both_sides_of_a_bright_middle() -> None:
    for seed in range(4):
        image = film(seed)
        mask = lung_field(image)
        assert mask.dtype == bool
        assert mask.shape == image.shape
        assert 0.1 < mask.mean() < 0.45
        left, middle, right = mask[:, :100], mask[:, 130:150], mask[:, 180:]
        assert min(left.sum(), right.sum()) > 0.25 * mask.sum()
        assert middle.sum() < 0.05 * mask.sum()
        assert image[mask].mean() < 0.8 * image[60:200, 130:150].mean()


def test_a_white_lung_keeps_its_place() -> None:
    image = film(3)
    mask = lung_field(image)
    ill = image.copy()
    ill[130:190, 40:110] = np.maximum(ill[130:190, 40:110], 190)
    kept = lung_field(ill)
    assert kept[130:190, 40:110].sum() > 0.5 * mask[130:190, 40:110].sum()
    assert overlap(mask, kept) > 0.6


def test_the_field_follows_the_chest() -> None:
    image = film(2)
    # Wide borders above and left, of the film's own gray: the chest lies further down and to the right.
    moved = lung_field(np.pad(image, [(24, 0), (28, 0)], mode="edge"))[24:, 28:]
    assert overlap(lung_field(image), moved) > 0.6


def test_size_changes_little() -> None:
    image = film(1)
    small = lung_field(square(image, SIDE))
    large = square(lung_field(image).astype(np.uint8) * 255, SIDE, bars=True) > 127
    assert overlap(small, large) > 0.95


@pytest.mark.parametrize("name", ["black", "noise", "negative", "lying"])
def test_what_shows_no_lungs_has_no_field(name: str) -> None:
    image = film(5)
    picture = {
        "black": np.zeros((120, 100), np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8),
        "negative": 255 - image,
        "lying": np.rot90(image).copy(),
    }[name]
    mask = lung_field(picture)
    assert mask.shape == picture.shape
    assert not mask.any()


@pytest.mark.parametrize("given", [np.zeros((64, 64)), np.zeros((4, 64), np.uint8), np.zeros((2, 64, 64), np.uint8), 1])
def test_what_is_no_picture_is_refused(given: object) -> None:
    with pytest.raises(DataError, match=r"uint8 \[H, W\], 16 pixels or more.*Received"):
        lung_field(given)  # type: ignore[arg-type]


def test_the_outlines_lie_in_the_picture_one_in_each_half() -> None:
    first, second = (np.array(outline) for outline in OUTLINES)
    assert min(first.min(), second.min()) > 0
    assert max(first.max(), second.max()) < 1
    assert first[:, 0].max() < 0.5 < second[:, 0].min()


def test_real_lungs_are_found_nearly_always(real_data: Path) -> None:
    train = load_dataset(real_data).train
    chosen = np.linspace(0, len(train) - 1, 60).astype(int)
    shares = [float(lung_field(square(train.image(i), 160)).mean()) for i in chosen]
    assert np.mean(np.array(shares) > 0) > 0.9
    assert all(share == 0 or 0.05 < share < 0.45 for share in shares)
