"""Which library should decode the JPEGs: Pillow, OpenCV, simplejpeg, PyTurboJPEG or TensorFlow?

Two jobs, from the bytes of X-rays of full size: the whole image in gray, and a square of 160 pixels. One
thread; the stretch to the square is the same for all, so that only the decoders differ. They take turns, image by
image, so that other work on the machine hits all alike: compare the ratios. Three minutes:

    python benchmarks/decoding.py --data chest_xray.zip --rounds 7 --json benchmarks/results/decoding.json

Pillow was chosen. It is not the fastest: OpenCV and simplejpeg give the very same pixels in a few per cent less time
when they decode at the same scale, and in a fifth less where the whole image is wanted; TensorFlow is no faster. But
the scale matters more than the library: decoding at a half, a quarter or an eighth, as long as twice the square
remains, saves Pillow two fifths of its time. What the others could save then is a fraction of a millisecond an image,
paid once, as squares are stored: too little for a second decoder, with errors, limits and orientation of its own.
simplejpeg reads no other format, and OpenCV does not tell an image's size before it decodes it.

The reduced scale costs a fraction of a gray level in the mean. Where a side is no multiple of the scale, the reduced
image reaches a little beyond the full one; `pneumolib.data.images` takes that into account, which halves the greatest
difference. OpenCV's fixed quarter and eighth are faster, because they take less than twice the square from smaller
X-rays; those lose detail.

One thing speaks for simplejpeg. All refuse a file that is cut in half; but of files with 4 KiB of zeros in the middle,
all but one slip through the other libraries, which make something up (OpenCV and TensorFlow print a line, Pillow
nothing). simplejpeg refuses every one.

simplejpeg and PyTurboJPEG are no dependencies of the package: ``pip install simplejpeg PyTurboJPEG`` first; what is
missing is left out, as is PyTurboJPEG where no libturbojpeg is installed, which it does not bring.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, features

from pneumolib.config import environment
from pneumolib.data.images import decode, load_square, square
from pneumolib.data.radiograph import SUBTYPES, draw
from pneumolib.data.sources import open_source

SIZE = 160
DRAWN = 24  # drawn at full size where there are no real files: each takes a second
REFERENCE, DRAFT, DOOR = "Pillow", "Pillow, draft", "pneumolib"
LIBRARIES = {"simplejpeg": "simplejpeg", "PyTurboJPEG": "turbojpeg", "tensorflow": "tensorflow"}  # may be missing

Decoder = Callable[[bytes], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder or a zip; left out: PNEUMOLIB_DATA, then drawn X-rays of full size")
    parser.add_argument("--images", type=int, default=120, help="take no more than that many, evenly spaced")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    source, files = read(arguments.data or environment().data, arguments.images)
    squares, wholes, left_out = competitors()
    result = {
        "images": describe(source, files),
        "size": SIZE,
        "machine": {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "python": platform.python_version()},
        "versions": versions(),
        "left_out": left_out,
        "rounds": arguments.rounds,
        "square": compare(squares, files, arguments.rounds, DRAFT),
        "whole": compare(wholes, files, arguments.rounds, REFERENCE),
        "damaged": {kind: {name: fate(wholes[name], files, kind) for name in wholes} for kind in DAMAGES},
    }
    show(result)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written: {arguments.json}")


def read(data: str | None, most: int) -> tuple[str, list[bytes]]:
    """Return a word on the source, and the files' bytes: reading them from disk is not what is compared."""
    if data in (None, "kaggle", "phantom"):
        return "drawn", [drawn(seed) for seed in range(min(most, DRAWN))]
    source = open_source(data)
    names = [name for name in source.names() if name.lower().endswith((".jpeg", ".jpg"))]
    chosen = np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).astype(int))
    return "phantom" if source.phantom else "X-rays", [source.read(names[i]) for i in chosen]


def drawn(seed: int) -> bytes:
    """Return a synthetic X-ray as JPEG, in one of the sizes that the real data set has."""
    file = io.BytesIO()
    height, width = ((720, 1100), (1000, 1350), (1400, 1700))[seed % 3]
    pixels = draw(SUBTYPES[seed % len(SUBTYPES)], seed, size=(height, width))
    Image.fromarray(pixels).save(file, "JPEG", quality=95 if seed % 2 else 75)
    return file.getvalue()


# === The candidates ===


def competitors() -> tuple[dict[str, Decoder], dict[str, Decoder], dict[str, str]]:
    """Return the decoders that end at the square, those that end at the whole image, and what is missing, and why.

    All of them share `square`, so that nothing but the decoder differs.
    """
    cv2.setNumThreads(1)
    whole: dict[str, Decoder] = {REFERENCE: by_pillow, "OpenCV": by_opencv(cv2.IMREAD_GRAYSCALE), DOOR: decode}
    small: dict[str, Decoder] = {DRAFT: by_draft, "OpenCV, scale as draft": by_opencv_as_draft}
    for scale in (2, 4, 8):
        small[f"OpenCV, 1/{scale}"] = by_opencv(getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{scale}"))
    left_out = {}
    for name, module in LIBRARIES.items():
        if importlib.util.find_spec(module) is None:
            left_out[name] = "not installed"
            continue
        try:
            whole[name], scaled = OPTIONAL[name]()
            small.update({f"{name}, {way}": decoder for way, decoder in scaled.items()})
        except (OSError, RuntimeError) as error:
            left_out[name] = str(error).partition(".")[0]
    squares = {name: squared(decoder) for name, decoder in {**whole, **small}.items() if name != DOOR}
    squares[DOOR] = lambda content: load_square(content, SIZE)
    return squares, whole, left_out


def squared(decoder: Decoder) -> Decoder:
    return lambda content: square(decoder(content), SIZE)


def scale_of(content: bytes) -> int:
    """Return 8, 4, 2 or 1: the scale that the door takes, the smallest one that keeps twice the square."""
    with Image.open(io.BytesIO(content)) as picture:
        shorter = min(picture.size)
    return next(scale for scale in (8, 4, 2, 1) if shorter // scale >= 2 * SIZE or scale == 1)


def by_pillow(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("L"))


def by_draft(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        ratio = 2 * SIZE / min(picture.size)
        if ratio < 1:
            picture.draft(None, (round(picture.width * ratio), round(picture.height * ratio)))
        return np.asarray(picture.convert("L"))


def by_opencv(flag: int) -> Decoder:
    def one(content: bytes) -> np.ndarray:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
        if image is None:
            raise ValueError("OpenCV returned None")
        return image

    return one


def by_opencv_as_draft(content: bytes) -> np.ndarray:
    scale = scale_of(content)
    return by_opencv(getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{scale}", cv2.IMREAD_GRAYSCALE))(content)


def by_simplejpeg() -> tuple[Decoder, dict[str, Decoder]]:
    import simplejpeg

    def at(content: bytes, height: int, width: int) -> np.ndarray:
        return simplejpeg.decode_jpeg(content, "GRAY", min_height=height, min_width=width)[..., 0]

    def as_draft(content: bytes) -> np.ndarray:
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
        scale = scale_of(content)
        return at(content, -(-height // scale), -(-width // scale))

    return lambda content: at(content, 0, 0), {
        "scale as draft": as_draft,
        "any eighth": lambda content: at(content, 2 * SIZE, 2 * SIZE),
    }


def by_turbojpeg() -> tuple[Decoder, dict[str, Decoder]]:
    import turbojpeg

    library = turbojpeg.TurboJPEG()  # raises where no libturbojpeg is installed: the package brings none

    def at(content: bytes, scale: int) -> np.ndarray:
        return library.decode(content, pixel_format=turbojpeg.TJPF_GRAY, scaling_factor=(1, scale))[..., 0]

    return lambda content: at(content, 1), {"scale as draft": lambda content: at(content, scale_of(content))}


def by_tensorflow() -> tuple[Decoder, dict[str, Decoder]]:
    from pneumolib import runtime

    tf = runtime.tensorflow()

    def at(content: bytes, scale: int) -> np.ndarray:
        return tf.io.decode_jpeg(content, channels=1, ratio=scale).numpy()[..., 0]

    return lambda content: at(content, 1), {"scale as draft": lambda content: at(content, scale_of(content))}


OPTIONAL = {"simplejpeg": by_simplejpeg, "PyTurboJPEG": by_turbojpeg, "tensorflow": by_tensorflow}


# === The measurement ===


def compare(decoders: dict[str, Decoder], files: list[bytes], rounds: int, unit: str) -> dict[str, dict[str, Any]]:
    """Time the decoders image by image in turn, so that other work on the machine hits all alike.

    A ratio is the median, over images and rounds, of a decoder's time to that of `unit`; the ratio of totals, in which
    large images count for more, compares the sums of each image's median.
    """
    names = list(decoders)
    times = {name: np.zeros((rounds, len(files))) for name in names}
    worst, means = dict.fromkeys(names, 0), {name: [] for name in names}
    for i, content in enumerate(files):
        expected = decoders[REFERENCE](content).astype(int)
        for name in names:
            difference = np.abs(decoders[name](content) - expected)
            worst[name] = max(worst[name], int(difference.max()))
            means[name].append(float(difference.mean()))
        for round_ in range(rounds):
            # Who comes first finds the bytes out of the cache: each does once in a while.
            first = (i + round_) % len(names)
            for name in names[first:] + names[:first]:
                began = time.perf_counter()
                decoders[name](content)
                times[name][round_, i] = (time.perf_counter() - began) * 1e3
    typical = {name: np.median(times[name], axis=0) for name in names}
    return {
        name: {
            "ms": round(float(np.median(times[name])), 3),
            "ratio": round(float(np.median(times[name] / times[unit])), 3),
            "ratio_by_round": [round(float(np.median(ratios)), 3) for ratios in times[name] / times[unit]],
            "ratio_of_totals": round(float(typical[name].sum() / typical[unit].sum()), 3),
            "max_abs_diff": worst[name],
            "mean_abs_diff": round(statistics.mean(means[name]), 3),
        }
        for name in names
    }


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


def holed(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(4096) + content[middle + 4096 :]


DAMAGES = {"cut in half": halved, "4 KiB of zeros inside": holed}


def fate(decoder: Decoder, files: list[bytes], kind: str) -> dict[str, int]:
    """Count how many damaged files are refused; of the others, an image comes back whose end is made up."""
    refused, printed = 0, [0]
    with count_output(printed):
        for content in files:
            try:
                decoder(DAMAGES[kind](content))
            except Exception:  # each library has its own
                refused += 1
    return {"refused": refused, "read": len(files) - refused, "bytes_printed": printed[0]}


@contextlib.contextmanager
def count_output(count: list[int]) -> Iterator[None]:
    """Count what is written to the two standard streams, by Python or by native code."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        saved = os.dup(1), os.dup(2)
        os.dup2(held.fileno(), 1)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in enumerate(saved, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
        count[0] = held.seek(0, io.SEEK_END)


def describe(source: str, files: list[bytes]) -> dict[str, Any]:
    shapes, modes = [], []
    for content in files:
        with Image.open(io.BytesIO(content)) as picture:
            shapes.append(picture.size)
            modes.append(picture.mode)
    megapixels = [round(width * height / 1e6, 2) for width, height in shapes]
    return {
        "source": source,
        "files": len(files),
        "modes": {mode: modes.count(mode) for mode in sorted(set(modes))},
        "megapixels": {"least": min(megapixels), "median": statistics.median(megapixels), "most": max(megapixels)},
        "kib_median": round(statistics.median(len(content) for content in files) / 1024),
    }


def versions() -> dict[str, str]:
    """Return the versions of the libraries, and of the JPEG library in Pillow and OpenCV."""
    found = {}
    for name in ("pillow", "opencv-python-headless", *LIBRARIES):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    found["libjpeg-turbo of pillow"] = str(features.version("libjpeg_turbo"))
    build = [line for line in cv2.getBuildInformation().splitlines() if line.strip().startswith("JPEG:")]
    found["JPEG of OpenCV"] = build[0].split(":", 1)[1].split("/")[-1].strip() if build else "unknown"
    return found


def show(result: dict[str, Any]) -> None:
    print(f"{result['images']}, {result['machine']}, left out: {result['left_out'] or 'nothing'}")
    for job, unit in (("square", DRAFT), ("whole", REFERENCE)):
        print(f"{job + ', ratio to ' + unit:<34}{'ms':>9}{'ratio':>8}{'totals':>8}{'max':>6}{'mean':>8}")
        for name, row in result[job].items():
            print(f"  {name:<32}{row['ms']:>9.2f}{row['ratio']:>8.2f}{row['ratio_of_totals']:>8.2f}", end="")
            print(f"{row['max_abs_diff']:>6}{row['mean_abs_diff']:>8.3f}")
    for kind, fates in result["damaged"].items():
        for name, counts in fates.items():
            print(f"{kind}, {name}: {counts}")


if __name__ == "__main__":
    main()
