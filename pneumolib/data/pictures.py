"""Pictures given by hand: files as they are, folders with all the pictures below them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pneumolib.errors import DataError

SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp", ".webp")
DICOM_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")
ENDS = (*SUFFIXES, *DICOM_SUFFIXES)  # of the names of all files that are taken for pictures


@dataclass(frozen=True)
class Picture:
    """A file, and the folder that it was found below: one that was given, or the file's own."""

    path: Path
    folder: Path


def find_pictures(
    given: Sequence[str | os.PathLike[str]], *, outside: str | os.PathLike[str] | None = None
) -> list[Picture]:
    """Return the pictures in the order given, those of a folder sorted by their path in it.

    Args:
        given: files, which are taken whatever their names, whether they are there or not; and folders, in which files
            that end in one of `ENDS` are pictures, at any depth, hidden ones left out.
        outside: a folder for what is made of the pictures; what stands in it is none.

    Raises:
        DataError: a folder has no pictures, cannot be listed, or is `outside` itself.

    Examples:
        >>> [picture.path.name for picture in find_pictures(["b.png", "a.dat"])]
        ['b.png', 'a.dat']
    """
    found = []
    for argument in given:
        if not os.path.isdir(argument):
            found.append(Picture(Path(argument), Path(argument).parent))
            continue
        files = list(files_below(argument, ENDS).values())
        if outside is not None:
            if os.path.realpath(argument) == os.path.realpath(outside):
                raise DataError(
                    "What is made of pictures cannot go among them, where it would count as pictures. "
                    f"Allowed: another folder, which may be one inside. Received: {outside}"
                )
            files = [file for file in files if not is_below(file.parent, outside)]
        if not files:
            raise DataError(
                f"There are no pictures in that folder. Allowed: files that end in {', '.join(ENDS)}, at any "
                f"depth. Received: {os.fspath(argument)}"
            )
        found += [Picture(file, Path(argument)) for file in files]
    return found


def names_of(pictures: Sequence[Picture]) -> list[Path]:
    """Return the path of each picture below the deepest folder that holds them all.

    No two files have the same, and none leads out of a folder that it is put into.

    Raises:
        DataError: they stand on several drives, and no folder holds them all.

    Examples:
        >>> [name.as_posix() for name in names_of(find_pictures(["here/a.png", "there/a.png"]))]
        ['here/a.png', 'there/a.png']
    """
    # As the system resolves them, so that neither ".." nor a link gives two files one name.
    real = {folder: os.path.realpath(folder) for folder in {picture.folder for picture in pictures}}
    try:
        top = os.path.commonpath(list(real.values()))
    except ValueError as error:
        raise DataError(
            f"Heat maps are named by the folder that holds all pictures, and there is none: {error}"
        ) from error
    return [Path(os.path.relpath(real[p.folder], top), p.path.relative_to(p.folder)) for p in pictures]


def is_below(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Return whether a path is a folder or leads into it, with links resolved."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def files_below(top: str | os.PathLike[str], suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Return the files below a folder, at any depth, by their path in it (with ``/``), sorted by that.

    Links are followed, and a folder that is met a second time is left out; so are hidden files and folders, and what
    macOS leaves in archives.

    Args:
        top: the folder.
        suffixes: ends of names, small letters; the files' own may be large.

    Raises:
        DataError: a folder cannot be listed.
    """
    found: dict[str, Path] = {}
    seen: set[str] = set()
    for folder, folders, files in os.walk(top, followlinks=True, onerror=_refuse):
        # A link may lead back up; whoever was visited is not visited again.
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(name for name in folders if not ignored(name))
        for file in [] if real in seen else files:
            if file.lower().endswith(suffixes) and not ignored(file):
                full = Path(folder, file)
                found[full.relative_to(top).as_posix()] = full
        seen.add(real)
    return dict(sorted(found.items()))


def _refuse(error: OSError) -> None:
    raise DataError(f"The folder {error.filename} cannot be listed: {error.strerror}.") from error


def ignored(part: str) -> bool:
    """Return whether a file or folder of that name is hidden, or left behind by macOS."""
    return part.startswith(".") or part == "__MACOSX"
