"""What does it cost to score an archive, does it bear that workers die, and how much memory does it take?

Four runs over synthetic X-rays of full size, a few thousand files under many names:

- both engines score the same folder, and in the middle of each a worker is killed; the two files must be the same;
- two workers score three times as many images with the memory limited that they and who started them may ask for, so
  that all together have less than a tenth of the archive's bytes; what they really hold is watched, too;
- parts of a million rows are written and joined, and the names of a folder are listed, to know what those cost.

Whatever else runs on the machine stretches the wall time. The seconds of a core that each step took are counted by
the core, and hold on a busy machine as well. Twenty minutes on two cores, and 2 GB of disk:

    python benchmarks/scoring.py

The script writes benchmarks/results/scoring.json. It looks into /proc, so it needs Linux.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from pneumolib.data.phantom import COMMENT
from pneumolib.data.radiograph import SUBTYPES, draw
from pneumolib.scale.inputs import Input
from pneumolib.scale.parts import blank_row, join_parts, write_part
from pneumolib.scale.tally import Tally

RESULTS = Path(__file__).parent / "results" / "scoring.json"
SIZES = ((1000, 1350), (1200, 1500), (1400, 1700))
LIMIT = 320 * 2**20  # bytes that each process may ask for in the run that is short of memory (RLIMIT_DATA)

# Scores, and prints what the summary says as JSON: {"seconds": …, "costs": {…}, …}.
JOB = """
import json, resource, sys
arguments = json.loads(sys.argv[1])
if limit := arguments.pop("limit", None):
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
from pneumolib.scale.score import score
summary = score(**arguments, progress=False)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"images": summary.images, "errors": summary.errors, "seconds": summary.seconds,
                  "costs": summary.costs.to_dict(), "core_seconds_of_workers": usage.ru_utime + usage.ru_stime}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, help="of the comparison of the engines")
    parser.add_argument("--memory-images", type=int, default=60_000, help="of the run that is short of memory")
    parser.add_argument("--distinct", type=int, default=1_000, help="so many files stand behind all the names")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scoring") as name:
        place = Path(name)
        files = draw_files(place / "drawn", arguments.distinct)
        archive, large = place / "archive", place / "large"
        link(files, archive, arguments.images)
        engines = {engine: compare(archive, place / f"{engine}.parquet", engine) for engine in ("local", "ray")}
        identical = (place / "local.parquet").read_bytes() == (place / "ray.parquet").read_bytes()
        link(files, large, arguments.memory_images)
        result = {
            "machine": {
                "cores": len(os.sched_getaffinity(0)),
                "processor": processor(),
                "load": round(os.getloadavg()[0], 1),
                "python": platform.python_version(),
            },
            "versions": {n: importlib.metadata.version(n) for n in ("onnxruntime", "pillow", "pyarrow", "ray")},
            "images": {
                "distinct": len(files),
                "pixels": [list(size) for size in SIZES],
                "mean_bytes": round(sum(f.stat().st_size for f in files) / len(files)),
            },
            "engines": engines,
            "identical": identical,
            "memory": short_of_memory(large, place / "large.parquet"),
            "listing_seconds_per_million": listing(large),
            "rows": million_rows(place / "rows"),
        }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    print(f"written: {arguments.json}")


# === The archive ===


def draw_files(folder: Path, n: int) -> list[Path]:
    """Draw n synthetic X-rays of full size, as JPEG files."""
    folder.mkdir()
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(draw_one, [folder / f"{number:05d}.jpeg" for number in range(n)], chunksize=20))


def draw_one(path: Path) -> Path:
    number = int(path.stem)
    height, width = SIZES[number % len(SIZES)]
    small = draw(SUBTYPES[number % len(SUBTYPES)], number, size=(height // 4, width // 4))
    large = np.asarray(Image.fromarray(small).resize((width, height)), np.int16)
    # The grain of a detector: without it a JPEG of an enlarged drawing would be far too small.
    grain = np.random.default_rng(number).normal(0, 2, (height, width)).astype(np.int16)
    Image.fromarray((large + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90, comment=COMMENT)
    return path


def link(files: list[Path], folder: Path, n: int) -> None:
    """Give the files n names, a thousand to a folder."""
    for number in range(n):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(files[number % len(files)], path)


# === The runs ===


def compare(archive: Path, out: Path, engine: str) -> dict[str, Any]:
    """Score the archive and kill a worker when half of the parts are there."""
    job, parts, killed = start({"input": str(archive), "out": str(out), "engine": engine}), Path(f"{out}.parts"), 0
    while job.poll() is None:
        time.sleep(0.2)
        if not killed and half_done(parts) and (busy := at_work(parts)):
            os.kill(busy[0], signal.SIGKILL)
            killed += 1
    facts, table, cores = outcome(job), pq.read_table(out), len(os.sched_getaffinity(0))
    names = collections.Counter(table["path"].to_pylist())
    wanted = {str(path.relative_to(archive)) for path in archive.rglob("*.jpeg")}
    n, costs = facts["images"], facts["costs"]
    steps = {step: costs[f"{step}_seconds"] / n * 1e3 for step in ("read", "decode", "network", "write")}
    return {
        "images": n,
        "workers_killed": killed,
        "deaths_noticed": costs["deaths"],
        "rows": table.num_rows,
        "lost": len(wanted - set(names)),
        "doubled": sum(count - 1 for count in names.values()),
        "errors": facts["errors"],
        "seconds": round(facts["seconds"], 1),
        "images_per_second": round(n / facts["seconds"], 1),
        "images_per_second_and_core": round(n / facts["seconds"] / cores, 1),
        "milliseconds_of_a_core": {**{k: round(v, 3) for k, v in steps.items()}, "sum": round(sum(steps.values()), 3)},
        "load": round(os.getloadavg()[0], 1),
    }


def short_of_memory(archive: Path, out: Path) -> dict[str, Any]:
    """Score the archive with two workers, the memory of each process limited; watch what all of them really hold."""
    job = start({"input": str(archive), "out": str(out), "workers": 2, "limit": LIMIT})
    held, processes = 0, 0
    while job.poll() is None:
        family = [job.pid, *children(job.pid)]
        held, processes = max(held, sum(map(proportional_memory, family))), max(processes, len(family))
        time.sleep(0.5)
    facts = outcome(job)
    size = sum(path.stat().st_size for path in archive.rglob("*.jpeg"))
    return {
        "images": facts["images"],
        "errors": facts["errors"],
        "rows": pq.read_metadata(out).num_rows,
        "archive_bytes": size,
        "limit_bytes_each": LIMIT,
        "processes": processes,
        "archive_over_limit_of_all": round(size / (LIMIT * processes), 1),
        "peak_bytes_held_by_all": held,
        "archive_over_peak": round(size / held, 1),
        "seconds": round(facts["seconds"], 1),
        "core_seconds_of_the_workers": round(facts["core_seconds_of_workers"], 1),
        "core_milliseconds_per_image_with_start": round(facts["core_seconds_of_workers"] / facts["images"] * 1e3, 3),
        "load": round(os.getloadavg()[0], 1),
    }


def listing(archive: Path) -> float:
    """Return the seconds of a core for the names, sizes and times of a million files."""
    began, n = time.process_time(), 0
    for member in Input(archive).members():
        member.to_json()
        n += 1
    return round((time.process_time() - began) / n * 1e6, 1)


def million_rows(folder: Path) -> dict[str, Any]:
    """Write a thousand parts of a thousand rows and join them."""
    folder.mkdir()
    row = blank_row() | {"threshold": 0.5, "operating_point": "balanced", "input_ok": True, "decision": "pneumonia"}
    row |= {name: f"detector {name}" for name in ("detector_name", "detector_version", "detector_sha256")}
    for shard in range(1000):
        chance = np.random.default_rng(shard).random((1000, 3))
        rows = [
            row | {"path": f"{shard:03d}/{i:06d}.jpeg", "probability": p, "bacterial": b, "viral": v}
            for i, (p, b, v) in enumerate(chance.tolist())
        ]
        write_part(folder, shard, rows, "job", Tally(images=1000))
    began = time.perf_counter()
    joined = join_parts(folder, 1000, folder / "all.parquet", {})
    seconds = time.perf_counter() - began
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "rows": joined,
        "seconds_to_join": round(seconds, 1),
        "bytes_of_parts": sum(path.stat().st_size for path in folder.glob("part-*")),
        "bytes": (folder / "all.parquet").stat().st_size,
        "peak_bytes_of_the_process": own,
    }


# === Processes ===


def start(arguments: dict[str, Any]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", JOB, json.dumps(arguments)], stdout=subprocess.PIPE, text=True)


def outcome(job: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = job.communicate()
    if job.returncode:
        raise SystemExit(f"The job ended with status {job.returncode}.")
    facts: dict[str, Any] = json.loads(said.splitlines()[-1])
    return facts


def half_done(parts: Path) -> bool:
    try:
        manifest = json.loads((parts / "_manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return len(list(parts.glob("part-*"))) >= len(manifest["offsets"]) // 2


def at_work(parts: Path) -> list[int]:
    """The processes that hold a note of the job, whichever engine has started them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = [os.readlink(entry) for entry in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(path.startswith(str(parts)) and path.endswith(".doing") for path in held):
            found.append(int(process.name))
    return found


def children(process: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        return [int(number) for task in tasks for number in (task / "children").read_text().split()]
    except OSError:
        return []


def proportional_memory(process: int) -> int:
    """Return the bytes that a process holds in memory; what several share is divided between them."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
