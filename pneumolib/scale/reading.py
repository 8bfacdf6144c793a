"""Reads the members of an input: plain files, and files in zips without the zip's table of contents."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from typing import BinaryIO

from pneumolib.data.images import DEFAULT_LIMITS
from pneumolib.errors import DataError, DataNotFoundError, ImageTooLargeError
from pneumolib.scale.inputs import ZIP_ERRORS, InZip, Member

_HEADER = 30  # bytes of a member's own header in a zip, before its name
_ENCRYPTED = 1


class Reader:
    """Reads members; holds one file at a time, and the zip that it read last open.

    Args:
        root: of the `Input` that listed them.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._zip: tuple[str, BinaryIO] | None = None

    def read(self, member: Member) -> bytes:
        """Return the bytes of one member.

        Raises:
            DataNotFoundError: it is not there any more.
            ImageTooLargeError: it has more bytes than an image may have; it was not read.
            DataError: it could not be listed, is no plain file, or its zip is damaged there.
            OSError: the system does not give them.
        """
        if member.problem:
            raise DataError(member.problem)
        if member.zip is None:
            return _plain(os.path.join(self._root, member.path))
        _require_size(max(member.size, member.zip.packed))
        try:
            return self._from_zip(member, member.zip)
        except ZIP_ERRORS as error:
            raise DataError(f"the file cannot be read from its zip: {error}") from error

    def _from_zip(self, member: Member, at: InZip) -> bytes:
        path = os.path.join(self._root, at.path) if at.path else self._root
        if at.flags & _ENCRYPTED or at.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            with zipfile.ZipFile(path) as archive:
                return archive.read(archive.infolist()[at.index])
        file = self._open(path)
        file.seek(at.offset)
        header = file.read(_HEADER)
        if header[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile("no file begins where its table of contents says")
        file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
        content = file.read(at.packed)
        if at.method == zipfile.ZIP_DEFLATED:
            # One byte more than there should be, so that too many are noticed and never all unpacked.
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1)
        if len(content) != member.size or zlib.crc32(content) != at.crc:
            raise zipfile.BadZipFile("its size or its checksum is not what the table of contents says")
        return content

    def close(self) -> None:
        """Close the zip that is open."""
        if self._zip is not None:
            self._zip[1].close()
            self._zip = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, path: str) -> BinaryIO:
        if self._zip is None or self._zip[0] != path:
            self.close()
            self._zip = path, open(path, "rb")  # noqa: SIM115
        return self._zip[1]


def _plain(path: str) -> bytes:
    try:
        facts = os.stat(path)
    except (FileNotFoundError, ValueError) as error:
        raise DataNotFoundError("there is no such file. Was it moved or deleted?") from error
    if not stat.S_ISREG(facts.st_mode):
        raise DataError("it is no plain file but a folder or a device. Allowed: the path of an image.")
    _require_size(facts.st_size)
    with open(path, "rb") as file:
        return file.read()


def _require_size(size: int) -> None:
    if size > DEFAULT_LIMITS.max_bytes:
        raise ImageTooLargeError(
            f"the file is too large. Allowed: {DEFAULT_LIMITS.max_bytes:,} bytes. Received: {size:,} bytes"
        )
