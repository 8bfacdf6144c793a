"""Folders and zips as sources of image files, read where they are; nothing is unpacked."""

from __future__ import annotations

import hashlib
import lzma
import os
import threading
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Protocol

from pneumolib.data.card import LABELS, SPLITS
from pneumolib.data.pictures import ENDS, files_below, ignored
from pneumolib.errors import DataError, DataNotFoundError, ImageTooLargeError

PHANTOM_MARKER = "phantom.json"  # stands in a folder of synthetic X-rays
# A file beyond this is no X-ray of this set (its largest is under 3 MB); a zip entry may claim any size.
MAX_FILE_BYTES = 64 * 2**20
# What reading a damaged, encrypted or oddly packed member of a zip raises.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, NotImplementedError, RuntimeError)


class Source(Protocol):
    """Where image files are read from: names relative to the data set's root, ``train/NORMAL/…``."""

    location: str
    phantom: bool  # the images are synthetic: the phantom's marker stands beside train/ and test/

    def names(self) -> dict[str, int]:
        """Return each image's name and its size in bytes, sorted by name."""
        ...

    def read(self, name: str) -> bytes:
        """Return the bytes of one file."""
        ...


class FolderSource:
    """The image files below a folder; the root is found at any depth.

    Args:
        path: the folder.

    Raises:
        DataNotFoundError: there is no such folder.
        DataError: no ``train/`` or ``test/`` with class folders is in it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.location = str(path)
        top = Path(path)
        if not top.is_dir():
            raise DataNotFoundError(f"There is no folder at that path. Received: {path}")
        # A link that leads nowhere counts as an empty file, to be found by whoever reads it.
        files = files_below(top, ENDS)
        found = {name: (full, full.stat().st_size if full.is_file() else 0) for name, full in files.items()}
        root, names = _below_root(found, self.location)
        self._files = {name: found[original] for name, original in names.items()}
        self.phantom = top.joinpath(*root, PHANTOM_MARKER).is_file()

    def names(self) -> dict[str, int]:
        """Return each image's name and its size in bytes, sorted by name."""
        return {name: size for name, (_, size) in self._files.items()}

    def read(self, name: str) -> bytes:
        """Return the bytes of one file; `DataError` where the system does not give them."""
        try:
            return self._files[name][0].read_bytes()
        except OSError as error:
            raise DataError(
                f"{name} cannot be read from {self.location}: {error.strerror}. Does the file still stand there?"
            ) from error


class ZipSource:
    """The image files in a zip; the root is found at any depth. Threads and processes may read at the same time.

    Args:
        path: the zip file.

    Raises:
        DataNotFoundError: there is no such file.
        DataError: it is no zip, or no ``train/`` or ``test/`` with class folders is in it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.location = str(path)
        if not Path(path).is_file():
            raise DataNotFoundError(f"There is no file at that path. Received: {path}")
        self._path = Path(path)
        self._local = threading.local()
        try:
            with zipfile.ZipFile(self._path) as archive:
                inside = set(archive.namelist())
                sizes = {
                    info.filename: info.file_size
                    for info in archive.infolist()
                    if not info.is_dir()
                    and info.filename.lower().endswith(ENDS)
                    and not any(ignored(part) for part in PurePosixPath(info.filename).parts)
                }
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(
                f"That file is no zip that can be read ({error}). Allowed: a folder or a zip. Received: {path}"
            ) from error
        root, names = _below_root(sizes, self.location)
        self._files = {name: (original, sizes[original]) for name, original in names.items()}
        self.phantom = "/".join([*root, PHANTOM_MARKER]) in inside

    def names(self) -> dict[str, int]:
        """Return each image's name and its size in bytes, sorted by name."""
        return {name: size for name, (_, size) in self._files.items()}

    def read(self, name: str) -> bytes:
        """Return the bytes of one file; `DataError` where the zip is damaged there."""
        inside, size = self._files[name]
        if size > MAX_FILE_BYTES:
            raise ImageTooLargeError(
                f"{name} in {self.location} is too large. Allowed: {MAX_FILE_BYTES:,} bytes. Received: {size:,}"
            )
        try:
            return self._archive().read(inside)
        except _ZIP_ERRORS as error:
            raise DataError(f"{name} cannot be read from {self.location}: {error}. Get the zip again.") from error

    def _archive(self) -> zipfile.ZipFile:
        # One handle a thread, made anew in a forked process: a handle's position is not to be shared.
        if getattr(self._local, "process", None) != os.getpid():
            self._local.archive, self._local.process = zipfile.ZipFile(self._path), os.getpid()
        archive: zipfile.ZipFile = self._local.archive
        return archive

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k != "_local"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()


def open_source(path: str | os.PathLike[str]) -> FolderSource | ZipSource:
    """Return the source at `path`, a folder or a zip.

    Raises:
        DataNotFoundError: nothing stands there.
        DataError: it is neither, or holds no data set.
    """
    if Path(path).is_dir():
        return FolderSource(path)
    if not Path(path).exists():
        raise DataNotFoundError(f"There is neither a folder nor a zip at that path. Received: {path}")
    return ZipSource(path)


def fingerprint(files: Iterable[tuple[str, int]]) -> str:
    """Return 16 hexadecimal digits of the names and sizes of files, in the order given."""
    text = "\n".join(f"{name} {size}" for name, size in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _below_root(paths: Iterable[str], where: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the data set's root, the shallowest folder that holds class folders, and the path of each name below it.

    Kaggle's archive holds the whole set twice, one inside the other; the shallower one is taken.
    """
    roots: dict[tuple[str, ...], dict[str, str]] = {}
    for path in paths:
        parts = PurePosixPath(path).parts
        if len(parts) >= 3 and parts[-3].lower() in SPLITS and parts[-2].upper() in LABELS and ".." not in parts:
            name = f"{parts[-3].lower()}/{parts[-2].upper()}/{parts[-1]}"
            roots.setdefault(parts[:-3], {})[name] = path
    if not roots:
        seen = ", ".join(sorted({"/".join(PurePosixPath(p).parts[:-1]) or "." for p in paths})[:5]) or "no image files"
        raise DataError(
            "There is no data set there. Allowed: a folder or zip with train/ or test/ (any depth), and NORMAL/ and "
            f"PNEUMONIA/ in them. Received: {where}, with {seen}"
        )
    root = min(roots, key=lambda r: (len(r), r))
    return root, dict(sorted(roots[root].items()))
