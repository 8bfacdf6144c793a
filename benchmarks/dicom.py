"""How long does the door take for a DICOM radiograph, in each transfer syntax that it reads?

One synthetic CR image of usual size, 2500 x 2000 pixels of 12 bits with the noise of a detector, written in each
transfer syntax; one thread. Timed are the whole picture (`decode`), a square of 160 pixels
(`load_square`), and the header alone. The syntaxes take turns, so that other work on the machine hits all alike:
compare the ratios, or take the least time of each. Half a minute:

    python benchmarks/dicom.py --rounds 15 --json benchmarks/results/dicom.json

The pixels of lossless syntaxes are compared with those that were written; `max_abs_diff` is in gray levels.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from pneumolib.data.dicom import facts
from pneumolib.data.images import decode, load_square
from pneumolib.data.radiograph import draw

HEIGHT, WIDTH, BITS = 2500, 2000, 12
NOISE = 6.0  # of 4096 values, standard deviation
SIZE = 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    values = radiograph()
    files = {name: written(values, *way) for name, way in ways(values).items()}
    gray = np.rint(values * 255.0 / (2**BITS - 1)).astype(int)
    result = {
        "image": {"height": HEIGHT, "width": WIDTH, "bits": BITS, "source": "drawn, with noise"},
        "size": SIZE,
        "machine": {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "python": platform.python_version()},
        "versions": {name: importlib.metadata.version(name) for name in ("pydicom", "imagecodecs", "pillow", "numpy")},
        "rounds": arguments.rounds,
        "syntaxes": measure(files, gray, arguments.rounds),
    }
    show(result)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written: {arguments.json}")


def radiograph() -> np.ndarray:
    """Return a synthetic radiograph as a device stores it, uint16 ``[2500, 2000]``."""
    half = Image.fromarray(draw("normal", 1, size=(HEIGHT // 2, WIDTH // 2)))
    smooth = np.asarray(half.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) * 16.0
    noise = np.random.default_rng(0).normal(0, NOISE, smooth.shape)
    return np.clip(np.rint(smooth + noise), 0, 2**BITS - 1).astype(np.uint16)


def ways(values: np.ndarray) -> dict[str, tuple[str, bytes | None]]:
    """Return the transfer syntax and, where it has one, the codestream, by name."""
    eight = io.BytesIO()
    Image.fromarray((values >> 4).astype(np.uint8)).save(eight, "JPEG", quality=90)
    jpeg, jls, j2k = imagecodecs.jpeg8_encode, imagecodecs.jpegls_encode, imagecodecs.jpeg2k_encode
    return {
        "Implicit VR Little Endian": (uid.ImplicitVRLittleEndian, None),
        "Explicit VR Little Endian": (uid.ExplicitVRLittleEndian, None),
        "Explicit VR Big Endian": (uid.ExplicitVRBigEndian, None),
        "RLE Lossless": (uid.RLELossless, b""),
        "JPEG Baseline, 8 bits": (uid.JPEGBaseline8Bit, eight.getvalue()),
        "JPEG Extended": (uid.JPEGExtended12Bit, jpeg(values, level=90, bitspersample=BITS)),
        "JPEG Lossless": (uid.JPEGLossless, jpeg(values, lossless=True, predictor=4, bitspersample=BITS)),
        "JPEG Lossless SV1": (uid.JPEGLosslessSV1, jpeg(values, lossless=True, predictor=1, bitspersample=BITS)),
        "JPEG-LS Lossless": (uid.JPEGLSLossless, jls(values)),
        "JPEG-LS Near-lossless": (uid.JPEGLSNearLossless, jls(values, level=2)),
        "JPEG 2000 Lossless": (uid.JPEG2000Lossless, j2k(values, codecformat="j2k", bitspersample=BITS, level=0)),
        "JPEG 2000": (uid.JPEG2000, j2k(values, codecformat="j2k", bitspersample=BITS, level=55)),
    }


def written(values: np.ndarray, syntax: str, frame: bytes | None) -> bytes:
    shallow = syntax == uid.JPEGBaseline8Bit
    bits = 8 if shallow else BITS
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian if syntax == uid.RLELossless else syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.ComputedRadiographyImageStorage, "1.2.826.0.1.3680043.8.498.1"
    dataset.Modality, dataset.PhotometricInterpretation = "CR", "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (8 if shallow else 16), bits, bits - 1
    native = values.astype(">u2") if syntax == uid.ExplicitVRBigEndian else values
    dataset.PixelData = encapsulate([bytes(frame)]) if frame else native.tobytes()
    dataset["PixelData"].VR = "OB" if frame else "OW"
    if syntax == uid.RLELossless:
        dataset.compress(syntax, generate_instance_uid=False)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def measure(files: dict[str, bytes], gray: np.ndarray, rounds: int) -> dict[str, dict[str, Any]]:
    jobs: dict[str, Callable[[bytes], Any]] = {
        "decode": decode,
        "square": lambda content: load_square(content, SIZE),
        "header": facts,
    }
    times: dict[tuple[str, str], list[float]] = {(name, job): [] for name in files for job in jobs}
    worst = {name: int(np.abs(decode(content) - gray).max()) for name, content in files.items()}
    for _ in range(rounds):
        for name, content in files.items():
            for job, run in jobs.items():
                began = time.perf_counter()
                run(content)
                times[name, job].append((time.perf_counter() - began) * 1e3)
    return {
        name: {
            "mib": round(len(content) / 2**20, 2),
            **{f"{job}_ms": round(statistics.median(times[name, job]), 2) for job in jobs},
            **{f"{job}_ms_least": round(min(times[name, job]), 2) for job in jobs},
            "max_abs_diff": worst[name],
        }
        for name, content in files.items()
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['image']}, {result['machine']}, {result['versions']}")
    print(f"{'median (least), ms':<28}{'MiB':>7}{'picture':>18}{'square':>18}{'header':>14}{'max diff':>10}")
    for name, row in result["syntaxes"].items():
        cells = [f"{row[f'{job}_ms']:.1f} ({row[f'{job}_ms_least']:.1f})" for job in ("decode", "square", "header")]
        print(f"{name:<28}{row['mib']:>7.2f}{cells[0]:>18}{cells[1]:>18}{cells[2]:>14}{row['max_abs_diff']:>10}")


if __name__ == "__main__":
    main()
