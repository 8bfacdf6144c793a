"""Train the detector with several seeds, choose one on validation, measure all on the test images, and ship the chosen.

    PNEUMOLIB_DATA=chest_xray.zip python benchmarks/accuracy.py --seeds 0 1 2
    PNEUMOLIB_DATA=chest_xray.zip python benchmarks/accuracy.py --seeds 0 1 2 --json benchmarks/results/cpu.json --ship

The first trains; each run goes on where it was interrupted, and one that is finished is taken as it is. The second,
when nothing is left to choose, also measures on the test images, at the threshold that each training froze, and writes
the JSON and beside it a CSV with the probability of each test image: name, label, subtype, one column a seed. All
seeds share one split by patient. The detector that ships, in ``pneumolib/weights``, is the one with the highest mean
of the AUC on random and on shifted validation; the test images have no say in it.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

import pneumolib
from pneumolib import runtime
from pneumolib.config import PRESETS, Config
from pneumolib.data.dataset import load_dataset
from pneumolib.data.splits import split_by_patient
from pneumolib.models.detector import load_detector
from pneumolib.models.evaluate import evaluate
from pneumolib.models.training import Run, train

METRICS = ("auc", "accuracy", "sensitivity", "specificity", "f1", "brier", "ece")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder or a zip; left out: PNEUMOLIB_DATA, then kagglehub")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cpu")
    parser.add_argument("--changes", type=json.loads, default={}, help="fields of Config that differ, as JSON")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, help="measure on the test images and write the result")
    parser.add_argument("--ship", action="store_true", help="put the chosen detector into pneumolib/weights")
    arguments = parser.parse_args()

    data = load_dataset(arguments.data)
    split = split_by_patient(data.train)
    runs = {
        seed: train(split, Config.preset(arguments.preset, **arguments.changes, seed=seed)) for seed in arguments.seeds
    }
    chosen = max(runs, key=lambda seed: on_validation(runs[seed]))
    print(f"chosen on validation: seed {chosen}")
    if arguments.ship:
        weights = Path(pneumolib.__file__).parent / "weights"
        runs[chosen].detector.save(weights)
        print(f"shipped: {load_detector()}")
    if arguments.json:
        reports = {seed: evaluate(run.detector, data.test) for seed, run in runs.items()}
        print(reports[chosen])
        rows = [facts(runs[seed], seed) | {"report": reports[seed].to_dict()} for seed in runs]
        result: dict[str, Any] = {
            "preset": arguments.preset,
            "config": runs[chosen].config.replace(seed=0).to_dict(),
            "machine": runtime.describe(),
            "images": runs[chosen].detector.card["images"],
            "chosen": chosen,
            "mean": {m: float(np.mean([row["report"][m] for row in rows])) for m in METRICS},
            "spread": {m: float(np.std([row["report"][m] for row in rows], ddof=1)) for m in METRICS} if len(rows) > 1
            else None,
            "runs": rows,
        }  # fmt: skip
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        columns = [run.detector.probability(data.test.images(run.config.size)) for run in runs.values()]
        with arguments.json.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["name", "label", "subtype", *(f"seed_{seed}" for seed in runs)])
            for record, *p in zip(data.test.records, *columns, strict=True):
                label = "normal" if record.subtype == "normal" else "pneumonia"
                writer.writerow([record.name, label, record.subtype, *(f"{value:.6f}" for value in p)])


def on_validation(run: Run) -> float:
    """Return what the choice between seeds goes by."""
    card = run.detector.card
    return (card["val_auc"] + card["shifted_auc"]) / 2


def facts(run: Run, seed: int) -> dict[str, Any]:
    """Return what is worth keeping of a finished run: its course, its time, its numbers on validation."""
    card = run.detector.card
    return {
        "seed": seed,
        "minutes": sum(row["seconds"] for row in run.history) / 60,
        "val_auc": card["val_auc"],
        "shifted_auc": card["shifted_auc"],
        "history": [{k: round(v, 6) for k, v in row.items()} for row in run.history],
    }


if __name__ == "__main__":
    main()
