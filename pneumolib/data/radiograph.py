"""The drawing of one synthetic chest X-ray.

The image is built as a radiograph is: each structure adds to the attenuation along the ray or takes from it, and the
sum is exposed, given the curve of a film, and given grain. `pneumolib.data.phantom` makes data sets of such images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pneumolib.errors import DataError

SUBTYPES = ("normal", "bacterial", "viral")

_HEIGHT, _WIDTH = 352, 400  # canvas in pixels; the film shows a part of it, so a turned patient leaves no corner empty
_TOP = 24  # canvas row of anatomical y = 0; anatomical x = 0 is the middle column

_Array = np.ndarray[Any, np.dtype[Any]]


def draw(subtype: str, seed: int, *, patient: int | None = None, size: tuple[int, int] | None = None) -> _Array:
    """Draw one synthetic frontal chest X-ray: bones bright, lungs dark, the same for the same arguments.

    Args:
        subtype: ``normal``, ``bacterial`` (one or two lobar opacities) or ``viral`` (streaks and patches, both lungs).
        seed: decides pose, exposure, grain and the extent of the disease; 0 or more.
        patient: decides the anatomy; None takes it from `seed`. Two images of one patient share it.
        size: height and width in pixels, each 64 to 2048; None draws about 280 x 340 in varying shape.

    Returns:
        uint8 [H, W].

    Raises:
        DataError: an unknown subtype, a negative seed, or a size out of range.

    Examples:
        >>> image = draw("viral", seed=3, size=(280, 320))
        >>> image.shape, str(image.dtype)
        ((280, 320), 'uint8')
    """
    if subtype not in SUBTYPES:
        raise DataError(f"subtype must be one of {', '.join(SUBTYPES)}. Received: {subtype!r}")
    check(size, seed, 0 if patient is None else patient)
    anatomy = _Anatomy.of(np.random.default_rng([1, seed if patient is None else patient]))
    rng = np.random.default_rng([2, seed])
    attenuation = _thorax(anatomy, rng, subtype)
    return _expose(attenuation, rng, size)


def check(size: tuple[int, int] | None, *seeds: int) -> None:
    """Raise DataError unless `size` is None or a height and a width in range, and no seed is negative."""
    if size is not None and (len(size) != 2 or not all(64 <= side <= 2048 for side in size)):
        raise DataError(f"size must be a height and a width of 64 to 2048 pixels. Received: {size!r}")
    if min(seeds) < 0:
        raise DataError(f"seed and patient must be 0 or more. Received: {min(seeds)!r}")


# === Anatomy ===


@dataclass(frozen=True)
class _Anatomy:
    """What makes one child's chest: lengths in canvas pixels, the others around 1."""

    width: float  # half the width of the rib cage at its widest
    diaphragm: float  # y of the right dome
    apex: float  # y of the tops of the lungs
    heart: float  # size of the heart
    tilt: float  # how far the heart lies over to the left
    thymus: float  # 0: none seen
    ribs: float  # distance from rib to rib
    slope: float  # fall of the ribs from the spine outward
    bone: float  # density of bone
    flesh: float  # thickness of soft tissue
    arms: float  # -1: raised, 1: hanging
    bubble: float  # air in the stomach

    @classmethod
    def of(cls, rng: np.random.Generator) -> _Anatomy:
        return cls(
            width=rng.uniform(98, 116),
            diaphragm=rng.uniform(168, 196),
            apex=rng.uniform(38, 50),
            heart=rng.uniform(0.88, 1.15),
            tilt=rng.uniform(-4, 10),
            thymus=max(0.0, rng.uniform(-0.8, 1.0)),
            ribs=rng.uniform(18.0, 21.0),
            slope=rng.uniform(0.8, 1.4),
            bone=rng.uniform(0.75, 1.25),
            flesh=rng.uniform(0.85, 1.2),
            arms=rng.uniform(-1, 1),
            bubble=max(0.0, rng.uniform(-2.0, 1.0)),
        )

    def half_width(self, y: float) -> float:
        """Half the inner width of the rib cage at height y."""
        t = min(max((y - self.apex) / (self.diaphragm - self.apex), 0.0), 1.25)
        return self.width * min(1.0, 0.36 + 0.64 * math.sin(min(t, 1.0) * math.pi / 2) ** 0.75)


def _thorax(a: _Anatomy, rng: np.random.Generator, subtype: str) -> _Array:
    """Return the attenuation of the chest as float32 [_HEIGHT, _WIDTH], air outside the body being 0."""
    body = _body(a)
    right, left = _lung(a, -1), _lung(a, 1)
    lungs = np.maximum(right, left)
    heart, mediastinum = _heart(a)
    noise = _noise(rng, 5) * 0.6 + _noise(rng, 11) * 0.4

    total = body * a.flesh * (0.86 + 0.06 * noise)
    total -= lungs * (0.62 + 0.03 * noise)
    total += 0.46 * heart + 0.32 * mediastinum * (1 - 0.7 * heart)
    total += _abdomen(a, body, lungs)
    total += a.bone * _skeleton(a) * np.minimum(1, body * 1.5)
    total += 0.17 * _vessels(a, rng) * lungs
    total += _disease(a, rng, subtype, right, left)
    total -= 0.13 * _blur(_stroke([(0.5, -30), (0, 40), (-2, 88)], 8), 2.2)  # trachea
    return np.maximum(total, 0.0)


def _body(a: _Anatomy) -> _Array:
    w = a.width + 13
    trunk = [(-33, -40), (-34, 8), (-58, 24), (-w - 14, 40), (-w - 6, 90), (-w, 150), (-w - 2, 240), (-w - 6, 360)]
    mask = _fill(trunk + [(-x, y) for x, y in reversed(trunk)])
    for side in (-1, 1):
        hand = (side * (w + 75), 60 + 150 * a.arms) if a.arms > -0.3 else (side * (w + 55), -70)
        _draw(mask, [(side * (w - 14), 58), hand], 40, 255)
    mask = np.maximum(mask, _fill([(-48, -60), (-42, -6), (0, 6), (42, -6), (48, -60)]))  # jaw
    # Thin at the skin, thick towards the middle: a narrow and a wide blur of the same outline.
    return 0.45 * _blur(mask, 2.0) + 0.55 * _blur(mask, 14.0)


def _lung(a: _Anatomy, side: int) -> _Array:
    """Return the air of one lung, 0 to 1; side -1 is the patient's right, on the left of the film."""
    dome = a.diaphragm + (0 if side < 0 else 9)
    heights = np.linspace(a.apex + 4, dome + 14, 9)
    outer = [(a.half_width(y) - 3, float(y)) for y in heights]
    outline = [
        (0.25 * a.width, a.apex - 2),
        *outer,
        (a.width * 0.96, dome + 22),
        (a.width * 0.8, dome + 4),
        (a.width * 0.55, dome - 5),
        (a.width * 0.28, dome),
        (15, dome + 8),
        (13, dome - 60),
        (14, a.apex + 30),
        (18, a.apex + 6),
    ]
    mask = _fill([(side * x, y) for x, y in outline])
    # The dome's edge is sharp, the lung's depth is not: the wide part makes the lungs darkest in the middle.
    return 0.72 * _blur(mask, 1.6) + 0.28 * _blur(mask, 9.0) * (mask > 127)


def _heart(a: _Anatomy) -> tuple[_Array, _Array]:
    base, size = a.diaphragm + 6, a.heart
    outline = [
        (0, base - 138),
        (-17, base - 104),
        (-22 * size, base - 80),
        (-34 * size + a.tilt, base - 48),
        (-33 * size + a.tilt, base - 18),
        (-24, base + 6),
        (30, base + 16),
        (58 * size + a.tilt, base + 6),
        (62 * size + a.tilt, base - 14),
        (50 * size + a.tilt, base - 46),
        (31 * size, base - 76),
        (26, base - 98),
        (17, base - 112),
    ]
    heart = _fill(outline)
    vena_cava = [(-17, -40), (-16, 60), (-19, base - 90), (-14, base)]
    aorta = [(14, base), (24, base - 92), (21, base - 118), (15, -40)]
    mediastinum = _fill(vena_cava + aorta)
    if a.thymus > 0:
        sail = [(-14, 62), (-22 - 26 * a.thymus, 92), (-24 - 26 * a.thymus, 112), (-14, 118)]
        mediastinum = np.maximum(mediastinum, _fill(sail, 140))
    soft_heart = 0.6 * _blur(heart, 1.8) + 0.4 * _blur(heart, 8.0)
    return soft_heart, 0.55 * _blur(mediastinum, 2.0) + 0.45 * _blur(mediastinum, 7.0)


def _abdomen(a: _Anatomy, body: _Array, lungs: _Array) -> _Array:
    y = np.arange(_HEIGHT, dtype=np.float32)[:, None] - _TOP
    below = np.clip((y - a.diaphragm + 12) / 40, 0, 1) * (1 - np.clip((y - 290) / 160, 0, 0.5))
    x = np.arange(_WIDTH, dtype=np.float32)[None, :] - _WIDTH / 2
    liver = 0.36 - 0.0006 * x
    result = below * liver * body * (1 - lungs)
    if a.bubble > 0:
        gas = _blob(52, a.diaphragm + 40, 26 + 10 * a.bubble, 17, -0.3)
        result = result - (0.25 + 0.15 * a.bubble) * _soft_step(gas, 0.5, 0.08)
    return result


def _skeleton(a: _Anatomy) -> _Array:
    back, front = _empty(), _empty()
    t, u = np.linspace(0, 1, 9), np.linspace(0, 1, 7)
    for i in range(11):
        y = a.apex - 2 + i * a.ribs
        drop = (15 + 2.0 * i) * a.slope
        lateral = a.half_width(y + 0.7 * drop) + 1
        for side in (-1, 1):
            x = side * (9 + (lateral - 9) * np.sin(t * math.pi / 2))
            rib = np.stack([x, y - 5 * np.sin(t * math.pi * 0.75) + drop * t**2.3 + 3], axis=1)
            _draw(back, rib, 6, 235)
            _draw(back, rib, 3, 150)
            if i < 8:
                x = side * lateral * (1 - (0.5 - 0.02 * i) * u**1.4)
                rib = np.stack([x, y + drop + 3 + (26 * u + 14 * u * (1 - u)) * a.slope], axis=1)
                _draw(front, rib, 6, 120)
                _draw(front, rib[:5], 6, 185)  # toward the breastbone a rib is cartilage, which shows less
                _draw(front, rib, 3, 100)
    clavicle, spine, disc = _empty(), _empty(), _empty()
    for side in (-1, 1):
        bone = _curve([(side * 13, 52), (side * 38, 40), (side * 66, 40), (side * (a.width + 2), 24)])
        _draw(clavicle, bone, 8, 220)
        _draw(clavicle, bone, 4, 150)
        shoulder = side * (a.width + 12)
        _draw(clavicle, [(shoulder, 36), (shoulder - side * 16, 80)], 4, 90)  # edge of the shoulder blade
        _draw(clavicle, [(shoulder + side * 16, 46), (shoulder + side * (46 + 8 * a.arms), 50 + 100 * a.arms)], 15, 130)
    _draw(spine, [(0, -60), (1, 360)], 23, 200)
    for i, y in enumerate(np.arange(-52, 340, a.ribs)):
        _draw(disc, [(-10, y), (10, y)], 3, 120)
        _draw(spine, [(-15 - (i % 2), y + 8), (-9, y + 9)], 5, 235)
        _draw(spine, [(9, y + 9), (15 + (i % 2), y + 8)], 5, 235)
    bones = 0.3 * _blur(back, 0.9) + 0.16 * _blur(front, 1.3) + 0.3 * _blur(clavicle, 0.9)
    return bones + 0.2 * _blur(spine, 1.2) - 0.09 * _blur(disc, 1.3)


def _vessels(a: _Anatomy, rng: np.random.Generator) -> _Array:
    """Return the branching shadows that leave the hila, thinner and fainter outward."""
    fine = _empty()
    for side in (-1, 1):
        for angle in np.linspace(-1.15, 1.25, 7) + rng.uniform(-0.12, 0.12, 7):
            _branch(fine, rng, side * 19.0, a.diaphragm - 84.0, side, angle, rng.uniform(36, 62), 4.5)
    x = 24
    hila = _blob(-x, a.diaphragm - 82, 11, 19, 0.2) + _blob(x + 3, a.diaphragm - 88, 11, 18, -0.2)
    return 0.9 * _blur(fine, 1.2) + 0.8 * hila


def _branch(
    canvas: _Array, rng: np.random.Generator, x: float, y: float, side: int, angle: float, length: float, width: float
) -> None:
    bend = rng.uniform(-0.25, 0.35)
    path = [(x, y)]
    for step in range(5):
        heading = angle + bend * step / 4
        x, y = x + side * math.cos(heading) * length / 5, y + math.sin(heading) * length / 5
        path.append((x, y))
    _draw(canvas, path, max(1, round(width)), int(70 + 28 * min(width, 4)))
    if width > 2:
        for turn in (-0.38, 0.4):
            _branch(canvas, rng, x, y, side, angle + bend + turn, length * 0.62, width * 0.58)


# === Disease ===

_LOBES = {-1: ((0.55, 0.28), (0.5, 0.62), (0.66, 0.86)), 1: ((0.52, 0.3), (0.68, 0.8))}


def _disease(a: _Anatomy, rng: np.random.Generator, subtype: str, right: _Array, left: _Array) -> _Array:
    """Return what the disease adds to the attenuation; a healthy lung has a little haze of its own."""
    lungs = np.maximum(right, left)
    haze = 0.05 * rng.uniform(0, 1) * np.clip(_noise(rng, 6) + 0.3, 0, None) * lungs
    if subtype == "bacterial":
        return haze + _consolidation(a, rng, right, left)
    if subtype == "viral":
        return haze + _interstitial(a, rng, lungs)
    return haze


def _consolidation(a: _Anatomy, rng: np.random.Generator, right: _Array, left: _Array) -> _Array:
    result = np.zeros((_HEIGHT, _WIDTH), np.float32)
    for _ in range(1 + (rng.random() < 0.3)):
        side = -1 if rng.random() < 0.55 else 1
        u, v = _LOBES[side][rng.integers(len(_LOBES[side]))]
        x = side * a.width * (u + rng.uniform(-0.08, 0.08))
        y = a.apex + (a.diaphragm - a.apex) * (v + rng.uniform(-0.06, 0.06))
        shape = _blob(x, y, rng.uniform(24, 44), rng.uniform(19, 35), rng.uniform(-0.8, 0.8))
        shape = _soft_step(shape + 0.13 * _noise(rng, 16) + 0.05 * _noise(rng, 40), 0.5, rng.uniform(0.45, 0.8))
        strength = rng.uniform(0.26, 0.6)
        result = np.maximum(result, strength * shape * (1 + 0.18 * _noise(rng, 34)))
    return result * np.maximum(right, left)


def _interstitial(a: _Anatomy, rng: np.random.Generator, lungs: _Array) -> _Array:
    strength = rng.uniform(0.8, 1.7)
    middle = a.diaphragm - 78
    spread = rng.uniform(34, 52)
    central = _blob(-38, middle, spread, spread * 1.25, 0.0) + _blob(40, middle, spread, spread * 1.25, 0.0)
    patches = np.clip(_noise(rng, 13) + 0.25, 0, None)
    # Where smooth noise crosses zero it makes a net of thin lines, as thickened septa and bronchial walls do.
    streaks = sum(weight * np.clip(1 - 3.2 * np.abs(_noise(rng, n)), 0, 1) for weight, n in ((1.0, 38), (0.6, 62)))
    opacity = 0.05 + 0.13 * central * (0.5 + patches) + 0.11 * patches + 0.07 * streaks * (0.5 + central)
    return strength * lungs * opacity


# === Film ===


def _expose(attenuation: _Array, rng: np.random.Generator, size: tuple[int, int] | None) -> _Array:
    """Turn attenuation into a film: pose, scatter, exposure, marker and grain."""
    import cv2

    shape = rng.uniform(1.02, 1.42)
    height = int(rng.integers(236, 297))
    height, width = size if size is not None else (height, round(height * shape))
    view = rng.uniform(232, 262)  # how many canvas pixels the film is high
    zoom_y = height / view
    zoom_x = zoom_y * rng.uniform(0.94, 1.06) if size is None else width / (view * shape)
    turn = math.radians(rng.normal(0, 3.2))
    centre = (_WIDTH / 2 + rng.normal(0, 6), _TOP + 128 + rng.normal(0, 8))
    matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]) * [[zoom_x], [zoom_y]]
    matrix = np.column_stack([matrix, np.array([width / 2, height / 2]) - matrix @ centre])
    film: _Array = cv2.warpAffine(
        attenuation, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )

    film = film + rng.uniform(0.02, 0.16) * cv2.blur(film, (width // 3, height // 3))  # scatter
    film = film / float(np.percentile(film[::4, ::4], 99)) * rng.uniform(0.9, 1.05)
    film = np.clip(film, 0, 1.25)
    film = film / (1 + 0.28 * np.clip(film - 0.6, 0, None))  # the shoulder of the film's curve
    # Automatic exposure: the mean gray is set by chance, so that it tells nothing about the disease.
    target, low, high = rng.uniform(0.36, 0.58), 0.35, 3.0
    sample = np.clip(film[::5, ::5], 1e-4, 1)
    for _ in range(9):
        gamma = math.sqrt(low * high)
        low, high = (gamma, high) if float((sample**gamma).mean()) > target else (low, gamma)
    film = np.clip(film, 0, 1) ** gamma
    grain: _Array = rng.standard_normal((height, width), dtype=np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.7) * rng.uniform(0.012, 0.03) * (1.15 - film)
    black, white = rng.uniform(0.0, 0.06), rng.uniform(0.88, 1.0)
    pixels = np.clip((black + (white - black) * film + grain) * 255, 0, 255).astype(np.uint8)
    _mark(pixels, rng)
    return pixels


def _mark(pixels: _Array, rng: np.random.Generator) -> None:
    """Put the side marker on the film, which says nothing about the disease."""
    import cv2

    if rng.random() < 0.25:
        return
    height, width = pixels.shape
    letter = [(0, 10), (0, 0), (4.5, 0), (6, 1.2), (6, 4), (4.5, 5.2), (0, 5.2), (3, 5.2), (6.2, 10)]
    place = np.array([width * rng.uniform(0.01, 0.08), height * rng.uniform(0.04, 0.4)])
    scale = height / 280 * rng.uniform(0.8, 1.5)
    points = np.array(letter) * scale + place
    thick = 1 if scale < 1.15 else 2
    cv2.polylines(pixels, [np.round(points * 16).astype(np.int32)], False, 235, thick, cv2.LINE_AA, 4)


# === Drawing ===


def _empty() -> _Array:
    return np.zeros((_HEIGHT, _WIDTH), np.uint8)


def _pixels(points: Any) -> _Array:
    """Return anatomical points as the fixed-point canvas coordinates that OpenCV draws without rounding."""
    moved = np.asarray(points, dtype=np.float64) + np.array([_WIDTH / 2, _TOP])
    return np.round(moved * 16).astype(np.int32)


def _curve(points: Any, closed: bool = False) -> _Array:
    """Round the corners of a polygon by cutting them three times (Chaikin 1974)."""
    p = np.asarray(points, dtype=np.float64)
    for _ in range(3):
        after = np.roll(p, -1, axis=0) if closed else p[1:]
        before = p if closed else p[:-1]
        cut = np.stack([0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after], axis=1).reshape(-1, 2)
        p = cut if closed else np.vstack([p[:1], cut, p[-1:]])
    return p


def _draw(canvas: _Array, points: Any, width: int, value: int) -> None:
    import cv2

    # The blur that follows smooths the steps of the edge, at half the price of antialiased lines.
    cv2.polylines(canvas, [_pixels(points)], False, value, width, cv2.LINE_8, 4)


def _stroke(points: Any, width: int) -> _Array:
    canvas = _empty()
    _draw(canvas, points, width, 255)
    return canvas


def _fill(points: Any, value: int = 255) -> _Array:
    import cv2

    canvas = _empty()
    cv2.fillPoly(canvas, [_pixels(_curve(points, closed=True))], value, cv2.LINE_AA, 4)
    return canvas


def _blur(canvas: _Array, sigma: float) -> _Array:
    """Return an 8-bit canvas blurred, as float32 from 0 to 1."""
    import cv2

    if sigma < 4:
        return cv2.GaussianBlur(canvas, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) * np.float32(1 / 255)
    # What a wide blur leaves, a quarter of the pixels can carry.
    small: _Array = cv2.resize(canvas, (_WIDTH // 4, _HEIGHT // 4), interpolation=cv2.INTER_AREA) * np.float32(1 / 255)
    small = cv2.GaussianBlur(small, (0, 0), sigma / 4, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_LINEAR)


def _blob(x: float, y: float, radius_x: float, radius_y: float, turn: float) -> _Array:
    """Return a Gaussian hill of height 1 about a point."""
    import cv2

    # Drawn on a coarse grid and enlarged: nothing in it is finer than that.
    step = 4
    dx = np.arange(step / 2 - 0.5, _WIDTH, step, dtype=np.float32)[None, :] - np.float32(_WIDTH / 2 + x)
    dy = np.arange(step / 2 - 0.5, _HEIGHT, step, dtype=np.float32)[:, None] - np.float32(_TOP + y)
    c, s = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    along, across = (c * dx + s * dy) / np.float32(radius_x), (c * dy - s * dx) / np.float32(radius_y)
    hill = np.exp(-0.5 * (along * along + across * across))
    return cv2.resize(hill, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_LINEAR)


def _soft_step(values: _Array, edge: float, width: float) -> _Array:
    t = np.clip((values - np.float32(edge)) / np.float32(width) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def _noise(rng: np.random.Generator, cells: int) -> _Array:
    """Return smooth noise about 0 with the given number of cells along the height."""
    import cv2

    grid: _Array = rng.standard_normal((cells, round(cells * _WIDTH / _HEIGHT)), dtype=np.float32)
    if cells < 20:
        grid = cv2.resize(grid, (_WIDTH // 4, _HEIGHT // 4), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(grid, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_LINEAR)
