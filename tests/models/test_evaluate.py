"""A detector on a set of images: the report of its own answers, at its own threshold."""

import numpy as np
import pytest

from pneumolib.config import Config
from pneumolib.data.dataset import Dataset
from pneumolib.errors import ConfigError, DataError
from pneumolib.evaluation.report import Report
from pneumolib.models.detector import Detector
from pneumolib.models.evaluate import evaluate
from pneumolib.models.training import train


@pytest.fixture(scope="module")
def detector(phantom: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    config = Config(name="tiny", size=32, width=4, epochs=1, batch_size=16, precision="float32")
    return train(phantom, config, out=tmp_path_factory.mktemp("evaluate") / "run", progress=False).detector


@pytest.fixture(scope="module")
def report(detector: Detector, phantom: Dataset) -> Report:
    return evaluate(detector, phantom.test, n_bootstrap=50)


def test_it_measures_the_detectors_own_answers(detector: Detector, phantom: Dataset, report: Report) -> None:
    table = report.table()
    assert table["name"].tolist() == list(phantom.test.names)
    said = detector.probability(phantom.test.images(32))
    np.testing.assert_allclose(table["probability"], said, atol=1e-6)
    called = said >= detector.operating_points["balanced"].threshold
    assert report.metrics["accuracy"].value == pytest.approx((called == phantom.test.is_pneumonia).mean())


def test_the_threshold_is_the_one_that_was_frozen(detector: Detector, phantom: Dataset) -> None:
    for name, point in detector.operating_points.items():
        report = evaluate(detector, phantom.test, operating_point=name, n_bootstrap=10)
        assert (report.operating_point, report.threshold) == (name, point.threshold)


def test_a_phantom_result_says_so(report: Report) -> None:
    assert report.phantom
    assert "PHANTOM" in str(report)
    assert "PHANTOM" in report._repr_html_()


def test_the_same_seed_gives_the_same_report(detector: Detector, phantom: Dataset, report: Report) -> None:
    assert evaluate(detector, phantom.test, n_bootstrap=50).to_dict() == report.to_dict()
    assert evaluate(detector, phantom.test, n_bootstrap=50, seed=1).to_dict() != report.to_dict()


def test_an_empty_part_and_an_unknown_point_are_refused(detector: Detector, phantom: Dataset) -> None:
    with pytest.raises(DataError, match="the 'nobody' part of this data set is empty"):
        evaluate(detector, phantom.test.take([], name="nobody"))
    with pytest.raises(
        ConfigError, match="Allowed: balanced, high_sensitivity, high_specificity. Received: 'best'".replace(".", r"\.")
    ):
        evaluate(detector, phantom.test, operating_point="best")
