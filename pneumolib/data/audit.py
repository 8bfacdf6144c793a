"""What a data set gives away and where it is broken, before a model is built: `audit` looks at every file once.

Counts, unreadable files, duplicates, patients in several parts, and how well the label can be told by what is no
medicine. Nothing is chosen on a test part: it is described, and what was fitted on train is tried on it.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumolib.config import environment
from pneumolib.data import dataset as datasets
from pneumolib.data.card import SPLITS
from pneumolib.data.class_folders import class_folders, with_patients
from pneumolib.data.dataset import Dataset, Record
from pneumolib.data.duplicates import NEAR, SAME, NearDuplicates, exact_duplicates, near_duplicates
from pneumolib.data.facts import look
from pneumolib.data.shortcuts import in_words, plain_rows, shortcut_baselines, verdict
from pneumolib.data.sources import Source
from pneumolib.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class AuditReport:
    """What an audit found; `print` shows it as a page, a notebook as tables.

    Attributes:
        location: where the data set is.
        source: its name, without the folders of this machine.
        phantom: whether its X-rays are synthetic.
        facts: a row for each file that could be read, with the columns of `facts.Looked`.
        unreadable: the name of each other file, and the reason.
        baselines: from `shortcut_baselines`.
        duplicates: from `exact_duplicates`.
        near: from `near_duplicates`; None where the package for it is not installed.
        shared: for each two parts, such as "train & test", the patients who have files in both, sorted.
        patient_key: how patients were told apart, in a sentence.
        outside: image files that stand in no class folder, and were left out.
        card: what differs from the data set's card, in words; empty where nothing does, None for other data.
    """

    location: str
    source: str
    phantom: bool
    facts: pd.DataFrame
    unreadable: tuple[tuple[str, str], ...]
    baselines: pd.DataFrame
    duplicates: pd.DataFrame
    near: NearDuplicates | None
    shared: dict[str, tuple[str, ...]]
    patient_key: str
    outside: int
    card: str | None

    @property
    def title(self) -> str:
        """One line that says what was audited, and PHANTOM where its X-rays are synthetic."""
        n = len(self.facts) + len(self.unreadable)
        return f"{'PHANTOM: ' if self.phantom else ''}audit of {n:,} files in {self.source}"

    @property
    def verdict(self) -> str:
        """The findings in a few sentences."""
        return " ".join(self.findings.values())

    @cached_property
    def findings(self) -> dict[str, str]:
        """What was found, in words, by subject: files, duplicates, near duplicates, patients, shortcuts."""
        return {
            "files": self._on_files(),
            "duplicates": self._on_duplicates(),
            "near duplicates": self._on_near_duplicates(),
            "patients": self._on_patients(),
            "shortcuts": verdict(self.baselines),
        }

    @property
    def sentences(self) -> dict[str, str]:
        """What each baseline says, in words."""
        return in_words(self.baselines)

    def summary(self) -> pd.DataFrame:
        """Return a row for each part and label.

        Returns:
            Columns split, label, files, patients, patients_with_several (files), megabytes, width and height (medians,
            pixels), widths and heights (ranges, in words), formats and modes (counts, in words), jpeg_quality (median),
            mean and contrast (medians, gray values).
        """
        import pandas as pd

        rows = []
        for (split, label), part in _by_part(self.facts):
            rows.append(
                {
                    "split": split,
                    "label": label,
                    "files": len(part),
                    "patients": part["patient"].nunique(),
                    "patients_with_several": int((part["patient"].value_counts() > 1).sum()),
                    "megabytes": part["n_bytes"].sum() / 1e6,
                    "width": part["width"].median(),
                    "height": part["height"].median(),
                    "widths": _range(part["width"]),
                    "heights": _range(part["height"]),
                    "formats": _counts(part["format"]),
                    "modes": _counts(part["mode"]),
                    "jpeg_quality": part["jpeg_quality"].median(),
                    "mean": part["mean"].median(),
                    "contrast": part["contrast"].median(),
                }
            )
        columns = ["split", "label", "files", "patients", "patients_with_several", "megabytes", "width", "height"]
        columns += ["widths", "heights", "formats", "modes", "jpeg_quality", "mean", "contrast"]
        return pd.DataFrame(rows, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Return all that was found as plain values, ready for JSON; missing numbers are None."""
        from pneumolib import __version__

        words = self.sentences
        near = None
        if self.near is not None:
            near = {
                "distance": self.near.distance,
                "n": self.near.n,
                "n_same_picture": int(self.near.pairs["same_picture"].sum()),
                "pairs": plain_rows(self.near.pairs),
            }
        return {
            "title": self.title,
            "source": self.source,
            "phantom": self.phantom,
            "pneumolib": __version__,
            "n": len(self.facts),
            "outside": self.outside,
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
            "summary": plain_rows(self.summary()),
            "duplicates": [
                group.drop(columns="group").to_dict("records") for _, group in self.duplicates.groupby("group")
            ],
            "near_duplicates": near,
            "patient_key": self.patient_key,
            "shared_patients": {pair: list(patients) for pair, patients in self.shared.items()},
            "baselines": [{**row, "in_words": words.get(row["features"])} for row in plain_rows(self.baselines)],
            "differs_from_card": self.card,
            "findings": self.findings,
            "verdict": self.verdict,
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def __str__(self) -> str:
        columns = ["split", "label", "files", "patients", "widths", "heights", "modes", "jpeg_quality"]
        blocks = [
            self.title,
            _text(self.summary()[columns]),
            *(f"{subject}: {text}" for subject, text in self.findings.items()),
            _text(self.baselines.drop(columns=["n_train", "n_test"]).round(3)),
            "\n".join(self.sentences.values()),
        ]
        return "\n\n".join(blocks)

    def _repr_html_(self) -> str:
        table = self.baselines.round(3).to_html(index=False, na_rep="-", border=0)
        texts = "".join(f"<p><b>{name}</b>: {html.escape(text)}</p>" for name, text in self.findings.items())
        return f"<h4>{html.escape(self.title)}</h4>{texts}{table}"

    def _on_files(self) -> str:
        sentences = [f"Read: {len(self.facts):,}, of {self.facts['patient'].nunique():,} patients."]
        if self.unreadable:
            name, reason = self.unreadable[0]
            sentences.append(f"Not readable: {len(self.unreadable):,}, such as {name} ({reason}).")
        if self.outside:
            sentences.append(f"Left out, in no class folder: {self.outside:,}.")
        if self.card is not None:
            sentences.append(f"Other than on the data card: {self.card}." if self.card else "As the data card says.")
        return " ".join(sentences)

    def _on_duplicates(self) -> str:
        groups = self.duplicates.groupby("group")
        if not len(groups):
            return "No two files have the same bytes."
        several = groups[["split", "label", "patient"]].nunique().gt(1).sum()
        too_many = len(self.duplicates) - len(groups)
        text = f"Groups of files with the same bytes: {len(groups):,}; files too many: {too_many:,}."
        text += f" Across parts: {several['split']:,}{', which leaks' if several['split'] else ''}."
        if several["label"]:
            text += f" Under several labels, of which not all can be right: {several['label']:,}."
        if several["patient"]:
            text += f" Under several patients, so that there may be others of two names: {several['patient']:,}."
        return text

    def _on_near_duplicates(self) -> str:
        if self.near is None:
            return "Not looked for: that needs the package imagehash (pip install 'pneumolib[audit]')."
        pairs = self.near.pairs
        if not self.near.n:
            return f"No two pictures have perceptual hashes within {NEAR} of 64 bits."
        same, alike = pairs[pairs["same_picture"]], pairs[~pairs["same_picture"]]
        listed = f", of which the nearest {len(pairs):,} are listed" if len(pairs) < self.near.n else ""
        text = f"Pairs of other files with perceptual hashes within {NEAR} of 64 bits: {self.near.n:,}{listed}."
        text += f" Most likely one picture saved twice (correlation {SAME} or more): {_spread(same)}."
        if len(alike):
            text += (
                f" Look-alikes: {_spread(alike)}. X-rays of different children come that near, so look at a pair "
                "before you leave anything out."
            )
        return text

    def _on_patients(self) -> str:
        if not self.shared:
            text = "There is only one part, so no patient is in two."
        elif not any(self.shared.values()):
            text = f"No patient is in two parts ({', '.join(self.shared)})."
        else:
            found = [f"{pair} {len(who):,}" for pair, who in self.shared.items() if who]
            text = f"In several parts, which leaks: {', '.join(found)}."
        several = int((self.facts["patient"].value_counts() > 1).sum())
        if several:
            text += f" With several files, whom a random split by image would part: {several:,}."
        return f"{text} {self.patient_key}"


def audit(
    data: Dataset | str | os.PathLike[str] | None = None,
    *,
    patients: str | Mapping[str, str] | None = None,
    progress: bool = False,
) -> AuditReport:
    """Return what a data set gives away and where it is broken; every file is read and decoded once.

    Files that cannot be read are reported, and left out of the rest.

    Args:
        data: a data set, or where one is, as for `load_dataset`; other data too, as a folder or a zip with one folder a
            class (see `class_folders`).
        patients: how to tell patients apart: a regular expression with one group, searched in the file's name; or the
            patient of each name, such as a column of a table. None takes the data set's own key; other data then have
            none, and each file counts as a patient of its own.
        progress: show a bar on a terminal, a line elsewhere.

    Raises:
        DataNotFoundError: nothing stands there.
        DataError: there are no images or no class folders, or `patients` covers no file.

    Examples:
        >>> report = audit("phantom")
        >>> report.shared["train & test"]
        ()
    """
    found = _opened(data)
    if not found.records:
        raise DataError(f"An audit needs images. Received: none in {found.source.location}")
    records, patient_key = with_patients(found.records, patients)
    looked = look(found.source, records, progress=progress)
    try:
        near = near_duplicates(looked.facts, looked.thumbnails)
    except MissingExtraError:
        near = None
    return AuditReport(
        location=found.source.location,
        source=found.origin,
        phantom=found.source.phantom,
        facts=looked.facts,
        unreadable=looked.unreadable,
        baselines=shortcut_baselines(looked.facts),
        duplicates=exact_duplicates(looked.facts),
        near=near,
        shared=_shared(records),
        patient_key=patient_key,
        outside=found.outside,
        card=None if found.dataset is None or found.dataset.phantom else _against_card(found.dataset),
    )


@dataclass(frozen=True)
class _Opened:
    """Files to look at, whatever their layout."""

    source: Source
    records: tuple[Record, ...]
    origin: str
    outside: int = 0
    dataset: Dataset | None = None  # where the layout is this project's own


def _opened(data: Dataset | str | os.PathLike[str] | None) -> _Opened:
    if isinstance(data, Dataset):
        return _of(data)
    data = environment().data if data is None else data
    if data in (None, "kaggle", "phantom"):
        return _of(datasets.load_dataset(data))
    try:
        known = _of(datasets.load_dataset(data))
    except DataError:
        known = None
    try:
        folders = class_folders(str(data))
    except DataError:
        if known is None:
            raise
        return known
    # Other classes beside the two, other names of parts, folders below the classes: they must not be left out unsaid.
    if known is None or ({r.label for r in known.records} <= set(folders.labels) and len(folders) > len(known.records)):
        return _Opened(folders.source, folders.records, Path(folders.source.location).name, folders.outside)
    return known


def _of(dataset: Dataset) -> _Opened:
    records = tuple(record for part in dataset.parts().values() for record in part)
    return _Opened(dataset.source, records, dataset.train.origin, dataset=dataset)


def _against_card(dataset: Dataset) -> str:
    counts = dataset.counts()
    return ", ".join(
        f"{split}/{folder} {counts[split][folder]:,} in place of {expected:,}"
        for split, numbers in dataset.card.counts.items()
        for folder, expected in numbers.items()
        if counts[split][folder] != expected
    )


def _shared(records: tuple[Record, ...]) -> dict[str, tuple[str, ...]]:
    who = {split: {record.patient for record in records if record.split == split} for split in SPLITS}
    return {f"{a} & {b}": tuple(sorted(who[a] & who[b])) for a, b in combinations(SPLITS, 2) if who[a] and who[b]}


def _by_part(facts: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    for split in SPLITS:
        part = facts[facts["split"] == split]
        for label in sorted(set(part["label"])):
            yield (split, label), part[part["label"] == label]


def _range(values: pd.Series[int]) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


def _counts(values: pd.Series[str]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in values.value_counts().items())


def _text(table: pd.DataFrame) -> str:
    return str(table.to_string(index=False, na_rep="-"))


def _spread(pairs: pd.DataFrame) -> str:
    if pairs.empty:
        return "0"
    splits, labels = pairs["across_splits"].sum(), pairs["across_labels"].sum()
    return f"{len(pairs):,} ({splits:,} across parts, {labels:,} across labels)"
