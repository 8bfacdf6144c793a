"""How long does a person wait: for ``import pneumolib``, and from the key press to the answer of ``pneumolib predict``?

Each is measured as a whole process, in turn with an empty Python process, so that a busy machine slows all of them
alike. The detector is the network of the preset ``cpu`` (ResNet-18, 160 pixels) with random weights: what it answers is
meaningless, how long it takes is not. The X-ray is a phantom of full size. Also recorded: which of the heavy packages
were imported, and how many bytes went to standard error.

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

import numpy as np

from pneumolib import Config, build_model, runtime
from pneumolib.data.images import square
from pneumolib.data.radiograph import draw
from pneumolib.evaluation.calibration import choose_operating_points
from pneumolib.models.detector import make_detector
from pneumolib.models.reference import fit_reference

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
        detector, picture = Path(folder) / "detector", Path(folder) / "x-ray.jpeg"
        prepare(detector, picture)
        predict = (
            f"from pneumolib.cli import main; main(['predict', {str(picture)!r}, '--detector', {str(detector)!r}])"
        )
        commands = {
            "python": [sys.executable, "-c", "pass"],
            "import pneumolib": [sys.executable, "-c", "import pneumolib"],
            "pneumolib --help": [str(Path(sys.executable).with_name("pneumolib")), "--help"],
            "pneumolib predict FILE": [
                str(Path(sys.executable).with_name("pneumolib")), "predict", str(picture), "--detector", str(detector)
            ],
        }  # fmt: skip
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


def prepare(folder: Path, picture: Path) -> None:
    """Save a detector with random weights, and one X-ray as a JPEG of the size that the data set's have."""
    from PIL import Image

    config = Config.preset("cpu")
    images = np.stack([square(draw("normal", seed), config.size) for seed in range(12)])
    points = choose_operating_points(np.arange(12) % 2, np.linspace(0.1, 0.9, 12))
    with runtime.seeded(0):
        model = build_model(config, precision="float32")
    detector = make_detector(
        model,
        config,
        name="random",
        temperature=1.0,
        operating_points=points,
        reference=fit_reference(images),
        card={"phantom": False},
    )
    detector.save(folder)
    Image.fromarray(draw("normal", 0, size=(320, 400))).resize((1640, 1328)).save(picture, quality=90)


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
