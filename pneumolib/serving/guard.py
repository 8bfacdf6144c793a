"""What every request passes first and every answer last: identity, key, limits, headers, counting."""

from __future__ import annotations

import hmac
import json
import logging
import re
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumolib.serving.bodies import BoundedBody, Buffer
from pneumolib.serving.metrics import Metrics
from pneumolib.serving.problems import CANCELLED, CONTENT_TYPE, Problem
from pneumolib.serving.settings import Settings

_KEPT = ("/v1/", "/metrics")  # need the key where one is set
_REQUEST_ID = re.compile(r"[\w.-]{1,64}")

_log = logging.getLogger("pneumolib.serving")


class Guard:
    """An ASGI application around the API's.

    Args:
        app: the API.
        settings: key and limits.
        metrics: what is counted.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._buffer = Buffer(settings, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        body = BoundedBody(
            receive, headers, self._buffer.limit_of(scope["path"]), self._buffer, self._settings.body_seconds
        )
        status = CANCELLED

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["X-Request-ID"] = request_id
                out.setdefault("X-Content-Type-Options", "nosniff")
                out.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check_key(scope["path"], headers)
            body.check_declared()
            await self._app(scope, body, sending)
        except Problem as problem:
            await problem_response(problem, request_id, self._metrics)(scope, receive, sending)
        except ClientDisconnect:
            pass
        except Exception:
            _log.exception("a request failed")
            if status == CANCELLED:
                failure = Problem("internal_error", "The server failed over the request; its log says how.")
                await problem_response(failure, request_id, self._metrics)(scope, receive, sending)
        finally:
            body.release()
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, _method(scope), str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - began)

    def _check_key(self, path: str, headers: dict[bytes, bytes]) -> None:
        key = self._settings.api_key
        if key is None or not path.startswith(_KEPT):
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), key.encode()):
            raise Problem("unauthorized", "Send the header Authorization: Bearer KEY, with the key of this server.")


def problem_response(problem: Problem, request_id: str, metrics: Metrics) -> Response:
    """Return the answer that tells `problem`, and count it."""
    metrics.problems.labels(problem.code).inc()
    headers = dict(problem.headers)
    if problem.code in ("body_too_large", "body_timeout"):
        # The rest of the body is still on its way and nobody will read it.
        headers["Connection"] = "close"
    return Response(json.dumps(problem.to_dict(request_id)), problem.status, headers=headers, media_type=CONTENT_TYPE)


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE") else "other"
