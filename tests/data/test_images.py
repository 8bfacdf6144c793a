"""The one door for pixels: what comes in comes out right, and what does not come in is refused by name."""

import io
import logging
import os
import re
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile

from pneumolib.data.dataset import load_dataset
from pneumolib.data.images import BLACK, FORMATS, Film, Limits, decode, find_film, load_film, load_square, square
from pneumolib.data.radiograph import draw
from pneumolib.errors import DataError, DataNotFoundError, ImageError, ImageTooLargeError, PneumolibError

FAITHFUL = {"JPEG": {"quality": 95}, "MPO": {"quality": 95}, "WEBP": {"lossless": True}}
LOSSLESS = ("PNG", "TIFF", "BMP", "WEBP")
XRAY = draw("normal", 1, size=(96, 120))
RAMP = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (4, 1))


def encoded(image: Image.Image | np.ndarray, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, file_format, **FAITHFUL.get(file_format, {}) | options)
    return file.getvalue()


def png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """A gray PNG of any depth, as Pillow cannot write it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(values: np.ndarray, **tags: int) -> bytes:
    return encoded(values, "TIFF", tiffinfo={ExifTags.Base[name].value: value for name, value in tags.items()})


def with_tag(content: bytes, name: str, value: int) -> bytes:
    """The little-endian TIFF with another value in a tag of one 16-bit or 32-bit number."""
    entry = re.escape(struct.pack("<H", ExifTags.Base[name].value)) + b"[\x03\x04]\0\x01\0\0\0"
    new = struct.pack("<I", value)
    changed, times = re.subn(b"(" + entry + b")....", lambda found: found[1] + new, content, flags=re.DOTALL)
    assert times == 1
    return changed


def inverse_tiff(values: np.ndarray) -> bytes:
    """A TIFF in which zero is white, as radiographs often are; Pillow writes none of 16 bits."""
    return with_tag(encoded(values, "TIFF"), "PhotometricInterpretation", 0)


def animated(file_format: str) -> bytes:
    first, second, third = (Image.new("L", (8, 8), gray) for gray in (10, 100, 200))
    return encoded(first, file_format, save_all=True, append_images=[second, third])


# === What comes in ===


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("given_as", ["bytes", "str", "Path"])
def test_every_format_comes_in_from_bytes_and_from_a_path(file_format: str, given_as: str, tmp_path: Path) -> None:
    content = encoded(XRAY, file_format)
    path = tmp_path / f"xray.{file_format.lower()}"
    path.write_bytes(content)
    image = decode({"bytes": content, "str": str(path), "Path": path}[given_as])
    assert (image.dtype, image.shape) == (np.uint8, XRAY.shape)
    np.testing.assert_allclose(image.astype(int), XRAY, atol=12 if file_format == "JPEG" else 0)


def test_the_content_tells_the_format_not_the_name(tmp_path: Path) -> None:
    for name in ("xray.jpeg", "xray.dcm", "xray"):
        (tmp_path / name).write_bytes(encoded(XRAY, "PNG"))
        np.testing.assert_array_equal(decode(tmp_path / name), XRAY)


def test_a_gray_jpeg_is_what_pillow_makes_of_it() -> None:
    content = encoded(XRAY, "JPEG")
    np.testing.assert_array_equal(decode(content), np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("file_format", LOSSLESS)
@pytest.mark.parametrize(("colour", "luminance"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)])
def test_colour_becomes_luminance(file_format: str, colour: tuple[int, int, int], luminance: int) -> None:
    assert (decode(encoded(Image.new("RGB", (4, 3), colour), file_format)) == luminance).all()


def test_a_gray_image_saved_in_colour_or_for_print_stays_the_gray_image() -> None:
    gray = Image.fromarray(XRAY)
    for mode in ("RGB", "CMYK"):
        image = decode(encoded(gray.convert(mode), "JPEG"))
        np.testing.assert_allclose(image.astype(int), XRAY, atol=12)


@pytest.mark.parametrize("file_format", ["PNG", "BMP"])
def test_a_palette_is_looked_up(file_format: str) -> None:
    """The indices run against the grays, so that taking one for the other shows."""
    indices, grays = (255 - XRAY) // 64, [240, 160, 80, 0]
    picture = Image.frombytes("P", (XRAY.shape[1], XRAY.shape[0]), indices.tobytes())
    picture.putpalette([value for gray in grays for value in (gray, gray, gray)])
    np.testing.assert_array_equal(decode(encoded(picture, file_format)), np.array(grays)[indices])


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_one_bit_becomes_black_and_white(file_format: str) -> None:
    np.testing.assert_array_equal(decode(encoded(XRAY > 100, file_format)), np.where(XRAY > 100, 255, 0))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_transparent_pixels_lie_on_black(mode: str, file_format: str) -> None:
    for alpha, gray in ((0, 0), (51, 40), (255, 200)):
        picture = Image.merge("LA", [Image.new("L", (4, 3), value) for value in (200, alpha)]).convert(mode)
        if file_format == "WEBP":
            picture = picture.convert("RGBA")
        assert (decode(encoded(picture, file_format)) == gray).all()


@pytest.mark.parametrize(
    ("picture", "transparency"),
    [
        (Image.new("L", (4, 3), 200), 200),
        (Image.new("I;16", (4, 3), 50000), 50000),
        (Image.new("RGB", (4, 3), (200, 200, 200)), (200, 200, 200)),
        (Image.new("P", (4, 3), 7), 7),
    ],
    ids=lambda value: getattr(value, "mode", ""),
)
def test_a_value_that_a_png_declares_transparent_lies_on_black(picture: Image.Image, transparency: object) -> None:
    if picture.mode == "P":
        picture.putpalette([200] * 768)
    assert (decode(encoded(picture, "PNG", transparency=transparency)) == 0).all()


# === Deeper than 8 bits ===


def test_the_mean_of_16_bits_stays_the_mean() -> None:
    """Pillow's own conversion cuts everything above 255 off, and a radiograph turns white."""
    values = np.where(XRAY > 100, 132 + 60, 132 - 60).astype(np.uint16) * 257
    values[::2] = 132 * 257
    for content in (encoded(values, "PNG"), encoded(values, "TIFF")):
        np.testing.assert_array_equal(decode(content), values // 257)


@pytest.mark.parametrize(
    ("content", "top"),
    [
        (encoded(RAMP, "PNG"), 65535),
        (encoded(RAMP, "TIFF"), 65535),
        (encoded(RAMP, "TIFF", compression="tiff_lzw"), 65535),
        (encoded(Image.frombytes("I;16B", (256, 4), RAMP.astype(">u2").tobytes()), "TIFF"), 65535),
        (encoded(RAMP.astype(np.int32), "TIFF"), 65535),
        (encoded(RAMP >> 4, "PNG"), 4095),
        (encoded(RAMP >> 4, "TIFF"), 4095),
        (tiff(RAMP >> 2, MaxSampleValue=16383), 16383),
        (tiff(RAMP >> 6, MaxSampleValue=1023), 1023),
    ],
    ids=["PNG", "TIFF", "LZW", "big-endian", "32 bits", "12 bits PNG", "12 bits TIFF", "14 declared", "10 declared"],
)
def test_deep_values_are_scaled_by_the_range_that_the_file_has(content: bytes, top: int) -> None:
    expected = np.round((RAMP >> (16 - top.bit_length())) * 255.0 / top)
    image = decode(content)
    assert (image.dtype, image.shape) == (np.uint8, RAMP.shape)
    np.testing.assert_array_equal(image, expected)


def test_a_declared_range_that_the_values_exceed_is_not_believed() -> None:
    np.testing.assert_array_equal(decode(tiff(RAMP, MaxSampleValue=100)), decode(encoded(RAMP, "TIFF")))


@settings(deadline=None, max_examples=40, database=None)
@given(st.lists(st.integers(0, 65535), min_size=1, max_size=40))
def test_deep_values_keep_their_order(values: list[int]) -> None:
    image = decode(encoded(np.sort(np.array([values], np.uint16)), "PNG"))[0].astype(int)
    assert (np.diff(image) >= 0).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_in_which_zero_is_white_comes_out_as_others_do(bits: int) -> None:
    values = RAMP >> (16 - bits)
    values = values.astype(np.uint8) if bits == 8 else values
    np.testing.assert_array_equal(decode(inverse_tiff(values)), 255 - decode(encoded(values, "TIFF")))


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_fill_the_range(bits: int) -> None:
    rows = b"".join(b"\0" + bytes([value] * 2) for value in (0x00, 0xFF))
    assert decode(png(16 // bits, 2, bits, rows)).tolist() == [[0] * (16 // bits), [255] * (16 // bits)]


def test_colour_of_16_bits_is_not_cut_off() -> None:
    """A decoder that drops the lower byte is a gray level off, one that cuts at 255 would make it white."""
    _, content = cv2.imencode(".png", np.repeat(RAMP[..., None], 3, axis=2))
    np.testing.assert_allclose(decode(content.tobytes()).astype(int), RAMP / 257, atol=1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (RAMP.astype(np.int32) * 2, "beyond 16 bits.*Allowed: 0 to 65535.*values from 0 to 131070"),
        (-RAMP.astype(np.int32), "beyond 16 bits.*Allowed: 0 to 65535.*values from -65535 to 0"),
        (RAMP.astype(np.float32) / 65535, "floating-point.*Allowed: 8 or 16 bits"),
    ],
)
def test_values_without_a_known_range_are_refused(values: np.ndarray, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        decode(encoded(values, "TIFF"))


# === Orientation and frames ===

TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_orientation_is_turned_upright(file_format: str) -> None:
    for orientation, turned in TURNED.items():
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        option = {"tiffinfo" if file_format == "TIFF" else "exif": exif}
        content = encoded(XRAY, file_format, **option)
        np.testing.assert_array_equal(decode(content), turned(decode(encoded(XRAY, file_format))))


def test_an_image_that_lies_on_its_side_is_scaled_like_another() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    lying = decode(encoded(XRAY, "JPEG", exif=exif), at_least=40)
    np.testing.assert_array_equal(lying, np.rot90(decode(encoded(XRAY, "JPEG"), at_least=40), -1))
    assert lying.shape == (60, 48)


@pytest.mark.parametrize("file_format", ["TIFF", "WEBP", "PNG"])
def test_files_of_several_frames_are_refused(file_format: str) -> None:
    with pytest.raises(ImageError, match=r"image: the file holds several images\. Allowed: one\. Received: 3"):
        decode(animated(file_format))


def test_a_jpeg_with_a_preview_is_read() -> None:
    """Cameras mark such a file as MPO."""
    preview = Image.new("L", (30, 24))
    content = encoded(XRAY, "MPO", save_all=True, append_images=[preview])
    assert Image.open(io.BytesIO(content)).format == "MPO"
    np.testing.assert_array_equal(decode(content), decode(encoded(XRAY, "JPEG")))
    assert decode(content, at_least=40).shape == (48, 60)


# === Squares ===


@pytest.fixture(scope="module")
def large() -> bytes:
    return encoded(draw("viral", 2, size=(600, 760)), "JPEG", quality=90)


@pytest.mark.parametrize(
    ("at_least", "shape"),
    [(1, (75, 95)), (75, (75, 95)), (76, (150, 190)), (150, (150, 190)), (151, (300, 380)), (301, (600, 760))],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_keeps_the_pixels(
    large: bytes, at_least: int, shape: tuple[int, int]
) -> None:
    image = decode(large, at_least=at_least)
    assert (image.dtype, image.shape) == (np.uint8, shape)


@settings(deadline=None, max_examples=60, database=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 120))
def test_no_side_falls_below_what_is_asked(height: int, width: int, at_least: int) -> None:
    image = decode(encoded(np.zeros((height, width), np.uint8), "JPEG"), at_least=at_least)
    assert image.shape[0] >= min(height, at_least)
    assert image.shape[1] >= min(width, at_least)
    if min(height, width) <= at_least:
        assert image.shape == (height, width)


@pytest.mark.parametrize("size", [64, 75, 150])
def test_the_square_of_a_large_jpeg_is_close_to_that_of_the_full_image(large: bytes, size: int) -> None:
    """Measured: 3 gray levels at most, 0.3 in the mean; with half the pixels it would be 6, and 0.7."""
    np.testing.assert_array_equal(load_square(large, size), square(decode(large, at_least=2 * size), size))
    difference = np.abs(load_square(large, size).astype(int) - square(decode(large), size))
    assert difference.max() <= 5
    assert difference.mean() <= 0.42


def test_an_edge_weighs_little_more_in_a_reduced_jpeg_than_in_the_full_one() -> None:
    """A reduced JPEG ends in pixels that reach beyond the image; stretched as if they did not, they are 103 off."""
    film = np.full((641, 641), 200, np.uint8)
    film[-1], film[:, -1] = 0, 0
    content = encoded(film, "JPEG")
    assert decode(content, at_least=160).shape == (161, 161)
    np.testing.assert_allclose(load_square(content, 80).astype(int), square(decode(content), 80), atol=50)


def test_the_square_of_a_real_xray_is_close_to_that_of_the_full_image(real_data: Path) -> None:
    """Measured: 0.6 gray levels in the mean at most, bars kept; edges of the film at most a 55th of the side apart."""
    part = load_dataset(real_data).train
    for index in range(0, len(part), max(1, len(part) // 20)):
        content = part.read(index)
        size = min(decode(content).shape) // 4 - 1
        assert min(decode(content, at_least=2 * size).shape) < 4 * size
        whole = square(decode(content), size, bars=True)
        difference = np.abs(load_square(content, size, bars=True).astype(int) - whole)
        assert difference.mean() <= 0.9
        # Where a film fades into black, a reduced picture may show its edge a pixel or two off.
        np.testing.assert_allclose(load_film(content, size)[1], find_film(decode(content)), atol=1.5 / size)


def test_a_square_is_the_whole_image_stretched() -> None:
    image = np.zeros((20, 80), np.uint8)
    image[:10, 40:] = 200
    image[10:, :40] = 100
    stretched = square(image, 40)
    assert (stretched.dtype, stretched.shape) == (np.uint8, (40, 40))
    corners = stretched[[5, 5, 35, 35], [5, 35, 5, 35]]
    assert corners.tolist() == [0, 200, 100, 0]


def test_shrinking_blurs_what_is_too_fine_instead_of_picking_pixels() -> None:
    stripes = np.full((64, 64), 55, np.uint8)
    stripes[:, ::8] = 255
    np.testing.assert_allclose(square(stripes, 8)[:, 1:-1], 55 + 200 / 8, atol=1)


# === Black bars ===


@pytest.mark.parametrize("bars", [(0, 0, 0, 0), (13, 0, 0, 0), (0, 9, 0, 0), (0, 0, 30, 31), (60, 50, 7, 1)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_padding_changes_nothing_of_the_square(bars: tuple[int, int, int, int], kind: str) -> None:
    """In a JPEG, blocks that straddle the edge make it blur; measured: 9 gray levels there, 0.3 in the mean."""
    film = np.clip(XRAY, BLACK + 24, 255)
    padded = np.pad(film, [bars[:2], bars[2:]])
    wanted, found = square(film, 48), load_square(encoded(padded, kind), 48)
    difference = np.abs(found.astype(int) - wanted)
    assert difference.max() <= (0 if kind == "PNG" else 30)
    assert difference.mean() <= (0 if kind == "PNG" else 1)
    np.testing.assert_array_equal(square(padded, 48), wanted)


def test_the_film_is_where_the_square_is_from() -> None:
    film = np.full((400, 300), 90, np.uint8)
    padded = np.pad(film, [(80, 160), (60, 0)])
    expected = Film(80 / 640, 480 / 640, 60 / 360, 1.0)
    for kind, near in (("PNG", 0.0), ("JPEG", 0.01)):
        found = load_film(encoded(padded, kind), 64)[1]
        np.testing.assert_allclose(found, expected, atol=near)
        rows, columns = found.window((64, 64))
        assert (rows.start, columns.stop) == (8, 64)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_film_of_a_turned_picture_is_that_of_the_upright_one(orientation: int) -> None:
    picture = Image.fromarray(np.pad(np.full((400, 300), 90, np.uint8), [(160, 0), (0, 60)]))
    file, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture.save(file, "JPEG", exif=exif)
    squared, film = load_film(file.getvalue(), 32)
    np.testing.assert_allclose(film, find_film(decode(file.getvalue())), atol=0.01)
    assert abs(squared.astype(int) - 90).max() <= 6


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((30, 40), np.uint8),
        np.pad(np.full((9, 40), 200, np.uint8), [(11, 10), (0, 0)]),
        np.pad(np.full((30, 1), 200, np.uint8), [(0, 0), (3, 36)]),
        np.pad(np.full((20, 30), BLACK + 1, np.uint8), 0),
    ],
    ids=["all black", "a strip", "a line", "no bars"],
)
def test_what_would_leave_little_is_no_bar(image: np.ndarray) -> None:
    assert find_film(image) == Film()


def test_bars_up_to_black_are_bars_and_a_letter_in_one_keeps_it() -> None:
    image = np.full((40, 40), 99, np.uint8)
    image[:, :5], image[:, -5:] = BLACK, BLACK + 1
    assert find_film(image) == Film(left=5 / 40)
    image[20, 2] = 200
    assert find_film(image) == Film(left=2 / 40)


def test_bars_are_kept_where_that_is_asked() -> None:
    padded = np.pad(np.full((40, 20), 200, np.uint8), [(0, 0), (20, 0)])
    assert square(padded, 20, bars=True)[:, :9].max() == 0
    assert load_square(encoded(padded, "PNG"), 20, bars=True)[:, :9].max() == 0
    assert load_square(encoded(np.kron(padded, np.ones((9, 9), np.uint8)), "JPEG"), 20, bars=True)[:, :9].max() < 9
    assert square(padded, 20).min() == 200


def test_a_window_has_at_least_a_row_and_a_column() -> None:
    assert Film(0.98, 1.0, 0.0, 0.01).window((3, 4)) == (slice(2, 3), slice(0, 1))


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = np.ascontiguousarray(XRAY[:96, :96])
    assert np.shares_memory(square(image, 96), image)
    np.testing.assert_array_equal(square(image, 96), image)


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (XRAY.astype(np.float32), 8),
        (np.zeros((4, 4, 3), np.uint8), 8),
        (np.zeros((0, 4), np.uint8), 8),
        (XRAY, 0),
        (XRAY, -8),
    ],
)
def test_what_makes_no_square_is_refused(image: np.ndarray, size: int) -> None:
    with pytest.raises(DataError, match="A square is made of uint8"):
        square(image, size)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_square_without_pixels_is_the_callers_mistake_and_not_the_files(file_format: str) -> None:
    with pytest.raises(DataError, match="size 0"):
        load_square(encoded(XRAY, file_format), 0)


# === Limits ===


def claiming(file_format: str, side: int) -> bytes:
    """A small file that says it holds side x side pixels; the PNG does hold them."""
    if file_format == "PNG":
        return png(side, side, 1, bytes((side + 7) // 8 + 1) * side)
    content = encoded(XRAY, file_format)
    if file_format == "TIFF":
        return with_tag(with_tag(content, "ImageWidth", side), "ImageLength", side)
    place, header = {
        "JPEG": (content.find(b"\xff\xc0") + 5, struct.pack(">HH", side, side)),
        "BMP": (18, struct.pack("<ii", side, side)),
        "WEBP": (21, struct.pack("<I", (side - 1) | (side - 1) << 14)),
    }[file_format]
    return content[:place] + header + content[place + len(header) :]


@pytest.mark.parametrize("file_format", FORMATS)
def test_too_many_pixels_are_refused_before_they_are_decoded(file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(pytest.fail.Exception, match="decoded"):
        decode(encoded(XRAY, file_format))
    content = claiming(file_format, 12000)
    assert len(content) < 20_000
    with pytest.raises(ImageTooLargeError, match=r"Allowed: 64,000,000 pixels\. Received: 12000 x 12000"):
        decode(content)


@pytest.mark.parametrize("file_format", FORMATS)
def test_no_number_of_pixels_is_so_large_that_the_refusal_changes(file_format: str) -> None:
    """Pillow has a limit of its own, twice 89 million."""
    with pytest.raises(ImageTooLargeError, match="Allowed: 64,000,000 pixels"):
        decode(claiming(file_format, 16000))


MEMORY = """
import resource, sys
from pneumolib.data.images import decode, Limits
from pneumolib.errors import ImageTooLargeError
content = open(sys.argv[1], "rb").read()
try:
    decode(content, limits=Limits(max_pixels=10))
except ImageTooLargeError:
    pass
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode(content)
except ImageTooLargeError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """Decoded, it would take 144 MB."""
    (tmp_path / "bomb.png").write_bytes(claiming("PNG", 12000))
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "bomb.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert int(done.stdout) * (1 if sys.platform == "darwin" else 1024) < 10 * 2**20


def test_the_limit_on_pixels_is_the_last_number_allowed() -> None:
    content = encoded(XRAY, "PNG")
    assert decode(content, limits=Limits(max_pixels=XRAY.size)).shape == XRAY.shape
    with pytest.raises(ImageTooLargeError, match="120 x 96"):
        load_square(content, 8, limits=Limits(max_pixels=XRAY.size - 1))


def test_too_many_bytes_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, path = encoded(XRAY, "PNG"), tmp_path / "xray.png"
    path.write_bytes(content)
    assert decode(path, limits=Limits(max_bytes=len(content))).shape == XRAY.shape
    small = Limits(max_bytes=len(content) - 1)
    said = f"Allowed: {small.max_bytes:,} bytes. Received: {len(content):,} bytes"
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    for source in (content, path):
        with pytest.raises(ImageTooLargeError, match=said):
            decode(source, limits=small)


# === What does not come in ===


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty.*Received: 0 bytes"),
        (b"%PDF-1.7\n", "no image of a format that is read.*starts '%PDF-1.7'"),
        (b"Dear colleague, the X-ray", "no image of a format that is read.*starts 'Dear col'"),
        (encoded(XRAY, "GIF"), "no image of a format that is read.*starts 'GIF87a"),
        (animated("GIF"), "no image of a format that is read.*starts 'GIF8"),
        (encoded(XRAY, "PPM"), "no image of a format that is read"),
        (encoded(XRAY, "JPEG2000"), "no image of a format that is read"),
        (b"\xff\xd8\xff", "header is damaged.*Received: 3 bytes"),
        (b"\x89PNG\r\n\x1a\n", "header is damaged.*Received: 8 bytes"),
        (encoded(XRAY, "JPEG")[:700], "damaged or cut off.*Received: 700 bytes"),
        (encoded(XRAY, "PNG")[:700], "damaged or cut off.*Received: 700 bytes"),
    ],
    ids=[
        "empty",
        "PDF",
        "text",
        "GIF",
        "moving GIF",
        "PPM",
        "JPEG 2000",
        "start of JPEG",
        "start of PNG",
        "cut JPEG",
        "cut PNG",
    ],
)
def test_other_files_are_refused_by_name(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "scan (3).jpeg"
    path.write_bytes(content)
    for source, name in ((content, "image: "), (path, "scan (3).jpeg: ")):
        with pytest.raises(ImageError, match=said) as caught:
            decode(source)
        assert name in str(caught.value)
        assert "JPEG, PNG, TIFF, BMP, WebP or DICOM" in str(caught.value)


def test_a_path_without_a_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"none\.png: no such file.*Allowed: the path of a JPEG"):
        decode(tmp_path / "none.png")
    with pytest.raises(DataNotFoundError, match="is a folder, not a file"):
        decode(str(tmp_path))
    with pytest.raises(DataError, match=r"bytes or as a path\. Received: ndarray"):
        decode(XRAY)  # type: ignore[arg-type]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_that_ends_too_early_is_refused(file_format: str) -> None:
    content = encoded(XRAY, file_format)
    for part in (0.01, 0.1, 0.5, 0.9):
        with pytest.raises(ImageError, match=r"Received"):
            decode(content[: int(len(content) * part)])


@pytest.mark.parametrize("file_format", FORMATS)
def test_wherever_a_file_ends_the_answer_is_a_refusal_or_the_image(file_format: str) -> None:
    """What follows the pixels may be missing, such as the end mark of a PNG; then the image is the whole one."""
    content = encoded(XRAY, file_format)
    whole, refused = decode(content), 0
    cuts = {*range(0, len(content), 23), *range(max(0, len(content) - 40), len(content))}
    for cut in cuts:
        try:
            np.testing.assert_array_equal(decode(content[:cut]), whole)
        except ImageError:
            refused += 1
    assert refused > 0.8 * len(cuts)


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("TIFF", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": False}),
    ],
    ids=["JPEG", "progressive", "PNG", "TIFF", "BMP", "WebP", "lossy WebP"],
)
def test_random_damage_ends_in_an_array_or_in_our_error_and_in_silence(
    file_format: str, options: dict, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    content, random = encoded(XRAY, file_format, **options), np.random.default_rng(0)
    refused = 0
    for turn in range(300):
        damaged = bytearray(content)
        # Half of the damage hits the headers, which say how to read the rest.
        for place in random.integers(0, len(content) if turn % 2 else 120, random.integers(1, 4)):
            damaged[place] = random.integers(256)
        try:
            image = decode(bytes(damaged), at_least=20 if turn % 3 else None)
            assert image.dtype == np.uint8
            assert image.ndim == 2
        except PneumolibError:
            refused += 1
    assert refused
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@settings(deadline=None, max_examples=150, database=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM", b"RIFF"]), st.binary()
)
def test_noise_behind_a_right_beginning_is_refused(start: bytes, noise: bytes) -> None:
    with pytest.raises(ImageError):
        decode(start + noise)


# === In silence ===

# An EXIF block that ends in the middle of its first entry.
HALF_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0"


def test_damaged_metadata_are_no_reason_to_warn_or_to_refuse() -> None:
    content = encoded(XRAY, "JPEG", exif=HALF_EXIF)
    with pytest.warns(UserWarning, match="EXIF"):
        Image.open(io.BytesIO(content)).getexif()
    np.testing.assert_array_equal(decode(content), decode(encoded(XRAY, "JPEG")))


def test_decoding_in_threads_leaves_the_warnings_of_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread begins, another begins, the first ends, the second ends: the filters are those of before."""
    content, real_open = encoded(XRAY, "PNG"), Image.open
    second_began, first_ended = threading.Event(), threading.Event()

    def slow_open(*args: object, **kwargs: object) -> Image.Image:
        if threading.current_thread().name == "first":
            second.start()
            second_began.wait(5)
        else:
            second_began.set()
            first_ended.wait(5)
        return real_open(*args, **kwargs)

    before = list(warnings.filters)
    first = threading.Thread(target=decode, args=(content,), name="first")
    second = threading.Thread(target=decode, args=(content,), name="second")
    monkeypatch.setattr(Image, "open", slow_open)
    first.start()
    first.join()
    first_ended.set()
    second.join()
    after = list(warnings.filters)
    warnings.filters[:] = before
    assert after == before
