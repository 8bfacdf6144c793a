"""Those who wait: a full queue, a deadline, callers who go, and a server that begins or ends."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import httpx
import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

from pneumolib.serving.server import BackgroundServer
from pneumolib.serving.settings import Settings

JPEG = {"Content-Type": "image/jpeg"}


def post(server: Any, content: bytes) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/predict", content=content, headers=JPEG, timeout=60)


def test_who_comes_to_a_full_queue_is_told_when_to_come_again(
    start: Callable[..., Any],
    gate: Any,
    x_ray: bytes,
    background: Callable[..., Future[httpx.Response]],
    counted: Callable[..., float],
    until: Callable[..., None],
    is_answer: Callable[..., bool],
    is_problem: Callable[..., bool],
) -> None:
    with start(gate, queue=2) as server:
        gate.shut()
        first = background(post, server, x_ray)
        gate.wait_for_one()
        waiting = [background(post, server, x_ray) for _ in range(2)]
        until(lambda: counted(server, "queue_depth") == 2)
        assert counted(server, "buffered_bytes") == 3 * len(x_ray)
        reply = post(server, x_ray)
        assert is_problem(reply, "queue_full")
        assert int(reply.headers["retry-after"]) >= 1
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
        gate.open.set()
        for future in (first, *waiting):
            assert is_answer(future.result(60).json(), x_ray)
        assert counted(server, "queue_depth") == counted(server, "buffered_bytes") == 0
        assert counted(server, "requests_total", route="/v1/predict", code="200") == gate.seen == 3
        assert counted(server, "requests_total", route="/v1/predict", code="429") == 1


def test_what_waited_too_long_is_told_and_not_computed(
    start: Callable[..., Any],
    gate: Any,
    x_ray: bytes,
    background: Callable[..., Future[httpx.Response]],
    is_problem: Callable[..., bool],
) -> None:
    with start(gate, deadline_seconds=1.0) as server:
        gate.shut()
        first = background(post, server, x_ray)
        gate.wait_for_one()
        assert is_problem(post(server, x_ray), "deadline_passed")
        gate.open.set()
        assert first.result(60).status_code == 200
        assert gate.seen == 1


def test_whoever_goes_while_he_waits_takes_his_picture_with_him(
    start: Callable[..., Any],
    gate: Any,
    x_ray: bytes,
    wire: Callable[..., Any],
    counted: Callable[..., float],
    until: Callable[..., None],
) -> None:
    request = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(x_ray) + x_ray
    with start(gate) as server:
        gate.shut()
        in_hand, waiting = wire(server), wire(server)
        in_hand.send(request)
        gate.wait_for_one()
        waiting.send(request)
        until(lambda: counted(server, "queue_depth") == 1)
        waiting.socket.close()
        until(lambda: counted(server, "requests_total", code="499") == 1)
        assert counted(server, "queue_depth") == 0
        in_hand.socket.close()
        until(lambda: counted(server, "requests_total", code="499") == 2)
        assert counted(server, "buffered_bytes") == 0
        gate.open.set()
        assert post(server, x_ray).status_code == 200
        assert gate.seen == 2  # the one in hand and the last


def test_a_server_that_ends_tells_who_still_waits(
    start: Callable[..., Any],
    gate: Any,
    x_ray: bytes,
    background: Callable[..., Future[Any]],
    counted: Callable[..., float],
    until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    is_problem: Callable[..., bool],
) -> None:
    server = start(gate, drain_seconds=0.5)
    gate.shut()
    asked = [background(post, server, x_ray)]
    gate.wait_for_one()
    asked.append(background(post, server, x_ray))
    until(lambda: counted(server, "queue_depth") == 1)
    stopped = background(server.stop)
    for future in asked:
        assert is_problem(future.result(60), "draining")
    gate.open.set()
    stopped.result(60)
    assert [record.name for record in caplog.records] == ["uvicorn.error"]  # that it took too long
    with pytest.raises(httpx.ConnectError):
        post(server, x_ray)


def test_a_server_that_ends_finishes_what_was_begun(
    start: Callable[..., Any],
    gate: Any,
    x_ray: bytes,
    wire: Callable[..., Any],
    background: Callable[..., Future[Any]],
    until: Callable[..., None],
    counted: Callable[..., float],
    is_answer: Callable[..., bool],
) -> None:
    """The picture in hand, the one that waits, and the one that is on its way; idle connections are closed."""
    server = start(gate)
    gate.shut()
    asked = [background(post, server, x_ray)]
    gate.wait_for_one()
    asked.append(background(post, server, x_ray))
    late, idle = wire(server), wire(server)
    idle.send(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert idle.reply().status == 200
    late.send(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(x_ray) + x_ray[:100])
    until(lambda: counted(server, "queue_depth") == 1 and counted(server, "buffered_bytes") == 2 * len(x_ray) + 100)
    stopped = background(server.stop)
    assert idle.closed()
    late.send(x_ray[100:])
    gate.open.set()
    for future in asked:
        assert is_answer(future.result(60).json(), x_ray)
    reply = late.reply()
    assert is_answer(json.loads(reply.body), x_ray)
    assert late.closed()
    stopped.result(60)
    assert "stopped" in repr(server)
    server.stop()


def test_a_server_that_ends_takes_nothing_more(start: Callable[..., Any], wire: Callable[..., Any]) -> None:
    """What comes before it has closed the connection is told so."""
    with start() as server:
        opened = wire(server)
        opened.send(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert opened.reply().status == 200
        server._server.ask_to_stop()
        with contextlib.suppress(EOFError, ConnectionError):
            opened.send(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
            assert json.loads(opened.reply().body)["code"] == "draining"


def test_a_server_that_warms_up_says_so(
    gate: Any,
    x_ray: bytes,
    background: Callable[..., Future[None]],
    until: Callable[..., None],
    is_problem: Callable[..., bool],
) -> None:
    gate.shut()
    server = object.__new__(BackgroundServer)
    made = background(server.__init__, gate, Settings(port=0, lanes=1))
    until(lambda: hasattr(server, "port"))
    with httpx.Client(base_url=server.url, timeout=60) as client:
        warming = {"live": True, "ready": False, "reason": "it is warming up"}
        until(lambda: client.get("/v2/health/live").json() == warming)
        assert is_problem(client.get("/v2/health/ready"), "not_ready")
        assert is_problem(client.post("/v1/predict", content=x_ray, headers=JPEG), "not_ready")
        assert client.get("/v1/model").status_code == client.get("/").status_code == 200
        assert "pneumolib_ready 0.0" in client.get("/metrics").text
        gate.open.set()
        made.result(60)
        assert client.get("/v2/health/ready").status_code == 200
        assert client.post("/v1/predict", content=x_ray, headers=JPEG).status_code == 200
        assert "pneumolib_ready 1.0" in client.get("/metrics").text
    server.stop()
