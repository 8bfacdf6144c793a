"""Bodies: counted while they come, and refused by what they are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra 'serve' is not installed")

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from pneumolib.serving import bodies
from pneumolib.serving.bodies import BoundedBody, Buffer, read_files
from pneumolib.serving.metrics import Metrics
from pneumolib.serving.problems import Problem
from pneumolib.serving.schema import ANY_BINARY, MEDIA_TYPES
from pneumolib.serving.settings import Settings

FORM = "multipart/form-data; boundary=B"
END = b"--B--\r\n"
FILE = b'name="file"; filename="a.png"'


def part(names: bytes = FILE, content: bytes = b"abc", headers: bytes = b"") -> bytes:
    return b"--B\r\nContent-Disposition: form-data; " + names + b"\r\n" + headers + b"\r\n" + content + b"\r\n"


def messages(chunks: Iterable[bytes]) -> list[Message]:
    parts = list(chunks) or [b""]
    return [{"type": "http.request", "body": b, "more_body": i + 1 < len(parts)} for i, b in enumerate(parts)]


class Sender:
    """A server's `receive` that gives what it is told to, and then waits for ever."""

    def __init__(self, told: Iterable[Message]) -> None:
        self.told = list(told)

    async def __call__(self) -> Message:
        if not self.told:
            await asyncio.Event().wait()
        return self.told.pop(0)


def read(
    body: bytes, kind: str | None = FORM, *, max_files: int | None = None, step: int = 0, **headers: str
) -> list[bytes]:
    """What `read_files` makes of a body that comes `step` bytes at a time."""
    told = {**headers, **({"content-type": kind} if kind is not None else {})}
    chunks = [body[i : i + step] for i in range(0, len(body), step)] if step else [body]
    scope = {
        "type": "http",
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in told.items()],
    }
    return asyncio.run(read_files(Request(scope, Sender(messages(chunks))), max_files))


def refused(body: bytes, kind: str | None = FORM, **options: Any) -> Problem:
    with pytest.raises(Problem) as problem:
        read(body, kind, **options)
    return problem.value


# === What is read ===


@pytest.mark.parametrize("kind", [None, "", ANY_BINARY, *MEDIA_TYPES, "IMAGE/PNG", "image/png; charset=x"])
def test_a_body_is_the_file(kind: str | None) -> None:
    assert read(b"abcdef", kind, step=4) == [b"abcdef"]


# === What is not ===


def test_a_form_that_is_none_is_refused_with_why() -> None:
    problem = refused(part() + part(b'name="heatmap"') + END)
    assert problem.code == "malformed_request"
    assert "options stand in the address" in problem.detail


def test_files_are_counted_before_they_are_read() -> None:
    many = part() * 5_000
    assert refused(many).code == "one_file_expected"
    problem = refused(many, max_files=4)
    assert problem.code == "too_many_files"
    assert "Allowed: 4" in problem.detail
    assert refused(END).code == refused(END, max_files=4).code == "one_file_expected"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/json", "multipart/mixed", "image/gif", "image/", "a" * 500]
)
def test_other_types_are_refused(kind: str) -> None:
    problem = refused(b"abc", kind)
    assert problem.code == "unsupported_media_type"
    assert "image/jpeg" in problem.detail
    assert len(problem.detail) < 500


def test_curls_way_of_sending_it_is_explained() -> None:
    assert "--data-binary" in refused(b"abc", "application/x-www-form-urlencoded").detail


@pytest.mark.parametrize("kind", [None, "image/png", "text/plain"])
def test_several_files_come_in_a_form_only(kind: str | None) -> None:
    problem = refused(b"abc", kind, max_files=4)
    assert problem.code == "unsupported_media_type"
    assert "Allowed: multipart/form-data." in problem.detail


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x" * 500])
def test_compressed_bodies_are_refused(encoding: str) -> None:
    problem = refused(b"abc", content_encoding=encoding)
    assert problem.code == "unsupported_encoding"
    assert len(problem.detail) < 200
    assert read(b"abc", "image/png", content_encoding="Identity") == [b"abc"]


# === While it comes ===


def bounded(told: Iterable[Message], **options: Any) -> tuple[BoundedBody, Buffer, Metrics]:
    metrics = Metrics(name="", version="", sha256="")
    buffer = Buffer(Settings(max_bytes=10, max_batch_bytes=10, max_buffered_bytes=20), metrics)
    headers = options.pop("headers", {b"transfer-encoding": b"chunked"})
    return (
        BoundedBody(Sender(told), headers, **{"limit": 10, "buffer": buffer, "seconds": 60, **options}),
        buffer,
        metrics,
    )


def held(metrics: Metrics) -> float | None:
    return metrics._registry.get_sample_value("pneumolib_buffered_bytes")


def test_bytes_are_counted_and_given_back() -> None:
    body, _, metrics = bounded([*messages([b"abc", b"de"]), {"type": "http.disconnect"}])
    assert body.unread
    assert asyncio.run(body())["body"] == b"abc"
    assert (held(metrics), body.unread) == (3, True)
    assert asyncio.run(body())["body"] == b"de"
    assert (held(metrics), body.unread) == (5, False)
    assert asyncio.run(body())["type"] == "http.disconnect"
    body.release()
    body.release()
    assert held(metrics) == 0


@pytest.mark.parametrize(
    ("headers", "unread"),
    [
        ({}, False),
        ({b"content-length": b"0"}, False),
        ({b"content-length": b"1"}, True),
        ({b"transfer-encoding": b"chunked"}, True),
    ],
)
def test_headers_tell_whether_a_body_comes(headers: dict[bytes, bytes], unread: bool) -> None:
    assert bounded([], headers=headers)[0].unread is unread


@pytest.mark.parametrize("length", ["11", "99999999999999999999", "9" * 5000])
def test_a_length_that_is_declared_is_enough_to_refuse(length: str) -> None:
    body, _, _ = bounded([], headers={b"content-length": length.encode()})
    with pytest.raises(Problem, match=r"Allowed: 10 bytes") as problem:
        body.check_declared()
    assert problem.value.code == "body_too_large"


@pytest.mark.parametrize("length", [b"10", b"0", b"", b"-1", b"a", "²".encode("latin-1")])
def test_other_lengths_are_left_to_the_counting(length: bytes) -> None:
    bounded([], headers={b"content-length": length})[0].check_declared()


def test_what_streams_past_the_limit_is_refused_where_it_does() -> None:
    body, _, metrics = bounded(messages([b"12345", b"67890", b"1", b"never read"]))
    asyncio.run(body())
    asyncio.run(body())
    with pytest.raises(Problem) as problem:
        asyncio.run(body())
    assert problem.value.code == "body_too_large"
    assert held(metrics) == 10


def test_all_bodies_together_have_a_limit_too() -> None:
    body, buffer, metrics = bounded(messages([b"12345"]))
    buffer.take(16)
    with pytest.raises(Problem) as problem:
        asyncio.run(body())
    assert problem.value.code == "queue_full"
    assert held(metrics) == 16


def test_a_batch_may_be_larger_than_a_file() -> None:
    buffer = Buffer(Settings(max_bytes=10, max_batch_bytes=500), Metrics(name="", version="", sha256=""))
    assert buffer.limit_of("/v1/predict:batch") == 500
    assert buffer.limit_of("/v1/predict") == buffer.limit_of("/v1/heatmap") == 10 + 64 * 2**10


def test_time_is_counted_for_the_whole_body() -> None:
    body, _, _ = bounded(messages([b"1", b"2"])[:1], seconds=0.05)

    async def run() -> None:
        await body()
        with pytest.raises(Problem, match=r"Allowed: 0\.05 seconds\. Received: 1 bytes") as problem:
            await body()
        assert problem.value.code == "body_timeout"

    asyncio.run(run())


def test_a_caller_who_goes_is_not_taken_for_one_who_is_done() -> None:
    body, _, _ = bounded([*messages([b"1", b"2"])[:1], {"type": "http.disconnect"}])
    scope = {"type": "http", "headers": [(b"content-type", b"image/png")]}
    with pytest.raises(ClientDisconnect):
        asyncio.run(read_files(Request(scope, body), None))


def test_the_rest_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_LINGER_SECONDS", 0.01)
    for told in (messages([b"x" * 100] * 3), [*messages([b"x"] * 2)[:1], {"type": "http.disconnect"}]):
        body, _, metrics = bounded(told)
        asyncio.run(body.throw_away())
        assert not body.unread
        assert held(metrics) == 0
    silent, _, _ = bounded(messages([b"x"] * 2)[:1])
    asyncio.run(silent.throw_away())  # comes back, though nothing does
    assert silent.unread
    silent.give_up()
    assert not silent.unread
