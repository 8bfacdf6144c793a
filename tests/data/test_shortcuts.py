"""Planted shortcuts are found, in train and on test; what tells nothing is near guessing; and all of it in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pneumolib.data.exports import original_sizes
from pneumolib.data.facts import BORDER
from pneumolib.data.shortcuts import (
    FEATURES,
    PIXELS,
    in_words,
    labels_in_order,
    plain_rows,
    shortcut_baselines,
    verdict,
)
from pneumolib.errors import DataError


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


def test_baselines_find_what_separates_and_where() -> None:
    result = shortcut_baselines(table()).set_index("features")
    assert list(result.index) == [name for name in FEATURES if name not in PIXELS]
    assert result.loc["JPEG quality", "auc_cv_train"] == 1.0
    assert result.loc["JPEG quality", "auc_test"] == 0.5
    assert result.loc["width and height", "auc_test"] > 0.9
    assert result.loc["colour mode", "auc_test"] == 0.5
    assert result.loc["majority class", "accuracy_test"] == 0.5
    assert (result["n_train"] == 60).all()


def test_a_table_read_from_csv_gives_the_same_numbers(tmp_path: Path) -> None:
    facts = table()
    facts.to_csv(tmp_path / "facts.csv", index=False)
    pd.testing.assert_frame_equal(shortcut_baselines(pd.read_csv(tmp_path / "facts.csv")), shortcut_baselines(facts))


def test_patients_are_kept_whole_in_cross_validation() -> None:
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


def test_without_train_rows_nothing_is_claimed() -> None:
    facts = table()
    result = shortcut_baselines(facts[facts["split"] == "test"])
    assert result[["auc_cv_train", "auc_test", "accuracy_test"]].isna().all(axis=None)


def test_a_table_that_lacks_a_column_is_refused() -> None:
    with pytest.raises(DataError, match=r"lacks columns: width"):
        shortcut_baselines(table().drop(columns="width"))


def with_pixels(facts: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """Add columns of the picture of which only the right border tells the label."""
    rng = np.random.default_rng(seed)
    ill = (facts["class"] == "PNEUMONIA").to_numpy()
    columns = {name: rng.normal(100, 10, len(facts)) for name in (*BORDER, "mean", "contrast")}
    columns["border_right_3"] = np.where(ill, 200, 20) + rng.normal(0, 5, len(facts))
    return facts.assign(**columns)


def test_a_letter_in_the_border_is_found_and_brightness_without_meaning_is_not() -> None:
    result = shortcut_baselines(with_pixels(table(200))).set_index("features")
    assert list(result.index) == list(FEATURES)
    assert result.loc["border pixels", ["auc_cv_train", "auc_test"]].tolist() == [1, 1]
    assert 0.35 < result.loc["mean and contrast", "auc_cv_train"] < 0.65
    assert 0.35 < result.loc["file size", "auc_cv_train"] < 0.65


def test_what_is_the_same_in_all_files_is_guessing() -> None:
    result = shortcut_baselines(table().assign(width=500, height=400, mode="RGB")).set_index("features")
    for name in ("width and height", "aspect ratio", "colour mode"):
        assert result.loc[name, ["auc_cv_train", "auc_test"]].tolist() == [0.5, 0.5]


def labelled(labels: list[str], n: int = 90) -> pd.DataFrame:
    """Return facts of any labels, whose width tells them apart."""
    rng = np.random.default_rng(2)
    rows = [
        {
            "name": f"{split}/{i}.png",
            "split": split,
            "label": labels[i % len(labels)],
            "patient": f"{split} {i}",
            "mode": "L",
            "width": 500 + 100 * (i % len(labels)) + int(rng.integers(-9, 9)),
            "height": 500 + int(rng.integers(-50, 50)),
            "jpeg_quality": np.nan,
            "n_bytes": 1000 + int(rng.integers(0, 50)),
        }
        for split in ("train", "test")
        for i in range(n)
    ]
    return pd.DataFrame(rows)


def test_labels_of_any_name_and_number_are_told() -> None:
    two = shortcut_baselines(labelled(["healthy", "ill"])).set_index("features")
    row = two.loc["width and height"]
    assert row[["auc_cv_train", "auc_test", "sensitivity_test", "specificity_test"]].tolist() == [1, 1, 1, 1]
    three = shortcut_baselines(labelled(["covid", "normal", "viral"])).set_index("features")
    row = three.loc["width and height"]
    assert row["auc_cv_train"] > 0.95
    assert row["auc_test"] > 0.95
    assert row["accuracy_test"] > 0.9
    assert row[["sensitivity_test", "specificity_test"]].isna().all()
    assert 0.35 < three.loc["file size", "auc_cv_train"] < 0.65


def test_the_healthy_label_comes_first_so_that_the_other_is_positive() -> None:
    assert labels_in_order(pd.Series(["covid", "Normal"])) == ["Normal", "covid"]
    assert labels_in_order(pd.Series(["no finding", "effusion"])) == ["no finding", "effusion"]
    facts = labelled(["healthy", "covid"])
    # All of test is called healthy: the width that told covid is gone.
    facts.loc[facts["split"] == "test", "width"] = 500
    row = shortcut_baselines(facts).set_index("features").loc["width and height"]
    assert row[["sensitivity_test", "specificity_test"]].tolist() == [0, 1]


def test_a_label_that_train_does_not_know_leaves_the_auc_on_test_open() -> None:
    facts = labelled(["a", "b"])
    facts.loc[facts.index[-1], "label"] = "c"
    row = shortcut_baselines(facts).set_index("features").loc["width and height"]
    assert row["auc_cv_train"] == 1
    assert np.isnan(row["auc_test"])
    assert row["accuracy_test"] == pytest.approx(89 / 90)


def test_too_few_patients_leave_cross_validation_open() -> None:
    facts = labelled(["a", "b"])
    facts["patient"] = [f"{label}{i % 8 // 2}" for i, label in enumerate(facts["label"])]
    row = shortcut_baselines(facts).set_index("features").loc["width and height"]
    assert np.isnan(row["auc_cv_train"])
    assert row["auc_test"] == 1
    assert in_words(shortcut_baselines(facts))["file size"].startswith("File size alone: not measured; train needs")


def sentence(train: float, test: float, name: str = "aspect ratio") -> str:
    row = {"features": name, "auc_cv_train": train, "auc_test": test}
    return in_words(pd.DataFrame([row]))[name]


def test_words_say_how_much_and_whether_it_lasts() -> None:
    assert sentence(0.9187, 0.9085, "width and height") == (
        "Width and height alone tell nearly everything about the label in train (AUC 0.919), and on test (AUC 0.908): "
        "a model has to beat that before it may speak of lungs."
    )
    assert "much about the label" in sentence(0.8, 0.8)
    assert "something about the label" in sentence(0.65, 0.65)
    assert "AUC 0.9995), and misleads on test (AUC 0.451)" in sentence(0.9995, 0.4513)
    assert "above 0.9999" in sentence(0.99999, 0.5)
    assert "(AUC 1.000), and next to nothing on test (AUC 0.500)" in sentence(1, 0.5)
    assert ", and less on test (AUC 0.700)" in sentence(0.9, 0.7)
    assert sentence(0.51, 0.5).endswith(
        "says little about the label in train (AUC 0.510), and little on test (AUC 0.500)."
    )
    assert "and more on test (AUC 0.700)" in sentence(0.51, 0.7)
    assert "no test part with all labels to try it on" in sentence(0.9, float("nan"))
    assert sentence(0.9, 0.9, "all file facts").startswith("All file facts together tell")


def test_the_verdict_names_the_best_and_what_breaks() -> None:
    text = verdict(shortcut_baselines(table()))
    assert "Best shortcut in cross-validation on train: width and height, AUC 1.000." in text
    assert "What separates train but not test: JPEG quality." in text
    assert "majority" not in text
    assert verdict(shortcut_baselines(table()[:0])).startswith("No baseline could be computed")


def test_at_full_scale_the_numbers_are_those_published_and_committed() -> None:
    committed = json.loads((Path(__file__).parents[2] / "benchmarks/results/shortcuts.json").read_text())
    known = {row["features"]: row for row in committed["baselines"]}
    assert (known["JPEG quality"]["auc_cv_train"], known["JPEG quality"]["auc_test"]) == (0.9995, 0.4513)
    assert (known["width and height"]["auc_test"], known["width and height"]["accuracy_test"]) == (0.9085, 0.8045)
    # Of the originals, the sizes of the training files are in the package: what follows from them is measured anew.
    facts = pd.DataFrame(
        [("NORMAL" if "IM-" in name else "PNEUMONIA", name, *size) for name, size in original_sizes().items()],
        columns=["class", "filename", "width", "height"],
    ).assign(split="train", mode="L", estimated_quality=75, file_size=1000)
    measured = shortcut_baselines(facts).set_index("features")["auc_cv_train"]
    for name in ("width and height", "aspect ratio"):
        assert measured[name] == pytest.approx(known[name]["auc_cv_train"], abs=0.003)


def test_records_are_plain_and_rounded() -> None:
    table = pd.DataFrame({"features": ["x"], "auc": [0.123456], "n": [3], "none": [float("nan")]})
    assert plain_rows(table) == [{"features": "x", "auc": 0.1235, "n": 3, "none": None}]
