"""From trained weights to a detector: batch statistics, calibration, operating points, all on training patients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import pneumolib
from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.data.splits import Split, shifted_images
from pneumolib.evaluation.calibration import apply_temperature, choose_operating_points, fit_temperature
from pneumolib.evaluation.metrics import auc
from pneumolib.models import batches
from pneumolib.models.augment import Augmentation, augment
from pneumolib.models.checkpoint import write_atomically
from pneumolib.models.familiarity import Familiarity, fit_familiarity
from pneumolib.models.resnet import build_model

if TYPE_CHECKING:
    import keras

FAMILIAR_IMAGES = 4000  # evenly spaced; more settle the main axes of the inner statistics no better
STATISTICS_BATCHES = 64  # about two thousand images settle the mean and variance of every channel


def finish(model: keras.Model, split: Split, config: Config, folder: Path) -> None:
    """Turn `model`, as training left it, into the detector of the run in `folder`, and write its predictions.

    Temperature and operating points are fitted on the random validation images together with the shifted ones: the
    first alone is saturated on this data set and would make the detector too sure of itself.
    """
    from pneumolib.models.detector import make_detector
    from pneumolib.models.reference import fit_reference

    train_images = split.train.images(config.size)
    round_kernels(model)
    measure_batch_statistics(model, train_images, config)

    exact = build_model(config, precision="float32", pretrained=False)
    exact.set_weights(model.get_weights())

    parts = [split.val, split.shifted]
    shifted = shifted_images(split.shifted, config.size, seed=split.seed)
    images = batches.Joined(split.val.images(config.size), shifted)
    targets = np.concatenate([part.targets(config.classes) for part in parts])
    truth = targets > 0
    logits = predict_logits(exact, images, config.batch_size)
    temperature = fit_temperature(logits, targets)
    p = 1 - apply_temperature(logits, temperature)[:, 0]

    n_val = len(split.val)
    detector = make_detector(
        exact,
        config,
        name=f"{config.architecture}-{config.size}-{config.name}",
        temperature=temperature,
        operating_points=choose_operating_points(truth, p),
        reference=fit_reference(train_images),
        familiarity=_familiarity(exact, train_images, split, config),
        card={
            "phantom": split.train.phantom,
            "data": split.fingerprint(),
            "split_seed": split.seed,
            "source": split.train.origin,
            "images": {"train": len(split.train), "val": n_val, "shifted": len(split.shifted)},
            "val_auc": auc(truth[:n_val], p[:n_val]),
            "shifted_auc": auc(truth[n_val:], p[n_val:]),
            "versions": {
                "pneumolib": pneumolib.__version__,
                "keras": runtime.keras().__version__,
                "backend": runtime.keras().backend.backend(),
            },
        },
    )
    rows = ["name,part,subtype,patient,probability"]
    records = [(record, "val") for record in split.val.records] + [(r, "shifted") for r in split.shifted.records]
    for (record, part), value in zip(records, p, strict=True):
        rows.append(f"{record.name},{part},{record.subtype},{record.patient},{value:.6f}")
    write_atomically(folder / "predictions.csv", ("\n".join(rows) + "\n").encode())
    # The detector comes last: a run counts as finished when it stands.
    detector.save(folder / "detector")


def _familiarity(exact: keras.Model, train_images: NDArray[np.uint8], split: Split, config: Config) -> Familiarity:
    """Fit what training images look like from inside, as the light graph will see it; limits by random validation."""
    from pneumolib.models.light import LightModel
    from pneumolib.models.onnx_graph import to_onnx

    light = LightModel(to_onnx(exact), config.size, len(config.class_names))
    chosen = np.linspace(0, len(train_images) - 1, min(len(train_images), FAMILIAR_IMAGES)).astype(int)
    return fit_familiarity(
        light.look(train_images[chosen]),
        light.look(split.val.images(config.size)),
        split.train.targets(config.classes)[chosen],
    )


def round_kernels(model: keras.Model) -> None:
    """Round each kernel of `model` to numbers that float16 holds, which halves the detector that is stored.

    It happens before anything is fitted or measured on the weights, so what is measured is what is stored.
    """
    for variable in model.weights:
        if variable.name == "kernel":
            variable.assign(np.asarray(variable).astype(np.float16).astype(np.float32))


def measure_batch_statistics(model: keras.Model, images: NDArray[np.uint8], config: Config) -> None:
    """Set each batch normalisation's mean and variance to those of augmented training images under the weights of now.

    The moving statistics belong to the weights of the last steps, not to their average (Izmailov et al., 2018,
    arXiv:1803.05407, section 3.2). The images are augmented, as in training. Frozen layers keep what they have.
    """
    keras = runtime.keras()
    norms = [n for n in model.layers if isinstance(n, keras.layers.BatchNormalization) and n.trainable]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    # A rate of zero leaves the weights alone; a momentum of zero makes each layer show the statistics of one batch.
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="categorical_crossentropy", jit_compile=False)
    for norm in norms:
        norm.momentum = 0.0
    settings = Augmentation.of(config.augmentation)
    order = batches.epoch_order(len(images), config.seed, config.epochs)
    size = min(config.batch_size, len(images))
    n_batches = min(STATISTICS_BATCHES, len(images) // size)
    nothing = np.zeros((size, len(config.class_names)), np.float32)
    means = [np.zeros(norm.moving_mean.shape) for norm in norms]
    squares = [np.zeros(norm.moving_mean.shape) for norm in norms]
    for number in range(n_batches):
        chosen = order[number * size : (number + 1) * size]
        x = [augment(images[i], settings, seed=config.seed, epoch=config.epochs, index=int(i)) for i in chosen]
        model.train_on_batch(np.stack(x)[..., None].astype(np.float32), nothing)
        for i, norm in enumerate(norms):
            mean, variance = np.asarray(norm.moving_mean, np.float64), np.asarray(norm.moving_variance, np.float64)
            means[i] += mean / n_batches
            squares[i] += (variance + mean**2) / n_batches
    for norm, momentum, mean, square in zip(norms, momenta, means, squares, strict=True):
        norm.momentum = momentum
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(np.maximum(square - mean**2, 0))


def predict_logits(
    model: keras.Model, images: NDArray[np.uint8] | batches.Joined, batch_size: int
) -> NDArray[np.float32]:
    """Return the logits of `model` for uint8 images ``[N, S, S]``: float32 ``[N, C]``."""
    keras = runtime.keras()
    head = keras.Model(model.input, model.get_layer("logits").output)
    return head.predict(batches.prediction_batches(images, batch_size), verbose=0)
