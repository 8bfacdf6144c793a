"""``pneumolib export``: a detector for another runtime."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pneumolib.cli.parts import DETECTOR_HELP, Commands, add_command, detector_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pneumolib.models.detector import Detector

FORMATS = ("saved_model", "onnx", "litert", "openvino")
PRECISIONS = ("float32", "float16", "int8")


def add(commands: Commands) -> None:
    export = add_command(
        commands,
        "export",
        _export,
        "write a detector for another runtime, and compare it with Keras",
        "pneumolib export served --format saved_model\n"
        "  pneumolib export small --format litert --precision int8 --representative data.zip",
    )
    export.add_argument("out", metavar="OUT", help="the folder to write: a new one, or that of an export")
    export.add_argument("--format", choices=FORMATS, required=True, help="what to write")
    export.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="float16: litert; int8: all but saved_model"
    )
    export.add_argument("--detector", default="bundled", metavar="DIR", help=DETECTOR_HELP)
    export.add_argument(
        "--representative",
        metavar="DATA",
        help="whose training images int8 learns its ranges from: a folder, a zip, 'kaggle' or 'phantom'",
    )


def _export(arguments: argparse.Namespace) -> int:
    from pneumolib.models.detector import load_detector
    from pneumolib.models.export import export

    detector = load_detector(detector_folder(arguments.detector), allow_phantom=True)
    if detector.card.get("phantom"):
        print("pneumolib: PHANTOM: this detector was trained on synthetic X-rays only", file=sys.stderr)
    images = None if arguments.representative is None else _images(arguments.representative, detector)
    result = export(
        detector, arguments.out, format=arguments.format, precision=arguments.precision, representative=images
    )
    print(result)
    print("It answers to any picture: the check of the input is not in it. detector.json says what it takes and gives.")
    return 0


def _images(data: str, detector: Detector) -> NDArray[np.uint8]:
    """Return training images of `data`, evenly spaced, none of the detector's validation patients among them."""
    import numpy as np

    from pneumolib.data.dataset import load_dataset
    from pneumolib.data.splits import split_by_patient
    from pneumolib.models.export import MAX_REPRESENTATIVE

    train = load_dataset(data).train
    part = split_by_patient(train, seed=detector.card.get("split_seed", detector.config.seed)).train
    chosen = np.linspace(0, len(part) - 1, min(len(part), MAX_REPRESENTATIVE)).astype(int)
    return part.take(chosen).images(detector.size)
