"""A detector for other runtimes: exported, compared with its Keras model on the spot, and refused where they differ."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.data.images import square
from pneumolib.data.radiograph import draw
from pneumolib.errors import ArtifactError, ConfigError, DataError, MissingExtraError
from pneumolib.evaluation.calibration import apply_temperature
from pneumolib.models import export_graphs
from pneumolib.models.detector import PARITY, Detector
from pneumolib.models.export_folder import require_replaceable, write_facts
from pneumolib.models.export_runs import PLACES, Answer, open_export
from pneumolib.models.folders import replaced

if TYPE_CHECKING:
    import keras

# Only what pays is offered. A SavedModel runs where TensorFlow does, which gains nothing from fewer bits on a CPU; the
# graphs of ONNX and OpenVINO hold in two bytes, without loss, what two bytes can hold, so float16 would not be smaller.
PRECISIONS = {
    "saved_model": ("float32",),
    "onnx": ("float32", "int8"),
    "litert": ("float32", "float16", "int8"),
    "openvino": ("float32", "int8"),
}
# By how much a class's probability may differ from Keras's. In float32 only the order of sums differs. Weights of half
# precision are off by 1 part in 2,000; half a point in a hundred is less than anyone reads from a probability. With
# int8, answers move by some thousandths in the mean, and single undecided ones by up to about a tenth
# (benchmarks/export.py); where a picture of the comparison moves further, the ranges do not fit.
BOUNDS = {"float32": PARITY, "float16": 0.01, "int8": 0.1}
MIN_REPRESENTATIVE, MAX_REPRESENTATIVE = 20, 250
HELD_BACK = 5  # each fifth representative image is kept from the calibration, for the comparison
_NEEDS = {"litert": "ai_edge_litert", "openvino": "openvino"}
_CALLS = 20


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how it compares with the Keras model."""

    format: str
    precision: str
    folder: Path
    files: tuple[str, ...]  # below the folder, detector.json among them
    n_bytes: int  # of all of them
    max_difference: float  # of a class's calibrated probability from the Keras model's
    bound: float  # above which the export would have been refused
    n_images: int  # that were compared
    latency_ms: float  # median for one image, on one thread; a SavedModel on the threads that TensorFlow has

    def __str__(self) -> str:
        return (
            f"{self.format}, {self.precision}: {self.n_bytes / 1e6:.1f} MB in {self.folder}; probabilities differ from "
            f"Keras's by {self.max_difference:.2g} at most ({self.bound:g} allowed, {self.n_images} images); "
            f"{self.latency_ms:.1f} ms an image"
        )


def export(
    detector: Detector,
    out: str | os.PathLike[str],
    *,
    format: str,
    precision: str = "float32",
    representative: NDArray[np.uint8] | None = None,
) -> ExportResult:
    """Write `detector` into the folder `out` for another runtime, over an export that stands there.

    What is written takes float32 ``[N, S, S, 1]`` in 0..255, for any N, and gives calibrated P(class), float32
    ``[N, C]``; ``detector.json`` beside it names classes, thresholds and origin. It answers to any picture: the check
    of the input, which refuses what is no chest X-ray, is not in it.

    Args:
        detector: as `load_detector` gives it.
        out: the folder to write; whole or not at all.
        format: ``saved_model``, ``onnx``, ``litert`` or ``openvino``.
        precision: ``float32``; ``float16`` or ``int8`` where `PRECISIONS` offers it.
        representative: X-rays as the detector will see them, uint8 ``[N, S, S]``, not those of a test. int8 needs 20
            or more to learn its ranges; otherwise they are compared, too. Of many, 250 are taken.

    Raises:
        ConfigError: a format or precision that is not offered, or int8 without images.
        DataError: the images are not uint8 ``[N, S, S]``.
        MissingExtraError: a package of the extra ``export`` or ``train`` is not installed.
        ArtifactError: the export and Keras differ by more than the bound, or `out` holds something else, or cannot be
            written.

    Examples:
        >>> from pneumolib import load_detector
        >>> print(export(load_detector(), "served", format="onnx"))                            # doctest: +SKIP
        onnx, float32: 5.6 MB in served; probabilities differ from Keras's by 2.4e-07 at most (1e-05 allowed, ...
    """
    chosen = _checked(detector, format, precision, representative)
    folder = Path(os.path.abspath(out))
    require_replaceable(folder)
    with _tensor_float_off():
        model = detector.keras_model()
        compared = _trial_images(detector.size)
        calibration = None
        if chosen is not None:
            compared = np.concatenate([compared, chosen[::HELD_BACK]])
            calibration = np.delete(chosen, np.s_[::HELD_BACK], axis=0)
        expected = _keras_answers(model, detector.temperature, compared)
        with replaced(folder) as partial:
            _write(model, detector.temperature, partial, format, precision, calibration)
            answer = open_export(partial, format)
            difference = _difference(answer, compared, expected)
            bound = BOUNDS[precision]
            if not difference <= bound:
                raise ArtifactError(
                    f"The export ({format}, {precision}) was not kept: its probabilities differ from the Keras "
                    f"model's. Allowed: {bound:g}. Received: {difference:.2g}, over {len(compared)} images"
                )
            latency = _latency(answer, compared)
            check = {"images": len(compared), "max_difference": difference, "bound": bound}
            sizes = write_facts(partial, detector, format=format, precision=precision, check=check)
    return ExportResult(
        format=format,
        precision=precision,
        folder=Path(out),
        files=tuple(sizes),
        n_bytes=sum(sizes.values()),
        max_difference=difference,
        bound=bound,
        n_images=len(compared),
        latency_ms=latency,
    )


def _checked(
    detector: Detector, format: str, precision: str, representative: NDArray[np.uint8] | None
) -> NDArray[np.uint8] | None:
    """Return the representative images to use, having seen that the call can be fulfilled here."""
    if format not in PRECISIONS:
        raise ConfigError(f"There is no such format. Allowed: {', '.join(PRECISIONS)}. Received: {format!r}")
    if precision not in PRECISIONS[format]:
        raise ConfigError(
            f"{format} is not offered in this precision. Allowed: {', '.join(PRECISIONS[format])}. "
            f"Received: {precision!r}"
        )
    n = 0 if representative is None else len(representative)
    if precision == "int8" and n < MIN_REPRESENTATIVE:
        raise ConfigError(
            "int8 learns its ranges from X-rays; pass representative=IMAGES (--representative DATA). "
            f"Allowed: {MIN_REPRESENTATIVE} or more. Received: {n}"
        )
    needed = _NEEDS.get(format)
    if needed is not None and importlib.util.find_spec(needed) is None:
        raise MissingExtraError(
            f"Exporting to {format} needs a package that is not installed: {needed}. "
            "Install the extra: pip install 'pneumolib[export]'"
        )
    keras = runtime.keras()
    if format in ("saved_model", "litert") and keras.backend.backend() != "tensorflow":
        raise ConfigError(
            f"{format} is written by TensorFlow, so Keras must run on it. Allowed: KERAS_BACKEND=tensorflow. "
            f"Received: {keras.backend.backend()}"
        )
    if representative is None:
        return None
    side = detector.size
    if representative.dtype != np.uint8 or representative.ndim != 3 or representative.shape[1:] != (side, side):
        raise DataError(
            f"Representative images have the wrong form. Allowed: uint8 [N, {side}, {side}]. "
            f"Received: {representative.dtype} {list(representative.shape)}"
        )
    return representative[np.linspace(0, n - 1, min(n, MAX_REPRESENTATIVE)).astype(int)]


def _write(
    model: keras.Model,
    temperature: float,
    folder: Path,
    format: str,
    precision: str,
    calibration: NDArray[np.uint8] | None,
) -> None:
    path = folder / PLACES[format]
    path.parent.mkdir(exist_ok=True)
    if format == "saved_model":
        export_graphs.write_saved_model(model, temperature, path.parent)
    elif format == "litert":
        path.write_bytes(export_graphs.litert(model, temperature, precision, calibration))
    else:
        graph = export_graphs.onnx(model, temperature, calibration if precision == "int8" else None)
        if format == "onnx":
            path.write_bytes(graph)
        else:
            export_graphs.write_openvino(graph, path)


@functools.cache
def _trial_images(size: int) -> NDArray[np.uint8]:
    """Return pictures that drawn X-rays turn into clouds through, uint8 ``[32, size, size]``.

    On the way from one to the other a detector is undecided, and only there does an error show: a probability near 0
    or 1 hides it.
    """
    subtypes = ("normal", "bacterial", "viral", "normal")
    clouds = np.random.default_rng(0).integers(0, 256, (len(subtypes), 8, 8), dtype=np.uint8)
    pictures = []
    for number, (subtype, cloud) in enumerate(zip(subtypes, clouds, strict=True)):
        x_ray = square(draw(subtype, number, size=(240, 300)), size).astype(np.float32)
        for share in np.linspace(0, 1, 8):
            pictures.append(np.rint((1 - share) * x_ray + share * square(cloud, size)).astype(np.uint8))
    return np.stack(pictures)


def _keras_answers(model: keras.Model, temperature: float, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    from pneumolib.models.finishing import predict_logits

    with runtime.quiet():
        return apply_temperature(predict_logits(model, images, batch_size=16), temperature)


def _difference(answer: Answer, images: NDArray[np.uint8], expected: NDArray[np.float32]) -> float:
    """Return the greatest difference of any class's probability, asked for in batches of several sizes."""
    edges = [0, 1, *range(4, len(images), 16), len(images)]
    parts = [answer(images[a:b, ..., None].astype(np.float32)) for a, b in itertools.pairwise(edges)]
    return float(np.abs(np.concatenate(parts) - expected).max())


def _latency(answer: Answer, images: NDArray[np.uint8]) -> float:
    one = images[:1, ..., None].astype(np.float32)
    times = []
    for _ in range(_CALLS + 1):
        start = time.perf_counter()
        answer(one)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[1:])


@contextlib.contextmanager
def _tensor_float_off() -> Iterator[None]:
    """Let TensorFlow multiply in full: newer GPUs round factors to ten bits unless told not to."""
    if runtime.keras().backend.backend() != "tensorflow":
        yield
        return
    setting = runtime.tensorflow().config.experimental
    before = setting.tensor_float_32_execution_enabled()
    setting.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        setting.enable_tensor_float_32_execution(before)
