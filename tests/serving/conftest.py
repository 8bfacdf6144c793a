"""Shared by the tests of the API: pictures, a server, detectors that wait, and connections byte by byte."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from pneumolib.data.radiograph import draw
from pneumolib.models.detector import Detector, load_detector

PATIENCE = 60.0  # after which a test fails that would otherwise hang


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="session")
def detector() -> Detector:
    """The detector that ships, with one thread, as a server has it."""
    return load_detector(threads=1)


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """A synthetic X-ray that the detector takes for one."""
    return draw("normal", 12, size=(448, 540))


@pytest.fixture(scope="session")
def x_ray(pixels: np.ndarray) -> bytes:
    """The same as a file."""
    return encoded(pixels, "JPEG", quality=90)


@pytest.fixture(scope="session")
def negative(pixels: np.ndarray) -> bytes:
    """A file that the detector does not take for an X-ray."""
    return encoded(255 - pixels)


@pytest.fixture(scope="session")
def start(detector: Detector) -> Callable[..., Any]:
    """Start a server with one lane and these settings; a context manager."""
    from pneumolib.serving.server import BackgroundServer
    from pneumolib.serving.settings import Settings

    def start(served: Any = None, **settings: Any) -> BackgroundServer:
        return BackgroundServer(served or detector, Settings(**{"port": 0, "lanes": 1, **settings}))

    return start


@pytest.fixture(scope="session")
def server(start: Callable[..., Any]) -> Iterator[Any]:
    """A server as it comes, with two lanes; tests leave it as they find it."""
    with start(lanes=2) as server:
        yield server


@pytest.fixture
def client(server: Any) -> Iterator[httpx.Client]:
    """Speaks with `server`."""
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def background() -> Iterator[Callable[..., Future[Any]]]:
    """Call a function in a thread; its result, or what it raised, is in the future that comes back."""
    with ThreadPoolExecutor(max_workers=256) as pool:
        yield pool.submit


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], None]:
    """Wait until a condition holds, for things that other threads do in their own time."""

    def until(holds: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, "it never came about"
            time.sleep(0.005)

    return until


@pytest.fixture(scope="session")
def counted() -> Callable[..., float]:
    """One of a server's measures, summed over labels not given: ``counted(server, "requests_total", code="200")``."""
    from prometheus_client.parser import text_string_to_metric_families

    def counted(server: Any, name: str, **labels: str) -> float:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        return sum(s.value for s in samples if s.name == f"pneumolib_{name}" and labels.items() <= s.labels.items())

    return counted


class Gate:
    """A detector that lets no picture through once it is shut; apart from that it is the one it is given."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.entered = threading.Semaphore(0)  # once for each picture that came to the shut gate
        self.open = threading.Event()
        self.open.set()
        self.seen = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detector, name)

    def predict_with_features(self, picture: np.ndarray, **options: Any) -> Any:
        self.seen += 1
        if not self.open.is_set():
            self.entered.release()
            assert self.open.wait(PATIENCE)
        return self._detector.predict_with_features(picture, **options)

    def shut(self) -> None:
        """Let no picture through, and count from now on."""
        self.open.clear()
        self.seen = 0

    def wait_for_one(self) -> None:
        """Return when a picture has come in."""
        assert self.entered.acquire(timeout=PATIENCE)


@pytest.fixture
def gate(detector: Detector) -> Iterator[Gate]:
    """The detector, behind a gate that is open until it is shut, and again when the test ends."""
    gate = Gate(detector)
    yield gate
    gate.open.set()


@dataclass
class Reply:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """A connection, byte by byte."""

    def __init__(self, server: Any) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        self._rest = b""

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.socket.sendall(part)

    def reply(self) -> Reply:
        """Return the next answer; one whose head does not come is an EOFError."""
        while b"\r\n\r\n" not in self._rest:
            self._read()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._rest) < length:
            self._read()
        body, self._rest = self._rest[:length], self._rest[length:]
        return Reply(int(first.split()[1]), headers, body)

    def closed(self) -> bool:
        """Wait for more; return True where the connection is closed instead."""
        try:
            self._read()
        except (EOFError, ConnectionError):
            return True
        return False

    def _read(self) -> None:
        part = self.socket.recv(65536)
        if not part:
            raise EOFError
        self._rest += part


@pytest.fixture
def wire() -> Iterator[Callable[[Any], Wire]]:
    """Open a connection to a server; it is closed when the test ends."""
    with contextlib.ExitStack() as stack:

        def wire(server: Any) -> Wire:
            opened = Wire(server)
            stack.enter_context(opened.socket)
            return opened

        yield wire


@pytest.fixture(scope="session")
def is_answer(detector: Detector) -> Callable[..., bool]:
    """Whether an answer says what the detector says of the file, to the last digit."""
    from pneumolib.serving.schema import NOTICE

    def is_answer(found: dict[str, Any], content: bytes, point: str = "balanced") -> bool:
        expected = detector.predict(content, operating_point=point)
        check = expected.input
        assert found["schema"] == "pneumolib.answer/1"
        assert found["model"]["sha256"] == detector.sha256
        assert found["notice"] == NOTICE
        assert found["decision"] == expected.decision
        assert found["operating_point"] == {"name": point, "threshold": expected.threshold}
        assert found["input"] == {"ok": check.ok, "code": check.code, "reason": check.reason}
        assert found["probability"] == (expected.probability if check.ok else None)
        assert found["subtypes"] == ({**expected.subtypes, "proven": False} if check.ok else None)
        assert found["timing"]["total"] >= found["timing"]["inference"] > 0
        return True

    return is_answer


@pytest.fixture(scope="session")
def is_problem() -> Callable[[httpx.Response, str], bool]:
    """Whether a reply tells a problem with this code, and all that belongs to it."""
    from pneumolib.serving.problems import CONTENT_TYPE, PROBLEMS, RETRIED

    def is_problem(reply: httpx.Response, code: str) -> bool:
        status, title = PROBLEMS[code]
        found = reply.json()
        assert (reply.status_code, reply.headers["content-type"]) == (status, CONTENT_TYPE)
        assert set(found) == {"type", "title", "status", "code", "detail", "request_id"}
        assert (found["code"], found["status"], found["title"]) == (code, status, title)
        assert found["request_id"] == reply.headers["x-request-id"]
        assert found["detail"]
        assert ("retry-after" in reply.headers) is (status in RETRIED)
        return True

    return is_problem
