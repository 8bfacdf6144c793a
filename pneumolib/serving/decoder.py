"""The process that decodes what strangers send: it may be killed, and it may only take so much memory.

A decoder is the part of a server that hostile bytes reach first. Here it runs in a process of its own, started as
``python -m pneumolib.serving.decoder`` and spoken to over its standard input and output, so that neither a crash nor a
bomb nor an endless loop reaches the server. `Decoder` is the server's end of it.

The protocol, little-endian: a request is the length of a JSON header and of the file (two uint32), then both; an
answer is the same. The header of an answer says ``ok`` and the shapes of the arrays that follow, or kind and message
of the error.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pneumolib import errors
from pneumolib.data.images import Limits

PREVIEW = 1024  # longest side of the picture that is shown, in pixels
_LENGTHS = struct.Struct("<II")
_ERRORS = ("ImageError", "ImageTooLargeError", "UnsupportedImageError", "MissingExtraError")


@dataclass(frozen=True)
class Decoded:
    """A file as pixels: the square that the network looks at and, where it was asked for, the picture to be shown."""

    square: NDArray[np.uint8]  # [S, S]
    picture: NDArray[np.uint8] | None  # [H, W], upright, the longer side at most `PREVIEW`
    seconds: float


class DecoderLost(Exception):
    """The process died or was killed over a file; the next file gets a new one."""


class Decoder:
    """One decoding process; it is started when it is needed, and again after it was lost. Not for several threads.

    Args:
        size: the side of the square, in pixels.
        limits: on bytes and pixels of a file.
        memory: bytes that decoding may take beyond what the process takes when idle; not enforced on Windows and macOS.
        seconds: within which a file has to be decoded.
    """

    def __init__(self, size: int, limits: Limits, *, memory: int, seconds: float) -> None:
        self._settings = {"size": size, "limits": asdict(limits), "memory": memory}
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        command = [sys.executable, "-m", "pneumolib.serving.decoder", json.dumps(self._settings)]
        # What a decoding library writes to standard error may quote the file; nobody is to read that.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
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
            DecoderLost: decoding took too long, too much memory, or the process died.
        """
        self.start()
        deadline = time.monotonic() + self._seconds
        try:
            header, body = self._ask({"picture": picture}, content, deadline)
        except (OSError, EOFError, TimeoutError) as error:
            self.stop()
            late = isinstance(error, TimeoutError)
            raise DecoderLost("took too long" if late else "needed too much memory, or broke the decoder") from error
        if "error" in header:
            raise getattr(errors, header["error"])(header["message"])
        arrays, start = [], 0
        for height, width in header["shapes"]:
            pixels = np.frombuffer(body, np.uint8, height * width, start).reshape(height, width)
            arrays.append(pixels)
            start += height * width
        return Decoded(arrays[0], arrays[1] if picture else None, header["seconds"])

    def stop(self) -> None:
        """End the process at once."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _ask(
        self, header: dict[str, Any], content: bytes | memoryview, deadline: float
    ) -> tuple[dict[str, Any], bytes]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        encoded = json.dumps(header).encode()
        to, answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        for part in (_LENGTHS.pack(len(encoded), len(content)) + encoded, content):
            rest = memoryview(part)
            while rest:
                _wait(to, deadline, writing=True)
                rest = rest[os.write(to, rest) :]
        n_header, n_body = _LENGTHS.unpack(_read_within(answers, _LENGTHS.size, deadline))
        answer = json.loads(_read_within(answers, n_header, deadline))
        return answer, _read_within(answers, n_body, deadline)


def _wait(descriptor: int, deadline: float, *, writing: bool = False) -> None:
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT if writing else select.POLLIN)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


def _read_within(descriptor: int, count: int, deadline: float) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        _wait(descriptor, deadline)
        part = os.read(descriptor, min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _serve(settings: dict[str, Any], requests: BinaryIO, answers: BinaryIO) -> None:
    """Decode file after file, until the server closes the pipe."""
    from pneumolib.data import images

    limits = Limits(**settings["limits"])
    _warm_up(settings["size"])
    _limit_memory(settings["memory"])
    while True:
        lengths = requests.read(_LENGTHS.size)
        if len(lengths) < _LENGTHS.size:
            return
        n_header, n_content = _LENGTHS.unpack(lengths)
        header = json.loads(requests.read(n_header))
        content = requests.read(n_content)
        began = time.perf_counter()
        try:
            found = [images.load_square(content, settings["size"], limits=limits)]
            if header["picture"]:
                found.append(_fitted(images.decode(content, at_least=PREVIEW, limits=limits)))
            seconds = time.perf_counter() - began
            answer: dict[str, Any] = {"shapes": [array.shape for array in found], "seconds": seconds}
        except (errors.ImageError, errors.MissingExtraError) as error:
            found = []
            answer = {"error": type(error).__name__, "message": str(error)}
        encoded, body = json.dumps(answer).encode(), b"".join(array.tobytes() for array in found)
        answers.write(_LENGTHS.pack(len(encoded), len(body)) + encoded + body)
        answers.flush()


def _fitted(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with its sides in proportion, the longer one at most `PREVIEW`."""
    from PIL import Image

    height, width = image.shape
    if max(height, width) <= PREVIEW:
        return image
    scale = PREVIEW / max(height, width)
    sides = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BILINEAR))


def _warm_up(size: int) -> None:
    """Load what decoding loads lazily, before memory is limited: Pillow's plug-ins, and pydicom where it is there."""
    import io

    from PIL import Image

    from pneumolib.data import images

    for kind in images.FORMATS:
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, kind)
        images.load_square(file.getvalue(), size)


def _limit_memory(budget: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + budget
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    # The server decides when this ends: an interruption on the terminal goes to both.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(json.loads(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
