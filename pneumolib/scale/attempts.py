"""Remembers at which file of a shard a worker died, so that one bad file does not stop a job for ever.

Before a worker touches a file it writes the file's place into a note beside the parts, and at the end of the shard it
takes the note away. A note that is found tells that its writer died, and where it was: the system keeps what was
written when a process ends. This is the same for processes, for actors and for whole jobs that are killed.
"""

from __future__ import annotations

import collections
import contextlib
import json
from pathlib import Path

MAX_DEATHS = 3  # so many deaths at one file are no accident
NOWHERE = -1  # at no file: the worker was starting, in the network, or writing
_LINE = 12


class Attempts:
    """The attempts at one shard: those before, and the one that begins now.

    Args:
        path: of the note.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._deaths = _deaths(path)
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115
        self._file.write(_note(NOWHERE, self._deaths))

    @property
    def deadly(self) -> set[int]:
        """The places of the files at which workers died too often."""
        return {place for place, n in self._deaths.items() if n >= MAX_DEATHS and place != NOWHERE}

    @property
    def deaths(self) -> int:
        """How often a worker died at this shard."""
        return self._deaths.total()

    @property
    def deaths_nowhere(self) -> int:
        """How often a worker died at this shard, but at none of its files."""
        return self._deaths[NOWHERE]

    def at(self, place: int) -> None:
        """Note that the file at `place` comes now; `NOWHERE` for none."""
        self._file.seek(0)
        self._file.write(f"{place:<{_LINE}}".encode())

    def close(self, *, finished: bool) -> None:
        """End the attempt: the note goes where the shard is finished, else it tells of no new death."""
        self._file.close()
        if finished:
            self._path.unlink(missing_ok=True)
        else:
            forgive(self._path)


def forgive(path: Path) -> None:
    """Let a note tell of no new death: its writer was ended on purpose."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb+") as file:
        file.write(b" " * _LINE)


def forget_accidents(path: Path) -> None:
    """Take from a note the deaths that no file is to blame for: a new job may have more memory than the last."""
    deaths = _deaths(path)
    del deaths[NOWHERE]
    path.write_bytes(_note(None, deaths))


def _note(place: int | None, deaths: collections.Counter[int]) -> bytes:
    return f"{'' if place is None else place:<{_LINE}}\n{json.dumps(sorted(deaths.items()))}\n".encode()


def _deaths(path: Path) -> collections.Counter[int]:
    """The deaths that a note tells of, its writer's among them; none where it is missing or was cut off."""
    deaths: collections.Counter[int] = collections.Counter()
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        place, before = path.read_bytes().decode("ascii").split("\n")[:2]
        deaths.update({int(at): int(n) for at, n in json.loads(before)})
        if place.strip():
            deaths[int(place)] += 1
    return deaths
