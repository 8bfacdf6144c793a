"""What every request passes: identity, key, limits, headers, counting; around small applications, without a network."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra 'serve' is not installed")

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumolib.serving import bodies
from pneumolib.serving.guard import Guard
from pneumolib.serving.metrics import Metrics
from pneumolib.serving.problems import CONTENT_TYPE, Problem
from pneumolib.serving.settings import Settings

KEY = "0123456789abcdef"
GONE: Message = {"type": "http.disconnect"}


class Asked:
    """A request that was put to a guarded application: the messages it sent, and what was counted."""

    def __init__(
        self,
        app: ASGIApp,
        told: Iterable[Message] = (GONE,),
        path: str = "/v1/predict",
        method: str = "POST",
        **more: Any,
    ) -> None:
        self.sent: list[Message] = []
        self.metrics = Metrics(name="", version="", sha256="")
        self.left = list(told)
        state = {name: True for name in ("crowded", "upgrade") if more.pop(name, False)}
        settings = more.pop("settings", Settings(max_bytes=10, max_batch_bytes=10, max_buffered_bytes=70_000))
        headers = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in more.items()]
        scope: Scope = {"type": "http", "path": path, "method": method, "headers": headers, "state": state}
        self.guard = Guard(app, settings, self.metrics, frozenset({"/v1/predict"}))
        asyncio.run(self._ask(scope))
        start, *rest = self.sent or [{"status": 499, "headers": []}]
        self.status: int = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body = b"".join(message.get("body", b"") for message in rest)

    async def _ask(self, scope: Scope) -> None:
        async def receive() -> Message:
            if not self.left:
                await asyncio.Event().wait()
            return self.left.pop(0)

        async def send(message: Message) -> None:
            self.sent.append(message)

        await self.guard(scope, receive, send)

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == CONTENT_TYPE
        return str(json.loads(self.body)["code"])

    def counted(self, name: str, **labels: str) -> float | None:
        return self.metrics._registry.get_sample_value(f"pneumolib_{name}", labels)


async def fine(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("fine")(scope, receive, send)


async def reads(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(f"{len(body)}")(scope, receive, send)


def raising(error: BaseException) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


def chunk(body: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


# === Headers ===


def test_every_answer_has_an_identity_and_is_kept_nowhere() -> None:
    headers = Asked(fine).headers
    assert len(headers["x-request-id"]) == 32
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "connection" not in headers
    assert not any(name.startswith("access-control") for name in headers)


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 64])
def test_a_callers_identity_is_kept(given: str) -> None:
    assert Asked(fine, x_request_id=given).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\n", "é", "a\r\nset-cookie: b", '"'])
def test_one_that_is_none_is_replaced(given: str) -> None:
    assert len(Asked(fine, x_request_id=given).headers["x-request-id"]) == 32


def test_what_the_application_says_of_caching_stands() -> None:
    app = Response("", headers={"Cache-Control": "no-cache"})
    assert Asked(app).headers["cache-control"] == "no-cache"


# === The key ===


@pytest.mark.parametrize(
    "given",
    [None, "", KEY, f"Basic {KEY}", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer \xff", f"Bearer {KEY} x"],
)
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/model", "/v1/", "/metrics"])
def test_without_the_key_nothing_is_answered(given: str | None, path: str) -> None:
    headers = {} if given is None else {"authorization": given}
    asked = Asked(fine, path=path, settings=Settings(api_key=KEY), **headers)
    assert asked.code == "unauthorized"
    assert asked.headers["www-authenticate"] == "Bearer"
    assert KEY not in str(asked.sent)


@pytest.mark.parametrize("given", [f"Bearer {KEY}", f"bearer  {KEY} "])
def test_with_it_all_is(given: str) -> None:
    assert Asked(fine, settings=Settings(api_key=KEY), authorization=given).status == 200


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready", "/page/page.js"]
)
def test_page_documentation_and_health_need_none(path: str) -> None:
    assert Asked(fine, path=path, settings=Settings(api_key=KEY)).status == 200


# === Limits ===


def test_a_body_within_its_limit_is_read() -> None:
    asked = Asked(reads, [chunk(b"abc"), chunk(b"de", False)], transfer_encoding="chunked")
    assert (asked.status, asked.body) == (200, b"5")
    assert "connection" not in asked.headers
    assert asked.counted("buffered_bytes") == 0


def test_one_beyond_it_is_refused_by_its_length_before_it_is_read() -> None:
    asked = Asked(reads, [GONE], content_length="70000")
    assert asked.code == "body_too_large"
    assert asked.headers["connection"] == "close"


def test_or_where_it_gets_too_large() -> None:
    asked = Asked(
        reads, [chunk(bytes(60_000)), chunk(bytes(9_000)), chunk(b"rest", False)], transfer_encoding="chunked"
    )
    assert asked.code == "body_too_large"
    assert asked.headers["connection"] == "close"
    assert asked.left == []
    assert asked.counted("buffered_bytes") == 0


def test_an_answer_to_a_body_that_was_not_read_lets_the_caller_finish() -> None:
    """All of the answer goes first, then the rest of the body comes and goes, then the connection may be closed."""
    asked = Asked(fine, [chunk(b"a"), chunk(b"b", False)], content_length="2")
    assert asked.headers["connection"] == "close"
    assert [message.get("more_body", False) for message in asked.sent[1:]] == [True, False]
    assert asked.body == b"fine"
    assert asked.left == []


def test_nobody_is_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_LINGER_SECONDS", 0.01)
    assert Asked(fine, [], content_length="2").status == 200


def test_a_crowd_is_told_to_come_again_but_health_is_told() -> None:
    asked = Asked(fine, crowded=True)
    assert asked.code == "queue_full"
    assert asked.headers["retry-after"] == "1"
    assert Asked(fine, path="/v2/health/live", crowded=True).status == 200


def test_a_body_that_the_parser_does_not_read_is_no_empty_one() -> None:
    assert Asked(fine, content_length="2", upgrade=True).code == "malformed_request"
    without = Asked(fine, upgrade=True)
    assert (without.status, without.headers["connection"]) == (200, "close")


# === What goes wrong ===


@pytest.mark.parametrize("error", [Problem("queue_full", "full", retry_after=7), ClientDisconnect(), RuntimeError("x")])
def test_what_is_raised_becomes_an_answer(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    asked = Asked(raising(error))
    if isinstance(error, ClientDisconnect):
        assert asked.sent == []
        assert asked.counted("requests_total", route="/v1/predict", method="POST", code="499") == 1
    elif isinstance(error, Problem):
        assert asked.code == "queue_full"
        assert asked.headers["retry-after"] == "7"
    else:
        assert asked.code == "internal_error"
        assert asked.counted("problems_total", code="internal_error") == 1
    assert bool(caplog.records) is isinstance(error, RuntimeError)


def test_a_fault_after_the_answer_has_begun_is_logged_and_no_second_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    asked = Asked(app)
    assert [message["type"] for message in asked.sent] == ["http.response.start"]
    assert asked.counted("requests_total", route="/v1/predict", method="POST", code="200") == 1
    assert [record.message for record in caplog.records] == ["a request failed"]


def test_a_server_that_ends_tells_those_who_still_wait() -> None:
    asked = Asked(raising(asyncio.CancelledError()), [], content_length="5")
    assert asked.code == "draining"
    assert asked.headers["retry-after"] == "5"
    # The rest of a body is not waited for: the answer is whole at once.
    assert [message.get("more_body", False) for message in asked.sent[1:]] == [False]


def test_a_server_that_ends_finishes_what_it_has_answered() -> None:
    """While the rest of a body is thrown away, the answer is out, and stays whole."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        await fine(scope, receive, send)

    asked = Asked(app, [], content_length="5")
    assert (asked.status, asked.body) == (200, b"fine")
    assert asked.sent[-1].get("more_body", False) is False


# === Counting ===


@pytest.mark.parametrize(
    ("path", "method", "route", "counted"),
    [
        ("/v1/predict", "GET", "/v1/predict", "GET"),
        ("/v1/predict/1", "POST", "other", "POST"),
        ("/x", "BREW", "other", "other"),
    ],
)
def test_requests_are_counted_by_what_is_known_beforehand(path: str, method: str, route: str, counted: str) -> None:
    asked = Asked(fine, path=path, method=method)
    assert asked.counted("requests_total", route=route, method=counted, code="200") == 1
    assert asked.counted("request_seconds_count", route=route) == 1


def test_a_request_is_counted_before_its_answer_is_whole() -> None:
    """So that who asks for the counts after an answer finds it among them."""
    counts: list[float | None] = []

    class Watching(Asked):
        async def _ask(self, scope: Scope) -> None:
            async def send(message: Message) -> None:
                counts.append(self.counted("requests_total", route="/v1/predict", method="POST", code="200"))

            async def receive() -> Message:
                return GONE

            await self.guard(scope, receive, send)

    Watching(fine)
    assert counts == [None, 1]


def test_other_protocols_pass_by() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    guard = Guard(app, Settings(), Metrics(name="", version="", sha256=""), frozenset())
    asyncio.run(guard({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_nothing_of_a_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    Asked(raising(RuntimeError()), [chunk(b"Doe^Jane", False)], content_length="8", x_patient="Doe^Jane")
    assert "Doe" not in caplog.text
