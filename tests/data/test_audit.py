"""An audit finds what was planted, says so in words and as JSON, and finds nothing where nothing is."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pneumolib as pn
from pneumolib.data.audit import AuditReport
from pneumolib.data.shortcuts import FEATURES
from pneumolib.errors import DataError, DataNotFoundError

N_TRAIN, N_TEST = 40, 20


def encoded(seed: int, size: tuple[int, int] = (96, 80), quality: int = 90) -> bytes:
    """A coarse random picture as JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 9), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(data, "JPEG", quality=quality)
    return data.getvalue()


def files() -> dict[str, bytes]:
    """A clean data set of somebody else: the labels by turns, a picture and a patient each, all of one size."""
    return {
        f"{split}/{'ill' if i % 2 else 'healthy'}/p{start + i}-1.jpg": encoded(start + i)
        for split, start, n in (("train", 0, N_TRAIN), ("test", 100, N_TEST))
        for i in range(n)
    }


def written(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def auc(report: AuditReport, name: str, where: str = "auc_cv_train") -> float:
    return float(report.baselines.set_index("features").loc[name, where])


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> AuditReport:
    return pn.audit(written(tmp_path_factory.mktemp("clean"), files()), patients=r"(p\d+)-")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> AuditReport:
    """The clean set with one of each defect, in a zip."""
    content = files()
    content["train/ill/p1-2.jpg"] = content["train/ill/p1-1.jpg"]  # twice in a part, one patient
    content["test/ill/p777-1.jpg"] = content["train/ill/p3-1.jpg"]  # across the parts
    content["train/ill/p778-1.jpg"] = content["train/healthy/p0-1.jpg"]  # with both labels
    content["test/ill/p779-1.jpg"] = encoded(5, size=(60, 50))  # train's p5, made smaller
    content["test/ill/p7-2.jpg"] = encoded(500)  # a patient of train
    content["train/ill/p780-1.jpg"] = b"not a picture"
    content["test/healthy/p781-1.jpg"] = encoded(501)[:700]
    content["stray.png"] = b""
    path = tmp_path_factory.mktemp("broken") / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(f"somewhere/{name}", data)
    return pn.audit(path, patients=r"(p\d+)-")


def test_a_clean_data_set_of_other_people_is_called_clean(clean: AuditReport) -> None:
    assert len(clean.facts) == N_TRAIN + N_TEST
    assert clean.unreadable == ()
    assert clean.duplicates.empty
    assert clean.near is not None
    assert clean.near.n == 0
    assert clean.shared == {"train & test": ()}
    assert clean.card is None
    assert not clean.phantom
    assert clean.findings["duplicates"] == "No two files have the same bytes."
    assert clean.findings["patients"].startswith("No patient is in two parts (train & test). Patients by the pattern")
    for name in FEATURES:
        assert 0.2 < auc(clean, name) < 0.8, name
    assert auc(clean, "width and height") == 0.5


def test_the_summary_counts_each_part_and_label(clean: AuditReport) -> None:
    summary = clean.summary().set_index(["split", "label"])
    assert summary["files"].to_dict() == {
        ("train", "healthy"): 20, ("train", "ill"): 20, ("test", "healthy"): 10, ("test", "ill"): 10
    }  # fmt: skip
    row = summary.loc[("train", "ill")]
    assert (row["patients"], row["patients_with_several"]) == (20, 0)
    assert (row["widths"], row["heights"], row["width"]) == ("96", "80", 96)
    assert (row["formats"], row["modes"], row["jpeg_quality"]) == ("JPEG 20", "L 20", 90)
    size = sum(len(data) for name, data in files().items() if name.startswith("train/ill/"))
    assert row["megabytes"] == pytest.approx(size / 1e6)


def test_planted_exact_duplicates_are_found_within_and_across(broken: AuditReport) -> None:
    groups = broken.duplicates.groupby("group")["name"].apply(lambda names: {n.split("/", 1)[1] for n in names})
    expected = [
        {"train/ill/p1-1.jpg", "train/ill/p1-2.jpg"},
        {"train/ill/p3-1.jpg", "test/ill/p777-1.jpg"},
        {"train/healthy/p0-1.jpg", "train/ill/p778-1.jpg"},
    ]
    assert len(groups) == 3
    assert all(group in list(groups) for group in expected)
    text = broken.findings["duplicates"]
    assert text == (
        "Groups of files with the same bytes: 3; files too many: 3. Across parts: 1, which leaks. Under several "
        "labels, of which not all can be right: 1. Under several patients, so that there may be others of two names: 2."
    )


def test_a_planted_near_duplicate_is_found_across_parts(broken: AuditReport) -> None:
    assert broken.near is not None
    same = broken.near.pairs[broken.near.pairs["same_picture"]]
    assert [{a.split("/", 1)[1], b.split("/", 1)[1]} for a, b in zip(same["a"], same["b"], strict=True)] == [
        {"train/ill/p5-1.jpg", "test/ill/p779-1.jpg"}
    ]
    assert same["across_splits"].all()
    text = broken.findings["near duplicates"]
    assert "one picture saved twice (correlation 0.99 or more): 1 (1 across parts, 0 across labels)." in text


def test_a_planted_patient_in_two_parts_is_found(broken: AuditReport) -> None:
    assert broken.shared == {"train & test": ("p7",)}
    assert broken.findings["patients"].startswith("In several parts, which leaks: train & test 1. With several files")
    assert "would part: 2." in broken.findings["patients"]


def test_planted_files_that_cannot_be_read_are_reported_and_the_rest_audited(broken: AuditReport) -> None:
    assert {name.split("/", 1)[1] for name, _ in broken.unreadable} == {
        "train/ill/p780-1.jpg",
        "test/healthy/p781-1.jpg",
    }
    assert "Not readable: 2, such as somewhere/t" in broken.findings["files"]
    assert "Left out, in no class folder: 1." in broken.findings["files"]
    assert len(broken.facts) == N_TRAIN + N_TEST + 5
    assert "of 67 files in set.zip" in broken.title


def test_a_planted_shortcut_of_size_is_found_with_an_auc_of_one(tmp_path: Path) -> None:
    content = {name: encoded(i, size=(140, 80) if "/ill/" in name else (96, 80)) for i, name in enumerate(files())}
    report = pn.audit(written(tmp_path, content))
    for name in ("width and height", "aspect ratio"):
        assert auc(report, name) == 1
        assert auc(report, name, "auc_test") == 1
    assert 0.2 < auc(report, "mean and contrast") < 0.8
    assert report.sentences["width and height"].endswith("a model has to beat that before it may speak of lungs.")
    assert "Best shortcut on test: " in report.verdict
    assert "Each file counts as a patient of its own" in report.patient_key


def test_without_the_package_near_duplicates_are_said_not_to_be_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    report = pn.audit(written(tmp_path, {name: data for name, data in files().items() if name.startswith("test")}))
    assert report.near is None
    assert report.to_dict()["near_duplicates"] is None
    assert "Not looked for" in report.findings["near duplicates"]
    assert "pneumolib[audit]" in report.verdict


def test_json_holds_all_that_was_found(broken: AuditReport, clean: AuditReport) -> None:
    read = json.loads(broken.to_json())
    assert read["n"] == len(broken.facts)
    assert read["outside"] == 1
    assert {file["name"] for file in read["unreadable"]} == {name for name, _ in broken.unreadable}
    assert len(read["duplicates"]) == 3
    assert set(read["duplicates"][0][0]) == {"name", "split", "label", "patient"}
    assert read["near_duplicates"]["n_same_picture"] == 1
    assert read["near_duplicates"]["n"] == len(read["near_duplicates"]["pairs"])
    assert read["shared_patients"] == {"train & test": ["p7"]}
    assert [row["features"] for row in read["baselines"]] == list(FEATURES)
    assert read["baselines"][0]["in_words"] is None
    assert "alone" in read["baselines"][1]["in_words"]
    assert read["source"] == "set.zip"
    assert "/" not in read["source"]
    assert json.loads(clean.to_json())["duplicates"] == []


def test_the_audit_of_a_phantom_finds_the_planted_shortcut_and_says_phantom(phantom: pn.Dataset) -> None:
    report = pn.audit(phantom)
    assert auc(report, "JPEG quality") > 0.95
    assert auc(report, "JPEG quality", "auc_test") < 0.6
    assert "JPEG quality" in report.verdict
    assert len(report.facts) == len(phantom.train) + len(phantom.val) + len(phantom.test)
    assert not any(report.shared.values())
    assert set(report.shared) == {"train & val", "train & test", "val & test"}
    assert str(report).startswith("PHANTOM")
    assert "PHANTOM" in report._repr_html_()
    assert json.loads(report.to_json())["phantom"] is True


def test_the_layout_of_this_data_set_is_compared_with_its_card(tmp_path: Path) -> None:
    names = ["train/NORMAL/IM-0115-0001.jpeg", "train/NORMAL/IM-0117-0001.jpeg", "test/PNEUMONIA/person80_virus_1.jpeg"]
    report = pn.audit(written(tmp_path / "test" / "chest_xray", {name: encoded(i) for i, name in enumerate(names)}))
    assert report.card is not None
    assert report.card.startswith("train/NORMAL 2 in place of 1,341, train/PNEUMONIA 0 in place of 3,875")
    assert "Other than on the data card" in report.findings["files"]
    assert "own names: (bacteria or virus, number)" in report.patient_key
    # The root is where this project's own reader finds it, below a folder that is called like a part.
    assert pn.audit(tmp_path).card == report.card


def test_another_class_beside_the_two_is_not_left_out(tmp_path: Path) -> None:
    content = {f"train/{label}/{i}.jpg": encoded(i) for i, label in enumerate(["NORMAL", "PNEUMONIA", "COVID"])}
    report = pn.audit(written(tmp_path, content))
    assert report.card is None
    assert sorted(report.facts["label"]) == ["COVID", "normal", "pneumonia"]


def test_where_no_file_can_be_read_that_is_the_report(tmp_path: Path) -> None:
    report = pn.audit(written(tmp_path, {"ill/a.png": b"", "well/b.png": b"no picture"}))
    assert len(report.unreadable) == 2
    assert report.facts.empty
    assert "No baseline could be computed" in report.verdict
    assert "only one part" in report.findings["patients"]
    assert "2 files" in str(report)
    assert json.loads(report.to_json())["n"] == 0


def test_what_is_empty_missing_or_without_classes_is_refused(phantom: pn.Dataset, tmp_path: Path) -> None:
    nothing = phantom.train.take(np.zeros(len(phantom.train), bool))
    with pytest.raises(DataError, match="none in"):
        pn.audit(pn.Dataset(nothing, nothing, nothing, source=phantom.source, kind="folder"))
    with pytest.raises(DataNotFoundError, match="nowhere"):
        pn.audit(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no class folders"):
        pn.audit(written(tmp_path, {"a.png": b""}))
    with pytest.raises(DataError, match="one group"):
        pn.audit(phantom, patients="person")


def test_names_in_html_are_escaped(tmp_path: Path) -> None:
    content = {"ill/<img src=x>.png": b"", "well/b.jpg": encoded(1)}
    page = pn.audit(written(tmp_path, content))._repr_html_()
    assert "<img" not in page
    assert "&lt;img" in page


def test_the_real_data_set_has_the_defects_that_are_known_of_it(real_data: Path) -> None:
    report = pn.audit(real_data)
    assert report.unreadable == ()
    assert not any(report.shared.values())
    in_train = report.duplicates[report.duplicates["split"] == "train"]
    assert len(in_train) - in_train["group"].nunique() == 26
    spread = report.duplicates.groupby("group")[["split", "label"]].nunique()
    assert (spread == 1).all(axis=None)
    assert report.near is not None
    assert not report.near.pairs["same_picture"].any()
