"""What there is to score: every kind of input, the same order each time, nothing lost and nothing twice."""

from __future__ import annotations

import os
import random
import sys
import zipfile
from pathlib import Path

import pytest

from pneumolib.errors import DataError, DataNotFoundError
from pneumolib.scale.inputs import Input, InZip, Member, text

NAMES = ["b/2.png", "a/x/1.jpeg", "a.JPG", "b/1.dcm", "b/IM0001", "b/1.2.840.113619.2", "a/z.tif"]
IN_ORDER = ["a/x/1.jpeg", "a/z.tif", "a.JPG", "b/1.2.840.113619.2", "b/1.dcm", "b/2.png", "b/IM0001"]
OTHERS = ["notes.txt", "b/table.csv", "b/DICOMDIR", ".hidden.png", ".git/1.png", "__MACOSX/a.JPG", "old.tar.gz"]


def write(folder: Path, names: list[str], content: bytes = b"x") -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def zipped(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), b"x")
    return path


def paths(source: Input) -> list[str]:
    return [member.path for member in source.members()]


def test_folder_and_zip_list_the_same_in_the_same_order(tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(NAMES + OTHERS, len(NAMES + OTHERS))
    folder, archive = Input(write(tmp_path / "set", shuffled)), Input(zipped(tmp_path / "set.zip", shuffled))
    assert paths(folder) == paths(archive) == IN_ORDER


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    folder, archive = Input(write(tmp_path / "set", NAMES + OTHERS)), Input(zipped(tmp_path / "set.zip", OTHERS))
    assert len(paths(folder)) == len(NAMES)
    assert folder.left_out == {"hidden": 3, ".txt": 1, ".csv": 1, "DICOMDIR": 1, ".gz": 1}
    assert paths(archive) == []
    assert archive.left_out == folder.left_out


def test_pictures_of_foreign_formats_are_listed_so_that_the_scores_name_them(tmp_path: Path) -> None:
    assert paths(Input(write(tmp_path / "set", ["a.gif", "b.jp2", "c.heic"]))) == ["a.gif", "b.jp2", "c.heic"]


def test_a_zip_in_a_folder_counts_as_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "set", ["1.png", "z/3.png"])
    zipped(tmp_path / "set" / "more.zip", ["b.png", "a/2.png"])
    source = Input(tmp_path / "set")
    members = list(source.members())
    assert [m.path for m in members] == ["1.png", "more.zip/a/2.png", "more.zip/b.png", "z/3.png"]
    assert [m.zip.path if m.zip else None for m in members] == [None, "more.zip", "more.zip", None]


def test_odd_and_repeated_names_in_a_zip_are_all_listed(tmp_path: Path) -> None:
    odd = ["../up.png", "/root.png", "a\\b.png", "new\nline.png", "\u00fc \u80ba.png", "with space .png", "same.png"]
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = zipped(tmp_path / "odd.zip", [*odd, "same.png"])
    found = list(Input(archive).members())
    assert sorted(m.path for m in found) == sorted([*odd, "same.png"])
    assert len({m.zip.offset for m in found if m.zip}) == len(found)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes")
def test_a_name_that_is_no_unicode_survives_the_manifest_and_is_spelt_out_in_the_scores(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/set/r\xf6ntgen\n.png")).write_bytes(b"x")
    (member,) = Input(tmp_path / "set").members()
    assert Member.from_json(member.to_json()) == member
    assert "\n" not in member.to_json()
    assert text(member.path) == "r\\udcf6ntgen\n.png"
    assert os.path.exists(tmp_path / "set" / member.path)


@pytest.mark.parametrize(
    "member",
    [
        Member("a.png", 12, 34),
        Member("lost.png", -1),
        Member("z.zip/a.png", 5, zip=InZip("z.zip", 1, 2, 3, 8, 0, 4)),
        Member("folder", -1, problem="cannot be listed"),
    ],
)
def test_a_member_survives_its_line(member: Member) -> None:
    assert Member.from_json(member.to_json()) == member


@pytest.mark.parametrize("lines", ["a.png\nb/c.png\n\na.png\n", "a.png\r\nb/c.png\r\na.png"])
def test_a_text_file_is_a_list_in_its_own_order_with_repetitions(tmp_path: Path, lines: str) -> None:
    write(tmp_path, ["a.png", "b/c.png"])
    (tmp_path / "list.txt").write_bytes(lines.encode())
    source = Input(tmp_path / "list.txt")
    assert paths(source) == ["a.png", "b/c.png", "a.png"]
    assert source.root == str(tmp_path)


def test_a_csv_file_is_a_list_by_its_column_of_paths(tmp_path: Path) -> None:
    write(tmp_path, ["a, b.png", "c.png"])
    (tmp_path / "list.csv").write_text('\ufeffpatient,Path\n1,"a, b.png"\n2,c.png\n3,missing.png\n', encoding="utf-8")
    members = list(Input(tmp_path / "list.csv").members())
    assert [m.path for m in members] == ["a, b.png", "c.png", "missing.png"]
    assert [m.size for m in members] == [1, 1, -1]


def test_a_csv_file_without_a_column_of_paths_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("patient,age\n1,2\n")
    with pytest.raises(DataError, match=r"no column of paths.*Received: patient, age"):
        paths(Input(tmp_path / "list.csv"))


def test_a_zip_in_a_list_is_listed_with_its_members(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", ["1.png"])
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.zip\n")
    assert paths(Input(tmp_path / "list.txt")) == [f"{tmp_path}/a.zip/1.png"]


def test_one_file_is_an_input_of_one(tmp_path: Path) -> None:
    write(tmp_path, ["x-ray.jpeg"])
    source = Input(tmp_path / "x-ray.jpeg")
    assert paths(source) == ["x-ray.jpeg"]


def test_nothing_there_is_an_error_that_says_what_may_be(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"Allowed: a folder, a zip, a list.*nowhere"):
        Input(tmp_path / "nowhere")


def test_what_cannot_be_listed_inside_is_a_member_with_a_problem(tmp_path: Path) -> None:
    write(tmp_path / "set", ["1.png", "damaged.zip"])
    (damaged,) = (m for m in Input(tmp_path / "set").members() if m.problem)
    assert damaged.path == "damaged.zip"
    assert damaged.problem is not None
    assert "zip cannot be read" in damaged.problem


def test_a_folder_without_permission_is_a_member_with_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "set", ["1.png", "closed/2.png"])
    scan = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    found = list(Input(tmp_path / "set").members())
    assert [(m.path, m.problem) for m in found][1] == ("closed", "the folder cannot be listed: Permission denied")
    with pytest.raises(DataError, match="cannot be listed"):
        paths(Input(tmp_path / "set" / "closed"))


def test_a_damaged_zip_as_the_input_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, ["set.zip"])
    with pytest.raises(DataError, match="the zip cannot be read"):
        paths(Input(tmp_path / "set.zip"))


def test_links_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "set", ["b/1.png"])
    (tmp_path / "set" / "b" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "c").symlink_to(tmp_path / "set" / "b")
    (tmp_path / "set" / "self.png").symlink_to(tmp_path / "set" / "self.png")
    (tmp_path / "set" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    assert [(m.path, m.size) for m in Input(tmp_path / "set").members()] == [
        ("b/1.png", 1), ("nowhere.png", -1), ("self.png", -1),
    ]  # fmt: skip


def test_the_jobs_own_folder_is_no_part_of_the_input(tmp_path: Path) -> None:
    write(tmp_path, ["1.png", "scores.parquet.parts/2.png"])
    assert paths(Input(tmp_path, skip=tmp_path / "scores.parquet.parts")) == ["1.png"]


def test_a_synthetic_set_is_known_by_its_mark(tmp_path: Path) -> None:
    for place in (write(tmp_path / "set", ["phantom.json", "a/1.png"]), zipped(tmp_path / "z.zip", ["s/phantom.json"])):
        source = Input(place)
        list(source.members())
        assert source.phantom
