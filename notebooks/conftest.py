"""Run each notebook under nbval as a reader's fresh runtime would: alone, on the phantom, with the `ci` preset."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from nbval.plugin import IPyNbFile

# The paired .py files are notebooks, no test modules.
collect_ignore_glob = ["*.py"]


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Leave log lines out of the comparison: Jupyter catches those of native code, pytest does not."""
    if isinstance(collector, IPyNbFile):
        collector.skip_compare += ("stderr",)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before a notebook's kernel starts, give it a home of its own, so that no other notebook's files are there."""
    if isinstance(item.parent, IPyNbFile) and item.parent.kernel is None:
        factory: pytest.TempPathFactory = item.config._tmp_path_factory  # type: ignore[attr-defined]
        home: Path = factory.mktemp(Path(item.parent.name).stem)
        os.environ.update(PNEUMOLIB_DATA="phantom", PNEUMOLIB_PRESET="ci", PNEUMOLIB_HOME=str(home))
