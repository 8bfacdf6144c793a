"""Measure how well the label can be told by what is no medicine, at full scale: `pneumolib audit` without the rest.

From a table of facts about the original files (CSV), which says nothing of their pixels, or from a data set:

    python benchmarks/shortcuts.py --facts file_facts.csv --json benchmarks/results/shortcuts.json
    python benchmarks/shortcuts.py --data chest_xray

The numbers are those that the README sets beside the detector's.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

import pneumolib as pn
from pneumolib.data.facts import look
from pneumolib.data.shortcuts import plain_rows, shortcut_baselines
from pneumolib.errors import PneumolibError


def main(arguments: list[str] | None = None) -> int:
    """Print the table of baselines; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--facts", type=Path, help="CSV: split, class, filename, mode, width, height, ...")
    source.add_argument("--data", help="a folder, a zip, kaggle or phantom")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    options = parser.parse_args(arguments)
    try:
        facts, described = _facts(options)
        baselines = shortcut_baselines(facts)
    except (PneumolibError, OSError) as error:
        print(f"shortcuts: {error}", file=sys.stderr)
        return 2
    print(baselines.round(4).to_string(index=False, na_rep="-"))
    if options.json:
        result: dict[str, Any] = {
            "source": described,
            "n": len(facts),
            "model": "logistic regression on standardised features; 5 folds by patient on train; threshold .5",
            "baselines": plain_rows(baselines),
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _facts(options: argparse.Namespace) -> tuple[pd.DataFrame, str]:
    if options.facts:
        facts = pd.read_csv(options.facts)
        return facts, f"per-file facts of the {len(facts):,} originals"
    data = pn.load_dataset(options.data)
    records = [record for part in data.parts().values() for record in part]
    facts = look(data.source, records, progress=True).facts
    return facts, f"{'PHANTOM' if data.phantom else 'data set'} of {len(facts):,} files"


if __name__ == "__main__":
    sys.exit(main())
