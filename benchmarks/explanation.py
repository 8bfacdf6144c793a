"""How far are the heat maps to be believed? Deletion, insertion, heat in the lungs, forgetting, and time.

    PNEUMOLIB_DATA=chest_xray.zip python benchmarks/explanation.py --json benchmarks/results/explanation.json

Measured on validation images of the detector's own split that it rightly calls pneumonia, half of them bacterial. The
answer is the log-odds of pneumonia. What is deleted takes the pixels of normal validation images, or of the picture
blurred; the method `replacement` takes its own normal X-rays from the training part, so that it is not measured with
what it was made of. Grad-CAM at finer layers is measured beside the two light methods. Some minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.data.dataset import ImageSet, load_dataset
from pneumolib.data.lungs import lung_field
from pneumolib.data.splits import split_by_patient
from pneumolib.errors import DataError, PneumolibError
from pneumolib.evaluation.calibration import logit
from pneumolib.evaluation.faithfulness import blurred, deletion_insertion, heat_in_lungs
from pneumolib.models.detector import Detector, load_detector
from pneumolib.models.explain import METHODS, grad_cam, heat_maps, randomisation_check

STEPS, NORMALS = 12, 3

Maps = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder, a zip or phantom; left out: PNEUMOLIB_DATA, then kagglehub")
    parser.add_argument("--detector", help="folder of a detector or a run; left out: the one that ships")
    parser.add_argument("--n", type=int, default=32, help="images with pneumonia")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    options = parser.parse_args(arguments)
    try:
        data = load_dataset(options.data)
        detector = load_detector(options.detector, allow_phantom=data.phantom)
        split = split_by_patient(data.train, seed=detector.card.get("split_seed", detector.config.seed))
        result = measure(detector, split.train, split.val, options.n)
    except (PneumolibError, OSError) as error:
        print(f"explanation: {error}", file=sys.stderr)
        return 2
    _show(result)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def measure(detector: Detector, train: ImageSet, val: ImageSet, n: int) -> dict[str, Any]:
    """Return the numbers of each method, means over the images."""
    squares, p = _answers(detector, val)
    ill = [_spread(np.flatnonzero((val.subtypes == s) & (p >= detector.threshold)), n // 2) for s in _ILL]
    chosen = np.concatenate(ill)
    if not len(chosen):
        raise DataError("No validation image with pneumonia is called pneumonia: there is nothing to explain.")
    healthy = squares[_surest_normal(val, p, NORMALS)]
    few = train.take(np.flatnonzero(~train.is_pneumonia)[::20])
    few_squares, few_p = _answers(detector, few)
    normal = few_squares[_surest_normal(few, few_p, NORMALS)]

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return logit(detector.probability(images))

    lungs = [lung_field(image) for image in squares[chosen]]
    methods: dict[str, dict[str, Any]] = {}
    for name, maps in _methods(detector, normal).items():
        maps(squares[chosen[:1]])
        start = time.perf_counter()
        heats = np.concatenate([maps(squares[i : i + 1]) for i in chosen])
        seconds = time.perf_counter() - start
        inside = [heat_in_lungs(heat, mask) for heat, mask in zip(heats, lungs, strict=True)]
        row: dict[str, Any] = {"milliseconds": 1000 * seconds / len(chosen), "heat_in_lungs": float(np.nanmean(inside))}
        for reference in ("normal", "blurred"):
            areas = []
            for i, (image, heat) in enumerate(zip(squares[chosen], heats, strict=True)):
                other = healthy[i % len(healthy)] if reference == "normal" else blurred(image)
                areas.append(deletion_insertion(answer, image, heat, other, steps=STEPS, n_random=1, seed=i).areas)
            row[reference] = {key: float(np.mean([area[key] for area in areas])) for key in areas[0]}
        if name in METHODS:
            few_draws = 5 if name == "cam" else 2
            row["randomisation"] = randomisation_check(
                detector, squares[chosen[::4]], method=name, normal=normal[:1], draws=few_draws
            )
        methods[name] = _rounded(row)
    found = [mask.mean() for mask in lungs if mask.any()]
    normals = np.flatnonzero(~val.is_pneumonia)[::10]
    return {
        "machine": runtime.describe(),
        "detector": {"name": detector.name, "seed": detector.config.seed},
        "source": f"{val.name} of {val.origin}",
        "phantom": val.phantom,
        "n": len(chosen),
        "lungs": _rounded({"found": len(found) / len(lungs), "share_of_area": float(np.mean(found)) if found else 0.0}),
        "log_odds": _rounded(
            {
                "images": float(answer(squares[chosen]).mean()),
                "images_blurred": float(answer(np.stack([blurred(image) for image in squares[chosen]])).mean()),
                "normal": float(answer(squares[normals]).mean()),
                "normal_blurred": float(answer(np.stack([blurred(image) for image in squares[normals]])).mean()),
            }
        ),
        "peak_heat_of_normal": _rounded(float(np.mean(heat_maps(detector, squares[normals]).max((1, 2))))),
        "methods": methods,
    }


_ILL = ("bacterial", "viral")


def _methods(detector: Detector, normal: NDArray[np.uint8]) -> dict[str, Maps]:
    model = detector.keras_model()
    result: dict[str, Maps] = {
        "cam": lambda images: heat_maps(detector, images),
        "replacement": lambda images: heat_maps(detector, images, method="replacement", normal=normal),
    }
    # The last layers that work at a 16th and at an eighth of the image's side, in ResNet-18 and in EfficientNet-Lite0.
    layers = ("stage3_block2_relu", "stage2_block2_relu", "stage5_block3_out", "stage3_block2_out")
    for layer in (layer for layer in layers if any(part.name == layer for part in model.layers)):
        result[f"grad_cam {layer.split('_')[0]}"] = lambda images, layer=layer: grad_cam(model, images, layer=layer)
    return result


def _answers(detector: Detector, images: ImageSet) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    squares = images.images(detector.size)
    return squares, detector.probability(squares)


def _surest_normal(images: ImageSet, p: NDArray[np.float32], n: int) -> NDArray[np.intp]:
    return np.argsort(np.where(images.is_pneumonia, 2, p), kind="stable")[:n]


def _spread(indices: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    return indices[np.unique(np.linspace(0, len(indices) - 1, min(n, len(indices))).astype(int))]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return None if value != value else round(value, 4) + 0.0


def _show(result: dict[str, Any]) -> None:
    print(f"{'PHANTOM: ' * result['phantom']}{result['n']} images with pneumonia, {result['source']}")
    print(
        f"lungs {result['lungs']}\nlog-odds {result['log_odds']}\npeak heat of normal {result['peak_heat_of_normal']}"
    )
    print(f"{'':22}{'normal in place':^40}{'blurred in place':^40}")
    heads = 2 * ("deletion (chance)", "insertion (chance)")
    print(f"{'':22}{''.join(f'{head:>20}' for head in heads)}{'in lungs':>10}{'ms':>7}  randomised")
    for name, row in result["methods"].items():
        areas = [row[r][k] for r in ("normal", "blurred") for k in _AREAS]
        pairs = [f"{a:.2f} ({b:.2f})" for a, b in zip(areas[::2], areas[1::2], strict=True)]
        forgot = " ".join(f"{k} {v:.2f}" for k, v in row.get("randomisation", {}).items() if v is not None)
        ends = f"{row['heat_in_lungs']:10.3f}{row['milliseconds']:7.0f}  {forgot}"
        print(f"{name:22}{''.join(f'{pair:>20}' for pair in pairs)}{ends}")


_AREAS = ("deletion", "random_deletion", "insertion", "random_insertion")


if __name__ == "__main__":
    sys.exit(main())
