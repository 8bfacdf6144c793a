"""Heat maps: they lie where the network looks, agree with one another, and change when the network forgets."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.data.images import square
from pneumolib.data.radiograph import draw
from pneumolib.errors import ConfigError, DataError
from pneumolib.evaluation.calibration import OperatingPoint, apply_temperature
from pneumolib.evaluation.faithfulness import deletion_insertion, rank_correlation
from pneumolib.models.detector import Detector, make_detector
from pneumolib.models.explain import (
    METHODS,
    _log_odds,
    _slopes,
    explain,
    grad_cam,
    heat_maps,
    heat_of_features,
    randomisation_check,
)
from pneumolib.models.reference import fit_reference
from pneumolib.models.resnet import build_model

SIZE = 64
SUBTYPES = ("normal", "bacterial", "viral")
CONFIG = Config.preset("ci")
QUADRANT = (slice(0, 32), slice(32, 64))  # the upper right


def x_ray(seed: int) -> NDArray[np.uint8]:
    return draw(SUBTYPES[seed % 3], seed, size=(96, 112))


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.stack([square(x_ray(seed), SIZE) for seed in range(12)])


def untrained(config: Config, images: NDArray[np.uint8], seed: int = 0) -> Detector:
    with runtime.seeded(seed):
        model = build_model(config, precision="float32")
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            n = layer.gamma.shape
            means, variances = rng.normal(0, 0.1, n), rng.uniform(0.5, 2, n)
            layer.set_weights([rng.uniform(0.5, 1.5, n), rng.normal(0, 0.1, n), means, variances])
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * 1e-3, bias])
    point = OperatingPoint(name="balanced", threshold=0.5, sensitivity=0.9, specificity=0.8, rule="for the test")
    return make_detector(
        model,
        config,
        name="for-the-test",
        temperature=1.0,
        operating_points={"balanced": point},
        reference=fit_reference(images),
        card={"phantom": True},
    )


@pytest.fixture(scope="module")
def detector(images: NDArray[np.uint8]) -> Detector:
    return untrained(CONFIG, images)


@dataclass
class Stub:
    """A detector with eight by eight places that answers by the brightness of one quadrant, and by nothing else."""

    class_names: tuple[str, ...] = SUBTYPES
    temperature: float = 2.0
    size: int = SIZE
    config: Config = CONFIG

    def features(self, images: NDArray[np.uint8], batch_size: int = 32) -> NDArray[np.float32]:
        seen = np.zeros(images.shape, np.float32)
        seen[:, *QUADRANT] = images[:, *QUADRANT] / 255
        return seen.reshape(-1, 8, 8, 8, 8).mean((2, 4))[..., None]

    def classifier(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        kernel = np.array([[-40, 40, 30][: len(self.class_names)]], np.float32)
        return kernel, np.array([3, -3, -4][: len(self.class_names)], np.float32)

    def probability(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        kernel, bias = self.classifier()
        return 1 - apply_temperature(self.features(images).mean((1, 2)) @ kernel + bias, self.temperature)[:, 0]


DARK = np.zeros((1, SIZE, SIZE), np.uint8)


def bright(seed: int = 0) -> NDArray[np.uint8]:
    """A picture as bright in every quadrant."""
    return np.random.default_rng(seed).integers(120, 256, (SIZE, SIZE), dtype=np.uint8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_heat_lies_where_alone_the_answer_comes_from(method: str, classes: int) -> None:
    stub: Any = Stub(class_names=("normal", "pneumonia") if classes == 2 else SUBTYPES)
    image = bright()
    # A bright half of the quadrant, so that hiding takes something away.
    image[:16] //= 4
    (heat,) = heat_maps(stub, image[None], method=method, normal=DARK)
    assert heat.dtype == np.float32
    assert heat.shape == (SIZE, SIZE)
    assert heat.max() == pytest.approx(1, abs=1e-6)
    assert heat.min() == 0
    rows, columns = QUADRANT
    assert heat[rows, columns].sum() > 0.8 * heat.sum()
    assert np.unravel_index(heat.argmax(), heat.shape)[0] in range(10, 36)


@pytest.mark.parametrize("method", METHODS)
def test_the_heat_of_the_stub_is_faithful_by_deletion_and_insertion(method: str) -> None:
    stub: Any = Stub()
    image = bright(1)
    image[:, :32] //= 3
    (heat,) = heat_maps(stub, image[None], method=method, normal=DARK)
    areas = deletion_insertion(stub.probability, image, heat, DARK[0]).areas
    assert areas["deletion"] < areas["random_deletion"] - 0.02
    assert areas["insertion"] > areas["random_insertion"] + 0.02


def test_what_speaks_against_pneumonia_is_cold_and_little_does_not_glow() -> None:
    stub: Any = Stub()
    assert heat_maps(stub, DARK).max() == 0
    # At this brightness the hottest place has about one unit of log-odds of its own.
    faint = np.full((1, SIZE, SIZE), 32, np.uint8)
    assert 0.1 < heat_maps(stub, faint).max() < 0.6
    assert heat_maps(stub, DARK, target="normal").max() == 1


def test_the_mean_of_the_evidence_is_the_answer(detector: Detector, images: NDArray[np.uint8]) -> None:
    for image in images[:3]:
        found = explain(detector, image, target="normal")
        z = detector.logits(image[None]).astype(float)[0] / detector.temperature
        share = np.exp(z[1:]) / np.exp(z[1:]).sum()
        places = found.evidence[3::32, 3::32]  # where the four places of the last map are drawn
        assert places.mean() == pytest.approx(z[0] - share @ z[1:], abs=1e-5)


def test_slopes_are_the_derivatives_of_the_log_odds() -> None:
    z = np.random.default_rng(0).normal(0, 2, (5, 3))
    for members in (np.array([False, True, True]), np.array([False, True, False])):
        slopes = _slopes(z, members)
        for c in range(3):
            step = np.zeros(3)
            step[c] = 1e-5
            numeric = (_log_odds(z + step, members) - _log_odds(z - step, members)) / 2e-5
            np.testing.assert_allclose(slopes[:, c], numeric, atol=1e-8)
    np.testing.assert_allclose(slopes.sum(1), 0, atol=1e-12)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    odds = _log_odds(z, np.array([False, True, True]))
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), 1 - p[:, 0], atol=1e-12)


def test_every_way_to_hand_over_a_picture_gives_the_same_map(detector: Detector, tmp_path: Path) -> None:
    from PIL import Image

    picture = x_ray(4)
    path = tmp_path / "x-ray.png"
    Image.fromarray(picture).save(path)
    found = [explain(detector, x) for x in (picture, path, path.read_bytes())]
    for other in found:
        np.testing.assert_array_equal(other.heat, found[0].heat)
        assert other.heat.shape == other.image.shape == (SIZE, SIZE)
        assert other.probability == pytest.approx(detector.predict(picture).probability, abs=1e-6)
    assert [one.prediction.path for one in found] == [None, str(path), None]
    assert (found[0].method, found[0].target, found[0].phantom) == ("cam", "pneumonia", True)
    np.testing.assert_array_equal(found[0].image, square(picture, SIZE))
    assert "array" not in repr(found[0])


def test_heat_is_laid_on_the_film_and_not_on_black_bars(detector: Detector) -> None:
    film = np.maximum(x_ray(4), 20)  # [96, 112]
    padded = np.pad(film, [(48, 0), (0, 112)])
    found, bare = explain(detector, padded), explain(detector, film)
    np.testing.assert_array_equal(found.heat, bare.heat)
    laid = found.on(padded)
    assert laid.shape == padded.shape
    np.testing.assert_array_equal(laid[48:, :112], bare.on(film))
    assert laid[48:, :112].max() > 0
    assert not laid[:48].any()
    assert not laid[:, 112:].any()
    assert found.on(np.repeat(np.repeat(padded, 3, 0), 3, 1)).shape == (432, 672)


def test_heat_lies_on_the_square_as_it_is(detector: Detector) -> None:
    dark = np.pad(x_ray(4)[:48, :50], [(8, 8), (7, 7)])[:SIZE, :SIZE]
    assert dark.shape == (SIZE, SIZE)
    found = explain(detector, dark)
    np.testing.assert_array_equal(found.on(found.image), found.heat)


def test_many_maps_are_those_of_the_single_pictures(detector: Detector, images: NDArray[np.uint8]) -> None:
    for method in METHODS:
        together = heat_maps(detector, images[:2], method=method, normal=images[3:5])
        for image, heat in zip(images, together, strict=False):
            one = explain(detector, image, method=method, normal=images[3:5])
            np.testing.assert_allclose(one.heat, heat, atol=1e-5)
    assert heat_maps(detector, images[:0]).shape == (0, SIZE, SIZE)


def test_the_features_of_an_answer_are_enough_for_its_heat(detector: Detector, images: NDArray[np.uint8]) -> None:
    _, features = detector.predict_with_features(images[0])
    for target in ("pneumonia", "viral"):
        heat = heat_of_features(detector, features, target=target)
        np.testing.assert_array_equal(heat, heat_maps(detector, images[:1], target=target)[0])
    with pytest.raises(ConfigError, match="Received: 'heart'"):
        heat_of_features(detector, features, target="heart")


def test_what_cannot_be_explained_is_refused(detector: Detector, images: NDArray[np.uint8]) -> None:
    with pytest.raises(ConfigError, match=r"cam, replacement\. Received: 'lime'"):
        explain(detector, images[0], method="lime")
    with pytest.raises(ConfigError, match=r"pneumonia, normal, bacterial, viral\. Received: 'heart'"):
        explain(detector, images[0], target="heart")
    with pytest.raises(ConfigError, match=r"balanced\. Received: 'mine'"):
        explain(detector, images[0], operating_point="mine")
    with pytest.raises(DataError, match=r"uint8.*Received: float64"):
        explain(detector, np.zeros((90, 90)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="wrong shape"):
        heat_maps(detector, images[0])
    for normal in (None, images[:0]):
        with pytest.raises(ConfigError, match="needs normal X-rays"):
            explain(detector, images[0], method="replacement", normal=normal)
    with pytest.raises(DataError, match=r"uint8 \[R, 64, 64\]. Received: uint8 \[2, 60, 64\]"):
        explain(detector, images[0], method="replacement", normal=images[:2, 4:])


def test_explaining_needs_no_tensorflow(detector: Detector, tmp_path: Path) -> None:
    detector.save(tmp_path / "detector")
    np.save(tmp_path / "x.npy", x_ray(4))
    code = (
        "import sys, numpy as np, pneumolib as pn\n"
        "detector = pn.load_detector(sys.argv[1] + '/detector', allow_phantom=True)\n"
        "x = np.load(sys.argv[1] + '/x.npy')\n"
        "normal = np.zeros((1, 64, 64), np.uint8)\n"
        "found = [pn.explain(detector, x, method=m, normal=normal) for m in ('cam', 'replacement')]\n"
        "print([name for name in ('tensorflow', 'keras', 'onnx', 'matplotlib', 'pandas') if name in sys.modules])"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_network_that_forgot_gives_another_map(detector: Detector, images: NDArray[np.uint8]) -> None:
    found = [randomisation_check(detector, images[:2], draws=2, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert set(found[0]) == {"classifier", "network"}
    assert all(-1 <= value < 0.95 for value in found[0].values())
    with pytest.raises(DataError, match="at least one image"):
        randomisation_check(detector, images[:0])
    with pytest.raises(ConfigError, match="draws must be 1 or more"):
        randomisation_check(detector, images, draws=0)


def test_nothing_in_the_margin_speaks_for_or_against(images: NDArray[np.uint8]) -> None:
    framed = untrained(CONFIG.replace(margin=0.125), images)
    bare = untrained(CONFIG.replace(size=SIZE - 16), images[:, 8:-8, 8:-8])
    inside = np.zeros((SIZE, SIZE), bool)
    inside[8:-8, 8:-8] = True
    found = explain(framed, images[0])
    assert not found.evidence[~inside].any()
    inner = np.ascontiguousarray(images[0, 8:-8, 8:-8])
    np.testing.assert_allclose(found.evidence[8:-8, 8:-8], explain(bare, inner).evidence, atol=1e-6)
    assert np.ptp(found.evidence[inside]) > 0
    for layer in ("features", "stage2_block1_relu"):
        heat = grad_cam(framed.keras_model(), images[:1], layer=layer)[0]
        assert not heat[~inside].any()
        np.testing.assert_allclose(
            heat[8:-8, 8:-8], grad_cam(bare.keras_model(), inner[None], layer=layer)[0], atol=1e-4
        )


# === Gradients ===


def test_grad_cam_at_the_last_map_is_the_class_activation_map(detector: Detector, images: NDArray[np.uint8]) -> None:
    model = detector.keras_model()
    for target, members in (("pneumonia", [1, 2]), ("bacterial", [1])):
        light = heat_maps(detector, images[:3], target=target)
        for layer in (None, "features"):
            heat = grad_cam(model, images[:3], layer=layer, target=members)
            for a, b in zip(heat, light, strict=True):
                assert a.max() == 1
                np.testing.assert_allclose(a * b.max(), b, atol=1e-3)
    np.testing.assert_array_equal(grad_cam(model, images[:1]), grad_cam(model, images[:1], target=[1, 2]))


@pytest.mark.parametrize("architecture", ["resnet18", "resnet34", "resnet50", "resnet50v2", "efficientnet_lite0"])
def test_every_network_of_the_library_has_gradients(architecture: str, images: NDArray[np.uint8]) -> None:
    model = build_model(CONFIG.replace(architecture=architecture, weights=None), precision="float32")
    heat = grad_cam(model, images[:1])
    assert heat.shape == (1, SIZE, SIZE)
    assert heat.dtype == np.float32
    assert np.isfinite(heat).all()


def nested(head: str) -> Any:
    """A model inside a model: a backbone that finds brightness, and a head that calls it pneumonia."""
    keras = runtime.keras()
    layers = keras.layers
    inner = keras.Input((None, None, 1))
    x = layers.AveragePooling2D(8, name="coarse")(inner)
    backbone = keras.Model(inner, layers.Conv2D(1, 1, use_bias=False, activation="relu", name="bright")(x), name="back")
    outer = keras.Input((SIZE, SIZE, 1))
    y = layers.GlobalAveragePooling2D()(backbone(layers.Rescaling(1 / 255)(outer)))
    if head == "sigmoid":
        model = keras.Model(outer, layers.Dense(1, activation="sigmoid", name="answer")(y))
        model.get_layer("answer").set_weights([np.array([[8.0]]), np.array([-2.0])])
    else:
        scores = layers.Dense(2, name="logits" if head == "logits" else "scores")(y)
        model = keras.Model(outer, layers.Softmax()(scores))
        model.layers[-2].set_weights([np.array([[-4.0, 4.0]]), np.array([1.0, -1.0])])
    backbone.get_layer("bright").set_weights([np.ones((1, 1, 1, 1))])
    return model


@pytest.mark.parametrize("head", ["sigmoid", "softmax", "logits"])
@pytest.mark.parametrize("layer", [None, "coarse"])
def test_a_model_inside_a_model_has_its_heat_where_it_is_bright(head: str, layer: str | None) -> None:
    model = nested(head)
    picture = np.zeros((2, SIZE, SIZE), np.uint8)
    picture[0][QUADRANT] = 255
    picture[1, 40:, :24] = 255
    answers = np.asarray(model(picture[..., None].astype(np.float32), training=False))
    first, second = grad_cam(model, picture, layer=layer)
    assert first[QUADRANT].sum() > 0.9 * first.sum() > 0
    assert second[36:, :28].sum() > 0.9 * second.sum() > 0
    assert first.max() == second.max() == 1
    # The model is as it was, and answers as it did.
    assert not any("call" in vars(part) for part in (*model.layers, *model.get_layer("back").layers))
    np.testing.assert_array_equal(model(picture[..., None].astype(np.float32), training=False), answers)


def test_a_network_in_mixed_precision_has_gradients(images: NDArray[np.uint8]) -> None:
    heat = grad_cam(build_model(CONFIG, precision="mixed_bfloat16"), images[:1], layer="stage3_block1_relu")
    assert heat.shape == (1, SIZE, SIZE)
    assert np.isfinite(heat).all()


def test_what_has_no_gradients_is_refused(images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    model = nested("softmax")
    with pytest.raises(ConfigError, match=r"such as .*coarse, bright\. Received: 'nothing'"):
        grad_cam(model, images, layer="nothing")
    with pytest.raises(DataError, match="No map of the layer 'scores'"):
        grad_cam(model, images, layer="scores")
    for target in ([], [0, 1], [2], "heart"):
        with pytest.raises(ConfigError, match="classes 0 to 1"):
            grad_cam(model, images, target=target)
    with pytest.raises(DataError, match=r"\[N, H, W\].*shape \[64, 64\]"):
        grad_cam(model, images[0])
    monkeypatch.setattr(runtime.keras(), "backend", SimpleNamespace(backend=lambda: "jax"))
    with pytest.raises(ConfigError, match=r"KERAS_BACKEND=tensorflow.*Received: jax"):
        grad_cam(model, images)


def test_the_maps_of_an_untrained_network_are_others(images: NDArray[np.uint8]) -> None:
    maps = []
    for seed in (0, 1):
        with runtime.seeded(seed):
            maps.append(grad_cam(build_model(CONFIG, precision="float32"), images[:1], layer="stage3_block1_relu")[0])
    assert abs(rank_correlation(*maps)) < 0.9
