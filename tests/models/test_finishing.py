"""From weights to a detector: statistics measured again, and everything fitted on validation patients alone."""

import csv
from pathlib import Path

import numpy as np
import pytest

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.data.dataset import Dataset, ImageSet
from pneumolib.data.splits import Split, shifted_images, split_by_patient
from pneumolib.evaluation.calibration import apply_temperature, choose_operating_points, fit_temperature
from pneumolib.models.detector import load_detector
from pneumolib.models.finishing import finish, measure_batch_statistics, predict_logits, round_kernels
from pneumolib.models.resnet import build_model

keras = runtime.keras()
CONFIG = Config(name="tiny", size=32, width=4, epochs=1, batch_size=8, precision="float32", augmentation="none")
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 32, 32), dtype=np.uint8)


@pytest.fixture
def model():
    with runtime.seeded(0):
        return build_model(CONFIG)


def norms(model) -> list:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def test_the_statistics_are_those_of_the_images_themselves(model) -> None:
    measure_batch_statistics(model, IMAGES, CONFIG)
    reached = keras.Model(model.input, model.get_layer("stem_conv").output)(IMAGES[..., None].astype(np.float32))
    norm = model.get_layer("stem_norm")
    np.testing.assert_allclose(norm.moving_mean, np.mean(reached, axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, np.var(reached, axis=(0, 1, 2)), rtol=1e-3)


def test_the_images_are_augmented_as_in_training(model) -> None:
    measure_batch_statistics(model, IMAGES, CONFIG)
    plain = model.get_layer("stem_norm").moving_variance.numpy()
    measure_batch_statistics(model, IMAGES, CONFIG.replace(augmentation="medium"))
    assert not np.allclose(model.get_layer("stem_norm").moving_variance, plain, rtol=0.02)


def test_nothing_else_of_the_model_changes(model) -> None:
    before = [v.numpy() for v in model.trainable_variables]
    momenta = [norm.momentum for norm in norms(model)]
    measure_batch_statistics(model, IMAGES, CONFIG)
    for old, new in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new)
    assert [norm.momentum for norm in norms(model)] == momenta


def test_frozen_layers_keep_their_statistics(model) -> None:
    for norm in norms(model):
        norm.trainable = False
    before = [norm.moving_mean.numpy() for norm in norms(model)]
    measure_batch_statistics(model, IMAGES, CONFIG)
    for old, norm in zip(before, norms(model), strict=True):
        np.testing.assert_array_equal(old, norm.moving_mean)


def test_kernels_become_numbers_that_two_bytes_hold_and_nothing_else_changes(model) -> None:
    before = {v.path: v.numpy() for v in model.weights}
    round_kernels(model)
    changed = 0
    for variable in model.weights:
        old, new = before[variable.path], variable.numpy()
        if variable.name == "kernel":
            np.testing.assert_array_equal(new, new.astype(np.float16))
            np.testing.assert_allclose(new, old, rtol=2**-11, atol=1e-7)
            changed += int((new != old).any())
        else:
            np.testing.assert_array_equal(new, old)
    assert changed == sum(v.name == "kernel" for v in model.weights)


def test_logits_come_before_the_softmax(model) -> None:
    logits = predict_logits(model, IMAGES, 5)
    assert logits.shape == (16, 3)
    p = model.predict(IMAGES[..., None].astype(np.float32), verbose=0)
    np.testing.assert_allclose(apply_temperature(logits, 1.0), p, atol=1e-5)


@pytest.fixture(scope="module")
def finished(phantom: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Path]:
    split = split_by_patient(phantom.train)
    folder = tmp_path_factory.mktemp("finished")
    with runtime.seeded(0):
        model = build_model(CONFIG)
    finish(model, split, CONFIG, folder)
    return split, folder


def test_temperature_and_points_are_fitted_on_both_validation_parts(finished: tuple[Split, Path]) -> None:
    split, folder = finished
    detector = load_detector(folder, allow_phantom=True)
    images = np.concatenate([split.val.images(32), shifted_images(split.shifted, 32, seed=0)])
    targets = np.concatenate([split.val.targets(3), split.shifted.targets(3)])
    logits = detector.logits(images)
    assert detector.temperature == pytest.approx(fit_temperature(logits, targets), rel=1e-3)
    wanted = choose_operating_points(targets > 0, 1 - apply_temperature(logits, detector.temperature)[:, 0])
    for name, point in detector.operating_points.items():
        assert point.threshold == pytest.approx(wanted[name].threshold, rel=1e-3)


def test_the_predictions_are_of_exactly_the_held_out_images(finished: tuple[Split, Path]) -> None:
    split, folder = finished
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [*split.val.names, *split.shifted.names]
    detector = load_detector(folder, allow_phantom=True)
    said = [float(row["probability"]) for row in rows if row["part"] == "val"]
    np.testing.assert_allclose(said, detector.probability(split.val.images(32)), atol=1e-5)


def test_the_test_images_are_never_read(phantom: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_by_patient(phantom.train)
    read = ImageSet.read

    def guarded(self: ImageSet, index: int) -> bytes:
        assert self.records[index].split == "train"
        return read(self, index)

    monkeypatch.setattr(ImageSet, "read", guarded)
    monkeypatch.setenv("PNEUMOLIB_CACHE", str(tmp_path / "cache"))
    with runtime.seeded(0):
        model = build_model(CONFIG)
    finish(model, split, CONFIG, tmp_path)
    assert (tmp_path / "detector" / "manifest.json").is_file()
