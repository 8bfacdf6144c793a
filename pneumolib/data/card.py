"""The facts about the data set, as data: what it holds, whose it is, what is wrong with it, how its names are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

SPLITS = ("train", "val", "test")
LABELS = {"NORMAL": "normal", "PNEUMONIA": "pneumonia"}


@dataclass(frozen=True)
class DataCard:
    """What is known of a data set; `print` shows it as a page."""

    title: str
    kaggle_handle: str
    url: str
    citation: str
    doi: str
    licence: str
    population: str
    counts: Mapping[str, Mapping[str, int]]
    labels: Mapping[str, str]
    defects: tuple[str, ...] = field(repr=False)

    @property
    def n_images(self) -> int:
        """The number of images in all parts."""
        return sum(sum(part.values()) for part in self.counts.values())

    def counts_match(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        """Return whether `counts`, ``{split: {"NORMAL": n, "PNEUMONIA": n}}``, are those of the whole data set.

        Examples:
            >>> CARD.counts_match(CARD.counts)
            True
            >>> CARD.counts_match({"test": {"NORMAL": 234, "PNEUMONIA": 390}})
            False
        """
        return {s: dict(c) for s, c in counts.items()} == {s: dict(c) for s, c in self.counts.items()}

    def __str__(self) -> str:
        rows = [self.title, "=" * len(self.title)]
        rows += [f"{name:<12}{self.labels[name]}" for name in self.labels]
        rows += [f"{split:<12}{c['NORMAL']:,} normal, {c['PNEUMONIA']:,} pneumonia" for split, c in self.counts.items()]
        rows += [f"population  {self.population}", f"licence     {self.licence}", f"source      {self.citation}"]
        rows += [f"            {self.url}", "known defects"]
        return "\n".join(rows + [f"  - {defect}" for defect in self.defects])


CARD = DataCard(
    title="Chest X-Ray Images (Pneumonia)",
    kaggle_handle="paultimothymooney/chest-xray-pneumonia/versions/2",
    url="https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia",
    citation="Kermany, Zhang, Goldbaum: Large Dataset of Labeled Optical Coherence Tomography (OCT) and Chest X-Ray "
    "Images, Mendeley Data v2, 2018, doi 10.17632/rscbjbr9sj.2",
    doi="10.17632/rscbjbr9sj.2",
    licence="CC BY 4.0",
    population="children aged one to five, one hospital (Guangzhou Women and Children's Medical Center)",
    counts={
        "train": {"NORMAL": 1341, "PNEUMONIA": 3875},
        "val": {"NORMAL": 8, "PNEUMONIA": 8},
        "test": {"NORMAL": 234, "PNEUMONIA": 390},
    },
    labels={"NORMAL": "no sign of pneumonia", "PNEUMONIA": "pneumonia; file names say bacterial or viral"},
    defects=(
        "val holds 16 images: too few to choose anything",
        "images of one child are many: a split by image leaks patients",
        "JPEG quality tells the classes apart in train, and misleads on test",
        "size and aspect ratio tell much of the class",
        "most of train/PNEUMONIA, and little of train/NORMAL, was written by one device with a look of its own",
        "RGB files occur in train/PNEUMONIA only",
        "a few dozen files are exact duplicates, none across the parts",
        "only test was read by a third reader; the cause of infection was not proven",
    ),
)


@dataclass(frozen=True)
class Identity:
    """Who and what a file shows, as its name and folder tell."""

    label: str  # normal or pneumonia
    subtype: str  # normal, bacterial, viral, or unspecified
    patient: str  # images of one patient share it


_PNEUMONIA = re.compile(r"person(\d+)_(bacteria|virus)_\d+", re.IGNORECASE)
_NORMAL = re.compile(r"(NORMAL2-IM|IM)-(\d+)-", re.IGNORECASE)
_SUBTYPES = {"bacteria": "bacterial", "virus": "viral"}


def parse_name(split: str, folder: str, filename: str) -> Identity:
    """Return who the file shows: label from the folder, subtype and patient from the name.

    The patient is ``(bacteria|virus, N)`` or ``(IM|NORMAL2-IM, N)``: numbers are counted within each of these four, so
    the number alone would join strangers. A name of another form is a patient of its own.

    Args:
        split: train, val or test.
        folder: NORMAL or PNEUMONIA, in any case.
        filename: with or without folders before it.

    Examples:
        >>> parse_name("train", "PNEUMONIA", "person1946_bacteria_4875.jpeg")
        Identity(label='pneumonia', subtype='bacterial', patient='bacteria:1946')
        >>> parse_name("test", "NORMAL", "NORMAL2-IM-0381-0001.jpeg").patient
        'NORMAL2-IM:381'
    """
    stem = PurePosixPath(filename).stem
    label = LABELS[folder.upper()]
    stranger = f"file:{split}/{folder.upper()}/{PurePosixPath(filename).name}"
    if label == "pneumonia":
        if found := _PNEUMONIA.match(stem):
            return Identity(label, _SUBTYPES[found[2].lower()], f"{found[2].lower()}:{int(found[1])}")
        return Identity(label, "unspecified", stranger)
    if found := _NORMAL.match(stem):
        return Identity(label, "normal", f"{found[1].upper()}:{int(found[2])}")
    return Identity(label, "normal", stranger)
