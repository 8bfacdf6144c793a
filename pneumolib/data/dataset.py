"""A data set as code sees it: parts with records, read lazily; and `load_dataset`, which finds one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumolib.config import Config, environment
from pneumolib.data.card import CARD, SPLITS, DataCard, parse_name
from pneumolib.data.sources import Source, fingerprint, open_source
from pneumolib.errors import DataError, DownloadError

if TYPE_CHECKING:
    import pandas as pd

    from pneumolib.data.verify import Verification

CLASSES = ("normal", "bacterial", "viral")
WAYS_OUT = (
    "Three ways out: pass the path of a folder or zip with the X-rays (or set PNEUMOLIB_DATA to it); "
    "try again with a network, so that kagglehub can fetch them; or pass 'phantom' for synthetic ones."
)


@dataclass(frozen=True)
class Record:
    """One image file."""

    name: str  # below the root: train/NORMAL/IM-0115-0001.jpeg
    split: str
    label: str
    subtype: str
    patient: str
    n_bytes: int


class ImageSet:
    """Some images of a data set in a fixed order, with their labels; pixels are read when asked for.

    Args:
        records: the images.
        source: where their bytes are.
        name: of the part, such as ``train``.
        phantom: whether they are synthetic.
    """

    def __init__(self, records: tuple[Record, ...], source: Source, *, name: str, phantom: bool = False) -> None:
        self.records, self.source, self.name, self.phantom = records, source, name, phantom

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __repr__(self) -> str:
        return f"ImageSet({'PHANTOM ' if self.phantom else ''}{self.name}: {self.summary()})"

    def summary(self) -> str:
        """Return the counts by subtype and of patients, in words."""
        subtypes = [r.subtype for r in self.records]
        counts = ", ".join(f"{subtypes.count(s)} {s}" for s in dict.fromkeys([*CLASSES, *subtypes]) if s in subtypes)
        return f"{counts}; {len(set(self.patients))} patients" if counts else "empty"

    @property
    def location(self) -> str:
        """Where the files are."""
        return self.source.location

    @property
    def origin(self) -> str:
        """Where the images are from, in a word for reports: nothing that tells the folders of this machine."""
        if self.phantom:
            return "the phantom"
        parts = Path(self.location).parts
        return "/".join(parts[-3:] if parts[-2:-1] == ("versions",) else parts[-1:])

    @property
    def names(self) -> tuple[str, ...]:
        """The files' names below the root."""
        return tuple(r.name for r in self.records)

    @property
    def patients(self) -> NDArray[np.str_]:
        """The patient of each image, str ``[N]``."""
        return np.array([r.patient for r in self.records], dtype=str)

    @property
    def subtypes(self) -> NDArray[np.str_]:
        """The subtype of each image, str ``[N]``: normal, bacterial, viral or unspecified."""
        return np.array([r.subtype for r in self.records], dtype=str)

    @property
    def is_pneumonia(self) -> NDArray[np.bool_]:
        """Whether each image is labelled pneumonia, bool ``[N]``."""
        return np.array([r.label == "pneumonia" for r in self.records], dtype=bool)

    def targets(self, classes: int = 3) -> NDArray[np.int64]:
        """Return the class of each image, int64 ``[N]``: normal 0, bacterial 1, viral 2; or, of two, pneumonia 1.

        Raises:
            DataError: three classes are asked for, and some names do not tell the subtype.
        """
        if classes == 2:
            return self.is_pneumonia.astype(np.int64)
        if classes != 3:
            raise DataError(f"classes must be 2 or 3. Received: {classes!r}")
        unknown = [r.name for r in self.records if r.subtype not in CLASSES]
        if unknown:
            raise DataError(
                f"{len(unknown)} images do not tell bacterial from viral by name, such as {unknown[0]}. "
                "Train with Config(classes=2)."
            )
        return np.array([CLASSES.index(r.subtype) for r in self.records], dtype=np.int64)

    def take(self, chosen: Any, name: str | None = None) -> ImageSet:
        """Return the images that `chosen` names, in its order: indices, or a bool mask ``[N]``.

        Raises:
            DataError: a mask of another length, or an index that is no int or out of range.
        """
        chosen = np.asarray(chosen)
        mask = chosen.dtype == bool
        if mask and chosen.shape != (len(self),):
            raise DataError(
                f"A mask needs one entry for each of the {len(self)} images. Received: {list(chosen.shape)}"
            )
        indices = np.flatnonzero(chosen) if mask else chosen.astype(int)
        if not mask and (chosen.ndim != 1 or (indices != chosen).any() or (abs(indices + 0.5) > len(self)).any()):
            raise DataError(
                f"Indices must be a list of whole numbers from {-len(self)} to {len(self) - 1}. Received: {chosen}"
            )
        records = tuple(self.records[i] for i in indices)
        return ImageSet(records, self.source, name=name or self.name, phantom=self.phantom)

    def read(self, index: int) -> bytes:
        """Return the bytes of one file."""
        return self.source.read(self.records[index].name)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return one image, decoded, uint8 ``[H, W]``; raises `ImageError` naming a file that cannot be read."""
        from pneumolib.data.images import decode
        from pneumolib.errors import ImageError

        try:
            return decode(self.read(index))
        except ImageError as error:
            raise type(error)(f"{self.records[index].name}: {error}") from error

    def images(self, size: int, *, progress: bool = False) -> NDArray[np.uint8]:
        """Return all images as squares, a read-only memory map uint8 ``[N, size, size]``, prepared once."""
        from pneumolib.data.store import open_store

        return open_store(self, size, progress=progress)

    def table(self) -> pd.DataFrame:
        """Return one row an image: name, split, label, subtype, patient, n_bytes."""
        import pandas as pd

        columns = ["name", "split", "label", "subtype", "patient", "n_bytes"]
        return pd.DataFrame([[getattr(r, c) for c in columns] for r in self.records], columns=columns)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits of the names and sizes, in order."""
        return fingerprint((r.name, r.n_bytes) for r in self.records)


@dataclass(frozen=True)
class Dataset:
    """The three official parts of a data set, of which some may be empty."""

    train: ImageSet
    val: ImageSet
    test: ImageSet
    source: Source
    kind: str  # folder, zip, kaggle or phantom
    card: DataCard = CARD

    @property
    def location(self) -> str:
        """Where it was found."""
        return self.source.location

    @property
    def phantom(self) -> bool:
        """Whether the X-rays are synthetic."""
        return self.kind == "phantom"

    def parts(self) -> dict[str, ImageSet]:
        """Return the official parts by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def counts(self) -> dict[str, dict[str, int]]:
        """Return ``{split: {"NORMAL": n, "PNEUMONIA": n}}``."""
        return {
            name: {"NORMAL": int((~part.is_pneumonia).sum()), "PNEUMONIA": int(part.is_pneumonia.sum())}
            for name, part in self.parts().items()
        }

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits of all names and sizes."""
        return fingerprint(sorted((r.name, r.n_bytes) for part in self.parts().values() for r in part))

    def verify(self, *, deep: bool = False) -> Verification:
        """Compare with the card and look for duplicates; `deep` decodes every file too."""
        from pneumolib.data.verify import verify

        return verify(self, deep=deep)

    def __repr__(self) -> str:
        title = "PHANTOM: synthetic X-rays" if self.phantom else self.card.title
        rows = [f"{title} ({self.kind}: {self.location})"]
        for name, part in self.parts().items():
            rows.append(f"  {name:<6}{part.summary()}")
        return "\n".join(rows)


def load_dataset(source: str | os.PathLike[str] | None = None, *, config: Config | None = None) -> Dataset:
    """Return the data set that is found first: as named, in kagglehub's cache, by download, or the phantom.

    Args:
        source: the path of a folder or zip, ``"kaggle"`` or ``"phantom"``; None takes ``PNEUMOLIB_DATA``, else looks
            into kagglehub's cache, else downloads.
        config: where `config.phantom_allowed` and no X-rays can be had, the phantom stands in, and a line says so.

    Raises:
        DataNotFoundError: nothing stands at the path.
        DataError: what stands there holds no data set.
        DownloadError: the download failed, and the phantom was not allowed; the message names the ways out.

    Examples:
        >>> load_dataset("phantom").phantom
        True
    """
    source = source if source is not None else environment().data
    if source == "phantom":
        return _phantom()
    if source not in (None, "kaggle"):
        return _from(Path(str(source)))

    from pneumolib.data import download

    cached = download.find_cached()
    if cached is not None:
        return _from(cached, kind="kaggle")
    try:
        return _from(download.download(), kind="kaggle")
    except DownloadError as error:
        if source is None and config is not None and config.phantom_allowed:
            print(
                f"No X-rays found: {error}\nPHANTOM: synthetic X-rays stand in; no figure made from them is a result."
            )
            return _phantom()
        raise DownloadError(f"{error} {WAYS_OUT}") from error


def _phantom() -> Dataset:
    from pneumolib.data.phantom import VERSION, make_phantom

    return _from(make_phantom(environment().cache / f"phantom-{VERSION}"))


def _from(path: Path, kind: str | None = None) -> Dataset:
    source = open_source(path)
    kind = "phantom" if source.phantom else kind or ("folder" if path.is_dir() else "zip")
    records: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for name, size in source.names().items():
        split, folder, file = name.split("/")
        identity = parse_name(split, folder, file)
        records[split].append(Record(name, split, identity.label, identity.subtype, identity.patient, size))
    train, val, test = (ImageSet(tuple(records[s]), source, name=s, phantom=kind == "phantom") for s in SPLITS)
    return Dataset(train, val, test, source=source, kind=kind)
