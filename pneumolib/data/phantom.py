"""Synthetic chest X-rays, so that everything runs where no real ones can be had.

`make_phantom` writes a data set of them with the folders, the file names and two of the file-level defects of the
real one; `draw` draws a single image. They are made to be learnt from in a minute and to be recognised as a chest;
nothing measured on them says anything about patients.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pneumolib import runtime
from pneumolib.data.radiograph import SUBTYPES, check, draw
from pneumolib.errors import DataError

__all__ = ["COMMENT", "MARKER", "SUBTYPES", "VERSION", "draw", "make_phantom"]

MARKER = "phantom.json"  # stands beside train/, val/ and test/: a folder that holds it holds no real X-ray
COMMENT = b"PHANTOM: synthetic image, not a patient"  # in every JPEG, so that a file that travels alone still says so

VERSION = 1  # raise it when the drawing changes: it belongs in the name of a cached phantom, and is in the marker


def make_phantom(
    folder: str | os.PathLike[str],
    *,
    n_train: int = 240,
    n_val: int = 16,
    n_test: int = 120,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Write a synthetic data set in the layout of the real one, and return its folder.

    Below `folder` stand ``train``, ``val`` and ``test``, each with ``NORMAL`` and ``PNEUMONIA``, and the file
    `MARKER`. Names, share of the classes, images per patient and the blocks of identity numbers follow the real data
    set; no patient is in two parts. As there, training images of healthy children are saved at JPEG quality 95 and
    all others at 75, and some of the training images of pneumonia are RGB: the audit has something to find.

    The folder appears whole or not at all. A second call with the same arguments returns at once.

    Args:
        folder: where to write; must not exist, be empty, or hold this phantom already.
        n_train: images in train, 8 to 5000.
        n_val: images in val, 2 to 28.
        n_test: images in test, 8 to 600.
        size: height and width in pixels; None varies both from image to image.
        seed: decides every image together with its name; 0 or more.
        progress: show a progress bar on a terminal, a closing line elsewhere.

    Raises:
        DataError: a number is out of range, or `folder` holds something else.

    Examples:
        >>> import tempfile
        >>> root = make_phantom(tempfile.mkdtemp(), n_train=12, n_val=2, n_test=8, size=(64, 80))
        >>> sorted(p.name for p in root.iterdir())
        ['phantom.json', 'test', 'train', 'val']
    """
    for name, value, low, high in (("n_train", n_train, 8, 5000), ("n_val", n_val, 2, 28), ("n_test", n_test, 8, 600)):
        if not low <= value <= high:
            raise DataError(f"{name} must be {low} to {high}. Received: {value!r}")
    check(size, seed)
    folder = Path(folder)
    parameters = {
        "phantom": True,
        "version": VERSION,
        "n_train": n_train,
        "n_val": n_val,
        "n_test": n_test,
        "size": list(size) if size else None,
        "seed": seed,
    }
    if _holds(folder, parameters):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".partial", dir=folder.parent))
    try:
        _write(partial, parameters, progress)
        partial.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError:
        # Another process may have finished the same phantom meanwhile: then its work stands, and this one is dropped.
        if not _holds(folder, parameters):
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _holds(folder: Path, parameters: dict[str, Any]) -> bool:
    marker = folder / MARKER
    if marker.is_file() and json.loads(marker.read_text()) == parameters:
        return True
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "a phantom made with other arguments" if marker.is_file() else "other files"
        raise DataError(f"A phantom needs a new or an empty folder; delete this one first. Received: {folder} ({what})")
    return False


def _write(folder: Path, parameters: dict[str, Any], progress: bool) -> None:
    from tqdm.auto import tqdm

    seed, size = parameters["seed"], parameters["size"]
    plan = [item for split in ("train", "val", "test") for item in _plan(split, parameters[f"n_{split}"], seed)]
    for split in ("train", "val", "test"):
        for label in ("NORMAL", "PNEUMONIA"):
            (folder / split / label).mkdir(parents=True)

    def save(item: tuple[str, str, str]) -> None:
        from PIL import Image

        name, subtype, patient = item
        pixels = draw(subtype, _number(seed, name), patient=_number(seed, patient), size=tuple(size) if size else None)
        image = Image.fromarray(pixels)
        if name.startswith("train/PNEUMONIA/") and _number(seed, f"mode {name}") % 14 == 0:
            image = image.convert("RGB")
        quality = 95 if name.startswith("train/NORMAL/") else 75
        image.save(folder / name, format="JPEG", quality=quality, comment=COMMENT)

    hidden = not (progress and sys.stderr.isatty())
    with ThreadPoolExecutor(min(4, runtime.available_cores())) as pool:
        for _ in tqdm(pool.map(save, plan), "drawing phantom X-rays", len(plan), unit="image", disable=hidden):
            pass
    if progress and hidden:
        print(f"Drew {len(plan)} phantom X-rays.")
    # The marker comes last: a folder without it was never finished.
    (folder / MARKER).write_text(json.dumps(parameters, indent=1) + "\n")


# === Names and patients ===

_SHARES = {  # of the images of each part, as in the real data set
    "train": {"normal": 0.257, "bacterial": 0.485, "viral": 0.258},
    "val": {"normal": 0.5, "bacterial": 0.5, "viral": 0.0},
    "test": {"normal": 0.375, "bacterial": 0.388, "viral": 0.237},
}
_IDS: dict[str, dict[str, list[range]]] = {  # identity numbers, in blocks that do not touch between train and test
    "train": {
        "IM": [range(115, 767)],
        "NORMAL2-IM": [range(383, 1424)],
        "bacteria": [range(1, 78), range(176, 1946)],
        "virus": [range(80, 1608)],
    },
    "val": {"NORMAL2-IM": [range(1427, 1443)], "bacteria": [range(1946, 1960)]},
    "test": {
        "IM": [range(1, 112)],
        "NORMAL2-IM": [range(7, 382)],
        "bacteria": [range(78, 176)],
        "virus": [range(1, 80), range(1608, 1686)],
    },
}
_FAMILIES = {"normal": ("IM", "NORMAL2-IM"), "bacterial": ("bacteria",), "viral": ("virus",)}
_IMAGES_PER_PATIENT = {  # probability of 1, 2, 3, ... images
    "IM": (0.85, 0.15),
    "NORMAL2-IM": (0.93, 0.07),
    "bacteria": (0.55, 0.2, 0.15, 0.1),
    "virus": (0.82, 0.14, 0.04),
}


def _plan(split: str, n: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield the name, subtype and patient of each image of one part."""
    shares = _SHARES[split]
    counts = {"normal": round(n * shares["normal"]), "viral": round(n * shares["viral"])}
    counts["bacterial"] = n - counts["normal"] - counts["viral"]
    for subtype in SUBTYPES:
        families = [family for family in _FAMILIES[subtype] if family in _IDS[split]]
        for part, family in enumerate(families):
            wanted = counts[subtype] * (part + 1) // len(families) - counts[subtype] * part // len(families)
            yield from _patients(split, subtype, family, wanted, seed)


def _patients(split: str, subtype: str, family: str, n: int, seed: int) -> Iterator[tuple[str, str, str]]:
    rng = np.random.default_rng([3, _number(seed, f"{split} {family}")])
    weights = np.array(_IMAGES_PER_PATIENT[family])
    ids = np.concatenate([np.arange(block.start, block.stop) for block in _IDS[split][family]])
    # As few images a patient as the shares ask, but never so few that the block runs out of numbers.
    images = np.maximum(rng.choice(len(weights), size=n, p=weights) + 1, math.ceil(n / len(ids)))
    last = int(np.searchsorted(np.cumsum(images), n)) + 1
    images = images[:last]
    images[-1] -= images.sum() - n
    serial = 0
    for number, count in zip(np.sort(rng.choice(ids, size=last, replace=False)), images, strict=True):
        patient = f"{split} {family}:{number}"
        for i in range(count):
            serial += 1
            if subtype == "normal":
                tail = "0001" if count == 1 else f"0001-{i + 1:04d}"
                yield f"{split}/NORMAL/{family}-{number:04d}-{tail}.jpeg", subtype, patient
            else:
                yield f"{split}/PNEUMONIA/person{number}_{family}_{serial}.jpeg", subtype, patient


def _number(seed: int, text: str) -> int:
    """Return a number that depends on nothing but the seed and the text, on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:6], "big")
