"""The light runtime: a detector's graph in ONNX Runtime, which opens in a tenth of a second, without TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.errors import ArtifactError, ConfigError, DataError

MAX_DEFAULT_THREADS = 4  # one X-ray gains little from more, and a server runs several workers


class LightModel:
    """A graph that maps images to logits, feature maps and style; may be called from several threads at once.

    Args:
        graph: a serialised ONNX graph as `to_onnx` gives it; check its hash before it comes here.
        size: the side of its images, in pixels.
        n_classes: the number of its logits.
        threads: how many threads work on one call; None takes the cores of this machine, at most four.

    Raises:
        ArtifactError: the bytes are no such graph.
        ConfigError: `threads` is less than one.
    """

    def __init__(self, graph: bytes, size: int, n_classes: int, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ConfigError(f"threads must be None, or 1 or more. Received: {threads!r}")
        self.size, self.n_classes = size, n_classes
        self.threads = threads or min(MAX_DEFAULT_THREADS, runtime.available_cores())
        self._session = _open_session(graph, self.threads)
        inputs = [(i.name, i.type, list(i.shape[1:])) for i in self._session.get_inputs()]
        outputs = {o.name: (o.type, len(o.shape)) for o in self._session.get_outputs()}
        classes = [o.shape[1] for o in self._session.get_outputs() if o.name == "logits"]
        if (
            inputs != [("image", "tensor(float)", [size, size, 1])]
            or outputs
            != {"logits": ("tensor(float)", 2), "features": ("tensor(float)", 4), "style": ("tensor(float)", 2)}
            or classes != [n_classes]
        ):
            raise ArtifactError(
                f"The graph is not this detector's: it should map images of {size} pixels to {n_classes} logits, a "
                f"feature map and a style. Received: {inputs} -> {outputs}"
            )

    def run(self, images: NDArray[np.uint8], output: str = "logits", batch_size: int = 32) -> NDArray[np.float32]:
        """Return ``logits`` ``[N, C]``, ``features`` ``[N, h, w, K]`` or ``style`` ``[N, K]``, float32.

        Args:
            images: uint8 ``[N, S, S]``.
            output: which of the three.
            batch_size: how many go through the network at a time.

        Raises:
            DataError: the array is not uint8 ``[N, S, S]``.
            ConfigError: `batch_size` is less than one.
        """
        self._require(images)
        if batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more. Received: {batch_size!r}")
        parts = [
            self._session.run([output], {"image": images[start : start + batch_size, ..., None].astype(np.float32)})[0]
            for start in range(0, max(len(images), 1), batch_size)
        ]
        return np.concatenate(parts)

    def look(
        self, images: NDArray[np.uint8], batch_size: int = 32, *, maps: bool = False
    ) -> dict[str, NDArray[np.float32]]:
        """Return the ``logits``, the ``style`` and the ``features`` averaged over space, float32 ``[N, K]`` each.

        With `maps`, also ``maps``, the features before they are averaged, float32 ``[N, h, w, K]``.

        Raises:
            DataError: the array is not uint8 ``[N, S, S]``.
        """
        self._require(images)
        parts = []
        for start in range(0, max(len(images), 1), batch_size):
            batch = images[start : start + batch_size, ..., None].astype(np.float32)
            logits, style, features = self._session.run(["logits", "style", "features"], {"image": batch})
            parts.append({"logits": logits, "style": style, "features": features.mean((1, 2))})
            if maps:
                parts[-1]["maps"] = features
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _require(self, images: Any) -> None:
        allowed = f"Allowed: a uint8 array [N, {self.size}, {self.size}] of gray values 0 to 255."
        if not isinstance(images, np.ndarray):
            raise DataError(f"The images are no array. {allowed} Received: {type(images).__name__}")
        if images.ndim != 3 or images.shape[1:] != (self.size, self.size):
            raise DataError(f"The images have the wrong shape. {allowed} Received: shape {list(images.shape)}")
        if images.dtype != np.uint8:
            held = f", {images.min():.4g} to {images.max():.4g}" if images.size and images.dtype.kind in "biuf" else ""
            raise DataError(f"The images have the wrong number type. {allowed} Received: {images.dtype}{held}")


def _open_session(graph: bytes, threads: int) -> Any:
    # A graph may name files that tensors are read from, and older releases of ONNX Runtime follow such names anywhere
    # when the graph comes from memory (microsoft/onnxruntime#27430). The key of such a name is always this word.
    if b"location" in graph:
        raise ArtifactError("The graph refers to other files, which no detector's does; it was not opened.")
    onnxruntime = runtime.onnxruntime()
    with runtime.quiet():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        # The runtime's errors share no base class but Exception.
        except Exception as error:
            version = onnxruntime.__version__
            raise ArtifactError(f"ONNX Runtime {version} cannot read the detector's graph: {error}") from error
