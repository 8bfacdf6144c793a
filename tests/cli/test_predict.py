"""`pneumolib predict`: a line a file, folders, heat maps, errors beside the rest, quick answers without TensorFlow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pneumolib.cli import main
from pneumolib.cli.progress import Progress
from pneumolib.data.dataset import Dataset
from pneumolib.models.detector import load_detector
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


@pytest.mark.parametrize("heat", [False, True])
def test_predict_from_a_cold_start_never_imports_tensorflow(run: Run, x_ray: Path, tmp_path: Path, heat: bool) -> None:
    program = (
        "import sys; from pneumolib.cli import main; code = main(sys.argv[1:]);"
        "names = {'tensorflow', 'keras', 'pandas', 'sklearn', 'matplotlib', 'seaborn', 'jax', 'torch'};"
        "names |= set() if '--heatmap' in sys.argv else {'tqdm', 'PIL.ImageFont', 'pneumolib.models.explain'};"
        "heavy = names & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "predict", str(x_ray), "--detector", str(run.folder)]
    command += ["--heatmap", str(tmp_path)] if heat else []
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert x_ray.name in done.stdout


@pytest.fixture(scope="module")
def taken(phantom: Dataset) -> list[bytes]:
    """Files of synthetic X-rays that the detector in the package takes for X-rays; a few are too unlike real ones."""
    files = [phantom.test.read(number) for number in range(len(phantom.test))]
    return [file for file, answer in zip(files, load_detector().predict(files), strict=True) if answer.input.ok]


@pytest.fixture
def mine(taken: list[bytes], tmp_path: Path) -> Path:
    """A folder with two pictures of one name, a picture called DICOM, one without contrast, and what is no picture."""
    names = ["b/1.jpeg", "a/1.jpeg", "a/deep/2.dcm", ".hidden/3.jpeg", "a/.4.jpeg", "notes.txt"]
    for number, name in enumerate(names):
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(taken[number])
    Image.new("L", (64, 64), 128).save(tmp_path / "mine/c.png")
    (tmp_path / "mine/d.bmp").write_text("no picture")
    return tmp_path / "mine"


SEEN = ["a/1.jpeg", "a/deep/2.dcm", "b/1.jpeg", "c.png"]


def answers(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_folder_is_walked_in_order_and_what_became_of_its_files_is_counted(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(mine)]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(mine / name) for name in SEEN]
    assert "refused: almost no contrast" in lines[-1]
    problem, summary = err.splitlines()
    assert problem.startswith(f"pneumolib: {mine / 'd.bmp'}: the file is no image")
    assert summary == "pneumolib: 3 scored, 1 refused, 1 unreadable"


def test_files_are_taken_whatever_their_names_and_in_their_order(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [mine / "notes.txt", mine / "a", mine / ".hidden/3.jpeg"]
    assert main(["predict", "--json", *map(str, given)]) == 0
    out, err = capsys.readouterr()
    expected = [given[0], mine / "a/1.jpeg", mine / "a/deep/2.dcm", given[2]]
    assert [answer["path"] for answer in answers(out)] == [str(path) for path in expected]
    assert err == "pneumolib: 4 scored, 0 refused, 0 unreadable\n"


def test_of_one_file_there_is_no_summary(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(mine / "b")]) == 0
    assert capsys.readouterr().err == ""


def test_several_files_are_answered_as_each_alone(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(mine), "--json"]) == 1
    together = answers(capsys.readouterr().out)
    for answer in together:
        assert main(["predict", answer["path"], "--json"]) == 0
        assert answers(capsys.readouterr().out) == [answer]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{mine}/empty"], "no pictures in that folder"),
        (["{mine}", "{mine}/empty"], "no pictures in that folder"),
        (["{mine}", "--heatmap", "{mine}"], "cannot go among them"),
        (["{mine}", "--heatmap", "{mine}/notes.txt"], "cannot be made"),
        (["{mine}", "--operating-point", "mine"], "no such operating point"),
    ],
)
def test_what_is_wrong_with_the_call_is_one_line_and_nothing_is_scored(
    mine: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "empty").mkdir()
    assert main(["predict", *(text.format(mine=mine) for text in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pneumolib: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_operating_point_decides(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = load_detector().operating_points
    assert len({point.threshold for point in points.values()}) > 1
    for heat in ([], ["--heatmap", str(mine / "heat")]):
        for name, point in points.items():
            assert main(["predict", str(mine / "b/1.jpeg"), "--json", "--operating-point", name, *heat]) == 0
            (answer,) = answers(capsys.readouterr().out)
            assert answer["threshold"] == point.threshold
            assert answer["decision"] == ("pneumonia" if answer["probability"] >= answer["threshold"] else "normal")


def test_heat_maps_stand_where_the_pictures_do_and_change_no_answer(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heat = mine / "heat"
    assert main(["predict", str(mine), "--json"]) == 1
    plain = answers(capsys.readouterr().out)
    for _ in range(2):  # the second time they stand there already
        assert main(["predict", str(mine), "--json", "--heatmap", str(heat)]) == 1
        drawn = answers(capsys.readouterr().out)
        maps = [answer.pop("heatmap") for answer in drawn]
        assert drawn == plain
        assert maps == [*(str(heat / f"{name}.png") for name in SEEN[:3]), None]
        assert sorted(path for path in heat.rglob("*") if path.is_file()) == sorted(map(Path, maps[:3]))
    for answer, path in zip(plain, maps[:3], strict=False):
        with Image.open(path) as file, Image.open(answer["path"]) as picture:
            assert file.size == picture.size
            assert "PHANTOM" not in str(file.info)


def test_lines_say_where_the_heat_map_is_and_where_there_is_none(
    mine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mine)
    (mine / "heat").mkdir()
    (mine / "heat/b").write_text("where a folder should be")
    assert main(["predict", "a/1.jpeg", "b/1.jpeg", "c.png", "--heatmap", "heat"]) == 1
    out, err = capsys.readouterr()
    first, second, third = out.splitlines()
    assert first.endswith("; heat map heat/a/1.jpeg.png")
    assert second.endswith("balanced); no heat map")
    assert "refused: " in third
    assert third.endswith("; no heat map")
    problem, summary = err.splitlines()
    assert "b/1.jpeg: its heat map" in problem
    assert summary == "pneumolib: 2 scored, 1 refused, 0 unreadable, 1 without the heat map wanted"


def test_a_phantom_says_so_in_json_and_on_heat_maps(
    run: Run, x_ray: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", str(x_ray), "--detector", str(run.folder), "--json", "--heatmap", str(tmp_path)]
    assert main(arguments) == 0
    (answer,) = answers(capsys.readouterr().out)
    assert answer["phantom"] is True
    with Image.open(answer["heatmap"]) as file, Image.open(x_ray) as picture:
        assert file.info["Title"].startswith("PHANTOM: ")
        assert file.height > picture.height  # by the band
    assert main(["predict", str(x_ray), "--json"]) == 0
    assert "phantom" not in answers(capsys.readouterr().out)[0]


def test_an_interruption_leaves_what_was_printed(
    mine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Progress.step

    def interrupted(self: Progress) -> None:
        step(self)
        if self._done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "step", interrupted)
    assert main(["predict", str(mine)]) == 130
    out, err = capsys.readouterr()
    assert [line.partition(": ")[0] for line in out.splitlines()] == [str(mine / name) for name in SEEN[:2]]
    assert err == "pneumolib: interrupted; what was finished is kept\n"


def run_alone(*arguments: str | Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pneumolib", "predict", *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, **settings)


def test_a_reader_that_has_enough_is_no_error(mine: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_alone(mine / "a", stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_that_the_output_cannot_spell_are_escaped(mine: Path) -> None:
    shutil.copy(mine / "b/1.jpeg", mine / "größe.jpeg")
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run_alone(mine / "größe.jpeg", stdout=subprocess.PIPE, env=ascii_only)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(rf"{mine}/gr\xf6\xdfe.jpeg: ")
