"""The work on one picture: decode it, ask the detector, draw what is wanted."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumolib import errors
from pneumolib.evaluation.overlay import layer, overlay, png
from pneumolib.models.detector import Detector
from pneumolib.models.explain import heat_of_features, heat_on
from pneumolib.models.prediction import Prediction
from pneumolib.serving.decoder import Decoded, Decoder, DecoderLost, DecoderMissing
from pneumolib.serving.problems import Problem
from pneumolib.serving.schema import HeatmapKind

SELF_CHECK = 1e-4  # a probability may differ from the recorded one by so much; another machine moves it by some 1e-6


@dataclass(frozen=True)
class Options:
    """What is wanted of a picture."""

    operating_point: str = "balanced"
    heatmap: HeatmapKind = "none"
    picture: bool = False


@dataclass(frozen=True)
class Image:
    """A PNG."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Result:
    """What was found, and how long each step took."""

    prediction: Prediction
    heatmap: Image | None
    picture: Image | None
    decode_seconds: float
    inference_seconds: float
    heatmap_seconds: float
    queue_seconds: float = 0.0


def look(detector: Detector, decoder: Decoder, content: bytes, options: Options) -> Result:
    """Return what `detector` finds in the file `content`.

    Raises:
        Problem: the file is none that is read, or there is nothing to decode it with.
    """
    drawn = options.heatmap == "overlay"
    began = time.monotonic()
    decoded = _decoded(decoder, content, picture=options.picture or drawn)
    after_decode = time.monotonic()
    prediction, features = detector.predict_with_features(decoded.square, operating_point=options.operating_point)
    after_inference = time.monotonic()
    heatmap = None
    if options.heatmap != "none" and prediction.input.ok:
        heat = heat_of_features(detector, features)
        if drawn:
            assert decoded.picture is not None
            pixels = overlay(decoded.picture, heat_on(heat, decoded.film, decoded.picture.shape))
        else:
            pixels = layer(heat_on(heat, decoded.film, heat.shape))
        heatmap = _image(pixels)
    shown = _image(decoded.picture) if options.picture and decoded.picture is not None else None
    after_heatmap = time.monotonic()
    return Result(
        prediction=prediction,
        heatmap=heatmap,
        picture=shown,
        decode_seconds=after_decode - began,
        inference_seconds=after_inference - after_decode,
        heatmap_seconds=after_heatmap - after_inference,
    )


def warm_up(detector: Detector, decoder: Decoder) -> float | None:
    """Walk the whole way with a picture whose answer is known; return by how much the answer differs.

    Returns:
        The difference of the probability from the one recorded with the detector; None where none was recorded.

    Raises:
        ArtifactError: the pixels or the answer are not those that were expected.
        DecoderLost, DecoderMissing: there is nothing to decode with.
    """
    image = detector.self_check_image()
    seen = decoder.decode(png(image)).square
    if not np.array_equal(seen, image):
        raise errors.ArtifactError("the decoding process does not give the pixels of a file made for this")
    _, features = detector.predict_with_features(seen)
    overlay(seen, heat_of_features(detector, features))
    difference = detector.self_check()
    if difference is not None and not difference <= SELF_CHECK:
        raise errors.ArtifactError(
            f"the detector's answer to a picture made for this differs by {difference:.2g} from the one recorded when "
            f"it was saved; {SELF_CHECK:g} is allowed"
        )
    return difference


def _decoded(decoder: Decoder, content: bytes, *, picture: bool) -> Decoded:
    try:
        return decoder.decode(content, picture=picture)
    except DecoderLost as error:
        raise Problem("undecodable_image", f"image: decoding it {error}.") from error
    except DecoderMissing as error:
        raise Problem("not_ready", f"The server cannot look at the picture: {error}.") from error
    except errors.ImageTooLargeError as error:
        raise Problem("image_too_large", str(error)) from error
    except (errors.UnsupportedImageError, errors.MissingExtraError) as error:
        raise Problem("unsupported_media_type", str(error)) from error
    except errors.ImageError as error:
        raise Problem("undecodable_image", str(error)) from error


def _image(pixels: NDArray[np.uint8]) -> Image:
    return Image(png(pixels), width=pixels.shape[1], height=pixels.shape[0])
