"""Does the detector know pneumonia, or the device that wrote the file? And does balancing the devices help?

Four of five training images with pneumonia were written in blocks of 8 pixels, one healthy one in eighteen
(`pneumolib.data.exports`). So half of the healthy patients of that rare kind are held out, and with them a part of the
patients with pneumonia of *their* rare kind: on these *crossed* images the look of the device says the opposite of
what it says in training. The rest is trained on with various caps of `export_weights`, and for each is told

- the AUC on the random validation patients, where the look of the device helps,
- the AUC on the shifted validation patients, and
- the AUC on the crossed ones, where it misleads.

Weights help on the last and cost on the other two, since few images then speak for many; the presets leave them off.
Only training patients are used. The net is that of the preset ``cpu``, smaller and shorter, so that one training takes
a few minutes on two cores:

    PNEUMOLIB_DATA=chest_xray.zip python benchmarks/exports.py --caps 1 8 --json benchmarks/results/exports.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.data.dataset import ImageSet, load_dataset
from pneumolib.data.exports import export_groups
from pneumolib.data.splits import Split, shifted_images, split_by_patient
from pneumolib.evaluation.metrics import auc
from pneumolib.models.training import train

HELD_OUT = {"normal": (1, 0.5), "bacterial": (0, 0.12), "viral": (0, 0.12)}  # group and share of its patients


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder or a zip; left out: PNEUMOLIB_DATA, then kagglehub")
    parser.add_argument("--caps", type=float, nargs="+", default=[1, 8])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    data = load_dataset(arguments.data)
    split, crossed = hold_out(split_by_patient(data.train))
    truth, ill = crossed.is_pneumonia, split.val.is_pneumonia
    rows = []
    for cap in arguments.caps:
        for seed in arguments.seeds:
            config = Config.preset("cpu", size=arguments.size, epochs=arguments.epochs, export_weights=cap, seed=seed)
            with tempfile.TemporaryDirectory() as folder:
                detector = train(split, config, out=Path(folder) / "run", progress=False).detector
            p = detector.probability(crossed.images(config.size))
            p_val = detector.probability(split.val.images(config.size))
            p_shifted = detector.probability(shifted_images(split.shifted, config.size, seed=seed))
            rows.append(
                {
                    "export_weights": cap,
                    "seed": seed,
                    "val_auc": auc(ill, p_val),
                    "shifted_auc": auc(split.shifted.is_pneumonia, p_shifted),
                    "crossed_auc": auc(truth, p),
                    "crossed_specificity": float((p[~truth] < detector.threshold).mean()),
                    "crossed_sensitivity": float((p[truth] >= detector.threshold).mean()),
                }
            )
            print({key: round(value, 4) for key, value in rows[-1].items()}, flush=True)
    if arguments.json:
        groups = export_groups(data.train)
        result = {
            "machine": runtime.describe(),
            "phantom": data.phantom,
            "size": arguments.size,
            "epochs": arguments.epochs,
            "in_blocks_of_8": {
                subtype: round(float(groups[data.train.subtypes == subtype].mean()), 4) for subtype in HELD_OUT
            },
            "crossed_images": {"normal": int((~truth).sum()), "pneumonia": int(truth.sum())},
            "rows": [{key: round(value, 4) for key, value in row.items()} for row in rows],
        }
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def hold_out(split: Split) -> tuple[Split, ImageSet]:
    """Take the crossed patients out of the training part; return what is left, and them."""
    part = split.train
    groups, rng, out = export_groups(part), np.random.default_rng(7), np.zeros(len(part), bool)
    for subtype, (group, share) in HELD_OUT.items():
        rare = (part.subtypes == subtype) & (groups == group)
        patients = sorted(set(part.patients[rare]))
        chosen = rng.choice(patients, round(len(patients) * share), replace=False)
        out |= np.isin(part.patients, chosen)
    # A patient's images of the common kind leave training too, and are not measured.
    crossed = out & np.array([groups[i] == HELD_OUT[s][0] for i, s in enumerate(part.subtypes)])
    return replace(split, train=part.take(~out)), part.take(crossed, name="crossed")


if __name__ == "__main__":
    main()
