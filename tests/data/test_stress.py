"""Each stress does what its label says, by as much as it says, and the same each time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import pneumolib as pn
from pneumolib.data.images import square
from pneumolib.data.stress import LUNG_BOX, SIDE, STRESSES, Stress, _reduced, stressed_images, stressed_squares
from pneumolib.errors import DataError, ImageError

Y, X = np.mgrid[:SIDE, :SIDE]
WAVES = (110 + 50 * np.sin(X / 9) * np.cos(Y / 7)).astype(np.uint8)
FLAT = np.full((SIDE, SIDE), 100, np.uint8)
every_stress = pytest.mark.parametrize("stress", STRESSES, ids=lambda s: f"{s.group} {s.level}")


def chance(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def under(group: str, image: np.ndarray) -> dict[float | str, np.ndarray]:
    """The image under each level of a group."""
    return {s.level: s.apply(image, chance()) for s in STRESSES if s.group == group}


def error(changed: np.ndarray, image: np.ndarray = WAVES) -> float:
    return float(np.abs(square(changed, SIDE).astype(float) - image).mean())


def test_groups_and_levels_are_those_of_the_documentation() -> None:
    levels: dict[str, list[float | str]] = {}
    for stress in STRESSES:
        levels.setdefault(stress.group, []).append(stress.level)
    assert levels == {
        "jpeg": [95, 75, 50, 30, 20],
        "resolution": [2, 0.5, 0.33, 0.25],
        "aspect": ["1.4:1", "1:1.4", "sides cut", "top cut"],
        "contrast": [0.6, 0.7, 1.3, 1.4],
        "brightness": [0.6, 0.7, 1.3, 1.4],
        "gamma": [0.6, 0.8, 1.25, 1.67],
        "blur": [1, 2, 3],
        "noise": [5, 10, 20],
        "rotation": [-20, -10, 10, 20],
        "mirror": ["mirrored"],
        "borders": ["masked", "cut"],
        "markers": ["letters", "text"],
        "lung box": ["hidden", "only"],
    }
    assert len({stress.label for stress in STRESSES}) == len(STRESSES)


@every_stress
def test_each_changes_the_picture_leaves_its_input_alone_and_can_be_repeated(stress: Stress) -> None:
    image = WAVES[:, :200].copy()
    result = stress.apply(image, chance())
    assert result.dtype == np.uint8
    assert result.ndim == 2
    assert np.array_equal(image, WAVES[:, :200])
    assert np.array_equal(result, stress.apply(image, chance()))
    assert not np.array_equal(square(result, SIDE, bars=True), square(image, SIDE))


def test_to_a_detector_black_bars_are_not_there() -> None:
    for level, image in under("aspect", WAVES).items():
        assert np.array_equal(square(image, SIDE), WAVES) == (level in ("1.4:1", "1:1.4"))
    masked, cut = under("borders", WAVES).values()
    np.testing.assert_array_equal(square(masked, SIDE), square(cut, SIDE))


def test_no_two_are_alike() -> None:
    assert len({square(s.apply(WAVES, chance()), SIDE, bars=True).tobytes() for s in STRESSES}) == len(STRESSES)


@pytest.mark.parametrize(
    ("group", "from_mild_to_strong"),
    [
        ("jpeg", [95, 75, 50, 30, 20]),
        ("resolution", [2, 0.5, 0.33, 0.25]),
        ("contrast", [0.7, 0.6]),
        ("contrast", [1.3, 1.4]),
        ("brightness", [0.7, 0.6]),
        ("brightness", [1.3, 1.4]),
        ("gamma", [0.8, 0.6]),
        ("gamma", [1.25, 1.67]),
        ("blur", [1, 2, 3]),
        ("noise", [5, 10, 20]),
        ("rotation", [-10, -20]),
        ("rotation", [10, 20]),
    ],
)
def test_the_stronger_level_is_farther_from_the_picture(group: str, from_mild_to_strong: list[float]) -> None:
    errors = [error(under(group, WAVES)[level]) for level in from_mild_to_strong]
    assert errors == sorted(errors)
    assert len(set(errors)) == len(errors)


def test_resolution_changes_the_number_of_pixels() -> None:
    assert {level: image.shape for level, image in under("resolution", WAVES[:, :200]).items()} == {
        2: (448, 400),
        0.5: (112, 100),
        0.33: (74, 66),
        0.25: (56, 50),
    }


def test_black_bars_make_the_chest_narrower_or_flatter_by_the_ratio() -> None:
    chest = np.zeros((SIDE, SIDE), np.uint8)
    chest[42:182, 42:182] = 200
    changed = {level: square(image, SIDE, bars=True) > 100 for level, image in under("aspect", chest).items()}
    assert changed["1.4:1"].any(0).sum() == pytest.approx(140 / 1.4, abs=1)
    assert changed["1.4:1"].any(1).sum() == pytest.approx(140, abs=1)
    assert changed["1:1.4"].any(1).sum() == pytest.approx(140 / 1.4, abs=1)
    assert changed["sides cut"].any(0).sum() == pytest.approx(140 / 0.8, abs=1)
    assert changed["top cut"].any(1).sum() == pytest.approx(140 / 0.9, abs=1)
    assert np.flatnonzero(changed["top cut"].any(1))[0] < 30


def test_contrast_keeps_the_brightness_and_brightness_multiplies() -> None:
    for factor, image in under("contrast", WAVES).items():
        assert image.mean() == pytest.approx(WAVES.mean(), abs=0.3)
        assert image.std() == pytest.approx(WAVES.std() * factor, rel=0.01)
    for factor, image in under("brightness", FLAT).items():
        assert set(image.ravel()) == {round(100 * factor)}
    assert under("brightness", FLAT + 120)[1.4].min() == 255


def test_gamma_bends_the_gray_scale_and_keeps_its_ends() -> None:
    scale = np.arange(256, dtype=np.uint8)[None].repeat(4, axis=0)
    for exponent, image in under("gamma", scale).items():
        assert (image[0, 0], image[0, 255]) == (0, 255)
        assert image[0, 64] == pytest.approx(255 * (64 / 255) ** exponent, abs=0.51)


def test_blur_spreads_a_bar_and_noise_is_grain_by_as_much_as_they_say() -> None:
    line = np.zeros((SIDE, SIDE), np.uint8)
    line[:, 110:114] = 255
    for sigma, image in under("blur", line).items():
        weights, x = image[112] / image[112].sum(), np.arange(SIDE)
        spread = ((x - 111.5) ** 2 * weights).sum()
        # A bar of four pixels has a variance of its own, 5/4.
        assert spread == pytest.approx(sigma**2 + 1.25, rel=0.06)
    for sigma, image in under("noise", FLAT).items():
        assert image.std() == pytest.approx(sigma, rel=0.02)
        assert image.mean() == pytest.approx(100, abs=0.5)


def test_a_rotation_turns_a_line_by_its_degrees_counter_clockwise_and_leaves_the_corners_black() -> None:
    line = np.zeros((SIDE, SIDE), np.uint8)
    line[110:114, 40:184] = 255
    for degrees, image in under("rotation", line).items():
        y, x = np.nonzero(image > 128)
        slope = np.polyfit(x, y, 1)[0]
        assert -np.rad2deg(np.arctan(slope)) == pytest.approx(degrees, abs=0.3)
        assert y.mean() == pytest.approx(111.5, abs=0.3)
    for image in under("rotation", FLAT).values():
        assert not image[[0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_the_mirror_undoes_itself() -> None:
    (mirror,) = (s for s in STRESSES if s.group == "mirror")
    assert np.array_equal(mirror.apply(mirror.apply(WAVES, chance()), chance()), WAVES)


def test_the_masked_border_and_the_cut_one_leave_the_same_middle() -> None:
    masked, cut = under("borders", WAVES).values()
    assert cut.shape == (188, 188)
    assert np.array_equal(masked[18:206, 18:206], cut)
    assert not masked[:18].any()
    assert not masked[:, 206:].any()


def test_markers_are_white_and_stand_in_the_upper_corners_alone() -> None:
    for shape in ((SIDE, SIDE), (SIDE, 320)):
        image = np.full(shape, 60, np.uint8)
        letters, text = under("markers", image).values()
        for painted in (letters, text):
            assert painted.max() == 255
            assert np.array_equal(painted[45:], image[45:])
            assert painted.min() == 60
        columns = np.flatnonzero((letters > 60).any(0))
        assert not ((columns > 45) & (columns < shape[1] - 45)).any()
        assert columns[0] < 15
        assert columns[-1] > shape[1] - 15
        assert np.flatnonzero((text > 60).any(0))[0] > shape[1] / 3


def test_the_lung_box_hidden_and_the_lung_box_alone_add_up_to_the_picture() -> None:
    image = np.maximum(WAVES, 1)[:, :200]
    hidden, only = under("lung box", image).values()
    assert np.array_equal(hidden + only, image)
    assert not (hidden.astype(bool) & only.astype(bool)).any()
    top, bottom, left, right = LUNG_BOX
    assert only.astype(bool).mean() == pytest.approx((bottom - top) * (right - left), abs=0.01)
    assert only[round(0.5 * SIDE), 100]
    assert hidden[0, 0]


def test_images_depend_on_seed_and_name_not_on_their_company(phantom: pn.Dataset) -> None:
    noise = next(s for s in STRESSES if s.group == "noise")
    few, more = phantom.test.take(np.arange(2, 5)), phantom.test.take(np.arange(1, 6))
    images = stressed_images(few, 48, noise)
    assert images.shape == (3, 48, 48)
    assert images.dtype == np.uint8
    assert np.array_equal(images, stressed_images(more, 48, noise)[1:4])
    assert not np.array_equal(images, stressed_images(few, 48, noise, seed=1))


def test_one_image_under_all_is_that_image_under_each(phantom: pn.Dataset) -> None:
    some = [s for s in STRESSES if s.group in ("noise", "aspect", "jpeg")]
    squares = stressed_squares(phantom.test, 3, 48, some)
    for stress, image in zip(some, squares, strict=True):
        assert np.array_equal(image, stressed_images(phantom.test.take([3]), 48, stress)[0])


def test_the_levels_of_noise_are_one_grain_at_several_strengths(phantom: pn.Dataset) -> None:
    weak, middle, strong = (s for s in STRESSES if s.group == "noise")
    images = stressed_squares(phantom.test, 0, SIDE, [weak, middle, strong]).astype(float)
    plain = square(_reduced(phantom.test.image(0), SIDE), SIDE)
    inside = (plain > 70) & (plain < 180)
    grain = [(image - plain)[inside] for image in images]
    assert np.corrcoef(grain[0], grain[2])[0, 1] > 0.95
    assert grain[2].std() == pytest.approx(4 * grain[0].std(), rel=0.1)


def test_a_large_picture_is_stressed_as_its_small_copy_is(tmp_path) -> None:
    from PIL import Image

    folder = tmp_path / "test" / "NORMAL"
    folder.mkdir(parents=True)
    Image.fromarray(WAVES).resize((4 * SIDE, 4 * SIDE), Image.Resampling.BICUBIC).save(folder / "healthy1.png")
    Image.fromarray(WAVES).save(folder / "healthy2.png")
    part = pn.load_dataset(tmp_path).test
    strong = [s for s in STRESSES if (s.group, s.level) in {("jpeg", 20), ("blur", 3), ("resolution", 0.25)}]
    large, small = (stressed_squares(part, i, 96, strong).astype(float) for i in range(2))
    plain = square(WAVES, 96)
    for a, b in zip(large, small, strict=True):
        assert np.abs(a - b).mean() < 0.4 * np.abs(b - plain).mean()


def test_sizes_seeds_and_files_that_do_not_fit_are_refused(phantom: pn.Dataset) -> None:
    for wrong in ({"size": 8}, {"seed": -1}):
        with pytest.raises(DataError, match="size must be 16 or more and seed 0 or more"):
            stressed_squares(phantom.test, 0, **{"size": 32, "stresses": STRESSES[:1], **wrong})
    part = phantom.test.take([0])
    lost = type(part)((replace(part[0], name="test/NORMAL/lost.jpeg"),), Lost(), name="test")
    with pytest.raises(ImageError, match=r"lost\.jpeg"):
        stressed_images(lost, 32, STRESSES[0])


class Lost:
    """A source whose one file holds no image."""

    location = "nowhere"

    def read(self, name: str) -> bytes:
        return b"no image"
