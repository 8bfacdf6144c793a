"""From what a lane found to what a caller reads."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("pydantic", reason="the extra 'serve' is not installed")

from pneumolib.models.detector import Detector
from pneumolib.models.prediction import Prediction
from pneumolib.models.reference import InputCheck
from pneumolib.serving.answers import answer, model_info, model_name
from pneumolib.serving.settings import Settings
from pneumolib.serving.work import Image, Options, Result

PREDICTION = Prediction(
    path=None,
    probability=0.75,
    decision="pneumonia",
    threshold=0.5,
    operating_point="balanced",
    subtypes={"bacterial": 0.5, "viral": 0.25},
    input=InputCheck(True),
)
RESULT = Result(
    prediction=PREDICTION,
    heatmap=None,
    picture=None,
    decode_seconds=0.001,
    inference_seconds=0.0025,
    heatmap_seconds=0.0,
    queue_seconds=0.5,
)
PNG = Image(b"\x89PNG", width=3, height=4)


def told(detector: Detector, result: Result, options: Options | None = None) -> dict[str, Any]:
    found = answer(result, options or Options(), model=model_name(detector), request_id="id", total_seconds=0.6)
    return found.model_dump(by_alias=True)


def test_an_answer_says_all_that_was_found(detector: Detector) -> None:
    assert told(detector, RESULT) == {
        "schema": "pneumolib.answer/1",
        "request_id": "id",
        "model": {
            "name": detector.name,
            "version": detector.version,
            "sha256": detector.sha256,
            "phantom": False,
        },
        "probability": 0.75,
        "decision": "pneumonia",
        "operating_point": {"name": "balanced", "threshold": 0.5},
        "subtypes": {"bacterial": 0.5, "viral": 0.25, "proven": False},
        "input": {"ok": True, "code": None, "reason": None},
        "heatmap": None,
        "picture": None,
        "timing": {"queue": 500.0, "decode": 1.0, "inference": 2.5, "heatmap": 0.0, "total": 600.0},
        "notice": "Research and teaching software: no medical device, not for diagnosis.",
    }


def test_a_refused_picture_has_no_numbers_that_could_be_taken_for_an_answer(detector: Detector) -> None:
    check = InputCheck(False, code="inverted", reason="it is inverted")
    found = told(detector, replace(RESULT, prediction=replace(PREDICTION, decision=None, input=check)))
    assert found["probability"] is found["decision"] is found["subtypes"] is None
    assert found["input"] == {"ok": False, "code": "inverted", "reason": "it is inverted"}


def test_a_detector_without_subtypes_tells_none(detector: Detector) -> None:
    found = told(detector, replace(RESULT, prediction=replace(PREDICTION, subtypes={})))
    assert found["subtypes"] is None
    assert found["decision"] == "pneumonia"


@pytest.mark.parametrize("kind", ["layer", "overlay"])
def test_pictures_come_as_text(detector: Detector, kind: Any) -> None:
    found = told(detector, replace(RESULT, heatmap=PNG, picture=PNG), Options(heatmap=kind, picture=True))
    data = base64.b64encode(b"\x89PNG").decode()
    picture = {"media_type": "image/png", "width": 3, "height": 4, "data": data}
    assert found["picture"] == picture
    assert found["heatmap"] == {"kind": kind, "method": "cam", "target": "pneumonia", **picture}


def test_the_detector_is_described_with_its_limits(detector: Detector) -> None:
    found = model_info(detector, Settings(queue=7), self_check=1e-7).model_dump(by_alias=True)
    assert found["model"]["sha256"] == detector.sha256
    assert [point["name"] for point in found["operating_points"]] == list(detector.operating_points)
    assert found["input"]["max_files"] == 7
    assert "application/dicom" in found["input"]["media_types"]
    assert found["self_check"] == {"recorded": True, "difference": 1e-7}
    assert set(found["validation"]) == {"val_auc", "shifted_auc"}
    assert set(found["versions"]) == {"pneumolib", "python", "onnxruntime", "pillow"}
