"""The README: its first code runs as it stands, and its numbers are those of the committed results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pneumolib.config import PRESETS
from pneumolib.data.dataset import load_dataset

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_five_lines_run_as_they_stand(
    phantom_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    tiny = {"size": 32, "width": 4, "epochs": 1, "batch_size": 16, "precision": "float32"}
    monkeypatch.setitem(PRESETS, "cpu", tiny)
    monkeypatch.setenv("PNEUMOLIB_DATA", str(phantom_folder))
    monkeypatch.setenv("PNEUMOLIB_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("x-ray.jpeg").write_bytes(load_dataset(phantom_folder).test.read(0))
    exec(compile(block, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "AUC" in out
    assert "x-ray.jpeg" in out


def test_its_numbers_are_those_of_the_committed_results() -> None:
    command = [sys.executable, str(ROOT / "tools" / "results.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_files_that_it_names_are_there() -> None:
    named = re.findall(r"\]\(((?!https?://)[^)#]+)", README)
    assert named
    for name in named:
        assert (ROOT / name).is_file(), name
