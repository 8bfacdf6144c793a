"""What every engine runs: from the members of a shard to the rows of its part."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumolib.errors import MissingExtraError, PneumolibError
from pneumolib.models.detector import Detector, load_detector
from pneumolib.scale.attempts import MAX_DEATHS, NOWHERE, Attempts
from pneumolib.scale.inputs import Member, text
from pneumolib.scale.manifest import DETECTOR, note_path, read_manifest
from pneumolib.scale.parts import Row, blank_row, parquet, write_part
from pneumolib.scale.reading import Reader
from pneumolib.scale.tally import Tally

BATCH = 16  # images that go through the network together; with one file's bytes, all that a worker holds
HANGS = 300  # seconds after which a file that is still being read or decoded has hung
OUT_OF_MEMORY = 70  # exit status of a worker that found no memory


class ScoringError(PneumolibError, RuntimeError):
    """A scoring job cannot go on; what was finished is kept, and the message names the way out."""


def score_batch(
    detector: Detector,
    members: Sequence[Member],
    read: Callable[[Member], bytes],
    *,
    operating_point: str = "balanced",
    tally: Tally | None = None,
    at: Callable[[int], None] = lambda place: None,
) -> list[Row]:
    """Return a row for each member, in order; a file that cannot be read is a row with an `error`.

    One file's bytes are held at a time, and a square for each.

    Args:
        detector: answers.
        members: what to score.
        read: gives a member's bytes.
        operating_point: one of the detector's.
        tally: what was counted and what it cost is added to it.
        at: is told the place of each member before it is touched, and `NOWHERE` when all have been decoded.

    Raises:
        MemoryError: there was no room for an image.
        MissingExtraError: an image is of a format whose reader is not installed, which is no fault of the file.
        ScoringError: `read` raises it.

    Examples:
        >>> rows = score_batch(load_detector(threads=1), [Member("notes.png", 5)], lambda member: b"notes")
        >>> rows[0]["path"], rows[0]["error_type"], rows[0]["probability"]
        ('notes.png', 'UnsupportedImageError', None)
    """
    tally = Tally() if tally is None else tally
    rows, squares, places = [], [], []
    for place, member in enumerate(members):
        at(place)
        rows.append(_row(detector, member, operating_point))
        try:
            squares.append(_square(detector, read, member, tally))
            places.append(place)
        except (ScoringError, MissingExtraError, MemoryError):
            raise
        except Exception as error:  # a decoder may raise anything: one file must not stop the others
            if isinstance(error.__cause__, MemoryError):
                raise error.__cause__ from None
            rows[place] |= {"error": _said(error), "error_type": type(error).__name__}
    at(NOWHERE)
    with _timed(tally, "network_seconds", time.thread_time):
        answers = detector.predict(squares, operating_point=operating_point)
    for place, answer in zip(places, answers, strict=True):
        rows[place] |= {
            "probability": answer.probability,
            "decision": answer.decision,
            "bacterial": answer.subtypes.get("bacterial"),
            "viral": answer.subtypes.get("viral"),
            "input_ok": answer.input.ok,
            "input_reason": answer.input.reason,
            "input_code": answer.input.code,
        }
    tally.images += len(rows)
    tally.errors += len(rows) - len(answers)
    for answer in answers:
        name = answer.decision or "refused"
        setattr(tally, name, getattr(tally, name) + 1)
    return rows


class Worker:
    """Scores shards of the job in a folder; each process of an engine has one.

    Args:
        folder: of the job.
        hangs: seconds after which a file that is still being read or decoded ends this process; None waits for ever.

    Raises:
        ArtifactError: the job or its detector is damaged.
    """

    def __init__(self, folder: Path, hangs: float | None = HANGS) -> None:
        self._folder, self._hangs = folder, hangs
        self._manifest = read_manifest(folder)
        # Whether a phantom will do was decided by who opened the job.
        self._detector = load_detector(folder / DETECTOR, allow_phantom=True, threads=1)
        # All libraries are loaded now: what is missing, or does not fit into memory, is known before work begins.
        self._detector.predict(np.zeros((self._detector.size, self._detector.size), np.uint8))
        parquet()
        self._reader = Reader(self._manifest.root)
        self._root = _identity(self._manifest.root)

    def attempt(self, shard: int, step: Callable[[int], None] = lambda images: None) -> dict[str, Any]:
        """Score a shard and write its part.

        Where there is no memory, the process ends at once, as if it had been killed: the next worker knows where.

        Args:
            shard: its number.
            step: is told, after each batch, how many images it had.

        Returns:
            Plain values: ``{"done": shard, "tally": {…}}``, or ``{"error": why the job cannot go on}``.
        """
        attempts = Attempts(note_path(self._folder, shard))
        try:
            tally = self._score(shard, attempts, step)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:
            attempts.close(finished=False)
            if isinstance(error, PneumolibError):
                return {"error": str(error)}
            what = f"be written to {self._folder}" if isinstance(error, OSError) else "be scored"
            return {"error": f"Shard {shard} cannot {what}: {type(error).__name__}: {error}."}
        attempts.close(finished=True)
        return {"done": shard, "tally": tally.to_dict()}

    def _score(self, shard: int, attempts: Attempts, step: Callable[[int], None]) -> Tally:
        if attempts.deaths_nowhere >= MAX_DEATHS:
            raise ScoringError(
                f"Workers died {attempts.deaths_nowhere} times in the network or while they wrote the part of shard "
                f"{shard}, as they do for want of memory. Take fewer workers (--workers), and call again."
            )
        members = self._manifest.members(self._folder, shard)
        for place in attempts.deadly:
            problem = f"the process that read this file ended {MAX_DEATHS} times: it crashed, ran out of memory or hung"
            members[place] = dataclasses.replace(members[place], problem=problem)
        rows, tally = list[Row](), Tally(deaths=attempts.deaths)
        for start in range(0, len(members), BATCH):
            batch = members[start : start + BATCH]
            rows += score_batch(
                self._detector,
                batch,
                self._read,
                operating_point=self._manifest.operating_point,
                tally=tally,
                at=partial(self._at, attempts, start),
            )
            step(len(batch))
        with _timed(tally, "write_seconds"):
            write_part(self._folder, shard, rows, self._manifest.job, tally)
        return tally

    def _at(self, attempts: Attempts, start: int, place: int) -> None:
        attempts.at(place if place == NOWHERE else start + place)
        # A decoder that hangs does so outside Python, where only the system can end it, with the signal SIGALRM.
        if self._hangs and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0 if place == NOWHERE else self._hangs)

    def _read(self, member: Member) -> bytes:
        try:
            return self._reader.read(member)
        except Exception:
            # A share that was unmounted would make millions of rows with errors.
            if _identity(self._manifest.root) != self._root:
                raise ScoringError(
                    f"The input is not there any more: {self._manifest.root}. Is it mounted? Call again when it is."
                ) from None
            raise


def _row(detector: Detector, member: Member, operating_point: str) -> Row:
    return blank_row() | {
        "path": text(member.path),
        "threshold": detector.operating_points[operating_point].threshold,
        "operating_point": operating_point,
        "detector_name": detector.name,
        "detector_version": detector.version,
        "detector_sha256": detector.sha256,
    }


def _said(error: Exception) -> str:
    """Return what an error says, without the names that decoders and systems put before it: the row has the path."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text(said.removeprefix("image: "))


def _square(detector: Detector, read: Callable[[Member], bytes], member: Member, tally: Tally) -> NDArray[np.uint8]:
    """Read and decode one member; its bytes are gone when this returns."""
    with _timed(tally, "read_seconds"):
        content = read(member)
    tally.read_bytes += len(content)
    with _timed(tally, "decode_seconds", time.thread_time):
        return detector.prepare(content)


def _identity(root: str) -> tuple[int, int] | None:
    try:
        facts = os.stat(root)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


@contextmanager
def _timed(tally: Tally, name: str, clock: Callable[[], float] = time.perf_counter) -> Iterator[None]:
    """Add the seconds of the block to a field of the tally."""
    began = clock()
    try:
        yield
    finally:
        setattr(tally, name, getattr(tally, name) + clock() - began)
