"""What a server allows and where it listens: one frozen, validated `Settings`."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from dataclasses import dataclass

from pneumolib.data.images import Limits
from pneumolib.errors import ConfigError

MAX_DEFAULT_LANES = 8


@dataclass(frozen=True)
class Settings:
    """How a server listens and what it takes in; every limit is refused with a code of its own (`problems`).

    Examples:
        >>> Settings(port=0).is_local
        True
        >>> Settings(host="0.0.0.0").is_local
        False
    """

    host: str = "127.0.0.1"
    port: int = 8000  # 0 takes a free one
    api_key: str | None = None  # callers then send "Authorization: Bearer KEY"

    # what a request may hold
    max_bytes: int = 32 * 2**20  # of one file
    max_pixels: int = 32_000_000  # of one picture; a digital radiograph has up to about 18 million
    max_files: int = 32  # of a batch
    max_batch_bytes: int = 128 * 2**20
    max_buffered_bytes: int = 512 * 2**20  # of all bodies that are being received or wait
    body_seconds: float = 30.0  # within which a body has to arrive

    # how long a picture may wait, and how many
    lanes: int | None = None  # pictures worked on at a time; None: one a core, at most eight
    queue: int = 64  # pictures that wait
    deadline_seconds: float = 10.0  # a picture that has waited so long is not looked at any more
    decode_seconds: float = 10.0  # within which a file has to be decoded
    decode_bytes: int = 1536 * 2**20  # memory that decoding one file may take

    drain_seconds: float = 20.0  # within which what was begun is finished when the server is asked to stop
    embedded: bool = False  # may the page stand in a frame of another site, as a notebook shows it?

    def __post_init__(self) -> None:
        _check(bool(self.host), "host", "a name or an address", self.host)
        _check(0 <= self.port <= 65535, "port", "0 to 65535", self.port)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_seconds"):
                _check(value > 0, field.name, "more than 0 seconds", value)
            elif field.name.startswith("max_") or field.name in ("queue", "decode_bytes"):
                _check(value >= 1, field.name, "1 or more", value)
        _check(self.lanes is None or self.lanes >= 1, "lanes", "None, or 1 or more", self.lanes)
        good_key = self.api_key is None or (len(self.api_key) >= 16 and self.api_key.isascii())
        # The key itself has no place in a message.
        _check(good_key and " " not in (self.api_key or ""), "api_key", "16 or more ASCII characters", "another")
        _check(self.max_buffered_bytes >= self.max_bytes, "max_buffered_bytes", "max_bytes or more", "less")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def n_lanes(self) -> int:
        """How many pictures are worked on at a time."""
        return self.lanes or min(
            MAX_DEFAULT_LANES, len(os.sched_getaffinity(0)) if _HAS_AFFINITY else os.cpu_count() or 1
        )

    @property
    def limits(self) -> Limits:
        """The limits of one file, as `pneumolib.data.images` takes them."""
        return Limits(max_bytes=self.max_bytes, max_pixels=self.max_pixels)


_HAS_AFFINITY = hasattr(os, "sched_getaffinity")


def _check(holds: bool, field: str, allowed: str, received: object) -> None:
    if not holds:
        raise ConfigError(f"{field} must be {allowed}. Received: {received!r}")
