"""What was counted and what it cost, for one shard or for a whole job."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

COUNTS = ("images", "pneumonia", "normal", "refused", "errors")


@dataclass
class Tally:
    """Numbers of images by what became of them, and the seconds that their steps took in one worker.

    Reading and writing are timed by the clock, because they wait; what computes is timed by the core that it kept busy.
    """

    images: int = 0  # all of them: the sum of the four below
    pneumonia: int = 0
    normal: int = 0
    refused: int = 0  # no chest X-ray of the kind that the detector knows
    errors: int = 0  # could not be read
    read_bytes: int = 0
    read_seconds: float = 0.0
    decode_seconds: float = 0.0  # from bytes to the square
    network_seconds: float = 0.0  # from the square to the answer
    write_seconds: float = 0.0
    deaths: int = 0  # of workers, before the shard was finished

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{name: value + getattr(other, name) for name, value in self.to_dict().items()})

    def to_dict(self) -> dict[str, int | float]:
        """Return the fields by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, int | float]) -> Tally:
        """Return the tally with these fields; the others are 0."""
        return cls(**values)  # type: ignore[arg-type]

    def counts(self) -> dict[str, int]:
        """Return the numbers of images alone, which are the same each time."""
        return {name: getattr(self, name) for name in COUNTS}
