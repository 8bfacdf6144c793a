"""What speaks for pneumonia on a picture, place by place: heat maps of a detector and of any Keras model.

A heat map shows where the network found what it answers by. It does not show the disease: it may be wrong where the
answer is right, and a network that has learnt a shortcut shows that. `randomisation_check` here, and
`pneumolib.evaluation.faithfulness`, put numbers to how far a map is to be believed.

What is explained is the logarithm of the odds of a target. With the logits z, divided by the temperature, the
log-odds of pneumonia are ``log(exp z_bacterial + exp z_viral) - z_normal``, which are those of the calibrated
probability. Their derivatives say how much each logit counts: -1 for normal, and for the two subtypes their shares of
the pneumonia. With two classes it is the difference of the logits.

Two methods need neither gradients nor TensorFlow:

``cam``
    The class activation map (Zhou et al. 2016, arXiv:1512.04150): the logits are linear in the mean of the last feature
    map, so each of its places has log-odds of its own, and their mean is the answer. Grad-CAM (Selvaraju et al. 2017,
    arXiv:1610.02391) and HiResCAM (Draelos and Carin 2020, arXiv:2011.08891) at that layer are the same map here, since
    the gradient of a mean is the same everywhere. It takes one look at the picture, and has 5 x 5 places at 160 pixels.
``replacement``
    What the log-odds lose when a place is taken from normal X-rays instead: occlusion (Zeiler and Fergus 2014,
    arXiv:1311.2901) with soft windows, by what would have to be there for another answer (Goyal et al. 2019,
    arXiv:1904.07451). Gray or blurred windows will not do: to these networks a blurred X-ray of a healthy child is
    pneumonia, since they find the normal ones by their clear lungs. It takes a hundred looks for each normal X-ray
    given. Chosen because deletion and insertion follow it best (``benchmarks/explanation.py``, where ``cam`` and
    Grad-CAM at finer layers fall short of it). It shows where a change would change the answer, and with the detector
    that ships that is no more often in the lungs than elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.data.images import Film, find_film
from pneumolib.errors import ConfigError, DataError
from pneumolib.evaluation.faithfulness import rank_correlation
from pneumolib.models.detector import Detector, Source
from pneumolib.models.prediction import Prediction

if TYPE_CHECKING:
    import keras

METHODS = ("cam", "replacement")
# Log-odds at which a place is as hot as can be, where none has more: without it, the least cold place of a normal
# picture would glow. Of `cam` they are those of the place by itself, of `replacement` what it takes away.
FULL_HEAT = {"cam": 3.0, "replacement": 1.0}
# The pixel that the first place of a feature map looks at, where the middle of that place would be 15.5. On the short
# cut of a residual block a stride of two takes the first of two pixels, and there lies what the gradients come from, at
# 160 pixels about 10 up and left of the middles. Maps that are drawn in the middles do worse by deletion.
FIRST_PLACE = 3.0
WINDOWS = 10  # a side; replaced one after the other
BATCH = 32

_Maps = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Which places of a picture speak for a target, beside the answer; `explain` makes it.

    Attributes:
        heat: how much a place speaks for the target, float32 ``[S, S]`` in 0..1, on the square that the detector looks
            at; `on` lays it on the picture that the square was made of.
        evidence: the same in log-odds, float32 ``[S, S]``; below 0 where a place speaks against the target.
        image: the square, uint8 ``[S, S]``.
        method: one of `METHODS`.
        target: what the places speak for.
        prediction: the answer; where its `input` is not ok, the heat means nothing either.
        phantom: the detector was trained on synthetic X-rays.
    """

    heat: _Maps = field(repr=False)
    evidence: _Maps = field(repr=False)
    image: NDArray[np.uint8] = field(repr=False)
    method: str
    target: str
    prediction: Prediction
    phantom: bool

    @property
    def probability(self) -> float:
        """The calibrated P(pneumonia) of the prediction."""
        return self.prediction.probability

    def on(self, picture: NDArray[np.uint8]) -> _Maps:
        """Return the heat on the whole picture, float32 ``[H, W]`` in 0..1; 0 in black bars, which are not looked at.

        Args:
            picture: that which was explained, as `decode` gives it, uint8 ``[H, W]``, at any size.

        Examples:
            >>> picture = pn.decode("x-ray.jpeg")                                     # doctest: +SKIP
            >>> plots.plot_heatmap(picture, found.on(picture))                        # doctest: +SKIP
        """
        whole = picture.shape == self.image.shape and np.array_equal(picture, self.image)
        return heat_on(self.heat, Film() if whole else find_film(picture), picture.shape)


def heat_on(heat: _Maps, film: Film, shape: tuple[int, ...]) -> _Maps:
    """Return the heat of a square on a picture ``[H, W]`` of that shape, of which `film` is on the square."""
    import cv2

    rows, columns = film.window(shape)
    side = (columns.stop - columns.start, rows.stop - rows.start)
    result = np.zeros(shape, np.float32)
    result[rows, columns] = heat if heat.shape == side[::-1] else cv2.resize(heat, side, interpolation=cv2.INTER_LINEAR)
    return result


def explain(
    detector: Detector,
    x: Source,
    *,
    method: str = "cam",
    target: str = "pneumonia",
    normal: NDArray[np.uint8] | None = None,
    operating_point: str = "balanced",
) -> Explanation:
    """Return which places of one picture speak for pneumonia, without TensorFlow.

    Args:
        detector: as `load_detector` or `Run.detector` gives it.
        x: what `Detector.predict` takes: a path, the bytes of an image file, or an array uint8 ``[H, W]``.
        method: ``cam`` takes as long as a prediction, ``replacement`` as hundreds; see the module for both.
        target: ``pneumonia``, or one of the detector's classes.
        normal: uint8 ``[R, S, S]``, prepared X-rays without the target, which ``replacement`` takes its places from;
            two or three that the detector itself calls normal will do.
        operating_point: by which the prediction decides; the heat does not depend on it.

    Raises:
        ImageError: the file is no image that pneumolib reads.
        DataError: an array is not uint8 ``[H, W]``.
        ConfigError: there is no such method, target or operating point, or ``replacement`` comes without normal X-rays.
        ArtifactError: the detector's weights are damaged.

    Examples:
        >>> found = explain(load_detector("runs/first"), "x-ray.jpeg")                # doctest: +SKIP
        >>> plots.plot_heatmap(found.image, found.heat)                               # doctest: +SKIP
    """
    net, members = _Net.of(detector), _members(target, detector.class_names)
    # From the square, which is what the detector makes of any picture, so that a large file is decoded once.
    image = detector.prepare(x)
    answer, features = detector.predict_with_features(image, operating_point=operating_point)
    if method == "cam":
        evidence = _cam(net, features, image.shape, members)
    else:
        evidence = _evidence(net, image[None], method, members, normal)[0]
    answer = replace(answer, path=os.fspath(x) if isinstance(x, str | os.PathLike) else None)
    return Explanation(
        heat=_heat(evidence[None], FULL_HEAT[method])[0],
        evidence=evidence,
        image=image,
        method=method,
        target=target,
        prediction=answer,
        phantom=bool(detector.card.get("phantom")),
    )


def heat_maps(
    detector: Detector,
    images: NDArray[np.uint8],
    *,
    method: str = "cam",
    target: str = "pneumonia",
    normal: NDArray[np.uint8] | None = None,
) -> _Maps:
    """Return the heat of prepared images, float32 ``[N, S, S]`` in 0..1, as `explain` gives it for one picture.

    Args:
        detector: as `load_detector` or `Run.detector` gives it.
        images: uint8 ``[N, S, S]``, with S the detector's `size`, as `ImageSet.images` gives them.
        method: one of `METHODS`.
        target: ``pneumonia``, or one of the detector's classes.
        normal: as in `explain`.

    Raises:
        DataError: wrong number type or shape.
        ConfigError: there is no such method or target, or ``replacement`` comes without normal X-rays.
    """
    evidence = _evidence(_Net.of(detector), images, method, _members(target, detector.class_names), normal)
    return _heat(evidence, FULL_HEAT[method])


def heat_of_features(detector: Detector, features: _Maps, *, target: str = "pneumonia") -> _Maps:
    """Return the heat, float32 ``[S, S]`` in 0..1, of a picture that the detector has looked at already.

    It is that of `heat_maps` with ``cam``, which needs no second look.

    Args:
        detector: as `load_detector` or `Run.detector` gives it.
        features: float32 ``[h, w, K]``, as its `predict_with_features` gives them.
        target: ``pneumonia``, or one of the detector's classes.

    Raises:
        ConfigError: there is no such target.
    """
    members = _members(target, detector.class_names)
    evidence = _cam(_Net.of(detector), features, (detector.size, detector.size), members)
    return np.asarray(_heat(evidence[None], FULL_HEAT["cam"])[0])


def grad_cam(
    model: keras.Model, images: NDArray[Any], *, layer: str | None = None, target: str | Sequence[int] = "pneumonia"
) -> _Maps:
    """Return Grad-CAM of a Keras model, float32 ``[N, H, W]`` in 0..1 (Selvaraju et al. 2017, arXiv:1610.02391).

    The feature map of `layer` is summed over its channels, each weighted by the mean gradient of the target's log-odds
    with respect to it. What is below 0 is left out, and the hottest place of each picture is 1, however little it says
    (`explain` tells a picture on which nothing speaks for the target).

    It works on every network of `build_model`, and on a model that holds another one, such as a backbone of
    `keras.applications` called as a layer: the feature map is caught as the model computes it, so no second graph has
    to be cut out of the first ("Graph disconnected", github.com/tensorflow/tensorflow/issues/44462).

    Args:
        model: takes float32 ``[B, H, W, 1]`` (or as many channels as `images` have) and gives P(class) ``[B, C]``, or
            P(pneumonia) ``[B, 1]``. Where a layer is called ``logits``, its output is taken, which does not saturate.
        images: ``[N, H, W]`` or ``[N, H, W, channels]``, of the range that the model takes.
        layer: name of the layer, inside a nested model or not; None takes the last one with a map for its output.
        target: ``pneumonia`` is every class but the first; or the numbers of the classes that count as the target.

    Raises:
        ConfigError: Keras runs on another backend than TensorFlow, there is no such layer, or the target is no class.
        DataError: `images` or the model's output have another number of dimensions, or the map does not reach it.

    Examples:
        >>> from pneumolib import Config, build_model
        >>> model = build_model(Config.preset("ci"), precision="float32")
        >>> grad_cam(model, np.zeros((2, 64, 64), np.uint8)).shape
        (2, 64, 64)
    """
    return _heat(_gradient_evidence(model, images, layer, target), 1e-12)


def randomisation_check(
    detector: Detector,
    images: NDArray[np.uint8],
    *,
    method: str = "cam",
    target: str = "pneumonia",
    normal: NDArray[np.uint8] | None = None,
    draws: int = 5,
    seed: int = 0,
) -> dict[str, float]:
    """Return how like its map stays when the network forgets: rank correlation of evidence, -1..1.

    Adebayo et al. (2018, arXiv:1810.03292) found maps that hardly change when the weights are drawn anew: they show
    the picture, not what was learnt. A map that can be believed is near 0 here, in the mean over images and draws;
    single draws are not, since a map may be kept or turned over by chance.

    Args:
        detector: as `load_detector` or `Run.detector` gives it.
        images: uint8 ``[N, S, S]``, prepared.
        method: one of `METHODS`.
        target: ``pneumonia``, or one of the detector's classes.
        normal: as in `explain`.
        draws: how often new weights are drawn, 1 or more.
        seed: of the first draw; the others follow it.

    Returns:
        ``{"classifier": r, "network": r}``: with only the last layer drawn anew, and with all of them.

    Raises:
        DataError: there is no image, or wrong number type or shape.
        ConfigError: there is no such method or target, or `draws` is less than 1.
        MissingExtraError: Keras is not installed.
    """
    if not len(images):
        raise DataError("The check needs at least one image. Received: none")
    if draws < 1:
        raise ConfigError(f"draws must be 1 or more. Received: {draws!r}")
    members = _members(target, detector.class_names)
    trained = _Net.of(detector)
    before = _evidence(trained, images, method, members, normal)
    found: dict[str, list[float]] = {"classifier": [], "network": []}
    for draw in range(seed, seed + draws):
        drawn = np.random.default_rng(draw).standard_normal(trained.kernel.shape)
        # As large as the trained kernel: only what it says is lost.
        kernel = (drawn * trained.kernel.std()).astype(np.float32)
        for name, net in (("classifier", replace(trained, kernel=kernel)), ("network", _untrained(detector, draw))):
            after = _evidence(net, images, method, members, normal)
            found[name] += [rank_correlation(a, b) for a, b in zip(before, after, strict=True)]
    return {name: float(np.mean(values)) for name, values in found.items()}


@dataclass(frozen=True)
class _Net:
    """A network whose logits are linear in the mean of its last feature map: what the light methods need of it."""

    features: Callable[[NDArray[np.uint8]], _Maps]
    kernel: NDArray[np.float32]  # [K, C]
    bias: NDArray[np.float32]  # [C]
    temperature: float
    margin: int  # pixels at each edge that it does not look at

    @classmethod
    def of(cls, detector: Detector) -> _Net:
        kernel, bias = detector.classifier()
        return cls(detector.features, kernel, bias, detector.temperature, detector.config.margin_pixels)

    def logits(self, features: _Maps) -> _Maps:
        return np.asarray((features.mean((1, 2)) @ self.kernel + self.bias) / self.temperature, np.float32)


def _untrained(detector: Detector, seed: int) -> _Net:
    from pneumolib.models.resnet import build_model

    keras = runtime.keras()
    with runtime.seeded(seed):
        model = build_model(detector.config, precision="float32", pretrained=False)
    maps = keras.Model(model.input, model.get_layer("features").output)

    def features(images: NDArray[np.uint8]) -> _Maps:
        batches = [images[i : i + BATCH, ..., None].astype(np.float32) for i in range(0, len(images), BATCH)]
        return np.concatenate([np.asarray(maps(batch, training=False)) for batch in batches])

    kernel, bias = model.get_layer("logits").get_weights()
    return _Net(features, kernel, bias, detector.temperature, detector.config.margin_pixels)


def _members(target: str, class_names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which classes count as the target."""
    names = np.array(class_names)
    if target == "pneumonia":
        return names != "normal"
    if target not in class_names:
        allowed = ", ".join(dict.fromkeys(["pneumonia", *class_names]))
        raise ConfigError(f"There is nothing of that name to explain. Allowed: {allowed}. Received: {target!r}")
    return np.asarray(names == target)


def _evidence(
    net: _Net,
    images: NDArray[np.uint8],
    method: str,
    members: NDArray[np.bool_],
    normal: NDArray[np.uint8] | None,
) -> _Maps:
    """Return how much each place speaks for the target, in log-odds, float32 ``[N, S, S]``."""
    if method not in METHODS:
        raise ConfigError(f"There is no such method. Allowed: {', '.join(METHODS)}. Received: {method!r}")
    if method == "replacement" and (normal is None or not len(normal)):
        raise ConfigError("The method 'replacement' needs normal X-rays, normal=uint8 [R, S, S]. Received: none")
    if not len(images):
        # A look at none, so that what is no prepared image is refused in the detector's words.
        return np.empty((*net.features(images).shape[:1], *images.shape[1:]), np.float32)
    if method == "cam":
        return np.stack([_cam(net, net.features(image[None])[0], image.shape, members) for image in images])
    assert normal is not None
    return np.stack([_enlarged(_replacement(net, image, members, normal), image.shape) for image in images])


def _cam(net: _Net, features: _Maps, shape: tuple[int, ...], members: NDArray[np.bool_]) -> _Maps:
    """Return the log-odds of each place of a feature map ``[h, w, K]``, at the size of the picture."""
    weights = _slopes(net.logits(features[None]), members)[0]
    places = (features @ (net.kernel @ weights) + net.bias @ weights) / net.temperature
    return _enlarged(np.asarray(places, np.float32), shape, FIRST_PLACE, net.margin)


def _replacement(net: _Net, image: NDArray[np.uint8], members: NDArray[np.bool_], normal: NDArray[np.uint8]) -> _Maps:
    before = _log_odds(net.logits(net.features(image[None])), members)
    if normal.dtype != np.uint8 or normal.shape[1:] != image.shape:
        raise DataError(
            f"Normal X-rays are prepared as the image is, uint8 [R, {len(image)}, {len(image)}]. "
            f"Received: {normal.dtype} {list(normal.shape)}"
        )
    side = len(image)
    places = (np.arange(WINDOWS) + 0.5) * side / WINDOWS - 0.5
    along = np.exp(-0.5 * ((np.arange(side) - places[:, None]) / (0.075 * side)) ** 2).astype(np.float32)
    windows = np.minimum(1.5 * along[:, None, :, None] * along[None, :, None, :], 1).reshape(-1, side, side)
    losses = []
    for other in normal:
        replaced = np.rint(image + windows * (other.astype(np.float32) - image)).astype(np.uint8)
        losses.append(before - _log_odds(net.logits(net.features(replaced)), members))
    return np.asarray(np.mean(losses, axis=0), np.float32).reshape(WINDOWS, WINDOWS)


def _log_odds(logits: _Maps, members: NDArray[np.bool_]) -> _Maps:
    return np.asarray(
        np.logaddexp.reduce(logits[:, members], axis=1) - np.logaddexp.reduce(logits[:, ~members], axis=1)
    )


def _slopes(logits: _Maps, members: NDArray[np.bool_]) -> _Maps:
    """Return the derivatives of the log-odds with respect to the logits, ``[N, C]``; they add up to 0."""
    slopes = np.empty_like(logits)
    for mask, sign in ((members, 1), (~members, -1)):
        part = logits[:, mask]
        share = np.exp(part - part.max(1, keepdims=True))
        slopes[:, mask] = sign * share / share.sum(1, keepdims=True)
    return slopes


def _enlarged(low: _Maps, shape: tuple[int, ...], first: float | None = None, margin: int = 0) -> _Maps:
    """Return a map at the size of the picture; `first` is the pixel that its first place looks at, None the middle.

    The map is of what lies inside the margin, in pixels; nothing in the margin speaks for or against anything.
    """
    import cv2

    if margin:
        return np.pad(_enlarged(low, (shape[0] - 2 * margin, shape[1] - 2 * margin), first), margin)
    down, right = (side / places for side, places in zip(shape[:2], low.shape, strict=True))
    top, left = ((step - 1) / 2 if first is None else first for step in (down, right))
    way = np.array([[right, 0, left], [0, down, top]], np.float32)
    # Not cubic, which would make a place beside a cold one hotter than it is.
    large = cv2.warpAffine(low, way, shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(large, np.float32)


def _heat(evidence: _Maps, full: float) -> _Maps:
    peak = np.maximum(evidence.max((1, 2), initial=0, keepdims=True), full)
    return np.asarray(np.clip(evidence / peak, 0, 1), np.float32)


# === Gradients ===


def _gradient_evidence(
    model: keras.Model, images: NDArray[Any], layer: str | None, target: str | Sequence[int]
) -> _Maps:
    from pneumolib.models.resnet import MARGIN

    keras = runtime.keras()
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(
            "Grad-CAM takes its gradients from TensorFlow. Set KERAS_BACKEND=tensorflow before Keras is imported, or "
            f"use pneumolib.explain, which needs none. Received: {keras.backend.backend()}"
        )
    pictures = np.asarray(images, np.float32)
    pictures = pictures[..., None] if pictures.ndim == 3 else pictures
    if pictures.ndim != 4:
        raise DataError(f"Images are [N, H, W] or [N, H, W, channels]. Received: shape {list(np.shape(images))}")
    chosen = _layer_of(model, layer)
    # A network of this package; what the places of others look at is not known here.
    first = FIRST_PLACE if any(part.name == "features" for part in model.layers) else None
    margin = next((part.cropping[0][0] for part in model.layers if part.name == MARGIN), 0)
    maps = [
        _enlarged(low, pictures.shape[1:3], first, margin)
        for start in range(0, len(pictures), BATCH)
        for low in _weighted(model, chosen, pictures[start : start + BATCH], target)
    ]
    return np.stack(maps) if maps else np.empty(pictures.shape[:3], np.float32)


def _weighted(model: keras.Model, layer: Any, pictures: _Maps, target: str | Sequence[int]) -> _Maps:
    """Return the maps of one batch at the size of the layer's output, float32 ``[B, h, w]``."""
    tf = runtime.tensorflow()
    scores = next((part for part in _layers(model) if part.name == "logits"), None)
    with tf.GradientTape(watch_accessed_variables=False) as tape, _caught(tape, layer, scores) as seen:
        answer = model(tf.constant(pictures), training=False)
        values = tf.cast(seen[scores], tf.float32) if scores in seen else _logits_of(answer, tf)
        members = _chosen(target, int(values.shape[-1]))
        odds = tf.reduce_logsumexp(tf.boolean_mask(values, members, axis=1), 1)
        odds -= tf.reduce_logsumexp(tf.boolean_mask(values, ~members, axis=1), 1)
    features = seen.get(layer)
    slopes = None if features is None else tape.gradient(odds, features)
    if slopes is None or features is None or len(features.shape) != 4:
        raise DataError(f"No map of the layer {layer.name!r} reaches the answer. Allowed: one with output [B, h, w, K]")
    maps, slopes = np.asarray(tf.cast(features, tf.float32)), np.asarray(tf.cast(slopes, tf.float32))
    # Times the number of places, so that the mean over them is what the layer gives to the log-odds, as in `cam`.
    weights = slopes.mean((1, 2)) * maps.shape[1] * maps.shape[2]
    return np.asarray(np.einsum("nhwk,nk->nhw", maps, weights), np.float32)


def _logits_of(answer: Any, tf: Any) -> Any:
    """Return numbers whose softmax is the model's answer."""
    p = tf.cast(answer, tf.float32)
    if len(p.shape) != 2:
        raise DataError(f"The model must give P(class) [B, C] or P(pneumonia) [B, 1]. Received: shape {list(p.shape)}")
    if p.shape[1] == 1:
        p = tf.concat([1 - p, p], axis=1)
    return tf.math.log(tf.maximum(p, 1e-7))


def _chosen(target: str | Sequence[int], classes: int) -> NDArray[np.bool_]:
    members = np.zeros(classes, bool)
    if target == "pneumonia":
        members[1:] = True
    elif not isinstance(target, str) and set(target) <= set(range(classes)):
        members[list(target)] = True
    if not members.any() or members.all():
        raise ConfigError(
            f"The target must be 'pneumonia' or some, not all, of the classes 0 to {classes - 1}. Received: {target!r}"
        )
    return members


@contextlib.contextmanager
def _caught(tape: Any, *layers: Any) -> Iterator[dict[Any, Any]]:
    """Inside the block, what the given layers compute is watched by the tape and kept; the last call counts."""
    seen: dict[Any, Any] = {}

    def catching(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def caught(*args: Any, **kwargs: Any) -> Any:
            seen[layer] = call(*args, **kwargs)
            tape.watch(seen[layer])
            return seen[layer]

        return caught

    changed = dict.fromkeys(layer for layer in layers if layer is not None)
    for layer in changed:
        # On the instance, beside Keras's own bookkeeping of attributes, which is not for functions.
        object.__setattr__(layer, "call", catching(layer, layer.call))
    try:
        yield seen
    finally:
        for layer in changed:
            object.__delattr__(layer, "call")


def _layers(model: Any) -> Iterator[Any]:
    """Yield the layers of a model in order, those of a model inside it in its place."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        else:
            yield layer


def _layer_of(model: keras.Model, name: str | None) -> Any:
    """Return the layer of that name, or the last whose output is a map with more than one place."""
    found = [layer for layer in _layers(model) if name is None or layer.name == name]
    if name is None:
        found = [layer for layer in found if _has_map(layer)]
    if not found:
        maps = [layer.name for layer in _layers(model) if _has_map(layer)]
        raise ConfigError(
            f"There is no such layer. Allowed: one of {len(maps)} with a feature map, such as {', '.join(maps[-3:])}. "
            f"Received: {name!r}"
        )
    return found[-1]


def _has_map(layer: Any) -> bool:
    try:
        return len(layer.output.shape) == 4
    except (AttributeError, ValueError):  # it was never called, or has several outputs
        return False
