"""What docs/scaling.md says of measured costs, from the committed results; tools/results.py writes it there."""

from __future__ import annotations

import json
from typing import Any

from project import ROOT

from pneumolib.scale.manifest import default_shard_size

SCALING = ROOT / "docs" / "scaling.md"
IMAGES = 10_000_000
CORES = (16, 64, 256)


def scoring() -> str:
    """Return what scoring costs an image, and what follows for ten million of them."""
    found = json.loads((ROOT / "benchmarks" / "results" / "scoring.json").read_text(encoding="utf-8"))
    return "\n\n".join(
        (_engines(found), _memory(found["memory"]), _arithmetic(found), "`python benchmarks/scoring.py`")
    )


def _engines(found: dict[str, Any]) -> str:
    machine, images, local = found["machine"], found["images"], found["engines"]["local"]
    rows = [
        "| engine | images | workers killed | lost | doubled | ms of a core an image | images a second | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in found["engines"].items():
        rows.append(
            f"| `{name}` | {run['images']:,} | {run['workers_killed']} | {run['lost']} | {run['doubled']} "
            f"| {run['milliseconds_of_a_core']['sum']:.1f} | {run['images_per_second']:.0f} | {run['load']:.0f} |"
        )
    text, steps = "\n".join(rows), local["milliseconds_of_a_core"]
    same = "are the same, byte for byte" if found["identical"] else "DIFFER"
    sizes = ", ".join(f"{height} x {width}" for height, width in images["pixels"])
    return f"""\
Measured on {machine["cores"]} cores ({machine["processor"]}) with synthetic X-rays as JPEG files of {sizes} pixels and
{images["mean_bytes"] / 1e3:.0f} kB in the mean, {images["distinct"]:,} files under all the names. In the middle of each
run a worker was killed:

{text}

The two files {same}. An image takes {steps["read"]:.1f} ms to read (from the system's cache), {steps["decode"]:.1f} to
decode, {steps["network"]:.1f} in the network and its checks, {steps["write"]:.2f} to write. These are counted by the
core; images a second are by the clock, and the machine was doing other work besides: its load, the processes that
wanted a core, stands in the last column."""


def _memory(run: dict[str, Any]) -> str:
    each = run["limit_bytes_each"]
    return f"""\
**Memory.** {run["images"]:,} images, {run["archive_bytes"] / 1e9:.0f} GB of files, were scored by {run["processes"]}
processes (two workers and their caller) that might ask for {each / 1e6:.0f} MB of memory each (`RLIMIT_DATA`), all
together a {run["archive_over_limit_of_all"]:.0f}th of the archive. They really held
{run["peak_bytes_held_by_all"] / 1e6:.0f} MB at the most, a {run["archive_over_peak"]:.0f}th, with
{run["errors"]} errors in {run["rows"]:,} rows."""


def _arithmetic(found: dict[str, Any]) -> str:
    steps, rows = found["engines"]["local"]["milliseconds_of_a_core"], found["rows"]
    seconds, each = IMAGES * steps["sum"] / 1e3, found["images"]["mean_bytes"]
    shard = default_shard_size(IMAGES)
    memory = found["memory"]["peak_bytes_held_by_all"] / found["memory"]["processes"]
    listing = IMAGES / 1e6 * found["listing_seconds_per_million"]
    lines = [
        "| | ten million images |",
        "|---|---|",
        f"| computing | {IMAGES:,} x {steps['sum']:.1f} ms = {seconds / 3600:,.0f} hours of a core |",
    ]
    for cores in CORES:
        speed = cores / steps["sum"] * 1e3
        lines.append(
            f"| on {cores} cores | {_time(seconds / cores)}, {speed:,.0f} images a second; storage must give "
            f"{speed * each / 1e6:,.0f} MB/s |"
        )
    lines += [
        f"| files to read | {IMAGES * each / 1e12:.1f} TB |",
        f"| listing them, at the start of each call | {_time(listing)} of a core, where the system has the folders in "
        "its cache |",
        f"| parts | {IMAGES // shard:,} shards of {shard:,} images, "
        f"{IMAGES / rows['rows'] * rows['bytes_of_parts'] / 1e6:,.0f} MB |",
        f"| joining them | {_time(IMAGES / rows['rows'] * rows['seconds_to_join'])}, in "
        f"{rows['peak_bytes_of_the_process'] / 1e6:.0f} MB of memory |",
        f"| the result | {IMAGES / rows['rows'] * rows['bytes'] / 1e6:,.0f} MB, "
        f"{rows['bytes'] / rows['rows']:.0f} bytes a row |",
        f"| a worker that dies | costs at most {_time(shard * steps['sum'] / 1e3)} of its core |",
        f"| memory | {memory / 1e6:.0f} MB a process |",
    ]
    return "**Ten million images**, by these numbers:\n\n" + "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
