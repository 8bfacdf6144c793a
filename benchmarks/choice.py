"""By what shall a configuration be chosen, when a random part of train is nearly solved?

Each configuration is trained on the same patients, with several seeds, and measured on patients of the official train
part, none of whom it was trained on:

- ``val``: random patients. The look of devices, the JPEG quality and the rest help here, so everything is near 1.
- ``shifted``: the patients whose numbers lie nearest to the test set's, pixels perturbed (`pneumolib.data.splits`).
- ``crossed``: patients on whom the look of the device misleads (`pneumolib.data.exports`): four of five images with
  pneumonia were written in blocks of 8 pixels, one healthy one in eighteen, and held out are half of those healthy
  patients, and a part of the patients with pneumonia of the other kind.
- ``stressed``: the random patients again, mean over the changes of frame, position, exposure and encoding of
  `pneumolib.data.stress` (all but the hidden lung box).

The rule of choice is the mean of ``shifted`` and ``stressed``. With ``--test`` the finished runs are measured on the
test images too, when nothing is left to choose; then the rank correlation of each measure with the test AUC over the
configurations says which of them should have been listened to.

The other decisions of the recipe are measured in the same way: ``RECIPE`` with the net of the preset ``scratch``,
smaller and shorter, without the test images, and ``PRETRAINED`` with that of the preset ``cpu``. Runs go on where they
were interrupted, and rows are added to those that the JSON has of the same size and epochs:

    PNEUMOLIB_DATA=chest_xray.zip python benchmarks/choice.py --seeds 0 1
    PNEUMOLIB_DATA=chest_xray.zip python benchmarks/choice.py --seeds 0 1 --test --json benchmarks/results/choice.json
    PNEUMOLIB_DATA=chest_xray.zip python benchmarks/choice.py --configurations Lite0 "Lite0, margin" --size 128 \\
        --epochs 5 --seeds 0 --test --json benchmarks/results/recipe_pretrained.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pneumolib import runtime
from pneumolib.config import Config, environment
from pneumolib.data.dataset import Dataset, ImageSet, load_dataset
from pneumolib.data.exports import export_groups
from pneumolib.data.splits import Split, shifted_images, split_by_patient
from pneumolib.evaluation.metrics import auc
from pneumolib.models.augment import STRENGTHS
from pneumolib.models.detector import Detector
from pneumolib.models.stress import StressTable, stress_tests
from pneumolib.models.training import train

HELD_OUT = {"normal": (1, 0.5), "bacterial": (0, 0.12), "viral": (0, 0.12)}  # group and share of its patients

MEDIUM, STRONG = STRENGTHS["medium"], STRENGTHS["strong"]
# What all configurations start from: a ResNet-18 from scratch, before the decisions measured here had been taken.
START: dict[str, Any] = dict(architecture="resnet18", width=32, augmentation="medium", mix_style=0.5)
# What the decisions of the preset `cpu` are measured from: the recipe that stood before they had been taken.
BORROWED: dict[str, Any] = dict(
    **START | dict(architecture="efficientnet_lite0", weights="imagenet", augmentation="strong"),
    warmup_epochs=0.5, fine_tune_learning_rate=5e-4, final_rate=0.1, average_weights=0.995, precision="float32",
)  # fmt: skip
# Deliberately different, so that a good rule has something to tell apart; each differs from the start in one thing.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "the start": {},
    "no augmentation": dict(augmentation="none"),
    "light augmentation": dict(augmentation="light"),
    "without tone": dict(augmentation={k: v for k, v in MEDIUM.items() if k != "tone"}),
    "without mixed style": dict(mix_style=0.0),
    "two classes": dict(classes=2),
    "export weights 8": dict(export_weights=8),
}
# The recipe's other decisions, one by one: what each is worth at this size of net.
RECIPE: dict[str, dict[str, Any]] = {
    "strong augmentation": dict(augmentation="strong"),
    "more blur, noise, low resolution": dict(augmentation={**MEDIUM, "blur": 3.0, "noise": 16, "resolution": 0.25}),
    "closer and further": dict(augmentation={**MEDIUM, "scale": 0.35, "translation": 0.15}),
    "wider borders hidden": dict(augmentation={**MEDIUM, "border": 0.2}),
    "every step every time": dict(augmentation={**MEDIUM, "occasional": 1.0}),
    "without label smoothing": dict(label_smoothing=0.0),
    "label smoothing .15": dict(label_smoothing=0.15),
    "without averaged weights": dict(average_weights=None),
    "averaged weights .998": dict(average_weights=0.998),
    "averaged weights .998, rate to a quarter": dict(average_weights=0.998, final_rate=0.25),
    "averaged weights .998, rate to a quarter, strong": dict(
        average_weights=0.998, final_rate=0.25, augmentation="strong"
    ),
    "dropout .3": dict(dropout=0.3),
    "stochastic depth .2": dict(stochastic_depth=0.2),
    "mixup .2": dict(mixup=0.2),
    "width 16": dict(width=16),
    "width 48": dict(width=48),
    "ResNet-34": dict(architecture="resnet34"),
    "twice the epochs": dict(epochs=24),
    "96 pixels": dict(size=96),
    "128 pixels": dict(size=128),
}
# Those of the network that begins with ImageNet weights; with a margin, the same number of pixels lies inside it.
FRAMED = STRENGTHS["framed"]
WIDER: dict[str, Any] = {**FRAMED, "border": 0.15, "cut": 0.15}
INNER = dict(size=152, margin=12 / 152)
PRETRAINED: dict[str, dict[str, Any]] = {
    "Lite0": {},
    "Lite0 without mixed style": dict(mix_style=0.0),
    "Lite0, 96 pixels": dict(size=96),
    "Lite0, 160 pixels": dict(size=160),
    "Lite0, letters, some straight, wider cuts": dict(augmentation=WIDER),
    "Lite0, margin": dict(**INNER),
    "Lite0, margin, letters": dict(**INNER, augmentation={**STRONG, "letters": 0.14}),
    "Lite0, margin, letters, some straight": dict(**INNER, augmentation=FRAMED),
    "Lite0, margin, letters, some straight, wider cuts": dict(**INNER, augmentation=WIDER),
    "Lite0, margin, twice the epochs": dict(**INNER, epochs=10),
}
ALL: dict[str, dict[str, Any]] = {
    **{name: {**START, **changes} for name, changes in {**CONFIGURATIONS, **RECIPE}.items()},
    **{name: {**BORROWED, **changes} for name, changes in PRETRAINED.items()},
}
FRAME = ("aspect", "rotation", "borders", "markers")  # groups of changes that reach what surrounds the chest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder or a zip; left out: PNEUMOLIB_DATA, then kagglehub")
    parser.add_argument("--configurations", nargs="+", choices=list(ALL), default=list(CONFIGURATIONS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--runs", type=Path, default=environment().home / "choice", help="where the runs go")
    parser.add_argument("--test", action="store_true", help="measure on the test images too: once, at the very end")
    parser.add_argument("--json", type=Path, help="rows of other configurations and seeds in it are kept")
    arguments = parser.parse_args()
    before = rows_of(arguments.json, arguments.size, arguments.epochs) if arguments.json else []

    data = load_dataset(arguments.data)
    split, crossed = hold_out(split_by_patient(data.train))
    rows, detectors = [], []
    for name in arguments.configurations:
        for seed in arguments.seeds:
            changes = {"size": arguments.size, "epochs": arguments.epochs, "seed": seed}
            config = Config.from_dict({"name": "choice", **changes, **ALL[name]})
            out = arguments.runs / f"{config.fingerprint()}-{split.fingerprint()[:8]}"
            detector = train(split, config, out=out, progress=False).detector
            rows.append({"configuration": name, "seed": seed, **measure(detector, split, crossed)})
            if arguments.test:
                p = detector.probability(data.test.images(config.size))
                rows[-1]["test_auc"] = auc(data.test.is_pneumonia, p)
            print(f"trained: {name}, seed {seed}, AUC on validation {rows[-1]['val_auc']:.4f}", flush=True)
            detectors.append(detector)
    # All at once, since making the changed images takes longer than a small net's answer.
    for row, table in zip(rows, stress_tests(detectors, split.val), strict=True):
        row.update(under_stress(table))
        row["rule"] = (row["shifted_auc"] + row["stressed_auc"]) / 2
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    if arguments.json:
        new = {(row["configuration"], row["seed"]) for row in rows}
        kept = [row for row in before if (row["configuration"], row["seed"]) not in new]
        result = summary(kept + rows, data, crossed)
        result |= {"size": arguments.size, "epochs": arguments.epochs}
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


def measure(detector: Detector, split: Split, crossed: ImageSet) -> dict[str, float]:
    """Return the AUC on each holdout but the stressed one."""
    size = detector.size
    return {
        "val_auc": auc(split.val.is_pneumonia, detector.probability(split.val.images(size))),
        # The perturbation must not differ between seeds: its draws are part of the holdout.
        "shifted_auc": auc(
            split.shifted.is_pneumonia, detector.probability(shifted_images(split.shifted, size, seed=0))
        ),
        "crossed_auc": auc(crossed.is_pneumonia, detector.probability(crossed.images(size))),
    }


def under_stress(table: StressTable) -> dict[str, float]:
    """Return means over the changes of the random validation patients, and what the lung box alone tells."""
    untouched, changed = table.rows[0], [row for row in table.rows[1:] if row.group != "lung box"]
    framed = [row for row in changed if row.group in FRAME]
    hidden, alone = (next(r for r in table.rows if (r.group, r.level) == ("lung box", x)) for x in ("hidden", "only"))
    return {
        "stressed_auc": float(np.mean([row.auc for row in changed])),
        # At the frozen threshold: what a change of the picture does to the calls, where the ranking may still hold.
        "accuracy": untouched.accuracy,
        "specificity": untouched.specificity,
        "stressed_accuracy": float(np.mean([row.accuracy for row in changed])),
        "worst_accuracy": min(row.accuracy for row in changed),
        "framed_accuracy": float(np.mean([row.accuracy for row in framed])),
        "framed_specificity": float(np.mean([row.specificity for row in framed])),
        "lungs_hidden_auc": hidden.auc,
        "lungs_alone_auc": alone.auc,
        "lungs_alone_accuracy": alone.accuracy,
    }


def rows_of(path: Path, size: int, epochs: int) -> list[dict[str, Any]]:
    """Return the rows that stand in the file already; those of other settings must not be mixed with new ones."""
    if not path.exists():
        return []
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if (found["size"], found["epochs"]) != (size, epochs):
        raise SystemExit(
            f"choice: {path} holds rows of {found['size']} pixels and {found['epochs']} epochs; name another file, or "
            f"the same settings. Received: --size {size} --epochs {epochs}"
        )
    rows: list[dict[str, Any]] = found["rows"]
    return rows


def summary(rows: list[dict[str, Any]], data: Dataset, crossed: ImageSet) -> dict[str, Any]:
    """Return everything that the README says about the choice, ready for JSON."""
    groups, subtypes, ill = export_groups(data.train), data.train.subtypes, crossed.is_pneumonia
    result: dict[str, Any] = {
        "machine": runtime.describe(),
        "phantom": data.phantom,
        "in_blocks_of_8": {s: round(float(groups[subtypes == s].mean()), 4) for s in HELD_OUT},
        "crossed_images": {"normal": int((~ill).sum()), "pneumonia": int(ill.sum())},
        "rows": [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows],
    }
    if all("test_auc" in row for row in rows):
        result["rank_correlation_with_test"] = correlations(rows)
    return result


def correlations(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return for each measure Spearman's rank correlation with the test AUC, over the configurations' means."""
    from scipy.stats import spearmanr

    names = sorted({row["configuration"] for row in rows})
    measures = ("val_auc", "shifted_auc", "crossed_auc", "stressed_auc", "rule", "test_auc")
    means = {m: np.array([np.mean([r[m] for r in rows if r["configuration"] == n]) for n in names]) for m in measures}
    means["mean of val, shifted, crossed"] = (means["val_auc"] + means["shifted_auc"] + means["crossed_auc"]) / 3
    test = means.pop("test_auc")
    return {measure: round(float(spearmanr(values, test).statistic), 3) for measure, values in means.items()}


if __name__ == "__main__":
    main()
