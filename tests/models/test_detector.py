"""The detector: answers without TensorFlow, equal to its Keras model, and clear about what it will not take."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pneumolib
from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.data.images import square
from pneumolib.data.radiograph import draw
from pneumolib.errors import ArtifactError, ConfigError, DataError, DataNotFoundError, ImageError
from pneumolib.evaluation.calibration import OperatingPoint, apply_temperature
from pneumolib.models.detector import Detector, load_detector, make_detector
from pneumolib.models.finishing import round_kernels
from pneumolib.models.reference import fit_reference
from pneumolib.models.resnet import build_model

SIZE = 64
SUBTYPES = ("normal", "bacterial", "viral")
CONFIG = Config.preset("ci")
POINTS = {
    name: OperatingPoint(name=name, threshold=threshold, sensitivity=0.9, specificity=0.8, rule="for the test")
    for name, threshold in (("balanced", 0.6), ("high_sensitivity", 0.001), ("high_specificity", 0.999))
}


def x_ray(seed: int) -> NDArray[np.uint8]:
    return draw(SUBTYPES[seed % 3], seed, size=(96, 112))


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.stack([square(x_ray(seed), SIZE) for seed in range(20)])


def make(images: NDArray[np.uint8], config: Config = CONFIG, precision: str = "float32", **changes: Any) -> Detector:
    with runtime.seeded(0):
        model = build_model(config, precision=precision)
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            n = layer.gamma.shape
            means, variances = rng.normal(0, 0.1, n), rng.uniform(0.5, 2, n)
            layer.set_weights([rng.uniform(0.5, 1.5, n), rng.normal(0, 0.1, n), means, variances])
    # Random weights would be sure of everything; these are not.
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * 1e-3, bias])
    facts: dict[str, Any] = {
        "name": "for-the-test",
        "temperature": 1.7,
        "operating_points": POINTS,
        "reference": fit_reference(images),
        "card": {"phantom": False, "val_auc": np.float64(0.97), "images": {"train": np.int64(20)}},
    }
    return make_detector(model, config, **(facts | changes))


@pytest.fixture(scope="module")
def detector(images: NDArray[np.uint8]) -> Detector:
    return make(images)


@pytest.fixture(scope="module")
def folder(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "saved"
    detector.save(path)
    return path


def test_a_loaded_detector_is_the_saved_one(detector: Detector, folder: Path, images: NDArray[np.uint8]) -> None:
    loaded = load_detector(folder)
    np.testing.assert_array_equal(loaded.predict_images(images), detector.predict_images(images))
    for name in ("name", "version", "config", "class_names", "size", "temperature", "operating_points", "card"):
        assert getattr(loaded, name) == getattr(detector, name), name
    assert loaded.version == pneumolib.__version__
    assert loaded.threshold == 0.6
    assert loaded.card["val_auc"] == 0.97
    assert "for-the-test" in repr(loaded)
    assert "0.600" in repr(loaded)


def test_the_keras_model_gives_the_same_probabilities(folder: Path, images: NDArray[np.uint8]) -> None:
    loaded = load_detector(folder)
    keras_says = np.asarray(loaded.keras_model()(images[..., None].astype(np.float32), training=False))
    assert np.ptp(keras_says, axis=0).max() > 1e-3, "the answers must differ from image to image"
    np.testing.assert_allclose(apply_temperature(loaded.logits(images), 1.0), keras_says, atol=1e-5, rtol=0)


def test_rounded_kernels_halve_the_detector_and_the_keras_model_reads_them(
    images: NDArray[np.uint8], folder: Path, tmp_path: Path
) -> None:
    model = load_detector(folder).keras_model()
    round_kernels(model)
    half = make_detector(
        model, CONFIG, name="half", temperature=1.0, operating_points=POINTS, reference=fit_reference(images), card={}
    )
    half.save(tmp_path / "half")
    for name in ("model.onnx", "weights.safetensors"):
        assert (tmp_path / "half" / name).stat().st_size < 0.6 * (folder / name).stat().st_size
    again = load_detector(tmp_path / "half").keras_model()
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_keras_model_is_new_each_time_and_can_be_trained(folder: Path, images: NDArray[np.uint8]) -> None:
    loaded = load_detector(folder)
    before = loaded.predict_images(images)
    first, second = loaded.keras_model(), loaded.keras_model()
    first.compile(optimizer="sgd", loss="categorical_crossentropy")
    first.train_on_batch(images[..., None].astype(np.float32), np.eye(3, dtype=np.float32)[np.arange(20) % 3])
    assert any(np.any(a != b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))
    np.testing.assert_array_equal(loaded.predict_images(images), before)


def test_probability_is_everything_but_normal_at_the_temperature(detector: Detector, images: NDArray[np.uint8]) -> None:
    p = detector.predict_images(images)
    assert p.dtype == np.float32
    assert p.shape == (20, 3)
    np.testing.assert_allclose(p, apply_temperature(detector.logits(images), 1.7), atol=1e-7)
    np.testing.assert_allclose(detector.probability(images), p[:, 1] + p[:, 2], atol=1e-6)


def test_batches_do_not_change_the_answers(detector: Detector, images: NDArray[np.uint8]) -> None:
    np.testing.assert_allclose(
        detector.predict_images(images, batch_size=7), detector.predict_images(images, batch_size=20), atol=1e-6
    )
    assert detector.predict_images(images[:0]).shape == (0, 3)
    assert detector.features(images[:2]).shape == (2, 2, 2, 64)


def test_the_classifier_makes_the_logits_of_the_mean_features(detector: Detector, images: NDArray[np.uint8]) -> None:
    kernel, bias = detector.classifier()
    assert kernel.dtype == bias.dtype == np.float32
    logits = detector.features(images).mean((1, 2)) @ kernel + bias
    np.testing.assert_allclose(logits, detector.logits(images), atol=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        kernel[0, 0] = 1


def test_a_prepared_picture_is_answered_as_the_picture(detector: Detector) -> None:
    prepared = detector.prepare(x_ray(4))
    assert (prepared.dtype, prepared.shape) == (np.uint8, (SIZE, SIZE))
    assert detector.predict(prepared) == detector.predict(x_ray(4))


def test_an_answer_comes_with_the_features_behind_it_in_one_look(
    detector: Detector, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    run = detector._light.look
    monkeypatch.setattr(detector._light, "look", lambda *args, **options: looks.append(1) or run(*args, **options))
    answer, features = detector.predict_with_features(images[0])
    assert len(looks) == 1
    assert answer == detector.predict(images[0])
    np.testing.assert_array_equal(features, detector.features(images[:1])[0])
    with pytest.raises(ConfigError, match="no such operating point"):
        detector.predict_with_features(images[0], operating_point="mine")


def test_many_threads_get_the_answers_of_one(folder: Path, images: NDArray[np.uint8]) -> None:
    loaded = load_detector(folder, threads=1)
    assert loaded.threads == 1
    expected = [loaded.probability(image[None]) for image in images]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            together = list(pool.map(lambda image: loaded.probability(image[None]), images))
            np.testing.assert_array_equal(together, expected)


def test_every_way_to_hand_over_a_picture_gives_the_same_answer(detector: Detector, tmp_path: Path) -> None:
    from PIL import Image

    picture = x_ray(5)
    path = tmp_path / "x-ray.png"
    Image.fromarray(picture).save(path)
    answers = detector.predict([path, str(path), path.read_bytes(), picture])
    assert len({a.probability for a in answers}) == 1
    assert [a.path for a in answers] == [str(path), str(path), None, None]
    assert detector.predict(path) == answers[0]
    assert detector.predict([]) == []
    assert detector.predict((path,)) == [answers[0]]


def test_the_answer_as_json_has_the_promised_keys(detector: Detector) -> None:
    answer = detector.predict(x_ray(4))
    values = json.loads(json.dumps(answer.to_dict()))
    assert set(values) == {"path", "probability", "decision", "threshold", "subtypes", "input"}
    assert values["input"] == {"ok": True, "reason": None}
    assert values["threshold"] == 0.6
    assert set(values["subtypes"]) == {"bacterial", "viral"}
    assert sum(values["subtypes"].values()) == pytest.approx(values["probability"], abs=1e-6)
    assert str(answer).startswith(f"{answer.decision}, probability {answer.probability:.3f}")


def test_the_operating_point_decides(detector: Detector) -> None:
    picture = x_ray(4)
    assert 0.001 < detector.predict(picture).probability < 0.999
    assert detector.predict(picture, operating_point="high_sensitivity").decision == "pneumonia"
    strict = detector.predict(picture, operating_point="high_specificity")
    assert (strict.decision, strict.threshold, strict.operating_point) == ("normal", 0.999, "high_specificity")
    with pytest.raises(ConfigError, match="balanced, high_sensitivity, high_specificity"):
        detector.predict(picture, operating_point="best")


def test_what_is_no_x_ray_gets_no_decision(detector: Detector) -> None:
    for picture in (np.zeros((90, 90), np.uint8), 255 - x_ray(4)):
        answer = detector.predict(picture)
        assert answer.decision is None
        assert not answer.input.ok
        assert answer.input.reason
        assert str(answer) == f"refused: {answer.input.reason}"
        assert answer.to_dict()["decision"] is None


@pytest.mark.parametrize(
    ("given", "received"),
    [
        (np.zeros((90, 90)), "float64"),
        (np.zeros((90, 90, 3), np.uint8), r"uint8 \[90, 90, 3\]"),
        (np.zeros((0, 90), np.uint8), r"uint8 \[0, 90\]"),
        (12, "int"),
        (None, "NoneType"),
    ],
)
def test_an_odd_picture_is_refused(detector: Detector, given: Any, received: str) -> None:
    with pytest.raises(DataError, match=f"uint8.*Received: {received}"):
        detector.predict(given)


@pytest.mark.parametrize(
    ("given", "received"),
    [
        (np.zeros((2, SIZE, SIZE), np.float32), "float32, 0 to 0"),
        (np.full((2, SIZE, SIZE), 0.5), "float64, 0.5 to 0.5"),
        (np.full((2, SIZE, SIZE), 4095, np.uint16), "uint16, 4095 to 4095"),
        (np.zeros((2, 65, 64), np.uint8), r"shape \[2, 65, 64\]"),
        (np.zeros((SIZE, SIZE), np.uint8), r"shape \[64, 64\]"),
        ([[1]], "list"),
    ],
)
def test_prepared_images_must_be_what_the_network_was_trained_on(detector: Detector, given: Any, received: str) -> None:
    with pytest.raises(DataError, match=rf"uint8 array \[N, 64, 64\].*Received: {received}"):
        detector.predict_images(given)


def test_a_file_that_is_no_image_raises(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "text.jpeg").write_text("no picture")
    with pytest.raises(ImageError, match=r"text\.jpeg"):
        detector.predict(tmp_path / "text.jpeg")


def test_numbers_below_one_are_refused(folder: Path, images: NDArray[np.uint8]) -> None:
    with pytest.raises(ConfigError, match="threads must be"):
        load_detector(folder, threads=0)
    loaded = load_detector(folder)
    with pytest.raises(ConfigError, match="batch_size must be"):
        loaded.predict_images(images, batch_size=0)


def test_two_classes_have_no_subtypes(images: NDArray[np.uint8]) -> None:
    two = make(images, CONFIG.replace(classes=2))
    answer = two.predict(x_ray(4))
    assert answer.subtypes == {}
    assert two.predict_images(images).shape == (20, 2)


def test_weights_of_a_mixed_precision_model_answer_in_float32(images: NDArray[np.uint8]) -> None:
    mixed = make(images, precision="mixed_bfloat16")
    model = mixed.keras_model()
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    keras_says = np.asarray(model(images[..., None].astype(np.float32), training=False))
    np.testing.assert_allclose(apply_temperature(mixed.logits(images), 1.0), keras_says, atol=1e-5, rtol=0)


def test_a_model_that_is_not_its_configs_is_refused(images: NDArray[np.uint8]) -> None:
    model = build_model(CONFIG.replace(width=12))
    with pytest.raises(DataError, match="not the one that its config describes"):
        make_detector(
            model, CONFIG, name="x", temperature=1.0, operating_points=POINTS, reference=fit_reference(images), card={}
        )


def test_diverged_weights_are_refused(images: NDArray[np.uint8]) -> None:
    model = build_model(CONFIG)
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    with pytest.raises(DataError, match="diverged"):
        make_detector(
            model, CONFIG, name="x", temperature=1.0, operating_points=POINTS, reference=fit_reference(images), card={}
        )


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"operating_points": {"high_sensitivity": POINTS["high_sensitivity"]}},
        {"operating_points": {"balanced": dataclasses.replace(POINTS["balanced"], threshold=1.0)}},
        {"name": ""},
        {"reference": {}},
    ],
)
def test_a_detector_is_not_made_of_values_out_of_range(images: NDArray[np.uint8], change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        make(images, **change)


def test_a_light_graph_that_differs_from_keras_is_not_let_out(
    images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pneumolib.models import onnx_graph

    right = onnx_graph.to_onnx

    def wrong(model: Any) -> bytes:
        kernel, bias = model.get_layer("logits").get_weights()
        model.get_layer("logits").set_weights([kernel, bias + np.array([0.1, 0, 0], np.float32)])
        graph = right(model)
        model.get_layer("logits").set_weights([kernel, bias])
        return graph

    monkeypatch.setattr(onnx_graph, "to_onnx", wrong)
    with pytest.raises(ArtifactError, match="differ by"):
        make(images)


def test_a_phantom_detector_loads_only_when_asked_for(images: NDArray[np.uint8], tmp_path: Path) -> None:
    make(images, card={"phantom": True}).save(tmp_path / "phantom")
    with pytest.raises(ArtifactError, match=r"synthetic.*allow_phantom=True"):
        load_detector(tmp_path / "phantom")
    assert "PHANTOM" in repr(load_detector(tmp_path / "phantom", allow_phantom=True))


def test_the_folder_of_a_run_will_do(folder: Path, tmp_path: Path) -> None:
    load_detector(folder).save(tmp_path / "run" / "detector")
    assert load_detector(str(tmp_path / "run")).name == "for-the-test"


def test_where_there_is_no_detector_the_message_says_the_way_out(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataNotFoundError, match=r"manifest\.json.*Received"):
            load_detector(place)


def test_answering_needs_no_tensorflow_and_prints_nothing(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(x_ray(4)).save(tmp_path / "x-ray.jpeg")
    code = """
import sys
import pneumolib
answer = pneumolib.load_detector(sys.argv[1]).predict(sys.argv[2])
heavy = ("tensorflow", "keras", "onnx", "pandas", "sklearn", "scipy", "matplotlib", "safetensors")
print(answer.decision, sorted(set(heavy) & set(sys.modules)))
"""
    command = [sys.executable, "-W", "error", "-c", code, str(folder), str(tmp_path / "x-ray.jpeg")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    decision, imported = done.stdout.split(maxsplit=1)
    assert decision in ("normal", "pneumonia")
    assert imported.strip() == "[]"
    assert done.stderr == ""


def test_making_a_detector_prints_nothing(images: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]) -> None:
    runtime.keras()
    capfd.readouterr()
    make(images)
    assert capfd.readouterr() == ("", "")
