"""The bytes of members: from files and from zips of every make, with damage and excess refused."""

from __future__ import annotations

import dataclasses
import io
import os
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from pneumolib.data.images import DEFAULT_LIMITS
from pneumolib.errors import DataError, DataNotFoundError, ImageTooLargeError
from pneumolib.scale.inputs import Input, Member
from pneumolib.scale.reading import Reader

FILES = {"a.png": b"first " * 500, "b/empty.png": b"", "c.png": os.urandom(3000)}
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def zip_bytes(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def read(path: Path) -> dict[str, bytes]:
    source = Input(path)
    with Reader(source.root) as reader:
        return {member.path: reader.read(member) for member in source.members()}


def test_a_folder_gives_its_files(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert read(tmp_path) == FILES


@pytest.mark.parametrize("method", METHODS)
def test_a_zip_gives_its_files_however_they_are_packed(tmp_path: Path, method: int) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes(FILES, method))
    assert read(tmp_path / "a.zip") == FILES


def test_a_zip_behind_other_bytes_is_read_at_the_right_places(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"#!/bin/sh\n" * 10 + zip_bytes(FILES))
    assert read(tmp_path / "a.zip") == FILES


def test_of_two_files_of_one_name_both_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("same.png", b"one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("same.png", b"two")
    source = Input(tmp_path / "a.zip")
    with Reader(source.root) as reader:
        assert [reader.read(member) for member in source.members()] == [b"one", b"two"]


def test_files_of_two_zips_in_turns(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.zip").write_bytes(zip_bytes({"1.png": name.encode(), "2.png": name.encode() * 2}))
    source = Input(tmp_path)
    members = list(source.members())
    with Reader(source.root) as reader:
        assert [reader.read(members[i]) for i in (0, 2, 1, 3)] == [b"a", b"b", b"aa", b"bb"]


def test_damage_in_a_zip_is_noticed(tmp_path: Path) -> None:
    content = bytearray(zip_bytes({"a.png": bytes(range(256)) * 20}, zipfile.ZIP_STORED))
    content[200] ^= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read from its zip: its size or its checksum"):
        read(tmp_path / "a.zip")


def test_a_zip_that_was_cut_off_since_it_was_listed_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes(FILES))
    source = Input(tmp_path / "a.zip")
    first, *_ = source.members()
    (tmp_path / "a.zip").write_bytes(b"PK")
    with Reader(source.root) as reader, pytest.raises(DataError, match="from its zip: no file begins"):
        reader.read(first)


def test_more_than_a_zip_promises_is_never_unpacked(tmp_path: Path) -> None:
    (tmp_path / "bomb.zip").write_bytes(zip_bytes({"bomb.png": bytes(50_000_000)}))
    source = Input(tmp_path / "bomb.zip")
    (member,) = source.members()
    lying = dataclasses.replace(member, size=1000)
    tracemalloc.start()
    try:
        with Reader(source.root) as reader, pytest.raises(DataError, match="its size or its checksum"):
            reader.read(lying)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_what_is_larger_than_an_image_may_be_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "large.bmp", "wb") as file:
        file.truncate(DEFAULT_LIMITS.max_bytes + 1)
    with zipfile.ZipFile(tmp_path / "large.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "large.bmp", "large.bmp")
    source = Input(tmp_path)
    for member in source.members():
        with pytest.raises(ImageTooLargeError, match=r"Allowed: 67,108,864 bytes. Received: 67,108,865"):
            Reader(source.root).read(member)


def test_a_locked_file_of_a_zip_is_an_error(tmp_path: Path) -> None:
    content = bytearray(zip_bytes({"a.png": b"secret"}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        read(tmp_path / "a.zip")


@pytest.mark.parametrize("name", ["missing.png", "a\0b.png"])
def test_a_file_that_is_not_there_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataNotFoundError, match="no such file"):
        Reader(str(tmp_path)).read(Member(name, -1))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no plain file"):
        Reader(str(tmp_path)).read(Member(".", 1))


@pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="no plain file"):
        read(tmp_path)


def test_what_could_not_be_listed_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder cannot be listed"):
        Reader(str(tmp_path)).read(Member("closed", -1, problem="the folder cannot be listed"))
