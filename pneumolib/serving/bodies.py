"""What callers send, bounded while it arrives: bytes counted as they stream, time, and the memory of all together."""

from __future__ import annotations

import asyncio
import contextlib
import time

from starlette.requests import Request
from starlette.types import Message, Receive

from pneumolib.serving.forms import Form, FormError, TooManyFilesError
from pneumolib.serving.metrics import Metrics
from pneumolib.serving.problems import Problem
from pneumolib.serving.schema import ANY_BINARY, MEDIA_TYPES
from pneumolib.serving.settings import Settings

_FORM = "multipart/form-data"
_FORM_OVERHEAD = 64 * 2**10  # boundaries and headers of a form with a file
_LINGER_SECONDS = 2.0  # a caller who is told that nobody reads his body, and sends nothing for so long, has understood


class Buffer:
    """The bytes of all bodies that the server holds, with their limit."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._held = 0

    def limit_of(self, path: str) -> int:
        """Return how many bytes a body to `path` may have."""
        if path.endswith(":batch"):
            return self._settings.max_batch_bytes
        return self._settings.max_bytes + _FORM_OVERHEAD

    def take(self, count: int) -> None:
        """Count `count` bytes more.

        Raises:
            Problem: ``queue_full``.
        """
        if self._held + count > self._settings.max_buffered_bytes:
            raise Problem("queue_full", "The server holds as many bodies as it has room for. Try again later.")
        self._held += count
        self._metrics.buffered.set(self._held)

    def release(self, count: int) -> None:
        """Count `count` bytes less."""
        self._held -= count
        self._metrics.buffered.set(self._held)


class BoundedBody:
    """A request's `receive` that counts; call `release` when the request is over.

    Args:
        receive: the server's.
        headers: of the request, lower-case names.
        limit: bytes.
        buffer: what counts all bodies.
        seconds: within which the body has to arrive.
    """

    def __init__(
        self, receive: Receive, headers: dict[bytes, bytes], limit: int, buffer: Buffer, seconds: float
    ) -> None:
        self._receive, self._limit, self._buffer, self._seconds = receive, limit, buffer, seconds
        self._until: float | None = None
        self._held = 0
        self._declared = headers.get(b"content-length", b"0")
        self._whole = self._declared == b"0" and b"transfer-encoding" not in headers

    @property
    def unread(self) -> bool:
        """Whether some of it may still be on its way."""
        return not self._whole

    def check_declared(self) -> None:
        """Refuse a body by the length it declares, before a byte of it is read.

        Raises:
            Problem: ``body_too_large``.
        """
        if self._declared.isdigit() and int(self._declared[:20]) > self._limit:
            raise self._too_large(f"{int(self._declared[:20]):,} bytes")

    async def __call__(self) -> Message:
        if self._whole:  # what comes now is that the caller has gone
            return await self._receive()
        now = time.monotonic()
        self._until = self._until or now + self._seconds
        try:
            async with asyncio.timeout(max(0.0, self._until - now)):
                message = await self._receive()
        except TimeoutError:
            raise Problem(
                "body_timeout",
                f"The body did not arrive in time. Allowed: {self._seconds:g} seconds. Received: {self._held:,} bytes.",
            ) from None
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            if self._held + count > self._limit:
                raise self._too_large("more")
            self._buffer.take(count)
            self._held += count
            self._whole = not message.get("more_body", False)
        return message

    def give_up(self) -> None:
        """Count the rest as arrived: nobody waits for it any more."""
        self._whole = True

    async def throw_away(self) -> None:
        """Take the rest in and keep nothing of it.

        A connection that is closed while its caller still sends is reset, and the caller may never see the answer.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                while self.unread:
                    async with asyncio.timeout(_LINGER_SECONDS):
                        message = await self._receive()
                    self._whole = not message.get("more_body", False)

    def release(self) -> None:
        """Give back what was counted."""
        self._buffer.release(self._held)
        self._held = 0

    def _too_large(self, received: str) -> Problem:
        return Problem(
            "body_too_large", f"The body is too large. Allowed: {self._limit:,} bytes. Received: {received}."
        )


async def read_files(request: Request, max_files: int | None) -> list[bytes]:
    """Return the files of a request: those of a form, or the body itself as the only one.

    Args:
        request: whose body is bounded.
        max_files: how many a form may hold; None where one file is expected, in a form or as the body itself.

    Raises:
        Problem: the type is not read, the form is malformed, or it holds too many files or none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Problem(
            "unsupported_encoding", f"Bodies are taken uncompressed. Allowed: identity. Received: {encoding[:40]!r}."
        )
    if kind == _FORM:
        return await _read_form(request, max_files)
    allowed = (_FORM,) if max_files else (*MEDIA_TYPES, ANY_BINARY, _FORM)
    if max_files or (kind and kind not in allowed):
        hint = " (curl --data-binary sends this unless told otherwise)" if kind.endswith("urlencoded") else ""
        raise Problem(
            "unsupported_media_type",
            f"The body's Content-Type is not read. Allowed: {', '.join(allowed)}. Received: {kind[:80]!r}{hint}.",
        )
    whole = bytearray()  # one block, which the system gets back whole; of many small ones some memory would stay
    async for chunk in request.stream():
        whole += chunk
    return [bytes(whole)]


async def _read_form(request: Request, max_files: int | None) -> list[bytes]:
    try:
        form = Form(request.headers["content-type"], max_files or 1)
        async for chunk in request.stream():
            form.write(chunk)
        files = form.files()
    except FormError as error:
        raise Problem("malformed_request", f"The form is not well-formed: {error}.") from error
    except TooManyFilesError as error:
        raise _too_many(max_files) from error
    if not files:
        raise Problem("one_file_expected", "The form holds no file. Allowed: 1 or more. Received: 0.")
    return files


def _too_many(allowed: int | None) -> Problem:
    if allowed is None:
        return Problem(
            "one_file_expected", "A request holds one file. Send several to /v1/predict:batch. Received: more."
        )
    return Problem("too_many_files", f"A batch holds files up to a number. Allowed: {allowed}. Received: more.")
