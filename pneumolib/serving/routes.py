"""The addresses of the API, and what OpenAPI says of each."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from pneumolib.serving import answers, schema
from pneumolib.serving.desk import Desk
from pneumolib.serving.problems import CONTENT_TYPE, PROBLEMS, RETRIED, Problem
from pneumolib.serving.work import Options


def _problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of the problems with these codes."""
    found: dict[int | str, dict[str, Any]] = {}
    for status, title, code in sorted((*PROBLEMS[code], code) for code in codes):
        known = found.setdefault(status, {"description": "", "content": {CONTENT_TYPE: {"schema": _PROBLEM}}})
        known["description"] = "; ".join(filter(None, (known["description"], f"{title} (`{code}`)")))
        if status in RETRIED:
            known["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}
    return found


_PROBLEM = {"$ref": "#/components/schemas/ProblemDetails"}
_BINARY = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "additionalProperties": False}
_ANYWHERE = ("malformed_request", "body_too_large", "internal_error")
_FOR_CALLERS = (*_ANYWHERE, "unauthorized", "queue_full")
_OF_A_BODY = (
    *_FOR_CALLERS,
    *("invalid_parameter", "one_file_expected", "body_timeout", "unsupported_media_type", "unsupported_encoding"),
    *("not_ready", "draining"),
)
_OF_A_PICTURE = (*_OF_A_BODY, "image_too_large", "undecodable_image", "deadline_passed")
_ONE_FILE = {
    "required": True,
    "description": "The file itself, or a form that holds it",
    "content": {
        **{kind: {"schema": _BINARY} for kind in (*schema.MEDIA_TYPES, schema.ANY_BINARY)},
        "multipart/form-data": {
            "schema": {**_FORM, "properties": {"file": _BINARY}, "required": ["file"]},
        },
    },
}
_FILES = {
    "required": True,
    "description": "A form that holds the files",
    "content": {
        "multipart/form-data": {
            "schema": {
                **_FORM,
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
        responses=_problems(*_OF_A_PICTURE),
        openapi_extra={"requestBody": _ONE_FILE},
    )
    async def predict(request: Request, wish: Annotated[schema.Wish, Query()]) -> Response:
        options = Options(**wish.model_dump())
        (outcome,) = await desk.look(request, options)
        return _json(desk.answer(outcome, options, request))

    @app.post(
        "/v1/heatmap",
        summary="The heat map of one X-ray, laid over it, as PNG",
        operation_id="heatmap",
        tags=["answers"],
        response_class=Response,
        responses={
            200: {"content": {"image/png": {"schema": _BINARY}}},
            **_problems(*_OF_A_PICTURE, "not_a_chest_xray"),
        },
        openapi_extra={"requestBody": _ONE_FILE},
    )
    async def heatmap(request: Request, wish: Annotated[schema.Nothing, Query()]) -> Response:
        (outcome,) = await desk.look(request, Options(heatmap="overlay"))
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
        responses=_problems(*_OF_A_BODY, "too_many_files"),
        openapi_extra={"requestBody": _FILES},
    )
    async def predict_batch(request: Request, wish: Annotated[schema.Wish, Query()]) -> Response:
        options = Options(**wish.model_dump())
        items = []
        for index, outcome in enumerate(await desk.look(request, options, desk.settings.n_files)):
            if isinstance(outcome, Problem):
                desk.metrics.problems.labels(outcome.code).inc()
                problem = schema.ProblemDetails(**outcome.to_dict(request.state.request_id))
                items.append(schema.BatchItem(index=index, answer=None, problem=problem))
            else:
                answered = desk.answer(outcome, options, request)
                items.append(schema.BatchItem(index=index, answer=answered, problem=None))
        return _json(schema.BatchAnswer(request_id=request.state.request_id, results=items))

    @app.get(
        "/v1/model",
        summary="The detector that answers, and what is taken in",
        operation_id="model",
        tags=["answers"],
        response_model=schema.ModelInfo,
        responses=_problems(*_FOR_CALLERS),
    )
    async def model() -> Response:
        return _json(answers.model_info(desk.detector, desk.settings, desk.lanes.self_check))


def add_operations(app: FastAPI, desk: Desk) -> None:
    """Add the addresses for those who run the server."""

    @app.get(
        "/v2/health/live",
        summary="Is the process there?",
        operation_id="live",
        tags=["operations"],
        response_model=schema.Health,
        responses=_problems(*_ANYWHERE),
    )
    async def live() -> Response:
        return _json(schema.Health(live=True, ready=desk.lanes.ready, reason=desk.lanes.reason))

    @app.get(
        "/v2/health/ready",
        summary="Does it take pictures?",
        operation_id="ready",
        tags=["operations"],
        response_model=schema.Health,
        responses=_problems(*_ANYWHERE, "not_ready", "draining"),
    )
    async def ready() -> Response:
        desk.lanes.require_ready()
        return _json(schema.Health(live=True, ready=True, reason=None))

    @app.get(
        "/metrics",
        summary="Counts and times, for Prometheus",
        operation_id="metrics",
        tags=["operations"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_problems(*_FOR_CALLERS)},
    )
    async def metrics() -> Response:
        return Response(desk.metrics.text(), media_type="text/plain; version=0.0.4")


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(by_alias=True), media_type="application/json")
