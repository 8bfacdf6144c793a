"""`pneumolib audit`: the page, the JSON, other people's folders, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from pneumolib.cli import main


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of somebody else, in which one patient stands in both parts, and one file is no image."""
    for i, name in enumerate(["train/ill/p1-1", "train/healthy/p2-1", "test/ill/p1-2", "test/healthy/p3-1"]):
        path = tmp_path / "mine" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").rotate(90 * i).resize((60, 40 + i)).save(path)
    (tmp_path / "mine/test/ill/p4-1.png").write_text("no image")
    return tmp_path / "mine"


def test_it_writes_both_reports_into_new_folders(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, numbers = tmp_path / "out/audit.html", tmp_path / "out/deep/audit.json"
    arguments = ["audit", str(mine), "--html", str(page), "--json", str(numbers), "--patients", "(p[0-9]+)-"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Reading 5 images ...\n")
    assert "which leaks: train & test 1." in out
    assert "p4-1.png" in out
    assert f"written: {page}" in out
    assert err == ""
    assert json.loads(numbers.read_text(encoding="utf-8"))["shared_patients"] == {"train & test": ["p1"]}
    assert "which leaks: train &amp; test 1." in page.read_text(encoding="utf-8")


def test_audit_counts_and_writes_json(phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "audit.json"
    assert main(["audit", str(phantom_folder), "--json", str(target)]) == 0
    out = capsys.readouterr().out
    assert "JPEG quality" in out
    assert "pneumonia" in out
    assert json.loads(target.read_text())


def test_a_phantom_is_called_one_on_its_page(phantom_folder: Path, tmp_path: Path) -> None:
    assert main(["audit", str(phantom_folder), "--html", str(tmp_path / "a.html")]) == 0
    assert "<title>PHANTOM: " in (tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--patients", "(p"], "no regular expression"), (["--json", "{file}/a.json"], "cannot be written to")],
)
def test_errors_are_one_line_and_status_2(
    mine: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = mine / "test/ill/p4-1.png"
    assert main(["audit", str(mine), *(text.format(file=file) for text in arguments)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("pneumolib: ")
    assert message in err
    assert len(err.splitlines()) == 1
