"""`pneumolib predict`: a line a file, errors beside the rest, and quick answers without TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pneumolib.cli import main
from pneumolib.models.training import Run


def test_predict_prints_a_line_a_file(run: Run, x_ray: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(x_ray), str(x_ray), "--detector", str(run.folder)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert x_ray.name in out
    assert "PHANTOM" in err


def test_predict_json_has_the_keys_that_others_rely_on(
    run: Run, x_ray: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(x_ray), "--json", "--detector", str(run.folder / "detector")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"path", "probability", "decision", "threshold", "subtypes", "input"} <= set(answer)
    assert answer["path"] == str(x_ray)
    assert set(answer["input"]) == {"ok", "reason"}


def test_predict_reports_what_it_cannot_read_and_scores_the_rest(
    run: Run, x_ray: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "notes.jpeg"
    text.write_text("no image")
    files = [str(text), str(tmp_path / "missing.png"), str(x_ray)]
    assert main(["predict", *files, "--detector", str(run.folder)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert "notes.jpeg" in err
    assert "missing.png" in err
    assert "Traceback" not in err


def test_predict_from_a_cold_start_never_imports_tensorflow(run: Run, x_ray: Path) -> None:
    program = (
        "import sys; from pneumolib.cli import main; code = main(sys.argv[1:]);"
        "names = {'tensorflow', 'keras', 'pandas', 'sklearn', 'matplotlib', 'seaborn', 'jax', 'torch'};"
        "heavy = names & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "predict", str(x_ray), "--detector", str(run.folder)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert x_ray.name in done.stdout
