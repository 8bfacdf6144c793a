"""The client that the benchmarks of the API share: it keeps its connections and its schedule.

The client speaks HTTP/1.1 over plain asyncio connections, at a tenth of the cost of a general client, since it shares
the machine with the server. In the open loop a request is due at a time fixed beforehand, whatever became of the ones
before it, and its latency counts from then: a server that stalls cannot slow its own measurement down (no coordinated
omission).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import selectors
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

PATIENCE = 60.0  # seconds without an answer after which one counts as lost


@dataclass(frozen=True)
class Reply:
    """An answer; `seconds` from when the request was due."""

    status: int
    head: bytes
    body: bytes
    seconds: float = 0.0

    def json(self) -> Any:
        """Return the body, parsed."""
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """A connection that carries one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._whole = -1  # bytes of the answer, once its head is there
        self._head = 0
        self._reply: asyncio.Future[Reply] | None = None
        self._transport: asyncio.Transport | None = None
        self.open = False

    @classmethod
    async def to(cls, port: int) -> Connection:
        """Return a connection to a port of this machine."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    def write(self, data: bytes) -> None:
        """Send `data`, or a part of a request."""
        assert self._transport is not None
        self._transport.write(data)

    async def ask(self, request: bytes) -> Reply:
        """Send a request and return the answer.

        Raises:
            ConnectionError: the connection ended before the answer did.
            TimeoutError: none came within `PATIENCE`.
        """
        answer = self.expect()
        self.write(request)
        return await asyncio.wait_for(answer, PATIENCE)

    def expect(self) -> asyncio.Future[Reply]:
        """Return the answer to come, for a request that is written in parts."""
        self._reply = asyncio.get_running_loop().create_future()
        if not self.open:
            self._reply.set_exception(ConnectionError("the connection is closed"))
        return self._reply

    def close(self) -> None:
        """End the connection; what was written still goes out."""
        assert self._transport is not None
        self.open = False
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.open = transport, True

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._whole < 0:
            self._head = self._received.find(b"\r\n\r\n") + 4
            if self._head < 4:
                return
            head = bytes(self._received[: self._head]).lower()
            self._whole = self._head + int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(self._received) >= self._whole:
            reply = Reply(
                int(self._received[9:12]),
                bytes(self._received[: self._head]),
                bytes(self._received[self._head : self._whole]),
            )
            self._received, self._whole = bytearray(), -1
            if b"connection: close" in reply.head.lower():
                self.open = False
            if self._reply is not None and not self._reply.done():
                self._reply.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionError(f"the connection ended without an answer: {error}"))


def request(path: str, body: bytes, content_type: str, *, method: str = "POST", headers: str = "") -> bytes:
    """Return a request as bytes on the wire."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def form(path: str, files: Sequence[bytes], *, name: str = "file") -> bytes:
    """Return a request with files in a form."""
    mark = "a-boundary-that-no-file-holds"
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{i}.jpeg"\r\n'
        f"Content-Type: image/jpeg\r\n\r\n".encode()
        + content
        + b"\r\n"
        for i, content in enumerate(files)
    ]
    return request(path, b"".join(parts) + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}")


async def closed_loop(
    port: int, requests: Sequence[bytes], connections: int, seconds: float
) -> tuple[list[float], float]:
    """Send from each connection request after request, the next when the answer is there; no answer may be an error.

    Returns:
        The seconds that each took, and answers a second.
    """
    found: list[float] = []
    began = time.perf_counter()

    async def caller(number: int) -> None:
        connection = await Connection.to(port)
        turn = number
        while time.perf_counter() < began + seconds:
            sent = time.perf_counter()
            reply = await connection.ask(requests[turn % len(requests)])
            found.append(time.perf_counter() - sent)
            turn += connections
            if reply.status != 200:
                raise RuntimeError(f"status {reply.status} under load: {reply.body[:300]!r}")
        connection.close()

    await asyncio.gather(*(caller(number) for number in range(connections)))
    return found, len(found) / (time.perf_counter() - began)


@dataclass(frozen=True)
class OpenLoop:
    """What an open loop found."""

    seconds: list[float]  # from when a request was due to its answer
    late: list[float]  # from when it was due to when it was sent: what the client itself adds
    statuses: dict[int, int]
    lost: int


async def open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> OpenLoop:
    """Send `rate` requests a second at even distances, each on a connection that is free then."""
    free = [await Connection.to(port) for _ in range(16)]
    found, late = [], []
    statuses: dict[int, int] = {}
    lost = 0

    async def one(number: int, due: float) -> None:
        nonlocal lost
        while free and not free[-1].open:
            free.pop()
        connection = free.pop() if free else await Connection.to(port)
        late.append(time.perf_counter() - due)
        try:
            reply = await connection.ask(requests[number % len(requests)])
        except (OSError, TimeoutError):
            lost += 1
            return
        found.append(time.perf_counter() - due)
        statuses[reply.status] = statuses.get(reply.status, 0) + 1
        if connection.open:
            free.append(connection)

    began = time.perf_counter() + 0.05
    async with asyncio.TaskGroup() as tasks:
        for number in range(round(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(one(number, due))
    for connection in free:
        connection.close()
    return OpenLoop(found, late, statuses, lost)


def run(job: Coroutine[Any, Any, Any]) -> Any:
    """Run a client to its end, before all other processes where the system lets it.

    What a caller waits for a core that the server's threads share with him is not the server's doing; nor is it when
    his own Python collects garbage.
    """
    gc.freeze()
    # select() waits to the microsecond, epoll() to the millisecond, which a schedule would feel.
    with (
        _urgent(),
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner,
    ):
        return runner.run(job)


@contextlib.contextmanager
def _urgent() -> Iterator[None]:
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except (AttributeError, OSError):  # only Linux has it, and only for root
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return {
        f"p{part}": round(1000 * ordered[min(len(ordered) - 1, int(len(ordered) * part / 100))], 2)
        for part in (50, 95, 99)
    }
