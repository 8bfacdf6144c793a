"""Files that occur twice: byte for byte, or as one picture that was saved anew.

A perceptual hash is 64 bits of the coarse structure of a picture. Copies of one picture, saved anew or resized, differ
in few bits. The reverse does not hold: chest X-rays resemble each other so much that different children come as near.
So each pair that is near by hash is compared once more, by the correlation of two thumbnails. On this data set, all 193
pairs within 4 bits are of different children, with correlations up to .982; JPEG files saved anew at quality 30, at
half the size, or through another gray curve (gamma .8) have .996 and more. Cropped or turned copies are not found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pneumolib.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

NEAR = 4  # bits of 64 in which the hashes of near duplicates may differ
SAME = 0.99  # correlation of thumbnails from which a near pair most likely is one picture
MAX_PAIRS = 10_000  # that are listed: a folder of blank pictures would give millions
_AT_ONCE = 4_000_000  # distances in memory
PerceptualHash = Callable[[NDArray[np.uint8]], int]


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of files with different bytes whose pictures look alike, nearest first.

    Attributes:
        pairs: at most 10,000 rows, with the columns a and b (names), distance (0 to 64 bits), correlation (of the
            thumbnails, -1 to 1), same_picture (most likely: correlation .99 and more), across_splits, across_labels
            and same_patient (bool).
        n: how many pairs there are.
        distance: up to which pairs were looked for, in bits.
    """

    pairs: pd.DataFrame
    n: int
    distance: int


def perceptual_hash() -> PerceptualHash:
    """Return the function that gives the 64-bit perceptual hash (pHash, by `imagehash`) of a picture uint8 ``[H, W]``.

    Raises:
        MissingExtraError: the package `imagehash` is not installed.

    Examples:
        >>> ramp = np.tile(np.arange(128, dtype=np.uint8), (128, 1))
        >>> (perceptual_hash()(ramp) ^ perceptual_hash()(ramp // 2)).bit_count() <= NEAR
        True
    """
    try:
        import imagehash
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Looking for near duplicates needs a package that is not installed: {error.name}. "
            "Install the extra: pip install 'pneumolib[audit]'"
        ) from error
    from PIL import Image

    def hashed(picture: NDArray[np.uint8]) -> int:
        bits = imagehash.phash(Image.fromarray(picture)).hash
        return int.from_bytes(np.packbits(bits).tobytes(), "big")

    return hashed


def exact_duplicates(facts: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each file that another one equals byte for byte.

    Args:
        facts: from `facts.look`; the columns name, split, label, patient and sha256 are used.

    Returns:
        Columns group (int, from 1), name, split, label, patient; in the order of groups, then of `facts`.
    """
    twice = facts[facts["sha256"].duplicated(keep=False)]
    groups = twice.groupby("sha256", sort=False).ngroup() + 1
    table = twice[["name", "split", "label", "patient"]].copy()
    table.insert(0, "group", groups.astype(int))
    return table.sort_values("group", kind="stable").reset_index(drop=True)


def near_duplicates(facts: pd.DataFrame, thumbnails: NDArray[np.uint8], distance: int = NEAR) -> NearDuplicates:
    """Return the pairs of files that look alike and are not the same bytes; of equal files the first stands for all.

    All pairs are compared, in blocks of bounded memory: a tenth of a second for 6,000 files, half a minute for 100,000.

    Args:
        facts: from `facts.look`; the columns name, split, label, patient, sha256 and perceptual_hash are used.
        thumbnails: from `facts.look`, uint8 ``[N, 16, 16]``.
        distance: how many of the 64 bits may differ.

    Raises:
        MissingExtraError: the facts hold no perceptual hashes, because `imagehash` was not installed.
    """
    import pandas as pd

    if facts["perceptual_hash"].isna().any():
        raise MissingExtraError(
            "These files were read without the package imagehash, so near duplicates cannot be looked for. "
            "Install the extra, and read them again: pip install 'pneumolib[audit]'"
        )
    unique = np.flatnonzero(~facts["sha256"].duplicated())
    files = facts.iloc[unique]
    hashes = np.array([int(text, 16) for text in files["perceptual_hash"]], dtype=np.uint64)
    a, b, distances, n = _pairs(hashes, distance)
    correlation = _correlation(thumbnails[unique[a]], thumbnails[unique[b]])

    def across(column: str) -> NDArray[np.bool_]:
        codes = pd.factorize(files[column])[0]
        return np.asarray(codes[a] != codes[b])

    names = files["name"].to_numpy(dtype=object)
    pairs = pd.DataFrame(
        {
            "a": names[a],
            "b": names[b],
            "distance": distances,
            "correlation": correlation,
            "same_picture": correlation >= SAME,
            "across_splits": across("split"),
            "across_labels": across("label"),
            "same_patient": ~across("patient"),
        }
    )
    return NearDuplicates(pairs, n, distance)


def _correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the correlation of each thumbnail with its partner, float64 ``[N]``; where one is blank, 1 if both are."""
    x, y = (t - t.mean(axis=(1, 2), keepdims=True) for t in (a, b))
    power_x, power_y = ((t**2).sum(axis=(1, 2)) for t in (x, y))
    power = np.sqrt(power_x * power_y)
    known = power > 0
    blank = (power_x == power_y).astype(np.float64)
    return np.where(known, (x * y).sum(axis=(1, 2)) / np.where(known, power, 1), blank)


def _pairs(hashes: NDArray[np.uint64], limit: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64], int]:
    """Return both indices and the distance of the nearest pairs within the limit, sorted, and the number of all."""
    empty = np.empty((0, 3), np.intp)
    best, n = empty, 0
    step = max(1, _AT_ONCE // max(1, len(hashes)))
    for start in range(0, len(hashes), step):
        apart = np.bitwise_count(hashes[start : start + step, None] ^ hashes[None, start:])
        i, j = np.nonzero(apart <= limit)
        once = j > i
        i, j = i[once], j[once]
        n += len(i)
        best = np.concatenate([best, np.column_stack([apart[i, j].astype(np.intp), i + start, j + start])])
        if len(best) > MAX_PAIRS:
            best = best[np.argsort(best[:, 0], kind="stable")[:MAX_PAIRS]]
    best = best[np.lexsort((best[:, 2], best[:, 1], best[:, 0]))]
    return best[:, 1], best[:, 2], best[:, 0].astype(np.int64), n
