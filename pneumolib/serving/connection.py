"""A connection, bounded where uvicorn leaves it open: how large and how slow a head may be, how long an answer may lie.

uvicorn reads a request's line and headers whatever their size and for however long they take, and keeps an answer for
a caller who never takes it. Here such a caller loses the connection; bodies are `bodies`' business.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from pneumolib.serving.metrics import Metrics
from pneumolib.serving.problems import CONTENT_TYPE, Problem
from pneumolib.serving.settings import Settings

HEAD_BYTES = 64 * 2**10  # of a request's line and headers, and of a body's framing without any content


class Connection(HttpToolsProtocol):
    """One connection; uvicorn makes it.

    Args:
        settings: how many connections there may be, and how slow.
        metrics: what is counted.
        uvicorn: what its own protocols take.
    """

    def __init__(self, settings: Settings, metrics: Metrics, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._settings, self._metrics = settings, metrics
        self._head = self._framing = 0  # bytes of this head, and since anything was made of them
        self._late: asyncio.TimerHandle | None = None  # closes the connection when a head does not arrive
        self._stalled: asyncio.TimerHandle | None = None  # and when an answer is not taken

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > 2 * self._settings.max_connections:
            transport.abort()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._late, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._framing += len(data)
        super().data_received(data)
        if self._framing > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("")
        if self._awaiting:
            self._expect_head()

    def on_message_begin(self) -> None:
        self._head = 0
        super().on_message_begin()
        self.scope["state"]["crowded"] = len(self.connections) > self._settings.max_connections

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._framing = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None
        # After such a request the parser reads nothing of this connection any more.
        self.scope["state"]["upgrade"] = self.parser.should_upgrade()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._framing = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._framing = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has a head without end; uvicorn's own answer is no problem details."""
        problem = Problem("malformed_request", "What was sent is no HTTP request, or its head is too large.")
        body = json.dumps(problem.to_dict(uuid.uuid4().hex)).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", CONTENT_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[problem.status] + lines + b"\r\n" + body)
        self.transport.close()
        self._metrics.problems.labels(problem.code).inc()
        self._metrics.requests.labels("other", "other", str(problem.status)).inc()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_answer()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_answer()

    @property
    def _awaiting(self) -> bool:
        return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

    def _count_head(self, count: int) -> None:
        self._head += count
        if self._head > HEAD_BYTES:
            raise ValueError("the head is too large")  # the parser stops, and uvicorn has it answered as malformed

    def _expect_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self._settings.head_seconds, self.transport.abort)

    def _watch_answer(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left and self._stalled is None:
            self._stalled = self.loop.call_later(self._settings.stall_seconds, self._check_answer, left)

    def _check_answer(self, before: int) -> None:
        """Close the connection, unless the caller has taken something of the answer since it was last looked at."""
        self._stalled = None
        if self.transport.get_write_buffer_size() >= before:
            self.transport.abort()
        else:
            self._watch_answer()
