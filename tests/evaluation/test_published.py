"""Published results: possible on the official test images, and the baseline as the benchmark measured it."""

import json
from pathlib import Path

import pytest

from pneumolib.data.card import CARD
from pneumolib.evaluation.published import N_TEST, PUBLISHED, SIZE_BASELINE, PublishedResult

ROOT = Path(__file__).resolve().parents[2]


def test_the_test_part_is_the_cards() -> None:
    assert sum(CARD.counts["test"].values()) == N_TEST


@pytest.mark.parametrize("result", [*PUBLISHED, SIZE_BASELINE], ids=lambda r: r.model)
def test_what_is_stated_can_have_been_reached(result: PublishedResult) -> None:
    for value in (result.auc, result.accuracy, result.sensitivity, result.specificity):
        assert value is None or 0 < value < 1
    if result.sensitivity is not None and result.specificity is not None:
        ill, well = CARD.counts["test"]["PNEUMONIA"], CARD.counts["test"]["NORMAL"]
        right = (result.sensitivity * ill + result.specificity * well) / N_TEST
        assert result.accuracy == pytest.approx(right, abs=1e-3)
    assert result.source


def test_the_baseline_is_what_the_benchmark_measured() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "shortcuts.json").read_text())["baselines"]
    (row,) = [row for row in measured if row["features"] == "width and height"]
    for metric in ("auc", "accuracy", "sensitivity", "specificity"):
        assert getattr(SIZE_BASELINE, metric) == pytest.approx(row[f"{metric}_test"], abs=5e-5)
