"""Augmentation: stateless, and each step does what its name says."""

import numpy as np
import pytest

from pneumolib.errors import ConfigError, DataError
from pneumolib.models.augment import REASONS, STRENGTHS, Augmentation, augment


def picture(side: int = 64) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return (60 + 80 * (x > side * 0.6) + 40 * (y > side * 0.3) + 20 * np.sin(x)).astype(np.uint8)


def test_equal_seed_epoch_and_image_give_equal_pixels() -> None:
    settings = Augmentation.preset("strong")
    first = augment(picture(), settings, seed=3, epoch=5, index=11)
    again = augment(picture(), settings, seed=3, epoch=5, index=11)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("other", [{"seed": 4}, {"epoch": 6}, {"index": 12}])
def test_another_seed_epoch_or_image_gives_other_pixels(other: dict[str, int]) -> None:
    chance = {"seed": 3, "epoch": 5, "index": 11}
    settings = Augmentation.preset("medium")
    first = augment(picture(), settings, **chance)
    assert (augment(picture(), settings, **(chance | other)) != first).any()


def test_the_input_is_left_as_it_was() -> None:
    image = picture()
    before = image.copy()
    augment(image, Augmentation.preset("strong"), seed=0, epoch=0, index=0)
    np.testing.assert_array_equal(image, before)


def test_nothing_switched_on_changes_nothing() -> None:
    image = picture()
    np.testing.assert_array_equal(augment(image, Augmentation(), seed=0, epoch=0, index=0), image)


SINGLE = {
    "tone": 1.0, "rotation": 40, "scale": 0.4, "shear": 20, "translation": 0.3, "mirror": 1.0, "brightness": 0.5,
    "contrast": 0.5, "gamma": 1.0, "blur": 5.0, "resolution": 0.2, "noise": 30, "jpeg": 5, "border": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_each_step_alone_changes_the_image_and_keeps_its_form(name: str) -> None:
    settings = Augmentation(**{name: SINGLE[name]}, occasional=1.0)
    changed = [augment(picture(), settings, seed=0, epoch=0, index=i) for i in range(4)]
    assert all(image.dtype == np.uint8 and image.shape == (64, 64) for image in changed)
    assert any((image != picture()).any() for image in changed)
    assert list(settings.active()) == [name]


def test_mirror_is_a_mirror() -> None:
    mirrored = augment(picture(), Augmentation(mirror=1.0), seed=0, epoch=0, index=0)
    np.testing.assert_array_equal(mirrored, picture()[:, ::-1])


def test_translation_moves_the_picture_and_fills_with_black() -> None:
    white = np.full((64, 64), 255, np.uint8)
    moved = augment(white, Augmentation(translation=0.4), seed=1, epoch=0, index=0)
    assert moved.min() == 0
    assert moved.max() == 255


def test_blur_lowers_the_gradient_and_noise_raises_it() -> None:
    def roughness(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image.astype(float), axis=1)).mean())

    blurred = augment(picture(), Augmentation(blur=8, occasional=1), seed=2, epoch=0, index=1)
    noisy = augment(picture(), Augmentation(noise=40, occasional=1), seed=2, epoch=0, index=1)
    assert roughness(blurred) < roughness(picture()) < roughness(noisy)


def test_a_tone_curve_keeps_the_order_of_grays_and_moves_their_spread() -> None:
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    curves = [augment(ramp, Augmentation(tone=1, occasional=1), seed=0, epoch=0, index=i)[0] for i in range(40)]
    assert all((np.diff(curve.astype(int)) >= 0).all() for curve in curves)
    middles = [float(np.median(curve)) for curve in curves]
    assert min(middles) < 110
    assert max(middles) > 150


def test_a_full_tone_curve_makes_two_devices_of_one_picture_alike() -> None:
    """The curve is drawn from the picture's own grays, so what a device did to them before does not matter."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    darker = (255 * (image / 255) ** 2).astype(np.uint8)
    settings = Augmentation(tone=1, occasional=1)
    # Chance is the same for both, and of these images those with a share near 1 forget the device.
    gaps = []
    for index in range(60):
        one, other = (augment(x, settings, seed=0, epoch=0, index=index).astype(int) for x in (image, darker))
        gaps.append(np.abs(one - other).mean())
    before = np.abs(image.astype(int) - darker.astype(int)).mean()
    assert max(gaps) < before
    assert min(gaps) < 0.1 * before


def test_occasional_steps_happen_as_often_as_said() -> None:
    settings = Augmentation(noise=40, occasional=0.3)
    changed = [(augment(picture(), settings, seed=0, epoch=0, index=i) != picture()).any() for i in range(400)]
    assert 0.2 < np.mean(changed) < 0.4


def test_letters_are_painted_in_and_leave_the_rest() -> None:
    settings = Augmentation(letters=0.2, occasional=1)
    gray = np.full((96, 96), 60, np.uint8)
    shares = []
    for index in range(60):
        after = augment(gray, settings, seed=0, epoch=0, index=index)
        painted = after != gray
        assert after[painted].min() > 60
        shares.append(painted.mean())
    assert 0 < min(shares) < max(shares) < 0.35
    assert len(set(shares)) > 20


def test_what_is_cut_off_is_gone_and_the_rest_fills_the_square() -> None:
    framed = np.full((96, 96), 200, np.uint8)
    framed[:, :10] = framed[:, -10:] = framed[:10] = framed[-10:] = 0
    black = [
        float((augment(framed, Augmentation(cut=0.2, occasional=1), seed=0, epoch=0, index=i) == 0).mean())
        for i in range(80)
    ]
    assert max(black) <= (framed == 0).mean()
    assert min(black) < 0.08
    assert np.mean(black) == pytest.approx(0.15, abs=0.05)


def test_a_share_of_the_images_keeps_its_position() -> None:
    settings = Augmentation(rotation=30, scale=0.2, translation=0.1, position=0.6)
    moved = [(augment(picture(), settings, seed=0, epoch=0, index=i) != picture()).any() for i in range(300)]
    assert 0.5 < np.mean(moved) < 0.7
    mirrored = Augmentation(rotation=30, mirror=1, position=0)
    np.testing.assert_array_equal(augment(picture(), mirrored, seed=0, epoch=0, index=0), picture()[:, ::-1])


def test_switching_one_step_on_leaves_the_draws_of_the_others() -> None:
    turned = augment(picture(), Augmentation(rotation=20), seed=0, epoch=0, index=3)
    both = augment(picture(), Augmentation(rotation=20, brightness=1e-9), seed=0, epoch=0, index=3)
    np.testing.assert_array_equal(turned, both)


def test_every_step_has_a_reason_and_every_strength_is_valid() -> None:
    assert set(REASONS) == set(Augmentation.__dataclass_fields__) - {"occasional", "position"}
    for strength in STRENGTHS:
        Augmentation.preset(strength)


def test_a_config_names_a_strength_or_spells_the_steps_out() -> None:
    assert Augmentation.of("medium") == Augmentation.preset("medium")
    assert Augmentation.of({"rotation": 5, "jpeg": 60}) == Augmentation(rotation=5, jpeg=60)


def test_bad_settings_and_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"rotation must be 0 to 180. Received: 181"):
        Augmentation(rotation=181)
    with pytest.raises(ConfigError, match="jpeg must be 1 to 100"):
        Augmentation(jpeg=0)
    with pytest.raises(ConfigError, match="resolution must be"):
        Augmentation(resolution=0)
    with pytest.raises(ConfigError, match="Allowed: none, light, medium, strong, framed"):
        Augmentation.preset("huge")
    with pytest.raises(ConfigError, match=r"no such step. Allowed: tone, rotation.*Received: turn"):
        Augmentation.of({"turn": 3})
    with pytest.raises(DataError, match=r"uint8 \[S, S\].*Received: float32 \[64, 64\]"):
        augment(picture().astype(np.float32), Augmentation(), seed=0, epoch=0, index=0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="Received: uint8"):
        augment(picture()[:32], Augmentation(), seed=0, epoch=0, index=0)
