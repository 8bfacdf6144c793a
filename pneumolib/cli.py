"""The command line: ``pneumolib download | audit | train | evaluate | predict | series``, thin over the library.

Errors are one line on standard error and exit status 2; an interruption is 130.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pneumolib import __version__
from pneumolib.config import PRESETS, Config
from pneumolib.errors import DataError, PneumolibError

DATA_HELP = (
    "a folder, a zip, 'kaggle' or 'phantom'; left out: PNEUMOLIB_DATA, then the kagglehub cache, then the download"
)
DETECTOR_HELP = "a detector's folder or a run's, or 'bundled' (default)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: the process's arguments) and return its exit status."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except PneumolibError as error:
        print(f"pneumolib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pneumolib: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pneumolib",
        description="Pneumonia on chest X-rays: data, training, honest evaluation, prediction. Not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"pneumolib {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], summary: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=run)
        return sub

    sub = add("download", _download, "fetch the data set from Kaggle and verify it", "pneumolib download --to data")
    sub.add_argument("--to", metavar="DIR", help="put it there rather than in kagglehub's cache")

    sub = add(
        "audit",
        _audit,
        "count a data set's files, find duplicates and leaks, test it for shortcuts",
        "pneumolib audit data.zip --html audit.html --json audit.json\n"
        "  pneumolib audit mine --patients '(p[0-9]+)-'   # mine/healthy/p12-1.png, mine/ill/p7-1.png",
    )
    sub.add_argument("data", metavar="DATA", nargs="?", help=f"{DATA_HELP}; or a folder or zip with a folder a class")
    sub.add_argument("--json", metavar="F", type=Path, help="write the findings to F")
    sub.add_argument("--html", metavar="F", type=Path, help="write a page with figures to F")
    sub.add_argument(
        "--patients", metavar="PATTERN", help="regular expression; its group in a file's name is the patient"
    )

    sub = add("train", _train, "train a detector", "pneumolib train --data data.zip --preset cpu --out runs/first")
    sub.add_argument("--data", metavar="DATA", help=DATA_HELP)
    sub.add_argument("--preset", choices=("auto", *PRESETS), default="auto", help="the settings (default: auto)")
    sub.add_argument("--seed", type=int, default=0, help="decides split, weights, order, augmentation (default: 0)")
    sub.add_argument("--out", metavar="DIR", help="the run's folder; left out, named after settings and data")
    sub.add_argument("--resume", action="store_true", help="go on with the run that stands in DIR")
    sub.add_argument("--tensorboard", action="store_true", help="write TensorBoard logs into DIR/tensorboard")

    sub = add(
        "evaluate",
        _evaluate,
        "measure a detector on a data set",
        "pneumolib evaluate --data data.zip --detector runs/1",
    )
    sub.add_argument("--data", metavar="DATA", help=DATA_HELP)
    sub.add_argument("--detector", default="bundled", metavar="DIR", help=DETECTOR_HELP)
    sub.add_argument("--split", choices=("test", "val"), default="test", help="which images (default: test)")
    sub.add_argument("--operating-point", default="balanced", metavar="NAME", help="default: balanced")
    sub.add_argument("--json", metavar="F", type=Path, help="write the report to F")

    sub = add("predict", _predict, "score X-ray files", "pneumolib predict x-ray.jpeg --json")
    sub.add_argument("files", nargs="+", metavar="FILE", help="JPEG, PNG, TIFF, BMP or WebP")
    sub.add_argument("--detector", default="bundled", metavar="DIR", help=DETECTOR_HELP)
    sub.add_argument("--operating-point", default="balanced", metavar="NAME", help="default: balanced")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")

    sub = add("series", _series, "run the notebooks in order, write HTML", "pneumolib series --preset quick")
    sub.add_argument("--preset", choices=("auto", *PRESETS), default="auto", help="the settings (default: auto)")
    sub.add_argument("--data", metavar="DATA", help=DATA_HELP)
    sub.add_argument("--notebooks", metavar="DIR", type=Path, default=Path("notebooks"), help="default: notebooks")
    sub.add_argument("--out", metavar="DIR", type=Path, default=Path("artifacts"), help="default: artifacts")
    return parser


def _download(arguments: argparse.Namespace) -> int:
    from pneumolib.data.dataset import load_dataset
    from pneumolib.data.download import download

    folder = download(to=arguments.to)
    data = load_dataset(folder)
    print(data)
    print(data.verify())
    return 0


def _audit(arguments: argparse.Namespace) -> int:
    from pneumolib.data.audit import audit

    report = audit(arguments.data, patients=arguments.patients, progress=True)
    print(report)
    pages: dict[Path, Callable[[], str]] = {}
    if arguments.json:
        pages[arguments.json] = lambda: report.to_json() + "\n"
    if arguments.html:
        from pneumolib.evaluation.audit_page import audit_page

        pages[arguments.html] = lambda: audit_page(report.to_dict(), report.facts)
    for path, text in pages.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text(), encoding="utf-8")
        except OSError as error:
            raise DataError(f"The report cannot be written to {path}: {error.strerror}.") from error
        print(f"written: {path}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from pneumolib.data.dataset import load_dataset
    from pneumolib.models.training import train

    config = Config.preset(arguments.preset, seed=arguments.seed)
    data = load_dataset(arguments.data, config=config)
    # Without --out the folder is named after settings and data, so what stands there can only be this very run.
    resume = arguments.resume or arguments.out is None
    run = train(data, config, out=arguments.out, resume=resume, tensorboard=arguments.tensorboard)
    print(run.detector)
    print(f"detector: {run.folder / 'detector'}")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from pneumolib.data.dataset import load_dataset
    from pneumolib.data.splits import split_by_patient
    from pneumolib.models.detector import load_detector
    from pneumolib.models.evaluate import evaluate

    data = load_dataset(arguments.data)
    detector = load_detector(_folder(arguments.detector), allow_phantom=data.phantom)
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


def _predict(arguments: argparse.Namespace) -> int:
    from pneumolib.models.detector import load_detector

    detector = load_detector(_folder(arguments.detector), allow_phantom=True)
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


def _series(arguments: argparse.Namespace) -> int:
    from pneumolib.series import run_series

    run_series(arguments.notebooks, out=arguments.out, preset=arguments.preset, data=arguments.data)
    return 0


def _folder(detector: str) -> Path | None:
    return None if detector == "bundled" else Path(detector)
