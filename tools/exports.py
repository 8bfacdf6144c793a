"""The table of docs/export.md, from the committed results; tools/results.py writes it there."""

from __future__ import annotations

import json
from typing import Any

from project import ROOT

EXPORT = ROOT / "docs" / "export.md"
NAMES = {
    "keras": "Keras, `model.predict`",
    "pneumolib": "pneumolib itself, with features and style",
    "openvino default": "OpenVINO, float32, left to choose its number format",
}


def exports() -> str:
    """Return the table of formats and precisions, with what its columns mean."""
    found = json.loads((ROOT / "benchmarks" / "results" / "export.json").read_text(encoding="utf-8"))
    parts, machine = found["images"], found["machine"]
    n = sum(parts.values())
    rows = [
        "| | MB | P differs by, mean | at most | AUC, random | AUC, shifted | decisions changed "
        "| ms, 1 image | ms, 8 images | opens in s | MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        val, shifted = row["parts"]["val"], row["parts"]["shifted"]
        mean = sum(row["parts"][name]["mean_difference"] * parts[name] for name in parts) / n
        most = max(val["max_difference"], shifted["max_difference"])
        name = NAMES.get(row["name"], f"`{row['name']}`")
        size = f"{row['bytes'] / 1e6:.1f}" if "bytes" in row else ""
        rows.append(
            f"| {name} | {size} | {_small(mean)} | {_small(most)} "
            f"| {_change(val['auc_change'])} | {_change(shifted['auc_change'])} "
            f"| {val['decisions_changed'] + shifted['decisions_changed']} "
            f"| {_latency(row, 1)} | {_latency(row, 8)} | {row['open_s']:.2f} | {row['peak_rss_mib']:.0f} |"
        )
    table = "\n".join(rows)
    whole = next(row for row in found["rows"] if row["name"] == "keras")["parts"]
    aucs = f"{whole['val']['auc']:.4f} and {whole['shifted']['auc']:.4f}"
    sizes = ", ".join(f"{name} {facts['mib']} MiB" for name, facts in found["packages"].items())
    return f"""\
{table}

The detector that ships, `{found["detector"]}`, on {parts["val"]} random and {parts["shifted"]} shifted validation
images: by how much P(pneumonia) differs from Keras's, what that changes in the AUC (Keras's is {aucs}),
and in how many of the {n} decisions at the balanced threshold. Milliseconds are medians on one thread and, after the
stroke, on two; in brackets the median ratio to `onnx float32`. Each runtime had a process of its own, and they were
asked in turn, on {machine["cores"]} cores. How long such a process takes to open the network, and its memory, stand in
the last columns. int8 was calibrated with {found["representative"]} training images. The packages take {sizes} on disk.
`python benchmarks/export.py`."""


def _small(difference: float) -> str:
    return f"{difference:.4f}" if difference >= 1e-4 else f"{difference:.0e}" if difference else "0"


def _change(value: float) -> str:
    return f"{value:+.4f}" if abs(value) >= 5e-5 else "0"


def _latency(row: dict[str, Any], batch: int) -> str:
    one, two = (row[f"ms_batch{batch}_threads{threads}"] for threads in (1, 2))
    return f"{one['p50']:.1f} / {two['p50']:.1f} ({one['over_base']:.2f} / {two['over_base']:.2f})"
