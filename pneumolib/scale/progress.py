"""How far a job has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

EVERY = 30.0  # seconds between lines


class Progress:
    """Shows how many of `total` images have been scored.

    Args:
        total: images of the job.
        before: of these, those that an earlier call has scored.
        shown: False shows nothing.
    """

    def __init__(self, total: int, before: int = 0, shown: bool = True) -> None:
        from tqdm.auto import tqdm

        on_terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=before, desc="scoring", unit="image", disable=not on_terminal)
        self._lines = shown and not on_terminal
        self._total, self._done, self._before = total, before, before
        self._began = self._said = time.monotonic()
        if self._lines:
            resumed = f"; {before:,} are done already" if before else ""
            print(f"Scoring {total:,} images{resumed} ...", flush=True)

    def add(self, images: int) -> None:
        """Count images that have been scored; a negative number takes some back."""
        self._done += images
        self._bar.update(images)
        now = time.monotonic()
        if self._lines and now - self._said >= EVERY:
            self._said = now
            speed = (self._done - self._before) / (now - self._began)
            print(f"  {self._done:,} of {self._total:,}, {speed:,.0f} a second", flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
