"""How long does a person wait: for ``import pneumolib``, and from the key press to the answer of ``pneumolib predict``?

Each is measured as a whole process, in turn with an empty Python process, so that a busy machine slows all of them
alike. The detector is the one that ships; the X-ray is a phantom of full size. Also recorded: which of the heavy
packages were imported, and how many bytes went to standard error.

    python benchmarks/startup.py

The script writes benchmarks/results/startup.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from pneumolib.data.radiograph import draw

RESULTS = Path(__file__).parent / "results" / "startup.json"
ROUNDS = 15
HEAVY = (
    "tensorflow",
    "keras",
    "pandas",
    "sklearn",
    "scipy",
    "matplotlib",
    "seaborn",
    "cv2",
    "kagglehub",
    "onnxruntime",
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "x-ray.jpeg"
        # The size that an X-ray of the data set has.
        Image.fromarray(draw("normal", 0, size=(320, 400))).resize((1640, 1328)).save(picture, quality=90)
        predict = f"from pneumolib.cli import main; main(['predict', {str(picture)!r}])"
        commands = {
            "python": [sys.executable, "-c", "pass"],
            "import pneumolib": [sys.executable, "-c", "import pneumolib"],
            "pneumolib --help": [str(Path(sys.executable).with_name("pneumolib")), "--help"],
            "pneumolib predict FILE": [str(Path(sys.executable).with_name("pneumolib")), "predict", str(picture)],
        }
        seconds, noise = measure(commands)
        imported = {
            "import pneumolib": heavy("import pneumolib"),
            "pneumolib predict FILE": heavy(predict),
        }
    empty = statistics.median(seconds["python"])
    result = {
        "machine": {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "python": platform.python_version()},
        "seconds": {
            name: {
                "p50": round(statistics.median(values), 3),
                "min": round(min(values), 3),
                "p50_over_empty_python": round(statistics.median(values) - empty, 3),
                "bytes_on_standard_error": noise[name],
            }
            for name, values in seconds.items()
        },
        "heavy_packages_imported": imported,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, values in result["seconds"].items():
        print(f"{name:<24} {values['p50']:.3f} s (least {values['min']:.3f} s), {noise[name]} bytes on standard error")
    for name, packages in imported.items():
        print(f"{name:<24} imports {', '.join(packages) or 'none of the heavy packages'}")


def measure(commands: dict[str, list[str]]) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Return seconds of each round and the most bytes on standard error; the first round only warms the disk up."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    noise = dict.fromkeys(commands, 0)
    for turn in range(ROUNDS + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, check=True)
            if turn:
                seconds[name].append(time.perf_counter() - began)
                noise[name] = max(noise[name], len(done.stderr))
    return seconds, noise


def heavy(program: str) -> list[str]:
    """Return which of `HEAVY` a program has imported when it ends."""
    watched = f"{program}\nimport sys\nprint(*sorted(set({HEAVY!r}) & sys.modules.keys()), sep=',')"
    done = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines()[-1].split(",") if name]


if __name__ == "__main__":
    main()
