"""The look that all figures share: colours, Axes, titles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes

from pneumolib.evaluation.calibration import OperatingPoint
from pneumolib.evaluation.metrics import check_threshold

BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, GRAY, YELLOW, SKY = sns.color_palette("colorblind")
COLOURS = {
    "normal": BLUE,
    "bacterial": ORANGE,
    "viral": GREEN,
    "pneumonia": RED,
    "unspecified": PURPLE,
}


@contextmanager
def style(name: str) -> Iterator[None]:
    """This package's look, for what is made inside; figures drawn elsewhere keep theirs."""
    with sns.axes_style(name), sns.plotting_context("notebook", font_scale=0.9):
        yield


@contextmanager
def axes(ax: Axes | None, size: tuple[float, float], look: str = "whitegrid") -> Iterator[Axes]:
    """The Axes to draw into, a new one where none was given, with this package's look while it is drawn."""
    with style(look):
        yield ax if ax is not None else plt.subplots(figsize=size, layout="constrained")[1]


def titled(text: str, phantom: bool) -> str:
    """The text, behind PHANTOM where it is about synthetic X-rays."""
    return f"PHANTOM: {text}" if phantom else text


def threshold_of(point: OperatingPoint | float) -> tuple[str, float]:
    """The name to show and the value of an operating point or of a bare threshold."""
    if isinstance(point, OperatingPoint):
        return f"{point.name} threshold", point.threshold
    return "threshold", check_threshold(point)
