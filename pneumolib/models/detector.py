"""The detector: from an X-ray to a calibrated probability and a decision, without TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

import pneumolib
from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.data.images import load_square, square
from pneumolib.errors import ArtifactError, ConfigError, DataError, DataNotFoundError
from pneumolib.evaluation.calibration import OperatingPoint, apply_temperature
from pneumolib.models import artifact
from pneumolib.models.artifact import Manifest
from pneumolib.models.familiarity import Familiarity
from pneumolib.models.light import LightModel
from pneumolib.models.prediction import Decision, Prediction
from pneumolib.models.reference import check_images, self_check_image

if TYPE_CHECKING:
    import keras

Source = str | os.PathLike[str] | bytes | NDArray[np.uint8]

PARITY = 1e-5  # the light graph's and the Keras model's probabilities differ by no more


class Detector:
    """A trained network with all that its answers need; get one from `load_detector`, or from a training run.

    It answers through ONNX Runtime, from any number of threads at once, and is not changed by anything that it does.
    """

    def __init__(self, manifest: Manifest, read: Callable[[str], bytes], *, threads: int | None = None) -> None:
        self._manifest, self._read = manifest, read
        self._light = LightModel(read(artifact.GRAPH), manifest.config.size, len(manifest.config.class_names), threads)
        known = artifact.FAMILIARITY in manifest.files
        self._familiarity = Familiarity(_arrays(read(artifact.FAMILIARITY), "familiarity")) if known else None

    @property
    def name(self) -> str:
        """Architecture, size and preset in one word."""
        return self._manifest.name

    @property
    def version(self) -> str:
        """The version of pneumolib that made the detector."""
        return self._manifest.version

    @property
    def config(self) -> Config:
        """The settings it was trained with."""
        return self._manifest.config

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of its classes, in the order of `predict_images`."""
        return self._manifest.config.class_names

    @property
    def size(self) -> int:
        """The side of the square image that it looks at, in pixels."""
        return self._manifest.config.size

    @property
    def temperature(self) -> float:
        """What the logits are divided by, so that probabilities are as sure as they should be."""
        return self._manifest.temperature

    @property
    def operating_points(self) -> dict[str, OperatingPoint]:
        """The thresholds it may decide by, by name, chosen on validation images."""
        return dict(self._manifest.operating_points)

    @property
    def threshold(self) -> float:
        """The threshold of the operating point ``balanced``."""
        return self._manifest.operating_points["balanced"].threshold

    @property
    def card(self) -> dict[str, Any]:
        """Where it comes from: data, versions, whether it saw phantoms only, the numbers it was accepted with."""
        return dict(self._manifest.card)

    @property
    def sha256(self) -> str:
        """The SHA-256 of its manifest, which holds those of all its files: 64 hexadecimal digits that name it."""
        return hashlib.sha256(self._manifest.to_json()).hexdigest()

    @property
    def threads(self) -> int:
        """How many threads work on one call."""
        return self._light.threads

    def __repr__(self) -> str:
        phantom = " PHANTOM: trained on synthetic X-rays only." if self._manifest.card.get("phantom") else ""
        return (
            f"Detector {self.name}: {', '.join(self.class_names)}; images of {self.size} x {self.size} pixels; "
            f"pneumonia from a probability of {self.threshold:.3f} (balanced).{phantom}"
        )

    @overload
    def predict(self, x: Source, *, operating_point: str = ...) -> Prediction: ...
    @overload
    def predict(self, x: list[Any] | tuple[Any, ...], *, operating_point: str = ...) -> list[Prediction]: ...
    def predict(
        self, x: Source | list[Any] | tuple[Any, ...], *, operating_point: str = "balanced"
    ) -> Prediction | list[Prediction]:
        """Return the answer to one picture, or a list of answers to a list of pictures.

        Args:
            x: the path or the bytes of an image file, an array uint8 ``[H, W]`` of gray values, or a list of those.
            operating_point: which of `operating_points` decides.

        Raises:
            ImageError: a file is no image that pneumolib reads; the message names it.
            DataError: an array is not uint8 ``[H, W]``.
            ConfigError: there is no such operating point.

        Examples:
            >>> detector = load_detector("runs/first")                                # doctest: +SKIP
            >>> print(detector.predict("x-ray.jpeg"))                                 # doctest: +SKIP
            x-ray.jpeg: pneumonia, probability 0.973 (threshold 0.512, balanced)
        """
        self._require_point(operating_point)
        if isinstance(x, list | tuple):
            return self._predict(x, operating_point) if x else []
        return self._predict([x], operating_point)[0]

    def _predict(self, sources: Sequence[Source], operating_point: str) -> list[Prediction]:
        images = np.stack([self.prepare(source) for source in sources])
        return self._answers(sources, images, self._light.look(images), operating_point)

    def predict_with_features(
        self, x: Source, *, operating_point: str = "balanced"
    ) -> tuple[Prediction, NDArray[np.float32]]:
        """Return the answer to one picture and the feature map behind it, float32 ``[h, w, K]``, in one look at it.

        Takes and raises as `predict`; the map is that of `features`.
        """
        self._require_point(operating_point)
        images = self.prepare(x)[None]
        seen = self._light.look(images, maps=True)
        (answer,) = self._answers([x], images, seen, operating_point)
        return answer, seen["maps"][0]

    def _require_point(self, name: str) -> None:
        if name not in self._manifest.operating_points:
            raise ConfigError(
                f"The detector has no such operating point. Allowed: {', '.join(self._manifest.operating_points)}. "
                f"Received: {name!r}"
            )

    def _answers(
        self,
        sources: Sequence[Source],
        images: NDArray[np.uint8],
        seen: Mapping[str, NDArray[np.float32]],
        operating_point: str,
    ) -> list[Prediction]:
        threshold = self._manifest.operating_points[operating_point].threshold
        answers = []
        distances = self._familiarity.distances(seen) if self._familiarity else None
        checks = check_images(images, self._manifest.reference, distances)
        for source, p, check in zip(sources, apply_temperature(seen["logits"], self.temperature), checks, strict=True):
            probability = float(1 - p[0])
            decision: Decision = "pneumonia" if probability >= threshold else "normal"
            answers.append(
                Prediction(
                    path=os.fspath(source) if isinstance(source, str | os.PathLike) else None,
                    probability=probability,
                    decision=decision if check.ok else None,
                    threshold=threshold,
                    operating_point=operating_point,
                    subtypes={n: float(p[i]) for i, n in enumerate(self.class_names) if n in ("bacterial", "viral")},
                    input=check,
                )
            )
        return answers

    def self_check(self) -> float | None:
        """Return by how much P(pneumonia) of a picture made for this differs from what was recorded with the detector.

        None where nothing was recorded. On the machine that it was saved on the difference is 0; elsewhere number
        formats and instruction sets move it by some 1e-6.
        """
        recorded = self._manifest.card.get("self_check")
        return None if recorded is None else abs(self._answer_to_self_check() - float(recorded))

    def self_check_image(self) -> NDArray[np.uint8]:
        """Return the picture that `self_check` is made with, uint8 ``[S, S]``."""
        return self_check_image(self._manifest.reference, self.size)

    def _answer_to_self_check(self) -> float:
        return float(self.probability(self.self_check_image()[None])[0])

    def prepare(self, source: Source) -> NDArray[np.uint8]:
        """Return one picture as the square that the network looks at, uint8 ``[S, S]``; takes and raises as `predict`.

        Prepared, a picture may be given to `predict` again, and stacked with others to `predict_images`.
        """
        if isinstance(source, np.ndarray):
            if source.dtype != np.uint8 or source.ndim != 2 or not source.size:
                raise DataError(
                    "An X-ray given as an array must hold gray values 0 to 255 as uint8 [H, W]. "
                    f"Received: {source.dtype} {list(source.shape)}"
                )
            # A square may have dark edges of its own, which are no bars: what was prepared once is left alone.
            return source if source.shape == (self.size, self.size) else square(source, self.size)
        if not isinstance(source, str | bytes | os.PathLike):
            raise DataError(
                "An X-ray is given as a path, as the bytes of an image file, or as a uint8 array [H, W]. "
                f"Received: {type(source).__name__}"
            )
        return load_square(source, self.size)

    def predict_images(self, images: NDArray[np.uint8], batch_size: int = 32) -> NDArray[np.float32]:
        """Return calibrated P(class), float32 ``[N, C]``, of prepared images.

        Args:
            images: uint8 ``[N, S, S]``, with S the detector's `size`, as `ImageSet.images` gives them.
            batch_size: how many go through the network at a time.

        Raises:
            DataError: wrong number type or shape.
        """
        return apply_temperature(self.logits(images, batch_size), self.temperature)

    def probability(self, images: NDArray[np.uint8], batch_size: int = 32) -> NDArray[np.float32]:
        """Return calibrated P(pneumonia), float32 ``[N]``, of prepared images uint8 ``[N, S, S]``."""
        return 1 - self.predict_images(images, batch_size)[:, 0]

    def logits(self, images: NDArray[np.uint8], batch_size: int = 32) -> NDArray[np.float32]:
        """Return the network's logits, float32 ``[N, C]``, before any temperature, of images uint8 ``[N, S, S]``."""
        return self._light.run(images, "logits", batch_size)

    def features(self, images: NDArray[np.uint8], batch_size: int = 32) -> NDArray[np.float32]:
        """Return the last feature map, float32 ``[N, h, w, K]``; the logits are linear in its mean over space."""
        return self._light.run(images, "features", batch_size)

    def classifier(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return kernel ``[K, C]`` and bias ``[C]``, float32, that make the logits of the mean of `features`.

        Raises:
            ArtifactError: the weights are damaged.
        """
        return self._classifier

    @cached_property
    def _classifier(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        arrays = _arrays(self._read(artifact.WEIGHTS), "weights")
        missing = [name for name in ("logits/kernel", "logits/bias") if name not in arrays]
        if missing:
            raise ArtifactError(f"The detector's weights lack {', '.join(missing)}.")
        kernel, bias = arrays["logits/kernel"].astype(np.float32), arrays["logits/bias"].astype(np.float32)
        # Every caller gets the same arrays.
        kernel.setflags(write=False)
        bias.setflags(write=False)
        return kernel, bias

    def keras_model(self) -> keras.Model:
        """Return a new Keras model, uncompiled, for fine-tuning and gradients.

        It takes float32 ``[B, S, S, 1]`` in 0..255 and gives P(class) before any temperature, equal within 1e-5 to
        the softmax of `logits`.

        Raises:
            MissingExtraError: Keras is not installed.
            ArtifactError: the weights are damaged, or do not fit the architecture.
        """
        from pneumolib.models.resnet import build_model

        arrays = _arrays(self._read(artifact.WEIGHTS), "weights")
        model = build_model(self.config, precision="float32", pretrained=False)
        _set_weights(model, arrays)
        return model

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the detector into `folder`, whole or not at all, over one that stands there.

        Raises:
            ArtifactError: `folder` holds something that is no detector.
        """
        files = {name: self._read(name) for name in self._manifest.files}
        artifact.write_artifact(Path(folder), self._manifest, files)


def load_detector(
    folder: str | os.PathLike[str] | None = None, *, allow_phantom: bool = False, threads: int | None = None
) -> Detector:
    """Return the detector in `folder`, every byte of it checked before it is interpreted.

    Args:
        folder: where `Detector.save` or a training run put it; None takes the one that ships with the package.
        allow_phantom: load one that was trained on synthetic X-rays, whose answers on real ones mean nothing.
        threads: how many threads work on one call; None takes the cores of this machine, at most four.

    Raises:
        DataNotFoundError: there is no detector.
        ArtifactError: it is damaged, altered, of a later version, or a phantom that was not asked for.
    """
    found = _find(folder)
    manifest = artifact.read_manifest(found)
    if manifest.card.get("phantom") and not allow_phantom:
        raise ArtifactError(
            "This detector was trained on synthetic X-rays (phantoms): on real ones its answers mean nothing. "
            f"To load it all the same, pass allow_phantom=True. Received: {found}"
        )
    # Looked at now, though only keras_model() reads it, so that a damaged detector is known at once.
    artifact.read_file(found, manifest, artifact.WEIGHTS)
    return Detector(manifest, partial(artifact.read_file, found, manifest), threads=threads)


def make_detector(
    model: keras.Model,
    config: Config,
    *,
    name: str,
    temperature: float,
    operating_points: Mapping[str, OperatingPoint],
    reference: Mapping[str, Any],
    card: Mapping[str, Any],
    familiarity: Familiarity | None = None,
) -> Detector:
    """Return the detector that answers as `model` does; the light graph is written and compared with Keras.

    Args:
        model: trained, as `build_model` gave it for `config`; weights of any precision become float32.
        config: the settings it was built with.
        name: what reports call it.
        temperature: as `fit_temperature` gives it.
        operating_points: as `choose_operating_points` gives them, ``balanced`` among them.
        reference: as `fit_reference` gives it.
        card: plain values to keep with it; ``phantom`` (bool) marks a detector that has seen synthetic X-rays only.
        familiarity: as `fit_familiarity` gives it; None leaves that signal out of the check of the input.

    Raises:
        DataError: the weights are not finite, or `model` is not what `config` describes.
        ArtifactError: a value is out of range, or the light graph and the Keras model differ.
    """
    from safetensors.numpy import save

    from pneumolib.models.onnx_graph import in_fewest_bytes, to_onnx
    from pneumolib.models.resnet import build_model

    weights = {v.path: np.asarray(w, np.float32) for v, w in zip(model.weights, model.get_weights(), strict=True)}
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise DataError("The model's weights are not finite: its training has diverged. Lower the learning rate.")
    exact = build_model(config, precision="float32", pretrained=False)
    try:
        _set_weights(exact, weights)
    except ArtifactError as error:
        raise DataError(f"The model is not the one that its config describes. {error}") from error
    stored = {path: in_fewest_bytes(array) for path, array in sorted(weights.items())}
    files = {artifact.GRAPH: to_onnx(exact), artifact.WEIGHTS: save(stored)}
    if familiarity is not None:
        files[artifact.FAMILIARITY] = save(dict(sorted(familiarity.arrays.items())))
    manifest = Manifest(
        name=name,
        version=pneumolib.__version__,
        config=config,
        temperature=temperature,
        operating_points=dict(operating_points),
        reference=dict(reference),
        card=dict(card),
        files=artifact.describe_files(files),
    )
    # Through JSON, so that what was just made is what a load will give.
    detector = Detector(artifact.parse_manifest(manifest.to_json()), files.__getitem__)
    _require_parity(detector, exact)
    recorded = {**manifest.card, "self_check": detector._answer_to_self_check()}
    manifest = dataclasses.replace(manifest, card=recorded)
    return Detector(artifact.parse_manifest(manifest.to_json()), files.__getitem__)


def _find(folder: str | os.PathLike[str] | None) -> Path:
    if folder is None:
        bundled = Path(str(importlib.resources.files(pneumolib))) / "weights"
        if not (bundled / artifact.MANIFEST).exists():
            raise DataNotFoundError(
                f"pneumolib {pneumolib.__version__} ships without a detector. Train one (pneumolib train --help) and "
                "pass its folder: load_detector(FOLDER), or --detector FOLDER on the command line."
            )
        return bundled
    for candidate in (Path(folder), Path(folder) / "detector"):
        if any((candidate / name).exists() for name in (artifact.MANIFEST, artifact.GRAPH, artifact.WEIGHTS)):
            return candidate
    raise DataNotFoundError(
        "There is no detector there. Allowed: the folder of a detector (with manifest.json), or the folder of a "
        f"finished run. Received: {os.fspath(folder)}"
    )


def _arrays(content: bytes, what: str) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"The detector's {what} are no safetensors: {error}") from error


def _set_weights(model: keras.Model, arrays: Mapping[str, NDArray[Any]]) -> None:
    wanted = {variable.path: variable for variable in model.weights}
    shapes = {path: tuple(variable.shape) for path, variable in wanted.items()}
    if {path: tuple(array.shape) for path, array in arrays.items()} != shapes:
        odd = sorted(p for p in {*shapes, *arrays} if p not in arrays or shapes.get(p) != tuple(arrays[p].shape))
        raise ArtifactError(
            f"The weights do not fit the architecture {model.name}: {len(odd)} are missing, too many or of another "
            f"shape, the first is {odd[0]}."
        )
    for path, array in arrays.items():
        if array.dtype not in (np.float32, np.float16):
            raise ArtifactError(f"Weights are stored as float32 or float16. Received: {array.dtype} for {path}")
        wanted[path].assign(array.astype(np.float32))


def _require_parity(detector: Detector, exact: keras.Model) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 8, 8), dtype=np.uint8)
    images = np.stack([square(image, detector.size) for image in coarse])
    with runtime.quiet():
        expected = np.asarray(exact(images[..., None].astype(np.float32), training=False))
    difference = float(np.abs(apply_temperature(detector.logits(images), 1.0) - expected).max())
    if not difference <= PARITY:
        raise ArtifactError(
            f"The light graph and the Keras model differ by {difference:.2g} in a probability; {PARITY:g} is allowed."
        )
