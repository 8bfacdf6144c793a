"""``pneumolib train`` and ``evaluate``: a detector, made and measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from pneumolib import runtime
from pneumolib.cli.parts import DATA_HELP, DETECTOR_HELP, Commands, add_command, detector_folder
from pneumolib.config import PRESETS, Config
from pneumolib.errors import DataError


def add(commands: Commands) -> None:
    train = add_command(
        commands,
        "train",
        _train,
        "train a detector",
        "pneumolib train --data data.zip --preset cpu --out runs/first",
    )
    train.add_argument("--data", metavar="DATA", help=DATA_HELP)
    train.add_argument("--preset", choices=("auto", *PRESETS), default="auto", help="the settings (default: auto)")
    train.add_argument("--seed", type=int, default=0, help="decides split, weights, order, augmentation (default: 0)")
    train.add_argument("--out", metavar="DIR", help="the run's folder; left out, named after settings and data")
    train.add_argument("--resume", action="store_true", help="go on with the run that stands in DIR")
    train.add_argument(
        "--devices", choices=("one", "all"), default="one", help="take one GPU of this host, or all (default: one)"
    )
    train.add_argument("--tensorboard", action="store_true", help="write TensorBoard logs into DIR/tensorboard")

    evaluate = add_command(
        commands,
        "evaluate",
        _evaluate,
        "measure a detector on a data set",
        "pneumolib evaluate --data data.zip --detector runs/1",
    )
    evaluate.add_argument("--data", metavar="DATA", help=DATA_HELP)
    evaluate.add_argument("--detector", default="bundled", metavar="DIR", help=DETECTOR_HELP)
    evaluate.add_argument("--split", choices=("test", "val"), default="test", help="which images (default: test)")
    evaluate.add_argument("--operating-point", default="balanced", metavar="NAME", help="default: balanced")
    evaluate.add_argument("--json", metavar="F", type=Path, help="write the report to F")


def _train(arguments: argparse.Namespace) -> int:
    from pneumolib.data.dataset import load_dataset
    from pneumolib.models.training import train

    config = Config.preset(arguments.preset, seed=arguments.seed, devices=arguments.devices)
    data = load_dataset(arguments.data, config=config)
    # Without --out the folder is named after settings and data, so what stands there can only be this very run.
    resume = arguments.resume or arguments.out is None
    run = train(data, config, out=arguments.out, resume=resume, tensorboard=arguments.tensorboard)
    if runtime.join_processes()[1] == 0:
        print(run.detector)
        print(f"detector: {run.folder / 'detector'}")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from pneumolib.data.dataset import load_dataset
    from pneumolib.data.splits import split_by_patient
    from pneumolib.models.detector import load_detector
    from pneumolib.models.evaluate import evaluate

    data = load_dataset(arguments.data)
    detector = load_detector(detector_folder(arguments.detector), allow_phantom=data.phantom)
    images = data.test
    if arguments.split == "val":
        # The split is a function of data and seed, so the detector's own validation patients are found again.
        split = split_by_patient(data.train, seed=detector.card.get("split_seed", detector.config.seed))
        if split.fingerprint() != detector.card.get("data"):
            raise DataError("This detector was trained on other data: which patients were its validation is not known.")
        images = split.val
    report = evaluate(detector, images, operating_point=arguments.operating_point)
    print(report)
    if arguments.json:
        report.save(arguments.json)
        print(f"written: {arguments.json}")
    return 0
