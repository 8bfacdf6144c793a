"""From stored values to gray: modality, window, inversion, padding, in the order of the standard (PS3.3 C.11, C.7.6.3).

1. The modality transformation, a table or ``slope * value + intercept``, gives values that mean something.
2. The values of interest (VOI): the first table, or else the first window, LINEAR, LINEAR_EXACT or SIGMOID. Where a
   file offers several, its first is the default view.
3. MONOCHROME1 is turned over, after the window and not before, since the window is laid on what is stored.
4. Padding is laid on black, as transparent pixels of other formats are.

Without a table and a window the standard says identity: the whole range that the bits can hold becomes black to white.
So it is here. The range that the pixels happen to use is not taken, because then one metal marker would decide how
bright a lung is. One exception, the same as for PNG and TIFF: 16 bits whose values stay below 4096 are read as 12, the
depth of radiographic detectors, because whoever writes 16 bits often did not know.

Stored values have at most 16 bits, so all of this is one table of at most 65,536 grays, and a look into it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pneumolib.data.dicom_header import Elements, wrong
from pneumolib.data.dicom_pixels import Shape
from pneumolib.errors import ImageError, UnsupportedImageError

_Values = NDArray[np.float64]
_Range = tuple[float, float]


def to_gray(pixels: NDArray[np.uint16], shape: Shape, elements: Elements) -> NDArray[np.uint8]:
    """Return stored pixels as they are to be shown, uint8 ``[rows, columns]``; raises `ImageError` as the module says.

    Args:
        pixels: uint16 ``[rows, columns]``, of which the lowest `shape.stored` bits count.
        shape: of the pixels.
        elements: of the header.
    """
    declared = 2**shape.stored
    codes = np.arange(declared)
    stored = np.where(codes >= declared // 2, codes - declared, codes) if shape.signed else codes
    plain = shape.stored == 16 and not shape.signed and int(pixels.max()) < 4096
    values, whole_range = _modality(stored, elements, 4096 if plain else declared)
    shown = _of_interest(values, whole_range, elements, shape.signed)
    if _inverted(elements):
        shown = 1 - shown
    table = np.rint(shown * 255).astype(np.uint8)
    table[_padding(stored, elements)] = 0
    return table[pixels]


def _modality(stored: NDArray[np.int64], elements: Elements, used: int) -> tuple[_Values, _Range]:
    """Return what the stored values mean, and the range that these meanings can have."""
    item = elements.first_item("ModalityLUTSequence")
    if item is not None:
        first, table, top = _lut(item)
        return _looked_up(stored.astype(np.float64), first, table), (0.0, top)
    slope = _one(elements, "RescaleSlope", 1.0)
    values = stored.astype(np.float64) * slope + _one(elements, "RescaleIntercept", 0.0)
    if slope == 0:
        raise wrong("RescaleSlope")
    within = values[:used]
    return values, (float(within.min()), float(within.max()))


def _of_interest(values: _Values, whole_range: _Range, elements: Elements, signed: bool) -> _Values:
    """Return how bright each value is to be shown, 0..1."""
    item = elements.first_item("VOILUTSequence")
    if item is not None:
        first, table, top = _lut(item)
        return _looked_up(values, first, table) / top
    centers, widths = elements.numbers("WindowCenter"), elements.numbers("WindowWidth")
    if bool(centers) != bool(widths):
        raise ImageError("the DICOM header has half a window: WindowCenter and WindowWidth go together")
    if not centers:
        low, high = whole_range
        return np.clip((values - low) / (high - low), 0, 1)
    return _window(values, centers[0], widths[0], elements.word("VOILUTFunction") or "LINEAR")


def _window(values: _Values, center: float, width: float, function: str) -> _Values:
    if not (width >= 1 if function == "LINEAR" else width > 0):
        raise wrong("WindowWidth")
    if function == "LINEAR":
        # A width of 1 is a step; else the formula of the standard, whose window is one value narrower than its name.
        if width == 1:
            return (values > center - 0.5).astype(np.float64)
        return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    raise UnsupportedImageError(
        "the DICOM header's VOILUTFunction is not known. Allowed: LINEAR, LINEAR_EXACT or SIGMOID"
    )


def _inverted(elements: Elements) -> bool:
    inverted = elements.word("PhotometricInterpretation") == "MONOCHROME1"
    said_again = elements.word("PresentationLUTShape")
    if said_again in ("IDENTITY", "INVERSE") and inverted != (said_again == "INVERSE"):
        raise ImageError(
            "the DICOM header contradicts itself on what is white. Allowed: MONOCHROME1 with PresentationLUTShape "
            "INVERSE, MONOCHROME2 with IDENTITY, or either without"
        )
    return inverted


def _padding(stored: NDArray[np.int64], elements: Elements) -> NDArray[np.bool_]:
    """Return which of the stored values stand for no pixel."""
    if elements.value("PixelPaddingValue") is None:
        return np.zeros(len(stored), bool)
    one = elements.whole("PixelPaddingValue")
    other = elements.whole("PixelPaddingRangeLimit", one)
    return np.asarray((stored >= min(one, other)) & (stored <= max(one, other)))


def _lut(item: Elements) -> tuple[int, _Values, float]:
    """Return the value that a table's first entry is for, the entries, and the highest that an entry can be."""
    descriptor = item.value("LUTDescriptor")
    if isinstance(descriptor, str | bytes) or descriptor is None or len(descriptor) != 3:
        raise wrong("LUTDescriptor")
    if not all(isinstance(number, int) for number in descriptor):
        raise wrong("LUTDescriptor")
    # The number of entries is unsigned, whatever the others are; 0 stands for 65,536, which does not fit.
    size, first, bits = (descriptor[0] & 0xFFFF) or 2**16, int(descriptor[1]), int(descriptor[2])
    data = item.value("LUTData")
    if isinstance(data, bytes):
        packed = bits == 8 and len(data) in (size, size + size % 2)
        entries = np.frombuffer(data, np.uint8 if packed else "><"[item.little_endian] + "u2")[:size]
    else:
        entries = np.array(data if isinstance(data, list) or hasattr(data, "__len__") else [data])
    if not 8 <= bits <= 16:
        raise wrong("LUTDescriptor")
    if entries.shape != (size,) or entries.dtype.kind not in "iu" or not 0 <= entries.min() <= entries.max() < 2**bits:
        raise wrong("LUTData")
    return first, entries.astype(np.float64), 2.0**bits - 1


def _looked_up(values: _Values, first: int, table: _Values) -> _Values:
    return np.asarray(table[np.clip(np.rint(values) - first, 0, len(table) - 1).astype(np.int64)])


def _one(elements: Elements, keyword: str, default: float) -> float:
    found = elements.numbers(keyword)
    if len(found) > 1:
        raise wrong(keyword)
    return found[0] if found else default
