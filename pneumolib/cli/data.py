"""``pneumolib download`` and ``audit``: the data set, fetched and looked through."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from pneumolib.cli.parts import DATA_HELP, Commands, add_command
from pneumolib.errors import DataError


def add(commands: Commands) -> None:
    download = add_command(
        commands,
        "download",
        _download,
        "fetch the data set from Kaggle and verify it",
        "pneumolib download --to data",
    )
    download.add_argument("--to", metavar="DIR", help="put it there rather than in kagglehub's cache")

    audit = add_command(
        commands,
        "audit",
        _audit,
        "count a data set's files, find duplicates and leaks, test it for shortcuts",
        "pneumolib audit data.zip --html audit.html --json audit.json\n"
        "  pneumolib audit mine --patients '(p[0-9]+)-'   # mine/healthy/p12-1.png, mine/ill/p7-1.png",
    )
    audit.add_argument("data", metavar="DATA", nargs="?", help=f"{DATA_HELP}; or a folder or zip with a folder a class")
    audit.add_argument("--json", metavar="F", type=Path, help="write the findings to F")
    audit.add_argument("--html", metavar="F", type=Path, help="write a page with figures to F")
    audit.add_argument(
        "--patients", metavar="PATTERN", help="regular expression; its group in a file's name is the patient"
    )


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
