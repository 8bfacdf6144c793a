"""The server as a process: how it begins, what it holds in memory, how it ends; and `serve` beside a program."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import PIL
import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

from pneumolib import runtime, serve
from pneumolib.errors import ArtifactError, ConfigError, DataNotFoundError, MissingExtraError, ServerError
from pneumolib.models.detector import Detector
from pneumolib.serving.decoder import Decoder, new_decoders
from pneumolib.serving.server import BackgroundServer, _listening, run
from pneumolib.serving.settings import Settings

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
MIB = 2**20


class Process:
    """``pneumolib serve`` on a free port, ready."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "pneumolib", "serve", "--port", "0", "--lanes", "1"]
        self.popen = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.popen.stderr is not None
        self.said = self.popen.stderr.readline()
        found = re.fullmatch(
            r"pneumolib: \S+ answers at http://127\.0\.0\.1:(\d+) \(page /, API /docs\).*\n", self.said
        )
        assert found, self.said + self.popen.stderr.read()
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def end(self, number: signal.Signals | None = None) -> tuple[int, str]:
        """Its exit status, and what else it said."""
        if number is not None:
            self.popen.send_signal(number)
        _, said = self.popen.communicate(timeout=60)
        return self.popen.returncode, said

    def memory(self) -> int:
        """The most bytes that it ever held in memory."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024

    def children(self) -> list[int]:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self.popen.pid:
                    found.append(int(stat.parent.name))
        return found


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    with contextlib.suppress(ProcessLookupError):
        process.popen.kill()
    process.popen.communicate()


def chunks(opened: Any, count: int) -> Iterator[int]:
    """Send chunks of a mebibyte; yields how many have been sent."""
    opened.send(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for sent in range(count):
        opened.send(b"%x\r\n" % MIB + bytes(MIB) + b"\r\n")
        yield sent + 1
    opened.send(b"0\r\n\r\n")


@LINUX
def test_it_holds_no_more_than_it_may_says_nothing_of_its_callers_and_ends_when_asked(
    process: Process, wire: Callable[..., Any], until: Callable[..., None], x_ray: bytes
) -> None:
    """One after the other, since a process takes its time to start."""
    request = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(x_ray)
    with httpx.Client(base_url=process.url, timeout=60) as client:
        assert client.post("/v1/predict", content=x_ray).status_code == 200
        assert client.post("/v1/predict", content=bytes(60 * MIB)).status_code == 415
        before = process.memory()

        # 200 MB: a caller who listens is told early, one who does not is told at the end.
        opened = wire(process)
        told = (n for n in chunks(opened, 200) if select.select([opened.socket], [], [], 0)[0])
        assert next(told) < 150
        assert opened.reply().status == 413
        opened = wire(process)
        assert list(chunks(opened, 200))[-1] == 200
        assert opened.reply().status == 413
        assert process.memory() - before < 128 * MIB

        # Nothing of what callers do is said.
        client.post("/v1/predict", files={"Doe, Jane": ("Doe, Jane.dcm", b"Doe, Jane")})
        client.post("/v1/predict?Doe=Jane", content=b"Doe, Jane", headers={"X-Patient": "Doe, Jane"})
        client.post("/v1/predict", content=b"--Doe", headers={"Content-Type": "multipart/form-data; boundary=Doe"})
        opened = wire(process)
        opened.send(b"Doe, Jane\r\n\r\n")
        assert opened.reply().status == 400

    # What has begun when it is asked to end is finished.
    opened = wire(process)
    opened.send(request + b"Expect: 100-continue\r\n\r\n")
    assert opened.reply().status == 100
    decoders = process.children()
    assert len(decoders) == 1
    process.popen.terminate()
    opened.send(x_ray)
    assert opened.reply().status == 200
    assert process.end() == (0, "")
    until(lambda: all(has_ended(pid) for pid in decoders))


def test_ctrl_c_ends_it_too(process: Process) -> None:
    assert process.end(signal.SIGINT) == (0, "")


@LINUX
def test_no_decoding_process_outlives_it(process: Process, until: Callable[..., None]) -> None:
    decoders = process.children()
    assert len(decoders) == 1
    assert process.end(signal.SIGKILL) == (-signal.SIGKILL, "")
    until(lambda: all(has_ended(pid) for pid in decoders))


# === serve ===


def test_serve_listens_on_this_machine_until_it_is_left(detector: Detector, x_ray: bytes) -> None:
    with serve(detector, show=False) as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert repr(server) == f"pneumolib's server at {server.url}"
        assert httpx.post(f"{server.url}/v1/predict", content=x_ray, timeout=60).status_code == 200
    assert repr(server).endswith(" (stopped)")
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_before_it_says_that_it_is_ready_what_stays_is_taken_from_the_garbage_collector(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = []
    monkeypatch.setattr(gc, "freeze", lambda: happened.append("frozen"))

    def ready(url: str) -> None:
        happened.append("ready")
        os.kill(os.getpid(), signal.SIGTERM)

    run(detector, Settings(port=0), ready=ready)
    assert happened == ["frozen", "ready"]


def test_in_a_notebook_the_page_is_shown_and_may_stand_in_it(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, int]] = []
    monkeypatch.setattr(runtime, "in_notebook", lambda: True)
    monkeypatch.setattr(runtime, "show_port", lambda port, height: shown.append((port, height)))
    with serve(detector) as server:
        assert shown == [(server.port, 900)]
        assert "frame-ancestors" not in httpx.get(server.url).headers["content-security-policy"]


def test_an_address_that_cannot_be_had_is_told(detector: Detector) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"in use.* Allowed: a free port.* Received: 127\.0\.0\.1, port {port}"):
            serve(detector, settings=Settings(port=port))
    with pytest.raises(ServerError, match=r"Received: no-such-host\.invalid, port 0"):
        serve(detector, settings=Settings(host="no-such-host.invalid", port=0))


def test_a_detector_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError):
        serve(tmp_path, show=False)


def test_a_detector_that_answers_otherwise_than_when_it_was_saved_is_not_served(detector: Detector) -> None:
    class Off:
        def __getattr__(self, name: str) -> Any:
            return getattr(detector, name)

        def self_check(self) -> float:
            return 0.25

    off: Any = Off()
    before = threading.active_count()
    with pytest.raises(ServerError, match=r"did not start: the detector's answer .* differs by 0\.25"):
        BackgroundServer(off, Settings(port=0))
    assert threading.active_count() == before


def test_an_old_decoder_is_kept_from_strangers_and_warned_of(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(PIL, "__version__", "12.3.0")
    with pytest.raises(ConfigError, match=r"Pillow 12\.3\.0 has known holes.* pip install -U pillow"):
        BackgroundServer(detector, Settings(host="0.0.0.0", port=0, lanes=1))
    assert not caplog.records
    for settings in (Settings(port=0, lanes=1), Settings(host="0.0.0.0", port=0, lanes=1, accept_old_decoder=True)):
        with BackgroundServer(detector, settings):
            assert [record.message[:32] for record in caplog.records] == ["Pillow 12.3.0 has known holes th"]
        caplog.clear()


def test_without_the_extra_the_way_out_is_told(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Decoder] = []

    def new(size: int, settings: Settings) -> list[Decoder]:
        made.extend(new_decoders(size, settings))
        return made

    monkeypatch.setattr("pneumolib.serving.server.new_decoders", new)
    monkeypatch.delitem(sys.modules, "pneumolib.serving.asgi")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pneumolib\[serve\]'"):
        serve(detector, show=False)
    assert made
    assert all(decoder.pid is None for decoder in made)


def test_a_phantoms_detector_is_served_only_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[bool] = []

    def load(folder: Any, *, threads: int, allow_phantom: bool) -> Detector:
        asked.append(allow_phantom)
        raise ArtifactError("a phantom")

    monkeypatch.setattr("pneumolib.serving.server.load_detector", load)
    for allow in (False, True):
        with pytest.raises(ArtifactError):
            serve(tmp_path, allow_phantom=allow)
    assert asked == [False, True]


def test_an_answer_waits_for_nobody_to_say_that_its_head_has_come() -> None:
    with (
        _listening(Settings(port=0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
