"""Decoding out of the server's reach: `Decoder` hands files to a process that may crash, hang, or ask for everything.

A decoder is the part of a server that hostile bytes reach first. Here it runs in a process of its own (`decoding`), so
that neither a crash nor a bomb nor an endless loop reaches the server; and what comes out of that process is not
believed but checked.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumolib import errors, runtime
from pneumolib.data.images import Film, Limits
from pneumolib.serving.decoding import LENGTHS, PREVIEW
from pneumolib.serving.settings import Settings

START_SECONDS = 60.0
_MAX_HEADER = 64 * 2**10
_ERRORS: dict[str, type[errors.PneumolibError]] = {
    kind.__name__: kind
    for kind in (errors.ImageError, errors.ImageTooLargeError, errors.UnsupportedImageError, errors.MissingExtraError)
}
# The modules of this very process, from where it has them, and none from the folder that the server was started in.
_PROGRAM = """
import json, sys
settings = json.loads(sys.argv[1])
sys.path[:] = settings.pop("path")
from pneumolib.serving.decoding import main
main(settings)
"""


@dataclass(frozen=True)
class Decoded:
    """A file as pixels: the square that the network looks at and, where it was asked for, the picture to be shown."""

    square: NDArray[np.uint8]  # [S, S]
    film: Film  # which part of the picture is on the square
    picture: NDArray[np.uint8] | None  # [H, W], upright, the longer side at most `PREVIEW`
    seconds: float


class DecoderLost(Exception):
    """The process died or was killed over a file; the next file gets a new one."""


class DecoderMissing(Exception):
    """No process could be started; that is no file's fault."""


class Decoder:
    """One decoding process; it is started when it is needed, and again after it was lost. Not for several threads.

    Args:
        size: the side of the square, in pixels.
        limits: on bytes and pixels of a file.
        memory: bytes that decoding a file may take beyond what the process takes when idle; enforced on Linux only.
        seconds: within which a file has to be decoded.
    """

    def __init__(self, size: int, limits: Limits, *, memory: int, seconds: float) -> None:
        self._settings = {"size": size, "limits": asdict(limits), "memory": memory, "seconds": seconds}
        self._size, self._seconds = size, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._greeted = False

    def start(self) -> None:
        """Start the process, unless it runs; it gets ready by itself.

        Raises:
            DecoderMissing: the system gives no process.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        settings = json.dumps({**self._settings, "path": sys.path})
        try:
            # What a decoding library writes to standard error may quote the file; nobody is to read that.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, settings],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env=runtime.bare_environment(),
            )
        except OSError as error:
            raise DecoderMissing(f"no decoding process can be started ({error.strerror})") from error
        assert self._process.stdin is not None
        # A write of more than the pipe holds would wait for the process without end.
        os.set_blocking(self._process.stdin.fileno(), False)

    @property
    def pid(self) -> int | None:
        """The process's number, None where none runs."""
        return None if self._process is None else self._process.pid

    def decode(self, content: bytes | memoryview, *, picture: bool = False) -> Decoded:
        """Return the file in `content` as pixels.

        Raises:
            ImageError: the file is no image that is read; a leaf of it says more.
            MissingExtraError: it is one that only an extra reads.
            DecoderLost: decoding took too long, too much memory, or the process died.
            DecoderMissing: no process could be started.
        """
        self.start()
        self._greet()
        deadline = time.monotonic() + self._seconds
        try:
            self._send({"picture": picture}, content, deadline)
            header, body = self._receive(deadline)
            return _decoded(header, body, self._size, picture)
        except errors.PneumolibError:  # what the process says of the file; some are a ValueError, too
            raise
        except TimeoutError as error:
            self.stop()
            raise DecoderLost("took too long") from error
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            self.stop()
            raise DecoderLost("needed too much memory, or broke the decoder") from error

    def stop(self) -> None:
        """End the process at once."""
        process, self._process, self._greeted = self._process, None, False
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _greet(self) -> None:
        """Wait until the process is ready, so that no file's time goes by with its start."""
        if self._greeted:
            return
        try:
            self._receive(time.monotonic() + START_SECONDS)
        except (OSError, EOFError, ValueError) as error:
            self.stop()
            raise DecoderMissing("the decoding process does not start") from error
        self._greeted = True

    def _send(self, header: dict[str, Any], content: bytes | memoryview, deadline: float) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        encoded, to = json.dumps(header).encode(), self._process.stdin.fileno()
        for part in (LENGTHS.pack(len(encoded), len(content)) + encoded, content):
            rest = memoryview(part)
            while rest:
                _wait(to, deadline, select.POLLOUT)
                rest = rest[os.write(to, rest) :]

    def _receive(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        assert self._process is not None
        assert self._process.stdout is not None
        answers = self._process.stdout.fileno()
        n_header, n_body = LENGTHS.unpack(_read(answers, LENGTHS.size, deadline))
        if n_header > _MAX_HEADER or n_body > self._size**2 + PREVIEW**2:
            raise ValueError("an answer of that length is none")
        return json.loads(_read(answers, n_header, deadline)), _read(answers, n_body, deadline)


def new_decoders(size: int, settings: Settings) -> list[Decoder]:
    """Return a decoder for each lane, none of them started."""
    memory, seconds = settings.decode_bytes, settings.decode_seconds
    return [Decoder(size, settings.limits, memory=memory, seconds=seconds) for _ in range(settings.n_lanes)]


def _decoded(header: dict[str, Any], body: bytes, size: int, picture: bool) -> Decoded:
    """Return what an answer gives, or raise what it says; ValueError, KeyError or TypeError where it is no answer."""
    if "error" in header:
        raise _ERRORS[header["error"]](str(header["message"]))
    arrays, start = [], 0
    for height, width in header["shapes"]:
        arrays.append(np.frombuffer(body, np.uint8, height * width, start).reshape(height, width))
        start += height * width
    if len(arrays) != 1 + picture or arrays[0].shape != (size, size) or start != len(body):
        raise ValueError("an answer of that shape is none")
    film = Film(*map(float, header["film"]))
    if not (0 <= film.top < film.bottom <= 1 and 0 <= film.left < film.right <= 1):
        raise ValueError("a film of that place is none")
    return Decoded(arrays[0], film, arrays[1] if picture else None, float(header["seconds"]))


def _wait(descriptor: int, deadline: float, event: int) -> None:
    poller = select.poll()
    poller.register(descriptor, event)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


def _read(descriptor: int, count: int, deadline: float) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        _wait(descriptor, deadline, select.POLLIN)
        part = os.read(descriptor, min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
