"""Fill the README's table of results from what the benchmarks committed: no number in it is typed by hand.

    python tools/results.py           write the table into README.md
    python tools/results.py --check   change nothing; status 1 where the README is out of step

Each number comes from a file in ``benchmarks/results``; the text beside it names the benchmark that writes the file.
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
    return f"{accuracy()}\n\n### The device behind the file\n\n{device()}\n\n### Speed\n\n{speed()}"


def accuracy() -> str:
    """Return our result beside the baselines and what others published."""
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
        rows.append(_row(f"baseline without pixels: {name}", "none", row["n_test"], plain))
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
The half was looked at several times while the recipe was found, so a part of our row may be luck.
`python benchmarks/accuracy.py` measures our row, `python benchmarks/shortcuts.py` the baselines."""


def device() -> str:
    """Return what balancing the export groups does on patients held out for it."""
    exports = _read("exports")
    share, crossed = exports["in_blocks_of_8"], exports["crossed_images"]
    rows = ["| cap of `export_weights` | random validation | shifted validation | crossed |", "|---|---|---|---|"]
    for row in exports["rows"]:
        cap = "off" if row["export_weights"] == 1 else f"{row['export_weights']:g}"
        rows.append(f"| {cap} | {row['val_auc']:.3f} | {row['shifted_auc']:.3f} | {row['crossed_auc']:.3f} |")
    text = "\n".join(rows)
    return f"""\
Of the original training files, {share["bacterial"]:.0%} of the bacterial, {share["viral"]:.0%} of the viral and
{share["normal"]:.0%} of the normal ones were written in blocks of 8 pixels, by one device or program with a look of its
own. *Crossed* are held-out training patients on whom that look misleads: {crossed["normal"]} normal images of that kind
and {crossed["pneumonia"]} with pneumonia of the other. AUC of a small net ({exports["size"]} pixels,
{exports["epochs"]} epochs) by `python benchmarks/exports.py`:

{text}

Weights help on the crossed images and cost on the others, since few images then speak for many; the presets leave
them off. So the net leans on the look of the device, and it has to be known."""


def speed() -> str:
    """Return what a person waits for, as the benchmarks of speed measured it."""
    start, feeding, runtimes = _read("startup"), _read("feeding"), _read("runtimes")
    seconds = start["seconds"]
    light = runtimes["runtimes"]["onnxruntime, graph by pneumolib"]
    ratio = feeding["pneumolib_over"]["layers in the model"]
    return f"""\
`import pneumolib` takes {seconds["import pneumolib"]["p50"]:.2f} s and imports no TensorFlow; `pneumolib predict FILE`
answers {seconds["pneumolib predict FILE"]["p50"]:.2f} s after the key press, and one X-ray takes the network
{light["latency_ms_batch1_threads1"]["p50"]:.1f} ms on one thread (medians on {start["machine"]["cores"]} cores).
Training feeds {feeding["images_per_second"]["pneumolib"]:.0f} images/s, {ratio:.2f} times what `model.fit` reaches on
an array in memory with Keras's augmentation layers ({feeding["size"]} pixels, {feeding["machine"]}).
`python benchmarks/startup.py`, `runtimes.py` and `feeding.py` measure these."""


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
