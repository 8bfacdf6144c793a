"""``pneumolib series``: the notebooks, run."""

from __future__ import annotations

import argparse
from pathlib import Path

from pneumolib.cli.parts import DATA_HELP, Commands, add_command
from pneumolib.config import PRESETS


def add(commands: Commands) -> None:
    series = add_command(
        commands, "series", _series, "run the notebooks in order, write HTML", "pneumolib series --preset quick"
    )
    series.add_argument("--preset", choices=("auto", *PRESETS), default="auto", help="the settings (default: auto)")
    series.add_argument("--data", metavar="DATA", help=DATA_HELP)
    series.add_argument("--notebooks", metavar="DIR", type=Path, default=Path("notebooks"), help="default: notebooks")
    series.add_argument("--out", metavar="DIR", type=Path, default=Path("artifacts"), help="default: artifacts")


def _series(arguments: argparse.Namespace) -> int:
    from pneumolib.series import run_series

    run_series(arguments.notebooks, out=arguments.out, preset=arguments.preset, data=arguments.data)
    return 0
