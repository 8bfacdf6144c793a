"""The light graph: a network of this package written as ONNX, for prediction without TensorFlow.

The graph takes what the Keras model takes, raw gray values, and gives the logits, the last feature map, from which a
class activation map can be computed without gradients, and the style: for each channel of three early layers
(`style_layers`) its mean, and the logarithm of its standard deviation. It is written layer by layer, because the
general converter (tf2onnx) takes seconds, needs TensorFlow's graph tools and has been looking for a maintainer since
February 2026 (github.com/onnx/tensorflow-onnx/issues/2430); the networks here use a dozen kinds of layers. Whoever
makes a detector compares the two, so a layer that is written wrongly cannot pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumolib.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import keras

INPUT, OUTPUTS = "image", ("logits", "features", "style")
STYLE_OFFSET = 1e-3  # added to a standard deviation, that of a channel that is silent included
# Operator set 17 and format 8 are read by every ONNX Runtime since 1.12 of 2022.
OPSET, IR_VERSION = 17, 8


def to_onnx(model: keras.Model) -> bytes:
    """Return `model` as a serialised ONNX graph: ``image`` in, `OUTPUTS` out, any batch size.

    Args:
        model: as `build_model` gives it, in float32.

    Raises:
        DataError: the model holds a layer, or a setting of a layer, that cannot be written.
        MissingExtraError: the package `onnx` is not installed.

    Examples:
        >>> from pneumolib import Config, build_model
        >>> graph = to_onnx(build_model(Config.preset("ci"), precision="float32"))
        >>> len(graph) > 100_000
        True
    """
    try:
        from onnx import TensorProto, checker, helper
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Making a detector needs a package that is not installed: {error.name}. "
            "Install the extra: pip install 'pneumolib[train]'"
        ) from error
    graph = _Graph()
    for layer in model.layers:
        kind = type(layer).__name__
        if kind not in _WRITERS:
            raise DataError(
                f"A layer of this kind cannot be written into the light graph. Allowed: {', '.join(_WRITERS)}. "
                f"Received: {kind} ({layer.name})"
            )
        _WRITERS[kind](layer, graph)
    side, classes = model.input_shape[1], model.get_layer("logits").units
    features = model.get_layer("features").output.shape
    graph.node("Identity", [graph.names[id(model.get_layer("logits").output)]], "logits")
    # Inside, channels come first, as ONNX wants it; outside they come last, as in Keras.
    graph.node("Transpose", [graph.names[id(model.get_layer("features").output)]], "features", perm=[0, 2, 3, 1])
    width = _write_style(model, graph)
    written = helper.make_model(
        helper.make_graph(
            graph.nodes,
            model.name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", side, side, 1])],
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes]),
                helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", *features[1:]]),
                helper.make_tensor_value_info("style", TensorProto.FLOAT, ["batch", width]),
            ],
            graph.constants,
        ),
        producer_name="pneumolib",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    checker.check_model(written)
    return written.SerializeToString(deterministic=True)


def _write_style(model: keras.Model, graph: _Graph) -> int:
    """Write the output ``style`` and return its width."""
    from pneumolib.models.resnet import style_layers

    offset = graph.constant("style.offset", np.array(STYLE_OFFSET, np.float32))
    parts, width = [], 0
    for name in style_layers(model):
        output = model.get_layer(name).output
        x, width = graph.names[id(output)], width + 2 * output.shape[-1]
        mean = graph.node("ReduceMean", [x], f"{name}.mean", axes=[2, 3], keepdims=1)
        off = graph.node("Sub", [x, mean], f"{name}.off")
        variance = graph.node("ReduceMean", [graph.node("Mul", [off, off], f"{name}.squared")], f"{name}.variance",
                              axes=[2, 3], keepdims=1)  # fmt: skip
        spread = graph.node("Add", [graph.node("Sqrt", [variance], f"{name}.std"), offset], f"{name}.spread")
        parts += [mean, graph.node("Log", [spread], f"{name}.log_spread")]
    joined = graph.node("Concat", parts, "style.joined", axis=1)
    graph.node("Flatten", [joined], "style")
    return width


def in_fewest_bytes(array: NDArray[Any]) -> NDArray[Any]:
    """Return a float32 array as float16 if each of its numbers is one, else the array itself.

    Examples:
        >>> in_fewest_bytes(np.array([0.5, 0.25], np.float32)).dtype, in_fewest_bytes(np.array([0.1], np.float32)).dtype
        (dtype('float16'), dtype('float32'))
    """
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), array) else array


class _Graph:
    """Nodes and constants so far, and the name of each Keras tensor in the graph."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.names: dict[int, str] = {}

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        """Write `value`, in two bytes a number where that loses nothing; the graph computes with four all the same."""
        from onnx import TensorProto, numpy_helper

        stored = in_fewest_bytes(np.ascontiguousarray(value))
        if stored.dtype == value.dtype:
            self.constants.append(numpy_helper.from_array(stored, name))
            return name
        self.constants.append(numpy_helper.from_array(stored, f"{name}.float16"))
        return self.node("Cast", [f"{name}.float16"], name, to=TensorProto.FLOAT)

    def inputs(self, layer: Any) -> list[str]:
        tensors = layer.input if isinstance(layer.input, list) else [layer.input]
        return [self.names[id(tensor)] for tensor in tensors]

    def done(self, layer: Any, output: str) -> None:
        self.names[id(layer.output)] = output


def _input(layer: Any, graph: _Graph) -> None:
    graph.done(layer, graph.node("Transpose", [INPUT], f"{layer.name}.channels_first", perm=[0, 3, 1, 2]))


def _rescaling(layer: Any, graph: _Graph) -> None:
    scale = graph.constant(f"{layer.name}.scale", np.asarray(layer.scale, np.float32).reshape(1, -1, 1, 1))
    offset = graph.constant(f"{layer.name}.offset", np.asarray(layer.offset, np.float32).reshape(1, -1, 1, 1))
    scaled = graph.node("Mul", [*graph.inputs(layer), scale], f"{layer.name}.scaled")
    graph.done(layer, graph.node("Add", [scaled, offset], layer.name))


def _concatenate(layer: Any, graph: _Graph) -> None:
    _require(layer, layer.axis == -1, "concatenation along the channels")
    graph.done(layer, graph.node("Concat", graph.inputs(layer), layer.name, axis=1))


def _zero_padding(layer: Any, graph: _Graph) -> None:
    (top, bottom), (left, right) = layer.padding
    pads = graph.constant(f"{layer.name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    graph.done(layer, graph.node("Pad", [*graph.inputs(layer), pads], layer.name))


def _cropping(layer: Any, graph: _Graph) -> None:
    (top, bottom), (left, right) = layer.cropping
    height, width = layer.input.shape[1:3]
    ends = {"starts": (top, left), "ends": (height - bottom, width - right), "axes": (2, 3)}
    limits = [graph.constant(f"{layer.name}.{end}", np.array(places, np.int64)) for end, places in ends.items()]
    graph.done(layer, graph.node("Slice", [*graph.inputs(layer), *limits], layer.name))


def _conv(layer: Any, graph: _Graph) -> None:
    _require(layer, tuple(layer.dilation_rate) == (1, 1) and layer.groups == 1, "no dilation and no groups")
    weights = layer.get_weights()
    inputs = [*graph.inputs(layer), graph.constant(f"{layer.name}.kernel", weights[0].transpose(3, 2, 0, 1))]
    if layer.use_bias:
        inputs.append(graph.constant(f"{layer.name}.bias", weights[1]))
    output = graph.node("Conv", inputs, layer.name, **_window(layer, layer.kernel_size))
    graph.done(layer, _activated(layer, graph, output))


def _depthwise_conv(layer: Any, graph: _Graph) -> None:
    plain = tuple(layer.dilation_rate) == (1, 1) and layer.depth_multiplier == 1 and not layer.use_bias
    _require(layer, plain, "no dilation, no bias and one kernel for each channel")
    kernel = layer.get_weights()[0].transpose(2, 3, 0, 1)
    inputs = [*graph.inputs(layer), graph.constant(f"{layer.name}.kernel", kernel)]
    output = graph.node("Conv", inputs, layer.name, group=len(kernel), **_window(layer, layer.kernel_size))
    graph.done(layer, _activated(layer, graph, output))


def _max_pooling(layer: Any, graph: _Graph) -> None:
    graph.done(layer, graph.node("MaxPool", graph.inputs(layer), layer.name, **_window(layer, layer.pool_size)))


def _window(layer: Any, kernel: tuple[int, int]) -> dict[str, list[int]]:
    """Say where a kernel is applied; "same" pads as TensorFlow does, the odd pixel at the end."""
    begin, end = [0, 0], [0, 0]
    if layer.padding == "same":
        for axis in (0, 1):
            side, stride = layer.input.shape[1 + axis], layer.strides[axis]
            total = max((-(-side // stride) - 1) * stride + kernel[axis] - side, 0)
            begin[axis], end[axis] = total // 2, total - total // 2
    return {"kernel_shape": list(kernel), "strides": list(layer.strides), "pads": [*begin, *end]}


def _batch_normalization(layer: Any, graph: _Graph) -> None:
    _require(layer, layer.scale and layer.center and layer.axis in (-1, 3), "scale and offset for each channel")
    parts = zip(("gamma", "beta", "mean", "variance"), layer.get_weights(), strict=True)
    constants = [graph.constant(f"{layer.name}.{part}", value) for part, value in parts]
    inputs = [*graph.inputs(layer), *constants]
    graph.done(layer, graph.node("BatchNormalization", inputs, layer.name, epsilon=float(layer.epsilon)))


def _relu(layer: Any, graph: _Graph) -> None:
    plain = not layer.negative_slope and not layer.threshold
    _require(layer, plain, "a plain rectifier, or one that is cut off")
    if layer.max_value is None:
        graph.done(layer, graph.node("Relu", graph.inputs(layer), layer.name))
        return
    limits = [graph.constant(f"{layer.name}.{end}", np.array(v, np.float32)) for end, v in
              (("least", 0), ("most", layer.max_value))]  # fmt: skip
    graph.done(layer, graph.node("Clip", [*graph.inputs(layer), *limits], layer.name))


def _activation(layer: Any, graph: _Graph) -> None:
    graph.done(layer, _activated(layer, graph, graph.inputs(layer)[0]))


def _activated(layer: Any, graph: _Graph, name: str) -> str:
    function = layer.activation.__name__
    # The softmax comes after the logits, where the light graph ends: temperature goes in between.
    _require(layer, function in ("linear", "relu") or layer.name == "probabilities", "a linear or relu activation")
    return graph.node("Relu", [name], f"{layer.name}.relu") if function == "relu" else name


def _add(layer: Any, graph: _Graph) -> None:
    first, second = graph.inputs(layer)
    graph.done(layer, graph.node("Add", [first, second], layer.name))


def _pooled(layer: Any, graph: _Graph) -> None:
    _require(layer, not layer.keepdims, "keepdims=False")
    mean = graph.node("GlobalAveragePool", graph.inputs(layer), f"{layer.name}.mean")
    graph.done(layer, graph.node("Flatten", [mean], layer.name))


def _unchanged(layer: Any, graph: _Graph) -> None:
    """Write nothing: the layer works in training only."""
    graph.done(layer, graph.inputs(layer)[0])


def _dense(layer: Any, graph: _Graph) -> None:
    _require(layer, layer.use_bias and layer.activation.__name__ == "linear", "a bias and no activation")
    kernel, bias = layer.get_weights()
    inputs = [graph.constant(f"{layer.name}.kernel", kernel), graph.constant(f"{layer.name}.bias", bias)]
    graph.done(layer, graph.node("Gemm", [*graph.inputs(layer), *inputs], f"{layer.name}.dense"))


def _require(layer: Any, holds: bool, allowed: str) -> None:
    if not holds:
        raise DataError(f"The light graph allows {allowed} here. Received: {layer.get_config()}")


_WRITERS: dict[str, Callable[[Any, _Graph], None]] = {
    "InputLayer": _input,
    "Rescaling": _rescaling,
    "Concatenate": _concatenate,
    "Cropping2D": _cropping,
    "ZeroPadding2D": _zero_padding,
    "Conv2D": _conv,
    "DepthwiseConv2D": _depthwise_conv,
    "MaxPooling2D": _max_pooling,
    "BatchNormalization": _batch_normalization,
    "ReLU": _relu,
    "Activation": _activation,
    "Add": _add,
    "GlobalAveragePooling2D": _pooled,
    "Dropout": _unchanged,
    "MixStyle": _unchanged,
    "Dense": _dense,
}
