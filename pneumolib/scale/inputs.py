"""What there is to score: the members of a folder, a zip or a list of files, in an order that is always the same.

A folder is walked in the order of names, with zips in it taken for folders. Files with the suffix of an image or of
DICOM are members, and files without a suffix, as DICOM archives have them: what is in them is seen when they are
scored. Everything else is left out and counted. Nothing is opened but zips, of which only the table of contents is
read, and nothing is ever unpacked to disk.

What cannot be listed (a folder without permission, a damaged zip) is a member, too, with the reason as its `problem`,
so that it turns up among the scores. Only INPUT itself must be readable.
"""

from __future__ import annotations

import collections
import csv
import json
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pneumolib.data.pictures import DICOM_SUFFIXES, SUFFIXES
from pneumolib.data.sources import PHANTOM_MARKER
from pneumolib.errors import DataError, DataNotFoundError

# Pictures that are not read: they are listed, so that the scores say so.
FOREIGN_SUFFIXES = (".jpe", ".jfif", ".gif", ".jp2", ".j2k", ".heic", ".avif", ".pgm", ".ppm", ".psd")
COLUMNS = ("path", "file", "filename")  # of a CSV file, the first that it has
# What a damaged, encrypted or oddly packed zip raises.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, ValueError)
_LISTED = {*SUFFIXES, *DICOM_SUFFIXES, *FOREIGN_SUFFIXES}
_KINDS = {".zip": "zip", ".txt": "list", ".csv": "list"}


@dataclass(frozen=True, slots=True)
class InZip:
    """Where a zip holds a member: a reader goes there at once and need not read the table of contents."""

    path: str  # of the zip, below the root; empty where the root is the zip
    index: int
    offset: int
    packed: int
    method: int
    flags: int
    crc: int


@dataclass(frozen=True, slots=True)
class Member:
    """One file to score, or what stands in the way of listing it."""

    path: str  # below INPUT, with "/"; of a list of files, as it is written there
    size: int  # bytes; -1 where that is not known
    changed: int = 0  # time of the last change, ns; 0 in a zip, whose checksum tells more
    zip: InZip | None = None
    problem: str | None = None

    def to_json(self) -> str:
        """Return it as one line, without the line's end; a name that is no Unicode survives."""
        values: dict[str, Any] = {"path": self.path, "size": self.size}
        if self.zip:
            at = self.zip
            values["zip"] = [at.path, at.index, at.offset, at.packed, at.method, at.flags, at.crc]
        elif self.problem:
            values["problem"] = self.problem
        else:
            values["changed"] = self.changed
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> Member:
        """Return the member that `to_json` wrote."""
        values = json.loads(line)
        if "zip" in values:
            values["zip"] = InZip(*values["zip"])
        return cls(**values)


class Input:
    """A folder, a zip, a list of files (``.txt`` with a path a line, ``.csv`` with a column ``path``), or one file.

    Relative paths in a list count from the list's folder.

    Args:
        path: where it stands.
        skip: a folder that is no part of it, though it may stand in it.

    Raises:
        DataNotFoundError: nothing stands there.
    """

    def __init__(self, path: str | os.PathLike[str], skip: str | os.PathLike[str] | None = None) -> None:
        self._path = Path(path)
        self._skip = os.path.realpath(skip) if skip is not None else None
        if not self._path.exists():
            raise DataNotFoundError(
                "There is nothing to score at that path. Allowed: a folder, a zip, a list of files (.txt or .csv), or "
                f"an image. Received: {os.fspath(path)}"
            )
        kind = "folder" if self._path.is_dir() else _KINDS.get(self._path.suffix.lower(), "file")
        self.kind = kind
        self.root = os.path.abspath(self._path if kind in ("folder", "zip") else self._path.parent)
        self.left_out: collections.Counter[str] = collections.Counter()  # suffix -> files, as the walk meets them
        self.phantom = False  # has the walk met the mark of a synthetic data set?

    def members(self) -> Iterator[Member]:
        """Yield the members in order, holding the names of one folder, or of one zip, at a time.

        Raises:
            DataError: INPUT itself cannot be read.
        """
        if self.kind == "folder":
            yield from self._walk(self.root, "", set())
        elif self.kind == "zip":
            yield from self._in_zip(self.root, "", "")
        elif self.kind == "list":
            for name in _entries(self._path):
                yield from self._file(name, os.path.join(self.root, name))
        else:
            yield from self._file(self._path.name, str(self._path))

    def _walk(self, folder: str, prefix: str, seen: set[str]) -> Iterator[Member]:
        real = os.path.realpath(folder)
        # A link may lead back up; whoever was visited is not visited again.
        if real in seen or real == self._skip:
            return
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                found = sorted((entry.name, _is_folder(entry)) for entry in entries)
        except OSError as error:
            yield _unlisted(folder, prefix, f"the folder cannot be listed: {error.strerror}")
            return
        for name, is_folder in found:
            path = os.path.join(folder, name)
            if _hidden(name):
                self.left_out["hidden"] += 1
            elif is_folder:
                yield from self._walk(path, f"{prefix}{name}/", seen)
            elif _KINDS.get(PurePosixPath(name).suffix.lower()) == "zip" or self._wanted(name):
                yield from self._file(prefix + name, path)

    def _file(self, name: str, path: str) -> Iterator[Member]:
        if name.lower().endswith(".zip"):
            yield from self._in_zip(path, f"{name}/", name)
            return
        try:
            facts = os.stat(path)
        except (OSError, ValueError):  # a link that leads nowhere, a name that cannot be: whoever reads it says so
            yield Member(name, -1)
        else:
            yield Member(name, facts.st_size, facts.st_mtime_ns)

    def _in_zip(self, path: str, prefix: str, below: str) -> Iterator[Member]:
        try:
            with zipfile.ZipFile(path) as archive:
                entries = sorted(enumerate(archive.infolist()), key=lambda e: (e[1].filename.split("/"), e[0]))
        except ZIP_ERRORS as error:
            yield _unlisted(path, prefix, f"the zip cannot be read: {error}")
            return
        for index, info in entries:
            parts = PurePosixPath(info.filename).parts
            if info.is_dir():
                continue
            if any(_hidden(part) for part in parts):
                self.left_out["hidden"] += 1
            elif self._wanted(parts[-1] if parts else ""):
                where = InZip(
                    below, index, info.header_offset, info.compress_size, info.compress_type, info.flag_bits, info.CRC
                )
                yield Member(prefix + info.filename, info.file_size, zip=where)

    def _wanted(self, name: str) -> bool:
        suffix = PurePosixPath(name).suffix.lower()
        # Names such as 1.2.840.113619.2 are whole identifiers of DICOM; DICOMDIR is a table of contents.
        nameless = not suffix or re.fullmatch(r"\.[0-9]+", suffix)
        if suffix in _LISTED or (nameless and name.upper() != "DICOMDIR"):
            return True
        self.phantom |= name == PHANTOM_MARKER
        self.left_out[suffix or name] += 1
        return False


def text(name: str) -> str:
    """Return a name as Unicode; what is none in it is spelt out.

    Examples:
        >>> text("r\\udcf6ntgen.png")
        'r\\\\udcf6ntgen.png'
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _unlisted(path: str, prefix: str, problem: str) -> Member:
    if not prefix:
        raise DataError(f"{path}: {problem}.")
    return Member(prefix.rstrip("/"), -1, problem=problem)


def _entries(path: Path) -> Iterator[str]:
    """Yield the paths in a list of files; `DataError` where it cannot be read or is no such list."""
    try:
        # Names of files are bytes: those that are no UTF-8 must come through as the system wrote them.
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            if path.suffix.lower() == ".txt":
                yield from (name for line in file if (name := line.rstrip("\r\n")))
                return
            table = csv.DictReader(file)
            names = {name.strip().lower(): name for name in table.fieldnames or () if name}
            column = next((names[name] for name in COLUMNS if name in names), None)
            if column is None:
                seen = ", ".join(map(str, table.fieldnames or ())) or "an empty file"
                raise DataError(
                    f"{path} has no column of paths. Allowed: a first line that names one of {', '.join(COLUMNS)}. "
                    f"Received: {seen[:200]}"
                )
            yield from (row[column] for row in table if row[column])
    except OSError as error:
        raise DataError(f"The list {path} cannot be read: {error.strerror}.") from error
    except csv.Error as error:
        raise DataError(f"The list {path} is no CSV file: {error}.") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _hidden(part: str) -> bool:
    return part == "__MACOSX" or (part.startswith(".") and part != "..")
