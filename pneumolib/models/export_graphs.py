"""A detector's network in the formats of other runtimes: gray values in, calibrated probabilities out.

Every function here writes the same thing, `INPUT` float32 ``[N, S, S, 1]`` in 0..255 to `OUTPUT` float32 ``[N, C]``,
with rescaling and temperature inside the graph, for any N.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.models.onnx_graph import INPUT, to_onnx

if TYPE_CHECKING:
    import keras

OUTPUT = "probabilities"
SIGNATURE = "serving_default"  # the name that TensorFlow Serving asks for
# In a network of inverted residuals, so many of the first wide layers keep float32. They have few weights, and rounded
# too they make answers move nearly three times as far, and on a processor without VNNI are no faster.
FIRST_WIDE = 3


def write_saved_model(model: keras.Model, temperature: float, folder: Path) -> None:
    """Write `model`, as `build_model` gives it, into `folder` as a SavedModel with one signature, `SIGNATURE`.

    The weights become constants of the graph. Keras's own export keeps variables, and each of them twice.

    Raises:
        MissingExtraError: TensorFlow is not installed.
    """
    tf, keras = runtime.tensorflow(), runtime.keras()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    # A session may have set another number format for new layers.
    scaled = keras.layers.Rescaling(1 / temperature, dtype="float32")(model.get_layer("logits").output)
    answer = keras.Model(model.input, keras.layers.Activation("softmax", dtype="float32")(scaled))
    shape = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name=INPUT)
    with runtime.quiet():
        traced = tf.function(lambda image: answer(image, training=False), input_signature=[shape])
        frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
        served = tf.function(lambda image: {OUTPUT: frozen(image)[0]}, input_signature=[shape])
        tf.saved_model.save(tf.Module(), str(folder), signatures={SIGNATURE: served})


def litert(
    model: keras.Model, temperature: float, precision: str, calibration: NDArray[np.uint8] | None = None
) -> bytes:
    """Return `model` as a LiteRT flatbuffer with the signature `SIGNATURE`.

    Args:
        model: as `build_model` gives it, in float32.
        temperature: what the logits are divided by.
        precision: ``float32``; ``float16``, which stores weights in two bytes and computes with four; or ``int8``.
        calibration: for int8, images uint8 ``[N, S, S]`` that show how large the values inside become.

    Raises:
        MissingExtraError: TensorFlow is not installed.
        ImportError: LiteRT is not installed, and int8 is asked for.
    """
    tf = runtime.tensorflow()
    with tempfile.TemporaryDirectory() as folder, runtime.quiet(), warnings.catch_warnings():
        write_saved_model(model, temperature, Path(folder))
        # It warns that input and output stay float32, which is what is wanted.
        warnings.simplefilter("ignore")
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if calibration is not None and precision == "int8":
            return _litert_with_integers(converter, calibration)
        if precision == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        flatbuffer: bytes = converter.convert()
    return flatbuffer


def _litert_with_integers(converter: Any, calibration: NDArray[np.uint8]) -> bytes:
    """Return what `converter` makes with 8-bit numbers in all but the first convolution and the head.

    Left to itself it would round those, too, which moved answers by a quarter further and gained no time.
    """
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

    lite = runtime.tensorflow().lite

    def samples() -> Iterator[list[NDArray[np.float32]]]:
        for image in calibration:
            yield [image[None, ..., None].astype(np.float32)]

    whole = Interpreter(model_content=converter.convert())
    names = {tensor["index"]: tensor["name"] for tensor in whole.get_tensor_details()}
    operators = [(operator["op_name"], names[operator["outputs"][0]]) for operator in whole._get_ops_details()]
    kinds = [kind for kind, _ in operators]
    kept = [*operators[: kinds.index("CONV_2D") + 1], *operators[kinds.index("MEAN") :]]
    if "DEPTHWISE_CONV_2D" in kinds:  # as in the ONNX graph: of inverted residuals, the later wide layers alone
        wide = [(kind, name) for kind, name in operators if kind == "CONV_2D" and "_project" not in name]
        kept += [operator for operator in operators if operator not in wide[1 + FIRST_WIDE :]]
    converter.optimizations = [lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    # The way that TensorFlow has of leaving operators out; nothing is debugged.
    options = lite.experimental.QuantizationDebugOptions(denylisted_nodes=[name for _, name in kept])
    quantised = lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=samples, debug_options=options
    )
    flatbuffer: bytes = quantised.get_nondebug_quantized_model()
    return flatbuffer


def onnx(model: keras.Model, temperature: float, calibration: NDArray[np.uint8] | None = None) -> bytes:
    """Return `model` as a serialised ONNX graph; with `calibration`, it computes with 8-bit numbers where it can.

    Args:
        model: as `build_model` gives it, in float32.
        temperature: what the logits are divided by.
        calibration: images uint8 ``[N, S, S]`` that show how large the values inside become; None keeps float32.

    Raises:
        MissingExtraError: the package `onnx` is not installed.
    """
    graph = _answer_only(to_onnx(model), temperature)
    return graph if calibration is None else _with_integers(graph, calibration)


def write_openvino(graph: bytes, path: Path) -> None:
    """Write an ONNX graph as OpenVINO's ``.xml``, at `path`, and ``.bin``, beside it; nothing is rounded.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    openvino = import_openvino()
    openvino.save_model(openvino.Core().read_model(graph), str(path), compress_to_fp16=False)


def import_openvino() -> ModuleType:
    """Return the module `openvino`, told to report nothing: its import alone would send an event to a server.

    Raises:
        ImportError: it is not installed.
    """
    if "openvino" not in sys.modules:
        # Without this package OpenVINO takes a stub in its place.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino  # type: ignore[import-untyped]

    module: ModuleType = openvino
    return module


def _answer_only(graph: bytes, temperature: float) -> bytes:
    """Return the part of a light graph that leads to the logits, with temperature and softmax after it."""
    from onnx import TensorProto, checker, helper, load_model_from_string, numpy_helper

    light = load_model_from_string(graph)
    wanted, nodes = {"logits"}, list[Any]()
    for node in reversed(light.graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            nodes.insert(0, node)
    (logits,) = (output for output in light.graph.output if output.name == "logits")
    n_classes = logits.type.tensor_type.shape.dim[1].dim_value
    written = helper.make_model(
        helper.make_graph(
            [
                *nodes,
                helper.make_node("Div", ["logits", "temperature"], ["calibrated"], name="calibrated"),
                helper.make_node("Softmax", ["calibrated"], [OUTPUT], name=OUTPUT, axis=1),
            ],
            light.graph.name,
            light.graph.input,
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", n_classes])],
            [
                *(constant for constant in light.graph.initializer if constant.name in wanted),
                numpy_helper.from_array(np.array(temperature, np.float32), "temperature"),
            ],
        ),
        producer_name=light.producer_name,
        opset_imports=light.opset_import,
        ir_version=light.ir_version,
    )
    checker.check_model(written)
    return written.SerializeToString(deterministic=True)


def _with_integers(graph: bytes, calibration: NDArray[np.uint8]) -> bytes:
    """Return `graph` with weights of 7 bits and values of 8 in all but its first convolution and its head.

    Processors without VNNI multiply pairs of bytes into 16 bits, and with weights of 8 bits ONNX Runtime lets large
    sums be cut off there: probabilities were off by up to 0.23. Seven bits cannot get that far, so the answers are the
    same on every processor. They are too few for the first convolution alone; it stays in float32. Ranges reach from
    the smallest to the largest value of the calibration images: cut at a percentile, the answers moved more.

    In a network of inverted residuals bytes hold the later wide layers alone: with its depthwise convolutions and its
    narrow, unrectified sums rounded too, probabilities were off by up to 0.6.
    """
    from onnx import load_model
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._left, None)
            return None if image is None else {INPUT: image[None, ..., None].astype(np.float32)}

    with tempfile.TemporaryDirectory() as folder, runtime.quiet():
        whole, folded, quantised = (str(Path(folder) / f"{name}.onnx") for name in ("whole", "folded", "quantised"))
        Path(whole).write_bytes(graph)
        # Batch normalisation goes into the kernels before they are rounded.
        quant_pre_process(whole, folded, skip_symbolic_shape=True)
        nodes = load_model(folded).graph.node
        first = next(i for i, node in enumerate(nodes) if node.op_type == "Conv")
        kept = {node.name for node in nodes[: first + 1]} | _too_fine_for_bytes(nodes)
        quantize_static(
            folded,
            quantised,
            Images(),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["Conv", "Relu", "Clip", "MaxPool", "Add"],
            nodes_to_exclude=sorted(kept),
        )
        return Path(quantised).read_bytes()


def _too_fine_for_bytes(nodes: Sequence[Any]) -> set[str]:
    """Return the names of the depthwise convolutions, and with them of the unrectified, the first wide and the sums."""
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    depthwise = {n.name for n in convolutions if any(a.name == "group" and a.i > 1 for a in n.attribute)}
    if not depthwise:
        return set()
    rectified = {node.input[0] for node in nodes if node.op_type in ("Relu", "Clip")}
    linear = {node.name for node in convolutions if node.output[0] not in rectified}
    wide = [node.name for node in convolutions if node.name not in depthwise | linear]
    sums = {node.name for node in nodes if node.op_type == "Add"}
    return depthwise | linear | set(wide[: 1 + FIRST_WIDE]) | sums
