"""Exported detectors, opened and run in their own runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.models.export_graphs import OUTPUT, SIGNATURE, import_openvino
from pneumolib.models.onnx_graph import INPUT

Answer = Callable[[NDArray[np.float32]], NDArray[np.float32]]

# Where the network stands in the folder of an export. Servers look for it in a folder whose name is its version.
PLACES = {
    "saved_model": "1/saved_model.pb",
    "onnx": "1/model.onnx",
    "litert": "model.tflite",
    "openvino": "1/model.xml",
}


def open_export(folder: Path, format: str, threads: int = 1) -> Answer:
    """Return the function that answers as the export in `folder` does: float32 ``[N, S, S, 1]`` to ``[N, C]``.

    Args:
        folder: of the export.
        format: a key of `PLACES`.
        threads: how many work on one call; a SavedModel runs on those that TensorFlow has in this process.

    Raises:
        MissingExtraError, ImportError: its runtime is not installed.
    """
    with runtime.quiet():
        return _OPENERS[format](folder / PLACES[format], threads)


def _saved_model(path: Path, threads: int) -> Answer:
    tf = runtime.tensorflow()
    loaded = tf.saved_model.load(str(path.parent))
    return lambda images: loaded.signatures[SIGNATURE](**{INPUT: tf.constant(images)})[OUTPUT].numpy()


def _onnx(path: Path, threads: int) -> Answer:
    onnxruntime = runtime.onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def _litert(path: Path, threads: int) -> Answer:
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

    interpreter: Any = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    place = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]

    def answer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(place, images.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(place, images)
        interpreter.invoke()
        probabilities: NDArray[np.float32] = interpreter.get_tensor(result)
        return probabilities

    return answer


def _openvino(path: Path, threads: int) -> Answer:
    # Left to itself, OpenVINO computes with bfloat16 on processors that can, and answers differ in the third decimal.
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = import_openvino().Core().compile_model(str(path), "CPU", exact)
    return lambda images: np.array(compiled([images])[0])


_OPENERS: dict[str, Callable[[Path, int], Answer]] = {
    "saved_model": _saved_model,
    "onnx": _onnx,
    "litert": _litert,
    "openvino": _openvino,
}
