"""The series: notebooks run in order in kernels of their own, pages are written, failures are named."""

import json
from pathlib import Path

import nbformat
import pytest

from pneumolib.errors import DataNotFoundError, MissingExtraError
from pneumolib.series import SeriesError, run_series


def write(folder: Path, name: str, *cells: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, folder / name)


def test_notebooks_run_in_order_share_one_home_and_become_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    look = "import os, pathlib; home = pathlib.Path(os.environ['PNEUMOLIB_HOME'])"
    write(tmp_path, "02_second.ipynb", look, "print((home / 'left').read_text(), os.environ['PNEUMOLIB_PRESET'])")
    write(tmp_path, "01_first.ipynb", look, "_ = (home / 'left').write_text('from the first')")
    (tmp_path / "out").mkdir()
    report = {"phantom": True, "n": 3, "operating_point": "balanced"}
    report |= {m: 0.5 for m in ("auc", "accuracy", "sensitivity", "specificity", "f1", "brier", "ece")}
    report |= {f"{m}_ci": [0.4, 0.6] for m in ("auc", "accuracy", "sensitivity", "specificity", "f1", "brier", "ece")}
    (tmp_path / "out" / "report.json").write_text(json.dumps(report))

    pages = run_series(tmp_path, out=tmp_path / "out", preset="ci", data="phantom")

    assert [page.name for page in pages] == ["01_first.html", "02_second.html"]
    assert "from the first ci" in pages[1].read_text()
    printed = capsys.readouterr().out
    assert "PHANTOM" in printed
    assert "0.500   95 % interval 0.400 to 0.600" in printed


def test_a_notebook_that_stops_is_named_and_its_page_is_kept(tmp_path: Path) -> None:
    write(tmp_path, "01_first.ipynb", "print('so far')", "raise ValueError('no further')")
    write(tmp_path, "02_second.ipynb", "print('never')")
    with pytest.raises(SeriesError, match=r"01_first\.ipynb stopped(.|\n)*no further"):
        run_series(tmp_path, out=tmp_path / "out")
    assert "so far" in (tmp_path / "out" / "series" / "01_first.html").read_text()
    assert not (tmp_path / "out" / "series" / "02_second.html").exists()


def test_a_folder_without_notebooks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="no numbered notebooks"):
        run_series(tmp_path, out=tmp_path / "out")


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nbclient", None)
    with pytest.raises(MissingExtraError, match=r"pneumolib\[notebooks\]"):
        run_series(tmp_path, out=tmp_path / "out")
