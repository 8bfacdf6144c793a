"""Any images with one folder a class, in a folder or a zip: what `audit` takes besides this project's own layout.

mine/healthy/a.png, mine/ill/b.png                          all of it counts as train
mine/train/healthy/p1/a.png, mine/test/ill/p7/b.png         parts, and folders below the classes
"""

from __future__ import annotations

import os
import re
import threading
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pneumolib.data.card import LABELS, parse_name
from pneumolib.data.dataset import Record
from pneumolib.data.pictures import ENDS, files_below, ignored
from pneumolib.data.sources import PHANTOM_MARKER, FolderSource, Source, ZipSource
from pneumolib.errors import DataError, DataNotFoundError

PARTS = {  # what the folders of the parts are called
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_STRANGER = "file:"  # begins the key of a file that counts as a patient of its own


@dataclass(frozen=True)
class ClassFolders:
    """The images found: where they are read, a record of each, sorted by name, and how many were left out."""

    source: Source
    records: tuple[Record, ...]
    outside: int  # image files that stand in no class folder

    def __len__(self) -> int:
        return len(self.records)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return tuple(sorted({record.label for record in self.records}))


def class_folders(path: str | os.PathLike[str]) -> ClassFolders:
    """Return the images in a folder or a zip with one folder a class.

    Where folders are called train, val or test (or training, valid, validation, dev, testing), those of the shallowest
    place are the parts, and the classes stand in them. Else the classes are the folders in which the paths of the
    images first part, and all images count as train. The folder's name is the label; normal and pneumonia are
    recognised in any case.

    Raises:
        DataNotFoundError: nothing stands there.
        DataError: it is no zip that can be read, holds no images, or only one class without parts.
    """
    if not Path(path).exists():
        raise DataNotFoundError(f"There is neither a folder nor a zip at that path. Received: {path}")
    source = _Folder(path) if Path(path).is_dir() else _Zip(path)
    root, with_parts = _root(source.names(), str(path))
    records, outside = [], 0
    for name, size in source.names().items():
        inside = PurePosixPath(name).parts[len(root) :] if PurePosixPath(name).parts[: len(root)] == root else ()
        split = PARTS.get(inside[0].lower()) if with_parts and inside else "train"
        folders = inside[1:] if with_parts else inside
        if split is None or len(folders) < 2:
            outside += 1
            continue
        label = LABELS.get(folders[0].upper(), folders[0])
        records.append(_record(name, split, label, size))
    source.phantom = "/".join((*root, PHANTOM_MARKER)) in source.markers
    return ClassFolders(source, tuple(records), outside)


def with_patients(
    records: Sequence[Record], patients: str | Mapping[str, str] | None = None
) -> tuple[tuple[Record, ...], str]:
    """Return the records with the patient of each, and in a sentence how patients were told apart.

    Args:
        records: of any data set.
        patients: a regular expression whose one group is the patient, searched in the file's name (or, where it holds
            a slash, in the path below the data set's folder); or the patient of each name; None keeps the key that the
            records have. A file that it does not cover counts as a patient of its own.

    Raises:
        DataError: no regular expression, not just one group, or no file is covered.

    Examples:
        >>> ours = [Record("ill/p12-1.png", "train", "ill", "unspecified", "?", 1)]
        >>> with_patients(ours, r"(p\\d+)-")[0][0].patient
        'p12'
    """
    if patients is None:
        return tuple(records), _own_key(records)
    if isinstance(patients, str):
        found = _by_pattern(records, patients)
        key = f"Patients by the pattern {patients}"
    else:
        found = [patients.get(r.name, patients.get(PurePosixPath(r.name).name)) for r in records]
        key = "Patients by the table given"
    missing = sum(patient is None for patient in found)
    if records and missing == len(records):
        raise DataError(f"No file's patient is told. {key}. Received: names such as {records[0].name}")
    keyed = tuple(
        replace(record, patient=f"{_STRANGER}{record.name}" if patient is None else str(patient))
        for record, patient in zip(records, found, strict=True)
    )
    rest = f"; {missing:,} files that it does not cover count as patients of their own" if missing else ""
    return keyed, f"{key}{rest}."


def _by_pattern(records: Sequence[Record], pattern: str) -> list[str | None]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"The pattern of patients is no regular expression ({error}). Received: {pattern}") from error
    if compiled.groups != 1:
        raise DataError(
            "The pattern of patients needs one group in parentheses, such as '(p[0-9]+)-'. "
            f"Received: {pattern}, with {compiled.groups}"
        )
    whole = "/" in pattern
    matches = [compiled.search(r.name if whole else PurePosixPath(r.name).name) for r in records]
    return [match[1] if match else None for match in matches]


def _own_key(records: Sequence[Record]) -> str:
    strangers = sum(record.patient.startswith(_STRANGER) for record in records)
    if strangers == len(records):
        return "Each file counts as a patient of its own: give a pattern to tell patients apart."
    key = "Patients by the data set's own names: (bacteria or virus, number) and (IM or NORMAL2-IM, number)"
    rest = f"; {strangers:,} files with other names count as patients of their own" if strangers else ""
    return f"{key}{rest}."


def _record(name: str, split: str, label: str, size: int) -> Record:
    subtype, patient = "unspecified", f"{_STRANGER}{name}"
    if label in LABELS.values():
        identity = parse_name(split, label, name)
        subtype = identity.subtype
        if not identity.patient.startswith(_STRANGER):
            patient = identity.patient
    return Record(name, split, label, subtype, patient, size)


def _root(names: Iterable[str], where: str) -> tuple[tuple[str, ...], bool]:
    """Return the folder in which the parts stand, or else the classes, and which of both it is."""
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    roots = set()
    for parts in folders:
        depth = next((i for i, part in enumerate(parts[:-1]) if part.lower() in PARTS), None)
        if depth is not None:
            roots.add(parts[:depth])
    if roots:
        return min(roots, key=lambda root: (len(root), root)), True
    deep = [parts for parts in folders if parts]
    alike = [len(set(level)) == 1 for level in zip(*deep, strict=False)]
    common = deep[0][: alike.index(False) if False in alike else len(alike)] if deep else ()
    # A class may have no folders below it: then the common part of its paths is the class itself.
    classes = {parts[len(common)] for parts in deep if len(parts) > len(common)}
    if len(classes) < 2:
        seen = ", ".join(sorted({"/".join(parts) or "." for parts in folders})[:5]) or "no image files"
        raise DataError(
            "There are no class folders there. Allowed: a folder or zip with one folder a class, two or more, or with "
            f"such folders in train/ and test/. Received: {where}, with {seen}"
        )
    return common, False


class _Folder(FolderSource):
    """All images below a folder, by their path in it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.location, self.phantom = str(path), False
        files = files_below(path, (*ENDS, PHANTOM_MARKER))
        self.markers = {name for name in files if PurePosixPath(name).name == PHANTOM_MARKER}
        self._files = {
            name: (full, full.stat().st_size if full.is_file() else 0)
            for name, full in files.items()
            if name.lower().endswith(ENDS)
        }


class _Zip(ZipSource):
    """All images in a zip, by their path in it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.location, self.phantom = str(path), False
        self._path, self._local = Path(path), threading.local()
        try:
            with zipfile.ZipFile(self._path) as archive:
                files = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(
                f"That file is no zip that can be read ({error}). Allowed: a folder or a zip. Received: {path}"
            ) from error
        self.markers = {name for name in files if PurePosixPath(name).name == PHANTOM_MARKER}
        self._files = {
            name: (name, size)
            for name, size in sorted(files.items())
            if name.lower().endswith(ENDS) and not any(ignored(part) for part in PurePosixPath(name).parts)
        }
