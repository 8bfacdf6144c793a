"""DICOM through the one door: right pixels, refusals with a reason, and nothing of anybody's identity."""

from __future__ import annotations

import io
import logging
import struct
import subprocess
import sys
import threading
import traceback
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("pydicom", reason="the extra 'dicom' is not installed")
pytest.importorskip("imagecodecs", reason="the extra 'dicom' is not installed")

import imagecodecs
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from pneumolib.data import dicom, dicom_header
from pneumolib.data.class_folders import class_folders
from pneumolib.data.dataset import load_dataset
from pneumolib.data.facts import file_facts, look
from pneumolib.data.images import Limits, decode, load_square
from pneumolib.data.radiograph import draw
from pneumolib.errors import (
    ImageError,
    ImageTooLargeError,
    MissingExtraError,
    PneumolibError,
    UnsupportedImageError,
)

# What must never be met again outside a file. Upper and lower case, since words are compared in capitals.
SECRETS = {
    "PatientName": "QUIXWORTH^ZELDA",
    "PatientID": "MRN-4711-X",
    "PatientBirthDate": "19610214",
    "StudyDate": "20230517",
    "AccessionNumber": "ACC900817",
    "InstitutionName": "SAINT ELSEWHERE",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.777001",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.777002",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.777003",
}
DEEP = (draw("normal", 1, size=(96, 120)).astype(np.uint16) * 16 + np.arange(120, dtype=np.uint16) % 16).astype("u2")
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
FULL = RAMP * 255.0 / 4095  # what the ramp is to look like without a window


def dicom_file(
    values: np.ndarray = DEEP,
    *,
    syntax: str = uid.ExplicitVRLittleEndian,
    frame: bytes | None = None,
    bits: int = 12,
    leave_out: tuple[str, ...] = (),
    **elements: Any,
) -> bytes:
    """A CR image as a file: of `values`, or of encoded frames; `elements` stand over the usual ones."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    allocated = values.dtype.itemsize * 8
    usual: dict[str, Any] = {
        **SECRETS,
        "SOPClassUID": uid.ComputedRadiographyImageStorage,
        "Modality": "CR",
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": allocated,
        "BitsStored": min(bits, allocated),
        "PixelRepresentation": int(values.dtype.kind == "i"),
    }
    usual |= elements
    if isinstance(usual["BitsStored"], int):
        usual.setdefault("HighBit", max(0, usual["BitsStored"] - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in usual.items():
            if keyword not in leave_out:
                setattr(dataset, keyword, value)
    if "PixelData" not in leave_out:
        big = syntax == uid.ExplicitVRBigEndian and allocated == 16
        raw = values.astype(values.dtype.newbyteorder(">")).tobytes() if big else values.tobytes()
        dataset.PixelData = raw + b"\0" * (len(raw) % 2) if frame is None else encapsulate([frame])
        words = frame is None and (allocated == 16 or syntax == uid.ImplicitVRLittleEndian)
        dataset["PixelData"].VR = "OW" if words else "OB"
    return saved(dataset, syntax)


def saved(dataset: Dataset, syntax: str, sop_class: str = uid.ComputedRadiographyImageStorage) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.file_meta.MediaStorageSOPClassUID = sop_class
        dataset.file_meta.MediaStorageSOPInstanceUID = SECRETS["SOPInstanceUID"]
        dataset.save_as(
            file,
            implicit_vr=syntax == uid.ImplicitVRLittleEndian,
            little_endian=syntax != uid.ExplicitVRBigEndian,
            enforce_file_format=True,
        )
    return file.getvalue()


def item(**elements: Any) -> list[Dataset]:
    dataset = Dataset()
    for keyword, value in elements.items():
        if keyword == "LUTData":
            dataset.add_new(keyword, "OW" if isinstance(value, bytes) else "US", value)
        else:
            setattr(dataset, keyword, value)
    return [dataset]


def lut(first: int, entries: list[int], bits: int) -> list[Dataset]:
    return item(LUTDescriptor=[len(entries) % 65536, first, bits], LUTData=entries)


def expected(content: bytes) -> np.ndarray:
    """What pydicom makes of a file, as gray 0..255, float; it leaves MONOCHROME1 to others."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    stored = dataset.pixel_array
    low, high = (0, 2**dataset.BitsStored - 1)
    if dataset.PixelRepresentation:
        low, high = -(2 ** (dataset.BitsStored - 1)), 2 ** (dataset.BitsStored - 1) - 1
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    bounds = sorted((low * slope + intercept, high * slope + intercept))
    values = apply_modality_lut(stored, dataset)
    if "ModalityLUTSequence" in dataset:
        bounds = [0, 2 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1]
    if "VOILUTSequence" in dataset:
        values = apply_voi_lut(values, dataset)
        bounds = [0, 2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1]
    elif "WindowWidth" in dataset:
        with np.errstate(over="ignore"):
            values = apply_voi_lut(values, dataset, index=0)
    shown = (values - bounds[0]) / (bounds[1] - bounds[0])
    return 255 * (1 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown)


def assert_gray(image: np.ndarray, gray: np.ndarray) -> None:
    """The image is the gray values, rounded."""
    assert image.dtype == np.uint8
    assert image.shape == gray.shape
    assert np.abs(image - gray).max() <= 0.5 + 1e-6


def refused(content: bytes | Path, said: str, kind: type[PneumolibError] = ImageError, **options: Any) -> str:
    """The message of a refusal that is of just this kind, and from which nobody's identity can be learnt."""
    with pytest.raises(kind, match=said) as caught:
        decode(content, **options)
    assert caught.type is kind
    assert_anonymous("".join(traceback.format_exception(caught.value)))
    link: BaseException | None = caught.value
    while link is not None:
        assert isinstance(link, PneumolibError), "an error of pydicom's hangs on, which may quote the header"
        link = link.__context__
    return str(caught.value)


def assert_anonymous(text: str) -> None:
    for secret in SECRETS.values():
        for part in secret.replace("^", " ").split():
            assert part.lower() not in text.lower()


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


# === How the pixels are encoded ===


def jpeg(values: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(values, **options))


def rle(values: np.ndarray) -> bytes:
    """Bytes in planes, each one packed by the rule that Apple called PackBits."""
    planes = (
        [values.astype(">u2").tobytes()[k::2] for k in (0, 1)] if values.dtype.itemsize == 2 else [values.tobytes()]
    )
    packed = [bytes(imagecodecs.packbits_encode(plane)) for plane in planes]
    packed = [part + b"\0" * (len(part) % 2) for part in packed]
    offsets = [64 + sum(len(part) for part in packed[:k]) for k in range(len(packed))]
    return struct.pack("<16I", len(packed), *offsets, *[0] * (15 - len(packed))) + b"".join(packed)


NATIVE = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
}
ENCODED = {  # of 12 bits: transfer syntax, encoder, and by how much the pixels may differ
    "RLE": (uid.RLELossless, rle, 0),
    "JPEG Extended": (uid.JPEGExtended12Bit, lambda v: jpeg(v, level=95, bitspersample=12), 60),
    "JPEG Lossless": (uid.JPEGLossless, lambda v: jpeg(v, lossless=True, predictor=4, bitspersample=12), 0),
    "JPEG Lossless SV1": (uid.JPEGLosslessSV1, lambda v: jpeg(v, lossless=True, predictor=1, bitspersample=12), 0),
    "JPEG Lossless of 16": (uid.JPEGLosslessSV1, lambda v: jpeg(v, lossless=True, predictor=1, bitspersample=16), 0),
    "JPEG-LS": (uid.JPEGLSLossless, lambda v: bytes(imagecodecs.jpegls_encode(v)), 0),
    "JPEG-LS near": (uid.JPEGLSNearLossless, lambda v: bytes(imagecodecs.jpegls_encode(v, level=3)), 3),
    "JPEG 2000": (uid.JPEG2000Lossless, lambda v: jpeg2000(v, level=0), 0),
    "JPEG 2000 lossy": (uid.JPEG2000, lambda v: jpeg2000(v, level=60), 20),
}


def jpeg2000(values: np.ndarray, level: int, bits: int = 12) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(values, codecformat="j2k", bitspersample=bits, level=level))


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize(
    "values", [DEEP, (DEEP >> 4).astype(np.uint8), DEEP[:95, :119], (DEEP >> 4).astype(np.uint8)[:95, :119]]
)
def test_uncompressed_pixels_come_in(name: str, values: np.ndarray) -> None:
    content = dicom_file(values, syntax=NATIVE[name])
    assert_gray(decode(content), expected(content))
    assert_gray(decode(content), values * 255.0 / (4095 if values.dtype == np.uint16 else 255))


@pytest.mark.parametrize("name", ENCODED)
def test_encoded_pixels_come_in(name: str) -> None:
    syntax, encode, off = ENCODED[name]
    frame = encode(DEEP)
    content = dicom_file(DEEP, syntax=syntax, frame=frame)
    assert len(frame) < DEEP.nbytes
    image = decode(content)
    assert np.abs(image - DEEP * 255.0 / 4095).max() <= 0.5 + off * 255 / 4095
    if off == 0:
        np.testing.assert_array_equal(image, decode(dicom_file(DEEP)))


@pytest.mark.parametrize(
    "name", [n for n in ENCODED if ENCODED[n][2] == 0 and "Extended" not in n and "of 16" not in n]
)
def test_8_bits_come_in_encoded(name: str) -> None:
    values = (DEEP >> 4).astype(np.uint8)
    syntax = ENCODED[name][0]
    frame = {
        uid.RLELossless: rle,
        uid.JPEGLossless: lambda v: jpeg(v, lossless=True, predictor=5, bitspersample=8),
        uid.JPEGLosslessSV1: lambda v: jpeg(v, lossless=True, bitspersample=8),
        uid.JPEGLSLossless: lambda v: bytes(imagecodecs.jpegls_encode(v)),
        uid.JPEG2000Lossless: lambda v: jpeg2000(v, 0, 8),
    }[syntax](values)
    np.testing.assert_array_equal(decode(dicom_file(values, syntax=syntax, frame=frame)), values)


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit])
def test_a_jpeg_of_8_bits_is_what_the_door_makes_of_it_as_a_file(syntax: str) -> None:
    file = io.BytesIO()
    Image.fromarray((DEEP >> 4).astype(np.uint8)).save(file, "JPEG", quality=90)
    content = dicom_file((DEEP >> 4).astype(np.uint8), syntax=syntax, frame=file.getvalue())
    np.testing.assert_array_equal(decode(content), decode(file.getvalue()))


@pytest.mark.parametrize("name", ["RLE", "JPEG Lossless SV1", "JPEG-LS", "JPEG 2000"])
def test_signed_values_come_in_encoded(name: str) -> None:
    values = DEEP.astype(np.int16) - 2048
    unsigned = (values & 0xFFF).astype(np.uint16) if name != "RLE" else values.view(np.uint16)
    frame = jpeg2000(values, 0) if name == "JPEG 2000" else ENCODED[name][1](unsigned)
    content = dicom_file(values, syntax=ENCODED[name][0], frame=frame)
    np.testing.assert_array_equal(decode(content), decode(dicom_file(values)))
    assert_gray(decode(content), (values + 2048) * 255.0 / 4095)


def test_what_lossy_encoding_adds_on_top_stays_white() -> None:
    """A codestream of 16 bits may go over the 12 that are stored; cut to its low bits, white would turn black."""
    values = np.where(np.indices((64, 64)).sum(0) % 16 < 8, 4095, 0).astype(np.uint16)
    over = np.where(values > 0, 4100, 0).astype(np.uint16)
    content = dicom_file(values, syntax=uid.JPEGLSLossless, frame=bytes(imagecodecs.jpegls_encode(over)))
    np.testing.assert_array_equal(decode(content), np.where(values > 0, 255, 0))


def test_bits_above_those_stored_are_no_part_of_the_image() -> None:
    """Old files keep overlays there."""
    overlay = (DEEP | np.uint16(0x8000)).astype(np.uint16)
    np.testing.assert_array_equal(decode(dicom_file(overlay)), decode(dicom_file(DEEP)))


def test_a_frame_in_several_fragments_comes_in() -> None:
    frame = ENCODED["JPEG-LS"][1](DEEP)
    pieces = [frame[i : i + 500] + b"\0" * (len(frame[i : i + 500]) % 2) for i in range(0, len(frame), 500)]
    table = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    items = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(piece)) + piece for piece in pieces)
    content = dicom_file(DEEP, syntax=uid.JPEGLSLossless, frame=frame)
    begin = content.index(struct.pack("<HH", 0x7FE0, 0x0010)) + 12
    content = content[:begin] + table + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    np.testing.assert_array_equal(decode(content), decode(dicom_file(DEEP)))


def test_it_comes_in_from_a_path_whatever_its_name(tmp_path: Path) -> None:
    for name in ("1.dcm", "IM0001", "xray.png"):
        (tmp_path / name).write_bytes(dicom_file())
        np.testing.assert_array_equal(decode(tmp_path / name), decode(dicom_file()))
        np.testing.assert_array_equal(load_square(tmp_path / name, 32), load_square(dicom_file(), 32))
    assert decode(dicom_file(), at_least=8).shape == DEEP.shape


# === From stored values to gray ===


def test_without_a_window_the_range_of_the_bits_is_shown() -> None:
    assert_gray(decode(dicom_file(RAMP)), FULL)
    assert_gray(decode(dicom_file(RAMP // 4)), FULL / 4 - (RAMP % 4) * 255 / 4095 / 4)


def test_the_narrowest_window_is_a_step() -> None:
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        image = decode(dicom_file(RAMP, WindowCenter=2000, WindowWidth=1, VOILUTFunction=function))
        assert set(image[RAMP < 1999]) == {0}
        assert set(image[RAMP > 2001]) == {255}


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1000, 500), (100.5, 20.25), (4000, 8), (-3000, 9000)])
def test_a_window_is_what_pydicom_makes_of_it(function: str | None, center: float, width: float) -> None:
    extra = {} if function is None else {"VOILUTFunction": function}
    content = dicom_file(RAMP, WindowCenter=center, WindowWidth=width, **extra)
    assert_gray(decode(content), expected(content))


def test_of_several_windows_the_first_is_taken() -> None:
    several = dicom_file(RAMP, WindowCenter=[1000, 2000], WindowWidth=[300, 900])
    np.testing.assert_array_equal(decode(several), decode(dicom_file(RAMP, WindowCenter=1000, WindowWidth=300)))


def test_monochrome1_is_turned_over_after_the_window() -> None:
    window = {"WindowCenter": 1000, "WindowWidth": 300}
    as_stored = decode(dicom_file(RAMP, **window))
    turned = decode(dicom_file(RAMP, PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_allclose(turned.astype(int), 255 - as_stored.astype(int), atol=1)
    assert turned[0, 0] == 255
    assert turned[-1, -1] == 0
    assert_gray(decode(dicom_file(RAMP, PhotometricInterpretation="MONOCHROME1")), 255 - FULL)


@pytest.mark.parametrize("slope", [1, 0.5, 100])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 500, "WindowWidth": 700}])
def test_values_are_rescaled_before_the_window(slope: float, window: dict[str, int]) -> None:
    content = dicom_file(RAMP, RescaleSlope=slope, RescaleIntercept=-1000, RescaleType="US", **window)
    assert_gray(decode(content), expected(content))


def test_a_slope_downwards_turns_the_order_of_what_is_stored() -> None:
    """Not compared with pydicom, whose window then runs from white to black."""
    down = {"RescaleSlope": -1, "RescaleIntercept": 4095, "RescaleType": "US"}
    assert_gray(decode(dicom_file(RAMP, **down)), 255 - FULL)
    window = {"WindowCenter": 1000, "WindowWidth": 300}
    np.testing.assert_array_equal(decode(dicom_file(RAMP, **down, **window)), decode(dicom_file(4095 - RAMP, **window)))


@pytest.mark.parametrize("syntax", NATIVE.values())
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 0, "WindowWidth": 1000}])
def test_signed_values_keep_their_sign(syntax: str, window: dict[str, int]) -> None:
    values = RAMP.astype(np.int16) - 2048
    content = dicom_file(values, syntax=syntax, **window)
    assert_gray(decode(content), expected(content))


TABLES = {  # the value of the first entry, the entries, their bits
    "as many as values": (0, np.arange(0, 65536, 16), 16),
    "few": (1000, np.array([0, 100, 200, 255]), 8),
    "down": (0, np.arange(1023, -1, -1), 10),
    "all there can be": (0, np.arange(65536) // 16, 12),
}


@pytest.mark.parametrize("syntax", NATIVE.values())
@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_looked_up_and_goes_on_as_it_ends(name: str, syntax: str) -> None:
    first, entries, bits = TABLES[name]
    gray = entries[np.clip(RAMP.astype(int) - first, 0, len(entries) - 1)] * 255.0 / (2**bits - 1)
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        content = dicom_file(RAMP, syntax=syntax, **{sequence: lut(first, entries.tolist(), bits)})
        assert_gray(decode(content), gray)
        if bits == 16:
            assert_gray(decode(content), expected(content))


def test_a_table_stands_before_a_window_and_after_the_modality() -> None:
    content = dicom_file(
        RAMP,
        VOILUTSequence=lut(1000, [0, 100, 200, 255], 8),
        WindowCenter=3000,
        WindowWidth=10,
        RescaleSlope=0.5,
        RescaleIntercept=0,
    )
    image = decode(content)
    assert_gray(image, np.interp(np.rint(RAMP * 0.5), [1000, 1001, 1002, 1003], [0, 100, 200, 255]))


def test_a_table_may_begin_below_zero() -> None:
    values = RAMP.astype(np.int16) - 2048
    table = lut(-2000, list(range(0, 4000)), 12)
    for syntax in (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian):
        content = dicom_file(values, syntax=syntax, VOILUTSequence=table)
        assert_gray(decode(content), np.clip(values + 2000, 0, 3999) * 255.0 / 4095)


@pytest.mark.parametrize("syntax", NATIVE.values())
@pytest.mark.parametrize("bits", [8, 12])
def test_a_table_may_be_given_as_bytes(syntax: str, bits: int) -> None:
    entries = np.arange(4096) // (16 if bits == 8 else 1)
    order = ">u2" if syntax == uid.ExplicitVRBigEndian else "<u2"
    table = item(LUTDescriptor=[4096, 0, bits], LUTData=entries.astype("u1" if bits == 8 else order).tobytes())
    gray = entries.reshape(RAMP.shape) * 255.0 / (2**bits - 1)
    assert_gray(decode(dicom_file(RAMP, syntax=syntax, VOILUTSequence=table)), gray)


@pytest.mark.parametrize("bits", [6, 8, 10, 12, 14, 16])
def test_the_bits_that_are_stored_say_what_is_white(bits: int) -> None:
    top = 2**bits - 1
    values = np.linspace(0, top, 64 * 64).astype(np.uint8 if bits <= 8 else np.uint16).reshape(64, 64)
    assert_gray(decode(dicom_file(values, bits=bits)), values * 255.0 / top)


def test_16_bits_of_which_12_are_used_are_12_bits() -> None:
    """The same as for PNG and TIFF: read as 16 bits, the radiograph would be almost black."""
    for more in ({}, {"RescaleSlope": 2, "RescaleIntercept": 100}):
        assert_gray(decode(dicom_file(RAMP, bits=16, **more)), FULL)
    assert_gray(decode(dicom_file(RAMP, bits=15)), RAMP * 255.0 / 32767)
    values = RAMP.copy()
    values[0, 0] = 4096
    assert_gray(decode(dicom_file(values, bits=16)), values * 255.0 / 65535)
    content = dicom_file(RAMP, bits=16, WindowCenter=2048, WindowWidth=4096)
    assert_gray(decode(content), expected(content))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", NATIVE.values())
def test_padding_is_black(photometric: str, syntax: str) -> None:
    for values, padding in ((RAMP, 4000), (RAMP.astype(np.int16) - 2048, -2048)):
        plain = decode(dicom_file(values, syntax=syntax, PhotometricInterpretation=photometric))
        one = dicom_file(values, syntax=syntax, PhotometricInterpretation=photometric, PixelPaddingValue=padding)
        np.testing.assert_array_equal(decode(one), np.where(values == padding, 0, plain))
        some = dicom_file(
            values, syntax=syntax, PhotometricInterpretation=photometric, PixelPaddingValue=padding,
            PixelPaddingRangeLimit=padding + 40,
        )  # fmt: skip
        np.testing.assert_array_equal(decode(some), np.where((values >= padding) & (values <= padding + 40), 0, plain))


# === The shape of pixels ===


@pytest.mark.parametrize(
    ("elements", "shape"),
    [
        ({"PixelAspectRatio": [2, 1]}, (192, 120)),
        ({"PixelAspectRatio": [1, 2]}, (96, 240)),
        ({"PixelAspectRatio": [3, 4]}, (96, 160)),
        ({"PixelAspectRatio": [1, 1]}, (96, 120)),
        ({"PixelSpacing": [0.2, 0.1]}, (192, 120)),
        ({"ImagerPixelSpacing": [0.1, 0.15]}, (96, 180)),
        ({"ImagerPixelSpacing": [0.143, 0.1430001]}, (96, 120)),
        ({"PixelAspectRatio": [1, 1], "ImagerPixelSpacing": [0.1, 0.15]}, (96, 120)),
    ],
    ids=str,
)
def test_pixels_become_square(elements: dict[str, list[float]], shape: tuple[int, int]) -> None:
    content = dicom_file(**elements)
    image = decode(content)
    assert image.shape == shape
    plain = Image.fromarray(decode(dicom_file()))
    np.testing.assert_array_equal(image, plain.resize(shape[::-1], Image.Resampling.BILINEAR))
    # The square that a detector looks at is stretched anyway: it is that of the stored pixels.
    np.testing.assert_array_equal(load_square(content, 32), load_square(dicom_file(), 32))


def test_a_picture_that_is_too_large_once_its_pixels_are_square_is_refused() -> None:
    limits = Limits(max_pixels=96 * 120)
    assert decode(dicom_file(), limits=limits).shape == (96, 120)
    refused(
        dicom_file(PixelAspectRatio=[2, 1]), "11,520 pixels. Received: 120 x 192", ImageTooLargeError, limits=limits
    )
    refused(dicom_file(PixelAspectRatio=[2**31 - 1, 1]), "PixelAspectRatio is not")


# === What does not come in ===

COLOUR = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "CT": ({"Modality": "CT"}, "modality CR or DX. Received: CT"),
    "RG": ({"Modality": "RG"}, "modality CR or DX. Received: RG"),
    "DR": ({"Modality": "DR"}, "modality CR or DX. Received: DR"),
    "a modality of its own": ({"Modality": "ZELDA"}, "Received: another"),
    "for processing": ({"PresentationIntentType": "FOR PROCESSING"}, "for processing"),
    "for processing by class": ({"SOPClassUID": uid.DigitalXRayImageStorageForProcessing}, "for processing"),
    "frames": ({"NumberOfFrames": 2}, "several images. Allowed: one. Received: 2"),
    "no frames": ({"NumberOfFrames": 0}, "several images. Allowed: one. Received: 0"),
    "colour": (COLOUR, "not gray.*Received: RGB"),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "not gray.*Received: PALETTE COLOR"),
    "gray in three": ({"SamplesPerPixel": 3}, "not gray"),
    "photometric of its own": ({"PhotometricInterpretation": "QUIXWORTH"}, "not gray.*Received: another"),
    "1 bit": ({"BitsAllocated": 1, "BitsStored": 1}, "depth is not read.*Received: 1 in 1"),
    "32 bits": ({"BitsAllocated": 32, "BitsStored": 32}, "depth is not read.*Received: 32 in 32"),
    "more stored than allocated": ({"BitsStored": 17}, "depth is not read.*Received: 17 in 16"),
    "high bits": ({"HighBit": 15}, "bits are not the lowest"),
    "a function of its own": ({"WindowCenter": 1, "WindowWidth": 2, "VOILUTFunction": "GAMMA"}, "VOILUTFunction"),
    "deflated": ({"syntax": uid.DeflatedExplicitVRLittleEndian}, "Received: Deflated Explicit VR"),
    "HTJ2K": ({"syntax": uid.HTJ2KLossless, "frame": b"ab"}, "Received: High-Throughput JPEG 2000"),
    "MPEG": ({"syntax": uid.MPEG2MPML, "frame": b"ab"}, "Received: MPEG2"),
    "syntax of its own": ({"syntax": "1.2.826.0.1.3680043.8.498.777009", "frame": b"ab"}, "one that is not registered"),
}
DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "no modality": ({"leave_out": ("Modality",)}, "lacks Modality"),
    "no rows": ({"leave_out": ("Rows",)}, "lacks Rows"),
    "no bits": ({"leave_out": ("BitsStored",)}, "lacks BitsStored"),
    "no pixels": ({"leave_out": ("PixelData",)}, "before its pixels"),
    "zero rows": ({"Rows": 0}, "no pixels"),
    "fewer pixels than said": ({"Rows": 97}, r"Allowed: 23,280 bytes for 120 x 97 pixels of 16 bits. Received: 23,040"),
    "more pixels than said": ({"Rows": 95}, r"do not fill the image.*Received: 23,040"),
    "half a window": ({"WindowCenter": 100}, "half a window"),
    "no width": ({"WindowCenter": 100, "WindowWidth": 0}, "WindowWidth is not what the standard"),
    "a narrow window": ({"WindowCenter": 100, "WindowWidth": 0.5}, "WindowWidth is not what the standard"),
    "an endless window": ({"WindowCenter": 100, "WindowWidth": "1e300"}, "WindowWidth is not what the standard"),
    "no slope": ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope is not"),
    "two slopes": ({"RescaleSlope": [1, 2]}, "RescaleSlope is not"),
    "inverse and not": (
        {"PhotometricInterpretation": "MONOCHROME2", "PresentationLUTShape": "INVERSE"}, "contradicts itself"
    ),
    "not inverse and inverse": (
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"}, "contradicts itself"
    ),
    "a sign of its own": ({"PixelRepresentation": 2}, "PixelRepresentation is not"),
    "three sides": ({"PixelAspectRatio": [1, 2, 3]}, "PixelAspectRatio is not"),
    "flat pixels": ({"PixelSpacing": [0.0, 0.1]}, "PixelSpacing is not"),
    "a table without data": ({"VOILUTSequence": item(LUTDescriptor=[4, 0, 8])}, "LUTData is not"),
    "a table of another length": ({"VOILUTSequence": item(LUTDescriptor=[4, 0, 8], LUTData=[1, 2])}, "LUTData is not"),
    "a table beyond its bits": ({"VOILUTSequence": lut(0, [1, 2, 256], 8)}, "LUTData is not"),
    "a table of many bits": ({"VOILUTSequence": lut(0, [1, 2, 3], 17)}, "LUTDescriptor is not"),
    "half a descriptor": ({"VOILUTSequence": item(LUTDescriptor=[2, 0], LUTData=[1, 2])}, "LUTDescriptor is not"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_dicom_is_refused_as_of_a_kind_that_is_not_read(name: str) -> None:
    elements, said = OTHERS[name]
    refused(dicom_file(**elements), said, UnsupportedImageError)


@pytest.mark.parametrize("name", DAMAGED)
def test_dicom_that_makes_no_sense_is_refused(name: str) -> None:
    elements, said = DAMAGED[name]
    refused(dicom_file(**elements), said, ImageError)


def unreadable(content: bytes) -> bytes:
    """The file with half a number in it, which pydicom's error would quote."""
    rows = struct.pack("<HH2sH", 0x28, 0x10, b"US", 2)
    assert rows in content
    return content.replace(rows, rows.replace(b"US", b"UL"))


def test_the_file_is_named_and_its_size_told_where_nothing_better_can_be_said(tmp_path: Path) -> None:
    content = unreadable(dicom_file())
    (tmp_path / "scan.dcm").write_bytes(content)
    said = refused(tmp_path / "scan.dcm", "the DICOM file is damaged")
    assert "scan.dcm: the DICOM" in said
    assert f"Received: {len(content):,} bytes" in said


def test_what_does_not_say_that_it_is_dicom_is_not_taken_for_it() -> None:
    content = dicom_file()
    for other in (content[132:], content[128:], bytes(128) + b"DIOM" + content[132:]):
        refused_as_foreign(other)


def refused_as_foreign(content: bytes) -> None:
    with pytest.raises(UnsupportedImageError, match="no image of a format that is read"):
        decode(content)


def test_a_preamble_may_hold_the_beginning_of_another_format() -> None:
    """As the standard allows, so that one file can be a TIFF too; it says DICM all the same."""
    np.testing.assert_array_equal(decode(b"II*\0\x08\0\0\0" + dicom_file()[8:]), decode(dicom_file()))


def test_a_directory_of_files_is_not_opened() -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = uid.MediaStorageDirectoryStorage
    dataset.DirectoryRecordSequence = item(ReferencedFileID=["SECRET", "FILE"])
    refused(
        saved(dataset, uid.ExplicitVRLittleEndian, uid.MediaStorageDirectoryStorage), "DICOMDIR", UnsupportedImageError
    )


def test_a_file_without_a_transfer_syntax_is_refused() -> None:
    content = dicom_file()
    uid_element = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    assert uid_element in content
    refused(content.replace(uid_element, b""), "which transfer syntax")


def test_a_header_that_is_written_otherwise_than_it_says_is_refused() -> None:
    content = dicom_file(syntax=uid.ImplicitVRLittleEndian)
    said = struct.pack("<HH2sH", 2, 0x10, b"UI", 18) + b"1.2.840.10008.1.2\0"
    assert said in content
    wrong = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    refused(content.replace(said, wrong), "not written as its transfer syntax says")


# === Bounds ===


def nothing_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, "stored_pixels", lambda *_: pytest.fail("pixels were looked at"))


@pytest.mark.parametrize("name", ["explicit", *ENCODED])
def test_too_many_pixels_are_refused_before_any_is_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_decoded(monkeypatch)
    syntax, frame = (ENCODED[name][0], b"ab") if name in ENCODED else (NATIVE[name], None)
    content = dicom_file(DEEP, syntax=syntax, frame=frame, Rows=60_000, Columns=60_000)
    refused(content, "Allowed: 64,000,000 pixels. Received: 60000 x 60000", ImageTooLargeError)
    limits = Limits(max_pixels=DEEP.size - 1)
    refused(dicom_file(DEEP, syntax=syntax, frame=frame), "Received: 120 x 96", ImageTooLargeError, limits=limits)


def test_too_many_bytes_are_refused_before_they_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, "read_header", lambda *_: pytest.fail("the header was looked at"))
    refused(dicom_file(), "Allowed: 1,000 bytes", ImageTooLargeError, limits=Limits(max_bytes=1000))


def test_a_deflated_file_is_refused_without_being_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    content = dicom_file(syntax=uid.DeflatedExplicitVRLittleEndian)
    monkeypatch.setattr("zlib.decompress", lambda *_: pytest.fail("it was inflated"))
    monkeypatch.setattr("zlib.decompressobj", lambda *_: pytest.fail("it was inflated"))
    refused(content, "Deflated", UnsupportedImageError)


@pytest.mark.parametrize("name", [name for name in ENCODED if name != "RLE"])
@pytest.mark.parametrize(("rows", "columns"), [(97, 120), (96, 121), (8, 8), (6000, 6000)])
def test_an_encoded_image_of_another_size_is_refused_before_it_is_decoded(
    name: str, rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for decoder in ("jpeg8_decode", "jpegls_decode", "jpeg2k_decode"):
        monkeypatch.setattr(imagecodecs, decoder, lambda *_: pytest.fail("it was decoded"))
    syntax, encode, _ = ENCODED[name]
    content = dicom_file(DEEP, syntax=syntax, frame=encode(DEEP), Rows=rows, Columns=columns)
    refused(content, f"Received: 120 x 96 pixels, where {columns} x {rows} are due")


def test_an_encoded_image_of_another_kind_is_refused_before_it_is_decoded() -> None:
    colour = np.stack([DEEP >> 4] * 3, axis=-1).astype(np.uint8)
    frames = {
        "a JPEG of another kind": (uid.JPEGBaseline8Bit, jpeg(DEEP, lossless=True, bitspersample=12)),
        "3 colours": (uid.JPEGBaseline8Bit, jpeg(colour)),
        "8 bits, where 12": (uid.JPEGExtended12Bit, jpeg((DEEP >> 4).astype(np.uint8))),
        "no JPEG 2000": (uid.JPEG2000, jpeg(DEEP, lossless=True, bitspersample=12)),
        "no JPEG that": (uid.JPEGLossless, jpeg2000(DEEP, 0)),
        "another resolution": (uid.JPEG2000, jpeg2000(DEEP, 0)[:43] + b"\2" + jpeg2000(DEEP, 0)[44:]),
    }
    for said, (syntax, frame) in frames.items():
        refused(dicom_file(DEEP, syntax=syntax, frame=frame), said)
    progressive = io.BytesIO()
    Image.fromarray(DEEP.astype(np.uint8)).save(progressive, "JPEG", progressive=True)
    content = dicom_file(DEEP.astype(np.uint8), syntax=uid.JPEGBaseline8Bit, frame=progressive.getvalue())
    refused(content, "a JPEG of another kind")


@pytest.mark.parametrize("name", [name for name in ENCODED if name != "RLE"])
def test_an_encoded_image_without_its_end_is_refused_before_it_is_decoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoders make up the rest in silence, and CharLS counts to two thousand million before it gives up."""
    for decoder in ("jpeg8_decode", "jpegls_decode", "jpeg2k_decode"):
        monkeypatch.setattr(imagecodecs, decoder, lambda *_: pytest.fail("it was decoded"))
    syntax, encode, _ = ENCODED[name]
    frame = encode(DEEP)
    for cut in (frame[:-2], frame[: len(frame) // 2], frame[:-2] + bytes(2)):
        refused(dicom_file(DEEP, syntax=syntax, frame=cut), "the end of the encoded image is missing")


def test_a_jpeg_2000_of_many_tiles_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = bytearray(jpeg2000(DEEP, 0))
    content = dicom_file(DEEP, syntax=uid.JPEG2000Lossless, frame=bytes(frame))
    assert decode(content).shape == DEEP.shape
    monkeypatch.setattr(imagecodecs, "jpeg2k_decode", lambda *_: pytest.fail("it was decoded"))
    for side in (0, 1):
        struct.pack_into(">II", frame, 24, side, side)
        refused(dicom_file(DEEP, syntax=uid.JPEG2000Lossless, frame=bytes(frame)), "too many tiles. Allowed: 4,096")


def peak(content: bytes, kind: type[PneumolibError] = ImageError) -> int:
    """How many bytes Python objects take at most while a file is refused."""
    tracemalloc.start()
    try:
        refused(content, "DICOM", kind)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_rle_that_unpacks_to_more_than_the_image_stays_within_it() -> None:
    bomb = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\7" * 500_000
    values = np.zeros((64, 64), np.uint8)
    assert (decode(dicom_file(values, syntax=uid.RLELossless, frame=bomb)) == 7).all()
    tracemalloc.start()
    decode(dicom_file(values, syntax=uid.RLELossless, frame=bomb))
    assert tracemalloc.get_traced_memory()[1] < 10 * len(bomb)
    tracemalloc.stop()


@pytest.mark.parametrize(
    "frame",
    [
        bytes(62),
        struct.pack("<16I", 2, 64, *[0] * 14) + bytes(100),
        struct.pack("<16I", 1, 64, *[0] * 14) + bytes(100),
        struct.pack("<16I", 2, 164, 64, *[0] * 13) + bytes(200),
        struct.pack("<16I", 2, 64, 2**31, *[0] * 13) + bytes(200),
        struct.pack("<16I", 2, 0, 64, *[0] * 13) + bytes(200),
        struct.pack("<16I", 2, 64, 70, *[0] * 13) + b"\x7f" + bytes(50),
        struct.pack("<16I", 2, 64, 70, *[0] * 13) + b"\x80" * 5000,
    ],
)
def test_rle_that_makes_no_sense_is_refused(frame: bytes) -> None:
    refused(dicom_file(syntax=uid.RLELossless, frame=frame), "DICOM file('s| holds no) pixels")


def with_elements(extra: bytes) -> bytes:
    """A file with more elements, Explicit VR Little Endian, before all others."""
    content = dicom_file()
    first = content.index(struct.pack("<HH2sH", 8, 0x16, b"UI", 26))
    return content[:first] + extra + content[first:]


def nested(depth: int) -> bytes:
    begin = struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return begin * depth + end * depth


def test_a_header_of_ordinary_breadth_and_depth_is_read() -> None:
    many = b"".join(struct.pack("<HH2sH", 9, i, b"LO", 4) + b"abcd" for i in range(0x1000, 0x3000))
    np.testing.assert_array_equal(decode(with_elements(nested(20) + many)), decode(dicom_file()))


@pytest.mark.parametrize(
    "extra",
    [
        nested(3000),
        b"".join(struct.pack("<HH2sH", 9, i % 65536, b"LO", 0) for i in range(200_000)),
        struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 200_000,
        struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, 0xFFFFFFFF),
        struct.pack("<HH2sHI", 9, 0x1001, b"OB", 0, 0xFFFFFFF0),
    ],
    ids=["deep", "broad", "many items", "without end", "beyond the end"],
)
def test_a_header_without_measure_is_refused(extra: bytes) -> None:
    assert peak(with_elements(extra)) < 64 * 2**20


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("WindowCenter", b"DS", b"1\\" * 2_000_000),
        ("Rows", b"US", b"\1\0" * 2_000_000),
        ("Modality", b"CS", b"CR\\" * 1_000_000),
        ("VOILUTSequence", b"SQ", (struct.pack("<HHI", 0xFFFE, 0xE000, 0)) * 500_000),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_element_without_measure_is_refused(keyword: str, vr: bytes, value: bytes) -> None:
    """Implicit VR has lengths of 32 bits for everything: millions of numbers in a place for one."""
    content = dicom_file(syntax=uid.ImplicitVRLittleEndian, leave_out=(keyword,), WindowWidth=3, WindowCenter=4)
    number = pydicom.datadict.tag_for_keyword(keyword)
    element = struct.pack("<HHI", number >> 16, number & 0xFFFF, len(value)) + value
    places = [m for m in range(132, len(content) - 8) if struct.unpack_from("<HH", content, m) == (0x28, 2)]
    at = places[0] if number > 0x280002 else content.index(struct.pack("<HHI", 0x10, 0x10, 16))
    assert peak(content[:at] + element + content[at:]) < 64 * 2**20


@pytest.mark.parametrize("name", ["explicit", "RLE", "JPEG Lossless SV1"])
def test_lengths_that_lead_out_of_the_file_are_refused(name: str) -> None:
    syntax, frame = (ENCODED[name][0], ENCODED[name][1](DEEP)) if name in ENCODED else (NATIVE[name], None)
    content = bytearray(dicom_file(DEEP, syntax=syntax, frame=frame))
    at = content.index(struct.pack("<HH", 0x7FE0, 0x0010)) + 8
    if frame:
        at += 4 + 8 + 4  # past the table of offsets, to the length of the first fragment
    for length in (0xFFFFFFFE, 0x7FFFFFFF, len(content)):
        struct.pack_into("<I", content, at, length)
        refused(bytes(content), "pixels are cut off: [0-9,]+ bytes are missing|in too many|not divided")


def test_fragments_that_make_no_sense_are_refused() -> None:
    frame = ENCODED["JPEG-LS"][1](DEEP)
    content = dicom_file(DEEP, syntax=uid.JPEGLSLossless, frame=frame)
    begin = content.index(struct.pack("<HH", 0x7FE0, 0x0010)) + 12
    empty, end = struct.pack("<HHI", 0xFFFE, 0xE000, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    for pixels, said in (
        (b"", "cut off: 8 bytes"),
        (end, "holds no pixels"),
        (empty + end, "holds no pixels"),
        (empty * 5 + end, "holds no pixels"),
        (empty * 200_000 + end, "too many fragments. Allowed: 100,000"),
        (empty + frame, "not divided into fragments"),
        (content[begin:-8], "cut off: 8 bytes"),
    ):
        refused(content[:begin] + pixels, said)
    undefined = content[: begin - 4] + struct.pack("<I", len(content) - begin) + content[begin:]
    refused(undefined, "not stored as JPEG-LS Lossless is")
    native = dicom_file(DEEP)
    begin = native.index(struct.pack("<HH", 0x7FE0, 0x0010)) + 8
    refused(native[:begin] + b"\xff\xff\xff\xff" + native[begin + 4 :], "not stored as Explicit VR Little Endian is")


def test_pixels_of_another_kind_are_refused() -> None:
    content = dicom_file(DEEP)
    at = content.index(struct.pack("<HH", 0x7FE0, 0x0010))
    refused(content[:at] + struct.pack("<HH", 0x7FE0, 0x0008) + content[at + 4 :], "no pixels as integers")
    refused(content[: at + 4] + b"UN" + content[at + 6 :], "neither bytes")


# === Other people's files ===

ALL_MODALITIES = ("", "CT", "CR", "DX", "MR", "NM", "US", "OT", "ES", "RTDOSE", "SC", "XA", "OP")


def bundled() -> list[Path]:
    """What comes with pydicom; what it would have to download is not asked for."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))


def test_every_file_that_pydicom_brings_is_read_or_refused() -> None:
    read = []
    for path in bundled():
        try:
            image = decode(path)
        except ImageError:
            continue
        read.append(path.name)
        assert_gray(image, expected(path.read_bytes()))
    # The only radiographs among them, MONOCHROME1 with a window.
    assert read == ["6154", "6247", "6278"]


def test_other_gray_pictures_would_come_in_as_pydicom_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the modality out of the way, other people's encoders are tried."""
    monkeypatch.setattr(dicom, "MODALITIES", ALL_MODALITIES)
    compared, syntaxes = 0, set()
    for path in bundled():
        try:
            image = decode(path)
        except ImageError:
            continue
        content = path.read_bytes()
        dataset = pydicom.dcmread(io.BytesIO(content))
        syntaxes.add(dataset.file_meta.TransferSyntaxUID.name)
        if dataset.file_meta.TransferSyntaxUID == uid.JPEGExtended12Bit:
            continue  # pydicom has no decoder for it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gray = expected(content)
        dataset.pixel_array.max()
        if image.shape != gray.shape:
            image = decode_as_stored(content)
        assert np.abs(image - gray)[padding_left_out(dataset)].max() <= 0.5 + 1e-6, path.name
        compared += 1
    assert compared > 30
    assert len(syntaxes) >= 8


def decode_as_stored(content: bytes) -> np.ndarray:
    return dicom.read(content, 10**8, square_pixels=False)


def padding_left_out(dataset: Dataset) -> np.ndarray:
    padding = dataset.get("PixelPaddingValue")
    return np.ones(dataset.pixel_array.shape, bool) if padding is None else dataset.pixel_array != padding


# === Damage ===


def damaged_or_whole(content: bytes) -> bool:
    """Decode; whatever is wrong ends in our error, and in silence. True where a picture came."""
    try:
        image = decode(content, limits=Limits(max_pixels=2**22))
    except PneumolibError as error:
        assert_anonymous(str(error))
        return False
    assert image.dtype == np.uint8
    assert image.ndim == 2
    return True


@pytest.mark.parametrize("name", [*NATIVE, *ENCODED])
def test_random_damage_ends_in_a_picture_or_in_our_error(name: str) -> None:
    syntax, frame = (ENCODED[name][0], ENCODED[name][1](DEEP)) if name in ENCODED else (NATIVE[name], None)
    more = {"WindowCenter": 2000, "WindowWidth": 4000, "PixelAspectRatio": [5, 4], "PixelPaddingValue": 0}
    content = dicom_file(DEEP, syntax=syntax, frame=frame, VOILUTSequence=lut(0, [0, 90, 255], 8), **more)
    tag = struct.pack(">HH" if syntax == NATIVE["big endian"] else "<HH", 0x7FE0, 0x0010)
    pixels_at, random = content.index(tag), np.random.default_rng(0)
    whole = 0
    for turn in range(400):
        damaged = bytearray(content)
        # A third of the damage hits the header, a third the beginning of the pixels, which says how to read the rest.
        low, high = [(132, pixels_at), (pixels_at, pixels_at + 150), (0, len(content))][turn % 3]
        for place in random.integers(low, high, random.integers(1, 5)):
            damaged[place] = random.choice([0, 255, 127, 128, random.integers(256)])
        end = len(content) if turn % 5 else int(random.integers(len(content)))
        whole += damaged_or_whole(bytes(damaged[:end]))
    assert 0 < whole < 400


@pytest.mark.parametrize("name", [*NATIVE, *ENCODED])
def test_wherever_a_file_ends_it_is_refused_or_its_last_byte_did_not_matter(name: str) -> None:
    syntax, frame = (ENCODED[name][0], ENCODED[name][1](DEEP)) if name in ENCODED else (NATIVE[name], None)
    content = dicom_file(DEEP, syntax=syntax, frame=frame)
    for end in {*range(132, len(content), 97), *range(len(content) - 20, len(content))}:
        assert not damaged_or_whole(content[:end]), end


@settings(deadline=None, max_examples=200, database=None)
@given(st.binary(max_size=400))
def test_noise_behind_the_prefix_is_refused(noise: bytes) -> None:
    with pytest.raises(ImageError):
        decode(bytes(128) + b"DICM" + noise)


WORDS = ["", "CR", "DX", "MONOCHROME1", "MONOCHROME2", "LINEAR", "SIGMOID", "INVERSE", "1.2.3"]


def test_a_header_of_any_values_ends_in_a_picture_or_in_our_error() -> None:
    """A few of the elements that are read have unusual values: of the right kind, in any number and size."""
    random, whole = np.random.default_rng(0), 0

    def value(vr: str) -> Any:
        if vr in ("CS", "UI"):
            return str(random.choice(WORDS))
        if vr == "DS":
            return f"{random.choice([0, 1, 0.5, random.uniform(-1e6, 1e6)]):.6g}"
        return int(random.choice([0, 1, 2, 8, 12, 16, 64, 4095, 32767]))

    for _ in range(400):
        elements: dict[str, Any] = {}
        for keyword in random.choice(dicom_header.WANTED, random.integers(1, 5), replace=False):
            vr = pydicom.datadict.dictionary_VR(keyword)
            if vr != "SQ":
                several = random.random() < 0.2 and keyword not in ("BitsAllocated", "PixelRepresentation")
                elements[keyword] = [value(vr) for _ in range(random.integers(4))] if several else value(vr)
        whole += damaged_or_whole(dicom_file(RAMP, **elements))
    assert 0 < whole < 400


# === What is not let out ===


def test_nothing_of_a_header_is_logged_or_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Not by this thread while it is inside; what pydicom says to others is theirs."""
    logger = logging.getLogger("pydicom")
    with caplog.at_level(logging.DEBUG, "pydicom"):
        refused(unreadable(dicom_file()), "damaged")
        refused(with_elements(struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, 0xFFFFFFFF)), "DICOM")
        decode(dicom_file())
        assert [record for record in caplog.records if record.name.startswith("pydicom")] == []
        logger.warning("others are heard")
    assert "others are heard" in caplog.text


def test_while_one_thread_is_inside_another_is_heard(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []

    def read_header(content: bytes) -> dicom_header.Header:
        thread = threading.Thread(target=logging.getLogger("pydicom").warning, args=("from another thread",))
        thread.start()
        thread.join()
        logging.getLogger("pydicom").warning("from inside")
        heard.append(caplog.text)
        return dicom_header.read_header(content)

    monkeypatch.setattr(dicom, "read_header", read_header)
    decode(dicom_file())
    assert "from another thread" in heard[0]
    assert "from inside" not in heard[0]


# === Without the extra ===


@pytest.mark.parametrize("missing", ["pydicom", "imagecodecs"])
def test_a_missing_package_is_an_error_that_names_the_extra(missing: str, tmp_path: Path) -> None:
    """In a fresh interpreter, where nothing was imported before; other files are read all the same."""
    lossless = dicom_file(syntax=uid.JPEGLSLossless, frame=ENCODED["JPEG-LS"][1](DEEP))
    (tmp_path / "xray.dcm").write_bytes(lossless)
    Image.fromarray(DEEP.astype(np.uint8)).save(tmp_path / "xray.png")
    code = (
        "import sys; from pathlib import Path\n"
        f"sys.modules[{missing!r}] = None\n"
        "from pneumolib.data.images import decode\n"
        "from pneumolib.errors import ImageError, MissingExtraError\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "decode(folder / 'xray.png')\n"
        "try:\n    decode(folder / 'xray.dcm')\n"
        "except MissingExtraError as error:\n    assert not isinstance(error, ImageError); print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        f"xray.dcm: the file is DICOM, for which a package is needed that is not installed: {missing}." in done.stdout
    )
    assert "pip install 'pneumolib[dicom]'" in done.stdout


def test_a_decoder_that_a_build_lacks_is_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(_: bytes) -> None:
        raise imagecodecs.DelayedImportError("jpegls_decode")

    monkeypatch.setattr(imagecodecs, "jpegls_decode", lacking)
    with pytest.raises(MissingExtraError, match=r"image: .*pneumolib\[dicom\]"):
        decode(dicom_file(syntax=uid.JPEGLSLossless, frame=ENCODED["JPEG-LS"][1](DEEP)))


def test_dicom_costs_nothing_until_it_is_met(tmp_path: Path) -> None:
    Image.fromarray(DEEP.astype(np.uint8)).save(tmp_path / "xray.png")
    code = f"import sys; from pneumolib.data.images import decode; decode({str(tmp_path / 'xray.png')!r})\n"
    code += "print([name for name in ('pydicom', 'imagecodecs', 'highdicom') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_preloaded_nothing_is_imported_when_a_file_is_met(tmp_path: Path) -> None:
    """A process may limit its memory then."""
    for name, (syntax, encode, _) in ENCODED.items():
        (tmp_path / f"{name}.dcm").write_bytes(dicom_file(DEEP, syntax=syntax, frame=encode(DEEP)))
    code = (
        "import sys; from pathlib import Path; from pneumolib.data import dicom, images\n"
        "import numpy as np; from PIL import Image; Image.fromarray(np.zeros((9, 9), np.uint8)).resize((3, 3))\n"
        "Image.init(); dicom.preload(); before = set(sys.modules)\n"
        f"for path in Path({str(tmp_path)!r}).iterdir(): images.load_square(path, 32)\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# === In data sets ===


def test_data_sets_and_class_folders_hold_dicom(tmp_path: Path) -> None:
    for name in ("train/NORMAL/a.dcm", "train/PNEUMONIA/b.DICOM", "test/NORMAL/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(dicom_file())
    (tmp_path / "test/NORMAL/notes.txt").write_bytes(b"")
    data = load_dataset(tmp_path)
    assert data.train.names == ("train/NORMAL/a.dcm", "train/PNEUMONIA/b.DICOM")
    np.testing.assert_array_equal(data.train.image(0), decode(dicom_file()))
    np.testing.assert_array_equal(data.train.images(32)[0], load_square(dicom_file(), 32))
    assert [record.name for record in class_folders(tmp_path).records] == sorted(
        ["train/NORMAL/a.dcm", "train/PNEUMONIA/b.DICOM", "test/NORMAL/c.png"]
    )


def test_facts_of_dicom_files_are_told(tmp_path: Path) -> None:
    files = {
        "a.dcm": dicom_file(),
        "b.dcm": dicom_file((DEEP >> 4).astype(np.uint8)),
        "c.dcm": dicom_file(Modality="CT"),
    }
    for name, content in files.items():
        (tmp_path / "train/NORMAL").mkdir(parents=True, exist_ok=True)
        (tmp_path / "train/NORMAL" / name).write_bytes(content)
    data = load_dataset(tmp_path)
    seen = look(data.source, data.train.records)
    rows = seen.facts[["name", "format", "mode", "width", "height"]].to_numpy().tolist()
    assert rows == [
        ["train/NORMAL/a.dcm", "DICOM", "I;16", 120, 96],
        ["train/NORMAL/b.dcm", "DICOM", "L", 120, 96],
    ]
    assert seen.facts["jpeg_quality"].isna().all()
    assert [name for name, _ in seen.unreadable] == ["train/NORMAL/c.dcm"]
    with pytest.raises(UnsupportedImageError, match=r"train/NORMAL/c\.dcm: .*modality"):
        file_facts(data.train)
