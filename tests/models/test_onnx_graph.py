"""The light graph: the same numbers as Keras for every architecture, and a refusal of what it cannot express."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, load_model_from_string

from pneumolib import runtime
from pneumolib.config import CHANGEABLE, Config
from pneumolib.errors import DataError
from pneumolib.evaluation.calibration import apply_temperature
from pneumolib.models.finishing import round_kernels
from pneumolib.models.light import LightModel
from pneumolib.models.onnx_graph import INPUT, STYLE_OFFSET, to_onnx
from pneumolib.models.resnet import build_model, style_layers

if TYPE_CHECKING:
    import keras


def trained_like(config: Config) -> keras.Model:
    """A network whose normalisation layers hold statistics as training leaves them, so that none is the identity."""
    rng = np.random.default_rng(1)
    with runtime.seeded(0):
        model = build_model(config, precision="float32")
    if config.weights is not None:  # published ones come with theirs
        return model
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            n = layer.gamma.shape
            means, variances = rng.normal(0, 0.1, n), rng.uniform(1, 2, n)
            layer.set_weights([rng.uniform(0.5, 1, n), rng.normal(0, 0.1, n), means, variances])
    return model


@pytest.mark.parametrize(
    ("architecture", "size"),
    # Odd sides and sides that 32 does not divide try the padding: TensorFlow puts the odd pixel at the end.
    [
        *(("resnet18", 64), ("resnet18", 67), ("resnet34", 50), ("resnet50", 33), ("resnet50v2", 46)),
        *(("efficientnet_lite0", 64), ("efficientnet_lite0", 75)),
    ],
)
@pytest.mark.parametrize("margin", [0, 0.1])
def test_the_graph_gives_logits_and_features_of_the_keras_model(architecture: str, size: int, margin: float) -> None:
    if margin and size < 64:
        pytest.skip("what a margin leaves must be 32 pixels or more")
    changes: dict[str, Any] = {"architecture": architecture, "size": size, "width": 8, "dropout": 0.3, "margin": margin}
    if architecture in CHANGEABLE["mix_style"]:
        changes["mix_style"] = 0.5
    if architecture == "efficientnet_lite0":  # random, it would make all images look alike
        changes["weights"] = "imagenet"
    model = trained_like(Config(**changes))
    images = np.random.default_rng(0).integers(0, 256, (3, size, size), dtype=np.uint8)
    parts = [model.get_layer("logits").output, model.get_layer("features").output, model.output]
    both = runtime.keras().Model(model.input, parts)
    logits, features, probabilities = (
        np.asarray(v) for v in both(images[..., None].astype(np.float32), training=False)
    )
    assert np.ptp(probabilities, axis=0).max() > 1e-4, "the images must not all look alike to the network"

    light = LightModel(to_onnx(model), size, 3, threads=1)

    assert light.run(images).shape == (3, 3)
    np.testing.assert_allclose(apply_temperature(light.run(images), 1.0), probabilities, rtol=0, atol=1e-5)
    # Published weights give logits of up to 5, of which float32 keeps no more.
    np.testing.assert_allclose(light.run(images), logits, rtol=1e-5 if "weights" in changes else 1e-7, atol=1e-5)
    np.testing.assert_allclose(light.run(images, "features"), features, atol=1e-4)


def maps_of(graph: bytes, layers: list[str], images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Return the maps ``[N, H, W, C]`` of which the graph takes the style."""
    model = load_model_from_string(graph)
    made = {node.output[0]: node for node in model.graph.node}
    names = [made[f"{layer}.mean"].input[0] for layer in layers]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(names, {INPUT: images[..., None].astype(np.float32)})
    return [np.moveaxis(x, 1, -1) for x in found]


@pytest.mark.parametrize(
    ("architecture", "width"), [("resnet18", 8), ("resnet34", 4), ("resnet50", 8), ("efficientnet_lite0", 8)]
)
def test_the_style_is_mean_and_spread_of_every_channel_of_three_stages(architecture: str, width: int) -> None:
    model = trained_like(Config(architecture=architecture, size=64, width=width))  # type: ignore[arg-type]
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    names = style_layers(model)
    assert len(names) == 3
    stages = runtime.keras().Model(model.input, [model.get_layer(name).output for name in names])
    maps = maps_of(to_onnx(model), names, images)
    for x, of_keras in zip(maps, stages(images[..., None].astype(np.float32), training=False), strict=True):
        np.testing.assert_allclose(x, of_keras, rtol=0, atol=1e-4)
    # Of a channel that hardly varies the last bits of the sums in Keras's map would decide: the graph's own tells.
    means = [x.mean((1, 2), dtype=np.float64) for x in maps]
    spreads = [x.std((1, 2), dtype=np.float64) + STYLE_OFFSET for x in maps]
    light = LightModel(to_onnx(model), 64, 3, threads=1)
    style = np.split(light.run(images, "style"), np.repeat([m.shape[1] for m in means], 2).cumsum()[:-1], axis=1)
    np.testing.assert_allclose(np.concatenate(style[::2], 1), np.concatenate(means, 1), atol=1e-4)
    # The logarithm would magnify the last bit of float32 a thousandfold.
    np.testing.assert_allclose(np.exp(np.concatenate(style[1::2], 1)), np.concatenate(spreads, 1), rtol=1e-4, atol=2e-7)
    seen = light.look(images, batch_size=2)
    np.testing.assert_allclose(seen["style"], light.run(images, "style"), atol=1e-6)
    np.testing.assert_allclose(seen["logits"], light.run(images), atol=1e-6)
    np.testing.assert_allclose(seen["features"], light.run(images, "features").mean((1, 2)), atol=1e-6)


def test_the_logits_are_linear_in_the_mean_of_the_features() -> None:
    model = trained_like(Config.preset("ci"))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    light = LightModel(to_onnx(model), 64, 3, threads=1)
    kernel, bias = model.get_layer("logits").get_weights()
    by_hand = light.run(images, "features").mean(axis=(1, 2)) @ kernel + bias
    np.testing.assert_allclose(light.run(images), by_hand, atol=1e-5)


def test_the_same_weights_give_the_same_bytes() -> None:
    model = build_model(Config.preset("ci"), precision="float32")
    assert to_onnx(model) == to_onnx(model)


def test_kernels_that_two_bytes_hold_take_two_bytes_and_answer_the_same() -> None:
    model = trained_like(Config(size=64, width=16))
    whole = len(to_onnx(model))
    round_kernels(model)
    graph = to_onnx(model)
    assert len(graph) < 0.55 * whole
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    keras_says = np.asarray(model(images[..., None].astype(np.float32), training=False))
    light = LightModel(graph, 64, 3, threads=1)
    np.testing.assert_allclose(apply_temperature(light.run(images), 1.0), keras_says, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["kind", "activation", "groups"])
def test_what_cannot_be_expressed_is_refused_by_name(case: str) -> None:
    keras = runtime.keras()
    layers = keras.layers
    odd = {
        "kind": lambda: layers.LayerNormalization(name="odd"),
        "activation": lambda: layers.Activation("gelu", name="odd"),
        "groups": lambda: layers.Conv2D(4, 3, groups=2, name="odd"),
    }[case]()
    image = keras.Input((32, 32, 1), name="image")
    x = layers.Conv2D(4, 3, name="first")(image)
    x = layers.Activation("linear", name="features")(odd(x))
    x = layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x))
    with pytest.raises(DataError, match=r"Received: .*odd"):
        to_onnx(keras.Model(image, x))
