"""What the commands share: how one is made, and the words for arguments that several take."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

DATA_HELP = (
    "a folder, a zip, 'kaggle' or 'phantom'; left out: PNEUMOLIB_DATA, then the kagglehub cache, then the download"
)
DETECTOR_HELP = "a detector's folder or a run's, or 'bundled' (default)"


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], summary: str, example: str
) -> argparse.ArgumentParser:
    """Return the parser of a new command, to be given its arguments.

    Args:
        commands: what a module's `add` is given.
        name: the word after ``pneumolib``.
        run: gets the parsed arguments and returns the exit status; what it needs is imported inside it.
        summary: what it does, small letter first, no full stop.
        example: a whole command line.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def detector_folder(detector: str) -> Path | None:
    """Return what `load_detector` takes for a command's ``--detector``."""
    return None if detector == "bundled" else Path(detector)
