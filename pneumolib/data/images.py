"""The one door for pixels: whatever reads an X-ray, in training or in service, reads it here.

JPEG, PNG, TIFF, BMP, WebP and DICOM come in, from bytes or a path, and leave as uint8 ``[H, W]``. What is not read is
refused with an `ImageError` that says what is wrong, what is allowed and what came; nothing is guessed:

- The format is told by the content, not by the name; other formats are not even tried.
- DICOM needs the extra ``dicom``, whose absence is a `MissingExtraError`; of it, `pneumolib.data.dicom` says what is
  read.
- Black bars at the edges are left out of the squares that models see: they tell how a film was framed, which in this
  data set goes with the diagnosis, or that somebody has padded it. `decode` keeps them.
- Bytes are limited before reading, pixels before decoding. Files of several frames are refused.
- EXIF orientation is applied. Colour becomes luminance (ITU-R 601); CMYK and palettes go through RGB.
- Transparent pixels are laid on black, as an X-ray's background is. A TIFF in which zero is white is turned over.
- 16-bit gray keeps its order: values are scaled from the range that the file declares to hold (TIFF's
  ``MaxSampleValue``; PNG's 16 bits) to 0..255. A file whose values stay below 4096 is read as 12 bits, the depth of
  radiographic detectors, because scaling it by 16 bits would leave it almost black. Floating point is refused: its
  range is not declared.

JPEG files are decoded by Pillow, at a reduced scale where only a small square is wanted. ``benchmarks/decoding.py``
compares it with other decoders: at the same scale they give the same pixels in a few per cent less time, whole images
in a fifth less, which does not earn a second decoder its place. Damage inside a JPEG's pixels mostly goes unnoticed,
as it does with most of them.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pneumolib.data.dicom import is_dicom
from pneumolib.data.dicom import read as read_dicom
from pneumolib.errors import (
    DataError,
    DataNotFoundError,
    ImageError,
    ImageTooLargeError,
    MissingExtraError,
    UnsupportedImageError,
)

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")  # that Pillow decodes
_ALLOWED = "JPEG, PNG, TIFF, BMP, WebP or DICOM"
BLACK = 16  # the brightest gray of a black bar; JPEG leaves a few levels of grain even in what was wholly black


@dataclass(frozen=True)
class Limits:
    """How large a file and an image may be; what exceeds them is refused before it is decoded."""

    max_bytes: int = 64 * 2**20  # the largest X-ray of the data set has under 3 MB
    max_pixels: int = 64_000_000  # a digital radiograph has up to about 18 million


DEFAULT_LIMITS = Limits()


class Film(NamedTuple):
    """Where the film lies on a picture, black bars at the edges left out: fractions of its height and width.

    Attributes:
        top, bottom: of the height, 0 to 1, downwards.
        left, right: of the width, 0 to 1.

    Examples:
        >>> Film(left=0.25).window((8, 8))
        (slice(0, 8, None), slice(2, 8, None))
    """

    top: float = 0.0
    bottom: float = 1.0
    left: float = 0.0
    right: float = 1.0

    def window(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Return the rows and columns of the film on a picture ``[H, W]`` of that shape, at least one of each."""
        return _between(self.top, self.bottom, shape[0]), _between(self.left, self.right, shape[1])


def _between(start: float, stop: float, length: int) -> slice:
    first = min(round(start * length), length - 1)
    return slice(first, max(round(stop * length), first + 1))


def decode(
    source: bytes | str | os.PathLike[str], *, at_least: int | None = None, limits: Limits = DEFAULT_LIMITS
) -> NDArray[np.uint8]:
    """Return the image as gray values, uint8 ``[H, W]``.

    Args:
        source: the file's bytes, or its path.
        at_least: if given, a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as both sides
            keep that many pixels.
        limits: on bytes and pixels.

    Raises:
        DataError: `at_least` is less than 1.
        DataNotFoundError: there is no file at the path.
        ImageTooLargeError: a limit is exceeded.
        UnsupportedImageError: it is of a format that is not read.
        ImageError: the file is empty, truncated, or of another kind; the message says which.
        MissingExtraError: the file is DICOM, and a package of the extra ``dicom`` is not installed.

    Examples:
        >>> png = io.BytesIO()
        >>> Image.new("L", (4, 3), 200).save(png, "PNG")
        >>> decode(png.getvalue()).shape
        (3, 4)
    """
    if at_least is not None and at_least < 1:
        raise DataError(f"at_least must be None, or 1 pixel or more. Received: {at_least!r}")
    return _decoded(source, at_least, None, limits)[0]


def _decoded(
    source: bytes | str | os.PathLike[str], at_least: int | None, size: int | None, limits: Limits, bars: bool = True
) -> tuple[NDArray[np.uint8], Film]:
    """Return the image, or its square of `size`; whatever a decoder raises becomes an error that names the file."""
    content, name = _read(source, limits)
    try:
        with _warnings_held_back():
            if is_dicom(content):
                image = read_dicom(content, limits.max_pixels, square_pixels=size is None)
            else:
                image, film = _decode(content, at_least, size, limits, bars)
                if film is not None:
                    return image, film
        return (image, Film()) if size is None else _stretched(image, size, bars)
    except (ImageError, MissingExtraError) as error:
        raise type(error)(f"{name}: {error}") from error.__cause__
    except UnidentifiedImageError:
        kind, message = _foreign(content)
        raise kind(f"{name}: {message}") from None
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error and others
        raise ImageError(
            f"{name}: the file is damaged or cut off ({error}). Allowed: whole {_ALLOWED} files. "
            f"Received: {len(content):,} bytes"
        ) from error


def square(image: NDArray[np.uint8], size: int, *, bars: bool = False) -> NDArray[np.uint8]:
    """Return `image`, without black bars, stretched to a square, uint8 ``[size, size]``, with antialiasing.

    Stretched, not cropped or padded: in this data set the aspect ratio tells the class. Bars at the edges that are
    black from end to end are left out (`find_film`): they tell how a film was framed, or that somebody has padded it.

    Args:
        image: uint8 ``[H, W]``.
        size: side of the square in pixels.
        bars: keep black bars.

    Raises:
        DataError: the image is not uint8 ``[H, W]``, or size is less than 1.
    """
    if image.dtype != np.uint8 or image.ndim != 2 or not image.size or size < 1:
        raise DataError(
            f"A square is made of uint8 [H, W] and a size of 1 or more. "
            f"Received: {image.dtype} {list(image.shape)}, size {size!r}"
        )
    return _stretched(image, size, bars)[0]


def load_square(
    source: bytes | str | os.PathLike[str], size: int, *, bars: bool = False, limits: Limits = DEFAULT_LIMITS
) -> NDArray[np.uint8]:
    """Return the image in `source` as the square that the model takes, uint8 ``[size, size]``; raises as `decode` does.

    A large JPEG is decoded at a reduced scale that still has twice the pixels wanted, so that the antialiasing of the
    stretch decides the result, not the decoder. A DICOM picture goes to the square at once, whatever its pixels' shape.

    Args:
        source: the file's bytes, or its path.
        size: side of the square in pixels.
        bars: keep black bars at the edges, which `square` leaves out.
        limits: on bytes and pixels.
    """
    return load_film(source, size, bars=bars, limits=limits)[0]


def load_film(
    source: bytes | str | os.PathLike[str], size: int, *, bars: bool = False, limits: Limits = DEFAULT_LIMITS
) -> tuple[NDArray[np.uint8], Film]:
    """Return what `load_square` does, and which part of the picture, as `decode` gives it, is on the square."""
    if size < 1:
        raise DataError(f"A square has a side of 1 pixel or more. Received: size {size!r}")
    return _decoded(source, 2 * size, size, limits, bars)


def find_film(image: NDArray[np.uint8]) -> Film:
    """Return which part of `image`, uint8 ``[H, W]``, is left without the black bars at its edges.

    A row or column at the edge belongs to a bar where no pixel is brighter than `BLACK`. Where less than a third of a
    side would be left, nothing is taken for a bar.

    Examples:
        >>> find_film(np.pad(np.full((6, 4), 90, np.uint8), [(0, 0), (1, 3)]))
        Film(top=0.0, bottom=1.0, left=0.125, right=0.625)
    """
    (top, bottom), (left, right) = _lit(image), _lit(image.T)
    height, width = image.shape
    if 3 * (bottom - top) < height or 3 * (right - left) < width:
        return Film()
    return Film(top / height, bottom / height, left / width, right / width)


def _lit(image: NDArray[np.uint8]) -> tuple[int, int]:
    start, stop = 0, len(image)
    while start < stop and image[start].max() <= BLACK:
        start += 1
    while stop > start and image[stop - 1].max() <= BLACK:
        stop -= 1
    return start, stop


def _stretched(image: NDArray[np.uint8], size: int, bars: bool) -> tuple[NDArray[np.uint8], Film]:
    film = Film() if bars else find_film(image)
    inner = np.ascontiguousarray(image[film.window(image.shape)])
    if inner.shape != (size, size):
        inner = np.asarray(Image.fromarray(inner).resize((size, size), Image.Resampling.BILINEAR))
    return inner, film


def _read(source: bytes | str | os.PathLike[str], limits: Limits) -> tuple[bytes, str]:
    if isinstance(source, bytes | bytearray | memoryview):
        content, name = bytes(source), "image"
        size = len(content)
    elif isinstance(source, str | os.PathLike):
        path, name = Path(source), str(source)
        if not _is(path.is_file):
            what = "is a folder, not a file" if _is(path.is_dir) else "no such file"
            raise DataNotFoundError(f"{name}: {what}. Allowed: the path of a {_ALLOWED} file.")
        size = path.stat().st_size
        content = path.read_bytes() if size <= limits.max_bytes else b""
    else:
        raise DataError(f"An image is given as bytes or as a path. Received: {type(source).__name__}")
    if size > limits.max_bytes:
        raise ImageTooLargeError(
            f"{name}: the file is too large. Allowed: {limits.max_bytes:,} bytes. Received: {size:,} bytes"
        )
    if not size:
        raise ImageError(f"{name}: the file is empty. Allowed: {_ALLOWED}. Received: 0 bytes")
    return content, name


def _is(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # a name that is too long for the system
        return False


@contextlib.contextmanager
def _warnings_held_back() -> Iterator[None]:
    """Hold back what decoders warn of (a bomb, damaged metadata): our own limits are stricter, and nobody asked.

    Python's filters belong to all threads: the first that comes in sets them, the last that leaves sets them back.
    """
    global _inside
    with _LOCK:
        if not _inside:
            _CAUGHT.append(warnings.catch_warnings())
            _CAUGHT[-1].__enter__()
            warnings.simplefilter("ignore")
        _inside += 1
    try:
        yield
    finally:
        with _LOCK:
            _inside -= 1
            if not _inside:
                _CAUGHT.pop().__exit__(None, None, None)


_LOCK, _CAUGHT, _inside = threading.Lock(), list[Any](), 0


def _decode(
    content: bytes, at_least: int | None, size: int | None, limits: Limits, bars: bool
) -> tuple[NDArray[np.uint8], Film | None]:
    """Return the gray image and None; where a square is wanted and the decoder shrinks, that square and its film."""
    try:
        opened = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(
            f"the image is too large. Allowed: {limits.max_pixels:,} pixels. Received: {error}"
        ) from error
    with opened as picture:
        width, height = picture.size
        if width * height > limits.max_pixels:
            raise ImageTooLargeError(
                f"the image is too large. Allowed: {limits.max_pixels:,} pixels. Received: {width} x {height}"
            )
        frames = getattr(picture, "n_frames", 1)
        # MPO is how some cameras mark a JPEG that carries a preview.
        if frames > 1 and picture.format != "MPO":
            raise ImageError(f"the file holds several images. Allowed: one. Received: {frames}")
        # A picture to be turned, of which a square is wanted, is decoded whole: a film's edges are those of the file.
        turned = size is not None and picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
        reducible, drafted = picture.format in ("JPEG", "MPO") and not turned, None
        if reducible and at_least is not None and min(width, height) > at_least:
            # Pillow takes the smallest scale whose sides are at least those asked for, and says what part of the pixels
            # is the image: where the sides are no multiples of the scale, the last ones reach beyond it.
            drafted = picture.draft(None, (at_least, at_least))
        tags: Any = getattr(picture, "tag_v2", {})
        declared, zero_is_white = _first(tags.get(281)), _first(tags.get(262)) == 0
        picture.load()
        if drafted is not None and size is not None:
            return _drafted_square(picture, drafted[1], size, bars)
        upright = ImageOps.exif_transpose(picture)
        return _gray(upright if upright is not None else picture, declared, zero_is_white), None


def _drafted_square(
    picture: Image.Image, extent: tuple[float, ...], size: int, bars: bool
) -> tuple[NDArray[np.uint8], Film]:
    """Return the square of a JPEG decoded at a reduced scale, of whose pixels those within `extent` are the image."""
    film = Film() if bars else find_film(np.asarray(picture if picture.mode == "L" else picture.convert("L")))
    rows, columns = film.window((picture.height, picture.width))
    inner = picture.crop((columns.start, rows.start, columns.stop, rows.stop))
    right, bottom = (min(end, lit.stop) - lit.start for end, lit in zip(extent[2:], (columns, rows), strict=True))
    stretched = inner.resize((size, size), Image.Resampling.BILINEAR, box=(0, 0, right, bottom))
    return _gray(stretched, None, False), film


def _first(value: Any) -> int | None:
    """The first value of a TIFF's tag, where it is a whole number."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    return value if isinstance(value, int) else None


def _gray(picture: Image.Image, declared: int | None, zero_is_white: bool) -> NDArray[np.uint8]:
    mode, transparent = picture.mode, picture.info.get("transparency")
    if mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        gray = _from_deep(values, declared)
        # Pillow turns over what has up to 8 bits, and nothing deeper.
        gray = 255 - gray if zero_is_white else gray
        return gray if transparent is None else np.where(values == transparent, 0, gray).astype(np.uint8)
    if mode == "F":
        raise ImageError("the file holds floating-point values, whose range is not declared. Allowed: 8 or 16 bits")
    if mode == "L" and transparent is None:
        return np.asarray(picture)
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        colour = picture.convert("RGBA")
        black = Image.new("RGBA", colour.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, colour).convert("L"))
    return np.asarray(picture.convert("RGB").convert("L") if mode not in ("RGB", "1") else picture.convert("L"))


def _from_deep(values: NDArray[np.int64], declared: int | None) -> NDArray[np.uint8]:
    """Scale integers deeper than 8 bits to 0..255; see the module's docstring for the rule."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"the file holds integers beyond 16 bits. Allowed: 0 to 65535. Received: values from {low} to {high}"
        )
    by_depth = 4095 if high < 4096 else 65535
    top = declared if declared is not None and declared >= max(high, 1) else by_depth
    return ((values * 255 + top // 2) // top).astype(np.uint8)


def _foreign(content: bytes) -> tuple[type[ImageError], str]:
    """Return the error, and what it says, for a file that no decoder knows."""
    start = content[:8].decode("latin-1")
    if content[:2] == b"\xff\xd8" or content[:8] == b"\x89PNG\r\n\x1a\n":
        damage = f"the file's header is damaged. Allowed: whole {_ALLOWED} files. Received: {len(content):,} bytes"
        return ImageError, damage
    received = f"Received: a file that starts {start!r}"
    return UnsupportedImageError, f"the file is no image of a format that is read. Allowed: {_ALLOWED}. {received}"
