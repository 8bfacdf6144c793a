"""DICOM over HTTP: every file that pydicom brings gets an answer or a clean no, and nobody's name comes back."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("pydicom", reason="the extra 'dicom' is not installed")

import pydicom

from pneumolib.data.images import Limits, load_square, square
from pneumolib.errors import ImageTooLargeError, PneumolibError, UnsupportedImageError
from pneumolib.serving.decoder import Decoder

FOLDER = Path(pydicom.__file__).parent / "data"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))


def code(content: bytes, size: int) -> str | None:
    """The code of the problem that a file is, by the door that pixels come in by; None where it is a picture."""
    try:
        load_square(content, size, limits=Limits())
    except ImageTooLargeError:
        return "image_too_large"
    except UnsupportedImageError:
        return "unsupported_media_type"
    except PneumolibError:
        return "undecodable_image"
    return None


def names(path: Path) -> list[str]:
    """Who the file says that it shows."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            found = [str(header.get(name, "")) for name in ("PatientName", "PatientID", "InstitutionName")]
    except Exception:  # a file that is no DICOM names nobody
        return []
    return [name for name in found if len(name) > 3]


def test_every_file_of_pydicom_is_answered(
    server: Any, detector: Any, counted: Callable[..., float], is_answer: Callable[..., bool]
) -> None:
    assert len(FILES) > 100
    restarts, seen = counted(server, "decoder_restarts_total"), set()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        for path in FILES:
            content = path.read_bytes()
            connection.request("POST", "/v1/predict", content, {"Content-Type": "application/dicom"})
            reply = connection.getresponse()
            text = reply.read().decode()
            expected = code(content, detector.size)
            seen.add(expected)
            if expected is None:
                assert reply.status == 200, path
                assert is_answer(json.loads(text), content)
            else:
                assert json.loads(text)["code"] == expected, path
            assert not [name for name in names(path) if name in text], path
    assert counted(server, "decoder_restarts_total") == restarts
    assert {"unsupported_media_type", "undecodable_image"} <= seen


def radiograph(pixels: np.ndarray) -> bytes:
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    data.PatientName, data.PatientID, data.Modality = "Doe^Jane", "4711-0815", "CR"
    data.SamplesPerPixel, data.PixelRepresentation, data.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.Rows, data.Columns = pixels.shape
    data.PixelData = pixels.tobytes()
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["application/dicom", "application/octet-stream", "form"])
def test_a_radiograph_gets_its_answer_without_a_name(
    client: Any, pixels: np.ndarray, kind: str, is_answer: Callable[..., bool]
) -> None:
    content = radiograph(pixels)
    address = "/v1/predict?heatmap=overlay&picture=true"
    if kind == "form":
        reply = client.post(address, files={"file": ("Doe^Jane.dcm", content, "application/dicom")})
    else:
        reply = client.post(address, content=content, headers={"Content-Type": kind})
    assert is_answer(reply.json(), content)
    assert (reply.json()["picture"]["height"], reply.json()["picture"]["width"]) == pixels.shape
    shown = base64.b64decode(reply.json()["picture"]["data"]) + base64.b64decode(reply.json()["heatmap"]["data"])
    for told in (reply.content, shown):
        assert b"Doe^Jane" not in told
        assert b"4711-0815" not in told


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its memory")
def test_what_reads_dicom_does_not_count_against_a_files_memory(pixels: np.ndarray, x_ray: bytes) -> None:
    decoder = Decoder(64, Limits(), memory=32 * 2**20, seconds=60)  # less than pydicom and imagecodecs take
    try:
        decoder.decode(x_ray)
        before = decoder.pid
        for _ in range(2):
            np.testing.assert_array_equal(decoder.decode(radiograph(pixels)).square, square(pixels, 64))
        assert decoder.pid == before
        limit = re.search(r"Max address space +(\d+)", Path(f"/proc/{before}/limits").read_text())
        assert limit is not None
    finally:
        decoder.stop()
