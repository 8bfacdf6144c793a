"""Whose fault is it when workers die: the note that outlives them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pneumolib.scale.attempts import MAX_DEATHS, NOWHERE, Attempts, forget_accidents, forgive


def die_at(note: Path, *places: int) -> None:
    """A process that works its way through places of a shard and is killed at the last one."""
    program = (
        "import os, signal, sys; from pathlib import Path; from pneumolib.scale.attempts import Attempts\n"
        "attempts = Attempts(Path(sys.argv[1]))\n"
        "for place in sys.argv[2:]: attempts.at(int(place))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(note), *map(str, places)], check=False)
    assert done.returncode == -9


@pytest.fixture
def note(tmp_path: Path) -> Path:
    return tmp_path / "shard.doing"


def look(note: Path) -> tuple[set[int], int, int]:
    attempts = Attempts(note)
    seen = attempts.deadly, attempts.deaths, attempts.deaths_nowhere
    attempts.close(finished=False)
    return seen


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_file_at_which_workers_die_again_and_again_is_deadly(note: Path) -> None:
    for n in range(MAX_DEATHS):
        assert look(note) == (set(), n, 0)
        die_at(note, 0, 1, 2, 117)
    assert look(note) == ({117}, MAX_DEATHS, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_deaths_at_different_files_and_at_none_blame_no_file(note: Path) -> None:
    die_at(note, 10)
    die_at(note, 3)
    die_at(note, 0, NOWHERE)
    die_at(note)
    assert look(note) == (set(), 4, 2)
    forget_accidents(note)
    assert look(note) == (set(), 2, 0)


@pytest.mark.parametrize("finished", [True, False])
def test_who_ends_well_leaves_no_death(note: Path, finished: bool) -> None:
    attempts = Attempts(note)
    attempts.at(4)
    attempts.close(finished=finished)
    assert note.exists() is not finished
    assert look(note) == (set(), 0, 0)


def test_who_was_ended_on_purpose_is_forgiven(note: Path) -> None:
    note.write_bytes(b"4           \n[[7, 2]]\n")
    forgive(note)
    assert look(note) == (set(), 2, 0)
    os.remove(note)
    forgive(note)
    assert not note.exists()


@pytest.mark.parametrize("content", [b"", b"12", b"12          \n[[1,", b"\xff\xfe\n[]\n", b"1\nnull\n"])
def test_a_note_that_was_cut_off_blames_nobody(note: Path, content: bytes) -> None:
    note.write_bytes(content)
    assert look(note) == (set(), 0, 0)
