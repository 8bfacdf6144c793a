"""What every request passes first and every answer last: identity, key, limits, headers, counting."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumolib.serving.bodies import BoundedBody, Buffer
from pneumolib.serving.metrics import Metrics
from pneumolib.serving.problems import CANCELLED, CONTENT_TYPE, Problem
from pneumolib.serving.settings import Settings

_KEPT = ("/v1/", "/metrics")  # need the key where one is set
_HEALTH = "/v2/health/"
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)

_log = logging.getLogger("pneumolib.serving")


class Guard:
    """An ASGI application around the API's.

    Args:
        app: the API.
        settings: key and limits.
        metrics: what is counted.
        addresses: the API's, by which requests are counted; all others are one.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, addresses: frozenset[str]) -> None:
        self._app, self._settings, self._metrics, self._addresses = app, settings, metrics, addresses
        self._buffer = Buffer(settings, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        path = scope["path"]
        limit = self._buffer.limit_of(path)
        body = BoundedBody(receive, headers, limit, self._buffer, self._settings.body_seconds)
        status, settled = CANCELLED, False

        def settle() -> None:
            """Give back and count, before the caller has all of the answer and can ask for the counts."""
            nonlocal settled
            if not settled:
                settled = True
                body.release()
                route = path if path in self._addresses else "other"
                self._metrics.requests.labels(route, _method(scope), str(status)).inc()
                self._metrics.request_seconds.labels(route).observe(time.perf_counter() - began)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["X-Request-ID"] = request_id
                out.setdefault("X-Content-Type-Options", "nosniff")
                out.setdefault("Cache-Control", "no-store")
                if body.unread or state.get("upgrade"):
                    out["Connection"] = "close"
            elif not message.get("more_body", False):
                settle()
                if body.unread:
                    await send({**message, "more_body": True})
                    try:
                        await body.throw_away()
                    finally:
                        await send({"type": "http.response.body"})
                    return
            await send(message)

        async def tell(problem: Problem) -> None:
            if status == CANCELLED:
                await problem_response(problem, request_id, self._metrics)(scope, receive, sending)

        try:
            if state.get("upgrade") and body.unread:
                raise Problem(
                    "malformed_request", "A body is not read where the header Upgrade asks for another protocol."
                )
            self._check_crowd(path, state)
            self._check_key(path, headers)
            body.check_declared()
            await self._app(scope, body, sending)
        except Problem as problem:
            await tell(problem)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # by the server that shuts down: what was begun took too long
            body.give_up()
            await tell(Problem("draining", "The server shut down before the answer was made.", retry_after=5))
        except Exception:
            _log.exception("a request failed")
            await tell(Problem("internal_error", "The server failed over the request; its log says how."))
        finally:
            settle()

    def _check_crowd(self, path: str, state: dict[str, Any]) -> None:
        # How the server is can be asked even then.
        if state.get("crowded") and not path.startswith(_HEALTH):
            allowed = f"Allowed: {self._settings.max_connections}."
            raise Problem("queue_full", f"Too many connections are open. {allowed} Try again later.")

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
    # The frames that it came through hold the body, and the answer may take its time.
    problem.__traceback__ = problem.__cause__ = problem.__context__ = None
    content = json.dumps(problem.to_dict(request_id))
    return Response(content, problem.status, headers=problem.headers, media_type=CONTENT_TYPE)


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE") else "other"
