"""``pneumolib score``: exit statuses, what is printed, and no TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pneumolib.cli import main
from pneumolib.models.training import Run


@pytest.fixture
def archive(x_ray: Path, tmp_path: Path) -> Path:
    """Three X-rays."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpeg").write_bytes(x_ray.read_bytes())
    return folder


def test_a_phantoms_detector_scores_and_says_what_it_is(
    run: Run, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["score", str(archive), "--out", str(tmp_path / "o.parquet"), "--detector", str(run.folder)]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "PHANTOM: this detector was trained on synthetic X-rays only" in err
    assert out.splitlines()[0] == "Scoring 3 images ..."
    assert "PHANTOM" in out.splitlines()[1]
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 3


def test_status_is_1_where_a_file_could_not_be_read_and_2_where_nothing_could_be_done(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (archive / "bad.png").write_bytes(b"no image")
    arguments = ["score", str(archive), "--out", str(tmp_path / "o.parquet"), "--workers", "1"]
    assert main(arguments) == 1
    assert "1 not readable" in capsys.readouterr().out
    (archive / "another.png").write_bytes(b"no image")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pneumolib: Other scores stand there")
    assert len(err.splitlines()) == 1
    assert main([*arguments, "--anew", "--operating-point", "high_sensitivity", "--shard-size", "2"]) == 1
    assert pq.read_table(tmp_path / "o.parquet")["operating_point"].to_pylist() == ["high_sensitivity"] * 5


def test_tensorflow_is_never_imported(archive: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pneumolib.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'tensorflow', 'keras', 'pandas', 'sklearn', 'matplotlib', 'ray'} & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "score", str(archive), "--out", str(tmp_path / "parts")]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
