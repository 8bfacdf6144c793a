"""The work on one picture, without a decoding process: what is drawn, and what each failure is called."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pneumolib import errors
from pneumolib.data.images import Film, find_film, square
from pneumolib.evaluation.overlay import layer, overlay, png
from pneumolib.models.detector import Detector
from pneumolib.models.explain import heat_maps
from pneumolib.serving.decoder import Decoded, DecoderLost, DecoderMissing
from pneumolib.serving.problems import Problem
from pneumolib.serving.work import SELF_CHECK, Options, look, warm_up


class Stub:
    """A decoder that gives, or raises, what it is told to."""

    def __init__(self, outcome: Decoded | Exception) -> None:
        self.outcome, self.asked = outcome, list[bool]()

    def decode(self, content: bytes, *, picture: bool = False) -> Decoded:
        self.asked.append(picture)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome if picture else replace(self.outcome, picture=None)


@pytest.fixture(scope="module")
def decoded(detector: Detector, pixels: np.ndarray) -> Decoded:
    return Decoded(square(pixels, detector.size), Film(), pixels, 0.0)


def test_the_answer_is_the_detectors(detector: Detector, decoded: Decoded) -> None:
    stub: Any = Stub(decoded)
    found = look(detector, stub, b"", Options(operating_point="high_sensitivity"))
    assert found.prediction == detector.predict(decoded.square, operating_point="high_sensitivity")
    assert found.heatmap is found.picture is None
    assert stub.asked == [False]
    assert min(found.decode_seconds, found.inference_seconds, found.heatmap_seconds) >= 0


@pytest.mark.parametrize("kind", ["layer", "overlay"])
def test_a_heat_map_is_drawn_as_elsewhere(detector: Detector, decoded: Decoded, kind: Any) -> None:
    stub: Any = Stub(decoded)
    found = look(detector, stub, b"", Options(heatmap=kind))
    (heat,) = heat_maps(detector, decoded.square[None])
    assert decoded.picture is not None
    expected = layer(heat) if kind == "layer" else overlay(decoded.picture, heat)
    assert found.heatmap is not None
    assert found.heatmap.data == png(expected)
    assert (found.heatmap.height, found.heatmap.width) == expected.shape[:2]
    assert found.picture is None
    assert stub.asked == [kind == "overlay"]


def test_the_heat_stays_on_the_film_of_a_padded_picture(detector: Detector, decoded: Decoded) -> None:
    assert decoded.picture is not None
    rows = len(decoded.picture)
    padded = np.pad(decoded.picture, [(rows // 2, rows // 2), (0, 0)])
    stub: Any = Stub(replace(decoded, film=find_film(padded), picture=padded))
    (heat,) = heat_maps(detector, decoded.square[None])
    drawn = look(detector, stub, b"", Options(heatmap="overlay")).heatmap
    assert drawn is not None
    seen = np.asarray(Image.open(io.BytesIO(drawn.data)))
    assert (seen[: rows // 2] == 0).all()
    np.testing.assert_array_equal(seen[rows // 2 : rows // 2 + rows], overlay(decoded.picture, heat))
    alone = look(detector, stub, b"", Options(heatmap="layer")).heatmap
    assert alone is not None
    opacity = np.asarray(Image.open(io.BytesIO(alone.data)))[..., 3]
    assert opacity.shape == heat.shape
    edge = round(detector.size * (rows // 2) / len(padded))
    assert not opacity[:edge].any()
    assert not opacity[-edge + 1 :].any()
    assert opacity[edge:-edge].max() >= 0.9 * layer(heat)[..., 3].max()


def test_the_picture_is_given_as_it_was_read(detector: Detector, decoded: Decoded) -> None:
    stub: Any = Stub(decoded)
    shown = look(detector, stub, b"", Options(picture=True)).picture
    assert shown is not None
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shown.data))), decoded.picture)


def test_no_heat_map_of_what_is_refused(detector: Detector, decoded: Decoded) -> None:
    stub: Any = Stub(replace(decoded, square=255 - decoded.square))
    found = look(detector, stub, b"", Options(heatmap="overlay"))
    assert found.prediction.decision is found.heatmap is None


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (errors.ImageError("damaged"), "undecodable_image"),
        (errors.ImageTooLargeError("large"), "image_too_large"),
        (errors.UnsupportedImageError("foreign"), "unsupported_media_type"),
        (errors.MissingExtraError("pip install it"), "unsupported_media_type"),
        (DecoderLost("took too long"), "undecodable_image"),
        (DecoderMissing("no process"), "not_ready"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_each_failure_of_decoding_has_its_code_and_its_words(detector: Detector, raised: Exception, code: str) -> None:
    stub: Any = Stub(raised)
    with pytest.raises(Problem) as problem:
        look(detector, stub, b"", Options())
    assert problem.value.code == code
    assert str(raised) in problem.value.detail


def test_what_is_no_failure_of_decoding_is_not_taken_for_one(detector: Detector) -> None:
    stub: Any = Stub(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        look(detector, stub, b"", Options())


# === The self-check ===


class Off:
    """The detector, but with another answer to its own picture."""

    def __init__(self, detector: Detector, difference: float | None) -> None:
        self._detector, self._difference = detector, difference

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detector, name)

    def self_check(self) -> float | None:
        return self._difference


@pytest.mark.parametrize("difference", [None, 0.0, SELF_CHECK])
def test_it_is_passed_by_the_answer_that_was_recorded(detector: Detector, difference: float | None) -> None:
    off: Any = Off(detector, difference)
    stub: Any = Stub(Decoded(detector.self_check_image(), Film(), None, 0.0))
    assert warm_up(off, stub) == difference


@pytest.mark.parametrize("difference", [1.01 * SELF_CHECK, 1.0, float("nan")])
def test_it_is_failed_by_another_answer(detector: Detector, difference: float) -> None:
    off: Any = Off(detector, difference)
    stub: Any = Stub(Decoded(detector.self_check_image(), Film(), None, 0.0))
    with pytest.raises(errors.ArtifactError, match=r"differs by .* allowed"):
        warm_up(off, stub)


def test_it_is_failed_by_other_pixels(detector: Detector) -> None:
    stub: Any = Stub(Decoded(detector.self_check_image() ^ 1, Film(), None, 0.0))
    with pytest.raises(errors.ArtifactError, match="pixels"):
        warm_up(detector, stub)
