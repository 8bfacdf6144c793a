"""Fill the README's table of results from what the benchmarks committed: no number in it is typed by hand.

    python tools/results.py           write the table into README.md
    python tools/results.py --check   change nothing; status 1 where the README is out of step

The result of the `cpu` preset (``benchmarks/results/cpu.json``) comes from ``benchmarks/accuracy.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from project import ROOT

from pneumolib.evaluation.published import N_TEST, PUBLISHED

README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"


def results() -> str:
    """Return the table of results: baselines, ours with intervals, published anchors; and the figures of speed."""
    ours = _read("cpu")
    report, run = ours["report"], ours["run"]
    shortcuts = {row["features"]: row for row in _read("shortcuts")["baselines"]}
    rows = [
        "| | pre-training | test images | AUC | accuracy | sensitivity | specificity |",
        "|---|---|---|---|---|---|---|",
        _row("**pneumolib, preset `cpu`** (ResNet-18, 160 pixels)", "none", report["n"], report),
    ]
    for name in ("width and height", "JPEG quality", "majority class"):
        row = shortcuts[name]
        plain = {key.removesuffix("_test"): value for key, value in row.items() if key.endswith("_test")}
        rows.append(_row(f"baseline without pixels: {name}", "-", row["n_test"], plain))
    for other in PUBLISHED:
        rows.append(_row(f"{other.model}; {other.source}", other.pretraining, N_TEST, vars(other)))
    text = "\n".join(rows)
    subtypes = report["per_subtype"]
    return f"""\
{text}

Ours: one run, seed {run["seed"]}, {run["minutes"]:.0f} minutes on {run["machine"]}, on the
224-pixel copies of the data set of which half of the test patients were at hand (n = {report["n"]}). In brackets
the 95 % interval, by resampling patients. The threshold, {report["threshold"]:.3f}, was frozen on validation patients.
Sensitivity for bacterial pneumonia {subtypes["bacterial"]["sensitivity"]:.3f}, for viral
{subtypes["viral"]["sensitivity"]:.3f}. Brier score {report["brier"]:.3f}, calibration error {report["ece"]:.3f}.
AUC on validation {run["val_auc"]:.4f}, on shifted validation {run["shifted_auc"]:.4f}. Published rows are on all
624 test images, as their sources give them; differences below two points of accuracy between single runs mean nothing.
`python benchmarks/accuracy.py` measures our row, `python benchmarks/shortcuts.py` the baselines."""


def fill(text: str) -> str:
    """Return the README's text with its table of results made anew."""
    start, end = "<!-- results:start -->", "<!-- results:end -->"
    before, rest = text.split(start)
    return before + start + "\n" + results() + "\n" + end + rest.split(end)[1]


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _row(name: str, pretraining: str, n: int, values: dict[str, Any]) -> str:
    cells = []
    for metric in ("auc", "accuracy", "sensitivity", "specificity"):
        if values.get(metric) is None:
            cells.append("")
            continue
        interval = values.get(f"{metric}_ci")
        cells.append(f"{values[metric]:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""))
    return f"| {name} | {pretraining} | {n} | " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 where out of step")
    check = parser.parse_args().check
    text = README.read_text(encoding="utf-8")
    wanted = fill(text)
    if check and text != wanted:
        print("README.md is out of step with benchmarks/results. Run: python tools/results.py", file=sys.stderr)
        return 1
    if not check:
        README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
