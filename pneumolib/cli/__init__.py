"""The command line: ``pneumolib COMMAND``, thin over the library.

Each module here holds one group of commands, and a function ``add(commands)`` that puts them into the parser. A new one
is written beside them and named in `GROUPS`. Errors are one line on standard error and exit status 2; an interruption
is 130.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence

from pneumolib import __version__
from pneumolib.cli import data, export, models, predict, score, series, serving
from pneumolib.errors import PneumolibError

GROUPS = (data, models, predict, score, serving, export, series)  # in the order of ``pneumolib --help``


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: the process's arguments) and return its exit status."""
    arguments = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the terminal's or pipe's encoding lacks, in a file's name say, is printed as an escape.
        sys.stdout.reconfigure(errors="backslashreplace")
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
        # Whoever read the output has enough. What is still to be flushed when Python ends has to go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pneumolib",
        description="Pneumonia on chest X-rays: data, training, honest evaluation, prediction. Not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"pneumolib {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add(commands)
    return parser
