"""The decoding process: the pixels of the one door, and a server that outlives whatever happens over a file."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pneumolib.data.images import FORMATS, Film, Limits, decode, load_square
from pneumolib.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from pneumolib.serving import decoder as module
from pneumolib.serving.decoder import Decoded, Decoder, DecoderLost, DecoderMissing
from pneumolib.serving.decoding import LENGTHS, PREVIEW
from pneumolib.serving.settings import Settings

SIZE = 64
LIMITS = Limits(max_bytes=64 * 2**20, max_pixels=40_000_000)
NOISE = np.random.default_rng(0).integers(0, 256, (4096, 4096), dtype=np.uint8)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its memory")


def encoded(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def blank_png(width: int, height: int) -> bytes:
    """A gray PNG, all black, made without ever holding its pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer, row = zlib.compressobj(1), bytes(width + 1)
    rows = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def make(memory: int = 256 * 2**20, seconds: float = 60.0, limits: Limits = LIMITS) -> Decoder:
    return Decoder(SIZE, limits, memory=memory, seconds=seconds)


@pytest.fixture(scope="module")
def shared() -> Iterator[Decoder]:
    """One process for all files that do no harm."""
    decoder = make()
    yield decoder
    decoder.stop()


@pytest.fixture
def own() -> Iterator[Callable[..., Decoder]]:
    """A process of the test's own."""
    made: list[Decoder] = []

    def own(**settings: Any) -> Decoder:
        made.append(make(**settings))
        return made[-1]

    yield own
    for decoder in made:
        decoder.stop()


# === What comes out ===


@pytest.mark.parametrize("kind", FORMATS)
def test_the_square_is_that_of_the_one_door(shared: Decoder, pixels: np.ndarray, kind: str) -> None:
    content = encoded(pixels, kind)
    found = shared.decode(content)
    np.testing.assert_array_equal(found.square, load_square(content, SIZE))
    assert found.picture is None
    assert found.seconds > 0


def test_the_picture_is_shown_upright_and_not_larger_than_need_be(shared: Decoder) -> None:
    ramp = np.tile(np.linspace(0, 255, 1200).astype(np.uint8), (3 * PREVIEW, 1))  # [3072, 1200]
    turned = Image.Exif()
    turned[274] = 6
    content = encoded(ramp, "PNG", exif=turned)
    picture = shared.decode(content, picture=True).picture
    assert picture is not None
    assert picture.shape == (round(1200 / 3), PREVIEW)
    whole = decode(content)
    assert np.abs(picture.astype(int) - whole[1::3, 1::3].astype(int)).max() <= 2
    small = encoded(ramp[:7, :5], "PNG")
    np.testing.assert_array_equal(shared.decode(small, picture=True).picture, ramp[:7, :5])


@pytest.mark.parametrize(("height", "width"), [(1, 3 * PREVIEW), (3 * PREVIEW, 1), (1, 1)])
def test_a_thin_picture_keeps_a_pixel_of_its_width(shared: Decoder, height: int, width: int) -> None:
    picture = shared.decode(encoded(np.zeros((height, width), np.uint8), "PNG"), picture=True).picture
    assert picture is not None
    assert min(picture.shape) == 1
    assert max(picture.shape) == min(PREVIEW, max(height, width))


def test_the_film_comes_with_the_square(shared: Decoder) -> None:
    padded = encoded(np.pad(NOISE[:60, :80] | 64, [(0, 0), (20, 60)]), "PNG")
    assert shared.decode(padded).film == Film(left=20 / 160, right=100 / 160)
    assert shared.decode(encoded(NOISE[:60, :80], "PNG")).film == Film()


def test_a_large_file_comes_through_whole(shared: Decoder) -> None:
    content = encoded(NOISE, "BMP")
    assert len(content) > 16 * 2**20
    np.testing.assert_array_equal(shared.decode(memoryview(content)).square, load_square(content, SIZE))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", ImageError),
        (b"hello, world", UnsupportedImageError),
        (encoded(NOISE[:64, :64], "PNG")[:2000], ImageError),
        (blank_png(12_000, 12_000)[:100], ImageTooLargeError),
        (bytes(LIMITS.max_bytes + 1), ImageTooLargeError),
        (encoded(Image.new("F", (4, 4)), "TIFF"), ImageError),
    ],
    ids=["empty", "text", "cut off", "a bomb", "too many bytes", "floats"],
)
def test_what_is_refused_is_refused_in_the_words_of_the_one_door(
    shared: Decoder, content: bytes, error: type[ImageError]
) -> None:
    with pytest.raises(ImageError) as here:
        load_square(content, SIZE, limits=LIMITS)
    with pytest.raises(ImageError) as there:
        shared.decode(content)
    assert type(there.value) is type(here.value) is error
    assert str(there.value) == str(here.value)


@LINUX
def test_the_process_knows_no_secret_of_the_servers_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNEUMOLIB_API_KEY", "a-key-that-nobody-else-knows")
    decoder = make()
    try:
        decoder.decode(encoded(NOISE[:64, :64], "PNG"))  # the process is that program by now, not a copy of this one
        surroundings = Path(f"/proc/{decoder.pid}/environ").read_bytes()
    finally:
        decoder.stop()
    assert b"PATH=" in surroundings
    assert b"a-key" not in surroundings


@LINUX
@pytest.mark.parametrize("kind", ["PNG 16", "PNG RGBA", "TIFF 32"])
def test_every_kind_of_picture_that_is_allowed_has_the_memory_it_needs(own: Callable[..., Decoder], kind: str) -> None:
    """A quarter of the pixels and of the memory that the settings allow; smaller arrays are not laid out alike."""
    settings = Settings()
    height, width = 2000, settings.max_pixels // 4 // 2000
    gray = np.add.outer(np.arange(height), np.arange(width)) % 251
    content = {
        "PNG 16": lambda: encoded(gray.astype(np.uint16) * 261, "PNG", compress_level=1),
        "PNG RGBA": lambda: encoded(Image.fromarray(gray.astype(np.uint8)).convert("RGBA"), "PNG", compress_level=1),
        "TIFF 32": lambda: encoded(gray.astype(np.int32), "TIFF", compression="tiff_lzw"),
    }[kind]()
    found = own(memory=settings.decode_bytes // 4).decode(content, picture=True)
    assert found.picture is not None
    assert max(found.picture.shape) == PREVIEW


# === What goes wrong ===


@LINUX
def test_a_bomb_costs_one_process_and_the_next_file_gets_another(own: Callable[..., Decoder], x_ray: bytes) -> None:
    decoder = own(memory=24 * 2**20)
    decoder.decode(x_ray)
    before = decoder.pid
    with pytest.raises(DecoderLost, match="too much memory"):
        decoder.decode(blank_png(6_000, 6_000))
    assert decoder.pid is None
    assert decoder.decode(x_ray).square.shape == (SIZE, SIZE)
    assert decoder.pid not in (None, before)


@pytest.mark.parametrize("count", [100, 2**20], ids=["fits the pipe", "does not fit the pipe"])
def test_decoding_that_does_not_end_is_ended(own: Callable[..., Decoder], x_ray: bytes, count: int) -> None:
    decoder = own(seconds=0.5)
    decoder.decode(encoded(np.zeros((8, 8), np.uint8), "PNG"))
    assert decoder.pid is not None
    os.kill(decoder.pid, signal.SIGSTOP)
    with pytest.raises(DecoderLost, match="took too long"):
        decoder.decode(bytes(count))
    assert decoder.pid is None
    decoder._seconds = 60.0
    assert decoder.decode(x_ray).square.shape == (SIZE, SIZE)


def test_a_process_killed_over_a_file_is_lost_and_replaced(
    own: Callable[..., Decoder], x_ray: bytes, background: Callable[..., Future[Decoded]]
) -> None:
    decoder = own()
    decoder.decode(x_ray)
    assert decoder.pid is not None
    os.kill(decoder.pid, signal.SIGSTOP)
    future = background(decoder.decode, x_ray)
    os.kill(decoder.pid, signal.SIGKILL)
    # It may have been dead before the file reached it; then the file got a new one at once.
    if future.exception() is not None:
        assert isinstance(future.exception(), DecoderLost)
    assert decoder.decode(x_ray).square.shape == (SIZE, SIZE)


def test_a_process_killed_between_two_files_costs_neither(own: Callable[..., Decoder], x_ray: bytes) -> None:
    decoder = own()
    decoder.decode(x_ray)
    before = decoder.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    decoder.decode(x_ray)
    assert decoder.pid != before


def test_signals_for_the_whole_group_do_not_end_it(shared: Decoder, x_ray: bytes) -> None:
    shared.decode(x_ray)
    before = shared.pid
    assert before is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(before, number)
        shared.decode(x_ray)
    assert shared.pid == before


def test_start_and_stop_may_be_called_twice(own: Callable[..., Decoder]) -> None:
    decoder = own()
    assert decoder.pid is None
    decoder.start()
    before = decoder.pid
    decoder.start()
    assert decoder.pid == before
    decoder.stop()
    decoder.stop()
    assert decoder.pid is None


def test_that_no_process_can_be_had_is_no_files_fault(
    own: Callable[..., Decoder], x_ray: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    decoder = own()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "no-python"))
        with pytest.raises(DecoderMissing, match=r"No such file"):
            decoder.decode(x_ray)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_PROGRAM", "raise SystemExit(1)")
        with pytest.raises(DecoderMissing, match="does not start"):
            decoder.decode(x_ray)
    assert decoder.decode(x_ray).square.shape == (SIZE, SIZE)


SQUARE = bytes(SIZE * SIZE)


def told(header: Any, body: bytes = SQUARE) -> bytes:
    content = json.dumps(header).encode()
    return LENGTHS.pack(len(content), len(body)) + content + body


WHOLE = [0, 1, 0, 1]
LIES = {
    "nothing": b"",
    "half a length": b"\0\0\0",
    "an endless header": LENGTHS.pack(2**32 - 1, 0),
    "an endless body": LENGTHS.pack(2, 2**32 - 1) + b"{}",
    "no JSON": LENGTHS.pack(3, 0) + b"{{{",
    "a list": told([]),
    "an empty header": told({}),
    "no time": told({"shapes": [[SIZE, SIZE]], "film": WHOLE}),
    "no array": told({"shapes": [], "film": WHOLE, "seconds": 0}, b""),
    "more than there is": told({"shapes": [[SIZE, SIZE + 1]], "film": WHOLE, "seconds": 0}),
    "a byte more than it says": told({"shapes": [[SIZE, SIZE]], "film": WHOLE, "seconds": 0}, SQUARE + b"x"),
    "less than there is": told({"shapes": [[SIZE // 2, SIZE // 2]], "film": WHOLE, "seconds": 0}),
    "an array too many": told({"shapes": [[SIZE, SIZE], [SIZE, SIZE]], "film": WHOLE, "seconds": 0}, 2 * SQUARE),
    "sides below zero": told({"shapes": [[-SIZE, -SIZE]], "film": WHOLE, "seconds": 0}),
    "sides that are none": told({"shapes": [["a", None]], "film": WHOLE, "seconds": 0}),
    "time that is none": told({"shapes": [[SIZE, SIZE]], "film": WHOLE, "seconds": "soon"}),
    "no film": told({"shapes": [[SIZE, SIZE]], "seconds": 0.0}),
    "a film without height": told({"shapes": [[SIZE, SIZE]], "film": [0.5, 0.5, 0, 1], "seconds": 0.0}),
    "a film beyond the picture": told({"shapes": [[SIZE, SIZE]], "film": [0, 1, 0, 1.5], "seconds": 0.0}),
    "a film of no numbers": told({"shapes": [[SIZE, SIZE]], "film": [0, 1, 0, float("nan")], "seconds": 0.0}),
    "a film with five sides": told({"shapes": [[SIZE, SIZE]], "film": [0, 1, 0, 1, 1], "seconds": 0.0}),
    "an error that is none": told({"error": "SystemExit", "message": ""}, b""),
    "an error of others": told({"error": "DataNotFoundError", "message": ""}, b""),
    "an error without words": told({"error": "ImageError"}, b""),
}


def liar(lie: str) -> str:
    """A program that says it is ready, and then to whatever comes the bytes of an expression."""
    return (
        f"import sys\nout = sys.stdout.buffer\nout.write({told({}, b'')!r})\nout.flush()\nsys.stdin.buffer.read(8)\n"
        f"out.write({lie})\nout.flush()"
    )


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_what_comes_out_of_a_process_is_not_believed(
    own: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch, lie: bytes
) -> None:
    monkeypatch.setattr(module, "_PROGRAM", liar(repr(lie)))
    with pytest.raises(DecoderLost):
        own().decode(b"file")


@pytest.mark.parametrize(("side", "believed"), [(PREVIEW, True), (PREVIEW + 1, False)])
def test_nor_is_more_taken_in_than_there_can_be(
    own: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch, side: int, believed: bool
) -> None:
    header = json.dumps({"shapes": [[SIZE, SIZE], [side, side]], "film": WHOLE, "seconds": 0}).encode()
    count = SIZE**2 + side**2
    monkeypatch.setattr(module, "_PROGRAM", liar(f"{LENGTHS.pack(len(header), count) + header!r} + bytes({count})"))
    if believed:
        found = own().decode(b"file", picture=True)
        assert found.picture is not None
        assert found.picture.shape == (side, side)
    else:
        with pytest.raises(DecoderLost):
            own().decode(b"file", picture=True)


# === The process by itself ===


def run(seconds: float = 60.0) -> subprocess.Popen[bytes]:
    settings = {"size": SIZE, "limits": {}, "memory": 256 * 2**20, "seconds": seconds, "path": sys.path}
    command = [sys.executable, "-P", "-c", module._PROGRAM, json.dumps(settings)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_it_ends_when_the_server_has_gone() -> None:
    with run() as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.read(LENGTHS.size + 2) == told({}, b"")
        process.stdin.close()
        assert process.wait() == 0


def test_it_ends_over_a_file_even_when_the_server_has_gone() -> None:
    """The system's clock ends it: here one that is set to less than the file needs."""
    header, content = b'{"picture": false}', blank_png(6_000, 6_000)
    with run(seconds=-0.999) as process:
        process.communicate(LENGTHS.pack(len(header), len(content)) + header + content)
    assert process.returncode == -signal.SIGALRM


@LINUX
def test_it_may_write_no_file_and_takes_only_its_memory(shared: Decoder, x_ray: bytes) -> None:
    shared.decode(x_ray)
    lines = Path(f"/proc/{shared.pid}/limits").read_text().splitlines()
    limits = {line[:26].strip(): line[26:].split()[0] for line in lines[1:]}
    assert limits["Max file size"] == limits["Max core file size"] == "0"
    assert 256 * 2**20 <= int(limits["Max address space"]) < 2**31


def test_it_imports_nothing_from_the_folder_where_the_server_was_started(
    own: Callable[..., Decoder], x_ray: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("json", "numpy", "PIL", "pneumolib"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert own().decode(x_ray).square.shape == (SIZE, SIZE)
