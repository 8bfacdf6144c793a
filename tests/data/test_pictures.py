"""Pictures given by hand: which files of a folder are pictures, in which order, and names that never meet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pneumolib.data.pictures import files_below, find_pictures, is_below, names_of
from pneumolib.errors import DataError


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def test_files_of_the_suffixes_are_found_at_any_depth_in_order(tmp_path: Path) -> None:
    write(tmp_path, "b/2.PNG", "a/deep/er/1.dcm", "b/10.png", "notes.txt", ".hidden/3.png", "b/.4.png")
    found = files_below(tmp_path, (".png", ".dcm"))
    assert list(found) == ["a/deep/er/1.dcm", "b/10.png", "b/2.PNG"]
    assert found["a/deep/er/1.dcm"] == tmp_path / "a/deep/er/1.dcm"


def test_linked_folders_are_walked_once(tmp_path: Path) -> None:
    write(tmp_path, "store/1.png", "mine/2.png")
    (tmp_path / "mine/link").symlink_to(tmp_path / "store")
    (tmp_path / "mine/link/up").symlink_to(tmp_path / "mine")
    assert list(files_below(tmp_path / "mine", (".png",))) == ["2.png", "link/1.png"]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "open/1.png", "locked/2.png")
    scandir = os.scandir

    def locked(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(DataError, match=r"locked cannot be listed: Permission denied"):
        files_below(tmp_path, (".png",))


def test_the_order_is_that_of_the_arguments_and_files_count_whatever_their_names(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine", "b.jpeg", "a/c.DCM", "a/d.webp", "notes.txt")
    given = [tmp_path / "z.dat", mine, "IM0001", mine / "notes.txt"]
    found = [picture.path for picture in find_pictures(given)]
    assert found == [
        tmp_path / "z.dat", mine / "a/c.DCM", mine / "a/d.webp", mine / "b.jpeg", Path("IM0001"), mine / "notes.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("names", [[], ["notes.txt", ".hidden.png"]])
def test_a_folder_without_pictures_is_an_error_that_names_it(tmp_path: Path, names: list[str]) -> None:
    mine = write(tmp_path / "mine", "x", *names)
    with pytest.raises(DataError, match=r"no pictures in that folder\. Allowed: .*\.jpeg, .*\.dcm.*Received: .*mine$"):
        find_pictures([mine])


def test_what_stands_in_the_folder_for_results_is_no_picture(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine", "1.png", "heat/1.png.png", "heat/deep/2.png.png", "heating/3.png")
    (tmp_path / "link").symlink_to(mine / "heat")
    for outside in (mine / "heat", tmp_path / "link", mine / "heating" / ".." / "heat"):
        found = find_pictures([mine], outside=outside)
        assert [picture.path for picture in found] == [mine / "1.png", mine / "heating/3.png"]
    with pytest.raises(DataError, match="another folder, which may be one inside"):
        find_pictures([mine], outside=tmp_path / "heat" / ".." / "mine")


def test_names_are_paths_below_what_holds_all_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a/1.png", "a/deep/2.png", "b/1.png")
    monkeypatch.chdir(tmp_path / "a")
    for given, names in [
        (["1.png"], ["1.png"]),
        (["."], ["1.png", "deep/2.png"]),
        (["deep"], ["2.png"]),
        (["deep", "1.png"], ["deep/2.png", "1.png"]),
        (["../b/1.png", "1.png"], ["b/1.png", "a/1.png"]),
        ([".", "../b"], ["a/1.png", "a/deep/2.png", "b/1.png"]),
        (["1.png", str(tmp_path / "a/1.png"), "deep/../1.png"], ["1.png"] * 3),
    ]:
        assert [name.as_posix() for name in names_of(find_pictures(given))] == names


def test_links_and_dots_give_no_two_files_one_name(tmp_path: Path) -> None:
    write(tmp_path, "x.png", "store/x.png", "store/inner/y.png")
    (tmp_path / "link").symlink_to(tmp_path / "store/inner")
    # Through the link, ".." is the store.
    names = names_of(find_pictures([tmp_path / "x.png", tmp_path / "link/../x.png"]))
    assert [name.as_posix() for name in names] == ["x.png", "store/x.png"]


def test_pictures_on_two_drives_have_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def drives(paths: list[str]) -> str:
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", drives)
    with pytest.raises(DataError, match="same drive"):
        names_of(find_pictures(["x.png"]))


def test_below_is_told_with_links_resolved(tmp_path: Path) -> None:
    write(tmp_path, "in/1.png", "inside/2.png")
    (tmp_path / "in/out").symlink_to(tmp_path / "inside")
    assert is_below(tmp_path / "in", tmp_path / "in")
    assert is_below(tmp_path / "in/not/yet", tmp_path / "in")
    assert not is_below(tmp_path / "inside", tmp_path / "in")
    assert not is_below(tmp_path / "in/out", tmp_path / "in")
    assert not is_below(tmp_path / "in/..", tmp_path / "in")
