"""Verification: what is missing, extra, twice or unreadable in a copy, said and never refused."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumolib.data.card import CARD
from pneumolib.data.dataset import Dataset, load_dataset
from pneumolib.data.phantom import make_phantom
from pneumolib.data.verify import verify

EXPECTED = {
    "train": {"NORMAL": 2, "PNEUMONIA": 2},
    "val": {"NORMAL": 1, "PNEUMONIA": 1},
    "test": {"NORMAL": 1, "PNEUMONIA": 1},
}
NAMES = [
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/IM-0116-0001.jpeg",
    "train/PNEUMONIA/person1_bacteria_1.jpeg",
    "train/PNEUMONIA/person1_virus_2.jpeg",
    "val/NORMAL/IM-0117-0001.jpeg",
    "val/PNEUMONIA/person2_virus_3.jpeg",
    "test/NORMAL/IM-0001-0001.jpeg",
    "test/PNEUMONIA/person78_virus_4.jpeg",
]


def jpeg(shade: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.full((16, 16), shade, np.uint8)).save(data, "JPEG")
    return data.getvalue()


WHOLE = {name: jpeg(20 * i) for i, name in enumerate(NAMES)}


def small_set(folder: Path, files: dict[str, bytes]) -> Dataset:
    """A data set whose card counts the eight files of WHOLE."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return dataclasses.replace(load_dataset(folder), card=dataclasses.replace(CARD, counts=EXPECTED))


def test_a_whole_copy_is_complete(tmp_path: Path):
    found = verify(small_set(tmp_path, WHOLE), deep=True)
    assert found.complete
    assert found.counts == EXPECTED
    assert (found.missing, found.extra) == ({}, {})
    assert found.duplicates == found.across_splits == found.conflicting == found.unreadable == ()
    for said in ("counts match the data card", "exact duplicates: 0 groups, 0 files", "unreadable: 0"):
        assert said in str(found)


def test_missing_files_are_counted_by_part_and_class(tmp_path: Path):
    gone = {"train/NORMAL/IM-0116-0001.jpeg", "train/NORMAL/IM-0115-0001.jpeg", "test/PNEUMONIA/person78_virus_4.jpeg"}
    found = verify(small_set(tmp_path, {name: content for name, content in WHOLE.items() if name not in gone}))
    assert found.missing == {"train/NORMAL": 2, "test/PNEUMONIA": 1}
    assert found.extra == {}
    assert not found.complete
    assert "missing from train/NORMAL: 2" in str(found)
    assert "missing from test/PNEUMONIA: 1" in str(found)
    assert "counts match" not in str(found)


def test_extra_files_are_counted_by_part_and_class(tmp_path: Path):
    names = ["val/NORMAL/IM-0200-0001.jpeg", "val/NORMAL/IM-0201-0001.jpeg", "test/PNEUMONIA/person90_virus_5.jpeg"]
    found = verify(small_set(tmp_path, WHOLE | {name: jpeg(200 + 10 * i) for i, name in enumerate(names)}))
    assert found.extra == {"val/NORMAL": 2, "test/PNEUMONIA": 1}
    assert found.missing == {}
    assert not found.complete
    assert "more than the card says in val/NORMAL: 2" in str(found)
    assert "counts match" not in str(found)


def test_duplicates_within_a_part_are_no_leak(tmp_path: Path):
    files = dict(WHOLE)
    first, second = NAMES[2], NAMES[3]
    files[second] = files[first]
    found = verify(small_set(tmp_path, files))
    assert found.duplicates == ((first, second),)
    assert found.across_splits == found.conflicting == ()
    assert found.complete
    assert "exact duplicates: 1 groups, 1 files too many" in str(found)
    assert "leak" not in str(found)
    assert "both labels" not in str(found)


def test_duplicates_across_parts_are_a_leak(tmp_path: Path):
    files = dict(WHOLE)
    train, val, test = NAMES[0], NAMES[4], NAMES[6]
    files[val] = files[test] = files[train]
    found = verify(small_set(tmp_path, files))
    assert found.across_splits == found.duplicates == ((train, val, test),)
    assert found.conflicting == ()
    assert "1 groups, 2 files too many" in str(found)
    assert f"across parts, a leak: {train}, {val}, {test}" in str(found)


def test_the_same_image_under_both_labels_is_a_conflict(tmp_path: Path):
    files = dict(WHOLE)
    well, ill = NAMES[1], NAMES[2]
    files[ill] = files[well]
    found = verify(small_set(tmp_path, files))
    assert found.conflicting == found.duplicates == ((well, ill),)
    assert found.across_splits == ()
    assert f"with both labels: {well}, {ill}" in str(found)


def test_files_of_one_size_with_other_bytes_are_no_duplicates(tmp_path: Path):
    found = verify(small_set(tmp_path, {name: bytes([i]) * 100 for i, name in enumerate(NAMES)}))
    assert found.duplicates == ()


def test_unreadable_files_are_named_with_a_reason_by_a_deep_look(tmp_path: Path):
    files = dict(WHOLE)
    cut, foreign, empty = NAMES[0], NAMES[3], NAMES[7]
    files[cut] = files[cut][:-30]
    files[foreign] = b"no image at all"
    files[empty] = b""
    data = small_set(tmp_path, files)
    shallow, deep = verify(data), verify(data, deep=True)
    assert shallow.unreadable == ()
    assert "pixels not decoded" in str(shallow)
    reasons = dict(deep.unreadable)
    assert set(reasons) == {cut, foreign, empty}
    assert "cut off" in reasons[cut]
    assert "Allowed" in reasons[foreign]
    assert "empty" in reasons[empty]
    assert not deep.complete
    assert "unreadable: 3" in str(deep)
    assert all(f"{name}: {reason}" in str(deep) for name, reason in reasons.items())
    assert "pixels not decoded" not in str(deep)


@pytest.mark.parametrize("deep", [False, True])
def test_files_that_cannot_even_be_read_are_judged_and_not_refused(tmp_path: Path, deep: bool):
    data = small_set(tmp_path, dict(WHOLE))
    name = NAMES[0]
    twin = next(n for n in NAMES[1:] if len(WHOLE[n]) == len(WHOLE[name]))
    (Path(data.location) / name).unlink()
    found = verify(data, deep=deep)
    assert [unread for unread, _ in found.unreadable] == [name]
    assert "No such file" in str(found)
    assert twin not in dict(found.unreadable)
    assert not found.complete


def test_a_partial_copy_is_judged_and_not_refused(tmp_path: Path):
    small_set(tmp_path, {name: content for name, content in WHOLE.items() if name.startswith("test/")})
    found = load_dataset(tmp_path).verify()
    assert found.missing["train/NORMAL"] == 1341
    assert found.missing["test/PNEUMONIA"] == 389
    assert not found.complete
    assert "missing from train/PNEUMONIA: 3,875" in str(found)


def test_a_phantom_is_not_counted_against_the_card(tmp_path: Path):
    phantom = load_dataset(make_phantom(tmp_path / "set", n_train=8, n_val=2, n_test=8, size=(64, 64)))
    assert not phantom.verify().complete
    found = phantom.verify(deep=True)
    assert found.phantom
    assert (found.missing, found.extra) == ({}, {})
    assert "PHANTOM" in str(found)
    assert "counts match" not in str(found)


def test_the_counts_stand_at_the_top(tmp_path: Path):
    lines = str(verify(small_set(tmp_path, WHOLE))).splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["train", "2", "normal", "2", "pneumonia"],
        ["val", "1", "normal", "1", "pneumonia"],
        ["test", "1", "normal", "1", "pneumonia"],
    ]


@pytest.mark.parametrize("deep", [False, True])
def test_the_method_of_the_data_set_is_the_same_look(tmp_path: Path, deep: bool):
    data = small_set(tmp_path, WHOLE)
    assert data.verify(deep=deep) == verify(data, deep=deep)


def test_the_real_data_set_has_duplicates_and_none_across_its_parts(real_data: Path):
    found = load_dataset(real_data).verify()
    assert "train/NORMAL" not in found.missing
    assert found.extra == {}
    assert 10 < len(found.duplicates) < 100
    assert found.across_splits == found.conflicting == ()
