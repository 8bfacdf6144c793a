"""Data sets of other people: where their classes and parts are, and who their patients are."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from pneumolib.data.class_folders import ClassFolders, class_folders, with_patients
from pneumolib.data.dataset import Record
from pneumolib.errors import DataError, DataNotFoundError, ImageError


def written(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def rows(found: ClassFolders) -> list[tuple[str, str, str]]:
    return [(record.name, record.split, record.label) for record in found.records]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_folders_that_part_first_are_the_classes(tmp_path: Path, kind: str) -> None:
    names = ["mine/ill/p1/a.png", "mine/healthy/b.PNG", "mine/ill/c.jpg", "mine/logo.png", "mine/ill/notes.txt"]
    names += ["mine/.hidden/x.png", "mine/ill/.y.png"]
    found = class_folders(
        written(tmp_path / "set", *names) if kind == "folder" else zipped(tmp_path / "set.zip", *names)
    )
    assert rows(found) == [
        ("mine/healthy/b.PNG", "train", "healthy"),
        ("mine/ill/c.jpg", "train", "ill"),
        ("mine/ill/p1/a.png", "train", "ill"),
    ]
    assert found.labels == ("healthy", "ill")
    assert found.outside == 1
    assert found.source.read("mine/ill/c.jpg") == b"mine/ill/c.jpg"
    assert found.records[1].n_bytes == len(b"mine/ill/c.jpg")
    assert not found.source.phantom


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_folders_named_after_parts_are_the_parts_at_the_shallowest_place(tmp_path: Path, kind: str) -> None:
    names = ["a/Training/x/1.png", "a/valid/x/2.png", "a/test/y/3.png", "a/extra/4.png", "b/c/train/z/5.png"]
    found = class_folders(
        written(tmp_path / "set", *names) if kind == "folder" else zipped(tmp_path / "set.zip", *names)
    )
    assert rows(found) == [
        ("a/Training/x/1.png", "train", "x"),
        ("a/test/y/3.png", "test", "y"),
        ("a/valid/x/2.png", "val", "x"),
    ]
    assert found.outside == 2


def test_one_class_will_do_where_there_are_parts(tmp_path: Path) -> None:
    assert rows(class_folders(written(tmp_path, "test/ill/1.png"))) == [("test/ill/1.png", "test", "ill")]


def test_names_of_this_data_set_tell_label_subtype_and_patient_in_any_layout(tmp_path: Path) -> None:
    found = class_folders(
        written(tmp_path, "Normal/IM-0115-0001.jpeg", "Pneumonia/person80_virus_1.jpeg", "Pneumonia/q/1.png",
                "Pneumonia/r/1.png")
    )  # fmt: skip
    told = {record.name: (record.label, record.subtype, record.patient) for record in found.records}
    assert told["Normal/IM-0115-0001.jpeg"] == ("normal", "normal", "IM:115")
    assert told["Pneumonia/person80_virus_1.jpeg"] == ("pneumonia", "viral", "virus:80")
    assert told["Pneumonia/q/1.png"][2] != told["Pneumonia/r/1.png"][2]


def test_the_phantom_is_known_in_any_layout(tmp_path: Path) -> None:
    written(tmp_path, "train/ill/1.png", "train/phantom.json")
    assert not class_folders(tmp_path).source.phantom
    written(tmp_path, "phantom.json")
    assert class_folders(tmp_path).source.phantom
    assert class_folders(zipped(tmp_path / "p.zip", "x/a/1.png", "x/b/1.png", "x/phantom.json")).source.phantom


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    written(tmp_path, "ill/1.png", "well/2.png")
    (tmp_path / "ill" / "up").symlink_to(tmp_path)
    assert [record.name for record in class_folders(tmp_path).records] == ["ill/1.png", "well/2.png"]


@pytest.mark.parametrize("names", [[], ["1.png", "2.png"], ["ill/1.png", "ill/2.png"], ["ill/deep/1.png"]])
def test_without_two_classes_or_parts_there_is_nothing_to_audit(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(DataError, match="no class folders"):
        class_folders(written(tmp_path, *names))


def test_what_is_not_there_or_no_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="nowhere"):
        class_folders(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no zip"):
        class_folders(written(tmp_path, "x.zip") / "x.zip")


def test_a_damaged_member_of_a_zip_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", "ill/1.png", "well/2.png")
    path.write_bytes(path.read_bytes().replace(b"ill/1.png", b"ill/1.pnX", 1))
    found = class_folders(path)
    with pytest.raises((DataError, ImageError), match="cannot be read"):
        found.source.read("ill/1.png")
    assert found.source.read("well/2.png") == b"well/2.png"


def records(*names: str) -> list[Record]:
    return [Record(name, "train", "ill", "unspecified", f"file:{name}", 1) for name in names]


def patients(files: list[Record], pattern: object) -> list[str]:
    return [record.patient for record in with_patients(files, pattern)[0]]  # type: ignore[arg-type]


def test_a_pattern_is_searched_in_the_name_and_with_a_slash_in_the_path() -> None:
    files = records("ill/p3/p12-1.png", "ill/p3/p12-2.png", "ill/p4/p5-1.png")
    assert patients(files, r"(p\d+)") == ["p12", "p12", "p5"]
    assert patients(files, r"/(p\d+)/") == ["p3", "p3", "p4"]


def test_a_table_tells_patients_by_path_or_by_name() -> None:
    assert patients(records("ill/a.png", "ill/b.png"), {"ill/a.png": "x", "b.png": "y"}) == ["x", "y"]


def test_files_that_are_not_covered_count_alone_and_are_counted() -> None:
    files = records("ill/p12-1.png", "ill/unknown.png", "ill/other.png")
    keyed, words = with_patients(files, r"(p\d+)-")
    assert [record.patient for record in keyed] == ["p12", "file:ill/unknown.png", "file:ill/other.png"]
    assert words == (r"Patients by the pattern (p\d+)-; 2 files that it does not cover count as patients of their own.")


def test_without_a_pattern_it_is_said_whose_key_counts() -> None:
    assert with_patients(records("ill/a.png"))[1].startswith("Each file counts as a patient of its own")
    own = Record("train/NORMAL/IM-1-1.jpeg", "train", "normal", "normal", "IM:1", 1)
    assert with_patients([own])[1].endswith("(IM or NORMAL2-IM, number).")
    assert "1 files with other names" in with_patients([own, *records("ill/a.png")])[1]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(p", "no regular expression"),
        ("p", "one group.*with 0"),
        ("(p)(q)", "one group.*with 2"),
        ("(q)", "No file's patient"),
    ],
)
def test_patterns_that_tell_nothing_are_refused(pattern: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        with_patients(records("ill/p.png"), pattern)
