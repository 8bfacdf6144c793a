"""How far a command is: a bar where somebody looks, a line now and then elsewhere, and whole lines always."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from pneumolib.cli import progress
from pneumolib.cli.progress import FEW, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def count(total: int) -> None:
    with Progress(total, "file") as shown:
        for number in range(total):
            shown.print(f"line {number}")
            shown.step()


def test_on_a_terminal_there_is_a_bar_that_goes_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    count(20)
    assert "0/20" in terminal.getvalue()
    assert terminal.getvalue().rstrip(" ").endswith("\r")
    assert capsys.readouterr().out.splitlines() == [f"line {number}" for number in range(20)]


def test_lines_on_the_same_terminal_do_not_tear_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(sys, "stdout", terminal)
    count(20)
    # What a terminal shows of a line is what comes after the last return to its start.
    shown = [line.rpartition("\r")[2].strip() for line in terminal.getvalue().split("\n")]
    assert shown == [*(f"line {number}" for number in range(20)), ""]


def test_a_few_need_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    count(FEW)
    assert terminal.getvalue() == ""


def test_elsewhere_there_is_a_line_when_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count(1000)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress.time, "monotonic", iter(range(0, 100_000, 20)).__next__)
    count(7)
    # Every second one takes longer than EVERY, and the last is told by whatever comes after it.
    lines = ["pneumolib: 2 of 7 files", "pneumolib: 4 of 7 files", "pneumolib: 6 of 7 files"]
    assert capsys.readouterr().err.splitlines() == lines


def test_other_files_may_be_printed_to(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(1, "file") as shown:
        shown.print("a problem", sys.stderr)
    assert capsys.readouterr() == ("", "a problem\n")


def test_lines_are_there_at_once() -> None:
    code = (
        "import os; from pneumolib.cli.progress import Progress\n"
        "with Progress(2, 'file') as shown:\n    shown.print('first')\n    os._exit(0)"
    )
    held_back = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", code], env=held_back, capture_output=True, text=True, check=True)
    assert done.stdout == "first\n"
