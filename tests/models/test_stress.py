"""A stress table: its first row is the evaluation, and it finds what a detector leans on."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import pneumolib as pn
from pneumolib.config import Config
from pneumolib.data.dataset import Dataset, ImageSet
from pneumolib.data.stress import STRESSES, stressed_images
from pneumolib.errors import ConfigError, DataError
from pneumolib.models import stress as module
from pneumolib.models.detector import Detector
from pneumolib.models.evaluate import evaluate
from pneumolib.models.stress import MEASURES, StressRow, StressTable, stress_test, stress_tests
from pneumolib.models.training import train

SOME = [s for s in STRESSES if s.group in ("noise", "mirror", "lung box")]


class ByBrightness:
    """Stands in for a detector: the brighter the middle half of the picture, the surer of pneumonia."""

    def __init__(self, threshold: float = 0.5) -> None:
        self.name, self.size, self.card = "by brightness", 32, {"phantom": False}
        self.operating_points = {"balanced": SimpleNamespace(threshold=threshold)}

    def probability(self, images: np.ndarray) -> np.ndarray:
        return images[:, 8:24, 8:24].mean((1, 2), dtype=np.float32) / np.float32(255)


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Ten dark normal and ten bright pneumonia pictures with the same gray border."""
    root = tmp_path_factory.mktemp("shades")
    for i in range(20):
        image = np.full((224, 224), 90, np.uint8)
        image[30:190, 30:190] = 90 + 5 * i
        path = root / "test" / ("PNEUMONIA" if i >= 10 else "NORMAL") / f"{'ill' if i >= 10 else 'healthy'}{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return pn.load_dataset(root).test


@pytest.fixture(scope="module")
def table(shades: ImageSet) -> StressTable:
    return stress_test(ByBrightness(), shades)


@pytest.fixture(scope="module")
def detector(phantom: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    config = Config(name="tiny", size=32, width=4, epochs=1, batch_size=16, precision="float32")
    return train(phantom, config, out=tmp_path_factory.mktemp("stress") / "run", progress=False).detector


def row(table: StressTable, group: str, level: float | str) -> StressRow:
    (found,) = (r for r in table.rows if (r.group, r.level) == (group, level))
    return found


def test_the_untouched_row_is_the_evaluation(detector: Detector, phantom: Dataset) -> None:
    for name in detector.operating_points:
        table = stress_test(detector, phantom.test, stresses=SOME, operating_point=name)
        report = evaluate(detector, phantom.test, operating_point=name, n_bootstrap=10)
        for measure in MEASURES:
            assert getattr(table.untouched, measure) == pytest.approx(report.metrics[measure].value, abs=1e-12)
        assert (table.n, table.source, table.threshold) == (report.n, report.source, report.threshold)
        assert (table.detector, table.phantom, table.operating_point) == (report.detector, True, name)


def test_each_row_holds_the_answers_to_its_own_pictures(
    detector: Detector, phantom: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 7)
    table = stress_test(detector, phantom.test, stresses=SOME)
    truth = phantom.test.is_pneumonia
    before = detector.probability(phantom.test.images(32)) >= table.threshold
    for stress, result in zip(SOME, table.rows[1:], strict=True):
        called = detector.probability(stressed_images(phantom.test, 32, stress)) >= table.threshold
        assert result.label == stress.label
        assert result.accuracy == pytest.approx((called == truth).mean())
        assert result.changed == pytest.approx((called != before).mean())


def test_it_finds_what_a_detector_leans_on_and_nothing_else(table: StressTable) -> None:
    assert table.untouched.auc == table.untouched.sensitivity == 1
    assert table.untouched.specificity < 1
    hidden, only = row(table, "lung box", "hidden"), row(table, "lung box", "only")
    assert (hidden.auc, hidden.auc_loss) == (0.5, 0.5)
    assert (hidden.sensitivity, hidden.specificity) == (0, 1)
    assert (only.auc, only.auc_loss, only.changed) == (1, 0, 0)
    # The order of the shades outlasts all that changes the whole picture, the decisions at the threshold do not.
    for group in ("mirror", "markers", "rotation", "brightness", "gamma", "blur"):
        assert all(r.auc == 1 for r in table.rows if r.group == group), group
    dark, bright = row(table, "brightness", 0.6), row(table, "brightness", 1.4)
    assert dark.sensitivity < 0.5
    assert dark.specificity == 1
    assert bright.specificity < table.untouched.specificity
    assert row(table, "mirror", "mirrored").changed == 0


def test_losses_are_the_untouched_measure_less_the_stressed_one(table: StressTable) -> None:
    assert [r.label for r in table.rows] == ["untouched", *(s.label for s in STRESSES)]
    for r in table.rows:
        for measure in MEASURES:
            lost = getattr(table.untouched, measure) - getattr(r, measure)
            assert getattr(r, f"{measure}_loss") == pytest.approx(lost)


def test_the_table_comes_as_a_frame_as_json_and_as_text(table: StressTable, shades: ImageSet) -> None:
    frame = table.to_frame()
    assert len(frame) == 1 + len(STRESSES)
    assert list(frame)[:3] == ["group", "level", "label"]
    assert frame.set_index("label")["auc"]["lung box black"] == 0.5
    kept = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert kept["n"] == 20
    assert kept["phantom"] is False
    assert kept["rows"] == frame.to_dict("records")
    text = str(table)
    assert all(stress.label in text for stress in STRESSES)
    assert "test of " in text
    assert "PHANTOM" not in text


def test_a_phantom_result_says_so(detector: Detector, phantom: Dataset) -> None:
    table = stress_test(detector, phantom.test, stresses=SOME)
    assert str(table).startswith("PHANTOM")
    assert table.to_dict()["phantom"] is True


def test_of_one_class_what_is_undefined_is_none(shades: ImageSet) -> None:
    ill = shades.take(shades.is_pneumonia)
    kept = stress_test(ByBrightness(), ill, stresses=SOME).to_dict()
    assert kept["rows"][0]["auc"] is kept["rows"][1]["auc_loss"] is kept["rows"][0]["specificity"] is None
    assert kept["rows"][0]["sensitivity"] == 1


def test_several_detectors_have_their_own_threshold_and_share_the_pictures(
    shades: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    original = module.stressed_squares
    monkeypatch.setattr(module, "stressed_squares", lambda *a, **k: made.append(a[1]) or original(*a, **k))
    low, high = stress_tests([ByBrightness(0.4), ByBrightness(0.6)], shades, stresses=SOME)
    assert sorted(made) == list(range(20))
    assert (low.threshold, high.threshold) == (0.4, 0.6)
    assert low.untouched.auc == high.untouched.auc
    assert low.untouched.specificity < high.untouched.specificity
    assert high == stress_test(ByBrightness(0.6), shades, stresses=SOME)


def test_what_cannot_be_measured_is_refused(detector: Detector, phantom: Dataset) -> None:
    with pytest.raises(DataError, match="the 'nobody' part of this data set is empty"):
        stress_test(detector, phantom.test.take([], name="nobody"))
    with pytest.raises(ConfigError, match="Received: 'best'"):
        stress_test(detector, phantom.test, operating_point="best")
    with pytest.raises(ConfigError, match="at least one stress"):
        stress_test(detector, phantom.test, stresses=[])
