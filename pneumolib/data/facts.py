"""What can be told of an image file without knowing what it shows: its header, its bytes, its frame, its brightness.

`file_facts` reads headers only. `look` reads each file once, decodes it once, and gives the hashes by which duplicates
are found besides; a file that cannot be read is named and left out.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.data.dicom import facts as dicom_facts
from pneumolib.data.dicom import is_dicom
from pneumolib.data.duplicates import PerceptualHash, perceptual_hash
from pneumolib.data.images import FORMATS, _warnings_held_back, load_square
from pneumolib.errors import ImageError, MissingExtraError, PneumolibError

if TYPE_CHECKING:
    import pandas as pd

    from pneumolib.data.dataset import ImageSet, Record
    from pneumolib.data.sources import Source

SIDE = 128  # pixels: the square that brightness, frame and perceptual hash are taken from
STRIP = 8  # pixels: how wide the frame of that square is
PIECES = 8  # of each side of the frame
SMALL = 16  # pixels: side of the thumbnails that near duplicates are compared by
BORDER = tuple(f"border_{side}_{i}" for side in ("top", "bottom", "left", "right") for i in range(1, PIECES + 1))
IDENTITY = ("name", "split", "label", "subtype", "patient")
HEADER = ("format", "mode", "width", "height", "jpeg_quality", "n_bytes")

# The luminance table of the JPEG standard, ITU-T T.81 (1992), annex K.1, row by row.
_LUMINANCE = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)


def file_facts(imageset: ImageSet) -> pd.DataFrame:
    """Return one row a file, read from the headers alone: no pixel is decoded.

    Returns:
        Columns name, split, label, subtype, patient, format, mode (of Pillow: "L", "RGB", "I;16" for deep gray, ...),
        width and height in pixels, jpeg_quality (1 to 100, see `jpeg_quality`; NaN for other formats), n_bytes, aspect
        (width / height), bytes_per_megapixel.

    Raises:
        ImageError: a file is no image; the message names it.
    """
    import pandas as pd

    rows = []
    for i, record in enumerate(imageset.records):
        rows.append({**_identity(record), **_header(imageset.read(i), record.name), "n_bytes": record.n_bytes})
    return derive(pd.DataFrame(rows, columns=[*IDENTITY, *HEADER]))


@dataclass(frozen=True)
class Looked:
    """What a look at files found.

    Attributes:
        facts: a row for each file that could be read: the columns of `file_facts`, and mean and contrast (of the gray
            values 0..255, mean and standard deviation), one column for each name in `BORDER` (mean gray value of a
            piece of the frame), all from the picture stretched to 128 x 128; sha256 (of the bytes, hexadecimal) and
            perceptual_hash (16 hexadecimal digits; None where the package for it is not installed).
        thumbnails: of the same files, uint8 ``[N, 16, 16]``.
        unreadable: the name of each other file, and why it could not be read.
    """

    facts: pd.DataFrame
    thumbnails: NDArray[np.uint8]
    unreadable: tuple[tuple[str, str], ...]


def look(source: Source, records: Sequence[Record], *, progress: bool = False) -> Looked:
    """Return what the files tell; each is read and decoded once, in threads, and no picture stays in memory.

    Args:
        source: where the bytes are.
        records: which files, in the order wanted.
        progress: show a bar on a terminal, a line elsewhere.
    """
    import pandas as pd
    from tqdm import tqdm

    hasher = _hasher()
    shown = progress and sys.stderr.isatty()
    if progress and not shown:
        print(f"Reading {len(records):,} images ...", flush=True)
    rows, small, unreadable = [], [], []
    with ThreadPoolExecutor(runtime.available_cores()) as pool:
        found = tqdm(
            pool.map(lambda record: _look_at(source, record, hasher), records),
            desc="reading",
            total=len(records),
            unit="file",
            disable=not shown,
        )
        for record, seen in zip(records, found, strict=True):
            if isinstance(seen, str):
                unreadable.append((record.name, seen))
            else:
                rows.append(seen[0])
                small.append(seen[1])
    columns = [*IDENTITY, *HEADER, "mean", "contrast", *BORDER, "sha256", "perceptual_hash"]
    thumbnails = np.array(small, dtype=np.uint8).reshape(-1, SMALL, SMALL)
    return Looked(derive(pd.DataFrame(rows, columns=columns)), thumbnails, tuple(unreadable))


def jpeg_quality(table: list[int]) -> int:
    """Return the quality setting, 1 to 100, whose luminance table is nearest to `table`.

    Uses the rule of the Independent JPEG Group's library (jcparam.c), which scales the table of the standard; files of
    other encoders get the setting that loses about as much.

    Args:
        table: the 64 quantisation steps of the luminance, row by row, as Pillow gives them.

    Examples:
        >>> jpeg_quality([1] * 64)
        100
    """
    return int(np.abs(_tables() - np.asarray(table, dtype=np.float64)).sum(axis=1).argmin()) + 1


def frame(square: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean gray value of each piece of the frame, float64 ``[32]`` in 0..255, in the order of `BORDER`.

    Args:
        square: uint8 ``[128, 128]``.

    Examples:
        >>> picture = np.zeros((128, 128), np.uint8)
        >>> picture[:8] = 200
        >>> frame(picture)[:9]
        array([200., 200., 200., 200., 200., 200., 200., 200.,   0.])
    """
    strips = (square[:STRIP], square[-STRIP:], square[:, :STRIP].T, square[:, -STRIP:].T)
    return np.concatenate([strip.reshape(STRIP, PIECES, -1).mean(axis=(0, 2)) for strip in strips])


def derive(table: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that follow from others, aspect and bytes_per_megapixel, to a table of facts; return it."""
    table["jpeg_quality"] = table["jpeg_quality"].astype(float)
    table["aspect"] = table["width"] / table["height"]
    table["bytes_per_megapixel"] = table["n_bytes"] / (table["width"] * table["height"] / 1e6)
    return table


def _identity(record: Record) -> dict[str, Any]:
    return {column: getattr(record, column) for column in IDENTITY}


def _look_at(
    source: Source, record: Record, hasher: PerceptualHash | None
) -> tuple[dict[str, Any], NDArray[np.uint8]] | str:
    """Return the facts and the thumbnail of one file, or why it cannot be read."""
    try:
        content = source.read(record.name)
        # Bars too: another's network would see them, and they are what the audit asks for.
        picture = load_square(content, SIDE, bars=True)
        header = _header(content, record.name)
    except PneumolibError as error:
        return str(error).removeprefix("image: ")
    facts = {
        **_identity(record),
        **header,
        "n_bytes": len(content),
        "mean": float(picture.mean()),
        "contrast": float(picture.std()),
        **dict(zip(BORDER, frame(picture).tolist(), strict=True)),
        "sha256": hashlib.sha256(content).hexdigest(),
        "perceptual_hash": None if hasher is None else f"{hasher(picture):016x}",
    }
    block = SIDE // SMALL
    means = picture.reshape(SMALL, block, SMALL, block).mean(axis=(1, 3))
    return facts, means.round().astype(np.uint8)


def _hasher() -> PerceptualHash | None:
    try:
        return perceptual_hash()
    except MissingExtraError:
        return None


def _header(data: bytes, name: str) -> dict[str, Any]:
    from PIL import Image

    if is_dicom(data):
        try:
            return {**dicom_facts(data), "jpeg_quality": None}
        except ImageError as error:
            raise type(error)(f"{name}: {error}") from None
    try:
        with _warnings_held_back():
            # Only the header is read here; the door for pixels keeps its own limit on their number.
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{name} has no image header that can be read. Received: {error}") from error
    tables = getattr(image, "quantization", None)
    return {
        "format": image.format,
        "mode": image.mode,
        "width": image.width,
        "height": image.height,
        "jpeg_quality": jpeg_quality(tables[min(tables)]) if tables else None,
    }


@cache
def _tables() -> NDArray[np.float64]:
    base = np.array(_LUMINANCE.split(), dtype=np.float64)
    scales = [5000 // q if q < 50 else 200 - 2 * q for q in range(1, 101)]
    return np.array([np.clip((base * scale + 50) // 100, 1, 255) for scale in scales])
