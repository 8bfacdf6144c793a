"""The pixels of a DICOM file, as stored: taken out of the file, their encoding checked, and decoded.

Each encoding has one decoder. What an encoded image says of its own size is compared with the header before the
decoder starts, so that neither can talk it into a huge picture:

- RLE is unpacked here, to no more bytes than the image has.
- JPEG Baseline is decoded by Pillow, as every other JPEG is.
- JPEG Extended, JPEG Lossless, JPEG-LS and JPEG 2000 are decoded by imagecodecs (BSD), around libjpeg-turbo, CharLS
  and OpenJPEG. GDCM, the usual choice for JPEG Lossless, aborts the whole process on a damaged file: a Huffman table
  that is missing is a C++ exception that nobody catches. libjpeg-turbo took hundreds of thousands of such files
  without a crash, is twice as fast, and decodes 12 bits of JPEG Extended, which GDCM and Pillow do not.

JPEG 2000 with high throughput (HTJ2K), MPEG, JPEG XL and the deflated transfer syntax are not read: CR and DX devices
do not write the former, and the latter can be inflated to a thousand times its size before anything is known of it.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumolib.data.dicom_header import Header, extra
from pneumolib.errors import ImageError

_PIXEL_DATA = (0x7FE0, 0x0010)
_ITEM, _END = 0xE000FFFE, 0xE0DDFFFE  # tags of a fragment, and of what ends the fragments, as little-endian words
MOST_FRAGMENTS = 100_000
MOST_SEGMENTS = 1000  # of a JPEG's header
MOST_TILES = 4096  # of a JPEG 2000


@dataclass(frozen=True)
class Shape:
    """What the header says of the pixels, already checked for sense."""

    rows: int
    columns: int
    allocated: int  # 8 or 16 bits
    stored: int
    signed: bool

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


def stored_pixels(content: bytes, header: Header, shape: Shape) -> NDArray[np.uint16]:
    """Return the lowest `stored` bits of each pixel, uint16 ``[rows, columns]``, signed ones as two's complement.

    Raises:
        MissingExtraError: the decoder is not installed.
        ImageError: the pixels are cut off, or not what the header says. Decoders' own errors come through, too.
    """
    raw, words_swapped = _element(content, header)
    top = 2**shape.stored - 1
    if not header.syntax.encapsulated:
        values = _native(raw, shape, header.syntax.big_endian, words_swapped)
    else:
        values = _DECODERS[header.syntax.name](raw, shape)
        if values.shape != (shape.rows, shape.columns) or values.dtype.itemsize > 2 or values.dtype.kind not in "iu":
            raise _unlike("another image")
        if not shape.signed and values.dtype.kind == "u":
            # Lossy encoding may go a little over the top; cut to its lowest bits, white would become black.
            values = np.minimum(values, values.dtype.type(min(top, np.iinfo(values.dtype).max)))
    return values.astype(np.uint16) & np.uint16(top)


def _element(content: bytes, header: Header) -> tuple[bytes, bool]:
    """Return the bytes of the pixels, and whether pairs of 8-bit pixels are swapped, as big-endian words are."""
    order, at = "><"[not header.syntax.big_endian], header.pixels_at
    if len(content) < at + 8:
        raise ImageError("the DICOM file ends before its pixels")
    if struct.unpack_from(f"{order}HH", content, at) != _PIXEL_DATA:
        raise ImageError("the DICOM file holds no pixels as integers (PixelData)")
    vr = b"OW" if header.syntax.implicit else content[at + 4 : at + 6]
    if vr not in (b"OB", b"OW"):
        raise ImageError("the DICOM file's PixelData is neither bytes (OB) nor words (OW)")
    at += 4 if header.syntax.implicit else 8
    (length,) = struct.unpack_from(f"{order}I", content, at)
    at += 4
    if (length == 0xFFFFFFFF) != header.syntax.encapsulated:
        raise ImageError(f"the DICOM file's pixels are not stored as {header.syntax.name} is")
    if header.syntax.encapsulated:
        return _fragments(content, at), False
    if at + length > len(content):
        raise _cut(at + length - len(content))
    return content[at : at + length], header.syntax.big_endian and vr == b"OW"


def _fragments(content: bytes, at: int) -> bytes:
    """Return the one frame, its fragments put together."""
    found: list[bytes] = []
    while len(found) <= MOST_FRAGMENTS:
        if at + 8 > len(content):
            raise _cut(at + 8 - len(content))
        tag, length = struct.unpack_from("<II", content, at)
        at += 8
        if tag == _END:
            break
        if tag != _ITEM:
            raise ImageError("the DICOM file's pixels are not divided into fragments as the standard says")
        if at + length > len(content):
            raise _cut(at + length - len(content))
        found.append(content[at : at + length])
        at += length
    else:
        raise ImageError(f"the DICOM file's pixels are in too many fragments. Allowed: {MOST_FRAGMENTS:,}")
    # The first one is a table of offsets.
    if not any(found[1:]):
        raise ImageError("the DICOM file holds no pixels")
    return b"".join(found[1:])


def _native(raw: bytes, shape: Shape, big_endian: bool, swapped: bool) -> NDArray[np.uint16]:
    expected = shape.pixels * shape.allocated // 8
    # The length of an element is even.
    if len(raw) not in (expected, expected + expected % 2):
        raise ImageError(
            f"the DICOM file's pixels do not fill the image. Allowed: {expected:,} bytes for "
            f"{shape.columns} x {shape.rows} pixels of {shape.allocated} bits. Received: {len(raw):,} bytes"
        )
    if shape.allocated == 16:
        values = np.frombuffer(raw, ">u2" if big_endian else "<u2")
    else:
        values = np.frombuffer(raw, np.uint8)
        if swapped:
            values = values.view(np.uint16).byteswap().view(np.uint8)
    return values[: shape.pixels].reshape(shape.rows, shape.columns)


# === RLE ===


def _rle(frame: bytes, shape: Shape) -> NDArray[np.uint16]:
    planes = shape.allocated // 8
    if len(frame) < 64:
        raise _cut(64 - len(frame))
    count, *offsets = struct.unpack_from("<16I", frame)
    bounds = [*offsets[:planes], len(frame)]
    if count != planes or bounds[0] < 64 or sorted(bounds) != bounds:
        raise _unlike(f"{min(count, 99)} planes of bytes, where {planes} are due")
    values = np.zeros(shape.pixels, np.uint16)
    for begin, end in pairwise(bounds):
        # The plane of the higher bytes comes first.
        values = values << np.uint16(8) | np.frombuffer(_unpacked(frame[begin:end], shape.pixels), np.uint8)
    return values.reshape(shape.rows, shape.columns)


def _unpacked(packed: bytes, size: int) -> bytes:
    """Undo PackBits: a head below 128 announces as many bytes and one, one above 128 a byte that is repeated."""
    out, at = bytearray(), 0
    try:
        while len(out) < size:
            head = packed[at]
            if head < 128:
                end = at + head + 2
                out += packed[at + 1 : end]
                at = end
            elif head > 128:
                out += packed[at + 1 : at + 2] * (257 - head)
                at += 2
            else:
                at += 1
    except IndexError:
        raise _cut(size - len(out)) from None
    return bytes(out[:size])


# === JPEG, JPEG-LS, JPEG 2000 ===


def _jpeg(*frames: int) -> Callable[[bytes, Shape], NDArray[np.uint16]]:
    """Return a decoder of JPEGs of those kinds, named by the second byte of the marker that begins the frame."""

    def decoder(frame: bytes, shape: Shape) -> NDArray[np.uint16]:
        kind, precision, *rest = _jpeg_frame(frame)
        if kind not in frames:
            raise _unlike("a JPEG of another kind")
        _compare(precision, *rest, shape=shape)
        _require_end(frame)
        if kind == _LS:
            return np.asarray(extra("imagecodecs").jpegls_decode(frame))
        if kind != _LOSSLESS and precision == 8:
            with Image.open(io.BytesIO(frame), formats=("JPEG",)) as picture:
                # Pillow reads on to the last frame header, where there are several.
                if picture.size != (shape.columns, shape.rows) or picture.mode != "L":
                    raise _unlike("another image")
                return np.asarray(picture)
        return np.asarray(extra("imagecodecs").jpeg8_decode(frame))

    return decoder


def _jpeg_frame(frame: bytes) -> tuple[int, int, int, int, int]:
    """Return kind, precision, rows, columns and number of components, from the header of a JPEG or JPEG-LS."""
    at = 2
    if frame[:2] == b"\xff\xd8":
        for _ in range(MOST_SEGMENTS):
            if at + 10 > len(frame) or frame[at] != 0xFF:
                break
            kind, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
            if kind in _FRAMES:
                return (kind, *struct.unpack_from(">BHHB", frame, at + 4))
            # Bytes of 0xff may fill the room before a marker.
            at += 1 if kind == 0xFF else 2 + length
    raise ImageError("the DICOM file's pixels are no JPEG that can be read")


def _jpeg2000(frame: bytes, shape: Shape) -> NDArray[np.uint16]:
    if len(frame) < 45 or frame[:4] != b"\xff\x4f\xff\x51":
        raise ImageError("the DICOM file's pixels are no JPEG 2000 codestream")
    right, bottom, left, top, tile_width, tile_height = struct.unpack_from(">6I", frame, 8)
    components, depth, across, down = struct.unpack_from(">HBBB", frame, 40)
    if (across, down) != (1, 1):
        raise _unlike("an image of another resolution")
    _compare((depth & 0x7F) + 1, bottom - top, right - left, components, shape=shape)
    # OpenJPEG takes ten KiB for each tile, whether it is there or not.
    if (shape.rows // max(tile_height, 1) + 1) * (shape.columns // max(tile_width, 1) + 1) > MOST_TILES:
        raise ImageError(f"the DICOM file's pixels are in too many tiles. Allowed: {MOST_TILES:,}")
    _require_end(frame)
    return np.asarray(extra("imagecodecs").jpeg2k_decode(frame))


def _compare(precision: int, rows: int, columns: int, components: int, *, shape: Shape) -> None:
    if (rows, columns) != (shape.rows, shape.columns):
        raise _unlike(f"{columns} x {rows} pixels, where {shape.columns} x {shape.rows} are due")
    if components != 1:
        raise _unlike(f"{components} colours, where one gray is due")
    if not shape.stored <= precision <= 16:
        raise _unlike(f"{precision} bits, where {shape.stored} are due")


def _require_end(frame: bytes) -> None:
    """Refuse a codestream without its end: decoders make up what is missing, and CharLS counts for seconds first."""
    if not frame.rstrip(b"\0\xff").endswith(b"\xff\xd9"):  # after it, zeros or ones make the length even
        raise ImageError("the DICOM file's pixels are cut off: the end of the encoded image is missing")


_LOSSLESS, _LS = 0xC3, 0xF7
# All markers that begin a frame; 0xc4, 0xc8 and 0xcc among them are something else.
_FRAMES = {*range(0xC0, 0xD0), _LS} - {0xC4, 0xC8, 0xCC}
_DECODERS: dict[str, Callable[[bytes, Shape], NDArray[np.uint16]]] = {
    "RLE Lossless": _rle,
    "JPEG Baseline": _jpeg(0xC0),
    "JPEG Extended": _jpeg(0xC0, 0xC1),
    "JPEG Lossless": _jpeg(_LOSSLESS),
    "JPEG Lossless SV1": _jpeg(_LOSSLESS),
    "JPEG-LS Lossless": _jpeg(_LS),
    "JPEG-LS Near-lossless": _jpeg(_LS),
    "JPEG 2000 Lossless": _jpeg2000,
    "JPEG 2000": _jpeg2000,
}


def _cut(missing: int) -> ImageError:
    return ImageError(f"the DICOM file's pixels are cut off: {missing:,} bytes are missing")


def _unlike(received: str) -> ImageError:
    return ImageError(f"the DICOM file's pixels are not what its header says. Received: {received}")
