"""Copies are found, within parts and across, whether saved anew or not; what only looks alike is told apart."""

from __future__ import annotations

import io
import sys

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from pneumolib.data import duplicates
from pneumolib.data.dataset import Record
from pneumolib.data.duplicates import exact_duplicates, near_duplicates, perceptual_hash
from pneumolib.data.facts import SIDE, Looked, look
from pneumolib.errors import MissingExtraError


def picture(seed: int) -> NDArray[np.uint8]:
    """A coarse random picture, uint8 [120, 150]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 15), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((150, 120), Image.Resampling.BICUBIC))


def encoded(pixels: NDArray[np.uint8], *, quality: int = 95, size: tuple[int, int] | None = None) -> bytes:
    image, data = Image.fromarray(pixels), io.BytesIO()
    (image.resize(size) if size else image).save(data, "JPEG", quality=quality)
    return data.getvalue()


class Memory:
    """Files as a source of bytes."""

    location, phantom = "memory", False

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def names(self) -> dict[str, int]:
        return {name: len(content) for name, content in self.files.items()}

    def read(self, name: str) -> bytes:
        return self.files[name]


def looked(files: dict[str, bytes]) -> Looked:
    """Look at files whose names are part/label/patient-rest."""
    records = []
    for name, content in files.items():
        split, label, file = name.split("/")
        records.append(Record(name, split, label, label, file.split("-")[0], len(content)))
    return look(Memory(files), records)


FILES = {
    "train/ill/p1-a": encoded(picture(1)),
    "train/ill/p1-b": encoded(picture(1)),
    "train/ill/p2-a": encoded(picture(2)),
    "train/well/p3-a": encoded(picture(2)),
    "test/well/p3-b": encoded(picture(2)),
    "train/well/p4-a": encoded(picture(3)),
    "test/well/p5-a": encoded(picture(3), quality=40),
    "test/ill/p4-b": encoded(picture(3), size=(75, 60)),
    "test/ill/p6-a": encoded(picture(4)),
}


def test_files_with_the_same_bytes_stand_in_one_group() -> None:
    table = exact_duplicates(looked(FILES).facts)
    assert list(table.columns) == ["group", "name", "split", "label", "patient"]
    assert table.groupby("group")["name"].apply(list).tolist() == [
        ["train/ill/p1-a", "train/ill/p1-b"],
        ["train/ill/p2-a", "train/well/p3-a", "test/well/p3-b"],
    ]
    spread = table.groupby("group")[["split", "label", "patient"]].nunique()
    assert spread.values.tolist() == [[1, 1, 1], [2, 2, 2]]


def test_copies_that_were_saved_anew_are_found_and_marked_as_one_picture() -> None:
    found = looked(FILES)
    near = near_duplicates(found.facts, found.thumbnails)
    assert near.n == len(near.pairs) == 3
    assert near.pairs["same_picture"].all()
    assert (near.pairs["correlation"] > 0.99).all()
    rows = near.pairs.set_index(["a", "b"])[["across_splits", "across_labels", "same_patient"]]
    assert rows.loc[("train/well/p4-a", "test/well/p5-a")].tolist() == [True, False, False]
    assert rows.loc[("train/well/p4-a", "test/ill/p4-b")].tolist() == [True, True, True]
    assert rows.loc[("test/well/p5-a", "test/ill/p4-b")].tolist() == [False, True, False]


def test_equal_bytes_and_other_pictures_are_no_near_duplicates() -> None:
    found = looked({name: FILES[name] for name in FILES if "p4" not in name and "p5" not in name})
    near = near_duplicates(found.facts, found.thumbnails)
    assert near.n == 0
    assert near.pairs.empty


def test_what_is_near_by_hash_but_differs_in_the_picture_is_not_called_one_picture() -> None:
    facts = pd.DataFrame(
        {
            "name": ["a", "b", "c"],
            "split": "train",
            "label": "ill",
            "patient": ["1", "2", "3"],
            "sha256": ["1", "2", "3"],
            "perceptual_hash": ["00000000000000ff", "00000000000000fe", "ffffffffffffff00"],
        }
    )
    thumbnails = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    near = near_duplicates(facts, thumbnails)
    assert near.pairs[["a", "b", "distance"]].values.tolist() == [["a", "b", 1]]
    assert not near.pairs["same_picture"].any()
    assert near_duplicates(facts, thumbnails, distance=0).n == 0
    assert near_duplicates(facts, thumbnails, distance=64).n == 3


def test_blank_pictures_are_one_and_a_blank_one_is_no_other() -> None:
    facts = pd.DataFrame({"name": list("abc"), "split": "train", "label": "ill", "patient": list("abc")})
    facts = facts.assign(sha256=list("abc"), perceptual_hash="0" * 16)
    thumbnails = np.zeros((3, 16, 16), np.uint8)
    thumbnails[2, 4:8] = 200
    assert near_duplicates(facts, thumbnails).pairs["correlation"].tolist() == [1, 0, 0]


def test_pairs_are_those_of_comparing_each_with_each_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    hashes = rng.integers(0, 2**64, 40, dtype=np.uint64, endpoint=False)
    hashes[25:] = hashes[:15] ^ (np.uint64(1) << rng.integers(0, 64, 15, dtype=np.uint64))
    every = [(int(a ^ b).bit_count(), i, j) for i, a in enumerate(hashes) for j, b in enumerate(hashes) if i < j]
    expected = sorted(pair for pair in every if pair[0] <= 26)
    assert len(expected) > 60
    for at_once in (1, 7 * 40, 10**6):
        monkeypatch.setattr(duplicates, "_AT_ONCE", at_once)
        a, b, distance, n = duplicates._pairs(hashes, 26)
        assert list(zip(distance.tolist(), a.tolist(), b.tolist(), strict=True)) == expected
        assert n == len(expected)
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 20)
    monkeypatch.setattr(duplicates, "_AT_ONCE", 40)
    distance, n = duplicates._pairs(hashes, 26)[2:]
    assert distance.tolist() == [pair[0] for pair in expected[:20]]
    assert n == len(expected)


def test_no_files_have_no_duplicates() -> None:
    facts = looked({}).facts
    assert exact_duplicates(facts).empty
    assert near_duplicates(facts, np.empty((0, 16, 16), np.uint8)).n == 0


def test_a_perceptual_hash_outlives_resizing_and_tone_and_tells_pictures_apart() -> None:
    hashed = perceptual_hash()
    plain = np.asarray(Image.fromarray(picture(6)).resize((SIDE, SIDE)))
    faint = (plain // 2 + 40).astype(np.uint8)
    small = np.asarray(Image.fromarray(plain).resize((64, 64)))
    other = np.asarray(Image.fromarray(picture(7)).resize((SIDE, SIDE)))
    assert 0 <= hashed(plain) < 2**64
    assert (hashed(plain) ^ hashed(faint)).bit_count() <= 2
    assert (hashed(plain) ^ hashed(small)).bit_count() <= 2
    assert (hashed(plain) ^ hashed(other)).bit_count() > 12


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(MissingExtraError, match=r"imagehash.*pneumolib\[audit\]"):
        perceptual_hash()
    found = looked(FILES)
    with pytest.raises(MissingExtraError, match=r"pneumolib\[audit\]"):
        near_duplicates(found.facts, found.thumbnails)
