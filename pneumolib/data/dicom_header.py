"""The header of a DICOM file: a few technical elements, read within bounds; nothing that identifies anybody.

pydicom reads it, and only the elements that the picture needs: names, dates, numbers and places are passed over. What
the rest of the package learns of a header comes through `Elements`, which looks at a value's size and kind before it
believes it. What a file says is never put into a message, unless it is a word of the standard.
"""

from __future__ import annotations

import functools
import importlib
import io
import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pneumolib.errors import ImageError, MissingExtraError, UnsupportedImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PREFIX = b"DICM"
PREFIX_AT = 128  # after a preamble that may hold anything
MOST_READS = 20_000  # of pieces of a header, up to three for each element; a radiograph's has some hundred elements
MOST_BYTES = 2**17  # of one element: a table of 65,536 grays
MOST_LETTERS = 1024  # of a text, among them those of numbers

WANTED = (
    "SOPClassUID", "Modality", "PresentationIntentType", "SamplesPerPixel", "PhotometricInterpretation",
    "NumberOfFrames", "Rows", "Columns", "PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "VOILUTSequence", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence",
    "PresentationLUTShape",
)  # fmt: skip
_META = ("TransferSyntaxUID", "MediaStorageSOPClassUID")
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Syntax:
    """How a file is written: a transfer syntax, by the standard's name."""

    name: str
    implicit: bool = False
    big_endian: bool = False
    encapsulated: bool = True


SYNTAXES = {
    "1.2.840.10008.1.2": Syntax("Implicit VR Little Endian", implicit=True, encapsulated=False),
    "1.2.840.10008.1.2.1": Syntax("Explicit VR Little Endian", encapsulated=False),
    "1.2.840.10008.1.2.2": Syntax("Explicit VR Big Endian", big_endian=True, encapsulated=False),
    "1.2.840.10008.1.2.5": Syntax("RLE Lossless"),
    "1.2.840.10008.1.2.4.50": Syntax("JPEG Baseline"),
    "1.2.840.10008.1.2.4.51": Syntax("JPEG Extended"),
    "1.2.840.10008.1.2.4.57": Syntax("JPEG Lossless"),
    "1.2.840.10008.1.2.4.70": Syntax("JPEG Lossless SV1"),
    "1.2.840.10008.1.2.4.80": Syntax("JPEG-LS Lossless"),
    "1.2.840.10008.1.2.4.81": Syntax("JPEG-LS Near-lossless"),
    "1.2.840.10008.1.2.4.90": Syntax("JPEG 2000 Lossless"),
    "1.2.840.10008.1.2.4.91": Syntax("JPEG 2000"),
}
_ALLOWED = "Allowed: uncompressed, RLE, JPEG, JPEG Lossless, JPEG-LS or JPEG 2000"


class Elements:
    """The elements of a header, or of an item in it, asked for by keyword; absent and empty are the same."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    @property
    def little_endian(self) -> bool:
        """How words in values that are bytes stand."""
        return bool(self._dataset.original_encoding[1])

    def word(self, keyword: str) -> str:
        """The text of an element, in capitals; empty where there is none."""
        value = self.value(keyword)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise wrong(keyword)
        return value.strip().upper()

    def whole(self, keyword: str, default: int | None = None) -> int:
        """The whole number of an element; where there is none the default, or an error where that is None."""
        value = self.value(keyword)
        if value is None:
            if default is None:
                raise ImageError(f"the DICOM header lacks {keyword}")
            return default
        if not isinstance(value, int):
            raise wrong(keyword)
        return int(value)

    def numbers(self, keyword: str) -> list[float]:
        """The numbers of an element, which must be of ordinary size."""
        value = self.value(keyword)
        values = [] if value is None else list(value) if _many(value) else [value]
        try:
            found = [float(v) for v in values]
        except (TypeError, ValueError):
            found = [math.nan]
        if not all(abs(v) < 1e9 for v in found):
            raise wrong(keyword)
        return found

    def first_item(self, keyword: str) -> Elements | None:
        """The first item of a sequence."""
        if keyword not in self._dataset:
            return None
        raw: Any = self._dataset.get_item(keyword)
        if raw.VR not in ("SQ", None):
            raise wrong(keyword)
        if isinstance(raw.value, bytes):
            # A sequence that has a length was not taken apart yet; it is now, by the same measure.
            read = extra("pydicom.filereader").read_sequence
            items = read(_Counted(raw.value), raw.is_implicit_VR, raw.is_little_endian, len(raw.value), "iso8859")
            self._dataset.add_new(keyword, "SQ", items)
        items = self._dataset[keyword].value
        return Elements(items[0]) if items else None

    def value(self, keyword: str) -> Any:
        """The value as pydicom gives it, or None."""
        if keyword not in self._dataset:
            return None
        raw: Any = self._dataset.get_item(keyword)
        usual = extra("pydicom.datadict").dictionary_VR(keyword)
        most = MOST_LETTERS if {usual, raw.VR or usual} & {"CS", "DS", "IS", "UI"} else MOST_BYTES
        # Before pydicom makes objects of the bytes: a text of megabytes may hold millions of numbers.
        if isinstance(raw.value, bytes) and len(raw.value) > most:
            raise wrong(keyword)
        value = self._dataset[keyword].value
        return None if value is None or (isinstance(value, str | bytes) and not value) else value


@dataclass(frozen=True, eq=False)
class Header:
    """What was read of a header, how the file is written, and where the element of the pixels begins."""

    elements: Elements
    syntax: Syntax
    pixels_at: int


def read_header(content: bytes) -> Header:
    """Return the header of a DICOM file, its pixels not looked at.

    Raises:
        MissingExtraError: pydicom is not installed.
        UnsupportedImageError: it is a directory of files, or written in a transfer syntax that is not read.
        ImageError: the header cannot be read. pydicom's own errors come through for what is badly damaged.
    """
    reader, tag = extra("pydicom.filereader"), extra("pydicom.tag").Tag
    file = _Counted(content)
    file.seek(PREFIX_AT + len(PREFIX))
    meta = reader.read_dataset(
        file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2, specific_tags=[tag(k) for k in _META]
    )
    if meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        raise UnsupportedImageError(
            "the file is a DICOMDIR, a table of contents, which is not opened. Allowed: the files that it lists"
        )
    # Known before the data set is touched: a deflated one would be inflated, to whatever size it has.
    syntax = _syntax(meta.get("TransferSyntaxUID"))
    dataset = reader.read_dataset(
        file,
        syntax.implicit,
        not syntax.big_endian,
        stop_when=lambda tag, vr, length: tag in _PIXELS,
        specific_tags=[tag(keyword) for keyword in WANTED],
    )
    if dataset.original_encoding != (syntax.implicit, not syntax.big_endian):
        raise ImageError(f"the DICOM header is not written as its transfer syntax says. Received: {syntax.name}")
    return Header(Elements(dataset), syntax, file.tell())


def extra(name: str) -> Any:
    """Return the module of that name, which the extra ``dicom`` brings; `MissingExtraError` where it is missing."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the file is DICOM, for which a package is needed that is not installed: {name.split('.')[0]}. "
            "Install the extra: pip install 'pneumolib[dicom]'"
        ) from error
    if name.startswith("pydicom"):
        _can_be_silent()
    return module


@contextmanager
def silence() -> Iterator[None]:
    """Keep what pydicom says of a header, in this thread, from the log: it may quote what identifies somebody."""
    _INSIDE.yes = True
    try:
        yield
    finally:
        _INSIDE.yes = False


def wrong(keyword: str) -> ImageError:
    """The error that says of an element that it makes no sense, without saying what stands in it."""
    return ImageError(f"the DICOM header's {keyword} is not what the standard allows there")


def _syntax(uid: object) -> Syntax:
    if not isinstance(uid, str) or not uid:
        raise ImageError(f"the DICOM file does not say in which transfer syntax it is written. {_ALLOWED}")
    if uid in SYNTAXES:
        return SYNTAXES[uid]
    registered = extra("pydicom.uid").UID_dictionary.get(uid)
    name = registered[0] if registered else "one that is not registered"
    raise UnsupportedImageError(f"the DICOM file's transfer syntax is not read. {_ALLOWED}. Received: {name}")


def _many(value: object) -> bool:
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, str | bytes)


class _Counted(io.BytesIO):
    """A file that may be read from so many times: a header of millions of elements would take minutes and gigabytes."""

    left = MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise ImageError("the DICOM header has more elements than any radiograph's")
        return super().read(size)


class _Inside(threading.local):
    yes = False


_INSIDE = _Inside()


@functools.cache
def _can_be_silent() -> None:
    logging.getLogger("pydicom").addFilter(lambda record: not _INSIDE.yes)
