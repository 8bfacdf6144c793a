"""`pneumolib train` and `evaluate`: by their contracts, from a folder of phantoms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pneumolib.cli import main
from pneumolib.config import PRESETS
from pneumolib.models.training import Run

REPORT_KEYS = {
    "n", "auc", "auc_ci", "accuracy", "accuracy_ci", "sensitivity", "specificity", "f1", "brier", "ece", "threshold",
    "source", "per_subtype",
}  # fmt: skip


def test_evaluate_writes_the_report(
    run: Run, phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "report.json"
    arguments = ["evaluate", "--data", str(phantom_folder), "--detector", str(run.folder), "--json", str(target)]
    assert main(arguments) == 0
    assert "PHANTOM" in capsys.readouterr().out
    report = json.loads(target.read_text())
    assert set(report) >= REPORT_KEYS
    assert report["n"] == len(list(phantom_folder.rglob("test/*/*.jpeg")))


def test_evaluate_on_validation_finds_the_patients_that_training_held_out(
    run: Run, phantom_folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "val.json"
    arguments = ["evaluate", "--data", str(phantom_folder), "--detector", str(run.folder), "--split", "val"]
    assert main([*arguments, "--json", str(target)]) == 0
    predictions = (run.folder / "predictions.csv").read_text().splitlines()[1:]
    assert json.loads(target.read_text())["n"] == sum(",val," in line for line in predictions)


def test_train_refuses_a_finished_folder_and_resumes_when_told(
    phantom_folder: Path,
    tiny: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(PRESETS, "ci", tiny)
    arguments = ["train", "--data", str(phantom_folder), "--preset", "ci", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert str(tmp_path / "run" / "detector") in capsys.readouterr().out
    assert main(arguments) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
