"""Two validation parts out of train, both by patient: a random one, and one that is as unlike train as the test set.

The 16 official validation images are too few to choose anything with, and a random part of train is nearly solved
(AUC above .995), because train's own defects reach into it. So there are two parts:

* ``val`` is random, stratified over normal, bacterial and viral, patients kept whole. It answers: does it learn?
* ``shifted`` stands in for the test set, which must not be looked at. The official parts are blocks of identity
  numbers: test holds IM 1-111, NORMAL2-IM 7-381, bacteria 78-175, virus 1-79 and 1608-1685, and no patient of train
  has a number in them, but for virus 1609. Where numbers were given in the order of collection, the patients of train
  whose numbers are nearest to those blocks are also the nearest in time and in practice. `shifted_images` changes
  their pixels besides: encoding, resolution, frame, contrast and brightness, as another machine would give them. It
  answers: does it last?

A model chosen on both has to be good at the first without leaning on what breaks in the second.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pneumolib import runtime
from pneumolib.config import environment
from pneumolib.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from pneumolib.data.dataset import ImageSet

_Array = np.ndarray[Any, np.dtype[Any]]

TEST_BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {  # first and last identity number of the official test set
    "IM": ((1, 111),),
    "NORMAL2-IM": ((7, 381),),
    "bacteria": ((78, 175),),
    "virus": ((1, 79), (1608, 1685)),
}
PARTS = ("train", "val", "shifted")


@dataclass(frozen=True)
class Split:
    """Three parts of train that share no patient; `note` says how `shifted` was chosen."""

    train: ImageSet
    val: ImageSet
    shifted: ImageSet
    seed: int
    note: str

    def parts(self) -> dict[str, ImageSet]:
        """Return the three parts by name."""
        return {"train": self.train, "val": self.val, "shifted": self.shifted}

    def proof(self) -> dict[str, dict[str, int]]:
        """Count the images and the patients of each part, and the patients that any two share: all 0.

        Returns:
            ``{"images": {part: n}, "patients": {part: n}, "overlaps": {"train & val": 0, ...}}``
        """
        parts = self.parts()
        pairs = [(a, b) for i, a in enumerate(PARTS) for b in PARTS[i + 1 :]]
        return {
            "images": {name: len(part) for name, part in parts.items()},
            "patients": {name: len(set(part.patients)) for name, part in parts.items()},
            "overlaps": {f"{a} & {b}": len(shared_patients(parts[a], parts[b])) for a, b in pairs},
        }

    def table(self) -> pd.DataFrame:
        """Return one row an image: name, part, patient, subtype."""
        import pandas as pd

        rows = [(r.name, part, r.patient, r.subtype) for part, images in self.parts().items() for r in images.records]
        return pd.DataFrame(rows, columns=["name", "part", "patient", "subtype"])

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits of which images are in which part."""
        parts = " ".join(f"{name}:{part.fingerprint()}" for name, part in self.parts().items())
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `table` as CSV."""
        self.table().to_csv(path, index=False)

    def __repr__(self) -> str:
        proof = self.proof()
        sizes = ", ".join(f"{p} {proof['images'][p]} images of {proof['patients'][p]} patients" for p in PARTS)
        return f"Split({sizes}; patients shared: {sum(proof['overlaps'].values())}; {self.note})"


def split_by_patient(
    train: ImageSet, *, seed: int = 0, val_fraction: float = 0.08, shifted_fraction: float = 0.06
) -> Split:
    """Split train into train, a random val and a shifted val; no patient is in two of them.

    Both fractions are of the images, and hold within each subtype (`val`) or each family of identity numbers
    (`shifted`), to within the images of one patient. Names that carry no identity number, or are of another data set,
    have no nearest block: their `shifted` part is a second random one, and `Split.note` says so.

    Args:
        train: the official train part.
        seed: decides `val`; the blocks of `shifted` do not depend on it.
        val_fraction: more than 0, at most 0.4.
        shifted_fraction: 0 (an empty part) to 0.4.

    Raises:
        DataError: a fraction is out of range, there is but one class, or a class has too few patients for three parts.
    """
    if not 0 < val_fraction <= 0.4:
        raise DataError(f"val_fraction must be more than 0 and at most 0.4. Received: {val_fraction!r}")
    if not 0 <= shifted_fraction <= 0.4:
        raise DataError(f"shifted_fraction must be 0 to 0.4. Received: {shifted_fraction!r}")
    if seed < 0:
        raise DataError(f"seed must be 0 or more. Received: {seed!r}")
    subtype_of = {record.patient: record.subtype for record in train.records}
    _check_patients(subtype_of, 3 if shifted_fraction else 2)
    images_of: dict[str, int] = {}
    for record in train.records:
        images_of[record.patient] = images_of.get(record.patient, 0) + 1

    shifted, note = _shifted_patients(images_of, subtype_of, shifted_fraction, seed)
    val: set[str] = set()
    for subtype in sorted(set(subtype_of.values())):
        patients = [p for p, s in subtype_of.items() if s == subtype]
        wanted = val_fraction * sum(images_of[p] for p in patients)
        free = [p for p in _shuffled(patients, seed, f"val {subtype}") if p not in shifted]
        val |= _take(free, images_of, wanted)

    of_patient = {p: "val" if p in val else "shifted" if p in shifted else "train" for p in subtype_of}
    part = np.array([of_patient[record.patient] for record in train.records])
    train_part, val_part, shifted_part = (train.take(part == name, name=name) for name in PARTS)
    return Split(train_part, val_part, shifted_part, seed, note)


def shared_patients(a: ImageSet, b: ImageSet) -> tuple[str, ...]:
    """Return the patients who have images in both parts, sorted: who leaks, when images are split one by one."""
    return tuple(sorted({str(p) for p in a.patients} & {str(p) for p in b.patients}))


def perturb(image: _Array, rng: np.random.Generator) -> _Array:
    """Return the image as another hospital might have sent it: other frame, resolution, exposure and encoding.

    In order: up to 15 % of the height or the width is cut off (so the aspect ratio changes, and with it the proportions
    once the image is stretched to a square); the image is scaled down to 35-100 % and up again; contrast and brightness
    by a factor of 0.7-1.3, gamma 0.75-1.33; JPEG at quality 30-95.

    Args:
        image: uint8 [H, W], both sides at least 16.
        rng: the source of chance.

    Returns:
        uint8 [H', W'], H' <= H and W' <= W.

    Raises:
        DataError: the image is no such array.

    Examples:
        >>> perturb(np.full((100, 120), 90, np.uint8), np.random.default_rng(0)).dtype
        dtype('uint8')
    """
    from PIL import Image

    if image.ndim != 2 or image.dtype != np.uint8 or min(image.shape) < 16:
        raise DataError(
            f"perturb takes one uint8 image [H, W] of at least 16 x 16. Received: {image.dtype} {list(image.shape)}"
        )
    axis, cut, start = int(rng.integers(2)), rng.uniform(0, 0.15), rng.random()
    scale, contrast, brightness = rng.uniform(0.35, 1.0), rng.uniform(0.7, 1.3), rng.uniform(0.7, 1.3)
    gamma, quality = float(np.exp(rng.uniform(-0.29, 0.29))), int(rng.integers(30, 96))

    length = image.shape[axis]
    first = round(start * cut * length)
    framed = np.take(image, np.arange(first, first + round(length * (1 - cut))), axis=axis)
    height, width = framed.shape
    small = (max(8, round(width * scale)), max(8, round(height * scale)))
    picture = Image.fromarray(framed).resize(small, Image.Resampling.BOX)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)

    pixels = np.asarray(picture, dtype=np.float32) / 255
    pixels = (pixels - pixels.mean()) * contrast + pixels.mean() * brightness
    pixels = np.clip(pixels, 0, 1) ** gamma
    encoded = io.BytesIO()
    Image.fromarray((pixels * 255 + 0.5).astype(np.uint8)).save(encoded, format="JPEG", quality=quality)
    return np.asarray(Image.open(encoded))


def shifted_images(imageset: ImageSet, size: int, seed: int = 0) -> _Array:
    """Return the images of a part, each perturbed in its own way and stretched to a square.

    The chance of each image is a function of (seed, name) alone: neither order nor company changes it. An image is
    first reduced to a short side of 1.5 x `size`, so that the loss of resolution and the JPEG blocks are of a scale
    that the model sees, whatever the size of the original.

    Args:
        imageset: usually `Split.shifted`.
        size: side of the squares in pixels, 16 or more.
        seed: 0 or more.

    Returns:
        uint8 [N, size, size]; a memory map of a file without a name, so that a large part does not fill the memory.

    Raises:
        DataError: size or seed out of range.
        ImageError: a file cannot be read.
    """
    if size < 16 or seed < 0:
        raise DataError(f"size must be 16 or more and seed 0 or more. Received: size={size!r}, seed={seed!r}")
    from PIL import Image

    from pneumolib.data import images

    def one(i: int) -> _Array:
        image = images.decode(imageset.read(i), at_least=2 * size)
        ratio = 1.5 * size / min(image.shape)
        if ratio < 1:
            sides = (round(image.shape[1] * ratio), round(image.shape[0] * ratio))
            image = np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BOX))
        digest = hashlib.sha256(f"{seed} {imageset.records[i].name}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        return images.square(perturb(image, rng), size)

    result = _off_memory((len(imageset), size, size))
    with ThreadPoolExecutor(min(4, runtime.available_cores())) as pool:
        for i, square in enumerate(pool.map(one, range(len(imageset)))):
            result[i] = square
    return result


def _off_memory(shape: tuple[int, ...]) -> _Array:
    """Return an array of uint8 whose pages the system can write out; its file goes with it."""
    if not math.prod(shape):
        return np.empty(shape, np.uint8)
    cache = environment().cache
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache) as file:
        if hasattr(os, "posix_fallocate"):
            # A disk that fills up under a memory map is no error but a signal that ends the process.
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _check_patients(subtype_of: dict[str, str], needed: int) -> None:
    counts = {s: sum(1 for other in subtype_of.values() if other == s) for s in sorted(set(subtype_of.values()))}
    received = ", ".join(f"{subtype} {n}" for subtype, n in counts.items()) or "none"
    if "normal" not in counts or len(counts) < 2:
        raise DataError(f"A split needs patients with and without pneumonia. Received patients: {received}")
    if min(counts.values()) < needed:
        raise DataError(
            f"A split needs at least {needed} patients of each class, one for each part; add images, or leave the "
            f"class out. Received patients: {received}"
        )


def _shifted_patients(
    images_of: dict[str, int], subtype_of: dict[str, str], fraction: float, seed: int
) -> tuple[set[str], str]:
    """Return the patients of the shifted part, and the sentence that says how they were chosen."""
    if not fraction:
        return set(), "shifted: empty, as asked"
    groups: dict[str, list[str]] = {}
    for patient, subtype in subtype_of.items():
        family, _ = _identity(patient)
        groups.setdefault(family or f"no number, {subtype}", []).append(patient)
    chosen: set[str] = set()
    random_groups = []
    for group, patients in sorted(groups.items()):
        if group in TEST_BLOCKS:
            ranked = sorted(patients, key=lambda p: (_distance(p), p))
        else:
            ranked = _shuffled(patients, seed, f"shifted {group}")
            random_groups.append(group)
        wanted = fraction * sum(images_of[p] for p in patients)
        # Two patients stay behind, for the other two parts.
        chosen |= _take(ranked[: max(0, len(patients) - 2)], images_of, wanted)
    for subtype in sorted(set(subtype_of.values()) - {subtype_of[p] for p in chosen}):
        # A subtype spread thin over several families gives its nearest patient all the same.
        chosen.add(min((p for p in subtype_of if subtype_of[p] == subtype), key=lambda p: (_distance(p), p)))
    if not random_groups:
        return chosen, "shifted: the identity numbers nearest to the test set's, in each family of names"
    count = sum(len(groups[g]) for g in random_groups)
    return chosen, (
        f"shifted: a second random part for the {count} patients whose names carry no identity number of the data set, "
        "the nearest identity numbers for the others"
    )


def _identity(patient: str) -> tuple[str | None, int]:
    family, _, number = patient.rpartition(":")
    return (family, int(number)) if family in TEST_BLOCKS and number.isdigit() else (None, 0)


def _distance(patient: str) -> int:
    """How far the number of a patient lies outside the test set's blocks of the same family."""
    family, number = _identity(patient)
    return min((max(first - number, number - last, 0) for first, last in TEST_BLOCKS.get(family or "", ())), default=0)


def _shuffled(patients: Iterable[str], seed: int, what: str) -> list[str]:
    """Order patients by a hash of the seed: adding or removing one patient leaves the order of the others."""
    return sorted(patients, key=lambda p: hashlib.sha256(f"{seed} {what} {p}".encode()).digest())


def _take(ranked: list[str], images_of: dict[str, int], wanted: float) -> set[str]:
    """Take patients from the front until their images come as near to `wanted` as they can; at least one."""
    taken: set[str] = set()
    images = 0
    for patient in ranked:
        if taken and images + images_of[patient] / 2 > wanted:
            break
        taken.add(patient)
        images += images_of[patient]
    return taken
