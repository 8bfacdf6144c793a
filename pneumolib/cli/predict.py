"""``pneumolib predict``: files, scored."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pneumolib.cli.parts import DETECTOR_HELP, Commands, add_command, detector_folder
from pneumolib.errors import PneumolibError


def add(commands: Commands) -> None:
    predict = add_command(commands, "predict", _predict, "score X-ray files", "pneumolib predict x-ray.jpeg --json")
    predict.add_argument("files", nargs="+", metavar="FILE", help="JPEG, PNG, TIFF, BMP or WebP")
    predict.add_argument("--detector", default="bundled", metavar="DIR", help=DETECTOR_HELP)
    predict.add_argument("--operating-point", default="balanced", metavar="NAME", help="default: balanced")
    predict.add_argument("--json", action="store_true", help="one JSON object a line")


def _predict(arguments: argparse.Namespace) -> int:
    from pneumolib.models.detector import load_detector

    detector = load_detector(detector_folder(arguments.detector), allow_phantom=True)
    if detector.card.get("phantom"):
        print("pneumolib: PHANTOM: this detector was trained on synthetic X-rays only", file=sys.stderr)
    failed = False
    for name in arguments.files:
        try:
            prediction = detector.predict(Path(name), operating_point=arguments.operating_point)
        except PneumolibError as error:
            failed = True
            print(f"pneumolib: {error}", file=sys.stderr)
            continue
        except OSError as error:
            failed = True
            print(f"pneumolib: {name}: {error.strerror or error}", file=sys.stderr)
            continue
        print(json.dumps(prediction.to_dict()) if arguments.json else prediction, flush=True)
    return 1 if failed else 0
