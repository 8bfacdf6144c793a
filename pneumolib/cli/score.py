"""``pneumolib score``: an archive, scored."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pneumolib.cli.parts import DETECTOR_HELP, Commands, add_command, detector_folder


def add(commands: Commands) -> None:
    score = add_command(
        commands,
        "score",
        _score,
        "score an archive of X-rays into Parquet; an interrupted call goes on when it is made again",
        "pneumolib score archive.zip --out scores.parquet",
    )
    score.add_argument(
        "input", metavar="INPUT", type=Path, help="a folder, a zip, or a list of files (.txt, or .csv with column path)"
    )
    score.add_argument(
        "--out", required=True, metavar="OUT", type=Path, help="a file .parquet; or a folder, new or empty, for parts"
    )
    score.add_argument("--engine", choices=("local", "ray"), default="local", help="default: local")
    score.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    score.add_argument("--detector", default="bundled", metavar="DIR", help=DETECTOR_HELP)
    score.add_argument("--operating-point", default="balanced", metavar="NAME", help="default: balanced")
    score.add_argument("--shard-size", type=int, metavar="N", help="images written together (default: by their number)")
    score.add_argument("--anew", action="store_true", help="start anew, over what stands at OUT")


def _score(arguments: argparse.Namespace) -> int:
    from pneumolib.models.detector import load_detector
    from pneumolib.scale.score import score

    detector = load_detector(detector_folder(arguments.detector), allow_phantom=True, threads=1)
    if detector.card.get("phantom"):
        print("pneumolib: PHANTOM: this detector was trained on synthetic X-rays only", file=sys.stderr)
    summary = score(
        arguments.input,
        arguments.out,
        detector=detector,
        engine=arguments.engine,
        workers=arguments.workers,
        operating_point=arguments.operating_point,
        shard_size=arguments.shard_size,
        resume=not arguments.anew,
    )
    print(summary)
    return 1 if summary.errors else 0
