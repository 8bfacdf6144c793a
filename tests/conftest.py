"""Shared by all tests: a small phantom, the real data where it is at hand, and a home of their own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

REAL = os.environ.pop("PNEUMOLIB_DATA", None)
os.environ.setdefault("MPLBACKEND", "Agg")
# Where a shell runs the tests in the background they inherit that interruptions are ignored, and so would all that they
# start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _places(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing that a test makes goes to the home of who runs it."""
    base = tmp_path_factory.mktemp("places")
    for name in [name for name in os.environ if name.startswith("PNEUMOLIB_")]:
        del os.environ[name]
    os.environ["PNEUMOLIB_CACHE"] = str(base / "cache")
    os.environ["PNEUMOLIB_HOME"] = str(base / "home")


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory, _places: None) -> Path:
    """A small data set of synthetic X-rays, in the layout and with the names of the real one."""
    from pneumolib.data.phantom import make_phantom

    return make_phantom(tmp_path_factory.mktemp("phantom") / "set", n_train=160, n_val=8, n_test=40)


@pytest.fixture(scope="session")
def phantom(phantom_folder: Path):
    """The data set in `phantom_folder`."""
    from pneumolib.data.dataset import load_dataset

    return load_dataset(phantom_folder)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real X-rays that PNEUMOLIB_DATA names; a test that needs them is skipped without."""
    if not REAL or not Path(REAL).exists():
        pytest.skip("PNEUMOLIB_DATA names no data set")
    return Path(REAL)
