"""``pneumolib predict``: files and folders of X-rays, scored."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pneumolib.cli.parts import DETECTOR_HELP, Commands, add_command, detector_folder
from pneumolib.cli.progress import Progress

if TYPE_CHECKING:
    from pneumolib.models.files import Answer
    from pneumolib.models.prediction import Prediction


def add(commands: Commands) -> None:
    predict = add_command(
        commands,
        "predict",
        _predict,
        "score X-ray files, and all in a folder",
        "pneumolib predict x-ray.jpeg --json\n  pneumolib predict x-rays --heatmap heat --json > answers.jsonl",
    )
    predict.add_argument(
        "files", nargs="+", metavar="FILE", help="JPEG, PNG, TIFF, BMP, WebP or DICOM; or a folder with such files"
    )
    predict.add_argument("--detector", default="bundled", metavar="DIR", help=DETECTOR_HELP)
    predict.add_argument("--operating-point", default="balanced", metavar="NAME", help="default: balanced")
    predict.add_argument("--json", action="store_true", help="one JSON object a line")
    predict.add_argument(
        "--heatmap", metavar="DIR", type=Path, help="draw what speaks for pneumonia into DIR, a PNG for each picture"
    )


def _predict(arguments: argparse.Namespace) -> int:
    from pneumolib.data.pictures import find_pictures, names_of
    from pneumolib.models.detector import load_detector
    from pneumolib.models.files import PHANTOM_WARNING, predict_files

    pictures = find_pictures(arguments.files, outside=arguments.heatmap)
    several = len(pictures) > 1
    # Several files are scored side by side, each by one thread.
    detector = load_detector(detector_folder(arguments.detector), allow_phantom=True, threads=1 if several else None)
    phantom = bool(detector.card.get("phantom"))
    if phantom:
        print(f"pneumolib: {PHANTOM_WARNING}", file=sys.stderr)
    folder, names = None, []
    if arguments.heatmap:
        from pneumolib.models.heat_files import HeatFolder

        folder, names = HeatFolder(arguments.heatmap), names_of(pictures)
    files = [picture.path for picture in pictures]
    answers = predict_files(
        detector, files, operating_point=arguments.operating_point, heat_folder=folder, heat_names=names
    )
    as_text = partial(_json, phantom=phantom) if arguments.json else _line
    counts = {"scored": 0, "refused": 0, "unreadable": 0}
    failed = 0
    with contextlib.closing(answers), Progress(len(files), "file") as progress:
        for answer in answers:
            counts[answer.outcome] += 1
            if answer.prediction is not None:
                progress.print(as_text(answer, answer.prediction, folder is not None))
            if answer.problem is not None:
                failed += 1
                progress.print(f"pneumolib: {answer.problem}", sys.stderr)
            progress.step()
    if several:
        undrawn = failed - counts["unreadable"]
        rest = f", {undrawn:,} without the heat map wanted" if undrawn else ""
        print(f"pneumolib: {', '.join(f'{n:,} {what}' for what, n in counts.items())}{rest}", file=sys.stderr)
    return 1 if failed else 0


def _line(answer: Answer, prediction: Prediction, with_heat: bool) -> str:
    heat = f"; heat map {answer.heat_map}" if answer.heat_map else "; no heat map"
    return f"{prediction}{heat if with_heat else ''}"


def _json(answer: Answer, prediction: Prediction, with_heat: bool, *, phantom: bool) -> str:
    values = prediction.to_dict()
    if with_heat:
        values["heatmap"] = str(answer.heat_map) if answer.heat_map else None
    if phantom:
        # Whoever reads this line may not have seen the warning on standard error.
        values["phantom"] = True
    return json.dumps(values)
