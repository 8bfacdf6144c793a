"""A layer for training that lends an image the style of another, so that the look of a device stops telling the class.

The mean and the standard deviation of each channel of an early feature map say more about the machine that took a
picture than about what is in it (Zhou et al., 2021, arXiv:2104.02008). So while training, half of the images get, at
each such layer, statistics that lie between their own and those of another image of the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pneumolib import runtime

if TYPE_CHECKING:
    import keras
else:
    keras = runtime.keras()

_EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="pneumolib")
class MixStyle(keras.layers.Layer):
    """Returns its input ``[B, H, W, K]``; in training, with channel statistics mixed between images of the batch.

    The partner of an image is the one at the mirrored place in the batch, whose order is random already. The share of
    the partner follows the arcsine law, Beta(1/2, 1/2): mostly near 0 or near 1.

    Args:
        probability: with which an image takes part, 0 to 1.
        seed: of the draws.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(4, 8, 8, 2)).astype("float32")
        >>> layer = MixStyle(1.0, seed=0)
        >>> bool(np.all(layer(x, training=False) == x)), bool(np.allclose(layer(x, training=True), x))
        (True, False)
    """

    def __init__(self, probability: float = 0.5, seed: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be 0 to 1. Received: {probability!r}")
        self.probability, self.seed = probability, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or not self.probability:
            return inputs
        ops = keras.ops
        x = ops.cast(inputs, "float32")
        # No gradient flows through the statistics: the style is a given, not something to be learnt.
        mean = ops.stop_gradient(ops.mean(x, axis=(1, 2), keepdims=True))
        spread = ops.stop_gradient(ops.sqrt(ops.var(x, axis=(1, 2), keepdims=True) + _EPSILON))
        each = (ops.shape(x)[0], 1, 1, 1)
        chosen = keras.random.uniform(each, seed=self.seed_generator) < self.probability
        angle = keras.random.uniform(each, maxval=np.pi / 2, seed=self.seed_generator)
        share = ops.square(ops.sin(angle)) * ops.cast(chosen, "float32")
        new_mean = mean + share * (ops.flip(mean, axis=0) - mean)
        new_spread = spread + share * (ops.flip(spread, axis=0) - spread)
        return ops.cast((x - mean) / spread * new_spread + new_mean, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "probability": self.probability, "seed": self.seed}
