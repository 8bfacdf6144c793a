"""Augmentation whose chance is a function of (seed, epoch, image) alone.

A resumed run therefore sees exactly what an uninterrupted one would have seen, and any image of any epoch can be drawn
again for inspection. It runs on the CPU while the accelerator computes: Keras's geometric augmentation layers, put into
the model, switch XLA off, and their state would have to be saved (``benchmarks/feeding.py`` compares the places).

The steps follow the order in which an X-ray comes into being: the device's gray curve (tone), what is written on the
film and where it ends (letters, cut), the child's position (affine, mirror), the exposure (brightness, contrast,
gamma), the detector (blur, resolution, noise), the file (JPEG), the frame (border). The curve comes first, since it is
drawn from the picture's own grays, which black corners of a turned picture would falsify.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumolib.errors import ConfigError, DataError

REASONS: dict[str, str] = {
    "tone": "each device spreads the grays in its own way; most pneumonia of this set went through one of them",
    "rotation": "children are rarely straight on the table; the diagnosis does not turn with them",
    "scale": "size and shape of the chest vary with age, and the stretch to a square must not tell the class",
    "shear": "an oblique tube or a leaning child shears the picture",
    "translation": "the lungs are not always in the middle of the film",
    "mirror": "pneumonia occurs on both sides; the heart's side and the marker must not matter",
    "brightness": "exposure differs from device to device",
    "contrast": "contrast differs between the halves of this data set; a net that relies on it fails on the test",
    "gamma": "look-up tables of devices bend the gray scale",
    "blur": "removes the finest detail, where traces of JPEG quality hide",
    "resolution": "the originals of the classes have different sizes; down-and-up scaling makes sharpness useless",
    "noise": "low dose is grainy",
    "jpeg": "normal and pneumonia were saved at different JPEG quality in train: the strongest shortcut of this set",
    "border": "markers, letters and collimator edges stand at the border; hide them now and then",
    "cut": "where a film ends says who took it; healthy children must not be told by what surrounds the chest",
    "letters": "side markers come in every size and place, and no letter is a finding",
}


@dataclass(frozen=True)
class Augmentation:
    """How strongly each step changes an image; every step that is not set is off.

    The steps of the device's curve, the detector, the file and the frame happen to an image with probability
    `occasional`, the others to every image, each with a strength drawn evenly up to the value given.

    Examples:
        >>> Augmentation(rotation=30).rotation
        30
        >>> Augmentation.preset("medium").mirror
        0.5
    """

    tone: float = 0.0  # largest share of a random gray curve in the picture's own, 0 to 1
    rotation: float = 0.0  # degrees, either way
    scale: float = 0.0  # fraction, each axis by itself, either way
    shear: float = 0.0  # degrees, either way
    translation: float = 0.0  # fraction of the side, each axis, either way
    mirror: float = 0.0  # probability
    brightness: float = 0.0  # fraction of the gray range, either way
    contrast: float = 0.0  # fraction, either way
    gamma: float = 0.0  # exponent between exp(-gamma) and exp(gamma)
    blur: float = 0.0  # largest standard deviation, in pixels of a 160-pixel image
    resolution: float = 1.0  # smallest factor of down-and-up scaling; 1 is off
    noise: float = 0.0  # largest standard deviation, gray levels
    jpeg: int = 100  # lowest quality of re-encoding; 100 is off
    border: float = 0.0  # largest fraction of the side that is hidden at each edge
    cut: float = 0.0  # largest fraction of the side that is cut off at each edge; what is left is stretched
    letters: float = 0.0  # largest height of letters painted in, fraction of the side
    occasional: float = 0.5  # probability of each of tone, blur, resolution, noise, jpeg, border, cut, letters
    position: float = 1.0  # probability of rotation, scale, shear and translation, all together

    def __post_init__(self) -> None:
        upper = dict(tone=1, rotation=180, scale=0.9, shear=60, translation=1, mirror=1, brightness=1, contrast=1)
        upper |= dict(gamma=2, blur=20, noise=128, border=0.5, cut=0.4, letters=0.5, occasional=1, position=1)
        for name, most in upper.items():
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must be 0 to {most}. Received: {getattr(self, name)!r}")
        if not 0 < self.resolution <= 1:
            raise ConfigError(f"resolution must be more than 0 and at most 1. Received: {self.resolution!r}")
        if not 1 <= self.jpeg <= 100:
            raise ConfigError(f"jpeg must be 1 to 100. Received: {self.jpeg!r}")

    @classmethod
    def preset(cls, strength: str) -> Augmentation:
        """Return the settings called `strength`: none to framed; `ConfigError` for another name."""
        if strength not in STRENGTHS:
            raise ConfigError(
                f"There is no augmentation of that strength. Allowed: {', '.join(STRENGTHS)}. Received: {strength!r}"
            )
        return cls(**STRENGTHS[strength])

    @classmethod
    def of(cls, wanted: str | Mapping[str, Any]) -> Augmentation:
        """Return the settings that `Config.augmentation` stands for: a strength, or a mapping of fields to values.

        Raises:
            ConfigError: a name or a value is not allowed.

        Examples:
            >>> Augmentation.of({"rotation": 5}) == Augmentation(rotation=5)
            True
        """
        if isinstance(wanted, str):
            return cls.preset(wanted)
        unknown = sorted(set(wanted) - set(cls.__dataclass_fields__))
        if unknown:
            raise ConfigError(
                f"Augmentation has no such step. Allowed: {', '.join(cls.__dataclass_fields__)}. "
                f"Received: {', '.join(unknown)}"
            )
        return cls(**wanted)

    def active(self) -> dict[str, float]:
        """Return the steps that are on, with their strength, in the order in which they are applied."""
        off = Augmentation()
        return {name: getattr(self, name) for name in REASONS if getattr(self, name) != getattr(off, name)}


STRENGTHS: dict[str, dict[str, Any]] = {
    "none": {},
    "light": dict(rotation=10, scale=0.1, translation=0.05, mirror=0.5, brightness=0.1, contrast=0.1),
    "medium": dict(
        tone=1.0, rotation=30, scale=0.25, translation=0.1, mirror=0.5, brightness=0.2, contrast=0.3, gamma=0.4,
        blur=1.5, border=0.08, occasional=0.5,
    ),
    "strong": dict(
        tone=1.0, rotation=30, scale=0.25, shear=8, translation=0.1, mirror=0.5, brightness=0.25, contrast=0.35,
        gamma=0.3, blur=1.5, resolution=0.4, noise=8, jpeg=30, border=0.08, occasional=0.3,
    ),
}  # fmt: skip
# Three of ten pictures stay straight as they came: where each was turned, a net has never seen a straight one, and
# gives those another probability. In no preset: the README tells what it was worth.
STRENGTHS["framed"] = {**STRENGTHS["strong"], "letters": 0.14, "position": 0.7}


def augment(
    image: NDArray[np.uint8], settings: Augmentation, *, seed: int, epoch: int, index: int
) -> NDArray[np.uint8]:
    """Return `image` as training sees it in that epoch: uint8 ``[S, S]``; equal arguments give equal pixels.

    Args:
        image: gray values, uint8 ``[S, S]``, S at least 8.
        settings: which steps, how strong.
        seed: of the run.
        epoch: from 0.
        index: of the image in the training set.

    Raises:
        DataError: the image is not a square of uint8.

    Examples:
        >>> square = np.full((32, 32), 100, np.uint8)
        >>> a = augment(square, Augmentation(noise=9, occasional=1), seed=0, epoch=3, index=7)
        >>> b = augment(square, Augmentation(noise=9, occasional=1), seed=0, epoch=3, index=7)
        >>> bool((a == b).all()), bool((a == square).all())
        (True, False)
    """
    if image.dtype != np.uint8 or image.ndim != 2 or image.shape[0] != image.shape[1] or image.shape[0] < 8:
        raise DataError(
            "Augmentation takes one gray square, uint8 [S, S] with S of 8 or more. "
            f"Received: {image.dtype} {list(image.shape)}"
        )
    random = random_state(seed, epoch, index)
    # Every step owns its draws, whether or not it is on: switching one step leaves the others as they were.
    draw = random.random(len(_DRAWS))
    u = dict(zip(_DRAWS, draw, strict=True))
    if settings.cut or settings.letters or settings.position < 1:
        later = np.random.Generator(random_state(seed, epoch, index).bit_generator.jumped())  # type: ignore[attr-defined]
        u |= dict(zip(_LATER_DRAWS, later.random(len(_LATER_DRAWS)), strict=True))
    image = _tone(image, settings, u)
    image = _letters(image, settings, u)
    image = _cut(image, settings, u)
    image = _geometry(image, settings, u)
    image = _exposure(image, settings, u)
    return _quality(image, settings, u, random)


def random_state(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator of random numbers that belongs to one image of one epoch (Philox, counter-based)."""
    return np.random.Generator(np.random.Philox(key=[seed, (epoch << 32) | index]))


_DRAWS = (
    *("rotation", "scale_x", "scale_y", "shear", "shift_x", "shift_y", "mirror", "brightness", "contrast", "gamma"),
    *("blur", "blur_on", "resolution", "resolution_on", "noise", "noise_on", "jpeg", "jpeg_on"),
    *("border_left", "border_right", "border_top", "border_bottom", "border_on"),
    *("tone", "tone_dark", "tone_bright", "tone_on"),
)
_LATER_DRAWS = (
    *("cut_left", "cut_right", "cut_top", "cut_bottom", "cut_on", "position"),
    *("letters_on", "letters_height", "letters_x", "letters_y", "letters_gray", "letters_text"),
)
_TEXTS = ("R", "L", "RIGHT", "LEFT", "AP", "PORTABLE", "SUPINE 10:30", "R L")
_TONE_EXPONENTS = (np.log(0.8), np.log(4.0))


def _tone(image: NDArray[np.uint8], s: Augmentation, u: dict[str, float]) -> NDArray[np.uint8]:
    """Bend the grays towards a random histogram, a Kumaraswamy distribution: flat when both exponents are 1."""
    if not s.tone or u["tone_on"] >= s.occasional:
        return image
    counts = np.bincount(image.ravel(), minlength=256)
    below = (np.cumsum(counts) - counts / 2) / image.size
    low, high = _TONE_EXPONENTS
    a, b = (np.exp(low + (high - low) * u[name]) for name in ("tone_dark", "tone_bright"))
    curve = 255 * (1 - (1 - below) ** (1 / b)) ** (1 / a)
    share = s.tone * u["tone"]
    return np.rint((1 - share) * np.arange(256) + share * curve).astype(np.uint8)[image]


def _letters(image: NDArray[np.uint8], s: Augmentation, u: dict[str, float]) -> NDArray[np.uint8]:
    import cv2

    if not s.letters or u["letters_on"] >= s.occasional:
        return image
    side, font = image.shape[0], cv2.FONT_HERSHEY_SIMPLEX
    text = _TEXTS[int(u["letters_text"] * len(_TEXTS))]
    height = max(3.0, s.letters * u["letters_height"] * side)
    scale = height / cv2.getTextSize("R", font, 1, 1)[0][1]
    thick = max(1, round(height / 8))
    width = cv2.getTextSize(text, font, scale, thick)[0][0]
    # Wherever the text fits, but in the outer thirds of the height: nobody writes across the lungs.
    x = round(u["letters_x"] * max(0, side - width))
    y = u["letters_y"] * 2 / 3
    y = round(height + (y if y < 1 / 3 else y + 1 / 3) * (side - height))
    gray = round(255 - 100 * u["letters_gray"])
    return cv2.putText(image.copy(), text, (x, y), font, scale, gray, thick, cv2.LINE_AA)


def _cut(image: NDArray[np.uint8], s: Augmentation, u: dict[str, float]) -> NDArray[np.uint8]:
    import cv2

    if not s.cut or u["cut_on"] >= s.occasional:
        return image
    side = image.shape[0]
    left, right, top, bottom = (int(side * s.cut * u[f"cut_{edge}"]) for edge in ("left", "right", "top", "bottom"))
    inner = image[top : side - bottom, left : side - right]
    return cv2.resize(inner, (side, side), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def _geometry(image: NDArray[np.uint8], s: Augmentation, u: dict[str, float]) -> NDArray[np.uint8]:
    import cv2

    if not (s.rotation or s.scale or s.shear or s.translation or s.mirror):
        return image
    if s.position < 1 and u["position"] >= s.position:
        return image[:, ::-1].copy() if u["mirror"] < s.mirror else image
    side = image.shape[0]
    angle = np.deg2rad(s.rotation * _signed(u["rotation"]))
    shear = np.tan(np.deg2rad(s.shear * _signed(u["shear"])))
    zoom_x = 1 + s.scale * _signed(u["scale_x"])
    zoom_y = 1 + s.scale * _signed(u["scale_y"])
    if u["mirror"] < s.mirror:
        zoom_x = -zoom_x
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotate @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag([zoom_x, zoom_y])
    middle = np.full(2, (side - 1) / 2)
    shift = side * s.translation * np.array([_signed(u["shift_x"]), _signed(u["shift_y"])])
    affine = np.column_stack([matrix, middle + shift - matrix @ middle])
    return cv2.warpAffine(image, affine, (side, side), flags=cv2.INTER_LINEAR)  # type: ignore[return-value]


def _exposure(image: NDArray[np.uint8], s: Augmentation, u: dict[str, float]) -> NDArray[np.uint8]:
    if not (s.brightness or s.contrast or s.gamma):
        return image
    gray = np.linspace(0, 1, 256) ** np.exp(s.gamma * _signed(u["gamma"]))
    gray = (gray - 0.5) * (1 + s.contrast * _signed(u["contrast"])) + 0.5 + s.brightness * _signed(u["brightness"])
    return np.clip(np.rint(gray * 255), 0, 255).astype(np.uint8)[image]


def _quality(
    image: NDArray[np.uint8], s: Augmentation, u: dict[str, float], random: np.random.Generator
) -> NDArray[np.uint8]:
    import cv2

    side = image.shape[0]
    if s.blur and u["blur_on"] < s.occasional:
        sigma = s.blur * u["blur"] * side / 160
        if sigma > 0.1:
            image = cv2.GaussianBlur(image, (0, 0), sigma)  # type: ignore[assignment]
    if s.resolution < 1 and u["resolution_on"] < s.occasional:
        small = max(8, round(side * (s.resolution + (1 - s.resolution) * u["resolution"])))
        reduced = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = cv2.resize(reduced, (side, side), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    if s.noise and u["noise_on"] < s.occasional:
        grain = random.standard_normal(image.shape, dtype=np.float32) * np.float32(s.noise * u["noise"])
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    if s.jpeg < 100 and u["jpeg_on"] < s.occasional:
        quality = int(s.jpeg + (96 - s.jpeg) * u["jpeg"])
        _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)  # type: ignore[assignment]
    if s.border and u["border_on"] < s.occasional:
        image = image.copy()
        left, right, top, bottom = (
            int(side * s.border * u[f"border_{edge}"]) for edge in ("left", "right", "top", "bottom")
        )
        image[:top] = image[side - bottom :] = 0
        image[:, :left] = image[:, side - right :] = 0
    return image


def _signed(uniform: float) -> float:
    return 2 * uniform - 1
