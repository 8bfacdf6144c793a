from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import pneumolib as pn
from pneumolib.data.audit import FEATURES, file_facts, jpeg_quality, shortcut_baselines
from pneumolib.errors import DataError, ImageError


def save(path: Path, *, size: tuple[int, int] = (40, 30), mode: str = "L", **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 90 if mode == "L" else (90, 90, 90)).save(path, **options)


def table(n: int = 60, seed: int = 0) -> pd.DataFrame:
    """Return file facts in which quality gives train away and not test, width gives both away, and height neither."""
    rng = np.random.default_rng(seed)
    rows = []
    for split in ("train", "test"):
        for i in range(n):
            ill = i % 2 == 1
            rows.append(
                {
                    "split": split,
                    "class": "PNEUMONIA" if ill else "NORMAL",
                    "filename": f"person{i}_virus_{i}.jpeg" if ill else f"IM-{i:04d}-0001.jpeg",
                    "mode": "L",
                    "width": (1100 if ill else 1600) + int(rng.integers(-200, 200)),
                    "height": 1000 + int(rng.integers(-200, 200)),
                    "estimated_quality": 95.0 if split == "train" and not ill else 75.0,
                    "file_size": 200_000 + int(rng.integers(-9000, 9000)),
                }
            )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 80, 95, 100])
def test_the_quality_that_a_file_was_saved_with_is_found(quality: int):
    data = io.BytesIO()
    Image.new("L", (16, 16)).save(data, "JPEG", quality=quality)
    assert jpeg_quality(Image.open(data).quantization[0]) == quality


def test_facts_are_those_of_the_files(tmp_path: Path):
    save(tmp_path / "train/NORMAL/IM-0115-0001.jpeg", size=(50, 40), quality=95)
    save(tmp_path / "train/PNEUMONIA/person80_virus_1.jpeg", mode="RGB", quality=60)
    save(tmp_path / "train/PNEUMONIA/person9_bacteria_2.png")
    facts = file_facts(pn.load_dataset(tmp_path).train).set_index("name")
    normal = facts.loc["train/NORMAL/IM-0115-0001.jpeg"]
    assert (normal["width"], normal["height"], normal["aspect"]) == (50, 40, 1.25)
    assert (normal["format"], normal["mode"], normal["jpeg_quality"]) == ("JPEG", "L", 95)
    assert (normal["patient"], normal["label"], normal["subtype"]) == ("IM:115", "normal", "normal")
    n_bytes = (tmp_path / "train/NORMAL/IM-0115-0001.jpeg").stat().st_size
    assert normal["n_bytes"] == n_bytes
    assert normal["bytes_per_megapixel"] == pytest.approx(n_bytes / 0.002)
    viral = facts.loc["train/PNEUMONIA/person80_virus_1.jpeg"]
    assert (viral["mode"], viral["jpeg_quality"], viral["subtype"]) == ("RGB", 60, "viral")
    assert np.isnan(facts.loc["train/PNEUMONIA/person9_bacteria_2.png"]["jpeg_quality"])


def test_a_file_that_is_no_image_is_named(tmp_path: Path):
    save(tmp_path / "train/NORMAL/IM-0115-0001.jpeg")
    (tmp_path / "train/NORMAL/IM-0116-0001.jpeg").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match="IM-0116"):
        file_facts(pn.load_dataset(tmp_path).train)


def test_baselines_find_what_separates_and_where():
    result = shortcut_baselines(table()).set_index("features")
    assert list(result.index) == list(FEATURES)
    assert result.loc["JPEG quality", "auc_cv_train"] == 1.0
    assert result.loc["JPEG quality", "auc_test"] == 0.5
    assert result.loc["width and height", "auc_test"] > 0.9
    assert result.loc["colour mode", "auc_test"] == 0.5
    assert result.loc["majority class", "accuracy_test"] == 0.5
    assert (result["n_train"] == 60).all()


def test_a_table_read_from_csv_gives_the_same_numbers(tmp_path: Path):
    facts = table()
    facts.to_csv(tmp_path / "facts.csv", index=False)
    pd.testing.assert_frame_equal(shortcut_baselines(pd.read_csv(tmp_path / "facts.csv")), shortcut_baselines(facts))


def test_patients_are_kept_whole_in_cross_validation():
    # Each patient has a width of his own, so that only a leak could tell the classes apart.
    rng = np.random.default_rng(1)
    rows = []
    for i in range(40):
        width = int(rng.integers(800, 2000))
        for j in range(4):
            name = f"person{i}_virus_{j}.jpeg" if i % 2 else f"IM-{i:04d}-0001-{j:04d}.jpeg"
            rows.append(("train", "PNEUMONIA" if i % 2 else "NORMAL", name, "L", width, 1000, 75.0, 100_000))
    facts = pd.DataFrame(rows, columns=[c for c in table().columns])
    result = shortcut_baselines(facts).set_index("features")
    assert 0.2 < result.loc["width and height", "auc_cv_train"] < 0.8
    assert np.isnan(result.loc["width and height", "auc_test"])


def test_without_train_rows_nothing_is_claimed():
    facts = table()
    result = shortcut_baselines(facts[facts["split"] == "test"])
    assert result[["auc_cv_train", "auc_test", "accuracy_test"]].isna().all(axis=None)


def test_a_table_that_lacks_a_column_is_refused():
    with pytest.raises(DataError, match=r"lacks columns: width"):
        shortcut_baselines(table().drop(columns="width"))


def test_the_audit_of_a_phantom_finds_the_planted_shortcut_and_says_phantom(phantom: pn.Dataset):
    report = pn.audit(phantom)
    quality = report.baselines.set_index("features").loc["JPEG quality"]
    assert quality["auc_cv_train"] > 0.95
    assert quality["auc_test"] < 0.6
    assert "JPEG quality" in report.verdict
    assert len(report.facts) == len(phantom.train) + len(phantom.val) + len(phantom.test)
    assert str(report).startswith("PHANTOM")
    assert "PHANTOM" in report._repr_html_()
    read = json.loads(report.to_json())
    assert read["phantom"] is True
    assert read["n"] == len(report.facts)
    assert {row["features"] for row in read["baselines"]} == set(FEATURES)


def test_an_empty_data_set_is_refused(phantom: pn.Dataset):
    class Empty:
        train = val = test = phantom.train.take(np.zeros(len(phantom.train), bool))
        location = "nowhere"

    with pytest.raises(DataError, match="nowhere"):
        pn.audit(Empty())
