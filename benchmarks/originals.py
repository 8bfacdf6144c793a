"""Does the detector answer to an original as it answers to the 224-pixel copy of it in the data set?

    PNEUMOLIB_DATA=copies.zip python benchmarks/originals.py originals.zip --json benchmarks/results/originals.json

The originals are files as published, in the folders of the data set (``train/NORMAL/...``); each is compared with the
file of its name in the data set. A detector that was trained on the copies meets originals in service, so the
probabilities should differ little. Most such files are training images: the AUC of both is told to be compared with
each other, not as a result.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pneumolib import runtime
from pneumolib.data.dataset import Dataset, ImageSet, load_dataset
from pneumolib.errors import DataError, PneumolibError
from pneumolib.evaluation.metrics import auc
from pneumolib.models.detector import Detector, load_detector


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each detector; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("originals", help="a folder or a zip of originals")
    parser.add_argument("--data", help="the copies: a folder or a zip; left out: PNEUMOLIB_DATA, then kagglehub")
    parser.add_argument("--detector", action="append", help="folder of a detector or a run; may be given several times")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    options = parser.parse_args(arguments)
    try:
        originals, copies = pairs(load_dataset(options.originals), load_dataset(options.data))
        detectors = [load_detector(f, allow_phantom=originals.phantom) for f in options.detector or [None]]
        rows = [compare(detector, originals, copies) for detector in detectors]
    except (PneumolibError, OSError) as error:
        print(f"originals: {error}", file=sys.stderr)
        return 2
    kind = "PHANTOM " if originals.phantom or copies.phantom else ""
    print(f"{kind}{len(originals)} originals and their copies: {originals.summary()}")
    for row in rows:
        print(
            f"{row['detector']} (seed {row['seed']}): probability differs by {row['median']:.4f} (median), "
            f"{row['p95']:.4f} (95 %), {row['max']:.4f} (most); decisions changed {row['changed']:.1%}; "
            f"AUC of originals {row['auc_originals']:.4f}, of copies {row['auc_copies']:.4f}"
        )
    if options.json:
        result = {
            "machine": runtime.describe(),
            "phantom": bool(kind),
            "originals": originals.origin,
            "copies": copies.origin,
            "n": {"normal": int((~originals.is_pneumonia).sum()), "pneumonia": int(originals.is_pneumonia.sum())},
            "detectors": rows,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def pairs(originals: Dataset, copies: Dataset) -> tuple[ImageSet, ImageSet]:
    """Return the originals of train that have a copy in the data set, and their copies in the same order."""
    # Train alone: the test half is for the evaluation.
    place = {name: i for i, name in enumerate(copies.train.names)}
    known = np.array([name in place for name in originals.train.names], dtype=bool)
    if not known.any():
        raise DataError(
            f"No original has a copy of its name in train. Received: {len(known)} originals of train from "
            f"{originals.location}, {len(place)} copies from {copies.location}"
        )
    chosen = originals.train.take(known)
    if chosen.is_pneumonia.all() or not chosen.is_pneumonia.any():
        raise DataError(f"The originals must be of both classes. Received: {chosen.summary()}")
    return chosen, copies.train.take([place[name] for name in chosen.names])


def compare(detector: Detector, originals: ImageSet, copies: ImageSet) -> dict[str, Any]:
    """Return how far the answers to the originals are from those to the copies, rounded to 4 digits."""
    p, q = (detector.probability(part.images(detector.size)).astype(float) for part in (originals, copies))
    difference = np.abs(p - q)
    worst = int(difference.argmax())
    values = {
        "threshold": detector.threshold,
        "median": float(np.median(difference)),
        "p95": float(np.quantile(difference, 0.95)),
        "max": float(difference[worst]),
        "changed": float(((p >= detector.threshold) != (q >= detector.threshold)).mean()),
        "auc_originals": auc(originals.is_pneumonia, p),
        "auc_copies": auc(copies.is_pneumonia, q),
    }
    return {
        "detector": detector.name,
        "seed": detector.config.seed,
        **{name: round(value, 4) for name, value in values.items()},
        "farthest": originals.names[worst],
    }


if __name__ == "__main__":
    sys.exit(main())
