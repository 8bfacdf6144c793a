"""The groups of export: by the published sizes, for real training images only."""

from pathlib import Path

import numpy as np

from pneumolib.data.card import CARD, parse_name
from pneumolib.data.dataset import Dataset, load_dataset
from pneumolib.data.exports import export_groups, original_sizes


def test_every_training_file_is_listed_and_no_other():
    sizes = original_sizes()
    labels = [parse_name("train", "NORMAL" if "IM-" in name else "PNEUMONIA", name) for name in sizes]
    assert sum(label.label == "normal" for label in labels) == CARD.counts["train"]["NORMAL"]
    assert sum(label.label == "pneumonia" for label in labels) == CARD.counts["train"]["PNEUMONIA"]
    assert all(label.subtype != "unspecified" and not label.patient.startswith("file:") for label in labels)
    assert all(width > 100 and height > 100 for width, height in sizes.values())


def test_the_groups_are_told_by_both_sides(tmp_path: Path):
    sizes = original_sizes()
    wanted = {
        1: next(name for name, (w, h) in sizes.items() if w % 8 == 0 and h % 8 == 0),
        0: next(name for name, (w, h) in sizes.items() if w % 8 == 0 and h % 8 != 0),
    }
    for name in (*wanted.values(), "own-x-ray.jpeg"):
        path = tmp_path / "train" / "NORMAL" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image")
    train = load_dataset(tmp_path).train
    groups = dict(zip(train.names, export_groups(train).tolist(), strict=True))
    assert groups == {f"train/NORMAL/{name}": group for group, name in wanted.items()} | {
        "train/NORMAL/own-x-ray.jpeg": 0
    }


def test_what_the_module_says_of_the_classes_is_so():
    by_class: dict[bool, list[bool]] = {True: [], False: []}
    for name, (width, height) in original_sizes().items():
        by_class["IM-" in name].append(width % 8 == 0 and height % 8 == 0)
    assert 0.75 < np.mean(by_class[False]) < 0.85
    assert 1 / 20 < np.mean(by_class[True]) < 1 / 16


def test_a_phantom_has_no_groups_whatever_its_names(phantom: Dataset):
    assert not export_groups(phantom.train).any()


def test_real_copies_have_them_by_name(real_data: Path):
    train = load_dataset(real_data).train
    assert 0.55 < export_groups(train).mean() < 0.65
