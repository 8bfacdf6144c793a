"""Run a detector over a set of images and report how good it is."""

from __future__ import annotations

import numpy as np

from pneumolib.data.dataset import ImageSet
from pneumolib.errors import ConfigError, DataError
from pneumolib.evaluation.report import Report, make_report
from pneumolib.models.detector import Detector


def evaluate(
    detector: Detector,
    images: ImageSet,
    *,
    operating_point: str = "balanced",
    n_bootstrap: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> Report:
    """Return the `Report` of `detector` on `images`: each metric with its 95 % interval, at a frozen operating point.

    The threshold is the detector's own, chosen on validation when it was made; nothing is fitted here.

    Args:
        detector: as `load_detector` or `Run.detector` gives it.
        images: the set to measure on, such as ``data.test``.
        operating_point: one of `detector.operating_points`.
        n_bootstrap: resamples of patients behind the intervals.
        seed: of the resampling.
        progress: show the preparation of the images.

    Raises:
        DataError: the set is empty.
        ConfigError: the detector has no operating point of that name.
    """
    threshold = frozen_threshold(detector, images, operating_point)
    p = detector.probability(images.images(detector.size, progress=progress))
    return make_report(
        images.is_pneumonia,
        np.asarray(p),
        names=list(images.names),
        subtypes=images.subtypes,
        patients=images.patients,
        threshold=threshold,
        operating_point=operating_point,
        source=f"{images.name} of {images.origin}",
        phantom=images.phantom or bool(detector.card.get("phantom")),
        detector=detector.name,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )


def frozen_threshold(detector: Detector, images: ImageSet, operating_point: str) -> float:
    """Return the threshold of an operating point, in 0..1, for a set that can be measured on.

    Raises:
        DataError: the set is empty.
        ConfigError: the detector has no operating point of that name.
    """
    if not len(images):
        raise DataError(f"There are no images to evaluate on: the {images.name!r} part of this data set is empty.")
    if operating_point not in detector.operating_points:
        raise ConfigError(
            f"The detector has no such operating point. Allowed: {', '.join(detector.operating_points)}. "
            f"Received: {operating_point!r}"
        )
    return detector.operating_points[operating_point].threshold
