"""How far a command is, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

FEW = 4  # so many are done before a bar is read
EVERY = 30.0  # seconds between lines where there is no terminal


class Progress:
    """Counts what is done, and lets lines through without tearing the bar.

    Args:
        total: how many there are.
        unit: what one of them is called.

    Examples:
        >>> with Progress(2, "file") as progress:
        ...     for name in ["a", "b"]:
        ...         progress.print(name)
        ...         progress.step()
        a
        b
    """

    def __init__(self, total: int, unit: str) -> None:
        self._total, self._unit, self._done = total, unit, 0
        self._told = time.monotonic()
        self._bar: Any = None
        if total > FEW and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=unit, leave=False, file=sys.stderr)

    def print(self, text: str, file: TextIO | None = None) -> None:
        """Print a line at once, to standard output unless another file is given."""
        file = file or sys.stdout
        if self._bar is not None and file.isatty():
            self._bar.write(text, file=file)
        else:
            print(text, file=file)
        file.flush()

    def step(self) -> None:
        """Count one more."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        elif time.monotonic() - self._told >= EVERY and self._done < self._total and not sys.stderr.isatty():
            self._told = time.monotonic()
            print(f"pneumolib: {self._done:,} of {self._total:,} {self._unit}s", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
