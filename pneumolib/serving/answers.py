"""From what a lane found to what a caller reads."""

from __future__ import annotations

import base64
import platform
from typing import Any

import pneumolib
from pneumolib import runtime
from pneumolib.models.detector import Detector
from pneumolib.serving import schema
from pneumolib.serving.settings import Settings
from pneumolib.serving.work import Image, Options, Result


def model_name(detector: Detector) -> schema.ModelName:
    """Return the name by which answers refer to `detector`."""
    return schema.ModelName(
        name=detector.name,
        version=detector.version,
        sha256=detector.sha256,
        phantom=bool(detector.card.get("phantom")),
    )


def answer(
    result: Result, options: Options, *, model: schema.ModelName, request_id: str, total_seconds: float
) -> schema.Answer:
    """Return the answer to one picture; what a refused one would have got is left out, so that nobody takes it."""
    prediction, check = result.prediction, result.prediction.input
    known = check.ok and {"bacterial", "viral"} <= set(prediction.subtypes)
    p = prediction.subtypes
    subtypes = schema.Subtypes(bacterial=p["bacterial"], viral=p["viral"]) if known else None
    heatmap = None
    if result.heatmap is not None:
        assert options.heatmap != "none"
        heatmap = schema.Heatmap(kind=options.heatmap, **_png(result.heatmap))
    return schema.Answer(
        request_id=request_id,
        model=model,
        probability=prediction.probability if check.ok else None,
        decision=prediction.decision,
        operating_point=schema.Threshold(name=prediction.operating_point, threshold=prediction.threshold),
        subtypes=subtypes,
        input=schema.InputState(ok=check.ok, code=check.code, reason=check.reason),
        heatmap=heatmap,
        picture=None if result.picture is None else schema.Picture(**_png(result.picture)),
        timing=schema.Timing(
            queue=_ms(result.queue_seconds),
            decode=_ms(result.decode_seconds),
            inference=_ms(result.inference_seconds),
            heatmap=_ms(result.heatmap_seconds),
            total=_ms(total_seconds),
        ),
    )


def model_info(detector: Detector, settings: Settings, self_check: float | None) -> schema.ModelInfo:
    """Return what ``/v1/model`` tells of `detector` and of what is taken in."""
    import PIL

    card = detector.card
    return schema.ModelInfo(
        model=model_name(detector),
        architecture=detector.config.architecture,
        size=detector.size,
        classes=list(detector.class_names),
        operating_points=[
            schema.Point(
                name=name,
                threshold=point.threshold,
                sensitivity=point.sensitivity,
                specificity=point.specificity,
                rule=point.rule,
            )
            for name, point in detector.operating_points.items()
        ],
        temperature=detector.temperature,
        validation={name: float(card[name]) for name in ("val_auc", "shifted_auc") if name in card},
        input=schema.InputPolicy(
            media_types=[*schema.MEDIA_TYPES, schema.ANY_BINARY],
            max_bytes=settings.max_bytes,
            max_pixels=settings.max_pixels,
            max_files=settings.n_files,
            max_batch_bytes=settings.max_batch_bytes,
        ),
        self_check=schema.SelfCheck(recorded="self_check" in card, difference=self_check),
        versions={
            "pneumolib": pneumolib.__version__,
            "python": platform.python_version(),
            "onnxruntime": runtime.onnxruntime().__version__,
            "pillow": PIL.__version__,
        },
    )


def _png(image: Image) -> dict[str, Any]:
    return {"width": image.width, "height": image.height, "data": base64.b64encode(image.data).decode("ascii")}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
