"""The detector in the package: there, small, whole, and the one that the committed results speak of."""

from __future__ import annotations

import csv
import importlib.resources
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import pneumolib
from pneumolib.config import Config
from pneumolib.data.dataset import Dataset, load_dataset
from pneumolib.data.images import square
from pneumolib.data.radiograph import SUBTYPES, draw
from pneumolib.data.splits import Split, shifted_images, split_by_patient
from pneumolib.evaluation.calibration import apply_temperature
from pneumolib.evaluation.metrics import auc
from pneumolib.models.detector import Detector, load_detector
from pneumolib.models.export import export

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
FOLDER = Path(str(importlib.resources.files(pneumolib))) / "weights"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector()


def test_it_is_small_and_says_where_it_comes_from(detector: Detector) -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 12e6
    card = detector.card
    assert card["phantom"] is False
    assert {"train", "val", "shifted"} == set(card["images"])
    assert "/" not in card["source"]
    assert detector.config == Config.preset("cpu", seed=detector.config.seed)


def test_its_operating_points_keep_what_their_names_promise(detector: Detector) -> None:
    points = detector.operating_points
    assert points["high_sensitivity"].sensitivity >= 0.98
    assert points["high_specificity"].specificity >= 0.98
    thresholds = [points[name].threshold for name in ("high_sensitivity", "balanced", "high_specificity")]
    assert thresholds == sorted(thresholds)


def test_keras_and_the_light_graph_agree_on_whole_pictures(detector: Detector, phantom: Dataset) -> None:
    images = phantom.test.images(detector.size)[:8]
    keras_says = np.asarray(detector.keras_model()(images[..., None].astype(np.float32), training=False))
    np.testing.assert_allclose(apply_temperature(detector.logits(images), 1.0), keras_says, atol=1e-5, rtol=0)


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_it_can_be_exported_with_8_bit_numbers(detector: Detector, format: str, tmp_path: Path) -> None:
    drawn = np.stack([square(draw(SUBTYPES[i % 3], i), detector.size) for i in range(60)])
    result = export(detector, tmp_path / format, format=format, precision="int8", representative=drawn)
    assert result.max_difference < result.bound / 2


def test_the_command_line_answers_with_it_and_loads_no_tensorflow(phantom: Dataset, tmp_path: Path) -> None:
    (tmp_path / "x-ray.jpeg").write_bytes(phantom.test.read(0))
    program = (
        "import sys; from pneumolib.cli import main; status = main(['predict', 'x-ray.jpeg', '--json']);"
        "assert not {'tensorflow', 'keras', 'torch'} & set(sys.modules); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert 0 <= answer["probability"] <= 1
    assert answer["path"] == "x-ray.jpeg"


def test_it_is_the_one_chosen_on_validation(detector: Detector) -> None:
    found = json.loads((RESULTS / "cpu.json").read_text())
    assert len(found["runs"]) >= 3
    best = max(found["runs"], key=lambda run: run["val_auc"] + run["shifted_auc"])
    assert best["seed"] == found["chosen"] == detector.config.seed
    assert detector.card["val_auc"] == best["val_auc"]
    assert detector.threshold == pytest.approx(best["report"]["threshold"])


def test_the_committed_predictions_give_the_committed_numbers() -> None:
    found = json.loads((RESULTS / "cpu.json").read_text())
    with (RESULTS / "cpu.csv").open() as file:
        rows = list(csv.DictReader(file))
    truth = np.array([row["label"] == "pneumonia" for row in rows])
    for run in found["runs"]:
        p = np.array([float(row[f"seed_{run['seed']}"]) for row in rows])
        report = run["report"]
        assert len(rows) == report["n"]
        assert auc(truth, p) == pytest.approx(report["auc"], abs=1e-4)
        assert (p >= report["threshold"])[truth].mean() == pytest.approx(report["sensitivity"], abs=0.006)
    for metric, value in found["mean"].items():
        assert value == pytest.approx(np.mean([run["report"][metric] for run in found["runs"]]))


def share_refused(detector: Detector, images: list[NDArray[np.uint8]]) -> float:
    answers = detector.predict(images)
    assert all((a.decision is None) == (a.input.reason is not None) == (not a.input.ok) for a in answers)
    return float(np.mean([not a.input.ok for a in answers]))


def test_what_is_no_x_ray_is_refused(detector: Detector) -> None:
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = []
    for image in load_sample_images().images:
        gray = image.mean(-1).astype(np.uint8)
        for _ in range(25):
            height, width = (int(side * rng.uniform(0.4, 1)) for side in gray.shape)
            y, x = rng.integers(0, gray.shape[0] - height + 1), rng.integers(0, gray.shape[1] - width + 1)
            photographs.append(gray[y : y + height, x : x + width])
    pages = []
    for _ in range(25):
        page = np.full((700, 500), 255, np.uint8)
        for y in range(30, 690, int(rng.integers(16, 34))):
            text = "".join(chr(c) for c in rng.integers(97, 123, 50))
            cv2.putText(page, text, (20, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 0, 1, cv2.LINE_AA)
        pages.append(page)
    noise = [rng.integers(0, 256, (200, 240), dtype=np.uint8) for _ in range(25)]
    blank = [np.full((200, 200), value, np.uint8) for value in range(0, 256, 15)]
    for pictures in (photographs, pages, noise, blank):
        assert share_refused(detector, pictures) >= 0.98


def test_real_x_rays_pass_unless_they_are_inverted_turned_or_cropped(detector: Detector, real_data: Path) -> None:
    data = load_dataset(real_data)
    val = split_by_patient(data.train, seed=detector.card["split_seed"]).val
    squares = list(val.images(detector.size))
    assert share_refused(detector, squares) <= 0.02
    assert share_refused(detector, list(data.test.images(detector.size))) <= 0.02
    some, size = squares[::4], detector.size
    turn = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), 45, 1.0)
    for pictures in (
        [255 - x for x in some],
        [np.ascontiguousarray(np.rot90(x)) for x in some],
        [np.ascontiguousarray(x[::-1, ::-1]) for x in some],
        [np.asarray(cv2.warpAffine(x, turn, (size, size)), np.uint8) for x in some],
        [np.ascontiguousarray(x[: 2 * size // 5, : 2 * size // 5]) for x in some],
    ):
        assert share_refused(detector, pictures) >= 0.98


@pytest.fixture(scope="module")
def same_data(detector: Detector, real_data: Path) -> tuple[Dataset, Split]:
    """The very files that it was trained and measured on; originals and other copies give slightly other numbers."""
    data = load_dataset(real_data)
    split = split_by_patient(data.train, seed=detector.card["split_seed"])
    if split.fingerprint() != detector.card["data"]:
        pytest.skip("PNEUMOLIB_DATA names other files than the detector was trained on")
    return data, split


def test_on_real_validation_patients_it_is_as_good_as_its_card_says(
    detector: Detector, same_data: tuple[Dataset, Split]
) -> None:
    _, split = same_data
    p = detector.probability(split.val.images(detector.size))
    assert auc(split.val.is_pneumonia, p) == pytest.approx(detector.card["val_auc"], abs=2e-4)
    p = detector.probability(shifted_images(split.shifted, detector.size, seed=split.seed))
    assert auc(split.shifted.is_pneumonia, p) == pytest.approx(detector.card["shifted_auc"], abs=2e-3)


def test_on_real_test_images_it_answers_as_committed(detector: Detector, same_data: tuple[Dataset, Split]) -> None:
    with (RESULTS / "cpu.csv").open() as file:
        committed = {row["name"]: float(row[f"seed_{detector.config.seed}"]) for row in csv.DictReader(file)}
    test = same_data[0].test
    assert list(test.names) == list(committed)
    np.testing.assert_allclose(detector.probability(test.images(detector.size)), list(committed.values()), atol=2e-3)
