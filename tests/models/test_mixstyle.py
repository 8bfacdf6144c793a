"""Mixed style: statistics are lent in training only, the picture stays."""

import numpy as np
import pytest

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.models.mixstyle import MixStyle
from pneumolib.models.resnet import MIXED_STAGES, build_model

keras = runtime.keras()
rng = np.random.default_rng(0)
# Four images, each with a mean and a spread of its own in each of three channels.
X = (rng.normal(size=(4, 16, 16, 3)) * rng.uniform(1, 4, (4, 1, 1, 3)) + rng.uniform(-9, 9, (4, 1, 1, 3))).astype("f4")


def statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.mean((1, 2)), x.std((1, 2))


def test_nothing_changes_outside_training_or_with_probability_zero() -> None:
    np.testing.assert_array_equal(MixStyle(1.0, seed=0)(X), X)
    np.testing.assert_array_equal(MixStyle(1.0, seed=0)(X, training=False), X)
    np.testing.assert_array_equal(MixStyle(0.0, seed=0)(X, training=True), X)


def test_statistics_lie_between_those_of_an_image_and_its_partner_and_the_content_stays() -> None:
    mixed = np.asarray(MixStyle(1.0, seed=1)(X, training=True))
    (mean, spread), (new_mean, new_spread) = statistics(X), statistics(mixed)
    share = (new_mean - mean) / (mean[::-1] - mean)
    assert ((share > -1e-3) & (share < 1 + 1e-3)).all()
    assert np.ptp(share, axis=1).max() < 1e-3, "one share for all channels of an image"
    assert np.ptp(share[:, 0]) > 0.05, "another share for each image"
    np.testing.assert_allclose(new_spread, spread + share * (spread[::-1] - spread), rtol=1e-3)
    for before, after in zip(X, mixed, strict=True):
        for channel in range(3):
            assert np.corrcoef(before[..., channel].ravel(), after[..., channel].ravel())[0, 1] > 0.9999


def test_the_probability_is_that_of_an_image_taking_part() -> None:
    many = np.repeat(X, 100, axis=0)
    mixed = np.asarray(MixStyle(0.3, seed=2)(many, training=True))
    changed = np.abs(mixed - many).max((1, 2, 3)) > 1e-3
    assert 0.2 < changed.mean() < 0.4


def test_no_gradient_flows_into_the_statistics() -> None:
    tf = runtime.tensorflow()
    x = tf.constant(X)
    layer = MixStyle(1.0, seed=3)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(layer(x, training=True), axis=(1, 2, 3))
    gradient = np.asarray(tape.gradient(total, x))
    # Statistics that are constants leave a plain scaling: the same number at each place of a channel.
    assert np.ptp(gradient, axis=(1, 2)).max() < 1e-6


def test_the_network_has_it_in_its_early_stages_only_where_asked() -> None:
    def count(**changes) -> int:
        model = build_model(Config(size=32, width=4, **changes), precision="float32")
        return sum(isinstance(layer, MixStyle) for layer in model.layers)

    assert count() == 0
    assert count(mix_style=0.5) == MIXED_STAGES


def test_it_has_no_weights_and_survives_being_saved() -> None:
    plain = build_model(Config(size=32, width=4), precision="float32")
    mixing = build_model(Config(size=32, width=4, mix_style=0.5), precision="float32")
    assert [w.path for w in plain.weights] == [w.path for w in mixing.weights]
    layer = MixStyle.from_config(MixStyle(0.25, seed=7, name="lent").get_config())
    assert (layer.probability, layer.seed, layer.name) == (0.25, 7, "lent")


def test_a_probability_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"probability must be 0 to 1. Received: 1.5"):
        MixStyle(1.5)
