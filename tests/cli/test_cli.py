"""The command line as a whole: errors in one line, help with an example, and a quiet end."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest

from pneumolib import cli
from pneumolib.cli import main


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


def commands() -> list[str]:
    """The names of all commands, in the order in which help lists them."""
    found = argparse.ArgumentParser().add_subparsers()
    for group in cli.GROUPS:
        group.add(found)
    return list(found.choices)


def test_the_commands_of_every_module_are_there() -> None:
    names = {path.stem for path in Path(str(cli.__file__)).parent.glob("*.py")} - {"__init__"}
    modules = {importlib.import_module(f"pneumolib.cli.{name}") for name in names}
    assert set(cli.GROUPS) == {module for module in modules if hasattr(module, "add")}
    assert {"download", "audit", "train", "evaluate", "predict", "series"} <= set(commands())


@pytest.mark.parametrize("command", commands())
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
