"""How does the frozen detector bear changes of the picture: JPEG, resolution, frame, exposure, position, a hidden lung?

    PNEUMOLIB_DATA=chest_xray.zip python benchmarks/stress.py --split test --json benchmarks/results/stress.json

Left out, `--detector` takes the one that ships with the package. Given several times, as with several seeds, each
detector decides by its own frozen threshold, and the mean of them is printed. The parts ``val`` and ``shifted`` are
those of the detector's own split: with ``val``, detectors of different seeds are measured on different images. The
pixels of ``shifted`` are left as they are. A minute or two for each detector and part on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pneumolib import runtime
from pneumolib.data.dataset import Dataset, ImageSet, load_dataset
from pneumolib.data.splits import split_by_patient
from pneumolib.errors import PneumolibError
from pneumolib.models.detector import Detector, load_detector
from pneumolib.models.stress import StressTable, stress_tests

NAMES = ("group", "level", "label")


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder, a zip or phantom; left out: PNEUMOLIB_DATA, then kagglehub")
    parser.add_argument("--detector", action="append", help="folder of a detector or a run; may be given several times")
    parser.add_argument("--split", choices=("test", "val", "shifted"), default="val")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    options = parser.parse_args(arguments)
    try:
        data = load_dataset(options.data)
        detectors = [load_detector(folder, allow_phantom=data.phantom) for folder in options.detector or [None]]
        tables = measure(detectors, data, options.split)
    except (PneumolibError, OSError) as error:
        print(f"stress: {error}", file=sys.stderr)
        return 2
    if len(tables) == 1:
        print(tables[0])
    rows = combined(tables)
    if len(tables) > 1:
        table = pd.DataFrame(rows).drop(columns=["group", "level", "each"]).set_index("label")
        print(f"{'PHANTOM: ' * tables[0].phantom}mean of {len(tables)} detectors, {tables[0].source}")
        print((table.astype(float).round(3) + 0.0).to_string(index_names=False, na_rep="-"))
    if options.json:
        result = {
            "machine": runtime.describe(),
            "split": options.split,
            "source": tables[0].source,
            "phantom": any(table.phantom for table in tables),
            "n": [table.n for table in tables],
            "detectors": [
                {"name": detector.name, "seed": detector.config.seed, "threshold": round(table.threshold, 4)}
                for detector, table in zip(detectors, tables, strict=True)
            ],
            "rows": rows,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def measure(detectors: list[Detector], data: Dataset, split: str) -> list[StressTable]:
    """Return the table of each detector; those that are measured on the same images share the stressed ones."""
    parts: dict[str, tuple[ImageSet, list[int]]] = {}
    for i, detector in enumerate(detectors):
        seed = detector.card.get("split_seed", detector.config.seed)
        part = data.test if split == "test" else split_by_patient(data.train, seed=seed).parts()[split]
        parts.setdefault(part.fingerprint(), (part, []))[1].append(i)
    found: dict[int, StressTable] = {}
    for part, mine in parts.values():
        found |= dict(zip(mine, stress_tests([detectors[i] for i in mine], part, progress=True), strict=True))
    return [found[i] for i in range(len(detectors))]


def combined(tables: list[StressTable]) -> list[dict[str, Any]]:
    """Return one row a stress: each measure as the mean over the detectors, and the value of each of them."""
    rows = []
    for same in zip(*(table.to_dict()["rows"] for table in tables), strict=True):
        each = {name: [_rounded(row[name]) for row in same] for name in same[0] if name not in NAMES}
        means = {
            name: None if None in values else _rounded(float(np.mean([row[name] for row in same])))
            for name, values in each.items()
        }
        rows.append({**{name: same[0][name] for name in NAMES}, **means, "each": each})
    return rows


def _rounded(value: float | None) -> float | None:
    # A loss of -0.00001 would be written as -0.0.
    return None if value is None else round(value, 4) + 0.0


if __name__ == "__main__":
    sys.exit(main())
