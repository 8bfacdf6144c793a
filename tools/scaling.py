"""What docs/scaling.md says of measured costs, from the committed results; tools/results.py writes it there."""

from __future__ import annotations

import json
import textwrap
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


def training_memory() -> str:
    """Return what training held of stores of two sizes."""
    found = json.loads((ROOT / "benchmarks" / "results" / "memory.json").read_text(encoding="utf-8"))
    size, (small, large) = found["size"], found["stores"]
    rows = [
        f"| images of {size} x {size} | store | limit | own memory before | own memory at most |",
        "|---|---|---|---|---|",
    ]
    for store in (small, large):
        rows.append(
            f"| {store['images']:,} | {store['store_mib']:,} MiB | {store['limit_mib']:,} MiB "
            f"| {store['own_at_start_mib']:,} MiB | {store['own_peak_mib']:,} MiB |"
        )
    after = _lines(
        f"The larger store is {large['store_mib'] / large['limit_mib']:.0f} times the limit, and "
        f"{large['store_mib'] / large['own_peak_mib']:.0f} times what was held; it took "
        f"{large['own_peak_mib'] / small['own_peak_mib']:.2f} times the memory of the smaller one. (ResNet-18 of width "
        f"{found['width']}, batches of {found['batch_size']}, {found['steps']} steps, {found['machine']}; a wider "
        "network or a larger batch takes what it takes, whatever the number of images.)"
    )
    return "\n".join(rows) + f"\n\n{after}"


def _engines(found: dict[str, Any]) -> str:
    machine, images, local = found["machine"], found["images"], found["engines"]["local"]
    rows = [
        "| engine | images | workers killed | lost | doubled | decode | network | by the clock | load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, run in found["engines"].items():
        steps = run["milliseconds_of_a_core"]
        rows.append(
            f"| `{name}` | {run['images']:,} | {run['workers_killed']} | {run['lost']} | {run['doubled']} "
            f"| {steps['decode']:.1f} ms | {steps['network']:.1f} ms | {run['images_per_second']:.0f} images/s "
            f"| {run['load']:.0f} |"
        )
    text, steps = "\n".join(rows), local["milliseconds_of_a_core"]
    same = "are the same, byte for byte" if found["identical"] else "DIFFER"
    sizes = ", ".join(f"{height} x {width}" for height, width in images["pixels"])
    before = _lines(
        f"Measured on {machine['cores']} cores ({machine['processor']}) with synthetic X-rays as JPEG files of {sizes} "
        f"pixels and {images['mean_bytes'] / 1e3:.0f} kB in the mean, {images['distinct']:,} files under all names. "
        "In the middle of each run a worker was killed:"
    )
    after = _lines(
        f"The two files {same}. Decoding, and the network with its checks, are counted by the core that they keep "
        "busy. By the clock the engines cannot be compared here: the machine was doing other work, and the load, how "
        "many processes wanted one of its cores, was another each time. Reading took the local engine "
        f"{steps['read']:.1f} ms by the clock, waiting for a core included, and writing {steps['write']:.1f}."
    )
    return f"{before}\n\n{text}\n\n{after}"


def _memory(run: dict[str, Any]) -> str:
    cost = run["core_milliseconds_per_image_with_start"]
    return _lines(
        f"**Memory.** {run['images']:,} images, {run['archive_bytes'] / 1e9:.1f} GB of files, were scored by "
        f"{run['processes']} processes (two workers and their caller) that might ask for "
        f"{run['limit_bytes_each'] / 1e6:.0f} MB of memory each (`RLIMIT_DATA`): the archive is "
        f"{run['archive_over_limit_of_all']:.0f} times what they had together. They really held "
        f"{run['peak_bytes_held_by_all'] / 1e6:.0f} MB at the most, and left {run['rows']:,} rows with {run['errors']} "
        f"errors, {run['images'] / run['seconds']:.0f} a second by the clock at a load of {run['load']:.0f}. The "
        f"workers kept their cores busy for {cost:.1f} ms an image with all that they do, from their start to the last "
        f"row: {1e3 / cost:.0f} images a second and core, which is the cost to reckon with."
    )


def _arithmetic(found: dict[str, Any]) -> str:
    cost, rows = found["memory"]["core_milliseconds_per_image_with_start"], found["rows"]
    seconds, each = IMAGES * cost / 1e3, found["images"]["mean_bytes"]
    shard = default_shard_size(IMAGES)
    memory = found["memory"]["peak_bytes_held_by_all"] / found["memory"]["processes"]
    listing = IMAGES / 1e6 * found["listing_seconds_per_million"]
    lines = [
        "| | |",
        "|---|---|",
        f"| computing | {IMAGES:,} x {cost:.1f} ms = {seconds / 3600:,.0f} hours of a core |",
    ]
    for cores in CORES:
        speed = cores / cost * 1e3
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
        f"| a worker that dies | costs at most {_time(shard * cost / 1e3)} of its core |",
        f"| memory | {memory / 1e6:.0f} MB a process, what they share divided between them |",
    ]
    return "**Ten million images** of that kind, by these numbers:\n\n" + "\n".join(lines)


def _lines(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
