"""What runs in a decoding process: it may be killed at any moment, and may take only so much memory and time.

`decoder.Decoder` starts it and speaks with it over its standard input and output. The protocol: a message is the
lengths of a JSON header and of a body (`LENGTHS`), then both. The process says with an empty message that it is ready;
then it gets requests, whose body is the file, and answers each. The header of an answer says ``shapes`` of the uint8
arrays in its body, ``film`` and ``seconds``, or ``error``, the name of an `ImageError`, and its ``message``.
"""

from __future__ import annotations

import contextlib
import json
import signal
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PREVIEW = 1024  # longest side of the picture that is shown, in pixels
LENGTHS = struct.Struct("<II")


def main(settings: dict[str, Any]) -> None:
    """Decode file after file, until the server closes the pipe.

    Args:
        settings: ``size`` of the square in pixels; ``limits``, as `images.Limits` takes them; ``memory`` in bytes and
            ``seconds`` that a file may take.
    """
    # When this ends is the server's to decide: signals for the terminal's or the service's whole group come here too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    from pneumolib.data import dicom

    _warm_up(settings["size"])
    _limit(settings["memory"])
    dicom_loaded = False
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    _write(answers, {}, b"")
    while True:
        lengths = requests.read(LENGTHS.size)
        if len(lengths) < LENGTHS.size:
            return
        n_header, n_content = LENGTHS.unpack(lengths)
        header = json.loads(requests.read(n_header))
        content = requests.read(n_content)
        if not dicom_loaded and dicom.is_dicom(content):
            # Half a second and 60 MB, which only those pay who send DICOM; what it takes is not the file's.
            dicom_loaded = True
            _limit(None)
            dicom.preload()
            _limit(settings["memory"])
        # The server kills what takes too long; where the server has gone, the system does.
        signal.setitimer(signal.ITIMER_REAL, settings["seconds"] + 1)
        answer, body = _answer(content, header["picture"], settings)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write(answers, answer, body)


def _answer(content: bytes, picture: bool, settings: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    import time

    from pneumolib import errors
    from pneumolib.data import images

    limits, began = images.Limits(**settings["limits"]), time.perf_counter()
    try:
        square, film = images.load_film(content, settings["size"], limits=limits)
        found = [square]
        if picture:
            found.append(_fitted(images.decode(content, at_least=PREVIEW, limits=limits)))
    except (errors.ImageError, errors.MissingExtraError) as error:
        if isinstance(error.__cause__, MemoryError):
            raise  # no more can be said, and what is left of this process is not worth keeping
        return {"error": type(error).__name__, "message": str(error)}, b""
    shapes = [array.shape for array in found]
    header = {"shapes": shapes, "film": film, "seconds": time.perf_counter() - began}
    return header, b"".join(array.tobytes() for array in found)


def _write(answers: BinaryIO, header: dict[str, Any], body: bytes) -> None:
    encoded = json.dumps(header).encode()
    answers.write(LENGTHS.pack(len(encoded), len(body)) + encoded)
    answers.write(body)
    answers.flush()


def _fitted(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with its sides in proportion, the longer one at most `PREVIEW`."""
    import numpy as np
    from PIL import Image

    height, width = image.shape
    if max(height, width) <= PREVIEW:
        return image
    scale = PREVIEW / max(height, width)
    sides = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BILINEAR))


def _warm_up(size: int) -> None:
    """Load what decoding loads lazily, before memory is limited."""
    import io

    from PIL import Image

    from pneumolib.data import images

    for kind in images.FORMATS:
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, kind)
        images.load_square(file.getvalue(), size)


def _limit(memory: int | None) -> None:
    """Allow so many bytes beyond what the process has now, None for any number, and nothing written to a disk."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError, ValueError):  # Linux only; elsewhere memory stays unlimited
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = most if memory is None else pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(kind, (0, 0))
