"""Settings: what is allowed, what is refused, and that the key stays unsaid."""

from __future__ import annotations

import dataclasses
import math

import pytest

from pneumolib.errors import ConfigError
from pneumolib.serving.settings import MAX_DEFAULT_LANES, Settings

KEY = "0123456789abcdef"


def test_as_it_comes_it_listens_on_this_machine_only_and_asks_for_no_key() -> None:
    assert Settings().is_local
    assert Settings().api_key is None
    assert 1 <= Settings().n_lanes <= MAX_DEFAULT_LANES


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_this_machine_is_known(host: str) -> None:
    assert Settings(host=host).is_local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org"])
def test_others_can_reach_all_else(host: str) -> None:
    assert not Settings(host=host).is_local


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": ""},
        {"port": -1},
        {"port": 65536},
        {"api_key": "short"},
        {"api_key": "0123456789 abcdef"},
        {"api_key": "0123456789abcdef\n"},
        {"api_key": "0123456789abcdéf"},
        {"max_bytes": 0},
        {"max_connections": 0},
        {"queue": 0},
        {"lanes": 0},
        {"decode_bytes": 0},
        {"max_buffered_bytes": 2**20},
        *({name: value} for name in ("body_seconds", "deadline_seconds") for value in (0, -1, math.nan, math.inf)),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(wrong))} must be .* Received: "):
        Settings(**wrong)


def test_every_limit_of_time_is_checked() -> None:
    for field in dataclasses.fields(Settings):
        if field.name.endswith("_seconds"):
            with pytest.raises(ConfigError, match=field.name):
                Settings(**{field.name: math.inf})


def test_the_key_is_in_no_text() -> None:
    assert KEY not in repr(Settings(api_key=KEY))
    with pytest.raises(ConfigError) as error:
        Settings(api_key=f"{KEY} ")
    assert KEY not in str(error.value)


def test_a_batch_holds_no_more_files_than_may_wait() -> None:
    assert Settings(queue=3).n_files == 3
    assert Settings(max_files=2).n_files == 2


def test_the_limits_of_a_file_go_to_the_decoder() -> None:
    limits = Settings(max_bytes=7, max_pixels=9).limits
    assert (limits.max_bytes, limits.max_pixels) == (7, 9)
