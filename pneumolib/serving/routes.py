"""The addresses of the API, and what OpenAPI says of each."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from pneumolib.serving import answers, schema
from pneumolib.serving.desk import Desk
from pneumolib.serving.lanes import Options
from pneumolib.serving.problems import CONTENT_TYPE, PROBLEMS, Problem

OperatingPoint = Annotated[
    str, Query(max_length=64, description="Which of the detector's operating points decides; `/v1/model` lists them")
]
WithHeatmap = Annotated[
    schema.HeatmapKind,
    Query(description="`layer`: colours with transparency, to lay over the picture; `overlay`: laid over it"),
]
WithPicture = Annotated[bool, Query(description="Also give the picture as the server read it")]


def _problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of the problems with these codes."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = PROBLEMS[code]
        known = found.setdefault(status, {"description": "", "content": {CONTENT_TYPE: {"schema": _PROBLEM}}})
        known["description"] = "; ".join(filter(None, (known["description"], f"{title} (`{code}`)")))
    return found


_PROBLEM = {"$ref": "#/components/schemas/ProblemDetails"}
_BINARY = {"type": "string", "format": "binary"}
_EVERYWHERE = ("malformed_request", "invalid_parameter", "unauthorized", "internal_error")
_OF_A_BODY = (
    *("body_timeout", "body_too_large", "unsupported_media_type", "unsupported_encoding"),
    *("queue_full", "not_ready", "draining"),
)
_OF_A_PICTURE = ("one_file_expected", "image_too_large", "undecodable_image", "deadline_passed")
_ONE_FILE = {
    "required": True,
    "description": "The file itself, or a form that holds it",
    "content": {
        **{kind: {"schema": _BINARY} for kind in (*schema.MEDIA_TYPES, schema.ANY_BINARY)},
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"file": _BINARY}, "required": ["file"]},
        },
    },
}
_FILES = {
    "required": True,
    "description": "A form that holds the files",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"files": {"type": "array", "items": _BINARY, "minItems": 1}},
                "required": ["files"],
            },
        },
    },
}


def add_answers(app: FastAPI, desk: Desk) -> None:
    """Add the addresses that answer to X-rays."""

    @app.post(
        "/v1/predict",
        summary="Answer to one X-ray",
        operation_id="predict",
        tags=["answers"],
        response_model=schema.Answer,
        responses=_problems(*_EVERYWHERE, *_OF_A_BODY, *_OF_A_PICTURE),
        openapi_extra={"requestBody": _ONE_FILE},
    )
    async def predict(
        request: Request,
        operating_point: OperatingPoint = "balanced",
        heatmap: WithHeatmap = "none",
        picture: WithPicture = False,
    ) -> Response:
        options = Options(operating_point, heatmap, picture)
        began = time.monotonic()
        (outcome,) = await desk.look(request, options, 1)
        return _json(desk.answer(outcome, options, request, began))

    @app.post(
        "/v1/heatmap",
        summary="The heat map of one X-ray, laid over it, as PNG",
        operation_id="heatmap",
        tags=["answers"],
        response_class=Response,
        responses={
            200: {"content": {"image/png": {"schema": _BINARY}}},
            **_problems(*_EVERYWHERE, *_OF_A_BODY, *_OF_A_PICTURE, "not_a_chest_xray"),
        },
        openapi_extra={"requestBody": _ONE_FILE},
    )
    async def heatmap(request: Request) -> Response:
        (outcome,) = await desk.look(request, Options(heatmap="overlay"), 1)
        if isinstance(outcome, Problem):
            raise outcome
        if outcome.heatmap is None:
            raise Problem("not_a_chest_xray", f"There is nothing to show: {outcome.prediction.input.reason}.")
        return Response(outcome.heatmap.data, media_type="image/png")

    @app.post(
        "/v1/predict:batch",
        summary="Answers to several X-rays, or what is wrong with each",
        operation_id="predict_batch",
        tags=["answers"],
        response_model=schema.BatchAnswer,
        responses=_problems(*_EVERYWHERE, *_OF_A_BODY, "one_file_expected", "too_many_files"),
        openapi_extra={"requestBody": _FILES},
    )
    async def predict_batch(
        request: Request,
        operating_point: OperatingPoint = "balanced",
        heatmap: WithHeatmap = "none",
        picture: WithPicture = False,
    ) -> Response:
        options = Options(operating_point, heatmap, picture)
        began = time.monotonic()
        items = []
        for index, outcome in enumerate(await desk.look(request, options, desk.settings.max_files)):
            if isinstance(outcome, Problem):
                desk.metrics.problems.labels(outcome.code).inc()
                problem = schema.ProblemDetails(**outcome.to_dict(request.state.request_id))
                items.append(schema.BatchItem(index=index, answer=None, problem=problem))
            else:
                answered = desk.answer(outcome, options, request, began)
                items.append(schema.BatchItem(index=index, answer=answered, problem=None))
        return _json(schema.BatchAnswer(request_id=request.state.request_id, results=items))

    @app.get(
        "/v1/model",
        summary="The detector that answers, and what is taken in",
        operation_id="model",
        tags=["answers"],
        response_model=schema.ModelInfo,
        responses=_problems("unauthorized"),
    )
    async def model() -> Response:
        return _json(answers.model_info(desk.detector, desk.settings, desk.lanes.self_check))


def add_operations(app: FastAPI, desk: Desk) -> None:
    """Add the addresses for those who run the server."""

    @app.get(
        "/v2/health/live", summary="Is the process there?", operation_id="live", tags=["operations"],
        response_model=schema.Health,
    )  # fmt: skip
    async def live() -> Response:
        return _json(schema.Health(live=True, ready=desk.lanes.ready, reason=desk.lanes.reason))

    @app.get(
        "/v2/health/ready",
        summary="Does it take pictures?",
        operation_id="ready",
        tags=["operations"],
        response_model=schema.Health,
        responses=_problems("not_ready"),
    )
    async def ready() -> Response:
        if not desk.lanes.ready:
            raise Problem("not_ready", f"The server takes no pictures: {desk.lanes.reason}.", retry_after=1)
        return _json(schema.Health(live=True, ready=True, reason=None))

    @app.get(
        "/metrics",
        summary="Counts and times, for Prometheus",
        operation_id="metrics",
        tags=["operations"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_problems("unauthorized")},
    )
    async def metrics() -> Response:
        return Response(desk.metrics.text(), media_type="text/plain; version=0.0.4")


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(by_alias=True), media_type="application/json")
