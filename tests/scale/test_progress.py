"""Progress: a bar on a terminal, lines elsewhere, nothing where it is not wanted."""

from __future__ import annotations

import sys

import pytest

from pneumolib.scale import progress
from pneumolib.scale.progress import Progress


def use(shown: bool = True) -> None:
    bar = Progress(2000, before=400, shown=shown)
    bar.add(100)
    bar.add(-50)
    bar.close()


def test_elsewhere_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    use()
    out, err = capsys.readouterr()
    assert err == ""
    first, *others = out.splitlines()
    assert first == "Scoring 2,000 images; 400 are done already ..."
    assert [line.split(",")[0] for line in others] == ["  500 of 2", "  450 of 2"]
    assert all(line.endswith(" a second") for line in others)


def test_a_short_job_says_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    use()
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    use()
    out, err = capsys.readouterr()
    assert out == ""
    assert "450/2000" in err


def test_nothing_is_said_where_nothing_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    use(shown=False)
    assert capsys.readouterr() == ("", "")
