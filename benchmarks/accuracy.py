"""Train with a preset and measure on the test images: the README's result, from the zip to the JSON.

    PNEUMOLIB_DATA=chest_xray.zip python benchmarks/accuracy.py --preset cpu --json benchmarks/results/cpu.json

The run goes on where it was interrupted. The test images are evaluated once, at the threshold that training froze.
Beside the JSON, the prediction for each test image is written as CSV: name, subtype, probability.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from pneumolib import runtime
from pneumolib.config import PRESETS, Config
from pneumolib.data.dataset import load_dataset
from pneumolib.models.evaluate import evaluate
from pneumolib.models.training import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder or a zip; left out: PNEUMOLIB_DATA, then kagglehub")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="the run's folder")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    data = load_dataset(arguments.data)
    config = Config.preset(arguments.preset, seed=arguments.seed)
    run = train(data, config, out=arguments.out)
    report = evaluate(run.detector, data.test)
    print(report)
    if arguments.json:
        card = run.detector.card
        facts = {
            "preset": arguments.preset,
            "config": config.to_dict(),
            "seed": config.seed,
            "machine": runtime.describe(),
            "minutes": sum(row["seconds"] for row in run.history) / 60,
            "val_auc": card["val_auc"],
            "shifted_auc": card["shifted_auc"],
            "images": card["images"],
            "history": run.history,
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"report": report.to_dict(), "run": facts}, indent=1) + "\n")
        probabilities = run.detector.probability(data.test.images(config.size))
        with arguments.json.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["name", "subtype", "probability"])
            for record, p in zip(data.test.records, probabilities, strict=True):
                writer.writerow([record.name, record.subtype, f"{p:.6f}"])


if __name__ == "__main__":
    main()
