"""Shared by the tests of the command line: a detector trained in seconds, and one picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from pneumolib.config import Config
from pneumolib.data.dataset import Dataset
from pneumolib.models.training import Run, train

TINY = dict(name="tiny", size=32, width=4, epochs=2, batch_size=16, augmentation="light", precision="float32")


@pytest.fixture(scope="session")
def tiny() -> dict[str, object]:
    """The settings of `run`, without their name."""
    return {key: value for key, value in TINY.items() if key != "name"}


@pytest.fixture(scope="session")
def run(phantom: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished training run on phantoms."""
    return train(phantom, Config(**TINY), out=tmp_path_factory.mktemp("cli") / "run", progress=False)


@pytest.fixture
def x_ray(phantom_folder: Path) -> Path:
    """One picture of the phantom data set."""
    return sorted(phantom_folder.rglob("test/NORMAL/*.jpeg"))[0]
