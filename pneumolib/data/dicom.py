"""DICOM radiographs: what is read of them, and as what gray picture.

Read are digital radiographs, CR and DX, of one frame and one gray sample a pixel, in the transfer syntaxes that
`pneumolib.data.dicom_header` lists. They leave as other pictures do, uint8 ``[H, W]``, dark where little radiation was
stopped, as `pneumolib.data.dicom_tones` says. Everything else is refused, with a reason:

- A file without the prefix ``DICM`` at byte 128: it does not say that it is DICOM, nor how it is written.
- Other modalities, ``RG`` (digitised film, with a curve of its own) and ``DR`` (no term of the standard) among them.
- Images for processing: what the detector measured, before it was made into a picture, whose look nobody has set.
- Several frames, colour, a DICOMDIR.

PixelAspectRatio, or else PixelSpacing or ImagerPixelSpacing, tells whether pixels are square; where they are not, the
picture is stretched until they are. Overlays, annotations and the patient's orientation are left alone: the pixels
stand as they are stored, as every viewer shows them first.

Sizes are compared with the limits before a pixel is decoded. Names, dates and numbers of the header are not read, and
no message holds anything of a header but words of the standard; the errors carry no trace of pydicom's, whose
messages quote what they cannot read.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumolib.data.dicom_header import PREFIX, PREFIX_AT, Elements, Header, extra, read_header, silence, wrong
from pneumolib.data.dicom_pixels import Shape, stored_pixels
from pneumolib.data.dicom_tones import to_gray
from pneumolib.errors import ImageError, ImageTooLargeError, MissingExtraError, PneumolibError, UnsupportedImageError

MODALITIES = ("CR", "DX")
# Words that a message may repeat: a header may hold anything in their place.
_KNOWN = ("CT", "DR", "IO", "MG", "MR", "NM", "OT", "PR", "PT", "PX", "RF", "RG", "SC", "SR", "US", "XA")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"  # Digital X-Ray Image Storage - For Processing


def is_dicom(content: bytes) -> bool:
    """Return whether a file says of itself that it is DICOM.

    Examples:
        >>> is_dicom(bytes(128) + b"DICM")
        True
    """
    return content[PREFIX_AT : PREFIX_AT + len(PREFIX)] == PREFIX


def read(content: bytes, max_pixels: int, *, square_pixels: bool = True) -> NDArray[np.uint8]:
    """Return the radiograph as gray values, uint8 ``[H, W]``.

    Args:
        content: the bytes of a file for which `is_dicom` holds.
        max_pixels: what has more, also after it was stretched, is refused.
        square_pixels: stretch the picture where its pixels are not square; without, its shape is the stored one.

    Raises:
        MissingExtraError: a package of the extra ``dicom`` is not installed.
        ImageTooLargeError: it has too many pixels.
        UnsupportedImageError: it is DICOM of a kind that is not read.
        ImageError: it is damaged, or contradicts itself.
    """

    def gray() -> NDArray[np.uint8]:
        header = read_header(content)
        shape = _shape(header.elements, max_pixels)
        height, width = _square(header.elements, shape, max_pixels)
        picture = to_gray(stored_pixels(content, header, shape), shape, header.elements)
        if not square_pixels or picture.shape == (height, width):
            return picture
        return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))

    found: NDArray[np.uint8] = _nothing_let_out(gray, len(content))
    return found


def preload() -> None:
    """Load what is loaded when a file is met for the first time, as far as it is installed."""
    for name in ("pydicom.filereader", "pydicom.datadict", "pydicom.uid", "imagecodecs"):
        with contextlib.suppress(ImportError):
            module = extra(name)
            for decoder in ("jpeg8_decode", "jpegls_decode", "jpeg2k_decode") if name == "imagecodecs" else ():
                getattr(module, decoder)


def facts(content: bytes) -> dict[str, Any]:
    """Return format, mode (of Pillow), width and height, from the header alone; raises as `read` does."""

    def look() -> dict[str, Any]:
        header: Header = read_header(content)
        shape = _shape(header.elements, 2**32)
        mode = "L" if shape.stored <= 8 else "I;16"
        return {"format": "DICOM", "mode": mode, "width": shape.columns, "height": shape.rows}

    found: dict[str, Any] = _nothing_let_out(look, len(content))
    return found


def _nothing_let_out(work: Any, size: int) -> Any:
    """Return what `work` gives; of what it raises, only our own words leave, and no chain to where they came from."""
    kind: type[PneumolibError]
    with silence():
        try:
            return work()
        except MissingExtraError:
            raise
        except ImageError as error:
            kind, message = type(error), str(error)
        except ImportError:  # imagecodecs can be built without some of its decoders
            kind = MissingExtraError
            message = "the DICOM file's decoder is not installed. Install the extra: pip install 'pneumolib[dicom]'"
        except Exception:  # pydicom and the decoders raise whatever comes
            kind, message = ImageError, f"the DICOM file is damaged. Allowed: a whole file. Received: {size:,} bytes"
    # Raised here, where no other error is being handled, it does not carry that one along.
    raise kind(message)


def _shape(elements: Elements, max_pixels: int) -> Shape:
    """Return what the header says of the pixels, or refuse it."""
    _require_kind(elements)
    rows, columns = elements.whole("Rows"), elements.whole("Columns")
    if rows < 1 or columns < 1:
        raise ImageError("the DICOM image has no pixels")
    if rows * columns > max_pixels:
        raise _too_large(columns, rows, max_pixels)
    allocated, stored = elements.whole("BitsAllocated"), elements.whole("BitsStored")
    if allocated not in (8, 16) or not 6 <= stored <= allocated:
        raise UnsupportedImageError(
            f"the DICOM image's depth is not read. Allowed: 6 to 16 bits in 8 or 16. Received: {stored} in {allocated}"
        )
    if elements.whole("HighBit", stored - 1) != stored - 1:
        raise UnsupportedImageError("the DICOM image's bits are not the lowest ones. Allowed: HighBit = BitsStored - 1")
    signed = elements.whole("PixelRepresentation")
    if signed not in (0, 1):
        raise wrong("PixelRepresentation")
    return Shape(rows, columns, allocated, stored, bool(signed))


def _require_kind(elements: Elements) -> None:
    modality = elements.word("Modality")
    if not modality:
        raise ImageError("the DICOM header lacks Modality")
    if modality not in MODALITIES:
        received = modality if modality in _KNOWN else "another"
        raise UnsupportedImageError(
            f"the DICOM file is no digital radiograph. Allowed: modality {' or '.join(MODALITIES)}. "
            f"Received: {received}"
        )
    if elements.word("PresentationIntentType") == "FOR PROCESSING" or elements.word("SOPClassUID") == _FOR_PROCESSING:
        raise UnsupportedImageError(
            "the DICOM image is for processing, not yet a picture. Allowed: images for presentation"
        )
    frames = elements.whole("NumberOfFrames", 1)
    if frames != 1:
        raise UnsupportedImageError(f"the DICOM file holds several images. Allowed: one. Received: {frames}")
    photometric = elements.word("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or elements.whole("SamplesPerPixel", 1) != 1:
        received = photometric if photometric in _COLOURS else "another"
        raise UnsupportedImageError(
            f"the DICOM image is not gray. Allowed: MONOCHROME1 or MONOCHROME2, one sample. Received: {received}"
        )


def _square(elements: Elements, shape: Shape, max_pixels: int) -> tuple[int, int]:
    """Return the height and width at which pixels are square; the side along which they are long is stretched."""
    for keyword in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"):
        sides = elements.numbers(keyword)
        if sides:
            break
    else:
        return shape.rows, shape.columns
    if len(sides) != 2 or min(sides) <= 0:
        raise wrong(keyword)
    down, across = sides
    height = round(shape.rows * max(1.0, down / across))
    width = round(shape.columns * max(1.0, across / down))
    if height * width > max_pixels:
        raise _too_large(width, height, max_pixels)
    return height, width


def _too_large(width: int, height: int, max_pixels: int) -> ImageTooLargeError:
    return ImageTooLargeError(f"the image is too large. Allowed: {max_pixels:,} pixels. Received: {width} x {height}")
