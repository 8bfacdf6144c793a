"""What a server allows and where it listens: one frozen, validated `Settings`."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from dataclasses import dataclass, field

from pneumolib import runtime
from pneumolib.data.images import Limits
from pneumolib.errors import ConfigError

MAX_DEFAULT_LANES = 8
_DAY = 86_400.0
_KEY = re.compile(r"[!-~]{16,}")
_KEY_RULE = "16 or more printable ASCII characters without spaces"


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
    api_key: str | None = field(default=None, repr=False)  # callers then send "Authorization: Bearer KEY"

    accept_old_decoder: bool = False  # listen beyond this machine with a Pillow that has known holes

    # what a request may hold
    max_bytes: int = 64 * 2**20  # of one file; as many as 32 million pixels of 16 bits have
    max_pixels: int = 32_000_000  # of one picture; a digital radiograph has up to about 18 million
    max_files: int = 32  # of a batch
    max_batch_bytes: int = 128 * 2**20
    max_buffered_bytes: int = 512 * 2**20  # of all bodies that are being received or wait
    max_connections: int = 512  # open at a time, idle ones included; health is told beyond them, up to twice as many
    head_seconds: float = 10.0  # within which a request's line and headers have to arrive
    body_seconds: float = 30.0  # within which its body has to arrive
    stall_seconds: float = 30.0  # an answer of which nothing is taken for so long is given up

    # how long a picture may wait, and how many
    lanes: int | None = None  # pictures worked on at a time; None: one a core, at most eight
    queue: int = 64  # pictures that wait
    deadline_seconds: float = 10.0  # a picture that has waited so long is not looked at any more
    decode_seconds: float = 10.0  # within which a file has to be decoded
    decode_bytes: int = 1024 * 2**20  # memory that decoding one file may take; 32 million pixels need up to 0.8 GiB

    drain_seconds: float = 20.0  # within which what was begun is finished when the server is asked to stop
    embedded: bool = False  # may the page stand in a frame of another site, as a notebook shows it?

    def __post_init__(self) -> None:
        _check(bool(self.host), "host", "a name or an address", self.host)
        _check(0 <= self.port <= 65535, "port", "0 to 65535", self.port)
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if each.name.endswith("_seconds"):
                _check(0 < value <= _DAY, each.name, "more than 0 seconds, and no more than a day", value)
            elif each.name.startswith("max_") or each.name in ("queue", "decode_bytes"):
                _check(value >= 1, each.name, "1 or more", value)
        _check(self.lanes is None or self.lanes >= 1, "lanes", "None, or 1 or more", self.lanes)
        # The key itself has no place in a message.
        _check(self.api_key is None or _KEY.fullmatch(self.api_key), "api_key", _KEY_RULE, "another")
        largest = max(self.max_bytes, self.max_batch_bytes)
        _check(self.max_buffered_bytes >= largest, "max_buffered_bytes", f"{largest} or more", self.max_buffered_bytes)

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
        return self.lanes or min(MAX_DEFAULT_LANES, runtime.available_cores())

    @property
    def n_files(self) -> int:
        """How many files a batch may hold: no more than may wait."""
        return min(self.max_files, self.queue)

    @property
    def limits(self) -> Limits:
        """The limits of one file, as `pneumolib.data.images` takes them."""
        return Limits(max_bytes=self.max_bytes, max_pixels=self.max_pixels)


def _check(holds: object, field: str, allowed: str, received: object) -> None:
    if not holds:
        raise ConfigError(f"{field} must be {allowed}. Received: {received!r}")
