"""Answers as DICOM objects that an archive files beside the X-ray: a structured report, and a picture of the heat.

Both are made by highdicom (MIT), from a DICOM file that `Detector.predict` reads and from its explanation:

- `structured_report`: a Comprehensive SR by the standard's template for measurements (TID 1500). Machines find in it
  the finding, its certainty (the calibrated probability in per cent), positive or negative at the operating point, the
  detector, its version and its threshold, and the image that was looked at.
- `secondary_capture`: the X-ray with the heat laid over it, and burnt into a band above it what the answer is and that
  it is not for diagnosis. Every viewer shows it, also one that knows no structured reports.

An archive files an object by patient and study, so both carry what the X-ray says of them, names and dates included.
They are for the archive that the X-ray is from; nothing else in this package reads or passes on such values, and the
API makes no such objects. An explanation of another picture is refused, lest an answer be filed under the wrong
patient; so is an answer that the check of the input has refused, which means nothing.

Left out: the subtypes, which are unproven, and the heat as a region or a segmentation, which it is not: it says where
the network found what it answers by, and has no border that was measured.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pneumolib.data import dicom
from pneumolib.data.dicom_header import extra, silence
from pneumolib.data.images import _warnings_held_back, decode, load_square
from pneumolib.errors import DataError, PneumolibError, UnsupportedImageError
from pneumolib.evaluation.overlay import overlay
from pneumolib.models.detector import Detector
from pneumolib.models.explain import Explanation

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

WARNING = "Research software, NOT FOR DIAGNOSIS"
PHANTOM = "PHANTOM: trained on synthetic X-rays, the answer means nothing"
LONGER_SIDE = 1024  # of the picture with the heat, in pixels: the heat has far fewer places
_SERIES = 9700  # far from the numbers that devices give
_BAND = ((24, 24, 24), (255, 255, 255))
# What an object must say of patient and study, though it may be empty; many files lack some of it.
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
_COPIED = (
    "BodyPartExamined", "Laterality", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)  # fmt: skip
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


def structured_report(source: bytes | str | os.PathLike[str], explanation: Explanation, detector: Detector) -> bytes:
    """Return the answer as a DICOM file, a Comprehensive SR that refers to the X-ray.

    Args:
        source: the bytes or the path of the DICOM file that `explanation` is of.
        explanation: as `explain` gives it.
        detector: the one that answered.

    Raises:
        DataError: the explanation is of another picture, its input was refused, or the file does not say where it
            belongs.
        UnsupportedImageError: the file is no DICOM.
        ImageError: it is DICOM that is not read.
        MissingExtraError: a package of the extra ``dicom`` is not installed.

    Examples:
        >>> found = explain(detector, "scan.dcm")                                     # doctest: +SKIP
        >>> Path("report.dcm").write_bytes(structured_report("scan.dcm", found, detector))   # doctest: +SKIP
    """
    _, header = _source(source, explanation, detector)
    with _by_the_standard():
        return _finished(_report(header, explanation, detector), detector, "pneumolib report")


def _report(header: Dataset, explanation: Explanation, detector: Detector) -> Dataset:
    sr, uid, codes = extra("highdicom.sr"), extra("highdicom").UID, extra("pydicom.sr.codedict").codes
    answer = explanation.prediction
    pneumonia = sr.CodedConcept("233604007", "SCT", "Pneumonia")
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=uid(), identifier="Pneumonia"),
        finding_type=pneumonia,
        finding_sites=[sr.FindingSite(codes.SCT.Lung)],
        algorithm_id=sr.AlgorithmIdentification(
            name=f"pneumolib {detector.name}",
            version=detector.version,
            parameters=[
                f"operating point: {answer.operating_point}",
                f"threshold: {answer.threshold:.6g} of the calibrated probability",
                f"sha256: {detector.sha256}",
            ],
        ),
        measurements=[
            sr.Measurement(codes.DCM.CertaintyOfFinding, round(100 * answer.probability, 4), codes.UCUM.Percent)
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                pneumonia, codes.SCT.Positive if answer.decision == "pneumonia" else codes.SCT.Negative
            )
        ],
        source_images=[sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)],
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=codes.DCM.Device,
                observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                    uid=uid(), manufacturer_name="pneumolib", model_name=detector.name, name="pneumolib"
                ),
            )
        ),
        procedure_reported=sr.CodedConcept("399208008", "SCT", "Plain chest X-ray"),
        imaging_measurements=[group],
    )
    contains = sr.RelationshipTypeValues.CONTAINS
    for words in _words(explanation):
        report[0].ContentSequence.append(sr.TextContentItem(codes.DCM.Comment, words, contains))
    made: Dataset = sr.ComprehensiveSR(
        evidence=[header],
        content=report,
        series_number=_SERIES,
        is_complete=True,
        is_final=False,
        is_verified=False,
        **_new(),
    )
    return made


def secondary_capture(source: bytes | str | os.PathLike[str], explanation: Explanation, detector: Detector) -> bytes:
    """Return the X-ray with the heat over it as a DICOM file, a Secondary Capture in colour that refers to the X-ray.

    Args and raises as `structured_report`.
    """
    content, header = _source(source, explanation, detector)
    picture = drawn(decode(content), explanation)
    with _by_the_standard():
        return _finished(_capture(header, picture, explanation), detector, "pneumolib heat map")


def _capture(header: Dataset, picture: NDArray[np.uint8], explanation: Explanation) -> Dataset:
    made: Dataset = extra("highdicom").sc.SCImage.from_ref_dataset(
        header,
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        series_number=_SERIES + 1,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **_new(),
    )
    # highdicom wants one; what the X-ray says is true of the picture too, and where it says nothing, so do we.
    made.PatientOrientation = header.get("PatientOrientation")
    made.BodyPartExamined = "CHEST"
    for keyword in _COPIED:
        if header.get(keyword):
            setattr(made, keyword, header[keyword].value)
    dataset, codes = extra("pydicom.dataset").Dataset, extra("pydicom.sr.codedict").codes
    image, purpose = dataset(), dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    code = codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code.value, "DCM", code.meaning
    image.PurposeOfReferenceCodeSequence = [purpose]
    made.SourceImageSequence = [image]
    made.DerivationDescription = (
        f"Heat map ({explanation.method}) laid over the X-ray. {'. '.join(_words(explanation))}"
    )
    made.BurnedInAnnotation = "YES"
    return made


def drawn(gray: NDArray[np.uint8], explanation: Explanation) -> NDArray[np.uint8]:
    """Return the picture with the heat over it, and above it a band with the answer, uint8 ``[H, W, 3]``.

    Args:
        gray: the X-ray, uint8 ``[H, W]``; its longer side becomes `LONGER_SIDE`.
        explanation: of it.
    """
    scale = LONGER_SIDE / max(gray.shape)
    height, width = (max(1, round(side * scale)) for side in gray.shape)
    smooth = Image.fromarray(gray).resize((width, height), Image.Resampling.BILINEAR)
    hot = Image.fromarray(overlay(np.asarray(smooth), explanation.on(np.asarray(smooth))))
    answer = explanation.prediction
    lines = [
        *_words(explanation),
        f"{answer.decision}, probability {answer.probability:.3f}",
        f"threshold {answer.threshold:.3f} ({answer.operating_point})",
        f"warm: speaks for {explanation.target} ({explanation.method})",
    ]
    wide = max(width, LONGER_SIDE // 2)
    size = 26.0
    while size > 10 and max(ImageFont.load_default(size).getlength(line) for line in lines) > wide - 24:
        size -= 1
    font, step = ImageFont.load_default(size), round(size * 1.4)
    band = step * len(lines) + 16
    page = Image.new("RGB", (wide, band + height), _BAND[0])
    pen = ImageDraw.Draw(page)
    for i, line in enumerate(lines):
        pen.text((12, 8 + i * step), line, font=font, fill=_BAND[1])
    page.paste(hot, ((wide - width) // 2, band))
    return np.asarray(page)


def _words(explanation: Explanation) -> list[str]:
    return [WARNING, *([PHANTOM] if explanation.phantom else [])]


def _source(
    source: bytes | str | os.PathLike[str], explanation: Explanation, detector: Detector
) -> tuple[bytes, Dataset]:
    """Return the file's bytes and its whole header, pixels left out, once it is sure that all three belong together."""
    square = load_square(source, detector.size)
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    if not dicom.is_dicom(content):
        raise UnsupportedImageError("Only an answer to a DICOM file can become a DICOM object. Allowed: a DICOM file.")
    point = detector.operating_points.get(explanation.prediction.operating_point)
    same = point is not None and point.threshold == explanation.prediction.threshold
    if not same or not np.array_equal(square, explanation.image):
        raise DataError(
            "The explanation is of another picture, or of another detector, than the file. Allowed: what "
            "explain(detector, source) gives for this detector and this source."
        )
    if explanation.prediction.decision is None:
        raise DataError(
            f"The answer was refused by the check of the input and means nothing: {explanation.prediction.input.reason}"
        )
    with silence(), _warnings_held_back():
        header = extra("pydicom").dcmread(io.BytesIO(content), stop_before_pixels=True)
        lacking = [keyword for keyword in _NEEDED if not header.get(keyword)]
        for keyword in _MAY_BE_EMPTY:
            if keyword not in header:
                setattr(header, keyword, None)
    if lacking:
        raise DataError(f"The file does not say where it belongs: it lacks {', '.join(lacking)}.")
    return content, header


@contextmanager
def _by_the_standard() -> Iterator[None]:
    """Say in our words that a file's values cannot be taken over: the libraries' words may quote them."""
    try:
        with silence(), _warnings_held_back():
            yield
    except (ValueError, TypeError, AttributeError) as error:
        if isinstance(error, PneumolibError):
            raise
        raise DataError(
            "What the file says of patient, study or image is not what the standard allows, so that no object can be "
            "filed by it. Allowed: a file that keeps to the standard."
        ) from None


def _new() -> dict[str, Any]:
    """Return what every new object in a series of its own is called."""
    uid = extra("highdicom").UID
    return {
        "series_instance_uid": uid(),
        "sop_instance_uid": uid(),
        "instance_number": 1,
        "manufacturer": "pneumolib",
    }


def _finished(made: Dataset, detector: Detector, description: str) -> bytes:
    made.SeriesDescription = f"{description} - NOT FOR DIAGNOSIS"
    made.ManufacturerModelName = detector.name
    made.SoftwareVersions = detector.version
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()
