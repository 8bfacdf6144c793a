"""The API: `create_app` gives the ASGI application that any ASGI server can run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from pneumolib.models.detector import Detector
from pneumolib.serving import schema
from pneumolib.serving.decoder import Decoder
from pneumolib.serving.desk import Desk
from pneumolib.serving.guard import Guard, problem_response
from pneumolib.serving.lanes import Lanes
from pneumolib.serving.metrics import Metrics
from pneumolib.serving.page import page_routes
from pneumolib.serving.problems import Problem
from pneumolib.serving.routes import add_answers, add_operations
from pneumolib.serving.settings import Settings

API_VERSION = "1.0"
_ABOUT = (
    "A chest X-ray of a child goes in; a calibrated probability of pneumonia, a decision at a stated operating point "
    "and a heat map come out, or a refusal that says why. " + schema.NOTICE
)
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)


def create_app(
    detector: Detector, settings: Settings | None = None, *, decoders: Sequence[Decoder] | None = None
) -> FastAPI:
    """Return the ASGI application that answers with `detector`.

    It takes pictures once its lifespan has begun, every lane has warmed up, and the detector has given the answer that
    was recorded with it.

    Args:
        detector: as `load_detector` gives it; with one thread, as the lanes work side by side.
        settings: limits and key; where it listens is the server's business. None takes the defaults.
        decoders: as `Lanes` takes them.
    """
    settings = settings or Settings()
    metrics = Metrics(name=detector.name, version=detector.version, sha256=detector.sha256)
    lanes = Lanes(detector, settings, metrics, decoders)
    desk = Desk(detector, settings, metrics, lanes)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        lanes.start()
        yield
        await asyncio.to_thread(lanes.stop)

    app = _Api(
        title="pneumolib",
        version=API_VERSION,
        description=_ABOUT,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.lanes, app.state.metrics = lanes, metrics
    add_answers(app, desk)
    add_operations(app, desk)
    _add_documentation(app)
    _add_problems(app, desk)
    app.router.routes.extend(page_routes(settings.embedded))
    addresses = frozenset(route.path for route in app.routes if isinstance(route, Route))
    app.add_middleware(Guard, settings=settings, metrics=metrics, addresses=addresses)
    return app


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The description, without the answer that the framework would give to wrong parameters, and with the key."""
        known = self.openapi_schema is not None
        found = super().openapi()
        if not known:
            for name in ("HTTPValidationError", "ValidationError"):
                found["components"]["schemas"].pop(name, None)
            found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for operation in (each for path in found["paths"].values() for each in path.values()):
                if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                    del operation["responses"]["422"]
                if "401" in operation["responses"]:
                    operation["security"] = [{}, {"key": []}]
        return found


def _add_documentation(app: FastAPI) -> None:
    import fastapi_offline

    assets = Path(fastapi_offline.__file__).parent / "static"
    app.mount("/docs-assets", StaticFiles(directory=assets), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        # Addresses without a leading slash, so that the page also works behind a proxy that adds a path.
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title="pneumolib: the API",
            swagger_js_url="docs-assets/swagger-ui-bundle.js",
            swagger_css_url="docs-assets/swagger-ui.css",
            swagger_favicon_url="docs-assets/favicon.png",
            swagger_ui_parameters={"validatorUrl": None},
        )
        page.headers["Content-Security-Policy"] = _DOCS_POLICY
        return page


def _add_problems(app: FastAPI, desk: Desk) -> None:
    def told(problem: Problem, request: Request) -> Response:
        return problem_response(problem, request.state.request_id, desk.metrics)

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return told(error, request)

    @app.exception_handler(RequestValidationError)
    async def parameter(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name, received = ".".join(str(part) for part in first["loc"][1:]), str(first.get("input"))[:80]
        what = "there is no such parameter" if first["type"] == "extra_forbidden" else first["msg"]
        return told(Problem("invalid_parameter", f"{name[:80]}: {what}. Received: {received!r}"), request)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        # The framework's own: the address or its method is wrong, or a file that is to be served cannot be.
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "internal_error")
        found = told(Problem(code, f"{request.method} {request.url.path[:200]}: {error.detail}."), request)
        if error.headers and "Allow" in error.headers:
            found.headers["Allow"] = error.headers["Allow"]
        return found
