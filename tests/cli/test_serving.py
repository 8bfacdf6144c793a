"""`pneumolib serve`: what it warns of, what it refuses, and how it ends; the server itself is tested elsewhere."""

from __future__ import annotations

import importlib.resources
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import PIL
import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

import pneumolib
from pneumolib.cli import main
from pneumolib.serving.settings import Settings

BUNDLED = Path(str(importlib.resources.files(pneumolib))) / "weights"
KEY = "0123456789abcdef"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that a server would have run with, in place of one."""
    found: list[Settings] = []

    def run(detector: Any, settings: Settings, *, ready: Any) -> None:
        found.append(settings)
        ready("http://127.0.0.1:1")

    monkeypatch.setattr("pneumolib.serving.server.run", run)
    return found


def test_it_says_where_it_answers_and_listens_on_this_machine(
    served: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve"]) == 0
    assert served == [Settings()]
    out, err = capsys.readouterr()
    assert out == ""
    assert "answers at http://127.0.0.1:1 (page /, API /docs)" in err
    assert len(err.splitlines()) == 1


def test_its_options_become_settings(served: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNEUMOLIB_API_KEY", KEY)
    options = "--host 0.0.0.0 --port 0 --lanes 3 --queue 5 --deadline 1.5 --accept-old-decoder"
    assert main(["serve", *options.split()]) == 0
    (settings,) = served
    assert settings == Settings(
        host="0.0.0.0", port=0, lanes=3, queue=5, deadline_seconds=1.5, api_key=KEY, accept_old_decoder=True
    )


def test_an_open_door_is_said_unless_it_has_a_key(
    served: list[Settings], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["serve", "--host", "0.0.0.0"]) == 0
    assert "set PNEUMOLIB_API_KEY" in capsys.readouterr().err
    monkeypatch.setenv("PNEUMOLIB_API_KEY", KEY)
    assert main(["serve", "--host", "0.0.0.0"]) == 0
    err = capsys.readouterr().err
    assert "PNEUMOLIB_API_KEY" not in err
    assert KEY not in err


def test_an_old_decoder_is_refused_where_strangers_reach_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PIL, "__version__", "12.3.0")
    assert main(["serve", "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "Pillow 12.3.0 has known holes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--queue 0", "queue must be 1 or more. Received: 0"),
        ("--deadline inf", "deadline_seconds must be"),
        ("--port 70000", "port must be 0 to 65535"),
        ("--detector nowhere", "There is no detector there"),
    ],
)
def test_what_cannot_be_served_is_one_line(options: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *options.split()]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    err = capsys.readouterr().err
    assert "The server cannot listen there" in err
    assert len(err.splitlines()) == 1


def test_a_detector_whose_answer_is_not_the_recorded_one_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "detector"
    shutil.copytree(BUNDLED, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["card"]["self_check"] += 0.01
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["serve", "--port", "0", "--lanes", "1", "--detector", str(folder)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(
        "pneumolib: The server did not start: the detector's answer to a picture made for this differs by 0.01"
    )
    assert len(err.splitlines()) == 1
