from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import pneumolib as pn
from pneumolib.data.dataset import ImageSet
from pneumolib.data.splits import perturb, shared_patients, shifted_images, split_by_patient
from pneumolib.errors import DataError

Build = Callable[[Iterable[str]], ImageSet]


def jpeg(shade: int = 90) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.full((8, 8), shade, np.uint8)).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Return a function that makes the train part of a data set with files of the given names."""

    def make(names: Iterable[str]) -> ImageSet:
        for name in names:
            label = "NORMAL" if "IM-" in name or name.startswith("healthy") else "PNEUMONIA"
            path = tmp_path / "train" / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg())
        return pn.load_dataset(tmp_path).train

    return make


def real_style(n: int = 60) -> list[str]:
    names = [f"IM-{115 + i:04d}-0001.jpeg" for i in range(n)]
    names += [f"NORMAL2-IM-{383 + 3 * i:04d}-0001.jpeg" for i in range(n)]
    bacteria = [*range(60, 78), *range(176, 176 + n - 18)]
    names += [f"person{i}_bacteria_{4 * i + j}.jpeg" for i in bacteria for j in range(1 + i % 3)]
    names += [
        f"person{i}_virus_{2 * i + j}.jpeg" for i in [*range(80, 80 + n - 5), *range(1600, 1605)] for j in range(2)
    ]
    return names


def numbers(part: ImageSet, family: str) -> set[int]:
    return {int(p.rpartition(":")[2]) for p in part.patients if p.rpartition(":")[0] == family}


def test_no_patient_and_no_image_is_in_two_parts_and_none_is_lost(build: Build):
    train = build(real_style())
    split = split_by_patient(train)
    proof = split.proof()
    assert set(proof["overlaps"].values()) == {0}
    assert len(proof["overlaps"]) == 3
    assert sum(proof["images"].values()) == len(train)
    assert sum(proof["patients"].values()) == len(set(train.patients))
    names = [r.name for part in split.parts().values() for r in part.records]
    assert sorted(names) == sorted(train.names)


def test_val_holds_the_asked_share_of_the_images_of_each_subtype(build: Build):
    train = build(real_style())
    split = split_by_patient(train, val_fraction=0.2, shifted_fraction=0.1)
    whole = Counter(train.subtypes.tolist())
    for part, fraction in ((split.val, 0.2), (split.shifted, 0.1)):
        held = Counter(part.subtypes.tolist())
        for subtype, n in whole.items():
            assert abs(held[subtype] - fraction * n) <= 3, (part.name, subtype)


def test_shifted_holds_the_numbers_nearest_to_those_of_the_test_set(build: Build):
    split = split_by_patient(build(real_style()), shifted_fraction=0.1)
    rest = [split.train, split.val]
    for family in ("IM", "NORMAL2-IM"):
        assert max(numbers(split.shifted, family)) < min(min(numbers(part, family)) for part in rest)
    taken = numbers(split.shifted, "bacteria")
    assert taken <= set(range(60, 200))
    assert {77, 176} <= taken
    assert {80, 1604} <= numbers(split.shifted, "virus")
    assert "nearest" in split.note


def test_the_seed_decides_val_and_not_the_blocks(build: Build):
    train = build(real_style())
    first, again, other = split_by_patient(train), split_by_patient(train), split_by_patient(train, seed=1)
    assert first.table().equals(again.table())
    assert first.val.names != other.val.names
    assert first.shifted.names == other.shifted.names


def test_names_without_numbers_get_a_second_random_part_and_the_note_says_so(build: Build):
    train = build([f"healthy{i}.png" for i in range(40)] + [f"ill{i}.png" for i in range(40)])
    split = split_by_patient(train, val_fraction=0.1, shifted_fraction=0.1)
    assert len(split.shifted) == len(split.val) == 8
    assert set(split.proof()["overlaps"].values()) == {0}
    assert "random" in split.note
    assert "80 patients" in split.note


def test_shifted_may_be_empty(build: Build):
    split = split_by_patient(build(real_style(20)), shifted_fraction=0)
    assert len(split.shifted) == 0
    assert "empty" in split.note


def test_every_part_has_every_class_even_of_a_handful_of_patients(build: Build):
    names = ["IM-0115-0001.jpeg", "IM-0117-0001.jpeg", "NORMAL2-IM-0383-0001.jpeg"]
    names += [f"person{i}_virus_{i}.jpeg" for i in (80, 90, 100)]
    split = split_by_patient(build(names))
    for part in split.parts().values():
        assert set(part.subtypes) == {"normal", "viral"}


def test_too_few_patients_are_refused_with_the_counts(build: Build):
    few = [name for name in real_style(20) if "virus" not in name]
    few += ["person80_virus_1.jpeg", "person80_virus_2.jpeg"]
    with pytest.raises(DataError, match=r"at least 3 patients .* viral 1"):
        split_by_patient(build(few))


def test_one_class_alone_is_refused(build: Build):
    with pytest.raises(DataError, match="with and without"):
        split_by_patient(build([f"IM-{i:04d}-0001.jpeg" for i in range(115, 130)]))


@pytest.mark.parametrize(
    "wrong", [{"val_fraction": 0}, {"val_fraction": 0.9}, {"shifted_fraction": -0.1}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused(build: Build, wrong: dict):
    with pytest.raises(DataError, match="Received"):
        split_by_patient(build(real_style(20)), **wrong)


def test_the_table_is_saved_as_it_is(build: Build, tmp_path: Path):
    split = split_by_patient(build(real_style(20)))
    split.save(tmp_path / "split.csv")
    read = pd.read_csv(tmp_path / "split.csv")
    assert read.equals(split.table())
    assert list(read) == ["name", "part", "patient", "subtype"]
    assert read.groupby("patient")["part"].nunique().max() == 1


def test_a_split_image_by_image_leaks_and_shared_patients_counts_them(build: Build):
    train = build(["IM-0115-0001.jpeg", "person7_bacteria_1.jpeg", "person7_bacteria_2.jpeg", "person7_virus_3.jpeg"])
    bacteria = [name.endswith("bacteria_1.jpeg") for name in train.names]
    one, rest = train.take(np.array(bacteria)), train.take(~np.array(bacteria))
    assert shared_patients(one, rest) == ("bacteria:7",)


def test_perturbing_changes_shape_and_pixels_and_depends_on_the_rng_alone():
    y, x = np.mgrid[:200, :260]
    image = (110 + 50 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)
    shapes, means = set(), []
    for seed in range(12):
        result = perturb(image, np.random.default_rng(seed))
        assert np.array_equal(result, perturb(image, np.random.default_rng(seed)))
        assert result.dtype == np.uint8
        assert 0.84 * 200 <= result.shape[0] <= 200
        assert 0.84 * 260 <= result.shape[1] <= 260
        shapes.add(result.shape)
        means.append(result.mean())
    assert len(shapes) > 8
    assert np.ptp(means) > 20


@pytest.mark.parametrize(
    "wrong", [np.zeros((20, 20), np.float32), np.zeros((20, 20, 3), np.uint8), np.zeros((4, 20), np.uint8)]
)
def test_perturb_refuses_what_is_no_gray_image(wrong: np.ndarray):
    with pytest.raises(DataError, match="uint8"):
        perturb(wrong, np.random.default_rng(0))


def test_shifted_images_depend_on_seed_and_name_not_on_their_company(phantom: pn.Dataset):
    few, more = phantom.test.take(np.arange(2, 5)), phantom.test.take(np.arange(1, 6))
    images = shifted_images(few, 48)
    assert images.shape == (3, 48, 48)
    assert images.dtype == np.uint8
    assert np.array_equal(images, shifted_images(more, 48)[1:4])
    assert not np.array_equal(images, shifted_images(few, 48, seed=1))


def test_shifted_images_still_show_the_same_chest(phantom: pn.Dataset):
    part = phantom.test.take(np.arange(6))
    shifted, plain = shifted_images(part, 48), part.images(48)
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(shifted, plain, strict=True)]
    assert min(alike) > 0.6
    assert not any(np.array_equal(a, b) for a, b in zip(shifted, plain, strict=True))


def test_the_real_train_part_splits_as_the_documentation_says(real_data: Path):
    data = pn.load_dataset(real_data)
    if len(data.train) < 5000:
        pytest.skip("this copy holds no whole train part")
    split = split_by_patient(data.train)
    assert set(split.proof()["overlaps"].values()) == {0}
    assert not shared_patients(data.train, data.test)
    assert len(split.val) == pytest.approx(0.08 * len(data.train), abs=4)
    assert max(numbers(split.shifted, "IM")) < 200
    assert numbers(split.shifted, "bacteria") <= set(range(30, 78))
    by_image = np.random.default_rng(0).random(len(data.train)) < 0.1
    assert len(shared_patients(data.train.take(by_image), data.train.take(~by_image))) > 150
