"""How fast does one process score many files: one after the other, side by side, or in batches?

X-rays of full size (phantoms as JPEG) are scored by the detector that ships, in ways that take turns, so that a busy
machine slows all of them alike:

- ``loop``: one file after the other, each by all cores, as `Detector.predict` does when nothing else is said
- ``side by side``: as many files at a time as there are cores, each by one core: what ``pneumolib predict`` does
- ``side by side, all cores each``: the same with a detector that takes all cores for each of them
- ``batches``: decoded side by side, then sixteen at a time through the network, by all cores
- ``side by side, with heat maps``: what ``pneumolib predict --heatmap`` does

    python benchmarks/files.py

The script writes benchmarks/results/files.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from pneumolib.data.radiograph import draw
from pneumolib.models.detector import Detector, load_detector
from pneumolib.models.files import predict_files
from pneumolib.models.heat_files import HeatFolder
from pneumolib.runtime import available_cores

RESULTS = Path(__file__).parent / "results" / "files.json"
FILES, ROUNDS, BATCH = 48, 9, 16


def main() -> None:
    cores = available_cores()
    alone, shared = load_detector(threads=1), load_detector(threads=cores)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{seed:02}.jpeg" for seed in range(FILES)]
        for seed, path in enumerate(files):
            # The size that an X-ray of the data set has.
            picture = Image.fromarray(draw(("normal", "bacterial", "viral")[seed % 3], seed, size=(320, 400)))
            picture.resize((1640, 1328)).save(path, quality=90)
        heat, names = HeatFolder(Path(folder) / "heat"), [Path(path.name) for path in files]
        ways: dict[str, Callable[[], object]] = {
            "loop": lambda: [shared.predict(path) for path in files],
            "side by side": lambda: list(predict_files(alone, files, workers=cores)),
            "side by side, all cores each": lambda: list(predict_files(shared, files, workers=cores)),
            "batches": lambda: in_batches(shared, files, cores),
            "side by side, with heat maps": lambda: list(
                predict_files(alone, files, heat_folder=heat, heat_names=names, workers=cores)
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(ROUNDS + 1):
            for name, score in ways.items():
                began = time.perf_counter()
                score()
                if turn:  # the first round only warms up
                    seconds[name].append(time.perf_counter() - began)
    result = {
        "machine": {"cores": cores, "load": round(os.getloadavg()[0], 1), "python": platform.python_version()},
        "files": FILES,
        "milliseconds_a_file": {
            name: {
                "p50": round(statistics.median(values) / FILES * 1000, 2),
                "min": round(min(values) / FILES * 1000, 2),
                "of_loop": round(statistics.median(a / b for a, b in zip(values, seconds["loop"], strict=True)), 2),
            }
            for name, values in seconds.items()
        },
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, values in result["milliseconds_a_file"].items():
        print(f"{name:<30} {values['p50']:6.2f} ms a file (least {values['min']:.2f}), {values['of_loop']:.2f} of loop")


def in_batches(detector: Detector, files: list[Path], workers: int) -> list[object]:
    found: list[object] = []
    with ThreadPoolExecutor(workers) as pool:
        squares = list(pool.map(detector.prepare, files))
        for start in range(0, len(squares), BATCH):
            found += detector.predict(squares[start : start + BATCH])
    return found


if __name__ == "__main__":
    main()
