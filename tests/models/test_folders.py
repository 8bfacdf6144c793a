"""A folder comes whole, and what stood there is kept until then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pneumolib.errors import ArtifactError
from pneumolib.models.folders import replaced


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "old").touch()
    return tmp_path / "it"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_one_takes_the_place(folder: Path) -> None:
    with replaced(folder) as partial:
        (partial / "new").touch()
        assert names(folder) == ["old"]
    assert names(folder) == ["new"]
    assert names(folder.parent) == ["it"]


def test_an_error_leaves_what_stood_there(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), replaced(folder):
        raise ZeroDivisionError
    assert names(folder) == ["old"]
    assert names(folder.parent) == ["it"]


def test_what_stood_there_comes_back_where_its_place_cannot_be_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = os.replace

    def refuse(source: Path, target: Path) -> None:
        if source.name.endswith(".partial"):
            raise PermissionError(13, "Permission denied")
        move(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError), replaced(folder) as partial:
        (partial / "new").touch()
    assert names(folder) == ["old"]
    assert names(folder.parent) == ["it"]


def test_what_a_killed_one_left_is_cleared(folder: Path) -> None:
    (folder.parent / ".it.partial").mkdir()
    (folder.parent / ".it.partial" / "half").touch()
    with replaced(folder) as partial:
        (partial / "new").touch()
    assert names(folder) == ["new"]


def test_a_place_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot be written"), replaced(tmp_path / "file" / "it"):
        pass
