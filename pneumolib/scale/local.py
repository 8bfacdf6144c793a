"""The engine for one machine: a worker process a core, replaced when it dies, with its shard scored again."""

from __future__ import annotations

import collections
import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Any

import pneumolib
from pneumolib import runtime
from pneumolib.scale.attempts import forgive
from pneumolib.scale.core import ScoringError
from pneumolib.scale.manifest import note_path

STARTS = 3  # so often in a row a worker may die before it is ready
_PROGRAM = """\
import sys
if sys.argv[1] not in sys.path:
    sys.path.insert(0, sys.argv[1])
from pneumolib.scale.worker import main
main(sys.argv[2])
"""


def run_local(folder: Path, shards: Sequence[int], workers: int | None = None) -> Generator[dict[str, Any], None, None]:
    """Score shards of the job in a folder and yield what the workers say, as it comes.

    Args:
        folder: of the job.
        shards: their numbers.
        workers: processes; None takes the cores that this process may use.

    Yields:
        ``{"images": n}`` after each batch, and ``{"done": shard, "tally": {…}}`` after each shard; the images of a
        shard that is lost with its worker come again, after a negative number that takes them back.

    Raises:
        ScoringError: the job cannot go on.
    """
    todo = collections.deque(shards)
    events: queue.Queue[dict[str, Any]] = queue.Queue()
    hands = [_Hand(folder, todo, events) for _ in range(min(workers or runtime.available_cores(), len(todo)))]
    for hand in hands:
        hand.start()
    ended = 0
    try:
        while ended < len(hands):
            event = events.get()
            if "error" in event:
                raise ScoringError(event["error"])
            if event:
                yield event
            else:
                ended += 1
    finally:
        for hand in hands:
            hand.stop()
        for hand in hands:
            hand.join()


class _Hand(threading.Thread):
    """Keeps one worker process at work: gives it shards, passes on what it says, replaces it when it dies."""

    def __init__(self, folder: Path, todo: collections.deque[int], events: queue.Queue[dict[str, Any]]) -> None:
        super().__init__(daemon=True)
        self._folder, self._todo, self._events = folder, todo, events
        self._process: subprocess.Popen[str] | None = None
        self._stopped, self._lock = False, threading.Lock()

    def stop(self) -> None:
        """End the process, if there is one, and start no other."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def run(self) -> None:
        """Work until nothing is left to do, and say so with an empty event."""
        failures = 0
        try:
            while self._todo and not self._stopped and failures < STARTS:
                with tempfile.TemporaryFile() as said:
                    ready = self._employ(said)
                    failures = 0 if ready else failures + 1
                    if failures == STARTS:
                        self._events.put({"error": self._why(said)})
        except Exception as error:
            self._events.put({"error": f"A worker could not be started: {error}"})
        self._events.put({})

    def _employ(self, said: IO[bytes]) -> bool:
        """Let one process work until nothing is left to do or it dies; return whether it got ready at all."""
        home = str(Path(pneumolib.__file__).parents[1])
        # -P keeps modules in the working directory from being taken for the standard library's.
        command = [sys.executable, "-P", "-c", _PROGRAM, home, str(self._folder)]
        with self._lock:
            if self._stopped:
                return True
            self._process = process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                encoding="utf-8",
                env=runtime.single_threaded_environment(),
            )
        with process:
            first = self._hear(process)
            if first is None:
                return False
            if "error" in first:
                self._events.put(first)
                return True
            with contextlib.suppress(IndexError):
                while not self._stopped:
                    shard = self._todo.popleft()
                    if not self._scored(process, shard):
                        self._todo.appendleft(shard)
                        break
        return True

    def _scored(self, process: subprocess.Popen[str], shard: int) -> bool:
        """Have a process score a shard; return False where it died of it."""
        assert process.stdin is not None
        images = 0
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{shard}\n")
            process.stdin.flush()
        while (answer := self._hear(process)) is not None:
            if "images" not in answer:
                self._events.put(answer)
                return True
            images += answer["images"]
            self._events.put(answer)
        self._events.put({"images": -images})
        if self._stopped:
            forgive(note_path(self._folder, shard))
        return False

    def _hear(self, process: subprocess.Popen[str]) -> dict[str, Any] | None:
        """Return the next answer of a process, None where it has ended."""
        assert process.stdout is not None
        line = process.stdout.readline()
        return json.loads(line) if line.endswith("\n") else None

    def _why(self, said: IO[bytes]) -> str:
        assert self._process is not None
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
        return (
            f"Workers end before they are ready ({lines[-1] if lines else 'without a word'}; status "
            f"{self._process.returncode}). If memory is short, take fewer workers (--workers)."
        )
