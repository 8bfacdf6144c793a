"""`pneumolib export`: a line that says what came of it, a phantom called one, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pneumolib.cli import export, main
from pneumolib.models.export import PRECISIONS
from pneumolib.models.training import Run


def test_it_offers_what_the_library_does() -> None:
    assert tuple(PRECISIONS) == export.FORMATS
    assert {p for precisions in PRECISIONS.values() for p in precisions} == set(export.PRECISIONS)


def test_it_writes_and_says_how_it_compares(
    run: Run, phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(tmp_path / "out"), "--format", "onnx", "--detector", str(run.folder)]
    assert main([*arguments, "--precision", "int8", "--representative", str(phantom_folder)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("onnx, int8: ")
    assert "check of the input is not in it" in out
    assert err.startswith("pneumolib: PHANTOM")
    facts = json.loads((tmp_path / "out/detector.json").read_text(encoding="utf-8"))
    assert facts["detector"]["sha256"] == run.detector.sha256
    assert facts["compared_with_keras"]["images"] > 32, "representative images are compared, too"


def test_errors_are_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "out"), "--format", "openvino", "--precision", "int8"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pneumolib: ")
    assert "--representative" in err
    assert len(err.splitlines()) == 1
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "out"), "--format", "torch"])
