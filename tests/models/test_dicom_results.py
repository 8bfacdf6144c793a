"""Answers as DICOM objects: they say what was answered, of which X-ray, and that it is not for diagnosis."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pydicom", reason="the extra 'dicom' is not installed")
pytest.importorskip("highdicom", reason="the extra 'dicom' is not installed")

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from pneumolib.data.images import decode, load_square
from pneumolib.data.radiograph import draw
from pneumolib.errors import DataError, ImageError, UnsupportedImageError
from pneumolib.models.detector import Detector, load_detector
from pneumolib.models.dicom_results import PHANTOM, WARNING, drawn, secondary_capture, structured_report
from pneumolib.models.explain import Explanation
from pneumolib.models.prediction import Prediction
from pneumolib.models.reference import InputCheck

IDENTITY = {
    "PatientName": "QUIXWORTH^ZELDA",
    "PatientID": "MRN-4711-X",
    "PatientBirthDate": "19610214",
    "PatientSex": "F",
    "AccessionNumber": "ACC900817",
    "StudyID": "7",
    "StudyDate": "20230517",
    "StudyTime": "101112",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.777001",
}
PLACE = {
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.777002",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.777003",
    "SOPClassUID": uid.ComputedRadiographyImageStorage,
}


def xray(seed: int = 1, leave_out: tuple[str, ...] = (), values: np.ndarray | None = None, **elements: Any) -> bytes:
    """A CR image as a file."""
    if values is None:
        values = draw("bacterial", seed, size=(300, 240)).astype(np.uint16) * 16
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = PLACE["SOPClassUID"]
    dataset.file_meta.MediaStorageSOPInstanceUID = PLACE["SOPInstanceUID"]
    dataset.Modality, dataset.PhotometricInterpretation = "CR", "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = values.tobytes()
    for keyword, value in {**IDENTITY, **PLACE, **elements}.items():
        if keyword not in leave_out:
            setattr(dataset, keyword, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector()


def explained(
    detector: Detector, content: bytes, *, ok: bool = True, p: float = 0.9437, phantom: bool = False
) -> Explanation:
    """An explanation as `explain` gives it, of an answer that the test decides."""
    heat = np.zeros((detector.size, detector.size), np.float32)
    heat[: detector.size // 2] = 1
    prediction = Prediction(
        path=None,
        probability=p,
        decision=("pneumonia" if p >= detector.threshold else "normal") if ok else None,
        threshold=detector.threshold,
        operating_point="balanced",
        subtypes={"bacterial": 0.7, "viral": 0.2437},
        input=InputCheck(ok) if ok else InputCheck(False, "it is upside down", "turned"),
    )
    image = load_square(content, detector.size)
    return Explanation(heat, heat, image, "cam", "pneumonia", prediction, phantom)


def opened(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content))


def values(dataset: Dataset) -> dict[str, list[Any]]:
    """What a report holds, by the meaning of its concept names, at any depth."""
    found: dict[str, list[Any]] = {}
    for item in dataset.get("ContentSequence", []):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else item.ValueType
        if item.ValueType == "NUM":
            measured = item.MeasuredValueSequence[0]
            value: Any = (float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue)
        elif item.ValueType == "CODE":
            code = item.ConceptCodeSequence[0]
            value = (code.CodeValue, code.CodingSchemeDesignator)
        elif item.ValueType == "IMAGE":
            value = item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        else:
            value = item.get("TextValue", item.get("UID"))
        found.setdefault(name, []).append(value)
        for nested, more in values(item).items():
            found.setdefault(nested, []).extend(more)
    return found


@pytest.mark.parametrize(("p", "answer"), [(0.9437, "10828004"), (0.0312, "260385009")])
def test_a_report_says_what_was_answered_by_whom_and_of_what(detector: Detector, p: float, answer: str) -> None:
    report = opened(structured_report(xray(), explained(detector, xray(), p=p), detector))
    assert report.SOPClassUID == uid.ComprehensiveSRStorage
    assert report.Modality == "SR"
    said = values(report)
    assert said["Finding"] == [("233604007", "SCT")]
    assert said["Certainty of Finding"] == [(pytest.approx(100 * p), "%")]
    assert said["Pneumonia"] == [(answer, "SCT")]
    assert said["Algorithm Name"] == [f"pneumolib {detector.name}"]
    assert said["Algorithm Version"] == [detector.version]
    assert said["Algorithm Parameters"] == [
        "operating point: balanced",
        f"threshold: {detector.threshold:.6g} of the calibrated probability",
        f"sha256: {detector.sha256}",
    ]
    assert said["Comment"] == [WARNING]
    assert said["Source of Measurement"] == [PLACE["SOPInstanceUID"]]
    assert (report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag) == (
        "COMPLETE",
        "PRELIMINARY",
        "UNVERIFIED",
    )
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0]
    assert evidence.StudyInstanceUID == IDENTITY["StudyInstanceUID"]
    assert (
        evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        == PLACE["SOPInstanceUID"]
    )


def test_a_report_says_nothing_of_the_subtypes(detector: Detector) -> None:
    content = structured_report(xray(), explained(detector, xray()), detector)
    assert b"bacterial" not in content.lower()
    assert b"viral" not in content.lower()


@pytest.mark.parametrize("make", [structured_report, secondary_capture])
def test_both_are_filed_where_the_xray_is_each_in_a_series_of_its_own(
    make: Any, detector: Detector, tmp_path: Path
) -> None:
    (tmp_path / "scan.dcm").write_bytes(xray())
    found = explained(detector, xray())
    first, second = (opened(make(source, found, detector)) for source in (xray(), tmp_path / "scan.dcm"))
    for keyword, value in IDENTITY.items():
        assert str(first[keyword].value) == value
    uids = {getattr(o, k) for o in (first, second) for k in ("SOPInstanceUID", "SeriesInstanceUID")}
    assert len(uids) == 4
    assert not uids & set(PLACE.values())
    assert "NOT FOR DIAGNOSIS" in first.SeriesDescription
    assert (first.Manufacturer, first.ManufacturerModelName, first.SoftwareVersions) == (
        "pneumolib",
        detector.name,
        detector.version,
    )


def test_a_capture_is_the_xray_with_the_heat_and_a_band_of_words(detector: Detector) -> None:
    found = explained(detector, xray())
    capture = opened(secondary_capture(xray(PatientOrientation=["L", "F"]), found, detector))
    assert capture.SOPClassUID == uid.SecondaryCaptureImageStorage
    assert capture.BurnedInAnnotation == "YES"
    assert list(capture.PatientOrientation) == ["L", "F"]
    assert WARNING in capture.DerivationDescription
    source = capture.SourceImageSequence[0]
    assert (source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID) == (
        PLACE["SOPClassUID"],
        PLACE["SOPInstanceUID"],
    )
    pixels = capture.pixel_array
    np.testing.assert_array_equal(pixels, drawn(decode(xray()), found))
    band = pixels.shape[0] - 1024
    assert pixels.shape[1:] == (819, 3)
    assert 50 < band < 300
    assert (pixels[:band] > 200).any(axis=-1).mean() > 0.01, "there are no words"
    upper, lower = pixels[band : band + 500].astype(int), pixels[band + 530 :].astype(int)
    assert np.ptp(upper, axis=-1).mean() > 30, "the warm half has no colour"
    assert np.ptp(lower, axis=-1).max() == 0, "the cold half has one"
    gray = np.asarray(Image.fromarray(decode(xray())).resize((819, 1024), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(lower[..., 0], gray[530:])


def test_a_capture_of_a_lossy_xray_says_so(detector: Detector) -> None:
    content = xray(
        LossyImageCompression="01", LossyImageCompressionRatio=12.5, LossyImageCompressionMethod="ISO_10918_1"
    )
    capture = opened(secondary_capture(content, explained(detector, content), detector))
    assert (capture.LossyImageCompression, capture.LossyImageCompressionRatio) == ("01", 12.5)


@pytest.mark.parametrize("shape", [(20, 400), (400, 20), (16, 16), (3000, 2000)])
def test_words_fit_over_pictures_of_any_shape(shape: tuple[int, int], detector: Detector) -> None:
    page = drawn(np.full(shape, 90, np.uint8), explained(detector, xray(), phantom=True))
    assert page.shape[1] >= 512
    words = np.flatnonzero((page > 200).all(axis=-1).any(axis=0))
    assert 0 < words[0] < words[-1] < page.shape[1] - 8


def test_phantoms_are_called_so_in_both(detector: Detector) -> None:
    found = explained(detector, xray(), phantom=True)
    assert values(opened(structured_report(xray(), found, detector)))["Comment"] == [WARNING, PHANTOM]
    assert PHANTOM in opened(secondary_capture(xray(), found, detector)).DerivationDescription
    assert len(drawn(decode(xray()), found)) > len(drawn(decode(xray()), replace(found, phantom=False)))


@pytest.mark.parametrize("make", [structured_report, secondary_capture])
def test_what_does_not_belong_together_is_refused(make: Any, detector: Detector, tmp_path: Path) -> None:
    found = explained(detector, xray())
    with pytest.raises(DataError, match="explanation is of another picture"):
        make(xray(seed=2), found, detector)
    other = replace(found, prediction=replace(found.prediction, threshold=0.123))
    with pytest.raises(DataError, match="or of another detector"):
        make(xray(), other, detector)
    with pytest.raises(DataError, match=r"refused by the check of the input.*upside down"):
        make(xray(), explained(detector, xray(), ok=False), detector)
    with pytest.raises(DataError, match="does not say where it belongs: it lacks StudyInstanceUID"):
        make(xray(leave_out=("StudyInstanceUID",)), found, detector)
    Image.fromarray(decode(xray())).save(tmp_path / "xray.png")
    with pytest.raises(UnsupportedImageError, match="Only an answer to a DICOM file"):
        make(tmp_path / "xray.png", found, detector)
    with pytest.raises(ImageError, match="modality"):
        make(xray(Modality="CT"), found, detector)


def test_a_file_that_says_little_of_the_patient_gets_its_objects_all_the_same(detector: Detector) -> None:
    bare = xray(leave_out=tuple(set(IDENTITY) - {"StudyInstanceUID"}))
    found = explained(detector, bare)
    for make in (structured_report, secondary_capture):
        assert opened(make(bare, found, detector)).StudyInstanceUID == IDENTITY["StudyInstanceUID"]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("make", [structured_report, secondary_capture])
def test_a_validator_finds_no_error(make: Any, detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "made.dcm").write_bytes(make(xray(), explained(detector, xray()), detector))
    done = subprocess.run(["dciodvfy", str(tmp_path / "made.dcm")], capture_output=True, text=True, check=False)
    assert "Error" not in done.stdout + done.stderr


def test_a_source_that_does_not_keep_to_the_standard_is_refused_without_a_quotation(detector: Detector) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd = xray(PatientBirthDate="14.2.61")
    for make in (structured_report, secondary_capture):
        with pytest.raises(DataError, match="not what the standard allows") as caught:
            make(odd, explained(detector, odd), detector)
        assert "14.2.61" not in str(caught.value)


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "dicom.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    # One that the detector takes for an X-ray.
    pixels = draw("normal", 12, size=(448, 540))
    Path("scan.dcm").write_bytes(xray(values=pixels.astype(np.uint16) * 16))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, "docs/dicom.md", "exec"), {})
    assert "scan.dcm: normal, probability" in said.getvalue()
    assert opened(Path("report.dcm").read_bytes()).Modality == "SR"
    assert opened(Path("heat.dcm").read_bytes()).StudyInstanceUID == IDENTITY["StudyInstanceUID"]
