"""Draw the README's picture: synthetic X-rays, the squares that the network sees, and the answers beside them.

    python tools/overview.py

A small network is trained on the phantom first (a minute on two cores), so everything in the picture, numbers
included, comes out of the code that the reader is about to use. The script writes docs/overview.png.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from project import ROOT

import pneumolib as pn
from pneumolib.models.prediction import Prediction

PICTURE = ROOT / "docs" / "overview.png"
CASES = ("normal", "bacterial", "viral")
WELL, ILL, LINE = "#0072b2", "#d55e00", "#444444"


def main() -> None:
    """Train, predict and draw."""
    data = pn.load_dataset("phantom")
    with tempfile.TemporaryDirectory() as folder:
        run = pn.train(data, pn.Config.preset("quick"), out=Path(folder) / "run", progress=False)
        detector = run.detector
        chosen = [int(np.flatnonzero(data.test.subtypes == case)[1]) for case in CASES]
        figure, rows = plt.subplots(3, 3, figsize=(9, 7.2), width_ratios=(1.25, 1, 2), layout="constrained")
        for row, index, case in zip(rows, chosen, CASES, strict=True):
            answer = detector.predict(data.test.read(index))
            picture(row[0], data.test.image(index), f"drawn as {case}")
            picture(row[1], pn.load_square(data.test.read(index), detector.size), f"{detector.size} x {detector.size}")
            scale(row[2], answer, {name: point.threshold for name, point in detector.operating_points.items()})
    for ax, title in zip(rows[0], ("the X-ray", "its square", "the answer"), strict=True):
        ax.set_title(title, fontsize=13, fontweight="bold")
    figure.suptitle("PHANTOM: synthetic X-rays, and a tiny detector trained on them", fontsize=10, color=LINE)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)
    print(f"written: {PICTURE.relative_to(ROOT)}")


def picture(ax: Axes, image: NDArray[np.uint8], caption: str) -> None:
    """Show an image in gray, with a caption under it."""
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(caption, fontsize=9)


def scale(ax: Axes, answer: Prediction, thresholds: dict[str, float]) -> None:
    """Draw the probability as a bar, the operating points as lines across it, and the decision in words."""
    colour = ILL if answer.decision == "pneumonia" else WELL
    ax.barh(0, 1, height=0.34, color="#eeeeee")
    ax.barh(0, answer.probability, height=0.34, color=colour)
    for number, (name, threshold) in enumerate(sorted(thresholds.items(), key=lambda item: item[1])):
        ax.plot([threshold, threshold], [-0.3, 0.3], color=LINE, linewidth=1.6 if name == "balanced" else 0.8)
        ax.annotate(
            name.replace("_", " "),
            (threshold, -0.3),
            (0.16 + 0.34 * number, -0.62),
            ha="center",
            fontsize=8,
            color=LINE,
            arrowprops={"arrowstyle": "-", "color": LINE, "linewidth": 0.6},
        )
    ax.text(0, 0.36, f"{answer.decision}", fontsize=13, color=colour, fontweight="bold", va="bottom")
    ax.text(1, 0.36, f"P(pneumonia) = {answer.probability:.3f}", fontsize=11, ha="right", va="bottom")
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.85, 0.75), yticks=[], xticks=[0, 0.5, 1])
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)


if __name__ == "__main__":
    main()
