"""The command line: every command by its contract, errors in one line, quick predictions without TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pneumolib.cli import main
from pneumolib.config import PRESETS, Config
from pneumolib.data.dataset import Dataset
from pneumolib.models.training import Run, train

TINY = dict(name="tiny", size=32, width=4, epochs=2, batch_size=16, augmentation="light", precision="float32")
REPORT_KEYS = {
    "n", "auc", "auc_ci", "accuracy", "accuracy_ci", "sensitivity", "specificity", "f1", "brier", "ece", "threshold",
    "source", "per_subtype",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(phantom: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(phantom, Config(**TINY), out=tmp_path_factory.mktemp("cli") / "run", progress=False)


@pytest.fixture
def x_ray(phantom_folder: Path) -> Path:
    return sorted(phantom_folder.rglob("test/NORMAL/*.jpeg"))[0]


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
    phantom_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "ci", {k: v for k, v in TINY.items() if k != "name"})
    arguments = ["train", "--data", str(phantom_folder), "--preset", "ci", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert str(tmp_path / "run" / "detector") in capsys.readouterr().out
    assert main(arguments) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0


def test_audit_counts_and_writes_json(phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "audit.json"
    assert main(["audit", str(phantom_folder), "--json", str(target)]) == 0
    out = capsys.readouterr().out
    assert "JPEG quality" in out
    assert "pneumonia" in out
    assert json.loads(target.read_text())


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--data", "/nowhere/data.zip"],
        ["audit", "/nowhere"],
        ["predict", "x.jpeg", "--detector", "/nowhere"],
    ],
)
def test_errors_are_one_line_and_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pneumolib: ")
    assert len(err.splitlines()) == 1


COMMANDS = ["download", "audit", "train", "evaluate", "predict", "series"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"example:\n  pneumolib {command}" in capsys.readouterr().out


def test_an_interruption_is_130_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pneumolib.data.dataset.load_dataset", interrupted)
    assert main(["audit", "phantom"]) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1
