"""Connections byte by byte: no HTTP, slow HTTP, HTTP without end, and callers who do not listen."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

import httpx

from pneumolib.serving.connection import HEAD_BYTES, Connection
from pneumolib.serving.problems import CONTENT_TYPE
from pneumolib.serving.settings import Settings

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
MAX = 4


@pytest.fixture(scope="module")
def hasty(start: Callable[..., Any]) -> Iterator[Any]:
    """A server that gives callers little time."""
    with start(head_seconds=0.5, stall_seconds=0.5, body_seconds=1.0) as server:
        yield server


def posted(content: bytes, *headers: bytes) -> bytes:
    return POST + b"".join(header + b"\r\n" for header in (b"Content-Length: %d" % len(content), *headers)) + b"\r\n"


# === No HTTP ===

NO_HTTP = {
    "a word": b"hello\r\n\r\n",
    "TLS": bytes.fromhex("160301020001000100"),
    "another version": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another method": b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a proxy's request": b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path that is no ASCII": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a NUL in a header": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
    "a header over two lines": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\nB\x01: c\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "a length and chunks": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length below zero": POST + b"Content-Length: -3\r\n\r\nabc",
    "a length beyond numbers": POST + b"Content-Length: 99999999999999999999999999\r\n\r\nabc",
    "another way of sending": POST + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "a chunk that is none": CHUNKED + b"zz\r\nabc",
    "a line without end": b"GET /" + b"a" * (HEAD_BYTES + 1) + b" HTTP/1.1\r\n\r\n",
    "a header without end": b"GET / HTTP/1.1\r\nA: " + b"a" * 2**20,
    "headers without end": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000,
    "a chunk's header without end": CHUNKED + b"3;" + b"a" * 2**20,
    "trailers without end": CHUNKED + b"3\r\nabc\r\n0\r\n" + b"A: b\r\n" * 100_000,
}


@pytest.mark.parametrize("sent", NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_no_http_is_told_so(server: Any, wire: Callable[..., Any], sent: bytes) -> None:
    opened = wire(server)
    with contextlib.suppress(ConnectionError):  # the answer may come while there is more to send
        opened.send(sent)
    reply = opened.reply()
    assert (reply.status, reply.headers["content-type"]) == (400, CONTENT_TYPE)
    assert reply.headers["connection"] == "close"
    assert json.loads(reply.body)["code"] == "malformed_request"
    assert opened.closed()


def test_it_is_counted(server: Any, wire: Callable[..., Any], counted: Callable[..., float]) -> None:
    before = counted(server, "problems_total", code="malformed_request")
    opened = wire(server)
    opened.send(b"hello\r\n\r\n")
    opened.reply()
    assert counted(server, "problems_total", code="malformed_request") == before + 1


def test_a_head_may_be_as_large_as_it_may_be(server: Any, wire: Callable[..., Any]) -> None:
    opened = wire(server)
    opened.send(LIVE[:-2] + b"A: " + b"a" * (HEAD_BYTES - 100) + b"\r\n\r\n")
    assert opened.reply().status == 200


# === HTTP that callers may use ===


def test_requests_may_come_before_their_answers(server: Any, wire: Callable[..., Any], x_ray: bytes) -> None:
    opened = wire(server)
    opened.send(LIVE + posted(x_ray) + x_ray + LIVE + b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    replies = [opened.reply() for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 200, 404]
    assert json.loads(replies[1].body)["schema"] == "pneumolib.answer/1"


def test_chunks_may_be_of_any_size(server: Any, wire: Callable[..., Any], x_ray: bytes) -> None:
    opened = wire(server)
    chunks = [x_ray[i : i + 997] for i in range(0, len(x_ray), 997)]
    opened.send(CHUNKED, *(b"%x;note=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks), b"0\r\nA: b\r\n\r\n")
    assert opened.reply().status == 200
    opened.send(LIVE)
    assert opened.reply().status == 200


def test_an_old_client_gets_its_answer_and_is_let_go(server: Any, wire: Callable[..., Any]) -> None:
    opened = wire(server)
    opened.send(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert opened.reply().status == 200
    assert opened.closed()


def test_who_asks_first_whether_to_send_is_told(server: Any, wire: Callable[..., Any], x_ray: bytes) -> None:
    opened = wire(server)
    opened.send(posted(x_ray, b"Expect: 100-continue"))
    assert opened.reply().status == 100
    opened.send(x_ray)
    assert opened.reply().status == 200


def test_and_told_no_without_sending(server: Any, wire: Callable[..., Any]) -> None:
    opened = wire(server)
    opened.send(POST + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
    reply = opened.reply()
    assert (reply.status, reply.headers["connection"]) == (413, "close")


def test_another_protocol_is_not_spoken(server: Any, wire: Callable[..., Any], x_ray: bytes) -> None:
    """The wish is passed over; where a body follows, which the parser would not read, that is said."""
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    opened = wire(server)
    opened.send(LIVE[:-2] + wish + b"\r\n")
    reply = opened.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    opened = wire(server)
    opened.send(posted(x_ray, wish.strip()), x_ray)
    assert json.loads(opened.reply().body)["code"] == "malformed_request"


# === Bodies that are not what they say ===


def test_more_than_was_declared_is_no_part_of_the_body(server: Any, wire: Callable[..., Any], x_ray: bytes) -> None:
    opened = wire(server)
    opened.send(posted(x_ray) + x_ray + LIVE)
    assert json.loads(opened.reply().body)["schema"] == "pneumolib.answer/1"
    assert json.loads(opened.reply().body)["live"]


@pytest.mark.parametrize(
    "sent", [posted(b"12345") + b"123", CHUNKED + b"3\r\n123\r\n", POST + b"Content-Length: 5\r\n\r\n"]
)
def test_a_body_that_does_not_end_is_not_waited_for(hasty: Any, wire: Callable[..., Any], sent: bytes) -> None:
    opened = wire(hasty)
    opened.send(sent)
    reply = opened.reply()
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert json.loads(reply.body)["code"] == "body_timeout"


@pytest.mark.parametrize("sent", [posted(b"12345") + b"123", CHUNKED + b"3\r\n123\r\n", posted(b"12345")])
def test_a_caller_who_goes_while_he_sends_is_counted_and_forgotten(
    server: Any, wire: Callable[..., Any], counted: Callable[..., float], until: Callable[..., None], sent: bytes
) -> None:
    before = counted(server, "requests_total", route="/v1/predict", code="499")
    opened = wire(server)
    opened.send(sent)
    opened.socket.close()
    until(lambda: counted(server, "requests_total", route="/v1/predict", code="499") == before + 1)
    assert counted(server, "buffered_bytes") == 0


# === Callers who are slow, and many ===


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET /v2/hea", LIVE[:-2], LIVE[:-2] + b"A: b"])
def test_a_head_that_does_not_end_is_not_waited_for(hasty: Any, wire: Callable[..., Any], sent: bytes) -> None:
    opened = wire(hasty)
    opened.send(sent)
    assert opened.closed()


@pytest.mark.parametrize("sent", [b"\r\n", b"GET /v2/hea"])
def test_nor_a_second_one(hasty: Any, wire: Callable[..., Any], sent: bytes) -> None:
    opened = wire(hasty)
    opened.send(LIVE)
    assert opened.reply().status == 200
    opened.send(sent)
    assert opened.closed()


def test_an_answer_that_nobody_takes_is_given_up(hasty: Any, until: Callable[..., None]) -> None:
    asset, times = b"GET /docs-assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n", 200
    whole = len(httpx.get(f"{hasty.url}/docs-assets/swagger-ui-bundle.js").content)
    connections = hasty._server.server_state.connections
    until(lambda: not connections)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(10)
        deaf.connect(("127.0.0.1", hasty.port))
        deaf.sendall(asset * times)
        until(lambda: connections)
        until(lambda: not connections)
        received = 0
        with contextlib.suppress(ConnectionError):
            while part := deaf.recv(2**20):
                received += len(part)
    assert received < times * whole


class Slow:
    """A transport whose caller takes some of what is written, or nothing."""

    def __init__(self) -> None:
        self.left, self.aborted = 0, False

    def get_write_buffer_size(self) -> int:
        return self.left

    def abort(self) -> None:
        self.aborted = True


class Clock:
    """A loop that calls what is to be called later when it is told to."""

    def __init__(self) -> None:
        self.later: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def call_later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> object:
        self.later.append((call, arguments))
        return object()

    def pass_by(self) -> None:
        call, arguments = self.later.pop()
        call(*arguments)


def test_one_that_is_taken_slowly_is_not() -> None:
    connection: Any = object.__new__(Connection)
    connection.transport, connection.loop = Slow(), Clock()
    connection._settings, connection._stalled = Settings(), None
    connection._watch_answer()
    assert not connection.loop.later  # nothing is left, nothing to watch
    connection.transport.left = 100
    connection._watch_answer()
    connection._watch_answer()
    assert len(connection.loop.later) == 1
    for left in (99, 50):
        connection.transport.left = left
        connection.loop.pass_by()
        assert not connection.transport.aborted
    connection.loop.pass_by()
    assert connection.transport.aborted
    assert not connection.loop.later


def test_a_crowd_of_connections_does_not_take_the_server_down(
    start: Callable[..., Any], wire: Callable[..., Any], until: Callable[..., None]
) -> None:
    model = b"GET /v1/model HTTP/1.1\r\nHost: x\r\n\r\n"
    with start(max_connections=MAX) as server:
        connections = server._server.server_state.connections
        kept = [wire(server) for _ in range(MAX)]
        until(lambda: len(connections) == MAX)
        late = wire(server)
        late.send(model)
        reply = late.reply()
        assert json.loads(reply.body)["code"] == "queue_full"
        assert reply.headers["retry-after"] == "1"
        late.send(LIVE)  # how the server is can be asked all the same
        assert late.reply().status == 200
        more = [wire(server) for _ in range(MAX)]
        assert more[-1].closed()
        late.send(LIVE)
        assert late.reply().status == 200
        for each in (*kept, late, *more):
            each.socket.close()
        until(lambda: not connections)
        again = wire(server)
        again.send(model)
        assert again.reply().status == 200


def test_one_that_is_reset_is_forgotten(server: Any, wire: Callable[..., Any]) -> None:
    opened = wire(server)
    opened.send(posted(b"12345"))
    opened.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    opened.socket.close()
    again = wire(server)
    again.send(LIVE)
    assert again.reply().status == 200
