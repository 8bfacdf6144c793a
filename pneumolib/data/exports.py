"""Which program wrote a training image: the trace that its size carries, and what it may teach a network.

Of the original training files, four of five with pneumonia have a width and a height that are both multiples of 8; of
the healthy ones one in eighteen has, where chance would give one in 64. Such files come out of one device or export
program, and that one writes large letters into the corners and has a gray curve of its own. A network can therefore
tell much of the class by the look of the device, which misleads where healthy children come from it too.
``benchmarks/choice.py`` measures how much, on training patients held out for it, and what helps: random gray curves
and mixed style (`MixStyle`), or letting the rare pairs of device and class weigh more (`Config.export_weights`).

The sizes are those of the files as published, by name, because reduced copies of the data set have lost them. Only
train is listed: nothing may be fitted on test.
"""

from __future__ import annotations

import csv
import functools
import importlib.resources
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pneumolib.data.dataset import ImageSet

BLOCK = 8  # pixels


@functools.cache
def original_sizes() -> Mapping[str, tuple[int, int]]:
    """Return the width and the height in pixels of each original training file, by file name.

    Examples:
        >>> original_sizes()["IM-0115-0001.jpeg"]
        (2090, 1858)
    """
    table = importlib.resources.files("pneumolib.data") / "original_sizes.csv"
    rows = csv.reader(table.read_text(encoding="utf-8").splitlines()[1:])
    return {name: (int(width), int(height)) for name, width, height in rows}


def export_groups(images: ImageSet) -> NDArray[np.int64]:
    """Return the group of each image, int64 ``[N]``: 1 written in blocks of 8 pixels, 0 not, or of unknown size.

    Images of other data sets, and synthetic ones, are all of group 0.
    """
    if images.phantom:
        return np.zeros(len(images), np.int64)
    sizes = original_sizes()
    known = [sizes.get(PurePosixPath(name).name, (1, 1)) for name in images.names]
    return np.array([width % BLOCK == 0 and height % BLOCK == 0 for width, height in known], dtype=np.int64)
