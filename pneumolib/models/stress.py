"""How a frozen detector bears changes of the picture: one row for each change, beside the untouched images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.data.dataset import ImageSet
from pneumolib.data.stress import STRESSES, Stress, stressed_squares
from pneumolib.errors import ConfigError
from pneumolib.evaluation.metrics import accuracy, auc, sensitivity, specificity
from pneumolib.models.detector import Detector
from pneumolib.models.evaluate import frozen_threshold

if TYPE_CHECKING:
    import pandas as pd

MEASURES = ("auc", "accuracy", "sensitivity", "specificity")
CHUNK = 16  # images at a time: with 42 stresses and 224 pixels 34 MB


@dataclass(frozen=True)
class StressRow:
    """What a detector reached under one stress, or on the untouched images; a measure is nan where it is undefined.

    Attributes:
        group: of the stress; "untouched" for the images as they are.
        level: of the stress; "" for the images as they are.
        label: both in words.
        auc: area under the ROC curve.
        accuracy: at the frozen threshold, as are the next two.
        sensitivity: of the images with pneumonia.
        specificity: of the normal images.
        auc_loss: the untouched images' AUC less this one: above 0 where the stress does harm. So for the next three.
        accuracy_loss: of the same images, so that no chance of sampling comes between.
        sensitivity_loss: of the same images.
        specificity_loss: of the same images.
        changed: share of the images that are called otherwise than when untouched, 0..1.
    """

    group: str
    level: float | str
    label: str
    auc: float
    accuracy: float
    sensitivity: float
    specificity: float
    auc_loss: float
    accuracy_loss: float
    sensitivity_loss: float
    specificity_loss: float
    changed: float


@dataclass(frozen=True, repr=False)
class StressTable:
    """How one detector bears each stress; `stress_test` makes it.

    Attributes:
        rows: the untouched images first, then each stress in its order.
        n: images.
        source: what was measured on.
        detector: name of the detector.
        phantom: synthetic X-rays, or a detector trained on them: the numbers mean nothing.
        threshold: pneumonia is called where the probability is at least this.
        operating_point: name of the threshold, such as "balanced".
    """

    rows: tuple[StressRow, ...]
    n: int
    source: str
    detector: str
    phantom: bool
    threshold: float
    operating_point: str

    @property
    def untouched(self) -> StressRow:
        """The row of the images as they are."""
        return self.rows[0]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a stress, the untouched images first, with the columns of `StressRow`."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.rows])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, ``None`` where a measure is undefined."""
        rows = [{k: None if v != v else v for k, v in asdict(row).items()} for row in self.rows]
        return {**{k: v for k, v in self.__dict__.items() if k != "rows"}, "rows": rows}

    def __str__(self) -> str:
        kind = "PHANTOM stress test: synthetic X-rays, no result" if self.phantom else "Stress test"
        lines = [
            f"{kind}: {self.detector}",
            f"{self.source}: {self.n:,} images; pneumonia from {self.threshold:.3f} ({self.operating_point})",
            "",
            f"{'':36}{'AUC':>7}{'loss':>8}{'accuracy':>11}{'loss':>8}{'sens.':>8}{'spec.':>7}{'changed':>10}",
        ]
        for before, row in zip((None, *self.rows), self.rows, strict=False):
            if before is not None and before.group != row.group:
                lines.append("")
            lines.append(
                f"{row.label:36}{row.auc:7.3f}{_signed(row.auc_loss):>8}{row.accuracy:11.3f}"
                f"{_signed(row.accuracy_loss):>8}"
                f"{row.sensitivity:8.3f}{row.specificity:7.3f}{row.changed:10.1%}"
            )
        return "\n".join(lines)

    __repr__ = __str__


def stress_test(
    detector: Detector,
    images: ImageSet,
    *,
    stresses: Sequence[Stress] | None = None,
    operating_point: str = "balanced",
    seed: int = 0,
    progress: bool = False,
) -> StressTable:
    """Return the `StressTable` of `detector` on `images`: what each stress costs, at a frozen operating point.

    The row of the untouched images holds what `evaluate` measures. The threshold is the detector's own; nothing is
    fitted here.

    Args:
        detector: as `load_detector` or `Run.detector` gives it.
        images: the set to measure on, such as ``split.val``.
        stresses: which changes; None takes the standard ones, `pneumolib.data.stress.STRESSES`.
        operating_point: one of `detector.operating_points`.
        seed: of the noise.
        progress: show how far it is.

    Raises:
        DataError: the set is empty.
        ConfigError: the detector has no operating point of that name, or there is no stress.
        ImageError: a file cannot be read; the message names it.
    """
    return stress_tests(
        [detector], images, stresses=stresses, operating_point=operating_point, seed=seed, progress=progress
    )[0]


def stress_tests(
    detectors: Sequence[Detector],
    images: ImageSet,
    *,
    stresses: Sequence[Stress] | None = None,
    operating_point: str = "balanced",
    seed: int = 0,
    progress: bool = False,
) -> list[StressTable]:
    """Return the `StressTable` of each detector, each at its own threshold; those of one size share the pictures.

    The arguments and errors are those of `stress_test`.
    """
    stresses = STRESSES if stresses is None else tuple(stresses)
    if not stresses:
        raise ConfigError("A stress test needs at least one stress. Received: none")
    thresholds = [frozen_threshold(detector, images, operating_point) for detector in detectors]
    answers: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(detectors)
    for size in sorted({detector.size for detector in detectors}):
        mine = [i for i, detector in enumerate(detectors) if detector.size == size]
        found = _probabilities([detectors[i] for i in mine], images, size, stresses, seed, progress)
        for i, probability in zip(mine, found, strict=True):
            answers[i] = probability
    return [
        StressTable(
            rows=_rows(images.is_pneumonia, probability, stresses, threshold),
            n=len(images),
            source=f"{images.name} of {images.origin}",
            detector=detector.name,
            phantom=images.phantom or bool(detector.card.get("phantom")),
            threshold=threshold,
            operating_point=operating_point,
        )
        for detector, probability, threshold in zip(detectors, answers, thresholds, strict=True)
    ]


def _probabilities(
    detectors: Sequence[Detector], images: ImageSet, size: int, stresses: Sequence[Stress], seed: int, progress: bool
) -> list[NDArray[np.float32]]:
    """P(pneumonia) of each detector, float32 [1 + K, N]: untouched, then under each of the K stresses."""
    from tqdm import tqdm

    untouched = images.images(size, progress=progress)
    result = [np.empty((1 + len(stresses), len(images)), np.float32) for _ in detectors]
    for detector, values in zip(detectors, result, strict=True):
        values[0] = detector.probability(untouched)
    shown = progress and sys.stderr.isatty()
    with (
        ThreadPoolExecutor(min(4, runtime.available_cores())) as pool,
        tqdm(total=len(images), unit="image", desc="stress test", disable=not shown) as bar,
    ):
        # All images under all stresses would fill the memory of a small machine; a chunk of images does not.
        for start in range(0, len(images), CHUNK):
            chunk = range(start, min(start + CHUNK, len(images)))
            squares = np.stack(list(pool.map(lambda i: stressed_squares(images, i, size, stresses, seed), chunk)))
            flat = squares.reshape(-1, size, size)
            for detector, values in zip(detectors, result, strict=True):
                values[1:, chunk.start : chunk.stop] = detector.probability(flat).reshape(squares.shape[:2]).T
            bar.update(len(chunk))
    return result


def _rows(
    truth: NDArray[np.bool_], p: NDArray[np.float32], stresses: Sequence[Stress], threshold: float
) -> tuple[StressRow, ...]:
    plain = _measures(truth, p[0], threshold)
    called = p >= threshold
    rows = []
    for i, (group, level, label) in enumerate(
        [("untouched", "", "untouched"), *((stress.group, stress.level, stress.label) for stress in stresses)]
    ):
        measures = _measures(truth, p[i], threshold)
        losses = {f"{name}_loss": plain[name] - value for name, value in measures.items()}
        changed = float((called[i] != called[0]).mean())
        rows.append(StressRow(group, level, label, **measures, **losses, changed=changed))
    return tuple(rows)


def _measures(truth: NDArray[np.bool_], p: NDArray[np.float32], threshold: float) -> dict[str, float]:
    at_threshold = {f.__name__: f(truth, p, threshold) for f in (accuracy, sensitivity, specificity)}
    return {"auc": auc(truth, p), **at_threshold}


def _signed(loss: float) -> str:
    return f"{loss:+.3f}" if round(loss, 3) else "0.000"
