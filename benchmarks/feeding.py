"""How fast does training go, and where does augmentation belong? Images per second, side by side in one run.

Compared, on the same network, batch size and number format:

- ``array``: plain `model.fit` on a float32 array in memory, no augmentation: what the arithmetic alone allows;
- ``layers in the model``: plain `model.fit` on that array, Keras augmentation layers in the model;
- ``layers in tf.data``: the same layers mapped over a `tf.data` pipeline;
- ``pneumolib``: `training_batches`, stateless augmentation from a uint8 memory map.

The ways take turns, round after round, so that a busy machine slows all of them; the table shows medians and ratios.

    python benchmarks/feeding.py --size 160 --rounds 5 --json benchmarks/results/feeding.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.models import batches
from pneumolib.models.augment import Augmentation
from pneumolib.models.resnet import build_model

keras = runtime.keras()
tf = runtime.tensorflow()


def keras_layers(settings: Augmentation) -> list[keras.layers.Layer]:
    """Return Keras's layers for the geometric and exposure steps of `settings`."""
    layers = keras.layers
    return [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(settings.rotation / 360, fill_mode="constant"),
        layers.RandomZoom(settings.scale, settings.scale, fill_mode="constant"),
        layers.RandomTranslation(settings.translation, settings.translation, fill_mode="constant"),
        layers.RandomBrightness(settings.brightness),
        layers.RandomContrast(settings.contrast, value_range=(0, 255)),
    ]


def compiled(config: Config, front: list[keras.layers.Layer]) -> keras.Model:
    core = build_model(config)
    image = keras.Input((config.size, config.size, 1))
    x = image
    for layer in front:
        x = layer(x)
    model = keras.Model(image, core(x)) if front else core
    model.compile(optimizer=keras.optimizers.AdamW(1e-4), loss="categorical_crossentropy", jit_compile="auto")
    return model


def ways(config: Config, n_images: int) -> dict[str, Callable[[], None]]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (n_images, config.size, config.size), np.uint8)
    targets = batches.one_hot(random.integers(0, 3, n_images), 3)
    weights = np.ones(n_images, np.float32)
    array = images[..., None].astype(np.float32)
    settings = Augmentation.of(config.augmentation)
    steps = n_images // config.batch_size
    plain, inside = compiled(config, []), compiled(config, keras_layers(settings))

    mapped = keras.Sequential(keras_layers(settings))
    pipeline = (
        tf.data.Dataset.from_tensor_slices((images[..., None], targets))
        .shuffle(n_images)
        .batch(config.batch_size)
        .map(lambda x, y: (mapped(tf.cast(x, tf.float32), training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )

    def ours() -> None:
        data = batches.training_batches(
            images, targets, weights, settings, batch_size=config.batch_size, seed=0, first_epoch=0, epochs=2
        )
        plain.fit(data, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)

    return {
        "array, no augmentation": lambda: plain.fit(array, targets, batch_size=config.batch_size, verbose=0),
        "layers in the model": lambda: inside.fit(array, targets, batch_size=config.batch_size, verbose=0),
        "layers in tf.data": lambda: plain.fit(pipeline, shuffle=False, verbose=0),
        "pneumolib": ours,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    config = Config.preset("scratch", size=arguments.size)
    competitors = ways(config, arguments.images // config.batch_size * config.batch_size)
    for run in competitors.values():
        run()  # tracing and warm-up
    rates: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(arguments.rounds):
        for name, run in competitors.items():
            began = time.perf_counter()
            run()
            rates[name].append(arguments.images / (time.perf_counter() - began))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {
        name: statistics.median(o / v for o, v in zip(rates["pneumolib"], values, strict=True))
        for name, values in rates.items()
    }
    print(f"{runtime.describe()}, {config.architecture}, {config.size} px, batch {config.batch_size}")
    print(f"{'way':<26}{'images/s':>10}{'pneumolib / it':>16}")
    for name in competitors:
        print(f"{name:<26}{medians[name]:>10.1f}{ratios[name]:>16.2f}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": runtime.describe(), "size": config.size, "images_per_second": medians}
        arguments.json.write_text(json.dumps(result | {"pneumolib_over": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
