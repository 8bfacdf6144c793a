"""Would several detectors together, the mean of their weights, or a look at the mirrored picture too, answer better?

Both are measured on training patients alone: on random validation patients, on the same patients perturbed, and on
shifted ones perturbed (`pneumolib.data.splits`), each perturbation with several draws of chance. Answers are joined as
the mean of the logits. An ensemble says what a net that learns from it could at most be hoped to gain. The mean of the
weights is a *soup* (Wortsman et al., 2022, arXiv:2203.05482): one net, whose batch statistics are measured again.

    PNEUMOLIB_DATA=chest_xray.zip python benchmarks/ensemble.py --detector RUN1 RUN2 RUN3 \\
        --json benchmarks/results/ensemble.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pneumolib.data.dataset import load_dataset
from pneumolib.data.splits import shifted_images, split_by_patient
from pneumolib.evaluation.calibration import apply_temperature
from pneumolib.evaluation.metrics import auc
from pneumolib.models.detector import Detector, load_detector
from pneumolib.models.finishing import measure_batch_statistics, predict_logits
from pneumolib.models.resnet import unfreeze_backbone

if TYPE_CHECKING:
    import keras

DRAWS = 3
BATCH = 32

Looks = dict[str, list[NDArray[np.uint8]]]  # of each set of images
Logits = dict[str, NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder or a zip; left out: PNEUMOLIB_DATA, then kagglehub")
    parser.add_argument("--detector", type=Path, nargs="+", required=True, help="runs of one split by patient")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    data = load_dataset(arguments.data)
    split = split_by_patient(data.train)
    detectors = [load_detector(run / "detector") for run in arguments.detector]
    for run, detector in zip(arguments.detector, detectors, strict=True):
        if detector.card["data"] != split.fingerprint():
            raise SystemExit(f"{run} was trained on other patients: these would not be new to it.")
    size = detectors[0].size
    sets: Looks = {"random": [split.val.images(size)], "perturbed": [], "shifted": []}
    for draw in range(DRAWS):
        sets["perturbed"].append(shifted_images(split.val, size, seed=draw))
        sets["shifted"].append(shifted_images(split.shifted, size, seed=draw))
    truth = {name: (split.shifted if name == "shifted" else split.val).is_pneumonia for name in sets}

    plain = [answers(detector.logits, sets) for detector in detectors]
    mirrored = [
        answers(lambda x, d=detector: d.logits(np.ascontiguousarray(x[:, :, ::-1])), sets) for detector in detectors
    ]
    both = [joined([one, other]) for one, other in zip(plain, mirrored, strict=True)]
    soup = mean_of_weights(detectors, split.train.images(size))
    result = {
        "phantom": data.phantom,
        "detectors": [run.name for run in arguments.detector],
        "draws": DRAWS,
        "auc": {
            "one detector": mean_of([measure(logits, truth) for logits in plain]),
            "one detector, mirrored too": mean_of([measure(logits, truth) for logits in both]),
            "one net with the mean of their weights": measure(
                answers(lambda x: predict_logits(soup, x, BATCH), sets), truth
            ),
            "all together": measure(joined(plain), truth),
            "all together, mirrored too": measure(joined(both), truth),
        },
    }
    for name, row in result["auc"].items():
        print(f"{name:<40}" + "".join(f"{part} {value:.4f}  " for part, value in row.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def answers(logits: Callable[[NDArray[np.uint8]], NDArray[np.float32]], sets: Looks) -> Logits:
    """Return what `logits` answers to each look at each set."""
    return {name: np.stack([logits(x) for x in looks]) for name, looks in sets.items()}


def mean_of_weights(detectors: Sequence[Detector], images: NDArray[np.uint8]) -> keras.Model:
    """Return one net with the mean of the detectors' weights and the batch statistics that belong to it."""
    models = [detector.keras_model() for detector in detectors]
    result = models[0]
    result.set_weights([np.mean(same, axis=0) for same in zip(*(model.get_weights() for model in models), strict=True)])
    unfreeze_backbone(result)
    measure_batch_statistics(result, images, detectors[0].config)
    return result


def joined(answers: list[Logits]) -> Logits:
    """Return the mean of several answers to the same images."""
    return {name: np.mean([logits[name] for logits in answers], axis=0) for name in answers[0]}


def measure(logits: Logits, truth: dict[str, NDArray[np.bool_]]) -> dict[str, float]:
    """Return the AUC on each set, mean over its draws."""
    return {
        name: float(np.mean([auc(truth[name], 1 - apply_temperature(draw, 1.0)[:, 0]) for draw in draws]))
        for name, draws in logits.items()
    }


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean over detectors."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


if __name__ == "__main__":
    main()
