"""Folders and zips as sources: the same files from either, clear refusals, nothing unpacked."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumolib.data.sources import MAX_FILE_BYTES, FolderSource, ZipSource, fingerprint, open_source
from pneumolib.errors import DataError, DataNotFoundError, ImageTooLargeError

Files = dict[str, bytes]


def jpeg(shade: int = 90) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.full((16, 16), shade, np.uint8)).save(data, "JPEG")
    return data.getvalue()


def write_folder(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path: Path, files: Files, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(params=["folder", "zip"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Files], Path]:
    """Return a function that writes files to a folder or to a zip, and returns its path."""
    if request.param == "zip":
        return lambda files: write_zip(tmp_path / "set.zip", files)
    return lambda files: write_folder(tmp_path / "set", files)


SMALL = {
    "train/NORMAL/IM-0115-0001.jpeg": jpeg(10),
    "train/PNEUMONIA/person1_virus_6.jpeg": jpeg(20),
    "test/NORMAL/IM-0001-0001.jpeg": jpeg(30),
}


@pytest.mark.parametrize("prefix", ["", "chest_xray/", "my downloads/2018/chest_xray/"])
def test_the_root_is_found_at_any_depth(place: Callable[[Files], Path], prefix: str):
    source = open_source(place({prefix + name: content for name, content in SMALL.items()}))
    assert list(source.names()) == sorted(SMALL)
    for name, content in SMALL.items():
        assert source.names()[name] == len(content)
        assert source.read(name) == content


def test_names_come_in_one_spelling_and_read_from_another(place: Callable[[Files], Path]):
    source = open_source(place({"Train/normal/A.JPEG": b"a", "TEST/Pneumonia/b.png": b"b"}))
    assert source.names() == {"test/PNEUMONIA/b.png": 1, "train/NORMAL/A.JPEG": 1}
    assert source.read("test/PNEUMONIA/b.png") == b"b"


def test_of_the_set_inside_the_set_only_the_outer_one_counts(place: Callable[[Files], Path]):
    outer = {f"chest_xray/{name}": content for name, content in SMALL.items()}
    inner = {f"chest_xray/chest_xray/{name}": b"inner" for name in [*SMALL, "val/NORMAL/more.jpeg"]}
    source = open_source(place(inner | outer))
    assert list(source.names()) == sorted(SMALL)
    assert all(source.read(name) == content for name, content in SMALL.items())


def test_what_systems_leave_behind_is_no_image(place: Callable[[Files], Path]):
    litter = {
        "__MACOSX/train/NORMAL/IM-0115-0001.jpeg": b"mac",
        ".trash/train/NORMAL/old.jpeg": b"old",
        "set/train/NORMAL/__MACOSX/IM-0116-0001.jpeg": b"mac",
        "set/train/NORMAL/._IM-0115-0001.jpeg": b"mac",
        "set/train/NORMAL/.DS_Store": b"mac",
        "set/train/NORMAL/Thumbs.db": b"windows",
        "set/train/NORMAL/notes.txt": b"notes",
        "set/train/COVID/scan.jpeg": b"another class",
        "set/train/unsorted.jpeg": b"no class",
    }
    source = open_source(place(litter | {f"set/{name}": content for name, content in SMALL.items()}))
    assert list(source.names()) == sorted(SMALL)


def test_a_test_part_alone_is_a_data_set(place: Callable[[Files], Path]):
    assert list(open_source(place({"test/NORMAL/a.jpeg": b"a"})).names()) == ["test/NORMAL/a.jpeg"]


def test_folders_and_zips_are_told_apart_by_what_they_are(tmp_path: Path):
    assert isinstance(open_source(write_folder(tmp_path / "folder.zip", SMALL)), FolderSource)
    assert isinstance(open_source(str(write_zip(tmp_path / "archive", SMALL))), ZipSource)


def test_a_zip_is_read_without_unpacking(tmp_path: Path):
    path = write_zip(tmp_path / "set.zip", SMALL)
    source = open_source(path)
    assert [source.read(name) for name in SMALL] == list(SMALL.values())
    assert list(tmp_path.iterdir()) == [path]


def test_several_threads_read_a_zip_at_the_same_time(tmp_path: Path):
    files = {f"train/NORMAL/{i}.jpeg": bytes([i]) * 5000 for i in range(40)}
    source = open_source(write_zip(tmp_path / "set.zip", files))
    names = list(files) * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read, names)) == [files[name] for name in names]


FORKS = """
import os, sys
from pneumolib.data.sources import open_source
source = open_source(sys.argv[1])
names = list(source.names())
expected = {name: source.read(name) for name in names}
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        try:
            right = all(source.read(name) == expected[name] for _ in range(20) for name in names)
        except Exception:
            right = False
        os._exit(0 if right else 1)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_processes_forked_after_a_first_read_do_not_disturb_each_other(tmp_path: Path):
    files = {f"train/NORMAL/{i}.jpeg": bytes([i]) * 5000 for i in range(40)}
    path = write_zip(tmp_path / "set.zip", files, zipfile.ZIP_STORED)
    subprocess.run([sys.executable, "-c", FORKS, str(path)], check=True)


def test_a_pickled_source_reads_in_its_new_home(place: Callable[[Files], Path]):
    source = open_source(place(SMALL))
    source.read("train/NORMAL/IM-0115-0001.jpeg")
    copy = pickle.loads(pickle.dumps(source))
    assert copy.names() == source.names()
    assert {name: copy.read(name) for name in SMALL} == SMALL


@pytest.mark.parametrize("opened", [open_source, FolderSource, ZipSource])
def test_a_missing_path_is_named(tmp_path: Path, opened: Callable[[Path], object]):
    with pytest.raises(DataNotFoundError, match=r"There is .* at that path\. Received: .*nowhere"):
        opened(tmp_path / "nowhere")


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path):
    path = tmp_path / "thesis.docx"
    path.write_bytes(b"precious" * 100)
    with pytest.raises(DataError, match=r"no zip that can be read .* Allowed: a folder or a zip\. Received: .*thesis"):
        open_source(path)


def test_a_zip_whose_download_broke_off_is_refused(tmp_path: Path):
    path = write_zip(tmp_path / "set.zip", SMALL)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"no zip that can be read .* Received: .*set\.zip"):
        open_source(path)


@pytest.mark.parametrize(
    ("files", "seen"),
    [
        ({"notes.txt": b"notes"}, "no image files"),
        ({"cats/tom.jpeg": jpeg(), "dogs/rex.jpeg": jpeg()}, "cats, dogs"),
        ({"train/tom.jpeg": jpeg()}, "train"),
        ({"NORMAL/a.jpeg": jpeg()}, "NORMAL"),
        ({"photo.jpeg": jpeg()}, r"\."),
    ],
)
def test_without_a_data_set_the_error_says_what_is_there(place: Callable[[Files], Path], files: Files, seen: str):
    path = place(files)
    with pytest.raises(
        DataError, match=rf"no data set there\. Allowed: .*NORMAL/ .* Received: .*{path.name}, with {seen}$"
    ):
        open_source(path)


def test_an_empty_folder_is_no_data_set(tmp_path: Path):
    with pytest.raises(DataError, match="no image files"):
        open_source(tmp_path)


def test_a_zip_entry_that_claims_more_than_the_limit_is_refused_before_it_is_read(tmp_path: Path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train/NORMAL/bomb.jpeg", b"tiny")
        archive.writestr("train/NORMAL/whole.jpeg", jpeg())
        archive.filelist[0].file_size = MAX_FILE_BYTES + 1
    source = open_source(path)
    with pytest.raises(ImageTooLargeError, match=f"bomb.jpeg .* Allowed: .* Received: {MAX_FILE_BYTES + 1:,}"):
        source.read("train/NORMAL/bomb.jpeg")
    assert source.read("train/NORMAL/whole.jpeg") == jpeg()


def flip_a_byte(archive: zipfile.ZipFile) -> None:
    archive.filelist[0].CRC ^= 1


def cut_short(archive: zipfile.ZipFile) -> None:
    archive.filelist[0].compress_size -= 20


def lose_the_place(archive: zipfile.ZipFile) -> None:
    archive.filelist[0].header_offset += 7


def lock(archive: zipfile.ZipFile) -> None:
    archive.filelist[0].flag_bits |= 1


@pytest.mark.parametrize("harm", [flip_a_byte, cut_short, lose_the_place, lock])
def test_a_broken_member_of_a_zip_is_named_and_the_others_are_read(
    tmp_path: Path, harm: Callable[[zipfile.ZipFile], None]
):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/NORMAL/broken.jpeg", np.random.default_rng(0).bytes(3000))
        archive.writestr("train/NORMAL/whole.jpeg", jpeg())
        harm(archive)
    source = open_source(path)
    with pytest.raises(DataError, match=r"broken\.jpeg cannot be read from .*set\.zip: .* Get the zip again"):
        source.read("train/NORMAL/broken.jpeg")
    assert source.read("train/NORMAL/whole.jpeg") == jpeg()


def test_the_marker_beside_the_parts_makes_it_a_phantom(place: Callable[[Files], Path]):
    assert open_source(place({f"set/{name}": c for name, c in SMALL.items()} | {"set/phantom.json": b"{}"})).phantom


def test_a_marker_elsewhere_makes_real_images_no_phantom(place: Callable[[Files], Path]):
    files = {f"chest_xray/{name}": content for name, content in SMALL.items()}
    assert not open_source(place(files | {"runs/old/phantom.json": b"{}"})).phantom


def test_without_the_marker_it_is_no_phantom(place: Callable[[Files], Path]):
    assert not open_source(place(SMALL | {"train/NORMAL/phantom.jpeg": jpeg(), "readme.json": b"{}"})).phantom


def test_the_fingerprint_changes_with_a_name_a_size_or_the_order():
    files = [("train/NORMAL/a.jpeg", 10), ("train/NORMAL/b.jpeg", 20)]
    first = fingerprint(files)
    assert len(first) == 16
    assert int(first, 16) >= 0
    others = [
        [files[0], ("train/NORMAL/b.jpeg", 21)],
        [files[0], ("train/NORMAL/c.jpeg", 20)],
        [("train/NORMAL/a.jpeg", 20), ("train/NORMAL/b.jpeg", 10)],
        [files[1], files[0]],
        [files[0], files[0], files[1]],
        [files[0]],
    ]
    assert len({first, *map(fingerprint, others)}) == 7


def test_the_same_files_have_one_fingerprint_in_a_folder_and_in_a_zip(tmp_path: Path):
    folder = open_source(write_folder(tmp_path / "set", SMALL))
    archive = open_source(write_zip(tmp_path / "set.zip", {f"chest_xray/{n}": c for n, c in SMALL.items()}))
    assert fingerprint(folder.names().items()) == fingerprint(archive.names().items())


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_damage_in_the_middle_of_a_packed_member_is_named(tmp_path: Path, method: int):
    path = write_zip(tmp_path / "set.zip", {"train/NORMAL/a.jpeg": np.random.default_rng(0).bytes(20_000)}, method)
    content = bytearray(path.read_bytes())
    content[100:400] = b"\xff" * 300
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpeg cannot be read from .*Get the zip again"):
        open_source(path).read("train/NORMAL/a.jpeg")


def test_a_file_that_is_gone_when_it_is_read_is_named(tmp_path: Path):
    source = open_source(write_folder(tmp_path / "set", SMALL))
    (tmp_path / "set" / "test/NORMAL/IM-0001-0001.jpeg").unlink()
    with pytest.raises(DataError, match=r"IM-0001-0001\.jpeg cannot be read from .*set: No such file"):
        source.read("test/NORMAL/IM-0001-0001.jpeg")


def test_linked_folders_are_followed_once_and_a_link_to_nowhere_is_an_empty_file(tmp_path: Path):
    write_folder(
        tmp_path / "elsewhere", {name.removeprefix("train/"): c for name, c in SMALL.items() if "train" in name}
    )
    folder = write_folder(tmp_path / "set", {name: c for name, c in SMALL.items() if "test" in name})
    (folder / "train").symlink_to(tmp_path / "elsewhere")
    (folder / "up").symlink_to(tmp_path / "set")
    (folder / "test/NORMAL/lost.jpeg").symlink_to("nowhere")
    names = open_source(folder).names()
    assert sorted(names) == sorted([*SMALL, "test/NORMAL/lost.jpeg"])
    assert names["test/NORMAL/lost.jpeg"] == 0
